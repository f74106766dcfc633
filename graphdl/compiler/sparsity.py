"""Which elements of the results of a graph depend on which elements of an input.

Each value gets a boolean sparse matrix: a row for each of its elements, a column for each element
of the input. Where a rule does not know better it says that all depends on all. A value that
depends on no input at all is computed, so that masks, index arrays and matrices of zeros and ones
among the constants take away what they take away.

Asked of a function this would also count what has no derivative (a comparison, np.floor). Asked of
the function that maps a direction to the derivative along it, the answer is the pattern of the
Jacobian, with the user's own gradient rules.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from scipy import sparse

from graphdl.graph import Graph, Node
from graphdl.ops import control, movement, pointwise, update
from graphdl.types import TensorType

Pattern = Any  # scipy.sparse.csr_array of booleans; None where nothing depends on the input
#: Steps of a loop that are followed one by one; of a longer one all steps are taken together.
_STEPS = 64


class Known(Struct, frozen=True):
    """What is known of a value: all of it, or on what its elements depend."""

    value: Any = None
    pattern: Pattern = None


def dependence(graph: Graph, position: int) -> Pattern:
    """On which elements of input number `position` the elements of the first output depend."""
    size = graph.inputs[position].type.size
    given = [Known() for _ in graph.inputs]
    given[position] = Known(pattern=sparse.eye_array(size, dtype=bool, format="csr"))
    (found,) = _outputs(graph, given, size)[:1]
    if found.pattern is None:
        return sparse.csr_array((graph.outputs[0].type.size, size), dtype=bool)
    result = sparse.csr_array(found.pattern)
    result.sum_duplicates()
    result.eliminate_zeros()
    result.sort_indices()
    return result


def _outputs(graph: Graph, given: Sequence[Known], width: int) -> list[Known]:
    """What is known of the outputs, given what is known of the inputs."""
    known: dict[Node, Known] = dict(zip(graph.inputs, given, strict=True))
    packed: dict[Node, list[Known]] = {}
    for node in graph.operations:
        operands = [known[operand] for operand in node.inputs]
        if node.op is control.item and node.inputs[0] in packed:
            operation = node.inputs[0]
            places = control.offsets(control.result_types(operation))
            known[node] = packed[operation][places.index(node["offset"])]
        elif node.op.family == "control":
            packed[node] = _CONTROL.get(node.op.name, _all_on_all)(node, operands, width)
            known[node] = Known()
        elif node.op.results is not None and any(operand.value is None for operand in operands):
            packed[node] = _all_on_all(node, operands, width)
            known[node] = Known()
        elif all(operand.value is not None for operand in operands):
            with np.errstate(all="ignore"):
                values = [operand.value for operand in operands]
                known[node] = Known(np.asarray(node.op.evaluate(*values, **dict(node.attrs))))
        elif all(operand.pattern is None for operand in operands):
            known[node] = Known()
        else:
            rule = _RULES.get(node.op.name) or _FAMILIES.get(node.op.family, _dense)
            known[node] = Known(pattern=rule(node, operands, width))
    return [known[node] for node in graph.outputs]


# --- building blocks --------------------------------------------------------------------------


def _union(patterns: Sequence[Pattern]) -> Pattern:
    """Elements that depend on what any of several do."""
    total = None
    for pattern in patterns:
        if pattern is not None:
            total = pattern if total is None else sparse.csr_array(total + pattern)
    return total


def _picked(pattern: Pattern, index: Any) -> Pattern:
    """The pattern whose row i is row index[i] of another; none where the index is negative."""
    rows = np.asarray(index).reshape(-1)
    inside = rows >= 0
    if inside.all():
        return pattern[rows]
    selection = sparse.csr_array(
        (np.ones(inside.sum(), bool), (np.flatnonzero(inside), rows[inside])),
        shape=(rows.size, pattern.shape[0]),
    )
    return sparse.csr_array(selection @ pattern)


def _grouped(pattern: Pattern, groups: Any, count: int) -> Pattern:
    """The pattern of `count` elements: each depends on all that the rows of its group do."""
    groups = np.asarray(groups).reshape(-1)
    sums = sparse.csr_array(
        (np.ones(groups.size, bool), (groups, np.arange(groups.size))), shape=(count, groups.size)
    )
    return sparse.csr_array(sums @ pattern)


def _numbers(type: TensorType) -> Any:
    """Each element's number."""
    return np.arange(type.size).reshape(type.shape)


def _along(type: TensorType, axes: Sequence[int]) -> Any:
    """For each element the number of its group: those that differ along `axes` only."""
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(type.shape))
    return np.broadcast_to(np.arange(int(np.prod(shape))).reshape(shape), type.shape)


