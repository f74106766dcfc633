"""Programs that another process has made: found by what was traced, without passes.

What a call needs of a program is words and the names of kernels (graphdl.kernels.cpu.image). A plan
is that as bytes, filed in the cache under a hash of all that it was made of: the graph as traced,
which arguments are donated, the memory budget, the processor and what it costs, this package, and
the packages that decide what kernels call. So a second process traces, looks up, loads kernels and
runs. Who wants to read the program has the passes run then: they make the same again.

A plan is left out where a program depends on the process (functions of the user's, memory that
grows while it runs), where it has large constants, and where checks are asked for.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cache as once
from importlib.util import find_spec
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from graphdl import machine
from graphdl.graph import Graph
from graphdl.kernels import cache
from graphdl.kernels.cpu import blas, control_code, cores, native, product
from graphdl.kernels.cpu.build import Native
from graphdl.kernels.cpu.host import host
from graphdl.kernels.cpu.image import Symbol, image_of
from graphdl.kernels.cpu.tape import Tape, native_functions
from graphdl.kernels.fingerprint import fingerprint
from graphdl.kernels.program import ALIGNMENT
from graphdl.kernels.shortfall import Shortfall

#: Bytes of a plan beyond which it is not kept: most of it are constants then.
_LARGEST = 4 << 20
_KIND = "plan"
#: What a program is made by, in folders of this package.
_MADE_BY = (".", "compiler", "kernels", "kernels/cpu", "numpy_functions", "ops", "transforms")


class Plan(Struct, frozen=True, array_like=True):
    """An image in bytes: see `graphdl.kernels.cpu.image.Image`.

    words, own: int64. symbols: what is named, each once; named: int64 rows (word, its number).
    over: the argument that each result is written over, or -1. statuses: places of status words.
    shortfall: by how much the memory budget is not kept.
    """

    words: bytes
    own: bytes
    symbols: list[tuple[str, str]]
    named: bytes
    constants: list[bytes]
    size: int
    patches: int
    patch_count: int
    tape: int
    rows: int
    statuses: list[int]
    over: list[int]
    cost: float
    calls_blas: bool
    shortfall: Shortfall | None


class Ready(Struct, frozen=True, eq=False):
    """What a call needs of a program (`graphdl.kernels.cpu.build.Runnable`), and its results.

    statuses: a word each, set where a kernel fails. over: the argument that each result is written
    over, or None. shortfall: by how much the memory budget is not kept.
    """

    tape: Tape
    statuses: Sequence[NDArray[np.int64]]
    over: Sequence[int | None]
    cost: float
    calls_blas: bool
    calls_python: bool = False
    shortfall: Shortfall | None = None


def ready(made: Native, shortfall: Shortfall | None = None) -> Ready:
    """The same of a program that was built in this process."""
    donated = made.memory.donated
    return Ready(
        made.tape,
        [status.word for status in made.status],
        [donated.get(node) for node in made.program.graph.outputs],
        made.cost,
        made.calls_blas,
        made.calls_python,
        shortfall,
    )


# -------------------------------------------------------------------------------------------- keys


def key_of(graph: Graph, donated: Sequence[int], memory_budget: int | None) -> str | None:
    """The name of the entry for a graph as traced; None if no other process has one like it."""
    found = fingerprint(graph)
    if found is None:
        return None
    # the machine is asked each time: `graphdl tune` may have measured it meanwhile
    asked = (sorted(donated), memory_budget, machine.current(), product.cores())
    digest = hashlib.sha256(_makers())
    digest.update(repr(asked).encode())
    digest.update(found)
    return digest.hexdigest()[:32]


@once
def _makers() -> bytes:
    """What turns graphs into programs here.

    The files of this package by size and time of change: to read them all would take 10 ms. Their
    folder counts too, so that another installation with equal times is another one.
    """
    package = Path(__file__).resolve().parents[2]
    lines = [" ".join(host()), np.__version__, *_files(_folder_of("scipy"), ["."])]
    lines += _files(package, _MADE_BY)
    return hashlib.sha256(cache.toolchain() + "\n".join(lines).encode()).digest()


def _folder_of(package: str) -> Path | None:
    """Where a package lies, which is not imported for it."""
    found = find_spec(package)
    return Path(found.origin).parent if found is not None and found.origin else None


def _files(package: Path | None, folders: Sequence[str]) -> Iterator[str]:
    """The place of a package, and of each source in these folders its name, size and time."""
    if package is None:
        return
    yield str(package)
    for folder in folders:
        with os.scandir(package / folder) as found:
            for item in sorted(found, key=lambda item: item.name):
                if item.name.endswith(".py"):
                    status = item.stat()
                    yield f"{folder}/{item.name} {status.st_size} {status.st_mtime_ns}"


# ------------------------------------------------------------------------------------------ writing


def keep(key: str, made: Native, shortfall: Shortfall | None = None) -> None:
    """File a program that was built in this process, if another one can use it."""
    found = plan_of(made, shortfall)
    if found is not None:
        data = msgspec.msgpack.encode(found)
        if len(data) <= _LARGEST:
            cache.write(key, data, _KIND)


def plan_of(made: Native, shortfall: Shortfall | None = None) -> Plan | None:
    """The plan of a program; None if it is of this process only."""
    constants = sum(node.type.nbytes for node in made.program.constants)
    if made.calls_python or constants > _LARGEST:
        return None
    image = image_of(made)
    if image.stacks:
        return None
    numbers: dict[Symbol, int] = {}
    named = [
        (at, numbers.setdefault(_by_object(symbol), len(numbers))) for at, symbol in image.symbols
    ]
    over = ready(made).over
    return Plan(
        _bytes(image.words),
        _bytes(image.own),
        [(symbol.kind, symbol.name) for symbol in numbers],
        _bytes(number for pair in named for number in pair),
        [array.tobytes() for array in image.constants],
        image.size,
        image.patches,
        image.patch_count,
        image.tape,
        image.rows,
        [check.place for check in image.checks],
        [-1 if leaf is None else leaf for leaf in over],
        made.cost,
        made.calls_blas,
        # the same program may come from other lines in another process
        shortfall.without_lines() if shortfall is not None else None,
    )


def _by_object(symbol: Symbol) -> Symbol:
    """A core by the name of its object code: to write its text, only to find that, takes 10 ms."""
    return Symbol("kernel", cores.code(symbol.name)[0]) if symbol.kind == "core" else symbol


def _bytes(numbers: Iterable[int]) -> bytes:
    return np.fromiter(numbers, np.int64).tobytes()


# ------------------------------------------------------------------------------------------ reading


def find(key: str) -> Ready | None:
    """The program of an entry, its kernels loaded; None if it, or one of them, is not there."""
    data = cache.read(key, _KIND)
    if data is None:
        return None
    found = msgspec.msgpack.decode(data, type=Plan)
    kernels = native.loaded([name for kind, name in found.symbols if kind == "kernel"])
    return None if kernels is None else _loaded(found, kernels)


def _loaded(plan: Plan, kernels: dict[str, int]) -> Ready:
    """The program with addresses, its tables and its arena in one piece of memory."""
    memory = np.zeros(plan.size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    memory = memory[start : start + plan.size]
    base = memory.ctypes.data
    constants = [np.frombuffer(content, np.uint8).copy() for content in plan.constants]
    words = memory[: len(plan.words)].view(np.int64)
    words[:] = np.frombuffer(plan.words, np.int64)
    words[np.frombuffer(plan.own, np.int64)] += base
    named = np.frombuffer(plan.named, np.int64).reshape(-1, 2)
    addresses = [_address(kind, name, kernels, constants) for kind, name in plan.symbols]
    words[named[:, 0]] += np.array(addresses, np.int64)[named[:, 1]]
    tape = Tape(
        _rows(words, plan.tape, plan.rows, 4),
        _rows(words, plan.patches, plan.patch_count, 3),
        (memory, constants),
    )
    statuses = [memory[place : place + 8].view(np.int64) for place in plan.statuses]
    over = [None if leaf < 0 else leaf for leaf in plan.over]
    return Ready(tape, statuses, over, plan.cost, plan.calls_blas, shortfall=plan.shortfall)


def _rows(words: NDArray[np.int64], place: int, count: int, width: int) -> NDArray[np.int64]:
    """Rows of words from so many bytes on."""
    first = place // 8
    return words[first : first + count * width].reshape(count, width)


def _address(
    kind: str, name: str, kernels: dict[str, int], constants: Sequence[NDArray[np.uint8]]
) -> int:
    if kind == "kernel":
        return kernels[name]
    if kind == "control":
        return control_code.addresses()[name]
    if kind == "routine":
        return blas.library().addresses[name]
    if kind == "constant":
        return int(constants[int(name)].ctypes.data)
    return native_functions()[name]


__all__ = ["Plan", "Ready", "find", "keep", "key_of", "plan_of", "ready"]
