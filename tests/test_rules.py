"""Algebraic rules: each fires in the full pipeline, and keeps the values that it must keep."""

from __future__ import annotations

import inspect
from typing import Any
from unittest import mock

import mpmath
import numpy as np
import pytest

import graphdl as gd
from graphdl.compiler import pipeline, rules
from graphdl.compiler.rules import Rule
from graphdl.graph import Graph
from graphdl.ops import pointwise
from tests.programs import check_compiled

SPECIAL = [
    np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -3.0, 20.0, -20.0, 87.0, 95.0,
    -95.0, 800.0, -800.0, 1e-5, -1e-5, 1e-30, -1e-30, 1e-40,
]  # fmt: skip


class Exact:
    """A real number in 3000 bits; NumPy's functions of object arrays call its methods."""

    def __init__(self, value: Any) -> None:
        self.value = mpmath.mpf(value)

    def _call(self, f: Any, *others: Any) -> Exact:
        values = [other.value if isinstance(other, Exact) else other for other in others]
        result = f(self.value, *map(mpmath.mpf, values))
        return Exact(result.real if mpmath.im(result) == 0 else mpmath.nan)


def quotient(a: Any, b: Any) -> Any:
    return a / b if b else a * mpmath.inf  # NaN if a is 0, too


def _method(f: Any) -> Any:
    return lambda self, *others: self._call(f, *others)


for _name, _function in {
    "__add__": lambda a, b: a + b, "__radd__": lambda a, b: b + a,
    "__sub__": lambda a, b: a - b, "__rsub__": lambda a, b: b - a,
    "__mul__": lambda a, b: a * b, "__rmul__": lambda a, b: b * a,
    "__truediv__": lambda a, b: quotient(a, b), "__rtruediv__": lambda a, b: quotient(b, a),
    "__pow__": lambda a, b: quotient(1, a) if b == -1 else a**b,
    "__neg__": lambda a: -a, "__abs__": abs,
    "exp": mpmath.exp, "log": mpmath.log, "log1p": lambda a: mpmath.log(1 + a),
    "expm1": lambda a: mpmath.exp(a) - 1, "sqrt": mpmath.sqrt, "cos": mpmath.cos,
}.items():  # fmt: skip
    setattr(Exact, _name, _method(_function))


def exactly(side: Any, args: list[Any]) -> Any:
    """The values of one side of a rule without rounding, NaN where it is not defined."""
    objects = [np.array([Exact(float(v)) for v in x], object) for x in args]
    with (
        mpmath.workprec(3000),
        mock.patch.object(rules, "sigmoid", lambda x: 1 / (1 + np.exp(-x))),
        mock.patch.object(rules, "softplus", lambda x: np.log(1 + np.exp(x))),
    ):
        results = side(*objects)
        return np.array([float(getattr(v, "value", v)) for v in results])


def simplified(f: Any, *args: Any) -> Graph:
    """The graph after all passes that rewrite it, before copies are made for its outputs."""
    return dict(pipeline.optimise(gd.trace(f, *args)))["simplify again"]


def arity(rule: Rule) -> int:
    return len(inspect.signature(rule.left).parameters)


def ops(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.operations]


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.name)
def test_a_rule_fires_in_the_full_pipeline(rule):
    """Both sides become the very same node, and the left side is gone."""
    args = [np.ones((3, 4), np.float32)] * arity(rule)
    graph = simplified(lambda *xs: (rule.left(*xs), rule.right(*xs)), *args)
    assert graph.outputs[0] is graph.outputs[1]
    with_left = gd.trace(lambda *xs: rule.left(*xs), *args)
    assert graph.outputs[0] not in with_left.outputs


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.name)
def test_a_rule_keeps_values(rule, dtype):
    """What is compiled is the left side without rounding, or else as NumPy computes it."""
    values = np.array(SPECIAL, dtype)
    grid = np.meshgrid(*[values] * arity(rule))
    args = [x.ravel() for x in grid]
    got = gd.compile(rule.left)(*args)
    with np.errstate(all="ignore"):
        plain = np.asarray(rule.left(*args))
        exact = exactly(rule.left, args).astype(dtype)
    tiny = float(np.finfo(dtype).tiny)
    fits = np.isclose(got, exact, rtol=1e-5 if dtype == "float32" else 1e-13, atol=tiny)
    for other in (exact, plain):
        fits |= (got == other) | (np.isnan(got) & np.isnan(other))
    # of infinities, the limit instead of NaN
    fits |= np.isnan(plain) & ~np.all(np.isfinite(args), axis=0)
    if rule.name == "log(exp(x) / y)":  # y is a sum of exponentials, or the result NaN
        fits |= args[1] < 0
    bad = np.flatnonzero(~fits)
    assert not bad.size, [tuple(x[bad[0]] for x in (*args, got, plain, exact))]


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.name)
def test_a_rule_keeps_gradients(rule):
    """The gradient of both sides as the interpreter has them, where both are defined."""
    args = [np.array([0.3, 1.2, 2.5]), np.array([0.7, 1.9, 0.2])][: arity(rule)]
    numbers = tuple(range(len(args)))
    left, right = (
        gd.grad(lambda *xs, side=side: np.sum(np.sin(side(*xs))), argnums=numbers)(*args)
        for side in (rule.left, rule.right)
    )
    for got, want in zip(left, right, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)


