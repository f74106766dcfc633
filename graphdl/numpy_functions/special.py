"""scipy.special on traced values: its ufuncs, and its Python functions under graphdl.special.

A ufunc of SciPy asks its operands (`__array_ufunc__`), so user code calls it as it is. A Python
function does not: those are here too, and `scipy_functions` says which one stands for which.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from graphdl.errors import ArgumentError
from graphdl.numpy_functions import neural
from graphdl.numpy_functions.arguments import (
    as_float,
    axes_of,
    integer,
    lift,
    lift_one,
    promote,
    require,
)
from graphdl.ops import pointwise, special
from graphdl.ops.op import Op
from graphdl.tracing import (
    SPECIAL_HANDLERS,
    TracedArray,
    broadcast_shapes,
    broadcast_to,
    dtype_of,
    implements,
)

# --- ufuncs -------------------------------------------------------------------------------------


def _broadcast(op: Op) -> Callable[..., Any]:
    """The op on operands broadcast against each other."""

    def function(*operands: Any) -> Any:
        shape = broadcast_shapes(f"scipy.special.{op.name}", [x.shape for x in operands])
        return op(*(broadcast_to(x, shape) for x in operands))

    return function


def _logit(x: Any) -> Any:
    return np.log(x / (1 - x))


def _log_expit(x: Any) -> Any:
    return -pointwise.softplus(-x)


def _ndtr(x: Any) -> Any:
    return 0.5 * pointwise.erfc(x * -math.sqrt(0.5))


def _xlogy(x: Any, y: Any, log: np.ufunc = np.log) -> Any:
    """x * log(y), and 0 where x is 0, unless y is not a number."""
    nothing = (x == 0) & ~np.isnan(y)
    return np.where(nothing, 0, x * log(np.where(nothing, 1, y)))


def _xlog1py(x: Any, y: Any) -> Any:
    return _xlogy(x, y, np.log1p)


def _entr(x: Any) -> Any:
    return np.where(x < 0, -np.inf, -_xlogy(x, x))


def _rel_entr(x: Any, y: Any) -> Any:
    inside = (x > 0) & (y > 0)
    ratio = np.where(inside, x, 1) / np.where(inside, y, 1)
    outside = np.where((x == 0) & (y >= 0), np.zeros_like(x), np.inf)
    result = np.where(inside, x * np.log(ratio), outside)
    return np.where(np.isnan(x) | np.isnan(y), np.nan, result)


def _kl_div(x: Any, y: Any) -> Any:
    """x log(x / y) - x + y; infinite where it is undefined."""
    terms = _rel_entr(x, y)
    return np.where(np.isinf(terms), terms, terms - x + y)


def _log1p_ratio(z: Any) -> Any:
    """log(1 + z) / z, and near 0 its series, so that its derivatives are right there too."""
    near = np.abs(z) < 0.1
    inside, away = np.where(near, z, 0), np.where(near, 1, z)
    series: Any = 1 / 17
    for k in range(16, 0, -1):
        series = 1 / k - inside * series
    return np.where(near, series, np.log1p(away) / away)


def _exprel(z: Any) -> Any:
    """(exp(z) - 1) / z, and near 0 its series, so that its derivatives are right there too."""
    near = np.abs(z) < 0.5
    inside, away = np.where(near, z, 0), np.where(near, 1, z)
    series: Any = 1.0
    for k in range(16, 1, -1):
        series = 1 + inside * series / k
    return np.where(near, series, np.expm1(away) / away)


def _boxcox(x: Any, power: Any) -> Any:
    """(x**power - 1) / power, and log(x) for power 0, with derivatives by `power` there too."""
    log_x = np.log(x)
    return log_x * _exprel(power * log_x)


def _boxcox1p(x: Any, power: Any) -> Any:
    log_x = np.log1p(x)
    return log_x * _exprel(power * log_x)


def _inv_boxcox(y: Any, power: Any) -> Any:
    return np.exp(y * _log1p_ratio(power * y))


def _inv_boxcox1p(y: Any, power: Any) -> Any:
    return np.expm1(y * _log1p_ratio(power * y))


def _huber(delta: Any, r: Any) -> Any:
    size = np.abs(r)
    loss = np.where(size <= delta, 0.5 * r * r, delta * (size - 0.5 * delta))
    return np.where(delta < 0, np.inf, loss)


def _pseudo_huber(delta: Any, r: Any) -> Any:
    """delta**2 (sqrt(1 + (r / delta)**2) - 1) without cancellation."""
    t = r / np.where(delta == 0, 1, delta)
    square = t * t
    loss = delta * delta * (square / (1 + np.sqrt(1 + square)))
    return np.where(delta < 0, np.inf, loss)


def _cosm1(x: Any) -> Any:
    half = np.sin(0.5 * x)
    return -2 * half * half


def _exp10(x: Any) -> Any:
    return np.power(np.full_like(x, 10), x)


def _loggamma(x: Any) -> Any:
    return np.where(x < 0, np.nan, _broadcast(special.gammaln)(x))


_OPS = {
    name: _broadcast(op)
    for name, op in vars(special).items()
    if isinstance(op, Op) and op is not special.zeta
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **_OPS,
    "expit": pointwise.sigmoid,
    "log_expit": _log_expit,
    "logit": _logit,
    "erf": pointwise.erf,
    "erfc": pointwise.erfc,
    "ndtr": _ndtr,
    "ndtri": pointwise.ndtri,
    "xlogy": _xlogy,
    "xlog1py": _xlog1py,
    "entr": _entr,
    "rel_entr": _rel_entr,
    "kl_div": _kl_div,
    "boxcox": _boxcox,
    "boxcox1p": _boxcox1p,
    "inv_boxcox": _inv_boxcox,
    "inv_boxcox1p": _inv_boxcox1p,
    "huber": _huber,
    "pseudo_huber": _pseudo_huber,
    "loggamma": _loggamma,
    "exprel": _exprel,
    "exp10": _exp10,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "cosm1": _cosm1,
    "log1p": np.log1p,
    "cbrt": np.cbrt,
    "yn": lambda n, x: _OPS["yv"](n, x),
    # distribution functions that are others under another name
    "chdtr": lambda v, x: _OPS["gammainc"](v / 2, x / 2),
    "chdtrc": lambda v, x: _OPS["gammaincc"](v / 2, x / 2),
    "gdtr": lambda a, b, x: _OPS["gammainc"](b, a * x),
    "gdtrc": lambda a, b, x: _OPS["gammaincc"](b, a * x),
    "pdtr": lambda k, m: _OPS["gammaincc"](np.floor(k) + 1, m),
    "pdtrc": lambda k, m: _OPS["gammainc"](np.floor(k) + 1, m),
}


def _as_scipys(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function on operands of the dtype that SciPy's ufunc computes in."""

    def implementation(*operands: Any) -> Any:
        ufunc = getattr(sys.modules["scipy.special"], name)
        dtype = pointwise.resolve(ufunc, tuple(dtype_of(x) for x in operands))[-1]
        return function(*(value.astype(dtype) for value in lift(*operands)))

    return implementation


