"""npbench: published NumPy kernels as they are, forward and backward, beside NumPy, Numba and JAX.

graphdl and NumPy run the functions of `bench.kernels` unchanged, in-place updates and loops and
all; Numba compiles them unchanged where it can; JAX runs translations, since its arrays cannot be
written. Gradients are those of the sum of squares of all results by all arguments. All is float64.
The floor copies the arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from bench import floors, harness, placement, report
from bench.cases import Array, Case, Prepared
from bench.kernels import (
    arrays,
    isoneutral,
    ocean,
    ocean_in_jax,
    ocean_in_loops,
    seas,
    stencils,
    translated,
    turbulence,
)
from bench.peers import library

FLOOR_LABEL = "a copy of the arguments"
#: Of a central difference quotient along a direction: about the cube root of the rounding error.
STEP = 1e-6


@dataclass(frozen=True)
class Kernel:
    """A kernel, its translations, and the shapes of its arguments by size.

    `numba` is what Numba compiles: the kernel itself, a simple translation, or None. `static`
    arguments come before the arrays. Of a kernel that `changes` its arguments all of them are
    results, or what `gives` makes of what it returns and of them. `make` makes the arguments of a
    shape, where they have to be more than numbers between 0 and 1.
    """

    own: Callable[..., Any]
    jax: Callable[..., Any]
    numba: Callable[..., Any] | None
    shapes: Mapping[str, Sequence[tuple[int, ...]]]
    static: tuple[int, ...] = ()
    changes: bool = False
    gives: Callable[[Any, tuple[Any, ...]], Any] | None = None
    make: Callable[[tuple[int, ...]], list[Array]] | None = None
    #: The gradient is of so many results, of all if None.
    differentiable: int | None = None

    def returning(self, kernel: Callable[..., Any]) -> Callable[..., Any]:
        """A form of the kernel as a function of arrays that returns arrays."""

        def f(*arguments: Any) -> Any:
            result = kernel(*self.static, *arguments)
            if self.gives is not None:
                return self.gives(result, arguments)
            return arguments if self.changes else result

        return f

    def copying(self, kernel: Callable[..., Any]) -> Callable[..., Any]:
        """The same, for arrays that are to stay as they are."""
        f = self.returning(kernel)
        return (lambda *arguments: f(*(x.copy() for x in arguments))) if self.changes else f


STEPS = 10
#: Cells of the ocean to the east, to the north and upwards.
SEA = (104, 104, 26)


def nbody(mass: Any, position: Any, velocity: Any) -> Any:
    return arrays.nbody(mass, position.copy(), velocity.copy(), STEPS, 0.01, 1.0, 0.1)


KERNELS: dict[str, Kernel] = {
    "jacobi_2d": Kernel(
        stencils.jacobi_2d,
        partial(translated.jacobi_2d, STEPS),
        stencils.jacobi_2d,
        {"full": [(700, 700)] * 2, "tiny": [(9, 8)] * 2},
        (STEPS,),
        changes=True,
    ),
    "heat_3d": Kernel(
        stencils.heat_3d,
        partial(translated.heat_3d, STEPS),
        stencils.heat_3d,
        {"full": [(70, 70, 70)] * 2, "tiny": [(6, 5, 7)] * 2},
        (STEPS,),
        changes=True,
    ),
    "fdtd_2d": Kernel(
        stencils.fdtd_2d,
        partial(translated.fdtd_2d, STEPS),
        stencils.fdtd_2d,
        {"full": [(400, 500)] * 3 + [(STEPS,)], "tiny": [(7, 8)] * 3 + [(STEPS,)]},
        (STEPS,),
        changes=True,
    ),
    "hdiff": Kernel(
        stencils.hdiff,
        translated.hdiff,
        stencils.hdiff,
        {
            "full": [(132, 132, 80), (128, 128, 80), (128, 128, 80)],
            "tiny": [(8, 9, 3), (4, 5, 3), (4, 5, 3)],
        },
        changes=True,
    ),
    "arc_distance": Kernel(
        arrays.arc_distance,
        translated.arc_distance,
        arrays.arc_distance,
        {"full": [(1_000_000,)] * 4, "tiny": [(10,)] * 4},
    ),
    "go_fast": Kernel(
        arrays.go_fast,
        translated.go_fast,
        arrays.go_fast,
        {"full": [(500, 500)], "tiny": [(5, 5)]},
    ),
    "softmax": Kernel(
        arrays.softmax,
        translated.softmax,
        translated.softmax_in_loops,
        {"full": [(16, 16, 128, 128)], "tiny": [(2, 2, 3, 4)]},
    ),
    "mlp": Kernel(
        arrays.mlp,
        translated.mlp,
        None,
        {
            "full": [(64, 300), (300, 1000), (1000,), (1000, 300), (300,), (300, 10), (10,)],
            "tiny": [(3, 4), (4, 5), (5,), (5, 3), (3,), (3, 2), (2,)],
        },
    ),
    "conv2d_bias": Kernel(
        arrays.conv2d_bias,
        translated.conv2d_bias,
        None,
        {
            "full": [(8, 16, 16, 3), (5, 5, 3, 16), (16,)],
            "tiny": [(2, 5, 4, 2), (3, 3, 2, 2), (2,)],
        },
    ),
    "nbody": Kernel(
        nbody,
        lambda *state: translated.nbody(*state, STEPS, 0.01, 1.0, 0.1),
        None,
        {"full": [(100, 1), (100, 3), (100, 3)], "tiny": [(4, 1), (4, 3), (4, 3)]},
        differentiable=1,  # the potential has no derivative where a body meets itself
    ),
    "equation_of_state": Kernel(
        ocean.density,
        ocean_in_jax.density,
        ocean.density,
        {"full": [SEA], "tiny": [(8, 7, 6)]},
        make=seas.density_inputs,
    ),
    "isoneutral_mixing": Kernel(
        isoneutral.isoneutral_mixing,
        ocean_in_jax.isoneutral_mixing,
        ocean_in_loops.isoneutral_mixing,
        {"full": [SEA], "tiny": [(8, 7, 6)]},
        changes=True,
        gives=lambda result, arguments: arguments[16:],
        make=seas.isoneutral_inputs,
    ),
    "turbulent_kinetic_energy": Kernel(
        turbulence.turbulent_kinetic_energy,
        ocean_in_jax.turbulent_kinetic_energy,
        ocean_in_loops.turbulent_kinetic_energy,
        {"full": [SEA], "tiny": [(8, 7, 6)]},
        changes=True,
        gives=lambda result, arguments: (result, *arguments[-2:]),
        make=seas.turbulence_inputs,
    ),
}


def inputs(kernel: Kernel, size: str) -> dict[str, Array]:
    """The arguments x0, x1, ..., between 0 and 1 unless the kernel makes them, and for each of
    floats a direction d0, d1, ...
    """
    rng = np.random.default_rng(0)
    if kernel.make is None:
        taken = [rng.random(shape) for shape in kernel.shapes[size]]
    else:
        taken = kernel.make(kernel.shapes[size][0])
    made = {f"x{i}": x for i, x in enumerate(taken)}
    directions = {f"d{i}": _direction(x, rng) for i, x in enumerate(taken) if x.dtype.kind == "f"}
    return {**made, **directions}


#: Elements that a direction has, at most. Some kernels jump (a limiter, a condition): along a
#: direction of millions of elements a difference quotient would meet a jump.
ELEMENTS = 300


def _direction(x: Array, rng: np.random.Generator) -> Array:
    """A direction of the size of the numbers, in some of the elements."""
    found = np.zeros(x.size)
    chosen = rng.choice(x.size, min(ELEMENTS, x.size), replace=False)
    found[chosen] = rng.normal(size=chosen.size) * (x.std() or 1.0)
    return found.reshape(x.shape)


def varied(given: Mapping[str, Array]) -> tuple[int, ...]:
    """The numbers of the arguments that the gradient is by: those of floats."""
    return tuple(int(name[1:]) for name in given if name[0] == "d")


def arguments(given: Mapping[str, Array], letter: str = "x") -> list[Array]:
    return [value for name, value in given.items() if name[0] == letter]


def _leaves(result: Any) -> list[Any]:
    return list(result) if isinstance(result, (tuple, list)) else [result]


def total(kernel: Kernel, results: Any) -> Any:
    """What the gradient is of: the sum of squares of the results."""
    return sum((y * y).sum() for y in _leaves(results)[: kernel.differentiable])


def expected_values(kernel: Kernel) -> Callable[[Mapping[str, Array]], list[Array]]:
    return lambda given: _leaves(kernel.copying(kernel.own)(*arguments(given)))


def expected_slope(kernel: Kernel) -> Callable[[Mapping[str, Array]], list[Array]]:
    """The derivative along the directions, as a quotient of NumPy's values."""

    def quotient(given: Mapping[str, Array]) -> list[Array]:
        def at(step: float) -> list[Any]:
            moved = [x.copy() for x in arguments(given)]
            for number, direction in zip(varied(given), arguments(given, "d"), strict=True):
                moved[number] += step * direction
            return _leaves(kernel.returning(kernel.own)(*moved))[: kernel.differentiable]

        # differences of squares one by one: of their sum, which is large, few digits would be left
        pairs = zip(at(STEP), at(-STEP), strict=True)
        return [np.asarray(sum(((y - z) * (y + z)).sum() for y, z in pairs) / (2 * STEP))]

    return quotient


