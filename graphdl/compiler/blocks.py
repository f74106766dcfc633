"""Products too large to keep, and what is made of them, a block at a time.

Attention multiplies queries by keys, and so makes of n x d numbers n x n, which a softmax and one
more product turn into n x d again. Held whole, they are most of the memory of a transformer. Here
such a product, what is made of it, and the product or sum that ends it, become the body of a loop
over blocks of one axis: of a batch, or of rows. Only what the loop ends with is as long as before.
What is computed by one loop, and where it is cut, `graphdl.compiler.regions` finds out.

The values of a softmax's row are all in one block, so it is computed as it was, and nothing has to
be rescaled as by an online softmax (Milakov and Gimelshein 2018; Dao et al., FlashAttention, 2022):
a block of some hundred rows stays in the second-level cache even if a row has thousands of columns.
What sums over rows, such as the gradient of the keys, is carried from block to block. A body is
compiled as any graph is, so that a loop over the heads of a batch may have one over rows in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from graphdl.compiler.constants import constant, repeated
from graphdl.compiler.contract import transposed
from graphdl.compiler.loop_results import result
from graphdl.compiler.origins import is_generator
from graphdl.compiler.regions import Facts, Loop, is_seed, is_view, loops_of
from graphdl.graph import Graph, Node
from graphdl.ops import control, movement, pointwise
from graphdl.ops.op import node_of
from graphdl.tracing import Trace, new_placeholder
from graphdl.types import Shape, TensorType


def in_blocks(graph: Graph) -> Graph:
    """The graph with its large shallow products, and what is made of them, in loops."""
    for size in sorted({node.type.size for node in graph.operations if is_seed(node)})[::-1]:
        graph = _without(graph, size)
    return graph


def _without(graph: Graph, size: int) -> Graph:
    """The graph with its values of this size computed by blocks."""
    facts = Facts(graph, size)
    loops = loops_of(facts)
    if not loops:
        return graph
    outputs = set(graph.outputs)
    read = {x for loop in loops for x in loop.region.read}
    maker: dict[Node, Loop] = {}
    results: dict[int, list[Node]] = {}
    for loop in loops:
        own = loop.region.nodes
        results[id(loop)] = [
            node
            for node in (*loop.region.sums, *loop.region.members)
            if not facts.is_large(node)
            and facts.is_computed(node, loop.region.stage)
            and (
                node in outputs
                or node in read
                or any(user not in own for user in facts.users[node])
            )
        ]
        maker |= dict.fromkeys(results[id(loop)], loop)
    new: dict[Node, Node] = {}
    sources = dict(graph.sources)

    def needed(node: Node) -> Iterable[Node]:
        loop = maker.get(node)
        return node.inputs if loop is None else loop.region.read

    def make(node: Node) -> None:
        loop = maker.get(node)
        if loop is not None:
            new.update(_looped(graph, loop, results[id(loop)], new))
        elif node in facts.arguments or not node.inputs:
            new[node] = node
        else:
            new[node] = node_of(node.op, [new[x] for x in node.inputs], dict(node.attrs))
        for old in results[id(loop)] if loop is not None else [node]:
            if old in sources:
                sources.setdefault(new[old], sources[old])

    if not _walk(graph.outputs, needed, new, make):
        return graph
    return graph.with_outputs([new[node] for node in graph.outputs], sources)


def _walk(
    outputs: Sequence[Node],
    needed: Callable[[Node], Iterable[Node]],
    made: Mapping[Node, Node],
    make: Callable[[Node], None],
) -> bool:
    """Make the outputs and what they need, that first; False if something needs itself."""
    pending = list(outputs)
    waiting: set[Node] = set()
    while pending:
        node = pending[-1]
        missing = [] if node in made else [x for x in needed(node) if x not in made]
        if missing:
            waiting.add(node)
            if not waiting.isdisjoint(missing):
                return False
            pending += missing
            continue
        waiting.discard(pending.pop())
        if node not in made:
            make(node)
    return True


def _looped(
    graph: Graph, loop: Loop, results: Sequence[Node], outer: Mapping[Node, Node]
) -> dict[Node, Node]:
    """The results of a region as results of a scan, and of a rest that fills no block."""
    region, rows = loop.region, loop.rows
    inside = {*region.nodes, *region.views}
    order = [node for node in graph.operations if node in inside]
    steps = region.length // rows
    rest = region.length - steps * rows
    whole = [node for node in region.whole if not is_generator(node)]
    sums = [node for node in results if node in region.sums]
    stacked = [node for node in results if node in region.members]

    def computed(given: Mapping[Node, Node], rows: int) -> dict[Node, Node]:
        """The members, of so many rows, from the values from outside."""
        new = {node: node for node in region.whole} | dict(given)
        for node in order:
            attrs = dict(node.attrs)
            if is_view(node) and node in region.members and "shape" in attrs:
                attrs["shape"] = _with(node.shape, region.axes[node], region.part(node, rows))
            new[node] = node_of(node.op, [new[x] for x in node.inputs], attrs)
        return new

    ending: dict[Node, Node] = {}
    if rest:
        given = {node: outer[node] for node in whole}
        for node in region.cut:
            axis, count = region.axes[node], region.part(node, rest)
            given[node] = _sliced(outer[node], axis, node.shape[axis] - count, count)
        ending = computed(given, rest)

    trace = Trace("in_blocks")
    inner = {node: new_placeholder(node.type, trace).node for node in (*whole, *sums)}
    carries = [inner[node] for node in sums]
    for node in region.cut:
        shape = _with(node.shape, region.axes[node], region.part(node, rows))
        inner[node] = new_placeholder(TensorType(node.dtype, shape), trace).node
    made = computed({node: inner[node] for node in (*whole, *region.cut)}, rows)
    after = [
        node_of(pointwise.add, (carry, made[node]))
        for node, carry in zip(sums, carries, strict=True)
    ]
    lines = {made[node]: graph.sources[node] for node in order if node in graph.sources}
    for node, total in zip(sums, after, strict=True):
        if node in graph.sources:
            lines[total] = graph.sources[node]
    body = Graph(
        tuple(inner[node] for node in (*whole, *sums, *region.cut)),
        (*after, *(made[node] for node in stacked)),
        sources=lines,
    )
    operands = [outer[node] for node in whole]
    operands += [ending[node] if rest else _zeros(node) for node in sums]
    operands += [
        _split(outer[node], region.axes[node], steps, region.part(node, rows))
        for node in region.cut
    ]
    attrs = {
        "body": body, "consts": len(whole), "carries": len(sums), "length": steps, "reverse": False
    }  # fmt: skip
    scan = node_of(control.scan, operands, attrs)
    found = {node: result(scan, number) for number, node in enumerate(sums)}
    for number, node in enumerate(stacked, len(sums)):
        axis = region.axes[node]
        joined = _joined(result(scan, number), axis)
        if rest:
            joined = node_of(movement.concatenate, (joined, ending[node]), {"axis": axis})
        found[node] = joined
    return found


def _with(shape: Shape, axis: int, size: int) -> Shape:
    return (*shape[:axis], size, *shape[axis + 1 :])


def _zeros(like: Node) -> Node:
    return repeated(constant(np.zeros((), like.dtype)), like.shape)


def _sliced(node: Node, axis: int, start: int, size: int) -> Node:
    starts = tuple(start if place == axis else 0 for place in range(node.type.ndim))
    sizes = _with(node.shape, axis, size)
    attrs = {"starts": starts, "sizes": sizes, "steps": (1,) * node.type.ndim}
    return node_of(movement.slice_, (node,), attrs)


def _split(node: Node, axis: int, steps: int, size: int) -> Node:
    """The blocks of an axis, one behind the other: the steps are the first axis."""
    if steps * size < node.shape[axis]:
        node = _sliced(node, axis, 0, steps * size)
    shape = (*node.shape[:axis], steps, size, *node.shape[axis + 1 :])
    apart = node_of(movement.reshape, (node,), {"shape": shape})
    order = (axis, *(place for place in range(len(shape)) if place != axis))
    return transposed(apart, order)


def _joined(stacked: Node, axis: int) -> Node:
    """The value of which the parts along an axis are stacked."""
    rest = range(1, stacked.type.ndim)
    order = (*rest[:axis], 0, *rest[axis:])
    apart = transposed(stacked, order)
    shape = apart.shape
    joined = (*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])
    return node_of(movement.reshape, (apart,), {"shape": joined})
