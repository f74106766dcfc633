"""The benchmark of published kernels: translations and oracles agree with the kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench import npbench
from bench.cases import largest_difference


@pytest.mark.parametrize("name", npbench.KERNELS)
def test_the_translation_for_jax_is_the_kernel(name: str) -> None:
    jax = pytest.importorskip("jax")
    kernel = npbench.KERNELS[name]
    given = npbench.inputs(kernel, "tiny")
    args = npbench.arguments(given)
    with jax.enable_x64() if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
        got = jax.jit(kernel.jax)(*map(jax.numpy.asarray, args))
    results: Any = got if isinstance(got, tuple) else [got]
    assert largest_difference(results, npbench.expected_values(kernel)(given)) < 1e-12


def test_graphdl_and_numpy_are_right_and_change_no_argument() -> None:
    cases = {case.name: case for case in npbench.cases("tiny")}
    assert len(cases) == 2 * len(npbench.KERNELS)
    for name in ("hdiff", "hdiff, gradient", "go_fast"):
        case = cases[name]
        given = case.inputs()
        before = {key: np.array(x) for key, x in given.items()}
        for contestant in ("graphdl", "numpy", "floor"):
            if contestant in case.builders:
                prepared = case.builders[contestant](given)
                wanted = case.expected(given)
                assert largest_difference(prepared.results(), wanted) < case.tolerance
                prepared.call()
        for key, x in before.items():
            np.testing.assert_array_equal(given[key], x)
