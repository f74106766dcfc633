"""The text of fusion groups as CUDA kernels.

What is computed for an element is written as for the CPU (graphdl.kernels.nest, whose planning of
loops and of arrays is used as it is); who computes which element is written here, by one of four
plans:

    elements   no rows: threads go over the elements, neighbours side by side
    tiles      the same where an array lies across: squares of 32 x 32 pass through shared memory
    rows       reductions over rows that the group uses again (softmax, norms): a warp or a block
               takes a row, in several passes while it is in cache
    columns    reductions that are complete when the kernel ends, over all outer loops or some inner
               ones: a thread keeps its columns and walks down, blocks leave partial results

A thread takes two or four neighbours at once where all arrays are aligned for it: one access of 16
bytes instead of four of 4. Sizes are arguments; that they divide evenly is part of the text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from graphdl.compiler.costs import cost_of
from graphdl.compiler.fuse import ALL, COLUMN, ROW, STRIP, Group
from graphdl.compiler.origins import counts
from graphdl.graph import Node
from graphdl.kernels.body import COMBINE, SUFFIX, constant_of
from graphdl.kernels.cuda import teams
from graphdl.kernels.cuda.copying import kept_launches
from graphdl.kernels.cuda.launch import (
    ACCESS,
    BLOCK,
    WARP,
    DeviceLaunch,
    blocks_for,
    power_of_two,
)
from graphdl.kernels.loops import Access, Level, Loops, read_by
from graphdl.kernels.nest import NestText
from graphdl.kernels.nest_launch import in_place, name_of, traffic
from graphdl.kernels.program import OUT_OF_BOUNDS, Address, Buffer, Value, Word
from graphdl.kernels.source import KernelSource
from graphdl.ops import indexing, movement, random
from graphdl.ops.update import update

#: Vectors of a row that a warp takes; a block takes longer rows.
WARP_VECTORS = 256
#: Blocks that leave partial results, at most: what they leave costs another pass.
MOST_PARTIALS = 512
#: Rows that a thread of the plan "columns" walks down, at least.
ROWS_OF_THREAD = 8
#: The side of a square of the plan "tiles"; a line of it in shared memory has one element more, so
#: that neither lines nor columns share a bank.
SIDE = 32

_ONE_BY_ONE = (
    indexing.gather, indexing.position, movement.pad, random.philox, random.philox_wide,
)  # fmt: skip


class DeviceLoops(Loops):
    """A group's loops; values that a later pass needs are computed again, not kept."""

    def _kept(self) -> set[Node]:
        return set()

    def store_access(self, node: Node) -> Access:
        """Where a stored member goes; a reduction over some inner loops leaves parts as well."""
        access = super().store_access(node)
        if self.group.reductions.get(node) != STRIP:
            return access
        where = self.partials.setdefault(node, Buffer(0, None, "partial results"))
        return replace(access, where=where)

    def _repeats(self, loops: list[int], accesses: Sequence[Access], pinned: set[int]) -> bool:
        """No: neighbouring threads write neighbouring elements."""
        return False

    def _spelled_out(
        self, loops: list[int], accesses: Sequence[Access], pinned: set[int]
    ) -> int | None:
        """None, for the same reason."""
        return None

    def is_row_level(self, node: Node) -> bool:
        """Whether a member has one value for each row."""
        inner = {d for d in self.group.inner if self.group.dims[d] != 1}
        own = node not in self.group.reductions and inner.isdisjoint(self.group.axes[node])
        return bool(inner) and own


class _Shape(Struct, frozen=True):
    """How a kernel is launched, and into how many parts the sums of columns fall.

    Sums over everything fall into a part for each block.
    """

    blocks: int
    threads: int
    parts: int = 1


