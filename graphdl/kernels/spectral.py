"""Kernels of graphdl.ops.spectral: LAPACK's geev, gees with trsyl, and gbsv."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphdl.graph import Node
from graphdl.kernels.body import SUFFIX
from graphdl.kernels.cpu import blas
from graphdl.kernels.linalg import (
    Work,
    characters,
    count_of,
    place,
    result_places,
    routine_of,
    shape_of,
    transposed_copy,
    wanted,
    width_of,
)
from graphdl.kernels.program import Address, Check, Launch, Word


def eig(node: Node, check: Check) -> list[Launch]:
    """Of the transpose of rows, so that the columns that LAPACK returns are the rows of vt."""
    (a,) = node.inputs
    w = width_of(node)
    n = shape_of(a, w)[-1]
    suffix, item = SUFFIX[a.dtype], a.dtype.itemsize
    routine = routine_of("geev", a.dtype, w)
    asked, info, lead = np.zeros(w, a.dtype), np.zeros(1, np.int64), max(n, 1)
    values, reals = ((asked, asked), ()) if w == 1 else ((asked,), (asked,))
    blas.call(
        routine.name, "N", "V", n, asked, lead, *values, asked, 1, asked, lead, asked, -1, *reals,
        info,
    )  # fmt: skip
    size = wanted(asked)
    parts = {"y": (suffix, w * n * n), "work": (suffix, w * size)}
    if w == 1:
        parts |= {"re": (suffix, n), "im": (suffix, n), "vectors": (suffix, n * n)}
        found, vectors, room, after = "re, im", "vectors", "", _JOINED.format(suffix=suffix)
    else:
        parts |= {"reals": (suffix, 2 * n)}
        found, vectors, room, after = "values", "vt", "reals, ", ""
    words: dict[str, Word] = {
        "source": place(a), "n": n, "one": 1, "size": size, "routine": routine,
        **dict(zip(("to_values", "to_vt"), result_places(node), strict=True)),
    }  # fmt: skip
    body = f"""x = {suffix}_at(source + b * n * n * {w * item})
values = {suffix}_at(to_values + b * n * {2 * item})
vt = {suffix}_at(to_vt + b * n * n * {2 * item})
no, yes = {characters("N", "V")}
rows, columns = n, n
{transposed_copy(w)}known = {suffix}(0.0)
for i in range({w} * n * n):
    known = add(known, multiply(x[i], {suffix}(0.0)))
if known == {suffix}(0.0):  # LAPACK may not return from what is not finite
    call(routine, no, yes, n, y, n, {found}, work, one, {vectors}, n, work, size, {room}info)
else:
    info[0] = 1
{after}"""
    count = count_of(a.type, 1 + w) if n else 0
    return Work(node, count, parts).kernel(words, body, check, 25 * count * n**3)


#: Text that makes complex numbers of what LAPACK returns for a real matrix: of a pair of conjugate
#: vectors one is the real part of both, the other the imaginary part of the first.
_JOINED = """j = 0
while j < n:
    pair = im[j] != {suffix}(0.0) and j + 1 < n
    for i in range(n):
        vt[2 * (j * n + i)] = vectors[j * n + i]
        vt[2 * (j * n + i) + 1] = {suffix}(0.0)
        if pair:
            vt[2 * (j * n + i) + 1] = vectors[(j + 1) * n + i]
            vt[2 * ((j + 1) * n + i)] = vectors[j * n + i]
            vt[2 * ((j + 1) * n + i) + 1] = -vectors[(j + 1) * n + i]
    j += 2 if pair else 1
for j in range(n):
    values[2 * j] = re[j]
    values[2 * j + 1] = im[j]
