"""Arrays of which a part is replaced: what in-place code becomes in a graph.

`update` replaces a window, whose place is static; `scatter` replaces, or adds to, elements whose
places are values. Each gives a new array. The compiler writes it over the old one where nothing
reads that any more, so that a step of a loop that changes one element costs one element.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphdl.errors import AxisError, DtypeError, ShapeError
from graphdl.ops import indexing, movement
from graphdl.ops.movement import Ints
from graphdl.ops.op import Op
from graphdl.types import Shape, TensorType

_INDEX = np.dtype(np.int64)


def _infer_update(x: TensorType, values: TensorType, *, starts: Ints, steps: Ints) -> TensorType:
    movement.check_window("update", x.shape, starts, values.shape, steps)
    if values.dtype != x.dtype:
        raise DtypeError(f"update: writes {values} into {x}")
    return x


def _update(x: Any, values: Any, *, starts: Ints, steps: Ints) -> Any:
    result = np.array(x)
    result[movement.window(starts, values.shape, steps)] = values
    return result


def _update_rule(
    g: Any, out: Any, x: Any, values: Any, *, starts: Ints, steps: Ints
) -> tuple[Any, Any]:
    window = {"starts": starts, "steps": steps}
    return (
        update(g, np.zeros_like(values), **window),
        movement.slice_(g, sizes=values.shape, **window),
    )


#: x with elements starts + i * steps replaced by element i of `values`; the inverse of `slice`.
update: Op = Op("update", "movement", _infer_update, _update, _update_rule)


#: What `scatter` does with an element and a new value.
MODES: dict[str, np.ufunc | None] = {
    "set": None,
    "add": np.add,
    "multiply": np.multiply,
    "maximum": np.maximum,
    "minimum": np.minimum,
}


def _others(ndim: int, axes: Ints) -> Ints:
    return tuple(axis for axis in range(ndim) if axis not in axes)


def _infer_scatter(
    x: TensorType,
    values: TensorType,
    *indices: TensorType,
    axes: Ints,
    starts: Ints,
    steps: Ints,
    mode: str,
    unique: bool,
) -> TensorType:
    if mode not in MODES:
        raise ShapeError(f"scatter: mode {mode!r} is none of {', '.join(MODES)}")
    if not axes or list(axes) != sorted(set(axes)) or not set(axes) <= set(range(x.ndim)):
        raise AxisError(f"scatter: {axes} are no axes of {x}, in order")
    if len(indices) != len(axes) or any(index != indices[0] for index in indices):
        raise ShapeError(f"scatter: {len(axes)} indices of one shape are needed, not {indices}")
    if indices[0].dtype != _INDEX:
        raise DtypeError(f"scatter: indices must be int64, not {indices[0]}")
    if values.dtype != x.dtype:
        raise DtypeError(f"scatter: writes {values} into {x}")
    sizes = dict(zip(_others(x.ndim, axes), values.shape[indices[0].ndim :], strict=False))
    if values.shape[: indices[0].ndim] != indices[0].shape or values.ndim != (
        indices[0].ndim + x.ndim - len(axes)
    ):
        raise ShapeError(f"scatter: {values} do not fit {x} at {indices[0]} along axes {axes}")
    whole = tuple(sizes.get(axis, min(1, n)) for axis, n in enumerate(x.shape))
    movement.check_window("scatter", x.shape, starts, whole, steps)
    return x


def _scatter(
    x: Any,
    values: Any,
    *indices: Any,
    axes: Ints,
    starts: Ints,
    steps: Ints,
    mode: str,
    unique: bool,
) -> Any:
    result = np.array(x)
    rest = dict(zip(_others(x.ndim, axes), values.shape[indices[0].ndim :], strict=True))
    window = movement.window(
        tuple(starts[axis] for axis in rest), tuple(rest.values()), tuple(steps[a] for a in rest)
    )
    place = (*(slice(None),) * len(axes), *window)
    target = np.moveaxis(result, axes, range(len(axes)))[place]  # a view
    for index, size in zip(indices, target.shape, strict=False):
        indexing.check_bounds(index, size)
    combine = MODES[mode]
    if combine is None:
        target[indices] = values
    else:
        combine.at(target, indices, values)
    return result


def picked(x: Any, *indices: Any, sizes: Shape, axes: Ints, starts: Ints, steps: Ints) -> Any:
    """The elements that a `scatter` of values of these trailing `sizes` changes."""
    rest = _others(x.ndim, axes)
    whole = list(x.shape)
    for axis, size in zip(rest, sizes, strict=True):
        whole[axis] = size
    if tuple(whole) != x.shape or any(steps[axis] != 1 for axis in rest):
        x = movement.slice_(x, starts=starts, sizes=tuple(whole), steps=steps)
    return indexing.gather_rows(x, axes, indices)


def _scatter_rule(
    g: Any,
    out: Any,
    x: Any,
    values: Any,
    *indices: Any,
    axes: Ints,
    starts: Ints,
    steps: Ints,
    mode: str,
    unique: bool,
) -> tuple[Any, ...]:
    sizes = values.shape[indices[0].ndim :]
    window = {"axes": axes, "starts": starts, "steps": steps}

    def at(array: Any) -> Any:
        return picked(array, *indices, sizes=sizes, **window)

    def put(array: Any, given: Any, how: str) -> Any:
        return scatter(array, given, *indices, **window, mode=how, unique=unique)

    none = (None,) * len(indices)
    if mode == "add":
        return g, at(g), *none
    if mode == "set":
        share = at(g)
        if not unique:
            share = np.where(_lasting(x, values, indices, axes), share, np.zeros_like(share))
        return put(g, np.zeros_like(values), "set"), share, *none
    if mode == "multiply":
        # the product of all that meets an element, but one of the factors: by counting its zeros
        is_zero = values == 0
        factors = np.where(is_zero, np.ones_like(values), values)
        product = put(x, factors, "multiply")
        zeros = put(np.zeros_like(x), is_zero.astype(x.dtype), "add")
        left = at(zeros) - is_zero.astype(x.dtype)
        others = np.where(left == 0, at(product) / factors, np.zeros_like(values))
        to_x = put(np.ones_like(x), values, "multiply")
        return g * to_x, at(g) * others, *none
    # an extremum: those that reach it share alike, as in the reductions
    hit, hits = x == out, values == at(out)
    count = put(hit.astype(g.dtype), hits.astype(g.dtype), "add")
    part = g / np.where(count == 0, np.ones_like(count), count)
    return (
        np.where(hit, part, np.zeros_like(part)),
        np.where(hits, at(part), np.zeros_like(values)),
        *none,
    )


def _lasting(x: Any, values: Any, indices: tuple[Any, ...], axes: Ints) -> Any:
    """Which values stay: of those for one element, the last."""
    shape = indices[0].shape
    numbers: Any = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
    sizes = tuple(x.shape[axis] for axis in axes)
    every = {"axes": tuple(range(len(axes))), "starts": (0,) * len(axes)}
    every["steps"] = (1,) * len(axes)
    winners = scatter(
        np.zeros(sizes, np.int64), numbers, *indices, **every, mode="set", unique=False
    )
    lasting = picked(winners, *indices, sizes=(), **every) == numbers
    return movement.broadcast(lasting, shape=values.shape, dims=tuple(range(len(shape))))


#: x with new values at the places that `indices` name along `axes`, and along the other axes the
#: window starts + i * steps, of the size that the values have there. Their shape is that of an
#: index, then the sizes of the window. `mode` says what becomes of old and new, in the order of the
#: indices: of several that are `set` at one place, the last one stays. `unique` promises that no
#: place is named twice. Each index in 0 <= index < size.
scatter: Op = Op("scatter", "indexing", _infer_scatter, _scatter, _scatter_rule)

#: The ops that replace a part of their first operand.
UPDATES = (update, scatter)


def changed_shape(node: Any) -> Shape:
    """The shape of the loops that compute a node: of the part that an `update` replaces."""
    shape: Shape = node.inputs[1].shape if node.op is update else node.shape
    return shape


__all__ = ["MODES", "UPDATES", "changed_shape", "picked", "scatter", "update"]
