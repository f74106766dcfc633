"""Layers: how parameters are made (`init`) and what is computed with them (`apply`).

A layer is an immutable description. It holds no arrays: `init` returns the parameters as a plain
tree of NumPy arrays, `apply` is a pure function of that tree and the input. The same `apply` runs
on NumPy arrays and inside `gd.compile`, `gd.grad` and the other transforms.

>>> import numpy as np
>>> import graphdl as gd
>>> model = gd.nn.Sequential([gd.nn.Dense(128, activation="relu"), gd.nn.Dense(10)])
>>> params = model.init(0, (64,))
>>> {name: kernel["kernel"].shape for name, kernel in params.items()}
{'dense': (64, 128), 'dense_1': (128, 10)}
>>> model.apply(params, np.zeros((32, 64), np.float32)).shape
(32, 10)
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from graphdl.errors import ShapeError
from graphdl.numpy_functions import (
    gelu,
    log_softmax,
    logsumexp,
    one_hot,
    relu,
    sigmoid,
    silu,
    softmax,
    softplus,
)

__all__ = [
    "ACTIVATIONS",
    "INITIALIZERS",
    "Activation",
    "Dense",
    "Embedding",
    "Flatten",
    "Layer",
    "LayerNorm",
    "Sequential",
    "gelu",
    "log_softmax",
    "logsumexp",
    "one_hot",
    "parameter_count",
    "relu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
]

Array: TypeAlias = Any
"""A NumPy array, or the traced value that stands for one."""

Shape: TypeAlias = tuple[int, ...]
Params: TypeAlias = Mapping[str, Any]
Rng: TypeAlias = np.random.Generator | int
ActivationLike: TypeAlias = str | Callable[[Array], Array] | None
Initializer: TypeAlias = Callable[[np.random.Generator, Shape], NDArray[Any]]


class Layer(Protocol):
    """What `Sequential` asks of a layer. Shapes are those of one example, without the batch."""

    @property
    def name(self) -> str | None:
        """The key of this layer's parameters; None lets `Sequential` choose one."""

    def init(self, rng: Rng, input_shape: Shape, dtype: DTypeLike = np.float32) -> Params:
        """Make the parameters for inputs of this shape."""

    def output_shape(self, input_shape: Shape) -> Shape:
        """The shape of one output example."""

    def apply(self, params: Params, x: Array) -> Array:
        """Compute the layer on a batch."""


# Activations


def _linear(x: Array) -> Array:
    return x


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "linear": _linear,
    "relu": relu,
    "gelu": gelu,
    "silu": silu,
    "softplus": softplus,
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "softmax": softmax,
    "log_softmax": log_softmax,
}


def _activation(activation: ActivationLike) -> Callable[[Array], Array]:
    if activation is None:
        return _linear
    if callable(activation):
        return activation
    found: Callable[[Array], Array] = _lookup("activation", activation, ACTIVATIONS)
    return found


def _lookup(kind: str, name: str, table: Mapping[str, Any]) -> Any:
    if name not in table:
        raise ValueError(f"unknown {kind} {name!r}; known are {', '.join(sorted(table))}")
    return table[name]


# Initial values. A kernel's last axis counts its outputs, the one before its inputs; axes further
# to the front are a window that both fans cover (the convention of Keras).


def _fans(shape: Shape) -> tuple[int, int]:
    window = math.prod(shape[:-2])
    return shape[-2] * window, shape[-1] * window


def _glorot_uniform(rng: np.random.Generator, shape: Shape) -> NDArray[Any]:
    limit = math.sqrt(6.0 / max(sum(_fans(shape)), 1))
    return rng.uniform(-limit, limit, shape)


def _glorot_normal(rng: np.random.Generator, shape: Shape) -> NDArray[Any]:
    return rng.normal(0.0, math.sqrt(2.0 / max(sum(_fans(shape)), 1)), shape)


def _he_uniform(rng: np.random.Generator, shape: Shape) -> NDArray[Any]:
    limit = math.sqrt(6.0 / max(_fans(shape)[0], 1))
    return rng.uniform(-limit, limit, shape)


def _he_normal(rng: np.random.Generator, shape: Shape) -> NDArray[Any]:
    return rng.normal(0.0, math.sqrt(2.0 / max(_fans(shape)[0], 1)), shape)


