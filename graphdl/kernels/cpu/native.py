"""Kernels as native functions: from the cache if they are there, compiled if not.

A process that finds all its kernels in the cache never imports Numba, which takes longer than all
the rest: the front end is imported when there is something to compile, and not before.
"""

from __future__ import annotations

import linecache
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from msgspec import Struct

from graphdl.collecting import uncollected
from graphdl.kernels import cache
from graphdl.kernels.cpu import loading
from graphdl.kernels.cpu.host import host
from graphdl.kernels.source import KernelSource
from graphdl.kernels.user import called_in


class Kernel(Struct, frozen=True):
    """A native function `void symbol(int64 *table, int64 lo, int64 hi)` at `address`.

    `object_code` is an object file that defines it and can be linked into a C program. `path` is
    the file that holds the source text. `from_cache` tells that this process did not compile it.
    """

    source: KernelSource
    symbol: str
    address: int
    object_code: bytes
    path: str
    from_cache: bool

    def llvm_ir(self) -> str:
        """The LLVM IR of the kernel before optimisation. Imports Numba."""
        return _llvm_ir(self.source.text, self.symbol, self.path)

    def assembly(self) -> str:
        """The assembly of the kernel, compiled anew for the purpose. Imports Numba."""
        from graphdl.kernels.cpu import llvm  # where it must: see there

        return llvm.assembly(self.llvm_ir())


_lock = threading.RLock()
_known: dict[str, Kernel] = {}  # by the text
_addresses: dict[str, int] = {}  # by the symbol
_compiled = 0


def compile_count() -> int:
    """How many kernels this process has compiled; one loaded from the cache does not count."""
    return _compiled


def compiled(sources: Sequence[KernelSource]) -> list[Kernel]:
    """The native function of every source, in the order given; equal texts share one.

    Raises KernelError where a text is not one that a kernel can have.
    """
    with _lock:
        new = {source.text: source for source in sources if source.text not in _known}
        _load(list(new.values()))
        return [_known[source.text] for source in sources]


def loaded(symbols: Sequence[str]) -> dict[str, int] | None:
    """The addresses of kernels by their symbols, without texts; None if the cache lacks one."""
    with _lock:
        new = {symbol for symbol in symbols if symbol not in _addresses}
        objects: dict[str, bytes] = {}
        for symbol in sorted(new):
            code = cache.read(symbol.removeprefix(cache.SYMBOL))
            if code is None:
                return None
            objects[symbol] = code
        _addresses.update(loading.load(objects))
        return {symbol: _addresses[symbol] for symbol in symbols}


def _load(sources: Sequence[KernelSource]) -> None:
    """Make sources known that are not."""
    target = " ".join(host())
    keys = [cache.key_of(source.text, target) for source in sources]
    symbols = [cache.SYMBOL + key for key in keys]
    kept = [all(user.is_kept for user in called_in(source.text)) for source in sources]
    codes = [cache.read(key) if keep else None for key, keep in zip(keys, kept, strict=True)]
    paths = [str(cache.source_path(key) or "") for key in keys]
    missing = [i for i, code in enumerate(codes) if code is None]
    for i in missing:
        paths[i] = _place_source(keys[i], sources[i])
    objects = _compile([(sources[i].text, symbols[i], paths[i]) for i in missing])
    for i, code in zip(missing, objects, strict=True):
        codes[i] = code
        if kept[i]:
            cache.write(keys[i], code)
    found = {symbol: code for symbol, code in zip(symbols, codes, strict=True) if code is not None}
    addresses = loading.load(found)
    for i, source in enumerate(sources):
        address, code = addresses[symbols[i]], found[symbols[i]]
        kernel = Kernel(source, symbols[i], address, code, paths[i], from_cache=i not in missing)
        _known[source.text] = kernel
        _addresses[symbols[i]] = address


def _place_source(key: str, source: KernelSource) -> str:
    """Make the text findable for tracebacks and debuggers: as a file, or else in `linecache`."""
    path = cache.write_source(key, source.text)
    if path is None:
        path = f"<graphdl kernel {source.name} {key[:8]}>"
        lines = source.text.splitlines(keepends=True)
        linecache.cache[path] = (len(source.text), None, lines, path)
    return path


def _compile(jobs: Sequence[tuple[str, str, str]]) -> list[bytes]:
    """The object code of every (text, symbol, path).

    The front end is Python, and LLVM runs without the interpreter's lock. So one thread lowers a
    kernel while another one optimises the kernel before.
    """
    global _compiled
    if not jobs:
        return []
    # Imported here, as Numba is, because a warm process has no use for it.
    from concurrent.futures import ThreadPoolExecutor

    from graphdl.kernels.cpu import llvm

    with _short_turns(), uncollected(), ThreadPoolExecutor(1) as assembler:
        waiting = [assembler.submit(llvm.object_code, _llvm_ir(*job)) for job in jobs]
        objects = [job.result() for job in waiting]
    _compiled += len(objects)
    return objects


@contextmanager
def _short_turns() -> Iterator[None]:
    """Let a thread that comes back from LLVM have the interpreter soon: it will not keep it."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(min(interval, 0.0002))
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def _llvm_ir(text: str, symbol: str, path: str) -> str:
    # Imported here because it imports Numba: see the head of this file.
    from graphdl.kernels.cpu import frontend

    return frontend.llvm_ir(text, symbol, path)
