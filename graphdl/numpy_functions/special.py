"""Ufuncs of scipy.special that are ops, or a few of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphdl.numpy_functions.arguments import lift, promote
from graphdl.ops import pointwise
from graphdl.tracing import SPECIAL_HANDLERS


def _floats(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function on its operands as floats of their common dtype."""

    def implementation(*operands: Any) -> Any:
        dtype = promote(*operands, 1.0)
        return function(*(value.astype(dtype) for value in lift(*operands)))

    return implementation


def _logit(x: Any) -> Any:
    return np.log(x / (1 - x))


def _log_expit(x: Any) -> Any:
    return -pointwise.softplus(-x)


def _ndtr(x: Any) -> Any:
    return 0.5 * pointwise.erfc(x * -math.sqrt(0.5))


def _xlogy(x: Any, y: Any, log: np.ufunc = np.log) -> Any:
    """x * log(y), and 0 where x is 0, unless y is not a number."""
    nothing = (x == 0) & ~np.isnan(y)
    return np.where(nothing, 0, x * log(np.where(nothing, 1, y)))


def _xlog1py(x: Any, y: Any) -> Any:
    return _xlogy(x, y, np.log1p)


def _entr(x: Any) -> Any:
    return np.where(x < 0, -np.inf, -_xlogy(x, x))


def _rel_entr(x: Any, y: Any) -> Any:
    inside = (x > 0) & (y > 0)
    ratio = np.where(inside, x, 1) / np.where(inside, y, 1)
    outside = np.where((x == 0) & (y >= 0), np.zeros_like(x), np.inf)
    result = np.where(inside, x * np.log(ratio), outside)
    return np.where(np.isnan(x) | np.isnan(y), np.nan, result)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "expit": pointwise.sigmoid,
    "log_expit": _log_expit,
    "logit": _logit,
    "erf": pointwise.erf,
    "erfc": pointwise.erfc,
    "ndtr": _ndtr,
    "ndtri": pointwise.ndtri,
    "xlogy": _xlogy,
    "xlog1py": _xlog1py,
    "entr": _entr,
    "rel_entr": _rel_entr,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log1p": np.log1p,
    "cbrt": np.cbrt,
}
SPECIAL_HANDLERS.update({name: _floats(function) for name, function in _FUNCTIONS.items()})
