"""Values computed again: because that is cheaper than memory, or because of a budget of bytes."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphdl as gd
from graphdl import machine
from graphdl.compiler import fuse
from graphdl.compiler.recompute import recompute
from graphdl.compiler.rematerialise import Schedule, again
from graphdl.compiler.savings import alone, chosen
from graphdl.machine import Machine

RNG = np.random.default_rng(5)


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Decide with this machine."""

    def use(**times: float) -> None:
        made = machine.Known(Machine(**times), "a test")  # type: ignore[arg-type]
        monkeypatch.setattr(machine, "known", lambda: made)

    return use


def normalised(x: Any) -> Any:
    centred = x - np.mean(x, axis=0)
    return centred / np.sqrt(np.mean(centred * centred, axis=0) + 1e-5)


def over_all(x: Any) -> Any:
    y = np.exp(x - np.max(x))
    return y / np.sum(y)


def gelu(x: Any, w: Any, v: Any) -> Any:
    h = x @ w
    return np.sum(np.tanh((0.5 * h * (1 + np.tanh(0.8 * (h + 0.045 * h * h * h)))) @ v))


def kept(executable: Any) -> list[str]:
    """The ops of the large values that lie in memory between kernels."""
    schedule = Schedule.of(executable.optimized)
    return sorted(node.op.name for node in schedule.temporaries() if node.type.nbytes > 1 << 18)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_centred_array_is_not_written(use: Any, dtype: str) -> None:
    use()
    x = RNG.normal(3.0, 2.0, (500, 700)).astype(dtype)
    f = gd.compile(normalised)
    assert kept(f.lower(x)) == []
    tolerance = 1e-5 if dtype == "float32" else 1e-13
    np.testing.assert_allclose(f(x), normalised(x), rtol=tolerance, atol=tolerance)
    before, after = f.lower(x).passes[-2:]
    assert after[0] == "recompute"
    assert len(fuse.fuse(after[1])) == len(fuse.fuse(before[1]))
    assert Schedule.of(after[1]).kept_bytes() < Schedule.of(before[1]).kept_bytes() - x.nbytes // 2


def test_the_cheaper_of_the_two_is_done(use: Any) -> None:
    x = RNG.normal(size=(500, 700)).astype(np.float32)
    results = []
    for times, expected in (
        ({"memory_byte": 1.0, "cached_byte": 1.0}, []),
        ({"memory_byte": 0.01, "cached_byte": 0.01}, ["exp"]),
        ({"exp": 0.05}, []),
        ({"exp": 5.0}, ["exp"]),
    ):
        use(**times)
        f = gd.compile(over_all)
        assert kept(f.lower(x)) == expected
        results.append(f(x))
        np.testing.assert_allclose(results[-1], over_all(x), rtol=1e-5)


def test_small_values_stay_where_they_are(use: Any) -> None:
    use(memory_byte=1.0, cached_byte=1.0)
    executable = gd.compile(over_all).lower(gd.spec((100, 100), "float32"))
    assert executable.passes[-1][1] is executable.passes[-2][1]


def test_what_a_gradient_needs_of_an_activation_is_computed_from_a_part_of_it(use: Any) -> None:
    x, w, v = (RNG.normal(size=shape) for shape in ((300, 200), (200, 400), (400, 300)))
    f = gd.grad(gelu, argnums=(0, 1, 2))
    counts = []
    for times in ({"memory_byte": 1e-3, "cached_byte": 1e-3}, {}):
        use(**times)
        compiled = gd.compile(f)
        found = compiled(x, w, v)
        counts.append(len(kept(compiled.lower(x, w, v))))
        for a, b in zip(found, compiled.lower(x, w, v).graph.evaluate(x, w, v), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)
    assert counts[1] < counts[0]


