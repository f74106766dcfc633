"""overhead: calls that compute next to nothing, NumPy in, NumPy out.

The value and gradient of the Rosenbrock function of 10 float64, what an optimiser such as SciPy's
asks for at each step; the sum of 1, 10 and 100 arguments; 1, 10 and 100 operations in a row. All
that is measured is the way in and out: the peers' conversions from and to NumPy are part of their
time. Then calls of small functions from nopython code: see bench.nopython.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from bench import harness, nopython, placement, report
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

    compiled = placement.compiled(gd.value_and_grad(rosenbrock))
    f = placement.returning_numpy(compiled)
    x = inputs["x"]
    return Prepared(lambda: f(x), lambda: f(x), lambda: compiled.lower(x))


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
        x = placement.tensor(inputs["x"]).requires_grad_()
        value = rosenbrock(x)
        (gradient,) = torch.autograd.grad(value, x)
        return value.item(), placement.host(gradient)

    return Prepared(call, call)


def with_torch_compile(inputs: Mapping[str, Array]) -> Prepared:
    torch = library("torch")

    f = torch.compile(torch.func.grad_and_value(rosenbrock), dynamic=False)

    def call() -> tuple[float, Array]:
        gradient, value = f(placement.tensor(inputs["x"]))
        return value.item(), placement.host(gradient)

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


# -- many arguments, many operations ---------------------------------------------------------------

#: Of the module, then arrays of SIZE float64.
Small = Callable[..., Any]


def total(module: Any, *arrays: Any) -> Any:
    """The sum of all arguments: an operation for each."""
    found = arrays[0] * 0.5
    for array in arrays[1:]:
        found = found + array
    return found


def chain(count: int) -> Small:
    """So many operations in a row on one argument, no two of which are one."""

    def definition(module: Any, x: Any) -> Any:
        for place in range(count):
            x = module.sin(x) if place % 2 == 0 else x * 0.5
        return x

    return definition


def small_inputs(arguments: int) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {f"x{place}": rng.standard_normal(SIZE) for place in range(arguments)}


def small_with_graphdl(definition: Small, inputs: Mapping[str, Array]) -> Prepared:

    compiled = placement.compiled(lambda *arrays: definition(np, *arrays))
    arrays = list(inputs.values())
    prepared = called(placement.returning_numpy(compiled), inputs)
    return replace(prepared, executable=lambda: compiled.lower(*arrays))


def called(f: Callable[..., Any], inputs: Mapping[str, Array]) -> Prepared:
    """`f` on arrays, one array its result."""
    arrays = list(inputs.values())
    return Prepared(lambda: [f(*arrays)], lambda: f(*arrays))


def small_with_jax(definition: Small, inputs: Mapping[str, Array]) -> Prepared:
    jax = library("jax")

    jax.config.update("jax_enable_x64", True)
    f = jax.jit(lambda *arrays: definition(jax.numpy, *arrays))
    return called(lambda *arrays: np.asarray(f(*arrays)), inputs)


def small_with_torch(definition: Small, inputs: Mapping[str, Array]) -> Prepared:
    torch = library("torch")

    def f(*arrays: Array) -> Array:
        with torch.inference_mode():
            found = definition(torch, *map(placement.tensor, arrays))
        return placement.host(found)

    return called(f, inputs)


def small_with_torch_compile(definition: Small, inputs: Mapping[str, Array]) -> Prepared:
    torch = library("torch")

    torch._dynamo.reset()
    compiled = torch.compile(lambda *arrays: definition(torch, *arrays), dynamic=False)

    def f(*arrays: Array) -> Array:
        return placement.host(compiled(*map(placement.tensor, arrays)))

    return called(f, inputs)


def small_with_pytensor(definition: Small, inputs: Mapping[str, Array]) -> Prepared:
    pytensor = library("pytensor")
    pt = library("pytensor.tensor")

    symbols = [pt.tensor(dtype="float64", shape=array.shape) for array in inputs.values()]
    f = pytensor.function(
        [pytensor.In(symbol, borrow=True) for symbol in symbols],
        pytensor.Out(definition(pt, *symbols), borrow=True),
        mode="NUMBA",
        trust_input=True,
    )
    return called(f, inputs)


def small_with_numpy(definition: Small, inputs: Mapping[str, Array]) -> Prepared:
    return called(lambda *arrays: definition(np, *arrays), inputs)


SMALL = {
    "graphdl": small_with_graphdl,
    "jax": small_with_jax,
    "numpy": small_with_numpy,
    "torch": small_with_torch,
    "torch-compile": small_with_torch_compile,
    "pytensor": small_with_pytensor,
}


def small_case(name: str, definition: Small, arguments: int) -> Case:
    """One function of so many arguments."""

    def expected(inputs: Mapping[str, Array]) -> list[Array]:
        return [definition(np, *inputs.values())]

    def floor(inputs: Mapping[str, Array]) -> Prepared:
        return Prepared(lambda: expected(inputs), next(iter(inputs.values())).copy)

    return Case(
        name=name,
        inputs=lambda: small_inputs(arguments),
        expected=expected,
        builders={
            **{peer: partial(make, definition) for peer, make in SMALL.items()},
            "floor": floor,
        },
        tolerance=1e-12,
        floor_label="x.copy()",
        targets=(Target(times=10),),
    )


def cases(size: str) -> list[Case]:
    """The Rosenbrock function, then many arguments and many operations."""
    counts = (1, 10, 100) if size == "full" else (3,)
    return [
        *rosenbrock_cases(),
        *(small_case(f"{n} argument" + "s" * (n > 1), total, n) for n in counts),
        *(small_case(f"{n} operation" + "s" * (n > 1), chain(n), 1) for n in counts),
        *(chained_case(n) for n in counts),
        *([slope_case()] if size == "full" else []),
    ]


def chained_case(n: int) -> Case:
    """`chain(n)`, called from nopython code."""
    function = partial(chain(n), np)
    name = f"{n} operation" + "s" * (n > 1)
    return nopython.case(name, lambda: function, nopython.written_chain(n), function, False)


def slope_case() -> Case:
    """The value and the gradient of the Rosenbrock function, called from nopython code."""

    def function() -> Small:
        import graphdl as gd

        return gd.value_and_grad(rosenbrock)

    def on_paper(x: Array) -> list[Array]:
        return expected({"x": x})

    name = f"Rosenbrock-{SIZE} value and slope"
    return nopython.case(name, function, nopython.written_rosenbrock, on_paper, True)


def rosenbrock_cases() -> list[Case]:
    """It is tiny as it is."""
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
