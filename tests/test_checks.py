"""checks="nan" and checks="bounds": seeded mistakes are found at the right line."""

from __future__ import annotations

import linecache
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphdl as gd
from graphdl.compiler import pipeline
from graphdl.compiler.guards import guarded, settled
from graphdl.trees import leaves_of

FILE = Path(__file__).name
X = np.array([0.5, 2.0, 0.0, 3.0])
SQUARE = np.array([[1.0, 2.0], [2.0, 4.0]])


def line_of(f: Callable[..., Any]) -> int:
    """The line in the source of `f` that says `# here`."""
    first = f.__code__.co_firstlineno
    for line in range(first, first + 40):
        if linecache.getline(__file__, line).rstrip().endswith("# here"):
            return line
    raise AssertionError(f"{f.__name__} has no marked line")


# --- forward ----------------------------------------------------------------------------------
# Each has one mistake, in the line marked `here`; the rest is fine, before it and behind it.


def logarithm_of_zero(x: Any) -> Any:
    y = np.exp(x) * 2
    z = np.log(x)  # here
    return np.sum(y * z)


def logarithm_of_a_negative_number(x: Any) -> Any:
    y = np.tanh(x)
    z = np.log(y - 0.5) + 1  # here
    return z * z


def division_by_zero(x: Any) -> Any:
    weights = 1.0 / x  # here
    return np.sum(weights * x)


def zero_by_zero(x: Any) -> Any:
    ratio = (x - x) / (x * 0)  # here
    return np.max(ratio)


def overflow(x: Any) -> Any:
    y = np.sin(x)
    big = np.exp(x * 400)  # here
    return np.sum(big) + np.sum(y)


def overflow_of_a_power(x: Any) -> Any:
    return np.power(x + 10, 400.0)  # here


def overflow_that_disappears(x: Any) -> Any:
    big = 1 / (x * 0.0 + 1e-320)  # here
    return 1 / (1 + big)


def infinity_less_infinity(x: Any) -> Any:
    top = np.where(x > 0, np.inf, x)
    return np.sum(top - top)  # here


def square_root(x: Any) -> Any:
    y = x - 1
    return np.sqrt(y).sum()  # here


def arc_sine(x: Any) -> Any:
    angle = np.arcsin(x)  # here
    return np.cos(angle) @ x


def hyperbolic(x: Any) -> Any:
    y = np.arccosh(x)  # here
    return y[::-1] * 2


def reciprocal_in_a_view(x: Any) -> Any:
    parts = x.reshape(2, 2).T
    return np.reciprocal(parts)[:1]  # here


def mean_of_nothing_left(x: Any) -> Any:
    mask = x > 10
    total = np.sum(np.where(mask, x, 0.0))
    return total / np.sum(mask)  # here


def sum_that_overflows(x: Any) -> Any:
    y = np.full((4,), 1e308) + x
    return np.sum(y) * 0.5  # here


def product_that_overflows(x: Any) -> Any:
    y = x * 1e200 + 1e200
    return np.tanh(y @ y)  # here


def normalisation(x: Any) -> Any:
    centred = x - x
    return centred / np.std(centred)  # here


def cast_to_single(x: Any) -> Any:
    y = np.exp(x * 50)
    return y.astype(np.float32) + 1  # here


def in_a_scan(x: Any) -> Any:
    def step(total: Any, row: Any) -> Any:
        inverse = 1.0 / row  # here
        return total + inverse, np.sin(row)

    return gd.scan(step, 0.0, x)[0]


def in_a_nested_scan(x: Any) -> Any:
    def inner(total: Any, row: Any) -> Any:
        return total * np.log(row + 0.5 * total), None  # here

    def outer(total: Any, row: Any) -> Any:
        return total + gd.scan(inner, row, x)[0], row * 2

    return gd.scan(outer, 0.0, x)[0]


def in_a_counted_loop(x: Any) -> Any:
    def body(i: Any, y: Any) -> Any:
        z = y * 1e100  # here
        return z + x

    return gd.fori_loop(0, 5, body, x)


def in_a_while_loop(x: Any) -> Any:
    def body(state: Any) -> Any:
        n, y = state
        return n + 1, np.sqrt(y - 1.0)  # here

    return gd.while_loop(lambda state: state[0] < 4, body, (0, x + 2))[1]


def in_a_branch(x: Any) -> Any:
    def wrong(y: Any) -> Any:
        return np.log(y - 4)  # here

    return gd.cond(np.sum(x) > 1, wrong, np.sin, x)


