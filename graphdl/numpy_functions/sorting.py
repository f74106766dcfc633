"""Order: sorting, ranks and searching in sorted arrays. All sorts are stable, NaN come last."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np

from graphdl.errors import ArgumentError, DtypeError, GraphIndexError, ShapeError
from graphdl.numpy_functions.arguments import (
    BOOL,
    axis_of,
    integer,
    integers,
    lift,
    lift_one,
    promote,
    refuse,
    require,
    reshaped,
    static,
)
from graphdl.numpy_functions.elementwise import choose
from graphdl.numpy_functions.manipulation import flip, moveaxis
from graphdl.numpy_functions.selection import take
from graphdl.ops import sorting
from graphdl.ops.lines import pick_along
from graphdl.tracing import TracedArray, cast, implements, locate
from graphdl.types import kind_of

__all__ = ["top_k"]


def _line(a: Any, axis: Any) -> tuple[TracedArray, int]:
    """The array with the axis to sort along as its last, and where that was."""
    x = lift_one(a)
    if axis is None:
        return reshaped(x, (x.size,)), 0
    axis = axis_of(axis, x.shape)
    return moveaxis(x, axis, -1), axis


def _check_kind(kind: Any, order: Any) -> None:
    known = (None, "quicksort", "mergesort", "heapsort", "stable")
    if kind not in known:
        raise ArgumentError(f"kind={kind!r}; it is one of {', '.join(map(repr, known[1:]))}")
    refuse(order is not None, "order= is for structured arrays, which are not traced")


def sorted_lines(x: TracedArray) -> Any:
    """x with its last axis sorted."""
    return pick_along(x, _order(x)) if x.type.is_complex else sorting.sort(x)


def _order(x: TracedArray) -> Any:
    """The positions that sort the last axis; complex numbers as NumPy orders them.

    That is by their real parts, equal ones by the imaginary parts; those with a NaN come last:
    where only the imaginary part is one, then where the real part is, then where both are.
    """
    return _by_keys([x])


def _parts(x: TracedArray) -> list[Any]:
    """What complex numbers are sorted by, the most important last."""
    if not x.type.is_complex:
        return [x]
    real, imag = np.real(x), np.imag(x)
    missing = 2 * np.isnan(real).astype(np.int8) + np.isnan(imag).astype(np.int8)
    return [imag, real, missing]


def _by_keys(keys: Sequence[Any]) -> Any:
    """The last key first: each stable sort keeps the order of the ones before among equals."""
    lines = [part for key in keys for part in _parts(key)]
    order = sorting.argsort(lines[0])
    for line in lines[1:]:
        order = pick_along(order, sorting.argsort(pick_along(line, order)))
    return order


@implements(np.sort)
def sort(a: Any, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None) -> Any:
    _check_kind(kind, order)
    x, axis = _line(a, axis)
    return moveaxis(sorted_lines(x), -1, axis)


@implements(np.argsort)
def argsort(
    a: Any, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None
) -> Any:
    _check_kind(kind, order)
    x, axis = _line(a, axis)
    return moveaxis(_order(x), -1, axis)


@implements(np.sort_complex)
def sort_complex(a: Any) -> Any:
    """The last axis sorted, as complex numbers: complex64 for integers of up to 16 bits, complex128
    for all other real numbers, float32 among them, as NumPy's."""
    x = lift_one(a)
    small = x.dtype.kind in "iu" and x.dtype.itemsize <= 2
    dtype = x.dtype if x.type.is_complex else np.dtype(np.complex64 if small else np.complex128)
    return cast(sort(x), dtype)


def _check_partition(kth: Any, kind: str, order: Any, n: int) -> None:
    if kind != "introselect":
        raise ArgumentError(f"kind={kind!r}; it is 'introselect'")
    refuse(order is not None, "order= is for structured arrays, which are not traced")
    for k in integers(kth, "kth"):
        if not -n <= k < n:
            raise ShapeError(f"kth={k} is out of bounds for {n} elements")


@implements(np.partition)
def partition(
    a: Any, kth: Any, axis: Any = -1, kind: str = "introselect", order: Any = None
) -> Any:
    """Sorted, which is a partition by any element."""
    x, axis = _line(a, axis)
    _check_partition(kth, kind, order, x.shape[-1])
    return moveaxis(sorted_lines(x), -1, axis)


@implements(np.argpartition)
def argpartition(
    a: Any, kth: Any, axis: Any = -1, kind: str = "introselect", order: Any = None
) -> Any:
    x, axis = _line(a, axis)
    _check_partition(kth, kind, order, x.shape[-1])
    return moveaxis(_order(x), -1, axis)


@implements(np.lexsort)
def lexsort(keys: Any, axis: Any = -1) -> Any:
    order = _by_keys([moveaxis(key, axis_of(axis, key.shape), -1) for key in _keys(keys)])
    return moveaxis(order, -1, axis_of(axis, order.shape))


