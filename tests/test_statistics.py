"""NumPy's statistics, calculus, polynomials and convolutions on traced values."""

from __future__ import annotations

from typing import Any

import numpy as np
import optree
import pytest

import graphdl as gd
from graphdl.numpy_functions import quantiles
from tests.helpers import call_of, calls, check, same
from tests.programs import check_compiled

CALLS = """
# medians
np.median(x)    np.median(x, axis=0)    np.median(x, 1, keepdims=True)    np.median(c, (0, 2))
np.median(n)    np.median(n, axis=1)    np.median(i)    np.median(i8, axis=1)    np.median(o, 1)
np.median(x[:2], 0)    np.median(b)    np.median(s)    np.median(x[:, :1], 1)    np.median(o[:0])
np.nanmedian(n)    np.nanmedian(n, axis=0)    np.nanmedian(n, 1, keepdims=True)
np.nanmedian(i, 0)    np.nanmedian(a, axis=1)    np.nanmedian(x, (0, 1))
# quantiles
np.quantile(x, 0.3)    np.quantile(x, [0, 0.25, 1], axis=1)    np.quantile(x, q, axis=0)
np.quantile(c, 0.7, (0, 2), keepdims=True)    np.quantile(c, q, (1, 2), keepdims=True)
np.percentile(x, 30)    np.percentile(x, q * 100, 0)    np.percentile(n, 40, axis=1)
np.quantile(i, 0.5)    np.quantile(i8, q, axis=1)    np.quantile(x, 1)    np.quantile(u, 0.1, 0)
np.nanquantile(n, 0.3)    np.nanquantile(n, q, axis=0)    np.nanpercentile(n, [10, 60], 1)
np.nanquantile(a, q, axis=1)    np.nanquantile(i, 0.4)    np.nanpercentile(n, 25, keepdims=True)
np.quantile(x, 0.5, method="inverted_cdf", weights=abs(y))    np.quantile(x, q, 1, weights=w4, **W)
np.percentile(x, 30, axis=0, weights=abs(y), **W)    np.quantile(x, q, (0, 1), weights=b * 1.0, **W)
np.nanquantile(n, 0.4, weights=abs(y), **W)    np.nanquantile(n, q, 1, weights=abs(y), **W)
# covariance
np.cov(x)    np.cov(x, rowvar=False)    np.cov(x, y)    np.cov(v, w4)    np.cov(v)    np.cov(i)
np.cov(x, bias=True)    np.cov(x, ddof=2)    np.cov(x, fweights=k4)    np.cov(x, aweights=w4)
np.cov(x, fweights=k4, aweights=w4)    np.cov(x, ddof=0, aweights=w4)    np.cov(x, dtype="float32")
np.corrcoef(x)    np.corrcoef(x, rowvar=False)    np.corrcoef(v, w4)    np.corrcoef(v)
# missing data
np.nanvar(n)    np.nanvar(n, axis=0)    np.nanstd(a, 1, ddof=1)    np.nanstd(n, keepdims=True)
np.nanvar(f, 1, ddof=1)    np.nanvar(x, where=b)    np.nanstd(f, axis=0)    np.nanvar(i)
np.nanvar(f, axis=0, correction=1)    np.nanvar(f, mean=np.nanmean(f))    np.nanargmax(n)
np.nanargmin(n, axis=1)    np.nanargmax(n, 0, keepdims=True)    np.nanargmin(i)
np.nanmean(a, axis=1)    np.nansum(a, 1, initial=2)
# counts
np.bincount(k, minlength=5)    np.bincount(k, w4[:3], 4)    np.bincount(np.array([0, 2]), v[:2])
np.bincount(k, minlength=3)    np.bincount(u[0] // 50, minlength=4)
np.histogram(x)    np.histogram(x, 5, (-1, 1))    np.histogram(x, e)    np.histogram(i, 4)
np.histogram(x, weights=y)    np.histogram(x, 3, density=True)    np.histogram(x, e, density=True)
np.histogram(x * 0, 3)    np.histogram(o, 2)    np.histogram(n, 4, (-2, 2))
np.histogram(i, [0, 1, 4])
np.histogram(b, 2)    np.histogram(x, np.array([-1, 0, 0, 2.0]))    np.histogram(i, weights=i)
np.histogram_bin_edges(x, 4)    np.histogram_bin_edges(i, 3)    np.histogram_bin_edges(x, 3, (0, 0))
np.histogram2d(x[0], y[0], 3)    np.histogram2d(x[0], y[0], [2, 3], [[-1, 1], [-2, 2]])
np.histogram2d(x[0], y[0], e, density=True)    np.histogram2d(v, w4, [e, 2], weights=x[0])
np.histogramdd(x.T, 2)    np.histogramdd(x, (2, 1, 3, 1))    np.histogramdd((v, w4), (e, e))
np.histogramdd(x.T, 2, density=True)    np.histogramdd(v, 4)
# calculus
np.gradient(x)    np.gradient(x, axis=0)    np.gradient(v, 2.0)    np.gradient(x, 2, 0.5)
np.gradient(x, k, axis=0)    np.gradient(x, r, axis=1)    np.gradient(x, r3, r)    np.gradient(i)
np.gradient(x, axis=1, edge_order=2)    np.gradient(x, r, axis=1, edge_order=2)
np.gradient(c, axis=(0, 2))    np.gradient(v, np.arange(4))    np.gradient(x, r3, 2, edge_order=2)
np.gradient(v, s)    np.trapezoid(x)    np.trapezoid(x, axis=0)    np.trapezoid(x, dx=0.5)
np.trapezoid(x, r)    np.trapezoid(x, y)    np.trapezoid(i)    np.trapezoid(x, r3, axis=0)
np.trapezoid(x, dx=s)    np.trapezoid(o, axis=1)    np.trapezoid(x[:, :1])
np.unwrap(x * 4)    np.unwrap(x * 4, axis=0)    np.unwrap(i * 3, period=5)    np.unwrap(i, period=4)
np.unwrap(x * 9, discont=4)    np.unwrap(x * 4, period=2.5)    np.unwrap(o)
np.interp(x, r, v)    np.interp(x, r, v, -7, 9)    np.interp(n, r, v)    np.interp(s, r, v)
np.interp(x, r, v, period=2.5)    np.interp(x, r[::-1], v, period=-3)    np.interp(r, r, v)
np.interp(x, [0.0], [5.0])    np.interp(x, [0, 0.5, 0.5, 1], v)    np.interp(i, [0, 2], [1, 3])
np.interp(x, r, v, left=s)    np.interp(o, r, v)
# polynomials
np.polyval(v, x)    np.polyval(v, 2)    np.polyval([1, 2], x)    np.polyval(k, i)
np.polyadd(v, k)    np.polysub(k, v)    np.polymul(v, k)    np.polymul(v, 2)    np.polyadd(3, v)
np.polyder(v)    np.polyder(v, 2)    np.polyder(k)    np.polyint(v)    np.polyint(v, 2, [1, 2])
np.polyint(v, 2, s)    np.polyint(k)    np.polyder(v, 0)    np.polyint(v, 0)
np.polydiv(v, z)[0]    np.polydiv(k, [2, 1])[0]    np.polydiv(z, v)[0]    np.polydiv(v, [2.0])[0]
# convolutions
np.convolve(v, z)    np.convolve(z, v)    np.convolve(v, z, "same")    np.convolve(z, v, "valid")
np.convolve(z, v, "same")    np.correlate(v, z)    np.correlate(z, v)    np.correlate(v, z, "same")
np.correlate(z, v, "same")    np.correlate(v, z, "full")    np.correlate(v, v[:2], "same")
np.correlate(v[:2], v, "same")    np.convolve(k, k)    np.convolve(v, [2.0])
np.convolve(b[0], b[1])
np.convolve(l, v)    np.convolve(l, l)    np.convolve(l, v, "valid")
np.convolve(l, l[:20], "same")
np.correlate(l, l[:11], "full")    np.correlate(l[:15], l)    np.correlate(l[:15], l, "same")
np.correlate(l[:14], l, "same")    np.convolve(i8[0], i8[1])    np.convolve(l, l[:70])
np.convolve(s, 3.0)
"""


