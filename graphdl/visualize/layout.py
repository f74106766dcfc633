"""Where boxes and edges go: a layered drawing of an acyclic graph, from the top down.

The method of Sugiyama, Tagawa and Toda, "Methods for Visual Understanding of Hierarchical System
Structures", IEEE Transactions on Systems, Man, and Cybernetics 11 (1981), in four steps: give every
box a layer; put a bend into each layer that an edge passes; order the layers so that few edges
cross; choose positions that keep edges straight and boxes apart. Nothing in it is random, so the
same graph gives the same picture.
"""

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TypeAlias

from msgspec import Struct

Point: TypeAlias = tuple[float, float]
Edge: TypeAlias = tuple[int, int]

COLUMN_GAP = 18.0
ROW_GAP = 34.0
BEND_WIDTH = 8.0
ORDER_SWEEPS = 12
POSITION_SWEEPS = 24
#: How much more a bend wants to stand straight than a box: long edges bend least.
BEND_WEIGHT = 4.0


class Layout(Struct, frozen=True):
    """The centre of each box, the points that each edge passes, and the size of the whole."""

    centres: Mapping[int, Point]
    routes: Mapping[Edge, tuple[Point, ...]]
    width: float
    height: float


def layered(sizes: Mapping[int, Point], edges: Sequence[Edge]) -> Layout:
    """Lay out boxes of the given widths and heights.

    Args:
        sizes: keys are the boxes, in topological order.
        edges: pairs of boxes, the earlier one first.
    """
    edges = tuple(dict.fromkeys(edges))
    rank = _ranks(list(sizes), edges)
    bends, chains = _bend(rank, edges, first=max(sizes, default=-1) + 1)
    rank = rank | bends
    segments = [pair for chain in chains.values() for pair in pairwise(chain)]
    widths = {key: size[0] for key, size in sizes.items()} | dict.fromkeys(bends, BEND_WIDTH)
    above: dict[int, list[int]] = {key: [] for key in rank}
    below: dict[int, list[int]] = {key: [] for key in rank}
    for tail, head in segments:
        below[tail].append(head)
        above[head].append(tail)
    layers = _ordered(_layers(rank, below), above, below)
    xs = _positions(layers, above, below, widths, bends)
    ys = _rows(layers, sizes)
    left = min((xs[key] - widths[key] / 2 for key in rank), default=0.0)
    right = max((xs[key] + widths[key] / 2 for key in rank), default=0.0)
    points = {key: (xs[key] - left, ys[rank[key]]) for key in rank}
    routes = {edge: tuple(points[key] for key in chain) for edge, chain in chains.items()}
    height = max((ys[rank[key]] + sizes[key][1] / 2 for key in sizes), default=0.0)
    return Layout({key: points[key] for key in sizes}, routes, right - left, height)


def _ranks(keys: list[int], edges: Sequence[Edge]) -> dict[int, int]:
    """The longest way from the top; then what costs no length moves down to its users.

    That is a box with more users than operands, where an operand with other users does not count,
    because they share its edge; and a tree that hangs on one user: whatever is computed from inputs
    that nothing else needs belongs to the box that needs it.
    """
    above: dict[int, list[int]] = {key: [] for key in keys}
    below: dict[int, list[int]] = {key: [] for key in keys}
    for tail, head in edges:
        above[head].append(tail)
        below[tail].append(head)
    rank: dict[int, int] = {}
    hangs: dict[int, bool] = {}
    for key in keys:
        rank[key] = max((rank[tail] + 1 for tail in above[key]), default=0)
        hangs[key] = all(hangs[tail] and len(below[tail]) == 1 for tail in above[key])
    for key in reversed(keys):
        own = sum(len(below[tail]) == 1 for tail in above[key])
        if below[key] and (hangs[key] or len(below[key]) > own):
            rank[key] = min(rank[head] for head in below[key]) - 1
    return rank


def _bend(
    rank: Mapping[int, int], edges: Sequence[Edge], first: int
) -> tuple[dict[int, int], dict[Edge, tuple[int, ...]]]:
    """A new node in each layer between the ends of an edge; edges from one box share them."""
    bends: dict[int, int] = {}
    shared: dict[tuple[int, int], int] = {}
    chains: dict[Edge, tuple[int, ...]] = {}
    for tail, head in edges:
        chain = [tail]
        for level in range(rank[tail] + 1, rank[head]):
            bend = shared.setdefault((tail, level), first + len(bends))
            bends[bend] = level
            chain.append(bend)
        chains[tail, head] = (*chain, head)
    return bends, chains


