"""Python's `math`, of traced numbers too: what stands in for it while tracing.

The functions take and return numbers, as Python's do: results are float64 (or int64) and weak in
promotion, whatever the argument was. Where Python raises an error for a number beyond the domain of
a function, or for an overflow, a compiled program has NaN or infinity, as NumPy does.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from graphdl.builtins import is_unknown
from graphdl.errors import DtypeError, ShapeError
from graphdl.tracing import SPECIAL_HANDLERS, TracedArray, as_traced, cast, locate

_numpy: Any = np


def _number(x: TracedArray, kind: type, name: str) -> TracedArray:
    """A traced 0-d value as Python's `kind` of number; `name` is what asked for it."""
    if x.shape:
        instead = name.replace("math.", "np.")
        raise locate(
            ShapeError(f"{name} takes a number, but {x.type} is an array; write {instead}(x)")
        )
    if x.type.is_complex:
        raise locate(DtypeError(f"{name} takes no complex numbers, as {x.type}; take x.real"))
    return TracedArray(cast(x, np.dtype(kind)).node, x.owner, weak=True)


def _with_numbers(plain: Callable[..., Any], traced: Callable[..., Any], kind: type) -> Any:
    """`plain` of numbers, and `traced` of traced ones, as numbers of a kind."""
    name = f"math.{plain.__name__}"

    @functools.wraps(plain)
    def either(*args: Any) -> Any:
        if not any(map(is_unknown, args)):
            return plain(*args)
        trace = next(x.owner for x in args if isinstance(x, TracedArray))
        numbers = [_number(as_traced(x, trace), float, name) for x in args]
        result: TracedArray = traced(*numbers)
        return _number(result, kind, name)

    return either


def _log(x: Any, base: Any = None) -> Any:
    return np.log(x) if base is None else np.log(x) / np.log(base)


def _hypot(*x: Any) -> Any:
    return functools.reduce(np.hypot, x) if len(x) > 1 else abs(x[0])


def _special(name: str) -> Callable[..., Any]:
    def call(*x: Any) -> Any:
        import scipy.special  # noqa: F401  0.2 s that only those pay who ask; the handlers need it

        return SPECIAL_HANDLERS[name](*x)

    return call


#: The functions of floats, and what they are of traced ones.
_FLOATS: dict[str, Callable[..., Any]] = {
    **{
        name: getattr(np, name)
        for name in (
            "cos", "sin", "tan", "cosh", "sinh", "tanh", "acos", "asin", "atan", "atan2", "acosh",
            "asinh", "atanh", "exp", "exp2", "expm1", "log1p", "log2", "log10", "sqrt", "cbrt",
            "pow", "fmod", "copysign", "degrees", "radians", "fabs", "nextafter",
        )
        if hasattr(math, name)
    },
    "log": _log, "hypot": _hypot, "erf": _special("erf"), "erfc": _special("erfc"),
    "gamma": _special("gamma"), "lgamma": _special("gammaln"),
}  # fmt: skip
#: Those that round to a whole number: what casting does, after this.
_INTS: dict[str, Callable[..., Any]] = {"ceil": np.ceil, "floor": np.floor, "trunc": np.trunc}
_BOOLS: dict[str, Callable[..., Any]] = {
    "isfinite": np.isfinite, "isinf": np.isinf, "isnan": np.isnan,
}  # fmt: skip


def fsum(seq: Iterable[Any], /) -> Any:
    """math.fsum; the sum of traced numbers is rounded at each step."""
    items = list(seq)
    if not any(map(is_unknown, items)):
        return math.fsum(items)
    return functools.reduce(lambda total, x: total + _float(x), items, 0.0)


def prod(iterable: Iterable[Any], /, *, start: Any = 1) -> Any:
    """math.prod, which multiplies anything."""
    return functools.reduce(lambda total, x: total * x, iterable, start)


def dist(p: Iterable[Any], q: Iterable[Any], /) -> Any:
    """math.dist: the distance of two points."""
    first, second = list(p), list(q)
    if not any(map(is_unknown, (*first, *second))):
        return math.dist(first, second)
    differences = (_float(x - y) for x, y in zip(first, second, strict=True))
    return functools.reduce(_numpy.hypot, differences, 0.0)


def isclose(a: Any, b: Any, *, rel_tol: float = 1e-9, abs_tol: float = 0.0) -> Any:
    """math.isclose."""
    if not any(map(is_unknown, (a, b))):
        return math.isclose(a, b, rel_tol=rel_tol, abs_tol=abs_tol)
    bound = np.maximum(rel_tol * np.maximum(abs(a), abs(b)), abs_tol)
    return (a == b) | ((abs(a - b) <= bound) & np.isfinite(a) & np.isfinite(b))


def _float(x: Any) -> Any:
    return _number(x, float, "math.dist") if is_unknown(x) else float(x)


def __getattr__(name: str) -> Any:
    return getattr(math, name)


def _fill(module: dict[str, Any]) -> list[str]:
    """Put the functions that take traced numbers into this module; their names."""
    for kind, table in ((float, _FLOATS), (int, _INTS), (bool, _BOOLS)):
        for name, traced in table.items():
            module[name] = _with_numbers(getattr(math, name), traced, kind)
    return [*_FLOATS, *_INTS, *_BOOLS]


__all__ = [*_fill(globals()), "dist", "fsum", "isclose", "prod"]
