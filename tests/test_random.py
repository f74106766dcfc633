"""gd.random: published vectors, distributions, independence, and the same numbers everywhere."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.special
import scipy.stats as st
from programs import run_in_python
from scalar_kernels import loop
from ulps import errors, exactly, specials, uniform

import graphdl as gd
from graphdl.errors import ArgumentError, DtypeError, GradientError, ShapeError
from graphdl.kernels.scalar_table import SCALARS
from graphdl.ops.random import philox4x32

KEY = gd.random.key(20_11)
N = 100_000

#: The known answers of Random123 for philox4x32-10: counter, key, words.
VECTORS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


def words_of(text: str) -> Any:
    return np.array([int(word, 16) for word in text.split()], np.uint32)


@pytest.mark.parametrize(("counter", "key", "words"), VECTORS)
def test_known_answers(counter: str, key: str, words: str) -> None:
    c, k, want = words_of(counter), words_of(key), words_of(words)
    np.testing.assert_array_equal(philox4x32(c, k), want)
    first, stream = c.view(np.uint64)
    operands = [np.full(4, value) for value in (*k, first, stream)]
    index = np.arange(4, dtype=np.uint64)
    native = loop("philox", "uint32", "uint32", "uint64", "uint64", "uint64")
    np.testing.assert_array_equal(native(*operands, index), want)
    wide = loop("philox_wide", "uint32", "uint32", "uint64", "uint64", "uint64")
    np.testing.assert_array_equal(wide(*operands, index)[:2], want.view(np.uint64))


def test_bits_are_the_words_in_order() -> None:
    blocks = np.arange(5, dtype=np.uint32)
    zeros = np.zeros_like(blocks)
    words = np.stack(philox4x32((blocks, zeros, zeros, zeros), KEY), axis=1).ravel()
    np.testing.assert_array_equal(gd.random.bits(KEY, 19), words[:19])
    np.testing.assert_array_equal(
        gd.random.bits(KEY, (3, 3), np.uint64).ravel(), words[:18].view("u8")
    )
    np.testing.assert_array_equal(gd.random.bits(KEY, 7, "uint8"), words[:7].astype("u1"))


# --- the same numbers everywhere ---------------------------------------------------------------

LOGITS = np.log([0.2, 0.5, 0.3])

SAMPLERS: dict[str, Callable[..., Any]] = {
    "bits": gd.random.bits,
    "bits64": functools.partial(gd.random.bits, dtype="uint64"),
    "uniform": gd.random.uniform,
    "uniform32": functools.partial(gd.random.uniform, dtype="float32", minval=-1.0, maxval=3.0),
    "normal": gd.random.normal,
    "normal32": functools.partial(gd.random.normal, dtype="float32"),
    "truncated_normal": lambda key, shape: gd.random.truncated_normal(key, -0.5, 2.0, shape),
    "bernoulli": lambda key, shape: gd.random.bernoulli(key, 0.3, shape),
    "exponential": gd.random.exponential,
    "gumbel32": functools.partial(gd.random.gumbel, dtype="float32"),
    "laplace": gd.random.laplace,
    "logistic32": functools.partial(gd.random.logistic, dtype="float32"),
    "cauchy": gd.random.cauchy,
    "randint": lambda key, shape: gd.random.randint(key, shape, -3, 1000),
    "categorical": lambda key, shape: gd.random.categorical(key, LOGITS, -1, shape),
    "gamma": lambda key, shape: gd.random.gamma(key, 0.7, shape),
    "loggamma32": lambda key, shape: gd.random.loggamma(key, 2.5, shape, "float32"),
    "beta": lambda key, shape: gd.random.beta(key, 0.5, 3.0, shape),
    "dirichlet": lambda key, shape: gd.random.dirichlet(key, np.array([0.2, 1.0, 3.0]), shape),
    "poisson": lambda key, shape: gd.random.poisson(key, 12.5, shape),
    "choice": lambda key, shape: gd.random.choice(key, 9, shape, p=np.arange(9.0)),
    "permutation": lambda key, shape: gd.random.permutation(key, np.arange(15).reshape(shape)),
    "split": lambda key, shape: gd.random.split(key, shape),
    "fold_in": lambda key, shape: gd.random.fold_in(key, 3),
}  # fmt: skip


def close(got: Any, want: Any) -> None:
    """Equal, floats up to the rounding of elementary functions."""
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    rtol = 64 * np.finfo(want.dtype).eps if want.dtype.kind == "f" else 0
    np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("name", SAMPLERS)
def test_alone_fused_batched_and_in_loops(name: str) -> None:
    sample = SAMPLERS[name]
    shape = (3, 5)
    alone = sample(KEY, shape)
    graph = gd.trace(lambda key: sample(key, shape), KEY)
    close(graph.evaluate(KEY), alone)
    if name not in ("beta", "permutation"):  # whose second parts begin elsewhere
        np.testing.assert_array_equal(sample(KEY, 15).ravel()[: alone.size], alone.ravel())

    keys = gd.random.split(KEY, 4)
    each = np.stack([sample(key, shape) for key in keys])

    @gd.compile
    def every(key: Any, keys: Any) -> Any:
        twice = sample(key, shape), sample(key, shape)
        turned = np.transpose(sample(key, shape)) * 1
        batch = gd.vmap(lambda key: sample(key, shape))(keys)
        steps = gd.scan(lambda carry, key: (carry, sample(key, shape)), 0, keys)[1]
        return twice, turned, batch, steps

    (first, second), turned, batch, steps = every(KEY, keys)
    for got in (first, second, turned.T / np.ones((), turned.dtype)):
        close(np.asarray(got, alone.dtype), alone)
    close(batch, each)
    close(steps, each)


def test_any_number_of_threads_gives_the_same_numbers() -> None:
    found = []
    for threads in (1, 2, 3):
        gd.set_num_threads(threads)
        found.append((gd.random.normal(KEY, N).tobytes(), gd.random.bits(KEY, N).tobytes()))
    gd.set_num_threads(2)
    assert found[0] == found[1] == found[2]


def test_numbers_do_not_depend_on_what_uses_them() -> None:
    """Sums over rows, noise beside an array, behind a product, in slices: each reads the same."""
    x = np.random.default_rng(0).normal(size=(70, 130))
    noise = gd.random.normal(KEY, x.shape)

    @gd.compile
    def uses(key: Any, x: Any) -> Any:
        e = gd.random.normal(key, x.shape)
        return (
            x + e, np.sum(x * e, axis=1), np.sum(e, axis=0), e.T + x.T, (x @ x.T) + e[:, :70],
            np.tanh(x @ np.ones((130, 130)) + e), e[3:60:2, ::-1],
        )  # fmt: skip

    want = (
        x + noise, np.sum(x * noise, axis=1), np.sum(noise, axis=0), noise.T + x.T,
        x @ x.T + noise[:, :70], np.tanh(x @ np.ones((130, 130)) + noise), noise[3:60:2, ::-1],
    )  # fmt: skip
    for got, expected in zip(uses(KEY, x), want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-11)


def test_bits_in_loops_of_many_sizes() -> None:
    """Long loops make bits by whole blocks, in strips: rows that begin within a block, and ends."""
    for dtype in ("uint32", "uint64"):
        stream = gd.random.bits(KEY, 40_000, dtype)
        wide = (37, 1030), (3, 2051), (5, 65), (7, 66), (40, 31), (1, 1), (2, 3, 1025)
        for shape in wide:
            bits, largest, smallest = gd.compile(
                lambda key, shape=shape, dtype=dtype: (
                    (bits := gd.random.bits(key, shape, dtype)),
                    np.max(bits, axis=-1),
                    np.min(bits.T, axis=0),
                )
            )(KEY)
            np.testing.assert_array_equal(bits.ravel(), stream[: bits.size])
            np.testing.assert_array_equal(largest, bits.max(axis=-1))
            np.testing.assert_array_equal(smallest, bits.T.min(axis=0))
    graph = gd.trace(lambda key: gd.random.bits(key, (2, 1100)), KEY)
    np.testing.assert_array_equal(run_in_python(graph, [KEY])[0], graph.evaluate(KEY))
    kernel = gd.compile(lambda key: gd.random.uniform(key, 5000)).lower(KEY).kernels[0]
    assert "scratch" in kernel.source


# --- distributions -----------------------------------------------------------------------------

CONTINUOUS = {
    "uniform": st.uniform(),
    "normal": st.norm(),
    "exponential": st.expon(),
    "gumbel": st.gumbel_r(),
    "laplace": st.laplace(),
    "logistic": st.logistic(),
    "cauchy": st.cauchy(),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_distributions(name: str, dtype: str) -> None:
    sample = getattr(gd.random, name)(KEY, N, dtype)
    assert sample.dtype == dtype
    assert st.kstest(sample, CONTINUOUS[name].cdf).pvalue > 0.01
    assert np.all(np.isfinite(sample))


@pytest.mark.parametrize("bounds", [(-1.0, 0.5), (2.0, 5.0), (-9.0, -6.0), (8.0, np.inf)])
def test_truncated_normal(bounds: tuple[float, float]) -> None:
    sample = gd.random.truncated_normal(KEY, *bounds, N)
    assert st.kstest(sample, st.truncnorm(*bounds).cdf).pvalue > 0.01
    assert sample.min() >= bounds[0]
    assert sample.max() <= bounds[1]


def chi_square(counts: Any, probabilities: Any) -> float:
    return float(st.chisquare(counts, probabilities * counts.sum()).pvalue)


def test_discrete_distributions() -> None:
    p = np.array([0.1, 0.2, 0.05, 0.65])
    counts = np.bincount(gd.random.categorical(KEY, np.log(p), shape=N), minlength=4)
    assert chi_square(counts, p) > 0.01
    for low, high in ((-3, 7), (0, 2**33 + 1), (-(2**63), 2**63 - 1)):
        sample = gd.random.randint(KEY, N, low, high)
        assert low <= sample.min() <= sample.max() < high
        scaled = (sample.astype(float) - low + 0.5) / (float(high) - low)
        assert chi_square(np.histogram(scaled, 10, (0, 1))[0], np.full(10, 0.1)) > 0.01
    np.testing.assert_array_equal(gd.random.randint(KEY, 4, 5, 5), 5)
    rate = gd.random.bernoulli(KEY, np.array([0.0, 0.25, 1.0], "float32"), (N, 3)).mean(axis=0)
    assert (rate[0], rate[2]) == (0, 1)
    assert abs(rate[1] - 0.25) < 4 * np.sqrt(0.25 * 0.75 / N)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("a", [0.03, 0.4, 1.0, 7.5, 1e5])
def test_gamma(a: float, dtype: str) -> None:
    log_x = gd.random.loggamma(KEY, a, N // 2, dtype)
    assert log_x.dtype == dtype
    tiny = np.minimum(log_x, -300.0, dtype=np.float64)  # there P(a, x) = x^a / gamma(a + 1)
    p = np.where(
        log_x < -300,
        np.exp(np.minimum(a * tiny - scipy.special.gammaln(a + 1), 0.0)),
        scipy.special.gammainc(a, np.exp(np.maximum(log_x, -300.0, dtype=np.float64))),
    )
    assert st.kstest(p, "uniform").pvalue > 0.01
    close(gd.random.gamma(KEY, a, 100, dtype), np.exp(log_x[:100]))


def test_what_is_made_of_gamma_samples() -> None:
    for a, b in ((0.3, 0.2), (2.0, 5.0)):
        assert st.kstest(gd.random.beta(KEY, a, b, N), st.beta(a, b).cdf).pvalue > 0.01
    assert st.kstest(gd.random.chisquare(KEY, 3.0, N), st.chi2(3).cdf).pvalue > 0.01
    alpha = np.array([0.001, 0.5, 4.0])
    sample = gd.random.dirichlet(KEY, alpha, (N,))
    np.testing.assert_allclose(sample.sum(axis=1), 1, rtol=1e-12)
    for i in (1, 2):
        marginal = st.beta(alpha[i], alpha.sum() - alpha[i])
        assert st.kstest(sample[:, i], marginal.cdf).pvalue > 0.01


@pytest.mark.parametrize("rate", [0.02, 3.0, 9.99, 10.0, 47.0, 1e4])
def test_poisson(rate: float) -> None:
    law = st.poisson(rate)
    inner = np.unique(law.ppf(np.linspace(0.02, 0.98, 15)))
    sample = gd.random.poisson(KEY, rate, N)
    counts = np.diff([0, *((sample <= k).sum() for k in inner), N])
    chances = np.diff([0.0, *law.cdf(inner), 1.0])
    assert chi_square(counts, chances) > 0.01


def test_poisson_of_odd_rates() -> None:
    rates = np.array([0.0, -1.0, np.nan, np.inf, 1e300, 1e15])
    sample = gd.random.poisson(KEY, rates)
    np.testing.assert_array_equal(sample[:5], [0, -1, -1, -1, -1])
    assert abs(sample[5] - 1e15) < 6 * np.sqrt(1e15)


def test_gamma_of_odd_shapes() -> None:
    sample = gd.random.gamma(KEY, np.array([0.0, -1.0, np.nan, np.inf, 1e-300, 1e300]))
    np.testing.assert_array_equal(np.isnan(sample), [True, True, True, False, False, False])
    assert (sample[3], sample[4]) == (np.inf, 0)
    np.testing.assert_allclose(sample[5], 1e300)


def test_permutation_and_choice() -> None:
    orders = gd.vmap(lambda key: gd.random.permutation(key, 4))(gd.random.split(KEY, 24_000))
    codes = orders @ [64, 16, 4, 1]
    values, counts = np.unique(codes, return_counts=True)
    assert len(values) == 24  # all permutations of 4, equally often
    assert chi_square(counts, np.full(24, 1 / 24)) > 0.01
    x = np.arange(12.0).reshape(3, 4)
    columns = gd.random.permutation(KEY, x, axis=1)
    np.testing.assert_array_equal(np.sort(columns, axis=1), x)
    assert np.all(np.diff(columns, axis=0) == 4)
    mixed = gd.random.permutation(KEY, np.tile(np.arange(50), (40, 1)), 1, independent=True)
    np.testing.assert_array_equal(np.sort(mixed, axis=1), np.tile(np.arange(50), (40, 1)))
    assert len(np.unique(mixed, axis=0)) == 40

    p = np.array([1.0, 0.0, 2.0, 7.0])
    drawn = gd.random.choice(KEY, 4, (N,), p=p)
    assert not np.any(drawn == 1)
    assert chi_square(np.bincount(drawn)[[0, 2, 3]], p[[0, 2, 3]] / 10) > 0.01
    assert chi_square(np.bincount(gd.random.choice(KEY, 5, (N,))), np.full(5, 0.2)) > 0.01
    pairs = gd.vmap(lambda key: gd.random.choice(key, 4, (2,), False, p))(gd.random.split(KEY, N))
    first = np.bincount(pairs[:, 0], minlength=4)
    assert chi_square(first[[0, 2, 3]], p[[0, 2, 3]] / 10) > 0.01
    after = np.bincount(pairs[pairs[:, 0] == 3, 1], minlength=4)
    assert chi_square(after[[0, 2]], np.array([1, 2]) / 3) > 0.01
    rows = gd.random.choice(KEY, x, (2, 2), axis=1)
    assert rows.shape == (3, 2, 2)
    assert sorted(gd.random.choice(KEY, 6, (6,), False)) == list(range(6))


def test_bounds_of_uniform_samples() -> None:
    """Half-open also where scaling rounds, and empty intervals give the lower end."""
    low = np.float32(1.0)
    for high in (np.nextafter(low, np.float32(2)), np.float32(1.0000005)):
        sample = gd.random.uniform(KEY, N, "float32", low, high)
        assert low <= sample.min() <= sample.max() < high
    np.testing.assert_array_equal(gd.random.uniform(KEY, 3, np.float64, 2.0, 2.0), 2.0)


def test_tails_of_the_normal_distribution() -> None:
    """Beyond 4 standard deviations there are as many as there should be, in float32 too."""
    n, expected = 4_000_000, 4_000_000 * 2 * st.norm.sf(4)
    for dtype in ("float32", "float64"):
        count = int(np.sum(np.abs(gd.random.normal(KEY, n, dtype)) > 4))
        assert abs(count - expected) < 3 * np.sqrt(expected)


def test_keys_are_independent() -> None:
    """Samples of split, folded and neighbouring keys are uncorrelated with each other."""
    keys = [
        KEY,
        *gd.random.split(KEY, 3),
        *(gd.random.fold_in(KEY, i) for i in range(3)),
        gd.random.key(0),
        gd.random.key(1),
        gd.random.key(2**32),
    ]
    assert len({tuple(map(int, key)) for key in keys}) == len(keys)
    samples = np.stack([gd.random.normal(key, N) for key in keys])
    off_diagonal = np.corrcoef(samples)[~np.eye(len(keys), dtype=bool)]
    assert np.abs(off_diagonal).max() < 4.5 / np.sqrt(N)
    shifted = np.corrcoef(samples[0, 1:], samples[0, :-1])[0, 1]
    assert abs(shifted) < 4 / np.sqrt(N)


def test_many_keys_differ() -> None:
    keys = gd.random.split(KEY, (50, 400)).reshape(-1, 2)
    assert len(np.unique(keys, axis=0)) == len(keys)
    folded = gd.vmap(lambda i: gd.random.fold_in(KEY, i))(np.arange(1000))
    assert len(np.unique(np.concatenate([keys, folded]), axis=0)) == len(keys) + len(folded)


# --- gradients ---------------------------------------------------------------------------------


def test_gradients_flow_to_parameters() -> None:
    def loss(mean: Any, scale: Any, low: Any, high: Any) -> Any:
        x = mean + scale * gd.random.normal(KEY, (3,))
        y = gd.random.uniform(KEY, (3,), np.float64, low, high)
        z = gd.random.truncated_normal(KEY, low, high, (3,))
        return np.sum(np.sin(x) * y * z)

    gd.check_grads(loss, 0.3, 1.2, -0.4, 0.9)


def implicit_slope(a: Any, x: Any) -> Any:
    """d x / d a where the distribution function is held: differences of SciPy's inverse."""
    lower, upper = scipy.special.gammainc(a, x), scipy.special.gammaincc(a, x)

    def log_inverse(b: Any) -> Any:
        near, far = scipy.special.gammaincinv(b, lower), scipy.special.gammainccinv(b, upper)
        return np.log(np.where(lower < 0.5, near, far))

    h = a * 1e-3
    near, far = (log_inverse(a + k * h) - log_inverse(a - k * h) for k in (1, 2))
    return x * (8 * near - far) / (12 * h)