SPECIAL_HANDLERS.update({name: _as_scipys(name, function) for name, function in _FUNCTIONS.items()})


@implements(np.i0)
def i0(x: Any) -> Any:
    return special.i0(as_float(x))


# --- Python functions ---------------------------------------------------------------------------


def _floats(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function on its operands as floats of their common dtype."""

    def implementation(*operands: Any) -> Any:
        dtype = promote(*operands, 1.0)
        return function(*(value.astype(dtype) for value in lift(*operands)))

    return implementation


def zeta(x: Any, q: Any) -> Any:
    if q is None:
        return 1 + _floats(special.zetac)(x)
    return _floats(_broadcast(special.zeta))(x, q)


def polygamma(n: Any, x: Any) -> Any:
    """The derivative of order n of psi: (-1)^(n+1) n! zeta(n + 1, x), and psi itself for n = 0."""
    if not isinstance(n, TracedArray):
        n = np.asarray(n)
    dtype = promote(n, x, 1.0)
    order, value = (operand.astype(dtype) for operand in lift(n, x))
    shape = broadcast_shapes("scipy.special.polygamma", [order.shape, value.shape])
    order, value = broadcast_to(order, shape), broadcast_to(value, shape)
    sign = np.where(np.mod(order, 2) == 0, -1, 1).astype(dtype)
    above = np.where(order > 0, order, 1)
    higher = sign * special.gamma(above + 1) * special.zeta(above + 1, value)
    return np.where(order == 0, special.psi(value), higher)


def multigammaln(a: Any, d: Any) -> Any:
    """The logarithm of the multivariate gamma function of dimension d; float64, as SciPy's."""
    count = integer(d, "d")
    x = as_float(a).astype(np.float64)
    total = count * (count - 1) * 0.25 * math.log(math.pi)
    for j in range(count):
        total = total + special.gammaln(x - 0.5 * j)
    return total


def logsumexp(a: Any, axis: Any, b: Any, keepdims: bool, return_sign: bool) -> Any:
    if b is None and not return_sign:
        return neural.logsumexp(a, axis, keepdims)
    x = as_float(a)
    if b is None:
        weights = np.ones_like(x)
    else:
        weights = lift_one(b) if isinstance(b, TracedArray) else np.asarray(b)
        dtype = promote(x, weights)
        x, weights = x.astype(dtype), weights.astype(dtype)
        shape = broadcast_shapes("scipy.special.logsumexp", [x.shape, weights.shape])
        x, weights = np.broadcast_to(x, shape), np.broadcast_to(weights, shape)
        x = np.where(weights == 0, -np.inf, x)
    axes = axes_of(axis, x.shape)
    require(all(x.shape[i] for i in axes), f"logsumexp: shape {x.shape} is empty along {axes}")
    top = pointwise.stop_gradient(np.max(x, axis=axes, keepdims=True))
    top = np.where(np.isfinite(top), top, 0)
    total = np.sum(weights * np.exp(x - top), axis=axes, keepdims=True)
    sign = np.sign(total)
    result = np.log(np.abs(total) if return_sign else total) + top
    if not keepdims:
        result, sign = np.squeeze(result, axis=axes), np.squeeze(sign, axis=axes)
    return (result, sign) if return_sign else result


def factorial(n: Any, exact: bool) -> Any:
    if exact:
        raise ArgumentError(
            "scipy.special.factorial: exact=True needs integers of any size; leave it out"
        )
    x = as_float(n)
    return np.where(x < 0, 0, special.gamma(np.where(x < 0, 0, x) + 1))


#: Those that do not ask their arguments, as a ufunc does.
PYTHON_FUNCTIONS = (
    "factorial",
    "log_softmax",
    "logsumexp",
    "multigammaln",
    "polygamma",
    "softmax",
    "softplus",
    "zeta",
)


def scipy_functions() -> dict[Any, str]:
    """The Python functions of scipy.special, and their names in graphdl.special.

    Empty where SciPy's is not loaded: nobody can be calling it then.
    """
    module = sys.modules.get("scipy.special")
    return {getattr(module, name): name for name in PYTHON_FUNCTIONS if hasattr(module, name)}
