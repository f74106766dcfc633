"""Loops compute only what is read, and do not copy carries that do not change."""

from __future__ import annotations

from typing import Any

import numpy as np

import graphdl as gd
from graphdl.compiler.pipeline import optimise

X = np.linspace(0.5, 1.5, 4)


def loops(graph: Any) -> list[Any]:
    optimised = optimise(graph)[-1][1]
    np.testing.assert_allclose(
        np.ravel(optimised.evaluate(*ARGS[id(graph)])[0]),
        np.ravel(graph.evaluate(*ARGS[id(graph)])[0]),
        rtol=1e-12,
    )
    return [node for node in optimised.operations if node.op.name in ("scan", "while")]


ARGS: dict[int, Any] = {}


def traced(f: Any, *args: Any) -> Any:
    graph = gd.trace(f, *args)
    ARGS[id(graph)] = args
    return graph


def test_a_carry_that_does_not_change_is_read_instead() -> None:
    def f(x: Any, w: Any) -> Any:
        def step(c: Any, _: Any) -> Any:
            return (np.sin(c[0]) * c[1], c[1], c[2] + 0 * c[2]), c[1]

        (a, w, z), ys = gd.scan(step, (x, w, x * 2), length=5)
        return a, w + z.sum() + ys.sum()

    (loop,) = loops(traced(f, X, X))
    assert (loop["consts"], loop["carries"], len(loop["body"].outputs)) == (1, 2, 3)
    a, b = gd.compile(f)(X, X)
    for found, wanted in zip((a, b), gd.trace(f, X, X).evaluate(X, X), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_what_is_not_read_is_not_computed() -> None:
    def f(x: Any) -> Any:
        def step(c: Any, row: Any) -> Any:
            # the second carry feeds the first, the third only itself
            return (c[0] + c[1], c[1] * row, np.exp(c[2]) + row), (c[0], np.cos(row), c[2])

        (a, _, _), (ys, _, _) = gd.scan(step, (0.0, 1.0, 2.0), x)
        return a, ys

    (loop,) = loops(traced(f, X))
    assert (loop["carries"], len(loop["body"].outputs)) == (2, 3)
    assert "exp" not in str(loop["body"])
    assert "cos" not in str(loop["body"])


def test_while_loops_and_the_carries_that_their_condition_reads() -> None:
    def f(x: Any, n: Any) -> Any:
        def step(s: Any) -> Any:
            i, stop, step, y, unread = s
            return i + step, stop, step, y * x, np.tanh(unread)

        return gd.while_loop(lambda s: s[0] < s[1], step, (0, n, 2, x, x))[3], n

    (loop,) = loops(traced(f, X, 7))
    (sweep,) = loop["sweeps"]
    assert (loop["condition_consts"], sweep.consts, sweep.carries) == (1, 2, 2)
    assert "tanh" not in str(sweep.body)
    np.testing.assert_allclose(gd.compile(f)(X, 7)[0], X**5)


def test_a_gradient_that_is_not_asked_for_costs_nothing() -> None:
    def f(x: Any, w: Any) -> Any:
        return np.sum(gd.scan(lambda c, row: (np.tanh(c * w + row), None), w, x)[0])

    x = np.ones((6, 4))

    def gradients(x: Any, w: Any) -> Any:
        return gd.grad(f, argnums=(0, 1))(x, w)[0], x

    both = loops(traced(lambda x, w: gd.grad(f, argnums=(0, 1))(x, w), x, X))
    one = loops(traced(gradients, x, X))
    assert both[-1]["carries"] == 2  # the sum for w, and what is carried back
    assert one[-1]["carries"] == 1
