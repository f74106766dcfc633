"""Scalar operations of samples made by rejection: gamma with its derivative, and Poisson.

An attempt takes the four words of one block of Philox: the block is the number of the element, the
stream the number of the attempt. So an element is a function of the key and of nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from graphdl.kernels.arithmetic import constant
from graphdl.kernels.elementary import NAN, exp, log, log1p, polynomial
from graphdl.kernels.randomness import (
    LOW,
    is_near_median,
    ndtri,
    ndtri_of_any,
    philox_block,
)
from graphdl.kernels.scalar import Scalar

if TYPE_CHECKING:
    from graphdl.kernels.value import Value

#: The streams of attempts; see graphdl.random.sampler for the others.
GAMMA_STREAM: Final = 3 << 32
POISSON_STREAM: Final = 4 << 32
#: No loop runs longer; none that is entered with numbers gets near.
MOST_STEPS: Final = 100_000


def attempt_words(key: Sequence[Value], index: Value, stream: Value) -> list[Value]:
    return [word & LOW for word in philox_block(key, index, stream)]


def unit(word: Value, dtype: str) -> Value:
    """A word as a float in (0, 1), 1 included in float32."""
    return (word.convert("int64").convert(dtype) + 0.5) * 2.0**-32


def wide_unit(low: Value, high: Value) -> Value:
    """53 of 64 bits as a float64 in (0, 1)."""
    return (((low | high << 32) >> 12).convert("int64").convert("float64") + 0.5) * 2.0**-52


def tail_and_side(words: Sequence[Value], dtype: str) -> tuple[Value, Value]:
    """Uniform samples in (0, 1/2], and whether their mirror image is meant."""
    bits = (words[0] | words[1] << 32).convert("int64")
    above = bits < 0
    magnitude = above.select(~bits, bits)
    return (magnitude.convert(dtype) + 0.5) * 2.0**-64, above


# Gamma: G. Marsaglia and W. Tsang, "A simple method for generating gamma variables", ACM TOMS 26,
# 2000. The cube (1 + c x)^3 of a normal x, accepted nearly always; shapes below 1 are those above
# 1 times a power of a uniform sample.


def gamma_shape(alpha: Value) -> tuple[Value, Value, Value]:
    """Whether alpha is below 1, and Marsaglia and Tsang's d and c."""
    boosted = alpha < 1.0
    d = boosted.select(alpha + 1.0, alpha) - 1.0 / 3.0
    return boosted, d, 1.0 / (d * 9.0).sqrt()


def gamma_attempt(
    alpha: Value, words: Sequence[Value], z: Value, above: Value
) -> tuple[Value, Value]:
    """The logarithm of a sample, and whether it is accepted, from a normal sample: z or -z.

    The test log(u) < x^2 / 2 + d (1 - v + log(v)), v = (1 + y)^3, y = c x, is written so that it
    keeps its digits for large d, where y is small.
    """
    boosted, d, c = gamma_shape(alpha)
    y = above.select(-z, z) * c
    cube = log1p(y)
    bound = d * ((y * y) * (1.5 - y) + (cube - y) * 3.0)
    refused = log(unit(words[2], alpha.dtype)) >= bound  # never where d is infinite
    size = log(d) + cube * 3.0
    boost = log(unit(words[3], alpha.dtype)) / alpha
    return boosted.select(size + boost, size), (y > -1.0) & ~refused


def first_gamma_attempt(
    alpha: Value, key0: Value, key1: Value, index: Value
) -> tuple[Value, Value, Value]:
    """The first attempt, right where its normal sample is not far out, and that sample's tail."""
    words = attempt_words((key0, key1), index, index.literal(GAMMA_STREAM))
    tail, above = tail_and_side(words, alpha.dtype)
    return (*gamma_attempt(alpha, words, ndtri(tail), above), tail)


def loggamma_sample(alpha: Value, key0: Value, key1: Value, index: Value) -> Value:
    return first_gamma_attempt(alpha, key0, key1, index)[0]


def first_attempt_will_do(alpha: Value, key0: Value, key1: Value, index: Value) -> Value:
    _, accepted, tail = first_gamma_attempt(alpha, key0, key1, index)
    return accepted & is_near_median(tail) & (alpha > 0.0)


def any_ndtri(p: Value) -> Value:
    """`ndtri` on scalars, by a branch: a loop that runs once or never."""

    def far(state: Sequence[Value]) -> Sequence[Value]:
        return ndtri_of_any(p), p.literal(0, "bool")

    return p.repeat(lambda state: state[1], far, (ndtri(p), ~is_near_median(p)))[0]


