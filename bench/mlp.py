"""mlp: a training step of networks with ReLU and softmax cross entropy, by SGD, momentum, Adam.

784-512-256-10 by SGD, then 784-500-10 by momentum and by Adam; float32. Parameters are fed back
from step to step and given away (donated) where the library can reuse them. The floor is the matrix
products of the step and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from bench import floors, harness, placement, report, rows, training
from bench.cases import Array, Case, Prepared, Target
from bench.functions import Function
from bench.peers import library

WIDTHS = {"full": (784, 512, 256, 10), "tiny": (8, 6, 5, 3)}
TWO_WIDTHS = {"full": (784, 500, 10), "tiny": (8, 6, 3)}
BATCHES = {"full": (1, 16, 128, 1024), "tiny": (1, 4)}
RATE = 0.01
COMPARED_STEPS = 3
FLOOR_LABEL = "the BLAS calls alone"


@dataclass(frozen=True)
class Trainer:
    """A network being trained by one contestant.

    `place` takes a batch, x (batch, 784) float32 and labels (batch,) int64, to where the library
    wants it; `step` trains on it, waits and returns the mean loss before the update; `parameters`
    are w1, b1, w2, b2, w3, b3 as NumPy arrays, weights as (in, out). `stages` tells, after a step
    on a batch, the seconds that each stage of making it took, where the library says so;
    `executable` what graphdl runs for a batch.
    """

    place: Callable[[Array, Array], Any]
    step: Callable[[Any], Any]
    parameters: Callable[[], Sequence[Array]]
    stages: Callable[[Any], dict[str, float]] = lambda batch: {}
    executable: Callable[[Any], Any] | None = None


def initial_parameters(widths: Sequence[int]) -> list[Array]:
    """w1, b1, w2, b2, w3, b3 in float32, He's initialisation; biases small but not zero."""
    rng = np.random.default_rng(1)
    parameters: list[Array] = []
    for fan_in, fan_out in pairwise(widths):
        weights = rng.standard_normal((fan_in, fan_out)) * np.sqrt(2 / fan_in)
        parameters += [weights.astype(np.float32), rng.normal(0, 0.1, fan_out).astype(np.float32)]
    return parameters


def inputs(widths: Sequence[int], batch: int) -> dict[str, Any]:
    """`parameters`, `x` (batch, widths[0]) float32, `labels` (batch,) int64."""
    rng = np.random.default_rng(batch)
    return {
        "parameters": initial_parameters(widths),
        "x": rng.standard_normal((batch, widths[0]), np.float32),
        "labels": rng.integers(0, widths[-1], batch),
    }


def expected(inputs: Mapping[str, Any]) -> list[Array]:
    """The loss of each of the first steps and the parameters after them, by hand, in float64."""
    w1, b1, w2, b2, w3, b3 = (p.astype(np.float64) for p in inputs["parameters"])
    x, labels = inputs["x"].astype(np.float64), inputs["labels"]
    rows = np.arange(len(x))
    losses = []
    for _ in range(COMPARED_STEPS):
        h1 = np.maximum(x @ w1 + b1, 0)
        h2 = np.maximum(h1 @ w2 + b2, 0)
        logits = h2 @ w3 + b3
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        losses.append(-log_p[rows, labels].mean())
        d3 = np.exp(log_p)
        d3[rows, labels] -= 1
        d3 /= len(x)
        d2 = (d3 @ w3.T) * (h2 > 0)
        d1 = (d2 @ w2.T) * (h1 > 0)
        for w, b, h, d in ((w3, b3, h2, d3), (w2, b2, h1, d2), (w1, b1, x, d1)):
            w -= RATE * (h.T @ d)
            b -= RATE * d.sum(axis=0)
    return [np.asarray(losses), w1, b1, w2, b2, w3, b3]


def prepared_by(make: Callable[[list[Array]], Trainer]) -> Callable[[Mapping[str, Any]], Prepared]:
    """A builder that trains, by `make`'s trainer, on one batch over and over."""

    def build(inputs: Mapping[str, Any]) -> Prepared:
        trainer = make([p.copy() for p in inputs["parameters"]])
        batch = trainer.place(inputs["x"], inputs["labels"])

        def results() -> list[Any]:
            losses = [float(trainer.step(batch)) for _ in range(COMPARED_STEPS)]
            return [np.asarray(losses), *trainer.parameters()]

        asked = trainer.executable
        executable = None if asked is None else lambda: asked(batch)
        return Prepared(results, lambda: trainer.step(batch), executable)

    return build


