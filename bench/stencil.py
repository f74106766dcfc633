"""stencil: steps of heat flow, Jacobi's method, waves and advection on a grid, with gradients.

Ten steps on 1000 x 1000 float64, in slices and sums as with NumPy, the loop in Python. Asked for
are the last state, and the half sum of its squares with gradients: of heat by the first state, of
Jacobi by the source, of waves by the speed at each point, of advection by both winds. The floor
copies a grid for each step, and as often again for the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench import floors, harness, report
from bench.cases import Array, Case, Prepared, Target
from bench.functions import GRADIENT, VALUE, Function, Question, contestants

GRID = {"full": (1000, 1000), "tiny": (6, 7)}
STEPS = {"full": 10, "tiny": 3}
RATE, COURANT = 0.1, 0.2


@dataclass(frozen=True)
class Names:
    """What a library calls the few things that these steps need."""

    pad: Callable[[Any], Any]
    roll: Callable[[Any, int, int], Any]
    total: Callable[[Any], Any]


def neighbours(u: Any) -> Any:
    """The sum of the four neighbours of each inner point."""
    return u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2]


def heat(names: Names, steps: int, u: Any) -> Any:
    """Explicit Euler steps; the border stays."""
    for _ in range(steps):
        u = u + names.pad(RATE * (neighbours(u) - 4.0 * u[1:-1, 1:-1]))
    return u


def jacobi(names: Names, steps: int, f: Any) -> Any:
    """Iterations for the Poisson equation with source f and zero on the border."""
    u = names.pad(0.25 * f[1:-1, 1:-1])
    for _ in range(steps - 1):
        u = names.pad(0.25 * (neighbours(u) + f[1:-1, 1:-1]))
    return u


def wave(names: Names, steps: int, c: Any, u: Any) -> Any:
    """Second-order steps from rest, c being the squared Courant number at each point."""
    before = u
    for _ in range(steps):
        moved = c[1:-1, 1:-1] * (neighbours(u) - 4.0 * u[1:-1, 1:-1])
        u, before = 2.0 * u - before + names.pad(moved), u
    return u


def advection(names: Names, steps: int, v: Any, w: Any, u: Any) -> Any:
    """Upwind steps on a torus, for winds v and w that blow towards larger indices."""
    for _ in range(steps):
        u = u - v * (u - names.roll(u, 1, 0)) - w * (u - names.roll(u, 1, 1))
    return u


# By hand, in NumPy: the transposes of the steps, last step first.


def laplacian(u: Array) -> Array:
    return np.pad(neighbours(u) - 4.0 * u[1:-1, 1:-1], 1)


def spread(g: Array) -> Array:
    """The transpose of `neighbours`, of inner points g."""
    found = np.zeros((g.shape[0] + 2, g.shape[1] + 2))
    for rows, columns in ((2, 1), (0, 1), (1, 2), (1, 0)):
        found[rows : rows + g.shape[0], columns : columns + g.shape[1]] += g
    return found


def heat_by_hand(steps: int, u: Array) -> list[Array]:
    for _ in range(steps):
        u = u + RATE * laplacian(u)
    g = u
    for _ in range(steps):
        inner = RATE * g[1:-1, 1:-1]
        g = g + spread(inner) - 4.0 * np.pad(inner, 1)
    return [u, g]


def jacobi_by_hand(steps: int, f: Array) -> list[Array]:
    u, source = np.zeros_like(f), f[1:-1, 1:-1]
    for _ in range(steps):
        u = np.pad(0.25 * (neighbours(u) + source), 1)
    g, df = u, np.zeros_like(source)
    for _ in range(steps):
        inner = 0.25 * g[1:-1, 1:-1]
        df, g = df + inner, spread(inner)
    return [u, np.pad(df, 1)]


def wave_by_hand(steps: int, c: Array, u: Array) -> list[Array]:
    states = [u, u]
    for _ in range(steps):
        states.append(2.0 * states[-1] - states[-2] + c * laplacian(states[-1]))
    g, before, dc = states[-1], np.zeros_like(u), np.zeros_like(u)
    for state in states[-2:0:-1]:
        dc += g * laplacian(state)
        inner = (c * g)[1:-1, 1:-1]
        g, before = 2.0 * g + spread(inner) - 4.0 * np.pad(inner, 1) + before, -g
    return [states[-1], np.pad(dc[1:-1, 1:-1], 1)]


def advection_by_hand(steps: int, v: Array, w: Array, u: Array) -> list[Array]:
    states = [u]
    for _ in range(steps):
        u = states[-1]
        states.append(u - v * (u - np.roll(u, 1, 0)) - w * (u - np.roll(u, 1, 1)))
    g, dv, dw = states[-1], np.zeros_like(u), np.zeros_like(u)
    for u in states[-2::-1]:
        dv -= g * (u - np.roll(u, 1, 0))
        dw -= g * (u - np.roll(u, 1, 1))
        g = g - v * g + np.roll(v * g, -1, 0) - w * g + np.roll(w * g, -1, 1)
    return [states[-1], dv, dw]


@dataclass(frozen=True)
class Stencil:
    """`steps(names, count, *inputs)`; `by_hand(count, *inputs)` with the gradients by `by`."""

    steps: Callable[..., Any]
    by_hand: Callable[..., list[Array]]
    operands: tuple[str, ...]
    by: tuple[int, ...]


STENCILS = {
    "heat": Stencil(heat, heat_by_hand, ("u",), (0,)),
    "Jacobi": Stencil(jacobi, jacobi_by_hand, ("f",), (0,)),
    "wave": Stencil(wave, wave_by_hand, ("speed", "u"), (0,)),
    "advection": Stencil(advection, advection_by_hand, ("speed", "speed", "u"), (0, 1)),
}


def pytensor_pad(pt: Any, u: Any) -> Any:
    """PyTensor's own `pad` takes a minute to compile for each step."""
    rows, columns = u.type.shape
    return pt.set_subtensor(pt.zeros((rows + 2, columns + 2))[1:-1, 1:-1], u)


