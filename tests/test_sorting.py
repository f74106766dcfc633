"""Sorting, searching, running values: kernels of every dtype, gradients, batches, NumPy's names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphdl as gd
from graphdl.kernels.cpu import native
from graphdl.ops import cumulative, sorting
from graphdl.types import DTYPES
from tests.helpers import call_of, calls, check
from tests.programs import check_compiled

RNG = np.random.default_rng(23)


def numbers(dtype: Any, *shape: int) -> Any:
    """Numbers with many ties; of floats also NaN of both signs, infinities and both zeros."""
    dtype = np.dtype(dtype)
    if dtype.kind != "f":
        info = np.iinfo(dtype) if dtype.kind in "iu" else None
        x = RNG.integers(0, 2 if info is None else 9, shape).astype(dtype)
        if info is not None and x.size > 4:
            x.flat[[1, 3]] = info.min, info.max
        return x
    x = np.round(RNG.normal(size=shape), 1).astype(dtype)
    special = [np.nan, -np.inf, 0.0, -0.0, np.inf, np.copysign(np.nan, -1)]
    places = RNG.permutation(x.size)[: len(special)]
    x.flat[places] = special[: len(places)]
    return x


def same_order(x: Any) -> Any:
    """What argsort must give: NumPy's own."""
    return np.argsort(x, axis=-1, kind="stable")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_kernels_of_sorts_and_searches(dtype):
    """Lines short and long, one and several, through all ways to run a program."""
    arrays = [numbers(dtype, *shape) for shape in ((5,), (3, 7), (1, 1), (2, 150), (3, 0))]
    wanted = [numbers(dtype, *x.shape[:-1], 4) for x in arrays]

    def f(arrays, wanted):
        return [
            (
                sorting.sort(x),
                sorting.argsort(x + x if x.dtype.kind == "f" else x),
                *(sorting.searchsorted(sorting.sort(x), v, side=s) for s in ("left", "right")),
            )
            for x, v in zip(arrays, wanted, strict=True)
        ]

    check_compiled(f, arrays, wanted, separate=False, python=dtype.name in PYTHON)


PYTHON = ("float32", "float64", "int64", "uint8", "bool")


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
def test_searches_of_many_values(dtype):
    """Several lines in one block of values, and several blocks in one line; lines of any length."""
    shapes = [((n,), (300,)) for n in (0, 1, 2, 3, 8, 31)]
    shapes += [((3, 7), (3, 150)), ((300, 5), (300, 1)), ((2, 3, 64), (2, 3, 50)), ((2, 0), (2, 3))]
    lines = [np.sort(numbers(dtype, *line)) for line, _ in shapes]
    wanted = [numbers(dtype, *values) for _, values in shapes]

    def f(lines, wanted):
        return [
            [sorting.searchsorted(x, v, side=side) for side in ("left", "right")]
            for x, v in zip(lines, wanted, strict=True)
        ]

    check_compiled(f, lines, wanted, separate=False, python=dtype == "float32")
    for x, v, found in zip(lines, wanted, gd.compile(f)(lines, wanted), strict=True):
        rows = np.ndindex(x.shape[:-1])
        want = [
            [np.searchsorted(x[row], v[row], side) for side in ("left", "right")] for row in rows
        ]
        got = np.stack(found, -2).reshape(-1, 2, v.shape[-1])
        np.testing.assert_array_equal(got, np.reshape(want, got.shape))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
def test_many_lines_are_sorted_in_parts(dtype):
    """More lines than parts, and lines whose keys share bytes."""
    x = RNG.integers(0, 300, (37, 3, 60)).astype(dtype)
    for _ in range(2):
        np.testing.assert_array_equal(gd.compile(np.sort)(x), np.sort(x))
    got = gd.compile(lambda x: np.argsort(x, kind="stable"))(x)
    np.testing.assert_array_equal(got, same_order(x))


def test_sorting_keeps_zeros_and_equals_apart():
    """sort gives back the same multiset of bits but for NaN; argsort takes both zeros as equal."""
    x = np.array([0.0, -0.0, 0.0, 1.0, -0.0] * 20)
    assert np.signbit(gd.compile(np.sort)(x)).sum() == 40
    np.testing.assert_array_equal(gd.compile(np.argsort)(x), same_order(x))


