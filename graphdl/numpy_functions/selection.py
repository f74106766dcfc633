"""Some of the elements: take, delete; diagonals and triangles; differences of neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphdl.errors import DtypeError, GraphIndexError, UnsupportedError
from graphdl.numpy_functions.arguments import (
    BOOL,
    axis_of,
    integer,
    iota,
    lift,
    number,
    refuse,
    require,
    reshaped,
    sliced,
    static,
    transposed,
)
from graphdl.numpy_functions.elementwise import choose
from graphdl.numpy_functions.manipulation import broadcast_arrays, concatenate, picked, ravel
from graphdl.ops import movement, subscript
from graphdl.tracing import (
    TracedArray,
    broadcast_to,
    call_ufunc,
    cast,
    implements,
    unsupported,
)
from graphdl.types import kind_of


@implements(np.take)
def take(a: Any, indices: Any, axis: Any = None, out: None = None, mode: str = "raise") -> Any:
    indices = static(indices)
    x, index = lift(a, indices)
    where: Any = index if isinstance(indices, TracedArray) else np.asarray(indices)
    if axis is None:
        x, axis = reshaped(x, (x.size,)), 0
    axis = axis_of(axis, x.shape)
    n = x.shape[axis]
    if kind_of(where.dtype) not in "iu":
        raise DtypeError(f"indices must be integers, not {where.dtype}")
    if mode == "wrap":
        where = where % n
    elif mode == "clip":
        where = np.clip(where, 0, n - 1)
    else:
        refuse(mode != "raise", f"mode={mode!r}")
    return subscript.getitem(x, (*[slice(None)] * axis, where))


@implements(np.take_along_axis)
def take_along_axis(arr: Any, indices: Any, axis: Any = -1) -> Any:
    indices = static(indices)
    x, _ = lift(arr, indices)
    index = indices if isinstance(indices, TracedArray) else np.asarray(indices)
    if kind_of(index.dtype) not in "iu":
        raise DtypeError(f"indices must be integers, not {index.dtype}")
    if axis is None:
        require(index.ndim == 1, f"with axis=None indices must have one axis, not {index.shape}")
        x, axis = reshaped(x, (x.size,)), 0
    require(
        index.ndim == x.ndim,
        f"indices of shape {index.shape} and an array of shape {x.shape} differ in axes",
    )
    axis = axis_of(axis, x.shape)
    key: list[Any] = []
    for i, size in enumerate(x.shape):
        places = (1,) * i + (-1,) + (1,) * (x.ndim - i - 1)
        key.append(index if i == axis else np.arange(size).reshape(places))
    return subscript.getitem(x, tuple(key))


@implements(np.compress)
def compress(condition: Any, a: Any, axis: Any = None, out: None = None) -> Any:
    condition = static(condition)
    refuse(
        isinstance(condition, TracedArray),
        "with a traced condition the shape of the result depends on values; use np.where",
    )
    (x,) = lift(a)
    if axis is None:
        x, axis = reshaped(x, (x.size,)), 0
    return take(x, np.flatnonzero(np.asarray(condition)), axis)


@implements(np.extract)
def extract(condition: Any, arr: Any) -> Any:
    condition = static(condition)
    if isinstance(condition, TracedArray):
        raise UnsupportedError(unsupported("np.extract"))
    return compress(np.ravel(condition), arr)


@implements(np.delete)
def delete(arr: Any, obj: Any, axis: Any = None) -> Any:
    (x,) = lift(arr)
    if axis is None:
        x, axis = reshaped(x, (x.size,)), 0
    axis = axis_of(axis, x.shape)
    removed = static(obj)
    if isinstance(removed, TracedArray):
        raise UnsupportedError(
            "which elements to delete must be static; index with integers, such as "
            "j + (j >= i) for j = np.arange(n - 1) to leave out element i"
        )
    try:
        return picked(x, axis, np.delete(np.arange(x.shape[axis]), removed))
    except IndexError as error:
        raise GraphIndexError(str(error)) from error


# --- diagonals and triangles --------------------------------------------------------------------


@implements(np.diagonal)
def diagonal(a: Any, offset: Any = 0, axis1: Any = 0, axis2: Any = 1) -> Any:
    (x,) = lift(a)
    require(x.ndim >= 2, f"needs at least 2 axes, shape {x.shape} has {x.ndim}")
    i, j = axis_of(axis1, x.shape), axis_of(axis2, x.shape)
    require(i != j, f"axis1 and axis2 are both axis {i}")
    rest = [axis for axis in range(x.ndim) if axis not in (i, j)]
    x = transposed(x, (*rest, i, j))
    return diagonal_of_last(x, integer(offset, "offset"))


def diagonal_of_last(x: TracedArray, offset: int = 0) -> Any:
    """The diagonal of the last two axes: every (columns + 1)-th of their elements; a view of x."""
    *rest, rows, columns = x.shape
    row, column = max(-offset, 0), max(offset, 0)
    size = max(min(rows - row, columns - column), 0)
    if size <= 1:
        part = sliced(sliced(x, len(rest), row, size), len(rest) + 1, column, size)
        return reshaped(part, (*rest, size))
    shape = (*rest, rows * columns)
    flat = x.joined_for_diagonal(reshaped(x, shape).node, shape)
    return sliced(flat, len(rest), row * columns + column, size, columns + 1)


@implements(np.trace)
def trace(
    a: Any,
    offset: Any = 0,
    axis1: Any = 0,
    axis2: Any = 1,
    dtype: Any = None,
    out: None = None,
) -> Any:
    return np.sum(diagonal(a, offset, axis1, axis2), axis=-1, dtype=dtype)


@implements(np.diag)
def diag(v: Any, k: Any = 0) -> Any:
    (x,) = lift(v)
    if x.ndim == 2:
        return diagonal(x, k)
    require(x.ndim == 1, f"takes one or two axes, not shape {x.shape}")
    k = integer(k, "k")
    n = x.size + abs(k)
    if not x.size:
        return broadcast_to(number(0, x.dtype, x), (n, n))
    start = k if k >= 0 else -k * n
    flat = movement.pad(x, number(0, x.dtype, x), shape=(n * n,), starts=(start,), steps=(n + 1,))
    return reshaped(flat, (n, n))


@implements(np.diagflat)
def diagflat(v: Any, k: Any = 0) -> Any:
    return diag(ravel(v), k)


def _below(x: TracedArray, k: int) -> Any:
    """Whether an element of a matrix is on or below diagonal k."""
    rows, columns = x.shape[-2:]
    row = reshaped(iota(rows, x), (rows, 1))
    column = iota(columns, x)
    return call_ufunc(np.greater_equal, call_ufunc(np.add, row, k), column)


@implements(np.tril)
def tril(m: Any, k: Any = 0) -> Any:
    x = _matrix(m)
    return choose(_below(x, integer(k, "k")), x, np.zeros((), x.dtype))


@implements(np.triu)
def triu(m: Any, k: Any = 0) -> Any:
    x = _matrix(m)
    return choose(_below(x, integer(k, "k") - 1), np.zeros((), x.dtype), x)


def _matrix(m: Any) -> Any:
    (x,) = lift(m)
    return broadcast_to(x, (x.size, x.size)) if x.ndim == 1 else x


@implements(np.diff)
def diff(a: Any, n: Any = 1, axis: Any = -1, prepend: Any = None, append: Any = None) -> Any:
    (x,) = lift(a)
    order = integer(n, "n")
    require(order >= 0, f"order must be non-negative, not {order}")
    axis = axis_of(axis, x.shape)
    ends = []
    for end in (prepend, append):
        if end is not None:
            (value,) = lift(x, end)[1:]
            if value.ndim == 0:
                value = broadcast_to(
                    value, tuple(1 if i == axis else size for i, size in enumerate(x.shape))
                )
            end = value
        ends.append(end)
    if order == 0:
        return x
    parts = [part for part in (ends[0], x, ends[1]) if part is not None]
    x = concatenate(parts, axis)
    for _ in range(order):
        size = max(x.shape[axis] - 1, 0)
        later, earlier = sliced(x, axis, 1, size), sliced(x, axis, 0, size)
        x = call_ufunc(np.not_equal if x.dtype == BOOL else np.subtract, later, earlier)
    return x


@implements(np.ediff1d)
def ediff1d(ary: Any, to_end: Any = None, to_begin: Any = None) -> Any:
    parts = [diff(ravel(ary))]
    if to_begin is not None:
        parts.insert(0, cast(ravel(lift(parts[0], to_begin)[1]), parts[0].dtype))
    if to_end is not None:
        parts.append(cast(ravel(lift(parts[0], to_end)[1]), parts[0].dtype))
    return concatenate(parts)


@implements(np.meshgrid)
def meshgrid(
    *xi: Any, copy: bool = True, sparse: bool = False, indexing: str = "xy"
) -> tuple[Any, ...]:
    values = [ravel(x) for x in lift(*xi)]
    ndim = len(values)
    require(indexing in ("xy", "ij"), f"indexing={indexing!r}; it is 'xy' or 'ij'")
    order = list(range(ndim))
    if indexing == "xy" and ndim > 1:
        order[:2] = [1, 0]
    grids = tuple(
        reshaped(x, tuple(x.size if order[i] == axis else 1 for axis in range(ndim)))
        for i, x in enumerate(values)
    )
    return grids if sparse else broadcast_arrays(*grids)
