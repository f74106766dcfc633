"""Matrix products: how they are cut into jobs, and the kernels that compute them.

A product c[i, j] = sum over k of a[i, k] * b[k, j] is computed by two kernels. The *core*, one for
each dtype, knows nothing of what becomes of c. An *epilogue*, compiled from the text that
`epilogue_source` writes, turns rows of c that are still in the first-level cache into outputs. The
core calls it by address. So a new epilogue compiles a small pointwise kernel, and new sizes,
strides, transposes or batches compile nothing.

Every element is a sum of chains of fused multiply-adds over rising k (in the mode DOT, which sizes
and strides alone choose: the lanes of a vector first, then over them). So neither the cut into jobs
nor the number of threads changes a bit of the result.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from graphdl import machine
from graphdl.kernels import cache as object_cache
from graphdl.kernels.cpu import tiles
from graphdl.kernels.cpu.assembler import Function, Value
from graphdl.kernels.cpu.host import host
from graphdl.kernels.cpu.tiles import Registers, host_registers
from graphdl.kernels.source import KernelSource

#: Bytes on the stack of the thread that runs a core: packed panels of b, sums of c that are kept
#: while k is cut into steps, and strips of a that are packed too. A small product touches only what
#: it needs. A thread of the pool has 4 MiB, the least that a main thread has is 1 MiB, on Windows.
#: The more sums there are, the more rows of a a panel serves before it is packed again.
PANELS_BYTES = 384 << 10
SUMS_BYTES = (256 << 10) if os.name == "nt" else (1 << 20)
STRIPS_BYTES = 120 << 10
#: Strips of a that are packed at a time, at most.
GATHERED = 4
#: The largest step of k, in elements: where those of a row of a are adjacent, and where they are
#: apart, so that a column of a that is as high as a strip takes a cache line or two for each k.
DEEPEST, DEEPEST_APART = 1024, 256
#: The step of k where b is read where it lies: so many rows of it, each its own stream of adjacent
#: lines, are read from left to right at a time. More streams than that are not fetched ahead. Fewer
#: bytes than NEAR stay in the second-level cache from call to call, and are read in one step.
BAND, NEAR = 64, 1 << 20
#: Bytes from one k to the next beyond which a column of a finds no room in the first-level cache.
FAR = 512
#: The largest number of columns of a block.
WIDEST = 512

#: Jobs that a large product is cut into for each core, so that a core which is late matters less.
JOBS_PER_CORE = 2
#: What an element costs beyond its sum, in multiply-adds: to pack one of b, to pack or read one of
#: a, and to pass one of c through an epilogue.
PACK_COST, GATHER_COST, READ_COST, STORE_COST = 16, 8, 2, 20
#: What an element of c costs more where a job has parts of its rows only: read and written, they
#: lie in some of the sets of the second-level cache, and lines ahead are not fetched.
PARTED_COST = 60

#: How the core reads b. PACKED: copies panels of b to its stack, then reuses them for many rows.
#: DIRECT: few rows, adjacent columns: reads b where it lies. DOT: few rows, adjacent k.
PACKED, DIRECT, DOT = range(3)

#: Words of the launch table; all strides are in bytes, batches are numbered (z, y).
EPILOGUE, A, B, M, N, K, BATCH_Y = range(7)
A_Z, A_Y, A_I, A_K, B_Z, B_Y, B_K, B_J = range(7, 15)
ROWS, ROW_BLOCKS, COLUMNS, COLUMN_BLOCKS, DEPTH, MODE, STORED = range(15, 22)
OPERANDS = 22  # from here on, for each operand of the epilogue: its address, its strides z, y, i, j
OPERAND_ADDRESS, OPERAND_Z, OPERAND_Y, OPERAND_I, OPERAND_J = range(5)
OPERAND_WORDS = 5

#: Words of the table that an epilogue is called with; its iterations are rows of the sums.
SUMS, SUMS_STRIDE, Z, Y, FIRST_ROW, FIRST_COLUMN, WIDTH, LAUNCH = range(8)


# -- the core --------------------------------------------------------------------------------------


def define_pack_panels(texts: list[str], r: Registers) -> None:
    """pack_panels(to, b, bk, bj, depth, columns, direct): panels of two vectors' width each.

    Row k of a panel follows row k - 1, and panels follow each other. If `direct`, the last panel
    alone is packed, and only if it is not full.
    """
    width, step = r.panel, r.panel * r.size
    with tiles.function(texts, "pack_panels", 7) as f:
        to, b, bk, bj, depth, columns, direct = f.arguments()
        panel = depth * step
        done = f.variable(0)
        with f.when(bj.equals(r.size)):
            whole = columns // width
            done.set(whole)
            with f.when(direct.equals(0)):
                f.call("copy", to, step, b, bk, depth, whole, panel)
            left = columns - whole * width
            with f.when(left > 0):
                done.set(whole + 1)
                target = to + f.select(direct.equals(0), whole * panel, 0)
                f.call("copy_edge", target, step, b + whole * step, bk, depth, left)
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


def define_multiply(texts: list[str], r: Registers) -> None:
    """multiply(a, ai, ak, height, b, bk, panels, columns, c, ci, depth, resume): a strip of rows.

    b is read where it lies if it is not 0, but for the last columns if they fill no panel; else,
    and for those, packed panels are.
    """
    width = r.panel
    with tiles.function(texts, "multiply", 12) as f:
        a, ai, ak, height, b, bk, panels, columns, c, ci, depth, resume = f.arguments()
        row_size = width * r.size
        done = f.variable(0)
        direct = b.differs(0)

        def tile(rows: int, vectors: int, i: Value, source: Value, bk: Value, bp: Value) -> None:
            f.call(
                f"tile_{rows}x{vectors}", a + i * ai, ai, ak, height - i, source, bk, bp,
                c + i * ci + done.get() * r.size, ci, depth, resume,
            )  # fmt: skip

        with f.when(direct & height.equals(1)), f.forever() as loop:
            loop.stop_when(columns < done.get() + 8 * r.lanes)
            tile(1, 8, f.constant(0), b + done.get() * r.size, bk, f.constant(row_size))
            done.set(done.get() + 8 * r.lanes)
        if r.many:
            # Where b is not packed, a tile of all the rows reads each line of it once. 12 x 2 needs
            # more addresses than there are registers, and is slower than 6 x 4 twice.
            seven_or_eight = (height > 6) & (height < 9)
            with f.when(direct & seven_or_eight), f.forever() as loop:
                loop.stop_when(columns < done.get() + width)
                tile(8, 2, f.constant(0), b + done.get() * r.size, bk, f.constant(0))
                done.set(done.get() + width)
        with f.forever() as loop:
            left = columns - done.get()
            loop.stop_when(left < 1)
            packed = panels + f.select(direct, 0, done.get() * depth * r.size)
            here = direct & (left >= width)
            source = f.select(here, b + done.get() * r.size, packed)
            step = f.select(here, bk, row_size)
            if r.many:
                two = f.select(direct, 2 * width, width + r.lanes + 1)
                with f.when(left >= two):
                    # 7 and 8 rows are two tiles of 4, other heights have as many of 6 as they hold.
                    rows = f.select(seven_or_eight, 4, 6)
                    start = f.variable(0)
                    pair = f.select(direct, row_size, depth * row_size)
                    with f.forever() as strips:
                        i = start.get()
                        strips.stop_when(i >= height)
                        low = height < i + 5
                        with f.when(low | rows.equals(4)):
                            tile(4, 4, i, source, step, pair)
                        with f.when((height >= i + 5) & rows.equals(6)):
                            tile(6, 4, i, source, step, pair)
                        start.set(i + rows)
                    done.set(done.get() + 2 * width)
                    loop.again_when(f.constant(0).equals(0))
            with f.count(0, (height + 5) // 6) as strip:
                with f.when(left > r.lanes):
                    tile(6, 2, strip * 6, source, step, f.constant(0))
                with f.when(left <= r.lanes):
                    tile(6, 1, strip * 6, source, step, f.constant(0))
            done.set(done.get() + width)


def _define_multiply_dots(texts: list[str], r: Registers) -> None:
    """multiply_dots(a, ai, height, b, bj, columns, c, ci, depth, resume): a strip of few rows."""
    with tiles.function(texts, "multiply_dots", 10) as f:
        a, ai, height, b, bj, columns, c, ci, depth, resume = f.arguments()

        def blocks(rows: int, width: int) -> None:
            with (
                f.count(0, (columns + (width - 1)) // width) as block,
                f.count(0, (height + (rows - 1)) // rows) as strip,
            ):
                i, j = strip * rows, block * width
                f.call(
                    f"dot_{rows}x{width}", a + i * ai, ai, height - i, b + j * bj, bj, columns - j,
                    c + i * ci + j * r.size, ci, depth, resume,
                )  # fmt: skip

        several, single = r.dots
        with f.when(height.equals(1)):
            blocks(*single)
        with f.when(height > 1):
            blocks(*several)


def _define_core(texts: list[str], r: Registers, symbol: str) -> None:
    """The kernel: for each job, a block of c, step by step of k, a row of tiles at a time."""
    tall = tiles.STRIP
    f = Function(symbol, 3)
    table, lo, hi = f.arguments()

    def word(index: int) -> Value:
        return f.load(table + 8 * index)

    panels = f.stack(f.constant(PANELS_BYTES), align=64)
    sums = f.stack(f.constant(SUMS_BYTES), align=64)
    strips = f.stack(f.constant(STRIPS_BYTES), align=64)
    capacity = STRIPS_BYTES // (tall * r.size)  # in elements of k
    place = f.stack(f.constant(64))
    f.store(place + 8 * LAUNCH, table)
    m, n, k, mode = word(M), word(N), word(K), word(MODE)
    out_i = word(OPERANDS + OPERAND_I)
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
        ci = (columns + (r.panel - 1)) // r.panel * (r.panel * r.size)
        for index, value in (
            (SUMS_STRIDE, ci), (Z, z), (Y, y), (FIRST_COLUMN, j0), (WIDTH, columns),
        ):  # fmt: skip
            f.store(place + 8 * index, value)
        a0 = word(A) + z * word(A_Z) + y * word(A_Y) + i0 * ai
        b0 = word(B) + z * word(B_Z) + y * word(B_Y) + j0 * bj
        # Tiles write whole vectors, so a block that ends within one keeps its sums here.
        kept = word(STORED).equals(0) | (columns % r.lanes).differs(0)
        out_z, out_y = word(OPERANDS + OPERAND_Z), word(OPERANDS + OPERAND_Y)
        out = word(OPERANDS + OPERAND_ADDRESS) + z * out_z + y * out_y + i0 * out_i + j0 * r.size
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
            group = f.smaller(f.constant(capacity) // f.larger(depth, 1), GATHERED)
            with f.count(0, (rows + (tall - 1)) // tall) as row:
                i = row * tall
                height = f.smaller(rows - i, tall)
                c = f.select(kept, sums + f.select(whole, 0, i * ci), out + i * out_i)
                ci2 = f.select(kept, ci, out_i)
                a2, ai2, ak2 = f.variable(a1 + i * ai), f.variable(ai), f.variable(ak)
                with f.when(mode.equals(DOT)):
                    f.call(
                        "multiply_dots", a2.get(), ai, height, b1, bj, columns, c, ci, depth,
                        start.get(),
                    )  # fmt: skip
                with f.when(mode.differs(DOT)):
                    # Strips are packed for many columns, or where each k is in lines of its own.
                    wide = (columns > 2 * r.panel) | (ak > FAR)
                    with f.when(ai.equals(r.size) & height.equals(tall) & wide):
                        turn = row % group
                        with f.when(turn.equals(0)):
                            many = f.smaller(rows // tall - row, group)
                            f.call("gather_rows", strips, a2.get(), ak, depth, many)
                        a2.set(strips + turn * depth * (tall * r.size))
                        ai2.set(r.size)
                        ak2.set(tall * r.size)
                    # Rows that lie a multiple of 4 KiB apart compete for one set of the cache.
                    with f.when(
                        ak.equals(r.size) & (ai & 4095).equals(0) & (columns > 2 * r.panel)
                    ):
                        size = depth * r.size
                        f.call("copy_rows", strips, size + 64, a2.get(), ai, height, size)
                        a2.set(strips)
                        ai2.set(size + 64)
                    f.call(
                        "multiply", a2.get(), ai2.get(), ak2.get(), height,
                        f.select(mode.equals(DIRECT), b1, 0), bk, panels, columns, c, ci2, depth,
                        start.get(),
                    )  # fmt: skip
                with f.when(last & kept):
                    f.store(place + 8 * SUMS, c)
                    f.store(place + 8 * FIRST_ROW, i0 + i)
                    f.call(word(EPILOGUE), place, 0, height, returns="void")
            start.set(start.get() + depth)
            steps.stop_when(last)
    texts.append(f.text(""))


def core_ir(dtype: str, symbol: str) -> str:
    """The LLVM IR of the core for "f32" or "f64" on this CPU, as the C function `symbol`."""
    r = host_registers(dtype)
    texts = [tiles.declarations(r)]
    for rows, vectors in r.shapes:
        tiles.define_tile(texts, r, rows, vectors)
    for rows, columns in r.dots:
        tiles.define_dot(texts, r, rows, columns)
    tiles.define_copy(texts, r)
    tiles.define_copy_edge(texts, r)
    tiles.define_gather_rows(texts, r)
    tiles.define_copy_rows(texts, r)
    tiles.define_transpose(texts, r)
    tiles.define_pack(texts, r)
    define_pack_panels(texts, r)
    define_multiply(texts, r)
    _define_multiply_dots(texts, r)
    _define_core(texts, r, symbol)
    return "\n".join(texts)


def core_object(text: Callable[[str], str]) -> tuple[str, bytes]:
    """The symbol and the object code of the C function whose LLVM IR is text(symbol)."""
    key = object_cache.key_of(text("core"), " ".join(host()))
    symbol = object_cache.SYMBOL + key
    code = object_cache.read(key)
    if code is None:
        from graphdl.kernels.cpu import llvm  # where it must: see there

        code = llvm.object_code_of_core(text(symbol))
        object_cache.write(key, code)
    return symbol, code


class Memory:
    """Memory at an address, as NumPy's array interface describes it."""

    def __init__(
        self, address: int, dtype: type[Any], shape: tuple[int, ...], strides: tuple[int, ...]
    ) -> None:
        self.__array_interface__ = {
            "data": (address, False),
            "shape": shape,
            "strides": strides,
            "typestr": np.dtype(dtype).str,
            "version": 3,
        }


