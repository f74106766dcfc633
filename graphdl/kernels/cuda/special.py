"""Kernels of the ops that are no loop nest of scalar code, and the list of all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from graphdl.graph import Node
from graphdl.kernels.cuda.copying import concatenate
from graphdl.kernels.cuda.launch import DeviceLaunch
from graphdl.kernels.cuda.lines import cumulative
from graphdl.kernels.cuda.order import searchsorted, sort
from graphdl.kernels.cuda.scatter import scatter, scatter_add
from graphdl.kernels.cuda.windows import window_pick, window_place
from graphdl.kernels.program import Buffer

#: From an op's node and the status of its program to its launches.
Emit = Callable[[Node, Buffer], list[DeviceLaunch]]

SPECIAL: Mapping[str, Emit] = {
    "concatenate": lambda node, status: concatenate(node),
    "scatter_add": scatter_add,
    "scatter": scatter,
    **dict.fromkeys(("cumsum", "cummax", "cummin", "recurrence"), cumulative),
    **dict.fromkeys(("sort", "argsort"), sort),
    "searchsorted": searchsorted,
    "window_pick": window_pick,
    "window_place": window_place,
}
