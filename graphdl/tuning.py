"""Measuring what the machine costs, for `graphdl tune`: see graphdl.machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from msgspec.structs import replace

from graphdl.api import compile
from graphdl.kernels.cpu import pool, speed
from graphdl.machine import Machine, current

#: What each time is, in words.
DESCRIPTIONS: dict[str, str] = {
    "memory_byte": "a byte of a large array, read or written while all cores do so",
    "cached_byte": "a byte of an array in the third-level cache",
    "multiply_add": "a multiply-add of a float32 matrix product",
    "exp": "exp of a float32 in a vectorised loop",
    "launch": "to have threads share a kernel",
}

#: Side of the matrices that are multiplied, elements of the array whose exp is taken: large enough
#: that a call does not count, small enough for the caches.
_SIDE, _ELEMENTS = 512, 1 << 16
_REPEATS = 15
#: How often everything is measured, in turns.
ROUNDS = 10
#: Nanoseconds that waking another thread takes anywhere.
LEAST_LAUNCH = 500.0


def measured(rounds: int = ROUNDS) -> Machine:
    """The machine as it is measured now, which takes about half a second a round.

    The least time of all rounds counts, so what else runs matters little, as long as it leaves the
    cores free at times. Of the launch it is the usual time: the calling thread may have done all of
    it before another one woke, which takes next to no time and shares nothing. It stays as it is
    where there is no second core to share with.
    """
    pool.start()
    old = current()
    found = [_measured_once(old) for _ in range(rounds)]
    least = {name: min(times[name] for times in found) for name in found[0]}
    if "launch" in least:
        usual = median(times["launch"] for times in found)
        least["launch"] = max(usual, LEAST_LAUNCH)
    least["cached_byte"] = min(least["cached_byte"], least["memory_byte"])
    return replace(old, **least)


def _measured_once(old: Machine) -> dict[str, float]:
    """The times that are measured, in nanoseconds."""
    cores = pool.num_threads()
    seconds = {"memory_byte": cores / speed.copy_bandwidth()}
    if cores > 1:
        seconds["launch"] = speed.sharing_time()
    with _one_thread():
        cached = max(2 * old.second_level, min(old.third_level // 8, 8 << 20))
        seconds["cached_byte"] = 1 / speed.copy_bandwidth(cached)
        seconds["multiply_add"] = _multiply_add()
        seconds["exp"] = _exp()
    return {name: 1e9 * time for name, time in seconds.items()}


@contextmanager
def _one_thread() -> Iterator[None]:
    """Programs use the calling thread alone meanwhile."""
    threads = pool.num_threads()
    pool.set_num_threads(1)
    try:
        yield
    finally:
        pool.set_num_threads(threads)


def _multiply_add() -> float:
    a, b = (np.full((_SIDE, _SIDE), value, np.float32) for value in (0.5, 0.25))
    return _least(compile(np.matmul), a, b) / _SIDE**3


def _exp() -> float:
    """By the difference of four of them, each taken of the last, and one."""
    x = np.linspace(0.1, 1.0, _ELEMENTS, dtype=np.float32)

    def repeated(x: Any) -> Any:
        for _ in range(4):
            x = np.exp(-x)
        return x

    four, one = (_least(compile(f), x) for f in (repeated, lambda x: np.exp(-x)))
    return (four - one) / (3 * _ELEMENTS)


def _least(call: Callable[..., Any], *args: Any) -> float:
    call(*args)
    times = []
    for _ in range(_REPEATS):
        start = perf_counter()
        call(*args)
        times.append(perf_counter() - start)
    return min(times)
