"""np.convolve and np.correlate: one dimension, as matrix products.

The longer operand is cut into blocks as long as a piece of the shorter one. A block of the result
depends on two blocks of the operand, through one banded matrix of that piece. So a convolution of n
with m elements is products of matrices with 2 m n multiplications in all, and no copy of the
operand for each of the m places.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphdl.errors import ArgumentError
from graphdl.numpy_functions.arguments import BOOL, INDEX, lift, promote, require, reshaped, sliced
from graphdl.numpy_functions.manipulation import concatenate, flip
from graphdl.numpy_functions.padding import pad
from graphdl.numpy_functions.products import matmul
from graphdl.tracing import TracedArray, broadcast_to, cast, implements

#: Pieces of so many elements, at most: larger ones make larger matrices, smaller ones narrow
#: products.
PIECE = 64
#: Fewer elements than so many are cheaper one by one: each is a factor, and all are one pass.
FEW = 9


def _full(a: TracedArray, v: TracedArray) -> Any:
    """The convolution of every overlap, for v not longer than a."""
    n, m = a.size, v.size
    if m < FEW:
        wide = pad(a, (m - 1, m - 1))
        return sum(sliced(wide, 0, m - 1 - j, n + m - 1) * v[j] for j in range(m))
    total: Any = None
    for start in range(0, m, PIECE):
        piece = v[start : start + PIECE]
        part = pad(_with_piece(a, piece), (start, m - piece.size - start))
        total = part if total is None else total + part
    return total


def _with_piece(a: TracedArray, v: TracedArray) -> Any:
    """The convolution with one piece: blocks of m results from two blocks of m elements each."""
    n, m = a.size, v.size
    blocks = -(-(n + m - 1) // m)
    filled = reshaped(pad(a, (m, blocks * m - n)), (blocks + 1, m))
    pairs = concatenate((filled[:-1], filled[1:]), 1)
    results = matmul(pairs, _band(v))
    return sliced(reshaped(results, (blocks * m,)), 0, 0, n + m - 1)


def _band(v: TracedArray) -> Any:
    """The matrix of 2 m rows and m columns that has v[m + c - r] at row r and column c.

    Rows of one line and a zero more than the columns, read with one column less, move by one each.
    """
    m = v.size
    line = pad(flip(v), (1, m))  # v[m], which is 0, v[m - 1], ... v[0], 0, ...
    lines = broadcast_to(line, (m, 2 * m + 1))
    shifted = reshaped(lines, (m * (2 * m + 1),))
    columns = reshaped(sliced(shifted, 0, 0, m * 2 * m), (m, 2 * m))
    return columns.T


def _convolved(a: Any, v: Any, mode: Any, reverse: bool) -> Any:
    x, y = lift(a, v)
    for value in (x, y):
        require(value.ndim <= 1, f"takes arrays of one axis, not shape {value.shape}")
    x, y = reshaped(x, (x.size,)), reshaped(y, (y.size,))
    require(x.size > 0 and y.size > 0, "the operands must not be empty")
    dtype = promote(x, y)
    work = INDEX if dtype == BOOL else dtype
    x, y = cast(x, work), cast(y, work)
    if reverse:
        y = np.conjugate(flip(y))
    swapped = y.size > x.size
    long, short = (y, x) if swapped else (x, y)
    n, m = long.size, short.size
    # a correlation counts the places from the other operand's end where they change roles
    result = cast(_full(long, short), dtype)
    before = {"full": 0, "same": (m - 1) // 2, "valid": m - 1}
    if mode not in before:
        raise ArgumentError(f"mode={mode!r}; it is one of {', '.join(map(repr, before))}")
    start = before[mode]
    if mode == "same" and reverse and swapped:
        start = m // 2
    size = {"full": n + m - 1, "same": n, "valid": n - m + 1}[mode]
    return sliced(result, 0, start, size)


@implements(np.convolve)
def convolve(a: Any, v: Any, mode: Any = "full") -> Any:
    return _convolved(a, v, mode, False)


@implements(np.correlate)
def correlate(a: Any, v: Any, mode: Any = "valid") -> Any:
    return _convolved(a, v, mode, True)
