"""gd.checkpoint: equal values and derivatives, less memory; and the order of kernels behind it."""

from __future__ import annotations

from typing import Any

import numpy as np
import optree
import pytest

import graphdl as gd
from graphdl.compiler import pipeline
from graphdl.graph import Graph
from graphdl.ops import control, movement

RNG = np.random.default_rng(11)
X, V = RNG.standard_normal((2, 6)), RNG.standard_normal((2, 6))
W = RNG.standard_normal((6, 6)) / 3


def inner(x: Any) -> Any:
    return np.tanh(np.sin(x) * np.exp(-x * x))


def layer(x: Any, w: Any) -> Any:
    return np.tanh(inner(x @ w) * x)


def nested(x: Any, w: Any) -> Any:
    return np.tanh(gd.checkpoint(inner)(x @ w) * x)


def in_scan(x: Any, w: Any, f: Any) -> Any:
    return gd.scan(lambda c, _: (f(c, w), np.sum(c * c)), x, length=5)


def of_trees(x: Any, w: Any, f: Any) -> Any:
    pair = f({"x": x, "w": w, "scale": 2.0, "name": None})
    return pair["a"] + pair["b"][0]


def tree_layer(p: Any) -> Any:
    return {"a": layer(p["x"], p["w"]) * p["scale"], "b": [np.cos(p["x"]), np.arange(3)]}


#: A function of (x, w) and how to treat its regions -> a result; without and with checkpoints.
FUNCTIONS = {
    "one": lambda x, w, c: np.sum(c(layer)(x, w) ** 2),
    "chain": lambda x, w, c: np.sum(c(layer)(c(layer)(c(layer)(x, w), w), w)),
    "nested": lambda x, w, c: np.sum(c(nested if c is gd.checkpoint else layer)(x, w) ** 2),
    "same operand twice": lambda x, w, c: np.sum(c(lambda a, b: a * np.sin(b))(x, x)),
    "closure": lambda x, w, c: np.sum(c(lambda a: layer(a, w) * a[::-1])(x)),
    "result is an operand": lambda x, w, c: np.sum(np.stack(c(lambda a: (a, np.sin(a)))(x))),
    "scan": lambda x, w, c: sum(np.sum(y) for y in in_scan(x, w, c(layer))),
    "scan inside": lambda x, w, c: np.sum(c(lambda a: in_scan(a, w, layer)[0])(x)),
    "trees": lambda x, w, c: np.sum(of_trees(x, w, c(tree_layer))),
    "branch": lambda x, w, c: np.sum(gd.cond(x[0, 0] > 0, c(inner), np.cos, x)),
    "no argument": lambda x, w, c: np.sum(c(lambda: layer(x, w))()),
}


def plain(f: Any) -> Any:
    return f


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_and_derivatives_are_those_of_the_function(name: str) -> None:
    f = FUNCTIONS[name]

    def everything(c: Any) -> Any:
        def loss(x: Any, w: Any) -> Any:
            return f(x, w, c)

        def derivatives(x: Any, w: Any, v: Any) -> Any:
            value, gradient = gd.value_and_grad(loss, (0, 1))(x, w)
            pushed = gd.jvp(loss, (x, w), (v, w))
            second = gd.hvp(loss)(x, w, v) if "branch" not in name else None
            mixed = gd.grad(lambda x: gd.jvp(loss, (x, w), (v, w))[1])(x)
            return value, gradient, pushed, second, mixed

        return derivatives

    expected = gd.trace(everything(plain), X, W, V).evaluate(X, W, V)
    graph = gd.trace(everything(gd.checkpoint), X, W, V)
    results = [graph.evaluate(X, W, V), pipeline.optimise(graph)[-1][1].evaluate(X, W, V)]
    if name == "nested":
        results.append(gd.compile(everything(gd.checkpoint))(X, W, V))
    for result in results:
        for got, want in zip(flat(result), flat(expected), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-11)


def flat(tree: Any) -> list[Any]:
    return optree.tree_leaves(tree)


def test_outside_of_a_trace_it_is_the_function() -> None:
    np.testing.assert_array_equal(gd.checkpoint(layer)(X, W), layer(X, W))
    assert gd.checkpoint(layer).__name__ == "layer"


def deep(x: Any, ws: Any, c: Any) -> Any:
    for w in ws:
        x = c(lambda x, w: np.tanh(np.sin(np.tanh(x @ w) @ w) @ w))(x, w)
    return np.sum(x * x)


WS = [RNG.standard_normal((32, 32)) / 5 for _ in range(12)]
LARGE = RNG.standard_normal((4096, 32))  # 1 MiB, as each value in a layer of `deep`


