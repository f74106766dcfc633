"""An executable in a file: its graph as data, and the object code that was made of it.

    magic, SHA-256 of the rest, msgpack of `Content`

Loading reads the graph, runs the passes on it as compiling does, and takes object code from the
file where it has what the passes ask for. Code is filed under the keys of the cache, which hash the
text of a kernel, the code of graphdl that compiled it, the versions of Numba and llvmlite, and the
processor. So code for another processor or version is not even looked at, and its place is taken by
what the cache holds or Numba compiles. A file holds no pickles, and nothing of Python's that runs;
the object code in it is machine code, like that of any library: load files of people you trust.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from graphdl.errors import FileError
from graphdl.graph import Graph
from graphdl.kernels import cache
from graphdl.kernels.cpu import cores
from graphdl.kernels.cpu.build import Native
from graphdl.kernels.cpu.native import compiled
from graphdl.native import graph_data
from graphdl.native.graph_data import GraphData

_MAGIC = b"graphdl executable 2\n"
T = TypeVar("T")
_DIGEST = hashlib.sha256().digest_size


class Asked(Struct, frozen=True, array_like=True):
    """What was asked of the program of a graph.

    weak: which leaves of the arguments are numbers of Python's. donated: leaves. memory_budget:
    bytes.
    """

    weak: list[bool]
    donated: list[int]
    checks: list[str]
    memory_budget: int | None


class Content(Struct, frozen=True, array_like=True):
    """What an executable is made of; objects: object code by its key in the cache."""

    graph: GraphData
    asked: Asked
    objects: dict[str, bytes]


#: Makes something of a graph.
Make = Callable[[Graph, Asked], T]


def save(path: str | os.PathLike[str], graph: Graph, asked: Asked, make: Make[Native]) -> Path:
    """Write a file. What will be loaded is made on the spot, to see which object code it asks for.

    The file takes its place when it is complete: a reader never sees a part of it.
    """
    data = graph_data.written(graph)
    native = make(graph_data.read(data), asked)
    payload = msgspec.msgpack.encode(Content(data, asked, _objects(native)))
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(_MAGIC + hashlib.sha256(payload).digest() + payload)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _objects(native: Native) -> dict[str, bytes]:
    """The object code of a program and of the bodies in it, by its key in the cache."""
    found: dict[str, bytes] = {}
    pending = [native]
    while pending:
        one = pending.pop()
        pending += [body for inner in one.bodies for body in inner]
        code = [(kernel.symbol, kernel.object_code) for kernel in one.kernels if kernel is not None]
        launches = one.program.launches
        spare = compiled([source for launch in launches for source in launch.spare])
        code += [(kernel.symbol, kernel.object_code) for kernel in spare]
        code += [cores.code(launch.core) for launch in launches if launch.core is not None]
        found |= {symbol.removeprefix(cache.SYMBOL): content for symbol, content in code}
    return found


def load(path: str | os.PathLike[str], make: Make[T]) -> T:
    """The executable of a file.

    Raises FileError for a file that is damaged, or none of these; OSError where it cannot be read.
    """
    data = Path(path).read_bytes()
    start = len(_MAGIC) + _DIGEST
    if not data.startswith(_MAGIC):
        other = data.startswith(_MAGIC[: _MAGIC.rindex(b" ")])
        reason = "was saved by another version of graphdl" if other else "is no saved executable"
        raise FileError(f"{os.fspath(path)} {reason}")
    if hashlib.sha256(data[start:]).digest() != data[len(_MAGIC) : start]:
        raise FileError(f"{os.fspath(path)} is damaged: its checksum is wrong. Save it again")
    try:
        content = msgspec.msgpack.decode(data[start:], type=Content)
    except msgspec.MsgspecError as error:
        raise FileError(f"{os.fspath(path)} is damaged: {error}") from error
    graph = graph_data.read(content.graph)
    with cache.lent(content.objects):
        return make(graph, content.asked)
