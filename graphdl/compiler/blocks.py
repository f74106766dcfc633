"""Products too large to keep, and what is made of them, a block at a time.

Attention multiplies queries by keys, and so makes of n x d numbers n x n, which a softmax and one
more product turn into n x d again. Held whole, they are most of the memory of a transformer. Here
such a product, what is made of it, and the product or sum that ends it, become the body of a loop
over blocks of one axis: of a batch, or of rows. Only what the loop ends with is as long as before.

The values of a softmax's row are all in one block, so it is computed as it was, and nothing has to
be rescaled as by an online softmax (Milakov and Gimelshein 2018; Dao et al., FlashAttention, 2022):
a block of some hundred rows stays in the second-level cache even if a row has thousands of columns.
What sums over rows, such as the gradient of the keys, is carried from block to block.

A region is what one loop computes. An axis of its first value is cut, and with it an axis of each
value that is made of it, element by element, by transposing or reshaping, by reducing another axis,
by a product that keeps the axis (its result is cut, too) or sums over it (each block adds to the
result). Regions are found by stages: what needs the end of a loop is of a later stage, so the
gradient of attention is a loop of its own, which computes blocks of the same products anew from
the rows' statistics. A body is compiled as any graph is, so that a loop over the heads of a batch
may have one over rows in it.

It is done where every value of the large size is in a region: then none of them is left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from msgspec import Struct, field

from graphdl.compiler.constants import constant, repeated
from graphdl.compiler.contract import roles, transposed
from graphdl.compiler.loop_results import result
from graphdl.compiler.origins import is_generator
from graphdl.graph import Graph, Node, users
from graphdl.ops import contraction, control, movement, pointwise, reduction
from graphdl.ops.op import node_of
from graphdl.tracing import Trace, new_placeholder
from graphdl.types import Shape, TensorType

#: Bytes of a product from which on it is computed in blocks, and those of a block: it stays in the
#: second-level cache, or nearly so, and its launches are long enough for threads to share.
LARGE, BLOCK = 4 << 20, 1 << 20
#: A product is worth computing twice, and holding in blocks, if its result has more rows and more
#: columns than so many times the axis that it sums over.
SHALLOW = 4
#: Rows of a block, at least: for so many it pays to pack the other factor anew. Where the product
#: is deeper, twice its depth, with which grows what a block adds to sums over rows.
ROWS = 64


def in_blocks(graph: Graph) -> Graph:
    """The graph with its large shallow products, and what is made of them, in loops."""
    for size in sorted({node.type.size for node in graph.operations if _is_seed(node)})[::-1]:
        graph = _without(graph, size)
    return graph


def _is_seed(node: Node) -> bool:
    """Whether a node is a large product that is worth computing by blocks."""
    if node.op is not contraction.contract or node.type.nbytes < LARGE or not node.type.is_float:
        return False
    role = roles(node)
    rows, columns = (
        math.prod(node.shape[node["lo"].index(label)] for label in labels)
        for labels in (role.m, role.n)
    )
    return bool(min(rows, columns) > SHALLOW * _depth(node))


def _depth(product: Node) -> int:
    """How many numbers are multiplied and added for an element of a product."""
    labels = roles(product).k
    return math.prod(product.inputs[0].shape[product["la"].index(label)] for label in labels)


# --- what is cut where ------------------------------------------------------------------------


class _Refused(Exception):
    """A region cannot be computed by blocks of this axis."""


def _reshaped(shape: Shape, axis: int, other: Shape) -> int:
    """The axis of `other` whose equal parts are the same elements as those of an axis of `shape`.

    As many elements lie before either axis.
    """
    before, there = math.prod(shape[:axis]), 1
    for place, size in enumerate(other):
        if there == before and size != 1:
            return place
        there *= size
    raise _Refused


def _operand_axis(node: Node, axis: int, position: int) -> int | None:
    """The axis of an operand that is cut where `axis` of the result is; None if none is."""
    operand = node.inputs[position]
    if node.op.family == "pointwise":
        return axis
    if node.op is movement.broadcast:
        return node["dims"].index(axis) if axis in node["dims"] else None
    if node.op is movement.transpose:
        return int(node["perm"][axis])
    if node.op is movement.reshape:
        return _reshaped(node.shape, axis, operand.shape)
    if node.op.family == "reduction":
        return _kept(node)[axis]
    label, own = node["lo"][axis], node["la" if position == 0 else "lb"]
    return own.index(label) if label in own else None


def _result_axis(node: Node, axis: int, position: int) -> int | None:
    """The axis of the result that is cut where `axis` of an operand is; None if it is summed."""
    if node.op.family == "pointwise":
        return axis
    if node.op is movement.broadcast:
        return int(node["dims"][axis])
    if node.op is movement.transpose:
        return int(node["perm"].index(axis))
    if node.op is movement.reshape:
        return _reshaped(node.inputs[0].shape, axis, node.shape)
    if node.op.family == "reduction":
        kept = _kept(node)
        if axis not in kept and node.op is not reduction.sum_:
            raise _Refused
        return kept.index(axis) if axis in kept else None
    label = node["la" if position == 0 else "lb"][axis]
    return node["lo"].index(label) if label in node["lo"] else None


def _kept(node: Node) -> list[int]:
    """The axes that a reduction leaves."""
    attrs = dict(node.attrs)
    reduced = attrs.get("axes", (attrs.get("axis"),))
    return [axis for axis in range(node.inputs[0].type.ndim) if axis not in reduced]


def _is_cut(node: Node) -> bool:
    """Whether the node is of an op that works block by block."""
    return (
        node.op.family in ("pointwise", "reduction")
        or node.op in (movement.broadcast, movement.transpose, movement.reshape)
        or (node.op is contraction.contract and node.type.is_float)
    )


# --- stages -----------------------------------------------------------------------------------


class _Facts:
    """What is asked of a graph while regions grow; values of at least `size` elements are large."""

    def __init__(self, graph: Graph, size: int) -> None:
        self.graph, self.size = graph, size
        self.users = users(graph.nodes)
        self.arguments = set(graph.inputs)
        #: How many loops have to be at their end before the node is computed.
        self.stage: dict[Node, int] = {}
        #: The nodes made of large values of their own stage.
        self.touched: set[Node] = set()
        for node in graph.nodes:
            self.stage[node] = max((self._behind(x) for x in node.inputs), default=0)
            if any(
                self.stage[x] == self.stage[node] and (self.is_large(x) or x in self.touched)
                for x in node.inputs
            ):
                self.touched.add(node)

    def _behind(self, node: Node) -> int:
        return self.stage[node] + self.is_end(node)

    def is_large(self, node: Node) -> bool:
        return node.type.size >= self.size

    def is_end(self, node: Node) -> bool:
        """Whether a node is a product of a large value that is not large itself."""
        return (
            node.op is contraction.contract
            and not self.is_large(node)
            and any(map(self.is_large, node.inputs))
        )

    def is_computed(self, node: Node, stage: int) -> bool:
        """Whether a loop of a stage makes a value, and not only a view of what lies in memory."""
        return self.stage[node] == stage and (node in self.touched or self.is_end(node))

    def is_made(self, node: Node) -> bool:
        """Whether a large value is computed, and so may be computed by blocks instead."""
        return node not in self.arguments and self.is_large(node) and _is_cut(node)


# --- regions ----------------------------------------------------------------------------------


class _Region(Struct, eq=False):
    """What a loop computes, while it grows.

    length    the size of the axis of the first member
    axes      the axis that is cut, of each member and of each operand that is read by blocks
    members   nodes computed by blocks
    sums      nodes to which each block adds
    views     views of values from outside that each block reads whole
    cut       values from outside, of which each block reads its part
    whole     values from outside that each block reads
    """

    stage: int
    length: int
    axes: dict[Node, int] = field(default_factory=dict)
    members: dict[Node, None] = field(default_factory=dict)
    sums: dict[Node, None] = field(default_factory=dict)
    views: dict[Node, None] = field(default_factory=dict)
    cut: dict[Node, None] = field(default_factory=dict)
    whole: dict[Node, None] = field(default_factory=dict)

    @property
    def nodes(self) -> set[Node]:
        return {*self.members, *self.sums}

    @property
    def read(self) -> tuple[Node, ...]:
        return (*self.whole, *self.cut)

    def part(self, node: Node, rows: int) -> int:
        """How much of its axis a node has where the first member has so many rows."""
        return rows * node.shape[self.axes[node]] // self.length


class _Growth:
    """A region that grows around a large value; a node that does not fit raises _Refused."""

    def __init__(self, facts: _Facts, start: Node, axis: int, stage: int) -> None:
        self.facts = facts
        self.region = _Region(stage, start.shape[axis])
        self.pending: list[Node] = []
        self.join(start, axis)

    def run(self) -> _Region:
        facts, region = self.facts, self.region
        while self.pending:
            node = self.pending.pop()
            for position, operand in enumerate(node.inputs):
                at = _operand_axis(node, region.axes[node], position)
                if at is None:
                    self.keep(operand)
                else:
                    self.need(operand, at)
            if facts.is_large(node):
                for user in facts.users[node]:
                    if facts.stage[user] == region.stage and user not in region.members:
                        self.follow(node, user)
        if not region.nodes.isdisjoint(region.whole):
            raise _Refused
        return region

    def join(self, node: Node, at: int) -> None:
        """A node is computed by blocks."""
        region = self.region
        if node in region.sums or node in region.cut or region.axes.setdefault(node, at) != at:
            raise _Refused
        if node not in region.members:
            region.members[node] = None
            self.pending.append(node)

    def follow(self, node: Node, user: Node) -> None:
        """What becomes of a large value is in the region, too."""
        if not _is_cut(user):
            raise _Refused
        for position, operand in enumerate(user.inputs):
            if operand is node:
                at = _result_axis(user, self.region.axes[node], position)
                if at is not None:
                    self.join(user, at)
                elif user not in self.region.sums:
                    self.add(user, position)

    def add(self, node: Node, position: int) -> None:
        """A node sums over the blocks of an operand."""
        self.region.sums[node] = None
        if node.op is contraction.contract:
            labels = node["la"], node["lb"]
            summed = labels[position][self.region.axes[node.inputs[position]]]
            self.need(node.inputs[1 - position], labels[1 - position].index(summed))

    def need(self, node: Node, at: int) -> None:
        """A block of a node is read: it is computed there, or comes from outside."""
        region = self.region
        if node in region.members or self.is_made_within(node):
            self.join(node, at)
        else:
            inside = node in region.sums or self.is_incomplete(node)
            if inside or region.axes.setdefault(node, at) != at:
                raise _Refused
            region.cut[node] = None

    def is_made_within(self, node: Node) -> bool:
        facts = self.facts
        if node in facts.arguments or not _is_cut(node):
            return False
        earlier = facts.stage[node] < self.region.stage
        if node.op is contraction.contract and earlier and not _is_seed(node):
            return False  # too dear to be computed again
        return facts.is_large(node) or _is_view(node) or self.is_incomplete(node)

    def is_incomplete(self, node: Node) -> bool:
        """Whether a node is made of values that a loop of this stage computes."""
        return node in self.facts.touched and self.facts.stage[node] == self.region.stage

    def keep(self, node: Node) -> None:
        """All of a node is read by each block."""
        while _is_view(node):
            self.region.views[node] = None
            node = node.inputs[0]
        if self.is_incomplete(node):
            raise _Refused
        self.region.whole[node] = None


def _is_view(node: Node) -> bool:
    """Whether a node is made anew in each block, as it costs nothing."""
    return node.op in (movement.broadcast, movement.transpose, movement.reshape)


def _rows(region: _Region) -> int | None:
    """The rows of a block; None if cutting this axis gains nothing."""
    products = [node for node in region.members if node.op is contraction.contract]
    seeds = [node for node in products if _is_seed(node)]
    if not seeds:
        return None
    unit = math.lcm(
        *(
            region.length // math.gcd(region.length, node.shape[axis])
            for node, axis in region.axes.items()
        )
    )
    fitting = BLOCK * region.length // seeds[0].type.nbytes
    if not region.sums and all(_is_batch(node, region.axes[node]) for node in products):
        fit = range(unit, region.length, unit)
        even = [rows for rows in fit if region.length % rows == 0]
        return max((rows for rows in even if rows <= max(fitting, unit)), default=None)
    most = max(fitting, ROWS, *(2 * _depth(node) for node in seeds))
    blocks = -(-region.length // most)
    rows = -(-region.length // blocks // unit) * unit
    return rows if rows < region.length else None


def _is_batch(product: Node, axis: int) -> bool:
    return product["lo"][axis] in roles(product).batch


class _Loop(Struct, frozen=True, eq=False):
    """A region, and how many rows of it are a block."""

    region: _Region
    rows: int


def _loops(facts: _Facts) -> list[_Loop]:
    """The regions of a graph."""
    found: list[_Loop] = []
    tried: dict[int, set[Node]] = {}
    for node in facts.graph.operations:
        stage = facts.stage[node]
        seen = tried.setdefault(stage, set())
        start = next(filter(facts.is_made, (node, *node.inputs)), None)
        if start is not None and start not in seen:
            loop, reached = _first_loop(facts, start, stage)
            seen |= reached
            if loop is not None:
                found.append(loop)
    return _closed(facts, found)


def _first_loop(facts: _Facts, start: Node, stage: int) -> tuple[_Loop | None, set[Node]]:
    """The loop around a value over the first axis for which there is one, and what was reached."""
    reached = {start}
    for axis, size in enumerate(start.shape):
        if size > 1:
            growth = _Growth(facts, start, axis, stage)
            try:
                rows = _rows(growth.run())
            except _Refused:
                rows = None
            if rows is not None:
                return _Loop(growth.region, rows), growth.region.nodes
            reached |= growth.region.nodes
    return None, reached


def _closed(facts: _Facts, loops: list[_Loop]) -> list[_Loop]:
    """Those of which nothing large is asked for from outside."""
    outputs = set(facts.graph.outputs)
    while True:
        inside: set[Node] = set().union(*(loop.region.nodes for loop in loops))
        read = {x for loop in loops for x in loop.region.read}
        asked = {
            node
            for node in inside
            if facts.is_large(node)
            and (
                node in outputs
                or node in read
                or any(user not in inside for user in facts.users[node])
            )
        }
        left = [loop for loop in loops if asked.isdisjoint(loop.region.nodes)]
        if len(left) == len(loops):
            return loops
        loops = left


# --- the loops as nodes -----------------------------------------------------------------------


def _without(graph: Graph, size: int) -> Graph:
    """The graph with its values of this size computed by blocks."""
    facts = _Facts(graph, size)
    loops = _loops(facts)
    if not loops:
        return graph
    outputs = set(graph.outputs)
    read = {x for loop in loops for x in loop.region.read}
    maker: dict[Node, _Loop] = {}
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
    graph: Graph, loop: _Loop, results: Sequence[Node], outer: Mapping[Node, Node]
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
            if _is_view(node) and node in region.members and "shape" in attrs:
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
