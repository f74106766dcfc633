"""Every op on the CUDA target without a GPU: values as Python text, machine code by the compiler.

A sample of the machine code is made; all of it with

    GRAPHDL_TEST_ALL=1 python -m pytest tests/test_cuda_ops.py
"""

from __future__ import annotations

import os

import numpy as np
import pytest

import graphdl as gd
from graphdl.compiler import pipeline
from graphdl.errors import UnsupportedError
from graphdl.kernels.cuda.covered import missing
from graphdl.kernels.special_functions import SPECIAL_FUNCTIONS
from graphdl.ops.table import OPS
from tests.device_programs import code_of, compiles, device_program, run_as_device_python
from tests.helpers import trace
from tests.op_cases import F4, F8, Case, cases
from tests.programs import assert_same

ALL = bool(os.environ.get("GRAPHDL_TEST_ALL"))
RNG = np.random.default_rng(3)


def tried(dtype: np.dtype) -> list[Case]:
    """Cases with operands, but those of complex numbers, which are pairs of floats in a program."""
    found = [case for op in OPS.values() for case in cases(op, dtype) if case.operands]
    found = [case for case in found if case.op.family != "complex"]
    # a kernel whose threads wait for each other takes seconds as Python
    slow = [case for case in found if case.op.family in ("convolution", "contraction")]
    left_out = () if ALL else set(map(id, slow[1::3] + slow[2::3]))
    return [case for case in found if id(case) not in left_out]


def is_covered(case: Case) -> bool:
    optimised = pipeline.optimise(trace(case, *case.operands))[-1][1]
    return not any(missing(node) for node in optimised.operations)


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


def composed(*shapes):
    return [RNG.normal(size=shape).astype(np.float32) for shape in shapes]


#: Functions of several ops whose kernels have templates of their own.
COMPOSED = {
    "product": (lambda x, w, b: np.tanh(x @ w + b), composed((5, 7), (7, 6), (6,))),
    "product, several blocks": (lambda x, w: x @ w, composed((5, 18), (18, 67))),
    "product, turned": (lambda x, w: (x.T @ w.T, w @ x), composed((7, 5), (6, 7))),
    "products in batches": (
        lambda x, y: np.einsum("bij,bkj->bik", x, y), composed((2, 3, 4), (2, 5, 4)),
    ),
    "gradients of a layer": (
        gd.grad(lambda w, x, y: np.mean((np.maximum(x @ w, 0) - y) ** 2)),
        composed((4, 3), (6, 4), (6, 3)),
    ),
    "sort": (lambda x: np.sort(x, axis=0), composed((13, 2))),
    "scatter": (lambda x, v: scattered(x, v), composed((6, 3), (4, 3))),
}  # fmt: skip


def scattered(x, v):
    x = x * 1
    np.add.at(x, np.array([1, 4, 1, 5]), v)
    return x


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
    return [case for i, case in enumerate(found) if (ALL or i % 61 == 0) and is_covered(case)]


#: Ops that compute in float64 by nature, or where a branch leads far from the middle of the range.
FLOAT64 = ("ndtri", "loggamma", "poisson")


@compiles
@pytest.mark.parametrize("case", samples(), ids=str)
def test_machine_code_of_an_op(case):
    program = device_program(trace(case, *case.operands))
    for source, assembly, cubin in code_of(program, (9, 0)):
        assert cubin.local_bytes == 0, source.text
        assert cubin.registers <= 168
        if not any(word in source.text for word in ("f64", "float64", *FLOAT64)):
            assert ".f64" not in assembly, source.text


@compiles
@pytest.mark.parametrize("name", list(COMPOSED) if ALL else ["product"])
def test_machine_code_of_products_and_orders(name):
    f, args = COMPOSED[name]
    for source, _, cubin in code_of(device_program(gd.trace(f, *args)), (9, 0)):
        assert cubin.local_bytes == 0, source.text
