"""Gradients of control flow: the chain rule through the body, as another loop or branch.

The backward loop of a scan runs the other way. What it needs of the forward steps is stacked by the
forward loop: the values at which the backward graph of the body leaves the forward one, and nothing
else. `merge_scans` then makes one loop of the original scan and of the one that stacks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphdl.compiler.close import closed
from graphdl.compiler.loop_checkpoints import (
    carry_bytes,
    checkpointed_vjp,
    run_length,
    scan_in_runs,
)
from graphdl.compiler.loop_results import number_of, result
from graphdl.compiler.step_gradients import (
    Cotangents,
    Vjp,
    Zeros,
    active_in_loop,
    made_from,
    residuals,
    step_back,
)
from graphdl.graph import Graph, Node, rebuild, topological
from graphdl.ops import control
from graphdl.ops.op import node_of, rebuilt
from graphdl.tracing import Trace, TracedArray, new_placeholder
from graphdl.types import TensorType


def scan_vjp(
    node: Node,
    given: Cotangents,
    wanted: Sequence[bool],
    trace: Trace,
    vjp: Vjp,
    zeros: Zeros,
) -> list[TracedArray | None]:
    """The cotangents of a scan's operands; `given` are those of its results, by number."""
    body: Graph = node["body"]
    consts, carries = node["consts"], node["carries"]
    first_x = consts + carries
    anchor = TracedArray(node.inputs[0], trace)
    active = active_in_loop(body, consts, carries, wanted)
    stacked = {k: 1 for k in given if k >= carries and body.outputs[k] in active}
    back = step_back(body, consts, carries, active, stacked, trace, vjp)
    rows = {body.inputs[i]: node.inputs[i] for i in range(first_x, len(body.inputs))}
    kept = [value for value in back.varying if value not in rows]
    if trace.memory_budget is not None:
        row, carry = sum(x.type.nbytes for x in kept), carry_bytes(body, carries)
        run = run_length(node["length"], row, carry, trace.memory_budget)
        if run is not None:
            return checkpointed_vjp(node, given, wanted, trace, vjp, scan_in_runs(run))
    stacks = _forward_stacks(node, kept, trace)
    operands = [
        *(TracedArray(value, trace) for value in back.outer),
        *(TracedArray(node.inputs[i], trace) for i in back.own),
        *(zeros(body.inputs[i].type, anchor) for i in back.fixed),
        *(given[k] if k in given else zeros(body.outputs[k].type, anchor) for k in back.carried),
        *(given[k] for k in back.stacked),
        *(TracedArray(rows[v], trace) if v in rows else stacks[v] for v in back.varying),
    ]
    attrs = {
        "body": back.body,
        "consts": len(back.outer) + len(back.own),
        "carries": len(back.fixed) + len(back.carried),
        "length": node["length"],
    }
    packed = anchor.apply_op(
        control.scan, tuple(operands), {**attrs, "reverse": not node["reverse"]}
    )
    found = control.items(packed, control.scan_results(**attrs))
    cotangents: list[TracedArray | None] = [None] * len(body.inputs)
    places = [*back.fixed, *(consts + k for k in back.carried), *back.rows]
    for i, value in zip(places, found, strict=True):
        cotangents[i] = value
    return cotangents


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
    node: Node,
    given: Cotangents,
    wanted: Sequence[bool],
    trace: Trace,
    vjp: Vjp,
    zeros: Zeros,
) -> list[TracedArray | None]:
    """The cotangents of a branch's operands: a branch of pull-backs.

    They read the operands, and compute forward anew what they need of them, or what another branch
    has kept for them, whichever is less: in a loop it is there for each step. Of an array of which
    a branch reads an element that is the element.
    """
    branches: tuple[Graph, ...] = node["branches"]
    index, *operands = (TracedArray(operand, trace) for operand in node.inputs)
    inputs = branches[0].inputs
    sought = [i for i, value in enumerate(inputs) if value.type.is_inexact and wanted[1 + i]]
    numbers = list(given)
    seeds = [new_placeholder(branches[0].outputs[k].type, trace) for k in numbers]
    pulled: list[list[Node]] = []
    for branch in branches:
        parts = vjp(
            [TracedArray(branch.outputs[k], trace) for k in numbers],
            seeds,
            [TracedArray(branch.inputs[i], trace) for i in sought],
        )
        pulled.append([value.node for value in parts])
    own = {seed.node for seed in seeds}
    read = _inputs_of([value for results in pulled for value in results], inputs)
    saved = [residuals(results, own) for results in pulled]
    kept = [[value for value in values if value not in inputs] for values in saved]
    slots, chosen = _slots(kept)
    spared = [i for i in read if not any(inputs[i] in values for values in saved)]
    given_back: list[TracedArray] = []
    if sum(type.nbytes for type in slots) < sum(inputs[i].type.nbytes for i in spared):
        read = [i for i in read if i not in spared]
        given_back = _kept_by_branches(node, slots, chosen, trace, zeros)
    places = [new_placeholder(value.type, trace).node for value in given_back]
    results: list[Node] = []
    for pull_back, slot_of in zip(pulled, chosen, strict=True):
        new = {value: places[slot] for value, slot in slot_of.items()} if places else {}
        results += made_from(pull_back, new, trace.sources)
    parameters = [*(inputs[i] for i in read), *places, *(seed.node for seed in seeds)]
    whole, outer = closed(results, parameters, trace)
    count = len(sought)
    graphs = tuple(
        Graph(whole.inputs, whole.outputs[i * count : (i + 1) * count], sources=whole.sources)
        for i in range(len(branches))
    )
    values = [*(TracedArray(value, trace) for value in outer), *(operands[i] for i in read)]
    values += [*given_back, *(given[k] for k in numbers)]
    packed = index.apply_op(control.switch, (index, *values), {"branches": graphs})
    found = control.items(packed, [inputs[i].type for i in sought])
    cotangents: list[TracedArray | None] = [None] * (1 + len(inputs))
    for i, value in zip(sought, found, strict=True):
        cotangents[1 + i] = value
    return cotangents


