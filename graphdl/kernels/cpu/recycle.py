"""Memory of large results, used again when the array that had it is gone.

A fresh large array is slow for a reason that has nothing to do with arithmetic: the system hands
out its pages one fault at a time and takes them back when the array is dropped. Three results of
1 MB each took 950 us to fill when they replaced those of the call before, and 200 us in memory
that was there already (median, Linux, glibc).

So programs allocate their results under a NumPy memory handler (`PyDataMem_SetHandler`, NEP 49)
that keeps the freed blocks of 64 KB and more for later requests of about their size. The arrays
are ordinary ones: they own their memory, can be resized, outlive the program, and give the memory
back when they are deleted. Arrays that NumPy makes elsewhere are not touched.

What is kept is bounded: at most `limit` bytes in 64 blocks, and those freed the longest ago go
first. `trim` gives everything back to the system.
"""

from __future__ import annotations

import ctypes
import os
import sys

from graphdl.kernels.cpu import assembler
from graphdl.kernels.cpu.assembler import Function, Module, Value

#: Smaller blocks go to the C library's allocator, which keeps them by itself.
THRESHOLD = 64 << 10

#: By default at most this part of the memory, and at most so many bytes, are kept.
_PART_OF_MEMORY, _MOST = 8, 2 << 30

#: A block is used for a request of no less than 4/5 of its size.
_FIT = 4

_BLOCKS = 64
_HUGE = 2 << 20  # the size of a huge page: blocks that hold several are aligned to it
_MADV_HUGEPAGE = 14

#: Words of the process: C functions, the bound, then what changes: a lock, the number of kept
#: blocks, their bytes, and a row of (address, size) for each, the one freed last at the end.
_WORDS = ("malloc", "free", "madvise", "limit", "lock", "count", "total")
_KEPT = 8 * len(_WORDS)

#: In front of a block's data: its size, and the address that the C library gave.
_HEADER = 64


def _at(f: Function, word: str) -> Value:
    return f.address_of("process") + 8 * _WORDS.index(word)


def _lock(f: Function) -> None:
    """Wait for the lock: NumPy calls with the interpreter's lock held, but does not promise to."""
    with f.forever() as loop:
        loop.stop_when(f.exchange(_at(f, "lock"), 1).equals(0))
        f.pause()


def _unlock(f: Function) -> None:
    f.store_shared(_at(f, "lock"), 0)


def _define_forget(module: Module) -> None:
    """forget(index): remove a row of the kept blocks, whose data is returned."""
    with module.function("forget", 1) as (f, (index,)):
        kept, count = f.address_of("process") + _KEPT, f.load(_at(f, "count"))
        data, size = f.load(kept + index * 16), f.load(kept + index * 16 + 8)
        with f.count(index, count - 1) as i:
            row = kept + i * 16
            f.store(row, f.load(row + 16))
            f.store(row + 8, f.load(row + 24))
        f.store(_at(f, "count"), count - 1)
        f.store(_at(f, "total"), f.load(_at(f, "total")) - size)
        f.leave(data)


def _define_discard(module: Module) -> None:
    """discard(data): give a block back to the C library."""
    with module.function("discard", 1) as (f, (data,)):
        f.call(f.load(_at(f, "free")), f.load(data - _HEADER + 8), returns="void")


def _define_shrink(module: Module) -> None:
    """shrink(blocks, bytes): discard the oldest until no more than that is kept."""
    with module.function("shrink", 2) as (f, (blocks, size)), f.forever() as loop:
        few = f.load(_at(f, "count")) <= blocks
        loop.stop_when(few & (f.load(_at(f, "total")) <= size))
        f.call("discard", f.call("forget", f.constant(0)))


def _define_trim(module: Module) -> None:
    """trim(bytes): keep no more than that."""
    with module.function("trim", 1) as (f, (size,)):
        _lock(f)
        f.call("shrink", f.constant(_BLOCKS), size)
        _unlock(f)