def loggamma_of_attempts(alpha: Value, key0: Value, key1: Value, index: Value) -> Value:
    """Scalars: one attempt after the other."""
    valid = alpha > 0.0
    shape = valid.select(alpha, 1.0)

    def step(state: Sequence[Value]) -> Sequence[Value]:
        stream, _, _ = state
        words = attempt_words((key0, key1), index, stream)
        tail, above = tail_and_side(words, alpha.dtype)
        sample, accepted = gamma_attempt(shape, words, any_ndtri(tail), above)
        return stream + 1, sample, accepted

    start = (index.literal(GAMMA_STREAM), alpha, alpha.literal(0, "bool"))
    sample = alpha.repeat(lambda state: ~state[2], step, start)[1]
    return valid.select(sample, NAN)


# The derivative of a gamma sample by its shape: M. Figurnov, S. Mohamed and A. Mnih, "Implicit
# reparameterization gradients", NeurIPS 2018. The sample x is where the distribution function
# P(a, x) has a given value, so dx/da = -(dP/da) / p(a, x). With
#     Gamma(a, x) = x^a exp(-x) C(a, x),    Gamma(a + 1) P(a, x) = x^a exp(-x) S(a, x)
# it is, for the logarithm of x,
#     d log(x) / da = C_a + C (log(x) - psi(a)) = -(S_a + S (log(x) - psi(a + 1))) / a
# whose terms have one sign where x is larger, or less, than about a.


def digamma_above_1(x: Value) -> Value:
    """psi(x) for x >= 1: its asymptotic series at x + 8."""
    far = x + 8.0
    below = x.literal(0.0)
    for k in range(8):
        below = below + 1.0 / (x + float(k))
    y = 1.0 / far
    square = y * y
    bernoulli = (-1 / 12, 1 / 120, -1 / 252, 1 / 240, -1 / 132, 691 / 32760, -1 / 12)
    return log(far) - y * 0.5 + square * polynomial(square, bernoulli) - below


def lower_slope(a: Value, x: Value, log_x: Value, psi: Value) -> Value:
    """By the series S = 1 + x / (a + 1) + x^2 / ((a + 1) (a + 2)) + ..."""

    def step(state: Sequence[Value]) -> Sequence[Value]:
        n, term, slope, total, total_slope = state
        n = n + 1.0
        y = 1.0 / (a + n)
        term = term * x * y
        slope = slope - y  # of the logarithm of the term
        return n, term, slope, total + term, term.fma(slope, total_slope)

    def unfinished(state: Sequence[Value]) -> Value:
        n, term, slope, total, total_slope = state
        small = term <= total * 2.0**-54
        small = small & (term * slope >= total_slope * 2.0**-54)  # both are negative
        return ((n < 1.0) | ~small) & (n < float(MOST_STEPS))

    zero = a.literal(0.0)
    state = a.repeat(unfinished, step, (zero, a.literal(1.0), zero, a.literal(1.0), zero))
    return -(state[3].fma(log_x - psi, state[4])) / a


def upper_slope(a: Value, x: Value, log_x: Value, psi: Value) -> Value:
    """By Legendre's continued fraction C = 1 / (x + 1 - a - (1 - a) / (x + 3 - a - ...)).

    Steed's algorithm with derivatives: D = 1 / (b_n + a_n D), delta = (b_n D - 1) delta.
    """
    first = x + (1.0 - a)

    def step(state: Sequence[Value]) -> Sequence[Value]:
        n, d, d_slope, delta, delta_slope, total, total_slope = state
        n = n + 1.0
        b, numerator = n.fma(2.0, first), n * (a - n)
        next_d = 1.0 / numerator.fma(d, b)
        d_slope = -(next_d * next_d) * (n.fma(d, numerator * d_slope) - 1.0)
        factor = b.fma(next_d, -1.0)
        delta_slope = (b * d_slope - next_d).fma(delta, factor * delta_slope)
        delta = delta * factor
        return n, next_d, d_slope, delta, delta_slope, total + delta, total_slope + delta_slope

    def unfinished(state: Sequence[Value]) -> Value:
        n, _, _, delta, delta_slope, total, total_slope = state
        small = abs(delta) < abs(total) * 2.0**-54
        small = small & (abs(delta_slope) < abs(total_slope) * 2.0**-54)
        return ~small & (n < float(MOST_STEPS))

    d = 1.0 / first
    start = (a.literal(0.0), d, d * d, d, d * d, d, d * d)
    state = a.repeat(unfinished, step, start)
    return state[5].fma(log_x - (psi - 1.0 / a), state[6])


