"""Padded arrays that lie in memory: their inside is computed where it belongs.

`np.pad(f(x), 1)` would be computed, then copied into a larger array. As an update of an array of
one number it is computed in its place, and only the border is written besides.
"""

from __future__ import annotations

from graphdl.compiler.constants import repeated
from graphdl.compiler.origins import is_number
from graphdl.compiler.view import is_movement
from graphdl.graph import Graph, Node, rebuild, users
from graphdl.ops import movement
from graphdl.ops.op import node_of, rebuilt
from graphdl.ops.update import update

#: The least part of an array that its inside has to be: a kernel that reads an array of zeros
#: around a small part, rather than the part, reads more.
_LEAST = 1 / 2


def place_pads(graph: Graph) -> Graph:
    """The graph with pads as updates where that saves a copy.

    What else reads the inside reads that part of the padded array.
    """
    pads = _chosen(graph)
    if not pads:
        return graph
    made: dict[Node, Node] = {}

    def placed(node: Node, inputs: tuple[Node, ...]) -> Node:
        if node in made:
            return made[node]
        value = rebuilt(node, inputs)
        if node not in pads:
            return value
        pad = pads[node]
        window = {"starts": pad["starts"], "steps": pad["steps"]}
        whole = node_of(update, (repeated(pad.inputs[1], pad.shape), value), window)
        made[pad] = whole
        return node_of(movement.slice_, (whole,), {**window, "sizes": value.shape})

    return rebuild(graph, placed)


def _chosen(graph: Graph) -> dict[Node, Node]:
    """For each value that is computed within a padded array, the pad."""
    pads = [node for node in graph.operations if node.op is movement.pad]
    if not pads:
        return {}
    readers = users(graph.operations)
    outputs = set(graph.outputs)
    chosen: dict[Node, Node] = {}
    for pad in pads:
        inside, fill = pad.inputs
        if (
            (pad in outputs or any(map(is_movement, readers[pad])))
            and inside.op.family == "pointwise"
            and inside.type.size >= _LEAST * pad.type.size
            and inside not in outputs
            and is_number(fill)
            and all(
                reader is pad or reader.op.family in ("pointwise", "reduction")
                for reader in readers[inside]
            )
        ):
            chosen.setdefault(inside, pad)
    return chosen
