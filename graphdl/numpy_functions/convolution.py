"""Convolution and its transpose, for arrays and traced values, in either layout."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphdl.errors import ArgumentError, ShapeError
from graphdl.numpy_functions.arguments import as_float, promote
from graphdl.numpy_functions.spatial import channels_last, from_channels_last, one_each, pads
from graphdl.ops import convolution
from graphdl.ops.convolution import Pairs, dilated
from graphdl.tracing import locate
from graphdl.types import Shape

__all__ = ["conv", "conv_transpose"]


def conv(
    x: Any,
    w: Any,
    *,
    strides: Any = 1,
    padding: Any = "VALID",
    dilation: Any = 1,
    groups: int = 1,
    layout: str = "channels_last",
) -> Any:
    """Convolution over any number of spatial axes, as neural networks define it.

    out[n, p, o] = sum over k and c of x[n, p * strides + k * dilation - before, c] * w[k, c, o],
    where x counts as zero outside. It is a correlation: flip w for a convolution in the sense of
    signal processing.

    Args:
        x: a batch, (batch, *sizes, channels), or (batch, channels, *sizes) if `layout` is
            "channels_first". Integers count as float64.
        w: the weights, (*window, channels / groups, outputs) in either layout.
        strides, dilation: how far apart places are, and elements of the window; a number, or one
            for each spatial axis.
        padding: "VALID" for none, "SAME" for ceil(size / stride) places (the odd element of padding
            comes last, as in TensorFlow), a number, or for each axis a number or a pair
            (before, after). Negative numbers crop.
        groups: channels and outputs fall into so many equal groups that do not see each other;
            as many as there are channels is a depthwise convolution.

    Raises ShapeError if the channels do not fit, ArgumentError for arguments out of range.

    >>> import numpy as np
    >>> from graphdl import nn
    >>> x = np.arange(5.0).reshape(1, 5, 1)
    >>> nn.conv(x, np.ones((3, 1, 1)), padding="SAME")[0, :, 0]
    array([1., 3., 6., 9., 7.])
    """
    x = channels_last("conv", x, layout)
    x, w, window, groups = _operands("conv", x, w, groups, x.shape[-1])
    rank = len(window)
    steps = one_each("conv", "strides", strides, rank)
    apart = one_each("conv", "dilation", dilation, rank)
    out = convolution.convolve(
        x,
        w,
        strides=steps,
        padding=pads("conv", padding, x.shape[1:-1], window, steps, apart),
        lhs_dilation=(1,) * rank,
        rhs_dilation=apart,
        groups=groups,
    )
    return from_channels_last(out, layout)


def conv_transpose(
    x: Any,
    w: Any,
    *,
    strides: Any = 1,
    padding: Any = "VALID",
    dilation: Any = 1,
    groups: int = 1,
    output_padding: Any = 0,
    layout: str = "channels_last",
) -> Any:
    """The transpose of `conv`: what its gradient does to a cotangent.

    conv_transpose(x, w, ...) has the shape of an array y for which conv(y, w, ...) has the shape of
    x, and sum(conv(y, w) * x) = sum(y * conv_transpose(x, w)) for every such y.

    Args:
        x: a batch, as in `conv`.
        w: weights of the convolution that is transposed, (*window, outputs / groups, channels): its
            inputs are the outputs here (Keras's order).
        strides, padding, dilation, groups, layout: those of that convolution.
        output_padding: several sizes of y give one size of x; this is added to the smallest, which
            along each axis is (size - 1) * stride + (window - 1) * dilation + 1 - padding, or
            size * stride with "SAME".

    Raises ShapeError if the channels do not fit, ArgumentError for arguments out of range.

    >>> import numpy as np
    >>> from graphdl import nn
    >>> x = np.array([1.0, 10.0]).reshape(1, 2, 1)
    >>> nn.conv_transpose(x, np.ones((3, 1, 1)), strides=2)[0, :, 0]
    array([ 1.,  1., 11., 10., 10.])
    """
    name = "conv_transpose"
    x = channels_last(name, x, layout)
    channels = np.shape(w)[-2] * groups if np.ndim(w) == x.ndim else 0
    x, w, window, groups = _operands(name, x, w, groups, channels)
    if w.shape[-1] != x.shape[-1]:
        raise locate(
            ShapeError(
                f"{name}: weights of shape {tuple(w.shape)} are (*window, outputs / groups, "
                f"channels), and x has {x.shape[-1]} channels, not {w.shape[-1]}"
            )
        )
    sizes, steps, around, apart = transposed_sizes(
        name, x.shape[1:-1], window, strides, padding, dilation, output_padding
    )
    attrs = {
        "strides": steps,
        "padding": around,
        "lhs_dilation": (1,) * len(window),
        "rhs_dilation": apart,
        "groups": groups,
    }
    return from_channels_last(convolution.input_gradient(x, w, sizes, attrs), layout)


def transposed_sizes(
    name: str,
    inner: Shape,
    window: Shape,
    strides: Any,
    padding: Any,
    dilation: Any,
    output_padding: Any,
) -> tuple[Shape, Shape, Pairs, Shape]:
    """The sizes of the result; strides, padding and dilation of the transposed convolution."""
    rank = len(window)
    steps = one_each(name, "strides", strides, rank)
    apart = one_each(name, "dilation", dilation, rank)
    more = one_each(name, "output_padding", output_padding, rank, 0)
    if any(extra >= step for extra, step in zip(more, steps, strict=True) if extra):
        raise locate(
            ArgumentError(
                f"{name}: output_padding={output_padding!r} must be less than the strides"
            )
        )
    same = isinstance(padding, str) and padding.upper() == "SAME"
    full = tuple(
        size * step if same else (max(size, 1) - 1) * step + dilated(extent, gap)
        for size, step, extent, gap in zip(inner, steps, window, apart, strict=True)
    )
    around = pads(name, padding, full, window, steps, apart)
    sizes = tuple(
        size + extra - (0 if same else low + high)
        for size, extra, (low, high) in zip(full, more, around, strict=True)
    )
    if min(sizes, default=0) < 0:
        raise locate(ArgumentError(f"{name}: padding={padding!r} leaves sizes {sizes}"))
    return sizes, steps, around, apart


def _operands(name: str, x: Any, w: Any, groups: int, channels: int) -> tuple[Any, Any, Shape, int]:
    """The operands as floats of one dtype, the window, the groups."""
    w = as_float(w)
    if w.ndim != x.ndim:
        raise locate(
            ShapeError(
                f"{name}: for an input with {x.ndim - 2} spatial axes the weights have shape "
                f"(*window, channels / groups, outputs), {x.ndim} axes; got {tuple(w.shape)}"
            )
        )
    (count,) = one_each(name, "groups", groups, 1)
    if channels % count or w.shape[-1] % count or w.shape[-2] * count != channels:
        raise locate(
            ShapeError(
                f"{name}: weights of shape {tuple(w.shape)} do not fit {channels} channels in "
                f"{count} groups: their last two axes are ({channels} / {count}, outputs), the "
                f"outputs a multiple of {count}"
            )
        )
    window = tuple(w.shape[:-2])
    if 0 in window:
        raise locate(ShapeError(f"{name}: the window {window} is empty"))
    dtype = promote(x, w)
    return x.astype(dtype), w.astype(dtype), window, count
