"""The schedule: which launches run side by side.

Launches that touch each other's memory keep their order; all others of one level are independent.
A level that is worth it runs as one parallel launch: the gradients of all layers' weights, or the
updates of two hundred small tensors, start the threads once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from graphdl.graph import Node
from graphdl.kernels.program import Launch, Memory, Value

#: A range of cells, which are the parts of the memory that values share or do not share.
Span = tuple[int, int]


def levels(launches: Sequence[Launch], memory: Memory) -> list[list[int]]:
    """The launches by number: those of one level are independent and follow the level before.

    A launch goes behind the last that writes what it reads or writes, or reads what it writes.
    """
    span, count = _cells(launches, memory)
    written, read = np.full(count, -1), np.full(count, -1)
    result: list[list[int]] = []
    for i, launch in enumerate(launches):
        reads, writes = _spans(launch.reads, span), _spans(launch.writes, span)
        level = 1 + max(
            [
                -1,
                *(int(written[a:b].max()) for a, b in (*reads, *writes)),
                *(int(read[a:b].max()) for a, b in writes),
            ]
        )
        for spans, last in ((reads, read), (writes, written)):
            for a, b in spans:
                np.maximum(last[a:b], level, out=last[a:b])
        if level == len(result):
            result.append([])
        result[level].append(i)
    return result


def _spans(values: Iterable[Value], span: Callable[[Value], Span]) -> list[Span]:
    return [span(value) for value in values]


def _cells(launches: Sequence[Launch], memory: Memory) -> tuple[Callable[[Value], Span], int]:
    """The cells of each value, and how many there are.

    An argument, a result or a constant is one cell; the arena is cut where a value starts or ends.
    """
    values = {value for launch in launches for value in (*launch.reads, *launch.writes)}
    places = {value: memory.places[value] for value in values}
    arena = {value: place for value, place in places.items() if place.kind == "arena"}
    cuts = sorted({cut for value, place in arena.items() for cut in _bytes(value, place.offset)})
    cell = {cut: i for i, cut in enumerate(cuts)}
    others: dict[tuple[str, int], int] = {}
    for place in places.values():
        if place.kind != "arena":
            others.setdefault((place.kind, place.index), len(cuts) + len(others))

    def span(value: Value) -> Span:
        place = places[value]
        if place.kind == "arena":
            start, stop = _bytes(value, place.offset)
            return cell[start], cell[stop]
        at = others[place.kind, place.index]
        return at, at + 1

    return span, len(cuts) + len(others)


def _bytes(value: Value, offset: int) -> Span:
    size = value.type.nbytes if isinstance(value, Node) else value.nbytes
    return offset, offset + max(size, 1)