def asymptotic_slope(a: Value, x: Value) -> Value:
    """For large a, by the expansion of Cornish and Fisher in the normal deviate y:

    x = a + y sqrt(a) + (y^2 - 1) / 3 + (y^3 - 7 y) / (36 sqrt(a)) - (3 y^4 + 7 y^2 - 16) / (810 a)
    + (9 y^5 + 256 y^3 - 433 y) / (38880 sqrt(a)^3) + ...
    """
    r = 1.0 / a.sqrt()

    def terms(y: Value) -> tuple[Value, Value, Value]:
        square = y * y
        third = y * (square - 7.0) * (1 / 36)
        fourth = (square * (square * 3.0 + 7.0) - 16.0) * (-1 / 810)
        fifth = y * (square * (square * 9.0 + 256.0) - 433.0) * (1 / 38880)
        return third, fourth, fifth

    wanted = (x - a) * r
    y = wanted
    for _ in range(6):  # y = wanted - (the other terms), which shrinks the error by r each time
        third, fourth, fifth = terms(y)
        y = wanted - r * ((y * y - 1.0) * (1 / 3) + r * (third + r * (fourth + r * fifth)))
    third, fourth, fifth = terms(y)
    slope = 1.0 + r * (y * 0.5 - (r * r) * (third * 0.5 + r * (fourth + r * fifth * 1.5)))
    return slope / x


#: From here on the series and the fraction would take hundreds of steps.
LARGE_SHAPE: Final = 5e4


def loggamma_slope(alpha: Value, log_x: Value) -> Value:
    """d log(x) / d alpha of a gamma sample, in float64 whatever the dtype."""
    a, log_x = alpha.convert("float64"), log_x.convert("float64")
    x, psi = exp(log_x), digamma_above_1(a + 1.0)
    large = ~(a < LARGE_SHAPE)
    low = log_x < (psi > math.log(1.5)).select(psi, math.log(1.5))
    asymptotic = asymptotic_slope(a, x)
    # each series runs on numbers that are soon done where the other one is wanted
    one = a.literal(1.0)
    use_low, use_high = low & ~large, ~low & ~large
    lower = lower_slope(use_low.select(a, one), use_low.select(x, 0.0), log_x, psi)
    upper = upper_slope(use_high.select(a, one), use_high.select(x, 50.0), log_x, psi)
    slope = large.select(asymptotic, low.select(lower, upper))
    return ((a > 0.0) & ~log_x.is_nan()).select(slope, NAN).convert(alpha.dtype)


# Poisson: inversion for small rates; W. Hoermann, "The transformed rejection method for generating
# Poisson random variables", Insurance: Mathematics and Economics 12, 1993, algorithm PTRS, for
# others.

SMALL_RATE: Final = 10.0
LARGEST_RATE: Final = 2.0**62


def poisson_by_inversion(rate: Value, u: Value) -> Value:
    """The first k whose distribution function is at least u."""

    def step(state: Sequence[Value]) -> Sequence[Value]:
        k, p, total = state
        p = p * rate / (k + 1.0)
        return k + 1.0, p, total + p

    p = exp(-rate)
    # 1 - total may round to more than the mass that is left: k stays below 100 all the same
    return rate.repeat(
        lambda state: (state[2] < u) & (state[0] < 100.0), step, (rate.literal(0.0), p, p)
    )[0]


def log_poisson(k: Value, rate: Value) -> Value:
    """The logarithm of exp(-rate) rate^k / k! for whole k >= 0, without large terms that cancel.

    C. Loader, "Fast and accurate computation of binomial probabilities", 2000: from k = 16 on by
    Stirling's series for k!, below from the product (k + 1) ... (k + 16).
    """
    small = k < 16.0
    product = k.literal(1.0)
    for i in range(1, 17):
        product = product * (k + float(i))
    n = small.select(k + 16.0, k)
    y = 1.0 / n
    square = y * y
    correction = y * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square * (1 / 1680))))
    stirling = log(n * (2 * math.pi)) * 0.5 + correction
    deviance = k * log1p((k - rate) / rate) - (k - rate)
    large = -deviance - stirling
    direct = k * log(rate) - rate - (n * log(n) - n + stirling - log(product))
    return small.select(direct, large)


