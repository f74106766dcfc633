"""Measuring: ordinary calls of a program, and the same calls under a stopwatch, in turn.

The timed program has tables, an arena and a tape of its own, so that ordinary calls are as fast
after a profile as before it. Kernels are the same machine code, and the way into the program is the
same native function.

What a call under the stopwatch takes divides into its kernels, waiting for threads, and the rest,
which is spent outside of the tape: reading arguments, making results. From each goes what reading
the clock takes, which is measured by itself. Nothing is fitted to the ordinary calls, so whether
all parts add up to one of these says whether the profile is right.

A loop counts as one kernel there: a stopwatch within its steps keeps the processor from beginning
the next kernel before the last one has ended, and can double the time of the loop. That is a third
kind of call, and only says how the time of a loop divides.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cache
from statistics import median
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from graphdl.errors import ArgumentError
from graphdl.kernels.cpu import build, clock, tape
from graphdl.kernels.cpu.build import Native
from graphdl.kernels.cpu.tape import Tape
from graphdl.kernels.memory import is_idle
from graphdl.kernels.program import Launch, Memory, Program
from graphdl.profile.peaks import peak
from graphdl.profile.report import ENTRY, THREADS, KernelTime, Part, Report, kernel_time

#: Without `calls=`: about so many seconds in all, and at least and at most so many calls.
_SECONDS, _FEWEST, _MOST = 0.5, 7, 300
#: Launches of nothing by which a reading of the clock is measured, and how often they are run.
_LAUNCHES, _REPEATS = 1000, 9


class _Words(Struct, frozen=True):
    """What a stopwatch has written in one call: of a program, and of its bodies.

    times: as `Native.times`. shares: of each row, how its time divides among its launches.
    """

    times: NDArray[np.int64]
    shares: tuple[NDArray[np.float64], ...]
    bodies: tuple[tuple[_Words, ...], ...]


class _Sample(Struct, frozen=True):
    """What one launch took in one call: in seconds, how often, and the launches of its bodies."""

    seconds: float
    runs: int
    body: tuple[tuple[_Sample, ...], ...]


def measured(
    name: str,
    program: Program,
    memory: Memory,
    call: Callable[..., Any],
    call_of: Callable[[Native], Callable[..., Any]],
    leaves: Callable[[], Sequence[Any]],
    calls: int | None,
) -> Report:
    """The profile of a program.

    `leaves` makes the leaves of a call, copies of those that a call overwrites; `call` is the
    ordinary call with these, `call_of` makes that of a timed program. Raises ArgumentError where
    `calls` is less than 1.
    """
    if calls is not None and calls < 1:
        raise ArgumentError(f"calls={calls}: a profile takes one call at least")
    made = [build.build(program, memory, tape.timed_functions(), tape.native_functions())]
    if any(launch.bodies for launch in program.launches):
        made.append(build.build(program, memory, tape.timed_functions()))
    every = [call, *map(call_of, made)]
    taken: list[list[float]] = []
    words: list[list[_Words]] = []
    begin = time.perf_counter()
    for one in every:  # results that large arrays are recycled for, pages that are touched
        _seconds(one, leaves())
    while len(taken) < (calls or _FEWEST) or (
        calls is None and len(taken) < _MOST and time.perf_counter() - begin < _SECONDS
    ):
        for native in made:
            _reset(native)
        # each in turn is the first, which finds the least of what it needs in the caches
        first = len(taken) % len(every)
        arguments = [leaves() for _ in every]
        order = [*range(first, len(every)), *range(first)]
        seconds = {i: _seconds(every[i], arguments[i]) for i in order}
        taken.append([seconds[i] for i in range(len(every))])
        words.append([_words(native) for native in made])
    samples = []
    for native, column in zip(made, zip(*words, strict=True), strict=True):
        shares = _usual_shares(column)
        samples.append([_launches(native, own, shares, 1) for own in column])
    kernels = tuple(
        _kernel(number, i, launch, program, samples)
        for number, (i, launch) in enumerate(_running(program, memory))
    )
    rest = _rest([seconds[1] for seconds in taken], [own[0].times for own in words])
    whole = [seconds[0] for seconds in taken]
    return Report(name, kernels, rest, min(whole), median(whole), len(whole), peak(kernels))


@cache
def reading_seconds() -> float:
    """What it takes a stopwatch to read the clock and to write the time down, at the least."""
    words = (tape.timed_functions()["nothing"], 0, 0, 1)
    launches, _ = tape.with_times([words] * _LAUNCHES)
    many = Tape(launches)

    def least(*runner: Callable[..., None]) -> float:
        return min(_seconds(tape.run, [many, (), *runner]) for _ in range(_REPEATS))

    return max(0.0, least(tape.timed_runner()) - least()) / _LAUNCHES


def _seconds(call: Callable[..., Any], arguments: Sequence[Any]) -> float:
    start = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - start


def _reset(made: Native) -> None:
    made.times[:] = 0
    for row in made.rows:
        row.shares[:] = 0
    for inner in made.bodies:
        for body in inner:
            _reset(body)


def _words(made: Native) -> _Words:
    bodies = tuple(tuple(map(_words, inner)) for inner in made.bodies)
    shares = tuple(row.shares / max(1, row.shares.sum()) for row in made.rows)
    return _Words(made.times.copy(), shares, bodies)


def _rest(whole: Sequence[float], times: Sequence[NDArray[np.int64]]) -> tuple[Part, ...]:
    """What calls that took `whole` seconds under the stopwatch spent in no launch."""
    tick, reading = clock.seconds_per_tick(), reading_seconds()
    inside = [float(words[1:].sum()) * tick for words in times]
    entry = [seconds - own - reading for seconds, own in zip(whole, inside, strict=True)]
    threads = [float(words[1]) * tick for words in times]
    parts = [Part(ENTRY, min(entry), median(entry))]
    if any(threads):
        parts.append(Part(THREADS, min(threads), median(threads)))
    return tuple(parts)


class _Shares(Struct, frozen=True):
    """How the rows of a program, and of its bodies, divide their times in most calls."""

    rows: tuple[NDArray[np.float64], ...]
    bodies: tuple[tuple[_Shares, ...], ...]


def _usual_shares(samples: Sequence[_Words]) -> _Shares:
    """Of each row the medians, for all to add up: the least of each would come from many calls."""
    medians = [np.median(row, axis=0) for row in zip(*(x.shares for x in samples), strict=True)]
    bodies = zip(*(sample.bodies for sample in samples), strict=True)
    return _Shares(
        tuple(row / (row.sum() or 1.0) for row in medians),
        tuple(tuple(_usual_shares(body) for body in zip(*inner, strict=True)) for inner in bodies),
    )


def _launches(made: Native, words: _Words, shares: _Shares, runs: int) -> tuple[_Sample, ...]:
    """What each launch took; one that was run with others, its share of what all of them took."""
    tick, reading = clock.seconds_per_tick(), reading_seconds()
    seconds = [0.0] * len(made.program.launches)
    for row, total, parts in zip(made.rows, words.times[2:], shares.rows, strict=True):
        for i, part in zip(row.launches, parts, strict=True):
            seconds[i] = max(0.0, float(total) * tick - reading * runs) * float(part)
    return tuple(
        _Sample(
            max(0.0, own - reading * sum(map(_readings, inner))),
            runs,
            _by_program(
                launch,
                own,
                tuple(
                    _launches(body, below, usual, int(below.times[0]))
                    for body, below, usual in zip(bodies, inner, usuals, strict=True)
                ),
            ),
        )
        for launch, own, bodies, inner, usuals in zip(
            made.program.launches, seconds, made.bodies, words.bodies, shares.bodies, strict=True
        )
    )


def _by_program(
    launch: Launch, seconds: float, bodies: tuple[tuple[_Sample, ...], ...]
) -> tuple[tuple[_Sample, ...], ...]:
    """The launches of each of the programs that a launch runs.

    What steps took side by side adds up to the time of all threads: it is said as shares of the
    `seconds` of the loop.
    """
    if not launch.is_side_by_side:
        return bodies
    total = sum(sample.seconds for body in bodies for sample in body)
    scale = min(1.0, seconds / total) if total else 1.0
    return (tuple(_added(samples, scale) for samples in zip(*bodies, strict=True)),)


def _added(samples: Sequence[_Sample], scale: float) -> _Sample:
    """One launch in several bodies that are the same program."""
    inner = zip(*(sample.body for sample in samples), strict=True)
    return _Sample(
        scale * sum(sample.seconds for sample in samples),
        sum(sample.runs for sample in samples),
        tuple(tuple(_added(own, scale) for own in zip(*body, strict=True)) for body in inner),
    )


def _readings(words: _Words) -> int:
    """How often the clock was read in a body: when a step begins, and after each launch."""
    inner = sum(_readings(below) for bodies in words.bodies for below in bodies)
    return int(words.times[0]) * (len(words.times) - 1) + inner


def _running(program: Program, memory: Memory) -> list[tuple[int, Launch]]:
    """The launches that have something to do, as `Executable.kernels` counts them."""
    pairs = enumerate(program.launches)
    return [(i, launch) for i, launch in pairs if not is_idle(launch, memory)]


def _kernel(
    number: int,
    i: int,
    launch: Launch,
    program: Program,
    samples: Sequence[Sequence[Sequence[_Sample]]],
) -> KernelTime:
    """A launch, from calls with nothing timed in its bodies; these, from calls that time all."""
    seconds = [sample[i].seconds for sample in samples[0]]
    if not launch.bodies:
        return kernel_time(number, launch, program.graph, seconds)
    found = _inner(number, launch, program, [sample[i] for sample in samples[1]])
    least = min(seconds) / found.seconds if found.seconds else 1.0
    usual = median(seconds) / found.median if found.median else 1.0
    return _scaled(found, least, usual)


def _inner(number: int, launch: Launch, program: Program, samples: Sequence[_Sample]) -> KernelTime:
    """A launch as it was where its bodies were timed too."""
    body: list[KernelTime] = []
    for k, inner in enumerate(launch.programs):
        for i, own in _running(inner.program, inner.memory):
            parts = [sample.body[k][i] for sample in samples]
            body.append(_inner(len(body), own, inner.program, parts))
    times = [sample.seconds for sample in samples]
    return kernel_time(number, launch, program.graph, times, samples[-1].runs, body)


def _scaled(kernel: KernelTime, least: float, usual: float) -> KernelTime:
    return replace(
        kernel,
        seconds=kernel.seconds * least,
        median=kernel.median * usual,
        body=tuple(_scaled(inner, least, usual) for inner in kernel.body),
    )
