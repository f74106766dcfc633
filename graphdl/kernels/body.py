"""The text of scalar code: the members of a kernel as lines, each assigned to a name."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphdl.compiler.materialise import copy
from graphdl.compiler.origins import is_number
from graphdl.compiler.view import is_movement
from graphdl.errors import GraphError
from graphdl.graph import Node
from graphdl.kernels.signs import never_positive
from graphdl.kernels.suffixes import SUFFIXES
from graphdl.ops import movement, pointwise
from graphdl.ops.update import update
from graphdl.types import Dtype, is_half, kind_of


class _Suffix(dict[Dtype, str]):
    """The name of each dtype in the text of kernels; floats of 16 bits are their bits."""

    def __missing__(self, dtype: Dtype) -> str:
        if not is_half(dtype):
            raise KeyError(dtype)
        return "u16"


SUFFIX = _Suffix({np.dtype(dtype): suffix for suffix, dtype in SUFFIXES.items()})

IDENTITY = {"sum": 0, "prod": 1, "any": False, "all": True}
COMBINE = {
    "sum": "add", "prod": "multiply", "max": "maximum", "min": "minimum",
    "any": "logical_or", "all": "logical_and",
}  # fmt: skip


def number(value: Any, dtype: Dtype) -> str:
    """A constant of a dtype as text."""
    scalar = np.asarray(value).astype(dtype)[()]
    if is_half(dtype):
        scalar = scalar.view(np.uint16)
        return f"{SUFFIX[dtype]}({scalar})"
    if kind_of(dtype) == "f":
        if math.isnan(scalar):
            text = "nan"
        elif math.isinf(scalar):
            text = "inf" if scalar > 0 else "-inf"
        else:
            text = repr(float(scalar))
    else:
        text = repr(scalar.item())
    return f"{SUFFIX[dtype]}({text})"


def identity(op: str, dtype: Dtype) -> str:
    """What a reduction starts from, as text."""
    if op in IDENTITY:
        return number(IDENTITY[op], dtype)
    smallest = op in ("max", "argmax")
    if kind_of(dtype) == "f":
        return number(-math.inf if smallest else math.inf, dtype)
    if kind_of(dtype) == "b":
        return number(not smallest, dtype)
    limits = np.iinfo(dtype)
    return number(limits.min if smallest else limits.max, dtype)


def expression(node: Node, operands: list[str]) -> str:
    """The scalar expression of a pointwise node on the names of its operands."""
    if node.op in (copy, update, pointwise.variable, pointwise.stop_gradient):
        return operands[0]
    if node.op is pointwise.cast or node.op is pointwise.stored:
        return _converted(node, operands[0])
    if node.op.family != "pointwise":
        raise GraphError(f"{node.op.name} has no scalar expression")
    if node.op is pointwise.exp and never_positive(node.inputs[0]):
        return f"exp_nonpositive({operands[0]})"
    return f"{node.op.symbol or node.op.name}({', '.join(operands)})"


def _converted(node: Node, operand: str) -> str:
    """A cast: from bits to float32 and back where floats of 16 bits are concerned."""
    given = node.inputs[0].dtype
    if not is_half(given):
        return f"to_{node.dtype}({operand})"
    assert node.dtype == np.float32, f"{node!r}: graphdl.compiler.halves goes by float32"
    return f"from_{given}({operand})"


def constant_of(node: Node) -> Node | None:
    """The constant that a node is everywhere, seen through movement; None if it is not one."""
    while is_movement(node):
        node = node.inputs[0]
    return node if is_number(node) else None


def plain(constant: Node) -> str | None:
    """The text of a constant that is written into kernels: 0, 1, -1, truth, infinity, NaN.

    All others are read from memory, so that a kernel serves any learning rate or batch size: the
    text of a mean would otherwise name the number of elements.
    """
    if constant.op is movement.extent:
        return None
    value = constant["value"].array.reshape(())[()]
    if kind_of(constant.dtype) == "b" or value in (0, 1, -1) or not np.isfinite(value):
        return number(value, constant.dtype)
    return None
