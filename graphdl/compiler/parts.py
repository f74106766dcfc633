"""Reads of parts of arrays that are changed part by part, so that the changes can be made in place.

`x[i] = ...` makes a new version of x, which takes the place of the old one if nothing reads that
from then on. In a gradient much does: what the loop read going forward is read again going back.
What such a read asks for is then looked for elsewhere:

  - in the newest version that has the same elements and is there anyway;
  - or in an argument that has them, which stays as it is;
  - or in a copy of the part, which is small, instead of one of the array, which is not.

And a version of which each part that is read comes from one update, or from what was there before
all of them, or of which all that is new is overwritten unread, need not be made at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from graphdl.compiler.materialise import copied
from graphdl.compiler.view import is_movement
from graphdl.graph import Graph, Node, rebuild, users
from graphdl.ops import movement
from graphdl.ops.op import node_of, rebuilt
from graphdl.ops.update import update
from graphdl.types import Shape
from graphdl.windows import are_disjoint, is_within, places, window_in

#: A part is copied instead of the array if it is at most so much of it.
_SMALL = 1 / 8


def read_parts(graph: Graph) -> Graph:
    """The graph with reads of parts of versions where they hinder nothing."""
    if not any(node.op is update for node in graph.operations):
        return graph
    return _Versions(_without_unread(graph)).reads_moved()


# --- arrays that need not be made ---------------------------------------------------------------


def _without_unread(graph: Graph) -> Graph:
    """The graph without the versions of which only parts are read that are known otherwise."""
    used = users(graph.nodes)
    needed = set(graph.outputs)
    for node in reversed(graph.operations):
        if node.op is update and not all(_is_dispensable(u, node, needed) for u in used[node]):
            needed.add(node)

    def replace(node: Node, inputs: tuple[Node, ...]) -> Node:
        made = rebuilt(node, inputs)
        version = node.inputs[0] if node.inputs else node
        if version.op is not update or version in needed:
            return made
        if node.op is movement.slice_:
            found = origin_of_part(made)
            assert found is not None, "a part of an array that is not made comes from nowhere"
            return found
        while _overwrites(made, made.inputs[0]):
            made = rebuilt(made, (made.inputs[0].inputs[0], made.inputs[1]))
        return made

    return rebuild(graph, replace)


def _is_dispensable(user: Node, node: Node, needed: set[Node]) -> bool:
    """Whether `user` can do without the version `node`."""
    if user.op is movement.slice_:
        return origin_of_part(user) is not None
    if user.op is not update or user.inputs[1] is node:
        return False
    return user not in needed or _overwrites(user, node)


def _overwrites(node: Node, older: Node) -> bool:
    """Whether `node` is an update of all that the update `older` has changed."""
    if node.op is not update or older.op is not update:
        return False
    windows = [
        places(n["starts"], n.inputs[1].shape, n["steps"])
        for n in (older, node)
        if n.inputs[1].type.size
    ]
    return len(windows) == 2 and is_within(*windows)


def origin_of_part(node: Node) -> Node | None:
    """A slice of updates in a row as a slice of what one of them wrote, or of what was before them.

    None where it holds elements of several, or is of no size.
    """
    x = node.inputs[0]
    if not node.type.size:
        return None
    wanted = places(node["starts"], node.shape, node["steps"])
    while x.op is update:
        changed = places(x["starts"], x.inputs[1].shape, x["steps"])
        if is_within(wanted, changed):
            return node_of(movement.slice_, (x.inputs[1],), window_in(wanted, changed))
        if not are_disjoint(wanted, changed):
            return None
        x = x.inputs[0]
    return _part(x, node)


def _part(x: Node, like: Node) -> Node:
    return node_of(movement.slice_, (x,), dict(like.attrs))


# --- reads of old versions ----------------------------------------------------------------------


class _Versions:
    """Which version of an array replaces which, and what depends on it."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.arguments = set(graph.inputs)
        used = users(graph.nodes)
        #: The only update of a version.
        self.successor: dict[Node, Node] = {}
        for node, found in used.items():
            updates = [user for user in found if user.op is update and user.inputs[0] is node]
            if len(updates) == 1:
                self.successor[node] = updates[0]
        read = [n for n in self.successor if any(u.op is movement.slice_ for u in used[n])]
        #: Bit i of reached[node]: the node depends on update i.
        number = {node: i for i, node in enumerate(dict.fromkeys(self._later(read)))}
        self.bit = {node: 1 << i for node, i in number.items()}
        self.reached: dict[Node, int] = {}
        for node in graph.nodes:
            mask = self.bit.get(node, 0)
            for operand in node.inputs:
                mask |= self.reached[operand]
            self.reached[node] = mask

    def _later(self, versions: Iterable[Node]) -> Iterator[Node]:
        """The updates that a read of one of these versions may meet."""
        seen: set[Node] = set()
        for node in versions:
            while node in self.successor and node not in seen:
                seen.add(node)
                node = self.successor[node]
                yield node

    def reads_moved(self) -> Graph:
        new: dict[Node, Node] = {node: node for node in self.graph.inputs}

        def replace(node: Node, inputs: tuple[Node, ...]) -> Node:
            if not is_movement(node):
                inputs = tuple(
                    self._moved(operand, node, new, made)
                    for operand, made in zip(node.inputs, inputs, strict=True)
                )
            new[node] = rebuilt(node, inputs)
            return new[node]

        return rebuild(self.graph, replace)

    def _moved(self, operand: Node, user: Node, new: dict[Node, Node], made: Node) -> Node:
        """The operand of `user`, read where that hinders no update."""
        path = []
        node = operand
        while is_movement(node) and node.op is not movement.slice_:
            path.append(node)
            node = node.inputs[0]
        if node.op is not movement.slice_ or node.inputs[0] not in self.successor:
            return made
        if not node.type.size:
            return made
        found = self._better(node, user, new)
        if found is None:
            return made
        for step in reversed(path):
            found = rebuilt(step, (found, *(new[other] for other in step.inputs[1:])))
        return found

    def _better(self, part: Node, user: Node, new: dict[Node, Node]) -> Node | None:
        """Another place for the slice that `user` reads; None if it hinders nothing here."""
        version = part.inputs[0]
        wanted = places(part["starts"], part.shape, part["steps"])
        while version in self.successor:
            later = self.successor[version]
            if not self.reached[user] & self.bit[later]:
                break
            if later is user or not _is_untouched(wanted, later):
                return self._elsewhere(part, wanted, new)
            version = later
        return None if version is part.inputs[0] else _part(new[version], part)

    def _elsewhere(self, part: Node, wanted: list[range], new: dict[Node, Node]) -> Node | None:
        """A slice that has been overwritten when it is read."""
        origin = part.inputs[0]
        while origin.op is update and _is_untouched(wanted, origin):
            origin = origin.inputs[0]
        if origin in self.arguments:
            return _part(origin, part)
        if part.type.size > _SMALL * part.inputs[0].type.size:
            return None
        return copied(new[part])


def _is_untouched(wanted: list[range], changed: Node) -> bool:
    shape: Shape = changed.inputs[1].shape
    return are_disjoint(wanted, places(changed["starts"], shape, changed["steps"]))
