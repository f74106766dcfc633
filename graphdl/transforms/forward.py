"""Forward mode: derivatives along a direction.

A cotangent is pulled back linearly, so pulling back through the pull-back pushes a tangent forward:
no op needs a second rule, and simplification leaves nothing of the detour in the graph.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphdl.compiler import differentiate
from graphdl.compiler.checkpoint import without_regions
from graphdl.errors import GradientError, ShapeError
from graphdl.tracing import TracedArray, as_traced, broadcast_to, locate
from graphdl.transforms.common import (
    Function,
    as_leaf,
    as_variable,
    called,
    name_of,
    results,
    running,
)
from graphdl.transforms.reverse import grad
from graphdl.trees import flatten, unflatten


def jvp(f: Function, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """The value of f at `primals` and its derivative along `tangents`: see gd.jvp."""
    trace = running()
    leaves, tree = flatten(tuple(primals))
    directions, tangent_tree = flatten(tuple(tangents))
    if tangent_tree != tree:
        raise locate(ShapeError(f"tangents nest as {tangent_tree}, primals as {tree}"))
    name = name_of(f)
    variables = [as_variable(leaf, trace, f"primal {i} of {name}") for i, leaf in enumerate(leaves)]
    values = []
    for variable, direction in zip(variables, directions, strict=True):
        value = as_leaf(direction, trace, f"a tangent of {name}")
        if value.shape != variable.shape:
            raise locate(ShapeError(f"a tangent is {value.type} for a primal {variable.type}"))
        values.append(value.astype(variable.dtype))
    outputs, out_tree = results(f, called(f, *unflatten(tree, variables)), trace)
    pushed = push_forward(outputs, variables, values)
    return unflatten(out_tree, outputs), unflatten(out_tree, pushed)


def push_forward(
    outputs: Sequence[TracedArray],
    variables: Sequence[TracedArray],
    tangents: Sequence[TracedArray],
) -> list[TracedArray]:
    """The tangents of `outputs`, given those of `variables`; zeros for what is no float."""
    trace = variables[0].owner
    floats = [output for output in outputs if output.type.is_inexact]
    # nothing is kept for a way back that is not gone: checkpoints have no part in forward mode
    plain = without_regions([output.node for output in floats], trace.sources)
    floats = [TracedArray(node, trace) for node in plain]
    if not floats:
        return [differentiate.zeros(output.type, output) for output in outputs]
    cotangents = []
    for output in floats:
        zero = broadcast_to(as_traced(np.zeros((), output.dtype), trace), output.shape)
        cotangents.append(as_variable(zero, trace, "a cotangent"))
    pulled = differentiate.vjp(floats, cotangents, variables)
    pushed = iter(differentiate.vjp(pulled, tangents, cotangents))
    return [
        next(pushed) if output.type.is_inexact else differentiate.zeros(output.type, output)
        for output in outputs
    ]


def hvp(f: Function, argnums: int = 0) -> Function:
    """The product of the Hessian of f with a vector: see gd.hvp."""
    gradient = grad(f, argnums)

    @functools.wraps(f)
    def product(*args_and_vector: Any) -> Any:
        if len(args_and_vector) < 2:
            raise locate(
                GradientError(f"hvp({name_of(f)}) takes the arguments of {name_of(f)} and a vector")
            )
        *args, vector = args_and_vector
        position = argnums % len(args)

        def at(x: Any) -> Any:
            return gradient(*args[:position], x, *args[position + 1 :])

        return jvp(at, (args[position],), (vector,))[1]

    return product
