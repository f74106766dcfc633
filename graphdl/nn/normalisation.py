"""Layers that shift and scale features to mean 0 and variance 1."""

import numpy as np
from msgspec import Struct
from numpy.typing import DTypeLike

from graphdl.errors import ShapeError
from graphdl.nn.layer import Array, Params, Rng, Shape, feature_count, require_features
from graphdl.numpy_functions.spatial import check_layout


def _beside(parameter: Array, x: Array, layout: str) -> Array:
    """A parameter of shape (features,) as it broadcasts with a batch."""
    if layout == "channels_last":
        return parameter
    return np.reshape(parameter, (parameter.shape[0], *(1,) * (x.ndim - 2)))


class LayerNorm(Struct, frozen=True):
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
        features = feature_count("LayerNorm", input_shape)
        return {"scale": np.ones(features, dtype), "offset": np.zeros(features, dtype)}

    def output_shape(self, input_shape: Shape) -> Shape:
        """The input's shape."""
        return input_shape

    def apply(self, params: Params, x: Array) -> Array:
        """Compute the layer on (..., features)."""
        require_features("LayerNorm", params["scale"].shape[0], x)
        centred = x - np.mean(x, axis=-1, keepdims=True)
        variance = np.mean(centred * centred, axis=-1, keepdims=True)
        return centred / np.sqrt(variance + self.epsilon) * params["scale"] + params["offset"]


class BatchNorm(Struct, frozen=True):
    """Normalise each feature by its mean and variance over a batch, then scale and shift it.

    `(x - mean) / sqrt(variance + epsilon) * scale + offset`, with statistics over all axes but
    that of the features: the last one, or the one after the batch where `layout` is
    "channels_first". See Ioffe and Szegedy, "Batch Normalization", arXiv:1502.03167.

    Parameters of shape (features,): `scale` (ones) and `offset` (zeros), which are learned, and
    `mean` (zeros) and `variance` (ones), which no gradient changes: `train` normalises by the
    statistics of its batch and returns parameters in which those have moved towards these, `mean *
    momentum + batch mean * (1 - momentum)`; `apply` normalises by `mean` and `variance`. Variances
    are divided by the number of elements, not by one less, and the defaults are those of Keras.
    ValueError if momentum is not in [0, 1], or if there is no such layout.

    >>> import numpy as np, graphdl as gd
    >>> layer = gd.nn.BatchNorm(momentum=0.5, epsilon=0.0)
    >>> params = layer.init(0, (1,), dtype=np.float64)
    >>> y, params = layer.train(params, np.array([[1.0], [3.0]]))
    >>> y[:, 0], params["mean"], params["variance"]
    (array([-1.,  1.]), array([1.]), array([1.]))
    >>> layer.apply(params, np.array([[5.0]]))
    array([[4.]])

    In a step of training the new parameters go beside the loss:

    >>> model = gd.nn.Sequential([gd.nn.Dense(3), layer])
    >>> def loss(params, x):
    ...     y, params = model.train(params, x)
    ...     return np.sum(y**3), params
    >>> params, x = model.init(0, (2,), dtype=np.float64), np.array([[1.0, 2.0], [0.0, 4.0]])
    >>> (value, params), gradient = gd.value_and_grad(loss, has_aux=True)(params, x)
    >>> gradient["batchnorm"]["mean"]
    array([0., 0., 0.])
    """

    momentum: float = 0.99
    epsilon: float = 1e-3
    layout: str = "channels_last"
    name: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.momentum <= 1:
            raise ValueError(f"BatchNorm needs a momentum in [0, 1], got {self.momentum}")
        check_layout("BatchNorm", self.layout)

    def init(self, rng: Rng, input_shape: Shape, dtype: DTypeLike = np.float32) -> Params:
        """Make the four arrays for inputs of this shape (without the batch)."""
        features = feature_count("BatchNorm", input_shape, self.layout)
        ones, zeros = np.ones(features, dtype), np.zeros(features, dtype)
        return {"scale": ones, "offset": zeros, "mean": zeros.copy(), "variance": ones.copy()}

    def output_shape(self, input_shape: Shape) -> Shape:
        """The input's shape."""
        return input_shape

    def apply(self, params: Params, x: Array) -> Array:
        """Compute the layer on a batch by the statistics in `params`."""
        require_features("BatchNorm", params["scale"].shape[0], x, self.layout)
        centred = x - _beside(params["mean"], x, self.layout)
        return self._scaled(params, centred, params["variance"])

    def train(self, params: Params, x: Array) -> tuple[Array, Params]:
        """Compute the layer on a batch by the statistics of `x`.

        Returns the result, and the parameters with new `mean` and `variance`. ShapeError if there
        is nothing to take statistics of.
        """
        require_features("BatchNorm", params["scale"].shape[0], x, self.layout)
        if x.ndim < 2 or x.size == 0:
            raise ShapeError(f"BatchNorm.train needs a batch of examples, got shape {x.shape}")
        counted = x.ndim - 1 if self.layout == "channels_last" else 1
        axes = tuple(axis for axis in range(x.ndim) if axis != counted)
        mean = np.mean(x, axis=axes)
        centred = x - _beside(mean, x, self.layout)
        variance = np.mean(centred * centred, axis=axes)
        after = {
            **params,
            "mean": self._moved(params["mean"], mean),
            "variance": self._moved(params["variance"], variance),
        }
        return self._scaled(params, centred, variance), after

    def _scaled(self, params: Params, centred: Array, variance: Array) -> Array:
        factor = params["scale"] / np.sqrt(variance + self.epsilon)
        factor, offset = (
            _beside(part, centred, self.layout) for part in (factor, params["offset"])
        )
        return centred * factor + offset

    def _moved(self, old: Array, new: Array) -> Array:
        return old * self.momentum + new * (1 - self.momentum)


