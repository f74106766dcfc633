"""gd.op: the user's own functions, compiled by Numba, as ops."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import pytest

import graphdl as gd
from graphdl.kernels import cache, user
from graphdl.kernels.cpu import native
from tests.programs import run_in_python

RNG = np.random.default_rng(3)
X, Y = RNG.standard_normal((4, 5)), RNG.uniform(0.5, 2, (4, 5))
SCALE = 1.5


@numba.njit
def helper(x):
    return math.exp(-x * x) + math.atan2(x, 2.0)


@gd.op
@numba.njit
def smooth(x, y, power=2.0):
    """A docstring."""
    return helper(x) * math.tanh(y) / y**power + min(x, y) * SCALE


def smooth_in_numpy(x: Any, y: Any, power: Any = 2.0) -> Any:
    return (np.exp(-x * x) + np.arctan2(x, 2)) * np.tanh(y) / y**power + np.minimum(x, y) * SCALE


@gd.op(vjp=lambda g, out, x: g * np.where(x > 0, 1.0, 0.1))
@numba.njit
def leaky(x):
    if x > 0:
        return x
    return 0.1 * x


@gd.op
@numba.njit
def collatz(n):
    steps = 0
    while n > 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps += 1
    return steps


@gd.op
@numba.njit
def restricted(x):
    if x < 0:
        raise ValueError("negative")
    return math.sqrt(x)


def test_a_scalar_function_is_compiled_into_the_kernel_around_it() -> None:
    def f(x: Any, y: Any) -> Any:
        return np.sum(np.sin(smooth(x * 2, y)), axis=1)

    executable = gd.compile(f).lower(X, Y)
    assert len(executable.kernels) == 1
    assert "user_smooth_" in executable.source
    np.testing.assert_allclose(executable(X, Y), np.sum(np.sin(smooth_in_numpy(X * 2, Y)), axis=1))
    graph = gd.trace(f, X, Y)
    np.testing.assert_allclose(graph.evaluate(X, Y), executable(X, Y), rtol=1e-13)
    (got,) = run_in_python(gd.trace(lambda x: leaky(x) * 2, X), [X])
    np.testing.assert_array_equal(got, np.where(X > 0, X, 0.1 * X) * 2)
    assert "call" not in "".join(
        line.split("#")[0] for line in executable.assembly().splitlines() if "tanh" in line
    )  # the elementary functions are ours, and inlined
    assert smooth.__doc__ == "A docstring."
    np.testing.assert_allclose(smooth(X, Y), smooth_in_numpy(X, Y))


def test_dtypes_broadcasting_and_python_numbers() -> None:
    x, y = X.astype(np.float32), Y[:1].astype(np.float32)
    f = gd.compile(lambda x, y: (smooth(x, y), smooth(2.0, y, 1.0), smooth(x, np.float64(2))))
    a, b, c = f(x, y)
    assert (a.dtype, b.dtype, c.dtype) == (np.float32, np.float32, np.float64)
    np.testing.assert_allclose(a, smooth_in_numpy(x, y), rtol=1e-5)
    np.testing.assert_allclose(b, smooth_in_numpy(2.0, y, 1.0), rtol=1e-5)
    np.testing.assert_allclose(c, smooth_in_numpy(x, 2.0), rtol=1e-6)
    steps = gd.compile(collatz)(np.array([1, 2, 3, 27]))
    assert steps.dtype == np.int64
    np.testing.assert_array_equal(steps, [0, 1, 7, 111])
    both = gd.op(lambda x, y: x and not y)
    got = gd.compile(lambda x, y: both(x > 0, y > 1))(X, Y)
    assert got.dtype == np.bool_
    np.testing.assert_array_equal(got, (X > 0) & ~(Y > 1))


@gd.op
@numba.njit
def position_in_table(x):
    return (0.5, 1.5, 2.5)[x]


def test_a_scalar_function_that_raises_is_an_error_that_names_it() -> None:
    good = np.abs(X) + 0.1

    def f(x: Any) -> Any:
        return np.sum(restricted(x) * 2, axis=1)

    compiled = gd.compile(f)
    np.testing.assert_allclose(compiled(good), np.sum(np.sqrt(good) * 2, axis=1), rtol=1e-13)
    for place in [(0, 0), (-1, -1)]:
        bad = good.copy()
        bad[place] = -1
        with pytest.raises(
            gd.GraphError, match=r"^gd.op\(restricted\): the function raised an .*\n"
        ):
            compiled(bad)
    np.testing.assert_allclose(compiled(good), np.sum(np.sqrt(good) * 2, axis=1), rtol=1e-13)
    assert len(compiled.lower(good).kernels) == 1
    with pytest.raises(ValueError, match="negative"):
        gd.trace(f, bad).evaluate(bad)
    with pytest.raises(ValueError, match="negative"):
        run_in_python(gd.trace(f, bad), [bad])
    run_in_python(gd.trace(f, good), [good])


def test_exceptions_of_scalar_functions_in_other_places() -> None:
    raised = r"^gd.op\(restricted\): the function raised"

    def step(total: Any, x: Any) -> Any:
        return total + restricted(x), total

    loop = gd.compile(lambda x: gd.scan(step, np.float64(0), x)[0])
    np.testing.assert_allclose(loop(np.array([4.0, 9.0])), 5)
    with pytest.raises(gd.GraphError, match=raised):
        loop(np.array([4.0, -9.0]))
    number = gd.compile(lambda x, y: restricted(x) * y)
    np.testing.assert_allclose(number(4.0, Y), 2 * Y)
    with pytest.raises(gd.GraphError, match=raised):
        number(-4.0, Y)
    product = gd.compile(lambda x, y: restricted(x @ y))
    np.testing.assert_allclose(product(np.eye(2), np.eye(2)), np.eye(2))
    with pytest.raises(gd.GraphError, match=raised):
        product(np.eye(2), -np.eye(2))
    branch = gd.compile(lambda x: gd.cond(x > 0, restricted, lambda x: x, x))
    assert (branch(4.0), branch(-4.0)) == (2, -4)
    with pytest.raises(gd.GraphError, match=raised):
        gd.vmap(restricted)(np.array([1.0, -1.0]))
    with pytest.raises(gd.GraphError, match=raised):
        gd.compile(lambda x: restricted(x)[0])(np.array([-1.0, 1.0]))
    either = gd.compile(lambda x, i: restricted(x) + position_in_table(i))
    np.testing.assert_allclose(either(np.ones(3), np.array([0, 2, -3])), [1.5, 3.5, 1.5])
    with pytest.raises(
        gd.GraphError, match=r"^gd.op\(restricted\) or gd.op\(position_in_table\): "
    ):
        either(np.ones(3), np.array([0, 3, 1]))
    ruled = gd.op(numba.njit(restricted.__wrapped__), vjp=lambda g, out, x: g / (2 * out))
    gd.check_grads(lambda x: ruled(x) ** 2, np.abs(X) + 0.1)
    assert "watch" not in str(gd.trace(lambda x, y: smooth(x, y), X, Y))


def test_division_by_zero_is_that_of_numpy() -> None:
    inverse = gd.op(lambda x: 1 / x)
    np.testing.assert_array_equal(gd.compile(inverse)(np.array([0.0, 2.0])), [np.inf, 0.5])


def test_gradients_are_derived_or_given() -> None:
    gd.check_grads(lambda x, y: smooth(x, y), X, Y)
    gd.check_grads(lambda x: leaky(x) ** 2, X)
    gradient = gd.grad(lambda x: np.sum(leaky(x) * X))(X)
    np.testing.assert_allclose(gradient, np.where(X > 0, 1, 0.1) * X)
    per_example = gd.vmap(gd.grad(lambda x, y: np.sum(smooth(x, y)), 1))(X, Y)
    whole = gd.grad(lambda x, y: np.sum(smooth_in_numpy(x, y)), 1)(X, Y)
    np.testing.assert_allclose(per_example, whole, rtol=1e-11)


def test_the_digest_is_that_of_the_code_and_what_it_refers_to() -> None:
    def made(constant: float, name: str = "f") -> Any:
        inner = numba.njit(lambda x: x * constant)
        outer = numba.njit(lambda x: inner(x) + 1)
        outer.py_func.__name__ = name
        return user.registered(outer)

    assert made(2.0) is made(2.0)
    assert made(2.0).symbol != made(3.0).symbol
    assert made(2.0).is_kept
    other = numba.njit(lambda x: x + cache.SIZE_LIMIT)  # by way of a module of somebody's
    assert not user.registered(other).is_kept
    assert user.registered(other).symbol != user.registered(other).symbol


def test_kernels_are_kept_on_disk_where_that_is_sound(monkeypatch: Any, tmp_path: Any) -> None:
    monkeypatch.setenv("GRAPHDL_CACHE_DIR", str(tmp_path))
    f = gd.op(lambda x: x * 3 - 1)
    gd.compile(f)(X)
    assert cache.info().entries >= 1
    known, compiled = dict(native._known), native.compile_count()
    native._known.clear()
    try:
        np.testing.assert_allclose(gd.compile(f)(X), X * 3 - 1)
        assert native.compile_count() == compiled  # as in another process
        entries = cache.info().entries
        passing = gd.op(lambda x: x + cache.SIZE_LIMIT)
        np.testing.assert_allclose(gd.compile(passing)(X), X + cache.SIZE_LIMIT)
        assert cache.info().entries == entries
    finally:
        native._known.update(known)


# --- functions of arrays ----------------------------------------------------------------------


@numba.njit
def filtered(x, a, out):
    if a > 1:
        raise ValueError("unstable")
    out[0] = x[0]
    for i in range(1, len(x)):
        out[i] = a * out[i - 1] + (1 - a) * x[i]


@numba.njit
def reversed_filter(g, a):
    out = np.empty_like(g)
    carry = 0.0
    for i in range(len(g) - 1, 0, -1):
        carry = g[i] + a * carry
        out[i] = (1 - a) * carry
    out[0] = g[0] + a * carry
    return out


back = gd.op(reversed_filter, result=lambda g, a: g)
filter_ = gd.op(filtered, result=lambda x, a: x, vjp=lambda g, out, x, a: (back(g, a), None))


@gd.op(result=lambda x: (gd.spec(x.shape[0], x.dtype), gd.spec((), np.int64)))
@numba.njit
def extremes(x):
    found = np.empty(x.shape[0], x.dtype)
    for i in range(x.shape[0]):
        found[i] = x[i].max() - x[i].min()
    return found, x.size


def filtered_in_numpy(x: Any, a: float) -> Any:
    out = np.array(x)
    for i in range(1, len(x)):
        out[i] = a * out[i - 1] + (1 - a) * x[i]
    return out


def test_a_function_of_arrays_is_called_by_programs() -> None:
    x = RNG.standard_normal(30)
    f = gd.compile(lambda x, a: filter_(np.sin(x)[::2], a) * 2)
    expected = 2 * filtered_in_numpy(np.sin(x)[::2], 0.7)
    np.testing.assert_allclose(f(x, 0.7), expected, rtol=1e-12)
    graph = gd.trace(lambda x, a: filter_(np.sin(x)[::2], a) * 2, x, 0.7)
    np.testing.assert_allclose(graph.evaluate(x, 0.7), expected, rtol=1e-12)
    (got,) = run_in_python(graph, [x, 0.7])
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    np.testing.assert_allclose(filter_(x, 0.7), filtered_in_numpy(x, 0.7))
    wide, count = gd.compile(lambda x: extremes(x.T))(X)
    np.testing.assert_allclose(wide, np.ptp(X, axis=0))
    assert count == 20
    assert extremes(X)[1] == 20


def test_gradients_of_functions_of_arrays() -> None:
    x = RNG.standard_normal(12)
    gradient = gd.grad(lambda x: np.sum(filter_(x, 0.6) ** 2))(x)
    step = 1e-6
    for i in range(12):
        unit = np.eye(12)[i] * step
        up, down = (np.sum(filtered_in_numpy(x + s * unit, 0.6) ** 2) for s in (1, -1))
        np.testing.assert_allclose(gradient[i], (up - down) / (2 * step), rtol=1e-6, atol=1e-8)
    with pytest.raises(gd.GradientError, match=r"gd.op\(reversed_filter\) has no gradient"):
        gd.grad(lambda g: np.sum(back(g, 0.5)))(x)


def test_vmap_calls_it_for_each_example_and_loops_for_each_step() -> None:
    batch = RNG.standard_normal((3, 8))
    expected = np.stack([filtered_in_numpy(row, 0.4) for row in batch])
    np.testing.assert_allclose(gd.vmap(lambda x: filter_(x, 0.4))(batch), expected)
    gradient = gd.vmap(gd.grad(lambda x, a: np.sum(filter_(x, a) ** 2)), in_axes=(0, None))
    np.testing.assert_allclose(
        gradient(batch, 0.4)[1], gd.grad(lambda x: np.sum(filter_(x, 0.4) ** 2))(batch[1])
    )
    several = gd.vmap(lambda x: extremes(x)[0] + x[:, 0])(X[None] + np.zeros((2, 1, 1)))
    np.testing.assert_allclose(several[1], np.ptp(X, axis=1) + X[:, 0])
    scanned = gd.compile(lambda x: gd.scan(lambda c, _: (filter_(c, 0.5), c[1]), x, length=3)[0])
    thrice = filtered_in_numpy(filtered_in_numpy(filtered_in_numpy(batch[0], 0.5), 0.5), 0.5)
    np.testing.assert_allclose(scanned(batch[0]), thrice)


def test_mistakes() -> None:
    f = gd.compile(lambda x, a: filter_(x, a))
    with pytest.raises(gd.GraphError, match=r"filtered: the function raised an exception.*\n  at"):
        f(X[0], 1.5)
    np.testing.assert_allclose(f(X[0], 0.5), filtered_in_numpy(X[0], 0.5))  # and goes on
    with pytest.raises(
        gd.GradientError, match=r"gd.op\(restricted\) has no rule.*none can be derive"
    ):
        gd.grad(lambda x: np.sum(restricted(x)))(X)
    with pytest.raises(gd.DtypeError, match=r"gd.op\(<lambda>\): Numba cannot compile it for"):
        gd.compile(gd.op(lambda x: x.nothing))(X)
    with pytest.raises(gd.DtypeError, match=r"returns UniTuple.* a scalar function returns one nu"):
        gd.compile(gd.op(lambda x: (x, x)))(X)
    with pytest.raises(gd.ArgumentError, match="takes 3 arguments, not 4"):
        gd.compile(lambda x: smooth(x, x, x, x))(X)
    with pytest.raises(TypeError, match=r"a function that numba.njit has made, not 3"):
        gd.op(3)  # type: ignore[arg-type]
    bad = gd.op(lambda x: x, vjp=lambda g, out, x: (g[0],))
    with pytest.raises(gd.ShapeError, match=r"a cotangent of shape \(5,\) for an argument of"):
        gd.grad(lambda x: np.sum(bad(x)))(X)
    two = gd.op(lambda x: x, vjp=lambda g, out, x: (g, g))
    with pytest.raises(gd.ShapeError, match="must return 1 cotangents, one for each argument, n"):
        gd.grad(lambda x: np.sum(two(x)))(X)
    undeclared = gd.op(filtered, result=lambda x, a: x.shape)
    with pytest.raises(gd.DtypeError, match=r"result= has to return gd.spec"):
        gd.compile(lambda x: undeclared(x, 0.5))(X[0])
