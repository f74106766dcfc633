"""Where a NaN or an infinity comes about: `gd.compile(checks="nan")`.

An event is an op that makes a NaN of numbers, or an infinity of finite ones; or an argument that
is a NaN. Each value carries the numbers of the events that its elements come from, and np.where
drops what it does not choose. An event counts if a result comes from it, whatever has become of it
on the way (1 / inf is 0); np.isnan, np.isinf and np.isfinite ask and come from nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from graphdl.checks.walk import Array, Place, Tracked, as_inputs, events_of, walk
from graphdl.compiler.guards import is_computed
from graphdl.errors import GraphLinAlgError
from graphdl.graph import Graph, Node, reference
from graphdl.ops import indexing, movement, pointwise
from graphdl.ops.update import update
from graphdl.types import TensorType, kind_of

Events = NDArray[np.int32]


class Event(Struct, frozen=True):
    """The node that made it, of what and where, and what it made."""

    node: Node
    place: Place
    index: tuple[int, ...]
    value: float
    operands: tuple[str, ...]


def find(graph: Graph, leaves: Sequence[Any]) -> Event | None:
    """The first event that an output of the graph comes from, for these leaves of a call.

    Raises Failure where an op cannot compute its result.
    """
    search = _Search()
    place = Place(graph)
    inputs = [
        search.argument(node, array, place)
        for node, array in zip(graph.inputs, as_inputs(graph, leaves), strict=True)
    ]
    outputs = walk(place, inputs, search.compute)
    numbers = [int(_least(value.events)) for value in outputs if value.events is not None]
    return search.events[min(numbers) - 1] if any(numbers) else None


#: Beyond all numbers of events.
_NEVER = np.iinfo(np.int32).max


def _least(events: Events) -> Any:
    """The least number but 0, or 0."""
    return _shown(np.where(events == 0, _NEVER, events).min(initial=_NEVER))


def _shown(events: Any) -> Any:
    return np.where(events == _NEVER, 0, events)


def _earliest(parts: Sequence[Events]) -> Events:
    """Element by element, the least number but 0."""
    hidden = [np.where(part == 0, _NEVER, part) for part in parts]
    found: Events = _shown(np.minimum.reduce(hidden)).astype(np.int32)
    return found


_ASKS = (pointwise.isnan, pointwise.isinf, pointwise.isfinite)
#: What gives the other number where one is a NaN.
_IGNORES = (pointwise.fmax, pointwise.fmin)


class Failure(Exception):
    """An operand that an op is not fit for, as a matrix that is singular."""

    def __init__(self, node: Node, place: Place) -> None:
        super().__init__(node.op.name)
        self.node, self.place = node, place


class _Search:
    """The events so far."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def argument(self, node: Node, array: Array, place: Place) -> Tracked:
        if kind_of(array.dtype) != "f":
            return Tracked(array)
        return Tracked(array, self._marked(node, place, array, np.isnan(array), None, ()))

    def compute(self, node: Node, operands: list[Tracked], place: Place) -> Tracked:
        values = [operand.value for operand in operands]
        try:
            with np.errstate(all="ignore"):
                result = reference(node, values)
        except GraphLinAlgError:
            raise Failure(node, place) from None
        events = None
        if any(operand.events is not None for operand in operands):
            events = _handed_on(node, operands, result)
        if is_computed(node):
            fresh = _fresh(node, values, result, events)
            if fresh is not None and fresh.any():
                events = self._marked(node, place, result, fresh, events, values)
        return Tracked(result, events if events is not None and events.any() else None)

    def _marked(
        self,
        node: Node,
        place: Place,
        result: Array,
        fresh: Array,
        events: Events | None,
        values: Sequence[Array],
    ) -> Events | None:
        """The events of a value, with a new one where `fresh` holds, if it does anywhere."""
        if not fresh.any():
            return events
        first = np.unravel_index(int(np.argmax(fresh)), fresh.shape) if fresh.ndim else ()
        index = tuple(int(i) for i in first)
        operands = tuple(_described(node, value, index) for value in values)
        self.events.append(Event(node, place, index, float(result[index]), operands))
        found = np.zeros(result.shape, np.int32) if events is None else events.copy()
        found[fresh & (found == 0)] = len(self.events)
        return found


def _fresh(
    node: Node, values: Sequence[Array], result: Array, events: Events | None
) -> Array | None:
    """Where a result is not finite and no operand explains it."""
    bad = ~np.isfinite(result)
    if not bad.any():
        return None
    floats = [value for value in values if kind_of(value.dtype) == "f"]
    if node.op.family == "pointwise":
        for value in floats:
            bad &= ~np.isnan(value) & (np.isfinite(value) | np.isnan(result))
        return bad if events is None else bad & (events == 0)
    if events is not None or any(np.isnan(value).any() for value in floats):
        return None
    if all(np.isfinite(value).all() for value in floats):
        return bad
    return bad & np.isnan(result)


def _handed_on(node: Node, operands: list[Tracked], result: Array) -> Events | None:
    """Which events the elements of a result come from by its operands."""
    events = [events_of(operand) for operand in operands]
    if node.op in _ASKS:
        return None
    if node.op is pointwise.select:
        chosen = np.where(operands[0].value, events[1], events[2])
        return _earliest([events[0], chosen])
    if node.op.family == "pointwise":
        found = _earliest(events)
        return found * ~np.isfinite(result) if node.op in _IGNORES else found
    if node.op is indexing.gather:
        return events[0][operands[1].value]
    if node.op in _MOVES:
        return np.asarray(node.op.evaluate(*events, **dict(node.attrs)), np.int32)
    axes = dict(node.attrs).get("axes")
    if node.op.family == "reduction" and axes is not None:
        hidden = np.where(events[0] == 0, _NEVER, events[0])
        reduced: Events = _shown(hidden.min(axis=axes, initial=_NEVER)).astype(np.int32)
        return reduced
    least = _earliest([np.asarray(_least(part)) for part in events])
    return np.full(result.shape, least, np.int32)


#: What moves numbers of events as it moves values.
_MOVES = (
    movement.reshape, movement.transpose, movement.broadcast, movement.slice_, movement.pad,
    movement.concatenate, movement.after, update,
)  # fmt: skip


def _described(node: Node, value: Array, index: tuple[int, ...]) -> str:
    """An operand where the event came about: its element there, or a few, or what it is like."""
    if node.op.family == "pointwise":
        return f"{value[index]}"
    axes = dict(node.attrs).get("axes")
    if node.op.family == "reduction" and axes is not None:
        kept = iter(index)
        row = value[tuple(slice(None) if i in axes else next(kept) for i in range(value.ndim))]
        if row.size <= 8:
            return str(row.ravel().tolist())
        value = row
    text = str(TensorType(value.dtype, value.shape))
    if kind_of(value.dtype) == "f" and value.size:
        text += f" from {value.min():.6g} to {value.max():.6g}"
    return text
