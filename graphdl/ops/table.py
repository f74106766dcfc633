"""The op table: every op by its name."""

from __future__ import annotations

from graphdl.ops import contraction, indexing, movement, pointwise, reduction, update
from graphdl.ops.op import Op

OPS: dict[str, Op] = {
    value.name: value
    for module in (pointwise, reduction, movement, contraction, indexing, update)
    for value in vars(module).values()
    if isinstance(value, Op)
}
