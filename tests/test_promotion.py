"""Dtypes: every ufunc on every pair of dtypes, and Python scalars among arrays (NEP 50)."""

from __future__ import annotations

import itertools
import operator

import numpy as np
import pytest

from graphdl.errors import DtypeError, GraphError
from graphdl.types import DTYPES, FLOAT16
from tests.helpers import check, same, trace

UFUNCS = sorted(
    {value for value in vars(np).values() if isinstance(value, np.ufunc)}, key=lambda f: f.__name__
)
#: Their operands are not what this test draws: dates, and arrays with axes.
OTHERS = ("isnat", "matmul", "vecdot", "matvec", "vecmat")
ELEMENTWISE = [ufunc for ufunc in UFUNCS if ufunc.__name__ not in OTHERS]


def operand(dtype: np.dtype, number: int, like: np.ufunc) -> np.ndarray:
    """Values that differ in sign and size, small enough for shifts and powers of integers."""
    rng = np.random.default_rng(number)
    if dtype.kind == "f":
        return np.append(rng.normal(0, 2, 6), [np.nan, np.inf, -np.inf, 0.0, -0.0]).astype(dtype)
    low = -5 if dtype.kind == "i" and like not in (np.power, np.float_power) else 0
    if like in (np.left_shift, np.right_shift) and number:
        low = 0
    return rng.integers(low, 6, 11).astype(dtype)


def outcome(f, args):
    with np.errstate(all="ignore"):
        try:
            return f(*args), None
        except (TypeError, ValueError) as error:
            return None, error


#: What a graph holds of NumPy's own.
HELD = (*DTYPES, FLOAT16)


def is_supported(result) -> bool:
    parts = result if isinstance(result, tuple) else (result,)
    return all(np.asarray(part).dtype in HELD for part in parts)


@pytest.mark.parametrize("ufunc", ELEMENTWISE, ids=lambda f: f.__name__)
def test_a_ufunc_has_the_dtypes_and_values_of_numpy(ufunc):
    for dtypes in itertools.product(DTYPES, repeat=ufunc.nin):
        args = [operand(dtype, i, ufunc) for i, dtype in enumerate(dtypes)]
        expected, error = outcome(ufunc, args)
        if error is None and is_supported(expected) and in_graph_dtypes(ufunc, dtypes):
            same(trace(ufunc, *args).evaluate(*args), expected)
        else:
            with pytest.raises(GraphError) as caught:
                trace(ufunc, *args)
            assert ufunc.__name__ in str(caught.value)


def in_graph_dtypes(ufunc, dtypes) -> bool:
    """Whether NumPy computes in dtypes that a graph holds: not in long double."""
    loop = ufunc.resolve_dtypes((*dtypes, *[None] * ufunc.nout))
    if ufunc in (np.nextafter, np.spacing) and FLOAT16 in loop:
        return False  # its neighbours are not those of float32
    return all(dtype in HELD for dtype in loop)


OPERATORS = [
    operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod,
    operator.pow, operator.and_, operator.or_, operator.xor, operator.lt, operator.ge,
    operator.eq, operator.ne, divmod,
]  # fmt: skip
SCALARS = [True, False, 0, 1, 3, -1, 2.5, 0.5, -1.0, 2, 300, -300, 2**40, 2**64, 1e300]


@pytest.mark.parametrize("scalar", SCALARS, ids=repr)
@pytest.mark.parametrize("f", OPERATORS, ids=lambda f: f.__name__)
def test_a_python_scalar_yields_to_the_array(f, scalar):
    for dtype in DTYPES:
        x = operand(dtype, 0, np.power)
        for call in (lambda x: f(x, scalar), lambda x: f(scalar, x)):
            with np.errstate(all="ignore"):
                try:
                    expected = call(x)
                except (TypeError, ValueError, OverflowError) as error:
                    expected = error
            if isinstance(expected, Exception) or not is_supported(expected):
                kind = type(expected) if isinstance(expected, Exception) else TypeError
                with pytest.raises(GraphError) as caught:
                    trace(call, x)
                assert isinstance(caught.value, kind)
            else:
                same(trace(call, x).evaluate(x), expected)


@pytest.mark.parametrize("f", [operator.add, operator.truediv, operator.pow, operator.lt, divmod])
@pytest.mark.parametrize("pair", [(2, 3), (2.5, 3), (True, 2), (True, True), (7, 2.0)], ids=str)
def test_python_scalars_as_arguments_are_numbers_among_themselves(f, pair):
    result = trace(f, *pair).evaluate(*pair)
    same(result, f(*pair))


@pytest.mark.parametrize("scalar", [3, 2.5, True], ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.uint64, np.bool_])
def test_a_python_scalar_as_argument_stays_weak(dtype, scalar):
    x = np.array([1, 0, 1]).astype(dtype)
    check(lambda x, a: x * a, [x, scalar])
    check(lambda x, a: (2 * a + 1) * x, [x, scalar])
    check(lambda x, a: np.where(x > 0, x, a), [x, scalar])
    check(lambda x, a: +a * x, [x, scalar])
    check(lambda x, a: np.multiply(a, x), [x, scalar])


@pytest.mark.parametrize("f", [operator.neg, operator.pos, operator.abs])
@pytest.mark.parametrize("scalar", [3, -2.5, True], ids=repr)
def test_a_sign_of_a_python_scalar_is_a_python_scalar(f, scalar):
    x = np.ones(3, np.float32)
    check(lambda x, a: f(a) * x, [x, scalar])
    same(trace(f, scalar).evaluate(scalar), f(scalar))


def test_the_dtype_of_the_result_can_be_asked_for():
    x = np.arange(3, dtype=np.float32)
    check(lambda x: np.add(x, 1, dtype=np.float64), [x])
    check(lambda x: np.multiply(x, True, dtype=np.float64), [x])
    check(lambda x: np.sqrt(x, dtype=np.float64), [x])
    check(lambda x: np.add(x, x, dtype=np.float32, casting="same_kind"), [x.astype(np.float64)])


def test_numpy_scalars_are_strong():
    x = np.ones(3, np.float32)
    check(lambda x: x * np.float64(2), [x])
    check(lambda x, a: x * a, [x, np.float64(2)])
    check(lambda x: x + np.int64(2), [x])


def test_a_function_of_a_weak_number_is_strong():
    x = np.ones(3, np.float32)
    check(lambda x, a: x * np.sin(a), [x, 2.0])
    check(lambda x, a: x * np.sum(a), [x, 2.0])
    check(lambda x, a: x * np.reshape(a, (1,)), [x, 2.0])


@pytest.mark.parametrize("name", ["longdouble", "datetime64[s]", "U3", "object"])
def test_a_dtype_that_a_graph_cannot_hold_is_refused(name):
    constant = np.zeros(3, name)
    with pytest.raises(DtypeError):
        trace(lambda x: x + constant, np.zeros(3))
