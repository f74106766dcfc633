"""The memory plan: no live value is overwritten, memory is used again, calls make results only."""

from __future__ import annotations

import gc
import itertools
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphdl as gd
from graphdl.kernels import memory
from graphdl.kernels.cpu import pool
from graphdl.kernels.program import Buffer, Program
from graphdl.kernels.schedule import levels
from tests.programs import bits, check_compiled, program_of
from tests.random_graphs import program


def nbytes(value: Any) -> int:
    return value.nbytes if isinstance(value, Buffer) else value.type.nbytes


def check_plan(made: Program, donated: tuple[int, ...] = ()) -> None:
    """Follow the launches in the order in which they run, and who owns each byte of memory.

    What a launch reads must still be there whole. Launches of one level run in any order: none may
    write where another one reads or writes.
    """
    plan = memory.plan(made, donated)
    owner: dict[tuple[str, int, int], object] = {}

    def cells(value: Any) -> list[tuple[str, int, int]]:
        place = plan.places[value]
        return [(place.kind, place.index, place.offset + i) for i in range(nbytes(value))]

    for value in (*made.graph.inputs, *made.constants):
        owner.update(dict.fromkeys(cells(value), value))
    computed: set[object] = set()
    order = levels(made.launches, plan)
    assert sorted(i for level in order for i in level) == list(range(len(made.launches)))
    for level in order:
        written: set[tuple[str, int, int]] = set()
        for i in level:
            launch = made.launches[i]
            mine = {cell for value in launch.writes for cell in cells(value)}
            others = {
                cell
                for j in level
                if j != i
                for value in made.launches[j].reads
                for cell in cells(value)
            }
            assert not mine & others, "a launch writes what one beside it reads"
            assert not mine & written, "two launches of one level write one place"
            written |= mine
        for i in level:
            launch = made.launches[i]
            for value in launch.reads:
                here = {owner.get(cell) for cell in cells(value)}
                for one in here - {value}:  # an array of which this launch replaces what it reads
                    assert (one, value) in launch.in_place, f"{value} is gone"
        for i in level:
            for value in made.launches[i].writes:
                assert plan.places[value].kind != "constant"
                if plan.places[value].kind == "argument":
                    assert plan.places[value].index in donated
                if plan.places[value].kind == "arena":
                    assert plan.places[value].offset + nbytes(value) <= plan.arena_bytes
                owner.update(dict.fromkeys(cells(value), value))
                computed.add(value)
    for value in made.graph.outputs:
        assert value.type.size == 0 or value in computed
        assert all(owner.get(cell) is value for cell in cells(value)), f"result {value} is gone"


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 2**32), st.integers(5, 30), st.booleans())
def test_no_live_value_is_overwritten(seed, length, give):
    rng = np.random.default_rng(seed)
    f = program(lambda n: int(rng.integers(n)), length)
    donated = tuple(range(len(f.inputs))) if give else ()
    check_plan(program_of(gd.trace(f, *f.inputs)), donated)


def mlp(parameters, x, y):
    for w, b in parameters[:-1]:
        x = np.maximum(x @ w + b, 0)
    w, b = parameters[-1]
    return np.mean((x @ w + b - y) ** 2)


def step(parameters, x, y):
    value, gradient = gd.value_and_grad(mlp)(parameters, x, y)
    return value, [
        tuple(p - 0.1 * g for p, g in zip(layer, slopes, strict=True))
        for layer, slopes in zip(parameters, gradient, strict=True)
    ]


def parameters(*widths: int) -> list[tuple[Any, Any]]:
    rng = np.random.default_rng(0)
    return [
        (rng.normal(size=(m, n)).astype(np.float32), np.zeros(n, np.float32))
        for m, n in itertools.pairwise(widths)
    ]


