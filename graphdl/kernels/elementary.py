"""Elementary functions as branch-free formulas that LLVM turns into SIMD code.

Every function is written once over `Value`s for float32 and float64, with an error of at most 2 ulp
over the whole range, and right for NaN, infinities, signed zeros and subnormals. There are no
tables, for LLVM makes slow gathers of them, and no function divides more than once.

The coefficients are our own fits (`tools/fit_coefficients.py`). Range reductions rely on `fma`
being fused: n * hi is subtracted exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from msgspec import Struct

from graphdl.kernels import coefficients
from graphdl.kernels.arithmetic import integer_power
from graphdl.kernels.scalar import Scalar

if TYPE_CHECKING:
    from graphdl.kernels.value import Value

INF: Final = float("inf")
NAN: Final = float("nan")


class Format(Struct, frozen=True):
    """What the formulas need to know of a floating point type."""

    mantissa: int  # bits stored
    bias: int
    # 1.5 * 2^mantissa: adding it rounds to an integer, which then stands in the low bits.
    magic: float
    one: int  # the bits of 1.0
    sqrt_half: int  # the bits of sqrt(1/2)
    tiny: float  # the smallest normal number
    # ln(2) = ln2_hi + ln2_lo, both rounded to the type; likewise the others.
    ln2: tuple[float, float]
    log2_e: tuple[float, float]
    log10_e: tuple[float, float]
    log10_2: tuple[float, float]
    pi_half: tuple[float, float, float]
    exp_range: tuple[float, float]  # exp is 0 below and infinite above
    exp2_range: tuple[float, float]
    tanh_limit: float  # tanh(limit) rounds to 1
    erf_limit: float  # 1 - erf(limit) is
    erfc_limit: float  # erfc(limit) rounds to 0
    angle_limit: float  # up to which subtracting multiples of pi/2 in three parts is accurate


FORMATS: Final = {
    "float32": Format(
        mantissa=23,
        bias=127,
        magic=1.5 * 2.0**23,
        one=0x3F800000,
        sqrt_half=0x3F3504F3,
        tiny=2.0**-126,
        ln2=(0.6931471824645996, -1.9046542121259336e-09),
        log2_e=(1.4426950216293335, 1.925963033500011e-08),
        log10_e=(0.4342944920063019, -1.0103049952192578e-08),
        log10_2=(0.3010300099849701, -1.432098883924482e-08),
        pi_half=(1.5707963705062866, -4.371138828673793e-08, -1.7151245100058819e-15),
        exp_range=(-104.0, 89.0),
        exp2_range=(-151.0, 129.0),
        tanh_limit=10.0,
        erf_limit=4.0,
        erfc_limit=10.2,
        angle_limit=30000.0,
    ),
    "float64": Format(
        mantissa=52,
        bias=1023,
        magic=1.5 * 2.0**52,
        one=0x3FF0000000000000,
        sqrt_half=0x3FE6A09E667F3BCD,
        tiny=2.0**-1022,
        ln2=(0.6931471805599453, 2.3190468138462996e-17),
        log2_e=(1.4426950408889634, 2.0355273740931033e-17),
        log10_e=(0.4342944819032518, 1.098319650216765e-17),
        log10_2=(0.3010299956639812, -2.8037281277851704e-18),
        pi_half=(1.5707963267948966, 6.123233995736766e-17, -1.4973849048591698e-33),
        exp_range=(-746.0, 710.0),
        exp2_range=(-1076.0, 1025.0),
        tanh_limit=20.0,
        erf_limit=6.0,
        erfc_limit=27.3,
        angle_limit=1e9,
    ),
}


# Building blocks


def polynomial(x: Value, terms: Sequence[float]) -> Value:
    """The polynomial with these coefficients, lowest power first.

    By Estrin's scheme: pairs of coefficients become those of a polynomial in x^2, and so on. Its
    chains of dependent operations are short, where Horner's rule would leave the multipliers
    waiting.
    """
    values = [x.literal(term) for term in terms]
    while len(values) > 3:
        pairs = [b.fma(x, a) for a, b in zip(values[::2], values[1::2], strict=False)]
        values = [*pairs, values[-1]] if len(values) % 2 else pairs
        x = x * x
    value = values[-1]
    for term in values[-2::-1]:
        value = value.fma(x, term)
    return value


def at_most(x: Value, limit: float) -> Value:
    """min(x, limit) that keeps NaN."""
    return (x > limit).select(limit, x)


def at_least(x: Value, limit: float) -> Value:
    """max(x, limit) that keeps NaN."""
    return (x < limit).select(limit, x)


def two_sum(large: Value, small: Value) -> tuple[Value, Value]:
    """large + small, rounded, and its error; exact where |large| >= |small|."""
    total = large + small
    return total, (large - total) + small


# Exponentials


def reduce_exp(x: Value, bias: int) -> tuple[Value, Value, Value]:
    """x = n ln(2) + r + r_low, |r| <= ln(2)/2: integer bits that end in n + bias, r and r_low."""
    f = FORMATS[x.dtype]
    shifted = x.fma(f.log2_e[0], f.magic + bias)
    n = shifted - (f.magic + bias)
    exact = n.fma(-f.ln2[0], x)
    r = n.fma(-f.ln2[1], exact)
    return shifted.bits(), r, n.fma(-f.ln2[1], exact - r)


def expm1_reduced(r: Value, r_low: Value | None = None) -> Value:
    """exp(r + r_low) - 1 for |r| <= ln(2)/2."""
    square, tail = r * r, polynomial(r, coefficients.EXPM1_TAIL[r.dtype])
    return square.fma(tail, r) if r_low is None else r + square.fma(tail, r_low)


def power_of_2(bits: Value) -> Value:
    """2^n for -bias < n <= bias, from bits that end in n + bias."""
    f = FORMATS[f"float{bits.width}"]
    return (bits << f.mantissa).as_float()


def scale(y: Value, bits: Value) -> Value:
    """y * 2^n, from bits that end in n + 2 * bias; the product may overflow or be subnormal.

    Two factors of half the exponent each are in range wherever the product is.
    """
    half = bits.shift_logical(1)
    return y * power_of_2(half) * power_of_2(bits - half)


def scaled_by_halves(e: Value, bits: Value) -> Value:
    """(1 + e) * 2^n as by `scale`, the sum and the first factor in one operation."""
    half = bits.shift_logical(1)
    first = power_of_2(half)
    return e.fma(first, first) * power_of_2(bits - half)


def exp(x: Value) -> Value:
    f = FORMATS[x.dtype]
    low, high = f.exp_range
    bits, r, _ = reduce_exp(at_most(at_least(x, low), high), 2 * f.bias)
    return scaled_by_halves(expm1_reduced(r), bits)


def exp_nonpositive(x: Value) -> Value:
    """exp(x) for x <= 0, with the very results of `exp`.

    2^(n + shift) is normal for all n that count, so that a constant takes the shift away again,
    and rounds where the result is subnormal.
    """
    f = FORMATS[x.dtype]
    shift = f.mantissa + 1
    clamped = at_most(at_least(x, f.exp_range[0]), 1.0)
    bits, r, _ = reduce_exp(clamped, f.bias + shift)
    s = power_of_2(bits)
    return expm1_reduced(r).fma(s, s) * 2.0**-shift


def exp2(x: Value) -> Value:
    f = FORMATS[x.dtype]
    low, high = f.exp2_range
    x = at_most(at_least(x, low), high)
    shifted = x + (f.magic + 2 * f.bias)
    r = x - (shifted - (f.magic + 2 * f.bias))
    return scaled_by_halves(expm1_reduced(r * f.ln2[0]), shifted.bits())


def expm1(x: Value) -> Value:
    f = FORMATS[x.dtype]
    # 2^(n-1) is in range for every n, so the sum is formed at half its size. Far below
    # -tanh_limit it has been -1 for long.
    clamped = at_most(at_least(x, -f.tanh_limit * 4), f.exp_range[1])
    bits, r, r_low = reduce_exp(clamped, f.bias - 1)
    half = power_of_2(bits)
    y = half.fma(expm1_reduced(r, r_low), half - 0.5) * 2.0
    # Halving a subnormal number would lose its last bit; this also keeps -0.
    return (abs(x) < 2.0 ** -(f.mantissa + 2)).select(x, y)


def tanh(x: Value) -> Value:
    """x + x^3 P(x^2) up to |x| = 0.55, and 1 - 2 / (1 + exp(2|x|)) beyond."""
    f = FORMATS[x.dtype]
    size = at_most(abs(x), f.tanh_limit)
    square = size * size
    near = (size * square).fma(polynomial(square, coefficients.TANH_TAIL[x.dtype]), size)
    # exp(2 size) = 2^n (1 + 2 e) with size = n ln(2) / 2 + r: `size` need not be doubled
    shifted = size.fma(2.0 * f.log2_e[0], f.magic + f.bias)
    n = shifted - (f.magic + f.bias)
    r = n.fma(-0.5 * f.ln2[1], n.fma(-0.5 * f.ln2[0], size))
    tail = [term * 2.0 ** (i + 1) for i, term in enumerate(coefficients.EXPM1_TAIL[x.dtype])]
    e = (r * r).fma(polynomial(r, tail), r)
    s = power_of_2(shifted.bits())
    far = 1.0 - 1.0 / s.fma(e, s.fma(0.5, 0.5))
    return (size < 0.55).select(near, far).copysign(x)


def sigmoid(x: Value) -> Value:
    """1 / (1 + exp(-x)).

    Numerator and denominator are both multiplied by a power of 2, for exp(-x) may overflow.
    """
    f = FORMATS[x.dtype]
    shift = f.mantissa + 1
    x = at_most(at_least(x, f.exp_range[0]), 2 * f.tanh_limit)
    bits, r, _ = reduce_exp(-x, f.bias - shift)
    s = power_of_2(bits)
    t = x.literal(2.0**-shift)
    whole, low = two_sum(s, t)  # exp(-x) below 1 may lose low: it is too small to matter then
    return t / (whole + expm1_reduced(r).fma(s, low))


# Logarithms


def split_exponent(x: Value) -> tuple[Value, Value, Value]:
    """x = 2^k m with sqrt(1/2) <= m < sqrt(2), for positive normal x: m, k, and k in the place of
    the exponent's bits."""
    f = FORMATS[x.dtype]
    biased = x.bits() + (f.one - f.sqrt_half)  # its exponent is k + bias
    m = ((biased & ((1 << f.mantissa) - 1)) + f.sqrt_half).as_float()
    exponent = biased.shift_logical(f.mantissa)
    carrier = 2.0**f.mantissa  # or-ing an integer into its bits adds the integer
    k = (exponent | x.literal(carrier).bits()).as_float() - (carrier + f.bias)
    return m, k, biased


