"""Products too large to keep, and what is made of them: which of it one loop computes.

A region is what one loop computes, a block at a time (`graphdl.compiler.blocks`). An axis of its
first value is cut, and with it an axis of each value that is made of it, element by element, by
transposing or reshaping, by reducing another axis, by a product that keeps the axis (its result is
cut, too) or sums over it (each block adds to the result). Regions are found by stages: what needs
the end of a loop is of a later stage, so the gradient of attention is a loop of its own, which
computes blocks of the same products anew from the rows' statistics.

It is done where every value of the large size is in a region: then none of them is left.
"""

from __future__ import annotations

import math

from msgspec import Struct, field

from graphdl.compiler.contract import roles
from graphdl.graph import Graph, Node, users
from graphdl.ops import contraction, movement, reduction
from graphdl.types import Shape

#: Bytes of a product from which on it is computed in blocks, and those of a block: it stays in the
#: second-level cache, or nearly so, and its launches are long enough for threads to share.
LARGE, BLOCK = 4 << 20, 1 << 20
#: A product is worth computing twice, and holding in blocks, if its result has more rows and more
#: columns than so many times the axis that it sums over.
SHALLOW = 4
#: Rows of a block, at least: for so many it pays to pack the other factor anew. Where the product
#: is deeper, twice its depth, with which grows what a block adds to sums over rows.
ROWS = 64


def is_seed(node: Node) -> bool:
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


class Facts:
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


class Region(Struct, eq=False):
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

    def __init__(self, facts: Facts, start: Node, axis: int, stage: int) -> None:
        self.facts = facts
        self.region = Region(stage, start.shape[axis])
        self.pending: list[Node] = []
        self.join(start, axis)

    def run(self) -> Region:
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
        if node.op is contraction.contract and earlier and not is_seed(node):
            return False  # too dear to be computed again
        return facts.is_large(node) or is_view(node) or self.is_incomplete(node)

    def is_incomplete(self, node: Node) -> bool:
        """Whether a node is made of values that a loop of this stage computes."""
        return node in self.facts.touched and self.facts.stage[node] == self.region.stage

    def keep(self, node: Node) -> None:
        """All of a node is read by each block."""
        while is_view(node):
            self.region.views[node] = None
            node = node.inputs[0]
        if self.is_incomplete(node):
            raise _Refused
        self.region.whole[node] = None


def is_view(node: Node) -> bool:
    """Whether a node is made anew in each block, as it costs nothing."""
    return node.op in (movement.broadcast, movement.transpose, movement.reshape)


def _rows(region: Region) -> int | None:
    """The rows of a block; None if cutting this axis gains nothing."""
    products = [node for node in region.members if node.op is contraction.contract]
    seeds = [node for node in products if is_seed(node)]
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


class Loop(Struct, frozen=True, eq=False):
    """A region, and how many rows of it are a block."""

    region: Region
    rows: int


def loops_of(facts: Facts) -> list[Loop]:
    """The regions of a graph."""
    found: list[Loop] = []
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


def _first_loop(facts: Facts, start: Node, stage: int) -> tuple[Loop | None, set[Node]]:
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
                return Loop(growth.region, rows), growth.region.nodes
            reached |= growth.region.nodes
    return None, reached


def _closed(facts: Facts, loops: list[Loop]) -> list[Loop]:
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
