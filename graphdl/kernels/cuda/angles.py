"""The reduction of large angles on the device: float32 by 64-bit integers alone.

The CPU takes the float64 method for both types (graphdl.kernels.elementary.reduce_any_angle); most
GPUs do float64 at 1/64 of the rate of float32, and have no integers of 256 bits.
"""

from __future__ import annotations

from graphdl.kernels.arithmetic import MANTISSA
from graphdl.kernels.elementary import FORMATS, TWO_OVER_PI
from graphdl.kernels.value import Value


def reduce_float32_angle(x: Value) -> tuple[Value, Value, Value]:
    """x = q pi/2 + r + r_low, |r| <= pi/4, for a finite float32, |x| >= 2^-38.

    The method of Payne and Hanek: of the bits of 2/pi only those count that give the product with
    x its last two bits before the point and the 62 bits after it. No float32 is closer than 2^-31
    to a multiple of pi/2, so that at least 30 of these are significant.
    """
    f, mantissa_bits = FORMATS["float32"], MANTISSA[32]
    bits = abs(x).bits().convert("uint64")
    mantissa = (bits & ((1 << mantissa_bits) - 1)) | (1 << mantissa_bits)
    exponent = (bits >> mantissa_bits) - (f.bias + mantissa_bits)  # x = mantissa * 2^exponent
    first = exponent + (64 - 2)  # the first bit of the table that counts
    word, shift = first >> 6, first & 63
    high, low = (
        (_word(word, i) << shift) | ((_word(word, i + 1) >> 1) >> (-shift + 63)) for i in (0, 1)
    )
    product = mantissa * high + ((mantissa * (low >> 24)) >> 40)  # x * 2/pi mod 4, by 2^-62
    fraction = product << 2
    above = fraction.convert("int64") < 0  # a half or more: count down from the next quadrant
    quadrant = (product >> 62) + above.convert("uint64")
    size = above.select(-fraction, fraction)
    head = ((size >> 40) << 40).convert("float32") * 2.0**-64
    tail = (size & ((1 << 40) - 1)).convert("float32") * 2.0**-64
    sum_ = head + tail
    rest = (head - sum_) + tail
    r = sum_ * f.pi_half[0]
    r_low = sum_.fma(f.pi_half[0], -r) + (sum_ * f.pi_half[1] + rest * f.pi_half[0])
    down = above != (x < 0.0)
    q = (x < 0.0).select(-quadrant, quadrant).convert("int32")
    return q, down.select(-r, r), down.select(-r_low, r_low)


def _word(word: Value, i: int) -> Value:
    """Word `word` + i of 2/pi: `word` is at most 2, so it is chosen, not looked up."""
    found = word.literal(TWO_OVER_PI[2 + i])
    for k in (1, 0):
        found = (word == k).select(TWO_OVER_PI[k + i], found)
    return found