# --- structure ------------------------------------------------------------------------------------

X = np.arange(12.0).reshape(3, 4)

#: Functions that leave nothing to do but what the second column names.
STRUCTURE: dict[str, tuple[Any, list[str]]] = {
    "reshape of reshape": (lambda x: np.reshape(np.reshape(x, (2, 6)), (3, 4)) + 1, ["add"]),
    "transpose of transpose": (lambda x: x.T.T * 2, ["multiply"]),
    "slice of slice": (lambda x: x[1:][1:, ::2], ["slice"]),
    "slice of all": (lambda x: x[:, :] + x[0:3] * 3, ["multiply", "add"]),
    "reversed twice": (lambda x: x[::-1][::-1] - 1, ["subtract"]),
    "pad, then cut": (lambda x: np.pad(x, 1)[1:-1, 1:-1] - 1, ["subtract"]),
    "concatenation of one": (lambda x: np.concatenate([x, x[:0]]) - 1, ["subtract"]),
    "broadcast of broadcast": (
        lambda x: np.broadcast_to(np.broadcast_to(x[0], (3, 4)), (2, 3, 4)), ["broadcast"]
    ),
    "computed before it is repeated": (
        lambda x: np.exp(np.broadcast_to(x, (5, 3, 4))), ["exp", "broadcast"]
    ),
    "sum of what is repeated": (
        lambda x: np.sum(np.broadcast_to(x, (5, 3, 4)), axis=0), ["multiply"]
    ),
    "maximum of what is repeated": (
        lambda x: np.max(np.broadcast_to(np.exp(x), (5, 3, 4)), axis=0), ["exp"]
    ),
    "sum of sums": (lambda x: np.sum(np.sum(x, axis=0)), ["sum"]),
    "sum over nothing": (lambda x: np.sum(x, axis=()) - 1, ["subtract"]),
    "constants are folded": (lambda x: x + (np.sin(np.float64(1.0)) * 2 + 1), ["add"]),
    "factors are joined": (lambda x: x * 2 * 3, ["multiply"]),
    "where of a constant": (lambda x: np.where(np.zeros((3, 4), bool), x, x - 1), ["subtract"]),
    "where of equals": (lambda x: np.where(x > 0, x - 1, x - 1), ["subtract"]),
    "a cast to its own dtype": (lambda x: x.astype("float64") - 1, ["subtract"]),
    "a product of transposes": (lambda x: x.T.T @ x.T, ["contract"]),
    "the transpose of a product": (lambda x: (x @ x.T).T, ["contract"]),
    "an outer product": (lambda x: np.outer(x[0], x[1]), ["multiply"]),
    "common subexpressions": (lambda x: np.exp(x) + np.exp(x), ["exp", "add"]),
    "nothing is left of what is not returned": (lambda x: (np.exp(x), x + 1)[1], ["add"]),
}  # fmt: skip


@pytest.mark.parametrize("name", STRUCTURE)
def test_structure(name):
    f, wanted = STRUCTURE[name]
    graph = simplified(f, X)
    free = ["constant", "extent", "reshape", "slice", "broadcast"]  # no work, but views
    kept = [op for op in ops(graph) if op in wanted or op not in free]
    assert sorted(kept) == sorted(wanted), str(graph)
    check_compiled(f, X, python=False, separate=False)


