"""scipy.special for arrays and in compiled functions: its names, signatures and values.

SciPy's ufuncs work in compiled functions as they are (`scipy.special.gammaln(x)`); they are here
under the same names. Its Python functions (logsumexp, softmax, polygamma, ...) would need the
values of their arguments: those of this module take traced values too.

>>> import numpy as np, graphdl as gd
>>> from graphdl import special
>>> f = gd.compile(lambda x: special.logsumexp(x) + np.sum(special.gammaln(x)))
>>> round(float(f(np.array([1.0, 2.0, 3.0]))), 6)
4.100753
>>> round(float(gd.grad(lambda x: special.polygamma(1, x))(1.0)), 6)
-2.404114

Where a function has no derivative by a parameter (the order of a Bessel function, the shape of an
incomplete gamma function), asking for it raises GradientError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphdl.errors import GraphError
from graphdl.numpy_functions import neural
from graphdl.numpy_functions import special as traced
from graphdl.tracing import SPECIAL_HANDLERS, TracedArray, locate
from graphdl.trees import leaves_of

__all__ = [*traced.PYTHON_FUNCTIONS]

#: Names that SciPy gives to the ufuncs psi and jv as well.
_ALIASES = ("digamma", "jn")


def _scipy() -> Any:
    import scipy.special  # 0.2 s of start-up that only those pay who ask for it

    return scipy.special


def __getattr__(name: str) -> Any:
    """A ufunc of SciPy that can be traced."""
    if name in SPECIAL_HANDLERS or name in _ALIASES:
        return getattr(_scipy(), name)
    raise AttributeError(f"graphdl.special has no {name!r}; dir(graphdl.special) lists its names")


def __dir__() -> list[str]:
    return sorted([*__all__, *SPECIAL_HANDLERS, *_ALIASES])


def _either(name: str, ours: Callable[[], Any], scipys: Callable[[], Any], *values: Any) -> Any:
    """What to do on traced values, or on arrays."""
    if not any(isinstance(leaf, TracedArray) for leaf in leaves_of(values)):
        return scipys()
    try:
        return ours()
    except GraphError as error:
        if not getattr(error, "located", False):
            error.args = (f"scipy.special.{name}: {error.args[0]}",)
        raise locate(error) from error.__cause__


def logsumexp(
    a: Any, axis: Any = None, b: Any = None, keepdims: bool = False, return_sign: bool = False
) -> Any:
    """log(sum(b * exp(a))) over `axis` without overflow; with `return_sign`, of the magnitude, and
    the sign besides.

    >>> import numpy as np
    >>> from graphdl import special
    >>> round(float(special.logsumexp(np.array([1000.0, 1000.0]))), 6)
    1000.693147
    """
    return _either(
        "logsumexp",
        lambda: traced.logsumexp(a, axis, b, keepdims, return_sign),
        lambda: _scipy().logsumexp(a, axis, b, keepdims, return_sign),
        a,
        b,
    )


def softmax(x: Any, axis: Any = None) -> Any:
    """exp(x) / sum(exp(x)) over `axis`, which is all axes unless given."""
    return _either("softmax", lambda: neural.softmax(x, axis), lambda: _scipy().softmax(x, axis), x)


def log_softmax(x: Any, axis: Any = None) -> Any:
    """log(softmax(x)) over `axis`, which is all axes unless given."""
    return _either(
        "log_softmax",
        lambda: neural.log_softmax(x, axis),
        lambda: _scipy().log_softmax(x, axis),
        x,
    )


def softplus(x: Any) -> Any:
    """log(1 + exp(x)) without overflow."""
    return _either("softplus", lambda: neural.softplus(x), lambda: np.logaddexp(0, x), x)


def polygamma(n: Any, x: Any) -> Any:
    """The derivative of order n of psi at x; float64 as SciPy's, whatever x is."""
    return _either(
        "polygamma", lambda: traced.polygamma(n, x), lambda: _scipy().polygamma(n, x), n, x
    )


def multigammaln(a: Any, d: int) -> Any:
    """The logarithm of the gamma function of dimension `d` at a > (d - 1) / 2; float64."""
    return _either(
        "multigammaln", lambda: traced.multigammaln(a, d), lambda: _scipy().multigammaln(a, d), a
    )


def factorial(n: Any, exact: bool = False) -> Any:
    """gamma(n + 1) as floats, 0 where n is negative. `exact=True` is for plain integers."""
    return _either(
        "factorial", lambda: traced.factorial(n, exact), lambda: _scipy().factorial(n, exact), n
    )


def zeta(x: Any, q: Any = None) -> Any:
    """The sum of (q + k)**-x over k = 0, 1, ...; without q, Riemann's zeta function.

    Its derivative by x has no formula here; that by q has.
    """
    return _either("zeta", lambda: traced.zeta(x, q), lambda: _scipy().zeta(x, q), x, q)
