"""Colours: of what is drawn, light and dark, and of measures."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from math import log

from msgspec import Struct

from graphdl.visualize.picture import BACKWARD, FORWARD, UPDATE


class Colour(Struct, frozen=True):
    """Two colours of one hue, as #rrggbb: of an area and of its border."""

    fill: str
    line: str


class Theme(Struct, frozen=True):
    """page: behind everything. text, faint: of titles and of details. wire, saved: edges.

    band, group: areas behind the boxes. phases, kinds: boxes. cold, hot: the ends of a scale.
    value, slope: numbers that go forward and that come back.
    """

    name: str
    page: str
    text: str
    faint: str
    wire: str
    saved: str
    band: Colour
    group: Colour
    phases: Mapping[str, Colour]
    kinds: Mapping[str, Colour]
    cold: str
    hot: str
    plain: Colour
    value: str
    slope: str


# The hues are those of the design: forward blue, backward orange, update green, parameters violet.
# Each text has a contrast of at least 4.5 to the areas that it stands on, as WCAG 2 asks of small
# text; tests/test_pictures.py computes it.
LIGHT = Theme(
    name="light",
    page="#ffffff",
    text="#101828",
    faint="#475467",
    wire="#7b8798",
    saved="#d97706",
    band=Colour("#f8fafc", "#e4e8ef"),
    group=Colour("#edf1f7", "#a9b4c6"),
    phases={
        FORWARD: Colour("#dbeafe", "#3b82f6"),
        BACKWARD: Colour("#ffe4d6", "#ea6a1f"),
        UPDATE: Colour("#dcfce7", "#16a34a"),
    },
    kinds={
        "argument": Colour("#f2f4f7", "#667085"),
        "parameter": Colour("#ede9fe", "#7c3aed"),
        "constant": Colour("#ffffff", "#98a2b3"),
        "chip": Colour("#ffffff", "#8b7bc4"),
        "output": Colour("#1f2937", "#1f2937"),
    },
    cold="#fff7e0",
    hot="#ef5a3c",
    plain=Colour("#ffffff", "#98a2b3"),
    value="#1d4ed8",
    slope="#b93815",
)

DARK = Theme(
    name="dark",
    page="#0f1420",
    text="#f2f5fa",
    faint="#b3bfd0",
    wire="#77849a",
    saved="#f0a541",
    band=Colour("#141b29", "#232d40"),
    group=Colour("#1c2536", "#46546d"),
    phases={
        FORWARD: Colour("#173a6b", "#5b9df8"),
        BACKWARD: Colour("#643013", "#f28a4c"),
        UPDATE: Colour("#14492b", "#3fbf72"),
    },
    kinds={
        "argument": Colour("#2a3344", "#8d9bb0"),
        "parameter": Colour("#3c2a6e", "#a78bfa"),
        "constant": Colour("#131a28", "#77849a"),
        "chip": Colour("#131a28", "#9c8fd6"),
        "output": Colour("#dfe5ee", "#dfe5ee"),
    },
    cold="#2b2a35",
    hot="#b8371d",
    plain=Colour("#1a2231", "#77849a"),
    value="#8ab8ff",
    slope="#ffb088",
)

THEMES = {theme.name: theme for theme in (LIGHT, DARK)}


def mixed(a: str, b: str, part: float) -> str:
    """The colour at `part` of the way from a to b.

    >>> mixed("#000000", "#ffffff", 0.5)
    '#808080'
    """
    pairs = zip(_channels(a), _channels(b), strict=True)
    return "#" + "".join(f"{round(x + (y - x) * part):02x}" for x, y in pairs)


def scaled(value: float, low: float, high: float) -> float:
    """Where a value is between the least and the greatest, from 0 to 1, by its logarithm.

    >>> scaled(10.0, 1.0, 100.0)
    0.5
    """
    if value <= 0 or low <= 0 or high <= low:
        return 1.0 if value > 0 and value >= high else 0.0
    return min(max(log(value / low) / log(high / low), 0.0), 1.0)


def contrast(a: str, b: str) -> float:
    """How well one colour is seen on the other, from 1 to 21, as WCAG 2 defines it.

    >>> round(contrast("#000000", "#ffffff"))
    21
    """
    low, high = sorted((_luminance(a), _luminance(b)))
    return (high + 0.05) / (low + 0.05)


def _channels(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def _luminance(colour: str) -> float:
    shares = [c / 255 for c in _channels(colour)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def hue(index: int, theme: Theme) -> Colour:
    """A colour for group number `index`, far from those of its neighbours in the list.

    Steps of the golden ratio around the circle keep neighbours apart.
    """
    at = (0.58 + index * 0.6180339887) % 1.0
    lightness = (0.90, 0.42) if theme.name == "light" else (0.22, 0.62)
    fill, line = (
        "#" + "".join(f"{round(255 * c):02x}" for c in colorsys.hls_to_rgb(at, level, 0.55))
        for level in lightness
    )
    return Colour(fill, line)
