"""The benchmarks of whole workloads, tiny and untimed: contestants agree, as do derivatives."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from bench import (
    attention,
    harness,
    loaded,
    matmul,
    memory,
    recurrent,
    reduce,
    report,
    rows,
    stencil,
)
from bench.cases import Case

#: Contestants that are there at once; the others are compared before they are timed, at every run.
QUICK = ("graphdl", "numpy", "autograd")

DERIVED = [
    case
    for module in (reduce, rows, matmul, stencil)
    for case in module.cases("tiny")
    if case.name.endswith("gradients")
]


@pytest.mark.parametrize(
    "name", ["reduce", "rows", "matmul", "optimiser", "stencil", "attention", "recurrent"]
)
def test_contestants_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness.Options, "rounds", 1)
    monkeypatch.setattr(harness.Options, "slice_s", 0.0)
    options = harness.Options(only=QUICK, quick=True, size="tiny")
    found = import_module(f"bench.{name}").run(options)
    assert found.cases
    for case in found.cases:
        assert case.outcomes[0].name == "graphdl"
        for outcome in case.outcomes:
            assert outcome.note in ("", "not installed"), f"{case.name}: {outcome.label}"
    assert f"### {name}" in report.text(found)


@pytest.mark.parametrize("case", DERIVED, ids=lambda case: case.name)
def test_gradients_by_hand_are_derivatives(case: Case) -> None:
    """Along a random direction of each operand, by central differences, of sum(g * value)."""
    inputs = {
        key: array if array.dtype.kind == "i" else array.astype(np.float64)
        for key, array in case.inputs().items()
    }
    rng = np.random.default_rng(3)
    _, *gradients = case.expected(inputs)
    operands = [key for key in inputs if key != "g" and inputs[key].dtype.kind == "f"]
    weights = inputs.get("g", np.ones(()))
    # Where gradients are asked by some operands only, those come first.
    for name, gradient in zip(operands, gradients, strict=False):
        direction = rng.standard_normal(gradient.shape)
        ends = [
            np.sum(weights * case.expected({**inputs, name: inputs[name] + step * direction})[0])
            for step in (1e-6, -1e-6)
        ]
        slope = (ends[0] - ends[1]) / 2e-6
        assert slope == pytest.approx(np.sum(gradient * direction), rel=1e-6)


STEPS = [
    (lambda *arrays, block=block: attention.loss_by_hand(block, *arrays), attention.inputs(block))
    for block in attention.BLOCKS["tiny"]
] + [
    (lambda *arrays, n=network: recurrent.BY_HAND[n.kind](n, *arrays), recurrent.inputs(network))
    for network in recurrent.NETWORKS["tiny"]
]


@pytest.mark.parametrize("step", range(len(STEPS)))
def test_steps_by_hand_go_down_the_gradient(step: int) -> None:
    by_hand, inputs = STEPS[step]
    arrays = [array.astype(np.float64) for array in inputs.values()]
    rng = np.random.default_rng(3)
    _, *gradients = by_hand(*arrays)
    for place, gradient in enumerate(gradients):
        direction = rng.standard_normal(gradient.shape)
        ends = []
        for size in (1e-6, -1e-6):
            moved = list(arrays)
            moved[place] = arrays[place] + size * direction
            ends.append(by_hand(*moved)[0])
        slope = (ends[0] - ends[1]) / 2e-6
        assert slope == pytest.approx(np.sum(gradient * direction), rel=1e-5, abs=1e-9)


def test_memory_of_a_step() -> None:
    """graphdl beside the floor, each in a process of its own."""
    found = memory.run(harness.Options(only=("graphdl",), quick=True, size="tiny"))
    ((graphdl, floor),) = (case.outcomes for case in found.cases)
    assert graphdl.note == ""
    assert graphdl.minimum > floor.minimum > 1e6
    text = report.text(found)
    assert "best peer / it" in text
    assert "above imports and inputs" in text
    assert report.as_json(found)["cases"][0]["unit"] == "bytes"


def test_memory_says_why_there_is_none(tmp_path: Path) -> None:
    (subject,) = memory.subjects("tiny")
    missing = memory.Subject("nothing", subject.case)
    with pytest.raises(harness.Failed, match="ValueError"):
        memory.in_a_process(missing, "graphdl", harness.Options(size="tiny"), tmp_path)


def test_a_slow_contestant_misses_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        asked = 0

        def ask(self, **request: object) -> dict[str, object]:
            if request["do"] == "prepare":
                return {"first_call_s": 0.0, "difference": 0.0, "agrees": True}
            self.asked += 1
            return {"samples": [1.0]}

    monkeypatch.setattr(harness.Options, "budget_s", 0.0)
    worker = Slow()
    case = reduce.cases("tiny")[0]
    found = harness.run_case(case, ["graphdl"], {"graphdl": worker}, harness.Options())  # type: ignore[dict-item]
    assert worker.asked == 1
    assert found.outcomes[0].samples == (1.0,)


def test_a_silent_worker_is_ended_and_another_started() -> None:
    with harness.Worker("reduce", "floor", harness.Options(size="tiny")) as worker:
        first = worker.process
        with pytest.raises(harness.Failed, match="no answer within 0 s"):
            worker.ask(0.0, do="prepare", case=reduce.cases("tiny")[0].name)
        assert first.poll() is not None
        assert worker.ask(do="prepare", case=reduce.cases("tiny")[0].name)["agrees"]


def test_cases_are_chosen_by_words() -> None:
    options = harness.Options(only_cases="sum rows")
    assert options.asks("sum, rows of a transpose")
    assert not options.asks("sum, columns")
    assert harness.Options().asks("anything")


def test_words_that_no_case_has_are_told():
    with pytest.raises(SystemExit, match=r"no case of reduce has all words of 'sum nowhere'"):
        harness.race("reduce", reduce.cases("tiny"), harness.Options(only_cases="sum nowhere"))
    for module in (memory, loaded):
        with pytest.raises(SystemExit, match="has all words of 'nowhere'"):
            module.run(harness.Options(only_cases="nowhere", size="tiny"))
