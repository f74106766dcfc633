"""A scene as PNG, drawn by Pillow."""

from __future__ import annotations

import io
from math import cos, hypot, pi, sin
from typing import TYPE_CHECKING

from graphdl.visualize.font import data_of
from graphdl.visualize.ink import Area, Curve, Scene, Text, arrow_head, strokes
from graphdl.visualize.labels import printable
from graphdl.visualize.picture import Point

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

#: Pixels for each unit of the scene: two are sharp on screens of today.
SCALE = 2.0
#: Pillow draws without smooth edges: the shapes are drawn this much larger, and made smaller.
SMOOTH = 2
#: Larger pictures get fewer pixels for each unit.
MOST_PIXELS = 60_000_000
_DASH = (4.0, 3.0)


def to_png(scene: Scene) -> bytes:
    """Draw the scene.

    >>> to_png(Scene(20.0, 10.0, "#ffffff", (Text(10.0, 8.0, "x", 8.0, "#000000"),)))[:4]
    b'\\x89PNG'
    """
    from PIL import Image, ImageDraw, ImageFont  # 40 ms that only those who draw a PNG pay

    area = scene.width * scene.height * SMOOTH**2
    scale = min(SCALE, (MOST_PIXELS / area) ** 0.5) if area else SCALE
    size = (max(round(scene.width * scale), 1), max(round(scene.height * scale), 1))
    large = (size[0] * SMOOTH, size[1] * SMOOTH)
    image = Image.new("RGB", large, scene.page)
    pen = _Pen(ImageDraw.Draw(image), scale * SMOOTH)
    for mark in scene.marks:
        if isinstance(mark, Area):
            pen.area(mark)
        elif isinstance(mark, Curve):
            pen.curve(mark)
    image = image.resize(size, Image.Resampling.BOX)
    fonts: dict[tuple[float, bool], FreeTypeFont] = {}
    draw = ImageDraw.Draw(image)
    for mark in scene.marks:
        if isinstance(mark, Text) and mark.text:
            key = (mark.size, mark.bold)
            if key not in fonts:
                file = io.BytesIO(data_of(mark.bold))
                fonts[key] = ImageFont.truetype(
                    file, mark.size * scale, layout_engine=ImageFont.Layout.BASIC
                )
            anchor = "ms" if mark.anchor == "middle" else "ls"
            place = mark.x * scale, mark.y * scale
            draw.text(place, printable(mark.text), mark.colour, fonts[key], anchor)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


class _Pen:
    def __init__(self, draw: ImageDraw, scale: float) -> None:
        self.draw, self.scale = draw, scale

    def _at(self, point: Point) -> Point:
        return point[0] * self.scale, point[1] * self.scale

    def _width(self, width: float) -> int:
        return max(round(width * self.scale), 1)

    def area(self, area: Area) -> None:
        rect = area.rect
        corners = (*self._at((rect.x, rect.y)), *self._at((rect.right, rect.bottom)))
        radius = min(area.radius, rect.width / 2, rect.height / 2)
        outline = area.line if area.line and not area.dashed else None
        width = self._width(area.width) if outline else 0
        self.draw.rounded_rectangle(corners, radius * self.scale, area.fill, outline, width)
        if area.dashed and area.line:
            for dash in _dashes(_outline(area, radius)):
                self._line(dash, area.line, area.width)

    def curve(self, curve: Curve) -> None:
        self._line(flat(curve.points), curve.colour, curve.width)
        if curve.arrow:
            self.draw.polygon([self._at(point) for point in arrow_head(curve.points)], curve.colour)

    def _line(self, points: list[Point], colour: str, width: float) -> None:
        self.draw.line([self._at(p) for p in points], colour, self._width(width), "curve")


def flat(points: tuple[Point, ...], steps: int = 10) -> list[Point]:
    """A curve as short straight lines."""
    at, parts = strokes(points)
    found = [at]
    for part in parts:
        if len(part.points) == 1:
            found.append(part.points[0])
            continue
        (x0, y0), (x1, y1), (x2, y2), (x3, y3) = found[-1], *part.points
        for step in range(1, steps + 1):
            t = step / steps
            a, b, c, d = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3
            found.append((a * x0 + b * x1 + c * x2 + d * x3, a * y0 + b * y1 + c * y2 + d * y3))
    return found


def _outline(area: Area, radius: float) -> list[Point]:
    """The border of a rectangle with round corners."""
    rect = area.rect
    found: list[Point] = []
    corners = (
        (rect.right - radius, rect.y + radius),
        (rect.right - radius, rect.bottom - radius),
        (rect.x + radius, rect.bottom - radius),
        (rect.x + radius, rect.y + radius),
    )
    for quarter, (x, y) in enumerate(corners):
        for step in range(7):
            angle = (quarter - 1 + step / 6) * pi / 2
            found.append((x + radius * cos(angle), y + radius * sin(angle)))
    return [*found, found[0]]


def _dashes(points: list[Point]) -> list[list[Point]]:
    """The parts of a line that dashes cover."""
    found: list[list[Point]] = [[points[0]]]
    left, drawing = _DASH[0], True
    for i in range(1, len(points)):
        (x, y), (end_x, end_y) = points[i - 1], points[i]
        length = hypot(end_x - x, end_y - y)
        done = 0.0
        while length - done > left:
            done += left
            point = x + (end_x - x) * done / length, y + (end_y - y) * done / length
            if drawing:
                found[-1].append(point)
            else:
                found.append([point])
            drawing = not drawing
            left = _DASH[0] if drawing else _DASH[1]
        left -= length - done
        if drawing:
            found[-1].append((end_x, end_y))
    return [dash for dash in found if len(dash) > 1]
