"""memory_budget=: the gradient of a long loop keeps the carries between runs of steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphdl as gd
from graphdl.compiler.loop_checkpoints import run_length
from graphdl.kernels.cpu.growing import Growing

RNG = np.random.default_rng(21)
SIZE = 32


def scanned(x: Any, w: Any, rows: Any, reverse: bool = False) -> Any:
    def step(c: Any, row: Any) -> Any:
        y = np.tanh(np.sin(c) * w + row)
        return y * 0.9 + c * 0.1, (y.sum(), y)

    c, (sums, ys) = gd.scan(step, x, rows, reverse=reverse)
    return np.sum(c) + np.sum(np.sin(sums)) + np.sum(ys[::7] ** 2)


def counted(x: Any, w: Any, n: Any) -> Any:
    def step(s: Any) -> Any:
        return s[0] + 1, np.tanh(np.sin(s[1]) * w + s[1])

    return np.sum(gd.while_loop(lambda s: s[0] < n, step, (0, x))[1])


X, W = RNG.standard_normal(SIZE), RNG.standard_normal(SIZE)


@pytest.mark.filterwarnings("ignore::graphdl.errors.MemoryBudgetWarning")
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [4, 333])
def test_gradients_under_a_budget_are_the_same(length: int, reverse: bool) -> None:
    rows = RNG.standard_normal((length, SIZE))
    f = gd.value_and_grad(lambda *args: scanned(*args, reverse=reverse), argnums=(0, 1, 2))
    value, wanted = gd.compile(f)(X, W, rows)
    free = gd.compile(f).lower(X, W, rows).memory.own_bytes
    for budget in (40_000, 5_000) if length > 4 else (1,):
        g = gd.compile(f, memory_budget=budget)
        found_value, found = g(X, W, rows)
        np.testing.assert_allclose(found_value, value, rtol=1e-13)
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)
        if length > 4:
            # what the cotangents of the results take is there in any case
            assert g.lower(X, W, rows).memory.own_bytes < free - length * SIZE * 8


def test_memory_stays_near_the_budget() -> None:
    def f(x: Any) -> Any:
        return np.sum(gd.scan(lambda c, _: (np.sin(c) * c, None), x, length=100_000)[0])

    x = gd.spec(1000)
    assert gd.compile(gd.grad(f)).lower(x).memory.own_bytes > 800_000_000
    for budget in (100_000_000, 10_000_000):
        executable = gd.compile(gd.grad(f), memory_budget=budget).lower(x)
        assert executable.memory.own_bytes < 1.5 * budget
    assert gd.grad(gd.compile(f, memory_budget=10_000_000)).lower(x).memory.own_bytes < 15_000_000


@pytest.mark.parametrize("n", [0, 3, 500])
def test_while_loops_keep_to_the_budget(n: int) -> None:
    plain = gd.grad(counted, argnums=(0, 1))
    wanted = plain(X, W, n)
    g = gd.compile(plain, memory_budget=20_000)
    for a, b in zip(g(X, W, n), wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def grown(executable: Any) -> int:
    """The bytes of all memory of a program that has grown with the steps of loops."""
    total, pending = 0, list(executable._native.tape.keep)
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending += item.values()
        elif isinstance(item, list):
            pending += item
        elif isinstance(item, Growing):
            total += item.nbytes
        elif hasattr(item, "native"):
            pending += item.native.tape.keep
    return total


def test_a_while_loop_keeps_carries_of_runs_and_the_steps_of_one() -> None:
    n, budget = 20_000, 400_000
    free = gd.compile(gd.grad(counted))
    tight = gd.compile(gd.grad(counted), memory_budget=budget)
    np.testing.assert_allclose(tight(X, W, n), free(X, W, n), rtol=1e-12)
    assert grown(free.lower(X, W, n)) > n * X.nbytes
    assert grown(tight.lower(X, W, n)) <= budget


@pytest.mark.filterwarnings("ignore::graphdl.errors.MemoryBudgetWarning")
def test_second_order_and_loops_in_loops() -> None:
    def f(x: Any, rows: Any) -> Any:
        def outer(c: Any, row: Any) -> Any:
            def inner(c: Any, _: Any) -> Any:
                return np.sin(c * row) + c * 0.5, None

            c = gd.scan(inner, c, length=6)[0]
            return gd.while_loop(lambda c: c[0] > 0.4, lambda c: c * 0.8, c), None

        return np.sum(gd.scan(outer, x, rows)[0] ** 2)

    rows = RNG.standard_normal((9, SIZE))
    v = RNG.standard_normal(SIZE)
    for g, args in ((gd.grad(f), (X, rows)), (gd.hvp(f), (X, rows, v))):
        wanted = gd.compile(g)(*args)
        found = gd.compile(g, memory_budget=2_000)(*args)
        np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)


def test_runs_fill_the_budget() -> None:
    assert run_length(1000, 100, 100, 100_000) is None
    assert run_length(3, 100, 100, 1) is None
    run = run_length(10_000, 100, 100, 100_000)
    assert run == 500  # 20 carries, and the rows of 500 steps
    assert run_length(10_000, 100, 100, 10) == 5_000  # halves, and halves of those


def test_a_budget_is_a_number() -> None:
    for wrong in ("1 GB", 1e9, True):
        with pytest.raises(TypeError, match=f"a number of bytes, an int .*, not {wrong!r}"):
            gd.compile(np.sin, memory_budget=wrong)  # type: ignore[call-overload]
    with pytest.raises(gd.ArgumentError, match="memory_budget=-1; write"):
        gd.compile(np.sin, memory_budget=-1)
    f = gd.compile(np.sin, memory_budget=np.int32(1000))  # type: ignore[call-overload]
    np.testing.assert_allclose(f(X), np.sin(X))
