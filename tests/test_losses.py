"""Losses against their formulas in float64, at extreme logits, and their gradients."""

import numpy as np
import pytest

import graphdl as gd
from graphdl import losses

FLOATS = [np.float32, np.float64]


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _cross_entropy(logits, probabilities):
    softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return -(probabilities * np.log(softmax)).sum(-1).mean()


def _huber(p, t, delta):
    e = np.abs(p - t)
    return np.where(e <= delta, e * e / 2, delta * (e - delta / 2)).mean()


# (loss, formula, how targets are drawn)
LOSSES = {
    "mean_squared_error": (
        losses.mean_squared_error, lambda p, t: ((p - t) ** 2).mean(), np.random.Generator.normal,
    ),
    "mean_absolute_error": (
        losses.mean_absolute_error, lambda p, t: np.abs(p - t).mean(), np.random.Generator.normal,
    ),
    "huber": (losses.huber, lambda p, t: _huber(p, t, 1.0), np.random.Generator.normal),
    "huber, delta 0.3": (
        lambda p, t: losses.huber(p, t, delta=0.3), lambda p, t: _huber(p, t, 0.3),
        np.random.Generator.normal,
    ),
    "binary_cross_entropy": (
        losses.binary_cross_entropy,
        lambda p, t: -(t * np.log(_sigmoid(p)) + (1 - t) * np.log(1 - _sigmoid(p))).mean(),
        np.random.Generator.random,
    ),
    "softmax_cross_entropy": (
        losses.softmax_cross_entropy, _cross_entropy,
        lambda rng, size: rng.dirichlet(np.ones(size[-1]), size[:-1]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", [(7,), (6, 5), (2, 3, 4)])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_its_formula_plain_and_compiled(name, dtype, shape):
    loss, formula, draw = LOSSES[name]
    rng = np.random.default_rng(0)
    predictions = rng.normal(scale=2.0, size=shape).astype(dtype)
    targets = draw(rng, size=shape).astype(dtype)
    expected = formula(predictions.astype(np.float64), targets.astype(np.float64))
    for function in (loss, gd.compile(loss)):
        got = function(predictions, targets)
        assert got.dtype == dtype
        assert got.shape == ()
        np.testing.assert_allclose(got, expected, rtol=50 * np.finfo(dtype).eps)


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_of_a_loss_is_its_slope(name):
    loss, _, draw = LOSSES[name]
    rng = np.random.default_rng(1)
    predictions = rng.normal(scale=2.0, size=(4, 5))
    targets = draw(rng, size=(4, 5))
    direction = rng.normal(size=(4, 5))
    gradient = gd.grad(loss)(predictions, targets)
    step = 1e-6
    up, down = (loss(predictions + sign * step * direction, targets) for sign in (1, -1))
    np.testing.assert_allclose(np.sum(gradient * direction), (up - down) / (2 * step), rtol=1e-6)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("integer", [np.int64, np.int32, np.uint8])
def test_integer_labels_and_one_hot_rows_agree(dtype, integer):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 4)).astype(dtype)
    labels = rng.integers(0, 4, 6).astype(integer)
    rows = np.eye(4, dtype=dtype)[labels]
    for loss in (losses.softmax_cross_entropy, losses.accuracy):
        for function in (loss, gd.compile(loss)):
            np.testing.assert_allclose(
                function(logits, labels), function(logits, rows), rtol=4 * np.finfo(dtype).eps
            )


def test_the_gradient_of_softmax_cross_entropy_is_softmax_minus_one_hot():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(6, 4)), rng.integers(0, 4, 6)
    softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    gradient = gd.grad(losses.softmax_cross_entropy)(logits, labels)
    np.testing.assert_allclose(gradient, (softmax - np.eye(4)[labels]) / 6, rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("dtype", FLOATS)
def test_cross_entropies_stay_right_at_extreme_logits(dtype):
    softmax = gd.compile(losses.softmax_cross_entropy)
    binary = gd.compile(losses.binary_cross_entropy)
    logits = np.array([[1e4, 0.0], [0.0, 1e4]], dtype)
    assert softmax(logits, np.array([0, 1])) == 0.0
    assert softmax(logits, np.array([1, 0])) == 1e4
    z = np.array([1e4], dtype)
    assert binary(z, np.array([1.0], dtype)) == 0.0
    assert binary(z, np.array([0.0], dtype)) == 1e4
    # A small loss keeps its digits: log(1 + exp(-20)).
    got = binary(np.array([20.0], dtype), np.array([1.0], dtype))
    np.testing.assert_allclose(got, np.log1p(np.exp(-20.0)), rtol=10 * np.finfo(dtype).eps)


def test_a_masked_class_costs_nothing():
    logits = np.array([[0.0, -np.inf, 0.0]])
    for loss in (losses.softmax_cross_entropy, gd.compile(losses.softmax_cross_entropy)):
        np.testing.assert_allclose(loss(logits, np.array([2])), np.log(2.0), rtol=1e-15)
    np.testing.assert_allclose(
        gd.grad(losses.softmax_cross_entropy)(logits, np.array([2])), [[0.5, 0.0, -0.5]]
    )


def test_the_gradient_of_binary_cross_entropy_is_right_at_zero():
    gradient = gd.grad(losses.binary_cross_entropy)(np.zeros(2), np.array([0.0, 1.0]))
    np.testing.assert_allclose(gradient, [0.25, -0.25], rtol=1e-15)


def test_targets_of_another_type_do_not_change_the_type_of_the_loss():
    predictions = np.ones(3, np.float32)
    assert losses.mean_squared_error(predictions, [1, 2, 3]).dtype == np.float32
    assert losses.mean_squared_error(predictions, np.ones(3, np.float64)).dtype == np.float32
    assert losses.binary_cross_entropy(predictions, np.ones(3, np.bool_)).dtype == np.float32


def test_accuracy_counts_right_answers():
    logits = np.array([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0], [0.0, 5.0]], np.float32)
    labels = np.array([0, 1, 1, 1])
    assert losses.accuracy(logits, labels) == 0.75
    assert gd.compile(losses.accuracy)(logits, labels) == 0.75


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: losses.mean_squared_error(np.zeros((3, 1)), np.zeros(3)),
            ValueError, r"mean_squared_error needs .* one shape, got \(3, 1\) and \(3,\)",
        ),
        (
            lambda: losses.softmax_cross_entropy(np.zeros((3, 2)), np.zeros(3)),
            TypeError, r"integer labels .* got float64; write labels.astype\(np.int64\)",
        ),
        (
            lambda: losses.softmax_cross_entropy(np.zeros((3, 2)), np.zeros(4, np.int64)),
            ValueError, r"integer labels of shape \(3,\) or one-hot .* \(3, 2\), got \(4,\)",
        ),
        (lambda: losses.huber(np.zeros(3), np.zeros(3), 0.0), ValueError, "delta > 0, got 0.0"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_refused_shape_is_a_graph_error_also_while_tracing():
    with pytest.raises(gd.GraphError, match="needs predictions and targets of one shape"):
        gd.compile(losses.mean_squared_error)(np.zeros((3, 1)), np.zeros(3))


def test_labels_that_are_no_class_are_refused_where_they_are_known():
    logits = np.zeros((3, 4), np.float32)
    for wrong in ([1, 2, 4], [0, -1, 2]):
        with pytest.raises(gd.ArgumentError, match="needs labels from 0 to 3, got some from"):
            losses.softmax_cross_entropy(logits, np.array(wrong))
        with pytest.raises(gd.ArgumentError, match="needs labels from 0 to 3"):
            gd.compile(lambda x, wrong=wrong: losses.softmax_cross_entropy(x, wrong))(logits)
    with pytest.raises(gd.ArgumentError, match="needs targets from 0 to 1"):
        losses.binary_cross_entropy(logits[0], np.array([0, 1, 2, 1]))
