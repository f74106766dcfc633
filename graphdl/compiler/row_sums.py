"""Sums over rows of a product of matrices, taken from a smaller product that is there already.

The gradient of attention sums, for each row of the scores, the weights p times their cotangents,
which are a product themselves:

    sum over j of p[i, j] * (sum over d of g[i, d] * v[j, d])  is  sum over d of g[i, d] * o[i, d]

for o = p @ v, the result of the forward pass (Dao et al., FlashAttention, 2022, appendix B.2). So
nothing has to wait for a whole row of the cotangents: they are complete where they are computed.
"""

from __future__ import annotations

from msgspec import Struct

from graphdl.compiler.contract import transposed
from graphdl.graph import Graph, Node, rebuild
from graphdl.ops import contraction, pointwise, reduction
from graphdl.ops.contraction import Labels
from graphdl.ops.op import node_of, rebuilt


class _Sum(Struct, frozen=True):
    """The sum over rows of contract(g, v) * p: the labels of their axes, and those of p @ v."""

    g: Node
    v: Node
    p: Node
    lg: Labels
    lv: Labels
    lp: Labels
    lo: Labels

    @property
    def results(self) -> tuple[Node, Node]:
        """p @ v, as it may be written."""
        return (
            _product(self.p, self.v, self.lp, self.lv, self.lo),
            _product(self.v, self.p, self.lv, self.lp, self.lo),
        )

    def over(self, result: Node) -> Node:
        """The sum over the axes of g that p has not."""
        both = node_of(pointwise.multiply, (_ordered(self.g, self.lg, self.lo), result))
        axes = tuple(axis for axis, label in enumerate(self.lo) if label not in self.lp)
        total = node_of(reduction.sum_, (both,), {"axes": axes})
        left = tuple(label for label in self.lo if label in self.lp)
        return _ordered(total, left, tuple(label for label in self.lp if label in left))


def _ordered(x: Node, labels: Labels, wanted: Labels) -> Node:
    """x, whose axes have these labels, with its axes in the wanted order."""
    return transposed(x, tuple(labels.index(label) for label in wanted))


def _product(a: Node, b: Node, la: Labels, lb: Labels, lo: Labels) -> Node:
    return node_of(contraction.contract, (a, b), contraction.numbered(la, lb, lo))


def row_sums(graph: Graph) -> Graph:
    """The graph with such sums taken over the shorter rows of what is there."""
    there = set(graph.nodes)

    def replace(node: Node, inputs: tuple[Node, ...]) -> Node:
        made = rebuilt(node, inputs)
        for before, after in zip(_sums(node), _sums(made), strict=True):
            for old, new in zip(before.results, after.results, strict=True):
                if old in there and old.type.size < before.p.type.size:
                    return after.over(new)
        return made

    return rebuild(graph, replace)


def _sums(node: Node) -> list[_Sum]:
    """The ways to see a node as such a sum."""
    if node.op is not reduction.sum_ or node.inputs[0].op is not pointwise.multiply:
        return []
    found = []
    x, y = node.inputs[0].inputs
    for product, p in ((x, y), (y, x)):
        if product.op is contraction.contract and product.type.is_float:
            labels = product["lo"]
            summed = {labels[axis] for axis in node["axes"]}
            kept = tuple(label for label in labels if label not in summed)
            for first, second in ((0, 1), (1, 0)):
                lg, lv = (product[("la", "lb")[place]] for place in (first, second))
                g, v = product.inputs[first], product.inputs[second]
                if {*kept} <= {*lg} and summed <= {*lv} - {*lg}:
                    rest = tuple(label for label in lg if label not in kept)
                    orders = dict.fromkeys((lg, (*kept, *rest)))
                    found += [_Sum(g, v, p, lg, lv, labels, order) for order in orders]
    return found
