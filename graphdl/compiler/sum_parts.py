"""Sums of arrays that are zero outside of a part, or inside of one: what gradients of slices add.

The gradient of `x[a:b]` is an array of zeros around one part, that of `x[a:b] = v` is the gradient
that comes in with zeros in the place of that part, and all that reads and writes of one array leave
is added up. Written so, each step of `x[a:b] += v` going back takes the gradient apart and puts it
together again: zeros are written over a part that is then added anew. In such sums

  - a part is added to what has zeros in its place by writing it there, and where it is what was
    there before, nothing has happened;
  - parts of the same place are added before zeros are put around them, and so are parts that lie
    in another one which is small.

The order of the terms changes, and so may the last bits.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from msgspec import Struct

from graphdl.compiler.constants import constant, is_zero
from graphdl.compiler.rewrite import credit
from graphdl.compiler.view import is_movement
from graphdl.graph import Graph, Node, users
from graphdl.ops import movement, pointwise
from graphdl.ops.op import node_of, rebuilt
from graphdl.ops.update import update
from graphdl.types import Shape
from graphdl.windows import is_within, places, window_in

#: Parts are put into another one that is at most so much of the array: then each pass over it costs
#: that much less than one over the array.
_SMALL = 1 / 2
#: Windows of a sum that are compared with each other.
_WINDOWS = 16


class Window(Struct, frozen=True):
    """A part of an array: see graphdl.windows."""

    starts: Shape
    sizes: Shape
    steps: Shape

    @property
    def places(self) -> list[range]:
        return places(self.starts, self.sizes, self.steps)

    @property
    def place(self) -> dict[str, Any]:
        """The attributes of an op that writes there."""
        return {"starts": self.starts, "steps": self.steps}


class Term(Struct, frozen=True):
    """What a sum adds, or subtracts."""

    node: Node
    is_negative: bool = False


_SUMS = (pointwise.add, pointwise.subtract, pointwise.negative)


def sum_parts(graph: Graph) -> Graph:
    """The graph with its sums of parts as above."""
    if not any(_part(node) or _hole(node) for node in graph.operations):
        return graph
    used = users(graph.nodes)
    outputs = set(graph.outputs)

    def is_inner(node: Node) -> bool:
        """Whether a node adds terms of another sum, and is used by nothing else."""
        if not _is_sum(node) or node in outputs or len(used[node]) != 1:
            return False
        (user,) = used[node]
        return _is_sum(user) and user.inputs.count(node) == 1

    inner = {node for node in graph.operations if is_inner(node)}
    known = set(graph.inputs)
    sources = dict(graph.sources)
    new: dict[Node, Node] = {node: node for node in graph.inputs}
    for node in graph.operations:
        made = rebuilt(node, tuple(new[operand] for operand in node.inputs))
        if _is_sum(node) and node not in inner:
            terms = [Term(new[term.node], term.is_negative) for term in _terms(node, inner)]
            made = _summed(terms) or made
        new[node] = made
        if node in sources:
            sources.setdefault(made, sources[node])
            credit(made, sources[node], sources, known)
    return graph.with_outputs([new[node] for node in graph.outputs], sources)


def _is_sum(node: Node) -> bool:
    return node.op in _SUMS and node.type.is_float


def _terms(node: Node, inner: Collection[Node]) -> list[Term]:
    """What a sum adds, in order, through those within it."""
    found: list[Term] = []
    pending = [Term(node)]
    while pending:
        term = pending.pop()
        at = term.node
        if at is not node and at not in inner:
            found.append(term)
            continue
        last = term.is_negative ^ (at.op is not pointwise.add)
        pending.append(Term(at.inputs[-1], last))
        if len(at.inputs) == 2:
            pending.append(Term(at.inputs[0], term.is_negative))
    return found


def _part(node: Node) -> Window | None:
    """Where an array is not zero, if it is another one with zeros around."""
    if node.op is not movement.pad or not node.inputs[0].type.size or not is_zero(node.inputs[1]):
        return None
    return Window(node["starts"], node.inputs[0].shape, node["steps"])


def _hole(node: Node) -> Window | None:
    """Where an array is zero, if it is another one with zeros there."""
    if node.op is not update or not node.inputs[1].type.size or not is_zero(node.inputs[1]):
        return None
    return Window(node["starts"], node.inputs[1].shape, node["steps"])


def _summed(terms: Sequence[Term]) -> Node | None:
    """The sum of the terms; None if there is nothing to put together."""
    whole: list[Term] = []
    holes: list[tuple[Term, Window]] = []
    parts: dict[Window, list[Term]] = {}
    for term in terms:
        part, hole = _part(term.node), _hole(term.node)
        if part is not None:
            inside = Term(term.node.inputs[0], term.is_negative)
            parts.setdefault(part, []).append(inside)
        elif hole is not None:
            holes.append((term, hole))
        else:
            whole.append(term)
    shape = terms[0].node.shape
    for term, window in holes:
        whole.append(_filled(term, window, parts))
    if len(parts) <= _WINDOWS:
        _put_inside(parts, shape)
    for window, values in parts.items():
        if _is_small(window, shape) or not all(is_movement(value.node) for value in values):
            values = [Term(_added(values))]
        whole += [Term(_around(v.node, window, shape), v.is_negative) for v in values]
    return None if len(whole) == len(terms) else _added(whole)


def _filled(term: Term, window: Window, parts: dict[Window, list[Term]]) -> Term:
    """The term with what is to be added in the place of its zeros, taken from the parts."""
    x = term.node.inputs[0]
    given = parts.pop(window, None)
    if given is None or term.is_negative:
        if given is not None:
            parts[window] = given
        return term
    before = Term(node_of(movement.slice_, (x,), {**window.place, "sizes": window.sizes}))
    if before not in given:
        return Term(node_of(update, (x, _added(given)), window.place))
    given.remove(before)
    if given:
        parts[window] = given
    return Term(x)


def _put_inside(parts: dict[Window, list[Term]], shape: Shape) -> None:
    """Make parts that lie in a small one parts of that one."""
    for large in sorted(parts, key=lambda window: -math.prod(window.sizes)):
        if large not in parts or not _is_small(large, shape):
            continue
        for small in [window for window in parts if window != large]:
            if is_within(small.places, large.places):
                at = window_in(small.places, large.places)
                inside = Window(at["starts"], at["sizes"], at["steps"])
                value = _added(parts.pop(small))
                parts[large].append(Term(_around(value, inside, large.sizes)))


def _is_small(window: Window, shape: Shape) -> bool:
    return math.prod(window.sizes) <= _SMALL * math.prod(shape)


def _added(terms: Sequence[Term]) -> Node:
    """The sum; of terms that are subtracted, one that is not comes first if there is any."""
    first = next((term for term in terms if not term.is_negative), terms[0])
    total = node_of(pointwise.negative, (first.node,)) if first.is_negative else first.node
    for term in terms:
        if term is not first:
            op = pointwise.subtract if term.is_negative else pointwise.add
            total = node_of(op, (total, term.node))
    return total


def _around(value: Node, window: Window, shape: Shape) -> Node:
    """The value with zeros around it."""
    zero = constant(np.zeros((), value.dtype))
    return node_of(movement.pad, (value, zero), {"shape": shape, **window.place})
