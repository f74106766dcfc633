"""graphdl.numpy, and the copies of the user's functions in which it stands for numpy."""

from __future__ import annotations

import abc
import functools
import inspect
import sys
import threading
from typing import Any

import numpy as np
import pytest
from numpy import array as build
from scipy import special as scipy_special

import graphdl as gd
import graphdl.numpy as gnp
from graphdl.errors import ConcreteValueError, UnsupportedError
from graphdl.tracing import TracedArray, tracing
from tests import rebinding_helpers
from tests import rebinding_objects as objects
from tests.helpers import check, same, trace
from tests.rebinding_helpers import LIMIT, counted, filled, model, ping

X = np.array([1.0, -2.0, 3.0])


def doubled(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args) * 2

    return wrapper


@doubled
def decorated(x):
    return np.array([x[0], x[1] * 2, 1.0])


@functools.lru_cache
def cached(n):
    return np.arange(n) * 1.0


@functools.singledispatch
def dispatched(x):
    return sum(map(dispatched, x))


@dispatched.register(np.ndarray)
def _(x):
    y = np.zeros(3)
    y[0] = x[0]
    return y


@dispatched.register(float)
def _(x):
    return np.zeros(3) + x


def with_single_dispatch(x):
    """By the classes of what traced values stand for."""
    return dispatched([x, x[1], (2.0, x * 3)])


def with_default(x, make=np.zeros, *, other=np.ones):
    y, z = make(3), other(3)
    y[0], z[1] = x[0], x[1]
    return y + z


def recursive(x, n):
    y = np.zeros(3)
    y[n] = x[n]
    return y + recursive(x, n - 1) if n else y


def loop_of_arange(x):
    y = np.zeros_like(np.arange(3.0))
    for i in np.arange(1, 3):
        if i % 2 == 0 and i > 0:
            y[i] = x[i - 1]
        else:
            y[int(i)] += x[i] * float(i) + [10, 20, 30][i]
    return y


def static(x):
    """Arrays that depend on no argument are known to indices, sizes, ifs and any function."""
    table = np.array([[0, 2], [1, 1]])
    kinds, counts = np.unique(table, return_counts=True)
    assert len(kinds) == 3
    order = np.argsort(np.array([2.0, 1.0, 3.0]))
    y = np.zeros((table.shape[0], table[0, 1] + 1))
    y[table[:, 0], table[:, 1]] = x[order[:2]]
    if np.any(table > 1) and table.sum() == 4:
        y = y + np.asarray(x)[np.array([True, False, True])][0]
    for k in np.nonzero(counts > 1)[0].tolist():
        y = y * (k + 2)
    return np.pad(y, np.array([[0, 1], [1, 0]])), f"{np.pi:.2f}" == "3.14" and np.ones(2)


def closure(scale):
    offsets = np.arange(3.0)

    def add(x):
        y = np.zeros(3)
        y[1:] = x[1:] * scale
        return y + offsets

    return add


def inner_function(x):
    def inner(n):
        y = np.zeros(3)
        y[n] = x[n]
        return y

    return sum((inner(n) for n in range(3)), np.zeros(3))


def of_every_kind(x):
    t = np.array([x[0], 1, np.float32(2)])
    u = np.asarray([[x[0], x[1]], [0, 1]])
    v = np.full((2, 2), x[0])
    w = np.linspace(x[0], 2, 3)
    i, j = np.indices((2, 2))
    m, n = np.meshgrid(np.arange(2), np.arange(2.0), indexing="ij")
    g = np.mgrid[:2, :2]
    r = np.r_[x, 1.0]
    k = np.fromfunction(lambda i, j: i + j * x[0], (2, 2))
    e, d = np.eye(2), np.identity(2)
    e[0] = x[1]
    d += e
    s = np.stack([np.ones(2), np.zeros(2)])
    s[1, 0] = x[2]
    z = np.float32(x[0]) + np.float64(x[1]) + np.int64(x[2])
    h = np.tri(2) + np.diag(np.ones(2))
    h[0, 1] = x[0]
    q = np.array(5.0)
    q += x[0]
    c = np.array(x)
    c[0] = 9
    a = np.asarray(c)
    a[1] = 8
    f = np.array([1, 2], dtype=np.float32)
    f[0] = x[1]
    return [t, u, v, w, i + j, m + n, g + x[0], r, k, e, d, s, z, h, q, c, a, f, np.copy(c)]


def imports_inside(x):
    import numpy
    from numpy import zeros as make
    from scipy.special import logsumexp

    from tests.rebinding_helpers import filled as known

    y, z = make(3), numpy.ones(3)
    y[0], z[1:] = x[0], x[:2]
    return y * z + known(x) + logsumexp(x)


