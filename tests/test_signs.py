"""Exponentials of what is never positive: known where it holds, not elsewhere, the same values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scalar_kernels import loop
from ulps import binades, specials, uniform

import graphdl as gd
from graphdl.compiler.pipeline import optimise
from graphdl.kernels.signs import never_positive
from graphdl.ops import pointwise


def exponents(f: Callable[..., Any], *shapes: tuple[int, ...]) -> list[bool]:
    """Of each exponential, whether its operand is known never to be positive."""
    graph = optimise(gd.trace(f, *(gd.spec(shape, np.float64) for shape in shapes)))[-1][1]
    return [never_positive(n.inputs[0]) for n in graph.nodes if n.op is pointwise.exp]


KNOWN: dict[str, Callable[..., Any]] = {
    "minus a square": lambda x, y: np.exp(-x * x),
    "minus its half": lambda x, y: np.exp(-0.5 * x**2),
    "a Gaussian": lambda x, y: np.exp(-((x - 1) ** 2) / (2 * y**2)),
    "distances": lambda x, y: np.exp(-np.sum((x[:, None] - y[None]) ** 2, axis=-1) / 2),
    "clipped distances": lambda x, y: np.exp(-np.maximum(x, 0) * 0.1),
    "minus a size": lambda x, y: np.exp(-np.abs(x)),
    "less its maximum": lambda x, y: np.exp(x - np.max(x, axis=1, keepdims=True)),
    "less its only maximum": lambda x, y: np.exp(x - x.max()),
}
UNKNOWN: dict[str, Callable[..., Any]] = {
    "plain": lambda x, y: np.exp(x),
    "a square": lambda x, y: np.exp(x * x),
    "minus a product": lambda x, y: np.exp(-x * y),
    "minus a difference of squares": lambda x, y: np.exp(-(x * x - y * y)),
    "twice negative": lambda x, y: np.exp(-np.negative(x * x)),
    "a negative number times minus a square": lambda x, y: np.exp(-0.5 * -(x * x)),
    "the least": lambda x, y: np.exp(x - np.min(x, axis=1, keepdims=True)),
    "another's maximum": lambda x, y: np.exp(x - np.max(y, axis=1, keepdims=True)),
    # the maxima of rows along the rows of a square array
    "the other axis": lambda x, y: np.exp(x - np.max(x, axis=1)[None, :]),
    "clipped from above": lambda x, y: np.exp(-np.minimum(x, 0)),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known(name: str) -> None:
    assert exponents(KNOWN[name], (4, 4), (4, 4)) == [True]


@pytest.mark.parametrize("name", UNKNOWN)
def test_not_known(name: str) -> None:
    assert exponents(UNKNOWN[name], (4, 4), (4, 4)) == [False]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_same_bits(dtype: str) -> None:
    parts = specials(dtype), binades(dtype, 20), uniform(dtype, -800, 0, 9_000)
    x = -abs(np.concatenate([*parts, uniform(dtype, -110, 0, 9_000)]))
    got, wanted = loop("exp_nonpositive", dtype)(x), loop("exp", dtype)(x)
    assert got.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_with_infinities_are_as_numpys(dtype: str) -> None:
    x = np.random.default_rng(0).normal(0, 40, (40, 9)).astype(dtype)
    x[3, 4] = np.inf
    x[5, 0] = -np.inf
    x[6, 1] = np.nan
    x[7] = -np.inf

    def softmax(x: Any) -> Any:
        e = np.exp(x - np.max(x, axis=1, keepdims=True))
        return e / np.sum(e, axis=1, keepdims=True)

    compiled = gd.compile(softmax)
    with np.errstate(invalid="ignore"):
        wanted = softmax(x.astype(np.float64))
    kernels = "".join(kernel.source for kernel in compiled.lower(x).kernels)
    assert "exp_nonpositive" in kernels
    rtol, atol = (2e-5, 1e-44) if dtype == "float32" else (1e-13, 0)
    np.testing.assert_allclose(compiled(x), wanted, rtol=rtol, atol=atol)
