"""scipy.special: values against SciPy and mpmath, derivatives, and the calls by pointer."""

from __future__ import annotations

import math
import subprocess
import sys
import types
from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.special as sc
from scalar_kernels import Loop, loop
from ulps import errors, exactly

import graphdl as gd
from graphdl import special
from graphdl.errors import ArgumentError, GradientError, ShapeError, UnsupportedError
from graphdl.kernels.cpu import external
from graphdl.kernels.special_functions import PREFIX, bernoulli_terms
from graphdl.numpy_functions.special import scipy_functions
from graphdl.tracing import SPECIAL_HANDLERS
from tests.helpers import check, same
from tests.test_cache import environment

RNG = np.random.default_rng(3)
P, Q, U = RNG.uniform(0.3, 4, (3, 4)), RNG.uniform(0.3, 4, (3, 4)), RNG.uniform(0.1, 0.9, (3, 4))
X = RNG.normal(size=(3, 4))

#: Calls of SciPy's ufuncs, beyond those that the op table tests.
UFUNCS = """
sc.kl_div(p, q)       sc.kl_div(x, q)       sc.boxcox(p, x)       sc.boxcox(p, 0)
sc.boxcox1p(p, x)     sc.inv_boxcox(u, x)   sc.inv_boxcox(x, 0)   sc.inv_boxcox1p(u, 0.5)
sc.huber(1.0, x)      sc.huber(p, x)        sc.pseudo_huber(p, x)  sc.pseudo_huber(0.0, x)
sc.exprel(x)          sc.exp10(x)           sc.cosm1(x)           sc.loggamma(p)
sc.chdtr(p, q)        sc.chdtrc(p, q)       sc.gdtr(p, q, u)      sc.gdtrc(p, q, u)
sc.pdtr(2, p)         sc.pdtrc(2, p)        sc.digamma(p)         sc.jn(2, p)
sc.gammaln(i)         sc.gammainc(2, p)     sc.betainc(p, 2, u)   sc.expn(2, p)
sc.jv(1.5, p)         sc.binom(7, p)        sc.beta(p[0], q)      sc.ndtri(u[:, :1])
np.i0(x)              np.sinc(x)            np.sinc(x * 1e-3)     sc.poch(p, 1)
sc.gamma(x)           sc.gammaln(x)         sc.rgamma(x)          sc.gammasgn(x)
"""

CALLS = [
    call.strip()
    for line in UFUNCS.strip().splitlines()
    for call in line.split("  ")
    if call.strip()
]


def values(dtype: str) -> dict[str, Any]:
    given = {"p": P, "q": Q, "u": U, "x": X}
    return {name: value.astype(dtype) for name, value in given.items()} | {"i": np.arange(1, 7)}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ufuncs_are_what_scipy_computes(dtype):
    given = values(dtype)
    names = list(given)
    for text in CALLS:
        f = eval(f"lambda {', '.join(names)}: {text}", {"sc": sc, "np": np})
        try:
            check(f, [given[name] for name in names], exact=False)
        except AssertionError as error:
            raise AssertionError(f"{text}: {error}") from None


