"""The turbulent kinetic energy of an ocean, one time step of its closure.

The equation of Gaspar, Gregoris and Lefevre, "A simple eddy kinetic energy model for simulations of
the oceanic vertical mixing", J. Geophys. Res. 95 (1990), 16179-16193: vertical diffusion and
dissipation implicit in time, forcing explicit, then diffusion across, and advection with the
superbee limiter of Roe, Annu. Rev. Fluid Mech. 18 (1986), in the second-order form of Sweby.

Arrays are (x, y, z), z upwards, with two cells at each edge of x and y that belong to neighbours.
Energy lives on the top faces of the cells. A last axis holds three time levels: now, next, before.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.kernels.ocean import solve_tridiagonal

#: Dissipation, vertical transport of energy, its diffusivity across, weights of two time levels.
C_EPSILON, ALPHA, ACROSS, BASHFORTH = 0.7, 30.0, 2000.0, 0.1
#: The time step, and what keeps ratios of differences finite.
DT, EPSILON = 3600.0, 1e-20
NOW, NEXT, BEFORE = 0, 1, 2


def superbee(ratio: Any) -> Any:
    """How much of the second-order flux is taken, from the ratio of successive differences."""
    return np.maximum(0.0, np.maximum(np.minimum(1.0, 2.0 * ratio), np.minimum(2.0, ratio)))


def limited_flux(before: Any, own: Any, after: Any, mean: Any, velocity: Any, courant: Any) -> Any:
    """Advection through a face, from the differences over it and over its two neighbours."""
    upwind = np.where(velocity > 0.0, before, after)
    limit = superbee(upwind / np.where(np.abs(own) < EPSILON, EPSILON, own))
    damping = (1.0 - limit) + courant * limit
    return velocity * mean - np.abs(velocity) * damping * own * 0.5


def advective_fluxes(
    energy: Any, u: Any, v: Any, w: Any, mask_w: Any,
    dxu: Any, dyu: Any, dzt: Any, cost: Any, cosu: Any,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """Through the east, north and top sides of the cells around the top faces."""
    east, north, top = np.zeros_like(energy), np.zeros_like(energy), np.zeros_like(energy)
    step = np.zeros_like(energy)
    step[:-1] = (energy[1:] - energy[:-1]) * mask_w[1:] * mask_w[:-1]
    speed = u[1:-2, 2:-2]
    length = cost[None, 2:-2, None] * dxu[1:-2, None, None]
    east[1:-2, 2:-2] = limited_flux(
        step[:-3, 2:-2],
        step[1:-2, 2:-2],
        step[2:-1, 2:-2],
        0.5 * (energy[1:-2, 2:-2] + energy[2:-1, 2:-2]),
        speed,
        np.abs(speed) * DT / length,
    )

    step = np.zeros_like(energy)
    step[:, :-1] = (energy[:, 1:] - energy[:, :-1]) * mask_w[:, 1:] * mask_w[:, :-1]
    speed = cosu[None, 1:-2, None] * v[2:-2, 1:-2]
    length = cost[None, 1:-2, None] * dyu[None, 1:-2, None]
    north[2:-2, 1:-2] = limited_flux(
        step[2:-2, :-3],
        step[2:-2, 1:-2],
        step[2:-2, 2:-1],
        0.5 * (energy[2:-2, 1:-2] + energy[2:-2, 2:-1]),
        speed,
        np.abs(speed) * DT / length,
    )

    step = np.zeros((*energy.shape[:2], energy.shape[2] + 1))  # one below the bottom, 0
    step[:, :, 1:-1] = (energy[:, :, 1:] - energy[:, :, :-1]) * mask_w[:, :, 1:] * mask_w[:, :, :-1]
    speed = w[2:-2, 2:-2, :-1]
    top[2:-2, 2:-2, :-1] = limited_flux(
        step[2:-2, 2:-2, :-2],
        step[2:-2, 2:-2, 1:-1],
        step[2:-2, 2:-2, 2:],
        0.5 * (energy[2:-2, 2:-2, :-1] + energy[2:-2, 2:-2, 1:]),
        speed,
        np.abs(speed) * DT / dzt[:-1],
    )
    return east, north, top


def turbulent_kinetic_energy(
    u: Any, v: Any, w: Any, mask_u: Any, mask_v: Any, mask_w: Any,
    dxt: Any, dxu: Any, dyt: Any, dyu: Any, dzt: Any, dzw: Any, cost: Any, cosu: Any,
    bottom: Any, viscosity: Any, length: Any, forcing: Any, wind: Any, tke: Any, dtke: Any,
) -> Any:  # fmt: skip
    """Writes `tke` at the next time level and `dtke`, its change by advection, now.

    `bottom` (X, Y) counts from 1 the lowest cell with water, 0 on land; `viscosity`, the mixing
    `length` and the `forcing` are (X, Y, Z), `wind` (X, Y) works at the surface. Returns what had
    to be added there so that no energy is negative (X, Y).
    """
    energy = tke[..., NOW]
    levels = energy.shape[2]
    root = np.sqrt(np.maximum(0.0, energy))

    # Vertical diffusion and dissipation, implicit: a system along each column of water.
    lowest = bottom[2:-2, 2:-2, None] - 1
    water = (lowest >= 0) & (np.arange(levels) >= lowest)
    edge = (lowest >= 0) & (np.arange(levels) == lowest)
    diffusivity = viscosity[2:-2, 2:-2]
    flow = np.zeros(diffusivity.shape)
    flow[:, :, :-1] = DT / dzt[1:] * ALPHA * 0.5 * (diffusivity[:, :, :-1] + diffusivity[:, :, 1:])
    decay = DT * C_EPSILON / length[2:-2, 2:-2] * root[2:-2, 2:-2]
    a, b, c = np.zeros(flow.shape), 1.0 + decay, np.zeros(flow.shape)
    a[:, :, 1:-1] = -flow[:, :, :-2] / dzw[1:-1]
    a[:, :, -1] = -flow[:, :, -2] / (0.5 * dzw[-1])
    c[:, :, :-1] = -flow[:, :, :-1] / dzw[:-1]
    a[edge] = 0.0
    b -= a
    b -= c
    d = energy[2:-2, 2:-2] + DT * forcing[2:-2, 2:-2]
    d[:, :, -1] += DT * wind[2:-2, 2:-2] / (0.5 * dzw[-1])
    a[~water] = 0.0
    b[~water] = 1.0
    c[~water] = 0.0
    d[~water] = 0.0
    solved = solve_tridiagonal(a, b, c, d)
    tke[2:-2, 2:-2, :, NEXT] = np.where(water, solved, tke[2:-2, 2:-2, :, NEXT])

    # Energy that is negative at the surface is set to zero there, and reported.
    surface = tke[2:-2, 2:-2, -1, NEXT]
    correction = np.zeros(tke.shape[:2])
    lacking = np.minimum(0.0, surface)
    correction[2:-2, 2:-2] = -lacking * 0.5 * dzw[-1] / DT
    surface -= lacking

    # Diffusion across.
    east, north = np.zeros_like(energy), np.zeros_like(energy)
    east[:-1] = ACROSS * (energy[1:] - energy[:-1]) / (cost[None, :, None] * dxu[:-1, None, None])
    east[:-1] *= mask_u[:-1]
    north[:, :-1] = ACROSS * (energy[:, 1:] - energy[:, :-1]) / dyu[None, :-1, None]
    north[:, :-1] *= mask_v[:, :-1] * cosu[None, :-1, None]
    width = cost[None, 2:-2, None] * dxt[2:-2, None, None]
    depth = (cost * dyt)[None, 2:-2, None]
    wet = mask_w[2:-2, 2:-2]
    tke[2:-2, 2:-2, :, NEXT] += (
        DT
        * wet
        * (
            (east[2:-2, 2:-2] - east[1:-3, 2:-2]) / width
            + (north[2:-2, 2:-2] - north[2:-2, 1:-3]) / depth
        )
    )

    # Advection by the velocities on the top faces: means of the cells above and below.
    u_w, v_w, w_w = np.zeros_like(energy), np.zeros_like(energy), np.zeros_like(energy)
    for wind_speed, mean, mask in ((u[..., NOW], u_w, mask_u), (v[..., NOW], v_w, mask_v)):
        carried = wind_speed * mask * dzt
        mean[:, :, :-1] = 0.5 * (carried[:, :, :-1] + carried[:, :, 1:]) / dzw[:-1]
        mean[:, :, -1] = 0.5 * carried[:, :, -1] / (0.5 * dzw[-1])
    rising = w[..., NOW] * mask_w
    w_w[:, :, :-1] = 0.5 * (rising[:, :, :-1] + rising[:, :, 1:])
    east, north, top = advective_fluxes(energy, u_w, v_w, w_w, mask_w, dxu, dyu, dzt, cost, cosu)
    change = dtke[2:-2, 2:-2, :, NOW]
    change[...] = wet * (
        (east[1:-3, 2:-2] - east[2:-2, 2:-2]) / width
        + (north[2:-2, 1:-3] - north[2:-2, 2:-2]) / depth
    )
    change[:, :, 0] -= top[2:-2, 2:-2, 0] / dzw[0]
    change[:, :, 1:-1] -= (top[2:-2, 2:-2, 1:-1] - top[2:-2, 2:-2, :-2]) / dzw[1:-1]
    change[:, :, -1] -= (top[2:-2, 2:-2, -1] - top[2:-2, 2:-2, -2]) / (0.5 * dzw[-1])
    tke[..., NEXT] += DT * (
        (1.5 + BASHFORTH) * dtke[..., NOW] - (0.5 + BASHFORTH) * dtke[..., BEFORE]
    )
    return correction
