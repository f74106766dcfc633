"""A graph as plain data, and back: numbers, text, bytes and lists, for a file.

Nodes are written by the names of their ops, so a file holds no code. Reading builds them anew:
types are inferred and checked as in a trace, and whatever the ops refuse is an error.

What marks a value for gradients only (`custom_vjp`) is left out: once a graph is traced its
gradients are part of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct, structs

from graphdl.errors import GraphError, UnsupportedError
from graphdl.graph import Attributes, Graph, Literal, Node, Scope, Source, intern
from graphdl.native import tree_data
from graphdl.ops import control, convolution
from graphdl.ops.op import Op, node_of
from graphdl.ops.table import OPS
from graphdl.tracing import INPUT
from graphdl.types import TensorType, as_dtype

_OPS: dict[str, Op] = {
    **OPS,
    **{
        op.name: op
        for op in (control.scan, control.while_, control.switch, control.checkpoint, control.item)
    },
}
_STRUCTS: dict[str, type[Struct]] = {
    kind.__name__: kind for kind in (control.Sweep, convolution.Axis, TensorType)
}

#: Tells the inputs of one graph from those of another: an input's `trace` is the id of a trace, or,
#: where a graph was read, one of these.
_serials = itertools.count(-1, -1)


class SourceData(Struct, frozen=True, array_like=True):
    """A line of the user's code; `scopes` and `pulled` are numbers of others, or -1."""

    file: str
    line: int
    function: str
    scopes: tuple[int, ...]
    pulled: int
    gradient_of: int


class NodeData(Struct, frozen=True, array_like=True):
    """An operation on nodes by their numbers; one without an op is an input."""

    op: str
    inputs: tuple[int, ...]
    attrs: tuple[tuple[str, Any], ...]
    source: int = -1
    dtype: str = ""
    shape: tuple[int, ...] = ()


class GraphData(Struct, frozen=True, array_like=True):
    """A graph; nodes and sources by number."""

    nodes: list[NodeData]
    inputs: list[int]
    outputs: list[int]
    names: list[str]
    sources: list[SourceData]
    scopes: list[str]
    in_tree: Any
    out_tree: Any


# ------------------------------------------------------------------------------------------ writing


def written(graph: Graph) -> GraphData:
    """The data of a graph.

    Raises UnsupportedError for an op that is a function of the user's, as of `gd.op` or `gd.debug`,
    and for a tree of a type that only this process knows.
    """
    number: dict[Node, int] = {}
    nodes: list[NodeData] = []
    sources = _Sources(number)
    for node in graph.nodes:
        if node.op.name == "custom":
            number[node] = number[node.inputs[0]]
            continue
        number[node] = len(nodes)
        source = sources.number_of(graph.sources.get(node))
        operands = tuple(number[operand] for operand in node.inputs)
        if node.op is INPUT:
            given = (("position", node["position"]),)
            nodes.append(NodeData("", (), given, source, node.dtype.name, node.shape))
            continue
        if _OPS.get(node.op.name) is not node.op:
            raise UnsupportedError(
                f"{node.op.name} is a Python function (gd.op, gd.debug), which a file does not "
                f"hold: a program with it cannot be saved"
            )
        attrs = tuple((key, _written_value(value)) for key, value in node.attrs)
        nodes.append(NodeData(node.op.name, operands, attrs, source))
    return GraphData(
        nodes,
        [number[node] for node in graph.inputs],
        [number[node] for node in graph.outputs],
        list(graph.names),
        sources.rows,
        sources.scopes,
        tree_data.written(graph.in_tree),
        tree_data.written(graph.out_tree),
    )


