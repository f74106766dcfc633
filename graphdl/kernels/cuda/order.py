"""Sorting lines on the device, and what is found in sorted lines.

A bitonic network: lg(n) (lg(n) + 1) / 2 rounds, in each of which every element meets one other.
Elements are pairs of a value and its position, and no two pairs are equal, so that the result is
that of a stable sort, the same at every run. A line is made a power of two long; what is added
comes last.
https://en.wikipedia.org/wiki/Bitonic_sorter
"""

from __future__ import annotations

import math

from graphdl.graph import Node
from graphdl.kernels.body import SUFFIX
from graphdl.kernels.copying import place_of
from graphdl.kernels.cuda.copying import each
from graphdl.kernels.cuda.launch import BLOCK, DeviceLaunch, blocks_for, power_of_two
from graphdl.kernels.program import Address, Buffer, Value
from graphdl.kernels.source import KernelSource
from graphdl.types import Dtype

#: Elements that one block sorts in shared memory, two for each thread.
IN_BLOCK = 1024


class Sorted:
    """Lines with their positions, sorted in memory of their own."""

    def __init__(self, node: Node, dtype: Dtype, lines: int, length: int) -> None:
        self.node, self.dtype, self.lines, self.length = node, dtype, lines, length
        self.padded = power_of_two(length)
        self.values = Buffer(lines * self.padded * dtype.itemsize, None, "values while sorted")
        self.places = Buffer(lines * self.padded * 8, None, "positions while sorted")

    @property
    def total(self) -> int:
        return self.lines * self.padded

    def fill(self, source: Address, base: Value) -> DeviceLaunch:
        """The lines with their positions; what is added has positions behind all others."""
        suffix = SUFFIX[self.dtype]
        lines = [
            "def kernel(source, values, places, total, padded, length):",
            f"    x = {suffix}_at(source)",
            f"    v = {suffix}_at(values)",
            "    p = i64_at(places)",
            *each(
                "total",
                [
                    "line = quotient(i, padded)",
                    "at = i - line * padded",
                    "p[i] = at",
                    f"v[i] = {suffix}(0)",
                    "if at < length:",
                    "    v[i] = x[line * length + at]",
                ],
            ),
        ]
        return self._launch("fill_lines", lines, source, (base,), ())

    def _launch(
        self,
        name: str,
        lines: list[str],
        first: Address | int,
        reads: tuple[Value, ...],
        more: tuple[int, ...],
    ) -> DeviceLaunch:
        words = (first, Address(self.values), Address(self.places), self.total, self.padded)
        return DeviceLaunch(
            KernelSource(name, "\n".join(lines) + "\n"),
            (*words, self.length, *more),
            blocks_for(self.total),
            self.total * 1.0,
            reads,
            (self.values, self.places),
            (),
            (self.node,),
            2 * self.values.nbytes,
            self.total,
        )

    def rounds(self) -> list[DeviceLaunch]:
        """The network, one launch a round."""
        found, size = [], 2
        while size <= self.padded:
            apart = size // 2
            while apart:
                found.append(self._round(size, apart))
                apart //= 2
            size *= 2
        return found

    def _round(self, size: int, apart: int) -> DeviceLaunch:
        """Each element and the one `apart` from it; runs of `size` go up and down in turn."""
        suffix = SUFFIX[self.dtype]
        lines = [
            "def kernel(unused, values, places, total, padded, length, size, apart):",
            f"    v = {suffix}_at(values)",
            "    p = i64_at(places)",
            *each(
                "quotient(total, 2)",
                [
                    "run = quotient(i, apart)",
                    "a = run * 2 * apart + (i - run * apart)",
                    "b = a + apart",
                    "line = quotient(a, padded)",
                    "up = (a - line * padded) & size == 0",
                    "x = v[a]",
                    "y = v[b]",
                    "xp = p[a]",
                    "yp = p[b]",
                    f"after = {_after('x', 'xp', 'y', 'yp', self.dtype)}",
                    "if after == up:",
                    "    v[a] = y",
                    "    v[b] = x",
                    "    p[a] = yp",
                    "    p[b] = xp",
                ],
            ),
        ]
        both = (self.values, self.places)
        return self._launch("sort_round", lines, 0, both, (size, apart))