def log1p_reduced(g: Value) -> Value:
    """log(1 + g) - g for sqrt(1/2) <= 1 + g <= sqrt(2)."""
    square = g * g
    return square.fma(-0.5, (square * g) * polynomial(g, coefficients.LOG1P_TAIL[g.dtype]))


def normal_and_shift(x: Value) -> tuple[Value, Value]:
    """x, or x times 2^mantissa where it is subnormal, and the exponent to add: 0 or -mantissa."""
    f = FORMATS[x.dtype]
    subnormal = x < f.tiny
    return (
        subnormal.select(x * 2.0**f.mantissa, x),
        subnormal.select(x.literal(-float(f.mantissa)), 0.0),
    )


def logarithm_specials(x: Value, y: Value) -> Value:
    """y, or what a logarithm of x is where x is not a positive finite number."""
    y = (x < INF).select(y, x)
    return (x > 0.0).select(y, (x == 0.0).select(y.literal(-INF), NAN))


def log(x: Value) -> Value:
    f = FORMATS[x.dtype]
    normal, shift = normal_and_shift(x)
    m, k, _ = split_exponent(normal)
    k = k + shift
    g = m - 1.0
    c = log1p_reduced(g)
    return logarithm_specials(x, k.fma(f.ln2[0], g + k.fma(f.ln2[1], c)))


