"""Rows of few elements: many of them side by side, one in each lane of a vector."""

import numpy as np
import pytest

import graphdl as gd
from graphdl.kernels.cpu import pool
from graphdl.kernels.short_rows import LANES, SHORT

WIDTHS = (2, 3, 7, 8, 9, 10, SHORT - 1, SHORT, SHORT + 1)
COUNTS = (1, 2, LANES - 1, LANES, LANES + 1, 2 * LANES + 17)


def numbers(*shape, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 2 if dtype == np.bool_ else 50, shape).astype(dtype)


def softmax(x):
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


def normalised(x, scale, shift):
    centred = x - np.mean(x, axis=1, keepdims=True)
    return centred / np.sqrt(np.mean(centred**2, axis=1, keepdims=True) + 1e-5) * scale + shift


def is_side_by_side(executable):
    return any("for first in" in kernel.source for kernel in executable.kernels)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("width", WIDTHS)
def test_softmax(width, dtype):
    f = gd.compile(softmax)
    assert is_side_by_side(f.lower(gd.spec((5, width), dtype))) == (width <= SHORT)
    for count in COUNTS:
        x = numbers(count, width, dtype=dtype)
        np.testing.assert_allclose(f(x), softmax(x), rtol=1e-5 if dtype == "float32" else 1e-13)


@pytest.mark.parametrize("width", [1, 3, 10, 16])
def test_gradients_with_sums_over_rows_columns_and_everything(width):
    def loss(x, scale, shift, weights):
        return np.sum(normalised(x, scale, shift) * weights) + np.sum(softmax(x)[:, 0])

    step = gd.value_and_grad(loss, argnums=(0, 1, 2))
    for count in (1, 65, 200):
        args = (
            numbers(count, width),
            numbers(width),
            numbers(width),
            numbers(count, width, seed=1),
        )
        found, wanted = gd.compile(step)(*args), gd.trace(step, *args).evaluate(*args)
        np.testing.assert_allclose(found[0], wanted[0], rtol=1e-11)
        for a, b in zip(found[1], wanted[1], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "uint32", "int64", "bool"])
def test_dtypes(dtype):
    def f(x):
        largest = np.max(x, axis=1, keepdims=True)
        return np.sum((x == largest) * np.arange(x.shape[1]), axis=1), x < largest, largest

    for width in (3, 10, 16):
        x = numbers(131, width, dtype=dtype)
        for a, b in zip(gd.compile(f)(x), f(x), strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype


@pytest.mark.parametrize(
    "seen",
    [
        lambda x: x[:, ::2],
        lambda x: x[::-1, ::-1],
        lambda x: x[3:, 1:9],
        lambda x: np.broadcast_to(x[0], x.shape),
    ],
    ids=["every other", "reversed", "inside", "one row"],
)
def test_rows_that_do_not_lie_in_order(seen):
    x = numbers(150, 12)
    f = gd.compile(lambda x: softmax(seen(x)))
    assert is_side_by_side(f.lower(x))
    np.testing.assert_allclose(f(x), softmax(seen(x)), rtol=1e-12)


def test_rows_that_lie_across():
    """The loops may follow the memory instead; the numbers are the same."""
    x = numbers(9, 70)
    np.testing.assert_allclose(gd.compile(lambda x: softmax(x.T))(x), softmax(x.T), rtol=1e-12)


def test_special_values_stay_in_their_rows():
    x = numbers(100, 10)
    x[7, 3], x[8, 9], x[64, 0] = np.nan, np.inf, -np.inf
    with np.errstate(invalid="ignore"):
        wanted = softmax(x)
    np.testing.assert_allclose(gd.compile(softmax)(x), wanted, rtol=1e-12)


def test_nothing_beyond_the_rows_is_written():
    whole = np.full((70, 12), 5.0, np.float32)

    @gd.compile
    def f(x):
        x[1:67, 1:11] = softmax(x[1:67, 1:11])
        return x

    wanted = whole.copy()
    wanted[1:67, 1:11] = 0.1
    np.testing.assert_allclose(f(whole), wanted, rtol=1e-6)


def test_one_thread_or_two():
    step = gd.compile(gd.value_and_grad(lambda x, w: np.sum(softmax(x) * w)))
    x, w = numbers(40_000, 10, dtype=np.float32), numbers(40_000, 10, dtype=np.float32, seed=1)
    before = pool.num_threads()
    try:
        gd.set_num_threads(1)
        one = step(x, w)
        gd.set_num_threads(2)
        two = step(x, w)
    finally:
        gd.set_num_threads(before)
    assert one[0] == two[0]
    np.testing.assert_array_equal(one[1], two[1])


def test_rows_of_a_matrix_product_start_sooner_one_by_one():
    f = gd.compile(lambda x, w: softmax(x @ w + 1.0))
    x, w = numbers(70, 20), numbers(20, 10)
    assert not is_side_by_side(f.lower(x, w))
    np.testing.assert_allclose(f(x, w), softmax(x @ w + 1.0), rtol=1e-12)
