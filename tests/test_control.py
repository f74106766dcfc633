"""scan, fori_loop, while_loop, cond, switch, map: against Python loops and finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphdl as gd
from graphdl.kernels.cpu import native

RNG = np.random.default_rng(3)
W, H, XS = (
    RNG.standard_normal((4, 4)) / 2,
    RNG.standard_normal((2, 4)),
    RNG.standard_normal((7, 2, 4)),
)


def rnn(w: Any, h: Any, xs: Any, reverse: bool = False) -> Any:
    def step(h: Any, x: Any) -> Any:
        h = np.tanh(h @ w + x)
        return h, {"sum": h.sum(), "square": h[0] ** 2}

    return gd.scan(step, h, xs, reverse=reverse)


def rnn_loop(w: Any, h: Any, xs: Any, reverse: bool = False) -> Any:
    sums, squares = [], []
    for x in xs[::-1] if reverse else xs:
        h = np.tanh(h @ w + x)
        sums.append(h.sum())
        squares.append(h[0] ** 2)
    if reverse:
        sums.reverse()
        squares.reverse()
    return h, {"sum": np.stack(sums), "square": np.stack(squares)}


def difference(f: Any, x: Any, v: Any, step: float = 1e-6) -> Any:
    return (f(x + step * v) - f(x - step * v)) / (2 * step)


@pytest.mark.parametrize("reverse", [False, True])
def test_scan_is_a_loop(reverse: bool) -> None:
    expected, stacked = rnn_loop(W, H, XS, reverse)
    final, ys = gd.compile(lambda *args: rnn(*args, reverse=reverse))(W, H, XS)
    np.testing.assert_allclose(final, expected, rtol=1e-12)
    for key in stacked:
        np.testing.assert_allclose(ys[key], stacked[key], rtol=1e-12)
    graph = gd.trace(lambda *args: rnn(*args, reverse=reverse), W, H, XS)
    np.testing.assert_allclose(graph.evaluate(W, H, XS)[0], expected, rtol=1e-12)


def scalar(run: Any, reverse: bool) -> Any:
    def loss(w: Any, h: Any, xs: Any) -> Any:
        final, ys = run(w, h, xs, reverse)
        return np.sum(final**2) + np.sum(np.sin(ys["sum"]) + ys["square"][..., 0])

    return loss


@pytest.mark.parametrize("reverse", [False, True])
def test_gradient_of_scan_to_second_order(reverse: bool) -> None:
    loss = scalar(rnn, reverse)
    unrolled = scalar(rnn_loop, reverse)
    value, gradients = gd.value_and_grad(loss, argnums=(0, 1, 2))(W, H, XS)
    expected, reference = gd.value_and_grad(unrolled, argnums=(0, 1, 2))(W, H, XS)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    for found, wanted in zip(gradients, reference, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)
    v = RNG.standard_normal(W.shape)
    second = gd.hvp(loss)(W, H, XS, v)
    slope = difference(lambda w: gd.grad(unrolled)(w, H, XS), W, v)
    np.testing.assert_allclose(second, slope, rtol=1e-6, atol=1e-7)


def test_the_forward_loop_runs_once_in_a_gradient() -> None:
    executable = gd.compile(gd.value_and_grad(scalar(rnn, False))).lower(W, H, XS)
    loops = [kernel for kernel in executable.kernels if kernel.name == "scan"]
    assert len(loops) == 2  # one forward that stacks what the one backward needs


def test_fori_loop_with_a_static_and_a_traced_bound() -> None:
    def f(x: Any, n: Any) -> Any:
        return gd.fori_loop(1, n, lambda i, c: c * x + i, 1.0)

    expected = 1.0
    for i in range(1, 6):
        expected = expected * 1.5 + i
    assert float(gd.compile(f)(1.5, 6)) == expected
    static = gd.compile(lambda x: f(x, 6))
    assert float(static(1.5)) == expected
    gradient = gd.grad(lambda x: f(x, 6))(1.5)
    np.testing.assert_allclose(
        gradient, difference(lambda x: float(static(x)), 1.5, 1.0), rtol=1e-8
    )


@pytest.mark.parametrize("limit", [0.5, 5.0, 100.0])
def test_while_loop(limit: float) -> None:
    @gd.compile
    def f(x: Any, limit: Any) -> Any:
        def step(state: Any) -> Any:
            total, row, count = state
            return total + row.sum(), row * 1.5, count + 1

        return gd.while_loop(lambda state: state[0] < limit, step, (x.sum(), x, 0))

    x = np.array([0.5, 0.25])
    total, row, count = x.sum(), x, 0
    while total < limit:
        total, row, count = total + row.sum(), row * 1.5, count + 1
    found = f(x, limit)
    np.testing.assert_allclose(found[0], total)
    np.testing.assert_allclose(found[1], row)
    assert int(found[2]) == count


def test_cond_runs_one_branch_and_has_a_gradient() -> None:
    def f(x: Any, p: Any) -> Any:
        return np.sum(gd.cond(p > 0, lambda x: np.sin(x) * p, lambda x: x**2, x))

    x = np.array([0.5, 1.0])
    compiled = gd.compile(gd.value_and_grad(f))
    value, gradient = compiled(x, 2.0)
    np.testing.assert_allclose(value, np.sum(np.sin(x) * 2))
    np.testing.assert_allclose(gradient, 2 * np.cos(x))
    value, gradient = compiled(x, -1.0)
    np.testing.assert_allclose(value, np.sum(x**2))
    np.testing.assert_allclose(gradient, 2 * x)
    np.testing.assert_allclose(gd.grad(f, argnums=1)(x, 2.0), np.sum(np.sin(x)))


@pytest.mark.parametrize("index", [-3, 0, 1, 2, 9])
def test_switch_clamps(index: int) -> None:
    branches = [lambda x: x, lambda x: x * 10, lambda x: np.flip(x)]
    x = np.array([1.0, 2.0])
    found = gd.compile(lambda i, x: gd.switch(i, branches, x))(index, x)
    np.testing.assert_array_equal(found, branches[min(max(index, 0), 2)](x))


def test_map_and_scans_within_scans() -> None:
    x = RNG.standard_normal((5, 3))

    def outer(x: Any) -> Any:
        def row(total: Any, values: Any) -> Any:
            inner = gd.fori_loop(0, 3, lambda i, c: c * values[0] + np.sum(values) * i, total)
            return inner, inner

        final, rows = gd.scan(row, 0.5, x)
        return final + np.sum(rows * gd.map(lambda r: np.max(r), x))

    def plain(x: Any) -> Any:
        total, rows = 0.5, []
        for values in x:
            for i in range(3):
                total = total * values[0] + np.sum(values) * i
            rows.append(total)
        return total + np.sum(np.stack(rows) * np.max(x, axis=1))

    np.testing.assert_allclose(gd.compile(outer)(x), plain(x), rtol=1e-12)
    np.testing.assert_allclose(gd.grad(outer)(x), gd.grad(plain)(x), rtol=1e-9, atol=1e-12)


def test_gradient_inside_a_scan() -> None:
    """Gradient descent as a loop: grad of scan of grad."""

    def descend(x: Any, rate: Any) -> Any:
        def step(x: Any, _: Any) -> Any:
            value, slope = gd.value_and_grad(lambda x: np.sum(np.cosh(x)))(x)
            return x - rate * slope, value

        return gd.scan(step, x, length=20)

    x = np.array([1.0, -0.5])
    found, values = gd.compile(descend)(x, 0.1)
    expected = x
    for i in range(20):
        np.testing.assert_allclose(values[i], np.sum(np.cosh(expected)))
        expected = expected - 0.1 * np.sinh(expected)
    np.testing.assert_allclose(found, expected)

    def loss(rate: Any) -> Any:
        return np.sum(descend(x, rate)[0] ** 2)

    compiled = gd.compile(loss)
    slope = difference(lambda rate: float(compiled(rate)), 0.1, 1.0)
    np.testing.assert_allclose(gd.grad(loss)(0.1), slope, rtol=1e-6)


def test_a_long_scan_compiles_its_body_once() -> None:
    def long(n: int) -> Any:
        return gd.compile(lambda x: gd.scan(lambda c, _: (np.sin(c) + 1, None), x, length=n)[0])

    long(3)(np.ones(3))
    before = native.compile_count()
    x = np.ones(3)
    for _ in range(100_000):
        x = np.sin(x) + 1
    np.testing.assert_allclose(long(100_000)(np.ones(3)), x, rtol=1e-12)
    assert native.compile_count() == before


def test_empty_and_integer_loops() -> None:
    final, ys = gd.compile(lambda x: gd.scan(lambda c, x: (c + x, c), 1, x))(np.arange(0))
    assert int(final) == 1
    assert ys.shape == (0,)
    final, ys = gd.compile(lambda x: gd.scan(lambda c, x: (c + x, c), 1, x))(np.arange(5))
    assert int(final) == 11
    np.testing.assert_array_equal(ys, [1, 1, 2, 4, 7])


def test_indices_in_loops_are_checked() -> None:
    table = np.arange(4.0)
    f = gd.compile(lambda x, i: gd.scan(lambda c, i: (c + x[i], None), 0.0, i)[0])
    assert float(f(table, np.array([0, 3, -1]))) == 6.0
    with pytest.raises(gd.GraphIndexError, match="out of bounds"):
        f(table, np.array([0, 4]))


def test_refusals_name_the_step_and_the_line() -> None:
    with pytest.raises(gd.ShapeError, match=r"carry 0 is float64\[2\] before a step of <lambda>"):
        gd.compile(lambda x: gd.scan(lambda c, _: (c[:1], None), x, length=3))(np.ones(2))
    with pytest.raises(gd.DtypeError, match=r"must return \(carry, y\)"):
        gd.compile(lambda x: gd.scan(lambda c, _: c, x, length=3))(np.ones(2))
    with pytest.raises(gd.ShapeError, match="give xs or length"):
        gd.compile(lambda x: gd.scan(lambda c, _: (c, None), x))(np.ones(2))
    with pytest.raises(gd.ShapeError, match="lengths"):
        gd.compile(lambda x: gd.scan(lambda c, x: (c, x), 0.0, x, length=3))(np.ones(2))
    with pytest.raises(gd.DtypeError, match="not one bool"):
        gd.compile(lambda x: gd.while_loop(lambda c: c, lambda c: c, x))(np.ones(2))
    with pytest.raises(gd.ShapeError, match=r"branches must agree.*\n.*test_control\.py"):
        gd.compile(lambda x: gd.cond(x > 0, lambda x: x, lambda x: (x, x), x))(1.0)
