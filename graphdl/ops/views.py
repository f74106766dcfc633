"""Views of an array: slices, transposes, reshapes and parts of it, and writing through them.

A view is a chain of steps from the array that owns the memory. What is written into the view goes
back step by step: a slice is undone by an `update`, a transpose and a reshape by their inverses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from graphdl.ops import complex_numbers, movement
from graphdl.ops.op import Op
from graphdl.ops.update import update
from graphdl.types import Shape, contiguous_strides, reshaped_strides

#: The parts of complex numbers lie in memory with a gap between each two.
PARTS = (complex_numbers.real, complex_numbers.imag)
#: The ops whose result shares memory with its operand; a reshape not always.
VIEWING = (movement.slice_, movement.transpose, movement.reshape)


class Step(Struct, frozen=True):
    """One movement op, from an array of shape `before` to one of shape `after`."""

    op: Op
    attrs: dict[str, Any]
    before: Shape
    after: Shape


def strides_of(shape: Shape, steps: Iterable[Step]) -> Shape | None:
    """The strides of a view of a contiguous array; None where its last step has to copy.

    Any other reshape that strides cannot say joins two axes for their diagonal. The step after it
    is the slice that takes this, and strides can say the two together.
    """
    strides = contiguous_strides(shape)
    diagonal: int | None = None  # where the slice is still to come: from one element to the next
    for step in steps:
        assert diagonal is None or step.op is movement.slice_, "a view goes through no copy"
        if diagonal is not None:
            strides, diagonal = (*strides[:-2], diagonal), None
        elif step.op is movement.slice_:
            strides = tuple(a * b for a, b in zip(strides, step.attrs["steps"], strict=True))
        elif step.op is movement.transpose:
            strides = tuple(strides[axis] for axis in step.attrs["perm"])
        elif step.op in PARTS:
            strides = tuple(2 * stride for stride in strides)
        elif (found := reshaped_strides(step.before, strides, step.after)) is not None:
            strides = found
        else:
            diagonal = sum(strides[-2:])
    return strides if diagonal is None else None


def written(x: Any, steps: Sequence[Step], values: Any) -> Any:
    """x with `values` in the place of its view."""
    path = _composed(steps)
    stages = [x]
    for step in path[:-1]:
        stages.append(step.op(stages[-1], **step.attrs))
    for step, before in zip(reversed(path), reversed(stages), strict=True):
        if step.op is movement.slice_:
            window = {name: step.attrs[name] for name in ("starts", "steps")}
            values = update(before, values, **window)
        elif step.op is movement.transpose:
            perm = step.attrs["perm"]
            inverse = tuple(perm.index(axis) for axis in range(len(perm)))
            values = movement.transpose(values, perm=inverse)
        elif step.op in PARTS:
            both = [complex_numbers.real(before), complex_numbers.imag(before)]
            both[PARTS.index(step.op)] = values
            values = complex_numbers.whole(*both)
        else:
            values = movement.reshape(values, shape=step.before)
    return values


def _composed(steps: Sequence[Step]) -> list[Step]:
    """The same view, its slices first and joined to one as far as they can be.

    So x[1:][2:4].T[0] is written by one update of x.
    """
    path: list[Step] = []
    for step in steps:
        later: list[Step] = []
        while step.op is movement.slice_ and path and path[-1].op is not movement.slice_:
            swapped = _swapped(path[-1], step)
            if swapped is None:
                break
            path.pop()
            step = swapped[0]
            later.append(swapped[1])
        if step.op is movement.slice_ and path and path[-1].op is movement.slice_:
            step = _joined(path.pop(), step)
        path += [step, *reversed(later)]
    return path


def _joined(a: Step, b: Step) -> Step:
    """A slice of a slice."""
    starts = zip(a.attrs["starts"], a.attrs["steps"], b.attrs["starts"], strict=True)
    attrs = {
        "starts": tuple(start + step * further for start, step, further in starts),
        "sizes": b.after,
        "steps": tuple(m * n for m, n in zip(a.attrs["steps"], b.attrs["steps"], strict=True)),
    }
    return Step(movement.slice_, attrs, a.before, b.after)


def _swapped(a: Step, b: Step) -> tuple[Step, Step] | None:
    """A transpose or reshape and then a slice, as a slice and then the other; None if it cannot."""
    if a.op in PARTS:
        return Step(b.op, b.attrs, a.before, b.after), Step(a.op, a.attrs, b.after, b.after)
    places: list[Any]  # the axis of a.before for each of a.after, or None
    if a.op is movement.transpose:
        places = list(a.attrs["perm"])
        attrs = a.attrs
    else:
        from_axes = [axis for axis, size in enumerate(a.before) if size != 1]
        to_axes = [axis for axis, size in enumerate(a.after) if size != 1]
        same = [a.before[i] for i in from_axes] == [a.after[i] for i in to_axes]
        places = [None] * len(a.after)
        for axis, origin in zip(to_axes, from_axes, strict=False):
            places[axis] = origin
        if not same or any(p is None and n != 1 for p, n in zip(places, b.after, strict=True)):
            return None
        attrs = {"shape": b.after}
    windows = {"starts": [0] * len(a.before), "sizes": list(a.before), "steps": [1] * len(a.before)}
    for axis, origin in enumerate(places):
        if origin is not None:
            for name, values in windows.items():
                values[origin] = b.attrs[name][axis]
    window = {name: tuple(values) for name, values in windows.items()}
    middle = window["sizes"]
    return Step(movement.slice_, window, a.before, middle), Step(a.op, attrs, middle, b.after)
