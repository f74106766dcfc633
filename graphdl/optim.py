"""Optimisers over trees of parameters, as pairs of pure functions.

    optimizer = gd.optim.adam(1e-3)
    state = optimizer.init(params)
    params, state = optimizer.update(gradients, state, params)

`params`, `gradients` and what the state holds of them are trees of one structure (dicts, lists,
tuples, ...) with arrays as leaves. `update` returns new trees and changes nothing. It runs on NumPy
arrays and inside `gd.compile`, where it becomes a part of the training step's graph.

A learning rate is a number, or a schedule: a function from the step (0 at the first update, an
integer array) to the rate. Optimisers and the schedules below can be pickled and copied.
Below, g is the gradient, p the parameter, r the rate.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from msgspec import Struct

from graphdl.errors import ShapeError
from graphdl.trees import flatten, names_within, tree_leaves, tree_map

__all__ = [
    "Optimizer",
    "adam",
    "adamw",
    "clip_by_global_norm",
    "cosine_decay",
    "exponential_decay",
    "global_norm",
    "rmsprop",
    "sgd",
]

Array: TypeAlias = Any
Tree: TypeAlias = Any
State: TypeAlias = dict[str, Any]
Schedule: TypeAlias = Callable[[Array], Array]
Rate: TypeAlias = float | Schedule


class Optimizer(NamedTuple):
    """How parameters change.

    Attributes:
        init: `init(params) -> state`.
        update: `update(gradients, state, params) -> (params, state)`.
    """

    init: Callable[[Tree], State]
    update: Callable[[Tree, State, Tree], tuple[Tree, State]]


def sgd(learning_rate: Rate, momentum: float = 0.0, nesterov: bool = False) -> Optimizer:
    """Stochastic gradient descent.

    Without momentum `p - r g`. With momentum u the velocity `v = u v + g` replaces g (Polyak,
    "Some methods of speeding up the convergence of iteration methods", 1964); with `nesterov` it is
    `g + u v` with the new v (Sutskever, Martens, Dahl and Hinton, "On the importance of
    initialization and momentum in deep learning", ICML 2013, in the form that needs the gradient at
    p only).

    >>> import numpy as np
    >>> optimizer = sgd(0.5)
    >>> params = {"w": np.array([1.0, 2.0])}
    >>> params, _ = optimizer.update({"w": np.array([2.0, 2.0])}, optimizer.init(params), params)
    >>> params["w"]
    array([0., 1.])
    """
    _in_unit_interval("sgd", momentum=momentum)
    if nesterov and momentum == 0.0:
        raise ValueError("sgd with nesterov=True needs a momentum above 0")
    return _optimizer(_Sgd(learning_rate, momentum, nesterov))


class _Sgd(Struct, frozen=True):
    rate: Rate
    momentum: float
    nesterov: bool

    def init(self, params: Tree) -> State:
        return _counter() | ({"velocity": _zeros_like(params)} if self.momentum else {})

    def update(self, gradients: Tree, state: State, params: Tree) -> tuple[Tree, State]:
        _same_structure("sgd", gradients, params)
        momentum = self.momentum
        state, direction = state | {"step": state["step"] + 1}, gradients
        if momentum:
            velocity = tree_map(lambda v, g: momentum * v + g, state["velocity"], gradients)
            state, direction = state | {"velocity": velocity}, velocity
        if self.nesterov:
            direction = tree_map(lambda g, v: g + momentum * v, gradients, velocity)
        return _descend(params, direction, self.rate, state), state


def adam(
    learning_rate: Rate = 1e-3, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8
) -> Optimizer:
    """Adam: steps scaled by running means of the gradient and of its square.

    `m = beta1 m + (1 - beta1) g`, `v = beta2 v + (1 - beta2) g**2`, and at step t = 1, 2, ...
    `p - r (m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + epsilon)`: algorithm 1 of Kingma and
    Ba, "Adam: A Method for Stochastic Optimization", arXiv:1412.6980.

    >>> import numpy as np
    >>> optimizer = adam(0.1)
    >>> params = np.array([1.0, 2.0])
    >>> params, _ = optimizer.update(np.array([3.0, -4.0]), optimizer.init(params), params)
    >>> params.round(6)
    array([0.9, 2.1])
    """
    return _adam("adam", learning_rate, beta1, beta2, epsilon, weight_decay=0.0)


def adamw(
    learning_rate: Rate = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.01,
) -> Optimizer:
    """Adam with decoupled weight decay: `r weight_decay p` is subtracted as well.

    Algorithm 2 of Loshchilov and Hutter, "Decoupled Weight Decay Regularization",
    arXiv:1711.05101, with the decay scaled by the rate, as in PyTorch and Keras.

    >>> import numpy as np
    >>> optimizer = adamw(0.1, weight_decay=0.5)
    >>> params = np.array([2.0])
    >>> optimizer.update(np.array([0.0]), optimizer.init(params), params)[0]
    array([1.9])
    """
    return _adam("adamw", learning_rate, beta1, beta2, epsilon, weight_decay)


def _adam(
    name: str, rate: Rate, beta1: float, beta2: float, epsilon: float, weight_decay: float
) -> Optimizer:
    _in_unit_interval(name, beta1=beta1, beta2=beta2)
    _not_negative(name, epsilon=epsilon, weight_decay=weight_decay)
    return _optimizer(_Adam(name, rate, beta1, beta2, epsilon, weight_decay))


class _Adam(Struct, frozen=True):
    name: str
    rate: Rate
    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float

    def init(self, params: Tree) -> State:
        return _counter() | {"mean": _zeros_like(params), "square": _zeros_like(params)}

    def update(self, gradients: Tree, state: State, params: Tree) -> tuple[Tree, State]:
        _same_structure(self.name, gradients, params)
        beta1, beta2, epsilon, decay = self.beta1, self.beta2, self.epsilon, self.weight_decay
        mean = tree_map(lambda m, g: beta1 * m + (1 - beta1) * g, state["mean"], gradients)
        square = tree_map(
            lambda v, g: beta2 * v + (1 - beta2) * (g * g), state["square"], gradients
        )
        state = {"step": state["step"] + 1, "mean": mean, "square": square}
        # In float64, because 1 - 0.999 in float32 is wrong in the fifth digit.
        count = state["step"].astype(np.float64)
        correction1, correction2 = 1.0 - beta1**count, 1.0 - beta2**count

        def direction(p: Array, m: Array, v: Array) -> Array:
            scaled = m / _as(correction1, m) / (np.sqrt(v / _as(correction2, v)) + epsilon)
            return scaled + decay * p if decay else scaled

        return _descend(params, tree_map(direction, params, mean, square), self.rate, state), state


def rmsprop(
    learning_rate: Rate = 1e-3,
    decay: float = 0.9,
    epsilon: float = 1e-7,
    momentum: float = 0.0,
    centered: bool = False,
) -> Optimizer:
    """Steps scaled by a running mean of the squared gradient.

    `v = decay v + (1 - decay) g**2`, then `p - r g / (sqrt(v) + epsilon)`: Hinton, "Neural Networks
    for Machine Learning", lecture 6e, 2012. `centered` subtracts the square of a running mean of g
    from v (Graves, arXiv:1308.0850, equation 40). With momentum u the step is
    `b = u b + g / (sqrt(v) + epsilon)`, as in PyTorch.

    >>> import numpy as np
    >>> optimizer = rmsprop(0.1, decay=0.75)
    >>> params = np.array([1.0])
    >>> optimizer.update(np.array([3.0]), optimizer.init(params), params)[0].round(6)
    array([0.8])
    """
    _in_unit_interval("rmsprop", decay=decay, momentum=momentum)
    _not_negative("rmsprop", epsilon=epsilon)
    return _optimizer(_RmsProp(learning_rate, decay, epsilon, momentum, centered))


class _RmsProp(Struct, frozen=True):
    rate: Rate
    decay: float
    epsilon: float
    momentum: float
    centered: bool

    def init(self, params: Tree) -> State:
        names = ["square"] + ["mean"] * self.centered + ["velocity"] * bool(self.momentum)
        return _counter() | {name: _zeros_like(params) for name in names}

    def update(self, gradients: Tree, state: State, params: Tree) -> tuple[Tree, State]:
        _same_structure("rmsprop", gradients, params)
        decay, epsilon, momentum = self.decay, self.epsilon, self.momentum
        square = tree_map(
            lambda v, g: decay * v + (1 - decay) * (g * g), state["square"], gradients
        )
        state = state | {"step": state["step"] + 1, "square": square}
        spread = square
        if self.centered:
            mean = tree_map(lambda m, g: decay * m + (1 - decay) * g, state["mean"], gradients)
            # Rounding can take the difference below zero, by a few units in the last place.
            spread = tree_map(lambda v, m: np.maximum(v - m * m, 0), square, mean)
            state = state | {"mean": mean}
        direction = tree_map(lambda g, v: g / (np.sqrt(v) + epsilon), gradients, spread)
        if momentum:
            direction = tree_map(lambda b, d: momentum * b + d, state["velocity"], direction)
            state = state | {"velocity": direction}
        return _descend(params, direction, self.rate, state), state


# Schedules


def exponential_decay(initial: float, factor: float, steps: int) -> Schedule:
    """The rate `initial * factor ** (step / steps)`.

    >>> import numpy as np
    >>> float(exponential_decay(0.1, factor=0.5, steps=100)(np.int64(200)))
    0.025
    """
    _positive_steps("exponential_decay", steps)
    return _ExponentialDecay(initial, factor, steps)


class _ExponentialDecay(Struct, frozen=True):
    initial: float
    factor: float
    steps: int

    def __call__(self, step: Array) -> Array:
        return self.initial * self.factor ** (step / self.steps)


def cosine_decay(initial: float, steps: int, warmup: int = 0, final: float = 0.0) -> Schedule:
    """Up to `initial` in `warmup` steps, then down to `final` along half a cosine at `steps`.

    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts",
    arXiv:1608.03983, equation 5, without restarts. From `steps` on the rate stays at `final`.

    >>> import numpy as np
    >>> rate = cosine_decay(0.1, steps=110, warmup=10)
    >>> [round(float(rate(np.int64(step))), 6) for step in (0, 9, 60, 110)]
    [0.01, 0.1, 0.05, 0.0]
    """
    _positive_steps("cosine_decay", steps - warmup)
    return _CosineDecay(initial, steps, warmup, final)


class _CosineDecay(Struct, frozen=True):
    initial: float
    steps: int
    warmup: int
    final: float

    def __call__(self, step: Array) -> Array:
        initial, final, warmup = self.initial, self.final, self.warmup
        progress = np.clip((step - warmup) / (self.steps - warmup), 0.0, 1.0)
        decayed = final + 0.5 * (initial - final) * (1.0 + np.cos(math.pi * progress))
        return np.where(step < warmup, initial * (step + 1) / max(warmup, 1), decayed)


# Gradients


def global_norm(tree: Tree) -> Array:
    """The Euclidean norm of all leaves of a tree taken as one vector.

    >>> import numpy as np
    >>> float(global_norm([np.array([3.0]), np.array([0.0, 4.0])]))
    5.0
    """
    leaves: list[Array] = tree_leaves(tree)
    if not leaves:
        raise ValueError("global_norm needs a tree with at least one array")
    return np.sqrt(sum(np.sum(leaf * leaf) for leaf in leaves))


def clip_by_global_norm(gradients: Tree, limit: float) -> Tree:
    """Scale a tree down so that its global norm is at most `limit`; leave it alone if it is.

    Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks",
    arXiv:1211.5063, algorithm 1.

    >>> import numpy as np
    >>> clip_by_global_norm([np.array([3.0]), np.array([4.0])], 1.0)
    [array([0.6]), array([0.8])]
    """
    if limit <= 0:
        raise ValueError(f"clip_by_global_norm needs a limit above 0, got {limit}")
    # Dividing by the larger of the two never divides by zero.
    scale = limit / np.maximum(global_norm(gradients), limit)
    return tree_map(lambda g: g * _as(scale, g), gradients)


# Pieces


def _optimizer(rule: _Sgd | _Adam | _RmsProp) -> Optimizer:
    """Methods of an object rather than closures: those can be pickled."""
    rate: Any = rule.rate
    if not callable(rate) and (isinstance(rate, (str, bool)) or np.ndim(rate) != 0):
        raise TypeError(f"a learning rate is a number, or a function of the step, not {rate!r:.60}")
    if isinstance(rate, (int, float)) and not rate >= 0:
        raise ValueError(f"a learning rate is at least 0, got {rate}")
    return Optimizer(rule.init, rule.update)


def _counter() -> State:
    return {"step": np.zeros((), np.int64)}


def _zeros_like(params: Tree) -> Tree:
    return tree_map(np.zeros_like, params)


def _as(value: Array, like: Array) -> Array:
    """Cast a rate or correction to a leaf's dtype: a 0-d float64 would widen float32 leaves."""
    return value.astype(like.dtype) if hasattr(value, "astype") else value