#: Set of keyword arguments too long to write each time.
W = {"method": "inverted_cdf"}


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
        "l": rng.normal(size=130),
        "e": [-1.0, -0.25, 0.0, 0.5, 1.5],
        "r": [-1.0, -0.5, 0.25, 1.0],
        "r3": [0.0, 1.0, 3.0],
        "q": [0.1, 0.5, 0.9],
        "w4": [0.5, 0.0, 2.0, 1.0],
        "n": [[nan, 1, -inf, 0.5], [inf, -2, 0, -0.0], [3, 1, 2, nan]],
        "f": [[nan, 1, 4, 0.5], [7, -2, 0, 3], [nan, nan, 2, nan]],
        "a": [[nan, nan, nan], [1, nan, 2], [3, 1, 2]],
        "o": np.zeros((3, 0)),
    }
    typed = {name: np.asarray(value, dtype) for name, value in given.items()}
    return typed | {
        "b": rng.random((3, 4)) < 0.6,
        "i": rng.integers(-9, 9, (3, 4)),
        "i8": rng.integers(-100, 100, (3, 4)).astype(np.int8),
        "u": rng.integers(0, 200, (3, 4)).astype(np.uint8),
        "k": np.array([2, 0, 1]),
        "k4": np.array([1, 2, 1, 3]),
    }


