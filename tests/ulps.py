"""Samples of a floating point type and the error of results in units of the last place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import mpmath
import numpy as np

# glibc's long double functions on x86 have 64 bits and errors of about one of the last: enough to
# see 1/1000 of an ulp of float64. Elsewhere long double may be plain double.
HAS_LONG_DOUBLE = np.finfo(np.longdouble).nmant >= 63


def specials(dtype: str) -> Any:
    """Zeros, infinities, NaN, limits of the type and numbers next to them, of both signs."""
    info = np.finfo(dtype)
    one = np.array(1, dtype)
    sizes = [0, np.inf, np.nan, info.smallest_subnormal, 3 * info.smallest_subnormal, info.tiny]
    sizes += [info.tiny - info.smallest_subnormal, info.max, np.nextafter(info.max, one)]
    sizes += [0.5, 1, 1.5, 2, 3, 10, 1e10, info.eps, info.eps / 2, np.sqrt(info.max)]
    sizes += [np.nextafter(one, one * 2), np.nextafter(one, one * 0), 2.0**-70, 2.0**70]
    sizes = np.array(sizes).astype(dtype)
    return np.concatenate([sizes, -sizes])


def binades(dtype: str, each: int, seed: int = 0) -> Any:
    """`each` numbers of both signs in every binade of the type, subnormal ones included."""
    info = np.finfo(dtype)
    rng = np.random.default_rng(seed)
    exponents = np.repeat(np.arange(info.minexp - info.nmant, info.maxexp), each)
    fraction = rng.uniform(1, 2, exponents.size) * rng.choice([-1.0, 1.0], exponents.size)
    return np.ldexp(fraction.astype(dtype), exponents.astype(np.int32))


def uniform(dtype: str, low: float, high: float, count: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).uniform(low, high, count).astype(dtype)


def exactly(function: Callable[..., Any], operands: Iterable[Any], digits: int = 40) -> Any:
    """An mpmath function at every element, in long double; NaN where it is complex or undefined."""
    results = []
    with mpmath.workdps(digits):
        for values in zip(*(np.asarray(x, np.float64).tolist() for x in operands), strict=True):
            try:
                y = function(*(mpmath.mpf(v) for v in values))
                y = mpmath.mpf("nan") if isinstance(y, mpmath.mpc) else mpmath.mpf(y)
            except (ValueError, ZeroDivisionError):
                y = mpmath.mpf("nan")
            high = float(y)
            low = float(y - high) if np.isfinite(high) else 0.0
            results.append((high, low))
    pairs = np.array(results, np.longdouble).reshape(-1, 2)
    return pairs[:, 0] + pairs[:, 1]


def errors(got: Any, wanted: Any) -> Any:
    """|got - wanted| in ulps of the type of `got`; infinite where one is NaN, or infinite wrongly.

    `wanted` is a long double. Beyond the largest finite number, infinity counts as the next one.
    """
    dtype = got.dtype
    largest = np.finfo(dtype).max
    last = np.longdouble(largest) - np.longdouble(np.nextafter(largest, dtype.type(0)))
    beyond = np.longdouble(largest) + last
    with np.errstate(all="ignore"):
        bounded = np.clip(wanted, -beyond, beyond)
        own = np.where(np.isinf(got), np.copysign(beyond, got), np.asarray(got, np.longdouble))
        size = np.minimum(np.abs(bounded), largest).astype(dtype)
        place = np.where(size == largest, last, np.spacing(size))
        error = np.abs(own - bounded) / place
    error = np.where(np.isnan(got) & np.isnan(wanted), 0, error)
    return np.where(np.isnan(error), np.inf, error).astype(np.float64)
