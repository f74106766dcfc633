"""Running a program: patches, then a tape of kernel launches, in one native call.

A kernel is `void kernel(int64 *table, int64 lo, int64 hi)`: the addresses and sizes it uses, and
the part of its iterations [0, n) to do. Any cut of [0, n) into parts gives bitwise the same result.

- A tape is int64[launches, 4], rows of (kernel address, table address, n, parts). One part runs on
  the calling thread as kernel(table, 0, n), more run as kernel(table, p*n//parts, (p+1)*n//parts)
  on the threads of the pool, in any order. A launch begins when the one before has ended. A launch
  of no parts is one that shares its work itself: a loop, whose steps are tapes.
- Patches are int64[count, 3], rows of (argument, slot address, byte offset): before the tape runs,
  *(int64 *)slot = base address of the argument + offset.
- `multi` is a kernel that runs many kernels as one: its table holds their count, then rows of
  (kernel, table, start, n), and its iterations are theirs in a row. So the updates of 200 small
  tensors are one launch, cut in parts that need not end where a tensor ends.

Waking a thread takes some microseconds, and a training step of a small network has dozens of
launches. So threads come together once for a whole stretch of the tape and share its launches one
after the other (`graphdl.kernels.cpu.team`); then a launch costs about 0.2 us. A stretch ends
before a launch of no parts, which has stretches of its own. One tape at a time has the threads: one
that finds them taken runs its parts on the calling thread.

A profile runs the same tape by a second runner, written from the same text with a `Stopwatch` in
it: it adds the time of each launch to a word that lies before the tape, and that of each kernel of
a `multi` to one behind its table. The runner of ordinary calls has no trace of that.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache

import numpy as np
from msgspec import Struct, field
from numpy.typing import NDArray

from graphdl.kernels.cpu import assembler, clock, pool
from graphdl.kernels.cpu import team as teams
from graphdl.kernels.cpu.assembler import Function, Module, Value

#: Words of a row.
KERNEL, TABLE, COUNT, PARTS = (8 * i for i in range(4))
_ROW = 32


class Watch:
    """What a runner does beside running: nothing."""

    def begin(self, f: Function, tape: Value) -> None:
        """A tape begins."""

    def ended(self, f: Function, tape: Value, row: Value) -> None:
        """A launch has ended, and the next has not begun."""

    def joined(self, f: Function, tape: Value) -> None:
        """All parts of a stretch are done, and the calling thread goes on."""

    @contextmanager
    def within(self, f: Function, total: Value) -> Iterator[None]:
        """A part of one of many kernels runs, whose word is at the address `total`."""
        yield


class Stopwatch(Watch):
    """Adds up how long launches take: row number i in the word at tape - 32 - 8 * i.

    The word before the tape holds when the launch before has ended, the one before that counts how
    often the tape has run, the third adds up how long it was waited for threads to come back.
    """

    def _now(self, f: Function) -> Value:
        return f.call("now")

    def begin(self, f: Function, tape: Value) -> None:
        f.store(tape - 16, f.load(tape - 16) + 1)
        f.store(tape - 8, self._now(f))

    def ended(self, f: Function, tape: Value, row: Value) -> None:
        self._add(f, tape, tape - 32 - row * 8)

    def joined(self, f: Function, tape: Value) -> None:
        self._add(f, tape, tape - 24)

    def _add(self, f: Function, tape: Value, total: Value) -> None:
        """Add to a word the time since something has last ended."""
        last, time = tape - 8, self._now(f)
        f.store(total, f.load(total) + time - f.load(last))
        f.store(last, time)

    @contextmanager
    def within(self, f: Function, total: Value) -> Iterator[None]:
        start = self._now(f)
        yield
        f.fetch_add(total, self._now(f) - start)

    def define(self, module: Module) -> None:
        """now(): the time in ticks."""
        with module.function("now", 0) as (f, _):
            f.leave(clock.now(f, f.load(f.address_of("process") + 8), f.stack(16)))


def _call_kernel(f: Function, kernel: Value, table: Value, lo: Value | int, hi: Value) -> None:
    f.call(kernel, table, lo, hi, returns="void")


def _patch(f: Function, bases: Value, patches: Value, count: Value) -> None:
    """Write the addresses of arguments and results where kernels read them."""
    with f.count(0, count) as i:
        patch = patches + i * 24
        base = f.load(bases + f.load(patch) * 8)
        f.store(f.load(patch + 8), base + f.load(patch + 16))


def _run_rows(f: Function, watch: Watch, tape: Value, start: Value, stop: Value) -> None:
    """Run rows one after the other, each as one part."""
    with f.count(start, stop) as i:
        row = tape + i * _ROW
        _call_kernel(f, f.load(row + KERNEL), f.load(row + TABLE), 0, f.load(row + COUNT))
        watch.ended(f, tape, i)


def _share(f: Function, team: Value, queue: Value, parts: Value) -> Value:
    """The first part of a queue."""
    return queue * parts // f.load(team + teams.THREADS)


def _define_advance(module: Module, watch: Watch) -> None:
    """advance(team, row): run rows of one part; publish the next that has more, or the end."""
    with module.function("advance", 2) as (f, (team, first)):
        row, tape = f.variable(first), f.load(team + teams.TAPE)
        with f.forever() as loop:
            with f.when(row.get().equals(f.load(team + teams.END))):
                teams.publish(f, team, finished=True)
                f.leave()
            launch = tape + row.get() * _ROW
            loop.stop_when(f.load(launch + PARTS) > 1)
            _call_kernel(
                f, f.load(launch + KERNEL), f.load(launch + TABLE), 0, f.load(launch + COUNT)
            )
            watch.ended(f, tape, row.get())
            row.set(row.get() + 1)
        parts = f.load(tape + row.get() * _ROW + PARTS)
        f.store_shared(team + teams.DONE, 0)
        with f.count(0, f.load(team + teams.THREADS)) as queue:
            size = _share(f, team, queue + 1, parts) - _share(f, team, queue, parts)
            teams.fill(f, team, queue, row.get(), size)
        teams.publish(f, team, finished=False)


def _define_run_part(module: Module, watch: Watch) -> None:
    """run_part(team, queue, row, left): the part of a queue that was taken when so many were left.

    Whoever ends the last part of a launch begins the next launch.
    """
    with module.function("run_part", 4) as (f, (team, queue, row, left)):
        tape = f.load(team + teams.TAPE)
        launch = tape + row * _ROW
        n, parts = f.load(launch + COUNT), f.load(launch + PARTS)
        part = _share(f, team, queue + 1, parts) - left
        _call_kernel(
            f,
            f.load(launch + KERNEL),
            f.load(launch + TABLE),
            part * n // parts,
            (part + 1) * n // parts,
        )
        with f.when((f.fetch_add(team + teams.DONE, 1) + 1).equals(parts)):
            watch.ended(f, tape, row)
            f.call("advance", team, row + 1)


def _define_run(module: Module, watch: Watch) -> None:
    """run(bases, patches, patch count, tape, row count)."""
    with module.function("run", 5) as (f, (bases, patches, patch_count, tape, rows)):
        _patch(f, bases, patches, patch_count)
        watch.begin(f, tape)
        state = f.load(f.address_of("process"))
        threads = f.load(state + 8 * pool.THREADS)
        with f.when((threads > 1) & rows.differs(0)):
            f.leave(f.call("run_parallel", tape, rows, threads, f.load(state + 8 * pool.TEAM)))
        _run_rows(f, watch, tape, f.constant(0), rows)


def _define_run_serial(module: Module, watch: Watch) -> None:
    """run_serial(bases, patches, patch count, tape, row count): all on the calling thread."""
    with module.function("run_serial", 5) as (f, (bases, patches, patch_count, tape, rows)):
        _patch(f, bases, patches, patch_count)
        watch.begin(f, tape)
        _run_rows(f, watch, tape, f.constant(0), rows)


def _define_run_parallel(module: Module, watch: Watch) -> None:
    """run_parallel(tape, row count, threads, team): the tape without its patches.

    A stretch reaches from a launch of several parts to the last one before the end, or before a
    launch of no parts.
    """
    with module.function("run_parallel", 4) as (f, (tape, rows, threads, team)):
        first = f.variable(0)
        with f.forever() as launches:
            launches.stop_when(first.get().equals(rows))
            row = tape + first.get() * _ROW
            with f.when(f.load(row + PARTS) < 2):
                _call_kernel(f, f.load(row + KERNEL), f.load(row + TABLE), 0, f.load(row + COUNT))
                watch.ended(f, tape, first.get())
                first.set(first.get() + 1)
                launches.again_when(f.constant(0).equals(0))
            end, next_row, most = f.variable(0), f.variable(first.get()), f.variable(0)
            with f.forever() as stretch:
                stretch.stop_when(next_row.get().equals(rows))
                parts = f.load(tape + next_row.get() * _ROW + PARTS)
                stretch.stop_when(parts.equals(0))
                next_row.set(next_row.get() + 1)
                with f.when(parts > 1):
                    end.set(next_row.get())
                    most.set(f.larger(most.get(), parts))
            start = first.get()
            first.set(end.get())
            with f.when(f.exchange(team + teams.OWNED, 1).differs(0)):
                _run_rows(f, watch, tape, start, end.get())
                launches.again_when(f.constant(0).equals(0))
            f.store(team + teams.TAPE, tape)
            f.store(team + teams.END, end.get())
            f.store(team + teams.THREADS, f.smaller(threads, most.get()))
            f.store(team + teams.RUN_PART, f.address_of("run_part"))
            f.call("advance", team, start)
            f.call("work", team, 0)
            f.store_shared(team + teams.OWNED, 0)
            watch.joined(f, tape)


def _define_multi(module: Module, watch: Watch) -> None:
    """The kernel multi(table, lo, hi): table = [count, (kernel, table, start, n) ..., times]."""
    with module.function("multi", 3) as (f, (table, lo, hi)):
        rows = table + 8
        below, above = f.variable(0), f.variable(f.load(table))
        with f.forever() as search:  # the last row that starts at lo or before
            middle = (below.get() + above.get()) >> 1
            search.stop_when(middle.equals(below.get()))
            here = f.load(rows + middle * _ROW + 16) <= lo
            below.set(f.select(here, middle, below.get()))
            above.set(f.select(here, above.get(), middle))
        with f.count(below.get(), f.load(table)) as i:
            row = rows + i * _ROW
            start, n = f.load(row + 16), f.load(row + 24)
            with f.when(start >= hi):
                f.leave()
            begin, end = f.larger(lo - start, 0), f.smaller(hi - start, n)
            with f.when(begin < end), watch.within(f, rows + f.load(table) * _ROW + i * 8):
                _call_kernel(f, f.load(row), f.load(row + 8), begin, end)


def write_serial(module: Module) -> None:
    """Write run_serial and multi, which need nothing of the process."""
    _define_run_serial(module, Watch())
    _define_multi(module, Watch())


def _write(module: Module, watch: Watch) -> None:
    teams.define(module)
    _define_advance(module, watch)
    _define_run_part(module, watch)
    _define_run(module, watch)
    _define_run_parallel(module, watch)
    _define_run_serial(module, watch)
    _define_multi(module, watch)


def _write_plain(module: Module) -> None:
    _write(module, Watch())


def _write_timed(module: Module) -> None:
    stopwatch = Stopwatch()
    stopwatch.define(module)
    _write(module, stopwatch)
    with module.function("nothing", 3) as (f, _):
        f.leave()


@cache
def native_functions() -> Mapping[str, int]:
    """The addresses of the native functions.

    run         void run(int64 *bases, int64 *patches, int64 count, int64 *tape, int64 rows)
    run_serial  the same without threads
    multi       the kernel that runs many kernels as one launch
    """
    names = ["run", "run_serial", "multi"]
    return assembler.load("graphdl_tape", names, _write_plain, [pool.state_address()])


@cache
def timed_functions() -> Mapping[str, int]:
    """The same with a stopwatch, for tapes and tables that have room for the times.

    And `nothing`, a kernel that does nothing.
    """
    names = ["run", "run_serial", "multi", "nothing"]
    process = [pool.state_address(), clock.address()]
    return assembler.load("graphdl_tape_timed", names, _write_timed, process)


@cache
def _run() -> Callable[..., None]:
    return ctypes.CFUNCTYPE(None, *(ctypes.c_int64,) * 5)(native_functions()["run"])


@cache
def timed_runner() -> Callable[..., None]:
    """`run` with a stopwatch, as a C function of the addresses and numbers that it takes."""
    return ctypes.CFUNCTYPE(None, *(ctypes.c_int64,) * 5)(timed_functions()["run"])


class Tape(Struct, frozen=True):
    """Launches and patches, and whatever must live as long as the addresses in them.

    launches: int64[rows, 4], patches: int64[count, 3], both C-contiguous. lock: int64[1], the lock
    of the tables that they name; tapes of the same tables share it.
    """

    launches: NDArray[np.int64]
    patches: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 3), np.int64))
    keep: tuple[object, ...] = ()
    lock: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))

    def __post_init__(self) -> None:
        for name, array, width in (("launches", self.launches, 4), ("patches", self.patches, 3)):
            if array.dtype != np.int64 or array.ndim != 2 or array.shape[1] != width:
                raise ValueError(f"{name} must be int64[rows, {width}], not {_described(array)}")
            if not array.flags.c_contiguous:
                raise ValueError(f"{name} must be C-contiguous")
        if len(self.launches) and int(self.launches[:, 3].min()) < 0:
            raise ValueError("a launch cannot have fewer parts than none")
        if len(self.launches) >= 2**31 or (self.launches[:, 3] >= 2**31).any():
            raise ValueError("at most 2**31 - 1 launches, of so many parts")
        if self.is_parallel:
            pool.start()

    @property
    def is_parallel(self) -> bool:
        """Whether a launch has several parts."""
        return bool((self.launches[:, 3] > 1).any())


def _described(array: NDArray[np.int64]) -> str:
    return f"{array.dtype}[{', '.join(map(str, array.shape))}]"


def with_times(rows: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of a tape, and what a stopwatch writes, in one piece of memory.

    That lies before the tape; as it is returned, how often the tape has run, the time that it was
    waited for threads, then the time of each row.
    """
    count = len(rows)
    words = np.zeros(count + 3 + 4 * count, np.int64)
    words[count + 3 :] = np.array(rows, np.int64).reshape(-1)
    return words[count + 3 :].reshape(-1, 4), words[: count + 2][::-1]