def _dense(node: Node, operands: Sequence[Known], width: int) -> Pattern:
    """Each element depends on all that the operands do."""
    return _everything(operands, node.type.size)


def _everything(operands: Sequence[Known], size: int) -> Pattern:
    rows = [
        _grouped(known.pattern, np.zeros(known.pattern.shape[0], np.int64), 1)
        for known in operands
        if known.pattern is not None
    ]
    whole = _union(rows)
    return None if whole is None else whole[np.zeros(size, np.int64)]


# --- the families -----------------------------------------------------------------------------


def _pointwise(node: Node, operands: Sequence[Known], width: int) -> Pattern:
    return _union([operand.pattern for operand in operands])


def _multiply(node: Node, operands: Sequence[Known], width: int) -> Pattern:
    """A product with a known zero depends on nothing."""
    for known, other in (operands, operands[::-1]):
        if known.value is not None and other.pattern is not None:
            kept = np.where(known.value.reshape(-1) != 0, np.arange(known.value.size), -1)
            return _picked(other.pattern, kept)
    return _pointwise(node, operands, width)


def _select(node: Node, operands: Sequence[Known], width: int) -> Pattern:
    condition, x, y = operands
    if condition.value is None:
        return _union([x.pattern, y.pattern])
    numbers, chosen = np.arange(node.type.size), condition.value.reshape(-1)
    parts = [
        None if known.pattern is None else _picked(known.pattern, np.where(mask, numbers, -1))
        for known, mask in ((x, chosen), (y, ~chosen))
    ]
    return _union(parts)


def _same(node: Node, operands: Sequence[Known], width: int) -> Pattern:
    return operands[0].pattern


def _moved(node: Node, operands: Sequence[Known], width: int) -> Pattern:
    """The op done with the elements' numbers says where each element comes from."""
    numbers = _numbers(node.inputs[0].type)
    if operands[0].pattern is None:
        return None
    return _picked(operands[0].pattern, node.op.evaluate(numbers, **dict(node.attrs)))


def _pad(node: Node, operands: Sequence[Known], width: int) -> Pattern:
    x, fill = operands
    places = node.op.evaluate(_numbers(node.inputs[0].type), np.array(-1), **dict(node.attrs))
    inner = None if x.pattern is None else _picked(x.pattern, places)
    around = None if fill.pattern is None else _picked(fill.pattern, np.where(places < 0, 0, -1))
    return _union([inner, around])


def _placed(node: Node, operands: Sequence[Known], width: int) -> Pattern:
    """The elements of several operands, each at a place: done with numbers, as above."""
    return _selected(node, operands, len(operands), width)


def _selected(node: Node, operands: Sequence[Known], count: int, width: int) -> Pattern:
    """The op done with the numbers of the elements of the first `count` operands."""
    types = [operand.type for operand in node.inputs[:count]]
    starts = np.concatenate([[0], np.cumsum([type.size for type in types])])
    numbers = [_numbers(type) + start for type, start in zip(types, starts, strict=False)]
    rows = [
        sparse.csr_array((type.size, width), dtype=bool) if known.pattern is None else known.pattern
        for type, known in zip(types, operands, strict=False)
    ]
    places = [known.value for known in operands[count:]]
    order = node.op.evaluate(*numbers, *places, **dict(node.attrs))
    return _picked(sparse.csr_array(sparse.vstack(rows)), order)


def _scatter(node: Node, operands: Sequence[Known], width: int) -> Pattern:
    """Elements that replace others at known places, or are combined with them."""
    x, values = operands[:2]
    indices = [known.value for known in operands[2:]]
    if any(index is None for index in indices):
        return _dense(node, operands, width)
    if node["mode"] == "set":
        return _selected(node, operands, 2, width)
    if values.pattern is None:
        return x.pattern
    window = {name: node[name] for name in ("axes", "starts", "steps")}
    sizes = node.inputs[1].shape[indices[0].ndim :]
    places = update.picked(_numbers(node.type), *indices, sizes=sizes, **window)
    return _union([x.pattern, _grouped(values.pattern, places, node.type.size)])


def _reduced(node: Node, operands: Sequence[Known], width: int) -> Pattern:
    """An element depends on what those do that are reduced to it."""
    groups = _along(node.inputs[0].type, node["axes"])
    return _grouped(operands[0].pattern, groups, node.type.size)


def _cumulative(node: Node, operands: Sequence[Known], width: int) -> Pattern:
    """An element depends on what its whole line does, of any operand."""
    groups = _along(node.type, (node["axis"],))
    count = int(groups.max(initial=-1)) + 1
    patterns = [known.pattern for known in operands if known.pattern is not None]
    return _picked(_union([_grouped(pattern, groups, count) for pattern in patterns]), groups)


