"""Covariances and correlations."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphdl.errors import ArgumentError, DtypeError, ShapeError
from graphdl.numpy_functions.arguments import FLOAT, lift, promote, require, reshaped
from graphdl.numpy_functions.manipulation import concatenate
from graphdl.ops import complex_numbers
from graphdl.tracing import TracedArray, cast, implements
from graphdl.types import as_dtype, kind_of


def _variables(value: Any, rowvar: bool) -> Any:
    """The variables as rows."""
    require(value.ndim <= 2, f"takes at most 2 axes, not shape {value.shape}")
    if value.ndim < 2:
        return reshaped(value, (1, value.size))
    return value if rowvar or value.shape[0] == 1 else value.T


def _weights(fweights: Any, aweights: Any, x: TracedArray) -> Any:
    """The product of both weights, None where there are none."""
    product: Any = None
    for name, value in (("fweights", fweights), ("aweights", aweights)):
        if value is None:
            continue
        w = lift(x, value)[1]
        if w.shape != x.shape[1:]:
            raise ShapeError(f"{name} of shape {w.shape} for {x.shape[1]} observations")
        if name == "fweights" and kind_of(w.dtype) not in "iu":
            raise DtypeError(f"fweights are numbers of times: integers, not {w.dtype}")
        product = w if product is None else product * w
    return product


@implements(np.cov)
def cov(
    m: Any,
    y: Any = None,
    rowvar: bool = True,
    bias: bool = False,
    ddof: Any = None,
    fweights: Any = None,
    aweights: Any = None,
    *,
    dtype: Any = None,
) -> Any:
    if ddof is not None and ddof != int(ddof):
        raise ArgumentError(f"ddof={ddof} must be an integer")
    first, *second = lift(*(value for value in (m, y, fweights, aweights) if value is not None))
    values = [first, *second[: int(y is not None)]]
    kind = promote(*values, np.zeros((), FLOAT)) if dtype is None else as_dtype(dtype)
    x = concatenate([_variables(cast(value, kind), rowvar) for value in values], 0)
    freedom = int(ddof) if ddof is not None else int(not bias)
    w = _weights(fweights, aweights, x)
    if w is None:
        factor: Any = np.asarray(max(x.shape[1] - freedom, 0), kind)
        deviations = x - np.mean(x, axis=1, keepdims=True)
        weighted = deviations
    else:
        total = np.sum(w)
        lost = freedom if aweights is None else freedom * np.sum(w * aweights) / total
        factor = np.maximum(total - lost, 0)
        deviations = x - np.sum(x * w, axis=1, keepdims=True) / total
        weighted = deviations * w
    return np.squeeze(np.matmul(deviations, np.conjugate(weighted.T)) / factor)


@implements(np.corrcoef)
def corrcoef(x: Any, y: Any = None, rowvar: bool = True, *, dtype: Any = None) -> Any:
    covariances = cov(x, y, rowvar, dtype=dtype)
    if covariances.ndim == 0:
        return covariances / covariances
    spread = np.sqrt(np.diagonal(covariances).real)
    result = covariances / spread[:, None] / spread[None, :]
    if result.dtype.kind != "c":
        return np.clip(result, -1, 1)
    return complex_numbers.whole(np.clip(result.real, -1, 1), np.clip(result.imag, -1, 1))
