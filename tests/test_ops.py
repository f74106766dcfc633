"""The op table: every record is complete, computes what NumPy does, refuses what it must."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from graphdl.errors import ArgumentError, AxisError, DtypeError, GraphError, ShapeError
from graphdl.graph import Literal
from graphdl.ops import movement, reduction
from graphdl.ops.contraction import product
from graphdl.ops.op import Op, node_of
from graphdl.ops.table import OPS
from graphdl.tracing import as_traced, tracing
from graphdl.types import DTYPES, TensorType
from tests.helpers import same, trace
from tests.op_cases import (
    DRAWN,
    F4,
    F8,
    SHAPED,
    Case,
    cases,
    others,
    pointwise_case,
    pointwise_dtypes,
)

FAMILIES = {
    "pointwise", "movement", "reduction", "cumulative", "constant", "contraction", "indexing",
    "sorting",
    "linalg", "custom", "complex",
    "convolution", "window",
}  # fmt: skip


def every_case() -> list[Case]:
    drawn = itertools.product(OPS.values(), (F4, F8))
    found = [case for op, dtype in drawn for case in cases(op, dtype)]
    for op in DRAWN:
        for dtype in pointwise_dtypes(op):
            if dtype.kind != "f":
                found.append(pointwise_case(op, dtype, (7,)))
    return found


def test_every_op_is_tested():
    """An op without a case has no test: give it an entry in tests/op_cases.py, or a domain."""
    known = [op for op in OPS.values() if op is not movement.blank]  # which says nothing by itself
    untested = [op.name for op in known if not (cases(op) or pointwise_dtypes(op))]
    assert untested == []
    assert SHAPED.keys() | others(np.random.default_rng(0)).keys() <= OPS.keys()


@pytest.mark.parametrize("op", OPS.values(), ids=lambda op: op.name)
def test_a_record_is_complete(op):
    assert OPS[op.name] is op
    assert op.family in FAMILIES
    assert (op.vjp is None) == bool(op.no_gradient), "an op has a vjp or says why not"
    if op in DRAWN:
        assert op.domain, "a pointwise op says where to test it"
        assert all(low < high for low, high in op.domain)


@pytest.mark.parametrize("case", every_case(), ids=str)
def test_an_op_is_its_reference(case):
    with tracing("f") as run:
        values = [as_traced(x, run) for x in case.operands]
        node = node_of(case.op, [value.node for value in values], case.attrs)
    expected = case(*case.operands)
    results = expected if isinstance(expected, tuple) else (expected,)
    assert [TensorType(np.asarray(x).dtype, np.shape(x)) for x in results] == case.types
    assert case.op.results is not None or [node.type] == case.types
    if case.operands:
        same(trace(case, *case.operands).evaluate(*case.operands), expected)


@pytest.mark.parametrize("op", DRAWN, ids=lambda op: op.name)
def test_a_pointwise_op_refuses_shapes_that_differ(op):
    dtype = pointwise_dtypes(op)[0]
    types = [TensorType(dtype, (3, i + 1)) for i in range(len(op.domain))]
    if len(types) > 1:
        with pytest.raises(ShapeError, match=op.name):
            op.infer(*types)
    with pytest.raises((GraphError, TypeError)):
        op.infer(*types, types[0])


@pytest.mark.parametrize("op", DRAWN, ids=lambda op: op.name)
def test_a_pointwise_op_refuses_dtypes_that_differ(op):
    if len(op.domain) > 1:
        with pytest.raises(DtypeError, match=op.name):
            op.infer(*[TensorType(F4, (3,))] * (len(op.domain) - 1), TensorType(F8, (3,)))


X, S = TensorType(F8, (3, 4)), TensorType(F8, ())
K = TensorType(np.dtype(np.int64), (2,))
BOOLS = TensorType(np.dtype(bool), (3, 4))

IMAGE, WEIGHTS = TensorType(F8, (2, 6, 5, 3)), TensorType(F8, (2, 2, 3, 4))
CONVOLUTION = {
    "strides": (1, 1), "padding": ((0, 0), (0, 0)), "lhs_dilation": (1, 1),
    "rhs_dilation": (1, 1), "groups": 1,
}  # fmt: skip
WINDOWS = {
    "window": (2, 2), "strides": (2, 2), "padding": ((0, 0), (0, 0)), "dilation": (1, 1),
}  # fmt: skip

BAD = [
    ("select", (BOOLS, X, TensorType(F4, (3, 4))), {}, DtypeError),
    ("select", (X, X, X), {}, DtypeError),
    ("cast", (X,), {"dtype": "complex256"}, DtypeError),
    ("sigmoid", (K,), {}, DtypeError),
    ("sum", (X,), {"axes": (2,)}, AxisError),
    ("sum", (X,), {"axes": (0, 0)}, AxisError),
    ("sum", (BOOLS,), {"axes": (0,)}, DtypeError),
    ("any", (X,), {"axes": (0,)}, DtypeError),
    ("max", (TensorType(F8, (0, 2)),), {"axes": (0,)}, ShapeError),
    ("argmax", (TensorType(F8, (0, 2)),), {"axis": 0}, ShapeError),
    ("argmax", (X,), {"axis": -1}, AxisError),
    ("cumsum", (X,), {"axis": 5, "reverse": False}, AxisError),
    ("cummax", (X,), {"axis": 2}, AxisError),
    ("recurrence", (X, X), {"axis": 2, "reverse": False}, AxisError),
    ("recurrence", (X, S), {"axis": 0, "reverse": False}, ShapeError),
    ("recurrence", (X, BOOLS), {"axis": 0, "reverse": False}, DtypeError),
    ("recurrence", (BOOLS, BOOLS), {"axis": 0, "reverse": False}, DtypeError),
    ("sort", (S,), {}, ShapeError),
    ("argsort", (S,), {}, ShapeError),
    ("searchsorted", (X, X), {"side": "middle"}, ArgumentError),
    ("searchsorted", (X, BOOLS), {"side": "left"}, DtypeError),
    ("searchsorted", (X, S), {"side": "left"}, ShapeError),
    ("searchsorted", (S, S), {"side": "left"}, ShapeError),
    ("reshape", (X,), {"shape": (5, 5)}, ShapeError),
    ("transpose", (X,), {"perm": (0, 0)}, AxisError),
    ("broadcast", (X,), {"shape": (3, 4, 2), "dims": (0, 2)}, ShapeError),
    ("broadcast", (X,), {"shape": (4, 3), "dims": (1, 0)}, ShapeError),
    ("slice", (X,), {"starts": (0, 0), "sizes": (4, 4), "steps": (1, 1)}, ShapeError),
    ("slice", (X,), {"starts": (0, 0), "sizes": (3, 4), "steps": (1, 0)}, ShapeError),
    ("slice", (X,), {"starts": (0,), "sizes": (3,), "steps": (1,)}, ShapeError),
    ("pad", (X, K), {"shape": (3, 4), "starts": (0, 0), "steps": (1, 1)}, DtypeError),
    ("pad", (X, S), {"shape": (2, 4), "starts": (0, 0), "steps": (1, 1)}, ShapeError),
    ("concatenate", (X, K), {"axis": 0}, ShapeError),
    ("concatenate", (X, TensorType(F4, (3, 4))), {"axis": 0}, DtypeError),
    ("concatenate", (X, X), {"axis": 2}, AxisError),
    ("iota", (), {"size": 3, "dtype": "object"}, DtypeError),
    ("contract", (X, X), {"la": (0, 1), "lb": (1, 2), "lo": (0, 2)}, ShapeError),
    ("contract", (X, X), {"la": (0, 1), "lb": (0, 1), "lo": (0, 0)}, ShapeError),
    ("contract", (X, X), {"la": (0, 1), "lb": (0, 2), "lo": (0, 2)}, ShapeError),
    ("contract", (X, X), {"la": (0, 0), "lb": (0, 1), "lo": (0,)}, ShapeError),
    ("contract", (X, BOOLS), {"la": (0, 1), "lb": (0, 1), "lo": ()}, DtypeError),
    ("gather", (X, X), {}, DtypeError),
    ("gather", (S, K), {}, ShapeError),
    ("scatter_add", (X, K), {"size": 5}, ShapeError),
    ("scatter_add", (X, X), {"size": 5}, DtypeError),
    ("convolve", (IMAGE, WEIGHTS), {**CONVOLUTION, "groups": 2}, ShapeError),
    ("convolve", (IMAGE, WEIGHTS), {**CONVOLUTION, "strides": (0, 1)}, ShapeError),
    ("convolve", (IMAGE, WEIGHTS), {**CONVOLUTION, "padding": ((0, 0),)}, ShapeError),
    ("convolve", (IMAGE, X), CONVOLUTION, ShapeError),
    ("convolve", (IMAGE, TensorType(F8, (2, 2, 5, 4))), CONVOLUTION, ShapeError),
    ("convolve", (IMAGE, TensorType(F4, (2, 2, 3, 4))), CONVOLUTION, DtypeError),
    ("convolve", (BOOLS, BOOLS), CONVOLUTION, DtypeError),
    ("filter_gradient", (IMAGE, WEIGHTS), {"window": (2, 2), **CONVOLUTION}, ShapeError),
    (
        "filter_gradient_parts",
        (IMAGE, TensorType(F8, (2, 5, 4, 4))),
        {"window": (2, 2), "parts": 0, **CONVOLUTION},
        ShapeError,
    ),
    ("window_pick", (IMAGE, X), WINDOWS, ShapeError),
    ("window_pick", (IMAGE, IMAGE), {**WINDOWS, "padding": ((2, 0), (0, 0))}, ShapeError),
    ("window_pick", (IMAGE, IMAGE), {**WINDOWS, "strides": (0, 1)}, ShapeError),
    ("window_pick", (IMAGE, IMAGE), {**WINDOWS, "window": (2,)}, ShapeError),
    ("window_place", (IMAGE, IMAGE), WINDOWS, ShapeError),
    ("window_place", (K, IMAGE), WINDOWS, DtypeError),
    ("sum", (X,), {"axis": 0}, GraphError),
    ("add", (X,), {}, GraphError),
]  # fmt: skip


@pytest.mark.parametrize(("name", "types", "attrs", "error"), BAD)
def test_an_op_refuses_what_does_not_fit(name, types, attrs, error):
    with tracing("f") as run:
        nodes = [as_traced(np.zeros(type.shape, type.dtype), run).node for type in types]
        with pytest.raises(error):
            node_of(OPS[name], nodes, attrs)


def test_equal_products_are_one_node():
    """The labels are numbered in order of appearance, whatever the caller called them."""
    x, y = np.ones((2, 3)), np.ones((3, 4))
    first = trace(lambda a, b: product(a, b, (7, 5), (5, 9), (7, 9)), x, y)
    assert dict(first.outputs[0].attrs) == {"la": (0, 1), "lb": (1, 2), "lo": (0, 2)}


def test_a_product_of_many_factors_has_an_exact_gradient_at_zeros():
    x = np.array([0.0, 2.0, 3.0])
    assert isinstance(reduction.prod, Op)
    (gradient,) = reduction.prod.vjp(np.asarray(1.0), None, x, axes=(0,))
    np.testing.assert_array_equal(gradient, [6.0, 0.0, 0.0])
    (gradient,) = reduction.prod.vjp(np.asarray(1.0), None, x * [1, 0, 1], axes=(0,))
    np.testing.assert_array_equal(gradient, [0.0, 0.0, 0.0])


def test_a_rule_computes_on_plain_arrays_too():
    for op in DRAWN:
        case = pointwise_case(op, F8, (3,))
        if op.vjp is not None and case is not None:
            out = case(*case.operands)
            parts = op.vjp(np.ones(3), out, *case.operands)
            assert len(parts) == len(case.operands)
            assert all(part is None or np.shape(part) == (3,) for part in parts)


def test_constants_compare_by_their_bytes():
    assert Literal(np.float32(1)) != Literal(np.float64(1))
    assert Literal(0.0) != Literal(-0.0)
    assert Literal(np.nan) == Literal(np.nan)
    assert Literal([1.0, 2.0]) == Literal(np.array([1.0, 2.0]))
    assert Literal([[1.0, 2.0]]) != Literal([1.0, 2.0])
    value = np.arange(100.0)
    literal = Literal(value)
    value[0] = 7
    assert literal.array[0] == 0
    assert not literal.array.flags.writeable
    assert movement.literal(value) == {"value": Literal(value)}
    assert all(Literal(np.zeros(2, dtype)).array.dtype == dtype for dtype in DTYPES)
