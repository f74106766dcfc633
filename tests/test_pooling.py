"""Pooling, local response normalisation, resizing: values against loops, gradients, kernels."""

import numpy as np
import pytest

import graphdl as gd
from graphdl import nn
from graphdl.errors import ArgumentError, ShapeError
from graphdl.ops.windows import window_pick, window_place
from tests.programs import check_compiled

#: Sizes, window, strides, padding, dilation, channels.
CASES = [
    ((6, 8), (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1), 5),
    ((7, 8), (3, 2), (2, 1), ((1, 1), (0, 1)), (1, 1), 3),
    ((7, 9), (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1), 70),
    ((9,), (3,), (2,), ((2, 2),), (2,), 20),
    ((4, 5, 3), (2, 2, 2), (1, 2, 1), ((1, 0), (0, 0), (0, 1)), (1, 1, 1), 2),
]


def windows_of(x, window, strides, padding, dilation):
    """For each place, the flat indices into x that its window holds, in row-major order."""
    sizes = x.shape[1:-1]
    index = np.arange(x.size).reshape(x.shape)
    outs = [
        (n + low + high - ((k - 1) * d + 1)) // s + 1
        for n, (low, high), k, d, s in zip(sizes, padding, window, dilation, strides, strict=True)
    ]
    for p in np.ndindex(x.shape[0], *outs, x.shape[-1]):
        found = []
        for k in np.ndindex(*window):
            at = [
                a * s + b * d - low
                for a, s, b, d, (low, _) in zip(p[1:-1], strides, k, dilation, padding, strict=True)
            ]
            if all(0 <= a < n for a, n in zip(at, sizes, strict=True)):
                found.append(index[(p[0], *at, p[-1])])
        yield p, found


def first_largest(x, indices):
    values = x.reshape(-1)[indices]
    return indices[int(np.argmax(values))]  # the first; NaN is the largest


@pytest.mark.parametrize("case", CASES, ids=str)
def test_windows_pick_the_first_of_the_largest(case):
    sizes, window, strides, padding, dilation, channels = case
    attrs = {"window": window, "strides": strides, "padding": padding, "dilation": dilation}
    rng = np.random.default_rng(0)
    x = rng.integers(0, 4, (2, *sizes, channels)).astype(np.float32)  # many equals
    x[0, 1, ..., 1] = np.nan
    y = rng.normal(size=x.shape).astype(np.float32)
    where = {p: first_largest(x, found) for p, found in windows_of(x, *attrs.values())}
    shape = tuple(n + 1 for n in max(where))
    places = np.array(list(where.values())).reshape(shape)
    np.testing.assert_array_equal(window_pick(x, x, **attrs), x.reshape(-1)[places])
    np.testing.assert_array_equal(window_pick(y, x, **attrs), y.reshape(-1)[places])
    g = rng.integers(-3, 4, shape).astype(np.float32)
    expected = np.zeros(x.size, np.float32)
    np.add.at(expected, places.reshape(-1), g.reshape(-1))
    np.testing.assert_array_equal(window_place(g, x, **attrs), expected.reshape(x.shape))
    check_compiled(
        lambda x, y, g: (
            window_pick(x, x, **attrs),
            window_pick(y, x, **attrs),
            window_place(g, x, **attrs),
        ),
        x, y, g, ulps=0, separate=False,
    )  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_pooling_is_what_loops_give_and_has_gradients(case):
    sizes, window, strides, padding, dilation, channels = case
    rng = np.random.default_rng(0)
    x = rng.permutation(2 * np.prod(sizes) * channels).reshape((2, *sizes, channels)) / 7.0
    given = {"strides": strides, "padding": padding}
    if set(dilation) == {1}:
        out = gd.compile(lambda x: nn.avg_pool(x, window, **given))(x)
        full = gd.compile(lambda x: nn.avg_pool(x, window, count_padding=True, **given))(x)
        for p, found in windows_of(x, window, strides, padding, dilation):
            assert out[p] == pytest.approx(np.mean(x.reshape(-1)[found]))
            assert full[p] == pytest.approx(np.sum(x.reshape(-1)[found]) / np.prod(window))
        small = x[:1, ..., :3] / np.abs(x).max()
        gd.check_grads(lambda x: np.sum(np.sin(nn.avg_pool(x, window, **given))), small)
    given["dilation"] = dilation
    out = gd.compile(lambda x: nn.max_pool(x, window, **given))(x)
    for p, found in windows_of(x, window, strides, padding, dilation):
        assert out[p] == x.reshape(-1)[found].max()
    gd.check_grads(lambda x: np.sum(np.sin(nn.max_pool(x, window, **given))), x[..., :2] / 50)


