"""Integer division in vectors: every boundary of the estimates, against NumPy."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from scalar_kernels import loop

import graphdl as gd
from graphdl.kernels.arithmetic import INTEGERS

DIVISIONS = "floor_divide remainder fmod"


def boundaries(dtype: str) -> Any:
    """Powers of two and their neighbours, small numbers, and the ends of a dtype."""
    info = np.iinfo(dtype)
    near = {(1 << k) + d for k in range(info.bits) for d in (-1, 0, 1)} | {3, 5, 6, 7, 10, 100}
    ends = {info.min, info.min + 1, info.max, info.max - 1, info.max // 3, info.max // 7}
    numbers = near | {-number for number in near} | ends
    return np.array(sorted(n for n in numbers if info.min <= n <= info.max), dtype)


def random_pairs(dtype: str) -> tuple[Any, Any]:
    """Numbers of all sizes, and multiples of the divisors and their neighbours."""
    rng = np.random.default_rng(3)
    info, count = np.iinfo(dtype), 30_000
    x, y = rng.integers(info.min, info.max, (2, count), dtype=dtype, endpoint=True)
    x, y = (v >> rng.integers(0, info.bits, count).astype(dtype) for v in (x, y))
    multiples = wanted("floor_divide", x, y) * y
    beside = multiples + rng.integers(-1 if info.min else 0, 2, count).astype(dtype)
    return np.concatenate([x, beside]), np.concatenate([y, y])


def wanted(name: str, x: Any, y: Any) -> Any:
    with np.errstate(divide="ignore", over="ignore"):
        return getattr(np, name)(x, y)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_agrees_with_numpy(dtype: str) -> None:
    ends = boundaries(dtype)
    pairs = [v.ravel() for v in np.meshgrid(ends, ends)], random_pairs(dtype)
    for x, y in pairs:
        results = loop(DIVISIONS, dtype, dtype)(x, y)
        for name, got in zip(DIVISIONS.split(), results, strict=True):
            np.testing.assert_array_equal(got, wanted(name, x, y), err_msg=name)


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "int64", "uint64"])
def test_by_one_number_for_all(dtype: str) -> None:
    x = boundaries(dtype)
    divided = gd.compile(lambda x, y: (x // y, x % y, np.fmod(x, y), *np.divmod(y, x)))
    for y in boundaries(dtype)[::5]:
        got = divided(x, y)
        pairs = [("floor_divide", x, y), ("remainder", x, y), ("fmod", x, y)]
        pairs += [("floor_divide", y, x), ("remainder", y, x)]
        for result, pair in zip(got, pairs, strict=True):
            np.testing.assert_array_equal(result, wanted(*pair), err_msg=f"{pair[0]} {y}")


@pytest.mark.parametrize("dtype", INTEGERS)
def test_no_instruction_divides_one_by_one(dtype: str) -> None:
    code = loop(DIVISIONS, dtype, dtype).assembly
    assert not re.findall(r"\t(?:i?div[bwlq]|[su]div)\b.*", code)
