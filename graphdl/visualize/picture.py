"""What a picture of a graph is made of: items, where they stand, and the edges between them.

`graphdl.visualize.drawing` chooses the items, `graphdl.visualize.arrange` gives them places, and
the writers of the formats draw the result. Lengths are in pixels, y runs down.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from msgspec import Struct, field

Point: TypeAlias = tuple[float, float]

FORWARD, BACKWARD, UPDATE = PHASES = ("forward", "backward", "update")


class Rect(Struct, frozen=True):
    """A rectangle: its upper left corner and its size."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def centre(self) -> Point:
        return self.x + self.width / 2, self.y + self.height / 2

    def moved(self, x: float, y: float) -> Rect:
        return Rect(self.x + x, self.y + y, self.width, self.height)


class Cost(Struct, frozen=True):
    """What something takes: bytes read and written, operations, and seconds where measured."""

    nbytes: int = 0
    flops: int = 0
    seconds: float | None = None

    @property
    def intensity(self) -> float:
        """Operations for each byte."""
        return self.flops / self.nbytes if self.nbytes else 0.0


class Item(Struct, frozen=True):
    """One box of the picture, before it has a place.

    key: unique, and the same in each process: the label of the node as `str(graph)` prints it;
        `x@2` is the second copy of x; `kernel 3` and `encoder, backward` are collapsed.
    node: the label of the node that it stands for; "" for what is collapsed.
    kind: "op"; "argument" or "parameter" (an argument that is differentiated); "constant";
        "chip" (an argument, drawn again near a use far from its place); "output";
        "kernel" or "scope" (collapsed, see `count`).
    title, detail: the two lines of text.
    phase: FORWARD, BACKWARD or UPDATE. band: the index of its band.
    group: the key of its kernel, "" for none.
    gradient_of: the label or the name of what this is the gradient of, "" for none.
    pulled: the label of the node whose gradient rule made this, "" for none.
    source: the user's line, `file:line`, "" where that is not known.
    count: how many nodes of the graph it stands for.
    """

    key: str
    node: str
    kind: str
    title: str
    detail: str
    phase: str = FORWARD
    band: int = 0
    group: str = ""
    scopes: tuple[str, ...] = ()
    source: str = ""
    gradient_of: str = ""
    pulled: str = ""
    is_output: bool = False
    count: int = 1
    cost: Cost = field(default_factory=Cost)


class Group(Struct, frozen=True):
    """A kernel, or nodes that the user wants to see together, as a box around its members."""

    key: str
    name: str
    phase: str = FORWARD
    band: int = 0
    cost: Cost = field(default_factory=Cost)


class Band(Struct, frozen=True):
    """A layer: its forward, backward and update part stand side by side.

    `name` is the path of its scope, "" for none. `count` is how many layers like this one the
    graph has in a row, which are drawn once; the bands of one repeated block share `block`.
    """

    name: str
    count: int = 1
    block: int | None = None


class Drawing(Struct, frozen=True):
    """What to draw: items in topological order, edges as pairs of keys, kernels, bands.

    `training` says whether there is a backward pass to stand beside the forward pass.
    """

    items: tuple[Item, ...]
    edges: tuple[tuple[str, str], ...]
    groups: tuple[Group, ...] = ()
    bands: tuple[Band, ...] = (Band(""),)
    training: bool = False


class Box(Struct, frozen=True):
    """An item in its place. `column` and `row` count the places of the layout; see Picture."""

    item: Item
    rect: Rect
    column: int = 0
    row: int = 0


class Frame(Struct, frozen=True):
    """A group in its place, with the same meaning of column and row."""

    group: Group
    rect: Rect
    column: int = 0
    row: int = 0


class Strip(Struct, frozen=True):
    """A band in its place; with several bands of a repeated block one after the other."""

    band: Band
    rect: Rect


class Wire(Struct, frozen=True):
    """An edge: the points that it passes, from the border of one box to that of the other.

    kind: "data"; "saved" (from the forward pass to the backward pass).
    """

    tail: str
    head: str
    points: tuple[Point, ...]
    kind: str = "data"


class Picture(Struct, frozen=True):
    """A drawing with places.

    Of boxes and frames that share a column, those of a higher row stand lower: so what opens or
    closes moves others up or down only. No two boxes overlap, a frame holds its own boxes and no
    others, wires pass no box.
    """

    boxes: tuple[Box, ...]
    frames: tuple[Frame, ...]
    strips: tuple[Strip, ...]
    wires: tuple[Wire, ...]
    width: float
    height: float
    layout: str = "dag"

    @property
    def places(self) -> Mapping[str, Rect]:
        """The rectangle of each item and of each group, by key."""
        found = {frame.group.key: frame.rect for frame in self.frames}
        return found | {box.item.key: box.rect for box in self.boxes}