def test_large_windows_are_pooled_axis_by_axis_with_the_same_gradient():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 5, (2, 12, 11, 3)).astype(np.float64)
    attrs = {"window": (5, 4), "strides": (3, 2), "padding": ((2, 1), (1, 1)), "dilation": (1, 1)}
    direct = lambda x: window_pick(x, x, **attrs)  # noqa: E731
    pooled = lambda x: nn.max_pool(x, (5, 4), strides=(3, 2), padding=((2, 1), (1, 1)))  # noqa: E731
    np.testing.assert_array_equal(pooled(x), direct(x))
    g = rng.normal(size=direct(x).shape)
    slopes = [gd.grad(lambda x, f=f: np.sum(f(x) * g))(x) for f in (direct, pooled)]
    np.testing.assert_allclose(*slopes)


def test_vmap_of_windows():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 2, 6, 6, 2))
    f = gd.grad(lambda x: np.sum(nn.max_pool(x, 3, strides=2) ** 2))
    np.testing.assert_allclose(gd.vmap(f)(x), [f(example) for example in x])


def test_adaptive_pooling_cuts_as_documented():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 7, 6, 3))
    for m in (1, 2, 3, 4, 7):
        mean, top = nn.adaptive_avg_pool(x, (m, 3)), nn.adaptive_max_pool(x, (m, 3))
        for i in range(m):
            rows = x[:, i * 7 // m : -(-(i + 1) * 7 // m)]
            tiles = rows.reshape(2, -1, 3, 2, 3)
            np.testing.assert_allclose(mean[:, i], tiles.mean(axis=(1, 3)))
            np.testing.assert_allclose(top[:, i], tiles.max(axis=(1, 3)))
    gd.check_grads(lambda x: np.sum(np.sin(nn.adaptive_avg_pool(x, (4, 3)))), x)
    gd.check_grads(lambda x: np.sum(np.sin(nn.adaptive_max_pool(x, (4, 3)))), x)


def test_global_pooling():
    x = np.random.default_rng(0).normal(size=(2, 4, 3, 5, 6))
    np.testing.assert_allclose(nn.global_avg_pool(x), x.mean(axis=(1, 2, 3)))
    np.testing.assert_allclose(
        nn.global_max_pool(x, layout="channels_first"), x.max(axis=(2, 3, 4))
    )


@pytest.mark.parametrize("size", [1, 2, 3, 5, 9])
def test_local_response_normalisation_is_its_formula(size):
    x = np.random.default_rng(0).normal(size=(2, 3, 7))
    expected = np.zeros_like(x)
    for c in range(7):
        near = x[..., max(c - size // 2, 0) : c + (size - 1) // 2 + 1]
        expected[..., c] = x[..., c] / (1.5 + 0.3 * (near**2).sum(-1)) ** 0.6
    f = lambda x: nn.local_response_norm(x, size, alpha=0.3, beta=0.6, k=1.5)  # noqa: E731
    np.testing.assert_allclose(f(x), expected)
    np.testing.assert_allclose(gd.compile(f)(x), expected)
    gd.check_grads(lambda x: np.sum(np.sin(f(x))), x)


@pytest.mark.parametrize("method", ["nearest", "linear"])
@pytest.mark.parametrize("align_corners", [False, True])
def test_resizing_interpolates_between_the_positions_documented(method, align_corners):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 5, 2))
    for m in (1, 2, 3, 5, 7, 10, 15):
        i = np.arange(m)
        at = i * 4 / max(m - 1, 1) if align_corners else np.clip((i + 0.5) * 5 / m - 0.5, 0, 4)
        if method == "linear":
            expected = np.stack(
                [[np.interp(at, range(5), row) for row in image.T] for image in x]
            ).swapaxes(1, 2)
        else:
            expected = x[:, np.floor(at + 0.5 - 1e-9 * (not align_corners)).astype(int)]
        f = lambda x, m=m: nn.resize(x, m, method, align_corners=align_corners)  # noqa: E731
        np.testing.assert_allclose(f(x), expected, atol=1e-12)
        np.testing.assert_allclose(gd.compile(f)(x), expected, atol=1e-12)
    f = lambda x: np.sum(np.sin(nn.resize(x, (7, 4), method, align_corners=align_corners)))  # noqa: E731
    gd.check_grads(f, rng.normal(size=(1, 5, 3, 2)))


def test_resizing_keeps_what_is_not_finite_in_its_place():
    x = np.array([0.0, np.inf, 1.0, 2.0]).reshape(1, 4, 1)
    out = nn.resize(x, 8)[0, :, 0]
    assert np.isfinite(out[[0, 6, 7]]).all()


X = np.ones((2, 6, 6, 4))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.max_pool(X, 2, padding=2), ShapeError, "would lie outside"),
        (lambda: nn.max_pool(X, 0), ArgumentError, "window=0"),
        (lambda: nn.avg_pool(X, (2, 2, 2)), ArgumentError, "for 2 spatial axes"),
        (lambda: nn.adaptive_avg_pool(X[:, :0], 2), ArgumentError, "is empty"),
        (lambda: nn.resize(X, 3, "cubic"), ArgumentError, '"nearest" or "linear"'),
        (lambda: nn.local_response_norm(X, 0), ArgumentError, "size=0"),
    ],
)
def test_errors_say_what_fits(call, error, message):
    with pytest.raises(error, match=message):
        call()
