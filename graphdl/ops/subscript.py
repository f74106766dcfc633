"""x[index] as NumPy means it, from slices, reshapes, selections and gathers; x[index] = values.

Written with ops only, so it works on traced values and on arrays alike. Three steps: the index is
spread out to one item for each axis; slices, integers and arithmetic progressions become one
`slice`; what index arrays remain become a selection where they pick one element of each line
(as `x[np.arange(n), y]` does), a `gather` otherwise. Assignment goes the same way back, with
`update` and `scatter`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from graphdl.errors import (
    ConcreteValueError,
    GraphIndexArrayError,
    GraphIndexError,
    GraphIndexShapeError,
    ShapeError,
)
from graphdl.ops import indexing, movement, pointwise, update
from graphdl.types import Shape, kind_of

_INDEX = np.dtype(np.int64)


class _Item(Struct, frozen=True):
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
    starts, sizes, steps = _window([item for item in items if not item.new])
    if sizes != x.shape or any(starts) or any(step != 1 for step in steps):
        x = movement.slice_(x, starts=starts, sizes=sizes, steps=steps)
    if any(item.array is not None for item in items):
        # the axes that None adds take part in where the results of index arrays stand
        return _advanced(_reshaped(x, tuple(item.size for item in items)), items)
    return _reshaped(x, tuple(item.size for item in items if not item.integer))


def setitem(x: Any, index: Any, values: Any, mode: str = "set") -> Any:
    """x with `values`, of x's dtype, at `index`; or, by `mode`, with what was there combined.

    The values broadcast to the shape of x[index]. Of several at one place the last one is set.
    """
    items = _progressions_as_slices(_items(x, index))
    picks = [i for i, item in enumerate(items) if item.array is not None]
    if not picks:
        return _window_replaced(x, items, values, mode)
    # the axes that None adds stand in x, too, while it is changed
    whole = _reshaped(x, _shape_with_new_axes(x.shape, items))
    layout = _layout(items)
    values = _trimmed(values, layout.shape)
    # now the axes of the index arrays lead, then come all others, an integer's too
    lead = len(layout.before)
    width = len(layout.index)
    order = [*range(lead, lead + width), *range(lead), *range(lead + width, values.ndim)]
    values = _transposed(values, order)
    others = [i for i in range(len(items)) if i not in picks]
    values = _reshaped(values, (*layout.index, *(items[i].size for i in others)))
    starts, _, steps = _window(items)
    made = update.scatter(
        whole,
        values,
        *(_broadcast(x, items[i].array, layout.index) for i in picks),
        axes=tuple(picks),
        starts=tuple(0 if i in picks else start for i, start in enumerate(starts)),
        steps=tuple(1 if i in picks else step for i, step in enumerate(steps)),
        mode=mode,
        unique=_are_unique(items, picks, whole.shape, layout.index),
    )
    return _reshaped(made, x.shape)


def is_window(x: Any, index: Any) -> bool:
    """Whether an index names a slice of x: whether x[index] is a view."""
    return all(item.array is None for item in _progressions_as_slices(_items(x, index)))


def _window_replaced(x: Any, items: list[_Item], values: Any, mode: str) -> Any:
    starts, sizes, steps = _window([item for item in items if not item.new])
    shape = tuple(item.size for item in items if not item.integer)
    values = _reshaped(_trimmed(values, shape), sizes)
    if mode != "set":
        old = movement.slice_(x, starts=starts, sizes=sizes, steps=steps)
        values = update.MODES[mode](old, values)  # type: ignore[misc]
    return update.update(x, values, starts=starts, steps=steps)


def _window(items: list[_Item]) -> tuple[Shape, Shape, Shape]:
    """Starts, sizes and steps of what remains of each axis."""
    return (
        tuple(item.start if item.size else 0 for item in items),
        tuple(item.size for item in items),
        tuple(item.step if item.size > 1 else 1 for item in items),
    )


def _shape_with_new_axes(shape: Shape, items: list[_Item]) -> Shape:
    sizes = iter(shape)
    return tuple(1 if item.new else next(sizes) for item in items)


def _trimmed(values: Any, shape: Shape) -> Any:
    """`values` broadcast to `shape`; leading axes of size one beyond its own go, as in NumPy."""
    extra = values.ndim - len(shape)
    if extra > 0 and all(size == 1 for size in values.shape[:extra]):
        values = movement.reshape(values, shape=values.shape[extra:])
    new = len(shape) - values.ndim
    if new < 0 or any(a not in (b, 1) for a, b in zip(values.shape, shape[new:], strict=True)):
        raise ShapeError(f"cannot assign values of shape {values.shape} to elements {shape}")
    if values.shape == shape:
        return values
    dims = tuple(new + i for i, size in enumerate(values.shape) if size == shape[new + i])
    values = _reshaped(values, tuple(shape[dim] for dim in dims))
    return movement.broadcast(values, shape=shape, dims=dims)


def _broadcast(x: Any, index: Any, shape: Shape) -> Any:
    """An index array of int64, repeated to the shape of all together."""
    if isinstance(index, np.ndarray):
        return np.broadcast_to(index, shape)
    return _trimmed(index, shape)


def _are_unique(items: list[_Item], picks: list[int], sizes: Shape, shape: Shape) -> bool:
    """Whether no two positions of the index arrays are known to be the same element."""
    count = math.prod(shape)
    if count <= 1:
        return True
    arrays = {i: items[i].array for i in picks}
    runs = [_run(array, sizes[i], shape) for i, array in arrays.items()]
    along = {axis for run in runs for axis in run or ()}
    if all(size == 1 or axis in along for axis, size in enumerate(shape)):
        return True
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        return False
    flat = np.ravel_multi_index(
        tuple(np.broadcast_to(array, shape) for array in arrays.values()),
        tuple(sizes[i] for i in picks),
    )
    return bool(np.unique(flat).size == count)


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
        return array.astype(_INDEX) if array.size == 0 and kind_of(array.dtype) == "f" else array
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
        for bound in (part.start, part.stop, part.step):
            if hasattr(bound, "apply_op") and bound.known() is None:
                raise ConcreteValueError(_traced_bound(bound, size))
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


def _traced_bound(bound: Any, size: int) -> str:
    return (
        f"a bound of a slice is a traced value ({bound.type}), on which the shape of the result "
        f"would depend. For k elements from a traced start write x[start + np.arange(k)]. To keep "
        f"all {size}, with i = np.arange({size}): np.where((i >= start) & (i < stop), x, 0); to "
        f"assign: x[...] = np.where((i >= start) & (i < stop), new, x){bound.made_at}"
    )


def _positions(index: Any, size: int, axis: int) -> Any:
    """Positions counted from the start, as int64; those that are constant are checked.

    Traced positions are checked when the program runs.
    """
    if kind_of(index.dtype) not in "iu":
        raise GraphIndexArrayError(
            f"arrays used as indices must be of integer (or boolean) type, not {index.dtype}"
        )
    if not isinstance(index, np.ndarray):
        index = index if index.dtype == _INDEX else pointwise.cast(index, dtype=_INDEX)
        return indexing.position(index, size=size)
    bad = (
        index[(index < -size) | (index >= size)]
        if kind_of(index.dtype) == "i"
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
    """x, whose axes are those of `items`, indexed by their arrays."""
    picks = [i for i, item in enumerate(items) if item.array is not None]
    layout = _layout(items)
    result = _selected(x, items, picks, layout.index)
    if result is None:
        result = indexing.gather_rows(x, picks, [items[i].array for i in picks])
    # now the axes of the index arrays lead; then come, in order, those that had none
    others = [i for i in range(len(items)) if i not in picks]
    width = len(layout.index)
    lead = [width + others.index(i) for i in layout.before]
    result = _transposed(
        result,
        [*lead, *range(width), *(k for k in range(width, result.ndim) if k not in lead)],
    )
    return _reshaped(result, layout.shape)


class _Layout(Struct, frozen=True):
    """The axes of x[index]: those of the items `before`, of the index arrays, of the others."""

    before: list[int]
    index: Shape
    shape: Shape


def _layout(items: list[_Item]) -> _Layout:
    """Where index arrays and integers stand side by side, the axes of their broadcast shape stand
    there too, otherwise in front."""
    places = [i for i, item in enumerate(items) if item.array is not None or item.integer]
    arrays = [item.array for item in items if item.array is not None]
    try:
        shape = np.broadcast_shapes(*(array.shape for array in arrays))
    except ValueError:
        texts = ", ".join(str(array.shape) for array in arrays)
        raise GraphIndexShapeError(f"index arrays of shapes {texts} do not broadcast") from None
    side_by_side = places == list(range(places[0], places[-1] + 1))
    rest = [i for i in range(len(items)) if i not in places]
    before = [i for i in rest if side_by_side and i < places[0]]
    after = [i for i in rest if i not in before]
    sizes = [[items[i].size for i in part] for part in (before, after)]
    return _Layout(before, shape, (*sizes[0], *shape, *sizes[1]))


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
