"""What every graph promises between passes."""

from __future__ import annotations

from graphdl.errors import GraphError, VerificationError
from graphdl.graph import Graph


def verify(graph: Graph, after: str) -> None:
    """Check that each node's type is what its op infers, and that all inputs are known.

    Raises:
        VerificationError: naming the pass `after` which the graph is broken.
    """
    arguments = set(graph.inputs)
    if len(arguments) != len(graph.inputs):
        raise VerificationError(f"after {after}: an input stands twice")
    for node in graph.operations:
        if node.op.family == "input":
            raise VerificationError(f"after {after}: {node!r} is not an input of this graph")
        try:
            type = node.op.infer(*(operand.type for operand in node.inputs), **dict(node.attrs))
        except (GraphError, TypeError) as error:
            raise VerificationError(f"after {after}: {node!r} is wrong: {error}") from error
        if type != node.type:
            raise VerificationError(f"after {after}: {node!r} should be {type}")
