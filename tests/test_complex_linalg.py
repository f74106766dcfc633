"""np.linalg of complex matrices: values as NumPy's, gradients to second order, stacks, batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphdl as gd
from graphdl.errors import DtypeError, GraphLinAlgError
from tests.programs import run_in_python

RNG = np.random.default_rng(3)


def random(*shape: int) -> Any:
    return RNG.normal(size=shape) + 1j * RNG.normal(size=shape)


def adjoint(x):
    return np.conj(np.swapaxes(x, -1, -2))


Q = random(2, 3, 3)
H = Q @ adjoint(Q) + 2 * np.eye(3)
TALL, WIDE, B = random(4, 2), random(2, 4), random(2, 3, 2)


def spans(vectors, start=None, stop=None):
    """The projection on some columns, on whose phases it does not depend."""
    part = vectors[..., :, start:stop]
    return part @ adjoint(part)


def lu_of(a):
    return gd.linalg.lu_factor(a)


#: Functions of complex matrices; those whose vectors have a phase do not depend on it.
FUNCTIONS: dict[str, tuple[Any, Any]] = {
    "solve": (lambda a: np.linalg.solve(a, B) + np.linalg.solve(B @ adjoint(B) + a, B), Q),
    "solve a real system": (lambda b: np.linalg.solve(H.real, b[0]), B),
    "inv": (lambda a: np.linalg.inv(a) + np.linalg.matrix_power(a, -2), Q),
    "det": (np.linalg.det, Q),
    "slogdet": (lambda a: sum(np.linalg.slogdet(a)), Q),
    "cholesky": (np.linalg.cholesky, H),
    "cholesky upper": (lambda a: np.linalg.cholesky(a, upper=True), H),
    "qr": (lambda a: np.concatenate(np.linalg.qr(a)), TALL),
    "qr of wide ones": (lambda a: np.linalg.qr(a)[1], WIDE),
    "qr complete": (lambda a: spans(np.linalg.qr(a, "complete")[0], 2), TALL),
    "eigh": (lambda a: np.linalg.eigh(a)[0], H),
    "eigh vectors": (lambda a: spans(np.linalg.eigh(a)[1], 1), H),
    "eigh upper": (lambda a: spans(np.linalg.eigh(a, "U")[1], 0, 2), H),
    "svd": (lambda a: np.linalg.svd(a)[1], TALL),
    "svd vectors": (
        lambda a: (lambda u, s, vh: (u[:, :1] * s[1]) @ vh[:1])(*np.linalg.svd(a)),
        WIDE,
    ),
    "svd beyond": (lambda a: spans(np.linalg.svd(a)[0], 2), TALL),
    "svd beyond on the right": (lambda a: spans(adjoint(np.linalg.svd(a)[2]), 2), WIDE),
    "svd of Hermitian ones": (lambda a: np.linalg.svd(a, hermitian=True)[1], H),
    "pinv": (np.linalg.pinv, TALL),
    "pinv of Hermitian ones": (lambda a: np.linalg.pinv(a, hermitian=True), H),
    "lstsq": (
        lambda a: sum(part.sum() for part in np.linalg.lstsq(a, TALL[:, 0] ** 2, None)[:2]),
        TALL,
    ),
    "norms": (lambda a: np.linalg.norm(a, "nuc") + np.linalg.norm(a) + np.linalg.norm(a, 2), TALL),
    "eig": (lambda a: np.linalg.eig(a)[1] @ np.linalg.eigvals(a)[..., None], Q),
    "eig of real ones": (
        lambda a: np.linalg.eig(a.real)[1] @ (1j * np.linalg.eigvals(a.real)[..., None]),
        Q,
    ),
    "expm": (lambda a: gd.linalg.expm(a / 9) + gd.linalg.expm(3 * a), Q[0]),
    "a determinant as SciPy's": (gd.linalg.det, Q[0]),
    "triangular": (
        lambda a: sum(
            gd.linalg.solve_triangular(a, B[0], trans=t, lower=t == 2) for t in (0, 1, 2)
        ),
        Q[0],
    ),
    "by the factor": (lambda a: gd.linalg.cho_solve(gd.linalg.cho_factor(a), B[0]), H[0]),
    "by LU": (lambda a: sum(gd.linalg.lu_solve(lu_of(a), B[0], trans=t) for t in (0, 1, 2)), Q[0]),
    "as it is assumed": (
        lambda a: (
            gd.linalg.solve(a, B[0], assume_a="her")
            + gd.linalg.solve(a, B[0], assume_a="sym", lower=True)
            + gd.linalg.solve(H[0] + a @ adjoint(a), B[0], assume_a="pos", lower=True)
        ),
        Q[0],
    ),
    "a generalised problem": (
        lambda a: (
            gd.linalg.eigvalsh(a, H[1])
            + spans(gd.linalg.eigh(H[0], H[1] + a @ adjoint(a), lower=False)[1], 1)[0]
        ),
        H[0],
    ),
    "condition": (lambda a: np.linalg.cond(a) + np.linalg.cond(a, 1), Q),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_are_those_of_numpy(name):
    f, x = FUNCTIONS[name]
    for dtype, tolerance in ((np.complex128, 1e-9), (np.complex64, 2e-3)):
        given = x.astype(dtype)
        want = np.asarray(f(given))
        interpreted = gd.trace(f, given).evaluate(given)
        for found in (interpreted, gd.compile(f)(given) if dtype is np.complex128 else interpreted):
            assert found.dtype == want.dtype
            assert np.allclose(found, want, rtol=tolerance, atol=tolerance * np.abs(want).max())


def derivative(f, x, direction, size=1e-6):
    return (np.asarray(f(x + size * direction)) - np.asarray(f(x - size * direction))) / (2 * size)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_are_slopes(name):
    """Re(gradient * direction) is the change of the result, and of the gradient itself."""
    f, x = FUNCTIONS[name]
    weights = random(*np.shape(f(x)))

    def total(x):
        return np.sum(np.real(f(x) * weights))

    gradient = gd.trace(gd.grad(total), x).evaluate
    direction = random(*x.shape)
    found = np.sum(np.real(gradient(x) * direction))
    assert found == pytest.approx(derivative(total, x, direction), rel=1e-5, abs=1e-5)

    def along(t):
        return total(x + t * direction)

    second = gd.trace(gd.grad(gd.grad(along)), np.float64(0)).evaluate(0.0)
    slope = gd.trace(gd.grad(along), np.float64(0)).evaluate
    assert second == pytest.approx(derivative(slope, 0.0, 1.0, 1e-5), rel=1e-4, abs=1e-3)


def test_compiled_gradients_stacks_and_batches():
    def f(a):
        values, vectors = np.linalg.eigh(a)
        u, s, vh = np.linalg.svd(a, full_matrices=False)
        q, r = np.linalg.qr(a)
        rest = np.linalg.solve(a, q @ r + np.linalg.cholesky(a)) + (u * s[:, None] ** 2) @ vh
        return np.sum(np.real(spans(vectors, 1) * Q + rest)) + np.sum(values**3)

    gradient = gd.grad(f)
    wanted = gd.trace(gradient, H).evaluate(H)
    assert np.allclose(gd.compile(gradient)(H), wanted)
    each = gd.vmap(gd.vmap(np.linalg.inv), in_axes=2)(np.stack([H, Q], 2))
    assert np.allclose(each, np.linalg.inv(np.stack([H, Q])))
    many = random(40, 3, 3)  # on threads
    assert np.array_equal(gd.compile(np.linalg.svdvals)(many), gd.compile(np.linalg.svdvals)(many))
    assert np.allclose(gd.compile(np.linalg.svdvals)(many), np.linalg.svdvals(many))


def test_in_loops_and_of_no_matrices():
    def power(a):
        step = lambda v, _: (np.linalg.solve(a, v) / np.linalg.norm(v), None)  # noqa: E731
        return gd.scan(step, np.ones(3) + 0j, None, length=5)[0]

    assert np.allclose(gd.compile(power)(H[0]), power(H[0]))
    for f in (np.linalg.inv, np.linalg.det, np.linalg.cholesky, np.linalg.eigvalsh):
        for shape in ((0, 3, 3), (2, 0, 0)):
            empty = np.zeros(shape, np.complex64)
            assert np.array_equal(gd.compile(f)(empty), f(empty))


#: Functions that give a matrix back by all that they compute.
THERE_AND_BACK = (
    lambda a: np.linalg.inv(np.linalg.inv(a)),
    lambda a: (lambda lower: lower @ adjoint(lower))(np.linalg.cholesky(a)),
    lambda a: (lambda q, r: q @ r)(*np.linalg.qr(a)),
    lambda a: (lambda w, v: (v * w[:, None, :]) @ adjoint(v))(*np.linalg.eigh(a)),
    lambda a: (lambda u, s, vh: (u * s[:, None, :]) @ vh)(*np.linalg.svd(a)),
    lambda a: gd.linalg.expm(a / 4) @ gd.linalg.expm(a / -4) @ a,
    lambda a: (lambda w, v: (v * w[:, None, :]) @ np.linalg.inv(v))(*np.linalg.eig(a)),
)


def test_kernels_run_as_python():
    """In single precision: the routines and the sizes of their memory are others."""
    given = H.astype(np.complex64)
    pairs = given.view(np.float32).reshape(*H.shape, 2)
    for f in THERE_AND_BACK:
        (whole,) = run_in_python(gd.trace(f, given), [pairs])
        assert np.allclose(whole[..., 0] + 1j * whole[..., 1], given, rtol=1e-3, atol=1e-3)


def test_errors():
    with pytest.raises(GraphLinAlgError, match="Matrix is not positive definite"):
        gd.compile(np.linalg.cholesky)(-H)
    with pytest.raises(GraphLinAlgError, match="Singular matrix"):
        gd.compile(np.linalg.inv)(np.zeros((2, 2), complex))
    with pytest.raises(DtypeError, match="takes no complex numbers"):
        gd.trace(gd.linalg.sqrtm, Q)
    with pytest.raises(GraphLinAlgError, match="Eigenvalues did not converge"):
        gd.compile(np.linalg.eigvals)(Q * np.nan)
