"""The ocean kernels as loops over cells, as they are written for Numba."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bench.kernels.isoneutral import (
    BETA_S,
    BETA_T,
    BETA_TS,
    EPSILON,
    GAMMA_S,
    GRAVITY,
    RHO_0,
    SLOPE_CENTRE,
    SLOPE_WIDTH,
    STEEP,
    THETA_0,
)
from bench.kernels.turbulence import ACROSS, ALPHA, BASHFORTH, BEFORE, C_EPSILON, DT, NEXT, NOW


def isoneutral_mixing(
    mask_t: Any, mask_u: Any, mask_v: Any, mask_w: Any,
    dxt: Any, dxu: Any, dyt: Any, dyu: Any, dzt: Any, dzw: Any, cost: Any, cosu: Any,
    salt: Any, temp: Any, zt: Any, k_iso: Any,
    k_11: Any, k_22: Any, k_33: Any, ai_ez: Any, ai_nz: Any, ai_bx: Any, ai_by: Any,
) -> None:  # fmt: skip
    nx, ny, nz = k_11.shape
    alpha, beta = np.zeros((nx, ny, nz)), RHO_0 * BETA_S
    temp_x, temp_y, temp_z = np.zeros((nx, ny, nz)), np.zeros((nx, ny, nz)), np.zeros((nx, ny, nz))
    salt_x, salt_y, salt_z = np.zeros((nx, ny, nz)), np.zeros((nx, ny, nz)), np.zeros((nx, ny, nz))
    for i in range(nx):
        for j in range(ny):
            for k in range(nz):
                if mask_t[i, j, k]:
                    thermal = BETA_T * (1.0 - GAMMA_S * GRAVITY * zt[k] * RHO_0)
                    alpha[i, j, k] = -RHO_0 * (BETA_TS * (temp[i, j, k, 0] - THETA_0) + thermal)
                if i < nx - 1 and mask_u[i, j, k]:
                    width = dxu[i] * cost[j]
                    temp_x[i, j, k] = (temp[i + 1, j, k, 0] - temp[i, j, k, 0]) / width
                    salt_x[i, j, k] = (salt[i + 1, j, k, 0] - salt[i, j, k, 0]) / width
                if j < ny - 1 and mask_v[i, j, k]:
                    temp_y[i, j, k] = (temp[i, j + 1, k, 0] - temp[i, j, k, 0]) / dyu[j]
                    salt_y[i, j, k] = (salt[i, j + 1, k, 0] - salt[i, j, k, 0]) / dyu[j]
                if k < nz - 1 and mask_w[i, j, k]:
                    temp_z[i, j, k] = (temp[i, j, k + 1, 0] - temp[i, j, k, 0]) / dzw[k]
                    salt_z[i, j, k] = (salt[i, j, k + 1, 0] - salt[i, j, k, 0]) / dzw[k]
    for i in range(1, nx - 2):
        for j in range(1, ny - 2):
            for k in range(nz):
                east, north = 0.0, 0.0
                for above in range(2):
                    f = k - 1 + above
                    if f < 0:
                        continue
                    for side in range(2):
                        if j > 1:
                            c, wet = i + side, mask_t[i + side, j, k]
                            up = alpha[c, j, k] * temp_z[c, j, f] + wet * beta * salt_z[c, j, f]
                            across = alpha[c, j, k] * temp_x[i, j, k] + wet * beta * salt_x[i, j, k]
                            slope = -across / (min(0.0, up) - EPSILON)
                            weight = 0.5 + 0.5 * math.tanh(
                                (SLOPE_CENTRE - abs(slope)) / SLOPE_WIDTH
                            )
                            east += dzw[f] * mask_u[i, j, k] * max(STEEP, k_iso[i, j, k] * weight)
                            ai_ez[i, j, k, side, above] = weight * slope * mask_u[i, j, k]
                        if i > 1:
                            c, wet = j + side, mask_t[i, j + side, k]
                            up = alpha[i, c, k] * temp_z[i, c, f] + wet * beta * salt_z[i, c, f]
                            across = alpha[i, c, k] * temp_y[i, j, k] + wet * beta * salt_y[i, j, k]
                            slope = -across / (min(0.0, up) - EPSILON)
                            weight = 0.5 + 0.5 * math.tanh(
                                (SLOPE_CENTRE - abs(slope)) / SLOPE_WIDTH
                            )
                            north += dzw[f] * mask_v[i, j, k] * max(STEEP, k_iso[i, j, k] * weight)
                            ai_nz[i, j, k, side, above] = weight * slope * mask_v[i, j, k]
                if j > 1:
                    k_11[i, j, k] = east / (4.0 * dzt[k])
                if i > 1:
                    k_22[i, j, k] = north / (4.0 * dzt[k])
    for i in range(2, nx - 2):
        for j in range(2, ny - 2):
            for k in range(nz - 1):
                sum_x, sum_y, wet = 0.0, 0.0, mask_w[i, j, k]
                for above in range(2):
                    c = k + above
                    cell = mask_t[i, j, c]
                    up = alpha[i, j, c] * temp_z[i, j, k] + cell * beta * salt_z[i, j, k]
                    low = min(0.0, up) - EPSILON
                    for side in range(2):
                        f = i - 1 + side
                        slope = alpha[i, j, c] * temp_x[f, j, c] + cell * beta * salt_x[f, j, c]
                        slope = -slope / low
                        weight = 0.5 + 0.5 * math.tanh((SLOPE_CENTRE - abs(slope)) / SLOPE_WIDTH)
                        sum_x += dxu[f] * k_iso[i, j, k] * weight * slope**2 * wet
                        ai_bx[i, j, k, side, above] = weight * slope * wet
                        f = j - 1 + side
                        slope = alpha[i, j, c] * temp_y[i, f, c] + cell * beta * salt_y[i, f, c]
                        slope = -slope / low
                        weight = 0.5 + 0.5 * math.tanh((SLOPE_CENTRE - abs(slope)) / SLOPE_WIDTH)
                        sum_y += cosu[f] * dyu[f] * k_iso[i, j, k] * weight * slope**2 * wet
                        ai_by[i, j, k, side, above] = weight * slope * wet
                k_33[i, j, k] = sum_x / (4.0 * dxt[i]) + sum_y / (4.0 * dyt[j] * cost[j])
            k_33[i, j, nz - 1] = 0.0


def turbulent_kinetic_energy(
    u: Any, v: Any, w: Any, mask_u: Any, mask_v: Any, mask_w: Any,
    dxt: Any, dxu: Any, dyt: Any, dyu: Any, dzt: Any, dzw: Any, cost: Any, cosu: Any,
    bottom: Any, viscosity: Any, length: Any, forcing: Any, wind: Any, tke: Any, dtke: Any,
) -> Any:  # fmt: skip
    nx, ny, nz = viscosity.shape
    correction = np.zeros((nx, ny))
    height = dzw.copy()
    height[-1] *= 0.5
    after, x = np.zeros(nz), np.zeros(nz)
    for i in range(2, nx - 2):
        for j in range(2, ny - 2):
            low = bottom[i, j] - 1
            if low >= 0:
                before = 0.0
                for k in range(low, nz):
                    a, c = 0.0, 0.0
                    if k > low:
                        mean = 0.5 * (viscosity[i, j, k - 1] + viscosity[i, j, k])
                        a = -DT / dzt[k] * ALPHA * mean / height[k]
                    if k < nz - 1:
                        mean = 0.5 * (viscosity[i, j, k] + viscosity[i, j, k + 1])
                        c = -DT / dzt[k + 1] * ALPHA * mean / height[k]
                    root = math.sqrt(max(0.0, tke[i, j, k, NOW]))
                    b = 1.0 + DT * C_EPSILON / length[i, j, k] * root - a - c
                    d = tke[i, j, k, NOW] + DT * forcing[i, j, k]
                    if k == nz - 1:
                        d += DT * wind[i, j] / height[k]
                    scale = 1.0 / (b - a * before)
                    d = (d - a * x[k - 1]) * scale if k > low else d * scale
                    before = c * scale
                    after[k], x[k] = before, d
                for k in range(nz - 2, low - 1, -1):
                    x[k] -= after[k] * x[k + 1]
                for k in range(low, nz):
                    tke[i, j, k, NEXT] = x[k]
            lacking = min(0.0, tke[i, j, nz - 1, NEXT])
            correction[i, j] = -lacking * height[-1] / DT
            tke[i, j, nz - 1, NEXT] -= lacking

    def limited(
        before: float, own: float, behind: float, mean: float, speed: float, courant: float
    ) -> float:
        upwind = before if speed > 0.0 else behind
        ratio = upwind / (own if abs(own) >= 1e-20 else 1e-20)
        limit = max(0.0, max(min(1.0, 2.0 * ratio), min(2.0, ratio)))
        damping = (1.0 - limit) + courant * limit
        return speed * mean - abs(speed) * damping * own * 0.5

    flux = np.zeros((3, nx, ny, nz))
    for i in range(1, nx - 2):
        for j in range(1, ny - 2):
            for k in range(nz):
                above, e = k < nz - 1, tke[i, j, k, NOW]
                if j > 1:
                    speed = u[i, j, k, NOW] * mask_u[i, j, k] * dzt[k]
                    if above:
                        speed += u[i, j, k + 1, NOW] * mask_u[i, j, k + 1] * dzt[k + 1]
                    speed *= 0.5 / height[k]
                    m0, m1 = mask_w[i - 1, j, k], mask_w[i, j, k]
                    m2, m3 = mask_w[i + 1, j, k], mask_w[i + 2, j, k]
                    e0, e2, e3 = tke[i - 1, j, k, 0], tke[i + 1, j, k, 0], tke[i + 2, j, k, 0]
                    flux[0, i, j, k] = limited(
                        (e - e0) * m1 * m0, (e2 - e) * m2 * m1, (e3 - e2) * m3 * m2,
                        0.5 * (e + e2), speed, abs(speed) * DT / (cost[j] * dxu[i]),
                    )  # fmt: skip
                if i > 1:
                    speed = v[i, j, k, NOW] * mask_v[i, j, k] * dzt[k]
                    if above:
                        speed += v[i, j, k + 1, NOW] * mask_v[i, j, k + 1] * dzt[k + 1]
                    speed *= 0.5 / height[k] * cosu[j]
                    m0, m1 = mask_w[i, j - 1, k], mask_w[i, j, k]
                    m2, m3 = mask_w[i, j + 1, k], mask_w[i, j + 2, k]
                    e0, e2, e3 = tke[i, j - 1, k, 0], tke[i, j + 1, k, 0], tke[i, j + 2, k, 0]
                    flux[1, i, j, k] = limited(
                        (e - e0) * m1 * m0, (e2 - e) * m2 * m1, (e3 - e2) * m3 * m2,
                        0.5 * (e + e2), speed, abs(speed) * DT / (cost[j] * dyu[j]),
                    )  # fmt: skip
                if i > 1 and j > 1 and above:
                    m1, m2 = mask_w[i, j, k], mask_w[i, j, k + 1]
                    speed = 0.5 * (w[i, j, k, NOW] * m1 + w[i, j, k + 1, NOW] * m2)
                    e2 = tke[i, j, k + 1, NOW]
                    lower = (e - tke[i, j, k - 1, 0]) * m1 * mask_w[i, j, k - 1] if k else 0.0
                    upper = 0.0
                    if k < nz - 2:
                        upper = (tke[i, j, k + 2, 0] - e2) * mask_w[i, j, k + 2] * m2
                    flux[2, i, j, k] = limited(
                        lower, (e2 - e) * m2 * m1, upper,
                        0.5 * (e + e2), speed, abs(speed) * DT / dzt[k],
                    )  # fmt: skip
    for i in range(nx):
        for j in range(ny):
            for k in range(nz):
                if 1 < i < nx - 2 and 1 < j < ny - 2:
                    e, width, depth = tke[i, j, k, NOW], cost[j] * dxt[i], cost[j] * dyt[j]
                    east = (tke[i + 1, j, k, NOW] - e) / (cost[j] * dxu[i]) * mask_u[i, j, k]
                    west = (e - tke[i - 1, j, k, NOW]) / (cost[j] * dxu[i - 1])
                    west *= mask_u[i - 1, j, k]
                    north = (tke[i, j + 1, k, NOW] - e) / dyu[j] * mask_v[i, j, k] * cosu[j]
                    south = (e - tke[i, j - 1, k, NOW]) / dyu[j - 1] * mask_v[i, j - 1, k]
                    south *= cosu[j - 1]
                    spread = ACROSS * ((east - west) / width + (north - south) / depth)
                    tke[i, j, k, NEXT] += DT * mask_w[i, j, k] * spread
                    gone = (flux[0, i, j, k] - flux[0, i - 1, j, k]) / width
                    gone += (flux[1, i, j, k] - flux[1, i, j - 1, k]) / depth
                    risen = flux[2, i, j, k] - (flux[2, i, j, k - 1] if k else 0.0)
                    dtke[i, j, k, NOW] = -(mask_w[i, j, k] * gone) - risen / height[k]
                tke[i, j, k, NEXT] += DT * (
                    (1.5 + BASHFORTH) * dtke[i, j, k, NOW]
                    - (0.5 + BASHFORTH) * dtke[i, j, k, BEFORE]
                )
    return correction
