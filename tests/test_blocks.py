"""Shallow products too large to keep, as in attention, are computed in blocks."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import optree
import pytest

import graphdl as gd
from graphdl.compiler import regions
from graphdl.compiler.pipeline import DEVICE_PASSES, optimise
from graphdl.graph import Graph, Node
from graphdl.kernels.cpu import pool, product
from tests.programs import program_of, run_in_python

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
Function = Callable[..., Any]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of a few thousand numbers count as large."""
    monkeypatch.setattr(regions, "LARGE", 8 << 10)
    monkeypatch.setattr(regions, "BLOCK", 2 << 10)
    monkeypatch.setattr(regions, "ROWS", 4)


def normal(*shape: int, dtype: Any = F32) -> Any:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(dtype)


def softmax(scores: Any) -> Any:
    e = np.exp(scores - np.max(scores, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


def scores(q: Any, k: Any) -> Any:
    return q @ np.swapaxes(k, -1, -2) * q.dtype.type(q.shape[-1] ** -0.5)


def attention(q: Any, k: Any, v: Any) -> Any:
    return softmax(scores(q, k)) @ v


def biased(q: Any, k: Any, v: Any, bias: Any) -> Any:
    return softmax(scores(q, k) + bias) @ v


def masked(q: Any, k: Any, v: Any, mask: Any) -> Any:
    return softmax(np.where(mask, scores(q, k), -np.inf)) @ v


def causal(q: Any, k: Any, v: Any) -> Any:
    place = np.arange(q.shape[-2])
    return softmax(np.where(place[:, None] >= place, scores(q, k), q.dtype.type(-1e9))) @ v


def causal_by_table(q: Any, k: Any, v: Any) -> Any:
    return masked(q, k, v, np.tri(q.shape[-2], dtype=bool))


def heads_last(q: Any, k: Any, v: Any) -> Any:
    p = softmax(np.einsum("bnhd,bmhd->bhnm", q, k))
    return np.einsum("bhnm,bmhd->bnhd", p, v)


def keys_first(q: Any, k: Any, v: Any) -> Any:
    s = np.einsum("mhd,nhd->mnh", k, q)
    e = np.exp(s - s.max(0))
    return np.einsum("mnh,mhd->nhd", e / e.sum(0), v)


def gradient(f: Function) -> Function:
    """The value of a sum, and its gradient by each argument."""

    def of(*args: Any) -> Any:
        by = tuple(i for i, x in enumerate(args) if x.dtype.kind == "f")
        return gd.value_and_grad(lambda *a: np.sum(np.sin(f(*a))), argnums=by)(*args)

    return of


def scans(graph: Graph) -> list[Node]:
    return [node for node in graph.operations if node.op.name == "scan"]


def largest(graph: Graph) -> int:
    """The elements of the largest value that a graph computes itself, loops apart."""
    return max(n.type.size for n in graph.operations if n.dtype.kind == "f" and n.op.name != "item")


def checked(f: Function, *args: Any, loops: int, tolerance: float = 1e-5) -> Graph:
    """Interpreted and compiled, the blocks give what the traced graph gives."""
    executable = gd.compile(f).lower(*args)
    want = optree.tree_leaves(executable.graph.evaluate(*args))
    for got in (executable(*args), executable.optimized.evaluate(*args)):
        for one, other in zip(optree.tree_leaves(got), want, strict=True):
            assert one.dtype == other.dtype
            scale = np.max(np.abs(other), initial=1e-30, where=np.isfinite(other))
            exact = 1e-12 if other.dtype == F64 else tolerance
            np.testing.assert_allclose(one / scale, other / scale, rtol=0, atol=exact)
    assert len(scans(executable.optimized)) == loops
    return executable.optimized


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((67, 4), F32), ((3, 101, 5), F64), ((2, 3, 50, 4), F32), ((2, 1, 2, 48, 4), F64)],
)
def test_attention_with_any_number_of_batch_axes(small: None, shape: Any, dtype: Any) -> None:
    arguments = [normal(*shape, dtype=dtype) + i for i in range(3)]
    checked(attention, *arguments, loops=1)
    graph = checked(gradient(attention), *arguments, loops=2)
    assert largest(graph) < np.prod(shape[:-1]) * shape[-2]


@pytest.mark.parametrize("f", [causal, causal_by_table, heads_last])
def test_masks_and_einsum(small: None, f: Function) -> None:
    arguments = [normal(2, 40, 40, 4) + i for i in range(3)] if f is heads_last else [
        normal(3, 70, 4) + i for i in range(3)
    ]  # fmt: skip
    checked(f, *arguments, loops=1)
    checked(gradient(f), *arguments, loops=2)


def test_rows_may_be_columns(small: None) -> None:
    arguments = [normal(64, 3, 4) + i for i in range(3)]
    checked(gradient(keys_first), *arguments, loops=2)


@pytest.mark.parametrize("shape", [(50, 96), (3, 50, 96), (2, 1, 1, 96)])
def test_a_bias_and_its_gradient(small: None, shape: Any) -> None:
    """Also of a bias for each head, which is as large as what is computed by blocks."""
    q, k, v = normal(2, 3, 50, 4), normal(2, 3, 96, 4), normal(2, 3, 96, 7)
    checked(gradient(biased), q, k, v, normal(*shape), loops=2)


def test_a_row_that_is_masked_altogether_is_nan(small: None) -> None:
    q, k, v = (normal(3, 70, 4) + i for i in range(3))
    mask = np.random.default_rng(0).random((70, 70)) < 0.7
    mask[3] = False
    checked(masked, q, k, v, mask, loops=1)
    assert np.isnan(gd.compile(masked)(q, k, v, mask)[:, 3]).all()


