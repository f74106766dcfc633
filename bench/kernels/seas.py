"""A sea to run the ocean kernels in: its grid, its coast, and water that is stratified."""

from __future__ import annotations

from typing import Any

import numpy as np


def _faces(wet: Any, axis: int) -> Any:
    """Faces between two cells of water, towards the end of an axis."""
    found = wet & np.roll(wet, -1, axis)
    last: list[Any] = [slice(None)] * wet.ndim
    last[axis] = -1
    found[tuple(last)] = False
    return found


def _grid(shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, Any]:
    """Masks, and the sizes of the cells in metres."""
    x, y, z = shape
    bottom = np.where(rng.random((x, y)) < 0.1, 0, rng.integers(1, max(2, z // 2), (x, y)))
    wet = (bottom[:, :, None] > 0) & (np.arange(z) >= bottom[:, :, None] - 1)
    dzt = np.linspace(90.0, 15.0, z)
    dzw = np.append(0.5 * (dzt[1:] + dzt[:-1]), dzt[-1])
    latitude = np.deg2rad(np.linspace(20.0, 60.0, y))
    top = np.append(wet[:, :, 1:] & wet[:, :, :-1], wet[:, :, -1:], axis=2)
    return {
        "mask_t": wet, "mask_u": _faces(wet, 0), "mask_v": _faces(wet, 1), "mask_w": top,
        "dxt": rng.uniform(4e4, 6e4, x), "dxu": rng.uniform(4e4, 6e4, x),
        "dyt": rng.uniform(4e4, 6e4, y), "dyu": rng.uniform(4e4, 6e4, y),
        "dzt": dzt, "dzw": dzw, "cost": np.cos(latitude), "cosu": np.cos(latitude + 0.01),
        "zt": np.cumsum(dzt) - dzt / 2 - dzt.sum(), "bottom": bottom,
    }  # fmt: skip


def _chosen(found: dict[str, Any], names: str) -> list[Any]:
    return [np.ascontiguousarray(found[name]) for name in names.split()]


def density_inputs(shape: tuple[int, ...]) -> list[Any]:
    """The arguments of `ocean.density`."""
    rng = np.random.default_rng(17)
    return [rng.uniform(*ends, shape) for ends in ((30.0, 37.0), (0.0, 25.0), (0.0, 1000.0))]


def isoneutral_inputs(shape: tuple[int, ...]) -> list[Any]:
    """The arguments of `isoneutral.isoneutral_mixing`: slopes around the centre of the taper."""
    rng = np.random.default_rng(17)
    sea = _grid(shape, rng)
    z = sea["zt"]
    levels = (*shape, 3)
    sea["temp"] = 5.0 + 18.0 * np.exp(z / 400.0)[:, None] + rng.normal(0.0, 0.3, levels)
    sea["salt"] = 35.0 + 1e-4 * z[:, None] + rng.normal(0.0, 0.02, levels)
    sea["k_iso"] = rng.uniform(500.0, 1500.0, shape)
    for name in ("k_11", "k_22", "k_33"):
        sea[name] = np.zeros(shape)
    for name in ("ai_ez", "ai_nz", "ai_bx", "ai_by"):
        sea[name] = np.zeros((*shape, 2, 2))
    return _chosen(
        sea,
        "mask_t mask_u mask_v mask_w dxt dxu dyt dyu dzt dzw cost cosu salt temp zt k_iso "
        "k_11 k_22 k_33 ai_ez ai_nz ai_bx ai_by",
    )


def turbulence_inputs(shape: tuple[int, ...]) -> list[Any]:
    """The arguments of `turbulence.turbulent_kinetic_energy`."""
    rng = np.random.default_rng(17)
    sea = _grid(shape, rng)
    levels = (*shape, 3)
    for name in "uv":
        sea[name] = rng.normal(0.0, 0.3, levels)
    sea["w"] = rng.normal(0.0, 1e-4, levels)
    sea["viscosity"] = rng.uniform(1e-4, 1e-2, shape)
    sea["length"] = rng.uniform(1.0, 30.0, shape)
    sea["forcing"] = rng.normal(0.0, 1e-7, shape)
    sea["wind"] = rng.normal(0.0, 2e-5, shape[:2])
    sea["tke"] = rng.uniform(1e-5, 1e-2, levels)
    sea["dtke"] = rng.normal(0.0, 1e-9, levels)
    return _chosen(
        sea,
        "u v w mask_u mask_v mask_w dxt dxu dyt dyu dzt dzw cost cosu bottom viscosity length "
        "forcing wind tke dtke",
    )
