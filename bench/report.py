"""What a run found, as a Markdown table, as JSON and as a picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from bench import machine
from bench.cases import Target
from bench.peers import CONTESTANTS, FLOOR, PACKAGES
from bench.work import Bound, Peak, Work, bound_of

US = "graphdl"
UNITS = ((1e9, "s"), (1e6, "ms"), (1e3, "us"), (1.0, "ns"))


@dataclass(frozen=True)
class Outcome:
    """One contestant in one case: its samples in the unit of the case, or why there are none."""

    name: str
    label: str
    note: str = ""
    difference: float | None = None
    samples: tuple[float, ...] = ()
    work: Work | None = None

    @property
    def median(self) -> float:
        return median(self.samples)

    @property
    def minimum(self) -> float:
        return min(self.samples)


def show_time(nanoseconds: float) -> str:
    """A time with a unit and three digits.

    >>> show_time(4_800_000), show_time(950), show_time(2.5e9)
    ('4.80 ms', '950 ns', '2.50 s')
    """
    size, unit = next(((s, u) for s, u in UNITS if nanoseconds >= s), UNITS[-1])
    return f"{three_digits(nanoseconds / size)} {unit}"


def show_bytes(count: float) -> str:
    """Bytes in MB with three digits.

    >>> show_bytes(123_400_000.0)
    '123 MB'
    """
    return f"{three_digits(count / 1e6)} MB"


def three_digits(value: float) -> str:
    """`value` to three significant digits without an exponent.

    >>> three_digits(0.1234), three_digits(12.34), three_digits(1234.0)
    ('0.123', '12.3', '1234')
    """
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{decimals}f}"


@dataclass(frozen=True)
class Measure:
    """What samples are: how one is shown, the heads of the ratios, the words of a target."""

    unit: str
    show: Callable[[float], str]
    beside_peers: str
    beside_floor: str
    target: str


TIME = Measure("ns", show_time, "speed / best peer", "time / floor", "the speed of")
MEMORY = Measure("bytes", show_bytes, "best peer / it", "it / floor", "less memory than")


@dataclass(frozen=True)
class CaseReport:
    """All contestants of one case. Ratios are taken of medians and of minima."""

    name: str
    floor_label: str
    outcomes: tuple[Outcome, ...]
    targets: tuple[Target, ...] = ()
    what: str = ""
    measure: Measure = TIME

    @property
    def work(self) -> Work | None:
        """What the case takes, as graphdl's program counts it."""
        return next((o.work for o in self.outcomes if o.work is not None), None)

    def timed(self, names: Sequence[str] = ()) -> list[Outcome]:
        """Outcomes with samples, of the contestants named (none named: all)."""
        return [o for o in self.outcomes if o.samples and (not names or o.name in names)]

    def best_peer(self, names: Sequence[str] = (), statistic: str = "median") -> Outcome | None:
        """The fastest peer, graphdl and the floor left out; of `names`, if any are given."""
        peers = [o for o in self.timed(names) if o.name not in (US, FLOOR)]
        return min(peers, key=lambda o: getattr(o, statistic), default=None)


@dataclass(frozen=True)
class Report:
    """A benchmark's cases, remarks that are no times, and what the machine did at best."""

    benchmark: str
    threads: int
    cases: tuple[CaseReport, ...]
    remarks: tuple[str, ...] = ()
    peak: Peak | None = None
    target: str = "cpu"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of `rows`, the first being the head; columns right-aligned but the first."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        rest = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        return "| " + " | ".join([first, *rest]) + " |"

    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (w + 1) + ":" for w in widths[1:])]) + "|"
    return "\n".join([line(rows[0]), rule, *(line(row) for row in rows[1:])])


def ratio(above: Outcome | None, below: Outcome | None) -> str:
    """The ratio of two medians, and in brackets that of the minima."""
    if above is None or below is None:
        return "-"
    return (
        f"{three_digits(above.median / below.median)} "
        f"({three_digits(above.minimum / below.minimum)})"
    )


def of_peak(outcome: Outcome, bound: Bound) -> str:
    """The share of peak arithmetic that a contestant reaches, by median and minimum."""
    return f"{bound.arithmetic / outcome.median:.0%} ({bound.arithmetic / outcome.minimum:.0%})"


