"""The memory plan: where each value lies, by when it is written first and read last.

All intermediate values share one arena that lives as long as the program, so a call allocates its
results and nothing else. A value takes the place of one that is read for the last time where it is
written, element by element (in place), or the lowest free place that is large enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphdl.graph import Node
from graphdl.kernels.program import Launch, Memory, Place, Program, Value

ALIGNMENT = 64  # bytes: one 512-bit register, and one cache line


def _size(value: Value) -> int:
    nbytes = value.type.nbytes if isinstance(value, Node) else value.nbytes
    return -(-max(nbytes, 1) // ALIGNMENT) * ALIGNMENT


class _Arena:
    """The free places of the arena, and how large it had to become."""

    def __init__(self) -> None:
        self.free: list[tuple[int, int]] = []  # (offset, size), sorted, never adjacent
        self.size = 0

    def take(self, size: int) -> int:
        best: tuple[int, int] | None = None
        for offset, room in self.free:
            if room >= size and (best is None or room < best[1]):
                best = offset, room
        if best is not None:
            self.free.remove(best)
            if best[1] > size:
                self.give(best[0] + size, best[1] - size)
            return best[0]
        start = self.size
        if self.free and sum(self.free[-1]) == self.size:
            start = self.free.pop()[0]
        self.size = start + size
        return start

    def give(self, offset: int, size: int) -> None:
        places = sorted([*self.free, (offset, size)])
        joined: list[tuple[int, int]] = []
        for at, room in places:
            if joined and sum(joined[-1]) == at:
                joined[-1] = (joined[-1][0], joined[-1][1] + room)
            else:
                joined.append((at, room))
        self.free = joined


def plan(program: Program, donated: Sequence[int] = ()) -> Memory:
    """Place every value of a program; `donated` are arguments that results may overwrite."""
    graph = program.graph
    places: dict[Value, Place] = {node: Place("argument", i) for i, node in enumerate(graph.inputs)}
    for i, node in enumerate(program.constants):
        places[node] = Place("constant", i)
    last: dict[Value, int] = {}
    for step, launch in enumerate(program.launches):
        for value in (*launch.reads, *launch.writes):
            last[value] = step
    given = _donations(program, donated, last)
    results = [node for node in dict.fromkeys(graph.outputs) if node not in given]
    for i, node in enumerate(results):
        places[node] = Place("result", i)
    for node, argument in given.items():
        places[node] = Place("argument", argument)
    arena = _Arena()
    extent: dict[int, int] = {}  # offset in the arena -> size
    total = 0
    if program.status is not None:
        places[program.status] = Place("arena", 0, arena.take(ALIGNMENT))
    for step, launch in enumerate(program.launches):
        ending = [
            value
            for value in dict.fromkeys((*launch.reads, *launch.writes))
            if last[value] == step and value is not program.status
        ]
        for value in launch.writes:
            if value in places:
                continue
            total += _size(value)
            spare = _replaced(value, launch, step, last, places)
            if spare is not None:
                places[value] = places[spare]
                if spare in ending:
                    ending.remove(spare)
                continue
            offset = arena.take(_size(value))
            extent[offset] = _size(value)
            places[value] = Place("arena", 0, offset)
        for value in ending:
            place = places.get(value)
            if place is not None and place.kind == "arena" and place.offset in extent:
                arena.give(place.offset, extent.pop(place.offset))
    return Memory(
        places,
        arena.size,
        total,
        sum(node.type.nbytes for node in results),
        sum(node.type.nbytes for node in program.constants),
        given,
    )


def _replaced(
    value: Value, launch: Launch, step: int, last: Mapping[Value, int], places: dict[Value, Place]
) -> Node | None:
    """The value in the arena whose place `value` may take while it is computed."""
    for written, read in launch.in_place:
        place = places.get(read)
        if (
            written is value
            and last[read] == step
            and place is not None
            and place.kind == "arena"
            and all(places.get(other) != place for other in launch.writes)
        ):
            return read
    return None


def _donations(
    program: Program, donated: Sequence[int], last: Mapping[Value, int]
) -> dict[Node, int]:
    """Outputs that may be written over a donated argument, which nothing reads any more."""
    graph = program.graph
    free = {graph.inputs[i]: i for i in donated}
    outputs = set(graph.outputs)
    found: dict[Node, int] = {}
    for step, launch in enumerate(program.launches):
        for written, read in launch.in_place:
            wanted = written in outputs and written not in found and read in free
            if wanted and last.get(read) == step and read.type == written.type:
                found[written] = free.pop(read)
    for step, launch in enumerate(program.launches):
        for value in launch.writes:
            if not isinstance(value, Node) or value not in outputs or value in found:
                continue
            for argument in list(free):
                if argument.type == value.type and last.get(argument, -1) < step:
                    found[value] = free.pop(argument)
                    break
    return found
