"""np.fft: NumPy's values at any length, axes and norms, and gradients to second order."""

from __future__ import annotations

import numpy as np
import pytest

import graphdl as gd
from graphdl.errors import ArgumentError, AxisError, ShapeError
from graphdl.kernels.cpu import pool
from tests.helpers import same

RNG = np.random.default_rng(8)
X = RNG.normal(size=(3, 4, 6))
Z = X + 1j * RNG.normal(size=(3, 4, 6))

CALLS = """
fft(z); fft(x); fft(z, 9, 1); fft(z, 3); fft(x, axis=0, norm="ortho"); fft(z, norm="forward")
ifft(z); ifft(x, 5, -2); ifft(z, norm="ortho"); ifft(z, norm="forward"); ifft(z, norm="backward")
rfft(x); rfft(x, 5); rfft(x, 8, 1); rfft(x, axis=0, norm="ortho"); rfft(x, norm="forward")
irfft(z); irfft(z, 7); irfft(z, 12, 0); irfft(z, axis=1, norm="ortho"); irfft(x); irfft(z, 1)
hfft(z); hfft(z, 9, 1); hfft(z, norm="ortho"); ihfft(x); ihfft(x, 5, 0); ihfft(x, norm="forward")
fft2(z); fft2(x, (5, 4)); ifft2(z, axes=(0, 2)); rfft2(x); irfft2(z); irfft2(z, (4, 9))
fftn(z); fftn(x, axes=(0, 1)); fftn(z, (2, 5), (2, 0)); ifftn(z, norm="ortho")
ifftn(x, (4, 3), (0, 1)); rfftn(x); rfftn(x, (4, 5), (1, 2)); rfftn(x, norm="forward"); irfftn(z)
irfftn(z, (3, 4, 7), (0, 1, 2))
irfftn(z, axes=(0, 1), norm="ortho"); fftshift(x); fftshift(z, 1); ifftshift(x, (0, 2))
ifftshift(fftshift(x)); fftshift(x, [1])
"""
TEXTS = [text.strip() for line in CALLS.strip().splitlines() for text in line.split(";")]


@pytest.mark.parametrize("single", [False, True])
def test_calls_are_what_numpy_computes(single):
    x, z = (X.astype("f4"), Z.astype("c8")) if single else (X, Z)

    names = {"x": x, "z": z, **{name: getattr(np.fft, name) for name in np.fft.__all__}}

    def everything(x, z):
        return {text: eval(text, names | {"x": x, "z": z}) for text in TEXTS}

    graph = gd.trace(everything, x, z)
    interpreted, compiled = graph.evaluate(x, z), gd.compile(everything)(x, z)
    for text, want in everything(x, z).items():
        for got in (interpreted[text], compiled[text]):
            try:
                same(got, want, exact=False)
            except AssertionError as error:
                raise AssertionError(f"{text}: {error}") from None


@pytest.mark.parametrize("n", [1, 2, 64, 67, 96, 128, 210, 331, 1000, 1024, 2 * 67])
def test_lengths(n):
    """Small ones, powers, products of small primes, primes: to rounding."""
    z = RNG.normal(size=(2, n)) + 1j * RNG.normal(size=(2, n))
    forward, back = np.fft.fft(z), np.fft.ifft(z)
    graph = gd.trace(lambda z: (np.fft.fft(z), np.fft.ifft(z)), z)
    got = graph.evaluate(z)
    scale = np.abs(forward).max()
    assert np.abs(got[0] - forward).max() < 2e-15 * scale * (1 + np.log2(n))
    assert np.abs(got[1] - back).max() < 2e-15 * scale / n * (1 + np.log2(n))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_real_lengths(dtype):
    """One step, and several that halve; a of both parities, as 2, 5 and 16; along each axis."""
    lengths = [1, 2, 3, 64, 65, 67, 96, 134, 150, 201, 256, 1001, 1040]
    arrays = [RNG.normal(size=(2, n, 3)).astype(dtype) for n in lengths]

    def spectra(x):
        return (
            np.fft.rfft(x, axis=1),
            np.fft.rfft(np.swapaxes(x, 1, 2), norm="ortho"),
            np.fft.fft(x[0], axis=0),
        )

    got = [
        gd.compile(spectra)(x) if x.shape[1] in (134, 150) else gd.trace(spectra, x).evaluate(x)
        for x in arrays
    ]
    want = [spectra(x) for x in arrays]
    for x, found, right in zip(arrays, got, want, strict=True):
        for f, r in zip(found, right, strict=True):
            assert f.shape == r.shape
            assert f.dtype == r.dtype
            error = 4 * np.finfo(dtype).eps * (1 + np.log2(x.shape[1]))
            assert np.abs(f - r).max() <= error * np.abs(r).max(), x.shape


