"""loaded: by how much does work slow when a busy process takes half of every core?

Each contestant is timed alone and beside one busy process on each of its cores, in turns. What is
left to it is half of each core, so a call that takes 2 times as long has lost its share and no
more. One that takes longer has threads that wait for each other by spinning, or hands one thread
work that another one, whose turn comes later, holds up. A table at the end says how much processor
time a call takes, of all threads: threads that spin take more of it when they are disturbed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache

from bench import (
    attention,
    conv,
    harness,
    machine,
    mlp,
    overhead,
    pointwise,
    recurrent,
    report,
    rows,
)
from bench.cases import Case, Target
from bench.harness import Failed, Options, Worker
from bench.peers import CONTESTANTS

#: What a busy process does.
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    sum(range(100_000))"
#: The fair share, and a tenth for what schedulers cannot divide.
TARGET = Target(at_most=2.2)
#: So long a contestant is measured each time: many turns of a scheduler, a few milliseconds each.
SECONDS = {"full": 0.5, "tiny": 0.02}
SLOWDOWN = report.Measure(
    "times", "{:.2f} x".format, "best peer / it", "it / floor", "less slowdown than"
)


@cache
def cases(size: str) -> list[Case]:
    """Cases of other benchmarks: a sweep, rows, products, networks, loops, a call of 10 numbers."""
    if size == "tiny":
        chosen = {"mlp": mlp.case(mlp.WIDTHS[size], 4)}
    else:
        softmax = "softmax, 4096 x 1024, gradients"
        gradients = next(case for case in rows.cases(size) if case.name == softmax)
        chosen = {
            "pointwise": pointwise.cases(size)[0],
            "rows": gradients,
            "mlp 16": mlp.case(mlp.WIDTHS[size], 16),
            "mlp 1024": mlp.case(mlp.WIDTHS[size], 1024),
            "conv": conv.network_case(conv.NETWORKS[size][0]),
            "recurrent": recurrent.case(recurrent.Network("LSTM", 128, 32, 128), step=True),
            "attention": attention.case(attention.Block(2, 512, 256, 4), step=True),
            "overhead": overhead.cases(size)[0],
        }
    return [
        replace(case, name=f"{name.split()[0]}: {case.name}", targets=(TARGET,))
        for name, case in chosen.items()
    ]


# ------------------------------------------------------------------------------------- busy cores


class Load:
    """A busy process on each core, stopped until it is wanted."""

    def __init__(self, cores: Sequence[int]) -> None:
        self.processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in cores]
        for process, core in zip(self.processes, cores, strict=True):
            if hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(process.pid, {core})
            process.send_signal(signal.SIGSTOP)

    @contextmanager
    def on(self) -> Iterator[None]:
        """Let them run for a while."""
        self._send(signal.SIGCONT)
        try:
            yield
        finally:
            self._send(signal.SIGSTOP)

    def _send(self, number: int) -> None:
        for process in self.processes:
            process.send_signal(number)

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


# --------------------------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Spent:
    """Seconds of a call: by the clock, and of all threads together."""

    wall: float
    cpu: float


Pairs = Sequence[tuple[Spent, Spent]]


def spent(worker: Worker, seconds: float) -> Spent:
    """What a call takes now. Raises `Failed`."""
    answer = worker.ask(do="spend", seconds=seconds)
    return Spent(answer["wall_s"] / answer["calls"], answer["cpu_s"] / answer["calls"])


def run(options: Options) -> report.Report:
    """Measure every contestant of every case, alone and beside busy processes, in turns."""
    chosen = harness.chosen("loaded", cases(options.size), options)
    found: list[report.CaseReport] = []
    table = [["", "contestant", "alone", "loaded", "processor time alone", "loaded"]]
    with Load(machine.usable_cores()[: options.threads]) as load:
        for case in chosen:
            outcomes = []
            for name in harness.competing([case]):
                if not options.chooses(name):
                    continue
                outcome, pairs = measured(case, name, load, options)
                outcomes.append(outcome)
                table += [row(case.name, CONTESTANTS[name].label, pairs)] if pairs else []
            found.append(
                report.CaseReport(
                    case.name, case.floor_label, tuple(outcomes), case.targets, measure=SLOWDOWN
                )
            )
    remark = (
        "Times of a call, by the clock and of all threads, means of the round in which they were "
        f"least:\n\n{report.aligned(table)}"
    )
    return report.Report("loaded", options.threads, tuple(found), (remark,))


def measured(
    case: Case, name: str, load: Load, options: Options
) -> tuple[report.Outcome, list[tuple[Spent, Spent]]]:
    """One contestant in a process of its own: its slowdown in each round, and its times."""
    rounds = 3 if options.quick else 7
    pairs: list[tuple[Spent, Spent]] = []
    label = CONTESTANTS[name].label
    if not CONTESTANTS[name].installed:
        return report.Outcome(name, label, note="not installed"), []
    with Worker("loaded", name, options) as worker:
        outcome = harness.prepare(case, name, {name: worker})
        if outcome.note:
            return outcome, []
        try:
            for _ in range(rounds):
                alone = spent(worker, SECONDS[options.size])
                with load.on():
                    pairs.append((alone, spent(worker, SECONDS[options.size])))
        except Failed as failure:
            return replace(outcome, note=f"failed: {failure}"), []
    samples = tuple(loaded.wall / alone.wall for alone, loaded in pairs)
    outcome = replace(outcome, samples=samples)
    harness.progress(f"{case.name}: {outcome.label} {SLOWDOWN.show(outcome.median)}")
    return outcome, pairs


def row(case: str, label: str, pairs: Pairs) -> list[str]:
    """The times of one contestant, for the table of all."""
    sides = list(zip(*pairs, strict=True))
    walls = [min(one.wall for one in side) for side in sides]
    cpus = [min(one.cpu for one in side) for side in sides]
    return [case, label, *(report.show_time(1e9 * time) for time in (*walls, *cpus))]
