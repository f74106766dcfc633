"""Sums over the steps of a loop are taken behind it, and padded neighbours are joined."""

from __future__ import annotations

from typing import Any

import numpy as np
import optree
import pytest

import graphdl as gd
from graphdl.compiler.pipeline import optimise
from graphdl.graph import Graph
from graphdl.kernels import memory
from graphdl.kernels.cpu import build
from tests.programs import program_of


def normal(*shape: int, dtype: Any = np.float64) -> Any:
    return np.random.default_rng(len(shape) + sum(shape)).normal(size=shape).astype(dtype)


def checked(f: Any, *args: Any) -> Graph:
    """The optimised graph; interpreted and compiled it gives what the traced graph gives."""
    graph = gd.trace(f, *args)
    want = optree.tree_leaves(graph.evaluate(*args))
    optimised = optimise(graph)[-1][1]
    for got in (optimised.evaluate(*args), gd.compile(f)(*args)):
        for one, other in zip(optree.tree_leaves(got), want, strict=True):
            assert one.dtype == other.dtype
            tolerance = 1e-4 if other.dtype == np.float32 else 1e-11
            np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)
    return optimised


def scans(graph: Graph) -> list[Any]:
    return [node for node in graph.operations if node.op.name == "scan"]


def recurrent(weights: Any, bias: Any, state: Any, xs: Any) -> Any:
    def step(h: Any, x: Any) -> Any:
        h = np.tanh(h @ weights + x + bias)
        return h, h

    return np.sum(gd.scan(step, state, xs)[1] ** 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("steps", "rows"), [(5, 3), (1, 1), (7, 1), (0, 2)])
def test_gradients_of_what_each_step_reads(dtype: Any, steps: int, rows: int) -> None:
    arguments = (
        normal(4, 4, dtype=dtype), normal(4, dtype=dtype),
        normal(rows, 4, dtype=dtype), normal(steps, rows, 4, dtype=dtype),
    )  # fmt: skip
    graph = checked(gd.grad(recurrent, argnums=(0, 1, 2, 3)), *arguments)
    if steps and rows == 3:
        back = scans(graph)[-1]
        assert back["carries"] == 1  # the state's; neither the weights' nor the bias's
        assert not any(node.shape == (4, 4) for node in back["body"].operations)


def test_gradients_agree_with_finite_differences() -> None:
    gd.check_grads(recurrent, normal(4, 4), normal(4), normal(2, 4), normal(3, 2, 4))


def test_second_order_and_batches() -> None:
    arguments = normal(3, 3), normal(3), normal(2, 3), normal(4, 2, 3)

    def slope(*args: Any) -> Any:
        return np.sum(gd.grad(recurrent)(*args) ** 2)

    checked(gd.grad(slope), *arguments)
    many = gd.vmap(gd.grad(recurrent, argnums=(0, 1)), in_axes=(None, None, None, 0))
    checked(many, *arguments[:3], normal(6, 4, 2, 3))


def test_sums_that_users_write() -> None:
    def moments(rows: Any) -> Any:
        def step(c: Any, x: Any) -> Any:
            total, products = c
            both = x[:, None] @ x[None, :]
            return (total + x, both + products + both.T), total

        return gd.scan(step, (np.zeros(5), np.ones((5, 5))), rows)

    checked(moments, normal(6, 5))


def test_what_else_a_step_does_with_the_sum_keeps_it_in_the_loop() -> None:
    def f(a: Any, b: Any) -> Any:
        def step(c: Any, x: Any) -> Any:
            return c + x[0].T @ x[1], np.sum(c)

        return gd.scan(step, np.zeros((4, 4)), (a, b))

    assert scans(checked(f, normal(3, 2, 4), normal(3, 2, 4)))[0]["carries"] == 1


def test_a_sum_that_is_smaller_than_its_factors_stays_in_the_loop() -> None:
    def f(a: Any, b: Any) -> Any:
        def step(c: Any, x: Any) -> Any:
            return c + np.tanh(x[0]).T @ np.tanh(x[1]), None

        return gd.scan(step, np.zeros((2, 2)), (a, b))[0]

    assert scans(checked(f, normal(3, 8, 2), normal(3, 8, 2)))[0]["carries"] == 1


def test_loops_between_shared_launches_share_their_steps() -> None:
    """A loop has no parts: it runs when the threads are free."""

    def f(x: Any, w: Any) -> Any:
        h = x @ w
        h = gd.scan(lambda c, _: (np.tanh(c @ w), None), h, None, length=3)[0]
        return h @ w

    program = program_of(gd.trace(f, normal(400, 200), normal(200, 200)))
    parts = [row.words[3] for row in build.build(program, memory.plan(program)).rows]
    assert parts[0] > 1
    assert parts.count(0) == 1
    assert parts[-1] > 1


@pytest.mark.parametrize(
    ("cut", "axis"), [((3, 1, 4), 1), ((1, 7), 1), ((2, 2, 2), 0), ((0, 5, 3), 1)]
)
def test_gradients_of_parts_are_joined(cut: tuple[int, ...], axis: int) -> None:
    ends = np.cumsum(cut)

    def f(x: Any) -> Any:
        parts = np.split(x, ends[:-1], axis=axis)
        return sum(np.sum(np.sin(part) * (i + 1)) for i, part in enumerate(parts))

    graph = checked(gd.grad(f), normal(6, 8))
    assert "pad(" not in str(graph)


def test_parts_that_leave_something_out_are_padded_once() -> None:
    def f(x: Any) -> Any:
        return np.sum(np.sin(x[:, 2:4])) + np.sum(np.cos(x[:, 4:7]))

    assert str(checked(gd.grad(f), normal(6, 9))).count("pad(") == 1


def test_parts_that_overlap_or_lie_apart_are_added() -> None:
    for f in (
        lambda x: np.sum(np.sin(x[:4])) + np.sum(np.cos(x[3:])),
        lambda x: np.sum(np.sin(x[:3])) + np.sum(np.cos(x[5:])),
        lambda x: np.sum(np.sin(x[:4])) + np.sum(np.cos(x[4:])) + np.sum(x[::2] ** 3),
    ):
        checked(gd.grad(f), normal(8))
    checked(gd.grad(lambda x: np.sum(np.sin(x[:2, :3])) + np.sum(x[2:, 3:] ** 2)), normal(5, 7))
