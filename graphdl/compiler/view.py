"""Views: a movement op on an array in memory is another offset and other strides, and no work."""

from __future__ import annotations

from msgspec import Struct

from graphdl.graph import Node
from graphdl.ops import control, movement
from graphdl.types import Shape, contiguous_strides, reshaped_strides

#: Movement that a view expresses (a reshape does not always).
MOVEMENT = (
    movement.reshape,
    movement.transpose,
    movement.broadcast,
    movement.slice_,
    movement.after,
    control.item,
)


class View(Struct, frozen=True):
    """An array inside the memory of `base`: offset and strides are counted in elements."""

    base: Node
    offset: int
    strides: Shape


def is_result(node: Node) -> bool:
    """Whether a node is a result of a loop or a branch: these lie in memory of their own."""
    return node.op is control.item and node.inputs[0].op.family == "control"


def is_movement(node: Node) -> bool:
    return node.op in MOVEMENT and not is_result(node)


def view_of(node: Node) -> View | None:
    """The node as a view of the nearest node that is no movement; None if strides cannot say it."""
    path = []
    while is_movement(node):
        path.append(node)
        node = node.inputs[0]
    base, offset, strides = node, 0, contiguous_strides(node.shape)
    for step in reversed(path):
        if step.op is control.item:  # a packed result lies at a multiple of its item size
            offset = step["offset"] // step.dtype.itemsize
            strides = contiguous_strides(step.shape)
        elif step.op is movement.transpose:
            strides = tuple(strides[axis] for axis in step["perm"])
        elif step.op is movement.broadcast:
            spread = [0] * step.type.ndim
            for dim, stride in zip(step["dims"], strides, strict=True):
                spread[dim] = stride
            strides = tuple(spread)
        elif step.op is movement.slice_:
            offset += sum(
                start * stride for start, stride in zip(step["starts"], strides, strict=True)
            )
            strides = tuple(
                stride * jump for stride, jump in zip(strides, step["steps"], strict=True)
            )
        elif step.op is movement.after:
            continue
        else:
            reshaped = reshaped_strides(step.inputs[0].shape, strides, step.shape)
            if reshaped is None:
                return None
            strides = reshaped
    return View(base, offset, strides)
