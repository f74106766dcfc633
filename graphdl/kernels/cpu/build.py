"""A program as native code: tables, tape, and the function that Python calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import Thread
from typing import Any, Protocol

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from graphdl import machine
from graphdl.kernels.callbacks import calls_python
from graphdl.kernels.cpu import blas, control_code, cores, entry, entry_code, native
from graphdl.kernels.cpu.entry import Tree
from graphdl.kernels.cpu.growing import Growing
from graphdl.kernels.cpu.tape import Tape, multi_table, native_functions, with_times
from graphdl.kernels.memory import ALIGNMENT, is_idle
from graphdl.kernels.program import (
    Address,
    Body,
    BodyWord,
    Entry,
    Launch,
    Memory,
    Place,
    Program,
    Routine,
    Stack,
)
from graphdl.kernels.schedule import levels
from graphdl.types import TensorType

#: Nanoseconds of work beyond which other Python threads may run meanwhile.
LONG = 50_000
#: Parts of a shared launch: enough that a thread that is late holds up little.
PARTS = 16


class Status(Struct, frozen=True, eq=False):
    """The status word of a program, or of a body within it."""

    word: NDArray[np.int64]
    program: Program


class Runnable(Protocol):
    """What an entry needs of a program: its tape, and how it has to be run.

    cost: nanoseconds, estimated. calls_blas, calls_python: whether kernels do.
    """

    @property
    def tape(self) -> Tape: ...
    @property
    def cost(self) -> float: ...
    @property
    def calls_blas(self) -> bool: ...
    @property
    def calls_python(self) -> bool: ...


class Native(Struct, frozen=True, eq=False):
    """A program with addresses.

    kernels: the native function of each launch. patches: int64 rows (leaf, slot address, bytes), a
    leaf being an argument or, after those, a result. status: its own and those of its bodies.
    rows: what each row of the tape runs. times: what a stopwatch writes, see `tape.with_times`.
    bodies: those of each launch.
    """

    program: Program
    memory: Memory
    kernels: Sequence[native.Kernel | None]
    tape: Tape
    status: Sequence[Status]
    rows: Sequence[Row]
    times: NDArray[np.int64]
    bodies: Sequence[Sequence[Native]]

    @property
    def cost(self) -> float:
        """Nanoseconds of work."""
        return sum(launch.cost for launch in self.program.launches)

    @property
    def calls_blas(self) -> bool:
        """Whether a kernel calls BLAS or LAPACK."""
        return uses_blas(self.program)

    @property
    def calls_python(self) -> bool:
        """Whether a kernel calls Python."""
        return calls_python(self.program)


class Row(Struct, frozen=True, eq=False):
    """A row of the tape: its words, which launches it runs, and the table of several run as one."""

    words: tuple[int, int, int, int]
    launches: tuple[int, ...]
    table: NDArray[np.int64] | None = None

    @property
    def shares(self) -> NDArray[np.int64]:
        """Where a stopwatch adds up the times of several launches that are run as one.

        They are cut into parts that run side by side, so these only say how the row's time divides.
        """
        return np.ones(1, np.int64) if self.table is None else self.table[-len(self.launches) :]


def build(
    program: Program,
    memory: Memory,
    functions: Mapping[str, int] | None = None,
    inner: Mapping[str, int] | None = None,
) -> Native:
    """Compile what the cache does not hold, and fill the tables.

    `functions` run tapes and many kernels as one: see `tape.native_functions`. `inner` do so in
    the bodies of loops and branches, if these are others.
    """
    functions = functions or native_functions()
    # LLVM works on what all programs share while Numba, if it is needed, is being imported
    shared = Thread(target=_load_shared, args=(program,))
    shared.start()
    spare = [source for launch in program.launches for source in launch.spare]
    generated = [not (launch.bodies or is_idle(launch, memory)) for launch in program.launches]
    wanted = [
        x.source for x, made_here in zip(program.launches, generated, strict=True) if made_here
    ]
    made = iter(native.compiled(wanted + spare))
    kernels = [next(made) if made_here else None for made_here in generated]
    shared.join()
    below = inner or functions
    alone = {**below, "run": below["run_serial"]}
    bodies = [
        [_Inner.of(body, alone if launch.is_side_by_side else below) for body in launch.bodies]
        for launch in program.launches
    ]
    arena = np.zeros(memory.arena_bytes + ALIGNMENT, np.uint8)
    arena_at = -(-arena.ctypes.data // ALIGNMENT) * ALIGNMENT
    constants = [constant_array(node) for node in program.constants]
    sizes = [len(launch.words) for launch in program.launches]
    words = np.zeros(sum(sizes), np.int64)
    tables = words.ctypes.data + 8 * np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    patches: list[tuple[int, int, int]] = []
    stacks: dict[Stack, Growing] = {}
    count = len(program.graph.inputs)
    position = 0

    def where(place: Place) -> tuple[int | None, int]:
        """The leaf to patch in, or None, and the address."""
        if place.kind == "argument":
            return place.index, 0
        if place.kind == "result":
            return count + place.index, 0
        if place.kind == "constant":
            return None, constants[place.index].ctypes.data
        return None, arena_at + place.offset

    for launch, kernel, own in zip(program.launches, kernels, bodies, strict=True):
        for word in launch.words:
            if isinstance(word, BodyWord):
                words[position] = own[word.body].words[word.field]
            elif isinstance(word, Stack):
                words[position] = stacks.setdefault(word, Growing()).address
            elif isinstance(word, Address):
                leaf, address = where(memory.places[word.where])
                if leaf is None:
                    words[position] = address + word.offset
                else:
                    patches.append((leaf, words.ctypes.data + 8 * position, word.offset))
            elif isinstance(word, Routine):
                words[position] = blas.library().addresses[word.name]
            else:
                entry = kernel.address if kernel is not None else 0
                words[position] = entry if isinstance(word, Entry) else word
            position += 1
    keep: list[object] = [arena, words, constants, kernels, bodies, stacks]
    rows = _rows(program, memory, kernels, tables, functions["multi"])
    launches, times = with_times([row.words for row in rows])
    keep += [row.table for row in rows]
    tape = Tape(launches, np.array(patches, np.int64).reshape(-1, 3), tuple(keep))
    status = [state for own in bodies for body in own for state in body.native.status]
    status += _status(program, memory, arena, arena_at)
    return Native(
        program,
        memory,
        kernels,
        tape,
        status,
        rows,
        times,
        [[body.native for body in own] for own in bodies],
    )


def _load_shared(program: Program) -> None:
    """Load, or compile, the native code that a program calls beside its own kernels."""
    for core in sorted({launch.core for launch in program.launches if launch.core is not None}):
        cores.address(core)
    entry_code.entry_address()


class _Inner(Struct, frozen=True):
    """The body of a loop or a branch with addresses, as six words of a table name it."""

    native: Native
    bases: NDArray[np.int64]
    words: tuple[int, ...]

    @staticmethod
    def of(body: Body, functions: Mapping[str, int]) -> _Inner:
        made = build(body.program, body.memory, functions)
        graph = body.program.graph
        bases = np.zeros(len(graph.inputs) + len(graph.outputs), np.int64)
        patches, launches = made.tape.patches, made.tape.launches
        words = (
            bases.ctypes.data,
            patches.ctypes.data,
            len(patches),
            launches.ctypes.data,
            len(launches),
            functions["run"],
        )
        return _Inner(made, bases, words)


def _rows(
    program: Program,
    memory: Memory,
    kernels: Sequence[native.Kernel | None],
    tables: NDArray[np.int64],
    multi: int,
) -> list[Row]:
    """The rows of the tape, level by level; a level that is worth sharing is one launch.

    A loop whose steps are worth sharing is a launch of no parts: see `graphdl.kernels.cpu.tape`.
    One whose steps run side by side is a launch of its own, of as many parts as iterations.
    """
    rows: list[Row] = []

    def words(i: int) -> tuple[int, int, int]:
        launch = program.launches[i]
        return _address(launch, kernels[i]), int(tables[i]), launch.iterations

    for level in levels(program.launches, memory):
        running = [
            i
            for i in level
            if program.launches[i].iterations and not is_idle(program.launches[i], memory)
        ]
        side_by_side = [i for i in running if program.launches[i].is_side_by_side]
        loops = [
            i for i in running if i not in side_by_side and _shares_itself(program.launches[i])
        ]
        others = [i for i in running if i not in loops and i not in side_by_side]
        cost = sum(program.launches[i].cost for i in others)
        if is_worth_sharing(cost) and len(others) > 1:
            table, count = multi_table(map(words, others))
            multi_words = (multi, table.ctypes.data, count, min(count, PARTS * 2))
            rows.append(Row(multi_words, tuple(others), table))
        else:
            parts = PARTS if is_worth_sharing(cost) else 1
            for i in others:
                launch = words(i)
                rows.append(Row((*launch, min(launch[2], parts)), (i,)))
        rows += [Row((*words(i), program.launches[i].iterations), (i,)) for i in side_by_side]
        rows += [Row((*words(i), 0), (i,)) for i in loops]
    return rows


def is_worth_sharing(cost: float) -> bool:
    """Whether threads share so many nanoseconds of work."""
    return cost > machine.current().share


def _shares_itself(launch: Launch) -> bool:
    """Whether a loop or a branch has steps that threads share."""
    return any(
        is_worth_sharing(sum(inner.cost for inner in body.program.launches))
        for body in launch.bodies
    )


def _address(launch: Launch, kernel: native.Kernel | None) -> int:
    if kernel is None:
        return control_code.addresses()[launch.source.name]
    return kernel.address if launch.core is None else cores.address(launch.core)


def constant_array(node: Any) -> NDArray[Any]:
    """The value of a constant of a program, as it lies in memory."""
    return np.ascontiguousarray(node.op.evaluate(**dict(node.attrs))).reshape(node.shape)


def _status(
    program: Program, memory: Memory, arena: NDArray[np.uint8], arena_at: int
) -> list[Status]:
    if program.status is None:
        return []
    start = arena_at - arena.ctypes.data + memory.places[program.status].offset
    return [Status(arena[start : start + 8].view(np.int64), program)]


def uses_blas(program: Program) -> bool:
    """Whether a kernel calls BLAS or LAPACK."""
    return any(
        any(isinstance(word, Routine) for word in launch.words)
        or any(uses_blas(body.program) for body in launch.bodies)
        for launch in program.launches
    )


def entry_of(
    made: Runnable,
    arguments: Sequence[Tree],
    result: Tree,
    fallback: Callable[..., Any] | None = None,
    results: Sequence[Tree] | None = None,
    is_timed: bool = False,
) -> Callable[..., Any]:
    """The function that takes arguments nested as `arguments` and returns `result`.

    Results that are arguments, as the patches, count arrays and numbers only; an entry counts what
    is static in the arguments as well. `results` are the leaves of `result` in the program's order,
    if that is another one than the tree's. `is_timed`: under a stopwatch, which `times` of a
    program that was built with `tape.timed_functions` hold.
    """
    leaves = entry.leaves(arguments)
    places = [i for i, leaf in enumerate(leaves) if not isinstance(leaf, entry.StaticSpec)]
    tape = made.tape
    new = _new_leaves(entry.TupleSpec(tuple(results))) if results else _new_leaves(result)
    order = {id(leaf): i for i, leaf in enumerate(_new_leaves(result))}
    numbers = np.array([*places, *(len(leaves) + order[id(leaf)] for leaf in new)], np.int64)
    if not np.array_equal(numbers, np.arange(len(numbers))):
        patches = tape.patches.copy()
        patches[:, 0] = numbers[patches[:, 0]]
        tape = replace(tape, patches=patches)
        result = _renumbered(result, places)
    # Python code that a program calls, from any thread, needs the lock that a short one would hold
    is_long = made.cost > LONG or made.calls_python
    spec = entry.ProgramSpec(tuple(arguments), result, tape, made.calls_blas, is_long, is_timed)
    return entry.build(spec, fallback)


def _new_leaves(result: Tree) -> list[entry.New]:
    return [leaf for leaf in entry.leaves([result]) if isinstance(leaf, entry.New)]


def _renumbered(tree: Tree, places: Sequence[int]) -> Tree:
    if isinstance(tree, entry.Argument):
        return entry.Argument(places[tree.leaf])
    if isinstance(tree, entry.Container):
        return replace(tree, items=tuple(_renumbered(item, places) for item in tree.items))
    return tree


def array_spec(type: TensorType, donated: bool = False) -> entry.ArraySpec:
    return entry.ArraySpec(type.dtype, type.shape, donated)


__all__ = [
    "Native",
    "Row",
    "Runnable",
    "array_spec",
    "build",
    "constant_array",
    "entry_of",
    "uses_blas",
]
