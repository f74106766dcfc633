"""Copies from any strides to any: what `concatenate` is, and what an update leaves alone."""

from __future__ import annotations

import math

from graphdl.compiler.view import view_of
from graphdl.graph import Node
from graphdl.kernels.body import SUFFIX
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
    return Launch(
        _text(name, SUFFIX[node.dtype], size, len(shape), strides),
        (where, Address(node, to * size), *shape, *strides, *places),
        math.prod(shape[:-1]),
        count * 0.3,
        (base,),
        (node,),
        (),
        (node,),
        2 * count * size,
    )


def _text(name: str, suffix: str, size: int, ndim: int, strides: Shape) -> KernelSource:
    """Copy an array of `ndim` axes from any strides to any strides; iterations are its rows."""
    lines = ["def kernel(table, lo, hi):"]
    lines += [f"    n{i} = table[{2 + i}]" for i in range(ndim)]
    lines += [f"    s{i} = table[{2 + ndim + i}]" for i in range(ndim)]
    lines += [f"    d{i} = table[{2 + 2 * ndim + i}]" for i in range(ndim)]
    lines += ["    for r in range(lo, hi):"]
    lines += ["        rest = r", "        source = 0", "        to = 0"]
    for i in reversed(range(ndim - 1)):
        lines += [
            f"        q = rest // n{i}",
            f"        i{i} = rest - q * n{i}",
            f"        source += i{i} * s{i}",
            f"        to += i{i} * d{i}",
            "        rest = q",
        ]
    element = {1: "x[j]", 0: "x[0]"}.get(strides[-1] if strides else 0, f"x[j * s{ndim - 1}]")
    last = f"n{ndim - 1}" if ndim else "1"
    lines += [
        f"        x = {suffix}_at(table[0] + source * {size})",
        f"        y = {suffix}_at(table[1] + to * {size})",
        f"        for j in lanes(0, {last}):",
        f"            y[j] = {element}",
    ]
    return KernelSource(name, "\n".join(lines) + "\n")
