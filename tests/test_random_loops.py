"""Random nests of loops and branches: values against Python loops, derivatives against slopes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import plain_control
import pytest

import graphdl as gd

SIZE = 5
#: (module, x, w) -> x: loops come from the module, gd or plain Python.
Part = Callable[[Any, Any, Any], Any]


def mixed(rng: np.random.Generator) -> Part:
    a, b = rng.uniform(0.3, 0.9, 2)
    k = int(rng.integers(4))
    if k == 0:
        return lambda m, x, w: np.sin(x) * a + w * b
    if k == 1:
        return lambda m, x, w: np.tanh(x * w + b)
    if k == 2:
        return lambda m, x, w: np.flip(x) * a + np.sum(x * w) * 0.1
    return lambda m, x, w: np.cumsum(x) * 0.3 - w


def replaced(rng: np.random.Generator) -> Part:
    i, j = (int(k) for k in rng.integers(SIZE, size=2))

    def part(m: Any, x: Any, w: Any) -> Any:
        y = x.copy()
        y[i] = np.cos(x[j]) * w[i]
        return y

    return part


def scanned(rng: np.random.Generator, depth: int) -> Part:
    inner, reverse, length = nest(rng, depth - 1), bool(rng.integers(2)), int(rng.integers(1, 5))

    def part(m: Any, x: Any, w: Any) -> Any:
        def step(c: Any, row: Any) -> Any:
            y, total, t = c
            z = inner(m, y, w + row * 0.1)
            return (z, total + z[0] * y[1], t + 1), (z * row, t)

        rows = np.stack([x * (k + 1) / length for k in range(length)])
        (y, total, _), (ys, _) = m.scan(step, (x, 0.5, 0), rows, reverse=reverse)
        return y + np.tanh(total) + np.sum(ys, axis=0) * 0.1

    return part


def repeated(rng: np.random.Generator, depth: int) -> Part:
    inner, count = nest(rng, depth - 1), int(rng.integers(0, 4))

    def part(m: Any, x: Any, w: Any) -> Any:
        def step(s: Any) -> Any:
            i, y, z = s
            return i + 1, inner(m, y, z), z

        return m.while_loop(lambda s: s[0] < count + s[2][0] * 0, step, (0, x, w))[1]

    return part


def settled(rng: np.random.Generator, depth: int) -> Part:
    inner = nest(rng, depth - 1)

    def part(m: Any, x: Any, w: Any) -> Any:
        def step(s: Any) -> Any:
            return s[0] * 0.5, np.tanh(inner(m, s[1], w)) * 0.5

        return m.while_loop(lambda s: s[0] > 0.3, step, (np.sum(x**2) + 0.1, x))[1]

    return part


def counted(rng: np.random.Generator, depth: int) -> Part:
    inner, upper = nest(rng, depth - 1), int(rng.integers(1, SIZE))

    def part(m: Any, x: Any, w: Any) -> Any:
        def step(i: Any, y: Any) -> Any:
            z = inner(m, y, w).copy()
            z[i] = z[i - 1] * 0.5 + y[i]
            return z

        return m.fori_loop(0, upper, step, x)

    return part


def chosen(rng: np.random.Generator, depth: int) -> Part:
    first, second, at = nest(rng, depth - 1), nest(rng, depth - 1), int(rng.integers(SIZE))

    def part(m: Any, x: Any, w: Any) -> Any:
        return m.cond(
            x[at] > 0.1, lambda x, w: first(m, x, w), lambda x, w: second(m, x, w) * 0.9, x, w
        )

    return part


def nest(rng: np.random.Generator, depth: int) -> Part:
    """Two or three parts, one after the other."""
    kinds: list[Any] = [mixed, replaced]
    if depth:
        kinds += [scanned, repeated, settled, counted, chosen] * 2
    parts = []
    for _ in range(2):
        kind = kinds[int(rng.integers(len(kinds)))]
        parts.append(kind(rng) if kind in (mixed, replaced) else kind(rng, depth))

    def whole(m: Any, x: Any, w: Any) -> Any:
        for part in parts:
            x = part(m, x, w)
        return x

    return whole


def direction(f: Any, x: Any, v: Any) -> Any:
    step = 1e-6
    return (f(x + step * v) - f(x - step * v)) / (2 * step)


@pytest.mark.parametrize("seed", range(3))
def test_random_nests(seed: int) -> None:
    rng = np.random.default_rng(seed)
    part = nest(rng, 2)
    x, w, v = (rng.standard_normal(SIZE) for _ in range(3))

    def loss(x: Any) -> Any:
        return np.sum(np.sin(part(gd, x, w)))

    def plain(x: Any) -> Any:
        return np.sum(np.sin(part(plain_control, x, w)))

    value, gradient = gd.compile(gd.value_and_grad(loss))(x)
    np.testing.assert_allclose(value, plain(x), rtol=1e-11)
    np.testing.assert_allclose(gradient @ v, direction(plain, x, v), rtol=2e-5, atol=1e-7)
    found, pushed = gd.trace(lambda x, v: gd.jvp(loss, (x,), (v,)), x, v).evaluate(x, v)
    np.testing.assert_allclose((found, pushed), (value, gradient @ v), rtol=1e-10, atol=1e-12)
    slopes = gd.trace(gd.grad(loss), x)
    np.testing.assert_allclose(slopes.evaluate(x), gradient, rtol=1e-10, atol=1e-12)
    second = gd.trace(gd.hvp(loss), x, v).evaluate(x, v)
    np.testing.assert_allclose(second, direction(slopes.evaluate, x, v), rtol=1e-4, atol=1e-5)
    batch = np.stack([x, v, x * 0.5])
    gradients = gd.trace(gd.vmap(gd.grad(loss)), batch).evaluate(batch)
    for row, one in zip(gradients, batch, strict=True):
        np.testing.assert_allclose(row, slopes.evaluate(one), rtol=1e-9, atol=1e-11)
    budget = gd.compile(gd.grad(loss), memory_budget=100)
    with pytest.warns(gd.MemoryBudgetWarning):
        budget.lower(x)
    np.testing.assert_allclose(budget(x), gradient, rtol=1e-9, atol=1e-11)