class GroupNorm(Struct, frozen=True):
    """Normalise groups of features of each example, then scale and shift each feature.

    `(x - mean) / sqrt(variance + epsilon) * scale + offset`, with statistics of one example over a
    group of `features / groups` features that lie side by side, and over all axes of sizes: see Wu
    and He, "Group Normalization", arXiv:1803.08494. One group is layer normalisation of whole
    examples; as many groups as features is instance normalisation, see Ulyanov, Vedaldi and
    Lempitsky, arXiv:1607.08022. Nothing depends on the rest of a batch.

    Parameters of shape (features,): `scale` (ones) and `offset` (zeros). The features are the last
    axis, or the one after the batch where `layout` is "channels_first". ValueError if `groups` is
    not positive, or if there is no such layout; ShapeError if the features do not fall into so many
    groups.

    >>> import numpy as np
    >>> layer = GroupNorm(2, epsilon=0.0)
    >>> layer.apply(layer.init(0, (4,)), np.array([[1.0, 3.0, 10.0, 30.0]]))
    array([[-1.,  1., -1.,  1.]])
    """

    groups: int = 32
    epsilon: float = 1e-5
    layout: str = "channels_last"
    name: str | None = None

    def __post_init__(self) -> None:
        if self.groups < 1:
            raise ValueError(f"GroupNorm needs at least one group, got {self.groups}")
        check_layout("GroupNorm", self.layout)

    def init(self, rng: Rng, input_shape: Shape, dtype: DTypeLike = np.float32) -> Params:
        """Make `scale` and `offset` for inputs of this shape (without the batch)."""
        features = feature_count("GroupNorm", input_shape, self.layout)
        if features % self.groups:
            raise ShapeError(
                f"GroupNorm: {features} features do not fall into {self.groups} equal groups; "
                f"give groups= a number that divides them"
            )
        return {"scale": np.ones(features, dtype), "offset": np.zeros(features, dtype)}

    def output_shape(self, input_shape: Shape) -> Shape:
        """The input's shape."""
        return input_shape

    def apply(self, params: Params, x: Array) -> Array:
        """Compute the layer on a batch."""
        features = params["scale"].shape[0]
        require_features("GroupNorm", features, x, self.layout)
        if x.ndim < 2:
            raise ShapeError(f"GroupNorm needs a batch of examples, got shape {x.shape}")
        each = features // self.groups
        last = self.layout == "channels_last"
        sizes = x.shape[1:-1] if last else x.shape[2:]
        inner = (*sizes, self.groups, each) if last else (self.groups, each, *sizes)
        apart = np.reshape(x, (x.shape[0], *inner))
        group = len(sizes) + 1 if last else 1
        axes = tuple(axis for axis in range(1, apart.ndim) if axis != group)
        centred = apart - np.mean(apart, axis=axes, keepdims=True)
        variance = np.mean(centred * centred, axis=axes, keepdims=True)
        normal = np.reshape(centred / np.sqrt(variance + self.epsilon), x.shape)
        scale, offset = (_beside(params[name], x, self.layout) for name in ("scale", "offset"))
        return normal * scale + offset
