"""Joins come last: what is made of a joined array alone is made of its parts.

`np.mean(np.stack([x, y, z]), 0)` is (x + y + z) / 3, a maximum over joined columns the larger of
two maxima, and `np.concatenate([x + 1, y * 2]) * 3` joins what is computed of each part, where
`place_joins` has each computed in its place.

A softmax over joined columns, which reads them more than once, is better one kernel over the whole.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import reduce

from graphdl.compiler.constants import constant, repeated, uniform
from graphdl.compiler.small_axes import COMBINED, is_pointwise
from graphdl.graph import Graph, Node, rebuild, users
from graphdl.ops import movement
from graphdl.ops.op import node_of, rebuilt

#: Parts of a join, at most: what is made of each is computed by itself.
_FEW = 8
#: Elements from which on a pass over memory costs more than another kernel.
_LARGE = 4096


def late_joins(graph: Graph) -> Graph:
    """The graph with joins after what is computed of them."""
    if not any(node.op is movement.concatenate for node in graph.operations):
        return graph
    readers = users(graph.operations)
    outputs = set(graph.outputs)

    def moved(node: Node, inputs: tuple[Node, ...]) -> Node:
        made = None
        if node.op in COMBINED and _is_only_reduced(node.inputs[0], inputs[0], readers, outputs):
            made = _reduced_parts(node, inputs[0])
        elif is_pointwise(node):
            made = _computed_parts(node, inputs, readers, outputs)
        return rebuilt(node, inputs) if made is None else made

    return rebuild(graph, moved)


def _is_join(node: Node) -> bool:
    return (
        node.op is movement.concatenate
        and 2 <= len(node.inputs) <= _FEW
        and node.type.size >= _LARGE
        and all(part.type.size for part in node.inputs)
    )


def _is_only_reduced(
    node: Node, join: Node, readers: Mapping[Node, Sequence[Node]], outputs: Collection[Node]
) -> bool:
    """Whether reductions are all that reads what has become a join."""
    return (
        _is_join(join)
        and node not in outputs
        and all(reader.op in COMBINED for reader in readers[node])
    )


def _reduced_parts(node: Node, join: Node) -> Node:
    """The reductions of the parts, combined; or joined, where the axis stays."""
    axis, axes = join["axis"], node["axes"]
    if axis not in axes:
        left = axis - sum(1 for reduced in axes if reduced < axis)
        parts = [node_of(node.op, (part,), {"axes": axes}) for part in join.inputs]
        return node_of(movement.concatenate, parts, {"axis": left})
    others = tuple(a - (a > axis) for a in axes if a != axis)
    found = []
    for part in join.inputs:
        if part.shape[axis] == 1:
            shape = part.shape[:axis] + part.shape[axis + 1 :]
            part = node_of(movement.reshape, (part,), {"shape": shape})
            part = node_of(node.op, (part,), {"axes": others}) if others else part
        else:
            part = node_of(node.op, (part,), {"axes": axes})
        found.append(part)
    return reduce(lambda x, y: node_of(COMBINED[node.op], (x, y)), found)


def _computed_parts(
    node: Node,
    inputs: Sequence[Node],
    readers: Mapping[Node, Sequence[Node]],
    outputs: Collection[Node],
) -> Node | None:
    """The join of what is computed of each part of one, and of numbers."""
    joins = {new: old for old, new in zip(node.inputs, inputs, strict=True) if _is_join(new)}
    if len(joins) != 1:
        return None
    ((join, before),) = joins.items()
    alone = before not in outputs and len(readers[before]) == 1
    if not alone or not any(is_pointwise(part) for part in join.inputs):
        return None
    columns = [_parts_of(operand, join) for operand in inputs]
    if any(column is None for column in columns):
        return None
    parts = [
        node_of(node.op, operands, dict(node.attrs))
        for operands in zip(*(column for column in columns if column), strict=True)
    ]
    return node_of(movement.concatenate, parts, {"axis": join["axis"]})


def _parts_of(operand: Node, join: Node) -> list[Node] | None:
    """An operand beside each part of a join: the join's own, or what is the same along its axis."""
    if operand is join:
        return list(join.inputs)
    shapes = [part.shape for part in join.inputs]
    number = uniform(operand)
    if number is not None:
        return [repeated(constant(number), shape) for shape in shapes]
    if operand.op is movement.broadcast and join["axis"] not in operand["dims"]:
        dims = {"dims": operand["dims"]}
        return [node_of(movement.broadcast, operand.inputs, {"shape": s, **dims}) for s in shapes]
    return None