def test_outputs_and_checks(use: Any) -> None:
    use(memory_byte=9.0, cached_byte=4.9)

    def twice(x: Any) -> Any:
        y = np.tanh(x)
        total = np.sum(y)
        z = np.exp(y / total)
        return z / np.sum(z), y

    values = RNG.normal(size=(500, 700)).astype(np.float32)
    for a, b in zip(gd.compile(twice)(values), twice(values), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    checked = gd.compile(over_all, checks="nan")
    np.testing.assert_allclose(checked(values), over_all(values), rtol=1e-5)


def test_an_explanation_shows_what_was_weighed_up(use: Any) -> None:
    use(exp=2.0)
    found = gd.compile(over_all).lower(gd.spec((500, 700), "float32")).explain()
    (weighing,) = [item for border in found.borders for item in border.weighings]
    assert weighing.stored == 2 * 1_400_000 * 0.05
    repeated = 350_000 * 2.0 * 1.15 + 1_400_000 * 0.05  # and one number, the maximum
    assert weighing.repeated == pytest.approx(repeated, rel=1e-5)
    assert "takes 140 us to write and read, 875 us to compute again" in str(found)
    use(exp=0.05)
    found = gd.compile(over_all).lower(gd.spec((500, 700), "float32")).explain()
    assert not any(border.weighings for border in found.borders)
    assert "  recompute" in str(found)


# --- a budget ---------------------------------------------------------------------------------

WIDTHS = (100, 256, 256, 256, 256, 256, 256, 10)


def network(parameters: Any, x: Any, y: Any) -> Any:
    for w, b in parameters[:-1]:
        x = np.tanh(x @ w + b)
    w, b = parameters[-1]
    return np.sum((x @ w + b - y) ** 2)


def step(parameters: Any, x: Any, y: Any) -> Any:
    value, gradients = gd.value_and_grad(network)(parameters, x, y)
    new = [
        (w - 1e-4 * dw, b - 1e-4 * db)
        for (w, b), (dw, db) in zip(parameters, gradients, strict=True)
    ]
    return value, new


def given(dtype: str) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(7)
    parameters = [
        (rng.normal(size=(a, b)).astype(dtype) / 20, np.zeros(b, dtype))
        for a, b in itertools.pairwise(WIDTHS)
    ]
    return parameters, *(rng.normal(size=(512, n)).astype(dtype) for n in (WIDTHS[0], WIDTHS[-1]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_training_step_takes_half_of_the_memory(dtype: str) -> None:
    parameters, x, y = given(dtype)
    plain = gd.compile(step).lower(parameters, x, y)
    half = plain.memory.peak_bytes - plain.memory.arena_bytes // 2
    tight = gd.compile(step, memory_budget=half)
    executable = tight.lower(parameters, x, y)
    assert executable.memory.peak_bytes <= half
    assert executable.passes[-1][0] == "rematerialise"
    tolerance = 1e-4 if dtype == "float32" else 1e-11
    for a, b in zip(leaves(tight(parameters, x, y)), leaves(plain(parameters, x, y)), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
    again = gd.compile(step, memory_budget=half).lower(parameters, x, y)
    assert str(again.optimized) == str(executable.optimized)
    assert "rematerialise" in str(executable.explain())


def leaves(result: Any) -> list[Any]:
    value, parameters = result
    return [value, *(array for pair in parameters for array in pair)]


def test_donated_parameters_are_overwritten_under_a_budget_too() -> None:
    parameters, x, y = given("float64")
    wanted = step(parameters, x, y)
    free = gd.compile(step, donate=0).lower(parameters, x, y).memory.peak_bytes
    tight = gd.compile(step, donate=0, memory_budget=2 * free // 3)
    executable = tight.lower(parameters, x, y)
    assert executable.memory.peak_bytes <= 2 * free // 3
    state = parameters
    value, state = tight(state, x, y)
    assert state[0][0] is parameters[0][0]
    for a, b in zip(leaves((value, state)), leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_a_budget_that_is_enough_changes_nothing_and_of_one_that_cannot_be_a_warning_tells() -> (
    None
):
    parameters, x, y = given("float32")
    plain = gd.compile(step).lower(parameters, x, y)
    enough = gd.compile(step, memory_budget=plain.memory.peak_bytes).lower(parameters, x, y)
    assert enough.passes[-1][0] == "recompute"
    f = gd.compile(lambda x: np.tanh(x) * 2, memory_budget=1)
    with pytest.warns(gd.MemoryBudgetWarning, match="memory_budget=1 cannot be kept") as caught:
        np.testing.assert_allclose(f(x), np.tanh(x) * 2, rtol=1e-6)
    assert [Path(warning.filename) for warning in caught] == [Path(__file__)]  # where it is called
    least = gd.compile(step, memory_budget=1)
    with pytest.warns(gd.MemoryBudgetWarning) as caught:
        memory = least.lower(parameters, x, y).memory
    assert memory.peak_bytes < plain.memory.peak_bytes
    np.testing.assert_allclose(least(parameters, x, y)[0], plain(parameters, x, y)[0], rtol=1e-5)
    (told,) = (str(warning.message) for warning in caught)
    assert f"the program takes {memory.peak_bytes:,} bytes" in told
    lines = re.findall(r"^ +([\d,]+) bytes: (.*), at (.*):(\d+): (.*)$", told, re.MULTILINE)
    assert len(lines) == 4
    sizes = [int(line[0].replace(",", "")) for line in lines]
    assert sizes == sorted(sizes, reverse=True)
    assert sum(sizes) <= memory.peak_bytes
    for _, _, file, number, text in lines:
        assert Path(file) == Path(__file__)
        assert Path(file).read_text().splitlines()[int(number) - 1].strip() == text


def test_the_largest_values_are_those_of_one_moment() -> None:
    def f(x: Any, w: Any) -> Any:
        a = np.sort(x, axis=0)  # read last where b is made: never beside c
        b = np.sort(a, axis=0)
        return np.sum(np.sort(b @ w, axis=0)), np.cumsum(x, axis=0)

    g = gd.compile(f, memory_budget=0)
    with pytest.warns(gd.MemoryBudgetWarning) as caught:
        memory = g.lower(gd.spec((100, 30)), gd.spec((30, 10))).memory
    (told,) = (str(warning.message) for warning in caught)
    sizes = [int(n.replace(",", "")) for n in re.findall(r"^ +([\d,]+) bytes", told, re.MULTILINE)]
    assert "a result, float64[100, 30] of cumsum" in told
    assert sum(sizes) <= memory.peak_bytes


def test_a_loop_is_named_by_what_its_steps_take() -> None:
    def f(x: Any) -> Any:
        return gd.map(lambda row: np.sort(np.sort(row * 2)[::-1] + row), x)

    x = RNG.normal(size=(5, 500))
    g = gd.compile(f, memory_budget=0)
    with pytest.warns(gd.MemoryBudgetWarning, match=r"bytes: working memory of \w+, at .*gd\.map"):
        np.testing.assert_array_equal(g(x), f(x))


def test_products_and_reductions_are_computed_again() -> None:
    def loss(w: Any, v: Any, x: Any) -> Any:
        for kernel in (w, v):
            x = np.tanh(x @ kernel)
            x = x - np.mean(x, axis=1, keepdims=True)
        return np.sum(x * x)

    x, w, v = (RNG.normal(size=shape) for shape in ((400, 300), (300, 300), (300, 300)))
    graph = gd.compile(gd.grad(loss, argnums=(0, 1))).lower(w, v, x).optimized
    schedule = Schedule.of(graph)
    wanted = graph.evaluate(w, v, x)
    found = alone(schedule)
    assert found
    for made in found:
        other = again(schedule, [made])
        assert len(other.nodes) > len(graph.nodes)
        for a, b in zip(other.evaluate(w, v, x), wanted, strict=True):
            np.testing.assert_array_equal(a, b)


def wandering(seed: int) -> tuple[Any, list[Any]]:
    """A gradient of a random mixture of products, activations and normalisations of one size."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(0, 4, size=12)
    far = rng.integers(0, 12, size=12)

    def f(x: Any, *weights: Any) -> Any:
        values = [x]
        for i, (kind, other) in enumerate(zip(steps, far, strict=True)):
            y = values[-1]
            if kind == 0:
                y = np.tanh(y @ weights[i % len(weights)])
            elif kind == 1:
                y = (y - np.mean(y, axis=1, keepdims=True)) * np.exp(-y * y)
            elif kind == 2:
                y = np.maximum(y, 0.1 * y) + values[other % len(values)]
            else:
                y = np.sin(y) * values[other % len(values)]
            values.append(y)
        return np.mean(values[-1] ** 2)

    arrays = [rng.normal(size=(96, 64)), *(rng.normal(size=(64, 64)) / 8 for _ in range(3))]
    return gd.grad(f, argnums=(0, 1, 2, 3)), arrays


@pytest.mark.parametrize("seed", range(6))
def test_random_programs_take_less_and_compute_the_same_numbers(seed: int) -> None:
    f, arrays = wandering(seed)
    graph = gd.compile(f).lower(*arrays).optimized
    wanted = graph.evaluate(*arrays)
    schedule = Schedule.of(graph)
    most = max(schedule.sizes())
    for target in (3 * most // 4, 0):
        found, expected = chosen(schedule, target)
        assert found
        assert expected < most
        other = again(schedule, found)
        for a, b in zip(other.evaluate(*arrays), wanted, strict=True):
            np.testing.assert_array_equal(a, b)  # the same arithmetic, bit by bit
    if seed == 0:
        free = gd.compile(f).lower(*arrays).memory
        budget = free.peak_bytes - free.arena_bytes // 4
        tight = gd.compile(f, memory_budget=budget)
        assert tight.lower(*arrays).memory.peak_bytes <= budget
        for a, b in zip(tight(*arrays), wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)


def test_a_segment_is_computed_again_from_what_was_there_before_it() -> None:
    def f(x: Any) -> Any:
        for _ in range(16):  # no x lies in memory, only what the gradient reads: 16 of tanh
            x = np.tanh(x - np.mean(x, axis=0)) + 0.1 * x
        return np.sum(x * x)

    x = RNG.normal(size=(300, 100))
    free = gd.compile(gd.grad(f)).lower(x).memory
    tight = gd.compile(gd.grad(f), memory_budget=free.result_bytes + free.arena_bytes // 3)
    executable = tight.lower(x)
    assert executable.memory.arena_bytes <= free.arena_bytes // 3
    tanhs = [node for node in executable.optimized.nodes if node.op.name == "tanh"]
    assert len(tanhs) <= 3 * 16  # each at most twice more: not again and again from the start
    np.testing.assert_allclose(tight(x), gd.grad(f)(x), rtol=1e-10, atol=1e-12)


def test_what_is_written_over_is_not_read_again() -> None:
    """A product computed again after its weights are updated would need the old ones kept."""
    parameters, x, y = given("float32")
    free = gd.compile(step, donate=0).lower(parameters, x, y).memory
    with pytest.warns(gd.MemoryBudgetWarning):
        least = gd.compile(step, donate=0, memory_budget=1).lower(parameters, x, y).memory
    assert least.result_bytes == free.result_bytes
    assert least.arena_bytes < 0.75 * free.arena_bytes


def test_recomputing_is_idempotent(use: Any) -> None:
    use()
    graph = gd.compile(normalised).lower(gd.spec((500, 700), "float32")).optimized
    assert recompute(graph) is graph
