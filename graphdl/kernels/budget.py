"""Programs that keep to a number of bytes: values are computed again until they do."""

from __future__ import annotations

from collections.abc import Callable

from graphdl.compiler.rematerialise import Schedule, again, repetitions
from graphdl.graph import Graph

#: Values that are computed again, at most, and how many are tried for each of them.
_MOST, _TRIES = 64, 6


def within(graph: Graph, budget: int, size_of: Callable[[Graph], int]) -> Graph:
    """The graph, or one that computes some values twice so that its program takes fewer bytes.

    `size_of` plans the memory of a graph's program. Values are taken in turn from the moment at
    which most bytes are in use: that first whose second computation takes the least time for the
    bytes that it frees, until the budget is kept or none helps any more. Where it cannot be kept
    this is the smallest program that was met.
    """
    smallest, least = graph, size_of(graph)
    schedule = Schedule.of(graph)
    for _ in range(_MOST):
        if least <= budget:
            break
        better = _step(schedule)
        if better is None:
            break
        schedule = better
        size = size_of(schedule.graph)
        if size < least:
            smallest, least = schedule.graph, size
    return smallest


def _step(schedule: Schedule) -> Schedule | None:
    """The schedule with one more value computed again, and less in memory at the fullest moment.

    Of those tried, the one that frees most for its time. Where several moments are as full, one of
    them fewer will do.
    """
    before = _fullness(schedule)
    best: tuple[float, Schedule] | None = None
    for made in repetitions(schedule)[:_TRIES]:
        tried = Schedule.of(again(schedule, [made]))
        after = _fullness(tried)
        if after < before:
            gain = (before[0] - after[0]) / made.nanoseconds
            if best is None or gain > best[0]:
                best = gain, tried
    return best and best[1]


def _fullness(schedule: Schedule) -> tuple[int, int]:
    """The most bytes of any moment, and how many kernels run while so many are in use."""
    sizes = schedule.sizes() or [0]
    most = max(sizes)
    return most, sizes.count(most)
