"""What a graph computes, as a digest: equal for graphs that differ only in names and lines."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct, structs

from graphdl.graph import Graph, Literal, Node
from graphdl.ops import control, pointwise
from graphdl.ops.table import OPS
from graphdl.tracing import INPUT

#: The ops that are the same in every process; a function of the user's is another op each time.
_OPS = {
    **OPS,
    **{
        op.name: op
        for op in (control.scan, control.while_, control.switch, control.checkpoint, control.item)
    },
}


class _Unknown(Exception):
    """Something that only this process knows."""


def fingerprint(graph: Graph) -> bytes | None:
    """A digest of the operations, their order, attributes and types; None if another process could
    not tell what an operation does, as of a function of the user's (`gd.op`, `gd.debug`).
    """
    try:
        rows = _rows(graph, {})
    except _Unknown:
        return None
    return hashlib.sha256(msgspec.msgpack.encode(rows)).digest()


def _rows(graph: Graph, serials: dict[int, int]) -> list[Any]:
    """The graph in numbers and text: a row for each node, then which are inputs and outputs.

    `serials` counts the marks of what is differentiated, which a process numbers as they come.
    """
    number: dict[Node, int] = {}
    rows: list[Any] = []
    for node in graph.nodes:
        name = node.op.name
        attrs: tuple[Any, ...] = ()
        if node.op is INPUT:  # its attributes count traces; which one it is, `ends` tells
            pass
        elif name == "custom":  # marks a value, for gradients: once a graph is traced it is that
            number[node] = number[node.inputs[0]]
            continue
        elif _OPS.get(name) is not node.op:
            raise _Unknown
        elif node.op is pointwise.variable:
            attrs = (serials.setdefault(node["serial"], len(serials)),)
        else:
            attrs = tuple((key, _value(value, serials)) for key, value in node.attrs)
        number[node] = len(rows)
        operands = [number[operand] for operand in node.inputs]
        rows.append((name, operands, attrs, node.dtype.name, node.shape))
    ends = [[number[node] for node in nodes] for nodes in (graph.inputs, graph.outputs)]
    return [rows, *ends]


def _value(value: Any, serials: dict[int, int]) -> Any:
    """An attribute; what is no plain number or text is a list that begins with its kind."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, tuple):
        return ["tuple", *(_value(item, serials) for item in value)]
    if isinstance(value, np.dtype):
        return ["dtype", value.name]
    if isinstance(value, Literal):
        return ["array", *value.key]
    if isinstance(value, Graph):
        return ["graph", _rows(value, serials)]
    if isinstance(value, np.generic):
        return ["scalar", value.dtype.name, value.tobytes()]
    if isinstance(value, complex):
        return ["complex", value.real, value.imag]
    if isinstance(value, Struct):
        fields = (_value(item, serials) for item in structs.astuple(value))
        return [type(value).__name__, *fields]
    raise _Unknown
