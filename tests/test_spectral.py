"""General eigenvalues, Sylvester equations, banded systems, square roots: against SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.special

import graphdl as gd
from graphdl.errors import GraphLinAlgError, ShapeError

#: What rounding may do.
SLACK = {"float32": 2e-4, "float64": 1e-11}
RNG = np.random.default_rng(11)
A = RNG.normal(size=(3, 5, 5))
B = RNG.normal(size=(3, 4, 4))
Q = RNG.normal(size=(3, 5, 4))
#: Eigenvalues near 1 to 3, not symmetric.
POSITIVE = np.diag([1.0, 2.0, 3.0, 2.5]) + RNG.normal(size=(4, 4)) / 5


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_eigenvalues_are_lapacks(dtype):
    a = A.astype(dtype)
    values, vectors = gd.compile(np.linalg.eig)(a)
    want = np.linalg.eig(a)
    assert values.dtype == vectors.dtype == np.result_type(dtype, np.complex64)
    np.testing.assert_allclose(values, want.eigenvalues, rtol=SLACK[dtype])
    np.testing.assert_allclose(vectors, want.eigenvectors, rtol=SLACK[dtype], atol=SLACK[dtype])
    np.testing.assert_array_equal(gd.compile(gd.linalg.eigvals)(a), values)


def test_real_eigenvalues_are_complex_too():
    values, vectors = gd.compile(np.linalg.eig)(np.diag([3.0, 1.0]))
    np.testing.assert_array_equal(values, [3 + 0j, 1 + 0j])
    np.testing.assert_array_equal(vectors, np.eye(2))
    assert gd.compile(np.linalg.eigvals)(np.zeros((0, 0))).shape == (0,)


def test_a_matrix_that_is_not_finite_has_no_eigenvalues():
    with pytest.raises(GraphLinAlgError, match=r"eig: Eigenvalues did not converge"):
        gd.compile(np.linalg.eigvals)(np.array([[1.0, np.nan], [0.0, 1.0]]))


def test_gradients_of_eigenvalues_and_vectors():
    """Distinct values; vectors with the length and the phase that LAPACK gives them."""
    gd.check_grads(np.linalg.eigvals, A)
    gd.check_grads(np.linalg.eig, A[0])
    gd.check_grads(lambda a: np.linalg.eig(a)[1], POSITIVE, order=1)
    radius = gd.grad(lambda a: np.max(np.abs(np.linalg.eigvals(a))))(POSITIVE)
    values, left, right = scipy.linalg.eig(POSITIVE, left=True)
    k = np.argmax(np.abs(values))
    slope = np.outer(left[:, k].conj(), right[:, k]) / np.vdot(left[:, k], right[:, k])
    slope *= values[k].conj() / abs(values[k])
    np.testing.assert_allclose(radius, slope.real, rtol=1e-10)


def test_vmap_of_eigenvalues():
    got = gd.vmap(np.linalg.eigvals)(A)
    np.testing.assert_array_equal(got, gd.compile(np.linalg.eigvals)(A))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sylvester_equations(dtype):
    a, b, q = (x.astype(dtype) for x in (A, B, Q))
    x = gd.compile(gd.linalg.solve_sylvester)(a, b, q)
    assert x.dtype == dtype
    np.testing.assert_allclose(a @ x + x @ b, q, atol=SLACK[dtype])
    whole = gd.compile(gd.linalg.solve_sylvester)(a[0], b[0], q)
    np.testing.assert_allclose(whole[1], scipy.linalg.solve_sylvester(a[0], b[0], q[1]), rtol=1e-2)
    lyapunov = gd.compile(gd.linalg.solve_continuous_lyapunov)(a[0], np.eye(5, dtype=dtype))
    want = scipy.linalg.solve_continuous_lyapunov(a[0], np.eye(5, dtype=dtype))
    np.testing.assert_allclose(lyapunov, want, rtol=1e-2)


def test_gradients_of_sylvester_equations():
    gd.check_grads(gd.linalg.solve_sylvester, A[:2], B[:2], Q[:2])
    gd.check_grads(gd.linalg.solve_lyapunov, POSITIVE, np.eye(4))


def test_sylvester_equations_that_have_no_solution():
    with pytest.raises(GraphLinAlgError, match="an eigenvalue in common"):
        gd.compile(gd.linalg.solve_sylvester)(np.eye(2), -np.eye(2), np.eye(2))
    with pytest.raises(ShapeError, match=r"solve_sylvester"):
        gd.trace(gd.linalg.solve_sylvester, A[0], B[0], Q[0].T)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("lower", "upper"), [(1, 1), (2, 0), (0, 1), (3, 2)])
def test_banded_systems(lower, upper, dtype):
    ab = RNG.normal(size=(lower + upper + 1, 8)).astype(dtype)
    ab[upper] += 6
    b = RNG.normal(size=(8, 3)).astype(dtype)

    def solve(ab: Any, b: Any) -> Any:
        return gd.linalg.solve_banded((lower, upper), ab, b)

    f = gd.compile(solve)
    want = scipy.linalg.solve_banded((lower, upper), ab, b)
    np.testing.assert_allclose(f(ab, b), want, rtol=SLACK[dtype], atol=SLACK[dtype])
    np.testing.assert_allclose(f(ab, b[:, 0]), want[:, 0], rtol=SLACK[dtype], atol=SLACK[dtype])
    if dtype == "float64":
        gd.check_grads(solve, ab, b)


def test_banded_systems_that_cannot_be_solved():
    f = gd.compile(lambda ab, b: gd.linalg.solve_banded((1, 1), ab, b))
    with pytest.raises(GraphLinAlgError, match="Singular"):
        f(np.zeros((3, 4)), np.ones(4))
    with pytest.raises(ShapeError, match="there are 3"):
        f(np.ones((4, 4)), np.ones(4))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_square_roots(dtype):
    a = np.stack([POSITIVE, POSITIVE.T @ POSITIVE]).astype(dtype)
    root = gd.compile(gd.linalg.sqrtm)(a)
    assert root.dtype == dtype
    np.testing.assert_allclose(root @ root, a, atol=SLACK[dtype])
    for one, x in zip(root, a, strict=True):
        np.testing.assert_allclose(one, scipy.linalg.sqrtm(x), atol=SLACK[dtype])


def test_square_roots_of_defective_and_ill_conditioned_matrices():
    a = np.array([[[4.0, 1.0], [0.0, 4.0]], [[1e6, 1.0], [0.0, 1e-6]]])
    root = gd.compile(gd.linalg.sqrtm)(a)
    np.testing.assert_allclose(root, [scipy.linalg.sqrtm(x) for x in a], rtol=1e-9, atol=1e-15)


def test_gradients_of_square_roots():
    gd.check_grads(gd.linalg.sqrtm, POSITIVE)


def test_there_is_no_real_square_root_of_a_negative_number():
    turned = np.array([[1.0, 2.0], [0.0, -3.0]])
    assert np.isnan(gd.compile(gd.linalg.sqrtm)(turned)).all()


def test_bessel_functions_of_integer_order():
    x = np.array([0.5, 1.0, 7.0])
    f = gd.compile(lambda x: scipy.special.yn(2, x))
    np.testing.assert_allclose(f(x), scipy.special.yn(2, x), rtol=1e-14)
    gd.check_grads(lambda x: scipy.special.yn(2, x), x)
