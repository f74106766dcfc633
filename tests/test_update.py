"""Updates and scatters compiled: in place where nothing reads the old array, right everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphdl as gd
from graphdl.kernels import memory
from graphdl.ops.update import scatter, update
from tests.programs import check_compiled, lower, program_of
from tests.test_memory import check_plan

RNG = np.random.default_rng(0)
N = 1000


def put(x: Any, start: int, values: Any, step: int = 1) -> Any:
    return update(x, values, starts=(start,), steps=(step,))


def at(x: Any, index: Any, values: Any, mode: str = "set", unique: bool = False) -> Any:
    window = {"axes": (0,), "starts": (0,) * x.ndim, "steps": (1,) * x.ndim}
    return scatter(x, values, index, **window, mode=mode, unique=unique)


def names(executable: Any) -> list[str]:
    return [kernel.name for kernel in executable.kernels]


def check(f: Any, *args: Any, kept: int) -> Any:
    """f compiled is f, and `kept` launches copy what updates leave as it is."""
    executable = check_compiled(f, *args)
    check_plan(program_of(gd.trace(f, *args)))
    assert names(executable).count("keep") == kept, executable.explain()
    return executable


X, Y = RNG.normal(size=N), RNG.normal(size=N)


def test_many_updates_of_one_array_copy_nothing():
    def f(x, y):
        x = np.sin(x)
        for start in (0, 10, 20):
            x = put(x, start, np.exp(y[start : start + 3]))
        return x

    assert len(check(f, X, Y, kept=0).kernels) == 4


def test_an_argument_is_copied_once_and_not_where_it_is_donated():
    def f(x, y):
        return put(put(x, 3, y[:5]), 990, y[5:10], -2)

    check(f, X, Y, kept=1)
    given = lower(f, X, Y, donate=0)
    assert "keep" not in names(given)


def test_what_a_kernel_replaces_it_may_read():
    """x[5:10] += y in one kernel, in place."""

    def f(x, y):
        x = np.sin(x)
        return put(x, 5, x[5:10] * 2 + y[:5])

    assert len(check(f, X, Y, kept=0).kernels) == 2


def test_neighbours_of_a_small_window_are_read_before_it_is_written():
    def f(x, y):
        x = np.sin(x)
        return put(x, 5, x[4:9] + y[:5])

    assert len(check(f, X, Y, kept=0).kernels) == 3
    check(lambda x, y: put(np.sin(x), 5, np.sin(x)[3:8]), X, Y, kept=0)


def test_a_stencil_on_the_inside_is_one_pass_into_a_new_array():
    def f(x, y):
        x = np.sin(x)
        return put(x, 1, (x[2:] + x[:-2]) / 2)

    executable = check(f, X, Y, kept=2)  # the two ends
    assert len(executable.kernels) == 4
    assert executable.kernels[1].bytes < 100


def test_an_array_that_is_read_later_is_kept():
    def f(x, y):
        x = np.sin(x)
        z = put(x, 5, y[:5])
        return z, np.cumsum(x + np.sum(z))

    check(f, X, Y, kept=1)


def test_readers_of_the_old_array_run_before_it_is_overwritten():
    def f(x, y):
        x = np.sin(x)
        z = put(x, 5, y[:5])
        return z, np.cumsum(x)

    check(f, X, Y, kept=0)


@pytest.mark.parametrize("window", [np.s_[..., 1], np.s_[:, 2, :], np.s_[1:-1, ::-1, 2:]])
@pytest.mark.parametrize("shape", [(40, 5, 3), (3, 5, 40), (2, 3, 4)])
def test_what_is_around_a_part_is_copied(shape, window):
    """In a few long loops, or all of the array where that touches no more memory."""
    x = RNG.normal(size=shape)
    part = x[window] * 2

    def f(x, part):
        x[window] = part
        return x

    compiled = gd.compile(f)
    np.testing.assert_array_equal(compiled(x, part), f(x.copy(), part))
    transposed = gd.compile(lambda x, part: f(x.T.copy().T, part))
    np.testing.assert_array_equal(transposed(x, part), f(x.copy(), part))
    assert names(compiled.lower(x, part)).count("keep") <= 3


def test_sums_of_rows_are_added_in_place():
    def f(x, y):
        x = np.sin(x)
        for start in (0, 4):
            x = put(x, start, x[start : start + 5] + np.sum(y.reshape(5, -1), axis=1))
        return x

    check(f, X, Y, kept=0)


def test_the_inside_of_a_grid():
    def f(a, b):
        for _ in range(2):
            inside = (a[1:-1, 1:-1] + a[:-2, 1:-1] + a[2:, 1:-1] + a[1:-1, 2:] + a[1:-1, :-2]) / 5
            b = update(b, inside, starts=(1, 1), steps=(1, 1))
            a = update(a, b[1:-1, 1:-1] - b[1:-1, :-2], starts=(1, 1), steps=(1, 1))
        return a, b

    a, b = RNG.normal(size=(2, 20, 30))
    executable = check(f, a, b, kept=8)
    assert len(executable.kernels) - 8 <= 4
    given = lower(f, a, b, donate=(0, 1))
    assert names(given).count("keep") == 0


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "bool"])
@pytest.mark.parametrize("mode", ["set", "add", "multiply", "maximum", "minimum"])
def test_scatters_of_every_dtype(mode, dtype):
    x = (RNG.normal(size=(7, 4)) * 3).astype(dtype)
    v = (RNG.normal(size=(5, 4)) * 3).astype(dtype)
    k = np.array([3, 0, 3, 6, 3])

    def f(x, v, k):
        return at(x, k, v, mode), at(x[0], k[:3] * 0 + 1, v[0, :3], mode)

    check_compiled(f, x, v, k)


def test_scatters_in_place_and_out_of_bounds():
    def f(x, k, y):
        x = np.sin(x)
        for i in range(3):
            x = at(x, k[i], np.cos(y[i]), unique=True)
        return at(x, k, y[:3], "add")

    k = np.array([5, 3, 5])
    check(f, X, k, Y, kept=0)
    with pytest.raises(IndexError, match="out of bounds"):
        gd.compile(f)(X, np.array([5, 3, N]), Y)


def test_a_scatter_of_its_own_rows():
    def f(x, k):
        x = np.sin(x)
        return at(at(x, k, x[1:3]), k[0], x[4])

    check(f, RNG.normal(size=(6, 5)), np.array([3, 2]), kept=0)


def test_the_gradient_of_an_update_costs_the_update():
    def f(x, k, y):
        def loss(x, y):
            for i in range(3):
                x = at(x, k[i], x[k[i]] * y[i], unique=True)
            return np.sum(np.sin(x))

        return gd.grad(loss, (0, 1))(x, y)

    executable = check_compiled(f, X, np.array([5, 3, 5]), Y, numpy=False)
    large = [kernel.name for kernel in executable.kernels if kernel.bytes > 4 * N]
    assert large == ["keep", "cos", "pad"], large


@pytest.mark.parametrize("mode", ["set", "add", "multiply", "maximum", "minimum"])
def test_the_gradient_of_a_scatter_to_one_place(mode):
    x, v, k = RNG.normal(size=4), RNG.normal(size=5), np.array([1, 3, 1, 1, 0])
    gd.check_grads(lambda x, v: np.sum(np.sin(at(x, k, v, mode))), x, v)


def test_the_gradient_of_a_product_with_zeros():
    x, v, k = np.array([2.0, 3.0]), np.array([0.0, 5.0, 0.0, 7.0]), np.array([0, 0, 1, 1])
    gradient = gd.grad(lambda v, x: np.sum(at(x, k, v, "multiply")))(v, x)
    np.testing.assert_array_equal(gradient, [10.0, 0.0, 21.0, 0.0])


@pytest.mark.parametrize("batched", [(0, 0, 0), (0, None, None), (None, 0, None), (None, None, 0)])
def test_scatters_of_a_batch(batched):
    x, v, k = RNG.normal(size=(3, 6, 2)), RNG.normal(size=(3, 4, 2)), RNG.integers(0, 6, (3, 4))
    args = [a if axis == 0 else a[0] for a, axis in zip((x, v, k), batched, strict=True)]

    def f(x, v, k):
        return at(x, k, v), at(x, k, v, "add"), update(x, v, starts=(1, 1), steps=(1, -1))

    got = gd.vmap(f, in_axes=batched)(*args)
    one = [
        f(*(a[i] if axis == 0 else a for a, axis in zip(args, batched, strict=True)))
        for i in range(3)
    ]
    for i, result in enumerate(got):
        np.testing.assert_allclose(result, np.stack([results[i] for results in one]), 1e-12)


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 2**32))
def test_any_program_of_updates(seed):
    """Random updates, reads and scatters of a few arrays: values as in NumPy, memory sound."""
    rng = np.random.default_rng(seed)
    shape = (6, 7)
    plans = [tuple(int(v) for v in rng.integers(0, 1000, 12)) for _ in range(8)]

    def f(a, b, k):
        arrays = [np.sin(a), b, a * b]
        for which, other, kind, r0, r1, c0, c1, dr, dc, *_ in plans:
            x, y = arrays[which % 3], arrays[other % 3]
            rows, cols = 1 + r1 % 4, 1 + c1 % 5
            start = (r0 % (7 - rows), c0 % (8 - cols))
            i, j = dr % (7 - rows), dc % (8 - cols)
            read = y[i : i + rows, j : j + cols]
            if kind % 4 == 0:
                x = update(x, read * 2 + 1, starts=start, steps=(1, 1))
            elif kind % 4 == 1:
                x = update(x, read, starts=start, steps=(1, 1))
            elif kind % 4 == 2:
                x = at(x, k, y[:3] + x[3:], ("set", "add")[r0 % 2])
            else:
                x = x + np.sum(y, axis=0)
            arrays[which % 3] = x
        return arrays

    a, b = rng.normal(size=(2, *shape))
    k = rng.integers(0, 6, 3)
    graph = gd.trace(f, a, b, k)
    donated = (0, 1) if seed % 2 else ()
    check_plan(program_of(graph), donated)
    for got, want in zip(graph.evaluate(a, b, k), f(a, b, k), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)
    if seed % 8 == 0:
        check_compiled(f, a, b, k, separate=False)


def test_what_is_not_there_is_not_copied():
    made = program_of(gd.trace(lambda x: put(np.sin(x), 0, np.cos(x[:3])), X))
    plan = memory.plan(made)
    assert [memory.is_idle(launch, plan) for launch in made.launches].count(True) == 1
