"""Charts of the JSON files that benchmarks write: `python -m bench report RUN... -o page.html`.

Three kinds: bars beside the peers, a panel a case; curves over the number in which cases of one
name differ (`batch 1`, `batch 16`, ...); and how near each case comes to its floor, which is the
least that the machine could take for it (the roofline of the case). One page with the charts in it
as SVG that needs no network; `--png FOLDER` writes each chart as a picture.
"""

from __future__ import annotations

import argparse
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from bench.peers import FLOOR
from bench.report import MEMORY, TIME, US

#: A run as `bench.report.write_json` writes it, and one of its cases.
Run = Mapping[str, Any]
Case = Mapping[str, Any]

_COLOURS = {US: "#1f77b4", FLOOR: "#b0b0b0"}
_PEERS = ("#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2")
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>graphdl: benchmarks</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; }}
svg {{ max-width: 100%; height: auto; }} p {{ color: #555; }}</style></head><body>
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


def _colour(name: str, names: Sequence[str]) -> str:
    peers = [other for other in names if other not in _COLOURS]
    return _COLOURS.get(name) or _PEERS[peers.index(name) % len(_PEERS)]


def _names(cases: Sequence[Case]) -> list[str]:
    return list(dict.fromkeys(o["name"] for case in cases for o in timed(case)))


def charts(run: Run) -> Iterator[tuple[str, Any]]:
    """The charts of a run, by their names, as matplotlib figures."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    cases = [case for case in run["cases"] if timed(case)]
    if not cases:
        return
    names = _names(cases)
    figure, axes = pyplot.subplots(
        len(cases), 1, figsize=(8, 0.6 + 1.9 * len(cases)), squeeze=False
    )
    for axis, case in zip(axes[:, 0], cases, strict=True):
        measure = MEMORY if case.get("unit") == MEMORY.unit else TIME
        shown = timed(case)[::-1]
        bars = axis.barh(
            [outcome["label"] for outcome in shown],
            [outcome["median"] for outcome in shown],
            color=[_colour(outcome["name"], names) for outcome in shown],
        )
        axis.bar_label(bars, [measure.show(outcome["median"]) for outcome in shown], padding=3)
        axis.set_xscale("log")
        axis.set_xticks([], minor=True)
        axis.set_xticks([])
        axis.margins(x=0.15)
        axis.set_title(case["case"], loc="left", fontsize=10)
        axis.spines[["top", "right", "bottom"]].set_visible(False)
    figure.tight_layout()
    yield "bars", figure
    for number, (name, found) in enumerate(series(run).items()):
        figure, axis = pyplot.subplots(figsize=(7, 4))
        for who in _names([case for _, case in found]):
            points = [
                (n, o["median"]) for n, case in found for o in timed(case) if o["name"] == who
            ]
            axis.plot(*zip(*points, strict=True), "o-", label=who, color=_colour(who, names))
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel("#")
        axis.set_ylabel(f"median, {found[0][1].get('unit', TIME.unit)}")
        axis.set_title(name, loc="left", fontsize=10)
        axis.legend(frameon=False)
        figure.tight_layout()
        yield f"curve-{number}", figure
    floored = [case for case in cases if FLOOR in _names([case]) and US in _names([case])]
    if floored:
        figure, axis = pyplot.subplots(figsize=(8, 1 + 0.5 * len(floored)))
        for row, case in enumerate(reversed(floored)):
            medians = {outcome["name"]: outcome["median"] for outcome in timed(case)}
            for who, value in medians.items():
                if who != FLOOR:
                    share = medians[FLOOR] / value
                    axis.plot(share, row, "o", color=_colour(who, names), label=who)
        axis.axvline(1.0, color=_COLOURS[FLOOR], zorder=0)
        axis.set_yticks(range(len(floored)), [case["case"] for case in reversed(floored)])
        axis.set_xlabel("floor / time: 1 is the least that the machine could take")
        handles, labels = axis.get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        axis.legend(unique.values(), unique.keys(), frameon=False, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        figure.tight_layout()
        yield "roofline", figure


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
