"""Everything that the page shows, as one plain document: dicts, lists, numbers and text.

`document` reads a graph, and what became of it if it was compiled; it runs nothing, and gives equal
bytes for equal graphs. `.json` files hold it as it is, `.html` files hold it beside the page.

A node is a number, its place in `nodes`, which all graphs of the document share: nodes are
interned, so a node that a pass leaves alone is the same one before and after it. A fact that is not
known is not there. What was measured stands under `measured`; all other times, and bytes and flops,
are estimates. Lengths are in pixels, times in seconds.
"""

from __future__ import annotations

import json
import linecache
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from graphdl.errors import ArgumentError
from graphdl.explain.parts import Explanation, RuleUse
from graphdl.graph import Graph, Node, Source, users
from graphdl.kernels.program import Buffer, Launch, Memory, Value
from graphdl.profile.report import Report
from graphdl.visualize.arrange import arrange
from graphdl.visualize.costs import cost_of
from graphdl.visualize.drawing import Kernel, draw
from graphdl.visualize.labels import cut_name, printable, title, type_text
from graphdl.visualize.options import Request
from graphdl.visualize.picture import PHASES, Band, Drawing, Item, Picture, Point, Rect
from graphdl.visualize.roles import roles_of
from graphdl.visualize.teaching import teach

#: Of the form of the document; it grows when a reader of the old form would misread the new one.
VERSION = 1
#: Of larger graphs only the last is drawn: the passes between would make the file several times
#: as large, and nobody finds what is new among so many nodes by looking.
DRAWN_PASSES = 2_000
#: What a graph that is shown beside another is called.
OTHER = "compared with"
#: What is done to the last graph, which is drawn with the kernels that it becomes.
FUSED = "fuse"
#: The kinds of boxes that are ops: not inputs, nor what is drawn again, nor the names of results.
COUNTED = ("op", "constant")

Document = dict[str, Any]
#: The name of a group, what else is known of it, and its nodes.
_Members = tuple[str, dict[str, Any], Sequence[Node]]


class Compiled(Struct, frozen=True):
    """What became of a graph: what an Executable knows.

    passes: the graph after each pass, by the pass's name, the traced one first. launches: what
    runs, in order; `shared` tells which of them threads share. memory: where values lie.
    explanation: the rules that fired, and why two launches are two. profile: what was measured of
    each launch; or seconds, by the name of a launch.
    """

    passes: Sequence[tuple[str, Graph]]
    launches: Sequence[Launch]
    shared: Sequence[bool]
    memory: Memory
    explanation: Explanation | None = None
    profile: Report | Mapping[str, float] | None = None


def document_of(request: Request) -> Document:
    """The document that someone asked for.

    Raises:
        ArgumentError: a layout that a page does not have.
    """
    if request.layout == "dot":
        raise ArgumentError(
            "layout='dot' is Graphviz's picture, which a page cannot open and close; write "
            "layout='auto', 'training' or 'dag', or draw an .svg, .pdf or .png"
        )
    if request.values is not None:
        taught = teach(request.graph, request.values)
        found = document(request.graph, request.title, taught=taught)
    else:
        compiled = None if request.executable is None else _compiled(request)
        found = document(request.graph, request.title, request.kernels, compiled, request.layout)
    usual = {"level": "op", "color": "phase", "theme": "light"}
    asked = {name: getattr(request, name) for name in usual}
    found["begin"] = {name: value for name, value in asked.items() if value != usual[name]}
    return found


def compared_of(request: Request) -> Document | None:
    """The document of what someone wants to see beside the first; None where they do not.

    Raises:
        ArgumentError: it is neither a graph nor an executable.
    """
    other = request.compare
    if other is None:
        return None
    if isinstance(other, Graph):
        beside = Request(other, layout=request.layout, title=OTHER)
    elif isinstance(getattr(other, "optimized", None), Graph):
        graph: Graph = other.optimized
        beside = Request(graph, layout=request.layout, title=OTHER, executable=other)
    else:
        raise ArgumentError(
            f"compare= takes a graph, gd.trace(f, *args), or an executable, "
            f"gd.compile(f).lower(*args), not {other!r:.60}"
        )
    return document_of(beside)


def _compiled(request: Request) -> Compiled:
    executable = request.executable
    return Compiled(
        executable.passes,
        executable.launches,
        [kernel.parallel for kernel in executable.kernels],
        executable.memory,
        executable.explain(),
        request.profile,
    )


