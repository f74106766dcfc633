"""Special functions as pointwise ops: SciPy's names, values and, where it has one, its derivative.

All take floats of one dtype. The recurrences of the derivatives are those of the Digital Library of
Mathematical Functions (https://dlmf.nist.gov): 5.15 (gamma), 7.10 (error functions), 8.8 and 8.19
(incomplete gamma, exponential integrals), 8.17 (incomplete beta), 10.6 and 10.29 (Bessel). They are
written so that they hold to any order at every point of the domain: with `iv(2, x)` rather than
`i1(x) / x`, which is undefined at 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from graphdl.errors import DtypeError, ShapeError
from graphdl.ops.op import Op, Rule
from graphdl.ops.pointwise import Domain
from graphdl.types import TensorType

_SQRT_PI = math.sqrt(math.pi)
_SQRT_2PI = math.sqrt(2 * math.pi)
_NO_FORMULA = "no closed form is known for this parameter"
_FIRST = {0: _NO_FORMULA}


def _reference(name: str) -> Callable[..., Any]:
    def evaluate(*operands: Any) -> Any:
        import scipy.special  # 0.1 s of start-up that only the interpreter pays

        return getattr(scipy.special, name)(*operands)

    return evaluate


def expn_reference(n: Any, x: Any) -> Any:
    """SciPy's expn without its warning of orders that are not whole."""
    return _reference("expn")(np.trunc(np.clip(n, -1, 1e9)), x)


def _infer(name: str, arity: int) -> Callable[..., TensorType]:
    def infer(*types: TensorType) -> TensorType:
        if len(types) != arity:
            raise TypeError(f"takes {arity} operands, not {len(types)}")
        first = types[0]
        if any(type.dtype != first.dtype or not type.is_float for type in types):
            raise DtypeError(f"{name}: takes floats of one dtype, not {[str(t) for t in types]}")
        if any(type.shape != first.shape for type in types):
            raise ShapeError(f"{name}: operands of shapes {[type.shape for type in types]} differ")
        return first

    return infer


def _special(
    name: str,
    domain: Domain,
    vjp: Rule | None,
    undifferentiated: Mapping[int, str] | None = None,
    no_gradient: str = "",
    reference: Callable[..., Any] | None = None,
) -> Op:
    if name[1:] in ("0", "1"):  # kernels have variables of these names
        name, reference = f"bessel_{name}", _reference(name)
    return Op(
        name,
        "pointwise",
        _infer(name, len(domain)),
        reference or _reference(name),
        vjp,
        no_gradient,
        domain,
        undifferentiated or {},
    )


_REAL = (-3.0, 3.0)
_POSITIVE = (0.3, 4.0)
_ORDER = (0.5, 3.0)
_PROBABILITY = (0.1, 0.9)

# --- gamma and beta -----------------------------------------------------------------------------


def zeta_reference(s: Any, q: Any) -> Any:
    """SciPy's zeta, but 0 and not NaN where all terms are too small to represent."""
    result = _reference("zeta")(s, q)
    return np.where(np.isnan(result) & (s > 1) & (q > 0), np.zeros_like(result), result)


#: Terms that `_zeta_slope` adds up one by one, and B_2j / (2j)! of those of its remainder.
_TERMS = 10
_BERNOULLI = (
    1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000,
    1 / 74724249600, -3617 / 10670622842880000,
)  # fmt: skip


def _zeta_slope(s: Any, q: Any) -> Any:
    """The derivative of zeta(s, q) by s: that of the formula of Euler and Maclaurin (DLMF 25.11.5).

    zeta(s, q) = sum over k < n of (q + k)^-s + w^(1-s) / (s - 1) + w^-s / 2 + the sum over j of
    B_2j / (2j)! s (s + 1) ... (s + 2j - 2) w^(1-s-2j), with w = q + n.
    """
    total = np.zeros_like(s)
    for k in range(_TERMS):
        total = total - np.log(q + k) * np.power(q + k, -s)
    w = q + _TERMS
    size, scale = np.log(w), np.power(w, -s)
    above = s - 1
    total = total - scale * w * (size / above + 1 / (above * above)) - scale * size / 2
    factor, rate, power = s, np.ones_like(s), scale / w  # s ... (s + 2j - 2), and its derivative
    for j, number in enumerate(_BERNOULLI):
        total = total + number * power * (rate - factor * size)
        a, b = s + (2 * j + 1), s + (2 * j + 2)
        factor, rate, power = factor * a * b, rate * a * b + factor * (a + b), power / (w * w)
    return total


