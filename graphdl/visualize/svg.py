"""A scene as a stand-alone SVG file."""

from html import escape
from itertools import pairwise

from graphdl.visualize.colours import COLOURS
from graphdl.visualize.layout import Point, layered
from graphdl.visualize.scene import Box, Scene, printable

#: Of the common monospaced fonts at 12 px none is wider, so text stays inside its box.
CHARACTER_WIDTH = 7.3
BOX_HEIGHT = 38.0
PADDING = 10.0
MARGIN = 16.0
LEGEND_ROW = 20.0

_STYLE = (
    "text{font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;"
    "fill:#101828;text-anchor:middle}"
    ".title{font-weight:600}.detail{font-size:11px;fill:#475467}.name{text-anchor:start}"
    "rect{fill:#fff;stroke:#98a2b3;stroke-width:1}"
    ".page{stroke:none}.input rect{fill:#e4e7ec}.constant rect{stroke-dasharray:4 3}"
    ".output rect{stroke-width:2.5}"
    "path{fill:none;stroke:#667085;stroke-width:1.2}"
)


def to_svg(scene: Scene) -> str:
    """Lay the scene out and write it: inputs above, outputs (with a thick frame) below."""
    sizes = {box.key: (_width(box), BOX_HEIGHT) for box in scene.boxes}
    layout = layered(sizes, scene.edges)
    used = sorted({box.group for box in scene.boxes if box.group is not None})
    legend = max((len(scene.groups[group]) for group in used), default=0) * CHARACTER_WIDTH + 30
    width = max(layout.width, legend if used else 0.0) + 2 * MARGIN
    top = MARGIN + (len(used) * LEGEND_ROW + MARGIN if used else 0.0)
    height = top + layout.height + MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_n(width)}" height="{_n(height)}" '
        f'viewBox="0 0 {_n(width)} {_n(height)}">',
        f"<style>{_STYLE}</style>",
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" style="fill:#667085;stroke:none"/>'
        "</marker></defs>",
        f'<rect class="page" width="{_n(width)}" height="{_n(height)}"/>',
    ]
    for row, group in enumerate(used):
        colour = COLOURS[group % len(COLOURS)]
        y = MARGIN + row * LEGEND_ROW
        lines.append(
            f'<rect x="{_n(MARGIN)}" y="{_n(y)}" width="14" height="14" rx="3" '
            f'style="fill:{colour.fill};stroke:{colour.line}"/>'
            f'<text class="name" x="{_n(MARGIN + 22)}" y="{_n(y + 11)}">'
            f"{_text(scene.groups[group])}</text>"
        )
    shift = (width - layout.width) / 2
    lines.append(f'<g transform="translate({_n(shift)} {_n(top)})">')
    lines += [f'<path d="{_curve(layout.routes[edge])}" marker-end="url(#arrow)"/>'
              for edge in dict.fromkeys(scene.edges)]  # fmt: skip
    lines += [_box(box, layout.centres[box.key]) for box in scene.boxes]
    return "\n".join([*lines, "</g>", "</svg>", ""])


def _width(box: Box) -> float:
    return max(len(box.title), len(box.detail)) * CHARACTER_WIDTH + 2 * PADDING


def _box(box: Box, centre: Point) -> str:
    x, y = centre
    width = _width(box)
    colour = None if box.group is None else COLOURS[box.group % len(COLOURS)]
    style = "" if colour is None else f' style="fill:{colour.fill};stroke:{colour.line}"'
    radius = BOX_HEIGHT / 2 if box.kind == "input" else 5
    tooltip = f"<title>{_text(box.source)}</title>" if box.source else ""
    return (
        f'<g class="{box.kind}{" output" if box.output else ""}">{tooltip}'
        f'<rect x="{_n(x - width / 2)}" y="{_n(y - BOX_HEIGHT / 2)}" width="{_n(width)}" '
        f'height="{_n(BOX_HEIGHT)}" rx="{_n(radius)}"{style}/>'
        f'<text class="title" x="{_n(x)}" y="{_n(y - 3)}">{_text(box.title)}</text>'
        f'<text class="detail" x="{_n(x)}" y="{_n(y + 12)}">{_text(box.detail)}</text></g>'
    )


def _curve(points: tuple[Point, ...]) -> str:
    """From the lower edge of the first box through the bends to the upper edge of the last."""
    (x, y), *middle, (end_x, end_y) = points
    path = [(x, y + BOX_HEIGHT / 2), *middle, (end_x, end_y - BOX_HEIGHT / 2 - 1)]
    parts = [f"M{_n(path[0][0])} {_n(path[0][1])}"]
    for (x0, y0), (x1, y1) in pairwise(path):
        half = (y0 + y1) / 2
        parts.append(f"C{_n(x0)} {_n(half)} {_n(x1)} {_n(half)} {_n(x1)} {_n(y1)}")
    return "".join(parts)


def _n(value: float) -> str:
    """A number with one decimal at most: finer than a pixel needs, and short files."""
    return f"{value:.1f}".removesuffix(".0")


def _text(text: str) -> str:
    return escape(printable(text))
