"""A training step of any loss in each library: value, gradients, and an update by a rule.

The rule is plain descent, momentum or Adam. Parameters and what the rule keeps of them are fed back
from step to step and given away where the library can reuse them. What is compared is the loss of
each of the first steps and the parameters after them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from bench import placement
from bench.cases import Array, Prepared
from bench.functions import Builder, Definition, Function
from bench.peers import library

STEPS = 2
MOMENTUM, BETA1, BETA2, EPSILON = 0.9, 0.9, 0.999, 1e-8

#: Of the loss and the gradients at `parameters`, then the data, all float64.
ByHand = Callable[..., Sequence[Array]]


@dataclass(frozen=True)
class Rule:
    """How parameters change: "SGD", "momentum" (of MOMENTUM) or "Adam"; with which rate."""

    rate: float
    kind: str = "SGD"

    def start(self, parameters: Sequence[Any], zeros_like: Callable[[Any], Any]) -> list[list[Any]]:
        """What the rule keeps of each parameter, before the first step."""
        kept = {"SGD": 0, "momentum": 1, "Adam": 2}[self.kind]
        return [[zeros_like(p) for p in parameters] for _ in range(kept)]

    def apply(self, np: Any, p: Any, kept: Sequence[Any], g: Any, t: Any) -> tuple[Any, list[Any]]:
        """One parameter after step t = 1, 2, ..., and what is kept of it, in NumPy's names."""
        if self.kind == "SGD":
            return p - self.rate * g, []
        if self.kind == "momentum":
            velocity = MOMENTUM * kept[0] + g
            return p - self.rate * velocity, [velocity]
        mean = BETA1 * kept[0] + (1 - BETA1) * g
        square = BETA2 * kept[1] + (1 - BETA2) * (g * g)
        step = mean / (1 - BETA1**t) / (np.sqrt(square / (1 - BETA2**t)) + EPSILON)
        return p - self.rate * step, [mean, square]

    def apply_all(
        self, np: Any, parameters: Any, kept: Any, gradients: Any, t: Any
    ) -> tuple[list[Any], list[list[Any]]]:
        """All parameters after a step."""
        found = [
            self.apply(np, p, [part[i] for part in kept], g, t)
            for i, (p, g) in enumerate(zip(parameters, gradients, strict=True))
        ]
        return [p for p, _ in found], [[own[k] for _, own in found] for k in range(len(kept))]


def expected(
    by_hand: ByHand, rule: Rule, parameters: int, inputs: Mapping[str, Array]
) -> list[Array]:
    """The losses and the parameters, which are the first of the inputs, after the first steps."""
    arrays = [array.astype(np.float64) for array in inputs.values()]
    state, data = arrays[:parameters], arrays[parameters:]
    losses, kept = [], rule.start(state, np.zeros_like)
    for t in range(1, STEPS + 1):
        loss, *gradients = by_hand(*state, *data)
        losses.append(loss)
        state, kept = rule.apply_all(np, state, kept, gradients, t)
    return [np.asarray(losses), *state]


def trainers(loss: Function, rule: Rule, parameters: int) -> dict[str, Builder]:
    """The builders of all libraries; `loss` takes so many parameters, then the data."""
    makers = {
        "graphdl": (with_graphdl, loss.graphdl or loss.numpy),
        "jax": (with_jax, loss.jax or (lambda jax, *arrays: loss.numpy(jax.numpy, *arrays))),
        "torch": (with_torch, loss.torch),
        "torch-compile": (with_torch_compile, loss.torch if loss.compiles else None),
        "pytensor": (with_pytensor, loss.pytensor),
        "autograd": (with_autograd, loss.numpy if loss.derives else None),
    }
    return {
        name: partial(make, definition, rule, parameters)
        for name, (make, definition) in makers.items()
        if definition is not None
    }


def prepared(step: Callable[[], Any], parameters: Callable[[], Sequence[Any]]) -> Prepared:
    def results() -> list[Any]:
        losses = [float(step()) for _ in range(STEPS)]
        return [np.asarray(losses), *parameters()]

    return Prepared(results, step)


def split(inputs: Mapping[str, Array], parameters: int) -> tuple[list[Array], list[Array]]:
    """Copies of the parameters, and the data."""
    arrays = list(inputs.values())
    return [p.copy() for p in arrays[:parameters]], arrays[parameters:]


def with_graphdl(
    definition: Definition, rule: Rule, parameters: int, inputs: Mapping[str, Array]
) -> Prepared:
    import graphdl as gd

    optimizer = {
        "SGD": lambda: gd.optim.sgd(rule.rate),
        "momentum": lambda: gd.optim.sgd(rule.rate, momentum=MOMENTUM),
        "Adam": lambda: gd.optim.adam(rule.rate, BETA1, BETA2, EPSILON),
    }[rule.kind]()

    def update(state: Any, kept: Any, data: Any) -> Any:
        value, gradients = gd.value_and_grad(lambda state: definition(np, *state, *data))(state)
        return value, *optimizer.update(gradients, kept, state)

    compiled = placement.compiled(update, donate=(0, 1))
    state, data = split(inputs, parameters)
    data = placement.put(data)
    kept = optimizer.init(state)

    def step() -> Any:
        nonlocal state, kept
        value, state, kept = compiled(state, kept, data)
        return value

    made = prepared(step, lambda: state)
    return replace(made, executable=lambda: compiled.lower(state, kept, data))