def test_one_sort_serves_values_and_order():
    """np.sort beside np.argsort, as in the gradient of a sort, runs one sorting kernel."""
    x = RNG.normal(size=(3, 50))

    def f(x):
        return np.sort(x) ** 2 @ np.arange(50.0), np.argsort(x)

    executable = check_compiled(f, x)
    names = [kernel.name for kernel in executable.kernels]
    assert names.count("argsort") == 1
    assert "sort" not in names
    slope = gd.grad(lambda x: np.sum(np.sort(x) ** 2 * np.arange(50)))
    expected = np.zeros_like(x)
    np.put_along_axis(expected, same_order(x), 2 * np.sort(x) * np.arange(50), -1)
    np.testing.assert_allclose(slope(x), expected)


def test_new_sizes_compile_no_kernel():
    @gd.compile
    def f(x):
        return np.sort(x), np.argsort(x * 2), np.maximum.accumulate(x, axis=1), x[:, ::-1]

    f(RNG.normal(size=(2, 5)))
    before = native.compile_count()
    for shape in ((1, 9), (3, 64), (50, 41), (100, 7)):
        f(RNG.normal(size=shape))
        assert native.compile_count() == before, shape


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d.kind != "b"], ids=str)
def test_the_kernels_of_running_values(dtype):
    x = numbers(dtype, 3, 5, 4)
    x = np.where(np.abs(x.astype(float)) > 3, 2, x).astype(dtype)  # NaN stay
    y = numbers(dtype, 3, 5, 4)

    def f(x, y):
        return [
            (
                cumulative.cummax(x, axis=axis),
                cumulative.cummin(x, axis=axis),
                cumulative.recurrence(x, y, axis=axis, reverse=False),
                cumulative.recurrence(x, y, axis=axis, reverse=True),
            )
            for axis in (0, 1, 2)
        ]

    check_compiled(f, x, y, ulps=64, separate=False, python=dtype.name in PYTHON)


def test_a_recurrence_does_not_read_the_first_factor():
    a, b = np.array([np.nan, 2.0, 3.0]), np.array([1.0, 1.0, np.inf])
    f = gd.compile(lambda a, b: cumulative.recurrence(a, b, axis=0, reverse=False))
    np.testing.assert_array_equal(f(a, b), [1.0, 3.0, np.inf])
    da, db = gd.grad(lambda a, b: f(a, b)[1] * 1.0, argnums=(0, 1))(a, b)
    np.testing.assert_array_equal(da, [0.0, 1.0, 0.0])
    np.testing.assert_array_equal(db, [2.0, 1.0, 0.0])


def test_running_products_have_exact_gradients_at_zeros():
    x = np.array([2.0, 0.0, 3.0, 0.0, 5.0])
    slope = gd.grad(lambda x: np.sum(np.cumprod(x)))(x)
    np.testing.assert_array_equal(slope, [1.0, 2.0 + 6.0, 0.0, 0.0, 0.0])
    gd.check_grads(lambda x: np.cumprod(x, axis=1), np.array([[1.0, 0.0, 2.0], [0.0, 0.0, 1.0]]))


def test_the_first_of_equals_gets_the_gradient_of_a_running_extremum():
    x = np.array([1.0, 1.0, 3.0, 3.0, 2.0])
    slope = gd.grad(lambda x: np.sum(np.maximum.accumulate(x)))(x)
    np.testing.assert_array_equal(slope, [2.0, 0.0, 3.0, 0.0, 0.0])


def test_batches():
    """vmap of each op over either operand is the loop over examples."""
    x, v, w = RNG.normal(size=(4, 6)), RNG.normal(size=(4, 3)), RNG.normal(size=6)
    each = {
        "sort": (lambda x: (np.sort(x), np.argsort(x)), (x,), 0),
        "running": (lambda x: np.maximum.accumulate(x), (x,), 0),
        "recurrence": (
            lambda x, w: cumulative.recurrence(x, w, axis=0, reverse=True),
            (x, w),
            (0, None),
        ),
        "searched": (lambda x, v: np.searchsorted(np.sort(x), v), (x, v), 0),
        "one line": (lambda w, v: np.searchsorted(np.sort(w), v, "right"), (w, v), (None, 0)),
        "one value": (lambda x, v: np.searchsorted(np.sort(x), v), (x, 0.3), (0, None)),
        "top": (lambda x: gd.top_k(x, 2), (x,), 0),
    }

    for name, (f, args, axes) in each.items():
        flags = [a == 0 for a in (axes if isinstance(axes, tuple) else (axes,) * len(args))]
        got = gd.vmap(f, in_axes=axes)(*args)
        rows = [
            gd.compile(f)(*(a[i] if flag else a for a, flag in zip(args, flags, strict=True)))
            for i in range(4)
        ]
        for part, one in zip(_tuple(got), zip(*map(_tuple, rows), strict=True), strict=True):
            np.testing.assert_array_equal(part, np.stack(one), err_msg=name)


