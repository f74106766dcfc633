"""Running a graph in NumPy, the bodies of loops and branches included, with an eye on each node.

`Graph.evaluate` gives results; here every value carries along where it comes from, and each step is
a place that an error can name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from graphdl.graph import Graph, Node
from graphdl.ops import control

Array = NDArray[Any]


class Tracked(Struct, frozen=True):
    """A value, and for each element the number of the event that it comes from: 0 for none.

    `events` is None where all are 0.
    """

    value: Array
    events: NDArray[np.int32] | None = None


class Place(Struct, frozen=True):
    """Where a node is computed: in which graph, and in which steps of which loops around it."""

    graph: Graph
    path: tuple[str, ...] = ()

    def inside(self, graph: Graph, step: str) -> Place:
        return Place(graph, (*self.path, step))


#: Steps count as indices do: the row of `xs`, and the `i` of a fori_loop that begins at 0.
FIRST = "the first is step 0"

#: What one node makes of its operands, at a place.
Compute = Callable[[Node, list[Tracked], Place], Tracked]


def walk(place: Place, inputs: Sequence[Tracked], compute: Compute) -> list[Tracked]:
    """The outputs of the place's graph for these inputs, each node's value made by `compute`."""
    graph = place.graph
    values = dict(zip(graph.inputs, inputs, strict=True))
    packed: dict[Node, list[Tracked]] = {}
    last = {operand: node for node in graph.operations for operand in node.inputs}
    kept = set(graph.outputs)
    for node in graph.operations:
        if node.op.family == "control":
            operands = [values[operand] for operand in node.inputs]
            packed[node] = _CONTROL[node.op.name](node, operands, place, compute)
        elif node.op is control.item and node.inputs[0] in packed:
            origin = node.inputs[0]
            starts = control.offsets(control.result_types(origin))
            values[node] = packed[origin][starts.index(node["offset"])]
        else:
            values[node] = compute(node, [values[operand] for operand in node.inputs], place)
        for operand in set(node.inputs):
            if last[operand] is node and operand not in kept:
                values.pop(operand, None)
                packed.pop(operand, None)
    return [values[node] for node in graph.outputs]


def _scan(node: Node, operands: list[Tracked], place: Place, compute: Compute) -> list[Tracked]:
    body: Graph = node["body"]
    consts, carries, length = node["consts"], node["carries"], node["length"]
    fixed, carry = operands[:consts], operands[consts : consts + carries]
    xs = operands[consts + carries :]
    order = range(length - 1, -1, -1) if node["reverse"] else range(length)
    steps: dict[int, list[Tracked]] = {}
    for t in order:
        inner = place.inside(body, f"step {t} of a loop of {length} steps ({FIRST})")
        rows = [Tracked(x.value[t], None if x.events is None else x.events[t]) for x in xs]
        after = walk(inner, [*fixed, *carry, *rows], compute)
        carry, steps[t] = after[:carries], after[carries:]
    types = control.result_types(node)[carries:]
    stacked = [
        _stacked([steps[t][k] for t in range(length)], type.shape, type.dtype)
        for k, type in enumerate(types)
    ]
    return [*carry, *stacked]


def _stacked(rows: Sequence[Tracked], shape: tuple[int, ...], dtype: Any) -> Tracked:
    values = np.array([row.value for row in rows], dtype).reshape(shape)
    if all(row.events is None for row in rows):
        return Tracked(values)
    return Tracked(values, np.array([events_of(row) for row in rows], np.int32).reshape(shape))


def events_of(value: Tracked) -> NDArray[np.int32]:
    """The events as an array, also where there are none."""
    return np.zeros(value.value.shape, np.int32) if value.events is None else value.events


def _while(node: Node, operands: list[Tracked], place: Place, compute: Compute) -> list[Tracked]:
    condition, start = node["condition"], node["condition_consts"]
    seen = operands[:start]
    kept: list[list[list[Tracked]]] = []  # by sweep, step and number
    results: list[Tracked] = []
    for number, sweep in enumerate(node["sweeps"]):
        fixed = operands[start : start + sweep.consts]
        carry = operands[start + sweep.consts : start + sweep.operands]
        start += sweep.operands
        steps: list[list[Tracked]] = []
        if number == 0:
            while True:
                step = f"step {len(steps)} of a while_loop ({FIRST})"
                test = walk(place.inside(condition, step), [*seen, *carry], compute)[0]
                if not bool(test.value):
                    break
                after = walk(place.inside(sweep.body, step), [*fixed, *carry], compute)
                carry = after[: sweep.carries]
                steps.append(after[sweep.carries :])
        else:
            order = range(len(kept[0]))
            steps = [[] for _ in order]
            for t in reversed(order) if sweep.reverse else order:
                read = [kept[i][t][j] for i, j in sweep.reads]
                inner = place.inside(
                    sweep.body, f"step {t} of a while_loop ({FIRST}), on the way back"
                )
                after = walk(inner, [*fixed, *carry, *read], compute)
                carry, steps[t] = after[: sweep.carries], after[sweep.carries :]
        kept.append(steps)
        results += carry
    return results


def _switch(node: Node, operands: list[Tracked], place: Place, compute: Compute) -> list[Tracked]:
    branches: tuple[Graph, ...] = node["branches"]
    number = min(max(int(operands[0].value), 0), len(branches) - 1)
    inner = place.inside(branches[number], _branch(node.inputs[0], number, len(branches)))
    return walk(inner, operands[1:], compute)


def _branch(choice: Node, number: int, count: int) -> str:
    """A branch as the user knows it: of a cond, whose choice was a bool, by True or False."""
    while choice.op.name in ("copy", "cast"):
        choice = choice.inputs[0]
    if choice.dtype == np.bool_:
        return f"the branch for {bool(number)}"
    return f"branch {number} of a switch with {count} (the first is branch 0)"


def _checkpoint(
    node: Node, operands: list[Tracked], place: Place, compute: Compute
) -> list[Tracked]:
    return walk(place.inside(node["body"], "a checkpoint"), operands, compute)


_CONTROL = {
    control.scan.name: _scan,
    control.while_.name: _while,
    control.switch.name: _switch,
    control.checkpoint.name: _checkpoint,
}


def as_inputs(graph: Graph, leaves: Sequence[Any]) -> list[Array]:
    """The leaves of a call as the inputs of a graph: complex ones as pairs, if it has those."""
    found = []
    for node, leaf in zip(graph.inputs, leaves, strict=True):
        array = np.asarray(leaf)
        if array.dtype.kind == "c" and node.dtype.kind == "f":
            array = np.ascontiguousarray(array).reshape(array.shape)
            array = array.view(node.dtype).reshape(node.shape)
        found.append(array.astype(node.dtype, copy=False))
    return found