def test_scores_beyond_what_exp_can_take(small: None) -> None:
    q, k, v = (normal(3, 70, 4) for _ in range(3))
    checked(attention, q * np.float32(1e4), k, v, loops=1)


@pytest.mark.parametrize(("rows", "columns"), [(1, 5000), (5000, 1)])
def test_one_row_and_one_column_stay_as_they_are(small: None, rows: int, columns: int) -> None:
    q, k, v = normal(rows, 3), normal(columns, 3), normal(columns, 2)
    checked(attention, q, k, v, loops=0)


def test_batches_derivatives_and_second_order(small: None) -> None:
    q, k, v, t = (normal(2, 70, 4, dtype=F64) + i for i in range(4))

    def loss(q: Any) -> Any:
        return np.sum(attention(q, k, v) ** 2)

    checked(gd.vmap(attention), q, k, v, loops=1)
    checked(lambda q, t: gd.jvp(lambda q: attention(q, k, v), (q,), (t,)), q, t, loops=1)
    graph = checked(lambda q, t: gd.jvp(gd.grad(loss), (q,), (t,)), q, t, loops=2)
    assert largest(graph) < 2 * 70 * 70
    x = [normal(2, 64, 2, dtype=F64) for _ in range(3)]
    gd.check_grads(lambda *a: np.sum(np.sin(attention(*a))), *x)


def test_only_some_gradients(small: None) -> None:
    q, k, v = (normal(3, 70, 4) + i for i in range(3))
    for argument in range(3):
        one = gd.grad(lambda *a: np.sum(np.sin(attention(*a))), argnums=argument)
        checked(one, q, k, v, loops=2)


def test_what_asks_for_the_large_value_keeps_it(small: None) -> None:
    q, k, v = (normal(70, 4) + i for i in range(3))

    def both(q: Any, k: Any, v: Any) -> Any:
        p = softmax(scores(q, k))
        return p, p @ v

    checked(both, q, k, v, loops=0)
    checked(lambda q, k, v: np.sort(scores(q, k)) @ v, q, k, v, loops=0)


def test_cross_entropy_of_many_classes_is_one_loop(small: None) -> None:
    """Nothing in the gradient waits for the end of all rows."""

    def loss(h: Any, w: Any, target: Any) -> Any:
        logits = h @ w
        top = np.max(logits, axis=-1, keepdims=True)
        logsumexp = np.log(np.sum(np.exp(logits - top), axis=-1)) + top[:, 0]
        return np.mean(logsumexp - np.sum(logits * target, axis=-1))

    h, w, target = normal(64, 3), normal(3, 101), normal(64, 101)
    checked(gd.value_and_grad(loss, argnums=(0, 1)), h, w, target, loops=1)


def test_layers_each_have_their_loops(small: None) -> None:
    def layer(x: Any, w: Any) -> Any:
        q, k, v = np.moveaxis((x @ w).reshape(2, 64, 3, 3, 4), (2, 3), (0, 2))
        return x + np.moveaxis(attention(q, k, v), 1, 2).reshape(x.shape)

    def layers(x: Any, *weights: Any) -> Any:
        for w in weights:
            x = layer(x, w)
        return x

    weights = [np.float64(0.2) * normal(12, 36, dtype=F64) for _ in range(3)]
    checked(gradient(layers), normal(2, 64, 12, dtype=F64), *weights, loops=6)


@pytest.mark.parametrize(("less", "more"), [((2, 256, 4), (2, 512, 4)), ((3, 67, 4), (7, 67, 4))])
def test_more_rows_or_a_larger_batch_compile_no_kernel(small: None, less: Any, more: Any) -> None:
    def texts(shape: Any) -> set[str]:
        arguments = (gd.spec(shape, "float32"),) * 3
        pending = [program_of(gd.trace(gradient(attention), *arguments))]
        found = set()
        while pending:
            for launch in pending.pop().launches:
                found.add(launch.source.text)
                pending += [body.program for body in launch.bodies]
        return found

    assert texts(more) <= texts(less)


def test_the_number_of_threads_changes_no_bit() -> None:
    q, k, v = (normal(2, 1024, 16) for _ in range(3))
    f = gd.compile(gradient(attention))
    before = pool.num_threads()
    try:
        gd.set_num_threads(1)
        one = optree.tree_leaves(f(q, k, v))
        gd.set_num_threads(2)
        two = optree.tree_leaves(f(q, k, v))
    finally:
        gd.set_num_threads(before)
    for x, y in zip(one, two, strict=True):
        assert np.array_equal(x, y)


@pytest.mark.parametrize("f", [attention, gradient(attention)])
def test_memory_is_linear_in_the_tokens(f: Function, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one core: each that takes blocks of its own keeps what a block takes."""
    monkeypatch.setattr(product, "cores", lambda: 1)
    bytes_ = [
        gd.compile(f).lower(*(gd.spec((1, n, 64), "float32"),) * 3).memory.peak_bytes
        for n in (2048, 4096, 8192)
    ]
    for less, more in pairwise(bytes_):
        assert more < 2.4 * less
    assert bytes_[-1] < 8192 * 8192 * 4 // 5


def test_the_kernels_as_plain_python(small: None) -> None:
    arguments = [normal(40, 3) + i for i in range(3)]
    graph = gd.trace(gradient(attention), *arguments)
    want = optree.tree_leaves(graph.evaluate(*arguments))
    for one, other in zip(run_in_python(graph, arguments), want, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-6)


def test_gpus_keep_the_products_whole(small: None) -> None:
    graph = gd.trace(gradient(attention), *(normal(70, 4) for _ in range(3)))
    assert not scans(optimise(graph, DEVICE_PASSES)[-1][1])
    assert scans(optimise(graph)[-1][1])
