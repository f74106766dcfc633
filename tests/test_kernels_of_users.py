"""Published kernels in plain NumPy, traced as they are: values as in NumPy, gradients by slopes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphdl as gd
from bench.kernels import arrays, ocean, stencils

RNG = np.random.default_rng(0)


def changed(kernel: Callable[..., None], *static: Any) -> Callable[..., Any]:
    """A kernel that changes its arguments, as a function that returns them."""

    def f(*arguments: Any) -> Any:
        kernel(*static, *arguments)
        return arguments

    return f


def nbody(mass: Any, position: Any, velocity: Any) -> Any:
    return arrays.nbody(mass, position, velocity, 3, 0.01, 1.0, 0.1)


def kinetic(mass: Any, position: Any, velocity: Any) -> Any:
    return nbody(mass, position, velocity)[0]


WATER = RNG.random((3, 4, 6)) > 0.2
GRID = RNG.random((2, 9, 8))
CUBE = RNG.random((2, 6, 5, 7))
KERNELS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "jacobi_2d": (changed(stencils.jacobi_2d, 4), tuple(GRID)),
    "heat_3d": (changed(stencils.heat_3d, 3), tuple(CUBE)),
    "fdtd_2d": (changed(stencils.fdtd_2d, 3), (*GRID, RNG.random((9, 8)), RNG.random(3))),
    "hdiff": (
        changed(stencils.hdiff),
        (RNG.random((9, 8, 3)), np.zeros((5, 4, 3)), RNG.random((5, 4, 3))),
    ),
    "arc_distance": (arrays.arc_distance, tuple(RNG.random((4, 12)))),
    "go_fast": (arrays.go_fast, (RNG.random((6, 6)),)),
    "softmax": (arrays.softmax, (RNG.random((2, 3, 4, 5)),)),
    "mlp": (
        arrays.mlp,
        tuple(RNG.random(s) - 0.5 for s in ((4, 6), (6, 5), 5, (5, 7), 7, (7, 3), 3)),
    ),
    "conv2d_bias": (
        arrays.conv2d_bias,
        (RNG.random((2, 5, 6, 3)), RNG.random((3, 3, 3, 2)), RNG.random(2)),
    ),
    "density": (
        ocean.density,
        tuple(RNG.uniform(*r, (4, 5)) for r in ((30, 37), (0, 25), (0, 1000))),
    ),
    "mix_columns": (
        lambda e, v, f: ocean.mix_columns(e, v, f - 0.3, WATER, 0.5, 0.1),
        tuple(RNG.random((3, 3, 4, 6))),
    ),
    "nbody": (nbody, (RNG.random((5, 1)) + 1, RNG.normal(size=(5, 3)), RNG.normal(size=(5, 3)))),
}


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_compiles_as_it_is(name):
    f, arguments = KERNELS[name]
    copies = [np.array(x) for x in arguments]
    want = f(*[np.array(x) for x in arguments])
    got = gd.compile(f)(*arguments)
    for one, other in zip(_leaves(got), _leaves(want), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-13)
    for one, other in zip(arguments, copies, strict=True):
        np.testing.assert_array_equal(one, other, err_msg="an argument was modified")


def _leaves(result: Any) -> list[Any]:
    return list(result) if isinstance(result, tuple) else [result]


def test_the_density_of_seawater_is_the_published_one():
    """The check value that the TEOS-10 toolbox documents for its 48-term equation."""
    density = gd.compile(ocean.density)(34.7118, 28.8099, 10.0)
    assert float(density) == pytest.approx(1021.8404465661, abs=1e-10)


@pytest.mark.parametrize("name", KERNELS)
def test_gradients_of_a_kernel(name):
    f, arguments = KERNELS[name]
    if name == "nbody":  # the potential has no derivative where a body meets itself
        f = kinetic
    gd.check_grads(f, *arguments, order=1)
