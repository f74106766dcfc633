"""Kernels of arrays of which a part is replaced.

The launches that copy what stays as it is come first; the memory plan drops them where the new
array lies over the old one. Then a loop nest (graphdl.kernels.nest) writes the window of an
`update`, and a kernel of its own the elements of a `scatter`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from msgspec.structs import replace

from graphdl.compiler.origins import overwritten
from graphdl.graph import Node
from graphdl.kernels.body import SUFFIX
from graphdl.kernels.copying import copy_launch, place_of
from graphdl.kernels.program import Address, Buffer, Launch
from graphdl.kernels.source import KernelSource
from graphdl.ops import movement
from graphdl.ops.update import update
from graphdl.types import Shape, contiguous_strides, kind_of


def kept_launches(node: Node) -> list[Launch]:
    """Copies of the part of x that an update or a scatter leaves as it is."""
    x = node.inputs[0]
    if x.op is movement.blank:
        return []
    places = contiguous_strides(node.shape)
    base = overwritten(node)
    found = []
    for starts, sizes in boxes(node):
        if not math.prod(sizes):
            continue
        _, strides, _ = place_of(x)
        offset = sum(start * stride for start, stride in zip(starts, strides, strict=True))
        source = place_of(x, offset)
        to = sum(start * stride for start, stride in zip(starts, places, strict=True))
        launch = copy_launch("keep", node, sizes, source, to, places)
        pairs = () if base is None else ((node, base),)
        found.append(replace(launch, in_place=pairs, moves=True))
    return found


#: Bytes that come from memory together.
LINE = 64


def boxes(node: Node) -> list[tuple[Shape, Shape]]:
    """Starts and sizes of the boxes around the window of an update.

    All of the array is one box where the window has steps, or where the boxes have a part in as
    many cache lines as the whole: the array around x[..., 0], of three, is every line of it.
    """
    everything = [((0,) * len(node.shape), node.shape)]
    if node.op is not update or any(
        abs(step) != 1 and size > 1
        for step, size in zip(node["steps"], node.inputs[1].shape, strict=True)
    ):
        return everything
    around = list(_around(node))
    touched = sum(_lines(sizes, node) for _, sizes in around)
    return around if touched < node.type.nbytes // LINE else everything


def _lines(sizes: Shape, node: Node) -> int:
    """About how many cache lines of an array a box has a part in."""
    run, rows = node.dtype.itemsize, math.prod(sizes)
    for size, whole in zip(reversed(sizes), reversed(node.shape), strict=True):
        run, rows = run * size, rows // max(size, 1)
        if size != whole:
            break
    return rows * -(-run // LINE)


def _around(node: Node) -> Iterator[tuple[Shape, Shape]]:
    """The boxes around the window of an update."""
    shape = node.shape
    starts, sizes = [0] * len(shape), list(shape)
    for axis, (start, step, count) in enumerate(
        zip(node["starts"], node["steps"], node.inputs[1].shape, strict=True)
    ):
        low = start if step > 0 else start + (count - 1) * step
        for first, size in ((0, low), (low + count, shape[axis] - low - count)):
            yield (
                (*starts[:axis], first, *starts[axis + 1 :]),
                (*sizes[:axis], size, *sizes[axis + 1 :]),
            )
        starts[axis], sizes[axis] = low, count


_COMBINE = {
    "add": "add", "multiply": "multiply", "maximum": "maximum", "minimum": "minimum",
}  # fmt: skip


def scatter(node: Node, status: Buffer) -> list[Launch]:
    """The values go to their places in order, on one thread: of several the last one stays."""
    x, values, *indices = node.inputs
    axes, count = node["axes"], indices[0].type.size
    places = contiguous_strides(node.shape)
    rest = [axis for axis in range(x.type.ndim) if axis not in axes]
    sizes = values.shape[indices[0].type.ndim :]
    start = sum(node["starts"][axis] * places[axis] for axis in rest)
    loops = collapsed(sizes, tuple(places[axis] * node["steps"][axis] for axis in rest))
    value_at, _, value_base = place_of(values)
    index_at = [place_of(index) for index in indices]
    row = math.prod(sizes)
    words = (
        Address(node, start * node.dtype.itemsize),
        value_at,
        Address(status),
        count,
        row,
        *(address for address, _, _ in index_at),
        *(node.shape[axis] for axis in axes),
        *(places[axis] for axis in axes),
        *(size for size, _ in loops),
        *(stride for _, stride in loops),
    )
    launch = Launch(
        _scatter_source(node, len(axes), len(loops), bool(loops) and loops[-1][1] == 1),
        words,
        1,
        0.0,
        (value_base, *(base for _, _, base in index_at)),
        (node, status),
        (),
        (node,),
        2 * values.type.nbytes + sum(index.type.nbytes for index in indices),
        values.type.size,
    )
    return [*kept_launches(node), launch]


def collapsed(sizes: Shape, strides: Shape) -> list[tuple[int, int]]:
    """Loops (size, stride) over a window, those joined that are one run of memory."""
    found: list[tuple[int, int]] = []
    for size, stride in zip(sizes, strides, strict=True):
        if size == 1:
            continue
        if found and found[-1][1] == size * stride:
            found[-1] = found[-1][0] * size, stride
        else:
            found.append((size, stride))
    return found


def _scatter_source(node: Node, indices: int, loops: int, dense: bool) -> KernelSource:
    suffix, size = SUFFIX[node.dtype], node.dtype.itemsize
    combine = _COMBINE.get(node["mode"])
    if kind_of(node.dtype) == "b" and combine is not None:
        combine = "logical_and" if combine in ("multiply", "minimum") else "logical_or"
    word = 5
    lines = ["def kernel(table, lo, hi):", "    count, row = table[3], table[4]"]
    lines += ["    status = i64_at(table[2])"]
    for group in ("index", "size", "step"):
        for i in range(indices):
            value = f"i64_at(table[{word}])" if group == "index" else f"table[{word}]"
            lines.append(f"    {group}{i} = {value}")
            word += 1
    for group in ("n", "s"):
        for i in range(loops):
            lines.append(f"    {group}{i} = table[{word}]")
            word += 1
    lines += ["    for b in range(lo, hi):", "        for i in range(count):"]
    lines += [f"            k{i} = index{i}[i]" for i in range(indices)]
    bad = " or ".join(f"k{i} < 0 or k{i} >= size{i}" for i in range(indices))
    lines += [f"            if {bad}:", "                status[0] = 1", "            else:"]
    to = " + ".join(f"k{i} * step{i}" for i in range(indices))
    indent = " " * 16
    lines += [f"{indent}to = {to}", f"{indent}at = i * row"]
    for i in range(loops - 1):
        lines += [f"{indent}for i{i} in range(n{i}):"]
        indent += "    "
    inner = [f"i{i} * s{i}" for i in range(loops - 1)]
    place = " + ".join(["to", *inner])
    lines += [f"{indent}y = {suffix}_at(table[0] + ({place}) * {size})"]
    lines += [f"{indent}x = {suffix}_at(table[1] + at * {size})"]
    target, source, body = "y[0]", "x[0]", indent
    if loops:
        lines += [f"{indent}for j in lanes(0, n{loops - 1}):"]
        body = indent + "    "
        source, target = "x[j]", "y[j]" if dense else f"y[j * s{loops - 1}]"
    value = source if combine is None else f"{combine}({target}, {source})"
    lines += [f"{body}{target} = {value}"]
    if loops > 1:
        lines += [f"{indent}at += n{loops - 1}"]
    return KernelSource(f"scatter_{node['mode']}", "\n".join(lines) + "\n")
