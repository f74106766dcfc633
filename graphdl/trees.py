"""Trees of arguments: how they nest, and what their leaves are called."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import optree

from graphdl.errors import DtypeError
from graphdl.types import TensorType, as_dtype


def flatten(tree: Any) -> tuple[list[Any], Any]:
    """The leaves of a tree, and how it nests; None is a tree without leaves."""
    leaves, spec = optree.tree_flatten(tree)
    return list(leaves), spec


def unflatten(spec: Any, leaves: Iterable[Any]) -> Any:
    """The tree that nests like `spec` with these leaves."""
    return optree.tree_unflatten(spec, leaves)


def leaves_of(tree: Any) -> list[Any]:
    return flatten(tree)[0]


_SCALARS = {
    bool: TensorType(np.dtype(bool), ()),
    int: TensorType(np.dtype(np.int64), ()),
    float: TensorType(np.dtype(np.float64), ()),
    complex: TensorType(np.dtype(np.complex128), ()),
}


def leaf_type(value: Any, name: str) -> tuple[TensorType, bool]:
    """The type of an argument, and whether it is weak (a Python scalar)."""
    if isinstance(value, TensorType):
        return value, False
    if type(value) in _SCALARS:
        return _SCALARS[type(value)], True
    if isinstance(value, (np.ndarray, np.generic)) or hasattr(value, "__array__"):
        array = np.asarray(value)
        try:
            return TensorType(as_dtype(array.dtype), array.shape), False
        except DtypeError as error:
            raise DtypeError(f"argument {name}: {error}") from None
    raise DtypeError(
        f"argument {name} is a {type(value).__name__}; a compiled function takes arrays, numbers, "
        f"None, and tuples, lists and dicts of them. {_instead(value, name)}"
    )


def _instead(value: Any, name: str) -> str:
    """What to write for an argument that is no tree of arrays."""
    kind = type(value).__name__
    if name == "self":
        return (
            f"To compile a method, write self.method = gd.compile(self.method) in __init__ of "
            f"{kind}: attributes are then constants, and what changes has to be an argument"
        )
    if dataclasses.is_dataclass(value):
        return (
            f"Pass its fields, as vars({name}) or a NamedTuple has them, and make the {kind} "
            f"inside of the function; or bind it in a closure, whose arrays are constants"
        )
    return "Bind anything else with functools.partial or a closure"


def leaf_names(f: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
    """A name for each leaf of the arguments: `x`, `params['w']`, `state[0]`."""
    try:
        parameters = list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    names: list[str] = []
    for i, arg in enumerate(args):
        if i < len(parameters) and parameters[i].kind is not inspect.Parameter.VAR_POSITIONAL:
            root = parameters[i].name
        elif parameters and parameters[-1].kind is inspect.Parameter.VAR_POSITIONAL:
            root = f"{parameters[-1].name}{i - len(parameters) + 1}"
        else:
            root = f"arg{i}"
        names += [root + path_text(path) for path in optree.tree_paths(arg)]
    for key in sorted(kwargs):
        names += [key + path_text(path) for path in optree.tree_paths(kwargs[key])]
    return names


def path_text(path: tuple[Any, ...]) -> str:
    """A path into a tree as it would be written in Python."""
    return "".join(f"[{key!r}]" for key in path)
