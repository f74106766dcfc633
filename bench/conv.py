"""conv: convolutions and their gradients, and training steps of LeNet-5, a CIFAR network, AlexNet.

A layer is max(conv(x, w) + b, 0): forward, and with the gradients of x, w and b for a given
cotangent. Networks take one step of SGD on softmax cross entropy. All is float32, channels last
where the library lets one choose (PyTorch's kernels are quicker so, too). The floor is the matrix
products that the patches would make, by BLAS, with the patches already there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench import floors, harness, placement, report
from bench.cases import Array, Case, Prepared, Target
from bench.peers import library

RATE = 0.01
FLOOR_LABEL = "the products alone, by BLAS"


# -- layers ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """A convolution with a square window of an image of size x size; padding keeps the size."""

    name: str
    batch: int
    size: int
    channels: int
    outputs: int
    window: int
    stride: int = 1
    groups: int = 1

    @property
    def padding(self) -> int:
        return self.window // 2


LAYERS = {
    "full": (
        Layer("3x3, 64 x 28 x 28 x 32 to 32", 64, 28, 32, 32, 3),
        Layer("3x3, 32 x 14 x 14 x 64 to 128", 32, 14, 64, 128, 3),
        Layer("5x5, 64 x 28 x 28 x 32 to 32", 64, 28, 32, 32, 5),
        Layer("1x1, 64 x 28 x 28 x 64 to 128", 64, 28, 64, 128, 1),
        Layer("depthwise 3x3, 64 x 28 x 28 x 64", 64, 28, 64, 64, 3, groups=64),
        Layer("3x3 by 2, 64 x 28 x 28 x 32 to 64", 64, 28, 32, 64, 3, stride=2),
    ),
    "tiny": (
        Layer("3x3", 2, 5, 3, 4, 3),
        Layer("depthwise", 2, 5, 3, 3, 3, groups=3),
        Layer("3x3 by 2", 2, 6, 3, 4, 3, stride=2),
    ),
}


def layer_inputs(layer: Layer) -> dict[str, Array]:
    """x, w, b and the cotangent g of the result."""
    rng = np.random.default_rng(0)
    n, size, places = layer.batch, layer.size, -(-layer.size // layer.stride)
    depth = layer.channels // layer.groups
    shapes = {
        "x": (n, size, size, layer.channels),
        "w": (layer.window, layer.window, depth, layer.outputs),
        "b": (layer.outputs,),
        "g": (n, places, places, layer.outputs),
    }
    found = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    found["w"] *= np.float32((layer.window**2 * depth) ** -0.5)
    return found


def patches(x: Array, window: int, stride: int, padding: int) -> Array:
    """What the window sees: (batch, places, places, window, window, channels), a view."""
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    seen = np.lib.stride_tricks.sliding_window_view(x, (window, window), (1, 2))
    return np.moveaxis(seen[:, ::stride, ::stride], 3, -1)


def conv(x: Array, w: Array, stride: int, padding: int, groups: int = 1) -> Array:
    """The convolution, by one product a group."""
    seen = patches(x, w.shape[0], stride, padding)
    parts = [
        np.tensordot(part, own, 3)
        for part, own in zip(np.split(seen, groups, -1), np.split(w, groups, -1), strict=True)
    ]
    return np.concatenate(parts, -1)


def conv_gradients(
    g: Array, x: Array, w: Array, stride: int, padding: int, groups: int = 1
) -> tuple[Array, Array]:
    """The gradients of x and w, the first by adding up what each element of the window gives."""
    n, size, window, places = len(x), x.shape[1], w.shape[0], g.shape[1]
    seen = patches(x, window, stride, padding)
    dx = np.zeros((n, size + 2 * padding, size + 2 * padding, x.shape[-1]))
    dw = np.zeros(w.shape)
    depth, outputs = x.shape[-1] // groups, w.shape[-1] // groups
    for group in range(groups):
        ins = slice(group * depth, (group + 1) * depth)
        outs = slice(group * outputs, (group + 1) * outputs)
        dw[..., outs] = np.tensordot(seen[..., ins], g[..., outs], ((0, 1, 2), (0, 1, 2)))
        for i, j in np.ndindex(window, window):
            rows, columns = (slice(k, k + stride * places, stride) for k in (i, j))
            part = dx[:, rows, columns, ins]
            part += g[..., outs] @ w[i, j, :, outs].T
    inner = slice(padding, padding + size)
    return dx[:, inner, inner], dw


def forward_expected(layer: Layer, inputs: Mapping[str, Array]) -> list[Array]:
    x, w, b = (inputs[name].astype(np.float64) for name in "xwb")
    return [np.maximum(conv(x, w, layer.stride, layer.padding, layer.groups) + b, 0)]


def gradient_expected(layer: Layer, inputs: Mapping[str, Array]) -> list[Array]:
    x, w, g = (inputs[name].astype(np.float64) for name in "xwg")
    (out,) = forward_expected(layer, inputs)
    g = g * (out > 0)
    dx, dw = conv_gradients(g, x, w, layer.stride, layer.padding, layer.groups)
    return [out, dx, dw, g.sum((0, 1, 2))]


def _of_both(
    forward: Callable[..., Any], gradient: Callable[..., Any], wants: str, operands: Sequence[Any]
) -> Callable[[], Any]:
    return (lambda: forward(*operands[:3])) if wants == "forward" else (lambda: gradient(*operands))


def layer_with_graphdl(layer: Layer, wants: str) -> Callable[[Mapping[str, Array]], Prepared]:
    def build(inputs: Mapping[str, Array]) -> Prepared:
        import graphdl as gd
        from graphdl import nn

        given = {"strides": layer.stride, "padding": layer.padding, "groups": layer.groups}

        def forward(x: Any, w: Any, b: Any) -> Any:
            return np.maximum(nn.conv(x, w, **given) + b, 0)

        def gradient(x: Any, w: Any, b: Any, g: Any) -> Any:
            out, pull = gd.vjp(forward, x, w, b)
            return out, *pull(g)

        arrays = placement.put([*inputs.values()])
        asked = placement.compiled(forward if wants == "forward" else gradient)
        given_arrays = arrays[:3] if wants == "forward" else arrays

        def call() -> Any:
            return asked(*given_arrays)

        return Prepared(lambda: _listed(call()), call, lambda: asked.lower(*given_arrays))

    return build


def _listed(results: Any) -> list[Any]:
    return list(results) if isinstance(results, tuple) else [results]


def layer_with_jax(layer: Layer, wants: str) -> Callable[[Mapping[str, Array]], Prepared]:
    def build(inputs: Mapping[str, Array]) -> Prepared:
        jax = library("jax")
        jnp = library("jax.numpy")

        def forward(x: Any, w: Any, b: Any) -> Any:
            out = _jax_conv(jax, x, w, layer.stride, layer.padding, layer.groups)
            return jax.nn.relu(out + b)

        def gradient(x: Any, w: Any, b: Any, g: Any) -> Any:
            out, pull = jax.vjp(forward, x, w, b)
            return out, *pull(g)

        operands = [jnp.asarray(value) for value in inputs.values()]
        call = _of_both(jax.jit(forward), jax.jit(gradient), wants, operands)

        def wait() -> Any:
            return jax.block_until_ready(call())

        return Prepared(lambda: [np.asarray(v) for v in _listed(wait())], wait)

    return build


def _jax_conv(jax: Any, x: Any, w: Any, stride: int, padding: int, groups: int = 1) -> Any:
    return jax.lax.conv_general_dilated(
        x, w, (stride, stride), [(padding, padding)] * 2, feature_group_count=groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


def layer_with_torch(layer: Layer, wants: str) -> Callable[[Mapping[str, Array]], Prepared]:
    def build(inputs: Mapping[str, Array]) -> Prepared:
        torch = library("torch")
        functional = torch.nn.functional
        x, g = (images_to_torch(inputs[name]) for name in "xg")
        w, b = weights_to_torch(inputs["w"]), placement.tensor(inputs["b"])
        for leaf in (x, w, b):
            leaf.requires_grad_(wants == "gradient")

        def forward() -> Any:
            return functional.conv2d(
                x, w, b, layer.stride, layer.padding, groups=layer.groups
            ).relu()

        def call() -> Any:
            out = forward()
            if wants == "forward":
                return (out,)
            return out, *torch.autograd.grad(out, (x, w, b), g)

        orders = ((0, 2, 3, 1), (0, 2, 3, 1), (2, 3, 1, 0), (0,))

        def results() -> list[Any]:
            return [
                placement.host(value.detach().permute(order))
                for value, order in zip(call(), orders, strict=False)
            ]

        return Prepared(results, call)

    return build


def images_to_torch(value: Array) -> Any:
    """(batch, channels, height, width), in memory channels last."""
    return placement.tensor(value).permute(0, 3, 1, 2)


def weights_to_torch(value: Array) -> Any:
    """(outputs, channels, height, width)."""
    return placement.tensor(value).permute(3, 2, 0, 1).contiguous()


def layer_floor(layer: Layer, wants: str) -> Callable[[Mapping[str, Array]], Prepared]:
    def build(inputs: Mapping[str, Array]) -> Prepared:
        rows = inputs["g"][..., 0].size
        depth = inputs["w"][..., 0].size
        shapes = [(rows, depth, layer.outputs // layer.groups)]
        call = products(shapes * layer.groups, gradients=wants == "gradient")
        found = forward_expected if wants == "forward" else gradient_expected
        return Prepared(lambda: found(layer, inputs), call)

    return build


def products(shapes: Sequence[tuple[int, int, int]], gradients: bool) -> Callable[[], None]:
    """a @ b for each shape (m, k, n), and the products of their gradients."""
    if placement.on_gpu():
        turned = [one for m, k, n in shapes for one in ((m, n, k), (k, m, n))]
        return floors.multiplying([*shapes, *(turned if gradients else ())])
    arrays = [
        tuple(np.ones(shape, np.float32) for shape in ((m, k), (k, n), (m, n)))
        for m, k, n in shapes
    ]

    def call() -> None:
        for a, b, c in arrays:
            np.matmul(a, b, out=c)
            if gradients:
                c @ b.T
                a.T @ c

    return call


# -- networks --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Conv:
    window: int
    outputs: int
    stride: int = 1
    padding: int = 0


@dataclass(frozen=True)
class Pool:
    """Max pooling."""

    window: int
    stride: int


@dataclass(frozen=True)
class Dense:
    outputs: int


Piece = Conv | Pool | Dense


@dataclass(frozen=True)
class Network:
    """Pieces in order; a ReLU follows each convolution and each dense layer but the last."""

    name: str
    batch: int
    size: int
    channels: int
    pieces: tuple[Piece, ...]
    steps: int = 2


LENET = (
    Conv(5, 6, padding=2),
    Pool(2, 2),
    Conv(5, 16),
    Pool(2, 2),
    Dense(120),
    Dense(84),
    Dense(10),
)
CIFAR = (
    Conv(3, 32, padding=1), Conv(3, 32, padding=1), Pool(2, 2), Conv(3, 64, padding=1),
    Conv(3, 64, padding=1), Pool(2, 2), Dense(256), Dense(10),
)  # fmt: skip
#: A. Krizhevsky, "One weird trick for parallelizing convolutional neural networks",
#: arXiv:1404.5997, as torchvision has it.
ALEXNET = (
    Conv(11, 64, 4, 2), Pool(3, 2), Conv(5, 192, padding=2), Pool(3, 2), Conv(3, 384, padding=1),
    Conv(3, 256, padding=1), Conv(3, 256, padding=1), Pool(3, 2), Dense(4096), Dense(4096),
    Dense(1000),
)  # fmt: skip
NETWORKS = {
    "full": (
        Network("LeNet-5, batch 64", 64, 28, 1, LENET),
        Network("CIFAR network, batch 32", 32, 32, 3, CIFAR),
        Network("AlexNet, batch 8", 8, 224, 3, ALEXNET, steps=1),
    ),
    "tiny": (
        Network(
            "network", 2, 9, 2, (Conv(3, 3, 2, 1), Pool(2, 1), Conv(2, 4), Pool(3, 2), Dense(3))
        ),
    ),
}


def network_inputs(network: Network) -> dict[str, Any]:
    """`parameters`, w and b of each layer in turn; `x`, `labels`; as the pieces need them."""
    rng = np.random.default_rng(0)
    parameters: list[Array] = []
    size, channels, flat = network.size, network.channels, False
    for piece in network.pieces:
        if isinstance(piece, Pool):
            size = (size - piece.window) // piece.stride + 1
            continue
        if isinstance(piece, Conv):
            shape: tuple[int, ...] = (piece.window, piece.window, channels, piece.outputs)
            size = (size + 2 * piece.padding - piece.window) // piece.stride + 1
        else:
            shape = (channels if flat else channels * size * size, piece.outputs)
            flat = True
        channels = piece.outputs
        w = rng.standard_normal(shape, np.float32) * np.float32((2 / np.prod(shape[:-1])) ** 0.5)
        parameters += [w, rng.normal(0, 0.1, channels).astype(np.float32)]
    shape = (network.batch, network.size, network.size, network.channels)
    return {
        "parameters": parameters,
        "x": rng.standard_normal(shape, np.float32),
        "labels": rng.integers(0, channels, network.batch),
    }


def network_expected(network: Network, inputs: Mapping[str, Any]) -> list[Array]:
    """The loss of each step and the parameters after them, by hand, in float64."""
    parameters = [p.astype(np.float64) for p in inputs["parameters"]]
    losses = []
    for _ in range(network.steps):
        losses.append(_step_by_hand(network, parameters, inputs["x"], inputs["labels"]))
    return [np.asarray(losses), *parameters]


def _step_by_hand(network: Network, parameters: list[Array], x: Array, labels: Array) -> Any:
    h = x.astype(np.float64)
    tape: list[tuple[Piece, Array, Array]] = []  # a piece, what it took, what it gave
    weights = iter(zip(parameters[::2], parameters[1::2], strict=True))
    last = network.pieces[-1]
    for piece in network.pieces:
        before = h
        if isinstance(piece, Pool):
            h = patches(h, piece.window, piece.stride, 0).max((3, 4))
        else:
            w, b = next(weights)
            if isinstance(piece, Conv):
                h = conv(h, w, piece.stride, piece.padding) + b
            else:
                before = before.reshape(len(before), -1)
                h = before @ w + b
            if piece is not last:
                h = np.maximum(h, 0)
        tape.append((piece, before, h))
    shifted = h - h.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    rows = np.arange(len(x))
    g = np.exp(log_p)
    g[rows, labels] -= 1
    g /= len(x)
    number = len(parameters)
    for piece, before, after in reversed(tape):
        g = g.reshape(after.shape)
        if isinstance(piece, Pool):
            g = _pool_gradient(piece, g, before)
            continue
        number -= 2
        w, b = parameters[number : number + 2]
        if piece is not last:
            g = g * (after > 0)
        db = g.reshape(-1, g.shape[-1]).sum(0)
        if isinstance(piece, Conv):
            g, dw = conv_gradients(g, before, w, piece.stride, piece.padding)
        else:
            g, dw = g @ w.T, before.T @ g
        w -= RATE * dw
        b -= RATE * db
    return -log_p[rows, labels].mean()


def _pool_gradient(piece: Pool, g: Array, x: Array) -> Array:
    """To the first of the largest."""
    seen = patches(x, piece.window, piece.stride, 0)
    best = seen.reshape(*seen.shape[:3], -1, seen.shape[-1]).argmax(3)
    found = np.zeros_like(x)
    n, i, j, c = np.indices(g.shape)
    rows, columns = (
        i * piece.stride + best // piece.window,
        j * piece.stride + best % piece.window,
    )
    np.add.at(found, (n, rows, columns, c), g)
    return found


@dataclass(frozen=True)
class Trainer:
    """One contestant's network: `step()` trains on the batch, waits and gives the loss before."""

    step: Callable[[], Any]
    parameters: Callable[[], Sequence[Array]]
    executable: Callable[[], Any] | None = None


