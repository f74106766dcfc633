"""What the kernels for GPUs are tried on: a function for each template, a case for each op."""

from __future__ import annotations

from typing import Any

import numpy as np

import graphdl as gd
from graphdl.compiler import pipeline
from graphdl.kernels.cuda.covered import missing
from graphdl.ops.table import OPS
from tests.helpers import trace
from tests.op_cases import Case, cases

RNG = np.random.default_rng(7)


def draw(*shape: int, dtype: str = "float32") -> np.ndarray:
    return RNG.normal(size=shape).astype(dtype)


def softmax(x):
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


def layer_norm(x, scale, shift):
    centred = x - np.mean(x, axis=-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + 1e-5) * scale + shift


def replaced(x):
    y = x * 1
    y[1:3] = 0
    return y * 2


#: What each template of kernels is tried on, by name.
CASES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "elements, wide": (lambda x, y: np.tanh(x) * y + 1, (draw(6, 8), draw(8))),
    "elements, float64": (lambda x: np.exp(x) / 3, (draw(6, 8, dtype="float64"),)),
    "elements, odd": (lambda x: np.exp(x) * 2.5, (draw(5, 7),)),
    "elements, two results": (lambda x, y: (x + y, x * y), (draw(6, 8), draw(8))),
    "elements, broadcast both ways": (lambda x: x + x[:, :1] * x[:1], (draw(5, 7),)),
    "elements, a number": (lambda x: np.sqrt(x * x), (draw(),)),
    "elements, slices": (lambda x: x[1:] - x[:-1], (draw(5, 7),)),
    "elements, mixed dtypes": (lambda x: (x > 0) & (x < 1), (draw(4, 8),)),
    "elements, integers": (lambda x: x // 3 + x % 5, (np.arange(-8, 8),)),
    "elements, counted": (lambda x: x * np.arange(8), (draw(6, 8),)),
    "elements, gathered": (lambda x, i: x[i] * 2, (draw(6, 8), np.array([3, 1, -1]))),
    "elements, padded": (lambda x: np.pad(x, ((1, 2), (0, 3))) * 2, (draw(5, 7),)),
    "elements, replaced": (replaced, (draw(6, 8),)),
    "elements, joined": (lambda x, y: np.concatenate([x, y], 1), (draw(5, 3), draw(5, 7))),
    "elements, random": (lambda k: gd.random.normal(k, (37,), "float32"), (gd.random.key(3),)),
    "elements, a sum of all": (lambda x: np.sum(x * x), (draw(6, 8),)),
    "elements, a long sum": (lambda x: np.sum(np.exp(x)), (draw(2500),)),
    "tiles, read across": (lambda x: np.exp(x.T), (draw(37, 70),)),
    "tiles, both": (lambda x: x + x.T, (draw(5, 5),)),
    "rows, a sum": (lambda x: np.sum(x, axis=1), (draw(6, 8),)),
    "rows, softmax": (softmax, (draw(5, 7),)),
    "rows, softmax, wide": (softmax, (draw(9, 8),)),
    "rows, softmax of a block": (softmax, (draw(2, 1100),)),
    "rows, gradient of softmax": (
        gd.grad(lambda x, y: np.sum(softmax(x) * y)), (draw(6, 8), draw(8)),
    ),
    "rows, layer norm": (layer_norm, (draw(6, 8), draw(8), draw(8))),
    "rows and columns": (
        gd.grad(lambda *args: np.sum(np.sin(layer_norm(*args))), (0, 1, 2)),
        (draw(6, 8), draw(8), draw(8)),
    ),
    "rows, positions": (lambda x: (np.argmax(x, 1), np.argmin(x, 1)), (draw(6, 8),)),
    "rows, truth": (lambda x: (np.any(x > 1, 1), np.all(x > -2, 1)), (draw(6, 8),)),
    "columns": (lambda x: np.sum(x, axis=0), (draw(70, 8),)),
    "columns, odd": (lambda x: np.max(x, axis=0), (draw(11, 5),)),
    "columns of batches": (lambda x: np.sum(x, axis=1), (draw(3, 9, 8),)),
    "columns and rows apart": (lambda x: (np.mean(x), np.max(x, 1), np.min(x)), (draw(6, 8),)),
}  # fmt: skip

#: Cases whose arrays let every access take 16 bytes.
WIDE = (
    "elements, wide", "elements, float64", "elements, two results", "rows, softmax, wide",
    "rows, layer norm", "columns",
)  # fmt: skip


def draw_all(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    return [draw(*shape) for shape in shapes]


#: Functions of several ops whose kernels have templates of their own.
COMPOSED = {
    "product": (lambda x, w, b: np.tanh(x @ w + b), draw_all((5, 7), (7, 6), (6,))),
    "product, several blocks": (lambda x, w: x @ w, draw_all((5, 18), (18, 67))),
    "product, turned": (lambda x, w: (x.T @ w.T, w @ x), draw_all((7, 5), (6, 7))),
    "products in batches": (
        lambda x, y: np.einsum("bij,bkj->bik", x, y), draw_all((2, 3, 4), (2, 5, 4)),
    ),
    "gradients of a layer": (
        gd.grad(lambda w, x, y: np.mean((np.maximum(x @ w, 0) - y) ** 2)),
        draw_all((4, 3), (6, 4), (6, 3)),
    ),
    "sort": (lambda x: np.sort(x, axis=0), draw_all((13, 2))),
    "scatter": (lambda x, v: scattered(x, v), draw_all((6, 3), (4, 3))),
}  # fmt: skip


def scattered(x, v):
    x = x * 1
    np.add.at(x, np.array([1, 4, 1, 5]), v)
    return x


def every_case(dtype: np.dtype) -> list[Case]:
    """Cases with operands, but those of complex numbers, which are pairs of floats in a program."""
    found = [case for op in OPS.values() for case in cases(op, dtype) if case.operands]
    return [case for case in found if case.op.family != "complex"]


def is_covered(case: Case) -> bool:
    optimised = pipeline.optimise(trace(case, *case.operands), pipeline.DEVICE_PASSES)[-1][1]
    return not any(missing(node) for node in optimised.operations)
