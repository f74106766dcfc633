"""Linear algebra against NumPy, SciPy, finite differences and JAX; errors where NumPy has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.linalg

import graphdl as gd
from graphdl.errors import GraphLinAlgError, ShapeError, UnsupportedError
from graphdl.kernels.cpu import pool
from tests.helpers import call_of
from tests.programs import assert_same, bits, check_compiled, run_native

RNG = np.random.default_rng(7)
A = RNG.normal(size=(4, 4))
STACK = RNG.normal(size=(2, 3, 4, 4)) + 2 * np.eye(4)
VALUES = {
    "a": A,
    "s": A @ A.T + 4 * np.eye(4),
    "q": STACK,
    "t": STACK @ np.swapaxes(STACK, -1, -2) + np.eye(4),
    "m": RNG.normal(size=(5, 3)),
    "w": RNG.normal(size=(3, 5)),
    "v": RNG.normal(size=4),
    "b": RNG.normal(size=(4, 3)),
    "c": RNG.normal(size=(3, 4, 2)),
    "e": np.zeros((0, 0)),
    "o": np.zeros((0, 3, 3)),
    "f": RNG.normal(size=(2, 3, 6)),
    "n": RNG.integers(-3, 4, (3, 3)) + 5 * np.eye(3, dtype=int),
}

#: NumPy's functions, each with plain arrays, interpreted and compiled.
NUMPY = """
np.linalg.solve(a, v)              np.linalg.solve(a, b)              np.linalg.solve(q, b)
np.linalg.solve(q, c)              np.linalg.solve(a, c)              np.linalg.solve(a.T[::-1], v)
np.linalg.solve(e, e)              np.linalg.solve(o, o)              np.linalg.solve(n, n[0])
np.linalg.inv(a)                   np.linalg.inv(q)                   np.linalg.inv(e)
np.linalg.det(a)                   np.linalg.det(q)                   np.linalg.det(e)
np.linalg.slogdet(a)               np.linalg.slogdet(q)               np.linalg.slogdet(o)
np.linalg.det(n)                   np.linalg.det(o)                   np.linalg.det(a * 0)
np.linalg.matrix_power(a, 5)       np.linalg.matrix_power(q, -2)      np.linalg.matrix_power(n, 0)
np.linalg.matrix_power(n, 3)       np.linalg.tensorinv(f)             np.linalg.tensorinv(a, 1)
np.linalg.tensorsolve(f, f[:, :, 0])
np.linalg.tensorsolve(np.moveaxis(f, 2, 0), f[:, :, 0], axes=(0,))
np.linalg.cholesky(s)              np.linalg.cholesky(t)              np.linalg.cholesky(e)
np.linalg.cholesky(s, upper=True)  np.linalg.cholesky(np.tril(s))
np.linalg.cholesky(np.triu(t), upper=True)
"""
#: Those by singular values; NumPy computes them in float64, also for float32.
SINGULAR = """
np.linalg.pinv(m)                  np.linalg.pinv(q)                  np.linalg.pinv(w, rcond=0.5)
np.linalg.pinv(s, hermitian=True)  np.linalg.pinv(m, rtol=None)       np.linalg.pinv(o[:, :2])
np.linalg.lstsq(m, m[:, :2])       np.linalg.lstsq(w, w[:, 0])        np.linalg.lstsq(a, v, 0.1)
np.linalg.matrix_rank(q)           np.linalg.matrix_rank(m[:, :1] * m[:, 1])
np.linalg.matrix_rank(v * 0)       np.linalg.matrix_rank(s, hermitian=True)
np.linalg.matrix_rank(m, tol=2.0)  np.linalg.matrix_rank(o)
np.linalg.matrix_rank(q, rtol=0.2)
np.linalg.cond(q)                  np.linalg.cond(m, -2)              np.linalg.cond(q, 1)
np.linalg.cond(a, "fro")           np.linalg.cond(a * 0, np.inf)      np.linalg.cond(a * 0)
np.linalg.norm(a)                  np.linalg.norm(q, axis=2)          np.linalg.norm(q)
np.linalg.norm(v, 3)               np.linalg.norm(v, np.inf)          np.linalg.norm(v, -np.inf)
np.linalg.norm(v, 0)               np.linalg.norm(q, 1, 1, True)      np.linalg.norm(v, 0.5)
np.linalg.norm(m, 1)               np.linalg.norm(m, -1)              np.linalg.norm(m, 2)
np.linalg.norm(m, -2)              np.linalg.norm(m, np.inf)          np.linalg.norm(m, -np.inf)
np.linalg.norm(m, "nuc")           np.linalg.norm(q, "nuc", (2, 0))   np.linalg.norm(q, 2, (0, 3))
np.linalg.norm(f, 1, (2, 0))       np.linalg.norm(f, np.inf, (2, 0))  np.linalg.norm(o, 2, (1, 2))
np.linalg.matrix_norm(q)           np.linalg.matrix_norm(q, ord=2, keepdims=True)
np.linalg.vector_norm(q)           np.linalg.vector_norm(q, axis=(1, 3), keepdims=True, ord=3)
np.linalg.svdvals(m)               np.linalg.svdvals(q)               np.linalg.eigvalsh(t)
np.linalg.eigvalsh(s, "U")         np.linalg.eigvalsh(a)              np.linalg.eigvalsh(e)
np.linalg.qr(a, "r")               np.linalg.qr(w, "r")               np.linalg.qr(m)
np.linalg.qr(w)                    np.linalg.qr(q)                    np.linalg.qr(m, "complete")
np.linalg.qr(w[:, :0])             np.linalg.qr(m[:0])
np.linalg.qr(m[:, :0], "complete")
np.polyfit(m[:, 0], m[:, 1], 2)    np.polyfit(m[:, 0], m, 1, w=np.abs(m[:, 1]))
np.polyfit(m[:, 0], m[:, 1], 2, full=True)                            np.poly(v)
np.polyfit(m[:, 0], m, 2, cov=True)
np.polyfit(m[:, 0], m[:, 1], 1, cov="unscaled")
"""
#: Those with vectors, whose signs are LAPACK's choice.
VECTORS = """
np.linalg.eigh(s)                  np.linalg.eigh(q)                  np.linalg.eigh(a, "U")
np.linalg.svd(m)                   np.linalg.svd(w)                   np.linalg.svd(q)
np.linalg.svd(m, False)            np.linalg.svd(w, full_matrices=False)
np.linalg.svd(m[:0])               np.linalg.svd(m[:, :0])            np.linalg.svd(m[:0], False)
np.linalg.svd(a + a.T, hermitian=True)
np.linalg.svd(a + a.T, compute_uv=False, hermitian=True)
"""
#: SciPy's functions.
SCIPY = """
gd.linalg.solve_triangular(a, v)                  gd.linalg.solve_triangular(a, b, lower=True)
gd.linalg.solve_triangular(a, b, trans="T")       gd.linalg.solve_triangular(a, b, 1, True, True)
gd.linalg.cholesky(s)                             gd.linalg.cholesky(s, lower=True)
gd.linalg.cho_solve(gd.linalg.cho_factor(s), b)   gd.linalg.lu_factor(a)
gd.linalg.cho_solve(gd.linalg.cho_factor(s, True), v)
gd.linalg.lu_factor(m)                            gd.linalg.lu_factor(w)
gd.linalg.lu_solve(gd.linalg.lu_factor(a), b)     gd.linalg.lu_solve(gd.linalg.lu_factor(a), v, 1)
gd.linalg.lu(a)                                   gd.linalg.lu(m)
gd.linalg.lu(w, permute_l=True)                   gd.linalg.lu(m, p_indices=True)
gd.linalg.inv(a)                                  gd.linalg.det(n + 0.0)
gd.linalg.solve(a, b)                             gd.linalg.solve(s, v, assume_a="pos")
gd.linalg.solve(a, b, transposed=True)            gd.linalg.solve(a + a.T, b, assume_a="sym")
gd.linalg.expm(a)                                 gd.linalg.expm(q)
gd.linalg.expm(a * 0.01)                          gd.linalg.expm(e)
gd.linalg.block_diag(a, v, m)                     gd.linalg.norm(n + 0.0, 1)
gd.linalg.eigvalsh(s)                             gd.linalg.eigvalsh(a, lower=False)
gd.linalg.svdvals(m)                              gd.linalg.eigvalsh(s, s + a.T @ a)
gd.linalg.eigh(s, subset_by_index=(1, 2), eigvals_only=True)
gd.linalg.eigh(a, s, lower=False, eigvals_only=True)
gd.linalg.qr(m)                                   gd.linalg.qr(w, mode="r")
gd.linalg.qr(m, mode="economic")                  gd.linalg.pinv(m)
"""


def calls(text: str, dtype: Any = np.float64) -> list[tuple[str, Callable[..., Any], list[Any]]]:
    """The calls of a table, two spaces apart."""
    lines = [part.strip() for line in text.splitlines() for part in line.split("  ")]
    values = {
        name: value.astype(dtype) if value.dtype == np.float64 else value
        for name, value in VALUES.items()
    }
    return [(line, *call_of(line, values, gd=gd)) for line in lines if line]


def compare(
    found: list[tuple[str, Callable[..., Any], list[Any]]],
    ulps: float,
    numpy: bool = True,
    python: bool = True,
) -> None:
    """All calls as one graph: interpreted, compiled; plain (if `numpy`), and as Python."""

    def every(args: Any) -> Any:
        return [f(*own) for (_, f, _), own in zip(found, args, strict=True)]

    arguments = [args for _, _, args in found]
    check_compiled(every, arguments, ulps=ulps, separate=False, numpy=numpy, python=python)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f4", "f8"])
@pytest.mark.parametrize("text", [NUMPY, SINGULAR, SCIPY], ids=["numpy", "singular", "scipy"])
def test_functions_are_those_of_numpy_and_scipy(text, dtype):
    compare(calls(text, dtype), ulps=200, python=dtype is np.float64)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f4", "f8"])
def test_decompositions_are_those_of_numpy(dtype):
    """In float64 with the same signs: the same routines do the work."""
    compare(calls(VECTORS, dtype), ulps=200, numpy=dtype is np.float64)


#: What varies is a; the matrices made from it are fit for the function.
GRADIENTS = """
np.linalg.solve(q, c)              np.linalg.solve(a, v)              np.linalg.solve(a, c)
np.linalg.inv(q)                   np.linalg.det(q)                   np.linalg.slogdet(q)
np.linalg.cholesky(s)              np.linalg.cholesky(t, upper=True)  np.linalg.tensorinv(f)
gd.linalg.lu(a)                    gd.linalg.lu(m)                    gd.linalg.lu(w)
np.linalg.qr(q)                    np.linalg.qr(m)                    np.linalg.qr(w)
np.linalg.qr(m, "r")               np.linalg.eigh(q)                  np.linalg.eigh(a, "U")
np.linalg.eigvalsh(s)              np.linalg.svd(m, False)            np.linalg.svd(w, False)
np.linalg.svd(q)                   np.linalg.svdvals(m)               np.linalg.pinv(m)
np.linalg.pinv(w)                  np.linalg.norm(m, "nuc")           np.linalg.norm(a, 2)
np.linalg.lstsq(w, w[:, :2])[0]    np.linalg.cond(q)                  np.linalg.cond(a, 1)
np.linalg.pinv(s, hermitian=True)  np.polyfit(m[:, 0], m[:, 1:], 2)   np.poly(v)
np.linalg.norm(q, 3, 2)            np.linalg.svd(a + a.T, hermitian=True)
gd.linalg.lu_solve(gd.linalg.lu_factor(a), b)     gd.linalg.lu_solve(gd.linalg.lu_factor(a), b, 1)
gd.linalg.cho_solve(gd.linalg.cho_factor(s), b)   gd.linalg.solve_triangular(s, b, 1, True)
gd.linalg.expm(a)                                 gd.linalg.expm(s[:2, :2] * 0.1)
gd.linalg.eigh(s, s + a.T @ a)                    gd.linalg.block_diag(v, m)
"""


@pytest.mark.parametrize(
    ("text", "f", "args"), calls(GRADIENTS), ids=[text for text, *_ in calls(GRADIENTS)]
)
def test_gradients_are_slopes(text, f, args):
    gd.check_grads(f, *args)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f4", "f8"])
def test_exponentials_of_any_size(dtype):
    """Every degree of the approximant, and squarings; what is not finite stays with its matrix."""
    sizes = np.array([0, 1e-9, 1e-3, 0.03, 0.2, 0.4, 1, 3, 10, 25, np.nan, np.inf])
    x = (RNG.normal(size=(len(sizes), 5, 5)) * sizes[:, None, None]).astype(dtype)
    found = gd.compile(gd.linalg.expm)(x)
    want = scipy.linalg.expm(x[:-2].astype(np.float64))
    errors = np.abs(found[:-2] - want).max((1, 2)) / np.abs(want).max((1, 2))
    assert (errors <= np.finfo(dtype).eps * np.maximum(20, 100 * sizes[:-2])).all()
    assert np.isnan(found[-2:]).all()


def test_vectors_beyond_the_span_turn_with_it():
    """They are any basis; what does not depend on which has a gradient to any order."""

    def beyond_columns(m):
        u, q = np.linalg.svd(m)[0][:, 3:], np.linalg.qr(m, "complete")[0][:, 3:]
        return np.sin(u @ u.T), np.cos(q @ q.T)

    def beyond_rows(w):
        vh = np.linalg.svd(w)[2][3:]
        return np.sin(vh.T @ vh)

    gd.check_grads(beyond_columns, VALUES["m"])
    gd.check_grads(beyond_rows, VALUES["w"])


def test_the_gradient_lies_in_the_triangle_that_is_read():
    def total(f: Callable[..., Any]) -> Callable[..., Any]:
        return gd.grad(lambda x: np.sum(np.sin(f(x))))

    s = VALUES["s"]
    lower = total(np.linalg.cholesky)(s)
    upper = total(lambda x: np.linalg.cholesky(x, upper=True))(s)
    assert not np.triu(lower, 1).any()
    np.testing.assert_allclose(upper, lower.T, atol=1e-14)
    lower, upper = (total(lambda x, u=u: np.linalg.eigvalsh(x, u))(s) for u in "LU")
    np.testing.assert_allclose(upper, lower.T, atol=1e-14)
    symmetric = total(lambda x: np.linalg.eigvalsh((x + x.T) / 2))(s)
    np.testing.assert_allclose(symmetric, (lower + lower.T) / 2, atol=1e-14)


def test_equal_eigenvalues():
    """Those have a gradient together; their vectors have none, and it is not finite."""
    two = np.diag([1.0, 1.0, 2.0])
    np.testing.assert_allclose(
        gd.grad(lambda x: np.sum(np.linalg.eigvalsh(x) ** 3))(two), np.diag([3.0, 3.0, 12.0])
    )
    assert not np.isfinite(gd.grad(lambda x: np.sum(np.linalg.eigh(x)[1]))(two)).all()


def test_values_alone_need_no_vectors():
    """The function computes no vectors; with its gradient, it is one decomposition."""
    for f in (np.linalg.eigvalsh, np.linalg.svdvals, lambda x: np.linalg.qr(x, "r")):
        alone = gd.compile(f).lower(A)
        assert [node.op.name for node in alone.optimized.operations if node.op.results]
        assert "vectors" not in alone.kernels[0].source
        both = gd.compile(gd.value_and_grad(lambda x, f=f: np.sum(f(x)))).lower(A)
        assert sum(1 for node in both.optimized.operations if node.op.results) == 1


# --- matrices that are not fit ------------------------------------------------------------------

ONES = np.ones((2, 3, 3))


@pytest.mark.parametrize(
    ("f", "x", "name"),
    [
        (np.linalg.inv, ONES, "Singular matrix"),
        (lambda x: np.linalg.solve(x, x), ONES * 0, "Singular matrix"),
        (np.linalg.cholesky, -ONES, "not positive definite"),
        (lambda x: gd.linalg.solve_triangular(x, x), ONES[0] * 0, "Singular matrix"),
        (gd.grad(lambda x: np.linalg.slogdet(x)[1]), ONES[0], "Singular matrix"),
        (np.linalg.svdvals, ONES * np.nan, "SVD did not converge"),
        (lambda x: gd.map(np.linalg.inv, x), ONES, "Singular matrix"),
    ],
)
def test_an_error_names_the_line(f, x, name):
    """It is NumPy's error, in the interpreter and in compiled programs, which stay fit for use."""
    compiled = gd.compile(lambda x: f(x) * 2)
    good = np.broadcast_to(np.eye(3), x.shape)
    with np.errstate(all="ignore"):
        want = gd.trace(compiled, good).evaluate(good)
    assert_same(compiled(good), want)
    with pytest.raises(np.linalg.LinAlgError, match=name) as caught:
        compiled(x)
    assert isinstance(caught.value, gd.GraphError)
    assert "test_linalg.py:" in str(caught.value)
    with pytest.raises(GraphLinAlgError, match=name):
        gd.trace(compiled, x).evaluate(x)
    assert_same(compiled(good), want)


