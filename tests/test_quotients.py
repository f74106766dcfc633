"""The gradient of e / total takes two divisions less than the chain rule's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphdl as gd
from graphdl.compiler.pipeline import optimise


def normal(*shape: int, dtype: Any) -> Any:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(dtype)


def softmax(x: Any, axis: int) -> Any:
    e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return e / np.sum(e, axis=axis, keepdims=True)


def by_hand(x: Any, g: Any, axis: int) -> Any:
    p = softmax(x.astype(np.float64), axis)
    return p * (g - np.sum(g * p, axis=axis, keepdims=True))


def pulled(f: Any) -> Any:
    return lambda x, g: gd.vjp(f, x)[1](g)[0]


def ops(f: Any, *args: Any) -> list[str]:
    return [node.op.name for node in optimise(gd.trace(f, *args))[-1][1].operations]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "axis"), [((3, 17), 1), ((3, 17), 0), ((2, 5, 4), 1)])
def test_the_gradient_of_softmax(dtype: Any, shape: Any, axis: int) -> None:
    x, g = 3 * normal(*shape, dtype=dtype), normal(*shape, dtype=dtype) + dtype(1)
    f = pulled(lambda x: softmax(x, axis))
    np.testing.assert_allclose(
        gd.compile(f)(x, g), by_hand(x, g, axis), atol=20 * np.finfo(dtype).eps
    )
    assert ops(f, x, g).count("divide") == 1


def test_a_weight_in_the_row_and_a_raw_exponential() -> None:
    x, g = normal(3, 17, dtype=np.float64), normal(3, 17, dtype=np.float64)

    def raw(x: Any) -> Any:
        return np.exp(x) / np.sum(np.exp(x), axis=-1, keepdims=True)

    f = pulled(raw)
    np.testing.assert_allclose(gd.compile(f)(x, g), by_hand(x, g, -1), atol=1e-15)
    assert ops(f, x, g).count("divide") == 1
    gd.check_grads(lambda x: np.sum(np.sin(3 * raw(x))), x)


def test_a_total_of_something_else_keeps_its_divisions() -> None:
    """Where e is not divided by a total of itself, the terms of the gradient stay as they are."""
    x, y, g = (normal(3, 17, dtype=np.float64) + i for i in range(3))

    def other(x: Any) -> Any:
        return np.exp(x) / np.sum(np.exp(x) * y, axis=-1, keepdims=True)

    want = gd.trace(pulled(other), x, g).evaluate(x, g)
    np.testing.assert_allclose(gd.compile(pulled(other))(x, g), want, rtol=1e-12)
