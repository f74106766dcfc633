"""What users call: trace, compile, and the transformations that compile themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import optree

from graphdl import transforms
from graphdl.errors import DtypeError, LeakError
from graphdl.graph import Graph
from graphdl.tracing import TracedArray, as_traced, locate, new_input, tracing
from graphdl.trees import leaf_names, leaf_type

Function = Callable[..., Any]


def trace(f: Function, *args: Any, **kwargs: Any) -> Graph:
    """The graph of `f` for arguments of these shapes and dtypes.

    Args:
        f: a function of arrays, written in NumPy.
        args: arrays, Python scalars, None, trees of them, or `gd.spec(shape, dtype)` in the place
            of an array.

    >>> import numpy as np, graphdl as gd
    >>> graph = gd.trace(lambda x: np.sum(x * x), gd.spec((3,), "float32"))
    >>> float(graph.evaluate(np.ones(3, "float32")))
    3.0
    """
    leaves, tree = optree.tree_flatten((args, kwargs))
    names = leaf_names(f, args, kwargs)
    name = transforms.name_of(f)
    types = [leaf_type(leaf, label) for leaf, label in zip(leaves, names, strict=True)]
    with tracing(name) as run:
        inputs = [new_input(type, i, run, weak) for i, (type, weak) in enumerate(types)]
        traced_args, traced_kwargs = optree.tree_unflatten(tree, inputs)
        result = f(*traced_args, **traced_kwargs)
        values, out_tree = optree.tree_flatten(result)
        if not values:
            raise locate(
                DtypeError(
                    f"{name} returned {result!r}: no array. Did you forget the `return`?"
                )
            )
        outputs = [_result(value, name, run) for value in values]
    in_tree = optree.tree_structure(args) if not kwargs else None
    return Graph(
        tuple(value.node for value in inputs),
        tuple(value.node for value in outputs),
        tuple(names),
        run.sources,
        in_tree,
        out_tree,
    )


def _result(value: Any, name: str, run: Any) -> TracedArray:
    if isinstance(value, TracedArray) and value.owner is not run:
        raise locate(LeakError(f"{name} returned a traced value of another trace"))
    try:
        return as_traced(value, run)
    except DtypeError as error:
        raise locate(
            DtypeError(f"{name} returned a {type(value).__name__}, which is no array: {error}")
        ) from error


