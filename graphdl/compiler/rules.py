"""Algebra: pairs of small functions, what is written and what is computed instead.

Both sides are traced; a name stands for any value, a number for a constant of that value. Rules
for floats hold up to rounding and up to the sign of a zero (the `nsz` of the kernels); none of them
assumes that a value is finite.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from msgspec import Struct

from graphdl.graph import Node
from graphdl.ops import movement, pointwise
from graphdl.ops.pointwise import sigmoid, softplus
from graphdl.tracing import INPUT, Trace, TracedArray, new_input, tracing
from graphdl.types import TensorType, kind_of

Side = Callable[..., Any]


class Rule(Struct, frozen=True):
    """`left` may be replaced by `right`; both take the same values."""

    name: str
    left: Side
    right: Side


RULES: tuple[Rule, ...] = (
    Rule("x + 0", lambda x: x + 0.0, lambda x: x),
    Rule("x - 0", lambda x: x - 0.0, lambda x: x),
    Rule("0 - x", lambda x: 0.0 - x, lambda x: -x),
    Rule("x * 1", lambda x: x * 1.0, lambda x: x),
    Rule("x / 1", lambda x: x / 1.0, lambda x: x),
    Rule("x * -1", lambda x: x * -1.0, lambda x: -x),
    Rule("-(-x)", lambda x: np.negative(np.negative(x)), lambda x: x),
    Rule("x + (-y)", lambda x, y: x + (-y), lambda x, y: x - y),
    Rule("(-x) + y", lambda x, y: (-x) + y, lambda x, y: y - x),
    Rule("x - (-y)", lambda x, y: x - (-y), lambda x, y: x + y),
    Rule("(-x) * (-y)", lambda x, y: (-x) * (-y), lambda x, y: x * y),
    Rule("x * x", lambda x: x * x, lambda x: np.square(x)),
    Rule("x ** 2", lambda x: np.power(x, 2.0), lambda x: np.square(x)),
    Rule("x ** 1", lambda x: np.power(x, 1.0), lambda x: x),
    Rule("x ** 3", lambda x: np.power(x, 3.0), lambda x: np.square(x) * x),
    Rule("x ** 4", lambda x: np.power(x, 4.0), lambda x: np.square(np.square(x))),
    Rule("x ** 5", lambda x: np.power(x, 5.0), lambda x: np.square(np.square(x)) * x),
    Rule("x ** 6", lambda x: np.power(x, 6.0), lambda x: np.square(np.square(x) * x)),
    Rule("x ** -1", lambda x: np.power(x, -1.0), lambda x: np.reciprocal(x)),
    Rule("x ** 0.5", lambda x: np.power(x, 0.5), lambda x: np.sqrt(x)),
    Rule("x ** 0", lambda x: np.power(x, 0.0), lambda x: np.ones_like(x)),
    Rule("log(exp(x))", lambda x: np.log(np.exp(x)), lambda x: x),
    Rule("log(1 + x)", lambda x: np.log(x + 1.0), lambda x: np.log1p(x)),
    Rule("log1p(exp(x))", lambda x: np.log1p(np.exp(x)), lambda x: softplus(x)),
    Rule("exp(x) - 1", lambda x: np.exp(x) - 1.0, lambda x: np.expm1(x)),
    Rule("1 / (1 + exp(x))", lambda x: 1.0 / (np.exp(x) + 1.0), lambda x: sigmoid(-x)),
    Rule(
        "reciprocal of 1 + exp(x)", lambda x: np.reciprocal(np.exp(x) + 1.0), lambda x: sigmoid(-x)
    ),
    Rule("exp(x) / (1 + exp(x))", lambda x: np.exp(x) / (np.exp(x) + 1.0), lambda x: sigmoid(x)),
    Rule("y / (1 + exp(x))", lambda x, y: y / (np.exp(x) + 1.0), lambda x, y: y * sigmoid(-x)),
    Rule("(-x) * y", lambda x, y: (-x) * y, lambda x, y: -(x * y)),
    Rule("(-x) / y", lambda x, y: (-x) / y, lambda x, y: -(x / y)),
    Rule("(-x) - y", lambda x, y: (-x) - y, lambda x, y: -(x + y)),
    Rule("log(sigmoid(x))", lambda x: np.log(sigmoid(x)), lambda x: -softplus(-x)),
    Rule("log(1 - sigmoid(x))", lambda x: np.log1p(-sigmoid(x)), lambda x: -softplus(x)),
    Rule(
        "log(exp(x) / y)",
        lambda x, y: np.log(np.exp(x) / y),
        lambda x, y: x - np.log(y),
    ),
    Rule("abs(x) squared", lambda x: np.square(np.absolute(x)), lambda x: np.square(x)),
    Rule("abs(-x)", lambda x: np.absolute(-x), lambda x: np.absolute(x)),
    Rule("cos(-x)", lambda x: np.cos(-x), lambda x: np.cos(x)),
)


@lru_cache(maxsize=1)
def _patterns() -> dict[str, list[tuple[Node, tuple[Node, ...], Rule]]]:
    """The left sides as graphs, by the op at their root."""
    result: dict[str, list[tuple[Node, tuple[Node, ...], Rule]]] = {}
    any_value = TensorType(np.dtype(np.float64), (7,))
    for rule in RULES:
        count = len(inspect.signature(rule.left).parameters)
        with tracing(rule.name) as trace:
            names = [new_input(any_value, i, trace) for i in range(count)]
            root = rule.left(*names).node
        nodes = tuple(name.node for name in names)
        result.setdefault(root.op.name, []).append((root, nodes, rule))
    return result


def _uniform(node: Node) -> Any:
    while node.op is movement.broadcast or node.op is movement.reshape:
        node = node.inputs[0]
    if node.op is movement.constant and node.type.size == 1:
        return node["value"].array.reshape(())
    return None


_COMMUTATIVE = (pointwise.add, pointwise.multiply)


def _match(pattern: Node, node: Node, bound: dict[Node, Node]) -> dict[Node, Node] | None:
    """What the pattern's names stand for, or None."""
    if pattern.op is INPUT:
        if node.type.is_complex:  # |z|**2 is not z**2
            return None
        if pattern in bound:
            return bound if bound[pattern] is node else None
        return bound | {pattern: node}
    value = _uniform(pattern)
    if value is not None:
        other = _uniform(node)
        return (
            bound if other is not None and kind_of(node.dtype) == "f" and other == value else None
        )
    if node.op is not pattern.op or len(node.inputs) != len(pattern.inputs):
        return None
    orders = [node.inputs]
    if pattern.op in _COMMUTATIVE and len(node.inputs) == 2:
        orders.append(node.inputs[::-1])
    for operands in orders:
        found = _match_all(pattern.inputs, operands, bound)
        if found is not None:
            return found
    return None


def _match_all(
    patterns: tuple[Node, ...], nodes: tuple[Node, ...], bound: dict[Node, Node]
) -> dict[Node, Node] | None:
    for pattern, node in zip(patterns, nodes, strict=True):
        found = _match(pattern, node, bound)
        if found is None:
            return None
        bound = found
    return bound


def apply(node: Node, trace: Trace) -> tuple[str, Node] | None:
    """The right side of the first rule whose left side `node` is, and the name of the rule."""
    if kind_of(node.dtype) != "f":
        return None
    for root, names, rule in _patterns().get(node.op.name, ()):
        bound = _match(root, node, {})
        if bound is not None:
            result = rule.right(*(TracedArray(bound[name], trace) for name in names)).node
            if result is not node:
                made: Node = result
                return rule.name, made
    return None
