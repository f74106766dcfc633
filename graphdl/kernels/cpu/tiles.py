"""The inner loops of matrix products as LLVM vectors: register tiles, packing, dot products.

Each `define_...` gives the LLVM IR of one internal function whose arguments are int64: addresses in
bytes, and strides in bytes too. Numba is not involved: its types have no vectors, and these
functions must exist in a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

from msgspec import Struct

from graphdl.kernels.cpu.assembler import Function, Value
from graphdl.kernels.cpu.host import has, host

SIZES = {"f32": 4, "f64": 8}
#: Rows that a product works on at a time: two tiles.
STRIP = 12
#: Rows of b that a tile asks for ahead of use. Where b is not packed and comes from the outer
#: caches this gains 7 % (1 row) to 16 % (12 rows); a copy of panels is slower with it.
AHEAD = 4
#: Multiply-adds of a chain, at most. Its rounding errors grow with its length: a product over 1,024
#: in one chain was off by 1.3e-6 of the largest element in float32, in chains of 384, as OpenBLAS
#: has them, by 0.5e-6.
CHAIN = 384
_SCALARS = {"f32": "float", "f64": "double"}


class Registers(Struct, frozen=True):
    """The vector registers of a CPU for one dtype ("f32" or "f64")."""

    dtype: str
    lanes: int
    many: bool  # 32 registers rather than 16
    fused: bool  # there is a fused multiply-add

    @property
    def size(self) -> int:
        return SIZES[self.dtype]

    @property
    def panel(self) -> int:
        """Columns of a packed panel: two vectors."""
        return 2 * self.lanes

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """The register tiles, rows by vectors.

        Tiles of four vectors take two panels; with 24 sums, 4 weights and a broadcast they fill 32
        registers. They beat 12 x 2, which does 14 loads where they do 10, by 5 to 10 %.
        """
        narrow = ((6, 2), (6, 1), (1, 8))
        return ((6, 4), (4, 4), (8, 2), *narrow) if self.many else narrow

    @property
    def dots(self) -> tuple[tuple[int, int], ...]:
        """The blocks of dot products, rows by columns; one row is common enough for its own."""
        return ((4 if self.many else 2, 4), (1, 8))


@cache
def host_registers(dtype: str) -> Registers:
    """The registers of this CPU."""
    if has("avx512f"):
        size, many, fused = 64, True, True
    elif has("avx") and has("fma"):
        size, many, fused = 32, False, True
    elif host()[0].startswith(("aarch64", "arm64")):
        size, many, fused = 16, True, True
    else:
        size, many, fused = 16, False, False
    return Registers(dtype, size // SIZES[dtype], many, fused)


class Vectors:
    """Vector instructions in a function."""

    def __init__(self, function: Function, registers: Registers, lanes: int = 0) -> None:
        self.f, self.registers = function, registers
        self.lanes = lanes or registers.lanes
        self.scalar = _SCALARS[registers.dtype]
        self.type = f"<{self.lanes} x {self.scalar}>"

    def _pointer(self, address: Value) -> str:
        return self.f.emit(f"inttoptr i64 {address.name} to ptr")

    def load(self, address: Value) -> str:
        pointer = self._pointer(address)
        return self.f.emit(f"load {self.type}, ptr {pointer}, align {self.registers.size}")

    def store(self, value: str, address: Value) -> None:
        pointer = self._pointer(address)
        self.f.line(f"store {self.type} {value}, ptr {pointer}, align {self.registers.size}")

    def load_scalar(self, address: Value) -> str:
        return self.f.emit(f"load {self.scalar}, ptr {self._pointer(address)}")

    def store_scalar(self, value: str, address: Value) -> None:
        self.f.line(f"store {self.scalar} {value}, ptr {self._pointer(address)}")

    def splat(self, scalar: str, kind: str = "") -> str:
        kind = kind or self.scalar
        vector = f"<{self.lanes} x {kind}>"
        first = self.f.emit(f"insertelement {vector} poison, {kind} {scalar}, i64 0")
        return self.f.emit(
            f"shufflevector {vector} {first}, {vector} poison, <{self.lanes} x i32> zeroinitializer"
        )

    def shuffle(self, left: str, right: str, lanes: Sequence[int]) -> str:
        mask = ", ".join(f"i32 {lane}" for lane in lanes)
        return self.f.emit(
            f"shufflevector {self.type} {left}, {self.type} {right}, <{len(lanes)} x i32> <{mask}>"
        )

    def multiply_add(self, x: str, y: str, z: str) -> str:
        if not self.registers.fused:
            product = self.f.emit(f"fmul {self.type} {x}, {y}")
            return self.f.emit(f"fadd {self.type} {product}, {z}")
        name = f"@llvm.fma.v{self.lanes}{self.registers.dtype}"
        operands = ", ".join(f"{self.type} {value}" for value in (x, y, z))
        return self.f.emit(f"call {self.type} {name}({operands})")

    def add(self, x: str, y: str) -> str:
        return self.f.emit(f"fadd {self.type} {x}, {y}")

    def mask(self, count: Value) -> str:
        """Which lanes are before `count`."""
        numbers = ", ".join(f"i64 {lane}" for lane in range(self.lanes))
        limit = self.splat(count.name, "i64")
        return self.f.emit(f"icmp slt <{self.lanes} x i64> <{numbers}>, {limit}")

    def load_masked(self, address: Value, mask: str) -> str:
        """The lanes of the mask, read from an address; others are 0 and not read."""
        pointer = self._pointer(address)
        return self.f.emit(
            f"call {self.type} @llvm.masked.load.v{self.lanes}{self.registers.dtype}.p0("
            f"ptr {pointer}, i32 {self.registers.size}, <{self.lanes} x i1> {mask}, "
            f"{self.type} zeroinitializer)"
        )

    def prefetch(self, address: Value) -> None:
        """Ask for the cache line of an address, which need not be mapped."""
        self.f.line(
            f"call void @llvm.prefetch.p0(ptr {self._pointer(address)}, i32 0, i32 3, i32 1)"
        )

    def sums_of_lanes(self, vectors: Sequence[str]) -> list[str]:
        """Lane i of result g is the sum of the lanes of vector g * lanes + i."""
        totals = []
        for first in range(0, len(vectors), self.lanes):
            group = [*vectors[first : first + self.lanes]]
            group += ["zeroinitializer"] * (self.lanes - len(group))
            while len(group) > 1:
                group = [self._pairs(*group[i : i + 2]) for i in range(0, len(group), 2)]
            totals += group
        return totals

    def _pairs(self, left: str, right: str) -> str:
        """The sums of adjacent lanes: those of `left`, then those of `right`."""
        even = self.shuffle(left, right, range(0, 2 * self.lanes, 2))
        odd = self.shuffle(left, right, range(1, 2 * self.lanes, 2))
        return self.add(even, odd)

    def variables(self, rows: int, columns: int) -> list[list[str]]:
        """Slots for vectors, which LLVM turns into registers; they start at zero."""
        slots = [[self.f.emit(f"alloca {self.type}") for _ in range(columns)] for _ in range(rows)]
        for row in slots:
            for slot in row:
                self.set(slot, "zeroinitializer")
        return slots

    def get(self, slot: str) -> str:
        return self.f.emit(f"load {self.type}, ptr {slot}")

    def set(self, slot: str, value: str) -> None:
        self.f.line(f"store {self.type} {value}, ptr {slot}")


def declarations(registers: Registers) -> str:
    """What the functions of this file call: intrinsics of LLVM."""
    lanes, dtype, scalar = registers.lanes, registers.dtype, _SCALARS[registers.dtype]
    vector, mask = f"<{lanes} x {scalar}>", f"<{lanes} x i1>"
    return "\n".join(
        (
            f"declare {vector} @llvm.fma.v{lanes}{dtype}({vector}, {vector}, {vector})",
            f"declare {vector} @llvm.masked.load.v{lanes}{dtype}.p0(ptr, i32, {mask}, {vector})",
            "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)",
            "declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)",
            "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)",
        )
    )


@contextmanager
def function(texts: list[str], name: str, parameters: int) -> Iterator[Function]:
    """Write an internal function that stays a function, since it is called from several places."""
    f = Function(name, parameters)
    yield f
    texts.append(f.text("internal").replace(") nounwind {", ") noinline nounwind {", 1))


def fill_zeros(f: Function, address: Value, size: Value) -> None:
    """Write `size` bytes of zeros."""
    pointer = f.emit(f"inttoptr i64 {address.name} to ptr")
    f.line(f"call void @llvm.memset.p0.i64(ptr {pointer}, i8 0, i64 {size.name}, i1 false)")


def define_tile(texts: list[str], registers: Registers, rows: int, vectors: int) -> None:
    """tile(a, ai, ak, height, b, bk, bp, c, ci, depth, resume): c[:rows] (+)= a[:rows, :] @ b.

    a: element (i, k) at a + i * ai + k * ak. b: the first two vectors of row k lie at b + k * bk,
    each next two lie bp further on. c: rows of adjacent elements. Rows at and past `height` repeat
    the last row, so nothing outside `a` is read and nothing below `c` is written.

    Every element is a chain of multiply-adds over rising k, whatever the tile: at most CHAIN of
    them, which is added to those before, and to c if resume != 0.
    """
    with function(texts, f"tile_{rows}x{vectors}", 11) as f:
        a, ai, ak, height, b, bk, bp, c, ci, depth, resume = f.arguments()
        v = Vectors(f, registers)
        step = registers.lanes * registers.size
        sums = v.variables(rows, vectors)
        last = height - 1
        start = f.variable(0)
        clamped = [f.smaller(f.constant(i), last) for i in range(rows)]
        starts = [a + i * ai for i in clamped]

        def each_of_c(visit: Callable[[str, Value], None]) -> None:
            for i in range(rows):
                for j in range(vectors):
                    visit(sums[i][j], c + clamped[i] * ci + j * step)

        with f.forever() as chains:
            begin = start.get()
            end = f.smaller(begin + CHAIN, depth)
            each_of_c(lambda slot, address: v.set(slot, "zeroinitializer"))
            with f.count(begin, end) as k:
                row = b + k * bk
                weights = [v.load(row + bp * (j // 2) + j % 2 * step) for j in range(vectors)]
                for j in range(vectors):
                    v.prefetch(row + bk * AHEAD + bp * (j // 2) + j % 2 * step)
                offset = k * ak
                for i in range(rows):
                    value = v.splat(v.load_scalar(starts[i] + offset))
                    for j in range(vectors):
                        v.set(sums[i][j], v.multiply_add(value, weights[j], v.get(sums[i][j])))
            with f.when(resume.differs(0) | (begin > 0)):
                each_of_c(lambda slot, address: v.set(slot, v.add(v.get(slot), v.load(address))))
            each_of_c(lambda slot, address: v.store(v.get(slot), address))
            start.set(end)
            chains.stop_when(end >= depth)


def define_dot(texts: list[str], registers: Registers, rows: int, columns: int) -> None:
    """dot(a, ai, height, b, bj, width, c, ci, depth, resume): c (+)= a @ b, rows x columns of it.

    The elements of a row of a, and of a column of b, are adjacent. Rows at and past `height` repeat
    the last row, columns at and past `width` the last column. Each lane is summed first, then the
    lanes are, in pairs.
    """
    with function(texts, f"dot_{rows}x{columns}", 10) as f:
        a, ai, height, b, bj, width, c, ci, depth, resume = f.arguments()
        v = Vectors(f, registers)
        lanes, size = registers.lanes, registers.size
        sums = v.variables(rows, columns)
        bottom, right = height - 1, width - 1
        left = [a + f.smaller(f.constant(i), bottom) * ai for i in range(rows)]
        top = [b + f.smaller(f.constant(j), right) * bj for j in range(columns)]

        def add(load: Callable[[Value], str]) -> None:
            values = [load(start) for start in left]
            for j in range(columns):
                weights = load(top[j])
                for i in range(rows):
                    v.set(sums[i][j], v.multiply_add(values[i], weights, v.get(sums[i][j])))

        whole = depth // lanes
        with f.count(0, whole) as k:
            offset = k * (lanes * size)
            add(lambda start: v.load(start + offset))
        done = whole * lanes
        with f.when(done < depth):
            mask = v.mask(depth - done)
            offset = done * size
            add(lambda start: v.load_masked(start + offset, mask))
        totals = v.sums_of_lanes([v.get(slot) for row in sums for slot in row])

        # A vector of totals holds parts of rows of c, or whole rows.
        piece = min(lanes, columns)
        part = Vectors(f, registers, piece)
        again = resume.differs(0)
        for first in range(0, rows * columns, piece):
            i, j = divmod(first, columns)
            place = c + ci * i + j * size
            start = first % lanes
            total = v.shuffle(totals[first // lanes], "poison", range(start, start + piece))
            before = f.emit(
                f"select i1 {again.name}, {part.type} {part.load(place)}, {part.type} "
                "zeroinitializer"
            )
            part.store(f.emit(f"fadd {part.type} {before}, {total}"), place)


def define_copy(texts: list[str], registers: Registers) -> None:
    """copy(to, step, source, stride, depth, panels, panel): panels of adjacent columns.

    Row k of panel p goes from source + k * stride + p * (a panel's width) to
    to + p * panel + k * step. All panels of a row are read before the next row is.
    """
    with function(texts, "copy", 7) as f:
        to, step, source, stride, depth, panels, panel = f.arguments()
        v = Vectors(f, registers)
        vector = registers.lanes * registers.size
        with f.count(0, depth) as k:
            origin, target = source + k * stride, to + k * step
            with f.count(0, panels) as p:
                for half in range(2):
                    value = v.load(origin + p * (2 * vector) + half * vector)
                    v.store(value, target + p * panel + half * vector)


def define_copy_edge(texts: list[str], registers: Registers) -> None:
    """copy_edge(to, step, source, stride, depth, columns): one panel of few adjacent columns.

    As `copy` does; columns from `columns` on become 0, and are not read.
    """
    with function(texts, "copy_edge", 6) as f:
        to, step, source, stride, depth, columns = f.arguments()
        v = Vectors(f, registers)
        vector = registers.lanes * registers.size
        masks = [v.mask(columns - half * registers.lanes) for half in range(2)]
        with f.count(0, depth) as k:
            for half in range(2):
                value = v.load_masked(source + k * stride + half * vector, masks[half])
                v.store(value, to + k * step + half * vector)


def define_gather_rows(texts: list[str], registers: Registers) -> None:
    """gather_rows(to, source, stride, depth, strips): strips of adjacent elements, for each k.

    Those of k lie from source + k * stride on; each strip becomes depth * STRIP elements in a row.
    Several strips at a time use most of the cache lines that they touch.
    """
    with function(texts, "gather_rows", 5) as f:
        to, source, stride, depth, strips = f.arguments()
        v = Vectors(f, registers, STRIP)
        size = STRIP * registers.size
        with f.count(0, depth) as k, f.count(0, strips) as strip:
            value = v.load(source + k * stride + strip * size)
            v.store(value, to + (strip * depth + k) * size)


def define_copy_rows(texts: list[str], registers: Registers) -> None:
    """copy_rows(to, step, source, stride, height, bytes): adjacent bytes of rows."""
    with function(texts, "copy_rows", 6) as f:
        to, step, source, stride, height, count = f.arguments()
        with f.count(0, height) as i:
            target = f.emit(f"inttoptr i64 {(to + i * step).name} to ptr")
            origin = f.emit(f"inttoptr i64 {(source + i * stride).name} to ptr")
            f.line(
                f"call void @llvm.memcpy.p0.p0.i64(ptr {target}, ptr {origin}, i64 {count.name}, "
                "i1 false)"
            )


def define_transpose(texts: list[str], registers: Registers) -> None:
    """transpose(to, step, source, stride, height, count): count square blocks, side by side.

    Element q of row r, at source + r * stride + q * size, goes to to + q * step + r * size. Rows at
    and past `height` repeat the last one, so nothing outside the source is read.
    """
    with function(texts, "transpose", 6) as f:
        to, step, source, stride, height, count = f.arguments()
        v = Vectors(f, registers)
        lanes, size = registers.lanes, registers.size
        last = height - 1
        starts = [source + f.smaller(f.constant(r), last) * stride for r in range(lanes)]
        # Transposing is a perfect shuffle of all elements, log2(lanes) times over: each round
        # interleaves row r with row r + lanes / 2.
        half = lanes // 2
        low = [lane for r in range(half) for lane in (r, lanes + r)]
        high = [lane + half for lane in low]
        with f.count(0, count) as block:
            offset, target = block * (lanes * size), to + block * step * lanes
            rows = [v.load(start + offset) for start in starts]
            for _ in range(lanes.bit_length() - 1):
                rows = [
                    v.shuffle(rows[r], rows[r + half], mask)
                    for r in range(half)
                    for mask in (low, high)
                ]
            for q in range(lanes):
                v.store(rows[q], target + step * q)


def define_pack(texts: list[str], registers: Registers) -> None:
    """pack(to, step, source, bk, bj, depth, columns, width): element by element, any strides.

    Element (k, j) goes from source + k * bk + j * bj to to + k * step + j * size, and 0 to those
    from `columns` to `width`: what lies in scratch might be subnormal numbers, and slow.
    """
    with function(texts, "pack", 8) as f:
        to, step, source, bk, bj, depth, columns, width = f.arguments()
        v = Vectors(f, registers)
        size = registers.size
        with f.count(0, depth) as k:
            origin, target = source + k * bk, to + k * step
            with f.count(0, columns) as j:
                v.store_scalar(v.load_scalar(origin + j * bj), target + j * size)
            with f.count(columns, width) as j:
                v.store_scalar("0.0", target + j * size)
