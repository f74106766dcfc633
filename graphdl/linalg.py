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
from graphdl.numpy_functions.arguments import FLOAT, lift
from graphdl.numpy_functions.linalg import factors, floats, matrices, square, with_right_sides
from graphdl.ops import linalg as _ops
from graphdl.tracing import TracedArray, cast, locate
from graphdl.trees import flatten

#: The name of a function of scipy.linalg -> what does its work on traced values (and on arrays).
FUNCTIONS: dict[str, Callable[..., Any]] = {}

#: Why the other way is none, for functions that cannot be traced.
_REFUSED = {
    "eig": "its result is complex in general; eigh is for symmetric matrices",
    "eigvals": "its result is complex in general; eigvalsh is for symmetric matrices",
    "schur": "it has no gradient; eigh is for symmetric matrices",
    "sqrtm": "it needs a Schur form; for symmetric matrices write v * np.sqrt(w) @ v.T with eigh",
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


def _is_turned(trans: Any) -> bool:
    """Whether a system is of the transposed matrix: SciPy's argument `trans`."""
    kinds = {0: False, "N": False, 1: True, "T": True, 2: True, "C": True}
    if trans not in kinds:
        raise ArgumentError(f"trans={trans!r}; it is 0, 1, 2, 'N', 'T' or 'C'")
    return kinds[trans]


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
        a: float[..., n, n]. b: float[n] or float[..., n, k].
        trans: 0, or 1 for a.T @ x = b. lower: whether a is the lower triangle.
        unit_diagonal: the diagonal is taken to be 1, and is not read.

    Returns:
        x, of the shape of b.

    Raises:
        LinAlgError: there is a 0 on the diagonal.
        ShapeError: shapes that do not fit.
    """
    matrix, right = floats(a, b)
    turned = _is_turned(trans)

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
    first = solve_triangular(c, b, trans=0 if lower else 1, lower=lower)
    return solve_triangular(c, first, trans=1 if lower else 0, lower=lower)


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
    """The x of a @ x = b, or of a.T @ x = b where trans=1, given lu_factor(a).

    Raises LinAlgError where a is singular.
    """
    lu, pivots = lu_and_piv
    matrix, right = floats(lu, b)
    pivots = cast(lift(matrix, pivots)[1], np.dtype(np.int64))
    turned = _is_turned(trans)

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


# --- what NumPy has too -------------------------------------------------------------------------


@_like_scipy
def inv(a: Any, overwrite_a: bool = False, check_finite: bool = True) -> Any:
    """The inverse of square matrices. Raises LinAlgError where one is singular."""
    return _numpy_linalg.inv(a)


@_like_scipy
def det(a: Any, overwrite_a: bool = False, check_finite: bool = True) -> Any:
    """The determinant of square matrices: float64, as SciPy's, also of float32."""
    return cast(_numpy_linalg.det(a), FLOAT)


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
    matrix, right = floats(a, b)
    matrix = square(matrix)
    if assume_a in ("pos", "positive definite"):
        return cho_solve(cho_factor(matrix, lower), right)
    if assume_a in ("upper triangular", "lower triangular"):
        return solve_triangular(matrix, right, int(transposed), assume_a.startswith("lower"))
    if assume_a in ("sym", "symmetric", "her", "hermitian"):
        half = np.tril(matrix, -1) if lower else np.triu(matrix, 1)
        whole = np.tril(np.triu(matrix))
        matrix = half + _ops.transposed(half) + whole
    return _numpy_linalg.solve(_ops.transposed(matrix) if transposed else matrix, right)


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
