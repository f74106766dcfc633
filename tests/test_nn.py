"""Layers: shapes, values against the formulas, initial values, the same results when compiled."""

import math

import numpy as np
import optree
import pytest

import graphdl as gd
from graphdl import nn

FLOATS = [np.float32, np.float64]


def _erf(x):
    return np.vectorize(math.erf, otypes=[np.float64])(x)


REFERENCES = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "softplus": lambda x: np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "softmax": lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True),
    "log_softmax": lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True)),
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", sorted(nn.ACTIVATIONS))
def test_an_activation_is_its_formula_plain_and_compiled(name, dtype):
    x = np.random.default_rng(0).normal(size=(5, 7)).astype(dtype)
    expected = REFERENCES[name](x.astype(np.float64))
    tolerance = 20 * np.finfo(dtype).eps
    # The tanh form of gelu, if the engine uses it, differs from the exact one by up to 5e-4.
    layer = nn.Activation(name)
    for function in (layer.apply, gd.compile(layer.apply)):
        got = function({}, x)
        assert got.dtype == dtype
        np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", FLOATS)
def test_dense_is_a_product_a_sum_and_an_activation(dtype):
    layer = nn.Dense(3, activation="tanh")
    params = layer.init(1, (4,), dtype)
    params = params | {"bias": np.array([0.1, -0.2, 0.3], dtype)}
    x = np.random.default_rng(2).normal(size=(6, 5, 4)).astype(dtype)
    expected = np.tanh(x.astype(np.float64) @ params["kernel"] + params["bias"])
    for apply in (layer.apply, gd.compile(layer.apply)):
        got = apply(params, x)
        assert got.dtype == dtype
        np.testing.assert_allclose(got, expected, rtol=1e-5 if dtype == np.float32 else 1e-12)


def test_dense_without_bias_has_a_kernel_only():
    params = nn.Dense(3, use_bias=False).init(0, (4,))
    assert list(params) == ["kernel"]
    np.testing.assert_array_equal(
        nn.Dense(3, use_bias=False).apply(params, np.eye(4, dtype=np.float32)), params["kernel"]
    )


@pytest.mark.parametrize("dtype", FLOATS)
def test_layer_norm_is_its_formula(dtype):
    layer = nn.LayerNorm(epsilon=1e-3)
    x = np.random.default_rng(0).normal(3.0, 2.0, size=(4, 9)).astype(dtype)
    params = {"scale": np.linspace(1, 2, 9, dtype=dtype), "offset": np.ones(9, dtype)}
    wide = x.astype(np.float64)
    expected = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-3)
    expected = expected * params["scale"] + params["offset"]
    for apply in (layer.apply, gd.compile(layer.apply)):
        got = apply(params, x)
        assert got.dtype == dtype
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_batch_norm_is_its_formula(dtype):
    layer = nn.BatchNorm(momentum=0.9, epsilon=1e-2)
    rng = np.random.default_rng(5)
    params = {name: rng.uniform(0.5, 2, 3).astype(dtype) for name in layer.init(0, (4, 3), dtype)}
    x = rng.normal(2, 3, (5, 4, 3)).astype(dtype)
    mean, variance = x.mean((0, 1)), x.var((0, 1))

    def normalised(mean, variance):
        return (x - mean) / np.sqrt(variance + 1e-2) * params["scale"] + params["offset"]

    close = {"rtol": 1e-4 if dtype == np.float32 else 1e-12, "atol": 1e-6}
    for train in (layer.train, gd.compile(layer.train)):
        y, after = train(params, x)
        assert y.dtype == after["mean"].dtype == after["variance"].dtype == dtype
        np.testing.assert_allclose(y, normalised(mean, variance), **close)
        np.testing.assert_allclose(after["mean"], 0.9 * params["mean"] + 0.1 * mean, **close)
        np.testing.assert_allclose(
            after["variance"], 0.9 * params["variance"] + 0.1 * variance, **close
        )
        assert after["scale"] is params["scale"] or np.array_equal(after["scale"], params["scale"])
    for apply in (layer.apply, gd.compile(layer.apply)):
        y = apply(params, x)
        assert y.dtype == dtype
        np.testing.assert_allclose(y, normalised(params["mean"], params["variance"]), **close)
    assert layer.output_shape((4, 3)) == (4, 3)