def _zeros(rng: np.random.Generator, shape: Shape) -> NDArray[Any]:
    return np.zeros(shape)


INITIALIZERS: dict[str, Initializer] = {
    # Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
    # networks", AISTATS 2010, equations 12 and 16: variance 2 / (inputs + outputs).
    "glorot_uniform": _glorot_uniform,
    "glorot_normal": _glorot_normal,
    # He, Zhang, Ren and Sun, "Delving Deep into Rectifiers", ICCV 2015, equation 10: variance
    # 2 / inputs, for layers that a ReLU follows.
    "he_uniform": _he_uniform,
    "he_normal": _he_normal,
    "zeros": _zeros,
}


def _initializer(initializer: str | Initializer) -> Initializer:
    if callable(initializer):
        return initializer
    found: Initializer = _lookup("initializer", initializer, INITIALIZERS)
    return found


# Layers


def _feature_count(layer: str, input_shape: Shape) -> int:
    if not input_shape:
        raise ShapeError(f"{layer} needs inputs with at least one axis besides the batch, got ()")
    return input_shape[-1]


def _require_features(layer: str, features: int, x: Array) -> None:
    if x.ndim == 0 or x.shape[-1] != features:
        raise ShapeError(
            f"{layer} was initialised for inputs with {features} features, so it takes an array of "
            f"shape (..., {features}); got {tuple(x.shape)}"
        )


@dataclass(frozen=True)
class Dense:
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
        if self.units < 1:
            raise ValueError(f"Dense needs at least one unit, got units={self.units}")
        _activation(self.activation)
        _initializer(self.kernel_initializer)

    def init(self, rng: Rng, input_shape: Shape, dtype: DTypeLike = np.float32) -> Params:
        """Make `kernel` and `bias` for inputs of this shape (without the batch)."""
        features = _feature_count("Dense", input_shape)
        make = _initializer(self.kernel_initializer)
        kernel = make(np.random.default_rng(rng), (features, self.units)).astype(dtype)
        return {"kernel": kernel} | ({"bias": np.zeros(self.units, dtype)} if self.use_bias else {})

    def output_shape(self, input_shape: Shape) -> Shape:
        """The input's shape with `units` features."""
        _feature_count("Dense", input_shape)
        return (*input_shape[:-1], self.units)

    def apply(self, params: Params, x: Array) -> Array:
        """Compute the layer; `x` has shape (..., features), the result (..., units)."""
        _require_features("Dense", params["kernel"].shape[0], x)
        y = x @ params["kernel"]
        if self.use_bias:
            y = y + params["bias"]
        return _activation(self.activation)(y)


@dataclass(frozen=True)
class Activation:
    """A function between two layers, without parameters.

    >>> import numpy as np
    >>> Activation("relu").apply({}, np.array([-1.0, 2.0]))
    array([0., 2.])
    """

    function: ActivationLike
    name: str | None = None

    def __post_init__(self) -> None:
        _activation(self.function)

    def init(self, rng: Rng, input_shape: Shape, dtype: DTypeLike = np.float32) -> Params:
        """No parameters."""
        return {}

    def output_shape(self, input_shape: Shape) -> Shape:
        """The input's shape."""
        return input_shape

    def apply(self, params: Params, x: Array) -> Array:
        """Compute the function."""
        return _activation(self.function)(x)


@dataclass(frozen=True)
class Flatten:
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


@dataclass(frozen=True)
class LayerNorm:
    """Normalise the last axis to mean 0 and variance 1, then scale and shift it.

    `(x - mean) / sqrt(variance + epsilon) * scale + offset`, see Ba, Kiros and Hinton, "Layer
    Normalization", arXiv:1607.06450. `scale` (ones) and `offset` (zeros) have shape (features,).

    >>> import numpy as np
    >>> layer = LayerNorm(epsilon=0.0)
    >>> layer.apply(layer.init(0, (2,)), np.array([[1.0, 3.0]]))
    array([[-1.,  1.]])
    """

    epsilon: float = 1e-5
    name: str | None = None

    def init(self, rng: Rng, input_shape: Shape, dtype: DTypeLike = np.float32) -> Params:
        """Make `scale` and `offset` for inputs of this shape (without the batch)."""
        features = _feature_count("LayerNorm", input_shape)
        return {"scale": np.ones(features, dtype), "offset": np.zeros(features, dtype)}

    def output_shape(self, input_shape: Shape) -> Shape:
        """The input's shape."""
        return input_shape

    def apply(self, params: Params, x: Array) -> Array:
        """Compute the layer on (..., features)."""
        _require_features("LayerNorm", params["scale"].shape[0], x)
        centred = x - np.mean(x, axis=-1, keepdims=True)
        variance = np.mean(centred * centred, axis=-1, keepdims=True)
        return centred / np.sqrt(variance + self.epsilon) * params["scale"] + params["offset"]


