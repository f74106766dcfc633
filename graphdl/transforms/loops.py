"""Loops and branches in a trace: scan, fori_loop, while_loop, cond, switch, map."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphdl.compiler.close import closed
from graphdl.compiler.differentiate import zeros
from graphdl.errors import DtypeError, ShapeError
from graphdl.graph import Graph, Node
from graphdl.ops import control
from graphdl.tracing import Trace, TracedArray, as_traced, cast, locate, new_placeholder
from graphdl.transforms import effects
from graphdl.transforms.common import Function, as_leaf, called, name_of, running
from graphdl.trees import flatten, unflatten
from graphdl.types import TensorType, kind_of


def _leaves(tree: Any, trace: Trace, what: str) -> tuple[list[TracedArray], Any]:
    leaves, spec = flatten(tree)
    return [as_leaf(leaf, trace, what) for leaf in leaves], spec


def _placeholders(values: Sequence[TracedArray], trace: Trace) -> list[TracedArray]:
    return [new_placeholder(value.type, trace) for value in values]


def _carried(
    before: list[TracedArray], after: list[Any], trace: Trace, name: str, what: str
) -> list[TracedArray]:
    """The carries after a step as the types that they had before it."""
    result = []
    for i, (old, value) in enumerate(zip(before, after, strict=True)):
        new = as_leaf(value, trace, f"a carry that {name} returned")
        if new.shape != old.shape:
            raise locate(
                ShapeError(
                    f"{what}: carry {i} is {old.type} before a step of {name} and {new.type} after "
                    f"it; a carry keeps its shape and dtype"
                )
            )
        if new.dtype != old.dtype and not new.weak:
            raise locate(
                DtypeError(
                    f"{what}: carry {i} is {old.type} before a step of {name} and {new.type} after "
                    f"it; start from x.astype(np.{new.dtype}), or cast the result"
                )
            )
        result.append(cast(new, old.dtype))
    return result


def _settled(init: list[TracedArray], step: Any, trace: Trace) -> list[TracedArray]:
    """The first carries, a Python number among them as the dtype that a step gives it."""
    if not any(value.weak for value in init):
        return init
    with effects.inside(trace):
        after = step(_placeholders(init, trace))
    return [
        cast(value, as_leaf(new, trace, "a carry").dtype) if value.weak else value
        for value, new in zip(init, after, strict=True)
    ]


def _items(packed: Any, types: Sequence[TensorType]) -> list[Any]:
    return control.items(packed, types)


def scan(
    f: Function, init: Any, xs: Any = None, length: int | None = None, reverse: bool = False
) -> tuple[Any, Any]:
    """Carry a state through steps, and stack what each step gives: see gd.scan."""
    return _scan("scan", f, init, xs, length, reverse)


def _scan(
    what: str, f: Function, init: Any, xs: Any, length: int | None = None, reverse: bool = False
) -> tuple[Any, Any]:
    """A scan that its messages call `what`."""
    trace, name = running(), name_of(f)
    first, carry_tree = _leaves(init, trace, f"the initial carry of {name}")
    stacked, x_tree = _leaves(xs, trace, f"xs of {name}")
    count = _length(stacked, length, f"{what}({name})")
    rows = [new_placeholder(TensorType(x.dtype, x.shape[1:]), trace) for x in stacked]
    found: dict[str, Any] = {}

    def step(carry: list[TracedArray]) -> list[Any]:
        with trace.inside(what):
            result = called(f, unflatten(carry_tree, carry), unflatten(x_tree, rows))
        if not (isinstance(result, tuple) and len(result) == 2):
            raise locate(
                DtypeError(f"{what}: {name} must return (carry, y), not {type(result).__name__}")
            )
        leaves, tree = flatten(result[0])
        if tree != carry_tree:
            raise locate(
                ShapeError(f"{what}: the carry nests as {carry_tree}, but {name} returned {tree}")
            )
        found["y"], found["tree"] = _leaves(result[1], trace, f"a result of {name}")
        return leaves

    first = _settled(first, step, trace)
    carry = _placeholders(first, trace)
    with effects.inside(trace) as happening:
        after = _carried(carry, step(carry), trace, name, what)
    if count == 0:
        empty = [zeros(TensorType(y.dtype, (0, *y.shape)), y) for y in found["y"]]
        return unflatten(carry_tree, first), unflatten(found["tree"], empty)
    if happening.happened:
        first.append(effects.token_of(trace))
        carry.append(happening.start)
        after.append(happening.end)
    outputs = [value.node for value in (*after, *found["y"])]
    body, outer = closed(outputs, [value.node for value in (*carry, *rows)], trace)
    operands = [*(TracedArray(node, trace) for node in outer), *first, *stacked]
    attrs: dict[str, Any] = {
        "body": body,
        "consts": len(outer),
        "carries": len(first),
        "length": count,
    }
    packed = _apply(control.scan, operands, {**attrs, "reverse": bool(reverse)}, trace)
    results = _items(packed, control.scan_results(**attrs))
    final, ys = results[: len(first)], results[len(first) :]
    if happening.happened:
        trace.token = final.pop()
    return unflatten(carry_tree, final), unflatten(found["tree"], ys)


def _apply(op: Any, operands: Sequence[Any], attrs: dict[str, Any], trace: Trace) -> Any:
    """A node even where no operand is traced."""
    values = [as_traced(operand, trace) for operand in operands]
    anchor = values[0] if values else as_traced(np.zeros(()), trace)
    return anchor.apply_op(op, tuple(values), attrs)


def _length(stacked: list[TracedArray], length: int | None, what: str) -> int:
    for x in stacked:
        if x.ndim == 0:
            raise locate(ShapeError(f"{what}: xs holds a 0-d array, which has no steps"))
    sizes = {x.shape[0] for x in stacked}
    if length is not None:
        sizes.add(int(length))
    if len(sizes) != 1:
        raise locate(
            ShapeError(
                f"{what}: "
                + (f"the lengths {sorted(sizes)} differ" if sizes else "give xs or length")
            )
        )
    return sizes.pop()


def fori_loop(lower: Any, upper: Any, body: Function, init: Any) -> Any:
    """body(i, carry) for i from lower to upper: see gd.fori_loop."""
    if isinstance(lower, (int, np.integer)) and isinstance(upper, (int, np.integer)):
        indices = np.arange(int(lower), max(int(lower), int(upper)), dtype=np.int64)

        def step(carry: Any, i: Any) -> tuple[Any, Any]:
            return called(body, i, carry), None

        functools.update_wrapper(step, body)
        return _scan("fori_loop", step, init, indices)[0]

    def counted(state: Any) -> Any:
        i, carry = state
        return i + 1, called(body, i, carry)

    trace = running()
    start = as_leaf(lower, trace, "lower").astype(np.int64)
    stop = as_leaf(upper, trace, "upper").astype(np.int64)
    return while_loop(lambda state: state[0] < stop, counted, (start, init))[1]


def while_loop(cond: Function, body: Function, init: Any) -> Any:
    """body(carry) while cond(carry): see gd.while_loop."""
    trace, name = running(), name_of(body)
    first, tree = _leaves(init, trace, f"the initial carry of {name}")

    def step(carry: list[TracedArray]) -> list[Any]:
        with trace.inside("while_loop"):
            leaves, after = flatten(called(body, unflatten(tree, carry)))
        if after != tree:
            raise locate(
                ShapeError(f"while_loop: the carry nests as {tree}, but {name} returned {after}")
            )
        return leaves

    first = _settled(first, step, trace)
    carry = _placeholders(first, trace)
    with effects.inside(trace) as happening:
        after = _carried(carry, step(carry), trace, name, "while_loop")
    with effects.inside(trace, happening.start) as looking, trace.inside("while_loop"):
        verdict = called(cond, unflatten(tree, carry))
    test = as_leaf(verdict, trace, f"the result of {name_of(cond)}")
    if test.type != TensorType(np.dtype(bool), ()):
        raise locate(DtypeError(f"while_loop: {name_of(cond)} returned {test.type}, not one bool"))
    if looking.happened:
        test = effects.waiting(test, looking.end)
    has_effects = happening.happened or looking.happened
    if has_effects:
        first.append(effects.token_of(trace))
        carry.append(happening.start)
        after.append(happening.end)
    nodes = [value.node for value in carry]
    condition, reads = closed([test.node], nodes, trace)
    graph, outer = closed([value.node for value in after], nodes, trace)
    operands = [*(TracedArray(node, trace) for node in (*reads, *outer)), *first]
    attrs = {
        "condition": condition,
        "condition_consts": len(reads),
        "sweeps": (control.Sweep(graph, len(outer), len(first)),),
    }
    packed = _apply(control.while_, operands, attrs, trace)
    results = _items(packed, [value.type for value in carry])
    if has_effects:
        trace.token = results.pop()
    return unflatten(tree, results)


def switch(index: Any, branches: Sequence[Function], *args: Any) -> Any:
    """branches[index](*args), the index clamped: see gd.switch."""
    trace = running()
    if not branches:
        raise locate(ShapeError("switch: there is no branch"))
    choice = as_leaf(index, trace, "the index of switch")
    if choice.shape != () or kind_of(choice.dtype) not in "iub":
        raise locate(DtypeError(f"switch: the index is {choice.type}, not one integer"))
    return choose("switch", choice, branches, args, trace)


def choose(
    what: str,
    choice: TracedArray,
    branches: Sequence[Function],
    args: Any,
    trace: Trace,
    agreed: Callable[[list[Any]], list[Any]] | None = None,
) -> Any:
    """A switch that its messages call `what`; `agreed` makes the branches' results alike."""
    values, tree = _leaves(args, trace, f"an argument of {what}")
    inputs = _placeholders(values, trace)
    found = []
    start = len(trace.sources)
    token = new_placeholder(effects.TOKEN, trace)
    ends = []
    for branch in branches:
        with effects.inside(trace, token) as happening, trace.inside(what):
            found.append(called(branch, *unflatten(tree, inputs)))
        ends.append(happening.end)
    results = [
        _leaves(result, trace, f"a result of {name_of(branch)}")
        for branch, result in zip(branches, found if agreed is None else agreed(found), strict=True)
    ]
    first, first_tree = results[0]
    for branch, (leaves, out_tree) in zip(branches, results, strict=True):
        types = [leaf.type for leaf in leaves]
        if out_tree != first_tree or types != [leaf.type for leaf in first]:
            raise locate(
                ShapeError(
                    f"{what}: {name_of(branches[0])} returns {[str(x.type) for x in first]}, "
                    f"{name_of(branch)} {[str(type) for type in types]}; branches must agree"
                )
            )
    has_effects = any(end is not token for end in ends)
    if has_effects:
        inputs.append(token)
        values.append(effects.token_of(trace))
        for (leaves, _), end in zip(results, ends, strict=True):
            leaves.append(end)
    nodes = [value.node for value in inputs]
    every = [leaf.node for leaves, _ in results for leaf in leaves]
    # what a branch computes stays in it, where an index may be in bounds that is not elsewhere
    own = set(itertools.islice(trace.sources, start, None))
    whole, outer = closed(every, nodes, trace, own)
    count = len(first)
    graphs = tuple(_part(whole, i * count, count) for i in range(len(branches)))
    operands = [cast(choice, np.dtype(np.int64)), *(TracedArray(n, trace) for n in outer), *values]
    packed = _apply(control.switch, operands, {"branches": graphs}, trace)
    chosen = _items(packed, [leaf.type for leaf in first])
    if has_effects:
        trace.token = chosen.pop()
    return unflatten(first_tree, chosen)


def _part(graph: Graph, start: int, count: int) -> Graph:
    """The graph of some of the outputs, with all inputs."""
    outputs: tuple[Node, ...] = graph.outputs[start : start + count]
    return Graph(graph.inputs, outputs, sources=graph.sources)


def cond(pred: Any, true: Function, false: Function, *args: Any) -> Any:
    """true(*args) if pred else false(*args): see gd.cond."""
    trace = running()
    test = as_leaf(pred, trace, "the condition of cond")
    if test.shape != ():
        raise locate(ShapeError(f"cond: the condition is {test.type}, not one number"))
    chosen: Any = test if test.dtype == np.bool_ else np.not_equal(test, 0)
    return choose("cond", chosen, (false, true), args, trace)


def map(f: Function, xs: Any) -> Any:
    """f for each row of xs: see gd.map."""
    return _scan("map", functools.wraps(f)(lambda carry, x: (carry, called(f, x))), (), xs)[1]
