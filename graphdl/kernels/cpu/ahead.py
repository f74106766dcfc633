"""Prefetching: loops ask for the cache lines of an array before they get there.

A processor looks ahead in what a loop reads, but within a page of memory, and not while its window
of instructions is full of arithmetic. So a loop that computes much of each element waits for memory
at every page, and what it computes does not hide behind what it moves. Here the vector loops that
LLVM has made get, beside each load and store of a vector, a prefetch of what lies further on. That
is done after LLVM's passes: no loop with a prefetch in it is made into vectors.

A prefetch never fails, wherever it points, and changes no value. Loops of little arithmetic stay as
they are: in the first level of cache loads bind them, and from memory the processor alone keeps up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

#: How many bytes further on. Reads: a page, which is as far as the processor itself looks. For
#: 1,024 to 8,192 bytes see bench/NOTES.md.
READ_AHEAD, WRITE_AHEAD = 4096, 2048
#: Instructions of arithmetic for each cache line moved from which on a loop is worth it.
ARITHMETIC = 2
LINE = 64

#: How LLVM's vectoriser names the blocks that it makes; those for the last elements are no loops
#: that get anywhere.
_LOOP = "vector.body"
_LABEL = re.compile(r"([-\w.$]+):")
_ACCESS = re.compile(
    r" +(?:(?P<loaded>%\S+) = load|store) <(?P<lanes>\d+) x (?P<type>[a-z]+\d*)>"
    r"(?: %\S+)?, ptr (?P<place>%[-\w.$]+), align"
)
#: A place that is some bytes after another: the unrolled copies of an access.
_BEHIND = re.compile(
    r" +(?P<place>%[-\w.$]+) = getelementptr [a-z ]*i8, ptr (?P<base>%[-\w.$]+), i64 (?P<bytes>\d+)"
)
_ASIDE = re.compile(r" +(?:br |store |%\S+ = (?:load|phi|getelementptr|icmp|add [a-z ]*i64) )")
_BYTES = {"i8": 1, "i16": 2, "half": 2, "bfloat": 2, "i32": 4, "float": 4, "i64": 8, "double": 8}
_DECLARATION = "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)"


def with_prefetches(text: str) -> str:
    """LLVM's optimised IR, with prefetches in its vector loops; the same text where none is due."""
    lines = text.split("\n")
    made: list[str] = []
    for block in _blocks(lines):
        made += _asking(block, len(made)) if block[0].startswith(_LOOP) else block
    if len(made) == len(lines):
        return text
    if "@llvm.prefetch.p0(ptr" not in text:
        made.append(_DECLARATION)
    return "\n".join(made) + "\n"


def _blocks(lines: Sequence[str]) -> Iterator[Sequence[str]]:
    """The lines in runs that each begin with a label, or are between functions."""
    start = 0
    for at, line in enumerate(lines):
        if at > start and (_LABEL.match(line) or line == "}"):
            yield lines[start:at]
            start = at
    yield lines[start:]


def _asking(block: Sequence[str], number: int) -> list[str]:
    """A loop with a prefetch after each access of lines not asked for yet, named from `number`."""
    offsets: dict[str, tuple[str, int]] = {}
    asked: set[tuple[str, int]] = set()
    made: list[str] = []
    for line in block:
        made.append(line)
        if behind := _BEHIND.match(line):
            offsets[behind["place"]] = behind["base"], int(behind["bytes"])
        access = _ACCESS.match(line)
        if access is None or access["type"] not in _BYTES:
            continue
        base, offset = offsets.get(access["place"], (access["place"], 0))
        first = offset // LINE
        last = (offset + int(access["lanes"]) * _BYTES[access["type"]] - 1) // LINE
        writes = access["loaded"] is None
        for at in range(first, last + 1):
            if (base, at) not in asked:
                asked.add((base, at))
                made += _prefetch(base, at * LINE, writes, f"%ahead{number + len(made)}")
    arithmetic = sum(line.startswith(" ") and not _ASIDE.match(line) for line in block)
    return made if arithmetic >= ARITHMETIC * len(asked) else list(block)


def _prefetch(base: str, offset: int, writes: bool, name: str) -> tuple[str, str]:
    """Into all levels of cache (locality 3), as data (1)."""
    distance = offset + (WRITE_AHEAD if writes else READ_AHEAD)
    return (
        f"  {name} = getelementptr i8, ptr {base}, i64 {distance}",
        f"  call void @llvm.prefetch.p0(ptr {name}, i32 {int(writes)}, i32 3, i32 1)",
    )
