"""Control flow as launches: the tables of the functions in graphdl.kernels.cpu.control_code.

The steps of a loop follow one another, and threads share the kernels of each. Where no step needs
another one, as for the heads of attention, threads take whole steps instead, if there are enough of
them: each keeps what it computes in its own caches, and waits for others at the end of the loop
only, not at the end of each kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from graphdl import machine
from graphdl.compiler.quiet import has_effects
from graphdl.compiler.view import view_of
from graphdl.graph import Graph, Node
from graphdl.kernels.memory import is_idle, plan, updated
from graphdl.kernels.program import (
    Address,
    Body,
    BodyWord,
    Buffer,
    Launch,
    Memory,
    Place,
    Program,
    Stack,
    Value,
    Word,
)
from graphdl.kernels.source import KernelSource
from graphdl.ops import control
from graphdl.types import TensorType

#: Makes the program of a body.
Compile = Callable[[Graph], Program]
#: Words that name a body in a table.
_FIELDS = 6
#: Steps that run side by side are at least so many for each thread, so that one which is late
#: holds up little, and each holds at most so many times what the cache of its core does: more would
#: come from memory, and kernels that take it are worth sharing.
_TURNS, _CACHES = 2, 4


def control_launch(members: Sequence[Node], compile: Compile, status: Buffer) -> Launch:
    """The launch of a loop or a branch: the node, and those of its results that are read."""
    node = members[0]
    return _LAUNCHES[node.op.name](node, _results(members), compile, status)


def _results(members: Sequence[Node]) -> list[Value]:
    """All results of a node, of which the other members are those that are read."""
    node, *read = members
    types = control.result_types(node)
    places = control.offsets(types)
    known = {places.index(result["offset"]): result for result in read}
    return [
        known.get(k) or Buffer(type.nbytes, None, "a result that nothing reads")
        for k, type in enumerate(types)
    ]


def _body(graph: Graph, compile: Compile) -> Body:
    program = compile(graph)
    return Body(program, plan(program))


def _step_body(graph: Graph, consts: int, carries: int, compile: Compile) -> Body:
    """The body of a loop, its carries written over the old ones where nothing reads those then."""
    program = compile(graph)
    heirs = {consts + k: program.graph.outputs[k] for k in range(carries)}
    return Body(program, plan(program, tuple(heirs), heirs))


def _leaf(body: Body, k: int) -> int | None:
    """The leaf of a body that its result number k is, None where it lies over the old carry."""
    graph = body.program.graph
    place = body.memory.places[graph.outputs[k]]
    return len(graph.inputs) + place.index if place.kind == "result" else None


def _words_of(number: int) -> list[Word]:
    return [BodyWord(number, field) for field in range(_FIELDS)]


def _address(operand: Node, offset: int = 0) -> Address:
    view = view_of(operand)
    assert view is not None, f"{operand!r} is no view of memory"
    return Address(view.base, view.offset * operand.dtype.itemsize + offset)


def _cost(program: Program) -> float:
    return 50.0 + sum(launch.cost for launch in program.launches)


def _launch(
    node: Node,
    words: Sequence[Word],
    bodies: Sequence[Body],
    cost: float,
    results: Sequence[Value],
    spare: Sequence[Buffer],
    status: Buffer,
    steps: int,
    fails: bool = False,
    in_place: Sequence[tuple[Node, Node]] = (),
) -> Launch:
    reads = dict.fromkeys(
        base for operand in node.inputs if (base := _address(operand).where) is not None
    )
    checked = fails or any(body.program.status is not None for body in bodies)
    launches = [
        launch
        for body in bodies
        for launch in body.program.launches
        if not is_idle(launch, body.memory)
    ]
    return Launch(
        KernelSource(node.op.name, ""),
        tuple(words),
        1,
        cost,
        tuple(reads),
        (*results, *spare, *([status] if checked else [])),
        tuple(in_place),
        (node,),
        steps * sum(launch.bytes for launch in launches),
        steps * sum(launch.flops for launch in launches),
        None,
        tuple(bodies),
    )


def _stacked(type: TensorType, length: int, reverse: bool) -> tuple[int, int]:
    """Where the first step of a stacked value is, and the way to the next, in bytes."""
    if reverse:
        return (length - 1) * type.nbytes, -type.nbytes
    return 0, type.nbytes


def side_by_side_launch(
    members: Sequence[Node], compile: Compile, status: Buffer, threads: int
) -> Launch | None:
    """The launch of a loop of which so many threads take whole steps, each in memory of its own.

    None where steps need one another, have effects, whose order is kept, or where that does not
    pay. `compile` makes programs of which a thread runs all.
    """
    node, results = members[0], _results(members)
    if threads < 2 or node.op is not control.scan or node["carries"]:
        return None
    graph: Graph = node["body"]
    consts, length = node["consts"], node["length"]
    if length < _TURNS * threads or has_effects(graph):
        return None
    program = compile(graph)
    body = Body(program, plan(program))
    cost = length * _cost(program)
    known = machine.current()
    if cost < known.share or body.memory.own_bytes > _CACHES * known.second_level:
        return None
    reads, writes = len(graph.inputs), len(graph.outputs)
    words: list[Word] = [length, consts, reads + writes - consts, threads, 0, 0]
    for number in range(threads):
        words += _words_of(number)
    for leaf in range(consts):
        words += [leaf, _address(node.inputs[leaf])]
    words += _stream_rows(body, node, results, consts, 0)
    made = _launch(node, words, [body], cost, results, [], status, length)
    source = KernelSource("scan_side_by_side", "")
    return replace(made, source=source, iterations=threads, bodies=(body,) * threads)


def _stream_rows(
    body: Body, node: Node, results: Sequence[Value], first: int, carries: int
) -> list[Word]:
    """What each step reads of its own, from operand `first` on, and what it writes."""
    graph, length, reverse = body.program.graph, node["length"], node["reverse"]
    words: list[Word] = []
    for leaf in range(first, len(graph.inputs)):
        start, step = _stacked(graph.inputs[leaf].type, length, reverse)
        words += [leaf, _address(node.inputs[leaf], start), step]
    for k in range(carries, len(graph.outputs)):
        start, step = _stacked(graph.outputs[k].type, length, reverse)
        words += [_leaf(body, k) or 0, Address(results[k], start), step]
    return words


def _scan(node: Node, results: Sequence[Value], compile: Compile, status: Buffer) -> Launch:
    graph: Graph = node["body"]
    consts, carries, length = (node[name] for name in ("consts", "carries", "length"))
    body = _step_body(graph, consts, carries, compile)
    words: list[Word] = [length, consts]
    words += [len(graph.inputs) + len(graph.outputs) - consts - 2 * carries]
    moving, settled, spare = _carry_rows(
        body,
        consts,
        [_address(x) for x in node.inputs[consts : consts + carries]],
        [Address(result) for result in results[:carries]],
    )
    words += [len(moving), len(settled), *_words_of(0)]
    for leaf in range(consts):
        words += [leaf, _address(node.inputs[leaf])]
    words += _stream_rows(body, node, results, consts + carries, carries)
    words += [word for row in (*moving, *settled) for word in row]
    cost = length * _cost(body.program)
    heirs = {consts + k: k for k in range(carries) if _leaf(body, k) is None}
    pairs = _overwritten(node, results, heirs)
    return _launch(node, words, [body], cost, results, spare, status, length, in_place=pairs)


def _overwritten(
    node: Node, results: Sequence[Value], heirs: Mapping[int, int]
) -> list[tuple[Node, Node]]:
    """The results that may lie where operands lie, and those, where nothing else reads them.

    heirs: the number of an operand -> that of the result that is written over it.
    """
    bases = [_address(operand) for operand in node.inputs]
    found = []
    for i, k in heirs.items():
        result, base = results[k], bases[i].where
        fits = isinstance(result, Node) and isinstance(base, Node) and base.type == result.type
        alone = sum(other.where is base for other in bases) == 1
        if fits and alone and not bases[i].offset:
            found.append((result, base))
    return found  # type: ignore[return-value]


def _carry_rows(
    body: Body, consts: int, first: Sequence[Address], final: Sequence[Address]
) -> tuple[list[list[Word]], list[list[Word]], list[Buffer]]:
    """The rows of carries that lie elsewhere after each step, and of those that stay in place.

    The former need memory for every other step. (in, out, number, first, final, spare, bytes) and
    (in, number, first, final, bytes).
    """
    moving: list[list[Word]] = []
    settled: list[list[Word]] = []
    spare: list[Buffer] = []
    for k, (start, end) in enumerate(zip(first, final, strict=True)):
        nbytes = body.program.graph.outputs[k].type.nbytes
        leaf = _leaf(body, k)
        if leaf is None:
            settled.append([consts + k, k, start, end, nbytes])
            continue
        buffer = Buffer(nbytes, None, "a carry of every other step")
        spare.append(buffer)
        moving.append([consts + k, leaf, k, start, end, Address(buffer), nbytes])
    return moving, settled, spare


#: How many steps a loop is taken for that nobody has counted.
_GUESS = 100


def _while(node: Node, results: Sequence[Value], compile: Compile, status: Buffer) -> Launch:
    sweeps: tuple[control.Sweep, ...] = node["sweeps"]
    condition, reads = node["condition"], node["condition_consts"]
    steps = [_step_body(x.body, x.consts, x.carries, compile) for x in sweeps]
    bodies = [_body(condition, compile), *steps]
    stacks = [Stack() for _ in sweeps]
    rows = [control.offsets(sweep.kept_types) for sweep in sweeps]
    keeps = any(sweep.kept_types for sweep in sweeps)
    test = Buffer(8, None, "the condition of a loop")
    words: list[Word] = [len(sweeps), Address(test)]
    words += [Address(status) if keeps else 0, reads, *_words_of(0)]
    for leaf in range(reads):
        words += [leaf, _address(node.inputs[leaf])]
    words += [len(condition.inputs), Address(test)]
    spare = [test]
    operands = node.inputs[reads:]
    left, pairs, at = list(results), [], reads
    for number, sweep in enumerate(sweeps):
        moving, settled, more = _carry_rows(
            steps[number],
            sweep.consts,
            [_address(x) for x in operands[sweep.consts : sweep.operands]],
            [Address(result) for result in left[: sweep.carries]],
        )
        spare += more
        record: list[Word] = [*_words_of(1 + number), sweep.consts, len(moving), len(settled)]
        record += [len(sweep.reads), len(sweep.kept_types), rows[number][-1], stacks[number]]
        record.append(int(sweep.reverse))
        for leaf in range(sweep.consts):
            record += [leaf, _address(operands[leaf])]
        record += [word for row in (*moving, *settled) for word in row]
        for leaf, (i, j) in enumerate(sweep.reads, sweep.operands):
            record += [leaf, stacks[i], rows[i][-1], rows[i][j]]
        for j in range(len(sweep.kept_types)):
            record += [_leaf(steps[number], sweep.carries + j) or 0, rows[number][j]]
        words += [8 * (1 + len(record)), *record]
        heirs = {
            at + sweep.consts + k: k
            for k in range(sweep.carries)
            if _leaf(steps[number], k) is None
        }
        pairs += _overwritten(node, left, heirs)
        at += sweep.operands
        operands, left = operands[sweep.operands :], left[sweep.carries :]
    cost = _GUESS * sum(_cost(body.program) for body in bodies)
    return _launch(node, words, bodies, cost, results, spare, status, 1, keeps, pairs)


def _switch(node: Node, results: Sequence[Value], compile: Compile, status: Buffer) -> Launch:
    branches: tuple[Graph, ...] = node["branches"]
    programs = [compile(branch) for branch in branches]
    heirs = _heirs(programs)
    bodies = [Body(program, _over_operands(program, heirs)) for program in programs]
    index, *operands = node.inputs
    own = [result for k, result in enumerate(results) if k not in heirs.values()]
    words: list[Word] = [_address(index), len(branches), len(operands), len(own), len(heirs)]
    words += [
        Address(results[heirs[i]]) if i in heirs else _address(operand)
        for i, operand in enumerate(operands)
    ]
    words += [Address(result) for result in own]
    for i, k in heirs.items():
        words += [_address(operands[i]), Address(results[k]), operands[i].type.nbytes]
    for number in range(len(branches)):
        words += _words_of(number)
    cost = max(_cost(body.program) for body in bodies)
    pairs = _overwritten(node, results, {1 + i: k for i, k in heirs.items()})
    return _launch(node, words, bodies, cost, results, [], status, 1, in_place=pairs)


def _heirs(programs: Sequence[Program]) -> dict[int, int]:
    """The operands that every branch may write a result over, each with the number of that.

    In at least one branch the result is what became of the operand: there nothing is left to do for
    what stays as it is. Where the operand is read later, it is copied before.
    """
    found: dict[int, int] = {}
    for program in programs:
        inputs, outputs = program.graph.inputs, program.graph.outputs
        for result, origin in updated(program):
            k = outputs.index(result)
            if origin in inputs and k not in found.values():
                found.setdefault(inputs.index(origin), k)
    while True:
        plans = [(program, _over_operands(program, found)) for program in programs]
        fits = {
            i: k
            for i, k in found.items()
            if all(m.places[p.graph.outputs[k]] == Place("argument", i) for p, m in plans)
        }
        if fits == found:
            return found
        found = fits


def _over_operands(program: Program, heirs: Mapping[int, int]) -> Memory:
    """The plan of a branch whose results lie over operands."""
    outputs = program.graph.outputs
    return plan(program, tuple(heirs), {i: outputs[k] for i, k in heirs.items()})


_LAUNCHES = {"scan": _scan, "while": _while, "switch": _switch}
