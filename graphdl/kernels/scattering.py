"""Sums of rows at places that an array names: the gradient of `x[index]`, and counts.

The updates are added in order, so that each sum has one order. Where there are many more updates
than rows to add them to, as of a histogram, so many blocks of them have sums of their own, which
are added up at the end. How many, the sizes alone decide.
"""

from __future__ import annotations

import math

from graphdl.graph import Node
from graphdl.kernels.body import SUFFIX, constant_of, identity
from graphdl.kernels.copying import BLOCK, place_of
from graphdl.kernels.program import Address, Buffer, Launch
from graphdl.kernels.source import KernelSource
from graphdl.types import kind_of

#: Blocks of updates, at most, and how many updates of a block there are for each row of its sums:
#: to clear these and to add them up takes about as long as four updates. Sums of more bytes than
#: SMALL leave the caches of the first levels.
BLOCKS, EACH, SMALL = 16, 16, 1 << 16


def scatter_add(node: Node, status: Buffer) -> list[Launch]:
    updates, index = node.inputs
    where, _, base = place_of(updates)
    at, _, index_base = place_of(index)
    count, row = node.shape[0], math.prod(node.shape[1:])
    total = index.type.size
    blocks = (
        max(min(total // (EACH * max(count, 1)), BLOCKS), 1) if node.type.nbytes <= SMALL else 1
    )
    unit = -(-total // blocks)
    is_split = blocks > 1
    partial = Buffer(blocks * node.type.nbytes, None, "partial sums") if is_split else node
    cost = total * (1.5 + 0.3 * row) if is_split else 0.0
    sums = Launch(
        KernelSource("scatter_add", _sums_text(node, row == 1, constant_of(updates) is not None)),
        (where, at, Address(partial), Address(status), total, row, count, unit),
        blocks,
        cost,
        (base, index_base),
        (partial, status),
        (),
        (node,),
        updates.type.nbytes + node.type.nbytes,
        updates.type.size,
    )
    return [sums, _joined(node, partial, blocks)] if isinstance(partial, Buffer) else [sums]


def _sums_text(node: Node, is_single: bool, is_uniform: bool) -> str:
    """The sums of each block. Rows of one element have no loop of their own; updates that are all
    one number are that number."""
    suffix, size = SUFFIX[node.dtype], node.dtype.itemsize
    lines = [
        "def kernel(table, lo, hi):",
        "    n, row, count, unit = table[4], table[5], table[6], table[7]",
        "    index = i64_at(table[1])",
        "    status = i64_at(table[3])",
        f"    x = {suffix}_at(table[0])",
        *(["    one = x[0]"] if is_uniform else []),
        "    for b in range(lo, hi):",
        f"        out = {suffix}_at(table[2] + b * count * row * {size})",
        "        for j in lanes(0, count * row):",
        f"            out[j] = {identity('sum', node.dtype)}",
        "        for i in range(b * unit, min_i64(b * unit + unit, n)):",
        "            k = index[i]",
        "            if k < 0 or k >= count:",
        "                status[0] = 1",
    ]
    if is_single:
        y, x = "out[k]", "one" if is_uniform else "x[i]"
        lines += ["            else:", f"                {y} = {_plus(node, y, x)}"]
    else:
        y, x = "y[j]", "one" if is_uniform else "x[j]"
        row = f"                x = {suffix}_at(table[0] + i * row * {size})"
        lines += [
            "            else:",
            *([] if is_uniform else [row]),
            f"                y = {suffix}_at(table[2] + (b * count + k) * row * {size})",
            "                for j in lanes(0, row):",
            f"                    {y} = {_plus(node, y, x)}",
        ]
    return "\n".join(lines) + "\n"


def _plus(node: Node, x: str, y: str) -> str:
    return f"{'logical_or' if kind_of(node.dtype) == 'b' else 'add'}({x}, {y})"


def _joined(node: Node, partial: Buffer, blocks: int) -> Launch:
    """The sums of all blocks, in their order."""
    suffix, size, total = SUFFIX[node.dtype], node.dtype.itemsize, node.type.size
    text = f"""def kernel(table, lo, hi):
    blocks, total = table[2], table[3]
    y = {suffix}_at(table[1])
    for b in range(lo, hi):
        start = b * {BLOCK}
        stop = min_i64(start + {BLOCK}, total)
        x = {suffix}_at(table[0])
        for j in lanes(start, stop):
            y[j] = x[j]
        for i in range(1, blocks):
            x = {suffix}_at(table[0] + i * total * {size})
            for j in lanes(start, stop):
                y[j] = {_plus(node, "y[j]", "x[j]")}
"""
    return Launch(
        KernelSource("scatter_add", text),
        (Address(partial), Address(node), blocks, total),
        -(-total // BLOCK),
        total * blocks * 0.2,
        (partial,),
        (node,),
        (),
        (node,),
        blocks * node.type.nbytes,
        total * blocks,
    )