def graphdl_trainer(parameters: list[Array]) -> Trainer:
    import graphdl as gd
    from graphdl import losses

    def loss(parameters: Any, x: Any, labels: Any) -> Any:
        w1, b1, w2, b2, w3, b3 = parameters
        h1 = np.maximum(x @ w1 + b1, 0)
        h2 = np.maximum(h1 @ w2 + b2, 0)
        return losses.softmax_cross_entropy(h2 @ w3 + b3, labels)

    def update(parameters: Any, x: Any, labels: Any) -> Any:
        value, gradients = gd.value_and_grad(loss)(parameters, x, labels)
        return value, [p - RATE * g for p, g in zip(parameters, gradients, strict=True)]

    step = placement.compiled(update, donate=(0,))

    def train(batch: tuple[Array, Array]) -> Any:
        nonlocal parameters
        value, parameters = step(parameters, *batch)
        return value

    def stages(batch: tuple[Array, Array]) -> dict[str, float]:
        return dict(step.lower(parameters, *batch).seconds)

    def executable(batch: tuple[Array, Array]) -> Any:
        return step.lower(parameters, *batch)

    def put(x: Array, labels: Array) -> Any:
        return placement.put((x, labels))

    return Trainer(put, train, lambda: parameters, stages, executable)


def jax_trainer(parameters: list[Array]) -> Trainer:
    jax = library("jax")
    jnp = library("jax.numpy")

    def loss(parameters: Any, x: Any, labels: Any) -> Any:
        w1, b1, w2, b2, w3, b3 = parameters
        h1 = jax.nn.relu(x @ w1 + b1)
        h2 = jax.nn.relu(h1 @ w2 + b2)
        log_p = jax.nn.log_softmax(h2 @ w3 + b3)
        # As Optax has it; one_hot takes up to a fifth longer.
        return -jnp.mean(jnp.take_along_axis(log_p, labels[:, None], axis=1))

    def update(parameters: Any, x: Any, labels: Any) -> Any:
        value, gradients = jax.value_and_grad(loss)(parameters, x, labels)
        return value, jax.tree.map(lambda p, g: p - RATE * g, parameters, gradients)

    step = jax.jit(update, donate_argnums=0)
    state = [jnp.array(p) for p in parameters]

    def train(batch: tuple[Any, Any]) -> Any:
        nonlocal state
        value, state = step(state, *batch)
        jax.block_until_ready((value, state))
        return value

    def place(x: Array, labels: Array) -> tuple[Any, Any]:
        return jnp.asarray(x), jnp.asarray(labels)

    return Trainer(place, train, lambda: [np.asarray(p) for p in state])


def torch_network(parameters: list[Array]) -> Any:
    """An `nn.Sequential` with `parameters` copied in; its weights are (out, in)."""
    torch = library("torch")
    nn = torch.nn

    weights, biases = parameters[::2], parameters[1::2]
    layers: list[Any] = []
    for w, b in zip(weights, biases, strict=True):
        linear = nn.Linear(*w.shape, device=placement.target())
        with torch.no_grad():
            linear.weight.copy_(placement.tensor(w.T))
            linear.bias.copy_(placement.tensor(b))
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def torch_place(x: Array, labels: Array) -> tuple[Any, Any]:
    return placement.tensor(x), placement.tensor(labels)


def torch_parameters(network: Any) -> list[Array]:
    return [placement.host(p).T for p in network.parameters()]


def torch_trainer(parameters: list[Array]) -> Trainer:
    torch = library("torch")

    network = torch_network(parameters)
    loss = torch.nn.CrossEntropyLoss()
    # The default; foreach=True and fused=True take as long or a few per cent longer.
    optimiser = torch.optim.SGD(network.parameters(), lr=RATE)

    def train(batch: tuple[Any, Any]) -> Any:
        x, labels = batch
        optimiser.zero_grad()
        value = loss(network(x), labels)
        value.backward()
        optimiser.step()
        return value.detach()

    return Trainer(torch_place, train, lambda: torch_parameters(network))


def torch_compile_trainer(parameters: list[Array]) -> Trainer:
    torch = library("torch")

    functional = torch.nn.functional

    def loss(parameters: Any, x: Any, labels: Any) -> Any:
        w1, b1, w2, b2, w3, b3 = parameters
        h1 = torch.relu(torch.addmm(b1, x, w1))
        h2 = torch.relu(torch.addmm(b2, h1, w2))
        return functional.cross_entropy(torch.addmm(b3, h2, w3), labels)

    # Forward, backward and update as one graph took half the time (batch 1) to 0.9 of the time
    # (batch 1024) of a compiled forward with backward() and a compiled optimiser after it.
    def update(parameters: Any, x: Any, labels: Any) -> Any:
        gradients, value = torch.func.grad_and_value(loss)(parameters, x, labels)
        for p, g in zip(parameters, gradients, strict=True):
            p.sub_(g, alpha=RATE)
        return value

    step = torch.compile(update, dynamic=False)
    state = [placement.tensor(p) for p in parameters]
    return Trainer(torch_place, lambda batch: step(state, *batch), lambda: state)


