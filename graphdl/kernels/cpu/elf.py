"""Object code of kernels into memory, without LLVM: ELF of x86-64, as LLVM writes it on Linux.

To load an object with LLVM is to load LLVM: 50 MB of it become resident, and it takes longer than
all else that a program from the cache needs. What kernels are made of is simple: code and constants
side by side, which reach each other by distances of 32 bits, and a few functions of libc, which lie
further away and are reached by jumps through an address. An object with anything else, or of
another machine, is left to LLVM (`graphdl.kernels.cpu.loading`).

Formats and formulas: System V Application Binary Interface, AMD64 Architecture Processor
Supplement, chapter 4 (object files; R_X86_64_PC32 and R_X86_64_PLT32 are symbol + addend - place).
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import struct
import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

#: 64 bits, lowest byte first; a relocatable file of x86-64.
_IDENTITY, _KIND = b"\x7fELF\x02\x01\x01", struct.pack("<HH", 1, 62)
_SECTION, _SYMBOL = struct.Struct("<IIQQQQIIQQ"), struct.Struct("<IBBHQQ")
_RELOCATION = np.dtype([("place", "<u8"), ("kind", "<u4"), ("symbol", "<u4"), ("addend", "<i8")])
_PROGBITS, _SYMTAB, _RELA, _NOBITS = 1, 2, 4, 8
_WRITE, _ALLOC, _TLS = 1, 2, 0x400
_PC32, _PLT32 = 2, 4
#: Sections of symbols that are in none: undefined ones, and numbers beyond those of sections.
_UNDEFINED, _FIRST_RESERVED = 0, 0xFF00
#: jmp *0(%rip), which is followed by where to.
_JUMP, _JUMP_SIZE = b"\xff\x25\0\0\0\0", 16


class _Section(Struct, frozen=True):
    """A part of an object: info is the section that relocations are for, link that of strings."""

    kind: int
    flags: int
    data: bytes
    size: int
    link: int
    info: int
    alignment: int


class _Object(Struct, frozen=True):
    """sections by number. symbols: name, section, and place in it."""

    sections: list[_Section]
    symbols: list[tuple[str, int, int]]


class _Unknown(Exception):
    """Something that is not loaded here."""


@cache
def is_possible() -> bool:
    """Whether objects of this process may be of the kind that is read here."""
    return sys.platform == "linux" and platform.machine() == "x86_64" and sys.maxsize > 1 << 32


def load(
    objects: Mapping[str, bytes], address_of: Callable[[str], int | None]
) -> dict[str, int] | None:
    """The addresses of objects, each of the symbol that it is filed under; None if they need LLVM.

    `address_of` gives those of functions that objects call. What is loaded stays.
    """
    if not is_possible():
        return None
    try:
        return _load({symbol: _read(code) for symbol, code in objects.items()}, address_of)
    except (_Unknown, struct.error, ValueError, IndexError, OSError):
        return None


def _read(code: bytes) -> _Object:
    """An object file in parts."""
    if not code.startswith(_IDENTITY) or code[16:20] != _KIND:
        raise _Unknown
    (start,) = struct.unpack_from("<Q", code, 40)
    size, count = struct.unpack_from("<HH", code, 58)
    sections = []
    for i in range(count):
        _, kind, flags, _, offset, length, link, info, alignment, _ = _SECTION.unpack_from(
            code, start + i * size
        )
        data = b"" if kind == _NOBITS else code[offset : offset + length]
        if flags & _TLS or (flags & _ALLOC and kind not in (_PROGBITS, _NOBITS)):
            raise _Unknown
        if kind != _NOBITS and len(data) != length:
            raise _Unknown
        sections.append(_Section(kind, flags, data, length, link, info, max(alignment, 1)))
    symbols = []
    for section in sections:
        if section.kind == _SYMTAB:
            names = sections[section.link].data
            for name, _, _, of, place, _ in _SYMBOL.iter_unpack(section.data):
                symbols.append((names[name : names.index(b"\0", name)].decode(), of, place))
    return _Object(sections, symbols)


def _load(
    objects: Mapping[str, _Object], address_of: Callable[[str], int | None]
) -> dict[str, int]:
    """Objects in memory of their own: what is executed or read, and from a new page on what is
    written.
    """
    places: dict[tuple[str, int], int] = {}
    jumps: dict[str, int] = {}
    end = 0
    for is_written in (False, True):
        for symbol, made in objects.items():
            for number, section in enumerate(made.sections):
                if section.flags & _ALLOC and bool(section.flags & _WRITE) == is_written:
                    end = -(-end // section.alignment) * section.alignment
                    places[symbol, number] = end
                    end += section.size
        if not is_written:
            for made in objects.values():
                for name, of, _ in made.symbols:
                    if of == _UNDEFINED and name and name not in jumps:
                        end = -(-end // _JUMP_SIZE) * _JUMP_SIZE
                        jumps[name] = end
                        end += _JUMP_SIZE
            end = code_size = -(-end // mmap.PAGESIZE) * mmap.PAGESIZE
    image = np.zeros(end, np.uint8)
    for (symbol, number), place in places.items():
        section = objects[symbol].sections[number]
        image[place : place + len(section.data)] = np.frombuffer(section.data, np.uint8)
    for name, place in jumps.items():
        address = address_of(name)
        if address is None:
            raise _Unknown
        text = _JUMP + struct.pack("<Q", address)
        image[place : place + len(text)] = np.frombuffer(text, np.uint8)
    found: dict[str, int] = {}
    for symbol, made in objects.items():
        values = np.array(_values(symbol, made, places, jumps), np.int64)
        far = np.array([section == _UNDEFINED for _, section, _ in made.symbols])
        for section in made.sections:
            if section.kind == _RELA and (symbol, section.info) in places:
                rows = np.frombuffer(section.data, _RELOCATION)
                if (far[rows["symbol"]] & (rows["kind"] != _PLT32)).any():
                    raise _Unknown  # data of other libraries
                _relocate(image, places[symbol, section.info], rows, values)
        found[symbol] = _exported(symbol, made, places)
    base = _in_memory(image, code_size)
    return {symbol: base + place for symbol, place in found.items()}


def _values(
    symbol: str, made: _Object, places: Mapping[tuple[str, int], int], jumps: Mapping[str, int]
) -> list[int]:
    """Where the symbols of an object lie in the image; -1 of those that do not."""
    return [
        jumps.get(name, -1)
        if section == _UNDEFINED
        else places.get((symbol, section), -1 - value) + value
        for name, section, value in made.symbols
    ]


def _exported(symbol: str, made: _Object, places: Mapping[tuple[str, int], int]) -> int:
    for name, section, value in made.symbols:
        if name == symbol and _UNDEFINED < section < _FIRST_RESERVED:
            return places[symbol, section] + value
    raise _Unknown


def _relocate(
    image: NDArray[np.uint8], start: int, rows: NDArray[Any], values: NDArray[np.int64]
) -> None:
    """Write the distances that a section which begins at `start` needs."""
    to = values[rows["symbol"]]
    if not np.isin(rows["kind"], (_PC32, _PLT32)).all() or (to < 0).any():
        raise _Unknown
    at = start + rows["place"].astype(np.int64)
    distances = (to + rows["addend"] - at).astype("<i4")
    image[at[:, None] + np.arange(4)] = distances.view(np.uint8).reshape(-1, 4)


@cache
def _libc() -> Any:
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = [
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
    ]  # fmt: skip
    library.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return library


def _in_memory(image: NDArray[np.uint8], code_size: int) -> int:
    """Where a copy of an image lies, of which the first part can be executed, and the rest written.

    Raises OSError where the system does not allow it. It is no `mmap.mmap`: that would be unmapped
    when Python ends, while arrays may still be freed by code in it.
    """
    libc = _libc()
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    base = libc.mmap(None, image.nbytes, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
    if base is None or base == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "no memory for code")
    ctypes.memmove(base, image.ctypes.data, image.nbytes)
    if libc.mprotect(base, code_size, mmap.PROT_READ | mmap.PROT_EXEC):
        raise OSError(ctypes.get_errno(), "memory cannot be executed")
    return int(base)


__all__ = ["is_possible", "load"]
