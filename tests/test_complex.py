"""Complex numbers: NumPy's values and dtypes, gradients as JAX has them, and how they are split."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest

import graphdl as gd
from graphdl.compiler.complex_rules import RULES
from graphdl.compiler.pipeline import optimise
from graphdl.errors import DtypeError, GradientError, UnsupportedError
from graphdl.ops.complex_numbers import TAKE_COMPLEX
from graphdl.ops.paired import PAIRED
from graphdl.ops.table import OPS
from tests.helpers import same

RNG = np.random.default_rng(5)


def normal(*shape: int, dtype: Any = np.complex128) -> Any:
    return np.asarray(RNG.normal(size=shape) + 1j * RNG.normal(size=shape)).astype(dtype)


Z, W, V, S = normal(3, 4), normal(3, 4), normal(4, 2), normal()
X = RNG.normal(size=(3, 4))

ELEMENTARY = (
    "exp exp2 expm1 log log2 log10 sin cos tan arcsin arccos arctan sinh cosh tanh arcsinh arccosh "
    "arctanh sqrt square reciprocal absolute conjugate sign rint negative positive isnan isinf "
    "isfinite logical_not real imag angle isreal iscomplex nan_to_num"
)

CALLS = """
z + w  z - x  z * w  z / w  z / x  x / z  z * 2  2j - z  z + 1.5  z @ v  x @ v  v.T @ z.T  -z
z ** 2  z ** -1  z ** 0.5  z ** 3  z ** -5  z ** w  z ** x  x ** z  z == w  z != z  abs(z)
z < w  z <= z  z > w  z >= w  z.real  z.imag  z.conj()  z.T.conj()  np.sum(z)  np.sum(z, 0)
np.mean(z, 1)  np.var(z)  np.std(z, 0)  np.prod(z)  np.prod(z, 1)  np.cumsum(z, 1)
z[::-1, 1:3]  z[[0, 2]]  z[:, None] * w  np.where(x > 0, z, w)  np.where(z, 1, 0)  np.any(z)
np.concatenate([z, x])  np.stack([z, w], 2)  np.pad(z, 1)  z.reshape(2, 6)  np.vdot(z, w)
np.vdot(x, z)  np.inner(z, w)  np.outer(z, w)  np.dot(z, v)  np.roll(z, 1, 1)
np.einsum("ij,ij->i", z, w)  np.tensordot(z, w, 2)  np.linalg.norm(z)
np.linalg.norm(z, axis=1)  np.kron(z, v)  np.trace(z[:3, :3])  np.diff(z)
z.astype("complex64")  x.astype(complex)  z.astype(bool)  np.round(z, 2)
np.isclose(z, z + 1e-12)  np.full_like(z, 2j)  np.zeros_like(z)  np.angle(z, True)
np.logical_and(z, x)  np.iscomplexobj(z) * x  np.isrealobj(z) * x  np.broadcast_to(s, (2, 3))
s + z  s * 1j  np.ones(3) * s  np.exp(1j * x)  np.multiply.outer(z, s)  np.add.reduce(z)
np.vecdot(z, w)  np.vecdot(x, z)  np.vecmat(z, v)  np.matvec(z.T, w[:, 0])  np.vecdot(z, x)
np.linalg.vecdot(z, w)  np.correlate(z[0], w[0, :2], "full")  np.correlate(x[0, :2], z[0], "same")
np.correlate(z[0], x[0], "full")  np.convolve(z[0], w[0], "same")  np.cov(z)  np.cov(z, w)
np.corrcoef(z)  np.corrcoef(z.T, w.T, rowvar=False)  np.cumprod(z)  np.cumprod(w, 1)
np.vander(z[0])  np.nancumprod(z, 0)  np.median(z, 0)  np.median(w)  np.nanmedian(z, 1)
np.float_power(z, w)  np.poly(z[0])  np.poly(z[:, :3])  np.polyfit(x[0], w[0], 2)
np.polyval(z[0], w)  np.poly(x[:, :3])  np.polyval(x[0], z)
np.cov(z, fweights=[1, 2, 0, 1])  np.sort_complex(x)  np.ptp(z, 1)
np.lexsort((x, z))
np.array_equal(z, w)  np.abs(s)  np.zeros((0, 2)) * s  np.sum(z[:0], 0)  np.prod(z[:0], 0)
z @ np.zeros((4, 0))  np.log1p(z)  (z * 0) ** 0  (z * 0) ** 2  np.power(z, 3)
z * np.float32(2)
"""
PARTS = {"complex64": "float32", "complex128": "float64"}
TEXTS = [text for line in CALLS.strip().splitlines() for text in line.split("  ")]


def everything(z: Any, w: Any, v: Any, s: Any, x: Any) -> dict[str, Any]:
    names = {"z": z, "w": w, "v": v, "s": s, "x": x, "np": np}
    return {text: eval(text, names) for text in TEXTS}


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_calls_are_what_numpy_computes(dtype):
    args = [value.astype(dtype) for value in (Z, W, V, S)] + [X.astype(PARTS[dtype])]
    with np.errstate(all="ignore"):
        want = everything(*args)
    graph = gd.trace(everything, *args)
    interpreted, compiled = graph.evaluate(*args), gd.compile(everything)(*args)
    for text in TEXTS:
        for got in (interpreted[text], compiled[text]):
            try:
                same(got, want[text], exact=False)
            except AssertionError as error:
                raise AssertionError(f"{text}: {error}") from None


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_elementary_functions(dtype):
    """To a few ulp of the size of the result, in all quadrants and sizes."""
    base = normal(40, dtype=dtype)
    z = np.concatenate([base, base * 1e-3, base * 5, base * 30, base.real + 0j, 1j * base.imag])
    z = z.astype(dtype)

    def f(z):
        return {name: getattr(np, name)(z) for name in ELEMENTARY.split()}

    with np.errstate(all="ignore"):
        want = f(z)
    compiled = gd.compile(f)(z)
    for name, got in compiled.items():
        assert got.dtype == want[name].dtype, name
        size = np.maximum(np.abs(want[name].astype(complex)), np.finfo(dtype).tiny)
        error = np.abs(got.astype(complex) - want[name]) / size / np.finfo(dtype).eps
        assert error.max() < 24, f"{name}({z[np.argmax(error)]}): {error.max()} ulp"


def test_log1p_near_zero():
    """NumPy's takes the logarithm of 1 + z there."""
    z = normal(20) * np.geomspace(1e-12, 0.4, 20)
    with mpmath.workdps(40):
        want = np.array([complex(mpmath.log(1 + mpmath.mpc(value))) for value in z])
    np.testing.assert_allclose(gd.compile(np.log1p)(z), want, rtol=1e-14)
    unit = np.exp(1j * np.linspace(0.1, 3, 9)) * (1 + 1e-9)
    with mpmath.workdps(40):
        want = np.array([complex(mpmath.log(mpmath.mpc(value))) for value in unit])
    np.testing.assert_allclose(gd.compile(np.log)(unit).real, want.real, rtol=1e-6)


