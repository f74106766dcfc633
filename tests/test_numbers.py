"""Programs of many numbers: how they are cut, that steps that are alike share kernels, values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from programs import assert_same, bits, check_compiled, program_of

import graphdl as gd
from graphdl.compiler import numbers, repeats
from graphdl.kernels.program import Program


def logistic(steps: int) -> Callable[..., Any]:
    """Steps of the midpoint rule for y' = r y (1 - y) + sin(y), written out."""

    def f(y: Any, r: Any) -> Any:
        for _ in range(steps):
            middle = y + 0.05 * (r * y * (1 - y) + np.sin(y))
            y = y + 0.1 * (r * middle * (1 - middle) + np.sin(middle))
        return y * y

    return f


def distance(lat1: Any, lon1: Any, lat2: Any, lon2: Any) -> Any:
    """Vincenty's formula for the length of a geodesic, of four iterations."""
    a, flat = 6378137.0, 1 / 298.257223563
    b = (1 - flat) * a
    u1, u2 = np.arctan((1 - flat) * np.tan(lat1)), np.arctan((1 - flat) * np.tan(lat2))
    s1, c1, s2, c2 = np.sin(u1), np.cos(u1), np.sin(u2), np.cos(u2)
    lam = lon2 - lon1
    for _ in range(4):
        sin, cos = np.sin(lam), np.cos(lam)
        ss = np.hypot(c2 * sin, c1 * s2 - s1 * c2 * cos)
        cs = s1 * s2 + c1 * c2 * cos
        sigma, sa = np.arctan2(ss, cs), c1 * c2 * sin / ss
        ca = 1 - sa**2
        cm = cs - 2 * s1 * s2 / ca
        k = flat / 16 * ca * (4 + flat * (4 - 3 * ca))
        lam = lon2 - lon1 + (1 - k) * flat * sa * (sigma + k * ss * (cm + k * cs * (2 * cm**2 - 1)))
    return b * sigma * (1 + ca * 0.00168) * np.exp(-0.001 * np.log(ss))


def texts(program: Program) -> set[str]:
    return {launch.source.text for launch in program.launches}


# ---------------------------------------------------------------------------- where it is cut


