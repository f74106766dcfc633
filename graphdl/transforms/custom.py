"""Gradients that the user gives: custom_vjp, custom_jvp, and stop_gradient."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphdl.compiler import differentiate
from graphdl.errors import GradientError, ShapeError
from graphdl.ops import pointwise
from graphdl.ops.op import Op
from graphdl.tracing import TracedArray, as_traced, current_trace, locate
from graphdl.transforms.common import (
    Function,
    as_leaf,
    as_variable,
    called,
    name_of,
    results,
    running,
)
from graphdl.trees import flatten, unflatten


def stop_gradient(tree: Any) -> Any:
    """The same values, through which no gradient flows: see gd.stop_gradient."""
    trace = running()
    leaves, spec = flatten(tree)
    return unflatten(spec, [pointwise.stop_gradient(as_traced(x, trace)) for x in leaves])


def _opaque(rule: Callable[[int, Any, list[Any]], Sequence[Any]], position: int) -> Op:
    """An op that is its first operand, and whose gradient flows to the others by `rule`."""

    def vjp(g: Any, out: Any, value: Any, *args: Any) -> list[Any]:
        return [None, *rule(position, g, list(args))]

    return Op("custom", "custom", lambda x, *rest: x, lambda x, *rest: x, vjp)


def _with_rule(
    f: Function, args: tuple[Any, ...], rule: Callable[[int, Any, list[Any]], Sequence[Any]]
) -> Any:
    """f(*args), its outputs marked so that gradients flow by `rule`, not through f."""
    trace = running()
    leaves, tree = flatten(args)
    values = [as_leaf(leaf, trace, f"an argument of {name_of(f)}") for leaf in leaves]
    outputs, out_tree = results(f, called(f, *unflatten(tree, values)), trace)
    marked = [
        output.apply_op(_opaque(rule, i), (output, *values), {}) for i, output in enumerate(outputs)
    ]
    return unflatten(out_tree, marked)


class custom_vjp:
    """A function with a gradient rule of its own.

    `custom_vjp(f).defvjp(fwd, bwd)`: fwd(*args) returns (value, residuals), bwd(residuals,
    cotangent) a tuple with a cotangent, or None, for each argument, of the arguments' nesting and
    shapes (otherwise ShapeError). Both are written like f, so the rule has a gradient too. Outside
    a trace it is f.

    >>> import numpy as np, graphdl as gd
    >>> @gd.custom_vjp
    ... def steps(x):
    ...     return np.round(x)
    >>> _ = steps.defvjp(lambda x: (np.round(x), None), lambda _, g: (g,))
    >>> gd.grad(lambda x: np.sum(steps(x) ** 2))(np.array([0.4, 2.6]))
    array([0., 6.])
    """

    def __init__(self, f: Function) -> None:
        functools.update_wrapper(self, f)
        self._f = f
        self._forward: Function | None = None
        self._backward: Function | None = None

    def defvjp(self, fwd: Function, bwd: Function) -> custom_vjp:
        """fwd(*args) -> (value, residuals); bwd(residuals, cotangent) -> a cotangent for each."""
        self._forward, self._backward = fwd, bwd
        return self

    def __call__(self, *args: Any) -> Any:
        if current_trace() is None:
            return self._f(*args)
        if self._forward is None:
            raise locate(
                GradientError(f"{name_of(self._f)} is a custom_vjp without rules: call defvjp(...)")
            )
        tree = flatten(args)[1]
        return _with_rule(self._f, args, functools.partial(self._pull, tree))

    def _pull(self, tree: Any, position: int, g: Any, leaves: list[Any]) -> list[Any]:
        assert self._forward is not None
        assert self._backward is not None
        args = unflatten(tree, leaves)
        value, residuals = called(self._forward, *args)
        outputs, out_tree = flatten(value)
        cotangents = [
            g if i == position else np.zeros_like(output) for i, output in enumerate(outputs)
        ]
        given = called(self._backward, residuals, unflatten(out_tree, cotangents))
        return _cotangents(given, args, name_of(self._f))


def _cotangents(given: Any, args: tuple[Any, ...], name: str) -> list[Any]:
    """A cotangent, or None, for each leaf of the arguments."""
    if not isinstance(given, tuple) or len(given) != len(args):
        raise locate(
            ShapeError(f"the rule of {name} must return a tuple of {len(args)} cotangents")
        )
    found: list[Any] = []
    for cotangent, arg in zip(given, args, strict=True):
        leaves = flatten(arg)[0]
        parts = flatten(cotangent)[0]
        if cotangent is None:
            found += [None] * len(leaves)
            continue
        if [np.shape(part) for part in parts] != [leaf.shape for leaf in leaves]:
            raise locate(
                ShapeError(
                    f"the rule of {name} returned a cotangent of shape "
                    f"{[np.shape(part) for part in parts]} for {[leaf.shape for leaf in leaves]}"
                )
            )
        found += [
            as_traced(part, leaf.owner).astype(leaf.dtype) if leaf.type.is_inexact else None
            for part, leaf in zip(parts, leaves, strict=True)
        ]
    return found


class custom_jvp:
    """A function with a rule of its own for the derivative along a direction.

    `rule(primals, tangents)` returns (value, tangent of the value), linear in the tangents; reverse
    mode is its transpose. Outside a trace it is f.

    >>> import numpy as np, graphdl as gd
    >>> @gd.custom_jvp
    ... def cube(x):
    ...     return x * x * x
    >>> _ = cube.defjvp(lambda primals, tangents: (cube(*primals), 3 * primals[0]**2 * tangents[0]))
    >>> float(gd.grad(cube)(2.0))
    12.0
    """

    def __init__(self, f: Function) -> None:
        functools.update_wrapper(self, f)
        self._f = f
        self._rule: Function | None = None

    def defjvp(self, rule: Function) -> Function:
        """rule(primals, tangents) -> (value, tangent of the value), linear in the tangents."""
        self._rule = rule
        return rule

    def __call__(self, *args: Any) -> Any:
        if current_trace() is None:
            return self._f(*args)
        if self._rule is None:
            raise locate(
                GradientError(
                    f"{name_of(self._f)} is a custom_jvp without a rule: call defjvp(...)"
                )
            )
        tree = flatten(args)[1]
        return _with_rule(self._f, args, functools.partial(self._pull, tree))

    def _pull(self, tree: Any, position: int, g: Any, leaves: list[TracedArray]) -> list[Any]:
        """The transpose of the rule, which is linear in the tangents."""
        assert self._rule is not None
        trace = running()
        floats = [leaf for leaf in leaves if leaf.type.is_inexact]
        tangents = [
            as_variable(differentiate.zeros(leaf.type, leaf), trace, "a tangent") for leaf in floats
        ]
        remaining = iter(tangents)
        every = [
            next(remaining) if leaf.type.is_inexact else np.zeros(leaf.shape) for leaf in leaves
        ]
        _, pushed = called(self._rule, unflatten(tree, leaves), unflatten(tree, every))
        outputs = results(self._rule, pushed, trace)[0]
        found = iter(differentiate.vjp([outputs[position]], [g], tangents))
        return [next(found) if leaf.type.is_inexact else None for leaf in leaves]
