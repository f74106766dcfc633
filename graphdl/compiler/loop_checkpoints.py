"""Long loops under a memory budget: runs of steps become regions that the way back computes anew.

What a gradient keeps of n steps is n rows. Instead the loop becomes a loop of runs of steps, of
which each is a checkpoint (graphdl.compiler.checkpoint): kept are the carries before each run, and
while the way back is in a run, the rows of its steps. Where both together are still too much, the
runs are made of runs in turn: with one level, memory grows as the square root of n for one more
computation of each step, with k levels as its root number k + 1 for k more. (The optimal schedules
for a fixed number of checkpoints are binomial: A. Griewank and A. Walther, Algorithm 799: revolve,
ACM TOMS 26, 2000. Those are not loops of loops, and gain less than a factor of two over this.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakSet

import numpy as np

from graphdl.compiler.checkpoint import substituted
from graphdl.compiler.close import closed
from graphdl.compiler.step_gradients import Cotangents, Vjp
from graphdl.graph import Graph, Node
from graphdl.ops import control, movement
from graphdl.ops.control import Sweep
from graphdl.ops.op import node_of
from graphdl.tracing import Trace, TracedArray, new_placeholder
from graphdl.types import TensorType

_INDEX = TensorType(np.dtype(np.int64), ())


#: The bodies of while loops of runs, and of the runs: they are not split again.
_split: WeakSet[Graph] = WeakSet()


def is_in_runs(body: Graph) -> bool:
    return body in _split


def run_length(length: int, row: int, carry: int, budget: int) -> int | None:
    """How many steps a run has; None where nothing is gained by runs.

    `row` and `carry` are the bytes kept of a step, and those of the carries.
    """
    if length * row <= budget or length < 4:
        return None
    half = budget // 2
    runs = -(-length // max(1, half // row))
    most = max(2, half // max(carry, 1))
    return max(2, -(-length // min(runs, most, length // 2)))


def carry_bytes(body: Graph, carries: int) -> int:
    return sum(node.type.nbytes for node in body.outputs[:carries])


def checkpointed_vjp(
    node: Node,
    given: Cotangents,
    wanted: Sequence[bool],
    trace: Trace,
    vjp: Vjp,
    build: Callable[[Node, Sequence[TracedArray], Trace], Sequence[TracedArray]],
) -> list[TracedArray | None]:
    """The cotangents of a loop's operands through `build`, which computes the loop otherwise.

    Inside of runs half of the budget is left.
    """
    trace.sources.update(source for b in control.bodies_of(node) for source in b.sources.items())
    stands = [new_placeholder(operand.type, trace) for operand in node.inputs]
    results = build(node, stands, trace)
    sought = [i for i, x in enumerate(stands) if wanted[i] and x.type.is_float]
    budget = trace.memory_budget
    trace.memory_budget = None if budget is None else budget // 2
    try:
        parts = vjp([results[k] for k in given], list(given.values()), [stands[i] for i in sought])
    finally:
        trace.memory_budget = budget
    new = {stand.node: operand for stand, operand in zip(stands, node.inputs, strict=True)}
    found = substituted([part.node for part in parts], new, trace.sources)
    cotangents: list[TracedArray | None] = [None] * len(stands)
    for i, value in zip(sought, found, strict=True):
        cotangents[i] = TracedArray(value, trace)
    return cotangents


def _packed(op: Any, operands: Sequence[TracedArray], attrs: dict[str, Any], trace: Trace) -> Any:
    made = TracedArray(node_of(op, [x.node for x in operands], attrs), trace)
    trace.record(made.node)
    return control.items(made, control.result_types(made.node))


def _region(inputs: Sequence[TracedArray], outputs: Sequence[TracedArray], trace: Trace) -> Any:
    """The outputs as a function of the inputs, in a checkpoint, of inputs of its own."""
    body, _ = closed([x.node for x in outputs], [x.node for x in inputs], trace)
    own = [new_placeholder(x.type, trace) for x in inputs]
    results = _packed(control.checkpoint, own, {"body": body}, trace)
    return closed([x.node for x in results], [x.node for x in own], trace)[0]


def scan_in_runs(
    run: int,
) -> Callable[[Node, Sequence[TracedArray], Trace], Sequence[TracedArray]]:
    """Builds a scan as one of runs of so many steps, and the rest of them."""

    def build(node: Node, operands: Sequence[TracedArray], trace: Trace) -> list[TracedArray]:
        carries, length, reverse = node["carries"], node["length"], node["reverse"]
        first_x = node["consts"] + carries
        count = length // run
        rest = length - count * run
        attrs = dict(node.attrs)
        # a loop that goes back begins with the last rows
        start, other = (rest, 0) if reverse else (0, count * run)
        inside = [new_placeholder(x.type, trace) for x in operands[:first_x]]
        inside += [
            new_placeholder(TensorType(x.dtype, (run, *x.shape[1:])), trace)
            for x in operands[first_x:]
        ]
        steps = _packed(control.scan, inside, {**attrs, "length": run}, trace)
        region = _region(inside, steps, trace)
        xs = [
            movement.reshape(_rows(x, start, count * run), shape=(count, run, *x.shape[1:]))
            for x in operands[first_x:]
        ]
        whole = {**attrs, "body": region, "length": count}
        results = _packed(control.scan, [*operands[:first_x], *xs], whole, trace)
        ys = [movement.reshape(y, shape=(count * run, *y.shape[2:])) for y in results[carries:]]
        if not rest:
            return [*results[:carries], *ys]
        left = [*operands[: node["consts"]], *results[:carries]]
        left += [_rows(x, other, rest) for x in operands[first_x:]]
        last = _packed(control.scan, left, {**attrs, "length": rest}, trace)
        pairs = zip(ys, last[carries:], strict=True)
        ordered = [(b, a) if reverse else (a, b) for a, b in pairs]
        return [*last[:carries], *(movement.concatenate(*pair, axis=0) for pair in ordered)]

    return build


def _rows(x: TracedArray, start: int, count: int) -> Any:
    if count == x.shape[0]:
        return x
    zeros = (0,) * (x.ndim - 1)
    return movement.slice_(
        x, starts=(start, *zeros), sizes=(count, *x.shape[1:]), steps=(1,) * x.ndim
    )


def while_in_runs(
    run: int,
) -> Callable[[Node, Sequence[TracedArray], Trace], Sequence[TracedArray]]:
    """Builds a while loop as one of runs, each a while loop of at most so many steps."""

    def build(node: Node, operands: Sequence[TracedArray], trace: Trace) -> list[TracedArray]:
        condition, reads = node["condition"], node["condition_consts"]
        (sweep,) = node["sweeps"]
        inside = [new_placeholder(x.type, trace) for x in operands]
        carry = inside[reads + sweep.consts :]
        count: Any = new_placeholder(_INDEX, trace)
        stands = dict(zip(condition.inputs, (*inside[:reads], *carry), strict=True))
        nodes = {old: new.node for old, new in stands.items()}
        going = TracedArray(substituted(condition.outputs, nodes, trace.sources)[0], trace)
        more: Any = (count < run) & going
        test, _ = closed([more.node], [x.node for x in (*inside[:reads], count, *carry)], trace)
        following: Any = count + 1
        stepped = substituted(
            sweep.body.outputs,
            dict(zip(sweep.body.inputs, (x.node for x in inside[reads:]), strict=True)),
            trace.sources,
        )
        parameters = [*inside[reads : reads + sweep.consts], count, *carry]
        body, _ = closed([following.node, *stepped], [x.node for x in parameters], trace)
        zero = TracedArray(node_of(movement.constant, (), movement.literal(np.int64(0))), trace)
        attrs = {"condition": test, "condition_consts": reads}
        inner = {**attrs, "sweeps": (Sweep(body, sweep.consts, 1 + sweep.carries),)}
        first = [*inside[: reads + sweep.consts], zero, *carry]
        steps = _packed(control.while_, first, inner, trace)[1:]
        region = _region(inside, steps, trace)
        _split.update((body, region))
        outer = {
            "condition": condition,
            "condition_consts": reads,
            "sweeps": (Sweep(region, reads + sweep.consts, sweep.carries),),
        }
        return list(_packed(control.while_, [*operands[:reads], *operands], outer, trace))

    return build
