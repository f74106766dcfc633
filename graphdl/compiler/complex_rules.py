"""What each op on complex numbers is on their parts.

A rule takes the op's operands and attributes: pairs `(re, im)` of traced real values for complex
operands, traced values for real ones. It returns a pair, or a real value. `im` is None where a
number is known to be real, because it was cast from one: what is multiplied by it costs half.
(NumPy would multiply by a zero there, which differs where the other operand is infinite or NaN.)

Sources: division by R. L. Smith's method (Comm. ACM 5 (1962) 435), as in NumPy; inverse functions
and tanh by W. Kahan, "Branch cuts for complex elementary functions" (1987).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphdl.compiler.constants import uniform
from graphdl.errors import DtypeError
from graphdl.ops import contraction, pointwise, update
from graphdl.ops.complex_numbers import PART
from graphdl.ops.lines import pick_along
from graphdl.types import kind_of

#: (re, im), traced; im is None where it is zero for certain.
Pair = tuple[Any, Any]
Rule = Callable[..., Any]


def parts(z: Pair) -> Pair:
    """Both parts, a zero that is known written out."""
    re, im = z
    return re, np.zeros_like(re) if im is None else im


# --- arithmetic ---------------------------------------------------------------------------------


def add(z: Pair, w: Pair) -> Pair:
    (a, b), (c, d) = z, w
    return a + c, b if d is None else d if b is None else b + d


def subtract(z: Pair, w: Pair) -> Pair:
    (a, b), (c, d) = z, w
    return a - c, b if d is None else -d if b is None else b - d


def negative(z: Pair) -> Pair:
    a, b = z
    return -a, None if b is None else -b


def conjugate(z: Pair) -> Pair:
    a, b = z
    return a, None if b is None else -b


def bilinear(product: Callable[[Any, Any], Any], z: Pair, w: Pair) -> Pair:
    """A product that is linear in both operands."""
    (a, b), (c, d) = z, w
    if d is None:
        return product(a, c), None if b is None else product(b, c)
    if b is None:
        return product(a, c), product(a, d)
    return product(a, c) - product(b, d), product(a, d) + product(b, c)


def multiply(z: Pair, w: Pair) -> Pair:
    return bilinear(np.multiply, z, w)


def square(z: Pair) -> Pair:
    return multiply(z, z)


def divide(z: Pair, w: Pair) -> Pair:
    (a, b), (c, d) = z, w
    if d is None:
        return a / c, None if b is None else b / c
    a, b = parts(z)
    swap: Any = np.abs(c) < np.abs(d)
    large: Any = np.where(swap, d, c)
    small: Any = np.where(swap, c, d)
    first: Any = np.where(swap, b, a)
    second: Any = np.where(swap, a, b)
    ratio = np.where(large == 0, 0, small / large)
    scale = 1 / (large + small * ratio)
    re = (first + second * ratio) * scale
    im = (second - first * ratio) * scale
    return re, np.where(swap, -im, im)


def reciprocal(z: Pair) -> Pair:
    return divide((np.ones_like(z[0]), None), z)


def absolute(z: Pair) -> Any:
    a, b = z
    return np.abs(a) if b is None else np.hypot(a, b)


# --- exponentials and logarithms ----------------------------------------------------------------


def polar(size: Any, angle: Any) -> Pair:
    """A number by its size and its angle; real where the angle is 0, however large."""
    flat = angle == 0
    return np.where(flat, size, size * np.cos(angle)), np.where(flat, angle, size * np.sin(angle))


def scaled(factor: float) -> Callable[[Pair], Pair]:
    def times(z: Pair) -> Pair:
        a, b = z
        return a * factor, None if b is None else b * factor

    return times


def exp(z: Pair) -> Pair:
    a, b = parts(z)
    return polar(np.exp(a), b)


def exp2(z: Pair) -> Pair:
    a, b = parts(z)
    return polar(np.exp2(a), b * math.log(2))


def expm1(z: Pair) -> Pair:
    """exp(a) (cos(b) + i sin(b)) - 1, of which exp(a) cos(b) - 1 cancels near 0."""
    a, b = parts(z)
    half = np.sin(b / 2)
    return np.expm1(a) * np.cos(b) - 2 * half * half, polar(np.exp(a), b)[1]


def log(z: Pair) -> Pair:
    """log|z|, near the unit circle as log1p(|z|^2 - 1) / 2, and the angle."""
    a, b = parts(z)
    x, y = np.abs(a), np.abs(b)
    large, small = np.maximum(x, y), np.minimum(x, y)
    near = (large > 0.5) & (large < 2)
    inside = np.where(near, large, 1)
    excess = (inside - 1) * (inside + 1) + np.where(near, small * small, 0)
    size = np.where(near, 0.5 * np.log1p(excess), np.log(np.hypot(a, b)))
    return size, np.arctan2(b, a)


def log1p(z: Pair) -> Pair:
    """log1p(a (2 + a) + b^2) / 2 where |z| is small; log(1 + z) elsewhere."""
    a, b = parts(z)
    small = (np.abs(a) < 0.5) & (np.abs(b) < 0.5)
    excess = np.where(small, a * (2 + a) + b * b, 0)
    size, angle = log((1 + a, b))
    return np.where(small, 0.5 * np.log1p(excess), size), angle


def power(z: Pair, w: Pair) -> Pair:
    """exp(w log(z)); whole exponents that are written in the program are products, as in NumPy."""
    count = _whole_exponent(w)
    if count is not None:
        return _repeated_product(z, count)
    (a, b), (c, d) = parts(z), parts(w)
    size, angle = log((a, b))
    re, im = polar(np.exp(c * size - d * angle), d * size + c * angle)
    zero, exponent_is_zero = (a == 0) & (b == 0), (c == 0) & (d == 0)
    nothing = np.zeros_like(re)
    defined = np.where((c >= 0) & (d == 0), nothing, np.nan)
    return np.where(zero, np.where(exponent_is_zero, 1, defined), re), np.where(zero, defined, im)


def _whole_exponent(w: Pair) -> int | None:
    """The exponent where it is one small integer, everywhere."""
    re, im = (None if part is None else uniform(part.node) for part in w)
    if re is None or (w[1] is not None and (im is None or im != 0)) or re != np.rint(re):
        return None
    return int(re) if abs(re) < 100 else None


def _repeated_product(z: Pair, count: int) -> Pair:
    result, factor, left = (np.ones_like(z[0]), None), z, abs(count)
    while left:
        if left & 1:
            result = (
                factor if result[1] is None and left == abs(count) else multiply(result, factor)
            )
        left >>= 1
        factor = multiply(factor, factor) if left else factor
    return reciprocal(result) if count < 0 else result


def sqrt(z: Pair) -> Pair:
    a, b = parts(z)
    t = np.sqrt(0.5 * (np.hypot(a, b) + np.abs(a)))
    other = np.where(t == 0, 0, np.abs(b) / (2 * np.where(t == 0, 1, t)))
    right = a >= 0
    return np.where(right, t, other), np.copysign(np.where(right, other, t), b)


# --- trigonometric and hyperbolic functions -----------------------------------------------------


def times_i(z: Pair) -> Pair:
    a, b = parts(z)
    return -b, a


def over_i(z: Pair) -> Pair:
    a, b = parts(z)
    return b, -a


def sin(z: Pair) -> Pair:
    a, b = parts(z)
    return np.sin(a) * np.cosh(b), np.cos(a) * np.sinh(b)


def cos(z: Pair) -> Pair:
    a, b = parts(z)
    return np.cos(a) * np.cosh(b), -(np.sin(a) * np.sinh(b))


def sinh(z: Pair) -> Pair:
    return over_i(sin(times_i(z)))


def cosh(z: Pair) -> Pair:
    return cos(times_i(z))


def tanh(z: Pair) -> Pair:
    a, b = parts(z)
    far = np.abs(a) > 20
    t = np.tan(b)
    slope = 1 + t * t
    s = np.sinh(np.where(far, 0, a))
    below = 1 + slope * s * s
    re = slope * np.sqrt(1 + s * s) * s / below
    tail = 4 * np.sin(b) * np.cos(b) * np.exp(-2 * np.abs(a))
    return np.where(far, np.sign(a), re), np.where(far, tail, t / below)


def tan(z: Pair) -> Pair:
    return over_i(tanh(times_i(z)))


def _roots(z: Pair) -> tuple[Pair, Pair]:
    """sqrt(1 - z) and sqrt(1 + z)."""
    a, b = parts(z)
    return sqrt((1 - a, -b)), sqrt((1 + a, b))


def arcsin(z: Pair) -> Pair:
    (a, b), (c, d) = _roots(z)
    return np.arctan2(z[0], a * c - b * d), np.arcsinh(a * d - b * c)


def arccos(z: Pair) -> Pair:
    (a, b), (c, d) = _roots(z)
    return 2 * np.arctan2(a, c), np.arcsinh(b * c - a * d)


def arcsinh(z: Pair) -> Pair:
    return over_i(arcsin(times_i(z)))


def arccosh(z: Pair) -> Pair:
    a, b = parts(z)
    (c, d), (e, f) = sqrt((a - 1, b)), sqrt((a + 1, b))
    return np.arcsinh(c * e + d * f), 2 * np.arctan2(d, e)


def arctanh(z: Pair) -> Pair:
    """log1p(4a / ((1 - a)^2 + b^2)) / 4 and half an angle."""
    a, b = parts(z)
    size = np.abs(a)
    quotient = 4 * size / ((1 - size) * (1 - size) + b * b)
    re = np.copysign(0.25 * np.log1p(quotient), a)
    return re, 0.5 * np.arctan2(2 * b, (1 - a) * (1 + a) - b * b)


def arctan(z: Pair) -> Pair:
    return over_i(arctanh(times_i(z)))


# --- questions ----------------------------------------------------------------------------------


def equal(z: Pair, w: Pair) -> Any:
    (a, b), (c, d) = parts(z), parts(w)
    return (a == c) & (b == d)


def not_equal(z: Pair, w: Pair) -> Any:
    (a, b), (c, d) = parts(z), parts(w)
    return (a != c) | (b != d)


def ordered(compare: np.ufunc, first: np.ufunc) -> Rule:
    """The order of NumPy: by the real parts, at a tie by the others."""

    def rule(z: Pair, w: Pair) -> Any:
        (a, b), (c, d) = parts(z), parts(w)
        numbers = ~(np.isnan(b) | np.isnan(d))
        return (first(a, c) & numbers) | ((a == c) & compare(b, d))

    return rule


def missing(z: Pair) -> Any:
    """Whether a number is none, in either part."""
    return either(np.isnan)(z)


def chosen(condition: Any, z: Pair, w: Pair) -> Pair:
    """z where the condition holds, elsewhere w."""
    (a, b), (c, d) = parts(z), parts(w)
    return np.where(condition, a, c), np.where(condition, b, d)


def extremum(precedes: Rule, *, numbers_first: bool = False) -> Rule:
    """The larger or smaller of two, the first of equals; as NumPy's, the first that is NaN, or with
    `numbers_first` the first that is not."""
    if numbers_first:
        return lambda z, w: chosen(precedes(z, w) | missing(w), z, w)
    return lambda z, w: chosen(precedes(z, w) | missing(z), z, w)


def position(find: Callable[..., Any], worst: float) -> Rule:
    """argmax or argmin: the first NaN; else, of those with the best real part, the first with the
    best imaginary part. `find` is the reduction of real numbers, `worst` what it never prefers."""

    def rule(z: Pair, *, axis: int) -> Any:
        none = missing(z)
        candidates = ~none
        for part in parts(z):
            key = np.where(candidates, part, worst)
            candidates = candidates & (key == find(key, axis=axis, keepdims=True))
        found = np.where(np.any(none, axis=axis, keepdims=True), none, candidates)
        return np.argmax(found.astype(np.uint8), axis=axis)

    return rule


def reduced_extremum(where: Rule) -> Rule:
    """max or min: what lies at the position that `where` finds, of all reduced axes in one."""

    def rule(z: Pair, *, axes: tuple[int, ...]) -> Pair:
        kept = [axis for axis in range(z[0].ndim) if axis not in axes]
        shape = (*(z[0].shape[axis] for axis in kept), -1)
        lines = [np.reshape(np.transpose(part, (*kept, *axes)), shape) for part in parts(z)]
        at = where((lines[0], lines[1]), axis=len(kept))[..., None]
        re, im = (pick_along(line, at)[..., 0] for line in lines)
        return re, im

    return rule


def truth(z: Pair) -> Any:
    a, b = z
    return a != 0 if b is None else (a != 0) | (b != 0)


def on_truth(ufunc: np.ufunc) -> Rule:
    return lambda *operands: ufunc(*map(truth, operands))


def either(ufunc: np.ufunc) -> Rule:
    return lambda z: ufunc(z[0]) if z[1] is None else ufunc(z[0]) | ufunc(z[1])


def isfinite(z: Pair) -> Any:
    return np.isfinite(z[0]) if z[1] is None else np.isfinite(z[0]) & np.isfinite(z[1])


# --- casts, reductions, products, movement ------------------------------------------------------


def cast(x: Any, *, dtype: Any) -> Any:
    """From and to complex numbers; what is cast to a real one loses its imaginary part."""
    if not isinstance(x, tuple):
        return pointwise.cast(x, dtype=PART[dtype]), None
    if kind_of(dtype) == "b":
        return truth(x)
    if kind_of(dtype) != "c":
        return pointwise.cast(x[0], dtype=dtype)
    return tuple(None if part is None else pointwise.cast(part, dtype=PART[dtype]) for part in x)


def prod(z: Pair, *, axes: tuple[int, ...]) -> Pair:
    """The product as a tree of halves."""
    kept = [axis for axis in range(z[0].ndim) if axis not in axes]
    shape = (-1, *(z[0].shape[axis] for axis in kept))

    def flat(part: Any) -> Any:
        return np.reshape(np.transpose(part, (*axes, *kept)), shape)

    re, im = map(flat, parts(z))
    n = re.shape[0]
    if n == 0:
        return np.ones_like(np.sum(re, axis=0)), None
    while n > 1:
        half = n // 2
        left, right = (re[:half], im[:half]), (re[half : 2 * half], im[half : 2 * half])
        rest = (re[2 * half :], im[2 * half :])
        re, im = multiply(left, right)
        if n % 2:
            re, im = np.concatenate([re, rest[0]]), np.concatenate([im, rest[1]])
        n = half + n % 2
    return re[0], im[0]


def contract(z: Pair, w: Pair, **labels: Any) -> Pair:
    return bilinear(lambda a, b: contraction.contract(a, b, **labels), z, w)


def part_by_part(op: Any) -> Rule:
    """A linear op that treats both parts alike; its real operands (indices) serve both."""

    def rule(*operands: Any, **attrs: Any) -> Pair:
        pairs = [x for x in operands if isinstance(x, tuple)]
        first = op(*(x[0] if isinstance(x, tuple) else x for x in operands), **attrs)
        if all(pair[1] is None for pair in pairs):
            return first, None
        return first, op(*(parts(x)[1] if isinstance(x, tuple) else x for x in operands), **attrs)

    return rule


def scatter(z: Pair, w: Pair, *indices: Any, mode: str, **window: Any) -> Pair:
    if mode not in ("set", "add"):
        raise DtypeError(f"scatter with mode {mode!r} takes no complex numbers")
    rule = part_by_part(update.scatter)
    found: Pair = rule(z, w, *indices, mode=mode, **window)
    return found


def constant(trace: Any) -> Rule:
    def rule(*, value: Any) -> Pair:
        array = value.array
        real = trace(np.ascontiguousarray(array.real).reshape(array.shape))
        if not np.any(array.imag.view(f"i{array.imag.itemsize}")):
            return real, None
        return real, trace(np.ascontiguousarray(array.imag).reshape(array.shape))

    return rule


RULES: dict[str, Rule] = {
    "real": lambda z: z[0],
    "imag": lambda z: parts(z)[1],
    "conjugate": conjugate,
    "complex": lambda x, y: (x, y),
    "cast": cast,
    "add": add,
    "subtract": subtract,
    "multiply": multiply,
    "divide": divide,
    "negative": negative,
    "reciprocal": reciprocal,
    "square": square,
    "absolute": absolute,
    "power": power,
    "sqrt": sqrt,
    "exp": exp,
    "exp2": exp2,
    "expm1": expm1,
    "log": log,
    "log2": lambda z: scaled(1 / math.log(2))(log(z)),
    "log10": lambda z: scaled(1 / math.log(10))(log(z)),
    "log1p": log1p,
    "sin": sin,
    "cos": cos,
    "tan": tan,
    "arcsin": arcsin,
    "arccos": arccos,
    "arctan": arctan,
    "sinh": sinh,
    "cosh": cosh,
    "tanh": tanh,
    "arcsinh": arcsinh,
    "arccosh": arccosh,
    "arctanh": arctanh,
    "equal": equal,
    "not_equal": not_equal,
    "less": ordered(np.less, np.less),
    "less_equal": ordered(np.less_equal, np.less),
    "greater": ordered(np.greater, np.greater),
    "greater_equal": ordered(np.greater_equal, np.greater),
    "maximum": extremum(ordered(np.greater_equal, np.greater)),
    "minimum": extremum(ordered(np.less_equal, np.less)),
    "fmax": extremum(ordered(np.greater_equal, np.greater), numbers_first=True),
    "fmin": extremum(ordered(np.less_equal, np.less), numbers_first=True),
    "argmax": position(np.max, -math.inf),
    "argmin": position(np.min, math.inf),
    "max": reduced_extremum(position(np.max, -math.inf)),
    "min": reduced_extremum(position(np.min, math.inf)),
    "isnan": either(np.isnan),
    "isinf": either(np.isinf),
    "isfinite": isfinite,
    "logical_and": on_truth(np.logical_and),
    "logical_or": on_truth(np.logical_or),
    "logical_xor": on_truth(np.logical_xor),
    "logical_not": on_truth(np.logical_not),
    "prod": prod,
    "contract": contract,
    "scatter": scatter,
}
