"""How arguments and results nest, as plain data, and back."""

from __future__ import annotations

from typing import Any

import optree

from graphdl.errors import GraphError, UnsupportedError
from graphdl.trees import flatten

_CONTAINERS: dict[type, str] = {tuple: "tuple", list: "list"}


def written(tree: Any) -> Any:
    """A nesting as lists that begin with their kind. Raises UnsupportedError for other types."""
    if tree is None:
        return None
    if tree.is_leaf():
        return ["leaf"]
    if tree.type is type(None):
        return ["none"]
    children = [written(child) for child in tree.children()]
    if tree.type in _CONTAINERS:
        return [_CONTAINERS[tree.type], children]
    if tree.type is dict and all(type(key) in (str, int) for key in tree.entries()):
        # the order of a dict is part of what a call returns
        order = list(tree.one_level().unflatten(range(len(children))))
        return ["dict", list(tree.entries()), children, order]
    raise UnsupportedError(
        f"a tree of {tree.type.__name__} cannot be written to a file: use tuples, lists, dicts "
        f"with keys of text, and None"
    )


def read(data: Any) -> optree.PyTreeSpec | None:
    """The nesting that data describes. Raises GraphError for data that describes none."""
    return None if data is None else flatten(_built(data))[1]


def _built(data: Any) -> Any:
    """A tree that nests so, with 0 for its leaves."""
    match data:
        case ["leaf"]:
            return 0
        case ["none"]:
            return None
        case ["tuple", children]:
            return tuple(map(_built, children))
        case ["list", children]:
            return list(map(_built, children))
        case ["dict", keys, children, order]:
            items = dict(zip(keys, map(_built, children), strict=True))
            return {key: items[key] for key in order}
    raise GraphError(f"the data of a tree makes no sense: {data!r:.60}")
