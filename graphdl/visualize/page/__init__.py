"""The interactive page: a document, a script and two style sheets in one HTML file.

The parts are files beside this one, so that they can be read and checked as what they are. Nothing
is built: they are put into `page.html` as they stand. The page loads nothing, and its content
policy says so: it names the hashes of its own script and styles and forbids all else.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from string import Template

from graphdl.visualize.document import Document, to_json
from graphdl.visualize.theme import THEMES, Theme

#: In the order in which they need each other.
SCRIPTS = (
    "format.js", "model.js", "fold.js", "heat.js", "view.js", "panel.js", "charts.js", "page.js",
)  # fmt: skip


def to_html(document: Document) -> str:
    """One file that shows the document, in any browser, without a network.

    >>> import graphdl as gd
    >>> from graphdl.visualize.document import document
    >>> page = to_html(document(gd.trace(lambda x: x * 2.0, gd.spec((3,))), "</script>"))
    >>> page.count("</script>"), "http-equiv=\\"Content-Security-Policy\\"" in page
    (2, True)
    """
    script = "\n".join(_part(name) for name in SCRIPTS)
    styles = [_colours() + _part("page.css"), _part("drawing.css")]
    return Template(_part("page.html")).substitute(
        policy=_policy(script, styles),
        page_style=styles[0],
        drawing_style=styles[1],
        document=_embedded(to_json(document)),
        script=script,
    )


@cache
def _colours() -> str:
    """The colours of the picture as names that the styles use."""
    return "".join(
        f':root[data-theme="{theme.name}"] {{ '
        + "".join(f"--{name}: {value}; " for name, value in _named(theme).items())
        + "}\n"
        for theme in THEMES.values()
    )


def _named(theme: Theme) -> dict[str, str]:
    areas = {"band": theme.band, "group": theme.group, "plain": theme.plain}
    areas |= {**theme.phases, **theme.kinds}
    names = {"page": theme.page, "text": theme.text, "faint": theme.faint}
    names |= {"wire": theme.wire, "saved": theme.saved}
    names |= {"value": theme.value, "slope": theme.slope}
    for name, colour in areas.items():
        names |= {name: colour.fill, f"{name}-line": colour.line}
    return names


@cache
def _part(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def _policy(script: str, styles: list[str]) -> str:
    hashes = " ".join(_hash(style) for style in styles)
    return (
        f"default-src 'none'; script-src {_hash(script)}; style-src {hashes}; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _embedded(json: str) -> str:
    """JSON that ends no script element, whatever the names in it: still the same JSON."""
    return json.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