def log2(x: Value) -> Value:
    f = FORMATS[x.dtype]
    normal, shift = normal_and_shift(x)
    m, k, _ = split_exponent(normal)
    g = m - 1.0
    c = log1p_reduced(g)
    high, low = f.log2_e
    y = g.fma(high, c.fma(high, g * low))
    return logarithm_specials(x, (k + shift) + y)


def log10(x: Value) -> Value:
    f = FORMATS[x.dtype]
    normal, shift = normal_and_shift(x)
    m, k, _ = split_exponent(normal)
    k = k + shift
    g = m - 1.0
    c = log1p_reduced(g)
    high, low = f.log10_e
    y = g.fma(high, c.fma(high, k.fma(f.log10_2[1], g * low)))
    return logarithm_specials(x, k.fma(f.log10_2[0], y))


def log1p_finite(x: Value, x_low: Value | None = None) -> Value:
    """log(1 + x + x_low) for finite x > -1, where x_low is below an ulp or so of x."""
    f = FORMATS[x.dtype]
    # 1 + x = 2^k (1 + g): g = 2^-k x + (2^-k - 1) rounds once, and is x itself where k = 0.
    m, k, biased = split_exponent(x + 1.0)
    whole = biased & ~((1 << f.mantissa) - 1)  # (k + bias) in the place of the exponent
    s = (2 * f.one - whole).as_float()
    huge = x > 2.0 ** (2 * f.mantissa)  # then s may be out of range
    g = huge.select(m - 1.0, s.fma(x, s - 1.0))
    c = log1p_reduced(g)
    if x_low is not None:  # its derivative is 1 / (1 + g), of which a few digits will do
        c = huge.select(0.0, x_low * s).fma(polynomial(g, (1.0, -0.97, 0.8)), c)
    return k.fma(f.ln2[0], g + k.fma(f.ln2[1], c)).copysign(x)


def log1p(x: Value) -> Value:
    y = (x < INF).select(log1p_finite(x), x)
    return (x > -1.0).select(y, (x == -1.0).select(y.literal(-INF), NAN))


def softplus(x: Value) -> Value:
    """log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|)): both terms are positive."""
    f = FORMATS[x.dtype]
    e = exp(-abs(x))
    # 1 + e lies in [1, 2]; where it is above sqrt(2), log(1 + e) = ln(2) + log1p((e - 1) / 2).
    large = e > math.sqrt(2) - 1
    g = large.select(e.fma(0.5, -0.5), e)
    c = log1p_reduced(g)
    ln2 = large.select(x.literal(f.ln2[0]), 0.0)
    ln2_low = large.select(x.literal(f.ln2[1]), 0.0)
    return ln2 + ((x < 0.0).select(0.0, x) + (g + (c + ln2_low)))


def in_float64(formula: Callable[[Value, Value], Value]) -> Callable[[Value, Value], Value]:
    """The formula, evaluated in float64 also for float32."""

    def wide(x: Value, y: Value) -> Value:
        return formula(x.convert("float64"), y.convert("float64")).convert(x.dtype)

    return wide


def larger_and_difference(x: Value, y: Value) -> tuple[Value, Value]:
    """max(x, y) and -|x - y|, which is 0 for equal infinities; NaN if one of them is NaN."""
    above = x > y
    high, low = above.select(x, y), above.select(y, x)
    nan = x.is_nan() | y.is_nan()
    return nan.select(x + y, high), (x == y).select(0.0, low - high)


def logaddexp_in_own_type(x: Value, y: Value) -> Value:
    """log(exp(x) + exp(y)) = max + log1p(exp(min - max)).

    Where these two terms nearly cancel, which is where both x and y are below 0 and the result is
    near 0, its error is 2 ulp of the larger one of |x| and |y| in float64, not of the result.
    """
    high, difference = larger_and_difference(x, y)
    return high + log1p_finite(exp(difference))


