"""Gradients of while loops: the steps anew, each keeping what the way back needs, then back.

How many steps there are is known only when the program runs. So what they keep is no array of the
graph but memory inside of the one op, which grows with the steps: a while loop, and more sweeps
over its steps. The gradient of sweeps is more sweeps, one back over each, the last first: so this
goes to any order, and forward mode, the gradient of a gradient, is a sweep forth.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from msgspec import Struct
from msgspec.structs import replace

from graphdl.compiler.loop_checkpoints import checkpointed_vjp, is_in_runs, while_in_runs
from graphdl.compiler.step_gradients import (
    Cotangents,
    StepBack,
    Vjp,
    Zeros,
    active_in_loop,
    step_back,
)
from graphdl.graph import Graph, Node
from graphdl.ops import control
from graphdl.ops.control import Stream, Sweep
from graphdl.tracing import Trace, TracedArray


class Loop(Struct, frozen=True):
    """A sweep with its operands."""

    sweep: Sweep
    operands: tuple[Node, ...]

    def keeping(self, values: Sequence[Node]) -> Loop:
        """The loop that keeps these values of each step, too."""
        body, kept = self.sweep.body, self.kept
        missing = [value for value in dict.fromkeys(values) if value not in kept]
        longer = Graph(body.inputs, (*body.outputs, *missing), sources=body.sources)
        return replace(self, sweep=replace(self.sweep, body=longer))

    @property
    def kept(self) -> tuple[Node, ...]:
        return self.sweep.body.outputs[self.sweep.carries :]


def loops_of(node: Node) -> list[Loop]:
    """The sweeps of a while node."""
    operands = node.inputs[node["condition_consts"] :]
    found = []
    for sweep in node["sweeps"]:
        found.append(Loop(sweep, operands[: sweep.operands]))
        operands = operands[sweep.operands :]
    return found


def while_vjp(
    node: Node,
    given: Cotangents,
    wanted: Sequence[bool],
    trace: Trace,
    vjp: Vjp,
    zeros: Zeros,
) -> list[TracedArray | None]:
    """The cotangents of the operands of a while node.

    A memory budget holds for what a loop keeps at first order: what it keeps of a run of steps.
    """
    reads = node["condition_consts"]
    loops = loops_of(node)
    chain = _Chain(loops, wanted[reads:], trace, vjp, zeros)
    results = len(control.result_types(node))
    for number in reversed(range(len(loops))):
        end, results = results, results - loops[number].sweep.carries
        own = {k - results: g for k, g in given.items() if results <= k < end}
        chain.back(number, own)
    row = control.offsets(chain.loops[0].sweep.kept_types)[-1]
    may = row > 0 and len(loops) == 1 and not is_in_runs(loops[0].sweep.body)
    if trace.memory_budget is not None and may:
        run = max(2, trace.memory_budget // (4 * row))  # half of the budget, as memory doubles
        return checkpointed_vjp(node, given, wanted, trace, vjp, while_in_runs(run))
    operands: list[TracedArray | None] = [None] * reads
    found = chain.cotangents(node)
    for number, loop in enumerate(loops):
        operands += [found.get((number, i)) for i in range(len(loop.operands))]
    return operands


class _Chain:
    """The chain rule through the sweeps of a node, from the last to the first."""

    def __init__(
        self, loops: Sequence[Loop], wanted: Sequence[bool], trace: Trace, vjp: Vjp, zeros: Zeros
    ) -> None:
        self.trace, self.vjp, self.zeros = trace, vjp, zeros
        self.loops = list(loops)
        self.wanted: list[Sequence[bool]] = []
        self.active: list[set[Node]] = []
        for loop in loops:
            own, wanted = wanted[: len(loop.operands)], wanted[len(loop.operands) :]
            rows = [self._kept(stream) in self.active[stream[0]] for stream in loop.sweep.reads]
            body, consts, carries = loop.sweep.body, loop.sweep.consts, loop.sweep.carries
            self.wanted.append(own)
            self.active.append(active_in_loop(body, consts, carries, [*own, *rows]))
        #: The streams that add up to the cotangents of a stream, and the sweep back over a sweep.
        self.pieces: dict[Stream, list[Stream]] = {}
        self.backs: dict[int, tuple[int, StepBack]] = {}

    def _kept(self, stream: Stream) -> Node:
        return self.loops[stream[0]].kept[stream[1]]

    def back(self, number: int, given: Cotangents) -> None:
        """Add the sweep back over this sweep; `given` are the cotangents of its last carries."""
        loop, active = self.loops[number], self.active[number]
        sweep, body = loop.sweep, loop.sweep.body
        pieces = {
            sweep.carries + j: found
            for (i, j), found in self.pieces.items()
            if i == number and self._kept((i, j)) in active
        }
        if not pieces and not given:
            return
        counts = {k: len(found) for k, found in pieces.items()}
        back = step_back(body, sweep.consts, sweep.carries, active, counts, self.trace, self.vjp)
        read = dict(zip(body.inputs[sweep.operands :], sweep.reads, strict=True))
        loop = loop.keeping([value for value in back.varying if value not in read])
        self.loops[number] = loop
        anchor = TracedArray(self.loops[0].operands[-1], self.trace)
        carries = [self.zeros(body.inputs[i].type, anchor) for i in back.fixed]
        carries += [
            given[k] if k in given else self.zeros(body.outputs[k].type, anchor)
            for k in back.carried
        ]
        reads = [stream for found in pieces.values() for stream in found]
        reads += [
            read[value] if value in read else (number, loop.kept.index(value))
            for value in back.varying
        ]
        consts = [*back.outer, *(loop.operands[i] for i in back.own)]
        made = Sweep(back.body, len(consts), len(carries), tuple(reads), not sweep.reverse)
        at = len(self.loops)
        self.backs[number] = at, back
        for j, i in enumerate(back.rows):
            self.pieces.setdefault(sweep.reads[i - sweep.operands], []).append((at, j))
        self.loops.append(Loop(made, (*consts, *(value.node for value in carries))))

    def cotangents(self, node: Node) -> dict[tuple[int, int], TracedArray]:
        """The cotangents of the operands, by sweep and number."""
        places = {
            number: [*back.fixed, *(self.loops[number].sweep.consts + k for k in back.carried)]
            for number, (_, back) in self.backs.items()
        }
        sought = {
            at
            for number, (at, _) in self.backs.items()
            if any(self.wanted[number][i] for i in places[number])
        }
        new = _needed(self.loops, sought)
        loops = _without_the_rest(self.loops, new)
        operands = [
            *node.inputs[: node["condition_consts"]],
            *(operand for loop in loops for operand in loop.operands),
        ]
        attrs = {
            "condition": node["condition"],
            "condition_consts": node["condition_consts"],
            "sweeps": tuple(loop.sweep for loop in loops),
        }
        values = [TracedArray(operand, self.trace) for operand in operands]
        packed = values[0].apply_op(control.while_, tuple(values), attrs)
        results = control.items(packed, control.result_types(packed.node))
        starts = [0]
        for loop in loops:
            starts.append(starts[-1] + loop.sweep.carries)
        return {
            (number, i): results[starts[new[at]] + k]
            for number, (at, _) in self.backs.items()
            if at in sought
            for k, i in enumerate(places[number])
        }


def _needed(loops: Sequence[Loop], sought: Collection[int]) -> dict[int, int]:
    """The sweeps that the sought ones need, and their numbers among those."""
    needed = {0, *sought}
    for number in reversed(range(len(loops))):
        if number in needed:
            needed.update(i for i, _ in loops[number].sweep.reads)
    return {number: i for i, number in enumerate(sorted(needed))}


def _without_the_rest(loops: Sequence[Loop], new: dict[int, int]) -> list[Loop]:
    """The needed sweeps, renumbered; they keep only what one of them reads."""
    read = {stream for number in new for stream in loops[number].sweep.reads}
    kept = {
        number: [j for j in range(len(loops[number].kept)) if (number, j) in read] for number in new
    }
    result = []
    for number in new:
        sweep, body = loops[number].sweep, loops[number].sweep.body
        outputs = body.outputs[: sweep.carries]
        outputs += tuple(loops[number].kept[j] for j in kept[number])
        reads = tuple((new[i], kept[i].index(j)) for i, j in sweep.reads)
        less = Graph(body.inputs, outputs, sources=body.sources)
        result.append(replace(loops[number], sweep=replace(sweep, body=less, reads=reads)))
    return result
