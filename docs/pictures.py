"""Draws the pictures of the README: `python docs/pictures.py` from the root of the repository."""

from pathlib import Path

import numpy as np

import graphdl as gd

HERE = Path(__file__).parent
RATE = 0.1
BLOCKS = 12


def training_step():
    """One step of a network of two layers, as compiled."""

    def loss(w1, b1, w2, b2, x, y):
        with gd.scope("hidden"):
            h = np.tanh(x @ w1 + b1)
        with gd.scope("output"):
            return np.mean((h @ w2 + b2 - y) ** 2)

    def step(w1, b1, w2, b2, x, y):
        value, slopes = gd.value_and_grad(loss, argnums=(0, 1, 2, 3))(w1, b1, w2, b2, x, y)
        pairs = zip((w1, b1, w2, b2), slopes, strict=True)
        return value, [p - RATE * slope for p, slope in pairs]

    shapes = [(8, 64), (64,), (64, 2), (2,), (32, 8), (32, 2)]
    executable = gd.compile(step).lower(*(gd.spec(shape, "float32") for shape in shapes))
    for theme in ("light", "dark"):
        executable.visualize(HERE / f"training-step-{theme}.svg", theme=theme)


def deep_network():
    """A step of twelve equal blocks with Adam, a box for each layer."""

    def block(p, x):
        with gd.scope("attention"):
            scores = gd.numpy_functions.softmax(x @ p["q"] @ x.T / np.sqrt(x.shape[-1]))
            x = x + scores @ x @ p["v"]
        with gd.scope("mlp"):
            return x + np.tanh(x @ p["up"]) @ p["down"]

    def loss(params, x, y):
        for i, p in enumerate(params["blocks"]):
            with gd.scope(f"block {i}"):
                x = block(p, x)
        with gd.scope("head"):
            return np.mean((x @ params["head"] - y) ** 2)

    width, length = 32, 16
    sizes = {"q": (width, width), "v": (width, width), "up": (width, 64), "down": (64, width)}
    blocks = [{key: np.zeros(shape) for key, shape in sizes.items()} for _ in range(BLOCKS)]
    params = {"blocks": blocks, "head": np.zeros((width, 4))}
    optimiser = gd.optim.adam(1e-3)

    def step(params, state, x, y):
        value, slopes = gd.value_and_grad(loss)(params, x, y)
        return value, *optimiser.update(slopes, state, params)

    arguments = params, optimiser.init(params), np.zeros((length, width)), np.zeros((length, 4))
    executable = gd.compile(step).lower(*arguments)
    for theme in ("light", "dark"):
        path = HERE / f"deep-network-{theme}.svg"
        executable.visualize(path, theme=theme, level="scope", color="flops")


def value_and_gradient():
    """What the README's first function becomes."""

    def loss(w, b, x, y):
        return np.mean((np.tanh(x @ w + b) - y) ** 2)

    shapes = [(4, 3), (3,), (32, 4), (32, 3)]
    step = gd.compile(gd.value_and_grad(loss, argnums=(0, 1)))
    executable = step.lower(*(gd.spec(shape) for shape in shapes))
    executable.visualize(HERE / "value-and-gradient.svg")


def deviation():
    """The README's computation graph with numbers."""

    def deviation(x, w, b, y):
        return abs(x * w + b - y)

    numbers = (2.0, 3.0, 1.0, 9.0)
    gd.trace(deviation, *numbers).visualize(HERE / "deviation.svg", values=numbers)


if __name__ == "__main__":
    value_and_gradient()
    training_step()
    deviation()
    deep_network()
