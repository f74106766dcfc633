"""Control flow as native functions: they run the tape of a body, step by step.

Each has the ABI of a kernel. Its table names the body by six words (BODY_WORDS): the address of its
bases, of its patches and their number, of its launches and their number, and that of the runner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from graphdl.kernels.cpu import assembler, growing
from graphdl.kernels.cpu.assembler import Function, Module, Value
from graphdl.kernels.program import OUT_OF_MEMORY

#: Words that name a body: bases, patches, how many, launches, how many, the runner.
BODY_WORDS = 6

#: The kernels, by the names of their ops.
FUNCTIONS = ("scan", "scan_side_by_side", "while", "switch")


def _run(f: Function, body: Value) -> None:
    f.call(
        f.load(body + 40),
        f.load(body),
        f.load(body + 8),
        f.load(body + 16),
        f.load(body + 24),
        f.load(body + 32),
        returns="void",
    )


def _set_bases(f: Function, bases: Value, pairs: Value, count: Value) -> None:
    """bases[leaf] = address for each pair (leaf, address)."""
    with f.count(0, count) as i:
        pair = pairs + i * 16
        f.store(bases + f.load(pair) * 8, f.load(pair + 8))


#: Bytes of a row of each kind: (leaf, address), a stream (leaf, address, step), a carry that moves
#: (in, out, number, first, final, spare, bytes), one that stays (in, number, first, final, bytes),
#: what a sweep reads (leaf, stack, bytes kept of a step, offset), what it keeps (leaf, offset), an
#: operand that a branch changes in place (first, final, bytes).
_CONST, _STREAM, _MOVING, _SETTLED, _READ, _KEEP, _CHANGED = 16, 24, 56, 40, 32, 16, 24


def _begin(
    f: Function, bases: Value, moving: Value, settled: Value, counts: Sequence[Value]
) -> None:
    """The first carries: those that stay are copied to where they stay."""
    with f.count(0, counts[0]) as i:
        row = moving + i * _MOVING
        f.store(bases + f.load(row) * 8, f.load(row + 24))
    with f.count(0, counts[1]) as i:
        row = settled + i * _SETTLED
        first, final = f.load(row + 16), f.load(row + 24)
        f.store(bases + f.load(row) * 8, final)
        with f.when(first.differs(final)):
            _copy(f, final, first, f.load(row + 32))


def _copy(f: Function, to: Value, source: Value, size: Value) -> None:
    f.call(f.load(f.address_of("process") + growing.MEMMOVE), to, source, size)


def _define_scan(module: Module) -> None:
    """scan: [length, consts, streams, moving carries, settled carries, body..., consts, streams,
    moving carries, settled carries].

    A stream moves on by its step. A carry that moves is read where the step before has written it;
    the last step writes its final place. One that is settled is written over the old one.
    """
    with module.function("scan", 3) as (f, (table, _lo, _hi)):
        length, consts, streams, carries, settled = (f.load(table + 8 * i) for i in range(5))
        body = table + 40
        fixed = body + 8 * BODY_WORDS
        moving = fixed + consts * _CONST
        carried = moving + streams * _STREAM
        bases = f.load(body)
        _set_bases(f, bases, fixed, consts)
        with f.count(0, streams) as i:
            row = moving + i * _STREAM
            f.store(bases + f.load(row) * 8, f.load(row + 8))
        _begin(f, bases, carried, carried + carries * _MOVING, (carries, settled))
        with f.count(0, length) as t:
            even = ((length - 1 - t) & 1).equals(0)
            with f.count(0, carries) as i:
                row = carried + i * _MOVING
                place = f.select(even, f.load(row + 32), f.load(row + 40))
                f.store(bases + f.load(row + 8) * 8, place)
            _run(f, body)
            with f.count(0, carries) as i:
                row = carried + i * _MOVING
                out = f.load(bases + f.load(row + 8) * 8)
                f.store(bases + f.load(row) * 8, out)
            with f.count(0, streams) as i:
                row = moving + i * _STREAM
                at = bases + f.load(row) * 8
                f.store(at, f.load(at) + f.load(row + 16))


def _define_side_by_side(module: Module) -> None:
    """scan_side_by_side: [length, consts, streams, bodies, begun, ended, bodies x (body...),
    consts, streams].

    A scan without carries. Each iteration of the kernel has a body of its own, whose memory is its
    own, and takes steps that no other has begun until none is left: `begun` of them, in order. The
    last of all iterations to end, of which there are as many as bodies, sets both words back.
    """
    with module.function("scan_side_by_side", 3) as (f, (table, lo, hi)):
        length, consts, streams, bodies = (f.load(table + 8 * i) for i in range(4))
        begun, ended = table + 32, table + 40
        first = table + 48
        fixed = first + bodies * (8 * BODY_WORDS)
        moving = fixed + consts * _CONST
        with f.count(lo, hi) as number:
            body = first + number * (8 * BODY_WORDS)
            bases = f.load(body)
            _set_bases(f, bases, fixed, consts)
            with f.forever() as steps:
                t = f.fetch_add(begun, 1)
                steps.stop_when(t >= length)
                with f.count(0, streams) as i:
                    row = moving + i * _STREAM
                    f.store(bases + f.load(row) * 8, f.load(row + 8) + t * f.load(row + 16))
                _run(f, body)
            with f.when((f.fetch_add(ended, 1) + 1).equals(bodies)):
                f.store(begun, 0)
                f.store(ended, 0)


#: Words of a sweep's record, each the offset in bytes; the body's are in between.
_SIZE, _BODY, _CONSTS, _MOVES, _STAYS, _READS, _KEEPS, _ROW, _STACK, _REVERSE, _ROWS = (
    8 * i for i in (0, 1, 7, 8, 9, 10, 11, 12, 13, 14, 15)
)


def _carries_of(f: Function, record: Value) -> tuple[Value, Value]:
    """Where the rows of the carries that move are, and how many."""
    return record + _ROWS + f.load(record + _CONSTS) * _CONST, f.load(record + _MOVES)


def _settled_of(f: Function, record: Value) -> tuple[Value, Value]:
    """Where the rows of the carries that stay are, and how many."""
    rows, moving = _carries_of(f, record)
    return rows + moving * _MOVING, f.load(record + _STAYS)


def _define_reserve(module: Module) -> None:
    """reserve(stack, bytes): make it that large, by doubling; whether there was memory."""
    with module.function("reserve", 2) as (f, (stack, size)):
        held = f.load(stack + 8)
        with f.when(size <= held):
            f.leave(1)
        wanted = f.larger(f.larger(held * 2, size), 4096)
        place = f.call(f.load(f.address_of("process") + growing.REALLOC), f.load(stack), wanted)
        with f.when(place.equals(0)):
            f.leave(0)
        f.store(stack, place)
        f.store(stack + 8, wanted)
        f.leave(1)


def _define_begin(module: Module) -> None:
    """begin(record): what each step of a sweep reads, and its first carries."""
    with module.function("begin", 1) as (f, (record,)):
        bases = f.load(record + _BODY)
        _set_bases(f, bases, record + _ROWS, f.load(record + _CONSTS))
        moving, moves = _carries_of(f, record)
        settled, stays = _settled_of(f, record)
        _begin(f, bases, moving, settled, (moves, stays))
        with f.count(0, moves) as i:
            row = moving + i * _MOVING
            f.store(bases + f.load(row + 8) * 8, f.load(row + 32))


def _define_step(module: Module) -> None:
    """step(record, t): one step of a sweep."""
    with module.function("step", 2) as (f, (record, t)):
        bases = f.load(record + _BODY)
        rows, carries = _carries_of(f, record)
        settled, stays = _settled_of(f, record)
        read = settled + stays * _SETTLED
        reads = f.load(record + _READS)
        with f.count(0, reads) as i:
            row = read + i * _READ
            place = f.load(f.load(row + 8)) + t * f.load(row + 16) + f.load(row + 24)
            f.store(bases + f.load(row) * 8, place)
        keep = read + reads * _READ
        own = f.load(f.load(record + _STACK)) + t * f.load(record + _ROW)
        with f.count(0, f.load(record + _KEEPS)) as i:
            row = keep + i * _KEEP
            f.store(bases + f.load(row) * 8, own + f.load(row + 8))
        _run(f, record + _BODY)
        with f.count(0, carries) as i:
            row = rows + i * _MOVING
            out = f.load(bases + f.load(row + 8) * 8)
            final, spare = f.load(row + 32), f.load(row + 40)
            f.store(bases + f.load(row) * 8, out)
            f.store(bases + f.load(row + 8) * 8, f.select(out.equals(final), spare, final))


def _define_finish(module: Module) -> None:
    """finish(record): the last carries where the results are."""
    with module.function("finish", 1) as (f, (record,)):
        bases = f.load(record + _BODY)
        rows, carries = _carries_of(f, record)
        with f.count(0, carries) as i:
            row = rows + i * _MOVING
            last, final = f.load(bases + f.load(row) * 8), f.load(row + 32)
            with f.when(last.differs(final)):
                _copy(f, final, last, f.load(row + 48))


def _define_while(module: Module) -> None:
    """while: [sweeps, test, failed, reads, condition..., reads + 1 rows (leaf, address), then a
    record for each sweep]. `test` is the address of the condition's result, `failed` that of the
    status, set when there is no memory for what the steps keep; the condition reads `reads` values,
    then the carries.

    A record is [its bytes, body..., consts, moving carries, settled carries, reads, keeps, bytes
    kept of a step, stack, reverse, then the rows of each].
    """
    with module.function("while", 3) as (f, (table, _lo, _hi)):
        count, test, failed, reads = (f.load(table + 8 * i) for i in range(4))
        condition = table + 32
        fixed = condition + 8 * BODY_WORDS
        first = fixed + (reads + 1) * _CONST
        seen, bases = f.load(condition), f.load(first + _BODY)
        _set_bases(f, seen, fixed, reads + 1)
        f.call("begin", first)
        settled, stays = _settled_of(f, first)
        with f.count(0, stays) as i:
            row = settled + i * _SETTLED
            f.store(seen + (f.load(row + 8) + reads) * 8, f.load(row + 24))
        rows, carries = _carries_of(f, first)
        steps = f.variable(0)
        with f.forever() as loop:
            with f.count(0, carries) as i:
                row = rows + i * _MOVING
                place = seen + (f.load(row + 16) + reads) * 8
                f.store(place, f.load(bases + f.load(row) * 8))
            _run(f, condition)
            loop.stop_when(f.load(test, 8).equals(0))
            t = steps.get()
            with f.when(f.call("enough", first, t + 1).equals(0)):
                f.store(failed, OUT_OF_MEMORY)
                f.leave()
            f.call("step", first, t)
            steps.set(t + 1)
        f.call("finish", first)
        record = f.variable(first + f.load(first + _SIZE))
        with f.count(1, count):
            at = record.get()
            with f.when(f.call("enough", at, steps.get()).equals(0)):
                f.store(failed, OUT_OF_MEMORY)
                f.leave()
            f.call("begin", at)
            with f.count(0, steps.get()) as k:
                back = f.load(at + _REVERSE).differs(0)
                f.call("step", at, f.select(back, steps.get() - 1 - k, k))
            f.call("finish", at)
            record.set(at + f.load(at + _SIZE))


def _define_enough(module: Module) -> None:
    """enough(record, steps): whether there is memory for what so many steps keep."""
    with module.function("enough", 2) as (f, (record, steps)):
        size = f.load(record + _ROW) * steps
        with f.when(size.equals(0)):
            f.leave(1)
        f.leave(f.call("reserve", f.load(record + _STACK), size))


def _define_switch(module: Module) -> None:
    """switch: [address of the index, branches, operands, results, settled operands,
    operands x address, results x address, settled operands x (first, final, bytes),
    branches x (body...)].

    The leaves of each body are the operands, then the results. A settled operand is changed where
    it lies, at its final place.
    """
    with module.function("switch", 3) as (f, (table, _lo, _hi)):
        at, branches, operands, results, settled = (f.load(table + 8 * i) for i in range(5))
        index = f.smaller(f.larger(f.load(at), 0), branches - 1)
        places = table + 40
        count = operands + results
        rows = places + count * 8
        body = rows + settled * _CHANGED + index * (8 * BODY_WORDS)
        with f.count(0, settled) as i:
            row = rows + i * _CHANGED
            first, final = f.load(row), f.load(row + 8)
            with f.when(first.differs(final)):
                _copy(f, final, first, f.load(row + 16))
        bases = f.load(body)
        with f.count(0, count) as i:
            f.store(bases + i * 8, f.load(places + i * 8))
        _run(f, body)


def write(module: Module) -> None:
    """Write the functions of control flow; the module's process words are `growing.MEMORY`."""
    for define in (
        _define_scan,
        _define_side_by_side,
        _define_reserve,
        _define_enough,
        _define_begin,
        _define_step,
        _define_finish,
        _define_while,
        _define_switch,
    ):
        define(module)


@cache
def addresses() -> Mapping[str, int]:
    """The addresses of the kernels by the names of their ops."""
    return assembler.load(
        "graphdl_control",
        FUNCTIONS,
        write,
        list(growing.MEMORY.values()),
        effort=0,
    )
