"""Trees of arguments: how they nest, and what their leaves are called.

Tuples, lists, dicts, named tuples and None nest, and the classes of `graphdl.registration`.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import optree

from graphdl.errors import DtypeError
from graphdl.types import TensorType, as_dtype

#: Where optree keeps the classes that are registered here, apart from those of other libraries.
NAMESPACE = "graphdl"


def flatten(tree: Any) -> tuple[list[Any], Any]:
    """The leaves of a tree, and how it nests; None is a tree without leaves."""
    leaves, spec = optree.tree_flatten(tree, namespace=NAMESPACE)
    return list(leaves), spec


def unflatten(spec: Any, leaves: Iterable[Any]) -> Any:
    """The tree that nests like `spec` with these leaves."""
    return optree.tree_unflatten(spec, leaves)


def leaves_of(tree: Any) -> list[Any]:
    return flatten(tree)[0]


def children_of(tree: Any) -> list[Any]:
    """The trees that a tree is made of directly. Raises ValueError for a leaf."""
    return list(optree.tree_flatten_one_level(tree, namespace=NAMESPACE)[0])


def tree_map(f: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """The tree of f(leaf, ...) for each leaf of `tree`, and those at its place in the others.

    The leaves are what tuples, lists, dicts, named tuples and objects of registered classes hold;
    None holds none. Raises ValueError where a tree of `rest` nests differently.

    >>> import graphdl as gd
    >>> gd.tree_map(lambda p, g: p - 0.5 * g, {"w": 1.0, "b": [2.0]}, {"w": 2.0, "b": [0.0]})
    {'w': 0.0, 'b': [2.0]}
    """
    return optree.tree_map(f, tree, *rest, namespace=NAMESPACE)


def tree_leaves(tree: Any) -> list[Any]:
    """The leaves of a tree, those of a dict by sorted keys.

    >>> import graphdl as gd
    >>> gd.tree_leaves({"w": 1.0, "b": [2.0, None]})
    [2.0, 1.0]
    """
    return leaves_of(tree)


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
        refuse_special(value, f"argument {name}")
        array = np.asarray(value)
        try:
            return TensorType(as_dtype(array.dtype), array.shape), False
        except DtypeError as error:
            raise DtypeError(f"argument {name}: {error}") from None
    raise DtypeError(
        f"argument {name} is a {type(value).__name__}; a compiled function takes arrays, numbers, "
        f"None, tuples, lists and dicts of them, and objects of registered classes. "
        f"{_instead(value, name)}"
    )


def refuse_special(value: Any, what: str) -> None:
    """Refuse arrays whose values, taken alone, mean something else: masked ones, matrices."""
    if isinstance(value, np.matrix):
        raise DtypeError(
            f"{what} is an np.matrix, whose * is a matrix product: pass np.asarray(x), and write @"
        )
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise DtypeError(
            f"{what} is a masked array, and programs know no masks: pass x.filled(0) and ~x.mask, "
            f"and write np.sum(x, where=valid), np.mean(x, where=valid) or np.where(valid, x, 0)"
        )


def how_to_register(value: Any) -> str:
    """What to write so that objects like this one are trees; nothing for Python's own."""
    kind = type(value)
    if dataclasses.is_dataclass(kind):
        return (
            f"Write @gd.register_dataclass above the @dataclass of {kind.__name__}, with "
            f"field(metadata={{'static': True}}) for what is no array"
        )
    if kind.__module__ == "builtins":
        return ""
    return "Register its class with gd.register_dataclass or gd.register_pytree_node"


def _instead(value: Any, name: str) -> str:
    """What to write for an argument that is no tree of arrays."""
    kind = type(value).__name__
    if name == "self":
        return (
            f"To compile a method, write self.method = gd.compile(self.method) in __init__ of "
            f"{kind}: attributes are then constants, and what changes has to be an argument"
        )
    if dataclasses.is_dataclass(value):
        return how_to_register(value)
    registering = how_to_register(value)
    binding = "functools.partial or a closure, where arrays are constants"
    return f"{registering}, or bind it with {binding}" if registering else f"Bind it with {binding}"


def leaf_names(f: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
    """A name for each leaf of the arguments: `x`, `params['w']`, `state[0]`, `model.weights`."""
    names: list[str] = []
    for root, arg in zip(argument_names(f, len(args)), args, strict=True):
        names += names_within(root, arg)
    for key in sorted(kwargs):
        names += names_within(key, kwargs[key])
    return names


def argument_names(f: Callable[..., Any], count: int) -> list[str]:
    """What the first arguments of f are called: its parameters, `rest0`, or `arg0`."""
    try:
        parameters = list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    names: list[str] = []
    for i in range(count):
        if i < len(parameters) and parameters[i].kind is not inspect.Parameter.VAR_POSITIONAL:
            names.append(parameters[i].name)
        elif parameters and parameters[-1].kind is inspect.Parameter.VAR_POSITIONAL:
            names.append(f"{parameters[-1].name}{i - len(parameters) + 1}")
        else:
            names.append(f"arg{i}")
    return names


def names_within(root: str, tree: Any) -> list[str]:
    """How each leaf of a tree, or of a tree that nests like a spec, is written in Python."""
    if isinstance(tree, optree.PyTreeSpec):
        accessors = optree.treespec_accessors(tree)
    else:
        accessors = optree.tree_accessors(tree, namespace=NAMESPACE)
    return [accessor.codify(root) for accessor in accessors]
