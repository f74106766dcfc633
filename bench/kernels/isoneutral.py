"""Mixing along the surfaces of constant density in an ocean: slopes, diffusivities, tracers.

The functional discretisation of Griffies, Gnanadesikan, Pacanowski, Larichev, Dukowicz and Smith,
"Isoneutral diffusion in a z-coordinate ocean model", J. Phys. Oceanogr. 28 (1998), 805-830. A slope
is taken on each triad: a vertical face, a horizontal face, and the cell between them. Steep slopes
are tapered as in Danabasoglu and McWilliams, J. Climate 8 (1995), 2967-2987. Density is a
polynomial of temperature and depth, linear in salinity, as in Vallis, "Atmospheric and Oceanic
Fluid Dynamics" (2006).

Arrays are (x, y, z), z upwards, with two cells at each edge of x and y that belong to neighbours.
Cells are named by t; the faces to their east, north and top by u, v and w.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.kernels.ocean import solve_tridiagonal

#: Of seawater: density, its changes by temperature and salinity, and gravity.
RHO_0, THETA_0, GRAVITY = 1024.0, 9.85, 9.81
BETA_T, BETA_TS, BETA_S, GAMMA_S = 1.67e-4, 1e-5, 0.78e-3, 1.1e-8
#: Where the taper of the slopes is one half, how wide it is, and the diffusivity that remains.
SLOPE_CENTRE, SLOPE_WIDTH, STEEP = 1e-3, 1e-3, 50.0
#: Keeps the slope finite where water is not stratified.
EPSILON = 1e-20


def density_by_temperature(temp: Any, z: Any) -> Any:
    """The derivative of the density at height z, which is negative below the surface."""
    return -RHO_0 * (BETA_TS * (temp - THETA_0) + BETA_T * (1.0 - GAMMA_S * GRAVITY * z * RHO_0))


def taper(slope: Any) -> Any:
    """1 for gentle slopes, 0 for steep ones."""
    return 0.5 * (1.0 + np.tanh((SLOPE_CENTRE - np.abs(slope)) / SLOPE_WIDTH))


def slope_of(across: Any, up: Any) -> Any:
    """The slope of a surface of constant density from its gradients; unstable water is vertical."""
    return -across / (np.minimum(0.0, up) - EPSILON)


def gradients(
    tracer: Any, mask_u: Any, mask_v: Any, mask_w: Any, dxu: Any, dyu: Any, dzw: Any, cost: Any
) -> tuple[Any, Any, Any]:
    """Differences of a tracer over the east, north and top faces."""
    east, north, top = np.zeros_like(tracer), np.zeros_like(tracer), np.zeros_like(tracer)
    east[:-1] = (tracer[1:] - tracer[:-1]) / dxu[:-1, None, None] * mask_u[:-1]
    east /= cost[None, :, None]
    north[:, :-1] = (tracer[:, 1:] - tracer[:, :-1]) / dyu[None, :-1, None] * mask_v[:, :-1]
    top[:, :, :-1] = (tracer[:, :, 1:] - tracer[:, :, :-1]) / dzw[:-1] * mask_w[:, :, :-1]
    return east, north, top


def isoneutral_mixing(
    mask_t: Any, mask_u: Any, mask_v: Any, mask_w: Any,
    dxt: Any, dxu: Any, dyt: Any, dyu: Any, dzt: Any, dzw: Any, cost: Any, cosu: Any,
    salt: Any, temp: Any, zt: Any, k_iso: Any,
    k_11: Any, k_22: Any, k_33: Any, ai_ez: Any, ai_nz: Any, ai_bx: Any, ai_by: Any,
) -> None:  # fmt: skip
    """The mixing tensor, written to the last seven arguments.

    `k_11`, `k_22`, `k_33` (X, Y, Z) are the diffusivities through east, north and top faces;
    `ai_ez`, `ai_nz`, `ai_bx`, `ai_by` (X, Y, Z, 2, 2) the tapered slopes of the triads of a face,
    by the side of the face at which the cell is, and whether the other face is below or above.
    `salt` and `temp` have a last axis of three time levels, of which the first is now.
    """
    grid = (mask_u, mask_v, mask_w, dxu, dyu, dzw, cost)
    by_temp = density_by_temperature(temp[..., 0], zt) * mask_t
    by_salt = RHO_0 * BETA_S * mask_t
    temp_x, temp_y, temp_z = gradients(temp[..., 0], *grid)
    salt_x, salt_y, salt_z = gradients(salt[..., 0], *grid)

    # East faces, from cell i to cell i + 1: the vertical faces below and above both cells.
    inside = (slice(1, -2), slice(2, -2))
    total = np.zeros_like(k_11[inside])
    for above in (0, 1):
        k, face = (slice(None), slice(None)) if above else (slice(1, None), slice(-1))
        here = (*inside, k)
        for side in (0, 1):
            i = slice(1 + side, -2 + side or None)
            alpha, beta = by_temp[i, 2:-2, k], by_salt[i, 2:-2, k]
            across = alpha * temp_x[here] + beta * salt_x[here]
            up = alpha * temp_z[i, 2:-2, face] + beta * salt_z[i, 2:-2, face]
            slope = slope_of(across, up)
            weight = taper(slope)
            total[:, :, k] += dzw[face] * mask_u[here] * np.maximum(STEEP, k_iso[here] * weight)
            ai_ez[(*here, side, above)] = weight * slope * mask_u[here]
    k_11[inside] = total / (4.0 * dzt)

    # North faces, from cell j to cell j + 1.
    inside = (slice(2, -2), slice(1, -2))
    total = np.zeros_like(k_22[inside])
    for above in (0, 1):
        k, face = (slice(None), slice(None)) if above else (slice(1, None), slice(-1))
        here = (*inside, k)
        for side in (0, 1):
            j = slice(1 + side, -2 + side or None)
            alpha, beta = by_temp[2:-2, j, k], by_salt[2:-2, j, k]
            across = alpha * temp_y[here] + beta * salt_y[here]
            up = alpha * temp_z[2:-2, j, face] + beta * salt_z[2:-2, j, face]
            slope = slope_of(across, up)
            weight = taper(slope)
            total[:, :, k] += dzw[face] * mask_v[here] * np.maximum(STEEP, k_iso[here] * weight)
            ai_nz[(*here, side, above)] = weight * slope * mask_v[here]
    k_22[inside] = total / (4.0 * dzt)

    # Top faces, from level k to level k + 1: the faces to the east and west, north and south.
    here = (slice(2, -2), slice(2, -2), slice(-1))
    total_x, total_y = np.zeros_like(k_33[here]), np.zeros_like(k_33[here])
    for above in (0, 1):
        k = slice(1, None) if above else slice(-1)
        alpha, beta = by_temp[2:-2, 2:-2, k], by_salt[2:-2, 2:-2, k]
        up = alpha * temp_z[here] + beta * salt_z[here]
        for side in (0, 1):
            i = slice(1 + side, -3 + side)
            slope = slope_of(alpha * temp_x[i, 2:-2, k] + beta * salt_x[i, 2:-2, k], up)
            weight = taper(slope)
            width = dxu[i, None, None]
            total_x += width * k_iso[here] * weight * slope**2 * mask_w[here]
            ai_bx[(*here, side, above)] = weight * slope * mask_w[here]
            slope = slope_of(alpha * temp_y[2:-2, i, k] + beta * salt_y[2:-2, i, k], up)
            weight = taper(slope)
            width = (cosu[i] * dyu[i])[None, :, None]
            total_y += width * k_iso[here] * weight * slope**2 * mask_w[here]
            ai_by[(*here, side, above)] = weight * slope * mask_w[here]
    k_33[here] = total_x / (4.0 * dxt[2:-2, None, None])
    k_33[here] += total_y / (4.0 * (dyt * cost)[None, 2:-2, None])
    k_33[2:-2, 2:-2, -1] = 0.0


def mix_tracer(
    tracer: Any, mask_t: Any, mask_u: Any, mask_v: Any, mask_w: Any,
    dxt: Any, dxu: Any, dyt: Any, dyu: Any, dzt: Any, dzw: Any, cost: Any, cosu: Any,
    k_iso: Any, k_11: Any, k_22: Any, k_33: Any, ai_ez: Any, ai_nz: Any, ai_bx: Any, ai_by: Any,
    dt: float,
) -> Any:  # fmt: skip
    """A tracer (X, Y, Z) after a time step with the tensor that `isoneutral_mixing` has written.

    The fluxes are explicit in time, vertical diffusion is implicit; the edges stay as they are.
    """
    east, north, top = gradients(tracer, mask_u, mask_v, mask_w, dxu, dyu, dzw, cost)
    flux_e, flux_n, flux_t = k_11 * east, k_22 * north, np.zeros_like(tracer)

    inside_e, inside_n = (slice(1, -2), slice(2, -2)), (slice(2, -2), slice(1, -2))
    for above in (0, 1):
        k, face = (slice(None), slice(None)) if above else (slice(1, None), slice(-1))
        for side in (0, 1):
            i = slice(1 + side, -2 + side or None)
            here = (*inside_e, k)
            step = 0.25 * k_iso[here] * dzw[face] / dzt[k]
            flux_e[here] += step * ai_ez[(*here, side, above)] * top[i, 2:-2, face]
            here = (*inside_n, k)
            step = 0.25 * k_iso[here] * dzw[face] / dzt[k]
            flux_n[here] += step * ai_nz[(*here, side, above)] * top[2:-2, i, face]
    flux_n *= cosu[None, :, None]
    here = (slice(2, -2), slice(2, -2), slice(-1))
    for above in (0, 1):
        k = slice(1, None) if above else slice(-1)
        for side in (0, 1):
            i = slice(1 + side, -3 + side)
            step = 0.25 * k_iso[here] * (dxu[i] / dxt[2:-2])[:, None, None]
            flux_t[here] += step * ai_bx[(*here, side, above)] * east[i, 2:-2, k]
            width = (cosu * dyu)[i] / (cost * dyt)[2:-2]
            step = 0.25 * k_iso[here] * width[None, :, None]
            flux_t[here] += step * ai_by[(*here, side, above)] * north[2:-2, i, k]

    area_y = (cost * dyt)[None, 2:-2, None]
    change = (flux_e[2:-2, 2:-2] - flux_e[1:-3, 2:-2]) / (
        cost[None, 2:-2, None] * dxt[2:-2, None, None]
    )
    change += (flux_n[2:-2, 2:-2] - flux_n[2:-2, 1:-3]) / area_y
    change += flux_t[2:-2, 2:-2] / dzt
    change[:, :, 1:] -= flux_t[2:-2, 2:-2, :-1] / dzt[1:]
    wet = mask_t[2:-2, 2:-2]
    mixed = tracer.copy()
    mixed[2:-2, 2:-2] += dt * change * wet

    exchange = dt * k_33[2:-2, 2:-2, :-1] / dzw[:-1] * mask_w[2:-2, 2:-2, :-1]
    shape = mixed[2:-2, 2:-2].shape
    a, b, c = np.zeros(shape), np.ones(shape), np.zeros(shape)
    a[:, :, 1:] = -exchange / dzt[1:]
    c[:, :, :-1] = -exchange / dzt[:-1]
    b -= a
    b -= c
    mixed[2:-2, 2:-2] = solve_tridiagonal(a, b, c, mixed[2:-2, 2:-2].copy())
    return mixed