zeta: Op = _special(
    "zeta",
    ((1.5, 5.0), (0.5, 4.0)),
    lambda g, out, s, q: (g * _zeta_slope(s, q), -g * s * zeta(s + 1, q)),
    reference=zeta_reference,
)


def _zetac_rule(g: Any, out: Any, s: Any) -> tuple[Any]:
    """Below -1/2 by the functional equation: zeta(s) = 2 (2 pi)^(s-1) sin(pi s / 2) gamma(1 - s)
    zeta(1 - s) (DLMF 25.4.1)."""
    low = s < -0.5
    t = np.where(low, 1 - s, s)
    one = np.ones_like(s)
    slope = _zeta_slope(t, one)
    mirrored = np.where(low, s, -one)
    size = 2 * np.power(2 * math.pi, mirrored - 1) * gamma(1 - mirrored)
    angle = math.pi / 2 * mirrored
    turning = (math.log(2 * math.pi) - psi(1 - mirrored)) * np.sin(angle)
    value = zetac(np.where(low, t, 2 * one)) + 1
    below = size * ((turning + math.pi / 2 * np.cos(angle)) * value - np.sin(angle) * slope)
    return (g * np.where(low, below, slope),)


zetac = _special("zetac", ((1.5, 5.0),), _zetac_rule)
psi = _special("psi", (_POSITIVE,), lambda g, out, x: (g * zeta(np.full_like(x, 2), x),))
gammaln = _special("gammaln", (_POSITIVE,), lambda g, out, x: (g * psi(x),))
gamma = _special("gamma", (_POSITIVE,), lambda g, out, x: (g * out * psi(x),))
gammasgn = _special("gammasgn", (_POSITIVE,), lambda g, out, x: (None,))


def _rgamma_rule(g: Any, out: Any, x: Any) -> tuple[Any]:
    """1/gamma is smooth at the poles of psi, x = 0, -1, -2, ..."""
    pole = (x <= 0) & (x == np.floor(x))
    inside = np.where(pole, np.ones_like(x), x)
    at_pole = np.cos(math.pi * x) * gamma(1 - np.where(pole, x, np.zeros_like(x)))
    return (g * np.where(pole, at_pole, -out * psi(inside)),)


rgamma = _special("rgamma", (_POSITIVE,), _rgamma_rule)
beta = _special(
    "beta",
    (_POSITIVE, _POSITIVE),
    lambda g, out, a, b: (
        g * out * (psi(a) - psi(a + b)),
        g * out * (psi(b) - psi(a + b)),
    ),
)
betaln = _special(
    "betaln",
    (_POSITIVE, _POSITIVE),
    lambda g, out, a, b: (g * (psi(a) - psi(a + b)), g * (psi(b) - psi(a + b))),
)
poch = _special(
    "poch",
    (_POSITIVE, _POSITIVE),
    lambda g, out, z, m: (g * out * (psi(z + m) - psi(z)), g * out * psi(z + m)),
)
binom = _special(
    "binom",
    ((4.0, 8.0), (0.5, 3.0)),
    lambda g, out, n, k: (
        g * out * (psi(n + 1) - psi(n - k + 1)),
        g * out * (psi(n - k + 1) - psi(k + 1)),
    ),
)


def _gamma_density(a: Any, x: Any) -> Any:
    return np.exp((a - 1) * np.log(x) - x - gammaln(a))


def _beta_density(a: Any, b: Any, x: Any) -> Any:
    return np.exp((a - 1) * np.log(x) + (b - 1) * np.log1p(-x) - betaln(a, b))