def _tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


# --- NumPy's names --------------------------------------------------------------------------------

CALLS = """
np.sort(x)    np.sort(x, axis=0)    np.sort(x, None)    np.sort(c, 1, kind="stable")
np.sort(n, 0)    np.sort(i8)    np.sort(b, axis=0)    np.sort(o)    np.sort(x, stable=True)
np.argsort(x, kind="stable")    np.argsort(c, axis=0)    np.argsort(i, None, kind="stable")
np.argsort(n, axis=1, stable=True)    x.argsort()    x.argsort(0)    np.argsort(o, axis=0)
np.sort(np.partition(x, 2), -1)    np.partition(x, (0, -1))[:, [0, -1]]    np.partition(v, 3)[3]
np.take_along_axis(x, np.argpartition(x, 1), 1)[:, 1]
np.lexsort((v, k4))    np.lexsort((x, i), axis=0)    np.lexsort(i)
np.searchsorted(e, x)    np.searchsorted(e, x, "right")    np.searchsorted(e, 0.3)
np.searchsorted(e, n)    np.searchsorted(v, x, sorter=np.argsort(v))    e.searchsorted(x)
np.searchsorted(np.sort(k), x)    np.searchsorted(e[:0], x)    np.searchsorted(e, o)
np.searchsorted(e, i)    np.searchsorted(np.sort(b[0]), b)    np.searchsorted(np.arange(3), x)
np.digitize(x, e)    np.digitize(x, e, right=True)    np.digitize(x, e[::-1])
np.digitize(x, e[::-1], True)    np.digitize(x, [-1, 0, 1])    np.digitize(x, [1, 0, -1], True)
np.digitize(x, np.array([0.5]))    np.digitize(n, e)    np.digitize(x, e[:1])
np.isin(i, k)    np.isin(i, [1, 2, 99], invert=True)    np.isin(x, x[0])    np.isin(n, n)
np.isin(i8, i)    np.isin(i, [])    np.isin(3, i)    np.isin(b, b[0])    np.isin(o, x)
np.cumprod(x, axis=0)    np.cumprod(b)    np.cumsum(b, dtype=bool)    np.cumprod(b, 1, bool)
np.cumprod(n)    np.maximum.accumulate(n, axis=1)    np.minimum.accumulate(n)
np.maximum.accumulate(b)    np.fmax.accumulate(n, 1)    np.multiply.accumulate(i, axis=1)
np.maximum.accumulate(i, dtype=float)    np.minimum.accumulate(u, 1)    np.nancumprod(n, axis=0)
np.cumulative_sum(v)    np.cumulative_sum(x, axis=0)    np.cumulative_prod(x, axis=1)
np.cumulative_sum(x, axis=1, include_initial=True)    np.cumulative_prod(i8, axis=0, dtype=float)
np.cumulative_prod(x, axis=-1, include_initial=True)    np.cumulative_sum(o, axis=1)
"""


def values(dtype: str) -> dict[str, Any]:
    """The arrays that the calls name."""
    rng = np.random.default_rng(7)
    n = np.array([[np.nan, 1, -np.inf, 0.5], [np.inf, -2, 0, -0.0], [3, 1, 2, np.nan]])
    given = {
        "x": rng.normal(size=(3, 4)),
        "y": rng.normal(size=(3, 4)),
        "c": rng.normal(size=(2, 3, 4)),
        "v": rng.normal(size=4),
        "e": np.array([-1.0, -0.25, 0.0, 0.0, 1.5]),
        "n": n,
        "o": np.zeros((3, 0)),
    }
    given = {name: value.astype(dtype) for name, value in given.items()}
    return given | {
        "b": rng.random((3, 4)) < 0.5,
        "i": rng.integers(-4, 5, (3, 4)),
        "i8": rng.integers(-100, 100, (3, 4)).astype(np.int8),
        "u": rng.integers(0, 200, (3, 4)).astype(np.uint8),
        "k": np.array([2, 0, 1]),
        "k4": np.array([2, 0, 1, 0]),
    }


