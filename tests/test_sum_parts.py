"""Sums of arrays that are zero outside of a part, or inside of one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

import graphdl as gd
from graphdl.compiler.pipeline import optimise

RNG = np.random.default_rng(3)
X, V = RNG.normal(size=(40, 30)), RNG.normal(size=(38, 29))


def gradient(f: Any, *args: Any) -> Counter[str]:
    """Checks the gradient of the sum of squares, and counts its ops."""

    def loss(*args: Any) -> Any:
        return (f(*args) ** 2).sum()

    every = tuple(range(len(args)))
    gd.check_grads(loss, *args)
    graph = optimise(gd.trace(gd.grad(loss, argnums=every), *args))[-1][1]
    found = graph.evaluate(*args)
    compiled = gd.compile(gd.grad(loss, argnums=every))(*args)
    for a, b in zip(found, compiled, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    return Counter(node.op.name for node in graph.operations)


@pytest.mark.parametrize("sign", [1, -1])
def test_going_back_through_what_is_added_to_a_part_changes_nothing(sign):
    def f(x, v):
        for _ in range(3):
            x = x.copy()
            if sign == 1:
                x[1:-1, 1:] += v
            else:
                x[1:-1, 1:] -= v
        return x

    ops = gradient(f, X, V)
    assert ops["pad"] == 0
    assert ops["update"] <= 3  # those of the way there


def test_what_a_part_is_multiplied_by_is_written_in_its_place():
    def f(x, v):
        x = x.copy()
        x[1:-1, 1:] *= v
        return x

    ops = gradient(f, X, V)
    assert ops["pad"] == 0
    assert ops["update"] == 2


def test_neighbours_are_read_where_they_lie():
    """One pass a step: no scaled part is made before zeros are put around it."""

    def f(x):
        for _ in range(2):
            y = x.copy()
            y[1:, :] -= 0.5 * (x[1:, :] - x[:-1, :])
            x = y
        return x

    graph = optimise(gd.trace(gd.grad(lambda x: (f(x) ** 2).sum()), X))[-1][1]
    padded = [node.inputs[0] for node in graph.operations if node.op.name == "pad"]
    assert padded
    assert {node.op.name for node in padded} == {"slice"}
    gradient(f, X)


def test_parts_of_a_small_part_are_put_there_first():
    def f(x):
        part = x[:10]
        y = np.tanh(part)
        return np.concatenate([y.reshape(-1), np.exp(part[1:, 3:]).reshape(-1)])

    def g(x):
        return np.concatenate([f(x), np.sin(x[:10]).reshape(-1)])

    gradient(f, X)
    ops = gradient(g, X)
    assert ops["pad"] == 2


def test_other_sums_stay_as_they_are():
    def f(x, y):
        return x[1:] * 2 + y - x[:-1]

    ops = gradient(f, X, X[1:])
    assert ops["pad"] == 2


def test_one_hole_is_filled_once():
    """Two sums with the same terms, one of which is also used by itself."""

    def f(x, v):
        y = x.copy()
        y[1:-1, 1:] = v * x[1:-1, 1:]
        z = y.copy()
        z[:3] = x[:3] * y[3:6]
        return np.concatenate([y, z, x[1:-1]])

    gradient(f, X, V)
