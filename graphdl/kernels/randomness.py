"""Scalar operations of random numbers: Philox, and what is made of its bits element by element."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from graphdl.kernels import coefficients
from graphdl.kernels.arithmetic import constant
from graphdl.kernels.elementary import INF, NAN, log, polynomial
from graphdl.kernels.scalar import Scalar

if TYPE_CHECKING:
    from graphdl.kernels.value import Value

#: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section
#: 3.2: the multipliers of Philox4x32, and by how much its keys grow from round to round.
MULTIPLIERS: Final = (0xD2511F53, 0xCD9E8D57)
WEYL: Final = (0x9E3779B9, 0xBB67AE85)
ROUNDS: Final = 10
LOW: Final = 0xFFFFFFFF


def philox_block(key: Sequence[Value], block: Value, stream: Value) -> list[Value]:
    """The four words of Philox4x32-10 for the counter (block, stream), in the low halves of uint64.

    Words stand in 64 bits from start to end: vectors multiply 32 bits by 32 bits in lanes of 64,
    and do not look at the upper halves of what they multiply, so these may hold anything.
    """
    k0, k1 = (word.convert("uint64") for word in key)
    c0, c1, c2, c3 = block, block >> 32, stream, stream >> 32
    for _ in range(ROUNDS):
        p0, p1 = ((c & LOW) * m for c, m in zip((c0, c2), MULTIPLIERS, strict=True))
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1, (p0 >> 32) ^ c3 ^ k1, p0
        k0, k1 = (k + w for k, w in zip((k0, k1), WEYL, strict=True))
    return [c0, c1, c2, c3]


def philox(key0: Value, key1: Value, first: Value, stream: Value, index: Value) -> Value:
    """Word `index` of those from block `first` on, as uint32."""
    words = philox_block((key0, key1), first + (index >> 2), stream)
    odd, late = (index & 1) != 0, (index & 2) != 0
    low, high = odd.select(words[1], words[0]), odd.select(words[3], words[2])
    return late.select(high, low).convert("uint32")


def philox_wide(key0: Value, key1: Value, first: Value, stream: Value, index: Value) -> Value:
    """Pair `index` of the words from block `first` on, as uint64: the first word is low."""
    words = philox_block((key0, key1), first + (index >> 1), stream)
    low, high = (((index & 1) != 0).select(words[i + 2], words[i]) for i in (0, 1))
    return (low & LOW) | (high << 32)


# The quantiles of the normal distribution: at most 4 ulp


def ndtri_parts(p: Value) -> tuple[Value, Value]:
    """p - 1/2, and w = -log(4 p (1 - p)), 0 at p = 1/2."""
    return p - 0.5, -log(p * 4.0 * (1.0 - p))


def ndtri(p: Value) -> Value:
    """(p - 1/2) (sqrt(2 pi) + w P(w)), where w is at most 6.25; beyond (p - 1/2) P(sqrt(w)).

    The variable is that of M. Giles, "Approximating the erfinv function", GPU Computing Gems 2,
    2012.
    """
    q, w = ndtri_parts(p)
    ratio = polynomial(w - 3.0, coefficients.NDTRI_NEAR[p.dtype]).fma(w, math.sqrt(2 * math.pi))
    if p.dtype == "float32":
        far = polynomial(w.sqrt() - 3.0, coefficients.NDTRI_MIDDLE[p.dtype])
        ratio = (w > 6.25).select(far, ratio)
    return q * ratio


def is_near_median(p: Value) -> Value:
    """Where `ndtri` is accurate: 0.0005 < p < 0.9995, in float32 5e-12 < p < 1 - 5e-12.

    Not for NaN; and a product that rounds to 1 counts as inside.
    """
    return p * 4.0 * (1.0 - p) >= (math.exp(-25) if p.dtype == "float32" else math.exp(-6.25))


def ndtri_of_any(p: Value) -> Value:
    """Scalars far from the median: two steps of Halley's method for log(erfc(x / sqrt(2)) / 2).

    There erfc(x) = exp(-x^2) y (1 + P(y - 1/4)), y = 1 / (x + 2), as in `erfc`.
    """
    wide = p.convert("float64")
    tail = (wide > 0.5).select(1.0 - wide, wide)
    level = log(tail)
    square = level * -2.0
    z = (square - log(square * (2 * math.pi))).sqrt()
    for _ in range(2):
        y = 1.0 / z.fma(math.sqrt(0.5), 2.0)
        scaled = y.fma(polynomial(y - 0.25, coefficients.ERFC_TAIL["float64"]), y)
        value = (z * z).fma(-0.5, log(scaled * 0.5)) - level
        hazard = math.sqrt(2 / math.pi) / scaled
        z = z + value / (hazard + value * (hazard - z) * 0.5)
    z = z.copysign(wide - 0.5)
    z = (tail == 0.0).select(z.literal(INF).copysign(wide - 0.5), z)
    return (tail >= 0.0).select(z, NAN).convert(p.dtype)


def _bits(name: str, formula: Callable[..., Value], dtype: str) -> Scalar:
    reference = f"graphdl.ops.random:{name}"
    return Scalar(name, 5, formula, reference, constant(dtype), outlined=True)


RANDOM: Final[dict[str, Scalar]] = {
    scalar.name: scalar
    for scalar in (
        _bits("philox", philox, "uint32"),
        _bits("philox_wide", philox_wide, "uint64"),
        Scalar(
            "ndtri",
            1,
            ndtri,
            "scipy.special:ndtri",
            outlined=True,
            usual=is_near_median,
            rare=ndtri_of_any,
        ),
    )
}
