"""Convolutional layers."""

from collections.abc import Sequence
from typing import ClassVar, TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import DTypeLike

from graphdl.errors import ShapeError
from graphdl.nn.layer import (
    ActivationLike,
    Array,
    Initializer,
    Params,
    Rng,
    Shape,
    activation_of,
    initializer_of,
    require_count,
)
from graphdl.numpy_functions.convolution import conv, conv_transpose, transposed_sizes
from graphdl.numpy_functions.spatial import check_layout, one_each, places

__all__ = [
    "Conv1D",
    "Conv2D",
    "Conv3D",
    "ConvTranspose1D",
    "ConvTranspose2D",
    "ConvTranspose3D",
    "DepthwiseConv1D",
    "DepthwiseConv2D",
]

Ints: TypeAlias = int | Sequence[int]
Padding: TypeAlias = str | int | Sequence[int | tuple[int, int]]


def split_shape(name: str, input_shape: Shape, layout: str, rank: int = 0) -> tuple[Shape, int]:
    """The spatial sizes and the channels of one example; of `rank` sizes if that is given."""
    check_layout(name, layout)
    if len(input_shape) < 2 or (rank and len(input_shape) != rank + 1):
        sizes = ", ".join(f"size{i}" for i in range(rank)) if rank else "*sizes"
        wanted = f"({sizes}, channels)" if layout == "channels_last" else f"(channels, {sizes})"
        raise ShapeError(f"{name} takes examples of shape {wanted}, got {tuple(input_shape)}")
    if layout == "channels_last":
        return tuple(input_shape[:-1]), input_shape[-1]
    return tuple(input_shape[1:]), input_shape[0]


def joined_shape(sizes: Shape, channels: int, layout: str) -> Shape:
    """The shape of one example."""
    return (*sizes, channels) if layout == "channels_last" else (channels, *sizes)


