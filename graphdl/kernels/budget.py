"""Programs that keep to a number of bytes: values are computed again until they do."""

from __future__ import annotations

from collections.abc import Callable

from graphdl.compiler.rematerialise import Schedule, again
from graphdl.compiler.savings import alone, chosen
from graphdl.graph import Graph, Node
from graphdl.kernels.program import Memory

#: How often values are chosen and the graph is made anew, at most: the values of one choice are
#: each computed twice, those of the next may be computed from these.
_ROUNDS = 16
#: Where the budget is out of reach of one choice, the fullest moment is lowered to this part first.
_STEP = 0.75
#: Repetitions that are tried for each one that is taken where many together do not lead there.
_TRIES = 6


def within(graph: Graph, budget: int, memory_of: Callable[[Graph], Memory]) -> Graph:
    """The graph, or one that computes some values twice so that its program takes fewer bytes.

    `memory_of` plans the memory of a graph's program. Values are chosen that bring the most bytes
    used at any moment down to the budget in the least time; then the graph is made anew and its
    program planned, until the budget is kept or nothing helps any more. Then, from the start, one
    value at a time is. Where the budget cannot be kept this is the smallest program that was met.
    """
    first = memory_of(graph)
    smallest, least = graph, first.peak_bytes
    for improved in (_together, _one_more):
        schedule, memory = Schedule.of(graph), first
        for _ in range(_ROUNDS):
            if least <= budget:
                return smallest
            better = improved(schedule, memory, budget)
            if better is None:
                break
            schedule = better
            memory = memory_of(schedule.graph)
            if memory.peak_bytes < least:
                smallest, least = schedule.graph, memory.peak_bytes
    return smallest


def _together(schedule: Schedule, memory: Memory, budget: int) -> Schedule | None:
    """The schedule with many more values computed again, and less in memory at the fullest moment.

    Where several moments are as full, one of them fewer will do. If kernels turn out otherwise than
    expected, fewer values are tried.
    """
    before, lost = _fullness(schedule), _lost(schedule, memory)
    target = before[0] - (memory.peak_bytes - budget)
    choices = [chosen(schedule, target, lost)]
    if choices[0][1] > target:
        choices.insert(0, chosen(schedule, max(target, round(_STEP * before[0])), lost))
    for found, _ in choices:
        while found:
            tried = Schedule.of(again(schedule, found))
            if _fullness(tried) < before:
                return tried
            found = found[: len(found) // 2]
    return None


def _one_more(schedule: Schedule, memory: Memory, budget: int) -> Schedule | None:
    """The schedule with one more value or segment computed again: of those tried, the one that
    frees most for its time, as kernels turn out.
    """
    before = _fullness(schedule)
    best: tuple[float, Schedule] | None = None
    for made in alone(schedule, _lost(schedule, memory))[:_TRIES]:
        tried = Schedule.of(again(schedule, [made]))
        after = _fullness(tried)
        if after < before:
            gain = (before[0] - after[0]) / made.nanoseconds
            if best is None or gain > best[0]:
                best = gain, tried
    return best and best[1]


def _lost(schedule: Schedule, memory: Memory) -> dict[Node, int]:
    """The arguments that results are written over, and by which kernel."""
    return {
        schedule.graph.inputs[argument]: schedule.maker[result]
        for result, argument in memory.donated.items()
        if result in schedule.maker
    }


def _fullness(schedule: Schedule) -> tuple[int, int]:
    """The most bytes of any moment, and how many kernels run while so many are in use."""
    sizes = schedule.sizes() or [0]
    most = max(sizes)
    return most, sizes.count(most)
