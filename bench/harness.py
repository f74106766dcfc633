"""Drives one worker a contestant: all results are compared first, then timed in turns.

Within a round every contestant has one slice of time; the next round starts with the next
contestant. So whatever else the machine does falls on all alike, and ratios within a run hold
where absolute times do not.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

from bench.cases import Case
from bench.peers import CONTESTANTS, FLOOR, environment
from bench.report import US, CaseReport, Outcome, Report
from bench.work import Peak, Work, better

ROOT = Path(__file__).resolve().parent.parent
# Idle threads of most pools spin for some milliseconds before they sleep; the next contestant
# starts after that.
PAUSE_S = 0.02
# To compile and run a case for the first time, and to be timed once.
PATIENCE_S = 180.0


@dataclass(frozen=True)
class Options:
    """What the command line chose.

    `size` is "full", or "tiny" to see only that all is well; a case runs if all words of
    `only_cases` are in its name; `target` is "cpu", "cuda" or "cuda:1".
    """

    threads: int = 2
    only: tuple[str, ...] = ()
    quick: bool = False
    size: str = "full"
    only_cases: str = ""
    target: str = "cpu"

    @property
    def rounds(self) -> int:
        return 3 if self.quick else 10

    @property
    def slice_s(self) -> float:
        return 0.05 if self.quick else 0.15

    @property
    def budget_s(self) -> float:
        """A contestant that has taken longer for a case than this misses the rounds left."""
        return 3 * self.rounds * self.slice_s

    def asks(self, case: str) -> bool:
        """Whether the case of this name runs."""
        return all(word in case for word in self.only_cases.split())

    def chooses(self, contestant: str) -> bool:
        """Whether `contestant` takes part; the floor always does."""
        if self.target != "cpu" and not CONTESTANTS[contestant].on_gpu:
            return False
        return not self.only or contestant in self.only or contestant == FLOOR


class Failed(Exception):
    """A worker's answer that it could not do what was asked, or that it is gone."""


class Worker:
    """A contestant's process, asked one thing at a time. A context manager: leaving it ends it.

    One that does not answer in time is ended, and the next question starts another.
    """

    def __init__(self, benchmark: str, contestant: str, options: Options) -> None:
        self.log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        command = [sys.executable, "-m", "bench.worker", benchmark, contestant]
        self.command = [*command, str(options.threads), options.size]
        self.variables = environment(options.threads, target=options.target)
        self.process = self.start()

    def start(self) -> subprocess.Popen[str]:
        """A new process."""
        return subprocess.Popen(
            self.command, cwd=ROOT, env=self.variables, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
        )  # fmt: skip

    def ask(self, patience_s: float = PATIENCE_S, **request: Any) -> dict[str, Any]:
        """The worker's answer. Raises `Failed` with its message."""
        if self.process.stdout is None or self.process.stdout.closed:
            self.process = self.start()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            if not select.select([self.process.stdout], [], [], patience_s)[0]:
                self.end(patience_s=0.0)
                raise Failed(f"no answer within {patience_s:g} s")
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise Failed(f"its process ended: {self.last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def last_words(self) -> str:
        """The last line the process wrote to standard error."""
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else f"exit status {self.process.poll()}"

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.end(patience_s=5.0)
        self.log.close()

    def end(self, patience_s: float) -> None:
        """Close the process's input, which ends it once it listens; kill it if it does not."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        try:
            self.process.wait(timeout=patience_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Named(Protocol):
    """What `--cases` chooses among."""

    @property
    def name(self) -> str: ...


AnyNamed = TypeVar("AnyNamed", bound=Named)


def chosen(benchmark: str, every: Sequence[AnyNamed], options: Options) -> list[AnyNamed]:
    """The cases that the options ask for. Raises SystemExit, with all there are, if none is."""
    found = [case for case in every if options.asks(case.name)]
    if not found:
        there = "\n  ".join(case.name for case in every)
        words = options.only_cases
        raise SystemExit(f"no case of {benchmark} has all words of {words!r}; it has\n  {there}")
    return found


def race(benchmark: str, cases: Sequence[Case], options: Options) -> Report:
    """Run every case of a benchmark and report on it."""
    cases = chosen(benchmark, cases, options)
    names = [name for name in competing(cases) if options.chooses(name)]
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(Worker(benchmark, name, options))
            for name in names
            if CONTESTANTS[name].installed
        }
        before = peak(workers) if options.target == "cpu" else None
        reports = [run_case(case, names, workers, options) for case in cases]
        found = better(before, peak(workers)) if options.target == "cpu" else None
    return Report(benchmark, options.threads, tuple(reports), peak=found, target=options.target)


def peak(workers: Mapping[str, Worker]) -> Peak | None:
    """What the machine can do, measured by graphdl's worker; None where it does not take part."""
    if US not in workers:
        return None
    with suppress(Failed):
        return Peak(**workers[US].ask(do="peak"))
    return None


def competing(cases: Iterable[Case]) -> list[str]:
    """Names of the contestants of any of `cases`, in the order of the table."""
    return [name for name in CONTESTANTS if any(name in case.builders for case in cases)]


def run_case(
    case: Case, names: Sequence[str], workers: Mapping[str, Worker], options: Options
) -> CaseReport:
    """Compare all contestants of one case, then time those whose results are right."""
    outcomes = {name: prepare(case, name, workers) for name in names if name in case.builders}
    ready = [name for name, outcome in outcomes.items() if not outcome.note]
    samples: dict[str, list[float]] = {name: [] for name in ready}
    spent = dict.fromkeys(ready, 0.0)
    for turn in range(options.rounds):
        for place in range(len(ready)):
            name = ready[(turn + place) % len(ready)]
            time.sleep(PAUSE_S)
            start = time.perf_counter()
            try:
                answer = workers[name].ask(do="time", seconds=options.slice_s, fewest=2)
                samples[name] += answer["samples"]
            except Failed as failure:
                outcomes[name] = replace(outcomes[name], note=f"failed: {failure}")
            spent[name] += time.perf_counter() - start
        ready = [n for n in ready if not outcomes[n].note and spent[n] < options.budget_s]
        progress(f"{case.name}: round {turn + 1} of {options.rounds}")
    for name, found in samples.items():
        if not outcomes[name].note:
            outcomes[name] = replace(outcomes[name], samples=tuple(found))
    return CaseReport(case.name, case.floor_label, tuple(outcomes.values()), case.targets)


def prepare(case: Case, name: str, workers: Mapping[str, Worker]) -> Outcome:
    """Have one contestant build the case and compare; what hinders it becomes the note."""
    outcome = Outcome(name, CONTESTANTS[name].label)
    if name not in workers:
        return replace(outcome, note="not installed")
    try:
        answer = workers[name].ask(do="prepare", case=case.name)
    except Failed as failure:
        progress(f"{case.name}: {outcome.label} failed: {failure}")
        return replace(outcome, note=f"failed: {failure}")
    progress(
        f"{case.name}: {outcome.label} ready in {answer['first_call_s']:.2f} s, "
        f"differs by {answer['difference']:.1e}"
    )
    outcome = replace(outcome, difference=answer["difference"])
    if "work" in answer:
        outcome = replace(outcome, work=Work(**answer["work"]))
    if not answer["agrees"]:
        note = f"wrong: differs by {answer['difference']:.1e}, allowed {case.tolerance:.0e}"
        return replace(outcome, note=note)
    return outcome


def progress(text: str) -> None:
    """One line for whoever waits; standard output carries only the tables."""
    print(text, file=sys.stderr, flush=True)
