"""Convolutions as products whose one operand is never written down: the kernels, and their cut.

A convolution is a product of the patches (see graphdl.kernels.cpu.patches), one row a place of the
window, and the weights; the gradient of the weights is a product of the patches' transpose and the
cotangent. Patches written down would take as much memory as the window has elements, times the
input. So the register tiles read them, element by element, through a table of the addresses of
their segments: those of `convolve` hold some places by some outputs and walk the patch, those of
`filter_gradient` hold some elements of the patch by some outputs and walk the places. Packing of
the other operand and epilogues are those of matrix products, see graphdl.kernels.cpu.product.

Every element is one chain of multiply-adds over rising k, so cuts and threads change no bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from graphdl import machine
from graphdl.kernels.cpu import product, tiles
from graphdl.kernels.cpu.assembler import Function, Value
from graphdl.kernels.cpu.patches import (
    B_GROUP,
    B_K,
    COLUMN_BLOCKS,
    COLUMNS,
    DEPTH,
    FIRST_STEP,
    GEOMETRY,
    GROUPS,
    MOST_SEGMENTS,
    PARTS,
    PLACES,
    ROW,
    ROW_BLOCKS,
    ROWS,
    STEP_WORDS,
    STEPS,
    X_GROUP,
    B,
    Convolution,
    M,
    N,
    Step,
    X,
    define_find,
    nothing_at,
    other_in_python,
    part_places,
    patches_in_python,
    segments_of,
    steps_of,
    table_of,
)
from graphdl.kernels.cpu.product import DEEPEST, EPILOGUE, PANELS_BYTES, SUMS_BYTES
from graphdl.kernels.cpu.tiles import STRIP, Registers, Vectors, host_registers
from graphdl.ops.convolution import part_of

#: Outputs that a job of `filter_gradient` takes, at most.
WIDEST = 512
#: Bytes of addresses that it works with at a time, and of what a tile reads while it goes over its
#: places: that is to stay in the first-level cache.
FOUND_BYTES, NEAR_BYTES = 128 << 10, 16 << 10
#: What a place costs a job, in multiply-adds, beyond those: to find a segment, to pack an output.
FIND_COST, PACK_COST = 16, 2


# -- tiles that read patches through a table of addresses ------------------------------------------


def _define_window_tile(texts: list[str], r: Registers, rows: int, vectors: int) -> None:
    """window_tile(table, segments, length, b, bp, c, ci, resume): c (+)= patches @ b.

    Row i of the patches consists of `segments` runs of `length` elements, run s at the address in
    word i of row s of the table. b: packed panels, bp apart. c: rows of adjacent elements. The sums
    start at zero, or from c if resume != 0.
    """
    with tiles.function(texts, f"window_tile_{rows}x{vectors}", 8) as f:
        table, segments, length, b, bp, c, ci, resume = f.arguments()
        v = Vectors(f, r)
        step = r.lanes * r.size
        sums = v.variables(rows, vectors)

        def each_of_c(visit: Callable[[str, Value], None]) -> None:
            for i in range(rows):
                for j in range(vectors):
                    visit(sums[i][j], c + ci * i + j * step)

        with f.when(resume.differs(0)):
            each_of_c(lambda slot, address: v.set(slot, v.load(address)))
        with f.count(0, segments) as s:
            starts = [f.load(table + s * ROW + 8 * i) for i in range(rows)]
            panel = b + s * length * (r.panel * r.size)
            with f.count(0, length) as k:
                row = panel + k * (r.panel * r.size)
                weights = [v.load(row + bp * (j // 2) + j % 2 * step) for j in range(vectors)]
                offset = k * r.size
                for i in range(rows):
                    value = v.splat(v.load_scalar(starts[i] + offset))
                    for j in range(vectors):
                        v.set(sums[i][j], v.multiply_add(value, weights[j], v.get(sums[i][j])))
        each_of_c(lambda slot, address: v.store(v.get(slot), address))


def _window_shapes(r: Registers) -> tuple[tuple[int, int], ...]:
    """The register tiles, rows by vectors; narrow ones are as high as a strip, to have work."""
    wide = ((6, 4), (4, 4), (12, 2)) if r.many else ()
    return (*wide, (12, 1), (6, 2), (6, 1))


def _define_multiply_windows(texts: list[str], r: Registers) -> None:
    """multiply_windows(table, segments, length, height, panels, columns, c, ci, resume).

    A strip of `height` rows, at most STRIP.
    """
    width = r.panel
    with tiles.function(texts, "multiply_windows", 9) as f:
        table, segments, length, height, panels, columns, c, ci, resume = f.arguments()
        panel = segments * length * (width * r.size)
        done = f.variable(0)

        def tile(rows: int, vectors: int, i: Value) -> None:
            f.call(
                f"window_tile_{rows}x{vectors}", table + i * 8, segments, length,
                panels + done.get() // width * panel, panel, c + i * ci + done.get() * r.size, ci,
                resume,
            )  # fmt: skip

        with f.forever() as loop:
            left = columns - done.get()
            loop.stop_when(left < 1)
            if r.many:
                with f.when(left > width + r.lanes):
                    # 7 and 8 rows are two tiles of 4, other heights have as many of 6 as they hold.
                    rows = f.select((height > 6) & (height < 9), 4, 6)
                    start = f.variable(0)
                    with f.forever() as strips:
                        i = start.get()
                        strips.stop_when(i >= height)
                        low = height < i + 5
                        with f.when(low | rows.equals(4)):
                            tile(4, 4, i)
                        with f.when((height >= i + 5) & rows.equals(6)):
                            tile(6, 4, i)
                        start.set(i + rows)
                    done.set(done.get() + 2 * width)
                    loop.again_when(f.constant(0).equals(0))
            two, high = left > r.lanes, height > 6
            for vectors, narrow in ((2, two), (1, left <= r.lanes)):
                with f.when(narrow & high):
                    if (STRIP, vectors) in _window_shapes(r):
                        tile(STRIP, vectors, f.constant(0))
                    else:
                        tile(6, vectors, f.constant(0))
                        tile(6, vectors, f.constant(6))
                with f.when(narrow & (height < 7)):
                    tile(6, vectors, f.constant(0))
            done.set(done.get() + width)


# -- the cores -------------------------------------------------------------------------------------


def _define_convolve(texts: list[str], r: Registers, symbol: str) -> None:
    """The kernel of `convolve`: for each job a block of places and outputs, step by step of k."""
    f = Function(symbol, 3)
    table, lo, hi = f.arguments()

    def word(index: int) -> Value:
        return f.load(table + 8 * index)

    panels = f.stack(f.constant(PANELS_BYTES), align=64)
    sums = f.stack(f.constant(SUMS_BYTES), align=64)
    found = f.stack(f.constant(ROW * MOST_SEGMENTS), align=64)
    nothing = nothing_at(f, r)
    place = f.stack(f.constant(64))
    f.store(place + 8 * product.LAUNCH, table)
    f.store(place + 8 * product.Z, 0)
    m, n, bk = word(M), word(N), word(B_K)
    row_blocks, column_blocks, count = word(ROW_BLOCKS), word(COLUMN_BLOCKS), word(STEPS)
    geometry = table + word(GEOMETRY) * 8
    packed, packed_columns = f.variable(0), f.variable(0)
    with f.count(lo, hi) as job:
        block = job // row_blocks
        group = block // column_blocks
        i0 = (job - block * row_blocks) * word(ROWS)
        j0 = (block - group * column_blocks) * word(COLUMNS)
        rows, columns = f.smaller(m - i0, word(ROWS)), f.smaller(n - j0, word(COLUMNS))
        ci = (columns + (r.panel - 1)) // r.panel * (r.panel * r.size)
        for index, value in (
            (product.SUMS_STRIDE, ci), (product.Y, group), (product.FIRST_COLUMN, j0),
            (product.WIDTH, columns),
        ):  # fmt: skip
            f.store(place + 8 * index, value)
        x0 = word(X) + group * word(X_GROUP)
        b0 = word(B) + group * word(B_GROUP) + j0 * r.size
        single = count.equals(1)
        with f.count(0, count) as step:
            at = geometry + 8 * FIRST_STEP + step * (8 * STEP_WORDS)
            segments, many, length, k0 = (f.load(at + 8 * i) for i in range(STEP_WORDS))
            first = geometry + segments * 8
            depth = many * length
            b1 = b0 + k0 * bk
            # Jobs that follow each other often share their columns of b, which stay packed.
            known = b1.equals(packed.get()) & columns.equals(packed_columns.get()) & single
            with f.unless(known):
                f.call("pack_panels", panels, b1, bk, r.size, depth, columns, product.PACKED)
                packed.set(b1)
                packed_columns.set(columns)
            with f.count(0, (rows + (STRIP - 1)) // STRIP) as row:
                i = row * STRIP
                height = f.smaller(rows - i, STRIP)
                c = sums + f.select(single, 0, i * ci)
                f.call("find", geometry, x0, i0 + i, m, first, many, nothing, found, ROW)
                f.call(
                    "multiply_windows", found, many, length, height, panels, columns, c, ci, step
                )
                with f.when((step + 1).equals(count)):
                    f.store(place + 8 * product.SUMS, c)
                    f.store(place + 8 * product.FIRST_ROW, i0 + i)
                    f.call(word(EPILOGUE), place, 0, height, returns="void")
    texts.append(f.text(""))


def _define_gradient_tile(
    texts: list[str], r: Registers, rows: int, vectors: int, whole: bool
) -> None:
    """gradient_tile(table, offset, height, g, gp, places, c, ci, resume): a tile of sums.

    c[i] (+)= the sum over places of x[place, i] * g[place]. x[place, 0] lies `offset` beyond the
    address in word `place` of the table. g: packed panels, gp apart. Rows at and past `height`
    repeat the last one; if `whole`, there are none, and the elements of x lie at constant
    distances. The sums start at zero, or from c if resume != 0.
    """
    with tiles.function(texts, _gradient_tile(rows, vectors, whole), 9) as f:
        table, offset, height, g, gp, places, c, ci, resume = f.arguments()
        v = Vectors(f, r)
        step = r.lanes * r.size
        sums = v.variables(rows, vectors)
        own: list[Value] = [f.constant(i) for i in range(rows)]
        if not whole:
            own = [f.smaller(i, height - 1) for i in own]
        apart = [i * r.size + (0 if whole else offset) for i in own]

        def each_of_c(visit: Callable[[str, Value], None]) -> None:
            for i in range(rows):
                for j in range(vectors):
                    visit(sums[i][j], c + ci * own[i] + j * step)

        with f.when(resume.differs(0)):
            each_of_c(lambda slot, address: v.set(slot, v.load(address)))
        with f.count(0, places) as place:
            row = g + place * (r.panel * r.size)
            cotangent = [v.load(row + gp * (j // 2) + j % 2 * step) for j in range(vectors)]
            start = f.load(table + place * 8) + (offset if whole else 0)
            for i in range(rows):
                value = v.splat(v.load_scalar(start + apart[i]))
                for j in range(vectors):
                    v.set(sums[i][j], v.multiply_add(value, cotangent[j], v.get(sums[i][j])))
        each_of_c(lambda slot, address: v.store(v.get(slot), address))


def _gradient_tile(rows: int, vectors: int, whole: bool) -> str:
    return f"gradient_tile_{rows}x{vectors}" + ("" if whole else "_part")


def _gradient_shapes(r: Registers) -> dict[int, tuple[int, ...]]:
    """The rows of register tiles, by their vectors: many, and fewer for what is left."""
    if r.many:
        return {4: (6, 4, 2), 2: (12, 8, 4), 1: (16, 8)}
    return {2: (6, 4, 2), 1: (12, 6)}


def _define_gradient_tiles(texts: list[str], r: Registers, vectors: int) -> None:
    """gradient_tiles(table, length, g, gp, places, c, ci, resume): all rows of a segment."""
    shapes = _gradient_shapes(r)[vectors]
    for rows in shapes:
        for whole in (True, False):
            _define_gradient_tile(texts, r, rows, vectors, whole)
    with tiles.function(texts, f"gradient_tiles_{vectors}", 8) as f:
        table, length, g, gp, places, c, ci, resume = f.arguments()

        def tile(rows: int, whole: bool, i: Value) -> None:
            f.call(
                _gradient_tile(rows, vectors, whole), table, i * r.size, length - i, g, gp,
                places, c + i * ci, ci, resume,
            )  # fmt: skip

        most = shapes[0]
        full = length // most
        with f.count(0, full) as i:
            tile(most, True, i * most)
        done = full * most
        left = length - done
        for rows, fewer in itertools.pairwise((*shapes, 0)):
            if rows < most:
                with f.when(left.equals(rows)):
                    tile(rows, True, done)
            with f.when((left < rows) & (left > fewer)):
                tile(rows, False, done)


def _define_filter_gradient(texts: list[str], r: Registers, symbol: str) -> None:
    """The kernel of `filter_gradient`: rows are a step of the patch, columns are outputs."""
    f = Function(symbol, 3)
    table, lo, hi = f.arguments()

    def word(index: int) -> Value:
        return f.load(table + 8 * index)

    panels = f.stack(f.constant(PANELS_BYTES), align=64)
    sums = f.stack(f.constant(SUMS_BYTES), align=64)
    found = f.stack(f.constant(FOUND_BYTES), align=64)
    nothing = nothing_at(f, r)
    place = f.stack(f.constant(64))
    f.store(place + 8 * product.LAUNCH, table)
    f.store(place + 8 * product.SUMS, sums)
    n, places, deep, gk = word(N), word(PLACES), word(DEPTH), word(B_K)
    column_blocks, count = word(COLUMN_BLOCKS), word(STEPS)
    geometry = table + word(GEOMETRY) * 8
    row_size, addresses = r.panel * r.size, deep * 8
    with f.count(lo, hi) as job:
        block = job // column_blocks
        batch = block // count
        part = batch // word(GROUPS)
        group = batch - part * word(GROUPS)
        j0 = (job - block * column_blocks) * word(COLUMNS)
        columns = f.smaller(n - j0, word(COLUMNS))
        at = geometry + 8 * FIRST_STEP + (block - batch * count) * (8 * STEP_WORDS)
        segments, many, length, i0 = (f.load(at + 8 * i) for i in range(STEP_WORDS))
        first = geometry + segments * 8
        ci = (columns + (r.panel - 1)) // r.panel * row_size
        for index, value in (
            (product.SUMS_STRIDE, ci), (product.Z, part), (product.Y, group),
            (product.FIRST_ROW, i0), (product.FIRST_COLUMN, j0), (product.WIDTH, columns),
        ):  # fmt: skip
            f.store(place + 8 * index, value)
        x0 = word(X) + group * word(X_GROUP)
        g0 = word(B) + group * word(B_GROUP) + j0 * r.size
        begin, end = part_places(part, word(PARTS), places)
        start = f.variable(begin)
        with f.forever() as chunks:
            depth = f.smaller(end - start.get(), deep)
            with f.count(0, (depth + (STRIP - 1)) // STRIP) as strip:
                f.call(
                    "find", geometry, x0, start.get() + strip * STRIP, end, first, many, nothing,
                    found + strip * ROW, addresses,
                )  # fmt: skip
            f.call(
                "pack_panels", panels, g0 + start.get() * gk, gk, r.size, depth, columns,
                product.PACKED,
            )  # fmt: skip
            panel = depth * row_size
            done = f.variable(0)
            with f.forever() as across:
                j = done.get()
                left = columns - j
                across.stop_when(left < 1)
                g = panels + j // r.panel * panel
                width = f.variable(r.lanes)
                for vectors in sorted(_gradient_shapes(r)):
                    # Four vectors where there is work for more than three.
                    fits = left > (vectors - 1) * r.lanes
                    with f.when(fits):
                        width.set(vectors * r.lanes)
                with f.count(0, many) as s:
                    c = sums + s * length * ci + j * r.size
                    for vectors in _gradient_shapes(r):
                        with f.when(width.get().equals(vectors * r.lanes)):
                            f.call(
                                f"gradient_tiles_{vectors}", found + s * addresses, length,
                                g, panel, depth, c, ci, start.get() - begin,
                            )  # fmt: skip
                done.set(j + width.get())
            start.set(start.get() + depth)
            chunks.stop_when(start.get() >= end)
        f.call(word(EPILOGUE), place, 0, many * length, returns="void")
    texts.append(f.text(""))


def convolve_ir(dtype: str, symbol: str) -> str:
    """The LLVM IR of the core of `convolve` for "f32" or "f64" on this CPU."""
    r = host_registers(dtype)
    texts = [tiles.declarations(r)]
    tiles.define_copy(texts, r)
    tiles.define_copy_edge(texts, r)
    tiles.define_transpose(texts, r)
    tiles.define_pack(texts, r)
    product.define_pack_panels(texts, r)
    for rows, vectors in _window_shapes(r):
        _define_window_tile(texts, r, rows, vectors)
    _define_multiply_windows(texts, r)
    define_find(texts)
    _define_convolve(texts, r, symbol)
    return "\n".join(texts)


def filter_gradient_ir(dtype: str, symbol: str) -> str:
    """The LLVM IR of the core of `filter_gradient` for "f32" or "f64" on this CPU."""
    r = host_registers(dtype)
    texts = [tiles.declarations(r)]
    tiles.define_copy(texts, r)
    tiles.define_copy_edge(texts, r)
    tiles.define_transpose(texts, r)
    tiles.define_pack(texts, r)
    product.define_pack_panels(texts, r)
    for vectors in _gradient_shapes(r):
        _define_gradient_tiles(texts, r, vectors)
    define_find(texts)
    _define_filter_gradient(texts, r, symbol)
    return "\n".join(texts)


# -- what the cores do, by NumPy -------------------------------------------------------------------


def convolve_in_python(
    dtype: str, table: NDArray[np.int64], lo: int, hi: int, epilogue: product.EpilogueCall
) -> None:
    """What the core of `convolve` does."""
    t = [int(word) for word in table]
    steps = t[t[GEOMETRY] + FIRST_STEP :]
    for job in range(lo, hi):
        block, row_block = divmod(job, t[ROW_BLOCKS])
        group, column_block = divmod(block, t[COLUMN_BLOCKS])
        i0, j0 = row_block * t[ROWS], column_block * t[COLUMNS]
        rows, columns = min(t[ROWS], t[M] - i0), min(t[COLUMNS], t[N] - j0)
        sums = np.zeros((rows, columns))
        for step in range(t[STEPS]):
            _, count, length, k0 = steps[STEP_WORDS * step :][:STEP_WORDS]
            a = patches_in_python(dtype, t, group, step)[i0 : i0 + rows]
            b = other_in_python(dtype, t, group, k0 + count * length, t[N])[k0:, j0 : j0 + columns]
            sums = sums + a.astype(np.float64) @ b.astype(np.float64)
        product.finish_in_python(dtype, sums, (0, group, i0, j0), table, epilogue)


def filter_gradient_in_python(
    dtype: str, table: NDArray[np.int64], lo: int, hi: int, epilogue: product.EpilogueCall
) -> None:
    """What the core of `filter_gradient` does."""
    t = [int(word) for word in table]
    steps = t[t[GEOMETRY] + FIRST_STEP :]
    for job in range(lo, hi):
        block, column_block = divmod(job, t[COLUMN_BLOCKS])
        batch, step = divmod(block, t[STEPS])
        part, group = divmod(batch, t[GROUPS])
        j0 = column_block * t[COLUMNS]
        places = slice(*part_of(part, t[PARTS], t[PLACES]))
        a = patches_in_python(dtype, t, group, step)[places]
        b = other_in_python(dtype, t, group, t[PLACES], t[N])[places, j0 : j0 + t[COLUMNS]]
        sums = a.T.astype(np.float64) @ b.astype(np.float64)
        i0 = steps[STEP_WORDS * step + 3]
        product.finish_in_python(dtype, sums, (part, group, i0, j0), table, epilogue)


# -- launches --------------------------------------------------------------------------------------


def convolve_table(
    what: Convolution, operands: Sequence[tuple[int, int, int, int]]
) -> tuple[list[int], int]:
    """The launch table of `convolve`, and the number of iterations.

    `operands` are the strides in bytes, along (z, y, row, column), of what the epilogue uses. The
    addresses (EPILOGUE, X, B, and the first word of each operand) are left to the caller.
    """
    segments = segments_of(what)
    whole = what.depth <= DEEPEST + DEEPEST // 4 and len(segments) <= MOST_SEGMENTS
    steps = steps_of(segments, what.depth if whole else DEEPEST)
    deepest = max(step.count * step.length for step in steps)
    shape = product.Product(what.dtype, what.places, what.outputs, what.depth, (1, what.groups))
    rows, columns = product.packed_blocks(shape, deepest)
    row_blocks, column_blocks = -(-what.places // rows), -(-what.outputs // columns)
    words = {
        M: what.places, N: what.outputs, ROWS: rows, ROW_BLOCKS: row_blocks, COLUMNS: columns,
        COLUMN_BLOCKS: column_blocks,
    }  # fmt: skip
    return (
        table_of(what, words, segments, steps, operands),
        what.groups * row_blocks * column_blocks,
    )


def _parts(size: int, part: int) -> int:
    return -(-size // part)


def _counts(size: int) -> list[int]:
    """Numbers of parts that so many things fall into, one for each size of the largest part."""
    return sorted({_parts(size, most) for most in range(1, size + 1)})


def filter_gradient_table(
    what: Convolution, operands: Sequence[tuple[int, int, int, int]], parts: int = 1
) -> tuple[list[int], int]:
    """The launch table of `filter_gradient`, and the number of iterations: see `convolve_table`.

    The places fall into so many parts, which have a sum each.
    """
    r = host_registers(what.dtype)
    segments = segments_of(what)
    least = machine.current().job
    wanted = max(1, min(product.JOBS_PER_CORE * product.cores(), what.multiply_adds // least))
    busy = min(product.cores(), wanted)
    places = _parts(what.places, parts)

    def rank(cut: tuple[list[Step], int]) -> tuple[int, float]:
        """First work for all cores, then the time of the one that ends last."""
        steps, columns = cut
        jobs = parts * what.groups * len(steps) * _parts(what.outputs, columns)
        width = _parts(columns, r.lanes) * r.lanes
        longest = max(
            step.count * (step.length * width + FIND_COST) + width * PACK_COST for step in steps
        )
        return -min(jobs, wanted), _parts(jobs, busy) * longest

    room = min(SUMS_BYTES, machine.current().second_level // 4) // r.size
    divided = [steps_of(segments, _parts(what.depth, n)) for n in _counts(len(segments))]
    panels = _parts(what.outputs, r.panel)
    widths = [_parts(panels, n) * r.panel for n in _counts(panels)]
    cuts = [
        (steps, columns)
        for columns in widths
        if columns <= WIDEST
        for steps in divided
        if max(step.count * step.length for step in steps) * columns <= room
    ]
    steps, columns = min(cuts, key=rank)
    many = max(step.count for step in steps)
    near = NEAR_BYTES // (r.size * min(columns, 4 * r.lanes) + 64 + 8)
    deepest = min(near, FOUND_BYTES // ROW // many * STRIP)
    words = {
        N: what.outputs, COLUMNS: columns, COLUMN_BLOCKS: _parts(what.outputs, columns),
        DEPTH: max(STRIP, min(deepest, places) // STRIP * STRIP), PARTS: parts,
    }  # fmt: skip
    return (
        table_of(what, words, segments, steps, operands),
        parts * what.groups * len(steps) * words[COLUMN_BLOCKS],
    )
