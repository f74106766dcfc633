"""Gradients: every op to second order against finite differences, the conventions, the checker."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec import structs

import graphdl as gd
from graphdl import transforms
from graphdl.errors import GradientError, GradientMismatch
from graphdl.numpy_functions import (
    gelu,
    log_softmax,
    logsumexp,
    one_hot,
    relu,
    sigmoid,
    silu,
    softmax,
    softplus,
)
from graphdl.ops import pointwise
from graphdl.ops.table import OPS
from graphdl.testing import check_grads
from tests.helpers import call_of, trace
from tests.op_cases import Case, cases

#: They are not the slopes of what they compute, on purpose: of what it stands for (test_linalg.py);
#: of a gamma sample as a quantile, not of the attempt by which it was made (test_random.py); of a
#: number that is rounded to 16 bits (test_halves.py).
DECLARED = {"stop_gradient", "solve", "log_det", "det", "lstsq", "loggamma_sample", "stored"}


def differentiable() -> list[Case]:
    found = []
    for op in OPS.values():
        for case in cases(op) if op.vjp is not None and op.name not in DECLARED else ():
            result = case(*case.operands)
            results = result if isinstance(result, tuple) else (result,)
            if case.floats and any(
                np.asarray(x).dtype in (np.float64, np.complex128) for x in results
            ):
                found.append(case)
    return found


@pytest.mark.parametrize("case", differentiable(), ids=str)
def test_the_gradient_of_an_op_is_its_slope(case):
    fixed = {i: case.operands[i] for i in case.op.undifferentiated}

    def f(*operands):
        rest = iter(operands)
        return case(*(fixed[i] if i in fixed else next(rest) for i in range(len(case.operands))))

    check_grads(f, *(x for i, x in enumerate(case.operands) if i not in fixed))


def test_every_op_with_a_rule_is_checked():
    checked = {case.op.name for case in differentiable()}
    constant = {name for name, op in OPS.items() if op.family == "constant"}
    with_rule = {name for name, op in OPS.items() if op.vjp is not None}
    assert with_rule - checked == DECLARED | constant


RNG = np.random.default_rng(11)
VALUES = {
    "x": RNG.normal(size=(3, 4)),
    "y": RNG.normal(size=(3, 4)),
    "p": RNG.uniform(0.5, 2, (3, 4)),
    "c": RNG.normal(size=(2, 3, 4)),
    "m": RNG.normal(size=(4, 3)),
    "w": RNG.normal(size=(3, 3)),
    "v": RNG.normal(size=4),
    "s": RNG.normal(),
    "o": np.zeros((0, 3)),
    "k": np.array([2, 0, 1]),
    "b": RNG.random((3, 4)) < 0.5,
}

COMPOSED = """
np.var(x, axis=1)                 np.std(x)                        np.mean(c, (0, 2))
np.average(x, 1, v**2)            np.ptp(x, axis=1)                np.var(x, where=b)
np.prod(c, axis=(0, 1))           np.cumprod(x, axis=1)            np.cumsum(c, axis=1)
np.max(x, axis=0)                 np.max(x, initial=0.3, where=b)
np.min(c, (1, 2), keepdims=True)
np.where(b, x, y * x)             np.clip(x, -0.5, 0.7)            np.clip(x, y, y + 1)
x ** 2 / p ** 0.5                 p ** x                           p ** 3 + x ** 3
np.divmod(x, p)[1]                np.modf(x)[0]                    np.frexp(x)[0]
abs(x) * np.sign(y)               np.hypot(x, y)                   np.arctan2(y, x)
np.sinc(x)                        np.sinc(x * 0)                   np.float_power(p, x)
np.maximum(x, y) * np.minimum(x, 0.2)                              np.copysign(p, x)
x @ m                             c @ m                            x @ v
v @ m @ x                         c @ c.mT                         np.matmul(c[:1], c.mT)
np.einsum("ij,jk,kl->il", x, m, x)                                 np.einsum("ii->i", w)
np.einsum("bij,bkj,k->bi", c, c, v[:3])                            np.einsum("...ij,...j", c, v)
np.tensordot(c, c, ([1, 2], [1, 2]))                               np.kron(v, x)
np.trace(w) * np.diag(w)          np.diag(v, 1) @ np.ones(5)       np.linalg.norm(x, axis=1)
np.outer(v, v) @ m                np.cross(w, w[::-1])             np.vdot(x, x)
x.T.reshape(2, 6)[:, ::2]         np.roll(x, (1, 2), (0, 1))       np.pad(x, 2, "reflect")
np.pad(x, ((1, 2), (0, 1)), constant_values=s)                     np.pad(x, 1, "wrap")
np.tile(x, (2, 1, 2))             np.repeat(x, 2, axis=1)          np.repeat(x, [2, 0, 1], 0)
np.concatenate([x, y, x[:1]])     np.stack([x, y], -1)             np.flip(c, (0, 2))
np.rot90(x)                       np.tril(w) @ np.triu(x)          np.diff(x, 2)
np.squeeze(x[:1]) * v             np.moveaxis(c, 0, -1)            np.broadcast_to(v, (2, 3, 4))
x[k]                              x[:, k]                          x[k, k]
x[np.arange(3), k]                np.take_along_axis(x, k[:, None], 1)
np.take(c, k, axis=2)             c[:, k, 1:]                      x[[0, 0, 1]][:, ::-2]
np.sum(one_hot(k, 4) * x)         softmax(x)                       log_softmax(c, axis=1)
logsumexp(x, axis=0)              logsumexp(x)                     np.logaddexp.reduce(x)
softmax(x * 100)                  sigmoid(x)                       silu(x)
gelu(x)                           gelu(x, "tanh")                  softplus(x * 10)
relu(x) ** 2                      np.linspace(s, s * 2, 5)         np.meshgrid(v, v)[0] ** 2
np.sum(o * 2)                     np.sum(o @ m.T)
np.nanmean(np.where(b, x, np.nan))
(x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
"""


def calls() -> list[str]:
    return [c for line in COMPOSED.splitlines() for c in map(str.strip, line.split("   ")) if c]


@pytest.mark.parametrize("text", calls())
def test_the_gradient_of_a_composed_function_is_its_slope(text):
    names = {f.__name__: f for f in NEURAL}
    f, args = call_of(text, VALUES, **names)
    check_grads(f, *args)


NEURAL = (relu, gelu, silu, softplus, sigmoid, softmax, log_softmax, logsumexp, one_hot)


def gradient(f, *args, argnums=0):
    """The gradient of the sum of f, by the interpreter."""

    def total(*values):
        return np.sum(f(*values))

    return trace(transforms.grad(total, argnums), *args).evaluate(*args)


#: Where a derivative is not unique or does not exist: f, x, and what the gradient of sum(f) is.
CONVENTIONS = [
    ("relu at 0", relu, [-1.0, 0.0, 2.0], [0, 0, 1]),
    ("maximum with a constant", lambda x: np.maximum(x, 1.0), [1.0, 2.0], [0, 1]),
    ("minimum with a constant", lambda x: np.minimum(x, 1.0), [1.0, 0.0], [0, 1]),
    ("maximum with itself", lambda x: np.maximum(x, x), [1.0, 2.0], [1, 1]),
    ("maximum at a tie", lambda x: np.maximum(x, x[::-1]), [1.0, 1.0], [1, 1]),
    ("clip at its bounds", lambda x: np.clip(x, 0, 1), [0.0, 0.5, 1.0, 2.0], [0, 1, 0, 0]),
    ("max with ties", np.max, [3.0, 1.0, 3.0], [0.5, 0, 0.5]),
    ("min with ties", np.min, [1.0, 1.0, 1.0, 3.0], [1 / 3, 1 / 3, 1 / 3, 0]),
    ("abs at 0", np.abs, [-2.0, 0.0, 2.0], [-1, 0, 1]),
    ("sign", np.sign, [-2.0, 0.0, 2.0], [0, 0, 0]),
    ("floor", np.floor, [-2.5, 0.0, 2.0], [0, 0, 0]),
    ("rint", np.rint, [-2.5, 0.0, 2.0], [0, 0, 0]),
    ("floor_divide", lambda x: x // 2.0, [-2.5, 0.0, 2.0], [0, 0, 0]),
    ("where not selected", lambda x: np.where(x > 0, x, 0.0), [-1.0, 0.0, 1.0], [0, 0, 1]),
    ("where and an infinite cotangent", lambda x: 1 / np.where(x < 0, 0, x), [-1.0, 1.0], [0, -1]),
    ("where before log", lambda x: np.log(np.where(x > 0, x, 1)), [-1.0, 2.0], [0, 0.5]),
    ("x ** 0 at 0", lambda x: x**0.0, [0.0, 2.0], [0, 0]),
    ("x ** 2 at 0", lambda x: x**2, [0.0, -2.0], [0, -4]),
    ("x ** 3 at 0", lambda x: x**3, [0.0, -2.0], [0, 12]),
    ("x ** y at negative x", lambda x: np.power(-2.0, x * 0 + 2) * x, [3.0], [4]),
    ("hypot at the origin", lambda x: np.hypot(x, x), [0.0], [0]),
    ("norm of ones", np.linalg.norm, [3.0, 4.0], [0.6, 0.8]),
    ("prod with one zero", np.prod, [0.0, 2.0, 3.0], [6, 0, 0]),
    ("prod with two zeros", np.prod, [0.0, 0.0, 3.0], [0, 0, 0]),
    ("sum of nothing", lambda x: np.sum(x[:0]), [1.0], [0]),
    ("mean of a 0-d array", np.mean, 2.0, 1.0),
    ("max of a 0-d array", np.max, 2.0, 1.0),
    ("a constant result", lambda x: np.ones(3), [1.0, 2.0], [0, 0]),
    ("through an integer", lambda x: x.astype(int) * 2.0 + x, [1.5], [1]),
    ("through float32", lambda x: x.astype(np.float32) * 2, [1.5], [2]),
    ("a comparison", lambda x: (x > 1) * x, [0.5, 1.5], [0, 1]),
    ("one_hot of argmax", lambda x: x[np.argmax(x)], [1.0, 3.0, 2.0], [0, 1, 0]),
    ("remainder", lambda x: x % 2.0, [3.0, -3.0], [1, 1]),
    ("nan", lambda x: np.where(np.isnan(x), 0.0, x), [np.nan, 1.0], [0, 1]),
    ("logsumexp of -inf", logsumexp, [-np.inf, 0.0], [0, 1]),
    ("softmax of -inf", lambda x: softmax(x)[1], [-np.inf, 0.0], [0, 0]),
    ("softplus far out", softplus, [-1e4, 0.0, 1e4], [0, 0.5, 1]),
    ("sigmoid far out", sigmoid, [-1e4, 1e4], [0, 0]),
    ("logaddexp far out", lambda x: np.logaddexp(x, 0), [-1e4, 0.0, 1e4], [0, 0.5, 1]),
]


@pytest.mark.parametrize(
    ("f", "x", "expected"), [pytest.param(*row[1:], id=row[0]) for row in CONVENTIONS]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_conventions(f, x, expected, dtype):
    x = np.array(x, dtype)
    result = gradient(f, x)
    assert result.dtype == dtype
    assert result.shape == x.shape
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_a_tie_of_two_variables_is_shared():
    x = np.ones(2)
    first, second = gradient(np.maximum, x, x * 1, argnums=(0, 1))
    np.testing.assert_array_equal(first, [0.5, 0.5])
    np.testing.assert_array_equal(second, [0.5, 0.5])


@pytest.mark.parametrize("shape", [(0,), (2, 0), ()])
def test_gradients_of_arrays_without_elements_and_of_single_ones(shape):
    x = np.ones(shape, np.float32)
    result = gradient(lambda x: np.sum(np.tanh(x) * x, axis=None), x)
    assert result.shape == shape
    assert result.dtype == np.float32


def test_an_op_without_a_rule_says_so_where_it_is_met():
    with pytest.raises(GradientError) as caught:
        gradient(np.spacing, np.ones(2))
    assert "spacing has no gradient" in str(caught.value)
    assert "gd.stop_gradient" in str(caught.value)


def test_stop_gradient_is_a_constant_to_the_chain_rule():
    x = np.array([2.0, 3.0])
    result = gradient(lambda x: x * pointwise.stop_gradient(x), x)
    np.testing.assert_array_equal(result, x)


# --- the checker itself --------------------------------------------------------------------------


def wrong(op, vjp):
    """The op with another rule."""
    return structs.replace(op, vjp=vjp)


WRONG = {
    "a factor": wrong(pointwise.sin, lambda g, out, x: (g * np.cos(x) * 1.001,)),
    "a sign": wrong(pointwise.cos, lambda g, out, x: (g * np.sin(x),)),
    "out for x": wrong(pointwise.tanh, lambda g, out, x: (g * (1 - x * x),)),
    "zero": wrong(pointwise.exp, lambda g, out, x: (None,)),
    "g forgotten": wrong(pointwise.square, lambda g, out, x: (2 * x,)),
    "not a number": wrong(pointwise.square, lambda g, out, x: (2 * g * x + np.nan,)),
}


@pytest.mark.parametrize("op", WRONG.values(), ids=WRONG)
def test_a_wrong_rule_is_caught(op):
    with pytest.raises(GradientMismatch, match="derivative of order 1"):
        check_grads(lambda x: op(x), np.array([0.3, 0.7, 1.1]))


def test_a_rule_that_is_wrong_in_its_second_derivative_is_caught():
    op = wrong(pointwise.exp, lambda g, out, x: (g * pointwise.stop_gradient(out),))
    check_grads(lambda x: op(x), np.array([0.3, 0.7]), order=1)
    with pytest.raises(GradientMismatch, match="derivative of order 2"):
        check_grads(lambda x: op(x), np.array([0.3, 0.7]), order=2)


def test_operands_in_the_wrong_order_are_caught():
    op = wrong(pointwise.multiply, lambda g, out, x, y: (g * x, g * y))
    with pytest.raises(AssertionError):
        check_grads(lambda x, y: op(x, y), np.ones(2), 2 * np.ones(2))


def test_the_checker_takes_trees_and_leaves_integers_alone():
    tree = {"w": np.ones((2, 2)), "b": [np.zeros(2)]}
    check_grads(lambda p, k: p["w"][k] @ p["b"][0] + p["w"].sum(), tree, np.array([1, 0]))
    check_grads(lambda x: (np.sin(x), {"n": np.argmax(x), "y": x**2}), np.array([1.0, 2.0]))
    check_grads(np.sin, 0.5, order=3)
    with pytest.raises(GradientError, match="no argument is a float"):
        check_grads(lambda k: k * 2, np.array([1, 2]))


def _softmax(x, axis):
    powers = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return powers / np.sum(powers, axis=axis, keepdims=True)


def _log_softmax(x, axis):
    shifted = x - x.max(axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))


def _log_sum_exp(x, axis):
    top = np.max(x, axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    return np.log(np.sum(np.exp(x - top), axis=axis)) + np.squeeze(top, axis)


def _softmax_pulled(x, g, axis):
    p = np.exp(x) / np.exp(x).sum(axis, keepdims=True)
    return p * (g - (g * p).sum(axis, keepdims=True))


def _log_softmax_pulled(x, g, axis):
    p = np.exp(x) / np.exp(x).sum(axis, keepdims=True)
    return g - p * g.sum(axis, keepdims=True)


def _log_sum_exp_pulled(x, g, axis):
    return np.expand_dims(g, axis) * np.exp(x) / np.exp(x).sum(axis, keepdims=True)


@pytest.mark.parametrize("axis", [0, 1, (0, 2)])
@pytest.mark.parametrize(
    ("f", "pulled"),
    [
        (_softmax, _softmax_pulled),
        (_log_softmax, _log_softmax_pulled),
        (_log_sum_exp, _log_sum_exp_pulled),
    ],
)
def test_a_maximum_that_cancels_costs_no_pass(f, pulled, axis):
    """What users write against overflow: the maximum's own gradient is a sum of terms to zero."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 300, 3)).astype(np.float32)
    g = rng.standard_normal(f(x, axis).shape).astype(np.float32)

    def gradient(x, g):
        return gd.vjp(lambda x: f(x, axis), x)[1](g)[0]

    compiled = gd.compile(gradient)
    exact = pulled(x.astype(np.float64), g.astype(np.float64), axis)
    assert np.abs(compiled(x, g) - exact).max() <= 1e-6 * np.abs(exact).max()
    executable = compiled.lower(x, g)
    assert "equal" not in str(executable.optimized), "the maximum is looked for again"
    made = [node for node in executable.graph.operations if node.op is not pointwise.variable]
    assert {executable.graph.sources[node].function for node in made} == {f.__name__}


def test_a_maximum_that_does_not_cancel_keeps_its_gradient():
    x = np.array([[1.0, 3.0, 2.0], [0.5, -1.0, 4.0]])

    def scaled(x):  # the maximum is of another axis than the sum
        powers = np.exp(x - np.max(x, axis=0, keepdims=True))
        return np.sum(powers / np.sum(powers, axis=1, keepdims=True) * np.arange(3.0))

    def plain(x):
        return np.sum(np.log(np.sum(np.exp(x - np.max(x, axis=1, keepdims=True)), axis=1)))

    for f in (scaled, plain):
        gd.check_grads(f, x)
    top = np.max(x, axis=1, keepdims=True)
    softmax = np.exp(x - top) / np.exp(x - top).sum(1, keepdims=True)
    np.testing.assert_allclose(gd.compile(gd.grad(plain))(x), softmax - (x == top), atol=1e-15)
