"""One sort where two were asked for: sorted values are picked in the order that is computed anyway.

The gradient of a sort, or np.sort beside np.argsort, needs the order of x and x in that order.
Picking is one pass over memory, a sort is dozens.
"""

from __future__ import annotations

from graphdl.graph import Graph, Node, rebuild
from graphdl.ops import sorting
from graphdl.ops.lines import pick_along
from graphdl.ops.op import node_of, rebuilt
from graphdl.tracing import Trace, TracedArray


def share_orders(graph: Graph) -> Graph:
    ordered = {node.inputs[0] for node in graph.operations if node.op is sorting.argsort}
    if not ordered:
        return graph
    trace = Trace("share orders")

    def replace(node: Node, inputs: tuple[Node, ...]) -> Node:
        if node.op is not sorting.sort or node.inputs[0] not in ordered:
            return rebuilt(node, inputs)
        order = node_of(sorting.argsort, inputs)
        picked: TracedArray = pick_along(TracedArray(inputs[0], trace), TracedArray(order, trace))
        return picked.node

    return rebuild(graph, replace)
