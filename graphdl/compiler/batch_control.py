"""Loops and branches for a whole batch: the same loop or branch, around a batched body.

A carry, a result or a branch's operand is batched only where it has to be. Where the examples
disagree (on which branch to take, on when to stop) each step computes for all of them and keeps the
results of those that take part. The others meanwhile compute what an example does that takes part,
so that none meets an index out of bounds, a division by zero or an endless loop of its own; their
gradient is zero, not NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from graphdl.compiler.close import closed
from graphdl.graph import Graph, Node
from graphdl.ops import control, indexing, movement, pointwise
from graphdl.ops.control import Stream, Sweep
from graphdl.ops.op import Op, node_of
from graphdl.tracing import Trace, TracedArray, broadcast_to, new_placeholder
from graphdl.types import TensorType

#: A value, and whether it is batched: then it has one axis more, in front.
Operand = tuple[Any, bool]
#: (outputs, given, size, trace) -> the outputs for a batch: graphdl.compiler.batch.batched.
Batched = Callable[[Sequence[Node], Mapping[Node, Operand], int, Trace], list[Operand]]

_INDEX = np.dtype(np.int64)


def batched_control(
    node: Node, operands: Sequence[Operand], size: int, trace: Trace, batched: Batched
) -> list[Operand]:
    """All results of a loop or branch for a batch."""
    return _RULES[node.op.name](node, operands, _Batch(size, trace, batched))


class _Batch:
    """A batch: its size, the trace that it is made in, and how its pieces are made."""

    def __init__(self, size: int, trace: Trace, batched: Batched) -> None:
        self.size, self.trace, self._batched = size, trace, batched

    def parameter(self, type: TensorType, flag: bool) -> TracedArray:
        """A placeholder of a value, or of a batch of such values."""
        shape = (self.size, *type.shape) if flag else type.shape
        return new_placeholder(TensorType(type.dtype, shape), self.trace)

    def apply(self, graph: Graph, values: Sequence[Operand]) -> list[Operand]:
        """The outputs of a body for these inputs."""
        self.trace.sources.update(graph.sources)
        given = dict(zip(graph.inputs, values, strict=True))
        return self._batched(graph.outputs, given, self.size, self.trace)

    def parameters(self, inputs: Sequence[Node], flags: Sequence[bool]) -> list[TracedArray]:
        return [self.parameter(x.type, flag) for x, flag in zip(inputs, flags, strict=True)]

    def spread(self, operand: Operand) -> Any:
        """A value as a batch."""
        value, flag = operand
        return value if flag else broadcast_to(value, (self.size, *value.shape))

    def fitted(self, operand: Operand, flag: bool) -> Any:
        return self.spread(operand) if flag else operand[0]

    def all_fitted(self, operands: Sequence[Operand], flags: Sequence[bool]) -> list[Any]:
        return [self.fitted(operand, flag) for operand, flag in zip(operands, flags, strict=False)]

    def run(
        self, op: Op, operands: Sequence[TracedArray], attrs: dict[str, Any]
    ) -> list[TracedArray]:
        """The results of a loop or branch."""
        packed = TracedArray(node_of(op, [x.node for x in operands], attrs), self.trace)
        self.trace.record(packed.node)
        return control.items(packed, control.result_types(packed.node))

    def closed(
        self, outputs: Sequence[TracedArray], inputs: Sequence[TracedArray]
    ) -> tuple[Graph, list[TracedArray]]:
        graph, outer = closed([x.node for x in outputs], [x.node for x in inputs], self.trace)
        return graph, [TracedArray(node, self.trace) for node in outer]

    def chosen(self, mask: Any, x: Any, y: Any) -> Any:
        """x for the examples in the mask, y for the others."""
        return np.where(np.reshape(mask, (self.size,) + (1,) * (x.ndim - 1)), x, y)

    def participating(self, mask: Any, x: Any) -> Any:
        """x, and for examples that are not in the mask what the first one has that is in it."""
        first = indexing.gather(x, np.argmax(mask).astype(_INDEX))
        if first.type.is_inexact:
            first = pointwise.stop_gradient(first)
        return self.chosen(mask, x, broadcast_to(first, x.shape))


class _Step(Struct):
    """The body of a loop for a batch: its parameters, which of them are batched, and its results.

    A result is spread where the carry is batched that it is to be.
    """

    parameters: list[TracedArray]
    flags: list[bool]
    results: list[Operand]


def _step(body: Graph, consts: int, carries: int, flags: Sequence[bool], batch: _Batch) -> _Step:
    """The body, with the carries batched that have to be because others are."""
    flags = list(flags)
    while True:
        parameters = batch.parameters(body.inputs, flags)
        results = batch.apply(body, list(zip(parameters, flags, strict=True)))
        wider = [k for k in range(carries) if results[k][1] and not flags[consts + k]]
        if not wider:
            break
        for k in wider:
            flags[consts + k] = True
    carried = flags[consts : consts + carries]
    fitted = [
        (batch.fitted(result, flag), flag) for result, flag in zip(results, carried, strict=False)
    ]
    return _Step(parameters, flags, [*fitted, *results[carries:]])


def _scan(node: Node, operands: Sequence[Operand], batch: _Batch) -> list[Operand]:
    consts, carries = node["consts"], node["carries"]
    step = _step(node["body"], consts, carries, [flag for _, flag in operands], batch)
    graph, outer = batch.closed([value for value, _ in step.results], step.parameters)
    values = batch.all_fitted(operands, step.flags)
    first_x = consts + carries
    stacked = [
        _swapped(value) if flag else value
        for value, flag in zip(values[first_x:], step.flags[first_x:], strict=True)
    ]
    attrs = dict(node.attrs) | {"body": graph, "consts": len(outer) + consts}
    found = batch.run(control.scan, [*outer, *values[:first_x], *stacked], attrs)
    kept = [flag for _, flag in step.results]
    return [
        (_swapped(value) if flag and k >= carries else value, flag)
        for k, (value, flag) in enumerate(zip(found, kept, strict=True))
    ]


def _swapped(x: Any) -> Any:
    """The axes of steps and of examples in the other order."""
    return movement.transpose(x, perm=(1, 0, *range(2, x.ndim)))


def _while(node: Node, operands: Sequence[Operand], batch: _Batch) -> list[Operand]:
    reads = node["condition_consts"]
    seen = operands[:reads]
    loops: list[tuple[Sweep, Sequence[Operand]]] = []
    rest = operands[reads:]
    for sweep in node["sweeps"]:
        loops.append((sweep, rest[: sweep.operands]))
        rest = rest[sweep.operands :]
    first, own = loops[0]
    step = _step(first.body, first.consts, first.carries, [flag for _, flag in own], batch)
    flags = [*(flag for _, flag in seen), *step.flags[first.consts :]]
    parameters = batch.parameters(node["condition"].inputs, flags)
    (test,) = batch.apply(node["condition"], list(zip(parameters, flags, strict=True)))
    if test[1]:
        return _masked_while(node["condition"], seen, loops, batch)
    tests, outer = batch.closed([test[0]], parameters)
    values = [*outer, *(value for value, _ in seen)]
    attrs: dict[str, Any] = {"condition": tests, "condition_consts": len(values)}
    sweeps: list[Sweep] = []
    kept: dict[Stream, bool] = {}
    results: list[bool] = []
    for number, (sweep, own) in enumerate(loops):
        flags = [*(flag for _, flag in own), *(kept[stream] for stream in sweep.reads)]
        step = _step(sweep.body, sweep.consts, sweep.carries, flags, batch)
        graph, outer = batch.closed([value for value, _ in step.results], step.parameters)
        values += [*outer, *batch.all_fitted(own, step.flags)]
        sweeps.append(replace(sweep, body=graph, consts=len(outer) + sweep.consts))
        after = [flag for _, flag in step.results]
        results += after[: sweep.carries]
        kept |= {(number, j): flag for j, flag in enumerate(after[sweep.carries :])}
    found = batch.run(control.while_, values, {**attrs, "sweeps": tuple(sweeps)})
    return list(zip(found, results, strict=True))


def _masked_while(
    condition: Graph,
    seen: Sequence[Operand],
    loops: Sequence[tuple[Sweep, Sequence[Operand]]],
    batch: _Batch,
) -> list[Operand]:
    """A loop that runs until the last example is done.

    An example that is done computes its first step anew, or, if it takes none, that of one that
    does. The condition of the next step is a carry, and kept for the sweeps that follow.
    """

    def tested(carry: Sequence[Any]) -> Any:
        (test,) = batch.apply(condition, [*seen, *((x, True) for x in carry)])
        return batch.spread(test)

    ready = tested([batch.spread(x) for x in loops[0][1][loops[0][0].consts :]])
    sweeps: list[Sweep] = []
    values: list[Any] = []
    kept: dict[Stream, Operand] = {}
    for number, (sweep, own) in enumerate(loops):
        consts = [
            (batch.participating(ready, x) if flag else x, flag) for x, flag in own[: sweep.consts]
        ]
        starts = [batch.spread(x) for x in own[sweep.consts :]]
        going = batch.parameter(ready.type, False)
        carry = [batch.parameter(x.type, False) for x in starts]
        reads = [batch.parameter(kept[stream][0].type, False) for stream in sweep.reads]
        inner = carry
        if number == 0:
            safe = [batch.participating(ready, x) for x in starts]
            inner = [batch.chosen(going, x, y) for x, y in zip(carry, safe, strict=True)]
        read = [(x, kept[stream][1]) for x, stream in zip(reads, sweep.reads, strict=True)]
        results = batch.apply(sweep.body, [*consts, *((x, True) for x in inner), *read])
        after = [
            batch.chosen(going, batch.spread(new), old)
            for new, old in zip(results, carry, strict=False)
        ]
        keeps = results[sweep.carries :]
        kept |= {(number, j): keep for j, keep in enumerate(keeps)}
        if number == 0:
            outputs = [going & tested(after), *after, *(x for x, _ in keeps), going]
            parameters, streams = [going, *carry], sweep.reads
            starts = [ready, *starts]
            mask: Stream = 0, len(keeps)
            ongoing: Any = np.any(going)
            tests, reading = batch.closed([ongoing], parameters)
        else:
            outputs = [*after, *(x for x, _ in keeps)]
            parameters, streams = [*carry, *reads, going], (*sweep.reads, mask)
        graph, outer = batch.closed(outputs, parameters)
        values += [*outer, *starts]
        sweeps.append(Sweep(graph, len(outer), len(starts), streams, sweep.reverse))
    if len(sweeps) == 1:  # nothing reads the mask
        body = sweeps[0].body
        bare = Graph(body.inputs, body.outputs[:-1], sources=body.sources)
        sweeps[0] = replace(sweeps[0], body=bare)
    attrs = {"condition": tests, "condition_consts": len(reading), "sweeps": tuple(sweeps)}
    found = batch.run(control.while_, [*reading, *values], attrs)
    return [(value, True) for value in found[1:]]


def _switch(node: Node, operands: Sequence[Operand], batch: _Batch) -> list[Operand]:
    branches: tuple[Graph, ...] = node["branches"]
    (index, differs), *rest = operands
    if differs:
        return _chosen_switch(branches, index, rest, batch)
    flags = [flag for _, flag in rest]
    parameters = batch.parameters(branches[0].inputs, flags)
    given = list(zip(parameters, flags, strict=True))
    results = [batch.apply(branch, given) for branch in branches]
    kept = [any(flag for _, flag in every) for every in zip(*results, strict=True)]
    outputs = [
        batch.fitted(operand, flag)
        for found in results
        for operand, flag in zip(found, kept, strict=True)
    ]
    graphs, outer = _parts(batch, outputs, parameters, len(kept))
    values = [index, *outer, *(value for value, _ in rest)]
    found = batch.run(control.switch, values, {"branches": graphs})
    return list(zip(found, kept, strict=True))


def _parts(
    batch: _Batch, outputs: Sequence[Any], parameters: Sequence[Any], count: int
) -> tuple[tuple[Graph, ...], list[TracedArray]]:
    """Branches of `count` outputs each, which take the same operands."""
    whole, outer = batch.closed(outputs, parameters)
    graphs = tuple(
        Graph(whole.inputs, whole.outputs[i : i + count], sources=whole.sources)
        for i in range(0, len(outputs), count)
    )
    return graphs, outer


def _chosen_switch(
    branches: Sequence[Graph], index: Any, operands: Sequence[Operand], batch: _Batch
) -> list[Operand]:
    """Each branch for all examples, if any takes it; each example keeps what its branch gave."""
    wanted = np.clip(index, 0, len(branches) - 1)
    results: list[Any] | None = None
    for number, branch in enumerate(branches):
        mask = wanted == number
        found = _if_any(branch, mask, operands, batch)
        if results is None:
            results = found
        else:
            results = [batch.chosen(mask, x, y) for x, y in zip(found, results, strict=True)]
    return [(value, True) for value in results or ()]


def _if_any(branch: Graph, mask: Any, operands: Sequence[Operand], batch: _Batch) -> list[Any]:
    """The results of a branch for the examples in the mask, zeros if there is none."""
    flags = [flag for _, flag in operands]
    values = [mask, *(value for value, _ in operands)]
    parameters = [batch.parameter(x.type, False) for x in values]
    given = [
        (batch.participating(parameters[0], x) if flag else x, flag)
        for x, flag in zip(parameters[1:], flags, strict=True)
    ]
    taken = [batch.spread(result) for result in batch.apply(branch, given)]
    skipped = [np.zeros_like(x) for x in taken]
    graphs, outer = _parts(batch, [*skipped, *taken], parameters, len(taken))
    number: Any = np.any(mask).astype(_INDEX)
    return batch.run(control.switch, [number, *outer, *values], {"branches": graphs})


def _checkpoint(node: Node, operands: Sequence[Operand], batch: _Batch) -> list[Operand]:
    body: Graph = node["body"]
    flags = [flag for _, flag in operands]
    parameters = [batch.parameter(x.type, flag) for x, flag in zip(body.inputs, flags, strict=True)]
    results = batch.apply(body, list(zip(parameters, flags, strict=True)))
    graph, outer = batch.closed([value for value, _ in results], parameters)
    values = [*outer, *(value for value, _ in operands)]
    found = batch.run(control.checkpoint, values, {"body": graph})
    return list(zip(found, [flag for _, flag in results], strict=True))


_RULES: dict[str, Callable[[Node, Sequence[Operand], _Batch], list[Operand]]] = {
    control.scan.name: _scan,
    control.while_.name: _while,
    control.switch.name: _switch,
    control.checkpoint.name: _checkpoint,
}
