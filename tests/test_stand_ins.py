"""What Python's and NumPy's own functions are while tracing: math, lists, np.vectorize."""

from __future__ import annotations

import copy
import math
import random
import warnings
from math import sqrt

import numpy as np
import pytest

import graphdl as gd
from graphdl.errors import ConcreteValueError, DtypeError, RandomConstantWarning, ShapeError
from tests.helpers import same

X = np.array([0.3, 0.7, 0.2])
GENERATOR = np.random.default_rng(1)


@np.vectorize
def decorated(a, b=2.0):
    return math.sin(a) * b


def in_place_of_lists(x):
    y = np.zeros(2)
    np.add.at(y, [0, 1], [x[0], x[1]])
    y += [x[2], 1.0]
    return y


NUMBERS = [
    lambda x: math.sin(x[0]) + sqrt(x[1]) + math.atan2(x[0], x[1]) + math.pi,
    lambda x: math.hypot(x[0], x[1], x[2]) + math.hypot(-x[0]) + math.erf(x[0]),
    lambda x: math.lgamma(x[0]) + math.gamma(x[1]) + math.log(x[0], 3) + math.log(x[1]),
    lambda x: math.pow(x[0], x[1]) + math.fmod(x[0], x[2]) + math.copysign(x[0], -x[1]),
    lambda x: math.degrees(x[0]) + math.fabs(-x[0]) + math.cbrt(x[0]) + math.acosh(1 + x[0]),
    lambda x: math.fsum(x) + math.prod(x) + math.dist(x, x[::-1] ** 2) + math.exp(2),
    lambda x: x * math.isclose(x[0], x[0] + 1e-12) + math.isnan(x[0]) + math.isfinite(x[1]),
    lambda x: x * float("2") + round(x[0], 1),
    lambda x: x + math.floor(x[0] * 10) + math.ceil(-x[1] * 10) + round(x[1]),
    lambda x: x.astype("float32") * math.exp(x[0].astype("float32")),  # stays float32, as a number
    lambda x: np.zeros(3, float) + x.astype(float) + np.array([1, 2, 3], dtype=int),
    lambda x: x * (2 * isinstance(1, int) + 4 * isinstance(x, float)),
    lambda x: (
        np.array(sorted(x)) + sorted([x[0], x[1]], reverse=True)[0] + sorted("ab")[0].count("a")
    ),
    lambda x: np.where(any(v > 0.6 for v in x), x, -x) + np.where(all(v > 0.6 for v in x), x, 0),
    lambda x: x * any([]) + x * all([]) + x * any([False, True]) + x * all([0, x[0] > 1]),
    lambda x: copy.copy(x) + copy.deepcopy({"a": [x]})["a"][0] + x.view(),
]
LISTS = [
    lambda x: np.mean([x[0], 2 * x[1]]) + np.sum([v**2 for v in x]) + np.max([x[0], x[1]]),
    lambda x: np.linalg.norm([x[0], x[1]]) + np.linalg.det([[x[0], 1], [2, x[1]]]),
    lambda x: np.linalg.solve([[x[0], 1], [1, -x[1]]], [x[2], 1]),
    lambda x: np.dot([x[0], 1], [x[1], 2]) + x[:2] @ [x[0], x[1]] + np.dot(x[:2], [x[0], 1]),
    lambda x: x - [x[0], 1, 2] + np.maximum(x, [x[1], 1.0, x[0]]),
    lambda x: np.concatenate([[x[0]], [x[1], x[2]], x]) + np.hstack([[x[0], 1], 2, 3, x[1], 1]),
    lambda x: np.cross([x[0], 1, 2], x) + np.where(x > 0.5, [x[0], 1, 2], 0),
    lambda x: (
        np.diag([x[0], x[1]]) + np.full((2, 2), [x[0], x[1]]) + np.tril([[x[0], 1], [x[1], 2]])
    ),
    lambda x: np.roll([x[0], 1, x[1]], 1) + np.interp([x[0], 1, 2.0], [0, 1, 2], [x[1], 2, 4]),
    lambda x: np.average([x[0], 1.0], weights=[x[1], 2.0]) + np.einsum("i,i", [x[0], 1], [x[1], 2]),
    in_place_of_lists,
]
ELEMENTS = [
    lambda x: decorated(x) + decorated(x, 3.0) + decorated(x, b=x[::-1]),
    lambda x: np.vectorize(lambda t: t * x[0])(np.arange(3.0)),
    lambda x: np.vectorize(lambda a: a.sum(), signature="(n)->()")(np.stack([x, x])),
    lambda x: np.vectorize(lambda a, m: m @ a, signature="(n),(m,n)->(m)")(x, np.ones((2, 4, 3))),
    lambda x: np.stack(np.vectorize(lambda a, b: (a + b, a * b))(x[:, None], x)),
    lambda x: np.vectorize(lambda a, how: a * len(how), excluded={1})(x, "abc"),
    lambda x: np.vectorize(lambda a, how: a * len(how), excluded={"how"})(x, how="abc"),
    lambda x: np.vectorize(lambda a: a, otypes=["float32"])(x),
    lambda x: np.vectorize(lambda a: a * 2)(x[0]),
    lambda x: x * np.vectorize(len)(["a", "bb", "ccc"]),
    lambda x: sum(v * (i[0] + 2 * i[1]) for i, v in np.ndenumerate(np.stack([x, x * x]))),
]