def in_a_function_of_a_batch(x: Any) -> Any:
    def of_one(y: Any) -> Any:
        z = np.cos(y)
        return z / y  # here

    return gd.vmap(of_one)(x)


def of_linear_algebra(x: Any) -> Any:
    gram = SQUARE * x[1]
    return np.sqrt(np.linalg.det(gram) - 1)  # here


def in_place(x: Any) -> Any:
    y = np.zeros(4)
    y[1:3] = np.log(x[1:3])  # here
    y += 1
    return y


FORWARD = [
    logarithm_of_zero, logarithm_of_a_negative_number, division_by_zero, zero_by_zero, overflow,
    overflow_of_a_power, overflow_that_disappears, infinity_less_infinity, square_root, arc_sine,
    hyperbolic, reciprocal_in_a_view, mean_of_nothing_left, sum_that_overflows,
    product_that_overflows, normalisation, cast_to_single, in_a_scan, in_a_nested_scan,
    in_a_counted_loop, in_a_while_loop, in_a_branch, in_a_function_of_a_batch, of_linear_algebra,
    in_place,
]  # fmt: skip


@pytest.mark.parametrize("f", FORWARD, ids=lambda f: f.__name__)
def test_forward_mistakes(f: Callable[..., Any]) -> None:
    with pytest.raises(gd.NonFiniteError) as caught:
        gd.compile(f, checks="nan")(X)
    message = str(caught.value)
    assert f"at {__file__}:{line_of(f)}: " in message, message
    assert caught.value.kernel, message
    assert caught.value.op in message.splitlines()[0]
    assert not np.isfinite(caught.value.value)
    if "scan" in f.__name__ or "loop" in f.__name__:
        assert "in step " in message


# --- backward ---------------------------------------------------------------------------------
# The values are all fine; the gradient of the marked line is not.


def root_at_zero(x: Any) -> Any:
    y = x * x
    return np.sum(np.sqrt(y))  # here


def root_behind_a_mask(x: Any) -> Any:
    root = np.sqrt(x)  # here
    return np.sum(np.where(x > 0, root, 0.0))


def norm_at_zero(x: Any) -> Any:
    y = x - x
    return np.sqrt(np.sum(y * y))  # here


def norm_of_a_row(x: Any) -> Any:
    y = np.stack([x, x * 0])
    return np.sum(np.linalg.norm(y, axis=1) * 2)  # here


def power_below_one(x: Any) -> Any:
    return np.sum(x**0.3 * 2)  # here


def cube_root(x: Any) -> Any:
    y = np.cbrt(x)  # here
    return np.sum(np.sin(y))


def logarithm_of_a_small_number(x: Any) -> Any:
    y = x * 0 + 1e-310
    return np.sum(np.log(y))  # here


def arc_sine_of_one(x: Any) -> Any:
    y = x / 3
    return np.sum(np.arcsin(y))  # here


def arc_cosine_of_one(x: Any) -> Any:
    y = x / 3
    return np.sum(np.arccos(y))  # here


def hyperbolic_at_one(x: Any) -> Any:
    y = x * 0 + 1
    return np.sum(np.arccosh(y))  # here


def angle_of_nothing(x: Any) -> Any:
    y = x - x
    return np.sum(np.arctan2(y, x - x))  # here


def root_times_zero(x: Any) -> Any:
    root = np.sqrt(x)  # here
    return np.sum(root * x)


def deviation_of_equals(x: Any) -> Any:
    y = x * 0 + 1
    return np.std(y)  # here


def reciprocal_of_a_small_number(x: Any) -> Any:
    y = x * 0 + 1e-200
    return np.sum(1 / y)  # here


def root_of_a_magnitude(x: Any) -> Any:
    return np.sum(np.sqrt(np.abs(x)))  # here


def steep_slopes(x: Any) -> Any:
    y = np.sin(x * 1e200)  # here
    return np.sum(np.sin(y * 1e200))


def behind_a_product(x: Any) -> Any:
    y = x @ np.ones((4, 3))
    return np.sum(np.sqrt(y - y[0]))  # here


def through_a_transposed_view(x: Any) -> Any:
    y = x.reshape(2, 2).T
    return np.sum(np.sqrt(y) * np.arange(4.0).reshape(2, 2))  # here


def through_an_index(x: Any) -> Any:
    return np.sum(np.sqrt(x[np.array([1, 2, 2])]))  # here


