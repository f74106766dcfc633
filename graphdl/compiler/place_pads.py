"""Padded arrays that lie in memory: their inside is computed where it belongs.

`np.pad(f(x), 1)` would be computed, then copied into a larger array. As an update of an array of
one number it is computed in its place, and only the border is written besides.

What is spread in steps, as `np.diag(v)` and the gradients of `x[::2]` are, always lies in memory: a
kernel that read it where it is needed would divide the place of each element by the step.
"""

from __future__ import annotations

import numpy as np

from graphdl.compiler.constants import constant, is_zero, repeated, uniform
from graphdl.compiler.origins import is_number
from graphdl.compiler.view import is_movement
from graphdl.graph import Graph, Node, rebuild, users
from graphdl.ops import movement, pointwise
from graphdl.ops.op import node_of, rebuilt
from graphdl.ops.update import update

#: The least part of an array that its inside has to be: a kernel that reads an array of zeros
#: around a small part, rather than the part, reads more.
_LEAST = 1 / 2


def place_pads(graph: Graph) -> Graph:
    """The graph with pads as updates where that saves a copy.

    What else reads the inside reads that part of the padded array.
    """
    graph = _scaled_inside(graph)
    pads = _chosen(graph)
    if not pads and not any(map(_is_spread, graph.operations)):
        return graph
    made: dict[Node, Node] = {}

    def placed(node: Node, inputs: tuple[Node, ...]) -> Node:
        if node in made:
            return made[node]
        value = rebuilt(node, inputs)
        if _is_spread(value):
            return _updated(value, value.inputs[0])
        if node not in pads:
            return value
        pad = pads[node]
        made[pad] = whole = _updated(pad, value)
        window = {"starts": pad["starts"], "steps": pad["steps"]}
        return node_of(movement.slice_, (whole,), {**window, "sizes": value.shape})

    return rebuild(graph, placed)


def _updated(pad: Node, inside: Node) -> Node:
    """An array of the fill with what is inside where the pad has it."""
    window = {"starts": pad["starts"], "steps": pad["steps"]}
    return node_of(update, (repeated(pad.inputs[1], pad.shape), inside), window)


def _is_spread(node: Node) -> bool:
    """Whether a node is a pad in steps."""
    return (
        node.op is movement.pad
        and is_number(node.inputs[1])
        and any(step != 1 for step in node["steps"])
        and node.inputs[0].type.size > 0
    )


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


def _scaled_inside(graph: Graph) -> Graph:
    """The graph with -x and c * x before zeros around them, where they were after.

    `simplify` takes them outside, for gradients that read x as it lies. What lies in memory once
    it is padded is better computed whole inside.
    """
    readers = users(graph.operations)
    outputs = set(graph.outputs)

    def is_scaled(node: Node) -> bool:
        if node.op is not pointwise.negative and node.op is not pointwise.multiply:
            return False
        pad, *factors = node.inputs
        return (
            pad.op is movement.pad
            and readers[pad] == [node]
            and pad not in outputs
            and is_zero(pad.inputs[1])
            and pad.inputs[0].op.family == "pointwise"
            and readers[pad.inputs[0]] == [pad]
            and pad.inputs[0] not in outputs
            and all(_is_finite(factor) for factor in factors)
            and (node in outputs or any(map(is_movement, readers[node])))
        )

    scaled = {node for node in graph.operations if is_scaled(node)}
    if not scaled:
        return graph

    def inside(node: Node, inputs: tuple[Node, ...]) -> Node:
        if node not in scaled:
            return rebuilt(node, inputs)
        pad, *factors = inputs
        x, fill = pad.inputs
        numbers = [repeated(constant(uniform(factor)), x.shape) for factor in factors]
        return rebuilt(pad, (node_of(node.op, (x, *numbers)), fill))

    return rebuild(graph, inside)


def _is_finite(node: Node) -> bool:
    """Whether a node is one finite number everywhere: zeros times that are zeros."""
    value = uniform(node)
    return value is not None and bool(np.isfinite(value))
