"""Kernels of sort, argsort and searchsorted.

Elements become unsigned keys in the same order: the bits of a float with the sign bit flipped, or
all bits if it is negative; all ones for NaN; of an integer its bits with the sign bit flipped. Keys
are sorted byte by byte from the lowest (radix sort: stable, without comparisons, and a byte that
all keys share costs nothing), short lines by insertion. An argsort carries the positions along.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from graphdl.graph import Node
from graphdl.kernels.body import SUFFIX
from graphdl.kernels.copying import place_of
from graphdl.kernels.program import Address, Buffer, Launch
from graphdl.kernels.source import KernelSource
from graphdl.types import Dtype

#: Lines of at most so many elements are sorted by insertion: clearing and adding up the counts of a
#: radix sort takes about as long.
SHORT = 40
#: The lines of a launch are sorted in at most so many parts, each with scratch memory of its own.
PARTS = 16
#: Values that one iteration of a search looks up: they and their positions stay in the first-level
#: cache from step to step.
SEARCHED = 256


def _rows(node: Node, status: Buffer) -> list[Launch]:
    """sort and argsort."""
    if not node.type.size:
        return []
    x = node.inputs[0]
    where, _, base = place_of(x)
    n = x.shape[-1]
    rows = x.type.size // n
    unit = -(-rows // PARTS)
    parts = -(-rows // unit)
    width = _key_bytes(x.dtype)
    with_places = node.op.name == "argsort"
    keys = Buffer(2 * parts * n * width, None, "keys to sort")
    buffers = [keys]
    if with_places:
        buffers.append(Buffer(parts * n * 8, None, "positions to sort"))
    launch = Launch(
        _sort_source(x.dtype, with_places),
        (where, Address(node), n, rows, unit, *map(Address, buffers)),
        parts,
        x.type.size * (4.0 + 3.0 * x.dtype.itemsize),
        (base,),
        (node, *buffers),
        (),
        (node,),
        x.type.nbytes + node.type.nbytes,
        0,
    )
    return [launch]


def _key_bytes(dtype: Dtype) -> int:
    """The size of the keys of a dtype."""
    return max(dtype.itemsize, 4)


#: `keys` is memory for two lines of keys, `other` and the result for two of positions: they change
#: places with each byte. Lines ending in `# places` are for argsort, in `# values` for sort.
_SORT = """def kernel(table, lo, hi):
    n, rows, unit = table[2], table[3], table[4]
    count = i64_scratch({counts})
    for b in range(lo, hi):
        keys = table[5] + b * n * 2 * {width}
        other = table[6] + b * n * 8  # places
        for r in range(b * unit, min_i64(b * unit + unit, rows)):
            x = {raw}_at(table[0] + r * n * {size})
            result = table[1] + r * n * {step}
            from_k, to_k = keys, keys + n * {width}
            from_o, to_o = other, result  # places
            s = {key}_at(from_k)
            o = i64_at(from_o)  # places
            if n <= {short}:
                for j in range(n):
                    {encode}
                    k = j
                    while k > 0 and s[k - 1] > w:
                        s[k] = s[k - 1]
                        o[k] = o[k - 1]  # places
                        k -= 1
                    s[k] = w
                    o[k] = j  # places
            else:
                for d in lanes(0, {counts}):
                    count[d] = 0
                for j in range(n):
                    {encode}
                    s[j] = w
                    o[j] = j  # places
                    {tally}
                for p in range({size}):
                    first = 256 * p
                    shift = {key}(8 * p)
                    s = {key}_at(from_k)
                    w = s[0]
                    if count[first + {digit}] < n:
                        t = {key}_at(to_k)
                        so = i64_at(from_o)  # places
                        to = i64_at(to_o)  # places
                        total = 0
                        for d in range(256):
                            here = count[first + d]
                            count[first + d] = total
                            total += here
                        for j in range(n):
                            w = s[j]
                            d = first + {digit}
                            place = count[d]
                            count[d] = place + 1
                            t[place] = w
                            to[place] = so[j]  # places
                        from_k, to_k = to_k, from_k
                        from_o, to_o = to_o, from_o  # places
            s = {key}_at(from_k)  # values
            y = {raw}_at(result)  # values
            for j in lanes(0, n):  # values
                y[j] = {decode}  # values
            if from_o != result:  # places
                o = i64_at(from_o)  # places
                y = i64_at(result)  # places
                for j in lanes(0, n):  # places
                    y[j] = o[j]  # places
