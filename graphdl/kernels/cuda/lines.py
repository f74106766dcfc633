"""Running sums, running extrema and recurrences: a thread goes along a line, others beside it."""

from __future__ import annotations

import math

from graphdl.graph import Node
from graphdl.kernels.body import SUFFIX
from graphdl.kernels.copying import place_of
from graphdl.kernels.cuda.copying import each
from graphdl.kernels.cuda.launch import DeviceLaunch, blocks_for
from graphdl.kernels.cumulative import FIRST, STEP
from graphdl.kernels.program import Address, Buffer
from graphdl.kernels.source import KernelSource


def cumulative(node: Node, status: Buffer) -> list[DeviceLaunch]:
    """One thread for each line along the axis."""
    if not node.type.size:
        return []
    places = [place_of(operand) for operand in node.inputs]
    axis: int = node["axis"]
    outer, length = math.prod(node.shape[:axis]), node.shape[axis]
    inner = math.prod(node.shape[axis + 1 :])
    reverse = dict(node.attrs).get("reverse", False)
    op, suffix = node.op.name, SUFFIX[node.dtype]
    first, step = ("length - 1", "-") if reverse else ("0", "+")
    operands = [f"x{i}" for i in range(len(places))]
    elements = {name: f"{name}[at]" for name in operands}
    lines = [
        f"def kernel({', '.join(['out', *(f'from_{name}' for name in operands)])}, "
        "total, length, inner):",
        f"    result = {suffix}_at(out)",
        *(f"    {name} = {suffix}_at(from_{name})" for name in operands),
        *each(
            "total",
            [
                "line = quotient(i, inner)",
                f"at = (line * length + {first}) * inner + (i - line * inner)",
                f"last = {operands[FIRST[op]]}[at]",
                "result[at] = last",
                "count = 1",
                "while count < length:",
                f"    at = at {step} inner",
                f"    last = {STEP[op].format(before='last', **elements)}",
                "    result[at] = last",
                "    count += 1",
            ],
        ),
    ]
    return [
        DeviceLaunch(
            KernelSource(op, "\n".join(lines) + "\n"),
            (Address(node), *(where for where, _, _ in places), outer * inner, length, inner),
            blocks_for(outer * inner),
            node.type.size * 1.0,
            tuple(dict.fromkeys(base for _, _, base in places)),
            (node,),
            (),
            (node,),
            (1 + len(places)) * node.type.nbytes,
            len(places) * node.type.size,
        )
    ]
