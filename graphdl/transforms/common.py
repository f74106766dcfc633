"""What the transformations share: their arguments as traced values, and the errors about them."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphdl.errors import GradientError, GraphError
from graphdl.ops import pointwise
from graphdl.rebinding import rebound
from graphdl.tracing import Trace, TracedArray, as_traced, current_trace, locate
from graphdl.trees import flatten, unflatten

Function = Callable[..., Any]
_serials = itertools.count()


def name_of(f: Function) -> str:
    """What error messages call the function."""
    while isinstance(f, functools.partial):
        f = f.func
    return str(getattr(f, "__name__", type(f).__name__))


def running() -> Trace:
    """The trace that the caller builds graph in."""
    trace = current_trace()
    if trace is None:
        raise GradientError("graphdl.transforms work inside a trace only; use gd.grad and the like")
    return trace


def called(f: Function, *args: Any, **kwargs: Any) -> Any:
    """f(*args) in the running trace, with arrays of its own.

    What f assigns into its arguments the caller does not see. Where f names numpy, it gets
    graphdl.numpy: see graphdl.rebinding.
    """
    leaves, tree = flatten((args, kwargs))
    own = [leaf.fresh() if isinstance(leaf, TracedArray) else leaf for leaf in leaves]
    own_args, own_kwargs = unflatten(tree, own)
    try:
        return rebound(f, running())(*own_args, **own_kwargs)
    except ValueError as error:
        # NumPy's "setting an array element with a sequence" comes in front of what is wrong
        if isinstance(error.__cause__, GraphError) and not isinstance(error, GraphError):
            raise error.__cause__ from None
        raise


def as_leaf(value: Any, trace: Trace, what: str) -> TracedArray:
    """An array or a number as a traced value; `what` names it in the error otherwise."""
    if isinstance(value, (TracedArray, np.ndarray, np.generic)):
        return as_traced(value, trace).fresh()
    if isinstance(value, (bool, int, float, complex)):
        return as_traced(np.asarray(value), trace)
    raise locate(GradientError(f"{what} is a {type(value).__name__}, not an array or a number"))


def as_variable(value: Any, trace: Trace, what: str) -> TracedArray:
    """A fresh value equal to `value`, that a gradient can be taken with respect to."""
    leaf = as_leaf(value, trace, what)
    if not leaf.type.is_inexact:
        raise locate(
            GradientError(
                f"{what} is {leaf.type}: only floats have gradients. Pass it as float "
                f"(1.0 instead of 1, x.astype(float)), or choose other arguments with argnums"
            )
        )
    marked: TracedArray = pointwise.variable(leaf, serial=next(_serials))
    marked.weak = leaf.weak
    return marked


def results(f: Function, result: Any, trace: Trace) -> tuple[list[TracedArray], Any]:
    """The leaves of what f returned, and how they nest."""
    leaves, tree = flatten(result)
    if not leaves:
        raise locate(GradientError(f"{name_of(f)} returned no array"))
    return [as_leaf(leaf, trace, f"a result of {name_of(f)}") for leaf in leaves], tree


def by_position(
    f: Function, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call, with those by position that are given by name and could be."""
    if not kwargs:
        return args, kwargs
    try:
        parameters = list(inspect.signature(f).parameters.values())[len(args) :]
    except (TypeError, ValueError):
        return args, kwargs
    rest, more = dict(kwargs), []
    for parameter in parameters:
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD or parameter.name not in rest:
            break
        more.append(rest.pop(parameter.name))
    return (*args, *more), rest


def positions_of(argnums: int | Sequence[int], count: int, f: Function) -> tuple[int, ...]:
    """The positions of the arguments that `argnums` chooses among `count`."""
    wanted = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for number in wanted:
        if not isinstance(number, int):
            raise locate(
                GradientError(
                    f"argnums={argnums!r}: write the position of an argument, 0 for the first, or "
                    f"a tuple of positions"
                )
            )
        if not -count <= number < count:
            raise locate(
                GradientError(
                    f"argnums={argnums}: {name_of(f)} was called with {count} positional "
                    f"argument{'s' if count != 1 else ''}"
                )
            )
    return tuple(number % count for number in wanted)
