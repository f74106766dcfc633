"""Decompositions of which the values alone are wanted: no vectors are computed.

The front end always asks for both, so that a gradient, which needs the vectors, and the function
itself share one decomposition.
"""

from __future__ import annotations

from graphdl.graph import Graph, Node, rebuild, users
from graphdl.ops.linalg import FIRST_ONLY
from graphdl.ops.op import node_of, rebuilt


def narrow(graph: Graph) -> Graph:
    """The same function; an op whose first result is the only one that is used has no other."""
    readers = users(graph.nodes)
    outputs = set(graph.outputs)

    def replace(node: Node, inputs: tuple[Node, ...]) -> Node:
        attrs = FIRST_ONLY.get(node.op.name)
        if attrs is None or node in outputs or any(item["offset"] for item in readers[node]):
            return rebuilt(node, inputs)
        return node_of(node.op, inputs, dict(node.attrs) | attrs)

    return rebuild(graph, replace)
