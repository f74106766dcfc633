"""The scalar operations against NumPy, compiled and as plain Python, for every dtype."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from scalar_kernels import loop
from ulps import binades, specials

from graphdl.kernels.arithmetic import ARITHMETIC, DTYPES, INTEGERS
from graphdl.kernels.elementary import ELEMENTARY

FLOATS = ("float32", "float64")
ANY = DTYPES
NUMBERS = (*INTEGERS, *FLOATS)
BITS = ("bool", *INTEGERS)
# Operations by the dtypes for which NumPy has a loop. `fmax` of bool and the like go without.
DOMAINS: dict[tuple[str, ...], str] = {
    ANY: "add multiply maximum minimum equal not_equal less less_equal greater greater_equal "
    "logical_and logical_or logical_xor logical_not absolute floor ceil trunc",
    NUMBERS: "subtract floor_divide remainder fmod fmax fmin square negative positive sign "
    "reciprocal isnan isinf isfinite",
    FLOATS: "divide fabs sqrt deg2rad rad2deg rint modf_frac modf_int frexp_mantissa "
    "frexp_exponent copysign signbit nextafter spacing heaviside",
    BITS: "bitwise_and bitwise_or bitwise_xor invert bitwise_count",
    INTEGERS: "left_shift right_shift gcd lcm",
}
CASES = [
    (name, dtype) for dtypes, names in DOMAINS.items() for name in names.split() for dtype in dtypes
]
# An ulp is allowed where LLVM may contract or take a reciprocal; there is nothing to contract here.
IGNORE_ZERO_SIGN = {"maximum", "minimum", "fmax", "fmin"}


def samples(dtype: str, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.integers(0, 2, 400).astype(bool)
    if dtype in FLOATS:
        near = rng.integers(-5, 6, 400).astype(dtype) / 2
        mixed = [specials(dtype), binades(dtype, 2, seed), near, rng.normal(0, 100, 400)]
        return rng.permutation(np.concatenate([part.astype(dtype) for part in mixed]))
    info = np.iinfo(dtype)
    small = rng.integers(max(info.min, -6), 7, 400)
    ends = [info.min, info.min + 1, info.max, info.max - 1, 0, 1, -1 if info.min < 0 else 2]
    whole = rng.integers(info.min, info.max, 1600, dtype=dtype, endpoint=True)
    return rng.permutation(np.concatenate([small.astype(dtype), np.array(ends * 30, dtype), whole]))


def operands_for(name: str, dtype: str) -> tuple[Any, ...]:
    count = ARITHMETIC[name].arity
    operands = [samples(dtype, seed) for seed in range(count)]
    if dtype in FLOATS and count == 2:
        pairs = np.array(list(product(specials(dtype), repeat=2)), dtype).T
        operands = [np.concatenate(pair) for pair in zip(operands, pairs, strict=True)]
    if "shift" in name:
        width = 8 * np.dtype(dtype).itemsize
        low = -2 if np.dtype(dtype).kind == "i" else 0
        operands[1] = np.random.default_rng(9).integers(low, width + 3, len(operands[0]), dtype)
    if name == "reciprocal" and dtype in INTEGERS:  # of 0: whatever the platform does
        operands[0] = operands[0][operands[0] != 0]
    if name == "lcm":  # where it wraps around, NumPy differs from version to version
        operands = [x % np.array(100, dtype) for x in operands]
    return tuple(operands)


def assert_same(got: Any, wanted: Any, *, signed_zero: bool) -> None:
    assert got.dtype == wanted.dtype
    np.testing.assert_array_equal(got, wanted)
    if signed_zero and got.dtype.kind == "f":
        number = ~np.isnan(wanted)
        np.testing.assert_array_equal(np.signbit(got[number]), np.signbit(wanted[number]))


#: Each in a loop of its own: beside their divisions and loops LLVM may make no vectors of the
#: others; or they take operands of their own.
ALONE = {
    "floor_divide", "remainder", "fmod", "gcd", "lcm", "left_shift", "right_shift", "reciprocal",
}  # fmt: skip


def groups() -> list[tuple[str, str]]:
    """The cases: names of operations that one loop computes of the same operands, and the dtype."""
    found: dict[tuple[str, int, str], list[str]] = {}
    for name, dtype in CASES:
        key = name if name in ALONE else "", ARITHMETIC[name].arity, dtype
        found.setdefault(key, []).append(name)
    return [(" ".join(names), dtype) for (_, _, dtype), names in found.items()]


@pytest.mark.parametrize(("names", "dtype"), groups())
def test_agree_with_numpy(names: str, dtype: str) -> None:
    scalars = [ARITHMETIC[name] for name in names.split()]
    operands = operands_for(scalars[0].name, dtype)
    results = loop(names, *[dtype] * len(operands))(*operands)
    for scalar, got in zip(scalars, results if len(scalars) > 1 else (results,), strict=True):
        with np.errstate(all="ignore"):
            wanted = scalar.python(*operands)
        try:
            assert_same(got, wanted, signed_zero=scalar.name not in IGNORE_ZERO_SIGN)
        except AssertionError as error:
            raise AssertionError(f"{scalar.name}: {error}") from None


@pytest.mark.parametrize("source", DTYPES)
def test_casts(source: str) -> None:
    """One loop casts to every dtype; to integers, what their range holds."""
    every = loop(" ".join(f"to_{target}" for target in DTYPES), source)
    for place, target in enumerate(DTYPES):
        x = samples(source, 0)
        if source in FLOATS and target in INTEGERS:  # beyond, C and NumPy leave it to the platform
            info = np.iinfo(target)
            x = x[(x > float(info.min)) & (x < float(info.max))]
        with np.errstate(all="ignore"):
            wanted = x.astype(target)
        try:
            assert_same(every(x)[place], wanted, signed_zero=True)
        except AssertionError as error:
            raise AssertionError(f"to {target}: {error}") from None


def test_casts_beyond_the_range_are_settled() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 3e9, -3e9, 300.0, -1.0])
    low, low64 = -(2**31), -(2**63)
    assert loop("to_int32", "float64")(x).tolist() == [low, low, low, low, low, 300, -1]
    assert loop("to_int64", "float64")(x).tolist()[:3] == [low64, low64, low64]
    assert loop("to_int8", "float64")(x).tolist()[-2:] == [44, -1]
    assert loop("to_uint8", "float64")(x).tolist()[-2:] == [44, 255]
    assert loop("to_uint32", "float64")(x).tolist()[-1] == 2**32 - 1
    assert loop("to_uint64", "float64")(x).tolist()[-1] == 2**64 - 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_select(dtype: str) -> None:
    condition, x, y = samples("bool", 3), samples(dtype, 1)[:400], samples(dtype, 2)[:400]
    got = loop("select", "bool", dtype, dtype)(condition, x, y)
    assert_same(got, np.where(condition, x, y), signed_zero=True)


@pytest.mark.parametrize("exponent", ["int8", "int32", "int64"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_ldexp(dtype: str, exponent: str) -> None:
    x = samples(dtype, 0)
    n = np.random.default_rng(4).integers(-128, 128, x.size)
    if exponent != "int8":
        n = n * np.random.default_rng(5).choice([1, 5, 30, 10**6], x.size)
    n = n.astype(exponent)
    with np.errstate(all="ignore"):
        wanted = np.ldexp(x, n)
    assert_same(loop("ldexp", dtype, exponent)(x, n), wanted, signed_zero=True)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integer_power(dtype: str) -> None:
    x, y = samples(dtype, 0), samples(dtype, 1)
    compiled, stand_in = loop("power", dtype, dtype), ELEMENTARY["power"].python
    negative = y < 0
    wanted = np.power(x, np.where(negative, 0, y).astype(dtype))
    # NumPy raises for these; here they are the reciprocal rounded towards 0.
    inverse = np.where(x == 1, 1, np.where(x.astype(float) == -1, 1 - 2 * (y.astype(int) & 1), 0))
    wanted = np.where(negative, inverse.astype(dtype), wanted)
    assert_same(compiled(x, y), wanted, signed_zero=False)
    assert_same(stand_in(x, y), wanted, signed_zero=False)


def test_every_operation_is_tested() -> None:
    tested = {name for name, _ in CASES} | {"select", "ldexp"} | {f"to_{d}" for d in DTYPES}
    assert tested == set(ARITHMETIC)
