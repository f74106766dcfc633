"""The errors of checked programs: what has been found, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from graphdl.checks.bounds import Miss
from graphdl.checks.nan import Event
from graphdl.checks.walk import Place
from graphdl.errors import GraphIndexError, GraphLinAlgError, NonFiniteError
from graphdl.graph import Graph, Node, Source
from graphdl.kernels.program import Launch, Program
from graphdl.ops import linalg, pointwise
from graphdl.tracing import where_text


def of_event(event: Event, program: Program) -> NonFiniteError:
    """The error that says where a NaN or an infinity came about."""
    node, graph = event.node, event.place.graph
    value = _number(event.value)
    if node in graph.inputs and not event.place.path:
        name = graph.label(graph.inputs.index(node))
        message = f"the argument {name} is {value} at {_index(event.index)}"
        return NonFiniteError(message, "argument", event.value, event.index)
    kernel = kernel_of(node, graph, program)
    message = (
        f"{node.op.name} gave {value} at {_index(event.index)} of {node.type}: "
        f"{node.op.name}({', '.join(event.operands)})"
        f"{_where(kernel, event.place)}{line_text(source_of(node, graph))}"
    )
    return NonFiniteError(message, node.op.name, event.value, event.index, event.operands, kernel)


def of_result(results: Sequence[np.ndarray], graph: Graph) -> NonFiniteError | None:
    """The error where NumPy computes what is finite, and a kernel something that is not."""
    for number, (result, node) in enumerate(zip(results, graph.outputs, strict=False)):
        array = np.asarray(result)
        if array.dtype.kind in "fc" and np.isnan(array).any():
            index = tuple(int(i) for i in np.argwhere(np.isnan(array))[0])
            line = line_text(source_of(node, graph))
            return NonFiniteError(
                f"result {number} is nan at {_index(index)}, where NumPy computes a number from "
                f"the same graph: an intermediate value lies at the edge of its dtype{line}",
                node.op.name,
                float("nan"),
                index,
            )
    return None


def of_failure(node: Node, place: Place, program: Program) -> GraphLinAlgError:
    """The error that says which matrix LAPACK could do nothing with."""
    where = _where(kernel_of(node, place.graph, program), place)
    return linalg.failure(node.op, f"{where}{line_text(source_of(node, place.graph))}")


def of_miss(miss: Miss, program: Program) -> GraphIndexError:
    """The error that says which index is out of bounds."""
    node, graph = miss.node, miss.place.graph
    kernel = kernel_of(node, graph, program)
    element = f"element {_index(miss.index)} of the index array" if miss.index else "the index"
    return GraphIndexError(
        f"index {miss.value} is out of bounds for size {miss.size}: {element} "
        f"({node.inputs[-1].type})"
        f"{_where(kernel, miss.place)}{line_text(source_of(node, graph))}"
    )


def source_of(node: Node, graph: Graph) -> Source | None:
    """The user's line of a node; of one that a pass has made, that of what is computed from it."""
    if node in graph.sources:
        return graph.sources[node]
    reached = {node}
    for later in graph.operations:
        if not reached.isdisjoint(later.inputs):
            if later in graph.sources:
                return graph.sources[later]
            reached.add(later)
    return None


def line_text(source: Source | None) -> str:
    """The user's line; for a node that a gradient rule has made, that of what it differentiates."""
    is_pulled = source is not None and source.pulled is not None
    return where_text(source, "in the gradient of" if is_pulled else "at")


def _number(value: float) -> str:
    return "nan" if value != value else f"{value}"


def _index(index: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, index))}]"


def _where(kernel: str, place: Place) -> str:
    steps = "".join(f"\n  in {step}" for step in reversed(place.path))
    return (f"\n  in kernel {kernel}" if kernel else "") + steps


def kernel_of(node: Node, graph: Graph, program: Program) -> str:
    """The kernel that computes a node: "2: exp_sum", one of a body behind the loop's."""
    for path, launch in _launches(program):
        if any(_is_same(node, graph, other, path[-1][1].graph) for other in launch.nodes):
            return ", ".join(f"{number}: {name}" for number, _, name in path)
    return ""


_Step = tuple[int, Program, str]


def _launches(program: Program) -> Iterator[tuple[tuple[_Step, ...], Launch]]:
    """Every launch, those of bodies too, and the way to it."""
    pending: list[tuple[tuple[_Step, ...], Program]] = [((), program)]
    while pending:
        path, inner = pending.pop()
        for number, launch in enumerate(inner.launches):
            here = (*path, (number, inner, launch.source.name))
            yield here, launch
            pending += [(here, body.program) for body in launch.programs]


def _is_same(node: Node, graph: Graph, other: Node, its_graph: Graph) -> bool:
    """Whether two nodes are one, of which the other is in a graph with guards, or is guarded."""
    if other.op is pointwise.guard:
        other = other.inputs[0]
    if node is other:
        return True
    same = (node.op, node.type, node.attrs) == (other.op, other.type, other.attrs)
    return same and graph.sources.get(node) == its_graph.sources.get(other)
