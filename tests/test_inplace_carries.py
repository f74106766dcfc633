"""A step of a loop that changes one element of a carried array costs one element, both ways.

Costs are counted, not measured: the bytes that the launches of all bodies touch, less those that
would copy an array over itself, which are not run.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plain_control
import pytest

import graphdl as gd
from graphdl.kernels.memory import is_idle
from graphdl.trees import leaves_of

STEPS = 8


def recurrence(x: Any, w: Any) -> Any:
    """Reads the element before, replaces one."""

    def step(i: Any, x: Any) -> Any:
        x = x.copy()
        x[i] = np.sin(x[i - 1]) * w + x[i]
        return x

    return gd.fori_loop(1, STEPS, step, x)


def added(x: Any, w: Any) -> Any:
    """Adds to elements that are read again, by an index that is carried, in a while loop."""

    def step(s: Any) -> Any:
        i, x, total = s
        x = x.copy()
        x[i] += w * x[i + 1] ** 2
        x[-1] = x[i] * w
        return i + 1, x, total + x[i]

    _, x, total = gd.while_loop(lambda s: s[0] < STEPS, step, (0, x, 0.0))
    return x * total


def swapped(x: Any, w: Any) -> Any:
    """A carried array beside others that take each other's place, and one result a step."""

    def step(c: Any, t: Any) -> Any:
        x, a, b = c
        old = x[t]
        x = x.copy()
        x[t] = a * w
        return (x, b, a + old), x[t + 1] * b

    (x, a, b), ys = gd.scan(step, (x, 1.0, 0.5), np.arange(STEPS))
    return x * a + b + np.sum(ys)


def rows(x: Any, w: Any) -> Any:
    """A row of a matrix at a time, several of a kind."""
    x = x.reshape(-1, 2)

    def step(i: Any, c: Any) -> Any:
        x, y = c
        x, y = x.copy(), y.copy()
        y[i] = x[i] * w + y[i]
        x[i + 1] = np.cos(y[i])
        return x, y

    x, y = gd.fori_loop(0, STEPS, step, (x, x * 2))
    return (x + y).ravel()


def chosen(x: Any, w: Any) -> Any:
    """Branches that replace an element, that replace two, that leave the array as it is."""

    def step(c: Any, t: Any) -> Any:
        def first(x: Any) -> Any:
            x = x.copy()
            x[t] = np.sin(x[t + 1]) * w
            return x

        def second(x: Any) -> Any:
            x = x.copy()
            x[t + 1] += x[t] * w
            return first(x)

        x, total = c
        x = gd.switch(t % 3, [first, second, lambda x: x], x)
        return (x, total + x[t] * x[t + 1]), None

    (x, total), _ = gd.scan(step, (x, 0.0), np.arange(STEPS))
    return x * total


def decided(x: Any, w: Any) -> Any:
    """A condition in a condition, between two other changes of the array."""

    def step(s: Any) -> Any:
        i, x = s
        x = x.copy()
        x[i] += w

        def larger(x: Any, v: Any) -> Any:
            x = x.copy()
            x[i + 1] = v * x[i]
            return gd.cond(i % 4 == 0, lambda x: x, lambda x: halved(x, i), x)

        x = gd.cond(i % 2 == 0, larger, lambda x, v: x, x, x[i + 2] + 0.7)
        x[-1] += x[i + 1] ** 2
        return i + 1, x

    return gd.while_loop(lambda s: s[0] < STEPS, step, (0, x))[1]


def halved(x: Any, i: Any) -> Any:
    x = x.copy()
    x[i] *= 0.5
    return x


def plain(f: Any) -> Any:
    """The same on NumPy arrays: the loops in Python."""

    def run(x: Any, w: Any) -> Any:
        names = f.__globals__ | {"gd": plain_control}
        return type(f)(f.__code__, names, f.__name__, None, f.__closure__)(x, w)

    return run


LOOPS = [recurrence, added, swapped, rows, chosen, decided]


@pytest.mark.parametrize("f", LOOPS, ids=lambda f: f.__name__)
def test_values_and_gradients(f: Any) -> None:
    x = np.linspace(-1, 1, 2 * STEPS + 2)
    np.testing.assert_allclose(gd.compile(f)(x, 0.5), plain(f)(x, 0.5), rtol=1e-12)
    gd.check_grads(lambda x, w: np.sum(f(x, w) ** 2), x, 0.5)
    v = np.cos(np.arange(x.size))
    second = gd.trace(gd.hvp(lambda x: np.sum(f(x, 0.5) ** 2)), x, v)
    slopes = gd.trace(gd.grad(lambda x: np.sum(plain(f)(x, 0.5) ** 2)), x)
    step = 1e-6
    wanted = (slopes.evaluate(x + step * v) - slopes.evaluate(x - step * v)) / (2 * step)
    np.testing.assert_allclose(second.evaluate(x, v), wanted, rtol=2e-6, atol=2e-7)


