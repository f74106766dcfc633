"""Arrays that are filled rather than computed, and what NumPy is asked about a traced value."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphdl.numpy_functions.arguments import (
    FLOAT,
    axis_of,
    integer,
    integers,
    iota,
    lift,
    lift_one,
    number,
    promote,
    reshaped,
)
from graphdl.numpy_functions.manipulation import moveaxis, stack
from graphdl.tracing import (
    TracedArray,
    broadcast_to,
    cast,
    dtype_of,
    implements,
    shape_of,
)
from graphdl.types import as_dtype


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
    if wanted.kind in "iu":
        points = np.floor(points)
    points = moveaxis(cast(points, wanted), 0, axis_of(axis, points.shape))
    return (points, step) if retstep else points


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
implements(np.iscomplexobj)(lambda x: False)
implements(np.isrealobj)(lambda x: True)


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
    return np.result_type(*map(_kind, arrays_and_dtypes))


@implements(np.can_cast)
def can_cast(from_: Any, to: Any, casting: Any = "safe") -> bool:
    return np.can_cast(
        lift_one(from_).dtype if isinstance(from_, TracedArray) else from_, to, casting
    )


@implements(np.common_type)
def common_type(*arrays: Any) -> Any:
    dtypes = [np.dtype(dtype_of(x)) for x in arrays]
    return np.result_type(*(d if d.kind == "f" else FLOAT for d in dtypes)).type
