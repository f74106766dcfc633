"""Reductions that take NaN as missing data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphdl.numpy_functions.arguments import as_float, axis_of, lift
from graphdl.numpy_functions.elementwise import choose
from graphdl.numpy_functions.reductions import (
    MISSING,
    all_,
    argmax,
    argmin,
    cumprod,
    cumsum,
    max_,
    mean,
    min_,
    prod,
    sum_,
    var,
)
from graphdl.tracing import call_ufunc, implements
from graphdl.types import kind_of


def _ignoring_nan(function: Callable[..., Any], instead: float) -> Callable[..., Any]:
    def implementation(a: Any, *args: Any, **kwargs: Any) -> Any:
        (x,) = lift(a)
        if kind_of(x.dtype) == "f":
            x = choose(call_ufunc(np.isnan, x), np.asarray(instead, x.dtype), x)
        return function(x, *args, **kwargs)

    return implementation


implements(np.nansum)(_ignoring_nan(sum_, 0.0))
implements(np.nanprod)(_ignoring_nan(prod, 1.0))
implements(np.nancumsum)(_ignoring_nan(cumsum, 0.0))
implements(np.nancumprod)(_ignoring_nan(cumprod, 1.0))


def _present(x: Any, where: Any) -> Any:
    """Where there is data."""
    present = call_ufunc(np.logical_not, call_ufunc(np.isnan, x))
    return present if where is True else present & where


@implements(np.nanmean)
def nanmean(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: None = None,
    keepdims: bool = False,
    *,
    where: Any = True,
) -> Any:
    (x,) = lift(a)
    return mean(x, axis, dtype, None, keepdims, where=_present(x, where))


@implements(np.nanvar)
def nanvar(
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
    """NaN where there is not more data than degrees of freedom are taken away."""
    (x,) = lift(a)
    present = _present(x, where)
    x = as_float(x)
    # NaN must not reach the deviations: 0 * NaN is NaN in the gradient
    filled = choose(present, x, np.zeros((), x.dtype))
    variance = var(
        filled,
        axis,
        dtype,
        None,
        ddof,
        keepdims,
        where=present,
        mean=mean,
        correction=correction,
    )
    taken = ddof if correction is MISSING else correction
    enough = sum_(present, axis, keepdims=keepdims) > taken
    return choose(enough, variance, np.asarray(np.nan, variance.dtype))


@implements(np.nanstd)
def nanstd(
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
    variance = nanvar(
        a, axis, dtype, None, ddof, keepdims, where=where, mean=mean, correction=correction
    )
    return call_ufunc(np.sqrt, variance)


def _nan_extremum(function: Callable[..., Any], instead: float) -> Callable[..., Any]:
    def implementation(
        a: Any,
        axis: Any = None,
        out: None = None,
        keepdims: bool = False,
        initial: Any = MISSING,
        where: Any = True,
    ) -> Any:
        (x,) = lift(a)
        if kind_of(x.dtype) != "f":
            return function(x, axis, None, keepdims, initial, where)
        missing = call_ufunc(np.isnan, x)
        filled = choose(missing, np.asarray(instead, x.dtype), x)
        result = function(filled, axis, None, keepdims, initial, where)
        if initial is not MISSING:
            return result
        nothing = all_(missing, axis, keepdims=keepdims)
        return choose(nothing, np.asarray(np.nan, x.dtype), result)

    return implementation


implements(np.nanmax)(_nan_extremum(max_, -np.inf))
implements(np.nanmin)(_nan_extremum(min_, np.inf))


def _nan_position(function: Callable[..., Any], instead: float) -> Callable[..., Any]:
    """np.nanargmax and np.nanargmin; of nothing but NaN the position is 0, where NumPy raises."""

    def implementation(
        a: Any, axis: Any = None, out: None = None, *, keepdims: bool = False
    ) -> Any:
        (x,) = lift(a)
        if kind_of(x.dtype) == "f":
            x = choose(call_ufunc(np.isnan, x), np.asarray(instead, x.dtype), x)
        return function(x, axis if axis is None else axis_of(axis, x.shape), keepdims=keepdims)

    return implementation


implements(np.nanargmax)(_nan_position(argmax, -np.inf))
implements(np.nanargmin)(_nan_position(argmin, np.inf))
