"""Arrays that lie across the rows of a reduction: transposed in memory first.

    softmax(x.T + y)

A kernel goes along such rows, once for each stage. The neighbours of an element of `y` lie side by
side there, those of `x` a whole row of `x` apart, and each takes a cache line of its own. Loops
without reductions pass such arrays through tiles (`graphdl.kernels.loops`); a kernel that goes over
its rows several times reads a copy that lies as the rows do, and each line of `x` is read once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from graphdl.compiler.materialise import copy
from graphdl.compiler.small_axes import is_pointwise
from graphdl.compiler.view import is_movement, view_of
from graphdl.graph import Graph, Node, rebuild, users
from graphdl.ops import movement
from graphdl.ops.op import node_of, rebuilt

#: Bytes from which on an array is copied: what is smaller stays in the first-level cache.
_LEAST = 2**15


def straighten(graph: Graph) -> Graph:
    """The graph with copies of what lies across in regions with reductions."""
    chosen: dict[Node, frozenset[Node]] = {}  # a node of a region -> operands that lie across
    for region in _regions(graph):
        across = _across(region)
        if across:
            chosen |= dict.fromkeys(region, across)
    if not chosen:
        return graph
    copies: dict[Node, Node] = {}

    def replace(node: Node, inputs: tuple[Node, ...]) -> Node:
        across = chosen.get(node, frozenset())
        for old, new in zip(node.inputs, inputs, strict=True):
            if old in across and old not in copies:
                copies[old] = _straight(new)
        pairs = zip(node.inputs, inputs, strict=True)
        return rebuilt(node, tuple(copies[old] if old in across else new for old, new in pairs))

    return rebuild(graph, replace)


def _regions(graph: Graph) -> Iterator[set[Node]]:
    """The pointwise nodes of one shape around each reduction over some of several axes."""
    readers = users(graph.operations)
    seen: set[Node] = set()
    for node in graph.operations:
        if node.op.family == "reduction" and 1 < node.type.size < node.inputs[0].type.size:
            start = node.inputs[0]
            if is_pointwise(start) and start not in seen:
                region = _around(start, readers)
                seen |= region
                yield region


def _around(start: Node, readers: Mapping[Node, Sequence[Node]]) -> set[Node]:
    found: set[Node] = set()
    pending = [start]
    while pending:
        node = pending.pop()
        if node in found or not is_pointwise(node) or node.shape != start.shape:
            continue
        found.add(node)
        pending += node.inputs
        pending += readers[node]
    return found


def _across(region: set[Node]) -> frozenset[Node]:
    """The large operands from outside that lie across, if others lie along the last axis."""
    shape = next(iter(region)).shape
    last = max(axis for axis, size in enumerate(shape) if size > 1)
    outside = {operand for node in region for operand in node.inputs} - region
    steps = {operand: _step(operand, last) for operand in outside if _bytes(operand) >= _LEAST}
    if 1 not in steps.values():
        return frozenset()
    return frozenset(
        operand for operand, step in steps.items() if step > 1 and _is_transposed(operand)
    )


def _bytes(operand: Node) -> int:
    stored = operand.inputs[0] if operand.op is movement.broadcast else operand
    return stored.type.size * stored.dtype.itemsize


def _step(operand: Node, axis: int) -> int:
    """How far apart in memory the neighbours along an axis lie; 0 where nobody can say."""
    if not is_movement(operand):
        return 1 if axis == max(a for a, n in enumerate(operand.shape) if n > 1) else 0
    view = view_of(operand)
    return 0 if view is None or view.base.op is movement.iota else abs(view.strides[axis])


def _is_transposed(operand: Node) -> bool:
    """Whether the neighbours along some other axis lie side by side."""
    view = view_of(operand)
    if view is None:
        return False
    return any(abs(step) == 1 for step, n in zip(view.strides, operand.shape, strict=True) if n > 1)


def _straight(operand: Node) -> Node:
    """A copy with its elements in the order of its axes; of what is repeated, one."""
    if operand.op is movement.broadcast:
        inside = _straight(operand.inputs[0])
        return node_of(movement.broadcast, (inside,), dict(operand.attrs))
    return node_of(copy, (operand,), {"again": 0, "apart": True})
