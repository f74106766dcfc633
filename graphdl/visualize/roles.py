"""What each node is for: forward, backward or update; its layer; what it is the gradient of.

All of it follows from what was written down while tracing (see `graphdl.graph.Source`): the scopes
around the user's line, and for a node of a backward pass the source of the node whose gradient rule
made it. A backward pass of a backward pass runs forward again, so a node is backward if an odd
number of rules stands between it and the user's line.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from graphdl.graph import Graph, Node, Source, users
from graphdl.ops import pointwise
from graphdl.visualize.labels import constants_of
from graphdl.visualize.picture import BACKWARD, FORWARD, UPDATE

#: Where no scope says so, a layer begins with one of these.
PRODUCTS = ("contract", "convolve", "filter_gradient")
#: Where no product begins one either, a layer is at most this deep.
DEEP = 60


class Roles(Struct, frozen=True):
    """phase, band: of every operation. bands: the names of the bands, the first layer first.

    pulled: the forward node whose rule made a backward one. gradient_of: an operation or an input.
    parameters: the inputs that are differentiated. sources: also of nodes that passes made.
    """

    phase: Mapping[Node, str]
    band: Mapping[Node, int]
    bands: tuple[str, ...]
    pulled: Mapping[Node, Node]
    gradient_of: Mapping[Node, Node]
    parameters: frozenset[Node]
    sources: Mapping[Node, Source]

    @property
    def training(self) -> bool:
        """Whether there is a backward pass."""
        return BACKWARD in self.phase.values()


def roles_of(graph: Graph) -> Roles:
    """The roles of the nodes of a graph, before or after the passes.

    >>> import numpy as np, graphdl as gd
    >>> loss = lambda w, x: np.sum(np.tanh(x @ w))
    >>> step = lambda w, x: w - 0.1 * gd.grad(loss)(w, x)
    >>> graph = gd.compile(step).lower(gd.spec((3, 4)), gd.spec((2, 3))).optimized
    >>> found = roles_of(graph)
    >>> [(node.op.name, found.phase[node]) for node in graph.operations if node.op.name == "tanh"]
    [('tanh', 'forward')]
    >>> found.phase[graph.outputs[0]]
    'update'
    >>> "w" in [graph.labels[node] for node in found.gradient_of.values()]
    True
    """
    used = users(graph.nodes)
    sources = _sources(graph, used)
    phase = _phases(graph, sources, used)
    # by identity: two nodes of one line have equal sources
    node_of: dict[int, Node] = {}
    for node in graph.operations:
        if node in graph.sources:
            node_of.setdefault(id(graph.sources[node]), node)
    pulled: dict[Node, Node] = {}
    gradient_of: dict[Node, Node] = {}
    for node in graph.operations:
        source = graph.sources.get(node)
        if source is None or source.pulled is None:
            continue
        if id(source.pulled) in node_of:
            pulled[node] = node_of[id(source.pulled)]
        origin = _origin(source.gradient_of, graph, node_of)
        if origin is not None and origin is not node:
            gradient_of[node] = origin
    band, names = _bands(graph, phase, sources, pulled)
    inputs = set(graph.inputs)
    parameters = frozenset(node for node in gradient_of.values() if node in inputs)
    return Roles(phase, band, names, pulled, gradient_of, parameters, sources)


def _origin(node: Node | None, graph: Graph, node_of: Mapping[int, Node]) -> Node | None:
    """The node of the graph that stands for one of the trace."""
    while node is not None and node.op is pointwise.variable:
        node = node.inputs[0]
    if node is None or node in graph.inputs:
        return node
    source = graph.sources.get(node)
    return None if source is None else node_of.get(id(source))


def _sources(graph: Graph, used: Mapping[Node, list[Node]]) -> dict[Node, Source]:
    """What a pass makes in the middle of a rewrite has the source of what uses it."""
    found: dict[Node, Source] = {}
    for node in reversed(graph.operations):
        source = graph.sources.get(node)
        if source is None:
            source = next((found[user] for user in used[node] if user in found), None)
        if source is not None:
            found[node] = source
    return found


def depth_of(source: Source | None) -> int:
    """How many gradient rules stand between a node and the user's line."""
    depth = 0
    while source is not None and source.pulled is not None:
        depth, source = depth + 1, source.pulled
    return depth


