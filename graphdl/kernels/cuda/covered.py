"""Which ops the device has kernels for; the others are named before anything is compiled."""

from __future__ import annotations

from graphdl.compiler.origins import is_generator
from graphdl.compiler.rows import ROOTS
from graphdl.compiler.view import is_movement, is_result
from graphdl.errors import UnsupportedError
from graphdl.graph import Graph, Node
from graphdl.kernels.cuda.special import SPECIAL
from graphdl.kernels.special_functions import SPECIAL_FUNCTIONS
from graphdl.ops import indexing, movement
from graphdl.ops.update import update
from graphdl.tracing import where_text

_IN_LOOPS = (indexing.gather, movement.pad, update)


def check_covered(graph: Graph) -> None:
    """UnsupportedError that names the first op without a kernel, the user's line, and a way out."""
    for node in graph.operations:
        reason = missing(node)
        if reason is not None:
            where = where_text(graph.sources.get(node))
            raise UnsupportedError(
                f"target='cuda' has no kernel for {node.op.name}: {reason}{where}; compile this "
                f"part with target='cpu'"
            )


def missing(node: Node) -> str | None:
    """Why the device cannot compute a node; None if it can."""
    op = node.op
    if op.family == "constant" or is_movement(node) or is_result(node) or is_generator(node):
        return None
    if op.symbol or op.family == "user":
        return "it is native code of the CPU, compiled from a function of yours"
    if op.name in SPECIAL_FUNCTIONS:
        return "it is a compiled function of SciPy's, which runs on the CPU only"
    if op.family == "control":
        return None  # its bodies are asked when they are emitted
    if op.family in ("pointwise", "reduction") or op in (*_IN_LOOPS, *ROOTS) or op.name in SPECIAL:
        return None
    return f"ops of the family {op.family!r} need a library that this version does not use"