def _keys(keys: Any) -> tuple[Any, ...]:
    found = tuple(keys) if isinstance(keys, TracedArray) else lift(*keys)
    require(bool(found), "needs at least one key")
    if any(key.shape != found[0].shape or key.ndim == 0 for key in found):
        shapes = ", ".join(str(key.shape) for key in found)
        raise ShapeError(f"keys of shapes {shapes}; they must be alike and have an axis")
    return found


# --- searching ------------------------------------------------------------------------------------


@implements(np.searchsorted)
def searchsorted(a: Any, v: Any, side: str = "left", sorter: Any = None) -> Any:
    line, values = lift(a, v)
    require(line.ndim == 1, f"searches in one axis, not in shape {line.shape}")
    if sorter is not None:
        if np.shape(sorter) != line.shape:
            raise ShapeError(f"sorter of shape {np.shape(sorter)} for an array of {line.shape}")
        line = take(line, sorter)
    dtype = promote(line, values)
    if dtype == BOOL:
        dtype = np.dtype(np.uint8)
    flat = reshaped(cast(values, dtype), (values.size,))
    return reshaped(sorting.searchsorted(cast(line, dtype), flat, side=side), values.shape)


@implements(np.digitize)
def digitize(x: Any, bins: Any, right: bool = False) -> Any:
    bins = static(bins)
    values, edges = lift(x, bins)
    require(edges.ndim == 1, f"bins must have one axis, not shape {edges.shape}")
    if isinstance(bins, TracedArray):
        if edges.size < 2:
            return _binned(values, edges, right)
        falling = edges[0] > edges[-1]
        return choose(falling, _binned_falling(values, edges, right), _binned(values, edges, right))
    known = np.asarray(bins)
    steps = known[1:] >= known[:-1]
    if steps.all():
        return _binned(values, edges, right)
    if (known[1:] > known[:-1]).any():
        raise ArgumentError("bins must be monotonically increasing or decreasing")
    return _binned_falling(values, edges, right)


def _binned(values: Any, edges: Any, right: bool) -> Any:
    return searchsorted(edges, values, "left" if right else "right")


def _binned_falling(values: Any, edges: Any, right: bool) -> Any:
    return edges.size - searchsorted(flip(edges), values, "right" if right else "left")


#: Elements that each value is compared with by itself, in vectors: a search takes longer.
_COMPARED = 16


@implements(np.isin)
def isin(
    element: Any,
    test_elements: Any,
    assume_unique: bool = False,
    invert: bool = False,
    *,
    kind: Any = None,
) -> Any:
    values, tests = lift(element, test_elements)
    dtype = promote(values, tests)
    if dtype == BOOL:
        dtype = np.dtype(np.uint8)
    values, tests = cast(values, dtype), cast(reshaped(tests, (tests.size,)), dtype)
    if not tests.size:
        return np.full_like(values, invert, dtype=BOOL)
    if tests.size <= _COMPARED:
        found = reduce(np.logical_or, (values == tests[i] for i in range(tests.size)))
        return np.logical_not(found) if invert else found
    line = sorting.sort(tests)
    place = np.minimum(searchsorted(line, values), tests.size - 1)
    return (take(line, place) != values) if invert else (take(line, place) == values)


# --- the largest ----------------------------------------------------------------------------------


def top_k(x: Any, k: int, axis: int = -1) -> tuple[Any, Any]:
    """The k largest elements along `axis`, in falling order, and where they are.

    Args:
        x: numbers, of any shape.
        k: how many; at most as many as there are along `axis`.
        axis: the axis to choose along; it has size k in the results.

    Returns:
        (values, indices): values as x, differentiable; indices as int64. Equal elements come in the
        order in which they stand in x, NaN behind all numbers.

    Raises:
        ShapeError: k is negative or larger than the axis.
        AxisError: x has no such axis.

    >>> import numpy as np
    >>> import graphdl as gd
    >>> gd.top_k(np.array([3.0, 1.0, 4.0, 1.0, 5.0]), 2)
    (array([5., 4.]), array([4, 2]))
    """
    if not isinstance(x, TracedArray):
        x = np.asarray(x)
    try:
        axis = axis_of(axis, x.shape)
        k = integer(k, "k")
        if not 0 <= k <= x.shape[axis]:
            raise ShapeError(f"gd.top_k: k={k} of the {x.shape[axis]} along axis {axis}")
        line = np.moveaxis(x, axis, -1)
        order = sorting.argsort(_falling(line))[..., :k]
        values = pick_along(line, order)
    except (ShapeError, DtypeError, GraphIndexError) as error:
        raise locate(error) from error.__cause__
    return np.moveaxis(values, -1, axis), np.moveaxis(order, -1, axis)


def _falling(x: Any) -> Any:
    """Values in the opposite order; the complement of an integer, for which there always is one."""
    return -x if kind_of(x.dtype) == "f" else ~x
