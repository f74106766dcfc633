"""Draws pictures of the README: `python docs/pictures.py` from the root of the repository.

Those that its own blocks draw are written by `python tools/readme_blocks.py update`.
"""

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


if __name__ == "__main__":
    training_step()
    deep_network()
