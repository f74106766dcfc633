"""Complex numbers and their parts.

A gradient by a complex value z = x + iy is df/dx - i df/dy, as JAX and autograd have it: the
cotangent c of z stands for the change Re(c dz) of the result. So the rule of a function with a
complex derivative is that of the real one, without conjugates; those below are the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphdl.errors import DtypeError, ShapeError
from graphdl.ops.op import Op
from graphdl.types import Dtype, TensorType

#: Two numbers of this dtype are one complex number.
PART: dict[Dtype, Dtype] = {
    np.dtype(np.complex64): np.dtype(np.float32),
    np.dtype(np.complex128): np.dtype(np.float64),
}
#: The other way round.
WHOLE: dict[Dtype, Dtype] = {part: whole for whole, part in PART.items()}


def _infer_part(name: str) -> Callable[[TensorType], TensorType]:
    def infer(z: TensorType) -> TensorType:
        if z.dtype not in PART:
            raise DtypeError(f"{name}: takes complex numbers, not {z}")
        return TensorType(PART[z.dtype], z.shape)

    return infer


def _infer_conjugate(z: TensorType) -> TensorType:
    if z.dtype not in PART:
        raise DtypeError(f"conjugate: takes complex numbers, not {z}")
    return z


def _infer_whole(x: TensorType, y: TensorType) -> TensorType:
    if x.dtype not in WHOLE or x.dtype != y.dtype:
        raise DtypeError(f"complex: takes two parts of one float type, not {x} and {y}")
    if x.shape != y.shape:
        raise ShapeError(f"complex: parts of shapes {x.shape} and {y.shape} differ")
    return TensorType(WHOLE[x.dtype], x.shape)


def _whole(x: Any, y: Any) -> Any:
    result = np.empty(np.shape(x), WHOLE[x.dtype])
    result.real, result.imag = x, y
    return result


real: Op = Op(
    "real",
    "complex",
    _infer_part("real"),
    lambda z: z.real.copy(),
    lambda g, out, z: (whole(g, np.zeros_like(g)),),
)
imag: Op = Op(
    "imag",
    "complex",
    _infer_part("imag"),
    lambda z: z.imag.copy(),
    lambda g, out, z: (whole(np.zeros_like(g), -g),),
)
conjugate: Op = Op(
    "conjugate",
    "complex",
    _infer_conjugate,
    np.conjugate,
    lambda g, out, z: (conjugate(g),),
)
whole: Op = Op(
    "complex",
    "complex",
    _infer_whole,
    _whole,
    lambda g, out, x, y: (real(g), -imag(g)),
)

#: The ops that take or give complex numbers, by name: those that graphdl.compiler.split_complex
#: makes pairs of real ones of.
TAKE_COMPLEX = frozenset(
    {
        # parts and casts
        "real", "imag", "conjugate", "complex", "cast", "select", "variable", "stop_gradient",
        # arithmetic
        "add", "subtract", "multiply", "divide", "negative", "reciprocal", "square", "absolute",
        "power", "sqrt", "rint",
        # elementary functions
        "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "arcsin",
        "arccos", "arctan", "sinh", "cosh", "tanh", "arcsinh", "arccosh", "arctanh",
        # questions
        "equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "isnan", "isinf",
        "isfinite", "logical_and", "logical_or", "logical_xor", "logical_not",
        # order
        "maximum", "minimum", "fmax", "fmin", "max", "min", "argmax", "argmin",
        # reductions, products, movement
        "sum", "prod", "cumsum", "contract", "reshape", "transpose", "broadcast", "slice", "pad",
        "concatenate", "gather", "scatter_add", "scatter", "update", "item", "after", "constant",
        "iota", "extent",
        # linear algebra
        "cholesky", "solve_triangular", "lu", "solve", "qr", "eigh", "svd", "expm", "eig",
    }
)  # fmt: skip
