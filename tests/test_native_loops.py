"""gd.compile(loops="native"): plain loops and branches, against the same code run by Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphdl as gd
from graphdl.native_loops import with_native_loops

RNG = np.random.default_rng(17)
X = RNG.uniform(0.5, 1.5, 12)


def running_sum(x):
    out = x * 0
    total = 0.0
    for i in range(len(x)):
        total += x[i]
        out[i] = total
    return out


def smoothed(x, count):
    u = x.copy()
    for _ in range(count):
        u[1:-1] = 0.25 * (u[:-2] + 2 * u[1:-1] + u[2:])
    return u


def stepped(x):
    s = 0.0
    for i in range(10, -2, -1):
        s = s * 0.5 + x[i] * i
    return s, i


def nested(x):
    total = np.zeros_like(x)
    for i in range(12):
        row = 0.0
        for j in range(i, 12):
            if x[j] > 1.0:
                row += x[j] * x[i]
            else:
                row -= x[i]
        total[i] = row
    return total


def newton(x, tolerance):
    y, steps = x, 0
    while abs(y * y - x) > tolerance and steps < 50:
        y = 0.5 * (y + x / y)
        steps += 1
    return y, steps


def first_above(x, limit):
    place = -1
    for i in range(len(x)):
        if x[i] > limit:
            place = i
            break
    return place


def sum_of_some(x):
    total = 0.0
    for i in range(len(x)):
        if x[i] < 0.7:
            continue
        if x[i] > 1.4:
            break
        total += x[i]
    return total


def while_with_break(x):
    count = 0
    while True:
        x = x * 0.9
        count += 1
        if x.sum() < 5.0:
            break
    return x, count


def sign(x):
    if x > 0:
        return 1.0
    if x < 0:
        return -1.0
    return x


def graded(x):
    if np.sum(x) > 12:
        y = x * 2
        kind = 1
    elif np.sum(x) > 11:
        y = x + 1.0
        kind = 2
    else:
        y, kind = -x, 3
    return y, kind


def expressions(x, y):
    a = x if x > y else y
    b = 0.0 < x < 1.0
    c = 2 if not (x > 1 or y > 1) else 3.0
    return a, b, c


def static(x, power, name="sum"):
    y = x
    for _ in range(power):
        y = y * x
    if name == "sum" and power > 1:
        y = y.sum()
    for axis in range(2):
        z = np.sum(x.reshape(3, 4), axis=axis)
    return y, z, axis


def lists(x):
    parts = []
    for i in range(3):
        parts.append(x[i] * 2)
    for part in parts:
        x = x + part
    return x


def trees(x):
    state = {"u": x, "v": (x * 0, 1.0)}
    for _ in range(20):
        u, (v, w) = state["u"], state["v"]
        state = {"u": u + 0.1 * v, "v": (v - 0.1 * u, w * 0.5)}
    return state["u"], state["v"][1]


def last_value(x):
    for i in range(12):
        y = x[i] * 2
        z = y + 1
        y = z - 1
    return y, i


def view_of_the_outside(x):
    x = x.copy()
    part = x[2:6]
    for i in range(9):
        x[i] = x[i] * i
    return part


def swapped(x):
    a, b = x, x * 2
    for _ in range(11):
        a, b = b, a
    return a, b


def keyword_only(x, *, scale=2.0):
    for _ in range(9):
        x = x * scale / 2.5
    return x


CASES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "running sum": (running_sum, (X,)),
    "static count": (smoothed, (X, 30)),
    "steps downwards": (stepped, (X,)),
    "nested": (nested, (X,)),
    "newton": (newton, (2.0, 1e-10)),
    "break": (first_above, (X, 1.2)),
    "break that is not met": (first_above, (X, 9.0)),
    "continue and break": (sum_of_some, (X,)),
    "while with break": (while_with_break, (X,)),
    "early returns": (sign, (-2.5,)),
    "no early return": (sign, (0.0,)),
    "branches": (graded, (X,)),
    "other branch": (graded, (X * 0.1,)),
    "expressions": (expressions, (0.5, 0.25)),
    "static": (static, (X, 12)),
    "lists": (lists, (X,)),
    "trees": (trees, (X,)),
    "last value": (last_value, (X,)),
    "view": (view_of_the_outside, (X,)),
    "swap": (swapped, (X,)),
    "keyword": (keyword_only, (X,)),
}


def leaves(tree: Any) -> list[Any]:
    return [x for item in tree for x in leaves(item)] if isinstance(tree, tuple) else [tree]


@pytest.mark.parametrize("name", CASES)
def test_converted_code_does_what_the_code_does(name: str) -> None:
    f, args = CASES[name]
    expected = leaves(f(*args))
    converted = with_native_loops(f)
    for found in (
        converted(*args),  # outside of a trace
        gd.trace(converted, *args).evaluate(*args),
    ):
        for got, want in zip(leaves(found), expected, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)
            assert np.asarray(got).dtype == np.asarray(want).dtype or name in WEAK
    assert converted.__name__ == f.__name__


#: Cases with results that are Python numbers at times.
WEAK = ("expressions", "branches", "other branch")


@pytest.mark.parametrize("name", ["running sum", "newton", "continue and break", "branches"])
def test_compiled(name: str) -> None:
    f, args = CASES[name]
    result = gd.compile(f, loops="native")(*args)
    for got, want in zip(leaves(result), leaves(f(*args)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)


def test_gradients_go_through_converted_loops() -> None:
    def relaxed(x, steps):
        u = x * 0
        for _ in range(steps):
            for i in range(1, 11):
                u[i] = 0.5 * (u[i - 1] + u[i + 1]) + x[i]
            if np.max(u) > 2.0:
                u = u * 0.9
        return np.sum(u * u)

    native = gd.compile(relaxed, loops="native")
    value, gradient = gd.value_and_grad(native)(X, 9)
    np.testing.assert_allclose(value, relaxed(X, 9), rtol=1e-12)
    plain = gd.grad(lambda x: relaxed_in_jumps(x))(X)
    np.testing.assert_allclose(gradient, plain, rtol=1e-9)


def relaxed_in_jumps(x: Any) -> Any:
    """The same with the branch decided by hand."""
    values = np.array(X)
    u, plain = x * 0, values * 0
    for _ in range(9):
        for i in range(1, 11):
            u[i] = 0.5 * (u[i - 1] + u[i + 1]) + x[i]
            plain[i] = 0.5 * (plain[i - 1] + plain[i + 1]) + values[i]
        if np.max(plain) > 2.0:
            u, plain = u * 0.9, plain * 0.9
    return np.sum(u * u)


def lambda_of(count: int) -> Any:
    def f(x):
        for _ in range(count):
            x = x * 0.5
        return x

    return f


def test_loops_are_native_and_short_ranges_are_not() -> None:
    def names(f: Any, *args: Any) -> list[str]:
        return [node.op.name for node in gd.trace(with_native_loops(f), *args).operations]

    assert names(lambda_of(5000), X).count("scan") == 1
    assert "scan" not in names(lambda_of(8), X)
    assert names(newton, 2.0, 1e-10).count("while") == 1
    assert names(sign, 2.0).count("switch") == 1
    assert gd.compile(newton, loops="native").lower(2.0, 1e-10).graph is not None


def test_vmap_of_converted_code() -> None:
    f = with_native_loops(newton)
    roots, steps = gd.vmap(f, in_axes=(0, None))(np.array([2.0, 9.0, 1.0]), 1e-12)
    np.testing.assert_allclose(roots, np.sqrt([2.0, 9.0, 1.0]))
    np.testing.assert_array_equal(steps, [newton(v, 1e-12)[1] for v in (2.0, 9.0, 1.0)])


SCALE = 3.0


class Model:
    """A method with a closure and a decorator beside."""

    def __init__(self) -> None:
        self.rate = 0.5
        self.seen: Any = None

    @gd.compile(loops="native")
    def run(self, x):
        """A docstring."""
        for _ in range(20):
            x = x - self.rate * x * SCALE / 10
        return x


def test_methods_closures_and_globals() -> None:
    with pytest.raises(gd.DtypeError, match="argument self is a Model"):
        Model().run(X)
    offset = np.arange(12.0)

    def shifted(x):
        for i in range(12):
            x = x + offset * i / SCALE
        return x

    np.testing.assert_allclose(gd.compile(shifted, loops="native")(X), shifted(X))


def returns_inside(x):
    for i in range(len(x)):
        if x[i] > 1:
            return x[i]
    return x[0]


def assigns_an_attribute(x, box):
    while x[0] > 0.5:
        box.value = x
        x = x * 0.5
    return x


def raises(x):
    if x.sum() > 1:
        raise ValueError("large")
    return x


def grows_a_list(x):
    parts = []
    for i in range(12):
        parts.append(x[i])
    return np.stack(parts)


def changes_shape(x):
    y = x[:1]
    for i in range(12):
        y = np.concatenate([y, x[i][None]])
    return y


def one_branch_only(x):
    if x[0] > 1:
        y = x * 2
    return y


def reads_before(x):
    total = 0.0
    for i in range(12):
        if i > 0:
            total += before  # noqa: F821
        before = x[i]  # noqa: F841
    return total


def ends_in_else(x):
    while x.sum() > 1:
        x = x * 0.5
    else:
        x = x + 1
    return x


def needs_a_number(x):
    total = 0.0
    for axis in range(9):
        total += np.sum(x, axis=axis)
    return total


class Box:
    value: Any = None


#: A function, its arguments, the error, and what the message says.
MISTAKES: dict[str, tuple[Any, tuple[Any, ...], Any, str]] = {
    "return": (
        returns_inside, (X,), gd.ConcreteValueError,
        r"the `if` at .*test_native_loops.py:\d+ depends on the value of a traced array, and loops="
        r"'native' cannot convert it: it returns from inside \(line \d+\)",
    ),
    "raise": (raises, (X,), gd.ConcreteValueError, "it raises an error, which no value of an"),
    "list": (
        grows_a_list, (X,), gd.UnsupportedError,
        r"the list 'parts' has \d items before .* parts = np.zeros\(n\), and write parts\[i\]"
        r"(.|\n)*in the `for` at .*, which carries parts",
    ),
    "shape": (changes_shape, (X,), gd.ShapeError, r"in the `for` at .*, which carries y"),
    "one branch": (
        one_branch_only, (X,), gd.GraphError, r"'y' has no value here: the `if` at .* assigns it",
    ),
    "else": (ends_in_else, (X,), gd.ConcreteValueError, "the `while` at .*: it has an `else`"),
    "axis": (needs_a_number, (X,), gd.ConcreteValueError, r"np.sum: an axis is a traced value"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_what_cannot_be_converted_is_named(name: str) -> None:
    f, args, error, message = MISTAKES[name]
    with pytest.raises(error, match=message):
        gd.compile(f, loops="native")(*args)


def test_more_mistakes() -> None:
    box = Box()
    with pytest.raises(gd.ConcreteValueError, match=r"it assigns to an attribute, box.value"):
        gd.compile(lambda x: with_native_loops(assigns_an_attribute)(x, box))(X)
    with pytest.raises(gd.GraphError, match=r"'before'.*, in the `if` at.*\n.*\n.*in the `for` at"):
        gd.compile(reads_before, loops="native")(X)
    with pytest.raises(gd.ArgumentError, match=r"loops='python'; write 'native' or None"):
        gd.compile(smoothed, loops="python")
    made: dict[str, Any] = {}
    exec("def f(x):\n    return x", made)
    with pytest.raises(gd.UnsupportedError, match="needs the source of f, which cannot be read"):
        gd.compile(made["f"], loops="native")
    with pytest.raises(gd.UnsupportedError, match="takes a function written in Python, not <ufunc"):
        gd.compile(np.sin, loops="native")
    assert with_native_loops(lambda x: x)(3) == 3


def histogram(x):
    counts = np.zeros(6)
    for i in range(len(x)):
        counts[int_of(x[i] * 4)] += 1.0
    return counts


def int_of(value):
    return np.floor(value).astype(np.int64)


def test_creation_functions_and_helpers_work_in_converted_code() -> None:
    expected = np.bincount((X * 4).astype(int), minlength=6)
    np.testing.assert_array_equal(gd.compile(histogram, loops="native")(X), expected)
