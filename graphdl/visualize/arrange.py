"""The places of a drawing: layers from the top down, forward beside backward beside update.

Each band of a drawing is a row of three blocks: the forward part, whose edges lead down, the
backward part, whose edges lead up, so that it meets the forward part where it began, and the update
part. A block is a layered drawing of its units (boxes and kernels). What is no training step has
forward blocks only: then this is the layered drawing of a graph, in two levels.

Edges between blocks run in the gaps between the rows of a block, and in the gutters between the
blocks, where there are no boxes: see `graphdl.visualize.routing`. Bands are wrapped into columns,
as text into columns of a newspaper, when the picture would be much taller than wide.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from math import sqrt

from msgspec import Struct

from graphdl.visualize.grouping import sorted_units
from graphdl.visualize.layered import Edge, Layers, layered, ranks
from graphdl.visualize.picture import (
    BACKWARD,
    FORWARD,
    PHASES,
    UPDATE,
    Band,
    Box,
    Drawing,
    Frame,
    Item,
    Picture,
    Point,
    Rect,
    Strip,
    Wire,
)
from graphdl.visualize.routing import (
    Above,
    Between,
    Gap,
    Gutter,
    Horizontal,
    Lanes,
    Legs,
    lane_at,
    legs,
    packed,
    spans_of,
    width_of,
)
from graphdl.visualize.units import WIDEST, Unit, grouped, single

ROW_GAP = 26.0
PORT_GAP = 8.0
BAND_GAP = 12.0
BAND_HEADER = 18.0
BAND_PADDING = 8.0
PAGE_GAP = 36.0
MARGIN = 14.0
COLUMN_SPACE = 14.0
#: Edges over more rows than this go around the rows, through a gutter.
LONGEST = 10
#: What comes from the block before passes at most this many rows of the next on its way.
NEAR = 4
#: The picture is wrapped to be at most this many times as tall as wide, as far as bands allow.
ASPECT = 1.5
#: A picture no taller than this is not wrapped at all: it fits a window.
WINDOW = 860.0

EdgeKey = tuple[str, str]
Place = tuple[str, int]


class _Block(Struct, frozen=True):
    """Units in rows, numbered as they are seen, from the top down.

    edges: those inside. arrivals: edges from the block before, which pass the first rows on a way
    of their own; departures: likewise those to the block after, by the item that they leave.
    gaps: the least height of the gap above each row, and below the last.
    """

    units: tuple[Unit, ...]
    layers: Layers
    edges: Mapping[EdgeKey, Edge]
    arrivals: Mapping[EdgeKey, Edge]
    departures: Mapping[str, Edge]
    x: Mapping[str, float]
    row: Mapping[str, int]
    heights: tuple[float, ...]
    gaps: tuple[float, ...]

    @property
    def up(self) -> bool:
        return self.units[0].up


def arrange(drawing: Drawing) -> Picture:
    """Give every item, group, band and edge a place.

    >>> import graphdl as gd
    >>> from graphdl.visualize.drawing import draw
    >>> picture = arrange(draw(gd.trace(lambda x: x * 2.0, gd.spec((3,)))))
    >>> [box.item.key for box in sorted(picture.boxes, key=lambda box: box.rect.y)]
    ['x', '%2', 'out']
    """
    units = _units(drawing)
    unit_of = {item.key: unit for unit, _ in units for item in unit.items}
    edges: dict[str, list[EdgeKey]] = {unit.key: [] for unit, _ in units}
    for tail, head in drawing.edges:
        if unit_of[tail] is not unit_of[head]:
            edges[unit_of[head].key].append((tail, head))
    bands = drawing.bands
    if len({place for _, place in units}) == 1:
        units, bands = _broken(units, edges, unit_of, bands)
    members: dict[Place, list[Unit]] = {}
    for unit, place in units:
        members.setdefault(place, []).append(unit)
    place_of = {unit.key: place for unit, place in units}
    crossing = [
        edge
        for unit, place in units
        for edge in edges[unit.key]
        if place_of[unit_of[edge[0]].key] != place
    ]
    following = _following(members)
    arriving: dict[Place, list[EdgeKey]] = {}
    departing: dict[Place, list[EdgeKey]] = {}
    for edge in crossing:
        before, after = (place_of[unit_of[key].key] for key in edge)
        if following.get(before) == after:
            arriving.setdefault(after, []).append(edge)
            departing.setdefault(before, []).append(edge)
    blocks = {
        place: _block(
            members[place], edges, unit_of, arriving.get(place, ()), departing.get(place, ())
        )
        for place in sorted(members, key=lambda place: (place[1], PHASES.index(place[0])))
    }
    crossing += [
        edge
        for unit, place in units
        for edge in edges[unit.key]
        if place_of[unit_of[edge[0]].key] == place and edge not in blocks[place].edges
    ]
    return _Page(drawing, bands, blocks, unit_of, place_of, crossing).picture()


def _units(drawing: Drawing) -> list[tuple[Unit, Place]]:
    """Groups with their insides laid out, and the other boxes; and the block that each is in."""
    group_of = {item.key: item.group for item in drawing.items}
    members: dict[str, list[Item]] = {}
    for item in drawing.items:
        if item.group:
            members.setdefault(item.group, []).append(item)
    inside: dict[str, list[EdgeKey]] = {}
    entering: dict[str, list[EdgeKey]] = {}
    leaving: dict[str, dict[str, None]] = {}
    for tail, head in drawing.edges:
        a, b = group_of[tail], group_of[head]
        if a and a == b:
            inside.setdefault(a, []).append((tail, head))
            continue
        if b:
            entering.setdefault(b, []).append((tail, head))
        if a:
            leaving.setdefault(a, {})[tail] = None
    plain = not drawing.training
    one_way = all(item.phase == FORWARD for item in drawing.items)

    def block(phase: str, band: int) -> Place:
        return (FORWARD, band if one_way else 0) if plain else (phase, band)

    units: list[tuple[Unit, Place]] = []
    groups = {group.key: group for group in drawing.groups}
    done: set[str] = set()
    for item in drawing.items:
        if not item.group:
            place = block(item.phase, item.band)
            units.append((single(item, place[0] == BACKWARD), place))
        elif item.group not in done:
            done.add(item.group)
            group = groups[item.group]
            place = block(group.phase, group.band)
            key = group.key
            ways = inside.get(key, ()), entering.get(key, ()), leaving.get(key, ())
            units.append((grouped(group, members[key], *ways, place[0] == BACKWARD), place))
    return units


def _broken(
    units: list[tuple[Unit, Place]],
    edges: Mapping[str, Sequence[EdgeKey]],
    unit_of: Mapping[str, Unit],
    bands: tuple[Band, ...],
) -> tuple[list[tuple[Unit, Place]], tuple[Band, ...]]:
    """A single block that is much taller than wide, as several that can stand side by side."""
    block = _block([unit for unit, _ in units], edges, unit_of)
    height = sum(block.heights) + ROW_GAP * len(block.heights)
    parts = min(_columns(height, block.layers.width), len(block.heights) // 4)
    if parts < 2:
        return units, bands
    size = -(-len(block.heights) // parts)
    (phase, _), band = units[0][1], bands[units[0][1][1]]
    broken = [(unit, (phase, block.row[unit.key] // size)) for unit, _ in units]
    return broken, (band, *(Band("") for _ in range(parts - 1)))


def _following(places: Iterable[Place]) -> dict[Place, Place]:
    """The block that the main way leads to from each: down, in the backward part up."""
    found: dict[Place, Place] = {}
    for phase in PHASES:
        bands = sorted(band for at, band in places if at == phase)
        steps = pairwise(reversed(bands) if phase == BACKWARD else bands)
        found |= {(phase, a): (phase, b) for a, b in steps}
    return found


def _columns(height: float, width: float) -> int:
    """Into how many columns to wrap what is this high and wide."""
    if height <= WINDOW:
        return 1
    return max(1, round(sqrt(height / (ASPECT * (width + PAGE_GAP)))))


def _block(
    members: Sequence[Unit],
    edges: Mapping[str, Sequence[EdgeKey]],
    unit_of: Mapping[str, Unit],
    arriving: Sequence[EdgeKey] = (),
    departing: Sequence[EdgeKey] = (),
) -> _Block:
    """The rows of a block.

    What comes from the block before, or leads to the next, gets a way through the rows at that
    end, if it is near enough; other ways lead around, see `_Page`.
    """
    keys = {unit.key for unit in members}
    own = {
        edge: (unit_of[edge[0]].key, unit.key)
        for unit in members
        for edge in edges[unit.key]
        if unit_of[edge[0]].key in keys
    }
    by_key = {unit.key: unit for unit in members}
    order = sorted_units(list(by_key), dict.fromkeys(own.values()))
    sorted_ones = set(order)
    order += [key for key in by_key if key not in sorted_ones]  # what waits for itself
    units = [by_key[key] for key in order]
    number = {key: i for i, key in enumerate(order)}
    down = {
        edge: Edge(number[tail], number[head], edge[0])
        for edge, (tail, head) in own.items()
        if number[tail] < number[head]
    }
    rank = ranks(len(units), list(down.values()))
    last = max(rank)
    near = [e for e in arriving if rank[number[unit_of[e[1]].key]] <= NEAR]
    tails = dict.fromkeys(tail for tail, _ in near)
    leaving = dict.fromkeys(
        tail for tail, _ in departing if rank[number[unit_of[tail].key]] >= last - NEAR
    )
    # ports: the ways in are numbered before the units, those out after them
    first = len(tails)
    port_in = {tail: i for i, tail in enumerate(tails)}
    port_out = {tail: first + len(units) + i for i, tail in enumerate(leaving)}
    down = {e: Edge(first + a, first + b, net) for e, (a, b, net) in down.items()}
    arrivals = {
        e: Edge(port_in[e[0]], first + number[unit_of[e[1]].key], ("in", e[0])) for e in near
    }
    departures = {
        tail: Edge(first + number[unit_of[tail].key], port_out[tail], tail) for tail in leaving
    }
    layers = layered(
        [0.0] * first + [unit.width for unit in units] + [0.0] * len(leaving),
        [*arrivals.values(), *down.values(), *departures.values()],
        top=range(first),
        bottom=range(first + len(units), first + len(units) + len(leaving)),
        longest=LONGEST,
        widest=WIDEST,
    )
    up = units[0].up
    row = {
        unit.key: layers.rows - 1 - found if up else found
        for unit, found in zip(units, layers.rank[first:], strict=False)
    }
    heights = [0.0] * layers.rows
    for unit in units:
        heights[row[unit.key]] = max(heights[row[unit.key]], unit.height)
    gaps = [ROW_GAP] * (layers.rows + 1)
    for ports, outer in ((tails, 0), (leaving, -1)):
        if ports:
            gaps[-1 - outer if up else outer] = PORT_GAP
    bent = {edge: found for edge, found in down.items() if found in layers.bends}
    # shelves can move a unit that was near an end away from it: then its way leads around
    arrivals = {edge: found for edge, found in arrivals.items() if found in layers.bends}
    departures = {tail: found for tail, found in departures.items() if found in layers.bends}
    x = dict(zip(order, layers.xs[first:], strict=False))
    return _Block(
        tuple(units), layers, bent, arrivals, departures, x, row, tuple(heights), tuple(gaps)
    )


class _Page:
    """Places for blocks, and ways between them."""

    def __init__(
        self,
        drawing: Drawing,
        bands: Sequence[Band],
        blocks: Mapping[Place, _Block],
        unit_of: Mapping[str, Unit],
        place_of: Mapping[str, Place],
        crossing: Sequence[EdgeKey],
    ) -> None:
        self.drawing, self.bands, self.blocks = drawing, bands, blocks
        self.unit_of, self.place_of = unit_of, place_of
        self.phase = {item.key: item.phase for item in drawing.items}
        self.present = sorted({band for _, band in blocks})
        self.lanes = Lanes()
        self.page = self._pages()
        self.direct: dict[EdgeKey, Gap] = {}
        self.ways: dict[EdgeKey, Legs] = {}
        for edge in crossing:
            self._plan(edge)
        # from here on no lane is taken
        self.above = {place: self._above(place) for place in blocks}
        self.block_height = {place: self._height(place) for place in blocks}
        self.top: dict[int, float] = {}  # of a band, below its name
        self.bottom: dict[int, float] = {}
        self._stack()
        self.block_top = {place: self._block_top(place) for place in blocks}
        self.y_of: dict[tuple[Horizontal, str], float] = {
            (place, str(net)): self._lane_y(place, str(net))
            for place, nets in self.lanes.nets.items()
            for net in nets
        }
        self.gutter_lane, self.gutter_lanes = packed(
            spans_of(((edge[0], way) for edge, way in self.ways.items()), self.y_of)
        )
        self.gutter_x: dict[Gutter, float] = {}
        self.column: dict[tuple[int, str], tuple[float, float]] = {}  # x and width
        self.page_x: list[tuple[float, float]] = []
        self._spread()
        self.left = {place: self._block_left(place) for place in blocks}

    # --- from the top down ------------------------------------------------------------------

    def _pages(self) -> dict[int, int]:
        """The column of the page in which each band is."""
        width = sum(
            max((b.layers.width for (at, _), b in self.blocks.items() if at == phase), default=0.0)
            for phase in PHASES
        )
        heights = [
            max(self._height((phase, band)) for phase in PHASES if (phase, band) in self.blocks)
            + BAND_GAP
            for band in self.present
        ]
        count = min(_columns(sum(heights), width), len(heights))
        most = sum(heights) / count
        page: dict[int, int] = {}
        number, filled = 0, 0.0
        for band, height in zip(self.present, heights, strict=True):
            if filled and filled + height / 2 > most and number < count - 1:
                number, filled = number + 1, 0.0
            page[band] = number
            filled += height
        return page

    def _gap(self, place: Place, index: int) -> float:
        """The height of a gap between rows."""
        return self.blocks[place].gaps[index] + self.lanes.extent(Gap(*place, index))

    def _height(self, place: Place) -> float:
        heights = self.blocks[place].heights
        return sum(heights) + sum(self._gap(place, i) for i in range(len(heights) + 1))

    def _stack(self) -> None:
        y = MARGIN + self.lanes.extent(Above())
        start = y
        for i, band in enumerate(self.present):
            if i and self.page[band] != self.page[self.present[i - 1]]:
                y = start
            y += BAND_GAP + self.lanes.extent(Between(self.page[band], band))
            y += BAND_HEADER if self.bands[band].name else 0.0
            tallest = max(
                self.block_height[phase, band]
                for phase in PHASES
                if (phase, band) in self.block_height
            )
            self.top[band], self.bottom[band] = y, y + tallest
            y += tallest

    def _block_top(self, place: Place) -> float:
        """Forward parts begin where the band does; backward parts do so too, at its lower end."""
        phase, band = place
        spare = self.bottom[band] - self.top[band] - self.block_height[place]
        return self.top[band] + {FORWARD: 0.0, BACKWARD: spare}.get(phase, spare / 2)

    def _row_top(self, place: Place, row: int) -> float:
        """The y where a row begins; for the row after the last, where the last gap ends."""
        gaps, heights = self.above[place]
        return self.block_top[place] + gaps[row] + heights[row]

    def _above(self, place: Place) -> tuple[Sequence[float], Sequence[float]]:
        """The heights of the gaps and of the rows above each row, and above the end."""
        heights = self.blocks[place].heights
        gaps = accumulate(self._gap(place, i) for i in range(len(heights) + 1))
        return list(gaps), list(accumulate(heights, initial=0.0))

    def _lane_y(self, place: Horizontal, net: str) -> float:
        at = self.lanes.at(place, net)
        if isinstance(place, Gap):
            block = place.phase, place.band
            above = min(self.blocks[block].gaps[place.index] / 2, 9.0)
            return self._row_top(block, place.index) - self._gap(block, place.index) + above + at
        if isinstance(place, Between):
            header = BAND_HEADER if self.bands[place.band].name else 0.0
            extent = self.lanes.extent(place)
            return self.top[place.band] - header - BAND_GAP / 2 - extent + at
        return MARGIN + at

    # --- ways -------------------------------------------------------------------------------

    def _plan(self, edge: EdgeKey) -> None:
        """Choose the places that an edge passes, and take lanes there."""
        tail, head = edge
        leaves, enters = self._gap_after(edge), self._gap_before(edge)
        if self._is_direct(leaves, enters):
            self.direct[edge] = leaves
            self.lanes.take(leaves, tail)
            return
        pages = self.page[leaves.band], self.page[enters.band]
        way = legs(leaves, enters, pages, self._goes_right(tail, head))
        self.ways[edge] = way
        for place in way.across:
            self.lanes.take(place, tail)

    def _departs(self, edge: EdgeKey) -> Edge | None:
        """The way of an edge to the end of its block, where it has one."""
        before, after = (self.place_of[self.unit_of[key].key] for key in edge)
        leads_on = before[0] == after[0] and before != after
        return self.blocks[before].departures.get(edge[0]) if leads_on else None

    def _gap_after(self, edge: EdgeKey) -> Gap:
        unit = self.unit_of[edge[0]]
        place = self.place_of[unit.key]
        row = self.blocks[place].row[unit.key]
        if self._departs(edge) is not None:
            return Gap(*place, 0 if unit.up else len(self.blocks[place].heights))
        return Gap(*place, row if unit.up else row + 1)

    def _gap_before(self, edge: EdgeKey) -> Gap:
        unit = self.unit_of[edge[1]]
        place = self.place_of[unit.key]
        row = self.blocks[place].row[unit.key]
        if edge in self.blocks[place].arrivals:
            return Gap(*place, len(self.blocks[place].heights) if unit.up else 0)
        return Gap(*place, row + 1 if unit.up else row)

    def _is_direct(self, leaves: Gap, enters: Gap) -> bool:
        """Whether nothing lies between two gaps: the end of a block and the start of the next."""
        if leaves.phase != enters.phase or self.page[leaves.band] != self.page[enters.band]:
            return False
        up = leaves.phase == BACKWARD
        first, last = (enters, leaves) if up else (leaves, enters)
        between = any(
            (leaves.phase, band) in self.blocks for band in range(first.band + 1, last.band)
        )
        rows = len(self.blocks[first.phase, first.band].heights)
        return first.band < last.band and first.index == rows and not last.index and not between

    def _goes_right(self, tail: str, head: str) -> bool:
        """Whether an edge between forward blocks should go around on the right.

        Left of a training step there is nothing else; else both sides are free.
        """
        if self.drawing.training:
            return False
        middles = [self._x_in_block(key) for key in (tail, head)]
        return sum(middles) > 0

    def _x_in_block(self, key: str) -> float:
        """The x of a unit, from the middle of its block."""
        unit = self.unit_of[key]
        block = self.blocks[self.place_of[unit.key]]
        return block.x[unit.key] - block.layers.width / 2

    # --- from left to right -----------------------------------------------------------------

    def _spread(self) -> None:
        x = MARGIN
        for page in range(max(self.page.values(), default=-1) + 1):
            start = x
            for index, phase in enumerate((*PHASES, "")):
                gutter = Gutter(page, index)
                self.gutter_x[gutter] = x
                x += width_of(self.gutter_lanes.get(gutter, 0))
                widths = [
                    block.layers.width
                    for (at, band), block in self.blocks.items()
                    if at == phase and self.page[band] == page
                ]
                if widths:
                    space = BAND_PADDING if index == 0 else COLUMN_SPACE
                    self.column[page, phase] = x + space, max(widths)
                    x += space + max(widths) + (BAND_PADDING if phase != "" else 0.0)
            self.page_x.append((start, x))
            x += PAGE_GAP

    def _block_left(self, place: Place) -> float:
        phase, band = place
        x, width = self.column[self.page[band], phase]
        return x + (width - self.blocks[place].layers.width) / 2

    # --- the picture ------------------------------------------------------------------------

    def picture(self) -> Picture:
        boxes: list[Box] = []
        frames: list[Frame] = []
        corner: dict[str, Point] = {}
        first_row: dict[tuple[int, str], int] = {}
        for place, block in self.blocks.items():
            phase, band = place
            at = self.page[band], phase
            start = first_row.get(at, 0)
            column = at[0] * len(PHASES) + PHASES.index(phase)
            for unit in block.units:
                x, row = block.x[unit.key], block.row[unit.key]
                y = self._row_top(place, row) + (block.heights[row] - unit.height) / 2
                corner[unit.key] = left, top = self.left[place] + x - unit.width / 2, y
                number = start + row
                if unit.group is not None:
                    rect = Rect(left, top, unit.width, unit.height)
                    frames.append(Frame(unit.group, rect, column, number))
                boxes += [
                    Box(item, unit.places[item.key].moved(left, top), column, number)
                    for item in unit.items
                ]
            first_row[at] = start + len(block.heights)
        wires = [self._wire(edge, corner) for edge in self.drawing.edges]
        width = max((right for _, right in self.page_x), default=MARGIN) + MARGIN
        height = max(self.bottom.values(), default=0.0) + MARGIN
        layout = "training" if self.drawing.training else "dag"
        strips = self._strips()
        return Picture(tuple(boxes), tuple(frames), strips, tuple(wires), width, height, layout)

    def _strips(self) -> tuple[Strip, ...]:
        strips: list[Strip] = []
        for band in self.present:
            header = BAND_HEADER if self.bands[band].name else 0.0
            left, right = self.page_x[self.page[band]]
            top = self.top[band] - header
            rect = Rect(left, top, right - left, self.bottom[band] - top)
            strips.append(Strip(self.bands[band], rect))
        return tuple(strips)

    def _wire(self, edge: EdgeKey, corner: Mapping[str, Point]) -> Wire:
        tail, head = edge
        a, b = self.unit_of[tail], self.unit_of[head]
        if a is b:
            points = _moved(a.wires[edge], corner[a.key])
            return Wire(tail, head, _straightened(points))
        start = _moved(a.exit(tail), corner[a.key])
        end = _moved(b.entry(edge), corner[b.key])
        place = self.place_of[b.key]
        block = self.blocks[place]
        if edge in block.edges:
            middle = self._through(block.edges[edge], place, start[-1][0], end[0][0])
            return Wire(tail, head, _straightened([*start, *middle, *end]))
        departs = self._departs(edge)
        if departs is not None:
            start += self._through(departs, self.place_of[a.key], start[-1][0], None)
        if edge in block.arrivals:
            end = self._through(block.arrivals[edge], place, None, end[0][0]) + end
        if edge in self.direct:
            y = self.y_of[self.direct[edge], tail]
            middle = [(start[-1][0], y), (end[0][0], y)]
        else:
            middle = self._around(self.ways[edge], tail, start[-1][0], end[0][0])
        phases = self.place_of[a.key][0], self.place_of[b.key][0]
        # a kernel of the backward pass that ends in an update stands with the updates
        backward = phases[1] == BACKWARD or (phases[1] == UPDATE and self.phase[head] == BACKWARD)
        kind = "saved" if phases[0] == FORWARD and backward else "data"
        return Wire(tail, head, _straightened([*start, *middle, *end]), kind)

    def _through(
        self, edge: Edge, place: Place, start: float | None, end: float | None
    ) -> list[Point]:
        """Through the rows of a block: across in the gaps, straight down beside the boxes.

        `start` and `end` are the x where it leaves and meets units; None for a port.
        """
        block = self.blocks[place]
        layers, left = block.layers, self.left[place]
        rows = len(block.heights)
        points: list[Point] = []
        passed = range(layers.rank[edge.tail], layers.rank[edge.head] + 1)
        xs = [
            left + layers.xs[edge.tail] if start is None else start,
            *(left + x for x in layers.bends[edge]),
            left + layers.xs[edge.head] if end is None else end,
        ]
        for at, x in zip(passed, xs, strict=True):
            row = rows - 1 - at if block.up else at
            top = self._row_top(place, row)
            ys = top, top + block.heights[row]
            points += [(x, y) for y in (reversed(ys) if block.up else ys)]
        return points[1:-1]

    def _around(self, way: Legs, net: str, x: float, end: float) -> list[Point]:
        """Along the lanes of a way."""
        points: list[Point] = []
        for i, place in enumerate(way.across):
            y = self.y_of[place, net]
            points.append((x, y))
            if i < len(way.along):
                gutter = way.along[i]
                lane, lanes = self.gutter_lane[gutter, net], self.gutter_lanes[gutter]
                x = self.gutter_x[gutter] + lane_at(lane, lanes)
            else:
                x = end
            points.append((x, y))
        return points


def _moved(path: Sequence[Point], by: Point) -> list[Point]:
    return [(x + by[0], y + by[1]) for x, y in path]


def _straightened(points: Sequence[Point]) -> tuple[Point, ...]:
    """The points without those that the way passes straight."""
    kept: list[Point] = []
    for point in points:
        if kept and _near(kept[-1], point):
            continue
        while len(kept) > 1 and any(
            abs(kept[-2][i] - kept[-1][i]) < 1e-6 and abs(kept[-1][i] - point[i]) < 1e-6
            for i in (0, 1)
        ):
            kept.pop()
        kept.append(point)
    return tuple(kept)


def _near(a: Point, b: Point) -> bool:
    return abs(a[0] - b[0]) < 1e-6 and abs(a[1] - b[1]) < 1e-6
