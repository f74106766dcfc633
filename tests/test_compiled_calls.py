"""The tables of calls again: compiled code against the interpreter, which the other tests check."""

from __future__ import annotations

import pytest

import graphdl as gd
from graphdl.ops.table import OPS
from tests import test_indexing
from tests.helpers import call_of, same
from tests.op_cases import F4, F8, Case, cases
from tests.test_numpy_functions import CALLS, PRODUCTS, calls, values


def compare(f, args):
    same(gd.compile(f)(*args), gd.trace(f, *args).evaluate(*args), exact=False)


@pytest.mark.parametrize("text", calls(CALLS))
def test_a_compiled_call_is_what_the_interpreter_computes(text):
    compare(*call_of(text, values("float32")))


@pytest.mark.parametrize("dtype", ["float32", "int32", "bool"])
@pytest.mark.parametrize("text", calls(PRODUCTS))
def test_a_compiled_product_is_what_the_interpreter_computes(text, dtype):
    compare(*call_of(text, values(dtype, whole=True)))


@pytest.mark.parametrize("text", test_indexing.calls())
def test_a_compiled_index_is_what_the_interpreter_takes(text):
    compare(*test_indexing.indexed(text))


def op_cases() -> list[Case]:
    found = (case for op in OPS.values() for dtype in (F4, F8) for case in cases(op, dtype))
    return [case for case in found if case.operands]


@pytest.mark.parametrize("case", op_cases(), ids=str)
def test_a_compiled_op_is_its_reference(case):
    compare(case, case.operands)
