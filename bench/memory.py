"""memory: peak resident memory of training steps, in a process of its own each.

A first process leaves what it has compiled in its caches. The second builds the contestant and
takes a step; then the peak is forgotten (Linux can do that), three more steps are taken, and the
peak is read: the library, the inputs, the parameters and what a step needs, without what only a
compiler needs. The floor is a process that has imported NumPy and made the inputs. Values are
compared where these steps are timed.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median

from bench import attention, conv, harness, mlp, recurrent, reduce, report
from bench.cases import Case, Target
from bench.peers import CONTESTANTS, FLOOR, environment

#: The best peer's peak is to be at least so many times ours.
TARGET = Target(times=1 / 0.6)
STEPS = 3
TIME_LIMIT_S = 300.0


@dataclass(frozen=True)
class Subject:
    """A case of another benchmark whose memory is measured."""

    benchmark: str
    case: Case

    @property
    def name(self) -> str:
        return f"{self.benchmark}: {self.case.name}"


@cache
def subjects(size: str) -> tuple[Subject, ...]:
    """Training steps, and work on pairs whose array of pairs need not exist."""
    if size == "tiny":
        (block,) = attention.BLOCKS["tiny"]
        return (Subject("attention", attention.case(block, step=True)),)
    long = attention.Block(1, 4096, 256, 4)
    return (
        *(Subject("mlp", mlp.case(mlp.WIDTHS[size], batch)) for batch in (128, 1024)),
        *(Subject("conv", conv.network_case(network)) for network in conv.NETWORKS[size]),
        Subject("recurrent", recurrent.case(recurrent.Network("LSTM", 128, 32, 512), step=True)),
        *(
            Subject("attention", attention.case(block, step=True))
            for block in (*attention.BLOCKS[size], long)
        ),
        Subject("reduce", reduce.pairs_case("sum over j of tanh(x_i y_j)", size, reduce.PULLBACK)),
    )


@dataclass(frozen=True)
class Peak:
    """Bytes resident with imports and inputs in place, and at the most while steps were taken."""

    before: int
    most: int


def resident(field: str) -> int:
    """VmRSS or VmHWM of this process in bytes; without /proc, the peak since its start."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def forget_peak() -> None:
    """Let VmHWM start again from what is resident now (man 5 proc, clear_refs)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def measured(subject: Subject, contestant: str, threads: int) -> Peak:
    """The peak of this process."""
    inputs = subject.case.inputs()
    CONTESTANTS[contestant].prepare(threads)
    __import__(CONTESTANTS[contestant].module)
    before = resident("VmRSS")
    if contestant == FLOOR:
        return Peak(before, before)
    call: Callable[[], object] = subject.case.builders[contestant](inputs).call
    call()
    forget_peak()
    for _ in range(STEPS):
        call()
    return Peak(before, resident("VmHWM"))


def in_a_process(subject: Subject, contestant: str, options: harness.Options, caches: Path) -> Peak:
    """The peak of a process of its own. Raises `harness.Failed` where it does not end well."""
    command = [sys.executable, "-m", "bench.memory", contestant, subject.name]
    try:
        ended = subprocess.run(
            [*command, str(options.threads), options.size],
            cwd=harness.ROOT, env=environment(options.threads, caches), text=True,
            capture_output=True, timeout=TIME_LIMIT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise harness.Failed(f"no result within {TIME_LIMIT_S:g} s") from None
    if ended.returncode:
        words = ended.stderr.strip().splitlines()
        raise harness.Failed(words[-1][:200] if words else f"exit status {ended.returncode}")
    return Peak(**json.loads(ended.stdout.splitlines()[-1]))


def run(options: harness.Options) -> report.Report:
    """Measure every contestant of every subject, once if quick, else three times."""
    chosen = harness.chosen("memory", subjects(options.size), options)
    cases, rows = [], []
    for subject in chosen:
        outcomes = []
        for name in harness.competing([subject.case]):
            if not options.chooses(name):
                continue
            outcome, peaks = measured_outcome(subject, name, options)
            outcomes.append(outcome)
            if peaks and name != FLOOR:
                grown = median(peak.most - peak.before for peak in peaks)
                rows.append([subject.name, CONTESTANTS[name].label, report.show_bytes(grown)])
        cases.append(
            report.CaseReport(
                subject.name,
                "NumPy and the inputs",
                tuple(outcomes),
                (TARGET,),
                measure=report.MEMORY,
            )
        )
    return report.Report("memory", options.threads, tuple(cases), (growth(rows),))


def measured_outcome(
    subject: Subject, name: str, options: harness.Options
) -> tuple[report.Outcome, list[Peak]]:
    """The peaks of one contestant, or a note why there are none."""
    label = CONTESTANTS[name].label
    if not CONTESTANTS[name].installed:
        return report.Outcome(name, label, note="not installed"), []
    try:
        with tempfile.TemporaryDirectory() as folder:
            times = range(2 if options.quick else 4)
            peaks = [in_a_process(subject, name, options, Path(folder)) for _ in times][1:]
    except harness.Failed as failure:
        return report.Outcome(name, label, note=f"failed: {failure}"), []
    samples = tuple(float(peak.most) for peak in peaks)
    harness.progress(f"{subject.name}: {label} {report.show_bytes(median(samples))}")
    return report.Outcome(name, label, samples=samples), peaks


def growth(rows: Sequence[Sequence[str]]) -> str:
    """A table of the peaks without the libraries and the inputs."""
    head = ["", "contestant", "above imports and inputs"]
    return (
        "How far the peaks are above what is resident before the contestant is built, its library "
        f"imported and the inputs made:\n\n{report.aligned([head, *rows])}"
    )


def main(contestant: str, name: str, threads: int, size: str) -> None:
    """Measure in this process and print the peak."""
    (subject,) = (subject for subject in subjects(size) if subject.name == name)
    peak = measured(subject, contestant, threads)
    print(json.dumps({"before": peak.before, "most": peak.most}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