def document(
    graph: Graph,
    name: str = "graph",
    groups: Sequence[Kernel] = (),
    compiled: Compiled | None = None,
    layout: str = "auto",
    taught: tuple[Drawing, Sequence[str]] | None = None,
) -> Document:
    """What there is to see of a graph.

    Args:
        graph: what to draw: of a compiled one, the graph after the passes.
        name: the title.
        groups: nodes to draw as one.
        compiled: what became of it. Then its launches are the groups.
        layout: "training", "dag", or "auto", which decides by whether there is a backward pass.
        taught: a drawing of the graph with numbers, and notes, from graphdl.visualize.teaching.

    >>> import graphdl as gd
    >>> found = document(gd.trace(lambda x: x * 2.0, gd.spec((3,))), "double")
    >>> [node["op"] for node in found["nodes"]]
    ['input', 'constant', 'broadcast', 'multiply']
    >>> found["graphs"][0]["outputs"], found["nodes"][3]["bytes"], found["nodes"][3]["inputs"]
    ([3], 24, [0, 2])
    """
    stages = _stages(graph, compiled)
    table = _Table(stages)
    found: Document = {"format": "graphdl", "version": VERSION, "name": printable(name)}
    found["nodes"] = table.nodes()
    found["sources"] = [_source(source) for source in table.sources]
    members = _kernel_groups(compiled) if compiled else _given_groups(groups)
    found["groups"] = [
        {"name": printable(label)} | facts | {"nodes": [table.number[node] for node in nodes]}
        for label, facts, nodes in members
    ]
    found["graphs"] = [
        _graph(stage, after, table, layout, members if i == len(stages) - 1 else ())
        for i, (stage, after) in enumerate(stages)
    ]
    if compiled is not None:
        found["passes"] = _passes(compiled)
        found["kernels"], found["texts"] = _kernels(compiled, table)
        found["borders"] = _borders(compiled.explanation)
        found["memory"] = _memory(compiled, table)
        if isinstance(compiled.profile, Report):
            found["measured"] = _measured_call(compiled.profile)
    else:
        found["memory"] = _memory_unfused(graph, table)
    if taught is not None:
        drawing, notes = taught
        found["graphs"][-1]["picture"] = _picture(arrange(drawing), (), graph, table)
        found["notes"] = [printable(note) for note in notes]
    return found


def to_json(found: Document) -> str:
    """The document as text: ASCII, so that any encoding carries it."""
    return json.dumps(found, separators=(",", ":"), allow_nan=False)


def _stages(graph: Graph, compiled: Compiled | None) -> list[tuple[str, Graph]]:
    """The graphs that differ, by the pass that made them; the last is the one that is fused."""
    if compiled is None:
        return [("graph", graph)]
    stages: list[tuple[str, Graph]] = []
    for name, after in compiled.passes:
        if not stages or stages[-1][1].nodes != after.nodes:
            stages.append((name, after))
    name, _ = stages.pop()
    fused = (f"{name}, {FUSED}", graph)
    return [*stages, fused] if len(graph.nodes) <= DRAWN_PASSES else [fused]


class _Table:
    """The numbers of nodes and of the user's lines, and what the nodes are for."""

    def __init__(self, stages: Sequence[tuple[str, Graph]]) -> None:
        self.number: dict[Node, int] = {}
        self.source: dict[Node, Source] = {}
        self.phase: dict[Node, str] = {}
        self.gradient_of: dict[Node, dict[Node, None]] = {}
        self.sources: dict[Source, int] = {}
        for _, graph in stages:
            roles = roles_of(graph)
            for node in graph.nodes:
                self.number.setdefault(node, len(self.number))
                if node in roles.sources:
                    self.source.setdefault(node, roles.sources[node])
                if node in roles.phase:
                    self.phase[node] = roles.phase[node]
                elif node in roles.parameters:
                    self.phase[node] = "parameter"
                else:
                    self.phase.setdefault(node, "argument")
            for node, origin in roles.gradient_of.items():
                self.gradient_of.setdefault(node, {}).setdefault(origin)
        for source in self.source.values():
            self.sources.setdefault(source, len(self.sources))

    def nodes(self) -> list[Document]:
        return [self._node(node) for node in self.number]

    def _node(self, node: Node) -> Document:
        found: Document = {
            "op": node.op.name,
            "title": printable(title(node)),
            "dtype": str(node.dtype),
            "shape": list(node.shape),
            "bytes": node.type.nbytes,
            "flops": cost_of(node).flops,
            "inputs": [self.number[operand] for operand in node.inputs],
            "phase": self.phase[node],
        }
        source = self.source.get(node)
        facts = {
            "gradient_of": [self.number[origin] for origin in self.gradient_of.get(node, ())],
            "source": None if source is None else self.sources[source],
            "scopes": [] if source is None else [printable(s.name) for s in source.scopes],
        }
        if found["title"] == found["op"]:
            del found["title"]
        return found | {key: value for key, value in facts.items() if value not in ([], None)}


