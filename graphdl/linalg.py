"""scipy.linalg for traced values: `import graphdl.linalg` in the place of `scipy.linalg`.

NumPy's functions dispatch to traced values, SciPy's do not; so these have SciPy's names and
signatures. Called with plain arrays they are SciPy's own. Matrices may come in stacks, as the last
two axes. `np.linalg` works on traced values as it is.

>>> import numpy as np, graphdl as gd
>>> f = gd.compile(lambda a, b: gd.linalg.solve_triangular(a, b, lower=True))
>>> f(np.array([[2.0, 0.0], [1.0, 1.0]]), np.array([4.0, 5.0]))
array([2., 3.])
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from graphdl.errors import ArgumentError, GraphError, UnsupportedError
from graphdl.numpy_functions import linalg as _numpy_linalg
from graphdl.numpy_functions import norms as _norms
from graphdl.numpy_functions.arguments import FLOAT, integer, lift, refuse, require
from graphdl.numpy_functions.linalg import (
    factors,
    floats,
    inexact,
    matrices,
    real_square,
    square,
    with_right_sides,
)
from graphdl.ops import linalg as _ops
from graphdl.ops import spectral as _spectral
from graphdl.ops.pointwise import stop_gradient
from graphdl.tracing import TracedArray, cast, locate
from graphdl.transforms import while_loop
from graphdl.trees import flatten

#: The name of a function of scipy.linalg -> what does its work on traced values (and on arrays).
FUNCTIONS: dict[str, Callable[..., Any]] = {}

#: Why the other way is none, for functions that cannot be traced.
_REFUSED = {
    "schur": "it has no gradient; eigh is for symmetric matrices",
    "logm": "it needs a Schur form; for symmetric matrices write v * np.log(w) @ v.T with eigh",
    "funm": "it needs a Schur form; for symmetric matrices write v * f(w) @ v.T with eigh",
    "null_space": "the shape of its result depends on values; write svd(a)[2][rank:].T",
    "orth": "the shape of its result depends on values; write svd(a)[0][:, :rank]",
}


def _is_traced(args: Any) -> bool:
    return any(isinstance(leaf, TracedArray) for leaf in flatten(args)[0])


def _scipy_function(name: str) -> Callable[..., Any]:
    import scipy.linalg  # 0.1 s of start-up that only those who call it with arrays pay

    function: Callable[..., Any] = getattr(scipy.linalg, name)
    return function


def _like_scipy(implementation: Callable[..., Any]) -> Callable[..., Any]:
    """What the function does to traced values; plain arrays go to SciPy's of that name."""
    name = implementation.__name__

    @functools.wraps(implementation)
    def function(*args: Any, **kwargs: Any) -> Any:
        if not _is_traced((args, kwargs)):
            return _scipy_function(name)(*args, **kwargs)
        try:
            return implementation(*args, **kwargs)
        except GraphError as error:
            if not getattr(error, "located", False) and error.args:
                error.args = (f"gd.linalg.{name}: {error.args[0]}",)
            raise locate(error) from error.__cause__

    FUNCTIONS[name] = function
    return function


# --- triangular and factored systems ------------------------------------------------------------


def _turned(trans: Any, matrix: Any) -> tuple[Any, bool]:
    """SciPy's argument `trans`: the matrix, or its conjugate, and whether that is transposed."""
    kinds = {0: 0, "N": 0, 1: 1, "T": 1, 2: 2, "C": 2}
    if trans not in kinds:
        raise ArgumentError(f"trans={trans!r}; it is 0, 1, 2, 'N', 'T' or 'C'")
    kind = kinds[trans]
    return _ops.conjugated(matrix) if kind == 2 else matrix, kind != 0


