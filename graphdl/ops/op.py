"""What an op is: one record with all that the rest of graphdl asks of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from msgspec import Struct, field

from graphdl import graph
from graphdl.errors import GraphError
from graphdl.graph import Node, intern
from graphdl.types import TensorType

#: A gradient rule: (g, out, *inputs, **attrs) -> one cotangent for each input, None for zero.
#: It is written with NumPy's names, so it builds graph on traced values and computes on arrays.
Rule = Callable[..., Sequence[Any]]


class Traced(Protocol):
    """A value that builds graph: see graphdl.tracing.TracedArray."""

    def apply_op(self, op: Op, args: tuple[Any, ...], attrs: dict[str, Any]) -> Any: ...


class Op(Struct, frozen=True, eq=False):
    """One operation.

    name      how graphs print it; for a pointwise op also its name in generated kernels
    family    decides how it is compiled
    infer     (*TensorType, **attrs) -> TensorType; refuses what does not fit
    evaluate  the NumPy reference: (*arrays, **attrs) -> array
    vjp       the gradient rule, or None: `no_gradient` then says why
    results   for an op with several results: (*TensorType, **attrs) -> their types. Its node is
              one value, the results packed as bytes (graphdl.ops.control.items takes them out), and
              its rule is (gs, outs, *inputs): the cotangents, None for zero, and the results
    failure   what the error says when an operand turns out not to be fit, as a singular matrix
    """

    name: str
    family: str
    infer: Callable[..., TensorType]
    evaluate: Callable[..., Any]
    vjp: Rule | None = None
    no_gradient: str = ""
    #: Where to test a pointwise op: an interval for each operand.
    domain: tuple[tuple[float, float], ...] = ()
    #: The operands, by position, that `vjp` has no formula for, and why.
    undifferentiated: Mapping[int, str] = field(default_factory=dict)
    results: Callable[..., Sequence[TensorType]] | None = None
    failure: str = ""
    #: The name of its scalar function in generated kernels, where that is not its own; or of the
    #: function that it calls (graphdl.kernels.user).
    symbol: str = ""

    def __call__(self, *args: Any, **attrs: Any) -> Any:
        """Build a node if an argument is traced, otherwise compute with NumPy."""
        for arg in args:
            if hasattr(arg, "apply_op"):
                return arg.apply_op(self, args, attrs)
        with np.errstate(all="ignore"):
            return self.evaluate(*(np.asarray(arg) for arg in args), **attrs)

    def __repr__(self) -> str:
        return f"<op {self.name}>"


def node_of(op: graph.Op, inputs: Sequence[Node], attrs: dict[str, Any] | None = None) -> Node:
    """The node of `op` on `inputs`, its type inferred and checked."""
    attrs = attrs or {}
    try:
        type = op.infer(*(node.type for node in inputs), **attrs)
    except GraphError:
        raise
    except TypeError as error:  # a wrong number of operands or an unknown attribute
        raise GraphError(f"{op.name}: {error}") from error
    return intern(op, tuple(inputs), tuple(sorted(attrs.items())), type)


def rebuilt(node: Node, inputs: tuple[Node, ...]) -> Node:
    """The same operation on other inputs."""
    if inputs == node.inputs:
        return node
    return node_of(node.op, inputs, dict(node.attrs))
