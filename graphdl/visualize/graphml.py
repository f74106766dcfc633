"""A drawing as GraphML, which networkx, Gephi, yEd and igraph read."""

from __future__ import annotations

import io
from typing import Any

from graphdl.visualize.labels import printable
from graphdl.visualize.picture import Drawing, Item


def to_networkx(drawing: Drawing) -> Any:
    """The drawing as a networkx.DiGraph whose attributes are numbers and text."""
    import networkx  # 0.25 s of start-up that only those who ask for it pay

    bands = [band.name for band in drawing.bands]
    groups = {group.key: group.name for group in drawing.groups}
    result = networkx.DiGraph()
    number = {item.key: f"n{i}" for i, item in enumerate(drawing.items)}
    for item in drawing.items:
        result.add_node(number[item.key], **_attributes(item, bands, groups))
    for tail, head in drawing.edges:
        result.add_edge(number[tail], number[head])
    return result


def _attributes(item: Item, bands: list[str], groups: dict[str, str]) -> dict[str, Any]:
    texts = {
        "key": item.key,
        "node": item.node,
        "kind": item.kind,
        "title": item.title,
        "type": item.detail,
        "phase": item.phase,
        "layer": bands[item.band],
        "kernel": groups.get(item.group, ""),
        "scope": " / ".join(item.scopes),
        "source": item.source,
        "gradient_of": item.gradient_of,
    }
    found: dict[str, Any] = {name: printable(text) for name, text in texts.items()}
    found |= {"bytes": item.cost.nbytes, "flops": item.cost.flops, "output": item.is_output}
    if item.cost.seconds is not None:
        found["seconds"] = item.cost.seconds
    return found


def to_graphml(drawing: Drawing) -> str:
    """Write the drawing.

    >>> item = Item("x", "x", "argument", "x", "f32[3]")
    >>> text = to_graphml(Drawing((item,), ()))
    >>> import networkx
    >>> networkx.parse_graphml(text).nodes["n0"]["type"]
    'f32[3]'
    """
    import networkx  # as above

    # its own writer, not the one of lxml, which is there on some machines and writes other bytes
    out = io.BytesIO()
    networkx.write_graphml_xml(to_networkx(drawing), out, encoding="utf-8", prettyprint=True)
    return out.getvalue().decode("utf-8") + "\n"
