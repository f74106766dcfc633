"""Property tests: random graphs compiled, interpreted and run by NumPy are the same, to the bit.

`pytest --hypothesis-seed` and `GRAPHDL_TEST_EXAMPLES` try others, and more of them.
"""

from __future__ import annotations

import os
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import graphdl as gd
from graphdl.kernels import nest_launch
from graphdl.kernels.cpu import build
from tests.programs import assert_same, run_in_python, run_native, unfused
from tests.random_graphs import Program, program

EXAMPLES = int(os.environ.get("GRAPHDL_TEST_EXAMPLES", "0"))


def quickly(examples: int) -> Any:
    return settings(
        max_examples=EXAMPLES or examples,
        deadline=None,
        derandomize=not EXAMPLES,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def programs(draw: Any, length: int) -> Program:
    return program(lambda n: draw(st.integers(0, n - 1)), length)


def expected(f: Program) -> tuple[Any, ...]:
    with np.errstate(all="ignore"):
        return f(*f.inputs)


def check(f: Program, results: Any) -> None:
    for got, want in zip(results, expected(f), strict=True):
        assert_same(got, want)


@quickly(60)
@given(programs(12))
def test_the_interpreter_is_numpy(f):
    check(f, gd.trace(f, *f.inputs).evaluate(*f.inputs))


@quickly(40)
@given(programs(8))
def test_compiled_is_numpy(f):
    before = [x.copy() for x in f.inputs]
    compiled = gd.compile(f)
    check(f, compiled(*f.inputs))
    check(f, compiled(*f.inputs))
    for x, y in zip(f.inputs, before, strict=True):
        np.testing.assert_array_equal(x, y)


@quickly(15)
@given(programs(25))
def test_larger_programs(f):
    check(f, gd.compile(f)(*f.inputs))


@quickly(25)
@given(programs(8))
def test_blocks_and_threads(f):
    """Blocks of a few elements, and every launch shared by threads."""
    with (
        mock.patch.object(nest_launch, "BLOCK", 8),
        mock.patch.object(nest_launch, "MOST_PARTIALS", 3),
        mock.patch.object(build, "is_worth_sharing", return_value=True),
    ):
        check(f, gd.compile(f)(*f.inputs))


@quickly(25)
@given(programs(8))
def test_without_fusion(f):
    check(f, run_native(gd.trace(f, *f.inputs), f.inputs, unfused))


@quickly(40)
@given(programs(8))
def test_the_text_as_python_stays_in_its_arrays(f):
    check(f, run_in_python(gd.trace(f, *f.inputs), f.inputs))


#: Functions of two matrices of one shape, and of a square one that they can be multiplied with.
SMOOTH = (
    lambda a, b, w: np.tanh(a) * b,
    lambda a, b, w: np.exp(-a * a) + b,
    lambda a, b, w: a - np.mean(b, axis=1, keepdims=True),
    lambda a, b, w: np.sin(a + b) / (2 + np.cos(a)),
    lambda a, b, w: np.tanh(a @ w) - b,
    lambda a, b, w: np.log1p(np.exp(a)) - np.max(b, axis=0),
    lambda a, b, w: np.sqrt(1 + a * a) / (1 + np.sum(b * b, axis=0)),
    lambda a, b, w: a / np.sqrt(np.var(b, axis=1, keepdims=True) + 1),
    lambda a, b, w: 1 / (1 + np.exp(-a)) + np.sum(a * b) / 30,
)


@pytest.mark.parametrize("seed", range(6))
def test_smooth_functions_and_their_gradients(seed):
    """Results that round differently: compared with a tolerance."""
    rng = np.random.default_rng(seed)
    x, w = rng.normal(size=(5, 6)), rng.normal(size=(6, 6))
    steps = [(*rng.integers(1, 4, 2), SMOOTH[rng.integers(len(SMOOTH))]) for _ in range(12)]

    def f(x, w):
        values = [x, w[:5], x + w[:5]]
        for i, j, step in steps:
            values.append(step(values[-i], values[-j], w))
        return values[-1], np.sum(values[-2] * values[-3])

    both = gd.value_and_grad(lambda x, w: f(x, w)[1], argnums=(0, 1))
    for one in (gd.trace(f, x, w), gd.trace(both, x, w)):
        want = gd.trees.leaves_of(one.evaluate(x, w))
        for got, expect in zip(run_native(one, [x, w]), want, strict=True):
            np.testing.assert_allclose(got, expect, rtol=1e-9, atol=1e-9)