def _gather(node: Node, operands: Sequence[Known], width: int) -> Pattern:
    x, index = operands
    if x.pattern is None:
        return None  # an index is no float
    type = node.inputs[0].type
    if index.value is not None:
        return _picked(x.pattern, node.op.evaluate(_numbers(type), index.value))
    columns = _along(type, (0,))
    any_row = _grouped(x.pattern, columns, int(columns.max(initial=-1)) + 1)
    return _picked(any_row, np.broadcast_to(columns[:1].reshape(type.shape[1:]), node.shape))


def _scatter_add(node: Node, operands: Sequence[Known], width: int) -> Pattern:
    updates, index = operands
    if updates.pattern is None:
        return None
    places = _numbers(node.type)
    type, index_type = node.inputs[0].type, node.inputs[1].type
    if index.value is not None:
        return _grouped(updates.pattern, places[index.value], node.type.size)
    columns = _along(type, range(index_type.ndim))
    any_row = _grouped(updates.pattern, columns, int(columns.max(initial=-1)) + 1)
    row = np.arange(any_row.shape[0]).reshape(node.shape[1:])
    return _picked(any_row, np.broadcast_to(row, node.shape))


def _contract(node: Node, operands: Sequence[Known], width: int) -> Pattern:
    a, b = operands
    la, lb = node["la"], node["lb"]
    of_a, of_b = (operand.type for operand in node.inputs)
    parts = [_product(node, a, la, of_a, b, lb), _product(node, b, lb, of_b, a, la)]
    return _union(parts)


def _product(
    node: Node, x: Known, own: Sequence[int], type: TensorType, y: Known, other: Sequence[int]
) -> Pattern:
    """What a contraction takes from one operand."""
    if x.pattern is None:
        return None
    result = node["lo"]
    if y.value is not None and not np.all(y.value):
        return _sparse_product(node, x, own, type, y.value, other)
    summed = [axis for axis, label in enumerate(own) if label not in result]
    groups = _along(type, summed)
    count = int(groups.max(initial=-1)) + 1
    kept = _grouped(x.pattern, groups, count) if summed else x.pattern
    # the group of each element of the result, by the labels that the operand brings to it
    left = [label for label in own if label in result]
    numbers = np.arange(count).reshape([type.shape[own.index(label)] for label in left])
    order = sorted(range(len(left)), key=lambda i: result.index(left[i]))
    shape = [size if label in left else 1 for label, size in zip(result, node.shape, strict=True)]
    return _picked(kept, np.broadcast_to(numbers.transpose(order).reshape(shape), node.shape))


def _sparse_product(
    node: Node, x: Known, own: Sequence[int], type: TensorType, y: Any, other: Sequence[int]
) -> Pattern:
    """The product with a constant that has zeros: only its other elements count."""
    at = dict(zip(other, np.nonzero(y), strict=True))
    free = [label for label in own if label not in other]
    sizes = [type.shape[own.index(label)] for label in free]
    count, inner = int(np.count_nonzero(y)), math.prod(sizes)
    grid = np.indices(sizes).reshape(len(free), inner)
    index = {label: np.repeat(places, inner) for label, places in at.items()}
    index |= {label: np.tile(places, count) for label, places in zip(free, grid, strict=True)}
    rows = _raveled([index[label] for label in node["lo"]], node.shape, count * inner)
    columns = _raveled([index[label] for label in own], type.shape, count * inner)
    matrix = sparse.csr_array(
        (np.ones(rows.size, bool), (rows, columns)), shape=(node.type.size, type.size)
    )
    return sparse.csr_array(matrix @ x.pattern)


def _raveled(index: Sequence[Any], shape: Sequence[int], count: int) -> Any:
    return np.ravel_multi_index(tuple(index), tuple(shape)) if shape else np.zeros(count, np.int64)


# --- loops and branches -----------------------------------------------------------------------


def _all_on_all(node: Node, operands: Sequence[Known], width: int) -> list[Known]:
    return [Known(pattern=_everything(operands, type.size)) for type in control.result_types(node)]


def _switch(node: Node, operands: Sequence[Known], width: int) -> list[Known]:
    results = [_outputs(branch, operands[1:], width) for branch in node["branches"]]
    return [_either(list(known)) for known in zip(*results, strict=True)]


def _either(known: Sequence[Known]) -> Known:
    """What is known of a value that is one of several."""
    return Known(pattern=_union([one.pattern for one in known]))


def _settled(step: Callable[[list[Known]], list[Known]], carry: list[Known]) -> list[Known]:
    """The carries of a loop of any number of steps: until nothing is added."""
    carry = [Known(pattern=known.pattern) for known in carry]
    while True:
        after = [_either(pair) for pair in zip(carry, step(carry), strict=True)]
        if [_count(known) for known in after] == [_count(known) for known in carry]:
            return after
        carry = after


