"""What is drawn of a graph: boxes with two lines of text, the edges between them, groups."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from msgspec import Struct

from graphdl.graph import Graph, Node, users

#: Longer labels are cut: a literal can print as hundreds of characters.
LABEL_LIMIT = 40
#: An input is drawn again for a use that is more operations than this away from the first.
REACH = 3


class Box(Struct, frozen=True):
    """One node of the picture.

    `key` is unique; `kind` is "input", "constant" or "op"; `group` indexes the scene's groups.
    """

    key: int
    title: str
    detail: str
    kind: str
    output: bool
    group: int | None
    source: str


class Scene(Struct, frozen=True):
    """Boxes in topological order, edges as pairs of keys, and the names of the groups."""

    boxes: tuple[Box, ...]
    edges: tuple[tuple[int, int], ...]
    groups: tuple[str, ...]


def scene(graph: Graph, groups: Mapping[str, Iterable[Node | str]]) -> Scene:
    """Choose what to draw.

    A constant, and what is computed from constants alone, is drawn at each use, an input at uses
    that are far apart: one box for the number 2.0, or for a weight that the forward pass, the
    backward pass and the update all read, would pull edges across the whole picture.
    """
    names = tuple(groups)
    labelled = {label: node for node, label in graph.labels.items()}
    group_of = {
        labelled[member] if isinstance(member, str) else member: index
        for index, name in enumerate(names)
        for member in groups[name]
    }
    arguments, results, constants = set(graph.inputs), set(graph.outputs), _constants(graph)
    numbers = _numbers(node for node in graph.operations if node in constants)
    depth = _depths(graph)
    used = users(graph.nodes)
    boxes: list[Box] = []
    edges: list[tuple[int, int]] = []
    drawn: dict[Node, int] = {}
    first_use: dict[Node, int] = {}

    def draw(node: Node) -> int:
        kind = "input" if node in arguments else "constant" if node in constants else "op"
        source = graph.sources.get(node)
        box = Box(
            key=len(boxes),
            title=_cut(graph.labels[node] if kind == "input" else numbers.get(node) or title(node)),
            detail=_cut(str(node.type)),
            kind=kind,
            output=node in results,
            group=group_of.get(node),
            source="" if source is None else str(source),
        )
        boxes.append(box)
        drawn[node] = box.key
        return box.key

    def operand_key(operand: Node, user: Node) -> int:
        if operand in constants and operand not in results:
            return draw(operand)
        first = first_use.setdefault(operand, depth[user])
        if operand in arguments and depth[user] > first + REACH:
            first_use[operand] = depth[user]
            return draw(operand)
        return drawn[operand] if operand in drawn else draw(operand)

    for node in graph.nodes:
        if (node in constants or node in arguments) and used[node] and node not in results:
            continue  # its users draw it
        operands = () if node in constants else dict.fromkeys(node.inputs)
        tails = [operand_key(operand, node) for operand in operands]
        head = drawn[node] if node in drawn else draw(node)
        edges += [(tail, head) for tail in tails]
    return Scene(tuple(boxes), tuple(edges), names)


def title(node: Node) -> str:
    """The op and those of its attributes that the types do not say.

    >>> import graphdl as gd
    >>> graph = gd.trace(lambda a, b: (a @ b).sum(axis=0), gd.spec((4, 3)), gd.spec((3, 2)))
    >>> [title(node) for node in graph.operations]
    ['contract ab,bc->ac', 'sum axes=(0,)']
    """
    attributes = dict(node.attrs)
    if node.op.name == "constant":
        return repr(attributes["value"])
    if node.op.name == "contract":
        return f"contract {_einsum(attributes['la'], attributes['lb'], attributes['lo'])}"
    attributes = {key: value for key, value in attributes.items() if key != "shape" and value != ()}
    return " ".join([node.op.name, *(f"{key}={value}" for key, value in attributes.items())])


def printable(text: str) -> str:
    """The text without the control characters that no format can hold."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _einsum(*labels: tuple[int, ...]) -> str:
    """The labels of a contraction as einsum writes them."""
    letter = {
        label: chr(ord("a") + index) if index < 26 else f"[{index}]"
        for index, label in enumerate(dict.fromkeys(label for part in labels for label in part))
    }
    left, right, out = ("".join(letter[label] for label in part) for part in labels)
    return f"{left},{right}->{out}"


def _constants(graph: Graph) -> frozenset[Node]:
    found: set[Node] = set()
    for node in graph.operations:
        if all(operand in found for operand in node.inputs):
            found.add(node)
    return frozenset(found)


def _numbers(constants: Iterable[Node]) -> dict[Node, str]:
    """The constants that are one number everywhere, as NumPy prints it: 0.1 for a float32."""
    values: dict[Node, Any] = {}
    for node in constants:
        operands = [values.get(operand) for operand in node.inputs]
        if node.op.name == "broadcast":
            values[node] = operands[0]
        elif node.type.size == 1 and all(operand is not None for operand in operands):
            with np.errstate(all="ignore"):
                values[node] = np.asarray(node.op.evaluate(*operands, **dict(node.attrs))).reshape(
                    ()
                )
    return {node: str(value) for node, value in values.items() if value is not None}


def _depths(graph: Graph) -> dict[Node, int]:
    """How many operations lie on the longest way from the inputs to each node."""
    depth: dict[Node, int] = {}
    for node in graph.nodes:
        depth[node] = max((depth[operand] + 1 for operand in node.inputs), default=0)
    return depth


def _cut(text: str) -> str:
    return text if len(text) <= LABEL_LIMIT else text[: LABEL_LIMIT - 1] + "…"
