"""Layers without parameters that pool, normalise over channels, or resize."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import DTypeLike

from graphdl.nn.convolution import joined_shape, split_shape
from graphdl.nn.layer import Array, Params, Rng, Shape
from graphdl.numpy_functions.pooling import (
    adaptive_avg_pool,
    adaptive_max_pool,
    avg_pool,
    global_avg_pool,
    global_max_pool,
    local_response_norm,
    max_pool,
)
from graphdl.numpy_functions.resizing import resize
from graphdl.numpy_functions.spatial import one_each, places

Ints: TypeAlias = int | Sequence[int]
Padding: TypeAlias = str | int | Sequence[int | tuple[int, int]]


class _WithoutParameters:
    """A layer that has nothing to learn."""

    def init(self, rng: Rng, input_shape: Shape, dtype: DTypeLike = np.float32) -> Params:
        """No parameters."""
        return {}


class MaxPool(Struct, _WithoutParameters, frozen=True):
    """The largest element of each window, see `graphdl.nn.max_pool`; over any number of axes.

    >>> import numpy as np
    >>> MaxPool(2).apply({}, np.zeros((5, 28, 28, 3))).shape
    (5, 14, 14, 3)
    """

    window: Ints = 2
    strides: Ints | None = None
    padding: Padding = "valid"
    layout: str = "channels_last"
    name: str | None = None

    def output_shape(self, input_shape: Shape) -> Shape:
        """The shape of one output example."""
        sizes, channels = split_shape("MaxPool", input_shape, self.layout)
        steps = self.window if self.strides is None else self.strides
        out = places("MaxPool", sizes, self.window, steps, self.padding, 1)
        return joined_shape(out, channels, self.layout)

    def apply(self, params: Params, x: Array) -> Array:
        """Compute the layer on a batch."""
        return max_pool(
            x, self.window, strides=self.strides, padding=self.padding, layout=self.layout
        )


class AvgPool(Struct, _WithoutParameters, frozen=True):
    """The mean of each window, see `graphdl.nn.avg_pool`; over any number of axes.

    >>> import numpy as np
    >>> AvgPool(3, strides=2, padding="same").apply({}, np.zeros((5, 28, 28, 3))).shape
    (5, 14, 14, 3)
    """

    window: Ints = 2
    strides: Ints | None = None
    padding: Padding = "valid"
    count_padding: bool = False
    layout: str = "channels_last"
    name: str | None = None

    def output_shape(self, input_shape: Shape) -> Shape:
        """The shape of one output example."""
        sizes, channels = split_shape("AvgPool", input_shape, self.layout)
        steps = self.window if self.strides is None else self.strides
        out = places("AvgPool", sizes, self.window, steps, self.padding, 1)
        return joined_shape(out, channels, self.layout)

    def apply(self, params: Params, x: Array) -> Array:
        """Compute the layer on a batch."""
        return avg_pool(
            x,
            self.window,
            strides=self.strides,
            padding=self.padding,
            count_padding=self.count_padding,
            layout=self.layout,
        )


class AdaptiveAvgPool(Struct, _WithoutParameters, frozen=True):
    """Means over windows that give the result its sizes: see `graphdl.nn.adaptive_avg_pool`.

    >>> import numpy as np
    >>> AdaptiveAvgPool(6).apply({}, np.zeros((5, 13, 13, 3))).shape
    (5, 6, 6, 3)
    """

    sizes: Ints
    layout: str = "channels_last"
    name: str | None = None

    def output_shape(self, input_shape: Shape) -> Shape:
        """The shape of one output example."""
        sizes, channels = split_shape("AdaptiveAvgPool", input_shape, self.layout)
        wanted = one_each("AdaptiveAvgPool", "sizes", self.sizes, len(sizes))
        return joined_shape(wanted, channels, self.layout)

    def apply(self, params: Params, x: Array) -> Array:
        """Compute the layer on a batch."""
        return adaptive_avg_pool(x, self.sizes, layout=self.layout)


class AdaptiveMaxPool(Struct, _WithoutParameters, frozen=True):
    """Maxima over windows that give the result its sizes: see `graphdl.nn.adaptive_max_pool`.

    >>> import numpy as np
    >>> AdaptiveMaxPool((6, 7)).apply({}, np.zeros((5, 13, 13, 3))).shape
    (5, 6, 7, 3)
    """

    sizes: Ints
    layout: str = "channels_last"
    name: str | None = None

    def output_shape(self, input_shape: Shape) -> Shape:
        """The shape of one output example."""
        sizes, channels = split_shape("AdaptiveMaxPool", input_shape, self.layout)
        wanted = one_each("AdaptiveMaxPool", "sizes", self.sizes, len(sizes))
        return joined_shape(wanted, channels, self.layout)

    def apply(self, params: Params, x: Array) -> Array:
        """Compute the layer on a batch."""
        return adaptive_max_pool(x, self.sizes, layout=self.layout)


class GlobalAvgPool(Struct, _WithoutParameters, frozen=True):
    """The mean of each channel over all spatial axes.

    >>> import numpy as np
    >>> GlobalAvgPool().apply({}, np.zeros((5, 7, 7, 3))).shape
    (5, 3)
    """

    layout: str = "channels_last"
    name: str | None = None

    def output_shape(self, input_shape: Shape) -> Shape:
        """The number of channels."""
        return (split_shape("GlobalAvgPool", input_shape, self.layout)[1],)

    def apply(self, params: Params, x: Array) -> Array:
        """Compute the layer on a batch."""
        return global_avg_pool(x, layout=self.layout)


class GlobalMaxPool(Struct, _WithoutParameters, frozen=True):
    """The largest element of each channel over all spatial axes.

    >>> import numpy as np
    >>> GlobalMaxPool().apply({}, np.zeros((5, 7, 7, 3))).shape
    (5, 3)
    """

    layout: str = "channels_last"
    name: str | None = None

    def output_shape(self, input_shape: Shape) -> Shape:
        """The number of channels."""
        return (split_shape("GlobalMaxPool", input_shape, self.layout)[1],)

    def apply(self, params: Params, x: Array) -> Array:
        """Compute the layer on a batch."""
        return global_max_pool(x, layout=self.layout)


class LocalResponseNorm(Struct, _WithoutParameters, frozen=True):
    """Normalisation by the neighbours among the channels: see `graphdl.nn.local_response_norm`.

    >>> import numpy as np
    >>> LocalResponseNorm(5).apply({}, np.zeros((5, 7, 7, 16))).shape
    (5, 7, 7, 16)
    """

    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 2.0
    layout: str = "channels_last"
    name: str | None = None

    def output_shape(self, input_shape: Shape) -> Shape:
        """The input's shape."""
        return input_shape

    def apply(self, params: Params, x: Array) -> Array:
        """Compute the layer on a batch."""
        return local_response_norm(
            x, self.size, alpha=self.alpha, beta=self.beta, k=self.k, layout=self.layout
        )


