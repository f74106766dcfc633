"""The order of the kernels: what frees memory runs as soon as it can.

Fusion leaves the groups in the order of the graph, which begins with what the first output needs.
The gradient of the first layer's weights would so be the first of all gradients, and each layer's
values would wait until the backward pass has come to its end. A group that frees at least as much
as it takes can be done at once: from then on no more memory is in use than before. That is worth
it for more than the second-level cache holds: below, it counts more that kernels which do not
depend on each other, such as the gradients of all weights, start the threads once.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphdl import machine
from graphdl.compiler.fuse import Group, stored
from graphdl.compiler.origins import awaited, origins
from graphdl.graph import Graph, Node


class _Plan:
    """What each group, by number, reads, writes and waits for; and what is left to do."""

    def __init__(self, graph: Graph, groups: Sequence[Group]) -> None:
        self.groups = groups
        maker = {node: i for i, group in enumerate(groups) for node in group.members}
        kept = set(graph.outputs)
        in_memory = stored(graph, groups)
        #: Values that take memory of the program while they are needed.
        self.temporary = {node for node in in_memory if node not in kept}
        self.reads: list[set[Node]] = []
        self.writes = [[n for n in group.members if n in self.temporary] for group in groups]
        self.waits: list[set[int]] = []
        for i, group in enumerate(groups):
            operands = [operand for node in group.members for operand in node.inputs]
            found = {origin for operand in operands for origin in origins(operand)}
            behind = found | {origin for operand in operands for origin in awaited(operand)}
            self.reads.append({node for node in found if maker.get(node, i) != i})
            self.waits.append({maker[node] for node in behind if maker.get(node, i) != i})
        #: The groups that still have to read a value.
        self.readers: dict[Node, set[int]] = {}
        self.followers: list[list[int]] = [[] for _ in groups]
        for i, values in enumerate(self.reads):
            for value in values & self.temporary:
                self.readers.setdefault(value, set()).add(i)
            for other in self.waits[i]:
                self.followers[other].append(i)
        self.done: set[int] = set()

    def run(self, number: int) -> list[int]:
        """Take a group as done; returns those that may have become worth doing."""
        self.done.add(number)
        candidates = list(self.followers[number])
        for value in self.reads[number] & self.temporary:
            self.readers[value].discard(number)
            candidates += self.readers[value]
        return candidates

    def frees(self, number: int) -> int | None:
        """How many bytes fewer a group leaves in use; None if it cannot run, or is not worth it."""
        if number in self.done or not self.waits[number] <= self.done:
            return None
        ending = [v for v in self.reads[number] & self.temporary if len(self.readers[v]) == 1]
        freed = sum(value.type.nbytes for value in ending)
        taken = sum(value.type.nbytes for value in self.writes[number])
        return freed - taken if freed >= max(taken, machine.current().second_level) else None


def ordered(graph: Graph, groups: Sequence[Group]) -> list[Group]:
    """The groups in an order in which they can run, those that free memory as soon as they can.

    Of several those that free most run first: so weights' gradients, which leave nothing of the
    program's own behind, run before the next layer's values are made.
    """
    plan = _Plan(graph, groups)
    result: list[int] = []
    for first in range(len(groups)):
        number: int | None = None if first in plan.done else first
        pending: set[int] = set()
        while number is not None:
            result.append(number)
            pending.update(plan.run(number))
            freed = {n: found for n in pending if (found := plan.frees(n)) is not None}
            pending = set(freed)
            number = min(freed, key=lambda n: (-freed[n], n), default=None)
    return [groups[number] for number in result]