def root_in_a_scan(x: Any) -> Any:
    def step(total: Any, row: Any) -> Any:
        root = np.sqrt(row)  # here
        return total + np.sin(root), None

    return gd.scan(step, 0.0, x)[0]


def root_of_a_carry(x: Any) -> Any:
    def step(total: Any, row: Any) -> Any:
        return np.sqrt(total) * row, None  # here

    return gd.scan(step, x[2], x)[0]


def root_in_a_counted_loop(x: Any) -> Any:
    def body(i: Any, y: Any) -> Any:
        return y + np.sqrt(x)  # here

    return np.sum(gd.fori_loop(0, 3, body, x))


def root_in_a_while_loop(x: Any) -> Any:
    def body(state: Any) -> Any:
        n, y = state
        return n + 1, y * 2 + np.sqrt(x)  # here

    return np.sum(gd.while_loop(lambda state: state[0] < 3, body, (0, x))[1])


def root_in_a_branch(x: Any) -> Any:
    def taken(y: Any) -> Any:
        return np.sqrt(y)  # here

    return np.sum(gd.cond(x[0] > 0, taken, np.cos, x))


def root_in_a_batch(x: Any) -> Any:
    return np.sum(gd.vmap(lambda y: np.sqrt(y) * 3)(x))  # here


BACKWARD = [
    root_at_zero, root_behind_a_mask, norm_at_zero, norm_of_a_row, power_below_one, cube_root,
    logarithm_of_a_small_number, arc_sine_of_one, arc_cosine_of_one, hyperbolic_at_one,
    angle_of_nothing, root_times_zero, deviation_of_equals, reciprocal_of_a_small_number,
    root_of_a_magnitude, steep_slopes, behind_a_product, through_a_transposed_view,
    through_an_index, root_in_a_scan, root_of_a_carry, root_in_a_counted_loop,
    root_in_a_while_loop, root_in_a_branch, root_in_a_batch,
]  # fmt: skip


@pytest.mark.parametrize("f", BACKWARD, ids=lambda f: f.__name__)
def test_backward_mistakes(f: Callable[..., Any]) -> None:
    assert np.isfinite(gd.compile(f, checks="nan")(X)).all()
    with pytest.raises(gd.NonFiniteError) as caught:
        gd.compile(gd.grad(f), checks="nan")(X)
    message = str(caught.value)
    assert f"in the gradient of {__file__}:{line_of(f)}: " in message, message
    assert caught.value.kernel, message


def test_there_are_fifty() -> None:
    assert len({*FORWARD}) == len({*BACKWARD}) == 25


# --- what is no mistake -----------------------------------------------------------------------


def masked_softmax(x: Any) -> Any:
    scores = np.where(x > 0, x, -np.inf)
    weights = np.exp(scores - np.max(scores))
    return weights / np.sum(weights)


FINE: list[Callable[..., Any]] = [
    masked_softmax,
    gd.grad(lambda x: np.sum(masked_softmax(x) ** 2)),
    lambda x: np.where(x > 0, np.log(x), 0.0),  # what is not chosen
    lambda x: np.where(np.isnan(np.log(x - 1)), -1.0, x),  # asked for
    lambda x: np.fmax(np.log(x - 1), 0.0),
    lambda x: np.minimum.reduce(x, initial=np.inf),
    lambda x: gd.scan(lambda c, row: (np.minimum(c, row), c), np.inf, x),
    lambda x: np.log(np.sum(np.exp(x * 300))),  # stable after the passes
    lambda x: (x * np.nan, np.full(3, np.inf)),  # written down
    lambda x: np.argsort(x)[::-1],
    lambda x: np.exp(x) + 1j * x,
]


