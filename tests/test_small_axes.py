"""Pairs of points: a short axis of what is computed for each pair becomes values of its own."""

import numpy as np
import pytest

import graphdl as gd
from graphdl.compiler.small_axes import LONGEST, split_small_axes


def distances(p, q):
    return np.sum(np.sqrt(np.sum((p[:, None] - q[None]) ** 2, -1) + 0.5), 1)


def gaussian(p, q):
    return np.sum(np.exp(-np.sum((p[:, None] - q[None]) ** 2, -1)))


def chebyshev(p, q):
    return np.sum(np.max(np.abs(p[:, None] - q[None]), axis=2), axis=0)


def volume(p, q):
    return np.sum(np.prod(p[:, None] * 0.5 + np.tanh(q)[None], axis=-1), axis=1)


def inside(p, q):
    return np.sum(np.all(np.abs(p[:, None] - q[None]) < 0.7, axis=-1), axis=1)


def moved(p, q):
    """The axis in front, seen through transposes, summed together with another one."""
    offset = (p.T[:, :, None] - q.T[:, None, :]) * np.arange(1.0, p.shape[1] + 1)[:, None, None]
    return np.sum(np.cos(offset), axis=(0, 2))


def attraction(p, q):
    """What each point is pulled by all the others: the axis comes back at the end."""
    offset = q[None] - p[:, None]
    near = np.sum(offset**2, axis=-1, keepdims=True) + 0.1
    return np.sum(offset / near**1.5, axis=1)


def used_twice(p, q):
    offset = p[:, None] - q[None]
    return np.sum(np.sum(offset**2, -1), 1) + np.sum(p, axis=1), np.sum(offset, axis=(0, 1)), p * 2


FUNCTIONS = [distances, gaussian, chebyshev, volume, inside, moved, attraction, used_twice]


def points(count, others, width, dtype=np.float64):
    rng = np.random.default_rng(7)
    return tuple(rng.standard_normal((n, width)).astype(dtype) for n in (count, others))


def leaves(result):
    return result if isinstance(result, tuple) else (result,)


def widest(graph):
    """The most elements of a computed value, whatever it is read through."""
    return max(node.type.size for node in graph.operations)


def reduced_short_axis(graph):
    return [
        node
        for node in graph.operations
        if node.op.family == "reduction" and node.inputs[0].type.ndim == 3
    ]


@pytest.mark.parametrize("width", [1, 2, 3, LONGEST, LONGEST + 1])
@pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f.__name__)
def test_the_function_stays_the_same(f, width):
    for count, others in ((5, 4), (1, 6), (3, 1), (0, 2)):
        p, q = points(count, others, width)
        graph = gd.trace(f, p, q)
        made = split_small_axes(graph)
        values = made.evaluate(p, q), graph.evaluate(p, q)
        for found, wanted in zip(*map(leaves, values), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("f", [distances, gaussian, chebyshev, volume, attraction])
def test_no_loop_over_pairs_has_a_short_one_inside(f):
    graph = gd.compile(f).lower(*points(50, 40, 3)).optimized
    assert not reduced_short_axis(graph), graph
    assert widest(graph) == 50 * 40


def test_an_axis_that_is_not_short_or_not_of_pairs_stays():
    p, q = points(5, 4, LONGEST + 1)
    graph = gd.trace(distances, p, q)
    assert split_small_axes(graph) is graph
    rows = gd.trace(lambda x: np.sum(np.tanh(x), axis=1), np.ones((5, 3)))
    assert split_small_axes(rows) is rows


def test_offsets_that_are_asked_for_are_not_taken_apart():
    def f(p, q):
        offset = p[:, None] - q[None]
        return offset, np.sum(offset**2, axis=-1)

    p, q = points(5, 4, 3)
    graph = gd.trace(f, p, q)
    assert split_small_axes(graph) is graph
    for found, wanted in zip(gd.compile(f)(p, q), f(p, q), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f.__name__)
def test_compiled(f, dtype):
    p, q = points(37, 50, 3, dtype)
    wanted = f(p, q)
    found = gd.compile(f)(p, q)
    tolerance = 1e-4 if dtype == "float32" else 1e-10
    for a, b in zip(leaves(found), leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("f", [distances, gaussian, volume, moved, attraction])
def test_gradients(f):
    gd.check_grads(lambda p, q: np.sum(f(p, q)), *points(6, 5, 3), order=2)


def test_the_value_and_both_gradients_are_one_pass_that_keeps_no_pair():
    step = gd.compile(gd.value_and_grad(gaussian, argnums=(0, 1)))
    executable = step.lower(*points(600, 500, 3, np.float32))
    loops = [kernel for kernel in executable.kernels if "subtract" in kernel.name]
    assert len(loops) == 1, [kernel.name for kernel in executable.kernels]
    assert executable.memory.arena_bytes < 600 * 500 * 4 / 2