def prepared_by(
    network: Network, make: Callable[[Network, Mapping[str, Any]], Trainer]
) -> Callable[[Mapping[str, Any]], Prepared]:
    def build(inputs: Mapping[str, Any]) -> Prepared:
        trainer = make(network, {**inputs, "parameters": [p.copy() for p in inputs["parameters"]]})

        def results() -> list[Any]:
            losses = [float(trainer.step()) for _ in range(network.steps)]
            return [np.asarray(losses), *trainer.parameters()]

        return Prepared(results, trainer.step, trainer.executable)

    return build


def graphdl_trainer(network: Network, inputs: Mapping[str, Any]) -> Trainer:
    import graphdl as gd
    from graphdl import losses, nn

    def loss(parameters: Any, x: Any, labels: Any) -> Any:
        weights = iter(zip(parameters[::2], parameters[1::2], strict=True))
        for piece in network.pieces:
            if isinstance(piece, Pool):
                x = nn.max_pool(x, piece.window, strides=piece.stride)
                continue
            w, b = next(weights)
            if isinstance(piece, Conv):
                x = nn.conv(x, w, strides=piece.stride, padding=piece.padding) + b
            else:
                x = x.reshape((x.shape[0], -1)) @ w + b
            if piece is not network.pieces[-1]:
                x = np.maximum(x, 0)
        return losses.softmax_cross_entropy(x, labels)

    def update(parameters: Any, x: Any, labels: Any) -> Any:
        value, gradients = gd.value_and_grad(loss)(parameters, x, labels)
        return value, [p - RATE * g for p, g in zip(parameters, gradients, strict=True)]

    compiled = placement.compiled(update, donate=(0,))
    state = inputs["parameters"]
    x, labels = placement.put([inputs["x"], inputs["labels"]])

    def step() -> Any:
        nonlocal state
        value, state = compiled(state, x, labels)
        return value

    def executable() -> Any:
        return compiled.lower(state, inputs["x"], inputs["labels"])

    return Trainer(step, lambda: state, executable)


