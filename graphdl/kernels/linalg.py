"""Kernels of linear algebra: they call LAPACK and BLAS by address, one matrix after the other.

The iterations of a launch are the matrices of a stack, so threads share a stack, and each matrix is
the work of one thread. Where LAPACK needs memory to work in, the stack is cut into as many runs as
threads can take at once, and each run has its own.

LAPACK has matrices column by column. A matrix that lies row by row is its transpose to LAPACK; each
kernel either asks for what makes that right (the other triangle, the product from the other side)
or copies the transpose.

A complex number is two numbers one behind the other: `width` says how many numbers of memory an
element is, and texts step over elements by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from graphdl.compiler.view import view_of
from graphdl.graph import Node
from graphdl.kernels.body import SUFFIX
from graphdl.kernels.cpu import blas
from graphdl.kernels.program import Address, Buffer, Check, Launch, Routine, Word
from graphdl.kernels.source import KernelSource
from graphdl.ops import control
from graphdl.ops.paired import PAIRED
from graphdl.types import Dtype, Shape, TensorType

#: Nanoseconds a multiply-add of LAPACK takes one core, and a call of it, at the least.
MULTIPLY_ADD, CALL = 0.05, 500.0
#: Columns of right sides that one thread solves for at a time, at the least.
COLUMNS = 64
#: Runs that a stack of matrices is cut into, or the columns of one system, at most.
RUNS = 16

#: LAPACK reports in `info`; the text that tells the program.
_REPORT = """if info[0] != 0 and status[0] == 0:
    status[0] = number
"""


def place(operand: Node) -> Address:
    view = view_of(operand)
    assert view is not None, f"{operand!r} is no view of memory"
    return Address(view.base, view.offset * operand.dtype.itemsize)


def result_places(node: Node) -> list[Address]:
    """Where the results of an op that has several lie."""
    return [Address(node, start) for start in control.offsets(control.result_types(node))[:-1]]


def routine_of(name: str, dtype: Dtype, width: int = 1) -> Routine:
    if width == 2:
        return Routine({4: "c", 8: "z"}[dtype.itemsize] + _OF_COMPLEX.get(name, name))
    return Routine({4: "s", 8: "d"}[dtype.itemsize] + name)


#: Routines whose names are others for complex matrices.
_OF_COMPLEX = {"orgqr": "ungqr", "syevd": "heevd"}


def width_of(node: Node) -> int:
    """How many numbers of memory an element is: two for complex ones."""
    return 2 if node.op is PAIRED.get(node.op.name) else 1


def shape_of(operand: Node, width: int) -> Shape:
    """The shape of the elements."""
    return operand.shape if width == 1 else operand.shape[:-1]


def _unit(suffix: str, width: int) -> tuple[str, str]:
    """The number 1 as BLAS takes it, and the line of text that makes it."""
    if width == 1:
        return f"{suffix}(1.0)", ""
    line = f"    one = {suffix}_scratch(2)\n    one[0], one[1] = {suffix}(1.0), {suffix}(0.0)\n"
    return "one", line


def _integers() -> str:
    """The suffix of the integers of LAPACK's arrays."""
    return f"i{blas.library().integer_bits}"


def _launch(
    node: Node,
    text: str,
    words: list[Word],
    iterations: int,
    work: float,
    check: Check | None = None,
    scratch: tuple[Buffer, ...] = (),
    in_place: tuple[tuple[Node, Node], ...] = (),
    spared: int = 0,
) -> list[Launch]:
    """The launch of a text; `work` counts multiply-adds, `spared` operands are not read."""
    if not iterations:
        return []
    addresses = [place(operand).where for operand in node.inputs[spared:]]
    reads = tuple(dict.fromkeys(addresses))
    status = (check.status,) if check is not None else ()
    work *= width_of(node) ** 2  # of a complex product
    moved = sum(operand.type.nbytes for operand in node.inputs[spared:]) + node.type.nbytes
    return [
        Launch(
            KernelSource(node.op.name, text),
            tuple(words),
            iterations,
            CALL * iterations + work * MULTIPLY_ADD,
            reads,
            (node, *scratch, *status),
            in_place,
            (node,),
            moved,
            int(2 * work),
        )
    ]


