"""Reverse mode as a function of functions: grad, value_and_grad, vjp."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphdl.compiler import differentiate
from graphdl.errors import GradientError, GradientShapeError, ShapeError
from graphdl.tracing import Trace, TracedArray, as_traced, locate
from graphdl.transforms.common import (
    Function,
    as_leaf,
    as_variable,
    by_position,
    called,
    name_of,
    positions_of,
    results,
    running,
)
from graphdl.trees import (
    argument_names,
    flatten,
    leaf_names,
    leaves_of,
    names_within,
    tree_map,
    unflatten,
)


def value_and_grad(
    f: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Function:
    """The function that returns the value of f and its gradient: see gd.value_and_grad."""

    @functools.wraps(f)
    def with_gradient(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        trace = running()
        args, kwargs = by_position(f, args, kwargs)
        positions = positions_of(argnums, len(args), f)
        marked, roots = list(args), argument_names(f, len(args))
        for i in positions:
            leaves, tree = flatten(args[i])
            names = names_within(f"argument {roots[i]}", args[i])
            marked[i] = unflatten(
                tree,
                [
                    as_variable(leaf, trace, f"{name} of {name_of(f)}")
                    for name, leaf in zip(names, leaves, strict=True)
                ],
            )
        result = called(f, *marked, **kwargs)
        if has_aux:
            if not (isinstance(result, tuple) and len(result) == 2):
                raise locate(
                    GradientError(
                        f"has_aux=True: {name_of(f)} must return (value, aux), "
                        f"not {type(result).__name__}"
                    )
                )
            result, aux = result
        value = _scalar(f, result, trace)
        variables = leaves_of([marked[i] for i in positions])
        one = as_traced(np.ones((), value.dtype), trace)
        gradients = iter(differentiate.vjp([value], [one], variables))
        trees = tuple(tree_map(lambda _: next(gradients), marked[i]) for i in positions)
        gradient = trees[0] if isinstance(argnums, int) else trees
        return ((value, aux), gradient) if has_aux else (value, gradient)

    return with_gradient


def _scalar(f: Function, result: Any, trace: Trace) -> TracedArray:
    leaves = leaves_of(result)
    if len(leaves) != 1:
        raise locate(
            GradientError(
                f"grad needs one number, but {name_of(f)} returned {len(leaves)} values; "
                f"return the loss alone, and the rest as aux with has_aux=True"
            )
        )
    value = as_leaf(leaves[0], trace, f"the result of {name_of(f)}")
    if value.shape != ():
        raise locate(
            GradientShapeError(
                f"grad needs a scalar, but {name_of(f)} returned {value.type}; "
                f"reduce it (np.sum, np.mean), or use gd.vjp with a cotangent"
            )
        )
    if value.type.is_complex:
        raise locate(
            GradientError(
                f"grad needs a real number, but {name_of(f)} returned {value.type}; return its "
                f"real part or magnitude (np.real, np.abs), or use gd.vjp with a complex cotangent"
            )
        )
    if not value.type.is_float:
        raise locate(GradientError(f"grad needs a float, but {name_of(f)} returned {value.type}"))
    return value


def grad(f: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Function:
    """The function that returns the gradient of f: see gd.grad."""
    both = value_and_grad(f, argnums, has_aux)

    @functools.wraps(f)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, result = both(*args, **kwargs)
        return (result, value[1]) if has_aux else result

    return gradient


def vjp(f: Function, *primals: Any, has_aux: bool = False) -> Any:
    """The value of f and the function that pulls cotangents back: see gd.vjp."""
    trace = running()
    leaves, tree = flatten(primals)
    variables = [
        as_variable(leaf, trace, f"argument {name} of {name_of(f)}")
        for name, leaf in zip(leaf_names(f, primals, {}), leaves, strict=True)
    ]
    result = called(f, *unflatten(tree, variables))
    aux = None
    if has_aux:
        result, aux = result
    outputs, out_tree = results(f, result, trace)

    def pull_back(cotangent: Any) -> Any:
        given, given_tree = flatten(cotangent)
        if given_tree != out_tree:
            raise locate(
                ShapeError(f"the cotangent nests as {given_tree}, the result as {out_tree}")
            )
        seeds = []
        for output, seed in zip(outputs, given, strict=True):
            value = as_leaf(seed, trace, "a cotangent")
            if value.shape != output.shape:
                raise locate(ShapeError(f"a cotangent is {value.type} for a result {output.type}"))
            seeds.append(value.astype(output.dtype))
        floats = [(o, s) for o, s in zip(outputs, seeds, strict=True) if o.type.is_inexact]
        if not floats:
            raise locate(GradientError(f"{name_of(f)} returns no float to differentiate"))
        found = differentiate.vjp([o for o, _ in floats], [s for _, s in floats], variables)
        return unflatten(tree, found)

    value = unflatten(out_tree, [output.fresh() for output in outputs])
    return (value, pull_back, aux) if has_aux else (value, pull_back)