def jax_trainer(network: Network, inputs: Mapping[str, Any]) -> Trainer:
    jax = library("jax")
    jnp = library("jax.numpy")

    def loss(parameters: Any, x: Any, labels: Any) -> Any:
        weights = iter(zip(parameters[::2], parameters[1::2], strict=True))
        for piece in network.pieces:
            if isinstance(piece, Pool):
                window, strides = (1, *(piece.window,) * 2, 1), (1, *(piece.stride,) * 2, 1)
                x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, "VALID")
                continue
            w, b = next(weights)
            if isinstance(piece, Conv):
                x = _jax_conv(jax, x, w, piece.stride, piece.padding) + b
            else:
                x = x.reshape((x.shape[0], -1)) @ w + b
            if piece is not network.pieces[-1]:
                x = jax.nn.relu(x)
        log_p = jax.nn.log_softmax(x)
        return -jnp.mean(jnp.take_along_axis(log_p, labels[:, None], axis=1))

    def update(parameters: Any, x: Any, labels: Any) -> Any:
        value, gradients = jax.value_and_grad(loss)(parameters, x, labels)
        return value, jax.tree.map(lambda p, g: p - RATE * g, parameters, gradients)

    jitted = jax.jit(update, donate_argnums=0)
    state = [jnp.array(p) for p in inputs["parameters"]]
    x, labels = jnp.asarray(inputs["x"]), jnp.asarray(inputs["labels"])

    def step() -> Any:
        nonlocal state
        value, state = jitted(state, x, labels)
        jax.block_until_ready((value, state))
        return value

    return Trainer(step, lambda: [np.asarray(p) for p in state])