def _count(known: Known) -> int:
    return 0 if known.pattern is None else int(known.pattern.nnz)


def _while(node: Node, operands: Sequence[Known], width: int) -> list[Known]:
    start = node["condition_consts"]
    kept: list[list[Known]] = []  # by the sweeps so far, of any step
    results: list[Known] = []
    for sweep in node["sweeps"]:
        own = operands[start : start + sweep.operands]
        start += sweep.operands
        read = [kept[i][j] for i, j in sweep.reads]
        step = functools.partial(_step, sweep.body, list(own[: sweep.consts]), read, width)
        carry = _settled(functools.partial(_first, step, sweep.carries), list(own[sweep.consts :]))
        kept.append([_either([known]) for known in step(carry)[sweep.carries :]])
        results += carry
    return results


def _step(
    body: Graph, fixed: list[Known], read: list[Known], width: int, carry: list[Known]
) -> list[Known]:
    """A step of a loop: its carries, then what it gives."""
    return _outputs(body, [*fixed, *carry, *read], width)


def _first(step: Callable[[list[Known]], list[Known]], count: int, carry: list[Known]) -> Any:
    return step(carry)[:count]


def _scan(node: Node, operands: Sequence[Known], width: int) -> list[Known]:
    body: Graph = node["body"]
    consts, carries, length = node["consts"], node["carries"], node["length"]
    fixed = list(operands[:consts])
    carry = list(operands[consts : consts + carries])
    stacked = list(zip(operands[consts + carries :], body.inputs[consts + carries :], strict=True))
    steps = list(range(length))
    if length > _STEPS:
        rows = [_any_row(known, x.type, length) for known, x in stacked]
        carry = _settled(
            lambda carry: _outputs(body, [*fixed, *carry, *rows], width)[:carries], carry
        )
        outputs = _outputs(body, [*fixed, *carry, *rows], width)[carries:]
        return [*carry, *(_repeated(known, length) for known in outputs)]
    found: list[list[Known]] = []
    for t in reversed(steps) if node["reverse"] else steps:
        rows = [_row(known, x.type, t) for known, x in stacked]
        results = _outputs(body, [*fixed, *carry, *rows], width)
        carry = results[:carries]
        found.append(results[carries:])
    if node["reverse"]:
        found.reverse()
    types = [output.type for output in body.outputs[carries:]]
    return [
        *carry,
        *(
            Known(pattern=_stacked([step[k].pattern for step in found], type.size, width))
            for k, type in enumerate(types)
        ),
    ]


def _row(known: Known, type: TensorType, t: int) -> Known:
    if known.value is not None:
        return Known(known.value[t])
    if known.pattern is None:
        return Known()
    return Known(pattern=known.pattern[t * type.size : (t + 1) * type.size])


def _any_row(known: Known, type: TensorType, length: int) -> Known:
    if known.pattern is None:
        return Known()
    return Known(pattern=_grouped(known.pattern, np.tile(np.arange(type.size), length), type.size))


def _repeated(known: Known, length: int) -> Known:
    if known.pattern is None:
        return Known()
    return Known(pattern=known.pattern[np.tile(np.arange(known.pattern.shape[0]), length)])


def _stacked(patterns: Sequence[Pattern], size: int, width: int) -> Pattern:
    if all(pattern is None for pattern in patterns):
        return None
    empty = sparse.csr_array((size, width), dtype=bool)
    return sparse.csr_array(sparse.vstack([empty if p is None else p for p in patterns]))


Rule = Callable[[Node, Sequence[Known], int], Pattern]

_FAMILIES: dict[str, Rule] = {"pointwise": _pointwise, "custom": _same, "cumulative": _cumulative}
_RULES: dict[str, Rule] = {
    pointwise.multiply.name: _multiply,
    pointwise.select.name: _select,
    movement.reshape.name: _same,
    movement.after.name: _same,
    movement.transpose.name: _moved,
    movement.broadcast.name: _moved,
    movement.slice_.name: _moved,
    movement.pad.name: _pad,
    movement.concatenate.name: _placed,
    update.update.name: _placed,
    update.scatter.name: _scatter,
    "sum": _reduced,
    "prod": _reduced,
    "max": _reduced,
    "min": _reduced,
    "gather": _gather,
    "scatter_add": _scatter_add,
    "contract": _contract,
}
_CONTROL: dict[str, Callable[[Node, Sequence[Known], int], list[Known]]] = {
    control.scan.name: _scan,
    control.while_.name: _while,
    control.switch.name: _switch,
}
