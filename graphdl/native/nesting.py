"""How the arguments and the results of an executable nest, for code that knows tuples only."""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection, Iterator, Sequence
from itertools import count
from typing import Any

#: The number of a leaf, None, or a tuple of these: a list or a dict too is a tuple here, a dict by
#: its sorted keys.
Nest = int | None | tuple["Nest", ...]


def nest_of(tree: Any) -> Nest:
    """The nesting of a tree of optree's."""
    return _nest(tree, count())


def _nest(tree: Any, leaves: Iterator[int]) -> Nest:
    if tree.is_leaf():
        return next(leaves)
    if tree.type is type(None):
        return None
    return tuple(_nest(child, leaves) for child in tree.children())


def flat_nest(leaves: int) -> Nest:
    """Leaves that do not nest."""
    return tuple(range(leaves))


def identifiers(names: Sequence[str], taken: Collection[str] = ()) -> list[str]:
    """Names such as "params['w']" as different identifiers, "params_w", of Python and C."""
    found: list[str] = []
    for name in names:
        word = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "value"
        word = f"_{word}" if word[0].isdigit() else word
        candidates = (word, *(f"{word}_{i}" for i in range(2, len(names) + len(taken) + 3)))
        used = {*found, *taken}
        found.append(next(c for c in candidates if c not in used and not keyword.iskeyword(c)))
    return found
