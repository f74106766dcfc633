"""Train a small network on real handwritten digits: what `graphdl demo` runs.

The network maps 8 x 8 pixels to 128 hidden units to 10 classes. One training step (forward,
backward and the Adam update) is one compiled function from parameters to parameters.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct
from tqdm import tqdm

import graphdl as gd

MODEL = gd.nn.Sequential([gd.nn.Dense(128, activation="relu"), gd.nn.Dense(10)])


class Settings(Struct, frozen=True):
    """What can be chosen about a run."""

    epochs: int = 20
    batch_size: int = 32
    learning_rate: float = 4e-3
    seed: int = 0
    output: Path = Path("graphdl-demo")


class Result(Struct, frozen=True):
    """What a run has reached."""

    test_accuracy: float
    losses: tuple[float, ...]
    samples_per_second: float
    compile_seconds: float
    pictures: tuple[Path, ...]


def standardised(digits: gd.data.Digits) -> gd.data.Digits:
    """Images shifted and scaled so that a pixel of the training set has mean 0, variance 1."""
    mean, spread = digits.train_images.mean(), digits.train_images.std()
    return digits._replace(
        train_images=(digits.train_images - mean) / spread,
        test_images=(digits.test_images - mean) / spread,
    )


def loss_and_accuracy(params: Any, images: Any, labels: Any) -> tuple[Any, Any]:
    """The mean cross entropy of a batch, and the fraction of right answers."""
    logits = MODEL.apply(params, images)
    loss = gd.losses.softmax_cross_entropy(logits, labels)
    return loss, gd.losses.accuracy(logits, labels)


def training_step(optimizer: gd.optim.Optimizer) -> gd.Compiled:
    """One step of training, compiled: (params, state, images, labels) -> (params, state, ...)."""

    def step(params: Any, state: Any, images: Any, labels: Any) -> tuple[Any, Any, Any, Any]:
        value_and_gradient = gd.value_and_grad(loss_and_accuracy, has_aux=True)
        (loss, accuracy), gradients = value_and_gradient(params, images, labels)
        params, state = optimizer.update(gradients, state, params)
        return params, state, loss, accuracy

    return gd.compile(step)


def run(settings: Settings, say: Callable[[str], None] = tqdm.write) -> Result:
    """Train, report through `say`, and draw the graph of the training step.

    Raises:
        ImportError: scikit-learn, which brings the digits, is not installed.
    """
    digits = standardised(gd.data.digits())
    rng = np.random.default_rng(settings.seed)
    params = MODEL.init(rng, digits.train_images.shape[1:])
    steps = len(digits.train_images) // settings.batch_size
    optimizer = gd.optim.adam(
        gd.optim.cosine_decay(settings.learning_rate, steps * settings.epochs)
    )
    state = optimizer.init(params)
    say(
        f"{len(digits.train_images):,} handwritten digits to train on, "
        f"{len(digits.test_images):,} held out; a 64-128-10 network of "
        f"{gd.nn.parameter_count(params):,} parameters"
    )

    step, evaluate = training_step(optimizer), gd.compile(loss_and_accuracy)
    batch = next(gd.data.batches(*digits[:2], settings.batch_size))
    started = time.perf_counter()
    executable = step.lower(params, state, *batch)
    evaluate.lower(params, *digits[2:])
    compile_seconds = time.perf_counter() - started
    say(
        f"compiled in {compile_seconds:.2f} s: the training step is a graph of "
        f"{len(executable.graph.operations)} nodes and runs as {len(executable.kernels)} kernels\n"
    )

    say("epoch    loss  train accuracy  test accuracy")
    losses: list[float] = []
    trained_seconds, test_accuracy = 0.0, 0.0
    for epoch in _progress(settings.epochs):
        started = time.perf_counter()
        sums = np.zeros(2)
        for images, labels in gd.data.batches(*digits[:2], settings.batch_size, rng, True):
            params, state, *scores = step(params, state, images, labels)
            sums += scores
        trained_seconds += time.perf_counter() - started
        loss, accuracy = sums / steps
        test_accuracy = float(evaluate(params, *digits[2:])[1])
        losses.append(float(loss))
        say(f"{epoch:5d}  {loss:6.4f}  {accuracy:13.1%}  {test_accuracy:13.1%}")

    samples_per_second = settings.epochs * steps * settings.batch_size / trained_seconds
    pictures = tuple(_draw(executable, settings.output))
    say(f"\ntest accuracy      {test_accuracy:.1%}")
    say(f"training speed     {samples_per_second:,.0f} samples per second")
    say(f"graph drawn in     {', '.join(map(str, pictures))}")
    return Result(test_accuracy, tuple(losses), samples_per_second, compile_seconds, pictures)


def _progress(epochs: int) -> Iterator[int]:
    with tqdm(range(1, epochs + 1), unit="epoch") as bar:
        yield from bar


def _draw(executable: gd.Executable, folder: Path) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("training-step.svg", "training-step.dot"):
        yield executable.visualize(folder / name)
