"""Kernels of linear algebra: they call LAPACK and BLAS by address, one matrix after the other.

The iterations of a launch are the matrices of a stack, so threads share a stack, and each matrix is
the work of one thread. Where LAPACK needs memory to work in, the stack is cut into as many runs as
threads can take at once, and each run has its own.

LAPACK has matrices column by column. A matrix that lies row by row is its transpose to LAPACK; each
kernel either asks for what makes that right (the other triangle, the product from the other side)
or copies the transpose.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from graphdl.compiler.view import view_of
from graphdl.graph import Node
from graphdl.kernels.body import SUFFIX
from graphdl.kernels.cpu import blas
from graphdl.kernels.program import Address, Buffer, Check, Launch, Routine, Word
from graphdl.kernels.source import KernelSource
from graphdl.ops import control
from graphdl.types import Dtype, TensorType

#: Nanoseconds a multiply-add of LAPACK takes one core, and a call of it, at the least.
MULTIPLY_ADD, CALL = 0.05, 500.0
#: Columns of right sides that one thread solves for at a time, at the least.
COLUMNS = 64
#: Runs that a stack of matrices is cut into, or the columns of one system, at most.
RUNS = 16

#: LAPACK reports in `info`; the text that tells the program.
_REPORT = """        if info[0] != 0 and status[0] == 0:
            status[0] = number
"""


def _place(operand: Node) -> Address:
    view = view_of(operand)
    assert view is not None, f"{operand!r} is no view of memory"
    return Address(view.base, view.offset * operand.dtype.itemsize)


def _results(node: Node) -> list[Address]:
    """Where the results of an op that has several lie."""
    return [Address(node, start) for start in control.offsets(control.result_types(node))[:-1]]


def _routine(name: str, dtype: Dtype) -> Routine:
    return Routine({4: "s", 8: "d"}[dtype.itemsize] + name)


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
    addresses = [_place(operand).where for operand in node.inputs[spared:]]
    reads = tuple(dict.fromkeys(addresses))
    status = (check.status,) if check is not None else ()
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


def _count(type: TensorType, axes: int) -> int:
    """How many single arrays of `axes` axes a stack has."""
    return math.prod(type.shape[: type.ndim - axes])


def _transposed_copy(indent: str) -> str:
    """Text that copies x, of `rows` and `columns`, to y as its transpose, by tiles of 16 x 16."""
    lines = """for i0 in range(0, rows, 16):
    for j0 in range(0, columns, 16):
        i1, j1 = min_i64(i0 + 16, rows), min_i64(j0 + 16, columns)
        for j in range(j0, j1):
            for i in lanes(i0, i1):
                y[j * rows + i] = x[i * columns + j]
"""
    return "".join(indent + line + "\n" for line in lines.splitlines())


def cholesky(node: Node, check: Check) -> list[Launch]:
    """The lower triangle of rows is the upper one of columns: potrf of that, in place."""
    (a,) = node.inputs
    n, suffix = a.shape[-1], SUFFIX[node.dtype]
    size = n * n * node.dtype.itemsize
    text = f"""def kernel(table, lo, hi):
    n, size = table[2], table[3]
    status, number = i64_at(table[4]), table[5]
    upper = {ord("U")}  # U
    info = i64_scratch(1)
    for b in range(lo, hi):
        x = {suffix}_at(table[0] + b * size)
        y = {suffix}_at(table[1] + b * size)
        for i in range(n):
            for j in lanes(0, i + 1):
                y[i * n + j] = x[i * n + j]
            for j in lanes(i + 1, n):
                y[i * n + j] = {suffix}(0.0)
        info[0] = 0
        call(table[6], upper, n, y, n, info)
{_REPORT}"""
    count = _count(a.type, 2) if n else 0
    return _launch(
        node,
        text,
        [_place(a), Address(node), n, size, *_check_words(check), _routine("potrf", node.dtype)],
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
    n, k = b.shape[-2:]
    suffix, item = SUFFIX[node.dtype], node.dtype.itemsize
    side = "U" if node["lower"] else "L"
    trans = "T" if node["trans"] else "N"
    unit = "U" if node["unit"] else "N"
    singular = "" if node["unit"] else _SINGULAR
    text = f"""def kernel(table, lo, hi):
    n, k, width = table[3], table[4], table[5]
    status, number = i64_at(table[6]), table[7]
    right, side, trans, unit = {_characters("R", side, trans, unit)}
    blocks = (k + width - 1) // width
    for job in range(lo, hi):
        b = job // blocks
        start = (job - b * blocks) * width
        count = min_i64(width, k - start)
        a = {suffix}_at(table[0] + b * n * n * {item})
        x = {suffix}_at(table[1] + (b * n * k + start) * {item})
        y = {suffix}_at(table[2] + (b * n * k + start) * {item})
        for i in range(n):
            for j in lanes(0, count):
                y[i * k + j] = x[i * k + j]
{singular}        call(table[8], right, side, trans, unit, count, n, {suffix}(1.0), a, n, y, k)
"""
    width = _columns(_count(b.type, 2), k)
    blocks = _count(b.type, 2) * -(-k // width) if n else 0
    return _launch(
        node,
        text,
        [
            *(_place(a), _place(b), Address(node), n, k, width),
            *(*_check_words(check), _routine("trsm", node.dtype)),
        ],
        blocks,
        _count(b.type, 2) * n * n * k / 2,
        check,
        in_place=_over(node, b),
    )


#: Text that reports a zero on the diagonal of a.
_SINGULAR = """        for i in range(n):
            if a[i * n + i] == 0 and status[0] == 0:
                status[0] = number
