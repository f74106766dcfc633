"""Objects of the user's classes as arguments, results and gradients."""

from __future__ import annotations

import copy
import dataclasses
import functools
import gc
import pickle
import sys
from typing import Any, NamedTuple

import numpy as np
import pytest

import graphdl as gd


@gd.register_dataclass
@dataclasses.dataclass(frozen=True)
class Affine:
    weights: Any
    bias: Any
    name: str = dataclasses.field(default="", metadata={"static": True})

    def __call__(self, x):
        out = np.zeros(x.shape[:-1] + self.bias.shape)
        out[...] = x @ self.weights + self.bias
        return out


@gd.register_dataclass
@dataclasses.dataclass(slots=True)
class Slotted:
    inner: Affine
    step: int = 0


class Pair(NamedTuple):
    weights: Any
    bias: Any

    def __call__(self, x):
        return x @ self.weights + self.bias


class Swapped:
    """No dataclass, and what it holds is not what its constructor takes."""

    def __init__(self, right, left):
        self.left, self.right = left, right


gd.register_pytree_node(
    Swapped, lambda s: ((s.left, s.right), None), lambda _, c: Swapped(*c[::-1])
)

X = np.linspace(-1, 1, 12).reshape(4, 3)
W, B = np.arange(6.0).reshape(3, 2) / 5, np.array([0.5, -0.5])


def loss(model, x):
    return np.sum(np.tanh(model(x)) ** 2)


