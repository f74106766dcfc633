"""Resizing of images and other fields, for arrays and traced values, in either layout."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphdl.errors import ArgumentError
from graphdl.numpy_functions.spatial import channels_last, from_channels_last, one_each
from graphdl.tracing import locate

__all__ = ["resize"]


def resize(
    x: Any,
    sizes: Any,
    method: str = "linear",
    *,
    align_corners: bool = False,
    layout: str = "channels_last",
) -> Any:
    """x with other spatial sizes, by interpolation along one axis after the other.

    Args:
        x: a batch, (batch, *sizes, channels), or (batch, channels, *sizes) if `layout` is
            "channels_first". Integers count as float64.
        sizes: the new ones; a number, or one for each spatial axis.
        method: "nearest", or "linear": bilinear for two spatial axes, trilinear for three.
        align_corners: elements are cells, and element i of m lies at (i + 0.5) * n / m - 0.5 among
            the n of the input, as in TensorFlow, in JAX, and in PyTorch's "bilinear" and
            "nearest-exact"; where it lies beyond the first or last, it is that one. With
            align_corners they are points, and element i lies at i * (n - 1) / (m - 1).

    There is no smoothing where the result is smaller: use `avg_pool` for that.

    >>> import numpy as np
    >>> from graphdl import nn
    >>> x = np.array([0.0, 4.0]).reshape(1, 2, 1)
    >>> nn.resize(x, 4)[0, :, 0]
    array([0., 1., 3., 4.])
    >>> nn.resize(x, 4, "nearest")[0, :, 0]
    array([0., 0., 4., 4.])
    """
    x = channels_last("resize", x, layout)
    wanted = one_each("resize", "sizes", sizes, x.ndim - 2)
    if method not in ("nearest", "linear"):
        raise locate(ArgumentError(f'resize: method={method!r}; it is "nearest" or "linear"'))
    if 0 in x.shape[1:-1]:
        raise locate(ArgumentError(f"resize: an axis of shape {tuple(x.shape)} is empty"))
    along = _nearest if method == "nearest" else _linear
    for axis, size in enumerate(wanted, start=1):
        if size != x.shape[axis]:
            x = along(x, axis, size, align_corners)
    return from_channels_last(x, layout)


def _positions(n: int, m: int, align_corners: bool) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Where the m elements of the result lie among the n of the input."""
    if align_corners:
        return np.linspace(0.0, n - 1.0, m) if m > 1 else np.zeros(1)
    return np.clip((np.arange(m) + 0.5) * (n / m) - 0.5, 0.0, n - 1.0)


def _nearest(x: Any, axis: int, size: int, align_corners: bool) -> Any:
    n = x.shape[axis]
    if size % n == 0 and not align_corners:
        times = size // n
        spread = np.expand_dims(x, axis + 1)
        shape = (*x.shape[: axis + 1], times, *x.shape[axis + 1 :])
        repeated = np.broadcast_to(spread, shape)
        return np.reshape(repeated, (*x.shape[:axis], size, *x.shape[axis + 1 :]))
    if align_corners:
        index = np.floor(_positions(n, size, True) + 0.5).astype(np.int64)
    else:
        index = (2 * np.arange(size) + 1) * n // (2 * size)
    return np.take(x, index, axis=axis)


def _linear(x: Any, axis: int, size: int, align_corners: bool) -> Any:
    at = _positions(x.shape[axis], size, align_corners)
    # ceil, not low + 1: an element that is not needed has no weight, and 0 * inf would be NaN
    low, high = np.floor(at).astype(np.int64), np.ceil(at).astype(np.int64)
    weight = (at - low).astype(x.dtype).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    return np.take(x, low, axis=axis) * (1 - weight) + np.take(x, high, axis=axis) * weight