gammainc = _special(
    "gammainc",
    (_ORDER, _POSITIVE),
    lambda g, out, a, x: (None, g * _gamma_density(a, x)),
    _FIRST,
)
gammaincc = _special(
    "gammaincc",
    (_ORDER, _POSITIVE),
    lambda g, out, a, x: (None, -g * _gamma_density(a, x)),
    _FIRST,
)
gammaincinv = _special(
    "gammaincinv",
    (_ORDER, _PROBABILITY),
    lambda g, out, a, y: (None, g / _gamma_density(a, out)),
    _FIRST,
)
gammainccinv = _special(
    "gammainccinv",
    (_ORDER, _PROBABILITY),
    lambda g, out, a, y: (None, -g / _gamma_density(a, out)),
    _FIRST,
)
_BOTH = {0: _NO_FORMULA, 1: _NO_FORMULA}
betainc = _special(
    "betainc",
    (_ORDER, _ORDER, _PROBABILITY),
    lambda g, out, a, b, x: (None, None, g * _beta_density(a, b, x)),
    _BOTH,
)
betaincc = _special(
    "betaincc",
    (_ORDER, _ORDER, _PROBABILITY),
    lambda g, out, a, b, x: (None, None, -g * _beta_density(a, b, x)),
    _BOTH,
)
betaincinv = _special(
    "betaincinv",
    (_ORDER, _ORDER, _PROBABILITY),
    lambda g, out, a, b, y: (None, None, g / _beta_density(a, b, out)),
    _BOTH,
)
betainccinv = _special(
    "betainccinv",
    (_ORDER, _ORDER, _PROBABILITY),
    lambda g, out, a, b, y: (None, None, -g / _beta_density(a, b, out)),
    _BOTH,
)


def _stdtr_rule(g: Any, out: Any, df: Any, t: Any) -> tuple[None, Any]:
    """Student's density."""
    scale = np.sqrt(df) * beta(np.full_like(df, 0.5), 0.5 * df)
    return None, g * np.exp(-0.5 * (df + 1) * np.log1p(t * t / df)) / scale


stdtr = _special("stdtr", (_ORDER, _REAL), _stdtr_rule, _FIRST)

# --- error functions ------------------------------------------------------------------------------

erfcx = _special("erfcx", (_REAL,), lambda g, out, x: (g * (2 * x * out - 2 / _SQRT_PI),))
erfi = _special("erfi", ((-1.5, 1.5),), lambda g, out, x: (g * (2 / _SQRT_PI) * np.exp(x * x),))
dawsn = _special("dawsn", (_REAL,), lambda g, out, x: (g * (1 - 2 * x * out),))
erfinv = _special(
    "erfinv", ((-0.9, 0.9),), lambda g, out, x: (g * (_SQRT_PI / 2) * np.exp(out * out),)
)
erfcinv = _special(
    "erfcinv", ((0.1, 1.9),), lambda g, out, x: (g * (-_SQRT_PI / 2) * np.exp(out * out),)
)
ndtri_exp = _special(
    "ndtri_exp", ((-3.0, -0.2),), lambda g, out, y: (g * _SQRT_2PI * np.exp(y + 0.5 * out * out),)
)
# the density over the distribution function: exp(-x**2 / 2) would underflow far below 0
log_ndtr = _special(
    "log_ndtr",
    (_REAL,),
    lambda g, out, x: (g * math.sqrt(2 / math.pi) / erfcx(x * -math.sqrt(0.5)),),
)

# --- Bessel functions ---------------------------------------------------------------------------


def _order(v: float, x: Any) -> Any:
    return np.full_like(x, v)