def test_one_bad_matrix_of_many_is_found():
    x = np.broadcast_to(np.eye(3), (40, 3, 3)).copy()
    compiled = gd.compile(np.linalg.inv)
    compiled(x)
    x[23] = 1
    with pytest.raises(np.linalg.LinAlgError):
        compiled(x)


@pytest.mark.parametrize(
    "x", [np.zeros((3, 3)), np.diag([2.0, 3.0, 0.0]), np.eye(4, k=1), np.ones((2, 2))]
)
def test_the_gradient_of_a_determinant_at_singular_matrices(x):
    """The cofactors, which are there at any rank; by minors, one for each element."""
    n = len(x)
    rest = [[k for k in range(n) if k != i] for i in range(n)]
    cofactors = [
        [(-1) ** (i + j) * np.linalg.det(x[np.ix_(rest[i], rest[j])]) for j in range(n)]
        for i in range(n)
    ]
    np.testing.assert_allclose(gd.grad(np.linalg.det)(x), cofactors, atol=1e-14)


@pytest.mark.parametrize(
    ("f", "shapes", "what"),
    [
        (np.linalg.inv, [(3, 4)], "must be equal"),
        (np.linalg.inv, [(3,)], "two axes"),
        (np.linalg.solve, [(3, 3), (4,)], "right sides"),
        (np.linalg.solve, [(2, 3, 3), (5, 3, 1)], "broadcast"),
        (np.linalg.det, [()], "two axes"),
        (np.linalg.cholesky, [(2, 3)], "must be equal"),
        (np.linalg.tensorinv, [(2, 3, 4)], "different sizes"),
        (np.linalg.tensorsolve, [(2, 3, 4), (2,)], "no square system"),
        (gd.linalg.solve_triangular, [(3, 3), (2, 1)], "right sides"),
        (np.linalg.eigh, [(3, 2)], "must be equal"),
        (np.linalg.svd, [(3,)], "two axes"),
        (np.linalg.lstsq, [(3, 2), (4,)], "right sides"),
        (np.linalg.lstsq, [(3, 3, 2), (3,)], "one matrix"),
        (lambda x: np.linalg.norm(x, 1), [(2, 2, 2)], "one axis or two"),
        (lambda x, y: np.polyfit(x, y, 2), [(3,), (4,)], "lengths"),
    ],
)
def test_shapes_that_do_not_fit(f, shapes, what):
    with pytest.raises(ShapeError, match=what):
        gd.trace(f, *(gd.spec(shape) for shape in shapes))


