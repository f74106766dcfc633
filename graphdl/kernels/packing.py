"""Where blocks of memory lie, each of which is needed for a while: as close together as can be.

The least that can be is what is needed at the fullest moment. Blocks that are placed one after the
other, as they are needed, leave gaps that no later one fills. Where they do, all are known before
any is placed: so the largest are placed first, each in the smallest gap between those that are
needed meanwhile (as in Y. Pisarchyk and J. Lee, Efficient memory management for deep neural net
inference, arXiv:2001.03288, 2020, "greedy by size"), or those that are needed longest.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Sequence
from itertools import accumulate

from msgspec import Struct

#: So many blocks are placed again, at most: the time for it grows with their square.
_MOST = 2000


class Block(Struct, frozen=True):
    """Memory that is needed from one step to another, both included."""

    size: int
    first: int
    last: int


class Layout(Struct, frozen=True):
    """Where each block lies, and what all of them take."""

    offsets: list[int]
    size: int


_ORDERS: tuple[Callable[[Block], int], ...] = (
    lambda block: -block.size,
    lambda block: block.first - block.last,
    lambda block: block.size * (block.first - block.last - 1),
)


def packed(blocks: Sequence[Block]) -> Layout:
    """A layout in which blocks that are needed at one time do not overlap: the smallest found.

    Blocks come in the order of their first steps.
    """
    best = _one_by_one(blocks)
    least = needed(blocks)
    if len(blocks) > _MOST:
        return best
    for order in _ORDERS:
        if best.size == least:
            break
        found = _in_order(blocks, sorted(range(len(blocks)), key=lambda i: order(blocks[i])))
        if found.size < best.size:
            best = found
    return best


def needed(blocks: Sequence[Block]) -> int:
    """The bytes that are needed at the fullest moment."""
    if not blocks:
        return 0
    changes = [0] * (max(block.last for block in blocks) + 2)
    for block in blocks:
        changes[block.first] += block.size
        changes[block.last + 1] -= block.size
    return max(accumulate(changes))


def _in_order(blocks: Sequence[Block], order: Sequence[int]) -> Layout:
    """Each block in the smallest gap of those placed before it that are needed meanwhile."""
    offsets, size = [0] * len(blocks), 0
    placed: list[tuple[int, int, int, int]] = []  # by offset
    for i in order:
        block = blocks[i]
        place, least, end = -1, 0, 0
        for offset, stop, first, last in placed:
            if first <= block.last and block.first <= last:
                room = offset - end
                if room >= block.size and (place < 0 or room < least):
                    place, least = end, room
                end = max(end, stop)
        offsets[i] = place if place >= 0 else end
        insort(placed, (offsets[i], offsets[i] + block.size, block.first, block.last))
        size = max(size, offsets[i] + block.size)
    return Layout(offsets, size)


def _one_by_one(blocks: Sequence[Block]) -> Layout:
    """Each block in the smallest place that is free when it is needed."""
    arena = _Arena()
    offsets: list[int] = []
    ending: dict[int, list[int]] = {}
    step = 0
    for i, block in enumerate(blocks):
        while step < block.first:
            for j in ending.pop(step, ()):
                arena.give(offsets[j], blocks[j].size)
            step += 1
        offsets.append(arena.take(block.size))
        ending.setdefault(block.last, []).append(i)
    return Layout(offsets, arena.size)


class _Arena:
    """The free places, and how large it had to become."""

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


__all__ = ["Block", "Layout", "needed", "packed"]
