"""Sums at places that an array names: few sums of many updates are made in blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphdl as gd
from graphdl.kernels.cpu import pool
from graphdl.ops import indexing
from tests.programs import check_compiled

RNG = np.random.default_rng(0)


def added(index: Any, values: Any, count: int) -> Any:
    return indexing.scatter_add(values, index, size=count)


@pytest.mark.parametrize("dtype", ["bool", "int32", "float32", "float64"])
@pytest.mark.parametrize(("many", "count"), [(1, 1), (7, 3), (4000, 10), (1000, 1000)])
def test_numbers_and_rows(dtype: str, many: int, count: int) -> None:
    index = RNG.integers(0, count, many)
    for row in ((), (1,), (3,)):
        values = (RNG.normal(size=(many, *row)) * 9).astype(dtype)
        check_compiled(lambda i, v: added(i, v, count), index, values, ulps=500, python=many < 9)


@pytest.mark.parametrize("row", [(), (4,)])
def test_one_number_for_all(row: tuple[int, ...]) -> None:
    index = RNG.integers(0, 5, 3000)

    def total(x: Any, i: Any) -> Any:
        return np.sum(x[i] * 0.25)

    executable = check_compiled(gd.grad(total), RNG.normal(size=(5, *row)), index, python=False)
    assert [kernel.name for kernel in executable.kernels][1:] == ["scatter_add"] * 2
    np.testing.assert_array_equal(
        gd.compile(lambda i: np.bincount(i, minlength=9))(index), np.bincount(index, minlength=9)
    )


def test_the_sums_do_not_depend_on_threads() -> None:
    index, values = RNG.integers(0, 50, 100_000), RNG.normal(size=100_000).astype(np.float32)
    compiled = gd.compile(lambda i, v: added(i, v, 50))
    before = pool.num_threads()
    try:
        gd.set_num_threads(1)
        one = compiled(index, values)
        gd.set_num_threads(2)
        two = compiled(index, values)
    finally:
        gd.set_num_threads(before)
    assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize("many", [3, 5000])
def test_places_outside_are_an_error(many: int) -> None:
    index = RNG.integers(0, 8, many)
    count = gd.compile(lambda i, v: added(i, v, 8))
    for bad in (8, -1, 2**62):
        index[many // 2] = bad
        with pytest.raises(IndexError):
            count(index, np.ones(many))
