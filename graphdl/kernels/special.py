"""Kernels of the ops that are no loop nest of scalar code, and the list of all of them."""

from __future__ import annotations

from collections.abc import Callable

from graphdl.graph import Node
from graphdl.kernels.copying import copy_launch, is_near, joining_launch, place_of
from graphdl.kernels.cumulative import CUMULATIVE
from graphdl.kernels.program import Buffer, Launch
from graphdl.kernels.replace import scatter
from graphdl.kernels.scattering import scatter_add
from graphdl.kernels.sorting import SORTING
from graphdl.kernels.windows import window_pick, window_place
from graphdl.types import contiguous_strides

#: Parts of one element along the last axis, at most, that are copied side by side at once.
SIDE_BY_SIDE = 8


def concatenate(node: Node, status: Buffer) -> list[Launch]:
    """Each part is copied into its slab of the result; numbers side by side, as of np.stack along
    a last axis and of complex numbers, all at once."""
    axis: int = node["axis"]
    places = contiguous_strides(node.shape)
    parts = [operand for operand in node.inputs if operand.type.size]
    if (
        1 < len(parts) <= SIDE_BY_SIDE
        and places[axis] == 1
        and all(part.shape[axis] == 1 for part in parts)
    ):
        sources = [place_of(part) for part in parts]
        if all(is_near(parts[0].shape, strides, places) for _, strides, _ in sources):
            return [joining_launch("concatenate", node, parts[0].shape, sources, 0, places)]
    launches = []
    start = 0
    for operand in node.inputs:
        if operand.type.size:
            source, to = place_of(operand), start * places[axis]
            launches.append(copy_launch("concatenate", node, operand.shape, source, to, places))
        start += operand.shape[axis]
    return launches


#: The ops whose operands must lie in memory row by row, and their launches.
SPECIAL: dict[str, Callable[[Node, Buffer], list[Launch]]] = {
    "concatenate": concatenate,
    "scatter_add": scatter_add,
    "scatter": scatter,
    **CUMULATIVE,
    **SORTING,
    "window_pick": window_pick,
    "window_place": window_place,
}
