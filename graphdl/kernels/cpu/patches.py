"""Patches, what the window of a convolution sees at each place, as addresses of runs of memory.

A patch falls into *segments*, elements that lie in memory one after the other. For STRIP places at
a time, `find` fills a table with where each segment starts, or with the address of zeros where the
window is outside the input. So kernels read patches without a copy of them, and padding, strides,
dilation and groups are numbers in a launch table: any of them has the same kernels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from graphdl.kernels.cpu import product, tiles
from graphdl.kernels.cpu.assembler import Function, Value
from graphdl.kernels.cpu.product import EPILOGUE, OPERANDS
from graphdl.kernels.cpu.tiles import STRIP, Registers, host_registers
from graphdl.ops.convolution import Axis

#: Spatial axes that kernels walk; fewer are filled up with axes of one element.
RANK = 3
#: Elements of a segment, and segments that are worked on at a time, at most.
LONGEST, MOST_SEGMENTS = 512, 96
#: The segments' addresses are one row of STRIP words each.
ROW = 8 * STRIP
#: Words of the launch table. X is the input; B the weights or the cotangent, and B_K the bytes
#: between its rows; X_GROUP and B_GROUP are the bytes between groups of channels.
X, B, B_K, X_GROUP, B_GROUP, M, N = range(1, 8)
ROWS, ROW_BLOCKS, COLUMNS, COLUMN_BLOCKS, DEPTH, PLACES, STEPS, GEOMETRY = range(8, 16)
GROUPS, PARTS = range(16, 18)
assert OPERANDS > PARTS > EPILOGUE

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


class Indices:
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

    def iota(self) -> str:
        """0, 1, 2, ..."""
        return "<" + ", ".join(f"i64 {i}" for i in range(STRIP)) + ">"

    def multiply(self, left: str, right: str) -> str:
        return self.f.emit(f"mul {_INDICES} {left}, {right}")

    def below(self, left: str, right: str) -> str:
        """Where 0 <= left < right."""
        return self.f.emit(f"icmp ult {_INDICES} {left}, {right}")

    def select(self, mask: str, yes: str, no: str) -> str:
        return self.f.emit(f"select <{STRIP} x i1> {mask}, {_INDICES} {yes}, {_INDICES} {no}")


def define_find(texts: list[str]) -> None:
    """find(geometry, x, place, end, segments, count, nothing, to, row): where segments start.

    Row s of the table, at to + s * row, becomes the addresses of segment s at the STRIP places from
    `place` on; those at and past `end` repeat the last one. `nothing` is the address of zeros,
    which stand for what lies outside the input.
    """
    with tiles.function(texts, "find", 9) as f:
        geometry, x, place, end, segments, count, nothing, to, row_size = f.arguments()
        v = Indices(f)
        rows = [f.stack(f.constant(ROW), align=64) for _ in range(RANK + 1)]

        def word(axis: int, index: int) -> Value:
            return f.load(geometry + 8 * (axis * AXIS_WORDS + index))

        at: list[Value] = []
        image = place
        for axis in reversed(range(RANK)):
            quotient = image // word(axis, 0)
            at.insert(0, image - quotient * word(axis, 0))
            image = quotient

        def origin(at: Sequence[Value], image: Value) -> list[Value]:
            """Where the window starts along the axes at a place of an image, and in memory."""
            starts = [index * word(axis, 1) - word(axis, 2) for axis, index in enumerate(at)]
            total = x + image * f.load(geometry + 8 * IMAGE)
            for axis in range(RANK):
                total = total + starts[axis] * word(axis, 4)
            return [*starts, total]

        def following(at: Sequence[Value], image: Value) -> tuple[list[Value], Value]:
            """The first place of the next line along the last axis."""
            turned = [f.constant(0)]
            carried = f.constant(1)
            for axis in reversed(range(RANK - 1)):
                turn = at[axis] + carried
                over = turn >= word(axis, 0)
                turned.insert(0, f.select(over, 0, turn))
                carried = f.select(over, 1, 0)
            return turned, image + carried

        step = word(RANK - 1, 1)
        jump = step * word(RANK - 1, 4)
        line = word(RANK - 1, 0)
        known = f.smaller(end - place, STRIP)
        # Lines of STRIP places and more: they lie on two lines, at equal distances on each.
        with f.when(line >= STRIP):
            left = line - at[-1]
            turned, other = following(at, image)
            near = origin(at, image)
            far = origin([*turned[:-1], f.constant(0) - left], other)
            number = v.iota()
            number = v.select(v.below(number, v.splat(known)), number, v.splat(known - 1))
            here = v.below(number, v.splat(left))
            apart = [f.constant(0)] * (RANK - 1) + [step, jump]
            for table, this, that, by in zip(rows, near, far, apart, strict=True):
                first = v.select(here, v.splat(this), v.splat(that))
                v.store(v.add(first, v.multiply(number, v.splat(by))), table)
        with f.unless(line >= STRIP):
            walked = [f.variable(value) for value in (*at, image)]
            begun = [f.variable(value) for value in origin(at, image)]
            with f.count(0, STRIP) as row:
                for table, start in zip(rows, begun, strict=True):
                    f.store(table + row * 8, start.get())
                with f.when(row + 1 < known):
                    last = walked[RANK - 1].get() + 1
                    walked[RANK - 1].set(last)
                    begun[RANK - 1].set(begun[RANK - 1].get() + step)
                    begun[RANK].set(begun[RANK].get() + jump)
                    with f.when(last >= line):
                        now = [variable.get() for variable in walked]
                        turned, other = following(now[:RANK], now[RANK])
                        for variable, value in zip(walked, (*turned, other), strict=True):
                            variable.set(value)
                        for variable, value in zip(begun, origin(turned, other), strict=True):
                            variable.set(value)
        vectors = [v.load(table) for table in rows]
        sizes = [v.splat(word(axis, 3)) for axis in range(RANK)]
        zeros = v.splat(nothing)
        with f.count(0, count) as s:
            segment = segments + s * (8 * SEGMENT_WORDS)
            inside = ""
            for axis in range(RANK):
                coordinate = v.add(vectors[axis], v.splat(f.load(segment + 8 * axis)))
                along = v.below(coordinate, sizes[axis])
                inside = f.emit(f"and <{STRIP} x i1> {inside}, {along}") if inside else along
            address = v.add(vectors[RANK], v.splat(f.load(segment + 8 * RANK)))
            v.store(v.select(inside, address, zeros), to + s * row_size)


def nothing_at(f: Function, r: Registers) -> Value:
    """The address of zeros, as many as a segment has elements at most."""
    size = LONGEST * r.size
    address = f.stack(f.constant(size), align=64)
    tiles.fill_zeros(f, address, f.constant(size))
    return address


def part_places(part: Value, parts: Value, places: Value) -> tuple[Value, Value]:
    """Where a part of the places starts and stops: see `graphdl.ops.convolution.part_of`."""
    return part * places // parts, (part + 1) * places // parts


# -- the same by NumPy ---------------------------------------------------------------------------


def patches_in_python(dtype: str, t: Sequence[int], group: int, step: int) -> NDArray[Any]:
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


def other_in_python(
    dtype: str, t: Sequence[int], group: int, rows: int, columns: int
) -> NDArray[Any]:
    """The weights or the cotangent of one group, as a matrix."""
    element = np.dtype({"f32": np.float32, "f64": np.float64}[dtype])
    start = t[B] + group * t[B_GROUP]
    return np.asarray(
        product.Memory(start, element.type, (rows, columns), (t[B_K], element.itemsize))
    )


# -- launches --------------------------------------------------------------------------------------


class Segment(Struct, frozen=True):
    """Adjacent elements of a patch.

    offsets: along the spatial axes, in elements of the input, from the window's first element;
    channel: the first channel of the group that it holds.
    """

    offsets: tuple[int, ...]
    channel: int
    length: int


class Step(Struct, frozen=True):
    """Segments of one length that follow each other, from number `first` and element `start` on."""

    first: int
    count: int
    length: int
    start: int


class Convolution(Struct, frozen=True):
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


def steps_of(segments: Sequence[Segment], elements: int) -> list[Step]:
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


def table_of(
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
        B_GROUP: what.outputs * size, PLACES: what.places, STEPS: len(steps), GROUPS: what.groups,
        GEOMETRY: OPERANDS + product.OPERAND_WORDS * len(operands),
    }  # fmt: skip
    table = [0] * OPERANDS
    for index, value in {**common, **words}.items():
        table[index] = value
    for strides in operands:
        table += [0, *strides]
    return table + _geometry(what, segments, steps)
