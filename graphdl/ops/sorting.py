"""Order along the last axis: sort, argsort, and the search in what is sorted.

NaN come last, as in NumPy, whatever their sign bit. Both sorts are stable: equal elements keep
their order, and 0.0 equals -0.0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphdl.errors import ArgumentError, DtypeError, ShapeError
from graphdl.ops.lines import place_along
from graphdl.ops.op import Op
from graphdl.types import TensorType

_INDEX = np.dtype(np.int64)


def _check_line(name: str, x: TensorType) -> None:
    if x.ndim == 0:
        raise ShapeError(f"{name}: a 0-d array has no axis to sort along")


def _infer_sort(x: TensorType) -> TensorType:
    _check_line("sort", x)
    return x


def _infer_argsort(x: TensorType) -> TensorType:
    _check_line("argsort", x)
    return TensorType(_INDEX, x.shape)


argsort = Op(
    "argsort",
    "sorting",
    _infer_argsort,
    lambda x: np.asarray(np.argsort(x, axis=-1, kind="stable"), _INDEX),
    no_gradient="its result is an index",
)

#: The gradient goes where each element came from.
sort = Op(
    "sort",
    "sorting",
    _infer_sort,
    lambda x: np.sort(x, axis=-1, kind="stable"),
    lambda g, out, x: (place_along(g, argsort(x), x.shape[-1]),),
)


def _infer_searchsorted(line: TensorType, values: TensorType, *, side: str) -> TensorType:
    if side not in ("left", "right"):
        raise ArgumentError(f"searchsorted: side={side!r}; it is 'left' or 'right'")
    if line.dtype != values.dtype:
        raise DtypeError(f"searchsorted: {values} in {line}")
    if not line.ndim or values.shape[:-1] != line.shape[:-1] or values.ndim != line.ndim:
        raise ShapeError(f"searchsorted: {values} does not go row by row with {line}")
    return TensorType(_INDEX, values.shape)


def _searchsorted(line: Any, values: Any, *, side: str) -> Any:
    result = np.empty(values.shape, _INDEX)
    for row in np.ndindex(line.shape[:-1]):
        result[row] = line[row].searchsorted(values[row], side)
    return result


#: How many elements of each sorted line are less than each value (`side` "left"), or not greater
#: ("right"): where the value goes to keep the line sorted.
searchsorted = Op(
    "searchsorted",
    "sorting",
    _infer_searchsorted,
    _searchsorted,
    no_gradient="its result is an index",
)
