"""A drawing as a Mermaid flowchart, which GitHub and many notebooks draw from text."""

from __future__ import annotations

from graphdl.visualize.labels import printable
from graphdl.visualize.picture import PHASES, Drawing, Item
from graphdl.visualize.theme import Theme


def to_mermaid(drawing: Drawing, theme: Theme) -> str:
    """Write the drawing; groups become subgraphs.

    >>> from graphdl.visualize.theme import LIGHT
    >>> items = Item("x", "x", "argument", "x", "f32[3]"), Item("%0", "%0", "op", "exp", "f32[3]")
    >>> print("\\n".join(to_mermaid(Drawing(items, (("x", "%0"),)), LIGHT).splitlines()[:4]))
    flowchart TB
      n0(["x<br/>f32#91;3#93;"]):::argument
      n1["exp<br/>f32#91;3#93;"]:::forward
      n0 --> n1
    """
    number = {item.key: i for i, item in enumerate(drawing.items)}
    lines = ["flowchart TB"]
    lines += [f"  {_node(i, number)}" for i in drawing.items if not i.group]
    for index, group in enumerate(drawing.groups):
        lines.append(f'  subgraph g{index}["{escaped(group.name)}"]')
        lines += [f"    {_node(i, number)}" for i in drawing.items if i.group == group.key]
        lines.append("  end")
    lines += [f"  n{number[tail]} --> n{number[head]}" for tail, head in drawing.edges]
    used = {_class(item) for item in drawing.items}
    styles = {phase: theme.phases[phase] for phase in PHASES} | dict(theme.kinds)
    for name, colours in styles.items():
        if name in used:
            text = theme.page if name == "output" else theme.text
            lines.append(
                f"  classDef {name} fill:{colours.fill},stroke:{colours.line},color:{text}"
            )
    return "\n".join(lines) + "\n"


def _class(item: Item) -> str:
    return item.phase if item.kind in ("op", "kernel", "scope") else item.kind


def _node(item: Item, number: dict[str, int]) -> str:
    text = escaped(item.title) + (f"<br/>{escaped(item.detail)}" if item.detail else "")
    round_ = item.kind in ("argument", "parameter", "chip", "output")
    left, right = ('(["', '"])') if round_ else ('["', '"]')
    return f"n{number[item.key]}{left}{text}{right}:::{_class(item)}"


def escaped(text: str) -> str:
    """Everything that is no letter, digit, space, or harmless sign as Mermaid's `#number;`.

    Mermaid reads quotes, brackets, `<`, `#`, `;` and backquotes, and more in some of its versions.
    """
    return "".join(c if c.isalnum() or c in " _.,=+-/" else f"#{ord(c)};" for c in printable(text))