def test_special_values():
    z = np.array([0, -1, 1j, -1j, complex(np.inf, 0), complex(0, np.inf), complex(np.nan, 1),
                  complex(-0.0, -0.0), 1e300, 1e-300j, complex(-np.inf, 1)])  # fmt: skip
    with np.errstate(all="ignore"):
        for f in (
            np.sqrt,
            np.abs,
            np.exp,
            np.isnan,
            np.isinf,
            np.isfinite,
            lambda z: z * 2.0,
        ):
            got = gd.compile(f)(z)
            finite = np.isfinite(f(z))
            np.testing.assert_allclose(got[finite], f(z)[finite], rtol=1e-14, atol=1e-300)
            assert (np.isfinite(got) == finite).all() or f is np.exp
        np.testing.assert_allclose(gd.compile(np.log)(z[1:4]), np.log(z[1:4]), rtol=1e-15)
        by_zero = gd.compile(lambda z: z / 0j)(np.array([1.0 + 1j, 0]))
    assert not np.isfinite(by_zero).any()
    assert gd.compile(lambda x: np.sqrt(x + 0j))(np.array([-4.0]))[0] == 2j


GRADIENTS: dict[str, Any] = {
    "arithmetic": lambda z, w, x: (z * w + x) / (w - 2j) - z * x,
    "powers": lambda z, w, x: z**2 + z**3 + w**-1 + z**w + (x * x + 1) ** w,
    "roots": lambda z, w, x: np.sqrt(z) + np.abs(z) + np.log(w) + np.sign(w),
    "exponentials": lambda z, w, x: np.exp(z) * np.expm1(w) + np.exp2(z) + np.log1p(z) + np.log2(w),
    "trigonometry": lambda z, w, x: np.sin(z) + np.cos(w) * np.tan(z) + np.arctan(w) + np.log10(z),
    "inverse": lambda z, w, x: np.arcsin(z) + np.arccos(w) + np.arctanh(z) + np.arccosh(w),
    "hyperbolic": lambda z, w, x: np.sinh(z) * np.cosh(w) + np.tanh(z) + np.arcsinh(w),
    "parts": lambda z, w, x: z.real * w.imag + np.angle(z) * x + (z.conj() * w).real,
    "casts": lambda z, w, x: x.astype(complex) * z + z.real.astype(complex),
    "sums": lambda z, w, x: np.mean(z * w, 0) + np.prod(z, 0) + np.cumsum(w, 1)[1] + np.var(z),
    "products": lambda z, w, x: z @ w.T.conj() + x @ z.T + np.vdot(z, w),
    "movement": lambda z, w, x: np.concatenate([z[::-1], w[[0, 0, 2]]], 1)[:, 1:6].T * 2j,
    "choice": lambda z, w, x: np.where(x > 0, z, w) + np.where(np.abs(z) > 1, z, 0),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_slopes(name):
    gd.check_grads(GRADIENTS[name], Z, W, X)


def test_the_convention_is_that_of_jax():
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    jnp = jax.numpy

    def f(np, z, w, x):
        y = np.exp(z * w) @ np.conj(z.T) + np.sum(x * np.abs(w) ** 2)
        return np.sum(np.real(y) * np.imag(y)) + np.real(np.vdot(z, np.sin(w) ** 2 / z))

    args = Z * 0.3, W * 0.3, X
    ours = gd.grad(lambda *args: f(np, *args), (0, 1, 2))(*args)
    theirs = jax.grad(lambda *args: f(jnp, *args), (0, 1, 2))(*args)
    for got, want in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10)

    def g(np, z, x):
        return np.exp(z) * x + np.conj(z) * 2j, np.abs(z), np.imag(z) * z

    seeds = (W, X, V.reshape(2, 4)[:1] * np.ones((3, 1)))
    ours = gd.vjp(lambda z, x: g(np, z, x), Z, X)[1](seeds)
    theirs = jax.vjp(lambda z, x: g(jnp, z, x), Z, X)[1](seeds)
    for got, want in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)
    ours = gd.jvp(lambda z, x: g(np, z, x), (Z, X), (W, X))[1]
    theirs = jax.jvp(lambda z, x: g(jnp, z, x), (Z, X), (W, X))[1]
    for got, want in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)


