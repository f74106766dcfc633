"""Depthwise convolutions: each channel by itself, channels as the lanes of vectors.

There is one multiply-add for each element that is read, so there is nothing to pack: a tile is some
places by two vectors of channels, whose sums stay in registers while the window is walked. The
gradient of the weights has the elements of the window for rows, and walks the places. Addresses and
zeros around the input are those of graphdl.kernels.cpu.patches, epilogues those of products.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphdl.kernels.cpu import product, tiles
from graphdl.kernels.cpu.assembler import Function, Value
from graphdl.kernels.cpu.patches import (
    B_K,
    COLUMN_BLOCKS,
    COLUMNS,
    FIRST_STEP,
    GEOMETRY,
    LONGEST,
    MOST_SEGMENTS,
    PARTS,
    PLACES,
    ROW,
    ROW_BLOCKS,
    ROWS,
    STEP_WORDS,
    STEPS,
    B,
    Convolution,
    M,
    N,
    Segment,
    X,
    define_find,
    nothing_at,
    other_in_python,
    part_places,
    patches_in_python,
    steps_of,
    table_of,
)
from graphdl.kernels.cpu.product import EPILOGUE, SUMS_BYTES
from graphdl.kernels.cpu.tiles import STRIP, Registers, Vectors, host_registers
from graphdl.ops.convolution import part_of

#: Places, or elements of the window, of a tile.
HEIGHT = 6
#: Jobs that a large convolution is cut into for each core.
JOBS_PER_CORE = 4


def _define_tile(texts: list[str], r: Registers, vectors: int) -> None:
    """places_tile(table, count, offset, w, wk, c, ci, left, resume): HEIGHT places by vectors.

    c[i] (+)= the sum over elements s of the window of x[s, i] * w[s]; x[s, i] lies `offset` beyond
    word i of row s of the table. Of one vector, only `left` lanes are read.
    """
    with tiles.function(texts, f"places_tile_{vectors}", 9) as f:
        table, count, offset, w, wk, c, ci, left, resume = f.arguments()
        v = Vectors(f, r)
        step = r.lanes * r.size
        load = _loader(v, left, vectors)
        sums = v.variables(HEIGHT, vectors)
        with f.when(resume.differs(0)):
            for i in range(HEIGHT):
                for j in range(vectors):
                    v.set(sums[i][j], v.load(c + ci * i + j * step))
        with f.count(0, count) as s:
            weights = [load(w + s * wk + j * step) for j in range(vectors)]
            for i in range(HEIGHT):
                start = f.load(table + s * ROW + 8 * i) + offset
                for j in range(vectors):
                    x = load(start + j * step)
                    v.set(sums[i][j], v.multiply_add(x, weights[j], v.get(sums[i][j])))
        for i in range(HEIGHT):
            for j in range(vectors):
                v.store(v.get(sums[i][j]), c + ci * i + j * step)


def _define_window_tile(texts: list[str], r: Registers, vectors: int) -> None:
    """window_tile(table, first, count, places, offset, g, gk, c, ci, left): HEIGHT of the window.

    c[t] += the sum over `places` of x[first + t, place] * g[place]; elements at and past `count`
    repeat the last one.
    """
    with tiles.function(texts, f"window_tile_{vectors}", 10) as f:
        table, first, count, places, offset, g, gk, c, ci, left = f.arguments()
        v = Vectors(f, r)
        step = r.lanes * r.size
        load = _loader(v, left, vectors)
        sums = v.variables(HEIGHT, vectors)
        rows = [table + f.smaller(first + t, count - 1) * ROW for t in range(HEIGHT)]
        for t in range(HEIGHT):
            for j in range(vectors):
                v.set(sums[t][j], v.load(c + ci * t + j * step))
        with f.count(0, places) as place:
            cotangent = [load(g + place * gk + j * step) for j in range(vectors)]
            for t in range(HEIGHT):
                start = f.load(rows[t] + place * 8) + offset
                for j in range(vectors):
                    x = load(start + j * step)
                    v.set(sums[t][j], v.multiply_add(x, cotangent[j], v.get(sums[t][j])))
        for t in range(HEIGHT):
            for j in range(vectors):
                v.store(v.get(sums[t][j]), c + ci * t + j * step)


def _loader(v: Vectors, left: Value, vectors: int) -> Any:
    """How a tile reads a vector: one vector may be the last, and not full."""
    if vectors > 1:
        return v.load
    mask = v.mask(left)
    return lambda address: v.load_masked(address, mask)


def _each_tile(f: Function, r: Registers, columns: Value, visit: Any) -> None:
    """Call visit(vectors, first column, columns left) for tiles along the channels."""
    done = f.variable(0)
    with f.forever() as loop:
        left = columns - done.get()
        loop.stop_when(left < 1)
        two = left >= 2 * r.lanes
        with f.when(two):
            visit(2, done.get(), left)
        with f.unless(two):
            visit(1, done.get(), left)
        done.set(done.get() + f.select(two, 2 * r.lanes, r.lanes))


def _define_depthwise(texts: list[str], r: Registers, symbol: str) -> None:
    """The kernel of the convolution: a job is a block of places and channels."""
    f = Function(symbol, 3)
    table, lo, hi = f.arguments()

    def word(index: int) -> Value:
        return f.load(table + 8 * index)

    sums = f.stack(f.constant(SUMS_BYTES), align=64)
    found = f.stack(f.constant(ROW * MOST_SEGMENTS), align=64)
    nothing = nothing_at(f, r)
    place = f.stack(f.constant(64))
    f.store(place + 8 * product.LAUNCH, table)
    f.store(place + 8 * product.Z, 0)
    f.store(place + 8 * product.Y, 0)
    m, n, wk = word(M), word(N), word(B_K)
    column_blocks, count = word(COLUMN_BLOCKS), word(STEPS)
    geometry = table + word(GEOMETRY) * 8
    with f.count(lo, hi) as job:
        row_block = job // column_blocks
        i0 = row_block * word(ROWS)
        j0 = (job - row_block * column_blocks) * word(COLUMNS)
        rows, columns = f.smaller(m - i0, word(ROWS)), f.smaller(n - j0, word(COLUMNS))
        ci = (columns + (r.lanes - 1)) // r.lanes * (r.lanes * r.size)
        for index, value in (
            (product.SUMS_STRIDE, ci), (product.FIRST_COLUMN, j0), (product.WIDTH, columns),
            (product.SUMS, sums),
        ):  # fmt: skip
            f.store(place + 8 * index, value)
        x0, w0 = word(X) + j0 * r.size, word(B) + j0 * r.size
        with f.count(0, (rows + (STRIP - 1)) // STRIP) as strip:
            i = strip * STRIP
            with f.count(0, count) as step:
                at = geometry + 8 * FIRST_STEP + step * (8 * STEP_WORDS)
                segments, many, length, start = (f.load(at + 8 * w) for w in range(STEP_WORDS))
                first = geometry + segments * 8
                w = w0 + start // length * wk
                f.call("find", geometry, x0, i0 + i, m, first, many, nothing, found, ROW)
                for half in range(0, STRIP, HEIGHT):

                    def tile(
                        vectors: int, j: Value, left: Value, half: int = half, w: Value = w,
                        many: Value = many, step: Value = step,
                    ) -> None:  # fmt: skip
                        f.call(
                            f"places_tile_{vectors}", found + 8 * half, many, j * r.size,
                            w + j * r.size, wk, sums + ci * half + j * r.size, ci, left, step,
                        )  # fmt: skip

                    with f.when(i + half < rows):
                        _each_tile(f, r, columns, tile)
            f.store(place + 8 * product.FIRST_ROW, i0 + i)
            f.call(word(EPILOGUE), place, 0, f.smaller(rows - i, STRIP), returns="void")
    texts.append(f.text(""))


def _define_depthwise_gradient(texts: list[str], r: Registers, symbol: str) -> None:
    """The kernel of the weights' gradient: a job is a step of the window, channels, a part."""
    f = Function(symbol, 3)
    table, lo, hi = f.arguments()

    def word(index: int) -> Value:
        return f.load(table + 8 * index)

    sums = f.stack(f.constant(SUMS_BYTES), align=64)
    found = f.stack(f.constant(ROW * MOST_SEGMENTS), align=64)
    nothing = nothing_at(f, r)
    place = f.stack(f.constant(64))
    f.store(place + 8 * product.LAUNCH, table)
    f.store(place + 8 * product.Y, 0)
    f.store(place + 8 * product.SUMS, sums)
    n, places, gk = word(N), word(PLACES), word(B_K)
    row_blocks, column_blocks = word(ROW_BLOCKS), word(COLUMN_BLOCKS)
    geometry = table + word(GEOMETRY) * 8
    with f.count(lo, hi) as job:
        block = job // row_blocks
        part = block // column_blocks
        at = geometry + 8 * FIRST_STEP + (job - block * row_blocks) * (8 * STEP_WORDS)
        segments, many, length, k0 = (f.load(at + 8 * w) for w in range(STEP_WORDS))
        first = geometry + segments * 8
        j0 = (block - part * column_blocks) * word(COLUMNS)
        columns = f.smaller(n - j0, word(COLUMNS))
        ci = (columns + (r.lanes - 1)) // r.lanes * (r.lanes * r.size)
        for index, value in (
            (product.SUMS_STRIDE, ci), (product.FIRST_COLUMN, j0), (product.WIDTH, columns),
            (product.Z, part), (product.FIRST_ROW, k0 // length),
        ):  # fmt: skip
            f.store(place + 8 * index, value)
        x0, g0 = word(X) + j0 * r.size, word(B) + j0 * r.size
        heights = (many + (HEIGHT - 1)) // HEIGHT
        tiles.fill_zeros(f, sums, heights * (ci * HEIGHT))
        begin, end = part_places(part, word(PARTS), places)
        with f.count(0, (end - begin + (STRIP - 1)) // STRIP) as strip:
            start = begin + strip * STRIP
            g = g0 + start * gk
            f.call("find", geometry, x0, start, end, first, many, nothing, found, ROW)
            with f.count(0, heights) as height:
                t = height * HEIGHT

                def tile(
                    vectors: int, j: Value, left: Value, t: Value = t, g: Value = g,
                    start: Value = start, many: Value = many, ci: Value = ci, end: Value = end,
                ) -> None:  # fmt: skip
                    f.call(
                        f"window_tile_{vectors}", found, t, many, f.smaller(end - start, STRIP),
                        j * r.size, g + j * r.size, gk, sums + ci * t + j * r.size, ci, left,
                    )  # fmt: skip

                _each_tile(f, r, columns, tile)
        f.call(word(EPILOGUE), place, 0, many, returns="void")
    texts.append(f.text(""))


def depthwise_ir(dtype: str, symbol: str) -> str:
    """The LLVM IR of the core of a depthwise convolution for "f32" or "f64" on this CPU."""
    r = host_registers(dtype)
    texts = [tiles.declarations(r)]
    for vectors in (1, 2):
        _define_tile(texts, r, vectors)
    define_find(texts)
    _define_depthwise(texts, r, symbol)
    return "\n".join(texts)


def depthwise_gradient_ir(dtype: str, symbol: str) -> str:
    """The LLVM IR of the core of the weights' gradient for "f32" or "f64" on this CPU."""
    r = host_registers(dtype)
    texts = [tiles.declarations(r)]
    for vectors in (1, 2):
        _define_window_tile(texts, r, vectors)
    define_find(texts)
    _define_depthwise_gradient(texts, r, symbol)
    return "\n".join(texts)


# -- what the cores do, by NumPy -------------------------------------------------------------------


def _first_element(t: Sequence[int], step: int) -> int:
    """The first element of the window that a step holds."""
    _, _, length, start = t[t[GEOMETRY] + FIRST_STEP + STEP_WORDS * step :][:STEP_WORDS]
    return start // length


def depthwise_in_python(
    dtype: str, table: NDArray[np.int64], lo: int, hi: int, epilogue: product.EpilogueCall
) -> None:
    """What the core of a depthwise convolution does."""
    t = [int(word) for word in table]
    for job in range(lo, hi):
        row_block, column_block = divmod(job, t[COLUMN_BLOCKS])
        i0, j0 = row_block * t[ROWS], column_block * t[COLUMNS]
        rows, columns = slice(i0, i0 + t[ROWS]), slice(j0, j0 + t[COLUMNS])
        sums = np.zeros((min(t[ROWS], t[M] - i0), min(t[COLUMNS], t[N] - j0)))
        for step in range(t[STEPS]):
            seen = patches_in_python(dtype, t, 0, step).reshape(t[PLACES], -1, t[N])
            first = _first_element(t, step)
            w = other_in_python(dtype, t, 0, first + seen.shape[1], t[N])[first:]
            sums += np.einsum("psc,sc->pc", seen[rows, :, columns].astype(float), w[:, columns])
        product.finish_in_python(dtype, sums, (0, 0, i0, j0), table, epilogue)


def depthwise_gradient_in_python(
    dtype: str, table: NDArray[np.int64], lo: int, hi: int, epilogue: product.EpilogueCall
) -> None:
    """What the core of the weights' gradient does."""
    t = [int(word) for word in table]
    for job in range(lo, hi):
        block, step = divmod(job, t[ROW_BLOCKS])
        part, column_block = divmod(block, t[COLUMN_BLOCKS])
        j0 = column_block * t[COLUMNS]
        columns = slice(j0, j0 + t[COLUMNS])
        places = slice(*part_of(part, t[PARTS], t[PLACES]))
        seen = patches_in_python(dtype, t, 0, step).reshape(t[PLACES], -1, t[N])
        g = other_in_python(dtype, t, 0, t[PLACES], t[N])
        sums = np.einsum(
            "psc,pc->sc", seen[places, :, columns].astype(float), g[places, columns].astype(float)
        )
        at = (part, 0, _first_element(t, step), j0)
        product.finish_in_python(dtype, sums, at, table, epilogue)


# -- launches --------------------------------------------------------------------------------------


def _segments(what: Convolution) -> list[Segment]:
    """The elements of the window, all channels of each."""
    places = itertools.product(*(range(axis.window) for axis in what.axes))
    return [
        Segment(
            tuple(i * axis.rhs for i, axis in zip(at, what.axes, strict=True)), 0, what.channels
        )
        for at in places
    ]


def depthwise_table(
    what: Convolution, operands: Sequence[tuple[int, int, int, int]]
) -> tuple[list[int], int]:
    """The launch table, and the number of iterations; `what` has one group, of all channels.

    `operands` are as in graphdl.kernels.cpu.convolution.convolve_table.
    """
    segments = _segments(what)
    steps = steps_of(segments, MOST_SEGMENTS * what.channels)
    columns = min(LONGEST, what.channels)
    column_blocks = -(-what.channels // columns)
    wanted = -(-JOBS_PER_CORE * product.cores() // column_blocks)
    rows = -(-what.places // (wanted * STRIP)) * STRIP
    row_blocks = -(-what.places // rows)
    words = {
        M: what.places, N: what.channels, ROWS: rows, ROW_BLOCKS: row_blocks, COLUMNS: columns,
        COLUMN_BLOCKS: column_blocks,
    }  # fmt: skip
    return table_of(what, words, segments, steps, operands), row_blocks * column_blocks


def depthwise_gradient_table(
    what: Convolution, operands: Sequence[tuple[int, int, int, int]], parts: int = 1
) -> tuple[list[int], int]:
    """The launch table of the weights' gradient, and the number of iterations.

    The places fall into so many parts, which have a sum each.
    """
    r = host_registers(what.dtype)
    segments = _segments(what)
    steps = steps_of(segments, MOST_SEGMENTS * what.channels)
    tall = -(-max(step.count for step in steps) // HEIGHT) * HEIGHT
    most = min(LONGEST, SUMS_BYTES // r.size // tall) // r.lanes * r.lanes
    columns = min(most, what.channels)
    column_blocks = -(-what.channels // columns)
    words = {
        N: what.channels, ROW_BLOCKS: len(steps), COLUMNS: columns, COLUMN_BLOCKS: column_blocks,
        PARTS: parts,
    }  # fmt: skip
    return (
        table_of(what, words, segments, steps, operands),
        parts * len(steps) * column_blocks,
    )
