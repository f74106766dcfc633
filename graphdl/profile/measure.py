"""Measuring: ordinary calls of a program, and the same program with a stopwatch, in turn.

The timed program has tables, an arena and a tape of its own, so that ordinary calls are as fast
after a profile as before it. Kernels are the same machine code.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from graphdl.errors import ArgumentError
from graphdl.graph import Graph, Node
from graphdl.kernels.cpu import blas, build, clock, tape
from graphdl.kernels.cpu.build import Native
from graphdl.kernels.memory import is_idle
from graphdl.kernels.program import Launch, Memory, Program
from graphdl.profile.peaks import peak
from graphdl.profile.report import KernelTime, Report, kernel_time

Array = NDArray[Any]

#: Without `calls=`: about so many seconds in all, and at least and at most so many calls.
_SECONDS, _FEWEST, _MOST = 0.5, 7, 300


class _Sample(Struct, frozen=True):
    """What one launch took in one call: in ticks, how often, and the launches of its bodies."""

    ticks: float
    runs: int
    body: tuple[tuple[_Sample, ...], ...]


def measured(
    name: str,
    program: Program,
    memory: Memory,
    call: Callable[..., Any],
    leaves: Callable[[], Sequence[Any]],
    calls: int | None,
) -> Report:
    """The profile of a program.

    `leaves` makes the leaves of a call, copies of those that a call overwrites; `call` is the
    ordinary call with these. Raises ArgumentError where `calls` is less than 1.
    """
    if calls is not None and calls < 1:
        raise ArgumentError(f"calls={calls}: a profile takes one call at least")
    made = build.build(program, memory, tape.timed_functions())
    results = [np.empty(node.shape, node.dtype) for node in _results(program, memory)]
    whole: list[float] = []
    samples: list[tuple[_Sample, ...]] = []
    begin = time.perf_counter()
    _call(call, leaves())  # results that large arrays are recycled for, pages that are touched
    _run(made, program.graph, leaves(), results)
    while len(whole) < (calls or _FEWEST) or (
        calls is None and len(whole) < _MOST and time.perf_counter() - begin < _SECONDS
    ):
        whole.append(_call(call, leaves()))
        _reset(made)
        _run(made, program.graph, leaves(), results)
        samples.append(_read(made, 1))
    kernels = tuple(
        _kernel(number, launch, program, [sample[i] for sample in samples])
        for number, (i, launch) in enumerate(_running(program, memory))
    )
    kernels = _without_readings(kernels, min(whole))
    return Report(name, kernels, min(whole), median(whole), len(whole), peak())


def _without_readings(kernels: tuple[KernelTime, ...], whole: float) -> tuple[KernelTime, ...]:
    """The times as they add up to an ordinary call.

    In a loop whose kernels take as long as it takes to read the clock, the stopwatch doubles the
    time. What the kernels took more than an ordinary call is what was read in bodies: it is taken
    off those that have any, by how often.
    """
    excess = sum(kernel.seconds for kernel in kernels) - whole
    readings = [_readings(kernel) for kernel in kernels]
    if excess <= 0 or not any(readings):
        return kernels
    each = excess / sum(readings)
    return tuple(
        _scaled(kernel, max(1 - each * count / kernel.seconds, 0.0)) if count else kernel
        for kernel, count in zip(kernels, readings, strict=True)
    )


def _readings(kernel: KernelTime) -> int:
    """How often the clock was read for the kernels in its bodies."""
    return sum(inner.runs + _readings(inner) for inner in kernel.body)


def _scaled(kernel: KernelTime, factor: float) -> KernelTime:
    return replace(
        kernel,
        seconds=kernel.seconds * factor,
        median=kernel.median * factor,
        body=tuple(_scaled(inner, factor) for inner in kernel.body),
    )


def _results(program: Program, memory: Memory) -> list[Node]:
    """The outputs that have memory of their own, in the order of their places."""
    outputs = dict.fromkeys(program.graph.outputs)
    found = [node for node in outputs if memory.places[node].kind == "result"]
    return sorted(found, key=lambda node: memory.places[node].index)


def _call(call: Callable[..., Any], leaves: Sequence[Any]) -> float:
    start = time.perf_counter()
    call(*leaves)
    return time.perf_counter() - start


def _run(made: Native, graph: Graph, leaves: Sequence[Any], results: Sequence[Array]) -> None:
    """Run the timed program; numbers lie in memory as the program reads them."""
    arguments = [
        leaf if isinstance(leaf, np.ndarray) else np.array(leaf, node.dtype)
        for leaf, node in zip(leaves, graph.inputs, strict=True)
    ]
    bases = [array.ctypes.data for array in (*arguments, *results)]
    with blas.one_thread(build.uses_blas(made.program)):
        tape.run(made.tape, bases, tape.timed_runner())


def _reset(made: Native) -> None:
    made.times[:] = 0
    for row in made.rows:
        row.shares[:] = 0
    for inner in made.bodies:
        for body in inner:
            _reset(body)


def _read(made: Native, runs: int) -> tuple[_Sample, ...]:
    """What each launch took; one that was run with others, its share of what all of them took."""
    ticks = [0.0] * len(made.program.launches)
    for row, total in zip(made.rows, made.times[1:], strict=True):
        if row.table is None:
            ticks[row.launches[0]] = float(total)
            continue
        everything = int(row.shares.sum()) or 1
        for i, share in zip(row.launches, row.shares, strict=True):
            ticks[i] = float(total) * int(share) / everything
    return tuple(
        _Sample(own, runs, tuple(_read(body, int(body.times[0])) for body in inner))
        for own, inner in zip(ticks, made.bodies, strict=True)
    )


def _running(program: Program, memory: Memory) -> list[tuple[int, Launch]]:
    """The launches that have something to do, as `Executable.kernels` counts them."""
    pairs = enumerate(program.launches)
    return [(i, launch) for i, launch in pairs if not is_idle(launch, memory)]


def _kernel(
    number: int, launch: Launch, program: Program, samples: Sequence[_Sample]
) -> KernelTime:
    graph, tick = program.graph, clock.seconds_per_tick()
    body: list[KernelTime] = []
    for k, inner in enumerate(launch.bodies):
        for i, own in _running(inner.program, inner.memory):
            parts = [sample.body[k][i] for sample in samples]
            body.append(_kernel(len(body), own, inner.program, parts))
    times = [sample.ticks * tick for sample in samples]
    return kernel_time(number, launch, graph, times, samples[-1].runs, body)
