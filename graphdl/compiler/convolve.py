"""Convolutions in the forms that kernels compute, and as other ops where those are cheaper.

What is left as `convolve` or `filter_gradient` has an input that is not spread (its lhs_dilation is
1) and more than one channel a group. The rest becomes:
  windows of one element           a matrix product
  one channel a group (depthwise)  a sum of shifted slices, which fuses with its neighbours
  a spread input                   one convolution for each phase of the result, without the zeros
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from graphdl.graph import Graph, Node, rebuild
from graphdl.ops import contraction, convolution, movement, reduction
from graphdl.ops.convolution import Axis, attributes, axes_of, dilated
from graphdl.ops.op import rebuilt
from graphdl.tracing import Trace, TracedArray, as_traced
from graphdl.types import Shape

#: Slices that a depthwise convolution is a sum of, at most.
MOST_SLICES = 64
#: Channels of a group below which a whole line of the window is one run of memory, not a place:
#: then the borders are padded in memory, so that no line leaves the input.
FEW_CHANNELS = 16


def lower_convolutions(graph: Graph) -> Graph:
    """The same graph with its convolutions in the forms above."""
    trace = Trace("convolutions")

    def replaced(node: Node, inputs: tuple[Node, ...]) -> Node:
        made = rebuilt(node, inputs)
        if made.op.family != "convolution":
            return made
        x, other = (TracedArray(operand, trace) for operand in made.inputs)
        attrs = dict(made.attrs)
        window = attrs.pop("window", other.shape[:-2])
        axes = axes_of(x.shape[1:-1], window, attrs)
        with trace.at(graph.sources.get(node)):
            rule = _convolve if made.op is convolution.convolve else _filter_gradient
            result: Node = rule(x, other, axes, made["groups"]).node
        return result

    lowered = rebuild(graph, replaced)
    return lowered.with_outputs(lowered.outputs, {**trace.sources, **lowered.sources})


def _zeros(like: TracedArray, shape: Shape) -> Any:
    zero = as_traced(np.zeros((), like.dtype), like.owner)
    return movement.broadcast(zero, shape=shape, dims=())


# -- windows on a padded input ---------------------------------------------------------------------


def _padded(x: Any, axes: Sequence[Axis]) -> tuple[Any, list[Axis]]:
    """The input spread and padded in memory (or cropped), and the axes without that."""
    keep = [(axis.low, axis.high, axis.lhs) == (0, 0, 1) for axis in axes]
    if all(keep):
        return x, list(axes)
    low = [max(axis.low, 0) for axis in axes]
    spread = [dilated(axis.size, axis.lhs) for axis in axes]
    sizes = [
        size + before + max(axis.high, 0)
        for axis, size, before in zip(axes, spread, low, strict=True)
    ]
    x = movement.pad(
        x,
        np.zeros((), x.dtype),
        shape=(x.shape[0], *sizes, x.shape[-1]),
        starts=(0, *low, 0),
        steps=(1, *(axis.lhs for axis in axes), 1),
    )
    crop = [max(-axis.low, 0) for axis in axes]
    left = [max(axis.padded, 0) for axis in axes]
    if any(crop) or left != sizes:
        x = movement.slice_(
            x,
            starts=(0, *crop, 0),
            sizes=(x.shape[0], *left, x.shape[-1]),
            steps=(1,) * x.ndim,
        )
    plain = [
        replace(axis, size=size, low=0, high=0, lhs=1)
        for axis, size in zip(axes, left, strict=True)
    ]
    return x, plain


def _places(x: Any, axes: Sequence[Axis], at: Sequence[int]) -> Any:
    """What element `at` of the window meets at each of its places, on an input without padding."""
    return movement.slice_(
        x,
        starts=(0, *(i * axis.rhs for i, axis in zip(at, axes, strict=True)), 0),
        sizes=(x.shape[0], *(axis.out for axis in axes), x.shape[-1]),
        steps=(1, *(axis.stride for axis in axes), 1),
    )


def _elements(axes: Sequence[Axis]) -> list[tuple[int, ...]]:
    return list(itertools.product(*(range(axis.window) for axis in axes)))


def _is_pointwise(axes: Sequence[Axis], groups: int) -> bool:
    return groups == 1 and all(
        (axis.window, axis.low, axis.high, axis.lhs) == (1, 0, 0, 1) for axis in axes
    )


def _is_depthwise(axes: Sequence[Axis], groups: int, channels: int) -> bool:
    return channels == groups and groups > 1 and len(_elements(axes)) <= MOST_SLICES


def _fits_lines(axes: Sequence[Axis], groups: int, channels: int) -> bool:
    """Whether the kernel is to read whole lines of the window: see graphdl.kernels.convolution."""
    return channels < FEW_CHANNELS and groups == 1 and axes[-1].rhs == 1


# -- the result ------------------------------------------------------------------------------------


def _convolve(x: Any, w: Any, axes: Sequence[Axis], groups: int) -> Any:
    shape = (x.shape[0], *(axis.out for axis in axes), w.shape[-1])
    if 0 in shape or 0 in w.shape or 0 in x.shape:
        return _zeros(x, shape)
    if _is_pointwise(axes, groups):
        return _product(_places(x, axes, (0,) * len(axes)), w)
    if any(axis.lhs > 1 for axis in axes):
        return _by_phases(x, w, axes, groups)
    if _is_depthwise(axes, groups, x.shape[-1]):
        return _depthwise(x, w, axes)
    if _fits_lines(axes, groups, x.shape[-1]):
        x, axes = _padded(x, axes)
    return convolution.convolve(x, w, **attributes(axes, groups))


def _product(x: Any, w: Any) -> Any:
    """Windows of one element: each place by itself."""
    places = tuple(range(x.ndim - 1))
    weights = np.reshape(w, w.shape[-2:])
    channels, outputs = x.ndim - 1, x.ndim
    return contraction.product(
        x, weights, (*places, channels), (channels, outputs), (*places, outputs)
    )


def _depthwise(x: Any, w: Any, axes: Sequence[Axis]) -> Any:
    """One channel a group: the sum over the window of a slice times its weights."""
    channels, times = x.shape[-1], w.shape[-1] // x.shape[-1]
    x, axes = _padded(x, axes)
    total = None
    for at in _elements(axes):
        weights = np.reshape(w[at], (channels, times) if times > 1 else (channels,))
        seen = _places(x, axes, at)
        if times > 1:
            seen = seen[..., None]
        term = seen * weights
        total = term if total is None else total + term
    assert total is not None
    return np.reshape(total, (*total.shape[: 1 + len(axes)], w.shape[-1]))


def _by_phases(x: Any, w: Any, axes: Sequence[Axis], groups: int) -> Any:
    """A spread input: results `lhs` apart along an axis see the same elements of the window.

    So the result is put together from convolutions of the input as it is, with parts of the window.
    Where the window itself goes by strides, the input is spread in memory instead.
    """
    if any(axis.lhs > 1 and axis.stride > 1 for axis in axes):
        x, axes = _padded(x, axes)
        return _convolve(x, w, axes, groups)
    shape = (x.shape[0], *(axis.out for axis in axes), w.shape[-1])
    total = None
    for at in itertools.product(*(range(axis.lhs) for axis in axes)):
        parts = [_phase(axis, phase) for axis, phase in zip(axes, at, strict=True)]
        if any(part is None or part[0].out == 0 for part in parts):
            continue
        own = [part[0] for part in parts if part is not None]
        window = tuple(part[1] for part in parts if part is not None)
        term = movement.pad(
            _convolve(x, w[window], own, groups),
            np.zeros((), x.dtype),
            shape=shape,
            starts=(0, *at, 0),
            steps=(1, *(axis.lhs for axis in axes), 1),
        )
        total = term if total is None else total + term
    return _zeros(x, shape) if total is None else total


def _phase(axis: Axis, phase: int) -> tuple[Axis, slice] | None:
    """The convolution that gives results phase, phase + lhs, ..., and its part of the window.

    Result p sees element k of the window where p + k * rhs - low is a multiple of lhs.
    """
    if axis.lhs == 1:
        return axis, slice(None)
    first = next(
        (k for k in range(axis.window) if (phase + k * axis.rhs - axis.low) % axis.lhs == 0), None
    )
    if first is None:
        return None
    shared = math.gcd(axis.rhs, axis.lhs)
    part = slice(first, None, axis.lhs // shared)
    window = len(range(axis.window)[part])
    low = -((phase + first * axis.rhs - axis.low) // axis.lhs)
    rhs = axis.rhs // shared
    out = len(range(phase, axis.out, axis.lhs))
    high = out - 1 + dilated(window, rhs) - axis.size - low
    return Axis(axis.size, window, 1, low, high, 1, rhs), part


# -- the gradient of the weights -------------------------------------------------------------------


def _filter_gradient(x: Any, g: Any, axes: Sequence[Axis], groups: int) -> Any:
    channels, outputs = x.shape[-1] // groups, g.shape[-1]
    window = tuple(axis.window for axis in axes)
    shape = (*window, channels, outputs)
    if 0 in shape or 0 in x.shape or 0 in g.shape:
        return _zeros(x, shape)
    if _is_pointwise(axes, groups):
        seen = _places(x, axes, (0,) * len(axes))
        places = tuple(range(seen.ndim - 1))
        a, b = seen.ndim - 1, seen.ndim
        return np.reshape(contraction.product(seen, g, (*places, a), (*places, b), (a, b)), shape)
    if any(axis.lhs > 1 for axis in axes):
        if all(axis.stride == 1 for axis in axes):
            return _exchanged(x, g, axes, groups)
        x, axes = _padded(x, axes)
        return _filter_gradient(x, g, axes, groups)
    if _is_depthwise(axes, groups, x.shape[-1]):
        return _depthwise_filter_gradient(x, g, axes, shape)
    if _fits_lines(axes, groups, x.shape[-1]):
        x, axes = _padded(x, axes)
    return convolution.filter_gradient(x, g, window=window, **attributes(axes, groups))


def _depthwise_filter_gradient(x: Any, g: Any, axes: Sequence[Axis], shape: Shape) -> Any:
    channels = x.shape[-1]
    times = g.shape[-1] // channels
    x, axes = _padded(x, axes)
    places = tuple(range(1 + len(axes)))
    if times > 1:
        g = np.reshape(g, (*g.shape[:-1], channels, times))
    parts = []
    for at in _elements(axes):
        seen = _places(x, axes, at)
        product = (seen[..., None] if times > 1 else seen) * g
        parts.append(np.reshape(reduction.sum_(product, axes=places), (1, channels * times)))
    return np.reshape(movement.concatenate(*parts, axis=0), shape)


def _exchanged(x: Any, g: Any, axes: Sequence[Axis], groups: int) -> Any:
    """A spread input: the gradient is that of the transposed convolution, x and g exchanged.

    dw[k] = sum over q of x[q] g[lhs q - k rhs + low]; with the window flipped, its last element
    comes first.
    """
    rank, channels, outputs = len(axes), x.shape[-1] // groups, g.shape[-1]
    turned = []
    for axis in axes:
        extent = dilated(axis.window, axis.rhs)
        low = extent - 1 - axis.low
        high = axis.lhs * (axis.size - 1) + extent - axis.out - low
        turned.append(Axis(axis.out, axis.window, axis.lhs, low, high, 1, axis.rhs))
    found = _filter_gradient(g, x, turned, groups)
    window = found.shape[:rank]
    split = np.reshape(
        np.flip(found, tuple(range(rank))), (*window, outputs // groups, groups, channels)
    )
    back = np.transpose(split, (*range(rank), rank + 2, rank + 1, rank))
    return np.reshape(back, (*window, channels, outputs))
