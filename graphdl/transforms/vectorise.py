"""vmap: a function of one example as a function of a batch."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from graphdl.compiler import batch
from graphdl.compiler.batch_control import Operand
from graphdl.errors import ArgumentError, AxisError, ShapeError
from graphdl.ops import movement
from graphdl.tracing import TracedArray, locate, new_placeholder
from graphdl.transforms.common import Function, as_leaf, called, name_of, results, running
from graphdl.trees import children_of, flatten, unflatten
from graphdl.types import TensorType


def vmap(f: Function, in_axes: Any = 0, out_axes: Any = 0) -> Function:
    """The function f for each example of a batch: see gd.vmap."""

    @functools.wraps(f)
    def vectorised(*args: Any) -> Any:
        trace = running()
        name = name_of(f)
        leaves, tree = flatten(args)
        axes = _axes_of(in_axes, args, f"in_axes of vmap({name})")
        values = [as_leaf(leaf, trace, f"an argument of {name}") for leaf in leaves]
        size = _batch_size(values, axes, name)
        examples: dict[Any, Operand] = {}
        ones = []
        for value, axis in zip(values, axes, strict=True):
            if axis is None:
                ones.append(value)
                continue
            place = axis % value.ndim
            shape = (*value.shape[:place], *value.shape[place + 1 :])
            example = new_placeholder(TensorType(value.dtype, shape), trace)
            examples[example.node] = _moved(value, place, 0), True
            ones.append(example)
        before = trace.token
        with trace.inside("vmap"):
            outputs, out_tree = results(f, called(f, *unflatten(tree, ones)), trace)
        wanted = [output.node for output in outputs]
        if trace.token is not None and trace.token is not before:
            wanted.append(trace.token.node)
        whole = batch.batched(wanted, examples, size, trace)
        if len(whole) > len(outputs):
            token, differs = whole.pop()
            trace.token = np.max(token) if differs else token
        places = _axes_of(out_axes, unflatten(out_tree, outputs), f"out_axes of vmap({name})")
        return unflatten(
            out_tree,
            [
                _placed(operand, axis, size, name)
                for operand, axis in zip(whole, places, strict=True)
            ],
        )

    return vectorised


def _placed(operand: Operand, axis: int | None, size: int, name: str) -> Any:
    value, is_batched = operand
    if axis is None:
        if is_batched:
            raise locate(
                ShapeError(f"out_axes=None, but a result of {name} differs between examples")
            )
        return value
    whole = batch.spread(operand, size)
    if not -whole.ndim <= axis < whole.ndim:
        raise locate(AxisError(f"out_axes {axis} for a result of {name} of {whole.ndim} axes"))
    return _moved(whole, 0, axis % whole.ndim)


def _moved(x: Any, source: int, target: int) -> Any:
    order = [axis for axis in range(x.ndim) if axis != source]
    order.insert(target, source)
    return x if order == list(range(x.ndim)) else movement.transpose(x, perm=tuple(order))


def _axes_of(axes: Any, tree: Any, what: str) -> list[int | None]:
    """An axis for each leaf of `tree`, from an int, None, or a tree that starts like it."""

    def spread(prefix: Any, part: Any) -> list[int | None]:
        if prefix is None or isinstance(prefix, int):
            return [prefix] * len(flatten(part)[0])
        children, given = children_of(part), children_of(prefix)
        if len(children) != len(given):
            raise locate(ShapeError(f"{what}: {axes!r} does not nest like the values"))
        return [
            axis for one, child in zip(given, children, strict=True) for axis in spread(one, child)
        ]

    if isinstance(axes, list):
        axes = tuple(axes)
    try:
        return spread(axes, tree)
    except (TypeError, ValueError) as error:
        if isinstance(error, ShapeError):
            raise
        raise locate(ShapeError(f"{what}: {axes!r} does not nest like the values")) from error


def _batch_size(values: list[TracedArray], axes: list[int | None], name: str) -> int:
    sizes: dict[int, str] = {}
    for i, (value, axis) in enumerate(zip(values, axes, strict=True)):
        if axis is None:
            continue
        if not -value.ndim <= axis < value.ndim:
            raise locate(
                AxisError(f"vmap({name}): argument {i} is {value.type}: it has no axis {axis}")
            )
        sizes.setdefault(value.shape[axis], f"argument {i}, {value.type}, axis {axis}")
    if len(sizes) > 1:
        texts = "; ".join(f"{text}: {size}" for size, text in sizes.items())
        raise locate(ShapeError(f"vmap({name}): batch sizes differ: {texts}"))
    if not sizes:
        raise locate(ArgumentError(f"vmap({name}): in_axes chooses no argument to batch over"))
    return next(iter(sizes))
