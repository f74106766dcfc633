"""Optimisers against their formulas, written out step by step in NumPy; schedules; refusals."""

import inspect

import numpy as np
import optree
import pytest

import graphdl as gd
from graphdl import optim

FLOATS = [np.float32, np.float64]
RATE = 0.1


def _sgd(gradients, p, momentum=0.0, nesterov=False):
    v = 0.0
    for g in gradients:
        v = momentum * v + g
        p = p - RATE * (g + momentum * v if nesterov else v)
    return p


def _adam(gradients, p, weight_decay=0.0):
    m = v = 0.0
    for t, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        adaptive = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        p = p - RATE * (adaptive + weight_decay * p)
    return p


def _rmsprop(gradients, p, momentum=0.0, centered=False):
    v = m = b = 0.0
    for g in gradients:
        v, m = 0.9 * v + 0.1 * g**2, 0.9 * m + 0.1 * g
        b = momentum * b + g / (np.sqrt(v - m**2 if centered else v) + 1e-7)
        p = p - RATE * b
    return p


OPTIMIZERS = {
    "sgd": (optim.sgd(RATE), _sgd),
    "sgd, momentum": (optim.sgd(RATE, 0.9), lambda g, p: _sgd(g, p, 0.9)),
    "sgd, nesterov": (optim.sgd(RATE, 0.9, nesterov=True), lambda g, p: _sgd(g, p, 0.9, True)),
    "adam": (optim.adam(RATE), _adam),
    "adamw": (optim.adamw(RATE, weight_decay=0.02), lambda g, p: _adam(g, p, 0.02)),
    "rmsprop": (optim.rmsprop(RATE), _rmsprop),
    "rmsprop, momentum": (optim.rmsprop(RATE, momentum=0.5), lambda g, p: _rmsprop(g, p, 0.5)),
    "rmsprop, centered": (
        optim.rmsprop(RATE, centered=True), lambda g, p: _rmsprop(g, p, centered=True),
    ),
}  # fmt: skip


def _trees(dtype, count=5):
    rng = np.random.default_rng(0)
    shapes = {"dense": {"kernel": (3, 4), "bias": (4,)}, "scale": [()]}
    return [
        optree.tree_map(
            lambda shape: rng.normal(size=shape).astype(dtype),
            shapes,
            is_leaf=lambda node: isinstance(node, tuple),
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_follow_the_formula(name, dtype, compiled):
    optimizer, formula = OPTIMIZERS[name]
    params, *gradients = _trees(dtype)
    update = gd.compile(optimizer.update) if compiled else optimizer.update
    expected = optree.tree_map(
        lambda p, *gs: formula([g.astype(np.float64) for g in gs], p.astype(np.float64)),
        params,
        *gradients,
    )
    state = optimizer.init(params)
    for number, gradient in enumerate(gradients, 1):
        params, state = update(gradient, state, params)
        assert state["step"] == number
    tolerance = 3e-5 if dtype == np.float32 else 1e-12

    def check(got, wanted):
        assert got.dtype == dtype
        np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)

    optree.tree_map(check, params, expected)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_state_keeps_its_structure_shapes_and_dtypes(name):
    optimizer, _ = OPTIMIZERS[name]
    params, gradient, *_ = _trees(np.float32)
    before = optimizer.init(params)
    _, after = optimizer.update(gradient, before, params)

    def check(old, new):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)

    optree.tree_map(check, before, after)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_update_changes_none_of_its_arguments(name):
    optimizer, _ = OPTIMIZERS[name]
    params, gradient, *_ = _trees(np.float64)
    state = optimizer.init(params)
    arguments = (gradient, state, params)
    copies = optree.tree_map(np.copy, arguments)
    optimizer.update(*arguments)
    gd.compile(optimizer.update)(*arguments)
    optree.tree_map(np.testing.assert_array_equal, arguments, copies)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_finds_a_minimum(name):
    optimizer, _ = OPTIMIZERS[name]
    curvature = np.array([1.0, 3.0, 0.5])
    params, state = np.array([2.0, -1.0, 4.0]), optimizer.init(np.zeros(3))
    step = gd.compile(lambda params, state: optimizer.update(curvature * params, state, params))
    for _ in range(400):
        params, state = step(params, state)
    assert np.all(np.abs(params) < 0.1)


