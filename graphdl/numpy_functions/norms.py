"""What singular values tell: norms, ranks, conditions, pseudo-inverses, least squares."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np

from graphdl.errors import ArgumentError, GraphLinAlgError
from graphdl.numpy_functions.arguments import (
    INDEX,
    as_float,
    axes_of,
    lift,
    lift_one,
    require,
    reshaped,
    squared_magnitude,
    transposed,
    with_ones,
)
from graphdl.numpy_functions.linalg import factors, inexact, matrices, square, svd, svdvals
from graphdl.numpy_functions.manipulation import moveaxis
from graphdl.ops import linalg
from graphdl.tracing import TracedArray, broadcast_to, cast, implements
from graphdl.types import finfo

#: What stands for no argument in NumPy's signature.
_NO_VALUE: Any = inspect.signature(np.linalg.pinv).parameters["rtol"].default


def _cutoff(values: Any, rtol: Any) -> Any:
    """The size up to which singular values count as zero."""
    (tolerance,) = lift(cast(rtol, values.dtype) if isinstance(rtol, TracedArray) else rtol)
    return cast(tolerance, values.dtype)[..., None] * values[..., :1]


def _weights(values: Any, rtol: Any) -> Any:
    """The reciprocals of singular values, and 0 for those that count as zero."""
    large = values > _cutoff(values, rtol)
    return np.where(large, 1 / np.where(large, values, 1), 0)


@implements(np.linalg.pinv)
def pinv(a: Any, rcond: Any = None, hermitian: bool = False, *, rtol: Any = _NO_VALUE) -> Any:
    x = matrices(a)
    if rcond is not None and rtol is not _NO_VALUE:
        raise ArgumentError("rtol and rcond cannot both be given")
    given = rcond if rcond is not None else 1e-15 if rtol is _NO_VALUE else rtol
    if given is None:
        given = _rounding(x)
    if x.size == 0:
        return linalg.transposed(x)
    u, values, vh = svd(x, full_matrices=False, hermitian=hermitian)
    weights = _weights(values, given)
    unit = linalg.identity(x @ linalg.transposed(x))
    if hermitian:
        half = linalg.lower_half(x)
        x = half + linalg.adjoint(half)
    ut, v = linalg.transposed(u), linalg.transposed(vh)
    return linalg.least_squares(x, ut, weights, v, unit)


def _rounding(x: Any) -> float:
    """The rounding error of singular values, relative to the largest."""
    return float(max(x.shape[-2:]) * finfo(x.dtype).eps)


@implements(np.linalg.lstsq)
def lstsq(a: Any, b: Any, rcond: Any = None) -> Any:
    x, right = inexact(a, b)
    require(x.ndim == 2, f"takes one matrix, not shape {x.shape}")
    require(
        right.ndim in (1, 2) and right.shape[0] == x.shape[0],
        f"a matrix of shape {x.shape} does not fit right sides of shape {right.shape}",
    )
    columns = right if right.ndim == 2 else right[:, None]
    rows, n = x.shape
    u, values, vh = svd(x, full_matrices=False)
    weights = _weights(values, _rounding(x) if rcond is None else rcond)
    solution = linalg.least_squares(
        x, linalg.transposed(u), weights, linalg.transposed(vh), columns
    )
    errors = columns - x @ solution
    residuals = np.sum(squared_magnitude(errors), axis=0)[: columns.shape[1] if rows > n else 0]
    rank = cast(np.sum(weights != 0), np.dtype(np.int32))
    return solution if right.ndim == 2 else solution[:, 0], residuals, rank, values


@implements(np.linalg.matrix_rank)
def matrix_rank(A: Any, tol: Any = None, hermitian: bool = False, *, rtol: Any = None) -> Any:
    if tol is not None and rtol is not None:
        raise ArgumentError("tol and rtol cannot both be given")
    (x,) = inexact(A)
    if x.ndim < 2:
        return cast(np.any(x != 0), INDEX)
    if x.size == 0:
        return broadcast_to(lift(x, np.int64(0))[1], x.shape[:-2])
    values = svd(x, compute_uv=False, hermitian=hermitian)
    least = lift(tol)[0][..., None] if tol is not None else _cutoff(values, rtol or _rounding(x))
    return np.sum(values > least, axis=-1)


@implements(np.linalg.cond)
def cond(x: Any, p: Any = None) -> Any:
    value = matrices(x)
    if value.shape[-1] == 0 or value.shape[-2] == 0:
        raise GraphLinAlgError("cond is not defined on empty arrays")
    if p in (None, 2, -2):
        values = svdvals(value)
        largest, least = values[..., 0], values[..., -1]
        ratio = least / largest if p == -2 else largest / least
    else:
        value = square(value)
        lut, pivots = factors(value)
        singular = np.any(linalg.diagonal(lut) == 0, axis=-1)
        unit = linalg.identity(value)
        # of a singular matrix the answer is infinite, and its factors are not used
        fit = [np.where(singular[..., None, None], unit, part) for part in (value, lut)]
        inverse = linalg.solve(*fit, pivots, unit, trans=False)
        size = norm(value, p, (-2, -1)) * norm(inverse, p, (-2, -1))
        ratio = np.where(singular, np.inf, size)
    unknown = np.isnan(ratio) & ~np.any(np.isnan(value), axis=(-2, -1))
    return np.where(unknown, np.inf, ratio)


# --- norms --------------------------------------------------------------------------------------


@implements(np.linalg.norm)
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    value = as_float(lift_one(x))
    axes = axes_of(axis, value.shape)
    if ord is None:
        return _euclidean(value, axes, keepdims)
    require(len(axes) in (1, 2), f"a norm of order {ord!r} has one axis or two, not {axes}")
    if len(axes) == 1:
        return _vector_norm(value, ord, axes, keepdims)
    return _matrix_norm(value, ord, axes, keepdims)


def _euclidean(x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    return np.sqrt(np.sum(squared_magnitude(x), axis=axes, keepdims=keepdims))


def _vector_norm(x: Any, ord: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    if isinstance(ord, str):
        raise ArgumentError(f"ord={ord!r} is an order of matrices, not of vectors")
    if ord == 2:
        return _euclidean(x, axes, keepdims)
    if ord == 0:
        return cast(np.sum(x != 0, axis=axes, keepdims=keepdims), np.abs(x).dtype)
    size = np.abs(x)
    if ord == np.inf:
        return np.max(size, axis=axes, keepdims=keepdims, initial=0)
    if ord == -np.inf:
        return np.min(size, axis=axes, keepdims=keepdims)
    if ord == 1:
        return np.sum(size, axis=axes, keepdims=keepdims)
    return np.sum(size**ord, axis=axes, keepdims=keepdims) ** (1 / ord)


def _matrix_norm(x: Any, ord: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    if ord in ("fro", "f"):
        return _euclidean(x, axes, keepdims)
    value = moveaxis(x, axes, (-2, -1))
    if ord in (1, -1):
        sums = np.sum(np.abs(value), axis=-2)
    elif ord in (np.inf, -np.inf):
        sums = np.sum(np.abs(value), axis=-1)
    elif ord in (2, -2, "nuc"):
        sums = svdvals(value)
    else:
        raise ArgumentError(
            f"ord={ord!r} is no order of matrices: 'fro', 'nuc', 1, -1, 2, -2, inf or -inf"
        )
    if ord == "nuc":
        result = np.sum(sums, axis=-1)
    elif ord > 0:
        result = np.max(sums, axis=-1, initial=0)
    else:
        result = np.min(sums, axis=-1)
    return reshaped(result, with_ones(x.shape, axes)) if keepdims else result


@implements(np.linalg.matrix_norm)
def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> Any:
    return norm(x, ord, (-2, -1), keepdims)


@implements(np.linalg.vector_norm)
def vector_norm(x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Any:
    value = as_float(lift_one(x))
    axes = axes_of(axis, value.shape)
    rest = tuple(axis for axis in range(value.ndim) if axis not in axes)
    kept = tuple(value.shape[axis] for axis in rest)
    flat = reshaped(
        transposed(value, (*axes, *rest)), (math.prod(value.shape[i] for i in axes), *kept)
    )
    result = norm(flat, ord, 0)
    return reshaped(result, with_ones(value.shape, axes)) if keepdims else result
