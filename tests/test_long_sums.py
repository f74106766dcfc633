"""Products of few rows with a large matrix are summed in parts; axes of one element not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import graphdl as gd
from graphdl.compiler.pipeline import DEVICE_PASSES, PASSES, optimise
from graphdl.graph import Graph
from graphdl.kernels.cpu import pool

RNG = np.random.default_rng(5)


def normal(*shape: int, dtype: Any = "float32") -> Any:
    return RNG.normal(size=shape).astype(dtype)


def products(graph: Graph) -> list[tuple[int, ...]]:
    return [node.shape for node in graph.operations if node.op.name == "contract"]


def optimised(f: Callable[..., Any], *arrays: Any, passes: Any = PASSES) -> Graph:
    return optimise(gd.trace(f, *arrays), passes)[-1][1]


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = pool.num_threads()
    yield gd.set_num_threads
    gd.set_num_threads(before)


@pytest.mark.parametrize(
    ("rows", "k", "n", "shape"),
    [
        (1, 784, 512, (4, 1, 512)),
        (12, 784, 512, (4, 12, 512)),
        (13, 784, 512, (2, 13, 512)),
        (24, 784, 512, (2, 24, 512)),
        (25, 784, 512, (25, 512)),
        (3, 786, 500, (3, 3, 500)),  # as many parts as divide the length
        (3, 787, 500, (3, 500)),  # a prime
        (3, 784, 64, (3, 64)),  # small
        (3, 2048, 2048, (3, 2048)),  # larger than the caches
        (1, 100, 900, (1, 900)),  # a short sum
    ],
)
def test_how_many_parts(rows: int, k: int, n: int, shape: tuple[int, ...]) -> None:
    assert products(optimised(np.matmul, normal(rows, k), normal(k, n))) == [shape]


def test_a_vector() -> None:
    assert products(optimised(np.matmul, normal(784), normal(784, 512))) == [(4, 512)]


@pytest.mark.parametrize(
    "f",
    [
        lambda x, w: x @ w.T,  # sums of adjacent elements
        lambda x, w: np.einsum("bk,bkn->bn", x[:, :512], np.broadcast_to(w, (2, 512, 784))),
    ],
)
def test_products_that_stay(f: Callable[..., Any]) -> None:
    after = optimised(f, normal(2, 784), normal(512, 784))
    assert "sum" not in [node.op.name for node in after.operations]


def test_a_gpu_cuts_by_itself() -> None:
    x, w = normal(1, 784), normal(784, 512)
    assert products(optimised(np.matmul, x, w, passes=DEVICE_PASSES)) == [(1, 512)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("rows", "k", "n"), [(1, 784, 512), (5, 660, 301), (16, 512, 257)])
def test_values_with_one_thread_and_two(
    rows: int, k: int, n: int, dtype: Any, threads: Callable[[int], None]
) -> None:
    x, w, b = normal(rows, k, dtype=dtype), normal(k, n, dtype=dtype), normal(n, dtype=dtype)
    layer = gd.compile(lambda x, w, b: np.maximum(x @ w + b, 0))
    assert len(products(layer.lower(x, w, b).optimized)[0]) == 3
    threads(1)
    alone = layer(x, w, b)
    threads(2)
    assert layer(x, w, b).tobytes() == alone.tobytes()
    wanted = np.maximum(x.astype(float) @ w.astype(float) + b, 0)
    np.testing.assert_allclose(alone, wanted, atol=1e-4 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_a_layer_trains(batch: int) -> None:
    x, w, y = (normal(*s, dtype="float64") for s in ((batch, 512), (512, 256), (batch, 256)))

    def loss(w: Any) -> Any:
        return np.mean((np.tanh(x @ w) - y) ** 2)

    got = gd.compile(lambda w: w - 0.1 * gd.grad(loss)(w))(w)
    h = np.tanh(x @ w)
    wanted = w - 0.1 * x.T @ ((1 - h**2) * 2 * (h - y) / y.size)
    np.testing.assert_allclose(got, wanted, rtol=1e-11, atol=1e-13)


def test_the_gradient_of_one_example_is_no_product() -> None:
    x, w, g = normal(1, 40), normal(40, 30), normal(1, 30)
    graph = optimised(lambda w, x, g: w - 0.1 * (x.T @ g), w, x, g)
    assert not products(graph)
    np.testing.assert_allclose(graph.evaluate(w, x, g), w - 0.1 * x.T @ g, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["sum", "prod", "max", "min", "any", "all", "mean", "argmax"])
def test_axes_of_one_element(name: str) -> None:
    x = np.asarray([-0.0, 1, np.nan, np.inf, -2, 0]).reshape(3, 1, 2, 1)
    reduce: Any = getattr(np, name)
    for axis in (1, 3) if name == "argmax" else (1, (1, 3), (0, 1), (1, 2, 3), None):
        graph = optimised(lambda x, axis=axis: reduce(x, axis=axis), x)
        with np.errstate(invalid="ignore"):
            got, wanted = graph.evaluate(x), reduce(x, axis=axis)
        np.testing.assert_array_equal(got, wanted)
        for node in graph.operations:
            if node.op.family == "reduction":
                assert all(node.inputs[0].shape[a] != 1 for a in node["axes"])
    compiled = gd.compile(lambda x: reduce(x, axis=1))
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(compiled(x), reduce(x, axis=1))
