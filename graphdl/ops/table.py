"""The op table: every op by its name."""

from __future__ import annotations

from graphdl.ops import (
    complex_numbers,
    contraction,
    convolution,
    cumulative,
    indexing,
    linalg,
    movement,
    pointwise,
    random,
    reduction,
    rejection,
    sorting,
    special,
    spectral,
    update,
    windows,
)
from graphdl.ops.op import Op

_FAMILIES = (
    pointwise, special, reduction, cumulative, movement, contraction, indexing, sorting, update,
    random, rejection, linalg, spectral, convolution, windows, complex_numbers,
)  # fmt: skip
OPS: dict[str, Op] = {
    value.name: value
    for module in _FAMILIES
    for value in vars(module).values()
    if isinstance(value, Op)
}
