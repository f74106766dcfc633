"""np.pad: what stands around an array, by all modes of NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphdl.errors import ArgumentError, DtypeError, ShapeError
from graphdl.numpy_functions.arguments import lift, number, refuse, require, sliced, static
from graphdl.numpy_functions.creation import linspace
from graphdl.numpy_functions.manipulation import concatenate, flip, picked
from graphdl.numpy_functions.quantiles import median
from graphdl.numpy_functions.reductions import max_, mean, min_
from graphdl.ops import movement
from graphdl.tracing import TracedArray, broadcast_to, cast, implements
from graphdl.types import kind_of

#: The arguments of each mode beside the widths.
_ARGUMENTS: dict[str, dict[str, Any]] = {
    "constant": {"constant_values": 0},
    "empty": {},
    "edge": {},
    "wrap": {},
    "reflect": {"reflect_type": "even"},
    "symmetric": {"reflect_type": "even"},
    "linear_ramp": {"end_values": 0},
    "maximum": {"stat_length": None},
    "mean": {"stat_length": None},
    "median": {"stat_length": None},
    "minimum": {"stat_length": None},
}
_STATISTICS = {"maximum": max_, "mean": mean, "median": median, "minimum": min_}


@implements(np.pad)
def pad(array: Any, pad_width: Any, mode: Any = "constant", **kwargs: Any) -> Any:
    (x,) = lift(array)
    widths = _widths(pad_width, x.ndim)
    refuse(callable(mode), "a function as mode writes into its argument; concatenate instead")
    if mode not in _ARGUMENTS:
        raise ArgumentError(f"mode={mode!r}; it is one of {', '.join(_ARGUMENTS)}")
    unknown = [name for name in kwargs if name not in _ARGUMENTS[mode]]
    if unknown:
        raise ArgumentError(f"mode={mode!r} takes no argument {unknown[0]!r}")
    options = {**_ARGUMENTS[mode], **kwargs}
    if mode in ("constant", "empty"):
        return _constant(x, widths, options.get("constant_values", 0))
    for axis, pair in enumerate(widths):
        if any(pair) and x.shape[axis] == 0:
            raise ShapeError(f"mode={mode!r} has nothing to pad axis {axis} of {x.shape} with")
        x = _padded(x, axis, pair, mode, options)
    return x


def _widths(value: Any, ndim: int) -> list[tuple[int, int]]:
    """(before, after) for each axis."""
    if isinstance(value, dict):
        pairs = [(0, 0)] * ndim
        for axis, pair in value.items():
            (pairs[axis],) = _widths(pair, 1)
        return pairs
    widths = np.asarray(static(value))
    if kind_of(widths.dtype) not in "iu":
        raise DtypeError(f"pad_width must be integers, not {value!r:.60}")
    if (widths < 0).any():
        raise ShapeError(f"pad_width {value} has a negative width")
    return [(int(before), int(after)) for before, after in _pairs(widths, ndim, "pad_width")]


def _pairs(value: Any, ndim: int, what: str) -> Any:
    """A (before, after) for each axis, as np.pad broadcasts them."""
    try:
        return np.broadcast_to(np.asarray(static(value)), (ndim, 2))
    except ValueError:
        raise ShapeError(f"{what} {value!r:.60} does not fit an array with {ndim} axes") from None


def _padded(x: Any, axis: int, pair: tuple[int, int], mode: str, options: dict[str, Any]) -> Any:
    """x padded along one axis, by any mode but that of constants."""
    if not any(pair):
        return x
    if mode in _STATISTICS:
        (lengths,) = _pairs(options["stat_length"], x.ndim, "stat_length")[axis : axis + 1]
        return _with_statistic(x, axis, pair, mode, lengths)
    if mode == "linear_ramp":
        (ends,) = _pairs(options["end_values"], x.ndim, "end_values")[axis : axis + 1]
        return _with_ramps(x, axis, pair, ends)
    if options.get("reflect_type", "even") not in ("even", "odd"):
        raise ArgumentError(f"reflect_type={options['reflect_type']!r}; it is 'even' or 'odd'")
    if options.get("reflect_type") == "odd":
        return _with_odd_reflection(x, axis, pair, mode == "symmetric")
    places = np.pad(np.arange(x.shape[axis]), pair, mode=mode)  # type: ignore[call-overload]
    return picked(x, axis, places)


# --- constants ------------------------------------------------------------------------------------


def _constant(x: TracedArray, widths: list[tuple[int, int]], values: Any) -> Any:
    values = static(values)
    if isinstance(values, TracedArray) or np.ndim(values) == 0:
        return _framed(x, widths, values)
    for axis, (fills, pair) in enumerate(
        zip(_pairs(values, x.ndim, "constant_values"), widths, strict=True)
    ):
        for fill, width in zip(fills, ((pair[0], 0), (0, pair[1])), strict=True):
            x = _framed(x, [width if i == axis else (0, 0) for i in range(x.ndim)], fill)
    return x


def _framed(x: TracedArray, widths: Sequence[tuple[int, int]], fill: Any) -> Any:
    """x with `fill` around it."""
    if not any(map(any, widths)):
        return x
    value = number(fill, x.dtype, x)
    require(value.ndim == 0, f"a constant value must be a scalar, not {value.type}")
    shape = tuple(b + n + a for (b, a), n in zip(widths, x.shape, strict=True))
    if not x.size:
        return broadcast_to(value, shape)
    starts = tuple(before for before, _ in widths)
    return movement.pad(x, value, shape=shape, starts=starts, steps=(1,) * x.ndim)


# --- what depends on the array --------------------------------------------------------------------


def _with_statistic(x: Any, axis: int, pair: tuple[int, int], mode: str, lengths: Any) -> Any:
    n = x.shape[axis]
    parts = [x]
    for place, (width, length) in enumerate(zip(pair, lengths, strict=True)):
        size = n if length is None else min(int(length), n)
        if size < 1:
            raise ArgumentError(f"stat_length={length} takes nothing into account")
        edge = sliced(x, axis, 0 if place == 0 else n - size, size)
        value = _STATISTICS[mode](edge, axis, keepdims=True)
        if kind_of(x.dtype) in "iu":
            value = np.rint(value)
        shape = tuple(width if i == axis else size for i, size in enumerate(x.shape))
        parts.insert(0 if place == 0 else 2, broadcast_to(cast(value, x.dtype), shape))
    return concatenate(parts, axis)


def _with_ramps(x: Any, axis: int, pair: tuple[int, int], ends: Any) -> Any:
    n = x.shape[axis]
    one = tuple(size for i, size in enumerate(x.shape) if i != axis)

    def ramp(end: Any, place: int, width: int) -> Any:
        edge = np.reshape(sliced(x, axis, place, 1), one)
        return linspace(end, edge, width, endpoint=False, dtype=x.dtype, axis=axis)

    left, right = ramp(ends[0], 0, pair[0]), ramp(ends[1], n - 1, pair[1])
    return concatenate((left, x, flip(right, axis)), axis)


def _with_odd_reflection(x: Any, axis: int, pair: tuple[int, int], symmetric: bool) -> Any:
    """Turned around the ends by half a turn: 2 * end - x, and so on with what that gives.

    Two half turns, around both ends, are a shift by the period: the k-th copy of the array is
    higher by k times the difference of the ends, every other one upside down.
    """
    n = x.shape[axis]
    period = n if symmetric else max(n - 1, 1)
    copy, place = np.divmod(np.arange(-pair[0], n + pair[1]), period)
    # the last element begins a copy of its own, except in the array itself
    turned = copy % 2 == 1
    places = np.where(turned, period - 1 - place if symmetric else period - place, place)
    along = tuple(-1 if i == axis else 1 for i in range(x.ndim))
    first, last = sliced(x, axis, 0, 1), sliced(x, axis, n - 1, 1)
    if n == 1 and not symmetric:
        return picked(x, axis, np.zeros_like(places))

    def steps(values: Any) -> Any:
        return np.reshape(values, along).astype(x.dtype)

    kept = picked(x, axis, places)
    lift_by = steps(copy - turned) * (last - first)
    return np.where(np.reshape(turned, along), 2 * last - kept, kept) + lift_by