@pytest.mark.parametrize("f", [*NUMBERS, *LISTS, *ELEMENTS])
def test_functions_are_what_they_are_on_arrays(f):
    same(gd.compile(f)(X), f(X), exact=False)


@pytest.mark.parametrize("f", [*NUMBERS[:6], *LISTS, *ELEMENTS[:5]])
def test_gradients_go_through_them(f):
    gd.check_grads(lambda x: np.sum(f(x)), X)


def test_a_number_of_math_is_weak_and_an_array_is_refused():
    single = gd.compile(lambda x, y: y * math.exp(x))(np.float32(1), np.ones(2, "float32"))
    assert single.dtype == np.float32
    with pytest.raises(ShapeError, match=r"math.sin takes a number, .*write np.sin\(x\)"):
        gd.compile(lambda x: math.sin(x))(X)
    with pytest.raises(DtypeError, match="takes no complex numbers"):
        gd.compile(lambda x: math.sin(x))(1j)
    with pytest.raises(ValueError, match="domain"):  # of numbers that are known
        gd.compile(lambda x: x + math.sqrt(np.arange(3)[1] - 2))(1.0)


def test_what_has_no_values_while_tracing_says_so():
    with pytest.raises(AttributeError, match=r"x.tobytes of a traced array: float64\[3\]") as error:
        gd.compile(lambda x: x.tobytes())(X)
    assert "test_stand_ins.py" in str(error.value)
    with pytest.raises(AttributeError, match=r"object has no attribute 'foo'$"):
        gd.compile(lambda x: x.foo)(X)
    with pytest.raises(gd.UnsupportedError, match=r"write x.astype\(dtype\)"):
        gd.compile(lambda x: x.view("int64"))(X)
    with pytest.raises(TypeError, match="round"):
        gd.compile(lambda x: round(x))(X)
    with pytest.raises(ShapeError, match=r'signature="\(\)->\(n\)"'):
        gd.compile(lambda x: np.vectorize(lambda a: np.array([a, a]))(x))(X)


def asserting(x):
    assert np.sum(x) > 0, "a sum that is positive"
    return x


def filtering(x):
    from scipy import ndimage

    return ndimage.gaussian_filter(x, 1.0)


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (asserting, "`assert` needs the value.*return the condition.*assert np.sum"),
        (filtering, "scipy.ndimage, which computes with NumPy's arrays only.*return ndimage"),
        (lambda x: f"{x[0]:.2f}", "gd.debug.print"),
    ],
)
def test_messages_name_what_asks_and_the_line_of_the_user(f, message):
    with pytest.raises(ConcreteValueError, match="(?s)" + message):
        gd.compile(f)(X)


class Noisy:
    """Draws from a generator of its own."""

    def __init__(self, generator):
        self.generator = generator

    def __call__(self, x):
        assert isinstance(self.generator, (np.random.Generator, np.random.RandomState))
        noise = self.generator.uniform(0, 1, 3)
        noise[0] = x[0]
        return x * noise


@pytest.mark.parametrize(
    ("f", "name"),
    [
        (lambda x: x * np.random.rand(3), r"np.random.rand .*gd.random.uniform"),  # noqa: NPY002
        (
            lambda x: x + np.random.default_rng().normal(size=3),
            r"Generator.normal .*gd.random.normal",
        ),
        (lambda x: x + GENERATOR.integers(3, size=3), r"Generator.integers .*gd.random.randint"),
        (lambda x: x + random.random(), r"^random.random .*gd.random.uniform"),
        (Noisy(np.random.default_rng(2)), r"Generator.uniform "),
        (Noisy(np.random.RandomState(2)), r"RandomState.uniform "),
    ],
)
def test_random_numbers_that_become_constants_are_warned_of(f, name):
    compiled = gd.compile(f)
    with pytest.warns(RandomConstantWarning, match=f"(?s){name}.*test_stand_ins.py") as found:
        first = compiled(X)
    assert all(warning.filename == __file__ for warning in found)
    np.testing.assert_array_equal(compiled(X), first)


def test_numbers_are_drawn_from_the_state_that_numpy_has():
    def two(x):
        return x + STATE.normal(size=3)

    STATE = np.random.RandomState(5)
    with pytest.warns(RandomConstantWarning):
        traced = gd.compile(two)(np.zeros(3))
    after = STATE.normal(size=4)
    expected = np.random.RandomState(5)
    np.testing.assert_array_equal(traced, expected.normal(size=3))
    np.testing.assert_array_equal(after, expected.normal(size=4))


def test_seeded_inside_they_are_meant():
    def seeded(x):
        np.random.seed(3)  # noqa: NPY002
        return (
            x * np.random.rand(3)  # noqa: NPY002
            + np.random.default_rng(1).random(3)
            + random.Random(2).random()
        )

    state = np.random.get_state()  # noqa: NPY002
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = gd.compile(seeded)(X)
        np.testing.assert_allclose(found, seeded(X))
    finally:
        np.random.set_state(state)  # noqa: NPY002


def test_outside_of_a_trace_they_are_pythons_and_numpys():
    from graphdl import builtins, numpy_random, vectorizing
    from graphdl import math as stand_in

    assert stand_in.sin(1) == math.sin(1)
    assert stand_in.tau == math.tau
    assert builtins.any(iter([0, 1])) is True
    assert vectorizing.vectorize(len)(["ab", "c"]).tolist() == [2, 1]
    assert numpy_random.default_rng(1).random() == np.random.default_rng(1).random()
