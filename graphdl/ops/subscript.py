"""x[index] as NumPy means it, from slices, reshapes, selections and gathers.

Written with ops only, so it works on traced values and on arrays alike. Three steps: the index is
spread out to one item for each axis; slices, integers and arithmetic progressions become one
`slice`; what index arrays remain become a selection where they pick one element of each line
(as `x[np.arange(n), y]` does), a `gather` otherwise.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphdl.errors import (
    ConcreteValueError,
    GraphIndexArrayError,
    GraphIndexError,
    GraphIndexShapeError,
)
from graphdl.ops import indexing, movement, pointwise
from graphdl.types import Shape

_INDEX = np.dtype(np.int64)


@dataclass(frozen=True)
class _Item:
    """What an index does to one axis of x, or, where `new`, to an axis that it adds.

    A window of the axis, and within it perhaps the positions in `array`. `integer` marks a single
    position: its axis goes, and NumPy counts it among the index arrays if there are any.
    """

    start: int = 0
    size: int = 1
    step: int = 1
    array: Any = None
    integer: bool = False
    new: bool = False


def getitem(x: Any, index: Any) -> Any:
    """x[index] by NumPy's rules: slices, integers, None, `...`, integer arrays, constant masks."""
    items = _progressions_as_slices(_items(x, index))
    axes = [item for item in items if not item.new]
    starts = tuple(item.start if item.size else 0 for item in axes)
    sizes = tuple(item.size for item in axes)
    steps = tuple(item.step if item.size > 1 else 1 for item in axes)
    if sizes != x.shape or any(starts) or any(step != 1 for step in steps):
        x = movement.slice_(x, starts=starts, sizes=sizes, steps=steps)
    if any(item.array is not None for item in items):
        # the axes that None adds take part in where the results of index arrays stand
        return _advanced(_reshaped(x, tuple(item.size for item in items)), items)
    return _reshaped(x, tuple(item.size for item in items if not item.integer))


def _reshaped(x: Any, shape: Shape) -> Any:
    return x if x.shape == shape else movement.reshape(x, shape=shape)


def _transposed(x: Any, perm: Sequence[int]) -> Any:
    order = tuple(perm)
    return x if order == tuple(range(x.ndim)) else movement.transpose(x, perm=order)


# --- what an index says --------------------------------------------------------------------------


def _items(x: Any, index: Any) -> list[_Item]:
    """The index, one item for each axis of x and for each new axis."""
    parts = [_concrete(part) for part in (index if isinstance(index, tuple) else (index,))]
    consumed = [_consumed(part, x) for part in parts]
    if sum(part is Ellipsis for part in parts) > 1:
        raise GraphIndexError("an index can only have a single ellipsis ('...')")
    missing = x.ndim - sum(consumed)
    if missing < 0:
        raise GraphIndexError(
            f"too many indices: shape {x.shape} has {x.ndim} axes, the index is for {sum(consumed)}"
        )
    if not any(part is Ellipsis for part in parts):
        parts.append(Ellipsis)
        consumed.append(0)
    items: list[_Item] = []
    axis = 0
    for part, count in zip(parts, consumed, strict=True):
        if part is None:
            items.append(_Item(new=True))
        elif part is Ellipsis:
            items += [_Item(size=size) for size in x.shape[axis : axis + missing]]
            axis += missing
        elif _is_mask(part):
            items += _mask_items(part, x.shape, axis)
            axis += count
        else:
            items.append(_axis_item(part, x.shape[axis], axis))
            axis += count
    return items


def _concrete(part: Any) -> Any:
    """Lists and Python booleans as arrays; all else as it is."""
    if isinstance(part, (list, bool, np.bool_)):
        array = np.asarray(part)
        return array.astype(_INDEX) if array.size == 0 and array.dtype.kind == "f" else array
    return part


def _is_mask(part: Any) -> bool:
    return getattr(part, "dtype", None) == np.bool_


