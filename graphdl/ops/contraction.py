"""Contraction: the sum of products of two arrays over shared axes, as einsum writes it.

One op serves dot, matmul, tensordot and each pairwise step of an einsum; its gradients are
contractions again. Axes are labelled by integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphdl.errors import DtypeError, ShapeError
from graphdl.ops.op import Op
from graphdl.types import Dtype, TensorType

Labels = tuple[int, ...]


def _infer(
    a: TensorType, b: TensorType, *, la: Labels, lb: Labels, lo: Labels, dtype: Dtype | None = None
) -> TensorType:
    if a.dtype != b.dtype:
        raise DtypeError(f"contract: {a} with {b}")
    sizes: dict[int, int] = {}
    for type, labels in ((a, la), (b, lb)):
        if len(labels) != type.ndim or len(set(labels)) != len(labels):
            raise ShapeError(f"contract: labels {labels} for {type}")
        for label, size in zip(labels, type.shape, strict=True):
            if sizes.setdefault(label, size) != size:
                raise ShapeError(
                    f"contract: {a} with {b}: sizes {sizes[label]} and {size} of one axis differ"
                )
    if len(set(lo)) != len(lo) or not set(lo) <= sizes.keys():
        raise ShapeError(f"contract: result axes {lo} of {la} and {lb}")
    alone = (set(la) ^ set(lb)) - set(lo)
    if alone:
        raise ShapeError(f"contract: axes {sorted(alone)} are in one operand only; sum them first")
    return TensorType(dtype or a.dtype, tuple(sizes[label] for label in lo))


def _evaluate(
    a: Any, b: Any, *, la: Labels, lb: Labels, lo: Labels, dtype: Dtype | None = None
) -> Any:
    if dtype is not None:
        a, b = a.astype(dtype), b.astype(dtype)
    return np.einsum(a, list(la), b, list(lb), list(lo), optimize=True).astype(a.dtype, copy=False)


#: la, lb, lo: the labels of the axes of a, of b and of the result. dtype: of the result, where the
#: operands are floats of 16 bits (graphdl.compiler.halves). Call it through `product`.
contract = Op(
    "contract",
    "contraction",
    _infer,
    _evaluate,
    lambda g, out, a, b, *, la, lb, lo: (product(g, b, lo, lb, la), product(a, g, la, lo, lb)),
)


def product(a: Any, b: Any, la: Labels, lb: Labels, lo: Labels) -> Any:
    """`contract` with its axes `numbered`."""
    return contract(a, b, **numbered(la, lb, lo))


def numbered(la: Labels, lb: Labels, lo: Labels) -> dict[str, Labels]:
    """The attributes of a contraction: axes in order of appearance, so that equal ones are one."""
    number = {label: i for i, label in enumerate(dict.fromkeys((*la, *lb)))}
    labels = {"la": la, "lb": lb, "lo": lo}
    return {name: tuple(number[label] for label in own) for name, own in labels.items()}
