"""The kernels for JAX, whose arrays cannot be written; and one in loops for Numba."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.peers import library


def _jnp() -> Any:
    return library("jax.numpy")


def jacobi_2d(steps: int, a: Any, b: Any) -> Any:
    def mean(x: Any) -> Any:
        return 0.2 * (x[1:-1, 1:-1] + x[1:-1, :-2] + x[1:-1, 2:] + x[2:, 1:-1] + x[:-2, 1:-1])

    for _ in range(1, steps):
        b = b.at[1:-1, 1:-1].set(mean(a))
        a = a.at[1:-1, 1:-1].set(mean(b))
    return a, b


def heat_3d(steps: int, a: Any, b: Any) -> Any:
    def step(x: Any) -> Any:
        inside = x[1:-1, 1:-1, 1:-1]
        return (
            0.125 * (x[2:, 1:-1, 1:-1] - 2.0 * inside + x[:-2, 1:-1, 1:-1])
            + 0.125 * (x[1:-1, 2:, 1:-1] - 2.0 * inside + x[1:-1, :-2, 1:-1])
            + 0.125 * (x[1:-1, 1:-1, 2:] - 2.0 * inside + x[1:-1, 1:-1, :-2])
            + inside
        )

    for _ in range(1, steps):
        b = b.at[1:-1, 1:-1, 1:-1].set(step(a))
        a = a.at[1:-1, 1:-1, 1:-1].set(step(b))
    return a, b


def fdtd_2d(steps: int, ex: Any, ey: Any, hz: Any, source: Any) -> Any:
    for t in range(steps):
        ey = ey.at[0, :].set(source[t])
        ey = ey.at[1:, :].add(-0.5 * (hz[1:, :] - hz[:-1, :]))
        ex = ex.at[:, 1:].add(-0.5 * (hz[:, 1:] - hz[:, :-1]))
        curl = ex[:-1, 1:] - ex[:-1, :-1] + ey[1:, :-1] - ey[:-1, :-1]
        hz = hz.at[:-1, :-1].add(-0.7 * curl)
    return ex, ey, hz, source


def hdiff(field: Any, out: Any, coefficient: Any) -> Any:
    jnp = _jnp()
    i, j = out.shape[0], out.shape[1]
    laplacian = 4.0 * field[1 : i + 3, 1 : j + 3] - (
        field[2 : i + 4, 1 : j + 3]
        + field[0 : i + 2, 1 : j + 3]
        + field[1 : i + 3, 2 : j + 4]
        + field[1 : i + 3, 0 : j + 2]
    )
    slope = laplacian[1:, 1 : j + 1] - laplacian[:-1, 1 : j + 1]
    rise = field[2 : i + 3, 2 : j + 2] - field[1 : i + 2, 2 : j + 2]
    flux_x = jnp.where(slope * rise > 0, 0, slope)
    slope = laplacian[1 : i + 1, 1:] - laplacian[1 : i + 1, :-1]
    rise = field[2 : i + 2, 2 : j + 3] - field[2 : i + 2, 1 : j + 2]
    flux_y = jnp.where(slope * rise > 0, 0, slope)
    flow = flux_x[1:] - flux_x[:-1] + flux_y[:, 1:] - flux_y[:, :-1]
    return field, field[2 : i + 2, 2 : j + 2] - coefficient * flow, coefficient


def arc_distance(theta_1: Any, phi_1: Any, theta_2: Any, phi_2: Any) -> Any:
    jnp = _jnp()
    temp = (
        jnp.sin((theta_2 - theta_1) / 2) ** 2
        + jnp.cos(theta_1) * jnp.cos(theta_2) * jnp.sin((phi_2 - phi_1) / 2) ** 2
    )
    return 2 * jnp.arctan2(jnp.sqrt(temp), jnp.sqrt(1 - temp))


def go_fast(a: Any) -> Any:
    jnp = _jnp()
    return a + jnp.sum(jnp.tanh(jnp.diagonal(a)))


def softmax(x: Any) -> Any:
    jnp = _jnp()
    powers = jnp.exp(x - jnp.max(x, axis=-1, keepdims=True))
    return powers / jnp.sum(powers, axis=-1, keepdims=True)


def softmax_in_loops(x: Any) -> Any:
    """Numba knows no keepdims."""
    out = np.empty_like(x)
    for index in np.ndindex(x.shape[:-1]):
        row = x[index]
        powers = np.exp(row - np.max(row))
        out[index] = powers / np.sum(powers)
    return out


def mlp(x: Any, w1: Any, b1: Any, w2: Any, b2: Any, w3: Any, b3: Any) -> Any:
    jnp = _jnp()
    x = jnp.maximum(x @ w1 + b1, 0)
    x = jnp.maximum(x @ w2 + b2, 0)
    return softmax(x @ w3 + b3)


def conv2d_bias(images: Any, weights: Any, bias: Any) -> Any:
    lax = library("jax").lax
    dimensions = ("NHWC", "HWIO", "NHWC")
    made = lax.conv_general_dilated(images, weights, (1, 1), "VALID", dimension_numbers=dimensions)
    return made + bias


def nbody(
    mass: Any, position: Any, velocity: Any, steps: int, dt: float, gravity: float, softening: float
) -> Any:
    jnp = _jnp()

    def distances(position: Any) -> Any:
        return [position[:, i][None, :] - position[:, i][:, None] for i in range(3)]

    def acceleration(position: Any) -> Any:
        d = distances(position)
        inv_r3 = (d[0] ** 2 + d[1] ** 2 + d[2] ** 2 + softening**2) ** -1.5
        return jnp.hstack([gravity * (dx * inv_r3) @ mass for dx in d])

    def energies(position: Any, velocity: Any) -> Any:
        d = distances(position)
        square = d[0] ** 2 + d[1] ** 2 + d[2] ** 2
        inv_r = jnp.where(square > 0, 1 / jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
        potential = gravity * jnp.sum(jnp.triu(-(mass * mass.T) * inv_r, 1))
        return 0.5 * jnp.sum(mass * velocity**2), potential

    velocity = velocity - jnp.mean(mass * velocity, axis=0) / jnp.mean(mass)
    force = acceleration(position)
    found = [energies(position, velocity)]
    for _ in range(steps):
        velocity = velocity + force * dt / 2.0
        position = position + velocity * dt
        force = acceleration(position)
        velocity = velocity + force * dt / 2.0
        found.append(energies(position, velocity))
    return jnp.stack([k for k, _ in found]), jnp.stack([p for _, p in found])