def makes_objects(x):
    made = objects.Derived(x[1], objects.first_only)
    made.f = objects.FUNCTIONS["first"]
    return objects.Frozen(made).go(x) + made.go(x)


def in_defaults(x, f=objects.first_only, fs=(objects.tripled,), *, table=objects.FUNCTIONS):
    return f(x) + fs[0](x) + table["nested"][1]["f"](x)


def applied(f, *args):
    return f(*args)


FUNCTIONS = {
    "helpers": lambda x: filled(x) + rebinding_helpers.filled(x) * rebinding_helpers.LIMIT,
    "a decorated function": decorated,
    "a cached function": lambda x: cached(3) + x,
    "defaults": with_default,
    "recursion": lambda x: recursive(x, 2),
    "single dispatch": with_single_dispatch,
    "two that call each other": lambda x: ping(x, LIMIT),
    "partial": functools.partial(with_default, make=np.empty_like) and functools.partial(
        lambda n, x: filled(x) * n, 2.0
    ),
    "imports inside": imports_inside,
    "a function in a dict": lambda x: objects.FUNCTIONS["first"](x),
    "in lists in tuples": lambda x: objects.FUNCTIONS["nested"][0][0](x),
    "in every container": lambda x: (
        sum(f(x) for f in objects.ORDERED.values())
        + objects.DEFAULT["none"](x)
        + objects.DEFAULT["a"](x)
        + next(iter(objects.CHOSEN))(x)
        + objects.rule.start(x)
        + objects.rule.update(x)
    ),
    "in a closure's list": (lambda fs: lambda x: functools.reduce(lambda y, f: f(y), fs, x))(
        [objects.first_only, objects.tripled]
    ),
    "in defaults": in_defaults,
    "callbacks": lambda x: applied(objects.first_only, x) + applied(applied, objects.derived.go, x),
    "a callback in a partial": lambda x: applied(functools.partial(applied, objects.tripled), x),
    "attributes": lambda x: objects.derived.go(x) + objects.derived.f(x),
    "super": lambda x: objects.derived.shared(x),
    "methods of classes": lambda x: (
        objects.Derived.static(x) + objects.derived.static(x) + objects.Derived.of_class(x)
    ),
    "properties": lambda x: objects.derived.scaled(x) + objects.derived.cached(x),
    "a partial method": lambda x: objects.derived.other(x),
    "slots": lambda x: objects.Slotted(1, objects.tripled).go(x),
    "an object in an object": objects.frozen.go,
    "objects made inside": makes_objects,
    "a method": model.inner,
    "an object": model,
    "an object that is reached": lambda x: model(x) * 2,
    "a closure": closure(2.0),
    "functions inside": inner_function,
    "a lambda in a closure": (lambda f: lambda x: f(x) * 2)(lambda x: build([x[0], x[1], 0.0])),
    "loops over arange": loop_of_arange,
    "static values": static,
    "every kind of array": of_every_kind,
    "scipy": lambda x: scipy_special.logsumexp(x) + scipy_special.expit(x),
    "isinstance": lambda x: x if isinstance(x, np.ndarray) and not isinstance(x, np.float64) else 0,
    "classes as dtypes": lambda x: x.astype(np.float32) + np.zeros(3, np.float32)
    if np.float32 == np.dtype("f4") and issubclass(np.float64, np.floating)
    else x,
}  # fmt: skip


@pytest.mark.parametrize("f", FUNCTIONS.values(), ids=FUNCTIONS)
def test_functions_make_arrays_as_they_do_in_numpy(f):
    check(f, [X], exact=False)


def test_compiled_and_differentiated():
    for name in ("helpers", "recursion", "an object", "functions inside", "loops over arange"):
        f = FUNCTIONS[name]
        same(gd.compile(f)(X), f(X), exact=False)
        gd.check_grads(lambda x, f=f: np.sum(np.sin(f(x))), X)


def test_transformed_functions_are_copied_too():
    loss = gd.grad(lambda x: np.sum(filled(x) ** 2))  # made outside of the trace
    check_against = gd.compile(lambda x: loss(x) + gd.vmap(lambda v: filled(v))(x[None])[0])
    np.testing.assert_allclose(check_against(X), 3 * X)

    def step(n, y):
        z = np.zeros(3)
        z[n] = y[n]
        return y + z

    np.testing.assert_allclose(gd.compile(lambda x: gd.fori_loop(0, 3, step, x))(X), 2 * X)


