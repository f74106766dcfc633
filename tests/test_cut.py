"""Which values are kept so that others can be computed again: never more bytes than need be."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import graphdl as gd
from graphdl.compiler.cut import smallest_cut
from graphdl.graph import Graph, Node, topological
from graphdl.ops import control


def random_graph(rng: np.random.Generator) -> Graph:
    """Some 10 pointwise operations on three arrays of one size."""

    steps = [(*rng.integers(3 + i, size=2), rng.integers(2)) for i in range(9)]

    def f(*arrays: Any) -> list[Any]:
        values = list(arrays)
        for a, b, kind in steps:
            values.append((np.add, np.multiply)[kind](values[a], np.sin(values[b])))
        return values

    return gd.trace(f, *np.zeros((3, 4)))


def gives(kept: set[Node], wanted: list[Node], may: set[Node]) -> bool:
    """Whether the wanted values can be computed from those that are kept."""
    pending = [node for node in wanted if node not in kept]
    while pending:
        node = pending.pop()
        if node not in may:
            return False
        pending += [operand for operand in node.inputs if operand not in kept]
    return True


@pytest.mark.parametrize("seed", range(25))
def test_no_set_of_up_to_four_values_is_cheaper(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    nodes = list(graph.operations)[-11:]
    below = [node for node in topological(nodes) if node not in nodes]
    may = {node for node in nodes if rng.random() < 0.8}
    price = {node: int(rng.integers(1, 6)) for node in topological(nodes)}
    price |= {node: 0 for node in graph.inputs if rng.random() < 0.5}
    wanted = [nodes[i] for i in rng.choice(len(nodes), 4, replace=False)]
    kept = smallest_cut(wanted, price.__getitem__, may.__contains__)
    assert gives(set(kept), wanted, may)
    found = sum(map(price.__getitem__, kept))
    free = {node for node, cost in price.items() if cost == 0}
    dear = [node for node in (*nodes, *below) if node not in free]
    least = min(
        sum(map(price.__getitem__, chosen))
        for chosen in (set(itertools.compress(dear, bits)) for bits in _subsets(len(dear)))
        if gives(chosen | free, wanted, may)
    )
    assert found <= least


def _subsets(count: int) -> Any:
    """Which of so many are chosen, for each choice of no more than four of them."""
    for size in range(5):
        for chosen in itertools.combinations(range(count), size):
            yield [i in chosen for i in range(count)]


def test_what_is_wanted_and_cheap_is_kept_itself() -> None:
    graph = gd.trace(lambda x: (np.sin(x) + 1, np.sin(x) * 2), np.zeros(3))
    more, twice = graph.outputs
    sine = more.inputs[0]
    assert sine.op.name == "sin"

    def kept(wanted: list[Node], fixed: set[Node]) -> list[Node]:
        def cost(node: Node) -> int:
            return 8 * (node.op.name != "constant")

        found = smallest_cut(wanted, cost, lambda node: node not in fixed)
        return [node for node in found if cost(node)]

    assert kept([more, twice], {sine}) == [sine]
    assert kept([more], {sine}) == [more]
    assert kept([more, twice], {more, twice}) == [more, twice]


def stacks(graph: Graph) -> int:
    """How many arrays of the steps' values the loops of a graph make."""
    scans = [node for node in graph.nodes if node.op is control.scan]
    return sum(len(node["body"].outputs) - node["carries"] for node in scans)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_of_loops_keep_activations_and_not_what_is_made_of_them(dtype: str) -> None:
    def f(x: Any, rows: Any) -> Any:
        def step(state: Any, row: Any) -> Any:  # a long short-term memory, element by element
            h, c = state
            forget, take, give = (gd.nn.sigmoid(h * k + row) for k in (0.3, -0.2, 0.5))
            c = forget * c + take * np.tanh(h - row)
            return (give * np.tanh(c), c), None

        return np.sum(gd.scan(step, (x, x), rows)[0][0] ** 2)

    rng = np.random.default_rng(2)
    x, rows = rng.normal(size=5), rng.normal(size=(7, 5))
    g = gd.compile(gd.grad(f, argnums=(0, 1)))
    args = x.astype(dtype), rows.astype(dtype)
    # three gates, two hyperbolic tangents and c; and the rows' cotangents, by the way back
    assert stacks(g.lower(*args).optimized) == 6 + 1
    gd.check_grads(f, x, rows)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    for a, b in zip(g(*args), g(x, rows), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
