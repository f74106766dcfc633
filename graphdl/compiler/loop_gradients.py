"""Gradients of control flow: the chain rule through the body, as another loop or branch.

The backward loop of a scan runs the other way. What it needs of the forward steps is stacked by the
forward loop: the values at which the backward graph of the body leaves the forward one, and nothing
else. `merge_scans` then makes one loop of the original scan and of the one that stacks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphdl.compiler.close import closed
from graphdl.graph import Graph, Node, rebuild, topological
from graphdl.ops import control
from graphdl.ops.op import node_of, rebuilt
from graphdl.tracing import Trace, TracedArray, new_placeholder
from graphdl.types import TensorType

#: Cotangents of outputs -> cotangents of variables, as graphdl.compiler.differentiate.vjp.
Vjp = Callable[
    [Sequence[TracedArray], Sequence[TracedArray], Sequence[TracedArray]], list[TracedArray]
]
Zeros = Callable[[TensorType, TracedArray], TracedArray]
Cotangents = Mapping[int, TracedArray]


def scan_vjp(
    node: Node, given: Cotangents, trace: Trace, vjp: Vjp, zeros: Zeros
) -> list[TracedArray | None]:
    """The cotangents of a scan's operands; `given` are those of its results, by number."""
    body: Graph = node["body"]
    consts, carries, length, reverse = (
        node[name] for name in ("consts", "carries", "length", "reverse")
    )
    anchor = TracedArray(node.inputs[0], trace)
    inputs, outputs = body.inputs, body.outputs
    sought = [i for i, value in enumerate(inputs) if value.type.is_float]
    # a float carry has a cotangent that is carried back; a float output has one for each step
    carried = [k for k in range(carries) if outputs[k].type.is_float]
    stacked = [k for k in range(carries, len(outputs)) if k in given]
    seeds = {k: new_placeholder(outputs[k].type, trace) for k in (*carried, *stacked)}
    parts = vjp(
        [TracedArray(outputs[k], trace) for k in seeds],
        list(seeds.values()),
        [TracedArray(inputs[i], trace) for i in sought],
    )
    part = dict(zip(sought, parts, strict=True))
    saved = _residuals([value.node for value in parts], {seed.node for seed in seeds.values()})
    # what varies from step to step and is no row of an operand has to be stacked: carries as well
    kept = [x for x in saved if x not in inputs or x in inputs[consts : consts + carries]]
    rows = {value: new_placeholder(value.type, trace) for value in saved}
    # the sums over steps of the cotangents of what every step reads are carries, too
    fixed = [i for i in sought if i < consts]
    sums = {i: new_placeholder(inputs[i].type, trace) for i in fixed}
    new_sums = [sums[i] + part[i] for i in fixed]  # type: ignore[operator]
    after = [part[consts + k] for k in carried]
    xs = [i for i in sought if i >= consts + carries]
    results = [value.node for value in (*new_sums, *after, *(part[i] for i in xs))]
    results = _replaced(results, {value: row.node for value, row in rows.items()})
    own = [value for value in saved if value in inputs[:consts]]
    varying = [value for value in saved if value not in own]
    parameters = [
        *(sums[i].node for i in fixed),
        *(seeds[k].node for k in carried),
        *(seeds[k].node for k in stacked),
        *(rows[value].node for value in varying),
    ]
    backward, outer = closed(results, [*(rows[v].node for v in own), *parameters], trace)
    stacks = _forward_stacks(node, kept, trace)
    x_operands = {inputs[i]: node.inputs[i] for i in range(consts + carries, len(inputs))}
    operands = [
        *(TracedArray(value, trace) for value in outer),
        *(TracedArray(node.inputs[inputs.index(value)], trace) for value in own),
        *(zeros(inputs[i].type, anchor) for i in fixed),
        *(given[k] if k in given else zeros(outputs[k].type, anchor) for k in carried),
        *(given[k] for k in stacked),
        *(
            TracedArray(x_operands[value], trace) if value in x_operands else stacks[value]
            for value in varying
        ),
    ]
    attrs = {
        "body": backward,
        "consts": len(outer) + len(own),
        "carries": len(fixed) + len(carried),
        "length": length,
    }
    packed = anchor.apply_op(control.scan, tuple(operands), {**attrs, "reverse": not reverse})
    found = control.items(packed, control.scan_results(**attrs))
    cotangents: list[TracedArray | None] = [None] * len(inputs)
    for i, value in zip([*fixed, *(consts + k for k in carried), *xs], found, strict=True):
        cotangents[i] = value
    return cotangents


def _residuals(results: Sequence[Node], seeds: set[Node]) -> list[Node]:
    """Forward values that nodes which depend on a cotangent read; numbers are made anew."""
    dependent: set[Node] = set(seeds)
    found: dict[Node, None] = {}
    order = topological(results)
    for node in order:
        if any(operand in dependent for operand in node.inputs):
            dependent.add(node)
    for node in order:
        if node in dependent:
            for operand in node.inputs:
                if operand not in dependent and not _is_free(operand):
                    found.setdefault(operand)
    for node in results:
        if node not in dependent and not _is_free(node):
            found.setdefault(node)
    return list(found)


