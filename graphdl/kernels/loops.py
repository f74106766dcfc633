"""The plan of a loop nest: what a fusion group computes where, and the arrays that it walks.

The outer loops are one index, the row; the inner ones run within it. A stage is a pass over the
row: it ends where a reduction over the row is complete and something uses it. What is computed in
one stage and needed in a later one is computed again, or kept in a row of scratch if that is dearer
than loading it (KEEP). Loops that every array walks as one are joined.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from graphdl.compiler.costs import cost_of
from graphdl.compiler.fuse import ALL, COLUMN, ROW, STRIP, Group
from graphdl.compiler.origins import (
    CHECKS,
    Axes,
    changed_view,
    counts,
    is_generator,
    is_scalar,
    through,
)
from graphdl.compiler.view import view_of
from graphdl.errors import GraphError
from graphdl.graph import Node
from graphdl.kernels.program import Address, Buffer, Word
from graphdl.ops import indexing, movement
from graphdl.ops.update import update
from graphdl.types import Dtype, contiguous_strides

#: Nanoseconds an element beyond which a value is kept for the next stage, not computed again.
KEEP = 0.8
#: A tile of an array that lies across. A cache line of float32 holds one element of each row. Of
#: 8 to 64 rows and 16 to 256 columns these took the least time, 1.4 ns an element of a transpose of
#: 1024 x 1024 (NumPy 4.0), next to 3.1 with 16 columns.
TILE_ROWS, TILE_COLUMNS = 16, 128

#: Strides of the last loop that are written into the source, where others come from the table: LLVM
#: then reads whole vectors and picks elements. exp(x[:, ::-1]) takes a fifth of the time, of every
#: other column two thirds, and of every fourth half. (A stride may come from a size: a new batch of
#: at most four, read across, can be a new kernel.)
NEAR = (1, -1, 2, 3, 4)

#: A last loop of at most REPEATED iterations along which nothing that is read changes, as of
#: np.repeat(x, 4, 1), leaves a vector empty: the loop before it runs last, if it fills vectors. Its
#: iterations write all that the short one would, of which LLVM makes whole vectors; or, where that
#: is not adjacent, the short loop runs around it, if what is read and written stays in the
#: first-level cache until that goes on.
REPEATED, FILLS, STAYS = 8, 16, 1024

#: A loop of at most SPELLED iterations, as over the coordinates of points that lie side by side, is
#: written out in an iteration of the loop over the points, which comes last, if that fills vectors.
#: LLVM then reads and writes whole vectors along strides of at most INTERLEAVED, and shuffles.
SPELLED, INTERLEAVED = 4, 8

Level = int  # 0 the kernel, 1 the row, 2 within the row


class Access(Struct, frozen=True):
    """An array seen from the loops: where it starts, and its stride along each loop dim."""

    where: Node | Buffer
    dtype: Dtype
    offset: int
    strides: tuple[int, ...]


class Loops:
    """One group: its loops, its stages, its arrays, and the words of its launch table."""

    def __init__(
        self,
        group: Group,
        stored: set[Node],
        status: Buffer,
        has_rows: bool = False,
        by_columns: bool = False,
    ) -> None:
        self.group = group
        #: Whether blocks are of columns, and each completes its sums over a few long rows.
        self.by_columns = by_columns
        self.stored = [node for node in group.members if node in stored]
        self.status = status
        self.uses_status = False
        self.words: list[Word] = []
        self.word_names: dict[str, int] = {}
        #: The windows of the pads that read an access, numbered.
        self.windows: dict[Access, dict[object, int]] = {}
        self.accesses: dict[Access, str] = {}
        self.countings: dict[Access, int] = {}
        self.member_set = set(group.members)
        self.reads: dict[Node | Buffer, None] = {}
        self.partials: dict[Node, Buffer] = {}
        self.rows: dict[Node, Access] = {}
        self.near: dict[Node, Access] = {}
        self.scratch: dict[Buffer, int] = {}  # bytes of a block
        kinds = set(group.reductions.values())
        self.has_rows = has_rows or bool(kinds & {ROW, COLUMN, STRIP})
        self.stage = self._stages()
        self.keeps = self._kept()
        self._choose_loops()

    # --- what is computed where ---------------------------------------------------------------

    def operand_axes(self, node: Node, position: int = 0) -> Axes:
        """The loops of an operand's axes."""
        if node.op.family == "reduction":
            return self.group.operand_axes[node]
        axes = self.group.axes[node]
        if node.op is indexing.gather and position == 1:
            return axes[: node.inputs[1].type.ndim]
        return axes

    def level(self, node: Node) -> Level:
        """Within the row if its value varies there, otherwise once a row.

        A loop of one iteration does not count: an axis of size one may come and go by a reshape.
        """
        inner = {d for d in self.group.inner if self.group.dims[d] != 1}
        if not self.has_rows:
            return 2
        return 2 if any(axis in inner for axis in self.group.axes[node]) else 1

    def members_of(self, node: Node) -> list[Node]:
        """The members that a member's value is made from."""
        found = []
        for position, operand in read_by(node):
            behind = through(operand, self.seen(node, position))
            if behind is not None and behind[0] in self.member_set:
                found.append(behind[0])
        return found

    def seen(self, node: Node, position: int) -> Axes:
        operand = node.inputs[position]
        axes = self.operand_axes(node, position)
        if len(axes) != operand.type.ndim:  # the array of a gather, the fill of a pad
            return (None,) * operand.type.ndim
        return axes

    def _stages(self) -> dict[Node, int]:
        stage: dict[Node, int] = {}
        for node in self.group.members:
            of = max((stage[operand] for operand in self.members_of(node)), default=0)
            stage[node] = of + (self.group.reductions.get(node) == ROW)
        return stage

    def _kept(self) -> set[Node]:
        """Members within the row that a later stage needs and that are dear to compute."""
        dear: dict[Node, float] = {}
        kept: set[Node] = set()
        for node in self.group.members:
            if self.level(node) != 2 or node in self.group.reductions:
                continue
            dear[node] = cost_of(node) + sum(dear.get(x, 0.0) for x in self.members_of(node))
        needed_later: set[Node] = set()
        for node in self.group.members:
            last = self.stage[node] - (self.group.reductions.get(node) == ROW)
            for operand in self.members_of(node):
                if operand in dear and self.stage[operand] < last:
                    needed_later.add(operand)
        # a cheap value is computed again from what it needs, which then is needed later, too
        for node in reversed(self.group.members):
            if node in needed_later:
                if dear[node] > KEEP:
                    kept.add(node)
                else:
                    needed_later.update(x for x in self.members_of(node) if x in dear)
        return kept

    # --- loops --------------------------------------------------------------------------------

    def _choose_loops(self) -> None:
        """Join loops that every array walks as one, and number what is left."""
        group = self.group
        accesses = list(self._all_accesses())
        pinned = self._pinned()
        outer, inner = list(group.outer), list(group.inner)
        self.size = dict(enumerate(group.dims))
        if not self.has_rows:
            outer, inner = [], self._in_order_of_memory([*outer, *inner], accesses)
            # a last loop of one iteration, as of x[..., i], would be all that is made of vectors
            while len(inner) > 1 and self.size[inner[-1]] == 1 and inner[-1] not in pinned:
                inner.pop()
        elif self.by_columns:
            inner = [d for d in inner if self.size[d] != 1 or d in pinned]
        repeats = self._repeats(inner, accesses, pinned)
        #: Elements that each iteration of the last loop writes side by side, all alike.
        self.copies = 1
        if repeats and self._lie_side_by_side(*inner[-2:]):
            self.copies = self.size[inner.pop()]
        elif repeats:
            inner[-2:] = inner[-1], inner[-2]
        #: A short loop that is written out in each iteration of the last one.
        self.spelled = self._spelled_out(inner, accesses, pinned)
        if self.spelled is not None:
            inner.remove(self.spelled)
        #: The iteration of it whose text is being written.
        self.turn = 0
        outer = self._collapsed(outer, accesses, pinned)
        inner = self._collapsed(inner, accesses, pinned)
        if not self.has_rows and len(inner) > 1:
            outer, inner = inner[:-1], inner[-1:]
        self.outer, self.inner = outer, inner
        #: The loop that kernels run last, and in vectors.
        self.lane = inner[-1] if inner else -1
        self.flat = not outer and not self.has_rows
        self.tile: int | None = None
        self.across: dict[Access, None] = {}
        if not repeats and self.spelled is None:
            self._choose_tile()

    def _repeats(self, loops: list[int], accesses: Sequence[Access], pinned: set[int]) -> bool:
        """Whether the last loop is short, and only repeats what is read before it: see REPEATED."""
        if self.has_rows or self.group.reductions or len(loops) < 2:
            return False
        before, last = loops[-2:]
        stores = {self.store_access(node) for node in self.stored}
        most = math.inf if self._lie_side_by_side(before, last) else STAYS
        return (
            1 < self.size[last] <= REPEATED
            and FILLS <= self.size[before] <= most
            and pinned.isdisjoint((before, last))
            and all(access in stores or access.strides[last] == 0 for access in accesses)
        )

    def _spelled_out(
        self, loops: list[int], accesses: Sequence[Access], pinned: set[int]
    ) -> int | None:
        """The short loop that is better written out in the last one of the others: see SPELLED."""
        if self.has_rows or self.group.reductions or len(loops) < 2 or self.copies != 1:
            return None
        plain = all(
            node.op.family == "pointwise"
            and node.op not in CHECKS
            and not any(map(counts, node.inputs))
            for node in self.group.members
        )
        if not plain:
            return None
        for d in reversed(loops):
            last = loops[-1] if d != loops[-1] else loops[-2]
            steps = [(access.strides[last], access.strides[d]) for access in accesses]
            if (
                1 < self.size[d] <= SPELLED
                and self.size[last] >= FILLS
                and pinned.isdisjoint((d, last))
                and all(abs(along) <= INTERLEAVED for along, _ in steps)
                and any(0 < abs(step) < abs(along) for along, step in steps)
                and any(along != step * self.size[d] for along, step in steps)
            ):
                return d
        return None

    def _lie_side_by_side(self, before: int, last: int) -> bool:
        """Whether what is stored along `last` is adjacent, and in whole lines along `before`."""
        stores = [self.store_access(node).strides for node in self.stored]
        return all(steps[last] == 1 and steps[before] == self.size[last] for steps in stores)

    def _in_order_of_memory(self, loops: list[int], accesses: Sequence[Access]) -> list[int]:
        """The loops as the first stored member lies in memory, or else the first array read.

        It is better to read across than to write across: loads need not wait for each other.
        """
        stores = [self.store_access(node) for node in self.stored]
        lead = next((access for access in (*stores, *accesses) if any(access.strides)), None)
        return sorted(loops, key=lambda d: -lead.strides[d]) if lead is not None else loops

    def _choose_tile(self) -> None:
        """Find the arrays that lie across: adjacent along an outer loop, apart along the last one.

        Their elements pass through a tile of TILE_ROWS x TILE_COLUMNS in the first-level cache,
        which the last loop then reads or writes as it does other arrays. So each cache line is
        touched once, and the loop is made of vector instructions.
        """
        if self.has_rows or not self.outer:
            return
        last = self.inner[-1]
        for access in self.plain_accesses():
            steps = access.strides
            adjacent = [d for d in self.outer if steps[d] == 1 and abs(steps[last]) > 1]
            if adjacent and self.tile in (None, adjacent[0]):
                self.tile = adjacent[0]
                self.across[access] = None
        if self.tile is not None:
            self.outer = [d for d in self.outer if d != self.tile] + [self.tile]

    @property
    def are_columns_one_loop(self) -> bool:
        """Whether the last loop is all that the sums have of their operands."""
        sums = map(self.store_access, self.group.reductions)
        return all(
            [d for d in self.inner if access.strides[d]] == [self.lane]
            and access.strides[self.lane] == 1
            for access in sums
        )

    @property
    def tiles(self) -> int:
        """How many tiles lie along the loop `tile`."""
        return -(-self.size[self.tile] // TILE_ROWS) if self.tile is not None else 0

    def _collapsed(
        self, loops: list[int], accesses: Sequence[Access], pinned: set[int]
    ) -> list[int]:
        result: list[int] = []
        for d in loops:
            if result:
                before = result[-1]
                joined = before not in pinned and d not in pinned
                if joined and all(
                    access.strides[before] == access.strides[d] * self.size[d]
                    for access in accesses
                ):
                    self.size[d] *= self.size[before]
                    result[-1] = d
                    continue
            result.append(d)
        return result

    def _pinned(self) -> set[int]:
        """Loops whose index itself is needed."""
        found: set[int] = set()
        for node in self.group.members:
            for position, operand in read_by(node):
                axes = self.seen(node, position)
                behind = through(operand, axes)
                if behind is not None and behind[0].op is movement.iota:
                    found.update(axis for axis in behind[1] if axis is not None)
            if node.op is movement.pad:
                for i, axis in enumerate(self.group.axes[node]):
                    if axis is not None and not is_whole(node, i):
                        found.add(axis)
        return found

    # --- arrays -------------------------------------------------------------------------------

    def access(self, operand: Node, axes: Axes) -> Access:
        """An operand in memory, by the loops."""
        view = view_of(operand)
        if view is None:
            raise GraphError(f"{operand!r} is no view of memory")
        strides = [0] * len(self.group.dims)
        for axis, stride in zip(axes, view.strides, strict=True):
            if axis is not None:
                strides[axis] += stride
        return Access(view.base, operand.dtype, view.offset, tuple(strides))

    def store_access(self, node: Node) -> Access:
        """Where a stored member goes: its own memory, or partial results a block."""
        kind = self.group.reductions.get(node, ROW)
        strides = [0] * len(self.group.dims)
        view = changed_view(node) if node.op is update else None
        steps = contiguous_strides(node.shape) if view is None else view.strides
        for axis, stride in zip(self.group.axes[node], steps, strict=True):
            if axis is not None:
                strides[axis] = stride
        where: Node | Buffer = node
        if kind in (ALL, COLUMN):
            where = self.partials.setdefault(node, Buffer(0, None, "partial results"))
        return Access(where, node.dtype, 0 if view is None else view.offset, tuple(strides))

    def row_access(self, node: Node) -> Access:
        """The row of scratch that a kept member lives in."""
        if node not in self.rows:
            self.rows[node] = self._scratch(node, self.group.inner, "rows kept between stages")
        return self.rows[node]

    def near_access(self, node: Node) -> Access:
        """The scratch in which a sum over a loop of the row gathers a part of its terms."""
        if node not in self.near:
            whole = self.store_access(node).strides
            kept = [d for d in self.group.inner if whole[d] != 0]
            self.near[node] = self._scratch(node, kept, "parts of sums")
        return self.near[node]

    def _scratch(self, node: Node, dims: Sequence[int], purpose: str) -> Access:
        """Scratch that each block has of its own, with the loops `dims`."""
        shape = tuple(self.group.dims[d] for d in dims)
        strides = [0] * len(self.group.dims)
        for d, stride in zip(dims, contiguous_strides(shape), strict=True):
            strides[d] = stride
        buffer = Buffer(0, None, purpose)
        self.scratch[buffer] = math.prod(shape) * node.dtype.itemsize
        return Access(buffer, node.dtype, 0, tuple(strides))

    def _all_accesses(self) -> Iterable[Access]:
        yield from self.plain_accesses()
        for node in self.group.members:
            if node.op is indexing.gather:
                yield self.gathered(node)
            if node.op is movement.pad and self._is_read(node, 0, node.inputs[0]):
                yield self.padded(node)
            for position, operand in read_by(node):
                if counts(operand):
                    yield self.access(operand, self.seen(node, position))

    def plain_accesses(self) -> Iterable[Access]:
        """Those whose address is a sum of strides."""
        for node in self.group.members:
            for position, operand in read_by(node):
                moved = node.op in (indexing.gather, movement.pad) and position == 0
                if not moved and self._is_read(node, position, operand):
                    yield self.access(operand, self.seen(node, position))
            if node in self.stored:
                yield self.store_access(node)
            if node in self.keeps and node not in self.stored:
                yield self.row_access(node)

    def _is_read(self, node: Node, position: int, operand: Node) -> bool:
        behind = through(operand, self.seen(node, position))
        if behind is None:
            return not counts(operand)
        base = behind[0]
        return not (base in self.member_set or is_generator(base) or is_scalar(base))

    def gathered(self, node: Node) -> Access:
        """The array of a gather without its first axis, which the index chooses."""
        x, index = node.inputs
        view = view_of(x)
        assert view is not None
        strides = [0] * len(self.group.dims)
        rest = self.group.axes[node][index.type.ndim :]
        for axis, stride in zip(rest, view.strides[1:], strict=True):
            if axis is not None:
                strides[axis] += stride
        return Access(view.base, x.dtype, view.offset, tuple(strides))

    def padded(self, node: Node) -> Access:
        """The array inside a pad, from the loops of the padded one; along axes of step one."""
        x = node.inputs[0]
        view = view_of(x)
        assert view is not None
        strides = [0] * len(self.group.dims)
        offset = view.offset
        for i, (axis, stride) in enumerate(zip(self.group.axes[node], view.strides, strict=True)):
            if axis is None:
                continue
            if node["steps"][i] == 1:
                strides[axis] += stride
                offset -= node["starts"][i] * stride
        return Access(view.base, x.dtype, offset, tuple(strides))

    # --- the table ----------------------------------------------------------------------------

    def word(self, name: str, value: Word) -> str:
        """The name of a word of the table, `table[n]` assigned at the top of the kernel."""
        if name not in self.word_names:
            self.word_names[name] = len(self.words)
            self.words.append(value)
        return name

    def counting(self, access: Access, index: Mapping[int, str]) -> str:
        """The number that an iota, seen from the loops, holds at `index`, as text."""
        number = self.countings.setdefault(access, len(self.countings))
        terms = [self.word(f"first{number}", access.offset)] if access.offset else []
        for d, place in index.items():
            stride = access.strides[d] if d >= 0 else 0
            if stride == 1 and d == self.inner[-1]:
                terms.append(place)
            elif stride:
                terms.append(f"{place} * {self.word(f'jump{number}_{d}', stride)}")
        return f"to_{access.dtype}(i64({' + '.join(terms) or '0'}))"

    def array(self, access: Access) -> str:
        """The number of an access, as text."""
        if access not in self.accesses:
            self.accesses[access] = str(len(self.accesses))
            n = self.accesses[access]
            offset = access.offset * access.dtype.itemsize
            self.word(f"at{n}", Address(access.where, offset))
        return self.accesses[access]

    def window(self, access: Access, window: object) -> str:
        """What the words of a pad's window end in."""
        at, known = self.array(access), self.windows.setdefault(access, {})
        number = known.setdefault(window, len(known))
        return f"{at}w{number}" if number else at

    def stride(self, access: Access, d: int) -> str:
        """A stride in elements, as text: 0, a near one of the last loop, or the name of a word."""
        value = access.strides[d]
        if value == 0:
            return "0"
        is_near = value in NEAR or value == self.copies or self.spelled is not None
        if d == self.lane and is_near:
            return str(value)
        return self.word(f"s{self.array(access)}_{d}", value)

    def loop_size(self, d: int) -> str:
        return self.word(f"n{d}", self.size[d])


def read_by(node: Node) -> Iterable[tuple[int, Node]]:
    """The operands whose elements a kernel reads, and their positions.

    What an `update` leaves as it is, the kernel does not touch.
    """
    skipped = int(node.op is update)
    return enumerate(node.inputs[skipped:], skipped)


def is_whole(node: Node, axis: int) -> bool:
    """Whether a pad leaves an axis as it is."""
    return node.shape[axis] == node.inputs[0].shape[axis] and node["steps"][axis] == 1
