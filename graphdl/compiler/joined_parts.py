"""Sums of zero-padded arrays that lie side by side: they are the arrays, joined.

The gradient of `a, b = x[:, :n], x[:, n:]` is a sum of two padded cotangents, of which each element
comes from one: concatenate([a', b'], axis=1), which reads nothing but the parts.
"""

from __future__ import annotations

from graphdl.compiler.constants import uniform
from graphdl.graph import Node
from graphdl.ops import movement, pointwise
from graphdl.ops.op import node_of

#: Parts that are looked for in one sum.
_MOST = 64


def joined(node: Node) -> Node | None:
    """A sum as joined parts, perhaps padded: None if it is not a sum of neighbours."""
    parts = _padded_parts(node)
    if parts is None or len(parts) < 2:
        return None
    axes = [i for i in range(node.type.ndim) if len({part["starts"][i] for part in parts}) > 1]
    if len(axes) != 1:
        return None
    axis = axes[0]
    parts.sort(key=lambda part: part["starts"][axis])
    first = parts[0]
    if any(_across(part, axis) != _across(first, axis) for part in parts):
        return None
    end = first["starts"][axis]
    for part in parts:
        if part["starts"][axis] != end:
            return None
        end += part.inputs[0].shape[axis]
    whole = node_of(movement.concatenate, [part.inputs[0] for part in parts], {"axis": axis})
    if whole.shape == node.shape:
        return whole
    return node_of(movement.pad, (whole, first.inputs[1]), dict(first.attrs))


def _padded_parts(node: Node) -> list[Node] | None:
    """The terms of a sum if they are arrays among zeros, in steps of one."""
    parts: list[Node] = []
    pending = [node]
    while pending:
        term = pending.pop()
        if term.op is pointwise.add and len(pending) + len(parts) < _MOST:
            pending += term.inputs
        elif term.op is movement.pad and _is_among_zeros(term):
            parts.append(term)
        else:
            return None
    return parts


def _is_among_zeros(pad: Node) -> bool:
    fill = uniform(pad.inputs[1])
    return (
        fill is not None
        and not fill.any()
        and pad.inputs[0].type.size > 0
        and all(step == 1 for step in pad["steps"])
    )


def _across(pad: Node, axis: int) -> list[tuple[int, int]]:
    """Where a part lies along the other axes."""
    places = list(zip(pad["starts"], pad.inputs[0].shape, strict=True))
    return places[:axis] + places[axis + 1 :]
