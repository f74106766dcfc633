"""The launch of a loop nest: how its rows are cut into blocks, its table, and what it moves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from msgspec.structs import replace

from graphdl import machine
from graphdl.compiler.costs import cost_of, work
from graphdl.compiler.fuse import ALL, COLUMN, ROW, STRIP, Group
from graphdl.compiler.origins import CHECKS, origins
from graphdl.compiler.view import view_of
from graphdl.graph import Node
from graphdl.kernels.body import COMBINE, SUFFIX, identity
from graphdl.kernels.loops import TILE_ROWS, Loops
from graphdl.kernels.nest import PART_OF_LOOP, NestText, is_widened
from graphdl.kernels.program import Address, Buffer, Launch, Word
from graphdl.kernels.replace import kept_launches
from graphdl.kernels.short_rows import ShortRowsText, has_short_rows
from graphdl.kernels.source import KernelSource
from graphdl.ops import pointwise
from graphdl.ops.update import update
from graphdl.types import kind_of

#: Elements of a block: at most so many that the rows of a multi-pass kernel stay in the second
#: level of cache, at least so many that starting a block (some ns) does not count, and in between
#: so many that a block takes about BLOCK_TIME nanoseconds.
BLOCK, SMALLEST_BLOCK, BLOCK_TIME = 16384, 1024, 20_000
#: At most so many blocks leave partial results, or more, each of as many rows: their sums cost
#: a pass over that many values. Blocks of fewer rows make sums over many rows more accurate.
MOST_PARTIALS, MOST_PARTIALS_OF_MANY = 64, 1024
#: A block has so many elements for each partial result that it leaves, if so many blocks are left:
#: the partial results of wide columns are written and read once more.
OF_A_PARTIAL, FEWEST_PARTIALS = 16, 16
#: Columns whose partial results an iteration of the last kernel sums: pieces of rows, which are a
#: power of 2 apart as often as not, so that short ones meet in few sets of the cache.
FINISHED = 256
#: Few rows of at least WIDE elements are summed in blocks of COLUMNS, whose sums stay in the first
#: level of cache.
WIDE, COLUMNS = 4096, 2048


def _is_wide(group: Group, stored: set[Node]) -> bool:
    """Whether a nest sums a few long rows, as np.mean([x, y, z], 0) does.

    Blocks of rows would leave a partial result for nearly each of them.
    """
    rows = math.prod(group.dims[d] for d in group.outer)
    everything = len(group.dims)
    return (
        set(group.reductions.values()) == {COLUMN}
        and 0 < rows <= PART_OF_LOOP
        and math.prod(group.dims[d] for d in group.inner) >= WIDE
        and all(
            node.op.family in ("pointwise", "reduction") and node.op not in CHECKS
            for node in group.members
        )
        and all(
            node in group.reductions or len(set(group.axes[node]) - {None}) == everything
            for node in group.members
            if node in stored
        )
    )


def _by_columns(group: Group) -> Group:
    """The nest whose blocks are of columns: each walks all rows, and completes its sums."""
    return replace(
        group,
        outer=(),
        inner=(*group.outer, *group.inner),
        reductions=dict.fromkeys(group.reductions, STRIP),
    )


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
    if loops.by_columns:
        total, unit = loops.size[loops.lane], COLUMNS
    blocks = -(-total // unit)
    bounded = leaves_partials or loops.keeps
    most = MOST_PARTIALS
    if not loops.keeps:
        most = max(most, min(MOST_PARTIALS_OF_MANY, total // most))
    if bounded and blocks > most:
        unit = -(-total // most)
        if loops.flat:
            unit = -(-unit // 64) * 64
        blocks = -(-total // unit)
    if leaves_partials and not loops.flat:
        left = sum(node.type.size for node in loops.partials)
        least = OF_A_PARTIAL * left // max(row * len(loops.partials), 1)
        unit = max(unit, min(least, -(-total // FEWEST_PARTIALS)))
        blocks = -(-total // unit)
    if leaves_partials:
        blocks = max(blocks, 1)
    body = (ShortRowsText if has_short_rows(loops) else NestText)(loops)
    text = body.text(total, unit)
    head = ["def kernel(table, lo, hi):"]
    head += [f"    {name} = table[{i}]" for name, i in loops.word_names.items()]
    source = KernelSource(name_of(loops.group.members), "\n".join([*head, *text]) + "\n")
    sizes: dict[Buffer, int] = {}
    for node, buffer in loops.partials.items():
        sizes[buffer] = blocks * node.type.nbytes
    for buffer, nbytes in loops.scratch.items():
        sizes[buffer] = blocks * nbytes
    elements = math.prod(loops.size[d] for d in (*loops.outer, *loops.inner)) * loops.copies
    if loops.spelled is not None:
        elements *= loops.size[loops.spelled]
    return launch_of(loops, source, blocks, elements, sizes)


def block_size(group: Group) -> int:
    """Elements of a block: fewer where an element is dear, so that there is work to share."""
    cost = sum(cost_of(node) for node in group.members)
    return max(SMALLEST_BLOCK, min(BLOCK, int(BLOCK_TIME / max(cost, 1e-3)) // 64 * 64))


def name_of(nodes: Sequence[Node]) -> str:
    """What a kernel is called, after the first of the operations that it does."""
    guarded = any(n.op in (pointwise.guard, pointwise.watch) for n in nodes)
    names = [
        n.op.name
        for n in nodes
        if n.op.name not in ("copy", "cast", "guard", "watch")
        and not (guarded and kind_of(n.dtype) == "b")  # the conditions
    ]
    short = list(dict.fromkeys(names))[:4] or ["copy"]
    return "_".join(short)


def launch_of(
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
    moved = traffic(loops, elements)
    cost = elements * work(loops.group.members) + moved * machine.current().memory_byte
    pairs = tuple(in_place(loops))
    return Launch(
        source,
        words,
        blocks,
        cost,
        reads,
        tuple(writes),
        pairs,
        loops.group.members,
        moved,
        elements * len(loops.group.members),
        spare=tuple(dict.fromkeys(spare)),
        moves=all(node.op.name == "copy" for node in loops.group.members)
        and all(_is_copy(written, read) for written, read in pairs),
    )


def _is_copy(node: Node, memory: Node) -> bool:
    """Whether a `copy` has what lies in `memory`, and not what is computed from it."""
    view = view_of(node.inputs[0])
    return view is not None and view.base is memory


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

    Within a pass all loads of an element come before its stores; what is stored in the last stage
    comes after all passes of the stages before. What is stored once a row comes before loads of
    that row's pass: then there may be none, and whatever reads the array comes before the store.
    """
    last = max(loops.stage.values(), default=0) if loops.has_rows else 0
    for node in loops.stored:
        once = loops.has_rows and loops.level(node) == 1
        if node in loops.group.reductions or loops.stage[node] != last:
            continue
        if once and _passes(loops, last):
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
                and not (once and _is_read_after(node, other, loops))
            ):
                yield node, other


