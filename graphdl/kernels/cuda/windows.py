"""Max pooling on the device: what each window picks, and its transpose.

A thread makes one element of the result. The transpose gathers: an element asks each window that it
lies in whether that picks it, so that windows may overlap and the sums have one order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphdl.graph import Node
from graphdl.kernels.body import SUFFIX, number
from graphdl.kernels.copying import place_of
from graphdl.kernels.cuda.copying import each
from graphdl.kernels.cuda.launch import DeviceLaunch, blocks_for
from graphdl.kernels.program import Address, Buffer
from graphdl.kernels.source import KernelSource
from graphdl.kernels.windows import better
from graphdl.ops.convolution import Axis
from graphdl.ops.windows import window_axes
from graphdl.types import Dtype

#: Nanoseconds that one element of one window takes.
_COMPARISON = 0.2


def _words(axes: Sequence[Axis]) -> tuple[list[str], list[int]]:
    """What a kernel is told of its windows, and the names of it."""
    names, values = [], []
    for d, axis in enumerate(axes):
        for name, value in (
            ("places", axis.out), ("stride", axis.stride), ("size", axis.size), ("low", axis.low),
            ("apart", axis.rhs), ("window", axis.window),
        ):  # fmt: skip
            names.append(f"{name}{d}")
            values.append(value)
    return names, values


def _split(flat: str, sizes: Sequence[str], names: Sequence[str], rest: str) -> list[str]:
    """Lines that make indices of one; what is left goes to `rest`."""
    lines = [f"{rest} = {flat}"]
    for size, name in zip(reversed(sizes), reversed(names), strict=True):
        lines += [f"over = quotient({rest}, {size})", f"{name} = {rest} - over * {size}"]
        lines.append(f"{rest} = over")
    return lines


def _pick(axes: Sequence[Axis], dtype: Dtype) -> list[str]:
    """Lines after which `best_tap` and `best_at` say what the window at place0 ... picks."""
    rank = range(len(axes))
    inside = " & ".join(f"(at{d} >= 0) & (at{d} < size{d})" for d in rank)
    place = "image"
    for d in rank:
        place = f"({place} * size{d} + at{d})"
    return [
        "best_tap = -1",
        f"best = {number(0, dtype)}",
        "best_at = 0",
        "tap = 0",
        f"while tap < {' * '.join(f'window{d}' for d in rank)}:",
        *(
            "    " + line
            for line in [
                *_split("tap", [f"window{d}" for d in rank], [f"tap{d}" for d in rank], "left"),
                *(f"at{d} = place{d} * stride{d} - low{d} + tap{d} * apart{d}" for d in rank),
                f"if {inside}:",
                f"    here = {place} * channels + channel",
                "    value = x[here]",
                f"    if best_tap < 0 or {better('value', 'best', dtype)}:",
                "        best = value",
                "        best_tap = tap",
                "        best_at = here",
                "tap += 1",
            ]
        ),
    ]


def window_pick(node: Node, status: Buffer) -> list[DeviceLaunch]:
    """A thread for each place and channel."""
    y, x = node.inputs
    axes = window_axes(x.shape[1:-1], dict(node.attrs))
    names, values = _words(axes)
    rank = range(len(axes))
    body = [
        "rest = quotient(i, channels)",
        "channel = i - rest * channels",
        *_split("rest", [f"places{d}" for d in rank], [f"place{d}" for d in rank], "image"),
        *_pick(axes, x.dtype),
        "out[i] = y[best_at]",
    ]
    return _launch(node, body, (y, x), names, values)


def window_place(node: Node, status: Buffer) -> list[DeviceLaunch]:
    """A thread for each element of the image; places come in their order."""
    g, x = node.inputs
    axes = window_axes(x.shape[1:-1], dict(node.attrs))
    names, values = _words(axes)
    rank = range(len(axes))
    inside = " & ".join(
        f"(from{d} >= 0) & (place{d} * stride{d} == from{d}) & (place{d} < places{d})" for d in rank
    )
    place = "image"
    for d in rank:
        place = f"({place} * places{d} + place{d})"
    body = [
        "rest = quotient(i, channels)",
        "channel = i - rest * channels",
        *_split("rest", [f"size{d}" for d in rank], [f"own{d}" for d in rank], "image"),
        f"total = {number(0, node.dtype)}",
        f"mine = {' * '.join(f'window{d}' for d in rank)} - 1",
        "while mine >= 0:",
        *(
            "    " + line
            for line in [
                *_split("mine", [f"window{d}" for d in rank], [f"mine{d}" for d in rank], "left"),
                *(f"from{d} = own{d} + low{d} - mine{d} * apart{d}" for d in rank),
                *(f"place{d} = quotient(max_i64(from{d}, 0), stride{d})" for d in rank),
                f"if {inside}:",
                *("    " + line for line in _pick(axes, x.dtype)),
                "    if best_tap == mine:",
                f"        total = add(total, y[{place} * channels + channel])",
                "mine -= 1",
            ]
        ),
        "out[i] = total",
    ]
    return _launch(node, body, (g, x), names, values)


def _launch(
    node: Node,
    body: Sequence[str],
    operands: Sequence[Node],
    names: Sequence[str],
    values: Sequence[int],
) -> list[DeviceLaunch]:
    """The kernel over the elements of the node; y and x are its operands."""
    if not node.type.size or not operands[1].type.size:
        return []
    y, x = operands
    places = [place_of(operand) for operand in operands]
    words = ["target", "other", "image_at", "total_of", "channels", *names]
    lines = [
        f"def kernel({', '.join(words)}):",
        f"    out = {SUFFIX[node.dtype]}_at(target)",
        f"    y = {SUFFIX[y.dtype]}_at(other)",
        f"    x = {SUFFIX[x.dtype]}_at(image_at)",
        *each("total_of", body),
    ]
    work = node.type.size * math.prod(dict(node.attrs)["window"])
    return [
        DeviceLaunch(
            KernelSource(node.op.name, "\n".join(lines) + "\n"),
            (
                Address(node), *(where for where, _, _ in places), node.type.size, x.shape[-1],
                *values,
            ),
            blocks_for(node.type.size),
            work * _COMPARISON,
            tuple(dict.fromkeys(base for _, _, base in places)),
            (node,),
            (),
            (node,),
            sum(x.type.nbytes for x in (node, *dict.fromkeys(operands))),
            work,
        )
    ]  # fmt: skip
