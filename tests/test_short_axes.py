"""Loops over the coordinates of points are written out in one over the points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphdl as gd
from tests.programs import check_compiled

COUNT = 40

FUNCTIONS: list[Callable[..., Any]] = [
    lambda p, q, v: (p - p[0]) * v[:, None],
    lambda p, q, v: (p[:, ::-1] * 2, p[:, :2] + 1, p[:, 1:2] - p[:, :1]),
    lambda p, q, v: (p.T * 2, q.T - p, q.T[::-1] * p[0]),
    lambda p, q, v: (np.where(p > 0, p, v[:, None]), q * p[3][:, None] + v),
    lambda p, q, v: p.reshape(4, -1, p.shape[1])[:, ::2].transpose(2, 1, 0) + 1,
    lambda p, q, v: p + np.arange(p.shape[1], dtype=p.dtype),
]


@pytest.mark.parametrize("f", FUNCTIONS)
@pytest.mark.parametrize(
    ("size", "dtype"), [(2, "float32"), (3, "float64"), (4, "int16"), (3, "uint8")]
)
def test_short_axes_are_written_out(f: Callable[..., Any], size: int, dtype: str) -> None:
    rng = np.random.default_rng(size)
    shapes = (COUNT, size), (size, COUNT), (COUNT,)
    check_compiled(f, *((9 * rng.random(shape)).astype(dtype) for shape in shapes))


def test_points_are_one_loop_of_vectors() -> None:
    p = np.ones((COUNT, 3), np.float32)
    (kernel,) = gd.compile(lambda p: p * p[0]).lower(p).kernels
    assert kernel.source.count(" in lanes(") == 1
    assert "j * 3 + 2] =" in kernel.source
    (plain,) = gd.compile(lambda p: p * 2).lower(p).kernels
    assert "j * 3" not in plain.source


def test_points_are_changed_in_place() -> None:
    p = np.random.default_rng(0).normal(size=(COUNT, 3))
    moved = gd.compile(lambda p: (p - np.array([1.0, 2.0, 3.0])) * p[:, :1], donate=(0,))
    np.testing.assert_allclose(moved(p.copy()), (p - [1, 2, 3]) * p[:, :1])
