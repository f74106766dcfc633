"""What a node takes, estimated from its types."""

from __future__ import annotations

import math

from graphdl.graph import Node
from graphdl.visualize.picture import Cost

_FREE = ("constant", "movement", "input", "mark")


def cost_of(node: Node) -> Cost:
    """Bytes and operations of a node that runs by itself.

    It reads its operands and writes its result. A matrix product takes a multiplication and an
    addition for each term, a reduction one operation for each element of its operand, any other op
    one for each element of its result. Movement takes none.

    >>> import graphdl as gd
    >>> graph = gd.trace(lambda a, b: a @ b, gd.spec((4, 3)), gd.spec((3, 2)))
    >>> cost_of(graph.outputs[0])
    Cost(nbytes=208, flops=48, seconds=None)
    """
    nbytes = node.type.nbytes + sum(operand.type.nbytes for operand in dict.fromkeys(node.inputs))
    return Cost(nbytes, _flops(node))


def _flops(node: Node) -> int:
    if node.op.family in _FREE:
        return 0
    if node.op.name == "contract":
        sizes: dict[int, int] = {}
        for operand, labels in zip(node.inputs, (node["la"], node["lb"]), strict=True):
            sizes |= dict(zip(labels, operand.shape, strict=True))
        return 2 * math.prod(sizes.values())
    if node.op.name == "convolve":
        window = node.inputs[1].type
        return 2 * node.type.size * window.size // max(window.shape[-1] if window.shape else 1, 1)
    if node.op.family == "reduction":
        return node.inputs[0].type.size
    return node.type.size
