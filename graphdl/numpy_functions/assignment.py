"""Assignment into traced arrays: x[index] = values, np.add.at, np.copyto, np.put and the like.

Each computes the new value of the array as graph, and puts it into the array (see
graphdl.tracing): other names of the array, its views and the arrays that it is a view of see it.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from graphdl.errors import (
    ArgumentError,
    ConcreteValueError,
    DtypeError,
    GraphIndexError,
    ShapeError,
    UnsupportedError,
)
from graphdl.numpy_functions.arguments import axis_of, integer, promote, require, reshaped
from graphdl.numpy_functions.elementwise import choose
from graphdl.numpy_functions.masks import Selection, select, spread, traced_mask
from graphdl.ops import pointwise, subscript
from graphdl.tracing import (
    CREATE_TRACED,
    HANDLERS,
    METHOD_HANDLERS,
    VIEWING_FUNCTIONS,
    TracedArray,
    as_traced,
    broadcast_to,
    cast,
    dtype_of,
    implements,
    is_weak,
)
from graphdl.types import Dtype, Shape, kind_of


@implements(operator.getitem)
def getitem(x: TracedArray, index: Any, /) -> Any:
    """x[index]: a view for slices and integers, as in NumPy, and a number is no view."""
    index = _static(index)
    if traced_mask(index) is not None:
        return select(x, index).copy()
    parts = index if isinstance(index, tuple) else (index,)
    result = subscript.getitem(x, index)
    if result.ndim == 0:
        result = result if any(part is Ellipsis for part in parts) else result.fresh()
        result.is_array = any(part is Ellipsis for part in parts)
        return result
    return result.fresh() if any(map(_is_array, parts)) else result


def _static(index: Any) -> Any:
    """An index with the values of those parts that depend on no argument."""
    if isinstance(index, tuple):
        return tuple(_static_part(part) for part in index)
    return _static_part(index)


def _static_part(part: Any) -> Any:
    if isinstance(part, TracedArray):
        value = part.known()
        if value is not None:
            return value if part.is_array else value[()]
    elif isinstance(part, list) and _holds_traced(part):
        return HANDLERS[np.array](part)
    return part


def _is_array(part: Any) -> bool:
    return isinstance(part, (list, np.ndarray, TracedArray, bool, np.bool_))


@implements(operator.setitem)
def setitem(x: TracedArray, index: Any, values: Any, /) -> None:
    """x[index] = values, cast to x's dtype."""
    if x.weak:
        raise DtypeError("x[...] = values: x is a Python number, not an array")
    index = _static(index)
    mask = traced_mask(index)
    if mask is None and _is_mask(index) and np.ndim(_shaped(values)) == 0:
        mask = as_traced(index, x.owner)  # a choice, which is cheaper than a list of places
    if mask is not None:
        _assign_masked(select(x, mask if not isinstance(index, tuple) else index), values)
        return
    if isinstance(values, Selection):
        raise ConcreteValueError(
            "x[index] = y[mask] with a traced mask: how many elements it selects depends on "
            "values; write x[mask] = y[mask], or np.where(mask, y, x)"
        )
    new = value_of(values, x.dtype, x)
    if subscript.is_window(x, index):
        view = subscript.getitem(x, index)
        if new.node is not view.node:  # x[i] += 1 has written it already
            view.assign(_spread_to(new, view))
        return
    x.assign(subscript.setitem(x, index, new))


def _is_mask(index: Any) -> bool:
    return isinstance(index, np.ndarray) and index.dtype == np.bool_ and index.ndim > 0


def _shaped(values: Any) -> Any:
    return values if isinstance(values, (TracedArray, Selection)) else np.asarray(values, object)


def _spread_to(values: Any, place: TracedArray) -> Any:
    """Values broadcast to the place that takes them."""
    while values.ndim > place.ndim and values.shape[0] == 1:
        values = reshaped(values, values.shape[1:])
    try:
        return broadcast_to(values, place.shape)
    except ShapeError:
        raise ShapeError(
            f"cannot assign values of shape {values.shape} to elements of shape {place.shape}"
        ) from None


def _assign_masked(selection: Selection, values: Any) -> None:
    """x[mask] = values: a choice between the new and the old for each element."""
    place = selection.array
    if isinstance(values, Selection):
        new = cast(selection.operand(values), place.dtype)
    else:
        new = value_of(values, place.dtype, place)
        if new.ndim:
            new = spread(new, selection.axis, selection.mask, place.ndim)
    place.assign(_spread_to(choose(selection.whole_mask(), new, place), place))