def slope(gradients: Sequence[Any], given: Mapping[str, Array]) -> list[Any]:
    directions = arguments(given, "d")
    return [sum(np.vdot(placement.host(g), d) for g, d in zip(gradients, directions, strict=True))]


def forward_builders(kernel: Kernel) -> dict[str, Callable[[Mapping[str, Any]], Prepared]]:
    def with_graphdl(given: Mapping[str, Any]) -> Prepared:

        f, args = placement.compiled(kernel.returning(kernel.own)), placement.put(arguments(given))
        return Prepared(lambda: _leaves(f(*args)), lambda: f(*args), lambda: f.lower(*args))

    def with_numpy(given: Mapping[str, Any]) -> Prepared:
        f, args = kernel.copying(kernel.own), arguments(given)
        return Prepared(lambda: _leaves(f(*args)), lambda: f(*args))

    def with_numba(given: Mapping[str, Any]) -> Prepared:
        f, args = kernel.copying(library("numba").njit(kernel.numba)), arguments(given)
        return Prepared(lambda: _leaves(f(*args)), lambda: f(*args))

    def with_jax(given: Mapping[str, Any]) -> Prepared:
        jax = _jax()
        f = jax.jit(kernel.jax)
        args = [jax.numpy.asarray(x) for x in arguments(given)]
        return Prepared(lambda: _leaves(f(*args)), lambda: jax.block_until_ready(f(*args)))

    floor = _floor(expected_values(kernel))
    builders = {"graphdl": with_graphdl, "jax": with_jax, "numpy": with_numpy, "floor": floor}
    return {**builders, "numba": with_numba} if kernel.numba is not None else builders