def _is_free(node: Node) -> bool:
    """Whether a value is made of constants alone."""
    return all(not inner.inputs and inner.op.family == "constant" for inner in _leaves(node))


def _leaves(node: Node) -> list[Node]:
    return [inner for inner in topological([node]) if not inner.inputs]


def _replaced(results: Sequence[Node], new: Mapping[Node, Node]) -> list[Node]:
    """The results with some of the nodes that they are made from replaced."""
    done: dict[Node, Node] = dict(new)
    for node in topological(results):
        if node not in done:
            operands = tuple(done[operand] for operand in node.inputs)
            done[node] = (
                node if operands == node.inputs else node_of(node.op, operands, dict(node.attrs))
            )
    return [done[node] for node in results]


def _forward_stacks(node: Node, kept: Sequence[Node], trace: Trace) -> dict[Node, TracedArray]:
    """Each kept value of all steps, by a scan that stacks them."""
    body: Graph = node["body"]
    extended = Graph(body.inputs, (*body.outputs, *kept), sources=body.sources)
    attrs = dict(node.attrs) | {"body": extended}
    packed = TracedArray(node_of(control.scan, node.inputs, attrs), trace)
    trace.record(packed.node)
    types = control.result_types(packed.node)
    found = control.items(packed, types)[len(body.outputs) :]
    return dict(zip(kept, found, strict=True))


def switch_vjp(
    node: Node, given: Cotangents, trace: Trace, vjp: Vjp, zeros: Zeros
) -> list[TracedArray | None]:
    """The cotangents of a branch's operands: a branch of pull-backs, which compute forward anew."""
    branches: tuple[Graph, ...] = node["branches"]
    index, *operands = (TracedArray(operand, trace) for operand in node.inputs)
    inputs = branches[0].inputs
    sought = [i for i, value in enumerate(inputs) if value.type.is_float]
    numbers = list(given)
    seeds = [new_placeholder(branches[0].outputs[k].type, trace) for k in numbers]
    results: list[Node] = []
    for branch in branches:
        parts = vjp(
            [TracedArray(branch.outputs[k], trace) for k in numbers],
            seeds,
            [TracedArray(branch.inputs[i], trace) for i in sought],
        )
        results += [value.node for value in parts]
    parameters = [*inputs, *(seed.node for seed in seeds)]
    whole, outer = closed(results, parameters, trace)
    count = len(sought)
    graphs = tuple(
        Graph(whole.inputs, whole.outputs[i * count : (i + 1) * count], sources=whole.sources)
        for i in range(len(branches))
    )
    values = [*(TracedArray(value, trace) for value in outer), *operands]
    values += [given[k] for k in numbers]
    packed = index.apply_op(control.switch, (index, *values), {"branches": graphs})
    found = control.items(packed, [inputs[i].type for i in sought])
    cotangents: list[TracedArray | None] = [None] * (1 + len(inputs))
    for i, value in zip(sought, found, strict=True):
        cotangents[1 + i] = value
    return cotangents


def merge_scans(graph: Graph) -> Graph:
    """One loop for scans that differ in what they stack only."""
    families: dict[Any, list[Node]] = {}
    for node in graph.operations:
        if node.op is control.scan:
            body: Graph = node["body"]
            carries = node["carries"]
            key = (
                node.inputs,
                body.inputs,
                body.outputs[:carries],
                node["length"],
                node["reverse"],
            )
            families.setdefault(key, []).append(node)
    merged: dict[Node, Node] = {}
    for nodes in families.values():
        if len(nodes) > 1:
            first = nodes[0]
            outputs = list(
                dict.fromkeys(o for n in nodes for o in n["body"].outputs[n["carries"] :])
            )
            carried = first["body"].outputs[: first["carries"]]
            body = Graph(first["body"].inputs, (*carried, *outputs), sources=first["body"].sources)
            whole = node_of(control.scan, first.inputs, dict(first.attrs) | {"body": body})
            merged |= dict.fromkeys(nodes, whole)
    if not merged:
        return graph
    return rebuild(graph, lambda node, inputs: _moved(node, inputs, merged))


def _moved(node: Node, inputs: tuple[Node, ...], merged: Mapping[Node, Node]) -> Node:
    """A merged scan instead of each of its parts, and their items at their new places."""
    if node in merged:
        return rebuilt(merged[node], inputs)
    if node.op is not control.item or node.inputs[0] not in merged:
        return rebuilt(node, inputs)
    old, new = node.inputs[0], merged[node.inputs[0]]
    number = control.offsets(control.result_types(old)).index(node["offset"])
    carries = old["carries"]
    if number >= carries:
        value = old["body"].outputs[number]
        number = carries + new["body"].outputs[carries:].index(value)
    offset = control.offsets(control.result_types(new))[number]
    return node_of(control.item, inputs, dict(node.attrs) | {"offset": offset})