def bytes_of_a_step(executable: Any) -> int:
    """What the launches of all bodies read and write in a step."""
    total = 0
    pending = [body for launch in executable._program.launches for body in launch.bodies]
    while pending:
        body = pending.pop()
        for launch in body.program.launches:
            if not is_idle(launch, body.memory):
                total += launch.bytes
            pending += launch.bodies
    assert total > 0
    return total


@pytest.mark.parametrize("f", LOOPS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("order", [0, 1])
def test_a_step_costs_the_same_for_any_size(f: Any, order: int) -> None:
    g = gd.grad(lambda x, w: np.sum(f(x, w) ** 2), argnums=(0, 1)) if order else f
    small, large = (
        bytes_of_a_step(gd.compile(g).lower(gd.spec(n), gd.spec(()))) for n in (1_000, 1_000_000)
    )
    assert small == large < 4000


def nested(x: Any, w: Any) -> Any:
    """Loops in loops over the same array, as loops over rows and columns are."""

    def outer(i: Any, c: Any) -> Any:
        def inner(j: Any, x: Any) -> Any:
            x = x.copy()
            x[i + j] = np.sin(x[i + j + 1]) * w + x[i + j]
            return x

        x, total = c
        x = gd.fori_loop(0, 3, inner, x)
        return x, total + x[i]

    x, total = gd.fori_loop(0, STEPS, outer, (x, 0.0))
    return x * total


def test_loops_in_loops_hand_the_array_on_in_place() -> None:
    x = np.linspace(-1, 1, 2 * STEPS + 2)
    np.testing.assert_allclose(gd.compile(nested)(x, 0.5), plain(nested)(x, 0.5), rtol=1e-12)
    gd.check_grads(lambda x, w: np.sum(nested(x, w) ** 2), x, 0.5)
    executable = gd.compile(nested).lower(gd.spec(100_000), gd.spec(()))
    (outer,) = [launch for launch in executable._program.launches if launch.bodies]
    memory = outer.bodies[0].memory
    assert memory.arena_bytes < 10_000
    (inner,) = [launch for launch in outer.bodies[0].program.launches if launch.bodies]
    ((result, first),) = inner.in_place
    assert memory.places[result] == memory.places[first]


def around(x: Any, w: Any) -> Any:
    """An element is replaced before and after a loop over the same array."""

    def outer(i: Any, x: Any) -> Any:
        def inner(j: Any, x: Any) -> Any:
            x = x.copy()
            x[i + j] = np.sin(x[i + j + 1]) * w
            return x

        x = x.copy()
        x[i] *= w
        x = gd.fori_loop(0, 2, inner, x).copy()
        x[i + 1] += x[i]
        return x

    return gd.fori_loop(0, STEPS, outer, x)


def test_loops_between_changes_hand_the_array_on_in_place() -> None:
    x = np.linspace(-1, 1, 2 * STEPS + 2)
    np.testing.assert_allclose(gd.compile(around)(x, 0.5), plain(around)(x, 0.5), rtol=1e-12)
    small, large = (
        bytes_of_a_step(gd.compile(around).lower(gd.spec(n), gd.spec(()))) for n in (1_000, 10**6)
    )
    assert small == large < 2000


#: Branches that change an array which is read elsewhere, lies in another, or changes place.
SHARED: dict[str, Any] = {
    "read later": lambda p, y: (gd.cond(p > 0, halved, lambda y, i: y, y, 1), y + 1),
    "a chain": lambda p, y: halved(gd.switch(p, [halved, lambda y, i: y * i], halved(y, 0), 1), 2),
    "a new array": lambda p, y: gd.cond(p > 0, halved, lambda y, i: np.zeros_like(y), y * 2, 1),
    "twice": lambda p, y: gd.cond(
        p > 0, lambda a, b: (halved(a, 0), halved(b, 1)), lambda a, b: (a, b), y, y
    ),
    "part of another": lambda p, y: gd.cond(
        p > 0, lambda a, b: (halved(a, 1), b * 2), lambda a, b: (a, b), y, y[1:3]
    ),
    "exchanged": lambda p, y: gd.scan(
        lambda c, i: (
            gd.cond(i > p, lambda a, b: (b, halved(a, i)), lambda a, b: (halved(a, i), b), *c),
            c[0][i],
        ),
        (y, y * 2),
        np.arange(4),
    ),
    "one result twice": lambda p, y: gd.cond(
        p > 0, lambda a: (halved(a, 0), a), lambda a: (a, a), y * 3
    ),
    "the old one kept": lambda p, y: gd.scan(
        lambda c, i: (gd.cond(i == p, halved, lambda c, i: c, c, i), c), y, np.arange(3)
    ),
}


@pytest.mark.parametrize("name", SHARED)
def test_branches_change_only_what_nothing_else_reads(name: str) -> None:
    f, y = SHARED[name], np.arange(1.0, 7.0)
    compiled = gd.compile(f)
    for p in (0, 1, 2):
        want = gd.trace(f, p, y).evaluate(p, y)
        for got, one in zip(leaves_of(compiled(p, y)), leaves_of(want), strict=True):
            np.testing.assert_array_equal(got, one)
    np.testing.assert_array_equal(y, np.arange(1.0, 7.0))
