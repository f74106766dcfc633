"""The fewest bytes from which values can be computed: a smallest cut of the graph behind them.

What a gradient needs of a step is often several values that are each made of one other in an
operation or two: of a = tanh(x), both a and 1 - a * a. Which values to keep so that the wanted ones
can be computed from them again is a smallest cut between the wanted values and what they cannot be
computed without, where a value may be cut for its bytes (L. R. Ford and D. R. Fulkerson, Maximal
flow through a network, Canadian Journal of Mathematics 8, 1956; each node is split in two, so that
nodes are cut, not edges).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from graphdl.graph import Node

#: Nodes that are looked at for one cut. The flow takes as many walks as there are values to keep.
_MOST = 2048

#: A node's two ends: values come in at the first and go out at the second.
_End = tuple[Node, bool]
_IN, _OUT = False, True


def smallest_cut(
    wanted: Sequence[Node], cost: Callable[[Node], int], may: Callable[[Node], bool]
) -> list[Node]:
    """Values of the least cost in all from which the wanted ones can be computed again.

    `cost` is what keeping a value takes, 0 for what is there anyway; `may` says whether a node can
    be computed again from its operands. Of cuts of the same cost this is the one nearest to the
    wanted values: the one from which the least is computed. Wanted values that are kept come first,
    in their order.
    """
    behind = _behind(wanted, cost, may)
    if behind is None:
        return list(wanted)
    flow = _Flow(behind, wanted, cost, may)
    flow.run()
    reached = flow.reaching()
    kept = [node for node in behind if (node, _OUT) in reached and (node, _IN) not in reached]
    first = dict.fromkeys(node for node in wanted if node in set(kept))
    return list(first | dict.fromkeys(kept))


def _behind(
    wanted: Sequence[Node], cost: Callable[[Node], int], may: Callable[[Node], bool]
) -> list[Node] | None:
    """The wanted values and all that could be kept instead; None for more than are looked at."""
    found = dict.fromkeys(wanted)
    pending = list(found)
    while pending:
        node = pending.pop()
        if not may(node) or cost(node) == 0:
            continue
        for operand in node.inputs:
            if operand not in found:
                found[operand] = None
                pending.append(operand)
        if len(found) > _MOST:
            return None
    return list(found)


class _Flow:
    """The largest flow to the wanted values, from what they cannot be computed without."""

    def __init__(
        self,
        behind: Sequence[Node],
        wanted: Sequence[Node],
        cost: Callable[[Node], int],
        may: Callable[[Node], bool],
    ) -> None:
        self.wanted = dict.fromkeys(wanted)
        self.left = {node: cost(node) for node in behind}
        #: What flows through a node and from a node to one that is made of it.
        self.through = dict.fromkeys(behind, 0)
        self.along: dict[tuple[Node, Node], int] = {}
        self.operands: dict[Node, tuple[Node, ...]] = {}
        self.users: dict[Node, list[Node]] = {node: [] for node in behind}
        self.starts = []
        for node in behind:
            if not may(node) or not node.inputs:
                self.operands[node] = ()
                self.starts.append(node)
            elif self.left[node] == 0:
                self.operands[node] = ()  # it is there: nobody asks what it is made of
            else:
                self.operands[node] = tuple(dict.fromkeys(node.inputs))
                for operand in self.operands[node]:
                    self.users[operand].append(node)
                    self.along[operand, node] = 0

    def run(self) -> None:
        """Send along one shortest way after another what fits, until none is left."""
        while (way := self._way()) is not None:
            ends = list(pairwise(way))
            most = min(self._room(a, b) for a, b in ends)
            for a, b in ends:
                self._send(a, b, most)

    def _forward(self, end: _End) -> Iterator[_End]:
        """The ends that more could flow to from one."""
        node, side = end
        if side is _IN:
            if self.left[node] > 0:
                yield node, _OUT
            for operand in self.operands[node]:
                if self.along[operand, node] > 0:
                    yield operand, _OUT
        else:
            for user in self.users[node]:
                yield user, _IN
            if self.through[node] > 0:
                yield node, _IN

    def _way(self) -> list[_End] | None:
        """A shortest way from a start to a wanted value."""
        before: dict[_End, _End | None] = {(node, _IN): None for node in self.starts}
        pending = deque(before)
        while pending:
            end = pending.popleft()
            if end[1] is _OUT and end[0] in self.wanted:
                way = [end]
                while (earlier := before[way[-1]]) is not None:
                    way.append(earlier)
                return way[::-1]
            for other in self._forward(end):
                if other not in before:
                    before[other] = end
                    pending.append(other)
        return None

    def _room(self, a: _End, b: _End) -> int:
        """How much more can flow between two neighbours."""
        (node, side), (other, _) = a, b
        if node is other:
            return self.left[node] if side is _IN else self.through[node]
        return _NO_LIMIT if side is _OUT else self.along[other, node]

    def _send(self, a: _End, b: _End, amount: int) -> None:
        (node, side), (other, _) = a, b
        if node is other:
            sign = 1 if side is _IN else -1
            self.left[node] -= sign * amount
            self.through[node] += sign * amount
        elif side is _OUT:
            self.along[node, other] += amount
        else:
            self.along[other, node] -= amount

    def reaching(self) -> set[_End]:
        """The ends from which more could flow to a wanted value, if it came there."""
        found: set[_End] = {(node, _OUT) for node in self.wanted}
        pending = list(found)
        while pending:
            for other in self._backward(pending.pop()):
                if other not in found:
                    found.add(other)
                    pending.append(other)
        return found

    def _backward(self, end: _End) -> Iterator[_End]:
        """The ends from which more could flow to one."""
        node, side = end
        if side is _OUT:
            if self.left[node] > 0:
                yield node, _IN
            for user in self.users[node]:
                if self.along[node, user] > 0:
                    yield user, _IN
        else:
            for operand in self.operands[node]:
                yield operand, _OUT
            if self.through[node] > 0:
                yield node, _OUT


_NO_LIMIT = 1 << 62
