"""Tapes: patches, launches in order and in parts, and many kernels as one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_kernels import KERNELS, address_of, callback

from graphdl.kernels.cpu import pool, tape
from graphdl.kernels.cpu.tape import Tape, multi_table


def launches(*rows: tuple[int, np.ndarray, int, int]) -> Tape:
    return Tape(
        np.array([(kernel, table.ctypes.data, n, parts) for kernel, table, n, parts in rows]),
        keep=tuple(table for _, table, _, _ in rows),
    )


def chain(x: np.ndarray, steps: int, parts: list[int]) -> tuple[Tape, np.ndarray]:
    """A tape that applies `sum_back` again and again: each launch needs all of the one before."""
    buffers = np.zeros((steps + 1, len(x)), np.int64)
    buffers[0] = x
    tables = np.array(
        [(buffers[i].ctypes.data, buffers[i + 1].ctypes.data, len(x)) for i in range(steps)]
    )
    rows = [(KERNELS["sum_back"], tables[i], len(x), parts[i % len(parts)]) for i in range(steps)]
    return launches(*rows), buffers


def expected_chain(x: np.ndarray, steps: int) -> np.ndarray:
    for _ in range(steps):
        x = x + x[::-1]
    return x


@pytest.fixture(params=[1, 2, 4, 7])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = pool.num_threads()
    pool.start()
    pool.set_num_threads(request.param)
    yield request.param
    pool.set_num_threads(before)


def test_empty_tape_runs() -> None:
    tape.run(Tape(np.empty((0, 4), np.int64)))


@pytest.mark.parametrize(
    "parts",
    [[1], [2], [5], [1, 1, 3], [3, 1], [64], [1, 2, 1, 9, 1], [0], [3, 0, 2], [0, 1, 4, 1, 0]],
)
def test_launches_follow_each_other(threads: int, parts: list[int]) -> None:
    x = np.arange(37) * 3 - 20
    program, buffers = chain(x, 23, parts)
    for _ in range(20):
        buffers[1:] = -1
        tape.run(program)
        np.testing.assert_array_equal(buffers[-1], expected_chain(x, 23))


def test_every_iteration_runs_once(threads: int) -> None:
    for n, parts in ((1, 5), (3, 64), (1000, 7), (64, 64), (0, 4), (5, 2)):
        counts = np.zeros(n + 1, np.int64)
        program = launches((KERNELS["tally"], np.array([counts.ctypes.data]), n, parts))
        for i in range(1, 30):
            tape.run(program)
            assert (counts[:-1] == i).all()
        assert counts[-1] == 0


def test_long_tape_of_tiny_launches(threads: int) -> None:
    counts = np.zeros(16, np.int64)
    program = launches(*[(KERNELS["tally"], np.array([counts.ctypes.data]), 16, 4)] * 5000)
    tape.run(program)
    assert (counts == 5000).all()


def test_kernel_sees_the_bounds_that_the_abi_says() -> None:
    seen: list[tuple[int, int, int]] = []
    kernel = callback(lambda table, lo, hi: seen.append((table, lo, hi)))
    table = np.zeros(1, np.int64)
    tape.run(launches((address_of(kernel), table, 10, 1)))
    assert seen == [(table.ctypes.data, 0, 10)]
    seen.clear()
    tape.run(launches((address_of(kernel), table, 10, 4)))
    done = sorted((lo, hi) for _, lo, hi in seen)
    assert done in ([(0, 2), (2, 5), (5, 7), (7, 10)], [(0, 10)])  # the latter on one thread


def test_patches_write_addresses_before_the_launches() -> None:
    table = np.full(3, -1, np.int64)
    base = table.ctypes.data
    x, out = np.arange(8), np.zeros(8, np.int64)
    patches = np.array([[1, base + 8, 16], [0, base, 8], [0, base + 16, -4]])
    program = Tape(np.array([[KERNELS["add_one"], base, 4, 1]]), patches, (table,))
    tape.run(program, [x.ctypes.data, out.ctypes.data])
    assert table[2] == x.ctypes.data - 4
    np.testing.assert_array_equal(out, [0, 0, 2, 3, 4, 5, 0, 0])


def test_patch_of_a_missing_argument_is_an_error() -> None:
    table = np.zeros(2, np.int64)
    program = Tape(np.empty((0, 4), np.int64), np.array([[1, table.ctypes.data, 0]]), (table,))
    with pytest.raises(IndexError, match="names argument 1 of 1"):
        tape.run(program, [0])
    assert table[0] == 0


@pytest.mark.parametrize(
    ("rows", "patches", "message"),
    [
        (np.zeros((2, 3), np.int64), None, r"launches must be int64\[rows, 4\]"),
        (np.zeros((2, 4), np.int32), None, r"not int32\[2, 4\]"),
        (np.ones((4, 4), np.int64).T[::2], None, "C-contiguous"),
        (-np.ones((1, 4), np.int64), None, "fewer parts than none"),
        (np.ones((1, 4), np.int64) << 31, None, "at most"),
        (np.ones((1, 4), np.int64), np.zeros((1, 2), np.int64), "patches must be"),
    ],
)
def test_malformed_tapes_are_refused(
    rows: np.ndarray, patches: np.ndarray | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Tape(rows) if patches is None else Tape(rows, patches)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=20),
    cut=st.integers(1, 30),
)
def test_multi_runs_each_iteration_of_each_kernel_once(sizes: list[int], cut: int) -> None:
    counts = [np.zeros(n + 1, np.int64) for n in sizes]
    tables = [np.array([c.ctypes.data]) for c in counts]
    table, total = multi_table(
        [(KERNELS["tally"], t.ctypes.data, n) for t, n in zip(tables, sizes, strict=True)]
    )
    assert total == sum(sizes)
    tape.run(launches((tape.native_functions()["multi"], table, total, cut)))
    for count in counts:
        assert (count[:-1] == 1).all()
        assert count[-1] == 0


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=12),
    bounds=st.tuples(st.integers(0, 72), st.integers(0, 72)),
)
def test_multi_calls_no_kernel_outside_its_part(sizes: list[int], bounds: tuple[int, int]) -> None:
    lo, hi = sorted(min(bound, sum(sizes)) for bound in bounds)
    seen: list[int] = []
    starts = np.cumsum([0, *sizes])
    kernels = [
        callback(lambda table, a, b, start=start: seen.extend(range(start + a, start + b)))
        for start in starts[:-1].tolist()
    ]
    table, total = multi_table([(address_of(k), 0, n) for k, n in zip(kernels, sizes, strict=True)])
    whole = callback(lambda *_: None)
    type(whole)(tape.native_functions()["multi"])(table.ctypes.data, lo, hi)
    assert total == starts[-1]
    assert seen == list(range(lo, hi))


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    x = np.arange(1001) % 17
    before, found = pool.num_threads(), []
    pool.start()
    try:
        for n in (1, 2, 3, 8):
            pool.set_num_threads(n)
            program, buffers = chain(x, 11, [5, 3])
            tape.run(program)
            found.append(buffers[-1].tobytes())
    finally:
        pool.set_num_threads(before)
    assert len(set(found)) == 1
