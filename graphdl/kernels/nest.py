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

import math
from collections.abc import Iterable

import numpy as np
from msgspec import Struct, field

from graphdl.compiler.fuse import ALL, COLUMN, ROW, STRIP, Group, counts, is_scalar, through
from graphdl.compiler.view import is_movement, view_of
from graphdl.graph import Node
from graphdl.kernels.body import (
    COMBINE,
    SUFFIX,
    constant_of,
    cost_of,
    expression,
    identity,
    number,
    plain,
)
from graphdl.kernels.loops import (
    TILE_COLUMNS,
    TILE_ROWS,
    Access,
    Level,
    Loops,
    is_whole,
    read_by,
)
from graphdl.kernels.program import (
    NOT_FINITE,
    OUT_OF_BOUNDS,
    Address,
    Buffer,
    Launch,
    Word,
)
from graphdl.kernels.replace import kept_launches
from graphdl.kernels.source import KernelSource
from graphdl.ops import indexing, movement, pointwise, random
from graphdl.ops.update import update

#: Elements of a block: at most so many that the rows of a multi-pass kernel stay in the second
#: level of cache, at least so many that starting a block (some ns) does not count, and in between
#: so many that a block takes about BLOCK_TIME nanoseconds.
BLOCK, SMALLEST_BLOCK, BLOCK_TIME = 16384, 1024, 20_000
#: Rows of at most so many elements take one masked vector loop, without another one for the rest: a
#: softmax over 10 classes took 24 ns instead of 60.
FEW = 64
#: Random bits are made for so many elements at a time: they stay in the first level of cache.
STRIP_LENGTH = 1024
#: The words, or pairs of words, of a block of Philox.
WORDS_OF_BLOCK: dict[object, int] = {random.philox: 4, random.philox_wide: 2}
#: At most so many blocks leave partial results: their sums cost a pass over that many values.
MOST_PARTIALS = 64