class _Sources:
    """The lines of a graph's nodes, each once."""

    def __init__(self, number: dict[Node, int]) -> None:
        self.rows: list[SourceData] = []
        self.scopes: list[str] = []
        self._number = number
        self._known: dict[int, int] = {}  # by identity: equal lines may have other scopes
        self._scope: dict[Scope, int] = {}
        self._keep: list[Source] = []

    def number_of(self, source: Source | None) -> int:
        chain: list[Source] = []
        while source is not None and id(source) not in self._known:
            chain.append(source)
            source = source.pulled
        last = self._known[id(source)] if source is not None else -1
        for one in reversed(chain):
            origin = one.gradient_of
            row = SourceData(
                one.file,
                one.line,
                one.function,
                tuple(self._scope_number(scope) for scope in one.scopes),
                last,
                self._number.get(origin, -1) if origin is not None else -1,
            )
            last = self._known[id(one)] = len(self.rows)
            self.rows.append(row)
            self._keep.append(one)
        return last

    def _scope_number(self, scope: Scope) -> int:
        if scope not in self._scope:
            self._scope[scope] = len(self.scopes)
            self.scopes.append(scope.name)
        return self._scope[scope]


def _written_value(value: Any) -> Any:
    """An attribute: what msgpack has as it is, the rest as a list that begins with its kind."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, tuple):
        return ["tuple", *map(_written_value, value)]
    if isinstance(value, np.dtype):
        return ["dtype", value.name]
    if isinstance(value, Literal):
        array = value.array
        return ["array", array.dtype.name, list(array.shape), array.tobytes()]
    if isinstance(value, Graph):
        return ["graph", written(value)]
    if isinstance(value, np.generic):
        return _written_value(value.item())
    if isinstance(value, complex):
        return ["complex", value.real, value.imag]
    if _STRUCTS.get(type(value).__name__) is type(value):
        return [type(value).__name__, *map(_written_value, structs.astuple(value))]
    raise UnsupportedError(f"the attribute {value!r:.60} cannot be written to a file")


# ------------------------------------------------------------------------------------------ reading


def read(data: GraphData) -> Graph:
    """The graph of data. Raises GraphError for data that is none."""
    try:
        return _read(data)
    except GraphError:
        raise
    except (LookupError, TypeError, ValueError, msgspec.MsgspecError) as error:
        raise GraphError(f"the data of a graph makes no sense: {error}") from error


def _read(data: GraphData) -> Graph:
    serial = next(_serials)
    nodes: list[Node] = []
    for row in data.nodes:
        attrs = {key: _read_value(value) for key, value in row.attrs}
        if not row.op:
            given: Attributes = (("position", attrs["position"]), ("trace", serial))
            type = TensorType(as_dtype(row.dtype), tuple(row.shape))
            nodes.append(intern(INPUT, (), given, type))
            continue
        nodes.append(node_of(_OPS[row.op], [_at(nodes, i) for i in row.inputs], attrs))
    sources = _read_sources(data, nodes)
    return Graph(
        tuple(_at(nodes, i) for i in data.inputs),
        tuple(_at(nodes, i) for i in data.outputs),
        tuple(data.names),
        {
            node: sources[row.source]
            for node, row in zip(nodes, data.nodes, strict=True)
            if row.source >= 0
        },
        tree_data.read(data.in_tree),
        tree_data.read(data.out_tree),
    )


def _at(nodes: list[Node], number: int) -> Node:
    """The node of a number; negative ones would count from the end."""
    if number < 0:
        raise IndexError(f"node {number}")
    return nodes[number]


def _read_sources(data: GraphData, nodes: list[Node]) -> list[Source]:
    scopes = [Scope(name) for name in data.scopes]
    found: list[Source] = []
    for row in data.sources:
        pulled = found[row.pulled] if row.pulled >= 0 else None
        origin = nodes[row.gradient_of] if row.gradient_of >= 0 else None
        inside = tuple(scopes[i] for i in row.scopes)
        found.append(Source(row.file, row.line, row.function, inside, pulled, origin))
    return found


_READ: dict[str, Callable[..., Any]] = {
    "tuple": lambda *items: tuple(map(_read_value, items)),
    "dtype": as_dtype,
    "array": lambda dtype, shape, content: Literal(
        np.frombuffer(content, as_dtype(dtype)).reshape(shape)
    ),
    "complex": complex,
    **{
        name: lambda *items, kind=kind: kind(*map(_read_value, items))
        for name, kind in _STRUCTS.items()
    },
}


def _read_value(value: Any) -> Any:
    if not isinstance(value, (list, tuple)):
        return value
    kind, *items = value
    if kind == "graph":
        return read(msgspec.convert(items[0], GraphData))
    return _READ[kind](*items)
