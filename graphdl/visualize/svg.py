"""A scene as a stand-alone SVG file."""

from __future__ import annotations

from html import escape

from graphdl.visualize.ink import Area, Curve, Mark, Scene, Text, arrow_head, strokes
from graphdl.visualize.labels import printable

_FONT = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"


def to_svg(scene: Scene) -> str:
    """Write the scene.

    >>> from graphdl.visualize.picture import Rect
    >>> print(to_svg(Scene(20, 10, "#ffffff", (Area(Rect(1, 2, 3, 4.25), "#000000"),))))
    <svg xmlns="http://www.w3.org/2000/svg" width="20" height="10" viewBox="0 0 20 10">
    <rect width="20" height="10" fill="#ffffff"/>
    <rect x="1" y="2" width="3" height="4.2" rx="4" fill="#000000"/>
    </svg>
    <BLANKLINE>
    """
    size = f'width="{_n(scene.width)}" height="{_n(scene.height)}"'
    view = f'viewBox="0 0 {_n(scene.width)} {_n(scene.height)}"'
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} {view}>']
    if scene.title:
        lines.append(f"<title>{_text(scene.title)}</title>")
    if any(isinstance(mark, Text) for mark in scene.marks):
        lines.append(
            f"<style>text{{font-family:{_FONT};text-anchor:middle;white-space:pre}}</style>"
        )
    lines.append(f'<rect {size} fill="{scene.page}"/>')
    lines += [_mark(mark) for mark in scene.marks]
    return "\n".join([*lines, "</svg>", ""])


def _mark(mark: Mark) -> str:
    if isinstance(mark, Area):
        return _area(mark)
    return _curve(mark) if isinstance(mark, Curve) else _line_of_text(mark)


def _area(area: Area) -> str:
    rect = area.rect
    stroke = f' stroke="{area.line}"' if area.line else ""
    if area.line and area.width != 1.0:
        stroke += f' stroke-width="{_n(area.width)}"'
    if area.dashed:
        stroke += ' stroke-dasharray="4 3"'
    shape = (
        f'<rect x="{_n(rect.x)}" y="{_n(rect.y)}" width="{_n(rect.width)}" '
        f'height="{_n(rect.height)}" rx="{_n(area.radius)}" fill="{area.fill}"{stroke}'
    )
    return f"{shape}><title>{_text(area.tip)}</title></rect>" if area.tip else f"{shape}/>"


def _curve(curve: Curve) -> str:
    (x, y), parts = strokes(curve.points)
    path = f"M{_n(x)} {_n(y)}"
    for part in parts:
        path += ("L" if len(part.points) == 1 else "C") + " ".join(
            f"{_n(x)} {_n(y)}" for x, y in part.points
        )
    line = (
        f'<path d="{path}" fill="none" stroke="{curve.colour}" stroke-width="{_n(curve.width)}"/>'
    )
    if curve.arrow:
        corners = "L".join(f"{_n(x)} {_n(y)}" for x, y in arrow_head(curve.points))
        line += f'<path d="M{corners}z" fill="{curve.colour}"/>'
    return line


def _line_of_text(text: Text) -> str:
    anchor = "" if text.anchor == "middle" else f' text-anchor="{text.anchor}"'
    anchor = anchor.replace(' text-anchor="start"', ' style="text-anchor:start"')
    weight = ' font-weight="600"' if text.bold else ""
    return (
        f'<text x="{_n(text.x)}" y="{_n(text.y)}" font-size="{_n(text.size)}" '
        f'fill="{text.colour}"{weight}{anchor}>{_text(text.text)}</text>'
    )


def _n(value: float) -> str:
    """A number with one decimal at most: finer than a pixel needs, and short files."""
    return f"{value:.1f}".removesuffix(".0")


def _text(text: str) -> str:
    return escape("\n".join(printable(line) for line in text.split("\n")))
