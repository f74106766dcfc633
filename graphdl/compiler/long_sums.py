"""Products of few rows with a large matrix: the long sum in parts, each over adjacent rows of it.

Such a product waits for its matrix. Where threads share it by columns, each reads pieces of rows,
which lie in some of the sets of its cache only, and which are not what it has touched last time:
the update of that matrix, a pointwise step, is shared by rows. In parts over the rows, each thread
reads adjacent memory, and step after step the part that its own cache holds.

Sizes alone decide on the parts, so that the number of threads changes no bit of the result.
"""

from __future__ import annotations

from typing import Final

from graphdl.compiler.contract import roles
from graphdl.compiler.view import view_of
from graphdl.graph import Graph, Node, rebuild
from graphdl.ops import contraction, movement, reduction
from graphdl.ops.op import node_of, rebuilt

#: Matrices of so many bytes: a smaller one is read in no time, a larger one stays in no cache.
LEAST, MOST = 512 << 10, 8 << 20
#: Up to so many rows, in so many parts; more rows compute longer than they read.
PARTS: Final = ((12, 4), (24, 2))
#: A part is so long at least.
_SHORTEST = 64


def in_parts(graph: Graph) -> Graph:
    """The graph with such products as batches of shorter ones, which are summed."""
    return rebuild(graph, lambda node, inputs: _in_parts(rebuilt(node, inputs)))


def _in_parts(node: Node) -> Node:
    if node.op is not contraction.contract:
        return node
    role = roles(node)
    if role.batch or not (len(role.k) == len(role.n) == 1):
        return node
    a, b = node.inputs
    la, lb, lo = node["la"], node["lb"], node["lo"]
    (k,), depth = role.k, a.shape[la.index(role.k[0])]
    rows = node.type.size // b.shape[lb.index(role.n[0])]
    view = view_of(b)
    by_rows = view is not None and view.strides[lb.index(role.n[0])] == 1
    parts = next((parts for most, parts in PARTS if rows <= most), 1)
    if not by_rows or not LEAST <= b.type.nbytes <= MOST or depth < parts * _SHORTEST:
        return node
    parts = next((parts for parts in range(parts, 1, -1) if depth % parts == 0), 1)
    if parts == 1:
        return node
    part = max(*la, *lb, *lo) + 1
    operands = [_split(a, la.index(k), parts), _split(b, lb.index(k), parts)]
    labels = [_before(own, own.index(k), part) for own in (la, lb)]
    attrs = {"la": labels[0], "lb": labels[1], "lo": (part, *lo)}
    return node_of(
        reduction.sum_, (node_of(contraction.contract, operands, attrs),), {"axes": (0,)}
    )


def _split(x: Node, axis: int, parts: int) -> Node:
    """x with an axis as two: the parts, and what is within one."""
    shape = (*x.shape[:axis], parts, x.shape[axis] // parts, *x.shape[axis + 1 :])
    return node_of(movement.reshape, (x,), {"shape": shape})


def _before(labels: tuple[int, ...], place: int, label: int) -> tuple[int, ...]:
    return (*labels[:place], label, *labels[place:])
