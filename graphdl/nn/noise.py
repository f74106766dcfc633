"""Layers that draw random numbers while a network is trained, by a key that `apply` is given."""

from typing import Any, ClassVar

import numpy as np
from msgspec import Struct
from numpy.typing import DTypeLike

from graphdl.nn.layer import Array, Params, Rng, Shape
from graphdl.random import bernoulli, normal


class _Noise(Struct, frozen=True):
    """Without parameters, of any shape."""

    #: Whether `apply` takes a key: `Sequential` gives each such layer one of its own.
    takes_key: ClassVar[bool] = True

    def init(self, rng: Rng, input_shape: Shape, dtype: DTypeLike = np.float32) -> Params:
        """No parameters."""
        return {}

    def output_shape(self, input_shape: Shape) -> Shape:
        """The input's shape."""
        return input_shape


class Dropout(_Noise, frozen=True):
    """Elements become 0 with probability `rate`, and 1 / (1 - rate) times themselves otherwise.

    That is with a key, in training; without one, the input is returned as it is. N. Srivastava, G.
    Hinton, A. Krizhevsky, I. Sutskever and R. Salakhutdinov, "Dropout: a simple way to prevent
    neural networks from overfitting", JMLR 15, 2014. ValueError if the rate is not in [0, 1).

    >>> import numpy as np, graphdl as gd
    >>> layer = gd.nn.Dropout(0.5)
    >>> layer.apply({}, np.ones(6), key=gd.random.key(0))
    array([0., 0., 2., 2., 2., 2.])
    >>> layer.apply({}, np.ones(6))
    array([1., 1., 1., 1., 1., 1.])
    """

    rate: float
    name: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise ValueError(f"Dropout needs a rate in [0, 1), got {self.rate}")

    def apply(self, params: Params, x: Array, key: Any = None) -> Array:
        """Compute the layer; `key` is uint32[2], or None where nothing is to be dropped."""
        if key is None or self.rate == 0:
            return x
        stay = x.dtype.type(1 - self.rate)
        return np.where(bernoulli(key, stay, x.shape), x / stay, x.dtype.type(0))


class GaussianNoise(_Noise, frozen=True):
    """Adds normal noise of standard deviation `scale` in training, that is where a key is given.

    >>> import numpy as np, graphdl as gd
    >>> gd.nn.GaussianNoise(0.1).apply({}, np.zeros(3), key=gd.random.key(0))
    array([ 0.11775912,  0.02675622, -0.03528749])
    """

    scale: float
    name: str | None = None

    def __post_init__(self) -> None:
        if not self.scale >= 0:
            raise ValueError(f"GaussianNoise needs a scale of 0 or more, got {self.scale}")

    def apply(self, params: Params, x: Array, key: Any = None) -> Array:
        """Compute the layer; `key` is uint32[2], or None for no noise."""
        if key is None:
            return x
        return x + x.dtype.type(self.scale) * normal(key, x.shape, x.dtype)
