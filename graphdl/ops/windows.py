"""The largest element of each window: what max pooling and its gradients are made of.

`window_pick(y, x)` is the element of y where x is largest in each window, the first of equals in
row-major order; NaN counts as largest. So `window_pick(x, x)` is max pooling. `window_place(g, x)`
is its transpose: zeros, with each element of g added where its window picks. Both are linear in
their first operand and have no gradient in the second, so they are closed under differentiation.

Arrays are (batch, *sizes, channels); windows are those of graphdl.ops.convolution, on an input that
is padded with what is never picked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphdl.errors import DtypeError, ShapeError
from graphdl.ops.convolution import Axis
from graphdl.ops.op import Op
from graphdl.types import Shape, TensorType


def window_axes(sizes: Shape, attrs: dict[str, Any]) -> list[Axis]:
    """The spatial axes of a window op with these attributes."""
    return [
        Axis(size, window, stride, low, high, 1, dilation)
        for size, window, stride, (low, high), dilation in zip(
            sizes, attrs["window"], attrs["strides"], attrs["padding"], attrs["dilation"],
            strict=True,
        )
    ]  # fmt: skip


def _checked(name: str, x: TensorType, **attrs: Any) -> Shape:
    """The shape of the result of picking from x."""
    rank = x.ndim - 2
    for key in ("window", "strides", "padding", "dilation"):
        if len(attrs[key]) != rank:
            raise ShapeError(f"{name}: {key} {attrs[key]} for {rank} spatial axes of {x}")
    axes = window_axes(x.shape[1:-1], attrs)
    for axis in axes:
        if min(axis.window, axis.stride, axis.rhs) < 1:
            raise ShapeError(f"{name}: window, strides and dilation must be positive, not {attrs}")
        if not np.all(np.any(_inside(axis), axis=1)):
            raise ShapeError(
                f"{name}: with padding {(axis.low, axis.high)} a window of {axis.window} would lie "
                f"outside the {axis.size} elements of its axis"
            )
    return (x.shape[0], *(axis.out for axis in axes), x.shape[-1])


def _inside(axis: Axis) -> NDArray[np.bool_]:
    """For each place and element of the window, whether it lies in the input."""
    starts = np.arange(axis.out) * axis.stride - axis.low
    at = starts[:, None] + np.arange(axis.window) * axis.rhs
    found: NDArray[np.bool_] = (at >= 0) & (at < axis.size)
    return found


def is_inside(axis: Axis) -> bool:
    """Whether the whole window lies in the input at every place."""
    return bool(np.all(_inside(axis)))


def _infer_pick(y: TensorType, x: TensorType, **attrs: Any) -> TensorType:
    if y.shape != x.shape:
        raise ShapeError(f"window_pick: from {y} by {x}")
    return TensorType(y.dtype, _checked("window_pick", x, **attrs))


def _infer_place(g: TensorType, x: TensorType, **attrs: Any) -> TensorType:
    if not g.is_float:
        raise DtypeError(f"window_place: {g} is not of floats")
    shape = _checked("window_place", x, **attrs)
    if g.shape != shape:
        raise ShapeError(f"window_place: {g} for windows {shape}")
    return TensorType(g.dtype, x.shape)


def _picked(x: NDArray[Any], axes: Sequence[Axis]) -> NDArray[Any]:
    """The flat index, in x, of what each window picks."""
    index = np.arange(x.size).reshape(x.shape)
    shape = [x.shape[0], *(axis.out for axis in axes), x.shape[-1]]
    best = np.zeros(shape, x.dtype)
    where = np.full(shape, -1)
    for at in np.ndindex(*(axis.window for axis in axes)):
        places = [
            np.arange(axis.out) * axis.stride - axis.low + k * axis.rhs
            for k, axis in zip(at, axes, strict=True)
        ]
        inside = np.ones(shape, bool)
        for i, (place, axis) in enumerate(zip(places, axes, strict=True)):
            known = (place >= 0) & (place < axis.size)
            inside &= known.reshape([-1 if d == i + 1 else 1 for d in range(len(shape))])
        chosen = [
            np.clip(p, 0, max(axis.size - 1, 0)) for p, axis in zip(places, axes, strict=True)
        ]
        grid = np.ix_(np.arange(shape[0]), *chosen, np.arange(shape[-1]))
        value = x[grid] if x.size else best
        better = (where < 0) | (value > best) | ((value != value) & (best == best))
        take = inside & better
        best = np.where(take, value, best)
        where = np.where(take, index[grid] if x.size else where, where)
    return where


def _pick(y: NDArray[Any], x: NDArray[Any], **attrs: Any) -> NDArray[Any]:
    _checked("window_pick", TensorType(x.dtype, x.shape), **attrs)
    where = _picked(x, window_axes(x.shape[1:-1], attrs))
    return y.reshape(-1)[where] if where.size else np.zeros(where.shape, y.dtype)


def _place(g: NDArray[Any], x: NDArray[Any], **attrs: Any) -> NDArray[Any]:
    out = np.zeros(x.size, g.dtype)
    np.add.at(out, _picked(x, window_axes(x.shape[1:-1], attrs)).reshape(-1), g.reshape(-1))
    return out.reshape(x.shape)


window_pick: Op = Op(
    "window_pick",
    "window",
    _infer_pick,
    _pick,
    lambda g, out, y, x, **attrs: (window_place(g, x, **attrs), None),
)
window_place: Op = Op(
    "window_place",
    "window",
    _infer_place,
    _place,
    lambda h, out, g, x, **attrs: (window_pick(h, x, **attrs), None),
)
