"""The text of a nest whose rows are short: many rows at once, one in each lane.

    for first in range(start, stop, LANES)
        tile[i, j] = x[first + j, i]
        stage 0, 1, ...
            for i in the row
                for j in lanes       the rows first + j, which LLVM vectorises
        y[first + j, i] = tile[i, j]

A row of ten numbers leaves lanes of a vector empty, and a sum along it goes from lane to lane. With
many rows side by side no lane is empty, and what a row has once is a number a lane, kept in scratch
between the stages. Arrays pass through tiles in the first-level cache, which lie across: loads that
step from row to row would be gathers, which are slow where processors are mended against Downfall.
"""

from __future__ import annotations

from collections.abc import Callable

from graphdl.compiler.fuse import ALL, COLUMN, ROW
from graphdl.compiler.origins import counts
from graphdl.graph import Node
from graphdl.kernels.body import SUFFIX, identity
from graphdl.kernels.loops import Access, Loops
from graphdl.kernels.nest import Lines, NestText
from graphdl.kernels.program import Buffer
from graphdl.ops import contraction, indexing, movement
from graphdl.ops.update import update

#: Rows that are taken at once.
LANES = 64
#: Rows of more elements are walked one after the other: they fill vectors by themselves.
SHORT = 16

_KINDS = frozenset({ROW, COLUMN, ALL})
_NOT_HERE = (indexing.gather, indexing.position, movement.pad, update)


def has_short_rows(loops: Loops) -> bool:
    """Whether the rows of a nest are better taken side by side."""
    group = loops.group
    return (
        ROW in group.reductions.values()
        and len(loops.outer) == len(loops.inner) == 1
        and 1 < loops.size[loops.inner[0]] <= SHORT
        and _KINDS.issuperset(group.reductions.values())
        and all(
            node.op.family in ("pointwise", "reduction")
            and node.op not in _NOT_HERE
            and node.op.name not in ("argmax", "argmin")
            and not any(counts(operand) for operand in node.inputs)
            for node in group.members
        )
        and not _follows_product(loops)
    )


def _follows_product(loops: Loops) -> bool:
    """Whether the rows are computed from a matrix product, as the ten logits of a network are.

    Then most of the time is the product's, and the 0.15 s that tiles add to the start are not worth
    what they save.
    """
    pending = [access.where for access in loops.plain_accesses()]
    seen: set[Node | Buffer] = set()
    while pending:
        value = pending.pop()
        if isinstance(value, Buffer) or value in seen:
            continue
        seen.add(value)
        if value.op is contraction.contract:
            return True
        if value.op.family in ("pointwise", "movement"):
            pending += value.inputs
    return False


