"""Arrays that lie across the rows of reductions are transposed in memory first."""

from __future__ import annotations

import numpy as np
import pytest

import graphdl as gd
from graphdl.compiler.fuse import STRAIGHTENED, borders
from graphdl.compiler.origins import is_apart
from graphdl.compiler.straighten import straighten
from tests.helpers import trace
from tests.programs import check_compiled


def normal(*shape, dtype):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(dtype)


def softmax(x):
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


def copies(f, *args):
    return [node for node in straighten(gd.trace(f, *args)).operations if is_apart(node)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(130, 70), (67, 141)], ids=str)
def test_values_are_those_of_numpy(dtype, shape):
    x, y = normal(*shape, dtype=dtype), normal(*shape[::-1], dtype=dtype)

    def f(x, y):
        rows = np.sum(x.T * y, axis=1), np.sum(x * y.T, axis=0), np.max(x.T - y, axis=0)
        return (*rows, softmax(x.T + y), np.mean(y * y, axis=1)[:, None] * x.T)

    slopes = gd.grad(lambda x, y: np.sum(softmax(x.T + y) ** 2), (0, 1))
    check_compiled(f, x, y, ulps=64, python=False)
    check_compiled(slopes, x, y, ulps=64, numpy=False, python=False, separate=False)


def test_of_what_is_repeated_one_copy_is_made():
    x, y = normal(3, 5, 90, 110, dtype="float32"), normal(110, 90, dtype="float32")

    def f(x, y):
        return softmax(x + y.T)

    (copy,) = copies(f, x, y)
    assert copy.shape == (90, 110)
    check_compiled(f, x, y, ulps=64, python=False, separate=False)


def test_what_lies_along_or_is_small_or_has_no_rows_stays():
    x, y = np.ones((200, 100)), np.ones((100, 200))
    small = np.ones((20, 30)), np.ones((30, 20))
    assert len(copies(lambda x, y: softmax(x.T + y), x, y)) == 1
    assert not copies(lambda x, y: softmax(x.T + y), *small)
    assert not copies(lambda x, y: softmax(x + y.T.copy().T), x, y.T)
    assert not copies(lambda x, y: np.exp(x.T + y), x, y)
    assert not copies(lambda x, y: np.sum(x.T + y), x, y)  # passes through tiles
    assert not copies(lambda x: softmax(x.T), x)  # nothing lies along
    assert not copies(lambda x: softmax(x[:, ::2] + 1), x)
    graph = trace(lambda x: x + 1, x)
    assert straighten(graph) is graph


def test_other_readers_read_the_array_as_it_lies():
    x, y = np.ones((200, 100)), np.ones((100, 200))
    graph = straighten(gd.trace(lambda x, y: (softmax(x.T + y), x.T @ x, x.T), x, y))
    (copy,) = (node for node in graph.operations if is_apart(node))
    readers = [node for node in graph.operations if copy in node.inputs]
    assert [node.op.name for node in readers] == ["add"]


def test_explain_says_why_they_are_two():
    x, y = np.ones((200, 100)), np.ones((100, 200))
    executable = gd.compile(lambda x, y: softmax(x.T + y)).lower(x, y)
    assert len(executable.kernels) == 2
    assert STRAIGHTENED in str(executable.explain())
    assert any(border.why == STRAIGHTENED for border in borders(executable.optimized)[1])