#: Where older versions of NumPy lack something, or err.
NEWER = {"2.1": ("np.cumulative_",)}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("text", calls(CALLS, NEWER))
def test_a_call_is_what_numpy_computes(text, dtype):
    f, args = call_of(text, values(dtype))
    check(f, args, exact="cum" not in text and "accumulate" not in text)


COMPOSED = """
np.sort(x, axis=0) ** 2 @ v    np.sort(c, None) * np.arange(24)    np.cumprod(x, axis=1)
np.cumprod(x * (x > 0), axis=0)    np.partition(v, 2)[2] ** 2    gd.top_k(x, 2)[0] ** 2
np.maximum.accumulate(x, axis=1) ** 2    np.minimum.accumulate(c, axis=1) * c
np.fmax.accumulate(x) ** 2    np.sort(x @ x.T) ** 3    np.cumulative_prod(v, include_initial=True)
np.take_along_axis(x, np.argsort(x, axis=0), 0) ** 2
"""


@pytest.mark.parametrize("text", calls(COMPOSED, NEWER))
def test_gradients(text):
    f, args = call_of(text, values("float64"), gd=gd)
    gd.check_grads(f, *args)


def test_arrays_are_sorted_in_place():
    def f(x):
        y = x * 2
        y.sort(axis=0)
        z = y.copy()
        z.partition(1)
        return y, z

    x = RNG.normal(size=(3, 4))
    for got, want in zip(gd.compile(f)(x), f(x), strict=True):
        np.testing.assert_array_equal(np.sort(got), np.sort(want))
    np.testing.assert_array_equal(gd.compile(f)(x)[0], f(x)[0])


def test_top_k():
    x = np.array([[3.0, np.nan, 3.0, 5.0], [1.0, -np.inf, 2.0, 2.0]])
    for f in (lambda x: gd.top_k(x, 3), gd.compile(lambda x: gd.top_k(x, 3))):
        top, at = f(x)
        np.testing.assert_array_equal(top, [[5.0, 3.0, 3.0], [2.0, 2.0, 1.0]])
        np.testing.assert_array_equal(at, [[3, 0, 2], [2, 3, 0]])
    for dtype in ("int8", "uint64", "bool"):
        whole = numbers(dtype, 3, 9)
        top, at = gd.top_k(whole.T, 4, axis=0)
        np.testing.assert_array_equal(top, np.sort(whole.T, axis=0)[::-1][:4])
        np.testing.assert_array_equal(np.take_along_axis(whole.T, at, 0), top)
        np.testing.assert_array_equal(gd.compile(lambda x: gd.top_k(x, 4, 0)[1])(whole.T), at)
    with pytest.raises(gd.ShapeError, match="k=5 of the 4 along axis 1"):
        gd.top_k(x, 5)
    with pytest.raises(gd.AxisError):
        gd.top_k(x, 1, axis=2)


ERRORS = [
    (lambda x: np.sort(x, axis=2), gd.AxisError, "np.sort: axis 2 is out of bounds"),
    (lambda x: np.sort(x, kind="bogo"), gd.ArgumentError, "kind='bogo'"),
    (lambda x: np.sort(x, order="f"), gd.UnsupportedError, "structured"),
    (lambda x: np.partition(x, 4), gd.ShapeError, "kth=4 is out of bounds for 4"),
    (lambda x: np.searchsorted(x, 1.0), gd.ShapeError, "one axis"),
    (lambda x: np.searchsorted(x[0], x, "middle"), gd.ArgumentError, "'left' or 'right'"),
    (lambda x: np.digitize(x, [0, 2, 1]), gd.ArgumentError, "monotonically"),
    (lambda x: np.digitize(x, x), gd.ShapeError, "bins must have one axis"),
    (lambda x: np.lexsort((x, x[0])), gd.ShapeError, "alike"),
]
if hasattr(np, "cumulative_sum"):  # NumPy 2.1
    ERRORS.append((np.cumulative_sum, gd.ShapeError, "several axes: choose one"))


@pytest.mark.parametrize(("f", "error", "text"), ERRORS)
def test_errors(f, error, text):
    with pytest.raises(error, match=text):
        gd.trace(f, np.ones((3, 4)))
