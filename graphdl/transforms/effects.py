"""Effects in order: what a function does beside computing, such as printing.

An effect is an op that takes a number, the token, and gives one: so each comes after the one
before. Loops carry the token, branches take and return it, and the results of a traced function
wait for the last one. So effects need nothing of the compiler but what it does for values.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphdl.ops import movement
from graphdl.tracing import Trace, TracedArray, as_traced, new_placeholder
from graphdl.types import TensorType

TOKEN = TensorType(np.dtype(np.int64), ())


def token_of(trace: Trace) -> TracedArray:
    """What the next effect comes after."""
    return as_traced(np.int64(0), trace) if trace.token is None else trace.token


class Inside:
    """The effects of a body: the token that it begins with, and the one that it ends with."""

    def __init__(self, start: TracedArray) -> None:
        self.start = start
        self.end = start

    @property
    def happened(self) -> bool:
        """Whether there was an effect."""
        return self.end is not self.start


@contextmanager
def inside(trace: Trace, start: TracedArray | None = None) -> Iterator[Inside]:
    """Trace a body with a token of its own, a placeholder; the effects outside are as before."""
    before = trace.token
    found = Inside(new_placeholder(TOKEN, trace) if start is None else start)
    trace.token = found.start
    try:
        yield found
    finally:
        assert trace.token is not None
        found.end, trace.token = trace.token, before


def waiting(value: TracedArray, token: TracedArray) -> TracedArray:
    """The value, not to be had before the effects have happened."""
    if not value.is_constant:
        late: TracedArray = movement.after(value, token)
        return late
    # constants wait for nothing: this one depends on the token, which is 0
    numpy: Any = np
    other = numpy.equal(value, 0).astype(value.dtype)  # another number, whatever the value is
    chosen: TracedArray = numpy.where(numpy.equal(token, 0), value, other)
    return chosen