def test_batch_norm_has_gradients_through_its_statistics():
    layer = nn.BatchNorm(epsilon=1e-2)
    x = np.random.default_rng(6).normal(size=(5, 2, 3))
    params = layer.init(0, (2, 3), np.float64)
    gd.check_grads(lambda scale, offset, x: np.sum(
        np.sin(layer.train(params | {"scale": scale, "offset": offset}, x)[0])
    ), params["scale"], params["offset"], x)  # fmt: skip
    gd.check_grads(lambda x: np.sum(np.sin(layer.apply(params, x))), x)


def test_batch_norm_of_channels_first_is_that_of_channels_last():
    x = np.random.default_rng(8).normal(size=(5, 3, 4, 2))
    last, first = nn.BatchNorm(momentum=0.5), nn.BatchNorm(momentum=0.5, layout="channels_first")
    params = first.init(0, x.shape[1:], np.float64)
    params = params | {"scale": np.array([1.0, 2.0, 3.0]), "offset": np.array([0.0, 1.0, -1.0])}
    want, moved = last.train(params, np.moveaxis(x, 1, -1))
    got, after = gd.compile(first.train)(params, x)
    np.testing.assert_allclose(got, np.moveaxis(want, -1, 1))
    np.testing.assert_allclose(after["variance"], moved["variance"])
    want = np.moveaxis(last.apply(after, np.moveaxis(x, 1, -1)), -1, 1)
    np.testing.assert_allclose(first.apply(after, x), want)
    with pytest.raises(gd.ShapeError, match=r"an array of shape \(batch, 3, \.\.\.\)"):
        first.apply(params, np.moveaxis(x, 1, -1))
    with pytest.raises(ValueError, match="layout='NCHW'"):
        nn.BatchNorm(layout="NCHW")


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_norm_is_that_of_torch(groups, layout):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(9)
    x, scale, offset = rng.normal(2, 3, (4, 6, 5, 3)), rng.normal(size=6), rng.normal(size=6)
    operands = [torch.tensor(part, requires_grad=True) for part in (x, scale, offset)]
    result = torch.nn.functional.group_norm(operands[0], groups, *operands[1:], eps=1e-3)
    weights = rng.normal(size=x.shape)
    (result * torch.tensor(weights)).sum().backward()
    layer = nn.GroupNorm(groups, epsilon=1e-3, layout=layout)

    def f(x, scale, offset):
        given = x if layout == "channels_first" else np.moveaxis(x, 1, -1)
        y = layer.apply({"scale": scale, "offset": offset}, given)
        return y if layout == "channels_first" else np.moveaxis(y, -1, 1)

    np.testing.assert_allclose(f(x, scale, offset), result.detach().numpy(), rtol=1e-9)
    slopes = gd.grad(lambda *args: np.sum(f(*args) * weights), (0, 1, 2))(x, scale, offset)
    for got, operand in zip(slopes, operands, strict=True):
        np.testing.assert_allclose(got, operand.grad.numpy(), rtol=1e-8, atol=1e-9)


def test_group_norm_refuses_what_has_no_groups():
    with pytest.raises(gd.ShapeError, match="6 features do not fall into 4 equal groups"):
        nn.GroupNorm(4).init(0, (6,))
    with pytest.raises(ValueError, match="at least one group"):
        nn.GroupNorm(0)
    layer = nn.GroupNorm(2)
    with pytest.raises(gd.ShapeError, match="GroupNorm needs a batch"):
        layer.apply(layer.init(0, (6,)), np.ones(6))


