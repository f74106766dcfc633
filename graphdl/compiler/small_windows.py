"""Reductions over small windows: their elements are read as arrays of their own, and combined.

    x.reshape(h, 2, w, 2).max((1, 3))        # pooling

A loop over the two elements of a window that lie side by side is too short for vector instructions,
and it would run once for each row of each window. The first elements of all windows are an array,
too, of every other row and column of `x`, and so are the second ones: their maximum is one loop
over the windows. What is computed on the way from memory to the windows is computed of each such
array, and so once, as before.

Windows of one axis need nothing of this: see graphdl.kernels.short_rows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce

from msgspec import Struct

from graphdl.compiler.constants import repeated
from graphdl.compiler.costs import cost_of
from graphdl.compiler.origins import CHECKS
from graphdl.compiler.rewrite import credit
from graphdl.compiler.small_axes import COMBINED, is_pointwise
from graphdl.compiler.view import is_result, view_of
from graphdl.graph import Graph, Node, Source, rebuild, users
from graphdl.ops import movement
from graphdl.ops.op import node_of, rebuilt
from graphdl.types import Shape, contiguous_strides

#: The most elements of a window, and the most of them side by side, which is how far apart a loop
#: over windows reads. Measured: maxima of 2 x 2 take a seventh of the time, means of 2 x 6 half of
#: it and of 4 x 4 two thirds, those of 2 x 8 as much as before, and those of 8 x 8 twice as much.
LARGEST, WIDEST = 16, 6
#: Fewer windows are done in no time either way, and a kernel for them would be larger.
_MANY = 64
#: Operations of all elements of a window: each takes its time to compile.
_OPERATIONS = 64
#: Nanoseconds an element of what is computed for the windows and for others as well: beyond, it is
#: left to be kept, as it would be computed twice.
_TWICE = 0.8

_MOVEMENT = (movement.reshape, movement.transpose, movement.broadcast, movement.slice_)
#: Results of these lie in memory.
_IN_MEMORY = {
    "reduction",
    "contraction",
    "convolution",
    "linalg",
    "cumulative",
    "sorting",
    "window",
}
#: Kernels of these compute what follows them as they write.
_PRODUCTS = ("contraction", "convolution")


class _Read(Struct, frozen=True):
    """A value, and the movement through which the windows see it, the first one first."""

    node: Node
    path: tuple[Node, ...] = ()

    def above(self) -> Iterator[_Read]:
        """What it is computed from."""
        if self.node.op in _MOVEMENT:
            yield _Read(self.node.inputs[0], (self.node, *self.path))
        else:
            for operand in self.node.inputs:
                yield _Read(operand, self.path)

    def seen(self, value: Node) -> Node:
        """A value in the place of the node, as the windows see it."""
        return reduce(lambda x, step: node_of(step.op, (x,), dict(step.attrs)), self.path, value)


def split_small_windows(graph: Graph) -> Graph:
    """The same function; no loop over windows has a short one inside."""
    candidates = [node for node in graph.operations if _has_small_windows(node)]
    if not candidates:
        return graph
    kept = {*graph.inputs, *graph.outputs}
    readers = users(graph.nodes)
    others = frozenset(candidates)
    ends = {
        node: _ends(node, kept, readers)
        for node in candidates
        if not _is_spread(node, readers, others)
    }
    if not any(ends.values()):
        return graph
    made: dict[Node, Node] = {node: node for node in graph.inputs}
    lines: dict[Node, Source] = {}

    def replace(node: Node, inputs: tuple[Node, ...]) -> Node:
        if ends.get(node):
            windows = _Windows(node, ends[node], made, graph.sources)
            made[node] = windows.combined()
            lines.update(windows.lines)
        else:
            made[node] = rebuilt(node, inputs)
        return made[node]

    split = rebuild(graph, replace)
    return split.with_outputs(split.outputs, {**lines, **split.sources})


def _size(node: Node) -> int:
    """The elements of a window."""
    return math.prod(node.inputs[0].shape[axis] for axis in node["axes"])


def _has_small_windows(node: Node) -> bool:
    """Whether a node reduces small windows of several axes, or of one that the last one follows."""
    if node.op not in COMBINED or node.type.size < _MANY:
        return False
    shape = node.inputs[0].shape
    long = [axis for axis, size in enumerate(shape) if size > 1]
    axes = [axis for axis in long if axis in node["axes"]]
    return (
        bool(axes)
        and axes[-1] == long[-1]
        and axes != long[-len(axes) :]
        and shape[axes[-1]] <= WIDEST
        and 1 < _size(node) <= LARGEST
    )


def _is_spread(node: Node, readers: Mapping[Node, Sequence[Node]], others: frozenset[Node]) -> bool:
    """Whether what is made of the result goes to all elements of its window, and nothing else does.

    One nest of loops does both, and what it writes has the short loop anyway. So are the gradient
    of a mean and `x - mean`. If other reductions follow (`others`), splitting saves more than that.
    """
    made, pending = {node}, [node]
    is_spread = False
    while pending and len(made) <= _OPERATIONS:
        for reader in readers[pending.pop()]:
            if reader in others:
                return False
            is_here = is_pointwise(reader) or reader.op in _MOVEMENT
            if not is_here or reader in made:
                continue
            if all(operand in made or _is_given(operand) for operand in reader.inputs):
                made.add(reader)
                pending.append(reader)
                is_spread = is_spread or reader.type.size >= node.inputs[0].type.size
    return is_spread and others.isdisjoint(_behind(node.inputs[0]))


def _is_given(node: Node) -> bool:
    """Whether a value is a view of an argument, or a number."""
    while node.op in _MOVEMENT:
        node = node.inputs[0]
    return not node.inputs


def _behind(node: Node) -> set[Node]:
    """What a value is computed from, as far as few operations go back."""
    pending, found = [node], {node}
    while pending and len(found) <= _OPERATIONS:
        step = pending.pop()
        if is_pointwise(step) or step.op in _MOVEMENT:
            pending += [x for x in step.inputs if x not in found]
            found.update(step.inputs)
    return found


def _ends(node: Node, kept: set[Node], readers: Mapping[Node, Sequence[Node]]) -> frozenset[_Read]:
    """The values in memory that windows are computed from; none where splitting does not pay.

    What only follows a product is computed where that is written, for all readers.
    """
    start, windows, count = node.inputs[0], node.type.size, _size(node)
    ends: set[_Read] = set()
    last: _Read | None = None
    operations, twice = 0, 0.0
    pending = [(_Read(start), False)]
    seen: set[_Read] = set()
    while pending:
        read, is_shared = pending.pop()
        node = read.node
        if read in seen:
            continue
        seen.add(read)
        if node in kept or _is_in_memory(node, windows):
            if view_of(read.seen(node)) is None:
                return frozenset()
            ends.add(read)
            continue
        is_shared = is_shared or len(readers[node]) > 1
        if node.op in _MOVEMENT:
            operations += 1
        elif is_pointwise(node) and node.op not in CHECKS:
            operations += count
            twice += cost_of(node) * node.type.size / start.type.size if is_shared else 0.0
            last = last or read
        else:
            return frozenset()
        if operations > _OPERATIONS or twice > _TWICE:
            return frozenset()
        pending += [(above, is_shared) for above in read.above()]
    families = {end.node.op.family for end in ends}
    if last is None or families.isdisjoint(_PRODUCTS) or "reduction" in families:
        return frozenset(ends)
    return frozenset({last}) if view_of(last.seen(last.node)) is not None else frozenset()


def _is_in_memory(node: Node, windows: int) -> bool:
    """Whether a value lies in memory whoever reads it, or better does: of fewer elements than there
    are windows, none should be computed anew for each window.
    """
    return (
        node.type.size < windows
        or is_result(node)
        or node.op is movement.constant
        or node.op.family in _IN_MEMORY
    )


class _Windows:
    """The new nodes of one reduction, what they `read`, and the user's lines of some of them."""

    def __init__(
        self,
        node: Node,
        ends: frozenset[_Read],
        made: Mapping[Node, Node],
        sources: Mapping[Node, Source],
    ) -> None:
        self.node = node
        self.ends = ends
        self.made = made
        self.sources = sources
        self.lines: dict[Node, Source] = {}
        self.read = {made[end.node] for end in ends}

    def combined(self) -> Node:
        axes = self.node["axes"]
        shape = self.node.inputs[0].shape
        sizes = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
        places = itertools.product(
            *(range(size) if axis in axes else (0,) for axis, size in enumerate(shape))
        )
        start = _Read(self.node.inputs[0])
        parts = [self.part(start, place, sizes, {}) for place in places]
        total = reduce(lambda a, b: node_of(COMBINED[self.node.op], (a, b)), parts)
        self.credit(total, self.node)
        return total

    def part(self, read: _Read, place: Shape, sizes: Shape, parts: dict[_Read, Node]) -> Node:
        """The elements at one place of all windows; `parts` are those there already."""
        if read in parts:
            return parts[read]
        if read in self.ends:
            made = _sliced(read.seen(self.made[read.node]), place, sizes, self.node.shape)
        else:
            operands = tuple(self.part(x, place, sizes, parts) for x in read.above())
            made = operands[0] if read.node.op in _MOVEMENT else rebuilt(read.node, operands)
        self.credit(made, self.node if read in self.ends else read.node)
        parts[read] = made
        return made

    def credit(self, made: Node, origin: Node) -> None:
        """What is made for a node has its line."""
        if origin in self.sources:
            self.lines.setdefault(made, self.sources[origin])
            credit(made, self.sources[origin], self.lines, self.read)


def _sliced(whole: Node, starts: Shape, sizes: Shape, shape: Shape) -> Node:
    """A part of an array without the axes of windows, read as directly as possible."""
    attrs = {"starts": starts, "sizes": sizes, "steps": (1,) * len(sizes)}
    part = node_of(movement.slice_, (whole,), attrs)
    made = node_of(movement.reshape, (part,), {"shape": shape})
    view = view_of(made)
    assert view is not None, "a part of a view is a view"
    if view.base.type.ndim == 0:
        return repeated(view.base, shape)
    is_base = view.base.shape == shape and view.strides == contiguous_strides(shape)
    return view.base if is_base else made
