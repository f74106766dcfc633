"""Counts of values in bins. The number of bins is static; their edges need not be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphdl.errors import ArgumentError, DtypeError, ShapeError
from graphdl.numpy_functions.arguments import (
    BOOL,
    FLOAT,
    INDEX,
    integer,
    lift,
    lift_one,
    promote,
    refuse,
    require,
    reshaped,
    sliced,
    static,
)
from graphdl.numpy_functions.creation import linspace
from graphdl.numpy_functions.manipulation import stack
from graphdl.numpy_functions.sorting import searchsorted
from graphdl.ops import indexing
from graphdl.tracing import TracedArray, broadcast_to, cast, implements, shape_of
from graphdl.types import Shape, kind_of


@implements(np.bincount)
def bincount(x: Any, /, weights: Any = None, minlength: Any = 0) -> Any:
    """Of length minlength, which an error at run time says if it is too short.

    NumPy makes the result as long as the largest value needs, which a trace does not know.
    """
    length = integer(minlength, "minlength")
    require(length >= 0, f"minlength must not be negative, got {length}")
    x = static(x)
    if isinstance(x, TracedArray):
        refuse(
            length == 0,
            "the length of the result depends on values; give it as minlength=, larger than "
            "all of x",
        )
        index = lift_one(x)
    else:
        known = np.asarray(x)
        if known.size and known.min() < 0:
            raise ArgumentError("x must not have negative elements")
        length = max(length, int(known.max()) + 1 if known.size else 0)
        index = lift(x, weights)[0]
    require(index.ndim == 1, f"x must have one axis, not shape {index.shape}")
    if not np.can_cast(index.dtype, INDEX, "safe"):
        raise DtypeError(f"x must be integers that fit int64, not {index.dtype}")
    if weights is None:
        updates = broadcast_to(lift(index, np.asarray(1, INDEX))[1], index.shape)
    else:
        given = lift(index, weights)[1]
        if given.dtype.kind == "c":
            raise DtypeError(f"weights must be real numbers, not {given.dtype}")
        updates = cast(given, FLOAT)
        require(updates.shape == index.shape, f"weights of shape {updates.shape} for {index.shape}")
    return indexing.scatter_add(updates, cast(index, INDEX), size=length)


# --- edges ----------------------------------------------------------------------------------------


def _is_array(value: Any) -> bool:
    """Whether it is an array or a sequence, not a number (of bins)."""
    return isinstance(value, (list, tuple)) or len(shape_of(value)) > 0


def _bin_edges(x: Any, bins: Any, limits: Any, like: Any = ()) -> Any:
    """The edges: as given, or so many equal bins from the least to the largest value.

    Of the dtype of the limits and of `like` together.
    """
    refuse(
        isinstance(bins, str),
        f"bins={bins!r} makes a number of bins that depends on values; give the number",
    )
    bins = static(bins)
    if _is_array(bins):
        edges = lift(x, bins)[1]
        require(edges.ndim == 1, f"bins must be a number or have one axis, not {edges.shape}")
        if not isinstance(bins, TracedArray) and (np.diff(np.asarray(bins)) < 0).any():
            raise ArgumentError("bins must increase monotonically")
        return edges
    count = integer(bins, "bins")
    if count < 1:
        raise ArgumentError(f"bins must be positive, not {count}")
    first, last = _limits(x, limits)
    dtype = promote(first, last, *like)
    return linspace(first, last, count + 1, dtype=dtype if kind_of(dtype) == "f" else FLOAT)


def _limits(x: Any, limits: Any) -> tuple[Any, Any]:
    """The outer edges, half apart from a single value."""
    if limits is None:
        if x.size == 0:
            return 0, 1
        low: Any = np.min(x)
        high: Any = np.max(x)
        if kind_of(x.dtype) != "f":
            low, high = cast(low, FLOAT), cast(high, FLOAT)
        alone = low == high
        return np.where(alone, low - 0.5, low), np.where(alone, high + 0.5, high)
    low, high = map(static, static(limits))
    if not isinstance(low, TracedArray) and not isinstance(high, TracedArray):
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise ArgumentError(f"range=({low}, {high}) must be finite and increase")
        return (low - 0.5, high + 0.5) if low == high else (low, high)
    alone = low == high
    return np.where(alone, low - 0.5, low), np.where(alone, high + 0.5, high)


def _bin_of(x: TracedArray, edges: TracedArray) -> Any:
    """The bin of each value, the number of bins where it is in none; the last one is closed."""
    count = edges.size - 1
    place = searchsorted(edges, x, "right") - 1
    place = np.where(x == edges[-1], count - 1, place)
    return np.where((place < 0) | (place > count), count, place)


def _counted(place: Any, bins: int, weights: Any) -> Any:
    """How many, or what weight, in each of the bins; place `bins` counts for nothing."""
    if weights is None:
        updates = broadcast_to(lift(place, np.asarray(1, INDEX))[1], place.shape)
    else:
        updates = lift(place, weights)[1]
        updates = cast(updates, INDEX) if updates.dtype == BOOL else updates
    total = indexing.scatter_add(updates, place, size=bins + 1)
    return sliced(total, 0, 0, bins)


@implements(np.histogram_bin_edges)
def histogram_bin_edges(a: Any, bins: Any = 10, range: Any = None, weights: Any = None) -> Any:
    x = _flat(lift(a)[0])
    return _bin_edges(x, bins, range, [x])


def _flat(x: TracedArray) -> Any:
    x = reshaped(x, (x.size,))
    if x.dtype.kind == "c":
        raise DtypeError("bins are of real numbers; count np.abs(z), np.real(z) or np.imag(z)")
    return cast(x, np.dtype(np.uint8)) if x.dtype == BOOL else x


@implements(np.histogram)
def histogram(
    a: Any, bins: Any = 10, range: Any = None, density: Any = None, weights: Any = None
) -> tuple[Any, Any]:
    x = _flat(lift(a, weights if weights is not None else 0, bins if _is_array(bins) else 0)[0])
    if weights is not None:
        weights = lift(x, weights)[1]
        require(weights.size == x.size, f"weights of shape {weights.shape} for {x.size} values")
        weights = reshaped(weights, (x.size,))
    edges = _bin_edges(x, bins, range, [x])
    counts = _counted(_bin_of(x, edges), edges.size - 1, weights)
    if density:
        widths = cast(edges[1:] - edges[:-1], FLOAT)
        counts = counts / widths / np.sum(counts)
    return counts, edges


# --- in several dimensions ------------------------------------------------------------------------


@implements(np.histogramdd)
def histogramdd(
    sample: Any, bins: Any = 10, range: Any = None, density: Any = None, weights: Any = None
) -> tuple[Any, Any]:
    points = _points(sample)
    return _histogramdd(list(np.transpose(points)), bins, range, density, weights)


def _points(sample: Any) -> Any:
    """(points, dimensions), from that or from one array for each dimension."""
    if isinstance(sample, (TracedArray, np.ndarray)):
        points = lift_one(sample)
        return points if points.ndim == 2 else reshaped(points, (points.size, 1))
    return stack([reshaped(x, (x.size,)) for x in lift(*sample)], axis=1)


def _histogramdd(
    axes: Sequence[Any], bins: Any, limits: Any, density: Any, weights: Any
) -> tuple[Any, list[Any]]:
    dimensions = len(axes)
    numbers = list(bins) if _is_array(bins) else [bins] * dimensions
    if len(numbers) != dimensions:
        raise ShapeError(f"{len(numbers)} bins for {dimensions} dimensions")
    ranges = [None] * dimensions if limits is None else list(limits)
    if len(ranges) != dimensions:
        raise ShapeError(f"{len(ranges)} ranges for {dimensions} dimensions")
    edges = [_bin_edges(x, n, r) for x, n, r in zip(axes, numbers, ranges, strict=True)]
    shape: Shape = tuple(edge.size - 1 for edge in edges)
    place: Any = 0
    inside: Any = True
    for x, edge, size in zip(axes, edges, shape, strict=True):
        own = _bin_of(x, edge)
        inside = (own < size) & inside
        place = place * size + own
    place = np.where(inside, place, math.prod(shape))
    counts = reshaped(cast(_counted(place, math.prod(shape), weights), FLOAT), shape)
    if density:
        counts = counts / np.sum(counts)
        for axis, edge in enumerate(edges):
            places = (1,) * axis + (-1,) + (1,) * (dimensions - axis - 1)
            counts = counts / np.reshape(edge[1:] - edge[:-1], places)
    return counts, edges


@implements(np.histogram2d)
def histogram2d(
    x: Any, y: Any, bins: Any = 10, range: Any = None, density: Any = None, weights: Any = None
) -> tuple[Any, Any, Any]:
    a, b = lift(x, y)
    require(a.shape == b.shape and a.ndim == 1, f"x and y of shapes {a.shape} and {b.shape}")
    if _is_array(bins) and len(bins) != 2:
        bins = [bins, bins]  # one array of edges for both
    dtype = promote(a, b)
    counts, (first, second) = _histogramdd(
        [cast(a, dtype), cast(b, dtype)], bins, range, density, weights
    )
    return counts, first, second
