"""Control flow as native functions: they run the tape of a body, step by step.

Each has the ABI of a kernel. Its table names the body by six words (BODY_WORDS): the address of its
bases, of its patches and their number, of its launches and their number, and that of the runner.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from graphdl.kernels.cpu import assembler
from graphdl.kernels.cpu.assembler import Function, Module, Value

#: Words that name a body: bases, patches, how many, launches, how many, the runner.
BODY_WORDS = 6


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


def _define_scan(module: Module) -> None:
    """scan: [length, consts, streams, carries, body..., consts x (leaf, address),
    streams x (leaf, address, step), carries x (in, out, first, final, spare)].

    A stream moves on by its step. A carry is read where the step before has written it; the last
    step writes its final place.
    """
    with module.function("scan", 3) as (f, (table, _lo, _hi)):
        length, consts, streams, carries = (f.load(table + 8 * i) for i in range(4))
        body = table + 32
        fixed = body + 8 * BODY_WORDS
        moving = fixed + consts * 16
        carried = moving + streams * 24
        bases = f.load(body)
        _set_bases(f, bases, fixed, consts)
        with f.count(0, streams) as i:
            row = moving + i * 24
            f.store(bases + f.load(row) * 8, f.load(row + 8))
        with f.count(0, carries) as i:
            row = carried + i * 40
            f.store(bases + f.load(row) * 8, f.load(row + 16))
        with f.count(0, length) as t:
            even = ((length - 1 - t) & 1).equals(0)
            with f.count(0, carries) as i:
                row = carried + i * 40
                place = f.select(even, f.load(row + 24), f.load(row + 32))
                f.store(bases + f.load(row + 8) * 8, place)
            _run(f, body)
            with f.count(0, carries) as i:
                row = carried + i * 40
                out = f.load(bases + f.load(row + 8) * 8)
                f.store(bases + f.load(row) * 8, out)
            with f.count(0, streams) as i:
                row = moving + i * 24
                at = bases + f.load(row) * 8
                f.store(at, f.load(at) + f.load(row + 16))


def _define_while(module: Module) -> None:
    """while: [consts, carries, test, condition..., body..., condition consts, consts x (leaf,
    address), consts of the condition x (leaf, address), carries x (in, out, leaf of the condition,
    first, final, spare, bytes)]; `test` is the address of the condition's result.
    """
    with module.function("while", 3) as (f, (table, _lo, _hi)):
        consts, carries, test = (f.load(table + 8 * i) for i in range(3))
        condition = table + 24
        body = condition + 8 * BODY_WORDS
        condition_consts = f.load(body + 8 * BODY_WORDS)
        fixed = body + 8 * BODY_WORDS + 8
        read = fixed + consts * 16
        carried = read + condition_consts * 16
        bases, seen = f.load(body), f.load(condition)
        _set_bases(f, bases, fixed, consts)
        _set_bases(f, seen, read, condition_consts)
        with f.count(0, carries) as i:
            row = carried + i * 56
            f.store(bases + f.load(row) * 8, f.load(row + 24))
            f.store(seen + f.load(row + 16) * 8, f.load(row + 24))
            f.store(bases + f.load(row + 8) * 8, f.load(row + 32))
        with f.forever() as loop:
            _run(f, condition)
            loop.stop_when(f.load(test, 8).equals(0))
            _run(f, body)
            with f.count(0, carries) as i:
                row = carried + i * 56
                out = f.load(bases + f.load(row + 8) * 8)
                final, spare = f.load(row + 32), f.load(row + 40)
                f.store(bases + f.load(row) * 8, out)
                f.store(seen + f.load(row + 16) * 8, out)
                f.store(bases + f.load(row + 8) * 8, f.select(out.equals(final), spare, final))
        with f.count(0, carries) as i:  # results lie in whole words, up to 64 bytes
            row = carried + i * 56
            last, final = f.load(bases + f.load(row) * 8), f.load(row + 32)
            words = f.select(last.equals(final), 0, (f.load(row + 48) + 7) >> 3)
            with f.count(0, words) as k:
                f.store(final + k * 8, f.load(last + k * 8))


def _define_switch(module: Module) -> None:
    """switch: [address of the index, branches, operands, results, operands x address,
    results x address, branches x (body...)].

    The leaves of each body are the operands, then the results.
    """
    with module.function("switch", 3) as (f, (table, _lo, _hi)):
        at, branches, operands, results = (f.load(table + 8 * i) for i in range(4))
        index = f.smaller(f.larger(f.load(at), 0), branches - 1)
        places = table + 32
        count = operands + results
        body = places + count * 8 + index * (8 * BODY_WORDS)
        bases = f.load(body)
        with f.count(0, count) as i:
            f.store(bases + i * 8, f.load(places + i * 8))
        _run(f, body)


def _write(module: Module) -> None:
    _define_scan(module)
    _define_while(module)
    _define_switch(module)


@cache
def addresses() -> Mapping[str, int]:
    """The addresses of the kernels by the names of their ops."""
    return assembler.load("graphdl_control", ["scan", "while", "switch"], _write, effort=0)
