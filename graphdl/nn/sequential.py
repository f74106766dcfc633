"""Layers one after the other, and how many parameters they have."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from msgspec import Struct
from msgspec.structs import force_setattr
from numpy.typing import DTypeLike

from graphdl.nn.layer import Array, Layer, Params, Rng, Shape, shape_of_example
from graphdl.random import fold_in
from graphdl.scopes import scope


class Sequential(Struct, frozen=True):
    """Layers one after the other.

    The parameters are a dict from a layer's name to its own parameters; layers without parameters
    have no entry. A layer without a name gets that of its class in lower case, with `_1`, `_2`, ...
    from its second use on, as in Keras. A `Sequential` is itself a layer.

    >>> from graphdl.nn import Dense, Flatten
    >>> model = Sequential([Flatten(), Dense(128, activation="relu"), Dense(10)])
    >>> print(model.summary((8, 8)))
    layer     output  parameters
    flatten   (64,)            0
    dense     (128,)       8,320
    dense_1   (10,)        1,290
    total                  9,610
    """

    #: Whether `apply` takes a key, for the layers within that do.
    takes_key: ClassVar[bool] = True

    layers: Sequence[Layer]
    name: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.layers, (list, tuple)):
            raise TypeError(
                f"Sequential takes a list of layers, not {self.layers!r:.60}: write "
                f"Sequential([layer, layer])"
            )
        for i, layer in enumerate(self.layers):
            if isinstance(layer, type) or not hasattr(layer, "apply"):
                raise TypeError(
                    f"layers[{i}] of a Sequential is no layer: {layer!r:.60}. Write Dense(10), not "
                    f"Dense; Activation(f) for a function f"
                )
        if self.name is not None and not isinstance(self.name, str):
            raise TypeError(
                f"the name of a Sequential is a text, not {self.name!r:.60}: write its layers as "
                f"one list, Sequential([layer, layer])"
            )
        force_setattr(self, "layers", tuple(self.layers))
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
        shape = shape_of_example("Sequential", input_shape)
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

    def apply(self, params: Params, x: Array, key: Any = None) -> Array:
        """Compute all layers on a batch.

        Args:
            params: as `init` made them.
            x: the batch.
            key: of random numbers, for layers such as Dropout: uint32[2] in training, None
                otherwise. Each of them gets a key of its own.
        """
        if not isinstance(params, Mapping):
            raise TypeError(
                f"Sequential.apply(params, x) takes the dict that init makes first, not a "
                f"{type(params).__name__}"
            )
        for number, (name, layer) in enumerate(self.named_layers):
            with scope(name):
                x = layer.apply(params.get(name, {}), x, **_key_of(layer, key, number))
        return x

    def train(self, params: Params, x: Array, key: Any = None) -> tuple[Array, Params]:
        """Compute all layers on a batch in training, where layers such as BatchNorm keep
        statistics: the result, and the parameters with new statistics.

        Args as those of `apply`. Layers that make no difference compute what `apply` does.
        """
        after = dict(params)
        for number, (name, layer) in enumerate(self.named_layers):
            own, more = params.get(name, {}), _key_of(layer, key, number)
            with scope(name):
                if not hasattr(layer, "train"):
                    x = layer.apply(own, x, **more)
                    continue
                x, made = layer.train(own, x, **more)
            if name in after:
                after[name] = made
        return x, after

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


def _key_of(layer: Layer, key: Any, number: int) -> dict[str, Any]:
    """The argument with a key of its own, of a layer that takes one."""
    takes = key is not None and getattr(layer, "takes_key", False)
    return {"key": fold_in(key, number)} if takes else {}


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

    >>> from graphdl.nn import Dense
    >>> parameter_count(Dense(10).init(0, (64,)))
    650
    """
    if isinstance(params, Mapping):
        return sum(parameter_count(value) for value in params.values())
    return int(params.size)
