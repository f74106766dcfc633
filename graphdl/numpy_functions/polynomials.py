"""Polynomials as arrays of coefficients, the highest power first.

Coefficients that are zero are kept: whether one is zero is not known while tracing, so results are
as long as they can be, where NumPy drops leading zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphdl.errors import ArgumentError, ShapeError, UnsupportedError
from graphdl.numpy_functions.arguments import (
    FLOAT,
    integer,
    lift,
    promote,
    require,
    reshaped,
    sliced,
)
from graphdl.numpy_functions.correlation import convolve
from graphdl.numpy_functions.linalg import eigvals, inexact, inv
from graphdl.numpy_functions.manipulation import concatenate
from graphdl.numpy_functions.norms import lstsq
from graphdl.numpy_functions.padding import pad
from graphdl.tracing import TracedArray, broadcast_to, call_ufunc, cast, implements
from graphdl.types import kind_of


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
        if kind_of(a.dtype) + kind_of(b.dtype) != "ff"
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


# --- from points and roots ----------------------------------------------------------------------


@implements(np.polyfit)
def polyfit(
    x: Any,
    y: Any,
    deg: Any,
    rcond: Any = None,
    full: bool = False,
    w: Any = None,
    cov: Any = False,
) -> Any:
    places, values = inexact(x, y)
    degree = integer(deg, "the degree")
    require(degree >= 0, f"the degree must not be negative, and is {degree}")
    require(
        places.ndim == 1 and places.size > 0 and values.ndim in (1, 2),
        f"takes x of one axis and y of one or two, not shapes {places.shape} and {values.shape}",
    )
    count = places.size
    require(
        values.shape[0] == count,
        f"x of shape {places.shape} and y of shape {values.shape} have different lengths",
    )
    rcond = count * np.finfo(places.dtype).eps if rcond is None else rcond
    # double precision, as in NumPy
    powers = [np.ones_like(cast(places, np.result_type(places.dtype, FLOAT)))]
    for _ in range(degree):
        powers.append(powers[-1] * places)
    basis = np.stack(powers[::-1], axis=-1)
    if w is not None:
        weights = inexact(places, w)[1]
        require(weights.shape == places.shape, f"w of shape {weights.shape} for {count} points")
        basis = basis * weights[:, None]
        values = values * (weights[:, None] if values.ndim == 2 else weights)
    scale = np.sqrt(np.sum(basis * basis, axis=0))
    basis = basis / scale
    solution, residuals, rank, singular = lstsq(basis, values, rcond)
    coefficients = np.transpose(np.transpose(solution) / scale)
    if full:
        return coefficients, residuals, rank, singular, rcond
    if not cov:
        return coefficients
    base = inv(np.transpose(basis) @ basis) / np.outer(scale, scale)
    factor: Any = np.ones(1, base.dtype)
    if not (isinstance(cov, str) and cov == "unscaled"):
        require(
            count > degree + 1,
            f"{count} points do not tell the covariance of {degree + 1} coefficients",
        )
        factor = residuals / (count - degree - 1)
    return coefficients, base * factor if values.ndim == 1 else base[:, :, None] * factor


@implements(np.poly)
def poly(seq_of_zeros: Any) -> Any:
    """Of complex roots complex, also where they are conjugates of each other."""
    (roots,) = inexact(seq_of_zeros)
    roots = reshaped(roots, (1,)) if roots.ndim == 0 else roots
    if roots.ndim == 2:
        found = poly(eigvals(roots))
        return found if roots.dtype.kind == "c" else found.real
    require(roots.ndim == 1, f"takes roots along one axis, not shape {roots.shape}")
    (result,) = lift(roots, np.ones(1, roots.dtype))[1:]
    zero = np.zeros(1, roots.dtype)
    for root in roots:
        result = concatenate([result, zero]) - root * concatenate([zero, result])
    return result


@implements(np.roots)
def roots(p: Any) -> Any:
    raise UnsupportedError(
        "the number of roots depends on how many coefficients at either end are 0; where p[0] is "
        "not, they are np.linalg.eigvals(c) of c = np.diag(np.ones(len(p) - 2), -1) with "
        "c[0] = -p[1:] / p[0]"
    )
