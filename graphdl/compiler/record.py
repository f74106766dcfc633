"""A record of what the passes do, for those who ask: `with recording() as firings:`.

Passes are functions of graphs and stay so. What a record costs when nobody asks for it is one look
at a context variable for each run of `simplify`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from msgspec import Struct

from graphdl.graph import Node, Source


class Firing(Struct, frozen=True):
    """One use of a rule: `before` was replaced by `after`, which comes from the line `source`."""

    rule: str
    before: Node
    after: Node
    source: Source | None


_running: ContextVar[list[Firing] | None] = ContextVar("firings", default=None)


def firings() -> list[Firing] | None:
    """Where to write down which rules fire; None where nobody wants to know."""
    return _running.get()


@contextmanager
def recording() -> Iterator[list[Firing]]:
    """Collect the rules that fire meanwhile, in this thread."""
    found: list[Firing] = []
    token = _running.set(found)
    try:
        yield found
    finally:
        _running.reset(token)
