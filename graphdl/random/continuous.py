"""Samples of continuous distributions with a closed form; gradients flow through it.

What every sample starts from is an integer of 32 or 64 random bits. Conversions to floats and
scalings by powers of 2 are exact or rounded alike everywhere, so bits and uniform samples are the
same on every machine; the others differ by the rounding of elementary functions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphdl.ops import pointwise
from graphdl.random.sampler import (
    FLOAT,
    common_shape,
    float_dtype,
    promoted,
    sampler,
    words,
)
from graphdl.types import Dtype, Shape

_SINGLE = np.dtype(np.float32)


def grid(key: Any, shape: Shape, dtype: Dtype) -> Any:
    """Multiples of the spacing below 1, 2^-24 or 2^-53, in [0, 1)."""
    if float_dtype(dtype) == _SINGLE:
        return (words(key, shape) >> 8).astype(np.int32).astype(dtype) * 2.0**-24
    return (words(key, shape, wide=True) >> 11).astype(np.int64).astype(dtype) * 2.0**-53


def tails(key: Any, shape: Shape, dtype: Dtype) -> tuple[Any, Any]:
    """Uniform samples u in (0, 1) as u > 1/2 and min(u, 1 - u), fine where that is near 0."""
    wide = float_dtype(dtype) != _SINGLE
    signed = words(key, shape, wide=wide).astype(np.int64 if wide else np.int32)
    above = signed < 0  # the highest bit
    magnitude = np.where(above, ~signed, signed).astype(dtype)
    return above, (magnitude + 0.5) * (2.0**-64 if wide else 2.0**-32)


def open_unit(key: Any, shape: Shape, dtype: Dtype) -> Any:
    """Uniform samples in (0, 1), finer near 0 than near 1."""
    wide = float_dtype(dtype) != _SINGLE
    number = words(key, shape, wide=wide)
    sample = (number.astype(dtype) + 0.5) * (2.0**-64 if wide else 2.0**-32)
    return np.minimum(sample, 1 - 2.0 ** (-53 if wide else -24))


@sampler()
def uniform(
    key: Any, shape: Shape = (), dtype: Dtype = FLOAT, minval: Any = 0.0, maxval: Any = 1.0
) -> Any:
    """Uniform samples in [minval, maxval).

    Args:
        key: uint32[2], see `key`.
        shape: of the result; minval and maxval broadcast to it.
        dtype: float64 or float32.

    The unit interval is cut into 2^53 steps, 2^24 in float32.

    >>> import graphdl as gd
    >>> gd.random.uniform(gd.random.key(0), (3,))
    array([0.8805202 , 0.60548185, 0.36209112])
    """
    sample = grid(key, shape, dtype)
    if type(minval) is float and type(maxval) is float and (minval, maxval) == (0.0, 1.0):
        return sample
    low, high = promoted((minval, maxval), dtype)
    common_shape(shape, low, high)
    result = low + sample * (high - low)
    # rounding may reach the upper end
    return np.where(
        (result >= high) & (high > low), np.maximum(np.nextafter(high, low), low), result
    )


@sampler()
def normal(key: Any, shape: Shape = (), dtype: Dtype = FLOAT) -> Any:
    """Samples of the normal distribution of mean 0 and variance 1.

    The inverse of the distribution function at 32 or 64 random bits, the half nearer to 0 and a
    sign, so that the tails reach 6.3 and 9.1 standard deviations.

    >>> import graphdl as gd
    >>> gd.random.normal(gd.random.key(0), (3,))
    array([ 1.17759124,  0.26756225, -0.3528749 ])
    """
    above, tail = tails(key, shape, dtype)
    z = pointwise.ndtri(tail)
    return np.where(above, -z, z)


@sampler()
def truncated_normal(
    key: Any, lower: Any, upper: Any, shape: Shape | None = None, dtype: Dtype = FLOAT
) -> Any:
    """Samples of the standard normal distribution given that they lie in [lower, upper].

    The bounds broadcast to `shape`, by default their common shape. An interval further out than
    the dtype resolves, beyond 37 standard deviations (13 in float32), gives the bound nearer to 0.

    >>> import graphdl as gd
    >>> gd.random.truncated_normal(gd.random.key(0), -1.0, 1.0, (3,))
    array([ 0.70558586,  0.18149725, -0.23823078])
    """
    low, high = promoted((lower, upper), dtype)
    shape = common_shape(shape, low, high)
    mirrored = low > 0  # the distribution function is finer below 0 than above
    below = _distribution(np.where(mirrored, -high, low))
    above = _distribution(np.where(mirrored, -low, high))
    z = pointwise.ndtri(below + open_unit(key, shape, dtype) * (above - below))
    return np.clip(np.where(mirrored, -z, z), low, high)


def _distribution(z: Any) -> Any:
    return 0.5 * pointwise.erfc(z * -(0.5**0.5))


@sampler()
def exponential(key: Any, shape: Shape = (), dtype: Dtype = FLOAT) -> Any:
    """Samples of the exponential distribution of mean 1.

    >>> import graphdl as gd
    >>> gd.random.exponential(gd.random.key(0), (3,))
    array([0.12724241, 0.50173069, 1.0158594 ])
    """
    return -np.log(open_unit(key, shape, dtype))


@sampler()
def gumbel(key: Any, shape: Shape = (), dtype: Dtype = FLOAT) -> Any:
    """Samples of the standard Gumbel distribution, P(x <= t) = exp(-exp(-t)).

    >>> import graphdl as gd
    >>> gd.random.gumbel(gd.random.key(0), (3,))
    array([-0.75358729,  0.07247377,  0.79948635])
    """
    # log1p, not log: the upper tail, which decides a maximum, is where the samples are fine
    return -np.log(-np.log1p(-open_unit(key, shape, dtype)))


@sampler()
def laplace(key: Any, shape: Shape = (), dtype: Dtype = FLOAT) -> Any:
    """Samples of the Laplace distribution, of density exp(-|x|) / 2.

    >>> import graphdl as gd
    >>> gd.random.laplace(gd.random.key(0), (3,))
    array([ 1.43146076,  0.23694296, -0.32271222])
    """
    above, tail = tails(key, shape, dtype)
    size = -np.log(tail + tail)
    return np.where(above, size, -size)


@sampler()
def logistic(key: Any, shape: Shape = (), dtype: Dtype = FLOAT) -> Any:
    """Samples of the logistic distribution, P(x <= t) = 1 / (1 + exp(-t)).

    >>> import graphdl as gd
    >>> gd.random.logistic(gd.random.key(0), (3,))
    array([ 1.99736553,  0.42835946, -0.56629958])
    """
    above, tail = tails(key, shape, dtype)
    size = np.log1p(-tail) - np.log(tail)
    return np.where(above, size, -size)


@sampler()
def cauchy(key: Any, shape: Shape = (), dtype: Dtype = FLOAT) -> Any:
    """Samples of the Cauchy distribution, of density 1 / (pi (1 + x^2)).

    >>> import graphdl as gd
    >>> gd.random.cauchy(gd.random.key(0), (3,))
    array([ 2.53782117,  0.34406864, -0.46256479])
    """
    above, tail = tails(key, shape, dtype)
    size = 1 / np.tan(np.pi * tail)
    return np.where(above, size, -size)
