"""Which row and which x: a layered drawing of an acyclic graph, from the top down.

The method of Sugiyama, Tagawa and Toda, "Methods for Visual Understanding of Hierarchical System
Structures", IEEE Transactions on Systems, Man, and Cybernetics 11 (1981), in four steps: give every
box a row; put a bend into each row that an edge passes; order the rows so that few edges cross;
choose positions that keep edges straight and boxes apart. Nothing in it is random, so the same
graph gives the same picture.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from math import inf
from typing import NamedTuple

from msgspec import Struct

COLUMN_GAP = 18.0
BEND_WIDTH = 8.0
#: Between two edges that pass a row: many side by side are one bundle.
BEND_GAP = 2.0
#: How much more a bend wants to stand straight than a box: long edges bend least.
BEND_WEIGHT = 4.0
#: Sweeps over the rows that order them, and that move what is in them.
ORDER_SWEEPS = 12
POSITION_SWEEPS = 24
#: With more boxes and bends than this, half as many sweeps: the later ones gain little.
LARGE = 800


class Edge(NamedTuple):
    """From one box to a later one; edges of one net share their bends."""

    tail: int
    head: int
    net: object


class Layers(Struct, frozen=True):
    """rank: the row of each box. xs: its middle. bends: the x in each row that an edge passes."""

    rank: Sequence[int]
    xs: Sequence[float]
    bends: Mapping[Edge, Sequence[float]]
    rows: int
    width: float


def layered(
    widths: Sequence[float],
    edges: Sequence[Edge],
    top: Collection[int] = (),
    bottom: Collection[int] = (),
    longest: int | None = None,
    widest: float | None = None,
) -> Layers:
    """Rows and positions of boxes.

    Args:
        widths: of the boxes, in topological order.
        edges: from earlier to later boxes.
        top, bottom: boxes that take the first and the last row, which no other box then does.
        widest: pieces without an edge between them stand below each other, as far as they would be
            wider than this side by side; and a row that is wider becomes several.
        longest: edges over more rows than this have no bends: they are to go another way.
    """
    edges = tuple(dict.fromkeys(edges))
    rank = ranks(len(widths), edges, top, bottom)
    if widest is not None:
        rank = _narrowed(rank, widths, edges, top, bottom, widest)
        rank = _shelved(rank, widths, edges, top, bottom, widest)
    if longest is not None:
        edges = tuple(edge for edge in edges if rank[edge.head] - rank[edge.tail] <= longest)
    chains, levels = _bend(rank, edges)
    count = len(widths) + len(levels)
    level = [*rank, *levels]
    above: list[list[int]] = [[] for _ in range(count)]
    below: list[list[int]] = [[] for _ in range(count)]
    for segment in dict.fromkeys(pair for chain in chains for pair in pairwise(chain)):
        below[segment[0]].append(segment[1])
        above[segment[1]].append(segment[0])
    sweeps = (ORDER_SWEEPS, POSITION_SWEEPS)
    if count > LARGE:
        sweeps = (ORDER_SWEEPS // 2, POSITION_SWEEPS // 2)
    layers = _ordered(_layers(level, below), above, below, sweeps[0])
    sizes = [*widths, *(BEND_WIDTH for _ in levels)]
    weights = [1.0] * len(widths) + [BEND_WEIGHT] * len(levels)
    xs = _positions(layers, above, below, sizes, weights, len(widths), sweeps[1], widest)
    left = min((x - w / 2 for x, w in zip(xs, sizes, strict=True)), default=0.0)
    right = max((x + w / 2 for x, w in zip(xs, sizes, strict=True)), default=0.0)
    xs = [x - left for x in xs]
    bends = {e: [xs[i] for i in c[1:-1]] for e, c in zip(edges, chains, strict=True)}
    return Layers(rank, xs[: len(widths)], bends, len(layers), right - left)


def ranks(
    count: int, edges: Sequence[Edge], top: Collection[int] = (), bottom: Collection[int] = ()
) -> list[int]:
    """The longest way from the top; then what costs no length moves down to its users.

    That is a box with more users than operands, where an operand with other users does not count,
    because they share its edge; and a tree that hangs on one user: whatever is computed from inputs
    that nothing else needs belongs to the box that needs it.
    """
    above: list[list[int]] = [[] for _ in range(count)]
    below: list[list[int]] = [[] for _ in range(count)]
    for tail, head, _ in edges:
        above[head].append(tail)
        below[tail].append(head)
    first = 1 if top else 0
    rank = [0] * count
    hangs = [False] * count
    for key in range(count):
        if key not in top:
            rank[key] = max((rank[tail] + 1 for tail in above[key]), default=first)
        hangs[key] = key not in top and all(
            hangs[tail] and len(below[tail]) == 1 for tail in above[key]
        )
    last = max((rank[key] for key in range(count) if key not in bottom), default=-1) + 1
    for key in bottom:
        rank[key] = last
    for key in reversed(range(count)):
        if key in top or key in bottom or not below[key]:
            continue
        own = sum(len(below[tail]) == 1 for tail in above[key])
        if hangs[key] or len(below[key]) > own:
            rank[key] = min(rank[head] for head in below[key]) - 1
    return rank


def _narrowed(
    rank: list[int],
    widths: Sequence[float],
    edges: Sequence[Edge],
    top: Collection[int],
    bottom: Collection[int],
    widest: float,
) -> list[int]:
    """The rows, where those of a piece that are too wide are several.

    First what waits in such a row for a later user moves down to it, as the terms of a long sum do;
    what is left is broken like a line of text.
    """
    piece = _pieces(len(rank), edges)
    fixed = {*top, *bottom}
    wide = _too_wide(rank, widths, piece, fixed, widest)
    if not wide:
        return rank
    sunk = list(rank)
    below: list[list[int]] = [[] for _ in rank]
    for tail, head, _ in edges:
        below[tail].append(head)
    for key in reversed(range(len(rank))):
        if (piece[key], rank[key]) in wide and below[key] and key not in fixed:
            sunk[key] = min(sunk[head] for head in below[key]) - 1
    first = 1 if top else 0
    members: dict[int, dict[int, list[int]]] = {}
    for key in range(len(rank)):
        if key not in fixed:
            members.setdefault(piece[key], {}).setdefault(sunk[key], []).append(key)
    narrow = list(rank)
    broken = {root for root, _ in wide}
    for root, rows in members.items():
        if root not in broken:
            continue
        at = first - 1
        for row in sorted(rows):
            at, filled = at + 1, 0.0
            for key in rows[row]:
                width = widths[key] + COLUMN_GAP
                if filled and filled + width > widest:
                    at, filled = at + 1, 0.0
                narrow[key] = at
                filled += width
    last = max((narrow[key] for key in range(len(rank)) if key not in bottom), default=-1) + 1
    for key in bottom:
        narrow[key] = last
    return narrow


def _too_wide(
    rank: Sequence[int],
    widths: Sequence[float],
    piece: Sequence[int],
    fixed: Collection[int],
    widest: float,
) -> set[tuple[int, int]]:
    """The rows of pieces that are wider than they should be."""
    width: dict[tuple[int, int], float] = {}
    for key, row in enumerate(rank):
        if key not in fixed:
            at = piece[key], row
            width[at] = width.get(at, 0.0) + widths[key] + COLUMN_GAP
    return {at for at, found in width.items() if found > widest}


def _shelved(
    rank: list[int],
    widths: Sequence[float],
    edges: Sequence[Edge],
    top: Collection[int],
    bottom: Collection[int],
    widest: float,
) -> list[int]:
    """The rows, where pieces that would be too wide side by side stand on several shelves."""
    piece = _pieces(len(rank), edges)
    members: dict[int, list[int]] = {}
    for key in range(len(rank)):
        members.setdefault(piece[key], []).append(key)
    fixed = {piece[key] for key in (*top, *bottom)}
    first = 1 if top else 0
    start = depth = first
    filled = 0.0
    shelved = list(rank)
    for root, keys in members.items():
        row_width: dict[int, float] = {}
        for key in keys:
            row_width[rank[key]] = row_width.get(rank[key], 0.0) + widths[key] + COLUMN_GAP
        width = max(row_width.values())
        rows = max(rank[key] for key in keys) - first + 1
        if root not in fixed:
            if filled and filled + width > widest:
                start, filled = depth, 0.0
            for key in keys:
                shelved[key] = rank[key] - first + start
        depth = max(depth, start + rows if root not in fixed else first + rows)
        filled += width
    last = max((shelved[key] for key in range(len(rank)) if key not in bottom), default=-1) + 1
    for key in bottom:
        shelved[key] = last
    return shelved


def _pieces(count: int, edges: Sequence[Edge]) -> list[int]:
    """The first member of the connected piece of each box."""
    root = list(range(count))

    def find(key: int) -> int:
        while root[key] != key:
            root[key] = root[root[key]]
            key = root[key]
        return key

    for tail, head, _ in edges:
        a, b = find(tail), find(head)
        root[max(a, b)] = min(a, b)
    return [find(key) for key in range(count)]


def _bend(rank: Sequence[int], edges: Sequence[Edge]) -> tuple[list[tuple[int, ...]], list[int]]:
    """A bend in each row between the ends of an edge: the chains, and the rows of the bends."""
    levels: list[int] = []
    shared: dict[tuple[object, int], int] = {}
    chains: list[tuple[int, ...]] = []
    for tail, head, net in edges:
        chain = [tail]
        for level in range(rank[tail] + 1, rank[head]):
            key = (net, level)
            if key not in shared:
                shared[key] = len(rank) + len(levels)
                levels.append(level)
            chain.append(shared[key])
        chains.append((*chain, head))
    return chains, levels


def _layers(level: Sequence[int], below: Sequence[Sequence[int]]) -> list[list[int]]:
    """A first order: depth first, so that what belongs together starts together."""
    layers: list[list[int]] = [[] for _ in range(max(level, default=-1) + 1)]
    seen = [False] * len(level)
    for root in sorted(range(len(level)), key=lambda key: (level[key], key)):
        stack = [root]
        while stack:
            key = stack.pop()
            if not seen[key]:
                seen[key] = True
                layers[level[key]].append(key)
                stack.extend(reversed(below[key]))
    return layers


def _ordered(
    layers: list[list[int]],
    above: Sequence[Sequence[int]],
    below: Sequence[Sequence[int]],
    sweeps: int,
) -> list[list[int]]:
    """Sort each row by the mean place of its neighbours, down and up; keep the best order."""
    best, fewest = [list(layer) for layer in layers], _crossings(layers, below)
    place = [0.0] * len(above)
    for layer in layers:
        for index, key in enumerate(layer):
            place[key] = float(index)
    for sweep in range(sweeps):
        if fewest == 0:
            break
        down = sweep % 2 == 0
        neighbours = above if down else below
        for layer in layers[1:] if down else layers[-2::-1]:
            wanted = {
                key: sum([place[other] for other in near]) / len(near) if near else place[key]
                for key in layer
                for near in [neighbours[key]]
            }
            layer.sort(key=wanted.__getitem__)
            for index, key in enumerate(layer):
                place[key] = float(index)
        count = _crossings(layers, below)
        if count < fewest:
            best, fewest = [list(layer) for layer in layers], count
    return best


def _crossings(layers: Sequence[Sequence[int]], below: Sequence[Sequence[int]]) -> int:
    total = 0
    for upper, lower in pairwise(layers):
        place = {key: i for i, key in enumerate(lower)}
        passed: list[int] = []
        for key in upper:
            ends = sorted([place[head] for head in below[key]])
            for end in ends:
                total += len(passed) - bisect_right(passed, end)
            for end in ends:
                insort(passed, end)
    return total


def _positions(
    layers: Sequence[Sequence[int]],
    above: Sequence[Sequence[int]],
    below: Sequence[Sequence[int]],
    widths: Sequence[float],
    weights: Sequence[float],
    boxes: int,
    sweeps: int,
    widest: float | None,
) -> list[float]:
    """Move everything towards its neighbours, as far as the order and the widths allow.

    What is numbered from `boxes` on are bends. Nothing moves further apart than `widest`, or than
    the row that needs most: else a long sum would stand on a slope.
    """
    xs = [0.0] * len(widths)
    offsets: list[list[float]] = []
    for layer in layers:
        offset, found = 0.0, []
        for index, key in enumerate(layer):
            if index:
                before = layer[index - 1]
                gap = BEND_GAP if before >= boxes and key >= boxes else COLUMN_GAP
                offset += (widths[before] + widths[key]) / 2 + gap
            found.append(offset)
        offsets.append(found)
        middle = offset / 2
        for key, offset in zip(layer, found, strict=True):
            xs[key] = offset - middle
    above, below = _trunks(above, boxes), _trunks(below, boxes)
    both = [[*a, *b] for a, b in zip(above, below, strict=True)]
    ends = [
        (widths[layer[0]] / 2, found[-1] + widths[layer[-1]] / 2)
        for layer, found in zip(layers, offsets, strict=True)
    ]
    needed = max((left + right for left, right in ends), default=0.0)
    half = inf if widest is None else max(needed, widest) / 2
    bounds = [(left - half, half - right) for left, right in ends]
    rows = list(zip(layers, offsets, bounds, strict=True))
    for sweep in range(sweeps):
        down = sweep % 2 == 0
        near = both if sweep >= sweeps // 2 else above if down else below
        for layer, offset_of, within in rows if down else reversed(rows):
            wanted = [
                sum([xs[other] for other in near[key]]) / len(near[key]) if near[key] else xs[key]
                for key in layer
            ]
            moved = _apart(layer, wanted, offset_of, weights, within)
            for key, x in zip(layer, moved, strict=True):
                xs[key] = x
    return xs


def _trunks(neighbours: Sequence[Sequence[int]], boxes: int) -> list[Sequence[int]]:
    """A bend looks to the next bend of its net, so that branches leave a trunk that is straight.

    With its branches it would move towards them, and what follows with it: row by row a little
    further to the side.
    """
    trunks = [[key for key in near if key >= boxes] for near in neighbours[boxes:]]
    kept = zip(trunks, neighbours[boxes:], strict=True)
    return [*neighbours[:boxes], *(trunk or near for trunk, near in kept)]


def _apart(
    layer: Sequence[int],
    wanted: Sequence[float],
    offsets: Sequence[float],
    weights: Sequence[float],
    within: tuple[float, float],
) -> list[float]:
    """The positions nearest to those wanted that keep the order and the gaps.

    Least squares under an order: with the gaps subtracted it is isotonic regression, which the
    pool-adjacent-violators algorithm solves in one pass. With bounds for all it is the same, cut.
    """
    low, high = within
    pools: list[tuple[float, float, int]] = []  # (mean, weight, members)
    for key, want, offset in zip(layer, wanted, offsets, strict=True):
        mean, weight, members = want - offset, weights[key], 1
        while pools and pools[-1][0] > mean:
            left_mean, left_weight, left_members = pools.pop()
            mean = (mean * weight + left_mean * left_weight) / (weight + left_weight)
            weight, members = weight + left_weight, members + left_members
        pools.append((mean, weight, members))
    means = [min(max(mean, low), high) for mean, _, members in pools for _ in range(members)]
    return [m + o for m, o in zip(means, offsets, strict=True)]
