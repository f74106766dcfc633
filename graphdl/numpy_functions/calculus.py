"""Slopes, integrals and interpolation of sampled functions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphdl.errors import ArgumentError, ShapeError
from graphdl.numpy_functions.arguments import (
    FLOAT,
    as_float,
    axes_of,
    axis_of,
    integer,
    lift,
    promote,
    require,
    reshaped,
    sliced,
    static,
)
from graphdl.numpy_functions.manipulation import concatenate
from graphdl.numpy_functions.selection import diff, take
from graphdl.numpy_functions.sorting import searchsorted
from graphdl.ops import sorting
from graphdl.tracing import TracedArray, cast, implements, shape_of
from graphdl.types import kind_of


@implements(np.gradient)
def gradient(f: Any, *varargs: Any, axis: Any = None, edge_order: Any = 1) -> Any:
    """Second-order differences inside, of order `edge_order` at both ends of each axis."""
    values = lift(f, *varargs)
    x = as_float(values[0])
    axes = axes_of(axis, x.shape)
    order = integer(edge_order, "edge_order")
    if order not in (1, 2):
        raise ArgumentError(f"edge_order={order}; it is 1 or 2")
    spacings = _spacings(varargs, values[1:], axes, x)
    slopes = []
    for i, spacing in zip(axes, spacings, strict=True):
        require(
            x.shape[i] > order,
            f"axis {i} of shape {x.shape} is too short: edge_order={order} takes {order + 1}",
        )
        slopes.append(cast(_slope(x, i, spacing, order), x.dtype))
    return slopes[0] if len(slopes) == 1 else tuple(slopes)


def _spacings(
    given: tuple[Any, ...], values: tuple[Any, ...], axes: tuple[int, ...], x: TracedArray
) -> list[Any]:
    """For each axis a distance, or the distances between neighbours."""
    if not given:
        return [1.0] * len(axes)
    if len(given) == 1 and not shape_of(given[0]):
        return [_number(given[0], values[0])] * len(axes)
    if len(given) != len(axes):
        raise ArgumentError(f"{len(given)} spacings for {len(axes)} axes")
    result = []
    for i, spacing, value in zip(axes, map(static, given), values, strict=True):
        if value.ndim == 0:
            result.append(_number(spacing, value))
            continue
        if value.shape != (x.shape[i],):
            raise ShapeError(f"coordinates of shape {value.shape} for axis {i} of shape {x.shape}")
        if not isinstance(spacing, TracedArray):
            steps = np.diff(np.asarray(spacing).astype(FLOAT))
            if steps.size and (steps == steps[0]).all():
                result.append(float(steps[0]))
                continue
        result.append(diff(as_float(value)))
    return result


def _number(given: Any, value: Any) -> Any:
    """A distance; a Python number stays one, which leaves the dtype to the values."""
    return given if not isinstance(given, TracedArray) and type(given) in (int, float) else value


def _slope(x: TracedArray, axis: int, spacing: Any, order: int) -> Any:
    n = x.shape[axis]

    def at(start: int, size: int = 1) -> Any:
        return sliced(x, axis, start, size)

    if len(shape_of(spacing)) == 0:
        inner = (at(2, n - 2) - at(0, n - 2)) / (2.0 * spacing)
        first = (at(1) - at(0)) / spacing
        last = (at(n - 1) - at(n - 2)) / spacing
        if order == 2:
            first = (-1.5 * at(0) + 2.0 * at(1) - 0.5 * at(2)) / spacing
            last = (0.5 * at(n - 3) - 2.0 * at(n - 2) + 1.5 * at(n - 1)) / spacing
        return concatenate((first, inner, last), axis)
    places = tuple(-1 if i == axis else 1 for i in range(x.ndim))
    steps = np.reshape(spacing, places)
    left, right = sliced(steps, axis, 0, n - 2), sliced(steps, axis, 1, n - 2)
    inner = (
        -right / (left * (left + right)) * at(0, n - 2)
        + (right - left) / (left * right) * at(1, n - 2)
        + left / (right * (left + right)) * at(2, n - 2)
    )
    begin, end = sliced(steps, axis, 0, 1), sliced(steps, axis, n - 2, 1)
    first, last = (at(1) - at(0)) / begin, (at(n - 1) - at(n - 2)) / end
    if order == 2:
        first = _one_sided([at(0), at(1), at(2)], begin, sliced(steps, axis, 1, 1))
        last = _one_sided([at(n - 1), at(n - 2), at(n - 3)], -end, -sliced(steps, axis, n - 3, 1))
    return concatenate((first, inner, last), axis)


def _one_sided(points: list[Any], near: Any, far: Any) -> Any:
    """The slope at the first of three points, of the parabola through them."""
    both = near + far
    return (
        -(near + both) / (near * both) * points[0]
        + both / (near * far) * points[1]
        - near / (far * both) * points[2]
    )


@implements(np.trapezoid)
def trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: Any = -1) -> Any:
    (values, *_) = lift(y, 0 if x is None else x, dx)
    axis = axis_of(axis, values.shape)
    n = max(values.shape[axis] - 1, 0)
    step: Any = dx
    if x is not None:
        points = lift(values, x)[1]
        if points.ndim == 1:
            step = diff(points)
            step = reshaped(step, tuple(step.size if i == axis else 1 for i in range(values.ndim)))
        else:
            step = diff(points, axis=axis_of(axis, points.shape))
    heights = sliced(values, axis, 1, n) + sliced(values, axis, 0, n)
    return np.sum(step * heights / 2.0, axis=axis)


if hasattr(np, "trapz"):  # until NumPy 2.4
    implements(np.trapz)(trapezoid)  # noqa: NPY201


@implements(np.unwrap)
def unwrap(p: Any, discont: Any = None, axis: Any = -1, *, period: Any = 2 * math.pi) -> Any:
    (x,) = lift(p)
    axis = axis_of(axis, x.shape)
    steps = diff(x, axis=axis)
    threshold = period / 2 if discont is None else discont
    dtype = promote(x, period)
    high: Any = period / 2
    ambiguous = True
    if kind_of(dtype) in "iu":
        high, rest = divmod(period, 2)
        ambiguous = rest == 0
    low = -high
    around = np.remainder(steps - low, period) + low
    if ambiguous:  # keep the sign of a step by half a period
        around = np.where((around == low) & (steps > 0), high, around)
    correction = np.where(np.abs(steps) < threshold, 0, around - steps)
    first = cast(sliced(x, axis, 0, min(1, x.shape[axis])), dtype)
    rest = sliced(x, axis, 1, max(x.shape[axis] - 1, 0)) + np.cumsum(correction, axis=axis)
    return concatenate((first, cast(rest, dtype)), axis)


# --- interpolation --------------------------------------------------------------------------------


@implements(np.interp)
def interp(
    x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None, period: Any = None
) -> Any:
    """Straight lines between the points, in float64 as NumPy's; xp must increase."""
    xp, period = static(xp), static(period)
    wanted, points, heights = (cast(value, FLOAT) for value in lift(x, xp, fp))
    require(
        points.ndim == 1 and points.shape == heights.shape,
        f"xp and fp must be of one axis and alike, not {points.shape} and {heights.shape}",
    )
    require(points.size > 0, "the array of sample points is empty")
    if period is not None:
        wanted, points, heights = _periodic(wanted, points, heights, period)
        left = right = None
    if not isinstance(xp, TracedArray) and period is None:
        _check_rising(np.asarray(xp))
    n = points.size
    below = heights[0] if left is None else left
    above = heights[-1] if right is None else right
    if n == 1:
        inside: Any = heights[0]
    else:
        place = np.clip(searchsorted(points, wanted, "right") - 1, 0, n - 2)
        x0, x1 = take(points, place), take(points, place + 1)
        y0, y1 = take(heights, place), take(heights, place + 1)
        width = x1 - x0
        slope = (y1 - y0) / np.where(width == 0, 1, width)  # 0 only beyond the last point
        inside = np.where(wanted == x0, y0, slope * (wanted - x0) + y0)
        inside = np.where(wanted == points[-1], heights[-1], inside)
    result = np.where(wanted > points[-1], above, np.where(wanted < points[0], below, inside))
    return np.where(np.isnan(wanted), wanted, result)


def _check_rising(points: Any) -> None:
    if (np.diff(points) < 0).any():
        raise ArgumentError("xp must increase; np.argsort gives the order")


def _periodic(x: Any, points: Any, heights: Any, period: Any) -> tuple[Any, Any, Any]:
    """The points in one period, and one more at both ends."""
    if not isinstance(period, TracedArray):
        if period == 0:
            raise ArgumentError("period must be a non-zero value")
        period = abs(period)
    points = np.remainder(points, period)
    order = sorting.argsort(points)
    points, heights = take(points, order), take(heights, order)
    points = concatenate((points[-1:] - period, points, points[:1] + period))
    heights = concatenate((heights[-1:], heights, heights[:1]))
    return np.remainder(x, period), points, heights
