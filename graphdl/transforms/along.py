"""np.apply_along_axis and np.apply_over_axes: functions of lines, functions that reduce axes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphdl.numpy_functions.arguments import axis_of, integers, lift, require, reshaped
from graphdl.numpy_functions.manipulation import expand_dims, moveaxis
from graphdl.tracing import implements
from graphdl.transforms.vectorise import vmap


@implements(np.apply_along_axis)
def apply_along_axis(
    func1d: Callable[..., Any], axis: Any, arr: Any, *args: Any, **kwargs: Any
) -> Any:
    """func1d for all lines at once: it is called with one traced line."""
    (x,) = lift(arr)
    axis = axis_of(axis, x.shape)
    lines = moveaxis(x, axis, -1)
    rows = lines.shape[:-1]
    require(math.prod(rows) > 0, f"shape {x.shape} has no line along axis {axis}")
    flat = reshaped(lines, (math.prod(rows), x.shape[axis]))
    result = vmap(lambda line: func1d(line, *args, **kwargs))(flat)
    new = result.ndim - 1
    result = reshaped(result, (*rows, *result.shape[1:]))
    places = range(len(rows), len(rows) + new)
    return moveaxis(result, list(places), [axis + i for i in range(new)])


@implements(np.apply_over_axes)
def apply_over_axes(func: Callable[..., Any], a: Any, axes: Any) -> Any:
    (x,) = lift(a)
    for axis in integers(axes, "an axis"):
        axis = axis_of(axis, x.shape)
        result = func(x, axis)
        x = result if result.ndim == x.ndim else expand_dims(result, axis)
        require(x.ndim == result.ndim or x.ndim == result.ndim + 1, "the function must reduce")
    return x
