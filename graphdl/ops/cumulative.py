"""Cumulative ops: each element of the result is made of all elements up to it along an axis.

The gradient of a running extremum goes to the first of equals. That of a recurrence is a recurrence
in the other direction, so it is exact at zeros and to any order; running products are recurrences.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from graphdl.errors import AxisError, DtypeError, ShapeError
from graphdl.ops import movement
from graphdl.ops.lines import counted, place_along
from graphdl.ops.op import Op
from graphdl.types import TensorType, kind_of


def _check_axis(name: str, x: TensorType, axis: int) -> None:
    if not 0 <= axis < x.ndim:
        raise AxisError(f"{name}: axis {axis} does not fit shape {x.shape}")


def _infer_cumsum(x: TensorType, *, axis: int, reverse: bool) -> TensorType:
    _check_axis("cumsum", x, axis)
    return x


def _cumsum(x: Any, *, axis: int, reverse: bool) -> Any:
    if reverse:
        return np.flip(np.cumsum(np.flip(x, axis), axis, dtype=x.dtype), axis)
    return np.cumsum(x, axis, dtype=x.dtype)


#: Sums of all elements up to and with each one, from the end where `reverse`.
cumsum: Op = Op(
    "cumsum",
    "cumulative",
    _infer_cumsum,
    _cumsum,
    lambda g, out, x, *, axis, reverse: (cumsum(g, axis=axis, reverse=not reverse),),
)


# --- running extrema ------------------------------------------------------------------------------


def _running(name: str, ufunc: np.ufunc) -> Op:
    def infer(x: TensorType, *, axis: int) -> TensorType:
        _check_axis(name, x, axis)
        return x

    def evaluate(x: Any, *, axis: int) -> Any:
        return ufunc.accumulate(x, axis=axis)

    return Op(name, "cumulative", infer, evaluate, _running_rule)


def _running_rule(g: Any, out: Any, x: Any, *, axis: int) -> tuple[Any]:
    n = x.shape[axis]
    if n < 2:
        return (g,)
    lines, cotangent = np.moveaxis(out, axis, -1), np.moveaxis(g, axis, -1)
    # where the extremum changes; a NaN differs from itself, so it keeps what it gets
    changes = lines[..., 1:] != lines[..., :-1]
    first = np.concatenate([np.zeros_like(changes[..., :1]), changes], axis=-1)
    place = np.where(first, counted(n, out), 0)
    source = cummax(place, axis=x.ndim - 1)
    return (np.moveaxis(place_along(cotangent, source, n), -1, axis),)


cummax: Op = _running("cummax", np.maximum)
cummin: Op = _running("cummin", np.minimum)


# --- recurrences ----------------------------------------------------------------------------------


def _infer_recurrence(a: TensorType, b: TensorType, *, axis: int, reverse: bool) -> TensorType:
    _check_axis("recurrence", a, axis)
    if a.shape != b.shape:
        raise ShapeError(f"recurrence: factors {a} and terms {b} differ in shape")
    if a.dtype != b.dtype or kind_of(a.dtype) == "b":
        raise DtypeError(f"recurrence: takes numbers of one dtype, not {a} and {b}")
    return b


def _recurrence(a: Any, b: Any, *, axis: int, reverse: bool) -> Any:
    factors, result = np.moveaxis(a, axis, 0), np.moveaxis(np.array(b), axis, 0)
    order = range(len(result))[::-1] if reverse else range(len(result))
    for before, i in itertools.pairwise(order):
        result[i] += factors[i] * result[before]
    return np.moveaxis(result, 0, axis)


def _recurrence_rule(
    g: Any, out: Any, a: Any, b: Any, *, axis: int, reverse: bool
) -> tuple[Any, Any]:
    if a.shape[axis] == 0:
        return a, g
    # element i feeds the next one by the next one's factor
    way = -1 if reverse else 1
    terms = recurrence(np.roll(a, -way, axis), g, axis=axis, reverse=not reverse)
    return terms * _shifted(out, axis, reverse), terms


def _shifted(x: Any, axis: int, reverse: bool) -> Any:
    """The element before each one along an axis, and 0 for the first."""
    n = x.shape[axis]
    kept = slice(1, n) if reverse else slice(0, n - 1)
    inner = x[(*[slice(None)] * axis, kept)]
    starts = tuple(0 if i != axis or reverse else 1 for i in range(x.ndim))
    if n == 1:
        return np.zeros_like(x)
    fill = np.zeros((), x.dtype)
    return movement.pad(inner, fill, shape=x.shape, starts=starts, steps=(1,) * x.ndim)


#: y[i] = a[i] * y[i - 1] + b[i] along an axis, from the end where `reverse`; the first of y is that
#: of b, whatever the first of a.
recurrence: Op = Op("recurrence", "cumulative", _infer_recurrence, _recurrence, _recurrence_rule)


def running_product(x: Any, axis: int) -> Any:
    """Products of all elements up to and with each one: a recurrence without terms.

    Complex numbers have none: each product of a power of two factors is that of two halves.
    """
    n = x.shape[axis]
    if n == 0:
        return x
    if x.dtype.kind == "c":
        line = np.moveaxis(x, axis, 0)
        reach = 1
        while reach < n:
            line = np.concatenate([line[:reach], line[reach:] * line[:-reach]])
            reach *= 2
        return np.moveaxis(line, 0, axis)
    first = x[(*[slice(None)] * axis, slice(0, 1))]
    fill = np.zeros((), x.dtype)
    terms = movement.pad(first, fill, shape=x.shape, starts=(0,) * x.ndim, steps=(1,) * x.ndim)
    return recurrence(x, terms, axis=axis, reverse=False)


__all__ = ["cummax", "cummin", "cumsum", "recurrence", "running_product"]