def test_what_cannot_be_traced_says_what_can():
    with pytest.raises(UnsupportedError, match=r"np.linalg.eig\(a.T\)"):
        gd.trace(lambda a: gd.linalg.eig(a, left=True), A)
    with pytest.raises(UnsupportedError, match="the number of roots depends"):
        gd.trace(np.roots, A[0])
    with pytest.raises(UnsupportedError, match="'raw'"):
        gd.trace(lambda x: np.linalg.qr(x, "raw"), A)
    with pytest.raises(gd.ArgumentError, match="'nuc'"):
        gd.trace(lambda x: np.linalg.norm(x, 7), A)
    with pytest.raises(gd.ArgumentError, match="UPLO='X'"):
        gd.trace(lambda x: np.linalg.eigh(x, "X"), A)
    with pytest.raises(UnsupportedError, match="Schur"):
        gd.trace(gd.linalg.logm, A)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = gd.linalg.no_such_name


def test_plain_arrays_are_left_to_scipy():
    same = np.testing.assert_array_equal
    same(gd.linalg.lu_factor(A)[1], scipy.linalg.lu_factor(A)[1])
    same(gd.linalg.toeplitz([1, 2, 3]), scipy.linalg.toeplitz([1, 2, 3]))


# --- programs -----------------------------------------------------------------------------------