def run(tape: Tape, bases: Sequence[int] = (), runner: Callable[..., None] | None = None) -> None:
    """Run the patches and the launches; `bases` are the arguments' addresses.

    `runner` is `timed_runner()` for a tape that has room for times.

    Other Python threads run meanwhile; so a tape whose tables they use must not be run by two
    threads at once. `graphdl.kernels.cpu.entry` runs tapes without letting go of the interpreter.
    """
    places = np.array(bases, np.int64)
    if len(tape.patches) and int(tape.patches[:, 0].max()) >= len(places):
        raise IndexError(f"a patch names argument {tape.patches[:, 0].max()} of {len(places)}")
    (runner or _run())(
        places.ctypes.data,
        tape.patches.ctypes.data,
        len(tape.patches),
        tape.launches.ctypes.data,
        len(tape.launches),
    )


def multi_table(launches: Iterable[tuple[int, int, int]]) -> tuple[NDArray[np.int64], int]:
    """The table and the number of iterations of one "multi" launch of many (kernel, table, n).

    Behind the rows it has a word for the time of each kernel.
    """
    rows, start = [], 0
    for kernel, table, n in launches:
        rows.append((kernel, table, start, n))
        start += n
    flat = [len(rows), *(word for row in rows for word in row), *(0 for _ in rows)]
    return np.array(flat, np.int64), start