def _check_words(check: Check) -> list[Word]:
    return [Address(check.status), check.number]


def count_of(type: TensorType, axes: int) -> int:
    """How many single arrays of `axes` axes a stack has."""
    return math.prod(type.shape[: type.ndim - axes])


def _indented(text: str, spaces: int) -> str:
    return "".join(" " * spaces + line + "\n" for line in text.splitlines())


def transposed_copy(width: int = 1) -> str:
    """Text that copies x, of `rows` and `columns`, to y as its transpose, by tiles of 16 x 16."""
    moves = "y[j * rows + i] = x[i * columns + j]"
    if width == 2:
        moves = """y[2 * (j * rows + i)] = x[2 * (i * columns + j)]
                y[2 * (j * rows + i) + 1] = x[2 * (i * columns + j) + 1]"""
    return f"""for i0 in range(0, rows, 16):
    for j0 in range(0, columns, 16):
        i1, j1 = min_i64(i0 + 16, rows), min_i64(j0 + 16, columns)
        for j in range(j0, j1):
            for i in lanes(i0, i1):
                {moves}
"""


def cholesky(node: Node, check: Check) -> list[Launch]:
    """The lower triangle of rows is the upper one of columns: potrf of that, in place."""
    (a,) = node.inputs
    w = width_of(node)
    n, suffix = shape_of(a, w)[-1], SUFFIX[node.dtype]
    size = w * n * n * node.dtype.itemsize
    times = "" if w == 1 else "2 * "
    text = f"""def kernel(table, lo, hi):
    n, size = table[2], table[3]
    status, number = i64_at(table[4]), table[5]
    upper = {ord("U")}  # U
    info = i64_scratch(1)
    for b in range(lo, hi):
        x = {suffix}_at(table[0] + b * size)
        y = {suffix}_at(table[1] + b * size)
        for i in range(n):
            for j in lanes({times}i * n, {times}(i * n + i + 1)):
                y[j] = x[j]
            for j in lanes({times}(i * n + i + 1), {times}(i * n + n)):
                y[j] = {suffix}(0.0)
        info[0] = 0
        call(table[6], upper, n, y, n, info)
{_indented(_REPORT, 8)}"""
    count = count_of(a.type, 1 + w) if n else 0
    potrf = routine_of("potrf", node.dtype, w)
    return _launch(
        node,
        text,
        [place(a), Address(node), n, size, *_check_words(check), potrf],
        count,
        count * n**3 / 6,
        check,
        in_place=_over(node, a),
    )


