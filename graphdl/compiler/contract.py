"""Contractions in the form that a kernel computes: at most one axis each for batch, m, n and k."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from graphdl.graph import Graph, Node, rebuild
from graphdl.ops import contraction, movement, pointwise, reduction
from graphdl.ops.contraction import Labels
from graphdl.ops.op import node_of, rebuilt


class Roles(Struct, frozen=True):
    """The labels of a contraction by what they are: in both and kept, in one, summed."""

    batch: Labels
    m: Labels
    n: Labels
    k: Labels


def roles(node: Node) -> Roles:
    la, lb, lo = node["la"], node["lb"], node["lo"]
    return Roles(
        tuple(x for x in lo if x in la and x in lb),
        tuple(x for x in lo if x in la and x not in lb),
        tuple(x for x in lo if x in lb and x not in la),
        tuple(x for x in la if x in lb and x not in lo),
    )


def normalise(graph: Graph) -> Graph:
    """Each contraction as a product of matrices, or as a pointwise product that is summed."""
    return rebuild(graph, lambda node, inputs: _normal(rebuilt(node, inputs)))


def _normal(node: Node) -> Node:
    if node.op is not contraction.contract:
        return node
    role = roles(node)
    if not node.type.is_float or node.type.size == 0 or not (role.m or role.n):
        return _summed(node, role)
    if all(len(labels) <= 1 for labels in (role.batch, role.m, role.n, role.k)) and role.k:
        return _oriented(node, role)
    a, b = node.inputs
    parts = ((role.batch, role.m, role.k), (role.batch, role.k, role.n))
    sizes = dict(zip(node["la"], a.shape, strict=True)) | dict(
        zip(node["lb"], b.shape, strict=True)
    )
    merged = [
        _merged(x, own, order, sizes)
        for x, own, order in ((a, node["la"], parts[0]), (b, node["lb"], parts[1]))
    ]
    product = node_of(
        contraction.contract, merged, {"la": (0, 1, 2), "lb": (0, 2, 3), "lo": (0, 1, 3)}
    )
    order = (*role.batch, *role.m, *role.n)
    full = node_of(movement.reshape, (product,), {"shape": tuple(sizes[x] for x in order)})
    return transposed(full, tuple(order.index(label) for label in node["lo"]))


def _merged(x: Node, own: Labels, parts: Sequence[Labels], sizes: dict[int, int]) -> Node:
    order = tuple(label for part in parts for label in part)
    moved = transposed(x, tuple(own.index(label) for label in order))
    shape = tuple(math.prod(sizes[label] for label in part) for part in parts)
    return moved if moved.shape == shape else node_of(movement.reshape, (moved,), {"shape": shape})


def transposed(x: Node, perm: tuple[int, ...]) -> Node:
    """x with its axes in another order; x itself where that is the same one."""
    if perm == tuple(range(len(perm))):
        return x
    return node_of(movement.transpose, (x,), {"perm": perm})


def _oriented(node: Node, role: Roles) -> Node:
    """The last axis of the result comes from the second operand, whose columns are adjacent."""
    if node["lo"] and role.n and node["lo"][-1] in role.n:
        return node
    if not role.m or (role.n and node["lo"][-1] not in role.m):
        return node
    a, b = node.inputs
    return node_of(node.op, (b, a), {"la": node["lb"], "lb": node["la"], "lo": node["lo"]})


def _summed(node: Node, role: Roles) -> Node:
    """Integers, booleans, vectors and empty sums: multiply, then reduce."""
    a, b = node.inputs
    sizes = dict(zip(node["la"], a.shape, strict=True)) | dict(
        zip(node["lb"], b.shape, strict=True)
    )
    order = (*node["lo"], *role.k)
    shape = tuple(sizes[label] for label in order)
    spread = []
    for x, own in ((a, node["la"]), (b, node["lb"])):
        kept = tuple(label for label in order if label in own)
        moved = transposed(x, tuple(own.index(label) for label in kept))
        dims = tuple(order.index(label) for label in kept)
        if moved.shape != shape:
            moved = node_of(movement.broadcast, (moved,), {"shape": shape, "dims": dims})
        spread.append(moved)
    axes = tuple(range(len(node["lo"]), len(order)))
    if node.dtype == np.bool_:
        both = node_of(pointwise.logical_and, spread)
        return node_of(reduction.any_, (both,), {"axes": axes}) if axes else both
    product = node_of(pointwise.multiply, spread)
    return node_of(reduction.sum_, (product,), {"axes": axes}) if axes else product
