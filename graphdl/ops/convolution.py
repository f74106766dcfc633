"""Convolution over any number of axes, channels last, and the gradient of its weights.

`convolve` is what the field calls convolution, a correlation: the window is not flipped. Its
gradient with respect to the input is again a convolution, with strides and dilations of the input
exchanged; `filter_gradient` is the one with respect to the weights, and its own gradients are
convolutions. So the two are closed under differentiation, to any order.

Along each spatial axis an input of `size` elements is spread to `lhs_dilation` apart, padded (or
cropped, where padding is negative), and met by a window whose elements are `rhs_dilation` apart, at
places `strides` apart. Channels come in `groups`: output channels of one group see its inputs only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from graphdl.errors import DtypeError, ShapeError
from graphdl.ops.op import Op
from graphdl.types import Shape, TensorType

Ints = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]


class Axis(Struct, frozen=True):
    """One spatial axis of a convolution."""

    size: int
    window: int
    stride: int
    low: int
    high: int
    lhs: int
    rhs: int

    @property
    def out(self) -> int:
        """The number of places of the window."""
        return max((self.padded - dilated(self.window, self.rhs)) // self.stride + 1, 0)

    @property
    def padded(self) -> int:
        """The size of the input, spread and padded."""
        return dilated(self.size, self.lhs) + self.low + self.high

    def transposed(self, out: int) -> Axis:
        """The axis of the convolution that takes a cotangent of `out` places to the input's.

        Its window is the same, flipped.
        """
        low = dilated(self.window, self.rhs) - 1 - self.low
        spread = dilated(out, self.stride)
        high = dilated(self.size, self.lhs) + dilated(self.window, self.rhs) - 1 - spread - low
        return Axis(out, self.window, self.lhs, low, high, self.stride, self.rhs)


def dilated(size: int, step: int) -> int:
    """The extent of `size` elements that are `step` apart."""
    return (size - 1) * step + 1 if size else 0


def axes_of(sizes: Shape, window: Shape, attrs: dict[str, Any]) -> list[Axis]:
    """The spatial axes of a convolution with these attributes."""
    return [
        Axis(*values[:3], *values[3], *values[4:])
        for values in zip(
            sizes, window, attrs["strides"], attrs["padding"], attrs["lhs_dilation"],
            attrs["rhs_dilation"], strict=True,
        )
    ]  # fmt: skip


def attributes(axes: Sequence[Axis], groups: int) -> dict[str, Any]:
    """The attributes of a convolution over these axes."""
    return {
        "strides": tuple(axis.stride for axis in axes),
        "padding": tuple((axis.low, axis.high) for axis in axes),
        "lhs_dilation": tuple(axis.lhs for axis in axes),
        "rhs_dilation": tuple(axis.rhs for axis in axes),
        "groups": groups,
    }


def _checked(
    name: str, x: TensorType, other: TensorType, window: Shape, **attrs: Any
) -> list[Axis]:
    """The axes, after all that both ops ask of their operands."""
    rank = x.ndim - 2
    if x.dtype != other.dtype:
        raise DtypeError(f"{name}: {x} with {other}")
    if not x.is_float:
        raise DtypeError(f"{name}: {x} is not of floats; cast it first")
    if rank < 1 or other.ndim != x.ndim or len(window) != rank:
        raise ShapeError(
            f"{name}: {x} with {other}: an input is (batch, *sizes, channels), weights are "
            f"(*window, channels of a group, outputs)"
        )
    for key in ("strides", "padding", "lhs_dilation", "rhs_dilation"):
        if len(attrs[key]) != rank:
            raise ShapeError(f"{name}: {key} {attrs[key]} for {rank} spatial axes")
    for key in ("strides", "lhs_dilation", "rhs_dilation"):
        if min(attrs[key]) < 1:
            raise ShapeError(f"{name}: {key} {attrs[key]} must be positive")
    groups = attrs["groups"]
    if groups < 1 or x.shape[-1] % groups or other.shape[-1] % groups:
        raise ShapeError(
            f"{name}: {x.shape[-1]} and {other.shape[-1]} channels do not fall into {groups} groups"
        )
    return axes_of(x.shape[1:-1], window, attrs)


def _infer_convolve(x: TensorType, w: TensorType, **attrs: Any) -> TensorType:
    axes = _checked("convolve", x, w, w.shape[:-2], **attrs)
    if w.shape[-2] * attrs["groups"] != x.shape[-1]:
        raise ShapeError(
            f"convolve: weights {w} are for {w.shape[-2] * attrs['groups']} channels in "
            f"{attrs['groups']} groups, the input {x} has {x.shape[-1]}"
        )
    return TensorType(x.dtype, (x.shape[0], *(axis.out for axis in axes), w.shape[-1]))


def _infer_filter_gradient(
    x: TensorType, g: TensorType, *, window: Shape, **attrs: Any
) -> TensorType:
    axes = _checked("filter_gradient", x, g, window, **attrs)
    places = (x.shape[0], *(axis.out for axis in axes))
    if g.shape[:-1] != places:
        raise ShapeError(f"filter_gradient: {g} for {places} places of the window on {x}")
    return TensorType(x.dtype, (*window, x.shape[-1] // attrs["groups"], g.shape[-1]))


# -- the NumPy reference ---------------------------------------------------------------------------


def _patches(x: NDArray[Any], axes: Sequence[Axis], groups: int) -> NDArray[Any]:
    """What the window sees at each place: (batch, *places, groups, *window, channels), a view."""
    batch, channels = x.shape[0], x.shape[-1]
    spread = np.zeros((batch, *(dilated(axis.size, axis.lhs) for axis in axes), channels), x.dtype)
    spread[(slice(None), *(slice(None, None, axis.lhs) for axis in axes))] = x
    widths = [(max(axis.low, 0), max(axis.high, 0)) for axis in axes]
    padded = np.pad(spread, [(0, 0), *widths, (0, 0)])
    crops = tuple(
        slice(max(-axis.low, 0), max(padded.shape[1 + i] - max(-axis.high, 0), 0))
        for i, axis in enumerate(axes)
    )
    padded = padded[(slice(None), *crops)]
    steps = padded.strides
    shape = (
        batch, *(axis.out for axis in axes), groups, *(axis.window for axis in axes),
        channels // groups,
    )  # fmt: skip
    strides = (
        steps[0],
        *(step * axis.stride for step, axis in zip(steps[1:-1], axes, strict=True)),
        steps[-1] * (channels // groups),
        *(step * axis.rhs for step, axis in zip(steps[1:-1], axes, strict=True)),
        steps[-1],
    )
    if math.prod(shape) == 0:
        return np.zeros(shape, x.dtype)
    return np.lib.stride_tricks.as_strided(padded, shape, strides, writeable=False)


def _convolve(x: NDArray[Any], w: NDArray[Any], **attrs: Any) -> NDArray[Any]:
    axes = axes_of(x.shape[1:-1], w.shape[:-2], attrs)
    groups, outputs = attrs["groups"], w.shape[-1]
    seen = _patches(x, axes, groups)
    rows = math.prod(seen.shape[: 1 + len(axes)])
    depth = math.prod(w.shape[:-1])
    a = seen.reshape(rows, groups, depth).swapaxes(0, 1)
    b = w.reshape(depth, groups, outputs // groups).swapaxes(0, 1)
    out: NDArray[Any] = (a @ b).swapaxes(0, 1)
    return out.reshape((x.shape[0], *(axis.out for axis in axes), outputs))


def _filter_gradient(
    x: NDArray[Any], g: NDArray[Any], *, window: Shape, **attrs: Any
) -> NDArray[Any]:
    axes = axes_of(x.shape[1:-1], window, attrs)
    groups, outputs = attrs["groups"], g.shape[-1]
    seen = _patches(x, axes, groups)
    rows = math.prod(seen.shape[: 1 + len(axes)])
    depth = math.prod(window) * (x.shape[-1] // groups)
    a = seen.reshape(rows, groups, depth).transpose(1, 2, 0)
    b = g.reshape(rows, groups, outputs // groups).swapaxes(0, 1)
    out: NDArray[Any] = (a @ b).swapaxes(0, 1)
    return out.reshape((*window, x.shape[-1] // groups, outputs))


def part_of(part: int, parts: int, places: int) -> tuple[int, int]:
    """Where a part of the places, counted over the whole batch, starts and stops."""
    return part * places // parts, (part + 1) * places // parts


def _infer_parts(x: TensorType, g: TensorType, *, parts: int, **attrs: Any) -> TensorType:
    if parts < 1:
        raise ShapeError(f"filter_gradient_parts: {parts} parts")
    whole = _infer_filter_gradient(x, g, **attrs)
    return TensorType(whole.dtype, (parts, *whole.shape))


def _filter_gradient_parts(
    x: NDArray[Any], g: NDArray[Any], *, parts: int, **attrs: Any
) -> NDArray[Any]:
    rows = math.prod(g.shape[:-1])
    found = []
    for part in range(parts):
        own = np.zeros_like(g).reshape(rows, g.shape[-1])
        places = slice(*part_of(part, parts, rows))
        own[places] = g.reshape(own.shape)[places]
        found.append(_filter_gradient(x, own.reshape(g.shape), **attrs))
    return np.stack(found)


# -- the records -----------------------------------------------------------------------------------


def input_gradient(g: Any, w: Any, sizes: Shape, attrs: dict[str, Any]) -> Any:
    """The cotangent of an input with spatial `sizes`."""
    rank, groups = len(sizes), attrs["groups"]
    axes = axes_of(sizes, w.shape[:rank], attrs)
    back = [axis.transposed(out) for axis, out in zip(axes, g.shape[1:-1], strict=True)]
    window, channels, outputs = w.shape[:rank], w.shape[-2], w.shape[-1]
    flipped = np.flip(w, tuple(range(rank)))
    split = np.reshape(flipped, (*window, channels, groups, outputs // groups))
    turned = np.transpose(split, (*range(rank), rank + 2, rank + 1, rank))
    weights = np.reshape(turned, (*window, outputs // groups, groups * channels))
    return convolve(g, weights, **attributes(back, groups))


def _convolve_rule(g: Any, out: Any, x: Any, w: Any, **attrs: Any) -> tuple[Any, Any]:
    window = w.shape[:-2]
    return (
        input_gradient(g, w, x.shape[1:-1], attrs),
        filter_gradient(x, g, window=window, **attrs),
    )


def _filter_gradient_rule(
    h: Any, out: Any, x: Any, g: Any, *, window: Shape, **attrs: Any
) -> tuple[Any, Any]:
    return input_gradient(g, h, x.shape[1:-1], attrs), convolve(x, h, **attrs)


#: x (batch, *sizes, channels), w (*window, channels / groups, outputs) ->
#: (batch, *places, outputs).
convolve: Op = Op("convolve", "convolution", _infer_convolve, _convolve, _convolve_rule)

#: The cotangent of the weights of `convolve(x, w)`, from that of its result.
filter_gradient: Op = Op(
    "filter_gradient",
    "convolution",
    _infer_filter_gradient,
    _filter_gradient,
    _filter_gradient_rule,
)

#: `filter_gradient` by parts of the places, in order; the sum over the first axis is all of it. The
#: compiler makes it, so that parts are computed side by side.
filter_gradient_parts: Op = Op(
    "filter_gradient_parts",
    "convolution",
    _infer_parts,
    _filter_gradient_parts,
    no_gradient="the compiler makes it",
)
