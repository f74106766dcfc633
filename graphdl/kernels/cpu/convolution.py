"""Convolutions as products whose one operand is never written down: the kernels, and their cut.

A convolution is a product of the *patches*, one row a place of the window with what the window sees
there, and the weights; the gradient of the weights is a product of the patches' transpose and the
cotangent. Patches would take as much memory as the window has elements, times the input. Here they
are addressed: a patch falls into *segments*, elements that lie in memory one after the other, and
for a few places at a time a table holds where each segment starts, or the address of zeros where
the window is outside the input.

`convolve` multiplies straight from these addresses: its register tiles read a row of the patches
through the table. `filter_gradient` copies the segments of some hundred places to a panel, since
its tiles read patches as vectors. Packing of the other operand, tiles and epilogues are those of
matrix products, see graphdl.kernels.cpu.product.

Every element is one chain of multiply-adds over rising k, so cuts and threads change no bit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphdl.kernels.cpu import product, tiles
from graphdl.kernels.cpu.assembler import Function, Value, Variable
from graphdl.kernels.cpu.product import (
    DEEPEST,
    EPILOGUE,
    OPERANDS,
    PANELS_BYTES,
    STRIPS_BYTES,
    SUMS_BYTES,
)
from graphdl.kernels.cpu.tiles import STRIP, Registers, Vectors, host_registers
from graphdl.ops.convolution import Axis

#: Spatial axes that kernels walk; fewer are filled up with axes of one element.
RANK = 3
#: Elements of a segment, and segments that are worked on at a time, at most.
LONGEST, MOST_SEGMENTS = 512, 96
#: The segments' addresses are one row of STRIP words each.
ROW = 8 * STRIP
#: Columns of patches that a job of `filter_gradient` takes, at most.
WIDEST = 384

#: What a place costs a step of `filter_gradient` beyond its columns, in columns: to find and copy
#: its patch.
COPY_COST = 16

#: Words of the launch table. X is the input; B the weights or the cotangent, and B_K the bytes
#: between its rows; X_GROUP and B_GROUP are the bytes between groups of channels.
X, B, B_K, X_GROUP, B_GROUP, M, N = range(1, 8)
ROWS, ROW_BLOCKS, COLUMNS, COLUMN_BLOCKS, DEPTH, PLACES, STEPS, GEOMETRY = range(8, 16)
assert OPERANDS > GEOMETRY > EPILOGUE

#: From word GEOMETRY on: for each spatial axis the places, the elements between them, the padding,
#: the input's size and its stride in bytes; then the bytes of an image, then the steps.
AXIS_WORDS = 5
IMAGE = RANK * AXIS_WORDS
FIRST_STEP = IMAGE + 1
#: A step is some segments of one length: the first word of them, how many, their length, and the
#: first element of a patch that they hold.
STEP_WORDS = 4
#: A segment: where it starts along the spatial axes, and in bytes from the window's first element.
SEGMENT_WORDS = RANK + 1

_INDICES = f"<{STRIP} x i64>"


# -- addresses -------------------------------------------------------------------------------------


class _Indices:
    """Vectors of STRIP addresses or coordinates."""

    def __init__(self, function: Function) -> None:
        self.f = function

    def load(self, address: Value) -> str:
        pointer = self.f.emit(f"inttoptr i64 {address.name} to ptr")
        return self.f.emit(f"load {_INDICES}, ptr {pointer}, align 8")

    def store(self, vector: str, address: Value) -> None:
        pointer = self.f.emit(f"inttoptr i64 {address.name} to ptr")
        self.f.line(f"store {_INDICES} {vector}, ptr {pointer}, align 8")

    def splat(self, value: Value) -> str:
        first = self.f.emit(f"insertelement {_INDICES} poison, i64 {value.name}, i64 0")
        return self.f.emit(
            f"shufflevector {_INDICES} {first}, {_INDICES} poison, <{STRIP} x i32> zeroinitializer"
        )

    def add(self, left: str, right: str) -> str:
        return self.f.emit(f"add {_INDICES} {left}, {right}")

    def below(self, left: str, right: str) -> str:
        """Where 0 <= left < right."""
        return self.f.emit(f"icmp ult {_INDICES} {left}, {right}")


def _define_find(texts: list[str]) -> None:
    """find(geometry, x, place, end, segments, count, nothing, to): where segments start.

    Row s of the table `to` becomes the addresses of segment s at the places from `place` on; those
    at and past `end` repeat the last one. `nothing` is the address of zeros, which stand for what
    lies outside the input.
    """
    with tiles.function(texts, "find", 8) as f:
        geometry, x, place, end, segments, count, nothing, to = f.arguments()
        v = _Indices(f)
        rows = [f.stack(f.constant(ROW), align=64) for _ in range(RANK + 1)]

        def word(axis: int, index: int) -> Value:
            return f.load(geometry + 8 * (axis * AXIS_WORDS + index))

        at: list[Variable] = []
        rest = place
        for axis in reversed(range(RANK)):
            quotient = rest // word(axis, 0)
            at.insert(0, f.variable(rest - quotient * word(axis, 0)))
            rest = quotient
        image = f.variable(rest)
        starts = [f.variable(0) for _ in range(RANK)]
        base = f.variable(0)

        def settle(first: int) -> None:
            """The window's start from the places along the axes, from `first` on."""
            for axis in range(first, RANK):
                starts[axis].set(at[axis].get() * word(axis, 1) - word(axis, 2))
            total = x + image.get() * f.load(geometry + 8 * IMAGE)
            for axis in range(RANK):
                total = total + starts[axis].get() * word(axis, 4)
            base.set(total)

        settle(0)
        step = word(RANK - 1, 1)
        jump = step * word(RANK - 1, 4)
        with f.count(0, STRIP) as row:
            for table, value in zip(rows, [*starts, base], strict=True):
                f.store(table + row * 8, value.get())
            with f.when(place + row + 1 < end):
                last = at[-1].get() + 1
                at[-1].set(last)
                starts[-1].set(starts[-1].get() + step)
                base.set(base.get() + jump)
                with f.when(last >= word(RANK - 1, 0)):
                    at[-1].set(0)
                    for axis in reversed(range(RANK - 1)):
                        turn = at[axis].get() + 1
                        over = turn >= word(axis, 0)
                        carried = at[axis + 1].get().equals(0)
                        at[axis].set(f.select(carried, f.select(over, 0, turn), at[axis].get()))
                        if axis == 0:
                            image.set(image.get() + f.select(carried & over, 1, 0))
                    settle(0)
        vectors = [v.load(table) for table in rows]
        sizes = [v.splat(word(axis, 3)) for axis in range(RANK)]
        zeros = v.splat(nothing)
        with f.count(0, count) as s:
            segment = segments + s * (8 * SEGMENT_WORDS)
            inside = ""
            for axis in range(RANK):
                coordinate = v.add(vectors[axis], v.splat(f.load(segment + 8 * axis)))
                known = v.below(coordinate, sizes[axis])
                inside = f.emit(f"and <{STRIP} x i1> {inside}, {known}") if inside else known
            address = v.add(vectors[RANK], v.splat(f.load(segment + 8 * RANK)))
            found = f.emit(
                f"select <{STRIP} x i1> {inside}, {_INDICES} {address}, {_INDICES} {zeros}"
            )
            v.store(found, to + s * ROW)


