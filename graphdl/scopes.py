"""Names for the parts of a function: `with gd.scope("encoder"):`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from graphdl.errors import ArgumentError
from graphdl.tracing import current_trace


@contextmanager
def scope(name: str) -> Iterator[None]:
    """Name what is computed inside, for pictures of the graph.

    Scopes nest, and each run through the block is a part of its own. The backward pass of what is
    computed inside belongs to it as well. Nothing is computed differently; where nothing is being
    traced, it does nothing. The layers of `gd.nn.Sequential` are scopes by themselves. It is a
    decorator too: `@gd.scope("encoder")`.

    Args:
        name: what pictures write at the part.

    Raises:
        ArgumentError: the name is no string, or an empty one.

    >>> import numpy as np, graphdl as gd
    >>> def f(x, w):
    ...     with gd.scope("encoder"):
    ...         h = np.tanh(x @ w)
    ...     return np.sum(h)
    >>> graph = gd.trace(f, gd.spec((2, 3)), gd.spec((3, 4)))
    >>> [[scope.name for scope in graph.sources[node].scopes] for node in graph.operations]
    [['encoder'], ['encoder'], []]
    """
    if not isinstance(name, str) or not name:
        raise ArgumentError(f"gd.scope takes a name, not {name!r:.60}")
    trace = current_trace()
    if trace is None:
        yield
    else:
        with trace.block(name):
            yield
