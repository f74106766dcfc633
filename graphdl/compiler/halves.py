"""Floats of 16 bits: stored so, and computed with as float32.

float16 and bfloat16 save memory and its bandwidth; few processors compute with them but in matrix
products. So each op that computes is done on float32, and rounded where the result is stored:
`cast` in front of its operands, `stored` behind it. Inside of a kernel nothing is rounded in
between, and sums are added up in float32. What only moves numbers (views, copies, gathers, joins,
updates) moves 16 bits.

NumPy and ml_dtypes compute one op at a time, and round after each; so does `Graph.evaluate`. A
compiled program is at least as accurate.
"""

from __future__ import annotations

import numpy as np

from graphdl.compiler.materialise import copy
from graphdl.errors import VerificationError
from graphdl.graph import Graph, Node, rebuild
from graphdl.ops import indexing, movement, pointwise
from graphdl.ops.op import node_of, rebuilt
from graphdl.ops.update import scatter
from graphdl.types import Dtype, as_dtype, is_half

FLOAT32: Dtype = np.dtype(np.float32)

#: Ops that move numbers, or pass them on, whatever these are.
_MOVES = (
    copy, indexing.gather, movement.constant, pointwise.select, pointwise.variable,
    pointwise.stop_gradient, pointwise.stored,
)  # fmt: skip
_FAMILIES = ("control", "custom", "input", "movement")


def widen_halves(graph: Graph) -> Graph:
    """The same function without an op that computes with floats of 16 bits."""
    if not any(is_half(node.dtype) for node in graph.nodes):
        return graph
    return rebuild(graph, _widened)


def _widened(node: Node, inputs: tuple[Node, ...]) -> Node:
    concerned = is_half(node.dtype) or any(is_half(x.dtype) for x in inputs)
    if not concerned or _moves(node):
        return rebuilt(node, inputs)
    if node.op is pointwise.cast:
        return _cast(inputs[0], node.dtype)
    attrs = {name: FLOAT32 if _names_half(value) else value for name, value in node.attrs}
    made = node_of(node.op, tuple(as_float32(x) for x in inputs), attrs)
    if made.type == node.type:
        return made
    if made.dtype != FLOAT32 or not is_half(node.dtype):
        raise VerificationError(f"halves: {node!r} became {made!r}")
    return node_of(pointwise.stored, (made,), {"dtype": node.dtype})


def _moves(node: Node) -> bool:
    if node.op is scatter:
        return bool(node["mode"] == "set")
    return node.op in _MOVES or node.op.family in _FAMILIES


def _names_half(value: object) -> bool:
    return isinstance(value, np.dtype) and is_half(value)


def as_float32(x: Node) -> Node:
    """A value of 16 bits as float32, others as they are."""
    return node_of(pointwise.cast, (x,), {"dtype": FLOAT32}) if is_half(x.dtype) else x


def _cast(x: Node, dtype: Dtype) -> Node:
    """A cast by way of float32, but from float64, which is rounded once."""
    wide = as_float32(x)
    if is_half(dtype) and wide.dtype.kind != "f":
        wide = node_of(pointwise.cast, (wide,), {"dtype": FLOAT32})
    if wide.dtype == dtype:
        return wide
    return node_of(pointwise.cast, (wide,), {"dtype": as_dtype(dtype)})