def _phases(
    graph: Graph, sources: Mapping[Node, Source], used: Mapping[Node, list[Node]]
) -> dict[Node, str]:
    """An update is what the user computes from a backward pass, and what serves only that.

    The slopes that forward mode makes by a gradient rule, and uses on its way down, are forward.
    """
    phase: dict[Node, str] = {}
    after: set[Node] = set()  # nodes that depend on a backward pass, or belong to it
    tangents: set[Node] = set()
    constants = constants_of(graph)  # which passes share between the ways
    for node in graph.operations:
        depth = depth_of(sources.get(node))
        late = any(operand in after for operand in node.inputs)
        phase[node] = BACKWARD if depth % 2 else UPDATE if late and not depth else FORWARD
        if (depth or late) and node not in constants:
            after.add(node)
        if depth and depth % 2 == 0:
            tangents.add(node)
    results = set(graph.outputs)
    for node in reversed(graph.operations):
        if node in results or not used[node]:
            continue
        if phase[node] == FORWARD and all(phase[x] == UPDATE for x in used[node]):
            phase[node] = UPDATE
        if phase[node] == BACKWARD and all(x in tangents for x in used[node]):
            phase[node] = FORWARD
            tangents.add(node)
    return phase


def _bands(
    graph: Graph,
    phase: Mapping[Node, str],
    sources: Mapping[Node, Source],
    pulled: Mapping[Node, Node],
) -> tuple[dict[Node, int], tuple[str, ...]]:
    constants = constants_of(graph)
    forward = [n for n in graph.operations if phase[n] == FORWARD and n not in constants]
    band: dict[Node, int]
    if any(sources[node].scopes for node in forward if node in sources):
        band, names = _by_scope(graph, forward, sources)
    elif BACKWARD in phase.values():
        band, names = _by_products(forward)
        if len(names) == 1:
            band, names = _by_depth(forward)
    else:
        band, names = {}, ("",)
    last = len(names) - 1
    for node in graph.operations:  # backward: up, the other way round
        if phase[node] == BACKWARD:
            bands = [band[x] for x in node.inputs if phase.get(x) == BACKWARD and x in band]
            if node in pulled and pulled[node] in band:
                bands.append(band[pulled[node]])
            if bands:
                band[node] = min(bands)
    for node in reversed(graph.operations):
        if phase[node] == BACKWARD and node not in band:
            band[node] = last
    _updates(graph, phase, band, last)
    for node in graph.operations:
        band.setdefault(node, 0)
    return band, names


def _updates(graph: Graph, phase: Mapping[Node, str], band: dict[Node, int], last: int) -> None:
    """An update stands beside the gradient that it reads, or the parameter, or what it serves.

    What serves or reads several layers, such as the norm of all gradients, stands in the last.
    """
    home = _homes(graph, phase, band)
    updates = [node for node in graph.operations if phase[node] == UPDATE]
    for node in updates:
        gradients = {band[x] for x in node.inputs if phase.get(x) == BACKWARD and x in band}
        leaves = {home[x] for x in node.inputs if x in home}
        others = {band[x] for x in node.inputs if phase.get(x) == UPDATE and x in band}
        found = gradients or leaves or others
        if found:
            band[node] = found.pop() if len(found) == 1 else last
    serves: dict[Node, set[int]] = {}
    for node in reversed(updates):
        found = serves.get(node, set())
        if node not in band:
            band[node] = found.pop() if len(found) == 1 else last
        for operand in node.inputs:
            serves.setdefault(operand, set()).add(band[node])


