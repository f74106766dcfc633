"""NumPy's functions on traced values, composed of ops, by subject.

elementwise   where, clip, round, ufuncs that are more than one op
reductions    sum, mean, var, argmax, cumsum, ...
ufunc_methods np.add.reduce, np.maximum.accumulate, np.multiply.reduceat, ...
nan           nansum, nanmean, nanvar, ...
quantiles     median, quantile, percentile and their nan-versions
statistics    cov, corrcoef
histograms    histogram, bincount, ...
manipulation  reshape, concatenate, split, roll, tile, ...
padding       pad
insertion     insert, resize
positions     unravel_index, ravel_multi_index, ix_, ...; packbits
choices       choose, piecewise
selection     take, take_along_axis, diagonal, tril, diff, ...
products      matmul, dot, tensordot, einsum, ...
correlation   convolve, correlate
calculus      gradient, trapezoid, interp, unwrap
polynomials   polyval, polymul, polyder, ...
sorting       sort, argsort, searchsorted, digitize, top_k, ...
assignment    x[index] = values, np.add.at, np.copyto, np.put, ...
masks         x[mask] with a traced mask
linalg        np.linalg: solve, inv, det, cholesky, qr, eigh, svd, ...
norms         np.linalg: norm, cond, pinv, lstsq, ...
fourier       np.fft
creation      zeros_like, linspace, ...; np.shape, np.result_type, ...
special       scipy.special.expit, erf, xlogy, ...
neural        softmax, relu, gelu, one_hot, ...: not in NumPy, for arrays too
convolution   conv, conv_transpose; pooling and resizing likewise: for arrays too

Each implementation has the signature of the function that it stands for. Importing this package
enters them in `graphdl.tracing.HANDLERS`.
"""

from graphdl.numpy_functions import (
    assignment,
    calculus,
    choices,
    correlation,
    creation,
    elementwise,
    fourier,
    histograms,
    insertion,
    linalg,
    manipulation,
    nan,
    norms,
    padding,
    polynomials,
    positions,
    products,
    quantiles,
    reductions,
    selection,
    sorting,
    special,
    statistics,
    ufunc_methods,
)
from graphdl.numpy_functions.convolution import conv, conv_transpose
from graphdl.numpy_functions.neural import (
    gelu,
    log_softmax,
    logsumexp,
    one_hot,
    relu,
    sigmoid,
    silu,
    softmax,
    softplus,
)
from graphdl.numpy_functions.pooling import (
    adaptive_avg_pool,
    adaptive_max_pool,
    avg_pool,
    global_avg_pool,
    global_max_pool,
    local_response_norm,
    max_pool,
)
from graphdl.numpy_functions.resizing import resize
from graphdl.numpy_functions.sorting import top_k

__all__ = [
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "assignment",
    "avg_pool",
    "calculus",
    "choices",
    "conv",
    "conv_transpose",
    "correlation",
    "creation",
    "elementwise",
    "fourier",
    "gelu",
    "global_avg_pool",
    "global_max_pool",
    "histograms",
    "insertion",
    "linalg",
    "local_response_norm",
    "log_softmax",
    "logsumexp",
    "manipulation",
    "max_pool",
    "nan",
    "norms",
    "one_hot",
    "padding",
    "polynomials",
    "positions",
    "products",
    "quantiles",
    "reductions",
    "relu",
    "resize",
    "selection",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "sorting",
    "special",
    "statistics",
    "top_k",
    "ufunc_methods",
]
