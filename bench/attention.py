"""attention: a transformer block, forward and a training step, for 128 to 1,024 tokens.

Layer norm, attention of 4 heads, layer norm, an MLP four times as wide with GELU, residuals; width
256, float32, 1,024 tokens in all. The loss is half the mean square of a token's result. The floor
is the matrix products alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench import floors, harness, report, rows, training
from bench.cases import Array, Case, Prepared, Target
from bench.functions import VALUE, Function, Question, contestants, scaled

RULE = training.Rule(0.1)
PARAMETERS = 12


@dataclass(frozen=True)
class Block:
    """A batch of sequences of tokens of a width, and how many heads attend."""

    batch: int
    tokens: int
    width: int
    heads: int

    @property
    def depth(self) -> int:
        return self.width // self.heads

    @property
    def name(self) -> str:
        return f"{self.batch} x {self.tokens} tokens"


BLOCKS = {
    "full": (Block(8, 128, 256, 4), Block(2, 512, 256, 4), Block(1, 1024, 256, 4)),
    "tiny": (Block(2, 3, 4, 2),),
}


def inputs(block: Block) -> dict[str, Array]:
    """The twelve parameters in the order of the computation, then x (batch, tokens, width)."""
    d = block.width
    made = {}
    for place, (name, shape) in enumerate(
        {
            "scale1": (d,), "shift1": (d,), "wqkv": (d, 3 * d), "bqkv": (3 * d,),
            "wo": (d, d), "bo": (d,), "scale2": (d,), "shift2": (d,),
            "w1": (d, 4 * d), "b1": (4 * d,), "w2": (4 * d, d), "b2": (d,),
        }.items()
    ):  # fmt: skip
        spread = shape[0] ** -0.5 if len(shape) == 2 else 0.1
        made[name] = scaled(shape, spread, seed=place) + np.float32(name.startswith("scale"))
    return {**made, "x": scaled((block.batch, block.tokens, d), 1.0, seed=20)}


def gelu(np: Any, x: Any) -> Any:
    return 0.5 * x * (1.0 + np.tanh(0.7978845608 * (x + 0.044715 * x * x * x)))


def _norm(np: Any, x: Any, scale: Any, shift: Any) -> Any:
    centred = x - np.mean(x, axis=-1, keepdims=True)
    variance = np.mean(centred * centred, axis=-1, keepdims=True)
    return centred / np.sqrt(variance + rows.EPSILON) * scale + shift


def numpy_block(
    block: Block, np: Any, scale1: Any, shift1: Any, wqkv: Any, bqkv: Any, wo: Any, bo: Any,
    scale2: Any, shift2: Any, w1: Any, b1: Any, w2: Any, b2: Any, x: Any,
) -> Any:  # fmt: skip
    shape = (block.batch, block.tokens, 3, block.heads, block.depth)
    qkv = (_norm(np, x, scale1, shift1) @ wqkv + bqkv).reshape(shape)
    q, k, v = (np.transpose(qkv[:, :, i], (0, 2, 1, 3)) for i in range(3))
    scores = (q @ np.transpose(k, (0, 1, 3, 2))) * block.depth**-0.5
    e = np.exp(scores - np.max(scores, axis=-1, keepdims=True))
    attended = (e / np.sum(e, axis=-1, keepdims=True)) @ v
    joined = np.transpose(attended, (0, 2, 1, 3)).reshape((block.batch, block.tokens, block.width))
    x = x + joined @ wo + bo
    return x + gelu(np, _norm(np, x, scale2, shift2) @ w1 + b1) @ w2 + b2


def jax_block(
    block: Block, jax: Any, scale1: Any, shift1: Any, wqkv: Any, bqkv: Any, wo: Any, bo: Any,
    scale2: Any, shift2: Any, w1: Any, b1: Any, w2: Any, b2: Any, x: Any,
) -> Any:  # fmt: skip
    shape = (block.batch, block.tokens, 3, block.heads, block.depth)
    qkv = (_norm(jax.numpy, x, scale1, shift1) @ wqkv + bqkv).reshape(shape)
    attended = jax.nn.dot_product_attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])
    x = x + attended.reshape(x.shape) @ wo + bo
    hidden = jax.nn.gelu(_norm(jax.numpy, x, scale2, shift2) @ w1 + b1, approximate=True)
    return x + hidden @ w2 + b2


def torch_block(
    block: Block, torch: Any, scale1: Any, shift1: Any, wqkv: Any, bqkv: Any, wo: Any, bo: Any,
    scale2: Any, shift2: Any, w1: Any, b1: Any, w2: Any, b2: Any, x: Any,
) -> Any:  # fmt: skip
    functional = torch.nn.functional
    shape = (block.batch, block.tokens, 3, block.heads, block.depth)
    h = functional.layer_norm(x, x.shape[-1:], scale1, shift1, rows.EPSILON)
    qkv = functional.linear(h, wqkv.T, bqkv).reshape(shape)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    attended = functional.scaled_dot_product_attention(q, k, v)
    x = x + functional.linear(attended.transpose(1, 2).reshape(x.shape), wo.T, bo)
    h = functional.layer_norm(x, x.shape[-1:], scale2, shift2, rows.EPSILON)
    hidden = functional.gelu(functional.linear(h, w1.T, b1), approximate="tanh")
    return x + functional.linear(hidden, w2.T, b2)


def functions(block: Block, loss: bool) -> Function:
    """The block in each library, or half the mean square of a token's result."""

    def of(definition: Any) -> Any:
        def value(module: Any, *arrays: Any) -> Any:
            out = definition(block, module, *arrays)
            return (out * out).sum() * (0.5 / (block.batch * block.tokens)) if loss else out

        return value

    return Function(of(numpy_block), of(torch_block), of(numpy_block), of(jax_block))


