"""The gradient of e / total, where e is an exponential, as in a softmax: with one division less.

The chain rule, taken a step at a time, gives for p = e / total and the cotangent g of p

    (g / total - sum(g * p / total)) * e

where `total` is one number for each row, and e comes back because it is its own derivative. That
is p * (g - sum(g * p)): two divisions less for each element, and neither e nor g / total is needed
beside p and g, so that a row takes two passes over two arrays rather than over four.
"""

from __future__ import annotations

from graphdl.graph import Node
from graphdl.ops import movement, pointwise, reduction
from graphdl.ops.op import node_of, rebuilt


def gradient_of_quotient(node: Node) -> Node | None:
    """The shorter form of a product, if it is the longer one."""
    for slope, e in (node.inputs, node.inputs[::-1]):
        if slope.op is pointwise.add and node.type.is_float:
            for direct, spread in (slope.inputs, slope.inputs[::-1]):
                made = _shorter(direct, spread, e)
                if made is not None:
                    return made
    return None


def _shorter(direct: Node, spread: Node, e: Node) -> Node | None:
    """The shorter form for `direct` g / total and `spread` sum(-(g * p / total)), repeated."""
    if direct.op is not pointwise.divide or spread.op is not movement.broadcast:
        return None
    g, total = direct.inputs
    p = node_of(pointwise.divide, (e, total))
    summed = spread.inputs[0]
    if summed.op is not reduction.sum_ or total.op is not movement.broadcast:
        return None
    axes = summed["axes"]
    kept = tuple(axis for axis in range(g.type.ndim) if axis not in axes)
    if spread["dims"] != kept or set(total["dims"]) & set(axes):
        return None
    both = _negated(summed.inputs[0])
    if both is None or both.op is not pointwise.divide or both.inputs[1] is not total:
        return None
    product = both.inputs[0]
    if product.op is not pointwise.multiply or {*product.inputs} != {g, p}:
        return None
    mean = rebuilt(spread, (rebuilt(summed, (product,)),))
    return node_of(pointwise.multiply, (p, node_of(pointwise.subtract, (g, mean))))


def _negated(node: Node) -> Node | None:
    return node.inputs[0] if node.op is pointwise.negative else None
