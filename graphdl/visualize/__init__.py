"""Pictures of graphs: `save(graph, "graph.svg")` or `"graph.dot"`.

Reads graphs and runs nothing.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from graphdl.graph import Graph, Node
from graphdl.visualize.dot import to_dot
from graphdl.visualize.scene import scene
from graphdl.visualize.svg import to_svg

__all__ = ["save", "to_dot", "to_svg"]

_WRITERS = {".dot": to_dot, ".svg": to_svg}


def save(
    graph: Graph, path: str | Path, groups: Mapping[str, Iterable[Node | str]] | None = None
) -> Path:
    """Draw a graph into a file.

    Args:
        graph: from `gd.trace`, or `.graph` or `.optimized` of an Executable.
        path: the file; its ending, `.svg` or `.dot`, says in which format.
        groups: nodes (or their labels, as `str(graph)` prints them) to draw in one colour, by the
            name of their group; for instance
            `{kernel.name: kernel.nodes for kernel in executable.kernels}`.

    Returns:
        The path.

    >>> import graphdl as gd, tempfile
    >>> graph = gd.trace(lambda x: x * x, gd.spec((3,)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     print(save(graph, folder + "/square.svg").name)
    square.svg
    """
    path = Path(path)
    if path.suffix not in _WRITERS:
        raise ValueError(
            f"cannot draw a graph as {path.name!r}; the name has to end in {' or '.join(_WRITERS)}"
        )
    path.write_text(_WRITERS[path.suffix](scene(graph, groups or {})), encoding="utf-8")
    return path
