"""The results of a loop that another loop, or a value, gives instead."""

from __future__ import annotations

from collections.abc import Mapping

from graphdl.graph import Node
from graphdl.ops import control
from graphdl.ops.op import node_of

#: What each result of a loop becomes, by number: a result of another one, by number, or a value.
Results = Mapping[int, "tuple[Node, int] | Node"]


def result(loop: Node, number: int) -> Node:
    """A result of a loop."""
    types = control.result_types(loop)
    attrs = {
        "offset": control.offsets(types)[number],
        "dtype": types[number].dtype,
        "shape": types[number].shape,
    }
    return node_of(control.item, (loop,), attrs)


def number_of(item: Node) -> int:
    """Which result of its loop an item is."""
    return control.offsets(control.result_types(item.inputs[0])).index(item["offset"])


def replaced(item: Node, results: Results) -> Node:
    """What stands for an item of a loop whose results have become `results`."""
    found = results[number_of(item)]
    return found if isinstance(found, Node) else result(*found)