def _inputs_of(results: Sequence[Node], inputs: Sequence[Node]) -> list[int]:
    """The inputs, by number, that results are made from."""
    reached = set(topological(results))
    return [i for i, value in enumerate(inputs) if value in reached]


def _slots(kept: Sequence[Sequence[Node]]) -> tuple[list[TensorType], list[dict[Node, int]]]:
    """Places for what each branch keeps, of all branches the same: types, each value's place."""
    types: list[TensorType] = []
    chosen: list[dict[Node, int]] = []
    for values in kept:
        free = list(range(len(types)))
        places: dict[Node, int] = {}
        for value in values:
            slot = next((i for i in free if types[i] == value.type), len(types))
            if slot == len(types):
                types.append(value.type)
            else:
                free.remove(slot)
            places[value] = slot
        chosen.append(places)
    return types, chosen


def _kept_by_branches(
    node: Node,
    slots: Sequence[TensorType],
    chosen: Sequence[Mapping[Node, int]],
    trace: Trace,
    zeros: Zeros,
) -> list[TracedArray]:
    """What the branch that runs keeps, by a branch on the same operands; zeros in other places."""
    index = TracedArray(node.inputs[0], trace)
    graphs = []
    for branch, values in zip(node["branches"], chosen, strict=True):
        outputs = [zeros(type, index).node for type in slots]
        for value, slot in values.items():
            outputs[slot] = value
        graphs.append(Graph(branch.inputs, tuple(outputs), sources=branch.sources))
    packed = TracedArray(node_of(control.switch, node.inputs, {"branches": tuple(graphs)}), trace)
    trace.record(packed.node)
    return control.items(packed, slots)


def merge_switches(graph: Graph) -> Graph:
    """One switch for those of the same operands: of one and what `switch_vjp` has it keep."""
    families: dict[Any, list[Node]] = {}
    for node in graph.operations:
        if node.op is control.switch:
            parameters = tuple(branch.inputs for branch in node["branches"])
            families.setdefault((node.inputs, parameters), []).append(node)
    merged: dict[Node, tuple[Node, int]] = {}  # the new node, and the number of its first result
    for nodes in families.values():
        if len(nodes) > 1:
            branches = tuple(
                Graph(
                    parts[0].inputs,
                    tuple(output for part in parts for output in part.outputs),
                    sources={node: s for part in parts for node, s in part.sources.items()},
                )
                for parts in zip(*(node["branches"] for node in nodes), strict=True)
            )
            whole = node_of(control.switch, nodes[0].inputs, {"branches": branches})
            first = 0
            for node in nodes:
                merged[node] = whole, first
                first += len(node["branches"][0].outputs)
    if not merged:
        return graph

    def moved(node: Node, inputs: tuple[Node, ...]) -> Node:
        if node in merged:
            return rebuilt(merged[node][0], inputs)
        if node.op is control.item and node.inputs[0] in merged:
            return result(inputs[0], merged[node.inputs[0]][1] + number_of(node))
        return rebuilt(node, inputs)

    return rebuild(graph, moved)


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
    number = number_of(node)
    carries = old["carries"]
    if number >= carries:
        value = old["body"].outputs[number]
        number = carries + new["body"].outputs[carries:].index(value)
    return result(inputs[0], number)
