"""Pictures of graphs: `save(graph, "graph.svg")` or `"graph.dot"`.

Reads graphs and runs nothing. `Graph.visualize` and `Executable.visualize` are its everyday names.
"""

from pathlib import Path

from graphdl.graph import WRITERS, Graph, Groups
from graphdl.visualize.dot import to_dot
from graphdl.visualize.scene import scene
from graphdl.visualize.svg import to_svg

__all__ = ["save", "to_dot", "to_svg"]

WRITERS[".dot"] = lambda graph, groups: to_dot(scene(graph, groups))
WRITERS[".svg"] = lambda graph, groups: to_svg(scene(graph, groups))


def save(graph: Graph, path: str | Path, groups: Groups | None = None) -> Path:
    """Draw a graph into a file: `graph.visualize(path, groups)` as a function.

    Args:
        graph: from `gd.trace`, or `.graph` or `.optimized` of an Executable.
        path: the file; its ending, `.svg` or `.dot`, says in which format.
        groups: nodes (or their labels, as `str(graph)` prints them) to draw in one colour, by the
            name of their group.

    Returns:
        The path.

    >>> import graphdl as gd, tempfile
    >>> graph = gd.trace(lambda x: x * x, gd.spec((3,)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     print(save(graph, folder + "/square.svg", {"all of it": graph.operations}).name)
    square.svg
    """
    return graph.visualize(path, groups)
