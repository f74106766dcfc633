"""The text of a loop nest: a fusion group as a kernel.

    for b in range(lo, hi)            blocks of rows (or of elements, where there is but one loop)
        for r in rows of the block    the outer loops as one index
            stage 0, 1, ...           passes over the row while it is in cache; a stage ends where a
                for ... in inner      reduction over the row is complete and something uses it
                    for j in lanes    the last loop, which LLVM vectorises

What stands in which loop is planned in graphdl.kernels.loops.

The text holds no sizes: they are words of the launch table. So a new batch size finds the kernel
compiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from msgspec import Struct, field

from graphdl.compiler.fuse import ALL, COLUMN, ROW, STRIP
from graphdl.compiler.origins import counts, is_scalar, through
from graphdl.compiler.view import is_movement, view_of
from graphdl.graph import Node
from graphdl.kernels.body import (
    COMBINE,
    SUFFIX,
    constant_of,
    expression,
    identity,
    number,
    plain,
)
from graphdl.kernels.loops import (
    INTERLEAVED,
    TILE_COLUMNS,
    TILE_ROWS,
    Access,
    Level,
    Loops,
    is_whole,
    read_by,
)
from graphdl.kernels.program import NOT_FINITE, OUT_OF_BOUNDS, RAISED, Address, Buffer
from graphdl.ops import indexing, movement, pointwise, random, reduction
from graphdl.types import kind_of

#: Rows of at most so many elements take one masked vector loop, without another one for the rest: a
#: softmax over 10 classes took 24 ns instead of 60.
FEW = 64
#: Random bits are made for so many elements at a time: they stay in the first level of cache.
STRIP_LENGTH = 1024
#: A row of more than LONG elements of float32 is summed in parts, and those in float64: one chain
#: of additions for each lane of a vector would lose a digit in rows of a million. (In rows of 1,024
#: it would gain nothing and cost 7 %.)
LONG, PART_OF_SUM = 1 << 15, 1 << 13
#: Sums over a loop around the last one are taken of so many terms at a time, for the same reason.
PART_OF_LOOP = 64
#: The words, or pairs of words, of a block of Philox.
WORDS_OF_BLOCK: dict[object, int] = {random.philox: 4, random.philox_wide: 2}


def is_widened(node: Node) -> bool:
    """Whether a reduction adds up partial sums of float32 as float64."""
    return node.op is reduction.sum_ and node.dtype == np.float32


class Lines(Struct):
    """Lines, and how deep they stand."""

    lines: list[str] = field(default_factory=list)
    depth: int = 1

    def add(self, line: str) -> None:
        self.lines.append("    " * self.depth + line)


class NestText:
    """The lines of a nest, from its blocks down to the last loop.

    Names of its own are no names of functions: i0, k1, y0 ... are Bessel functions.
    """

    def __init__(self, nest: Loops) -> None:
        self.nest = nest
        self.group = nest.group
        self.out = Lines()
        self.prelude: list[str] = []
        self.row_names: dict[Node, str] = {}
        #: What floats of 16 bits were before they were rounded, for those that read them here.
        self.unrounded: dict[str, str] = {}
        self.scalar_names: dict[object, str] = {}
        self.parted: list[Node] = []  # see `_parted`
        self.exact: list[str] = []  # sums of the pass that are kept as float64
        self.count = 0

    def name(self, prefix: str = "v") -> str:
        self.count += 1
        return f"{prefix}{self.count - 1}"

    # --- structure ----------------------------------------------------------------------------

    def text(self, total: int, unit: int) -> list[str]:
        nest, out = self.nest, self.out
        n = nest.word("total", total)
        unit_name = nest.word("unit", unit)
        whole = [r for r, kind in self.group.reductions.items() if kind == ALL]
        columns = [r for r, kind in self.group.reductions.items() if kind == COLUMN]
        out.add("for b in range(lo, hi):")
        out.depth += 1
        out.add(f"start = b * {unit_name}")
        out.add(f"stop = min_i64(start + {unit_name}, {n})")
        self.sums: dict[Node, str] = {}
        for node in whole:
            self.sums[node] = self.name("sum")
            out.add(f"{self.sums[node]} = {identity(node.op.name, node.dtype)}")
        for node in columns:
            self._clear_columns(node)
        if nest.flat:
            self._pass(0, {}, {}, "start", "stop")
        elif nest.by_columns:
            for node in self.group.reductions:
                self._clear_block(node)
            self._pass(0, {}, {}, "start", "stop")
        else:
            self._rows()
        for node in whole:
            at = nest.array(nest.store_access(node))
            size = node.dtype.itemsize
            suffix = SUFFIX[node.dtype]
            out.add(f"{suffix}_at(at{at} + b * {size})[0] = {self.sums[node]}")
        return [*("    " + line for line in self.prelude), *out.lines]

    def _rows(self) -> None:
        """The rows of a block, one after the other."""
        out = self.out
        index = self._first_row()
        out.add("for r in range(start, stop):")
        out.depth += 1
        if self.nest.tile is None:
            self._stages(index)
        else:
            self._tiles(self.nest.tile, dict(index))
        self._next_row(index)
        out.depth -= 1

    def _tiles(self, dim: int, index: dict[int, str]) -> None:
        """TILE_ROWS rows along the loop `dim`, in tiles of TILE_COLUMNS."""
        nest, out = self.nest, self.out
        stored = {nest.store_access(node) for node in nest.stored}
        tiles = {access: nest.array(access) for access in nest.across}
        for access, at in tiles.items():
            size = TILE_ROWS * TILE_COLUMNS
            self.prelude.append(f"tile{at} = {SUFFIX[access.dtype]}_scratch({size})")
            if isinstance(access.where, Node) and access not in stored:
                nest.reads.setdefault(access.where)
        out.add(f"first = {index[dim]} * {TILE_ROWS}")
        out.add(f"end = min_i64(first + {TILE_ROWS}, {nest.loop_size(dim)})")
        columns = nest.loop_size(nest.inner[-1])
        out.add(f"for low in range(0, {columns}, {TILE_COLUMNS}):")
        out.depth += 1
        out.add(f"high = min_i64(low + {TILE_COLUMNS}, {columns})")
        index[dim] = "first"
        for access, at in tiles.items():
            if access not in stored:
                self._carry(access, index, f"tile{at}[i * {TILE_COLUMNS} + j - low] = across[i]")
        out.add("for i in range(first, end):")
        out.depth += 1
        self._pass(0, index | {dim: "i"}, {}, "low", "high")
        out.depth -= 1
        for access, at in tiles.items():
            if access in stored:
                self._carry(access, index, f"across[i] = tile{at}[i * {TILE_COLUMNS} + j - low]")
        out.depth -= 1

    def _carry(self, access: Access, index: dict[int, str], line: str) -> None:
        """Between a tile and the array that lies across, whose lines are taken as they lie.

        They are apart, each may come from memory, and each is followed by many loads of its own
        elements: so all are asked for first, at the first element and at the last, which may be in
        the line after.
        """
        out = self.out
        last = self.nest.inner[-1]
        address = self._address(access, index | {last: "(j)"})
        size = access.dtype.itemsize
        out.add("for j in range(low, high):")
        out.add(f"    line = {address}")
        out.add("    prefetch(line)")
        out.add(f"    prefetch(line + (end - first - 1) * {size})")
        out.add("for j in range(low, high):")
        out.add(f"    across = {SUFFIX[access.dtype]}_at({address})")
        out.add("    for i in range(0, end - first):")
        out.add(f"        {line}")

    def _clear_columns(self, node: Node) -> None:
        """Partial column sums of this block start from the identity."""
        nest, out = self.nest, self.out
        access = nest.store_access(node)
        at = nest.array(access)
        width = nest.word(f"width{at}", node.type.size)
        size = node.dtype.itemsize
        name = f"clear{at}"
        out.add(f"{name} = {SUFFIX[node.dtype]}_at(at{at} + b * {width} * {size})")
        out.add(f"for j in lanes(0, {width}):")
        out.depth += 1
        out.add(f"{name}[j] = {identity(node.op.name, node.dtype)}")
        out.depth -= 1

    def _clear_block(self, node: Node) -> None:
        """The sums of this block's columns start from the identity."""
        out, access = self.out, self.nest.store_access(node)
        name = f"clear{self.nest.array(access)}"
        out.add(f"{name} = {self._pointer(access, {})}")
        out.add("for j in lanes(start, stop):")
        out.add(f"    {name}[j] = {identity(node.op.name, node.dtype)}")

    def _stages(self, index: dict[int, str]) -> None:
        """All that is computed of a row."""
        nest = self.nest
        self.row_names = {}
        stages = max(nest.stage.values(), default=0)
        row_level = [node for node in self.group.members if nest.level(node) == 1]
        inner_level = [node for node in self.group.members if nest.level(node) == 2]
        strips = [r for r, kind in self.group.reductions.items() if kind == STRIP]
        for node in strips:
            self._clear_strip(node, nest.store_access(node), index)
        for stage in range(stages + 1):
            once = [node for node in row_level if nest.stage[node] == stage]
            self._row_members([n for n in once if self.group.reductions.get(n) != ROW], index)
            rows = [
                node
                for node, kind in self.group.reductions.items()
                if kind == ROW and nest.stage[node] == stage + 1
            ]
            wanted = [
                node
                for node in inner_level
                if nest.stage[node] == stage
                and (node in nest.stored or node in nest.keeps or node in self.group.reductions)
            ]
            wanted += [
                node
                for node, kind in self.group.reductions.items()
                if nest.stage[node] == stage
                and kind in (ALL, COLUMN, STRIP)
                and self._sums_inner(node)
                and node not in wanted
            ]
            if rows or wanted:
                self._pass(stage, index, {node: self.name("row") for node in rows}, None, None)

    def _sums_inner(self, node: Node) -> bool:
        """Whether a reduction's operand varies within the row."""
        inner = set(self.group.inner)
        return any(axis in inner for axis in self.group.operand_axes[node])

    def _row_members(self, nodes: list[Node], index: dict[int, str]) -> None:
        for node in nodes:
            self._row_member(node, index)

    def _row_member(self, node: Node, index: dict[int, str]) -> None:
        """A member that has one value a row: computed, stored, or summed over the block."""
        out = self.out
        kind = self.group.reductions.get(node)
        if kind == ALL:
            if self._sums_inner(node):
                return
            value = self._operand(node, 0, index, {}, 1)
            combine = COMBINE[node.op.name]
            out.add(f"{self.sums[node]} = {combine}({self.sums[node]}, {value})")
            return
        if kind is not None:
            return
        self.row_names[node] = self._compute(node, index, {}, 1)
        self._store_row(node, index)

    def _store_row(self, node: Node, index: dict[int, str]) -> None:
        if node in self.nest.stored and self.group.reductions.get(node, ROW) == ROW:
            access = self.nest.store_access(node)
            self.out.add(f"{self._pointer(access, index)}[0] = {self.row_names[node]}")

    def _first_row(self) -> dict[int, str]:
        """Where the first row of a block is in each of the outer loops."""
        nest, out = self.nest, self.out
        if len(nest.outer) < 2:
            return dict.fromkeys(nest.outer, "r")
        rest = "start"
        for d in reversed(nest.outer[1:]):
            size = self._rows_along(d)
            out.add(f"q{d} = {rest} // {size}")
            out.add(f"index{d} = {rest} - q{d} * {size}")
            rest = f"q{d}"
        out.add(f"index{nest.outer[0]} = {rest}")
        return {d: f"index{d}" for d in nest.outer}

    def _next_row(self, index: dict[int, str]) -> None:
        """Count on: a division for each row takes as long as a row of some tens of elements."""
        out, outer = self.out, self.nest.outer
        if len(outer) < 2:
            return
        depth = out.depth
        for d in reversed(outer):
            out.add(f"{index[d]} += 1")
            if d != outer[0]:
                out.add(f"if {index[d]} == {self._rows_along(d)}:")
                out.depth += 1
                out.add(f"{index[d]} = 0")
        out.depth = depth

    def _rows_along(self, d: int) -> str:
        """How many rows, or tiles of them, lie along an outer loop.

        Where none do, nothing runs, but the first one is looked for all the same.
        """
        nest = self.nest
        if d == nest.tile:
            return nest.word("tiles", max(nest.tiles, 1))
        return nest.word(f"n{d}", max(nest.size[d], 1))

    # --- a pass over the row ------------------------------------------------------------------

    def _pass(
        self,
        stage: int,
        index: dict[int, str],
        rows: dict[Node, str],
        start: str | None,
        stop: str | None,
    ) -> None:
        """All that one stage computes within the row: loops over the inner dims."""
        nest, out = self.nest, self.out
        last = nest.inner[-1] if nest.inner else -1
        short = not nest.flat and nest.tile is None and nest.size.get(last, 1) <= FEW
        is_longer = nest.size.get(last, 1) > LONG
        sums = [name for node, name in rows.items() if is_widened(node)]
        self.exact = sums if sums and self._reads_apart() else []
        wide = sums if is_longer and not self.exact else []
        for node, name in rows.items():
            if node.op.name in ("argmax", "argmin"):
                operand = node.inputs[0]
                out.add(f"best_{name} = {identity(node.op.name, operand.dtype)}")
                out.add(f"{name} = i64(0)")
            elif name in self.exact:
                out.add(f"{name} = f64(0.0)")
            elif name in wide:
                out.add(f"all_{name} = f64(0.0)")
            else:
                out.add(f"{name} = {identity(node.op.name, node.dtype)}")
        outer = index
        index = dict(index)
        self.parted = self._parted(stage)
        for d in nest.inner[:-1]:
            begin, end = "0", nest.loop_size(d)
            if self.parted and d == nest.inner[0]:
                out.add(f"for part in range(0, {end}, {PART_OF_LOOP}):")
                out.depth += 1
                for node in self.parted:
                    self._clear_strip(node, nest.near_access(node), outer)
                out.add(f"part_end = min_i64(part + {PART_OF_LOOP}, {end})")
                begin, end = "part", "part_end"
            out.add(f"for index{d} in range({begin}, {end}):")
            out.depth += 1
            index[d] = f"index{d}"
        low, high = start or "0", stop or (nest.loop_size(last) if nest.inner else "1")
        mark = len(out.lines)
        depth = out.depth
        out.depth += 1
        local: dict[object, str] = {}
        before: list[str] = []
        after: list[str] = []
        self.before, self.after = before, after
        self.bad: dict[int, str] = {}  # by what it says of the program: see Program.status
        self.fills = fills = Lines(depth=out.depth)
        self.is_long = nest.flat or nest.size.get(last, 1) > FEW
        index[last] = "j"
        self._stage_members(stage, index, local, rows)
        body = out.lines[mark:]
        del out.lines[mark:]
        out.depth = depth
        for line in before:
            out.add(line)
        for name in self.bad.values():
            out.add(f"{name} = 0")
        if fills.lines or wide:
            length = STRIP_LENGTH if fills.lines else PART_OF_SUM
            out.add(f"for strip in range({low}, {high}, {length}):")
            out.depth += 1
            out.add(f"strip_end = min_i64(strip + {length}, {high})")
            out.lines += fills.lines
            low, high, body = "strip", "strip_end", ["    " + line for line in body]
        for name in wide:
            out.add(f"{name} = f32(0.0)")
        out.add(f"for j in {'few_lanes' if short else 'lanes'}({low}, {high}):")
        out.lines += body or ["    " * (out.depth + 1) + "pass"]
        for name in wide:
            out.add(f"all_{name} = add(all_{name}, to_float64({name}))")
        out.depth = depth
        for line in after:
            out.add(line)
        for code, name in self.bad.items():
            self._note(name, code)
        out.depth -= max(len(nest.inner) - 1, 0)
        for node in self.parted:
            self._add_part(node, outer)
        out.depth -= bool(self.parted)
        for name in self.exact:
            out.add(f"{name} = to_float32({name})")
        for name in wide:
            out.add(f"{name} = to_float32(all_{name})")
        for node, name in rows.items():
            self.row_names[node] = name
            self._store_row(node, {d: i for d, i in index.items() if d in nest.outer})

    def _reads_apart(self) -> bool:
        """Whether elements that the last loop reads lie apart.

        LLVM reads the gaps too, and leaves up to 64 elements at the end, which it may not read
        beyond: they would be added to the whole sum one by one, so that is kept as float64.
        """
        nest = self.nest
        return any(abs(access.strides[nest.lane]) > 1 for access in nest.plain_accesses())

    def _stage_members(
        self, stage: int, index: dict[int, str], local: dict[object, str], rows: dict[Node, str]
    ) -> None:
        """What one iteration of the last loop computes and stores."""
        nest = self.nest
        stores: list[str] = []  # after all loads: an output may lie where an operand did
        turns = 1 if nest.spelled is None else nest.size[nest.spelled]
        for nest.turn in range(turns):
            stores += self._element_members(stage, index, local, rows)
            local = self._of_every_turn(local)
        for line in stores:
            self.out.add(line)

    def _of_every_turn(self, local: dict[object, str]) -> dict[object, str]:
        """What has been read that is the same in all iterations of a loop that is written out."""
        spelled = self.nest.spelled
        return {
            key: name
            for key, name in local.items()
            if isinstance(key, Access) and spelled is not None and key.strides[spelled] == 0
        }

    def _element_members(
        self, stage: int, index: dict[int, str], local: dict[object, str], rows: dict[Node, str]
    ) -> list[str]:
        """Compute what one element has; the lines that store it."""
        nest = self.nest
        stores: list[str] = []
        for node in self.group.members:
            kind = self.group.reductions.get(node)
            if node in rows:
                value = self._operand(node, 0, index, local, 2)
                if rows[node] in self.exact:
                    value = f"to_float64({value})"
                self._accumulate(node, rows[node], value)
            elif nest.stage[node] != stage:
                continue
            elif kind == ALL:
                if nest.has_rows and not self._sums_inner(node):
                    continue
                value = self._operand(node, 0, index, local, 2)
                self._accumulate(node, self.sums[node], value)
            elif kind in (COLUMN, STRIP):
                self._accumulate_in_memory(node, index, local)
            elif nest.level(node) == 2 and (node in nest.stored or node in nest.keeps):
                value = self._value(node, index, local, stage)
                stores += self._store(self._home(node), index, value)
        return stores

    def _home(self, node: Node) -> Access:
        """Where a member is written, within the row."""
        nest = self.nest
        return nest.store_access(node) if node in nest.stored else nest.row_access(node)

    def _store(self, access: Access, index: dict[int, str], value: str) -> list[str]:
        """The lines that write an element in the last loop, or its copies side by side."""
        place = self._element(access, index)
        further = [f"{place[:-1]} + {i}]" for i in range(1, self.nest.copies)]
        return [f"{at} = {value}" for at in (place, *further)]

    def _accumulate(self, node: Node, total: str, value: str) -> None:
        out = self.out
        if node.op.name in ("argmax", "argmin"):
            better = "greater" if node.op.name == "argmax" else "less"
            take = self.name("take")
            test = f"{better}({value}, best_{total})"
            if kind_of(node.inputs[0].dtype) == "f":
                nan = f"logical_and(isnan({value}), logical_not(isnan(best_{total})))"
                test = f"logical_or({test}, {nan})"
            out.add(f"{take} = {test}")
            out.add(f"best_{total} = select({take}, {value}, best_{total})")
            out.add(f"{total} = select({take}, i64(j), {total})")
            return
        out.add(f"{total} = {COMBINE[node.op.name]}({total}, {value})")

    def _accumulate_in_memory(
        self, node: Node, index: dict[int, str], local: dict[object, str]
    ) -> None:
        """Add to a partial column sum, or to a result that the row completes."""
        nest, out = self.nest, self.out
        value = self._operand(node, 0, index, local, 2)
        access = nest.near_access(node) if node in self.parted else nest.store_access(node)
        combine = COMBINE[node.op.name]
        last = nest.lane
        base = None
        if self.group.reductions[node] == COLUMN:
            at = nest.array(access)
            width = nest.word(f"width{at}", node.type.size)
            base = f"at{at} + b * {width} * {node.dtype.itemsize}"
        if access.strides[last] == 0 and nest.size[last] != 1:  # the last loop is summed
            total = self.name("sum")
            self.before.append(f"{total} = {identity(node.op.name, node.dtype)}")
            out.add(f"{total} = {combine}({total}, {value})")
            place = f"{self._pointer(access, index, base, exclude=last)}[0]"
            self.after.append(f"{place} = {combine}({place}, {total})")
            return
        place = self._element(access, index, base)
        out.add(f"{place} = {combine}({place}, {value})")

    def _parted(self, stage: int) -> list[Node]:
        """Sums over a long first loop of the row: parts of it are summed by themselves."""
        nest = self.nest
        if len(nest.inner) < 2 or nest.size[nest.inner[0]] <= PART_OF_LOOP:
            return []
        return [
            node
            for node, kind in self.group.reductions.items()
            if kind == STRIP
            and nest.stage[node] == stage
            and is_widened(node)
            and nest.store_access(node).strides[nest.inner[0]] == 0
        ]

    def _clear_strip(self, node: Node, access: Access, index: dict[int, str]) -> None:
        with self._each_kept(access, index) as place:
            self.out.add(
                f"{self._pointer(access, place)}[0] = {identity(node.op.name, node.dtype)}"
            )

    def _add_part(self, node: Node, index: dict[int, str]) -> None:
        near, whole = self.nest.near_access(node), self.nest.store_access(node)
        with self._each_kept(whole, index) as place:
            total = f"{self._pointer(whole, place)}[0]"
            self.out.add(f"{total} = add({total}, {self._pointer(near, place)}[0])")

    @contextmanager
    def _each_kept(self, access: Access, index: dict[int, str]) -> Iterator[dict[int, str]]:
        """Loops over what a reduction of the row leaves of it."""
        nest, out = self.nest, self.out
        kept = [d for d in nest.inner if access.strides[d] != 0]
        for d in kept:
            out.add(f"for index{d} in range({nest.loop_size(d)}):")
            out.depth += 1
        yield index | {d: f"index{d}" for d in kept}
        out.depth -= len(kept)

    # --- values -------------------------------------------------------------------------------

    def _value(
        self, node: Node, index: dict[int, str], local: dict[object, str], stage: int
    ) -> str:
        """The name of a member's value within the row, computing it if it is not there yet."""
        pending = [node]
        while pending:
            at = pending[-1]
            if at in local or at in self.row_names:
                pending.pop()
                continue
            nest = self.nest
            if at in nest.keeps and nest.stage[at] < stage:
                local[at] = self._load(self._home(at), index, local)
                continue
            missing = [x for x in nest.members_of(at) if x not in local and x not in self.row_names]
            if missing:
                pending += missing
                continue
            local[at] = self._compute(at, index, local, 2)
        return local[node] if node in local else self.row_names[node]

    def _compute(
        self, node: Node, index: dict[int, str], local: dict[object, str], level: Level
    ) -> str:
        if node.op is indexing.gather:
            return self._gather(node, index, local, level)
        if node.op is movement.pad:
            return self._pad(node, index, local, level)
        if node.op is indexing.position:
            return self._position(node, index, local, level)
        if node.op is pointwise.guard or node.op is pointwise.watch:
            code = NOT_FINITE if node.op is pointwise.guard else RAISED
            self._check(self._operand(node, 1, index, local, level), level, code)
            return self._operand(node, 0, index, local, level)
        operands = [
            self._operand(node, position, index, local, level) for position, _ in read_by(node)
        ]
        if node.op is pointwise.cast and operands[0] in self.unrounded:
            return self.unrounded[operands[0]]
        text = self._random_words(node, operands, index) or expression(node, operands)
        if text in operands:
            return text
        name = self.name()
        if node.op is pointwise.stored:
            self.unrounded[name] = operands[0]
        self.out.add(f"{name} = {text}")
        return name

    def _random_words(self, node: Node, operands: list[str], index: dict[int, str]) -> str | None:
        """Random bits by whole blocks of Philox, into scratch memory ahead of the loop.

        By itself an element computes a block and uses one of its words. None where they are not to
        be had like that: the key has to be one number, and the last loop to count the words.
        """
        nest = self.nest
        per_block = WORDS_OF_BLOCK.get(node.op)
        if per_block is None or not self.is_long or "j" not in index.values():
            return None
        view, last = view_of(node.inputs[4]), nest.inner[-1]
        if view is None or view.base.op is not movement.iota:
            return None
        access = nest.access(node.inputs[4], nest.seen(node, 4))
        numbers = {*self.scalar_names.values(), number(0, np.dtype(np.uint64))}
        if access.strides[last] != 1 or not numbers.issuperset(operands[:4]):
            return None
        fills, name = self.fills, self.name("words")
        fills.add(f"{name}_at = to_int64({nest.counting(access, {**index, last: 'strip'})})")
        fills.add(f"{name}_skip = {name}_at - {name}_at // {per_block} * {per_block}")
        fills.add(f"{name} = {SUFFIX[node.dtype]}_scratch({STRIP_LENGTH + 2 * per_block})")
        count = f"({name}_skip + strip_end - strip + {per_block - 1}) // {per_block}"
        fills.add(f"for q in lanes(0, {count}):")
        for word in range(per_block):
            place = f"q * {per_block} + {word}"
            which = f"to_uint64(i64({name}_at - {name}_skip + {place}))"
            fills.add(f"    {name}[{place}] = {expression(node, [*operands[:4], which])}")
        return f"{name}[j - strip + {name}_skip]"

    def _operand(
        self,
        node: Node,
        position: int,
        index: dict[int, str],
        local: dict[object, str],
        level: Level,
    ) -> str:
        nest = self.nest
        operand = node.inputs[position]
        constant = constant_of(operand)
        if constant is not None:
            return self._constant(constant)
        axes = nest.seen(node, position)
        behind = through(operand, axes)
        if behind is not None:
            base, own = behind
            if base in nest.member_set:
                stage = nest.stage[node] - (self.group.reductions.get(node) == ROW)
                return (
                    self._value(base, index, local, stage) if level == 2 else (self.row_names[base])
                )
            if base.op is movement.iota:
                place = self._index_text(own[0], index)
                return f"to_{base.dtype}({place})"
            if is_scalar(base):
                return self._scalar(base)
        elif counts(operand):
            return nest.counting(nest.access(operand, axes), index)
        return self._load(nest.access(operand, axes), index, local)

    def _constant(self, constant: Node) -> str:
        """A number: written here, or read once at the top of the kernel."""
        text = plain(constant)
        if text is not None:
            return text
        nowhere = (0,) * len(self.group.dims)
        return self._load(Access(constant, constant.dtype, 0, nowhere), {}, {})

    def _index_text(self, axis: int | None, index: dict[int, str]) -> str:
        return "i64(0)" if axis is None else f"i64({index[axis]})"

    def _scalar(self, node: Node) -> str:
        """A number made from numbers: once, at the top of the kernel."""
        pending = [node]
        while pending:
            at = pending[-1]
            if at in self.scalar_names:
                pending.pop()
                continue
            behind = [_behind(operand) for operand in at.inputs]
            missing = [x for x in behind if is_scalar(x) and x not in self.scalar_names]
            if missing:
                pending += missing
                continue
            names = []
            for operand, base in zip(at.inputs, behind, strict=True):
                constant = constant_of(operand)
                if constant is not None:
                    names.append(self._constant(constant))
                elif is_scalar(base):
                    names.append(self.scalar_names[base])
                else:
                    names.append(self._load(self.nest.access(operand, ()), {}, {}))
            text = expression(at, names)
            if text in names:
                self.scalar_names[at] = text
            else:
                self.scalar_names[at] = self.name("c")
                self.prelude.append(f"{self.scalar_names[at]} = {text}")
            pending.pop()
        return self.scalar_names[node]

    # --- memory -------------------------------------------------------------------------------

    def _load(self, access: Access, index: dict[int, str], local: dict[object, str]) -> str:
        """The name of a value read from memory, at the level where it varies."""
        nest = self.nest
        if isinstance(access.where, Node):
            nest.reads.setdefault(access.where)
        if not any(access.strides):
            if access not in self.scalar_names:
                at = nest.array(access)
                self.scalar_names[access] = f"number{at}"
                self.prelude.append(f"number{at} = {SUFFIX[access.dtype]}_at(at{at})[0]")
            return self.scalar_names[access]
        if access not in local:
            name = self.name("x")
            if "j" in index.values():
                self.out.add(f"{name} = {self._element(access, index)}")
            else:
                self.out.add(f"{name} = {self._pointer(access, index)}[0]")
            local[access] = name
        return local[access]

    def _address(
        self,
        access: Access,
        index: dict[int, str],
        base: str | None = None,
        exclude: int | None = None,
    ) -> str:
        """The address of the element at `index`, leaving out the last loop or `exclude`."""
        nest = self.nest
        at = nest.array(access)
        if base is None:
            base = f"at{at}"
            if isinstance(access.where, Buffer) and access.where in nest.scratch:
                base = f"at{at} + b * {nest.word(f'scratch{at}', nest.scratch[access.where])}"
        terms = []
        for d, place in index.items():
            if d == exclude or place == "j" or d < 0 or access.strides[d] == 0:
                continue
            stride = nest.stride(access, d)
            terms.append(place if stride == "1" else f"{place} * {stride}")
        if not terms:
            return base
        size = access.dtype.itemsize
        return f"{base} + ({' + '.join(terms)}) * {size}"

    def _pointer(
        self,
        access: Access,
        index: dict[int, str],
        base: str | None = None,
        exclude: int | None = None,
    ) -> str:
        return f"{SUFFIX[access.dtype]}_at({self._address(access, index, base, exclude)})"

    def _element(self, access: Access, index: dict[int, str], base: str | None = None) -> str:
        """An element in the last loop; its pointer is made before the loop."""
        nest = self.nest
        if access in nest.across:
            line = f"row = (i - first) * {TILE_COLUMNS} - low"
            if line not in self.before:
                self.before.append(line)
            return f"tile{nest.array(access)}[row + j]"
        pointer = self._pointer(access, index, base)
        line = f"p{nest.array(access)} = {pointer}"
        if line not in self.before:
            self.before.append(line)
        return f"p{nest.array(access)}[{self._lane_place(access)}]"

    def _lane_place(self, access: Access) -> str:
        """Where in a line of an array the last loop is."""
        nest = self.nest
        stride = "0" if nest.lane < 0 else nest.stride(access, nest.lane)
        place = {"0": "0", "1": "j"}.get(stride, f"j * {stride}")
        further = self._turn_place(access)
        if not further:
            return place
        return further if place == "0" else f"{place} + {further}"

    def _turn_place(self, access: Access) -> str:
        """How far an iteration of a loop that is written out lies from the first one; nothing in
        that one."""
        nest = self.nest
        step = 0 if nest.spelled is None else access.strides[nest.spelled]
        if nest.spelled is None or not step or not nest.turn:
            return ""
        if abs(step) <= INTERLEAVED:
            return str(nest.turn * step)
        return f"{nest.turn} * {nest.stride(access, nest.spelled)}"

    def _gather(
        self, node: Node, index: dict[int, str], local: dict[object, str], level: Level
    ) -> str:
        nest, out = self.nest, self.out
        x = node.inputs[0]
        view = view_of(x)
        assert view is not None
        access = nest.gathered(node)
        nest.reads.setdefault(view.base)
        at = nest.array(access)
        count = nest.word(f"count{at}", x.shape[0])
        # a product of 64 bits is three instructions of vectors
        step = "" if view.strides[0] == 1 else f" * {nest.word(f'step{at}', view.strides[0])}"
        place, name, size = self.name("at_"), self.name(), access.dtype.itemsize
        fixed = self._fixed(node, 1, index) if level == 2 else None
        where = fixed or self._operand(node, 1, index, local, level)
        line = f"{place} = min_i64(max_i64({where}, 0), {count} - 1)"
        if fixed:
            # the last loop copies a row: LLVM makes whole vectors of it only if the place is known
            self.before.append(line)
            self.before += self._noted(f"{fixed} != {place}")
            row, base = self.name("row_at"), f"at{at} + {place}{step} * {size}"
            self.before.append(f"{row} = {self._pointer(access, index, base)}")
            out.add(f"{name} = {row}[{self._lane_place(access)}]")
            return name
        out.add(line)
        self._check(f"{where} != {place}", level)
        terms = [f"{place}{step}"]
        for d, i in index.items():
            if d >= 0 and access.strides[d]:
                terms.append(f"{i} * {self._any_stride(access, d)}")
        pointer = f"{SUFFIX[access.dtype]}_at(at{at} + ({' + '.join(terms)}) * {size})"
        out.add(f"{name} = {pointer}[0]")
        return name

    def _fixed(self, node: Node, position: int, index: dict[int, str]) -> str | None:
        """The name of an operand that the last loop does not change, read before that loop.

        None if it changes there, or is computed there.
        """
        nest, operand = self.nest, node.inputs[position]
        axes = nest.seen(node, position)
        behind = through(operand, axes)
        if constant_of(operand) is not None:
            return self._operand(node, position, index, {}, 2)
        if behind is not None:
            base = behind[0]
            if base in nest.member_set:
                return self.row_names.get(base)
            if is_scalar(base):
                return self._scalar(base)
            if base.op is movement.iota:
                return None
        if nest.lane < 0 or counts(operand):
            return None
        access = nest.access(operand, axes)
        if access.strides[nest.lane]:
            return None
        if isinstance(access.where, Node):
            nest.reads.setdefault(access.where)
        element = self._element(access, index)
        name = self.name("x")
        self.before.append(f"{name} = {element}")
        return name

    def _position(
        self, node: Node, index: dict[int, str], local: dict[object, str], level: Level
    ) -> str:
        """An index counted from the start, after a check of its bounds."""
        where = self._operand(node, 0, index, local, level)
        size = self.nest.word(f"size_{self.name('')}", node["size"])
        name = self.name("at_")
        self.out.add(f"{name} = select({where} < 0, {where} + {size}, {where})")
        self._check(f"({name} < 0) | ({name} >= {size})", level)
        return name

    def _check(self, bad: str, level: Level, code: int = OUT_OF_BOUNDS) -> None:
        """Note in the status that `bad` holds: at once for a row, after the loop within one."""
        if level == 2:
            name = self.bad.setdefault(code, f"bad{code}" if self.bad else "bad")
            self.out.add(f"{name} = {name} | ({bad})")
        else:
            self._note(bad, code)

    def _note(self, bad: str, code: int) -> None:
        """Write the code to the status if `bad` holds."""
        for line in self._noted(bad, code):
            self.out.add(line)

    def _noted(self, bad: str, code: int = OUT_OF_BOUNDS) -> tuple[str, str]:
        """The lines that do so."""
        self.nest.uses_status = True
        status = self.nest.word("status", Address(self.nest.status))
        return f"if {bad}:", f"    i64_at({status})[0] = {code}"

    def _any_stride(self, access: Access, d: int) -> str:
        return self.nest.word(f"s{self.nest.array(access)}_{d}", access.strides[d])

    def _pad(
        self, node: Node, index: dict[int, str], local: dict[object, str], level: Level
    ) -> str:
        """The element inside the window, or the fill.

        Where it is along the last loop is one comparison with numbers made before that loop: LLVM
        makes a masked load of it.
        """
        nest, out = self.nest, self.out
        x = node.inputs[0]
        fill = self._operand(node, 1, index, local, level)
        access = nest.padded(node)
        view = view_of(x)
        assert view is not None
        nest.reads.setdefault(view.base)
        at = nest.array(access)
        # pads of different windows may read an array from the same place on
        window = nest.window(
            access, (self.group.axes[node], node["starts"], x.shape, node["steps"])
        )
        #: Tests and terms of the address: of the loops around the last one, and of the last.
        around: tuple[list[str], list[str]] = [], []
        within: tuple[list[str], list[str]] = [], []
        stop = nest.loop_size(nest.lane) if nest.inner else "1"
        for i, axis in enumerate(self.group.axes[node]):
            if axis is None or is_whole(node, i):
                continue
            in_lanes = index[axis] == "j"
            tests, terms = within if in_lanes else around
            low = nest.word(f"low{window}_{i}", node["starts"][i])
            size = nest.word(f"size{window}_{i}", x.shape[i])
            step = node["steps"][i]
            if step != 1:
                jump = nest.word(f"jump{window}_{i}", step)
                place = f"({index[axis]} - {low})"
                quotient = self.name("quotient")
                if in_lanes or level != 2:
                    out.add(f"{quotient} = floor_divide({place}, {jump})")
                else:
                    self._before(f"{quotient} = {place} // {jump}")
                tests.append(f"({quotient} * {jump} == {place})")
                tests += [f"({quotient} >= 0)", f"({quotient} < {size})"]
                if view.strides[i]:
                    own = nest.word(f"own{window}_{i}", view.strides[i])
                    terms.append(f"{quotient} * {own}")
            elif in_lanes:
                tests.append(f"(j >= {low})")
                stop = f"{low} + {size}"
            else:
                place = f"({index[axis]} - {low})"
                tests += [f"({place} >= 0)", f"({place} < {size})"]
        for d, at_d in index.items():
            if d >= 0 and access.strides[d]:
                stride = nest.stride(access, d)
                terms = within[1] if at_d == "j" else around[1]
                terms.append(at_d if stride == "1" else f"{at_d} * {stride}")
        name, itemsize, at_type = self.name(), access.dtype.itemsize, SUFFIX[access.dtype]
        start = " + ".join(around[1]) or "0"
        element = " + ".join(within[1]) or "0"
        tests = [*around[0], *within[0]]
        if level == 2:
            # counted from the array itself: where the loops start there may be none
            home = nest.word(f"home{at}", Address(view.base))
            self._before(f"pad{at} = {at_type}_at({home})")
            self._before(f"first{window} = (at{at} - {home}) // {itemsize} + {start}")
            source = f"pad{at}[first{window} + {element}]"
            if around[0]:
                # a number, and no truth: of that LLVM would make a loop for each of its values
                stop = f"select({' & '.join(around[0])}, {stop}, 0)"
            self._before(f"stop{window} = {stop}")
            tests = [*within[0], f"(j < stop{window})"]
        else:
            source = f"{at_type}_at(at{at} + ({start}) * {itemsize})[{element}]"
        out.add(f"{name} = {fill}")
        out.add(f"if {' & '.join(tests) or 'True'}:")
        out.depth += 1
        out.add(f"{name} = {source}")
        out.depth -= 1
        return name

    def _before(self, line: str) -> None:
        """A line before the last loop, once."""
        if line not in self.before:
            self.before.append(line)


def _behind(node: Node) -> Node:
    while is_movement(node):
        node = node.inputs[0]
    return node
