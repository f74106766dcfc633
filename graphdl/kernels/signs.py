"""Which values are known never to be positive, whatever the arguments are.

Such an exponential takes fewer operations: `exp` of minus a square, as in a Gaussian, or of what a
maximum was subtracted from, as in a softmax. NaN may be among the values.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from graphdl.compiler.origins import is_number
from graphdl.compiler.view import is_movement
from graphdl.graph import Node
from graphdl.ops import movement, pointwise, reduction

#: How many operations the question follows backwards: it is asked at every exponential.
DEPTH: Final = 6


def never_positive(node: Node, depth: int = DEPTH) -> bool:
    """Whether every element is at most 0, or NaN."""
    if depth == 0:
        return False
    if node.op is pointwise.negative:
        return never_negative(node.inputs[0], depth - 1)
    if node.op is pointwise.subtract:
        return _is_at_most(*node.inputs)
    if node.op in (pointwise.multiply, pointwise.divide):
        a, b = node.inputs
        return (never_positive(a, depth - 1) and never_negative(b, depth - 1)) or (
            never_negative(a, depth - 1) and never_positive(b, depth - 1)
        )
    if is_number(node):
        return node.op is movement.constant and bool(node["value"].array <= 0)
    return is_movement(node) and never_positive(node.inputs[0], depth - 1)


def never_negative(node: Node, depth: int = DEPTH) -> bool:
    """Whether every element is at least 0, or NaN; a zero that is computed counts as +0."""
    if depth == 0:
        return False
    if node.op in _ALWAYS:
        return True
    if is_number(node):
        return node.op is movement.extent or not np.signbit(node["value"].array).any()
    if node.op is pointwise.multiply and node.inputs[0] is node.inputs[1]:
        return True
    if node.op is pointwise.maximum:
        return any(never_negative(x, depth - 1) for x in node.inputs)
    if node.op in _IF_ALL_ARE:
        return all(never_negative(x, depth - 1) for x in node.inputs)
    return is_movement(node) and never_negative(node.inputs[0], depth - 1)


_ALWAYS: Final = frozenset(
    (pointwise.square, pointwise.absolute, pointwise.fabs, pointwise.exp, pointwise.sqrt,
     pointwise.sigmoid, pointwise.softplus)
)  # fmt: skip

_IF_ALL_ARE: Final = frozenset(
    (pointwise.add, pointwise.multiply, pointwise.divide, pointwise.minimum, reduction.sum_,
     reduction.max_, reduction.min_, reduction.prod)
)  # fmt: skip


def _is_at_most(x: Node, y: Node) -> bool:
    """Whether y is the maximum of x along some axes, repeated along them."""
    if y.op is not movement.broadcast or y.shape != x.shape:
        return False
    top = y.inputs[0]
    if top.op is not reduction.max_ or top.inputs[0] is not x:
        return False
    kept = tuple(axis for axis in range(len(x.shape)) if axis not in top["axes"])
    return tuple(y["dims"]) == kept