def _descend(params: Tree, direction: Tree, rate: Rate, state: State) -> Tree:
    value = rate(state["step"] - 1) if callable(rate) else rate
    return tree_map(lambda p, d: p - _as(value, p) * d, params, direction)


def _same_structure(name: str, gradients: Tree, params: Tree) -> None:
    (wanted, expected), (given, got) = flatten(params), flatten(gradients)
    if expected != got:
        raise ValueError(
            f"{name}.update(gradients, state, params) needs gradients and params of one structure; "
            f"params are {expected}, gradients are {got}"
        )
    for place, p, g in zip(names_within("params", params), wanted, given, strict=True):
        if p.shape != g.shape:
            raise ShapeError(
                f"{name}.update: the gradient by {place} has shape {tuple(g.shape)}, "
                f"the parameter {tuple(p.shape)}"
            )


def _in_unit_interval(name: str, **values: float) -> None:
    for key, value in values.items():
        if not 0.0 <= value < 1.0:
            raise ValueError(f"{name} needs 0 <= {key} < 1, got {value}")


def _not_negative(name: str, **values: float) -> None:
    for key, value in values.items():
        if value < 0.0:
            raise ValueError(f"{name} needs {key} >= 0, got {value}")


def _positive_steps(name: str, steps: int) -> None:
    if steps <= 0:
        raise ValueError(f"{name} needs more than {steps} steps to decay over")
