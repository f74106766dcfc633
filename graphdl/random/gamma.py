"""Samples made by rejection: gamma and what is made of gamma samples, and Poisson.

The gradient of a gamma sample by its shape is implicit, through the distribution function: M.
Figurnov, S. Mohamed and A. Mnih, "Implicit reparameterization gradients", NeurIPS 2018. It is exact
to rounding; second derivatives by the shape do not exist (GradientError).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphdl.errors import ShapeError
from graphdl.ops import pointwise, rejection
from graphdl.random.sampler import (
    FLOAT,
    I64,
    common_shape,
    counted,
    key_words,
    promoted,
    repeated,
    sampler,
    traced,
)
from graphdl.tracing import broadcast_to, locate
from graphdl.types import Dtype, Shape


def _log_gamma(key: Any, alpha: Any, shape: Shape) -> Any:
    key0, key1 = (repeated(word, shape) for word in key_words(key))
    return rejection.loggamma_sample(broadcast_to(alpha, shape), key0, key1, counted(shape))


@sampler()
def loggamma(key: Any, a: Any, shape: Shape | None = None, dtype: Dtype = FLOAT) -> Any:
    """Logarithms of samples of the gamma distribution, see `gamma`.

    For shapes a far below 1 the samples themselves underflow, their logarithms do not.

    >>> import graphdl as gd
    >>> gd.random.loggamma(gd.random.key(0), 0.001, (3,))
    array([ -254.76030343, -2142.05954107,   -67.82051377])
    """
    (alpha,) = promoted((a,), dtype)
    return _log_gamma(key, alpha, common_shape(shape, alpha))


@sampler()
def gamma(key: Any, a: Any, shape: Shape | None = None, dtype: Dtype = FLOAT) -> Any:
    """Samples of the gamma distribution of shape a > 0 and scale 1, of density x^(a-1) exp(-x).

    a broadcasts to `shape`, by default its own; where it is not positive the samples are NaN. G.
    Marsaglia and W. Tsang, "A simple method for generating gamma variables", ACM TOMS 26, 2000.

    >>> import numpy as np, graphdl as gd
    >>> gd.random.gamma(gd.random.key(0), np.array([0.5, 3.0, 100.0]))
    array([ 1.56849913,  1.61599248, 93.58156667])
    """
    (alpha,) = promoted((a,), dtype)
    return np.exp(_log_gamma(key, alpha, common_shape(shape, alpha)))


@sampler()
def chisquare(key: Any, df: Any, shape: Shape | None = None, dtype: Dtype = FLOAT) -> Any:
    """Samples of the chi-square distribution with df > 0 degrees of freedom, see `gamma`.

    >>> import graphdl as gd
    >>> gd.random.chisquare(gd.random.key(0), 4.0, (3,))
    array([6.63846886, 1.74210287, 1.97077806])
    """
    (freedom,) = promoted((df,), dtype)
    return 2 * np.exp(_log_gamma(key, freedom * 0.5, common_shape(shape, freedom)))


@sampler()
def beta(key: Any, a: Any, b: Any, shape: Shape | None = None, dtype: Dtype = FLOAT) -> Any:
    """Samples of the beta distribution, of density x^(a-1) (1-x)^(b-1), a and b positive.

    x / (x + y) of two gamma samples, by way of their logarithms. a and b broadcast to `shape`.

    >>> import graphdl as gd
    >>> gd.random.beta(gd.random.key(0), 2.0, 0.5, (3,))
    array([0.73319986, 0.73771924, 0.30831458])
    """
    first, second = promoted((a, b), dtype)
    shape = common_shape(shape, first, second)
    both = np.stack([broadcast_to(first, shape), broadcast_to(second, shape)])
    logs = _log_gamma(key, both, (2, *shape))
    return pointwise.sigmoid(logs[0] - logs[1])


@sampler()
def dirichlet(key: Any, alpha: Any, shape: Shape | None = None, dtype: Dtype = FLOAT) -> Any:
    """Samples of the Dirichlet distribution: along the last axis positive numbers of sum 1.

    Args:
        key: uint32[2].
        alpha: concentrations, positive, of shape (..., n).
        shape: of the result without its last axis; alpha.shape[:-1] broadcasts to it and is the
            default.
        dtype: float64 or float32.

    >>> import numpy as np, graphdl as gd
    >>> gd.random.dirichlet(gd.random.key(0), np.array([1.0, 2.0, 3.0]))
    array([0.41306668, 0.19328603, 0.39364729])
    """
    (concentration,) = promoted((alpha,), dtype)
    if concentration.ndim == 0:
        raise locate(ShapeError("gd.random.dirichlet: alpha needs at least one axis"))
    count = concentration.shape[-1]
    full = concentration.shape if shape is None else (*shape, count)
    full = common_shape(full, concentration)
    logs = _log_gamma(key, concentration, full)
    powers = np.exp(logs - pointwise.stop_gradient(np.max(logs, axis=-1, keepdims=True)))
    return powers / np.sum(powers, axis=-1, keepdims=True)


@sampler()
def poisson(key: Any, lam: Any, shape: Shape | None = None, dtype: Dtype = I64) -> Any:
    """Samples of the Poisson distribution of mean lam >= 0, as integers.

    lam broadcasts to `shape`, by default its own; where it is negative, NaN or above 2^62, samples
    are -1. Inversion below 10; above, W. Hoermann's PTRS, "The transformed rejection method for
    generating Poisson random variables", 1993.

    >>> import numpy as np, graphdl as gd
    >>> gd.random.poisson(gd.random.key(0), np.array([0.5, 20.0, 1e9]))
    array([        2,        25, 999997061])
    """
    rate = traced(lam).astype(FLOAT)
    shape = common_shape(shape, rate)
    key0, key1 = (repeated(word, shape) for word in key_words(key))
    sample = rejection.poisson_sample(broadcast_to(rate, shape), key0, key1, counted(shape))
    return sample.astype(dtype)