def _after(x: str, xp: str, y: str, yp: str, dtype: Dtype) -> str:
    """Whether (x, xp) comes after (y, yp): what is added last, before it NaN, then by value."""
    larger = f"greater({x}, {y})"
    same = f"equal({x}, {y})"
    if dtype.kind == "f":
        larger = f"logical_or({larger}, logical_and(isnan({x}), logical_not(isnan({y}))))"
        same = f"logical_or({same}, logical_and(isnan({x}), isnan({y})))"
    inside = f"logical_or({larger}, logical_and({same}, {xp} > {yp}))"
    return (
        f"logical_or(logical_and({xp} >= length, logical_or({yp} < length, {xp} > {yp})), "
        f"logical_and(logical_and({xp} < length, {yp} < length), {inside}))"
    )


def _taken(lines: Sorted, out: Node, values: bool) -> DeviceLaunch:
    """The sorted values, or their positions, without what was added."""
    suffix = SUFFIX[out.dtype]
    found = lines.values if values else lines.places
    text = [
        "def kernel(source, target, total, padded, length):",
        f"    x = {suffix}_at(source)",
        f"    y = {suffix}_at(target)",
        *each(
            "total",
            ["line = quotient(i, length)", "y[i] = x[line * padded + (i - line * length)]"],
        ),
    ]
    return DeviceLaunch(
        KernelSource("take_lines", "\n".join(text) + "\n"),
        (Address(found), Address(out), out.type.size, lines.padded, lines.length),
        blocks_for(out.type.size),
        out.type.size * 0.5,
        (found,),
        (out,),
        (),
        (out,),
        2 * out.type.nbytes,
        0,
    )


def sort(node: Node, status: Buffer) -> list[DeviceLaunch]:
    """`sort` and `argsort` along the last axis."""
    if not node.type.size:
        return []
    x = node.inputs[0]
    where, _, base = place_of(x)
    length = x.shape[-1]
    lines = Sorted(node, x.dtype, x.type.size // length, length)
    out = _taken(lines, node, node.op.name == "sort")
    return [lines.fill(where, base), *lines.rounds(), out]


def searchsorted(node: Node, status: Buffer) -> list[DeviceLaunch]:
    """Each value halves its line until its place is found; NaN lie behind all numbers."""
    line, values = node.inputs
    if not node.type.size:
        return []
    suffix = SUFFIX[line.dtype]
    before = "less({m}, {x})" if node["side"] == "left" else "logical_not(less({x}, {m}))"
    if line.dtype.kind == "f":
        larger = "logical_or(less({a}, {b}), logical_and(isnan({b}), logical_not(isnan({a}))))"
        before = (
            larger.format(a="{m}", b="{x}")
            if node["side"] == "left"
            else f"logical_not({larger.format(a='{x}', b='{m}')})"
        )
    test = before.format(m="middle", x="value")
    text = [
        "def kernel(lines, values, target, total, length, count):",
        f"    x = {suffix}_at(lines)",
        f"    v = {suffix}_at(values)",
        "    out = i64_at(target)",
        *each(
            "total",
            [
                "row = quotient(i, count)",
                "value = v[i]",
                "low = 0",
                "high = length",
                "while low < high:",
                "    at = (low + high) >> 1",
                "    middle = x[row * length + at]",
                f"    if {test}:",
                "        low = at + 1",
                "    else:",
                "        high = at",
                "out[i] = low",
            ],
        ),
    ]
    places = [place_of(operand) for operand in (line, values)]
    return [
        DeviceLaunch(
            KernelSource("searchsorted", "\n".join(text) + "\n"),
            (
                *(where for where, _, _ in places), Address(node),
                node.type.size, line.shape[-1], values.shape[-1],
            ),
            blocks_for(node.type.size),
            node.type.size * math.log2(line.shape[-1] + 2),
            tuple(dict.fromkeys(base for _, _, base in places)),
            (node,),
            (),
            (node,),
            values.type.nbytes + node.type.nbytes,
            node.type.size,
        )
    ]  # fmt: skip


__all__ = ["BLOCK", "Sorted", "searchsorted", "sort"]
