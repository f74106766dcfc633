"""The memory plan: where each value lies, by when it is written first and read last.

All intermediate values share one arena that lives as long as the program, so a call allocates its
results and nothing else. A value takes the place of one that is read for the last time where it is
written, element by element (in place), or the lowest free place that is large enough. An array of
which a part is replaced takes the place of the old one from the first launch on that writes it,
if no other launch reads the old one from then on; and what a result is made of in this way is made
where the result lies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from graphdl.graph import Node
from graphdl.kernels.program import ALIGNMENT, Launch, Memory, Place, Program, Value


def _size(value: Value, alignment: int) -> int:
    nbytes = value.type.nbytes if isinstance(value, Node) else value.nbytes
    return -(-max(nbytes, 1) // alignment) * alignment


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


def plan(
    program: Program, donated: Sequence[int] = (), heirs: Mapping[int, Node] | None = None
) -> Memory:
    """Place every value of a program; `donated` are arguments that results may overwrite.

    `heirs` names the one result that may overwrite an argument, where only one may.
    """
    graph = program.graph
    places: dict[Value, Place] = {node: Place("argument", i) for i, node in enumerate(graph.inputs)}
    for i, node in enumerate(program.constants):
        places[node] = Place("constant", i)
    use = _Use(program)
    last = use.last
    given = _donations(program, donated, use, heirs)
    results = [node for node in dict.fromkeys(graph.outputs) if node not in given]
    for i, node in enumerate(results):
        places[node] = Place("result", i)
    for node, argument in given.items():
        places[node] = Place("argument", argument)
    _place_origins(program, use, places)
    arena = _Arena()
    extent: dict[int, int] = {}  # offset in the arena -> size
    total = 0
    replaced: set[Value] = set()
    if program.status is not None:
        places[program.status] = Place("arena", 0, arena.take(program.alignment))
    for step, launch in enumerate(program.launches):
        ending = [
            value
            for value in dict.fromkeys((*launch.reads, *launch.writes))
            if last[value] == step and value is not program.status and value not in replaced
        ]
        for value in launch.writes:
            if value in places:
                continue
            total += _size(value, program.alignment)
            spare = _replaced(value, launch, step, use, places)
            if spare is not None:
                places[value] = places[spare]
                replaced.add(spare)
                if spare in ending:
                    ending.remove(spare)
                continue
            offset = arena.take(_size(value, program.alignment))
            extent[offset] = _size(value, program.alignment)
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
        sum(body.memory.own_bytes for launch in program.launches for body in launch.bodies),
    )


class _Use:
    """When the launches of a program touch its values."""

    def __init__(self, program: Program) -> None:
        self.launches = program.launches
        self.steps: dict[Value, list[int]] = {}
        for step, launch in enumerate(program.launches):
            for value in dict.fromkeys((*launch.reads, *launch.writes)):
                self.steps.setdefault(value, []).append(step)
        self.last = {value: steps[-1] for value, steps in self.steps.items()}

    def ends_in(self, read: Value, written: Value, step: int) -> bool:
        """Whether from `step` on, `read` is only read where `written` may lie in its place."""
        pair = (written, read)
        return all(pair in self.launches[at].in_place for at in self.steps[read] if at >= step)


def is_idle(launch: Launch, memory: Memory) -> bool:
    """Whether a launch would only copy an array over itself."""
    if not launch.moves:
        return False
    places = memory.places
    there = {written for written, read in launch.in_place if places[written] == places[read]}
    return there.issuperset(launch.writes)


def _place_origins(program: Program, use: _Use, places: dict[Value, Place]) -> None:
    """Place what a result replaces a part of where the result lies, and so on back."""
    arguments = {Place("argument", i): node for i, node in enumerate(program.graph.inputs)}
    for step in reversed(range(len(program.launches))):
        launch = program.launches[step]
        for written, read in _handed_on(launch):
            place = places.get(written)
            if place is None or read in places or use.steps[written][0] != step:
                continue
            if read not in use.steps or not use.ends_in(read, written, step):
                continue
            argument = arguments.get(place)
            first = use.steps[read][0]
            if argument in use.steps and not use.ends_in(argument, read, first):
                continue
            places[read] = place


def _handed_on(launch: Launch) -> tuple[tuple[Node, Node], ...]:
    """The pairs (written, read) of which the one is what became of the other: the copies of which a
    part will be replaced, and what loops and branches change in place."""
    return launch.in_place if launch.moves or launch.bodies else ()


def updated(program: Program) -> Iterator[tuple[Node, Node]]:
    """The outputs that are what became of another value, and that value."""
    older: dict[Node, Node] = {}
    for launch in program.launches:
        for written, read in _handed_on(launch):
            older[written] = read
    for node in program.graph.outputs:
        origin = node
        while origin in older:
            origin = older[origin]
        if origin is not node:
            yield node, origin


def _replaced(
    value: Value, launch: Launch, step: int, use: _Use, places: dict[Value, Place]
) -> Node | None:
    """The value in the arena whose place `value` may take while it is computed."""
    for written, read in launch.in_place:
        place = places.get(read)
        if (
            written is value
            and place is not None
            and place.kind == "arena"
            and use.ends_in(read, written, step)
            and all(places.get(other) != place for other in launch.writes)
        ):
            return read
    return None


def _donations(
    program: Program, donated: Sequence[int], use: _Use, heirs: Mapping[int, Node] | None
) -> dict[Node, int]:
    """Outputs that may be written over a donated argument, which nothing reads any more."""
    graph = program.graph
    free = {graph.inputs[i]: i for i in donated}

    def may(written: Value, argument: Value) -> bool:
        if not isinstance(argument, Node) or argument not in free:
            return False
        return heirs is None or heirs.get(free[argument]) is written

    outputs = set(graph.outputs)
    found: dict[Node, int] = {}
    for node, origin in updated(program):
        first = use.steps[node][0]
        fits = node not in found and may(node, origin) and origin.type == node.type
        if fits and (use.last[origin] < first or use.ends_in(origin, node, first)):
            found[node] = free.pop(origin)
    for step, launch in enumerate(program.launches):
        for written, read in launch.in_place:
            wanted = written in outputs and written not in found and may(written, read)
            if wanted and use.ends_in(read, written, step) and read.type == written.type:
                found[written] = free.pop(read)
    for step, launch in enumerate(program.launches):
        for value in launch.writes:
            if not isinstance(value, Node) or value not in outputs or value in found:
                continue
            for argument in list(free):
                fits = may(value, argument) and argument.type == value.type
                if fits and use.last.get(argument, -1) < step:
                    found[value] = free.pop(argument)
                    break
    return found


__all__ = ["ALIGNMENT", "is_idle", "plan", "updated"]
