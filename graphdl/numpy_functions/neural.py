"""What neural networks add to NumPy: on arrays plain NumPy, on traced values graph."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphdl.errors import ArgumentError, DtypeError, ShapeError
from graphdl.numpy_functions.arguments import BOOL, as_float, axes_of, iota
from graphdl.ops import pointwise
from graphdl.tracing import TracedArray, locate
from graphdl.types import kind_of

__all__ = [
    "gelu",
    "log_softmax",
    "logsumexp",
    "one_hot",
    "relu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
]


def _top(x: Any, axis: Any) -> Any:
    """The maximum to subtract before exp: constant to the chain rule, 0 where it is infinite."""
    if any(x.shape[i] == 0 for i in axes_of(axis, x.shape)):
        return np.zeros_like(np.sum(x, axis=axis, keepdims=True))
    top = pointwise.stop_gradient(np.max(x, axis=axis, keepdims=True))
    return np.where(np.isfinite(top), top, np.zeros_like(top))


def logsumexp(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """log(sum(exp(x))) over `axis` (all axes, one or several) without overflow.

    Integers count as float64; the result has the shape of np.sum(x, axis, keepdims=keepdims). It
    is -inf where all of x is -inf or nothing is there, and inf where some x is inf.

    >>> import numpy as np
    >>> from graphdl.numpy_functions import logsumexp
    >>> logsumexp(np.array([[1000.0, 1000.0], [0.0, -np.inf]]), axis=1)
    array([1000.69314718,    0.        ])
    """
    x = as_float(x)
    top = _top(x, axis)
    with np.errstate(divide="ignore"):
        result = np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True)) + top
    return result if keepdims else np.squeeze(result, axis=axes_of(axis, x.shape))


def softmax(x: Any, axis: Any = -1) -> Any:
    """exp(x) / sum(exp(x)) over `axis`, of the shape of x; integers count as float64.

    >>> import numpy as np
    >>> from graphdl.numpy_functions import softmax
    >>> softmax(np.array([0.0, 0.0, 1000.0]))
    array([0., 0., 1.])
    """
    x = as_float(x)
    powers = np.exp(x - _top(x, axis))
    return powers / np.sum(powers, axis=axis, keepdims=True)


def log_softmax(x: Any, axis: Any = -1) -> Any:
    """log(softmax(x)) over `axis` without overflow, of the shape of x.

    >>> import numpy as np
    >>> from graphdl.numpy_functions import log_softmax
    >>> log_softmax(np.array([0.0, 0.0, 1000.0]))
    array([-1000., -1000.,     0.])
    """
    x = as_float(x)
    shifted = x - _top(x, axis)
    return shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))


def relu(x: Any) -> Any:
    """max(x, 0), of the dtype and shape of x; the derivative at 0 is 0.

    >>> import numpy as np
    >>> from graphdl.numpy_functions import relu
    >>> relu(np.array([-1.0, 0.0, 2.0]))
    array([0., 0., 2.])
    """
    return np.maximum(x, 0)


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)) without overflow; integers count as float64.

    >>> import numpy as np
    >>> from graphdl.numpy_functions import sigmoid
    >>> sigmoid(np.array([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """
    return pointwise.sigmoid(as_float(x))


def silu(x: Any) -> Any:
    """x * sigmoid(x); integers count as float64.

    >>> import numpy as np
    >>> from graphdl.numpy_functions import silu
    >>> silu(np.array([0.0, 1.0]))
    array([0.        , 0.73105858])
    """
    x = as_float(x)
    return x * pointwise.sigmoid(x)


def softplus(x: Any) -> Any:
    """log(1 + exp(x)) without overflow; integers count as float64.

    >>> import numpy as np
    >>> from graphdl.numpy_functions import softplus
    >>> softplus(np.array([0.0, 1000.0]))
    array([6.93147181e-01, 1.00000000e+03])
    """
    return pointwise.softplus(as_float(x))


def gelu(x: Any, approximate: Any = False) -> Any:
    """x times the standard normal distribution function at x; integers count as float64.

    `approximate="tanh"` (or True) is 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x**3))).
    D. Hendrycks and K. Gimpel, "Gaussian error linear units", arXiv:1606.08415.

    >>> import numpy as np
    >>> from graphdl.numpy_functions import gelu
    >>> gelu(np.array([-1.0, 0.0, 1.0]))
    array([-0.15865525,  0.        ,  0.84134475])
    """
    x = as_float(x)
    if approximate in (True, "tanh"):
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))
        return 0.5 * x * (1 + np.tanh(inner))
    if approximate not in (False, "none"):
        raise locate(
            ArgumentError(f"gelu: approximate={approximate!r}; it is False, True or 'tanh'")
        )
    # erfc, not 1 + erf: it does not cancel where x is far below zero
    return 0.5 * x * pointwise.erfc(-x * math.sqrt(0.5))


def one_hot(indices: Any, num_classes: int, dtype: Any = np.float64, axis: int = -1) -> Any:
    """Rows of zeros with a one at each index: shape indices.shape with `num_classes` at `axis`.

    A row is all zeros where its index is not in range(num_classes).

    >>> import numpy as np
    >>> from graphdl.numpy_functions import one_hot
    >>> one_hot(np.array([0, 2]), 3)
    array([[1., 0., 0.],
           [0., 0., 1.]])
    """
    if not isinstance(indices, TracedArray):
        indices = np.asarray(indices)
    if kind_of(indices.dtype) not in "iu":
        raise locate(DtypeError(f"one_hot: indices must be integers, not {indices.dtype}"))
    if num_classes < 0:
        raise locate(ShapeError(f"one_hot: num_classes={num_classes} is negative"))
    classes: Any = (
        iota(num_classes, indices) if isinstance(indices, TracedArray) else np.arange(num_classes)
    )
    hot = np.expand_dims(indices, -1) == classes
    hot = hot if axis in (-1, indices.ndim) else np.moveaxis(hot, -1, axis)
    return hot if np.dtype(dtype) == BOOL else hot.astype(dtype)
