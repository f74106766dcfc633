"""Kernels of the ops that are no loop nest of scalar code: concatenate, scatter-add, cumsum."""

from __future__ import annotations

import math
from collections.abc import Callable

from graphdl.compiler.view import view_of
from graphdl.graph import Node
from graphdl.kernels.body import SUFFIX, identity
from graphdl.kernels.program import Address, Buffer, Launch
from graphdl.kernels.source import KernelSource
from graphdl.types import contiguous_strides


def _place(operand: Node) -> tuple[Address, tuple[int, ...], Node]:
    view = view_of(operand)
    assert view is not None, f"{operand!r} is no view of memory"
    offset = view.offset * operand.dtype.itemsize
    return Address(view.base, offset), view.strides, view.base


def concatenate(node: Node, status: Buffer) -> list[Launch]:
    """Each part is copied into its slab of the result."""
    axis: int = node["axis"]
    places = contiguous_strides(node.shape)
    size = node.dtype.itemsize
    launches = []
    start = 0
    for operand in node.inputs:
        where, strides, base = _place(operand)
        slab = Address(node, start * places[axis] * size)
        start += operand.shape[axis]
        if operand.type.size:
            launches.append(
                Launch(
                    _copy_source(SUFFIX[node.dtype], size, operand.type.ndim, strides),
                    (where, slab, *operand.shape, *strides, *places),
                    math.prod(operand.shape[:-1]),
                    operand.type.size * 0.3,
                    (base,),
                    (node,),
                    (),
                    (node,),
                    2 * operand.type.nbytes,
                )
            )
    return launches


def _copy_source(suffix: str, size: int, ndim: int, strides: tuple[int, ...]) -> KernelSource:
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
    element = "x[j]" if strides and strides[-1] == 1 else f"x[j * s{ndim - 1}]"
    lines += [
        f"        x = {suffix}_at(table[0] + source * {size})",
        f"        y = {suffix}_at(table[1] + to * {size})",
        f"        for j in lanes(0, n{ndim - 1}):",
        f"            y[j] = {element}",
    ]
    return KernelSource("concatenate", "\n".join(lines) + "\n")


def scatter_add(node: Node, status: Buffer) -> list[Launch]:
    """Zeros, then the updates in order: one thread, so that the sums have one order."""
    updates, index = node.inputs
    where, _, base = _place(updates)
    at, _, index_base = _place(index)
    row = math.prod(node.shape[1:])
    suffix, size = SUFFIX[node.dtype], node.dtype.itemsize
    combine = "logical_or" if node.dtype.kind == "b" else "add"
    text = f"""def kernel(table, lo, hi):
    n, row, count = table[4], table[5], table[6]
    index = i64_at(table[1])
    status = i64_at(table[3])
    for b in range(lo, hi):
        out = {suffix}_at(table[2])
        for j in lanes(0, count * row):
            out[j] = {identity("sum", node.dtype)}
        for i in range(n):
            k = index[i]
            if k < 0 or k >= count:
                status[0] = 1
            else:
                x = {suffix}_at(table[0] + i * row * {size})
                y = {suffix}_at(table[2] + k * row * {size})
                for j in lanes(0, row):
                    y[j] = {combine}(y[j], x[j])
"""
    launch = Launch(
        KernelSource("scatter_add", text),
        (where, at, Address(node), Address(status), index.type.size, row, node.shape[0]),
        1,
        0.0,
        (base, index_base),
        (node, status),
        (),
        (node,),
        updates.type.nbytes + node.type.nbytes,
        updates.type.size,
    )
    return [launch]


def cumsum(node: Node, status: Buffer) -> list[Launch]:
    """Running sums along an axis; iterations are the places before it."""
    x = node.inputs[0]
    where, _, base = _place(x)
    axis: int = node["axis"]
    outer, length = math.prod(x.shape[:axis]), x.shape[axis]
    inner = math.prod(x.shape[axis + 1 :])
    suffix, size = SUFFIX[node.dtype], node.dtype.itemsize
    first, step = ("length - 1", "-1") if node["reverse"] else ("0", "1")
    if inner == 1:
        loop = f"""        x = {suffix}_at(table[0] + r * length * {size})
        y = {suffix}_at(table[1] + r * length * {size})
        total = {identity("sum", node.dtype)}
        place = {first}
        for i in range(length):
            total = add(total, x[place])
            y[place] = total
            place += {step}
"""
    else:
        loop = f"""        place = {first}
        for i in range(length):
            x = {suffix}_at(table[0] + (r * length + place) * inner * {size})
            y = {suffix}_at(table[1] + (r * length + place) * inner * {size})
            if i == 0:
                for j in lanes(0, inner):
                    y[j] = x[j]
            else:
                z = {suffix}_at(table[1] + (r * length + place - {step}) * inner * {size})
                for j in lanes(0, inner):
                    y[j] = add(z[j], x[j])
            place += {step}
"""
    text = (
        "def kernel(table, lo, hi):\n    length, inner = table[2], table[3]\n"
        "    for r in range(lo, hi):\n" + loop
    )
    launch = Launch(
        KernelSource("cumsum", text),
        (where, Address(node), length, inner),
        outer,
        x.type.size * 1.0,
        (base,),
        (node,),
        (),
        (node,),
        2 * x.type.nbytes,
        x.type.size,
    )
    return [launch] if x.type.size else []


#: The ops whose operands must lie in memory row by row, and their launches.
SPECIAL: dict[str, Callable[[Node, Buffer], list[Launch]]] = {
    "concatenate": concatenate,
    "scatter_add": scatter_add,
    "cumsum": cumsum,
}
