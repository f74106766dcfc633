"""x[index] as NumPy means it, from slices, reshapes and gathers.

Written with ops only, so it works on traced values and on arrays alike.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphdl.errors import ConcreteValueError, DtypeError, GraphIndexError
from graphdl.ops import indexing, movement, pointwise

_INDEX = np.dtype(np.int64)


@dataclass(frozen=True)
class _Axis:
    """What an index does to one axis of x: a window of it, and perhaps an array of indices."""

    start: int
    size: int
    step: int
    array: Any = None
    dropped: bool = False


def _is_array(item: Any) -> bool:
    return isinstance(item, (np.ndarray, list)) or hasattr(item, "apply_op")


def _as_index(item: Any) -> Any:
    """An index array as int64; boolean masks are refused or, if their values are known, resolved."""
    array = np.asarray(item) if isinstance(item, (list, np.ndarray)) else item
    if isinstance(array, np.ndarray) and array.size == 0 and isinstance(item, list):
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise DtypeError(f"index arrays must be integers or booleans, not {array.dtype}")
    if array.dtype == _INDEX:
        return array
    return (
        array.astype(_INDEX)
        if isinstance(array, np.ndarray)
        else pointwise.cast(array, dtype=_INDEX)
    )


def _expand(x: Any, index: Any) -> list[Any]:
    """The index as a list that has one item for each axis of x, and None for new axes."""
    items: list[Any] = []
    for item in index if isinstance(index, tuple) else (index,):
        mask = np.asarray(item) if isinstance(item, (list, np.ndarray, np.bool_, bool)) else item
        if getattr(mask, "dtype", None) == np.bool_:
            if not isinstance(mask, np.ndarray):
                raise ConcreteValueError(
                    f"indexing {x.shape} with a traced boolean mask has a shape that depends on "
                    f"values. Write np.where(mask, x, 0) and reduce that, or pass integer indices"
                )
            items += list(mask.nonzero()) if mask.ndim else [None, np.zeros(int(mask), np.int64)]
        else:
            items.append(item)
    dots = [i for i, item in enumerate(items) if item is Ellipsis]
    if len(dots) > 1:
        raise GraphIndexError("an index can only have a single ellipsis ('...')")
    given = sum(item is not None and item is not Ellipsis for item in items)
    if given > x.ndim:
        raise GraphIndexError(f"too many indices: shape {x.shape} has {x.ndim} axes, not {given}")
    at = dots[0] if dots else len(items)
    rest = [slice(None)] * (x.ndim - given)
    return items[:at] + rest + items[at + 1 :]


def _axis(item: Any, size: int, axis: int) -> _Axis:
    if isinstance(item, slice):
        start, stop, step = item.indices(size)
        return _Axis(start, len(range(start, stop, step)), step)
    if _is_array(item):
        return _Axis(0, size, 1, array=_checked(_as_index(item), size, axis))
    try:
        position = operator.index(item)
    except ConcreteValueError:
        raise
    except TypeError:
        raise GraphIndexError(
            f"only integers, slices, `...`, None and integer or boolean arrays are indices, "
            f"not {type(item).__name__}"
        ) from None
    if not -size <= position < size:
        raise GraphIndexError(f"index {position} is out of bounds for axis {axis} of size {size}")
    return _Axis(position % size, 1, 1, dropped=True)


def _checked(index: Any, size: int, axis: int) -> Any:
    """Indices counted from the start; constant ones are checked here, traced ones at run time."""
    if isinstance(index, np.ndarray) and index.size:
        bad = index[(index < -size) | (index >= size)]
        if bad.size:
            raise GraphIndexError(f"index {bad[0]} is out of bounds for axis {axis} of size {size}")
    return np.where(index < 0, index + size, index)


def getitem(x: Any, index: Any) -> Any:
    """x[index] by NumPy's rules: slices, integers, None, `...`, integer arrays, constant masks."""
    items = _expand(x, index)
    axes: list[_Axis] = []
    for item in items:
        if item is not None:
            axes.append(_axis(item, x.shape[len(axes)], len(axes)))
    starts = tuple(axis.start if axis.size else 0 for axis in axes)
    sizes = tuple(axis.size for axis in axes)
    steps = tuple(axis.step if axis.size > 1 else 1 for axis in axes)
    if sizes != x.shape or any(starts) or any(step != 1 for step in steps):
        x = movement.slice_(x, starts=starts, sizes=sizes, steps=steps)
    if any(axis.array is not None for axis in axes):
        return _advanced(x, items, axes)
    shape = tuple(
        1 if item is None else axis.size
        for item, axis in _paired(items, axes)
        if item is None or not axis.dropped
    )
    return x if shape == x.shape else movement.reshape(x, shape=shape)


def _paired(items: list[Any], axes: list[_Axis]) -> list[tuple[Any, _Axis]]:
    remaining = iter(axes)
    none = _Axis(0, 1, 1)
    return [(item, none if item is None else next(remaining)) for item in items]


def _advanced(x: Any, items: list[Any], axes: list[_Axis]) -> Any:
    """Indexing with arrays: bring their axes to the front, merge them, gather rows.

    Integers count as arrays here, as in NumPy: they decide where the new axes stand.
    """
    picks = [i for i, axis in enumerate(axes) if axis.array is not None]
    strides = np.cumprod([1, *[axes[i].size for i in reversed(picks)]])[:-1][::-1].tolist()
    flat: Any = None
    for i, stride in zip(picks, strides, strict=True):
        term = axes[i].array if stride == 1 else axes[i].array * stride
        flat = term if flat is None else flat + term
    rest = [i for i in range(len(axes)) if i not in picks]
    order = (*picks, *rest)
    if order != tuple(range(x.ndim)):
        x = movement.transpose(x, perm=order)
    merged = (int(np.prod([axes[i].size for i in picks])), *(axes[i].size for i in rest))
    if x.shape != merged:
        x = movement.reshape(x, shape=merged)
    picked = indexing.gather(x, flat)
    # where index arrays and integers stand side by side the new axes stay there, else they lead
    paired = _paired(items, axes)
    places = [k for k, (_, axis) in enumerate(paired) if axis.array is not None or axis.dropped]
    at = places[0] if places == list(range(places[0], places[-1] + 1)) else 0
    kept = [(k, axis.size) for k, (_, axis) in enumerate(paired) if k not in places]
    before = tuple(size for k, size in kept if k < at)
    after = tuple(size for k, size in kept if k >= at)
    width = picked.ndim - len(rest)
    leading = sum(items[k] is not None for k, _ in kept if k < at)
    if leading and width:
        perm = (*range(width, width + leading), *range(width), *range(width + leading, picked.ndim))
        target = (*before, *picked.shape[:width], *after)
        picked = movement.transpose(picked, perm=perm)
    else:
        target = (*before, *picked.shape[:width], *after)
    return picked if picked.shape == target else movement.reshape(picked, shape=target)
