"""The font that PNG and PDF pictures bring along: a part of DejaVu Sans Mono."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import cache
from importlib import resources

#: What a text in this font is as wide as, in em for each character.
ADVANCE = 0.602


@cache
def data_of(bold: bool) -> bytes:
    """The TrueType file."""
    name = f"DejaVuSansMono{'-Bold' if bold else ''}-subset.ttf"
    return (resources.files("graphdl.visualize") / "fonts" / name).read_bytes()


@cache
def glyphs_of(bold: bool) -> Mapping[int, int]:
    """The number of the glyph of each character: from format 4 of the table `cmap`.

    OpenType 1.9.1, https://learn.microsoft.com/typography/opentype/spec/cmap, "Format 4".

    >>> len(glyphs_of(False)) > 250 and glyphs_of(False)[ord("x")] > 0
    True
    """
    data = data_of(bold)
    start = _tables(data)[b"cmap"][0]
    count = struct.unpack_from(">H", data, start + 2)[0]
    for i in range(count):
        platform, encoding, offset = struct.unpack_from(">HHL", data, start + 4 + 8 * i)
        if (platform, encoding) in ((3, 1), (0, 3)):
            return _segments(data, start + offset)
    raise ValueError("the font has no Unicode map")


def box_of(bold: bool) -> tuple[int, tuple[int, int, int, int], int, int]:
    """Units in an em, the box of all glyphs, ascent and descent."""
    data = data_of(bold)
    tables = _tables(data)
    head, hhea = tables[b"head"][0], tables[b"hhea"][0]
    units = struct.unpack_from(">H", data, head + 18)[0]
    box = struct.unpack_from(">hhhh", data, head + 36)
    ascent, descent = struct.unpack_from(">hh", data, hhea + 4)
    return units, box, ascent, descent


def _tables(data: bytes) -> dict[bytes, tuple[int, int]]:
    count = struct.unpack_from(">H", data, 4)[0]
    found = {}
    for i in range(count):
        tag, _, offset, length = struct.unpack_from(">4sLLL", data, 12 + 16 * i)
        found[tag] = offset, length
    return found


def _segments(data: bytes, at: int) -> dict[int, int]:
    doubled = struct.unpack_from(">H", data, at + 6)[0]
    count = doubled // 2

    def column(start: int, sign: str = "H") -> tuple[int, ...]:
        return struct.unpack_from(f">{count}{sign}", data, start)

    ends = column(at + 14)
    starts = column(at + 16 + doubled)
    deltas = column(at + 16 + 2 * doubled, "h")
    range_at = at + 16 + 3 * doubled
    offsets = column(range_at)
    found: dict[int, int] = {}
    for i in range(count):
        for code in range(starts[i], ends[i] + 1):
            if offsets[i] == 0:
                glyph = code + deltas[i] & 0xFFFF
            else:
                place = range_at + 2 * i + offsets[i] + 2 * (code - starts[i])
                glyph = struct.unpack_from(">H", data, place)[0]
                glyph = glyph + deltas[i] & 0xFFFF if glyph else 0
            if glyph and code != 0xFFFF:
                found[code] = glyph
    return found