def case_table(case: CaseReport, peak: Peak | None = None) -> str:
    """Median, minimum, speed relative to the best peer, time relative to the floor, error.

    Where arithmetic binds, also the share of the peak of multiply-adds that each one reaches.
    """
    measure = case.measure
    head = ["", "median", "minimum", measure.beside_peers, measure.beside_floor, "of peak", "error"]
    floors = case.timed((FLOOR,))
    floor = floors[0] if floors else None
    bound = bound_of(case.work, peak)
    binds = bound is not None and bound.binds == "arithmetic"
    rows = [head]
    for outcome in case.outcomes:
        if not outcome.samples:
            rows.append([outcome.label, "-", "-", "-", "-", "-", error(outcome)])
            continue
        label = f"floor: {case.floor_label}" if outcome.name == FLOOR else outcome.label
        rows.append(
            [
                label,
                measure.show(outcome.median),
                measure.show(outcome.minimum),
                ratio(case.best_peer(), outcome),
                ratio(outcome, floor),
                of_peak(outcome, bound) if bound and outcome.name != FLOOR else "-",
                error(outcome),
            ]
        )
    if not binds:
        rows = [[*row[:-2], row[-1]] for row in rows]
    if floor is None:
        rows = [[*row[:4], *row[5:]] for row in rows]
    if all(row[-1] == "-" for row in rows[1:]):
        rows = [row[:-1] for row in rows]
    notes = [f"{outcome.label}: {outcome.note}" for outcome in case.outcomes if outcome.note]
    return "\n".join([aligned(rows), *([""] if notes else []), *notes])


def error(outcome: Outcome) -> str:
    """The largest difference from float64, relative to the largest value; the floor has none."""
    if outcome.difference is None or outcome.name == FLOOR:
        return "-"
    return f"{outcome.difference:.1e}"


def target_lines(case: CaseReport) -> list[str]:
    """What was to be reached and what was, by medians and, in brackets, by minima."""
    ours = case.timed((US,))
    if not ours:
        return []
    return [line for target in case.targets if (line := target_line(case, ours[0], target))]


def target_line(case: CaseReport, ours: Outcome, target: Target) -> str:
    """One target's line; empty where what it is measured against did not run."""
    show = three_digits
    if target.microseconds is not None:
        by_median, by_minimum = ours.median / 1e3, ours.minimum / 1e3
        wanted, met = f"at most {target.microseconds:g} us", by_median <= target.microseconds
        near = by_minimum <= target.microseconds
    elif target.at_most is not None:
        by_median, by_minimum = ours.median, ours.minimum
        show = case.measure.show
        wanted, met = f"at most {show(target.at_most)}", by_median <= target.at_most
        near = by_minimum <= target.at_most
    elif target.of_floor and target.times is not None:
        floors = case.timed((FLOOR,))
        if not floors:
            return ""
        by_median = ours.median / floors[0].median
        by_minimum = ours.minimum / floors[0].minimum
        wanted, met = f"at most {target.times:g} x the floor", by_median <= target.times
        near = by_minimum <= target.times
    else:
        assert target.times is not None
        best = case.best_peer(target.peers)
        least = case.best_peer(target.peers, "minimum")
        if best is None or least is None:
            return ""
        by_median = best.median / ours.median
        by_minimum = least.minimum / ours.minimum
        of = " or ".join(CONTESTANTS[n].label for n in target.peers) or "the best peer"
        wanted, met = (
            f"at least {target.times:.3g} x {case.measure.target} {of}",
            by_median >= target.times,
        )
        near = by_minimum >= target.times
    verdict = "reached" if met else "reached by minima only" if near else "MISSED"
    return f"Target {wanted}: {show(by_median)} ({show(by_minimum)}), {verdict}."


def text(report: Report) -> str:
    """The whole report as Markdown."""
    blocks = []
    for case in report.cases:
        threads = f"{report.threads} thread" + ("s" if report.threads != 1 else "")
        where = threads if report.target == "cpu" else report.target
        blocks.append(f"### {report.benchmark}: {case.name} ({where})")
        if case.what:
            blocks.append(case.what)
        blocks.append(case_table(case, report.peak))
        lines = target_lines(case)
        if lines:
            blocks.append("\n".join(lines))
    if report.target != "cpu":
        blocks.append("\n".join(share_lines(report)))
    if report.peak is not None:
        blocks.append(peak_line(report.peak))
    blocks.extend(report.remarks)
    found = machine.describe(PACKAGES)
    versions = found["versions"]
    assert isinstance(versions, dict)
    blocks.append(
        f"{found['cpu']}, {found['cores']} cores, Python {found['python']}, "
        + ", ".join(f"{name} {number}" for name, number in versions.items())
        + ". Ratios are of medians, in brackets of minima; errors are against float64."
    )
    return "\n\n".join(blocks)


