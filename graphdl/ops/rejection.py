"""Samples made by rejection: pointwise ops of a parameter, a key, and the number of the element.

The references are the same algorithms in NumPy, over whole arrays of which fewer and fewer elements
are left; graphdl.kernels.rejection holds the kernels and the sources.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphdl.errors import DtypeError, ShapeError
from graphdl.ops import special
from graphdl.ops.op import Op
from graphdl.ops.random import philox4x32
from graphdl.types import Dtype, TensorType

_U32, _U64 = np.dtype(np.uint32), np.dtype(np.uint64)
_I64 = np.dtype(np.int64)
_GAMMA, _POISSON = 3, 4  # the streams
_DIGAMMA_LIMIT = math.log(1.5)


def _special() -> Any:
    import scipy.special  # 0.1 s of start-up that only the interpreter pays

    return scipy.special


def _words(key0: Any, key1: Any, index: Any, attempt: int, stream: int) -> list[Any]:
    """The block of an attempt as four arrays of float-ready uint64."""
    low, high = index.astype(np.uint32), (index >> np.uint64(32)).astype(np.uint32)
    counter = (low, high, np.full_like(low, attempt), np.full_like(low, stream))
    return [word.astype(np.uint64) for word in philox4x32(counter, (key0, key1))]


def _pair(low: Any, high: Any) -> Any:
    return low | (high << np.uint64(32))


def _until_accepted(attempt: Callable[..., tuple[Any, Any]], *operands: Any) -> Any:
    """attempt(number, *operands) -> (values, accepted), for the elements that are left."""
    shape = operands[0].shape
    flat = [np.ravel(operand) for operand in operands]
    result = np.empty(flat[0].shape, np.float64)
    left = np.arange(flat[0].size)
    number = 0
    while left.size:
        values, accepted = attempt(number, *(operand[left] for operand in flat))
        result[left[accepted]] = values[accepted]
        left = left[~accepted]
        number += 1
    return result.reshape(shape)


def _gamma_attempt(number: int, alpha: Any, key0: Any, key1: Any, index: Any) -> tuple[Any, Any]:
    words = _words(key0, key1, index, number, _GAMMA)
    single = alpha.dtype == np.float32
    bits = _pair(*words[:2]).astype(np.int64)
    tail = (np.where(bits < 0, ~bits, bits).astype(alpha.dtype) + 0.5) * 2.0**-64
    z = _special().ndtri(tail.astype(np.float64))
    u, v = ((word.astype(alpha.dtype) + 0.5) * 2.0**-32 for word in words[2:])
    d = np.where(alpha < 1, alpha + 1, alpha).astype(np.float64) - 1 / 3
    y = np.where(bits < 0, -z, z) / np.sqrt(9 * d)
    cube = np.log1p(y)
    refused = np.log(u) >= d * (y * y * (1.5 - y) + 3 * (cube - y))
    sample = np.log(d) + 3 * cube
    sample = np.where(alpha < 1, sample + np.log(v) / alpha, sample)
    return sample.astype(np.float32) if single else sample, (y > -1) & ~refused


def _loggamma_sample(alpha: Any, key0: Any, key1: Any, index: Any) -> Any:
    valid = alpha > 0
    safe = np.where(valid, alpha, np.ones_like(alpha))
    sample = _until_accepted(_gamma_attempt, safe, key0, key1, index)
    return np.where(valid, sample, np.nan).astype(alpha.dtype)


def _lower_slope(a: Any, x: Any, log_x: Any) -> Any:
    term, slope = np.ones_like(a), np.zeros_like(a)
    total, total_slope = term, slope
    n = 0
    while n < 1 or np.any(term > total * 2.0**-54) or np.any(term * slope < total_slope * 2.0**-54):
        n += 1
        term, slope = term * x / (a + n), slope - 1 / (a + n)
        total, total_slope = total + term, total_slope + term * slope
    return -(total * (log_x - _special().digamma(a + 1)) + total_slope) / a


def _upper_slope(a: Any, x: Any, log_x: Any) -> Any:
    b = x + 1 - a
    d = 1 / b
    d_slope = d * d
    delta, delta_slope, total, total_slope = d, d_slope, d, d_slope
    n = 0
    while np.any(np.abs(delta_slope) >= np.abs(total_slope) * 2.0**-54):
        n += 1
        b, numerator = b + 2, n * (a - n)
        before, d = d, 1 / (b + numerator * d)
        d_slope = -d * d * (n * before + numerator * d_slope - 1)
        factor = b * d - 1
        delta_slope = (b * d_slope - d) * delta + factor * delta_slope
        delta = delta * factor
        total, total_slope = total + delta, total_slope + delta_slope
    return total_slope + total * (log_x - _special().digamma(a))


def _asymptotic_slope(a: Any, x: Any) -> Any:
    r = 1 / np.sqrt(a)

    def terms(y: Any) -> tuple[Any, Any, Any]:
        third = (y**3 - 7 * y) / 36
        fourth = -(3 * y**4 + 7 * y**2 - 16) / 810
        return third, fourth, (9 * y**5 + 256 * y**3 - 433 * y) / 38880

    y = wanted = (x - a) * r
    for _ in range(6):
        third, fourth, fifth = terms(y)
        y = wanted - r * ((y * y - 1) / 3 + r * (third + r * (fourth + r * fifth)))
    third, fourth, fifth = terms(y)
    return (1 + r * (y / 2 - r * r * (third / 2 + r * (fourth + 1.5 * r * fifth)))) / x


def _loggamma_slope(alpha: Any, log_x: Any) -> Any:
    a, wide = np.ravel(alpha).astype(np.float64), np.ravel(log_x).astype(np.float64)
    result = np.full(a.shape, np.nan)
    valid = (a > 0) & ~np.isnan(wide)
    a_safe = np.where(valid, a, 1.0)
    low = wide < np.maximum(_special().digamma(a_safe + 1), _DIGAMMA_LIMIT)
    large = a >= 5e4
    for where, f in (
        (valid & ~large & low, _lower_slope),
        (valid & ~large & ~low, _upper_slope),
        (valid & large, lambda a, x, log_x: _asymptotic_slope(a, x)),
    ):
        if np.any(where):
            result[where] = f(a[where], np.exp(wide[where]), wide[where])
    return result.reshape(np.shape(alpha)).astype(alpha.dtype)


def _log_poisson(k: Any, rate: Any) -> Any:
    """As the kernel has it: k log(rate) - rate - log(k!) without large terms that cancel."""
    deviance = k * np.log1p((k - rate) / rate) - (k - rate)
    n = np.maximum(k, 1)
    stirling = _special().gammaln(n + 1) - n * np.log(n) + n
    correction = 1 / (12 * n) - 1 / (360 * n**3) + 1 / (1260 * n**5) - 1 / (1680 * n**7)
    stirling = np.where(n < 16, stirling, 0.5 * np.log(2 * np.pi * n) + correction)
    return np.where(k < 1, -rate, -deviance - stirling)


def _poisson_attempt(number: int, rate: Any, key0: Any, key1: Any, index: Any) -> tuple[Any, Any]:
    words = _words(key0, key1, index, number, _POISSON)
    u, v = (_fraction(_pair(*words[i : i + 2])) for i in (0, 2))
    u = u - 0.5
    b = 0.931 + 2.53 * np.sqrt(rate)
    a = -0.059 + 0.02483 * b
    scale = np.log(1.1239 + 1.1328 / (b - 3.4))
    room = 0.5 - np.abs(u)
    k = np.floor((2 * a / room + b) * u + rate + 0.43)
    inside = (k >= 0) & ((room >= 0.013) | (v <= room))
    bound = _log_poisson(np.maximum(k, 0), rate)
    taken = np.log(v) + scale - np.log(a / (room * room) + b) <= bound
    sure = (room >= 0.07) & (v <= 0.9277 - 3.6224 / (b - 2))
    return k, sure | (inside & taken)


def _fraction(bits: Any) -> Any:
    return ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def _inverted(rate: Any, u: Any) -> Any:
    k, p = np.zeros_like(rate), np.exp(-rate)
    total = p
    for n in range(1, 101):
        below = total < u
        if not np.any(below):
            break
        k = np.where(below, n, k)
        p = p * rate / n
        total = total + p
    return k


def _poisson_sample(rate: Any, key0: Any, key1: Any, index: Any) -> Any:
    rate = rate.astype(np.float64)
    valid = (rate >= 0) & (rate <= 2.0**62)
    small = rate < 10
    words = _words(key0, key1, index, 0, _POISSON)
    few = _inverted(np.where(valid & small, rate, 0.0), _fraction(_pair(*words[:2])))
    large = np.where(valid & ~small, rate, 100.0)
    many = _until_accepted(_poisson_attempt, large, key0, key1, index)
    return np.where(valid, np.where(small, few, many), -1).astype(np.int64)


def _infer(name: str, result: Dtype | None) -> Callable[..., TensorType]:
    def infer(
        parameter: TensorType, key0: TensorType, key1: TensorType, index: TensorType
    ) -> TensorType:
        types = (parameter, key0, key1, index)
        if any(type.shape != parameter.shape for type in types):
            raise ShapeError(f"{name}: operands of shapes {[type.shape for type in types]} differ")
        if not parameter.is_float or [type.dtype for type in types[1:]] != [_U32, _U32, _U64]:
            raise DtypeError(
                f"{name}: takes a float, two uint32 and a uint64, not "
                f"{[str(type.dtype) for type in types]}"
            )
        return TensorType(parameter.dtype if result is None else result, parameter.shape)

    return infer


def _infer_slope(alpha: TensorType, log_x: TensorType) -> TensorType:
    if alpha.shape != log_x.shape:
        raise ShapeError(f"loggamma_slope: operands of shapes {[alpha.shape, log_x.shape]} differ")
    if not alpha.is_float or alpha.dtype != log_x.dtype:
        raise DtypeError(f"loggamma_slope: takes two floats of one dtype, not {alpha} and {log_x}")
    return alpha


def _slope_rule(g: Any, out: Any, alpha: Any, log_x: Any) -> tuple[None, Any]:
    """By log_x, from slope = -(dP/da) / q, q the density of log_x."""
    return None, g * (special.psi(alpha) - log_x - out * (alpha - np.exp(log_x)))


#: (alpha, log_x): the derivative of a loggamma_sample log_x by its shape alpha.
loggamma_slope = Op(
    "loggamma_slope",
    "pointwise",
    _infer_slope,
    _loggamma_slope,
    _slope_rule,
    domain=((0.5, 4.0), (-1.0, 1.5)),
    undifferentiated={0: "the second derivative of a gamma sample by its shape has no closed form"},
)
#: (alpha, key0, key1, index): the logarithm of a sample of the gamma distribution of shape alpha.
loggamma_sample = Op(
    "loggamma_sample",
    "pointwise",
    _infer("loggamma_sample", None),
    _loggamma_sample,
    lambda g, out, alpha, key0, key1, index: (g * loggamma_slope(alpha, out), None, None, None),
)
#: (rate, key0, key1, index): a sample of the Poisson distribution, as int64.
poisson_sample = Op(
    "poisson_sample",
    "pointwise",
    _infer("poisson_sample", _I64),
    _poisson_sample,
    None,
    "its result is not a float",
)
