"""Batching as a pass: each node for many examples at once, the batch as the first axis.

A node that no batched value reaches stays as it is; the others are rebuilt by the rule of their
family. Nothing is looped: the result is ordinary graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphdl.compiler.batch_control import Operand, batched_control
from graphdl.errors import UnsupportedError
from graphdl.graph import Graph, Node, topological
from graphdl.ops import (
    contraction,
    control,
    convolution,
    cumulative,
    indexing,
    linalg,
    movement,
    sorting,
    update,
    windows,
)
from graphdl.ops.op import rebuilt
from graphdl.tracing import Trace, TracedArray, locate, new_placeholder


def batched(
    outputs: Sequence[Node], given: Mapping[Node, Operand], size: int, trace: Trace
) -> list[Operand]:
    """The outputs for a whole batch.

    `given` maps placeholders of one example to what stands for them, batches or single values.
    """
    done: dict[Node, Operand] = dict(given)
    packed: dict[Node, list[Operand]] = {}  # of several results: all of them
    for node in topological(outputs):
        if node in done:
            continue
        operands = [done[operand] for operand in node.inputs]
        source = trace.sources.get(node)
        if not any(flag for _, flag in operands):
            done[node] = _single(node, operands, trace), False
        elif node.op.family == "control":
            with trace.at(source):
                packed[node] = batched_control(node, operands, size, trace, batched)
            done[node] = None, True
        elif node.op is control.item:
            operation = node.inputs[0]
            places = control.offsets(control.result_types(operation))
            done[node] = packed[operation][places.index(node["offset"])]
        else:
            rule = _RULES.get(node.op.name) or _FAMILIES.get(node.op.family)
            if rule is None:
                raise locate(UnsupportedError(f"vmap has no rule for {node.op.name}"), source)
            with trace.at(source):
                made = rule(node, operands, size)
                if node.op.results is not None:
                    parts = control.items(made, control.result_types(made.node))
                    packed[node] = [(part, True) for part in parts]
            done[node] = made, True
    return [done[node] for node in outputs]


def _single(node: Node, operands: Sequence[Operand], trace: Trace) -> TracedArray:
    """The node on what stands for its operands."""
    made = rebuilt(node, tuple(value.node for value, _ in operands))
    if made is not node and node in trace.sources:
        trace.sources.setdefault(made, trace.sources[node])
    return TracedArray(made, trace)


def spread(operand: Operand, size: int) -> Any:
    """A value as a batch: repeated for each example if it is not one."""
    value, flag = operand
    if flag:
        return value
    dims = tuple(range(1, value.ndim + 1))
    return movement.broadcast(value, shape=(size, *value.shape), dims=dims)


def _all_spread(node: Node, operands: Sequence[Operand], size: int) -> Any:
    return node.op(*(spread(operand, size) for operand in operands), **dict(node.attrs))


def _shifted(values: Sequence[int]) -> tuple[int, ...]:
    return tuple(value + 1 for value in values)


def _reduced(node: Node, operands: Sequence[Operand], size: int) -> Any:
    attrs = dict(node.attrs)
    if "axes" in attrs:
        attrs["axes"] = _shifted(attrs["axes"])
    else:
        attrs["axis"] += 1
    return node.op(operands[0][0], **attrs)


def _reshape(node: Node, operands: Sequence[Operand], size: int) -> Any:
    return movement.reshape(operands[0][0], shape=(size, *node.shape))


def _transpose(node: Node, operands: Sequence[Operand], size: int) -> Any:
    return movement.transpose(operands[0][0], perm=(0, *_shifted(node["perm"])))


def _broadcast(node: Node, operands: Sequence[Operand], size: int) -> Any:
    shape, dims = (size, *node.shape), (0, *_shifted(node["dims"]))
    return movement.broadcast(operands[0][0], shape=shape, dims=dims)


def _slice(node: Node, operands: Sequence[Operand], size: int) -> Any:
    return movement.slice_(
        operands[0][0],
        starts=(0, *node["starts"]),
        sizes=(size, *node["sizes"]),
        steps=(1, *node["steps"]),
    )


def _pad(node: Node, operands: Sequence[Operand], size: int) -> Any:
    """A fill that differs between examples is chosen where the window is not."""
    x = spread(operands[0], size)
    fill, fill_is_batched = operands[1]
    window = {
        "shape": (size, *node.shape),
        "starts": (0, *node["starts"]),
        "steps": (1, *node["steps"]),
    }
    if not fill_is_batched:
        return movement.pad(x, fill, **window)
    inside = movement.pad(np.ones_like(x, dtype=bool), np.zeros((), bool), **window)
    around = movement.broadcast(fill, shape=window["shape"], dims=(0,))
    return np.where(inside, movement.pad(x, np.zeros((), x.dtype), **window), around)


def _after(node: Node, operands: Sequence[Operand], size: int) -> Any:
    (x, _), *others = operands
    waiting = movement.after(x, *(other for other, _ in others))
    return spread((waiting, operands[0][1]), size)


def _concatenate(node: Node, operands: Sequence[Operand], size: int) -> Any:
    parts = [spread(operand, size) for operand in operands]
    return movement.concatenate(*parts, axis=node["axis"] + 1)


def _contract(node: Node, operands: Sequence[Operand], size: int) -> Any:
    (a, a_is_batched), (b, b_is_batched) = operands
    la, lb, lo = node["la"], node["lb"], node["lo"]
    label = 1 + max((*la, *lb), default=0)
    return contraction.product(
        a,
        b,
        (label, *la) if a_is_batched else la,
        (label, *lb) if b_is_batched else lb,
        (label, *lo),
    )


def _to_front(x: Any, axis: int) -> Any:
    """x with one axis moved to the front."""
    if axis == 0:
        return x
    rest = [i for i in range(x.ndim) if i != axis]
    return movement.transpose(x, perm=(axis, *rest))


def _behind_first(x: Any, count: int) -> Any:
    """x with its first axis moved behind the `count` axes that follow it."""
    order = (*range(1, count + 1), 0, *range(count + 1, x.ndim))
    return movement.transpose(x, perm=order) if count else x


def _flat_index(index: Any, rows: int, size: int) -> Any:
    """Indices into rows of all examples as one array; one out of bounds stays out of bounds."""
    first = np.reshape(np.arange(size) * rows, (size,) + (1,) * (index.ndim - 1))
    inside = (index >= 0) & (index < rows)
    return np.where(inside, index + first, size * rows)


def _gather(node: Node, operands: Sequence[Operand], size: int) -> Any:
    (x, x_is_batched), (index, index_is_batched) = operands
    if not x_is_batched:
        return indexing.gather(x, index)
    if not index_is_batched:
        picked = indexing.gather(_to_front(x, 1), index)
        return _to_front(picked, index.ndim)
    rows = x.shape[1]
    merged = movement.reshape(x, shape=(size * rows, *x.shape[2:]))
    return indexing.gather(merged, _flat_index(index, rows, size))


def _scatter_add(node: Node, operands: Sequence[Operand], size: int) -> Any:
    index, index_is_batched = operands[1]
    rows = node["size"]
    updates = spread(operands[0], size)
    if not index_is_batched:
        sums = indexing.scatter_add(_behind_first(updates, index.ndim), index, size=rows)
        return _to_front(sums, 1)
    flat = _flat_index(index, rows, size)
    sums = indexing.scatter_add(updates, flat, size=size * rows)
    return movement.reshape(sums, shape=(size, rows, *sums.shape[1:]))


def _update(node: Node, operands: Sequence[Operand], size: int) -> Any:
    x, values = (spread(operand, size) for operand in operands)
    window = {"starts": (0, *node["starts"]), "steps": (1, *node["steps"])}
    return update.update(x, values, **window)


def _scatter(node: Node, operands: Sequence[Operand], size: int) -> Any:
    """The batch is one more axis of the windows or, where indices differ, one more index."""
    x, values = (spread(operand, size) for operand in operands[:2])
    attrs = dict(node.attrs) | {"starts": (0, *node["starts"]), "steps": (1, *node["steps"])}
    axes = _shifted(node["axes"])
    if not any(flag for _, flag in operands[2:]):
        indices = [index for index, _ in operands[2:]]
        values = _behind_first(values, indices[0].ndim)
        return update.scatter(x, values, *indices, **attrs | {"axes": axes})
    indices = [spread(operand, size) for operand in operands[2:]]
    first = movement.broadcast(np.arange(size), shape=indices[0].shape, dims=(0,))
    return update.scatter(x, values, first, *indices, **attrs | {"axes": (0, *axes)})


def _recurrence(node: Node, operands: Sequence[Operand], size: int) -> Any:
    attrs = dict(node.attrs)
    attrs["axis"] += 1
    return node.op(*(spread(operand, size) for operand in operands), **attrs)


def _searchsorted(node: Node, operands: Sequence[Operand], size: int) -> Any:
    """One line for all examples is searched for all values at once, not copied."""
    (line, _), (values, _) = operands
    if line.ndim > 1:  # batched, or of several lines
        return _all_spread(node, operands, size)
    flat = movement.reshape(values, shape=(values.size,))
    return movement.reshape(node.op(line, flat, side=node["side"]), shape=values.shape)


def _right_sides(node: Node, operands: Sequence[Operand], size: int) -> Any:
    """Systems of one matrix: the right sides of all examples are columns of one."""
    *factors, (b, _) = operands
    if any(flag for _, flag in factors):
        return _all_spread(node, operands, size)
    columns = b.shape[-1]
    beside = movement.transpose(b, perm=(*range(1, b.ndim), 0))
    merged = movement.reshape(beside, shape=(*b.shape[1:-1], columns * size))
    x = node.op(*(value for value, _ in factors), merged, **dict(node.attrs))
    return _to_front(movement.reshape(x, shape=(*b.shape[1:], size)), b.ndim - 1)


def _into_channels(x: Any, groups: int) -> Any:
    """The batch of the first axis inside each group of channels, the last axis."""
    moved = np.moveaxis(np.reshape(x, (*x.shape[:-1], groups, x.shape[-1] // groups)), 0, -2)
    return np.reshape(moved, (*moved.shape[:-3], math.prod(moved.shape[-3:])))


def _out_of_channels(x: Any, groups: int, size: int) -> Any:
    """The inverse of `_into_channels`."""
    split = np.reshape(x, (*x.shape[:-1], groups, size, x.shape[-1] // (groups * size)))
    moved = np.moveaxis(split, -2, 0)
    return np.reshape(moved, (*moved.shape[:-2], math.prod(moved.shape[-2:])))


def _before_groups(x: Any) -> Any:
    """The batch of the first axis as the slowest part of the last one."""
    moved = np.moveaxis(x, 0, -2)
    return np.reshape(moved, (*moved.shape[:-2], math.prod(moved.shape[-2:])))


def _convolve(node: Node, operands: Sequence[Operand], size: int) -> Any:
    """Examples are images, or outputs of each group, or groups where both operands differ."""
    (x, x_is_batched), (w, w_is_batched) = operands
    attrs = dict(node.attrs)
    groups = attrs["groups"]
    if not w_is_batched:
        merged = np.reshape(x, (math.prod(x.shape[:2]), *x.shape[2:]))
        return np.reshape(convolution.convolve(merged, w, **attrs), (size, *node.shape))
    if not x_is_batched:
        found = convolution.convolve(x, _into_channels(w, groups), **attrs)
        return _out_of_channels(found, groups, size)
    attrs["groups"] = size * groups
    found = convolution.convolve(_before_groups(x), _before_groups(w), **attrs)
    return _out_of_channels(found, 1, size)


def _filter_gradient(node: Node, operands: Sequence[Operand], size: int) -> Any:
    """Examples are channels or outputs of each group, or groups where both operands differ."""
    (x, x_is_batched), (g, g_is_batched) = operands
    attrs = dict(node.attrs)
    groups = attrs["groups"]
    if x_is_batched and g_is_batched:
        attrs["groups"] = size * groups
        found = convolution.filter_gradient(_before_groups(x), _before_groups(g), **attrs)
        return _out_of_channels(found, 1, size)
    if g_is_batched:
        found = convolution.filter_gradient(x, _into_channels(g, groups), **attrs)
        return _out_of_channels(found, groups, size)
    found = convolution.filter_gradient(_into_channels(x, groups), g, **attrs)
    split = np.reshape(found, (*found.shape[:-2], size, node.shape[-2], found.shape[-1]))
    return np.moveaxis(split, -3, 0)


def _windows(node: Node, operands: Sequence[Operand], size: int) -> Any:
    """Examples are images."""
    values = [spread(operand, size) for operand in operands]
    merged = [np.reshape(value, (math.prod(value.shape[:2]), *value.shape[2:])) for value in values]
    return np.reshape(node.op(*merged, **dict(node.attrs)), (size, *node.shape))


def _looped(node: Node, operands: Sequence[Operand], size: int) -> Any:
    """One example after the other: a loop around the op."""
    trace = next(value.owner for value, flag in operands if flag)
    parameters = [new_placeholder(operand.type, trace).node for operand in node.inputs]
    one = TracedArray(rebuilt(node, tuple(parameters)), trace)
    results = control.items(one, control.result_types(node))
    order = sorted(range(len(operands)), key=lambda i: operands[i][1])
    body = Graph(tuple(parameters[i] for i in order), tuple(result.node for result in results))
    attrs = {
        "body": body,
        "consts": sum(not flag for _, flag in operands),
        "carries": 0,
        "length": size,
    }
    return control.scan(*(operands[i][0] for i in order), **attrs, reverse=False)


Rule = Callable[[Node, Sequence[Operand], int], Any]

_FAMILIES: dict[str, Rule] = {
    "pointwise": _all_spread,
    "custom": _all_spread,
    "linalg": _all_spread,
    "complex": _all_spread,
    "user": _looped,
    "reduction": _reduced,
    "cumulative": _reduced,
    "sorting": _all_spread,
}
_RULES: dict[str, Rule] = {
    cumulative.recurrence.name: _recurrence,
    movement.reshape.name: _reshape,
    movement.transpose.name: _transpose,
    movement.broadcast.name: _broadcast,
    movement.slice_.name: _slice,
    movement.pad.name: _pad,
    movement.after.name: _after,
    movement.concatenate.name: _concatenate,
    contraction.contract.name: _contract,
    indexing.gather.name: _gather,
    indexing.scatter_add.name: _scatter_add,
    update.update.name: _update,
    update.scatter.name: _scatter,
    sorting.searchsorted.name: _searchsorted,
    linalg.solve_triangular.name: _right_sides,
    linalg.solve.name: _right_sides,
    convolution.convolve.name: _convolve,
    convolution.filter_gradient.name: _filter_gradient,
    windows.window_pick.name: _windows,
    windows.window_place.name: _windows,
}
