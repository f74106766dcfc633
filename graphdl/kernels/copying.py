"""Copies from any strides to any: what `concatenate` is, and what an update leaves alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from graphdl.compiler.view import view_of
from graphdl.graph import Node
from graphdl.kernels.body import SUFFIX
from graphdl.kernels.loops import NEAR
from graphdl.kernels.program import Address, Launch, Word
from graphdl.kernels.source import KernelSource
from graphdl.types import Shape


def place_of(operand: Node, start: int = 0) -> tuple[Address, Shape, Node]:
    """Where an operand lies, `start` elements on: its address, its strides, its memory."""
    view = view_of(operand)
    assert view is not None, f"{operand!r} is no view of memory"
    offset = (view.offset + start) * operand.dtype.itemsize
    return Address(view.base, offset), view.strides, view.base


Source = tuple[Address, Shape, Node]


def copy_launch(
    name: str, node: Node, shape: Shape, source: Source, to: int, places: Shape
) -> Launch:
    """Copy `shape` elements from an operand into the memory of `node`, `to` elements on."""
    return joining_launch(name, node, shape, [source], to, places)


def joining_launch(
    name: str, node: Node, shape: Shape, sources: Sequence[Source], to: int, places: Shape
) -> Launch:
    """Copy `shape` elements of each operand into the memory of `node`, `to` elements on.

    Those of the second operand lie one element behind those of the first, and so on: so pairs are
    written as pairs.
    """
    size, count = node.dtype.itemsize, math.prod(shape)
    loops = _loops(shape, [strides for _, strides, _ in sources], places)
    around = math.prod(loop.size for loop in loops[: max(len(loops) - 2, 1)])
    iterations = -(-count // BLOCK) if len(loops) == 1 else around
    words: list[Word] = []
    for i, (where, _, _) in enumerate(sources):
        words += [where, *(loop.sources[i] for loop in loops)]
    return Launch(
        _text(name, SUFFIX[node.dtype], size, loops),
        (
            Address(node, to * size),
            *(loop.size for loop in loops),
            *(loop.target for loop in loops),
            *words,
        ),
        iterations,
        len(sources) * count * 0.3,
        tuple(dict.fromkeys(base for _, _, base in sources)),
        (node,),
        (),
        (node,),
        2 * len(sources) * count * size,
    )


def is_near(shape: Shape, strides: Shape, places: Shape) -> bool:
    """Whether a copy reads whole cache lines, not one element of each, in its last loop."""
    return abs(_loops(shape, [strides], places)[-1].sources[0]) <= max(NEAR)


class _Loop(Struct, frozen=True):
    """A loop of a copy: how often it runs, and its strides in the arrays, in elements."""

    size: int
    sources: tuple[int, ...]
    target: int


#: A last loop of fewer elements is not worth vector instructions: the longest loop runs last then.
FEW = 8
#: Elements of a part of a copy that is one loop.
BLOCK = 16384


def _loops(shape: Shape, strides: Sequence[Shape], places: Shape) -> list[_Loop]:
    """At least one loop: those of one element left out, those joined that all arrays walk as one.

    The copy of x[:, :, 1] is one loop of a stride, not a loop of one element in each of two others.
    """
    found: list[_Loop] = []
    for loop in map(_Loop, shape, zip(*strides, strict=True), places):
        if loop.size == 1:
            continue
        steps = tuple(step * loop.size for step in loop.sources)
        if found and (found[-1].sources, found[-1].target) == (steps, loop.target * loop.size):
            found[-1] = _Loop(found[-1].size * loop.size, loop.sources, loop.target)
        else:
            found.append(loop)
    if not found:
        return [_Loop(1, (1,) * len(strides), 1)]
    longest = max(found, key=lambda loop: loop.size)
    if found[-1].size < FEW <= longest.size:
        found.remove(longest)
        found.append(longest)
    return found


def _head(loops: Sequence[_Loop]) -> list[str]:
    """The words of the table: where the result lies, sizes, strides, and the same of sources."""
    count = len(loops)
    lines = ["def kernel(table, lo, hi):"]
    for letter, first in (("n", 1), ("d", 1 + count)):
        lines += [f"    {letter}{i} = table[{first + i}]" for i in range(count)]
    for k in range(len(loops[0].sources)):
        first = 1 + 2 * count + k * (1 + count)
        lines += [f"    at{k} = table[{first}]"]
        lines += [f"    s{k}_{i} = table[{first + 1 + i}]" for i in range(count)]
    return lines


def _pointers(suffix: str, size: int, sources: int, indices: Sequence[str]) -> list[str]:
    """The lines that set the pointers to where `indices`, of the first loops, begin."""
    arrays = [("y", "table[0]", "d"), *((f"x{k}", f"at{k}", f"s{k}_") for k in range(sources))]
    lines = []
    for array, at, stride in arrays:
        place = " + ".join(f"{index} * {stride}{i}" for i, index in enumerate(indices))
        lines.append(f"{array} = {suffix}_at({at}{f' + ({place}) * {size}' if place else ''})")
    return lines


def _moved(loops: Sequence[_Loop]) -> list[str]:
    """The lines that copy element j of the last loop."""
    last, loop = len(loops) - 1, loops[-1]
    return [
        f"{_element('y', f'd{last}', loop.target, k)} = {_element(f'x{k}', f's{k}_{last}', step)}"
        for k, step in enumerate(loop.sources)
    ]


def _text(name: str, suffix: str, size: int, loops: list[_Loop]) -> KernelSource:
    """Iterations are blocks of a single loop, or else what lies around the last two."""
    count, sources = len(loops), len(loops[0].sources)
    last, around = count - 1, max(count - 2, 1)
    lines = _head(loops)
    if count == 1:
        lines += [
            *(f"    {line}" for line in _pointers(suffix, size, sources, [])),
            "    for b in range(lo, hi):",
            f"        for j in lanes(b * {BLOCK}, min_i64(b * {BLOCK} + {BLOCK}, n0)):",
            *(f"            {line}" for line in _moved(loops)),
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
    indices = [f"i{i}" for i in range(last)]
    lines += [f"{indent}{line}" for line in _pointers(suffix, size, sources, indices)]
    lines += [f"{indent}for j in lanes(0, n{last}):"]
    lines += [f"{indent}    {line}" for line in _moved(loops)]
    return KernelSource(name, "\n".join(lines) + "\n")


def _element(array: str, word: str, stride: int, offset: int = 0) -> str:
    """Element j along the last loop, or one that lies behind it."""
    if stride == 0:
        return f"{array}[{offset}]"
    place = "j" if stride == 1 else f"j * {stride if stride in NEAR else word}"
    return f"{array}[{place} + {offset}]" if offset else f"{array}[{place}]"