def logaddexp2_in_own_type(x: Value, y: Value) -> Value:
    """log2(2^x + 2^y), with the error of `logaddexp`."""
    f = FORMATS[x.dtype]
    high, difference = larger_and_difference(x, y)
    log = log1p_finite(exp2(difference))
    return high + log.fma(f.log2_e[0], log * f.log2_e[1])


logaddexp = in_float64(logaddexp_in_own_type)
logaddexp2 = in_float64(logaddexp2_in_own_type)


# Hyperbolic functions and their inverses


def half_exp(x: Value) -> Value:
    """exp(x) / 2, finite as long as cosh(x) is."""
    f = FORMATS[x.dtype]
    bits, r, _ = reduce_exp(at_most(x, f.exp_range[1] + 1.0), 2 * f.bias - 1)
    return scaled_by_halves(expm1_reduced(r), bits)


def sinh(x: Value) -> Value:
    size = abs(x)
    square = size * size
    near = (size * square).fma(polynomial(square, coefficients.SINH_TAIL[x.dtype]), size)
    half = half_exp(size)
    return (size < 1.0).select(near, half - 0.25 / half).copysign(x)


def cosh(x: Value) -> Value:
    half = half_exp(abs(x))
    return half + 0.25 / half


def log1p_of_large(x: Value, u: Value, u_low: Value) -> Value:
    """log(1 + u + u_low), or log(2 x) where x is so large that u, about 2 x, overflows."""
    f = FORMATS[x.dtype]
    large = x > 2.0**f.mantissa
    y = log1p_finite(large.select(x, u), large.select(0.0, u_low))
    y = y + large.select(x.literal(f.ln2[0]), 0.0)
    return (x < INF).select(y, x)


def arcsinh(x: Value) -> Value:
    """log1p(a + a^2 / (1 + sqrt(1 + a^2))), a = |x|."""
    f = FORMATS[x.dtype]
    size = abs(x)
    a = at_most(size, 2.0**f.mantissa)
    root = a.fma(a, 1.0).sqrt()
    u, u_low = two_sum(a, a * (a / (root + 1.0)))
    return log1p_of_large(size, u, u_low).copysign(x)


def arccosh(x: Value) -> Value:
    """log1p(t + sqrt(t^2 + 2 t)), t = x - 1."""
    f = FORMATS[x.dtype]
    t = at_most(x, 2.0**f.mantissa) - 1.0
    u, u_low = two_sum(t.fma(t, t + t).sqrt(), t)
    return (x >= 1.0).select(log1p_of_large(x, u, u_low), NAN)


def arctanh(x: Value) -> Value:
    """log1p(2 a / (1 - a)) / 2, a = |x|."""
    a = abs(x)
    d, d_low = two_sum(x.literal(1.0), -a)
    y = 1.0 / d
    u = (a + a) * y
    u_low = (-u).fma(d_low, (-u).fma(d, a + a)) * y
    value = log1p_finite(u, u_low) * 0.5
    value = (a < 1.0).select(value, (a == 1.0).select(value.literal(INF), NAN))
    return value.copysign(x)


# Roots


