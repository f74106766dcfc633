"""Copies from any strides to any: what `concatenate` is, and what an update leaves alone."""

from __future__ import annotations

import math

from msgspec import Struct

from graphdl.compiler.view import view_of
from graphdl.graph import Node
from graphdl.kernels.body import SUFFIX
from graphdl.kernels.loops import NEAR
from graphdl.kernels.program import Address, Launch
from graphdl.kernels.source import KernelSource
from graphdl.types import Shape


def place_of(operand: Node, start: int = 0) -> tuple[Address, Shape, Node]:
    """Where an operand lies, `start` elements on: its address, its strides, its memory."""
    view = view_of(operand)
    assert view is not None, f"{operand!r} is no view of memory"
    offset = (view.offset + start) * operand.dtype.itemsize
    return Address(view.base, offset), view.strides, view.base


def copy_launch(
    name: str, node: Node, shape: Shape, source: tuple[Address, Shape, Node], to: int, places: Shape
) -> Launch:
    """Copy `shape` elements from an operand into the memory of `node`, `to` elements on."""
    where, strides, base = source
    size, count = node.dtype.itemsize, math.prod(shape)
    loops = _loops(shape, strides, places)
    outer = loops[: max(len(loops) - 2, 1)]
    around = math.prod(loop.size for loop in outer)
    iterations = -(-count // BLOCK) if len(loops) == 1 else around
    return Launch(
        _text(name, SUFFIX[node.dtype], size, loops),
        (
            where,
            Address(node, to * size),
            *(loop.size for loop in loops),
            *(loop.source for loop in loops),
            *(loop.target for loop in loops),
        ),
        iterations,
        count * 0.3,
        (base,),
        (node,),
        (),
        (node,),
        2 * count * size,
    )


class _Loop(Struct, frozen=True):
    """A loop of a copy: how often it runs, and its strides in the two arrays, in elements."""

    size: int
    source: int
    target: int


#: A last loop of fewer elements is not worth vector instructions: the longest loop runs last then.
FEW = 8
#: Elements of a part of a copy that is one loop.
BLOCK = 16384


def _loops(shape: Shape, strides: Shape, places: Shape) -> list[_Loop]:
    """At least one loop: those of one element left out, those joined that both arrays walk as one.

    The copy of x[:, :, 1] is one loop of a stride, not a loop of one element in each of two others.
    """
    found: list[_Loop] = []
    for loop in map(_Loop, shape, strides, places):
        if loop.size == 1:
            continue
        source, target = loop.source * loop.size, loop.target * loop.size
        if found and (found[-1].source, found[-1].target) == (source, target):
            found[-1] = _Loop(found[-1].size * loop.size, loop.source, loop.target)
        else:
            found.append(loop)
    if not found:
        return [_Loop(1, 1, 1)]
    longest = max(found, key=lambda loop: loop.size)
    if found[-1].size < FEW <= longest.size:
        found.remove(longest)
        found.append(longest)
    return found


def _text(name: str, suffix: str, size: int, loops: list[_Loop]) -> KernelSource:
    """Iterations are blocks of a single loop, or else what lies around the last two."""
    count = len(loops)
    last, around = count - 1, max(count - 2, 1)
    lines = ["def kernel(table, lo, hi):"]
    for letter, first in (("n", 2), ("s", 2 + count), ("d", 2 + 2 * count)):
        lines += [f"    {letter}{i} = table[{first + i}]" for i in range(count)]
    source, target = (
        _element(*names, stride)
        for names, stride in (
            (("x", f"s{last}"), loops[-1].source),
            (("y", f"d{last}"), loops[-1].target),
        )
    )
    if count == 1:
        lines += [
            f"    x = {suffix}_at(table[0])",
            f"    y = {suffix}_at(table[1])",
            "    for b in range(lo, hi):",
            f"        for j in lanes(b * {BLOCK}, min_i64(b * {BLOCK} + {BLOCK}, n0)):",
            f"            {target} = {source}",
        ]
        return KernelSource(name, "\n".join(lines) + "\n")
    lines += ["    for r in range(lo, hi):", "        rest = r"]
    for i in reversed(range(1, around)):
        lines += [f"        q = rest // n{i}", f"        i{i} = rest - q * n{i}"]
        lines += ["        rest = q"]
    lines += ["        i0 = rest"]
    indent = " " * 8
    if around < last:
        lines += [f"{indent}for i{around} in range(n{around}):"]
        indent += " " * 4
    for letter, stride, word in (("x", "s", 0), ("y", "d", 1)):
        place = " + ".join(f"i{i} * {stride}{i}" for i in range(last))
        lines += [f"{indent}{letter} = {suffix}_at(table[{word}] + ({place}) * {size})"]
    lines += [f"{indent}for j in lanes(0, n{last}):", f"{indent}    {target} = {source}"]
    return KernelSource(name, "\n".join(lines) + "\n")


def _element(array: str, word: str, stride: int) -> str:
    """Element j along the last loop."""
    if stride == 0:
        return f"{array}[0]"
    return f"{array}[j]" if stride == 1 else f"{array}[j * {stride if stride in NEAR else word}]"
