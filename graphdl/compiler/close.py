"""Closing a piece of graph: what it takes from outside becomes an input of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from graphdl.graph import Graph, Node, Source, topological
from graphdl.ops import movement
from graphdl.ops.op import rebuilt
from graphdl.tracing import Trace, new_placeholder


def closed(
    outputs: Sequence[Node], inputs: Sequence[Node], trace: Trace, own: Collection[Node] = ()
) -> tuple[Graph, list[Node]]:
    """The graph from `inputs` to `outputs`, and the outer nodes that it reads.

    A node that depends on no input is computed outside, once, unless it is one of `own`; the graph
    gets it as one more input, in front of the given ones. Constants, and constants repeated, stay
    inside, where they can be folded.
    """
    inside: set[Node] = set(inputs)
    order = topological(outputs)
    for node in order:
        if node in own or any(operand in inside for operand in node.inputs):
            inside.add(node)
    outer: dict[Node, Node] = {}
    new: dict[Node, Node] = {node: node for node in inputs}

    def use(node: Node) -> Node:
        if node in new:
            return new[node]
        if _is_constant(node):
            return node
        if node not in outer:
            outer[node] = new_placeholder(node.type, trace).node
        return outer[node]

    for node in order:
        if node in inside and node not in new:
            new[node] = rebuilt(node, tuple(use(operand) for operand in node.inputs))
    results = tuple(use(node) for node in outputs)
    sources = _sources(new, trace.sources)
    graph = Graph((*outer.values(), *inputs), results, sources=sources)
    return graph, list(outer)


def _is_constant(node: Node) -> bool:
    while node.op in (movement.broadcast, movement.reshape):
        node = node.inputs[0]
    return node.op.family == "constant"


def _sources(new: Mapping[Node, Node], sources: Mapping[Node, Source]) -> dict[Node, Source]:
    return {made: sources[node] for node, made in new.items() if node in sources}
