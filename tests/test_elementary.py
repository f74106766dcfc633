"""Elementary functions: at most 2 ulp over the whole range, special values, and packed code.

References: float32 against float64 or long double functions, float64 against glibc's long double
functions (64 bits) where there are any, and against mpmath; these references are checked against
mpmath themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
import pytest
from scalar_kernels import Loop, loop
from ulps import HAS_LONG_DOUBLE, binades, errors, exactly, specials, uniform

from graphdl.kernels import coefficients
from graphdl.kernels.elementary import ELEMENTARY

DTYPES = ("float32", "float64")
LIMIT = 2.0  # ulp


@dataclass(frozen=True)
class Case:
    """A function, its mpmath form, its NumPy form (in long double), where to look closely."""

    exact: Callable[..., Any]
    near: Callable[..., Any] | None
    intervals: tuple[tuple[float, float], ...] = ((-1, 1), (-10, 10))


def exact_sigmoid(x: Any) -> Any:
    return 1 / (1 + mpmath.exp(-x))


def exact_power(x: Any, y: Any) -> Any:
    """mpmath's power with the special cases of IEEE 754."""
    with np.errstate(all="ignore"):
        by_rule = np.power([float(x)] * 2, [float(y)] * 2)[0]  # NumPy calls sqrt(x) for scalars
    if not (mpmath.isfinite(x) and mpmath.isfinite(y)) or x == 0 or y == 0 or np.isnan(by_rule):
        return mpmath.mpf(float(by_rule))
    p = y * mpmath.log(abs(x))
    magnitude = mpmath.exp(p) if abs(p) < 1e4 else mpmath.inf if p > 0 else mpmath.mpf(0)
    return -magnitude if np.signbit(by_rule) else magnitude


def exact_logaddexp(x: Any, y: Any) -> Any:
    tail = mpmath.exp(max(-abs(x - y), -1e4))
    return max(x, y) + mpmath.log1p(tail)


def exact_logaddexp2(x: Any, y: Any) -> Any:
    tail = mpmath.mpf(2) ** max(-abs(x - y), -2e4)
    return max(x, y) + mpmath.log1p(tail) / mpmath.log(2)


def exact_erfc(x: Any) -> Any:
    return mpmath.mpf(1 - mpmath.sign(x)) if abs(x) > 40 else mpmath.erfc(x)


def by_rule(name: str, exact: Callable[..., Any]) -> Callable[..., Any]:
    """The mpmath function; with infinities and NaN, NumPy's, where there is only a rule to know."""

    def function(*operands: Any) -> Any:
        if all(mpmath.isfinite(x) for x in operands):
            return exact(*operands)
        with np.errstate(all="ignore"):
            return mpmath.mpf(float(getattr(np, name)(*map(float, operands))))

    return function


def near_sigmoid(x: Any) -> Any:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