def _consumed(part: Any, x: Any) -> int:
    """How many axes of x an item of an index is for."""
    if part is None or part is Ellipsis:
        return 0
    if not _is_mask(part):
        return 1
    if not isinstance(part, np.ndarray):
        raise ConcreteValueError(
            f"indexing shape {x.shape} with a traced boolean mask of shape {part.shape} gives a "
            f"shape that depends on values. Write np.where(mask, x, 0) and reduce that (or give "
            f"the reduction where=mask), or index with integers"
        )
    return part.ndim


def _mask_items(mask: np.ndarray[Any, Any], shape: Shape, axis: int) -> list[_Item]:
    """A constant boolean mask as the positions where it is True."""
    if mask.ndim == 0:  # a new axis, of size one or zero
        return [_Item(array=np.zeros(int(mask), _INDEX), new=True)]
    covered = shape[axis : axis + mask.ndim]
    if mask.shape != covered:
        raise GraphIndexError(
            f"a boolean index of shape {mask.shape} does not match axes {axis} to "
            f"{axis + mask.ndim - 1} of shape {shape}, which have sizes {covered}"
        )
    return [
        _Item(size=size, array=positions)
        for size, positions in zip(covered, mask.nonzero(), strict=True)
    ]


def _axis_item(part: Any, size: int, axis: int) -> _Item:
    """A slice, an integer or an integer array."""
    if isinstance(part, slice):
        start, stop, step = part.indices(size)
        return _Item(start, len(range(start, stop, step)), step)
    if isinstance(part, np.ndarray) or hasattr(part, "apply_op"):
        return _Item(size=size, array=_positions(part, size, axis))
    try:
        position = operator.index(part)
    except TypeError:
        raise GraphIndexError(
            f"only integers, slices (`:`), ellipsis (`...`), None and integer or boolean arrays "
            f"are valid indices, not {type(part).__name__}"
        ) from None
    if not -size <= position < size:
        raise GraphIndexError(f"index {position} is out of bounds for axis {axis} of size {size}")
    return _Item(position % size, integer=True)


def _positions(index: Any, size: int, axis: int) -> Any:
    """Positions counted from the start, as int64; those that are constant are checked.

    Traced positions are checked when the program runs.
    """
    if index.dtype.kind not in "iu":
        raise GraphIndexArrayError(
            f"arrays used as indices must be of integer (or boolean) type, not {index.dtype}"
        )
    if not isinstance(index, np.ndarray):
        index = index if index.dtype == _INDEX else pointwise.cast(index, dtype=_INDEX)
        return indexing.position(index, size=size)
    bad = (
        index[(index < -size) | (index >= size)]
        if index.dtype.kind == "i"
        else index[index >= size]
    )
    if bad.size:
        raise GraphIndexError(f"index {bad[0]} is out of bounds for axis {axis} of size {size}")
    index = index.astype(_INDEX)
    return np.where(index < 0, index + size, index)


def _progressions_as_slices(items: list[_Item]) -> list[_Item]:
    """One constant index array in equal steps is a slice: its gradient then needs no scatter."""
    arrays = [i for i, item in enumerate(items) if item.array is not None]
    if len(arrays) != 1 or any(item.integer for item in items):
        return items
    (at,) = arrays
    item = items[at]
    if not isinstance(item.array, np.ndarray) or item.array.ndim != 1 or item.new:
        return items
    steps = np.unique(np.diff(item.array))
    if item.array.size == 0:
        changed = replace(item, size=0, array=None)
    elif steps.size == 0 or (steps.size == 1 and steps[0] != 0):
        step = int(steps[0]) if steps.size else 1
        changed = _Item(int(item.array[0]), item.array.size, step)
    else:
        return items
    return [*items[:at], changed, *items[at + 1 :]]


# --- index arrays --------------------------------------------------------------------------------