@_like_scipy
def solve_triangular(
    a: Any,
    b: Any,
    trans: Any = 0,
    lower: bool = False,
    unit_diagonal: bool = False,
    overwrite_b: bool = False,
    check_finite: bool = True,
) -> Any:
    """The x of a @ x = b with a triangular a, of which the other triangle is not read.

    Args:
        a: float[..., n, n], or complex. b: float[n] or float[..., n, k], or complex.
        trans: 0; 1 for a.T @ x = b; 2 for the conjugate of that matrix. lower: whether a is the
            lower triangle.
        unit_diagonal: the diagonal is taken to be 1, and is not read.

    Returns:
        x, of the shape of b.

    Raises:
        LinAlgError: there is a 0 on the diagonal.
        ShapeError: shapes that do not fit.
    """
    matrix, right = inexact(a, b)
    matrix, turned = _turned(trans, matrix)

    def solver(a: Any, b: Any) -> Any:
        return _ops.solve_triangular(
            a, b, lower=bool(lower), trans=turned, unit=bool(unit_diagonal)
        )

    return with_right_sides(square(matrix), right, solver)


@_like_scipy
def cholesky(
    a: Any, lower: bool = False, overwrite_a: bool = False, check_finite: bool = True
) -> Any:
    """The triangular factor of a positive definite matrix: the upper one unless `lower`.

    Raises LinAlgError where a is not positive definite. It reads the triangle that it returns.
    """
    return _numpy_linalg.cholesky(a, upper=not lower)


@_like_scipy
def cho_factor(
    a: Any, lower: bool = False, overwrite_a: bool = False, check_finite: bool = True
) -> tuple[Any, bool]:
    """The factor that `cho_solve` takes, and whether it is the lower one.

    As `cholesky`; the other triangle, which SciPy leaves as it finds it, is 0.
    """
    return _numpy_linalg.cholesky(a, upper=not lower), lower


@_like_scipy
def cho_solve(
    c_and_lower: Any, b: Any, overwrite_b: bool = False, check_finite: bool = True
) -> Any:
    """The x of a @ x = b, given cho_factor(a); b is float[n] or float[..., n, k]."""
    c, lower = c_and_lower
    first = solve_triangular(c, b, trans=0 if lower else 2, lower=lower)
    return solve_triangular(c, first, trans=2 if lower else 0, lower=lower)


@_like_scipy
def lu_factor(a: Any, overwrite_a: bool = False, check_finite: bool = True) -> tuple[Any, Any]:
    """The LU factors of a with exchanged rows, as `lu_solve` takes them.

    Returns (lu, pivots): L without its unit diagonal below, U on and above the diagonal, and
    int32[..., n], with which row each row was exchanged in turn. A singular a is no error.
    """
    lut, pivots = factors(matrices(a))
    return _ops.transposed(lut), cast(pivots, np.dtype(np.int32))


@_like_scipy
def lu_solve(
    lu_and_piv: Any,
    b: Any,
    trans: Any = 0,
    overwrite_b: bool = False,
    check_finite: bool = True,
) -> Any:
    """The x of a @ x = b, given lu_factor(a); of a.T @ x = b where trans=1, of its conjugate where
    it is 2.

    Raises LinAlgError where a is singular.
    """
    lu, pivots = lu_and_piv
    matrix, right = inexact(lu, b)
    pivots = cast(lift(matrix, pivots)[1], np.dtype(np.int64))
    matrix, turned = _turned(trans, matrix)

    def solver(lu: Any, b: Any) -> Any:
        lut = _ops.transposed(lu)
        places = np.broadcast_to(pivots, lut.shape[:-1]) if lut.ndim > 2 else pivots
        order = _ops.permutation(places, size=lut.shape[-1])
        if turned:
            x = _ops.solve_lower(lut, b)
            return _ops.restore_rows(_ops.solve_upper(lut, x, unit=True), order)
        x = _ops.solve_upper(lut, _ops.take_rows(b, order), trans=True, unit=True)
        return _ops.solve_lower(lut, x, trans=True)

    return with_right_sides(square(matrix), right, solver)