def torch_trainer(network: Network, inputs: Mapping[str, Any]) -> Trainer:
    """Flattening keeps the order of channels last, as the others have it."""
    torch = library("torch")
    functional = torch.nn.functional
    leaves = [
        (weights_to_torch(p) if p.ndim == 4 else placement.tensor(p)).requires_grad_()
        for p in inputs["parameters"]
    ]
    images, labels = images_to_torch(inputs["x"]), placement.tensor(inputs["labels"])
    optimiser = torch.optim.SGD(leaves, lr=RATE)

    def step() -> Any:
        optimiser.zero_grad()
        x = images
        weights = iter(zip(leaves[::2], leaves[1::2], strict=True))
        for piece in network.pieces:
            if isinstance(piece, Pool):
                x = functional.max_pool2d(x, piece.window, piece.stride)
                continue
            w, b = next(weights)
            if isinstance(piece, Conv):
                x = functional.conv2d(x, w, b, piece.stride, piece.padding)
            else:
                rows = x.permute(0, 2, 3, 1).flatten(1) if x.ndim == 4 else x
                x = torch.addmm(b, rows, w)
            if piece is not network.pieces[-1]:
                x = x.relu()
        value = functional.cross_entropy(x, labels)
        value.backward()
        optimiser.step()
        return value.detach()

    def parameters() -> list[Array]:
        return [
            placement.host(p.detach().permute(2, 3, 1, 0) if p.ndim == 4 else p) for p in leaves
        ]

    return Trainer(step, parameters)