def test_gamma_gradients_are_implicit() -> None:
    a = np.repeat([0.05, 0.5, 1.0, 3.0, 40.0, 3e3, 4e4, 7e4, 1e7], 40)
    keep = gd.random.gamma(KEY, a) > 1e-200
    for dtype, rtol in (("float64", 1e-9), ("float32", 2e-5)):

        def total(a: Any, dtype: str = dtype) -> Any:
            x = gd.random.gamma(KEY, a, dtype=dtype)
            return np.sum(x.astype(np.float64)), x

        slope, x = gd.grad(total, has_aux=True)(a.astype(dtype))
        assert slope.dtype == dtype
        want = implicit_slope(a[keep], x[keep].astype(np.float64))
        np.testing.assert_allclose(slope[keep], want, rtol=rtol)


def test_gradients_of_expectations() -> None:
    """The mean gradient over many samples is the gradient of the mean, which is known."""

    @gd.value_and_grad
    def beta_mean(a: Any) -> Any:
        return np.mean(gd.random.beta(KEY, a, 2.0, (N,)))

    mean, slope = beta_mean(0.7)
    assert abs(mean - 0.7 / 2.7) < 4e-3
    assert abs(slope - 2 / 2.7**2) < 6e-3

    @gd.grad
    def square(alpha: Any) -> Any:  # E[p_0^2] = a (a + 1) / (s (s + 1))
        return np.mean(gd.random.dirichlet(KEY, alpha, (N,))[:, 0] ** 2)

    alpha, h = np.array([0.8, 1.5, 0.4]), 1e-6

    def exact(alpha: Any) -> Any:
        s = alpha.sum()
        return alpha[0] * (alpha[0] + 1) / (s * (s + 1))

    want = [(exact(alpha + h * e) - exact(alpha - h * e)) / (2 * h) for e in np.eye(3)]
    np.testing.assert_allclose(square(alpha), want, atol=4e-3)


