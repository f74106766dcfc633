"""Charts of the JSON files that benchmarks write: `python -m bench report RUN... -o page.html`.

Four kinds: bars beside the peers, a panel a case; curves over the number in which cases of one name
differ (`batch 1`, `batch 16`, ...); a roofline, with all contestants below what the machine did in
the same run; and how near each case comes to its floor, which is the least that the machine could
take for it. One page with the charts in it as SVG that needs no network; `--png FOLDER` writes each
chart as a picture.
"""

from __future__ import annotations

import argparse
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from math import log
from pathlib import Path
from typing import Any

from bench.peers import FLOOR
from bench.report import MEMORY, TIME, US, Measure

#: A run as `bench.report.write_json` writes it, and one of its cases.
Run = Mapping[str, Any]
Case = Mapping[str, Any]

_COLOURS = {US: "#1f77b4", FLOOR: "#b0b0b0"}
_PEERS = ("#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2")
#: Cases whose operations a byte differ by less than this part share a label.
NEAR = 0.1
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>graphdl: benchmarks</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; }}
svg {{ max-width: 100%; height: auto; }} p {{ color: #555; }}
@media (prefers-color-scheme: dark) {{
  body {{ background: #191919; color: #ddd; }} p {{ color: #aaa; }}
  svg {{ filter: invert(0.9) hue-rotate(180deg); }}
}}</style></head><body>
<h1>graphdl beside its peers</h1>
{parts}
</body></html>
"""


def read(paths: Sequence[Path]) -> list[Run]:
    """The runs in JSON files. Raises ValueError, naming the file, for one that is no run."""
    runs = []
    for path in paths:
        try:
            run = json.loads(path.read_text(encoding="utf-8"))
            run["benchmark"], run["cases"], run["threads"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is no run of a benchmark ({error}); "
                f"make one with: python -m bench NAME --json {path}"
            ) from None
        runs.append(run)
    return runs


def timed(case: Case) -> list[Mapping[str, Any]]:
    """The outcomes of a case that have samples."""
    return [outcome for outcome in case["outcomes"] if outcome.get("samples")]


def series(run: Run) -> dict[str, list[tuple[float, Case]]]:
    """Cases whose names differ in one number only, by the name without it, in its order.

    >>> cases = [{"case": f"batch {n}, adam"} for n in (16, 1, 128)] + [{"case": "other"}]
    >>> {name: [n for n, _ in found] for name, found in series({"cases": cases}).items()}
    {'batch #, adam': [1.0, 16.0, 128.0]}
    """
    found: dict[str, list[tuple[float, Case]]] = {}
    for case in run["cases"]:
        numbers = list(re.finditer(r"\d+(?:\.\d+)?", case["case"]))
        for number in numbers:
            name = case["case"][: number.start()] + "#" + case["case"][number.end() :]
            found.setdefault(name, []).append((float(number[0]), case))
    return {
        name: sorted(cases, key=lambda pair: pair[0])
        for name, cases in found.items()
        if len({number for number, _ in cases}) >= 3
    }


def charts(run: Run) -> Iterator[tuple[str, Any]]:
    """The charts of a run, by their names, as matplotlib figures."""
    import matplotlib

    matplotlib.use("Agg")
    cases = [case for case in run["cases"] if timed(case)]
    if not cases:
        return
    looks = _Looks.of(cases)
    yield "bars", _bars(cases, looks)
    for number, (name, found) in enumerate(series(run).items()):
        yield f"curve-{number}", _curve(name, found, looks)
    known = [case for case in cases if _has_work(case)]
    if known and run.get("peak"):
        yield "roofline", _roofline(run["peak"], known, looks)
    floored = [case for case in cases if {FLOOR, US} <= {o["name"] for o in timed(case)}]
    if floored:
        yield "floor", _floors(floored, looks)


class _Looks:
    """What contestants are called and how they are coloured, the same in all charts of a run."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        peers = [name for name in labels if name not in _COLOURS]
        self.labels = labels
        self.colours = _COLOURS | {name: _PEERS[i % len(_PEERS)] for i, name in enumerate(peers)}

    @classmethod
    def of(cls, cases: Sequence[Case]) -> _Looks:
        return cls({o["name"]: o.get("label", o["name"]) for case in cases for o in timed(case)})

    def legend(self, axis: Any, **options: Any) -> None:
        """Each contestant of an axis once, graphdl first."""
        handles, names = axis.get_legend_handles_labels()
        found = dict(zip(names, handles, strict=True))
        order = [name for name in self.labels if name in found]
        axis.legend(
            [found[name] for name in order],
            [self.labels[name] for name in order],
            frameon=False,
            fontsize=8,
            **options,
        )


def _measure(case: Case) -> Measure:
    return MEMORY if case.get("unit") == MEMORY.unit else TIME


def _has_work(case: Case) -> bool:
    work = case.get("work")
    return bool(work and work["bytes"] and work["flops"]) and _measure(case) is TIME


def _bars(cases: Sequence[Case], looks: _Looks) -> Any:
    """Medians beside each other: bars begin at zero, so a bar twice as long took twice as long."""
    from matplotlib import pyplot

    counts = [len(timed(case)) for case in cases]
    figure, axes = pyplot.subplots(
        len(cases),
        1,
        figsize=(8, 0.6 + sum(0.45 + 0.24 * count for count in counts)),
        squeeze=False,
        gridspec_kw={"height_ratios": [0.6 + count for count in counts]},
    )
    for axis, case in zip(axes[:, 0], cases, strict=True):
        measure, shown = _measure(case), timed(case)[::-1]
        bars = axis.barh(
            [outcome["label"] for outcome in shown],
            [outcome["median"] for outcome in shown],
            color=[looks.colours[outcome["name"]] for outcome in shown],
        )
        axis.bar_label(bars, [measure.show(outcome["median"]) for outcome in shown], padding=3)
        axis.set_xticks([])
        axis.margins(x=0.12, y=0.02)
        axis.set_title(case["case"], loc="left", fontsize=10)
        axis.spines[["top", "right", "bottom"]].set_visible(False)
    figure.tight_layout()
    return figure


def _curve(name: str, found: Sequence[tuple[float, Case]], looks: _Looks) -> Any:
    """Medians over the number in which the cases differ, both logarithmic."""
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, NullLocator

    measure = _measure(found[0][1])
    figure, axis = pyplot.subplots(figsize=(7, 4))
    for who in looks.labels:
        points = [(n, o["median"]) for n, case in found for o in timed(case) if o["name"] == who]
        if points:
            axis.plot(*zip(*points, strict=True), "o-", label=who, color=looks.colours[who])
    axis.set_xscale("log")
    axis.set_yscale("log")
    numbers = sorted({n for n, _ in found})
    axis.set_xticks(numbers, [f"{n:,g}" for n in numbers])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: measure.show(value)))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.grid(color="#e4e4e4", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.set_title(f"{name}, median over #", loc="left", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    looks.legend(axis)
    figure.tight_layout()
    return figure


def _roofline(peak: Mapping[str, Any], cases: Sequence[Case], looks: _Looks) -> Any:
    """Speed over operations a byte, of the same work: what graphdl's kernels move and compute.

    What is faster than memory allows finds its arrays in caches, or moves less than graphdl does.
    """
    from matplotlib import pyplot

    bandwidth = peak["bandwidth"]
    rates = {case["work"]["dtype"]: peak["flops"][case["work"]["dtype"]] for case in cases}
    intensity = [case["work"]["flops"] / case["work"]["bytes"] for case in cases]
    ridges = [rate / bandwidth for rate in rates.values()]
    low, high = min(intensity + ridges) / 6, max(intensity + ridges) * 3
    figure, axis = pyplot.subplots(figsize=(8, max(4.5, 1.2 + 0.17 * len(cases))))
    for dtype, rate in rates.items():
        axis.plot(
            [low, rate / bandwidth, high], [low * bandwidth, rate, rate], color="#555", zorder=1
        )
        above = rate == max(rates.values())
        axis.annotate(
            f"{rate / 1e9:.0f} GFLOP/s, {dtype}", (high, rate), (0, 3 if above else -3),
            textcoords="offset points", ha="right", va="bottom" if above else "top", fontsize=8,
        )  # fmt: skip
    axis.annotate(
        f"{bandwidth / 1e9:.1f} GB/s", (low * 1.2, low * 1.2 * bandwidth), (10, -4),
        textcoords="offset points", va="top", fontsize=8,
    )  # fmt: skip
    beside: list[tuple[float, list[int], float]] = []  # where cases stand, which, the fastest
    for number, (case, x) in enumerate(zip(cases, intensity, strict=True), 1):
        speeds = {
            outcome["name"]: case["work"]["flops"] / (outcome["median"] * 1e-9)
            for outcome in timed(case)
            if outcome["name"] != FLOOR
        }
        for who, speed in speeds.items():
            size = 7 if who == US else 4.5
            axis.plot(x, speed, "o", color=looks.colours[who], label=who, markersize=size, zorder=2)
        highest = max(speeds.values())
        near = next((i for i, (at, _, _) in enumerate(beside) if abs(log(x / at)) < NEAR), None)
        if near is None:
            beside.append((x, [number], highest))
        else:
            at, numbers, other = beside[near]
            beside[near] = at, [*numbers, number], max(other, highest)
    for x, numbers, highest in beside:
        axis.annotate(
            ", ".join(map(str, numbers)), (x, highest), (0, 6),
            textcoords="offset points", ha="center", fontsize=8,
        )  # fmt: skip
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlim(low, high)
    # room below the roof's lower end for its label, which else stands on the ticks
    axis.set_ylim(bottom=min(axis.get_ylim()[0], low * bandwidth / 3))
    axis.set_xlabel("operations a byte")
    axis.set_ylabel("operations a second")
    axis.grid(color="#e4e4e4", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.set_title("roofline: measured peaks of the same run", loc="left", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    looks.legend(axis, loc="best")
    listed = "\n".join(f"{i}  {_cut(case['case'])}" for i, case in enumerate(cases, 1))
    axis.text(1.02, 1.0, listed, transform=axis.transAxes, va="top", fontsize=7)
    figure.tight_layout()
    return figure


def _cut(text: str, limit: int = 44) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _floors(cases: Sequence[Case], looks: _Looks) -> Any:
    """How near each case is to the least time that the machine could take."""
    from matplotlib import pyplot

    lines = max(len(cases), 0.4 * len(looks.labels))  # of cases, or of what the legend needs
    figure, axis = pyplot.subplots(figsize=(8, 1 + 0.5 * lines))
    for row, case in enumerate(reversed(cases)):
        medians = {outcome["name"]: outcome["median"] for outcome in timed(case)}
        for who, value in medians.items():
            if who != FLOOR:
                axis.plot(medians[FLOOR] / value, row, "o", color=looks.colours[who], label=who)
    axis.axvline(1.0, color=_COLOURS[FLOOR], zorder=0)
    axis.set_xlim(left=0.0)
    axis.set_yticks(range(len(cases)), [_cut(case["case"]) for case in reversed(cases)])
    axis.set_ylim(-0.6, len(cases) - 0.4)
    axis.set_xlabel("floor / time: 1 is the least that the machine could take")
    looks.legend(axis, bbox_to_anchor=(1.01, 1.0), loc="upper left")
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return figure


def as_svg(figure: Any) -> str:
    """A figure as an SVG element, the same bytes at every run."""
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "graphdl", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    whole = text.getvalue()
    return whole[whole.index("<svg") :]


def page(runs: Sequence[Run], png: Path | None = None) -> str:
    """All charts of the runs as one HTML page; each also as a picture in the folder `png`."""
    from matplotlib import pyplot

    parts = []
    for run in runs:
        machine = run.get("machine", {})
        title = f"{run['benchmark']}, {run['threads']} threads"
        parts.append(f"<h2>{escape(title)}</h2>")
        parts.append(f"<p>{escape(str(machine.get('cpu', '')))} {escape(run.get('date', ''))}</p>")
        for name, figure in charts(run):
            if png is not None:
                png.mkdir(parents=True, exist_ok=True)
                figure.savefig(png / f"{run['benchmark']}-{name}.png", dpi=150)
            parts.append(as_svg(figure))
            pyplot.close(figure)
        lines = [line for case in run["cases"] for line in case.get("targets", [])]
        parts += [f"<p>{escape(line)}</p>" for line in lines]
    return _PAGE.format(parts="\n".join(parts))


def main(argv: Sequence[str]) -> None:
    """The command `python -m bench report`."""
    arguments = argparse.ArgumentParser(prog="python -m bench report", description=__doc__)
    arguments.add_argument("runs", nargs="+", type=Path, help="JSON files of benchmarks")
    arguments.add_argument("-o", "--output", type=Path, default=Path("report.html"))
    arguments.add_argument("--png", type=Path, metavar="FOLDER", help="pictures go here as well")
    chosen = arguments.parse_args(argv)
    try:
        runs = read(chosen.runs)
    except (OSError, ValueError) as error:
        arguments.error(str(error))
    chosen.output.write_text(page(runs, chosen.png), encoding="utf-8")
    print(chosen.output)
