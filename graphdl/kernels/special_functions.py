"""Special functions: SciPy's compiled ones by pointer, and those that SciPy does not publish.

`scipy.special.cython_special` publishes the addresses of C functions of doubles. A kernel refers
to one by a symbol, `graphdl_scipy_gammaln`, whose address is asked for when the object code is
loaded (graphdl.kernels.cpu.external): none is ever part of a text or of the cache. float32 is
computed in float64 and rounded.

These calls are not vectorised and take 20 to 500 ns each. They report errors to nobody: SciPy's
`seterr` is a setting of the thread, and kernels run on threads of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import comb, factorial
from typing import TYPE_CHECKING, Final

from graphdl.kernels.elementary import power
from graphdl.kernels.scalar import Scalar

if TYPE_CHECKING:
    from graphdl.kernels.value import Value

#: The symbol of SciPy's function NAME is this and NAME.
PREFIX: Final = "graphdl_scipy_"

#: SciPy's functions, by the number of their operands.
PUBLISHED: Final[dict[int, tuple[str, ...]]] = {
    1: (
        "gammaln", "gamma", "rgamma", "gammasgn", "psi", "zetac",
        "erfcx", "erfi", "dawsn", "erfinv", "erfcinv", "ndtri_exp", "log_ndtr",
        "i0", "i0e", "i1", "i1e", "j0", "j1", "y0", "y1", "k0", "k0e", "k1", "k1e",
        "exp1", "expi", "spence",
    ),
    2: (
        "beta", "betaln", "poch", "binom", "jv", "yv", "iv", "ive", "kv", "kve",
        "gammainc", "gammaincc", "gammaincinv", "gammainccinv", "stdtr",
    ),
    3: ("betainc", "betaincc", "betaincinv", "betainccinv"),
}  # fmt: skip

#: Kernels have variables called i0, k1 and the like: what these functions are called in kernels.
NAMES: Final = {name: f"bessel_{name}" for name in ("i0", "i1", "j0", "j1", "k0", "k1", "y0", "y1")}


def by_pointer(name: str) -> Callable[..., Value]:
    """The formula that calls SciPy's function."""

    def formula(x: Value, *others: Value) -> Value:
        doubles = [value.convert("float64") for value in (x, *others)]
        return doubles[0].external(PREFIX + name, *doubles[1:]).convert(x.dtype)

    return formula


def expn(n: Value, x: Value) -> Value:
    """SciPy's function of a whole order: that of doubles warns, through Python, of any other."""
    whole = (n > 1e9).select(1e9, (n > -1.0).select(n, -1.0)).convert("int64")
    result = whole.external(PREFIX + "expn", x.convert("float64")).convert(x.dtype)
    return n.is_nan().select(n, result)


# The Hurwitz zeta function, by the formula of Euler and Maclaurin (DLMF 25.11.5 with the remainder
# of n terms dropped): sums up to w = q + n > 9, then w^(1-s) / (s-1) + w^-s / 2 + the terms with
# Bernoulli numbers. The twelfth of these is below 1e-17 of the sum where w > 9.

_TERMS: Final = 9


def bernoulli_terms(count: int) -> list[float]:
    """B_2j / (2j)! for j = 1 ... count, by the recurrence of the Bernoulli numbers."""
    numbers = [Fraction(1)]
    for m in range(1, 2 * count + 1):
        terms = [comb(m + 1, k) * numbers[k] for k in range(m)]
        numbers.append(-sum(terms, Fraction(0)) / (m + 1))
    return [float(numbers[2 * j] / factorial(2 * j)) for j in range(1, count + 1)]


def zeta(s: Value, q: Value) -> Value:
    """The sum of (q + k)^-s over k = 0, 1, ..., where s > 1.

    As SciPy has it: infinite at s = 1 and at q = 0, -1, -2, ...; NaN below s = 1, and for negative
    q unless s is whole.
    """
    dtype = s.dtype
    s, q = s.convert("float64"), q.convert("float64")
    # so that the loop ends for any operand; from here on the first term is the sum anyway
    start = ((abs(q) < 1e8) & (s == s)).select(q, 1e8)

    def step(state: Sequence[Value]) -> tuple[Value, ...]:
        total, w, left = state
        return total + power(w, -s), w + 1.0, left - 1.0

    def unfinished(state: Sequence[Value]) -> Value:
        return (state[2] > 0.0) | (state[1] <= float(_TERMS))

    first = (start, s.literal(float(_TERMS)))
    total, w, _ = s.repeat(unfinished, step, (s.literal(0.0), *first))
    last = power(w, -s)
    rest = last * w / (s - 1.0) + last * 0.5
    factor, below = s, last / w
    square = w * w
    for j, term in enumerate(bernoulli_terms(12)):
        rest = rest + factor * below * term
        factor = factor * (s + (2.0 * j + 1.0)) * (s + (2.0 * j + 2.0))
        below = below / square
    total = total + (last == 0.0).select(0.0, rest)  # a huge s makes factors of it infinite
    asymptotic = power(q, 1.0 - s) / (s - 1.0) * (1.0 + (s - 1.0) / (q * 2.0))
    total = (abs(q) >= 1e8).select(asymptotic, total)
    total = (s == float("inf")).select((q > 0.0).select(power(q, -s), float("inf")), total)
    total = (s.is_nan() | q.is_nan()).select(float("nan"), total)
    total = ((q <= 0.0) & ~(s == s.floor())).select(float("nan"), total)
    total = ((q <= 0.0) & (q == q.floor())).select(float("inf"), total)
    total = (s < 1.0).select(float("nan"), total)
    return (s == 1.0).select(float("inf"), total).convert(dtype)


#: Where the references of kernels are that differ from SciPy's functions.
_OPS: Final = "graphdl.ops.special"

SPECIAL_FUNCTIONS: Final[dict[str, Scalar]] = {
    NAMES.get(name, name): Scalar(
        NAMES.get(name, name), arity, by_pointer(name), f"scipy.special:{name}"
    )
    for arity, names in PUBLISHED.items()
    for name in names
} | {
    "expn": Scalar("expn", 2, expn, f"{_OPS}:expn_reference"),
    "zeta": Scalar("zeta", 2, zeta, f"{_OPS}:zeta_reference", outlined=True),
}