def _advanced(x: Any, items: list[_Item]) -> Any:
    """x, whose axes are those of `items`, indexed by their arrays.

    Where index arrays and integers stand side by side, the axes of their broadcast shape stand
    there too, otherwise in front.
    """
    picks = [i for i, item in enumerate(items) if item.array is not None]
    places = [i for i, item in enumerate(items) if item.array is not None or item.integer]
    try:
        shape = np.broadcast_shapes(*(items[i].array.shape for i in picks))
    except ValueError:
        texts = ", ".join(str(items[i].array.shape) for i in picks)
        raise GraphIndexShapeError(f"index arrays of shapes {texts} do not broadcast") from None
    side_by_side = places == list(range(places[0], places[-1] + 1))
    rest = [i for i in range(len(items)) if i not in places]
    before = [i for i in rest if side_by_side and i < places[0]]
    result = _selected(x, items, picks, shape)
    if result is None:
        result = indexing.gather_rows(x, picks, [items[i].array for i in picks])
    # now the axes of the index arrays lead; then come, in order, those that had none
    others = [i for i in range(len(items)) if i not in picks]
    width = len(shape)
    lead = [width + others.index(i) for i in before]
    result = _transposed(
        result,
        [*lead, *range(width), *(k for k in range(width, result.ndim) if k not in lead)],
    )
    sizes = [items[i].size for i in rest]
    return _reshaped(result, (*sizes[: len(before)], *shape, *sizes[len(before) :]))


def _selected(x: Any, items: list[_Item], picks: list[int], shape: Shape) -> Any:
    """x[np.arange(n), y] as the sum of x where iota equals y; None if the index is not like that.

    All arrays but one must run along their own axis of the broadcast shape, in order. A selection
    and a sum fuse with what made x, and the gradient is a selection again, where that of a gather
    is a scatter.
    """
    if math.prod(shape) <= 1:  # one position, which a gather finds without a search
        return None
    runs = {i: _run(items[i].array, x.shape[i], shape) for i in picks}
    free = [i for i in picks if runs[i] is None]
    along = [axis for i in picks for axis in runs[i] or ()]
    covered = all(size == 1 or axis in along for axis, size in enumerate(shape))
    if len(free) != 1 or along != sorted(set(along)) or not covered:
        return None
    (free_axis,) = free
    places = [x.shape[i] if runs.get(i) else 1 for i in range(x.ndim)]
    wanted = np.reshape(np.broadcast_to(items[free_axis].array, shape), places)
    chosen = _line_of(x, wanted, free_axis)
    left = [i for i in range(x.ndim) if i != free_axis]
    rest = [i for i in left if i not in picks]
    order = [left.index(i) for i in (*(i for i in picks if i != free_axis), *rest)]
    return _reshaped(_transposed(chosen, order), (*shape, *(x.shape[i] for i in rest)))


def _run(array: Any, size: int, shape: Shape) -> tuple[int, ...] | None:
    """The axis of `shape` along which an index array counts all of range(size), if it does.

    An array that is the 0 of an axis of size one needs no axis: ().
    """
    if not isinstance(array, np.ndarray) or array.size != size:
        return None
    if not np.array_equal(array.ravel(), np.arange(size)):
        return None
    if size == 1:
        return ()
    ahead = len(shape) - array.ndim
    axes = [ahead + i for i, n in enumerate(array.shape) if n == size == shape[ahead + i]]
    return (axes[0],) if axes else None


def _line_of(x: Any, wanted: Any, axis: int) -> Any:
    """Of each line of x along `axis` the element at position `wanted`; `axis` goes."""
    places = [1] * x.ndim
    places[axis] = x.shape[axis]
    count: Any = np.arange(x.shape[axis])
    if hasattr(x, "apply_op"):
        count = x.apply_op(movement.iota, (), {"size": x.shape[axis], "dtype": _INDEX})
    here = wanted == np.reshape(count, places)
    if x.dtype == np.bool_:
        return np.any(here & x, axis=axis)
    return np.sum(np.where(here, x, np.zeros((), x.dtype)), axis=axis, dtype=x.dtype)