def pytensor_trainer(parameters: list[Array]) -> Trainer:
    pytensor = library("pytensor")
    pt = library("pytensor.tensor")

    shared = [pytensor.shared(p, borrow=True) for p in parameters]
    w1, b1, w2, b2, w3, b3 = shared
    x, labels = pt.fmatrix("x"), pt.lvector("labels")
    h1 = pt.maximum(x @ w1 + b1, 0)
    h2 = pt.maximum(h1 @ w2 + b2, 0)
    log_p = pt.special.log_softmax(h2 @ w3 + b3, axis=1)
    value = -log_p[pt.arange(labels.shape[0]), labels].mean(dtype="float32")
    gradients = pt.grad(value, shared)
    rate = np.float32(RATE)
    step = pytensor.function(
        [pytensor.In(x, borrow=True), pytensor.In(labels, borrow=True)],
        pytensor.Out(value, borrow=True),
        updates=[(p, p - rate * g) for p, g in zip(shared, gradients, strict=True)],
        mode="NUMBA",
        trust_input=True,
    )
    return Trainer(
        lambda x, labels: (x, labels),
        lambda batch: step(*batch),
        lambda: [p.get_value() for p in shared],
    )


def autograd_trainer(parameters: list[Array]) -> Trainer:
    autograd = library("autograd")
    anp = library("autograd.numpy")

    def loss(parameters: Any, x: Any, labels: Any) -> Any:
        w1, b1, w2, b2, w3, b3 = parameters
        h1 = anp.maximum(anp.dot(x, w1) + b1, 0)
        h2 = anp.maximum(anp.dot(h1, w2) + b2, 0)
        logits = anp.dot(h2, w3) + b3
        shifted = logits - anp.max(logits, axis=1, keepdims=True)
        log_p = shifted - anp.log(anp.sum(anp.exp(shifted), axis=1, keepdims=True))
        return -anp.mean(log_p[np.arange(len(labels)), labels])

    value_and_gradients = autograd.value_and_grad(loss)
    rate = np.float32(RATE)

    def train(batch: tuple[Array, Array]) -> Any:
        value, gradients = value_and_gradients(parameters, *batch)
        for p, g in zip(parameters, gradients, strict=True):
            p -= rate * g
        return value

    return Trainer(lambda x, labels: (x, labels), train, lambda: parameters)


TRAINERS = {
    "graphdl": graphdl_trainer,
    "jax": jax_trainer,
    "torch": torch_trainer,
    "torch-compile": torch_compile_trainer,
    "pytensor": pytensor_trainer,
    "autograd": autograd_trainer,
}


def floor(inputs: Mapping[str, Any]) -> Prepared:
    """The step's eight products by SciPy's BLAS, into arrays made beforehand.

    The three weight gradients are added to the weights by the product itself (beta = 1), so the
    floor includes the update. BLAS wants columns contiguous: all products are written transposed.
    """
    w1, _, w2, _, w3, _ = (p.copy() for p in inputs["parameters"])
    x = inputs["x"]
    h1, h2, logits = (np.ones((len(x), w.shape[1]), np.float32) for w in (w1, w2, w3))
    times, times_transposed, add_gradient = products(vectors=len(x) == 1)

    def call() -> None:
        for h, w, out in ((x, w1, h1), (h1, w2, h2), (h2, w3, logits)):
            times(h, w, out)
        for h, w, d in ((h2, w3, logits), (h1, w2, h2), (x, w1, h1)):
            add_gradient(h, d, w)
            if h is not x:
                times_transposed(d, w, h)

    return Prepared(lambda: expected(inputs), call)


def products(vectors: bool) -> tuple[Callable[[Array, Array, Array], object], ...]:
    """BLAS calls for out = h @ w, out = d @ w.T and w -= tiny h.T @ d; of one row where `vectors`.

    The rate is so small that the weights stay as they are; for 0, BLAS would return at once.
    """
    from scipy.linalg import blas

    rate = np.float32(-1e-20)
    if vectors:
        return (
            lambda h, w, out: blas.sgemv(1.0, w.T, h[0], y=out[0], overwrite_y=1),
            lambda d, w, out: blas.sgemv(1.0, w.T, d[0], y=out[0], trans=1, overwrite_y=1),
            lambda h, d, w: blas.sger(rate, d[0], h[0], a=w.T, overwrite_a=1),
        )
    return (
        lambda h, w, out: blas.sgemm(1.0, w.T, h.T, c=out.T, overwrite_c=1),
        lambda d, w, out: blas.sgemm(1.0, w.T, d.T, trans_a=1, c=out.T, overwrite_c=1),
        lambda h, d, w: blas.sgemm(rate, d.T, h.T, trans_b=1, beta=1.0, c=w.T, overwrite_c=1),
    )