@_like_scipy
def lu(
    a: Any,
    permute_l: bool = False,
    overwrite_a: bool = False,
    check_finite: bool = True,
    p_indices: bool = False,
) -> tuple[Any, ...]:
    """p, l, u with a = p @ l @ u: a permutation, a unit lower and an upper triangle.

    With `permute_l` p @ l and u; with `p_indices` p as int32[..., m]: a = l[p] @ u.
    """
    x = matrices(a)
    lut, pivots = factors(x)
    packed = _ops.transposed(lut)
    rows, columns = x.shape[-2:]
    k = min(rows, columns)
    lower = np.tril(packed[..., :, :k], -1)
    lower = lower + _ops.identity(lower)
    upper = np.triu(packed[..., :k, :])
    order = _ops.permutation(pivots, size=rows)
    if permute_l:
        return _ops.restore_rows(lower, order), upper
    places = np.broadcast_to(np.arange(rows)[:, None], (*order.shape, 1))
    inverse = _ops.restore_rows(lift(x, places)[1], order)
    if p_indices:
        return cast(inverse[..., 0], np.dtype(np.int32)), lower, upper
    return cast(inverse == np.arange(rows), x.dtype), lower, upper


# --- functions of matrices ----------------------------------------------------------------------


@_like_scipy
def expm(A: Any) -> Any:
    """The exponential of square matrices: float[..., n, n], or complex.

    By scaling and squaring of a Pade approximant: Higham, "The scaling and squaring method for the
    matrix exponential revisited" (2005). A matrix with an element that is not finite gives NaN.

    >>> import numpy as np, graphdl as gd
    >>> turn = gd.compile(lambda angle: gd.linalg.expm(angle * np.array([[0.0, -1.0], [1.0, 0.0]])))
    >>> np.round(turn(np.pi / 2), 6) + 0.0
    array([[ 0., -1.],
           [ 1.,  0.]])
    """
    return _ops.expm(square(A))


@_like_scipy
def block_diag(*arrs: Any) -> Any:
    """A matrix with the arrays on its diagonal; vectors are rows."""
    blocks = [np.reshape(x, (1, x.size)) if x.ndim < 2 else x for x in lift(*arrs)]
    columns = sum(x.shape[-1] for x in blocks)
    rows = []
    start = 0
    for x in blocks:
        end = columns - start - x.shape[-1]
        rows.append(np.pad(x, ((0, 0), (start, end))))
        start += x.shape[-1]
    return np.concatenate(rows, axis=0)


@_like_scipy
def sqrtm(A: Any) -> Any:
    """The principal square root of square matrices, real: float[..., n, n].

    Where an eigenvalue is negative there is no real one, and the result is NaN, or LinAlgError is
    raised, as it is for singular matrices. (SciPy returns complex numbers then.)

    By the product form of the iteration of Denman and Beavers: Cheng, Higham, Kenney and Laub,
    "Approximating the logarithm of a matrix to specified accuracy" (2001); then two steps of
    Newton's method, which leave the rounding error of a Sylvester equation, and give derivatives.

    >>> import numpy as np, graphdl as gd
    >>> root = gd.compile(gd.linalg.sqrtm)
    >>> np.round(root(np.array([[5.0, 4.0], [4.0, 5.0]])), 6)
    array([[2., 1.],
           [1., 2.]])
    """
    a = real_square(A)
    n = a.shape[-1]
    if not a.size:
        return a
    fixed = stop_gradient(a)
    unit = _ops.identity(fixed)
    tolerance = 8 * n * np.finfo(a.dtype).eps

    def unfinished(state: Any) -> Any:
        step, m, _ = state
        return (step < _ITERATIONS) & np.any(np.abs(m - unit) > tolerance)

    def improved(state: Any) -> Any:
        step, m, x = state
        size = np.linalg.slogdet(m)[1][..., None, None]
        scale = np.exp(size * np.asarray(-0.5 / n, a.dtype))
        inverse = np.linalg.inv(m) / (scale * scale)
        x = (scale / 2) * (x + x @ inverse)
        return step + 1, (unit + (scale * scale * m + inverse) / 2) / 2, x

    _, m, root = while_loop(unfinished, improved, (0, fixed, fixed))
    near = np.max(np.abs(m - unit), axis=(-1, -2), keepdims=True) <= np.sqrt(tolerance)
    root, known = np.where(near, root, unit), np.where(near, a, unit)
    for _ in range(2):
        root = root - _spectral.solve_sylvester(root, root, root @ root - known)
    return np.where(near, root, np.asarray(np.nan, a.dtype))


