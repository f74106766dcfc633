"""Polynomials as arrays of coefficients, the highest power first.

Coefficients that are zero are kept: whether one is zero is not known while tracing, so results are
as long as they can be, where NumPy drops leading zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphdl.errors import ArgumentError, ShapeError
from graphdl.numpy_functions.arguments import (
    FLOAT,
    integer,
    lift,
    promote,
    require,
    reshaped,
    sliced,
)
from graphdl.numpy_functions.convolving import convolve
from graphdl.numpy_functions.manipulation import concatenate
from graphdl.numpy_functions.padding import pad
from graphdl.tracing import TracedArray, broadcast_to, call_ufunc, cast, implements


def _coefficients(*values: Any) -> list[Any]:
    found = [reshaped(x, (1,)) if x.ndim == 0 else x for x in lift(*values)]
    for x in found:
        require(x.ndim == 1, f"coefficients must have one axis, not shape {x.shape}")
    return found


@implements(np.polyval)
def polyval(p: Any, x: Any) -> Any:
    """Horner's scheme."""
    coefficients, points = lift(p, x)
    result: Any = np.zeros_like(points)
    for i in range(len(coefficients)):
        result = result * points + coefficients[i]
    return result


def _aligned(a1: Any, a2: Any) -> tuple[Any, Any]:
    """Two polynomials with as many coefficients."""
    a, b = _coefficients(a1, a2)
    n = max(a.size, b.size)
    return pad(a, (n - a.size, 0)), pad(b, (n - b.size, 0))


@implements(np.polyadd)
def polyadd(a1: Any, a2: Any) -> Any:
    return call_ufunc(np.add, *_aligned(a1, a2))


@implements(np.polysub)
def polysub(a1: Any, a2: Any) -> Any:
    return call_ufunc(np.subtract, *_aligned(a1, a2))


@implements(np.polymul)
def polymul(a1: Any, a2: Any) -> Any:
    return convolve(*_coefficients(a1, a2))


@implements(np.polyder)
def polyder(p: Any, m: Any = 1) -> Any:
    (x,) = _coefficients(p)
    times = integer(m, "m")
    if times < 0:
        raise ArgumentError(f"the order of a derivative must not be negative, got {times}")
    for _ in range(times):
        n = x.size - 1
        x = sliced(x, 0, 0, max(n, 0)) * np.arange(n, 0, -1)
    return x


@implements(np.polyint)
def polyint(p: Any, m: Any = 1, k: Any = None) -> Any:
    (x,) = _coefficients(p)
    times = integer(m, "m")
    if times < 0:
        raise ArgumentError(f"the order of an integral must not be negative, got {times}")
    constants = _constants(k, times, x)
    for i in range(times):
        powers = np.arange(x.size, 0, -1)
        x = concatenate((x / powers, constants[i : i + 1]))
    return x


def _constants(k: Any, times: int, x: TracedArray) -> Any:
    """The constants of integration, the first integral's first."""
    (values,) = _coefficients(lift(x, 0 if k is None else k)[1])
    if values.size == 1:
        values = broadcast_to(values, (times,))
    if values.size < times:
        raise ShapeError(f"{values.size} constants for {times} integrals")
    return values


@implements(np.polydiv)
def polydiv(u: Any, v: Any) -> tuple[Any, Any]:
    """Quotient and remainder, of as many coefficients as v has but one (NumPy drops zeros)."""
    a, b = _coefficients(u, v)
    dtype = (
        promote(a, b, np.zeros((), FLOAT))
        if a.dtype.kind + b.dtype.kind != "ff"
        else (promote(a, b))
    )
    rest, b = cast(a, dtype), cast(b, dtype)
    steps = rest.size - b.size + 1
    if steps < 1:
        return np.zeros_like(rest[:1]), rest
    scale = 1 / b[0]
    quotient = []
    for _ in range(steps):
        factor = scale * rest[0]
        quotient.append(reshaped(factor, (1,)))
        rest = concatenate((rest[1 : b.size] - factor * b[1:], rest[b.size :]))
    return concatenate(quotient), rest if rest.size else np.zeros_like(quotient[0])
