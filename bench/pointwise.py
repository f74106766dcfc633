"""pointwise: value and both gradients of sum(tanh(a x + 0.5) sigmoid(1.5 x) + exp(-x x)).

Four million float32 elements: what matters is how often the arrays travel through memory. The
floor moves the least that any answer moves: both inputs are read, both gradients are written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bench import floors, harness, report
from bench.cases import Array, Case, Prepared, Target
from bench.peers import library

SIZES = {"full": 4_000_000, "tiny": 1_000}


def inputs(count: int) -> dict[str, Array]:
    """`a` and `x`, each (count,) float32."""
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(count, np.float32) for name in ("a", "x")}


def expected(inputs: Mapping[str, Array]) -> list[Array]:
    """The value and the gradients by a and by x, by the chain rule on paper, in float64."""
    a, x = inputs["a"].astype(np.float64), inputs["x"].astype(np.float64)
    t, s, e = np.tanh(a * x + 0.5), 1 / (1 + np.exp(-1.5 * x)), np.exp(-x * x)
    by_t = (1 - t * t) * s
    return [np.asarray(np.sum(t * s + e)), by_t * x, by_t * a + 1.5 * t * s * (1 - s) - 2 * x * e]


def with_graphdl(inputs: Mapping[str, Array]) -> Prepared:
    import graphdl as gd
    from graphdl import nn

    def loss(a: Any, x: Any) -> Any:
        return np.sum(np.tanh(a * x + 0.5) * nn.sigmoid(1.5 * x) + np.exp(-x * x))

    f = gd.compile(gd.value_and_grad(loss, argnums=(0, 1)))
    a, x = inputs["a"], inputs["x"]

    def results() -> list[Any]:
        value, gradients = f(a, x)
        return [value, *gradients]

    return Prepared(results, lambda: f(a, x))


def with_jax(inputs: Mapping[str, Array]) -> Prepared:
    jax = library("jax")
    jnp = library("jax.numpy")

    def loss(a: Any, x: Any) -> Any:
        return jnp.sum(jnp.tanh(a * x + 0.5) * jax.nn.sigmoid(1.5 * x) + jnp.exp(-x * x))

    f = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    a, x = jnp.asarray(inputs["a"]), jnp.asarray(inputs["x"])

    def results() -> list[Any]:
        value, gradients = f(a, x)
        return [value, *gradients]

    return Prepared(results, lambda: jax.block_until_ready(f(a, x)))


def with_torch(inputs: Mapping[str, Array]) -> Prepared:
    torch = library("torch")

    def loss(a: Any, x: Any) -> Any:
        return torch.sum(torch.tanh(a * x + 0.5) * torch.sigmoid(1.5 * x) + torch.exp(-x * x))

    a, x = (torch.from_numpy(inputs[name]).requires_grad_() for name in ("a", "x"))

    def f() -> tuple[Any, ...]:
        value = loss(a, x)
        return (value.detach(), *torch.autograd.grad(value, (a, x)))

    return Prepared(f, f)


def with_torch_compile(inputs: Mapping[str, Array]) -> Prepared:
    torch = library("torch")

    def loss(a: Any, x: Any) -> Any:
        return torch.sum(torch.tanh(a * x + 0.5) * torch.sigmoid(1.5 * x) + torch.exp(-x * x))

    # One graph of value and gradients: Inductor then fuses the backward into the forward pass.
    f = torch.compile(torch.func.grad_and_value(loss, argnums=(0, 1)), dynamic=False)
    a, x = torch.from_numpy(inputs["a"]), torch.from_numpy(inputs["x"])

    def results() -> list[Any]:
        gradients, value = f(a, x)
        return [value, *gradients]

    return Prepared(results, lambda: f(a, x))


def with_pytensor(inputs: Mapping[str, Array]) -> Prepared:
    pytensor = library("pytensor")
    pt = library("pytensor.tensor")

    a, x = pt.fvector("a"), pt.fvector("x")
    half, rate = np.float32(0.5), np.float32(1.5)
    value = pt.sum(pt.tanh(a * x + half) * pt.sigmoid(rate * x) + pt.exp(-x * x))
    f = pytensor.function(
        [pytensor.In(a, borrow=True), pytensor.In(x, borrow=True)],
        [pytensor.Out(out, borrow=True) for out in (value, *pt.grad(value, [a, x]))],
        mode="NUMBA",
        trust_input=True,
    )
    return Prepared(lambda: f(inputs["a"], inputs["x"]), lambda: f(inputs["a"], inputs["x"]))


def with_autograd(inputs: Mapping[str, Array]) -> Prepared:
    autograd = library("autograd")
    anp = library("autograd.numpy")

    def loss(a: Any, x: Any) -> Any:
        sigmoid = 1 / (1 + anp.exp(-1.5 * x))
        return anp.sum(anp.tanh(a * x + 0.5) * sigmoid + anp.exp(-x * x))

    f = autograd.value_and_grad(loss, argnum=(0, 1))

    def results() -> list[Any]:
        value, gradients = f(inputs["a"], inputs["x"])
        return [value, *gradients]

    return Prepared(results, lambda: f(inputs["a"], inputs["x"]))


def floor(inputs: Mapping[str, Array]) -> Prepared:
    """Copy both inputs."""
    return Prepared(lambda: expected(inputs), floors.copying([inputs["a"], inputs["x"]]))


def cases(size: str) -> list[Case]:
    """The one case of this benchmark."""
    count = SIZES[size]
    return [
        Case(
            name=f"value and gradients, {count:,} float32",
            inputs=lambda: inputs(count),
            expected=expected,
            builders={
                "graphdl": with_graphdl,
                "jax": with_jax,
                "torch": with_torch,
                "torch-compile": with_torch_compile,
                "pytensor": with_pytensor,
                "autograd": with_autograd,
                "floor": floor,
            },
            tolerance=1e-4,
            floor_label=floors.COPY,
            targets=(
                Target(times=5, peers=("jax", "torch", "torch-compile")),
                Target(times=1.3, of_floor=True),
            ),
        )
    ]


def run(options: harness.Options) -> report.Report:
    """Run it."""
    return harness.race("pointwise", cases(options.size), options)
