"""A picture as marks: colours by phase or by a measure, a legend, names of bands and kernels."""

from __future__ import annotations

from collections.abc import Sequence

from graphdl.visualize.ink import Area, Curve, Mark, Scene, Text
from graphdl.visualize.picture import FORWARD, PHASES, Box, Cost, Frame, Picture, Rect, Strip
from graphdl.visualize.theme import Colour, Theme, mixed, scaled
from graphdl.visualize.units import ADVANCE, DETAIL_SIZE, HEADER_SIZE, TITLE_SIZE, header

MEASURES = ("time", "bytes", "flops", "intensity")
LEGEND_SIZE = 11.0
LEGEND_HEIGHT = 30.0
NOTE_SIZE, NOTE_HEIGHT = 13.0, 20.0
MARGIN = 14.0
CORNER = 5.0

_KINDS = ("parameter", "argument", "constant", "chip", "output")
_NAMES = {"chip": "used again", "parameter": "parameter", "argument": "argument"}


def measure_of(cost: Cost, colour: str) -> float | None:
    """The number by which something is coloured; None for none."""
    if colour == "time":
        return cost.seconds
    return float({"bytes": cost.nbytes, "flops": cost.flops, "intensity": cost.intensity}[colour])


def quantity(value: float, colour: str) -> str:
    """A measure as text.

    >>> quantity(2.5e-06, "time"), quantity(2048, "bytes"), quantity(3e6, "flops")
    ('2.5 µs', '2 KiB', '3 Mflop')
    """
    if colour == "time":
        for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)):
            if value >= size or unit == "ns":
                return f"{value / size:.3g} {unit}"
    if colour == "bytes":
        for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)):
            if value >= 2**power or unit == "B":
                return f"{value / 2**power:.3g} {unit}"
    if colour == "intensity":
        return f"{value:.3g} flop/B"
    for unit, size in (("Tflop", 1e12), ("Gflop", 1e9), ("Mflop", 1e6), ("kflop", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} flop"


def paint(
    picture: Picture,
    theme: Theme,
    colour: str = "phase",
    title: str = "",
    notes: Sequence[str] = (),
) -> Scene:
    """Draw a picture.

    Args:
        picture: what is where.
        theme: the colours.
        colour: "phase", or the measure of MEASURES that colours boxes: on a logarithmic scale.
        title: of the whole.
        notes: lines to write below.
    """
    painter = _Painter(picture, theme, colour)
    legend, wide = painter.legend()
    body = painter.body()
    width = max(picture.width, wide + 2 * MARGIN)
    height = picture.height + (LEGEND_HEIGHT if legend else 0.0)
    written: list[Mark] = []
    for note in notes:
        written.append(
            Text(MARGIN, height + NOTE_SIZE, note, NOTE_SIZE, theme.text, anchor="start")
        )
        height += NOTE_HEIGHT
        width = max(width, len(note) * NOTE_SIZE * ADVANCE + 2 * MARGIN)
    height += MARGIN if notes else 0.0
    return Scene(width, height, theme.page, (*body, *legend, *written), title)


class _Painter:
    def __init__(self, picture: Picture, theme: Theme, colour: str) -> None:
        self.picture, self.theme, self.colour = picture, theme, colour
        self.costs = {frame.group.key: frame.group.cost for frame in picture.frames}
        found = [] if colour == "phase" else [self._value(box) for box in picture.boxes]
        values = sorted(value for value in found if value)
        self.range = (values[0], values[-1]) if values else (0.0, 0.0)

    def _value(self, box: Box) -> float | None:
        """The measure of a box; time is known of whole kernels only."""
        if box.item.kind not in ("op", "kernel", "scope"):
            return None
        cost = box.item.cost
        if self.colour == "time" and cost.seconds is None:
            cost = self.costs.get(box.item.group, cost)
        return measure_of(cost, self.colour)

    def body(self) -> list[Mark]:
        marks: list[Mark] = []
        band = self.theme.band
        only = len(self.picture.strips) == 1 and not self.picture.strips[0].band.name
        for strip in () if only else self.picture.strips:
            marks.append(Area(strip.rect, band.fill, band.line, radius=6.0))
        for frame in self.picture.frames:
            marks.append(self._frame(frame))
        labels = {box.item.key for box in self.picture.boxes if box.item.kind == "label"}
        for wire in sorted(self.picture.wires, key=lambda wire: wire.kind == "saved"):
            line = self.theme.saved if wire.kind == "saved" else self.theme.wire
            marks.append(Curve(wire.points, line, arrow=wire.head not in labels))
        for strip in self.picture.strips:
            marks += self._strip_name(strip)
        for frame in self.picture.frames:
            marks += self._frame_name(frame)
        for box in self.picture.boxes:
            marks += self._box(box)
        return marks

    def _strip_name(self, strip: Strip) -> list[Mark]:
        """The name of a band and its count, on a ground that hides the wires behind it."""
        name = strip.band.name
        if strip.band.count > 1:
            name += f"  ×{strip.band.count}"
        if not name:
            return []
        x, y = strip.rect.x + 8.0, strip.rect.y + 13.0
        ground = Rect(x - 3.0, y - 10.0, len(name) * HEADER_SIZE * ADVANCE + 6.0, 13.0)
        return [
            Area(ground, self.theme.band.fill, radius=3.0),
            Text(x, y, name.strip(), HEADER_SIZE, self.theme.faint, True, "start"),
        ]

    def _frame(self, frame: Frame) -> Mark:
        colours = self.theme.group
        tip = frame.group.name
        value = None if self.colour == "phase" else measure_of(frame.group.cost, self.colour)
        if value is not None:
            tip += f": {quantity(value, self.colour)}"
        return Area(frame.rect, colours.fill, colours.line, radius=7.0, tip=tip)

    def _frame_name(self, frame: Frame) -> list[Mark]:
        """The name, on a piece of the group's area that hides the wires behind it."""
        text = header(frame.group)
        width = len(text) * HEADER_SIZE * ADVANCE
        rect = Rect(frame.rect.x + 6.0, frame.rect.y + 3.0, width + 6.0, 14.0)
        x, y = frame.rect.x + 9.0, frame.rect.y + 14.0
        name = Text(x, y, text, HEADER_SIZE, self.theme.faint, anchor="start")
        return [Area(rect, self.theme.group.fill, radius=3.0), name]

    def _box(self, box: Box) -> list[Mark]:
        item, rect = box.item, box.rect
        if item.kind == "label":
            return self._label(box)
        colours = self._colours(box)
        small = item.kind in ("chip", "output")
        marks: list[Mark] = [
            Area(
                rect,
                colours.fill,
                colours.line,
                2.0 if item.is_output and item.kind != "output" else 1.1,
                rect.height / 2 if small else CORNER,
                item.kind in ("chip", "constant"),
                self._tip(item.source, item.node, item.gradient_of),
            )
        ]
        output = item.kind == "output"
        text = self.theme.page if output else self.theme.text
        faint = self.theme.faint if self.colour == "phase" else self.theme.text
        faint = self.theme.page if output else faint
        x, middle = rect.centre
        if item.detail:
            marks.append(Text(x, middle - 3.0, item.title, TITLE_SIZE, text, True))
            marks.append(Text(x, middle + 11.0, item.detail, DETAIL_SIZE, faint))
        else:
            marks.append(Text(x, middle + 4.0, item.title, TITLE_SIZE, text))
        return marks

    def _label(self, box: Box) -> list[Mark]:
        """The two numbers of an edge, without a border around them."""
        x, middle = box.rect.centre
        if not box.item.detail:
            return [Text(x, middle + 4.0, box.item.title, DETAIL_SIZE, self.theme.value)]
        return [
            Text(x, middle - 3.0, box.item.title, DETAIL_SIZE, self.theme.value),
            Text(x, middle + 11.0, box.item.detail, DETAIL_SIZE, self.theme.slope),
        ]

    def _colours(self, box: Box) -> Colour:
        kind = box.item.kind
        if kind in self.theme.kinds:
            return self.theme.kinds[kind]
        if self.colour == "phase":
            return self.theme.phases[box.item.phase]
        value = self._value(box)
        if not value:
            return self.theme.plain
        part = scaled(value, *self.range)
        return Colour(mixed(self.theme.cold, self.theme.hot, part), self.theme.plain.line)

    @staticmethod
    def _tip(source: str, node: str, gradient_of: str) -> str:
        parts = [node, f"gradient of {gradient_of}" if gradient_of else "", source]
        return "\n".join(part for part in parts if part)

    # --- the legend -------------------------------------------------------------------------

    def legend(self) -> tuple[list[Mark], float]:
        """What the colours mean, in one line below the picture, and how wide it is."""
        entries = self._entries()
        marks: list[Mark] = []
        x, y = MARGIN, self.picture.height + 6.0
        for colours, name, dashed in entries:
            rect = Rect(x, y, 14.0, 11.0)
            marks.append(Area(rect, colours.fill, colours.line, 1.0, 3.0, dashed))
            x += 19.0
            marks.append(Text(x, y + 9.5, name, LEGEND_SIZE, self.theme.faint, anchor="start"))
            x += len(name) * LEGEND_SIZE * ADVANCE + 16.0
        if any(wire.kind == "saved" for wire in self.picture.wires):
            marks.append(Curve(((x, y + 5.5), (x + 24.0, y + 5.5)), self.theme.saved, arrow=False))
            x += 30.0
            name = "saved for the backward pass"
            marks.append(Text(x, y + 9.5, name, LEGEND_SIZE, self.theme.faint, anchor="start"))
            x += len(name) * LEGEND_SIZE * ADVANCE
        return marks, x

    def _entries(self) -> Sequence[tuple[Colour, str, bool]]:
        kinds = {box.item.kind for box in self.picture.boxes}
        if "label" in kinds:
            forth, back = self.theme.value, self.theme.slope
            numbers = [(Colour(forth, forth), "↓ value", False)]
            if any(box.item.kind == "label" and box.item.detail for box in self.picture.boxes):
                meaning = "↑ derivative of out: so far × of this step = by the box above"
                numbers.append((Colour(back, back), meaning, False))
            return numbers
        found: list[tuple[Colour, str, bool]] = []
        if self.colour == "phase":
            coloured = ("op", "kernel", "scope")
            phases = {box.item.phase for box in self.picture.boxes if box.item.kind in coloured}
            if phases - {FORWARD}:
                found += [
                    (self.theme.phases[name], name, False) for name in PHASES if name in phases
                ]
        else:
            low, high = self.range
            ends = ((self.theme.cold, low), (self.theme.hot, high))
            line = self.theme.plain.line
            for fill, value in ends if high > 0 else ():
                found.append((Colour(fill, line), quantity(value, self.colour), False))
        dashed = ("chip", "constant")
        found += [
            (self.theme.kinds[kind], _NAMES.get(kind, kind), kind in dashed)
            for kind in _KINDS
            if kind in kinds and kind != "argument"
        ]
        return found
