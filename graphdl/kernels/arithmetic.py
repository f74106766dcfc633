"""Scalar operations other than the elementary functions, with NumPy's semantics.

Every formula keeps the dtype it is given (the caller casts operands as NumPy's promotion says) and
gives what NumPy's loop of that dtype gives: integers wrap around, an integer divided by 0 is 0,
`maximum` propagates NaN, shifts beyond the width give 0 or the sign. Floats are float32 and
float64.

What C leaves to the platform, and NumPy with it, is settled so: a float that does not fit an
integer is cast as on x86-64, through int32 for 8 and 16 bits, and NaN or too large a number gives
the smallest int32 or int64; the integer reciprocal of 0 is the smallest integer; an integer to a
negative power, for which NumPy raises, is the reciprocal rounded towards 0.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from msgspec.structs import replace

from graphdl.kernels import integer_division
from graphdl.kernels.scalar import ResultRule, Scalar, same

if TYPE_CHECKING:
    from graphdl.kernels.value import Value

INF: Final = float("inf")
NAN: Final = float("nan")

INTEGERS: Final = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES: Final = ("bool", *INTEGERS, "float32", "float64")
MANTISSA: Final = {32: 23, 64: 52}  # bits stored, by the width of the type
BIAS: Final = {32: 127, 64: 1023}


def smallest(x: Value) -> int:
    """The smallest integer of a signed dtype."""
    return -(1 << (x.width - 1))


def true(x: Value) -> Value:
    return x if x.dtype == "bool" else x != 0


# Sums, products, quotients


def add(x: Value, y: Value) -> Value:
    if x.is_float:
        return x.relaxed("add", y)
    return x | y if x.dtype == "bool" else x + y


def subtract(x: Value, y: Value) -> Value:
    return x.relaxed("sub", y) if x.is_float else x - y


def multiply(x: Value, y: Value) -> Value:
    if x.is_float:
        return x.relaxed("mul", y)
    return x & y if x.dtype == "bool" else x * y


def divide(x: Value, y: Value) -> Value:
    return x.relaxed("div", y)


def square(x: Value) -> Value:
    return multiply(x, x)


def reciprocal(x: Value) -> Value:
    if x.is_float:
        return x.literal(1.0).relaxed("div", x)
    zero = smallest(x) if x.is_signed else 0
    own = (x == 1) | (x == -1) if x.is_signed else x == 1
    return own.select(x, (x == 0).select(x.literal(zero), 0))


def floor_divide(x: Value, y: Value) -> Value:
    if not x.is_float:
        return integer_division.floor_divide(x, y)
    return float_divmod(x, y, exact_rest(x, y))[0]


def remainder(x: Value, y: Value) -> Value:
    if not x.is_float:
        return integer_division.remainder(x, y)
    return float_divmod(x, y, exact_rest(x, y))[1]


def fmod(x: Value, y: Value) -> Value:
    return exact_rest(x, y) if x.is_float else integer_division.fmod(x, y)


def exact_rest(x: Value, y: Value) -> Value:
    """The remainder of x / y with the sign of x, which is exact, where `is_plain_division`.

    The quotient is rounded before it is cut off, so it may be one too large.
    """
    rest = (-(x / y).trunc()).fma(y, x)
    overshot = ((rest < 0.0) != (x < 0.0)) & (rest != 0.0)
    return overshot.select(rest + abs(y).copysign(x), rest).copysign(x)


def is_plain_division(x: Value, y: Value) -> Value:
    """Floats whose quotient is finite and an integer after it is cut off; y is finite too."""
    return (abs(x / y) < 2.0 ** MANTISSA[x.width]) & (abs(y) < INF)


def rare_division(formula: Callable[..., Value]) -> Callable[[Value, Value], Value]:
    """The formula for all other floats, with the remainder of the C library."""
    return lambda x, y: formula(x, y, x.rest(y))


def float_divmod(x: Value, y: Value, exact: Value) -> tuple[Value, Value]:
    """The floor of x / y and the remainder with the sign of y, as NumPy's `npy_divmod` has them.

    `exact` is the remainder with the sign of x.
    """
    quotient = (x - exact) / y
    below = (exact != 0.0) & ((exact < 0.0) != (y < 0.0))
    rest = below.select(exact + y, exact)
    quotient = below.select(quotient - 1.0, quotient)
    whole = quotient.floor()
    whole = (quotient - whole > 0.5).select(whole + 1.0, whole)
    by_zero, ratio = y == 0.0, x / y
    floor = (quotient != 0.0).select(whole, ratio.literal(0.0).copysign(ratio))
    floor = by_zero.select(ratio, quotient.is_nan().select(quotient, floor))
    rest = (rest == 0.0).select(rest.literal(0.0).copysign(y), rest)
    return floor, by_zero.select(exact, rest)


def integer_power(x: Value, y: Value) -> Value:
    """x ** y for integers, modulo 2^width."""

    def squaring(state: Sequence[Value]) -> tuple[Value, ...]:
        product, base, left = state
        product = ((left & 1) != 0).select(product * base, product)
        return product, base * base, left.shift_logical(1)

    magnitude = (y < 0).select(-y, y) if y.is_signed else y
    product, _, _ = x.repeat(lambda state: state[2] != 0, squaring, (x.literal(1), x, magnitude))
    if not y.is_signed:
        return product
    # 1 and -1 are their own reciprocals.
    return (y < 0).select(((x == 1) | (x == -1)).select(product, 0), product)


def gcd(x: Value, y: Value) -> Value:
    """The greatest common divisor, not negative, by Euclid."""

    def step(state: Sequence[Value]) -> tuple[Value, ...]:
        large, small = state
        return small, large.rest(small)

    # The magnitude of the smallest integer fits only without a sign.
    unsigned = x.dtype.replace("uint", "int").replace("int", "uint")
    start = (absolute(x).convert(unsigned), absolute(y).convert(unsigned))
    return x.repeat(lambda state: state[1] != 0, step, start)[0].convert(x.dtype)


def lcm(x: Value, y: Value) -> Value:
    common = gcd(x, y)
    factor = absolute(x).quotient((common == 0).select(1, common))
    return (common == 0).select(0, factor * absolute(y))


# Signs and rounding


def negative(x: Value) -> Value:
    return -x


def positive(x: Value) -> Value:
    return x


def absolute(x: Value) -> Value:
    if x.is_float:
        return abs(x)
    return (x < 0).select(-x, x) if x.is_signed else x


def sign(x: Value) -> Value:
    if not x.is_float:
        above = (x > 0).select(x.literal(1), 0)
        return (x < 0).select(-1, above) if x.is_signed else above
    up = (x > 0.0).select(x.literal(1.0), 0.0)
    return x.is_nan().select(x, (x < 0.0).select(-1.0, up))


def rounding(intrinsic: str) -> Callable[[Value], Value]:
    """A rounding to integers, under which an integer is itself."""
    return lambda x: x.intrinsic(intrinsic) if x.is_float else x


def sqrt(x: Value) -> Value:
    return x.sqrt()


def copysign(x: Value, y: Value) -> Value:
    return x.copysign(y)


def modf_int(x: Value) -> Value:
    return x.trunc()


def modf_frac(x: Value) -> Value:
    rest = (abs(x) == INF).select(0.0, x - x.trunc())
    return rest.copysign(x)


def heaviside(x: Value, at_zero: Value) -> Value:
    step = (x < 0.0).select(x.literal(0.0), 1.0)
    return x.is_nan().select(x, (x == 0.0).select(at_zero, step))


# Extrema and choice


def maximum(x: Value, y: Value) -> Value:
    if x.dtype == "bool":
        return x | y
    larger = (x > y).select(x, y)  # y where one is NaN
    return x.is_nan().select(x, larger) if x.is_float else larger


def minimum(x: Value, y: Value) -> Value:
    if x.dtype == "bool":
        return x & y
    smaller = (x < y).select(x, y)
    return x.is_nan().select(x, smaller) if x.is_float else smaller


def fmax(x: Value, y: Value) -> Value:
    if not x.is_float:
        return maximum(x, y)
    return y.is_nan().select(x, (x > y).select(x, y))


def fmin(x: Value, y: Value) -> Value:
    if not x.is_float:
        return minimum(x, y)
    return y.is_nan().select(x, (x < y).select(x, y))


def select(condition: Value, x: Value, y: Value) -> Value:
    return true(condition).select(x, y)


# What a float is made of


def isnan(x: Value) -> Value:
    return x.is_nan() if x.is_float else x.literal(0, "bool")


def isinf(x: Value) -> Value:
    return abs(x) == INF if x.is_float else x.literal(0, "bool")


def isfinite(x: Value) -> Value:
    return abs(x) < INF if x.is_float else x.literal(1, "bool")


def signbit(x: Value) -> Value:
    if x.is_float:
        return x.bits() < 0
    return x < 0 if x.is_signed else x.literal(0, "bool")


def nextafter(x: Value, y: Value) -> Value:
    bits = x.bits()
    away = (x < y) == (x > 0.0)  # for x != 0: the magnitude grows
    step = (bits + away.select(bits.literal(1), -1)).as_float()
    step = (x == 0.0).select(x.literal(smallest_subnormal(x)).copysign(y), step)
    return (x == y).select(y, (x.is_nan() | y.is_nan()).select(x + y, step))


def smallest_subnormal(x: Value) -> float:
    return float(np.finfo(x.dtype).smallest_subnormal)


def spacing(x: Value) -> Value:
    outward = ((x == 0.0).select(0.0, x).bits() + 1).as_float()
    return (abs(x) < INF).select(outward - x, NAN)


def significand(x: Value) -> tuple[Value, Value]:
    """x = s * 2^e with 1/2 <= |s| < 1 and e an integer of the float's width; (x, 0) for 0, NaN
    and infinity."""
    mantissa, bias = MANTISSA[x.width], BIAS[x.width]
    subnormal = abs(x) < float(np.finfo(x.dtype).smallest_normal)
    bits = subnormal.select(x * 2.0**mantissa, x).bits()
    field = ((1 << x.width - 1) - 1) & ~((1 << mantissa) - 1)
    exponent = (bits & field).shift_logical(mantissa)
    exponent = exponent - subnormal.select(exponent.literal(bias - 1 + mantissa), bias - 1)
    s = ((bits & ~field) | (bias - 1 << mantissa)).as_float()
    ordinary = (abs(x) < INF) & (x != 0.0)
    return ordinary.select(s, x), ordinary.select(exponent, 0)


def frexp_mantissa(x: Value) -> Value:
    return significand(x)[0]


def frexp_exponent(x: Value) -> Value:
    return significand(x)[1].convert("int32")


def ldexp(x: Value, n: Value) -> Value:
    """x * 2^n, rounded once: two factors, of which only the last one can leave the range."""
    mantissa, bias = MANTISSA[x.width], BIAS[x.width]
    s, exponent = significand(x)
    limit = 4 * bias
    if n.width > 8:
        n = (n > limit).select(limit, n)
        n = (n < -limit).select(-limit, n) if n.is_signed else n
    total = exponent + n.convert(exponent.dtype)
    total = (total > 2 * bias).select(2 * bias, total)
    total = (total < 2 - 2 * bias).select(2 - 2 * bias, total)  # 2^-bias would be 0
    half = total >> 1

    def power_of_2(e: Value) -> Value:
        return ((e + bias) << mantissa).as_float()

    return s * power_of_2(half) * power_of_2(total - half)


# Bits


def left_shift(x: Value, y: Value) -> Value:
    inside = y.convert(f"uint{y.width}") < x.width
    return inside.select(x << inside.select(y, 0), 0)


def right_shift(x: Value, y: Value) -> Value:
    inside = y.convert(f"uint{y.width}") < x.width
    if x.is_signed:
        return x >> inside.select(y, x.width - 1)
    return inside.select(x >> inside.select(y, 0), 0)


def bitwise_and(x: Value, y: Value) -> Value:
    return x & y


def bitwise_or(x: Value, y: Value) -> Value:
    return x | y


def bitwise_xor(x: Value, y: Value) -> Value:
    return x ^ y


def invert(x: Value) -> Value:
    return ~x


def bitwise_count(x: Value) -> Value:
    if x.dtype == "bool":
        return x.convert("uint8")
    return absolute(x).intrinsic("ctpop").convert("uint8")


# Comparisons and logic: the result is a bool


def compared(comparison: Callable[[Any, Any], Any], x: Value, y: Value) -> Value:
    """x against y by value, where one is int64 and the other uint64 as well."""
    if x.dtype == y.dtype:
        result: Value = comparison(x, y)
        return result
    both: Value = comparison(x.convert("uint64"), y.convert("uint64"))
    if x.is_signed:
        return (x < 0).select(comparison(-1, 0), both)
    return (y < 0).select(comparison(0, -1), both)


def equal(x: Value, y: Value) -> Value:
    return compared(operator.eq, x, y)


def not_equal(x: Value, y: Value) -> Value:
    return compared(operator.ne, x, y)


def less(x: Value, y: Value) -> Value:
    return compared(operator.lt, x, y)


def less_equal(x: Value, y: Value) -> Value:
    return compared(operator.le, x, y)


def greater(x: Value, y: Value) -> Value:
    return compared(operator.gt, x, y)


def greater_equal(x: Value, y: Value) -> Value:
    return compared(operator.ge, x, y)


def logical_and(x: Value, y: Value) -> Value:
    return true(x) & true(y)


def logical_or(x: Value, y: Value) -> Value:
    return true(x) | true(y)


def logical_xor(x: Value, y: Value) -> Value:
    return true(x) ^ true(y)


def logical_not(x: Value) -> Value:
    return ~true(x)


# Conversions


def cast(dtype: str) -> Callable[[Value], Value]:
    """The conversion to a dtype; floats that do not fit an integer: see the head of the file."""

    def convert(x: Value) -> Value:
        if not x.is_float or dtype not in INTEGERS:
            return x.convert(dtype)
        width = 8 * np.dtype(dtype).itemsize
        if dtype == "uint64":
            large = x >= 2.0**63
            whole = integer_part(large.select(x - 2.0**63, x), 64)
            return (whole ^ large.select(whole.literal(-(2**63)), 0)).convert(dtype)
        between = 64 if dtype in ("int64", "uint32") else 32
        return integer_part(x, max(width, between)).convert(dtype)

    return convert


def integer_part(x: Value, width: int) -> Value:
    """x rounded towards 0 as a signed integer, the smallest one where it does not fit."""
    limit = 2.0 ** (width - 1)
    whole = x.convert(f"int{width}")
    return ((x >= -limit) & (x < limit)).select(whole, -int(limit))


# As NumPy does, the factor is a quotient of numbers of the type.


def deg2rad(x: Value) -> Value:
    number = np.dtype(x.dtype).type
    return x * float(number(np.pi) / number(180))


def rad2deg(x: Value) -> Value:
    number = np.dtype(x.dtype).type
    return x * float(number(180) / number(np.pi))


# Stand-ins for what NumPy has no function of its own


def _modf_frac(x: Any) -> Any:
    return np.modf(x)[0]


def _modf_int(x: Any) -> Any:
    return np.modf(x)[1]


def _frexp_mantissa(x: Any) -> Any:
    return np.frexp(x)[0]


def _frexp_exponent(x: Any) -> Any:
    return np.frexp(x)[1]


def _identity(x: Any) -> Any:
    """Scalar.python casts the result to the dtype."""
    return x


def constant(dtype: str) -> ResultRule:
    return lambda dtypes: dtype


def second(dtypes: tuple[str, ...]) -> str:
    return dtypes[1]


TO_BOOL: Final = constant("bool")


def _numpy(formula: Callable[..., Any], arity: int, result: ResultRule = same) -> Scalar:
    name = formula.__name__
    return Scalar(name, arity, formula, f"numpy:{name}", result)


def _own(formula: Callable[..., Any], arity: int, result: ResultRule = same) -> Scalar:
    name = formula.__name__
    return Scalar(name, arity, formula, f"{__name__}:_{name}", result)


def _outlined(formula: Callable[..., Any], arity: int) -> Scalar:
    name = formula.__name__
    return Scalar(name, arity, formula, f"numpy:{name}", outlined=True)


def _division(formula: Callable[..., Any], rare: Callable[..., Any]) -> Scalar:
    plain = _outlined(formula, 2)
    return replace(plain, usual=is_plain_division, rare=rare_division(rare))


ARITHMETIC: Final[dict[str, Scalar]] = {
    scalar.name: scalar
    for scalar in (
        *(_numpy(formula, 2) for formula in (add, subtract, multiply, divide)),
        _division(floor_divide, lambda x, y, rest: float_divmod(x, y, rest)[0]),
        _division(remainder, lambda x, y, rest: float_divmod(x, y, rest)[1]),
        _division(fmod, lambda x, y, rest: rest),
        *(_outlined(formula, 2) for formula in (gcd, lcm, ldexp)),
        *(_outlined(formula, 2) for formula in (nextafter, heaviside)),
        *(_outlined(formula, 1) for formula in (spacing,)),
        *(_numpy(formula, 1) for formula in (square, reciprocal, negative, positive, absolute)),
        Scalar("fabs", 1, absolute, "numpy:fabs"),
        *(_numpy(formula, 1) for formula in (sign, sqrt, deg2rad, rad2deg)),
        *(Scalar(n, 1, rounding(n), f"numpy:{n}") for n in ("rint", "floor", "ceil", "trunc")),
        *(_own(formula, 1) for formula in (modf_frac, modf_int, frexp_mantissa)),
        _own(frexp_exponent, 1, constant("int32")),
        *(_numpy(formula, 2) for formula in (maximum, minimum, fmax, fmin, copysign)),
        Scalar("select", 3, select, "numpy:where", second),
        *(_numpy(formula, 1, TO_BOOL) for formula in (isnan, isinf, isfinite, signbit)),
        *(_numpy(formula, 2) for formula in (left_shift, right_shift)),
        *(_numpy(formula, 2) for formula in (bitwise_and, bitwise_or, bitwise_xor)),
        _numpy(invert, 1),
        _numpy(bitwise_count, 1, constant("uint8")),
        *(_numpy(formula, 2, TO_BOOL) for formula in (equal, not_equal, less, less_equal)),
        *(_numpy(formula, 2, TO_BOOL) for formula in (greater, greater_equal)),
        *(_numpy(formula, 2, TO_BOOL) for formula in (logical_and, logical_or, logical_xor)),
        _numpy(logical_not, 1, TO_BOOL),
        *(
            Scalar(f"to_{dtype}", 1, cast(dtype), f"{__name__}:_identity", constant(dtype))
            for dtype in DTYPES
        ),
    )
}
