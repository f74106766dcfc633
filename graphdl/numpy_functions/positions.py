"""Positions as numbers: flat and by axis, of triangles and diagonals; bits packed in bytes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphdl.errors import ArgumentError, DtypeError, ShapeError
from graphdl.numpy_functions.arguments import (
    BOOL,
    INDEX,
    axis_of,
    integers,
    lift,
    refuse,
    require,
    reshaped,
    sliced,
    static,
)
from graphdl.numpy_functions.manipulation import moveaxis
from graphdl.numpy_functions.padding import pad
from graphdl.ops import indexing
from graphdl.tracing import TracedArray, cast, implements, shape_of
from graphdl.types import kind_of


def _indices(value: Any, what: str) -> Any:
    if kind_of(value.dtype) not in "iu":
        raise DtypeError(f"{what} must be integers, not {value.dtype}")
    return cast(value, INDEX)


def _in_order(sizes: tuple[int, ...], order: str) -> list[int]:
    """The axes, the one that changes slowest first."""
    if order not in ("C", "F"):
        raise ArgumentError(f"order={order!r}; it is 'C' or 'F'")
    axes = list(range(len(sizes)))
    return axes if order == "C" else axes[::-1]


@implements(np.unravel_index)
def unravel_index(indices: Any, shape: Any, order: str = "C") -> tuple[Any, ...]:
    (index,) = lift(indices)
    sizes = integers(shape, "a size")
    rest = indexing.position(_indices(index, "indices"), size=math.prod(sizes))
    found: list[Any] = [None] * len(sizes)
    for axis in reversed(_in_order(sizes, order)):
        found[axis] = np.remainder(rest, sizes[axis])
        rest = np.floor_divide(rest, sizes[axis])
    return tuple(found)


@implements(np.ravel_multi_index)
def ravel_multi_index(multi_index: Any, dims: Any, mode: Any = "raise", order: str = "C") -> Any:
    given = lift(*multi_index)
    sizes = integers(dims, "a size")
    modes = (mode,) * len(sizes) if isinstance(mode, str) else tuple(mode)
    if not len(given) == len(sizes) == len(modes):
        raise ShapeError(f"{len(given)} indices and {len(modes)} modes for {len(sizes)} axes")
    flat: Any = 0
    for axis in _in_order(sizes, order):
        index, size = _indices(given[axis], "indices"), sizes[axis]
        if modes[axis] == "wrap":
            index = np.remainder(index, size)
        elif modes[axis] == "clip":
            index = np.clip(index, 0, size - 1)
        else:
            require(modes[axis] == "raise", f"mode={modes[axis]!r}")
            index = indexing.position(index, size=size)
        flat = flat * size + index
    return flat


@implements(np.ix_)
def ix_(*args: Any) -> tuple[Any, ...]:
    lines = []
    for axis, value in enumerate(lift(*args)):
        require(value.ndim == 1, f"takes arrays of one axis, not shape {value.shape}")
        given = static(args[axis])
        if value.dtype == BOOL:
            refuse(
                isinstance(given, TracedArray),
                "a traced mask gives a shape that depends on values; give integers",
            )
            given = np.flatnonzero(np.asarray(given))
        places = tuple(-1 if i == axis else 1 for i in range(len(args)))
        lines.append(np.reshape(given, places))
    return tuple(lines)


# What these make depends on the shape only.
implements(np.tril_indices_from)(lambda arr, k=0: np.tril_indices(*_matrix(arr, k)))
implements(np.triu_indices_from)(lambda arr, k=0: np.triu_indices(*_matrix(arr, k)))


def _matrix(arr: Any, k: int) -> tuple[int, int, int]:
    shape = shape_of(arr)
    require(len(shape) == 2, f"takes a matrix, not shape {shape}")
    return shape[0], k, shape[1]


@implements(np.diag_indices_from)
def diag_indices_from(arr: Any) -> tuple[Any, ...]:
    shape = shape_of(arr)
    require(len(shape) >= 2 and len(set(shape)) == 1, f"takes a cube, not shape {shape}")
    return np.diag_indices(shape[0], len(shape))


# --- bits -----------------------------------------------------------------------------------------


def _bit_places(bitorder: str) -> Any:
    if bitorder not in ("big", "little"):
        raise ArgumentError(f"bitorder={bitorder!r}; it is 'big' or 'little'")
    return np.arange(8, dtype=np.uint8)[:: -1 if bitorder == "big" else 1]


def _line(a: Any, axis: Any) -> tuple[Any, int]:
    """The axis to pack along as the last one, and where it was."""
    (x,) = lift(a)
    if axis is None:
        return reshaped(x, (x.size,)), 0
    axis = axis_of(axis, x.shape)
    return moveaxis(x, axis, -1), axis


@implements(np.packbits)
def packbits(a: Any, /, axis: Any = None, bitorder: str = "big") -> Any:
    x, axis = _line(a, axis)
    if kind_of(x.dtype) not in "iub":
        raise DtypeError(f"takes integers or booleans, not {x.dtype}")
    bits = cast(cast(x, BOOL), np.dtype(np.uint8))
    *rows, n = bits.shape
    size = -(-n // 8)
    bits = reshaped(pad(bits, [(0, 0)] * len(rows) + [(0, size * 8 - n)]), (*rows, size, 8))
    packed = np.sum(bits << _bit_places(bitorder), axis=-1, dtype=np.uint8)
    return moveaxis(packed, -1, axis)


@implements(np.unpackbits)
def unpackbits(a: Any, /, axis: Any = None, count: Any = None, bitorder: str = "big") -> Any:
    x, axis = _line(a, axis)
    if x.dtype != np.uint8:
        raise DtypeError(f"takes uint8, not {x.dtype}")
    bits = (np.expand_dims(x, -1) >> _bit_places(bitorder)) & np.uint8(1)
    bits = reshaped(bits, (*x.shape[:-1], x.shape[-1] * 8))
    n = bits.shape[-1]
    if count is not None:
        wanted = int(count) if count >= 0 else max(n + int(count), 0)
        bits = sliced(bits, bits.ndim - 1, 0, min(wanted, n))
        bits = pad(bits, [(0, 0)] * (bits.ndim - 1) + [(0, max(wanted - n, 0))])
    return moveaxis(bits, -1, axis)
