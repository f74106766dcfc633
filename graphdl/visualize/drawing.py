"""From a graph to the items of its picture: what gets a box, and which edges join them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct, field

from graphdl.graph import Graph, Node, users
from graphdl.trees import names_within
from graphdl.visualize.costs import cost_of
from graphdl.visualize.grouping import acyclic_groups
from graphdl.visualize.labels import (
    NUMBER_LIMIT,
    constants_of,
    cut,
    cut_name,
    numbers_of,
    printable,
    title,
    type_text,
)
from graphdl.visualize.picture import FORWARD, PHASES, UPDATE, Band, Cost, Drawing, Group, Item
from graphdl.visualize.roles import PRODUCTS, roles_of

#: Without a backward pass, an input is drawn again for a use that is more operations than this
#: away from the first.
REACH = 3
BAND_LIMIT = 60
NAME_LIMIT = 22
#: How many other nodes a matrix product outweighs.
HEAVY = 100

#: A phase and the index of a band.
Place = tuple[str, int]


class Kernel(Struct, frozen=True):
    """Nodes that belong together, what they are called and what they take."""

    name: str
    nodes: Sequence[Node]
    cost: Cost = field(default_factory=Cost)


def draw(graph: Graph, kernels: Sequence[Kernel] = (), layout: str = "auto") -> Drawing:
    """Choose what to draw of a graph.

    A constant that is one number is written into the op that uses it. Other constants, and what is
    computed from constants alone, are drawn at each use, and an input at uses that are far from
    each other: one box for a weight that the forward pass, the backward pass and the update all
    read would pull edges across the whole picture.

    Args:
        graph: before or after the passes.
        kernels: nodes to draw in a box, where the graph of boxes has no cycle. A node that serves
            only one kernel, as the broadcast of a bias, joins it.
        layout: "training" or "dag"; "auto" is "training" where there is a backward pass.

    >>> import graphdl as gd
    >>> drawing = draw(gd.trace(lambda x: x * 2.0, gd.spec((3,))))
    >>> [(item.key, item.kind, item.title, item.detail) for item in drawing.items]
    [('x', 'argument', 'x', 'f64[3]'),
     ('%2', 'op', 'multiply(·, 2.0)', 'f64[3]'),
     ('out', 'output', 'out', '')]
    >>> drawing.edges
    (('x', '%2'), ('%2', 'out'))
    """
    return _Draft(graph, kernels, layout).drawing()


def output_names(graph: Graph) -> list[str]:
    """What the results are called: `out`, or the path to each of several."""
    if graph.out_tree is None:
        count = len(graph.outputs)
        return ["out"] if count == 1 else [f"out[{i}]" for i in range(count)]
    return names_within("out", graph.out_tree)


class _Draft:
    """The items and edges so far."""

    def __init__(self, graph: Graph, kernels: Sequence[Kernel], layout: str) -> None:
        self.graph = graph
        self.kernels = kernels
        self.roles = roles_of(graph)
        self.training = layout == "training" or (layout == "auto" and self.roles.training)
        self.used = users(graph.nodes)
        self.results = set(graph.outputs)
        self.inputs = set(graph.inputs)
        constants = constants_of(graph)
        self.constants = constants - self.results
        numbers = numbers_of(node for node in graph.operations if node in constants)
        self.numbers = {node: text for node, text in numbers.items() if len(text) <= NUMBER_LIMIT}
        self.group_of = acyclic_groups(graph, [kernel.nodes for kernel in kernels], constants)
        self.group_place = self._group_places()
        self.home = self._homes()
        self.depth: dict[Node, int] = {}
        for node in graph.nodes:
            self.depth[node] = max((self.depth[x] + 1 for x in node.inputs), default=0)
        self.first_use: dict[Node, int] = {}
        self.copies: dict[Node, int] = {}
        self.key: dict[tuple[Node, Place], str] = {}
        self.items: dict[str, Item] = {}
        self.edges: dict[tuple[str, str], None] = {}

    def drawing(self) -> Drawing:
        labels = self.graph.labels
        for node in self.graph.nodes:
            if node in self.constants or (node in self.inputs and self.used[node]):
                continue  # its users draw it
            operands = () if node in self.inputs else dict.fromkeys(node.inputs)
            tails = [self._operand(operand, node) for operand in operands]
            self._add(node, labels[node], self._kind(node), self._place(node))
            self.edges |= dict.fromkeys((tail, labels[node]) for tail in tails if tail)
        for node, name in zip(self.graph.outputs, output_names(self.graph), strict=True):
            self._output(node, name)
        present = {item.group for item in self.items.values()}
        groups = [
            Group(group_key(i), printable(kernel.name), *self.group_place[i], kernel.cost)
            for i, kernel in enumerate(self.kernels)
            if group_key(i) in present
        ]
        bands = tuple(Band(cut_name(name, BAND_LIMIT)) for name in self.roles.bands)
        return Drawing(
            tuple(self.items.values()), tuple(self.edges), tuple(groups), bands, self.training
        )

    # --- operands ---------------------------------------------------------------------------

    def _operand(self, operand: Node, user: Node) -> str:
        """The key of the box of an operand; "" for a number, which the user's title holds."""
        if operand in self.constants:
            return "" if operand in self.numbers else self._copy(operand, user)
        if operand not in self.inputs:
            return self.graph.labels[operand]
        place = self._reading_place(operand, user)
        if (operand, place) not in self.key:
            at_home = place == self.home.get(operand, place)
            key = self.graph.labels[operand] if at_home else self._next_key(operand)
            self.key[operand, place] = key
            if key not in self.items:
                kind = self._kind(operand) if at_home else "chip"
                self._add(operand, key, kind, self._block_of(user))
        return self.key[operand, place]

    def _reading_place(self, operand: Node, user: Node) -> Place:
        """Uses in one place share the box of an input."""
        if self.training:
            return self._block_of(user)
        first = self.first_use.setdefault(operand, self.depth[user])
        if self.depth[user] > first + REACH:
            first = self.first_use[operand] = self.depth[user]
        self.home.setdefault(operand, ("", first))
        return "", first

    def _copy(self, constant: Node, user: Node) -> str:
        key = self._next_key(constant)
        group = group_key(self.group_of[user]) if user in self.group_of else ""
        self._add(constant, key, "constant", self._place(user), group)
        return key

    def _next_key(self, node: Node) -> str:
        self.copies[node] = count = self.copies.get(node, 1) + 1
        return f"{self.graph.labels[node]}@{count}"

    # --- facts ------------------------------------------------------------------------------

    def _homes(self) -> dict[Node, Place]:
        """Where each input stands: forward if it is read there, and there in the first layer."""
        if not self.training:
            return {}
        found: dict[Node, Place] = {}
        for node in self.graph.operations:
            if node in self.constants:
                continue
            place = self._block_of(node)
            for operand in node.inputs:
                if operand in self.inputs:
                    found[operand] = min(found.get(operand, place), place, key=_place_order)
        return found

    def _place(self, node: Node) -> Place:
        return self.roles.phase.get(node, FORWARD), self.roles.band.get(node, 0)

    def _block_of(self, node: Node) -> Place:
        """Where a node stands: its group may be of another phase or band."""
        group = self.group_of.get(node)
        return self._place(node) if group is None else self.group_place[group]

    def _group_places(self) -> dict[int, Place]:
        """The place of each group: that of most of its nodes.

        A matrix product counts for more than all others: it is what its layer is about. But one
        that goes on to the new value of a parameter ends the way of that gradient: it stands with
        the other updates, where new values are looked for.
        """
        counts: dict[int, Counter[Place]] = {}
        for node, group in self.group_of.items():
            weight = HEAVY if node.op.name in PRODUCTS else 1
            counts.setdefault(group, Counter())[self._place(node)] += weight
        updating = self._updating(counts)
        found: dict[int, Place] = {}
        for group, places in counts.items():
            phase, band = max(places, key=lambda place: (places[place], _place_order(place)))
            found[group] = UPDATE if group in updating else phase, band
        return found

    def _updating(self, places: Mapping[int, Iterable[Place]]) -> set[int]:
        """The groups that hold updates, nothing forward, and nothing that goes on backward."""
        found = {
            group
            for group, at in places.items()
            if UPDATE in (phases := {phase for phase, _ in at}) and FORWARD not in phases
        }
        for node, group in self.group_of.items():
            others = (user for user in self.used[node] if self.group_of.get(user) != group)
            if any(self._place(user)[0] != UPDATE for user in others):
                found.discard(group)
        return found

    def _input_place(self, key: str) -> Place:
        return self.items[key].phase, self.items[key].band

    def _kind(self, node: Node) -> str:
        if node not in self.inputs:
            return "op"
        return "parameter" if node in self.roles.parameters else "argument"

    # --- items ------------------------------------------------------------------------------

    def _add(self, node: Node, key: str, kind: str, place: Place, group: str = "") -> None:
        labels, roles = self.graph.labels, self.roles
        source = roles.sources.get(node)
        if not group and node in self.group_of:
            group = group_key(self.group_of[node])
        is_input = node in self.inputs
        text = labels[node] if is_input else self.numbers.get(node) or title(node, self.numbers)
        origin = roles.gradient_of.get(node)
        self.items[key] = Item(
            key=key,
            node=labels[node],
            kind=kind,
            title=cut_name(text, NAME_LIMIT) if is_input else cut(text),
            detail="" if kind == "chip" else self._detail(node),
            phase=place[0],
            band=place[1],
            group=group,
            scopes=() if source is None else tuple(scope.name for scope in source.scopes),
            source="" if source is None else str(source),
            gradient_of="" if origin is None else labels[origin],
            pulled=labels[roles.pulled[node]] if node in roles.pulled else "",
            is_output=node in self.results,
            cost=cost_of(node) if kind == "op" else Cost(),
        )

    def _detail(self, node: Node) -> str:
        """The type; of an op with several results, of which each is read by itself, the size."""
        used = self.used[node]
        packed = used and all(user.op.name == "item" for user in used)
        return f"packed, {node.type.nbytes:,} B" if packed else type_text(node.type)

    def _output(self, node: Node, name: str) -> None:
        tail = self.graph.labels[node]
        phase, band = self._block_of(node) if node not in self.inputs else self._input_place(tail)
        key = name
        while key in self.items:  # an argument can be called `out`
            key += "'"
        self.items[key] = Item(
            key,
            tail,
            "output",
            cut_name(name, NAME_LIMIT),
            "",
            phase,
            band,
            is_output=True,
            count=0,
        )
        self.edges[tail, key] = None


def group_key(index: int) -> str:
    """The key of a group."""
    return f"kernel {index}"


def _place_order(place: Place) -> tuple[int, int]:
    return PHASES.index(place[0]), place[1]
