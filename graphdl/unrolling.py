"""Python loops that tracing unrolls: which loop it is that makes a graph so large."""

from __future__ import annotations

import ast
import linecache
import warnings
from collections.abc import Callable
from functools import lru_cache
from types import FrameType

from graphdl.errors import UnrolledLoopWarning

#: So many times a line may add the same operation to a graph before tracing warns.
MAX_REPEATS = 1000


def warn(frame: FrameType | None, is_users: Callable[[FrameType], bool], traced_by: int) -> None:
    """Warn of the innermost loop that runs in the frames of the user's, from `frame` on.

    The frame of the identity `traced_by` called what is traced: a loop around that is not unrolled.
    """
    first = frame
    while frame is not None and id(frame) != traced_by:
        if is_users(frame):
            line = _loop(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_firstlineno)
            if line is not None:
                _warn(frame.f_code.co_filename, line, "this loop is unrolled")
                return
        frame = frame.f_back
    while first is not None and not is_users(first):
        first = first.f_back
    if first is not None:
        _warn(first.f_code.co_filename, first.f_lineno, "what repeats this line is unrolled")


def _warn(file: str, line: int, what: str) -> None:
    warnings.warn_explicit(
        f"{what}: it has put the same operation into the graph more than {MAX_REPEATS:,} times, "
        f"and each repeat is traced and compiled by itself. Write gd.fori_loop(start, stop, body, "
        f"state), or gd.scan(body, state, xs) where each step gives a value or takes a row; they "
        f"compile the body once\n  at {file}:{line}: {linecache.getline(file, line).strip()}",
        UnrolledLoopWarning,
        file,
        line,
    )


def _loop(file: str, line: int, first: int) -> int | None:
    """The line of the innermost `for` or `while` around a line of a function that starts there."""
    found = [
        start for start, stop in _loops(file) if first <= start < line <= stop or start == line
    ]
    return max(found, default=None)


@lru_cache(64)
def _loops(file: str) -> tuple[tuple[int, int], ...]:
    """The first and the last line of each loop of a file; comprehensions too."""
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return ()
    kinds = (ast.For, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    return tuple(
        (node.lineno, node.end_lineno or node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, kinds)
    )
