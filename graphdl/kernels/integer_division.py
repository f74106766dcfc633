"""Integer division by floats, in vectors: processors have no vector instruction for it.

The quotient is estimated as x * (1 / y) in floats, and what the estimate leaves of x is exact,
because products and differences of integers wrap around:

- 8 and 16 bits: one estimate, in float32 and int32;
- 32 bits: one estimate, in float64;
- 64 bits: x and y as float64 are off by 2^-53 of themselves, so the first estimate is off by up to
  2^14, or by 1 where y is large; what it leaves is divided once more.

An estimate ends within half a step of the quotient, or at most a little more than one step below
it for unsigned numbers, so one correction is left. 1 / y is the only division: LLVM moves it out of
a loop in which y does not change, and has an instruction for vectors of it elsewhere.

(T. Granlund, P. Montgomery: Division by invariant integers using multiplication, PLDI 1994, needs
the high half of 64-bit products, which vectors lack, and shifts that are found from y.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from graphdl.kernels.value import Value

#: Added to a small float, it leaves the nearest integer in the low bits: by the width of the float.
ROUNDER: Final = {32: 1.5 * 2.0**23, 64: 1.5 * 2.0**52}
#: A factor below 1 by more than four roundings of float64: under it an estimate is never larger in
#: magnitude than the quotient, and so fits int64 (or uint64) where the quotient is 2^63.
BELOW_ONE: Final = 1.0 - 2.0**-50


def floor_divide(x: Value, y: Value) -> Value:
    """The quotient rounded down; 0 where y is 0; the smallest integer by -1 is itself."""
    quotient, rest, divisor = _divided(x, y)
    return (y == 0).select(0, _is_below(rest, divisor).select(quotient - 1, quotient))


def remainder(x: Value, y: Value) -> Value:
    """The remainder with the sign of y; 0 where y is 0."""
    _, rest, divisor = _divided(x, y)
    return (y == 0).select(0, _is_below(rest, divisor).select(rest + divisor, rest))


def fmod(x: Value, y: Value) -> Value:
    """The remainder with the sign of x; 0 where y is 0."""
    _, rest, divisor = _divided(x, y)
    if x.is_signed:
        step = _differ_in_sign(x, divisor).select(-divisor, divisor)
        rest = ((rest != 0) & _differ_in_sign(rest, x)).select(rest + step, rest)
    return (y == 0).select(0, rest)


def safe_divisor(x: Value, y: Value) -> Value:
    """y, or 1 where an instruction for x / y is undefined: by 0, and the smallest integer by -1."""
    undefined = y == 0
    if x.is_signed:
        undefined = undefined | ((x == -(1 << (x.width - 1))) & (y == -1))
    return undefined.select(1, y)


def _differ_in_sign(x: Value, y: Value) -> Value:
    return (x ^ y) < 0


def _is_below(rest: Value, divisor: Value) -> Value:
    """Whether the quotient that leaves `rest` is one above its floor."""
    if not rest.is_signed:
        return rest.literal(0, "bool")
    return (rest != 0) & _differ_in_sign(rest, divisor)


def _divided(x: Value, y: Value) -> tuple[Value, Value, Value]:
    """A quotient, what it leaves of x, and the divisor, which is y where y is not 0.

    The rest is smaller in magnitude than the divisor; of unsigned numbers the quotient is rounded
    down.
    """
    if x.divides_integers:
        divisor = safe_divisor(x, y)
        return x.quotient(divisor), x.rest(divisor), divisor
    divisor = (y == 0).select(1, y)
    if x.width <= 16:
        quotient, rest = _of_32_bits(x.convert("int32"), divisor.convert("int32"), "float32")
        if not x.is_signed:  # here it may be below 0
            below = rest < 0
            quotient = below.select(quotient - 1, quotient)
            rest = below.select(rest + divisor.convert("int32"), rest)
        return quotient.convert(x.dtype), rest.convert(x.dtype), divisor
    quotient, rest = (_of_32_bits if x.width == 32 else _of_64_bits)(x, divisor)
    if not x.is_signed:
        above = rest >= divisor
        quotient = above.select(quotient + 1, quotient)
        rest = above.select(rest - divisor, rest)
    return quotient, rest, divisor


def _of_32_bits(x: Value, y: Value, wide: str = "float64") -> tuple[Value, Value]:
    """The nearest quotient of integers that `wide` holds, and what it leaves; of uint32 a quotient
    that leaves no more than y, and nothing below 0.
    """
    divisor = y.convert(wide)
    estimate = _rounded(x.convert(wide), divisor.literal(1.0) / divisor, x.is_signed)
    quotient = estimate.convert(x.dtype)
    return quotient, x - quotient * y


def _of_64_bits(x: Value, y: Value) -> tuple[Value, Value]:
    """The same of 64 bits, by two estimates. The first is rounded towards 0, so that its rest has
    the sign of x and is not larger."""
    divisor = y.convert("float64")
    inverse = divisor.literal(BELOW_ONE) / divisor
    first = (x.convert("float64") * inverse).convert(x.dtype)
    rest = x - first * y
    second = _rounded(rest.convert("float64"), inverse, x.is_signed).convert(x.dtype)
    return first + second, rest - second * y


def _rounded(x: Value, factor: Value, is_signed: bool) -> Value:
    """x * factor, below 2^51 (2^22 of float32), as an integer: the nearest one if `is_signed`,
    otherwise one that is at most one below and not above."""
    rounder = x.literal(ROUNDER[x.width])
    shifted = x.fma(factor, rounder) if is_signed else x.fma(factor, -0.5) + rounder
    return shifted.bits() - rounder.bits()