class _Lines(Struct):
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
        self.out = _Lines()
        self.prelude: list[str] = []
        self.row_names: dict[Node, str] = {}
        self.scalar_names: dict[object, str] = {}
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
        else:
            out.add("for r in range(start, stop):")
            out.depth += 1
            if nest.tile is None:
                self._row()
            else:
                self._tiles(nest.tile)
            out.depth -= 1
        for node in whole:
            at = nest.array(nest.store_access(node))
            size = node.dtype.itemsize
            suffix = SUFFIX[node.dtype]
            out.add(f"{suffix}_at(at{at} + b * {size})[0] = {self.sums[node]}")
        return [*("    " + line for line in self.prelude), *out.lines]

    def _tiles(self, dim: int) -> None:
        """TILE_ROWS rows along the loop `dim`, in tiles of TILE_COLUMNS."""
        nest, out = self.nest, self.out
        index = self._outer_index()
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

    def _row(self) -> None:
        nest = self.nest
        index = self._outer_index()
        self.row_names = {}
        stages = max(nest.stage.values(), default=0)
        row_level = [node for node in self.group.members if nest.level(node) == 1]
        inner_level = [node for node in self.group.members if nest.level(node) == 2]
        strips = [r for r, kind in self.group.reductions.items() if kind == STRIP]
        for node in strips:
            self._clear_strip(node, index)
        for stage in range(stages + 1):
            for node in row_level:
                if nest.stage[node] == stage and self.group.reductions.get(node) != ROW:
                    self._row_member(node, index)
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

    def _outer_index(self) -> dict[int, str]:
        nest, out = self.nest, self.out
        index: dict[int, str] = {}
        rest = "r"
        for position, d in enumerate(reversed(nest.outer)):
            if position == len(nest.outer) - 1:
                index[d] = rest
                break
            size = nest.loop_size(d) if d != nest.tile else nest.word("tiles", nest.tiles)
            out.add(f"q{d} = {rest} // {size}")
            out.add(f"index{d} = {rest} - q{d} * {size}")
            index[d] = f"index{d}"
            rest = f"q{d}"
        return index

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
        for node, name in rows.items():
            if node.op.name in ("argmax", "argmin"):
                operand = node.inputs[0]
                out.add(f"best_{name} = {identity(node.op.name, operand.dtype)}")
                out.add(f"{name} = i64(0)")
            else:
                out.add(f"{name} = {identity(node.op.name, node.dtype)}")
        index = dict(index)
        for d in nest.inner[:-1]:
            out.add(f"for index{d} in range({nest.loop_size(d)}):")
            out.depth += 1
            index[d] = f"index{d}"
        if nest.inner:
            last = nest.inner[-1]
            low, high = start or "0", stop or nest.loop_size(last)
        else:
            last, low, high = -1, start or "0", stop or "1"
        mark = len(out.lines)
        depth = out.depth
        out.depth += 1
        local: dict[object, str] = {}
        before: list[str] = []
        after: list[str] = []
        self.before, self.after = before, after
        self.bad: dict[int, str] = {}  # by what it says of the program: see Program.status
        self.fills = fills = _Lines(depth=out.depth)
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
        if fills.lines:
            out.add(f"for strip in range({low}, {high}, {STRIP_LENGTH}):")
            out.depth += 1
            out.add(f"strip_end = min_i64(strip + {STRIP_LENGTH}, {high})")
            out.lines += fills.lines
            low, high, body = "strip", "strip_end", ["    " + line for line in body]
        short = nest.has_rows and nest.size.get(last, 1) <= FEW
        out.add(f"for j in {'few_lanes' if short else 'lanes'}({low}, {high}):")
        out.lines += body
        out.depth = depth
        if not body:
            out.depth += 1
            out.add("pass")
            out.depth -= 1
        for line in after:
            out.add(line)
        for code, name in self.bad.items():
            self._note(name, code)
        out.depth -= max(len(nest.inner) - 1, 0)
        for node, name in rows.items():
            self.row_names[node] = name
            self._store_row(node, {d: i for d, i in index.items() if d in nest.outer})

    def _stage_members(
        self, stage: int, index: dict[int, str], local: dict[object, str], rows: dict[Node, str]
    ) -> None:
        nest, out = self.nest, self.out
        stores: list[str] = []  # after all loads: an output may lie where an operand did
        for node in self.group.members:
            kind = self.group.reductions.get(node)
            if node in rows:
                value = self._operand(node, 0, index, local, 2)
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
                place = nest.store_access if node in nest.stored else nest.row_access
                access = place(node)
                stores.append(self._store(access, index, value))
        for line in stores:
            out.add(line)

    def _store(self, access: Access, index: dict[int, str], value: str) -> str:
        """The line that writes an element in the last loop."""
        return f"{self._element(access, index)} = {value}"

    def _accumulate(self, node: Node, total: str, value: str) -> None:
        out = self.out
        if node.op.name in ("argmax", "argmin"):
            better = "greater" if node.op.name == "argmax" else "less"
            take = self.name("take")
            test = f"{better}({value}, best_{total})"
            if node.inputs[0].dtype.kind == "f":
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
        access = nest.store_access(node)
        combine = COMBINE[node.op.name]
        last = nest.inner[-1]
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

    def _clear_strip(self, node: Node, index: dict[int, str]) -> None:
        nest, out = self.nest, self.out
        access = nest.store_access(node)
        index = dict(index)
        kept = [d for d in nest.inner if access.strides[d] != 0]
        for d in kept:
            out.add(f"for index{d} in range({nest.loop_size(d)}):")
            out.depth += 1
            index[d] = f"index{d}"
        out.add(f"{self._pointer(access, index)}[0] = {identity(node.op.name, node.dtype)}")
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
                access = nest.store_access(at) if at in nest.stored else nest.row_access(at)
                local[at] = self._load(access, index, local)
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
        if node.op is pointwise.guard:
            self._check(self._operand(node, 1, index, local, level), level, NOT_FINITE)
            return self._operand(node, 0, index, local, level)
        operands = [
            self._operand(node, position, index, local, level) for position, _ in read_by(node)
        ]
        text = self._random_words(node, operands, index) or expression(node, operands)
        if text in operands:
            return text
        name = self.name()
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
            for buffer, own in nest.scratch.values():
                if access.where is buffer:
                    size = math.prod(self.group.dims[d] for d in self.group.inner)
                    row = nest.word("row", size)
                    base = f"at{at} + b * {row} * {own.dtype.itemsize}"
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
        last = nest.inner[-1] if nest.inner else -1
        stride = "0" if last < 0 else nest.stride(access, last)
        place = {"0": "0", "1": "j"}.get(stride, f"j * {stride}")
        return f"p{nest.array(access)}[{place}]"

    def _gather(
        self, node: Node, index: dict[int, str], local: dict[object, str], level: Level
    ) -> str:
        nest, out = self.nest, self.out
        x = node.inputs[0]
        view = view_of(x)
        assert view is not None
        where = self._operand(node, 1, index, local, level)
        access = nest.gathered(node)
        nest.reads.setdefault(view.base)
        at = nest.array(access)
        count = nest.word(f"count{at}", x.shape[0])
        step = nest.word(f"step{at}", view.strides[0])
        place, name = self.name("at_"), self.name()
        out.add(f"{place} = min_i64(max_i64({where}, 0), {count} - 1)")
        self._check(f"{where} != {place}", level)
        terms = [f"{place} * {step}"]
        for d, i in index.items():
            if d >= 0 and access.strides[d]:
                terms.append(f"{i} * {self._any_stride(access, d)}")
        size = access.dtype.itemsize
        pointer = f"{SUFFIX[access.dtype]}_at(at{at} + ({' + '.join(terms)}) * {size})"
        out.add(f"{name} = {pointer}[0]")
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
        nest, out = self.nest, self.out
        nest.uses_status = True
        status = nest.word("status", Address(nest.status))
        out.add(f"if {bad}:")
        out.depth += 1
        out.add(f"i64_at({status})[0] = {code}")
        out.depth -= 1

    def _any_stride(self, access: Access, d: int) -> str:
        return self.nest.word(f"s{self.nest.array(access)}_{d}", access.strides[d])

    def _pad(
        self, node: Node, index: dict[int, str], local: dict[object, str], level: Level
    ) -> str:
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
        tests, terms = [], []
        for i, axis in enumerate(self.group.axes[node]):
            if axis is None or is_whole(node, i):
                continue
            low = nest.word(f"low{window}_{i}", node["starts"][i])
            size = nest.word(f"size{window}_{i}", x.shape[i])
            step = node["steps"][i]
            place = f"({index[axis]} - {low})"
            if step != 1:
                jump = nest.word(f"jump{window}_{i}", step)
                quotient = self.name("quotient")
                out.add(f"{quotient} = {place} // {jump}")
                tests.append(f"{quotient} * {jump} == {place}")
                place = quotient
                if view.strides[i]:
                    own = nest.word(f"own{window}_{i}", view.strides[i])
                    terms.append(f"{quotient} * {own}")
            tests += [f"{place} >= 0", f"{place} < {size}"]
        for d, at_d in index.items():
            if d >= 0 and access.strides[d]:
                terms.append(f"{at_d} * {self._any_stride(access, d)}")
        name = self.name()
        where = f"at{at} + ({' + '.join(terms) or '0'}) * {access.dtype.itemsize}"
        out.add(f"{name} = {fill}")
        out.add(f"if {' and '.join(tests) or 'True'}:")
        out.depth += 1
        out.add(f"{name} = {SUFFIX[access.dtype]}_at({where})[0]")
        out.depth -= 1
        return name