def by_hand(weights, bias, x):
    value = np.tanh(x @ weights + bias)
    back = 2 * value * (1 - value**2)
    return x.T @ back, back.sum(0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", [Affine, Pair])
def test_a_gradient_is_of_the_class_of_the_argument(kind, dtype):
    weights, bias, x = W.astype(dtype), B.astype(dtype), X.astype(dtype)
    model = kind(weights, bias)
    gradient = gd.grad(loss)(model, x)
    assert type(gradient) is kind
    assert gradient.weights.dtype == dtype
    for got, wanted in zip((gradient.weights, gradient.bias), by_hand(W, B, X), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5 if dtype == "float32" else 1e-12)


def test_static_fields_travel_and_make_a_specialisation_each():
    traced = []

    @gd.compile
    def f(model):
        traced.append(model.name)
        return dataclasses.replace(model, bias=model.bias * len(model.name))

    for name in ("a", "bcd", "a", "".join(["b", "cd"])):
        made = f(Affine(W, B, name))
        assert type(made) is Affine
        assert made.name == name
        np.testing.assert_array_equal(made.bias, B * len(name))
    assert traced == ["a", "bcd"]


def test_objects_nest_with_slots_and_others():
    @gd.compile
    def step(state, x):
        gradient = gd.grad(loss)(state["model"].inner, x)
        inner = gd.tree_map(lambda p, g: p - 0.1 * g, state["model"].inner, gradient)
        return {"model": Slotted(inner, state["model"].step + 1), "none": state["none"]}

    state = {"model": Slotted(Affine(W, B, "deep")), "none": None}
    after = step(step(state, X), X)
    assert after["model"].step == 2
    assert after["model"].inner.name == "deep"
    assert state["model"].step == 0
    weights, bias = W, B
    for _ in range(2):
        dw, db = by_hand(weights, bias, X)
        weights, bias = weights - 0.1 * dw, bias - 0.1 * db
    np.testing.assert_allclose(after["model"].inner.weights, weights, rtol=1e-12)


def test_a_class_with_its_own_way_of_coming_apart():
    product = gd.grad(lambda s: np.sum(s.left * s.right**2))
    gradient = product(Swapped(right=np.array([3.0]), left=np.array([5.0])))
    assert (gradient.left.item(), gradient.right.item()) == (9.0, 30.0)


def test_every_transformation_and_loop_takes_objects():
    models = gd.tree_map(lambda leaf: np.stack([leaf, 2 * leaf]), Affine(W, B, "both"))
    values = gd.vmap(loss, in_axes=(Affine(0, 0, "both"), None))(models, X)
    wanted = [loss(Affine(W, B), X), loss(Affine(2 * W, 2 * B), X)]
    np.testing.assert_allclose(values, wanted, rtol=1e-12)

    def carry(model, x):
        return dataclasses.replace(model, bias=model.bias + x), model.bias[0]

    last, seen = gd.compile(lambda m: gd.scan(carry, m, np.ones((3, 2))))(Affine(W, B))
    assert type(last) is Affine
    np.testing.assert_array_equal(last.bias, B + 3)
    np.testing.assert_array_equal(seen, B[0] + np.arange(3))
    _, tangent = gd.jvp(lambda m: m.weights.sum(), (Affine(W, B),), (Affine(W, B),))
    np.testing.assert_allclose(tangent, W.sum())
    hessian = gd.hessian(lambda m: np.sum(m.weights) * np.sum(m.bias))(Affine(W, B))
    assert hessian.weights.bias.shape == (3, 2, 2)
    np.testing.assert_array_equal(hessian.weights.bias, 1)
    gd.check_grads(loss, Affine(W, B), X)


def test_optimisers_and_batches_take_objects():
    optimizer = gd.optim.adam(0.1)
    model = Affine(W, B)
    state = optimizer.init(model)
    gradient = gd.grad(loss)(model, X)
    model, state = optimizer.update(gradient, state, model)
    assert type(model) is type(state["mean"]) is Affine
    with pytest.raises(gd.ShapeError, match=r"gradient by params.bias has shape \(3,\)"):
        optimizer.update(Affine(W, np.ones(3)), state, model)
    batch, _ = next(gd.data.batches(Affine(X, X), X, batch_size=2))
    assert batch.weights.shape == (2, 3)


def test_names_say_where_a_leaf_is():
    graph = gd.trace(loss, Affine(W, B), X)
    assert graph.names == ("model.weights", "model.bias", "x")
    with pytest.raises(gd.GradientError, match=r"argument model.bias of loss is int64\[2\]"):
        gd.grad(loss)(Affine(W, np.arange(2)), X)


def test_neither_init_nor_post_init_run_for_results():
    @gd.register_dataclass
    @dataclasses.dataclass
    class Positive:
        x: float
        root: float = dataclasses.field(init=False)

        def __post_init__(self):
            if self.x <= 0:
                raise ValueError("not positive")
            self.root = np.sqrt(self.x)

    gradient = gd.grad(lambda p: -p.x * p.root)(Positive(4.0))
    assert (gradient.x.item(), gradient.root.item()) == (-2.0, -4.0)


class Oscillator:
    """A base, with what NumPy alone could not do with traced values."""

    def matrix(self):
        return np.array([[1, self.dt], [-self.dt * self.stiffness, 1]])

    @property
    def largest(self):
        return max(self.dt, self.stiffness)


@gd.register_dataclass
@dataclasses.dataclass
class Spring(Oscillator):
    dt: float
    stiffness: float
    period: float = dataclasses.field(init=False)

    def __post_init__(self):
        periods = np.zeros(1)
        periods[0] = 2 * np.pi / np.sqrt(self.stiffness)
        self.period = periods[0]

    @classmethod
    def soft(cls, dt):
        return cls(dt, min(dt, 0.25))

    @staticmethod
    def start():
        return np.zeros(2)


def test_methods_are_traced_on_arguments_in_closures_and_where_objects_are_made():
    outside = Spring(0.5, 4.0)

    def f(spring):
        state = spring.start()
        state[0] = spring.largest
        made = Spring.soft(spring.dt)
        return (spring.matrix() @ state + outside.matrix()[1]).sum() + made.period

    for spring in (Spring(0.1, 3.0), Spring(0.2, 0.1)):
        np.testing.assert_allclose(gd.compile(f)(spring), f(spring), rtol=1e-14)
        gd.check_grads(f, spring)
    assert isinstance(outside.matrix(), np.ndarray)
    assert gd.grad(lambda x: gd.grad(f)(dataclasses.replace(outside, dt=x)).dt)(0.3) is not None


def test_what_a_class_derives_from_is_another_one():
    @dataclasses.dataclass(frozen=True)
    class Special(Affine):
        pass

    with pytest.raises(gd.DtypeError, match="above the @dataclass of Special"):
        gd.compile(loss)(Special(W, B), X)


def test_bad_registrations_are_refused():
    with pytest.raises(gd.ArgumentError, match="Affine is a tree already"):
        gd.register_dataclass(Affine)
    with pytest.raises(gd.DtypeError, match="above @dataclass"):
        gd.register_dataclass(type("Plain", (), {}))
    one = dataclasses.make_dataclass("One", ["x", "y"])
    with pytest.raises(gd.ArgumentError, match=r"name each field of One once: \['x', 'y'\]"):
        gd.register_dataclass(one, data_fields=["x"])
    with pytest.raises(gd.DtypeError, match="cannot be made from their fields alone"):
        gd.register_dataclass(type("Text", (str,), {}), data_fields=["x"])
    gd.register_dataclass(one, meta_fields=["y"])
    with pytest.raises(gd.DtypeError, match=r"One: y is static, so it has to be hashable; .* list"):
        gd.compile(lambda o: o.x)(one(1.0, [2]))


def test_fields_may_be_named_instead():
    class Plain:
        def __init__(self, x, n):
            self.x, self.n = x, n

    functools.partial(gd.register_dataclass, data_fields=["x"], meta_fields=["n"])(Plain)
    made = gd.grad(lambda p: p.x**p.n)(Plain(2.0, 3))
    assert (made.x.item(), made.n) == (12.0, 3)


def test_calls_with_objects_are_native():
    for model in (Affine(W, B, "x"), Pair(W, B), Slotted(Affine(W, B, "y"))):
        executable = gd.compile(lambda m: gd.tree_map(lambda leaf: leaf * 2, m)).lower(model)
        called = []
        call = executable.entry(lambda *args, called=called: called.append(args))
        assert type(call(model)) is type(model)
        assert not called
        other = Pair(B, W) if isinstance(model, Pair) else dataclasses.replace(model)
        call(Affine(W, B) if isinstance(model, Pair) else Pair(W, B))
        assert len(called) == 1
        gc.collect()
        before = [sys.getrefcount(part) for part in (W, B, model, type(model))]
        for _ in range(100):
            call(model)
            call(other)
        gc.collect()
        assert [sys.getrefcount(part) for part in (W, B, model, type(model))] == before


def test_attributes_that_run_code_are_read_by_python():
    @gd.register_dataclass
    @dataclasses.dataclass
    class Lazy:
        x: Any

        def __getattr__(self, name):
            if name == "x":
                return np.ones(1000)
            raise AttributeError(name)

    f = gd.compile(lambda lazy: lazy.x * 2)
    value = Lazy(np.ones(1000))
    f(value)
    del value.x
    for _ in range(3):
        np.testing.assert_array_equal(f(value), 2)


def test_a_named_tuple_that_refuses_its_items_raises():
    class Careful(Pair):
        def __new__(cls, *items):
            if refuses:
                raise ValueError("not these")
            return super().__new__(cls, *items)

    refuses = False
    f = gd.compile(lambda p: p)
    f(Careful(W, B))
    model = Careful(W, B)
    refuses = True
    before = sys.getrefcount(W)
    for _ in range(10):
        with pytest.raises(ValueError, match="not these"):
            f(model)
    assert sys.getrefcount(W) <= before + 2  # what the last error's frames hold


def test_optimisers_can_be_pickled_and_copied():
    rate = gd.optim.cosine_decay(0.1, 10, warmup=2)
    for optimizer in (
        gd.optim.adamw(rate),
        gd.optim.sgd(gd.optim.exponential_decay(0.1, 0.5, 3), 0.9, nesterov=True),
        gd.optim.rmsprop(0.1, centered=True, momentum=0.5),
    ):
        model, gradient = Pair(W, B), Pair(W + 1, B - 1)
        wanted = optimizer.update(gradient, optimizer.init(model), model)[0]
        for other in (pickle.loads(pickle.dumps(optimizer)), copy.deepcopy(optimizer)):
            got = other.update(gradient, other.init(model), model)[0]
            np.testing.assert_array_equal(got.weights, wanted.weights)
