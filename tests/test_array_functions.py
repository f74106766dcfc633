"""Padding, inserting, choosing, positions, methods of ufuncs, and what fills arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphdl as gd
from tests.helpers import call_of, calls, check, same
from tests.programs import check_compiled

CALLS = """
# padding
np.pad(x, 2, "maximum")    np.pad(x, ((1, 2), (3, 0)), "minimum", stat_length=2)
np.pad(x, 1, "mean")    np.pad(i, 2, "mean")
np.pad(x, (2, 1), "median", stat_length=((1, 2), (3, 9)))
np.pad(x, 3, "linear_ramp")    np.pad(x, (2, 0), "linear_ramp", end_values=((1, 2), (3, 4)))
np.pad(i, 2, "linear_ramp", end_values=5)    np.pad(x, 2, "reflect", reflect_type="odd")
np.pad(v, (9, 13), "reflect", reflect_type="odd")    np.pad(v, 3, "symmetric", reflect_type="odd")
np.pad(v, (11, 7), "symmetric", reflect_type="odd")
np.pad(i, (5, 6), "reflect", reflect_type="odd")
np.pad(v[:1], 2, "reflect", reflect_type="odd")    np.pad(v[:1], 2, "symmetric", reflect_type="odd")
np.pad(x, {0: 1}, "edge")    np.pad(x, ((0, 0), (2, 1)), "maximum")    np.pad(b, 1, "maximum")
np.pad(x, {-1: (2, 0)})    np.pad(x, 1, "constant", constant_values=s)    np.pad(v, 11, "wrap")
np.pad(x, 0, "mean")    np.pad(o, ((1, 1), (0, 0)), "edge")    np.pad(i8, 1, "median")
# inserting
np.insert(v, 2, 7)    np.insert(v, [0, 2, 2], [1, 2, 3])    np.insert(x, 1, v, axis=0)
np.insert(x, 1, 5, axis=1)    np.insert(x, 2, z, axis=1)    np.insert(x, [1], z[:, None], axis=1)
np.insert(x, slice(0, 4, 2), 9, axis=1)    np.insert(x, -1, s)    np.insert(x, 0, y[:2], axis=0)
np.insert(x, [1, 3], z[:, None], axis=1)    np.insert(v, [], 1.0)    np.insert(i, 1, 2.7, 0)
np.insert(x, np.array([True, False, True]), 0, axis=0)    np.insert(x, [2], y, axis=0)
np.insert(v, [1], [5, 6])    np.insert(x, 1, [[7], [8], [9]], axis=1)
np.resize(x, (2, 7))    np.resize(v, 11)    np.resize(x, ())    np.resize(o, (2, 2))
np.resize(x, 5)
np.resize(s, (2, 3))    np.resize(x, 0)    np.resize(i, (4, 4))
# choosing
np.choose(k, [v[:3], z, 2 * z])    np.choose(i % 2, (x, y))    np.choose(i, [x, y, 1], mode="wrap")
np.choose(i, [x, y], mode="clip")    np.choose(i % 3, [1, 2, 3])    k.choose([z, z, z])
np.choose(b * 1, x[:2, :1])    np.choose([[1], [0]], [v, x[0]])
np.piecewise(x, [x < 0, x > 1], [np.negative, np.square])    np.piecewise(x, [b], [1, 2])
np.piecewise(x, [x < 0], [lambda x: -x, lambda x: 2 * x])    np.piecewise(s, s > 0, [1, 2])
np.piecewise(v, v > 0, [lambda x, p: x * p], 3)    np.piecewise(i, [i > 0, i > 3], [1, 2, -1])
np.piecewise(v, [1, 0, 1, 1], [7])
np.piecewise(x, [x > 0, x > 1], [1.5, 2.5, lambda x, k=2: x / k])
# positions
np.unravel_index(k, (2, 3))    np.unravel_index(i % 6, (2, 3), order="F")    np.unravel_index(k, 9)
np.ravel_multi_index((k, k), (3, 4))    np.ravel_multi_index((k, k), (3, 4), order="F")
np.ravel_multi_index((i, i), (3, 4), mode="wrap")
np.ravel_multi_index((i, k[0]), (3, 4), ("clip", "wrap"))
np.ix_(k, k[:2])    x[np.ix_(k, [True, False, True, True])]    np.ix_(k)    np.tril_indices_from(x)
np.triu_indices_from(x, 1)    x[np.diag_indices_from(x[:, :3])]    np.diag_indices_from(x[:, :3])
np.packbits(b)    np.packbits(b, axis=1)    np.packbits(i % 2, axis=0, bitorder="little")
np.unpackbits(u)    np.unpackbits(u, axis=1, count=11)
np.unpackbits(u, axis=0, bitorder="little")
np.unpackbits(u, count=-3)    np.packbits(u[:0])    np.unpackbits(u[0], count=40)
# methods of ufuncs
np.fmax.reduce(n)    np.fmin.reduce(n, axis=1)    np.bitwise_and.reduce(i)
np.gcd.reduce(i, axis=1)
np.bitwise_xor.reduce(i8, axis=(0, 1))    np.hypot.reduce(x, axis=None)    np.logical_xor.reduce(b)
np.logaddexp.reduce(x, axis=1, keepdims=True)    np.logaddexp2.reduce(x)    np.lcm.reduce(k)
np.bitwise_or.reduce(i, where=b)    np.fmax.reduce(x, initial=0.5, where=b)
np.gcd.reduce(o8, axis=1)
np.subtract.reduce(x)    np.subtract.reduce(x, axis=1, keepdims=True)    np.divide.reduce(x)
np.logaddexp.reduce(o, axis=1)    np.bitwise_and.reduce(b)    np.maximum.reduce(x, dtype="float64")
np.add.reduceat(v, [0, 2])    np.add.reduceat(x, [0, 1, 3], axis=1)
np.add.reduceat(v, [2, 0, 1, 1])
np.multiply.reduceat(x, [0, 2], axis=0)    np.maximum.reduceat(v, [0, 3, 1])
np.add.reduceat(i8, [1, 2])
np.logical_or.reduceat(b, [0, 1], axis=1)    np.add.reduceat(b, [0, 2])
np.fmin.reduceat(n, [0, 2], 1)
np.bitwise_or.accumulate(i, axis=1)    np.hypot.accumulate(x)    np.gcd.accumulate(i)
np.lcm.accumulate(k)    np.logical_xor.accumulate(b, 1)    np.logaddexp2.accumulate(x)
# filling
np.logspace(s, 2, 5)    np.logspace(0, v, 3, base=2)    np.logspace(s, 1, 3, endpoint=False)
np.logspace(0, 1, 4, base=abs(v) + 1)    np.logspace(s, 2, 4, dtype=int)
np.logspace(0, z, 3, axis=-1)
np.geomspace(abs(v), 9, 4)    np.geomspace(-1, -abs(v), 3)    np.geomspace(abs(s), 5, 1)
np.geomspace(abs(v), 9, 4, endpoint=False)    np.geomspace(abs(v), 9, 3, axis=1)
np.geomspace(1, 2, 0)
np.vander(v)    np.vander(z, 2)    np.vander(k, increasing=True)    np.vander(v, 0)
np.vander(z, 6)
np.astype(x, int)    np.array_equiv(x, x[None])    np.array_equiv(x, v)
np.array_equiv(x, k)    len(np.einsum_path("ij,jk,kl", x, x.T, x))
# functions of functions
np.apply_along_axis(np.sort, 0, x)    np.apply_along_axis(np.sum, 1, c)
np.apply_along_axis(lambda line: np.outer(line, line), 1, c)
np.apply_along_axis(np.var, -1, x, ddof=1)
np.apply_over_axes(np.sum, c, [0, 2])    np.apply_over_axes(np.max, c, 1)
"""


def values(dtype: str) -> dict[str, Any]:
    """The arrays that the calls name; those in `dtype`, and those of other kinds."""
    rng = np.random.default_rng(7)
    inf, nan = np.inf, np.nan
    given = {
        "x": rng.normal(size=(3, 4)),
        "y": rng.normal(size=(3, 4)),
        "c": rng.normal(size=(2, 3, 4)),
        "v": rng.normal(size=4),
        "z": rng.normal(size=3),
        "s": rng.normal(),
        "n": [[nan, 1, -inf, 0.5], [inf, -2, 0, -0.0], [3, 1, 2, nan]],
        "o": np.zeros((3, 0)),
    }
    typed = {name: np.asarray(value, dtype) for name, value in given.items()}
    return typed | {
        "b": rng.random((3, 4)) < 0.6,
        "i": rng.integers(-9, 9, (3, 4)),
        "i8": rng.integers(-100, 100, (3, 4)).astype(np.int8),
        "o8": np.zeros((3, 0), np.int8),
        "u": rng.integers(0, 200, (3, 4)).astype(np.uint8),
        "k": np.array([2, 0, 1]),
    }


#: Where older versions of NumPy lack something, or err.
NEWER = {"2.4": ("np.pad(x, {", "np.insert(x, np.array([True")}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("text", calls(CALLS, NEWER))
def test_a_call_is_what_numpy_computes(text, dtype):
    f, args = call_of(text, values(dtype))
    check(f, args, exact=False)


COMPOSED = """
np.pad(x, 2, "mean") ** 2    np.pad(x, 2, "linear_ramp", end_values=1) ** 2
np.pad(x, 1, "maximum") ** 2
np.pad(v, (9, 3), "reflect", reflect_type="odd") ** 2
np.pad(x, (1, 0), "median", stat_length=2) ** 2
np.insert(x, [0, 2], z[:, None], axis=1) ** 2    np.resize(x, (3, 9)) ** 2
np.choose(k, [z, z * z, 1 / z])    np.piecewise(x, [x < 0], [lambda x: x * x, np.exp])
np.hypot.reduce(x)    np.logaddexp2.reduce(x, 1)    np.subtract.reduce(x) ** 2
np.divide.reduce(x, 1)
np.add.reduceat(x, [0, 2], 1) ** 2    np.multiply.reduceat(x, [0, 1], 0)    np.vander(v, 3) ** 2
np.geomspace(abs(v), 3, 4) ** 2    np.logspace(0, v, 3, base=2)
np.logspace(0, 1, 3, base=abs(v) + 1)
np.apply_along_axis(np.cumprod, 0, x)    np.apply_over_axes(np.sum, c, [0, 2]) ** 2
"""


@pytest.mark.parametrize("text", calls(COMPOSED, NEWER))
def test_the_gradient_is_the_slope(text):
    rng = np.random.default_rng(5)
    given = values("float64") | {"x": rng.normal(size=(3, 4)), "v": rng.normal(size=4)}
    f, args = call_of(text, given)
    gd.check_grads(f, *args)


def test_compiled():
    given = values("float64")
    x, v, i, b, u = (given[name] for name in "xvibu")

    def f(x, v, i, b, u):
        return (
            np.pad(x, 2, "mean"), np.pad(x, 2, "linear_ramp"), np.pad(v, 9, "wrap"),
            np.pad(v, 9, "reflect", reflect_type="odd"), np.insert(x, [0, 2], 7, axis=1),
            np.resize(x, 17), np.choose(i % 2, (x, x * x)), np.unravel_index(i % 6, (2, 3)),
            np.packbits(b, axis=1), np.unpackbits(u, axis=1), np.gcd.reduce(i), np.vander(v),
            np.add.reduceat(x, [0, 2, 3], 1), np.maximum.reduceat(v, [2, 0]), np.logspace(v, 1, 3),
            np.apply_along_axis(np.sort, 0, x), np.geomspace(abs(v), 3, 4),
        )  # fmt: skip

    check_compiled(f, x, v, i, b, u, numpy=False, python=False, separate=False)


def test_odd_reflections_of_any_width():
    for n in (1, 2, 3, 5):
        x = np.random.default_rng(n).integers(-9, 9, n).astype(float)
        for width in ((0, 7), (8, 0), (3, 11), (12, 5)):
            for mode in ("reflect", "symmetric"):

                def f(x, width=width, mode=mode):
                    return np.pad(x, width, mode, reflect_type="odd")

                check(f, [x])


ERRORS = [
    (lambda x: np.pad(x, 1, "most"), gd.ArgumentError, "np.pad: mode='most'; it is one of"),
    (lambda x: np.pad(x, 1, "edge", stat_length=2), gd.ArgumentError, "takes no argument 'stat_l"),
    (lambda x: np.pad(x, 1, lambda *a: None), gd.UnsupportedError, "a function as mode"),
    (lambda x: np.pad(x, 1, "mean", stat_length=0), gd.ArgumentError, "stat_length=0"),
    (lambda x: np.pad(x[:0], 1, "edge"), gd.ShapeError, "has nothing to pad axis 0"),
    (lambda x: np.pad(x, 1, "reflect", reflect_type="left"), gd.ArgumentError, "'even' or 'odd'"),
    (lambda x: np.insert(x, 9, 1, axis=0), gd.GraphIndexError, "out of bounds"),
    (lambda x: np.insert(x, [0, 9], 1, axis=0), gd.GraphIndexError, "out of bounds"),
    (lambda x: np.insert(x, x[0, 0].astype(int), 1), gd.UnsupportedError, "positions must be"),
    (lambda x: np.insert(x, 1, np.ones(5), axis=0), gd.ShapeError, "do not fit"),
    (lambda x: np.resize(x, -1), gd.ShapeError, "negative size"),
    (lambda x: np.choose(x, [1, 2]), gd.DtypeError, "the index must be integers"),
    (lambda x: np.choose([5], [x, x]), gd.GraphIndexError, "out of bounds for 2 choices"),
    (lambda x: np.piecewise(x, [x > 0], [1, 2, 3]), gd.ShapeError, "3 functions for 1 cond"),
    (lambda x: np.unravel_index(x, (3, 4)), gd.DtypeError, "indices must be integers"),
    (lambda x: np.ravel_multi_index((x,), (3, 4)), gd.ShapeError, "1 indices and 2 modes"),
    (lambda x: np.ix_(x), gd.ShapeError, "one axis"),
    (lambda x: np.ix_(x[0] > 0), gd.UnsupportedError, "traced mask"),
    (lambda x: np.tril_indices_from(x[0]), gd.ShapeError, "takes a matrix"),
    (lambda x: np.diag_indices_from(x), gd.ShapeError, "takes a cube"),
    (lambda x: np.packbits(x), gd.DtypeError, "takes integers or booleans"),
    (lambda x: np.packbits(x > 0, bitorder="middle"), gd.ArgumentError, "'big' or 'little'"),
    (lambda x: np.unpackbits(x), gd.DtypeError, "takes uint8"),
    (lambda x: np.add.reduceat(x, [0, 5]), gd.GraphIndexError, "index 5 is out of bounds for 3"),
    (lambda x: np.add.reduceat(x, x[0].astype(int)), gd.UnsupportedError, "must be static"),
    (lambda x: np.fmax.reduce(x[:0]), gd.ShapeError, "nothing to combine"),
    (lambda x: np.fmax.reduce(x, where=x > 0), gd.ShapeError, "where= needs initial="),
    (lambda x: np.arctan2.reduce(x), gd.UnsupportedError, "those that can: np.add"),
    (lambda x: np.vander(x), gd.ShapeError, "one axis"),
    (lambda x: np.apply_along_axis(np.sum, 0, x[:, :0]), gd.ShapeError, "no line"),
]


@pytest.mark.parametrize(("f", "error", "text"), ERRORS)
def test_errors(f, error, text):
    with pytest.raises(error, match=text):
        gd.trace(f, np.ones((3, 4)))


@pytest.mark.parametrize(
    "call",
    [
        np.unique, np.nonzero, np.flatnonzero, np.argwhere, lambda x: np.extract(x > 0, x),
        lambda x: np.union1d(x, x), lambda x: np.intersect1d(x, x), lambda x: np.setdiff1d(x, x),
        lambda x: np.setxor1d(x, x), lambda x: np.trim_zeros(x[0]), np.unique_values,
        np.unique_counts, np.unique_all, np.unique_inverse, lambda x: x.nonzero(),
    ],
)  # fmt: skip
def test_a_shape_that_depends_on_values_is_refused_with_an_alternative(call):
    with pytest.raises(gd.UnsupportedError, match=r"depends on values.*(write|Write) ") as caught:
        gd.trace(call, np.ones((3, 4)))
    assert "np." in str(caught.value)


def test_arrays_made_within_the_function_are_static():
    """np.array(...) is a traced value there; what it holds is known."""

    def f(x):
        two, e = np.array([0, 2]), np.array([-1.0, 0.0, 1.0])
        return (
            np.repeat(x, np.array([1, 0, 2]), axis=0), np.take(x, two, 1), np.insert(x, two, 1, 0),
            np.delete(x, two, 1), np.compress(np.array([True, False, True]), x, 0),
            np.digitize(x, e), np.histogram(x, e), np.bincount(np.array([0, 1, 1]), x[:, 0]),
            np.gradient(x[0], np.arange(4.0) ** 2), np.interp(x, e, e + 1),
            np.choose(two // 2, [x[:, :2], x[:, 2:]]),
            np.add.reduceat(x, two), np.quantile(x, np.array([0.1, 0.2])),
            np.pad(x, np.array([1, 2])), x[np.ix_(two, np.array([True, False, False, True]))],
            np.ravel_multi_index((two, two), (3, 3)), np.searchsorted(e, x),
            np.take_along_axis(x, np.array([[0], [1], [1]]), 1),
        )  # fmt: skip

    x = np.random.default_rng(2).normal(size=(3, 4))
    check(f, [x], exact=False)


def test_batches():
    x = np.random.default_rng(2).normal(size=(3, 4, 5))

    def f(x):
        return (
            np.pad(x, 1, "reflect", reflect_type="odd"), np.insert(x, 1, x[0], axis=0),
            np.choose(np.argmax(x, axis=1) % 2, (x[:, 0], x[:, 1])), np.hypot.reduce(x),
            np.add.reduceat(x, [0, 2], axis=1), np.apply_along_axis(np.sort, 0, x), np.vander(x[0]),
        )  # fmt: skip

    got = gd.trace(gd.vmap(f), x).evaluate(x)
    for i in range(3):
        same([part[i] for part in got], list(gd.trace(f, x[i]).evaluate(x[i])), exact=False)
