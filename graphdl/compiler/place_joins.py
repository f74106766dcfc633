"""Joined arrays of computed parts: each part is computed where it belongs.

`np.vstack([x + 1, y * 2])` would compute both parts, then copy them into the result, and
`np.gradient(x)` the differences inside, then copy them with the border's. As updates of memory that
holds nothing yet, each is one kernel that writes to its place.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from graphdl.graph import Graph, Node, rebuild, users
from graphdl.ops import movement
from graphdl.ops.op import node_of, rebuilt
from graphdl.ops.update import update

#: A join is computed in its place if one part is most of it, or, of few parts, enough of it is
#: computed for it alone: each part is a kernel of its own then, which has to be compiled.
_MOST, _ENOUGH, _FEW = 3 / 4, 1 / 4, 4
#: Elements from which on a pass over memory costs more than to compile a kernel.
_LARGE = 4096
#: Where less lies side by side of a part, copies of all parts at once are better.
_RUN = 16


def place_joins(graph: Graph) -> Graph:
    """The graph with joins as updates where that saves copies."""
    joins = [node for node in graph.operations if node.op is movement.concatenate]
    if not joins:
        return graph
    readers = users(graph.operations)
    outputs = set(graph.outputs)
    chosen = {node for node in joins if _saves_copies(node, readers, outputs)}

    def placed(node: Node, inputs: tuple[Node, ...]) -> Node:
        return _updates(node, inputs) if node in chosen else rebuilt(node, inputs)

    return rebuild(graph, placed) if chosen else graph


def _saves_copies(
    join: Node, readers: Mapping[Node, Sequence[Node]], outputs: Collection[Node]
) -> bool:
    """Whether enough of a join is computed for it alone, by loops that can write anywhere."""
    axis: int = join["axis"]
    run = math.prod(join.shape[axis + 1 :])
    sizes = [
        part.type.size
        for part in join.inputs
        if run * part.shape[axis] >= min(_RUN, join.type.size // join.shape[axis])
        and _is_computed_alone(part, readers, outputs)
    ]
    if max(sizes, default=0) >= _MOST * join.type.size:
        return True
    few = len([part for part in join.inputs if part.type.size]) <= _FEW
    return few and join.type.size >= _LARGE and sum(sizes) >= _ENOUGH * join.type.size


def _is_computed_alone(
    part: Node, readers: Mapping[Node, Sequence[Node]], outputs: Collection[Node]
) -> bool:
    """Whether a part, but for axes of one element, is computed in a loop, for this join only."""
    while True:
        if part in outputs or len(readers[part]) != 1:
            return False
        if part.op.family == "pointwise":
            return True
        if part.op is not movement.reshape or _long(part.shape) != _long(part.inputs[0].shape):
            return False
        part = part.inputs[0]


def _long(shape: Sequence[int]) -> list[int]:
    return [size for size in shape if size != 1]


def _updates(join: Node, parts: tuple[Node, ...]) -> Node:
    axis: int = join["axis"]
    steps = (1,) * join.type.ndim
    whole = node_of(movement.blank, (), {"shape": join.shape, "dtype": join.dtype})
    start = 0
    for part in parts:
        if part.type.size:
            starts = tuple(start if i == axis else 0 for i in range(join.type.ndim))
            whole = node_of(update, (whole, part), {"starts": starts, "steps": steps})
        start += part.shape[axis]
    return whole
