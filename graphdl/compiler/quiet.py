"""Loops and branches without effects: what a gradient computes a second time happens only once."""

from __future__ import annotations

from typing import Any

from graphdl.graph import Graph, Node, rebuild
from graphdl.ops import control
from graphdl.ops.op import node_of, rebuilt

#: What the symbols of ops begin with that call Python: see graphdl.kernels.callbacks.
EFFECT = "callback_"


def quiet(node: Node) -> Node:
    """A loop, branch or checkpoint whose bodies compute the same, and do nothing beside it."""
    if not any(map(has_effects, control.bodies_of(node))):
        return node
    attrs = {name: control.map_bodies(value, _without_effects) for name, value in node.attrs}
    return node_of(node.op, node.inputs, attrs)


def has_effects(graph: Graph) -> bool:
    """Whether a graph, or a body in it, calls Python for what that does."""
    return any(
        node.op.symbol.startswith(EFFECT)
        or (node.op.family == "control" and any(map(has_effects, control.bodies_of(node))))
        for node in graph.operations
    )


def _without_effects(graph: Graph) -> Graph:
    """The graph in which each effect hands on the token that it takes."""

    def replace(node: Node, inputs: tuple[Node, ...]) -> Node:
        if node.op is control.item and inputs[0].op.symbol.startswith(EFFECT):
            return inputs[0].inputs[0]
        made: Any = rebuilt(node, inputs)
        return quiet(made) if made.op.family == "control" else made

    return rebuild(graph, replace)