"""


def _sort_source(dtype: Dtype, with_places: bool) -> KernelSource:
    width, size = _key_bytes(dtype), dtype.itemsize
    key = f"u{8 * width}"
    tally = [f"count[{256 * p} + {_digit(key, f'{key}({8 * p})')}] += 1" for p in range(size)]
    filled = {
        "key": key, "raw": f"u{8 * size}", "width": width, "size": size, "short": SHORT,
        "step": 8 if with_places else size, "counts": 256 * size, "digit": _digit(key, "shift"),
        "decode": _decoded(dtype),
    }  # fmt: skip
    blocks = {"{encode}": _encoded(dtype, with_places), "{tally}": tally}
    kept, dropped = ("# places", "# values")[:: 1 if with_places else -1]
    lines = []
    for line in _SORT.splitlines():
        if line.endswith(dropped):
            continue
        bare = line.removesuffix(kept).rstrip()
        indent = bare[: len(bare) - len(bare.lstrip())]
        block = blocks.get(bare.strip())
        lines += [bare.format(**filled)] if block is None else [indent + part for part in block]
    return KernelSource("argsort" if with_places else "sort", "\n".join(lines) + "\n")


def _digit(key: str, shift: str) -> str:
    """Eight bits of the key w as an index."""
    return f"i64(bitwise_and(right_shift(w, {shift}), {key}(255)))"


def _constants(dtype: Dtype) -> tuple[str, int, int]:
    """The dtype of the keys, the sign bit of an element, and all its bits."""
    bits = 8 * dtype.itemsize
    return f"u{8 * _key_bytes(dtype)}", 1 << (bits - 1), (1 << bits) - 1


def _encoded(dtype: Dtype, zeros_equal: bool) -> list[str]:
    """Lines that make w the key of x[j].

    Where `zeros_equal`, 0.0 and -0.0 have one key, which a sort that gives back the elements cannot
    afford.
    """
    key, sign, ones = _constants(dtype)
    lines = ["w = x[j]" if dtype.itemsize >= 4 else f"w = {key}(x[j])"]
    if dtype.kind == "i":
        lines.append(f"w = bitwise_xor(w, {key}({sign}))")
    if dtype.kind == "f":
        infinity = 0x7F800000 if dtype.itemsize == 4 else 0x7FF0000000000000
        lines += [
            f"magnitude = bitwise_and(w, {key}({sign - 1}))",
            f"w = bitwise_xor(w, select(less(w, {key}({sign})), {key}({sign}), {key}({ones})))",
            f"w = select(greater(magnitude, {key}({infinity})), {key}({ones}), w)",
        ]
        if zeros_equal:
            lines.append(f"w = select(equal(magnitude, {key}(0)), {key}({sign}), w)")
    return lines


def _decoded(dtype: Dtype) -> str:
    """The element whose key is s[j]."""
    key, sign, ones = _constants(dtype)
    word = "s[j]"
    if dtype.kind == "i":
        word = f"bitwise_xor({word}, {key}({sign}))"
    if dtype.kind == "f":
        flipped = f"select(less({word}, {key}({sign})), {key}({ones}), {key}({sign}))"
        word = f"bitwise_xor({word}, {flipped})"
    if dtype.itemsize < 4:
        word = f"u{8 * dtype.itemsize}({word})"
    return word


# --- searches -------------------------------------------------------------------------------------


def _searchsorted(node: Node, status: Buffer) -> list[Launch]:
    if not node.type.size:
        return []
    line, values = node.inputs
    (line_at, _, line_base), (at, _, base) = place_of(line), place_of(values)
    n, m, total = line.shape[-1], values.shape[-1], values.type.size
    launch = Launch(
        _search_source(line.dtype, node["side"]),
        (line_at, at, Address(node), n, m, total),
        -(-total // SEARCHED),
        total * 2.0 * math.log2(n + 2),
        tuple(dict.fromkeys((line_base, base))),
        (node,),
        (),
        (node,),
        line.type.nbytes + values.type.nbytes + node.type.nbytes,
        0,
    )
    return [launch]


#: A step of the search is a pass over a block of values, whose positions among the elements of all
#: lines are kept in the result: so no value waits for another, and as many as fill a vector read
#: their elements at a time. The last step makes them positions in their own lines.
_SEARCH = """def kernel(table, lo, hi):
    n, m, total = table[3], table[4], table[5]
    x = {suffix}_at(table[0])
    v = {suffix}_at(table[1])
    first = i64_at(table[2])
    for b in range(lo, hi):
        start = b * {block}
        stop = min_i64(start + {block}, total)
        i = start
        while i < stop:
            line = i // m * n
            end = min_i64(i // m * m + m, stop)
            for j in lanes(i, end):
                first[j] = line
            i = end
        left = n
        while left > 1:
            half = left // 2
            for j in lanes(start, stop):
                middle, value = x[first[j] + half - 1], v[j]
                first[j] = first[j] + select({before}, half, i64(0))
            left -= half
        i = start
        while i < stop and n > 0:
            line = i // m * n
            end = min_i64(i // m * m + m, stop)
            for j in lanes(i, end):
                middle, value = x[first[j]], v[j]
                first[j] = first[j] - line + select({before}, i64(1), i64(0))
            i = end
"""


def _search_source(dtype: Dtype, side: str) -> KernelSource:
    """Halving without branches: `first` elements are known to stand before the value."""
    filled = _SEARCH.format(suffix=SUFFIX[dtype], block=SEARCHED, before=_before(dtype, side))
    return KernelSource("searchsorted", filled)


def _before(dtype: Dtype, side: str) -> str:
    """Whether `middle` stands before the place of `value`; NaN stand behind all numbers.

    A comparison with NaN is false: `middle` is before a value that is NaN if it is none itself, or
    if it goes to the right of its equals.
    """
    if side == "right":
        before = "less_equal(middle, value)"
        return before if dtype.kind != "f" else f"logical_or({before}, isnan(value))"
    if dtype.kind != "f":
        return "less(middle, value)"
    return "logical_and(logical_not(greater_equal(middle, value)), logical_not(isnan(middle)))"


SORTING: dict[str, Callable[[Node, Buffer], list[Launch]]] = {
    "sort": _rows,
    "argsort": _rows,
    "searchsorted": _searchsorted,
}
