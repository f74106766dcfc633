"""What the implementations of NumPy's functions share: operands, dtypes and axes."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from graphdl.errors import (
    AxisError,
    ConcreteValueError,
    DtypeError,
    GraphError,
    ShapeError,
    UnsupportedError,
)
from graphdl.ops import movement
from graphdl.tracing import TracedArray, as_traced, cast, dtype_of, trace_of
from graphdl.types import Dtype, Shape, as_dtype, kind_of, result_type

BOOL = np.dtype(np.bool_)
INDEX = np.dtype(np.int64)
FLOAT = np.dtype(np.float64)


def lift(*values: Any) -> tuple[Any, ...]:
    """All values in the trace of those that are traced: arrays and numbers become constants."""
    trace = trace_of(values)
    lifted = (as_traced(value, trace) for value in values)
    return tuple(TracedArray(x.node, trace) if x.weak else x for x in lifted)


def lift_one(value: Any) -> Any:
    return lift(value)[0]


def lift_all(values: Iterable[Any]) -> tuple[Any, ...]:
    """The members of a sequence argument, such as that of np.stack."""
    if isinstance(values, TracedArray):
        return tuple(values)
    return lift(*values)


def promote(*values: Any) -> Dtype:
    """The dtype of all values together by NEP 50: Python scalars yield to arrays."""
    kinds = (dtype_of(value) for value in values)
    return as_dtype(result_type(*(k(0) if isinstance(k, type) else k for k in kinds)))


def number(value: Any, dtype: Dtype, like: TracedArray) -> Any:
    """An operand as `dtype`; Python integers that do not fit wrap around, as in np.where."""
    if isinstance(value, TracedArray):
        return lift_one(cast(value, dtype))
    with np.errstate(all="ignore"):
        return as_traced(np.asarray(value).astype(dtype), like.owner)


def float_of(dtype: Dtype) -> Dtype:
    """The dtype that a mean of `dtype` has."""
    return dtype if kind_of(dtype) in "fc" else FLOAT


def as_float(x: Any) -> Any:
    """A traced value or an array of any numbers as floats; complex numbers stay what they are."""
    if not isinstance(x, TracedArray):
        x = np.asarray(x)
        return x if kind_of(x.dtype) in "fc" else x.astype(np.float64)
    return cast(lift_one(x), float_of(x.dtype))


def squared_magnitude(x: Any) -> Any:
    """x * x, or x times its conjugate as a real number."""
    return x.real * x.real + x.imag * x.imag if kind_of(x.dtype) == "c" else x * x


def check_cast(source: Dtype, target: Dtype, casting: str) -> None:
    if not np.can_cast(source, target, casting):  # type: ignore[arg-type]
        raise DtypeError(f"cannot cast {source} to {target} by the rule {casting!r}")


def integer(value: Any, what: str) -> int:
    """A static integer argument."""
    if isinstance(value, TracedArray) and value.known() is None:
        raise ConcreteValueError(
            f"{what} is a traced value ({value.type}), which has no number yet. Shapes are static: "
            f"give a Python int, such as x.shape[0]. Where it is a size, take the largest one and "
            f"choose with np.where(np.arange(size) < n, x, 0){value.made_at}"
        )
    try:
        return operator.index(value)
    except GraphError:
        raise
    except TypeError:
        raise DtypeError(f"{what} must be an integer, not {value!r:.60}") from None


def integers(value: Any, what: str) -> tuple[int, ...]:
    """A static integer argument, or a sequence of them."""
    if isinstance(value, TracedArray) and value.ndim and value.known() is not None:
        value = np.asarray(value)
    if isinstance(value, (tuple, list)) or (isinstance(value, np.ndarray) and value.ndim):
        return tuple(integer(item, what) for item in value)
    return (integer(value, what),)


def static(value: Any) -> Any:
    """A traced value that depends on no argument, as the array that it is; all else as it is.

    np.array([0, 2]) in a traced function is such a value.
    """
    known = value.known() if isinstance(value, TracedArray) else None
    return value if known is None else known


def axis_of(axis: Any, shape: Shape) -> int:
    """One axis, counted from the front."""
    number = integer(axis, "an axis")
    if not -len(shape) <= number < len(shape):
        raise AxisError(
            f"axis {number} is out of bounds for shape {shape}, which has {len(shape)} axes"
        )
    return number % len(shape)


def axes_of(axis: Any, shape: Shape) -> tuple[int, ...]:
    """Axes counted from the front, each once, in the order given; None means all."""
    if axis is None:
        return tuple(range(len(shape)))
    axes = tuple(axis_of(number, shape) for number in integers(axis, "an axis"))
    if len(set(axes)) != len(axes):
        raise AxisError(f"axes {axis} name an axis of shape {shape} twice")
    return axes


def with_ones(shape: Shape, axes: Sequence[int]) -> Shape:
    """The shape that keepdims=True gives a reduction over `axes`."""
    return tuple(1 if axis in axes else size for axis, size in enumerate(shape))


def reshaped(x: Any, shape: Shape) -> Any:
    return x if x.shape == shape else movement.reshape(x, shape=shape)


def transposed(x: Any, perm: Sequence[int]) -> Any:
    order = tuple(perm)
    return x if order == tuple(range(x.ndim)) else movement.transpose(x, perm=order)


def sliced(x: Any, axis: int, start: int, size: int, step: int = 1) -> Any:
    """`size` elements along one axis, from `start` by `step`."""
    if size == x.shape[axis] and step == 1:
        return x
    starts = tuple(start if i == axis and size else 0 for i in range(x.ndim))
    sizes = tuple(size if i == axis else n for i, n in enumerate(x.shape))
    steps = tuple(step if i == axis and size > 1 else 1 for i in range(x.ndim))
    return movement.slice_(x, starts=starts, sizes=sizes, steps=steps)


def iota(size: int, like: TracedArray, dtype: Dtype = INDEX) -> Any:
    """0, 1, ... size - 1 as a value that costs no memory."""
    return like.apply_op(movement.iota, (), {"size": size, "dtype": dtype})


def iota_along(axis: int, shape: Shape, like: TracedArray) -> Any:
    """The position along `axis`, for every element of `shape`."""
    return movement.broadcast(iota(shape[axis], like), shape=shape, dims=(axis,))


def refuse(condition: bool, message: str) -> None:
    if condition:
        raise UnsupportedError(message)


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ShapeError(message)
