"""pointwise: fused expressions: one with both gradients, an equation of state, 1 to 12 arrays.

First the value and both gradients of sum(tanh(a x + 0.5) sigmoid(1.5 x) + exp(-x x)), four million
float32. Then the density of seawater by TEOS-10, more than 100 operations, in float64, and with its
three gradients. Then as many results as inputs, each result made of all inputs. What matters is how
often the arrays travel through memory: the floor moves the least that any answer moves. Where a
hundred operations take longer than that, the arithmetic binds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bench import floors, harness, placement, report
from bench.cases import Array, Case, Prepared, Target
from bench.functions import GRADIENT, VALUE, Function, Question, contestants, scaled
from bench.kernels import ocean
from bench.peers import library

SIZES = {"full": 4_000_000, "tiny": 1_000}
#: Places, and what is asked of the density there.
STATES = {
    "full": ((1_000_000, VALUE), (1_000_000, GRADIENT), (16_000_000, VALUE)),
    "tiny": ((50, GRADIENT),),
}
ARRAYS = {"full": (1, 3, 6, 12), "tiny": (2,)}
#: Elements of each of these arrays.
LENGTHS = {"full": 1_000_000, "tiny": 20}


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

    f = placement.compiled(gd.value_and_grad(loss, argnums=(0, 1)))
    a, x = placement.put((inputs["a"], inputs["x"]))

    def results() -> list[Any]:
        value, gradients = f(a, x)
        return [value, *gradients]

    return Prepared(results, lambda: f(a, x), lambda: f.lower(a, x))


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

    a, x = (placement.tensor(inputs[name]).requires_grad_() for name in ("a", "x"))

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
    a, x = placement.tensor(inputs["a"]), placement.tensor(inputs["x"])

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


# -- an equation of state --------------------------------------------------------------------------


def state_inputs(count: int) -> dict[str, Array]:
    """Salinity, temperature and pressure as in the sea, each (count,) float64."""
    rng = np.random.default_rng(0)
    ranges = {"salinity": (1.0, 42.0), "temperature": (-2.0, 40.0), "pressure": (0.0, 8000.0)}
    return {name: rng.uniform(low, high, count) for name, (low, high) in ranges.items()}


def density(module: Any, salinity: Any, temperature: Any, pressure: Any) -> Any:
    return ocean.density_of(module.sqrt(salinity), salinity, temperature, pressure)


def state_expected(inputs: Mapping[str, Array], wants: str) -> list[Array]:
    """The density; with gradients, their sum and the derivatives by a complex step.

    An analytic function of x + ih has its derivative times h as its imaginary part, to all digits:
    Squire and Trapp, SIAM Review 40 (1998), 110-112.
    """
    if wants == VALUE:
        return [density(np, *inputs.values())]
    found = [np.sum(density(np, *inputs.values()))]
    for name in inputs:
        moved = {**inputs, name: inputs[name] + 1e-20j}
        found.append(density(np, *moved.values()).imag / 1e-20)
    return found


def state_case(count: int, wants: str) -> Case:
    """The density of `count` places, or its sum with gradients."""

    def total(module: Any, *arrays: Any) -> Any:
        return density(module, *arrays).sum()

    chosen = density if wants == VALUE else total

    def floor(inputs: Mapping[str, Array]) -> Prepared:
        moved = floors.moving((4 if wants == VALUE else 6) * 8 * count)
        return Prepared(lambda: state_expected(inputs, wants), moved)

    asks = Question(wants, () if wants == VALUE else (0, 1, 2))
    return Case(
        name=f"equation of state{'' if wants == VALUE else ', gradients'}, {count:,} float64",
        inputs=lambda: state_inputs(count),
        expected=lambda inputs: state_expected(inputs, wants),
        builders={**contestants(Function(chosen, chosen, chosen), asks), "floor": floor},
        tolerance=1e-11,
        floor_label=floors.COPY,
        targets=(Target(times=5.5), Target(times=1.15, of_floor=True)),
    )


# -- many arrays -----------------------------------------------------------------------------------


def each_of_all(module: Any, *arrays: Any) -> Any:
    """As many results as arrays: each is its array times the tanh of the sum of all."""
    total = arrays[0]
    for array in arrays[1:]:
        total = total + array
    bounded = module.tanh(total)
    return tuple(array * bounded for array in arrays)


def arrays_case(arrays: int, count: int) -> Case:
    """So many arrays in, as many out."""

    def inputs() -> dict[str, Array]:
        return {f"x{place}": scaled((count,), 1.0, place) for place in range(arrays)}

    def expected(inputs: Mapping[str, Array]) -> list[Array]:
        return list(each_of_all(np, *(array.astype(np.float64) for array in inputs.values())))

    def floor(inputs: Mapping[str, Array]) -> Prepared:
        return Prepared(lambda: expected(inputs), floors.copying(list(inputs.values())))

    function = Function(each_of_all, each_of_all, each_of_all)
    return Case(
        name=f"{arrays} array{'s' * (arrays > 1)} in and out, {count:,} float32 each",
        inputs=inputs,
        expected=expected,
        builders={**contestants(function, Question(VALUE)), "floor": floor},
        tolerance=1e-5,
        floor_label=floors.COPY,
        targets=(Target(times=1.15, of_floor=True),),
    )


def cases(size: str) -> list[Case]:
    """The expression with gradients, the equation of state, 1 to 12 arrays."""
    return [
        *expression_cases(size),
        *(state_case(count, wants) for count, wants in STATES[size]),
        *(arrays_case(arrays, LENGTHS[size]) for arrays in ARRAYS[size]),
    ]


def expression_cases(size: str) -> list[Case]:
    """The value and gradients of the expression."""
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