#: Steps of the iteration of `sqrtm`: with scaling it takes 5 to 12.
_ITERATIONS = 40


# --- equations ----------------------------------------------------------------------------------


@_like_scipy
def solve_sylvester(a: Any, b: Any, q: Any) -> Any:
    """The x of a @ x + x @ b = q: float[..., n, n], float[..., m, m], float[..., n, m].

    Raises LinAlgError where a and -b have an eigenvalue in common.
    """
    first, second, right = floats(a, b, q)
    batch = np.broadcast_shapes(first.shape[:-2], second.shape[:-2], right.shape[:-2])
    return _spectral.solve_sylvester(
        *(
            np.broadcast_to(x, (*batch, *x.shape[-2:]))
            for x in (real_square(first), real_square(second), right)
        )
    )


@_like_scipy
def solve_continuous_lyapunov(a: Any, q: Any) -> Any:
    """The x of a @ x + x @ a.T = q."""
    return solve_sylvester(a, _ops.transposed(real_square(a)), q)


@_like_scipy
def solve_lyapunov(a: Any, q: Any) -> Any:
    """Another name of `solve_continuous_lyapunov`."""
    return solve_continuous_lyapunov(a, q)


@_like_scipy
def solve_banded(
    l_and_u: Any,
    ab: Any,
    b: Any,
    overwrite_ab: bool = False,
    overwrite_b: bool = False,
    check_finite: bool = True,
) -> Any:
    """The x of a @ x = b with a banded a.

    Args:
        l_and_u: how many diagonals below the main one, and above it, are not zero.
        ab: float[..., l + u + 1, n], the diagonals from the highest, each element in its column.
        b: float[n] or float[..., n, k].

    Raises LinAlgError where a is singular.

    >>> import numpy as np, graphdl as gd
    >>> solve = gd.compile(lambda ab, b: gd.linalg.solve_banded((1, 1), ab, b))
    >>> solve(np.array([[0.0, 1.0], [2.0, 2.0], [1.0, 0.0]]), np.array([4.0, 5.0]))
    array([1., 2.])
    """
    lower, upper = (integer(number, "l_and_u") for number in l_and_u)
    diagonals, right = floats(ab, b)
    require(diagonals.ndim >= 2, f"ab has the shape {diagonals.shape}; it needs two axes")
    require(right.ndim >= 1, "the right side needs an axis")
    if right.ndim == 1:
        return solve_banded(l_and_u, diagonals, right[:, None])[..., 0]
    batch = np.broadcast_shapes(diagonals.shape[:-2], right.shape[:-2])
    operands = (np.broadcast_to(x, (*batch, *x.shape[-2:])) for x in (diagonals, right))
    return _spectral.solve_banded(*operands, lower=lower, upper=upper)


# --- what NumPy has too -------------------------------------------------------------------------


@_like_scipy
def inv(a: Any, overwrite_a: bool = False, check_finite: bool = True) -> Any:
    """The inverse of square matrices. Raises LinAlgError where one is singular."""
    return _numpy_linalg.inv(a)


@_like_scipy
def det(a: Any, overwrite_a: bool = False, check_finite: bool = True) -> Any:
    """The determinant of square matrices: in double precision, as SciPy's, also of float32."""
    found = _numpy_linalg.det(a)
    return cast(found, np.result_type(found.dtype, FLOAT))


