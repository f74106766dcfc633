"""Which index is out of bounds: `gd.compile(checks="bounds")`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Struct

from graphdl.checks.walk import Array, Place, Tracked, as_inputs, walk
from graphdl.graph import Graph, Node, reference
from graphdl.ops import indexing, update


class Miss(Struct, frozen=True):
    """An index that is out of bounds: where it is used, which element it is, and of what size."""

    node: Node
    place: Place
    index: tuple[int, ...]
    value: int
    size: int


class _Found(Exception):
    def __init__(self, miss: Miss) -> None:
        self.miss = miss


def find(graph: Graph, leaves: Sequence[Any]) -> Miss | None:
    """The first index that is out of bounds, in the order of the graph, for these leaves."""
    place = Place(graph)
    inputs = [Tracked(array) for array in as_inputs(graph, leaves)]
    try:
        walk(place, inputs, _compute)
    except _Found as found:
        return found.miss
    return None


def _compute(node: Node, operands: list[Tracked], place: Place) -> Tracked:
    values = [operand.value for operand in operands]
    for index, low, size in _indices(node, values):
        bad = (index < low) | (index >= size)
        if bad.any():
            first = np.unravel_index(int(np.argmax(bad)), bad.shape) if bad.ndim else ()
            where = tuple(int(i) for i in first)
            raise _Found(Miss(node, place, where, int(index[where]), size))
    with np.errstate(all="ignore"):
        return Tracked(reference(node, values))


def _indices(node: Node, values: Sequence[Array]) -> list[tuple[Array, int, int]]:
    """The index arrays of a node, and between what each must lie."""
    if node.op is indexing.position:
        return [(values[0], -node["size"], node["size"])]
    if node.op is indexing.gather:
        return [(values[1], 0, len(values[0]))]
    if node.op is indexing.scatter_add:
        return [(values[1], 0, node["size"])]
    if node.op is update.scatter:
        sizes = [values[0].shape[axis] for axis in node["axes"]]
        return [(index, 0, size) for index, size in zip(values[2:], sizes, strict=True)]
    return []
