"""The chain rule as a pass over the graph: reverse mode.

The backward pass is ordinary graph: each node's rule (`Op.vjp`) is run on traced values, so the
result is one joint graph with the forward nodes that it shares, and can be differentiated again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from msgspec.structs import replace

from graphdl.compiler.checkpoint import checkpoint_vjp
from graphdl.compiler.loop_gradients import scan_vjp, switch_vjp
from graphdl.compiler.quiet import quiet
from graphdl.compiler.rewrite import credit, simplified
from graphdl.compiler.stability import with_constant_maxima
from graphdl.compiler.step_gradients import depending
from graphdl.compiler.while_gradients import while_vjp
from graphdl.errors import GradientError, GraphError
from graphdl.graph import Node, Source, topological
from graphdl.ops import control, movement, pointwise
from graphdl.tracing import Trace, TracedArray, as_traced, broadcast_to, locate
from graphdl.types import TensorType


def vjp(
    outputs: Sequence[TracedArray],
    cotangents: Sequence[TracedArray],
    variables: Sequence[TracedArray],
) -> list[TracedArray]:
    """The cotangents of `variables`, given those of `outputs`; zeros where nothing depends."""
    trace = (*outputs, *variables)[0].owner
    sought = {value.node for value in variables}
    # stability first: the derivative of log(1 + exp(x)) as written overflows, that of softplus not
    new, lines = simplified((value.node for value in outputs), sought, trace.sources)
    trace.sources.update(lines)
    stable = with_constant_maxima((new[value.node] for value in outputs), sought)
    for node, made in stable.items():
        if made is not node and node in trace.sources:
            trace.sources.setdefault(made, trace.sources[node])
            credit(made, trace.sources[node], trace.sources, sought)
    outputs = [TracedArray(stable[new[value.node]], trace) for value in outputs]
    order = topological(value.node for value in outputs)
    active = depending(order, sought)
    total: dict[Node, TracedArray] = {}
    for output, cotangent in zip(outputs, cotangents, strict=True):
        _accumulate(total, output.node, cotangent)
    found: dict[Node, TracedArray] = {}
    packed: dict[Node, dict[int, TracedArray]] = {}  # of several results: by the number of each
    for node in reversed(order):
        if node in packed:
            given = packed.pop(node)
            with trace.at(_backward(trace.sources.get(node))):
                if node.op.results is not None:
                    pulled = _pulled(node, given, trace)
                else:
                    wanted = [operand in active for operand in node.inputs]
                    rule = _CONTROL[node.op.name]
                    pulled = rule(quiet(node), given, wanted, trace, vjp, zeros)
                _accumulate_all(total, node, pulled, active)
            continue
        cotangent_of_node = total.pop(node, None)
        if cotangent_of_node is None:
            continue
        _mark(cotangent_of_node.node, node, trace, node in sought)
        if node in sought:
            found[node] = cotangent_of_node
        if node not in active or not node.inputs:
            continue
        if node.op is control.item:
            operation = node.inputs[0]
            starts = control.offsets(control.result_types(operation))
            by_number = packed.setdefault(operation, {})
            _accumulate(by_number, starts.index(node["offset"]), cotangent_of_node)
            continue
        if node.op.vjp is None:
            raise _no_gradient(node, trace)
        for position, why in node.op.undifferentiated.items():
            if node.inputs[position] in active:
                raise _no_gradient(node, trace, f" by operand {position}", why)
        operands = [TracedArray(operand, trace) for operand in node.inputs]
        with trace.at(_backward(trace.sources.get(node))):
            parts = node.op.vjp(
                cotangent_of_node, TracedArray(node, trace), *operands, **dict(node.attrs)
            )
            _accumulate_all(total, node, parts, active)
    return [
        found[value.node] if value.node in found else zeros(value.node.type, value)
        for value in variables
    ]


def _backward(source: Source | None) -> Source | None:
    """What the nodes come from that the gradient rule of a node with this source makes."""
    if source is None:
        return None
    return Source(source.file, source.line, source.function, source.scopes, pulled=source)


def _mark(cotangent: Node, node: Node, trace: Trace, sought: bool) -> None:
    """Write down what a node of the backward pass is the gradient of.

    One gradient can belong to several nodes, as to both operands of an addition: then the variables
    that were asked for go first.
    """
    source = trace.sources.get(cotangent)
    if source is not None and source.pulled is not None and (sought or source.gradient_of is None):
        trace.sources[cotangent] = replace(source, gradient_of=node)


def _no_gradient(node: Node, trace: Trace, by: str = "", why: str = "") -> GraphError:
    return locate(
        GradientError(
            f"{node.op.name} has no gradient{by} ({why or node.op.no_gradient}); "
            f"wrap its argument in gd.stop_gradient if that is meant"
        ),
        trace.sources.get(node),
    )


def _pulled(
    node: Node, given: dict[int, TracedArray], trace: Trace
) -> Sequence[TracedArray | None]:
    """The cotangents of the operands of an op with several results."""
    if node.op.vjp is None:
        raise _no_gradient(node, trace)
    outs = control.items(TracedArray(node, trace), control.result_types(node))
    operands = [TracedArray(operand, trace) for operand in node.inputs]
    cotangents = [given.get(number) for number in range(len(outs))]
    return node.op.vjp(cotangents, outs, *operands, **dict(node.attrs))


_CONTROL: dict[str, Callable[..., Sequence[TracedArray | None]]] = {
    control.scan.name: scan_vjp,
    control.while_.name: while_vjp,
    control.switch.name: switch_vjp,
    control.checkpoint.name: checkpoint_vjp,
}


def _accumulate_all(
    total: dict[Node, TracedArray],
    node: Node,
    parts: Sequence[TracedArray | None],
    active: set[Node],
) -> None:
    """Add what a rule gave for the operands of a node."""
    for operand, part in zip(node.inputs, parts, strict=True):
        if part is None or operand not in active:
            continue
        if part.node.type != operand.type:
            raise GraphError(
                f"the gradient rule of {node.op.name} gave {part.node.type} for {operand.type}"
            )
        _accumulate(total, operand, part)


Key = TypeVar("Key")


def _accumulate(total: dict[Key, TracedArray], key: Key, part: TracedArray) -> None:
    if key in total:
        part = total[key].apply_op(pointwise.add, (total[key], part), {})
    total[key] = part


def zeros(type: TensorType, like: TracedArray) -> TracedArray:
    """Zeros of `type` in the trace of `like`."""
    zero = as_traced(np.zeros((), type.dtype), like.owner)
    result: TracedArray = broadcast_to(zero, type.shape)
    return result


def is_zero(node: Node) -> bool:
    """Whether a node is a constant zero."""
    while node.op is movement.broadcast:
        node = node.inputs[0]
    return node.op is movement.constant and not np.any(node["value"].array)