def cbrt(x: Value) -> Value:
    """m y^2 for x = m 2^(3 j), y = m^(-1/3) by Halley's steps from a polynomial."""
    f = FORMATS[x.dtype]
    size = abs(x)
    subnormal = size < f.tiny
    # A multiple of 3 and of the bits that make a subnormal number normal.
    up = 3 * ((f.mantissa + 3) // 3)
    m, k, _ = split_exponent(subnormal.select(size * 2.0**up, size))
    shifted = k.fma(1 / 3, f.magic + f.bias)
    j = shifted - (f.magic + f.bias)
    m = m * power_of_2(((k - j * 3.0) + (f.magic + f.bias)).bits())
    y = polynomial(m, coefficients.INVERSE_CBRT[x.dtype])
    for _ in range(1 if x.dtype == "float32" else 2):
        e = (-(m * y)).fma(y * y, 1.0)
        y = y.fma(e * e.fma(2 / 9, 1 / 3), y)
    c = m * y * y
    c = ((-(c * c)).fma(c, m) * (y * y)).fma(1 / 3, c)
    root = c * power_of_2(shifted.bits()) * subnormal.select(x.literal(2.0 ** -(up // 3)), 1.0)
    return ((size < INF) & (size > 0.0)).select(root, size).copysign(x)


def hypot(x: Value, y: Value) -> Value:
    if x.dtype == "float32":  # the squares are exact in float64, and do not overflow
        a, b = x.convert("float64"), y.convert("float64")
        root = a.fma(a, b * b).sqrt().convert("float32")
    else:
        a, b = abs(x), abs(y)
        high, low = (a > b).select(a, b), (a > b).select(b, a)
        up, down = 2.0**600, 2.0**-600
        large, tiny = high > 2.0**500, high < 2.0**-400
        factor = large.select(down, tiny.select(x.literal(up), 1.0))
        back = large.select(up, tiny.select(x.literal(down), 1.0))
        high, low = high * factor, low * factor
        root = high.fma(high, low * low).sqrt() * back
    infinite = (abs(x) == INF) | (abs(y) == INF)
    return infinite.select(INF, root)


# Trigonometric functions


def quarter_turns(x: Value) -> tuple[Value, Value]:
    """The integer nearest to x / (pi/2), and integer bits that end in it."""
    magic = FORMATS[x.dtype].magic
    shifted = x.fma(2 / math.pi, magic)
    return shifted - magic, shifted.bits()


def reduce_angle(x: Value) -> tuple[Value, Value]:
    """x = q pi/2 + r, |r| <= pi/4, for |x| <= angle_limit: bits that end in q, r to an ulp."""
    n, quadrant = quarter_turns(x)
    r = x
    for part in FORMATS[x.dtype].pi_half:  # the first subtraction is exact
        r = n.fma(-part, r)
    return quadrant, r


def reduce_angle_twice(x: Value) -> tuple[Value, Value, Value]:
    """x = q pi/2 + r + r_low as in `reduce_angle`, but r_low makes up for the rounding of r."""
    n, quadrant = quarter_turns(x)
    first, second, third = FORMATS[x.dtype].pi_half
    exact = n.fma(-first, x)
    p = n * second
    r = exact - p
    rounded = r - exact  # Knuth's sum, for either of the two may be the larger one
    error = (exact - (r - rounded)) - (p + rounded)
    return quadrant, r, n.fma(-third, error - n.fma(second, -p))


def sine_and_cosine(r: Value, r_low: Value | None = None) -> tuple[Value, Value]:
    """sin and cos of r + r_low, |r| <= pi/4."""
    z = r * r
    s = z * polynomial(z, coefficients.SIN_TAIL[r.dtype])
    s = r.fma(s, r) if r_low is None else r + r.fma(s, r_low)
    c = (z * z).fma(polynomial(z, coefficients.COS_TAIL[r.dtype]), z.fma(-0.5, 1.0))
    return s, c if r_low is None else c - r * r_low


def of_quadrant(quadrant: Value, s: Value, c: Value) -> Value:
    """sin(q pi/2 + r) by sin(r) and cos(r), from integer bits that end in q."""
    y = ((quadrant & 1) != 0).select(c, s)
    return (y.bits() ^ ((quadrant & 2) << (y.width - 2))).as_float()


def sin(x: Value) -> Value:
    quadrant, r = reduce_angle(x)
    # x = -0 gives +0 otherwise.
    return (x == 0.0).select(x, of_quadrant(quadrant, *sine_and_cosine(r)))


def cos(x: Value) -> Value:
    quadrant, r = reduce_angle(x)
    return of_quadrant(quadrant + 1, *sine_and_cosine(r))


def tangent_of_quadrant(quadrant: Value, r: Value, r_low: Value) -> Value:
    """tan(q pi/2 + r + r_low) as sin(r) / cos(r) or -cos(r) / sin(r), with low parts."""
    z = r * r
    s_tail = r.fma(z * polynomial(z, coefficients.SIN_TAIL[r.dtype]), r_low)
    c_tail = (z * z).fma(polynomial(z, coefficients.COS_TAIL[r.dtype]), z * -0.5) - r * r_low
    s, c = r + s_tail, c_tail + 1.0
    s_low, c_low = (r - s) + s_tail, (1.0 - c) + c_tail
    odd = (quadrant & 1) != 0
    top, top_low = odd.select(-c, s), odd.select(-c_low, s_low)
    bottom, bottom_low = odd.select(s, c), odd.select(s_low, c_low)
    y = 1.0 / bottom
    q = top * y
    rest = (-q).fma(bottom_low, (-q).fma(bottom, top) + top_low)
    return rest.fma(y, q)


def tan(x: Value) -> Value:
    return (x == 0.0).select(x, tangent_of_quadrant(*reduce_angle_twice(x)))


def is_small_angle(x: Value) -> Value:
    """True where `reduce_angle` is accurate, and for NaN."""
    return ~(abs(x) > FORMATS[x.dtype].angle_limit)


def bits_of_two_over_pi(words: int) -> tuple[int, ...]:
    """floor(2/pi * 2^(64 words)) in words of 64 bits, the highest first, by integers alone.

    Machin's formula: pi/4 = 4 atan(1/5) - atan(1/239).
    """
    guard = 64 * (words + 2)

    def atan_of_inverse(n: int) -> int:
        total, term, k = 0, (1 << guard) // n, 0
        while term:
            total += (-1) ** k * (term // (2 * k + 1))
            term, k = term // (n * n), k + 1
        return total

    pi = 4 * (4 * atan_of_inverse(5) - atan_of_inverse(239))
    ratio = (1 << (2 * guard + 1)) // pi >> 128
    return tuple((ratio >> (64 * i)) & (2**64 - 1) for i in reversed(range(words)))


# One word of zeros before them, and as many bits as the largest float64 needs with 192 to spare.
TWO_OVER_PI: Final = (0, *bits_of_two_over_pi(19))


def reduce_any_angle(x: Value) -> tuple[Value, Value, Value]:
    """x = q pi/2 + r + r_low, |r| <= pi/4, for a finite float64 scalar, |x| >= 1.

    The method of Payne and Hanek: of the bits of 2/pi only those count that give the product with
    x its last two bits before the point and the 190 bits after it.
    """
    f = FORMATS["float64"]
    bits = abs(x).bits().convert("uint64")
    mantissa = (bits & ((1 << f.mantissa) - 1)) | (1 << f.mantissa)
    exponent = (bits >> f.mantissa) - (f.bias + f.mantissa)  # x = mantissa * 2^exponent
    first = exponent + (64 - 2)  # the first bit of the table that counts
    word, shift = first >> 6, first & 63
    window = x.literal(0, "uint256")
    for i in range(4):
        part = (word + i).lookup("graphdl.two_over_pi", TWO_OVER_PI).convert("uint256")
        window = window | (part << (192 - 64 * i))
    window = ((window << shift.convert("uint256")) >> 64).convert("uint192")
    product = window * mantissa.convert("uint192")  # x * 2/pi modulo 4, in units of 2^-190
    fraction = product << 2
    above = fraction.convert("int192") < 0  # a half or more: count down from the next quadrant
    quadrant = (product >> 190).convert("int64") + above.convert("int64")
    size = above.select(-fraction, fraction)
    high, low = (size >> 128).convert("uint64"), (size >> 64).convert("uint64")
    head = ((high >> 11) << 11).convert("float64") * 2.0**-64
    tail = (high & 0x7FF).convert("float64") * 2.0**-64 + low.convert("float64") * 2.0**-128
    sum_ = head + tail
    rest = (head - sum_) + tail
    r = sum_ * f.pi_half[0]
    r_low = sum_.fma(f.pi_half[0], -r) + (sum_ * f.pi_half[1] + rest * f.pi_half[0])
    down = above != (x < 0.0)
    return (x < 0.0).select(-quadrant, quadrant), down.select(-r, r), down.select(-r_low, r_low)


def of_any_angle(evaluate: Callable[[Value, Value, Value], Value]) -> Callable[[Value], Value]:
    """A trigonometric function of finite scalars; infinite angles give NaN."""

    def formula(x: Value) -> Value:
        y = evaluate(*reduce_any_angle(x.convert("float64"))).convert(x.dtype)
        return (abs(x) < INF).select(y, NAN)

    return formula


sin_of_any = of_any_angle(lambda q, r, low: of_quadrant(q, *sine_and_cosine(r, low)))
cos_of_any = of_any_angle(lambda q, r, low: of_quadrant(q + 1, *sine_and_cosine(r, low)))
tan_of_any = of_any_angle(tangent_of_quadrant)


# Inverse trigonometric functions


def arcsine_parts(x: Value) -> tuple[Value, Value, Value, Value]:
    """Whether |x| > 1/2, and s + s_low + p = arcsin(|x|) or, if so, arcsin(sqrt((1 - |x|) / 2))."""
    size = abs(x)
    large = size > 0.5
    z = large.select(size.fma(-0.5, 0.5), size * size)
    s = large.select(z.sqrt(), size)
    # The error of the root, (z - s^2) / (2 s); 1 / (2 s) matters for s in [0.3, 0.5] only.
    s_low = large.select((-s).fma(s, z) * s.fma(-3.0, 2.5), 0.0)
    return large, s, s_low, (z * s) * polynomial(z, coefficients.ASIN_TAIL[x.dtype])


def arcsin(x: Value) -> Value:
    f = FORMATS[x.dtype]
    large, s, s_low, p = arcsine_parts(x)
    far = f.pi_half[0] - 2.0 * (s + ((p + s_low) - f.pi_half[1] / 2))
    return large.select(far, s + p).copysign(x)


def arccos(x: Value) -> Value:
    f = FORMATS[x.dtype]
    large, s, s_low, p = arcsine_parts(x)
    negative = x < 0.0
    near = (s + (p + s_low)) * 2.0
    opposite = 2.0 * (f.pi_half[0] - (s + ((p + s_low) - f.pi_half[1])))
    middle = f.pi_half[0] - (s.copysign(x) + (p.copysign(x) - f.pi_half[1]))
    return large.select(negative.select(opposite, near), middle)


def angle_parts(low: Value, high: Value) -> tuple[Value, Value, Value]:
    """atan(low / high) = k pi/4 + t + t_low for 0 <= low <= high, 0 < high; k is 0 or 1.

    Where the ratio is above tan(pi/8), it is atan((low - high) / (low + high)) + pi/4.
    """
    diagonal = low > high * (math.sqrt(2) - 1)
    total, total_low = two_sum(high, low)
    rest, rest_low = two_sum(-high, low)
    top, top_low = diagonal.select(rest, low), diagonal.select(rest_low, 0.0)
    bottom, bottom_low = diagonal.select(total, high), diagonal.select(total_low, 0.0)
    y = 1.0 / bottom
    t = top * y
    error = (-t).fma(bottom_low, (-t).fma(bottom, top) + top_low) * y
    z = t * t
    tail = (z * t).fma(polynomial(z, coefficients.ATAN_TAIL[t.dtype]), error)
    return diagonal.select(t.literal(1.0), 0.0), t, tail


def in_octant(k: Value, flip: Value, t: Value, tail: Value) -> Value:
    """k pi/4 + (t + tail), or k pi/4 - (t + tail) where `flip`."""
    high, low = (part / 2 for part in FORMATS[t.dtype].pi_half[:2])
    base = k * high
    base_low = k.fma(high, -base) + k * low
    return base + (flip.select(-t, t) + (flip.select(-tail, tail) + base_low))


def arctan(x: Value) -> Value:
    size = at_most(abs(x), 2.0**100)  # whose arctan rounds to pi/2
    steep = size > 1.0
    k, t, tail = angle_parts(steep.select(1.0, size), steep.select(size, 1.0))
    return in_octant(steep.select(2.0 - k, k), steep, t, tail).copysign(x)


def arctan2(y: Value, x: Value) -> Value:
    width, height = abs(x), abs(y)
    steep, left = height > width, x.bits() < 0
    low, high = steep.select(width, height), steep.select(height, width)
    # Keep sums and reciprocals in range; a ratio that is lost by this is 0 anyway.
    edge, factor = (2.0**100, 2.0**60) if x.dtype == "float32" else (2.0**900, 2.0**500)
    adjust = (high < 1 / edge).select(x.literal(factor), 1.0)
    adjust = (high > edge).select(1 / factor, adjust)
    infinite = high == INF
    low = infinite.select((low == INF).select(x.literal(1.0), 0.0), low * adjust)
    high = infinite.select(1.0, (high == 0.0).select(1.0, high * adjust))
    k, t, tail = angle_parts(low, high)
    k = steep.select(2.0 - k, k)
    angle = in_octant(left.select(4.0 - k, k), steep != left, t, tail)
    return (x.is_nan() | y.is_nan()).select(x + y, angle.copysign(y))


# Powers


def log2_in_two_parts(x: Value) -> tuple[Value, Value]:
    """log2 of a positive finite float64 as high + low, with a relative error below 2^-64.

    log(m) = 2 atanh(s), s = (m - 1) / (m + 1), whose first terms s + s^3/3 carry a low part.
    """
    f = FORMATS[x.dtype]
    normal, shift = normal_and_shift(x)
    m, k, _ = split_exponent(normal)
    k = k + shift
    g, d = m - 1.0, m + 1.0
    d_low = m - (d - 1.0)
    y = 1.0 / d
    s = g * y
    s_low = (-s).fma(d_low, (-s).fma(d, g)) * y
    z = s * s
    z_low = s.fma(s, -z) + (s + s) * s_low
    third, third_low = 0.3333333333333333, 1.850371707708594e-17
    v = z * third
    v_low = z.fma(third, -v) + (z * third_low + z_low * third)
    u = (z * z) * polynomial(z, coefficients.ATANH_TAIL[x.dtype])
    w = v + u
    w_low = ((v - w) + u) + v_low
    sw = s * w
    sw_low = s.fma(w, -sw) + (s * w_low + s_low * w)
    h = s + sw
    h_low = ((s - h) + sw) + (sw_low + s_low)
    factor, factor_low = 2 * f.log2_e[0], 2 * f.log2_e[1]
    e = h * factor
    e_low = h.fma(factor, -e) + (h * factor_low + h_low * factor)
    total = k + e
    return total, ((k - total) + e) + e_low


def power_of_positive(x: Value, y: Value) -> Value:
    """x^y for x >= 0, where x^y is not NaN nor 1 by rule."""
    if x.dtype == "float32":
        # In float64: no rounding matters, and no float32 is subnormal there.
        wide, exponent = x.convert("float64"), y.convert("float64")
        m, k, _ = split_exponent(wide)
        g = m - 1.0
        log = k + g * polynomial(g, coefficients.LOG2_OF_FLOAT32["float64"])
        log = logarithm_specials(wide, log)
        p = at_most(at_least(log * exponent, -400.0), 400.0)
        f = FORMATS["float64"]
        shifted = p + (f.magic + f.bias)
        r = p - (shifted - (f.magic + f.bias))
        scaled = polynomial(r, coefficients.EXP2_OF_FLOAT32["float64"]) * power_of_2(shifted.bits())
        return scaled.convert("float32")
    f = FORMATS[x.dtype]
    log, log_low = log2_in_two_parts(x)
    log = logarithm_specials(x, log)
    p = y * log
    p_low = y.fma(log, -p) + y * log_low
    low, high = f.exp2_range
    p_low = ((p > low) & (p < high)).select(p_low, 0.0)
    p = at_most(at_least(p, low), high)
    shifted = p + (f.magic + 2 * f.bias)
    r = (p - (shifted - (f.magic + 2 * f.bias))) + p_low
    return scaled_by_halves(expm1_reduced(r * f.ln2[0]), shifted.bits())


def power(x: Value, y: Value) -> Value:
    """x^y with the special cases of IEEE 754; integers modulo 2^width."""
    if not x.is_float:
        return integer_power(x, y)
    magnitude = power_of_positive(abs(x), y)
    whole, half = y.trunc() == y, y * 0.5
    odd = whole & (half.trunc() != half) & (abs(y) < INF)
    signed = ((x.bits() < 0) & odd).select(-magnitude, magnitude)
    undefined = (x < 0.0) & (x > -INF) & ~whole
    value = undefined.select(NAN, signed)
    size_one = (abs(x) == 1.0) & (abs(y) == INF)
    return ((x == 1.0) | (y == 0.0) | size_one).select(1.0, value)


# The error function


def erf(x: Value) -> Value:
    """x + x P(x^2) up to |x| = 1, and 1 - exp(-x^2) Q(|x|) beyond."""
    f = FORMATS[x.dtype]
    size = at_most(abs(x), f.erf_limit)
    square = size * size
    near = size.fma(polynomial(square, coefficients.ERF_NEAR[x.dtype]), size)
    bits, r, _ = reduce_exp(-square, f.bias)
    e = (expm1_reduced(r) + 1.0) * power_of_2(bits)
    far = (-e).fma(polynomial(size - 2.0, coefficients.ERF_FAR[x.dtype]), 1.0)
    return (size < 1.0).select(near, far).copysign(x)


def erfc(x: Value) -> Value:
    """1 - erf(x) up to 1/2, exp(-x^2) y Q(y), y = 1 / (x + 2), beyond; 2 - erfc(-x) for x < 0."""
    f = FORMATS[x.dtype]
    size = at_most(abs(x), f.erfc_limit)
    square = size * size
    near = 0.5 - size.fma(polynomial(square, coefficients.ERF_NEAR[x.dtype]), size - 0.5)
    square_low = size.fma(size, -square)
    bits, r, r_low = reduce_exp(-square, 2 * f.bias)
    e = expm1_reduced(r, r_low)
    d, d_low = two_sum(x.literal(2.0), size)
    y = 1.0 / d
    y_error = (-y).fma(d_low, (-y).fma(d, 1.0))
    first, *others = coefficients.ERFC_TAIL[x.dtype]
    base = float(np.dtype(x.dtype).type(1 + first))
    u = y - 0.25
    u_low = (y - (u + 0.25)) + y * y_error
    rest = polynomial(u, others[3:])
    for term in others[2::-1]:  # Estrin's scheme would round several sums of the first terms
        rest = rest.fma(u, term)
    t = u * rest
    q, q_low = two_sum(x.literal(base), t)
    slope = u.fma(2 * others[1], others[0])
    q_low = slope.fma(u_low, q_low + (u.fma(rest, -t) + ((1 - base) + first)))
    product = y * q
    product_low = product.fma(y_error - square_low, y.fma(q_low, y.fma(q, -product)))
    far = scale(product + e.fma(product, e.fma(product_low, product_low)), bits)
    value = (size < 0.5).select(near, far)
    # near is 1 - erf(|x|) there, and 1 + erf(|x|) = 2 - near
    return (x < 0.0).select(2.0 - value, value)


# Stand-ins for what NumPy has no function of its own


def _sigmoid(x: Any) -> Any:
    e = np.exp(-np.abs(x))  # scipy.special.expit is 0 where exp(x) is subnormal
    return np.where(x < 0, e, 1) / (1 + e)


def _power(x: Any, y: Any) -> Any:
    if np.asarray(x).dtype.kind == "f":
        return np.power(x, y)
    # NumPy raises for negative powers of integers.
    return np.where(y < 0, np.where(np.abs(x) == 1, x ** (y & 1), 0), x ** np.maximum(y, 0))


def _softplus(x: Any) -> Any:
    return np.asarray(np.logaddexp(x, np.zeros_like(x)))


def _outlined(
    name: str, formula: Callable[..., Value], reference: str, arity: int = 1, **more: Any
) -> Scalar:
    return Scalar(name, arity, formula, reference, outlined=True, **more)


ELEMENTARY: Final[dict[str, Scalar]] = {
    scalar.name: scalar
    for scalar in (
        _outlined("exp", exp, "numpy:exp"),
        _outlined("exp_nonpositive", exp_nonpositive, "numpy:exp"),
        _outlined("exp2", exp2, "numpy:exp2"),
        _outlined("expm1", expm1, "numpy:expm1"),
        _outlined("log", log, "numpy:log"),
        _outlined("log2", log2, "numpy:log2"),
        _outlined("log10", log10, "numpy:log10"),
        _outlined("log1p", log1p, "numpy:log1p"),
        _outlined("tanh", tanh, "numpy:tanh"),
        _outlined("sigmoid", sigmoid, f"{__name__}:_sigmoid"),
        _outlined("sin", sin, "numpy:sin", usual=is_small_angle, rare=sin_of_any),
        _outlined("cos", cos, "numpy:cos", usual=is_small_angle, rare=cos_of_any),
        _outlined("tan", tan, "numpy:tan", usual=is_small_angle, rare=tan_of_any),
        _outlined("arcsin", arcsin, "numpy:arcsin"),
        _outlined("arccos", arccos, "numpy:arccos"),
        _outlined("arctan", arctan, "numpy:arctan"),
        _outlined("arctan2", arctan2, "numpy:arctan2", 2),
        _outlined("sinh", sinh, "numpy:sinh"),
        _outlined("cosh", cosh, "numpy:cosh"),
        _outlined("arcsinh", arcsinh, "numpy:arcsinh"),
        _outlined("arccosh", arccosh, "numpy:arccosh"),
        _outlined("arctanh", arctanh, "numpy:arctanh"),
        _outlined("cbrt", cbrt, "numpy:cbrt"),
        _outlined("hypot", hypot, "numpy:hypot", 2),
        _outlined("logaddexp", logaddexp, "numpy:logaddexp", 2),
        _outlined("logaddexp2", logaddexp2, "numpy:logaddexp2", 2),
        _outlined("erfc", erfc, "scipy.special:erfc"),
        _outlined("power", power, f"{__name__}:_power", 2),
        _outlined("erf", erf, "scipy.special:erf"),
        _outlined("softplus", softplus, f"{__name__}:_softplus"),
    )
}