def _define_copy_segments(texts: list[str], r: Registers) -> None:
    """copy_segments(table, count, length, rows, to, step, width): patches to rows of a panel.

    Each row is filled up with zeros to `width` elements, and as far as a vector beyond.
    """
    with tiles.function(texts, "copy_segments", 7) as f:
        table, count, length, rows, to, step, width = f.arguments()
        v = Vectors(f, r)
        vector = r.lanes * r.size
        whole = length // r.lanes
        left = length - whole * r.lanes
        mask = v.mask(left)
        with f.count(0, rows) as row:
            target = f.variable(to + row * step)
            with f.count(0, count) as s:
                source = f.load(table + s * ROW + row * 8)
                here = target.get()
                with f.count(0, whole) as i:
                    v.store(v.load(source + i * vector), here + i * vector)
                with f.when(left > 0):
                    done = whole * vector
                    v.store(v.load_masked(source + done, mask), here + done)
                target.set(here + length * r.size)
            end = to + row * step + width * r.size
            with f.forever() as loop:
                here = target.get()
                loop.stop_when(here >= end)
                v.store("zeroinitializer", here)
                target.set(here + vector)


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
    return tuple(shape for shape in r.shapes if shape[0] > 1)


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
            with f.count(0, (height + 5) // 6) as strip:
                with f.when(left > r.lanes):
                    tile(6, 2, strip * 6)
                with f.when(left <= r.lanes):
                    tile(6, 1, strip * 6)
            done.set(done.get() + width)


# -- the cores -------------------------------------------------------------------------------------


def _declarations(r: Registers) -> str:
    return "\n".join(
        (
            tiles.declarations(r),
            "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)",
        )
    )


def _nothing(f: Function, r: Registers) -> Value:
    """The address of zeros, as many as a segment has elements at most."""
    size = LONGEST * r.size
    address = f.stack(f.constant(size), align=64)
    pointer = f.emit(f"inttoptr i64 {address.name} to ptr")
    f.line(f"call void @llvm.memset.p0.i64(ptr {pointer}, i8 0, i64 {size}, i1 false)")
    return address


def _define_convolve(texts: list[str], r: Registers, symbol: str) -> None:
    """The kernel of `convolve`: for each job a block of places and outputs, step by step of k."""
    f = Function(symbol, 3)
    table, lo, hi = f.arguments()

    def word(index: int) -> Value:
        return f.load(table + 8 * index)

    panels = f.stack(f.constant(PANELS_BYTES), align=64)
    sums = f.stack(f.constant(SUMS_BYTES), align=64)
    found = f.stack(f.constant(ROW * MOST_SEGMENTS), align=64)
    nothing = _nothing(f, r)
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
                f.call("find", geometry, x0, i0 + i, m, first, many, nothing, found)
                f.call(
                    "multiply_windows", found, many, length, height, panels, columns, c, ci, step
                )
                with f.when((step + 1).equals(count)):
                    f.store(place + 8 * product.SUMS, c)
                    f.store(place + 8 * product.FIRST_ROW, i0 + i)
                    f.call(word(EPILOGUE), place, 0, height, returns="void")
    texts.append(f.text(""))


def _define_filter_gradient(texts: list[str], r: Registers, symbol: str) -> None:
    """The kernel of `filter_gradient`: rows are outputs, columns a step of the patch."""
    f = Function(symbol, 3)
    table, lo, hi = f.arguments()

    def word(index: int) -> Value:
        return f.load(table + 8 * index)

    panels = f.stack(f.constant(PANELS_BYTES + 64 * r.size), align=64)
    sums = f.stack(f.constant(SUMS_BYTES), align=64)
    strips = f.stack(f.constant(STRIPS_BYTES), align=64)
    found = f.stack(f.constant(ROW * MOST_SEGMENTS), align=64)
    nothing = _nothing(f, r)
    place = f.stack(f.constant(64))
    f.store(place + 8 * product.LAUNCH, table)
    f.store(place + 8 * product.Z, 0)
    m, places, deep, bk = word(M), word(PLACES), word(DEPTH), word(B_K)
    row_blocks, count = word(ROW_BLOCKS), word(STEPS)
    geometry = table + word(GEOMETRY) * 8
    with f.count(lo, hi) as job:
        block = job // row_blocks
        group = block // count
        i0 = (job - block * row_blocks) * word(ROWS)
        rows = f.smaller(m - i0, word(ROWS))
        at = geometry + 8 * FIRST_STEP + (block - group * count) * (8 * STEP_WORDS)
        segments, many, length, j0 = (f.load(at + 8 * i) for i in range(STEP_WORDS))
        first = geometry + segments * 8
        columns = (many * length + (r.panel - 1)) // r.panel * r.panel
        ci = columns * r.size
        for index, value in (
            (product.SUMS_STRIDE, ci), (product.Y, group), (product.FIRST_COLUMN, j0),
            (product.WIDTH, many * length),
        ):  # fmt: skip
            f.store(place + 8 * index, value)
        x0 = word(X) + group * word(X_GROUP)
        g0 = word(B) + group * word(B_GROUP) + i0 * r.size
        start = f.variable(0)
        with f.forever() as steps:
            depth = f.smaller(places - start.get(), deep)
            last = places <= start.get() + depth
            with f.count(0, (depth + (STRIP - 1)) // STRIP) as strip:
                at_place = strip * STRIP
                f.call(
                    "find", geometry, x0, start.get() + at_place, places, first, many, nothing,
                    found,
                )  # fmt: skip
                f.call(
                    "copy_segments", found, many, length, f.smaller(depth - at_place, STRIP),
                    panels + at_place * ci, ci, columns,
                )  # fmt: skip
            with f.count(0, (rows + (STRIP - 1)) // STRIP) as row:
                i = row * STRIP
                height = f.smaller(rows - i, STRIP)
                c = sums + i * ci
                a, ak = f.variable(g0 + i * r.size + start.get() * bk), f.variable(bk)
                with f.when(height.equals(STRIP) & (columns > 2 * r.panel)):
                    f.call("gather_rows", strips, a.get(), bk, depth, 1)
                    a.set(strips)
                    ak.set(STRIP * r.size)
                f.call(
                    "multiply", a.get(), r.size, ak.get(), height, panels, ci, 0, columns, c, ci,
                    depth, start.get(),
                )  # fmt: skip
                with f.when(last):
                    f.store(place + 8 * product.SUMS, c)
                    f.store(place + 8 * product.FIRST_ROW, i0 + i)
                    f.call(word(EPILOGUE), place, 0, height, returns="void")
            start.set(start.get() + depth)
            steps.stop_when(last)
    texts.append(f.text(""))


def convolve_ir(dtype: str, symbol: str) -> str:
    """The LLVM IR of the core of `convolve` for "f32" or "f64" on this CPU."""
    r = host_registers(dtype)
    texts = [_declarations(r)]
    tiles.define_copy(texts, r)
    tiles.define_copy_edge(texts, r)
    tiles.define_transpose(texts, r)
    tiles.define_pack(texts, r)
    product.define_pack_panels(texts, r)
    for rows, vectors in _window_shapes(r):
        _define_window_tile(texts, r, rows, vectors)
    _define_multiply_windows(texts, r)
    _define_find(texts)
    _define_convolve(texts, r, symbol)
    return "\n".join(texts)


def filter_gradient_ir(dtype: str, symbol: str) -> str:
    """The LLVM IR of the core of `filter_gradient` for "f32" or "f64" on this CPU."""
    r = host_registers(dtype)
    texts = [_declarations(r)]
    for rows, vectors in r.shapes:
        tiles.define_tile(texts, r, rows, vectors)
    tiles.define_gather_rows(texts, r)
    product.define_multiply(texts, r)
    _define_copy_segments(texts, r)
    _define_find(texts)
    _define_filter_gradient(texts, r, symbol)
    return "\n".join(texts)


@cache
def convolve_address(dtype: str) -> int:
    """The address of the core of `convolve`."""
    return product.load_core(lambda symbol: convolve_ir(dtype, symbol))


@cache
def filter_gradient_address(dtype: str) -> int:
    """The address of the core of `filter_gradient`."""
    return product.load_core(lambda symbol: filter_gradient_ir(dtype, symbol))


# -- what the cores do, by NumPy -------------------------------------------------------------------


def _patches(dtype: str, t: Sequence[int], group: int, step: int) -> NDArray[Any]:
    """What the window sees at every place, as far as one step of the patches holds it."""
    element = np.dtype({"f32": np.float32, "f64": np.float64}[dtype])
    geometry = t[t[GEOMETRY] :]
    axes = [geometry[AXIS_WORDS * d : AXIS_WORDS * (d + 1)] for d in range(RANK)]
    first, count, length, _ = geometry[FIRST_STEP + STEP_WORDS * step :][:STEP_WORDS]
    found = np.zeros((t[PLACES], count, length), element)
    outs = [axis[0] for axis in axes]
    for number, index in enumerate(np.ndindex(t[PLACES] // math.prod(outs), *outs)):
        starts = [p * axis[1] - axis[2] for p, axis in zip(index[1:], axes, strict=True)]
        base = t[X] + group * t[X_GROUP] + index[0] * geometry[IMAGE]
        base += sum(start * axis[4] for start, axis in zip(starts, axes, strict=True))
        for s in range(count):
            *offsets, distance = geometry[first + SEGMENT_WORDS * s :][:SEGMENT_WORDS]
            where = [start + offset for start, offset in zip(starts, offsets, strict=True)]
            if all(0 <= p < axis[3] for p, axis in zip(where, axes, strict=True)):
                memory = product.Memory(
                    base + distance, element.type, (length,), (element.itemsize,)
                )
                found[number, s] = np.asarray(memory)
    return found.reshape(t[PLACES], count * length)


def _other(dtype: str, t: Sequence[int], group: int, rows: int, columns: int) -> NDArray[Any]:
    """The weights or the cotangent of one group, as a matrix."""
    element = np.dtype({"f32": np.float32, "f64": np.float64}[dtype])
    start = t[B] + group * t[B_GROUP]
    return np.asarray(
        product.Memory(start, element.type, (rows, columns), (t[B_K], element.itemsize))
    )


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
            a = _patches(dtype, t, group, step)[i0 : i0 + rows]
            b = _other(dtype, t, group, k0 + count * length, t[N])[k0:, j0 : j0 + columns]
            sums = sums + a.astype(np.float64) @ b.astype(np.float64)
        product.finish_in_python(dtype, sums, (0, group, i0, j0), table, epilogue)


def filter_gradient_in_python(
    dtype: str, table: NDArray[np.int64], lo: int, hi: int, epilogue: product.EpilogueCall
) -> None:
    """What the core of `filter_gradient` does."""
    t = [int(word) for word in table]
    steps = t[t[GEOMETRY] + FIRST_STEP :]
    for job in range(lo, hi):
        block, row_block = divmod(job, t[ROW_BLOCKS])
        group, step = divmod(block, t[STEPS])
        i0 = row_block * t[ROWS]
        a = _other(dtype, t, group, t[PLACES], t[M])[:, i0 : i0 + t[ROWS]]
        b = _patches(dtype, t, group, step)
        sums = a.T.astype(np.float64) @ b.astype(np.float64)
        j0 = steps[STEP_WORDS * step + 3]
        product.finish_in_python(dtype, sums, (0, group, i0, j0), table, epilogue)


# -- launches --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Segment:
    """Adjacent elements of a patch.

    offsets: along the spatial axes, in elements of the input, from the window's first element;
    channel: the first channel of the group that it holds.
    """

    offsets: tuple[int, ...]
    channel: int
    length: int


@dataclass(frozen=True)
class Step:
    """Segments of one length that follow each other, from number `first` and element `start` on."""

    first: int
    count: int
    length: int
    start: int


@dataclass(frozen=True)
class Convolution:
    """A convolution of an input that is not spread, contiguous and channels last.

    `channels` and `outputs` are those of one of the `groups`.
    """

    dtype: str
    batch: int
    axes: tuple[Axis, ...]
    groups: int
    channels: int
    outputs: int

    @property
    def places(self) -> int:
        return self.batch * math.prod(axis.out for axis in self.axes)

    @property
    def depth(self) -> int:
        """Elements of a patch."""
        return math.prod(axis.window for axis in self.axes) * self.channels

    @property
    def multiply_adds(self) -> int:
        return self.places * self.depth * self.outputs * self.groups


def segments_of(what: Convolution) -> list[Segment]:
    """The runs of memory that a patch consists of, in order.

    A line of the window along the last axis is one, if it never leaves the input; otherwise the
    channels at each of its places are.
    """
    last = what.axes[-1]
    line = last.window * what.channels
    inside = last.low <= 0 and (last.out - 1) * last.stride + last.window <= last.size + last.low
    if what.groups == 1 and last.rhs == 1 and inside and line <= LONGEST:
        lines = itertools.product(*(range(axis.window) for axis in what.axes[:-1]))
        places = [(*at, 0) for at in lines]
        parts = [(0, line)]
    else:
        places = list(itertools.product(*(range(axis.window) for axis in what.axes)))
        count = -(-what.channels // LONGEST)
        cuts = [what.channels * i // count for i in range(count + 1)]
        parts = [(start, stop - start) for start, stop in itertools.pairwise(cuts)]
    return [
        Segment(tuple(i * axis.rhs for i, axis in zip(at, what.axes, strict=True)), channel, length)
        for at in places
        for channel, length in parts
    ]


def _steps(segments: Sequence[Segment], elements: int) -> list[Step]:
    """Steps of at most so many elements (but of one segment at least), about equal in size."""
    steps = []
    start = first = 0
    for length, run in itertools.groupby(segments, key=lambda segment: segment.length):
        count = len(list(run))
        most = max(1, min(elements // length, MOST_SEGMENTS))
        pieces = -(-count // most)
        for i in range(pieces):
            many = count * (i + 1) // pieces - count * i // pieces
            steps.append(Step(first, many, length, start))
            first += many
            start += many * length
    return steps


def _geometry(what: Convolution, segments: Sequence[Segment], steps: Sequence[Step]) -> list[int]:
    """The words from GEOMETRY on."""
    size = host_registers(what.dtype).size
    pixel = what.groups * what.channels * size
    filler = [Axis(1, 1, 1, 0, 0, 1, 1)] * (RANK - len(what.axes))
    axes = [*filler, *what.axes]
    strides = [pixel * math.prod(axis.size for axis in axes[d + 1 :]) for d in range(RANK)]
    words = []
    for axis, stride in zip(axes, strides, strict=True):
        words += [axis.out, axis.stride, axis.low, axis.size, stride]
    words.append(strides[0] * axes[0].size)
    first_segment = FIRST_STEP + STEP_WORDS * len(steps)
    for step in steps:
        words += [first_segment + SEGMENT_WORDS * step.first, step.count, step.length, step.start]
    for segment in segments:
        offsets = [0] * len(filler) + list(segment.offsets)
        distance = sum(i * stride for i, stride in zip(offsets, strides, strict=True))
        words += [*offsets, distance + segment.channel * size]
    return words


def _table(
    what: Convolution,
    words: dict[int, int],
    segments: Sequence[Segment],
    steps: Sequence[Step],
    operands: Sequence[tuple[int, int, int, int]],
) -> list[int]:
    """The launch table: `words`, the operands of the epilogue by their strides, the geometry."""
    size = host_registers(what.dtype).size
    common = {
        B_K: what.groups * what.outputs * size, X_GROUP: what.channels * size,
        B_GROUP: what.outputs * size, PLACES: what.places, STEPS: len(steps),
        GEOMETRY: OPERANDS + product.OPERAND_WORDS * len(operands),
    }  # fmt: skip
    table = [0] * OPERANDS
    for index, value in {**common, **words}.items():
        table[index] = value
    for strides in operands:
        table += [0, *strides]
    return table + _geometry(what, segments, steps)


def convolve_table(
    what: Convolution, operands: Sequence[tuple[int, int, int, int]]
) -> tuple[list[int], int]:
    """The launch table of `convolve`, and the number of iterations.

    `operands` are the strides in bytes, along (z, y, row, column), of what the epilogue uses. The
    addresses (EPILOGUE, X, B, and the first word of each operand) are left to the caller.
    """
    segments = segments_of(what)
    whole = what.depth <= DEEPEST + DEEPEST // 4 and len(segments) <= MOST_SEGMENTS
    steps = _steps(segments, what.depth if whole else DEEPEST)
    deepest = max(step.count * step.length for step in steps)
    shape = product.Product(what.dtype, what.places, what.outputs, what.depth, (1, what.groups))
    rows, columns = product.packed_blocks(shape, deepest)
    row_blocks, column_blocks = -(-what.places // rows), -(-what.outputs // columns)
    words = {
        M: what.places, N: what.outputs, ROWS: rows, ROW_BLOCKS: row_blocks, COLUMNS: columns,
        COLUMN_BLOCKS: column_blocks,
    }  # fmt: skip
    return (
        _table(what, words, segments, steps, operands),
        what.groups * row_blocks * column_blocks,
    )


def filter_gradient_table(
    what: Convolution, operands: Sequence[tuple[int, int, int, int]]
) -> tuple[list[int], int]:
    """The launch table of `filter_gradient`, and the number of iterations: see `convolve_table`."""
    r = host_registers(what.dtype)
    segments = segments_of(what)
    wanted = max(1, min(product.JOBS_PER_CORE * product.cores(), what.multiply_adds // product.JOB))

    def width(step: Step) -> int:
        return -(-step.count * step.length // r.panel) * r.panel

    def time(steps: Sequence[Step]) -> float:
        """Of all cores that there is work for, as a multiple of what the tiles alone take."""
        jobs = what.groups * len(steps)
        busy = min(product.cores(), wanted)
        idle = -(-jobs // busy) * busy / jobs
        return idle * sum(width(step) + COPY_COST for step in steps)

    cuts = [_steps(segments, most) for most in range(r.panel, WIDEST + 1, r.panel)]
    steps = min(cuts, key=time)
    widest = max(map(width, steps))
    most = SUMS_BYTES // r.size // widest // STRIP * STRIP
    row_blocks = -(-what.outputs // most)
    rows = -(-what.outputs // row_blocks // STRIP) * STRIP
    deepest = min(PANELS_BYTES // r.size // widest, DEEPEST, what.places)
    pieces = -(-what.places // deepest)
    words = {
        M: what.outputs, ROWS: rows, ROW_BLOCKS: row_blocks, DEPTH: -(-what.places // pieces),
    }  # fmt: skip
    return (
        _table(what, words, segments, steps, operands),
        what.groups * len(steps) * row_blocks,
    )
