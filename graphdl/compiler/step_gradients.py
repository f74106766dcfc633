"""The chain rule through one step of a loop: what loops of every kind share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec import Struct

from graphdl.compiler.close import closed
from graphdl.compiler.costs import is_cheap
from graphdl.compiler.cut import smallest_cut
from graphdl.compiler.origins import CHECKS
from graphdl.compiler.view import is_movement
from graphdl.graph import Graph, Node, Source, topological
from graphdl.ops import movement
from graphdl.ops.op import node_of
from graphdl.tracing import Trace, TracedArray, new_placeholder
from graphdl.types import TensorType

#: Cotangents of outputs -> cotangents of variables, as graphdl.compiler.differentiate.vjp.
Vjp = Callable[
    [Sequence[TracedArray], Sequence[TracedArray], Sequence[TracedArray]], list[TracedArray]
]
Zeros = Callable[[TensorType, TracedArray], TracedArray]
#: The cotangents of the results of an op, by number.
Cotangents = Mapping[int, TracedArray]


class StepBack(Struct, frozen=True):
    """One step of the loop that goes back.

    body      inputs: outer, own, then carries for `fixed` and `carried`, then what each step reads:
              cotangents of `stacked`, values of `varying`. Outputs: the carries, then the
              cotangents of `rows`
    outer     values from outside that every step reads
    own       inputs of the step that every step back reads, too
    fixed     inputs that every step reads: their cotangents are summed over the steps
    carried   the carries that have a cotangent
    stacked   outputs that come with a cotangent for each step, perhaps more than once
    varying   values of the step that the step back reads
    rows      inputs that differ from step to step and have a cotangent
    """

    body: Graph
    outer: list[Node]
    own: list[int]
    fixed: list[int]
    carried: list[int]
    stacked: list[int]
    varying: list[Node]
    rows: list[int]


def depending(order: Iterable[Node], sought: Iterable[Node]) -> set[Node]:
    """The float nodes that depend on a sought one: only they carry cotangents."""
    active = set(sought)
    for node in order:
        operands = node.inputs[:1] if node.op is movement.after else node.inputs
        packs = node.op.family == "control" or node.op.results is not None
        if (node.type.is_inexact or packs) and any(operand in active for operand in operands):
            active.add(node)
    return active


def active_in_loop(body: Graph, consts: int, carries: int, wanted: Sequence[bool]) -> set[Node]:
    """The nodes of a body that carry cotangents, if the wanted ones of its inputs do."""
    order = topological(body.outputs)
    sought = {node for node, flag in zip(body.inputs, wanted, strict=True) if flag}
    sought = {node for node in sought if node.type.is_inexact}
    while True:
        active = depending(order, sought)
        more = {body.inputs[consts + k] for k in range(carries) if body.outputs[k] in active}
        if more <= sought:
            return active
        sought |= more


def step_back(
    body: Graph,
    consts: int,
    carries: int,
    active: set[Node],
    stacked: Mapping[int, int],
    trace: Trace,
    vjp: Vjp,
) -> StepBack:
    """The chain rule through a body whose `active` nodes carry cotangents.

    `stacked` says of an output how many cotangents come with each step; they are added.
    """
    inputs, outputs = body.inputs, body.outputs
    for node, source in body.sources.items():
        trace.sources.setdefault(node, source)
    sought = [i for i, node in enumerate(inputs) if node in active]
    carried = [k for k in range(carries) if inputs[consts + k] in active]
    numbers = [*carried, *(k for k, count in stacked.items() for _ in range(count))]
    seeds = [new_placeholder(outputs[k].type, trace) for k in numbers]
    found = vjp(
        [TracedArray(outputs[k], trace) for k in numbers],
        seeds,
        [TracedArray(inputs[i], trace) for i in sought],
    )
    part = dict(zip(sought, found, strict=True))
    saved = residuals([value.node for value in found], {seed.node for seed in seeds})
    there = {*inputs[:consts], *inputs[consts + carries :]}
    saved = fewest(saved, there, is_budgeted=trace.memory_budget is not None)
    new = {value: new_placeholder(value.type, trace).node for value in saved}
    fixed = [i for i in sought if i < consts]
    rows = [i for i in sought if i >= consts + carries]
    sums = [new_placeholder(inputs[i].type, trace) for i in fixed]
    after = [sum_ + part[i] for i, sum_ in zip(fixed, sums, strict=True)]  # type: ignore[operator]
    after += [part[consts + k] for k in carried]
    results = [value.node for value in (*after, *(part[i] for i in rows))]
    own = [i for i in range(consts) if inputs[i] in new]
    varying = [value for value in saved if value not in inputs[:consts]]
    parameters = [
        *(new[inputs[i]] for i in own),
        *(value.node for value in (*sums, *seeds)),
        *(new[value] for value in varying),
    ]
    graph, outer = closed(made_from(results, new, trace.sources), parameters, trace)
    return StepBack(graph, outer, own, fixed, carried, numbers[len(carried) :], varying, rows)


def residuals(results: Sequence[Node], seeds: set[Node]) -> list[Node]:
    """Forward values that nodes which depend on a cotangent read; numbers are made anew."""
    dependent: set[Node] = set(seeds)
    found: dict[Node, None] = {}
    order = topological(results)
    for node in order:
        if any(operand in dependent for operand in node.inputs):
            dependent.add(node)
    for node in order:
        if node in dependent:
            for operand in node.inputs:
                if operand not in dependent and not _is_free(operand):
                    found.setdefault(operand)
    for node in results:
        if node not in dependent and not _is_free(node):
            found.setdefault(node)
    return list(found)


def fewest(saved: Sequence[Node], there: set[Node], *, is_budgeted: bool) -> list[Node]:
    """Values of the fewest bytes from which the saved ones are computed again, cheaply.

    `there`: values that every step back can read anyway. Under a budget of memory, what elementary
    functions give is computed again as well.
    """
    free = _free(saved)

    def cost(node: Node) -> int:
        return 0 if node in there or node in free else node.type.nbytes

    def may(node: Node) -> bool:
        if is_movement(node):
            return node.op is not movement.after
        is_plain = node.op.family == "pointwise" and node.op not in CHECKS
        return is_plain and (is_cheap(node) or (is_budgeted and not node.op.symbol))

    return [node for node in smallest_cut(saved, cost, may) if node not in free]


def _free(values: Iterable[Node]) -> set[Node]:
    """The nodes behind these values that are made of constants alone."""
    found: set[Node] = set()
    for node in topological(values):
        if node.op.family == "constant" or (node.inputs and found.issuperset(node.inputs)):
            found.add(node)
    return found


def _is_free(node: Node) -> bool:
    """Whether a value is made of constants alone."""
    leaves = (inner for inner in topological([node]) if not inner.inputs)
    return all(leaf.op.family == "constant" for leaf in leaves)


def made_from(
    results: Sequence[Node], new: Mapping[Node, Node], sources: dict[Node, Source]
) -> list[Node]:
    """The results with some of the nodes that they are made from replaced.

    What is made anew has the user's line of what it stands for.
    """
    done: dict[Node, Node] = dict(new)
    for node in topological(results):
        if node not in done:
            operands = tuple(done[operand] for operand in node.inputs)
            done[node] = (
                node if operands == node.inputs else node_of(node.op, operands, dict(node.attrs))
            )
            if node in sources:
                sources.setdefault(done[node], sources[node])
    return [done[node] for node in results]