#: An epilogue as a Python function: (place, lo, hi).
EpilogueCall = Callable[[NDArray[np.int64], int, int], None]


def core_in_python(
    dtype: str, table: NDArray[np.int64], lo: int, hi: int, epilogue: EpilogueCall
) -> None:
    """What the core does, by NumPy: an oracle, and the way to run an epilogue as plain Python.

    `epilogue(place, lo, hi)` is called where the core calls the native function, once a job.
    """
    element = {"f32": np.float32, "f64": np.float64}[dtype]
    t = [int(word) for word in table]
    for job in range(lo, hi):
        block, row_block = divmod(job, t[ROW_BLOCKS])
        batch, column_block = divmod(block, t[COLUMN_BLOCKS])
        z, y = divmod(batch, t[BATCH_Y])
        i0, j0 = row_block * t[ROWS], column_block * t[COLUMNS]
        rows, columns = min(t[ROWS], t[M] - i0), min(t[COLUMNS], t[N] - j0)
        a0 = t[A] + z * t[A_Z] + y * t[A_Y] + i0 * t[A_I]
        b0 = t[B] + z * t[B_Z] + y * t[B_Y] + j0 * t[B_J]
        a = np.asarray(Memory(a0, element, (rows, t[K]), (t[A_I], t[A_K])))
        b = np.asarray(Memory(b0, element, (t[K], columns), (t[B_K], t[B_J])))
        sums = a.astype(np.float64) @ b.astype(np.float64)
        finish_in_python(dtype, sums, (z, y, i0, j0), table, epilogue)