def _homes(graph: Graph, phase: Mapping[Node, str], band: Mapping[Node, int]) -> dict[Node, int]:
    """The band of each input: where the forward pass, or else the backward pass, first reads it."""
    found: dict[Node, int] = {}
    for wanted in (FORWARD, BACKWARD):
        bands: dict[Node, int] = {}
        for node in graph.operations:
            if phase[node] == wanted and node in band:
                for operand in node.inputs:
                    if not operand.inputs and operand not in phase:
                        bands[operand] = min(band[node], bands.get(operand, band[node]))
        found = bands | found
    return found


def _by_products(forward: list[Node]) -> tuple[dict[Node, int], tuple[str, ...]]:
    """Layers where no scope names them: each matrix product or convolution begins one."""
    products: dict[Node, int] = {}
    for node in forward:
        before = max((products.get(operand, 0) for operand in node.inputs), default=0)
        products[node] = before + (node.op.name in PRODUCTS)
    serves: dict[Node, int] = {}  # what follows no product, such as a bias, goes with its user
    for node in reversed(forward):
        if not products[node]:
            products[node] = serves.get(node, 0)
        for operand in node.inputs:
            if products.get(operand) == 0:
                serves[operand] = min(serves.get(operand, products[node]), products[node])
    band = {node: max(count - 1, 0) for node, count in products.items()}
    return band, ("",) * (max(band.values(), default=0) + 1)


def _by_depth(forward: list[Node]) -> tuple[dict[Node, int], tuple[str, ...]]:
    """Pieces of equal depth where nothing tells layers apart, as of time steps that are unrolled.

    As one layer they would be a picture of one column, and nothing to close.
    """
    depth: dict[Node, int] = {}
    for node in forward:
        depth[node] = max((depth[x] + 1 for x in node.inputs if x in depth), default=0)
    users_depth: dict[Node, int] = {}  # what begins a way stands where it is first needed
    for node in reversed(forward):
        if not any(x in depth for x in node.inputs):
            depth[node] = users_depth.get(node, 1) - 1
        for operand in node.inputs:
            users_depth[operand] = min(users_depth.get(operand, depth[node]), depth[node])
    most = max(depth.values(), default=0) + 1
    pieces = -(-most // DEEP)
    size = -(-most // pieces)
    return {node: found // size for node, found in depth.items()}, ("",) * pieces


def _by_scope(
    graph: Graph, forward: list[Node], sources: Mapping[Node, Source]
) -> tuple[dict[Node, int], tuple[str, ...]]:
    """Each run through a scope is a layer; none comes before a layer that it depends on.

    What lies in no scope goes with what it is computed from, or else with what it is computed for;
    at the end of the forward pass it is a layer of its own, as losses are.
    """
    paths = {node: sources[node].scopes if node in sources else () for node in forward}
    present = set(paths.values())
    ordered = dict.fromkeys(s.scopes for s in graph.sources.values() if s.scopes in present)
    ordered |= dict.fromkeys(paths.values())  # of sources that no pass has handed on
    rank = {path: index for index, path in enumerate(path for path in ordered if path)}
    names = [" / ".join(scope.name for scope in path) for path in rank]
    members = set(forward)
    needed: set[Node] = set()  # what scoped nodes depend on
    for node in reversed(forward):
        if paths[node] or node in needed:
            needed.update(operand for operand in node.inputs if operand in members)
    band: dict[Node, int] = {}
    tail = ""
    for node in forward:
        before = max((band[operand] for operand in node.inputs if operand in band), default=-1)
        own = rank.get(paths[node], -1)
        if not paths[node] and node not in needed and before >= 0:
            own = len(rank)
            tail = tail or (sources[node].function if node in sources else "")
        if max(own, before) >= 0:
            band[node] = max(own, before)
    for node in reversed(forward):  # what is computed before the first layer
        if node in band:
            for operand in node.inputs:
                if operand in members:
                    band.setdefault(operand, band[node])
    if len(rank) in band.values():
        names.append(tail if tail.isidentifier() else "")
    for node in forward:
        band.setdefault(node, 0)
    return band, tuple(names)