def test_training_of_a_sequential_moves_statistics_and_nothing_else():
    inner = nn.Sequential([nn.BatchNorm(momentum=0.0, name="norm")], name="inner")
    model = nn.Sequential([nn.Dense(3, "relu"), nn.Dropout(0.5), inner, nn.Flatten()])
    params = model.init(0, (2,), np.float64)
    x, key = np.random.default_rng(7).normal(size=(6, 2)), gd.random.key(1)
    y, after = gd.compile(model.train)(params, x, key)
    hidden = nn.Dropout(0.5).apply(
        {}, model.layers[0].apply(params["dense"], x), gd.random.fold_in(key, 1)
    )
    np.testing.assert_allclose(y, inner.train(params["inner"], hidden)[0])
    np.testing.assert_allclose(after["inner"]["norm"]["mean"], hidden.mean(0))
    np.testing.assert_allclose(after["inner"]["norm"]["variance"], hidden.var(0))
    np.testing.assert_array_equal(after["dense"]["kernel"], params["dense"]["kernel"])
    assert list(after) == list(params)
    assert set(params["inner"]["norm"]["mean"]) == {0.0}  # what was given stays

    def loss(params):
        y, after = model.train(params, x)
        return np.sum(y**3), after

    (_, after), gradient = gd.value_and_grad(loss, has_aux=True)(params)
    assert not gradient["inner"]["norm"]["mean"].any()
    np.testing.assert_allclose(after["inner"]["norm"]["variance"].shape, 3)
    plain = nn.Sequential([nn.Dense(3)])
    y, after = plain.train(plain.init(0, (2,)), x)
    np.testing.assert_array_equal(y, plain.apply(after, x))


def test_batch_norm_refuses_what_has_no_statistics():
    layer = nn.BatchNorm()
    params = layer.init(0, (3,))
    for x in (np.ones(3), np.ones((0, 3))):
        with pytest.raises(gd.ShapeError, match=r"BatchNorm\.train needs a batch of examples, got"):
            layer.train(params, x)
    with pytest.raises(gd.ShapeError, match="BatchNorm was initialised for inputs with 3 feat"):
        layer.apply(params, np.ones((2, 4)))
    with pytest.raises(ValueError, match="a momentum in"):
        nn.BatchNorm(momentum=1.5)


def test_embedding_looks_rows_up():
    layer = nn.Embedding(count=5, units=3)
    params = layer.init(0, ())
    ids = np.array([[0, 4], [2, 2]])
    for apply in (layer.apply, gd.compile(layer.apply)):
        np.testing.assert_array_equal(apply(params, ids), params["table"][ids])
    assert layer.output_shape((7,)) == (7, 3)


def test_sequential_composes_and_names_its_layers():
    model = nn.Sequential(
        [nn.Flatten(), nn.Dense(4, "relu"), nn.Dense(3, name="head"), nn.Dense(2), nn.LayerNorm()]
    )
    params = model.init(0, (2, 5))
    assert list(params) == ["dense", "head", "dense_1", "layernorm"]
    x = np.random.default_rng(1).normal(size=(6, 2, 5)).astype(np.float32)
    hidden = np.maximum(x.reshape(6, 10) @ params["dense"]["kernel"], 0)
    out = hidden @ params["head"]["kernel"] @ params["dense_1"]["kernel"]
    expected = nn.LayerNorm().apply(params["layernorm"], out)
    np.testing.assert_allclose(model.apply(params, x), expected, rtol=1e-5)
    assert model.output_shape((2, 5)) == (2,) == model.apply(params, x).shape[1:]


def test_a_sequential_is_a_layer():
    inner = nn.Sequential([nn.Dense(4), nn.Activation("tanh")], name="body")
    model = nn.Sequential([inner, nn.Dense(2)])
    params = model.init(0, (3,))
    assert list(params) == ["body", "dense"]
    assert model.apply(params, np.ones((1, 3), np.float32)).shape == (1, 2)


def test_automatic_names_step_around_given_ones():
    model = nn.Sequential([nn.Dense(1), nn.Dense(1, name="dense"), nn.Dense(1, name="dense_1")])
    assert [name for name, _ in model.named_layers] == ["dense_2", "dense", "dense_1"]


