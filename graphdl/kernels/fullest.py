"""What takes the memory of a program while most of it is in use."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from graphdl.compiler.view import is_result
from graphdl.graph import Graph, Node
from graphdl.kernels.program import Memory, Place, Program, Value
from graphdl.kernels.shortfall import Shortfall
from graphdl.tracing import where_text

#: So many of the largest values are named.
_NAMED = 4


def shortfall(budget: int, program: Program, memory: Memory) -> Shortfall | None:
    """By how much a program misses a budget; None where it keeps it."""
    if memory.peak_bytes <= budget:
        return None
    largest = sorted(_together(program, memory), key=lambda item: -item[0])[:_NAMED]
    return Shortfall(budget, memory.peak_bytes, largest)


def _together(program: Program, memory: Memory) -> Iterator[tuple[int, str, str]]:
    """What lies in memory beside arguments while most does: bytes, what it is, and its line."""
    graph = program.graph
    for node in dict.fromkeys(graph.outputs):
        if memory.places[node].kind == "result":
            yield node.type.nbytes, f"a result, {_described(node)}", _line(node, graph)
    for node in program.constants:
        yield node.type.nbytes, f"a constant, {_described(node)}", _line(node, graph)
    for launch in program.launches:
        taken = sum(body.memory.own_bytes for body in launch.bodies)
        if taken:
            where = _line(launch.nodes[0], graph) if launch.nodes else ""
            yield taken, f"working memory of {launch.source.name}", where
    for value in _at_the_fullest(program, memory):
        if isinstance(value, Node):
            yield value.type.nbytes, _described(value), _line(value, graph)
        else:
            yield value.nbytes, f"working memory, {value.purpose}", ""


def _at_the_fullest(program: Program, memory: Memory) -> list[Value]:
    """The values in the arena during the launch that has most to do with it; of those that lie in
    one place, one written over the other, the first.
    """
    spans: dict[Value, tuple[int, int]] = {}
    for step, launch in enumerate(program.launches):
        for value in (*launch.reads, *launch.writes):
            if memory.places[value].kind == "arena":
                spans[value] = (spans.get(value, (step, step))[0], step)
    changes = [0] * (len(program.launches) + 1)
    for value, (start, stop) in spans.items():
        changes[start] += _nbytes(value)
        changes[stop + 1] -= _nbytes(value)
    sums = list(accumulate(changes))
    fullest = sums.index(max(sums))
    found: dict[Place, Value] = {}
    for value, (start, stop) in spans.items():
        if start <= fullest <= stop:
            found.setdefault(memory.places[value], value)
    return list(found.values())


def _nbytes(value: Value) -> int:
    return value.type.nbytes if isinstance(value, Node) else value.nbytes


def _described(node: Node) -> str:
    made_by = node.inputs[0] if is_result(node) else node
    return f"{node.type} of {made_by.op.name}"


def _line(node: Node, graph: Graph) -> str:
    return where_text(graph.sources.get(node)).replace("\n  ", ", ")
