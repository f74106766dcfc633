"""The text of boxes: what an op is called, what its attributes say, how types are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np

from graphdl.graph import Graph, Node
from graphdl.types import TensorType

Labels: TypeAlias = tuple[int, ...]

#: Longer labels are cut: a literal can print as hundreds of characters.
LABEL_LIMIT = 28
#: Numbers are written into the ops that use them, so they have to be short.
NUMBER_LIMIT = 10


def printable(text: str) -> str:
    """The text without the control characters that no format can hold.

    >>> printable("a\\x00b")
    'a\N{REPLACEMENT CHARACTER}b'
    """
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def cut(text: str, limit: int = LABEL_LIMIT) -> str:
    """The printable text, shortened with an ellipsis to `limit` characters.

    >>> cut("abcdef", 4)
    'abc…'
    """
    text = printable(text[: 4 * limit])
    return text if len(text) <= limit else text[: limit - 1] + "…"


def cut_name(text: str, limit: int = LABEL_LIMIT) -> str:
    """A name of which the end tells more than the beginning, as of a path.

    >>> cut_name("params['encoder']['kernel']", 14)
    "…['kernel']"
    """
    if len(text) <= limit:
        return printable(text)
    end = text[1 - limit :]
    whole = end.find("[")  # the rest of a path from its next step on
    return printable("…" + (end[whole:] if 0 <= whole < limit // 2 else end))


_SHORT = {"float": "f", "int": "i", "uint": "u", "complex": "c"}


def type_text(type: TensorType) -> str:
    """A type in few characters.

    >>> import graphdl as gd
    >>> type_text(gd.spec((128, 784), "float32")), type_text(gd.spec((), "bool"))
    ('f32[128,784]', 'bool')
    """
    name = str(type.dtype)
    stem = name.rstrip("0123456789")
    name = _SHORT.get(stem, stem) + name[len(stem) :]
    return f"{name}[{','.join(map(str, type.shape))}]" if type.shape else name


def title(node: Node, numbers: dict[Node, str] | None = None) -> str:
    """The op, those of its attributes that the types do not say, and operands that are numbers.

    >>> import graphdl as gd
    >>> graph = gd.trace(lambda a, b: (a @ b).sum(axis=0), gd.spec((4, 3)), gd.spec((3, 2)))
    >>> [title(node) for node in graph.operations]
    ['a @ b', 'sum axes=(0,)']
    """
    attributes = dict(node.attrs)
    if node.op.name == "constant":
        return repr(attributes["value"])
    if node.op.name == "contract":
        return _product(attributes["la"], attributes["lb"], attributes["lo"])
    if node.op.family == "control":
        return f"{node.op.name}{_control(attributes)}"
    given = [(numbers or {}).get(operand) for operand in node.inputs]
    if any(number is not None for number in given):
        return f"{node.op.name}({', '.join('·' if n is None else n for n in given)})"
    shown = {
        key: value
        for key, value in attributes.items()
        if key not in _IN_TYPE
        and isinstance(value, (bool, int, float, str, tuple))
        and value not in ((), False, 0)
    }
    return " ".join([node.op.name, *(f"{key}={value}" for key, value in shown.items())])


def _control(attributes: Mapping[str, Any]) -> str:
    """How often the body of a loop runs, or how many branches there are.

    >>> _control({"length": 100, "reverse": True}), _control({"branches": ((), ())}), _control({})
    (' 100 steps, reversed', ' 2 branches', '')
    """
    if "branches" in attributes:
        return f" {len(attributes['branches'])} branches"
    if "length" not in attributes:
        return ""
    count = f" {attributes['length']:,} step{'' if attributes['length'] == 1 else 's'}"
    return count + (", reversed" if attributes.get("reverse") else "")


#: Attributes that the shapes before and after say as well.
_IN_TYPE = ("shape", "dims", "offset", "starts", "steps", "dtype", "position", "trace", "serial")


def _product(left: Labels, right: Labels, out: Labels) -> str:
    """A contraction as the product of matrices that it is, or else as einsum writes it.

    >>> _product((0, 1), (2, 1), (0, 2)), _product((0, 1), (0, 2), (1, 2))
    ('a @ b.T', 'a.T @ b')
    """
    batch = 0
    while batch < min(len(left), len(right), len(out)) - 1 and (
        left[batch] == right[batch] == out[batch]
    ):
        batch += 1
    a, b, c = left[batch:], right[batch:], out[batch:]
    if len(a) == len(b) == len(c) == 2 and len({*a, *b}) == 3:
        for first, rows in (("a", a), ("a.T", a[::-1])):
            for second, columns in (("b", b), ("b.T", b[::-1])):
                if (rows[0], columns[1]) == c and rows[1] == columns[0]:
                    return f"{first} @ {second}"
    return f"contract {_einsum(left, right, out)}"


def _einsum(*labels: tuple[int, ...]) -> str:
    """The labels of a contraction as einsum writes them."""
    letter = {
        label: chr(ord("a") + index) if index < 26 else f"[{index}]"
        for index, label in enumerate(dict.fromkeys(label for part in labels for label in part))
    }
    left, right, out = ("".join(letter[label] for label in part) for part in labels)
    return f"{left},{right}→{out}"


def constants_of(graph: Graph) -> frozenset[Node]:
    """The nodes that depend on no input."""
    found: set[Node] = set()
    for node in graph.operations:
        if all(operand in found for operand in node.inputs):
            found.add(node)
    return frozenset(found)


def numbers_of(constants: Iterable[Node]) -> dict[Node, str]:
    """The constants that are one number everywhere, as NumPy prints it: 0.1 for a float32.

    `constants` are in topological order.
    """
    values: dict[Node, Any] = {}
    for node in constants:
        operands = [values.get(operand) for operand in node.inputs]
        if node.op.name == "broadcast":
            values[node] = operands[0]
        elif node.type.size == 1 and all(operand is not None for operand in operands):
            with np.errstate(all="ignore"):
                value = np.asarray(node.op.evaluate(*operands, **dict(node.attrs)))
            values[node] = value.reshape(()) if value.size == 1 else None
    return {node: str(value) for node, value in values.items() if value is not None}
