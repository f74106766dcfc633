"""compile: how long until the first step of `mlp` at batch 128, in a new process.

Cold, with every cache empty, and in a second process that finds what the first one left. The time
runs from before the interpreter starts until the loss of the first step is there, so imports count
for everyone. Then the same process meets a new batch size. Then, once each, the first results of a
step of LeNet-5, of an LSTM by scan, of a transformer block, and of 1,000 and 10,000 nodes in a row.
A contestant that has no result within the time limit is ended, and its line says so. The floor is a
process that imports NumPy.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter

from bench import harness, mlp, report, starts
from bench.cases import Target
from bench.peers import CONTESTANTS, FLOOR, environment

BATCHES = {"full": (128, 48), "tiny": (4, 3)}
# Contestants that take longer than this from start to result are run once, not in every round.
PATIENCE_S = 15.0
#: A process that has no result by then is ended: in full, and if quick.
TIME_LIMITS_S = (240.0, 60.0)
#: What a second process of graphdl is to take at the most, in nanoseconds.
SECOND_PROCESS = Target(at_most=0.4e9)

# What a compiler leaves in its cache for every kernel or executable it has built.
COMPILED = {
    "graphdl": "**/*.o",
    "jax": "**/*-cache",
    "torch-compile": "**/*.so",
    "pytensor": "**/*.nbc",
}


@dataclass(frozen=True)
class Start:
    """One process: seconds to the first result, its parts, and what a new batch size cost."""

    total_s: float
    import_s: float = 0.0
    first_call_s: float = 0.0
    second_call_s: float = 0.0
    other_batch_s: float = 0.0
    stages: Mapping[str, float] = field(default_factory=dict)
    compiled: int | None = None
    compiled_for_other_batch: int | None = None
    most_bytes: int = 0
    imports_numba: bool = False


#: The cold and the second process of each turn, by contestant.
Pairs = dict[str, list[tuple[Start, Start]]]


def compiled_in(contestant: str, caches: Path) -> int | None:
    """How many kernels or executables lie in the caches; None where the library leaves none."""
    pattern = COMPILED.get(contestant)
    return None if pattern is None else sum(1 for _ in caches.glob(pattern))


def start(contestant: str, caches: Path, options: harness.Options, program: str = "") -> Start:
    """Run one process of `mlp`, or of one of `starts.programs`.

    Raises `harness.Failed` where it does not come to a result in time.
    """
    if contestant == FLOOR:
        begin = perf_counter()
        variables = environment(options.threads, caches)
        subprocess.run([sys.executable, "-c", "import numpy"], env=variables, check=True)
        return Start(perf_counter() - begin)
    what = [program] if program else [str(count) for count in BATCHES[options.size]]
    command = [sys.executable, "-m", "bench.first_result", contestant]
    with tempfile.TemporaryFile() as log:
        begin = perf_counter()
        process = subprocess.Popen(
            [*command, str(options.threads), options.size, *what],
            cwd=harness.ROOT, env=environment(options.threads, caches), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        with process:
            limit = TIME_LIMITS_S[options.quick]
            if not select.select([process.stdout], [], [], limit)[0]:
                process.kill()
                raise harness.Failed(f"no result within {limit:g} s")
            first = process.stdout.readline()
            total = perf_counter() - begin
            if not first:
                log.seek(0)
                words = log.read().decode(errors="replace").strip().splitlines()
                raise harness.Failed(words[-1][:200] if words else "no result")
            second = process.stdout.readline()
            before = compiled_in(contestant, caches)
            with suppress(BrokenPipeError):
                process.stdin.write("\n")
                process.stdin.flush()
            third = process.stdout.readline()
        after = compiled_in(contestant, caches)
    figures = {**json.loads(first), **json.loads(second or "{}"), **json.loads(third or "{}")}
    new = None if before is None or after is None else after - before
    return Start(total, **figures, compiled=before, compiled_for_other_batch=new)


def both(contestant: str, options: harness.Options, program: str = "") -> tuple[Start, Start]:
    """A cold process and the one after it, in caches of their own."""
    what = f"{program or 'mlp'}, {CONTESTANTS[contestant].label}"
    if contestant != FLOOR:
        harness.progress(f"{what}: starts cold")
    with tempfile.TemporaryDirectory() as folder:
        caches = Path(folder)
        cold = start(contestant, caches, options, program)
        warm = start(contestant, caches, options, program)
    harness.progress(f"{what}: cold {cold.total_s:.2f} s, second {warm.total_s:.2f} s")
    return cold, warm


def warm_up(module: str, options: harness.Options) -> None:
    """Read a library's files once, and give graphdl the byte code that an installer would.

    So no one pays for the disk, and a checkout is on a par with installed wheels.
    """
    import_it = f"import {module}"
    if module == "graphdl":
        import_it += "; import compileall; compileall.compile_dir(graphdl.__path__[0], quiet=2)"
    variables = environment(options.threads)
    subprocess.run([sys.executable, "-c", import_it], cwd=harness.ROOT, env=variables, check=True)


def run(options: harness.Options) -> report.Report:
    """Run all contestants in turns."""
    rounds = 1 if options.quick else 5
    names = [name for name in (*mlp.TRAINERS, FLOOR) if options.chooses(name)]
    notes: dict[str, str] = {}
    found: Pairs = {name: [] for name in names}
    for name in names:
        if not CONTESTANTS[name].installed:
            notes[name] = "not installed"
        else:
            warm_up(CONTESTANTS[name].module, options)
    for turn in range(rounds):
        for place in range(len(names)):
            name = names[(turn + place) % len(names)]
            slow = found[name] and found[name][0][0].total_s > PATIENCE_S
            if name in notes or slow:
                continue
            try:
                found[name].append(both(name, options))
            except (harness.Failed, subprocess.SubprocessError) as failure:
                notes[name] = f"failed: {failure}"
    others = program_pairs(names, options)
    cases = [
        case("cold: start of Python to first result, caches empty", 0, found, notes),
        case("second process: start of Python to first result", 1, found, notes),
    ]
    for program, (pairs, why) in others.items():
        cases.append(case(f"{program}, cold", 0, pairs, why))
        cases.append(case(f"{program}, second process", 1, pairs, why))
    measured = {program: pairs for program, (pairs, _) in others.items()}
    return report.Report(
        "compile",
        options.threads,
        tuple(cases),
        (parts(found), *program_parts(measured), *per_node(measured)),
    )


def program_pairs(
    names: Sequence[str], options: harness.Options
) -> dict[str, tuple[Pairs, dict[str, str]]]:
    """A cold and a second process of each contestant for each program, and why there are none."""
    every: dict[str, tuple[Pairs, dict[str, str]]] = {}
    for program, made in starts.programs(options.size).items():
        if not options.asks(program):
            continue
        found: Pairs = {}
        notes: dict[str, str] = {}
        for name in names:
            if name not in made.builders:
                continue
            found[name] = []
            if not CONTESTANTS[name].installed:
                notes[name] = "not installed"
                continue
            try:
                found[name].append(both(name, options, program))
            except (harness.Failed, subprocess.SubprocessError) as failure:
                notes[name] = f"failed: {failure}"
        every[program] = found, notes
    return every


def case(name: str, which: int, found: Pairs, notes: Mapping[str, str]) -> report.CaseReport:
    """The cold (0) or the second (1) processes of all contestants."""
    outcomes = [
        report.Outcome(
            contestant,
            CONTESTANTS[contestant].label,
            note=notes.get(contestant, ""),
            samples=tuple(1e9 * pair[which].total_s for pair in pairs),
        )
        for contestant, pairs in found.items()
    ]
    targets = (Target(times=2.0 if which else 1.0, peers=("jax",)),)
    if which:
        targets += (SECOND_PROCESS,)
    return report.CaseReport(name, 'python -c "import numpy"', tuple(outcomes), targets)


def parts(found: Pairs) -> str:
    """A table of what the totals are made of, in medians."""
    rows = [
        ["", "import", "first call, cold", "second process", "kernels", "new batch size", "kernels"]
    ]

    def middle(starts: list[Start], field: str) -> str:
        return report.show_time(1e9 * median(getattr(start, field) for start in starts))

    def count(number: int | None) -> str:
        return "-" if number is None else str(number)

    for name, pairs in found.items():
        if name == FLOOR or not pairs:
            continue
        cold, warm = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        rows.append(
            [
                CONTESTANTS[name].label,
                middle(warm, "import_s"),
                middle(cold, "first_call_s"),
                middle(warm, "first_call_s"),
                count(cold[-1].compiled),
                middle(cold, "other_batch_s"),
                count(cold[-1].compiled_for_other_batch),
            ]
        )
    return (
        "What the times are made of: the import; the first call in a cold and in a second process; "
        "kernels compiled for it; the first call with a new batch size; kernels compiled for that."
        "\n\n" + report.aligned(rows) + stages(found)
    )


def stages(found: Pairs) -> str:
    """The medians of the stages of a cold first call and of a second process's."""
    lines = []
    for name, pairs in found.items():
        for which, words in ((0, "cold"), (1, "in a second process")):
            runs = [pair[which].stages for pair in pairs if pair[which].stages]
            if runs:
                medians = (
                    f"{stage} {report.show_time(1e9 * median(run.get(stage, 0.0) for run in runs))}"
                    for stage in runs[0]
                )
                lines.append(f"{CONTESTANTS[name].label}, {words}: {', '.join(medians)}.")
    return "".join(f"\n\n{line}" for line in lines)


