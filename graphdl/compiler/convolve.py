"""Convolutions in the forms that kernels compute, and as other ops where those are cheaper.

What is left as `convolve` or `filter_gradient` has an input that is not spread: its lhs_dilation is
1. The rest becomes:
  windows of one element           a matrix product (the gradient of few weights stays, by parts)
  one channel a group (depthwise)  has one output a channel
  a spread input                   one convolution for each phase of the result, without the zeros
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec.structs import replace

from graphdl.graph import Graph, Node, rebuild
from graphdl.ops import contraction, convolution, movement, reduction
from graphdl.ops.convolution import Axis, attributes, axes_of, dilated
from graphdl.ops.op import rebuilt
from graphdl.ops.update import update
from graphdl.tracing import Trace, TracedArray, as_traced
from graphdl.types import Shape

#: Where weights have few elements, their gradient is summed by parts of the places, so that there
#: is work for all cores: so many parts at most, of so many places at least. Sizes alone decide, so
#: that any number of cores gives the same bits.
MOST_PARTS, LEAST_PART, LARGE_WEIGHTS = 8, 512, 1 << 16
#: Channels of a group below which a whole line of the window is one run of memory, not a place:
#: then the borders are padded in memory, so that no line leaves the input.
FEW_CHANNELS = 16


def lower_convolutions(graph: Graph) -> Graph:
    """The same graph with its convolutions in the forms above."""
    trace = Trace("convolutions")

    def replaced(node: Node, inputs: tuple[Node, ...]) -> Node:
        made = rebuilt(node, inputs)
        if made.op not in (convolution.convolve, convolution.filter_gradient):
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
    x = update(
        _zeros(x, (x.shape[0], *sizes, x.shape[-1])),
        x,
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


def _is_pointwise(axes: Sequence[Axis], groups: int) -> bool:
    return groups == 1 and all(
        (axis.window, axis.low, axis.high, axis.lhs) == (1, 0, 0, 1) for axis in axes
    )


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
    if x.shape[-1] == groups > 1 and w.shape[-1] > groups:
        return _by_multiples(x, w, axes)
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


def _by_multiples(x: Any, w: Any, axes: Sequence[Axis]) -> Any:
    """One channel a group, and several outputs: a depthwise convolution for each of them."""
    channels, times = x.shape[-1], w.shape[-1] // x.shape[-1]
    parts = [_convolve(x, w[..., i::times], axes, channels)[..., None] for i in range(times)]
    return np.reshape(np.concatenate(parts, axis=-1), (*parts[0].shape[:-2], w.shape[-1]))


def _by_phases(x: Any, w: Any, axes: Sequence[Axis], groups: int) -> Any:
    """A spread input: results `lhs` apart along an axis see the same elements of the window.

    So the result is put together from convolutions of the input as it is, with parts of the window.
    Where the window itself goes by strides, the input is spread in memory instead.
    """
    if any(axis.lhs > 1 and axis.stride > 1 for axis in axes):
        x, axes = _padded(x, axes)
        return _convolve(x, w, axes, groups)
    shape = (x.shape[0], *(axis.out for axis in axes), w.shape[-1])
    total = _zeros(x, shape)
    for at in itertools.product(*(range(axis.lhs) for axis in axes)):
        parts = [_phase(axis, phase) for axis, phase in zip(axes, at, strict=True)]
        if any(part is None or part[0].out == 0 for part in parts):
            continue
        own = [part[0] for part in parts if part is not None]
        window = tuple(part[1] for part in parts if part is not None)
        total = update(
            total,
            _convolve(x, w[window], own, groups),
            starts=(0, *at, 0),
            steps=(1, *(axis.lhs for axis in axes), 1),
        )
    return total


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
    if any(axis.lhs > 1 for axis in axes):
        if all(axis.stride == 1 for axis in axes):
            return _exchanged(x, g, axes, groups)
        x, axes = _padded(x, axes)
        return _filter_gradient(x, g, axes, groups)
    if x.shape[-1] == groups > 1 and g.shape[-1] > groups:
        times = g.shape[-1] // groups
        each = [_filter_gradient(x, g[..., i::times], axes, groups) for i in range(times)]
        return np.reshape(np.concatenate([part[..., None] for part in each], axis=-1), shape)
    if _fits_lines(axes, groups, x.shape[-1]):
        x, axes = _padded(x, axes)
    attrs = {"window": window, **attributes(axes, groups)}
    parts = min(MOST_PARTS, math.prod(g.shape[:-1]) // LEAST_PART)
    if parts < 2 or math.prod(shape) > LARGE_WEIGHTS:
        if _is_pointwise(axes, groups):
            seen = _places(x, axes, (0,) * len(axes))
            places = tuple(range(seen.ndim - 1))
            a, b = seen.ndim - 1, seen.ndim
            found = contraction.product(seen, g, (*places, a), (*places, b), (a, b))
            return np.reshape(found, shape)
        return convolution.filter_gradient(x, g, **attrs)
    return reduction.sum_(convolution.filter_gradient_parts(x, g, parts=parts, **attrs), axes=(0,))


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
