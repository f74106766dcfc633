"""Indexing by integer arrays: positions, gather rows, and its transpose, scatter-add."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphdl.errors import DtypeError, GraphIndexError, ShapeError
from graphdl.ops import movement
from graphdl.ops.op import Op
from graphdl.types import TensorType

_INDEX = np.dtype(np.int64)


def _infer_position(index: TensorType, *, size: int) -> TensorType:
    if index.dtype != _INDEX:
        raise DtypeError(f"position: indices must be int64, not {index}")
    return index


def _position(index: Any, *, size: int) -> Any:
    bad = (index < -size) | (index >= size)
    if np.any(bad):
        raise GraphIndexError(f"index {index[bad].flat[0]} is out of bounds for size {size}")
    return np.where(index < 0, index + size, index)


#: An index of an axis of `size` elements, counted from its start; an error where it is out of
#: bounds, which compiled programs raise when they have ended.
position = Op(
    "position",
    "pointwise",
    _infer_position,
    _position,
    no_gradient="its result is an index",
)


def _infer_gather(x: TensorType, index: TensorType) -> TensorType:
    if index.dtype != _INDEX:
        raise DtypeError(f"gather: indices must be int64, not {index}")
    if x.ndim == 0:
        raise ShapeError("gather: a 0-d array has no axis to index")
    if x.shape[0] == 0 and index.size:
        raise GraphIndexError(f"gather: {x} has no element to index")
    return TensorType(x.dtype, (*index.shape, *x.shape[1:]))


#: x[index] along the first axis; each index in 0 <= index < len(x).
gather = Op(
    "gather",
    "indexing",
    _infer_gather,
    lambda x, index: x[index],
    lambda g, out, x, index: (scatter_add(g, index, size=x.shape[0]), None),
)


def gather_rows(x: Any, axes: Sequence[int], indices: Sequence[Any]) -> Any:
    """x at `indices` along `axes`: the indexed axes are merged into one in front, and gathered.

    The result has the axes of an index, then the others of x. The indices broadcast.
    """
    others = [axis for axis in range(x.ndim) if axis not in axes]
    order = (*axes, *others)
    if order != tuple(range(x.ndim)):
        x = movement.transpose(x, perm=order)
    if len(axes) > 1:
        count = len(axes)
        merged = math.prod(x.shape[:count])
        sizes = x.shape[1:count]
        x = movement.reshape(x, shape=(merged, *x.shape[count:]))
    else:
        sizes = ()
    flat = indices[0]
    for index, size in zip(indices[1:], sizes, strict=True):
        flat = flat * size + index
    return gather(x, flat)


def check_bounds(index: Any, size: int) -> None:
    """Refuse an index outside of 0 <= index < size."""
    bad = (index < 0) | (index >= size)
    if np.any(bad):
        raise GraphIndexError(f"index {index[bad].flat[0]} is out of bounds for size {size}")


def _infer_scatter(updates: TensorType, index: TensorType, *, size: int) -> TensorType:
    if index.dtype != _INDEX:
        raise DtypeError(f"scatter_add: indices must be int64, not {index}")
    if updates.shape[: index.ndim] != index.shape:
        raise ShapeError(f"scatter_add: {updates} does not start with the axes of {index}")
    return TensorType(updates.dtype, (size, *updates.shape[index.ndim :]))


def _scatter(updates: Any, index: Any, *, size: int) -> Any:
    if index.size and index.min() < 0:
        raise GraphIndexError(f"index {index.min()} is out of bounds for size {size}")
    result = np.zeros((size, *updates.shape[index.ndim :]), updates.dtype)
    np.add.at(result, index, updates)
    return result


#: Zeros of `size` rows, to which row index[i] gets updates[i] added, in order.
scatter_add: Op = Op(
    "scatter_add",
    "indexing",
    _infer_scatter,
    _scatter,
    lambda g, out, updates, index, *, size: (gather(g, index), None),
)
