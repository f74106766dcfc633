"""Small axes of what is computed for each pair: their elements become values of their own.

    offset = p[:, None, :] - q[None, :, :]       # M x N x 3
    np.exp(-np.sum(offset**2, axis=-1))

A loop over three elements inside the loops over pairs is too short for vector instructions, and the
gradient sums the offsets over M and over N, which no nest of loops does for an axis in between. As
three arrays of M x N everything is one loop over pairs, and nothing of that size is kept in memory.

An axis is split in all nodes that share it, from the arrays that have few elements to the
reductions over it, or over the others, that leave few again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce

from graphdl.compiler.materialise import copied
from graphdl.graph import Graph, Node, users
from graphdl.graph import Op as AnyOp
from graphdl.ops import indexing, movement, pointwise, reduction
from graphdl.ops.op import Op, node_of, rebuilt

#: The longest axis that is split: each element costs a kernel its operations once more.
LONGEST = 8

#: What two elements make in each of these reductions.
COMBINED: Mapping[AnyOp, Op] = {
    reduction.sum_: pointwise.add,
    reduction.prod: pointwise.multiply,
    reduction.max_: pointwise.maximum,
    reduction.min_: pointwise.minimum,
    reduction.any_: pointwise.logical_or,
    reduction.all_: pointwise.logical_and,
}


def split_small_axes(graph: Graph) -> Graph:
    """The same function; no loop over pairs has a short one inside."""
    readers = users(graph.nodes)
    axes: dict[Node, int] = {}
    for node in graph.operations:
        for axis in _combined_axes(node):
            region = _region(node.inputs[0], axis, readers, graph)
            if region is not None and region.keys().isdisjoint(axes):
                axes |= region
    return _Split(graph, axes).run() if axes else graph


def _combined_axes(node: Node) -> Iterator[int]:
    """The short axes that a reduction sums, of what is computed from several arrays."""
    if node.op in COMBINED and is_pointwise(node.inputs[0]):
        for axis in node["axes"]:
            if 2 <= node.inputs[0].shape[axis] <= LONGEST:
                yield axis


def is_pointwise(node: Node) -> bool:
    return node.op.family == "pointwise" and node.op is not indexing.position


def _is_view(node: Node) -> bool:
    return node.op in (movement.broadcast, movement.transpose)


def _above(node: Node, axis: int) -> Iterator[tuple[Node, int]]:
    """The operands that have the axis, and where; nothing where the node is not split."""
    if is_pointwise(node):
        for operand in node.inputs:
            yield operand, axis
    elif node.op is movement.broadcast:
        if axis in node["dims"]:
            yield node.inputs[0], node["dims"].index(axis)
    elif node.op is movement.transpose:
        yield node.inputs[0], node["perm"][axis]
    elif node.op in COMBINED:
        kept = [a for a in range(node.inputs[0].type.ndim) if a not in node["axes"]]
        yield node.inputs[0], kept[axis]


def _below(user: Node, operand: Node, axis: int) -> int | None:
    """Where a user has the axis of an operand; None where it has it no longer, or in parts."""
    if is_pointwise(user):
        return axis
    if user.op is movement.broadcast:
        return int(user["dims"][axis])
    if user.op is movement.transpose:
        return int(user["perm"].index(axis))
    if user.op in COMBINED and axis not in user["axes"]:
        return axis - sum(1 for a in user["axes"] if a < axis)
    return None


def _region(
    start: Node, axis: int, readers: Mapping[Node, Sequence[Node]], graph: Graph
) -> dict[Node, int] | None:
    """The computed nodes and views that share the axis; None where splitting them does not pay.

    It pays if an element is computed for each pair of two arrays, and if what is left of the axis
    at the end, to be put together again, has not one for each pair.
    """
    found: dict[Node, int] = {}
    ends: list[Node] = []
    outputs = set(graph.outputs)
    pending = [(start, axis)]
    while pending:
        node, axis = pending.pop()
        if node in found:
            if found[node] != axis:
                return None
            continue
        if not (is_pointwise(node) or _is_view(node) or node.op in COMBINED):
            continue
        found[node] = axis
        pending += _above(node, axis)
        if _is_view(node) and not _is_made_here(node):
            continue  # who else sees an argument like this is not concerned
        if node in outputs:
            ends.append(node)
        for user in readers[node]:
            place = _below(user, node, axis)
            if place is not None:
                pending.append((user, place))
            elif user.op not in COMBINED:
                ends.append(node)
    pairs = [node for node, axis in found.items() if _is_of_pairs(node, axis)]
    if not pairs:
        return None
    most = max(node.type.ndim for node in pairs)
    return found if all(node.type.ndim < most for node in ends) else None


def _is_made_here(node: Node) -> bool:
    while _is_view(node):
        node = node.inputs[0]
    return is_pointwise(node) or node.op in COMBINED


def _is_of_pairs(node: Node, axis: int) -> bool:
    """Whether two operands of a pointwise node are repeated, each along a loop of the other."""
    if not is_pointwise(node):
        return False
    repeated = [
        {a for a, n in enumerate(node.shape) if n > 1 and a not in operand["dims"]} - {axis}
        for operand in node.inputs
        if operand.op is movement.broadcast and operand.inputs[0].type.ndim
    ]
    return any(a - b and b - a for a in repeated for b in repeated)


class _Split:
    """The walk that makes the new graph: `whole` values, and `parts` of those that are split."""

    def __init__(self, graph: Graph, axes: Mapping[Node, int]) -> None:
        self.graph = graph
        self.axes = axes
        self.whole = {node: node for node in graph.inputs}
        self.parts: dict[Node, tuple[Node, ...]] = {}

    def run(self) -> Graph:
        sources = dict(self.graph.sources)
        for node in self.graph.operations:
            if node in self.axes:
                made = self.parts[node] = self.split(node, self.axes[node])
            else:
                made = (self.rest(node),)
                self.whole[node] = made[0]
            if node in sources:
                for part in made:
                    sources.setdefault(part, sources[node])
        outputs = [self.of(node) for node in self.graph.outputs]
        return self.graph.with_outputs(outputs, sources)

    def of(self, node: Node) -> Node:
        """The whole value, put together if it was split."""
        if node not in self.whole:
            axis = self.axes[node]
            shape = (*node.shape[:axis], 1, *node.shape[axis + 1 :])
            pieces = [node_of(movement.reshape, (p,), {"shape": shape}) for p in self.parts[node]]
            self.whole[node] = node_of(movement.concatenate, pieces, {"axis": axis})
        return self.whole[node]

    def parts_of(self, node: Node, axis: int) -> tuple[Node, ...]:
        """The elements along an axis; those of an array that is not split, read from memory."""
        if node in self.parts:
            assert self.axes[node] == axis
            return self.parts[node]
        rest = tuple(a for a in range(node.type.ndim) if a != axis)
        front = node_of(movement.transpose, (self.of(node),), {"perm": (axis, *rest)})
        if axis:
            front = copied(front)  # read once for each pair: better one behind the other
        shape = front.shape[1:]
        sizes, steps = (1, *shape), (1,) * front.type.ndim
        slices = (
            node_of(
                movement.slice_,
                (front,),
                {"starts": (i, *(0 for _ in shape)), "sizes": sizes, "steps": steps},
            )
            for i in range(front.shape[0])
        )
        made = tuple(node_of(movement.reshape, (one,), {"shape": shape}) for one in slices)
        return made

    def split(self, node: Node, axis: int) -> tuple[Node, ...]:
        count = node.shape[axis]
        shape = (*node.shape[:axis], *node.shape[axis + 1 :])
        attrs = dict(node.attrs)
        operands = [self.parts_of(operand, place) for operand, place in _above(node, axis)]
        if node.op is movement.broadcast:
            attrs = {
                "shape": shape,
                "dims": tuple(d - (d > axis) for d in node["dims"] if d != axis),
            }
            if not operands:  # repeated along this axis: every element is the same
                operands = [(self.of(node.inputs[0]),) * count]
        elif node.op is movement.transpose:
            gone = node["perm"][axis]
            attrs = {"perm": tuple(a - (a > gone) for a in node["perm"] if a != gone)}
        elif node.op in COMBINED:
            ((_, place),) = _above(node, axis)
            attrs = {"axes": tuple(a - (a > place) for a in node["axes"])}
        return tuple(node_of(node.op, inputs, attrs) for inputs in zip(*operands, strict=True))

    def rest(self, node: Node) -> Node:
        operand = node.inputs[0] if node.inputs else None
        if operand not in self.parts or node.op not in COMBINED:
            return rebuilt(node, tuple(self.of(operand) for operand in node.inputs))
        axis = self.axes[operand]
        combine = COMBINED[node.op]
        parts = self.parts[operand]
        both = reduce(lambda a, b: node_of(combine, (a, b)), parts)
        axes = tuple(a - (a > axis) for a in node["axes"] if a != axis)
        return node_of(node.op, (both,), {"axes": axes}) if axes else both
