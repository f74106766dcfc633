"""Cheap values are computed again where they are needed, instead of written and read.

Two kernels that cannot be one, as the first ends with a product or with a sum of everything, often
share more than one value: what the forward pass leaves for the gradient of an activation is five
polynomials of one array. To write a value and to read it costs what its bytes cost; to compute it
again in the kernel that reads it costs its operations, and what of their operands that kernel does
not read already. The cheaper of the two is done (graphdl.machine says what either costs), value by
value, the last one made first: what is made of others is computed again from those that stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from graphdl import machine
from graphdl.compiler.costs import work
from graphdl.compiler.origins import CHECKS, is_apart, is_generator, origins
from graphdl.compiler.rematerialise import Repetition, Schedule, again
from graphdl.compiler.rows import ROOTS
from graphdl.graph import Graph, Node

#: Pairs of kernels that are tried one by one where all of them together do not fit.
_TRIES = 16
#: A value is not computed again from more operations than this, nor looked at any further.
_LONGEST = 64


class Weighed(Struct, frozen=True):
    """A value between two kernels: nanoseconds to write and read it, and to compute it again.

    repeating is None where that is not possible.
    """

    value: Node
    before: int
    after: int
    storing: float
    repeating: float | None


def recompute(graph: Graph) -> Graph:
    """The graph with cheap values computed once more where only one later kernel needs them."""
    if all(node.type.nbytes <= _least() for node in graph.operations):
        return graph
    schedule = Schedule.of(graph)
    wanted = [made for made, _ in _choices(schedule) if made is not None]
    if not wanted:
        return graph
    found = _accepted(schedule, wanted)
    if found is None and len(wanted) > 1:
        alone = [made for made in wanted[:_TRIES] if _accepted(schedule, [made]) is not None]
        found = _accepted(schedule, alone) if alone else None
    return found or graph


def _least() -> int:
    """Bytes of a value that is not looked at: they hardly leave the core."""
    return machine.current().second_level // 4


def weighed(schedule: Schedule) -> list[Weighed]:
    """What was weighed up of the values that a schedule keeps."""
    return [item for _, items in _choices(schedule) for item in items]


def _accepted(schedule: Schedule, repetitions: Sequence[Repetition]) -> Graph | None:
    """The graph with these repetitions, if fusion makes of it what was expected: fewer bytes in
    memory, and no kernel more.
    """
    graph = again(schedule, repetitions)
    after = Schedule.of(graph)
    fits = len(after.groups) <= len(schedule.groups) and after.kept_bytes() < schedule.kept_bytes()
    return graph if fits else None


def _choices(schedule: Schedule) -> list[tuple[Repetition | None, list[Weighed]]]:
    """What is computed again, for each two kernels that share values no other kernel reads."""
    shared: dict[tuple[int, int], list[Node]] = {}
    for value in schedule.temporaries():
        kind = schedule.groups[schedule.maker[value]].kind
        is_shared = len(schedule.readers[value]) == 1 and kind in ("loops", "product")
        if is_shared and value.type.nbytes > _least():
            shared.setdefault((schedule.maker[value], schedule.readers[value][0]), []).append(value)
    return [_Pair(schedule, *pair, values).choice() for pair, values in shared.items()]


class _Pair:
    """Two kernels, and values of the first, in their order, which only the second one reads."""

    def __init__(self, schedule: Schedule, before: int, after: int, values: Sequence[Node]) -> None:
        self.schedule = schedule
        self.before, self.after = before, after
        self.values = values
        members = schedule.groups[after].members
        self.read = dict.fromkeys(origin for node in members for origin in _operands(node))
        self.by_roots = {
            origin for node in members if node.op in ROOTS for origin in _operands(node)
        }

    def choice(self) -> tuple[Repetition | None, list[Weighed]]:
        """What is computed again of the values, and what was weighed up for each."""
        late = self.awaited()
        kept, nodes = dict.fromkeys(self.values), dict[Node, None]()
        found: list[Weighed] = []
        for value in reversed(self.values):
            storing = 2 * value.type.nbytes * machine.current().byte(value.type.nbytes)
            own = self.chain(value, kept) if late is not None else None
            repeating = None if own is None else self.time(own, nodes)
            found.append(Weighed(value, self.before, self.after, storing, repeating))
            if own is not None and repeating is not None and repeating < storing:
                del kept[value]
                nodes.update(dict.fromkeys(own))
        dropped = tuple(value for value in self.values if value not in kept)
        if not dropped or late is None:
            return None, found
        return Repetition(dropped, self.after, tuple(nodes), late, 0, 0.0), found

    def awaited(self) -> Node | None:
        """A value that the second kernel reads and that is not there before the first has ended."""
        schedule = self.schedule
        for origin in self.read:
            number = schedule.maker.get(origin, -1)
            if self.before < number < self.after or (
                number == self.before and schedule.ends_with_kernel(origin)
            ):
                return origin
        return None

    def chain(self, value: Node, kept: Mapping[Node, None]) -> list[Node] | None:
        """What is computed again for a value, operands first; None where it cannot be."""
        if value in self.by_roots or is_apart(value):
            return None
        members = set(self.schedule.groups[self.before].members)
        nodes: dict[Node, None] = {}
        pending = [(value, False)]
        while pending:
            node, is_ready = pending.pop()
            if is_ready:
                nodes[node] = None
            elif node not in nodes:
                if node not in members or node.op.family != "pointwise" or node.op in CHECKS:
                    return None
                pending.append((node, True))
                pending += [
                    (origin, False)
                    for origin in _operands(node)
                    if origin is value or not self.lies(origin, value, kept)
                ]
                if len(pending) > _LONGEST:
                    return None
        return list(nodes)

    def lies(self, node: Node, value: Node, kept: Mapping[Node, None]) -> bool:
        """Whether the second kernel can read a value from memory without more room for it.

        One that is much smaller may stay there longer, or be written, if it is a sum.
        """
        schedule = self.schedule
        if node not in schedule.maker or node in kept or node in schedule.outputs:
            return True
        if node in self.values:
            return False  # it is to be computed again
        is_small = 8 * node.type.nbytes <= value.type.nbytes
        if node in schedule.kept:
            return is_small or schedule.readers[node][-1:] >= [self.after]
        return is_small and node in schedule.groups[schedule.maker[node]].reductions

    def time(self, own: Sequence[Node], nodes: Mapping[Node, None]) -> float:
        """Nanoseconds to compute these nodes in the second kernel, beside those it does already."""
        total, members = 0.0, set(own)
        for node in own:
            if node in nodes:
                continue
            total += node.type.size * work((node,))
            for origin in _operands(node):
                if origin in members or origin in nodes or is_generator(origin):
                    continue
                if origin not in self.read:
                    total += origin.type.nbytes * machine.current().byte(origin.type.nbytes)
        return total


def _operands(node: Node) -> list[Node]:
    return list(dict.fromkeys(origin for x in node.inputs for origin in origins(x)))
