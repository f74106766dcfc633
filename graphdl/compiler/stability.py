"""Numerical stability: sums of exponentials that would overflow as they are written.

log(sum(exp(x))) and exp(x) / sum(exp(x)) are computed from x less its maximum. The maximum is a
constant to the gradient, since it cancels; where it is not finite nothing is subtracted, so that
log(sum(exp(-inf))) stays -inf.

Where the code subtracts a maximum m itself, that is made a constant to the gradient as well, in

    exp(x - m) / sum(exp(x - m))      (x - m) - log(sum(exp(x - m)))      log(sum(exp(x - m))) + m

whose derivatives by m are zero. By the chain rule that zero would be a sum over the row of terms
that cancel: a pass over the row, and the error of its rounding at the row's maximum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from graphdl.graph import Node, topological
from graphdl.ops import movement, pointwise, reduction
from graphdl.ops.op import node_of, rebuilt
from graphdl.tracing import Trace, TracedArray


def stabilised(node: Node, trace: Trace) -> tuple[str, Node] | None:
    """The node computed without overflow, if it is one of the two patterns, and which it is."""
    if not node.type.is_float:
        return None
    if node.op is pointwise.log:
        total = node.inputs[0]
        if total.op is reduction.sum_ and _is_raw_exp(total.inputs[0]):
            made = _log_sum_exp(total, trace)
            return None if made is None else ("log(sum(exp(x)))", made)
    if node.op is pointwise.divide and _is_raw_exp(node.inputs[0]):
        total = _beneath(node.inputs[1])
        if total.op is reduction.sum_ and total.inputs[0] is node.inputs[0]:
            made = _softmax(node, total, trace)
            return None if made is None else ("exp(x) / sum(exp(x))", made)
    return None


def _is_raw_exp(node: Node) -> bool:
    """Whether a node is the exponential of something that no maximum was subtracted from."""
    if node.op is not pointwise.exp:
        return False
    x = node.inputs[0]
    if x.op is pointwise.negative:  # exp of minus a square or an absolute value cannot overflow
        return x.inputs[0].op not in (pointwise.square, pointwise.absolute)
    if x.op is not pointwise.subtract:
        return True
    return not _is_maximum(x.inputs[1], _beneath)


def _is_maximum(node: Node, below: Callable[[Node], Node]) -> bool:
    """Whether a maximum lies below a node, perhaps made finite by np.where."""
    node = below(node)
    chosen = node.inputs if node.op is pointwise.select else (node,)
    return any(below(one).op is reduction.max_ for one in chosen)


def _moved(node: Node) -> Node:
    """What a node only repeats or reshapes."""
    while node.op in (movement.broadcast, movement.reshape):
        node = node.inputs[0]
    return node


def _beneath(node: Node) -> Node:
    """What a node only repeats, reshapes or hides from the gradient."""
    while (node := _moved(node)).op is pointwise.stop_gradient:
        node = node.inputs[0]
    return node


def _shift(total: Node, trace: Trace) -> tuple[Any, Any, Any]:
    """x, its maximum over the summed axes, and that repeated to the shape of x."""
    axes = total["axes"]
    x = TracedArray(total.inputs[0].inputs[0], trace)
    top: Any = reduction.max_(pointwise.stop_gradient(x), axes=axes)
    top = np.where(np.isfinite(top), top, np.zeros_like(top))
    kept = tuple(axis for axis in range(x.ndim) if axis not in axes)
    return x, top, movement.broadcast(top, shape=x.shape, dims=kept)


def _log_sum_exp(total: Node, trace: Trace) -> Node | None:
    if any(total.inputs[0].shape[axis] == 0 for axis in total["axes"]):
        return None
    x, top, spread = _shift(total, trace)
    result: Any = np.log(reduction.sum_(np.exp(x - spread), axes=total["axes"])) + top
    node: Node = result.node
    return node


def _softmax(node: Node, total: Node, trace: Trace) -> Node | None:
    if any(total.inputs[0].shape[axis] == 0 for axis in total["axes"]):
        return None
    x, _, spread = _shift(total, trace)
    shifted = np.exp(x - spread)
    sums = reduction.sum_(shifted, axes=total["axes"])
    kept = tuple(axis for axis in range(x.ndim) if axis not in total["axes"])
    below = movement.broadcast(sums, shape=x.shape, dims=kept)
    return node_of(pointwise.divide, (shifted.node, below.node))


# -- maxima that cancel ----------------------------------------------------------------------------

#: Between one of the three forms and the difference in it.
_BETWEEN = (pointwise.exp, pointwise.log, reduction.sum_, movement.broadcast, movement.reshape)


def with_constant_maxima(outputs: Iterable[Node], kept: Iterable[Node]) -> dict[Node, Node]:
    """What to differentiate instead of each node that `outputs` reach: see the head of this file.

    `kept` nodes stay as they are: the variables of a gradient.
    """
    new = {node: node for node in kept}
    for node in topological(outputs):
        if node not in new:
            made = rebuilt(node, tuple(new[operand] for operand in node.inputs))
            new[node] = _with_constant_maximum(made)
    return new


def _with_constant_maximum(node: Node) -> Node:
    """The node; if it is one of the three forms, with its maximum hidden from the gradient."""
    shifted = _shifted_in(node)
    if shifted is None:
        return node
    x, top = shifted.inputs
    hidden = node_of(pointwise.subtract, (x, node_of(pointwise.stop_gradient, (top,))))
    operands = [_replaced(operand, shifted, hidden) for operand in node.inputs]
    if node.op is pointwise.add:
        operands = [
            node_of(pointwise.stop_gradient, (one,)) if _moved(one) is _moved(top) else one
            for one in operands
        ]
    return rebuilt(node, tuple(operands))


def _shifted_in(node: Node) -> Node | None:
    """x - m, if the node is one of the three forms."""
    if node.op is pointwise.divide:
        powers, total = node.inputs[0], _moved(node.inputs[1])
        found = _difference(total)
        return found if found is not None and total.inputs[0] is powers else None
    if node.op is pointwise.subtract:
        found = _difference_in_log(node.inputs[1])
        return found if found is node.inputs[0] else None
    if node.op is pointwise.add:
        for one, other in (node.inputs, reversed(node.inputs)):
            found = _difference_in_log(one)
            if found is not None and _moved(other) is _moved(found.inputs[1]):
                return found
    return None


def _difference_in_log(node: Node) -> Node | None:
    log = _moved(node)
    return _difference(_moved(log.inputs[0])) if log.op is pointwise.log else None


def _difference(total: Node) -> Node | None:
    """x - m, where `total` is sum(exp(x - m)) and m the same for all that is summed."""
    if total.op is not reduction.sum_ or total.inputs[0].op is not pointwise.exp:
        return None
    found = total.inputs[0].inputs[0]
    if found.op is not pointwise.subtract:
        return None
    top = found.inputs[1]
    is_repeated = top.op is movement.broadcast and not set(top["dims"]) & set(total["axes"])
    # not beneath stop_gradient: one that gradients do not see needs not be hidden
    return found if is_repeated and _is_maximum(top, _moved) else None


def _replaced(node: Node, old: Node, new: Node) -> Node:
    """The node with `old` replaced by `new` where only `_BETWEEN` lies between them."""
    if node is old:
        return new
    if node.op not in _BETWEEN:
        return node
    return rebuilt(node, tuple(_replaced(operand, old, new) for operand in node.inputs))
