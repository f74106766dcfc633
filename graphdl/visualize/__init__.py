"""Pictures of graphs: what `Graph.visualize` and `Executable.visualize` do.

Reads graphs and runs nothing. `graphdl.visualize.drawing` chooses what is drawn of a graph,
`graphdl.visualize.arrange` gives it places, and `graphdl.visualize.files` makes files of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphdl.graph import PICTURES, Graph, Groups

__all__ = ["html_text", "save", "save_executable", "svg_text"]


def save(graph: Graph, path: str | Path, /, groups: Groups | None = None, **options: Any) -> Path:
    """Draw a graph into a file: `graph.visualize(path, groups, ...)` as a function.

    Args:
        graph: from `gd.trace`, or `.graph` or `.optimized` of an Executable.
        path: the file; its ending says in which format.
        groups: nodes (or their labels, as `str(graph)` prints them) to draw as one, by the name of
            their group.
        options: see `Graph.visualize`, which also lists the errors.

    Returns:
        The path.

    >>> import graphdl as gd, tempfile
    >>> graph = gd.trace(lambda x: x * x, gd.spec((3,)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     print(save(graph, folder + "/square.svg", {"all of it": graph.operations}).name)
    square.svg
    """
    from graphdl.visualize import files  # 20 ms of start-up that only those who draw pay

    return files.save(graph, Path(path), groups, None, options)


def save_executable(executable: Any, path: str | Path, /, **options: Any) -> Path:
    """Draw what an executable runs: its kernels are the groups.

    >>> import graphdl as gd, tempfile
    >>> executable = gd.compile(lambda x: x * x).lower(gd.spec((3,)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     print(save_executable(executable, folder + "/square.svg").name)
    square.svg
    """
    from graphdl.visualize import files  # as above

    return files.save(executable.optimized, Path(path), None, executable, options)


def svg_text(graph: Graph, executable: Any = None) -> str:
    """The picture of a graph, or of an executable, as the text of an SVG file.

    >>> import graphdl as gd
    >>> svg_text(gd.trace(lambda x: x * x, gd.spec((3,))))[:4]
    '<svg'
    """
    from graphdl.visualize import files  # as above

    return files.svg_text(graph, executable)


def html_text(graph: Graph, executable: Any = None) -> str:
    """The same as a part of a page, which scrolls where it is large.

    >>> import graphdl as gd
    >>> html_text(gd.trace(lambda x: x * x, gd.spec((3,))))[:4]
    '<div'
    """
    return f'<div style="overflow:auto;max-height:45em">{svg_text(graph, executable)}</div>'


PICTURES.update(save=save, svg=svg_text, html=html_text)