def _source(source: Source) -> Document:
    code = linecache.getline(source.file, source.line).strip()
    found: Document = {"file": source.file, "line": source.line, "function": source.function}
    return found | ({"code": code} if code else {})


def _graph(
    stage: str, graph: Graph, table: _Table, layout: str, groups: Sequence[_Members]
) -> Document:
    kernels = [Kernel(name, nodes) for name, _, nodes in groups]
    picture = arrange(draw(graph, kernels, layout))
    cells = _cells(picture)
    found: Document = {
        "name": stage,
        "nodes": [table.number[node] for node in graph.nodes],
        "names": [printable(graph.label(i)) for i in range(len(graph.inputs))],
        "outputs": [table.number[node] for node in graph.outputs],
        "picture": _picture(picture, cells, graph, table),
    }
    if cells:
        found["overview"] = _overview(picture, cells)
    return found


def _picture(picture: Picture, cells: Sequence[_Cell], graph: Graph, table: _Table) -> Document:
    """Where things are: boxes and frames by their place in the lists, lengths in pixels."""
    node_of = {label: node for node, label in graph.labels.items()}
    cell_of = {key: i for i, cell in enumerate(cells) for key in cell.keys}
    frame_of = {frame.group.key: len(cells) + i for i, frame in enumerate(picture.frames)}
    box_of = {box.item.key: i for i, box in enumerate(picture.boxes)}
    return {
        "width": _short(picture.width),
        "height": _short(picture.height),
        "boxes": [
            _text_of_box(box.item, node_of.get(box.item.node), table)
            | _rectangle(box.rect)
            | _inside(frame_of.get(box.item.group, cell_of.get(box.item.key)))
            for box in picture.boxes
        ],
        "groups": [
            {"name": cell.name, "phase": cell.phase, "band": cell.band} | _rectangle(cell.rect)
            for cell in cells
        ]
        + [
            {"group": int(frame.group.key.rpartition(" ")[2])}
            | _rectangle(frame.rect)
            | _inside(cell_of.get(frame.group.key))
            for frame in picture.frames
        ],
        "bands": [
            {"name": strip.band.name} | _rectangle(strip.rect)
            for strip in picture.strips
            if strip.band.name or len(picture.strips) > 1
        ],
        "edges": _edges(picture, box_of),
    }


class _Cell(Struct, frozen=True):
    """The forward, the backward or the update part of a band: the boxes and frames in it.

    No two overlap, because each band has its own rows, and each part its own column.
    """

    name: str
    phase: str
    band: int
    keys: tuple[str, ...]
    rect: Rect


def _cells(picture: Picture) -> list[_Cell]:
    if len(picture.strips) < 2:
        return []
    tops = [
        (strip.rect.x, strip.rect.right, strip.rect.y, strip.rect.bottom)
        for strip in picture.strips
    ]
    found: dict[tuple[int, int], dict[str, Rect]] = {}
    grouped = {frame.group.key for frame in picture.frames}
    parts = [(frame.group.key, frame.rect, frame.column) for frame in picture.frames]
    parts += [
        (box.item.key, box.rect, box.column)
        for box in picture.boxes
        if box.item.group not in grouped
    ]
    for key, rect, column in parts:
        x, y = rect.centre
        band = next(
            i
            for i, (left, right, top, end) in enumerate(tops)
            if left <= x <= right and top <= y <= end
        )
        found.setdefault((band, column), {})[key] = rect
    cells: list[_Cell] = []
    for (band, column), rects in sorted(found.items()):
        name = picture.strips[band].band.name or f"part {band + 1}"
        phase = PHASES[column % len(PHASES)]
        x, y = min(rect.x for rect in rects.values()), min(rect.y for rect in rects.values())
        right = max(rect.right for rect in rects.values())
        bottom = max(rect.bottom for rect in rects.values())
        cells.append(_Cell(name, phase, band, tuple(rects), Rect(x, y, right - x, bottom - y)))
    return cells


def _holds(rect: Rect, point: Point) -> bool:
    x, y = point
    return rect.x <= x <= rect.right and rect.y <= y <= rect.bottom


