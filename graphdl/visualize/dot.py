"""A drawing in the DOT language of Graphviz."""

from __future__ import annotations

from collections.abc import Iterable

from graphdl.visualize.labels import printable
from graphdl.visualize.picture import Drawing, Item
from graphdl.visualize.theme import Colour, Theme


def to_dot(drawing: Drawing, theme: Theme) -> str:
    """Write the drawing; groups become clusters, outside of which are all other nodes.

    Ids are n0, n1, ...: Graphviz numbers nodes anew whose ids begin with %.

    >>> from graphdl.visualize.theme import LIGHT
    >>> item = Item("x", "x", "argument", "x", "f32[3]")
    >>> print(to_dot(Drawing((item,), ()), LIGHT).splitlines()[-2])
      n0 [label="x\\nf32[3]", fillcolor="#f2f4f7", color="#667085", id="x"];
    """
    number = {item.key: i for i, item in enumerate(drawing.items)}
    lines = [
        "digraph graphdl {",
        f'  graph [bgcolor="{theme.page}", fontname="monospace", fontsize=10, '
        f'fontcolor="{theme.faint}"];',
        f'  node [shape=box, style="rounded,filled", fontname="monospace", fontsize=10, '
        f'fontcolor="{theme.text}"];',
        f'  edge [color="{theme.wire}"];',
    ]
    lines += [f"  {_node(i, number, theme)}" for i in drawing.items if not i.group]
    for index, group in enumerate(drawing.groups):
        members = [item for item in drawing.items if item.group == group.key]
        lines.append(f"  subgraph cluster_{index} {{")
        lines.append(
            f'    label={quoted([group.name])}; style="rounded,filled"; '
            f'fillcolor="{theme.group.fill}"; color="{theme.group.line}";'
        )
        lines += [f"    {_node(item, number, theme)}" for item in members]
        lines.append("  }")
    lines += [f"  n{number[tail]} -> n{number[head]};" for tail, head in drawing.edges]
    return "\n".join([*lines, "}"]) + "\n"


def colours_of(item: Item, theme: Theme) -> Colour:
    """The colours of a box by its kind and phase."""
    return theme.kinds.get(item.kind, theme.phases[item.phase])


def _node(item: Item, number: dict[str, int], theme: Theme) -> str:
    colours = colours_of(item, theme)
    attributes = [
        f"label={quoted([item.title, item.detail] if item.detail else [item.title])}",
        f'fillcolor="{colours.fill}"',
        f'color="{colours.line}"',
        f"id={quoted([item.key])}",
    ]
    if item.kind == "output":
        attributes.append(f'fontcolor="{theme.page}"')
    if item.kind in ("chip", "constant"):
        attributes.append('style="rounded,filled,dashed"')
    elif item.is_output:
        attributes.append("penwidth=2")
    if item.source:
        attributes.append(f"tooltip={quoted([item.source])}")
    return f"n{number[item.key]} [{', '.join(attributes)}];"


def quoted(lines: Iterable[str]) -> str:
    """A DOT string. A backslash begins an escape in a label, so those of the text are doubled."""
    escaped = (printable(line).replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return '"' + "\\n".join(escaped) + '"'
