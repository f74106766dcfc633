"""Every op on the CUDA target without a GPU: values as Python text, machine code by the compiler.

A sample of the machine code is made; all of it with

    GRAPHDL_TEST_ALL=1 python -m pytest tests/test_cuda_ops.py
"""

from __future__ import annotations

import os

import numpy as np
import pytest

import graphdl as gd
from graphdl.errors import UnsupportedError
from graphdl.kernels.special_functions import SPECIAL_FUNCTIONS
from tests import cubins
from tests.device_cases import COMPOSED, every_case, is_covered
from tests.device_programs import compiles, device_program, run_as_device_python
from tests.helpers import trace
from tests.op_cases import F4, F8, Case
from tests.programs import assert_same

ALL = bool(os.environ.get("GRAPHDL_TEST_ALL"))
RNG = np.random.default_rng(3)


def tried(dtype: np.dtype) -> list[Case]:
    """Of them, some where each is slow."""
    found = every_case(dtype)
    # a kernel whose threads wait for each other takes seconds as Python
    slow = [case for case in found if case.op.family in ("convolution", "contraction")]
    left_out = () if ALL else set(map(id, slow[1::3] + slow[2::3]))
    return [case for case in found if id(case) not in left_out]


@pytest.mark.parametrize("case", tried(F4), ids=str)
def test_an_op_computes_what_numpy_does(case):
    graph = trace(case, *case.operands)
    if not is_covered(case):
        with pytest.raises(UnsupportedError, match="target='cuda' has no kernel for"):
            device_program(graph)
        return
    want = case(*case.operands)
    want = want if isinstance(want, tuple) else (want,)
    for got, one in zip(run_as_device_python(graph, case.operands), want, strict=True):
        finite = np.abs(one[np.isfinite(one)]) if np.asarray(one).dtype.kind == "f" else ()
        assert_same(got, one, 64, float(np.max(finite)) if np.size(finite) else 1.0)


def test_all_but_libraries_of_the_cpu_are_covered():
    left = {case.op for case in tried(F4) if not is_covered(case)}
    left = {op for op in left if op.family not in ("linalg", "custom")}
    assert {op.name for op in left} <= SPECIAL_FUNCTIONS.keys()


@pytest.mark.parametrize("name", COMPOSED)
def test_products_and_orders(name):
    f, args = COMPOSED[name]
    graph = gd.trace(f, *args)
    want = graph.evaluate(*args)
    want = want if isinstance(want, tuple) else (want,)
    for got, one in zip(run_as_device_python(graph, args), want, strict=True):
        assert_same(got, one, 64, float(np.max(np.abs(one))))


def test_what_is_equal_is_sorted_as_it_lies():
    x = np.array([2, 1, np.nan, 1, 2, -0.0, 0.0, np.nan], np.float32)
    (got,) = run_as_device_python(gd.trace(np.argsort, x), (x,))
    assert got.tolist() == np.argsort(x, kind="stable").tolist()


def samples() -> list[Case]:
    found = tried(F4) + tried(F8)
    return [case for i, case in enumerate(found) if (ALL or i % 97 == 0) and is_covered(case)]


@compiles
@pytest.mark.parametrize("case", samples(), ids=str)
def test_machine_code_of_an_op(case):
    for kernel in cubins.kernels_of(str(case), device_program(trace(case, *case.operands))):
        found = cubins.check(kernel, (9, 0))
        assert not found.wrong, f"{found}\n{kernel.source.text}"


@compiles
@pytest.mark.parametrize("name", list(COMPOSED) if ALL else ["product"])
def test_machine_code_of_products_and_orders(name):
    f, args = COMPOSED[name]
    for kernel in cubins.kernels_of(name, device_program(gd.trace(f, *args))):
        found = cubins.check(kernel, (9, 0))
        assert not found.wrong, f"{found}\n{kernel.source.text}"