def test_descent_goes_against_the_conjugate():
    target = normal(4)
    z = np.zeros(4, complex)
    slope = gd.grad(lambda z: np.sum(np.abs(z - target) ** 2))
    for _ in range(60):
        z = z - 0.2 * np.conj(slope(z))
    np.testing.assert_allclose(z, target, atol=1e-10)


def test_transformations():
    one = gd.vmap(lambda z, w: np.vdot(z, w) + np.exp(z)[0])(Z, W)
    want = [np.vdot(z, w) + np.exp(z)[0] for z, w in zip(Z, W, strict=True)]
    np.testing.assert_allclose(one, want)
    each = gd.vmap(gd.grad(lambda z: np.sum(np.abs(z) ** 3)))(Z)
    np.testing.assert_allclose(each, 3 * np.abs(Z) * np.conj(Z))
    jacobian = gd.jacobian(lambda z: z**2 + z[0])(Z[0])
    np.testing.assert_allclose(jacobian, np.diag(2 * Z[0]) + np.eye(4)[:1])
    for mode in ("forward", "reverse"):
        np.testing.assert_allclose(
            gd.jacobian(lambda z: np.exp(z), mode=mode)(Z[0]), np.diag(np.exp(Z[0]))
        )
    product = gd.hvp(lambda x: np.sum(np.abs(np.exp(1j * x) + x) ** 2))(X, X)
    slope = gd.grad(lambda x: np.sum(np.abs(np.exp(1j * x) + x) ** 2))
    h = 1e-6
    np.testing.assert_allclose(product, (slope(X + h * X) - slope(X - h * X)) / (2 * h), rtol=1e-6)


