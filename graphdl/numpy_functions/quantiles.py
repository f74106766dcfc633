"""Medians and quantiles: places in the sorted array, and what lies between them.

A quantile has a place in the sorted values, a fraction as a rule, by the rule of its method; the
result lies between its two neighbours. The definitions and their numbers: R. J. Hyndman and Y. Fan,
"Sample quantiles in statistical packages", The American Statistician 50 (1996).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphdl.errors import ArgumentError, DtypeError, ShapeError
from graphdl.numpy_functions.arguments import (
    FLOAT,
    INDEX,
    axes_of,
    float_of,
    lift,
    lift_one,
    promote,
    reshaped,
    sliced,
    static,
    transposed,
    with_ones,
)
from graphdl.numpy_functions.elementwise import choose
from graphdl.numpy_functions.manipulation import moveaxis
from graphdl.numpy_functions.reductions import sum_
from graphdl.numpy_functions.sorting import sorted_lines
from graphdl.ops import sorting
from graphdl.ops.lines import pick_along
from graphdl.tracing import TracedArray, broadcast_to, cast, implements, is_weak
from graphdl.types import Shape, kind_of

#: From the number of values and the quantiles to places, counted from 0. Each is written for arrays
#: and for traced values.
Place = Callable[[Any, Any], Any]


def _between(alpha: float, beta: float) -> Place:
    return lambda n, q: n * q + (alpha + q * (1 - alpha - beta)) - 1


def _closest(n: Any, q: Any) -> Any:
    """The nearest place; of two alike the one that is even, counted from 1."""
    place = n * q - 1.5
    below = np.floor(place)
    return np.where((place == below) & (np.remainder(below, 2) == 1), below, below + 1)


#: Methods that choose one of the values.
_DISCRETE: dict[str, Place] = {
    "inverted_cdf": lambda n, q: np.ceil(n * q - 1),
    "closest_observation": _closest,
    "lower": lambda n, q: np.floor((n - 1) * q),
    "higher": lambda n, q: np.ceil((n - 1) * q),
    "nearest": lambda n, q: np.rint((n - 1) * q),
}
#: Methods that choose a place between two values.
_CONTINUOUS: dict[str, Place] = {
    "averaged_inverted_cdf": lambda n, q: n * q - 1,
    "interpolated_inverted_cdf": _between(0.0, 1.0),
    "hazen": _between(0.5, 0.5),
    "weibull": _between(0.0, 0.0),
    "linear": lambda n, q: (n - 1) * q,
    "median_unbiased": _between(1 / 3, 1 / 3),
    "normal_unbiased": _between(3 / 8, 3 / 8),
    "midpoint": lambda n, q: 0.5 * (np.floor((n - 1) * q) + np.ceil((n - 1) * q)),
}
#: What a share of the way to the next value becomes, where it is not kept.
_SHARES: dict[str, Callable[[Any], Any]] = {
    "averaged_inverted_cdf": lambda share: np.where(share == 0, share + 0.5, share * 0 + 1),
    "midpoint": lambda share: np.where(share == 0, share, share * 0 + 0.5),
}


def _lines(x: TracedArray, axis: Any) -> tuple[TracedArray, Shape, Shape]:
    """What is ordered as the last axis, and the shapes of the result without and with keepdims."""
    axes = axes_of(axis, x.shape)
    kept = [i for i in range(x.ndim) if i not in axes]
    left = tuple(x.shape[i] for i in kept)
    count = int(np.prod([x.shape[i] for i in axes], dtype=np.int64))
    return reshaped(transposed(x, (*kept, *axes)), (*left, count)), left, with_ones(x.shape, axes)


def _at(line: TracedArray, place: Any) -> Any:
    """Elements of sorted lines: at static places for all, or at places of each line."""
    if isinstance(place, np.ndarray) and place.size == 1:
        return sliced(line, line.ndim - 1, int(place[0]), 1)
    (index,) = lift(place)
    return pick_along(line, broadcast_to(index, (*line.shape[:-1], index.shape[-1])))


def _whole(place: Any) -> Any:
    return place.astype(INDEX)


def _neighbours(place: Any, n: Any) -> tuple[Any, Any]:
    """The places to the left and to the right, both within 0 ... n - 1."""
    below, last = np.floor(place), np.maximum(n - 1, 0)
    lower = np.clip(_whole(below), 0, last)
    upper = np.clip(_whole(below) + 1, 0, last)
    return lower, np.where(place < 0, lower, upper)


def _blend(low: Any, high: Any, share: Any) -> Any:
    """low + (high - low) * share, exact at both ends, infinite ones too."""
    step = high - low
    step = np.where((share == 0) & np.isinf(step), 0, step)
    mixed = np.where(share >= 0.5, high - step * (1 - share), low + step * share)
    return np.where(low == high, low + share * 0, mixed)


def _ordered(line: TracedArray, q: Any, weak: bool, method: str, n: Any) -> Any:
    """The quantiles of sorted lines, the first n values of each: (*lines, quantiles)."""
    count = n.astype(q.dtype) if isinstance(n, TracedArray) else n
    if method in _DISCRETE:
        place = np.clip(_whole(_DISCRETE[method](count, q)), 0, np.maximum(n - 1, 0))
        return _at(line, place)
    if method not in _CONTINUOUS:
        known = ", ".join(sorted({**_DISCRETE, **_CONTINUOUS}))
        raise ArgumentError(f"method={method!r}; it is one of {known}")
    place = _CONTINUOUS[method](count, q)
    lower, upper = _neighbours(place, n)
    share = _SHARES.get(method, lambda share: share)(place - np.floor(place))
    dtype = float_of(line.dtype) if weak else promote(line, share)
    line, share = cast(line, dtype), share.astype(dtype)
    return _blend(_at(line, lower), _at(line, upper), share)


def _quantile(
    a: Any, q: Any, axis: Any, method: str, keepdims: bool, weights: Any, ignore_nan: bool, per: int
) -> Any:
    """All of the four functions; the quantiles are q / per."""
    q = static(q)
    x, given = lift(a, q)
    if given.ndim > 1:
        raise ShapeError(f"q must be a number or have one axis, not shape {given.shape}")
    if kind_of(given.dtype) == "b":
        raise DtypeError("q must be numbers, not booleans")
    line, left, ones = _lines(x, axis)
    weak = is_weak(q)
    quantiles = _static(q, per) if not isinstance(q, TracedArray) else given / per
    quantiles = np.reshape(quantiles, (given.size,))
    if line.shape[-1] == 0:
        raise ShapeError(f"quantiles of nothing: shape {x.shape} is empty along axis {axis}")
    if weights is None:
        ordered = sorting.sort(line)
        n: Any = line.shape[-1]
        if ignore_nan and kind_of(line.dtype) == "f":
            n = sum_(~np.isnan(line), -1, keepdims=True)
        values = _ordered(ordered, quantiles, weak, method, n)
        last = sliced(ordered, ordered.ndim - 1, line.shape[-1] - 1, 1)
    else:
        if method != "inverted_cdf":
            raise ArgumentError(f"weights= needs method='inverted_cdf', not {method!r}")
        values, last = _weighted(line, _weight_lines(weights, x, axis), quantiles, ignore_nan)
    if kind_of(line.dtype) == "f" and not ignore_nan:
        values = choose(np.isnan(last), np.asarray(np.nan, values.dtype), values)
    result = moveaxis(values, -1, 0)
    return reshaped(result, (*given.shape, *(ones if keepdims else left)))


def _static(q: Any, per: int) -> Any:
    quantiles = np.asarray(q)
    if kind_of(quantiles.dtype) not in "fiu":
        raise DtypeError(f"q must be numbers, not {quantiles.dtype}")
    if per != 1 or kind_of(quantiles.dtype) != "f":
        quantiles = np.true_divide(quantiles, per)
    if not ((quantiles >= 0) & (quantiles <= 1)).all():
        raise ArgumentError(f"q={q!r:.60} must lie between 0 and {per}")
    return quantiles


def _weight_lines(weights: Any, x: TracedArray, axis: Any) -> TracedArray:
    """Weights in the shape of the lines."""
    w = lift(x, weights)[1]
    if w.shape != x.shape:
        axes = axes_of(axis, x.shape)
        if axis is None or w.shape != tuple(x.shape[i] for i in axes):
            raise ShapeError(
                f"weights of shape {w.shape} do not fit axes {axis} of shape {x.shape}"
            )
        w = np.transpose(w, np.argsort(axes))
        w = reshaped(w, tuple(n if i in axes else 1 for i, n in enumerate(x.shape)))
        w = broadcast_to(w, x.shape)
    return _lines(w, axis)[0]


def _weighted(line: Any, weights: Any, q: Any, ignore_nan: bool) -> tuple[Any, Any]:
    """Where the running share of the weights reaches q; and the last values, which may be NaN."""
    order = sorting.argsort(line)
    ordered = pick_along(line, order)
    heavy = cast(pick_along(weights, order), FLOAT)
    if ignore_nan and kind_of(line.dtype) == "f":
        heavy = np.where(np.isnan(ordered), 0, heavy)
    reached = np.cumsum(heavy, axis=-1)
    reached = reached / reached[..., -1:]
    wanted = lift(reached, q)[1]
    dtype = wanted.dtype if kind_of(wanted.dtype) == "f" else FLOAT
    # what weighs nothing comes before all quantiles, 0 too
    share = np.where(reached == 0, -1, reached).astype(dtype)
    spread = broadcast_to(cast(wanted, dtype), (*line.shape[:-1], wanted.shape[-1]))
    place = sorting.searchsorted(share, spread, side="left")
    values = pick_along(ordered, np.minimum(place, line.shape[-1] - 1))
    return values, ordered[..., -1:]


@implements(np.quantile)
def quantile(
    a: Any,
    q: Any,
    axis: Any = None,
    out: None = None,
    overwrite_input: bool = False,
    method: str = "linear",
    keepdims: bool = False,
    *,
    weights: Any = None,
) -> Any:
    return _quantile(a, q, axis, method, keepdims, weights, False, 1)


@implements(np.percentile)
def percentile(
    a: Any,
    q: Any,
    axis: Any = None,
    out: None = None,
    overwrite_input: bool = False,
    method: str = "linear",
    keepdims: bool = False,
    *,
    weights: Any = None,
) -> Any:
    return _quantile(a, q, axis, method, keepdims, weights, False, 100)


@implements(np.nanquantile)
def nanquantile(
    a: Any,
    q: Any,
    axis: Any = None,
    out: None = None,
    overwrite_input: bool = False,
    method: str = "linear",
    keepdims: bool = False,
    *,
    weights: Any = None,
) -> Any:
    return _quantile(a, q, axis, method, keepdims, weights, True, 1)


@implements(np.nanpercentile)
def nanpercentile(
    a: Any,
    q: Any,
    axis: Any = None,
    out: None = None,
    overwrite_input: bool = False,
    method: str = "linear",
    keepdims: bool = False,
    *,
    weights: Any = None,
) -> Any:
    return _quantile(a, q, axis, method, keepdims, weights, True, 100)


# --- medians --------------------------------------------------------------------------------------


@implements(np.median)
def median(
    a: Any,
    axis: Any = None,
    out: None = None,
    overwrite_input: bool = False,
    keepdims: bool = False,
) -> Any:
    x = lift_one(a)
    line, left, ones = _lines(x, axis)
    shape, n, last = ones if keepdims else left, line.shape[-1], line.ndim - 1
    dtype = float_of(line.dtype)
    if n == 0:
        return broadcast_to(lift(x, np.asarray(np.nan, dtype))[1], shape)
    ordered = sorted_lines(line)
    middle = cast(sliced(ordered, last, (n - 1) // 2, 1 + (n + 1) % 2), dtype)
    value = np.mean(middle, axis=-1, keepdims=True)
    if kind_of(line.dtype) in "fc":
        unknown = np.isnan(sliced(ordered, last, n - 1, 1))
        value = choose(unknown, np.asarray(np.nan, dtype), value)
    return reshaped(value, shape)


@implements(np.nanmedian)
def nanmedian(
    a: Any,
    axis: Any = None,
    out: None = None,
    overwrite_input: bool = False,
    keepdims: bool = False,
) -> Any:
    x = lift_one(a)
    if kind_of(x.dtype) not in "fc" or x.size == 0:
        return median(x, axis, keepdims=keepdims)
    line, left, ones = _lines(x, axis)
    ordered = sorted_lines(line)
    count = sum_(~np.isnan(line), -1, keepdims=True)
    low = pick_along(ordered, np.maximum(count - 1, 0) // 2)
    high = pick_along(ordered, np.minimum(count // 2, line.shape[-1] - 1))
    value = choose(count % 2 == 1, low, (low + high) / 2)
    return reshaped(value, ones if keepdims else left)
