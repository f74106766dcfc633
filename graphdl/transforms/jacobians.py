"""Jacobians and Hessians: derivatives along all directions at once, by vmap."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphdl.compiler import differentiate
from graphdl.errors import ArgumentError
from graphdl.ops import movement
from graphdl.tracing import TracedArray
from graphdl.transforms.common import (
    Function,
    as_variable,
    by_position,
    called,
    name_of,
    positions_of,
    results,
    running,
)
from graphdl.transforms.forward import push_forward
from graphdl.transforms.reverse import grad
from graphdl.transforms.vectorise import vmap
from graphdl.trees import argument_names, flatten, names_within, unflatten


def jacobian(f: Function, argnums: int | Sequence[int] = 0, mode: str | None = None) -> Function:
    """The derivatives of each output with respect to each input: see gd.jacobian."""
    if mode not in (None, "forward", "reverse"):
        raise ArgumentError(f"jacobian: mode={mode!r}; write 'forward', 'reverse' or None")

    @functools.wraps(f)
    def with_jacobian(*args: Any, **kwargs: Any) -> Any:
        trace = running()
        args, kwargs = by_position(f, args, kwargs)
        marked = list(args)
        variables: list[TracedArray] = []
        roots = argument_names(f, len(args))
        for i in (positions := positions_of(argnums, len(args), f)):
            leaves, tree = flatten(args[i])
            names = names_within(f"argument {roots[i]}", args[i])
            own = [
                as_variable(leaf, trace, f"{name} of {name_of(f)}")
                for name, leaf in zip(names, leaves, strict=True)
            ]
            marked[i] = unflatten(tree, own)
            variables += own
        inside = tuple(marked[i] for i in positions)
        tree = flatten(inside[0] if isinstance(argnums, int) else inside)[1]
        outputs, out_tree = results(f, called(f, *marked, **kwargs), trace)
        is_forward = mode == "forward" or (mode is None and _is_forward_cheaper(outputs, variables))
        blocks = (_columns if is_forward else _rows)(outputs, variables)
        return unflatten(out_tree, [unflatten(tree, row) for row in blocks])

    return with_jacobian


def _is_forward_cheaper(outputs: list[TracedArray], variables: list[TracedArray]) -> bool:
    """One product for each input against one for each output; at a draw, the one without a way
    back, which keeps nothing."""
    return sum(x.size for x in variables) <= sum(y.size for y in outputs)


def _basis(like: TracedArray) -> Any:
    """The unit vectors of the space of an array, along a new first axis."""
    index = like.apply_op(movement.iota, (), {"size": like.size, "dtype": np.dtype(np.int64)})
    unit: Any = np.equal(np.reshape(index, (like.size, 1)), index)
    return np.reshape(unit.astype(like.dtype), (like.size, *like.shape))


def _rows(outputs: list[TracedArray], variables: list[TracedArray]) -> list[list[Any]]:
    """Reverse mode: the gradient of each element of each output."""
    blocks = []
    for output in outputs:
        pull = functools.partial(_pulled, output, variables)
        rows = vmap(pull)(_basis(output))
        blocks.append(
            [
                np.reshape(row, (*output.shape, *variable.shape))
                for row, variable in zip(rows, variables, strict=True)
            ]
        )
    return blocks


def _pulled(output: TracedArray, variables: list[TracedArray], seed: Any) -> list[Any]:
    if not output.type.is_inexact:
        return [differentiate.zeros(variable.type, variable) for variable in variables]
    return list(differentiate.vjp([output], [seed], variables))


def _columns(outputs: list[TracedArray], variables: list[TracedArray]) -> list[list[Any]]:
    """Forward mode: the derivative along each element of each input."""
    blocks: list[list[Any]] = [[] for _ in outputs]
    for variable in variables:
        push = functools.partial(_pushed, outputs, variables, variable)
        columns = vmap(push, out_axes=-1)(_basis(variable))
        for block, output, column in zip(blocks, outputs, columns, strict=True):
            block.append(np.reshape(column, (*output.shape, *variable.shape)))
    return blocks


def _pushed(
    outputs: list[TracedArray], variables: list[TracedArray], along: TracedArray, unit: Any
) -> list[Any]:
    tangents = [
        unit if variable is along else differentiate.zeros(variable.type, variable)
        for variable in variables
    ]
    return list(push_forward(outputs, variables, tangents))


def hessian(f: Function, argnums: int | Sequence[int] = 0) -> Function:
    """The second derivatives of f, forward over reverse: see gd.hessian."""
    return jacobian(grad(f, argnums), argnums, "forward")
