"""optimiser: updates by Adam, AdamW and RMSProp of ten million parameters, in 1 and in 200 tensors.

The gradients are given; parameters and running means are fed back, and given away where the library
can reuse them. The floor moves each array as often as an update has to: parameters and means are
read and written, gradients read. float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bench import floors, harness, placement, report
from bench.cases import Array, Case, Prepared, Target
from bench.peers import library

COUNT = {"full": 10_000_000, "tiny": 60}
TENSORS = {"full": (1, 200), "tiny": (1, 4)}
RATE, BETA1, BETA2, DECAY, EPSILON = 0.01, 0.9, 0.999, 0.01, 1e-8
COMPARED_STEPS = 3
KINDS = ("Adam", "AdamW", "RMSProp")


def inputs(count: int, tensors: int) -> dict[str, Any]:
    """`parameters` and `gradients`, lists of vectors of unequal lengths, `count` numbers in all."""
    rng = np.random.default_rng(0)
    cuts = np.sort(rng.choice(np.arange(1, count), tensors - 1, replace=False))
    made = (rng.standard_normal(count, np.float32) for _ in range(2))
    parameters, gradients = ([part.copy() for part in np.split(array, cuts)] for array in made)
    return {"parameters": parameters, "gradients": gradients}


def expected(kind: str, inputs: Mapping[str, Any]) -> list[Array]:
    """The parameters after the first steps, by hand, in float64."""
    found = []
    for p, g in zip(inputs["parameters"], inputs["gradients"], strict=True):
        p, g = p.astype(np.float64), g.astype(np.float64)
        m, v = np.zeros_like(p), np.zeros_like(p)
        for t in range(1, COMPARED_STEPS + 1):
            if kind == "RMSProp":
                v = BETA2 * v + (1 - BETA2) * g * g
                p = p - RATE * g / (np.sqrt(v) + EPSILON)
                continue
            m = BETA1 * m + (1 - BETA1) * g
            v = BETA2 * v + (1 - BETA2) * g * g
            step = m / (1 - BETA1**t) / (np.sqrt(v / (1 - BETA2**t)) + EPSILON)
            p = p - RATE * (step + DECAY * p if kind == "AdamW" else step)
        found.append(p)
    return found


def updated(np: Any, kind: str, p: Any, m: Any, v: Any, g: Any, t: Any) -> tuple[Any, Any, Any]:
    """One tensor's update in NumPy's names, t being the number of the step."""
    v = BETA2 * v + (1 - BETA2) * (g * g)
    if kind == "RMSProp":
        return p - RATE * (g / (np.sqrt(v) + EPSILON)), m, v
    m = BETA1 * m + (1 - BETA1) * g
    step = m / (1 - BETA1**t) / (np.sqrt(v / (1 - BETA2**t)) + EPSILON)
    return p - RATE * (step + DECAY * p if kind == "AdamW" else step), m, v


def with_graphdl(kind: str, inputs: Mapping[str, Any]) -> Prepared:
    import graphdl as gd

    optimizer = {
        "Adam": lambda: gd.optim.adam(RATE, BETA1, BETA2, EPSILON),
        "AdamW": lambda: gd.optim.adamw(RATE, BETA1, BETA2, EPSILON, DECAY),
        "RMSProp": lambda: gd.optim.rmsprop(RATE, BETA2, EPSILON),
    }[kind]()
    update = placement.compiled(optimizer.update, donate=(1, 2))
    gradients, parameters = (
        placement.put(inputs["gradients"]),
        [p.copy() for p in inputs["parameters"]],
    )
    state = optimizer.init(parameters)

    def call() -> Any:
        nonlocal parameters, state
        parameters, state = update(gradients, state, parameters)

    prepared = after_steps(call, lambda: parameters)
    return replace(prepared, executable=lambda: update.lower(gradients, state, parameters))


def after_steps(call: Callable[[], object], parameters: Callable[[], Sequence[Any]]) -> Prepared:
    """What is compared is there after the first steps."""

    def results() -> list[Any]:
        for _ in range(COMPARED_STEPS):
            call()
        return list(parameters())

    return Prepared(results, call)


def with_jax(kind: str, inputs: Mapping[str, Any]) -> Prepared:
    """As Optax has it: the tree's updates in one compiled function, all state given away."""
    jax = library("jax")
    jnp = library("jax.numpy")

    def update(parameters: Any, means: Any, squares: Any, gradients: Any, t: Any) -> Any:
        found = [
            updated(jnp, kind, p, m, v, g, t + 1)
            for p, m, v, g in zip(parameters, means, squares, gradients, strict=True)
        ]
        return *([part[i] for part in found] for i in range(3)), t + 1

    step = jax.jit(update, donate_argnums=(0, 1, 2))
    gradients = [jnp.asarray(g) for g in inputs["gradients"]]
    state: Any = [
        [jnp.array(p) for p in inputs["parameters"]],
        *([jnp.zeros_like(g) for g in gradients] for _ in range(2)),
        jnp.float32(0),
    ]

    def call() -> Any:
        nonlocal state
        *trees, t = state
        state = jax.block_until_ready(step(*trees, gradients, t))

    return after_steps(call, lambda: state[0])


