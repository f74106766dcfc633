"""check_grads: which derivative is wrong, where, and by which rule."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest

import graphdl as gd

X = np.array([[0.5, 1.5, 2.5], [3.5, 4.5, 5.5]])


@gd.custom_vjp
def wrong_in_one_place(x: Any) -> Any:
    return np.sin(x)


def _pull(x: Any, g: Any) -> tuple[Any]:
    slope = np.cos(x)
    slope[1, 2] = 7.0
    return (g * slope,)


wrong_in_one_place.defvjp(lambda x: (np.sin(x), x), _pull)


def test_the_element_and_both_values() -> None:
    def f(p: Any, y: Any) -> Any:
        return np.sum(wrong_in_one_place(p["w"]) * 2) + np.sum(y)  # here

    with pytest.raises(gd.GradientMismatch, match="of order 1 along a random") as caught:
        gd.check_grads(f, {"v": np.ones(4), "w": X}, np.ones(3))
    error = caught.value
    assert error.argument == "p['w']"
    assert error.index == (1, 2)
    assert isinstance(error, AssertionError)
    # the sum has a random weight, so only the ratio is known
    assert error.gradient / error.difference == pytest.approx(7.0 / np.cos(5.5), rel=1e-6)
    line = f.__code__.co_firstlineno + 1
    assert f"by p['w'] at [1, 2] it is {error.gradient:.10g}" in str(error)
    assert f"the rule of custom is wrong\n  at {__file__}:{line}: " in str(error)


def test_the_rule_of_a_users_op() -> None:
    @gd.op(vjp=lambda g, out, x: g * 3)
    @numba.njit
    def twice(x: float) -> float:
        return 2 * x

    with pytest.raises(gd.GradientMismatch, match="the rule of twice is wrong") as caught:
        gd.check_grads(lambda a, b: np.exp(a) + twice(b), X, X)
    assert caught.value.argument == "b"
    assert caught.value.gradient / caught.value.difference == pytest.approx(1.5)


def test_an_error_of_the_second_order() -> None:
    @gd.custom_vjp
    def f(x: Any) -> Any:
        return x**3

    # the first derivative is right, and hides what its own derivative is
    f.defvjp(lambda x: (x**3, x), lambda x, g: (g * 3 * gd.stop_gradient(x) ** 2,))
    gd.check_grads(f, X, order=1)
    with pytest.raises(gd.GradientMismatch, match=r"of order 2 .*\n  by x at "):
        gd.check_grads(f, X)


def test_the_element_that_is_nan() -> None:
    def f(x: Any) -> Any:
        return np.sum(np.sqrt(np.abs(x - 0.5)) * x)

    with pytest.raises(gd.GradientMismatch) as caught:
        gd.check_grads(f, np.array([0.2, 0.9, 0.7, 0.5, 1.1]))
    assert "by x at [3] it is nan" in str(caught.value)


def test_a_kink_is_found() -> None:
    x = np.array([1.0, 2.0, 0.0, 3.0])
    with pytest.raises(gd.GradientMismatch) as caught:
        gd.check_grads(lambda x: np.sum(np.where(x > -1e-5, x, 3 * x)), x, order=1)
    assert (caught.value.argument, caught.value.index) == ("x", (2,))


def test_single_numbers_and_complex_arguments() -> None:
    gd.check_grads(lambda x, z: np.real(z * np.conj(z)) * x, 2.0, np.array([1 + 2j, 3j]))
    with pytest.raises(gd.GradientMismatch, match=r"by x at \[\] it is"):
        gd.check_grads(lambda x: gd.stop_gradient(x) * x, 2.0)
