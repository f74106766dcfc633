"""Ocean physics: the equation of state of seawater, and the implicit mixing of a column."""

from __future__ import annotations

from typing import Any

import numpy as np


def density(salinity: Any, temperature: Any, pressure: Any) -> Any:
    """The density of seawater in kg / m^3: the 48-term expression of TEOS-10.

    Absolute salinity in g / kg, conservative temperature in degrees C, pressure in dbar. From
    McDougall, Jackett, Millero, Pawlowicz and Barker, Ocean Science 8 (2012), 1123-1134.
    """
    return density_of(np.sqrt(salinity), salinity, temperature, pressure)


def density_of(root: Any, sa: Any, ct: Any, p: Any) -> Any:
    """The same, in plain arithmetic, from the square root of the salinity as well."""
    numerator = (
        9.998420897506056e2
        + ct * (2.839940833161907 + ct * (-3.147759265588511e-2 + 1.181805545074306e-3 * ct))
        + sa
        * (
            -6.698001071123802
            + ct * (-2.986498947203215e-2 + 2.327859407479162e-4 * ct)
            + root
            * (
                -3.988822378968490e-2
                + ct
                * (5.095422573880500e-4 + ct * (-1.426984671633621e-5 + 1.645039373682922e-7 * ct))
            )
        )
        + p
        * (
            -2.233269627352527e-2
            + ct * (-3.436090079851880e-4 + 3.726050720345733e-6 * ct)
            + sa * (-1.806789763745328e-4 + 6.876837219536232e-7 * ct)
            + p
            * (
                -3.087032500374211e-7
                + ct * (-1.988366587925593e-8 - 1.061519070296458e-11 * ct)
                + 1.550932729220080e-10 * sa
            )
        )
    )
    denominator = (
        1.0
        + ct
        * (
            2.775927747785646e-3
            + ct
            * (-2.349607444135925e-5 + ct * (1.119513357486743e-6 + 6.743689325042773e-10 * ct))
        )
        + sa
        * (
            -7.521448093615448e-3
            + ct
            * (
                -2.764306979894411e-5
                + ct
                * (1.262937315098546e-7 + ct * (9.527875081696435e-10 - 1.811147201949891e-11 * ct))
            )
            + 5.419326551148740e-6 * sa
            + root
            * (
                -3.303308871386421e-5
                + ct
                * (
                    3.801564588876298e-7
                    + ct
                    * (
                        -7.672876869259043e-9
                        + ct * (-4.634182341116144e-11 + 2.681097235569143e-12 * ct)
                    )
                )
            )
        )
        + p
        * (
            -2.742185394906099e-5
            + ct
            * (-3.212746477974189e-7 + ct * (3.191413910561627e-9 - 1.931012931541776e-12 * ct))
            + sa * (-1.105097577149576e-7 + 6.211426728363857e-10 * ct)
            + p
            * (
                -1.119011592875110e-10
                + ct
                * (-1.941660213148725e-11 - 1.864826425365600e-14 * ct + 1.119522344879478e-14 * sa)
                + p * (-1.200507748551599e-15 + 6.057902487546866e-17 * ct)
            )
        )
    )
    return numerator / denominator


def solve_tridiagonal(a: Any, b: Any, c: Any, d: Any) -> Any:
    """Systems along the last axis by Thomas's algorithm, which overwrites c and d."""
    c[..., 0] = c[..., 0] / b[..., 0]
    d[..., 0] = d[..., 0] / b[..., 0]
    for i in range(1, d.shape[-1]):
        scale = 1.0 / (b[..., i] - a[..., i] * c[..., i - 1])
        c[..., i] = c[..., i] * scale
        d[..., i] = (d[..., i] - a[..., i] * d[..., i - 1]) * scale
    x = np.empty_like(d)
    x[..., -1] = d[..., -1]
    for i in range(d.shape[-1] - 2, -1, -1):
        x[..., i] = d[..., i] - c[..., i] * x[..., i + 1]
    return x


def mix_columns(energy: Any, viscosity: Any, forcing: Any, mask: Any, dz: float, dt: float) -> Any:
    """One implicit step of vertical diffusion and decay of turbulent energy, (X, Y, Z).

    Energy that comes out negative, and all of it on land (`mask` False), is set to zero.
    """
    flux = np.zeros_like(energy)
    flux[:, :, :-1] = dt / dz**2 * 0.5 * (viscosity[:, :, 1:] + viscosity[:, :, :-1])
    a, b, c = np.zeros(energy.shape), np.ones(energy.shape), np.zeros(energy.shape)
    a[:, :, 1:] = -flux[:, :, :-1]
    c[:, :, :-1] = -flux[:, :, :-1]
    b[:, :, 1:] += flux[:, :, :-1]
    b[:, :, :-1] += flux[:, :, :-1]
    decay = np.sqrt(np.maximum(energy, 1e-12))
    b += dt * decay
    d = energy + dt * forcing
    mixed = solve_tridiagonal(a, b, c, d)
    mixed[mixed < 0] = 0.0
    mixed *= mask
    return mixed
