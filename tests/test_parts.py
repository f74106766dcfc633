"""Arrays written part by part: gradients read the parts, and copy no array for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphdl as gd
from bench.kernels import ocean
from graphdl.compiler.parts import read_parts
from graphdl.kernels.memory import is_idle
from graphdl.ops.update import update
from graphdl.windows import are_disjoint, is_within, places, window_in

RNG = np.random.default_rng(3)


def copies(executable: Any) -> int:
    """Launches that copy what stays of an array of which a part is replaced."""
    launches = executable._program.launches
    return sum(1 for launch in launches if launch.moves and not is_idle(launch, executable.memory))


def column(x: Any, y: Any) -> Any:
    """A recurrence over the last axis, each place written twice."""
    z = x * 1.0
    for i in range(1, z.shape[-1]):
        z[..., i] = z[..., i] * y[..., i]
        z[..., i] += np.sin(z[..., i - 1])
    return z


def test_a_gradient_of_writes_by_parts_does_not_copy_the_array_for_each():
    args = tuple(RNG.random((200, 24)) for _ in range(2))
    loss = gd.grad(lambda *args: np.sum(column(*args) ** 2), argnums=(0, 1))
    executable = gd.compile(loss).lower(*args)
    assert copies(executable) <= 3  # two of them around the first place, of the argument itself
    assert executable.memory.arena_bytes < 4 * args[0].nbytes
    gd.check_grads(column, *(x[:3, :6] for x in args), order=1)


def test_the_gradient_of_a_tridiagonal_solver_needs_memory_in_proportion_to_its_depth():
    """Each level used to copy the whole array: 397 MB for 10,000 columns of 40 levels, now 25."""
    sizes = []
    for depth in (8, 16, 32):
        args = [np.ones((100, depth)) for _ in range(4)]
        loss = gd.grad(lambda *args: np.sum(ocean.solve_tridiagonal(*args) ** 2))
        sizes.append(gd.compile(loss).lower(*args).memory.arena_bytes)
    assert sizes[2] - sizes[1] < 2.5 * (sizes[1] - sizes[0])


def test_an_array_that_is_only_read_by_parts_is_not_made():
    def f(x: Any) -> Any:
        z = np.zeros((4, 500))
        for i in range(4):
            z[i] = np.exp(x) * i
        return z[1] + z[3, ::-1]

    x = RNG.random(500)
    executable = gd.compile(f).lower(x)
    assert not any(node.op is update for node in executable.optimized.operations)
    np.testing.assert_allclose(executable(x), f(x), rtol=1e-14)


def test_an_old_version_is_read_where_its_elements_still_are():
    """What is read late: one part that stays, one that is changed, one that spans two writes."""

    def f(x: Any, y: Any) -> Any:
        z = np.sin(x)
        stays, changed, spans = z[100:110], z[:10], z[5:15]
        z[:10] = y
        after = np.sum(z)
        z[10:20] = y * after
        return z, stays * after, changed * after, spans * after

    args = RNG.random(1000), RNG.random(10)
    executable = gd.compile(f).lower(*args)
    assert copies(executable) == 0
    for got, want in zip(executable(*args), f(*(x.copy() for x in args)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-13)


def test_a_graph_without_updates_is_left_as_it_is():
    graph = gd.trace(lambda x: x[1:] - x[:-1], np.zeros(9))
    assert read_parts(graph) is graph


@pytest.mark.parametrize("donate", [(), (0,)])
def test_a_donated_argument_is_read_before_it_is_written(donate):
    def f(x: Any, y: Any) -> Any:
        first = x[:8] * 1.0
        for i in range(0, 64, 8):
            x[i : i + 8] = x[i : i + 8] * y + x[56:] + first
        return x

    x, y = RNG.random(64), RNG.random(8)
    want = f(x.copy(), y)
    np.testing.assert_allclose(gd.compile(f, donate=donate)(x.copy(), y), want, rtol=1e-14)


def test_windows():
    a = places((0, 9), (3, 4), (2, -2))
    assert a == [range(0, 6, 2), range(9, 1, -2)]
    assert is_within(places((2, 7), (2, 2), (2, -2)), a)
    assert window_in(places((2, 7), (2, 2), (2, -2)), a) == {
        "starts": (1, 1), "sizes": (2, 2), "steps": (1, 1),
    }  # fmt: skip
    assert not is_within(places((1, 7), (1, 1), (1, 1)), a)
    assert are_disjoint(places((1, 9), (2, 2), (2, 1)), a)
    assert not are_disjoint(places((1, 9), (3, 1), (1, 1)), a)
