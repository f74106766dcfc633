"""np.linalg on traced values: systems, determinants, factorisations, powers, inverses.

What NumPy raises as LinAlgError, compiled programs raise when they have ended; it names the line.
Integers become float64, as in NumPy. Matrices may be complex.

Gradients are those of what is computed. cholesky and eigh read one triangle, so the gradient lies
in that triangle, and counts what the other one mirrors twice: g + g^H with the diagonal halved is
that of a Hermitian matrix. Eigenvectors and singular vectors that belong to equal values have
none (it comes out infinite or NaN), eigenvalues and what is made of whole eigenspaces do where it
is written without these vectors. The signs and phases of vectors are arbitrary: gradients are right
for what does not depend on them.
"""

from __future__ import annotations

import math
import operator
from functools import reduce
from typing import Any

import numpy as np

from graphdl.errors import ArgumentError, DtypeError, UnsupportedError
from graphdl.numpy_functions.arguments import (
    FLOAT,
    integer,
    integers,
    lift,
    lift_one,
    require,
    reshaped,
)
from graphdl.numpy_functions.manipulation import moveaxis
from graphdl.ops import linalg, pointwise, spectral
from graphdl.tracing import broadcast_shapes, broadcast_to, cast, implements
from graphdl.types import kind_of, result_type

#: NumPy's named tuples, which it does not export.
_SlogdetResult: Any = type(np.linalg.slogdet(np.eye(1)))
_QRResult: Any = type(np.linalg.qr(np.eye(1)))
_EigResult: Any = type(np.linalg.eig(np.eye(1)))
_EighResult: Any = type(np.linalg.eigh(np.eye(1)))
_SVDResult: Any = type(np.linalg.svd(np.eye(1)))


# --- operands -----------------------------------------------------------------------------------


def inexact(*values: Any) -> tuple[Any, ...]:
    """The values in the dtype in which NumPy computes with them: in double precision, if not all
    have less; complex, if one is."""
    lifted = lift(*values)
    dtypes = [x.dtype if kind_of(x.dtype) in "fc" else FLOAT for x in lifted]
    dtype = result_type(*dtypes)
    return tuple(cast(x, dtype) for x in lifted)


def floats(*values: Any) -> tuple[Any, ...]:
    """The values in the dtype in which NumPy computes with them, which must not be complex."""
    lifted = inexact(*values)
    if kind_of(lifted[0].dtype) == "c":
        raise DtypeError("takes no complex numbers; solve for the real and imaginary parts")
    return lifted


def matrices(value: Any) -> Any:
    """An operand of floats or complex numbers with two axes or more."""
    (x,) = inexact(value)
    require(x.ndim >= 2, f"takes matrices, with two axes or more, not shape {x.shape}")
    return x


def real_square(value: Any) -> Any:
    """An operand of square matrices of floats."""
    return square(*floats(value))


def square(value: Any) -> Any:
    """An operand of square matrices of floats or complex numbers."""
    x = matrices(value)
    require(x.shape[-1] == x.shape[-2], f"the last two axes of shape {x.shape} must be equal")
    return x


def factors(a: Any) -> Any:
    """The factors of square matrices, and how their rows were exchanged: see graphdl.ops.linalg."""
    return linalg.results(linalg.lu(a))


# --- systems and inverses -----------------------------------------------------------------------


def aligned(a: Any, b: Any) -> tuple[Any, Any]:
    """Stacks of matrices, repeated so that both have the same batch."""
    batch = broadcast_shapes("stacks of matrices", [a.shape[:-2], b.shape[:-2]])
    return broadcast_to(a, (*batch, *a.shape[-2:])), broadcast_to(b, (*batch, *b.shape[-2:]))