def test_numpy_itself_and_other_threads_see_nothing():
    before = dict(vars(np))
    seen: list[Any] = []
    inside, done = threading.Event(), threading.Event()

    def look():
        inside.wait(10)
        seen.append(type(filled(X)))
        seen.append(np.zeros is before["zeros"])
        done.set()

    thread = threading.Thread(target=look)
    thread.start()

    def f(x):
        y = filled(x)
        inside.set()
        assert done.wait(10)
        return y

    gd.trace(f, X)
    thread.join()
    assert seen == [np.ndarray, True]
    assert all(vars(np)[name] is value for name, value in before.items())
    assert filled.__globals__["numpy"] is np


def test_global_names_are_assigned_in_their_module():
    rebinding_helpers.calls = 0
    gd.trace(lambda x: counted(x) + counted(x), X)
    assert rebinding_helpers.calls == 2
    gd.trace(lambda x: setattr(rebinding_helpers, "calls", 7) or filled(x), X)
    assert rebinding_helpers.calls == 7


def test_containers_of_functions_can_be_changed():
    """A list of functions is copied; what the traced function does to it, it does to the list."""

    def f(x):
        objects.made.append(objects.first_only)
        objects.FUNCTIONS["calls"] += 1
        table[objects.first_only] = 2
        return objects.made[-1](x) * table[objects.first_only]

    table = {objects.first_only: 1}
    objects.made[:] = [objects.tripled]
    before = objects.FUNCTIONS["calls"]
    same(gd.trace(f, X).evaluate(X), np.array([2.0, 0, 0]))
    assert objects.made == [objects.tripled, objects.first_only]
    assert objects.FUNCTIONS["calls"] == before + 1
    assert table == {objects.first_only: 2}


def test_shadows_of_classes_are_like_the_classes():
    def f(x):
        seen.append(objects.Derived)
        seen.append(objects.Derived(1.0, objects.first_only))
        assert isinstance(objects.derived, objects.Derived)
        assert isinstance(seen[-1], objects.Derived)
        assert issubclass(objects.Derived, objects.Base)
        assert {objects.Derived: 5}[type(objects.derived)] == 5
        assert objects.Derived.is_of(objects.derived)
        objects.slotted.go(x)
        try:
            objects.frozen.inner = None
        except AttributeError:
            return objects.derived.go(x)

    seen: list[Any] = []
    known, count = list(objects.Base.subclasses), objects.Derived.count
    objects.slotted = objects.Slotted(1, objects.tripled)
    gd.trace(f, X)
    assert objects.Base.subclasses == known  # shadows are no classes of the user's
    assert objects.Derived.count == count + 1
    assert objects.slotted.scale == 2
    assert seen[0] is not objects.Derived
    assert seen[0] == objects.Derived
    assert isinstance(seen[1], objects.Derived)


def test_a_copy_is_the_same_code():
    def f(x):
        frames.append(sys._getframe())
        return np.array([x[0]]) + filled(x)

    frames: list[Any] = []
    graph = gd.trace(f, X)
    assert frames[0].f_code is f.__code__
    files = {source.file for source in graph.sources.values()}
    assert files == {__file__, inspect.getfile(rebinding_helpers)}


def test_nothing_is_copied_in_vain():
    seen: list[Any] = []

    def g(x):
        return x + 1

    def f(x):
        seen.append(g)
        return g(x)

    gd.trace(f, X)
    assert seen == [g]


def test_the_module_by_its_own_name():
    assert type(gnp.zeros(3)) is np.ndarray
    assert gnp.sin is np.sin
    assert gnp.linalg is np.linalg
    assert gnp.float64(1.5) == 1.5
    assert type(gnp.float64(1.5)) is np.float64
    assert np.dtype(gnp.int32) == np.int32
    assert isinstance(np.ones(2), gnp.ndarray)
    assert gnp.mgrid[:2].tolist() == [0, 1]
    with tracing("f"):
        y = gnp.zeros(3)
        assert isinstance(y, TracedArray)
        y[0] = 5
        assert y.tolist() == [5, 0, 0]
        assert isinstance(gnp.array(["a"]), np.ndarray)  # no graph holds it
    for name in gnp.__all__:
        if callable(getattr(np, name)) and not isinstance(getattr(np, name), type):
            assert getattr(gnp, name).__name__ == getattr(np, name).__name__
    assert set(dir(np)) <= set(dir(gnp))


