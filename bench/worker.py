"""One contestant in a process of its own: builds it, compares its results, times its calls.

Started by `harness.py` as `python -m bench.worker BENCHMARK CONTESTANT THREADS SIZE`; reads one
JSON request a line from standard input and answers each with one line on standard output.
A process of its own keeps thread pools apart: each library's idle threads would otherwise spin
beside the one being timed.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib import import_module
from time import perf_counter, perf_counter_ns, process_time
from typing import Any, TextIO

from bench import peers, placement, work
from bench.cases import Case, Prepared, largest_difference

# The clock costs about 50 ns a reading: a sample of shorter calls holds enough of them to hide it.
SAMPLE_NS = 50_000


def prepare(case: Case, contestant: str) -> tuple[Prepared, dict[str, Any]]:
    """Build `contestant` for `case`, run it once and compare; the figures say what was found."""
    inputs = case.inputs()
    expected = case.expected(inputs)
    start = perf_counter()
    prepared = case.builders[contestant](inputs)
    results = prepared.results()
    seconds = perf_counter() - start
    difference = largest_difference(results, expected)
    answer: dict[str, Any] = {
        "first_call_s": seconds,
        "difference": min(difference, sys.float_info.max),
        "agrees": difference <= case.tolerance,
    }
    if prepared.executable is not None:
        answer["work"] = asdict(work.work_of(prepared.executable()))
    return prepared, answer


def sample(call: Callable[[], object], repeats: int) -> float:
    """Nanoseconds of one call, as the mean of `repeats`."""
    if repeats == 1:
        start = perf_counter_ns()
        call()
        return float(perf_counter_ns() - start)
    numbers = range(repeats)
    start = perf_counter_ns()
    for _ in numbers:
        call()
    return (perf_counter_ns() - start) / repeats


def time_calls(call: Callable[[], object], seconds: float, fewest: int) -> list[float]:
    """Samples of `call` for about `seconds`, at least `fewest`, after warming up.

    The warm-up undoes what the contestant timed before did to caches and clock rate; a call that
    alone takes all of the time was warm for most of it, and is a sample. The garbage collector is
    off while samples are taken, as `timeit` has it.
    """
    first = sample(call, 1)
    if first > 1e9 * seconds:
        return [first, *(sample(call, 1) for _ in range(fewest - 1))]
    once = sample(call, 1)
    repeats = max(1, round(SAMPLE_NS / once)) if once < SAMPLE_NS else 1
    sample(call, repeats)
    samples: list[float] = []
    gc.collect()
    gc.disable()
    try:
        stop = perf_counter() + seconds
        while len(samples) < fewest or perf_counter() < stop:
            samples.append(sample(call, repeats))
    finally:
        gc.enable()
    return samples


def spend(call: Callable[[], object], seconds: float) -> dict[str, float]:
    """How many calls there were in about so many seconds, by the clock and of all threads."""
    call()
    begin, before, calls = perf_counter(), process_time(), 0
    while True:
        call()
        calls += 1
        if (wall := perf_counter() - begin) >= seconds:
            return {"calls": calls, "wall_s": wall, "cpu_s": process_time() - before}


def answers_apart() -> TextIO:
    """Standard output for the answers alone: what the libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def serve(benchmark: str, contestant: str, threads: int, size: str) -> None:
    """Answer requests until standard input ends."""
    answers = answers_apart()
    peers.pin(threads)
    cases: Mapping[str, Case] = {
        case.name: case for case in import_module(f"bench.{benchmark}").cases(size)
    }
    prepared: Prepared | None = None
    ready = False
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any]
        try:
            if not ready:
                peers.CONTESTANTS[contestant].prepare(threads)
                ready = True
            if request["do"] == "prepare":
                prepared = None  # frees what the last case held
                prepared, answer = prepare(cases[request["case"]], contestant)
                call = placement.waiting(prepared.call, contestant)
            elif request["do"] == "peak":
                answer = work.measured_peak()
            elif request["do"] == "spend":
                assert prepared is not None
                answer = dict(spend(call, request["seconds"]))
            else:
                assert prepared is not None
                samples = time_calls(call, request["seconds"], request["fewest"])
                answer = {"samples": samples}
        except Exception as error:  # a peer that fails is a line of the table, not the end
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