def _nest(loops: Loops) -> Launch:
    """The kernel of a group, with its table and its memory."""
    rows = math.prod(loops.size[d] if d != loops.tile else loops.tiles for d in loops.outer)
    row = math.prod(loops.size[d] for d in loops.inner)
    if loops.tile is not None:
        row *= min(TILE_ROWS, loops.size[loops.tile])
    reductions = loops.group.reductions
    leaves_partials = any(kind in (ALL, COLUMN) for kind in reductions.values())
    size = block_size(loops.group)
    total, unit = (row, size) if loops.flat else (rows, max(1, size // max(row, 1)))
    blocks = -(-total // unit)
    bounded = leaves_partials or loops.keeps
    if bounded and blocks > MOST_PARTIALS:
        unit = -(-total // MOST_PARTIALS)
        if loops.flat:
            unit = -(-unit // 64) * 64
        blocks = -(-total // unit)
    if leaves_partials:
        blocks = max(blocks, 1)
    body = NestText(loops)
    text = body.text(total, unit)
    head = ["def kernel(table, lo, hi):"]
    head += [f"    {name} = table[{i}]" for name, i in loops.word_names.items()]
    source = KernelSource(name_of(loops.group), "\n".join([*head, *text]) + "\n")
    sizes: dict[Buffer, int] = {}
    for node, buffer in loops.partials.items():
        sizes[buffer] = blocks * node.type.nbytes
    inner = math.prod(loops.group.dims[d] for d in loops.group.inner)
    for node, (buffer, _) in loops.scratch.items():
        sizes[buffer] = blocks * inner * node.dtype.itemsize
    elements = math.prod(loops.size[d] for d in (*loops.outer, *loops.inner))
    return _launch(loops, source, blocks, elements, sizes)


def block_size(group: Group) -> int:
    """Elements of a block: fewer where an element is dear, so that there is work to share."""
    cost = sum(cost_of(node) for node in group.members)
    return max(SMALLEST_BLOCK, min(BLOCK, int(BLOCK_TIME / max(cost, 1e-3)) // 64 * 64))


def name_of(group: Group) -> str:
    guarded = any(n.op is pointwise.guard for n in group.members)
    names = [
        n.op.name
        for n in group.members
        if n.op.name not in ("copy", "cast", "guard")
        and not (guarded and n.dtype.kind == "b")  # the conditions
    ]
    short = list(dict.fromkeys(names))[:4] or ["copy"]
    return "_".join(short)


def _launch(
    loops: Loops, source: KernelSource, blocks: int, elements: int, sizes: dict[Buffer, int]
) -> Launch:
    real: dict[Buffer, Node | Buffer] = {
        buffer: Buffer(n, buffer.node, buffer.purpose) for buffer, n in sizes.items()
    }
    spare: list[KernelSource] = []
    if blocks == 1:  # the partial results of one block are the results
        real.update({buffer: node for node, buffer in loops.partials.items()})
        spare = [_finish_source(node) for node in loops.partials]
    words = tuple(
        Address(real[word.where], word.offset)
        if isinstance(word, Address) and isinstance(word.where, Buffer) and word.where in real
        else word
        for word in loops.words
    )
    reads = tuple(loops.reads)
    writes: list[Node | Buffer] = [node for node in loops.stored if node not in loops.partials]
    writes += real.values()
    loops.partials = {
        node: place
        for node, buffer in loops.partials.items()
        if isinstance(place := real[buffer], Buffer)
    }
    if loops.uses_status:
        writes.append(loops.status)
    cost = elements * sum(cost_of(node) for node in loops.group.members)
    moved = traffic(loops, elements)
    return Launch(
        source,
        words,
        blocks,
        cost + 0.1 * moved,
        reads,
        tuple(writes),
        tuple(in_place(loops)),
        loops.group.members,
        moved,
        elements * len(loops.group.members),
        spare=tuple(dict.fromkeys(spare)),
    )


def traffic(loops: Loops, elements: int) -> int:
    """Bytes read and written, at the least: of an array that is larger than the loops, a part."""
    reads = {access.where: 0 for access in loops.accesses}
    for access in loops.accesses:
        reads[access.where] += elements * access.dtype.itemsize
    return sum(
        min(value.type.nbytes, reads.get(value, value.type.nbytes))
        for value in (*loops.reads, *loops.stored)
        if isinstance(value, Node)
    )


def in_place(loops: Loops) -> Iterable[tuple[Node, Node]]:
    """Pairs of a stored member and an array read once, at the same places.

    Within a pass all loads of an element come before its stores. What is stored once a row comes
    before loads of that row's pass.
    """
    if loops.has_rows and any(loops.stage.values()):
        return
    for node in loops.stored:
        if node in loops.group.reductions or loops.level(node) == 1:
            continue
        own = loops.store_access(node)
        for access in loops.accesses:
            other = access.where
            if (
                isinstance(other, Node)
                and other in loops.reads
                and access.dtype.itemsize == own.dtype.itemsize
                and (access.offset, access.strides) == (own.offset, own.strides)
                and other.type.size == node.type.size
                and sum(a.where is other for a in loops.accesses) == 1
            ):
                yield node, other


def _behind(node: Node) -> Node:
    while is_movement(node):
        node = node.inputs[0]
    return node


def nest_launches(group: Group, stored: set[Node], status: Buffer) -> list[Launch]:
    """The launches of a group of loops: the nest, then the sums of its blocks' partial results."""
    loops = Loops(group, stored, status)
    if 0 in group.dims and not group.reductions:
        return []
    kept = [copy for node in group.members if node.op is update for copy in kept_launches(node)]
    launch = _nest(loops)
    return [*kept, launch, *(_finish(node, loops, launch) for node in loops.partials)]


def _finish(node: Node, loops: Loops, launch: Launch) -> Launch:
    """out[j] = the blocks' partial results of j, combined in order."""
    words: tuple[Word, ...] = (
        Address(loops.partials[node]),
        Address(node),
        node.type.size,
        launch.iterations,
    )
    return Launch(
        _finish_source(node),
        words,
        1,
        launch.iterations * node.type.size * 0.3,
        (loops.partials[node],),
        (node,),
        (),
        (node,),
    )


def _finish_source(node: Node) -> KernelSource:
    suffix, size = SUFFIX[node.dtype], node.dtype.itemsize
    combine = COMBINE[node.op.name]
    return KernelSource(
        f"finish_{node.op.name}",
        f"""def kernel(table, lo, hi):
    width, blocks = table[2], table[3]
    out = {suffix}_at(table[1])
    for b in range(lo, hi):
        for j in lanes(0, width):
            out[j] = {identity(node.op.name, node.dtype)}
        for k in range(blocks):
            part = {suffix}_at(table[0] + k * width * {size})
            for j in lanes(0, width):
                out[j] = {combine}(out[j], part[j])
""",
    )


__all__ = ["NestText", "in_place", "name_of", "nest_launches", "traffic"]
