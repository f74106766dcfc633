"""Control flow: loops and branches whose bodies are graphs of their own.

Such an op has several results. Its node is one value, the results packed as bytes one behind the
other; `item` is a view of one of them. So every node has one type, and packing costs nothing: the
results are written where the items lie.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from graphdl.errors import GraphError, ShapeError
from graphdl.graph import Graph
from graphdl.ops.op import Op
from graphdl.types import Dtype, Shape, TensorType

ALIGNMENT = 64  # bytes, of each packed result
_BYTE = np.dtype(np.uint8)


def offsets(types: Sequence[TensorType]) -> list[int]:
    """Where each result begins, in bytes, and behind them the size of all."""
    found = [0]
    for type in types:
        found.append(found[-1] + -(-type.nbytes // ALIGNMENT) * ALIGNMENT)
    return found


def packed_type(types: Sequence[TensorType]) -> TensorType:
    return TensorType(_BYTE, (offsets(types)[-1],))


def pack(values: Sequence[Any], types: Sequence[TensorType]) -> Any:
    places = offsets(types)
    packed = np.zeros(places[-1], _BYTE)
    for value, type, start in zip(values, types, places, strict=False):
        flat = np.ascontiguousarray(value, type.dtype).reshape(-1).view(_BYTE)
        packed[start : start + type.nbytes] = flat
    return packed


def _infer_item(packed: TensorType, *, offset: int, dtype: Dtype, shape: Shape) -> TensorType:
    result = TensorType(dtype, shape)
    if packed.dtype != _BYTE or offset + result.nbytes > packed.size:
        raise ShapeError(f"item: {result} at byte {offset} of {packed}")
    return result


def _item(packed: Any, *, offset: int, dtype: Dtype, shape: Shape) -> Any:
    size = TensorType(dtype, shape).nbytes
    return packed[offset : offset + size].view(dtype).reshape(shape)


item = Op("item", "movement", _infer_item, _item, None, "it is a view of a packed result")


def items(packed: Any, types: Sequence[TensorType]) -> list[Any]:
    """All results of a control-flow op."""
    return [
        item(packed, offset=start, dtype=type.dtype, shape=type.shape)
        for type, start in zip(types, offsets(types), strict=False)
    ]


def evaluate(graph: Graph, values: Sequence[Any]) -> list[Any]:
    """The outputs of a body for these inputs, by the interpreter."""
    result = graph.evaluate(*values)
    return list(result) if isinstance(result, tuple) else [result]


# --- scan -------------------------------------------------------------------------------------


def scan_results(*, body: Graph, consts: int, carries: int, length: int) -> list[TensorType]:
    """The final carries, then the stacked outputs."""
    types = [output.type for output in body.outputs]
    stacked = [TensorType(type.dtype, (length, *type.shape)) for type in types[carries:]]
    return [*types[:carries], *stacked]


def _infer_scan(
    *operands: TensorType, body: Graph, consts: int, carries: int, length: int, reverse: bool
) -> TensorType:
    wanted = [node.type for node in body.inputs]
    first_x = consts + carries
    for i, (operand, type) in enumerate(zip(operands, wanted, strict=True)):
        stacked = TensorType(type.dtype, (length, *type.shape))
        if operand != (type if i < first_x else stacked):
            raise ShapeError(f"scan: operand {i} is {operand}, its body takes {type}")
    for before, after in zip(wanted[consts:first_x], body.outputs, strict=False):
        if before != after.type:
            raise ShapeError(f"scan: a carry is {before} before and {after.type} after a step")
    results = scan_results(body=body, consts=consts, carries=carries, length=length)
    return packed_type(results)


def _evaluate_scan(
    *operands: Any, body: Graph, consts: int, carries: int, length: int, reverse: bool
) -> Any:
    fixed, carry = list(operands[:consts]), list(operands[consts : consts + carries])
    xs = operands[consts + carries :]
    steps: list[list[Any]] = []
    order = range(length - 1, -1, -1) if reverse else range(length)
    for t in order:
        results = evaluate(body, [*fixed, *carry, *(x[t] for x in xs)])
        carry = results[:carries]
        steps.append(results[carries:])
    if reverse:
        steps.reverse()
    types = scan_results(body=body, consts=consts, carries=carries, length=length)
    count = len(types) - carries
    stacked = [
        np.array([step[k] for step in steps], types[carries + k].dtype).reshape(
            types[carries + k].shape
        )
        for k in range(count)
    ]
    return pack([*carry, *stacked], types)


#: Run `body` `length` times. Operands: what it reads at every step, the first carries, the stacked
#: inputs. The body takes those of one step and returns the next carries, then its outputs.
scan = Op(
    "scan", "control", _infer_scan, _evaluate_scan, None, "see graphdl.compiler.loop_gradients"
)


# --- while ------------------------------------------------------------------------------------


#: Value number j that sweep number i keeps of each step, as (i, j).
Stream = tuple[int, int]


class Sweep(Struct, frozen=True):
    """One of the loops of a `while` node.

    The body takes what it reads at every step, the carries, and the values that earlier sweeps kept
    of the same step (`reads`). It returns the next carries, then what it keeps of this step itself.
    """

    body: Graph
    consts: int
    carries: int
    reads: tuple[Stream, ...] = ()
    reverse: bool = False

    @property
    def operands(self) -> int:
        """How many operands of the op are the sweep's: what it reads, and its first carries."""
        return self.consts + self.carries

    @property
    def carry_types(self) -> list[TensorType]:
        return [node.type for node in self.body.outputs[: self.carries]]

    @property
    def kept_types(self) -> list[TensorType]:
        return [node.type for node in self.body.outputs[self.carries :]]