def test_loops_and_branches():
    """Carries, stacked values and results that are complex; and the gradients through them."""

    def step(z, row):
        z = z * row + 1j
        return z, (np.abs(z), z)

    def f(z, rows):
        last, (sizes, all_of_them) = gd.scan(step, z, rows)
        chosen = gd.cond(np.sum(sizes) > 1, lambda a: a * 2j, lambda a: a, last)
        return np.sum(np.abs(chosen) ** 2) + np.sum(sizes) + np.sum(all_of_them.real)

    def plain(z, rows):
        total = 0.0
        for row in rows:
            z = z * row + 1j
            total = total + np.sum(np.abs(z)) + np.sum(z.real)
        return total + np.sum(np.abs(z * 2j) ** 2)

    np.testing.assert_allclose(gd.compile(f)(W[0], Z), plain(W[0], Z))
    got = gd.grad(f, (0, 1))(W[0], Z)
    want = gd.grad(plain, (0, 1))(W[0], Z)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b)
    power = gd.compile(lambda z: gd.while_loop(lambda z: np.abs(z) < 10, lambda z: z * (1 + 1j), z))
    assert abs(power(1 + 0j)) >= 10
    assert gd.compile(lambda z: gd.fori_loop(0, 5, lambda i, z: z * 1j, z))(1.0 + 0j) == 1j


def test_parts_are_views():
    """Code that writes into z.real, z.imag, slices of them and z itself."""

    def f(z, x):
        z = z.copy()
        z.real[1] = x[1]
        z.imag = z.imag * 2
        part = z.T.imag[1:]
        part[:, ::2] += 1.0
        z.real.reshape(-1)[3] = 7
        z[0, 1:3] *= 1j
        z[[0, 2], [1, 1]] = x[0, 0]
        np.add.at(z, [0, 0], 1j)
        return z

    want = f(Z, X)
    np.testing.assert_allclose(gd.trace(f, Z, X).evaluate(Z, X), want)
    np.testing.assert_allclose(gd.compile(f)(Z, X), want)
    gd.check_grads(f, Z, X)
    with pytest.raises(DtypeError, match="no imaginary part to set"):
        gd.trace(lambda x: setattr(x, "imag", 1.0), X)


def test_arguments_and_results():
    f = gd.compile(lambda z, c: (z, z.real, z * c, {"c": c}))
    big = normal(6, 8)
    for z in (big, big[::2, ::-1], big.T, big.astype(">c16"), np.asfortranarray(big), big[0, 0]):
        same_z, real, product, rest = f(z, 2 - 1j)
        np.testing.assert_array_equal(same_z, z)
        assert same_z.dtype == np.complex128
        np.testing.assert_array_equal(real, z.real)
        np.testing.assert_allclose(product, z * (2 - 1j))
        assert rest["c"] == 2 - 1j
    assert f(big.astype("c8"), 2 - 1j)[2].dtype == np.complex64
    double = gd.compile(lambda z: z * 2, donate=0)
    mine = big.copy()
    np.testing.assert_array_equal(double(mine), big * 2)
    executable = f.lower(gd.spec((2, 3), "complex64"), 1j)
    assert "complex64[2, 3]" in repr(executable)
    assert not any(node.type.is_complex for node in executable.optimized.nodes)


def test_what_takes_complex_numbers_can_be_split():
    assert TAKE_COMPLEX - {"iota", "extent", "constant"} <= OPS.keys() | {"item"}
    linear = {
        "sum", "cumsum", "reshape", "transpose", "broadcast", "slice", "pad", "concatenate",
        "gather", "scatter_add", "update", "after", "select", "rint",
    }  # fmt: skip
    gone_before = {"variable", "stop_gradient", "constant", "iota", "extent", "item"}
    assert RULES.keys() | linear | gone_before | set(PAIRED) == TAKE_COMPLEX
    assert not RULES.keys() & linear


def test_real_numbers_cost_half():
    """A product with a number that was cast from a real one is two products, not four."""
    graph = gd.trace(lambda z, x: z @ x, gd.spec((8, 9), complex), gd.spec((9, 7)))
    names = [node.op.name for node in optimise(graph)[-1][1].operations]
    assert names.count("contract") == 2


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_complex_numbers_are_sorted_as_numpy_orders_them(dtype):
    whole = RNG.integers(-2, 3, (2, 6, 40))  # many equal parts
    z = (whole[0] + 1j * whole[1]).astype(dtype)
    z[0, :9] = [complex(re, im) for re, im in (
        (np.nan, 1), (1, np.nan), (np.nan, np.nan), (0, np.nan), (np.nan, -1), (1, 0), (0, 2),
        (np.inf, np.nan), (-np.inf, 0),
    )]  # fmt: skip
    for axis in (-1, 0, None):
        compiled = gd.compile(lambda z, a=axis: (np.sort(z, axis=a), np.argsort(z, axis=a)))(z)
        expected = np.sort(z, axis=axis), np.argsort(z, axis=axis, kind="stable")
        for got, want in zip(compiled, expected, strict=True):
            assert got.dtype == want.dtype
            np.testing.assert_array_equal(got, want)
    gd.check_grads(lambda z: np.sum(np.abs(np.sort(z) * np.arange(4) * (1 + 2j)) ** 2), Z)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("special", [False, True])
