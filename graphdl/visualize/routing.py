"""Ways for edges from block to block, through places where no box can be.

Four kinds of places are free of boxes: the gaps between the rows of a block, the gutters between
the columns of blocks, the gaps between the bands, and the strip above everything. An edge leaves
its box into the gap behind its row, runs along the gap into a gutter, along the gutter to the gap
before the row of the other box, and along that to it. Within a place each net, which is all that
leads away from one box, has a lane of its own, as far as there is room.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import NamedTuple

from msgspec import Struct, field

from graphdl.visualize.picture import BACKWARD, FORWARD, UPDATE

LANE = 6.0
#: A place with more lanes than fit into this gets narrower lanes.
MOST = 120.0


class Gap(Struct, frozen=True):
    """The gap above row `index` of a block; that behind the last row has the number of rows."""

    phase: str
    band: int
    index: int


class Gutter(Struct, frozen=True):
    """A gutter of a column of the page: 0 left of forward, 1 and 2 on each side of backward, 3."""

    page: int
    index: int


class Between(Struct, frozen=True):
    """The gap above a band, across the whole width of a column of the page."""

    page: int
    band: int


class Above(Struct, frozen=True):
    """The strip above everything."""


Horizontal = Gap | Between | Above


class Legs(NamedTuple):
    """The places that an edge passes: horizontal and vertical ones take turns."""

    across: tuple[Horizontal, ...]
    along: tuple[Gutter, ...]


#: The gutter for an edge from a block of the one phase to a block of the other.
_GUTTER = {
    (FORWARD, FORWARD): (0,),
    (BACKWARD, BACKWARD): (2,),
    (UPDATE, UPDATE): (3,),
    (FORWARD, BACKWARD): (1,),
    (BACKWARD, FORWARD): (1,),
    (BACKWARD, UPDATE): (2,),
    (UPDATE, BACKWARD): (2,),
    (FORWARD, UPDATE): (1, 2),
    (UPDATE, FORWARD): (2, 1),
}
_OWN = {FORWARD: 0, BACKWARD: 2, UPDATE: 3}


def legs(leaves: Gap, enters: Gap, pages: tuple[int, int], right: bool = False) -> Legs:
    """The way from one gap to another.

    Args:
        leaves, enters: the gaps at the two ends.
        pages: their columns of the page.
        right: whether to go right of the forward blocks, not left, where both are free.
    """
    if leaves == enters:
        return Legs((leaves,), ())
    if pages[0] != pages[1]:
        gutters = Gutter(pages[0], _OWN[leaves.phase]), Gutter(pages[1], _OWN[enters.phase])
        return Legs((leaves, Above(), enters), gutters)
    numbers = _GUTTER[leaves.phase, enters.phase]
    if numbers == (0,) and right:
        numbers = (1,)
    if len(numbers) == 1:
        return Legs((leaves, enters), (Gutter(pages[0], numbers[0]),))
    first, last = numbers
    across = (leaves, Between(pages[0], enters.band), enters)
    return Legs(across, (Gutter(pages[0], first), Gutter(pages[0], last)))


class Lanes(Struct):
    """Lanes of horizontal places: in the order in which the nets ask for them."""

    nets: dict[Horizontal, dict[Hashable, int]] = field(default_factory=dict)

    def take(self, place: Horizontal, net: Hashable) -> None:
        taken = self.nets.setdefault(place, {})
        taken.setdefault(net, len(taken))

    def extent(self, place: Horizontal) -> float:
        """What the lanes of a place need."""
        return min(len(self.nets.get(place, ())) * LANE, MOST)

    def at(self, place: Horizontal, net: Hashable) -> float:
        """The middle of a net's lane, from the edge of the place."""
        taken = self.nets[place]
        return (taken[net] + 0.5) * self.extent(place) / len(taken)


def packed(
    spans: Mapping[Gutter, Mapping[Hashable, tuple[float, float]]],
) -> tuple[dict[tuple[Gutter, Hashable], int], dict[Gutter, int]]:
    """Lanes for nets that need parts of a gutter: nets whose parts do not meet can share one.

    Longer parts take the inner lanes, those with lower numbers.

    Returns:
        The lane of each net in each gutter, and how many lanes each gutter has.

    >>> gutter = Gutter(0, 1)
    >>> packed({gutter: {"a": (0.0, 50.0), "b": (60.0, 90.0), "c": (40.0, 70.0)}})[1]
    {Gutter(page=0, index=1): 2}
    """
    lane: dict[tuple[Gutter, Hashable], int] = {}
    count: dict[Gutter, int] = {}
    for gutter, wanted in spans.items():
        taken: list[list[tuple[float, float]]] = []
        by_length = sorted(wanted, key=lambda net: wanted[net][0] - wanted[net][1])
        for net in by_length:
            low, high = wanted[net]
            number = next(
                (
                    i
                    for i, parts in enumerate(taken)
                    if all(high + LANE <= a or b + LANE <= low for a, b in parts)
                ),
                len(taken),
            )
            if number == len(taken):
                taken.append([])
            taken[number].append((low, high))
            lane[gutter, net] = number
        count[gutter] = len(taken)
    return lane, count


def width_of(lanes: int) -> float:
    """How wide a gutter with this many lanes is."""
    return 12.0 + min(lanes * LANE, MOST) if lanes else 0.0


def lane_at(lane: int, lanes: int) -> float:
    """The middle of a lane, from the left of its gutter."""
    return 6.0 + (lane + 0.5) * min(lanes * LANE, MOST) / lanes


def spans_of(
    ways: Iterable[tuple[str, Legs]], y_of: Mapping[tuple[Horizontal, str], float]
) -> dict[Gutter, dict[Hashable, tuple[float, float]]]:
    """Which part of each gutter each net needs."""
    found: dict[Gutter, dict[Hashable, tuple[float, float]]] = {}
    for net, way in ways:
        for i, gutter in enumerate(way.along):
            ends = y_of[way.across[i], net], y_of[way.across[i + 1], net]
            low, high = found.setdefault(gutter, {}).get(net, ends)
            found[gutter][net] = min(low, high, *ends), max(low, high, *ends)
    return found
