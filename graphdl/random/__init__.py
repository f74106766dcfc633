"""Random numbers without hidden state: every sample is a function of a key.

A key is a uint32 array of shape (2,): it can be carried by a scan, mapped by vmap, saved. Equal
keys give equal samples, so use each one once, and `split` it (or `fold_in` a number) for more. The
signatures are those of jax.random; the default dtype is NumPy's, float64.

The bits are those of Philox4x32-10 with the key as its key (J. Salmon, M. Moraes, R. Dror and
D. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011). Element i of an array depends on
the key and on i alone, so the same numbers come from one thread or many, alone or fused with what
uses them. In a compiled function samples are computed where they are used.

>>> import numpy as np, graphdl as gd
>>> key = gd.random.key(0)
>>> gd.random.normal(key, (2, 2))
array([[ 1.17759124,  0.26756225],
       [-0.3528749 , -1.78545119]])
>>> noisy = gd.compile(lambda key, x: x + 0.1 * gd.random.normal(key, x.shape))
>>> noisy(key, np.zeros((2, 2)))
array([[ 0.11775912,  0.02675622],
       [-0.03528749, -0.17854512]])
"""

from graphdl.random.continuous import (
    cauchy,
    exponential,
    gumbel,
    laplace,
    logistic,
    normal,
    truncated_normal,
    uniform,
)
from graphdl.random.discrete import bernoulli, categorical, randint
from graphdl.random.gamma import beta, chisquare, dirichlet, gamma, loggamma, poisson
from graphdl.random.keys import bits, fold_in, key, split
from graphdl.random.shuffle import choice, permutation

__all__ = [
    "bernoulli",
    "beta",
    "bits",
    "categorical",
    "cauchy",
    "chisquare",
    "choice",
    "dirichlet",
    "exponential",
    "fold_in",
    "gamma",
    "gumbel",
    "key",
    "laplace",
    "loggamma",
    "logistic",
    "normal",
    "permutation",
    "poisson",
    "randint",
    "split",
    "truncated_normal",
    "uniform",
]