#: Where older versions of NumPy lack something, or err.
NEWER = {"2.4": ("np.quantile(x, q, (0, 1), weights=b",)}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("text", calls(CALLS, NEWER))
def test_a_call_is_what_numpy_computes(text, dtype):
    f, args = call_of(text, values(dtype), W=W)
    check(f, args, exact=False)


COMPOSED = """
np.median(x, axis=0) ** 2    np.median(c, (0, 2)) * z    np.median(v) ** 3
np.nanmedian(np.where(b, x, np.nan), axis=1) ** 2    np.quantile(x, [0.1, 0.6], axis=1) ** 2
np.quantile(x, 0.37) ** 2    np.quantile(x, p, axis=0) ** 2    np.percentile(v, p * 90)
np.nanquantile(np.where(b, x, np.nan), 0.4, 1) ** 2    np.quantile(x, 0.4, method="hazen") ** 2
np.quantile(x, 0.3, method="nearest") ** 2    np.nanvar(np.where(b, x, np.nan), axis=1)
np.cov(x) ** 2    np.cov(x, aweights=w * w)    np.corrcoef(x)    np.cov(v, w, ddof=0)
np.nanstd(np.where(b, x, np.nan))    np.histogram(x, 4, weights=y)[0] ** 2
np.bincount(k, z * z, minlength=4) ** 2    np.gradient(x, axis=0) ** 2    np.gradient(x, r, axis=1)
np.gradient(x, r, axis=1, edge_order=2)    np.gradient(v, s, edge_order=2)
np.trapezoid(x, r) ** 2    np.trapezoid(x, y)    np.unwrap(x * 4) ** 2    np.interp(x, r, v)
np.interp(x, r, v, s, s * 2)    np.interp(x, r, v, period=2.9) ** 2    np.polyval(v, x)
np.polymul(v, z) ** 2    np.polyder(v, 2) * s    np.polyint(v, 2, s)    np.polydiv(v, z)[0]
np.polyadd(v, z) ** 2    np.convolve(v, z) ** 2    np.correlate(v, z) ** 2    np.polydiv(v, z)[1]
np.convolve(l, l[:20], "same") ** 2    np.histogram(x, 3, density=True)[1] ** 2
"""
RNG = np.random.default_rng(3)
SMOOTH = {
    "x": RNG.normal(size=(3, 4)),
    "y": RNG.normal(size=(3, 4)),
    "c": RNG.normal(size=(2, 3, 4)),
    "v": RNG.normal(size=4),
    "w": RNG.normal(size=4),
    "z": RNG.normal(size=3),
    "l": RNG.normal(size=40),
    "r": np.array([-1.1, -0.4, 0.3, 1.2]),
    "p": np.array([0.12, 0.55, 0.8]),
    "s": np.array(0.7),
    "k": np.array([2, 0, 1]),
    "b": np.array([[1, 1, 0, 1], [0, 1, 1, 1], [1, 1, 1, 0]], bool),
}


@pytest.mark.parametrize("text", calls(COMPOSED, NEWER))
def test_the_gradient_is_the_slope(text):
    f, args = call_of(text, SMOOTH)
    gd.check_grads(f, *args)