def _columns(count: int, columns: int) -> int:
    """How many columns of right sides make an iteration."""
    if count >= RUNS:
        return max(columns, 1)
    return max(COLUMNS, -(-columns // RUNS))


def solve_triangular(node: Node, check: Check) -> list[Launch]:
    """Rows are columns to BLAS: the transposed equation x.T @ a.T = b.T, from the right."""
    a, b = node.inputs
    w = width_of(node)
    n, k = shape_of(b, w)[-2:]
    suffix, item = SUFFIX[node.dtype], w * node.dtype.itemsize
    one, make_one = _unit(suffix, w)
    side = "U" if node["lower"] else "L"
    trans = "T" if node["trans"] else "N"
    unit = "U" if node["unit"] else "N"
    singular = "" if node["unit"] else _singular(w)
    text = f"""def kernel(table, lo, hi):
    n, k, width = table[3], table[4], table[5]
    status, number = i64_at(table[6]), table[7]
    right, side, trans, unit = {characters("R", side, trans, unit)}
{make_one}    blocks = (k + width - 1) // width
    for job in range(lo, hi):
        b = job // blocks
        start = (job - b * blocks) * width
        count = min_i64(width, k - start)
        a = {suffix}_at(table[0] + b * n * n * {item})
        x = {suffix}_at(table[1] + (b * n * k + start) * {item})
        y = {suffix}_at(table[2] + (b * n * k + start) * {item})
{_copied_rows(w)}{singular}        trsm = table[8]
        call(trsm, right, side, trans, unit, count, n, {one}, a, n, y, k)
"""
    stacked = count_of(b.type, 1 + w)
    width = _columns(stacked, k)
    blocks = stacked * -(-k // width) if n else 0
    return _launch(
        node,
        text,
        [
            *(place(a), place(b), Address(node), n, k, width),
            *(*_check_words(check), routine_of("trsm", node.dtype, w)),
        ],
        blocks,
        stacked * n * n * k / 2,
        check,
        in_place=_over(node, b),
    )


def _singular(width: int) -> str:
    """Text that reports a zero on the diagonal of a."""
    at, first, second = "i * n + i", "2 * (i * n + i)", "2 * (i * n + i) + 1"
    zero = f"a[{at}] == 0" if width == 1 else f"a[{first}] == 0 and a[{second}] == 0"
    return f"""        for i in range(n):
            if {zero} and status[0] == 0:
                status[0] = number
"""


def _copied_rows(width: int) -> str:
    """Text that copies `count` columns of x to y, of n rows of k elements."""
    times = "" if width == 1 else "2 * "
    return f"""        for i in range(n):
            for j in lanes({times}i * k, {times}(i * k + count)):
                y[j] = x[j]
"""


def characters(*letters: str) -> str:
    """Letters as LAPACK takes them, with a comment that a person can read."""
    return ", ".join(str(ord(letter)) for letter in letters) + "  # " + ", ".join(letters)


def _over(node: Node, operand: Node) -> tuple[tuple[Node, Node], ...]:
    """That the result may take the place of an operand, if nothing else lies there."""
    where = place(operand).where
    others = {place(other).where for other in node.inputs if other is not operand}
    if isinstance(where, Node) and where not in others and where.type.nbytes == node.type.nbytes:
        return ((node, where),)
    return ()


def lu(node: Node, check: Check) -> list[Launch]:
    """The transpose of rows is what LAPACK wants: copied, factored where it lies."""
    (a,) = node.inputs
    w = width_of(node)
    rows, columns = shape_of(a, w)[-2:]
    suffix, item = SUFFIX[a.dtype], w * a.dtype.itemsize
    k = min(rows, columns)
    text = f"""def kernel(table, lo, hi):
    rows, columns, k = table[3], table[4], table[5]
    size = rows * columns * {item}
    info = i64_scratch(1)
    for b in range(lo, hi):
        x = {suffix}_at(table[0] + b * size)
        y = {suffix}_at(table[1] + b * size)
{_indented(transposed_copy(w), 8)}        given = {_integers()}_at(table[2] + b * k * 8)
        pivots = i64_at(table[2] + b * k * 8)
        call(table[6], rows, columns, y, rows, given, info)
        for back in range(k):  # from the last: integers may become wider, and count from 1
            pivots[k - 1 - back] = i64(given[k - 1 - back]) - 1
"""
    count = count_of(a.type, 1 + w) if k else 0
    return _launch(
        node,
        text,
        [place(a), *result_places(node), rows, columns, k, routine_of("getrf", a.dtype, w)],
        count,
        count * k * k * (max(rows, columns) - k / 3) / 2,
    )


def permutation(node: Node, check: Check) -> list[Launch]:
    """The exchanges, one after the other."""
    (pivots,) = node.inputs
    text = """def kernel(table, lo, hi):
    n, k = table[2], table[3]
    for b in range(lo, hi):
        pivots = i64_at(table[0] + b * k * 8)
        order = i64_at(table[1] + b * n * 8)
        for i in lanes(0, n):
            order[i] = i
        for i in range(k):
            other = pivots[i]
            moved = order[other]
            order[other] = order[i]
            order[i] = moved
"""
    n, k = node.shape[-1], pivots.shape[-1]
    count = count_of(node.type, 1) if n else 0
    return _launch(node, text, [place(pivots), Address(node), n, k], count, count * n)


def solve(node: Node, check: Check) -> list[Launch]:
    """By the factors of a, from the right, as the transposed equation: rows are columns to BLAS."""
    _, lut, pivots, b = node.inputs
    w = width_of(node)
    n, k = shape_of(b, w)[-2:]
    suffix, item = SUFFIX[node.dtype], w * node.dtype.itemsize
    one, make_one = _unit(suffix, w)
    steps = [
        f"call(table[9], right, upper, {{t}}, any, count, n, {one}, a, n, y, k)",
        f"call(table[9], right, lower, {{t}}, unit, count, n, {one}, a, n, y, k)",
    ]
    row, numbers = ("k", "count") if w == 1 else ("2 * k", "2 * count")
    swap = f"""for step in range(n):
            i = {{i}}
            other = pivots[i]
            if other != i:
                for j in lanes(0, {numbers}):
                    kept = y[i * {row} + j]
                    y[i * {row} + j] = y[other * {row} + j]
                    y[other * {row} + j] = kept"""
    if node["trans"]:
        order = [
            steps[0].format(t="plain"),
            steps[1].format(t="plain"),
            swap.format(i="n - 1 - step"),
        ]
    else:
        order = [swap.format(i="step"), *(step.format(t="turned") for step in reversed(steps))]
    body = "".join(f"        {step}\n" for step in order)
    text = f"""def kernel(table, lo, hi):
    n, k, width = table[4], table[5], table[6]
    status, number = i64_at(table[7]), table[8]
    right, lower, upper, plain, turned, unit, any = {characters(*"RLUNTUN")}
{make_one}    blocks = (k + width - 1) // width
    for job in range(lo, hi):
        b = job // blocks
        start = (job - b * blocks) * width
        count = min_i64(width, k - start)
        a = {suffix}_at(table[0] + b * n * n * {item})
        pivots = i64_at(table[1] + b * n * 8)
        x = {suffix}_at(table[2] + (b * n * k + start) * {item})
        y = {suffix}_at(table[3] + (b * n * k + start) * {item})
{_singular(w)}{_copied_rows(w)}{body}"""
    count = count_of(b.type, 1 + w)
    width = _columns(count, k)
    return _launch(
        node,
        text,
        [
            *(place(lut), place(pivots), place(b), Address(node), n, k, width),
            *(*_check_words(check), routine_of("trsm", node.dtype, w)),
        ],
        count * -(-k // width) if n else 0,
        count * n * n * k,
        check,
        in_place=_over(node, b),
        spared=1,
    )


# --- with memory to work in ----------------------------------------------------------------------


class Work(Struct, frozen=True, dict=True):
    """A stack of `count` matrices, cut into `runs` that have memory of their own to work in.

    parts: what lies in that memory, by name: (suffix of its elements, how many).
    """

    node: Node
    count: int
    parts: Mapping[str, tuple[str, int]]

    @property
    def runs(self) -> int:
        return min(self.count, RUNS)

    @cached_property
    def starts(self) -> list[int]:
        """Where the parts begin, in bytes, and where the memory of the next run does."""
        found = [0]
        for suffix, size in self.parts.values():
            nbytes = size * int(suffix[1:]) // 8
            found.append(found[-1] - (-nbytes // control.ALIGNMENT) * control.ALIGNMENT)
        return found

    def kernel(
        self, words: Mapping[str, Word], body: str, check: Check, work: float
    ) -> list[Launch]:
        """The launch that runs `body`, in which `words` and the parts are names, for each b."""
        memory = Buffer(self.runs * self.starts[-1], None, f"what {self.node.op.name} works in")
        table: dict[str, Word] = {
            "memory": Address(memory),
            "stride": self.starts[-1],
            "count": self.count,
            "runs": self.runs,
            "state": Address(check.status),
            "number": check.number,
            **{f"{name}_at": start for name, start in zip(self.parts, self.starts, strict=False)},
            **words,
        }
        named = "".join(f"    {name} = table[{i}]\n" for i, name in enumerate(table))
        parts = "".join(
            f"        {name} = {suffix}_at(memory + run * stride + {name}_at)\n"
            for name, (suffix, _) in self.parts.items()
        )
        text = f"""def kernel(table, lo, hi):
{named}    status = i64_at(state)
    info = i64_scratch(1)
    for run in range(lo, hi):
{parts}        for b in range(run * count // runs, (run + 1) * count // runs):
            info[0] = 0
{_indented(body + _REPORT, 12)}"""
        return _launch(self.node, text, list(table.values()), self.runs, work, check, (memory,))


def wanted(work: NDArray[Any]) -> int:
    """The size that a routine has answered, which float32 may have rounded down."""
    return max(math.ceil(float(work[0]) * (1 + float(np.finfo(work.dtype).eps))), 1)


def _elements(move: str, width: int) -> str:
    """Text that moves all numbers of an element, in a loop in a loop."""
    return "".join(f"        {move.format(width, i, width, i)}\n" for i in range(width))


def qr(node: Node, check: Check) -> list[Launch]:
    """Householder reflections of the transpose of rows, then the columns of q made from them."""
    (a,) = node.inputs
    w = width_of(node)
    rows, n = shape_of(a, w)[-2:]
    columns: int = node["columns"]
    suffix, item = SUFFIX[a.dtype], w * a.dtype.itemsize
    geqrf, orgqr = routine_of("geqrf", a.dtype, w), routine_of("orgqr", a.dtype, w)
    asked, info = np.zeros(w, a.dtype), np.zeros(1, np.int64)
    blas.call(geqrf.name, rows, n, asked, max(rows, 1), asked, asked, -1, info)
    size = wanted(asked)
    if columns:
        blas.call(orgqr.name, rows, columns, n, asked, max(rows, 1), asked, asked, -1, info)
        size = max(size, wanted(asked))
    parts = {"tau": (suffix, w * n), "work": (suffix, w * size)}
    words: dict[str, Word] = {
        "source": place(a), "rows": rows, "columns": n, "size": size, "geqrf": geqrf,
    }  # fmt: skip
    if columns:
        words |= dict(zip(("upper", "vectors"), result_places(node), strict=True))
        words |= {"kept": columns, "orgqr": orgqr}
        target = f"vectors + b * rows * kept * {item}"
        form = "call(orgqr, rows, kept, columns, y, rows, tau, work, size, info)\n"
    else:
        words["upper"] = result_places(node)[0]
        parts["copy"] = (suffix, w * rows * n)
        target, form = "memory + run * stride + copy_at", ""
    body = f"""x = {suffix}_at(source + b * rows * columns * {item})
y = {suffix}_at({target})
r = {suffix}_at(upper + b * columns * columns * {item})
{transposed_copy(w)}call(geqrf, rows, columns, y, rows, tau, work, size, info)
for i in range(columns):
    for j in range({w} * i):
        r[{w} * i * columns + j] = {suffix}(0.0)
    for j in range(i, columns):
{_elements("r[{} * (i * columns + j) + {}] = y[{} * (j * rows + i) + {}]", w)}{form}"""
    count = count_of(a.type, 1 + w) if a.type.size else 0
    return Work(node, count, parts).kernel(
        words, body, check, count * n * (rows * n + rows * columns)
    )


def eigh(node: Node, check: Check) -> list[Launch]:
    """One triangle of rows, copied to that of columns, where the vectors take its place."""
    (a,) = node.inputs
    w = width_of(node)
    n = shape_of(a, w)[-1]
    suffix, item = SUFFIX[a.dtype], w * a.dtype.itemsize
    routine = routine_of("syevd", a.dtype, w)
    job, half = "V" if node["vectors"] else "N", "L" if node["lower"] else "U"
    asked, integers, info = np.zeros(w, a.dtype), np.zeros(1, np.int64), np.zeros(1, np.int64)
    real = np.zeros(1, a.dtype)
    lead, and_real = max(n, 1), (real, -1) if w == 2 else ()
    blas.call(
        routine.name, job, half, n, asked, lead, asked, asked, -1, *and_real, integers, -1, info
    )  # fmt: skip
    size, more = wanted(asked), max(int(integers[0]) & 0xFFFFFFFF, 1)
    parts = {"work": (suffix, w * size), "integers": ("i64", more)}
    words: dict[str, Word] = {
        "source": place(a), "values": result_places(node)[0], "n": n, "size": size, "more": more,
        "routine": routine,
    }  # fmt: skip
    room = ""
    if w == 2:
        parts["reals"], words["much"] = (suffix, wanted(real)), wanted(real)
        room = "reals, much, "
    target = f"vectors + b * n * n * {item}"
    if node["vectors"]:
        words["vectors"] = result_places(node)[1]
    else:
        parts["copy"] = (suffix, w * n * n)
        target = "memory + run * stride + copy_at"
    move = "y[{} * (j * n + i) + {}] = x[{} * (i * n + j) + {}]"
    body = f"""x = {suffix}_at(source + b * n * n * {item})
y = {suffix}_at({target})
w = {suffix}_at(values + b * n * {a.dtype.itemsize})
job, half = {characters(job, half)}
for i in range(n):
    for j in lanes({"0, i + 1" if node["lower"] else "i, n"}):
{_elements(move, w)}call(routine, job, half, n, y, n, w, work, size, {room}integers, more, info)
"""
    count = count_of(a.type, 1 + w) if n else 0
    return Work(node, count, parts).kernel(
        words, body, check, count * n**3 * (9 if node["vectors"] else 2)
    )


def svd(node: Node, check: Check) -> list[Launch]:
    """Of the transpose of rows, in memory of its own: LAPACK destroys it."""
    (a,) = node.inputs
    width = width_of(node)
    rows, columns = shape_of(a, width)[-2:]
    k = min(rows, columns)
    suffix, item = SUFFIX[a.dtype], width * a.dtype.itemsize
    routine = routine_of("gesdd", a.dtype, width)
    job = ("A" if node["full"] else "S") if node["vectors"] else "N"
    left, right = (rows, columns) if node["full"] else (k, k)
    asked, integers, info = np.zeros(width, a.dtype), np.zeros(8 * max(k, 1), np.int64), np.zeros(1)
    blas.call(
        routine.name, job, rows, columns, asked, max(rows, 1), asked, asked, max(rows, 1), asked,
        max(right, 1), asked, -1, *([asked] if width == 2 else []), integers, info,
    )  # fmt: skip
    size = wanted(asked)
    parts = {
        "y": (suffix, width * rows * columns), "work": (suffix, width * size),
        "integers": ("i64", 8 * k),
    }  # fmt: skip
    given, room = "job, rows, columns, y, rows, w", ""
    if width == 2:
        parts["reals"] = (suffix, _real_room(rows, columns, job))
        room = "reals, "
    words: dict[str, Word] = {
        "source": place(a), "values": result_places(node)[0], "rows": rows, "columns": columns,
        "k": k, "size": size, "routine": routine,
    }  # fmt: skip
    if node["vectors"]:
        words |= {"left": left, "right": right}
        words |= dict(zip(("us", "vs"), result_places(node)[1:], strict=True))
        vectors = f"""u = {suffix}_at(us + b * left * rows * {item})
v = {suffix}_at(vs + b * right * columns * {item})
call(routine, {given}, u, rows, v, right, work, size, {room}integers, info)
"""
    else:
        vectors = f"""one = 1  # the leading dimensions of no matrices
call(routine, {given}, work, one, work, one, work, size, {room}integers, info)
"""
    body = f"""x = {suffix}_at(source + b * rows * columns * {item})
w = {suffix}_at(values + b * k * {a.dtype.itemsize})
job = {characters(job)}
{transposed_copy(width)}{vectors}"""
    count = count_of(a.type, 1 + width) if k else 0
    steps = 4 * max(rows, columns) * k + 8 * k * k if node["vectors"] else 4 * rows * columns
    return Work(node, count, parts).kernel(words, body, check, count * k * steps)


def _real_room(rows: int, columns: int, job: str) -> int:
    """How many real numbers cgesdd and zgesdd work in, as their documentation has it."""
    k, most = min(rows, columns), max(rows, columns)
    if job == "N":
        return max(7 * k, 1)
    return max(k * max(5 * k + 7, 2 * most + 2 * k + 1), 1)


#: Degrees of the Pade approximants of exp, and the largest norm of a matrix for which each errs by
#: no more than rounding does: Higham, "The scaling and squaring method for the matrix exponential
#: revisited" (2005), table 2.3 for float64, and Al-Mohy and Higham for float32.
_PADE = {
    4: ((3, 4.258730016922831e-1), (5, 1.880152677804762), (7, 3.925724783138660)),
    8: (
        (3, 1.495585217958292e-2),
        (5, 2.539398330063230e-1),
        (7, 9.504178996162932e-1),
        (9, 2.097847961257068),
        (13, 5.371920351148152),
    ),
}


def expm(node: Node, check: Check) -> list[Launch]:
    """exp(x / 2**s) as p(x) / p(-x), a Pade approximant, then squared s times.

    Polynomials in one matrix commute with each other and with its transposition, so it does not
    matter that rows are columns to LAPACK.
    """
    (a,) = node.inputs
    w = width_of(node)
    n = shape_of(a, w)[-1]
    suffix, item = SUFFIX[a.dtype], w * a.dtype.itemsize
    degrees = _PADE[a.dtype.itemsize]
    choices = "".join(
        f"if norm <= {limit!r}:\n    degree, limit = {degree}, {suffix}({limit!r})\n"
        for degree, limit in reversed(degrees[:-1])
    )
    last, most = degrees[-1]
    size = "absolute(x[i * n + j])"
    one, zero, factors = f"{suffix}(1.0)", f"{suffix}(0.0)", ""
    if w == 2:
        size = "hypot(x[2 * (i * n + j)], x[2 * (i * n + j) + 1])"
        factors = f"one[0], one[1] = {one}, {zero}\nzero[0], zero[1] = {zero}, {zero}\n"
        one, zero = "one", "zero"
    product = f"call(gemm, plain, plain, n, n, n, {one}, {{}}, n, {{}}, n, {zero}, {{}}, n)"
    body = f"""x = {suffix}_at(source + b * n * n * {item})
y = {suffix}_at(target + b * n * n * {item})
plain = {characters("N")}
numbers = {w} * n * n
{factors}norm = {suffix}(0.0)
for i in range(n):
    total = {suffix}(0.0)
    for j in range(n):
        total = add(total, {size})
    if not total <= norm:  # also if it is not a number
        norm = total
degree, limit = {last}, {suffix}({most!r})
{choices}factor = {suffix}(1.0)
squarings = 0
if norm < {suffix}(inf):
    while limit < norm:
        limit = limit * {suffix}(2.0)
        factor = factor * {suffix}(0.5)
        squarings += 1
for i in lanes(0, numbers):
    scaled[i] = x[i] * factor
    power[i] = {suffix}(0.0)
    odd[i] = {suffix}(0.0)
    even[i] = {suffix}(0.0)
{product.format("scaled", "scaled", "square")}
weight = 1.0
for i in range(n):
    power[{w} * (i * n + i)] = {suffix}(1.0)
for k in range(degree // 2 + 1):
    if k > 0:
        {product.format("power", "square", "other")}
        for i in lanes(0, numbers):
            power[i] = other[i]
    for i in lanes(0, numbers):
        even[i] = even[i] + {suffix}(weight) * power[i]
    at = 2 * k + 1
    weight = weight * (degree - at + 1) / ((2 * degree - at + 1) * at)
    for i in lanes(0, numbers):
        odd[i] = odd[i] + {suffix}(weight) * power[i]
    at = 2 * k + 2
    weight = weight * (degree - at + 1) / ((2 * degree - at + 1) * at)
{product.format("scaled", "odd", "other")}
for i in lanes(0, numbers):
    power[i] = even[i] - other[i]
    y[i] = even[i] + other[i]
call(gesv, n, n, power, n, pivots, y, n, info)
for step in range(squarings):
    {product.format("y", "y", "other")}
    for i in lanes(0, numbers):
        y[i] = other[i]
"""
    names = ("scaled", "square", "power", "other", "odd", "even")
    parts = {**dict.fromkeys(names, (suffix, w * n * n)), "pivots": ("i64", n)}
    if w == 2:
        parts |= {"one": (suffix, 2), "zero": (suffix, 2)}
    words: dict[str, Word] = {
        "source": place(a), "target": Address(node), "n": n,
        "gemm": routine_of("gemm", a.dtype, w), "gesv": routine_of("gesv", a.dtype, w),
    }  # fmt: skip
    count = count_of(a.type, 1 + w) if n else 0
    return Work(node, count, parts).kernel(words, body, check, 12 * count * n**3)


#: The launches of each op.
LINALG: dict[str, Callable[[Node, Check], list[Launch]]] = {
    "cholesky": cholesky,
    "solve_triangular": solve_triangular,
    "lu": lu,
    "permutation": permutation,
    "solve": solve,
    "qr": qr,
    "eigh": eigh,
    "svd": svd,
    "expm": expm,
}