def _overview(picture: Picture, cells: Sequence[_Cell]) -> Document:
    """The picture of the parts of the bands, each one box."""
    cell_of = {key: i for i, cell in enumerate(cells) for key in cell.keys}
    place = {
        box.item.key: cell_of.get(box.item.group, cell_of.get(box.item.key, 0))
        for box in picture.boxes
    }
    count = Counter(place[box.item.key] for box in picture.boxes if box.item.kind in COUNTED)
    items = [
        Item(
            key=str(i),
            node="",
            kind="scope",
            title=cut_name(cell.name),
            detail=f"{cell.phase} · {count[i]} op{'s' * (count[i] != 1)}",
            phase=cell.phase,
            band=cell.band,
            count=count[i],
        )
        for i, cell in enumerate(cells)
    ]
    ends = [(place[wire.tail], place[wire.head]) for wire in picture.wires]
    edges = dict.fromkeys((str(tail), str(head)) for tail, head in ends if tail != head)
    bands = tuple(Band("") for _ in picture.strips)
    small = arrange(Drawing(tuple(items), tuple(edges), (), bands, picture.layout == "training"))
    return {
        "width": _short(small.width),
        "height": _short(small.height),
        "boxes": [
            {"cell": int(box.item.key), "kind": "scope", "title": box.item.title}
            | {"detail": box.item.detail, "phase": box.item.phase}
            | _rectangle(box.rect)
            for box in small.boxes
        ],
        "groups": [],
        "edges": _edges(small, {box.item.key: i for i, box in enumerate(small.boxes)}),
    }


def _edges(picture: Picture, box_of: Mapping[str, int]) -> list[Document]:
    return [
        {
            "from": box_of[wire.tail],
            "to": box_of[wire.head],
            "path": [_short(length) for point in wire.points for length in point],
        }
        | ({"saved": 1} if wire.kind == "saved" else {})
        for wire in picture.wires
    ]


def _inside(group: int | None) -> Document:
    return {} if group is None else {"in": group}


def _rectangle(rect: Rect) -> Document:
    lengths = {"x": rect.x, "y": rect.y, "w": rect.width, "h": rect.height}
    return {name: _short(length) for name, length in lengths.items()}


def _short(length: float) -> float:
    """Finer than a pixel, in few characters."""
    rounded = round(length, 1)
    return int(rounded) if rounded == int(rounded) else rounded


def _given_groups(groups: Sequence[Kernel]) -> list[_Members]:
    return [(group.name, {}, group.nodes) for group in groups]


def _kernel_groups(compiled: Compiled) -> list[_Members]:
    """Launches that compute the same nodes, as the parts of a sum in several threads, are one."""
    groups: list[tuple[list[int], dict[Node, None]]] = []
    place: dict[Node, int] = {}
    for i, launch in enumerate(compiled.launches):
        known = {place[node] for node in launch.nodes if node in place}
        at = min(known, default=len(groups))
        if at == len(groups):
            groups.append(([], {}))
        groups[at][0].append(i)
        groups[at][1].update(dict.fromkeys(node for node in launch.nodes if node not in place))
        place |= {node: at for node in launch.nodes if node not in place}
    return [
        (compiled.launches[numbers[0]].source.name, {"kernels": numbers}, list(nodes))
        for numbers, nodes in groups
        if nodes
    ]


def _passes(compiled: Compiled) -> list[Document]:
    """How many nodes each pass left, and the rules that fired in it."""
    explained = compiled.explanation.passes if compiled.explanation is not None else ()
    rules = {step.name: step.rules for step in explained}
    return [
        {"name": name, "nodes": len(after.nodes)}
        | ({"rules": [_rule(use) for use in rules[name]]} if rules.get(name) else {})
        for name, after in compiled.passes
    ]


def _rule(use: RuleUse) -> Document:
    return {
        "rule": use.rule,
        "count": use.count,
        "before": printable(use.before),
        "after": printable(use.after),
        "lines": list(use.lines),
    }


def _borders(explanation: Explanation | None) -> list[Document]:
    if explanation is None:
        return []
    return [
        {"before": border.before, "after": border.after, "why": border.why}
        for border in explanation.borders
    ]


def _measured_call(report: Report) -> Document:
    """The call as a whole, and what the machine could do."""
    return {
        "seconds": report.seconds,
        "median": report.median,
        "calls": report.calls,
        "overhead": report.overhead,
        "bandwidth": report.peak.bandwidth,
        "flops": dict(report.peak.flops),
        "threads": report.peak.threads,
    }