def network_floor(network: Network) -> Callable[[Mapping[str, Any]], Prepared]:
    def build(inputs: Mapping[str, Any]) -> Prepared:
        shapes, size = [], network.size
        weights = iter(inputs["parameters"][::2])
        for piece in network.pieces:
            if isinstance(piece, Pool):
                size = (size - piece.window) // piece.stride + 1
                continue
            w = next(weights)
            rows = network.batch
            if isinstance(piece, Conv):
                size = (size + 2 * piece.padding - piece.window) // piece.stride + 1
                rows *= size * size
            shapes.append((rows, int(np.prod(w.shape[:-1])), w.shape[-1]))
        return Prepared(lambda: network_expected(network, inputs), products(shapes, True))

    return build


# -- cases -----------------------------------------------------------------------------------------


def layer_case(layer: Layer, wants: str) -> Case:
    """A layer, "forward" or with its "gradient"."""
    expected = forward_expected if wants == "forward" else gradient_expected
    peers = {"graphdl": layer_with_graphdl, "jax": layer_with_jax, "torch": layer_with_torch}
    return Case(
        name=f"{wants}, {layer.name}",
        inputs=lambda: layer_inputs(layer),
        expected=lambda inputs: expected(layer, inputs),
        builders={
            **{name: make(layer, wants) for name, make in peers.items()},
            "floor": layer_floor(layer, wants),
        },
        tolerance=1e-4,
        floor_label=FLOOR_LABEL,
        targets=(Target(1.1, ("torch",)), Target(2.5, ("jax",))),
    )


def network_case(network: Network) -> Case:
    """A training step."""
    trainers = {"graphdl": graphdl_trainer, "jax": jax_trainer, "torch": torch_trainer}
    return Case(
        name=f"training step, {network.name}",
        inputs=lambda: network_inputs(network),
        expected=lambda inputs: network_expected(network, inputs),
        builders={
            **{name: prepared_by(network, make) for name, make in trainers.items()},
            "floor": network_floor(network),
        },
        tolerance=1e-3,
        floor_label=FLOOR_LABEL,
        targets=(Target(1.2, ("torch",)), Target(2.5, ("jax",))),
    )


def cases(size: str) -> list[Case]:
    """Each layer forward and with its gradient, then the networks."""
    layers = [
        layer_case(layer, wants) for layer in LAYERS[size] for wants in ("forward", "gradient")
    ]
    return layers + [network_case(network) for network in NETWORKS[size]]


def run(options: harness.Options) -> report.Report:
    """Run it."""
    return harness.race("conv", cases(options.size), options)