def case(widths: Sequence[int], batch: int) -> Case:
    """The step at one batch size."""
    builders = {name: prepared_by(make) for name, make in TRAINERS.items()}
    return Case(
        name=f"batch {batch}",
        inputs=lambda: inputs(widths, batch),
        expected=expected,
        builders={**builders, "floor": floor},
        tolerance=1e-4,
        floor_label=FLOOR_LABEL,
        targets=(Target(times={1: 2.0, 16: 2.0, 128: 1.5}.get(batch, 1.2)),),
    )


# -- two layers, other rules -----------------------------------------------------------------------


def two_layers(relu: Callable[..., Any], entropy: Callable[..., Any]) -> Callable[..., Any]:
    """The loss of a network of two layers, of (module, w1, b1, w2, b2, x, labels)."""

    def loss(module: Any, w1: Any, b1: Any, w2: Any, b2: Any, x: Any, labels: Any) -> Any:
        return entropy(module, relu(module, x @ w1 + b1) @ w2 + b2, labels)

    return loss


def graphdl_entropy(np: Any, logits: Any, labels: Any) -> Any:
    from graphdl import losses

    return losses.softmax_cross_entropy(logits, labels)


TWO_LAYERS = Function(
    numpy=two_layers(
        lambda np, x: np.maximum(x, 0),
        lambda np, x, labels: np.mean(rows.cross_entropy(np, x, labels)),
    ),
    graphdl=two_layers(lambda np, x: np.maximum(x, 0), graphdl_entropy),
    jax=two_layers(
        lambda jax, x: jax.nn.relu(x),
        lambda jax, x, labels: rows.jax_cross_entropy(jax, x, labels).mean(),
    ),
    torch=two_layers(
        lambda torch, x: torch.relu(x),
        lambda torch, x, labels: torch.nn.functional.cross_entropy(x, labels),
    ),
    pytensor=two_layers(
        lambda pt, x: pt.maximum(x, 0),
        lambda pt, x, labels: rows.pytensor_cross_entropy(pt, x, labels).mean(dtype="float32"),
    ),
)


def two_layers_by_hand(w1: Array, b1: Array, w2: Array, b2: Array, x: Array, labels: Array) -> Any:
    """The loss and its gradients."""
    labels = labels.astype(np.int64)
    hidden = np.maximum(x @ w1 + b1, 0)
    weights = np.full(len(x), 1 / len(x))
    values, d2 = rows.cross_entropy_by_hand(weights, hidden @ w2 + b2, labels)
    d1 = (d2 @ w2.T) * (hidden > 0)
    return [values.mean(), x.T @ d1, d1.sum(0), hidden.T @ d2, d2.sum(0)]


def rule_case(widths: Sequence[int], batch: int, rule: training.Rule) -> Case:
    """The step of two layers at one batch size by one rule."""

    def named() -> dict[str, Array]:
        made = inputs(widths, batch)
        parameters = dict(zip(("w1", "b1", "w2", "b2"), made["parameters"], strict=True))
        return {**parameters, "x": made["x"], "labels": made["labels"]}

    def wanted(given: Mapping[str, Array]) -> list[Array]:
        return training.expected(two_layers_by_hand, rule, 4, given)

    def products_alone(given: Mapping[str, Array]) -> Prepared:
        first, hidden, last = widths
        shapes = [(batch, first, hidden), (batch, hidden, last), (batch, last, hidden)]
        shapes += [(first, batch, hidden), (hidden, batch, last)]
        return Prepared(lambda: wanted(given), floors.multiplying(shapes))

    return Case(
        name=f"{'-'.join(map(str, widths))}, {rule.kind}, batch {batch}",
        inputs=named,
        expected=wanted,
        builders={**training.trainers(TWO_LAYERS, rule, 4), "floor": products_alone},
        tolerance=1e-3,
        floor_label=FLOOR_LABEL,
        targets=(Target(times={1: 2.0, 16: 2.0, 128: 1.5}.get(batch, 1.2)),),
    )


def cases(size: str) -> list[Case]:
    """One case a batch size by SGD, then by other rules."""
    return [case(WIDTHS[size], batch) for batch in BATCHES[size]] + [
        rule_case(TWO_WIDTHS[size], batch, rule)
        for rule in (training.Rule(RATE, "momentum"), training.Rule(1e-3, "Adam"))
        for batch in BATCHES[size]
        if size == "full" or batch > 1
    ]


def run(options: harness.Options) -> report.Report:
    """Run it."""
    return harness.race("mlp", cases(options.size), options)
