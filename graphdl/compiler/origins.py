"""What kernels read and write: the values in memory behind an operand, and where in the loops.

Movement is seen through: an operand is read from its origin in memory, at the same place of the
loops (`through`) or elsewhere in it. Numbers and indices are in no memory: each kernel that needs
them makes them anew.
"""

from __future__ import annotations

from collections.abc import Iterable

from graphdl.compiler.view import View, is_movement, view_of
from graphdl.graph import Node
from graphdl.ops import control, indexing, movement, pointwise
from graphdl.ops.update import UPDATES, changed_shape
from graphdl.types import contiguous_strides

#: The loop of each axis of a value; None for an axis of size one, which needs none.
Axes = tuple[int | None, ...]

#: Pointwise ops whose kernels may note that something is wrong.
CHECKS = (indexing.position, pointwise.guard, pointwise.watch)


def is_apart(node: Node) -> bool:
    """Whether a node is a copy that readers find in memory: see graphdl.compiler.straighten."""
    return ("apart", True) in node.attrs


def is_generator(node: Node) -> bool:
    """Whether a kernel makes the value from nothing: a number, or the index itself."""
    return node.op is movement.iota or is_number(node)


def is_number(node: Node) -> bool:
    """Whether the value is one number that does not depend on the arguments."""
    return node.op is movement.extent or (node.op is movement.constant and node.type.size == 1)


def counts(operand: Node) -> bool:
    """Whether an operand is an iota seen through movement that a kernel computes from its loops:
    the number of an element in an array of several axes, or every other number.
    """
    if through(operand, tuple(range(operand.type.ndim))) is not None:
        return False
    view = view_of(operand)
    return view is not None and view.base.op is movement.iota


def is_scalar(node: Node) -> bool:
    """Whether each kernel that needs the node computes it anew: one number, from numbers.

    Not a copy, which is there because a kernel needs the number in memory, nor what is checked, and
    only once.
    """
    return (
        node.op.family == "pointwise"
        and node.shape == ()
        and node.op not in CHECKS
        and node.op.name != "copy"
    )


def through(operand: Node, axes: Axes) -> tuple[Node, Axes] | None:
    """The value behind movement ops, and its loops if `operand` has loops `axes`.

    None where an element of the operand is not at the same place of the loops as its origin.
    """
    node = operand
    while is_movement(node):
        inner = node.inputs[0]
        if node.op is movement.transpose:
            moved: list[int | None] = [None] * inner.type.ndim
            for i, axis in enumerate(node["perm"]):
                moved[axis] = axes[i]
            axes = tuple(moved)
        elif node.op is movement.broadcast:
            axes = tuple(axes[dim] for dim in node["dims"])
        elif node.op is movement.after:
            pass
        elif node.op is movement.reshape:
            kept = [(a, n) for a, n in zip(axes, node.shape, strict=True) if n != 1]
            sizes = [n for n in inner.shape if n != 1]
            if [n for _, n in kept] != sizes:
                return None
            remaining = iter(kept)
            axes = tuple(next(remaining)[0] if n != 1 else None for n in inner.shape)
        else:
            return None
        node = inner
    return node, tuple(
        None if size == 1 and axis is None else axis
        for axis, size in zip(axes, node.shape, strict=True)
    )


def origins(operand: Node) -> list[Node]:
    """The values in memory that an operand is read from, through numbers computed anew."""
    while is_movement(operand):
        operand = operand.inputs[0]
    if not is_scalar(operand):  # nearly always, and asked thousands of times
        return [operand]
    found: list[Node] = []
    stack = [operand]
    seen: set[Node] = set()
    while stack:
        node = stack.pop()
        while is_movement(node):
            node = node.inputs[0]
        if node in seen:
            continue
        seen.add(node)
        if is_scalar(node):
            stack.extend(node.inputs)
        else:
            found.append(node)
    return found


def awaited(operand: Node) -> list[Node]:
    """The values that have to be there before an operand may be read: see movement.after."""
    found: list[Node] = []
    stack = [operand]
    seen: set[Node] = set()
    while stack:
        node = stack.pop()
        while is_movement(node):
            if node.op is movement.after:
                found += [origin for other in node.inputs[1:] for origin in origins(other)]
            node = node.inputs[0]
        if is_scalar(node) and node not in seen:
            seen.add(node)
            stack.extend(node.inputs)
    return found


def changed_view(node: Node) -> View:
    """The part of its own memory that an `update` writes anew."""
    strides = contiguous_strides(node.shape)
    offset = sum(start * stride for start, stride in zip(node["starts"], strides, strict=True))
    steps = zip(strides, node["steps"], strict=True)
    return View(node, offset, tuple(stride * step for stride, step in steps))


def overwritten(node: Node) -> Node | None:
    """The value in memory that an update may be written over: all of it, in the same order."""
    view = view_of(node.inputs[0])
    if view is None or view.offset or view.base.dtype != node.dtype:
        return None
    if view.base.op is movement.blank:
        return None
    if view.base.type.size != node.type.size:
        return None
    return view.base if view.strides == contiguous_strides(node.shape) else None


def may_change(node: Node) -> list[Node]:
    """The values in memory that what a node computes may be written over."""
    if node.op in UPDATES:
        base = overwritten(node)
        return [] if base is None else [base]
    views = (view_of(operand) for operand in _handed_on(node))
    return list(dict.fromkeys(view.base for view in views if view is not None))


def _handed_on(node: Node) -> list[Node]:
    """The operands that a loop carries on, and those that a branch may return changed."""
    if node.op is control.scan:
        consts = node["consts"]
        return list(node.inputs[consts : consts + node["carries"]])
    if node.op is control.switch:
        types = control.result_types(node)
        return [operand for operand in node.inputs[1:] if operand.type in types]
    if node.op is not control.while_:
        return []
    found: list[Node] = []
    start = node["condition_consts"]
    for sweep in node["sweeps"]:
        found += node.inputs[start + sweep.consts : start + sweep.operands]
        start += sweep.operands
    return found


def spoils(node: Node, members: Iterable[Node]) -> bool:
    """Whether an `update` could not be written in place in one kernel with `members`.

    It could where they read of its base only the element that is replaced. A new array instead
    costs as much as a pass over all of it: less than keeping the new part in memory of its own if
    that is the larger part, as the inside of a grid is.
    """
    base = overwritten(node)
    if base is None or 2 * node.inputs[1].type.size > node.type.size:
        return False
    place = changed_view(node)
    for member in members:
        for operand in member.inputs:
            if member is node and operand is node.inputs[0]:
                continue
            if base in origins(operand):
                view = view_of(operand)
                same = (place.offset, place.strides, changed_shape(node))
                if view is None or (view.offset, view.strides, operand.shape) != same:
                    return True
    return False