def finish_in_python(
    dtype: str,
    sums: NDArray[Any],
    at: tuple[int, int, int, int],
    table: NDArray[np.int64],
    epilogue: EpilogueCall,
) -> None:
    """Call the epilogue with a block of the result that begins at (z, y, row, column)."""
    z, y, i0, j0 = at
    c = np.ascontiguousarray(sums, {"f32": np.float32, "f64": np.float64}[dtype])
    place = [c.ctypes.data, c.strides[0], z, y, i0, j0, c.shape[1], table.ctypes.data]
    epilogue(np.array(place, np.int64), 0, c.shape[0])


# -- epilogues -------------------------------------------------------------------------------------


class Operand(Struct, frozen=True):
    """An array that an epilogue reads or writes, indexed by (z, y, i, j).

    `along` tells how it lies along j: "adjacent", "same" (stride 0), or "any"; "number" is one
    element for the whole launch, which is read once and never written.
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
            "number": self.name,
            "any": f"{self.dtype}_at({self.name}_row + j * {self.name}_j)[0]",
        }[self.along]


class Epilogue(Struct, frozen=True):
    """What becomes of c: lines of kernel text that run for each element.

    They use `c` (a scalar of the product's dtype), the `element` of each operand, and, if they
    need them, the indices z, y, i and j0 + j. They store the outputs. `numbers` are lines that run
    once, before the first row, and use operands along "number" only: LLVM would not take them out
    of the loop, as it cannot know that no output overwrites what they read. `few` says that c has
    fewer columns than a vector has lanes: each row is one vector, of which a part is masked.

    >>> out, bias = Operand("out", "f32"), Operand("bias", "f32")
    >>> Epilogue((out, bias), (f"{out.element} = c + {bias.element}",)).lines
    ('out[j] = c + bias[j]',)
    """

    operands: tuple[Operand, ...]
    lines: tuple[str, ...]
    numbers: tuple[str, ...] = ()
    few: bool = False

    def only_stores(self, dtype: str) -> bool:
        """Whether c becomes rows of the one operand as it is, so that tiles may write it there."""
        first = self.operands[0]
        return (
            len(self.operands) == 1
            and (first.dtype, first.along) == (dtype, "adjacent")
            and self.lines == (f"{first.element} = c",)
        )


def epilogue_source(dtype: str, epilogue: Epilogue, name: str = "epilogue") -> KernelSource:
    """The kernel that the core of `dtype` calls with rows of c."""
    lines = [
        "def kernel(place, lo, hi):",
        f"    z, y, j0, columns = place[{Z}], place[{Y}], place[{FIRST_COLUMN}], place[{WIDTH}]",
        f"    table = i64_at(place[{LAUNCH}])",
    ]
    for position, operand in enumerate(epilogue.operands):
        address = OPERANDS + OPERAND_WORDS * position
        if operand.along == "number":
            lines.append(f"    {operand.name} = {operand.dtype}_at(table[{address}])[0]")
            continue
        lines += [
            f"    {operand.name}_at = table[{address}] + z * table[{address + 1}]"
            f" + y * table[{address + 2}] + j0 * table[{address + 4}]",
            f"    {operand.name}_i = table[{address + 3}]",
        ]
        if operand.along == "any":
            lines.append(f"    {operand.name}_j = table[{address + 4}]")
    lines += ["    " + line for line in epilogue.numbers]
    lines += [
        "    for row in range(lo, hi):",
        f"        i = place[{FIRST_ROW}] + row",
        f"        sums = {dtype}_at(place[{SUMS}] + row * place[{SUMS_STRIDE}])",
    ]
    for operand in epilogue.operands:
        if operand.along == "number":
            continue
        lines.append(f"        {operand.name}_row = {operand.name}_at + i * {operand.name}_i")
        if operand.along != "any":
            lines.append(f"        {operand.name} = {operand.dtype}_at({operand.name}_row)")
    loop = "few_lanes" if epilogue.few else "lanes"
    lines += [f"        for j in {loop}(0, columns):", "            c = sums[j]"]
    lines += ["            " + line for line in epilogue.lines]
    return KernelSource(name, "\n".join(lines) + "\n")


# -- launches --------------------------------------------------------------------------------------


class Array(Struct, frozen=True):
    """Where an array lies, and its strides in bytes along (z, y, row, column)."""

    address: int
    strides: tuple[int, int, int, int]


class Product(Struct, frozen=True):
    """c[z, y] = a[z, y] @ b[z, y], m x k by k x n, for all z, y within `batch`."""

    dtype: str
    m: int
    n: int
    k: int
    batch: tuple[int, int] = (1, 1)


class Cut(Struct, frozen=True):
    """A product cut into jobs of `rows` x `columns` of one batch each, and k into steps."""

    rows: int
    columns: int
    depth: int
    mode: int


def _parts(size: int, part: int) -> int:
    return -(-size // part)


def _even(size: int, most: int, unit: int) -> int:
    """The size of parts of whole units: at most `most` or one unit, and all about equal."""
    count = max(1, _parts(size, max(most, unit)))
    return max(unit, _parts(_parts(size, count), unit) * unit)


def cut(product: Product, a: Array, b: Array) -> Cut:
    """How to cut a product into jobs.

    The number of cores decides how many jobs there are, since each packs its own panels of b. It
    changes no bit of the result: sizes and strides alone decide on the order of every sum.
    """
    r = host_registers(product.dtype)
    m, n, k = product.m, product.n, product.k
    size, a_adjacent = r.size, a.strides[3] == r.size
    if m <= 4 and b.strides[2] == size and a_adjacent and k >= 4 * r.lanes:
        mode = DOT
    elif m <= 2 * tiles.STRIP and b.strides[3] == size:
        mode = DIRECT
    else:
        mode = PACKED
    deepest = DEEPEST if a_adjacent or mode != PACKED else DEEPEST_APART
    depth = k if k <= deepest + deepest // 4 else _even(k, deepest, 1)
    depth = max(depth, 1)
    if mode == DOT:
        return Cut(tiles.STRIP, _even(n, 8 * r.lanes, r.panel), depth, mode)
    if mode == DIRECT:
        for_each = _parts(cores(), product.batch[0] * product.batch[1])  # batches are jobs anyway
        columns = _even(n, max(8 * r.lanes, min(WIDEST, _parts(n, for_each))), r.panel)
        if k * b.strides[2] > NEAR:
            depth = min(depth, BAND if m > 1 else BAND // 2)
        return Cut(2 * tiles.STRIP, columns, depth, mode)
    return Cut(*packed_blocks(product, depth, a_adjacent), depth, mode)


def packed_blocks(product: Product, depth: int, a_adjacent: bool = True) -> tuple[int, int]:
    """The rows and columns of a job that packs its panels of b, `depth` of k at a time."""
    r = host_registers(product.dtype)
    m, n, k, size = product.m, product.n, product.k, r.size
    unit = 2 * r.panel if n > r.panel and r.many else r.panel
    room = min(PANELS_BYTES, 3 * machine.current().second_level // 8)
    widest = _even(n, min(WIDEST, max(1, room // size // depth // unit) * unit), unit)
    batch = product.batch[0] * product.batch[1]
    work = batch * m * max(n, r.panel) * (k + STORE_COST)
    wanted = max(1, min(JOBS_PER_CORE * cores(), work // machine.current().job))
    busy = min(cores(), wanted)
    least = max(1, _parts(n, widest))

    def shape(by_rows: int, by_columns: int) -> tuple[int, int]:
        columns = _even(n, _parts(n, by_columns), unit)
        sums = SUMS_BYTES // size // columns // tiles.STRIP * tiles.STRIP
        return _even(m, min(sums if depth < k else m, _parts(m, by_rows)), tiles.STRIP), columns

    def jobs(shape: tuple[int, int]) -> int:
        return batch * _parts(m, shape[0]) * _parts(n, shape[1])

    def time(shape: tuple[int, int]) -> float:
        """Of the core that ends last, as a multiple of its share of what the tiles alone take."""
        rows, columns = shape
        last = _parts(jobs(shape), busy) * busy * rows * columns
        read = READ_COST if a_adjacent else GATHER_COST
        parted = PARTED_COST / max(k, 1) if columns < n else 0
        return last * (1 + PACK_COST / rows + read / columns + parted)

    shapes = {
        shape(by_rows, by_columns)
        for by_columns in range(least, least + wanted)
        for by_rows in range(1, max(1, _parts(wanted, max(1, batch * by_columns))) + 1)
    }
    return min(sorted(shapes), key=lambda shape: (-min(jobs(shape), wanted), time(shape)))


def cores() -> int:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def launch_table(
    product: Product,
    a: Array,
    b: Array,
    epilogue: int,
    operands: Sequence[Array],
    only_stores: bool = False,
) -> tuple[list[int], int]:
    """The launch table and the number of iterations of the core.

    `epilogue` is the address of the compiled epilogue, `operands` are its arrays, in its order.
    If it `only_stores` c (see `Epilogue`), blocks of whole vectors do without it.
    """
    c = cut(product, a, b)
    row_blocks, column_blocks = _parts(product.m, c.rows), _parts(product.n, c.columns)
    words = [
        epilogue, a.address, b.address, product.m, product.n, product.k, product.batch[1],
        *a.strides, *b.strides,
        c.rows, row_blocks, c.columns, column_blocks, c.depth, c.mode,
        int(only_stores and c.mode != DOT),
    ]  # fmt: skip
    for operand in operands:
        words += [operand.address, *operand.strides]
    return words, product.batch[0] * product.batch[1] * row_blocks * column_blocks