def _infer_while(
    *operands: TensorType, condition: Graph, condition_consts: int, sweeps: tuple[Sweep, ...]
) -> TensorType:
    start = condition_consts
    for sweep in sweeps:
        wanted = [node.type for node in sweep.body.inputs]
        own = list(operands[start : start + sweep.operands])
        start += sweep.operands
        if wanted != own + [sweeps[i].kept_types[j] for i, j in sweep.reads]:
            raise ShapeError(f"while: a body takes {wanted} and gets {own} and what was kept")
        if sweep.carry_types != own[sweep.consts :]:
            raise ShapeError("while: the carries change their types")
    if start != len(operands):
        raise ShapeError(f"while: {len(operands)} operands instead of {start}")
    if condition.outputs[0].type != TensorType(np.dtype(bool), ()):
        raise GraphError(f"while: the condition is {condition.outputs[0].type}, not one bool")
    return packed_type([type for sweep in sweeps for type in sweep.carry_types])


def _evaluate_while(
    *operands: Any, condition: Graph, condition_consts: int, sweeps: tuple[Sweep, ...]
) -> Any:
    kept: list[list[list[Any]]] = []  # by sweep, step and number
    results: list[Any] = []
    start = condition_consts
    for number, sweep in enumerate(sweeps):
        fixed = operands[start : start + sweep.consts]
        carry = list(operands[start + sweep.consts : start + sweep.operands])
        start += sweep.operands
        steps: list[list[Any]] = []
        if number == 0:
            while bool(evaluate(condition, [*operands[:condition_consts], *carry])[0]):
                after = evaluate(sweep.body, [*fixed, *carry])
                carry = after[: sweep.carries]
                steps.append(after[sweep.carries :])
        else:
            order = range(len(kept[0]))
            steps = [[] for _ in order]
            for t in reversed(order) if sweep.reverse else order:
                read = [kept[i][t][j] for i, j in sweep.reads]
                after = evaluate(sweep.body, [*fixed, *carry, *read])
                carry = after[: sweep.carries]
                steps[t] = after[sweep.carries :]
        kept.append(steps)
        results += carry
    return pack(results, [type for sweep in sweeps for type in sweep.carry_types])


#: A while loop, the first sweep, which runs while the condition on its carries holds; then loops
#: over its steps, back or forth, each of which reads what earlier ones kept of each step. Those are
#: the gradient of a loop whose steps nobody has counted. Operands: what the condition reads; for
#: each sweep what it reads at every step, and its first carries. The results are the last carries
#: of all sweeps.
while_ = Op(
    "while",
    "control",
    _infer_while,
    _evaluate_while,
    None,
    "see graphdl.compiler.while_gradients",
)


# --- switch -----------------------------------------------------------------------------------


def _infer_switch(
    index: TensorType, *operands: TensorType, branches: tuple[Graph, ...]
) -> TensorType:
    if index != TensorType(np.dtype(np.int64), ()):
        raise ShapeError(f"switch: the index is {index}, not one int64")
    types = [node.type for node in branches[0].outputs]
    for branch in branches:
        if [node.type for node in branch.inputs] != list(operands):
            raise ShapeError("switch: a branch takes other operands")
        if [node.type for node in branch.outputs] != types:
            raise ShapeError("switch: the branches return different types")
    return packed_type(types)


def _evaluate_switch(index: Any, *operands: Any, branches: tuple[Graph, ...]) -> Any:
    chosen = branches[min(max(int(index), 0), len(branches) - 1)]
    return pack(evaluate(chosen, operands), [node.type for node in chosen.outputs])


#: Run the branch that the index chooses, clamped to those there are, on the operands.
switch = Op(
    "switch",
    "control",
    _infer_switch,
    _evaluate_switch,
    None,
    "see graphdl.compiler.loop_gradients",
)


# --- checkpoint -------------------------------------------------------------------------------


def _infer_checkpoint(*operands: TensorType, body: Graph) -> TensorType:
    if [node.type for node in body.inputs] != list(operands):
        raise ShapeError("checkpoint: the body takes other operands")
    return packed_type([output.type for output in body.outputs])


def _evaluate_checkpoint(*operands: Any, body: Graph) -> Any:
    return pack(evaluate(body, operands), [node.type for node in body.outputs])


#: The outputs of `body`, of which a gradient keeps the operands only and computes the rest anew.
checkpoint = Op(
    "checkpoint",
    "control",
    _infer_checkpoint,
    _evaluate_checkpoint,
    None,
    "see graphdl.compiler.checkpoint",
)


def result_types(node: Any) -> list[TensorType]:
    """The results that a node packs."""
    attrs = dict(node.attrs)
    if node.op.results is not None:
        return list(node.op.results(*(operand.type for operand in node.inputs), **attrs))
    if node.op is scan:
        attrs.pop("reverse")
        return scan_results(**attrs)
    if node.op is checkpoint:
        return [output.type for output in attrs["body"].outputs]
    if node.op is while_:
        return [type for sweep in attrs["sweeps"] for type in sweep.carry_types]
    return [output.type for output in attrs["branches"][0].outputs]


def map_bodies(value: Any, change: Callable[[Graph], Graph]) -> Any:
    """An attribute of a control-flow node, with each graph in it changed."""
    if isinstance(value, Graph):
        return change(value)
    if isinstance(value, tuple):
        return tuple(map_bodies(item, change) for item in value)
    if isinstance(value, Sweep):
        return replace(value, body=change(value.body))
    return value


def bodies_of(node: Any) -> list[Graph]:
    """The graphs that a control-flow node runs."""
    if node.op in (scan, checkpoint):
        return [node["body"]]
    if node.op is while_:
        return [node["condition"], *(sweep.body for sweep in node["sweeps"])]
    return list(node["branches"])