jv: Op = _special(
    "jv",
    (_ORDER, _POSITIVE),
    lambda g, out, v, x: (None, g * 0.5 * (jv(v - 1, x) - jv(v + 1, x))),
    _FIRST,
)
yv: Op = _special(
    "yv",
    (_ORDER, _POSITIVE),
    lambda g, out, v, x: (None, g * 0.5 * (yv(v - 1, x) - yv(v + 1, x))),
    _FIRST,
)
iv: Op = _special(
    "iv",
    (_ORDER, _POSITIVE),
    lambda g, out, v, x: (None, g * 0.5 * (iv(v - 1, x) + iv(v + 1, x))),
    _FIRST,
)
kv: Op = _special(
    "kv",
    (_ORDER, _POSITIVE),
    lambda g, out, v, x: (None, g * -0.5 * (kv(v - 1, x) + kv(v + 1, x))),
    _FIRST,
)
# scaled by exp(-|x|) and by exp(x)
ive: Op = _special(
    "ive",
    (_ORDER, _POSITIVE),
    lambda g, out, v, x: (None, g * (0.5 * (ive(v - 1, x) + ive(v + 1, x)) - np.sign(x) * out)),
    _FIRST,
)
kve: Op = _special(
    "kve",
    (_ORDER, _POSITIVE),
    lambda g, out, v, x: (None, g * (out - 0.5 * (kve(v - 1, x) + kve(v + 1, x)))),
    _FIRST,
)
j0 = _special("j0", (_REAL,), lambda g, out, x: (-g * j1(x),))
j1: Op = _special("j1", (_REAL,), lambda g, out, x: (g * 0.5 * (j0(x) - jv(_order(2, x), x)),))
y0 = _special("y0", (_POSITIVE,), lambda g, out, x: (-g * y1(x),))
y1: Op = _special("y1", (_POSITIVE,), lambda g, out, x: (g * 0.5 * (y0(x) - yv(_order(2, x), x)),))
i0 = _special("i0", (_REAL,), lambda g, out, x: (g * i1(x),))
i1: Op = _special("i1", (_REAL,), lambda g, out, x: (g * 0.5 * (i0(x) + iv(_order(2, x), x)),))
i0e = _special("i0e", (_POSITIVE,), lambda g, out, x: (g * (i1e(x) - np.sign(x) * out),))
i1e: Op = _special(
    "i1e",
    (_POSITIVE,),
    lambda g, out, x: (g * (0.5 * (i0e(x) + ive(_order(2, x), x)) - np.sign(x) * out),),
)
k0 = _special("k0", (_POSITIVE,), lambda g, out, x: (-g * k1(x),))
k1: Op = _special("k1", (_POSITIVE,), lambda g, out, x: (g * -0.5 * (k0(x) + kv(_order(2, x), x)),))
k0e = _special("k0e", (_POSITIVE,), lambda g, out, x: (g * (out - k1e(x)),))
k1e: Op = _special(
    "k1e",
    (_POSITIVE,),
    lambda g, out, x: (g * (out - 0.5 * (k0e(x) + kve(_order(2, x), x))),),
)

# --- exponential integrals ----------------------------------------------------------------------


def _expn_rule(g: Any, out: Any, n: Any, x: Any) -> tuple[None, Any]:
    """-E(n-1, x); E(0, x) is exp(-x) / x, and SciPy has no E(-1, x)."""
    lower = expn(np.maximum(n - 1, 0), x)
    return None, -g * np.where(n >= 1, lower, out * (1 + 1 / x))


expn: Op = _special(
    "expn",
    ((1.0, 1.0 + 1e-9), _POSITIVE),
    _expn_rule,
    {0: "it is a whole number"},
    reference=expn_reference,
)
exp1 = _special("exp1", (_POSITIVE,), lambda g, out, x: (-g * np.exp(-x) / x,))
expi = _special("expi", (_POSITIVE,), lambda g, out, x: (g * np.exp(x) / x,))


def _spence_rule(g: Any, out: Any, x: Any) -> tuple[Any]:
    """log(x) / (1 - x), and near 1 its series, as it is 0 / 0 there."""
    t = 1 - x
    near = np.abs(t) < 1e-2
    away = np.where(near, np.full_like(x, 0.5), x)
    series = np.zeros_like(x)
    for k in range(8, 0, -1):
        series = series * t - 1 / k
    return (g * np.where(near, series, np.log(away) / (1 - away)),)


spence = _special("spence", (_POSITIVE,), _spence_rule)
