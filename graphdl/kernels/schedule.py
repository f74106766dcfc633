"""The schedule: which launches run side by side.

Launches that touch each other's memory keep their order; all others of one level are independent.
A level that is worth it runs as one parallel launch: the gradients of all layers' weights, or the
updates of two hundred small tensors, start the threads once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from graphdl.graph import Node
from graphdl.kernels.program import Launch, Memory, Place, Value


@dataclass(frozen=True)
class _Span:
    """The memory of a value: a whole argument, result or constant, or bytes of the arena."""

    kind: str
    index: int
    start: int
    stop: int

    def meets(self, other: _Span) -> bool:
        if (self.kind, self.index) != (other.kind, other.index):
            return False
        return self.kind != "arena" or (self.start < other.stop and other.start < self.stop)


def _span(value: Value, place: Place) -> _Span:
    size = value.type.nbytes if isinstance(value, Node) else value.nbytes
    return _Span(place.kind, place.index, place.offset, place.offset + max(size, 1))


def levels(launches: Sequence[Launch], memory: Memory) -> list[list[int]]:
    """The launches by number: those of one level are independent and follow the level before."""
    reads = [_spans(launch.reads, memory) for launch in launches]
    writes = [_spans(launch.writes, memory) for launch in launches]
    #: For each level, all that its launches read and write: a launch goes behind the last that it
    #: conflicts with.
    result: list[list[int]] = []
    for i in range(len(launches)):
        level = 0
        for at in range(len(result) - 1, -1, -1):
            if any(_conflict(reads, writes, i, j) for j in result[at]):
                level = at + 1
                break
        if level == len(result):
            result.append([])
        result[level].append(i)
    return result


def _spans(values: Iterable[Value], memory: Memory) -> list[_Span]:
    return [_span(value, memory.places[value]) for value in values]


def _conflict(reads: list[list[_Span]], writes: list[list[_Span]], a: int, b: int) -> bool:
    """Whether one of two launches writes what the other reads or writes."""
    return _meet(writes[a], reads[b]) or _meet(writes[a], writes[b]) or _meet(reads[a], writes[b])


def _meet(a: list[_Span], b: list[_Span]) -> bool:
    return any(x.meets(y) for x in a for y in b)
