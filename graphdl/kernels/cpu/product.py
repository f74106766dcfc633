"""Matrix products: how they are cut into jobs, and the kernels that compute them.

A product c[i, j] = sum over k of a[i, k] * b[k, j] is computed by two kernels. The *core*, one for
each dtype, knows nothing of what becomes of c. An *epilogue*, compiled from the text that
`epilogue_source` writes, turns rows of c that are still in the first-level cache into outputs. The
core calls it by address. So a new epilogue compiles a small pointwise kernel, and new sizes,
strides, transposes or batches compile nothing.

Every element is one chain of fused multiply-adds over rising k (in the mode DOT, which sizes and
strides alone choose: the lanes of a vector first, then over them). So neither the cut into jobs nor
the number of threads changes a bit of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from graphdl.kernels import cache as object_cache
from graphdl.kernels.cpu import llvm, tiles
from graphdl.kernels.cpu.assembler import Function, Value
from graphdl.kernels.cpu.tiles import Registers, host_registers
from graphdl.kernels.source import KernelSource

#: Bytes on the stack of the thread that runs a core: packed panels of b, sums of c that are kept
#: while k is cut into steps, and a packed row of tiles of a. A small product touches only what it
#: needs. TBB gives its threads 4 MiB; the least that a main thread has is 1 MiB, on Windows.
PANELS_BYTES = 384 << 10
SUMS_BYTES = 256 << 10
STRIP_BYTES = 120 << 10
#: The largest step of k.
DEEPEST = 1024

#: How the core reads b. PACKED: copies panels of b to its stack, then reuses them for many rows.
#: DIRECT: few rows, adjacent columns: reads b where it lies. DOT: few rows, adjacent k.
PACKED, DIRECT, DOT = range(3)

#: Words of the launch table; all strides are in bytes, batches are numbered (z, y).
EPILOGUE, A, B, M, N, K, BATCH_Y = range(7)
A_Z, A_Y, A_I, A_K, B_Z, B_Y, B_K, B_J = range(7, 15)
ROWS, ROW_BLOCKS, COLUMNS, COLUMN_BLOCKS, DEPTH, MODE = range(15, 21)
OPERANDS = 21  # from here on, for each operand of the epilogue: its address, its strides z, y, i, j
OPERAND_WORDS = 5

#: Words of the table that an epilogue is called with; its iterations are rows of the sums.
SUMS, SUMS_STRIDE, Z, Y, FIRST_ROW, FIRST_COLUMN, WIDTH, LAUNCH = range(8)


# -- the core --------------------------------------------------------------------------------------


def _define_pack_panels(texts: list[str], r: Registers) -> None:
    """pack_panels(to, b, bk, bj, depth, columns, direct): panels of a tile's width each.

    Row k of a panel follows row k - 1, and panels follow each other. If `direct`, only the last
    panel is packed, and only if it is not full.
    """
    width, step = r.width, r.width * r.size
    with tiles.function(texts, "pack_panels", 7) as f:
        to, b, bk, bj, depth, columns, direct = f.arguments()
        panel = depth * step
        done = f.variable(0)
        with f.when(bj.equals(r.size)):
            whole = columns // width
            done.set(whole)
            with f.when(direct.equals(0)):
                f.call("copy", to, step, b, bk, depth, whole, panel)
        with f.when(bj.differs(r.size) & bk.equals(r.size)):
            blocks = depth // r.lanes
            even = blocks * r.lanes
            with f.count(0, (columns + (r.lanes - 1)) // r.lanes) as strip:
                source = b + strip * r.lanes * bj
                target = to + (strip >> 1) * panel + (strip & 1) * (r.lanes * r.size)
                left = columns - strip * r.lanes
                f.call("transpose", target, step, source, bj, left, blocks)
                f.call(
                    "pack", target + even * step, step, source + even * bk, bk, bj, depth - even,
                    f.smaller(left, r.lanes), r.lanes,
                )  # fmt: skip
            done.set((columns + (width - 1)) // width)
        with f.count(done.get(), (columns + (width - 1)) // width) as p:
            left = f.smaller(columns - p * width, width)
            f.call("pack", to + p * panel, step, b + p * width * bj, bk, bj, depth, left, width)


def _define_multiply(texts: list[str], r: Registers) -> None:
    """multiply(a, ai, ak, height, b, bk, panels, columns, c, ci, depth, resume): a row of tiles.

    b is read where it lies if it is not 0, but for the last columns if they fill no tile; else, and
    for those, packed panels are.
    """
    first, second, _ = r.heights
    with tiles.function(texts, "multiply", 12) as f:
        a, ai, ak, height, b, bk, panels, columns, c, ci, depth, resume = f.arguments()
        done = f.variable(0)

        def tile(rows: int, vectors: int, source: Value, step: Value | int) -> None:
            start = done.get() * r.size
            f.call(
                f"tile_{rows}x{vectors}", a, ai, ak, height, source, step, c + start, ci, depth,
                resume,
            )  # fmt: skip

        def cover(rows: int, vectors: int) -> None:
            """As many such tiles, from b where it lies, as there are columns for."""
            width = vectors * r.lanes
            with f.forever() as loop:
                loop.stop_when(columns < done.get() + width)
                tile(rows, vectors, b + done.get() * r.size, bk)
                done.set(done.get() + width)

        with f.when(b.differs(0)):
            with f.when(height.equals(1)):
                cover(1, 8)
            with f.when(height < 5):
                cover(4, 2)
            with f.when(height > 4):
                cover(first, 2)
        with f.forever() as loop:
            left = columns - done.get()
            loop.stop_when(left < 1)
            source, step = panels + done.get() * depth * r.size, f.constant(r.width * r.size)
            with f.when(left > r.lanes):
                with f.when(height > second):
                    tile(first, 2, source, step)
                with f.when((height < second + 1) & (height > 4)):
                    tile(second, 2, source, step)
                with f.when(height < 5):
                    tile(4, 2, source, step)
            with f.when(left <= r.lanes):
                with f.when(height > 4):
                    tile(first, 1, source, step)
                with f.when(height < 5):
                    tile(4, 1, source, step)
            done.set(done.get() + r.width)


def _define_multiply_dots(texts: list[str], r: Registers) -> None:
    """multiply_dots(a, ai, height, b, bj, columns, c, ci, depth, resume): blocks of 4 x 4."""
    with tiles.function(texts, "multiply_dots", 10) as f:
        a, ai, height, b, bj, columns, c, ci, depth, resume = f.arguments()
        with f.count(0, (columns + 3) >> 2) as block, f.count(0, (height + 3) >> 2) as strip:
            j, i = block << 2, strip << 2
            f.call(
                "dot", a + i * ai, ai, height - i, b + j * bj, bj, columns - j,
                c + i * ci + j * r.size, ci, depth, resume,
            )  # fmt: skip


def _define_core(texts: list[str], r: Registers, symbol: str) -> None:
    """The kernel: for each job, a block of c, step by step of k, a row of tiles at a time."""
    tall = r.heights[0]
    f = Function(symbol, 3)
    table, lo, hi = f.arguments()

    def word(index: int) -> Value:
        return f.load(table + 8 * index)

    panels = f.stack(f.constant(PANELS_BYTES), align=64)
    sums = f.stack(f.constant(SUMS_BYTES), align=64)
    strip = f.stack(f.constant(STRIP_BYTES), align=64)
    place = f.stack(f.constant(64))
    f.store(place + 8 * LAUNCH, table)
    m, n, k, mode = word(M), word(N), word(K), word(MODE)
    ai, ak, bk, bj = word(A_I), word(A_K), word(B_K), word(B_J)
    deep, row_blocks, column_blocks = word(DEPTH), word(ROW_BLOCKS), word(COLUMN_BLOCKS)
    whole = deep >= k
    packed, packed_columns = f.variable(0), f.variable(0)
    with f.count(lo, hi) as job:
        block = job // row_blocks
        batch = block // column_blocks
        z = batch // word(BATCH_Y)
        y = batch - z * word(BATCH_Y)
        i0 = (job - block * row_blocks) * word(ROWS)
        j0 = (block - batch * column_blocks) * word(COLUMNS)
        rows, columns = f.smaller(m - i0, word(ROWS)), f.smaller(n - j0, word(COLUMNS))
        ci = (columns + (r.width - 1)) // r.width * (r.width * r.size)
        for index, value in (
            (SUMS_STRIDE, ci), (Z, z), (Y, y), (FIRST_COLUMN, j0), (WIDTH, columns),
        ):  # fmt: skip
            f.store(place + 8 * index, value)
        a0 = word(A) + z * word(A_Z) + y * word(A_Y) + i0 * ai
        b0 = word(B) + z * word(B_Z) + y * word(B_Y) + j0 * bj
        start = f.variable(0)
        with f.forever() as steps:
            depth = f.smaller(k - start.get(), deep)
            last = k <= start.get() + depth
            a1, b1 = a0 + start.get() * ak, b0 + start.get() * bk
            # Jobs that follow each other often share their columns of b, which stay packed.
            known = b1.equals(packed.get()) & columns.equals(packed_columns.get()) & whole
            with f.when(mode.differs(DOT)):
                again = f.select(known, 0, 1)
                with f.when(again.differs(0)):
                    f.call("pack_panels", panels, b1, bk, bj, depth, columns, mode)
                    packed.set(b1)
                    packed_columns.set(columns)
            with f.count(0, (rows + (tall - 1)) // tall) as row:
                i = row * tall
                height = f.smaller(rows - i, tall)
                c = sums + f.select(whole, 0, i * ci)
                a2, ai2, ak2 = f.variable(a1 + i * ai), f.variable(ai), f.variable(ak)
                with f.when(mode.equals(DOT)):
                    f.call(
                        "multiply_dots", a2.get(), ai, height, b1, bj, columns, c, ci, depth,
                        start.get(),
                    )  # fmt: skip
                with f.when(mode.differs(DOT)):
                    with f.when(
                        ai.equals(r.size) & height.equals(tall) & (columns > 2 * r.width)
                    ):
                        f.call("gather_rows", strip, a2.get(), ak, depth)
                        a2.set(strip)
                        ai2.set(r.size)
                        ak2.set(tall * r.size)
                    f.call(
                        "multiply", a2.get(), ai2.get(), ak2.get(), height,
                        f.select(mode.equals(DIRECT), b1, 0), bk, panels, columns, c, ci, depth,
                        start.get(),
                    )  # fmt: skip
                with f.when(last):
                    f.store(place + 8 * SUMS, c)
                    f.store(place + 8 * FIRST_ROW, i0 + i)
                    f.call(word(EPILOGUE), place, 0, height, returns="void")
            start.set(start.get() + depth)
            steps.stop_when(last)
    texts.append(f.text(""))


def core_ir(dtype: str, symbol: str) -> str:
    """The LLVM IR of the core for "f32" or "f64" on this CPU, as the C function `symbol`."""
    r = host_registers(dtype)
    first, second, _ = r.heights
    texts = [tiles.declarations(r)]
    for rows, vectors in ((first, 2), (second, 2), (4, 2), (first, 1), (4, 1), (1, 8)):
        tiles.define_tile(texts, r, rows, vectors)
    tiles.define_dot(texts, r)
    tiles.define_copy(texts, r)
    tiles.define_gather_rows(texts, r)
    tiles.define_transpose(texts, r)
    tiles.define_pack(texts, r)
    _define_pack_panels(texts, r)
    _define_multiply(texts, r)
    _define_multiply_dots(texts, r)
    _define_core(texts, r, symbol)
    return "\n".join(texts)


@cache
def core_address(dtype: str) -> int:
    """The address of the core for "f32" or "f64", from the cache of object code if it is there."""
    key = object_cache.key_of(core_ir(dtype, "core"), " ".join(llvm.host()))
    symbol = f"graphdl_{key}"
    code = object_cache.read(key)
    if code is None:
        code = llvm.object_code(core_ir(dtype, symbol))
        object_cache.write(key, code)
    return llvm.load({symbol: code})[symbol]


# -- epilogues -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operand:
    """An array that an epilogue reads or writes, indexed by (z, y, i, j).

    `along` tells how it lies along j: "adjacent", "same" (stride 0), or "any".
    """

    name: str
    dtype: str
    along: str = "adjacent"

    @property
    def element(self) -> str:
        """Kernel text for its element at (z, y, i, j), to read or to assign to."""
        return {
            "adjacent": f"{self.name}[j]",
            "same": f"{self.name}[0]",
            "any": f"{self.dtype}_at({self.name}_row + j * {self.name}_j)[0]",
        }[self.along]


@dataclass(frozen=True)
class Epilogue:
    """What becomes of c: lines of kernel text that run for each element.

    They use `c` (a scalar of the product's dtype), the `element` of each operand, and, if they
    need them, the indices z, y, i and j0 + j. They store the outputs:

    >>> out, bias = Operand("out", "f32"), Operand("bias", "f32")
    >>> Epilogue((out, bias), (f"{out.element} = c + {bias.element}",)).lines
    ('out[j] = c + bias[j]',)
    """

    operands: tuple[Operand, ...]
    lines: tuple[str, ...]


def epilogue_source(dtype: str, epilogue: Epilogue, name: str = "epilogue") -> KernelSource:
    """The kernel that the core of `dtype` calls with rows of c."""
    lines = [
        "def kernel(place, lo, hi):",
        f"    z, y, j0, columns = place[{Z}], place[{Y}], place[{FIRST_COLUMN}], place[{WIDTH}]",
        f"    table = i64_at(place[{LAUNCH}])",
    ]
    for position, operand in enumerate(epilogue.operands):
        address = OPERANDS + OPERAND_WORDS * position
        lines += [
            f"    {operand.name}_at = table[{address}] + z * table[{address + 1}]"
            f" + y * table[{address + 2}] + j0 * table[{address + 4}]",
            f"    {operand.name}_i = table[{address + 3}]",
        ]
        if operand.along == "any":
            lines.append(f"    {operand.name}_j = table[{address + 4}]")
    lines += [
        "    for row in range(lo, hi):",
        f"        i = place[{FIRST_ROW}] + row",
        f"        sums = {dtype}_at(place[{SUMS}] + row * place[{SUMS_STRIDE}])",
    ]
    for operand in epilogue.operands:
        lines.append(f"        {operand.name}_row = {operand.name}_at + i * {operand.name}_i")
        if operand.along != "any":
            lines.append(f"        {operand.name} = {operand.dtype}_at({operand.name}_row)")
    lines += ["        for j in lanes(0, columns):", "            c = sums[j]"]
    lines += ["            " + line for line in epilogue.lines]
    return KernelSource(name, "\n".join(lines) + "\n")


# -- launches --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Array:
    """Where an array lies, and its strides in bytes along (z, y, row, column)."""

    address: int
    strides: tuple[int, int, int, int]


@dataclass(frozen=True)
class Product:
    """c[z, y] = a[z, y] @ b[z, y], m x k by k x n, for all z, y within `batch`."""

    dtype: str
    m: int
    n: int
    k: int
    batch: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class Cut:
    """A product cut into jobs of `rows` x `columns` of one batch each, and k into steps."""

    rows: int
    columns: int
    depth: int
    mode: int


def _parts(size: int, part: int) -> int:
    return -(-size // part)


def _even(size: int, most: int, unit: int) -> int:
    """The size of parts: at most `most` or one unit, whole units, all about equal."""
    count = max(1, _parts(size, max(most, unit)))
    return max(unit, _parts(_parts(size, count), unit) * unit)


def cut(product: Product, a: Array, b: Array) -> Cut:
    """How to cut a product: by sizes and strides alone, never by the number of threads."""
    r = host_registers(product.dtype)
    m, n, k = product.m, product.n, product.k
    tall, size = r.heights[0], r.size
    if m <= 4 and b.strides[2] == size and a.strides[3] == size and k >= 4 * r.lanes:
        mode = DOT
    elif m <= tall and b.strides[3] == size:
        mode = DIRECT
    else:
        mode = PACKED
    depth = _even(k, DEEPEST + DEEPEST // 4 if k <= DEEPEST + DEEPEST // 4 else DEEPEST, 1)
    widest = min(512, PANELS_BYTES // size // depth // r.width * r.width)
    columns = _even(n, widest if mode == PACKED else min(widest, 128), r.width)
    tallest = m if depth >= k else SUMS_BYTES // size // columns // tall * tall
    jobs = max(1, product.batch[0] * product.batch[1] * _parts(n, columns))
    split = max(1, min(_parts(16, jobs), m // 48, m * n * k // 500_000))
    rows = _even(m, min(tallest, _parts(m, split)), tall)
    return Cut(rows, columns, depth, mode)


def launch_table(
    product: Product, a: Array, b: Array, epilogue: int, operands: Sequence[Array]
) -> tuple[list[int], int]:
    """The launch table and the number of iterations of `core_address(product.dtype)`.

    `epilogue` is the address of the compiled epilogue, `operands` are its arrays, in its order.
    """
    c = cut(product, a, b)
    row_blocks, column_blocks = _parts(product.m, c.rows), _parts(product.n, c.columns)
    words = [
        epilogue, a.address, b.address, product.m, product.n, product.k, product.batch[1],
        *a.strides, *b.strides,
        c.rows, row_blocks, c.columns, column_blocks, c.depth, c.mode,
    ]  # fmt: skip
    for operand in operands:
        words += [operand.address, *operand.strides]
    return words, product.batch[0] * product.batch[1] * row_blocks * column_blocks