@pytest.mark.parametrize("transform", [gd.grad, gd.value_and_grad])
def test_memory_falls(transform: Any) -> None:
    kept = gd.compile(transform(lambda ws, x: deep(x, ws, plain), 0)).lower(WS, LARGE)
    anew = gd.compile(transform(lambda ws, x: deep(x, ws, gd.checkpoint), 0)).lower(WS, LARGE)
    unit = LARGE.nbytes
    assert kept.memory.arena_bytes > 4 * 12 * unit  # each layer keeps its values
    assert anew.memory.arena_bytes < (12 + 8) * unit  # its argument, and what one layer takes
    for got, want in zip(flat(anew(WS, LARGE)), flat(kept(WS, LARGE)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)


def test_groups_of_layers_take_the_square_root_of_the_memory() -> None:
    def grouped(x: Any, ws: Any) -> Any:
        def group(x: Any, ws: Any) -> Any:
            for w in ws:
                x = gd.checkpoint(lambda x, w: np.tanh(np.sin(np.tanh(x @ w) @ w) @ w))(x, w)
            return x

        for i in range(0, 12, 4):
            x = gd.checkpoint(group)(x, ws[i : i + 4])
        return np.sum(x * x)

    twice = gd.compile(gd.grad(lambda ws, x: grouped(x, ws))).lower(WS, LARGE)
    assert twice.memory.arena_bytes < (3 + 4 + 8) * LARGE.nbytes
    expected = gd.grad(lambda ws, x: deep(x, ws, plain))(WS, LARGE)
    for got, want in zip(twice(WS, LARGE), expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-9)


def test_a_loop_keeps_the_carry_of_each_step_only() -> None:
    def loss(x: Any, c: Any) -> Any:
        body = c(lambda h: np.tanh(np.sin(np.tanh(h) * h + 1) * h))
        return np.sum(gd.scan(lambda h, _: (body(h), None), x, length=50)[0])

    x = RNG.standard_normal(2000)
    kept = gd.compile(gd.grad(lambda x: loss(x, plain))).lower(x)
    anew = gd.compile(gd.grad(lambda x: loss(x, gd.checkpoint))).lower(x)
    assert kept.memory.arena_bytes > 2.5 * 50 * x.nbytes
    assert anew.memory.arena_bytes < 1.2 * 50 * x.nbytes
    np.testing.assert_allclose(anew(x), kept(x), rtol=1e-10)


def test_a_forward_pass_and_forward_mode_compute_nothing_twice() -> None:
    def f(c: Any) -> Any:
        return lambda x: c(lambda x: np.tanh(np.sin(x) * np.exp(x)))(x)

    for transform in (
        lambda f: f,
        lambda f: lambda x: gd.jvp(f, (x,), (x,))[1],
        lambda f: gd.jacobian(f, mode="forward"),
    ):
        with_, without = (
            gd.compile(transform(f(c))).lower(X).optimized for c in (gd.checkpoint, plain)
        )
        assert [n.op.name for n in with_.operations] == [n.op.name for n in without.operations]


def test_a_gradient_computes_anew() -> None:
    f = gd.checkpoint(lambda x: np.sin(np.tanh(x)) ** 2)
    graph = gd.trace(gd.grad(lambda x: np.sum(f(f(x)) ** 2)), X)
    names = [node.op.name for node in pipeline.optimise(graph)[-1][1].operations]
    assert names.count("tanh") == 4
    assert "after" in names


def operations(graph: Graph) -> set[str]:
    return {node.op.name for node in graph.operations}


def test_the_region_is_one_node_until_it_is_inlined() -> None:
    graph = gd.trace(lambda x: gd.checkpoint(inner)(x) + 1, X)
    assert control.checkpoint.name in operations(graph)
    assert control.checkpoint.name not in operations(pipeline.optimise(graph)[1][1])
    assert movement.after.name not in operations(pipeline.optimise(graph)[-1][1])


def test_vmap() -> None:
    f = gd.checkpoint(lambda x, w: np.tanh(x @ w) * x)
    batch = RNG.standard_normal((3, 6))
    gradient = gd.vmap(gd.grad(lambda x, w: np.sum(f(x, w))), in_axes=(0, None))
    expected = gd.vmap(gd.grad(lambda x, w: np.sum(np.tanh(x @ w) * x)), in_axes=(0, None))(
        batch, W
    )
    np.testing.assert_allclose(gradient(batch, W), expected, rtol=1e-10)
    mapped = gd.grad(lambda w: np.sum(gd.vmap(f, in_axes=(0, None))(batch, w)))
    whole = gd.grad(lambda w: np.sum(np.tanh(batch @ w) * batch))(W)
    np.testing.assert_allclose(mapped(W), whole, rtol=1e-10)
    assert "after" in operations(mapped.lower(W).optimized)
