"""What a benchmark is made of: cases, the builders of the contestants, the targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.placement import host

Array = NDArray[Any]


@dataclass(frozen=True)
class Prepared:
    """One contestant, ready for one case.

    `results` runs once, before any timed call, and returns what is compared, in the order of
    `Case.expected`; `call` is what is timed, and returns only when its results are ready.
    `executable` gives what graphdl runs in a call, which says how many bytes and operations that
    takes; it is asked after `results`.
    """

    results: Callable[[], Sequence[Any]]
    call: Callable[[], object]
    executable: Callable[[], Any] | None = None


@dataclass(frozen=True)
class Target:
    """What graphdl is to reach: a bound on its time, relative or absolute.

    At least `times` faster than the fastest of `peers` ("" means all of them); or at most `times`
    the floor; or at most `microseconds`; or at most so much of what the case measures.
    """

    times: float | None = None
    peers: tuple[str, ...] = ()
    of_floor: bool = False
    microseconds: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class Case:
    """One line of the question: inputs, the values expected of them, who competes, targets.

    `inputs` makes the same arrays in every process. `expected` computes in float64 NumPy what
    `Prepared.results` must return within `tolerance`, relative to each array's largest value.
    """

    name: str
    inputs: Callable[[], Mapping[str, Any]]
    expected: Callable[[Mapping[str, Any]], Sequence[Array]]
    builders: Mapping[str, Callable[[Mapping[str, Any]], Prepared]]
    tolerance: float
    floor_label: str
    targets: tuple[Target, ...] = field(default=())


def largest_difference(results: Sequence[Any], expected: Sequence[Array]) -> float:
    """Largest difference from `expected`, each array relative to its largest magnitude.

    Infinite where the number of arrays, a shape or a NaN does not agree.

    >>> largest_difference([np.array([1.0, 2.0])], [np.array([1.0, 2.5])])
    0.2
    """
    if len(results) != len(expected):
        return float("inf")
    worst = 0.0
    for result, wanted in zip(results, expected, strict=True):
        found = np.asarray(host(result), np.float64)
        if found.shape != wanted.shape or not np.isfinite(found).all():
            return float("inf")
        scale = max(float(np.abs(wanted).max(initial=0.0)), np.finfo(np.float64).tiny)
        worst = max(worst, float(np.abs(found - wanted).max(initial=0.0)) / scale)
    return worst