class DeviceText(NestText):
    """The lines of a kernel: a thread's work on `width` neighbours."""

    def __init__(self, nest: DeviceLoops, width: int) -> None:
        super().__init__(nest)
        self.width = width
        self.is_long = False
        self.before: list[str] = []
        self.after: list[str] = []
        self.bad: dict[int, str] = {}  # by what it says of the program: see Program.status
        self.sums: dict[Node, str] = {}
        #: The partial results of columns that a thread holds in registers.
        self.columns_of: dict[Node, str] = {}
        self.shared = 0

    def add(self, *lines: str) -> None:
        for line in lines:
            self.out.add(line)

    def _before(self, line: str) -> None:
        """A thread has no loop of its own to stand before: the line stands where it is needed."""
        self.out.add(line)

    def _fixed(self, node: Node, position: int, index: dict[int, str]) -> str | None:
        """None, for the same reason."""
        return None

    def lines(self) -> list[str]:
        """The whole kernel, after its plan was written."""
        head = [f"{name} = 0" for name in self.bad.values()]
        tail = []
        for code, name in self.bad.items():
            self.nest.uses_status = True
            status = self.nest.word("status", Address(self.nest.status))
            tail += [f"if {name}:", f"    i64_at({status})[0] = {code}"]
        body = [*(f"    {line}" for line in (*head, *self.prelude)), *self.out.lines]
        body += [f"    {line}" for line in tail]
        return [f"def kernel({', '.join(self.nest.word_names)}):", *body]

    def _last(self) -> int:
        return self.nest.inner[-1] if self.nest.inner else -1

    def _split(self, flat: str, loops: Sequence[int], index: dict[int, str]) -> None:
        """The indices of several loops from the one that they are as a whole."""
        rest = flat
        last = self._last()
        for d in reversed(loops[1:]):
            name = "j" if d == last else f"index{d}"
            self.add(f"rest{d} = quotient({rest}, {self.nest.loop_size(d)})")
            self.add(f"{name} = {rest} - rest{d} * {self.nest.loop_size(d)}")
            index[d] = name
            rest = f"rest{d}"
        if loops:
            d = loops[0]
            index[d] = rest
            if d == last:
                self.add(f"j = {rest}")
                index[d] = "j"

    # --- memory -------------------------------------------------------------------------------

    def _base(self, access: Access) -> str:
        """The pointer to an array, made once."""
        at = self.nest.array(access)
        line = f"p{at} = {SUFFIX[access.dtype]}_at(at{at})"
        if line not in self.prelude:
            self.prelude.append(line)
        return f"p{at}"

    def _place(self, access: Access, index: dict[int, str]) -> str:
        """The element of an array at `index`, as text."""
        terms = []
        for d, name in index.items():
            if d >= 0 and access.strides[d]:
                stride = self.nest.stride(access, d)
                terms.append(name if stride == "1" else f"{name} * {stride}")
        return " + ".join(terms) or "0"

    def _element(self, access: Access, index: dict[int, str], base: str | None = None) -> str:
        if access in self.nest.across:
            return f"tile{self.nest.array(access)}[column * {SIDE + 1} + line]"
        pointer, place, step = self._base(access), self._place(access, index), self._step(access)
        if self.width == 1 or step == "0":
            return f"{pointer}[{place}]"
        if step == "1":
            return f"load{self.width}({pointer}, {place})"
        return f"spread{self.width}({pointer}, {place}, {step})"

    def _step(self, access: Access) -> str:
        last = self._last()
        return "0" if last < 0 else self.nest.stride(access, last)

    def _store(self, access: Access, index: dict[int, str], value: str) -> list[str]:
        return [self._put(access, self._base(access), self._place(access, index), value)]

    def _put(self, access: Access, pointer: str, place: str, value: str) -> str:
        if access in self.nest.across:
            return f"tile{self.nest.array(access)}[line * {SIDE + 1} + column] = {value}"
        step = self._step(access)
        if self.width == 1 or step == "0":
            return f"{pointer}[{place}] = {value}"
        if step == "1":
            return f"store{self.width}({pointer}, {place}, {value})"
        return f"put{self.width}({pointer}, {place}, {step}, {value})"

    def _store_row(self, node: Node, index: dict[int, str]) -> None:
        if node in self.nest.stored and self.group.reductions.get(node, ROW) == ROW:
            access = self.nest.store_access(node)
            self.add("if leads:")
            self.add(f"    {self._pointer(access, index)}[0] = {self.row_names[node]}")

    def _check(self, bad: str, level: Level, code: int = OUT_OF_BOUNDS) -> None:
        name = self.bad.setdefault(code, f"bad{code}" if self.bad else "bad")
        self.add(f"{name} = {name} | ({bad})")

    def _random_words(self, node: Node, operands: list[str], index: dict[int, str]) -> str | None:
        return None  # each element computes its block of Philox by itself

    def _index_text(self, axis: int | None, index: dict[int, str]) -> str:
        if self.width > 1 and axis is not None and axis == self._last():
            return f"counting{self.width}({index[axis]})"
        return super()._index_text(axis, index)

    # --- reductions ---------------------------------------------------------------------------

    def _begin(self, node: Node, name: str, wide: bool) -> None:
        """A thread's own partial result of a reduction."""
        first = teams.start(node)
        if node.op.name in teams.POSITIONS:
            self.add(f"best_{name} = {first}", f"{name} = i64(0)")
        else:
            self.add(f"{name} = splat{self.width}({first})" if wide else f"{name} = {first}")

    def _gathered_total(self, node: Node, name: str, threads: int, wide: bool) -> str:
        """The team's result of a reduction: its name."""
        if wide:
            self.add(*teams.of_lanes(node, name, self.width))
            name = f"{name}_all"
        self.add(*teams.total(node, name, threads))
        self.shared = max(self.shared, teams.shared_bytes(node, threads))
        return name

    def _wide(self, node: Node) -> bool:
        """Whether a thread holds a vector of a reduction's partial results."""
        return self.width > 1 and (not self.nest.has_rows or self._sums_inner(node))

    def _begin_sums(self) -> None:
        for node, kind in self.group.reductions.items():
            if kind == ALL:
                self.sums[node] = self.name("sum")
                self._begin(node, self.sums[node], self._wide(node))

    def _finish_sums(self, threads: int) -> None:
        """Each block leaves its part of the sums over everything."""
        for node, name in self.sums.items():
            found = self._gathered_total(node, name, threads, self._wide(node))
            pointer = self._base(self.nest.store_access(node))
            self.add("if thread() == 0:", f"    {pointer}[block()] = {found}")

    def _row_member(self, node: Node, index: dict[int, str]) -> None:
        if self.group.reductions.get(node) == ALL:
            if not self._sums_inner(node):
                value = self._operand(node, 0, index, {}, 1)
                name = self.sums[node]
                combined = f"{COMBINE[node.op.name]}({name}, {value})"
                self.add(f"{name} = select(leads, {combined}, {name})")
            return
        super()._row_member(node, index)

    # --- elements -----------------------------------------------------------------------------

    def elements(self) -> _Shape:
        nest, width = self.nest, self.width
        loops = [*nest.outer, *nest.inner]
        size = math.prod(nest.size[d] for d in loops)
        most = MOST_PARTIALS if self.group.reductions else blocks_for(1 << 62)
        shape = _Shape(blocks_for(-(-size // width), most=most), BLOCK)
        total = nest.word("total", size)
        self._begin_sums()
        times = f" * {width}" if width > 1 else ""
        self.add(f"i = (block() * {BLOCK} + thread()){times}")
        self.add(f"while i < {total}:")
        self.out.depth += 1
        index: dict[int, str] = {-1: "j"} if not loops else {}
        self._split("i", loops, index)
        self._stage_members(0, index, {}, {})
        self.add(f"i += blocks() * {BLOCK * width}")
        self.out.depth -= 1
        self._finish_sums(BLOCK)
        return shape

    # --- tiles --------------------------------------------------------------------------------

    def tiles(self) -> _Shape:
        """Squares of SIDE elements of the last loop and of the one that some array lies along."""
        nest, last = self.nest, self._last()
        across = nest.tile
        assert across is not None
        others = [d for d in nest.outer if d != across]
        high, wide = (-(-nest.size[d] // SIDE) for d in (across, last))
        squares = math.prod(nest.size[d] for d in others) * high * wide
        most = MOST_PARTIALS if self.group.reductions else blocks_for(1 << 62)
        blocks = blocks_for(squares, 1, most)
        total = nest.word("squares", squares)
        n_high, n_wide = nest.word("high", high), nest.word("wide", wide)
        stored = {nest.store_access(node) for node in nest.stored}
        tiles = {access: nest.array(access) for access in nest.across}
        for access, at in tiles.items():
            self.prelude.append(f"tile{at} = {SUFFIX[access.dtype]}_shared({self.shared})")
            self.shared += SIDE * (SIDE + 1) * access.dtype.itemsize
            if isinstance(access.where, Node) and access not in stored:
                nest.reads.setdefault(access.where)
        reduced = self.shared
        self._begin_sums()
        rows = BLOCK // SIDE
        self.add(f"column = thread() & {SIDE - 1}", "square = block()", f"while square < {total}:")
        self.out.depth += 1
        self.add(f"place = quotient(square, {n_wide})")
        self.add(f"low = (square - place * {n_wide}) * {SIDE}")
        self.add(f"rest = quotient(place, {n_high})")
        self.add(f"first = (place - rest * {n_high}) * {SIDE}")
        index: dict[int, str] = {}
        self._split("rest", others, index)
        n_across, n_last = nest.loop_size(across), nest.loop_size(last)

        def lines_of_tile(limit: str) -> None:
            self.add(f"line = thread() >> {SIDE.bit_length() - 1}", f"while line < {SIDE}:")
            self.out.depth += 1
            self.add(f"if {limit}:")
            self.out.depth += 1

        def end_of_lines() -> None:
            self.out.depth -= 1
            self.add(f"line += {rows}")
            self.out.depth -= 1

        other_way = f"first + column < {n_across} and low + line < {n_last}"
        turned = {**index, across: "(first + column)", last: "(low + line)"}
        reads = {a: at for a, at in tiles.items() if a not in stored}
        if reads:
            lines_of_tile(other_way)
            for access, at in reads.items():
                place = self._place(access, turned)
                self.add(f"tile{at}[line * {SIDE + 1} + column] = {self._base(access)}[{place}]")
            end_of_lines()
            self.add("barrier()")
        lines_of_tile(f"first + line < {n_across} and low + column < {n_last}")
        self.add("index_across = first + line", "j = low + column")
        self._stage_members(0, {**index, across: "index_across", last: "j"}, {}, {})
        end_of_lines()
        self.add("barrier()")
        writes = {a: at for a, at in tiles.items() if a in stored}
        if writes:
            lines_of_tile(other_way)
            for access, at in writes.items():
                place = self._place(access, turned)
                self.add(f"{self._base(access)}[{place}] = tile{at}[column * {SIDE + 1} + line]")
            end_of_lines()
            self.add("barrier()")
        self.add("square += blocks()")
        self.out.depth -= 1
        self._finish_sums(BLOCK)
        self.shared = max(self.shared, reduced)
        return _Shape(blocks, BLOCK)

    # --- rows ---------------------------------------------------------------------------------

    def rows(self) -> _Shape:
        nest, width = self.nest, self.width
        rows = math.prod(nest.size[d] for d in nest.outer)
        inner = math.prod(nest.size[d] for d in nest.inner)
        vectors = -(-inner // width)
        columns = [r for r, kind in self.group.reductions.items() if kind == COLUMN]
        team = WARP
        if columns or vectors > WARP_VECTORS:
            team = min(max(power_of_two(vectors) // 2, 2 * WARP), 1024)
        threads = max(team, BLOCK)  # a block of eight warps, or one team
        if team > WARP:
            threads = team
        partial = any(kind != ROW for kind in self.group.reductions.values())
        most = MOST_PARTIALS if partial else blocks_for(1 << 62)
        blocks = blocks_for(rows * team, threads, most)
        n_rows, n_inner = nest.word("rows", rows), nest.word("inner", inner)
        self._begin_sums()
        if team == WARP:
            per_block = threads // WARP
            self.add(f"member = thread() & {WARP - 1}")
            self.add(f"r = block() * {per_block} + (thread() >> 5)")
            step = f"blocks() * {per_block}"
        else:
            self.add("member = thread()", "r = block()")
            step = "blocks()"
        self.add("leads = member == 0")
        for node in columns:
            self._clear_column(node, team, inner)
        self.add(f"while r < {n_rows}:")
        self.out.depth += 1
        index: dict[int, str] = {}
        self._split_rows("r", index)
        self._passes(index, n_inner, team)
        self.add(f"r += {step}")
        self.out.depth -= 1
        self._finish_sums(threads)
        return _Shape(blocks, threads, blocks)

    def _split_rows(self, flat: str, index: dict[int, str]) -> None:
        self._split(flat, self.nest.outer, index)

    def _passes(self, index: dict[int, str], n_inner: str, team: int) -> None:
        """All stages of a row."""
        nest, reductions = self.nest, self.group.reductions
        self.row_names = {}
        for stage in range(max(nest.stage.values(), default=0) + 1):
            for node in self.group.members:
                now = nest.level(node) == 1 and nest.stage[node] == stage
                if now and reductions.get(node) != ROW:
                    self._row_member(node, index)
            rows = {
                node: self.name("row")
                for node, kind in reductions.items()
                if kind == ROW and nest.stage[node] == stage + 1
            }
            if rows or self._has_work(stage):
                self._pass_of(stage, index, rows, n_inner, team)

    def _has_work(self, stage: int) -> bool:
        """Whether a stage stores or sums something within the row."""
        nest, reductions = self.nest, self.group.reductions
        return any(
            nest.stage[node] == stage
            and (
                (nest.level(node) == 2 and node in nest.stored)
                or (reductions.get(node) in (ALL, COLUMN) and self._sums_inner(node))
            )
            for node in self.group.members
        )

    def _pass_of(
        self, stage: int, index: dict[int, str], rows: dict[Node, str], n_inner: str, team: int
    ) -> None:
        nest, width = self.nest, self.width
        for node, name in rows.items():
            self._begin(node, name, self.width > 1)
        own = dict(index)
        self.add(f"e = member * {width}" if width > 1 else "e = member")
        self.add(f"while e < {n_inner}:")
        self.out.depth += 1
        self._split("e", nest.inner, own)
        self._stage_members(stage, own, {}, rows)
        self.add(f"e += {team * width}")
        self.out.depth -= 1
        for node, name in rows.items():
            self.row_names[node] = self._gathered_total(node, name, team, self.width > 1)
            self._store_row(node, index)

    def _clear_column(self, node: Node, team: int, inner: int) -> None:
        """A team's own columns start from the identity."""
        nest, width = self.nest, self.width
        access = nest.store_access(node)
        n_inner = nest.word("inner", inner)
        pointer, own = self._slab(node, access), dict[int, str]()
        self.add(f"e = member * {width}" if width > 1 else "e = member")
        self.add(f"while e < {n_inner}:")
        self.out.depth += 1
        self._split("e", nest.inner, own)
        self.add(self._put(access, pointer, self._place(access, own), teams.start(node)))
        self.add(f"e += {team * width}")
        self.out.depth -= 1

    def _slab(self, node: Node, access: Access) -> str:
        """The columns that a block sums for itself."""
        at = self.nest.array(access)
        size = self.nest.word(f"slab{at}", node.type.nbytes)
        line = f"slab_{at} = {SUFFIX[access.dtype]}_at(at{at} + block() * {size})"
        if line not in self.prelude:
            self.prelude.append(line)
        return f"slab_{at}"

    def _accumulate_in_memory(
        self, node: Node, index: dict[int, str], local: dict[object, str]
    ) -> None:
        if node in self.columns_of:
            value = self._operand(node, 0, index, local, 2)
            self._accumulate(node, self.columns_of[node], value)
            return
        value = self._operand(node, 0, index, local, 2)
        access = self.nest.store_access(node)
        pointer, place = self._slab(node, access), self._place(access, index)
        old = f"{pointer}[{place}]"
        if self.width > 1 and self._step(access) == "1":
            old = f"load{self.width}({pointer}, {place})"
        elif self.width > 1 and self._step(access) != "0":
            old = f"spread{self.width}({pointer}, {place}, {self._step(access)})"
        combined = f"{COMBINE[node.op.name]}({old}, {value})"
        self.add(self._put(access, pointer, place, combined))

    # --- columns ------------------------------------------------------------------------------

    def columns(self) -> _Shape:
        """Threads side by side keep columns, threads below them take every other row."""
        nest, width, reductions = self.nest, self.width, self.group.reductions
        sums = [node for node, kind in reductions.items() if kind in (COLUMN, STRIP)]
        batch, down, kept = self._roles(sums[0])
        size = {
            name: math.prod(nest.size[d] for d in loops)
            for name, loops in (("batch", batch), ("down", down), ("kept", kept))
        }
        vectors = -(-size["kept"] // width)
        x = min(WARP, power_of_two(vectors))
        y = BLOCK // x
        tiles = -(-vectors // x)
        wanted = -(-size["down"] // (y * ROWS_OF_THREAD))
        chunks = max(1, min(wanted, MOST_PARTIALS // max(tiles * size["batch"], 1)))
        if any(kind == ALL for kind in reductions.values()):
            batches = max(1, min(size["batch"], MOST_PARTIALS // (tiles * chunks)))
        else:
            batches = size["batch"]
        blocks = batches * tiles * chunks
        n_tiles, n_chunks = nest.word("tiles", tiles), nest.word("chunks", chunks)
        n_batch, n_down = nest.word("batch", size["batch"]), nest.word("down", size["down"])
        n_kept = nest.word("kept", size["kept"])
        self._begin_sums()
        self.columns_of = {node: self.name("column") for node in sums}
        self.add(f"rest = quotient(block(), {n_tiles})")
        self.add(f"lane = thread() & {x - 1}", f"line = thread() >> {x.bit_length() - 1}")
        times = f" * {width}" if width > 1 else ""
        self.add(f"e = ((block() - rest * {n_tiles}) * {x} + lane){times}")
        self.add(f"part = quotient(rest, {n_chunks})", f"chunk = rest - part * {n_chunks}")
        step = nest.word("batches", batches)
        self.add(f"while part < {n_batch}:")
        self.out.depth += 1
        index: dict[int, str] = {}
        self._split("part", batch, index)
        for node, name in self.columns_of.items():
            self._begin(node, name, width > 1)
        self._split("e", kept, index)
        self.add(f"r = chunk * {y} + line")
        self.add(f"if e >= {n_kept}:", f"    r = {n_down}")
        self.add(f"while r < {n_down}:")
        self.out.depth += 1
        own = dict(index)
        self._split("r", down, own)
        self.add(f"leads = {self._leader(batch)}")
        outer = {d: name for d, name in own.items() if d in nest.outer}
        self.row_names = {}
        for node in self.group.members:
            if nest.level(node) == 1 and node not in self.columns_of:
                self._row_member(node, outer)
        self._stage_members(0, own, {}, {})
        self.add(f"r += {n_chunks} * {y}")
        self.out.depth -= 1
        for node in sums:
            self._combine_lines(node, index, x, y)
        self.add(f"part += {step}")
        self.out.depth -= 1
        self._finish_sums(BLOCK)
        return _Shape(blocks, BLOCK, chunks)

    def _roles(self, node: Node) -> tuple[list[int], list[int], list[int]]:
        """The loops of batches, those that are summed, and those of the columns."""
        nest = self.nest
        if self.group.reductions[node] == COLUMN:
            return [], list(nest.outer), list(nest.inner)
        kept = set(self.group.axes[node])
        inside = [d for d in nest.inner if d in kept]
        return list(nest.outer), [d for d in nest.inner if d not in kept], inside

    def _leader(self, batch: Sequence[int]) -> str:
        """Whether a thread stores what has one value for each row of the nest."""
        return "(e == 0) & (r == 0)" if batch else "e == 0"

    def _combine_lines(self, node: Node, index: dict[int, str], x: int, y: int) -> None:
        """The sums of a block's lines, combined as a tree in shared memory, one lane at a time."""
        nest, width, name = self.nest, self.width, self.columns_of[node]
        access = nest.store_access(node)
        suffix, combine = SUFFIX[node.dtype], COMBINE[node.op.name]
        self.shared = max(self.shared, BLOCK * node.dtype.itemsize)
        at = nest.array(access)
        size = nest.word(f"slab{at}", node.type.nbytes)
        pointer = f"slab_{at}"
        self.add(f"{pointer} = {suffix}_at(at{at} + chunk * {size})")
        self.add(f"lines_{name} = {suffix}_shared(0)")
        place = self._place(access, index)
        step = self._step(access)
        for k in range(width):
            value = f"lane{k}({name})" if width > 1 else name
            self.add(f"lines_{name}[thread()] = {value}", "barrier()")
            self.add(*halving(f"lines_{name}", combine, x, y))
            to = place if not k else f"{place} + {k}" if step == "1" else f"{place} + {k} * {step}"
            kept = nest.word("kept", 0)
            self.add(f"if (line == 0) & (e < {kept}):")
            self.add(f"    {pointer}[{to}] = lines_{name}[thread()]")
            self.add("barrier()")


#: Words of 32 bits that the values of a thread may take at once; beyond them neighbours are fewer.
#: A thread has 255 registers, of which addresses and a formula's own numbers take many.
MOST_WORDS = 112


def _words_alive(group: Group) -> int:
    """The words that the values of one element take where most of them wait for a reader."""
    last: dict[Node, int] = {}
    for i, node in enumerate(group.members):
        last.update(dict.fromkeys(node.inputs, i))
    alive: dict[Node, int] = {}
    most = 0
    for i, node in enumerate(group.members):
        for value in (*node.inputs, node):
            if last.get(value, i) >= i and constant_of(value) is None:
                alive[value] = max(value.dtype.itemsize // 4, 1)
        most = max(most, sum(alive.values()))
        alive = {value: words for value, words in alive.items() if last.get(value, -1) > i}
    return most


def vector_width(loops: DeviceLoops, loose: frozenset[Node] = frozenset()) -> int:
    """How many neighbours a thread takes: 2, 4 or 8 where every access of them is one and aligned.

    `loose` are arrays that may start anywhere.
    """
    if not loops.inner or loops.tile is not None:
        return 1
    last = loops.inner[-1]
    for node, kind in loops.group.reductions.items():
        if kind == STRIP and last not in loops.group.axes[node]:
            return 1  # threads lie side by side along another loop
    for node in loops.group.members:
        if node.op in _ONE_BY_ONE or node.op.name in teams.POSITIONS or node.op.symbol:
            return 1
        if any(counts(operand) for _, operand in read_by(node)):
            return 1
    accesses = list(loops.plain_accesses())
    largest = max((access.dtype.itemsize for access in accesses), default=8)
    width = max(2, min(8 if largest == 2 else 4, ACCESS // largest))
    while width > 1 and width * _words_alive(loops.group) > MOST_WORDS:
        width //= 2
    if width == 1 or loops.size[last] % width:
        return 1
    adjacent = [access for access in accesses if access.strides[last] == 1]
    for access in adjacent:
        others = [s for d, s in enumerate(access.strides) if d != last and loops.size.get(d, 1) > 1]
        if any(number % width for number in (access.offset, *others)) or access.where in loose:
            return 1
    return width if adjacent else 1


def device_launches(
    group: Group, stored: set[Node], status: Buffer, loose: frozenset[Node] = frozenset()
) -> list[DeviceLaunch]:
    """The launches of a group of loops: the kernel, then what combines its partial results."""
    if 0 in group.dims and not group.reductions:
        return []
    kinds = set(group.reductions.values())
    loops = DeviceLoops(group, stored, status)
    if not loops.has_rows and any(map(loops.is_row_level, group.members)):
        loops = DeviceLoops(group, stored, status, has_rows=True)
    text = DeviceText(loops, vector_width(loops, loose))
    if kinds & {COLUMN, STRIP} and ROW not in kinds:
        shape = text.columns()
    elif loops.has_rows:
        shape = text.rows()
    elif loops.tile is not None:
        shape = text.tiles()
    else:
        shape = text.elements()
    lines = text.lines()
    source = KernelSource(name_of(group.members), "\n".join(lines) + "\n")
    kept = [copy for node in group.members if node.op is update for copy in kept_launches(node)]
    return [*kept, *_launches(loops, source, shape, text.shared)]


def _launches(
    loops: DeviceLoops, source: KernelSource, shape: _Shape, shared: int
) -> list[DeviceLaunch]:
    reductions = loops.group.reductions
    parts = {
        node: shape.blocks if reductions[node] == ALL else shape.parts for node in loops.partials
    }
    real: dict[Value, Value] = {}
    for node, buffer in loops.partials.items():
        only = parts[node] == 1  # one part is the result itself
        real[buffer] = (
            node if only else Buffer(parts[node] * node.type.nbytes, None, buffer.purpose)
        )
    words: tuple[Word, ...] = tuple(
        Address(real[word.where], word.offset)
        if isinstance(word, Address) and word.where in real
        else word
        for word in loops.words
    )
    writes: list[Value] = [node for node in loops.stored if node not in loops.partials]
    writes += real.values()
    if loops.uses_status:
        writes.append(loops.status)
    elements = math.prod(loops.group.dims)
    cost = elements * sum(cost_of(node) for node in loops.group.members)
    moved = traffic(loops, elements)
    first = DeviceLaunch(
        source,
        words,
        shape.blocks,
        cost + 0.1 * moved,
        tuple(loops.reads),
        tuple(writes),
        # the threads of a row do not wait for each other within a stage
        () if loops.has_rows and any(loops.stage.values()) else tuple(in_place(loops)),
        loops.group.members,
        moved,
        elements * len(loops.group.members),
        threads=shape.threads,
        shared=shared,
    )
    rest = [
        finish(node, place, parts[node])
        for node, buffer in loops.partials.items()
        if isinstance(place := real[buffer], Buffer)
    ]
    return [first, *rest]


def halving(shared: str, combine: str, x: int, y: int) -> list[str]:
    """Lines that combine y lines of x values in shared memory, half of them at a time."""
    return [
        f"apart = {y // 2}",
        "while apart > 0:",
        "    if line < apart:",
        f"        other = {shared}[thread() + apart * {x}]",
        f"        {shared}[thread()] = {combine}({shared}[thread()], other)",
        "    barrier()",
        "    apart = apart >> 1",
    ]


def finish(node: Node, partial: Buffer, parts: int) -> DeviceLaunch:
    """out[j] = the partial results of j, combined in an order that depends on their number alone.

    Few columns have more threads each.
    """
    x = min(WARP, power_of_two(node.type.size))
    suffix, size = SUFFIX[node.dtype], node.dtype.itemsize
    combine, y = COMBINE[node.op.name], BLOCK // x
    lines = [
        "def kernel(parts, out, width, count):",
        f"    part = {suffix}_at(parts)",
        f"    shared = {suffix}_shared(0)",
        f"    j = block() * {x} + (thread() & {x - 1})",
        f"    line = thread() >> {x.bit_length() - 1}",
        f"    total = {teams.start(node)}",
        "    if j < width:",
        "        k = line",
        "        while k < count:",
        f"            total = {combine}(total, part[k * width + j])",
        f"            k += {y}",
        "    shared[thread()] = total",
        "    barrier()",
    ]
    lines += ["    " + line for line in halving("shared", combine, x, y)]
    lines += [
        "    if (line == 0) & (j < width):",
        f"        {suffix}_at(out)[j] = shared[thread()]",
    ]
    return DeviceLaunch(
        KernelSource(f"finish_{node.op.name}", "\n".join(lines) + "\n"),
        (Address(partial), Address(node), node.type.size, parts),
        -(-node.type.size // x) if node.type.size else 0,
        parts * node.type.size * 0.1,
        (partial,),
        (node,),
        (),
        (node,),
        partial.nbytes + node.type.nbytes,
        parts * node.type.size,
        shared=BLOCK * size,
    )


__all__ = ["DeviceLoops", "DeviceText", "device_launches", "finish", "vector_width"]
