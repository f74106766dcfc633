"""Picking from, and adding to, each line of an array along its last axis by an index of its own.

Written with ops and NumPy's names, so it works on traced values and on arrays alike; gradient rules
use it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphdl.ops import movement
from graphdl.ops.indexing import gather, scatter_add


def pick_along(x: Any, index: Any) -> Any:
    """x[..., index[..., i]] for each line: index has the leading axes of x."""
    flat = movement.reshape(x, shape=(math.prod(x.shape),))
    return gather(flat, _flat(index, x.shape[-1]))


def place_along(updates: Any, index: Any, size: int) -> Any:
    """Lines of `size` zeros, to which element index[..., i] gets updates[..., i] added."""
    rows = updates.shape[:-1]
    flat = scatter_add(updates, _flat(index, size), size=math.prod(rows) * size)
    return movement.reshape(flat, shape=(*rows, size))


def counted(n: int, like: Any) -> Any:
    """0, 1, ... n - 1; where `like` is traced, as numbers that kernels make for themselves."""
    if not hasattr(like, "apply_op"):
        return np.arange(n)
    return like.apply_op(movement.iota, (), {"size": n, "dtype": np.dtype(np.int64)})


def _flat(index: Any, size: int) -> Any:
    """Positions in lines of `size` as positions in the flattened array."""
    *rows, _ = index.shape
    count = math.prod(rows)
    if count == 1:
        return index
    width: Any = size
    if hasattr(index, "apply_op"):  # a size that is no part of the text of a kernel
        width = index.apply_op(movement.extent, (), {"size": size, "dtype": index.dtype})
    return index + movement.reshape(counted(count, index) * width, shape=(*rows, 1))