CASES: dict[str, Case] = {
    "exp": Case(mpmath.exp, np.exp, ((-1, 1), (-110, 90), (-750, 710))),
    "exp_nonpositive": Case(mpmath.exp, np.exp, ((-1, 0), (-110, 0), (-750, 0))),
    "exp2": Case(lambda x: mpmath.mpf(2) ** x, np.exp2, ((-1, 1), (-155, 130), (-1080, 1030))),
    "expm1": Case(mpmath.expm1, np.expm1, ((-1, 1), (-50, 90), (80, 710))),
    "log": Case(mpmath.log, np.log, ((0, 3), (0.5, 2), (0, 1e5))),
    "log2": Case(lambda x: mpmath.log(x, 2), np.log2, ((0, 3), (0.5, 2), (0, 1e5))),
    "log10": Case(mpmath.log10, np.log10, ((0, 3), (0.5, 2), (0, 1e5))),
    "log1p": Case(mpmath.log1p, np.log1p, ((-1, 1), (-0.5, 0.5), (-1, 1e5))),
    "tanh": Case(mpmath.tanh, np.tanh, ((-1, 1), (-25, 25))),
    "sigmoid": Case(exact_sigmoid, near_sigmoid, ((-1, 1), (-110, 90), (-750, 710))),
    "sin": Case(mpmath.sin, np.sin, ((-1, 1), (-10, 10), (-1e5, 1e5), (-1e10, 1e10))),
    "cos": Case(mpmath.cos, np.cos, ((-1, 1), (-10, 10), (-1e5, 1e5), (-1e10, 1e10))),
    "tan": Case(mpmath.tan, np.tan, ((-1, 1), (-10, 10), (-1e5, 1e5), (-1e10, 1e10))),
    "power": Case(exact_power, np.power, ((0, 2), (-10, 10), (0.99, 1.01), (-150, 150))),
    "arcsin": Case(mpmath.asin, np.arcsin, ((-1, 1), (0.4, 0.6), (0.99, 1))),
    "arccos": Case(mpmath.acos, np.arccos, ((-1, 1), (-0.6, -0.4), (0.99, 1))),
    "arctan": Case(mpmath.atan, np.arctan),
    "arctan2": Case(by_rule("arctan2", mpmath.atan2), np.arctan2),
    "sinh": Case(mpmath.sinh, np.sinh, ((-1, 1), (-90, 90), (-711, 711))),
    "cosh": Case(mpmath.cosh, np.cosh, ((-1, 1), (-90, 90), (-711, 711))),
    "arcsinh": Case(mpmath.asinh, np.arcsinh),
    "arccosh": Case(mpmath.acosh, np.arccosh, ((1, 1.1), (1, 10))),
    "arctanh": Case(mpmath.atanh, np.arctanh, ((-1, 1), (0.99, 1))),
    "cbrt": Case(lambda x: mpmath.sign(x) * mpmath.cbrt(abs(x)), np.cbrt),
    "hypot": Case(by_rule("hypot", mpmath.hypot), np.hypot),
    "logaddexp": Case(
        by_rule("logaddexp", exact_logaddexp), np.logaddexp, ((-1, 1), (-30, 30), (-900, 900))
    ),
    "logaddexp2": Case(
        by_rule("logaddexp2", exact_logaddexp2), np.logaddexp2, ((-1, 1), (-30, 30), (-900, 900))
    ),
    "erfc": Case(exact_erfc, None, ((-1, 1), (-10, 10.2), (0, 28))),
    "erf": Case(mpmath.erf, None, ((-1.2, 1.2), (-7, 7))),
    "softplus": Case(
        lambda x: mpmath.log1p(mpmath.exp(x)),
        lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
        ((-1, 1), (-110, 90), (-750, 710)),
    ),
}


def samples(name: str, dtype: str, dense: bool) -> tuple[Any, ...]:
    """Every binade, the special values, and the intervals to look at closely."""
    case = CASES[name]
    count = 60_000 if dense else 300
    per_binade = (100 if dtype == "float32" else 20) if dense else 1
    parts = [specials(dtype), binades(dtype, per_binade)]
    parts += [uniform(dtype, low, high, count) for low, high in case.intervals]
    if name.endswith("nonpositive"):
        parts = [-abs(part) for part in parts]
    x = np.concatenate(parts)
    if ELEMENTARY[name].arity == 1:
        return (x,)
    # Every pair of special values, and each sample with another of its kind and of any kind.
    rng = np.random.default_rng(2)
    alike = np.concatenate([rng.permutation(part) for part in parts])
    pairs = np.meshgrid(specials(dtype), specials(dtype))
    return tuple(
        np.concatenate([first, second, pair.ravel()])
        for first, second, pair in zip((x, x), (alike, rng.permutation(x)), pairs, strict=True)
    )


