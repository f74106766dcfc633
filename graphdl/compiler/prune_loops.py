"""Loops without what nobody needs: results that are not read, carries that do not change.

A gradient computes, step by step, cotangents of which a caller may want one; what the others take
is not seen from outside of the loop. And a carry that a step hands on as it is would be copied at
every step, where the step could as well read the first one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from weakref import WeakKeyDictionary

from msgspec import Struct
from msgspec.structs import replace

from graphdl.compiler.loop_results import Results, number_of, replaced
from graphdl.compiler.rewrite import simplify
from graphdl.graph import Graph, Node, rebuild, topological
from graphdl.ops import control
from graphdl.ops.control import Stream, Sweep
from graphdl.ops.op import node_of, rebuilt


class _Step(Struct, frozen=True):
    """What is left of a body: inputs and outputs by their old numbers.

    A carry that does not change is one of `consts`.
    """

    body: Graph
    consts: list[int]
    carries: list[int]
    rows: list[int]
    kept: list[int]
    unchanged: set[int]


#: None for a body that is simple: one that named itself here would never be freed.
_simplified: WeakKeyDictionary[Graph, Graph | None] = WeakKeyDictionary()


def _simple(body: Graph) -> Graph:
    """The body simplified: the same one for the same body."""
    if body not in _simplified:
        simple = simplify(body)
        _simplified[body] = None if simple is body else simple
    return _simplified[body] or body


def _step(body: Graph, consts: int, carries: int, results: set[int], kept: set[int]) -> _Step:
    """The part of a body that these carries and kept values need."""
    simple = _simple(body)
    inputs, outputs = simple.inputs, simple.outputs
    unchanged = {k for k in range(carries) if outputs[k] is inputs[consts + k]}
    live = results - unchanged
    numbers = sorted(kept)
    while True:
        wanted = [outputs[k] for k in sorted(live)] + [outputs[carries + j] for j in numbers]
        needed = set(topological(wanted))
        read = {k for k in range(carries) if inputs[consts + k] in needed}
        if read - unchanged <= live:
            break
        live |= read - unchanged
    fixed = [i for i in range(consts) if inputs[i] in needed]
    fixed += [consts + k for k in sorted(unchanged & read)]
    moving = sorted(live)
    first = consts + carries
    rows = [i for i in range(first, len(inputs)) if inputs[i] in needed]
    order = [*fixed, *(consts + k for k in moving), *rows]
    less = Graph(tuple(inputs[i] for i in order), tuple(wanted), sources=simple.sources)
    if len(order) == len(inputs) and len(wanted) == len(outputs):
        less = body  # nothing to gain: the same body stays one that is known
    return _Step(less, fixed, moving, [i - first for i in rows], numbers, unchanged)


def prune(graph: Graph) -> Graph:
    """The graph with loops that compute only what is read."""
    used: dict[Node, set[int]] = {}
    for node in graph.operations:
        if node.op is control.item and node.inputs[0].op in (control.scan, control.while_):
            loop = node.inputs[0]
            used.setdefault(loop, set()).add(number_of(node))
    if not used:
        return graph
    made: dict[Node, Results] = {}

    def moved(node: Node, inputs: tuple[Node, ...]) -> Node:
        if node in used:
            rule = _scan if node.op is control.scan else _while
            loop, made[node] = rule(node, inputs, used[node])
            return loop
        if node.op is control.item and node.inputs[0] in made:
            return replaced(node, made[node.inputs[0]])
        return rebuilt(node, inputs)

    return rebuild(graph, moved)


def _scan(node: Node, operands: Sequence[Node], used: set[int]) -> tuple[Node, Results]:
    consts, carries = node["consts"], node["carries"]
    results = {k for k in used if k < carries}
    kept = {k - carries for k in used if k >= carries}
    step = _step(node["body"], consts, carries, results, kept)
    chosen = [*step.consts, *(consts + k for k in step.carries)]
    chosen += [consts + carries + i for i in step.rows]
    attrs = dict(node.attrs)
    attrs |= {"body": step.body, "consts": len(step.consts), "carries": len(step.carries)}
    loop = node_of(control.scan, [operands[i] for i in chosen], attrs)
    found: dict[int, tuple[Node, int] | Node] = {k: operands[consts + k] for k in step.unchanged}
    found |= {k: (loop, i) for i, k in enumerate(step.carries)}
    found |= {carries + j: (loop, len(step.carries) + i) for i, j in enumerate(step.kept)}
    return loop, found


def _while(node: Node, operands: Sequence[Node], used: set[int]) -> tuple[Node, Results]:
    """Sweep by sweep from the last one, which says what it reads of those before."""
    reads, sweeps = node["condition_consts"], node["sweeps"]
    condition = _simple(node["condition"])
    tested = set(topological(condition.outputs))
    starts = _starts([sweep.operands for sweep in sweeps], reads)
    first_result = _starts([sweep.carries for sweep in sweeps], 0)
    steps: dict[int, _Step] = {}
    read: set[Stream] = set()
    for number in reversed(range(len(sweeps))):
        sweep: Sweep = sweeps[number]
        results = {k for k in range(sweep.carries) if first_result[number] + k in used}
        if number == 0:
            seen = enumerate(condition.inputs[reads:])
            results |= {k for k, value in seen if value in tested}
        kept = {j for i, j in read if i == number}
        if results or kept or number == 0:
            steps[number] = _step(sweep.body, sweep.consts, sweep.carries, results, kept)
            read.update(sweep.reads[i] for i in steps[number].rows)
    new = {number: i for i, number in enumerate(sorted(steps))}
    inputs, consts, fixed = _condition(condition, reads, steps[0], tested)
    values = [operands[i] for i in consts]
    values += [operands[starts[0] + sweeps[0].consts + k] for k in fixed]
    test = Graph(inputs, condition.outputs, sources=condition.sources)
    attrs = {"condition": test, "condition_consts": len(values)}
    left: list[Sweep] = []
    for number in new:
        step, sweep = steps[number], sweeps[number]
        chosen = [*step.consts, *(sweep.consts + k for k in step.carries)]
        values += [operands[starts[number] + i] for i in chosen]
        streams = tuple(_renumbered(sweep.reads[i], steps, new) for i in step.rows)
        left.append(
            replace(
                sweep,
                body=step.body,
                consts=len(step.consts),
                carries=len(step.carries),
                reads=streams,
            )
        )
    loop = node_of(control.while_, values, {**attrs, "sweeps": tuple(left)})
    found: dict[int, tuple[Node, int] | Node] = {}
    at = 0
    for number in new:
        step, sweep = steps[number], sweeps[number]
        for k in step.unchanged:
            found[first_result[number] + k] = operands[starts[number] + sweep.consts + k]
        for i, k in enumerate(step.carries):
            found[first_result[number] + k] = loop, at + i
        at += len(step.carries)
    return loop, found


def _starts(sizes: Iterable[int], first: int) -> list[int]:
    found = [first]
    for size in sizes:
        found.append(found[-1] + size)
    return found


def _renumbered(stream: Stream, steps: Mapping[int, _Step], new: Mapping[int, int]) -> Stream:
    return new[stream[0]], steps[stream[0]].kept.index(stream[1])


def _condition(
    condition: Graph, reads: int, step: _Step, tested: set[Node]
) -> tuple[tuple[Node, ...], list[int], list[int]]:
    """The inputs of the condition: those that stay as they are, then the carries that are left.

    Of the former also which they are: of what it has read before, and of the carries.
    """
    consts = [i for i in range(reads) if condition.inputs[i] in tested]
    fixed = [k for k in sorted(step.unchanged) if condition.inputs[reads + k] in tested]
    inputs = [condition.inputs[i] for i in consts]
    inputs += [condition.inputs[reads + k] for k in (*fixed, *step.carries)]
    return tuple(inputs), consts, fixed
