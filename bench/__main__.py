"""`python -m bench` lists the benchmarks; `python -m bench NAME` runs one and prints its table."""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path

from bench import charts, gpu, placement, report
from bench.harness import Options
from bench.peers import CONTESTANTS

NAMES = (
    *("pointwise", "reduce", "rows", "matmul", "mlp", "conv", "recurrent", "attention"),
    *("optimiser", "stencil", "npbench", "overhead", "compile", "loaded", "memory"),
)


def subject(name: str) -> str:
    """The first line of a benchmark's docstring, which says what it asks."""
    return (import_module(f"bench.{name}").__doc__ or name).splitlines()[0]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    described = "\n".join(f"  {subject(name)}" for name in NAMES)
    arguments = argparse.ArgumentParser(
        prog="python -m bench",
        description=f"graphdl beside its peers, in one run.\n\n{described}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arguments.add_argument("name", nargs="?", choices=NAMES, help="which one to run")
    arguments.add_argument(
        "--target", default="cpu", help="cpu, or cuda or cuda:1: without a NAME, the whole suite"
    )
    arguments.add_argument("--threads", type=int, default=2, help="for every contestant (2)")
    arguments.add_argument("--json", type=Path, help="write all samples and the machine here")
    arguments.add_argument("--plot", type=Path, help="draw the medians here (needs matplotlib)")
    arguments.add_argument(
        "--only", default="", help=f"contestants, comma separated, of {', '.join(CONTESTANTS)}"
    )
    arguments.add_argument(
        "--cases", default="", metavar="WORDS", help="only cases with all these words in the name"
    )
    arguments.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    arguments.add_argument("--tiny", action="store_true", help="tiny inputs: does it all run?")
    return arguments


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    given = sys.argv[1:] if argv is None else argv
    if given[:1] == ["report"]:
        charts.main(given[1:])
        return
    arguments = parser()
    chosen = arguments.parse_args(argv)
    if chosen.name is None and chosen.target == "cpu":
        print("\n".join(subject(name) for name in NAMES))
        print("\nRun one with: python -m bench NAME   (--help for the options)")
        print("Draw what they wrote: python -m bench report runs/*.json -o report.html")
        return
    only = tuple(name for name in chosen.only.split(",") if name)
    unknown = [name for name in only if name not in CONTESTANTS]
    if unknown:
        arguments.error(f"no contestant {unknown[0]!r}; there are {', '.join(CONTESTANTS)}")
    if chosen.target != "cpu" and chosen.name in gpu.OF_THE_CPU:
        arguments.error(f"{chosen.name} measures the CPU's processes; leave --target away")
    if chosen.threads < 1:
        arguments.error(f"--threads {chosen.threads}: at least 1")
    size = "tiny" if chosen.tiny else "full"
    options = Options(chosen.threads, only, chosen.quick, size, chosen.cases, chosen.target)
    if chosen.target != "cpu":
        with placement.targeting(options.target):
            run_on_gpu(chosen, options)
        return
    found: report.Report = import_module(f"bench.{chosen.name}").run(options)
    print(report.text(found))
    if chosen.json is not None:
        report.write_json(found, chosen.json)
    if chosen.plot is not None:
        report.write_plot(found, chosen.plot)


def run_on_gpu(chosen: argparse.Namespace, options: Options) -> None:
    """One benchmark or all of them on a GPU; a suite cut short leaves what it had."""
    rates = gpu.rates(gpu.opened(options.target))
    print(gpu.rate_lines(rates) + "\n", flush=True)
    names = [name for name in NAMES if name not in gpu.OF_THE_CPU]
    results: list[dict[str, object]] = []
    for name in [chosen.name] if chosen.name else names:
        found: report.Report = import_module(f"bench.{name}").run(options)
        print(report.text(found) + "\n", flush=True)
        results.append(report.as_json(found))
        if chosen.json is not None:
            chosen.json.write_text(json.dumps({**rates, "benchmarks": results}, indent=1) + "\n")
        if chosen.plot is not None and chosen.name:
            report.write_plot(found, chosen.plot)


if __name__ == "__main__":
    main()
