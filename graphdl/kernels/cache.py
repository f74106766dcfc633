"""Object code on disk, by content: a second process compiles nothing.

The key of an entry is a hash of all that decides the machine code: the text of the kernel, the code
of this package that turns it into instructions, the versions of Numba and LLVM, and the processor.
So an entry is never out of date, and nothing has to be invalidated.

An entry is two files: KEY.o holds a checksum and the object, KEY.py is the text, for people and
debuggers. KEY.plan is how a whole program uses such objects (graphdl.kernels.cpu.plan), with a
checksum as well; KEY.host is what LLVM calls the processor (graphdl.kernels.cpu.host). All are
written beside their place and renamed into it, so that any number of
processes may write and read at once. An entry that fails its checksum is treated as absent. Where
the directory cannot be written everything works, uncached.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import llvmlite
from msgspec import Struct

from graphdl.folder import directory as directory

#: Bytes that the cache may take; the entries not used for the longest time go first.
SIZE_LIMIT = 128 << 20

#: The symbol that an entry defines is this and its key.
SYMBOL = "graphdl_"

_MAGIC = b"graphdl object 1\n"
_DIGEST_SIZE = hashlib.sha256().digest_size
_KEPT_WHEN_FULL = 0.9  # trimming a little further than asked keeps it from being done every time
_TRIM_EVERY = 16 << 20  # bytes that a process writes before it looks at the size again
_LOOK_AGAIN = 3600.0  # seconds after which the first write of a process looks, whoever looked last:
# to look at 100,000 files takes 0.5 s
_ABANDONED = 3600.0  # seconds after which a temporary file must be of a process that died

_unique = count()
_lock = threading.Lock()
_unchecked: int | None = None  # bytes written since the last look at the size; None before a write
_warned = False


# -- keys ------------------------------------------------------------------------------------------


@cache
def toolchain() -> bytes:
    """A digest of what turns a text into machine code: Numba, llvmlite, and this package.

    Numba is not imported for it. The files of the package are hashed rather than its version
    trusted, so that a change of a formula needs no change of a version.
    """
    digest = hashlib.sha256()
    numba = find_spec("numba")
    for folder in numba.submodule_search_locations or () if numba else ():
        with contextlib.suppress(OSError):
            digest.update(Path(folder, "_version.py").read_bytes())
    digest.update(f"llvmlite {llvmlite.__version__}\n".encode())
    here = Path(__file__).parent
    for path in sorted([*here.glob("*.py"), *here.glob("cpu/*.py")]):
        digest.update(f"{path.name}\n".encode())
        digest.update(path.read_bytes())
    return digest.digest()


def key_of(text: str, target: str) -> str:
    """The name of the entry for a kernel's text on a processor: 32 hexadecimal digits."""
    digest = hashlib.sha256(toolchain())
    for part in (target, text):
        data = part.encode()
        digest.update(f"{len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()[:32]


# -- the directory ---------------------------------------------------------------------------------


def source_path(key: str) -> Path | None:
    """Where the text of an entry lies, if there is a cache; the file need not exist."""
    folder = directory()
    return folder and folder / f"{key}.py"


def read(key: str, kind: str = "o") -> bytes | None:
    """The object, or what else, of an entry; None if there is none or it is damaged.

    Counts as a use.
    """
    code = _lent.get(key)
    return _read(key, kind) if code is None else code


@contextlib.contextmanager
def lent(objects: Mapping[str, bytes]) -> Iterator[None]:
    """Let these be read as if they were entries, but not written to the directory."""
    new = {key: code for key, code in objects.items() if key not in _lent}
    _lent.update(new)
    try:
        yield
    finally:
        for key in new:
            _lent.pop(key, None)


_lent: dict[str, bytes] = {}


def _read(key: str, kind: str) -> bytes | None:
    folder = directory()
    if folder is None:
        return None
    path = folder / f"{key}.{kind}"
    try:
        data = path.read_bytes()
    except OSError:
        return None
    start = len(_MAGIC) + _DIGEST_SIZE
    code = data[start:]
    if data[:start] != _MAGIC + _checksum(key, code):
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return code


def write_source(key: str, text: str) -> str | None:
    """Write the text of an entry; returns its path, or None where it cannot be written."""
    folder = directory()
    path = folder and folder / f"{key}.py"
    return str(path) if path and _replace(path, text.encode()) else None


def write(key: str, code: bytes, kind: str = "o") -> None:
    """Write the object, or what else, of an entry; where that is impossible, go on.

    A warning says once that objects are not kept. Without the rest, as where all objects lie in a
    directory that somebody else has filled, everything still works, and starts nearly as fast.
    """
    global _unchecked
    folder = directory()
    data = _MAGIC + _checksum(key, code) + code
    if folder is None or not _replace(folder / f"{key}.{kind}", data):
        if kind == "o":
            _warn_once(folder)
        return
    with _lock:
        look = _nobody_looked(folder) if _unchecked is None else _unchecked >= _TRIM_EVERY
        _unchecked = 0 if look else (_unchecked or 0) + len(data)
    if look:
        trim(folder, SIZE_LIMIT)


def _nobody_looked(folder: Path) -> bool:
    """Whether it is long ago that a process looked at the size; from now on it is not."""
    stamp = folder / ".looked"
    with contextlib.suppress(OSError):
        if time.time() - stamp.stat().st_mtime < _LOOK_AGAIN:
            return False
    with contextlib.suppress(OSError):
        stamp.touch()
    return True


def _checksum(key: str, code: bytes) -> bytes:
    return hashlib.sha256(key.encode() + code).digest()


def _replace(path: Path, data: bytes) -> bool:
    """Put a file in its place at once, so that no reader sees a part of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{next(_unique)}.tmp")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        return False
    return True


def _warn_once(folder: Path | None) -> None:
    global _warned
    if not _warned:
        _warned = True
        place = f"{folder} cannot be written" if folder else "the home directory is not known"
        warnings.warn(
            f"compiled kernels are not kept for the next process: {place}. "
            "Set GRAPHDL_CACHE_DIR to a directory that can be written.",
            RuntimeWarning,
            stacklevel=2,
        )


# -- size ------------------------------------------------------------------------------------------


class Info(Struct, frozen=True):
    """What the cache holds: its place, the number of its entries, and its size in bytes."""

    directory: Path | None
    entries: int
    size: int
    limit: int


class _File(Struct, frozen=True):
    path: Path
    size: int
    used: float


def _files(folder: Path | None) -> Iterator[_File]:
    """The files of the cache, and no others that a user may keep in the same directory."""
    if folder is None:
        return
    try:
        with os.scandir(folder) as found:
            for item in found:
                stem = item.name.removeprefix(".").split(".")[0]
                if len(stem) != 32 or not item.name.endswith(
                    (".o", ".plan", ".host", ".py", ".tmp")
                ):
                    continue
                with contextlib.suppress(OSError):  # another process may have removed it
                    status = item.stat()
                    yield _File(Path(item.path), status.st_size, status.st_mtime)
    except OSError:
        return


def info() -> Info:
    """What the cache holds now."""
    folder = directory()
    files = list(_files(folder))
    entries = sum(file.path.suffix == ".o" for file in files)
    return Info(folder, entries, sum(file.size for file in files), SIZE_LIMIT)


def clear() -> int:
    """Remove every entry; returns how many there were. Kernels already loaded stay usable."""
    removed = 0
    for file in _files(directory()):
        with contextlib.suppress(OSError):
            file.path.unlink()
            removed += file.path.suffix == ".o"
    return removed


def trim(folder: Path, limit: int) -> None:
    """Remove the entries not used for the longest time until the rest fits into `limit` bytes."""
    files = list(_files(folder))
    newest = max((file.used for file in files), default=0.0)
    entries: dict[str, list[_File]] = {}
    for file in files:
        if file.path.suffix != ".tmp":
            entries.setdefault(file.path.stem, []).append(file)
        elif file.used < newest - _ABANDONED:
            with contextlib.suppress(OSError):
                file.path.unlink()
    size = sum(file.size for file in files)
    if size <= limit:
        return
    for entry in sorted(entries.values(), key=lambda entry: max(file.used for file in entry)):
        if size <= limit * _KEPT_WHEN_FULL:
            return
        for file in entry:
            size -= file.size
            with contextlib.suppress(OSError):
                file.path.unlink()