#: What the table of all programs says of graphdl: phases of `Executable.seconds`.
PHASES = ("trace", "passes", "emit", "kernels")


def program_parts(measured: Mapping[str, Pairs]) -> list[str]:
    """A table of graphdl's first calls, cold and in second processes, where it took part."""
    head = ["", *(f"{phase}, cold" for phase in PHASES), "trace, second", "plan", "Numba"]
    rows = [head]
    for program, found in measured.items():
        for cold, second in found.get(report.US, []):
            rows.append(
                [
                    program,
                    *(phase_time(cold, phase) for phase in PHASES),
                    *(phase_time(second, phase) for phase in ("trace", "plan")),
                    "imported" if second.imports_numba else "not imported",
                ]
            )
    if len(rows) == 1:
        return []
    return [
        "What graphdl's first calls take: tracing, passes, lowering, compiling in a cold process; "
        "tracing and finding the program in a second one; and whether that imports Numba."
        f"\n\n{report.aligned(rows)}"
    ]


def phase_time(start: Start, phase: str) -> str:
    return report.show_time(1e9 * start.stages[phase]) if phase in start.stages else "-"


def per_node(measured: Mapping[str, Pairs]) -> list[str]:
    """How much more ten times the nodes in a row take, of first calls and of memory."""
    counts = [int(name.split()[0].replace(",", "")) for name in measured if "nodes" in name]
    if len(counts) < 2:
        return []
    few, many = counts[0], counts[-1]
    short, long = (measured[f"{count:,} nodes in a row"] for count in (few, many))
    rows = [["", "cold", "second process", "memory, cold", "memory, second"]]
    for name in short:
        if name == FLOOR or not short[name] or not long.get(name):
            continue
        cells = [CONTESTANTS[name].label]
        for which in (0, 1):
            one, ten = short[name][0][which], long[name][0][which]
            each = (ten.first_call_s - one.first_call_s) / (many - few)
            ratio = report.three_digits(ten.first_call_s / one.first_call_s)
            cells.append(f"{report.show_time(1e9 * each)}, {ratio} x")
        for which in (0, 1):
            one, ten = short[name][0][which], long[name][0][which]
            cells.append(f"{(ten.most_bytes - one.most_bytes) / (many - few) / 1e3:.1f} kB")
        rows.append(cells)
    return [
        f"What a node more takes, from {few:,} to {many:,} in a row: time of the first call, which "
        f"is so many times as long, and peak memory of the process.\n\n{report.aligned(rows)}"
    ]
