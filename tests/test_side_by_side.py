"""Steps of a loop that need not wait for each other: threads take them whole, in any order."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import optree
import pytest

import graphdl as gd
from graphdl.executable import Executable
from graphdl.kernels.cpu import plan, pool, product
from graphdl.kernels.program import Launch
from tests.test_blocks import gradient, masked, normal

CORES = 3


@pytest.fixture(autouse=True)
def cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine of three cores, which any other is like, and as many threads as there were."""
    monkeypatch.setattr(product, "cores", lambda: CORES)
    before = pool.num_threads()
    yield
    gd.set_num_threads(before)


def loops(executable: Executable) -> list[Launch]:
    """The launches of loops, those within others behind them."""
    pending, found = list(executable._program.launches), []
    while pending:
        launch = pending.pop(0)
        if launch.bodies:
            found.append(launch)
            pending += [inner for body in launch.programs for inner in body.program.launches]
    return found


def runs_side_by_side(executable: Executable) -> list[bool]:
    return [launch.is_side_by_side for launch in loops(executable)]


def row(x: Any, w: Any) -> Any:
    return np.tanh(x @ w) + np.sum(x * x, axis=-1, keepdims=True)


def of_rows(xs: Any, w: Any) -> Any:
    return gd.map(lambda x: row(x, w), xs)


