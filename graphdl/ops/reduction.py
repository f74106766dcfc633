"""Reductions over axes, without keepdims (a reshape).

`max` and `min` share a cotangent equally among ties. The gradient of `prod` is exact at zeros and
to any order: it replays the product as a tree of halves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphdl.errors import AxisError, DtypeError, ShapeError
from graphdl.ops.movement import broadcast
from graphdl.ops.op import Op, Rule
from graphdl.types import Shape, TensorType

Axes = tuple[int, ...]
_INDEX = np.dtype(np.int64)
_BOOL = np.dtype(np.bool_)


def _check_axes(name: str, x: TensorType, axes: Axes) -> Shape:
    """The shape that is left."""
    if len(set(axes)) != len(axes) or any(not 0 <= axis < x.ndim for axis in axes):
        raise AxisError(f"{name}: axes {axes} do not fit shape {x.shape}")
    return tuple(size for axis, size in enumerate(x.shape) if axis not in axes)


def _spread(value: Any, x: Any, axes: Axes) -> Any:
    """Repeat what is left of a reduction of x over the reduced axes."""
    kept = tuple(axis for axis in range(x.ndim) if axis not in axes)
    return broadcast(value, shape=x.shape, dims=kept)


def _reduction(
    name: str, ufunc: np.ufunc, vjp: Rule | None, *, empty: bool = True, boolean: bool = False
) -> Op:
    def infer(x: TensorType, *, axes: Axes) -> TensorType:
        shape = _check_axes(name, x, axes)
        if (x.dtype == _BOOL) != boolean and not (name in ("max", "min") and not boolean):
            raise DtypeError(f"{name}: cannot reduce {x}")
        if not empty and any(x.shape[axis] == 0 for axis in axes):
            raise ShapeError(f"{name}: {x} is empty along axes {axes}, and has no identity")
        return TensorType(x.dtype, shape)

    def evaluate(x: Any, *, axes: Axes) -> Any:
        return ufunc.reduce(x, axis=axes, dtype=x.dtype if ufunc in (np.add, np.multiply) else None)

    return Op(
        name,
        "reduction",
        infer,
        evaluate,
        vjp,
        "" if vjp else "its result is not a float",
    )


def _ties(g: Any, out: Any, x: Any, *, axes: Axes) -> tuple[Any]:
    hit = x == _spread(out, x, axes)
    share = g / np.sum(hit, axis=axes).astype(g.dtype)
    return (np.where(hit, _spread(share, x, axes), np.zeros_like(x)),)


def _prod_rule(g: Any, out: Any, x: Any, *, axes: Axes) -> tuple[Any]:
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    order = (*axes, *kept)
    front = np.transpose(x, order)
    levels = [np.reshape(front, (-1, *(x.shape[axis] for axis in kept)))]
    if levels[0].shape[0] == 0:
        return (np.zeros_like(x),)
    while (n := levels[-1].shape[0]) > 1:
        half, last = n // 2, levels[-1]
        pairs = last[:half] * last[half : 2 * half]
        levels.append(np.concatenate([pairs, last[2 * half :]]) if n % 2 else pairs)
    cotangent = np.reshape(g, (1, *g.shape))
    for level in reversed(levels[:-1]):
        n = level.shape[0]
        half = n // 2
        top = cotangent[:half]
        parts = [top * level[half : 2 * half], top * level[:half]]
        cotangent = np.concatenate([*parts, cotangent[half:]] if n % 2 else parts)
    back = np.reshape(cotangent, front.shape)
    return (np.transpose(back, np.argsort(order).tolist()),)


sum_ = _reduction("sum", np.add, lambda g, out, x, *, axes: (_spread(g, x, axes),))
prod = _reduction("prod", np.multiply, _prod_rule)
max_ = _reduction("max", np.maximum, _ties, empty=False)
min_ = _reduction("min", np.minimum, _ties, empty=False)
any_ = _reduction("any", np.logical_or, None, boolean=True)
all_ = _reduction("all", np.logical_and, None, boolean=True)


def _position(name: str, reference: Callable[..., Any]) -> Op:
    """argmax and argmin: over one axis, the first of equals; NaN counts as the extremum."""

    def infer(x: TensorType, *, axis: int) -> TensorType:
        shape = _check_axes(name, x, (axis,))
        if x.shape[axis] == 0:
            raise ShapeError(f"{name}: {x} is empty along axis {axis}")
        return TensorType(_INDEX, shape)

    return Op(
        name,
        "reduction",
        infer,
        lambda x, *, axis: np.asarray(reference(x, axis=axis), _INDEX),
        None,
        "its result is an index",
    )


argmax = _position("argmax", np.argmax)
argmin = _position("argmin", np.argmin)