def test_a_second_derivative_by_the_shape_is_refused() -> None:
    with pytest.raises(GradientError, match="second derivative of a gamma sample"):
        gd.grad(gd.grad(lambda a: gd.random.gamma(KEY, a)))(2.0)


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: gd.random.normal(0, (3,)), DtypeError, "gd.random.key(seed)"),
        (lambda: gd.random.normal(gd.random.split(KEY), 3), DtypeError, "gd.vmap"),
        (lambda: gd.random.key(1.5), DtypeError, "a seed is one integer"),
        (lambda: gd.random.key([1, 2]), DtypeError, "a seed is one integer"),
        (lambda: gd.random.fold_in(KEY, 0.5), DtypeError, "folded in"),
        (lambda: gd.random.normal(KEY, (-1,)), ShapeError, "negative"),
        (lambda: gd.random.normal(KEY, 2.5), DtypeError, "a shape must be an integer"),
        (lambda: gd.random.normal(KEY, 2, "int32"), DtypeError, "float32 or float64"),
        (lambda: gd.random.bits(KEY, 2, "int32"), DtypeError, "unsigned"),
        (lambda: gd.random.randint(KEY, 2, 0.0, 3), DtypeError, "bounds are integers"),
        (lambda: gd.random.randint(KEY, 2, 0, 3, "float32"), DtypeError, "gives integers"),
        (lambda: gd.random.bernoulli(KEY, np.ones(3), (2,)), ShapeError, "broadcast"),
        (lambda: gd.random.categorical(KEY, np.ones(3), -1, (2, 4)), ShapeError, None),
        (lambda: gd.random.categorical(KEY, np.ones((2, 3)), -1, (3,)), ShapeError, "end in (2,)"),
        (lambda: gd.random.categorical(KEY, 1.0), ShapeError, "need an axis"),
        (lambda: gd.random.dirichlet(KEY, 1.0), ShapeError, "at least one axis"),
        (lambda: gd.random.permutation(KEY, 2.0), ShapeError, "an array with an axis"),
        (lambda: gd.random.permutation(KEY, -2), ArgumentError, "no -2 numbers"),
        (lambda: gd.random.choice(KEY, 3, (4,), False), ShapeError, "replace=True"),
        (lambda: gd.random.choice(KEY, 3, p=np.ones(4)), ShapeError, "it needs (3,)"),
        (lambda: gd.random.choice(KEY, 3, p=np.ones(3, bool)), DtypeError, "not numbers"),
        (lambda: gd.random.choice(KEY, 0), ShapeError, "nothing to choose"),
    ],
)  # fmt: skip
def test_errors_say_what_to_write(call: Any, error: Any, message: str | None) -> None:
    if message is None:
        call()
        return
    with pytest.raises(error, match=re.escape(message)):
        call()


