"""Kernels as native functions: from the cache if they are there, compiled if not.

A process that finds all its kernels in the cache never imports Numba, which takes longer than all
the rest: the front end is imported when there is something to compile, and not before.
"""

from __future__ import annotations

import linecache
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from graphdl.kernels import cache
from graphdl.kernels.cpu import llvm
from graphdl.kernels.source import KernelSource


@dataclass(frozen=True)
class Kernel:
    """A native function `void symbol(int64 *table, int64 lo, int64 hi)` at `address`.

    `object_code` is an object file that defines it and can be linked into a C program. `path` is
    the file that holds the source text. `from_cache` tells that this process did not compile it.
    """

    source: KernelSource
    symbol: str
    address: int
    object_code: bytes = field(repr=False)
    path: str
    from_cache: bool

    def llvm_ir(self) -> str:
        """The LLVM IR of the kernel before optimisation. Imports Numba."""
        return _llvm_ir(self.source.text, self.symbol, self.path)

    def assembly(self) -> str:
        """The assembly of the kernel, compiled anew for the purpose. Imports Numba."""
        return llvm.assembly(self.llvm_ir())


_lock = threading.RLock()
_known: dict[str, Kernel] = {}  # by the text
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


def _load(sources: Sequence[KernelSource]) -> None:
    """Make sources known that are not."""
    target = " ".join(llvm.host())
    keys = [cache.key_of(source.text, target) for source in sources]
    symbols = [f"graphdl_{key}" for key in keys]
    stored = [cache.read(key) for key in keys]
    paths = [str(cache.source_path(key) or "") for key in keys]
    codes: list[bytes] = []
    for i, source in enumerate(sources):
        code = stored[i]
        if code is None:
            paths[i] = _place_source(keys[i], source)
            code = _compile(source.text, symbols[i], paths[i])
            cache.write(keys[i], code)
        codes.append(code)
    addresses = llvm.load(dict(zip(symbols, codes, strict=True)))
    for i, source in enumerate(sources):
        _known[source.text] = Kernel(
            source, symbols[i], addresses[symbols[i]], codes[i], paths[i], stored[i] is not None
        )


def _place_source(key: str, source: KernelSource) -> str:
    """Make the text findable for tracebacks and debuggers: as a file, or else in `linecache`."""
    path = cache.write_source(key, source.text)
    if path is None:
        path = f"<graphdl kernel {source.name} {key[:8]}>"
        lines = source.text.splitlines(keepends=True)
        linecache.cache[path] = (len(source.text), None, lines, path)
    return path


def _compile(text: str, symbol: str, path: str) -> bytes:
    global _compiled
    code = llvm.object_code(_llvm_ir(text, symbol, path))
    _compiled += 1
    return code


def _llvm_ir(text: str, symbol: str, path: str) -> str:
    # Imported here because it imports Numba: see the head of this file.
    from graphdl.kernels.cpu import frontend

    return frontend.llvm_ir(text, symbol, path)
