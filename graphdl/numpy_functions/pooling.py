"""Pooling and local response normalisation, for arrays and traced values, in either layout."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphdl.errors import ArgumentError
from graphdl.numpy_functions.spatial import channels_last, from_channels_last, one_each, pads
from graphdl.ops import convolution, windows
from graphdl.tracing import locate
from graphdl.types import Shape

__all__ = [
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "avg_pool",
    "global_avg_pool",
    "global_max_pool",
    "local_response_norm",
    "max_pool",
]

#: Elements of a window that one kernel compares; larger windows are pooled axis by axis.
MOST_AT_ONCE = 16


def max_pool(
    x: Any,
    window: Any,
    *,
    strides: Any = None,
    padding: Any = "VALID",
    dilation: Any = 1,
    layout: str = "channels_last",
) -> Any:
    """The largest element of each window, channel by channel.

    The gradient goes to the first of equals in row-major order, as in PyTorch; NaN counts as
    largest; padding is never picked.

    Args:
        x: a batch, (batch, *sizes, channels), or (batch, channels, *sizes) if `layout` is
            "channels_first".
        window: its size; a number, or one for each spatial axis.
        strides: how far apart windows are; the window's size if not given.
        padding, dilation: as in `conv`. No window may lie in the padding alone (ShapeError).

    >>> import numpy as np
    >>> from graphdl import nn
    >>> nn.max_pool(np.array([3.0, 1.0, 2.0, 5.0]).reshape(1, 4, 1), 2)[0, :, 0]
    array([3., 5.])
    """
    x = channels_last("max_pool", x, layout)
    sizes, steps, around, apart = _windows("max_pool", x, window, strides, padding, dilation)
    if math.prod(sizes) <= MOST_AT_ONCE:
        return from_channels_last(_max_pool(x, sizes, steps, around, apart), layout)
    rank = len(sizes)
    for axis in reversed(range(rank)):  # the last first: so the first of equals is picked
        if (sizes[axis], steps[axis], around[axis]) != (1, 1, (0, 0)):
            x = _max_pool(
                x,
                _only(axis, sizes, 1),
                _only(axis, steps, 1),
                _only(axis, around, (0, 0)),
                _only(axis, apart, 1),
            )
    return from_channels_last(x, layout)


def _only(axis: int, values: Any, other: Any) -> Any:
    return tuple(value if i == axis else other for i, value in enumerate(values))


def _max_pool(x: Any, window: Shape, strides: Shape, padding: Any, dilation: Shape) -> Any:
    return windows.window_pick(
        x, x, window=window, strides=strides, padding=padding, dilation=dilation
    )


def _windows(
    name: str, x: Any, window: Any, strides: Any, padding: Any, dilation: Any
) -> tuple[Shape, Shape, Any, Shape]:
    rank = x.ndim - 2
    sizes = one_each(name, "window", window, rank)
    steps = one_each(name, "strides", sizes if strides is None else strides, rank)
    apart = one_each(name, "dilation", dilation, rank)
    return sizes, steps, pads(name, padding, x.shape[1:-1], sizes, steps, apart), apart


def avg_pool(
    x: Any,
    window: Any,
    *,
    strides: Any = None,
    padding: Any = "VALID",
    count_padding: bool = False,
    layout: str = "channels_last",
) -> Any:
    """The mean of each window, channel by channel.

    Args:
        x, window, strides, padding, layout: as in `max_pool`.
        count_padding: whether padding counts as zeros in the mean (PyTorch's default) or not at all
            (that of Keras and of this function).

    >>> import numpy as np
    >>> from graphdl import nn
    >>> nn.avg_pool(np.array([3.0, 1.0, 2.0]).reshape(1, 3, 1), 2, padding="SAME")[0, :, 0]
    array([2., 2.])
    """
    x = channels_last("avg_pool", x, layout)
    sizes, steps, around, _ = _windows("avg_pool", x, window, strides, padding, 1)
    inner = x.shape[1:-1]
    tiled = sizes == steps and all(
        pair == (0, 0) and size % extent == 0
        for pair, size, extent in zip(around, inner, sizes, strict=True)
    )
    if tiled:
        return from_channels_last(_tile_means(x, sizes), layout)
    rank = len(sizes)
    if count_padding:
        count: Any = np.asarray(math.prod(sizes), x.dtype)
    else:
        ones = np.ones((1, *inner, 1), x.dtype)
        count = _window_sums(ones, sizes, steps, around)
    for axis in range(rank):  # sums over one axis after the other: fewer terms
        x = _window_sums(
            x, _only(axis, sizes, 1), _only(axis, steps, 1), _only(axis, around, (0, 0))
        )
    return from_channels_last(x / np.maximum(count, 1), layout)


def _tile_means(x: Any, sizes: Shape) -> Any:
    """Means over windows that tile the input."""
    shape: tuple[int, ...] = (x.shape[0],)
    for size, extent in zip(x.shape[1:-1], sizes, strict=True):
        shape += (size // extent, extent)
    tiles = np.reshape(x, (*shape, x.shape[-1]))
    return np.mean(tiles, axis=tuple(range(2, tiles.ndim - 1, 2)))


def _window_sums(x: Any, window: Shape, strides: Shape, padding: Any) -> Any:
    channels = x.shape[-1]
    rank = len(window)
    if all(extent == 1 for extent in window) and strides == (1,) * rank:
        return x
    return convolution.convolve(
        x,
        np.ones((*window, 1, channels), x.dtype),
        strides=strides,
        padding=padding,
        lhs_dilation=(1,) * rank,
        rhs_dilation=(1,) * rank,
        groups=channels,
    )


def global_avg_pool(x: Any, *, layout: str = "channels_last") -> Any:
    """The mean of each channel over all spatial axes: (batch, channels).

    >>> import numpy as np
    >>> from graphdl import nn
    >>> nn.global_avg_pool(np.arange(8.0).reshape(1, 2, 2, 2))
    array([[3., 4.]])
    """
    x = channels_last("global_avg_pool", x, layout)
    return np.mean(x, axis=tuple(range(1, x.ndim - 1)))


def global_max_pool(x: Any, *, layout: str = "channels_last") -> Any:
    """The largest element of each channel: (batch, channels). Equals share the gradient.

    >>> import numpy as np
    >>> from graphdl import nn
    >>> nn.global_max_pool(np.arange(8.0).reshape(1, 2, 2, 2))
    array([[6., 7.]])
    """
    x = channels_last("global_max_pool", x, layout)
    return np.max(x, axis=tuple(range(1, x.ndim - 1)))


def adaptive_avg_pool(x: Any, sizes: Any, *, layout: str = "channels_last") -> Any:
    """Means over windows chosen so that the result has spatial `sizes`.

    Along an axis of n elements, window i of m is floor(i * n / m) up to ceil((i + 1) * n / m), as
    in PyTorch; windows overlap where m does not divide n.

    >>> import numpy as np
    >>> from graphdl import nn
    >>> nn.adaptive_avg_pool(np.arange(5.0).reshape(1, 5, 1), 2)[0, :, 0]
    array([1., 3.])
    """
    name = "adaptive_avg_pool"
    x = channels_last(name, x, layout)
    windows_of = _adaptive(name, x, sizes)
    if all(n % len(cuts) == 0 for n, cuts in zip(x.shape[1:-1], windows_of, strict=True)):
        tiles = tuple(n // len(cuts) for n, cuts in zip(x.shape[1:-1], windows_of, strict=True))
        return from_channels_last(_tile_means(x, tiles), layout)
    for axis, cuts in enumerate(windows_of):
        x = _by_cuts(x, axis + 1, cuts, lambda part, axis: np.mean(part, axis=axis, keepdims=True))
    return from_channels_last(x, layout)


def adaptive_max_pool(x: Any, sizes: Any, *, layout: str = "channels_last") -> Any:
    """Maxima over the windows of `adaptive_avg_pool`, with the gradient of `max_pool`.

    >>> import numpy as np
    >>> from graphdl import nn
    >>> nn.adaptive_max_pool(np.arange(5.0).reshape(1, 5, 1), 2)[0, :, 0]
    array([2., 4.])
    """
    name = "adaptive_max_pool"
    x = channels_last(name, x, layout)
    rank = x.ndim - 2

    def largest(part: Any, axis: int) -> Any:
        window = _only(axis - 1, part.shape[1:-1], 1)
        return _max_pool(part, window, (1,) * rank, ((0, 0),) * rank, (1,) * rank)

    for axis, cuts in reversed(list(enumerate(_adaptive(name, x, sizes)))):
        x = _by_cuts(x, axis + 1, cuts, largest)
    return from_channels_last(x, layout)


def _adaptive(name: str, x: Any, sizes: Any) -> list[list[tuple[int, int]]]:
    """For each spatial axis, where its windows start and stop."""
    wanted = one_each(name, "sizes", sizes, x.ndim - 2)
    if 0 in x.shape[1:-1]:
        raise locate(ArgumentError(f"{name}: an axis of shape {tuple(x.shape)} is empty"))
    return [
        [(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]
        for n, m in zip(x.shape[1:-1], wanted, strict=True)
    ]


def _by_cuts(x: Any, axis: int, cuts: list[tuple[int, int]], reduce: Any) -> Any:
    """Each window along one axis reduced to one element."""
    if cuts == [(i, i + 1) for i in range(x.shape[axis])]:
        return x
    before = (slice(None),) * axis
    parts = [reduce(x[(*before, slice(start, stop))], axis) for start, stop in cuts]
    return np.concatenate(parts, axis=axis)


def local_response_norm(
    x: Any,
    size: int = 5,
    *,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 2.0,
    layout: str = "channels_last",
) -> Any:
    """Each element divided by a power of what its neighbours among the channels sum up to.

    x / (k + alpha * sum over `size` channels of x**2) ** beta, the window being the channel itself,
    size // 2 before and (size - 1) // 2 after it, as far as there are any. A. Krizhevsky,
    I. Sutskever and G. Hinton, "ImageNet classification with deep convolutional neural networks",
    NIPS 2012, section 3.3, whose constants are the defaults. (PyTorch divides alpha by `size`.)

    >>> import numpy as np
    >>> from graphdl import nn
    >>> nn.local_response_norm(np.ones((1, 1, 3)), 3, alpha=1.0, beta=1.0, k=0.0)
    array([[[0.5       , 0.33333333, 0.5       ]]])
    """
    (size,) = one_each("local_response_norm", "size", size, 1)
    x = channels_last("local_response_norm", x, layout)
    channels = np.arange(x.shape[-1])
    distance = channels[:, None] - channels  # of what is summed (rows) from what is divided
    band = (distance >= -(size // 2)) & (distance <= (size - 1) // 2)
    # A product with a band of ones: as fast as summing slices, and the rest fuses with it.
    sums = (x * x) @ band.astype(x.dtype)
    return from_channels_last(x * (k + alpha * sums) ** -beta, layout)
