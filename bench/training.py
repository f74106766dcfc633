"""A training step of any loss in each library: value, gradients and an update by plain descent.

Parameters are fed back from step to step and given away where the library can reuse them. What is
compared is the loss of each of the first steps and the parameters after them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from bench.cases import Array, Prepared
from bench.functions import Builder, Definition, Function
from bench.peers import library

STEPS = 2

#: Of the loss and the gradients at `parameters`, then the data, all float64.
ByHand = Callable[..., Sequence[Array]]


def expected(
    by_hand: ByHand, rate: float, parameters: int, inputs: Mapping[str, Array]
) -> list[Array]:
    """The losses and the parameters, which are the first of the inputs, after the first steps."""
    arrays = [array.astype(np.float64) for array in inputs.values()]
    state, data = arrays[:parameters], arrays[parameters:]
    losses = []
    for _ in range(STEPS):
        loss, *gradients = by_hand(*state, *data)
        losses.append(loss)
        state = [p - rate * g for p, g in zip(state, gradients, strict=True)]
    return [np.asarray(losses), *state]


def trainers(loss: Function, rate: float, parameters: int) -> dict[str, Builder]:
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
        name: partial(make, definition, rate, parameters)
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
    definition: Definition, rate: float, parameters: int, inputs: Mapping[str, Array]
) -> Prepared:
    import graphdl as gd

    def update(state: Any, data: Any) -> Any:
        value, gradients = gd.value_and_grad(lambda state: definition(np, *state, *data))(state)
        return value, [p - rate * g for p, g in zip(state, gradients, strict=True)]

    compiled = gd.compile(update, donate=(0,))
    state, data = split(inputs, parameters)

    def step() -> Any:
        nonlocal state
        value, state = compiled(state, data)
        return value

    return prepared(step, lambda: state)


def with_jax(
    definition: Definition, rate: float, parameters: int, inputs: Mapping[str, Array]
) -> Prepared:
    jax = library("jax")

    def update(state: Any, data: Any) -> Any:
        value, gradients = jax.value_and_grad(lambda state: definition(jax, *state, *data))(state)
        return value, [p - rate * g for p, g in zip(state, gradients, strict=True)]

    compiled = jax.jit(update, donate_argnums=0)
    state, data = ([jax.numpy.array(a) for a in part] for part in split(inputs, parameters))

    def step() -> Any:
        nonlocal state
        value, state = jax.block_until_ready(compiled(state, data))
        return value

    return prepared(step, lambda: state)


def with_torch(
    definition: Definition, rate: float, parameters: int, inputs: Mapping[str, Array]
) -> Prepared:
    torch = library("torch")

    leaves, data = ([torch.from_numpy(a) for a in part] for part in split(inputs, parameters))
    optimiser = torch.optim.SGD([leaf.requires_grad_() for leaf in leaves], lr=rate)

    def step() -> Any:
        optimiser.zero_grad()
        value = definition(torch, *leaves, *data)
        value.backward()
        optimiser.step()
        return value.detach()

    return prepared(step, lambda: [leaf.detach().numpy() for leaf in leaves])


def with_torch_compile(
    definition: Definition, rate: float, parameters: int, inputs: Mapping[str, Array]
) -> Prepared:
    """Forward, backward and update as one graph."""
    torch = library("torch")

    torch._dynamo.reset()
    state, data = ([torch.from_numpy(a) for a in part] for part in split(inputs, parameters))

    def update(state: Any, data: Any) -> Any:
        def loss(state: Any) -> Any:
            return definition(torch, *state, *data)

        gradients, value = torch.func.grad_and_value(loss)(state)
        for p, g in zip(state, gradients, strict=True):
            p.sub_(g, alpha=rate)
        return value

    compiled = torch.compile(update, dynamic=False)
    return prepared(lambda: compiled(state, data), lambda: [p.numpy() for p in state])


def with_pytensor(
    definition: Definition, rate: float, parameters: int, inputs: Mapping[str, Array]
) -> Prepared:
    pytensor = library("pytensor")
    pt = library("pytensor.tensor")

    pytensor.config.floatX = "float32"
    state, data = split(inputs, parameters)
    shared = [pytensor.shared(p, borrow=True, shape=p.shape) for p in state]
    symbols = [pt.tensor(dtype=str(a.dtype), shape=a.shape) for a in data]
    value = definition(pt, *shared, *symbols)
    gradients = pytensor.grad(value, shared)
    step = pytensor.function(
        [pytensor.In(symbol, borrow=True) for symbol in symbols],
        pytensor.Out(value, borrow=True),
        updates=[(p, p - np.float32(rate) * g) for p, g in zip(shared, gradients, strict=True)],
        mode="NUMBA",
        trust_input=True,
    )
    return prepared(lambda: step(*data), lambda: [p.get_value() for p in shared])


def with_autograd(
    definition: Definition, rate: float, parameters: int, inputs: Mapping[str, Array]
) -> Prepared:
    autograd = library("autograd")
    anp = library("autograd.numpy")

    state, data = split(inputs, parameters)
    gradient = autograd.value_and_grad(lambda state: definition(anp, *state, *data))

    def step() -> Any:
        value, gradients = gradient(state)
        for p, g in zip(state, gradients, strict=True):
            p -= np.float32(rate) * g
        return value

    return prepared(step, lambda: state)
