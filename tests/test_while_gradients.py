"""Gradients of loops whose number of steps the program finds out: against unrolled Python loops."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import plain_control
import pytest

import graphdl as gd

RNG = np.random.default_rng(12)
W = RNG.standard_normal((3, 3)) / 2
X = RNG.standard_normal(3)


def relaxed(m: Any, x: Any, w: Any, n: Any) -> Any:
    """Carries of several shapes and dtypes, values read at every step, an index that moves."""

    def step(s: Any) -> Any:
        i, y, total, count = s
        y = np.tanh(w @ y + x[i % 3])
        return i + 1, y, total + y.sum() * x[0], count + (y > 0)

    _, y, total, count = m.while_loop(lambda s: s[0] < n, step, (0, x, 0.5, np.zeros(3, np.int64)))
    return np.sum(y * y * count) + total


def slope(f: Any, x: Any, step: float = 1e-6) -> Any:
    return (f(x + step) - f(x - step)) / (2 * step)


@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_gradients_to_second_order_are_those_of_the_unrolled_loop(n: int) -> None:
    value, found = gd.value_and_grad(lambda x, w, n: relaxed(gd, x, w, n), argnums=(0, 1))(X, W, n)
    expected, wanted = gd.value_and_grad(
        lambda x, w: relaxed(plain_control, x, w, n), argnums=(0, 1)
    )(X, W)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)
    v = np.array([0.3, -1.0, 2.0])
    # not compiled: the interpreter of graphs is the second oracle
    graph = gd.trace(gd.hvp(lambda x: relaxed(gd, x, W, n)), X, v)
    unrolled = gd.trace(gd.hvp(lambda x: relaxed(plain_control, x, W, n)), X, v)
    np.testing.assert_allclose(
        graph.evaluate(X, v), unrolled.evaluate(X, v), rtol=1e-10, atol=1e-12
    )


def test_one_program_serves_any_number_of_steps() -> None:
    f = gd.compile(
        gd.grad(
            lambda x, n: gd.while_loop(
                lambda s: s[0] < n, lambda s: (s[0] + 1, np.sin(s[1]) + x), (0, x)
            )[1]
        )
    )
    for n in (3, 1000, 0, 20_000, 5):
        y, dy = 0.7, 1.0
        for _ in range(n):
            y, dy = np.sin(y) + 0.7, np.cos(y) * dy + 1.0
        np.testing.assert_allclose(f(0.7, n), dy, rtol=1e-12)


def test_newton_with_a_condition_on_the_values() -> None:
    """d sqrt(a) / da by the steps of Newton's method, to third order."""

    def root(a: Any) -> Any:
        def worse(x: Any) -> Any:
            return np.abs(x * x - a) > 1e-12

        return gd.while_loop(worse, lambda x: 0.5 * (x + a / x), a)

    a = 3.7
    np.testing.assert_allclose(gd.compile(root)(a), np.sqrt(a))
    np.testing.assert_allclose(gd.grad(root)(a), 0.5 / np.sqrt(a), rtol=1e-9)
    np.testing.assert_allclose(gd.grad(gd.grad(root))(a), -0.25 * a**-1.5, rtol=1e-6)
    third = gd.trace(gd.grad(gd.grad(gd.grad(root))), a).evaluate(a)
    np.testing.assert_allclose(third, 0.375 * a**-2.5, rtol=1e-4)


def test_forward_mode_goes_forth_and_keeps_no_sweep_back() -> None:
    def f(x: Any, n: Any) -> Any:
        return gd.while_loop(lambda s: s[0] < n, lambda s: (s[0] + 1, np.sin(s[1] * x)), (0, x))[1]

    def along(x: Any, n: Any) -> Any:
        return gd.jvp(lambda x: f(x, n), (x,), (1.0,))

    graph = gd.trace(along, 0.9, 4)
    (loop,) = [node for node in graph.operations if len(dict(node.attrs).get("sweeps", ())) > 1]
    assert [sweep.reverse for sweep in loop["sweeps"]] == [False, False]
    value, tangent = gd.compile(along)(0.9, 4)
    compiled = gd.compile(f)
    np.testing.assert_allclose(value, compiled(0.9, 4))
    np.testing.assert_allclose(tangent, slope(lambda x: compiled(x, 4), 0.9), rtol=1e-7)


def test_fori_loop_with_traced_bounds() -> None:
    def f(x: Any, lower: Any, upper: Any) -> Any:
        return np.sum(gd.fori_loop(lower, upper, lambda i, c: c * x + i, x) ** 2)

    static = gd.grad(lambda x: f(x, 2, 6))(X)
    np.testing.assert_allclose(gd.grad(f)(X, 2, 6), static, rtol=1e-12)


def loops_in_loops(m: Any, x: Any, n: int) -> Any:
    """A while loop of scans of branches, and around it another scan."""

    def row(c: Any, r: Any) -> Any:
        return m.cond(r > 0, lambda c: np.sin(c) * r, lambda c: c + r * c**2, c), c * r

    def turn(s: Any) -> Any:
        c, ys = m.scan(row, s[1], x)
        return s[0] + 1, c + np.sum(ys)

    def outer(c: Any, r: Any) -> Any:
        c = m.while_loop(lambda s: s[0] < n, turn, (0, c * r))[1]
        return c, np.sum(c)

    final, ys = m.scan(outer, 0.3, x[:2])
    return final + np.sum(ys * ys)


