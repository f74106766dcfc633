"""New elements among the old: insert and resize."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphdl.errors import GraphIndexArrayError, GraphIndexError
from graphdl.numpy_functions.arguments import (
    axis_of,
    integers,
    lift,
    refuse,
    require,
    reshaped,
    sliced,
    static,
)
from graphdl.numpy_functions.manipulation import concatenate, moveaxis, picked, tile
from graphdl.tracing import TracedArray, broadcast_to, cast, implements
from graphdl.types import kind_of


@implements(np.insert)
def insert(arr: Any, obj: Any, values: Any, axis: Any = None) -> Any:
    obj = static(obj)
    x, new = lift(arr, values)
    refuse(
        isinstance(obj, TracedArray),
        "the positions must be static: what comes where would depend on values",
    )
    if axis is None:
        x, axis = reshaped(x, (x.size,)), 0
    axis = axis_of(axis, x.shape)
    n = x.shape[axis]
    at, single = _places(obj, n)
    require(new.ndim <= x.ndim, f"values of shape {new.shape} for an array of shape {x.shape}")
    new = reshaped(new, (1,) * (x.ndim - new.ndim) + new.shape)
    if single:
        new = moveaxis(new, 0, axis)  # as NumPy has it: x[:, i] = values
    count = new.shape[axis] if at.size == 1 else at.size
    shape = tuple(count if i == axis else size for i, size in enumerate(x.shape))
    require(
        all(a in (1, b) for a, b in zip(new.shape, shape, strict=True)),
        f"values of shape {new.shape} do not fit {shape}",
    )
    spread = broadcast_to(cast(new, x.dtype), shape)
    where = int(at[0]) if at.size == 1 else at
    order = np.insert(np.arange(n), where, n + np.arange(count))
    return picked(concatenate((x, spread), axis), axis, order)


def _places(obj: Any, n: int) -> tuple[np.ndarray[Any, Any], bool]:
    """The positions as an array of integers, and whether it was one number."""
    if isinstance(obj, slice):
        return np.arange(*obj.indices(n)), False
    given = np.asarray(obj)
    if kind_of(given.dtype) == "b":
        return np.flatnonzero(given), False
    places = given.astype(np.int64) if given.size == 0 else given
    if kind_of(places.dtype) not in "iu":
        raise GraphIndexArrayError(f"positions must be integers, not {places.dtype}")
    bad = places[(places < -n) | (places > n)]
    if bad.size:
        raise GraphIndexError(f"index {bad.flat[0]} is out of bounds for {n} elements")
    return places.reshape(-1), given.ndim == 0


@implements(np.resize)
def resize(a: Any, new_shape: Any) -> Any:
    (x,) = lift(a)
    shape = integers(new_shape, "a size")
    require(all(size >= 0 for size in shape), f"shape {shape} has a negative size")
    size = math.prod(shape)
    flat = reshaped(x, (x.size,))
    if size and not x.size:
        return broadcast_to(lift(x, np.zeros((), x.dtype))[1], shape)
    times = -(-size // x.size) if x.size else 0
    return reshaped(sliced(tile(flat, times), 0, 0, size), shape)
