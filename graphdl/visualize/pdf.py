"""A scene as a PDF of one page, with vector shapes, selectable text and its font.

PDF 1.7 is ISO 32000-1:2008, which Adobe hands out as PDF32000_2008.pdf; sections in brackets.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from graphdl.visualize.font import ADVANCE, box_of, data_of, glyphs_of
from graphdl.visualize.ink import Area, Curve, Mark, Scene, Text, arrow_head, strokes
from graphdl.visualize.labels import printable
from graphdl.visualize.picture import Point

#: A unit of a scene is a pixel of a screen, 1/96 inch, a unit of PDF 1/72 inch.
SCALE = 0.75
#: Pages may not be larger than this (Annex C); a larger picture is made to fit.
LARGEST = 14_400.0
#: The controls of the Bezier curve nearest to a quarter of a circle of radius 1.
_ROUND = 0.5523


def to_pdf(scene: Scene) -> bytes:
    """Write the scene.

    >>> to_pdf(Scene(20.0, 10.0, "#ffffff", (Text(10.0, 8.0, "x", 8.0, "#000000"),)))[:8]
    b'%PDF-1.7'
    """
    scale = min(SCALE, LARGEST / max(scene.width, scene.height, 1.0))
    width, height = scene.width * scale, scene.height * scale
    lines = [
        f"{_n(scale, 5)} 0 0 {_n(-scale, 5)} 0 {_n(height)} cm",  # y down, as in a scene
        f"{_colour(scene.page)} rg 0 0 {_n(scene.width)} {_n(scene.height)} re f",
        *(_mark(mark) for mark in scene.marks),
    ]
    used = {False: set[int](), True: set[int]()}
    for mark in scene.marks:
        if isinstance(mark, Text):
            used[mark.bold].update(ord(c) for c in printable(mark.text))
    page = (
        f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {_n(width)} {_n(height)}] /Contents 4 0 R "
        f"/Resources << /Font << /F0 6 0 R /F1 11 0 R >> >> >>"
    )
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        page.encode(),
        _stream("\n".join(lines).encode()),
        f"<< /Title {_text_string(scene.title)} /Producer (graphdl) >>".encode(),
        *_font(6, False, used[False]),
        *_font(11, True, used[True]),
    ]
    out = bytearray(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
    places = []
    for number, content in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n".encode() + content + b"\nendobj\n"
    start = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += b"".join(f"{place:010d} 00000 n \n".encode() for place in places)
    out += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R /Info 5 0 R >>\n".encode()
    return bytes(out + f"startxref\n{start}\n%%EOF\n".encode())


def _mark(mark: Mark) -> str:
    if isinstance(mark, Area):
        return _area(mark)
    return _curve(mark) if isinstance(mark, Curve) else _line_of_text(mark)


def _area(area: Area) -> str:
    rect = area.rect
    r = min(area.radius, rect.width / 2, rect.height / 2)
    k = r * (1 - _ROUND)
    left, top, right, bottom = rect.x, rect.y, rect.right, rect.bottom
    path = [
        _points([(left + r, top)], "m"),
        _points([(right - r, top)], "l"),
        _points([(right - k, top), (right, top + k), (right, top + r)], "c"),
        _points([(right, bottom - r)], "l"),
        _points([(right, bottom - k), (right - k, bottom), (right - r, bottom)], "c"),
        _points([(left + r, bottom)], "l"),
        _points([(left + k, bottom), (left, bottom - k), (left, bottom - r)], "c"),
        _points([(left, top + r)], "l"),
        _points([(left, top + k), (left + k, top), (left + r, top)], "c"),
    ]
    dash = "[4 3] 0 d" if area.dashed else "[] 0 d"
    if not area.line:
        return f"{_colour(area.fill)} rg {' '.join(path)} h f"
    stroke = f"{_colour(area.line)} RG {_n(area.width)} w {dash}"
    return f"{_colour(area.fill)} rg {stroke} {' '.join(path)} h b"


def _curve(curve: Curve) -> str:
    start, parts = strokes(curve.points)
    path = [_points([start], "m")]
    path += [_points(part.points, "l" if len(part.points) == 1 else "c") for part in parts]
    line = f"{_colour(curve.colour)} RG {_n(curve.width)} w [] 0 d {' '.join(path)} S"
    if not curve.arrow:
        return line
    tip, *others = arrow_head(curve.points)
    head = [_points([tip], "m"), *(_points([other], "l") for other in others)]
    return f"{line} {_colour(curve.colour)} rg {' '.join(head)} h f"


def _line_of_text(text: Text) -> str:
    """Glyphs by their numbers (9.7.6.2, Identity-H); the text matrix turns y up again."""
    glyphs = glyphs_of(text.bold)
    shown = printable(text.text)
    x = text.x - (len(shown) * ADVANCE * text.size / 2 if text.anchor == "middle" else 0.0)
    codes = "".join(f"{glyphs.get(ord(c), 0):04x}" for c in shown)
    font = f"/F{int(text.bold)} {_n(text.size)} Tf"
    return f"BT {font} {_colour(text.colour)} rg 1 0 0 -1 {_n(x)} {_n(text.y)} Tm <{codes}> Tj ET"


def _font(first: int, bold: bool, used: Iterable[int]) -> list[bytes]:
    """Five objects: the font, its glyphs, what it is like, its file, and which text glyphs mean."""
    units, box, ascent, descent = box_of(bold)
    name = "GRAPHD+DejaVuSansMono" + ("-Bold" if bold else "")
    data = data_of(bold)

    def em(value: int) -> int:
        return round(value * 1000 / units)

    font = (
        f"<< /Type /Font /Subtype /Type0 /BaseFont /{name} /Encoding /Identity-H "
        f"/DescendantFonts [{first + 1} 0 R] /ToUnicode {first + 4} 0 R >>"
    )
    descendant = (
        f"<< /Type /Font /Subtype /CIDFontType2 /BaseFont /{name} /DW {round(1000 * ADVANCE)} "
        f"/CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) /Supplement 0 >> "
        f"/CIDToGIDMap /Identity /FontDescriptor {first + 2} 0 R >>"
    )
    descriptor = (
        f"<< /Type /FontDescriptor /FontName /{name} /Flags 5 /ItalicAngle 0 "
        f"/FontBBox [{' '.join(str(em(value)) for value in box)}] /Ascent {em(ascent)} "
        f"/Descent {em(descent)} /CapHeight 729 /StemV {140 if bold else 80} "
        f"/FontFile2 {first + 3} 0 R >>"
    )
    return [
        font.encode(),
        descendant.encode(),
        descriptor.encode(),
        _stream(data, f" /Length1 {len(data)}"),
        _stream(_to_unicode(bold, used)),
    ]


def _to_unicode(bold: bool, used: Iterable[int]) -> bytes:
    """What a reader copies for each glyph (9.10.3)."""
    glyphs = glyphs_of(bold)
    pairs = sorted((glyphs[code], code) for code in used if code in glyphs)
    lines = [
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap",
        "/CMapName /Adobe-Identity-UCS def /CMapType 2 def",
        "1 begincodespacerange <0000> <ffff> endcodespacerange",
    ]
    for i in range(0, len(pairs), 100):  # at most 100 in one section
        part = pairs[i : i + 100]
        lines.append(f"{len(part)} beginbfchar")
        lines += [f"<{glyph:04x}> <{code:04x}>" for glyph, code in part]
        lines.append("endbfchar")
    lines.append("endcmap CMapName currentdict /CMap defineresource pop end end")
    return "\n".join(lines).encode()


def _stream(data: bytes, more: str = "") -> bytes:
    packed = zlib.compress(data, 9)
    head = f"<< /Length {len(packed)} /Filter /FlateDecode{more} >>\nstream\n"
    return head.encode() + packed + b"\nendstream"


def _text_string(text: str) -> str:
    """A text string (7.9.2.2) in hexadecimal UTF-16, which needs no escapes."""
    return f"<feff{printable(text).encode('utf-16-be', 'replace').hex()}>"


def _points(points: Iterable[Point], operator: str) -> str:
    return " ".join(f"{_n(x)} {_n(y)}" for x, y in points) + f" {operator}"


def _colour(colour: str) -> str:
    return " ".join(_n(int(colour[i : i + 2], 16) / 255, 3) for i in (1, 3, 5))


def _n(value: float, digits: int = 2) -> str:
    """A number without an exponent, which PDF does not know."""
    text = f"{value:.{digits}f}".rstrip("0").rstrip(".")
    return "0" if text in ("", "-0", "-") else text
