"""Where a value must lie in memory of its own: a `copy` node says so.

After this pass every operand of a kernel is a view of memory (graphdl.compiler.view), and every
output of the graph is computed by a kernel and by no other output.
"""

from __future__ import annotations

from graphdl.compiler.origins import is_number, is_scalar, spoils
from graphdl.compiler.view import is_movement, view_of
from graphdl.graph import Graph, Node, rebuild
from graphdl.ops import control, indexing, movement
from graphdl.ops.op import Op, node_of, rebuilt
from graphdl.ops.update import scatter, update
from graphdl.types import contiguous_strides

#: Ops whose kernels read their operands as they lie in memory, row by row.
ROW_BY_ROW = (
    "scatter_add", "cumsum", "cummax", "cummin", "recurrence", "sort", "argsort", "searchsorted",
    "convolve", "filter_gradient", "filter_gradient_parts", "window_pick", "window_place",
)  # fmt: skip
#: How many operands, from the first on, kernels read from memory whatever they are. All others may
#: also be numbers that a kernel computes for itself.
IN_MEMORY = {
    "gather": 1, "pad": 1, "contract": 2, "scatter_add": 2, "cumsum": 1, "cummax": 1, "cummin": 1,
    "recurrence": 2, "sort": 1, "argsort": 1, "searchsorted": 2, "update": 1,
    "convolve": 2, "filter_gradient": 2, "filter_gradient_parts": 2, "window_pick": 2,
    "window_place": 2,
}  # fmt: skip

#: The same values in memory of their own; `again` counts the copies of one value. What is copied
#: `apart` is written by a kernel that none of its readers joins. Copies of numbers of one `part` of
#: a program are written by one kernel (graphdl.compiler.numbers).
copy = Op(
    "copy",
    "pointwise",
    lambda x, *, again, apart=False, part=None: x,
    lambda x, *, again, apart=False, part=None: x,
    lambda g, out, x, *, again, apart=False, part=None: (g,),
)


def materialise(graph: Graph) -> Graph:
    def replace(node: Node, inputs: tuple[Node, ...]) -> Node:
        packs = node.op.family in ("control", "linalg", "user")
        if node.op.name in ROW_BY_ROW:
            # a number that is added everywhere, as in counts, is read where it is
            first = node.op is indexing.scatter_add and is_number(_behind(inputs[0]))
            inputs = (*inputs[:first], *(contiguous(operand) for operand in inputs[first:]))
        if node.op.family == "control":
            inputs = tuple(whole(operand) for operand in inputs)
        if node.op.family in ("linalg", "user"):
            inputs = tuple(adjacent(operand) for operand in inputs)
        if node.op is scatter:
            x, *others = inputs
            inputs = (x, *(contiguous(operand) for operand in others))
        all_of_them = node.op in (movement.concatenate, scatter) or packs
        count = len(inputs) if all_of_them else IN_MEMORY.get(node.op.name, 0)
        inputs = tuple(
            copied(operand) if i < count and _is_computed_anew(operand) else operand
            for i, operand in enumerate(inputs)
        )
        made = rebuilt(node, inputs)
        if made.op is update and spoils(made, (made,)):
            return rebuilt(node, (inputs[0], copied(inputs[1])))
        if made.op is movement.reshape and view_of(made) is None:
            return node_of(movement.reshape, (copied(inputs[0]),), dict(made.attrs))
        return made

    viewable = rebuild(graph, replace)
    arguments = set(graph.inputs)
    outputs: list[Node] = []
    sources = dict(viewable.sources)
    for node in viewable.outputs:
        own = not (is_movement(node) or node in arguments or node.op.family == "constant")
        made = node if own and node not in outputs else _copy(node, len(outputs))
        if made is not node and node in sources:
            sources.setdefault(made, sources[node])
        outputs.append(made)
    return viewable.with_outputs(outputs, sources)


def _is_computed_anew(operand: Node) -> bool:
    """Whether all elements are one number that kernels compute for themselves."""
    return is_scalar(_behind(operand))


def _behind(node: Node) -> Node:
    while is_movement(node):
        node = node.inputs[0]
    return node


def contiguous(node: Node) -> Node:
    """The node, or a copy of it if it is a view of something else."""
    behind = node
    while behind.op is movement.after:
        behind = behind.inputs[0]
    if behind.op is movement.iota or (is_movement(behind) and behind.op is not control.item):
        return copied(node)
    return node


def whole(node: Node) -> Node:
    """The node, or a copy of it if it is not a value in memory of its own, perhaps reshaped."""
    if contiguous(node) is node:
        return node
    view = view_of(node)
    return adjacent(node) if view is not None and view.offset == 0 else copied(node)


def adjacent(node: Node) -> Node:
    """The node, or a copy of it if its elements do not lie in memory one behind the other."""
    view = view_of(node)
    if view is None or view.base.op is movement.iota:
        return copied(node)
    strides = contiguous_strides(node.shape)
    places = zip(node.shape, view.strides, strides, strict=True)
    return node if all(size == 1 or a == b for size, a, b in places) else copied(node)


def copied(node: Node) -> Node:
    """A copy; of one number made from numbers, whatever the shape, it is the copy of that number.

    So numbers that are stacked are written by the kernel that computes them.
    """
    number = _behind(node)
    if node is not number and node.type.size == 1 and is_scalar(number):
        return node_of(movement.reshape, (_copy(number, 0),), {"shape": node.shape})
    return _copy(node, 0)


def _copy(node: Node, again: int) -> Node:
    return node_of(copy, (node,), {"again": again})