FUNCTIONS = {
    "logsumexp": lambda m, x, p: m.logsumexp(x),
    "logsumexp axis": lambda m, x, p: m.logsumexp(x * 500, axis=1, keepdims=True),
    "logsumexp weights": lambda m, x, p: m.logsumexp(x, axis=(0, 1), b=p),
    "logsumexp zero weights": lambda m, x, p: m.logsumexp(x * 900, axis=0, b=np.where(x > 0, 0, p)),
    "logsumexp sign": lambda m, x, p: m.logsumexp(x, b=-p, axis=0, return_sign=True),
    "logsumexp sign alone": lambda m, x, p: m.logsumexp(x, axis=1, return_sign=True),
    "softmax": lambda m, x, p: (m.softmax(x), m.softmax(x, axis=0)),
    "log_softmax": lambda m, x, p: (m.log_softmax(x), m.log_softmax(x, axis=(0, 1))),
    "polygamma": lambda m, x, p: [m.polygamma(n, p) for n in (0, 1, 2, 5)],
    "polygamma orders": lambda m, x, p: m.polygamma(np.arange(4), p),
    "multigammaln": lambda m, x, p: m.multigammaln(p + 1, 3),
    "factorial": lambda m, x, p: m.factorial(x * 3),
    "zeta": lambda m, x, p: (m.zeta(p + 1.5, p), m.zeta(2 + 0 * p, p), m.zeta(p + 1.5)),
    "softplus": lambda m, x, p: m.softplus(x * 400),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_python_functions_are_what_scipy_computes(dtype):
    """Compiled, interpreted and on plain arrays, with SciPy's dtypes."""
    x, p = X.astype(dtype), P.astype(dtype)
    scipys = types.SimpleNamespace(
        **{name: getattr(sc, name) for name in special.__all__ if hasattr(sc, name)}
    )
    scipys.softplus = lambda x: np.logaddexp(0, x)

    def everything(module, x, p):
        return {name: f(module, x, p) for name, f in FUNCTIONS.items()}

    want = everything(scipys, x, p)
    assert everything(special, x, p).keys() == want.keys()
    graph = gd.trace(lambda x, p: everything(special, x, p), x, p)
    interpreted = graph.evaluate(x, p)
    compiled = gd.compile(lambda x, p: everything(special, x, p))(x, p)
    for name in FUNCTIONS:
        for got in (interpreted, compiled, everything(special, x, p)):
            if name.startswith(
                ("poly", "multi", "factorial")
            ):  # SciPy widens what it has computed in float32
                np.testing.assert_allclose(got[name], want[name], rtol=8 * np.finfo(dtype).eps)
            else:
                same(got[name], want[name], exact=False)


def test_gradients_of_functions_that_are_composed():
    """To second order, at the points too where the formula as written is 0 / 0."""
    zero = np.zeros(2)
    near = np.array([1e-9, -1e-9])
    for f in (
        np.sinc, np.i0, sc.exprel, sc.cosm1, sc.exp10,
        lambda x: sc.boxcox(1.5 + x, x), lambda x: sc.inv_boxcox(0.5 - x, x),
        lambda x: sc.boxcox1p(1.5 + x, x), lambda x: sc.inv_boxcox1p(0.5 - x, x),
        lambda x: sc.pseudo_huber(0.7 + x, x), lambda x: sc.i1(x) + sc.j1(x) + sc.spence(1 + x),
        lambda x: special.polygamma(1, 2 + x) * special.multigammaln(3 + x, 2),
        lambda x: special.logsumexp(np.stack([x, x * x]), axis=0, b=np.array([[1.0], [-0.3]])),
        lambda x: special.zeta(2, 1 + x) + special.softplus(x) + special.factorial(1 + x),
    ):  # fmt: skip
        for x in (zero, near, np.array([0.3, -0.2])):
            gd.check_grads(f, x)
    gd.check_grads(sc.kl_div, P, Q)
    gd.check_grads(sc.rgamma, np.array([0.7, -0.4]))
    slope = gd.grad(lambda x: np.sum(sc.rgamma(x)))
    np.testing.assert_allclose(slope(np.array([0.0, -1, -2, -3])), [1, -1, 2, -6])


def test_slopes_far_out():
    """log_ndtr's slope is the ratio of density and distribution, both of which underflow."""
    x = np.array([-1e3, -40.0, -5.0, 0.0, 5.0, 40.0])
    slope = gd.grad(lambda x: np.sum(sc.log_ndtr(x)))(x)
    with mpmath.workdps(40):
        want = [float(mpmath.npdf(v) / mpmath.ncdf(v)) for v in x]
    np.testing.assert_allclose(slope, want, rtol=1e-13)


def test_zeta_is_that_of_mpmath():
    s: Any = np.concatenate([RNG.uniform(1.001, 30, 60), [2.0] * 40, [1.0000001, 200.0, 2, 3]])
    wide, below = np.geomspace(1e-8, 1e12, 10), -RNG.uniform(0, 30, 30)
    q = np.concatenate([RNG.uniform(1e-3, 50, 60), below, wide, [1.0, 3.0, 1e300, 1e-100]])
    want = exactly(mpmath.zeta, (s, q), digits=80)
    assert errors(Loop("zeta", "float64", "float64")(s, q), want).max() < 8
    s, q = s[:100].astype("f4"), q[:100].astype("f4")
    want = exactly(mpmath.zeta, (s, q), digits=80)
    assert errors(loop("zeta", "float32", "float32")(s, q), want).max() < 2
    assert bernoulli_terms(3) == pytest.approx([1 / 12, -1 / 720, 1 / 30240])


def test_slopes_of_zeta_are_those_of_mpmath():
    """By both arguments; of Riemann's on both sides of its pole, at 0 and at its zeros too."""
    s, q = np.array([1.01, 1.5, 3.0, 20.0, 60.0]), np.array([0.05, 0.5, 1.0, 4.0, 1e5])
    with mpmath.workdps(40):
        want = [[float(mpmath.zeta(a, b, 1)) for b in q] for a in s]
    got = gd.grad(lambda s: np.sum(sc.zeta(s, q)))(np.repeat(s[:, None], 5, axis=1))
    np.testing.assert_allclose(got, want, rtol=1e-12)
    s = np.array([-30.3, -9.0, -4.0, -0.51, -0.49, 0.0, 0.4, 0.99, 1.1, 2.0, 40.0])
    with mpmath.workdps(40):
        want = [float(mpmath.zeta(a, 1, 1)) for a in s]
    np.testing.assert_allclose(gd.grad(lambda s: np.sum(special.zeta(s)))(s), want, rtol=1e-11)
    gd.check_grads(special.zeta, s[-3:] + 0.2, q[:3])
    gd.check_grads(special.zeta, np.array([-2.5, 0.3, 1.7]))


def test_vectors_call_the_function_for_each_element():
    x = np.array([0.5, 1.5, -2.5, 30.0, np.nan, 0.0, np.inf, 1e-300])
    got = Loop("gammaln", "float64", lanes=8)(x)
    np.testing.assert_array_equal(got, sc.gammaln(x))


def test_under_vmap_jvp_and_threads():
    x = np.abs(RNG.normal(size=(40, 1000))) + 0.1
    f = gd.compile(lambda x: np.sum(sc.gammaln(x), axis=1) + sc.i0(x[:, 0]))
    np.testing.assert_allclose(f(x), np.sum(sc.gammaln(x), axis=1) + sc.i0(x[:, 0]), rtol=1e-13)
    each = gd.vmap(lambda row, n: special.polygamma(n, row[0]) + sc.betaln(row[0], 2.0), (0, None))
    np.testing.assert_allclose(each(x, 1), sc.polygamma(1, x[:, 0]) + sc.betaln(x[:, 0], 2.0))
    value, tangent = gd.jvp(sc.erfinv, (U,), (np.ones_like(U),))
    np.testing.assert_allclose(tangent, math.sqrt(math.pi) / 2 * np.exp(value**2))


def test_what_has_no_derivative_says_so():
    for call in (
        lambda a: sc.gammainc(a, 2.0), lambda a: sc.jv(a, 2.0), lambda a: sc.betainc(2.0, a, 0.5),
    ):  # fmt: skip
        with pytest.raises(GradientError, match=r"no gradient.*no closed form(.|\n)*test_special"):
            gd.grad(call)(1.5)
    assert gd.grad(lambda x: sc.gammainc(2.0, x))(1.0) == pytest.approx(math.exp(-1))


def test_errors_name_the_function_and_the_line():
    with pytest.raises(
        ShapeError, match=r"scipy.special.betaln.*\(3,\) and \(4,\)(.|\n)*test_spec"
    ):
        gd.trace(sc.betaln, np.ones(3), np.ones(4))
    with pytest.raises(UnsupportedError, match=r"scipy\.special\.struve cannot be traced"):
        gd.trace(lambda x: sc.struve(1, x), 1.0)
    with pytest.raises(ArgumentError, match=r"factorial: exact=True(.|\n)*test_special"):
        gd.trace(lambda n: special.factorial(n, exact=True), 3)
    with pytest.raises(ShapeError, match=r"logsumexp: shape \(0,\) is empty"):
        gd.trace(lambda x: special.logsumexp(x, b=x), np.ones(0))
    with pytest.raises(AttributeError, match=r"graphdl\.special has no 'nonsense'"):
        _ = special.nonsense
    with pytest.raises(
        RuntimeError, match=r"does not publish the address of scipy\.special.nonsense"
    ):
        external.address_of("nonsense")


def test_names():
    assert special.gammaln is sc.gammaln
    assert special.digamma is sc.psi
    assert set(special.__all__) <= set(dir(special))
    assert all(isinstance(getattr(special, name), np.ufunc) for name in SPECIAL_HANDLERS)
    found = scipy_functions()
    assert (found[sc.logsumexp], found[sc.polygamma]) == ("logsumexp", "polygamma")


def test_object_code_holds_no_address(tmp_path):
    """A second process compiles nothing, does without Numba, and finds the functions again."""
    program = """
import sys, numpy as np, scipy.special as sc, graphdl as gd
from graphdl.kernels.cpu import native
x = np.linspace(0.5, 3, 9)
f = lambda x: sc.gammaln(x) + sc.expn(2, x)
assert (gd.compile(f)(x) == f(x)).all()
print(native.compile_count(), "numba" in sys.modules)
"""
    command, place = [sys.executable, "-c", program], environment(GRAPHDL_CACHE_DIR=str(tmp_path))
    outputs = [
        subprocess.run(
            command, env=place, capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(2)
    ]
    assert outputs == [["1", "True"], ["0", "False"]]
    found = [external.symbols_in(path.read_bytes()) for path in tmp_path.glob("*.o")]
    assert {PREFIX + "gammaln", PREFIX + "expn"} in map(set, found)
