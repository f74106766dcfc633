"""A layout by Graphviz, for those who have it: `layout="dot"`."""

from __future__ import annotations

import shutil
import subprocess

from graphdl.errors import ArgumentError

#: The endings that Graphviz's dot writes, and what it calls them.
FORMATS = {".svg": "svg", ".pdf": "pdf", ".png": "png"}
#: Clusters can take it very long.
SECONDS = 120


def laid_out(text: str, suffix: str) -> bytes:
    """The picture that Graphviz makes of a graph in its language.

    Raises:
        ArgumentError: there is no program `dot`, or it fails or does not end.
    """
    program = shutil.which("dot")
    if program is None:
        raise ArgumentError(
            "layout='dot' needs the program dot of Graphviz (https://graphviz.org/download), which "
            "is not on the PATH; layout='auto' needs nothing"
        )
    command = [program, f"-T{FORMATS[suffix]}"]
    try:
        made = subprocess.run(
            command, input=text.encode(), capture_output=True, check=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        raise ArgumentError(
            f"Graphviz's dot has not laid out the graph in {SECONDS} s; layout='auto' takes a "
            f"moment only, level='kernel' has fewer boxes"
        ) from None
    except subprocess.CalledProcessError as error:
        message = error.stderr.decode(errors="replace").strip()
        raise ArgumentError(f"Graphviz's dot failed: {message:.300}") from None
    return made.stdout
