"""BLAS by address: the routines compute, and the library's threads are the user's again after."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
from native_kernels import I8, address_of, callback, in_new_process

from graphdl.kernels.cpu import blas
from graphdl.kernels.cpu.entry import ArraySpec, Constant, ProgramSpec, build
from graphdl.kernels.cpu.tape import Tape

LIBRARIES = {"process": blas.library, "scipy": blas._scipy_blas}


@pytest.fixture(params=LIBRARIES.values(), ids=LIBRARIES)
def library(request: pytest.FixtureRequest) -> blas.Blas:
    found: blas.Blas = request.param()
    return found


def call(library: blas.Blas, name: str, *arguments: Any) -> None:
    """Call a Fortran routine: ints, floats, characters and arrays, all by address."""
    integer = {32: ctypes.c_int32, 64: ctypes.c_int64}[library.integer_bits]
    real = {"s": ctypes.c_float, "d": ctypes.c_double}[name[0]]

    def by_address(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return ctypes.c_void_p(value.ctypes.data)
        if isinstance(value, str):
            return ctypes.c_char_p(value.encode())
        return ctypes.byref(real(value) if isinstance(value, float) else integer(value))

    function = ctypes.CFUNCTYPE(None)(library.addresses[name])
    function.argtypes = [ctypes.c_void_p] * len(arguments)
    function(*map(by_address, arguments))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_routines_compute(library: blas.Blas, dtype: str) -> None:
    """Every routine on small whole numbers, whose products are exact."""
    kind = {"f4": "s", "f8": "d"}[dtype]
    a = (np.arange(12).reshape(3, 4) % 5).astype(dtype)
    b = (np.arange(20).reshape(4, 5) % 7).astype(dtype)
    c = np.ones((3, 5), dtype)
    # Row-major C = 2 A B + 3 C is column-major C' = 2 B' A' + 3 C'.
    call(library, kind + "gemm", "N", "N", 5, 3, 4, 2.0, b, 5, a, 4, 3.0, c, 5)
    np.testing.assert_array_equal(c, 2 * (a @ b) + 3)
    call(library, kind + "gemm", "T", "N", 3, 3, 4, 1.0, a, 4, a, 4, 0.0, c, 5)
    np.testing.assert_array_equal(c[:, :3], a @ a.T)
    x, y = np.arange(4).astype(dtype), np.ones(3, dtype)
    call(library, kind + "gemv", "T", 4, 3, 2.0, a, 4, x, 1, 1.0, y, 1)
    np.testing.assert_array_equal(y, 2 * (a @ x) + 1)
    rank_one = np.zeros((3, 4), dtype)
    call(library, kind + "ger", 4, 3, 1.0, x, 1, y, 1, rank_one, 4)
    np.testing.assert_array_equal(rank_one, np.outer(y, x))
    square = np.zeros((3, 3), dtype)
    call(library, kind + "syrk", "U", "T", 3, 4, 1.0, a, 4, 0.0, square, 3)
    np.testing.assert_array_equal(np.tril(square), np.tril(a @ a.T))


def test_width_of_integers_is_right(library: blas.Blas) -> None:
    """A leading dimension of 2**32 is 0 to 32 bits: an error, and the matrix stays as it was."""
    one, leading = ctypes.c_int64(1), ctypes.c_int64(1 << 32)
    x, matrix, factor = np.array([3.0]), np.zeros(1), ctypes.c_double(1.0)
    vector = (ctypes.c_void_p(x.ctypes.data), ctypes.byref(one))
    target = (ctypes.c_void_p(matrix.ctypes.data), ctypes.byref(leading))
    dger = ctypes.CFUNCTYPE(None)(library.addresses["dger"])
    dger(ctypes.byref(one), ctypes.byref(one), ctypes.byref(factor), *vector, *vector, *target)
    assert matrix[0] == {64: 9.0, 32: 0.0}[library.integer_bits]


def test_names_are_complete(library: blas.Blas) -> None:
    assert sorted(library.addresses) == sorted(blas.ROUTINES)
    assert all(library.addresses.values())
    assert len(set(library.addresses.values())) == len(blas.ROUTINES)


def threads_of(library: blas.Blas) -> int:
    return int(ctypes.CFUNCTYPE(ctypes.c_int)(library.get_threads)())


def set_threads(library: blas.Blas, n: int) -> None:
    ctypes.CFUNCTYPE(None, ctypes.c_int)(library.set_threads)(n)


@pytest.fixture
def threaded() -> blas.Blas:
    found = blas.library()
    if not found.set_threads:
        pytest.skip("this BLAS does not tell how many threads it has")
    return found


def test_one_thread_and_back(threaded: blas.Blas) -> None:
    before = threads_of(threaded)
    set_threads(threaded, 2)
    try:
        with blas.one_thread():
            assert threads_of(threaded) == 1
            with blas.one_thread():
                assert threads_of(threaded) == 1
            assert threads_of(threaded) == 1
        assert threads_of(threaded) == 2
        with pytest.raises(KeyError), blas.one_thread():
            raise KeyError
        assert threads_of(threaded) == 2
        with blas.one_thread(False):
            assert threads_of(threaded) == 2
    finally:
        set_threads(threaded, before)


@pytest.mark.parametrize("uses_blas", [True, False])
@pytest.mark.parametrize("set_before", [1, 2])
def test_program_keeps_blas_to_one_thread(
    threaded: blas.Blas, uses_blas: bool, set_before: int
) -> None:
    seen: list[int] = []
    kernel = callback(lambda table, lo, hi: seen.append(threads_of(threaded)))
    tape = Tape(np.array([[address_of(kernel), 0, 1, 1]]))
    run = build(ProgramSpec((ArraySpec(I8, ()),), Constant("ran"), tape, uses_blas))
    before = threads_of(threaded)
    set_threads(threaded, set_before)
    try:
        assert run(np.array(1)) == "ran"
        assert run(np.array(1.0)) is NotImplemented
        assert threads_of(threaded) == set_before
    finally:
        set_threads(threaded, before)
    assert seen == [1 if uses_blas else set_before]


def test_numpy_wheel_needs_no_scipy() -> None:
    code = """
import sys
from graphdl.kernels.cpu import blas
found = blas.library()
print("scipy" in sys.modules, "openblas" in found.source)
"""
    scipy, openblas = in_new_process(code).split()
    assert scipy != openblas
