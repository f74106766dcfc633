"""Compiled functions against NumPy, the interpreter, kernels without fusion, and Python text."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphdl as gd
from graphdl.errors import GraphError
from graphdl.numpy_functions import gelu
from graphdl.ops.op import Op
from graphdl.ops.table import OPS
from graphdl.types import DTYPES, TensorType
from tests.op_cases import DRAWN, F4, F8, cases
from tests.programs import assert_same, check_compiled, run_in_python, run_native, unfused


def normal(*shape: int, dtype: Any = np.float64) -> Any:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(dtype)


# --- the op table ---------------------------------------------------------------------------------


def special_values(dtype: np.dtype) -> Any:
    """Values at which functions change their minds."""
    if dtype.kind == "b":
        return np.array([False, True])
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return np.array([0, 1, 2, 3, 7, info.min, info.min + 1, info.max, info.max - 1], dtype)
    info = np.finfo(dtype)
    values = [
        np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 3.7, -7.25, 88.0,
        float(info.smallest_subnormal), -3 * float(info.smallest_subnormal), float(info.tiny),
        float(info.max), float(info.min), float(info.eps), 1e-4, 1e4,
    ]  # fmt: skip
    return np.array(values, dtype)


#: The libraries behind NumPy err by more than ours here, or differ from each other.
LOOSE = {"erfc": 8, "power": 32, "logaddexp2": 64, "logaddexp": 64, "hypot": 8, "arctan2": 8}
#: A continued fraction or a series, of which each term is rounded.
LOOSE |= {"loggamma_slope": 32}
#: What these do to operands outside of their domain is not defined, in NumPy neither.
UNDEFINED = ("ldexp", "left_shift", "right_shift")
#: SciPy computes these in float32 throughout, which is far off here and there; ours in float64.
WIDER = ("betainc", "betaincc", "betaincinv", "betainccinv", "stdtr", "kv")
FLOATS_ONLY = ("power", "reciprocal")


def fitting(dtype: np.dtype) -> list[tuple[Op, int]]:
    """The pointwise ops that take only operands of this dtype, and how many."""
    found = []
    for op in DRAWN:
        count = len(op.domain)
        if (
            op.name in UNDEFINED
            or (op.name in WIDER and dtype == F4)
            or (op.name in FLOATS_ONLY and dtype.kind != "f")
        ):
            continue
        try:
            op.infer(*[TensorType(dtype, (3,))] * count)
        except GraphError:
            continue
        found.append((op, count))
    return found


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_pointwise_ops_at_special_values(dtype):
    """All ops of a dtype in one graph, on all pairs of special values."""
    values = special_values(dtype)
    x, y = np.repeat(values, len(values)), np.tile(values, len(values))
    ops = fitting(dtype)

    def f(x, y):
        return tuple(op(*(x, y, x[::-1])[:count]) for op, count in ops)

    graph = gd.trace(f, x, y)
    want = graph.evaluate(x, y)
    ways = {"compiled": gd.compile(f)(x, y)}
    if dtype.name in ("float32", "int64", "uint8", "bool"):
        ways["unfused"] = run_native(graph, [x, y], unfused)
        ways["as Python"] = run_in_python(graph, [x, y])
    for way, results in ways.items():
        for (op, _), got, one in zip(ops, results, want, strict=True):
            if op.name == "power" and way == "as Python":
                continue  # NumPy takes the square root of -inf where the exponent is a scalar
            try:
                assert_same(got, one, LOOSE.get(op.name, 4), 0.0)
            except AssertionError as error:
                raise AssertionError(f"{op.name}, {way}: {error}") from None


@pytest.mark.parametrize("dtype", [F4, F8], ids=str)
@pytest.mark.parametrize("family", sorted({op.family for op in OPS.values()} - {"constant"}))
def test_cases_of_the_op_table(family, dtype):
    """The cases of a family in one graph."""
    if family == "pointwise" and dtype == F8:
        return  # test_pointwise_ops_at_special_values has them all
    found = [
        case
        for op in OPS.values()
        if op.family == family and op.name not in ("variable", "stop_gradient")
        for case in cases(op, dtype)
    ]
    operands = [case.operands for case in found]

    def f(operands):
        return [case(*given) for case, given in zip(found, operands, strict=True)]

    check_compiled(f, operands, numpy=False, separate=False, python=False)


def test_generators():
    """iota, extents and constants, alone and moved."""

    def f(x):
        n = x.apply_op(OPS["iota"], (), {"size": 6, "dtype": np.dtype(np.int64)})
        table = np.arange(12.0).reshape(3, 4)
        return (
            n, n[::-1], np.reshape(n, (2, 3)).T, x + n[1::2], np.broadcast_to(n, (2, 6)),
            np.sum(np.reshape(n, (3, 2)), axis=0), n[2], np.concatenate([n, n[::-1]]),
            x @ table, x @ table[:, ::-1], table.T[1:] @ x, table[1] + x[0], np.flip(table) * x[1],
            np.full((2, 2), 3.0) @ np.full((2, 2), 0.5) + x[0], x[n % 3], np.cumsum(n),
            np.pad(n, 2), np.where(n > 2, n, 0), np.outer(n, n),
        )  # fmt: skip

    check_compiled(f, normal(3), numpy=False)


# --- reductions -----------------------------------------------------------------------------------


def subsets(ndim: int) -> list[tuple[int, ...]]:
    return [axes for n in range(1, ndim + 1) for axes in itertools.combinations(range(ndim), n)]


SHAPES = [(5,), (1,), (3, 7), (4, 1), (1, 6), (2, 3, 5), (3, 1, 4)]


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        *((shape, dtype) for shape in SHAPES for dtype in ("float32", "float64")),
        ((2, 3, 2, 4), "float32"),
        ((1, 3, 1, 2), "float64"),
    ],
    ids=str,
)
def test_reductions_over_all_axes(shape, dtype):
    """Sums and extrema over every subset of axes, and what is usually done with them."""
    x = normal(*shape, dtype=dtype)

    for axes in subsets(len(shape)):

        def f(x, axes=axes):
            top = np.max(x, axis=axes, keepdims=True)
            e = np.exp(x - top)
            total = np.sum(e, axis=axes, keepdims=True)
            centred = x - np.mean(x, axis=axes, keepdims=True)
            return (
                e / total,
                centred / np.sqrt(np.var(x, axis=axes, keepdims=True) + 1e-5),
                np.squeeze(np.log(total) + top),
                np.sum(x, axis=axes),
                np.min(x * 2, axis=axes),
                np.any(x > 1, axis=axes),
                np.sum(x > 0, axis=axes),
            )

        all_ways = dtype == "float32" and len(shape) < 4
        check_compiled(f, x, ulps=64, python=all_ways, separate=all_ways)


@pytest.mark.parametrize("shape", [(5,), (3, 7), (2, 3, 5)], ids=str)
def test_positions_of_extrema(shape):
    """argmax and argmin along each axis: the first of ties, NaN before all."""
    x = np.random.default_rng(1).integers(-2, 3, shape)
    with_nan = np.where(x == 0, np.nan, x)

    def f(*arrays):
        axes = (*range(len(shape)), None)
        return [g(a, axis=i) for a in arrays for i in axes for g in (np.argmax, np.argmin)]

    check_compiled(f, x, x.astype(np.float32), with_nan, x > 0, x.astype(np.uint8), separate=False)


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d.kind != "f"], ids=str)
def test_reductions_of_integers_and_booleans(dtype):
    x = np.random.default_rng(2).integers(0, 2 if dtype.kind == "b" else 60, (3, 4, 2))
    x = x.astype(dtype)

    def f(x):
        return [
            g(x, axis=axes)
            for axes in (0, 1, 2, (0, 2), None)
            for g in (np.sum, np.prod, np.max, np.min, np.any, np.all, np.mean)
        ]

    check_compiled(f, x, separate=False, python=dtype.name in ("bool", "int8", "uint64"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extrema_and_sums_of_special_values(dtype):
    x = np.array(
        [[np.nan, 1, 2], [np.inf, 1, 0], [-np.inf, np.inf, 0], [-0.0, 0.0, -0.0], [1, 2, np.nan]],
        dtype,
    )

    def f(x):
        return [
            g(x, axis=axes) for axes in (0, 1, None) for g in (np.sum, np.max, np.min, np.prod)
        ] + [np.max(x, axis=1, keepdims=True) - x, np.where(np.isnan(x), 0, x).sum(axis=1)]

    check_compiled(f, x)


@pytest.mark.parametrize("n", [15, 16, 17, 63, 64, 65, 1000])
def test_rows_of_all_lengths(n):
    """Vector loops and what they leave to shorter ones."""
    x = normal(3, n, dtype=np.float32)
    column = normal(n, 3, dtype=np.float32)

    def softmax(x, axis):
        e = np.exp(x - np.max(x, axis=axis, keepdims=True))
        return e / np.sum(e, axis=axis, keepdims=True)

    check_compiled(
        lambda x, y: (softmax(x, 1), np.max(x, 1), softmax(y, 0), np.min(y), np.argmax(x, 1)),
        x, column, ulps=32, separate=False, python=n < 20,
    )  # fmt: skip


def test_many_rows_are_summed_in_blocks():
    """Partial results of more blocks than one, along columns, rows and everything."""
    x = normal(5000, 33, dtype=np.float32)

    def f(x):
        return (
            np.sum(x, axis=0), np.sum(x), np.max(x, axis=0), np.max(x, axis=1), np.sum(x, axis=1),
            np.sum(np.sum(x, axis=1) ** 2), np.sum(x - np.mean(x, axis=1, keepdims=True), axis=0),
        )  # fmt: skip

    check_compiled(f, x, ulps=400, python=False, separate=False)


# --- gradients ------------------------------------------------------------------------------------


def softmax(x, axis=-1):
    e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return e / np.sum(e, axis=axis, keepdims=True)


def layer_norm(x, scale, shift, axis=-1):
    centred = x - np.mean(x, axis=axis, keepdims=True)
    return centred / np.sqrt(np.mean(centred**2, axis=axis, keepdims=True) + 1e-5) * scale + shift


def cross_entropy(x, labels):
    top = np.max(x, axis=1, keepdims=True)
    logits = x - top - np.log(np.sum(np.exp(x - top), axis=1, keepdims=True))
    return -np.mean(logits[np.arange(len(labels)), labels])


LOSSES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "softmax rows": (lambda x: np.sum(softmax(x) ** 2), (normal(5, 7),)),
    "softmax columns": (lambda x: np.sum(softmax(x, 0) ** 2), (normal(5, 7),)),
    "softmax of 3 axes": (lambda x: np.sum(softmax(x, (0, 2)) ** 2), (normal(2, 5, 3),)),
    "layer norm": (
        lambda x, a, b: np.sum(np.tanh(layer_norm(x, a, b))),
        (normal(4, 6), normal(6), normal(6)),
    ),
    "cross entropy": (cross_entropy, (normal(6, 5), np.array([0, 4, 2, 2, 1, 3]))),
    "var": (lambda x: np.sum(np.var(x, axis=0) * np.arange(4.0)), (normal(5, 4),)),
    "max with ties": (
        lambda x: np.sum(np.max(x, axis=1) * np.arange(3.0)),
        (np.array([[1.0, 2, 2], [0, 0, 0], [3, 1, 3]]),),
    ),
    "prod": (lambda x: np.sum(np.prod(x, axis=1)), (np.array([[1.0, 2, 0], [3, -1, 2]]),)),
    "mlp": (
        lambda w, v, x, y: np.mean((np.maximum(x @ w[0] + w[1], 0) @ v - y) ** 2),
        ((normal(4, 8), normal(8)), normal(8, 2), normal(5, 4), normal(5, 2)),
    ),
    "gelu": (
        lambda w, x: np.sum(gelu(x @ w)),
        (normal(4, 8), normal(5, 4)),
    ),
    "gather": (lambda x, i: np.sum(x[i] ** 2), (normal(5, 3), np.array([0, 2, 2, -1]))),
    "strides": (
        lambda x: np.sum(x[::-2, 1:] * x[:2, :-1]) + np.sum(np.pad(x, 1)[1:4] ** 3),
        (normal(4, 5),),
    ),
    "cumsum": (lambda x: np.sum(np.cumsum(x, axis=1) ** 2), (normal(3, 4),)),
    "concatenate": (
        lambda x, y: np.sum(np.concatenate([x, y * 2, x], axis=1) ** 2),
        (normal(3, 4), normal(3, 2)),
    ),
    "attention": (
        lambda q, k, v: np.sum(softmax(q @ np.swapaxes(k, 1, 2) / 2.0) @ v),
        (normal(2, 3, 4), normal(2, 5, 4), normal(2, 5, 6)),
    ),
    "roll": (lambda x: np.sum(np.roll(x, 2, axis=1) * x), (normal(3, 5),)),
    "minimum of two": (lambda x, y: np.sum(np.minimum(x, y) * x), (normal(3, 5), normal(5))),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LOSSES)
def test_values_and_gradients(name, dtype):
    """Value and gradient compiled as one program, against the interpreter."""
    f, args = LOSSES[name]

    def cast(x):
        return x.astype(dtype) if x.dtype.kind == "f" else x

    args = gd.trees.optree.tree_map(cast, args)
    numbers = tuple(
        i
        for i, arg in enumerate(args)
        if all(leaf.dtype.kind == "f" for leaf in gd.trees.leaves_of(arg))
    )
    both = gd.value_and_grad(f, argnums=numbers)
    check_compiled(both, *args, ulps=200, numpy=False, separate=dtype == "float32")


def test_second_derivatives():
    f = gd.grad(lambda x: np.sum(gd.grad(lambda y: np.sum(np.tanh(y) * softmax(y)))(x) ** 2))
    check_compiled(f, normal(3, 4), ulps=400, numpy=False, separate=False)


# --- movement, indexing, products -----------------------------------------------------------------

X2, X3 = normal(4, 6), normal(2, 3, 4)
I2 = np.arange(24, dtype=np.int32).reshape(4, 6)

CALLS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "views of an argument": (
        lambda x: (x.T + 1, x[::-1] * 2, x[1:-1, ::2] - 1, x[:, ::-3], x.T[::-1], x[2], x[:, 1],
                   np.broadcast_to(x[0], (3, 6)) + 1, x.reshape(3, 8)[:, 1:], x.T.reshape(3, 8)),
        (X2,),
    ),
    "views of a result": (
        lambda x: ((lambda y: (y.T * y.T, y[::-1] + y, y.reshape(-1)[::5], y.T.reshape(4, 6) + x))
                   (np.exp(x))),
        (X2,),
    ),
    "operands against each other": (
        lambda x, r, c, s: (x + r, x * c, x - s, r * c, c - r + s, np.outer(r[0], c[:, 0]) + x.T),
        (X2, normal(1, 6), normal(4, 1), np.array(2.5)),
    ),
    "a matrix and its transpose": (
        lambda x: (x + x.T, x @ x.T, x.T @ x, (x + 1).T * x, np.sum(x * x.T, axis=0)),
        (normal(5, 5),),
    ),
    "results that repeat": (lambda x: (x, x, x + 1, x + 1, x.T, x.T, np.ones(3), 2.0, 2), (X2,)),
    "no elements": (
        lambda x, y: (x + 1, np.sum(x, axis=0), np.sum(x, axis=1), np.sum(x), x @ x.T, x.T @ x,
                      np.concatenate([x, y]), np.prod(x, axis=0), np.any(x > 0), np.all(x > 0),
                      x.reshape(3, 0), np.pad(x, 1), np.max(x, axis=1), x.T, np.cumsum(x, axis=0),
                      np.mean(y[:0], axis=0), y[y.astype(int)[:0, 0]], np.exp(x)[:, :1]),
        (np.zeros((0, 3)), normal(2, 3)),
    ),
    "numbers": (
        lambda x, y: (x + y, x * 2, -x, x - y,
                      np.sum(x), np.broadcast_to(x * y, (2, 3)), np.stack([x, y, x + y]),
                      np.reshape(x, (1, 1)) + np.ones((2, 2)), np.maximum(x, y) > 0, np.max(y)),
        (np.array(1.5), np.array(-2.0)),
    ),
    "numbers where memory is read": (
        lambda x, y: (np.full((2, 3), 1.0) * np.exp(y) @ x, np.pad(np.broadcast_to(y * 2, (2,)), 1),
                      np.concatenate([np.reshape(y + 1, (1,)), x[0]]), np.broadcast_to(y, (5,))[1:],
                      np.cumsum(np.broadcast_to(y * 3, (4,)))),
        (normal(3, 2), np.array(0.5)),
    ),
    "axes of size one": (
        lambda x, y: (x + y, np.sum(x * y, axis=1), np.sum(x, axis=1) + y[0], x @ y, (x * y).T,
                      np.max(x - y, axis=(0, 1)), np.squeeze(x) * np.squeeze(y), x[:, 0] + 1),
        (normal(5, 1), normal(1, 5)),
    ),
    "gather": (
        lambda x, i, j: (x[i], x[i, j], x[:, j], x[i][:, None] * 2, np.take(x, j, axis=1),
                         x[i[:, None], j], np.exp(x)[i] + 1, x.T[j], x[np.arange(4), i], x[i[0]]),
        (X2, np.array([0, 3, -1, 2]), np.array([5, 0, 0, -6])),
    ),
    "pad": (
        lambda x: (np.pad(x, 1), np.pad(x, ((0, 2), (3, 0))), np.pad(x[:, ::2], ((1, 1), (0, 0))),
                   np.pad(x, 1, constant_values=7.0) * 2, np.pad(x.T, ((2, 1), (0, 1))) + 1,
                   np.sum(np.pad(x, 2), axis=0), np.pad(x, 1, mode="edge"),
                   # windows of other sizes and places, which begin at one address
                   np.pad(x[:, :1], ((0, 0), (0, 5))) + np.pad(x[:, 5:], ((0, 0), (5, 0)))
                   + np.pad(x[:, 1:5], ((0, 0), (1, 1)))),
        (X2,),
    ),
    "join and cut": (
        lambda x, y: (np.concatenate([x, y], axis=0), np.concatenate([x.T, y.T], axis=1),
                      np.stack([x, x + 1], axis=1), np.split(np.exp(x), 2, 1), np.vstack([x, x]),
                      np.concatenate([x[:, ::-1], x * 2], axis=1), np.tile(x, (2, 1)),
                      np.repeat(x, 2, axis=0), np.roll(x, 3), np.flip(x)),
        (X2, normal(2, 6)),
    ),
    "running sums": (
        lambda x: (np.cumsum(x, axis=0), np.cumsum(x, axis=1), np.cumsum(x.T, axis=1),
                   np.cumsum(x[::-1] * 2, axis=0), np.cumsum(x)),
        (X2,),
    ),
    "running sums of integers": (lambda x: (np.cumsum(x, axis=0), np.cumsum(x > 3)), (I2,)),
    "casts": (
        lambda x, i: (x.astype("float32"), x.astype("int8"), x.astype(bool), i.astype("float64"),
                      (x > 0).astype("float32") * x, i.astype("uint8"), (x * 3).astype(int) // 2),
        (X2, I2),
    ),
    "products of vectors": (
        lambda a, b: (a @ b, np.outer(a, b), np.dot(a, b) * a, np.inner(a, a) + b, np.sum(a * b)),
        (normal(7), normal(7)),
    ),
    "products of matrices": (
        lambda a, b, v: (a @ b, b.T @ a.T, a @ b[:, :1], a[:1] @ b, a @ v, v @ b, a[:, :1] @ b[:1],
                         a[::-1] @ b, a @ b[::-1, ::2], a[:, ::2] @ b[1::2],
                         (a + 1) @ (b * 2)),
        (X2, normal(6, 5), normal(6)),
    ),
    "products of integers": (
        lambda a, b: (a @ b, a[:, 0] @ b[0, :4], (a > 3) @ (b > 3)),
        (I2, I2.reshape(6, 4)),
    ),
    "einsums": (
        lambda x, y, m: (
            np.einsum("bij,bjk->bik", x, y), np.einsum("bij,bjk->kib", x, y),
            np.einsum("bij,bij->b", x, x), np.einsum("bij,kj->kbi", x, m), np.einsum("bij->jb", x),
            np.einsum("bij,bjk,lk->bil", x, y, m[:, :4]),
            np.einsum("bij,cij->bc", x, x), np.einsum("bij,j->bi", x, m[0]),
            np.einsum("ij,ij->", m, m), np.einsum("ii->i", m[:4]), np.einsum("bij,bik->jk", x, x),
        ),
        (X3, normal(2, 4, 4), normal(5, 4)),
    ),
    "what follows a product": (
        lambda x, w, b, r, s: (
            np.maximum(x @ w + b, 0), np.tanh(x @ w) * s, x @ w + r, (x @ w) * (x @ w > 0),
            np.where((x @ w).T > 0, r.T, 0.0), np.sum(x @ w, axis=1), softmax(x @ w + b),
            (x @ w).reshape(2, -1) + 1, x @ w - np.max(x @ w),
        ),
        (X2, normal(6, 5), normal(5), normal(4, 5), np.array(0.1)),
    ),
    "updates inside a product": (
        lambda w, v, x, g: (w - 0.1 * (x.T @ g), v * 0.9 + x.T @ g, w * 2),
        (normal(6, 5), normal(6, 5), X2, normal(4, 5)),
    ),
    "batches of products": (
        lambda a, b: (a @ b, np.swapaxes(b, 1, 2) @ np.swapaxes(a, 1, 2), a[0] @ b, a @ b[1],
                      np.tanh(a @ b) + 1, (a @ b).sum(axis=0), a[:, None] @ b[None]),
        (X3, normal(2, 4, 5)),
    ),
    "depth zero and one": (
        lambda a, b: (a[:, :0] @ b[:0], a[:, :1] @ b[:1], a[:0] @ b, a @ b[:, :0]),
        (X2, normal(6, 3)),
    ),
    "sums after broadcasts": (
        lambda x, r: (np.sum(np.broadcast_to(r, (4, 6)), axis=0), np.mean(x * r, axis=0),
                      np.sum(x + r), np.max(np.broadcast_to(r[:, None], (6, 3)), axis=1),
                      np.prod(np.broadcast_to(r[:2], (3, 2)), axis=0),
                      np.sum(np.ones((3, 4)), axis=1) + x[0, 0]),
        (X2, normal(6)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CALLS)
def test_calls(name, dtype):
    f, args = CALLS[name]
    args = tuple(x.astype(dtype) if x.dtype.kind == "f" else x for x in args)
    check_compiled(f, *args, ulps=64, python=dtype == "float32", separate=dtype == "float32")


def test_a_wide_function_is_cut_into_kernels():
    """More arrays than a kernel may touch."""

    def f(*xs):
        return (sum(xs[1:], xs[0]), *(x * 2 for x in xs))

    xs = [np.full(5, float(i)) for i in range(100)]
    check_compiled(f, *xs, python=False, separate=False)


@pytest.mark.parametrize("length", [300, 1200])
def test_a_long_chain_compiles_without_recursion(length):
    def f(x):
        y = x
        for i in range(length):
            y = y * 0.5 + x if i % 3 else np.maximum(y, x)
        return y, np.sum(y)

    x = normal(4)
    executable = gd.compile(f).lower(x)
    graph = gd.trace(f, x)
    for got, want in zip(executable(x), graph.evaluate(x), strict=True):
        assert_same(got, want, 64)
    assert len(executable.kernels) < 3 + length / 20
