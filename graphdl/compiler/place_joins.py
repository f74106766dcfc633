"""Joined arrays most of which is one computed part: it is computed where it belongs.

`np.gradient(x)` would compute the differences inside, then copy them, with the border's, into the
result. As updates of an array of one number they are computed in their place.
"""

from __future__ import annotations

import numpy as np

from graphdl.compiler.constants import constant, repeated
from graphdl.graph import Graph, Node, rebuild, users
from graphdl.ops import movement
from graphdl.ops.op import node_of, rebuilt
from graphdl.ops.update import update

#: The least part of a join that is computed in its place: all around it is written once more.
_LEAST = 3 / 4


def place_joins(graph: Graph) -> Graph:
    """The graph with joins as updates where that saves a copy of most of them."""
    joins = [node for node in graph.operations if node.op is movement.concatenate]
    if not joins:
        return graph
    readers = users(graph.operations)
    outputs = set(graph.outputs)
    chosen = {
        node
        for node in joins
        if any(
            part.op.family == "pointwise"
            and part.type.size >= _LEAST * node.type.size
            and part not in outputs
            and len(readers[part]) == 1
            for part in node.inputs
        )
    }

    def placed(node: Node, inputs: tuple[Node, ...]) -> Node:
        return _updates(node, inputs) if node in chosen else rebuilt(node, inputs)

    return rebuild(graph, placed) if chosen else graph


def _updates(join: Node, parts: tuple[Node, ...]) -> Node:
    axis: int = join["axis"]
    steps = (1,) * join.type.ndim
    whole = repeated(constant(np.zeros((), join.dtype)), join.shape)
    ends = np.cumsum([part.shape[axis] for part in parts])
    placed = sorted(zip(parts, ends, strict=True), key=lambda pair: -pair[0].type.size)
    for part, end in placed:
        if part.type.size:
            start = int(end) - part.shape[axis]
            starts = tuple(start if i == axis else 0 for i in range(join.type.ndim))
            whole = node_of(update, (whole, part), {"starts": starts, "steps": steps})
    return whole