def _measured(
    number: int, launch: Launch, profile: Report | Mapping[str, float] | None
) -> Document:
    """What was measured of a launch."""
    if isinstance(profile, Report):
        kernel = profile.kernels[number]
        bandwidth, rate = kernel.limits(profile.peak)
        return {
            "seconds": kernel.seconds,
            "median": kernel.median,
            "runs": kernel.runs,
            "dtype": kernel.dtype,
            "share of bandwidth": bandwidth,
            "share of flops": rate,
        }
    if profile and launch.source.name in profile:
        return {"seconds": float(profile[launch.source.name])}
    return {}


def _kernels(compiled: Compiled, table: _Table) -> tuple[list[Document], list[str]]:
    """The launches, and the texts of their kernels, each once."""
    texts: dict[str, int] = {}
    kernels: list[Document] = []
    for i, launch in enumerate(compiled.launches):
        found: Document = {
            "name": launch.source.name,
            "nodes": [table.number[node] for node in launch.nodes],
            "reads": _numbers(launch.reads, table),
            "writes": _numbers(launch.writes, table),
            "bytes": launch.bytes,
            "flops": launch.flops,
            "seconds": round(launch.cost * 1e-9, 12),
            "iterations": launch.iterations,
            "shared": compiled.shared[i],
            "text": texts.setdefault(_text_of(launch), len(texts)),
        }
        if launch.core is not None:
            found["core"] = launch.core
        measured = _measured(i, launch, compiled.profile)
        if measured:
            found["measured"] = measured
        kernels.append(found)
    return kernels, list(texts)


def _text_of_box(item: Item, node: Node | None, table: _Table) -> Document:
    """The node of a box, and what does not follow from it: most are ops, with their type."""
    found: Document = {} if node is None else {"node": table.number[node]}
    if item.kind != "op" or node is None:
        return found | {"kind": item.kind, "title": item.title, "detail": item.detail}
    if item.title != printable(title(node)):
        found["title"] = item.title
    return found | ({"detail": item.detail} if item.detail != type_text(node.type) else {})


def _text_of(launch: Launch) -> str:
    """The Python text of a kernel, and of the kernels in the bodies that it runs."""
    texts = [launch.source.text]
    for i, body in enumerate(launch.programs):
        texts.append(f"# body {i}")
        texts += [_text_of(inner) for inner in body.program.launches]
    return "\n".join(texts)


def _numbers(values: Iterable[Value], table: _Table) -> list[int]:
    return [table.number[value] for value in values if isinstance(value, Node)]


def _memory(compiled: Compiled, table: _Table) -> Document:
    """Where each value lies, from the launch that writes it first to the last that reads it."""
    memory = compiled.memory
    first: dict[Value, int] = {}
    last: dict[Value, int] = {}
    for step, launch in enumerate(compiled.launches):
        for value in (*launch.reads, *launch.writes):
            first.setdefault(value, step)
            last[value] = step
    values: list[Document] = []
    end = len(compiled.launches) - 1
    for value, step in first.items():
        place = memory.places[value]
        if place.kind not in ("arena", "result"):
            continue
        found: Document = {
            "bytes": value.nbytes if isinstance(value, Buffer) else value.type.nbytes,
            "first": step,
            "last": end if place.kind == "result" else last[value],
            "kind": place.kind,
        }
        if place.kind == "arena":
            found["offset"] = place.offset
        if isinstance(value, Node):
            found["node"] = table.number[value]
        else:
            found["purpose"] = value.purpose
        values.append(found)
    return {
        "steps": "kernels",
        "count": len(compiled.launches),
        "arena": memory.arena_bytes,
        "unshared": memory.values_bytes,
        "results": memory.result_bytes,
        "constants": memory.constant_bytes,
        "peak": memory.peak_bytes,
        "values": values,
    }


def _memory_unfused(graph: Graph, table: _Table) -> Document:
    """What would live if each op ran by itself, in order, and wrote its result."""
    step = {node: i for i, node in enumerate(graph.operations)}
    used = users(graph.nodes)
    end = len(step) - 1
    results = set(graph.outputs)
    values = [
        {
            "bytes": node.type.nbytes,
            "first": at,
            "last": end if node in results else max(step[user] for user in used[node]),
            "kind": "result" if node in results else "value",
            "node": table.number[node],
        }
        for node, at in step.items()
        if node.op.family not in ("constant", "movement")
    ]
    return {"steps": "operations", "count": len(step), "values": values}
