"""np.add.reduce, np.maximum.accumulate, np.multiply.reduceat and the like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphdl.errors import GraphIndexError, ShapeError
from graphdl.numpy_functions.arguments import (
    axes_of,
    axis_of,
    integers,
    lift,
    number,
    refuse,
    require,
    reshaped,
    sliced,
    static,
    with_ones,
)
from graphdl.numpy_functions.elementwise import choose
from graphdl.numpy_functions.manipulation import concatenate, moveaxis
from graphdl.numpy_functions.reductions import (
    MISSING,
    all_,
    any_,
    cumprod,
    cumsum,
    max_,
    min_,
    prod,
    sum_,
)
from graphdl.ops import cumulative, indexing
from graphdl.ops.pointwise import resolve
from graphdl.tracing import METHOD_HANDLERS, TracedArray, broadcast_to, call_ufunc, cast
from graphdl.types import as_dtype

#: Ufuncs whose reductions are ops.
_FUNCTIONS: dict[np.ufunc, Callable[..., Any]] = {
    np.add: sum_,
    np.multiply: prod,
    np.maximum: max_,
    np.minimum: min_,
    np.logical_and: all_,
    np.logical_or: any_,
}
#: Other associative ufuncs of two operands of one dtype, with a result of that dtype.
_ASSOCIATIVE = (
    np.fmax, np.fmin, np.hypot, np.logaddexp, np.logaddexp2, np.gcd, np.lcm,
    np.bitwise_and, np.bitwise_or, np.bitwise_xor, np.logical_xor,
)  # fmt: skip


# --- reduce ---------------------------------------------------------------------------------------


def _reduce_by(function: Callable[..., Any], dtyped: bool) -> Callable[..., Any]:
    """ufunc.reduce: the same function, but over the first axis unless told otherwise."""

    def reduce(
        array: Any,
        axis: Any = 0,
        dtype: Any = None,
        out: None = None,
        keepdims: bool = False,
        initial: Any = MISSING,
        where: Any = True,
    ) -> Any:
        kwargs: dict[str, Any] = {"keepdims": keepdims}
        if where is not True:
            kwargs["where"] = where
        if initial is not MISSING and initial is not None:
            kwargs["initial"] = initial
        if dtype is not None and dtyped:
            kwargs["dtype"] = dtype
        elif dtype is not None:
            array = cast(lift(array)[0], as_dtype(dtype))
        return function(array, axis, **kwargs)

    return reduce


def _reduce_as_tree(ufunc: np.ufunc) -> Callable[..., Any]:
    """The reduction by halves: log2(n) steps, each of which is one pass."""

    def reduce(
        array: Any,
        axis: Any = 0,
        dtype: Any = None,
        out: None = None,
        keepdims: bool = False,
        initial: Any = MISSING,
        where: Any = True,
    ) -> Any:
        x = _operand(ufunc, lift(array)[0], dtype)
        axes = axes_of(axis, x.shape)
        shape, left = with_ones(x.shape, axes), [i for i in range(x.ndim) if i not in axes]
        if where is not True:
            x = choose(where, x, _identity(ufunc, x, initial))
        for i in axes:
            x = _halved(ufunc, x, i, initial)
        if initial is not MISSING and initial is not None:
            x = call_ufunc(ufunc, x, number(initial, x.dtype, x))
        return x if keepdims else reshaped(x, tuple(shape[i] for i in left))

    return reduce


def _operand(ufunc: np.ufunc, x: TracedArray, dtype: Any) -> Any:
    """x in the dtype that the ufunc computes in, which must be that of its result."""
    if dtype is not None:
        x = cast(x, as_dtype(dtype))
    return cast(x, resolve(ufunc, (x.dtype, x.dtype))[-1])


def _identity(ufunc: np.ufunc, x: TracedArray, initial: Any) -> Any:
    """What changes nothing, for elements that are left out."""
    if ufunc.identity is not None:
        return number(ufunc.identity, x.dtype, x)
    if initial is MISSING or initial is None:
        raise ShapeError("where= needs initial=, as there may be nothing to combine")
    return number(initial, x.dtype, x)


def _halved(ufunc: np.ufunc, x: Any, axis: int, initial: Any) -> Any:
    if x.shape[axis] == 0:
        shape = tuple(1 if i == axis else size for i, size in enumerate(x.shape))
        return broadcast_to(_identity(ufunc, x, initial), shape)
    while (n := x.shape[axis]) > 1:
        half = n // 2
        pairs = call_ufunc(ufunc, sliced(x, axis, 0, half), sliced(x, axis, half, half))
        x = concatenate((pairs, sliced(x, axis, n - 1, 1)), axis) if n % 2 else pairs
    return x


def _reduce_rest(ufunc: np.ufunc, inverse: Callable[..., Any]) -> Callable[..., Any]:
    """The first element less the sum of the others, or divided by their product."""

    def reduce(
        array: Any, axis: Any = 0, dtype: Any = None, out: None = None, keepdims: bool = False
    ) -> Any:
        (x,) = lift(array)
        x = x if dtype is None else cast(x, as_dtype(dtype))
        (axis,) = axes_of(axis, x.shape)
        n = x.shape[axis]
        if n == 0:
            raise ShapeError(f"shape {x.shape} is empty along axis {axis}, and has no identity")
        rest = inverse(sliced(x, axis, 1, n - 1), axis, x.dtype, keepdims=True)
        result = call_ufunc(ufunc, sliced(x, axis, 0, 1), rest)
        shape = tuple(size for i, size in enumerate(result.shape) if i != axis)
        return result if keepdims else reshaped(result, shape)

    return reduce


# --- accumulate -----------------------------------------------------------------------------------


def _accumulate(ufunc: np.ufunc) -> Callable[..., Any]:
    def accumulate(array: Any, axis: Any = 0, dtype: Any = None, out: None = None) -> Any:
        (x,) = lift(array)
        if ufunc in (np.add, np.multiply):
            return (cumsum if ufunc is np.add else cumprod)(x, axis, dtype)
        axis = axis_of(axis, x.shape)
        if ufunc in (np.maximum, np.minimum):
            x = x if dtype is None else cast(x, as_dtype(dtype))
            op = cumulative.cummax if ufunc is np.maximum else cumulative.cummin
            return op(x, axis=axis)
        return _scan(ufunc, _operand(ufunc, x, dtype), axis)

    return accumulate


def _scan(ufunc: np.ufunc, x: TracedArray, axis: int) -> Any:
    """All prefixes combined by an associative ufunc, by doubling: log2(n) passes.

    W. D. Hillis and G. L. Steele, "Data parallel algorithms", CACM 29 (1986).
    """
    n, reach = x.shape[axis], 1
    while reach < n:
        head = sliced(x, axis, 0, reach)
        tail = call_ufunc(ufunc, sliced(x, axis, 0, n - reach), sliced(x, axis, reach, n - reach))
        x = concatenate((head, tail), axis)
        reach *= 2
    return x


# --- reduceat -------------------------------------------------------------------------------------


def _reduceat(ufunc: np.ufunc) -> Callable[..., Any]:
    reduce = METHOD_HANDLERS[ufunc, "reduce"]

    def reduceat(
        array: Any, indices: Any, axis: Any = 0, dtype: Any = None, out: None = None
    ) -> Any:
        indices = static(indices)
        refuse(
            isinstance(indices, TracedArray),
            "the indices must be static; np.add.at adds up by traced ones",
        )
        (x,) = lift(array)
        axis = axis_of(axis, x.shape)
        n = x.shape[axis]
        starts = integers(np.asarray(indices), "an index")
        for start in starts:
            if not 0 <= start < n:
                raise GraphIndexError(f"index {start} is out of bounds for {n} elements")
        stops = [*starts[1:], n]
        if ufunc is np.add and all(a < b for a, b in zip(starts, stops, strict=True)):
            return _segment_sums(x, starts, axis, dtype)
        parts = [
            reduce(sliced(x, axis, start, max(stop - start, 1)), axis, dtype, None, True)
            for start, stop in zip(starts, stops, strict=True)
        ]
        require(bool(parts), "needs at least one index")
        return concatenate(parts, axis)

    return reduceat


def _segment_sums(x: Any, starts: tuple[int, ...], axis: int, dtype: Any) -> Any:
    """Sums of adjacent segments in one pass, however many there are."""
    n = x.shape[axis]
    kind = sum_(sliced(x, axis, 0, 1), axis, dtype).dtype
    rows = moveaxis(cast(sliced(x, axis, starts[0], n - starts[0]), kind), axis, 0)
    sizes = np.diff([*starts, n])
    segment = np.repeat(np.arange(len(starts)), sizes)
    return moveaxis(indexing.scatter_add(rows, segment, size=len(starts)), 0, axis)


# --- the table ------------------------------------------------------------------------------------

for _ufunc, _function in _FUNCTIONS.items():
    METHOD_HANDLERS[_ufunc, "reduce"] = _reduce_by(_function, _ufunc in (np.add, np.multiply))
for _ufunc in _ASSOCIATIVE:
    METHOD_HANDLERS[_ufunc, "reduce"] = _reduce_as_tree(_ufunc)
METHOD_HANDLERS[np.subtract, "reduce"] = _reduce_rest(np.subtract, sum_)
METHOD_HANDLERS[np.divide, "reduce"] = _reduce_rest(np.divide, prod)
for _ufunc in (*_FUNCTIONS, *_ASSOCIATIVE):
    METHOD_HANDLERS[_ufunc, "reduceat"] = _reduceat(_ufunc)
    if _ufunc not in (np.logical_and, np.logical_or):
        METHOD_HANDLERS[_ufunc, "accumulate"] = _accumulate(_ufunc)