def with_right_sides(a: Any, b: Any, solver: Any) -> Any:
    """solver(a, b) for stacks of right sides b.

    A vector b is one column. All right sides of a single matrix are columns of one system.
    """
    require(b.ndim >= 1, "the right side needs an axis")
    if b.ndim == 1:
        return with_right_sides(a, reshaped(b, (*b.shape, 1)), solver)[..., 0]
    require(
        b.shape[-2] == a.shape[-1],
        f"matrices of shape {a.shape} do not fit right sides of shape {b.shape}",
    )
    if b.ndim > 2 and math.prod(a.shape[:-2]) == 1:
        rank = max(a.ndim, b.ndim) - 2
        b = broadcast_to(b, (*(1,) * (rank + 2 - b.ndim), *b.shape))
        beside = moveaxis(b, -2, 0)
        columns = reshaped(beside, (b.shape[-2], math.prod(beside.shape[1:])))
        x = solver(reshaped(a, a.shape[-2:]), columns)
        return moveaxis(reshaped(x, beside.shape), 0, -2)
    return solver(*aligned(a, b))


def solved(a: Any, b: Any) -> Any:
    """The x of a @ x = b for stacks of the same batch."""
    return linalg.solve(a, *factors(a), b, trans=False)


@implements(np.linalg.solve)
def solve(a: Any, b: Any) -> Any:
    matrix, right = inexact(a, b)
    return with_right_sides(square(matrix), right, solved)


@implements(np.linalg.inv)
def inv(a: Any) -> Any:
    x = square(a)
    return solved(x, linalg.identity(x))


@implements(np.linalg.tensorinv)
def tensorinv(a: Any, ind: Any = 2) -> Any:
    (x,) = inexact(a)
    count = integer(ind, "ind")
    require(count > 0, f"ind must be positive, not {count}")
    left, right = x.shape[:count], x.shape[count:]
    require(
        math.prod(left) == math.prod(right),
        f"the first {count} axes of shape {x.shape} and the others have different sizes",
    )
    n = math.prod(right)
    return reshaped(inv(reshaped(x, (n, n))), (*right, *left))


@implements(np.linalg.tensorsolve)
def tensorsolve(a: Any, b: Any, axes: Any = None) -> Any:
    x, right = inexact(a, b)
    if axes is not None:
        last = list(range(x.ndim))
        for axis in integers(axes, "axes"):
            last.remove(axis)
            last.append(axis)
        x = np.transpose(x, last)
    unknown = x.shape[right.ndim :]
    n = math.prod(unknown)
    require(
        x.size == n * n == right.size * n,
        f"a of shape {x.shape} and b of shape {right.shape} make no square system",
    )
    return reshaped(solve(reshaped(x, (n, n)), reshaped(right, (n,))), unknown)


@implements(np.linalg.matrix_power)
def matrix_power(a: Any, n: Any) -> Any:
    x = lift_one(a)
    require(
        x.ndim >= 2 and x.shape[-1] == x.shape[-2],
        f"takes square matrices, not shape {x.shape}",
    )
    power = integer(n, "the power")
    if power == 0:
        return linalg.identity(x)
    if power < 0:
        x, power = inv(x), -power
    squares = [x]
    while 2 ** len(squares) <= power:
        squares.append(squares[-1] @ squares[-1])
    return reduce(operator.matmul, (s for i, s in enumerate(squares) if power >> i & 1))


# --- determinants -------------------------------------------------------------------------------


@implements(np.linalg.slogdet)
def slogdet(a: Any) -> Any:
    x = square(a)
    lut, pivots = factors(x)
    # a sign does not change with a matrix, but a phase does
    known = lut if kind_of(x.dtype) == "c" else _without_gradient(lut)
    sign, size = linalg.sign_and_log_det(known, pivots)
    return _SlogdetResult(sign, linalg.log_det(size, x, lut, pivots))


@implements(np.linalg.det)
def det(a: Any) -> Any:
    x = square(a)
    lut, pivots = factors(x)
    sign, size = linalg.sign_and_log_det(lut, pivots)
    return linalg.det(sign * np.exp(size), x, lut, pivots)


def _without_gradient(x: Any) -> Any:
    return pointwise.stop_gradient(x)


# --- factorisations -----------------------------------------------------------------------------


@implements(np.linalg.cholesky)
def cholesky(a: Any, /, *, upper: bool = False) -> Any:
    x = square(a)
    if upper:
        return linalg.adjoint(linalg.cholesky(linalg.adjoint(x)))
    return linalg.cholesky(x)


