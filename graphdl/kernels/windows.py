"""Kernels of max pooling: what each window picks, and its transpose.

The elements of the window are written out, so that one loop over the channels compares them all in
registers. Where a window leaves the input, its elements outside are read as the nearest inside,
which comes first or is known already and so is never picked in their place.
"""

from __future__ import annotations

import itertools
import math

from graphdl.compiler.view import view_of
from graphdl.graph import Node
from graphdl.kernels.body import SUFFIX, number
from graphdl.kernels.nest import FEW
from graphdl.kernels.program import Address, Buffer, Launch, Word
from graphdl.kernels.source import KernelSource
from graphdl.ops.convolution import Axis
from graphdl.ops.windows import is_inside, window_axes
from graphdl.types import Dtype, kind_of

#: Nanoseconds that one element of one window takes.
COMPARISON = 0.2


class _Text:
    """The text of a kernel over windows, and its table."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.x = node.inputs[1]
        self.axes = window_axes(self.x.shape[1:-1], dict(node.attrs))
        self.words: list[Word] = []
        self.lines = ["def kernel(table, lo, hi):"]
        self.depth = 1
        self.channels = self.word("channels", self.x.shape[-1])
        self.reads: list[Node] = []
        for i, axis in enumerate(self.axes):
            self.word(f"places{i}", axis.out)
            self.word(f"stride{i}", axis.stride)
            self.word(f"size{i}", axis.size)
            self.word(f"low{i}", axis.low)
            self.word(f"apart{i}", axis.rhs)

    def word(self, name: str, value: Word) -> str:
        self.add(f"{name} = table[{len(self.words)}]")
        self.words.append(value)
        return name

    def array(self, name: str, node: Node) -> None:
        """A word with the address of an operand or of the result."""
        view = view_of(node)
        assert view is not None
        self.word(name, Address(view.base, view.offset * node.dtype.itemsize))
        if node is not self.node:
            self.reads.append(view.base)

    def add(self, line: str) -> None:
        self.lines.append("    " * self.depth + line)

    def places(self, i: int) -> None:
        """Where each element of the window lies along axis i, in elements, from place p{i} on."""
        axis = self.axes[i]
        self.add(f"start{i} = p{i} * stride{i} - low{i}")
        if not is_inside(axis):
            first, last = f"max_i64(-start{i}, 0)", f"size{i} - 1 - start{i}"
            if axis.rhs > 1:
                first, last = f"({first} + apart{i} - 1) // apart{i}", f"({last}) // apart{i}"
            self.add(f"first{i} = {first}")
            self.add(f"last{i} = min_i64({last}, {axis.window - 1})")
        for k in range(axis.window):
            element = str(k) if is_inside(axis) else f"min_i64(max_i64({k}, first{i}), last{i})"
            self.add(f"a{i}_{k} = start{i} + {element} * apart{i}")

    def pointers(self, name: str, array: str, image: str) -> list[str]:
        """Names of pointers to the elements of the window in one image."""
        names = []
        dtype = self.node.dtype if array != "x_at" else self.x.dtype
        for number_, at in enumerate(itertools.product(*(range(a.window) for a in self.axes))):
            place = image
            for i, k in enumerate(at):
                place = f"({place}) * size{i} + a{i}_{k}"
            names.append(f"{name}{number_}")
            self.add(
                f"{names[-1]} = {SUFFIX[dtype]}_at({array} + ({place}) * channels"
                f" * {dtype.itemsize})"
            )
        return names

    def lanes(self) -> None:
        kind = "few_lanes" if self.x.shape[-1] <= FEW else "lanes"
        self.add(f"for j in {kind}(0, channels):")
        self.depth += 1

    def launch(self, iterations: int) -> list[Launch]:
        node, comparisons = self.node, math.prod(axis.window for axis in self.axes)
        work = max(node.inputs[0].type.size, node.type.size) * comparisons
        moved = sum(x.type.nbytes for x in (node, *dict.fromkeys(node.inputs)))
        if not iterations or not node.type.size:
            return []
        return [
            Launch(
                KernelSource(node.op.name, "\n".join(self.lines) + "\n"),
                tuple(self.words),
                iterations,
                work * COMPARISON,
                tuple(dict.fromkeys(self.reads)),
                (node,),
                (),
                (node,),
                moved,
                work,
            )
        ]


def better(value: str, best: str, dtype: Dtype) -> str:
    """Whether a value is picked after `best`: NaN is larger than any number."""
    test = f"greater({value}, {best})"
    if kind_of(dtype) == "f":
        test = f"logical_or({test}, logical_and(isnan({value}), logical_not(isnan({best}))))"
    return test


def window_pick(node: Node, status: Buffer) -> list[Launch]:
    """Iterations are lines of places along the last axis."""
    y, x = node.inputs
    text = _Text(node)
    text.array("out_at", node)
    text.array("x_at", x)
    if y is not x:
        text.array("y_at", y)
    last = len(text.axes) - 1
    text.add("for r in range(lo, hi):")
    text.depth += 1
    text.add("image = r")
    for i in reversed(range(last)):
        text.add(f"q{i} = image // places{i}")
        text.add(f"p{i} = image - q{i} * places{i}")
        text.add(f"image = q{i}")
        text.places(i)
    text.add(f"for p{last} in range(places{last}):")
    text.depth += 1
    text.places(last)
    xs = text.pointers("x", "x_at", "image")
    ys = text.pointers("y", "y_at", "image") if y is not x else xs
    text.add(
        f"out = {SUFFIX[node.dtype]}_at(out_at + (r * places{last} + p{last}) * channels"
        f" * {node.dtype.itemsize})"
    )
    text.lanes()
    text.add(f"best = {xs[0]}[j]")
    if y is x:
        for pointer in xs[1:]:
            text.add(f"best = maximum(best, {pointer}[j])")
        text.add("out[j] = best")
    else:
        text.add(f"value = {ys[0]}[j]")
        for i, (p, q) in enumerate(zip(xs[1:], ys[1:], strict=True)):
            text.add(f"next{i} = {p}[j]")
            text.add(f"take{i} = {better(f'next{i}', 'best', x.dtype)}")
            text.add(f"best = select(take{i}, next{i}, best)")
            text.add(f"value = select(take{i}, {q}[j], value)")
        text.add("out[j] = value")
    return text.launch(math.prod(node.shape[:-2]))


def window_place(node: Node, status: Buffer) -> list[Launch]:
    """Iterations are images: windows that overlap add to the same elements, in their order."""
    g, x = node.inputs
    text = _Text(node)
    text.array("out_at", node)
    text.array("x_at", x)
    text.array("g_at", g)
    rank = len(text.axes)
    tiled = all(map(_is_tiled, text.axes))
    size, suffix = node.dtype.itemsize, SUFFIX[node.dtype]
    text.word("elements", math.prod(x.shape[1:]))
    text.word("windows", math.prod(g.shape[1:-1]))
    text.add("for image in range(lo, hi):")
    text.depth += 1
    if not tiled:
        text.add(f"whole = {suffix}_at(out_at + image * elements * {size})")
        text.add("for j in lanes(0, elements):")
        text.add(f"    whole[j] = {number(0, node.dtype)}")
    text.add("at = image * windows")
    for i in range(rank):
        text.add(f"for p{i} in range(places{i}):")
        text.depth += 1
        text.places(i)
    xs = text.pointers("x", "x_at", "image")
    outs = text.pointers("o", "out_at", "image")
    text.add(f"g = {suffix}_at(g_at + at * channels * {size})")
    text.add("at += 1")
    text.lanes()
    text.add(f"best = {xs[0]}[j]")
    text.add(f"index = {suffix}(0)")
    for i, p in enumerate(xs[1:]):
        text.add(f"next{i} = {p}[j]")
        text.add(f"take{i} = {better(f'next{i}', 'best', x.dtype)}")
        text.add(f"best = select(take{i}, next{i}, best)")
        text.add(f"index = select(take{i}, {suffix}({i + 1}), index)")
    text.add("value = g[j]")
    for i, p in enumerate(outs):
        given = f"select(equal(index, {suffix}({i})), value, {suffix}(0))"
        text.add(f"{p}[j] = {given if tiled else f'add({p}[j], {given})'}")
    return text.launch(x.shape[0])


def _is_tiled(axis: Axis) -> bool:
    """Whether each element of the axis lies in exactly one window."""
    return (
        (axis.low, axis.high, axis.rhs) == (0, 0, 1)
        and axis.stride == axis.window
        and axis.out * axis.stride == axis.size
    )


__all__ = ["window_pick", "window_place"]
