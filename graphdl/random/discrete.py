"""Samples of discrete distributions with a closed form."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphdl.errors import DtypeError, ShapeError
from graphdl.numpy_functions.arguments import axis_of
from graphdl.random.continuous import grid, gumbel
from graphdl.random.sampler import FLOAT, I64, U64, common_shape, sampler, traced, words
from graphdl.tracing import locate
from graphdl.types import Dtype, Shape, kind_of


@sampler()
def randint(key: Any, shape: Shape, minval: Any, maxval: Any, dtype: Dtype = I64) -> Any:
    """Uniform integers in [minval, maxval); minval where that is empty.

    minval and maxval broadcast to `shape`; the dtype is one of integers, and has to hold them. Each
    of n values has probability 1 / n but for 2^-64.

    >>> import graphdl as gd
    >>> gd.random.randint(gd.random.key(0), (5,), 0, 10)
    array([8, 6, 3, 0, 3])
    """
    if kind_of(dtype) not in "iu":
        raise locate(DtypeError(f"gd.random.randint gives integers, not {dtype}"))
    low, high = (_integer(value) for value in (minval, maxval))
    common_shape(shape, low, high)
    span = np.where(high > low, high.astype(U64) - low.astype(U64), 1)
    offset = _upper_half(words(key, shape, wide=True), span)
    return (low.astype(U64) + offset).astype(dtype)


def _integer(value: Any) -> Any:
    number = traced(value)
    if kind_of(number.dtype) not in "iu":
        raise locate(DtypeError(f"gd.random.randint: bounds are integers, not {number.dtype}"))
    return number if number.dtype == U64 else number.astype(I64)


def _upper_half(a: Any, b: Any) -> Any:
    """The upper 64 bits of the product of two uint64."""
    (a_high, a_low), (b_high, b_low) = ((x >> 32, x & 0xFFFFFFFF) for x in (a, b))
    middle = a_high * b_low + (a_low * b_low >> 32)  # below 2^64
    other = a_low * b_high + (middle & 0xFFFFFFFF)
    return a_high * b_high + (middle >> 32) + (other >> 32)


@sampler()
def bernoulli(key: Any, p: Any = 0.5, shape: Shape | None = None) -> Any:
    """Booleans that are True with probability p.

    p broadcasts to `shape`, by default its own. Its dtype decides how fine probabilities are:
    multiples of 2^-53, or of 2^-24 in float32.

    >>> import graphdl as gd
    >>> gd.random.bernoulli(gd.random.key(0), 0.3, (5,))
    array([False, False, False,  True, False])
    """
    probability = traced(p)
    dtype = probability.dtype if kind_of(probability.dtype) == "f" else FLOAT
    shape = common_shape(shape, probability)
    return grid(key, shape, dtype) < probability


@sampler()
def categorical(key: Any, logits: Any, axis: int = -1, shape: Shape | None = None) -> Any:
    """Indices along `axis`, each with probability softmax(logits)[index].

    The largest of logits with Gumbel noise. `shape`, by default that of logits without the axis,
    may have more axes in front. Unnormalised logits will do; -inf stands for impossible. Raises
    ShapeError where the shapes do not fit.

    >>> import numpy as np, graphdl as gd
    >>> gd.random.categorical(gd.random.key(0), np.log([0.1, 0.9]), shape=(6,))
    array([1, 1, 1, 1, 1, 0])
    """
    weights = traced(logits)
    if kind_of(weights.dtype) != "f":
        weights = weights.astype(FLOAT)
    if weights.ndim == 0:
        raise locate(ShapeError("gd.random.categorical: logits need an axis to choose along"))
    place = axis_of(axis, weights.shape)
    own = weights.shape[:place] + weights.shape[place + 1 :]
    wanted = own if shape is None else shape
    extra = len(wanted) - len(own)
    if extra < 0 or wanted[extra:] != own:
        raise locate(
            ShapeError(
                f"gd.random.categorical: shape {wanted} does not end in {own}, that of logits"
            )
        )
    noise = gumbel(key, (*wanted[:extra], *weights.shape), weights.dtype)
    return np.argmax(weights + noise, axis=extra + place)