def poisson_attempt(
    rate: Value, key: Sequence[Value], index: Value, stream: Value
) -> tuple[Value, Value, Value, Value]:
    """A candidate, whether it is taken without a look at the probabilities, and what u and v are
    then needed for: room = 1/2 - |u|, and v."""
    words = attempt_words(key, index, stream)
    u, v = wide_unit(words[0], words[1]) - 0.5, wide_unit(words[2], words[3])
    room = 0.5 - abs(u)
    a, b = hat(rate)
    k = ((a * 2.0 / room + b) * u + rate + 0.43).floor()
    sure = (room >= 0.07) & (v <= 0.9277 - 3.6224 / (b - 2.0))
    return k, sure, room, v


def hat(rate: Value) -> tuple[Value, Value]:
    b = rate.sqrt() * 2.53 + 0.931
    return b * 0.02483 - 0.059, b


def is_taken(rate: Value, k: Value, room: Value, v: Value) -> Value:
    """The test of a candidate by its probability."""
    a, b = hat(rate)
    inside = (k >= 0.0) & ((room >= 0.013) | (v <= room))
    scale = log(v) + log(1.1328 / (b - 3.4) + 1.1239) - log(a / (room * room) + b)
    return inside & (scale <= log_poisson((k >= 0.0).select(k, 0.0), rate))


def poisson_by_rejection(rate: Value, key: Sequence[Value], index: Value) -> Value:
    """Attempts until one is taken, from the first one on."""

    def step(state: Sequence[Value]) -> Sequence[Value]:
        stream, _, _ = state
        k, sure, room, v = poisson_attempt(rate, key, index, stream)

        def tested(state: Sequence[Value]) -> Sequence[Value]:
            return is_taken(rate, k, room, v), rate.literal(0, "bool")

        return stream + 1, k, rate.repeat(lambda state: state[1], tested, (sure, ~sure))[0]

    start = (index.literal(POISSON_STREAM), rate, rate.literal(0, "bool"))
    return rate.repeat(lambda state: ~state[2], step, start)[1]


def poisson_sample(rate: Value, key0: Value, key1: Value, index: Value) -> Value:
    """The first candidate. All is float64, whatever the rate is."""
    rate = rate.convert("float64")
    stream = index.literal(POISSON_STREAM)
    return poisson_attempt(rate, (key0, key1), index, stream)[0].convert("int64")


def first_candidate_will_do(rate: Value, key0: Value, key1: Value, index: Value) -> Value:
    rate = rate.convert("float64")
    stream = index.literal(POISSON_STREAM)
    sure = poisson_attempt(rate, (key0, key1), index, stream)[1]
    return sure & (rate >= SMALL_RATE) & (rate <= LARGEST_RATE)


def poisson_of_any(rate: Value, key0: Value, key1: Value, index: Value) -> Value:
    """Scalars: -1 where the rate is none. The branches are loops that run once or never."""
    rate = rate.convert("float64")
    valid = (rate >= 0.0) & (rate <= LARGEST_RATE)
    small = rate < SMALL_RATE
    never = rate.literal(0, "bool")

    def inverted(state: Sequence[Value]) -> Sequence[Value]:
        words = attempt_words((key0, key1), index, index.literal(POISSON_STREAM))
        return poisson_by_inversion(rate, wide_unit(words[0], words[1])), never

    def rejected(state: Sequence[Value]) -> Sequence[Value]:
        return poisson_by_rejection(rate, (key0, key1), index), never

    k = rate.literal(-1.0)
    k = rate.repeat(lambda state: state[1], inverted, (k, valid & small))[0]
    k = rate.repeat(lambda state: state[1], rejected, (k, valid & ~small))[0]
    return k.convert("int64")


_REFERENCE = "graphdl.ops.rejection:"

REJECTION: Final[dict[str, Scalar]] = {
    scalar.name: scalar
    for scalar in (
        Scalar(
            "loggamma_sample",
            4,
            loggamma_sample,
            f"{_REFERENCE}loggamma_sample",
            outlined=True,
            usual=first_attempt_will_do,
            rare=loggamma_of_attempts,
        ),
        Scalar("loggamma_slope", 2, loggamma_slope, f"{_REFERENCE}loggamma_slope", outlined=True),
        Scalar(
            "poisson_sample",
            4,
            poisson_sample,
            f"{_REFERENCE}poisson_sample",
            constant("int64"),
            outlined=True,
            usual=first_candidate_will_do,
            rare=poisson_of_any,
        ),
    )
}