@pytest.mark.parametrize(
    ("initializer", "variance", "bound"),
    [
        ("glorot_uniform", 2 / 700, math.sqrt(6 / 700)),
        ("glorot_normal", 2 / 700, None),
        ("he_uniform", 2 / 400, math.sqrt(6 / 400)),
        ("he_normal", 2 / 400, None),
        ("zeros", 0.0, 0.0),
    ],
)
def test_initial_kernels_have_the_variance_of_their_formula(initializer, variance, bound):
    kernel = nn.Dense(300, kernel_initializer=initializer).init(0, (400,), np.float64)["kernel"]
    assert abs(kernel.mean()) <= 4 * math.sqrt(variance / kernel.size)
    # The relative error of a sample variance of 120,000 normal values is 0.4 %.
    np.testing.assert_allclose(kernel.var(), variance, rtol=0.02)
    if bound is not None:
        assert np.abs(kernel).max() <= bound


@pytest.mark.parametrize("dtype", FLOATS)
def test_initial_values_follow_the_seed_and_the_dtype(dtype):
    model = nn.Sequential([nn.Dense(4), nn.LayerNorm(), nn.Dense(2)])
    first, again = model.init(7, (3,), dtype), model.init(np.random.default_rng(7), (3,), dtype)
    other = model.init(8, (3,), dtype)
    assert all(leaf.dtype == dtype for leaf in optree.tree_leaves(first))
    optree.tree_map(np.testing.assert_array_equal, first, again)
    assert not np.array_equal(first["dense"]["kernel"], other["dense"]["kernel"])
    # Layers of one Sequential do not start equal.
    assert not np.array_equal(first["dense"]["kernel"][:2, :2], first["dense_1"]["kernel"][:2, :2])


def test_a_function_serves_as_activation_and_as_initializer():
    layer = nn.Dense(2, activation=np.exp, kernel_initializer=lambda rng, shape: np.ones(shape))
    got = layer.apply(layer.init(0, (3,)), np.ones((1, 3), np.float32))
    np.testing.assert_allclose(got, np.exp([[3.0, 3.0]]), rtol=1e-6)