def function(stencil: Stencil, count: int, wants: str) -> Function:
    """The last state, or the half sum of its squares, in the names of each library."""

    def of(names: Callable[[Any], Names]) -> Callable[..., Any]:
        def definition(module: Any, *operands: Any) -> Any:
            called = names(module)
            last = stencil.steps(called, count, *operands)
            return last if wants == VALUE else 0.5 * called.total(last * last)

        return definition

    return Function(
        of(lambda np: Names(lambda u: np.pad(u, ((1, 1), (1, 1)), "constant"), np.roll, np.sum)),
        of(
            lambda torch: Names(
                lambda u: torch.nn.functional.pad(u, (1, 1, 1, 1)), torch.roll, torch.sum
            )
        ),
        of(lambda pt: Names(lambda u: pytensor_pad(pt, u), pt.roll, pt.sum)),
    )


def case(name: str, size: str, wants: str) -> Case:
    """Some steps of one kind, the state alone or with gradients."""
    stencil, steps = STENCILS[name], STEPS[size]

    def inputs() -> dict[str, Array]:
        rng = np.random.default_rng(0)
        made = {}
        for place, operand in enumerate(stencil.operands):
            values = rng.random(GRID[size])
            made[f"{operand}{place}"] = COURANT * values if operand == "speed" else values - 0.5
        return made

    def expected(inputs: Mapping[str, Array]) -> list[Array]:
        last, *gradients = stencil.by_hand(steps, *inputs.values())
        return [last] if wants == VALUE else [0.5 * np.sum(last * last), *gradients]

    def floor(inputs: Mapping[str, Array]) -> Prepared:
        grid = next(iter(inputs.values()))
        copy = floors.copying([grid])
        times = steps if wants == VALUE else 2 * steps

        def call() -> None:
            for _ in range(times):
                copy()

        return Prepared(lambda: expected(inputs), call)

    asks = Question(wants, () if wants == VALUE else stencil.by)
    return Case(
        name=f"{name}, {steps} steps" + ("" if wants == VALUE else ", gradients"),
        inputs=inputs,
        expected=expected,
        builders={**contestants(function(stencil, steps, wants), asks), "floor": floor},
        tolerance=1e-12,
        floor_label="a copy of the grid for each step",
        targets=(Target(times=3.0),),
    )


def cases(size: str) -> list[Case]:
    """Each kind of step, the state alone and with gradients."""
    return [case(name, size, wants) for name in STENCILS for wants in (VALUE, GRADIENT)]


def run(options: harness.Options) -> report.Report:
    """Run it."""
    return harness.race("stencil", cases(options.size), options)