def _layers(rank: Mapping[int, int], below: Mapping[int, list[int]]) -> list[list[int]]:
    """A first order: depth first, so that what belongs together starts together."""
    layers: list[list[int]] = [[] for _ in range(max(rank.values(), default=-1) + 1)]
    seen: set[int] = set()
    for root in sorted(rank, key=lambda key: (rank[key], key)):
        stack = [root]
        while stack:
            key = stack.pop()
            if key not in seen:
                seen.add(key)
                layers[rank[key]].append(key)
                stack.extend(reversed(below[key]))
    return layers


def _ordered(
    layers: list[list[int]], above: Mapping[int, list[int]], below: Mapping[int, list[int]]
) -> list[list[int]]:
    """Sort each layer by the mean place of its neighbours, down and up; keep the best order."""
    best, fewest = [list(layer) for layer in layers], _crossings(layers, below)
    for sweep in range(ORDER_SWEEPS):
        down = sweep % 2 == 0
        neighbours = above if down else below
        for index in range(len(layers)) if down else reversed(range(len(layers))):
            fixed = index - 1 if down else index + 1
            if not 0 <= fixed < len(layers):
                continue
            place = {key: float(i) for i, key in enumerate(layers[fixed])}
            wanted = {
                key: _mean([place[other] for other in neighbours[key]], float(i))
                for i, key in enumerate(layers[index])
            }
            layers[index].sort(key=wanted.__getitem__)
        count = _crossings(layers, below)
        if count < fewest:
            best, fewest = [list(layer) for layer in layers], count
    return best


def _crossings(layers: Sequence[Sequence[int]], below: Mapping[int, list[int]]) -> int:
    total = 0
    for upper, lower in pairwise(layers):
        place = {key: i for i, key in enumerate(lower)}
        passed: list[int] = []
        for key in upper:
            ends = sorted(place[head] for head in below[key])
            total += sum(len(passed) - bisect_left(passed, end + 1) for end in ends)
            for end in ends:
                insort(passed, end)
    return total


def _positions(
    layers: Sequence[Sequence[int]],
    above: Mapping[int, list[int]],
    below: Mapping[int, list[int]],
    widths: Mapping[int, float],
    bends: Mapping[int, int],
) -> dict[int, float]:
    """Move everything towards its neighbours, as far as the order and the widths allow."""
    xs: dict[int, float] = {}
    for layer in layers:
        xs |= _apart(layer, dict.fromkeys(layer, 0.0), widths, bends)
    for sweep in range(POSITION_SWEEPS):
        last = sweep >= POSITION_SWEEPS // 2
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            wanted = {}
            for key in layer:
                one_side = above[key] if sweep % 2 == 0 else below[key]
                others = above[key] + below[key] if last else one_side
                wanted[key] = _mean([xs[other] for other in others], xs[key])
            xs |= _apart(layer, wanted, widths, bends)
    return xs


def _apart(
    layer: Sequence[int],
    wanted: Mapping[int, float],
    widths: Mapping[int, float],
    bends: Mapping[int, int],
) -> dict[int, float]:
    """The positions nearest to those wanted that keep the order and the gaps.

    Least squares under an order: with the gaps subtracted it is isotonic regression, which the
    pool-adjacent-violators algorithm solves in one pass.
    """
    offsets, offset = [], 0.0
    for index, key in enumerate(layer):
        if index:
            offset += (widths[layer[index - 1]] + widths[key]) / 2 + COLUMN_GAP
        offsets.append(offset)
    pools: list[tuple[float, float, int]] = []  # (mean, weight, members)
    for key, offset in zip(layer, offsets, strict=True):
        mean, weight, members = wanted[key] - offset, BEND_WEIGHT if key in bends else 1.0, 1
        while pools and pools[-1][0] > mean:
            left_mean, left_weight, left_members = pools.pop()
            mean = (mean * weight + left_mean * left_weight) / (weight + left_weight)
            weight, members = weight + left_weight, members + left_members
        pools.append((mean, weight, members))
    means = [mean for mean, _, members in pools for _ in range(members)]
    return {key: m + o for key, m, o in zip(layer, means, offsets, strict=True)}


def _rows(layers: Sequence[Sequence[int]], sizes: Mapping[int, Point]) -> list[float]:
    """The height of the middle of each layer."""
    ys, top = [], 0.0
    for layer in layers:
        height = max((sizes[key][1] for key in layer if key in sizes), default=0.0)
        ys.append(top + height / 2)
        top += height + ROW_GAP
    return ys


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