def report(name: str, operands: tuple[Any, ...], got: Any, wanted: Any) -> None:
    error = errors(got, wanted)
    if name.startswith("logaddexp") and got.dtype == np.float64:
        # Terms that cancel: the error counts in ulps of the operands.
        size = np.abs(operands).max(axis=0)
        with np.errstate(all="ignore"):
            error *= np.minimum(1, np.spacing(np.abs(got)) / np.spacing(size))
        error[(got == wanted) | np.isnan(wanted) & np.isnan(got)] = 0
    worst = int(np.argmax(error))
    arguments = ", ".join(repr(x[worst]) for x in operands)
    assert error[worst] <= LIMIT, (
        f"{name}({arguments}) = {got[worst]!r}, not {wanted[worst]!r}: {error[worst]:.3g} ulp"
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_agrees_with_mpmath(name: str, dtype: str) -> None:
    operands = samples(name, dtype, dense=False)
    if len(operands) == 2:  # mpmath has no -0
        known = ~np.any([(x == 0) & np.signbit(x) for x in operands], axis=0)
        operands = tuple(x[known] for x in operands)
    got = loop(name, *[dtype] * len(operands))(*operands)
    report(name, operands, got, exactly(CASES[name].exact, operands))


@pytest.mark.skipif(not HAS_LONG_DOUBLE, reason="long double is double here")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.near])
def test_dense_samples(name: str, dtype: str) -> None:
    near = CASES[name].near
    assert near is not None
    operands = samples(name, dtype, dense=True)
    got = loop(name, *[dtype] * len(operands))(*operands)
    with np.errstate(all="ignore"):
        wanted = near(*(x.astype(np.longdouble) for x in operands))
    report(name, operands, got, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_plain_python_agrees(name: str, dtype: str) -> None:
    operands = samples(name, dtype, dense=False)
    with np.errstate(all="ignore"):
        wanted = ELEMENTARY[name].python(*operands)
    got = loop(name, *[dtype] * len(operands))(*operands)
    assert wanted.dtype == got.dtype
    info = np.finfo(dtype)  # SciPy and NumPy are less accurate than we are here and there
    near_zero = 4 if name.startswith("logaddexp") else 1e-3
    np.testing.assert_allclose(got, wanted, rtol=20 * info.eps, atol=near_zero * info.eps)
    zero = (got == 0) & (wanted == 0)
    np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(wanted[zero]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_code_is_packed(name: str, dtype: str) -> None:
    assembly = loop(name, *[dtype] * ELEMENTARY[name].arity).assembly
    suffix = "p[sd]" if dtype == "float32" else "pd"  # some evaluate float32 in float64
    packed = re.findall(rf"\b(?:vf?n?m(?:add|sub|ul)\w*|mul){suffix}\b.*%[xyz]mm", assembly)
    assert packed, "no packed arithmetic"
    called = set(re.findall(r"\bcall\w*\s+(\S+)", assembly))
    if ELEMENTARY[name].rare is None:
        assert not called, "a call of a scalar function"
    else:  # the loop calls the variant on vectors; only the rest of the loop calls the scalar one
        assert any(re.fullmatch(rf"graphdl_{name}_{dtype}_v\d+", function) for function in called)
        assert all(function.startswith(f"graphdl_{name}_") for function in called)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["exp", "tanh", "erfc", "sin", "tan"])
def test_vectors_written_by_hand_agree_with_loops(name: str, dtype: str) -> None:
    x = np.array([0.5, -3, np.nan, 1e30, -1e9, 0.0, -np.inf, 2], dtype)  # usual angles and others
    np.testing.assert_array_equal(Loop(name, dtype, lanes=8)(x), loop(name, dtype)(x))


def test_a_wrong_coefficient_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The samples and the limit are fine enough to see one coefficient off by 2^-10 of it."""
    table = coefficients.TANH_TAIL
    terms = list(table["float32"])
    terms[2] *= 1 + 2.0**-10
    monkeypatch.setitem(table, "float32", tuple(terms))
    x = samples("tanh", "float32", dense=False)
    with pytest.raises(AssertionError, match="ulp"):
        report("tanh", x, Loop("tanh", "float32")(*x), exactly(mpmath.tanh, x))


def test_every_function_is_tested() -> None:
    assert set(CASES) == set(ELEMENTARY)