def test_the_gradient_of_a_model_has_the_tree_of_its_parameters():
    model = nn.Sequential([nn.Dense(5, "gelu"), nn.LayerNorm(), nn.Dense(2)])
    params = model.init(0, (3,), np.float64)
    x = np.random.default_rng(0).normal(size=(4, 3))

    def loss(params):
        return np.sum(model.apply(params, x) ** 2)

    gradient = gd.grad(loss)(params)
    assert optree.tree_structure(gradient) == optree.tree_structure(params)
    direction = optree.tree_map(lambda p: np.random.default_rng(1).normal(size=p.shape), params)
    step = 1e-6

    def moved(sign):
        return loss(optree.tree_map(lambda p, d: p + sign * step * d, params, direction))

    slope = sum(
        optree.tree_leaves(optree.tree_map(lambda g, d: np.sum(g * d), gradient, direction))
    )
    np.testing.assert_allclose(slope, (moved(1) - moved(-1)) / (2 * step), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Dense(0), "at least one unit, got units=0"),
        (lambda: nn.Dense(1, activation="rleu"), "unknown activation 'rleu'; known are gelu,"),
        (
            lambda: nn.Dense(1, kernel_initializer="he"),
            "unknown initializer 'he'; known are glorot",
        ),
        (lambda: nn.Activation("?"), "unknown activation"),
        (
            lambda: nn.Sequential([nn.Dense(1, name="a"), nn.Dense(1, name="a")]),
            r"different names, got \['a', 'a'\]",
        ),
        (lambda: nn.Dense(1).init(0, ()), "at least one axis besides the batch"),
    ],
)
def test_a_wrong_description_is_refused_at_once(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_wrong_number_of_features_is_named():
    layer = nn.Dense(2)
    params = layer.init(0, (64,))
    with pytest.raises(gd.GraphError, match=r"with 64 features.*\(\.\.\., 64\); got \(5, 63\)"):
        layer.apply(params, np.zeros((5, 63), np.float32))


def test_dropout_scales_what_stays():
    x = np.random.default_rng(0).normal(size=(200, 300)).astype(np.float32)
    layer, key = nn.Dropout(0.25), gd.random.key(3)
    y = layer.apply({}, x, key)
    assert y.dtype == np.float32
    stays = y != 0
    assert abs(stays.mean() - 0.75) < 4 * np.sqrt(0.75 * 0.25 / x.size)
    np.testing.assert_allclose(y[stays], x[stays] / np.float32(0.75), rtol=1e-6)
    assert layer.apply({}, x) is x
    np.testing.assert_allclose(gd.compile(layer.apply)({}, x, key), y, rtol=1e-6)
    slope = gd.grad(lambda x: np.sum(layer.apply({}, x, key)))(x)
    np.testing.assert_allclose(slope, stays / np.float32(0.75), rtol=1e-6)


def test_layers_of_a_sequential_have_keys_of_their_own():
    model = nn.Sequential(
        [nn.Dropout(0.5), nn.Dense(40), nn.GaussianNoise(1.0), nn.Sequential([nn.Dropout(0.5)])]
    )
    params = model.init(0, (40,), np.float64)
    x, key = np.ones((500, 40)), gd.random.key(1)
    keys = [gd.random.fold_in(key, i) for i in range(4)]
    first = nn.Dropout(0.5).apply({}, x, keys[0])
    middle = nn.Dense(40).apply(params["dense"], first)
    noisy = nn.GaussianNoise(1.0).apply({}, middle, keys[2])
    want = nn.Dropout(0.5).apply({}, noisy, gd.random.fold_in(keys[3], 0))
    np.testing.assert_allclose(model.apply(params, x, key), want, rtol=1e-12)
    compiled = gd.compile(model.apply)
    np.testing.assert_allclose(compiled(params, x, key), want, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(model.apply(params, x), x @ params["dense"]["kernel"])
    assert not np.array_equal(compiled(params, x, gd.random.key(2)) == 0, want == 0)


def test_noise_without_sense_is_refused():
    for make in (lambda: nn.Dropout(1.0), lambda: nn.Dropout(-0.1), lambda: nn.GaussianNoise(-1)):
        with pytest.raises(ValueError, match="needs a"):
            make()


MISTAKES = {
    "units as text": (lambda: nn.Dense("3"), TypeError, "whole number, got units='3'"),
    "half a unit": (lambda: nn.Dense(3.5), TypeError, "whole number, got units=3.5"),
    "no filter": (lambda: nn.Conv2D(0, 3), ValueError, "at least one filter, got filters=0"),
    "no table": (lambda: nn.Embedding(0, 3), ValueError, "got count=0"),
    "no list": (lambda: nn.Sequential(nn.Dense(3)), TypeError, "takes a list of layers"),
    "two layers": (
        lambda: nn.Sequential([nn.Dense(3)], nn.Dense(2)), TypeError, "layers as one list"
    ),
    "a class": (lambda: nn.Sequential([nn.Dense]), TypeError, r"layers\[0\] .* Dense\(10\), not"),
    "a function": (lambda: nn.Sequential([np.tanh]), TypeError, r"Activation\(f\)"),
    "a number of features": (
        lambda: nn.Sequential([nn.Dense(3)]).init(0, 5), gd.ShapeError, r"such as \(64,\), not 5"
    ),
    "of one layer": (lambda: nn.Dense(3).init(0, 5), gd.ShapeError, r"Dense.init takes the shape"),
    "arguments swapped": (
        lambda: nn.Sequential([nn.Dense(3)]).apply(np.ones((2, 2)), {}), TypeError, "not a ndarray"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_says_what_to_write(name):
    make, error, text = MISTAKES[name]
    with pytest.raises(error, match=text):
        make()
