"""Reductions over small windows become combinations of strided arrays: pooling by reshape."""

import numpy as np
import pytest

import graphdl as gd
from graphdl.compiler.rewrite import simplify
from graphdl.compiler.small_windows import LARGEST, WIDEST, split_small_windows


def windows(x, a, b):
    return x.reshape(x.shape[0] // a, a, x.shape[1] // b, b)


def pooled(op, a, b):
    return lambda x: getattr(windows(x, a, b), op)((1, 3))


def numbers(shape, dtype=np.float64, seed=3):
    values = np.random.default_rng(seed).normal(size=shape) * 20
    return (values > 0) if dtype == np.bool_ else np.abs(values).astype(dtype)


def split(f, *args):
    graph = simplify(gd.trace(f, *args))
    return split_small_windows(graph) is not graph


def reductions(f, *args):
    graph = gd.compile(f).lower(*args).optimized
    return [node for node in graph.operations if node.op.family == "reduction"]


def standardised(x):
    w = windows(x, 2, 2)
    return (w - w.mean((1, 3), keepdims=True)) / (w.std((1, 3), keepdims=True) + 0.1)


SHAPES = [(2, 2), (3, 5), (5, 3), (4, 4), (8, 2), (1, 2), (2, 1), (2, WIDEST + 1), (9, 2)]
FUNCTIONS = {
    "square": lambda x: np.sum(windows(x * x, 2, 2), (1, 3)),
    "variance": lambda x: np.var(windows(x, 3, 2), (1, 3)),
    "one after the other": lambda x: windows(x, 2, 2).max(3).min(1),
    "transposed": lambda x: windows(x.T, 2, 2).swapaxes(1, 2).max((2, 3)),
    "channels in front": lambda x: x.reshape(2, -1, 2, 12, 2).mean((2, 4)),
    "three axes": lambda x: x.reshape(-1, 2, 4, 2, 3, 2).sum((1, 3, 5)),
    "of a row and a column": lambda x: windows(x * x[0] - x[:, :1], 2, 2).sum((1, 3)),
    "reversed": lambda x: windows(np.abs(x[::-1, ::-1]), 2, 2).max((1, 3)),
    "of a product": lambda x: windows(np.maximum(x @ x.T, 0.5), 2, 2).max((1, 3)),
    "standardised": standardised,
    "softmax": lambda x: (
        np.exp(windows(x, 2, 2)) / np.exp(windows(x, 2, 2)).sum((1, 3))[:, None, :, None]
    ),
    "pooled twice": lambda x: windows(windows(x, 2, 2).max((1, 3)), 1, 2).mean(3),
    "logical": lambda x: (
        np.any(windows(x > 9, 2, 2), (1, 3)),
        np.all(windows(x > 9, 2, 2), (1, 3)),
    ),
    "of a row that is computed": lambda x: windows(x * np.exp(x[0]), 2, 2).sum((1, 3)),
    "of numbers in order": lambda x: windows(x * np.arange(24.0), 2, 2).max((1, 3)),
    "of numbers alone": lambda x: windows(np.ones(x.shape) * 2 + x.sum(), 2, 2).sum((1, 3)),
    "kept": lambda x: (x * 2, windows(x * 2, 2, 2).min((1, 3))),
    "of a part": lambda x: windows(np.pad(x[2:], ((1, 1), (0, 0))), 2, 2).max((1, 3)),
}


@pytest.mark.parametrize(("a", "b"), SHAPES)
@pytest.mark.parametrize("op", ["max", "min", "sum", "prod", "mean"])
def test_windows_of_any_shape(op, a, b):
    f = pooled(op, a, b)
    x = numbers((11 * a, 13 * b))
    assert split(f, x) == (b > 1 and a > 1 and b <= WIDEST and a * b <= LARGEST)
    np.testing.assert_allclose(gd.compile(f)(x), f(x), rtol=1e-13)
    np.testing.assert_allclose(split_small_windows(gd.trace(f, x)).evaluate(x), f(x), rtol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8", "int32", "int64", "bool"])
@pytest.mark.parametrize("op", ["max", "min", "sum", "prod"])
def test_dtypes(op, dtype):
    f = pooled(op, 2, 3)
    x = numbers((22, 51), np.dtype(dtype))
    found, wanted = gd.compile(f)(x), f(x)
    assert found.dtype == wanted.dtype
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_extrema_are_exact_and_nan_goes_through():
    x = numbers((40, 62), np.float32)
    x[3, 5] = x[17, 30] = np.nan
    x[8, 8], x[9, 9] = np.inf, -np.inf
    for op in ("max", "min"):
        f = pooled(op, 2, 2)
        np.testing.assert_array_equal(gd.compile(f)(x), f(x))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_computed_on_the_way(name):
    f = FUNCTIONS[name]
    x = numbers((24, 24)) / 20
    found, wanted = gd.compile(f)(x), f(x)
    if not isinstance(wanted, tuple):
        found, wanted = (found,), (wanted,)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["square", "variance", "transposed", "three axes", "standardised"])
def test_no_reduction_is_left(name):
    assert not reductions(FUNCTIONS[name], numbers((24, 24)))


def test_gradients():
    for name in ("square", "variance", "standardised", "of a product"):
        x = numbers((24, 18)) / 20
        gd.check_grads(lambda x, f=FUNCTIONS[name]: np.sum(np.sin(f(x))), x, order=1)


def test_ties_share_the_gradient():
    x = np.round(numbers((32, 34)) / 20)
    weights = numbers((16, 17), seed=4)
    found = gd.compile(gd.grad(lambda x: np.sum(weights * windows(x, 2, 2).max((1, 3)))))(x)
    parts = windows(x, 2, 2)
    hit = parts == parts.max((1, 3), keepdims=True)
    share = weights[:, None, :, None] * hit / hit.sum((1, 3), keepdims=True)
    np.testing.assert_allclose(found, share.reshape(x.shape), rtol=1e-14)


def test_other_reductions_stay():
    x = numbers((40, 60))
    for f in (
        lambda x: x.reshape(40, 30, 2).max(2),  # windows of one axis
        lambda x: x.reshape(40, 15, 2, 2).sum((2, 3)),
        lambda x: x.reshape(20, 2, 60).sum(1),
        lambda x: x.reshape(20, 2, 30, 2).sum((0, 1, 2, 3)),
        gd.grad(lambda x: np.sum(windows(x, 2, 2).mean((1, 3)) ** 2)),  # one loop over windows
        lambda x: windows(x, 2, 2) - windows(x, 2, 2).mean((1, 3), keepdims=True),
        lambda x: x[:, :0].reshape(40, 1, 0).sum((1, 2)),
        lambda x: np.zeros((10, 2, 10, 2, 0)).sum((1, 3, 4)) + x[0, 0],
        lambda x: x.reshape(4, 10, 6, 10).sum((1, 3)),
        lambda x: np.max(np.pad(x, 1)[:-2, :-2].reshape(20, 2, 30, 2), (1, 3)),
    ):
        assert not split(f, x)


def test_what_is_dear_and_used_by_others_is_computed_once():
    def f(x):
        e = np.exp(windows(x, 2, 2))
        return e, e.sum((1, 3)), np.tanh(e).sum((1, 3))

    def exponentials(graph):
        return sum(node.type.size for node in graph.operations if node.op.name == "exp")

    x = numbers((40, 60)) / 20
    assert exponentials(gd.compile(f).lower(x).optimized) == x.size
    row = gd.compile(FUNCTIONS["of a row that is computed"]).lower(x).optimized
    assert exponentials(row) == x.shape[1]
    for found, wanted in zip(gd.compile(f)(x), f(x), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_a_long_computation_stays_one_loop():
    def f(x):
        for _ in range(60):
            x = np.sin(x * x + x)
        return windows(x, 2, 2).sum((1, 3))

    assert not split(f, numbers((40, 60)))


def test_windows_of_a_network_are_split_in_its_gradient():
    def loss(x, w):
        return np.sum((np.maximum(windows(x * w[0, 0], 2, 2).mean((1, 3)), 0) @ w.T) ** 2)

    assert split(gd.grad(loss, argnums=(0, 1)), numbers((40, 60)) / 20, np.ones((7, 30)))
    assert split(gd.grad(lambda x: np.sum(windows(x, 2, 2).max((1, 3)) ** 2)), numbers((40, 60)))


def test_what_is_made_has_the_users_lines():
    graph = split_small_windows(gd.trace(FUNCTIONS["variance"], numbers((24, 24))))
    assert all(node in graph.sources for node in graph.operations)


def test_many_pools_are_split_in_linear_time():
    def chain(x, count):
        for _ in range(count):
            x = np.repeat(np.repeat(windows(x, 2, 2).max((1, 3)), 2, 0), 2, 1) + x
        return x

    graph = gd.trace(lambda x: chain(x, 200), numbers((16, 16)))
    made = split_small_windows(graph)
    assert len(made.operations) < 30 * len(graph.operations)