@implements(np.linalg.qr)
def qr(a: Any, mode: str = "reduced") -> Any:
    x = matrices(a)
    if mode not in ("reduced", "complete", "r"):
        raise UnsupportedError(f"mode={mode!r} is not traced; write 'reduced', 'complete' or 'r'")
    rows, columns = x.shape[-2:]
    if rows < columns:  # the factors of the square part, and what q makes of the columns beside it
        q, own = _tall_qr(x[..., :, :rows], rows)
        r = np.concatenate([own, linalg.adjoint(q) @ x[..., :, rows:]], axis=-1)
    else:
        q, r = _tall_qr(x, rows if mode == "complete" else columns)
        if mode == "complete":
            zeros = np.zeros((*r.shape[:-2], rows - columns, columns), r.dtype)
            r = np.concatenate([r, zeros], axis=-2)
    return r if mode == "r" else _QRResult(q, r)


def _units(like: Any, rows: int, columns: int) -> Any:
    """The first columns of unit matrices, for each matrix of a stack."""
    (zero,) = lift(like, np.zeros((), like.dtype))[1:]
    return linalg.identity(broadcast_to(zero, (*like.shape[:-2], rows, columns)))


def _tall_qr(x: Any, kept: int) -> tuple[Any, Any]:
    """q with `kept` columns, and a square r, of matrices that have no more columns than rows."""
    if x.shape[-1] == 0:
        return _units(x, x.shape[-2], kept), x[..., :0, :]
    r, qt = linalg.results(linalg.qr(x, columns=kept))
    return linalg.transposed(qt), r


@implements(np.linalg.eigh)
def eigh(a: Any, UPLO: str = "L") -> Any:
    x = square(a)
    if UPLO not in ("L", "l", "U", "u"):
        raise ArgumentError(f"UPLO={UPLO!r}; it is 'L' or 'U'")
    values, vt = linalg.results(linalg.eigh(x, lower=UPLO in "Ll", vectors=True))
    return _EighResult(values, linalg.transposed(vt))


@implements(np.linalg.eigvalsh)
def eigvalsh(a: Any, UPLO: str = "L") -> Any:
    return eigh(a, UPLO)[0]


@implements(np.linalg.eig)
def eig(a: Any) -> Any:
    """Complex, whatever the values: NumPy gives floats where no value has an imaginary part.

    In double precision whatever the dtype, as NumPy's: the order of the values depends on rounding.
    """
    x = square(a)
    dtype = np.result_type(x.dtype, np.complex64)
    wide = cast(x, np.result_type(x.dtype, FLOAT))
    values, vt = (cast(part, dtype) for part in linalg.results(spectral.eig(wide)))
    return _EigResult(values, linalg.transposed(vt))


@implements(np.linalg.eigvals)
def eigvals(a: Any) -> Any:
    return eig(a)[0]


@implements(np.linalg.svd)
def svd(
    a: Any, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False
) -> Any:
    x = matrices(a)
    u, values, vh = _hermitian_svd(x) if hermitian else _svd(x, bool(full_matrices))
    return _SVDResult(u, values, vh) if compute_uv else values


def _svd(x: Any, full: bool) -> tuple[Any, Any, Any]:
    rows, columns = x.shape[-2:]
    if 0 in (rows, columns):
        left, right = (rows, columns) if full else (0, 0)
        empty = x[..., 0] if rows == 0 else x[..., 0, :]
        return _units(x, rows, left), empty, _units(x, right, columns)
    values, ut, v = linalg.results(linalg.svd(x, full=full, vectors=True))
    return linalg.transposed(ut), values, linalg.transposed(v)


def _hermitian_svd(x: Any) -> tuple[Any, Any, Any]:
    """Of Hermitian matrices, by their eigenvalues in the order of their sizes."""
    signed, v = eigh(x)
    order = np.argsort(np.abs(signed), axis=-1)[..., ::-1]
    signed = np.take_along_axis(signed, order, axis=-1)
    v = np.take_along_axis(v, order[..., None, :], axis=-1)
    signs = np.copysign(np.ones((), signed.dtype), signed)
    return v, np.abs(signed), linalg.adjoint(v * signs[..., None, :])


@implements(np.linalg.svdvals)
def svdvals(x: Any, /) -> Any:
    return svd(x, compute_uv=False)
