"""Where to cut a long sequence so that what repeats in it is cut at the same places each time.

Forty steps of an integrator written out are forty times the same operations. Cut every so many
operations, no two pieces would be alike; cut at the same place of each step, all are, and one
compiled kernel serves them all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

#: Labels in a row that have to be equal for two places to count as alike: in straight code, where
#: half of all operations are multiplications, fewer are alike by chance.
_WINDOW = 12
#: Distances between places that are alike which are looked at: the most frequent ones.
_PERIODS = 12
#: Short periods are taken together up to a quarter of the longest piece.
_TOGETHER = 4
#: Labels that a stretch spares, being cut where it repeats, for it to be worth pieces of its own.
_SPARED = 128


class _Run(Struct, frozen=True):
    """A stretch [start, stop) in which each label is that of `period` places before."""

    start: int
    stop: int
    period: int


def pieces(labels: Sequence[int], longest: int) -> list[tuple[int, int]]:
    """Stretches (start, stop) of at most `longest` labels, in order, that make up all of them.

    A stretch that repeats with a period is cut once a period, or several periods at a time where
    they are short, or into equal parts of a period where that is long. What does not repeat, or is
    left of a stretch, is cut evenly: so the number of different pieces does not depend on how often
    something is repeated. Takes time in proportion to the number of labels.
    """
    found: list[tuple[int, int]] = []
    done = 0
    if len(labels) > longest:
        for run in _runs(np.asarray(labels), longest // _TOGETHER):
            step = run.period * max(1, longest // _TOGETHER // run.period)
            if run.stop - run.start < step:
                continue
            found += _even(done, run.start, longest)
            for done in range(run.start + step, run.stop + 1, step):
                found += _even(done - step, done, longest)
    return found + _even(done, len(labels), longest)


def _even(start: int, stop: int, longest: int) -> list[tuple[int, int]]:
    """As few pieces as will do, none longer than another by more than one."""
    count = -(-(stop - start) // longest)
    ends = [start + (stop - start) * i // count for i in range(count + 1)] if count else []
    return list(pairwise(ends))


def _runs(labels: NDArray[np.int64], piece: int) -> list[_Run]:
    """Stretches that repeat, in order and apart from each other, the longest ones first chosen.

    Each is cut into pieces of a period, or of about `piece` labels where that is shorter.
    """
    candidates = sorted(
        (run for period in _periods(labels) for run in _of_period(labels, period)),
        key=lambda run: (run.start - run.stop, run.period),
    )
    chosen: list[_Run] = []
    taken = np.zeros(len(labels), bool)
    for run in candidates:
        left = np.flatnonzero(~taken[run.start : run.stop])
        if len(left) == 0:
            continue
        # of what is left of it only the longest stretch is looked at
        breaks = np.flatnonzero(np.diff(left) > 1) + 1
        longest = max(np.split(left, breaks), key=len)
        if len(longest) - max(run.period, piece) < _SPARED:
            continue
        start = run.start + int(longest[0])
        stop = run.start + int(longest[-1]) + 1
        taken[start:stop] = True
        chosen.append(_Run(start, stop, run.period))
    return sorted(chosen, key=lambda run: run.start)


def _periods(labels: NDArray[np.int64]) -> list[int]:
    """The most frequent distances from a window of labels to the one before that is equal."""
    last: dict[bytes, int] = {}
    distances: Counter[int] = Counter()
    for i in range(len(labels) - _WINDOW + 1):
        window = labels[i : i + _WINDOW].tobytes()
        if window in last:
            distances[i - last[window]] += 1
        last[window] = i
    return [distance for distance, _ in distances.most_common(_PERIODS)]


def _of_period(labels: NDArray[np.int64], period: int) -> Iterator[_Run]:
    """The stretches of at least two periods."""
    equal = np.concatenate([[False], labels[period:] == labels[:-period], [False]])
    edges = np.flatnonzero(equal[1:] != equal[:-1])
    for start, stop in edges.reshape(-1, 2).tolist():
        if stop - start >= period:
            yield _Run(start, stop + period, period)
