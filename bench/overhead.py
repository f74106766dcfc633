"""overhead: value and gradient of the Rosenbrock function of 10 float64, NumPy in, NumPy out.

What an optimiser such as SciPy's asks for at each step: 60 operations, so all that is measured is
the way in and out. The peers' conversions from and to NumPy are part of their time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bench import harness, report
from bench.cases import Array, Case, Prepared, Target
from bench.peers import library

SIZE = 10


def rosenbrock(x: Any) -> Any:
    """100 (x[i+1] - x[i]^2)^2 + (1 - x[i])^2, summed over i; as it stands for every peer."""
    return (100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2).sum()


def inputs() -> dict[str, Array]:
    """`x`, (10,) float64."""
    return {"x": np.random.default_rng(0).standard_normal(SIZE)}


def expected(inputs: Mapping[str, Array]) -> list[Array]:
    """The value and the gradient on paper."""
    x = inputs["x"]
    inner = x[1:] - x[:-1] ** 2
    gradient = np.zeros_like(x)
    gradient[:-1] += -400.0 * inner * x[:-1] - 2.0 * (1.0 - x[:-1])
    gradient[1:] += 200.0 * inner
    return [np.asarray(rosenbrock(x)), gradient]


def with_graphdl(inputs: Mapping[str, Array]) -> Prepared:
    import graphdl as gd

    f = gd.compile(gd.value_and_grad(rosenbrock))
    x = inputs["x"]
    return Prepared(lambda: f(x), lambda: f(x))


def with_jax(inputs: Mapping[str, Array]) -> Prepared:
    jax = library("jax")

    jax.config.update("jax_enable_x64", True)  # or it would compute in float32
    f = jax.jit(jax.value_and_grad(rosenbrock))
    x = inputs["x"]

    def call() -> tuple[float, Array]:
        value, gradient = f(x)
        return float(value), np.asarray(gradient)

    return Prepared(call, call)


def with_torch(inputs: Mapping[str, Array]) -> Prepared:
    torch = library("torch")

    def call() -> tuple[float, Array]:
        x = torch.from_numpy(inputs["x"]).requires_grad_()
        value = rosenbrock(x)
        (gradient,) = torch.autograd.grad(value, x)
        return value.item(), gradient.numpy()

    return Prepared(call, call)


def with_torch_compile(inputs: Mapping[str, Array]) -> Prepared:
    torch = library("torch")

    f = torch.compile(torch.func.grad_and_value(rosenbrock), dynamic=False)

    def call() -> tuple[float, Array]:
        gradient, value = f(torch.from_numpy(inputs["x"]))
        return value.item(), gradient.numpy()

    return Prepared(call, call)


def with_pytensor(inputs: Mapping[str, Array]) -> Prepared:
    pytensor = library("pytensor")
    pt = library("pytensor.tensor")

    x = pt.dvector("x")
    value = rosenbrock(x)
    f = pytensor.function(
        [pytensor.In(x, borrow=True)],
        [pytensor.Out(out, borrow=True) for out in (value, pt.grad(value, x))],
        mode="NUMBA",
        trust_input=True,
    )
    return Prepared(lambda: f(inputs["x"]), lambda: f(inputs["x"]))


def with_autograd(inputs: Mapping[str, Array]) -> Prepared:
    autograd = library("autograd")
    anp = library("autograd.numpy")

    # autograd differentiates `anp.sum(x)`; its boxes have no method of that name.
    def loss(x: Any) -> Any:
        return anp.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)

    f = autograd.value_and_grad(loss)
    x = inputs["x"]
    return Prepared(lambda: f(x), lambda: f(x))


def floor(inputs: Mapping[str, Array]) -> Prepared:
    x = inputs["x"]
    return Prepared(lambda: expected(inputs), x.copy)


def cases(size: str) -> list[Case]:
    """The one case of this benchmark; it is tiny as it is."""
    return [
        Case(
            name=f"Rosenbrock-{SIZE} value and gradient, NumPy in and out",
            inputs=inputs,
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
            tolerance=1e-12,
            floor_label="x.copy()",
            targets=(Target(times=8, peers=("jax",)), Target(microseconds=3)),
        )
    ]


def run(options: harness.Options) -> report.Report:
    """Run it."""
    return harness.race("overhead", cases(options.size), options)
