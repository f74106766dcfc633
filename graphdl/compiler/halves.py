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
from graphdl.compiler.view import is_movement
from graphdl.errors import VerificationError
from graphdl.graph import Graph, Node, rebuild, users
from graphdl.ops import contraction, indexing, movement, pointwise
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


def half_products(graph: Graph) -> Graph:
    """The same function; products of what was made from halves take the halves themselves.

    Tensor cores multiply them exactly, and add up in float32: the result has that dtype.
    """

    def replace(node: Node, inputs: tuple[Node, ...]) -> Node:
        made = rebuilt(node, inputs)
        if made.op is not contraction.contract or made.dtype != FLOAT32:
            return made
        halves = [_half_behind(x) for x in made.inputs]
        a, b = halves
        if a is None or b is None or a.dtype != b.dtype:
            return made
        return node_of(made.op, (a, b), dict(made.attrs) | {"dtype": FLOAT32})

    return rebuild(graph, replace)


def separate(graph: Graph) -> Graph:
    """The same function; who reads a half as float32 makes that float32 for itself.

    One cast for several kernels would be written to memory, and take twice what the half takes.
    """
    if not any(map(_widens, graph.operations)):
        return graph
    readers = users(graph.nodes)
    counts: dict[Node, int] = {}

    def again(x: Node) -> Node:
        behind = x
        path = []
        while is_movement(behind):
            path.append(behind)
            behind = behind.inputs[0]
        if not _widens(behind) or behind not in shared:
            return x
        half = behind.inputs[0]
        counts[half] = number = counts.get(half, 0) + 1
        attrs = {"dtype": FLOAT32} if number == 1 else {"dtype": FLOAT32, "again": number}
        found = node_of(pointwise.cast, (half,), attrs)
        for step in reversed(path):
            found = rebuilt(step, (found,))
        return found

    def replace(node: Node, inputs: tuple[Node, ...]) -> Node:
        if is_movement(node) or node.op.family == "control":
            return rebuilt(node, inputs)
        return rebuilt(node, tuple(again(x) for x in inputs))

    shared = {node for node in graph.operations if _widens(node) and len(readers[node]) > 1}
    return rebuild(graph, replace) if shared else graph


def _widens(node: Node) -> bool:
    return node.op is pointwise.cast and is_half(node.inputs[0].dtype)


def _half_behind(node: Node) -> Node | None:
    """The value of 16 bits that a float32 is, seen through the same movement."""
    path = []
    while is_movement(node):
        path.append(node)
        node = node.inputs[0]
    if not _widens(node):
        return None
    found = node.inputs[0]
    for step in reversed(path):
        found = rebuilt(step, (found,))
    return found


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
