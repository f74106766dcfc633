"""A small graph with its numbers, as textbooks draw a computation graph.

Each box shows the value that is computed there, and its derivative: by how much the result changes
with it. Each edge shows what goes forward along it, and what comes back: the derivative of the
result by the box below, times the derivative of that box by the box above. Below stand the products
of these factors along all ways from an input to the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphdl.compiler import differentiate
from graphdl.errors import ArgumentError, GradientError, GraphError, ShapeError
from graphdl.graph import Graph, Node
from graphdl.ops import pointwise
from graphdl.ops.op import Op
from graphdl.tracing import new_input, tracing
from graphdl.types import TensorType, kind_of
from graphdl.visualize.drawing import draw
from graphdl.visualize.labels import cut, type_text
from graphdl.visualize.picture import Band, Drawing, Item

Values = NDArray[Any]

#: Larger graphs have too many numbers to read.
MOST_NODES = 100
#: Sums of more products than this are not written out.
MOST_PATHS = 4
NUMBER_LIMIT = 26


def teach(graph: Graph, arguments: Sequence[Any]) -> tuple[Drawing, tuple[str, ...]]:
    """The drawing of a graph with numbers, and what to write below it.

    Args:
        graph: of at most MOST_NODES nodes. Where it has one result, one float, there are
            derivatives; and only values otherwise.
        arguments: as the traced function takes them.

    Raises:
        ArgumentError: too many nodes.
        ShapeError: arguments that the graph does not take.

    >>> import graphdl as gd
    >>> graph = gd.trace(lambda x, w, b, y: abs(x * w + b - y), 2.0, 3.0, 1.0, 9.0)
    >>> for line in teach(graph, (2.0, 3.0, 1.0, 9.0))[1]:
    ...     print(line)
    ∂out/∂x = -1 × 1 × 1 × 3 = -3
    ∂out/∂w = -1 × 1 × 1 × 2 = -2
    ∂out/∂b = -1 × 1 × 1 = -1
    ∂out/∂y = -1 × -1 = 1
    """
    if len(graph.nodes) > MOST_NODES:
        raise ArgumentError(
            f"values= draws graphs of at most {MOST_NODES} nodes, this one has "
            f"{len(graph.nodes)}; draw a part of the function, or leave values= out"
        )
    every = Graph(graph.inputs, graph.nodes, graph.names, graph.sources, graph.in_tree)
    try:
        found = every.evaluate(*arguments)
    except ShapeError as error:
        names = ", ".join(graph.label(i) for i in range(len(graph.inputs)))
        raise ShapeError(
            f"values= are the arguments of the traced function, here of {names:.200}: {error}"
        ) from None
    found = (found,) if len(graph.nodes) == 1 else found
    values: dict[Node, Values] = dict(zip(graph.nodes, map(np.asarray, found), strict=True))
    slopes = _slopes(graph, values)
    plain = draw(graph, layout="dag")
    return _numbered(plain, graph, values, slopes), _products(graph, slopes)


class _Slopes:
    """total: of the result by each node. local: of a node by an operand, where it is a number.

    part: what an edge contributes to the total of its operand. Empty where nothing has a slope.
    """

    def __init__(self) -> None:
        self.total: dict[Node, Values] = {}
        self.local: dict[tuple[Node, Node], Values] = {}
        self.part: dict[tuple[Node, Node], Values] = {}


def _slopes(graph: Graph, values: dict[Node, Values]) -> _Slopes:
    """Reverse accumulation, an op at a time, so that each factor can be shown."""
    found = _Slopes()
    if len(graph.outputs) != 1 or not graph.outputs[0].type.is_float or graph.outputs[0].shape:
        return found
    found.total[graph.outputs[0]] = np.ones((), graph.outputs[0].dtype)
    for node in reversed(graph.operations):
        if node not in found.total:
            continue
        wanted = [operand for operand in dict.fromkeys(node.inputs) if operand.type.is_float]
        try:
            parts = _pulled(node, wanted, values, found.total[node])
            ones = _pulled(node, wanted, values, np.ones(node.shape, node.dtype))
        except (GradientError, GraphError):
            continue  # what has no gradient ends the way back, as in gd.stop_gradient
        for operand, part, one in zip(wanted, parts, ones, strict=True):
            found.part[operand, node] = part
            if operand.shape == node.shape == ():
                found.local[operand, node] = one
            found.total[operand] = found.total.get(operand, np.zeros_like(part)) + part
    return found


def _pulled(
    node: Node, wanted: Sequence[Node], values: dict[Node, Values], slope: Values
) -> list[Values]:
    """What the gradient rule of one op gives for its operands."""
    if not wanted:
        return []
    with tracing(node.op.name) as run:
        inputs = {x: new_input(x.type, i, run) for i, x in enumerate(dict.fromkeys(node.inputs))}
        given = new_input(node.type, len(inputs), run)
        marked = {
            x: pointwise.variable(traced, serial=-1 - i) if x in wanted else traced
            for i, (x, traced) in enumerate(inputs.items())
        }
        operands = tuple(marked[x] for x in node.inputs)
        assert isinstance(node.op, Op)
        out = node.op(*operands, **dict(node.attrs))
        parts = differentiate.vjp([out], [given], [marked[x] for x in wanted])
        nodes = (*(traced.node for traced in inputs.values()), given.node)
        piece = Graph(nodes, tuple(part.node for part in parts))
    made = piece.evaluate(*(values[x] for x in inputs), slope)
    return [made] if len(parts) == 1 else list(made)


def _numbered(plain: Drawing, graph: Graph, values: dict[Node, Values], slopes: _Slopes) -> Drawing:
    """The drawing with numbers: a box for each edge as well, which holds its two."""
    node_of = {label: node for node, label in graph.labels.items()}
    items: list[Item] = []
    edges: list[tuple[str, str]] = []
    labels: dict[str, list[Item]] = {}
    by_key = {item.key: item for item in plain.items}
    for number, (tail, head) in enumerate(plain.edges):
        if by_key[head].kind == "output":
            edges.append((tail, head))
            continue
        a, b = node_of[by_key[tail].node], node_of[by_key[head].node]
        key = f"edge {number}"
        back = _back(slopes, a, b)
        label = Item(key, "", "label", f"↓ {number_text(values[a])}", back, by_key[tail].phase)
        labels.setdefault(head, []).append(label)
        edges += [(tail, key), (key, head)]
    for item in plain.items:
        items += labels.get(item.key, [])
        node = node_of[item.node]
        detail = number_text(values[node])
        if node.shape and item.kind != "output":
            detail = f"{type_text(node.type)} {detail}"
        if node in slopes.total and item.kind not in ("output", "constant"):
            detail += f"   ∂ {number_text(slopes.total[node])}"
        items.append(
            Item(
                item.key, item.node, item.kind, item.title, detail, item.phase,
                source=item.source, is_output=item.is_output,
            )
        )  # fmt: skip
    return Drawing(tuple(items), tuple(edges), (), (Band(""),), False)


def _back(slopes: _Slopes, operand: Node, node: Node) -> str:
    """What comes back along an edge: a product where the factors are numbers."""
    if (operand, node) not in slopes.part:
        return ""
    part = number_text(slopes.part[operand, node])
    if (operand, node) not in slopes.local:
        return f"↑ {part}"
    total, local = slopes.total[node], slopes.local[operand, node]
    return cut(f"↑ {number_text(total)} × {number_text(local)} = {part}", 2 * NUMBER_LIMIT)


def _products(graph: Graph, slopes: _Slopes) -> tuple[str, ...]:
    """The derivative by each input as the sum, over the ways to it, of products of factors."""
    if any(node.shape for node in (*graph.inputs, *graph.operations)) or not slopes.part:
        return ()
    ways: dict[Node, list[tuple[str, ...]]] = {graph.outputs[0]: [()]}
    for node in reversed(graph.nodes):
        for operand in dict.fromkeys(node.inputs):
            if (operand, node) in slopes.local:
                factor = number_text(slopes.local[operand, node])
                longer = [(*way, factor) for way in ways.get(node, ())]
                ways.setdefault(operand, []).extend(longer[: MOST_PATHS + 1])
    lines = []
    for index, node in enumerate(graph.inputs):
        if node not in slopes.total:
            continue
        total = number_text(slopes.total[node])
        line = f"∂out/∂{cut(graph.label(index))} = "
        if 0 < len(ways.get(node, ())) <= MOST_PATHS and any(ways[node]):
            line += " + ".join(" × ".join(way) for way in ways[node]) + " = "
        lines.append(line + total)
    return tuple(lines)


def number_text(value: Values) -> str:
    """A value in few characters: a number, a few numbers, or what an array holds.

    >>> number_text(np.float64(-0.0)), number_text(np.arange(3)), number_text(np.ones((20, 3)))
    ('0', '[0, 1, 2]', '1 … 1')
    """
    value = np.asarray(value)
    if value.ndim == 0:
        return _one(value[()])
    if value.size <= 4:
        text = str(np.vectorize(_one, otypes=[object])(value).tolist()).replace("'", "")
        if len(text) <= NUMBER_LIMIT:
            return text
    kind = type_text(TensorType(value.dtype, value.shape))
    if value.size == 0 or kind_of(value.dtype) == "c":
        return kind
    return f"{value.min():.3g} … {value.max():.3g}"


def _one(value: Any) -> str:
    if isinstance(value, (bool, np.bool_)):
        return str(value)
    return f"{value + 0:.4g}"  # a zero without a sign: the product of -3 and 0 is written 0