def test_solve_and_determinant_share_the_factors():
    f = gd.compile(lambda a, b: (np.linalg.solve(a, b), np.linalg.slogdet(a)))
    names = [kernel.name for kernel in f.lower(A, A[0]).kernels]
    assert names.count("lu") == 1


def test_the_number_of_threads_changes_no_bit():
    def f(t, b):
        return np.linalg.solve(t, b), np.linalg.cholesky(t), np.linalg.slogdet(t)

    wide = np.random.default_rng(0).normal(size=(40, 200, 1000))
    big = wide @ np.swapaxes(wide, -1, -2) / 1000 + np.eye(200)
    found = []
    before = pool.num_threads()
    for threads in (1, 2, before):
        gd.set_num_threads(threads)
        found.append(bits([gd.compile(f)(big[0], wide[0]), gd.compile(f)(big, wide[:, :, :1])]))
    assert found[0] == found[1] == found[2]


def test_vmap_over_either_operand():
    stack, right = STACK[0], RNG.normal(size=(3, 4))
    cases: list[tuple[Any, Any, Any]] = [
        (np.linalg.solve, (0, 0), (stack, right)),
        (np.linalg.solve, (None, 0), (stack[0], right)),
        (np.linalg.solve, (0, None), (stack, right[0])),
        (gd.linalg.solve_triangular, (None, 0), (stack[0], right)),
        (lambda a, b: gd.linalg.lu_solve(gd.linalg.lu_factor(a), b), (0, 0), (stack, right)),
        (lambda a, b: np.linalg.slogdet(a)[1] * b, (0, 0), (stack, right)),
    ]
    for f, axes, args in cases:

        def loop(*args, f=f, axes=axes):
            pick = [(lambda x, i: x) if axis is None else (lambda x, i: x[i]) for axis in axes]
            return np.stack(
                [f(*(p(x, i) for p, x in zip(pick, args, strict=True))) for i in range(3)]
            )

        batched = gd.vmap(f, in_axes=axes)
        assert_same(gd.trace(batched, *args).evaluate(*args), loop(*args), ulps=200)
        slope = gd.grad(lambda *args, f=batched: np.sum(np.sin(f(*args))))
        want = gd.grad(lambda *args, f=loop: np.sum(np.sin(f(*args))))
        assert_same(run_native(gd.trace(slope, *args), args)[0], want(*args), ulps=2000)
