"""Every reduction over every axis, with every argument that it takes, against NumPy."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphdl as gd
from tests.programs import check_compiled

#: What each takes beside axis: several axes and keepdims (a), where (w), initial (i), ddof (d).
REDUCTIONS = {
    "sum": "awi", "prod": "awi", "max": "awi", "min": "awi", "mean": "aw", "var": "awd",
    "std": "awd", "any": "aw", "all": "aw", "ptp": "a", "count_nonzero": "a", "argmax": "k",
    "argmin": "k", "nansum": "awi", "nanprod": "awi", "nanmax": "awi", "nanmin": "awi",
    "nanmean": "aw", "nanvar": "awd", "nanstd": "awd", "nanargmax": "k", "nanargmin": "k",
    "median": "a", "nanmedian": "a", "average": "a", "cumsum": "", "cumprod": "", "nancumsum": "",
    "nancumprod": "", "sort": "", "diff": "",
}  # fmt: skip
SHAPES = [(), (5,), (3, 4), (3, 0), (2, 1, 3)]


def operand(dtype: str, shape: Any, rng: np.random.Generator) -> Any:
    kind = np.dtype(dtype).kind
    if kind == "b":
        return rng.random(shape) < 0.5
    if kind in "iu":
        return np.asarray(rng.integers(-9 if kind == "i" else 0, 9, shape)).astype(dtype)
    x = np.asarray(rng.normal(size=shape)).astype(dtype)
    if x.size > 3:
        x.flat[rng.integers(x.size)] = np.nan
    return x


def variants(takes: str, shape: Any, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """The keyword arguments to try."""
    axes: list[Any] = [None, *range(-len(shape), len(shape))]
    if "a" in takes:
        axes += itertools.combinations(range(len(shape)), 2)
    where = {"where": rng.random(shape) < 0.6}
    for axis in axes:
        yield {"axis": axis}
        if "a" in takes or "k" in takes:
            yield {"axis": axis, "keepdims": True}
        if "w" in takes:
            yield {"axis": axis, **where} | ({"initial": 2} if "i" in takes else {})
        if "i" in takes:
            yield {"axis": axis, "initial": 2}
        if "d" in takes:
            yield {"axis": axis, "ddof": 1}


@pytest.mark.parametrize("dtype", ["float32", "int8", "bool"])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_a_reduction_is_numpys(name, dtype):
    rng = np.random.default_rng(3)
    f = getattr(np, name)
    for shape in SHAPES:
        x = operand(dtype, shape, rng)
        for kwargs in variants(REDUCTIONS[name], shape, rng):
            text = f"np.{name}({dtype}{list(shape)}, {kwargs})"
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                try:
                    want = np.asarray(f(x, **kwargs))
                except (TypeError, ValueError, ZeroDivisionError):
                    continue  # an empty array or a dtype that NumPy refuses
            got = gd.trace(lambda x, kw=kwargs: f(x, **kw), x).evaluate(x)
            assert (got.dtype, got.shape) == (want.dtype, want.shape), text
            np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-6, err_msg=text)


@pytest.mark.parametrize("length", [64, 1000, 1024, 40_000])
@pytest.mark.parametrize("step", [1, 2, 3, 7])
def test_sums_of_floats_that_lie_apart_are_as_accurate(length, step):
    """No long chain of additions to the whole sum, where LLVM cannot read the last elements."""
    x = np.random.default_rng(length).random((20, length * step), np.float32)
    for f in (lambda x: x[:, ::step].sum(1), lambda x: (x[:, ::-step] * x[:, ::step]).mean(1)):
        want = f(x.astype(np.float64))
        np.testing.assert_allclose(gd.compile(f)(x), want, rtol=2e-7 if step > 1 else 3e-7)


@pytest.mark.parametrize(
    ("rows", "columns", "blocks"),
    [(256, 16384, 16), (9, 16384, 9), (100, 70_000, 16), (640, 70, 7)],
)
def test_blocks_of_rows_leave_few_partial_sums(rows, columns, blocks):
    x = np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float32)
    compiled = gd.compile(lambda x: (x - np.mean(x, axis=1, keepdims=True), np.sum(x * x, axis=0)))
    first = compiled.lower(x).kernels[0]
    assert first.iterations <= blocks
    got, want = compiled(x), (x - x.mean(1, keepdims=True), (x.astype(np.float64) ** 2).sum(0))
    np.testing.assert_allclose(got[0], want[0], atol=1e-5)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((3, 5000), 0),
        ((64, 4100), 0),
        ((65, 4100), 0),
        ((5, 1, 4099), (0, 1)),
        ((2, 3, 4100, 1), (0, 1)),
        ((2, 3, 2, 4100), (0, 2)),
        ((3, 70, 60), 0),
    ],
)
def test_a_few_long_rows_are_summed(shape, axes, dtype):
    x = (8 * np.random.default_rng(0).normal(size=shape)).astype(dtype)

    def f(x):
        places = np.arange(shape[0], dtype=dtype).reshape(-1, *(1 for _ in shape[1:]))
        return np.sum(x * 2, axes), np.max(x, axes), x * 3, np.sum(x * places, axes)

    executable = check_compiled(f, x, separate=False, python=x.size < 30000)
    found = {kernel.name for kernel in executable.kernels}
    assert ("finish_sum" in found) == (shape[0] == 65)
    flipped = np.ascontiguousarray(x[..., ::-1])
    check_compiled(lambda x: np.min(x[..., ::-1], axes), flipped, separate=False, python=False)
