"""A fused graph as a program: each group as launches of generated kernels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from graphdl.compiler.fuse import NUMBERS, Group, fuse, stored
from graphdl.compiler.order import ordered
from graphdl.compiler.pipeline import optimise
from graphdl.graph import Graph, Node
from graphdl.kernels import user
from graphdl.kernels.callbacks import CALLBACKS
from graphdl.kernels.control import control_launch, side_by_side_launch
from graphdl.kernels.cpu import product
from graphdl.kernels.linalg import LINALG
from graphdl.kernels.matmul import product_launch
from graphdl.kernels.nest_launch import nest_launches
from graphdl.kernels.numbers import numbers_launch
from graphdl.kernels.program import FAILED, Buffer, Check, Launch, Program
from graphdl.kernels.special import SPECIAL
from graphdl.kernels.spectral import SPECTRAL
from graphdl.types import TensorType

#: The launches of ops of matrices.
_MATRICES = {**LINALG, **SPECTRAL}


def array_entry(
    symbol: str, operands: tuple[TensorType, ...], results: tuple[TensorType, ...]
) -> int:
    """The address of the native code of a function of the user's: of arrays, or a callback."""
    if symbol in CALLBACKS:
        return CALLBACKS[symbol].entry(operands)
    # imported here because it imports Numba, which a process with a warm cache has no other use for
    from graphdl.kernels.cpu import user_code

    return user_code.array_entry(user.FUNCTIONS[symbol], operands, results)


def compiled(graph: Graph, threads: int) -> Program:
    """The program of a graph, through all passes."""
    optimised = optimise(graph)[-1][1]
    return emit(optimised, fuse(optimised), threads)


def _control(members: Sequence[Node], status: Buffer, threads: int) -> Launch:
    """The launch of a loop or a branch: its steps side by side, or their kernels shared."""
    alone, shared = partial(compiled, threads=1), partial(compiled, threads=threads)
    found = side_by_side_launch(members, alone, status, threads)
    return control_launch(members, shared, status) if found is None else found


def emit(graph: Graph, groups: Sequence[Group], threads: int | None = None) -> Program:
    """The program that computes the outputs of a graph, group by group.

    At most so many `threads`, or as many as there are cores, take whole steps of a loop.
    """
    threads = product.cores() if threads is None else threads
    groups = ordered(graph, groups)
    kept = stored(graph, groups)
    status = Buffer(8, None, "whether a kernel has failed, and which")
    launches: list[Launch] = []
    checks: list[Node] = []
    for group in groups:
        if group.kind == "product":
            launches.append(product_launch(group, kept))
        elif group.kind == "loops":
            launches += nest_launches(group, kept, status)
        elif group.kind == NUMBERS:
            launches.append(numbers_launch(group, kept, status))
        else:
            node = group.members[0]
            if node.op.family == "control":
                launches.append(_control(group.members, status, threads))
            elif node.op.family == "linalg":
                launches += _MATRICES[group.kind](node, Check(status, FAILED + len(checks)))
                checks.append(node)
            elif node.op.family == "user":
                check = Check(status, FAILED + len(checks))
                launches += user.launch(node, check, array_entry)
                checks.append(node)
            else:
                launches += SPECIAL[group.kind](node, status)
    computed = {node for group in groups for node in group.members}
    arguments = set(graph.inputs)
    constants: dict[Node, None] = {}
    for launch in launches:
        for value in launch.reads:
            if isinstance(value, Node) and value not in computed and value not in arguments:
                constants.setdefault(value)
    used = any(status in launch.writes for launch in launches)
    return Program(graph, launches, tuple(constants), status if used else None, checks)
