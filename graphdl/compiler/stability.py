"""Numerical stability: sums of exponentials that would overflow as they are written.

log(sum(exp(x))) and exp(x) / sum(exp(x)) are computed from x less its maximum. The maximum is a
constant to the gradient, since it cancels; where it is not finite nothing is subtracted, so that
log(sum(exp(-inf))) stays -inf.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphdl.graph import Node
from graphdl.ops import movement, pointwise, reduction
from graphdl.ops.op import node_of
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
    return not _is_maximum(x.inputs[1])


def _is_maximum(node: Node) -> bool:
    """Whether a node repeats a maximum, which may have been made finite by np.where."""
    node = _beneath(node)
    chosen = node.inputs if node.op is pointwise.select else (node,)
    return any(_beneath(one).op is reduction.max_ for one in chosen)


def _beneath(node: Node) -> Node:
    """What a node only repeats, reshapes or hides from the gradient."""
    while node.op in (movement.broadcast, movement.reshape, pointwise.stop_gradient):
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
