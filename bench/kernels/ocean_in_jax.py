"""The ocean kernels for JAX, whose arrays cannot be written; what writes nothing is taken over."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

from bench.kernels import isoneutral, ocean, turbulence
from bench.peers import library


def in_jax(*functions: Callable[..., Any]) -> list[Callable[..., Any]]:
    """Functions that write nothing, with jax.numpy in the place of NumPy, also in each other."""
    namespace: dict[str, Any] = {}
    made: list[Callable[..., Any]] = []
    for f in functions:
        assert isinstance(f, FunctionType)
        namespace.update({**f.__globals__, **{m.__name__: m for m in made}})
        made.append(FunctionType(f.__code__, namespace, f.__name__, f.__defaults__))
        namespace.update({m.__name__: m for m in made}, np=library("jax.numpy"))
    return made


def density(*arguments: Any) -> Any:
    (own,) = in_jax(ocean.density)
    return own(*arguments)


def _gradients(
    tracer: Any, mask_u: Any, mask_v: Any, mask_w: Any, dxu: Any, dyu: Any, dzw: Any, cost: Any
) -> tuple[Any, Any, Any]:
    jnp = library("jax.numpy")
    x = (tracer[1:] - tracer[:-1]) / dxu[:-1, None, None] * mask_u[:-1] / cost[None, :, None]
    y = (tracer[:, 1:] - tracer[:, :-1]) / dyu[None, :-1, None] * mask_v[:, :-1]
    z = (tracer[:, :, 1:] - tracer[:, :, :-1]) / dzw[:-1] * mask_w[:, :, :-1]
    padding = ((0, 1), (0, 0), (0, 0))
    return tuple(jnp.pad(d, padding[-i:] + padding[:-i]) for i, d in enumerate((x, y, z)))


def isoneutral_mixing(*arguments: Any) -> tuple[Any, ...]:
    """The last seven arguments as `isoneutral.isoneutral_mixing` leaves them."""
    jnp = library("jax.numpy")
    by_temperature, taper, slope_of = in_jax(
        isoneutral.density_by_temperature, isoneutral.taper, isoneutral.slope_of
    )
    mask_t, mask_u, mask_v, mask_w, dxt, dxu, dyt, dyu, dzt, dzw, cost, cosu = arguments[:12]
    salt, temp, zt, k_iso, k_11, k_22, k_33, ai_ez, ai_nz, ai_bx, ai_by = arguments[12:]
    grid = (mask_u, mask_v, mask_w, dxu, dyu, dzw, cost)
    by_temp = by_temperature(temp[..., 0], zt) * mask_t
    by_salt = isoneutral.RHO_0 * isoneutral.BETA_S * mask_t
    temp_x, temp_y, temp_z = _gradients(temp[..., 0], *grid)
    salt_x, salt_y, salt_z = _gradients(salt[..., 0], *grid)

    def sides(
        inside: Any,
        cells: Callable[[int], Any],
        mask: Any,
        t: Any,
        s: Any,
        tensor: Any,
        slopes: Any,
    ) -> tuple[Any, Any]:
        total = jnp.zeros_like(tensor[inside])
        for above in (0, 1):
            k, face = (slice(None), slice(None)) if above else (slice(1, None), slice(-1))
            here = (*inside, k)
            for side in (0, 1):
                cell = cells(side)
                alpha, beta = by_temp[(*cell, k)], by_salt[(*cell, k)]
                up = alpha * temp_z[(*cell, face)] + beta * salt_z[(*cell, face)]
                slope = slope_of(alpha * t[here] + beta * s[here], up)
                weight = taper(slope)
                gentle = jnp.maximum(isoneutral.STEEP, k_iso[here] * weight)
                total = total.at[:, :, k].add(dzw[face] * mask[here] * gentle)
                slopes = slopes.at[(*here, side, above)].set(weight * slope * mask[here])
        return tensor.at[inside].set(total / (4.0 * dzt)), slopes

    centre = slice(2, -2)
    k_11, ai_ez = sides(
        (slice(1, -2), centre),
        lambda side: (slice(1 + side, -2 + side or None), centre),
        mask_u, temp_x, salt_x, k_11, ai_ez,
    )  # fmt: skip
    k_22, ai_nz = sides(
        (centre, slice(1, -2)),
        lambda side: (centre, slice(1 + side, -2 + side or None)),
        mask_v, temp_y, salt_y, k_22, ai_nz,
    )  # fmt: skip

    here = (centre, centre, slice(-1))
    total = jnp.zeros_like(k_33[here])
    for above in (0, 1):
        k = slice(1, None) if above else slice(-1)
        alpha, beta = by_temp[2:-2, 2:-2, k], by_salt[2:-2, 2:-2, k]
        up = alpha * temp_z[here] + beta * salt_z[here]
        for side in (0, 1):
            i = slice(1 + side, -3 + side)
            slope = slope_of(alpha * temp_x[i, 2:-2, k] + beta * salt_x[i, 2:-2, k], up)
            tapered = taper(slope) * slope
            width = (dxu[i] / dxt[2:-2])[:, None, None]
            total += width * k_iso[here] * tapered * slope * mask_w[here] / 4.0
            ai_bx = ai_bx.at[(*here, side, above)].set(tapered * mask_w[here])
            slope = slope_of(alpha * temp_y[2:-2, i, k] + beta * salt_y[2:-2, i, k], up)
            tapered = taper(slope) * slope
            width = ((cosu * dyu)[i] / (dyt * cost)[2:-2])[None, :, None]
            total += width * k_iso[here] * tapered * slope * mask_w[here] / 4.0
            ai_by = ai_by.at[(*here, side, above)].set(tapered * mask_w[here])
    k_33 = k_33.at[here].set(total).at[2:-2, 2:-2, -1].set(0.0)
    return k_11, k_22, k_33, ai_ez, ai_nz, ai_bx, ai_by


def turbulent_kinetic_energy(*arguments: Any) -> tuple[Any, Any, Any]:
    """What `turbulence.turbulent_kinetic_energy` returns, and `tke` and `dtke` after it."""
    jax, jnp = library("jax"), library("jax.numpy")
    own = turbulence
    _, limited_flux = in_jax(own.superbee, own.limited_flux)
    u, v, w, mask_u, mask_v, mask_w, dxt, dxu, dyt, dyu, dzt, dzw, cost, cosu = arguments[:14]
    bottom, viscosity, length, forcing, wind, tke, dtke = arguments[14:]
    energy = tke[..., own.NOW]
    levels = energy.shape[2]
    inner = (slice(2, -2), slice(2, -2))

    lowest = bottom[inner][:, :, None] - 1
    water = (lowest >= 0) & (jnp.arange(levels) >= lowest)
    edge = (lowest >= 0) & (jnp.arange(levels) == lowest)
    heights = dzw.at[-1].multiply(0.5)
    between = viscosity[inner][:, :, :-1] + viscosity[inner][:, :, 1:]
    flow = own.DT / dzt[1:] * own.ALPHA * 0.5 * between
    root = jnp.sqrt(jnp.maximum(0.0, energy[inner]))
    a = jnp.where(edge, 0.0, jnp.pad(-flow / heights[1:], ((0, 0), (0, 0), (1, 0))))
    c = jnp.pad(-flow / dzw[:-1], ((0, 0), (0, 0), (0, 1)))
    b = 1.0 + own.DT * own.C_EPSILON / length[inner] * root - a - c
    d = energy[inner] + own.DT * forcing[inner]
    d = d.at[:, :, -1].add(own.DT * wind[inner] / heights[-1])
    a, c, d = (jnp.where(water, x, 0.0) for x in (a, c, d))
    solved = jax.lax.linalg.tridiagonal_solve(a, jnp.where(water, b, 1.0), c, d[..., None])[..., 0]
    after = jnp.where(water, solved, tke[(*inner, slice(None), own.NEXT)])
    lacking = jnp.minimum(0.0, after[:, :, -1])
    correction = jnp.zeros(tke.shape[:2]).at[inner].set(-lacking * heights[-1] / own.DT)
    after = after.at[:, :, -1].add(-lacking)

    width = cost[None, 2:-2, None] * dxt[2:-2, None, None]
    depth = (cost * dyt)[None, 2:-2, None]
    wet = mask_w[inner]

    def divergence(east: Any, north: Any) -> Any:
        """From the fluxes over the east faces from 1 on, and over the north faces from 1 on."""
        return (east[1:] - east[:-1]) / width + (north[:, 1:] - north[:, :-1]) / depth

    step_x, step_y = (
        energy[2:-1, 2:-2] - energy[1:-2, 2:-2],
        energy[2:-2, 2:-1] - energy[2:-2, 1:-2],
    )
    length_x = cost[None, 2:-2, None] * dxu[1:-2, None, None]
    east = own.ACROSS * step_x / length_x * mask_u[1:-2, 2:-2]
    north = own.ACROSS * step_y / dyu[None, 1:-2, None]
    north *= mask_v[2:-2, 1:-2] * cosu[None, 1:-2, None]
    after += own.DT * wet * divergence(east, north)

    def lifted(speed: Any, mask: Any) -> Any:
        carried = speed[..., own.NOW] * mask * dzt
        above = jnp.pad(carried[:, :, 1:], ((0, 0), (0, 0), (0, 1)))
        return 0.5 * (carried + above) / heights

    def advected(x: Any, wet: Any, speed: Any, courant: Any) -> Any:
        """Through the faces from 1 on of an axis that is the first; of the last one, none."""
        step = (x[1:] - x[:-1]) * wet[1:] * wet[:-1]
        mean = 0.5 * (x[1:-2] + x[2:-1])
        return limited_flux(step[:-2], step[1:-1], step[2:], mean, speed, jnp.abs(speed) * courant)

    speed = lifted(u, mask_u)[1:-2, 2:-2]
    east = advected(energy[:, 2:-2], mask_w[:, 2:-2], speed, own.DT / length_x)
    speed = (cosu[None, :, None] * lifted(v, mask_v))[2:-2, 1:-2]
    courant = own.DT / (cost * dyu)[None, 1:-2, None]
    turned = [jnp.swapaxes(x, 0, 1) for x in (energy[2:-2], mask_w[2:-2], speed)]
    north = jnp.swapaxes(advected(*turned, jnp.swapaxes(courant, 0, 1)), 0, 1)
    rising = (w[..., own.NOW] * mask_w)[inner]
    speed = 0.5 * (rising[:, :, :-1] + rising[:, :, 1:])
    ends = ((1, 1), (0, 0), (0, 0))
    turned = [jnp.pad(jnp.moveaxis(x, 2, 0), ends) for x in (energy[inner], mask_w[inner])]
    courant = (own.DT / dzt[:-1])[:, None, None]
    top = jnp.moveaxis(advected(*turned, jnp.moveaxis(speed, 2, 0), courant), 0, 2)
    top = jnp.pad(top, ((0, 0), (0, 0), (1, 1)))
    change = -(wet * divergence(east, north)) - (top[:, :, 1:] - top[:, :, :-1]) / heights
    dtke = dtke.at[(*inner, slice(None), own.NOW)].set(change)
    tke = tke.at[(*inner, slice(None), own.NEXT)].set(after)
    now, before = dtke[..., own.NOW], dtke[..., own.BEFORE]
    step = (1.5 + own.BASHFORTH) * now - (0.5 + own.BASHFORTH) * before
    return correction, tke.at[..., own.NEXT].add(own.DT * step), dtke