class ShortRowsText(NestText):
    """The lines of such a nest. The lane `j` counts rows, and `i` the elements of each."""

    def __init__(self, nest: Loops) -> None:
        super().__init__(nest)
        (nest.lane,), (self.along,) = nest.outer, nest.inner
        self.lane = nest.lane
        nest.scratch.clear()  # what one stage keeps for another is in the lanes' own memory
        self.kept: dict[Node, Access] = {}
        self.tiles: dict[Access, str] = {}

    def _rows(self) -> None:
        nest, out = self.nest, self.out
        out.add(f"for first in range(start, stop, {LANES}):")
        out.depth += 1
        out.add(f"some = min_i64({LANES}, stop - first)")
        mark = len(out.lines)
        self._stages({self.lane: "j"})
        stages = out.lines[mark:]
        del out.lines[mark:]
        stored = {nest.store_access(node) for node in nest.stored}
        kept = set(self.kept.values())
        for access, name in self.tiles.items():
            if access not in stored and access not in kept:
                self._carry_row(access, name, to_lanes=True)
        out.lines += stages
        for access, name in self.tiles.items():
            if access in stored:
                self._carry_row(access, name, to_lanes=False)
        out.depth -= 1

    def _carry_row(self, access: Access, tile: str, to_lanes: bool) -> None:
        """Between a tile and the rows of an array."""
        nest, out = self.nest, self.out
        suffix = SUFFIX[access.dtype]
        size = nest.loop_size(self.along)
        stride = nest.word(f"s{nest.array(access)}_{self.lane}", access.strides[self.lane])
        index = {self.lane: "first"}
        if access.strides[self.along] == 1 and access.dtype.itemsize >= 4:
            rows = f"{suffix}_at({super()._address(access, index)})"
            name = f"{suffix}_to_lanes" if to_lanes else f"{suffix}_from_lanes"
            out.add(f"{name}({tile}, {LANES}, {rows}, {stride}, some, {size})")
            return
        pair = f"{tile}[i * {LANES} + j]", f"across[j * {stride}]"
        target, source = pair if to_lanes else reversed(pair)
        out.add(f"for i in range({size}):")
        out.add(f"    across = {suffix}_at({super()._address(access, index | {self.along: 'i'})})")
        out.add("    for j in lanes(0, some):")
        out.add(f"        {target} = {source}")

    def _row_members(self, nodes: list[Node], index: dict[int, str]) -> None:
        """What rows have once, computed for all of them in a loop of its own."""

        def lines() -> None:
            super(ShortRowsText, self)._row_members(nodes, index)
            for node in nodes:
                if node in self.row_names:
                    name = self._scratch(node)
                    self.out.add(f"{name} = {self.row_names[node]}")
                    self.row_names[node] = name

        self._in_lanes(lines)

    def _in_lanes(self, write: Callable[[], None]) -> None:
        """A loop over the rows with the lines that `write` adds; nothing if it adds none."""
        out = self.out
        mark = len(out.lines)
        self.before, self.after = [], []
        out.depth += 1
        write()
        body = out.lines[mark:]
        del out.lines[mark:]
        out.depth -= 1
        if body:
            for line in (*self.before, "for j in few_lanes(0, some):"):
                out.add(line)
            out.lines += body
        for line in self.after:
            out.add(line)

    def _scratch(self, node: Node) -> str:
        """An element of new scratch memory: a number for each lane."""
        name = self.name("row")
        self.prelude.append(f"{name} = {SUFFIX[node.dtype]}_scratch({LANES})")
        return f"{name}[j]"

    def _pass(
        self,
        stage: int,
        index: dict[int, str],
        rows: dict[Node, str],
        start: str | None,
        stop: str | None,
    ) -> None:
        out = self.out
        self.is_long, self.bad, self.fills = False, {}, Lines()
        totals = {node: self._scratch(node) for node in rows}

        def clear() -> None:
            for node, name in totals.items():
                out.add(f"{name} = {identity(node.op.name, node.dtype)}")

        def store() -> None:
            for node in totals:
                self._store_row(node, index)

        self._in_lanes(clear)
        mark = len(out.lines)
        out.add(f"for i in range({self.nest.loop_size(self.along)}):")
        out.depth += 1
        within = index | {self.along: "i"}
        self._in_lanes(lambda: self._stage_members(stage, within, {}, totals))
        out.depth -= 1
        clears = [f"{'    ' * out.depth}{name} = 0" for name in self.bad.values()]
        out.lines[mark:mark] = clears
        for code, name in self.bad.items():
            self._note(name, code)
        self.row_names |= totals
        self._in_lanes(store)

    def _store_row(self, node: Node, index: dict[int, str]) -> None:
        if node in self.nest.stored and self.group.reductions.get(node, ROW) == ROW:
            access = self.nest.store_access(node)
            self.out.add(f"{self._element(access, index)} = {self.row_names[node]}")

    # --- memory -------------------------------------------------------------------------------

    def _home(self, node: Node) -> Access:
        if node in self.nest.stored:
            return self.nest.store_access(node)
        if node not in self.kept:
            steps = tuple(int(d in (self.along, self.lane)) for d in range(len(self.group.dims)))
            self.kept[node] = Access(Buffer(0, None, "lanes"), node.dtype, 0, steps)
        return self.kept[node]

    def _element(self, access: Access, index: dict[int, str], base: str | None = None) -> str:
        if not (access.strides[self.lane] and access.strides[self.along]):
            return super()._element(access, index, base)
        if access not in self.tiles:
            is_kept = access in self.kept.values()
            name = self.name("kept") if is_kept else f"tile{self.nest.array(access)}"
            self.prelude.append(f"{name} = {SUFFIX[access.dtype]}_scratch({SHORT * LANES})")
            self.tiles[access] = name
        return f"{self.tiles[access]}[i * {LANES} + j]"

    def _address(
        self,
        access: Access,
        index: dict[int, str],
        base: str | None = None,
        exclude: int | None = None,
    ) -> str:
        from_first = {d: "first" if place == "j" else place for d, place in index.items()}
        return super()._address(access, from_first, base, exclude)

    def _index_text(self, axis: int | None, index: dict[int, str]) -> str:
        return "i64(first + j)" if axis == self.lane else super()._index_text(axis, index)
