"""Whole arrays and small loops: arc_distance, go_fast, softmax, mlp, conv2d_bias, nbody."""

from __future__ import annotations

from typing import Any

import numpy as np


def arc_distance(theta_1: Any, phi_1: Any, theta_2: Any, phi_2: Any) -> Any:
    """Distances of pairs of points on the unit sphere."""
    temp = (
        np.sin((theta_2 - theta_1) / 2) ** 2
        + np.cos(theta_1) * np.cos(theta_2) * np.sin((phi_2 - phi_1) / 2) ** 2
    )
    return 2 * (np.arctan2(np.sqrt(temp), np.sqrt(1 - temp)))


def go_fast(a: Any) -> Any:
    """The matrix plus the sum of tanh of its diagonal, which a loop takes."""
    trace = 0.0
    for i in range(a.shape[0]):
        trace += np.tanh(a[i, i])
    return a + trace


def softmax(x: Any) -> Any:
    """Along the last axis."""
    largest = np.max(x, axis=-1, keepdims=True)
    powers = np.exp(x - largest)
    return powers / np.sum(powers, axis=-1, keepdims=True)


def relu(x: Any) -> Any:
    return np.maximum(x, 0)


def mlp(x: Any, w1: Any, b1: Any, w2: Any, b2: Any, w3: Any, b3: Any) -> Any:
    """Three layers."""
    x = relu(x @ w1 + b1)
    x = relu(x @ w2 + b2)
    return softmax(x @ w3 + b3)


def conv2d_bias(images: Any, weights: Any, bias: Any) -> Any:
    """A convolution without padding, (N, H, W, C) by (K, K, C, D), one place at a time."""
    k = weights.shape[0]
    n, height, width = images.shape[0], images.shape[1] - k + 1, images.shape[2] - k + 1
    output = np.empty((n, height, width, weights.shape[3]), dtype=images.dtype)
    for i in range(height):
        for j in range(width):
            output[:, i, j, :] = np.sum(
                images[:, i : i + k, j : j + k, :, np.newaxis] * weights[np.newaxis, :, :, :],
                axis=(1, 2, 3),
            )
    return output + bias


def acceleration(position: Any, mass: Any, gravity: float, softening: float) -> Any:
    """Of each body by all others: (N, 3)."""
    x, y, z = position[:, 0:1], position[:, 1:2], position[:, 2:3]
    dx, dy, dz = x.T - x, y.T - y, z.T - z
    inv_r3 = dx**2 + dy**2 + dz**2 + softening**2
    near = inv_r3 > 0
    inv_r3[near] = inv_r3[near] ** (-1.5)
    ax = gravity * (dx * inv_r3) @ mass
    ay = gravity * (dy * inv_r3) @ mass
    az = gravity * (dz * inv_r3) @ mass
    return np.hstack((ax, ay, az))


def energies(position: Any, velocity: Any, mass: Any, gravity: float) -> Any:
    """The kinetic and the potential energy."""
    kinetic = 0.5 * np.sum(mass * velocity**2)
    x, y, z = position[:, 0:1], position[:, 1:2], position[:, 2:3]
    dx, dy, dz = x.T - x, y.T - y, z.T - z
    inv_r = np.sqrt(dx**2 + dy**2 + dz**2)
    apart = inv_r > 0
    inv_r[apart] = 1.0 / inv_r[apart]
    potential = gravity * np.sum(np.triu(-(mass * mass.T) * inv_r, 1))
    return kinetic, potential


def nbody(
    mass: Any, position: Any, velocity: Any, steps: int, dt: float, gravity: float, softening: float
) -> Any:
    """Bodies that attract each other: their energies at each step of a leapfrog."""
    velocity -= np.mean(mass * velocity, axis=0) / np.mean(mass)
    force = acceleration(position, mass, gravity, softening)
    kinetic = np.ndarray(steps + 1, dtype=np.float64)
    potential = np.ndarray(steps + 1, dtype=np.float64)
    kinetic[0], potential[0] = energies(position, velocity, mass, gravity)
    for i in range(steps):
        velocity += force * dt / 2.0
        position += velocity * dt
        force = acceleration(position, mass, gravity, softening)
        velocity += force * dt / 2.0
        kinetic[i + 1], potential[i + 1] = energies(position, velocity, mass, gravity)
    return kinetic, potential
