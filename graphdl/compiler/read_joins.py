"""Joined arrays that are only read element by element: read from their parts.

`u - np.roll(u, 1)` would write the rolled array, then read it. Kernels can as well read each
element from the part that it comes from: `where(i < n, a[i], b[i - n])`, the loads masked.
"""

from __future__ import annotations

import numpy as np

from graphdl.compiler.constants import constant, repeated
from graphdl.compiler.view import is_movement, view_of
from graphdl.graph import Graph, Node, rebuild, users
from graphdl.ops import movement, pointwise
from graphdl.ops.op import node_of, rebuilt

#: Parts of a join: each is another masked load and another comparison.
_PARTS = 2
#: Elements from which on a pass over memory costs more than the masks.
_LARGE = 4096


def read_joins(graph: Graph) -> Graph:
    """The graph with selections from parts in place of joins that nothing needs in memory."""
    joins = [node for node in graph.operations if node.op is movement.concatenate]
    if not joins:
        return graph
    readers = users(graph.operations)
    outputs = set(graph.outputs)
    chosen = {
        node
        for node in joins
        if node not in outputs
        and len(node.inputs) == _PARTS
        and node.type.size >= _LARGE
        and all(reader.op.family == "pointwise" for reader in readers[node])
        and all(is_movement(part) and view_of(part) is not None for part in node.inputs)
    }

    def selected(node: Node, inputs: tuple[Node, ...]) -> Node:
        return _selection(node, inputs) if node in chosen else rebuilt(node, inputs)

    return rebuild(graph, selected) if chosen else graph


def _selection(join: Node, parts: tuple[Node, ...]) -> Node:
    axis: int = join["axis"]
    zero = constant(np.zeros((), join.dtype))
    first, second = (
        node_of(
            movement.pad,
            (part, zero),
            {
                "shape": join.shape,
                "starts": tuple(start if i == axis else 0 for i in range(join.type.ndim)),
                "steps": (1,) * join.type.ndim,
            },
        )
        for part, start in zip(parts, (0, parts[0].shape[axis]), strict=True)
    )
    size = np.dtype(np.int64)
    numbers = node_of(movement.iota, (), {"size": join.shape[axis], "dtype": size})
    places = node_of(movement.broadcast, (numbers,), {"shape": join.shape, "dims": (axis,)})
    seam = repeated(constant(size.type(parts[0].shape[axis])), join.shape)
    return node_of(pointwise.select, (node_of(pointwise.less, (places, seam)), first, second))