def value_of(values: Any, dtype: Dtype, like: TracedArray) -> TracedArray:
    """Anything that can be assigned, as a traced value of `dtype`."""
    if isinstance(values, (list, tuple)):
        values = HANDLERS[np.array](values) if _holds_traced(values) else np.asarray(values)
    if isinstance(values, TracedArray):
        values.check_alive()
        return TracedArray(cast(values, dtype).node, like.owner)
    if is_weak(values):
        return as_traced(values, like.owner, dtype)
    with np.errstate(all="ignore"):
        return as_traced(np.asarray(values).astype(dtype), like.owner)


def _holds_traced(values: Any) -> bool:
    if isinstance(values, (list, tuple)):
        return any(map(_holds_traced, values))
    return isinstance(values, TracedArray)


def taker(x: Any, name: str) -> TracedArray:
    """The array that a function writes into, which has to be traced."""
    if isinstance(x, TracedArray) and not x.weak:
        return x
    raise UnsupportedError(
        f"{name} writes traced values into an array of NumPy, which cannot hold them. "
        f"{CREATE_TRACED}"
    )


# --- ufunc.at -------------------------------------------------------------------------------------


def _at(ufunc: np.ufunc, mode: str) -> Callable[..., None]:
    name = f"np.{ufunc.__name__}.at"

    def at(a: Any, indices: Any, b: Any, /) -> None:
        x = taker(a, name)
        kind = promote(x, b)
        if not np.can_cast(kind, x.dtype, "same_kind"):
            raise DtypeError(f"cannot add {dtype_of(b)} to {x.type} by the rule 'same_kind'")
        if traced_mask(indices) is not None:
            x[indices] = ufunc(x[indices], b)
            return
        values = value_of(b, x.dtype, x)
        if ufunc is np.subtract:
            values = np.negative(values)  # type: ignore[assignment]
        x.assign(subscript.setitem(x, indices, values, mode))

    return at


def _divide_at(a: Any, indices: Any, b: Any, /) -> None:
    """x divided by the product of all divisors of an element."""
    x = taker(a, "np.divide.at")
    if kind_of(x.dtype) in "biu":
        raise DtypeError(f"the quotients are floats, which {x.type} cannot hold")
    divisors = np.ones_like(x)
    np.multiply.at(divisors, indices, b)
    x.assign(np.divide(x, divisors))


def _at_once(ufunc: np.ufunc) -> Callable[..., None]:
    """Where no element comes up twice: `x[indices] = ufunc(x[indices], b)`."""
    name = f"np.{ufunc.__name__}"

    def at(a: Any, indices: Any, /, *others: Any) -> None:
        x = taker(a, f"{name}.at")
        require(len(others) == ufunc.nin - 1, f"needs {ufunc.nin + 1} arguments")
        if _may_repeat(x.shape, _static(indices)):
            b = ", b" * len(others)
            raise UnsupportedError(
                f"an element may come up more than once, which depends on values of the indices. "
                f"Where none does, x[indices] = {name}(x[indices]{b}) is the same; else write "
                f"gd.fori_loop over the indices"
            )
        result = ufunc(x[indices], *others)
        kind = np.dtype(dtype_of(result))
        if not np.can_cast(kind, x.dtype, "same_kind"):
            raise DtypeError(f"cannot cast {kind} to {x.dtype} by the rule 'same_kind'")
        x[indices] = result

    return at


def _may_repeat(shape: Shape, index: Any) -> bool:
    """Whether an index of an array of this shape may name an element more than once."""
    if traced_mask(index) is not None:
        return False
    parts = index if isinstance(index, tuple) else (index,)
    if any(isinstance(part, TracedArray) and part.ndim for part in parts):
        return True
    constant = tuple(0 if isinstance(part, TracedArray) else part for part in parts)
    try:
        places = np.arange(math.prod(shape)).reshape(shape)[constant]
    except IndexError as error:
        raise GraphIndexError(str(error)) from error
    return np.unique(places).size != np.size(places)


METHOD_HANDLERS.update(
    {
        (ufunc, "at"): _at_once(ufunc)
        for ufunc in pointwise.UFUNCS
        if ufunc.nout == 1 and ufunc.nin <= 2
    }
)
METHOD_HANDLERS[np.divide, "at"] = _divide_at
METHOD_HANDLERS.update(
    {
        (ufunc, "at"): _at(ufunc, mode)
        for ufunc, mode in (
            (np.add, "add"),
            (np.subtract, "add"),
            (np.multiply, "multiply"),
            (np.maximum, "maximum"),
            (np.minimum, "minimum"),
        )
    }
)


