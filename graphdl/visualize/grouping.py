"""Groups of nodes that can be drawn as boxes: the graph of boxes must have no cycle."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from graphdl.graph import Graph, Node, users

Unit = TypeVar("Unit", bound=Hashable)


def acyclic_groups(
    graph: Graph, groups: Sequence[Iterable[Node]], apart: Collection[Node]
) -> dict[Node, int]:
    """The group of each node, for the groups that can be drawn as boxes.

    A node in several groups counts for the first. A node outside, such as a broadcast, joins the
    group that all its users are in, and one that stands between two members joins theirs. Groups
    that wait for each other are given up, the smallest first, until none do.

    Args:
        graph: the graph.
        groups: their nodes.
        apart: nodes that belong to no group.
    """
    group_of: dict[Node, int] = {}
    for index, group in enumerate(groups):
        for node in group:
            if node not in apart:
                group_of.setdefault(node, index)
    used = users(graph.nodes)
    results = set(graph.outputs)
    operations = [node for node in graph.operations if node not in apart]
    for node in reversed(operations):
        if node not in group_of and node not in results:
            found = {group_of.get(user) for user in used[node]}
            if len(found) == 1 and (only := found.pop()) is not None:
                group_of[node] = only
    while True:
        cycles = _cycles(operations, group_of)
        if not cycles:
            return group_of
        for cycle in cycles:
            waiting = sorted(unit for unit in cycle if isinstance(unit, int))
            if len(waiting) == 1:
                group_of |= {n: waiting[0] for n in operations if n in cycle}
            else:
                size = dict.fromkeys(waiting, 0)
                for index in group_of.values():
                    if index in size:
                        size[index] += 1
                least = min(waiting, key=lambda index: (size[index], index))
                group_of = {n: index for n, index in group_of.items() if index != least}


def _cycles(nodes: Sequence[Node], group_of: Mapping[Node, int]) -> list[set[Node | int]]:
    """Groups and nodes that wait for each other."""
    above: dict[Node | int, list[Node | int]] = {}
    for node in nodes:
        unit = group_of.get(node, node)
        waits = above.setdefault(unit, [])
        waits += (group_of.get(x, x) for x in node.inputs if group_of.get(x, x) != unit)
    below: dict[Node | int, list[Node | int]] = {unit: [] for unit in above}
    edges = [(tail, unit) for unit, tails in above.items() for tail in tails if tail in above]
    for tail, unit in edges:
        below[tail].append(unit)
    if len(sorted_units(list(above), edges)) == len(above):
        return []
    return [set(found) for found in components(list(above), below) if len(found) > 1]


def sorted_units(units: Sequence[Unit], edges: Iterable[tuple[Unit, Unit]]) -> list[Unit]:
    """The units in topological order, near the order given; without those on or after a cycle.

    >>> sorted_units(["a", "b", "c"], [("c", "a")])
    ['b', 'c', 'a']
    """
    number = {unit: i for i, unit in enumerate(units)}
    below: dict[Unit, list[Unit]] = {unit: [] for unit in units}
    waits = dict.fromkeys(units, 0)
    for tail, head in edges:
        below[tail].append(head)
        waits[head] += 1
    ready = [number[unit] for unit in units if waits[unit] == 0]
    heapq.heapify(ready)
    order: list[Unit] = []
    while ready:
        unit = units[heapq.heappop(ready)]
        order.append(unit)
        for head in below[unit]:
            waits[head] -= 1
            if waits[head] == 0:
                heapq.heappush(ready, number[head])
    return order


def components(units: Sequence[Unit], below: Mapping[Unit, Sequence[Unit]]) -> list[list[Unit]]:
    """Strongly connected components, each after those that it leads to.

    Tarjan, "Depth-first search and linear graph algorithms", SIAM Journal on Computing 1 (1972),
    without recursion.

    >>> components(["a", "b", "c"], {"a": ["b"], "b": ["a", "c"], "c": []})
    [['c'], ['b', 'a']]
    """
    index: dict[Unit, int] = {}
    low: dict[Unit, int] = {}
    open_: list[Unit] = []
    is_open: set[Unit] = set()
    found: list[list[Unit]] = []
    for root in units:
        if root in index:
            continue
        stack = [(root, iter(below[root]))]
        index[root] = low[root] = len(index)
        open_.append(root)
        is_open.add(root)
        while stack:
            unit, heads = stack[-1]
            for head in heads:
                if head not in index:
                    index[head] = low[head] = len(index)
                    open_.append(head)
                    is_open.add(head)
                    stack.append((head, iter(below[head])))
                    break
                if head in is_open:
                    low[unit] = min(low[unit], index[head])
            else:
                stack.pop()
                if stack:
                    low[stack[-1][0]] = min(low[stack[-1][0]], low[unit])
                if low[unit] == index[unit]:
                    component = []
                    while True:
                        last = open_.pop()
                        is_open.discard(last)
                        component.append(last)
                        if last == unit:
                            break
                    found.append(component)
    return found
