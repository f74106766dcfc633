"""Copies on the device from any strides to any, and one value into all of an array."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec.structs import replace

from graphdl.compiler.origins import overwritten
from graphdl.graph import Node
from graphdl.kernels.body import SUFFIX
from graphdl.kernels.copying import place_of
from graphdl.kernels.cuda.launch import BLOCK, DeviceLaunch, blocks_for
from graphdl.kernels.program import Address, Value
from graphdl.kernels.replace import boxes
from graphdl.kernels.source import KernelSource
from graphdl.types import Shape, contiguous_strides


def each(total: str, body: Sequence[str]) -> list[str]:
    """Lines that do `body` for each i below `total`, threads side by side."""
    return [
        f"    i = block() * {BLOCK} + thread()",
        f"    while i < {total}:",
        *(f"        {line}" for line in body),
        f"        i += blocks() * {BLOCK}",
    ]


def split_index(sizes: Sequence[str]) -> list[str]:
    """Lines that make the indices d0, d1 ... of i in an array of these sizes."""
    lines, rest = [], "i"
    for d in reversed(range(1, len(sizes))):
        lines += [
            f"rest{d} = quotient({rest}, {sizes[d]})",
            f"d{d} = {rest} - rest{d} * {sizes[d]}",
        ]
        rest = f"rest{d}"
    return [*lines, f"d0 = {rest}"] if sizes else lines


def copy_launch(
    name: str,
    node: Node,
    shape: Shape,
    source: tuple[Address, Shape, Value],
    to: int,
    places: Shape,
) -> DeviceLaunch:
    """Copy `shape` elements from an operand into the memory of `node`, `to` elements on."""
    where, strides, base = source
    suffix, axes = SUFFIX[node.dtype], range(len(shape))
    names = [*(f"n{d}" for d in axes), *(f"from{d}" for d in axes), *(f"to{d}" for d in axes)]
    read = " + ".join(f"d{d} * from{d}" for d in axes) or "0"
    write = " + ".join(f"d{d} * to{d}" for d in axes) or "0"
    lines = [
        f"def kernel({', '.join(['source', 'target', 'total', *names])}):",
        f"    x = {suffix}_at(source)",
        f"    y = {suffix}_at(target)",
        *each("total", [*split_index([f"n{d}" for d in axes]), f"y[{write}] = x[{read}]"]),
    ]
    count, size = math.prod(shape), node.dtype.itemsize
    return DeviceLaunch(
        KernelSource(name, "\n".join(lines) + "\n"),
        (where, Address(node, to * size), count, *shape, *strides, *places),
        blocks_for(count) if count else 0,
        count * 0.3,
        (base,),
        (node,),
        (),
        (node,),
        2 * count * size,
    )


def fill_launch(node: Node, value: str) -> DeviceLaunch:
    """One value, as text, everywhere in an array."""
    suffix, count = SUFFIX[node.dtype], node.type.size
    lines = ["def kernel(target, total):", f"    y = {suffix}_at(target)"]
    lines += each("total", [f"y[i] = {value}"])
    return DeviceLaunch(
        KernelSource("fill", "\n".join(lines) + "\n"),
        (Address(node), count),
        blocks_for(count) if count else 0,
        count * 0.1,
        (),
        (node,),
        (),
        (node,),
        node.type.nbytes,
    )


def kept_launches(node: Node) -> list[DeviceLaunch]:
    """Copies of the part of x that an update or a scatter leaves as it is."""
    x = node.inputs[0]
    places = contiguous_strides(node.shape)
    base = overwritten(node)
    found = []
    for starts, sizes in boxes(node):
        if not math.prod(sizes):
            continue
        _, strides, _ = place_of(x)
        offset = sum(start * stride for start, stride in zip(starts, strides, strict=True))
        to = sum(start * stride for start, stride in zip(starts, places, strict=True))
        launch = copy_launch("keep", node, sizes, place_of(x, offset), to, places)
        pairs = () if base is None else ((node, base),)
        found.append(replace(launch, in_place=pairs, moves=True))
    return found


def concatenate(node: Node) -> list[DeviceLaunch]:
    """Each part is copied into its slab of the result."""
    axis: int = node["axis"]
    places = contiguous_strides(node.shape)
    launches, start = [], 0
    for operand in node.inputs:
        if operand.type.size:
            source, to = place_of(operand), start * places[axis]
            launches.append(copy_launch("concatenate", node, operand.shape, source, to, places))
        start += operand.shape[axis]
    return launches
