"""What `gd.compile(checks=...)` adds to errors: the op, the element, the operands, the line.

A compiled program notices that something is wrong; then the graph that it was made of is run once
more in NumPy (graphdl.checks.walk), with the same arguments, to tell what.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphdl.checks import bounds, messages, nan
from graphdl.graph import Graph
from graphdl.kernels.program import Program
from graphdl.ops import control, movement

__all__ = ["has_nan", "raise_not_finite", "raise_out_of_bounds"]


def has_nan(leaves: Sequence[Any]) -> bool:
    """Whether an argument holds a NaN, which no kernel has made."""
    arrays = [np.asarray(leaf) for leaf in leaves]
    return any(array.dtype.kind in "fc" and bool(np.isnan(array).any()) for array in arrays)


def raise_not_finite(
    graph: Graph, program: Program, leaves: Sequence[Any], results: Sequence[Any]
) -> None:
    """Raise NonFiniteError if the results come from a NaN or an infinity that came about.

    Raises GraphLinAlgError instead where LAPACK cannot compute something from them.
    """
    try:
        event = nan.find(graph, leaves)
    except nan.Failure as failure:
        raise messages.of_failure(failure.node, failure.place, program) from None
    if event is not None:
        raise messages.of_event(event, program)
    error = messages.of_result(results, graph)
    if error is not None and not has_nan(leaves) and not _has_nan_literal(graph):
        raise error


def _has_nan_literal(graph: Graph) -> bool:
    """Whether the user has written down a NaN, also in a loop or a branch."""
    for node in graph.operations:
        if node.op is movement.constant and has_nan([node["value"].array]):
            return True
        if node.op.family == "control" and any(map(_has_nan_literal, control.bodies_of(node))):
            return True
    return False


def raise_out_of_bounds(graph: Graph, program: Program, leaves: Sequence[Any]) -> None:
    """Raise GraphIndexError for the first index that is out of bounds."""
    miss = bounds.find(graph, leaves)
    if miss is not None:
        raise messages.of_miss(miss, program)
