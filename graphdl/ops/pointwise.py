"""Pointwise ops: one scalar expression for each element, all operands of one shape.

The op's name is also the name of the scalar function in generated kernels
(graphdl.kernels.elementary and .arithmetic), so a record here is all that an op needs.

Conventions of the gradients, where the derivative is not unique:
- `maximum`, `minimum`, `fmax`, `fmin`: at a tie each argument gets half; where the other argument
  is a constant, a tie gets nothing, so that `np.maximum(x, 0)` is ReLU with derivative 0 at 0;
- `absolute`: 0 at 0 (the sign); `hypot` at the origin: 0;
- steps (`floor`, `rint`, `sign`, `floor_divide`, comparisons, ...): 0;
- `where`: what is not selected gets exactly 0, even if the cotangent is infinite;
- `power`: d/dx is 0 where the exponent is 0; d/dy is 0 where the base is not positive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from graphdl.errors import DtypeError, ShapeError
from graphdl.ops.op import Op, Rule
from graphdl.types import (
    DTYPES,
    FLOAT16,
    Dtype,
    TensorType,
    as_dtype,
    is_half,
    kind_of,
    like_float16,
)

Domain = tuple[tuple[float, float], ...]
_REAL = (-3.0, 3.0)
_POSITIVE = (0.1, 4.0)
#: What depends on the distance between the numbers of a dtype.
_OF_NEIGHBOURS = (np.nextafter, np.spacing)
_STEP = "piecewise constant: its derivative is 0 wherever it exists"


@lru_cache(maxsize=4096)
def resolve(
    ufunc: np.ufunc, operands: tuple[Dtype | type, ...], result: Dtype | None = None
) -> tuple[Dtype, ...]:
    """The dtypes of the loop that NumPy would run: operands first, then results.

    An operand given as `int`, `float` or `bool` is a Python scalar, which NEP 50 calls weak.
    `result` is the dtype that `dtype=` asks for.
    """
    # among Python scalars alone there is nothing to yield to; nor is there anything below a bool
    weak = not all(isinstance(operand, type) for operand in operands)
    names = ", ".join(getattr(o, "__name__", str(o)) for o in operands)
    (*plain, result), half = like_float16([*operands, result])
    given = tuple(o if weak and o is not bool else np.dtype(o) for o in plain)
    types = (*given, *[None] * ufunc.nout)
    try:
        if result is None:
            loop = ufunc.resolve_dtypes(types)
        else:
            loop = ufunc.resolve_dtypes(types, signature=(*[None] * ufunc.nin, result))
    except TypeError as error:
        hint = f": {error}" if "boolean" in str(error) else ""
        raise DtypeError(f"np.{ufunc.__name__} takes no operands ({names}){hint}") from error
    if half is not None:
        loop = tuple(half if dtype == FLOAT16 else dtype for dtype in loop)
    try:
        return tuple(as_dtype(dtype) for dtype in loop)
    except DtypeError as error:
        raise DtypeError(f"np.{ufunc.__name__} of ({names}): {error}") from None


def _one_shape(name: str, types: Sequence[TensorType]) -> tuple[int, ...]:
    shape = types[0].shape
    if any(type.shape != shape for type in types):
        raise ShapeError(f"{name}: operands of shapes {[type.shape for type in types]} differ")
    return shape


def _from_ufunc(name: str, ufunc: np.ufunc, result: int = 0) -> Callable[..., TensorType]:
    def infer(*types: TensorType) -> TensorType:
        shape = _one_shape(name, types)
        dtypes = tuple(type.dtype for type in types)
        loop = resolve(ufunc, dtypes)
        if ufunc in _OF_NEIGHBOURS and is_half(dtypes[0]):
            raise DtypeError(
                f"np.{name} of {dtypes[0]}: halves are computed with as float32, whose neighbours "
                f"are others; write x.astype(np.float32)"
            )
        if loop[: len(types)] != dtypes:
            raise DtypeError(f"{name}: operands must be {loop[: len(types)]}, not {dtypes}")
        return TensorType(loop[len(types) + result], shape)

    return infer


def _float(name: str) -> Callable[..., TensorType]:
    def infer(x: TensorType) -> TensorType:
        if not x.is_float:
            raise DtypeError(f"{name}: takes floats, not {x}")
        return x

    return infer


def _op(
    ufunc: np.ufunc,
    vjp: Rule | None = None,
    *,
    domain: Domain = (),
    no_gradient: str = "",
    name: str = "",
) -> Op:
    """The record of a NumPy ufunc with one result."""
    name = name or ufunc.__name__
    return Op(
        name,
        "pointwise",
        _from_ufunc(name, ufunc),
        ufunc,
        vjp,
        no_gradient,
        domain or (_REAL,) * ufunc.nin,
    )


def _step(ufunc: np.ufunc, domain: Domain = ()) -> Op:
    return _op(ufunc, lambda g, out, *xs: (None,) * len(xs), domain=domain)


def _discrete(ufunc: np.ufunc) -> Op:
    return _op(ufunc, no_gradient="its result is not a float")


def _is_constant(x: Any) -> bool:
    """Whether a gradient rule sees a value that does not depend on any input."""
    return bool(getattr(x, "is_constant", False))


def _extremum(wins: Callable[[Any, Any], Any]) -> Rule:
    """The rule of maximum and minimum; `wins(a, b)` where a alone is the answer."""

    def share(g: Any, out: Any, x: Any, y: Any) -> Any:
        zero = np.zeros_like(g)
        if _is_constant(y):
            return np.where(wins(out, y), g, zero)
        return np.where(wins(x, y), g, np.where(x == y, g * 0.5, zero))

    return lambda g, out, x, y: (share(g, out, x, y), share(g, out, y, x))


def _power_rule(g: Any, out: Any, x: Any, y: Any) -> tuple[Any, Any]:
    if kind_of(x.dtype) == "c":
        exponent = np.where(y == 0, np.ones_like(y), y - 1)
        log_base = np.log(np.where(x == 0, np.ones_like(x), x))
        return g * (y * np.power(x, exponent)), g * (out * log_base)
    one, zero = np.ones_like(y), np.zeros_like(y)
    dx = y * np.power(x, np.where(y == 0, one, y - 1))
    log_x = np.log(np.where(x > 0, x, np.ones_like(x)))
    return g * dx, g * np.where(x > 0, out * log_x, zero)


def _hypot_rule(g: Any, out: Any, x: Any, y: Any) -> tuple[Any, Any]:
    scale = np.where(out == 0, np.zeros_like(out), g / np.where(out == 0, np.ones_like(out), out))
    return scale * x, scale * y


def _arctan2_rule(g: Any, out: Any, y: Any, x: Any) -> tuple[Any, Any]:
    scale = g / (x * x + y * y)
    return scale * x, -scale * y


def _scipy(name: str) -> Callable[..., Any]:
    def reference(x: Any) -> Any:
        import scipy.special  # 0.1 s of start-up that only the interpreter pays

        return getattr(scipy.special, name)(x)

    return reference


def _smooth(name: str, reference: Callable[..., Any], vjp: Rule) -> Op:
    """A float function of one operand that NumPy has no ufunc for."""
    return Op(name, "pointwise", _float(name), reference, vjp, domain=(_REAL,))


_LN2 = math.log(2.0)
_LN10 = math.log(10.0)

negative = _op(np.negative, lambda g, out, x: (-g,))
absolute = _op(np.absolute, lambda g, out, x: (g * np.conjugate(np.sign(x)),))
fabs = _op(np.fabs, lambda g, out, x: (g * np.sign(x),))
sign = _step(np.sign)
rint, floor, ceil, trunc = (_step(f) for f in (np.rint, np.floor, np.ceil, np.trunc))
square = _op(np.square, lambda g, out, x: (2 * g * x,))
sqrt = _op(np.sqrt, lambda g, out, x: (g * 0.5 / out,), domain=(_POSITIVE,))
cbrt = _op(np.cbrt, lambda g, out, x: (g / (3 * out * out),), domain=(_POSITIVE,))
reciprocal = _op(np.reciprocal, lambda g, out, x: (-g * out * out,), domain=(_POSITIVE,))
deg2rad = _op(np.deg2rad, lambda g, out, x: (g * (math.pi / 180),))
rad2deg = _op(np.rad2deg, lambda g, out, x: (g * (180 / math.pi),))

exp = _op(np.exp, lambda g, out, x: (g * out,))
exp2 = _op(np.exp2, lambda g, out, x: (g * out * _LN2,))
expm1 = _op(np.expm1, lambda g, out, x: (g * (out + 1),))
log = _op(np.log, lambda g, out, x: (g / x,), domain=(_POSITIVE,))
log2 = _op(np.log2, lambda g, out, x: (g / (x * _LN2),), domain=(_POSITIVE,))
log10 = _op(np.log10, lambda g, out, x: (g / (x * _LN10),), domain=(_POSITIVE,))
log1p = _op(np.log1p, lambda g, out, x: (g / (1 + x),), domain=((-0.9, 4.0),))

sin = _op(np.sin, lambda g, out, x: (g * np.cos(x),))
cos = _op(np.cos, lambda g, out, x: (-g * np.sin(x),))
tan = _op(np.tan, lambda g, out, x: (g * (1 + out * out),), domain=((-1.4, 1.4),))
arcsin = _op(np.arcsin, lambda g, out, x: (g / np.sqrt(1 - x * x),), domain=((-0.9, 0.9),))
arccos = _op(np.arccos, lambda g, out, x: (-g / np.sqrt(1 - x * x),), domain=((-0.9, 0.9),))
arctan = _op(np.arctan, lambda g, out, x: (g / (1 + x * x),))
sinh = _op(np.sinh, lambda g, out, x: (g * np.cosh(x),))
cosh = _op(np.cosh, lambda g, out, x: (g * np.sinh(x),))
tanh = _op(np.tanh, lambda g, out, x: (g * (1 - out * out),))
arcsinh = _op(np.arcsinh, lambda g, out, x: (g / np.sqrt(x * x + 1),))
arccosh = _op(
    np.arccosh, lambda g, out, x: (g / (np.sqrt(x - 1) * np.sqrt(x + 1)),), domain=((1.2, 5.0),)
)
arctanh = _op(np.arctanh, lambda g, out, x: (g / (1 - x * x),), domain=((-0.9, 0.9),))

add = _op(np.add, lambda g, out, x, y: (g, g))
subtract = _op(np.subtract, lambda g, out, x, y: (g, -g))
multiply = _op(np.multiply, lambda g, out, x, y: (g * y, g * x))
divide = _op(np.divide, lambda g, out, x, y: (g / y, -g * out / y), domain=(_REAL, _POSITIVE))
floor_divide = _step(np.floor_divide, (_REAL, _POSITIVE))
remainder = _op(
    np.remainder, lambda g, out, x, y: (g, -g * np.floor(x / y)), domain=(_REAL, _POSITIVE)
)
fmod = _op(np.fmod, lambda g, out, x, y: (g, -g * np.trunc(x / y)), domain=(_REAL, _POSITIVE))
power = _op(np.power, _power_rule, domain=(_POSITIVE, _REAL))
arctan2 = _op(np.arctan2, _arctan2_rule)
hypot = _op(np.hypot, _hypot_rule)
logaddexp = _op(np.logaddexp, lambda g, out, x, y: (g * np.exp(x - out), g * np.exp(y - out)))
logaddexp2 = _op(np.logaddexp2, lambda g, out, x, y: (g * np.exp2(x - out), g * np.exp2(y - out)))
maximum = _op(np.maximum, _extremum(lambda a, b: a > b))
minimum = _op(np.minimum, _extremum(lambda a, b: a < b))
fmax = _op(np.fmax, _extremum(lambda a, b: (a > b) | np.isnan(b)))
fmin = _op(np.fmin, _extremum(lambda a, b: (a < b) | np.isnan(b)))
copysign = _op(
    np.copysign,
    lambda g, out, x, y: (np.where(np.signbit(x) == np.signbit(y), g, -g), None),
)
heaviside = _step(np.heaviside)
nextafter = _op(np.nextafter, lambda g, out, x, y: (g, None))
spacing = _op(np.spacing, no_gradient=_STEP)
ldexp = _op(np.ldexp, lambda g, out, x, i: (np.ldexp(g, i), None))

equal, not_equal, less, less_equal, greater, greater_equal = (
    _discrete(f)
    for f in (np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal)
)
logical_and, logical_or, logical_xor, logical_not = (
    _discrete(f) for f in (np.logical_and, np.logical_or, np.logical_xor, np.logical_not)
)
isnan, isinf, isfinite, signbit = (
    _discrete(f) for f in (np.isnan, np.isinf, np.isfinite, np.signbit)
)
bitwise_and, bitwise_or, bitwise_xor, invert, bitwise_count, left_shift, right_shift, gcd, lcm = (
    _discrete(f)
    for f in (
        np.bitwise_and, np.bitwise_or, np.bitwise_xor, np.invert, np.bitwise_count,
        np.left_shift, np.right_shift, np.gcd, np.lcm,
    )
)  # fmt: skip


def _part(name: str, ufunc: np.ufunc, part: int, vjp: Rule | None, why: str = "") -> Op:
    """One result of a ufunc that has two."""
    return Op(
        name,
        "pointwise",
        _from_ufunc(name, ufunc, part),
        lambda x: ufunc(x)[part],
        vjp,
        why,
        (_REAL,),
    )


modf_frac = _part("modf_frac", np.modf, 0, lambda g, out, x: (g,))
modf_int = _part("modf_int", np.modf, 1, lambda g, out, x: (None,))
frexp_exponent = _part("frexp_exponent", np.frexp, 1, None, "its result is not a float")
frexp_mantissa = _part(
    "frexp_mantissa", np.frexp, 0, lambda g, out, x: (np.ldexp(g, -frexp_exponent(x)),)
)

sigmoid = _smooth("sigmoid", _scipy("expit"), lambda g, out, x: (g * out * (1 - out),))
softplus = _smooth(
    "softplus",
    lambda x: np.logaddexp(np.zeros((), x.dtype), x),
    lambda g, out, x: (g * sigmoid(x),),
)
erf = _smooth(
    "erf", _scipy("erf"), lambda g, out, x: (g * (2 / math.sqrt(math.pi)) * np.exp(-x * x),)
)
erfc = _smooth(
    "erfc", _scipy("erfc"), lambda g, out, x: (g * (-2 / math.sqrt(math.pi)) * np.exp(-x * x),)
)
ndtri = Op(
    "ndtri",
    "pointwise",
    _float("ndtri"),
    _scipy("ndtri"),
    lambda g, out, p: (g * math.sqrt(2 * math.pi) * np.exp(0.5 * out * out),),
    domain=((0.05, 0.95),),
)


def _infer_select(condition: TensorType, x: TensorType, y: TensorType) -> TensorType:
    shape = _one_shape("where", (condition, x, y))
    if condition.dtype != np.bool_ or x.dtype != y.dtype:
        raise DtypeError(f"where: takes (bool, T, T), not ({condition}, {x}, {y})")
    return TensorType(x.dtype, shape)


select = Op(
    "select",
    "pointwise",
    _infer_select,
    np.where,
    lambda g, out, c, x, y: (
        None,
        np.where(c, g, np.zeros_like(g)),
        np.where(c, np.zeros_like(g), g),
    ),
)


def _infer_cast(x: TensorType, *, dtype: Dtype, again: int = 0) -> TensorType:
    return TensorType(as_dtype(dtype), x.shape)


def _cast(x: Any, *, dtype: Dtype, again: int = 0) -> Any:
    if kind_of(x.dtype) == "c" and kind_of(dtype) in "iuf":
        x = x.real  # without the warning of NumPy that the rest is lost
    return x.astype(dtype)


#: `again` counts the casts of one value that the compiler has made of one.
cast: Op = Op(
    "cast",
    "pointwise",
    _infer_cast,
    _cast,
    lambda g, out, x, *, dtype: (cast(g, dtype=x.dtype) if kind_of(x.dtype) in "fc" else None,),
)

#: A float32 as a float of 16 bits, rounded where it is stored: the compiler puts it behind what it
#: computes for such floats, and what reads the result in the same kernel uses x itself. A `cast`,
#: which the user has asked for, always rounds.
stored = Op("stored", "pointwise", _infer_cast, _cast, cast.vjp)

#: Marks the value that a gradient is taken with respect to; the compiler takes it away.
variable = Op(
    "variable",
    "pointwise",
    lambda x, *, serial: x,
    lambda x, *, serial: x,
    lambda g, out, x, *, serial: (g,),
)
stop_gradient = Op(
    "stop_gradient", "pointwise", lambda x: x, lambda x: x, lambda g, out, x: (None,)
)

#: x, whose kernel notes in the status of its program where `bad` holds: graphdl.compiler.guards.
guard = Op(
    "guard",
    "pointwise",
    lambda x, bad: x,
    lambda x, bad: x,
    lambda g, out, x, bad: (g, None),
)

#: x, which the function of the user's called `name` made, whose kernel notes in the status of its
#: program where that has `raised` an exception instead: graphdl.user_op.
watch = Op(
    "watch",
    "pointwise",
    lambda x, raised, *, name: x,
    lambda x, raised, *, name: x,
    lambda g, out, x, raised, *, name: (g, None),
    failure="the function raised an exception; call it outside of a traced function to see which",
)

#: The op of each NumPy ufunc with one result.
UFUNCS: dict[np.ufunc, Op] = {
    value.evaluate: value
    for value in list(globals().values())
    if isinstance(value, Op) and isinstance(value.evaluate, np.ufunc)
}

assert all(np.dtype(name) in DTYPES for name in ("float32", "float64"))