def loss_by_hand(block: Block, *arrays: Array) -> list[Array]:
    """The loss and its gradients by the parameters, in the precision of the arrays."""
    scale1, shift1, wqkv, bqkv, wo, bo, scale2, shift2, w1, b1, w2, b2, x = arrays
    d, count = block.width, block.batch * block.tokens
    x = x.reshape(count, d)

    def heads(part: Array) -> Array:
        split = part.reshape(block.batch, block.tokens, block.heads, block.depth)
        return split.transpose(0, 2, 1, 3)

    def joined(part: Array) -> Array:
        return part.transpose(0, 2, 1, 3).reshape(count, d)

    none = np.zeros_like(x)
    h1 = rows.layer_norm_by_hand(none, x, scale1, shift1)[0]
    qkv = h1 @ wqkv + bqkv
    q, k, v = (heads(part) for part in np.split(qkv, 3, axis=1))
    scores = q @ k.swapaxes(2, 3) * block.depth**-0.5
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    attended = joined(p @ v)
    y = x + attended @ wo + bo
    h2 = rows.layer_norm_by_hand(none, y, scale2, shift2)[0]
    before = h2 @ w1 + b1
    inner = np.tanh(0.7978845608 * (before + 0.044715 * before**3))
    hidden = 0.5 * before * (1 + inner)
    out = y + hidden @ w2 + b2

    g = out / count
    slope = 0.5 * (1 + inner) + 0.5 * before * (1 - inner**2) * 0.7978845608 * (
        1 + 3 * 0.044715 * before**2
    )
    dbefore = (g @ w2.T) * slope
    _, dy, dscale2, dshift2 = rows.layer_norm_by_hand(dbefore @ w1.T, y, scale2, shift2)
    dy = dy + g
    dattended = heads(dy @ wo.T)
    dp = dattended @ v.swapaxes(2, 3)
    dscores = p * (dp - (dp * p).sum(-1, keepdims=True)) * block.depth**-0.5
    dqkv = np.concatenate(
        [
            joined(dscores @ k),
            joined(dscores.swapaxes(2, 3) @ q),
            joined(p.swapaxes(2, 3) @ dattended),
        ],
        axis=1,
    )
    _, _, dscale1, dshift1 = rows.layer_norm_by_hand(dqkv @ wqkv.T, x, scale1, shift1)
    return [
        0.5 * np.sum(out * out) / count,
        *(dscale1, dshift1, h1.T @ dqkv, dqkv.sum(0), attended.T @ dy, dy.sum(0)),
        *(dscale2, dshift2, h2.T @ dbefore, dbefore.sum(0), hidden.T @ g, g.sum(0)),
    ]


def products(block: Block, step: bool) -> list[tuple[int, int, int]]:
    """The matrix products (m, k, n) of the block; in a step also those of their gradients."""
    count, d, e, n = block.batch * block.tokens, block.width, block.depth, block.tokens
    shapes = [(count, d, 3 * d), (count, d, d), (count, d, 4 * d), (count, 4 * d, d)]
    shapes += [(n, e, n), (n, n, e)] * (block.batch * block.heads)
    backward = [pair for m, k, n in shapes for pair in ((m, n, k), (k, m, n))]
    return shapes + backward if step else shapes


def case(block: Block, step: bool) -> Case:
    """The block's result, or a training step."""

    def expected(inputs: Mapping[str, Array]) -> list[Array]:
        if step:
            return training.expected(
                lambda *arrays: loss_by_hand(block, *arrays), RULE, PARAMETERS, inputs
            )
        arrays = (array.astype(np.float64) for array in inputs.values())
        return [numpy_block(block, np, *arrays)]

    def floor(inputs: Mapping[str, Array]) -> Prepared:
        return Prepared(lambda: expected(inputs), floors.multiplying(products(block, step)))

    made = functions(block, loss=step)
    builders = (
        training.trainers(made, RULE, PARAMETERS) if step else contestants(made, Question(VALUE))
    )
    return Case(
        name=f"{'training step' if step else 'forward'}, {block.name}",
        inputs=lambda: inputs(block),
        expected=expected,
        builders={**builders, "floor": floor},
        tolerance=1e-4,
        floor_label="the products alone, by BLAS",
        targets=(Target(times=1.3),),
    )


def cases(size: str) -> list[Case]:
    """Each length, forward and a training step."""
    return [case(block, step) for block in BLOCKS[size] for step in (False, True)]


def run(options: harness.Options) -> report.Report:
    """Run it."""
    return harness.race("attention", cases(options.size), options)
