"""Complex numbers as pairs of real ones: what kernels compute with.

Each complex value becomes two real values, by the rules of graphdl.compiler.complex_rules, so all
that fuses for real numbers fuses for complex ones. Where a value lies in memory that others see (an
argument, a result, an operand of a loop) it keeps the layout of a complex array: a real array with
one more axis of size 2, of which the parts are views.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from msgspec.structs import replace

from graphdl.compiler.complex_rules import RULES, Pair, constant, part_by_part, parts
from graphdl.errors import VerificationError
from graphdl.graph import Graph, Node, intern
from graphdl.ops import control
from graphdl.ops.complex_numbers import PART
from graphdl.ops.op import node_of
from graphdl.ops.paired import PAIRED
from graphdl.ops.table import OPS
from graphdl.tracing import Trace, TracedArray, as_traced
from graphdl.types import TensorType


def split_complex(graph: Graph) -> Graph:
    """The graph without complex values; complex inputs and outputs have one more axis, of 2."""
    if not any(_is_concerned(node) for node in graph.nodes):
        return graph
    split = _Split(graph)
    inputs = tuple(split.input(node) for node in graph.inputs)
    for node in graph.operations:
        split.trace.standin = graph.sources.get(node)
        split.operation(node)
    outputs = tuple(split.whole(node).node for node in graph.outputs)
    return replace(graph, inputs=inputs, outputs=outputs, sources=split.trace.sources)


def _is_concerned(node: Node) -> bool:
    if node.type.is_complex:
        return True
    return node.op.family == "control" and any(
        any(map(_is_concerned, body.nodes)) for _, value in node.attrs for body in _bodies(value)
    )


def _bodies(value: Any) -> Iterator[Graph]:
    """The graphs in an attribute of a control-flow node."""
    if isinstance(value, Graph):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _bodies(item)
    elif isinstance(value, control.Sweep):
        yield value.body


def pair_type(type: TensorType) -> TensorType:
    """How a complex array lies in memory, as real numbers."""
    return TensorType(PART[type.dtype], (*type.shape, 2)) if type.is_complex else type


class _Split:
    """One run of the pass: what stands for each node."""

    def __init__(self, graph: Graph) -> None:
        self.trace = Trace("split_complex")
        self.trace.sources.update(graph.sources)
        self.values: dict[Node, Any] = {}  # a traced value, or a pair of them
        self.wholes: dict[Node, TracedArray] = {}  # complex nodes that lie in memory as a whole

    def input(self, node: Node) -> Node:
        made = intern(node.op, (), node.attrs, pair_type(node.type))
        self._lies_at(node, TracedArray(made, self.trace))
        return made

    def _lies_at(self, node: Node, value: TracedArray) -> None:
        """What stands for a node that lies in memory: its parts are views."""
        if node.type.is_complex:
            self.wholes[node] = value
            self.values[node] = value[..., 0], value[..., 1]
        else:
            self.values[node] = value

    def whole(self, node: Node) -> Any:
        """A value as it lies in memory."""
        value = self.values[node]
        if not node.type.is_complex:
            return value
        if node not in self.wholes:
            stacked: Any = np.stack(parts(value), axis=-1)
            self.wholes[node] = stacked
        return self.wholes[node]

    def operation(self, node: Node) -> None:
        if node.op.family == "control":
            self.values[node] = self._control(node)
        elif node.op is control.item:
            type = pair_type(node.type)
            packed = self.values[node.inputs[0]]
            offset = node["offset"]
            made = control.item(packed, offset=offset, dtype=type.dtype, shape=type.shape)
            self._lies_at(node, made)
        elif node.op.family == "linalg" and any(map(_is_concerned, node.inputs)):
            self._linalg(node)
        elif node.type.is_complex or any(operand.type.is_complex for operand in node.inputs):
            self.values[node] = self._by_rule(node)
        else:
            inputs = tuple(self.values[operand].node for operand in node.inputs)
            made = node_of(node.op, inputs, dict(node.attrs)) if inputs else node
            self.trace.record(made)
            self.values[node] = TracedArray(made, self.trace)

    def _linalg(self, node: Node) -> None:
        """A call of LAPACK, which takes complex matrices as they lie in memory."""
        inputs = tuple(self.whole(operand).node for operand in node.inputs)
        made = node_of(PAIRED[node.op.name], inputs, dict(node.attrs))
        self.trace.record(made)
        self._lies_at(node, TracedArray(made, self.trace))

    def _by_rule(self, node: Node) -> Any:
        attrs = dict(node.attrs)
        if node.op.family == "constant":
            return self._constant(node)
        rule = RULES.get(node.op.name) or part_by_part(OPS[node.op.name])
        value = rule(*(self.values[operand] for operand in node.inputs), **attrs)
        part = TensorType(PART.get(node.dtype, node.dtype), node.shape)
        for made in value if isinstance(value, tuple) else (value,):
            if made is not None and made.type != part:
                raise VerificationError(
                    f"split complex: a part of {node!r} is {made.type} instead of {part}"
                )
        return value

    def _constant(self, node: Node) -> Pair:
        if "value" in dict(node.attrs):
            result: Pair = constant(lambda array: as_traced(array, self.trace))(value=node["value"])
            return result
        attrs = dict(node.attrs) | {"dtype": PART[node.dtype]}
        return TracedArray(node_of(node.op, (), attrs), self.trace), None

    def _control(self, node: Node) -> TracedArray:
        """A loop or a branch on values as they lie in memory, its bodies split."""
        attrs = {name: control.map_bodies(value, split_complex) for name, value in node.attrs}
        inputs = tuple(self.whole(operand).node for operand in node.inputs)
        return TracedArray(node_of(node.op, inputs, attrs), self.trace)