@_like_scipy
def solve(
    a: Any,
    b: Any,
    lower: bool = False,
    overwrite_a: bool = False,
    overwrite_b: bool = False,
    check_finite: bool = True,
    assume_a: str | None = None,
    transposed: bool = False,
) -> Any:
    """The x of a @ x = b; with assume_a="pos" by the Cholesky factor of a positive definite a.

    Raises LinAlgError where a is singular, or not positive definite where that is assumed.
    """
    matrix, right = inexact(a, b)
    matrix = square(matrix)
    if assume_a in ("pos", "positive definite"):
        return cho_solve(cho_factor(matrix, lower), right)
    if assume_a in ("upper triangular", "lower triangular"):
        return solve_triangular(matrix, right, int(transposed), assume_a.startswith("lower"))
    if assume_a in ("her", "hermitian"):
        matrix = _hermitian(matrix, lower)
    elif assume_a in ("sym", "symmetric"):
        half = np.tril(matrix) if lower else np.triu(matrix)
        matrix = half + _ops.transposed(half - np.tril(np.triu(matrix)))
    return _numpy_linalg.solve(_ops.transposed(matrix) if transposed else matrix, right)


def _hermitian(matrix: Any, lower: bool) -> Any:
    """The symmetric or Hermitian matrix of which one triangle is given; the other is not read."""
    half = np.tril(matrix, -1) if lower else np.triu(matrix, 1)
    middle = np.tril(np.triu(matrix))
    middle = (middle + _ops.conjugated(middle)) / 2 if matrix.dtype.kind == "c" else middle
    return half + _ops.adjoint(half) + middle


@_like_scipy
def eigh(
    a: Any,
    b: Any = None,
    *,
    lower: bool = True,
    eigvals_only: bool = False,
    overwrite_a: bool = False,
    overwrite_b: bool = False,
    type: int = 1,
    check_finite: bool = True,
    subset_by_index: Any = None,
    subset_by_value: Any = None,
    driver: str | None = None,
) -> Any:
    """The eigenvalues of a symmetric or Hermitian a, ascending, and its eigenvectors as columns.

    Of a generalised problem a @ v = w * b @ v with a positive definite b, the vectors have
    v^H @ b @ v = 1; other types, and values from a range, are not traced. `subset_by_index` is a
    pair of the first and the last that are returned.
    """
    refuse(type != 1, f"type={type!r}; the problem that is traced is of type 1")
    refuse(subset_by_value is not None, "subset_by_value: how many there are depends on values")
    matrix = square(a)
    triangle = "L" if lower else "U"
    if b is None:
        values, vectors = _numpy_linalg.eigh(matrix, triangle)
    else:
        matrix, other = inexact(a, b)
        factor = _numpy_linalg.cholesky(other, upper=not lower)
        factor = factor if lower else _ops.adjoint(factor)
        half = _ops.solve_lower(factor, _hermitian(matrix, lower))
        reduced = _ops.solve_lower(factor, _ops.adjoint(half))
        values, vectors = _numpy_linalg.eigh(reduced)
        vectors = _ops.solve_lower(_ops.conjugated(factor), vectors, trans=True)
    if subset_by_index is not None:
        first, last = subset_by_index
        values, vectors = values[..., first : last + 1], vectors[..., :, first : last + 1]
    return values if eigvals_only else (values, vectors)


@_like_scipy
def eigvalsh(
    a: Any,
    b: Any = None,
    *,
    lower: bool = True,
    overwrite_a: bool = False,
    overwrite_b: bool = False,
    type: int = 1,
    check_finite: bool = True,
    subset_by_index: Any = None,
    subset_by_value: Any = None,
    driver: str | None = None,
) -> Any:
    """The eigenvalues of a symmetric a, ascending: see `eigh`."""
    return eigh(
        a,
        b,
        lower=lower,
        eigvals_only=True,
        type=type,
        subset_by_index=subset_by_index,
        subset_by_value=subset_by_value,
    )


