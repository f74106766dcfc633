"""Padded arrays are computed in their place, joined ones are read from their parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphdl as gd
from tests.programs import check_compiled


def normal(*shape: int, dtype: Any = np.float64) -> Any:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(dtype)


def names(executable: Any) -> str:
    return " ".join(kernel.name for kernel in executable.kernels)


def smoothed(u: Any) -> Any:
    for _ in range(3):
        u = np.pad(u[:-2, 1:-1] + u[2:, 1:-1] - u[1:-1, 1:-1], 1)
    return u


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(90, 70), (3, 40), (4, 3)])
def test_padded_arrays_are_computed_in_place(dtype: Any, shape: tuple[int, int]) -> None:
    found = names(check_compiled(smoothed, normal(*shape, dtype=dtype), separate=False))
    if shape[0] > 4:
        assert "update" in found
        assert "pad" not in found
    gd.check_grads(lambda u: np.sum(smoothed(u) ** 2), normal(*shape))


@pytest.mark.parametrize(
    "width", [((0, 0), (2, 1)), ((1, 0), (0, 0)), ((0, 3), (2, 0)), ((40, 40), (3, 3))]
)
def test_pads_of_every_side_and_with_other_numbers(width: Any) -> None:
    def f(x: Any) -> Any:
        u = np.pad(np.tanh(x), width, constant_values=-2)
        return u[1:] + u[:-1], u.T @ u

    check_compiled(f, normal(30, 20), ulps=64, separate=False)


@pytest.mark.parametrize("scale", [lambda x: 0.25 * x, lambda x: -x, lambda x: x * -3])
def test_what_is_scaled_within_zeros_is_one_kernel(scale: Any) -> None:
    def f(u: Any) -> Any:
        for _ in range(2):
            u = np.pad(scale(u[:-2, 1:-1] + u[2:, 1:-1]), 1)
        return u

    found = check_compiled(f, normal(90, 70), separate=False).kernels
    assert [kernel.name.split("_")[-1] for kernel in found].count("update") == 2
    assert not any("pad" in kernel.name for kernel in found)


def test_zeros_times_infinity_are_nan() -> None:
    def f(u: Any) -> Any:
        return np.pad(u[:-2] + u[2:], 1) * np.inf, np.pad(u + 1, 1) * np.nan

    with np.errstate(invalid="ignore"):
        check_compiled(f, normal(40, 30), separate=False)


def test_a_pad_of_what_is_used_otherwise_keeps_it() -> None:
    def f(x: Any) -> Any:
        y = np.exp(x)
        return np.pad(y, 1), y

    check_compiled(f, normal(50, 60))


def rolled(u: Any) -> Any:
    return u - np.roll(u, 1, 0) * np.roll(u, -3, 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_rolled_arrays_are_read_where_they_lie(dtype: Any) -> None:
    u = (10 * normal(70, 80)).astype(dtype)
    u[3, 4:9] = 0
    if dtype != np.int64:
        u[5, 5], u[69, 0], u[0, 79], u[1, 1] = np.nan, np.inf, -np.inf, -0.0
    executable = check_compiled(rolled, u, separate=False)
    assert len(executable.kernels) == 1
    assert "concatenate" not in executable.kernels[0].name


def test_signs_of_zeros_survive_a_join() -> None:
    def f(x: Any) -> Any:
        return np.copysign(2.0, np.roll(x, 5)) + np.ones(1)

    x = np.where(np.arange(5000) % 3 == 0, -0.0, 0.0)
    np.testing.assert_array_equal(gd.compile(f)(x), f(x))


def test_gradients_and_batches_of_rolled_arrays() -> None:
    def total(u: Any) -> Any:
        return np.sum(rolled(u) ** 2)

    gd.check_grads(total, normal(70, 60))
    many = normal(3, 70, 60)
    found = gd.vmap(gd.grad(total))(many)
    for got, one in zip(found, many, strict=True):
        np.testing.assert_allclose(got, gd.grad(total)(one), rtol=1e-12)


def test_joins_that_are_needed_in_memory_stay() -> None:
    def f(u: Any) -> Any:
        r = np.roll(u, 1, 0)
        return np.sin(r), r @ u, np.concatenate([u[3:], u[:3], u[1:2]]) + 1

    check_compiled(f, normal(70, 70), ulps=64, separate=False)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_join_of_mostly_one_computed_part_is_made_in_its_place(axis: int) -> None:
    def f(x: Any) -> Any:
        ends = x.take([0], axis), x.take([-1], axis)
        return np.concatenate([ends[0] * 2, np.tanh(x), ends[1], x.take([3], axis)], axis)

    found = names(check_compiled(f, normal(40, 30), separate=False))
    assert "update" in found
    assert "concatenate" not in found
    check_compiled(lambda x: np.gradient(x, axis=axis), normal(40, 30))
    gd.check_grads(lambda x: np.sum(f(x) ** 2), normal(9, 12))


def test_a_join_of_a_part_that_is_read_elsewhere_copies_it() -> None:
    def f(x: Any) -> Any:
        inside = np.exp(x)
        return np.concatenate([inside, x[:1]]), inside

    assert "concatenate" in names(check_compiled(f, normal(40, 30)))


@pytest.mark.parametrize("count", [2, 3, 8, 9])
def test_numbers_side_by_side_are_written_by_one_kernel(count: int) -> None:
    def f(x: Any) -> Any:
        return np.stack([x * i for i in range(count)], -1), np.stack([x[0]] * count, -1)

    executable = check_compiled(f, normal(40, 30))
    joins = [kernel for kernel in executable.kernels if kernel.name == "concatenate"]
    assert len(joins) == (2 if count <= 8 else 2 * count)


@pytest.mark.parametrize("shape", [(1, 1), (50, 1), (1, 50), (20, 30), (3, 4, 50)])
def test_pairs_of_views_of_every_shape(shape: tuple[int, ...]) -> None:
    def f(x: Any) -> Any:
        return (
            np.stack([x[::-1], x[..., ::2][..., :1] + x], -1),
            np.stack([x.T, (x + 1).T], -1),
            np.stack([x, np.broadcast_to(x[:1], x.shape)], -1),
        )

    check_compiled(f, normal(*shape))


def test_what_is_spread_in_steps_lies_in_memory() -> None:
    def f(x: Any) -> Any:
        return np.sum(x[::2, 1::3] ** 3) + np.sum(np.diagonal(x) ** 2) + np.sum(x**2)

    found = names(check_compiled(gd.grad(f), normal(20, 30), separate=False))
    assert "update" in found
    assert "pad" not in found
    check_compiled(lambda v: (np.diag(v, 1), np.diag(v) + 1), normal(9))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_computed_parts_of_a_join_are_written_where_they_belong(axis: int, dtype: Any) -> None:
    def f(x: Any, y: Any) -> Any:
        return (
            np.concatenate([x + 1, y * 2], axis),
            np.concatenate([x, x - y, y], axis) * 3,
            np.stack([x * y, x - 3 * y], axis),
        )

    x, y = ((9 * normal(70, 70 + i)[:, :70]).astype(dtype) for i in range(2))
    executable = check_compiled(f, x, y, separate=False)
    assert "concatenate" not in names(executable)
    assert executable.memory.arena_bytes <= 3 * x.nbytes + 64  # the join that is multiplied


def test_joins_in_place_of_parts_that_other_kernels_make() -> None:
    def rotated(x: Any) -> Any:
        half = x.shape[-1] // 2
        a, b, turn = x[..., :half], x[..., half:], np.arange(half) / half
        cos, sin = np.cos(turn), np.sin(turn)
        return np.concatenate([a * cos - b * sin, a * sin + b * cos], -1)

    def f(x: Any) -> Any:
        e = np.exp(x)
        soft = e / np.sum(e, 1, keepdims=True)
        return rotated(x), np.concatenate([soft, x @ x.T, np.tanh(x)], 1), np.sin(rotated(e)) @ x.T

    check_compiled(f, normal(64, 64), ulps=64, separate=False)
    gd.check_grads(lambda x: np.sum(rotated(x) ** 3), normal(70, 60))


def test_updates_of_blank_memory_are_batched_and_looped() -> None:
    def step(carry: Any, x: Any) -> Any:
        joined = np.concatenate([carry[:1] + x, carry[1:] * 0.5])
        return joined, np.sum(joined)

    start, xs = normal(70, 70), normal(5, 1, 70)
    found, sums = gd.compile(lambda c, x: gd.scan(step, c, x))(start, xs)
    carry = start
    for x, total in zip(xs, sums, strict=True):
        carry, want = step(carry, x)
        np.testing.assert_allclose(total, want, rtol=1e-12)
    np.testing.assert_allclose(found, carry, rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_made_of_a_join_is_made_of_its_parts(dtype: Any) -> None:
    def f(x: Any, y: Any) -> Any:
        return (
            np.mean(np.stack([x, y, x * y]), 0),
            np.ptp(np.stack([x, y], -1), -1),
            np.sum(np.concatenate([x, y[:, :3]], 1), 1),
            np.prod(np.concatenate([x, y]), 1),
            np.stack(np.split(x, 4, 1)).min((0, 2)),
            np.tanh(np.concatenate([x + 1, y * 2], 1) * x[:, :1]) + 2,
            np.concatenate([x[0] + 1, y[0] * 2]) / 3,
        )

    x, y = (normal(64, 72 + i).astype(dtype)[:, :72] for i in range(2))
    x[3, 4], y[5, 5], y[6, 6] = np.nan, -0.0, np.inf
    executable = check_compiled(f, x, y, ulps=64, separate=False)
    joins = [k for k in executable.kernels if "concatenate" in k.name]
    assert all(kernel.bytes <= 2 * (x.nbytes + y.nbytes) // 64 for kernel in joins)


def test_joins_that_are_read_as_a_whole_are_kernels_of_the_whole() -> None:
    def softmax(x: Any, y: Any) -> Any:
        e = np.exp(np.concatenate([x, y], 1))
        return e / np.sum(e, 1, keepdims=True)

    found = check_compiled(softmax, normal(64, 70), normal(64, 60), separate=False).kernels
    assert sum("max" in kernel.name or "sum" in kernel.name for kernel in found) == 1
