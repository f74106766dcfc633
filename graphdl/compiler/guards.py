"""Guards: kernels that note where a NaN or an infinity comes about, for `gd.compile(checks="nan")`.

A guard is a pointwise op that is its operand, and whose kernel sets the status of the program where
a condition holds. It fuses with what computes the value, so a checked program is a few comparisons
slower. What a guard notes may be no mistake (a side that np.where does not choose, an infinity that
the user wrote down): graphdl.checks finds out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphdl.compiler.pipeline import optimise
from graphdl.graph import Graph, Node, rebuild
from graphdl.ops import control, indexing, movement, pointwise, sorting
from graphdl.ops.op import node_of, rebuilt
from graphdl.ops.update import scatter, update
from graphdl.tracing import Trace, TracedArray
from graphdl.types import kind_of

#: Ops that only hand values on.
_HAND_ON = (
    pointwise.select, pointwise.guard, pointwise.watch, pointwise.variable,
    pointwise.stop_gradient, update, indexing.gather, sorting.sort,
)  # fmt: skip


def settled(graph: Graph) -> Graph:
    """A graph that has gone through all passes, the bodies of loops and branches too."""
    return rebuild(
        graph,
        lambda node, operands: _rebuilt(node, operands, lambda b: settled(optimise(b)[-1][1])),
    )


def guarded(graph: Graph) -> Graph:
    """A settled graph with a guard after each op that computes floats, also in bodies."""
    trace = Trace("guards")
    trace.sources.update(graph.sources)
    new: dict[Node, Node] = {node: node for node in graph.inputs}
    for node in graph.operations:
        trace.standin = graph.sources.get(node)
        made = _rebuilt(node, tuple(new[operand] for operand in node.inputs), guarded)
        if trace.standin is not None:
            trace.sources.setdefault(made, trace.standin)
        new[node] = _guard(made, trace) if is_computed(node) else made
    return graph.with_outputs([new[node] for node in graph.outputs], trace.sources)


def _rebuilt(node: Node, operands: tuple[Node, ...], change: Callable[[Graph], Graph]) -> Node:
    """The node on other operands, with its bodies changed if it has any."""
    if node.op.family != "control":
        return rebuilt(node, operands)
    attrs = {name: control.map_bodies(value, change) for name, value in node.attrs}
    return node_of(node.op, operands, attrs)


def is_computed(node: Node) -> bool:
    """Whether a node computes floats: it neither moves them, nor holds them, nor chooses."""
    if kind_of(node.dtype) != "f" or not node.type.size:
        return False
    if node.op is control.item:  # of an op with several results, such as a decomposition
        return node.inputs[0].op.family != "control"
    if node.op.family in ("movement", "constant", "input") or node.op.name == "copy":
        return False
    if node.op is scatter and node["mode"] == "set":  # of one element, often
        return False
    return node.op not in _HAND_ON


def _guard(node: Node, trace: Trace) -> Node:
    """The node, guarded against a NaN, and against an infinity made of finite numbers."""
    value = TracedArray(node, trace)
    bad: Any = np.logical_not(np.isfinite(value))
    if node.op.family == "pointwise":
        for operand in dict.fromkeys(node.inputs):
            if kind_of(operand.dtype) == "f" and not _is_finite_number(operand):
                given = TracedArray(operand, trace)
                bad = np.logical_and(bad, np.logical_or(np.isfinite(given), np.isnan(value)))
    return node_of(pointwise.guard, (node, bad.node))


def _is_finite_number(node: Node) -> bool:
    while node.op in (movement.broadcast, movement.reshape):
        node = node.inputs[0]
    return node.op is movement.constant and bool(np.isfinite(node["value"].array).all())