def test_a_key_is_made_of_a_seed() -> None:
    for seed in (0, 5, 2**40 + 3, -1):
        want = np.array([seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF], np.uint32)
        np.testing.assert_array_equal(gd.random.key(seed), want)
        np.testing.assert_array_equal(gd.compile(gd.random.key)(seed), want)
    np.testing.assert_array_equal(gd.random.key(np.int32(7)), [7, 0])


# --- quantiles ---------------------------------------------------------------------------------


def exact_ndtri(p: Any) -> Any:
    """The z whose normal distribution function is p, by Newton's method on its logarithm."""
    if not 0 < p < 1:
        return {0: -mpmath.inf, 1: mpmath.inf}.get(p, mpmath.nan)
    if 0.1 < p < 0.9:
        return mpmath.sqrt(2) * mpmath.erfinv(2 * p - 1)
    level = mpmath.log(min(p, 1 - p))
    z = mpmath.sqrt(-2 * level - mpmath.log(-4 * mpmath.pi * level))
    for _ in range(8):
        tail = mpmath.erfc(z / mpmath.sqrt(2)) / 2
        slope = mpmath.exp(-z * z / 2) / mpmath.sqrt(2 * mpmath.pi) / tail
        z += (mpmath.log(tail) - level) / slope
    return z if p > 0.5 else -z


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ndtri_agrees_with_mpmath(dtype: str) -> None:
    parts = [uniform(dtype, *ends, 200) for ends in ((0, 1), (0.49, 0.51), (0, 1e-3), (0.999, 1))]
    small = np.exp(np.linspace(np.log(np.finfo(dtype).smallest_subnormal), -1, 100)).astype(dtype)
    p = np.concatenate([*parts, small, specials(dtype)])
    got = loop("ndtri", dtype)(p)
    assert errors(got, exactly(exact_ndtri, (p,))).max() <= 4
    np.testing.assert_allclose(got, SCALARS["ndtri"].python(p), rtol=30 * np.finfo(dtype).eps)
