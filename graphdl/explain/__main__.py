"""`python -m graphdl.explain module:function --arg "f32[128,784]"`: what compiling it comes to."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from graphdl import shell
from graphdl.errors import GraphError


def main(arguments: Sequence[str] | None = None) -> int:
    """Explain the function that the arguments name; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m graphdl.explain",
        description="Print the passes, the rules that fired, the kernels and why each ends "
        "where it does, and who shares memory with whom.",
    )
    shell.add_function(parser)
    parser.add_argument(
        "--after",
        metavar="PASS",
        help="print the graph after this pass instead; 'trace' is the graph before all passes",
    )
    options = parser.parse_args(arguments)
    try:
        found = shell.lowered(options).explain()
    except GraphError as error:
        print(f"graphdl: {error}", file=sys.stderr)
        return 1
    graphs = dict(found.graphs)
    if options.after is None:
        print(found)
    elif options.after in graphs:
        print(graphs[options.after])
    else:
        print(f"graphdl: no pass {options.after!r}; there are {', '.join(graphs)}", file=sys.stderr)
        return 1
    return 0


def _in_a_pipe() -> int:
    """The command where what reads it may stop early, as `head` does: then it ends in silence."""
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:
        # what is still buffered would fail again when Python ends: see the documentation of SIGPIPE
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


if __name__ == "__main__":
    sys.exit(_in_a_pipe())
