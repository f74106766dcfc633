"""What a layer is, and what layers share: activations and initial values."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from graphdl.errors import ShapeError
from graphdl.numpy_functions import (
    gelu,
    log_softmax,
    relu,
    sigmoid,
    silu,
    softmax,
    softplus,
)

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


def activation_of(activation: ActivationLike) -> Callable[[Array], Array]:
    if activation is None:
        return _linear
    if callable(activation):
        return activation
    found: Callable[[Array], Array] = lookup("activation", activation, ACTIVATIONS)
    return found


def lookup(kind: str, name: str, table: Mapping[str, Any]) -> Any:
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


def initializer_of(initializer: str | Initializer) -> Initializer:
    if callable(initializer):
        return initializer
    found: Initializer = lookup("initializer", initializer, INITIALIZERS)
    return found


def require_count(layer: str, what: str, value: Any) -> None:
    """Refuse what is no whole number above 0."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        raise TypeError(f"{layer} needs a whole number, got {what}={value!r:.60}")
    if value < 1:
        unit = {"units": "unit", "filters": "filter"}.get(what, what)
        raise ValueError(f"{layer} needs at least one {unit}, got {what}={value}")


def shape_of_example(layer: str, input_shape: Any) -> Shape:
    """The shape of one example as a tuple of ints."""
    if not isinstance(input_shape, (tuple, list)):
        raise ShapeError(
            f"{layer}.init takes the shape of one example, without the batch: a tuple such as "
            f"(64,), not {input_shape!r:.60}"
        )
    return tuple(input_shape)


def feature_count(layer: str, input_shape: Shape, layout: str = "channels_last") -> int:
    """How many features an example has, of which the last axis or the first counts them."""
    if not input_shape:
        raise ShapeError(f"{layer} needs inputs with at least one axis besides the batch, got ()")
    return input_shape[-1] if layout == "channels_last" else input_shape[0]


def require_features(layer: str, features: int, x: Array, layout: str = "channels_last") -> None:
    """Refuse a batch that has not as many features as parameters were made for."""
    last = layout == "channels_last"
    if x.ndim < (1 if last else 2) or x.shape[-1 if last else 1] != features:
        wanted = f"(..., {features})" if last else f"(batch, {features}, ...)"
        raise ShapeError(
            f"{layer} was initialised for inputs with {features} features, so it takes an array of "
            f"shape {wanted}; got {tuple(x.shape)}"
        )