class Resize(Struct, _WithoutParameters, frozen=True):
    """The input with other spatial sizes: see `graphdl.nn.resize`.

    >>> import numpy as np
    >>> Resize((20, 30)).apply({}, np.zeros((5, 7, 7, 3))).shape
    (5, 20, 30, 3)
    """

    sizes: Ints
    method: str = "linear"
    align_corners: bool = False
    layout: str = "channels_last"
    name: str | None = None

    def output_shape(self, input_shape: Shape) -> Shape:
        """The shape of one output example."""
        sizes, channels = split_shape("Resize", input_shape, self.layout)
        wanted = one_each("Resize", "sizes", self.sizes, len(sizes))
        return joined_shape(wanted, channels, self.layout)

    def apply(self, params: Params, x: Array) -> Array:
        """Compute the layer on a batch."""
        return resize(
            x, self.sizes, self.method, align_corners=self.align_corners, layout=self.layout
        )


class Upsample(Struct, _WithoutParameters, frozen=True):
    """The input `times` as large along each spatial axis: see `graphdl.nn.resize`.

    >>> import numpy as np
    >>> Upsample(2).apply({}, np.zeros((5, 7, 7, 3))).shape
    (5, 14, 14, 3)
    """

    times: Ints = 2
    method: str = "nearest"
    layout: str = "channels_last"
    name: str | None = None

    def output_shape(self, input_shape: Shape) -> Shape:
        """The shape of one output example."""
        sizes, channels = split_shape("Upsample", input_shape, self.layout)
        factors = one_each("Upsample", "times", self.times, len(sizes))
        larger = tuple(size * times for size, times in zip(sizes, factors, strict=True))
        return joined_shape(larger, channels, self.layout)

    def apply(self, params: Params, x: Array) -> Array:
        """Compute the layer on a batch."""
        sizes, _ = split_shape("Upsample", self.output_shape(tuple(x.shape[1:])), self.layout)
        return resize(x, sizes, self.method, layout=self.layout)
