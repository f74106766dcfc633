"""Long programs of numbers: cut into pieces, each of which one kernel computes.

Each kernel that needs a number made from numbers computes it for itself: a learning rate, a scale,
the step length of a search cost nothing beside the arrays that they meet. A formula of hundreds of
numbers, or an integrator's steps written out, are programs of their own. Here their numbers are cut
into pieces, and what one piece needs of another is written to memory: a `copy` that names its piece
(graphdl.compiler.fuse makes one kernel of those of a piece). Steps that are alike are cut at the
same places (graphdl.compiler.repeats), so they are computed by the same kernels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphdl.compiler.materialise import copy
from graphdl.compiler.origins import is_scalar
from graphdl.compiler.repeats import pieces
from graphdl.compiler.view import is_movement
from graphdl.graph import Graph, Node, users
from graphdl.ops.op import node_of, rebuilt
from graphdl.ops.update import UPDATES

#: Numbers of a piece: a kernel of these takes some 60 ms to compile and 0.3 us to run.
MOST = 384
#: Numbers of a wave that each kernel computes for itself, at most.
FEW = 48
#: Numbers that are computed again, rather than read, where a later wave needs what they make.
AGAIN = 8
#: How far back an operand counts for what a number is alike.
_NEAR = 16


def cut_numbers(graph: Graph) -> Graph:
    """The same function, whose numbers are computed in pieces."""
    ordered = [node for node in graph.operations if is_scalar(node)]
    if not ordered:
        return graph
    waves = _waves(graph)
    members: dict[int, list[Node]] = {}
    for node in ordered:
        members.setdefault(waves[node], []).append(node)
    members = {wave: _soon(nodes) for wave, nodes in members.items()}
    large = {wave for wave, nodes in members.items() if len(nodes) > FEW}
    # A kernel of all numbers of a wave may have to run between two others, of which one replaces in
    # place what it still reads: few numbers are not worth the copy of an array.
    replaces = any(node.op in UPDATES for node in graph.operations)
    piece_of: dict[Node, tuple[int, int]] = {}
    for wave, nodes in members.items():
        if replaces and wave not in large:
            continue
        cuts = pieces(_labels(nodes), MOST) if len(nodes) > FEW else [(0, len(nodes))]
        for number, (start, stop) in enumerate(cuts):
            piece_of.update(dict.fromkeys(nodes[start:stop], (wave, number)))
    return _with_copies(graph, piece_of, _read_from_memory(graph, piece_of, large))


def _waves(graph: Graph) -> dict[Node, int]:
    """How often each node's operands go from numbers to arrays, at the most.

    No way leads from a number through an array to another one of the same wave, so any numbers of a
    wave can be computed by one kernel. What is changed in place is to be read before: it starts a
    new wave.
    """
    waves: dict[Node, int] = {}
    for node in graph.nodes:
        own = is_scalar(node) or is_movement(node)
        wave = 0
        for operand in node.inputs:
            ends = not own and node.op is not copy and _is_number(_behind(operand))
            wave = max(wave, waves[operand] + ends)
        waves[node] = wave + (node.op in UPDATES)
    return waves


def _soon(nodes: Sequence[Node]) -> list[Node]:
    """The nodes in order, but what is the last to need a value comes as soon as it can.

    The order of the graph begins with all that the first output needs. So what each step adds to
    the derivative by a parameter would come after the last step, and wait for values of all steps.
    """
    pending = {node: dict.fromkeys(map(_behind, node.inputs)) for node in nodes}
    waiting = {
        node: sum(operand in pending for operand in found) for node, found in pending.items()
    }
    readers: dict[Node, dict[Node, None]] = {node: {} for node in nodes}
    for node, operands in pending.items():
        for operand in operands:
            if operand in readers:
                readers[operand][node] = None
    found: dict[Node, None] = {}
    for first in nodes:
        ready = [first]
        while ready:
            node = ready.pop()
            if node in found:
                continue
            found[node] = None
            for reader in readers[node]:
                waiting[reader] -= 1
            for value in (node, *pending[node]):
                if value not in readers:
                    continue
                readers[value].pop(node, None)
                if len(readers[value]) == 1:
                    (last,) = readers[value]
                    if not waiting[last]:
                        ready.append(last)
    return list(found)


def _is_number(node: Node) -> bool:
    """Whether a node is a number made from numbers, or its copy."""
    return is_scalar(node) or (node.op is copy and is_scalar(node.inputs[0]))


def _behind(node: Node) -> Node:
    while is_movement(node):
        node = node.inputs[0]
    return node


def _labels(nodes: Sequence[Node]) -> list[int]:
    """A number for each node, equal for nodes that are alike: of the same op, on operands alike."""
    position = {node: i for i, node in enumerate(nodes)}
    numbers: dict[object, int] = {}
    labels = []
    for i, node in enumerate(nodes):
        operands = []
        for operand in map(_behind, node.inputs):
            back = i - position.get(operand, -_NEAR)
            operands.append((operand.op.name, back if back < _NEAR else _NEAR))
        key = node.op.name, node.attrs, node.dtype.str, *operands
        labels.append(numbers.setdefault(key, len(numbers)))
    return labels


def _read_from_memory(
    graph: Graph, piece_of: Mapping[Node, tuple[int, int]], large: set[int]
) -> set[Node]:
    """The numbers that are written, so that another piece or another kernel may read them."""
    readers = users(graph.operations)
    found: set[Node] = set()
    #: How many numbers are computed to have this one, some of them twice.
    count: dict[Node, int] = {}
    for node in graph.operations:
        if node not in piece_of:
            continue
        count[node] = 1 + sum(
            count[operand]
            for operand in map(_behind, node.inputs)
            if operand in count and operand not in found
        )
        wave, _ = own = piece_of[node]
        others = {
            piece_of.get(reader) for reader in _read_by(node, readers) if reader.op is not copy
        } - {own}
        if others and (wave in large or (count[node] > AGAIN and others != {None})):
            found.add(node)
    return found


def _read_by(node: Node, readers: Mapping[Node, Sequence[Node]]) -> list[Node]:
    """What reads a number, seen through movement."""
    found: list[Node] = []
    pending = list(readers[node])
    while pending:
        reader = pending.pop()
        if is_movement(reader):
            pending += readers[reader]
        else:
            found.append(reader)
    return found


def _with_copies(
    graph: Graph, piece_of: Mapping[Node, tuple[int, int]], written: set[Node]
) -> Graph:
    """The graph in which `written` numbers are read from memory, except in their own piece."""
    numbered = {piece: i for i, piece in enumerate(dict.fromkeys(piece_of.values()))}
    new: dict[Node, Node] = {node: node for node in graph.inputs}
    #: What other pieces read: the copy of a number, and what movement makes of it.
    outside: dict[Node, Node] = {}
    sources = dict(graph.sources)

    def seen(operand: Node, reader: Node) -> Node:
        number = _behind(operand)
        if number not in written or piece_of[number] == piece_of.get(reader):
            return new[operand]
        path = []
        while operand not in outside:
            path.append(operand)
            operand = operand.inputs[0]
        for step in reversed(path):
            others = (new[other] for other in step.inputs[1:])
            outside[step] = rebuilt(step, (outside[step.inputs[0]], *others))
        return outside[path[0]] if path else outside[operand]

    def number_in_memory(node: Node) -> Node:
        """The copy of a number that is returned."""
        return outside.get(node) or node_of(
            copy, (new[node],), {"again": 0, "part": numbered[piece_of[node]]}
        )

    for node in graph.operations:
        if is_movement(node):
            made = rebuilt(node, tuple(new[operand] for operand in node.inputs))
        elif node.op is copy and node.inputs[0] in piece_of:
            number = node.inputs[0]
            part = numbered[piece_of[number]]
            made = node_of(copy, (new[number],), dict(node.attrs) | {"part": part})
            if number in written:
                outside[number] = made
        else:
            made = rebuilt(node, tuple(seen(operand, node) for operand in node.inputs))
        new[node] = made
        if node in written:
            outside[node] = node_of(copy, (made,), {"again": 0, "part": numbered[piece_of[node]]})
        for result in (made, outside.get(node)):
            if result is not None and result is not node and node in sources:
                sources.setdefault(result, sources[node])
    outputs = [number_in_memory(node) if node in piece_of else new[node] for node in graph.outputs]
    for node, made in zip(graph.outputs, outputs, strict=True):
        if node in sources:
            sources.setdefault(made, sources[node])
    return graph.with_outputs(outputs, sources)
