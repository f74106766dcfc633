"""Layers of features, the last axis: dense, activation, embedding, flattening."""

import math

import numpy as np
from msgspec import Struct
from numpy.typing import DTypeLike

from graphdl.nn.layer import (
    ActivationLike,
    Array,
    Initializer,
    Params,
    Rng,
    Shape,
    activation_of,
    feature_count,
    initializer_of,
    require_count,
    require_features,
    shape_of_example,
)


class Dense(Struct, frozen=True):
    """A fully connected layer: `activation(x @ kernel + bias)`.

    Args:
        units: features of the output.
        activation: a name of `ACTIVATIONS`, a function, or None for none.
        use_bias: whether `bias` is added.
        kernel_initializer: a name of `INITIALIZERS`, or a function `(rng, shape) -> array`.
        name: the key of the parameters in a `Sequential`.

    Parameters: `kernel` of shape (features, units), `bias` of shape (units,), which starts at zero.

    >>> import numpy as np
    >>> layer = Dense(3, activation="relu")
    >>> params = layer.init(0, (2,), dtype=np.float64)
    >>> layer.apply(params, np.ones((5, 2))).shape
    (5, 3)
    """

    units: int
    activation: ActivationLike = None
    use_bias: bool = True
    kernel_initializer: str | Initializer = "glorot_uniform"
    name: str | None = None

    def __post_init__(self) -> None:
        require_count("Dense", "units", self.units)
        activation_of(self.activation)
        initializer_of(self.kernel_initializer)

    def init(self, rng: Rng, input_shape: Shape, dtype: DTypeLike = np.float32) -> Params:
        """Make `kernel` and `bias` for inputs of this shape (without the batch)."""
        features = feature_count("Dense", shape_of_example("Dense", input_shape))
        make = initializer_of(self.kernel_initializer)
        kernel = make(np.random.default_rng(rng), (features, self.units)).astype(dtype)
        return {"kernel": kernel} | ({"bias": np.zeros(self.units, dtype)} if self.use_bias else {})

    def output_shape(self, input_shape: Shape) -> Shape:
        """The input's shape with `units` features."""
        feature_count("Dense", input_shape)
        return (*input_shape[:-1], self.units)

    def apply(self, params: Params, x: Array) -> Array:
        """Compute the layer; `x` has shape (..., features), the result (..., units)."""
        require_features("Dense", params["kernel"].shape[0], x)
        y = x @ params["kernel"]
        if self.use_bias:
            y = y + params["bias"]
        return activation_of(self.activation)(y)


class Activation(Struct, frozen=True):
    """A function between two layers, without parameters.

    >>> import numpy as np
    >>> Activation("relu").apply({}, np.array([-1.0, 2.0]))
    array([0., 2.])
    """

    function: ActivationLike
    name: str | None = None

    def __post_init__(self) -> None:
        activation_of(self.function)

    def init(self, rng: Rng, input_shape: Shape, dtype: DTypeLike = np.float32) -> Params:
        """No parameters."""
        return {}

    def output_shape(self, input_shape: Shape) -> Shape:
        """The input's shape."""
        return input_shape

    def apply(self, params: Params, x: Array) -> Array:
        """Compute the function."""
        return activation_of(self.function)(x)


class Flatten(Struct, frozen=True):
    """Join all axes but the first (the batch) into one.

    >>> import numpy as np
    >>> Flatten().apply({}, np.zeros((5, 8, 8))).shape
    (5, 64)
    """

    name: str | None = None

    def init(self, rng: Rng, input_shape: Shape, dtype: DTypeLike = np.float32) -> Params:
        """No parameters."""
        return {}

    def output_shape(self, input_shape: Shape) -> Shape:
        """One axis with as many features as an example has elements."""
        return (math.prod(input_shape),)

    def apply(self, params: Params, x: Array) -> Array:
        """Reshape (batch, ...) into (batch, features)."""
        return x.reshape((x.shape[0], math.prod(x.shape[1:])))


class Embedding(Struct, frozen=True):
    """A table of vectors, one for each integer below `count`.

    `table` has shape (count, units) and starts uniform in [-0.05, 0.05], as in Keras.

    >>> import numpy as np
    >>> layer = Embedding(count=100, units=4)
    >>> layer.apply(layer.init(0, (7,)), np.zeros((2, 7), np.int64)).shape
    (2, 7, 4)
    """

    count: int
    units: int
    name: str | None = None

    def __post_init__(self) -> None:
        require_count("Embedding", "count", self.count)
        require_count("Embedding", "units", self.units)

    def init(self, rng: Rng, input_shape: Shape, dtype: DTypeLike = np.float32) -> Params:
        """Make `table`, whatever the input's shape."""
        table = np.random.default_rng(rng).uniform(-0.05, 0.05, (self.count, self.units))
        return {"table": table.astype(dtype)}

    def output_shape(self, input_shape: Shape) -> Shape:
        """The input's shape with one more axis of `units`."""
        return (*input_shape, self.units)

    def apply(self, params: Params, x: Array) -> Array:
        """Look up integers of any shape."""
        return params["table"][x]