@pytest.mark.parametrize("make", [optim.sgd, optim.adam, optim.adamw, optim.rmsprop])
@pytest.mark.parametrize("dtype", FLOATS)
def test_a_schedule_sees_the_steps_from_zero(make, dtype):
    rates = [0.1, 0.05, 0.025]
    scheduled = make(optim.exponential_decay(0.1, 0.5, steps=1))
    params = fixed_params = np.array([1.0, -2.0], dtype)
    state = scheduled.init(params)
    update = gd.compile(scheduled.update)
    for rate in rates:
        gradient = (params * 3).astype(dtype)
        fixed_params, _ = make(rate).update(gradient, state, params)
        params, state = update(gradient, state, params)
        assert params.dtype == dtype
        np.testing.assert_allclose(params, fixed_params, rtol=1e-5)


def test_cosine_decay_warms_up_and_comes_down():
    rate = optim.cosine_decay(1.0, steps=30, warmup=10, final=0.2)
    rates = np.array([rate(np.int64(step)) for step in range(40)])
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10)
    np.testing.assert_allclose(rates[20], 0.6)
    np.testing.assert_allclose(rates[30:], 0.2)
    assert np.all(np.diff(rates[10:31]) < 0)
    compiled = gd.compile(rate)
    np.testing.assert_allclose([compiled(np.int64(step)) for step in (0, 9, 17, 35)],
                               rates[[0, 9, 17, 35]], rtol=1e-14)  # fmt: skip


@pytest.mark.parametrize("dtype", FLOATS)
def test_clipping_keeps_the_direction_and_limits_the_norm(dtype):
    tree = {"a": np.array([3.0], dtype), "b": [np.array([[4.0, 0.0]], dtype)]}
    clip = gd.compile(lambda tree: optim.clip_by_global_norm(tree, 2.0))
    for clipped in (optim.clip_by_global_norm(tree, 2.0), clip(tree)):
        np.testing.assert_allclose(optim.global_norm(clipped), 2.0, rtol=1e-6)
        np.testing.assert_allclose(clipped["b"][0], [[1.6, 0.0]], rtol=1e-6)
        assert clipped["a"].dtype == dtype
    same = optim.clip_by_global_norm(tree, 6.0)
    optree.tree_map(np.testing.assert_array_equal, same, tree)
    zero = optim.clip_by_global_norm([np.zeros(2, dtype)], 1.0)
    np.testing.assert_array_equal(zero[0], 0.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.sgd(0.1, momentum=1.0), "sgd needs 0 <= momentum < 1, got 1.0"),
        (lambda: optim.sgd(0.1, nesterov=True), "needs a momentum above 0"),
        (lambda: optim.adam(beta2=1.5), "adam needs 0 <= beta2 < 1, got 1.5"),
        (lambda: optim.adamw(weight_decay=-1.0), "adamw needs weight_decay >= 0"),
        (lambda: optim.rmsprop(epsilon=-1.0), "rmsprop needs epsilon >= 0"),
        (lambda: optim.cosine_decay(0.1, steps=5, warmup=5), "more than 0 steps"),
        (lambda: optim.global_norm([]), "at least one array"),
        (lambda: optim.clip_by_global_norm([np.ones(1)], 0.0), "limit above 0"),
    ],
)
def test_wrong_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_gradients_that_do_not_fit_are_refused():
    optimizer = optim.adam()
    params = {"w": np.zeros(2), "b": np.zeros(1)}
    state = optimizer.init(params)
    with pytest.raises(ValueError, match="gradients and params of one structure"):
        optimizer.update({"w": np.zeros(2)}, state, params)
    with pytest.raises(
        gd.GraphError, match=r"gradient by params\['w'\] has shape \(3,\), .* \(2,\)"
    ):
        optimizer.update({"w": np.zeros(3), "b": np.zeros(1)}, state, params)


@pytest.mark.parametrize("optimizer", [o for o, _ in OPTIMIZERS.values()], ids=list(OPTIMIZERS))
def test_nodes_of_an_optimizer_name_the_line_that_calls_it(optimizer):
    params = {"w": np.zeros(2), "b": [np.zeros(1)]}

    def step(gradients, state):
        return optimizer.update(gradients, state, params)

    graph = gd.trace(step, params, optimizer.init(params))
    line = inspect.getsourcelines(step)[1] + 1
    assert {(s.file, s.line) for s in graph.sources.values()} == {(__file__, line)}
    assert all(node in graph.sources for node in graph.operations)


def test_a_rate_is_a_number_that_is_not_negative():
    with pytest.raises(ValueError, match="learning rate is at least 0, got"):
        gd.optim.adam(-0.1)
    with pytest.raises(TypeError, match="or a function of the step, not"):
        gd.optim.sgd("0.1")
