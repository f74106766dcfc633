"""Arrays that are filled rather than computed, and what NumPy is asked about a traced value."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphdl import types
from graphdl.numpy_functions.arguments import (
    FLOAT,
    INDEX,
    axis_of,
    integer,
    integers,
    iota,
    lift,
    lift_one,
    number,
    promote,
    require,
    reshaped,
)
from graphdl.numpy_functions.manipulation import concatenate, moveaxis, stack
from graphdl.tracing import (
    TracedArray,
    broadcast_shapes,
    broadcast_to,
    call_ufunc,
    cast,
    dtype_of,
    implements,
    shape_of,
)
from graphdl.types import as_dtype, kind_of


def _filled(like: Any, fill: Any, dtype: Any, shape: Any) -> Any:
    (x,) = lift(like) if isinstance(like, TracedArray) else lift(fill)
    sizes = shape_of(like) if shape is None else integers(shape, "a size")
    kind = as_dtype(np.asarray(like).dtype if not isinstance(like, TracedArray) else like.dtype)
    return broadcast_to(number(fill, kind if dtype is None else as_dtype(dtype), x), sizes)


@implements(np.zeros_like, np.empty_like)
def zeros_like(
    a: Any,
    dtype: Any = None,
    order: str = "K",
    subok: bool = True,
    shape: Any = None,
    *,
    device: Any = None,
) -> Any:
    return _filled(a, 0, dtype, shape)


@implements(np.ones_like)
def ones_like(
    a: Any,
    dtype: Any = None,
    order: str = "K",
    subok: bool = True,
    shape: Any = None,
    *,
    device: Any = None,
) -> Any:
    return _filled(a, 1, dtype, shape)


@implements(np.full_like)
def full_like(
    a: Any,
    fill_value: Any,
    dtype: Any = None,
    order: str = "K",
    subok: bool = True,
    shape: Any = None,
    *,
    device: Any = None,
) -> Any:
    return _filled(a, fill_value, dtype, shape)


@implements(np.linspace)
def linspace(
    start: Any,
    stop: Any,
    num: Any = 50,
    endpoint: bool = True,
    retstep: bool = False,
    dtype: Any = None,
    axis: Any = 0,
    *,
    device: Any = None,
) -> Any:
    count = integer(num, "num")
    kind = promote(start, stop, 1.0)
    first, last = lift(start, stop)
    first, last = cast(first, kind), cast(last, kind)
    parts = count - 1 if endpoint else count
    step = (last - first) / (parts or np.nan)
    steps = cast(iota(count, first), kind)
    steps = reshaped(steps, (count,) + (1,) * step.ndim)
    points = (steps * step if parts else steps * (last - first)) + first
    if endpoint and count > 1:  # the last point is `stop` exactly
        points = np.where(steps == count - 1, last, points)
    wanted = kind if dtype is None else as_dtype(dtype)
    if kind_of(wanted) in "iu":
        points = np.floor(points)
    points = moveaxis(cast(points, wanted), 0, axis_of(axis, points.shape))
    return (points, step) if retstep else points


@implements(np.logspace)
def logspace(
    start: Any,
    stop: Any,
    num: Any = 50,
    endpoint: bool = True,
    base: Any = 10.0,
    dtype: Any = None,
    axis: Any = 0,
) -> Any:
    if len(shape_of(base)):  # the axis of the powers comes in front of those of all three
        shape = broadcast_shapes("np.logspace", [shape_of(v) for v in (start, stop, base)])
        start, stop, base = (broadcast_to(value, shape) for value in lift(start, stop, base))
    points = call_ufunc(np.power, base, linspace(start, stop, num, endpoint))
    points = points if dtype is None else cast(points, as_dtype(dtype))
    return moveaxis(points, 0, axis_of(axis, points.shape))


@implements(np.geomspace)
def geomspace(
    start: Any,
    stop: Any,
    num: Any = 50,
    endpoint: bool = True,
    dtype: Any = None,
    axis: Any = 0,
) -> Any:
    """Both ends must be of one sign; that they are not zero is not checked."""
    count = integer(num, "num")
    kind = promote(start, stop, np.zeros((), FLOAT))
    first, last = (cast(value, kind) for value in lift(start, stop))
    sign = np.sign(first)
    ratio = last / first
    share = linspace(lift(first, 0.0)[1], 1.0, count, endpoint, dtype=kind)
    share = reshaped(share, (count,) + (1,) * ratio.ndim)
    points = sign * np.exp(np.log(np.abs(first)) + share * np.log(ratio))
    place = reshaped(iota(count, first), share.shape)
    points = np.where(place == 0, first, points)
    if endpoint and count > 1:
        points = np.where(place == count - 1, last, points)
    points = points if dtype is None else cast(points, as_dtype(dtype))
    return moveaxis(points, 0, axis_of(axis, points.shape))


@implements(np.vander)
def vander(x: Any, N: Any = None, increasing: bool = False) -> Any:
    (values,) = lift(x)
    require(values.ndim == 1, f"takes one axis, not shape {values.shape}")
    count = values.size if N is None else integer(N, "N")
    dtype = promote(values, np.zeros((), INDEX))
    column = reshaped(cast(values, dtype), (values.size, 1))
    ones = np.ones_like(column[:, : min(count, 1)])
    factors = broadcast_to(column, (values.size, max(count - 1, 0)))
    powers = np.cumprod(concatenate((ones, factors), 1), axis=1, dtype=dtype)
    return powers if increasing else powers[:, ::-1]


@implements(np.astype)
def astype(x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Any:
    return lift_one(x).astype(dtype)


@implements(np.array, np.asarray, np.asanyarray, np.ascontiguousarray)
def array(a: Any, dtype: Any = None, **kwargs: Any) -> Any:
    """np.array(nested lists, like=x): the one spelling that NumPy hands to a traced value."""

    def built(item: Any) -> Any:
        if isinstance(item, (list, tuple)):
            return stack([built(part) for part in item])
        return lift_one(item)

    x = built(a)
    return x if dtype is None else cast(x, as_dtype(dtype))


# --- questions ----------------------------------------------------------------------------------

implements(np.shape)(lambda a: shape_of(a))
implements(np.ndim)(lambda a: len(shape_of(a)))
implements(np.iscomplexobj)(lambda x: np.dtype(dtype_of(x)).kind == "c")
implements(np.isrealobj)(lambda x: np.dtype(dtype_of(x)).kind != "c")


@implements(np.size)
def size(a: Any, axis: Any = None) -> int:
    shape = shape_of(a)
    if axis is None:
        return int(np.prod(shape, dtype=np.int64))
    axes = [axis_of(i, shape) for i in integers(axis, "an axis")]
    return int(np.prod([shape[i] for i in axes], dtype=np.int64))


def _kind(value: Any) -> Any:
    """What a value, or a dtype, counts for in np.result_type."""
    if not isinstance(value, TracedArray):
        return value
    kind = dtype_of(value)
    return kind(0) if isinstance(kind, type) else kind


@implements(np.result_type)
def result_type(*arrays_and_dtypes: Any) -> Any:
    return types.result_type(*map(_kind, arrays_and_dtypes))


@implements(np.can_cast)
def can_cast(from_: Any, to: Any, casting: Any = "safe") -> bool:
    return np.can_cast(
        lift_one(from_).dtype if isinstance(from_, TracedArray) else from_, to, casting
    )


@implements(np.common_type)
def common_type(*arrays: Any) -> Any:
    dtypes = [np.dtype(dtype_of(x)) for x in arrays]
    return np.result_type(*(d if kind_of(d) == "f" else FLOAT for d in dtypes)).type
