"""Numbers, and arrays that are one number everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphdl.graph import Node
from graphdl.ops import movement
from graphdl.ops.op import node_of
from graphdl.types import Shape


def uniform(node: Node) -> np.ndarray[Any, Any] | None:
    """The 0-d value of a node that is one constant everywhere, or None."""
    while node.op is movement.broadcast or node.op is movement.reshape:
        node = node.inputs[0]
    if node.op is movement.constant and node.type.size == 1:
        array: np.ndarray[Any, Any] = node["value"].array
        return array.reshape(())
    return None


def is_zero(node: Node) -> bool:
    """Whether a node is known to be zero everywhere."""
    value = uniform(node)
    return value is not None and not value.any()


def constant(value: Any) -> Node:
    return node_of(movement.constant, (), movement.literal(value))


def repeated(node: Node, shape: Shape) -> Node:
    """A 0-d node repeated to `shape`."""
    return node_of(movement.broadcast, (node,), {"shape": shape, "dims": ()}) if shape else node
