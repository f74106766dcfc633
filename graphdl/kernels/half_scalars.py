"""Floats of 16 bits in kernels: read as float32, rounded to the nearest where they are stored.

In memory and in the text of kernels such a number is its bits, a uint16, so that what only moves
numbers needs to know nothing of them. `from_float16` and `from_bfloat16` make the float32 of the
bits, which is exact; `to_float16` and `to_bfloat16` the bits of a float32 or float64, rounded to
the nearest, ties to even; what is too large becomes infinity. All by integers and float32, as few
processors compute with halves, and LLVM without an instruction for it calls a function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from graphdl.kernels.scalar import Scalar
from graphdl.types import BFLOAT16, as_dtype

if TYPE_CHECKING:
    from graphdl.kernels.value import Value

HALVES: Final = ("float16", BFLOAT16)

#: Bits of float32: all but the sign, and infinity, above which the NaNs are.
_MAGNITUDE: Final = 0x7FFFFFFF
_INFINITY: Final = 0x7F800000
#: float16 stores 10 bits of the mantissa where float32 stores 23, and its exponents are 112 less.
_DROPPED: Final = 13
_SHIFT: Final = 2.0**112
_INFINITY16: Final = 0x7C00
_NAN16: Final = 0x7E00
#: What is halfway from the largest float16 to the next power of two, and rounds to infinity.
_TOO_LARGE: Final = 65520.0
#: The smallest normal float16.
_SMALLEST_NORMAL: Final = 2.0**-14


def from_float16(bits: Value) -> Value:
    """The float32 of the bits of a float16."""
    word = bits.convert("int32")
    magnitude = (word & 0x7FFF) << _DROPPED
    # numbers below the normal ones come right as well: 2**112 times a float32 below its normal ones
    finite = (magnitude.as_float() * _SHIFT).bits()
    special = magnitude | _INFINITY
    found = (magnitude >= (_INFINITY16 << _DROPPED)).select(special, finite)
    return (found | ((word & 0x8000) << 16)).as_float()


def to_float16(x: Value) -> Value:
    """The bits of the float16 nearest to a float."""
    single = to_odd_float32(x)
    bits = single.bits()
    magnitude = (bits & _MAGNITUDE).as_float()
    # A number with the distance between neighbours that float16 has at x: added and taken away
    # again, it leaves x rounded to them.
    exponent = magnitude.bits() & _INFINITY
    power = (exponent.as_float() >= _SMALLEST_NORMAL).select(
        exponent, exponent.literal(_bits(_SMALLEST_NORMAL))
    )
    raster = (power + (_DROPPED << 23)).as_float()
    rounded = (magnitude + raster) - raster
    finite = (rounded * (1 / _SHIFT)).bits().shift_logical(_DROPPED)
    infinite = finite.literal(_INFINITY16)
    found = (magnitude < _TOO_LARGE).select(finite, infinite)
    found = (magnitude == magnitude).select(found, _NAN16)
    return (found | (bits.shift_logical(16) & 0x8000)).convert("uint16")


def from_bfloat16(bits: Value) -> Value:
    """The float32 of the bits of a bfloat16, which are its upper half."""
    return (bits.convert("int32") << 16).as_float()


def to_bfloat16(x: Value) -> Value:
    """The bits of the bfloat16 nearest to a float."""
    bits = x.convert("float32").bits()  # a float64 is rounded twice, as ml_dtypes does
    # half of the last place, less one where what stays is even: a tie goes to the even neighbour
    rounded = bits + 0x7FFF + (bits.shift_logical(16) & 1)
    quiet = bits | 0x400000
    is_nan = (bits & _MAGNITUDE) > _INFINITY
    return is_nan.select(quiet, rounded).shift_logical(16).convert("uint16")


def to_odd_float32(x: Value) -> Value:
    """A float64 as a float32 that rounds further as the float64 itself would.

    Towards zero, with the last bit set if anything was lost: S. Boldo and G. Melquiond, "When
    double rounding is odd", 2005. Rounding to the nearest twice could go wrong at a tie.
    """
    if x.dtype != "float64":
        return x
    single = x.convert("float32")
    back = single.convert("float64")
    towards_zero = single.bits() - (abs(back) > abs(x)).convert("int32")
    return (towards_zero | (back != x).convert("int32")).as_float()


def _bits(number: float) -> int:
    return int(np.float32(number).view(np.int32))


# Independent implementations, by which kernels also run as plain Python


def _from_float16(bits: Any) -> Any:
    return np.asarray(bits).view(np.float16).astype(np.float32)


def _to_float16(x: Any) -> Any:
    return np.asarray(x).astype(np.float16).view(np.uint16)


def _from_bfloat16(bits: Any) -> Any:
    return np.asarray(bits).view(as_dtype(BFLOAT16)).astype(np.float32)


def _to_bfloat16(x: Any) -> Any:
    return np.asarray(x).astype(as_dtype(BFLOAT16)).view(np.uint16)


def _float32(dtypes: tuple[str, ...]) -> str:
    return "float32"


def _uint16(dtypes: tuple[str, ...]) -> str:
    return "uint16"


HALF_SCALARS: Final[dict[str, Scalar]] = {
    formula.__name__: Scalar(
        formula.__name__, 1, formula, f"{__name__}:_{formula.__name__}", result
    )
    for formula, result in (
        (from_float16, _float32),
        (to_float16, _uint16),
        (from_bfloat16, _float32),
        (to_bfloat16, _uint16),
    )
}