def concrete_loops_in_loops(x: Any, n: int) -> Any:
    """The same without a test of a traced value: the sign of each row is known."""
    signs = X > 0

    def row(c: Any, i: int) -> Any:
        return (np.sin(c) * x[i] if signs[i] else c + x[i] * c**2), c * x[i]

    def turn(c: Any) -> Any:
        total = 0.0
        for i in range(3):
            c, y = row(c, i)
            total = total + y
        return c + total

    c, squares = 0.3, 0.0
    for k in range(2):
        c = c * x[k]
        for _ in range(n):
            c = turn(c)
        squares = squares + c * c
    return c + squares


def test_loops_in_loops_to_second_order() -> None:
    n = 3
    value, gradient = gd.value_and_grad(lambda x: loops_in_loops(gd, x, n))(X)
    np.testing.assert_allclose(value, loops_in_loops(plain_control, X, n), rtol=1e-12)
    wanted = gd.trace(gd.grad(lambda x: concrete_loops_in_loops(x, n)), X).evaluate(X)
    np.testing.assert_allclose(gradient, wanted, rtol=1e-11)
    # reverse over forward and forward over reverse
    v = np.array([1.0, -0.5, 0.25])
    second = gd.trace(gd.hvp(lambda x: concrete_loops_in_loops(x, n)), X, v).evaluate(X, v)
    forward = gd.trace(gd.hvp(lambda x: loops_in_loops(gd, x, n)), X, v).evaluate(X, v)
    np.testing.assert_allclose(forward, second, rtol=1e-9)

    def directional(x: Any) -> Any:
        return gd.jvp(lambda x: loops_in_loops(gd, x, n), (x,), (v,))[1]

    np.testing.assert_allclose(gd.trace(gd.grad(directional), X).evaluate(X), second, rtol=1e-9)


def test_gradient_of_a_loop_of_gradients() -> None:
    """Gradient descent until the slope is small, differentiated by its target."""

    def settled(target: Any) -> Any:
        slope = gd.grad(lambda y: np.sum((y - target) ** 4 + (y - target) ** 2))
        return np.sum(
            gd.while_loop(
                lambda y: np.sum(slope(y) ** 2) > 1e-22, lambda y: y - 0.2 * slope(y), target + 0.5
            )
        )

    np.testing.assert_allclose(gd.grad(settled)(X), np.ones(3), rtol=1e-12)


N = np.array([0, 3, 1, 5])
XS = RNG.standard_normal((4, 3))


@pytest.mark.parametrize("n", [N, np.int64(2)], ids=["each its own", "the same"])
def test_vmap_of_grad_and_grad_of_vmap(n: Any) -> None:
    axes = (0, 0 if n.ndim else None)

    def f(x: Any, n: Any) -> Any:
        """A step too many divides by zero and reads out of bounds."""

        def step(s: Any) -> Any:
            return s[0] + 1, s[1] * x / (n - s[0]) + x[n - 1 - s[0] % 2] ** 2

        return np.sum(gd.while_loop(lambda s: s[0] < n, step, (0, x))[1])

    x = np.concatenate([XS, XS], axis=1)
    single = gd.compile(gd.grad(f))
    wanted = [single(row, n[i] if n.ndim else n) for i, row in enumerate(x)]
    np.testing.assert_allclose(gd.vmap(gd.grad(f), in_axes=axes)(x, n), wanted, rtol=1e-11)

    def total(x: Any, n: Any) -> Any:
        return np.sum(gd.vmap(f, in_axes=axes)(x, n))

    np.testing.assert_allclose(gd.grad(total)(x, n), wanted, rtol=1e-11)


def test_what_the_steps_keep_grows_with_them_and_stays() -> None:
    f = gd.compile(
        gd.grad(
            lambda x, n: gd.while_loop(
                lambda s: s[0] < n, lambda s: (s[0] + 1, s[1] * np.sin(s[1])), (0, x)
            )[1].sum()
        )
    )
    x = np.linspace(0.1, 3.0, 50)
    f(x, 10)
    (stack,) = stacks(f.lower(x, 10))
    small = stack.nbytes
    f(x, 1000)
    large = stack.nbytes
    assert large >= 1000 * x.nbytes > small > 0
    f(x, 500)
    assert stack.nbytes == large


def stacks(executable: Any) -> list[Any]:
    """The memory of a program that grew."""
    from graphdl.kernels.cpu.growing import Growing

    found, pending = [], list(executable._native.tape.keep)
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending += item.values()
        elif isinstance(item, Growing) and item.nbytes:
            found.append(item)
    return found


ENDLESS = """
import resource, numpy as np, graphdl as gd
f = gd.grad(lambda x: np.sum(gd.while_loop(lambda y: y[0] < 2, np.sin, x)))
x = np.ones(1 << 17)
f.lower(x)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
try:
    f(x)
except MemoryError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limit of the memory")
def test_a_loop_without_an_end_says_that_memory_ran_out() -> None:
    run = subprocess.run([sys.executable, "-c", ENDLESS], capture_output=True, text=True)
    assert "StepsMemoryError no memory is left for the steps of a loop" in run.stdout, run.stderr
    assert "<string>:3" in run.stdout