"""


def solve_sylvester(node: Node, check: Check) -> list[Launch]:
    """Rows are columns to LAPACK, which so sees b.T @ x.T + x.T @ a.T = q.T.

    With Schur forms u @ s @ u.T of the first matrix and v @ t @ v.T of the second, y of
    s @ y + y @ t = u.T @ q @ v is solved by trsyl, and the solution is u @ y @ v.T.
    """
    a, b, q = node.inputs
    rows, columns = q.shape[-2:]
    suffix, item = SUFFIX[q.dtype], q.dtype.itemsize
    routine = routine_of("gees", q.dtype)
    largest = max(rows, columns, 1)
    asked, info = np.zeros(1, q.dtype), np.zeros(1, np.int64)
    blas.call(
        routine.name, "V", "N", 0, largest, asked, largest, info, asked, asked, asked, largest,
        asked, -1, info, info,
    )  # fmt: skip
    size = max(wanted(asked), 3 * largest)
    parts = {
        "s": (suffix, columns * columns), "u": (suffix, columns * columns),
        "t": (suffix, rows * rows), "v": (suffix, rows * rows), "half": (suffix, rows * columns),
        "real": (suffix, largest), "imag": (suffix, largest), "work": (suffix, size),
        "scale": (suffix, 1), "chosen": ("i64", largest),
    }  # fmt: skip
    words: dict[str, Word] = {
        "a_at": place(a), "b_at": place(b), "q_at": place(q), "x_at": Address(node), "n": rows,
        "m": columns, "size": size, "plus": 1, "gees": routine,
        "trsyl": routine_of("trsyl", q.dtype), "gemm": routine_of("gemm", q.dtype),
    }  # fmt: skip
    one, zero = f"{suffix}(1.0)", f"{suffix}(0.0)"
    ends = "real, imag, {v}, {n}, work, size, chosen, info)"
    schur = "call(gees, yes, no, chosen, {n}, {m}, {n}, chosen, " + ends
    body = f"""first = {suffix}_at(b_at + b * m * m * {item})
second = {suffix}_at(a_at + b * n * n * {item})
right = {suffix}_at(q_at + b * n * m * {item})
x = {suffix}_at(x_at + b * n * m * {item})
yes, no, turned = {characters("V", "N", "T")}
for i in lanes(0, m * m):
    s[i] = first[i]
for i in lanes(0, n * n):
    t[i] = second[i]
{schur.format(n="m", m="s", v="u")}
if info[0] == 0:
    {schur.format(n="n", m="t", v="v")}
if info[0] == 0:
    call(gemm, turned, no, m, n, m, {one}, u, m, right, m, {zero}, half, m)
    call(gemm, no, no, m, n, n, {one}, half, m, v, n, {zero}, x, m)
    call(trsyl, no, no, plus, m, n, s, m, t, n, x, m, scale, info)
    call(gemm, no, no, m, n, m, {one} / scale[0], u, m, x, m, {zero}, half, m)
    call(gemm, no, turned, m, n, n, {one}, half, m, v, n, {zero}, x, m)
"""
    count = count_of(q.type, 2) if q.type.size else 0
    work = count * (25 * (rows**3 + columns**3) + 3 * rows * columns * (rows + columns))
    return Work(node, count, parts).kernel(words, body, check, work)


def solve_banded(node: Node, check: Check) -> list[Launch]:
    """The diagonals as columns below the room that row exchanges need, and the right sides too."""
    ab, right = node.inputs
    n, k = right.shape[-2:]
    suffix, item = SUFFIX[node.dtype], node.dtype.itemsize
    lower, upper = node["lower"], node["upper"]
    height = 2 * lower + upper + 1
    parts = {"band": (suffix, height * n), "sides": (suffix, n * k), "pivots": ("i64", n)}
    words: dict[str, Word] = {
        "ab_at": place(ab), "b_at": place(right), "x_at": Address(node), "n": n, "k": k,
        "lower": lower, "upper": upper, "height": height, "gbsv": routine_of("gbsv", node.dtype),
    }  # fmt: skip
    body = f"""ab = {suffix}_at(ab_at + b * (lower + upper + 1) * n * {item})
right = {suffix}_at(b_at + b * n * k * {item})
x = {suffix}_at(x_at + b * n * k * {item})
for r in range(lower + upper + 1):
    for j in range(n):
        band[j * height + lower + r] = ab[r * n + j]
for i in range(n):
    for j in range(k):
        sides[j * n + i] = right[i * k + j]
call(gbsv, n, lower, upper, k, band, height, pivots, sides, n, info)
for i in range(n):
    for j in range(k):
        x[i * k + j] = sides[j * n + i]
"""
    count = count_of(node.type, 2) if node.type.size else 0
    return Work(node, count, parts).kernel(words, body, check, count * n * height * (lower + k))


#: The launches of each op.
SPECTRAL: dict[str, Callable[[Node, Check], list[Launch]]] = {
    "eig": eig,
    "solve_sylvester": solve_sylvester,
    "solve_banded": solve_banded,
}