def same_for_any_threads(call: Callable[[], Any]) -> list[Any]:
    """The results, which are the same bits for one thread, for as many as steps, and for more."""
    found = []
    for threads in (1, 2, CORES, 2 * CORES):
        gd.set_num_threads(threads)
        found.append([np.asarray(leaf).copy() for leaf in optree.tree_leaves(call())])
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(one, two, strict=True)
    return found[0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("steps", [6, 7, 29])
def test_steps_of_a_map(steps: int, dtype: str) -> None:
    xs, w = normal(steps, 33, 40, dtype=dtype), normal(40, 40, dtype=dtype)
    f = gd.compile(of_rows)
    assert runs_side_by_side(f.lower(xs, w)) == [True]
    for k in range(3):  # the counters of steps are where they began
        (found,) = same_for_any_threads(lambda k=k: f(xs + k, w))
        exact = row(xs.astype("f8") + k, w.astype("f8"))
        np.testing.assert_allclose(found, exact, rtol=1e-3 if dtype == "float32" else 1e-11)


def test_backwards_with_several_results_and_operands() -> None:
    xs = {"a": normal(9, 70, 90), "b": (np.arange(9.0) + 1).astype("f4")}
    c = normal(90)

    def step(carry: Any, x: Any) -> Any:
        y = np.exp(-x["a"] * x["a"]) * x["b"] + c
        return carry, (y, np.sum(y), x["b"] + 1)

    f = gd.compile(lambda xs: gd.scan(step, (), xs, reverse=True)[1])
    assert runs_side_by_side(f.lower(xs)) == [True]
    y, total, more = same_for_any_threads(lambda: f(xs))
    want = np.exp(-(xs["a"].astype("f8") ** 2)) * xs["b"][:, None, None] + c
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(total, want.sum((1, 2)), rtol=1e-4)
    np.testing.assert_array_equal(more, xs["b"] + 1)


def test_who_follows_another_waits() -> None:
    """Steps with a carry, too few, too cheap, too large, and loops within steps."""
    x, w = normal(12, 30, 40), normal(40, 40)
    two = gd.compile(lambda x, w: gd.scan(lambda c, x: (c + row(x, w), c), x[0], x)[1])
    assert runs_side_by_side(two.lower(x, w)) == [False]
    assert runs_side_by_side(gd.compile(of_rows).lower(x[: 2 * CORES - 1], w)) == [False]
    assert runs_side_by_side(gd.compile(of_rows).lower(x[:, :1, :3], w[:3, :3])) == [False]
    large = gd.spec((12, 4000, 2000), "float32"), gd.spec((2000, 2000), "float32")
    assert runs_side_by_side(gd.compile(of_rows).lower(*large)) == [False]
    within = gd.compile(lambda x, w: gd.map(lambda x: of_rows(x, w), np.stack([x] * 7)))
    assert runs_side_by_side(within.lower(x, w)) == [True, False]
    (found,) = same_for_any_threads(lambda: within(x, w))
    np.testing.assert_allclose(found, [row(x, w)] * 7, rtol=1e-3)


def test_effects_keep_their_order() -> None:
    seen: list[float] = []
    xs, w = normal(9, 30, 40), normal(40, 40)

    def step(x: Any) -> Any:
        y = row(x, w)
        gd.debug.callback(lambda s: seen.append(float(s)), x[0, 0])
        return y

    gd.set_num_threads(CORES)
    f = gd.compile(lambda xs: gd.map(step, xs))
    assert runs_side_by_side(f.lower(xs)) == [False]
    f(xs)
    np.testing.assert_allclose(seen, xs[:, 0, 0])


def test_a_step_that_fails_is_an_error() -> None:
    table, places = normal(50, 60), np.arange(12 * 400).reshape(12, 400) % 50
    f = gd.compile(lambda t, i: gd.map(lambda i: np.tanh(t[i]), i))
    assert runs_side_by_side(f.lower(table, places)) == [True]
    gd.set_num_threads(CORES)
    np.testing.assert_allclose(f(table, places), np.tanh(table[places]), rtol=1e-6)
    places[7, 11] = 50
    with pytest.raises(gd.GraphIndexError, match="out of bounds"):
        f(table, places)
    places[7, 11] = 49
    np.testing.assert_allclose(f(table, places), np.tanh(table[places]), rtol=1e-6)


def test_steps_whose_loops_keep_what_nobody_counted() -> None:
    """The stacks of a while loop's gradient grow in each thread's own memory."""

    def halved(x: Any) -> Any:
        return gd.while_loop(lambda x: np.sum(x * x) > 1, lambda x: np.sin(x) * 0.7, x)

    xs = normal(11, 500, dtype="float64") * np.arange(1, 12)[:, None]
    f = gd.compile(lambda xs: gd.map(gd.grad(lambda x: np.sum(halved(x))), xs))
    assert runs_side_by_side(f.lower(xs))[0]
    (found,) = same_for_any_threads(lambda: f(xs))
    one = gd.compile(gd.grad(lambda x: np.sum(halved(x))))
    np.testing.assert_allclose(found, [one(x) for x in xs], rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("tokens", "depth"), [(127, 17), (129, 64), (250, 16)])
def test_heads_of_attention(
    tokens: int, depth: int, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Masked, biased, of odd lengths and widths: values, and gradients by finite differences."""
    from graphdl.compiler import regions

    monkeypatch.setattr(regions, "LARGE", 60 << 10)
    monkeypatch.setattr(regions, "BLOCK", 30 << 10)
    monkeypatch.setattr(regions, "SHALLOW", 1)
    q, k, v = (normal(7, tokens, depth, dtype=dtype) + i for i in range(3))
    mask = np.tri(tokens, dtype=bool)
    f, slope = gd.compile(masked), gd.compile(gradient(masked))
    assert runs_side_by_side(f.lower(q, k, v, mask))[0]
    assert sum(runs_side_by_side(slope.lower(q, k, v, mask))) >= 2
    exact = [x.astype("f8") for x in (q, k, v)]
    close = {"rtol": 2e-5, "atol": 2e-5} if dtype == "float32" else {"rtol": 1e-11, "atol": 1e-12}
    (found,) = same_for_any_threads(lambda: f(q, k, v, mask))
    np.testing.assert_allclose(found, masked(*exact, mask), **close)
    _, *slopes = same_for_any_threads(lambda: slope(q, k, v, mask))

    def value(*arguments: Any) -> float:
        return float(np.sum(np.sin(masked(*arguments, mask))))

    for place, got in enumerate(slopes):
        direction = normal(*got.shape, dtype="f8")
        ends = []
        for end in (1e-5, -1e-5):
            moved = [x + end * direction if i == place else x for i, x in enumerate(exact)]
            ends.append(value(*moved))
        difference, tolerance = (ends[0] - ends[1]) / 2e-5, 2e-3 if dtype == "float32" else 1e-6
        np.testing.assert_allclose(np.sum(got * direction), difference, rtol=tolerance, atol=1e-4)


@pytest.fixture
def heads(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Attention whose heads run side by side, and arguments."""
    another = os.urandom(32)
    monkeypatch.setattr(plan, "_makers", lambda: another)
    xs, w = normal(8, 30, 40), normal(40, 40)
    f = gd.compile(of_rows)
    executable = f.lower(xs, w)
    assert runs_side_by_side(executable) == [True]
    return executable, (xs, w), np.asarray(executable(xs, w))


def pointer(array: Any) -> Any:
    return (ctypes.c_void_p * 1)(array.ctypes.data)


def test_other_ways_to_call_it(heads: Any, tmp_path: Any) -> None:
    """From a file, from a plan of another process, and by a pointer, as from Numba."""
    executable, (xs, w), want = heads
    gd.set_num_threads(CORES)
    executable.save(tmp_path / "heads")
    np.testing.assert_array_equal(gd.load(tmp_path / "heads")(xs, w), want)
    again = gd.compile(lambda xs, w: of_rows(xs, w)).lower(xs, w)
    assert "plan" in again.seconds
    np.testing.assert_array_equal(again(xs, w), want)
    out = np.empty_like(want)
    call = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(executable.address)
    assert call((ctypes.c_void_p * 2)(xs.ctypes.data, w.ctypes.data), pointer(out)) == 0
    np.testing.assert_array_equal(out, want)


def test_what_is_told_of_it(heads: Any) -> None:
    """A body is one, however many threads run it; its memory counts for each of them."""
    executable, (xs, w), _ = heads
    (launch,) = loops(executable)
    assert len(launch.bodies) == CORES
    assert len(launch.programs) == 1
    own = launch.bodies[0].memory.own_bytes
    assert executable.memory.bodies_bytes == CORES * own
    explained = executable.explain()
    assert [body.name for body in explained.bodies] == ["body"]
    assert "scan_side_by_side" in str(explained)
    report = executable.profile(xs, w, calls=5)
    (kernel,) = (kernel for kernel in report.kernels if kernel.body)
    assert all(inner.runs == 8 for inner in kernel.body)
    for sample in (kernel.seconds, kernel.median):
        assert sample > 0
    assert executable.source.count("# body 0") == 1