@pytest.mark.parametrize("function", [np.fft.fft, np.fft.rfft, np.fft.irfft])
@pytest.mark.parametrize(("shape", "axis"), [((0, 150), 1), ((150, 0), 0)])
def test_empty_batches(function, shape, axis):
    x = np.zeros(shape)
    got, want = gd.compile(lambda x: function(x, axis=axis))(x), function(x, axis=axis)
    assert got.shape == want.shape
    assert got.dtype == want.dtype


def test_threads_change_no_bit():
    x = RNG.normal(size=(96, 1500)).astype("f4")

    def everything(x):
        return np.fft.rfft(x), np.fft.fft2(x), np.fft.rfft(x.reshape(-1))

    compiled, before = gd.compile(everything), pool.num_threads()
    try:
        gd.set_num_threads(1)
        one = compiled(x)
        gd.set_num_threads(2)
        two = compiled(x)
    finally:
        gd.set_num_threads(before)
    for a, b in zip(one, two, strict=True):
        assert a.tobytes() == b.tobytes()


def test_compiled_lengths():
    x = RNG.normal(size=(5, 240))
    f = gd.compile(lambda x: np.fft.irfft(np.fft.rfft(x) * np.exp(-np.fft.rfftfreq(240))))
    np.testing.assert_allclose(
        f(x), np.fft.irfft(np.fft.rfft(x) * np.exp(-np.fft.rfftfreq(240))), atol=1e-13
    )


def test_gradients_are_slopes():
    gd.check_grads(lambda x: np.abs(np.fft.rfft(x)) ** 2, X[0])
    gd.check_grads(lambda z: np.fft.ifft2(np.fft.fft2(z) ** 2), Z[0])
    gd.check_grads(lambda z: np.fft.irfftn(z) * np.fft.hfft(z[0])[:4], Z[:, :3, :3])
    gd.check_grads(lambda x: np.abs(np.fft.rfft(x, 70)) ** 2, X[0, :2])
    gd.check_grads(lambda x: np.fft.fftshift(np.fft.fft(x, 70, norm="ortho")).real ** 2, X[0])


def test_gradients_are_those_of_jax():
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)

    def f(np, x, z):
        spectrum = np.fft.rfft(x) * np.fft.fft(z)[..., :4]
        return np.sum(np.fft.irfft(spectrum, 7) ** 2) + np.sum(np.abs(np.fft.ifftn(z * x)) ** 3)

    ours = gd.grad(lambda x, z: f(np, x, z), (0, 1))(X, Z)
    theirs = jax.grad(lambda x, z: f(jax.numpy, x, z), (0, 1))(X, Z)
    for got, want in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


def test_batches():
    got = gd.vmap(lambda x: np.fft.rfft2(x))(X)
    np.testing.assert_allclose(got, np.fft.rfft2(X), atol=1e-13)


def test_errors():
    with pytest.raises(ShapeError, match=r"np\.fft\.fft: invalid number of points \(0\)"):
        gd.trace(lambda x: np.fft.fft(x, 0), X)
    with pytest.raises(ArgumentError, match=r"np\.fft\.rfft: norm='loud' is none of"):
        gd.trace(lambda x: np.fft.rfft(x, norm="loud"), X)
    with pytest.raises(AxisError, match="at least one axis"):
        gd.trace(np.fft.fft, 1.0)
    with pytest.raises(ShapeError, match="differ in length"):
        gd.trace(lambda x: np.fft.fftn(x, (2, 2), (0,)), X)