@dataclass(frozen=True)
class Embedding:
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


@dataclass(frozen=True)
class Sequential:
    """Layers one after the other.

    The parameters are a dict from a layer's name to its own parameters; layers without parameters
    have no entry. A layer without a name gets that of its class in lower case, with `_1`, `_2`, ...
    from its second use on, as in Keras. A `Sequential` is itself a layer.

    >>> model = Sequential([Flatten(), Dense(128, activation="relu"), Dense(10)])
    >>> print(model.summary((8, 8)))
    layer     output  parameters
    flatten   (64,)            0
    dense     (128,)       8,320
    dense_1   (10,)        1,290
    total                  9,610
    """

    layers: Sequence[Layer]
    name: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        _names(self.layers)

    @property
    def named_layers(self) -> tuple[tuple[str, Layer], ...]:
        """The layers with the keys of their parameters, in order."""
        return tuple(zip(_names(self.layers), self.layers, strict=True))

    def init(self, rng: Rng, input_shape: Shape, dtype: DTypeLike = np.float32) -> Params:
        """Make the parameters of all layers.

        Args:
            rng: a NumPy generator, or the seed of a new one.
            input_shape: the shape of one example, without the batch.
            dtype: the float type of every parameter.
        """
        generator = np.random.default_rng(rng)
        params = {}
        shape = tuple(input_shape)
        for name, layer in self.named_layers:
            made = layer.init(generator, shape, dtype)
            if made:
                params[name] = made
            shape = layer.output_shape(shape)
        return params

    def output_shape(self, input_shape: Shape) -> Shape:
        """The shape of one output example."""
        shape = tuple(input_shape)
        for layer in self.layers:
            shape = layer.output_shape(shape)
        return shape

    def apply(self, params: Params, x: Array) -> Array:
        """Compute all layers on a batch."""
        for name, layer in self.named_layers:
            x = layer.apply(params.get(name, {}), x)
        return x

    def summary(self, input_shape: Shape) -> str:
        """A table of the layers: name, output shape (without the batch), number of parameters."""
        params = self.init(0, input_shape)
        rows = [("layer", "output", "parameters")]
        shape = tuple(input_shape)
        for name, layer in self.named_layers:
            shape = layer.output_shape(shape)
            rows.append((name, str(shape), f"{parameter_count(params.get(name, {})):,}"))
        rows.append(("total", "", f"{parameter_count(params):,}"))
        names, shapes, counts = (max(map(len, column)) for column in zip(*rows, strict=True))
        return "\n".join(
            f"{name:<{names + 2}} {shape:<{shapes}}  {count:>{counts}}"
            for name, shape, count in rows
        )


def _names(layers: Sequence[Layer]) -> tuple[str, ...]:
    taken = [layer.name for layer in layers if layer.name is not None]
    if len(set(taken)) != len(taken):
        raise ValueError(f"layers of a Sequential need different names, got {taken}")
    names: list[str] = []
    for layer in layers:
        stem = layer.name or type(layer).__name__.lower()
        name, number = stem, 0
        while name in names or (layer.name is None and name in taken):
            number += 1
            name = f"{stem}_{number}"
        names.append(name)
    return tuple(names)


def parameter_count(params: Any) -> int:
    """The number of elements of all arrays in a tree of parameters.

    >>> parameter_count(Dense(10).init(0, (64,)))
    650
    """
    if isinstance(params, Mapping):
        return sum(parameter_count(value) for value in params.values())
    return int(params.size)
