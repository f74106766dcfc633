"""Row sums in the gradient of attention are taken from its result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphdl as gd
from graphdl.compiler.rewrite import simplify
from graphdl.compiler.row_sums import row_sums
from graphdl.graph import Graph


def normal(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).normal(size=shape)


def summed(graph: Graph) -> set[int]:
    """The elements of what sums of products sum."""
    return {
        node.inputs[0].type.size
        for node in graph.operations
        if node.op.name == "sum" and node.inputs[0].op.name == "multiply"
    }


def rows(g: Any, v: Any, p: Any) -> Any:
    return np.sum((g @ np.swapaxes(v, -1, -2)) * p, axis=-1)


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_a_row_sum_beside_its_result(batch: Any) -> None:
    g, v, p = normal(*batch, 5, 2), normal(*batch, 7, 2), normal(*batch, 5, 7)
    graph = gd.trace(lambda g, v, p: (p @ v, rows(g, v, p)), g, v, p)
    after = row_sums(simplify(graph))
    for one, other in zip(after.evaluate(g, v, p), graph.evaluate(g, v, p), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)
    assert summed(graph) == {p.size}
    assert summed(after) == {g.size}


def test_any_order_of_axes_and_operands() -> None:
    g, v, p = normal(4, 5, 3, 2), normal(4, 7, 3, 2), normal(4, 3, 5, 7)

    def both(g: Any, v: Any, p: Any) -> Any:
        result = np.einsum("bmhd,bhnm->bnhd", v, p)
        weights = p * np.einsum("bmhd,bnhd->bhnm", v, g)
        return result, np.sum(weights, axis=3)

    graph = gd.trace(both, g, v, p)
    after = row_sums(simplify(graph))
    np.testing.assert_allclose(after.evaluate(g, v, p)[1], both(g, v, p)[1], rtol=1e-12)


def test_a_result_that_is_transposed_behind_the_product() -> None:
    """As where heads are joined: what comes back is transposed, too."""
    g, v, p = normal(4, 5, 3, 2), normal(4, 3, 7, 2), normal(4, 3, 5, 7)

    def both(g: Any, v: Any, p: Any) -> Any:
        result = p @ v
        weights = (np.transpose(g, (0, 2, 1, 3)) @ np.swapaxes(v, -1, -2)) * p
        return np.transpose(result, (0, 2, 1, 3)), np.sum(weights, axis=3)

    graph = gd.trace(both, g, v, p)
    after = row_sums(simplify(graph))
    np.testing.assert_allclose(after.evaluate(g, v, p)[1], both(g, v, p)[1], rtol=1e-12)
    assert summed(after) == {g.size}


def test_without_its_result_or_over_other_axes_it_stays() -> None:
    g, v, p = normal(5, 2), normal(7, 2), normal(5, 7)
    others = (
        lambda g, v, p: rows(g, v, p),
        lambda g, v, p: (p @ v, np.sum((g @ v.T) * p, axis=0)),
        lambda g, v, p: (p @ v, np.sum((g @ v.T) * p)),
        lambda g, v, p: (p @ np.sin(v), rows(g, v, p)),
    )
    for f in others:
        graph = gd.trace(f, g, v, p)
        assert summed(row_sums(simplify(graph))) == {p.size}


def test_a_result_as_large_as_the_weights_is_no_gain() -> None:
    g, v, p = normal(5, 9), normal(7, 9), normal(5, 7)
    graph = gd.trace(lambda g, v, p: (p @ v, rows(g, v, p)), g, v, p)
    assert summed(row_sums(simplify(graph))) == {p.size}


def test_the_gradient_of_attention_needs_no_pass_over_its_weights() -> None:
    def attention(q: Any, k: Any, v: Any) -> Any:
        s = q @ k.T
        e = np.exp(s - np.max(s, axis=-1, keepdims=True))
        return (e / np.sum(e, axis=-1, keepdims=True)) @ v

    q, k, v = normal(9, 2), normal(8, 2), normal(8, 3)
    f = gd.grad(lambda *a: np.sum(attention(*a) ** 2), argnums=(0, 1, 2))
    executable = gd.compile(f).lower(q, k, v)
    for one, other in zip(executable(q, k, v), executable.graph.evaluate(q, k, v), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-13)
    assert summed(executable.optimized) == {27}