# --- functions that write into their argument -----------------------------------------------------


@implements(np.copyto)
def copyto(dst: Any, src: Any, casting: str = "same_kind", where: Any = True) -> None:
    x = taker(dst, "np.copyto")
    kind = promote(x, src) if is_weak(src) else np.dtype(dtype_of(src))
    if not np.can_cast(kind, x.dtype, casting):  # type: ignore[arg-type]
        raise DtypeError(f"cannot cast {kind} to {x.dtype} by the rule {casting!r}")
    new = value_of(src, x.dtype, x)
    x[...] = new if where is True else choose(where, new, x)


@implements(np.putmask)
def putmask(a: Any, mask: Any, values: Any) -> None:
    x = taker(a, "np.putmask")
    x.assign(choose(mask, _cycled(value_of(values, x.dtype, x), x.size).reshape(x.shape), x))


def _cycled(values: TracedArray, size: int) -> Any:
    """`size` values, in one axis, from as many as there are."""
    flat = values.reshape(-1)
    if flat.size == size or not size:
        return flat[:size]
    if flat.size == 1:
        return broadcast_to(flat, (size,))
    return np.tile(flat, -(-size // flat.size))[:size]


@implements(np.place)
def place(arr: Any, mask: Any, vals: Any) -> None:
    """The values one after the other, over and over, where the mask holds."""
    x = taker(arr, "np.place")
    values = value_of(vals, x.dtype, x).reshape(-1)
    holds: Any = np.reshape(mask, (x.size,)).astype(bool)
    if values.size == 0 and x.size:
        raise ArgumentError("there is no value to place")
    new = values if values.size == 1 else values[(np.cumsum(holds) - 1) % values.size]
    x.assign(_spread_to(choose(holds, new, x.reshape(-1)), x.reshape(-1)).reshape(x.shape))


@implements(np.put)
def put(a: Any, ind: Any, v: Any, mode: str = "raise") -> None:
    x = taker(a, "np.put")
    index: Any = ind if isinstance(ind, TracedArray) else np.asarray(ind)
    if mode == "wrap":
        index = index % x.size
    elif mode == "clip":
        index = np.clip(index, 0, x.size - 1)
    flat = x.reshape(-1)
    places = index.reshape(-1)
    values = _cycled(value_of(v, x.dtype, x), places.size)
    x.assign(subscript.setitem(flat, places, values).reshape(x.shape))


@implements(np.fill_diagonal)
def fill_diagonal(a: Any, val: Any, wrap: bool = False) -> None:
    x = taker(a, "np.fill_diagonal")
    if x.ndim < 2 or (x.ndim > 2 and len(set(x.shape)) != 1):
        raise ShapeError(f"{x.type} has no diagonal: two axes, or all of one size, are needed")
    step = 1 + int(np.cumprod(x.shape[1:]).sum()) if x.ndim > 2 else x.shape[1] + 1
    end = None if x.ndim > 2 or wrap else x.shape[1] * x.shape[1]
    flat = x.reshape(-1)
    count = len(range(*slice(None, end, step).indices(x.size)))
    values = _cycled(value_of(val, x.dtype, x), count)
    x.assign(subscript.setitem(flat, slice(None, end, step), values).reshape(x.shape))


@implements(np.put_along_axis)
def put_along_axis(arr: Any, indices: Any, values: Any, axis: Any = -1) -> None:
    x = taker(arr, "np.put_along_axis")
    index = indices if isinstance(indices, TracedArray) else np.asarray(indices)
    if axis is None:
        put(x, index, values)
        return
    at = axis_of(integer(axis, "an axis"), x.shape)
    if index.ndim != x.ndim:
        raise ShapeError(f"indices of {index.ndim} axes for an array of {x.ndim}")
    places = [
        index
        if i == at
        else np.arange(x.shape[i]).reshape((1,) * i + (-1,) + (1,) * (x.ndim - i - 1))
        for i in range(x.ndim)
    ]
    x[tuple(places)] = values


#: Functions whose results are views of their arguments.
VIEWING_FUNCTIONS.update(
    getattr(np, name)
    for name in (
        "transpose", "permute_dims", "matrix_transpose", "swapaxes", "moveaxis", "rollaxis",
        "reshape", "ravel", "expand_dims", "squeeze", "atleast_1d", "atleast_2d", "atleast_3d",
        "array_split", "split", "hsplit", "vsplit", "dsplit", "flip", "fliplr", "flipud", "rot90",
        "real", "unstack", "diagonal", "diag", "einsum",
    )
    if hasattr(np, name)
)  # fmt: skip
