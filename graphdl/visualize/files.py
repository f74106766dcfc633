"""Pictures as files: which ending is written how."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from graphdl.errors import ArgumentError
from graphdl.graph import Graph, Groups, Node
from graphdl.profile.report import Report
from graphdl.visualize.arrange import arrange
from graphdl.visualize.document import compared_of, document_of, to_json
from graphdl.visualize.dot import to_dot
from graphdl.visualize.drawing import Kernel, draw
from graphdl.visualize.graphml import to_graphml
from graphdl.visualize.graphviz import FORMATS, laid_out
from graphdl.visualize.ink import Scene
from graphdl.visualize.levels import collapsed
from graphdl.visualize.mermaid import to_mermaid
from graphdl.visualize.options import OPTIONS, Request
from graphdl.visualize.page import to_html
from graphdl.visualize.paint import paint
from graphdl.visualize.pdf import to_pdf
from graphdl.visualize.picture import Cost, Drawing
from graphdl.visualize.png import to_png
from graphdl.visualize.repeats import folded
from graphdl.visualize.svg import to_svg
from graphdl.visualize.teaching import teach
from graphdl.visualize.theme import THEMES

#: What can hold a picture with numbers at the nodes and edges.
NUMBERED = (*FORMATS, ".html", ".json")
#: What can show two graphs.
COMPARING = (".html",)
#: Options that would change nothing, by the ending: boxes have the colours of their phases there.
IDLE = {".dot": ("color", "profile"), ".mmd": ("color", "profile"), ".graphml": ("color", "theme")}
#: In a notebook graphs of more nodes than these have a box for each kernel, or for each layer.
LARGE, LARGEST = 150, 2000

Writer = Callable[[Request], str | bytes]


def drawing_of(request: Request) -> Drawing:
    """What to draw, every node of the graph."""
    return collapsed(draw(request.graph, request.kernels, request.layout), request.level)


def scene_of(request: Request) -> Scene:
    """The whole picture, as rectangles, lines and text."""
    if request.values is not None:
        drawing, notes = teach(request.graph, request.values)
        theme = THEMES[request.theme]
        return paint(arrange(drawing), theme, request.color, request.title, notes)
    drawing = folded(draw(request.graph, request.kernels, request.layout))
    picture = arrange(collapsed(drawing, request.level))
    return paint(picture, THEMES[request.theme], request.color, request.title)


def _image(request: Request, suffix: str, write: Callable[[Scene], str | bytes]) -> str | bytes:
    if request.layout == "dot":
        return laid_out(to_dot(drawing_of(request), THEMES[request.theme]), suffix)
    return write(scene_of(request))


WRITERS: dict[str, Writer] = {
    ".svg": lambda request: _image(request, ".svg", to_svg),
    ".pdf": lambda request: _image(request, ".pdf", to_pdf),
    ".png": lambda request: _image(request, ".png", to_png),
    ".dot": lambda request: to_dot(drawing_of(request), THEMES[request.theme]),
    ".mmd": lambda request: to_mermaid(drawing_of(request), THEMES[request.theme]),
    ".graphml": lambda request: to_graphml(drawing_of(request)),
    ".html": lambda request: to_html(document_of(request), compared_of(request)),
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
    known = OPTIONS if executable is not None else ("groups", *OPTIONS)
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        near = get_close_matches(unknown[0], known, 1)
        raise ArgumentError(
            f"visualize has no option {unknown[0]!r:.40}; "
            + (f"write {near[0]}=; " if near else "")
            + f"the options are {', '.join(known)}"
        )
    kernels = _groups(graph, groups or {}) if executable is None else kernels_of(executable)
    if options.get("values") is not None and path.suffix not in NUMBERED:
        raise ArgumentError(
            f"values= draws a picture with numbers, which {path.name!r} cannot hold; the name has "
            f"to end in one of {' '.join(NUMBERED)}"
        )
    if options.get("compare") is not None and path.suffix not in COMPARING:
        raise ArgumentError(
            f"compare= shows two graphs side by side in a page, which {path.name!r} is not; the "
            f"name has to end in {' or '.join(COMPARING)}"
        )
    _refuse_idle(path, options)
    profile = options.get("profile")
    if profile is not None:
        kernels = measured(kernels, profile)
    made = WRITERS[path.suffix](
        Request(graph, kernels, title=path.stem, executable=executable, **options)
    )
    if isinstance(made, bytes):
        path.write_bytes(made)
    else:
        path.write_text(made, encoding="utf-8")
    return path


def _refuse_idle(path: Path, options: Mapping[str, Any]) -> None:
    """Raise ArgumentError for an option that would not change the file."""
    idle = ("color",) if options.get("layout") == "dot" else IDLE.get(path.suffix, ())
    usual = {"color": "phase", "theme": "light"}
    for name in idle:
        if options.get(name, usual.get(name)) != usual.get(name):
            numbers = () if path.suffix in NUMBERED else ("values",)
            pages = () if path.suffix in COMPARING else ("compare",)
            rest = [one for one in OPTIONS if one not in (*idle, *numbers, *pages)]
            raise ArgumentError(
                f"{name}= changes nothing in {path.name!r}"
                + (" as Graphviz draws it" if path.suffix in FORMATS else "")
                + f"; the options that do are {', '.join(rest)}"
            )


def svg_text(graph: Graph, executable: Any = None) -> str:
    """The picture that a notebook shows: of large graphs with fewer boxes."""
    kernels = [] if executable is None else kernels_of(executable)
    size = len(graph.nodes)
    level = "scope" if size > LARGEST else "kernel" if kernels and size > LARGE else "op"
    return to_svg(scene_of(Request(graph, kernels, level=level)))


def kernels_of(executable: Any) -> list[Kernel]:
    """What runs as one."""
    return [
        Kernel(launch.source.name, launch.nodes, Cost(launch.bytes, launch.flops))
        for launch in executable.launches
    ]


def measured(kernels: Sequence[Kernel], profile: Any) -> list[Kernel]:
    """The kernels with their times: from a report by number, from a mapping by name."""
    if isinstance(profile, Mapping):
        seconds = [profile.get(kernel.name) for kernel in kernels]
        known = ", ".join(sorted({kernel.name for kernel in kernels}))
        strange = [name for name in profile if all(name != kernel.name for kernel in kernels)]
        if strange:
            raise ArgumentError(
                f"profile= has a time of {strange[0]!r:.60}, which is no kernel of this program; "
                f"its kernels are {known:.300}"
            )
    else:
        if not isinstance(profile, Report):
            raise ArgumentError(
                f"profile= takes the report of executable.profile(*args), or seconds by the name "
                f"of a kernel, not {profile!r:.40}"
            )
        if [time.name for time in profile.kernels] != [kernel.name for kernel in kernels]:
            raise ArgumentError(
                f"this profile is not of this executable: it has {len(profile.kernels)} kernels, "
                f"which do not match these {len(kernels)}; pass profile=executable.profile(*args)"
            )
        seconds = [time.seconds for time in profile.kernels]
    return [
        replace(kernel, cost=replace(kernel.cost, seconds=found))
        for kernel, found in zip(kernels, seconds, strict=True)
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
