"""What the writers of formats draw: rectangles, lines and text, from back to front."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from graphdl.visualize.picture import Point, Rect


class Area(Struct, frozen=True):
    """A rectangle with round corners. `tip` is shown where a format can show something more."""

    rect: Rect
    fill: str
    line: str = ""
    width: float = 1.0
    radius: float = 4.0
    dashed: bool = False
    tip: str = ""


class Curve(Struct, frozen=True):
    """A line through points. `arrow` ends it with a head.

    It is straight along x or y; from a point to one that differs in both it is a curve that begins
    and ends vertically and stays within the two.
    """

    points: tuple[Point, ...]
    colour: str
    width: float = 1.1
    arrow: bool = True


class Text(Struct, frozen=True):
    """A line of text in a monospaced font. `anchor`: "middle" or "start" of the text at x.

    `y` is the baseline.
    """

    x: float
    y: float
    text: str
    size: float
    colour: str
    bold: bool = False
    anchor: str = "middle"


Mark: TypeAlias = Area | Curve | Text


class Scene(Struct, frozen=True):
    """Marks from back to front on a page of this size."""

    width: float
    height: float
    page: str
    marks: tuple[Mark, ...]
    title: str = ""


#: How far before a turn a line begins to bend.
TURN = 6.0
ARROW = 6.0


class Stroke(Struct, frozen=True):
    """A straight line to one point, or a Bezier curve with two controls to the third."""

    points: tuple[Point, ...]


def strokes(points: tuple[Point, ...]) -> tuple[Point, tuple[Stroke, ...]]:
    """A curve as its first point, and lines and cubic Bezier curves; turns are rounded.

    >>> start, found = strokes(((0.0, 0.0), (0.0, 20.0), (30.0, 20.0)))
    >>> [len(stroke.points) for stroke in found]
    [1, 3, 1]
    """
    found: list[Stroke] = []
    at = points[0]
    for i in range(1, len(points)):
        previous, corner = points[i - 1], points[i]
        if previous[0] != corner[0] and previous[1] != corner[1]:
            half = (at[1] + corner[1]) / 2
            found.append(Stroke(((at[0], half), (corner[0], half), corner)))
            at = corner
            continue
        after = points[i + 1] if i + 1 < len(points) else None
        turns = after is not None and (
            (after[0] == corner[0]) != (previous[0] == corner[0])
            and (after[0] == corner[0] or after[1] == corner[1])
        )
        if not turns or after is None:
            found.append(Stroke((corner,)))
            at = corner
            continue
        before, beyond = _towards(corner, at), _towards(corner, after)
        found.append(Stroke((before,)))
        found.append(Stroke((_middle(before, corner), _middle(beyond, corner), beyond)))
        at = beyond
    return points[0], tuple(found)


def _towards(corner: Point, other: Point) -> Point:
    """A little way from a corner along the straight line to another point, at most half of it."""
    dx, dy = other[0] - corner[0], other[1] - corner[1]
    length = abs(dx) + abs(dy)
    part = min(TURN, length / 2) / length if length else 0.0
    return corner[0] + dx * part, corner[1] + dy * part


def _middle(a: Point, b: Point) -> Point:
    return a[0] + (b[0] - a[0]) * 0.55, a[1] + (b[1] - a[1]) * 0.55


def arrow_head(points: tuple[Point, ...]) -> tuple[Point, Point, Point]:
    """The triangle at the end of a curve, which arrives vertically or horizontally."""
    (x, y), (end_x, end_y) = points[-2], points[-1]
    half = ARROW * 0.45
    if y != end_y:
        back = end_y - ARROW if end_y > y else end_y + ARROW
        return (end_x, end_y), (end_x - half, back), (end_x + half, back)
    back = end_x - ARROW if end_x > x else end_x + ARROW
    return (end_x, end_y), (back, end_y - half), (back, end_y + half)