def test_the_largest_and_the_smallest_are_those_of_numpy(dtype, special):
    """By the real parts, at ties by the others; the first NaN before all numbers."""
    whole = RNG.integers(-2, 3, (2, 5, 4, 6))  # many equal parts
    z = (whole[0] + 1j * whole[1]).astype(dtype)
    if special:
        z[0, :, 3], z[1, 2], z[2, 0, 5] = complex(np.nan, 1), complex(0, np.nan), np.nan
        z[2, 0, 1], z[3], z[4, 1] = complex(-1, np.nan), complex(-np.inf, 1), np.inf
        z[4, 2, 0] = complex(np.inf, np.nan)
    w = z[::-1, :, ::-1].copy()

    def f(z, w):
        found = [choose(z, w) for choose in (np.maximum, np.minimum, np.fmax, np.fmin)]
        for axis in (None, 0, 1, 2):
            found += [np.max(z, axis), np.min(z, axis), np.argmax(z, axis), np.argmin(z, axis)]
        return [*found, np.max(z, (0, 2)), np.min(z, (1, 2), keepdims=True), np.clip(z, -1, 1 + 1j)]

    for got, want in zip(gd.compile(f)(z, w), f(z, w), strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(np.real(got), np.real(want))
        np.testing.assert_array_equal(np.imag(got), np.imag(want))


def test_gradients_of_the_largest():
    def f(z, w, x):
        return np.max(z * w, 1) + np.min(z, 1) * np.maximum(z, x)[:, 0] + np.ptp(w) * z[:, 1]

    gd.check_grads(f, Z, W, X)
    gd.check_grads(lambda z, w: np.fmax(z, w) * np.fmin(z, 1j) + np.minimum(w, z), Z, W)
    share = gd.grad(lambda z: np.real(np.max(z) * (1 - 2j)))(np.array([1 + 1j, 0, 1 + 1j, 1 - 1j]))
    np.testing.assert_array_equal(share, [0.5 - 1j, 0, 0.5 - 1j, 0])  # equal ones share


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "int32", "float32", "complex64"])
def test_sort_complex_has_the_dtype_of_numpys(dtype):
    x = (RNG.normal(size=(3, 5)) * 4).astype(dtype)
    got = gd.compile(np.sort_complex)(x)
    assert got.dtype == np.sort_complex(x).dtype
    np.testing.assert_array_equal(got, np.sort_complex(x))
    gd.check_grads(np.sort_complex, X)


def test_errors():
    with pytest.raises(DtypeError, match=r"cummax of \(complex128\[3, 4\]\) takes no complex "
                                         r"numbers; use np\.real(.|\n)*test_complex"):  # fmt: skip
        gd.trace(np.maximum.accumulate, Z)
    with pytest.raises(DtypeError, match=r"histogram: bins are of real numbers; count np\.abs"):
        gd.trace(np.histogram, Z)
    with pytest.raises(DtypeError, match="floor"):
        gd.trace(np.floor, Z)
    with pytest.raises(
        GradientError, match=r"needs a real number.*returned complex128\[\](.|\n)*np\.abs"
    ):
        gd.grad(np.sum)(Z)
    with pytest.raises(UnsupportedError, match=r"real_if_close.*write np\.real"):
        gd.trace(np.real_if_close, Z)
    with pytest.raises(DtypeError, match="complex: takes two parts"):
        OPS["complex"].infer(gd.spec(3), gd.spec(3, "float32"))
    with pytest.raises(TypeError, match=r"complex256|clongdouble"):
        gd.trace(np.exp, np.ones(2, np.clongdouble))


def test_python_complex_numbers_are_weak():
    f = gd.compile(lambda z, c: z * c)
    assert f(np.ones(2, np.complex64), 2j).dtype == np.complex64
    assert f(np.ones(2, np.float32), 2j).dtype == np.complex64
    assert f(np.ones(2), 2j).dtype == np.complex128
    assert f(2, 2j) == 4j
    assert math.isclose(float(gd.grad(lambda c: np.abs(c) ** 2)(3 + 4j).real), 6.0)