@pytest.mark.parametrize("f", FINE, ids=range(len(FINE)))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_no_mistake(f: Callable[..., Any], dtype: str) -> None:
    x = X.astype(dtype)
    checked, plain = gd.compile(f, checks=("nan", "bounds"))(x), gd.compile(f)(x)
    # The kernels are others, so LLVM may sum in another order: equal to the last bits.
    ulps = 4 * np.finfo(dtype).eps
    for a, b in zip(leaves_of(checked), leaves_of(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=ulps, atol=0)
        assert a.dtype == b.dtype


def test_arguments() -> None:
    f = gd.compile(lambda x, p: np.sum(np.tanh(x) * p["scale"]), checks="nan")
    p = {"scale": np.ones(4)}
    assert np.isfinite(f(X, p))
    with pytest.raises(gd.NonFiniteError, match=r"the argument p\['scale'\] is nan at \[2\]"):
        f(X, {"scale": np.array([1, 1, np.nan, 1])})
    assert np.isfinite(f(np.array([1, np.inf, 1, 1]), p))  # tanh of it is 1
    with pytest.raises(gd.NonFiniteError, match="subtract gave nan"):
        gd.compile(lambda x: x - x, checks="nan")(np.array([1, np.inf]))
    assert gd.compile(lambda x, y: x, checks="nan")(X, np.full(2, np.nan)) is not None


def test_the_error_says_all_there_is() -> None:
    def f(x: Any, y: Any) -> Any:
        return np.exp(x) * 2 / (y - 1)

    with pytest.raises(FloatingPointError) as caught:
        gd.compile(f, checks="nan")(np.zeros((2, 3)), np.array([3.0, 2.0, 1.0]))
    error = caught.value
    assert isinstance(error, gd.NonFiniteError)
    assert (error.op, error.value, error.index) == ("divide", np.inf, (0, 2))
    assert error.operands == ("2.0", "0.0")
    assert re.fullmatch(r"\d+: exp_multiply_divide", error.kernel)
    assert "divide gave inf at [0, 2] of float64[2, 3]: divide(2.0, 0.0)" in str(error)


def test_a_matrix_that_lapack_can_do_nothing_with_has_its_line() -> None:
    """Also where its NaN is found out before the failure is."""
    x = np.array([[1.0, 0.0], [0.0, -1.0]])

    def alone(x: Any) -> Any:
        return np.linalg.cholesky(x) + np.log(x)

    def within(x: Any) -> Any:
        body = lambda c, k: (c + np.linalg.cholesky(x + k) + np.log(x + k), None)  # noqa: E731
        return gd.scan(body, x, np.array([3.0, 0.0]))[0]

    for f in (alone, within):
        line = f.__code__.co_firstlineno + 1
        with pytest.raises(gd.GraphLinAlgError, match="not positive definite") as raised:
            gd.compile(f, checks="nan")(x)
        assert f"test_checks.py:{line}" in str(raised.value)
        assert "in kernel" in str(raised.value)
    assert "in step 0 of a loop of 2 steps" in str(raised.value)


def test_reductions_and_products_show_what_they_read() -> None:
    with pytest.raises(gd.NonFiniteError, match=r"sum\(\[1e\+308, 1e\+308\]\)"):
        gd.compile(lambda x: np.sum(x, axis=1), checks="nan")(np.full((3, 2), 1e308))
    with pytest.raises(gd.NonFiniteError, match=r"float64\[3, 9\] from 1e\+200 to 1e\+200"):
        gd.compile(lambda x: x @ x.T, checks="nan")(np.full((3, 9), 1e200))


def test_donated_arguments_are_looked_at_as_they_were() -> None:
    def f(x: Any) -> Any:
        x = x * 2
        return np.log(x - 1)  # here

    with pytest.raises(gd.NonFiniteError, match=r"log\(-1\.0\)"):
        gd.compile(f, checks="nan", donate=0)(np.array([1.0, 0.0]))


def test_without_checks_nothing_is_there() -> None:
    plain, checked = gd.compile(in_a_scan), gd.compile(in_a_scan, checks="nan")
    assert "guard" not in str(plain.lower(X).source) + str(plain.lower(X).optimized)
    assert any(node.op.name == "isfinite" for node in _all_nodes(checked.lower(X).optimized))
    assert not np.isfinite(plain(X))


def _all_nodes(graph: gd.Graph) -> list[Any]:
    found = list(graph.operations)
    for node in graph.operations:
        for _, value in node.attrs:
            if isinstance(value, gd.Graph):
                found += _all_nodes(value)
    return found


def test_guards_change_no_value() -> None:
    for f in (*FORWARD, *map(gd.grad, BACKWARD)):
        graph = settled(pipeline.optimise(gd.trace(f, X))[-1][1])
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(guarded(graph).evaluate(X), graph.evaluate(X))


def test_a_gradient_of_a_checked_function_is_checked() -> None:
    with pytest.raises(gd.NonFiniteError, match="in the gradient of"):
        gd.grad(gd.compile(root_at_zero, checks="nan"))(X)


def _message(f: Callable[..., Any], *args: Any) -> str:
    with pytest.raises(gd.NonFiniteError) as caught:
        gd.compile(f, checks="nan")(*args)
    return str(caught.value)


def test_branches_are_named_as_the_user_chose_them() -> None:
    def either(x: Any, above: Any) -> Any:
        return gd.cond(x > above, lambda x: 1.0 / (x - x), lambda x: np.sqrt(x - 9.0), x)

    def one_of(x: Any, i: Any) -> Any:
        return gd.switch(i, [lambda x: x, lambda x: x, lambda x: np.log(x - 1.0)], x)

    assert "\n  in the branch for True\n" in _message(either, 1.0, 0.0)
    assert "\n  in the branch for False\n" in _message(either, 1.0, 2.0)
    assert "\n  in branch 2 of a switch with 3 (the first is branch 0)\n" in _message(
        one_of, 1.0, 2
    )


def test_steps_count_from_zero_and_say_so() -> None:
    def counted(x: Any) -> Any:
        return gd.fori_loop(0, 5, lambda i, c: c + 1.0 / (3.0 - i), x)

    def until(x: Any) -> Any:
        return gd.while_loop(lambda c: c > -9.0, lambda c: c - 1.0 / (c - 1.0), x)

    assert "\n  in step 3 of a loop of 5 steps (the first is step 0)\n" in _message(counted, 0.0)
    assert "\n  in step 0 of a while_loop (the first is step 0)\n" in _message(until, 1.0)


def test_unknown_checks() -> None:
    with pytest.raises(gd.ArgumentError, match="write 'nan', 'bounds', or both"):
        gd.compile(np.sin, checks="nans")
    with pytest.raises(gd.ArgumentError, match="write 'nan'"):
        gd.compile(checks=("nan", "inf"))(np.sin)
    with pytest.raises(gd.UnsupportedError, match="programs for the CPU only"):
        gd.compile(np.sin, target="cuda", checks="nan")


# --- bounds -----------------------------------------------------------------------------------

TABLE = np.arange(12.0).reshape(4, 3)


def rows(x: Any, i: Any) -> Any:
    y = x * 2
    return np.sum(y[i])  # here


def two_axes(x: Any, i: Any) -> Any:
    return x[np.array([0, 1, 2, 3]), i[:4]]  # here


def set_rows(x: Any, i: Any) -> Any:
    x[i] = 0.0  # here
    return x


def add_at_rows(x: Any, i: Any) -> Any:
    np.add.at(x, i, 1.0)  # here
    return x


def gradient_of_rows(x: Any, i: Any) -> Any:
    def loss(x: Any) -> Any:
        return np.sum(x[i] ** 2)  # here

    return gd.grad(loss)(x)


def one_row_a_step(x: Any, i: Any) -> Any:
    def step(total: Any, k: Any) -> Any:
        row = x[k]  # here
        return total + row, None

    return gd.scan(step, np.zeros(3), i)[0]


def one_element_a_step(x: Any, i: Any) -> Any:
    def body(k: Any, y: Any) -> Any:
        y[i[k]] = y[0] + k  # here
        return y

    return gd.fori_loop(0, 5, body, x)


def in_a_while(x: Any, i: Any) -> Any:
    def body(state: Any) -> Any:
        k, total = state
        return k + 1, total + x[k, 0]  # here

    return gd.while_loop(lambda state: state[0] < np.sum(i), body, (0, 0.0))[1]


def taken(x: Any, i: Any) -> Any:
    return np.take(x, i, axis=0)  # here


BOUNDS = [
    rows, two_axes, set_rows, add_at_rows, gradient_of_rows, one_row_a_step, one_element_a_step,
    in_a_while, taken,
]  # fmt: skip


@pytest.mark.parametrize("f", BOUNDS, ids=lambda f: f.__name__)
def test_indices_out_of_bounds(f: Callable[..., Any]) -> None:
    good, bad = np.array([0, 1, 2, -1, 1]), np.array([0, 1, 5, -1, 7])
    compiled = gd.compile(f, checks="bounds")
    np.testing.assert_array_equal(compiled(TABLE, good), gd.compile(f)(TABLE, good))
    with pytest.raises(IndexError) as caught:
        compiled(TABLE, bad)
    message = str(caught.value)
    assert re.match(r"index \d+ is out of bounds for size [34]: ", message)
    assert f"{__file__}:{line_of(f)}: " in message, message
    assert "in kernel " in message
    if f in (one_row_a_step, one_element_a_step):
        assert "index 5 " in message
        assert "in step 2 of a loop of 5 steps (the first is step 0)" in message
    if f in (rows, taken):
        assert "element [2] of the index array (int64[5])" in message
