"""The interactive page: a document, a script and two style sheets in one HTML file.

The parts are files beside this one, so that they can be read and checked as what they are. They
lie in `page.html` compressed, with the document, which makes it a sixth as large; the browser
unpacks them (`unpack.js`). The page loads nothing, and its content policy says so: it names the
hashes of its own scripts and styles and forbids all else.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterable
from functools import cache
from importlib.resources import files
from string import Template
from typing import Any

from graphdl.visualize.document import Document
from graphdl.visualize.page.columns import columns, records
from graphdl.visualize.theme import THEMES, Theme

#: The parts of a document, and of its graphs, that the page reads when they are first looked at:
#: of 10,000 nodes two thirds of all text, of which a graph that opens collapsed shows nothing.
LATE = ("picture", "texts", "borders")
#: What most of a picture is made of.
RECORDS = ("boxes", "edges")
#: In the order in which they need each other.
SCRIPTS = (
    "format.js", "model.js", "fold.js", "heat.js", "view.js", "panel.js", "charts.js", "page.js",
)  # fmt: skip
UNPACK = "unpack.js"


def to_html(document: Document, compared: Document | None = None) -> str:
    """One file that shows the document, in any browser, without a network.

    With `compared` the page opens with both side by side.

    >>> import graphdl as gd
    >>> from graphdl.visualize.document import document
    >>> page = to_html(document(gd.trace(lambda x: x * 2.0, gd.spec((3,))), "</script>"))
    >>> page.count("</script>"), "http-equiv=\\"Content-Security-Policy\\"" in page
    (2, True)
    """
    script = "\n".join(_part(name) for name in SCRIPTS)
    unpack = _part(UNPACK)
    styles = {"page-style": _colours() + _part("page.css"), "drawing-style": _part("drawing.css")}
    documents = [document] if compared is None else [document, compared]
    content = {"styles": styles, "script": script, "documents": [folded(one) for one in documents]}
    return Template(_part("page.html")).substitute(
        policy=_policy((unpack, script), styles.values()), packed=_packed(content), unpack=unpack
    )


def folded(document: Document) -> Document:
    """The document with its records as columns and its late parts as texts."""
    memory = document["memory"] | {"values": columns(document["memory"]["values"])}
    whole = document | {"nodes": columns(document["nodes"]), "memory": memory}
    return _late(whole | {"graphs": [_late(_drawn(graph)) for graph in document["graphs"]]})


def unfolded(found: Document) -> Document:
    """The document that was folded."""
    whole = _read(found)
    memory = whole["memory"] | {"values": records(whole["memory"]["values"])}
    whole |= {"nodes": records(whole["nodes"]), "memory": memory}
    return whole | {"graphs": [_drawn(_read(graph), records) for graph in whole["graphs"]]}


def _drawn(graph: Document, change: Callable[[Any], Any] = columns) -> Document:
    """A graph of which the boxes and edges are changed, but not those of the overview.

    That is drawn at once and as a whole, for which records are what is fastest.
    """
    picture = graph["picture"]
    return graph | {"picture": picture | {name: change(picture[name]) for name in RECORDS}}


def _late(part: Document) -> Document:
    rest = {name: value for name, value in part.items() if name not in LATE}
    return rest | {"late": {name: _json(part[name]) for name in LATE if name in part}}


def _read(part: Document) -> Document:
    rest = {name: value for name, value in part.items() if name != "late"}
    return rest | {name: json.loads(text) for name, text in part["late"].items()}


def _packed(content: dict[str, Any]) -> str:
    """JSON, deflated, in base64: letters and digits, which end no element of the page."""
    return base64.b64encode(zlib.compress(_json(content).encode(), 9)).decode()


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


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
    """A file beside this one; a script without its indentation and comments of whole lines."""
    text = files(__name__).joinpath(name).read_text(encoding="utf-8")
    if not name.endswith(".js"):
        return text
    lines = (line.strip() for line in _COMMENT.sub("", text).splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("//"))


#: A comment that begins a line. No text of the scripts goes over several lines.
_COMMENT = re.compile(r"^\s*/\*.*?\*/$", re.DOTALL | re.MULTILINE)


def _policy(scripts: Iterable[str], styles: Iterable[str]) -> str:
    return (
        f"default-src 'none'; script-src {_hashes(scripts)}; style-src {_hashes(styles)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _hashes(texts: Iterable[str]) -> str:
    digests = (hashlib.sha256(text.encode()).digest() for text in texts)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
