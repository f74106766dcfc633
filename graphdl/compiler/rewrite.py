"""Simplification: structural identities, constant folding, and the algebraic rules.

One walk over the graph, inputs first. Each rebuilt node is simplified until nothing applies; a rule
sees operands that are simplified already. The canonical form: a constant stands on the right of a
commutative op; a repeated value is one `broadcast` of the smallest array; `variable` is gone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from typing import Any

import numpy as np

from graphdl.compiler import record, rules
from graphdl.compiler.constants import constant, is_zero, repeated, uniform
from graphdl.compiler.joined_parts import joined
from graphdl.compiler.quotients import gradient_of_quotient
from graphdl.compiler.stability import stabilised
from graphdl.compiler.view import is_movement
from graphdl.graph import Graph, Node, Source, rebuild, reference, topological
from graphdl.ops import contraction, control, indexing, movement, pointwise, reduction
from graphdl.ops.op import node_of, rebuilt
from graphdl.ops.update import scatter, update
from graphdl.tracing import Trace
from graphdl.types import Shape, finfo, kind_of
from graphdl.windows import are_disjoint, is_within, places, window_in

_COMMUTATIVE = frozenset(
    op.name
    for op in (
        pointwise.add, pointwise.multiply, pointwise.maximum, pointwise.minimum,
        pointwise.equal, pointwise.not_equal, pointwise.logical_and, pointwise.logical_or,
    )
)  # fmt: skip
#: What differentiation needs to see; gone when the whole graph is simplified.
_MARKS = (pointwise.variable, pointwise.stop_gradient)


def is_mark(node: Node) -> bool:
    """Whether the node only tells differentiation something, and is its first operand."""
    return node.op in _MARKS or node.op.family == "custom"


_MAX_STEPS = 64
#: Constant arrays up to this size are computed while compiling.
_FOLD = 4096


def simplify(graph: Graph) -> Graph:
    """The same function with less to do."""
    bare = rebuild(
        graph,
        lambda node, inputs: inputs[0] if is_mark(node) else rebuilt(node, inputs),
    )
    new, sources = simplified(bare.outputs, bare.inputs, bare.sources)
    return bare.with_outputs([new[node] for node in bare.outputs], sources)


def simplified(
    outputs: Iterable[Node], kept: Iterable[Node], sources: Mapping[Node, Source]
) -> tuple[dict[Node, Node], dict[Node, Source]]:
    """What to use instead of each node that `outputs` reach, and the user's lines of the new ones.

    `kept` nodes stay as they are: the inputs, or the variables of a gradient.
    """
    trace, fired = Trace("simplify"), record.firings()
    new: dict[Node, Node] = {node: node for node in kept}
    known = set(new)
    lines = dict(sources)
    for node in topological(outputs):
        if node in new:
            continue
        trace.standin = sources.get(node)
        operands = tuple(new[operand] for operand in node.inputs)
        result = _simplified(rebuilt(node, operands), trace, fired)
        new[node] = result
        if node in sources:
            lines.setdefault(result, sources[node])
            credit(result, sources[node], lines, known)
    for made, source in trace.sources.items():
        lines.setdefault(made, source)
    return new, lines


def credit(
    result: Node, source: Source, lines: dict[Node, Source], inputs: Collection[Node]
) -> None:
    """What a rule has made on the way to its result has the line of the result."""
    pending = [result]
    while pending:
        for operand in pending.pop().inputs:
            if operand not in lines and operand not in inputs and operand.op.family != "input":
                lines[operand] = source
                pending.append(operand)


def _simplified(node: Node, trace: Trace, fired: list[record.Firing] | None) -> Node:
    """Apply what applies until nothing does; operands that a rule makes are simplified as well."""
    known: dict[Node, Node] = {}
    for _ in range(_MAX_STEPS):
        step = _step(node, trace, fired)
        if step is None:
            return node
        node = _operands_simplified(step, node, trace, known, fired)
    return node


def _operands_simplified(
    node: Node,
    before: Node,
    trace: Trace,
    known: dict[Node, Node],
    fired: list[record.Firing] | None,
) -> Node:
    """Simplify the nodes between `node` and what was there before (a rule makes a few)."""
    old = set(before.inputs)
    for operand in before.inputs:
        old.update(operand.inputs)
        for inner in operand.inputs:
            old.update(inner.inputs)

    def visit(at: Node, depth: int) -> Node:
        if at in old or depth == 0 or not at.inputs:
            return at
        if at not in known:
            operands = tuple(visit(operand, depth - 1) for operand in at.inputs)
            made = rebuilt(at, operands)
            step = _step(made, trace, fired)
            for _ in range(_MAX_STEPS):
                if step is None:
                    break
                made = step
                step = _step(made, trace, fired)
            known[at] = made
        return known[at]

    if node in old:
        return node
    return rebuilt(node, tuple(visit(operand, 8) for operand in node.inputs))


def _step(node: Node, trace: Trace, fired: list[record.Firing] | None) -> Node | None:
    """One simplification of `node`, or None; written down where somebody asked for that."""
    step = _named_step(node, trace)
    if step is None:
        return None
    if fired is not None:
        fired.append(record.Firing(step[0], node, step[1], trace.standin))
    return step[1]


def _named_step(node: Node, trace: Trace) -> tuple[str, Node] | None:
    """The first simplification that applies to `node`, by its name: a rule's, or a function's."""
    empty = _empty(node)
    if empty is not None:
        return ("nothing to compute", empty) if empty is not node else None
    if is_movement(node):
        single = _one_value(node)
        if single is not None and single is not node:
            return "movement of one value", single
    structural = _STRUCTURAL.get(node.op.name)
    if structural is not None:
        result = structural(node)
        if result is not None and result is not node:
            return _name_of(structural), result
    if node.op.family == "pointwise":
        return _pointwise(node) or stabilised(node, trace) or rules.apply(node, trace)
    if node.op.family == "reduction":
        reduced = _reduction(node)
        return None if reduced is None else ("reduction", reduced)
    return None


@cache
def _name_of(function: Callable[..., Any]) -> str:
    return function.__name__.strip("_").replace("_", " ")


# --- values that are the same everywhere ------------------------------------------------------


def _empty(node: Node) -> Node | None:
    """What a node without elements is, or one made from nothing: no kernel ever runs on those."""
    if not node.inputs:
        return None
    if node.type.size == 0:
        value: Any = 0
    elif node.inputs[0].type.size == 0 and node.op.name in _OF_NOTHING:
        value = _OF_NOTHING[node.op.name]
    else:
        return None
    return repeated(constant(np.asarray(value, node.dtype)), node.shape)


#: Reductions of no elements; a contraction over an axis of size 0; no updates; searches in nothing.
_OF_NOTHING = {
    "sum": 0, "prod": 1, "any": False, "all": True, "contract": 0, "scatter_add": 0,
    "searchsorted": 0,
}  # fmt: skip


def _one_value(node: Node) -> Node | None:
    """Movement of a single element: the 0-d value, repeated. What waits goes on waiting."""
    x = node.inputs[0]
    if x.type.size != 1 or node.op is movement.after:
        return None
    if x.shape == () and node.op is movement.broadcast:
        return None
    while is_movement(x) and x.op is not movement.after and x.inputs[0].type.size == 1:
        x = x.inputs[0]
    if x.shape == node.shape:
        return x
    if x.shape != ():
        if node.shape == ():
            return None if x is node.inputs[0] else node_of(movement.reshape, (x,), {"shape": ()})
        x = node_of(movement.reshape, (x,), {"shape": ()})
    return repeated(x, node.shape)


def _fold(node: Node) -> Node | None:
    """The constant that a node on constants is."""
    if not node.inputs or node.op in _MARKS:
        return None
    values = [uniform(operand) for operand in node.inputs]
    if all(value is not None for value in values):
        with np.errstate(all="ignore"):
            result = reference(node, values)
        return repeated(constant(result.astype(node.dtype, copy=False)), node.shape)
    return None


def _pointwise(node: Node) -> tuple[str, Node] | None:
    if node.op in _MARKS:
        return None
    for simplification in _POINTWISE:
        result = simplification(node)
        if result is not None:
            return None if result is node else (_name_of(simplification), result)
    return None


def _same_dtype(node: Node) -> Node | None:
    """A cast to the dtype that there is."""
    is_idle = node.op is pointwise.cast and node["dtype"] == node.inputs[0].dtype
    return node.inputs[0] if is_idle else None


def _known_choice(node: Node) -> Node | None:
    """A choice between equals, or one that is known."""
    if node.op is not pointwise.select:
        return None
    condition, x, y = node.inputs
    if x is y:
        return x
    known = uniform(condition)
    if known is None:
        return None
    return x if bool(known) else y


def _constant_to_the_right(node: Node) -> Node | None:
    if node.op.name not in _COMMUTATIVE:
        return None
    x, y = node.inputs
    return rebuilt(node, (y, x)) if uniform(x) is not None and uniform(y) is None else None


def _scaled_twice(node: Node) -> Node | None:
    """(x * a) * b is x * (a * b), where the product of the constants a and b is a normal number."""
    if node.op is not pointwise.multiply or not node.type.is_float:
        return None
    inner, b = node.inputs[0], uniform(node.inputs[1])
    if b is None or inner.op is not pointwise.multiply:
        return None
    a = uniform(inner.inputs[1])
    if a is None:
        return None
    with np.errstate(all="ignore"):
        both = a * b
    if not finfo(node.dtype).tiny <= abs(both) <= finfo(node.dtype).max:
        return None
    return node_of(node.op, (inner.inputs[0], repeated(constant(both), node.shape)))


def _hoist(node: Node) -> Node | None:
    """f(broadcast(a), broadcast(b)) is broadcast(f(a, b)): compute before repeating."""
    pattern: tuple[Shape, tuple[int, ...]] | None = None
    for operand in node.inputs:
        if uniform(operand) is not None or _is_repeated_number(operand):
            continue
        if operand.op is not movement.broadcast:
            return None
        this = (operand.inputs[0].shape, operand["dims"])
        if pattern is not None and pattern != this:
            return None
        pattern = this
    if pattern is None:
        if not any(_is_repeated_number(operand) for operand in node.inputs):
            return None
        pattern = (), ()
    shape, dims = pattern
    small = []
    for operand in node.inputs:
        value = uniform(operand)
        if value is not None:
            small.append(repeated(constant(value), shape))
        elif _is_repeated_number(operand):
            small.append(repeated(operand.inputs[0], shape))
        else:
            small.append(operand.inputs[0])
    inner = node_of(node.op, small, dict(node.attrs))
    return node_of(movement.broadcast, (inner,), {"shape": node.shape, "dims": dims})


def _before_reshape(node: Node) -> Node | None:
    """f(reshape(a), reshape(b)) is reshape(f(a, b)): what keepdims adds stays out of the loops."""
    shape: Shape | None = None
    operands = []
    for operand in node.inputs:
        value = uniform(operand)
        if value is not None or _is_repeated_number(operand):
            operands.append(operand)
            continue
        if operand.op is not movement.reshape:
            return None
        inner = operand.inputs[0]
        if shape is not None and inner.shape != shape:
            return None
        shape = inner.shape
        operands.append(inner)
    if shape is None:
        return None
    small = [
        operand if operand.shape == shape else _repeated_again(operand, shape)
        for operand in operands
    ]
    return node_of(
        movement.reshape, (node_of(node.op, small, dict(node.attrs)),), {"shape": node.shape}
    )


def _before_transpose(node: Node) -> Node | None:
    """f(transpose(a), transpose(b)) is transpose(f(a, b)): arrays are walked as they lie in memory.

    A row or a column that is repeated beside them is repeated along the axis where it belongs then.
    """
    perm: tuple[int, ...] | None = None
    for operand in node.inputs:
        if operand.op is movement.transpose:
            if perm is not None and operand["perm"] != perm:
                return None
            perm = operand["perm"]
    if perm is None:
        return None
    shape = tuple(node.shape[perm.index(axis)] for axis in range(len(perm)))
    operands = []
    for operand in node.inputs:
        if operand.op is movement.transpose:
            operands.append(operand.inputs[0])
        elif uniform(operand) is not None or _is_repeated_number(operand):
            operands.append(_repeated_again(operand, shape))
        elif operand.op is movement.broadcast:
            dims = tuple(perm[dim] for dim in operand["dims"])
            if dims != tuple(sorted(dims)):
                return None
            attrs = {"shape": shape, "dims": dims}
            operands.append(node_of(movement.broadcast, operand.inputs, attrs))
        else:
            return None
    inner = node_of(node.op, operands, dict(node.attrs))
    return node_of(movement.transpose, (inner,), {"perm": perm})


def _repeated_again(node: Node, shape: Shape) -> Node:
    """A number that is repeated, as one of another shape."""
    value = uniform(node)
    return repeated(node.inputs[0] if value is None else constant(value), shape)


def _is_repeated_number(node: Node) -> bool:
    return node.op is movement.broadcast and node.inputs[0].shape == ()


#: What applies to any pointwise op, in order.
_POINTWISE = (
    _fold, _same_dtype, _known_choice, _constant_to_the_right, _scaled_twice, _hoist,
    _before_reshape, _before_transpose,
)  # fmt: skip


# --- movement ---------------------------------------------------------------------------------


def _reshape(node: Node) -> Node | None:
    x = node.inputs[0]
    if x.shape == node.shape:
        return x
    if x.op is movement.reshape:
        return rebuilt(node, (x.inputs[0],))
    if x.op is movement.constant:
        return constant(x["value"].array.reshape(node.shape))
    if x.op is movement.broadcast and x.inputs[0].shape == ():
        return repeated(x.inputs[0], node.shape)
    return None


def _transpose(node: Node) -> Node | None:
    x, perm = node.inputs[0], node["perm"]
    if perm == tuple(range(len(perm))):
        return x
    if x.op is movement.transpose:
        inner = x["perm"]
        return node_of(movement.transpose, x.inputs, {"perm": tuple(inner[axis] for axis in perm)})
    if x.op is movement.broadcast and x.inputs[0].shape == ():
        return repeated(x.inputs[0], node.shape)
    if x.op is contraction.contract:
        labels = tuple(x["lo"][axis] for axis in perm)
        attrs = dict(x.attrs) | {"lo": labels}
        return node_of(contraction.contract, x.inputs, attrs)
    return None


def _broadcast(node: Node) -> Node | None:
    x = node.inputs[0]
    if x.shape == node.shape:
        return x
    if x.op is movement.broadcast:
        dims = tuple(node["dims"][dim] for dim in x["dims"])
        return node_of(movement.broadcast, x.inputs, {"shape": node.shape, "dims": dims})
    if x.op is movement.reshape:
        kept = _dropped_ones(x)
        if kept is not None:  # broadcast of squeeze: not needed, a size of one is kept as it is
            return None
    if x.op is movement.constant and x.type.size == 1 and x.shape:
        return repeated(constant(x["value"].array.reshape(())), node.shape)
    return None


def _dropped_ones(node: Node) -> tuple[int, ...] | None:
    """The axes that a reshape keeps, if all that it drops have size one."""
    kept = tuple(axis for axis, size in enumerate(node.inputs[0].shape) if size != 1)
    shape = tuple(node.inputs[0].shape[axis] for axis in kept)
    return kept if shape == node.shape else None


def _slice(node: Node) -> Node | None:
    x = node.inputs[0]
    starts, sizes, steps = node["starts"], node["sizes"], node["steps"]
    if sizes == x.shape and not any(starts) and all(step == 1 for step in steps):
        return x
    if x.op is movement.broadcast and x.inputs[0].shape == ():
        return repeated(x.inputs[0], node.shape)
    if x.op is movement.slice_:
        attrs = {
            "starts": tuple(
                a + b * step for a, b, step in zip(x["starts"], starts, x["steps"], strict=True)
            ),
            "sizes": sizes,
            "steps": tuple(a * b for a, b in zip(x["steps"], steps, strict=True)),
        }
        return node_of(movement.slice_, x.inputs, attrs)
    if x.op is update:
        return _slice_of_update(node, x)
    if x.op is movement.pad:
        return _slice_of_pad(node, x)
    return None


#: Updates in a row that are looked through for where an element comes from; and up to how many
#: elements are taken from there, or which part of the array: more would be written twice, as the
#: values and into the array (but values that are all one number, which need no memory).
_LOOK_BACK, _LOOK_UP, _LOOK_UP_PART = 256, 64, 1 / 8


def _slice_of_update(node: Node, x: Node) -> Node | None:
    """What is read was written as a whole by one update: then it is read there.

    What no update has changed is read from the last one all the same: an older array that is read
    later could not be overwritten in place.
    """
    if not node.type.size:
        return None
    wanted = places(node["starts"], node.shape, node["steps"])
    for _ in range(_LOOK_BACK):
        changed = places(x["starts"], x.inputs[1].shape, x["steps"])
        if is_within(wanted, changed):
            many = max(_LOOK_UP, _LOOK_UP_PART * x.type.size)
            if node.type.size > many and uniform(x.inputs[1]) is None:
                return None
            return node_of(movement.slice_, (x.inputs[1],), window_in(wanted, changed))
        if not are_disjoint(wanted, changed):
            return None
        x = x.inputs[0]
        if x.op is not update:
            return None
    return None


def _slice_of_pad(node: Node, x: Node) -> Node | None:
    """A part of what has been padded, or of what is around it."""
    inside, fill = x.inputs
    if not node.type.size or not inside.type.size:
        return None
    wanted = places(node["starts"], node.shape, node["steps"])
    given = places(x["starts"], inside.shape, x["steps"])
    if is_within(wanted, given):
        return node_of(movement.slice_, (inside,), window_in(wanted, given))
    return repeated(fill, node.shape) if are_disjoint(wanted, given) else None


def _update(node: Node) -> Node | None:
    """An update of nothing, or of everything."""
    x, values = node.inputs
    if values.type.size == 0:
        return x
    window = places(node["starts"], values.shape, node["steps"])
    if values.shape == x.shape and all(p == range(n) for p, n in zip(window, x.shape, strict=True)):
        return values
    return None


def _scatter(node: Node) -> Node | None:
    return node.inputs[0] if node.inputs[1].type.size == 0 else None


def _added_to(node: Node) -> Node | None:
    """x + scatter_add(v), and x + pad(v), where x stays x but for a few elements.

    Gradients of reads of parts add up like this.
    """
    for x, sums in (node.inputs, node.inputs[::-1]):
        if sums.op is indexing.scatter_add and node.type.is_float:
            updates, index = sums.inputs
            attrs = {"axes": (0,), "mode": "add", "unique": False}
            attrs |= {"starts": (0,) * x.type.ndim, "steps": (1,) * x.type.ndim}
            return node_of(scatter, (x, updates, index), attrs)
        if sums.op is movement.pad and _is_small(sums.inputs[0], node):
            padded, fill = sums.inputs
            if not is_zero(fill):
                continue
            window = {"starts": sums["starts"], "steps": sums["steps"]}
            old = node_of(movement.slice_, (x,), {**window, "sizes": padded.shape})
            return node_of(update, (x, node_of(pointwise.add, (old, padded))), window)
    return None


def _is_small(part: Node, whole: Node) -> bool:
    """Whether a launch for a part alone costs less than a pass over the whole array.

    Where it does not, sums of padded arrays are one kernel.
    """
    return whole.type.size >= 512 and 8 * part.type.size <= whole.type.size


def _pad(node: Node) -> Node | None:
    x, fill = node.inputs
    if x.shape == node.shape and all(step == 1 for step in node["steps"]):
        return x
    if x.type.size == 0:
        return repeated(fill, node.shape)
    inside, outside = uniform(x), uniform(fill)
    if outside is None:
        return None
    if inside is not None and inside.tobytes() == outside.tobytes():
        return repeated(fill, node.shape)
    return None if outside else _scaled_after(node)


def _scaled_after(node: Node) -> Node | None:
    """Zeros around -x or c * x: x is read as it lies, and scaled where that is used."""
    x, fill = node.inputs
    if not x.type.is_float:
        return None
    if x.op is pointwise.negative:
        return node_of(pointwise.negative, (rebuilt(node, (x.inputs[0], fill)),))
    if x.op is pointwise.multiply:
        scale = uniform(x.inputs[1])
        if scale is not None and np.isfinite(scale):
            padded = rebuilt(node, (x.inputs[0], fill))
            return node_of(pointwise.multiply, (padded, repeated(constant(scale), node.shape)))
    return None


def _after(node: Node) -> Node | None:
    """Nothing waits for zeros, which forward mode starts from; numbers need no waiting.

    What waits is the array in memory: movement is done afterwards, where other rules see it.
    """
    x, *others = node.inputs
    left = [other for other in dict.fromkeys(others) if not is_zero(other)]
    if not left or (not x.inputs and x.op.family == "constant"):
        return x
    # not what lies in the packed results of a loop: gradients look for it there
    if is_movement(x) and x.op not in (movement.after, control.item):
        waiting = node_of(movement.after, (x.inputs[0], *left))
        return node_of(x.op, (waiting, *x.inputs[1:]), dict(x.attrs))
    return node_of(movement.after, (x, *left)) if len(left) < len(others) else None


def _concatenate(node: Node) -> Node | None:
    axis = node["axis"]
    parts = tuple(operand for operand in node.inputs if operand.shape[axis])
    if len(parts) == 1:
        return parts[0]
    flat = tuple(
        inner
        for part in parts
        for inner in (part.inputs if part.op is node.op and part["axis"] == axis else (part,))
    )
    if parts and len(flat) != len(node.inputs):
        return node_of(node.op, flat, {"axis": axis})
    return None


# --- reductions and contractions --------------------------------------------------------------


def _reduction(node: Node) -> Node | None:
    x = node.inputs[0]
    if node.op.name in _EXTREMES:
        # of complex numbers it is made of real ones by the pass that splits them
        return None if x.type.is_complex else _position_of_extreme(node, x)
    axes: tuple[int, ...] = node["axes"]
    single = [axis for axis in axes if x.shape[axis] == 1 and not _is_part(x)]
    if single or not axes:
        left = _without(x, single)
        longer = [axis for axis in axes if axis not in single]
        moved = tuple(axis - sum(one < axis for one in single) for axis in longer)
        return node_of(node.op, (left,), {"axes": moved}) if moved else left
    if x.type.size <= _FOLD and x.op is movement.constant:
        return constant(np.asarray(node.op.evaluate(x["value"].array, axes=axes)))
    if x.op is movement.broadcast:
        return _reduced_broadcast(node, x, axes)
    if x.op is movement.transpose:
        return _reduced_transpose(node, x, axes)
    if x.op is movement.reshape:
        return _reduced_reshape(node, x, axes)
    if x.op is node.op and x.op is not reduction.prod:
        outer = [axis for axis in range(x.inputs[0].type.ndim) if axis not in x["axes"]]
        both = tuple(sorted((*x["axes"], *(outer[axis] for axis in axes))))
        return node_of(node.op, x.inputs, {"axes": both})
    return None


def _is_part(x: Node) -> bool:
    """Whether x is a part of an array, which may be replaced in place: a sum is what it was."""
    while is_movement(x):
        if x.op is movement.slice_:
            return True
        x = x.inputs[0]
    return False


def _without(x: Node, axes: Collection[int]) -> Node:
    """x without axes whose size is 1."""
    if not axes:
        return x
    shape = tuple(size for axis, size in enumerate(x.shape) if axis not in axes)
    return node_of(movement.reshape, (x,), {"shape": shape})


_EXTREMES = {"argmax": reduction.max_, "argmin": reduction.min_}


def _position_of_extreme(node: Node, x: Node) -> Node:
    """argmax(x) is the least position of an element that equals max(x), or of a NaN.

    Two passes of vector instructions: 4 to 12 times the speed of one that carries a position along.
    """
    axis: int = node["axis"]
    size = x.shape[axis]
    counter = np.dtype(np.int32 if size < 2**31 else np.int64)
    kept = tuple(i for i in range(x.type.ndim) if i != axis)
    extreme = node_of(_EXTREMES[node.op.name], (x,), {"axes": (axis,)})
    spread = node_of(movement.broadcast, (extreme,), {"shape": x.shape, "dims": kept})
    found = node_of(pointwise.equal, (x, spread))
    if x.type.is_float:
        found = node_of(pointwise.logical_or, (found, node_of(pointwise.isnan, (x,))))
    numbers = node_of(movement.iota, (), {"size": size, "dtype": counter})
    places = node_of(movement.broadcast, (numbers,), {"shape": x.shape, "dims": (axis,)})
    nowhere = repeated(constant(counter.type(size - 1)), x.shape)
    chosen = node_of(pointwise.select, (found, places, nowhere))
    first = node_of(reduction.min_, (chosen,), {"axes": (axis,)})
    return node_of(pointwise.cast, (first,), {"dtype": node.dtype})


def _reduced_transpose(node: Node, x: Node, axes: tuple[int, ...]) -> Node:
    """Reduce an array as it lies in memory, and transpose what is left."""
    perm: tuple[int, ...] = x["perm"]
    inner = tuple(sorted(perm[axis] for axis in axes))
    reduced = node_of(node.op, x.inputs, {"axes": inner})
    left = [axis for axis in range(len(perm)) if axis not in inner]
    order = tuple(left.index(axis) for axis in perm if axis in left)
    return node_of(movement.transpose, (reduced,), {"perm": order})


def _reduced_reshape(node: Node, x: Node, axes: tuple[int, ...]) -> Node | None:
    """Reduce an array before its axes are joined or split, where only whole groups of them are.

    np.vdot(x, y) needs no product in one line, nor a mean over the first axis of what is then
    flattened a copy.
    """
    inner = x.inputs[0]
    groups = _groups(inner.shape, x.shape)
    reduced: list[int] = []
    for before, after in groups:
        taken = [axis in axes for axis in after]
        if any(taken):
            if not all(taken):
                return None
            reduced += before
    if not reduced:
        return None
    made = node_of(node.op, (inner,), {"axes": tuple(reduced)})
    return (
        made
        if made.shape == node.shape
        else node_of(movement.reshape, (made,), {"shape": node.shape})
    )


def _groups(before: Shape, after: Shape) -> list[tuple[list[int], list[int]]]:
    """The axes of two shapes of as many elements, not none, in the least groups of equal size.

    An axis of one element is a group of its own.
    """
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        if i < len(before) and before[i] == 1:
            groups.append(([i], []))
            i += 1
        elif j < len(after) and after[j] == 1:
            groups.append(([], [j]))
            j += 1
        else:
            first, second = [i], [j]
            left, right = before[i], after[j]
            while left != right:
                if left < right:
                    i += 1
                    first.append(i)
                    left *= before[i]
                else:
                    j += 1
                    second.append(j)
                    right *= after[j]
            groups.append((first, second))
            i, j = i + 1, j + 1
    return groups


def _reduced_broadcast(node: Node, x: Node, axes: tuple[int, ...]) -> Node | None:
    """Reduce over repeated axes without repeating."""
    dims = x["dims"]
    repeated_axes = [axis for axis in axes if axis not in dims]
    if not repeated_axes or not node.type.size:
        return None
    count = math.prod(x.shape[axis] for axis in repeated_axes)
    if count == 0 and node.op not in (reduction.sum_,):
        return None
    base = x.inputs[0]
    inner_axes = tuple(i for i, dim in enumerate(dims) if dim in axes)
    reduced = node_of(node.op, (base,), {"axes": inner_axes}) if inner_axes else base
    left = [axis for axis in range(x.type.ndim) if axis not in axes]
    kept = [dim for dim in dims if dim not in axes]
    if node.op is reduction.sum_:
        extent = node_of(movement.extent, (), {"size": count, "dtype": x.dtype})
        scale = repeated(extent, reduced.shape)
        reduced = node_of(pointwise.multiply, (reduced, scale))
    elif node.op is reduction.prod:
        return None
    places = tuple(left.index(dim) for dim in kept)
    if len(places) == len(left):
        return reduced
    return node_of(movement.broadcast, (reduced,), {"shape": node.shape, "dims": places})


def _contract(node: Node) -> Node | None:
    """Absorb transposes of operands; products without a shared sum become pointwise."""
    a, b = node.inputs
    labels = {"la": node["la"], "lb": node["lb"], "lo": node["lo"]}
    summed = (set(labels["la"]) & set(labels["lb"])) - set(labels["lo"])
    single = [label for label in summed if a.shape[labels["la"].index(label)] == 1]
    if single:
        operands = []
        for key, x in (("la", a), ("lb", b)):
            operands.append(_without(x, [labels[key].index(label) for label in single]))
            labels[key] = tuple(label for label in labels[key] if label not in single)
        return node_of(node.op, operands, labels)
    if a.op is movement.transpose or b.op is movement.transpose:
        operands = []
        for key, x in (("la", a), ("lb", b)):
            if x.op is movement.transpose:
                labels[key] = tuple(
                    labels[key][x["perm"].index(axis)] for axis in range(x.type.ndim)
                )
                x = x.inputs[0]
            operands.append(x)
        return node_of(node.op, operands, labels)
    if not summed:
        return _outer(node, a, b, labels)
    return None


def _outer(node: Node, a: Node, b: Node, labels: dict[str, Any]) -> Node | None:
    """A product that sums over nothing is a pointwise product of broadcasts."""
    if node.dtype == np.bool_:
        return None
    operands = []
    for x, own in ((a, labels["la"]), (b, labels["lb"])):
        order = [label for label in labels["lo"] if label in own]
        perm = tuple(own.index(label) for label in order)
        if perm != tuple(range(len(perm))):
            x = node_of(movement.transpose, (x,), {"perm": perm})
        dims = tuple(labels["lo"].index(label) for label in order)
        if x.shape != node.shape:
            x = node_of(movement.broadcast, (x,), {"shape": node.shape, "dims": dims})
        operands.append(x)
    return node_of(pointwise.multiply, operands)


def _integer_power(node: Node) -> Node | None:
    """A known power of integers as products, which wrap around as powers do: x ** 5 is (x * x) *
    (x * x) * x. A loop for each element takes the time of 20 to 60 of them."""
    base, exponent = node.inputs
    power = uniform(exponent)
    if power is None or kind_of(node.dtype) not in "iu" or not 0 <= power <= _HIGHEST_POWER:
        return None
    left = int(power)
    product: Node | None = None
    while left:
        if left % 2:
            product = base if product is None else node_of(pointwise.multiply, (product, base))
        left //= 2
        if left:
            base = node_of(pointwise.multiply, (base, base))
    return repeated(constant(node.dtype.type(1)), node.shape) if product is None else product


#: At most ten products, of which those of vectors take as long as a few additions.
_HIGHEST_POWER = 63


def _constant(node: Node) -> Node | None:
    """A constant whose elements are all the same is one number, repeated."""
    array = node["value"].array
    if array.size <= 1:
        return None
    rows = array.reshape(-1, 1).view(np.uint8)
    if not (rows == rows[0]).all():
        return None
    return repeated(constant(array.reshape(-1)[0]), node.shape)


_STRUCTURAL: dict[str, Callable[[Node], Node | None]] = {
    "constant": _constant,
    "reshape": _reshape,
    "transpose": _transpose,
    "broadcast": _broadcast,
    "slice": _slice,
    "pad": _pad,
    "after": _after,
    "concatenate": _concatenate,
    "update": _update,
    "scatter": _scatter,
    "add": lambda node: joined(node) or _added_to(node),
    "multiply": gradient_of_quotient,
    "contract": _contract,
    "power": _integer_power,
}