class _Convolution(Struct, frozen=True):
    """What the convolutional layers have in common."""

    filters: int
    kernel_size: Ints
    strides: Ints = 1
    padding: Padding = "valid"
    dilation: Ints = 1
    groups: int = 1
    activation: ActivationLike = None
    use_bias: bool = True
    kernel_initializer: str | Initializer = "glorot_uniform"
    layout: str = "channels_last"
    name: str | None = None

    rank: ClassVar[int]

    def __post_init__(self) -> None:
        require_count(self._kind, "filters", self.filters)
        for what in ("kernel_size", "strides", "dilation"):
            one_each(self._kind, what, getattr(self, what), self.rank)
        one_each(self._kind, "groups", self.groups, 1)
        check_layout(self._kind, self.layout)
        activation_of(self.activation)
        initializer_of(self.kernel_initializer)

    @property
    def _kind(self) -> str:
        return type(self).__name__

    @property
    def _window(self) -> Shape:
        return one_each(self._kind, "kernel_size", self.kernel_size, self.rank)

    def _kernel_shape(self, channels: int) -> Shape:
        if channels % self.groups or self.filters % self.groups:
            raise ShapeError(
                f"{self._kind}: {channels} channels and {self.filters} filters do not fall into "
                f"groups={self.groups}"
            )
        return (*self._window, channels // self.groups, self.filters)

    def init(self, rng: Rng, input_shape: Shape, dtype: DTypeLike = np.float32) -> Params:
        """Make `kernel` and `bias` for inputs of this shape (without the batch)."""
        _, channels = split_shape(self._kind, input_shape, self.layout, self.rank)
        make = initializer_of(self.kernel_initializer)
        kernel = make(np.random.default_rng(rng), self._kernel_shape(channels)).astype(dtype)
        return {"kernel": kernel} | (
            {"bias": np.zeros(self._units(kernel), dtype)} if self.use_bias else {}
        )

    def _units(self, kernel: Array) -> int:
        return int(kernel.shape[-1])

    def output_shape(self, input_shape: Shape) -> Shape:
        """The shape of one output example."""
        sizes, channels = split_shape(self._kind, input_shape, self.layout, self.rank)
        shape = self._kernel_shape(channels)
        out = places(self._kind, sizes, shape[:-2], self.strides, self.padding, self.dilation)
        return joined_shape(out, shape[-1], self.layout)

    def apply(self, params: Params, x: Array) -> Array:
        """Compute the layer on a batch."""
        split_shape(self._kind, tuple(x.shape[1:]), self.layout, self.rank)
        y = conv(
            x,
            params["kernel"],
            strides=self.strides,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            layout=self.layout,
        )
        return self._finished(params, y)

    def _finished(self, params: Params, y: Array) -> Array:
        if self.use_bias:
            bias = params["bias"]
            last = self.layout == "channels_last"
            y = y + (bias if last else np.reshape(bias, (-1, *(1,) * self.rank)))
        return activation_of(self.activation)(y)


class Conv1D(_Convolution, frozen=True):
    """Convolution of sequences: `activation(conv(x, kernel) + bias)`. See `Conv2D`.

    >>> import numpy as np
    >>> layer = Conv1D(4, kernel_size=3, padding="same")
    >>> layer.apply(layer.init(0, (9, 2)), np.zeros((5, 9, 2), np.float32)).shape
    (5, 9, 4)
    """

    rank: ClassVar[int] = 1


class Conv2D(_Convolution, frozen=True):
    """Convolution of images: `activation(conv(x, kernel) + bias)`.

    Args:
        filters: channels of the output.
        kernel_size, strides, dilation: one number, or one for each spatial axis.
        padding: "same", "valid", a number, or a number or a pair (before, after) for each axis: see
            `graphdl.nn.conv`.
        groups: into how many groups channels and filters fall.
        activation: a name of `ACTIVATIONS`, a function, or None for none.
        use_bias: whether `bias` is added.
        kernel_initializer: a name of `INITIALIZERS`, or a function `(rng, shape) -> array`.
        layout: "channels_last" or "channels_first", of inputs and outputs.
        name: the key of the parameters in a `Sequential`.

    Parameters: `kernel` of shape (*kernel_size, channels / groups, filters) in either layout, and
    `bias` of shape (filters,), which starts at zero.

    >>> import numpy as np
    >>> layer = Conv2D(16, kernel_size=3, strides=2, padding="same", activation="relu")
    >>> layer.apply(layer.init(0, (28, 28, 1)), np.zeros((5, 28, 28, 1), np.float32)).shape
    (5, 14, 14, 16)
    """

    rank: ClassVar[int] = 2


class Conv3D(_Convolution, frozen=True):
    """Convolution of volumes: `activation(conv(x, kernel) + bias)`. See `Conv2D`.

    >>> import numpy as np
    >>> layer = Conv3D(4, kernel_size=3)
    >>> layer.apply(layer.init(0, (5, 6, 7, 2)), np.zeros((1, 5, 6, 7, 2), np.float32)).shape
    (1, 3, 4, 5, 4)
    """

    rank: ClassVar[int] = 3


class _Transposed(_Convolution, frozen=True):
    """What the transposed convolutions have in common."""

    output_padding: Ints = 0

    def _kernel_shape(self, channels: int) -> Shape:
        if channels % self.groups or self.filters % self.groups:
            raise ShapeError(
                f"{self._kind}: {channels} channels and {self.filters} filters do not fall into "
                f"groups={self.groups}"
            )
        return (*self._window, self.filters // self.groups, channels)

    def _units(self, kernel: Array) -> int:
        return self.filters

    def output_shape(self, input_shape: Shape) -> Shape:
        """The shape of one output example."""
        sizes, channels = split_shape(self._kind, input_shape, self.layout, self.rank)
        self._kernel_shape(channels)
        out, _, _, _ = transposed_sizes(
            self._kind, sizes, self._window, self.strides, self.padding, self.dilation,
            self.output_padding,
        )  # fmt: skip
        return joined_shape(out, self.filters, self.layout)

    def apply(self, params: Params, x: Array) -> Array:
        """Compute the layer on a batch."""
        split_shape(self._kind, tuple(x.shape[1:]), self.layout, self.rank)
        y = conv_transpose(
            x,
            params["kernel"],
            strides=self.strides,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            output_padding=self.output_padding,
            layout=self.layout,
        )
        return self._finished(params, y)


class ConvTranspose1D(_Transposed, frozen=True):
    """Transposed convolution of sequences. See `ConvTranspose2D`.

    >>> import numpy as np
    >>> layer = ConvTranspose1D(4, kernel_size=3, strides=2, padding="same")
    >>> layer.apply(layer.init(0, (9, 2)), np.zeros((5, 9, 2), np.float32)).shape
    (5, 18, 4)
    """

    rank: ClassVar[int] = 1


class ConvTranspose2D(_Transposed, frozen=True):
    """Transposed convolution of images, which makes them larger by `strides`.

    `activation(conv_transpose(x, kernel) + bias)`; arguments as for `Conv2D`, and `output_padding`,
    how much larger than the least possible the output is along each axis, see
    `graphdl.nn.conv_transpose`. `kernel` has shape (*kernel_size, filters / groups, channels).

    >>> import numpy as np
    >>> layer = ConvTranspose2D(3, kernel_size=4, strides=2, padding="same")
    >>> layer.apply(layer.init(0, (7, 7, 8)), np.zeros((5, 7, 7, 8), np.float32)).shape
    (5, 14, 14, 3)
    """

    rank: ClassVar[int] = 2


class ConvTranspose3D(_Transposed, frozen=True):
    """Transposed convolution of volumes. See `ConvTranspose2D`.

    >>> import numpy as np
    >>> layer = ConvTranspose3D(3, kernel_size=2, strides=2)
    >>> layer.apply(layer.init(0, (2, 3, 4, 8)), np.zeros((5, 2, 3, 4, 8), np.float32)).shape
    (5, 4, 6, 8, 3)
    """

    rank: ClassVar[int] = 3


class _Depthwise(Struct, frozen=True):
    """What the depthwise convolutions have in common."""

    kernel_size: Ints
    strides: Ints = 1
    padding: Padding = "valid"
    depth_multiplier: int = 1
    dilation: Ints = 1
    activation: ActivationLike = None
    use_bias: bool = True
    kernel_initializer: str | Initializer = "glorot_uniform"
    layout: str = "channels_last"
    name: str | None = None

    rank: ClassVar[int]
    _full: ClassVar[type[_Convolution]]

    def __post_init__(self) -> None:
        one_each(type(self).__name__, "depth_multiplier", self.depth_multiplier, 1)
        self._of(1)

    def _of(self, channels: int) -> _Convolution:
        """The layer for so many channels."""
        return self._full(
            channels * self.depth_multiplier,
            self.kernel_size,
            self.strides,
            self.padding,
            self.dilation,
            channels,
            self.activation,
            self.use_bias,
            self.kernel_initializer,
            self.layout,
        )

    def _channels(self, input_shape: Shape) -> int:
        return split_shape(type(self).__name__, input_shape, self.layout, self.rank)[1]

    def init(self, rng: Rng, input_shape: Shape, dtype: DTypeLike = np.float32) -> Params:
        """Make `kernel` and `bias` for inputs of this shape (without the batch)."""
        return self._of(self._channels(input_shape)).init(rng, input_shape, dtype)

    def output_shape(self, input_shape: Shape) -> Shape:
        """The shape of one output example."""
        return self._of(self._channels(input_shape)).output_shape(input_shape)

    def apply(self, params: Params, x: Array) -> Array:
        """Compute the layer on a batch."""
        return self._of(self._channels(tuple(x.shape[1:]))).apply(params, x)


class DepthwiseConv1D(_Depthwise, frozen=True):
    """Convolution of sequences, each channel by itself. See `DepthwiseConv2D`.

    >>> import numpy as np
    >>> layer = DepthwiseConv1D(kernel_size=3)
    >>> layer.apply(layer.init(0, (9, 2)), np.zeros((5, 9, 2), np.float32)).shape
    (5, 7, 2)
    """

    rank: ClassVar[int] = 1
    _full: ClassVar[type[_Convolution]] = Conv1D


class DepthwiseConv2D(_Depthwise, frozen=True):
    """Convolution of images, each channel by itself.

    Each channel becomes `depth_multiplier` channels of the output; the other arguments are those of
    `Conv2D`. `kernel` has shape (*kernel_size, 1, channels * depth_multiplier).

    >>> import numpy as np
    >>> layer = DepthwiseConv2D(kernel_size=3, padding="same", depth_multiplier=2)
    >>> layer.apply(layer.init(0, (28, 28, 4)), np.zeros((5, 28, 28, 4), np.float32)).shape
    (5, 28, 28, 8)
    """

    rank: ClassVar[int] = 2
    _full: ClassVar[type[_Convolution]] = Conv2D
