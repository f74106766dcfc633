"""The colours of groups: a light fill for a box, a dark line of the same hue."""

import colorsys
from typing import NamedTuple


class Colour(NamedTuple):
    """Two colours of one hue, as #rrggbb."""

    fill: str
    line: str


def _hex(hue: float, lightness: float, saturation: float) -> str:
    return "#" + "".join(
        f"{round(255 * channel):02x}" for channel in colorsys.hls_to_rgb(hue, lightness, saturation)
    )


# Steps of the golden ratio around the circle keep neighbours in the list far apart in hue.
COLOURS = tuple(
    Colour(_hex(hue, 0.88, 0.75), _hex(hue, 0.40, 0.60))
    for hue in ((0.58 + index * 0.6180339887) % 1.0 for index in range(16))
)
