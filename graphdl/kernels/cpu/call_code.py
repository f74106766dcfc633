"""The native function that calls a program by its image, with no Python around it.

    int64 call(int64 *image, int64 *bases)

`bases` are the addresses of the arguments' leaves, then of the results. It returns 0, or which
check has failed (see `graphdl.kernels.cpu.image`). Any number of threads may call it at once, and
it may call itself through the kernels: each call has an instance of the program, its tables and
its arena, to itself. An instance that is not in use lies in one of `SLOTS` slots, the one that
belongs to the stack of the thread, so a thread finds its own again, in its cache and without
waiting for anybody; where the slot is empty an instance is made, and where it has been filled in
the meantime the older one is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from graphdl.kernels.cpu import assembler, growing
from graphdl.kernels.cpu.assembler import Function, Module, Value
from graphdl.kernels.program import ALIGNMENT, FAILED, OUT_OF_MEMORY

#: Words of an image. Places within an instance are offsets in bytes from where it begins.
IMAGE = (
    "size",  # bytes of an instance
    "words",  # address of the words that it begins with
    "word_count",
    "own",  # address of the numbers of words that are places within it
    "own_count",
    "patches",  # place
    "patch_count",
    "tape",  # place
    "rows",
    "status",  # address of rows (place, what is added to a code from FAILED on)
    "status_count",
    "stacks",  # address of the places of memory that grows
    "stack_count",
    "run",  # the function that runs a tape
    "enter",  # to call before with `blas`, and `leave` after it, or 0
    "leave",
    "blas",
    "slots",  # address of SLOTS slots
)
SLOTS = 16
SLOT = 128  # bytes: two cache lines, since processors fetch them in pairs

#: Stacks of threads are a megabyte or more apart; the golden ratio of 2**64 spreads their numbers.
_STACK_BITS, _SPREAD, _SLOT_BITS = 20, 0x9E3779B97F4A7C15 - 2**64, 4


def _word(f: Function, image: Value, name: str) -> Value:
    return f.load(image + 8 * IMAGE.index(name))


def _memory(f: Function, place: int) -> Value:
    return f.load(f.address_of("process") + place)


def _define_make(module: Module) -> None:
    """make(image): an instance, or 0. The word before it is what `free` takes."""
    with module.function("make", 1) as (f, (image,)):
        size = _word(f, image, "size") + ALIGNMENT
        block = f.call(_memory(f, growing.CALLOC), 1, size)
        with f.when(block.equals(0)):
            f.leave(0)
        instance = (block + ALIGNMENT) & -ALIGNMENT  # at least 8 bytes on: blocks are aligned to 8
        f.store(instance - 8, block)
        words, own = _word(f, image, "words"), _word(f, image, "own")
        with f.count(0, _word(f, image, "word_count")) as i:
            f.store(instance + i * 8, f.load(words + i * 8))
        with f.count(0, _word(f, image, "own_count")) as i:
            at = instance + f.load(own + i * 8) * 8
            f.store(at, f.load(at) + instance)
        f.leave(instance)


def _define_drop(module: Module) -> None:
    """drop(image, instance)."""
    with module.function("drop", 2) as (f, (image, instance)):
        free = _memory(f, growing.FREE)
        with f.count(0, _word(f, image, "stack_count")) as i:
            stack = instance + f.load(_word(f, image, "stacks") + i * 8)
            f.call(free, f.load(stack), returns="void")
        f.call(free, f.load(instance - 8), returns="void")


def _define_call(module: Module) -> None:
    with module.function("call", 2) as (f, (image, bases)):
        number = (f.stack(8) >> _STACK_BITS) * _SPREAD >> (64 - _SLOT_BITS)
        slot = _word(f, image, "slots") + number * SLOT
        instance = f.variable(f.exchange(slot, 0))
        with f.when(instance.get().equals(0)):
            instance.set(f.call("make", image))
            with f.when(instance.get().equals(0)):
                f.leave(OUT_OF_MEMORY)
        here = instance.get()
        status, count = _word(f, image, "status"), _word(f, image, "status_count")
        with f.count(0, count) as i:
            f.store(here + f.load(status + i * 16), 0)
        enter, leave, blas = (_word(f, image, name) for name in ("enter", "leave", "blas"))
        with f.when(enter.differs(0)):
            f.call(enter, blas)
        f.call(
            _word(f, image, "run"),
            bases,
            here + _word(f, image, "patches"),
            _word(f, image, "patch_count"),
            here + _word(f, image, "tape"),
            _word(f, image, "rows"),
            returns="void",
        )
        with f.when(enter.differs(0)):
            f.call(leave, blas)
        failed = f.variable(0)
        with f.count(0, count) as i:
            code = f.load(here + f.load(status + i * 16))
            with f.when(failed.get().equals(0) & code.differs(0)):
                numbered = code + f.load(status + i * 16 + 8)
                failed.set(f.select(code < FAILED, code, numbered))
        older = f.exchange(slot, here)
        with f.when(older.differs(0)):
            f.call("drop", image, older)
        f.leave(failed.get())


def _define_release(module: Module) -> None:
    """release(image): drop the instances that are kept for the next call."""
    with module.function("release", 1) as (f, (image,)), f.count(0, SLOTS) as i:
        instance = f.exchange(_word(f, image, "slots") + i * SLOT, 0)
        with f.when(instance.differs(0)):
            f.call("drop", image, instance)


def _define_overlap(module: Module) -> None:
    """overlap(rows, written, count): whether memory that is written is shared.

    Rows are (address, bytes); the first `written` of `count` are written. Those of no bytes share
    nothing.
    """
    with module.function("overlap", 3) as (f, (rows, written, count)):
        with f.count(0, written) as i:
            start, size = f.load(rows + i * 16), f.load(rows + i * 16 + 8)
            with f.count(i + 1, count) as j:
                other, room = f.load(rows + j * 16), f.load(rows + j * 16 + 8)
                meet = (start < other + room) & (other < start + size)
                with f.when(meet & size.differs(0) & room.differs(0)):
                    f.leave(1)
        f.leave(0)


def write(module: Module) -> None:
    """Write `call` and `release`; the module's process words begin with `growing.MEMORY`."""
    _define_make(module)
    _define_drop(module)
    _define_call(module)
    _define_release(module)


def _write(module: Module) -> None:
    write(module)
    _define_overlap(module)


@cache
def functions() -> Mapping[str, int]:
    """The addresses of the native functions `call` and `overlap`."""
    memory = list(growing.MEMORY.values())
    return assembler.load("graphdl_call", ["call", "overlap"], _write, memory)