def with_jax(
    definition: Definition, rule: Rule, parameters: int, inputs: Mapping[str, Array]
) -> Prepared:
    jax = library("jax")

    def update(state: Any, kept: Any, data: Any, t: Any) -> Any:
        value, gradients = jax.value_and_grad(lambda state: definition(jax, *state, *data))(state)
        return value, *rule.apply_all(jax.numpy, state, kept, gradients, t), t + 1

    compiled = jax.jit(update, donate_argnums=(0, 1))
    state, data = ([jax.numpy.array(a) for a in part] for part in split(inputs, parameters))
    kept, t = rule.start(state, jax.numpy.zeros_like), jax.numpy.float32(1)

    def step() -> Any:
        nonlocal state, kept, t
        value, state, kept, t = jax.block_until_ready(compiled(state, kept, data, t))
        return value

    return prepared(step, lambda: state)


def with_torch(
    definition: Definition, rule: Rule, parameters: int, inputs: Mapping[str, Array]
) -> Prepared:
    torch = library("torch")

    leaves, data = ([placement.tensor(a) for a in part] for part in split(inputs, parameters))
    chosen = [leaf.requires_grad_() for leaf in leaves]
    optimiser = {
        "SGD": lambda: torch.optim.SGD(chosen, rule.rate),
        "momentum": lambda: torch.optim.SGD(chosen, rule.rate, MOMENTUM),
        "Adam": lambda: torch.optim.Adam(chosen, rule.rate, (BETA1, BETA2), EPSILON, fused=True),
    }[rule.kind]()

    def step() -> Any:
        optimiser.zero_grad()
        value = definition(torch, *leaves, *data)
        value.backward()
        optimiser.step()
        return value.detach()

    return prepared(step, lambda: leaves)


def with_torch_compile(
    definition: Definition, rule: Rule, parameters: int, inputs: Mapping[str, Array]
) -> Prepared:
    """Forward, backward and update as one graph."""
    torch = library("torch")

    torch._dynamo.reset()
    state, data = ([placement.tensor(a) for a in part] for part in split(inputs, parameters))

    kept, t = rule.start(state, torch.zeros_like), torch.ones((), device=placement.target())

    def update(state: Any, kept: Any, data: Any, t: Any) -> Any:
        def loss(state: Any) -> Any:
            return definition(torch, *state, *data)

        gradients, value = torch.func.grad_and_value(loss)(state)
        new, remembered = rule.apply_all(torch, state, kept, gradients, t)
        for old, found in zip([state, *kept, [t]], [new, *remembered, [t + 1]], strict=True):
            for one, other in zip(old, found, strict=True):
                one.copy_(other)
        return value

    compiled = torch.compile(update, dynamic=False)
    return prepared(lambda: compiled(state, kept, data, t), lambda: state)


def with_pytensor(
    definition: Definition, rule: Rule, parameters: int, inputs: Mapping[str, Array]
) -> Prepared:
    pytensor = library("pytensor")
    pt = library("pytensor.tensor")

    pytensor.config.floatX = "float32"
    state, data = split(inputs, parameters)
    shared = [pytensor.shared(p, borrow=True, shape=p.shape) for p in state]
    symbols = [pt.tensor(dtype=str(a.dtype), shape=a.shape) for a in data]
    value = definition(pt, *shared, *symbols)
    gradients = pytensor.grad(value, shared)
    kept = rule.start(state, lambda p: pytensor.shared(np.zeros_like(p), shape=p.shape))
    t = pytensor.shared(np.float32(1))
    new, remembered = rule.apply_all(pt, shared, kept, gradients, t)
    step = pytensor.function(
        [pytensor.In(symbol, borrow=True) for symbol in symbols],
        pytensor.Out(value, borrow=True),
        updates=[
            (one, other)
            for old, found in zip([shared, *kept, [t]], [new, *remembered, [t + 1]], strict=True)
            for one, other in zip(old, found, strict=True)
        ],
        mode="NUMBA",
        trust_input=True,
    )
    return prepared(lambda: step(*data), lambda: [p.get_value() for p in shared])


def with_autograd(
    definition: Definition, rule: Rule, parameters: int, inputs: Mapping[str, Array]
) -> Prepared:
    autograd = library("autograd")
    anp = library("autograd.numpy")

    state, data = split(inputs, parameters)
    gradient = autograd.value_and_grad(lambda state: definition(anp, *state, *data))
    kept, t = rule.start(state, np.zeros_like), 0

    def step() -> Any:
        nonlocal state, kept, t
        t += 1
        value, gradients = gradient(state)
        state, kept = rule.apply_all(np, state, kept, gradients, t)
        return value

    return prepared(step, lambda: state)
