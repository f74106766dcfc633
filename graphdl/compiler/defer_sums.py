"""Sums over the steps of a loop, taken once behind the loop.

The gradient of a weight that every step reads is a carry to which each step adds a matrix product,
so each step would pass over the whole weight: for an LSTM of 512 units and a batch of one 4 MB a
step, for products of 10 KB. Here the loop stacks the factors, and one product sums over the steps,
too: acc + sum over t of a[t].T @ b[t] is acc + A.T @ B, with the steps and the rows as one axis.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from graphdl.compiler.loop_results import Results, replaced, result
from graphdl.graph import Graph, Node, Source, rebuild
from graphdl.ops import contraction, control, pointwise, reduction
from graphdl.ops.op import node_of, rebuilt


class _Sum(Struct, frozen=True):
    """A carry that a step only adds to: its number, and what is added."""

    carry: int
    terms: tuple[Node, ...]


def defer_sums(graph: Graph) -> Graph:
    """The graph with sums of products over the steps of scans taken behind the scans."""
    made: dict[Node, Results] = {}
    lines: dict[Node, Source] = {}

    def moved(node: Node, inputs: tuple[Node, ...]) -> Node:
        if node.op is control.scan:
            deferred = _chosen(node)
            if deferred:
                loop, made[node] = _behind(node, inputs, deferred, lines)
                return loop
        if node.op is control.item and node.inputs[0] in made:
            return replaced(node, made[node.inputs[0]])
        return rebuilt(node, inputs)

    whole = rebuild(graph, moved)
    if not made:
        return graph
    return whole.with_outputs(whole.outputs, {**lines, **whole.sources})


def _chosen(scan: Node) -> list[_Sum]:
    """The sums that are worth it: what the loop would stack for them is less than the carry."""
    body: Graph = scan["body"]
    consts, carries = scan["consts"], scan["carries"]
    uses = Counter(operand for node in body.operations for operand in node.inputs)
    uses.update(body.outputs)
    sums = [
        _Sum(k, terms)
        for k in range(carries)
        if (terms := _terms(body.outputs[k], body.inputs[consts + k], uses)) is not None
    ]
    there = {*body.inputs[consts + carries :], *body.outputs[carries:]}
    varying = _varying(body, consts)
    chosen: list[_Sum] = []
    # Products first: what they have stacked may be what other sums add.
    for products in (True, False):
        for one in sums:
            if one in chosen or products != all(t.op is contraction.contract for t in one.terms):
                continue
            factors = {x for term in one.terms for x in _factors(term)}
            new = factors - there
            size = body.inputs[consts + one.carry].type.nbytes
            limit = size if products else 0
            if factors <= varying and sum(x.type.nbytes for x in new) <= limit:
                chosen.append(one)
                there |= new
    return chosen


def _terms(after: Node, before: Node, uses: Mapping[Node, int]) -> tuple[Node, ...] | None:
    """What a step adds to a carry, if it does nothing else with it."""
    if not before.type.is_inexact or uses[before] != 1:
        return None
    terms: list[Node] = []
    pending = [after]
    while pending:
        node = pending.pop()
        if node.op is pointwise.add and uses[node] == 1:
            pending += reversed(node.inputs)
        else:
            terms.append(node)
    if before not in terms or len(terms) == 1:
        return None
    terms.remove(before)
    return tuple(terms)


def _factors(term: Node) -> tuple[Node, ...]:
    """What has to be there of every step, so that the sum of the term can be taken later."""
    return term.inputs if term.op is contraction.contract else (term,)


def _varying(body: Graph, consts: int) -> set[Node]:
    """The values of a body that differ from step to step."""
    found = set(body.inputs[consts:])
    for node in body.operations:
        if any(operand in found for operand in node.inputs):
            found.add(node)
    return found


def _behind(
    scan: Node, operands: Sequence[Node], deferred: Sequence[_Sum], lines: dict[Node, Source]
) -> tuple[Node, Results]:
    """The loop without these sums, and what its results are now."""
    body: Graph = scan["body"]
    consts, carries = scan["consts"], scan["carries"]
    first_x = consts + carries
    gone = {one.carry for one in deferred}
    left = [k for k in range(carries) if k not in gone]
    rows = {body.inputs[i]: operands[i] for i in range(first_x, len(body.inputs))}
    stacked = list(body.outputs[carries:])
    for one in deferred:
        for factor in (x for term in one.terms for x in _factors(term)):
            if factor not in rows and factor not in stacked:
                stacked.append(factor)
    order = [*range(consts), *(consts + k for k in left), *range(first_x, len(body.inputs))]
    less = Graph(
        tuple(body.inputs[i] for i in order),
        (*(body.outputs[k] for k in left), *stacked),
        sources=body.sources,
    )
    attrs = dict(scan.attrs) | {"body": less, "carries": len(left)}
    loop = node_of(control.scan, [operands[i] for i in order], attrs)

    def all_steps(factor: Node) -> Node:
        if factor in rows:
            return rows[factor]
        return result(loop, len(left) + stacked.index(factor))

    found: dict[int, Any] = {k: (loop, i) for i, k in enumerate(left)}
    found |= {k: (loop, k - len(gone)) for k in range(carries, len(body.outputs))}
    for one in deferred:
        total = operands[consts + one.carry]
        for term in one.terms:
            part = _sum_over_steps(term, [all_steps(factor) for factor in _factors(term)])
            total = node_of(pointwise.add, (total, part))
            if term in body.sources:
                lines |= dict.fromkeys((part, total), body.sources[term])
        found[one.carry] = total
    return loop, found


def _sum_over_steps(term: Node, factors: Sequence[Node]) -> Node:
    """The sum of a term over all steps, from its factors of all steps."""
    if term.op is not contraction.contract:
        return node_of(reduction.sum_, factors, {"axes": (0,)})
    labels = {name: tuple(label + 1 for label in term[name]) for name in ("la", "lb", "lo")}
    return node_of(
        contraction.contract,
        factors,
        {"la": (0, *labels["la"]), "lb": (0, *labels["lb"]), "lo": labels["lo"]},
    )