def torch_optimiser(kind: str, inputs: Mapping[str, Any], fused: bool) -> tuple[Any, list[Any]]:
    """The optimiser and its parameters, `fused` where PyTorch has such a kernel."""
    torch = library("torch")

    parameters = [placement.tensor(p.copy()).requires_grad_() for p in inputs["parameters"]]
    for p, g in zip(parameters, inputs["gradients"], strict=True):
        p.grad = placement.tensor(g)
    how = {"fused": True} if fused else {"foreach": True}
    optimiser = {
        "Adam": lambda: torch.optim.Adam(parameters, RATE, (BETA1, BETA2), EPSILON, **how),
        "AdamW": lambda: torch.optim.AdamW(parameters, RATE, (BETA1, BETA2), EPSILON, DECAY, **how),
        "RMSProp": lambda: torch.optim.RMSprop(parameters, RATE, BETA2, EPSILON, foreach=True),
    }[kind]()
    return optimiser, parameters


def with_torch(kind: str, inputs: Mapping[str, Any]) -> Prepared:
    optimiser, parameters = torch_optimiser(kind, inputs, fused=True)
    return after_steps(optimiser.step, lambda: parameters)


def with_torch_compile(kind: str, inputs: Mapping[str, Any]) -> Prepared:
    """The compiled `step` of PyTorch's own recipe: Inductor fuses across tensors."""
    torch = library("torch")

    torch._dynamo.reset()
    optimiser, parameters = torch_optimiser(kind, inputs, fused=False)
    step = torch.compile(lambda: optimiser.step())
    return after_steps(step, lambda: parameters)


def with_pytensor(kind: str, inputs: Mapping[str, Any]) -> Prepared:
    pytensor = library("pytensor")
    pt = library("pytensor.tensor")

    pytensor.config.floatX = "float32"
    gradients, updates, parameters = [], [], []
    t = pytensor.shared(np.float32(0), name="t")
    for p, g in zip(inputs["parameters"], inputs["gradients"], strict=True):
        shared = [pytensor.shared(a) for a in (p.copy(), np.zeros_like(p), np.zeros_like(p))]
        gradients.append(pytensor.In(pt.tensor(dtype="float32", shape=g.shape), borrow=True))
        made = updated(pt, kind, *shared, gradients[-1].variable, t + 1)
        updates += [(old, new) for old, new in zip(shared, made, strict=True) if new is not old]
        parameters.append(shared[0])
    step = pytensor.function(
        gradients, [], updates=[*updates, (t, t + 1)], mode="NUMBA", trust_input=True
    )
    given = inputs["gradients"]
    return after_steps(lambda: step(*given), lambda: [p.get_value() for p in parameters])


def with_numpy(kind: str, inputs: Mapping[str, Any]) -> Prepared:
    parameters = [p.copy() for p in inputs["parameters"]]
    means, squares = ([np.zeros_like(p) for p in parameters] for _ in range(2))
    t = 0

    def call() -> None:
        nonlocal t
        t += 1
        for i, g in enumerate(inputs["gradients"]):
            parameters[i], means[i], squares[i] = updated(
                np, kind, parameters[i], means[i], squares[i], g, t
            )

    return after_steps(call, lambda: parameters)


MAKERS = {
    "graphdl": with_graphdl,
    "jax": with_jax,
    "numpy": with_numpy,
    "torch": with_torch,
    "torch-compile": with_torch_compile,
    "pytensor": with_pytensor,
}


def case(kind: str, count: int, tensors: int) -> Case:
    """One optimiser's step over so many tensors."""

    def floor(given: Mapping[str, Any]) -> Prepared:
        passes = 5 if kind == "RMSProp" else 7
        return Prepared(lambda: expected(kind, given), floors.moving(passes * 4 * count))

    def builder(name: str) -> Callable[[Mapping[str, Any]], Prepared]:
        return lambda given: MAKERS[name](kind, given)

    return Case(
        name=f"{kind}, {count:,} in {tensors} tensor" + "s" * (tensors > 1),
        inputs=lambda: inputs(count, tensors),
        expected=lambda given: expected(kind, given),
        builders={**{name: builder(name) for name in MAKERS}, "floor": floor},
        tolerance=1e-4,
        floor_label=floors.COPY,
        targets=(Target(times=1.2, of_floor=True),),
    )


def cases(size: str) -> list[Case]:
    """Each optimiser over one and over many tensors."""
    return [case(kind, COUNT[size], tensors) for kind in KINDS for tensors in TENSORS[size]]


def run(options: harness.Options) -> report.Report:
    """Run it."""
    return harness.race("optimiser", cases(options.size), options)
