"""Scattered updates on the device, in one order whatever the number of threads.

The targets are sorted, with the positions of their updates; the first of each run of equal targets
goes through the run in order, as the CPU does, so that sums are bitwise its sums. Where the caller
promises that targets differ, nothing is sorted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from graphdl.graph import Node
from graphdl.kernels.body import SUFFIX, identity
from graphdl.kernels.copying import place_of
from graphdl.kernels.cuda.copying import each, fill_launch, kept_launches, split_index
from graphdl.kernels.cuda.launch import DeviceLaunch, blocks_for
from graphdl.kernels.cuda.order import Sorted
from graphdl.kernels.program import Address, Buffer, Value
from graphdl.kernels.replace import collapsed
from graphdl.kernels.source import KernelSource
from graphdl.types import contiguous_strides, kind_of

_INDEX = np.dtype(np.int64)
_COMBINE = {
    "add": "add", "multiply": "multiply", "maximum": "maximum", "minimum": "minimum",
}  # fmt: skip


def scatter_add(node: Node, status: Buffer) -> list[DeviceLaunch]:
    """Zeros, with each row of the updates added where its index says."""
    updates, index = node.inputs
    row = math.prod(node.shape[1:])
    zero = fill_launch(node, identity("sum", node.dtype))
    if not updates.type.size:
        return [zero]
    combine = "logical_or" if kind_of(node.dtype) == "b" else "add"
    targets = _Targets(node, status, [index], (node.shape[0],), (row,))
    return [zero, *targets.launches(updates, row, [(row, 1)], 0, combine, False)]


def scatter(node: Node, status: Buffer) -> list[DeviceLaunch]:
    """What stays is copied, then the values go to their places: of several the last one stays."""
    x, values, *indices = node.inputs
    axes = node["axes"]
    places = contiguous_strides(node.shape)
    kept = kept_launches(node)
    if not values.type.size:
        return kept
    rest = [axis for axis in range(x.type.ndim) if axis not in axes]
    sizes = values.shape[indices[0].type.ndim :]
    start = sum(node["starts"][axis] * places[axis] for axis in rest)
    loops = collapsed(sizes, tuple(places[axis] * node["steps"][axis] for axis in rest))
    combine = _COMBINE.get(node["mode"])
    if kind_of(node.dtype) == "b" and combine is not None:
        combine = "logical_and" if combine in ("multiply", "minimum") else "logical_or"
    targets = _Targets(
        node,
        status,
        indices,
        tuple(node.shape[axis] for axis in axes),
        tuple(places[axis] for axis in axes),
    )
    unique = bool(dict(node.attrs).get("unique"))
    row = math.prod(sizes)
    return [*kept, *targets.launches(values, row, loops, start, combine, unique)]


class _Targets:
    """Where rows of updates go: their first elements in the result, from index arrays."""

    def __init__(
        self,
        node: Node,
        status: Buffer,
        indices: Sequence[Node],
        sizes: Sequence[int],
        steps: Sequence[int],
    ) -> None:
        self.node, self.status = node, status
        self.indices, self.sizes, self.steps = indices, sizes, steps
        self.count = indices[0].type.size
        self.keys = Buffer(8 * self.count, None, "targets of a scatter")

    def launches(
        self,
        updates: Node,
        row: int,
        loops: Sequence[tuple[int, int]],
        start: int,
        combine: str | None,
        unique: bool,
    ) -> list[DeviceLaunch]:
        found = [self._found()]
        keys, order = self.keys, None
        if not unique:
            lines = Sorted(self.node, _INDEX, 1, self.count)
            found += [lines.fill(Address(keys), keys), *lines.rounds()]
            keys, order = lines.values, lines.places
        return [*found, self._placed(updates, row, loops, start, combine, keys, order)]

    def _found(self) -> DeviceLaunch:
        """The targets, -1 for an index out of bounds, which the status tells of."""
        axes = range(len(self.indices))
        names = [f"{kind}{d}" for kind in ("index", "size", "step") for d in axes]
        inside = " & ".join(f"(at{d} >= 0) & (at{d} < size{d})" for d in axes)
        lines = [
            f"def kernel({', '.join(['keys', 'status', 'total', *names])}):",
            "    out = i64_at(keys)",
            *each(
                "total",
                [
                    *(f"at{d} = i64_at(index{d})[i]" for d in axes),
                    f"if {inside}:",
                    f"    out[i] = {' + '.join(f'at{d} * step{d}' for d in axes)}",
                    "else:",
                    "    out[i] = -1",
                    "    i64_at(status)[0] = 1",
                ],
            ),
        ]
        where = [place_of(index) for index in self.indices]
        return DeviceLaunch(
            KernelSource("targets", "\n".join(lines) + "\n"),
            (
                Address(self.keys), Address(self.status), self.count,
                *(address for address, _, _ in where), *self.sizes, *self.steps,
            ),
            blocks_for(self.count),
            self.count * 0.5,
            tuple(dict.fromkeys(base for _, _, base in where)),
            (self.keys, self.status),
            (),
            (self.node,),
            16 * self.count,
            self.count,
        )  # fmt: skip

    def _placed(
        self,
        updates: Node,
        row: int,
        loops: Sequence[tuple[int, int]],
        start: int,
        combine: str | None,
        keys: Buffer,
        order: Buffer | None,
    ) -> DeviceLaunch:
        """The first of each run of equal targets combines the run; each thread has a column."""
        node, suffix = self.node, SUFFIX[self.node.dtype]
        axes = range(len(loops))
        names = [f"{kind}{d}" for kind in ("n", "step") for d in axes]
        offset = " + ".join(f"d{d} * step{d}" for d in axes) or "0"
        value = "x[{at} * row + column]"
        here = "p" if order is None else "at[p]"
        step = value.format(at="q" if order is None else "at[q]")
        body = [
            "p = quotient(e, row)",
            "column = e - p * row",
            "i = column",
            *split_index([f"n{d}" for d in axes]),
            "key = keys[p]",
            "if key >= 0:",
            f"    target = key + {offset}",
        ]
        if order is None:
            first = value.format(at=here)
            new = first if combine is None else f"{combine}(y[target], {first})"
            body.append(f"    y[target] = {new}")
        else:
            new = step if combine is None else f"{combine}(total, {step})"
            body += [
                "    if p == 0 or keys[p - 1] != key:",
                "        total = y[target]",
                "        q = p",
                "        while q < count and keys[q] == key:",
                f"            total = {new}",
                "            q += 1",
                "        y[target] = total",
            ]
        loop = [line.replace("i = block", "e = block").replace("while i <", "while e <")
                for line in each("count * row", body)]  # fmt: skip
        loop[-1] = loop[-1].replace("i +=", "e +=")
        words = ["target_at", "updates", "keys_at", "order", "count", "row", *names]
        # The last key is never behind the sorted ones: those added to a line are not counted.
        lines = [
            f"def kernel({', '.join(words)}):",
            f"    y = {suffix}_at(target_at)",
            f"    x = {suffix}_at(updates)",
            "    keys = i64_at(keys_at)",
            "    at = i64_at(order)",
            *loop,
        ]
        where, _, base = place_of(updates)
        reads: tuple[Value, ...] = (base, keys) if order is None else (base, keys, order)
        return DeviceLaunch(
            KernelSource(f"scatter_{combine or 'set'}", "\n".join(lines) + "\n"),
            (
                Address(node, start * node.dtype.itemsize), where, Address(keys),
                Address(order if order is not None else keys), self.count, row,
                *(size for size, _ in loops), *(stride for _, stride in loops),
            ),
            blocks_for(self.count * row),
            self.count * row * 1.0,
            reads,
            (node,),
            (),
            (node,),
            2 * updates.type.nbytes,
            updates.type.size,
        )  # fmt: skip
