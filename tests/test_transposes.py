"""Arrays that are not walked as they lie in memory: transposes, tiles, positions of extremes."""

from __future__ import annotations

import numpy as np
import pytest
from programs import check_compiled, run_in_python

import graphdl as gd

SHAPES = [(1, 1), (1, 40), (17, 1), (16, 128), (15, 129), (35, 300)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_an_array_beside_its_transpose(shape, dtype):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(shape).astype(dtype), rng.standard_normal(shape[::-1]).astype(dtype)

    def f(x, y):
        both = x.T * 2 + np.tanh(y)
        return both, np.sum(both), x + y.T

    wanted = f(x, y)
    near = {"rtol": 1e-6, "atol": 1e-4} if dtype == "float32" else {"rtol": 1e-12, "atol": 1e-12}
    for result, expected in zip(gd.compile(f)(x, y), wanted, strict=True):
        assert result.dtype == expected.dtype
        np.testing.assert_allclose(result, expected, **near)


def test_tiles_as_python():
    """A tile's first and last rows and columns, by the text of the kernel."""
    x = np.arange(18 * 131, dtype=np.float32).reshape(18, 131)
    y = x.T[::-1].copy()
    graph = gd.trace(lambda x, y: x.T - y, x, y)
    (source,) = [kernel.source for kernel in gd.compile(lambda x, y: x.T - y).lower(x, y).kernels]
    assert "tile" in source
    np.testing.assert_array_equal(run_in_python(graph, [x, y])[0], x.T - y)


@pytest.mark.parametrize("perm", [(0, 2, 1), (2, 1, 0), (1, 0, 2), (1, 2, 0), (2, 0, 1)], ids=str)
def test_permutations_of_three_axes(perm):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((5, 33, 19))
    y = rng.standard_normal(x.transpose(perm).shape)

    def f(x, y):
        return np.transpose(x, perm) * y, np.transpose(x, perm) + 1.0

    for result, expected in zip(gd.compile(f)(x, y), f(x, y), strict=True):
        np.testing.assert_array_equal(result, expected)


def test_donated_memory_beside_its_transpose():
    x = np.arange(40 * 40, dtype=np.float32).reshape(40, 40)
    wanted = x + x.T
    np.testing.assert_array_equal(gd.compile(lambda x: x + x.T, donate=(0,))(x.copy()), wanted)


def test_a_transpose_waits_for_what_is_done_to_every_element():
    graph = gd.compile(lambda x, b: np.tanh(x.T) * 2 + b).lower(
        gd.spec((4, 6), "float32"), gd.spec(4, "float32")
    )
    last = [node.op.name for node in graph.optimized.operations if node.op.family != "constant"]
    assert last.count("transpose") == 1
    assert last.index("transpose") > last.index("add")


def test_a_reduction_of_a_transpose_walks_the_array_as_it_lies():
    x = np.random.default_rng(2).standard_normal((3, 4, 5))

    def f(x):
        return np.transpose(x, (2, 0, 1)).sum(axis=0), np.transpose(x, (2, 0, 1)).max(axis=(1, 2))

    executable = gd.compile(f).lower(x)
    assert "transpose" not in {node.op.name for node in executable.optimized.operations}
    for result, expected in zip(gd.compile(f)(x), f(x), strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-12)
    y = np.random.default_rng(3).standard_normal((3, 4, 5, 2))
    g = gd.compile(lambda y: np.transpose(y, (3, 1, 2, 0)).sum(axis=1))
    wanted = np.transpose(y, (3, 1, 2, 0)).sum(axis=1)
    np.testing.assert_allclose(g(y), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8", "bool"])
@pytest.mark.parametrize("axis", [0, 1, 2, None])
def test_positions_of_extremes(axis, dtype):
    rng = np.random.default_rng(4)
    x = rng.integers(0, 4, (7, 37, 5)).astype(dtype)  # with many equals

    def f(x):
        return np.argmax(x, axis=axis), np.argmin(x, axis=axis)

    for result, expected in zip(gd.compile(f)(x), f(x), strict=True):
        assert result.dtype == expected.dtype
        np.testing.assert_array_equal(result, expected)


def test_positions_of_nan_and_infinities():
    x = np.array([[1, np.nan, 3, np.nan], [-np.inf] * 4, [np.inf, 2, np.inf, 1], [0.0, -0.0, 0, 0]])
    for function in (np.argmax, np.argmin):
        for axis in (0, 1):
            f = gd.compile(lambda x, function=function, axis=axis: function(x, axis=axis))
            np.testing.assert_array_equal(f(x), function(x, axis=axis))


@pytest.mark.parametrize("step", [-4, -1, 2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int8"])
def test_near_strides(step: int, dtype: str) -> None:
    """What is read with a step along the last loop, near or far, alone and reduced."""
    x = (100 * np.random.default_rng(0).standard_normal((7, 53))).astype(dtype)
    check_compiled(lambda x: np.abs(x[:, ::step]) + x[:, 3:4], x)
    check_compiled(lambda x: np.max(x[:, ::step], axis=1), x)


@pytest.mark.parametrize("shape", [(3, 1, 5, 2, 3), (70, 3, 40, 3), (5, 300, 7)])
def test_rows_are_counted_through_every_outer_loop(shape):
    """Nests whose loops do not join, of blocks that end in the middle of one."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=shape), rng.normal(size=shape[1:])
    z = rng.normal(size=(shape[0], *(1 for _ in shape[2:]), shape[-1]))

    def f(x, y, z):
        return (
            x[::-1] * y + z,
            np.swapaxes(x, 0, 1) + 1,
            np.sum(x * y, -1),
            np.swapaxes(x, -1, -2) - 1,
        )

    check_compiled(f, x, y, z)