@_like_scipy
def eig(
    a: Any,
    b: Any = None,
    left: bool = False,
    right: bool = True,
    overwrite_a: bool = False,
    overwrite_b: bool = False,
    check_finite: bool = True,
    homogeneous_eigvals: bool = False,
) -> Any:
    """The eigenvalues of square matrices, complex, and their vectors as columns.

    Values alone with right=False. Generalised problems and left vectors are not traced.
    """
    refuse(b is not None, "b=; write np.linalg.eig(np.linalg.solve(b, a))")
    refuse(left, "left=True; write np.linalg.eig(a.T)")
    refuse(homogeneous_eigvals, "homogeneous_eigvals=True")
    values, vectors = _numpy_linalg.eig(a)
    return (values, vectors) if right else values


@_like_scipy
def eigvals(
    a: Any,
    b: Any = None,
    overwrite_a: bool = False,
    check_finite: bool = True,
    homogeneous_eigvals: bool = False,
) -> Any:
    """The eigenvalues of square matrices, complex: see `eig`."""
    return eig(a, b, right=False, homogeneous_eigvals=homogeneous_eigvals)


@_like_scipy
def svd(
    a: Any,
    full_matrices: bool = True,
    compute_uv: bool = True,
    overwrite_a: bool = False,
    check_finite: bool = True,
    lapack_driver: str = "gesdd",
) -> Any:
    """u, s, vh with a = u @ diag(s) @ vh, s descending; s alone without `compute_uv`."""
    found = _numpy_linalg.svd(a, full_matrices, compute_uv)
    return tuple(found) if compute_uv else found


@_like_scipy
def svdvals(a: Any, overwrite_a: bool = False, check_finite: bool = True) -> Any:
    """The singular values, descending."""
    return _numpy_linalg.svdvals(a)


@_like_scipy
def qr(
    a: Any,
    overwrite_a: bool = False,
    lwork: Any = None,
    mode: str = "full",
    pivoting: bool = False,
    check_finite: bool = True,
) -> Any:
    """q and r with a = q @ r; r alone with mode="r", k columns of q with mode="economic".

    Column exchanges (`pivoting`) and mode="raw" are not traced.
    """
    refuse(pivoting, "pivoting=True")
    kinds = {"full": "complete", "r": "r", "economic": "reduced"}
    refuse(mode not in kinds, f"mode={mode!r}; write 'full', 'economic' or 'r'")
    if mode != "r":
        return tuple(_numpy_linalg.qr(a, kinds[mode]))
    r = _numpy_linalg.qr(a, "complete")[1]
    return (r,)


@_like_scipy
def pinv(
    a: Any,
    *,
    atol: Any = None,
    rtol: Any = None,
    return_rank: bool = False,
    check_finite: bool = True,
) -> Any:
    """The pseudo-inverse; singular values up to rtol * (the largest) count as zero."""
    refuse(atol is not None, "atol=")
    refuse(return_rank, "return_rank=True; write np.linalg.matrix_rank(a)")
    return _norms.pinv(a, rtol=rtol)


@_like_scipy
def norm(
    a: Any, ord: Any = None, axis: Any = None, keepdims: bool = False, check_finite: bool = True
) -> Any:
    """The norm of vectors or matrices: see np.linalg.norm."""
    return _norms.norm(a, ord, axis, keepdims)


def __getattr__(name: str) -> Any:
    """SciPy's other functions: a clear refusal on traced values."""
    if name.startswith("_"):
        raise AttributeError(name)
    try:
        original = _scipy_function(name)
    except AttributeError:
        raise AttributeError(f"neither graphdl.linalg nor scipy.linalg has {name!r}") from None
    if not callable(original) or isinstance(original, type):
        return original

    @functools.wraps(original)
    def refused(*args: Any, **kwargs: Any) -> Any:
        if _is_traced((args, kwargs)):
            why = _REFUSED.get(name, f"graphdl.linalg has {', '.join(sorted(FUNCTIONS))}")
            raise locate(UnsupportedError(f"scipy.linalg.{name} cannot be traced: {why}"))
        return original(*args, **kwargs)

    return refused


__all__ = [*FUNCTIONS]