def test_a_known_value_through_a_gradient_is_not_known():
    """float(t) and t.item() would cut the gradient off without a word."""

    def f(x, number):
        return gd.grad(lambda t: t * number(t))(np.float64(2.0)) * x

    for number in (lambda t: float(t), lambda t: t.item()):
        with pytest.raises(ConcreteValueError):
            gd.trace(lambda x, number=number: f(x, number), X)


def test_arrays_of_numpy_from_outside_say_what_to_do():
    table = np.zeros(3)

    def f(x):
        table[0] = x[0]

    with pytest.raises(ConcreteValueError, match=r"import graphdl\.numpy as np") as caught:
        trace(f, X)
    assert f"{__file__}:{f.__code__.co_firstlineno + 1}" in str(caught.value)
    with pytest.raises(UnsupportedError, match=r"import graphdl\.numpy"):
        trace(lambda x: np.add(x, 1, out=table), X)


@pytest.mark.parametrize("make", [np.zeros, np.arange, np.eye, lambda n: np.ones((2, n))])
def test_sizes_that_depend_on_values_say_what_to_write(make):
    def f(x):
        return make(x[0].astype(int)) * x[1]

    with pytest.raises(ConcreteValueError, match=r"Shapes are static.*np\.where") as caught:
        gd.trace(f, X)
    assert f"{__file__}:" in str(caught.value)


def test_names_of_numpy_do_not_hide_those_of_python():
    assert gnp.any([0, 1])
    assert gnp.max([1, 2]) == 2
    with tracing("f"):
        assert isinstance(gnp.array(["a"]), np.ndarray)


# --- Python's own min and max ---------------------------------------------------------------------


def clamped(x, low=0.25, high=0.75):
    return max(low, min(x, high))


def spread(x):
    values = [x[0] * x[1], x[1], abs(x[2])]
    return max(values) - min(values)


@pytest.mark.parametrize("x", [[0.5, 2.0, -3.0], [0.1, 0.1, 0.1], [-1.0, -2.0, 0.0]])
def test_min_and_max_of_traced_numbers(x):
    x = np.array(x)

    def f(x):
        return clamped(x[0]) * spread(x)

    assert gd.compile(f)(x) == f(x)
    gd.check_grads(f, x + np.array([0.01, 0.02, 0.03]))


def test_min_and_max_choose_as_python_does():
    nan = float("nan")
    for a, b in [(nan, 1.0), (1.0, nan), (0.0, -0.0), (-0.0, 0.0), (2.0, 2.0), (1.0, 3.0)]:
        for choose in (lambda a, b: min(a, b), lambda a, b: max(a, b)):
            got, plain = gd.compile(choose)(a, b), choose(a, b)
            np.testing.assert_array_equal(got, plain)
            assert np.signbit(got) == np.signbit(plain)


def test_min_and_max_of_other_things_are_pythons():
    def f(x):
        longest = max(["a", "ccc", "bb"], key=len)
        return x * len(longest) + min(3, 2) + max((), default=1) + min(x.shape)

    assert np.array_equal(gd.compile(f)(np.ones(4)), f(np.ones(4)))
    with pytest.raises(gd.GraphError, match=r"np\.where"):
        gd.trace(lambda x: max(x[:2], x[2:]), np.ones(4))


def test_edit_distance_as_it_is_written():
    def distance(a, b):
        row = np.arange(len(b) + 1)
        for i in range(len(a)):
            before = row.copy()
            row[0] = i + 1
            for j in range(len(b)):
                cost = 0 if a[i] == b[j] else 1
                row[j + 1] = min(before[j + 1] + 1, row[j] + 1, before[j] + cost)
        return row[-1]

    a, b = (np.array([ord(c) for c in word]) for word in ("kitten", "sitting"))
    assert gd.compile(distance, loops="native")(a, b) == distance(a, b) == 3


class Kernel(abc.ABC):
    @abc.abstractmethod
    def __call__(self, r): ...

    def table(self, n):
        out = np.zeros(n)
        out[:] = [self(i * 1.0) for i in range(n)]
        return out


class Gaussian(Kernel):
    def __init__(self, width):
        self.width = width

    def __call__(self, r):
        return np.exp(-((r / self.width) ** 2))


def test_an_abstract_class_that_has_a_shadow_still_says_what_it_is_no_base_of():
    def f(width):
        kernel = Gaussian(width)
        assert isinstance(kernel, Kernel)
        assert not isinstance(width, Kernel)
        return kernel.table(3)

    for _ in range(3):
        np.testing.assert_allclose(gd.compile(lambda w: f(w))(2.0), f(2.0))
        for other in (type("Other", (), {}), type("Further", (Gaussian,), {})):
            assert issubclass(other, Kernel) == (other.__name__ == "Further")
