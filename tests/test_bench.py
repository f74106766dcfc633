"""The benchmarks, untimed: all contestants compute the same values; the tables are right."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import compile as bench_compile
from bench import harness, loaded, mlp, overhead, pointwise, report
from bench.__main__ import NAMES, main
from bench.cases import Case, Target, largest_difference
from bench.peers import CONTESTANTS, environment
from bench.report import CaseReport, Outcome, Report
from bench.work import Peak, Work

TINY = [case for module in (pointwise, overhead, mlp) for case in module.cases("tiny")]
DERIVED = [case for case in TINY if "gradient" in case.name]
# The contestants that answer within a second. The builders of the others are those of `torch` and
# of any graph compiler; their first calls take from five seconds to a minute.
QUICK = ("graphdl", "jax", "torch", "autograd", "floor")


@pytest.mark.parametrize("benchmark_name", ["pointwise", "overhead", "mlp"])
def test_contestants_agree(benchmark_name: str) -> None:
    options = harness.Options(only=QUICK, quick=True, size="tiny")
    module = {"pointwise": pointwise, "overhead": overhead, "mlp": mlp}[benchmark_name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness.Options, "rounds", 1)
        patch.setattr(harness.Options, "slice_s", 0.0)
        found = module.run(options)
    assert [outcome.name for outcome in found.cases[0].outcomes] == list(QUICK)
    for case in found.cases:
        for outcome in case.outcomes:
            if outcome.note != "not installed":
                assert outcome.note == "", f"{case.name}: {outcome.label}"
                assert len(outcome.samples) >= 2
    assert "### " + benchmark_name in report.text(found)


@pytest.mark.parametrize("case", DERIVED, ids=lambda case: case.name)
def test_expected_gradient_is_the_derivative(case: Case) -> None:
    """The oracles are written by hand: check those with a gradient by central differences."""
    inputs = {name: value.astype(np.float64) for name, value in case.inputs().items()}
    _, *gradients = case.expected(inputs)
    rng = np.random.default_rng(3)
    for name, gradient in zip(inputs, gradients, strict=True):
        direction = rng.standard_normal(gradient.shape)
        ends = [
            case.expected({**inputs, name: inputs[name] + step * direction})[0]
            for step in (1e-6, -1e-6)
        ]
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(
            np.sum(gradient * direction), rel=1e-6, abs=1e-5
        )


def test_expected_step_goes_down_the_gradient() -> None:
    inputs = mlp.inputs(mlp.WIDTHS["tiny"], 4)
    before = [p.astype(np.float64) for p in inputs["parameters"]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlp, "COMPARED_STEPS", 1)
        losses, *after = mlp.expected({**inputs, "parameters": before})
        gradients = [(b - a) / mlp.RATE for b, a in zip(before, after, strict=True)]
        rng = np.random.default_rng(3)
        for index, gradient in enumerate(gradients):
            direction = rng.standard_normal(gradient.shape)
            ends = []
            for step in (1e-6, -1e-6):
                moved = list(before)
                moved[index] = before[index] + step * direction
                ends.append(mlp.expected({**inputs, "parameters": moved})[0][0])
            slope = (ends[0] - ends[1]) / 2e-6
            assert slope == pytest.approx(np.sum(gradient * direction), rel=1e-5)
    assert losses.shape == (1,)


def test_inputs_are_the_same_in_every_process() -> None:
    for case in TINY:
        first, second = case.inputs(), case.inputs()
        for name in first:
            np.testing.assert_equal(first[name], second[name])


def test_largest_difference() -> None:
    one = np.array([1.0, -4.0])
    assert largest_difference([one], [one]) == 0
    assert largest_difference([one + np.array([0, 0.4])], [one]) == pytest.approx(0.1)
    assert largest_difference([], [one]) == float("inf")
    assert largest_difference([one[:1]], [one]) == float("inf")
    assert largest_difference([one * np.nan], [one]) == float("inf")
    assert largest_difference([np.zeros(0)], [np.zeros(0)]) == 0


def example() -> Report:
    """graphdl five times faster than JAX, 1.2 times the floor; one failed, one missing."""
    outcomes = (
        Outcome("graphdl", "graphdl", difference=1e-7, samples=(12e6, 10e6, 14e6)),
        Outcome("jax", "JAX", difference=1e-7, samples=(60e6, 50e6, 70e6)),
        Outcome("torch", "PyTorch", note="not installed"),
        Outcome("autograd", "autograd", note="failed: ValueError: no"),
        Outcome("floor", "floor", samples=(10e6, 9e6, 11e6)),
    )
    targets = (
        Target(times=5),
        Target(times=6, peers=("jax",)),
        Target(times=5, peers=("torch",)),
        Target(times=1.15, of_floor=True),
        Target(microseconds=3),
    )
    return Report("pointwise", 2, (CaseReport("values", "a copy", outcomes, targets),), ("End.",))


def test_share_of_peak_is_shown_where_arithmetic_binds() -> None:
    """20 operations a byte: 1.2 G in 12 ms are half of 200 G a second."""
    found = example()
    peak = Peak(10e9, {"float32": 2e11})
    case = found.cases[0]
    worked = replace(case.outcomes[0], work=Work(60_000_000, 1_200_000_000, "float32"))
    bound = replace(case, outcomes=(worked, *case.outcomes[1:]))
    rows = [line.split("|") for line in report.case_table(bound, peak).splitlines()[:3]]
    assert [rows[0][6].strip(), rows[2][6].strip()] == ["of peak", "50% (60%)"]
    shares = report.as_json(replace(found, cases=(bound,), peak=peak))["cases"][0]["shares"]
    assert shares["binds"] == "arithmetic"
    assert shares["of_peak_arithmetic"] == pytest.approx(0.5)
    assert shares["of_copy"] == pytest.approx(0.5)
    light = replace(worked, work=Work(80_000_000, 1_200_000_000, "float32"))
    moved = replace(case, outcomes=(light, *case.outcomes[1:]))
    assert "of peak" not in report.case_table(moved, peak)
    assert "of peak" not in report.case_table(case, peak)


def test_table() -> None:
    text = report.text(example())
    assert text.splitlines()[:9] == [
        "### pointwise: values (2 threads)",
        "",
        "|               |  median | minimum | speed / best peer | time / floor |   error |",
        "|---------------|--------:|--------:|------------------:|-------------:|--------:|",
        "| graphdl       | 12.0 ms | 10.0 ms |       5.00 (5.00) |  1.20 (1.11) | 1.0e-07 |",
        "| JAX           | 60.0 ms | 50.0 ms |       1.00 (1.00) |  6.00 (5.56) | 1.0e-07 |",
        "| PyTorch       |       - |       - |                 - |            - |       - |",
        "| autograd      |       - |       - |                 - |            - |       - |",
        "| floor: a copy | 10.0 ms | 9.00 ms |       6.00 (5.56) |  1.00 (1.00) |       - |",
    ]
    assert "PyTorch: not installed\nautograd: failed: ValueError: no" in text
    assert "Target at least 5 x the speed of the best peer: 5.00 (5.00), reached." in text
    assert "Target at least 6 x the speed of JAX: 5.00 (5.00), MISSED." in text
    assert "Target at most 1.15 x the floor: 1.20 (1.11), reached by minima only." in text
    assert "Target at most 3 us: 12000 (10000), MISSED." in text
    assert "of PyTorch" not in text
    assert "End." in text


def test_json(tmp_path: Path) -> None:
    report.write_json(example(), tmp_path / "run.json")
    found = json.loads((tmp_path / "run.json").read_text())
    assert found["benchmark"] == "pointwise"
    assert found["threads"] == 2
    assert {"cpu", "cores", "python", "versions"} <= set(found["machine"])
    ours, jax, torch, *_ = found["cases"][0]["outcomes"]
    assert (ours["median"], ours["minimum"], ours["samples"][0]) == (12e6, 10e6, 12e6)
    assert jax["label"] == "JAX"
    assert torch["note"] == "not installed"
    assert torch["samples"] == []


def test_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    report.write_plot(example(), tmp_path / "run.png")
    assert (tmp_path / "run.png").stat().st_size > 1000


def test_a_failing_contestant_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def ask(self, **request: object) -> dict[str, object]:
            raise harness.Failed("no luck")

    outcome = harness.prepare(TINY[0], "autograd", {"autograd": Broken()})  # type: ignore[dict-item]
    assert outcome.note == "failed: no luck"
    assert harness.prepare(TINY[0], "autograd", {}).note == "not installed"


def test_a_worker_that_dies_is_a_line() -> None:
    worker = harness.Worker("no_such_benchmark", "floor", harness.Options())
    with worker, pytest.raises(harness.Failed, match="no_such_benchmark"):
        worker.ask(do="prepare", case="any")


def test_compile_reports_both_processes() -> None:
    """graphdl and the quickest peer, if it is there, beside the floor."""
    options = harness.Options(only=("graphdl", "autograd"), quick=True, size="tiny")
    found = bench_compile.run(options)
    *networks, cold, second = found.cases
    assert [cold.name, second.name] == [
        "20 nodes in a row, cold",
        "20 nodes in a row, second process",
    ]
    for case in (cold, second):
        assert [outcome.name for outcome in case.timed()] == ["graphdl", "floor"]
    for case in networks:
        graphdl, autograd, floor = case.outcomes
        assert floor.minimum > 0
        assert graphdl.note == ""
        assert graphdl.minimum > 0
        assert autograd.note in ("", "not installed")
        assert bool(autograd.samples) == CONTESTANTS["autograd"].installed
    assert "new batch size" in found.remarks[0]


def test_a_new_batch_size_compiles_nothing(tmp_path: Path) -> None:
    options = harness.Options(size="tiny")
    cold = bench_compile.start("graphdl", tmp_path, options)
    assert cold.compiled
    assert cold.compiled_for_other_batch == 0
    second = bench_compile.start("graphdl", tmp_path, options)
    assert second.compiled == cold.compiled


def test_loaded_stops_what_it_starts() -> None:
    options = harness.Options(only=("graphdl",), quick=True, size="tiny")
    (case,) = loaded.run(options).cases
    assert len(loaded.cases("full")) == 8
    assert [outcome.note for outcome in case.outcomes] == ["", ""]
    assert all(len(outcome.samples) == 3 for outcome in case.outcomes)
    with loaded.Load([0]) as load:
        (process,) = load.processes
        with load.on():
            assert process.poll() is None
    assert process.poll() is not None


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    listed = capsys.readouterr().out
    assert all(f"{name}: " in listed for name in NAMES)
    for wrong in (["nothing"], ["mlp", "--only", "numpyro"], ["mlp", "--threads", "0"]):
        with pytest.raises(SystemExit):
            main(wrong)


def test_environment_sets_threads_and_caches(tmp_path: Path) -> None:
    variables = environment(3, tmp_path)
    assert variables["OPENBLAS_NUM_THREADS"] == variables["GRAPHDL_NUM_THREADS"] == "3"
    assert variables["GRAPHDL_CACHE_DIR"].startswith(str(tmp_path))
    assert variables["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0"
