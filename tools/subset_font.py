"""Cuts DejaVu Sans Mono to the characters that pictures of graphs write.

    python tools/subset_font.py /usr/share/fonts/truetype/dejavu      (needs fonttools)

The result lies in `graphdl/visualize/fonts`, beside the licence of the fonts. A picture as PNG or
PDF has to bring its font along; the whole one has 340 KB, this has 25.
"""

import sys
from pathlib import Path

from fontTools import subset

CHARACTERS = [
    *range(0x20, 0x7F), *range(0xA0, 0x100), *range(0x391, 0x3CA),  # Latin and Greek
    0x2013, 0x2014, 0x2018, 0x2019, 0x201C, 0x201D, 0x2022, 0x2026,  # dashes, quotes, ellipsis
    0x2190, 0x2191, 0x2192, 0x2193,  # arrows
    0x2202, 0x2207, 0x2211, 0x221A, 0x221E, 0x2248, 0x2260, 0x2264, 0x2265,  # mathematics
    0xFFFD,
]  # fmt: skip
TARGET = Path(__file__).parent.parent / "graphdl" / "visualize" / "fonts"


def main(folder: str) -> None:
    options = subset.Options()
    options.hinting = False
    options.notdef_outline = True  # a character that is missing shows as a box
    options.layout_features = []
    options.name_IDs = [0, 1, 2, 4, 5, 6, 13, 14]
    options.drop_tables += ["DSIG", "GSUB", "GPOS", "GDEF", "FFTM"]
    for name in ("DejaVuSansMono", "DejaVuSansMono-Bold"):
        font = subset.load_font(str(Path(folder) / f"{name}.ttf"), options)
        cutter = subset.Subsetter(options)
        cutter.populate(unicodes=CHARACTERS)
        cutter.subset(font)
        subset.save_font(font, str(TARGET / f"{name}-subset.ttf"), options)


if __name__ == "__main__":
    main(sys.argv[1])
