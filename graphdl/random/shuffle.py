"""Random orders and choices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphdl.errors import ArgumentError, DtypeError, ShapeError
from graphdl.numpy_functions.arguments import axis_of
from graphdl.random.continuous import grid, gumbel
from graphdl.random.discrete import randint
from graphdl.random.sampler import FLOAT, sampler, traced, words
from graphdl.tracing import TracedArray, locate
from graphdl.types import Shape, kind_of


def _order(key: Any, count: int) -> Any:
    """0 to count - 1 in random order: that of random 64-bit numbers."""
    return np.argsort(words(key, (count,), wide=True), kind="stable")


@sampler(numbers="x")
def permutation(key: Any, x: Any, axis: int = 0, independent: bool = False) -> Any:
    """x in random order along an axis; of an integer n, the numbers from 0 to n - 1.

    Args:
        key: uint32[2].
        x: an array, or a Python integer.
        axis: the axis to shuffle, as a whole.
        independent: whether each line along the axis gets an order of its own.

    >>> import numpy as np, graphdl as gd
    >>> gd.random.permutation(gd.random.key(0), 5)
    array([3, 4, 2, 1, 0])
    >>> gd.random.permutation(gd.random.key(0), np.array([[1, 2], [3, 4], [5, 6]]))
    array([[5, 6],
           [3, 4],
           [1, 2]])
    """
    if type(x) is int:
        if x < 0:
            raise locate(ArgumentError(f"gd.random.permutation: there are no {x} numbers"))
        return _order(key, x)
    values = traced(x)
    if values.ndim == 0:
        raise locate(
            ShapeError("gd.random.permutation takes an array with an axis, or a Python integer")
        )
    place = axis_of(axis, values.shape)
    if not independent:
        return np.take(values, _order(key, values.shape[place]), axis=place)
    keys = words(key, values.shape, wide=True)
    return np.take_along_axis(values, np.argsort(keys, axis=place, kind="stable"), axis=place)


@sampler(numbers="a")
def choice(
    key: Any,
    a: Any,
    shape: Shape = (),
    replace: bool = True,
    p: Any = None,
    axis: int = 0,
) -> Any:
    """Random elements of a, along an axis.

    Args:
        key: uint32[2].
        a: an array, or a Python integer n for the numbers from 0 to n - 1.
        shape: how many; it takes the place of the axis in the result.
        replace: whether an element may be chosen again.
        p: the probability of each element along the axis (weights: their sum does not matter), of
            shape (n,); equal ones by default. Without replacement, the next element is chosen in
            proportion to the p of those that are left.
        axis: of a.

    Raises:
        ShapeError: p that does not fit; more elements than there are, without replacement.

    >>> import numpy as np, graphdl as gd
    >>> gd.random.choice(gd.random.key(0), 10, (4,), replace=False)
    array([3, 5, 4, 2])
    >>> gd.random.choice(gd.random.key(0), np.array([1.5, 2.5]), (4,), p=np.array([0.1, 0.9]))
    array([2.5, 2.5, 2.5, 1.5])
    """
    values, count, place = _population(a, axis)
    index = _indices(key, count, shape, replace, p)
    return index if values is None else np.take(values, index, axis=place)


def _population(a: Any, axis: int) -> tuple[TracedArray | None, int, int]:
    """The array to choose from (None for numbers), how many there are, and the axis."""
    if type(a) is int:
        count, values, place = a, None, 0
    else:
        values = traced(a)
        if values.ndim == 0:
            raise locate(
                ShapeError("gd.random.choice takes an array with an axis, or a Python integer")
            )
        place = axis_of(axis, values.shape)
        count = values.shape[place]
    if count < 1:
        raise locate(ShapeError("gd.random.choice: there is nothing to choose from"))
    return values, count, place


def _indices(key: Any, count: int, shape: Shape, replace: bool, p: Any) -> Any:
    wanted = math.prod(shape)
    weights = None if p is None else traced(p)
    if weights is not None and weights.shape != (count,):
        raise locate(
            ShapeError(f"gd.random.choice: p has shape {weights.shape}, it needs ({count},)")
        )
    if weights is not None and kind_of(weights.dtype) not in "fiu":
        raise locate(DtypeError(f"gd.random.choice: p is {weights.dtype}, not numbers"))
    if not replace and wanted > count:
        raise locate(
            ShapeError(
                f"gd.random.choice: {wanted} of {count}; choose fewer elements, or replace=True"
            )
        )
    if replace:
        if weights is None:
            return randint(key, shape, 0, count)
        total: Any = np.cumsum(weights.astype(FLOAT))
        drawn = grid(key, shape, FLOAT) * total[-1]
        return np.minimum(np.searchsorted(total, drawn, side="right"), count - 1)
    if weights is None:
        order = _order(key, count)
    else:
        # the largest of log(p) with Gumbel noise, the second largest, ...
        order = np.argsort(-(np.log(weights.astype(FLOAT)) + gumbel(key, (count,))), kind="stable")
    return np.reshape(order[:wanted], shape)
