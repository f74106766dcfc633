"""The pieces that a layout places: single boxes, and groups with their insides laid out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from graphdl.visualize.labels import cut_name
from graphdl.visualize.layered import Edge, layered
from graphdl.visualize.picture import Group, Item, Point, Rect

#: The advance of DejaVu Sans Mono is 0.602 em, and no other common monospaced font is wider.
ADVANCE = 0.605
TITLE_SIZE, DETAIL_SIZE, HEADER_SIZE = 12.0, 10.5, 11.0
PADDING = 9.0
BOX_HEIGHT, SMALL_HEIGHT = 36.0, 22.0
GROUP_PADDING = 10.0
GROUP_HEADER = 20.0
INNER_GAP = 20.0
PORT_GAP = 8.0
#: Pieces that are wider than this together stand below each other, and wide rows are several.
WIDEST = 760.0

Path = tuple[Point, ...]


class Unit(Struct, frozen=True):
    """A box, or a group of boxes, around the point (0, 0), its upper left corner.

    places: of the items. wires: of the edges inside. entries: for an edge from outside, the way
    from the border to its box; exits: for an item that others read, the way from it to the border.
    `up` turns it over: edges enter from below and leave above.
    """

    key: str
    items: tuple[Item, ...]
    group: Group | None
    width: float
    height: float
    places: Mapping[str, Rect]
    wires: Mapping[tuple[str, str], Path]
    entries: Mapping[tuple[str, str], Path]
    exits: Mapping[str, Path]
    up: bool

    def entry(self, edge: tuple[str, str]) -> Path:
        """The way of an edge into this unit."""
        y = self.height if self.up else 0.0
        return self.entries.get(edge, ((self.width / 2, y),))

    def exit(self, tail: str) -> Path:
        """The way out of this unit."""
        y = 0.0 if self.up else self.height
        return self.exits.get(tail, ((self.width / 2, y),))


def item_size(item: Item) -> tuple[float, float]:
    """Width and height of a box: its text with the padding."""
    width = max(len(item.title) * TITLE_SIZE, len(item.detail) * DETAIL_SIZE) * ADVANCE
    return max(width + 2 * PADDING, 30.0), BOX_HEIGHT if item.detail else SMALL_HEIGHT


def single(item: Item, up: bool = False) -> Unit:
    """A box by itself."""
    width, height = item_size(item)
    places = {item.key: Rect(0.0, 0.0, width, height)}
    return Unit(item.key, (item,), None, width, height, places, {}, {}, {}, up)


def header(group: Group) -> str:
    """What is written above a group."""
    return cut_name(group.name, 40)


def grouped(
    group: Group,
    items: Sequence[Item],
    inside: Iterable[tuple[str, str]],
    entering: Iterable[tuple[str, str]],
    leaving: Iterable[str],
    up: bool = False,
) -> Unit:
    """A group, laid out inside: from its upper border to its lower one, or upwards.

    Args:
        group: its name.
        items: the members, in topological order.
        inside: the edges between members.
        entering: the edges from outside to a member; those from one item share their way in.
        leaving: the members that others read.
        up: whether edges lead upwards.
    """
    inside, entering, leaving = tuple(inside), tuple(entering), tuple(leaving)
    sizes = [item_size(item) for item in items]
    tails = list(dict.fromkeys(tail for tail, _ in entering))
    ports = len(tails)
    number: dict[object, int] = {("in", tail): i for i, tail in enumerate(tails)}
    number |= {item.key: ports + i for i, item in enumerate(items)}
    number |= {("out", key): ports + len(items) + i for i, key in enumerate(leaving)}
    edges = {edge: Edge(number[edge[0]], number[edge[1]], edge[0]) for edge in inside}
    ins = {e: Edge(number["in", e[0]], number[e[1]], ("in", e[0])) for e in entering}
    outs = {key: Edge(number[key], number["out", key], key) for key in leaving}
    widths = [0.0] * ports + [width for width, _ in sizes] + [0.0] * len(leaving)
    layers = layered(
        widths,
        [*ins.values(), *edges.values(), *outs.values()],
        top=range(ports),
        bottom=range(ports + len(items), len(widths)),
        widest=WIDEST,
    )
    heights = [0.0] * layers.rows
    for (_, height), rank in zip(sizes, layers.rank[ports:], strict=False):
        heights[rank] = max(heights[rank], height)
    tops: list[float] = []
    y = 0.0
    for row, height in enumerate(heights):
        tops.append(y)
        near_border = (row == 0 and ports) or (row == layers.rows - 2 and leaving)
        y += height + (PORT_GAP if near_border else INNER_GAP if row < layers.rows - 1 else 0.0)
    content = y
    width = max(layers.width, len(header(group)) * HEADER_SIZE * ADVANCE) + 2 * GROUP_PADDING
    height = content + GROUP_HEADER + GROUP_PADDING
    left = (width - layers.width) / 2

    def place(point: Point) -> Point:
        x, y = point
        return left + x, GROUP_HEADER + (content - y if up else y)

    places: dict[str, Rect] = {}
    for item, (wide, high) in zip(items, sizes, strict=True):
        index = number[item.key]
        row = layers.rank[index]
        x, y = place((layers.xs[index], tops[row] + heights[row] / 2))
        places[item.key] = Rect(x - wide / 2, y - high / 2, wide, high)

    def way(edge: Edge) -> Path:
        """From row to row: across in the gaps, straight down beside the boxes of a row."""
        tail, head = layers.rank[edge.tail], layers.rank[edge.head]
        points = [(layers.xs[edge.tail], tops[tail] + heights[tail])]
        for row, x in enumerate(layers.bends[edge], tail + 1):
            points += [(x, tops[row]), (x, tops[row] + heights[row])]
        points.append((layers.xs[edge.head], tops[head]))
        return tuple(place(point) for point in points)

    def from_box(key: str, path: Path) -> Path:
        rect = places[key]
        return ((path[0][0], rect.y if up else rect.bottom), *path)

    def to_box(key: str, path: Path) -> Path:
        rect = places[key]
        return (*path, (path[-1][0], rect.bottom if up else rect.y))

    above, below = (height, 0.0) if up else (0.0, height)
    ways_in = {e: to_box(e[1], way(ins[e])) for e in entering}
    ways_out = {key: from_box(key, way(outs[key])) for key in leaving}
    return Unit(
        group.key,
        tuple(items),
        group,
        width,
        height,
        places,
        {e: to_box(e[1], from_box(e[0], way(edges[e]))) for e in inside},
        {e: ((path[0][0], above), *path) for e, path in ways_in.items()},
        {key: (*path, (path[-1][0], below)) for key, path in ways_out.items()},
        up,
    )
