"""Eigenvalues of general matrices, and equations that need the Schur form or a band: in stacks.

The last two axes are those of a matrix, as in graphdl.ops.linalg. Gradients: Boeddeker, Hanebrink,
Drude, Heymann and Haeb-Umbach, "On the computation of complex-valued gradients with application to
statistically optimum beamforming" (2017), for eigenvectors, with the length and the phase that
LAPACK gives them; implicit differentiation for equations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphdl.errors import ShapeError
from graphdl.ops import control, pointwise
from graphdl.ops.linalg import (
    SINGULAR,
    complex_sized,
    each,
    failure,
    identity,
    lapack,
    lu,
    matrix_sizes,
    reciprocal_gaps,
    results,
    solve,
    square_size,
    transposed,
    type_of,
)
from graphdl.ops.op import Op
from graphdl.types import TensorType

# --- eigenvalues --------------------------------------------------------------------------------


def _eig_results(a: TensorType) -> list[TensorType]:
    n = square_size("eig", a)
    return [complex_sized(a, n), complex_sized(a, n, n)]


def _eig(a: Any) -> Any:
    def one(a: Any) -> list[Any]:
        if not np.isfinite(a).all():
            raise failure(eig)
        values, v = np.linalg.eig(a)
        return [values, v.T]

    types = _eig_results(type_of(a))
    return control.pack(each(types, one, (a, 2)), types)


def _eig_rule(gs: Sequence[Any], outs: Sequence[Any], a: Any) -> tuple[Any]:
    """da = vt^-1 @ (diag(dw) + f * (vt @ dv)) @ vt with f[i, j] = 1 / (w[j] - w[i]).

    dv is first freed of what only changes the lengths of the vectors, which are 1, and their
    phases, by which the largest element of each is real.
    """
    values, vt = outs
    of_values, of_vt = gs
    inner = np.zeros_like(vt)
    if of_values is not None:
        inner = inner + identity(vt) * of_values[..., None]
    if of_vt is not None:
        along = np.sum(of_vt * vt, axis=-1, keepdims=True)
        sizes = pointwise.stop_gradient(vt.real * vt.real + vt.imag * vt.imag)
        largest = np.arange(sizes.shape[-1]) == np.argmax(sizes, axis=-1)[..., None]
        height = np.sum(np.where(largest, vt.real, 0), axis=-1, keepdims=True)
        height = np.where(height == 0, 1, height)
        turning = 1j * np.where(largest, along.imag / height, 0)
        free = of_vt - along.real * np.conjugate(vt) - turning
        inner = inner + reciprocal_gaps(values) * (vt @ transposed(free))
    total = solve(vt, *results(lu(vt)), inner @ vt, trans=False)
    return (total if a.dtype.kind == "c" else total.real,)


#: The eigenvalues of a and its eigenvectors, of length one, each with its largest element real.
#: Results, complex also of a real a: the values, then vt, whose rows are the vectors.
eig: Op = Op(
    "eig",
    "linalg",
    lambda a: control.packed_type(_eig_results(a)),
    _eig,
    _eig_rule,
    results=_eig_results,
    failure="Eigenvalues did not converge",
)


# --- a @ x + x @ b = q --------------------------------------------------------------------------


def _infer_sylvester(a: TensorType, b: TensorType, q: TensorType) -> TensorType:
    rows, columns = square_size("solve_sylvester", a), square_size("solve_sylvester", b)
    if matrix_sizes("solve_sylvester", q) != (rows, columns) or not (
        a.shape[:-2] == b.shape[:-2] == q.shape[:-2] and a.dtype == b.dtype == q.dtype
    ):
        raise ShapeError(f"solve_sylvester: {a} and {b} with {q}")
    return q


def _solve_sylvester(a: Any, b: Any, q: Any) -> Any:
    """By the system of rows * columns equations: slow, and independent of what the kernel does."""

    def one(a: Any, b: Any, q: Any) -> list[Any]:
        whole = np.kron(a, np.eye(len(b), dtype=b.dtype)) + np.kron(np.eye(len(a)), b.T)
        try:
            return [np.linalg.solve(whole, q.reshape(-1)).reshape(q.shape)]
        except np.linalg.LinAlgError:
            raise failure(solve_sylvester) from None

    return each([type_of(q)], one, (a, 2), (b, 2), (q, 2))[0]


def _sylvester_rule(g: Any, x: Any, a: Any, b: Any, q: Any) -> tuple[Any, Any, Any]:
    of_q = solve_sylvester(transposed(a), transposed(b), g)
    return -(of_q @ transposed(x)), -(transposed(x) @ of_q), of_q


#: The x of a @ x + x @ b = q: Bartels and Stewart (1972).
solve_sylvester: Op = Op(
    "solve_sylvester",
    "linalg",
    _infer_sylvester,
    _solve_sylvester,
    _sylvester_rule,
    failure="The matrices a and -b have an eigenvalue in common",
)


# --- banded systems -----------------------------------------------------------------------------


def _infer_banded(ab: TensorType, b: TensorType, *, lower: int, upper: int) -> TensorType:
    rows, n = matrix_sizes("solve_banded", ab)
    if rows != lower + upper + 1:
        raise ShapeError(
            f"solve_banded: ab has {rows} diagonals, of {lower} below and {upper} above the main "
            f"one there are {lower + upper + 1}"
        )
    if b.dtype != ab.dtype or b.ndim != ab.ndim or b.shape[:-2] != ab.shape[:-2]:
        raise ShapeError(f"solve_banded: {ab} with right sides {b}")
    if b.shape[-2] != n:
        raise ShapeError(f"solve_banded: {n} columns with right sides {b}")
    return b


def _solve_banded(ab: Any, b: Any, *, lower: int, upper: int) -> Any:
    solver = lapack("gbsv", ab)

    def one(ab: Any, b: Any) -> list[Any]:
        room = np.zeros((2 * lower + upper + 1, ab.shape[-1]), ab.dtype)
        room[lower:] = ab
        _, _, x, info = solver(lower, upper, room, b)
        if info:
            raise failure(solve_banded)
        return [x]

    return each([type_of(b)], one, (ab, 2), (b, 2))[0] if b.size else np.zeros_like(b)


def _banded_rule(g: Any, x: Any, ab: Any, b: Any, *, lower: int, upper: int) -> tuple[Any, Any]:
    """Diagonal d of a lies in row upper - d, each element in its own column."""
    turned = np.stack(
        [np.roll(ab[..., upper - d, :], -d, axis=-1) for d in range(-lower, upper + 1)], axis=-2
    )
    of_b = solve_banded(turned, g, lower=upper, upper=lower)
    n = ab.shape[-1]
    rows = []
    for d in range(upper, -lower - 1, -1):
        product = -np.sum(np.roll(of_b, d, axis=-2) * x, axis=-1)
        place = np.arange(n) - d
        rows.append(np.where((place >= 0) & (place < n), product, 0))
    return np.stack(rows, axis=-2), of_b


#: The x of a @ x = b where only `lower` diagonals below the main one and `upper` above it are not
#: zero: the rows of ab, from the highest, each element in its column.
solve_banded: Op = Op(
    "solve_banded", "linalg", _infer_banded, _solve_banded, _banded_rule, failure=SINGULAR
)
