"""The memory plan: where each value lies, by when it is written first and read last.

All intermediate values share one arena that lives as long as the program, so a call allocates its
results and nothing else. A value takes the place of one that is read for the last time where it is
written, element by element (in place); how the others are packed is in `graphdl.kernels.packing`.
An array of which a part is replaced takes the place of the old one from the first launch on that
writes it, if no other launch reads the old one from then on; and what a result is made of in this
way is made where the result lies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from graphdl.graph import Node
from graphdl.kernels.packing import Block, packed
from graphdl.kernels.program import ALIGNMENT, Launch, Memory, Place, Program, Value


def _size(value: Value, alignment: int) -> int:
    nbytes = value.type.nbytes if isinstance(value, Node) else value.nbytes
    return -(-max(nbytes, 1) // alignment) * alignment


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
    given = _donations(program, donated, use, heirs)
    results = [node for node in dict.fromkeys(graph.outputs) if node not in given]
    for i, node in enumerate(results):
        places[node] = Place("result", i)
    for node, argument in given.items():
        places[node] = Place("argument", argument)
    _place_origins(program, use, places)
    blocks, block_of, total = _blocks(program, use, places)
    layout = packed(blocks)
    for value, number in block_of.items():
        places[value] = Place("arena", 0, layout.offsets[number])
    return Memory(
        places,
        layout.size,
        total,
        sum(node.type.nbytes for node in results),
        sum(node.type.nbytes for node in program.constants),
        given,
        sum(body.memory.own_bytes for launch in program.launches for body in launch.bodies),
    )


def _blocks(
    program: Program, use: _Use, places: Mapping[Value, Place]
) -> tuple[list[Block], dict[Value, int], int]:
    """The blocks of the arena, by their first steps; the number of that of each value that has no
    place elsewhere; and the bytes of these values.

    A value that is written over another one lies in its block.
    """
    sizes: list[int] = []
    spans: list[tuple[int, int]] = []
    block_of: dict[Value, int] = {}
    total = 0
    if program.status is not None:
        block_of[program.status] = 0
        sizes.append(program.alignment)
        spans.append((0, max(len(program.launches) - 1, 0)))
    for step, launch in enumerate(program.launches):
        for value in launch.writes:
            if value in places or value in block_of:
                continue
            size = _size(value, program.alignment)
            total += size
            spare = _replaced(value, launch, step, use, block_of)
            if spare is None:
                block_of[value] = len(sizes)
                sizes.append(size)
                spans.append((step, use.last[value]))
            else:
                number = block_of[value] = block_of[spare]
                first, last = spans[number]
                spans[number] = first, max(last, use.last[value])
    blocks = [Block(size, *span) for size, span in zip(sizes, spans, strict=True)]
    return blocks, block_of, total


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
    value: Value, launch: Launch, step: int, use: _Use, block_of: Mapping[Value, int]
) -> Node | None:
    """The value in the arena whose place `value` may take while it is computed."""
    for written, read in launch.in_place:
        block = block_of.get(read)
        if (
            written is value
            and block is not None
            and use.ends_in(read, written, step)
            and all(block_of.get(other) != block for other in launch.writes)
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
