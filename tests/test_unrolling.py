"""A Python loop that unrolls a thousand times is named in a warning."""

from __future__ import annotations

import warnings
from functools import partial

import numpy as np
import pytest

import graphdl as gd
from graphdl.unrolling import MAX_REPEATS


def step(x):
    return np.sin(x)


def loop(x, n):
    for _ in range(n):  # the culprit
        x = step(x)
        if n < 0:
            return None
    return x


def while_loop(x, n):
    while n:
        x, n = x * 1.5 + n, n - 1
    return x


def nested(x, n):
    for _ in range(n // 100):
        for _ in range(100):  # the inner one
            x = x * 0.5 + np.float64(1)
    return x


def comprehension(x, n):
    return sum([step(x + i) for i in range(n)])


@pytest.mark.parametrize(
    ("f", "line"),
    [
        (loop, "for _ in range(n):  # the culprit"),
        (while_loop, "while n:"),
        (nested, "for _ in range(100):  # the inner one"),
        (comprehension, "return sum([step(x + i) for i in range(n)])"),
    ],
)
def test_a_loop_that_unrolls_too_often_is_named(f, line):
    with pytest.warns(gd.UnrolledLoopWarning, match="unrolled") as caught:
        gd.trace(lambda x: f(x, MAX_REPEATS + 100), np.ones(2))
    assert len(caught) == 1
    assert str(caught[0].message).endswith(": " + line)
    assert "gd.fori_loop" in str(caught[0].message)
    assert caught[0].filename == __file__


def test_fewer_repeats_and_gradients_of_them_are_no_matter():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gd.trace(lambda x: loop(x, MAX_REPEATS), np.ones(2))
        gd.trace(gd.grad(lambda x: np.sum(loop(x, 600))), np.ones(2))
        gd.trace(lambda x: gd.fori_loop(0, 10**6, lambda i, x: step(x), x), np.ones(2))


def test_a_loop_around_the_trace_is_not_blamed():
    def halves(x, n):
        return halves(halves(x, n // 2), n - n // 2) if n > 1 else np.sin(x)

    for repeats in (MAX_REPEATS + 100,):
        with pytest.warns(gd.UnrolledLoopWarning, match="what repeats this line") as caught:
            gd.trace(partial(halves, n=repeats), np.ones(2))
        assert "np.sin(x)" in str(caught[0].message)
