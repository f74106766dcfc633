"""Pictures as files: which ending is written how."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from graphdl.errors import ArgumentError
from graphdl.graph import Graph, Groups, Node
from graphdl.visualize.arrange import arrange
from graphdl.visualize.document import document_of, to_json
from graphdl.visualize.dot import to_dot
from graphdl.visualize.drawing import Kernel, draw
from graphdl.visualize.graphml import to_graphml
from graphdl.visualize.ink import Scene
from graphdl.visualize.mermaid import to_mermaid
from graphdl.visualize.options import OPTIONS, Request
from graphdl.visualize.page import to_html
from graphdl.visualize.paint import paint
from graphdl.visualize.pdf import to_pdf
from graphdl.visualize.picture import Cost, Drawing
from graphdl.visualize.png import to_png
from graphdl.visualize.svg import to_svg
from graphdl.visualize.teaching import teach
from graphdl.visualize.theme import THEMES

Writer = Callable[[Request], str | bytes]


def drawing_of(request: Request) -> Drawing:
    """What to draw."""
    return draw(request.graph, request.kernels, request.layout)


def scene_of(request: Request) -> Scene:
    """The whole picture, as rectangles, lines and text."""
    if request.values is not None:
        drawing, notes = teach(request.graph, request.values)
        theme = THEMES[request.theme]
        return paint(arrange(drawing), theme, request.color, request.title, notes)
    picture = arrange(drawing_of(request))
    return paint(picture, THEMES[request.theme], request.color, request.title)


WRITERS: dict[str, Writer] = {
    ".svg": lambda request: to_svg(scene_of(request)),
    ".pdf": lambda request: to_pdf(scene_of(request)),
    ".png": lambda request: to_png(scene_of(request)),
    ".dot": lambda request: to_dot(drawing_of(request), THEMES[request.theme]),
    ".mmd": lambda request: to_mermaid(drawing_of(request), THEMES[request.theme]),
    ".graphml": lambda request: to_graphml(drawing_of(request)),
    ".html": lambda request: to_html(document_of(request)),
    ".json": lambda request: to_json(document_of(request)),
}


def save(
    graph: Graph,
    path: Path,
    groups: Groups | None,
    executable: Any,
    options: Mapping[str, Any],
) -> Path:
    """Write a picture: see `graphdl.visualize.save`."""
    if path.suffix not in WRITERS:
        raise ArgumentError(
            f"cannot draw a graph as {path.name!r}; the name has to end in one of "
            f"{' '.join(WRITERS)}"
        )
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise ArgumentError(
            f"visualize has no option {unknown[0]!r:.40}; the options are {', '.join(OPTIONS)}"
        )
    kernels = _groups(graph, groups or {}) if executable is None else kernels_of(executable)
    made = WRITERS[path.suffix](
        Request(graph, kernels, title=path.stem, executable=executable, **options)
    )
    if isinstance(made, bytes):
        path.write_bytes(made)
    else:
        path.write_text(made, encoding="utf-8")
    return path


def svg_text(graph: Graph, executable: Any = None) -> str:
    """The picture that a notebook shows."""
    return to_svg(scene_of(Request(graph, [] if executable is None else kernels_of(executable))))


def kernels_of(executable: Any) -> list[Kernel]:
    """What runs as one."""
    return [
        Kernel(launch.source.name, launch.nodes, Cost(launch.bytes, launch.flops))
        for launch in executable.launches
    ]


def _groups(graph: Graph, groups: Mapping[str, Iterable[Node | str]]) -> list[Kernel]:
    labelled = {label: node for node, label in graph.labels.items()}
    found: list[Kernel] = []
    for name, members in groups.items():
        try:
            nodes = [labelled[m] if isinstance(m, str) else m for m in members]
        except KeyError as error:
            raise ArgumentError(
                f"group {name!r:.60} names {error.args[0]!r:.60}, which is no node of the graph; "
                f"str(graph) prints the labels"
            ) from None
        found.append(Kernel(name, nodes))
    return found