def peak_line(peak: Peak) -> str:
    """What the machine did at best in this run."""
    rates = ", ".join(f"{rate / 1e9:.0f} GFLOP/s in {name}" for name, rate in peak.flops.items())
    return (
        f"Peaks of this run: {rates} by multiply-adds in registers, a large copy at "
        f"{peak.bandwidth / 1e9:.1f} GB/s. `of peak` is shown where arithmetic binds; an "
        "elementary function counts as one operation."
    )


def share_lines(report: Report) -> list[str]:
    """How much of what the device can do graphdl reaches, case by case: the floor's time by its."""
    lines = ["Shares of the device's own rate, by medians and, in brackets, by minima:"]
    for case in report.cases:
        ours, floors = case.timed((US,)), case.timed((FLOOR,))
        if ours and floors:
            by_median = floors[0].median / ours[0].median
            by_minimum = floors[0].minimum / ours[0].minimum
            lines.append(f"- {case.name}: {by_median:.0%} ({by_minimum:.0%}) of {case.floor_label}")
    return lines


def as_json(report: Report) -> dict[str, Any]:
    """The report, the machine and the date; samples in the unit of each case."""
    cases = []
    for case in report.cases:
        outcomes = []
        for outcome in case.outcomes:
            record = asdict(outcome)
            del record["work"]  # of the case, whoever told it
            if outcome.samples:
                record |= {"median": outcome.median, "minimum": outcome.minimum}
            record["samples"] = [round(s, 1) for s in outcome.samples]
            outcomes.append(record)
        cases.append(
            {
                "case": case.name,
                "floor": case.floor_label,
                "unit": case.measure.unit,
                "work": None if case.work is None else asdict(case.work),
                "shares": shares(case, report.peak),
                "outcomes": outcomes,
                "targets": target_lines(case),
            }
        )
    return {
        "benchmark": report.benchmark,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "threads": report.threads,
        "target": report.target,
        "machine": machine.describe(PACKAGES),
        "peak": None if report.peak is None else asdict(report.peak),
        "cases": cases,
        "remarks": list(report.remarks),
    }


def shares(case: CaseReport, peak: Peak | None) -> dict[str, Any] | None:
    """What binds a case, its least times, and the shares of both peaks that graphdl reaches."""
    bound, ours = bound_of(case.work, peak), case.timed((US,))
    if bound is None or not ours:
        return None
    return {
        "binds": bound.binds,
        "arithmetic_ns": bound.arithmetic,
        "memory_ns": bound.memory,
        "of_peak_arithmetic": bound.arithmetic / ours[0].median,
        "of_copy": bound.memory / ours[0].median,
    }


def write_json(report: Report, path: Path) -> None:
    """Write `as_json(report)` to `path`."""
    path.write_text(json.dumps(as_json(report), indent=1) + "\n")


def write_plot(report: Report, path: Path) -> None:
    """Draw the medians as bars on a logarithmic axis, a panel a case; needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        len(report.cases), 1, figsize=(8, 0.9 + 2.3 * len(report.cases)), squeeze=False
    )
    for axis, case in zip(axes[:, 0], report.cases, strict=True):
        timed = case.timed()[::-1]
        colours = {US: "#1f77b4", FLOOR: "#bbbbbb"}
        bars = axis.barh(
            [outcome.label for outcome in timed],
            [outcome.median / 1e6 for outcome in timed],  # ms, MB
            color=[colours.get(outcome.name, "#ff9e4a") for outcome in timed],
        )
        axis.bar_label(bars, [case.measure.show(outcome.median) for outcome in timed], padding=3)
        axis.set_xscale("log")
        axis.margins(x=0.15)
        axis.set_title(f"{report.benchmark}: {case.name}", loc="left")
        axis.spines[["top", "right"]].set_visible(False)
    unit = "milliseconds" if report.cases[-1].measure is TIME else "MB"
    axes[-1, 0].set_xlabel(f"{unit}, median, {report.threads} threads")
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