def _passes(loops: Loops, stage: int) -> bool:
    """Whether rows are walked in a stage: something varies within them, or is summed."""
    kinds = loops.group.reductions
    return any(
        at == stage and (loops.level(node) == 2 or kinds.get(node, ROW) != ROW)
        for node, at in loops.stage.items()
    )


def _is_read_after(node: Node, array: Node, loops: Loops) -> bool:
    """Whether a member that comes after `node` reads an array."""
    members = loops.group.members
    return any(
        array in origins(operand)
        for member in members[members.index(node) + 1 :]
        for operand in member.inputs
    )


def _loops(group: Group, stored: set[Node], status: Buffer) -> Loops:
    if _is_wide(group, stored):
        loops = Loops(_by_columns(group), stored, status, by_columns=True)
        if loops.are_columns_one_loop:
            return loops
    return Loops(group, stored, status)


def nest_launches(group: Group, stored: set[Node], status: Buffer) -> list[Launch]:
    """The launches of a group of loops: the nest, then the sums of its blocks' partial results."""
    loops = _loops(group, stored, status)
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
    moved = launch.iterations * node.type.nbytes
    return Launch(
        _finish_source(node),
        words,
        -(-node.type.size // FINISHED),
        launch.iterations * node.type.size * 0.3,
        (loops.partials[node],),
        (node,),
        (),
        (node,),
        moved,
    )


def _finish_source(node: Node) -> KernelSource:
    """FINISHED columns an iteration; sums of float32 stay in float64 until they are complete."""
    suffix, size = SUFFIX[node.dtype], node.dtype.itemsize
    wide, part, result = node.dtype, "part[j]", "total[j]"
    if is_widened(node):
        wide, part, result = np.dtype(np.float64), f"to_float64({part})", f"to_float32({result})"
    return KernelSource(
        f"finish_{node.op.name}",
        f"""def kernel(table, lo, hi):
    width, blocks = table[2], table[3]
    total = {SUFFIX[wide]}_scratch({FINISHED})
    for b in range(lo, hi):
        first = b * {FINISHED}
        count = min_i64({FINISHED}, width - first)
        out = {suffix}_at(table[1] + first * {size})
        for j in few_lanes(0, count):
            total[j] = {identity(node.op.name, wide)}
        for k in range(blocks):
            part = {suffix}_at(table[0] + (k * width + first) * {size})
            for j in few_lanes(0, count):
                total[j] = {COMBINE[node.op.name]}(total[j], {part})
        for j in few_lanes(0, count):
            out[j] = {result}
""",
    )


__all__ = ["NestText", "in_place", "launch_of", "name_of", "nest_launches", "traffic"]