METHODS = sorted({**quantiles._DISCRETE, **quantiles._CONTINUOUS})
if np.lib.NumpyVersion(np.__version__) < "2.1.0":  # which rounds places to the other side
    METHODS.remove("closest_observation")


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("method", METHODS)
def test_the_methods_of_quantiles(method, dtype):
    """All sizes from one, at the quantiles where methods differ, with q static and traced."""
    q = np.array([0, 0.1, 0.25, 1 / 3, 0.5, 0.6, 0.75, 1])
    for n in range(1, 8):
        x = np.round(RNG.normal(size=(2, n)) * 9).astype(dtype)
        expected = np.quantile(x, q, axis=1, method=method)
        for graph, args in (
            (gd.trace(lambda x: np.quantile(x, q, axis=1, method=method), x), (x,)),
            (gd.trace(lambda x, q: np.quantile(x, q, axis=1, method=method), x, q), (x, q)),
        ):
            same(graph.evaluate(*args), expected, exact=False)
        if dtype != "int64":
            x[1, n // 2] = np.nan  # of a first row of NaN alone NumPy makes another dtype
            check(lambda x: np.quantile(x, q, axis=1, method=method), [x], exact=False)
            check(lambda x: np.nanquantile(x, q, axis=1, method=method), [x], exact=False)


def test_infinity_is_a_quantile_like_any_other():
    """Where NumPy makes NaN of inf - inf."""
    x = np.array([-np.inf, -np.inf, 1.0, np.inf, np.inf])
    got = gd.compile(lambda x: np.quantile(x, [0.1, 0.5, 0.9, 1.0]))(x)
    np.testing.assert_array_equal(got, [-np.inf, 1.0, np.inf, np.inf])


def test_compiled():
    """What these compile to, in one graph."""
    given = values("float64")
    x, n, v, r = (given[name] for name in "xnvr")

    def f(x, n, v, r):
        return (
            np.median(x, 0), np.nanmedian(n, 1), np.quantile(x, [0.2, 0.7]), np.nanquantile(n, 0.3),
            np.cov(x), np.corrcoef(x), np.histogram(x, 4), np.histogram2d(x[0], v, 3),
            np.gradient(x), np.trapezoid(x, r), np.interp(x, r, v), np.unwrap(x * 4),
            np.polyval(v, x), np.convolve(np.tile(v, 30), np.tile(r, 20)), np.correlate(v, r),
            np.nanvar(n, 1), np.nanargmax(n), np.polydiv(v, r[:2]),
        )  # fmt: skip

    check_compiled(f, x, n, v, r, ulps=256, numpy=False, python=False, separate=False)


def test_batches():
    """vmap is the loop over examples."""
    x = RNG.normal(size=(3, 5, 4))

    def f(x):
        return (
            np.median(x, 0), np.nanquantile(x, [0.2, 0.7]), np.cov(x), np.histogram(x, 4),
            np.interp(x, np.sort(x[0]), x[1]), np.convolve(x[0], x[1]), np.gradient(x),
            np.quantile(x, 0.4, 1, method="inverted_cdf", weights=x * x), np.digitize(x, x[0]),
            np.bincount(np.argmax(x, axis=1), x[:, 0], 4),
        )  # fmt: skip

    got = gd.trace(gd.vmap(f), x).evaluate(x)
    for i in range(3):
        same(
            optree.tree_map(lambda part, i=i: part[i], got), gd.trace(f, x[i]).evaluate(x[i]), False
        )


ERRORS = [
    (
        lambda x: np.quantile(x, 1.5),
        gd.ArgumentError,
        "np.quantile: q=1.5 must lie",
    ),
    (lambda x: np.percentile(x, -1), gd.ArgumentError, "between 0 and 100"),
    (lambda x: np.quantile(x, 0.5, method="best"), gd.ArgumentError, "method='best'; it is one of"),
    (lambda x: np.quantile(x, 0.5, weights=x), gd.ArgumentError, "method='inverted_cdf'"),
    (lambda x: np.quantile(x, 0.5, 0, method="inverted_cdf", weights=x[0]), gd.ShapeError, "fit"),
    (lambda x: np.quantile(x[:0], 0.5), gd.ShapeError, "quantiles of nothing"),
    (lambda x: np.quantile(x, [[0.5]] * 2), gd.ShapeError, "q must be a number or have one axis"),
    (lambda x: np.bincount(x[0].astype(int)), gd.UnsupportedError, "give it as minlength="),
    (lambda x: np.bincount(x[0], minlength=3), gd.DtypeError, "must be integers"),
    (lambda x: np.bincount(np.arange(3), x[0, :3] * 1j), gd.DtypeError, "must be real numbers"),
    (lambda x: np.histogram(x, "auto"), gd.UnsupportedError, "give the number"),
    (lambda x: np.histogram(x, [1, 0]), gd.ArgumentError, "increase monotonically"),
    (lambda x: np.histogram(x, 0), gd.ArgumentError, "bins must be positive"),
    (lambda x: np.histogram(x, 3, (1, 0)), gd.ArgumentError, "finite and increase"),
    (lambda x: np.histogram(x, weights=x[0]), gd.ShapeError, "weights of shape"),
    (lambda x: np.histogramdd(x, [2, 3, 1]), gd.ShapeError, "3 bins for 4 dimensions"),
    (lambda x: np.cov(x, fweights=np.ones(4)), gd.DtypeError, "fweights are numbers of times"),
    (lambda x: np.cov(x, aweights=np.ones(3)), gd.ShapeError, "3,. for 4 observations"),
    (lambda x: np.cov(x, ddof=0.5), gd.ArgumentError, "ddof"),
    (lambda x: np.gradient(x, np.ones(3), axis=1), gd.ShapeError, "coordinates of shape"),
    (lambda x: np.gradient(x, 1, 2, 3), gd.ArgumentError, "3 spacings for 2 axes"),
    (lambda x: np.gradient(x, edge_order=3), gd.ArgumentError, "it is 1 or 2"),
    (lambda x: np.gradient(x[:2], edge_order=2), gd.ShapeError, "too short"),
    (lambda x: np.interp(x, [1, 0], [0, 1]), gd.ArgumentError, "xp must increase"),
    (lambda x: np.interp(x, [0, 1], [0]), gd.ShapeError, "xp and fp"),
    (lambda x: np.interp(x, [0, 1], [0, 1], period=0), gd.ArgumentError, "period"),
    (lambda x: np.polyadd(x, 1), gd.ShapeError, "coefficients must have one axis"),
    (lambda x: np.polyder(x[0], -1), gd.ArgumentError, "must not be negative"),
    (lambda x: np.polyint(x[0], 2, [1, 2][:0]), gd.ShapeError, "constants for 2 integrals"),
    (lambda x: np.convolve(x, x[0]), gd.ShapeError, "arrays of one axis"),
    (lambda x: np.convolve(x[0], x[0, :0]), gd.ShapeError, "must not be empty"),
    (lambda x: np.convolve(x[0], x[0], "most"), gd.ArgumentError, "mode='most'"),
]


@pytest.mark.parametrize(("f", "error", "text"), ERRORS)
def test_errors(f, error, text):
    with pytest.raises(error, match=text):
        gd.trace(f, np.ones((3, 4)))


def test_a_count_that_does_not_fit_is_an_error_when_the_program_runs():
    f = gd.compile(lambda x: np.bincount(x, minlength=3))
    np.testing.assert_array_equal(f(np.array([0, 2, 2])), [1, 0, 2])
    for bad in ([3], [0, -1]):
        with pytest.raises(IndexError):
            f(np.array(bad))
        with pytest.raises(IndexError):
            gd.trace(lambda x: np.bincount(x, minlength=3), np.array(bad)).evaluate(np.array(bad))


def test_the_shares_of_a_convolution_are_exact_for_any_lengths():
    """Whole numbers, so that any order of sums gives the same; both ways to compute it."""
    for n, m in ((1, 1), (5, 8), (8, 5), (9, 9), (100, 9), (100, 64), (100, 65), (130, 129)):
        a, v = (RNG.integers(-9, 9, k).astype(float) for k in (n, m))
        for mode in ("full", "same", "valid"):
            check(lambda a, v, mode=mode: np.convolve(a, v, mode), [a, v])
            check(lambda a, v, mode=mode: np.correlate(a, v, mode), [a, v])
