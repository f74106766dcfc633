"""Sums of zero-padded arrays that lie side by side: they are the arrays, joined.

The gradient of `a, b = x[:, :n], x[:, n:]` is a sum of two padded cotangents, of which each element
comes from one: concatenate([a', b'], axis=1), which reads nothing but the parts.
"""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from graphdl.compiler.constants import constant, is_zero, repeated, uniform
from graphdl.graph import Node
from graphdl.ops import movement, pointwise
from graphdl.ops.op import node_of

#: Parts that are looked for in one sum.
_MOST = 64


class _Part(Struct, frozen=True):
    """A term of a sum: the array that is padded, scaled as the padded one is, and the pad."""

    inside: Node
    pad: Node

    def start(self, axis: int) -> int:
        starts: tuple[int, ...] = self.pad["starts"]
        return starts[axis]

    def across(self, axis: int) -> list[tuple[int, int]]:
        """Where the part lies along the other axes."""
        places = list(zip(self.pad["starts"], self.inside.shape, strict=True))
        return places[:axis] + places[axis + 1 :]


def joined(node: Node) -> Node | None:
    """A sum as joined parts, perhaps padded: None if it is not a sum of neighbours."""
    parts = _parts(node)
    if parts is None or len(parts) < 2:
        return None
    axes = [i for i in range(node.type.ndim) if len({part.start(i) for part in parts}) > 1]
    if len(axes) != 1:
        return None
    axis = axes[0]
    parts.sort(key=lambda part: part.start(axis))
    first = parts[0]
    if any(part.across(axis) != first.across(axis) for part in parts):
        return None
    end = first.start(axis)
    for part in parts:
        if part.start(axis) != end:
            return None
        end += part.inside.shape[axis]
    whole = node_of(movement.concatenate, [part.inside for part in parts], {"axis": axis})
    if whole.shape == node.shape:
        return whole
    return node_of(movement.pad, (whole, first.pad.inputs[1]), dict(first.pad.attrs))


def _parts(node: Node) -> list[_Part] | None:
    """The terms of a sum if all are arrays among zeros, in steps of one."""
    parts: list[_Part] = []
    pending = [(node, 1.0)]
    while pending:
        term, scale = pending.pop()
        if term.op in (pointwise.add, pointwise.subtract) and len(pending) + len(parts) < _MOST:
            x, y = term.inputs
            pending += [(x, scale), (y, scale if term.op is pointwise.add else -scale)]
        elif term.op is pointwise.negative:
            pending.append((term.inputs[0], -scale))
        elif term.op is pointwise.multiply and (factor := _factor(term)) is not None:
            pending.append((term.inputs[0], scale * factor))
        elif term.op is movement.pad and _is_among_zeros(term):
            parts.append(_Part(_scaled(term.inputs[0], scale), term))
        else:
            return None
    return parts


def _factor(product: Node) -> float | None:
    """The number that an array is multiplied by; not one that makes something of zeros."""
    number = uniform(product.inputs[1])
    if number is None or not product.type.is_float or not np.isfinite(number):
        return None
    return float(number)


def _scaled(x: Node, scale: float) -> Node:
    if scale == 1:
        return x
    factor = constant(np.asarray(scale, x.dtype))
    return node_of(pointwise.multiply, (x, repeated(factor, x.shape)))


def _is_among_zeros(pad: Node) -> bool:
    return (
        is_zero(pad.inputs[1])
        and pad.type.is_float
        and pad.inputs[0].type.size > 0
        and all(step == 1 for step in pad["steps"])
    )
