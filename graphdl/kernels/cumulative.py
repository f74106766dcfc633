"""Kernels of running sums, running extrema and recurrences.

Where the axis is the last one, each line is a chain of scalars; otherwise each step of the chain is
a vector, the elements behind the axis. Iterations are the places before the axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from graphdl.graph import Node
from graphdl.kernels.body import SUFFIX
from graphdl.kernels.copying import place_of
from graphdl.kernels.program import Address, Buffer, Launch
from graphdl.kernels.source import KernelSource

#: The next value, from the one before and the operands' elements.
STEP = {
    "cumsum": "add({before}, {x0})",
    "cummax": "maximum({before}, {x0})",
    "cummin": "minimum({before}, {x0})",
    "recurrence": "add(multiply({x0}, {before}), {x1})",
}
#: The operand that the chain starts with.
FIRST = {"cumsum": 0, "cummax": 0, "cummin": 0, "recurrence": 1}


def _cumulative(node: Node, status: Buffer) -> list[Launch]:
    places = [place_of(operand) for operand in node.inputs]
    axis: int = node["axis"]
    outer, length = math.prod(node.shape[:axis]), node.shape[axis]
    inner = math.prod(node.shape[axis + 1 :])
    reverse = dict(node.attrs).get("reverse", False)
    source = _source(node.op.name, SUFFIX[node.dtype], node.dtype.itemsize, inner == 1, reverse)
    launch = Launch(
        source,
        (length, inner, Address(node), *(where for where, _, _ in places)),
        outer,
        node.type.size * 1.0,
        tuple(dict.fromkeys(base for _, _, base in places)),
        (node,),
        (),
        (node,),
        (1 + len(places)) * node.type.nbytes,
        len(places) * node.type.size,
    )
    return [launch] if node.type.size else []


def _source(op: str, suffix: str, size: int, scalar: bool, reverse: bool) -> KernelSource:
    start, step = ("length - 1", "-1") if reverse else ("0", "1")
    operands = [f"x{i}" for i in range(2 if op == "recurrence" else 1)]
    names = ["y", *operands]
    first = operands[FIRST[op]]
    lines = [
        "def kernel(table, lo, hi):",
        "    length, inner = table[0], table[1]",
        "    for r in range(lo, hi):",
    ]
    if scalar:
        lines += [
            f"        {name} = {suffix}_at(table[{2 + i}] + r * length * {size})"
            for i, name in enumerate(names)
        ]
        elements = {name: f"{name}[place]" for name in operands}
        lines += [
            f"        place = {start}",
            f"        last = {first}[place]",
            "        y[place] = last",
            "        for i in range(1, length):",
            f"            place += {step}",
            f"            last = {STEP[op].format(before='last', **elements)}",
            "            y[place] = last",
        ]
    else:
        at = "(r * length + place) * inner"
        elements = {name: f"{name}[j]" for name in operands}
        lines += [
            f"        place = {start}",
            "        for i in range(length):",
            *(
                f"            {name} = {suffix}_at(table[{2 + i}] + {at} * {size})"
                for i, name in enumerate(names)
            ),
            "            if i == 0:",
            "                for j in lanes(0, inner):",
            f"                    y[j] = {first}[j]",
            "            else:",
            f"                z = {suffix}_at(table[2] + ({at} - {step} * inner) * {size})",
            "                for j in lanes(0, inner):",
            f"                    y[j] = {STEP[op].format(before='z[j]', **elements)}",
            f"            place += {step}",
        ]
    return KernelSource(op, "\n".join(lines) + "\n")


CUMULATIVE: dict[str, Callable[[Node, Buffer], list[Launch]]] = dict.fromkeys(STEP, _cumulative)
