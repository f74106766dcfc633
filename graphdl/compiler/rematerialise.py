"""Values computed a second time instead of kept in memory: where, how, and what it costs.

A value that lies in memory from the kernel that makes it to one that reads it much later takes room
in between. `again` makes the graph in which the later kernels read a second computation of it. That
is made of nodes of its own: its operands are what `movement.after` gives for a value that is
computed late, so they are equal to the first ones, but never merged with them, and not before that
value is there (as gradients of `gd.checkpoint` do it).

What a second computation needs is read where it lies as long as it lies there anyway, and otherwise
is computed again too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from msgspec import Struct

from graphdl.compiler.fuse import Group, fuse, stored
from graphdl.compiler.order import ordered
from graphdl.compiler.origins import is_generator, is_scalar, origins
from graphdl.compiler.view import is_movement
from graphdl.graph import Graph, Node
from graphdl.ops import contraction, convolution, movement
from graphdl.ops.op import node_of, rebuilt

#: Nodes that one value is computed again from, at most.
_LONGEST = 64


class Schedule(Struct, frozen=True, eq=False):
    """The kernels in order, by number, and when values lie in memory.

    maker: the kernel that computes a node. kept: the values that are written to memory. readers:
    the other kernels that read each of these, in order. outputs: values that the graph returns.
    """

    graph: Graph
    groups: Sequence[Group]
    maker: dict[Node, int]
    kept: set[Node]
    readers: dict[Node, list[int]]
    outputs: set[Node]

    @staticmethod
    def of(graph: Graph) -> Schedule:
        groups = ordered(graph, fuse(graph))
        maker = {node: i for i, group in enumerate(groups) for node in group.members}
        kept = stored(graph, groups)
        readers: dict[Node, list[int]] = {node: [] for node in maker if node in kept}
        for i, group in enumerate(groups):
            for node in group.members:
                for operand in node.inputs:
                    for origin in origins(operand):
                        if maker.get(origin, i) != i and readers[origin][-1:] != [i]:
                            readers[origin].append(i)
        return Schedule(graph, groups, maker, kept, readers, set(graph.outputs))

    def temporaries(self) -> Iterator[Node]:
        """The values that take room only while they are needed."""
        return (node for node, found in self.readers.items() if found and node not in self.outputs)

    def ends_with_kernel(self, node: Node) -> bool:
        """Whether a value is complete only when its kernel has ended."""
        return self.groups[self.maker[node]].reductions.get(node, "row") != "row"

    def kept_bytes(self) -> int:
        """The bytes of all values that are written to memory."""
        return sum(node.type.nbytes for node in self.readers)

    def sizes(self) -> list[int]:
        """The bytes of temporaries in memory while each kernel runs."""
        changes = [0] * (len(self.groups) + 1)
        for node in self.temporaries():
            changes[self.maker[node]] += node.type.nbytes
            changes[self.readers[node][-1] + 1] -= node.type.nbytes
        found, now = [], 0
        for change in changes[:-1]:
            now += change
            found.append(now)
        return found


class Repetition(Struct, frozen=True, eq=False):
    """Values that the kernels from number `first` on read from a second computation.

    nodes: what is computed again, operands first. after: what has to be there before. freed: the
    bytes that this takes from the fullest moment. seconds: what computing again takes one core.
    """

    values: Sequence[Node]
    first: int
    nodes: Sequence[Node]
    after: Node
    freed: int
    nanoseconds: float


def multiply_adds(node: Node) -> int:
    """Those of a matrix product or a convolution."""
    if node.op is contraction.contract:
        sizes: dict[int, int] = {}
        for operand, labels in zip(node.inputs, (node["la"], node["lb"]), strict=True):
            sizes |= dict(zip(labels, operand.shape, strict=True))
        return math.prod(sizes.values())
    # the last axis of the weights, and of what a convolution gives, are its outputs
    window = node.inputs[1].type if node.op is convolution.convolve else node.type
    given = node.type if node.op is convolution.convolve else node.inputs[1].type
    return given.size * window.size // max(given.shape[-1], 1)


def again(schedule: Schedule, repetitions: Sequence[Repetition]) -> Graph:
    """The graph in which, for each repetition, kernels from `first` on read what it computes."""
    graph = schedule.graph
    second = [set(made.nodes) for made in repetitions]
    sources = dict(graph.sources)
    new: dict[_Form, Node] = {_Form(node): node for node in graph.inputs}

    def seen(node: Node, operand: Node) -> _Form:
        """Which form of an operand a node reads when it is computed first."""
        number = schedule.maker.get(node)
        if number is not None:
            value = _behind(operand)
            for i, made in enumerate(repetitions):
                if number >= made.first and value in made.values:
                    return _Form(operand, i)
        return _Form(operand)

    def operands(form: _Form) -> list[_Form]:
        """What a node in one of its forms is made from."""
        node, i = form.node, form.repetition
        if i is None:
            return [seen(node, x) for x in node.inputs]
        if node.op is movement.after:
            return [_Form(node.inputs[0], i), *(_Form(x) for x in node.inputs[1:])]
        if node in second[i] or is_movement(node):
            return [_Form(x, i) for x in node.inputs]
        if is_generator(node) or is_scalar(node):
            return [_Form(node)]
        return [_Form(node), _Form(repetitions[i].after)]

    def formed(form: _Form, inputs: tuple[Node, ...]) -> Node:
        node, i = form.node, form.repetition
        if i is not None and not (node in second[i] or is_movement(node)):
            return inputs[0] if len(inputs) == 1 else node_of(movement.after, inputs)
        return rebuilt(node, inputs)

    pending = [_Form(node) for node in graph.outputs]
    while pending:
        form = pending[-1]
        wanted = operands(form)
        missing = [other for other in wanted if other not in new]
        if missing and form not in new:
            pending += missing
            continue
        pending.pop()
        if form not in new:
            new[form] = result = formed(form, tuple(new[other] for other in wanted))
            if form.node in graph.sources:
                sources.setdefault(result, graph.sources[form.node])
    return graph.with_outputs([new[_Form(node)] for node in graph.outputs], sources)


class _Form(Struct, frozen=True):
    """A node as it is computed first, or as the repetition of a number has it."""

    node: Node
    repetition: int | None = None


def _behind(operand: Node) -> Node:
    while is_movement(operand):
        operand = operand.inputs[0]
    return operand