def test_a_constant_stands_on_the_right():
    for f in (lambda x: 2 + x, lambda x: 2 * x, lambda x: np.maximum(0, x)):
        graph = simplified(f, X)
        last = graph.outputs[0]
        assert last.inputs[0] is graph.inputs[0]


def test_marks_are_gone():
    graph = simplified(gd.grad(lambda x: np.sum(x * gd.stop_gradient(x))), X)
    assert not {node.op for node in graph.nodes} & {pointwise.variable, pointwise.stop_gradient}


def test_factors_whose_product_overflows_stay_apart():
    def f(x):
        return x * np.float32(1e30) * np.float32(1e30), x * np.float32(1e-30) * np.float32(1e-30)

    x = np.array([0.0, 1e-30, 1e30, 1.0, np.inf], np.float32)
    check_compiled(f, x)


def test_sums_of_repeated_small_integers_wrap_as_numpys():
    x = np.array([100, -3, 7], np.int8)

    def f(x):
        return (
            np.sum(np.broadcast_to(x, (300, 3)), axis=0, dtype=np.int8),
            np.sum(np.broadcast_to(x, (300, 3)), axis=0),
            np.prod(np.broadcast_to(x, (3, 3)), axis=0, dtype=np.int8),
        )

    check_compiled(f, x)


# --- stability ------------------------------------------------------------------------------------


def test_stable_forms_do_not_overflow():
    """As written these overflow in float32; so would their gradients."""
    x = np.array([[1000.0, 0.0, -1000.0], [90.0, 91.0, 92.0]], np.float32)

    def log_sum_exp(x):
        return np.log(np.sum(np.exp(x), axis=1))

    def softmax(x):
        return np.exp(x) / np.sum(np.exp(x), axis=1, keepdims=True)

    def softplus(x):
        return np.log(1 + np.exp(x))

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    exact = x.astype(np.longdouble)
    for f in (log_sum_exp, softmax, softplus, sigmoid):
        got = gd.compile(f)(x)
        np.testing.assert_allclose(got, f(exact).astype(np.float32), rtol=1e-6, atol=1e-37)
        slope = gd.grad(lambda x, f=f: np.sum(np.sin(f(x))))(x)
        assert np.all(np.isfinite(slope)), f.__name__


def test_stable_forms_keep_infinities():
    x = np.array([[np.inf, 0.0], [-np.inf, -np.inf], [np.nan, 1.0], [-np.inf, 0.0]])

    def f(x):
        return np.log(np.sum(np.exp(x), axis=1)), np.exp(x) / np.sum(np.exp(x), 1, keepdims=True)

    check_compiled(f, x)


def test_passes_are_named_and_verified():
    names = [name for name, _ in pipeline.optimise(gd.trace(lambda x: x @ x.T, X))]
    assert names[0] == "trace"
    assert "materialise" in names


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8", "uint32"])
@pytest.mark.parametrize("power", [0, 1, 2, 3, 7, 63, 64])
def test_known_powers_of_integers_are_products(dtype, power):
    x = np.arange(-20, 20).astype(dtype)
    executable = gd.compile(lambda x: x**power).lower(x)
    got = executable(x)
    np.testing.assert_array_equal(got, x**power)
    assert got.dtype == (x**power).dtype
    ops = {node.op.name for node in executable.optimized.operations}
    assert ("power" in ops) == (power == 64)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: np.vdot(x, x),
        lambda x: np.max(x.reshape(24, 10), 0),
        lambda x: np.moveaxis(x, 0, -1).reshape(4, -1).sum(0),
        lambda x: x.reshape(6, 1, 40, 1).sum((1, 2)),
        lambda x: x.transpose(2, 1, 0).reshape(2, 5, 24).mean((0, 1)),
        lambda x: x[:, :, None].reshape(1, 24, 1, 10, 1).min((0, 2, 3)),
    ],
)
def test_whole_groups_of_axes_are_reduced_before_a_reshape(f):
    executable = check_compiled(f, np.random.default_rng(0).normal(size=(6, 4, 10)))
    operations = executable.optimized.operations
    assert all(node.inputs[0].op.name != "reshape" for node in operations if is_reduction(node))
    assert not any(node.op.name == "copy" and node.type.size == 240 for node in operations)


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 2)])
def test_parts_of_groups_are_reduced_after_a_reshape(axes):
    check_compiled(lambda x: np.sum(x.reshape(2, 12, 10), axes), np.ones((6, 4, 10)))


def is_reduction(node):
    return node.op.family == "reduction"
