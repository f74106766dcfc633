"""Products and convolutions as a kernel sees their results: batches, rows and columns.

A result of several axes is walked by four loops (z, y, row, column). What an epilogue reads or
writes beside it must be linear along each of them: `along` says with which strides, if it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from graphdl.compiler.contract import roles
from graphdl.graph import Node
from graphdl.ops import contraction, convolution
from graphdl.types import Shape

#: The ops whose kernels call an epilogue.
ROOTS = (
    contraction.contract,
    convolution.convolve,
    convolution.filter_gradient,
    convolution.filter_gradient_parts,
)

Strides = tuple[int, int, int, int]
Ints = tuple[int, ...]


class Walk(Struct, frozen=True):
    """The axes of a result that make up each loop.

    outer: those of z, batch: those of y; or `groups` equal parts of the columns are the batches.
    """

    batch: Ints
    row: Ints
    column: Ints
    groups: int = 1
    outer: Ints = ()


def walk(root: Node) -> Walk:
    """How the kernel of `root` walks its result."""
    last = root.type.ndim - 1
    if root.op is convolution.convolve:
        groups = 1 if is_depthwise(root) else root["groups"]
        return Walk((), tuple(range(last)), (last,), groups)
    if root.op in (convolution.filter_gradient, convolution.filter_gradient_parts):
        first = int(root.op is convolution.filter_gradient_parts)
        outer, window = tuple(range(first)), tuple(range(first, last))
        groups = 1 if is_depthwise(root) else root["groups"]
        return Walk((), window, (last,), groups, outer)
    role, labels = roles(root), root["lo"]
    batch, row, column = (
        tuple(labels.index(label) for label in part) for part in (role.batch, role.m, role.n)
    )
    return Walk(batch, row, column)


def is_depthwise(root: Node) -> bool:
    """Whether each channel of a convolution is a group, with one output."""
    x, other = root.inputs
    return bool(root["groups"] == x.shape[-1] == other.shape[-1] > 1)


def along(root: Node, strides: Sequence[int]) -> Strides | None:
    """An array's strides along (z, y, row, column), from those along the axes of the result."""
    loops = walk(root)
    outer, batch, row, column = (
        _joined(root.shape, strides, axes)
        for axes in (loops.outer, loops.batch, loops.row, loops.column)
    )
    if outer is None or batch is None or row is None or column is None:
        return None
    if loops.groups > 1:
        axis = loops.column[-1]
        batch = strides[axis] * (root.shape[axis] // loops.groups)
    return outer, batch, row, column


def _joined(shape: Shape, strides: Sequence[int], axes: Ints) -> int | None:
    """The stride of several axes walked as one, if that is possible."""
    found: int | None = None
    extent = 1
    for axis in reversed(axes):
        if shape[axis] == 1:
            continue
        if found is None:
            found = strides[axis]
        elif strides[axis] != found * extent:
            return None
        extent *= shape[axis]
    return 0 if found is None else found
