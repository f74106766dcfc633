"""Factorisations of matrices and the solution of linear systems, for stacks of matrices.

The last two axes are those of a matrix. Some results lie as LAPACK leaves them, column by column:
then it is the transposed factor that is the result, and the name says so (`lut`, `qt`, `vt`). A
transpose is a view, and products take it as it is.

Gradients follow Giles, "Collected matrix derivative results for forward and reverse mode
algorithmic differentiation" (2008), Seeger et al., "Auto-differentiating linear algebra" (2017),
and for the Cholesky factor Murray, "Differentiation of the Cholesky decomposition" (2016). Where a
function reads one triangle of a matrix, so does the gradient lie in that triangle: it is the
derivative of what is computed. The gradient of vectors that belong to equal eigenvalues or singular
values does not exist, and is not finite here.

Matrices may be complex. The cotangent c of a value z stands for the change Re(c dz), so rules of
what depends on z by products alone are those of real matrices, with plain transposes; the others
have conjugates besides, which are nothing for real numbers. Complex eigenvectors and singular
vectors have phases that LAPACK chooses: gradients are right for what does not depend on them
(Wan and Zhang, "Automatic differentiation for complex valued SVD" (2019)).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphdl.errors import DtypeError, GraphLinAlgError, ShapeError
from graphdl.ops import control, indexing, movement, pointwise
from graphdl.ops.complex_numbers import PART, WHOLE
from graphdl.ops.op import Op, Rule
from graphdl.types import TensorType, is_half, kind_of

_INDEX = np.dtype(np.int64)

SINGULAR = "Singular matrix"


def failure(op: Any, where: str = "") -> GraphLinAlgError:
    """The error of an op that an operand was not fit for."""
    return GraphLinAlgError(f"{op.name}: {op.failure}{where}")


# --- shapes -------------------------------------------------------------------------------------


def matrix_sizes(name: str, a: TensorType) -> tuple[int, int]:
    """The sizes of the matrices of an operand of floats or complex numbers."""
    if kind_of(a.dtype) not in "fc":
        raise DtypeError(f"{name}: matrices must be of floats or complex numbers, not {a}")
    if is_half(a.dtype):
        raise DtypeError(f"{name}: LAPACK knows no {a.dtype}; write x.astype(np.float32) for {a}")
    if a.ndim < 2:
        raise ShapeError(f"{name}: {a} has no two axes")
    return a.shape[-2], a.shape[-1]


def square_size(name: str, a: TensorType) -> int:
    rows, columns = matrix_sizes(name, a)
    if rows != columns:
        raise ShapeError(f"{name}: the matrices of {a} are not square")
    return rows


def _system(name: str, a: TensorType, b: TensorType) -> TensorType:
    """The type of x in a @ x = b."""
    n = square_size(name, a)
    if a.dtype != b.dtype:
        raise DtypeError(f"{name}: {a} with {b}")
    if b.ndim != a.ndim or b.shape[:-2] != a.shape[:-2] or b.shape[-2] != n:
        raise ShapeError(f"{name}: {a} with right sides {b}")
    return b


def sized(a: TensorType, *sizes: int) -> TensorType:
    """An array of `sizes` for each matrix of a."""
    return TensorType(a.dtype, (*a.shape[:-2], *sizes))


def real_sized(a: TensorType, *sizes: int) -> TensorType:
    """A real array of `sizes` for each matrix of a."""
    return TensorType(PART.get(a.dtype, a.dtype), (*a.shape[:-2], *sizes))


def complex_sized(a: TensorType, *sizes: int) -> TensorType:
    """A complex array of `sizes` for each matrix of a."""
    return TensorType(WHOLE.get(a.dtype, a.dtype), (*a.shape[:-2], *sizes))


# --- the NumPy references -----------------------------------------------------------------------


def each(
    types: Sequence[TensorType], function: Callable[..., Sequence[Any]], *stacks: tuple[Any, int]
) -> list[Any]:
    """What a function of single arrays returns for each of a stack.

    `types` are those of the results, `stacks` pairs (array, number of axes of a single one).
    """
    results = [np.zeros(type.shape, type.dtype) for type in types]
    if not any(result.size for result in results):
        return results
    x, axes = stacks[0]
    for place in np.ndindex(*x.shape[: x.ndim - axes]):
        parts = function(*(x[place] for x, _ in stacks))
        for result, part in zip(results, parts, strict=True):
            result[place] = part
    return results


def type_of(x: Any) -> TensorType:
    return TensorType(x.dtype, x.shape)


def lapack(name: str, like: Any) -> Callable[..., Any]:
    from scipy.linalg import get_lapack_funcs  # SciPy's start-up, which only the interpreter pays

    routine: Callable[..., Any] = get_lapack_funcs((name,), (like,))[0]
    return routine


# --- what the rules share -----------------------------------------------------------------------


def results(packed: Any) -> list[Any]:
    """The results of an op that has several, traced."""
    return control.items(packed, control.result_types(packed.node))


def transposed(x: Any) -> Any:
    """The matrices of x transposed."""
    return np.swapaxes(x, -1, -2)


def conjugated(x: Any) -> Any:
    """The conjugate of complex numbers; real ones as they are."""
    return np.conjugate(x) if kind_of(x.dtype) == "c" else x


def adjoint(x: Any) -> Any:
    """The matrices of x transposed and conjugated."""
    return conjugated(transposed(x))


def lower_half(x: Any) -> Any:
    """The lower triangle with its diagonal halved; of s + s^H it is the triangle of a Hermitian s
    with all that is off the diagonal counted twice."""
    return np.tril(x) - 0.5 * _diagonal_only(x)


def _diagonal_only(x: Any) -> Any:
    return np.tril(np.triu(x))


def identity(x: Any) -> Any:
    """A unit matrix for each matrix of x."""
    return _diagonal_only(np.ones_like(x))


def diagonal(x: Any) -> Any:
    """The diagonal of each matrix."""
    return np.diagonal(x, axis1=-2, axis2=-1)


# --- Cholesky -----------------------------------------------------------------------------------


def _infer_cholesky(a: TensorType) -> TensorType:
    square_size("cholesky", a)
    return a


def _cholesky(a: Any) -> Any:
    try:
        return np.linalg.cholesky(a)
    except np.linalg.LinAlgError:
        raise failure(cholesky) from None


def _cholesky_rule(g: Any, lower: Any, a: Any) -> tuple[Any]:
    inner = lower_half(transposed(lower) @ np.tril(g))
    # the conjugates of L^-H @ inner^H and of that @ L^-1
    left = solve_lower(lower, inner, trans=True)
    both = transposed(conjugated(solve_lower(lower, adjoint(left), trans=True)))
    return (lower_half(both + adjoint(both)),)


#: The lower triangular factor L of a = L @ L^H; reads the lower triangle of a.
cholesky = Op(
    "cholesky",
    "linalg",
    _infer_cholesky,
    _cholesky,
    _cholesky_rule,
    failure="Matrix is not positive definite",
)


# --- triangular systems -------------------------------------------------------------------------


def _infer_triangular(
    a: TensorType, b: TensorType, *, lower: bool, trans: bool, unit: bool
) -> TensorType:
    return _system("solve_triangular", a, b)


def _solve_triangular(a: Any, b: Any, *, lower: bool, trans: bool, unit: bool) -> Any:
    if not unit and np.any(diagonal(a) == 0):
        raise failure(solve_triangular)
    solver = lapack("trtrs", a)

    def one(a: Any, b: Any) -> Any:
        return solver(a, b, lower=lower, trans=trans, unitdiag=unit)[:1]

    return each([type_of(b)], one, (a, 2), (b, 2))[0]


def _triangular_rule(
    g: Any, x: Any, a: Any, b: Any, *, lower: bool, trans: bool, unit: bool
) -> tuple[Any, Any]:
    of_b = solve_triangular(a, g, lower=lower, trans=not trans, unit=unit)
    of_a = -(x @ transposed(of_b) if trans else of_b @ transposed(x))
    inner = int(unit)
    return (np.tril(of_a, -inner) if lower else np.triu(of_a, inner)), of_b


#: The x of a @ x = b, of a.T @ x = b where `trans`, with a triangular a, of which the rest is not
#: read; nor is the diagonal where it is a `unit` one.
solve_triangular: Op = Op(
    "solve_triangular",
    "linalg",
    _infer_triangular,
    _solve_triangular,
    _triangular_rule,
    failure=SINGULAR,
)


def solve_lower(a: Any, b: Any, trans: bool = False, unit: bool = False) -> Any:
    return solve_triangular(a, b, lower=True, trans=trans, unit=unit)


def solve_upper(a: Any, b: Any, trans: bool = False, unit: bool = False) -> Any:
    return solve_triangular(a, b, lower=False, trans=trans, unit=unit)


# --- LU -----------------------------------------------------------------------------------------


def _lu_results(a: TensorType) -> list[TensorType]:
    rows, columns = matrix_sizes("lu", a)
    pivots = TensorType(_INDEX, (*a.shape[:-2], min(rows, columns)))
    return [sized(a, columns, rows), pivots]


def _lu(a: Any) -> Any:
    factor = lapack("getrf", a)

    def one(a: Any) -> tuple[Any, Any]:
        lu, pivots, _ = factor(a)
        return lu.T, pivots.astype(_INDEX)

    types = _lu_results(type_of(a))
    return control.pack(each(types, one, (a, 2)), types)


def _lu_rule(gs: Sequence[Any], outs: Sequence[Any], a: Any) -> tuple[Any]:
    """With p @ a = l @ u: da = p.T @ l^-T @ (tril(l.T @ dl, -1) + triu(du @ u.T)) @ u^-T."""
    lut, pivots = outs
    rows, columns = a.shape[-2:]
    k = min(rows, columns)
    lu, g = transposed(lut), transposed(gs[0])
    square = lu[..., :k, :k]
    unit_lower = np.tril(square, -1) + identity(square)
    of_l, of_u = np.tril(g[..., :k, :k], -1), np.triu(g[..., :k, :k])
    rest = []
    if rows > columns:  # the rows below are l2 = a2 @ u^-1
        of_rest = _over_upper(g[..., k:, :], square)
        of_u = of_u - np.triu(transposed(lu[..., k:, :]) @ of_rest)
        rest = [of_rest]
    if columns > rows:  # the columns beside are u2 = l^-1 @ a2
        of_rest = solve_lower(square, g[..., :, k:], trans=True, unit=True)
        of_l = of_l - np.tril(of_rest @ transposed(lu[..., :, k:]), -1)
        rest = [of_rest]
    inner = np.tril(transposed(unit_lower) @ of_l, -1)
    inner = inner + np.triu(of_u @ transposed(np.triu(square)))
    block = _over_upper(solve_lower(square, inner, trans=True, unit=True), square)
    permuted = np.concatenate([block, *rest], axis=-2 if rows > columns else -1)
    return (restore_rows(permuted, permutation(pivots, size=rows)),)


def _over_upper(x: Any, u: Any) -> Any:
    """x @ u^-T"""
    return transposed(solve_upper(u, transposed(x)))


#: The rows of a, row i exchanged with row pivots[i] for i = 0, 1, ..., are those of l @ u: the unit
#: lower and the upper triangle of lut.T. Results: lut, pivots.
lu = Op(
    "lu",
    "linalg",
    lambda a: control.packed_type(_lu_results(a)),
    _lu,
    _lu_rule,
    results=_lu_results,
)


def _infer_permutation(pivots: TensorType, *, size: int) -> TensorType:
    if pivots.dtype != _INDEX or not pivots.ndim or pivots.shape[-1] > size:
        raise ShapeError(f"permutation: pivots {pivots} of {size} rows")
    return TensorType(_INDEX, (*pivots.shape[:-1], size))


def _permutation(pivots: Any, *, size: int) -> Any:
    def one(pivots: Any) -> tuple[Any]:
        order = np.arange(size)
        for i, k in enumerate(pivots):
            order[[i, k]] = order[[k, i]]
        return (order,)

    return each([_infer_permutation(type_of(pivots), size=size)], one, (pivots, 1))[0]


#: The rows in the order that the exchanges of `lu` give them.
permutation = Op(
    "permutation",
    "linalg",
    _infer_permutation,
    _permutation,
    no_gradient="its result is an index",
)


def _flat_rows(order: Any, like: Any) -> Any:
    """The places of rows among those of all matrices."""
    *batch, size = order.shape
    count = int(np.prod(batch, dtype=int))
    first = np.reshape(np.arange(count) * size, (*batch, 1))
    return np.reshape(order + first, (count * size,))


def take_rows(x: Any, order: Any) -> Any:
    """Row order[i] as row i, in each matrix."""
    flat = movement.reshape(x, shape=(order.size, x.shape[-1]))
    return movement.reshape(indexing.gather(flat, _flat_rows(order, x)), shape=x.shape)


def restore_rows(x: Any, order: Any) -> Any:
    """Row i as row order[i], in each matrix."""
    flat = movement.reshape(x, shape=(order.size, x.shape[-1]))
    back = indexing.scatter_add(flat, _flat_rows(order, x), size=order.size)
    return movement.reshape(back, shape=x.shape)


# --- linear systems -----------------------------------------------------------------------------


def _infer_solve(
    a: TensorType, lut: TensorType, pivots: TensorType, b: TensorType, *, trans: bool
) -> TensorType:
    if lut != a or pivots != TensorType(_INDEX, a.shape[:-1]):
        raise ShapeError(f"solve: {a} with factors {lut} and {pivots}")
    return _system("solve", a, b)


def _solve(a: Any, lut: Any, pivots: Any, b: Any, *, trans: bool) -> Any:
    if np.any(diagonal(lut) == 0):
        raise failure(solve)
    solver = lapack("getrs", a)

    def one(lut: Any, pivots: Any, b: Any) -> Any:
        return solver(lut.T, pivots, b, trans=trans)[:1]

    return each([type_of(b)], one, (lut, 2), (pivots, 1), (b, 2))[0]


def _solve_rule(
    g: Any, x: Any, a: Any, lut: Any, pivots: Any, b: Any, *, trans: bool
) -> tuple[Any, None, None, Any]:
    """Of the equation, not of the way to solve it: the factors serve the gradient as they are."""
    of_b = solve(a, lut, pivots, g, trans=not trans)
    of_a = -(x @ transposed(of_b) if trans else of_b @ transposed(x))
    return of_a, None, None, of_b


#: The x of a @ x = b, of a.T @ x = b where `trans`, by the factors of a.
solve: Op = Op("solve", "linalg", _infer_solve, _solve, _solve_rule, failure=SINGULAR)


# --- QR -----------------------------------------------------------------------------------------


def _qr_results(a: TensorType, *, columns: int) -> list[TensorType]:
    rows, n = matrix_sizes("qr", a)
    if rows < n or columns not in (0, n, rows):
        raise ShapeError(f"qr: {columns} columns of the factor of {a}")
    return [sized(a, n, n), *([sized(a, columns, rows)] if columns else [])]


def _qr(a: Any, *, columns: int) -> Any:
    def one(a: Any) -> list[Any]:
        q, r = np.linalg.qr(a, "complete" if columns > a.shape[1] else "reduced")
        return [r[: a.shape[1]], *([q.T] if columns else [])]

    types = _qr_results(type_of(a), columns=columns)
    return control.pack(each(types, one, (a, 2)), types)


def _qr_rule(gs: Sequence[Any], outs: Sequence[Any], a: Any, *, columns: int) -> tuple[Any]:
    """da = (dq + q @ hermitian(r @ dr^H - dq^H @ q)) @ r^-H, with a real diagonal of r.

    Columns of q beyond those of a may be any basis of what a does not reach. They turn with the
    others: the rule is right for whatever does not depend on the choice.
    """
    n = a.shape[-1]
    r, qt = outs if columns else results(qr(a, columns=n))
    of_r, of_qt = gs if columns else (gs[0], None)
    own = qt[..., :n, :]
    inner = np.zeros_like(r)
    if of_r is not None:
        inner = inner + r @ transposed(np.triu(of_r))
    if of_qt is not None:
        inner = inner - of_qt[..., :n, :] @ transposed(own)
    below = np.tril(inner, -1)
    middle = _diagonal_only(inner)
    middle = (middle + conjugated(middle)) / 2 if kind_of(inner.dtype) == "c" else middle
    total = (below + middle + adjoint(below)) @ conjugated(own)  # transposed, as qt is
    if of_qt is not None:
        total = total + of_qt[..., :n, :]
        if columns > n:
            beyond = of_qt[..., n:, :]
            total = total - conjugated((own @ transposed(beyond)) @ qt[..., n:, :])
    return (transposed(solve_upper(r, total)),)


#: a = q @ r with orthonormal columns of q, at least as many rows as columns of a, and an upper
#: triangular r, whose diagonal is real. Results: r, then qt with as many rows as `columns`, unless
#: that is 0.
qr: Op = Op(
    "qr",
    "linalg",
    lambda a, **attrs: control.packed_type(_qr_results(a, **attrs)),
    _qr,
    _qr_rule,
    results=_qr_results,
)


# --- eigenvalues of symmetric matrices ----------------------------------------------------------


def _eigh_results(a: TensorType, *, lower: bool, vectors: bool) -> list[TensorType]:
    n = square_size("eigh", a)
    return [real_sized(a, n), *([sized(a, n, n)] if vectors else [])]


def _eigh(a: Any, *, lower: bool, vectors: bool) -> Any:
    routine = lapack("heevd" if kind_of(a.dtype) == "c" else "syevd", a)

    def one(a: Any) -> list[Any]:
        values, v, info = routine(a, compute_v=vectors, lower=lower)
        if info:
            raise failure(eigh)
        return [values, *([v.T] if vectors else [])]

    types = _eigh_results(type_of(a), lower=lower, vectors=vectors)
    return control.pack(each(types, one, (a, 2)), types)


def reciprocal_gaps(values: Any) -> Any:
    """1 / (values[j] - values[i]), and 0 on the diagonal."""
    unit = identity(values[..., :, None] + values[..., None, :])
    return 1 / (values[..., None, :] - values[..., :, None] + unit) - unit


def _eigh_rule(
    gs: Sequence[Any], outs: Sequence[Any], a: Any, *, lower: bool, vectors: bool
) -> tuple[Any]:
    """da = v @ (diag(dw) + (v^H @ dv) / gaps) @ v^H, of which one triangle is read."""
    values, vt = outs if vectors else results(eigh(a, lower=lower, vectors=True))
    of_values, of_vt = gs if vectors else (gs[0], None)
    inner = np.zeros_like(vt)
    if of_values is not None:
        inner = inner + identity(vt) * of_values[..., None]
    if of_vt is not None:
        inner = inner + (vt @ transposed(of_vt)) * reciprocal_gaps(values)
    whole = adjoint(vt) @ inner @ vt
    half = lower_half(whole + adjoint(whole))
    return (half if lower else adjoint(half),)


#: The eigenvalues of a symmetric or Hermitian a in ascending order, of which the lower triangle is
#: read or the upper one, and as the rows of vt its eigenvectors. Results: values, then vt if
#: `vectors`.
eigh: Op = Op(
    "eigh",
    "linalg",
    lambda a, **attrs: control.packed_type(_eigh_results(a, **attrs)),
    _eigh,
    _eigh_rule,
    results=_eigh_results,
    failure="Eigenvalues did not converge",
)


# --- singular values ----------------------------------------------------------------------------


def _svd_results(a: TensorType, *, full: bool, vectors: bool) -> list[TensorType]:
    rows, columns = matrix_sizes("svd", a)
    k = min(rows, columns)
    if not vectors:
        return [real_sized(a, k)]
    return [
        real_sized(a, k),
        sized(a, rows if full else k, rows),
        sized(a, columns, columns if full else k),
    ]


def _svd(a: Any, *, full: bool, vectors: bool) -> Any:
    routine = lapack("gesdd", a)

    def one(a: Any) -> list[Any]:
        u, values, vh, info = routine(a, compute_uv=vectors, full_matrices=full)
        if info:
            raise failure(svd)
        return [values, *([u.T, vh.T] if vectors else [])]

    types = _svd_results(type_of(a), full=full, vectors=vectors)
    return control.pack(each(types, one, (a, 2)), types)


def _svd_rule(
    gs: Sequence[Any], outs: Sequence[Any], a: Any, *, full: bool, vectors: bool
) -> tuple[Any]:
    """da = u @ ((j + j^H) @ s + s @ (k + k^H) + diag(ds)) @ v^H, where j and k are u^H @ du and
    v^H @ dv over the differences of squares, and what leads out of the spans of u and of v.

    Of full matrices, the vectors beyond are any basis: see the rule of `qr`. The phases of complex
    u and v turn together: the phase of v is that of LAPACK, and what u turns more is in the
    diagonal. What is named v here is the conjugate.
    """
    if not vectors:
        outs = results(svd(a, full=False, vectors=True))
        gs = [gs[0], None, None]
    values, ut, v = outs
    of_values, of_ut, of_v = gs
    rows, columns = a.shape[-2:]
    k = min(rows, columns)
    own_u, own_v = ut[..., :k, :], v[..., :, :k]
    inner = np.zeros_like(own_u[..., :, :k])
    beyond_u = beyond_v = None
    if of_values is not None:
        inner = inner + identity(inner) * of_values[..., None]
    if of_ut is not None or of_v is not None:
        gaps = reciprocal_gaps(values) / (
            values[..., None, :] + values[..., :, None] + identity(inner) * (values[..., None] == 0)
        )
    if of_ut is not None:
        turned = own_u @ transposed(of_ut[..., :k, :])
        if kind_of(turned.dtype) == "c":
            phases = (_diagonal_only(turned) - conjugated(_diagonal_only(turned))) / 2
            inner = inner + phases / values[..., None, :]
        turned = gaps * turned
        inner = inner + (turned + adjoint(turned)) * values[..., None, :]
        if rows > columns:
            along = transposed(own_u) @ conjugated(own_u)
            beyond_u = of_ut[..., :k, :] - of_ut[..., :k, :] @ along
            if full:
                beyond = own_u @ transposed(of_ut[..., k:, :]) @ ut[..., k:, :]
                beyond_u = beyond_u - conjugated(beyond)
    if of_v is not None:
        turned = gaps * (adjoint(own_v) @ conjugated(of_v[..., :, :k]))
        inner = inner + values[..., :, None] * (turned + adjoint(turned))
        if columns > rows:
            along = conjugated(own_v) @ (transposed(own_v) @ of_v[..., :, :k])
            beyond_v = of_v[..., :, :k] - along
            if full:
                beyond = v[..., :, k:] @ (transposed(of_v[..., :, k:]) @ own_v)
                beyond_v = beyond_v - conjugated(beyond)
    total = inner @ adjoint(own_v)
    if beyond_v is not None:
        total = total + transposed(beyond_v / values[..., None, :])
    total = adjoint(own_u) @ total
    if beyond_u is not None:
        total = total + transposed(beyond_u / values[..., :, None]) @ adjoint(own_v)
    return (total,)


#: a = u @ diag(values) @ v.T, so v is the conjugate of what usually has the name; the values in
#: descending order. Results: values, then ut and v if `vectors`: square ones if `full`, else as
#: many vectors as values.
svd: Op = Op(
    "svd",
    "linalg",
    lambda a, **attrs: control.packed_type(_svd_results(a, **attrs)),
    _svd,
    _svd_rule,
    results=_svd_results,
    failure="SVD did not converge",
)

#: The attributes of an op of which the first result alone is wanted.
FIRST_ONLY: dict[str, dict[str, Any]] = {
    "qr": {"columns": 0},
    "eigh": {"vectors": False},
    "svd": {"vectors": False, "full": False},
}


# --- the exponential ----------------------------------------------------------------------------


def _infer_expm(a: TensorType) -> TensorType:
    square_size("expm", a)
    return a


def _expm(a: Any) -> Any:
    import scipy.linalg  # SciPy's start-up, which only the interpreter pays

    if not a.size or not np.isfinite(a).all(axis=(-1, -2)).all():
        known = np.isfinite(a).all(axis=(-1, -2), keepdims=True)
        return np.where(known, _expm(np.where(known, a, 0)), np.nan) if a.size else a
    return scipy.linalg.expm(a)


def _expm_rule(g: Any, out: Any, a: Any) -> tuple[Any]:
    """The derivative along g is a block of exp([[a.T, g], [0, a.T]]): Van Loan (1978).

    It is linear in g, which is scaled so that it has no part in the choice of the approximation.
    """
    n, turned = a.shape[-1], transposed(a)
    size = pointwise.stop_gradient(np.max(np.abs(g), axis=(-1, -2), keepdims=True))
    size = np.where(size == 0, 1, size)
    above = np.concatenate([turned, g / size], axis=-1)
    below = np.concatenate([np.zeros_like(turned), turned], axis=-1)
    return (size * expm(np.concatenate([above, below], axis=-2))[..., :n, n:],)


#: The exponential of square matrices.
expm: Op = Op("expm", "linalg", _infer_expm, _expm, _expm_rule, failure=SINGULAR)


# --- determinants -------------------------------------------------------------------------------


def _of_factors(name: str, vjp: Rule) -> Op:
    """An op that is its first operand, and whose gradient is known from a matrix and its factors.

    It says so to differentiation, and is gone afterwards.
    """

    def first(value: Any, *rest: Any) -> Any:
        return value

    return Op(name, "custom", first, first, vjp)


def sign_and_log_det(lut: Any, pivots: Any) -> tuple[Any, Any]:
    """The sign of the determinant, or its phase, and the logarithm of its size."""
    factors = diagonal(lut)
    exchanges = np.sum(pivots != np.arange(pivots.shape[-1]), axis=-1)
    parity = 1 - 2 * (exchanges % 2)
    sizes = np.abs(factors)
    signs = factors / np.where(sizes == 0, 1, sizes) if kind_of(factors.dtype) == "c" else None
    signs = np.sign(factors) if signs is None else signs
    sign = np.prod(signs, axis=-1) * parity.astype(lut.dtype)
    return sign, np.sum(np.log(sizes), axis=-1)


def _log_det_rule(g: Any, out: Any, value: Any, a: Any, lut: Any, pivots: Any) -> tuple[Any, ...]:
    inverse = solve(a, lut, pivots, identity(a), trans=True)
    return None, g[..., None, None] * inverse, None, None


#: The logarithm of the size of a determinant, as computed by the factors of a matrix.
log_det = _of_factors("log_det", _log_det_rule)


def _det_rule(g: Any, out: Any, value: Any, a: Any, lut: Any, pivots: Any) -> tuple[Any, ...]:
    """The cofactors: the determinant times the transposed inverse.

    They are polynomials in the factors. So where a is singular, pivots that are 0 are taken to be
    as small as rounding errors are, which moves the cofactors by no more than these do.
    """
    unit = np.finfo(lut.dtype).eps
    scale = np.max(np.abs(lut), axis=(-1, -2), keepdims=True)
    least = np.where(scale == 0, unit, unit * scale)
    regular = np.where((identity(lut) == 1) & (lut == 0), least, lut)
    sign, size = sign_and_log_det(regular, pivots)
    value = det(sign * np.exp(size), a, regular, pivots)
    cofactors = value[..., None, None] * solve(a, regular, pivots, identity(a), trans=True)
    return None, g[..., None, None] * cofactors, None, None


#: A determinant, as computed by the factors of a matrix.
det = _of_factors("det", _det_rule)


# --- least squares ------------------------------------------------------------------------------


def least_squares(a: Any, ut: Any, weights: Any, v: Any, b: Any) -> Any:
    """The x of least size among those with the least size of a @ x - b.

    It is conj(v) @ diag(weights) @ conj(ut) @ b, with u and v as `svd` gives them, where the
    weights are the reciprocals of the singular values of a, or 0 for those that count as zero.
    """
    x = conjugated(v) @ (weights[..., :, None] * (conjugated(ut) @ b))
    return lstsq(x, a, ut, weights, v, b)


def _lstsq_rule(
    g: Any, x: Any, value: Any, a: Any, ut: Any, weights: Any, v: Any, b: Any
) -> tuple[Any, ...]:
    """Of the pseudo-inverse p of a matrix whose rank stays as it is: Golub and Pereyra, "The
    differentiation of pseudo-inverses and nonlinear least squares problems" (1973):
    dx = p @ (db - da @ x) + p @ p^H @ da^H @ (b - a @ x) + (1 - p @ a) @ da^H @ p^H @ x.
    """

    def inverse(y: Any) -> Any:
        return least_squares(a, ut, weights, v, y)

    def turned_inverse(y: Any) -> Any:
        return least_squares(transposed(a), transposed(v), weights, transposed(ut), y)

    of_b = turned_inverse(g)
    of_a = conjugated(b - a @ x) @ transposed(inverse(conjugated(of_b))) - of_b @ transposed(x)
    rest = conjugated(g)
    of_a = of_a + turned_inverse(conjugated(x)) @ transposed(rest - inverse(a @ rest))
    return None, of_a, None, None, None, of_b


#: A least-squares solution, as computed by singular values.
lstsq = _of_factors("lstsq", _lstsq_rule)
