"""One of several values for each element: choose, piecewise."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphdl.errors import DtypeError, GraphIndexError, ShapeError
from graphdl.numpy_functions.arguments import BOOL, INDEX, lift, promote, require, static
from graphdl.numpy_functions.elementwise import choose as where
from graphdl.ops import indexing
from graphdl.tracing import (
    TracedArray,
    broadcast_shapes,
    broadcast_to,
    cast,
    implements,
    shape_of,
)
from graphdl.types import kind_of


@implements(np.choose)
def choose(a: Any, choices: Any, out: None = None, mode: str = "raise") -> Any:
    """A chain of selections: what is chosen among needs not be in memory."""
    a = static(a)
    (index, *values) = lift(a, *choices)
    n = len(values)
    known = None if isinstance(a, TracedArray) else np.asarray(a)
    if known is not None and mode == "raise" and ((known < 0) | (known >= n)).any():
        raise GraphIndexError(f"an index of {known.ravel()} is out of bounds for {n} choices")
    require(n > 0, "needs at least one choice")
    if kind_of(index.dtype) not in "iub":
        raise DtypeError(f"the index must be integers, not {index.dtype}")
    index = cast(index, INDEX)
    if mode == "wrap":
        index = np.remainder(index, n)
    elif mode == "clip":
        index = np.clip(index, 0, n - 1)
    else:
        require(mode == "raise", f"mode={mode!r}; it is 'raise', 'wrap' or 'clip'")
        index = indexing.position(index, size=n)
    dtype = promote(*choices)
    shape = broadcast_shapes("np.choose", [index.shape, *(value.shape for value in values)])
    result = broadcast_to(cast(values[-1], dtype), shape)
    for i, value in reversed(list(enumerate(values[:-1]))):
        result = where(index == i, cast(value, dtype), result)
    return result


@implements(np.piecewise)
def piecewise(x: Any, condlist: Any, funclist: Any, *args: Any, **kw: Any) -> Any:
    """Each function is called with all of x; the last condition that holds decides.

    NumPy calls it with the elements that it is for; functions of each element by itself give the
    same.
    """
    values = lift(x, *_conditions(condlist, len(shape_of(x))))
    value, conditions = values[0], [cast(condition, BOOL) for condition in values[1:]]
    functions = list(funclist)
    if len(functions) not in (len(conditions), len(conditions) + 1):
        raise ShapeError(
            f"{len(functions)} functions for {len(conditions)} conditions; as many are needed, or "
            f"one more for where none holds"
        )
    default: Any = np.zeros((), value.dtype)
    if len(functions) > len(conditions):
        default = _applied(functions.pop(), value, args, kw)
    result = broadcast_to(cast(lift(value, default)[1], value.dtype), value.shape)
    for condition, function in zip(conditions, functions, strict=True):
        part = lift(value, _applied(function, value, args, kw))[1]
        result = where(condition, cast(part, value.dtype), result)
    return result


def _conditions(condlist: Any, ndim: int) -> list[Any]:
    """The conditions; one alone may stand for a list of itself."""
    alone = not isinstance(condlist, (list, tuple)) and not shape_of(condlist)
    if alone or (ndim and not isinstance(condlist[0], list) and not shape_of(condlist[0])):
        return [condlist]
    return list(condlist)


def _applied(function: Any, x: Any, args: Any, kw: Any) -> Any:
    return function(x, *args, **kw) if callable(function) else function
