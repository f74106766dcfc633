"""Functions of each element by itself, and ufuncs that are more than one op."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphdl.errors import DtypeError, UnsupportedError
from graphdl.numpy_functions.arguments import (
    BOOL,
    FLOAT,
    as_float,
    integer,
    lift,
    lift_one,
    number,
    promote,
    refuse,
)
from graphdl.ops import complex_numbers, pointwise
from graphdl.ops.op import Op
from graphdl.tracing import (
    TracedArray,
    broadcast_shapes,
    broadcast_to,
    call_op,
    call_ufunc,
    cast,
    dtype_of,
    implements,
    shape_of,
)
from graphdl.types import as_dtype, finfo, kind_of


def choose(condition: Any, x: Any, y: Any) -> Any:
    """np.where with three arguments."""
    dtype = promote(x, y)
    traced = next(value for value in (condition, x, y) if isinstance(value, TracedArray))
    operands = (number(condition, BOOL, traced), number(x, dtype, traced), number(y, dtype, traced))
    return call_op(pointwise.select, operands, (BOOL, dtype, dtype), "np.where")


@implements(np.where)
def where(condition: Any, x: Any = None, y: Any = None, /) -> Any:
    if x is None and y is None:
        raise UnsupportedError(
            "with one argument the shape of the result depends on values; give it all three"
        )
    return choose(condition, x, y)


@implements(np.select)
def select(condlist: Any, choicelist: Any, default: Any = 0) -> Any:
    conditions, choices = list(condlist), list(choicelist)
    if len(conditions) != len(choices) or not conditions:
        raise UnsupportedError(
            f"{len(conditions)} conditions and {len(choices)} choices; as many of both are needed"
        )
    dtype = promote(*choices, default)
    traced = lift(*conditions, *choices)[0]
    shape = broadcast_shapes("np.select", [shape_of(v) for v in (*conditions, *choices, default)])
    result: Any = broadcast_to(number(default, dtype, traced), shape)
    for condition, choice in zip(reversed(conditions), reversed(choices), strict=True):
        if np.dtype(dtype_of(condition)) != BOOL:
            raise DtypeError(f"conditions must be booleans, not {dtype_of(condition)}")
        result = choose(condition, number(choice, dtype, traced), result)
    return result


_MISSING: Any = object()


@implements(np.clip)
def clip(
    a: Any,
    a_min: Any = _MISSING,
    a_max: Any = _MISSING,
    out: None = None,
    *,
    min: Any = _MISSING,
    max: Any = _MISSING,
    dtype: Any = None,
) -> Any:
    low, high = (min if a_min is _MISSING else a_min), (max if a_max is _MISSING else a_max)
    low = None if low is _MISSING else low
    high = None if high is _MISSING else high
    if isinstance(a, TracedArray) and kind_of(a.dtype) in "iu":
        # a Python integer beyond the dtype bounds nothing
        info = np.iinfo(a.dtype)
        low = None if type(low) is int and low <= info.min else low
        high = None if type(high) is int and high >= info.max else high
    bounds = [bound for bound in (low, high) if bound is not None]
    kind = promote(a, *bounds) if dtype is None else as_dtype(dtype)
    result = a
    if low is not None:
        result = call_op(pointwise.maximum, (result, low), (kind, kind), "np.clip")
    if high is not None:
        result = call_op(pointwise.minimum, (result, high), (kind, kind), "np.clip")
    return cast(lift_one(result), kind)


@implements(np.round, np.around)
def round(a: Any, decimals: Any = 0, out: None = None) -> Any:
    places = integer(decimals, "decimals")
    x = lift_one(a)
    if kind_of(x.dtype) in "iu":
        if places >= 0:
            return x
        return cast(round(cast(x, FLOAT), places), x.dtype)
    if places == 0:
        return call_ufunc(np.rint, x)
    scale = 10.0 ** abs(places)
    to, back = (np.multiply, np.divide) if places > 0 else (np.divide, np.multiply)
    return call_ufunc(back, call_ufunc(np.rint, call_ufunc(to, x, scale)), scale)


@implements(np.fix)
def fix(x: Any, out: None = None) -> Any:
    return call_ufunc(np.trunc, lift_one(x))


@implements(np.nan_to_num)
def nan_to_num(
    x: Any, copy: bool = True, nan: Any = 0.0, posinf: Any = None, neginf: Any = None
) -> Any:
    (value,) = lift(x)
    if kind_of(value.dtype) == "c":
        parts = (nan_to_num(part, copy, nan, posinf, neginf) for part in (value.real, value.imag))
        return complex_numbers.whole(*parts)
    if kind_of(value.dtype) != "f":
        return value
    info = finfo(value.dtype)
    value = choose(call_ufunc(np.isnan, value), np.asarray(nan, value.dtype), value)
    high = np.asarray(info.max if posinf is None else posinf, value.dtype)
    low = np.asarray(info.min if neginf is None else neginf, value.dtype)
    value = choose(call_ufunc(np.equal, value, np.inf), high, value)
    return choose(call_ufunc(np.equal, value, -np.inf), low, value)


@implements(np.isclose)
def isclose(a: Any, b: Any, rtol: Any = 1e-5, atol: Any = 1e-8, equal_nan: bool = False) -> Any:
    x, y = lift(a, b)
    if kind_of(y.dtype) not in "fc":
        y = cast(y, promote(y, 1.0))
    near = np.abs(x - y) <= atol + rtol * np.abs(y)
    result = (near & np.isfinite(y)) | (x == y)
    return result | (np.isnan(x) & np.isnan(y)) if equal_nan else result


@implements(np.allclose)
def allclose(a: Any, b: Any, rtol: Any = 1e-5, atol: Any = 1e-8, equal_nan: bool = False) -> Any:
    return np.all(isclose(a, b, rtol, atol, equal_nan))


@implements(np.array_equal)
def array_equal(a1: Any, a2: Any, equal_nan: bool = False) -> Any:
    if shape_of(a1) != shape_of(a2):
        return False
    x, y = lift(a1, a2)
    same = x == y
    return np.all(same | (np.isnan(x) & np.isnan(y)) if equal_nan else same)


@implements(np.array_equiv)
def array_equiv(a1: Any, a2: Any) -> Any:
    try:
        shape = np.broadcast_shapes(shape_of(a1), shape_of(a2))
    except ValueError:
        return False
    x, y = lift(a1, a2)
    return np.all(broadcast_to(x, shape) == broadcast_to(y, shape))


@implements(np.sinc)
def sinc(x: Any) -> Any:
    """sin(pi x) / (pi x), and near 0 its series, of which every derivative is right as well."""
    (value,) = lift(x)
    angle = np.pi * value
    near = np.abs(angle) < 1e-2
    away = np.where(near, 1, angle)
    square = angle * angle
    series = 1 - square / 6 * (1 - square / 20 * (1 - square / 42))
    return np.where(near, series, np.sin(away) / away)


@implements(np.real)
def real(val: Any) -> Any:
    return lift_one(val).real


@implements(np.imag)
def imag(val: Any) -> Any:
    return lift_one(val).imag


@implements(np.angle)
def angle(z: Any, deg: bool = False) -> Any:
    value = as_float(lift_one(z))
    result = np.arctan2(value.imag, value.real)
    return np.rad2deg(result) if deg else result


@implements(np.real_if_close)
def real_if_close(a: Any, tol: Any = 100) -> Any:
    value = lift_one(a)
    refuse(
        kind_of(value.dtype) == "c",
        "whether the result is real depends on values; write np.real(z)",
    )
    return value


@implements(np.isreal)
def isreal(x: Any) -> Any:
    return lift_one(x).imag == 0


@implements(np.iscomplex)
def iscomplex(x: Any) -> Any:
    return lift_one(x).imag != 0


@implements(np.isposinf)
def isposinf(x: Any, out: None = None) -> Any:
    return np.isinf(x) & ~np.signbit(x)


@implements(np.isneginf)
def isneginf(x: Any, out: None = None) -> Any:
    return np.isinf(x) & np.signbit(x)


# --- ufuncs that are more, or less, than one op ------------------------------------------------


def _no_dtype(ufunc: np.ufunc, dtype: Any) -> None:
    refuse(dtype is not None, f"np.{ufunc.__name__}: argument 'dtype' is not traced; use astype")


@implements(np.divmod)
def divmod(x1: Any, x2: Any, /, dtype: Any = None) -> tuple[Any, Any]:
    _no_dtype(np.divmod, dtype)
    return call_ufunc(np.floor_divide, x1, x2), call_ufunc(np.remainder, x1, x2)


def _two_results(ufunc: np.ufunc, first: Op, second: Op) -> Callable[..., tuple[Any, Any]]:
    def implementation(x: Any, /, dtype: Any = None) -> tuple[Any, Any]:
        _no_dtype(ufunc, dtype)
        loop = pointwise.resolve(ufunc, (dtype_of(x),))
        return call_op(first, (x,), loop[:1]), call_op(second, (x,), loop[:1])

    return implementation


implements(np.modf)(_two_results(np.modf, pointwise.modf_frac, pointwise.modf_int))
implements(np.frexp)(_two_results(np.frexp, pointwise.frexp_mantissa, pointwise.frexp_exponent))


@implements(np.float_power)
def float_power(x1: Any, x2: Any, /, dtype: Any = None) -> Any:
    _no_dtype(np.float_power, dtype)
    loop = pointwise.resolve(np.float_power, (dtype_of(x1), dtype_of(x2)))
    return call_op(pointwise.power, (x1, x2), loop[:2], "np.float_power")


def _same_value(ufunc: np.ufunc) -> Callable[..., Any]:
    """A ufunc that returns its operand, for the dtypes that NumPy takes."""

    def implementation(x: Any, /, dtype: Any = None) -> Any:
        wanted = pointwise.resolve(ufunc, (dtype_of(x),))[-1] if dtype is None else np.dtype(dtype)
        return cast(lift_one(x), wanted)

    return implementation


implements(np.positive)(_same_value(np.positive))
_real_conjugate = _same_value(np.conjugate)


@implements(np.conjugate)
def conjugate(x: Any, /, dtype: Any = None) -> Any:
    value = lift_one(x)
    if kind_of(value.dtype) != "c":
        return _real_conjugate(x, dtype)
    _no_dtype(np.conjugate, dtype)
    return complex_numbers.conjugate(value)


@implements(np.sign)
def sign(x: Any, /, dtype: Any = None) -> Any:
    """The direction z / |z| of complex numbers, which has a derivative."""
    value = lift_one(x)
    if kind_of(value.dtype) != "c":
        loop = pointwise.resolve(np.sign, (dtype_of(x),), dtype and as_dtype(dtype))
        return call_op(pointwise.sign, (x,), loop[:1])
    _no_dtype(np.sign, dtype)
    size = np.abs(value)
    zero = size == 0
    return np.where(zero, value, value / np.where(zero, 1, size))


def _alias(ufunc: np.ufunc, op: Op) -> Callable[..., Any]:
    """A ufunc that NumPy has under two names, as two objects."""

    def implementation(x: Any, /, dtype: Any = None) -> Any:
        _no_dtype(ufunc, dtype)
        return call_op(op, (x,), pointwise.resolve(ufunc, (dtype_of(x),))[:1])

    return implementation


implements(np.degrees)(_alias(np.degrees, pointwise.rad2deg))
implements(np.radians)(_alias(np.radians, pointwise.deg2rad))


if hasattr(np, "astype"):  # since NumPy 2.1

    @implements(np.astype)
    def astype(x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Any:
        return lift_one(x).astype(dtype)
