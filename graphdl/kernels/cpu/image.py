"""A program as data that knows no address: what an instance of it is made of, any number of times.

The tables of a program name the places of its values. `graphdl.kernels.cpu.build` writes them once,
for calls from Python, which follow one another. An image holds the same words with the places in
the arena, in constants and of functions left open: `graphdl.kernels.cpu.call_code` makes instances
of it for calls from native code, which may run side by side, and a C program gets it as an object.

    instance: words (tables, tapes, patches of the program and of all bodies in it), then arenas
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from graphdl.graph import Node
from graphdl.kernels.cpu import (
    blas,
    call_code,
    control_code,
    cores,
    entry_code,
    tape,
)
from graphdl.kernels.cpu.build import Native, constant_array, uses_blas
from graphdl.kernels.cpu.native import Kernel
from graphdl.kernels.program import (
    ALIGNMENT,
    Address,
    BodyWord,
    Entry,
    Launch,
    Program,
    Routine,
    Stack,
)


class Symbol(Struct, frozen=True):
    """Something with an address of its own, outside of instances.

    kind: "kernel" (named by its symbol in object code), "core", "control", "routine" of BLAS or
    LAPACK, "runtime" (a function of graphdl.kernels.cpu.tape), or "constant" (its number).
    """

    kind: str
    name: str


class Check(Struct, frozen=True):
    """A status word within an instance, of which program, and what is added to its codes.

    Codes below FAILED mean the same for all programs; those from there on number the checks of one
    program, and behind `first` those of all.
    """

    place: int
    program: Program
    first: int


class Image(Struct, frozen=True, eq=False):
    """A program without addresses.

    words: what an instance begins with. own: which of them are offsets from where it begins.
    symbols: those that are addresses of symbols. size: bytes of an instance. patches, tape: where
    they are; rows: of the tape. stacks: places of memory that grows.
    """

    native: Native
    words: Sequence[int]
    own: Sequence[int]
    symbols: Sequence[tuple[int, Symbol]]
    constants: Sequence[NDArray[Any]]
    kernels: Mapping[str, Kernel]
    size: int
    patches: int
    patch_count: int
    tape: int
    rows: int
    checks: Sequence[Check]
    stacks: Sequence[int]


class _Writer:
    """An image being written: words that become addresses are noted."""

    def __init__(self) -> None:
        self.words: list[int] = []
        self.own: list[int] = []
        self.in_arenas: list[int] = []
        self.symbols: list[tuple[int, Symbol]] = []
        self.arenas = 0  # bytes
        self.constants: dict[Node, int] = {}
        self.kernels: dict[str, Kernel] = {}
        self.statuses: list[tuple[int, Program]] = []  # in the arenas
        self.stacks: list[int] = []

    def reserve(self, count: int) -> int:
        """The number of the first of so many new words."""
        start = len(self.words)
        self.words += [0] * count
        return start

    def arena(self, size: int, alignment: int) -> int:
        self.arenas = -(-self.arenas // alignment) * alignment
        start = self.arenas
        self.arenas += size
        return start

    def place(self, at: int, word: int) -> None:
        """Let a word be the address of another one."""
        self.words[at] = 8 * word
        self.own.append(at)

    def in_arena(self, at: int, offset: int) -> None:
        self.words[at] = offset
        self.in_arenas.append(at)

    def symbol(self, at: int, symbol: Symbol, beyond: int = 0) -> None:
        self.words[at] = beyond
        self.symbols.append((at, symbol))

    def constant(self, node: Node) -> Symbol:
        number = self.constants.setdefault(node, len(self.constants))
        return Symbol("constant", str(number))


class _Placed(Struct, frozen=True):
    """A program within an image: the numbers of its first words, and how many rows they make."""

    patches: int
    patch_count: int
    tape: int
    rows: int


def image_of(native: Native) -> Image:
    """The image of a program that has been built."""
    out = _Writer()
    placed = _program(out, native)
    start = -(-8 * len(out.words) // ALIGNMENT) * ALIGNMENT
    for at in out.in_arenas:
        out.words[at] += start
    checks: list[Check] = []
    first = 0
    for place, program in out.statuses:
        checks.append(Check(start + place, program, first))
        first += len(program.checks)
    return Image(
        native,
        out.words,
        sorted(out.own + out.in_arenas),
        out.symbols,
        [constant_array(node) for node in out.constants],
        out.kernels,
        start + out.arenas,
        8 * placed.patches,
        placed.patch_count,
        8 * placed.tape,
        placed.rows,
        checks,
        [8 * at for at in out.stacks],
    )


def _program(out: _Writer, native: Native, runner: str = "run") -> _Placed:
    """Write a program whose bodies that function of the runtime runs."""
    program, memory = native.program, native.memory
    bodies = [
        [_body(out, body, "run_serial" if launch.is_side_by_side else runner) for body in inner]
        for launch, inner in zip(program.launches, native.bodies, strict=True)
    ]
    arena = out.arena(memory.arena_bytes, program.alignment)
    patches: list[tuple[int, int, int]] = []
    stacks: dict[Stack, int] = {}
    tables = []
    for launch, kernel, inner in zip(program.launches, native.kernels, bodies, strict=True):
        table = out.reserve(len(launch.words))
        tables.append(table)
        for at, word in enumerate(launch.words, table):
            if isinstance(word, Address):
                _address(out, native, arena, at, word, patches)
            elif isinstance(word, BodyWord):
                _body_word(out, at, inner[word.body], word.field)
            elif isinstance(word, Stack):
                if word not in stacks:
                    stacks[word] = out.reserve(2)
                    out.stacks.append(stacks[word])
                out.place(at, stacks[word])
            elif isinstance(word, Routine):
                out.symbol(at, Symbol("routine", word.name))
            elif isinstance(word, Entry):
                if kernel is not None:
                    out.symbol(at, _kernel(out, kernel))
            else:
                out.words[at] = word
    if program.status is not None:
        out.statuses.append((arena + memory.places[program.status].offset, program))
    functions = [
        _function(out, launch, kernel)
        for launch, kernel in zip(program.launches, native.kernels, strict=True)
    ]
    return _Placed(
        _patches(out, patches),
        len(patches),
        _tape(out, native, tables, functions),
        len(native.rows),
    )


def _address(
    out: _Writer,
    native: Native,
    arena: int,
    at: int,
    word: Address,
    patches: list[tuple[int, int, int]],
) -> None:
    place = native.memory.places[word.where]
    if place.kind == "arena":
        out.in_arena(at, arena + place.offset + word.offset)
    elif place.kind == "constant":
        node = native.program.constants[place.index]
        out.symbol(at, out.constant(node), word.offset)
    else:
        first = len(native.program.graph.inputs) if place.kind == "result" else 0
        patches.append((first + place.index, at, word.offset))


def _kernel(out: _Writer, kernel: Kernel) -> Symbol:
    out.kernels[kernel.symbol] = kernel
    return Symbol("kernel", kernel.symbol)


def _function(out: _Writer, launch: Launch, kernel: Kernel | None) -> Symbol:
    """What a launch runs."""
    if kernel is None:
        return Symbol("control", launch.source.name)
    return _kernel(out, kernel) if launch.core is None else Symbol("core", launch.core)


def _patches(out: _Writer, patches: Sequence[tuple[int, int, int]]) -> int:
    start = out.reserve(3 * len(patches))
    for at, (leaf, slot, offset) in zip(range(start, len(out.words), 3), patches, strict=True):
        out.words[at] = leaf
        out.place(at + 1, slot)
        out.words[at + 2] = offset
    return start


def _tape(out: _Writer, native: Native, tables: Sequence[int], functions: Sequence[Symbol]) -> int:
    start = out.reserve(4 * len(native.rows))
    for at, row in zip(range(start, len(out.words), 4), native.rows, strict=True):
        _, _, count, parts = row.words
        if row.table is None:
            (launch,) = row.launches
            out.symbol(at, functions[launch])
            out.place(at + 1, tables[launch])
        else:
            out.symbol(at, Symbol("runtime", "multi"))
            out.place(
                at + 1, _multi(out, row.table, [(functions[i], tables[i]) for i in row.launches])
            )
        out.words[at + 2 : at + 4] = count, parts
    return start


def _multi(out: _Writer, table: NDArray[np.int64], launches: Sequence[tuple[Symbol, int]]) -> int:
    """The table of many launches that are run as one."""
    start = out.reserve(len(table))
    out.words[start:] = table.tolist()
    for at, (function, place) in zip(range(start + 1, len(out.words), 4), launches, strict=False):
        out.symbol(at, function)
        out.place(at + 1, place)
    return start


class _PlacedBody(Struct, frozen=True):
    bases: int
    placed: _Placed
    runner: str


def _body(out: _Writer, native: Native, runner: str) -> _PlacedBody:
    graph = native.program.graph
    placed = _program(out, native, runner)
    return _PlacedBody(out.reserve(len(graph.inputs) + len(graph.outputs)), placed, runner)


def _body_word(out: _Writer, at: int, body: _PlacedBody, field: int) -> None:
    """One of the words that name a body: see `control_code.BODY_WORDS`."""
    placed = body.placed
    if field == 5:
        out.symbol(at, Symbol("runtime", body.runner))
    elif field in (2, 4):
        out.words[at] = {2: placed.patch_count, 4: placed.rows}[field]
    else:
        out.place(at, {0: body.bases, 1: placed.patches, 3: placed.tape}[field])


# ------------------------------------------------------------------------- an image in this process


class LoadedImage(Struct, frozen=True, eq=False):
    """An image with addresses, for `call_code.functions()["call"]`, which takes `address`.

    It must not be dropped while anybody may call it.
    """

    image: Image
    words: NDArray[np.int64]
    keep: tuple[object, ...]

    @property
    def address(self) -> int:
        return int(self.words.ctypes.data)


def load(image: Image) -> LoadedImage:
    """The image with the addresses of this process."""
    words = np.array(image.words, np.int64)
    for at, symbol in image.symbols:
        words[at] += _address_of(image, symbol)
    own = np.array(image.own, np.int64)
    status = np.array([(c.place, c.first) for c in image.checks], np.int64).reshape(-1, 2)
    stacks = np.array(image.stacks, np.int64)
    slots = np.zeros(call_code.SLOTS * call_code.SLOT // 8 + 16, np.int64)
    calls_blas = uses_blas(image.native.program)
    library = blas.library() if calls_blas else None
    holds = library is not None and library.set_threads != 0
    limit = (
        entry_code.blas_spec(library.get_threads, library.set_threads)
        if library is not None
        else np.zeros(1, np.int64)
    )
    values = {
        "size": image.size,
        "words": words.ctypes.data,
        "word_count": len(words),
        "own": own.ctypes.data,
        "own_count": len(own),
        "patches": image.patches,
        "patch_count": image.patch_count,
        "tape": image.tape,
        "rows": image.rows,
        "status": status.ctypes.data,
        "status_count": len(status),
        "stacks": stacks.ctypes.data,
        "stack_count": len(stacks),
        "run": tape.native_functions()["run"],
        "enter": entry_code.functions()["enter_blas"] if holds else 0,
        "leave": entry_code.functions()["leave_blas"] if holds else 0,
        "blas": limit.ctypes.data,
        "slots": -(-slots.ctypes.data // call_code.SLOT) * call_code.SLOT,
    }
    described = np.array([values[name] for name in call_code.IMAGE], np.int64)
    return LoadedImage(image, described, (words, own, status, stacks, slots, limit))


def _address_of(image: Image, symbol: Symbol) -> int:
    if symbol.kind == "kernel":
        return image.kernels[symbol.name].address
    if symbol.kind == "core":
        return cores.address(symbol.name)
    if symbol.kind == "control":
        return control_code.addresses()[symbol.name]
    if symbol.kind == "routine":
        return blas.library().addresses[symbol.name]
    if symbol.kind == "constant":
        return int(image.constants[int(symbol.name)].ctypes.data)
    return tape.native_functions()[symbol.name]


__all__ = ["Check", "Image", "LoadedImage", "Symbol", "image_of", "load"]
