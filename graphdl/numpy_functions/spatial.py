"""Arguments that convolution, pooling and resizing share: layout, padding, one number an axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphdl.errors import ArgumentError, ShapeError
from graphdl.numpy_functions.arguments import as_float, integer, integers
from graphdl.ops.convolution import Axis, Pairs, dilated
from graphdl.tracing import locate
from graphdl.types import Shape

LAYOUTS = ("channels_last", "channels_first")


def channels_last(name: str, x: Any, layout: str) -> Any:
    """x as floats of shape (batch, *sizes, channels)."""
    x = as_float(x)
    check_layout(name, layout)
    if x.ndim < 3:
        raise locate(
            ShapeError(
                f"{name} takes a batch of shape {shape_text(layout)} with at least one size; got "
                f"shape {tuple(x.shape)}"
            )
        )
    return x if layout == "channels_last" else np.moveaxis(x, 1, -1)


def from_channels_last(x: Any, layout: str) -> Any:
    """A result in the layout of the argument."""
    return x if layout == "channels_last" else np.moveaxis(x, -1, 1)


def check_layout(name: str, layout: str) -> None:
    if layout not in LAYOUTS:
        raise locate(ArgumentError(f"{name}: layout={layout!r}; it is {' or '.join(LAYOUTS)}"))


def shape_text(layout: str) -> str:
    return "(batch, *sizes, channels)" if layout == "channels_last" else "(batch, channels, *sizes)"


def one_each(name: str, what: str, value: Any, rank: int, least: int = 1) -> tuple[int, ...]:
    """A number for all axes or a sequence with one for each."""
    numbers = integers(value, f"{name}: {what}")
    if not isinstance(value, (tuple, list, np.ndarray)):
        numbers = numbers * rank
    if len(numbers) != rank or min(numbers, default=least) < least:
        raise locate(
            ArgumentError(
                f"{name}: {what}={value!r}; for {rank} spatial axes it is a number of at least "
                f"{least}, or {rank} of them"
            )
        )
    return numbers


def pads(
    name: str, padding: Any, sizes: Shape, window: Shape, strides: Shape, dilation: Shape
) -> Pairs:
    """The elements added before and after each axis.

    "VALID" is none. "SAME" makes ceil(size / stride) places, the odd element at the end.
    """
    rank = len(sizes)
    if isinstance(padding, str):
        if padding.upper() == "VALID":
            return ((0, 0),) * rank
        if padding.upper() == "SAME":
            return tuple(map(_same, sizes, window, strides, dilation))
        raise locate(
            ArgumentError(
                f'{name}: padding={padding!r}; it is "SAME", "VALID", a number, or a number or a '
                f"pair for each axis"
            )
        )
    if not isinstance(padding, Sequence):
        return tuple((p, p) for p in one_each(name, "padding", padding, rank, 0))
    pairs = tuple(
        (item, item) if not isinstance(item, Sequence) else tuple(item) for item in padding
    )
    if len(pairs) != rank or any(len(pair) != 2 for pair in pairs):
        raise locate(
            ArgumentError(
                f"{name}: padding={padding!r}; for {rank} spatial axes it is {rank} numbers or "
                f"pairs (before, after)"
            )
        )
    return tuple(
        (integer(low, f"{name}: padding"), integer(high, f"{name}: padding")) for low, high in pairs
    )


def _same(size: int, window: int, stride: int, dilation: int) -> tuple[int, int]:
    places = -(-size // stride)
    total = max((places - 1) * stride + dilated(window, dilation) - size, 0)
    return total // 2, total - total // 2


def places(
    name: str, sizes: Shape, window: Any, strides: Any, padding: Any, dilation: Any
) -> tuple[int, ...]:
    """How many places a window has along each axis."""
    rank = len(sizes)
    extents = one_each(name, "window", window, rank)
    steps = one_each(name, "strides", strides, rank)
    apart = one_each(name, "dilation", dilation, rank)
    around = pads(name, padding, sizes, extents, steps, apart)
    return tuple(
        Axis(size, extent, step, low, high, 1, gap).out
        for size, extent, step, (low, high), gap in zip(
            sizes, extents, steps, around, apart, strict=True
        )
    )