def gradient_builders(kernel: Kernel) -> dict[str, Callable[[Mapping[str, Any]], Prepared]]:
    def with_graphdl(given: Mapping[str, Any]) -> Prepared:
        import graphdl as gd

        args = placement.put(arguments(given))
        own = kernel.returning(kernel.own)

        def loss(*args: Any) -> Any:
            return total(kernel, own(*args))

        f = placement.compiled(gd.grad(loss, argnums=varied(given)))
        return Prepared(lambda: slope(f(*args), given), lambda: f(*args), lambda: f.lower(*args))

    def with_jax(given: Mapping[str, Any]) -> Prepared:
        jax = _jax()
        args = [jax.numpy.asarray(x) for x in arguments(given)]

        def loss(*args: Any) -> Any:
            return total(kernel, kernel.jax(*args))

        f = jax.jit(jax.grad(loss, argnums=varied(given)))
        return Prepared(lambda: slope(f(*args), given), lambda: jax.block_until_ready(f(*args)))

    return {"graphdl": with_graphdl, "jax": with_jax, "floor": _floor(expected_slope(kernel))}


def _jax() -> Any:
    jax = library("jax")
    jax.config.update("jax_enable_x64", True)
    library("jax.numpy")
    return jax


def _floor(
    expected: Callable[[Mapping[str, Array]], list[Array]],
) -> Callable[[Mapping[str, Any]], Prepared]:
    def copies(given: Mapping[str, Any]) -> Prepared:
        if placement.on_gpu():
            return Prepared(lambda: expected(given), floors.copying(arguments(given)))
        pairs = [(np.empty_like(x), x) for x in arguments(given)]

        def call() -> None:
            for target, source in pairs:
                np.copyto(target, source)

        return Prepared(lambda: expected(given), call)

    return copies


def cases(size: str) -> list[Case]:
    """Each kernel forward, and its gradient."""
    found = []
    for name, kernel in KERNELS.items():
        for what, expected, builders in (
            ("", expected_values(kernel), forward_builders(kernel)),
            (", gradient", expected_slope(kernel), gradient_builders(kernel)),
        ):
            found.append(
                Case(
                    name=f"{name}{what}",
                    inputs=lambda kernel=kernel: inputs(kernel, size),  # type: ignore[misc]
                    expected=expected,
                    builders=builders,
                    tolerance=1e-5 if what else 1e-9,
                    floor_label=FLOOR_LABEL,
                )
            )
    return found


def run(options: harness.Options) -> report.Report:
    """Run it."""
    return harness.race("npbench", cases(options.size), options)
