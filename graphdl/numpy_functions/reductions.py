"""Reductions over axes, and cumulative ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphdl.errors import ShapeError
from graphdl.numpy_functions.arguments import (
    BOOL,
    FLOAT,
    axes_of,
    axis_of,
    float_of,
    lift,
    lift_one,
    number,
    require,
    reshaped,
    squared_magnitude,
    with_ones,
)
from graphdl.numpy_functions.elementwise import choose
from graphdl.numpy_functions.manipulation import concatenate
from graphdl.ops import cumulative, movement, reduction
from graphdl.ops.op import Op
from graphdl.tracing import (
    TracedArray,
    broadcast_to,
    call_ufunc,
    cast,
    implements,
)
from graphdl.types import Dtype, as_dtype, is_half, kind_of, result_type

#: An argument that was not given, where None is one.
MISSING: Any = object()


def _reduce(op: Op, x: TracedArray, axis: Any, keepdims: bool) -> Any:
    axes = axes_of(axis, x.shape)
    out = op(x, axes=tuple(sorted(axes))) if axes else x
    return reshaped(out, with_ones(x.shape, axes)) if keepdims else out


def _total_dtype(dtype: Dtype) -> Dtype:
    """The dtype of a sum: small integers are added up in 64 bits."""
    return (
        np.dtype(np.uint64 if kind_of(dtype) == "u" else np.int64)
        if kind_of(dtype) in "biu"
        else dtype
    )


def _total(op: Op, combine: np.ufunc, identity: int) -> Callable[..., Any]:
    """np.sum and np.prod."""

    def implementation(
        a: Any,
        axis: Any = None,
        dtype: Any = None,
        out: None = None,
        keepdims: bool = False,
        initial: Any = MISSING,
        where: Any = True,
    ) -> Any:
        (x,) = lift(a)
        x = cast(x, _total_dtype(x.dtype) if dtype is None else as_dtype(dtype))
        if x.dtype == BOOL:  # on request: dtype=bool
            return (any_ if combine is np.add else all_)(x, axis, keepdims=keepdims, where=where)
        if where is not True:
            x = choose(where, x, identity)
        result = _reduce(op, x, axis, keepdims)
        if initial is MISSING:
            return result
        return cast(call_ufunc(combine, result, initial), x.dtype)

    return implementation


sum_ = implements(np.sum)(_total(reduction.sum_, np.add, 0))
prod = implements(np.prod)(_total(reduction.prod, np.multiply, 1))


def _extremum(op: Op, combine: np.ufunc) -> Callable[..., Any]:
    """np.max and np.min."""

    def implementation(
        a: Any,
        axis: Any = None,
        out: None = None,
        keepdims: bool = False,
        initial: Any = MISSING,
        where: Any = True,
    ) -> Any:
        (x,) = lift(a)
        if where is not True:
            if initial is MISSING:
                raise ShapeError("where= needs initial=, as there may be nothing to compare")
            x = choose(where, x, number(initial, x.dtype, x))
        axes = axes_of(axis, x.shape)
        if initial is not MISSING and any(x.shape[i] == 0 for i in axes):
            shape = with_ones(x.shape, axes)
            left = shape if keepdims else tuple(n for i, n in enumerate(x.shape) if i not in axes)
            return broadcast_to(cast(lift(x, np.asarray(initial))[1], x.dtype), left)
        result = _reduce(op, x, axis, keepdims)
        if initial is MISSING:
            return result
        return call_ufunc(combine, result, number(initial, x.dtype, x))

    return implementation


max_ = implements(np.max, np.amax)(_extremum(reduction.max_, np.maximum))
min_ = implements(np.min, np.amin)(_extremum(reduction.min_, np.minimum))


@implements(np.any)
def any_(
    a: Any, axis: Any = None, out: None = None, keepdims: bool = False, *, where: Any = True
) -> Any:
    (x,) = lift(a)
    x = cast(x, BOOL)
    return _reduce(reduction.any_, x if where is True else x & where, axis, keepdims)


@implements(np.all)
def all_(
    a: Any, axis: Any = None, out: None = None, keepdims: bool = False, *, where: Any = True
) -> Any:
    (x,) = lift(a)
    x = cast(x, BOOL)
    return _reduce(reduction.all_, x if where is True else x | ~where, axis, keepdims)


def _count(x: TracedArray, axes: tuple[int, ...], keepdims: bool, where: Any) -> Any:
    """How many elements a mean is of: a number, or an array if `where` chooses."""
    if where is True:
        return int(np.prod([x.shape[axis] for axis in axes], dtype=np.int64))
    return sum_(broadcast_to(lift(x, where)[1], x.shape), axes, keepdims=keepdims)


def _over(total: Any, count: Any) -> Any:
    """A sum divided by a count, in the dtype of the sum."""
    if isinstance(count, int):
        count = total.apply_op(movement.extent, (), {"size": count, "dtype": total.dtype})
    return cast(call_ufunc(np.divide, total, count), total.dtype)


@implements(np.mean)
def mean(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: None = None,
    keepdims: bool = False,
    *,
    where: Any = True,
) -> Any:
    (x,) = lift(a)
    if dtype is None and is_half(x.dtype):  # as NumPy: a sum may be too large where the mean is not
        return cast(mean(x, axis, np.float32, None, keepdims, where=where), x.dtype)
    x = cast(x, float_of(x.dtype) if dtype is None else as_dtype(dtype))
    count = _count(x, axes_of(axis, x.shape), keepdims, where)
    return _over(sum_(x, axis, keepdims=keepdims, where=where), count)


@implements(np.var)
def var(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: None = None,
    ddof: Any = 0,
    keepdims: bool = False,
    *,
    where: Any = True,
    mean: Any = None,
    correction: Any = MISSING,
) -> Any:
    if correction is not MISSING:
        if ddof != 0:
            raise ShapeError("ddof and correction are the same: give one of them")
        ddof = correction
    (x,) = lift(a)
    if dtype is None and is_half(x.dtype):
        options = {"where": where, "mean": mean}
        return cast(var(x, axis, np.float32, None, ddof, keepdims, **options), x.dtype)
    x = cast(x, float_of(x.dtype) if dtype is None else as_dtype(dtype))
    axes = axes_of(axis, x.shape)
    center = _mean(x, axis, keepdims=True, where=where) if mean is None else mean
    deviation = x - center
    total = sum_(squared_magnitude(deviation), axis, keepdims=keepdims, where=where)
    count = _count(x, axes, keepdims, where)
    degrees = max(count - ddof, 0) if where is True else call_ufunc(np.maximum, count - ddof, 0)
    return _over(total, degrees)


_mean = mean  # `var` has an argument of that name


@implements(np.std)
def std(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: None = None,
    ddof: Any = 0,
    keepdims: bool = False,
    *,
    where: Any = True,
    mean: Any = None,
    correction: Any = MISSING,
) -> Any:
    variance = var(
        a, axis, dtype, None, ddof, keepdims, where=where, mean=mean, correction=correction
    )
    return call_ufunc(np.sqrt, variance)


@implements(np.average)
def average(
    a: Any, axis: Any = None, weights: Any = None, returned: bool = False, *, keepdims: bool = False
) -> Any:
    if weights is None:
        result = mean(a, axis, keepdims=keepdims)
        (x,) = lift(a)
        total: Any = broadcast_to(
            lift(x, np.asarray(_count(x, axes_of(axis, x.shape), False, True), result.dtype))[1],
            result.shape,
        )
    else:
        x, w = lift(a, weights)
        if x.shape != w.shape:
            axes = axes_of(axis, x.shape)
            if axis is None or w.shape != tuple(x.shape[i] for i in axes):
                raise ShapeError(
                    f"weights of shape {w.shape} do not fit axes {axis} of shape {x.shape}"
                )
            w = np.transpose(w, np.argsort(axes))
            w = reshaped(w, tuple(n if i in axes else 1 for i, n in enumerate(x.shape)))
        dtype = result_type(x.dtype, w.dtype, *([FLOAT] if kind_of(x.dtype) in "biu" else []))
        total = sum_(broadcast_to(w, x.shape), axis, dtype, keepdims=keepdims)
        result = (
            sum_(
                call_ufunc(np.multiply, cast(x, dtype), cast(w, dtype)),
                axis,
                dtype,
                keepdims=keepdims,
            )
            / total
        )
    return (result, total) if returned else result


@implements(np.ptp)
def ptp(a: Any, axis: Any = None, out: None = None, keepdims: bool = False) -> Any:
    high, low = max_(a, axis, keepdims=keepdims), min_(a, axis, keepdims=keepdims)
    return call_ufunc(np.subtract, high, low)


@implements(np.count_nonzero)
def count_nonzero(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return sum_(cast(lift_one(a), BOOL), axis, keepdims=keepdims)


def _position(op: Op) -> Callable[..., Any]:
    """np.argmax and np.argmin."""

    def implementation(
        a: Any, axis: Any = None, out: None = None, *, keepdims: bool = False
    ) -> Any:
        (x,) = lift(a)
        if axis is None:
            ones = (1,) * x.ndim
            x = reshaped(x, (x.size,))
            return reshaped(op(x, axis=0), ones) if keepdims else op(x, axis=0)
        if x.ndim == 0:
            x = reshaped(x, (1,))
            return op(x, axis=axis_of(axis, x.shape))
        axis = axis_of(axis, x.shape)
        result = op(x, axis=axis)
        return reshaped(result, with_ones(x.shape, (axis,))) if keepdims else result

    return implementation


argmax = implements(np.argmax)(_position(reduction.argmax))
argmin = implements(np.argmin)(_position(reduction.argmin))


@implements(np.cumsum)
def cumsum(a: Any, axis: Any = None, dtype: Any = None, out: None = None) -> Any:
    x, axis = _line(a, axis)
    x = cast(x, _total_dtype(x.dtype) if dtype is None else as_dtype(dtype))
    if x.dtype == BOOL:
        return cumulative.cummax(x, axis=axis)
    return cumulative.cumsum(x, axis=axis, reverse=False)


@implements(np.cumprod)
def cumprod(a: Any, axis: Any = None, dtype: Any = None, out: None = None) -> Any:
    x, axis = _line(a, axis)
    x = cast(x, _total_dtype(x.dtype) if dtype is None else as_dtype(dtype))
    if x.dtype == BOOL:
        return cumulative.cummin(x, axis=axis)
    return cumulative.running_product(x, axis)


def _cumulative(function: Callable[..., Any], identity: int) -> Callable[..., Any]:
    """np.cumulative_sum and np.cumulative_prod."""

    def implementation(
        x: Any,
        /,
        *,
        axis: Any = None,
        dtype: Any = None,
        out: None = None,
        include_initial: bool = False,
    ) -> Any:
        (value,) = lift(x)
        require(value.ndim > 0, "a 0-d array has no axis to run along")
        if axis is None:
            require(value.ndim == 1, f"shape {value.shape} has several axes: choose one, axis=")
            axis = 0
        axis = axis_of(axis, value.shape)
        result = function(value, axis, dtype)
        if not include_initial:
            return result
        shape = tuple(1 if i == axis else n for i, n in enumerate(value.shape))
        start = broadcast_to(number(identity, result.dtype, result), shape)
        return concatenate((start, result), axis)

    return implementation


if hasattr(np, "cumulative_sum"):  # NumPy 2.1
    implements(np.cumulative_sum)(_cumulative(cumsum, 0))
    implements(np.cumulative_prod)(_cumulative(cumprod, 1))


def _line(a: Any, axis: Any) -> tuple[TracedArray, int]:
    """What a cumulative function runs along: an axis, or the flattened array."""
    x = lift_one(a)
    if axis is None or x.ndim == 0:
        return reshaped(x, (x.size,)), axis_of(axis or 0, (x.size,))
    return x, axis_of(axis, x.shape)
