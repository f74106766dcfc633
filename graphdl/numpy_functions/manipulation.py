"""The same elements at other places: shapes, joining, cutting, order, repeating."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphdl.errors import ConcreteValueError, DtypeError, ShapeError
from graphdl.numpy_functions.arguments import (
    INDEX,
    axes_of,
    axis_of,
    check_cast,
    integer,
    integers,
    iota,
    lift,
    lift_all,
    lift_one,
    promote,
    refuse,
    require,
    reshaped,
    sliced,
    static,
    transposed,
)
from graphdl.ops import movement
from graphdl.tracing import (
    TracedArray,
    broadcast_shapes,
    broadcast_to,
    cast,
    implements,
    shape_of,
)
from graphdl.types import Shape, as_dtype, kind_of

# --- shapes -------------------------------------------------------------------------------------


def _filled_in(shape: Any, x: TracedArray) -> Shape:
    """The target shape of a reshape, with what -1 stands for."""
    sizes = integers(shape, "a size")
    unknown = [i for i, size in enumerate(sizes) if size == -1]
    known = math.prod(size for size in sizes if size != -1)
    fits = all(size >= -1 for size in sizes) and len(unknown) <= 1
    if fits and unknown and known and x.size % known == 0:
        at = unknown[0]
        sizes = (*sizes[:at], x.size // known, *sizes[at + 1 :])
    if not fits or -1 in sizes or math.prod(sizes) != x.size:
        raise ShapeError(f"cannot reshape {x.type}, which has {x.size} elements, into {shape}")
    return sizes


@implements(np.reshape)
def reshape(a: Any, /, shape: Any, order: str = "C", *, copy: Any = None) -> Any:
    (x,) = lift(a)
    if order == "F":
        target = _filled_in(shape, x)
        return _reversed(reshaped(_reversed(x), target[::-1]))
    refuse(order not in ("C", "A"), f"order={order!r} is not traced")
    return reshaped(x, _filled_in(shape, x))


def _reversed(x: TracedArray) -> Any:
    return transposed(x, range(x.ndim)[::-1])


@implements(np.ravel)
def ravel(a: Any, order: str = "C") -> Any:
    return reshape(a, (-1,) if lift_one(a).size else (0,), "F" if order == "F" else "C")


@implements(np.transpose, np.permute_dims)
def transpose(a: Any, axes: Any = None) -> Any:
    (x,) = lift(a)
    if axes is None:
        return _reversed(x)
    perm = axes_of(axes, x.shape)
    require(len(perm) == x.ndim, f"axes {axes} do not match shape {x.shape}")
    return transposed(x, perm)


@implements(np.matrix_transpose, np.linalg.matrix_transpose)
def matrix_transpose(x: Any, /) -> Any:
    (x,) = lift(x)
    require(x.ndim >= 2, f"needs at least 2 axes, shape {x.shape} has {x.ndim}")
    return swapaxes(x, -1, -2)


@implements(np.swapaxes)
def swapaxes(a: Any, axis1: Any, axis2: Any) -> Any:
    (x,) = lift(a)
    i, j = axis_of(axis1, x.shape), axis_of(axis2, x.shape)
    perm = list(range(x.ndim))
    perm[i], perm[j] = j, i
    return transposed(x, perm)


@implements(np.moveaxis)
def moveaxis(a: Any, source: Any, destination: Any) -> Any:
    (x,) = lift(a)
    sources, targets = axes_of(source, x.shape), axes_of(destination, x.shape)
    require(
        len(sources) == len(targets),
        f"{len(sources)} axes {source} cannot move to {len(targets)} places {destination}",
    )
    perm = [axis for axis in range(x.ndim) if axis not in sources]
    for target, axis in sorted(zip(targets, sources, strict=True)):
        perm.insert(target, axis)
    return transposed(x, perm)


@implements(np.rollaxis)
def rollaxis(a: Any, axis: Any, start: Any = 0) -> Any:
    (x,) = lift(a)
    axis, n = axis_of(axis, x.shape), x.ndim
    start = integer(start, "start")
    require(-n <= start <= n, f"start={start} is out of range for shape {x.shape}")
    start += n if start < 0 else 0
    return moveaxis(x, axis, start - 1 if axis < start else start)


@implements(np.broadcast_to)
def broadcast_to_(array: Any, shape: Any, subok: bool = False) -> Any:
    return broadcast_to(lift_one(array), integers(shape, "a size"))


@implements(np.broadcast_arrays)
def broadcast_arrays(*args: Any, subok: bool = False) -> tuple[Any, ...]:
    shape = broadcast_shapes("np.broadcast_arrays", [shape_of(x) for x in args])
    return tuple(broadcast_to(x, shape) for x in lift(*args))


@implements(np.expand_dims)
def expand_dims(a: Any, axis: Any) -> Any:
    (x,) = lift(a)
    new = integers(axis, "an axis")
    ndim = x.ndim + len(new)
    places = axes_of(new, (1,) * ndim)
    sizes = iter(x.shape)
    return reshaped(x, tuple(1 if i in places else next(sizes) for i in range(ndim)))


@implements(np.squeeze)
def squeeze(a: Any, axis: Any = None) -> Any:
    (x,) = lift(a)
    ones = [i for i, size in enumerate(x.shape) if size == 1]
    axes = ones if axis is None else axes_of(axis, x.shape)
    require(
        all(i in ones for i in axes), f"axis {axis} of shape {x.shape} has a size other than one"
    )
    return reshaped(x, tuple(size for i, size in enumerate(x.shape) if i not in axes))


def _at_least(ndim: int, place: Callable[[Shape], Shape]) -> Callable[..., Any]:
    """np.atleast_1d and its kin: `place` adds the axes that a smaller array lacks."""

    def implementation(*arys: Any) -> Any:
        raised = tuple(x if x.ndim >= ndim else reshaped(x, place(x.shape)) for x in lift(*arys))
        return raised[0] if len(raised) == 1 else raised

    return implementation


def _cube(shape: Shape) -> Shape:
    """A vector of n is a 1 x n x 1 block, a matrix m x n an m x n x 1 one."""
    return (1, *shape, 1)[-3:] if len(shape) < 2 else (*shape, 1)


atleast_1d = implements(np.atleast_1d)(_at_least(1, lambda shape: (1,)))
atleast_2d = implements(np.atleast_2d)(_at_least(2, lambda shape: (1, 1, *shape)[-2:]))
atleast_3d = implements(np.atleast_3d)(
    _at_least(3, lambda shape: (1, 1, 1) if not shape else _cube(shape))
)


@implements(np.copy)
def copy(a: Any, order: str = "K", subok: bool = False) -> Any:
    return lift_one(a)


# --- joining ------------------------------------------------------------------------------------


@implements(np.concatenate)
def concatenate(
    arrays: Any,
    /,
    axis: Any = 0,
    out: None = None,
    *,
    dtype: Any = None,
    casting: str = "same_kind",
) -> Any:
    values = lift_all(arrays)
    require(bool(values), "needs at least one array")
    if axis is None:
        values, axis = tuple(ravel(x) for x in values), 0
    first = values[0]
    require(first.ndim > 0, "0-d arrays cannot be joined; use np.stack")
    along = axis_of(axis, first.shape)
    rest = first.shape[:along] + first.shape[along + 1 :]
    for x in values:
        if x.ndim != first.ndim or x.shape[:along] + x.shape[along + 1 :] != rest:
            shapes = ", ".join(str(value.shape) for value in values)
            raise ShapeError(f"shapes {shapes} differ beyond axis {along}")
    common = promote(*values) if dtype is None else as_dtype(dtype)
    for x in values:
        check_cast(x.dtype, common, casting)
    values = tuple(cast(x, common) for x in values)
    return values[0] if len(values) == 1 else movement.concatenate(*values, axis=along)


@implements(np.stack)
def stack(
    arrays: Any, axis: Any = 0, out: None = None, *, dtype: Any = None, casting: str = "same_kind"
) -> Any:
    values = lift_all(arrays)
    require(bool(values), "needs at least one array")
    shapes = {x.shape: None for x in values}
    require(len(shapes) == 1, f"shapes {', '.join(map(str, shapes))} must be the same")
    axis = axis_of(axis, (*values[0].shape, 1))
    parts = [expand_dims(x, axis) for x in values]
    return concatenate(parts, axis, dtype=dtype, casting=casting)


def _stacked_by(raise_to: Callable[[Any], Any], axis: Callable[[int], int]) -> Callable[..., Any]:
    def implementation(tup: Any, *, dtype: Any = None, casting: str = "same_kind") -> Any:
        values = [raise_to(x) for x in lift_all(tup)]
        require(bool(values), "needs at least one array")
        return concatenate(values, axis(values[0].ndim), dtype=dtype, casting=casting)

    return implementation


hstack = implements(np.hstack)(_stacked_by(atleast_1d, lambda ndim: 0 if ndim == 1 else 1))
vstack = implements(np.vstack)(_stacked_by(atleast_2d, lambda ndim: 0))
dstack_ = _stacked_by(atleast_3d, lambda ndim: 2)


@implements(np.dstack)
def dstack(tup: Any) -> Any:
    return dstack_(tup)


@implements(np.column_stack)
def column_stack(tup: Any) -> Any:
    columns = [x if x.ndim >= 2 else reshaped(x, (x.size, 1)) for x in lift_all(tup)]
    return concatenate(columns, 1)


@implements(np.append)
def append(arr: Any, values: Any, axis: Any = None) -> Any:
    return concatenate((arr, values), axis)


@implements(np.block)
def block(arrays: Any) -> Any:
    def depth(item: Any) -> int:
        return 1 + max(map(depth, item), default=0) if isinstance(item, list) else 0

    levels = depth(arrays)
    leaves: list[Any] = []

    def collect(item: Any) -> None:
        if isinstance(item, list):
            for part in item:
                collect(part)
        else:
            leaves.append(item)

    collect(arrays)
    lifted = iter(lift(*leaves))
    ndim = max(levels, *(len(shape_of(leaf)) for leaf in leaves))

    def join(item: Any, level: int) -> Any:
        if isinstance(item, list):
            return concatenate([join(part, level + 1) for part in item], level - levels)
        x = next(lifted)
        return reshaped(x, (1,) * (ndim - x.ndim) + x.shape)

    return join(arrays, 0)


# --- cutting ------------------------------------------------------------------------------------


@implements(np.array_split)
def array_split(ary: Any, indices_or_sections: Any, axis: Any = 0) -> list[Any]:
    (x,) = lift(ary)
    axis = axis_of(axis, x.shape)
    n = x.shape[axis]
    if _is_sequence(indices_or_sections):
        cuts = [slice(*pair).indices(n)[:2] for pair in _pairs(indices_or_sections)]
    else:
        sections = _sections(indices_or_sections)
        require(sections > 0, "the number of sections must be larger than 0")
        each, extra = divmod(n, sections)
        bounds = [i * each + min(i, extra) for i in range(sections + 1)]
        cuts = list(itertools.pairwise(bounds))
    return [sliced(x, axis, start, max(stop - start, 0)) for start, stop in cuts]


def _is_sequence(value: Any) -> bool:
    """Whether an argument is several numbers: a list, of which some may be traced, or an array."""
    return isinstance(value, (tuple, list)) or np.ndim(value) > 0


def _sections(value: Any) -> int:
    return integer(value, "the number of sections")


def _pairs(indices: Any) -> list[tuple[Any, Any]]:
    for place in indices:
        if isinstance(place, TracedArray) and place.known() is None:
            raise ConcreteValueError(
                f"a place to split at is a traced value ({place.type}), so the shapes of the parts "
                f"would depend on values. Keep them in place: with before = np.arange(len(x)) < n "
                f"the parts are np.where(before, x, 0) and np.where(before, 0, x), and "
                f"np.roll(x, -n) brings the second one to the front{place.made_at}"
            )
    bounds = [0, *integers(indices, "an index"), None]
    return list(itertools.pairwise(bounds))


@implements(np.split)
def split(ary: Any, indices_or_sections: Any, axis: Any = 0) -> Any:
    (x,) = lift(ary)
    if not _is_sequence(indices_or_sections):
        n, sections = x.shape[axis_of(axis, x.shape)], _sections(indices_or_sections)
        require(
            sections != 0 and n % sections == 0,
            f"axis {axis} of shape {x.shape} does not divide into {sections} equal parts; "
            f"np.array_split makes unequal ones",
        )
    return array_split(x, indices_or_sections, axis)


def _split_along(axis: Callable[[int], int], least: int) -> Callable[..., Any]:
    def implementation(ary: Any, indices_or_sections: Any) -> Any:
        (x,) = lift(ary)
        require(x.ndim >= least, f"needs at least {least} axes, shape {x.shape} has {x.ndim}")
        return split(x, indices_or_sections, axis(x.ndim))

    return implementation


implements(np.hsplit)(_split_along(lambda ndim: 0 if ndim == 1 else 1, 1))
implements(np.vsplit)(_split_along(lambda ndim: 0, 2))
implements(np.dsplit)(_split_along(lambda ndim: 2, 3))


def unstack(x: Any, /, *, axis: Any = 0) -> tuple[Any, ...]:
    (x,) = lift(x)
    return tuple(moveaxis(x, axis, 0))


if hasattr(np, "unstack"):  # NumPy 2.1
    implements(np.unstack)(unstack)


# --- order --------------------------------------------------------------------------------------


@implements(np.flip)
def flip(m: Any, axis: Any = None) -> Any:
    (x,) = lift(m)
    axes = axes_of(axis, x.shape)
    return x[tuple(slice(None, None, -1 if i in axes else None) for i in range(x.ndim))]


@implements(np.fliplr)
def fliplr(m: Any) -> Any:
    require(len(shape_of(m)) >= 2, f"needs at least 2 axes, not shape {shape_of(m)}")
    return flip(m, 1)


@implements(np.flipud)
def flipud(m: Any) -> Any:
    require(len(shape_of(m)) >= 1, f"needs at least 1 axis, not shape {shape_of(m)}")
    return flip(m, 0)


@implements(np.rot90)
def rot90(m: Any, k: Any = 1, axes: Any = (0, 1)) -> Any:
    (x,) = lift(m)
    plane = axes_of(axes, x.shape)
    require(len(plane) == 2, f"axes {axes} must be two")
    turns = integer(k, "k") % 4
    if turns == 2:
        return flip(x, plane)
    if turns == 1:
        return swapaxes(flip(x, plane[1]), *plane)
    return flip(swapaxes(x, *plane), plane[1]) if turns else x


@implements(np.roll)
def roll(a: Any, shift: Any, axis: Any = None) -> Any:
    steps = _shifts(shift)
    x = lift(a, *(step for step in steps if isinstance(step, TracedArray)))[0]
    if axis is None:
        flat = reshaped(x, (x.size,))
        return reshaped(_rolled(flat, sum(steps[1:], steps[0]), 0), x.shape)
    axes = [axis_of(i, x.shape) for i in integers(axis, "an axis")]
    count = max(len(steps), len(axes))
    require(
        len(steps) in (1, count) and len(axes) in (1, count),
        f"{len(steps)} shifts of {len(axes)} axes; as many of both are needed, or one of either",
    )
    for i in range(count):
        x = _rolled(x, steps[i % len(steps)], axes[i % len(axes)])
    return x


def _shifts(shift: Any) -> list[Any]:
    """The shifts one by one, each an int or a traced integer."""
    shift = static(shift)
    parts = [static(part) for part in (shift if _is_sequence(shift) else [shift])]
    for part in parts:
        if isinstance(part, TracedArray) and (part.ndim or part.dtype.kind not in "biu"):
            raise DtypeError(f"a shift must be an integer, not {part.type}")
    return [part if isinstance(part, TracedArray) else integer(part, "a shift") for part in parts]


def _rolled(x: Any, step: Any, axis: int) -> Any:
    """Along one axis, by a known number or by one that is read where the others are gathered."""
    n = x.shape[axis]
    if n == 0:
        return x
    if isinstance(step, TracedArray):
        places = np.remainder(iota(n, x) - cast(step, INDEX), n)
        return x[(*(slice(None),) * axis, places)]
    cut = -step % n
    if not cut:
        return x
    return concatenate((sliced(x, axis, cut, n - cut), sliced(x, axis, 0, cut)), axis)


# --- windows ------------------------------------------------------------------------------------


@implements(np.lib.stride_tricks.sliding_window_view)
def sliding_window_view(
    x: Any, window_shape: Any, axis: Any = None, *, subok: bool = False, writeable: bool = False
) -> Any:
    """A copy: each element is there as often as windows have it."""
    (x,) = lift(x)
    refuse(writeable, "writeable=True: windows share elements; write into the array itself")
    windows = integers(window_shape, "a window")
    axes = range(x.ndim) if axis is None else [axis_of(i, x.shape) for i in integers(axis, "axis")]
    require(len(windows) == len(axes), f"{len(windows)} windows along {len(axes)} axes of {x.type}")
    for i, window in zip(axes, windows, strict=True):
        count = x.shape[i] - window + 1
        require(window >= 0 and count > 0, f"a window of {window} in axis {i} of shape {x.shape}")
        places = reshaped(iota(count, x), (count, 1)) + iota(window, x)
        x = moveaxis(x[(*(slice(None),) * i, places)], i + 1, -1)
    return x


# --- repeating ----------------------------------------------------------------------------------


@implements(np.tile)
def tile(A: Any, reps: Any) -> Any:
    (x,) = lift(A)
    times = integers(reps, "a number of repetitions")
    ndim = max(x.ndim, len(times))
    times = (1,) * (ndim - len(times)) + times
    sizes = (1,) * (ndim - x.ndim) + x.shape
    apart = tuple(n for pair in zip(times, sizes, strict=True) for n in pair)
    x = reshaped(x, tuple(n if i % 2 else 1 for i, n in enumerate(apart)))
    return reshaped(broadcast_to(x, apart), tuple(t * n for t, n in zip(times, sizes, strict=True)))


@implements(np.repeat)
def repeat(a: Any, repeats: Any, axis: Any = None) -> Any:
    (x,) = lift(a)
    if axis is None:
        x, axis = reshaped(x, (x.size,)), 0
    axis = axis_of(axis, x.shape)
    repeats = static(repeats)
    refuse(
        isinstance(repeats, TracedArray),
        "repeats must be static numbers: the shape of the result depends on them",
    )
    counts = np.asarray(repeats)
    n = x.shape[axis]
    if kind_of(counts.dtype) not in "biu":
        raise DtypeError(f"repeats must be integers, not {counts.dtype}")
    require(bool((counts >= 0).all()), "repeats may not contain negative values")
    if counts.size == 1:
        times = int(counts.reshape(()))
        apart = (*x.shape[: axis + 1], times, *x.shape[axis + 1 :])
        dims = tuple(i for i in range(len(apart)) if i != axis + 1)
        spread = movement.broadcast(x, shape=apart, dims=dims)
        return reshaped(spread, (*x.shape[:axis], n * times, *x.shape[axis + 1 :]))
    require(
        counts.shape == (n,), f"{counts.size} repeats do not fit axis {axis} of shape {x.shape}"
    )
    return picked(x, axis, np.repeat(np.arange(n), counts))


def picked(x: TracedArray, axis: int, positions: np.ndarray[Any, Any]) -> Any:
    """The elements at static positions along one axis, from slices and repetitions.

    The positions fall into few runs for what this is used for (padding, repeats), and the gradient
    of a run is a plain copy or a sum, where that of a gather is a scatter.
    """
    if positions.size == 0:
        return sliced(x, axis, 0, 0)
    parts, start = [], 0
    steps = np.diff(positions)
    while start < positions.size:
        step = int(steps[start]) if start < steps.size else 1
        stop = start + 1
        while stop < positions.size and steps[stop - 1] == step and abs(step) <= 1:
            stop += 1
        length, first = stop - start, int(positions[start])
        if step == 0 and length > 1:
            shape = tuple(length if i == axis else n for i, n in enumerate(x.shape))
            parts.append(broadcast_to(sliced(x, axis, first, 1), shape))
        else:
            parts.append(sliced(x, axis, first, length, step if length > 1 else 1))
        start = stop
    return concatenate(parts, axis)