"""


def _characters(*letters: str) -> str:
    """Letters as LAPACK takes them, with a comment that a person can read."""
    return ", ".join(str(ord(letter)) for letter in letters) + "  # " + ", ".join(letters)


def _over(node: Node, operand: Node) -> tuple[tuple[Node, Node], ...]:
    """That the result may take the place of an operand, if nothing else lies there."""
    where = _place(operand).where
    others = {_place(other).where for other in node.inputs if other is not operand}
    if isinstance(where, Node) and where not in others and where.type.nbytes == node.type.nbytes:
        return ((node, where),)
    return ()


def lu(node: Node, check: Check) -> list[Launch]:
    """The transpose of rows is what LAPACK wants: copied, factored where it lies."""
    (a,) = node.inputs
    rows, columns = a.shape[-2:]
    suffix, item = SUFFIX[a.dtype], a.dtype.itemsize
    k = min(rows, columns)
    text = f"""def kernel(table, lo, hi):
    rows, columns, k = table[3], table[4], table[5]
    size = rows * columns * {item}
    info = i64_scratch(1)
    for b in range(lo, hi):
        x = {suffix}_at(table[0] + b * size)
        y = {suffix}_at(table[1] + b * size)
{_transposed_copy("        ")}        given = {_integers()}_at(table[2] + b * k * 8)
        pivots = i64_at(table[2] + b * k * 8)
        call(table[6], rows, columns, y, rows, given, info)
        for back in range(k):  # from the last: integers may become wider, and count from 1
            pivots[k - 1 - back] = i64(given[k - 1 - back]) - 1
"""
    count = _count(a.type, 2) if k else 0
    return _launch(
        node,
        text,
        [_place(a), *_results(node), rows, columns, k, _routine("getrf", a.dtype)],
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
    count = _count(node.type, 1) if n else 0
    return _launch(node, text, [_place(pivots), Address(node), n, k], count, count * n)


def solve(node: Node, check: Check) -> list[Launch]:
    """By the factors of a, from the right, as the transposed equation: rows are columns to BLAS."""
    _, lut, pivots, b = node.inputs
    n, k = b.shape[-2:]
    suffix, item = SUFFIX[node.dtype], node.dtype.itemsize
    steps = [
        f"call(table[9], right, upper, {{t}}, any, count, n, {suffix}(1.0), a, n, y, k)",
        f"call(table[9], right, lower, {{t}}, unit, count, n, {suffix}(1.0), a, n, y, k)",
    ]
    swap = """for step in range(n):
            i = {i}
            other = pivots[i]
            if other != i:
                for j in lanes(0, count):
                    kept = y[i * k + j]
                    y[i * k + j] = y[other * k + j]
                    y[other * k + j] = kept"""
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
    right, lower, upper, plain, turned, unit, any = {_characters(*"RLUNTUN")}
    blocks = (k + width - 1) // width
    for job in range(lo, hi):
        b = job // blocks
        start = (job - b * blocks) * width
        count = min_i64(width, k - start)
        a = {suffix}_at(table[0] + b * n * n * {item})
        pivots = i64_at(table[1] + b * n * 8)
        x = {suffix}_at(table[2] + (b * n * k + start) * {item})
        y = {suffix}_at(table[3] + (b * n * k + start) * {item})
{_SINGULAR}        for i in range(n):
            for j in lanes(0, count):
                y[i * k + j] = x[i * k + j]
{body}"""
    width = _columns(_count(b.type, 2), k)
    count = _count(b.type, 2)
    return _launch(
        node,
        text,
        [
            *(_place(lut), _place(pivots), _place(b), Address(node), n, k, width),
            *(*_check_words(check), _routine("trsm", node.dtype)),
        ],
        count * -(-k // width) if n else 0,
        count * n * n * k,
        check,
        in_place=_over(node, b),
        spared=1,
    )


#: The launches of each op.
LINALG: dict[str, Callable[[Node, Check], list[Launch]]] = {
    "cholesky": cholesky,
    "solve_triangular": solve_triangular,
    "lu": lu,
    "permutation": permutation,
    "solve": solve,
}
