"""Isoneutral mixing and turbulent kinetic energy in plain NumPy: physics, values, gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import linalg

import graphdl as gd
from bench.kernels import isoneutral, ocean, seas, turbulence

SHAPE = (8, 7, 6)


def mixing_tensor(*arguments: Any) -> Any:
    isoneutral.isoneutral_mixing(*arguments)
    return arguments[16:]


def mixed_tracers(*arguments: Any) -> Any:
    """Salt and temperature after a step along the surfaces that they have now."""
    isoneutral.isoneutral_mixing(*arguments)
    masks, grid, (salt, temp) = arguments[:4], arguments[4:12], arguments[12:14]
    tensor = arguments[15:]
    return tuple(
        isoneutral.mix_tracer(tracer[..., 0], *masks, *grid, *tensor, dt=3600.0)
        for tracer in (salt, temp)
    )


def energies(*arguments: Any) -> Any:
    correction = turbulence.turbulent_kinetic_energy(*arguments)
    return correction, arguments[-2], arguments[-1]


KERNELS: dict[str, tuple[Callable[..., Any], list[Any]]] = {
    "isoneutral mixing": (mixing_tensor, seas.isoneutral_inputs(SHAPE)),
    "tracers": (mixed_tracers, seas.isoneutral_inputs(SHAPE)),
    "turbulent kinetic energy": (energies, seas.turbulence_inputs(SHAPE)),
}


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_compiles_as_it_is(name):
    f, arguments = KERNELS[name]
    want = f(*[x.copy() for x in arguments])
    before = [x.copy() for x in arguments]
    got = gd.compile(f)(*arguments)
    for one, other in zip(got, want, strict=True):
        assert np.abs(other).max() > 0
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12 * np.abs(other).max())
    for one, other in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(one, other, err_msg="an argument was modified")


@pytest.mark.parametrize("name", KERNELS)
def test_gradients_of_a_kernel(name):
    """By each argument in units of its own size, of results in units of theirs."""
    f, arguments = KERNELS[name]
    sizes = [np.abs(y).max() for y in f(*[x.copy() for x in arguments])]
    varied = [i for i, x in enumerate(arguments) if x.dtype.kind == "f"]
    scales = [arguments[i].std() or 1.0 for i in varied]

    def scaled(*values: Any) -> Any:
        full = [x.copy() for x in arguments]
        for i, scale, value in zip(varied, scales, values, strict=True):
            full[i] = scale * value
        return [y / size for y, size in zip(f(*full), sizes, strict=True)]

    gd.check_grads(
        scaled, *(arguments[i] / s for i, s in zip(varied, scales, strict=True)), order=1
    )


def test_temperature_does_not_mix_along_its_own_surfaces():
    """Where only temperature makes density, each triad's flux of temperature is zero."""
    arguments = seas.isoneutral_inputs((9, 8, 12))
    for mask in arguments[:4]:
        mask[...] = True
    x, y = np.ogrid[:9, :8]
    temp, salt, z = arguments[13], arguments[12], arguments[14]
    rise = 0.01 * (3.0 * x + 2.0 * y)[:, :, None] ** 2
    temp[...] = (20.0 + 0.02 * (z + rise + z**2 / 1e4))[..., None]
    salt[...] = 35.0
    mixing_tensor(*arguments)
    grid, tensor = arguments[:12], arguments[15:]
    dt = 1.0
    inner = (slice(2, -2), slice(2, -2), slice(1, -1))
    mixed = isoneutral.mix_tracer(temp[..., 0], *grid, *tensor, dt=dt)
    change = (mixed - temp[..., 0])[inner] / dt
    horizontal = [np.array(k) for k in tensor]
    for slopes in horizontal[4:]:
        slopes[...] = 0.0
    horizontal[3][...] = 0.0
    alone = isoneutral.mix_tracer(temp[..., 0], *grid, *horizontal, dt=dt)
    assert np.abs(change).max() < 1e-4 * np.abs((alone - temp[..., 0])[inner] / dt).max()


def test_uniform_energy_at_rest_only_decays():
    arguments = seas.turbulence_inputs(SHAPE)
    for i in (0, 1, 2, 17, 18, 20):
        arguments[i][...] = 0.0
    tke, length, bottom = arguments[19], arguments[16], arguments[14]
    length[...] = 7.0
    bottom[...] = 2
    tke[...] = 0.0
    tke[..., turbulence.NOW] = 0.01
    correction = turbulence.turbulent_kinetic_energy(*arguments)
    decay = turbulence.DT * turbulence.C_EPSILON / 7.0 * np.sqrt(0.01)
    found = tke[2:-2, 2:-2, :, turbulence.NEXT]
    np.testing.assert_allclose(found[:, :, 1:], 0.01 / (1.0 + decay), rtol=1e-12)
    assert not found[:, :, 0].any()
    assert not correction.any()


def test_superbee_is_second_order_where_the_field_is_smooth():
    """Roe's limiter: 0 at extrema, 1 for a straight line, at most 2."""
    ratios = np.array([-1.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 9.0])
    want = [0.0, 0.0, 0.5, 1.0, 1.0, 1.0, 1.5, 2.0, 2.0]
    np.testing.assert_array_equal(turbulence.superbee(ratios), want)


def systems(count: int, depth: int) -> tuple[np.ndarray, ...]:
    """Diagonals of systems whose middle one is the largest, and right sides."""
    rng = np.random.default_rng(1)
    a, c, d = (rng.normal(size=(count, depth)) for _ in range(3))
    return a, np.abs(a) + np.abs(c) + 1.0, c, d


@pytest.mark.parametrize("loops", ["unrolled", "native"])
def test_the_tridiagonal_solver_in_place(loops):
    a, b, c, d = systems(5, 9)
    want = np.stack(
        [
            linalg.solve_banded(
                (1, 1), np.stack([np.append(0, c[i, :-1]), b[i], np.append(a[i, 1:], 0)]), d[i]
            )
            for i in range(5)
        ]
    )
    f = ocean.solve_tridiagonal
    compiled = gd.compile(f, loops="native") if loops == "native" else gd.compile(f)
    np.testing.assert_allclose(f(a, b, c.copy(), d.copy()), want, rtol=1e-12)
    np.testing.assert_allclose(compiled(a, b, c, d), want, rtol=1e-12)


def test_gradients_of_the_tridiagonal_solver_in_a_native_loop():
    """A loop of 20 levels, unrolled and native: the same gradients."""
    args = systems(6, 20)

    def loss(*args: Any) -> Any:
        return np.sum(ocean.solve_tridiagonal(*args) ** 2)

    native = gd.compile(ocean.solve_tridiagonal, loops="native")
    by_unrolling = gd.grad(loss, argnums=(0, 1, 2, 3))(*args)
    in_loops = gd.grad(lambda *args: np.sum(native(*args) ** 2), argnums=(0, 1, 2, 3))(*args)
    for one, other in zip(in_loops, by_unrolling, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)