@pytest.mark.parametrize("seed", range(6))
def test_pieces_are_all_of_it_in_order_and_not_too_long(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = [*random.integers(0, 5, 30), *list(random.integers(0, 5, 1 + 9 * seed)) * 40]
    labels += [*random.integers(0, 3, 50), *[1] * 200, *random.integers(0, 5, 7 * seed)]
    cuts = repeats.pieces([int(label) for label in labels], 64)
    assert [start for start, _ in cuts] == [0, *(stop for _, stop in cuts[:-1])]
    assert cuts[-1][1] == len(labels)
    assert all(0 < stop - start <= 64 for start, stop in cuts)


@pytest.mark.parametrize("length", [7, 40, 150, 1000])
def test_what_repeats_is_cut_at_the_same_places(length: int) -> None:
    period = np.random.default_rng(length).integers(0, 6, length).tolist()
    labels = [9, 8, *period * 30, 7, 7, 7]
    cuts = repeats.pieces(labels, 128)
    different = {tuple(labels[start:stop]) for start, stop in cuts}
    assert len(different) <= -(-length // 128) + 4
    assert len(cuts) >= 30 * length / 128


def test_nothing_to_cut() -> None:
    assert repeats.pieces([], 8) == []
    assert repeats.pieces([1] * 8, 8) == [(0, 8)]


def test_hundred_steps_have_the_kernels_of_twenty() -> None:
    twenty, hundred = (
        program_of(gd.trace(gd.value_and_grad(logistic(steps), (0, 1)), 0.3, 1.2))
        for steps in (20, 100)
    )
    assert len(texts(twenty)) == len(texts(hundred)) < 8
    assert len(hundred.launches) > 3 * len(twenty.launches)


def test_derivatives_by_parameters_are_summed_step_by_step() -> None:
    program = program_of(gd.trace(gd.grad(logistic(25), 1), 0.3, 1.2))
    waiting = max(len(launch.reads) for launch in program.launches)
    assert waiting < 60  # and not some of each of the forty steps


# ------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_formula_of_numbers(dtype: str) -> None:
    point = [np.array(x, dtype) for x in (0.7, 0.1, 0.9, 0.5)]
    executable = check_compiled(distance, *point, ulps=64, separate=False)
    assert len(executable.kernels) == 1
    # the same formula, of arrays
    whole = gd.compile(distance)(*(np.full(3, x) for x in point))
    assert_same(gd.compile(distance)(*point), whole[0], 64, float(whole[0]))


def test_many_pieces_are_what_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    f = gd.value_and_grad(logistic(12), (0, 1))
    want = gd.compile(f)(0.3, 1.2)
    y, r, h = 0.3, 1.2, 1e-6
    slope = (logistic(12)(y, r + h) - logistic(12)(y, r - h)) / (2 * h)
    np.testing.assert_allclose(want[0], logistic(12)(y, r), rtol=1e-14)
    np.testing.assert_allclose(want[1][1], slope, rtol=1e-8)
    monkeypatch.setattr(numbers, "MOST", 40)
    pieces = gd.compile(lambda y, r: f(y, r))
    assert len(pieces.lower(0.3, 1.2).kernels) > 8
    for got, one in zip(
        (pieces(0.3, 1.2)[0], *pieces(0.3, 1.2)[1]), (want[0], *want[1]), strict=True
    ):
        np.testing.assert_allclose(got, one, rtol=1e-13)
    assert bits(pieces(0.3, 1.2)) == bits(pieces(0.3, 1.2))


def test_numbers_between_arrays_are_computed_where_they_are_needed() -> None:
    """A search along a line: each step length is a number made from sums of arrays."""

    def steps(x: Any, d: Any) -> Any:
        for _ in range(4):
            length = np.sum(x * d) / np.sum(d * d) + 0.5
            x = x - length * d
            d = d + x * (np.sum(x * x) / (1 + length**2))
        return x, length, length + 1

    random = np.random.default_rng(3)
    x, d = random.normal(size=(2, 50))
    check_compiled(steps, x, d, ulps=512, separate=False)


def test_stacked_numbers_are_written_by_one_kernel() -> None:
    def turned(t: Any, x: Any) -> Any:
        c, s = np.cos(t), np.sin(t)
        return np.stack([np.stack([c, -s]), np.stack([s, c])]) @ x

    executable = check_compiled(turned, np.array(0.3), np.array([1.0, 2.0]), ulps=8)
    assert sum("sin" in kernel.source for kernel in executable.kernels) == 1


def test_numbers_that_are_returned_twice_passed_on_and_replaced() -> None:
    def f(x: Any, y: Any) -> Any:
        z = x * y + 1
        return z, z, np.reshape(z, (1, 1)), x, -x, (z > 2) & (y < 1), np.where(z > 2, x, y)

    check_compiled(f, np.array(2.0), np.array(0.75))
    donated = gd.compile(lambda x, y: (x * y, y / x), donate=(0, 1))
    got = donated(np.array(3.0), np.array(6.0))
    assert [float(one) for one in got] == [18.0, 2.0]


def test_numbers_inside_of_a_loop() -> None:
    def f(y: Any, r: Any) -> Any:
        def body(state: Any, _: Any) -> Any:
            a, b = state
            return (a + 0.1 * np.sin(b) * r, b - 0.1 * a * r), a

        return gd.scan(body, (y, y + 1), None, length=5)

    (a, b), seen = gd.compile(f)(0.5, 1.5)
    x, y = 0.5, 1.5
    for one in seen:
        np.testing.assert_allclose(one, x, rtol=1e-14)
        x, y = x + 0.1 * np.sin(y) * 1.5, y - 0.1 * x * 1.5
    np.testing.assert_allclose([a, b], [x, y], rtol=1e-14)


def test_huge_angles_in_straight_code() -> None:
    x = np.array(1e22)
    check_compiled(lambda x: (np.sin(x), np.cos(x), np.tan(x), np.power(x, 0.3)), x, ulps=4)
