"""A scene in the DOT language of Graphviz."""

from graphdl.visualize.colours import COLOURS
from graphdl.visualize.scene import Box, Scene, printable


def to_dot(scene: Scene) -> str:
    """Write the scene; groups become clusters.

    >>> from graphdl.visualize.scene import Box, Scene
    >>> print(to_dot(Scene((Box(0, "x", "float32[3]", "input", True, None, ""),), (), ())))
    digraph graphdl {
      node [shape=box, style="rounded,filled", fillcolor=white, fontname="monospace", fontsize=10];
      edge [color="#667085"];
      n0 [label="x\\nfloat32[3]", fillcolor="#e4e7ec", penwidth=2];
    }
    <BLANKLINE>
    """
    lines = [
        "digraph graphdl {",
        '  node [shape=box, style="rounded,filled", fillcolor=white, fontname="monospace", '
        "fontsize=10];",
        '  edge [color="#667085"];',
    ]
    lines += [f"  {_node(box)}" for box in scene.boxes if box.group is None]
    for index, name in enumerate(scene.groups):
        members = [box for box in scene.boxes if box.group == index]
        if members:
            colour = COLOURS[index % len(COLOURS)]
            lines.append(f"  subgraph cluster_{index} {{")
            lines.append(f"    label={_quoted(name)}; color={_quoted(colour.line)};")
            lines.append(f"    node [fillcolor={_quoted(colour.fill)}];")
            lines += [f"    {_node(box)}" for box in members]
            lines.append("  }")
    lines += [f"  n{tail} -> n{head};" for tail, head in scene.edges]
    return "\n".join([*lines, "}"]) + "\n"


def _node(box: Box) -> str:
    attributes = [f"label={_quoted(box.title, box.detail)}"]
    if box.kind == "input":
        attributes.append('fillcolor="#e4e7ec"')
    if box.kind == "constant":
        attributes.append('style="rounded,dashed"')
    if box.output:
        attributes.append("penwidth=2")
    if box.source:
        attributes.append(f"tooltip={_quoted(box.source)}")
    return f"n{box.key} [{', '.join(attributes)}];"


def _quoted(*lines: str) -> str:
    """A DOT string. A backslash begins an escape in a label, so those of the text are doubled."""
    escaped = (printable(line).replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return '"' + "\\n".join(escaped) + '"'