def batch(size: int, m: int, n: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(size)
    return rng.normal(size=(size, m)).astype(np.float32), np.ones((size, n), np.float32)


def test_the_plan_of_a_training_step():
    args = (parameters(12, 20, 20, 3), *batch(9, 12, 3))
    made = program_of(gd.trace(step, *args))
    check_plan(made)
    check_plan(made, tuple(range(6)))
    plan = memory.plan(made)
    assert plan.arena_bytes < plan.values_bytes, "values share memory"


def test_a_chain_of_kernels_needs_two_places():
    """Each running sum needs the one before and nothing else."""

    def f(x):
        for _ in range(10):
            x = np.cumsum(x)
        return x

    executable = gd.compile(f).lower(np.ones(1000))
    assert executable.memory.arena_bytes <= 2 * 8064


def test_values_are_computed_in_place():
    """tanh of a running sum takes the place of the sum."""

    def f(x):
        return np.cumsum(np.tanh(np.cumsum(np.tanh(np.cumsum(x)))))

    executable = check_compiled(f, np.linspace(-1, 1, 1000), python=False)
    made = program_of(executable.graph)
    plan = memory.plan(made)
    pairs = [pair for launch in made.launches for pair in launch.in_place if pair[0] in plan.places]
    assert any(plan.places[a] == plan.places[b] for a, b in pairs)
    assert executable.memory.arena_bytes <= 2 * 8064


def test_rows_are_not_computed_in_place_of_what_is_read_later():
    def f(x):
        y = np.cumsum(x, axis=0)
        z = np.exp(y)
        return np.cumsum(z, axis=0), np.sum(y * z, axis=0), np.sum(y * y)

    for shape in ((5, 1), (1, 5), (5, 4)):
        check_compiled(f, np.linspace(0, 1, shape[0] * shape[1]).reshape(shape), ulps=32)


# --- donation -------------------------------------------------------------------------------------


def test_a_donated_argument_becomes_the_result():
    f = gd.compile(lambda x, y: x * 2 + y, donate=0)
    for _ in range(3):
        x, y = np.arange(5.0), np.ones(5)
        result = f(x, y)
        assert result is x
        np.testing.assert_array_equal(result, np.arange(5.0) * 2 + 1)
        np.testing.assert_array_equal(y, np.ones(5))


def test_donated_parameters_are_updated_in_place():
    args = (parameters(12, 20, 3), *batch(9, 12, 3))
    _, want = gd.compile(step)(*args)
    f = gd.compile(step, donate=0)
    for _ in range(2):
        given = [tuple(p.copy() for p in layer) for layer in args[0]]
        before = [p for layer in given for p in layer]
        _, got = f(given, *args[1:])
        after = [p for layer in got for p in layer]
        assert all(any(p is q for q in before) for p in after)
        assert bits(got) == bits(want)


def test_donated_arguments_that_are_swapped():
    f = gd.compile(lambda x, y: (y, x), donate=(0, 1))
    for _ in range(2):
        x, y = np.zeros(3), np.ones(3)
        a, b = f(x, y)
        np.testing.assert_array_equal(a, np.ones(3))
        np.testing.assert_array_equal(b, np.zeros(3))
        assert not np.shares_memory(a, b)


def test_a_donated_argument_that_is_read_after_the_result_is_written():
    def f(x, y):
        z = np.cumsum(x + y)
        return z, np.sum(z * x), x[::-1] + z

    x, y = np.arange(6.0), np.ones(6)
    want = f(x, y)
    for got, one in zip(gd.compile(f, donate=0)(x.copy(), y), want, strict=True):
        np.testing.assert_array_equal(got, one)


@pytest.mark.parametrize("calls", [1, 2])
def test_a_donated_argument_that_cannot_be_written_is_copied(calls):
    f = gd.compile(lambda x, y: x - y, donate=0)
    read_only = np.arange(4.0)
    read_only.flags.writeable = False
    shared = np.arange(8.0)
    for _ in range(calls):
        np.testing.assert_array_equal(f(read_only, np.ones(4)), np.arange(4.0) - 1)
        np.testing.assert_array_equal(f(shared[:4], shared[:4]), np.zeros(4))
        np.testing.assert_array_equal(f(shared[1:5], shared[:4]), np.ones(4))
    np.testing.assert_array_equal(read_only, np.arange(4.0))
    np.testing.assert_array_equal(shared, np.arange(8.0))


def test_a_donated_argument_of_another_layout():
    f = gd.compile(lambda x: x * 2, donate=0)
    x = np.arange(6.0).reshape(2, 3)
    for _ in range(2):
        np.testing.assert_array_equal(f(x.T), x.T * 2)
    np.testing.assert_array_equal(x, np.arange(6.0).reshape(2, 3))


# --- steady state ---------------------------------------------------------------------------------


def test_a_call_allocates_its_results_only():
    """Traced memory of a thousand calls: results that are dropped at once, and nothing else."""
    args = (parameters(12, 20, 3), *batch(9, 12, 3))
    f = gd.compile(step)
    for _ in range(3):
        f(*args)
    results = sum(len(one) for one in bits(f(*args)))
    gc.collect()
    tracemalloc.start()
    try:
        start = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for _ in range(1000):
            f(*args)
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert now - start < 2000
    # headers of the arrays, their shapes, and the lists and tuples that hold them
    assert peak - start < results + 4000


def test_arguments_are_not_modified():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 6))
    y = x.copy()

    def f(x):
        z = x * 2
        return z, np.cumsum(z), np.sum(np.exp(z), axis=0), x @ x, x.T

    f = gd.compile(f)
    for _ in range(3):
        f(x)
        np.testing.assert_array_equal(x, y)


# --- the same bits --------------------------------------------------------------------------------


def work(x, w):
    """Reductions of all kinds and products, large enough to be shared by threads."""
    y = np.tanh(x @ w)
    e = np.exp(y - np.max(y, axis=1, keepdims=True))
    return (
        np.sum(y, axis=0),
        np.sum(y),
        e / np.sum(e, axis=1, keepdims=True),
        np.sum(y * y, axis=1),
        y.T @ x,
        np.max(y, axis=0),
    )


def operands() -> tuple[Any, Any]:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(700, 130)).astype(np.float32)
    return x, rng.normal(size=(130, 90)).astype(np.float32)


def digest() -> str:
    """What a process computes, as text."""
    import hashlib

    return hashlib.sha256(b"".join(bits(gd.compile(work)(*operands())))).hexdigest()


def test_one_thread_or_two_compute_the_same_bits():
    f = gd.compile(work)
    before = pool.num_threads()
    try:
        gd.set_num_threads(1)
        one = bits(f(*operands()))
        for _ in range(5):
            gd.set_num_threads(2)
            assert bits(f(*operands())) == one
    finally:
        gd.set_num_threads(before)


def test_another_process_computes_the_same_bits():
    root = Path(__file__).parent.parent
    code = "from tests.test_memory import digest; print(digest())"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == digest()
