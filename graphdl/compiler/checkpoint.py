"""Checkpoints: regions whose insides a gradient computes anew instead of keeping them.

A region is one node while gradients are taken. Its pull-back is that of its body, on the operands
as `movement.after` gives them: equal to the operands, but never merged with them, and not before
the cotangents of the region are there. So the values inside are computed a second time, when the
backward pass has come to them, and only the operands live in between. `inlined`, the first pass,
then puts the body where the region is, and forward the compiler sees no difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from msgspec.structs import replace

from graphdl.compiler.step_gradients import Cotangents, Vjp, Zeros
from graphdl.graph import Graph, Node, Source, topological
from graphdl.ops import control, movement
from graphdl.ops.op import node_of, rebuilt
from graphdl.tracing import Trace, TracedArray, new_placeholder


def checkpoint_vjp(
    node: Node,
    given: Cotangents,
    wanted: Sequence[bool],
    trace: Trace,
    vjp: Vjp,
    zeros: Zeros,
) -> list[TracedArray | None]:
    """The cotangents of a region's operands; `given` are those of its results, by number."""
    body: Graph = node["body"]
    trace.sources.update(body.sources)
    sought = [i for i, x in enumerate(body.inputs) if x.type.is_inexact and wanted[i]]
    seeds = [new_placeholder(body.outputs[k].type, trace) for k in given]
    parts = vjp(
        [TracedArray(body.outputs[k], trace) for k in given],
        seeds,
        [TracedArray(body.inputs[i], trace) for i in sought],
    )
    cotangents = [value.node for value in given.values()]
    new = {seed.node: cotangent for seed, cotangent in zip(seeds, cotangents, strict=True)}
    for inside, operand in zip(body.inputs, node.inputs, strict=True):
        new[inside] = node_of(movement.after, (operand, *cotangents))
    found = substituted([value.node for value in parts], new, trace.sources)
    operands: list[TracedArray | None] = [None] * len(body.inputs)
    for i, value in zip(sought, found, strict=True):
        operands[i] = TracedArray(value, trace)
    return operands


def substituted(
    outputs: Sequence[Node], new: Mapping[Node, Node], sources: dict[Node, Source]
) -> list[Node]:
    """The outputs with some of the nodes that they are made from replaced.

    `sources` gets the lines of the nodes that this makes.
    """
    done = dict(new)
    for node in topological(outputs):
        if node not in done:
            done[node] = rebuilt(node, tuple(done[operand] for operand in node.inputs))
            if node in sources:
                sources.setdefault(done[node], sources[node])
    return [done[node] for node in outputs]


#: None for a graph without regions: one that named itself here would never be freed.
_inlined: WeakKeyDictionary[Graph, Graph | None] = WeakKeyDictionary()


def inlined(graph: Graph) -> Graph:
    """The graph with the bodies of its regions in their places, in loops and branches as well.

    The same graph gives the same result, so that loops of one body stay loops of one body.
    """
    if graph not in _inlined:
        sources = dict(graph.sources)
        outputs = without_regions(graph.outputs, sources)
        unchanged = tuple(outputs) == graph.outputs
        _inlined[graph] = None if unchanged else graph.with_outputs(outputs, sources)
    return _inlined[graph] or graph


def without_regions(outputs: Sequence[Node], sources: dict[Node, Source]) -> list[Node]:
    """The outputs, made without regions; `sources` gets the lines of what was in them."""
    new: dict[Node, Node] = {}
    results: dict[Node, list[Node]] = {}  # of each region, by the node that it was
    for node in topological(outputs):
        operands = tuple(new[operand] for operand in node.inputs)
        if node.op is control.checkpoint:
            body = inlined(node["body"])
            for inner, source in body.sources.items():
                sources.setdefault(inner, source)
            inside = dict(zip(body.inputs, operands, strict=True))
            results[node] = substituted(body.outputs, inside, sources)
            new[node] = node
        elif node.op is control.item and node.inputs[0] in results:
            region = node.inputs[0]
            starts = control.offsets(control.result_types(region))
            new[node] = results[region][starts.index(node["offset"])]
        else:
            new[node] = _with_bodies(node, operands)
            if node in sources:
                sources.setdefault(new[node], sources[node])
    return [new[node] for node in outputs]


def _with_bodies(node: Node, operands: tuple[Node, ...]) -> Node:
    """The node on new operands, the bodies of a loop or branch inlined too."""
    if node.op.family != "control":
        return rebuilt(node, operands)
    attrs = {key: _inlined_value(value) for key, value in node.attrs}
    return node_of(node.op, operands, attrs)


def _inlined_value(value: Any) -> Any:
    if isinstance(value, Graph):
        return inlined(value)
    if isinstance(value, control.Sweep):
        return replace(value, body=inlined(value.body))
    if isinstance(value, tuple):
        return tuple(_inlined_value(item) for item in value)
    return value
