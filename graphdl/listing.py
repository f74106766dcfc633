"""NumPy's functions of lists that hold traced numbers: np.mean([f(a), f(b)]).

NumPy asks a traced value that is an argument what a function is, but none that stands in a list: it
makes an array of NumPy of the list, which fails. These make a traced array of it, and call again.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np

from graphdl.errors import ConcreteValueError, GraphError
from graphdl.tracing import HANDLERS, TracedArray
from graphdl.trees import flatten

#: Functions of several arrays in a list, which need not have the same shape.
_JOINING = frozenset(
    {"block", "column_stack", "concat", "concatenate", "dstack", "hstack", "stack", "vstack"}
)


def holds_traced(value: Any) -> bool:
    """Whether a list or a tuple has traced values in it."""
    return isinstance(value, (list, tuple)) and any(
        isinstance(leaf, TracedArray) for leaf in flatten(value)[0]
    )


def as_array(value: Any) -> Any:
    """A list with traced values in it as a traced array; anything else as it is."""
    return HANDLERS[np.array](value) if holds_traced(value) else value


def _as_arrays(value: Any) -> Any:
    """A list of lists as a list of arrays."""
    return [as_array(item) for item in value] if holds_traced(value) else value


def listing(original: Callable[..., Any]) -> Callable[..., Any]:
    """`original`, a function of arrays, which takes lists with traced numbers in them too."""
    name = original.__name__
    converted = _as_arrays if name in _JOINING else as_array

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        except (ConcreteValueError, ValueError) as error:
            # NumPy's own error, of an array that it could not make, has the traced value's as cause
            found = error if isinstance(error, GraphError) else error.__cause__
            if not isinstance(found, ConcreteValueError):
                raise
            if not any(map(holds_traced, (*args, *kwargs.values()))):
                raise
        named = {name: converted(value) for name, value in kwargs.items()}
        return original(*map(converted, args), **named)

    call.__name__ = call.__qualname__ = name
    call.__doc__, call.__module__ = original.__doc__, original.__module__
    return call


def of_module(module: types.ModuleType) -> dict[str, Callable[..., Any]]:
    """The functions of one of NumPy's modules that can be traced, which are no ufuncs."""
    found: dict[str, Any] = {}
    for f in HANDLERS:
        name = getattr(f, "__name__", "")
        if not isinstance(f, np.ufunc) and vars(module).get(name) is f:
            found[name] = f
    return found


__all__ = ["as_array", "holds_traced", "listing", "of_module"]
