"""Stencils on grids: jacobi_2d, heat_3d, fdtd_2d, hdiff."""

from __future__ import annotations

from typing import Any

import numpy as np


def jacobi_2d(steps: int, a: Any, b: Any) -> None:
    """Means of each point and its four neighbours, from a to b and back."""
    for _ in range(1, steps):
        b[1:-1, 1:-1] = 0.2 * (
            a[1:-1, 1:-1] + a[1:-1, :-2] + a[1:-1, 2:] + a[2:, 1:-1] + a[:-2, 1:-1]
        )
        a[1:-1, 1:-1] = 0.2 * (
            b[1:-1, 1:-1] + b[1:-1, :-2] + b[1:-1, 2:] + b[2:, 1:-1] + b[:-2, 1:-1]
        )


def heat_3d(steps: int, a: Any, b: Any) -> None:
    """The heat equation on a cube, explicit in time, from a to b and back."""
    for _ in range(1, steps):
        b[1:-1, 1:-1, 1:-1] = (
            0.125 * (a[2:, 1:-1, 1:-1] - 2.0 * a[1:-1, 1:-1, 1:-1] + a[:-2, 1:-1, 1:-1])
            + 0.125 * (a[1:-1, 2:, 1:-1] - 2.0 * a[1:-1, 1:-1, 1:-1] + a[1:-1, :-2, 1:-1])
            + 0.125 * (a[1:-1, 1:-1, 2:] - 2.0 * a[1:-1, 1:-1, 1:-1] + a[1:-1, 1:-1, :-2])
            + a[1:-1, 1:-1, 1:-1]
        )
        a[1:-1, 1:-1, 1:-1] = (
            0.125 * (b[2:, 1:-1, 1:-1] - 2.0 * b[1:-1, 1:-1, 1:-1] + b[:-2, 1:-1, 1:-1])
            + 0.125 * (b[1:-1, 2:, 1:-1] - 2.0 * b[1:-1, 1:-1, 1:-1] + b[1:-1, :-2, 1:-1])
            + 0.125 * (b[1:-1, 1:-1, 2:] - 2.0 * b[1:-1, 1:-1, 1:-1] + b[1:-1, 1:-1, :-2])
            + b[1:-1, 1:-1, 1:-1]
        )


def fdtd_2d(steps: int, ex: Any, ey: Any, hz: Any, source: Any) -> None:
    """Electric and magnetic fields in the plane, in finite differences in time."""
    for t in range(steps):
        ey[0, :] = source[t]
        ey[1:, :] -= 0.5 * (hz[1:, :] - hz[:-1, :])
        ex[:, 1:] -= 0.5 * (hz[:, 1:] - hz[:, :-1])
        hz[:-1, :-1] -= 0.7 * (ex[:-1, 1:] - ex[:-1, :-1] + ey[1:, :-1] - ey[:-1, :-1])


def hdiff(field: Any, out: Any, coefficient: Any) -> None:
    """Horizontal diffusion of a weather model: a limited fourth-order filter of each level.

    `field` has two more points on each side of the first two axes than `out` and `coefficient`.
    """
    i, j = out.shape[0], out.shape[1]
    laplacian = 4.0 * field[1 : i + 3, 1 : j + 3, :] - (
        field[2 : i + 4, 1 : j + 3, :]
        + field[0 : i + 2, 1 : j + 3, :]
        + field[1 : i + 3, 2 : j + 4, :]
        + field[1 : i + 3, 0 : j + 2, :]
    )
    slope = laplacian[1:, 1 : j + 1, :] - laplacian[:-1, 1 : j + 1, :]
    rise = field[2 : i + 3, 2 : j + 2, :] - field[1 : i + 2, 2 : j + 2, :]
    flux_x = np.where(slope * rise > 0, 0, slope)
    slope = laplacian[1 : i + 1, 1:, :] - laplacian[1 : i + 1, :-1, :]
    rise = field[2 : i + 2, 2 : j + 3, :] - field[2 : i + 2, 1 : j + 2, :]
    flux_y = np.where(slope * rise > 0, 0, slope)
    out[:, :, :] = field[2 : i + 2, 2 : j + 2, :] - coefficient * (
        flux_x[1:, :, :] - flux_x[:-1, :, :] + flux_y[:, 1:, :] - flux_y[:, :-1, :]
    )
