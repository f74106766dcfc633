"""The op table: every op by its name."""

from __future__ import annotations

from graphdl.ops import contraction, indexing, movement, pointwise, reduction
from graphdl.ops.op import Op

OPS: dict[str, Op] = {
    value.name: value
    for module in (pointwise, reduction, movement, contraction, indexing)
    for value in vars(module).values()
    if isinstance(value, Op)
}
