"""The text by which threads combine their values: shuffles in a warp, shared memory in a block.

The order is fixed: by a butterfly in the warp, in which all threads come to hold the same bits
since each step adds the same two numbers, then over the warps in the same way. So a sum is bitwise
the same at every run.
"""

from __future__ import annotations

from graphdl.graph import Node
from graphdl.kernels.body import COMBINE, SUFFIX, identity
from graphdl.kernels.cuda.launch import WARP
from graphdl.types import Dtype, kind_of

POSITIONS = ("argmax", "argmin")


def value_dtype(node: Node) -> Dtype:
    """The dtype of what a reduction compares or sums."""
    return node.inputs[0].dtype if node.op.name in POSITIONS else node.dtype


def better(op: str, a: str, b: str, dtype: Dtype) -> str:
    """Whether an argmax or argmin prefers a to b, wherever they are; NaN goes before all."""
    test = f"{'greater' if op == 'argmax' else 'less'}({a}, {b})"
    if kind_of(dtype) == "f":
        test = f"logical_or({test}, logical_and(isnan({a}), logical_not(isnan({b}))))"
    return test


def total(node: Node, name: str, threads: int) -> list[str]:
    """Lines after which every thread of a team holds the team's result in `name`.

    A team is a warp, or a whole block of `threads`; then all threads of the block must come here,
    and the first bytes of shared memory are used: `shared_bytes`.
    """
    lines = _butterfly(node, name, WARP)
    if threads == WARP:
        return lines
    warps, suffix = threads // WARP, SUFFIX[value_dtype(node)]
    position = node.op.name in POSITIONS
    value = f"best_{name}" if position else name
    lines += [
        f"shared_{name} = {suffix}_shared(0)",
        f"places_{name} = i64_shared({8 * WARP})" if position else "",
        f"if thread() & {WARP - 1} == 0:",
        f"    shared_{name}[thread() >> 5] = {value}",
        f"    places_{name}[thread() >> 5] = {name}" if position else "",
        "barrier()",
        f"{value} = shared_{name}[thread() & {warps - 1}]",
        f"{name} = places_{name}[thread() & {warps - 1}]" if position else "",
        *_butterfly(node, name, warps),
        "barrier()",
    ]
    return [line for line in lines if line]


def shared_bytes(node: Node, threads: int) -> int:
    """The shared memory that `total` needs."""
    if threads == WARP:
        return 0
    return 16 * WARP if node.op.name in POSITIONS else value_dtype(node).itemsize * WARP


def _butterfly(node: Node, name: str, lanes: int) -> list[str]:
    """Combine the values of `lanes` neighbours; with lanes < WARP groups of them hold the same."""
    lines: list[str] = []
    apart = lanes // 2
    while apart:
        if node.op.name in POSITIONS:
            dtype = value_dtype(node)
            mine, theirs = f"best_{name}", f"other_{name}"
            prefer, refuse = (
                better(node.op.name, a, b, dtype) for a, b in ((theirs, mine), (mine, theirs))
            )
            first = f"logical_and(logical_not({refuse}), place_{name} < {name})"
            lines += [
                f"{theirs} = shuffle_xor({mine}, {apart})",
                f"place_{name} = shuffle_xor({name}, {apart})",
                f"take_{name} = logical_or({prefer}, {first})",
                f"{mine} = select(take_{name}, {theirs}, {mine})",
                f"{name} = select(take_{name}, place_{name}, {name})",
            ]
        else:
            combine = COMBINE[node.op.name]
            lines.append(f"{name} = {combine}({name}, shuffle_xor({name}, {apart}))")
        apart //= 2
    return lines


def of_lanes(node: Node, name: str, width: int) -> list[str]:
    """A vector of partial results as one."""
    combine = COMBINE[node.op.name]
    parts = [f"lane{k}({name})" for k in range(width)]
    while len(parts) > 1:
        half = len(parts) // 2
        parts = [f"{combine}({a}, {b})" for a, b in zip(parts[:half], parts[half:], strict=True)]
    return [f"{name}_all = {parts[0]}"]


def start(node: Node) -> str:
    """What a reduction starts from, as text."""
    return identity(node.op.name, value_dtype(node))