def _define_find(module: Module) -> None:
    """find(size): the data of the kept block that fits best, or 0; among equals the latest."""
    with module.function("find", 1) as (f, (size,)):
        kept, best = f.address_of("process") + _KEPT, f.variable(-1)
        smallest = f.variable(size + size // _FIT + 1)
        i = f.variable(f.load(_at(f, "count")))
        with f.forever() as loop:
            loop.stop_when(i.get().equals(0))
            i.set(i.get() - 1)
            capacity = f.load(kept + i.get() * 16 + 8)
            with f.when((capacity >= size) & (capacity < smallest.get())):
                best.set(i.get())
                smallest.set(capacity)
        with f.when(best.get() < 0):
            f.leave(0)
        f.leave(f.call("forget", best.get()))


def _define_take(module: Module) -> None:
    """take(context, size): the handler's malloc."""
    with module.function("take", 2) as (f, (_context, asked)):
        size = (asked + _HEADER - 1) & -_HEADER
        align = f.select(size >= 2 * _HUGE, f.constant(_HUGE), f.constant(_HEADER))
        with f.when(size >= THRESHOLD):
            _lock(f)
            found = f.call("find", size)
            _unlock(f)
            with f.when(found.differs(0)):
                f.leave(found)
        given = f.variable(f.call(f.load(_at(f, "malloc")), size + align + _HEADER))
        with f.when(given.get().equals(0)):  # what is missing may be what is kept
            f.call("trim", f.constant(0))
            given.set(f.call(f.load(_at(f, "malloc")), size + align + _HEADER))
            with f.when(given.get().equals(0)):
                f.leave(0)
        data = (given.get() + _HEADER + align - 1) & (f.constant(0) - align)
        f.store(data - _HEADER, size)
        f.store(data - _HEADER + 8, given.get())
        advise = f.load(_at(f, "madvise"))
        with f.when(align.equals(_HUGE) & advise.differs(0)):
            f.call(advise, data, size, f.narrow(f.constant(_MADV_HUGEPAGE)), returns="i32")
        f.leave(data)


def _define_give(module: Module) -> None:
    """give(context, data, size): the handler's free."""
    with module.function("give", 3) as (f, (_context, data, _size)):
        with f.when(data.equals(0)):
            f.leave()
        size, limit = f.load(data - _HEADER), f.load(_at(f, "limit"))
        with f.when((size < THRESHOLD) | (size > limit)):
            f.call("discard", data)
            f.leave()
        _lock(f)
        f.call("shrink", f.constant(_BLOCKS - 1), limit - size)
        count = f.load(_at(f, "count"))
        row = f.address_of("process") + _KEPT + count * 16
        f.store(row, data)
        f.store(row + 8, size)
        f.store(_at(f, "count"), count + 1)
        f.store(_at(f, "total"), f.load(_at(f, "total")) + size)
        _unlock(f)


def _define_take_zeros(module: Module) -> None:
    """take_zeros(context, count, size): the handler's calloc."""
    with module.function("take_zeros", 3) as (f, (context, count, size)):
        data = f.call("take", context, count * size)
        with f.when(data.differs(0)), f.count(0, (count * size + 7) // 8) as i:
            f.store(data + i * 8, 0)
        f.leave(data)


def _define_change(module: Module) -> None:
    """change(context, data, size): the handler's realloc."""
    with module.function("change", 3) as (f, (context, data, size)):
        new = f.call("take", context, size)
        with f.when(new.differs(0) & data.differs(0)):
            both = f.smaller(f.load(data - _HEADER), f.load(new - _HEADER))
            with f.count(0, both // 8) as i:
                f.store(new + i * 8, f.load(data + i * 8))
            f.call("give", context, data, f.constant(0))
        f.leave(new)


def _define_settings(module: Module) -> None:
    """set_limit(bytes) and total(): the bound, and how many bytes are kept."""
    with module.function("set_limit", 1) as (f, (size,)):
        f.store(_at(f, "limit"), size)
        f.call("trim", size)
    with module.function("total", 0) as (f, _):
        f.leave(f.load_shared(_at(f, "total")))


def _write(module: Module) -> None:
    for define in (
        _define_forget,
        _define_discard,
        _define_shrink,
        _define_trim,
        _define_find,
        _define_take,
        _define_give,
        _define_take_zeros,
        _define_change,
        _define_settings,
    ):
        define(module)


class _Handler(ctypes.Structure):
    """NumPy's PyDataMem_Handler, version 1."""

    _fields_ = (
        ("name", ctypes.c_char * 127),
        ("version", ctypes.c_uint8),
        ("context", ctypes.c_void_p),
        ("malloc", ctypes.c_void_p),
        ("calloc", ctypes.c_void_p),
        ("realloc", ctypes.c_void_p),
        ("free", ctypes.c_void_p),
    )


def _libc(name: str) -> int:
    """The address of a function of the C library, or 0."""
    try:
        library = ctypes.cdll.msvcrt if sys.platform == "win32" else ctypes.CDLL(None)
        return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0
    except (OSError, AttributeError):
        return 0


def _default_limit() -> int:
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError):  # Windows
        memory = _MOST
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path, encoding="ascii") as file:
                memory = min(memory, int(file.read()))
        except (OSError, ValueError):
            continue  # no cgroup of that version, or "max"
    return min(memory // _PART_OF_MEMORY, _MOST)


_EXPORTS = ("take", "take_zeros", "change", "give", "trim", "set_limit", "total")


def _load() -> dict[str, int]:
    advise = _libc("madvise") if sys.platform == "linux" else 0
    words = [_libc("malloc"), _libc("free"), advise, _default_limit()]
    words += [0] * (len(_WORDS) - len(words) + 2 * _BLOCKS)
    return assembler.load("graphdl_recycle", _EXPORTS, _write, words, effort=0)


_addresses = _load()
_handler = _Handler(
    b"graphdl",
    1,
    None,
    _addresses["take"],
    _addresses["take_zeros"],
    _addresses["change"],
    _addresses["give"],
)

_new_capsule = ctypes.PYFUNCTYPE(
    ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p
)(("PyCapsule_New", ctypes.pythonapi))

_name = b"mem_handler"  # a capsule keeps the address of its name

#: NumPy's memory handler, a capsule.
HANDLER: object = _new_capsule(ctypes.addressof(_handler), _name, None)
for _kept in (HANDLER, _handler, _name):  # arrays may be freed after this module
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(_kept))

_trim = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(_addresses["trim"])
_set_limit = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(_addresses["set_limit"])
_total = ctypes.CFUNCTYPE(ctypes.c_int64)(_addresses["total"])


def kept_bytes() -> int:
    """How many bytes of dropped results are kept for new ones."""
    return int(_total())


def trim() -> None:
    """Give the memory that is kept back to the system."""
    _trim(0)


def set_limit(size: int) -> None:
    """Keep at most `size` bytes from now on; 0 keeps none."""
    if size < 0:
        raise ValueError(f"cannot keep {size} bytes")
    _set_limit(size)
