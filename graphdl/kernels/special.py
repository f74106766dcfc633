"""Kernels of the ops that are no loop nest of scalar code, and the list of all of them."""

from __future__ import annotations

import math
from collections.abc import Callable

from graphdl.graph import Node
from graphdl.kernels.body import SUFFIX, identity
from graphdl.kernels.copying import copy_launch, place_of
from graphdl.kernels.cumulative import CUMULATIVE
from graphdl.kernels.program import Address, Buffer, Launch
from graphdl.kernels.replace import scatter
from graphdl.kernels.sorting import SORTING
from graphdl.kernels.source import KernelSource
from graphdl.kernels.windows import window_pick, window_place
from graphdl.types import contiguous_strides, kind_of


def concatenate(node: Node, status: Buffer) -> list[Launch]:
    """Each part is copied into its slab of the result."""
    axis: int = node["axis"]
    places = contiguous_strides(node.shape)
    launches = []
    start = 0
    for operand in node.inputs:
        if operand.type.size:
            source, to = place_of(operand), start * places[axis]
            launches.append(copy_launch("concatenate", node, operand.shape, source, to, places))
        start += operand.shape[axis]
    return launches


def scatter_add(node: Node, status: Buffer) -> list[Launch]:
    """Zeros, then the updates in order: one thread, so that the sums have one order."""
    updates, index = node.inputs
    where, _, base = place_of(updates)
    at, _, index_base = place_of(index)
    row = math.prod(node.shape[1:])
    suffix, size = SUFFIX[node.dtype], node.dtype.itemsize
    combine = "logical_or" if kind_of(node.dtype) == "b" else "add"
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


#: The ops whose operands must lie in memory row by row, and their launches.
SPECIAL: dict[str, Callable[[Node, Buffer], list[Launch]]] = {
    "concatenate": concatenate,
    "scatter_add": scatter_add,
    "scatter": scatter,
    **CUMULATIVE,
    **SORTING,
    "window_pick": window_pick,
    "window_place": window_place,
}
