"""Tracing: what is refused and how the message reads, the user's lines, leaks, methods."""

from __future__ import annotations

import inspect
import math
import sys
import threading

import numpy as np
import pytest

from graphdl.errors import (
    AxisError,
    ConcreteValueError,
    DtypeError,
    GraphError,
    GraphIndexError,
    LeakError,
    ShapeError,
    UnsupportedError,
)
from graphdl.numpy_functions import gelu, logsumexp, one_hot, relu, softmax
from graphdl.ops import pointwise
from graphdl.tracing import HANDLERS, Trace, TracedArray, current_trace, new_input, tracing
from graphdl.types import spec
from tests.helpers import call_of, check, trace

VALUES = {
    "x": np.ones((3, 4), np.float32),
    "c": np.ones((2, 3, 4)),
    "v": np.ones(5),
    "s": np.array(2.0),
    "b": np.ones((3, 4), bool),
    "i": np.ones((3, 4), np.int64),
    "u": np.ones(3, np.uint8),
    "o": np.ones((0, 2)),
}

#: What is written, the errors it is (ours and Python's), and what the message must say.
REFUSED = [
    # shapes
    ("x + v", (ShapeError, ValueError), "np.add: operands of shapes (3, 4) and (5,)"),
    ("np.where(b, x, v)", (ShapeError, ValueError), "np.where: operands of shapes (3, 4)"),
    ("np.clip(x, v, 1)", (ShapeError, ValueError), "np.clip: operands of shapes"),
    ("x @ v", (ShapeError, ValueError), "np.matmul: shapes (3, 4) and (5,) do not fit"),
    ("x @ x", (ShapeError, ValueError), "axis 1 of size 4 meets axis 0 of size 3"),
    ("c @ x", (ShapeError, ValueError), "np.matmul: shapes (2, 3, 4) and (3, 4)"),
    ("x @ s", (ShapeError, ValueError), "a scalar multiplies with `*`"),
    ("np.dot(x, v)", (ShapeError, ValueError), "np.dot: axes (1,) of shape (3, 4) and axes (0,)"),
    ("np.tensordot(x, c, 2)", (ShapeError, ValueError), "np.tensordot: axes"),
    ("np.einsum('ij,jk', x, x)", (ShapeError, ValueError), "label 'j' has sizes 4 and 3"),
    ("np.einsum('ijk,k', x, v)", (ShapeError, ValueError), "'ijk' names 3 axes"),
    ("np.einsum('ij->k', x)", (ShapeError, ValueError), "the result 'k' repeats a label"),
    ("np.einsum('ij,j', x)", (ShapeError, ValueError), "for 2 operands, not 1"),
    ("np.einsum('ii', x)", (ShapeError, ValueError), "label 'i' has sizes"),
    ("x.reshape(5, -1)", (ShapeError, ValueError), "cannot reshape float32[3, 4]"),
    ("x.reshape(-1, -1)", (ShapeError, ValueError), "into (-1, -1)"),
    ("np.broadcast_to(v, (3, 4))", (ShapeError, ValueError), "np.broadcast_to: shape (5,)"),
    ("np.concatenate([x, c])", (ShapeError, ValueError), "np.concatenate: shapes (3, 4), (2,"),
    ("np.concatenate([s, s])", (ShapeError, ValueError), "use np.stack"),
    ("np.stack([x, v])", (ShapeError, ValueError), "np.stack: shapes (3, 4), (5,) must"),
    ("np.split(v, 2)", (ShapeError, ValueError), "does not divide into 2 equal parts"),
    ("np.squeeze(x, 0)", (ShapeError, ValueError), "np.squeeze: axis 0 of shape (3, 4)"),
    ("np.pad(x, ((1, 1), (1, 1), (1, 1)))", (ShapeError, ValueError), "np.pad: pad_width"),
    ("np.pad(x, -1)", (ShapeError, ValueError), "negative width"),
    ("np.max(o)", (ShapeError, ValueError), "empty along axes (0, 1), and has no identity"),
    ("np.argmax(o, 0)", (ShapeError, ValueError), "empty along axis 0"),
    ("np.moveaxis(c, (0, 1), 2)", (ShapeError, ValueError), "2 axes (0, 1) cannot move to 1"),
    ("np.average(x, 0, np.ones(7))", (ShapeError, ValueError), "weights of shape (7,)"),
    ("np.repeat(x, [1, 2], 1)", (ShapeError, ValueError), "2 repeats do not fit axis 1"),
    ("np.cross(x, x)", (ShapeError, ValueError), "vectors of 3 components"),
    # axes
    ("x.sum(axis=2)", (AxisError, ValueError, IndexError), "np.sum: axis 2 is out of bounds"),
    ("np.mean(x, axis=(0, 5))", (AxisError, ValueError), "np.mean: axis 5 is out of bounds"),
    ("np.max(x, (0, 0))", (AxisError, ValueError), "name an axis of shape (3, 4) twice"),
    ("np.argmax(x, -3)", (AxisError, IndexError), "np.argmax: axis -3"),
    ("np.concatenate([x, x], 2)", (AxisError, ValueError), "np.concatenate: axis 2"),
    ("np.swapaxes(x, 0, 3)", (AxisError, ValueError), "np.swapaxes: axis 3"),
    ("np.transpose(c, (0, 1, 1))", (AxisError, ValueError), "np.transpose: axes (0, 1, 1)"),
    ("np.var(x, axis='rows')", (DtypeError, TypeError), "an axis must be an integer, not 'rows'"),
    ("np.cumsum(x, 1.5)", (DtypeError, TypeError), "an axis must be an integer, not 1.5"),
    # dtypes
    ("b - b", (DtypeError, TypeError), "np.subtract takes no operands (bool, bool)"),
    ("-b", (DtypeError, TypeError), "use the `~` operator"),
    ("x & x", (DtypeError, TypeError), "np.bitwise_and takes no operands (float32, float32)"),
    ("np.left_shift(x, 1)", (DtypeError, TypeError), "np.left_shift takes no operands"),
    ("x.astype('longdouble')", (DtypeError, TypeError), "dtype float128 is not supported"),
    ("x.astype(int, casting='safe')", (DtypeError, TypeError), "cannot cast float32 to int64"),
    ("x + 'a'", (TypeError,), ""),
    ("x + np.array(['a'])", (DtypeError, TypeError), "is not supported in a graph"),
    ("np.add(x, 1, dtype=int)", (DtypeError, TypeError), "np.add takes no operands (float32, int)"),
    ("u + 300", (GraphError, OverflowError), "Python integer 300 is out of bounds for uint8"),
    ("np.clip(u, 300, None)", (GraphError, OverflowError), "np.clip: Python integer 300"),
    ("u - (-1)", (GraphError, OverflowError), "Python integer -1 is out of bounds for uint8"),
    ("i ** -1", (GraphError, ValueError), "integers to negative integer powers"),
    ("np.repeat(x, 1.5)", (DtypeError, TypeError), "repeats must be integers"),
    ("np.take(x, [0.5])", (DtypeError, TypeError), "indices must be integers, not float64"),
    ("gd.one_hot(x, 3)", (DtypeError, TypeError), "one_hot: indices must be integers"),
    # indices
    ("x[3]", (GraphIndexError, IndexError), "index 3 is out of bounds for axis 0 of size 3"),
    ("x[0, -5]", (GraphIndexError, IndexError), "index -5 is out of bounds for axis 1"),
    ("x[0, 0, 0]", (GraphIndexError, IndexError), "too many indices: shape (3, 4) has 2 axes"),
    ("x[[0, 3]]", (GraphIndexError, IndexError), "index 3 is out of bounds for axis 0"),
    ("x[..., ...]", (GraphIndexError, IndexError), "a single ellipsis"),
    ("x[1.5]", (GraphIndexError, IndexError), "are valid indices, not float"),
    ("x['a']", (GraphIndexError, IndexError), "are valid indices, not str"),
    ("x[np.array([0.5])]", (GraphIndexError, IndexError), "integer (or boolean) type, not float64"),
    ("x[x]", (GraphIndexError, IndexError), "integer (or boolean) type, not float32"),
    ("x[np.ones(4, bool)]", (GraphIndexError, IndexError), "a boolean index of shape (4,)"),
    ("x[[0, 1], [0, 1, 2]]", (GraphIndexError, IndexError), "do not broadcast"),
    ("x[x > 0]", (ConcreteValueError, TypeError), "Write np.where(mask, x, 0)"),
    ("np.delete(x, 9, 0)", (GraphIndexError, IndexError), "out of bounds"),
    # what needs values
    ("1 if s > 0 else 2", (ConcreteValueError, TypeError), "np.where(condition, a, b)"),
    ("s > 0 and s < 1", (ConcreteValueError, TypeError), "needs the value of an array"),
    ("float(s)", (ConcreteValueError, TypeError), "float() needs the value"),
    ("int(s)", (ConcreteValueError, TypeError), "Write x.astype(np.int64)"),
    ("'%f' % s", (ConcreteValueError, TypeError), "float() needs the value"),
    ("complex(s)", (ConcreteValueError, TypeError), "complex() needs the value"),
    ("complex(s)", (ConcreteValueError, TypeError), "complex() needs the value"),
    ("math.factorial(s)", (ConcreteValueError, TypeError), "needs the value"),
    ("s.item()", (ConcreteValueError, TypeError), ".item() needs the value"),
    ("x.tolist()", (ConcreteValueError, TypeError), ".tolist() needs the value"),
    ("sys.modules['numpy'].asarray(x)", (ConcreteValueError, TypeError), "np.stack or np.conc"),
    ("range(i[0, 0])", (ConcreteValueError, TypeError), "Shapes are static"),
    ("[1, 2][i[0, 0]]", (ConcreteValueError, TypeError), "np.stack(items)[i] to choose"),
    ("x.reshape(i[0, 0], 4)", (ConcreteValueError, TypeError), "Shapes are static"),
    ("f'{s:.3f}'", (ConcreteValueError, TypeError), "return the value and print it outside"),
    ("max(x[0], x[1])", (ConcreteValueError, TypeError), "np.where"),
    ("sorted([s, s], key=abs)", (ConcreteValueError, TypeError), "np.where"),
    # what cannot be traced
    ("np.unique(i)", (UnsupportedError, TypeError, NotImplementedError), "np.unique cannot be"),
    ("np.nonzero(b)", (UnsupportedError, TypeError), "np.where(mask, x, 0)"),
    ("np.where(b)", (UnsupportedError, TypeError), "np.where: with one argument"),
    ("np.linalg.eig(x)", (ShapeError, ValueError), "the last two axes of shape (3, 4)"),
    ("np.setxor1d(x, x)", (UnsupportedError, TypeError), "np.setxor1d cannot be traced"),
    ("np.sum(x, out=Z0)", (UnsupportedError, TypeError), "use the returned value"),
    ("np.sum(x, None, None, Z0)", (UnsupportedError, TypeError), "np.sum: out="),
    ("np.add(x, 1, out=Z34)", (UnsupportedError, TypeError), "np.add: out= is an"),
    ("np.add(x, 1, where=b)", (UnsupportedError, TypeError), "use np.where(mask, add(...), other)"),
    ("np.power.at(x, i[0], 1)", (UnsupportedError, TypeError), "np.power.at: an element may come"),
    ("np.power.reduce(x)", (UnsupportedError, TypeError), "those that can: np.add"),
    ("np.isnat(x)", (UnsupportedError, TypeError), "np.isnat cannot be traced"),
    ("np.reshape(x, (4, 3), order='K')", (UnsupportedError, TypeError), "order='K'"),
    ("np.delete(x, i[0, 0])", (UnsupportedError, TypeError), "which elements to delete must be"),
    ("np.repeat(x, i[0])", (UnsupportedError, TypeError), "repeats must be static"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "errors", "message"), REFUSED, ids=lambda v: str(v)[:40])
def test_what_is_refused_says_why_and_where(text, errors, message):
    f, args = call_of(text, VALUES, math=math, sys=sys, Z0=np.zeros(()), Z34=np.zeros((3, 4)))
    with pytest.raises(errors[0]) as caught:
        trace(f, *args)
    for error in errors:
        assert isinstance(caught.value, error)
    if isinstance(caught.value, GraphError):
        assert message in str(caught.value)
        assert str(caught.value).count("\n  at ") >= 1  # a line of the user's


def line_of(error: Exception) -> str:
    return str(error).rpartition("\n  at ")[2]


def test_an_error_shows_the_line_of_the_user():
    def f(x, y):
        z = np.tanh(x)
        return z @ y  # the culprit

    with pytest.raises(ShapeError) as caught:
        trace(f, np.ones((2, 3)), np.ones(2))
    assert line_of(caught.value).endswith(": return z @ y  # the culprit")
    assert __file__ in line_of(caught.value)


def test_an_error_of_a_value_shows_where_that_was_made():
    def f(x):
        big = np.sum(x) > 3
        return 1 if big else 2

    with pytest.raises(ConcreteValueError) as caught:
        trace(f, np.ones(3))
    message = str(caught.value)
    assert "bool[] is only being traced" in message
    assert "np.where(condition, a, b)" in message
    assert "gd.cond(condition, f, g, x)" in message
    made, _, at = message.partition("\n  it was made at ")[2].partition("\n  at ")
    assert made.endswith(": big = np.sum(x) > 3")
    assert at.endswith(": return 1 if big else 2")


def test_a_value_made_on_the_line_that_fails_is_named_once():
    with pytest.raises(ConcreteValueError) as caught:
        trace(lambda x: 1 if np.sum(x) > 3 else 2, np.ones(3))
    assert str(caught.value).count(__file__) == 1


def test_the_line_stands_once_in_a_message():
    with pytest.raises(AxisError) as caught:
        trace(lambda x: np.std(x, axis=7), np.ones(3))
    assert str(caught.value).count("\n  at ") == 1


def test_an_assignment_into_an_array_of_numpy_says_what_to_write():
    y = np.zeros(3)

    def f(x):
        y[0] = x[0]
        return y

    with pytest.raises(ConcreteValueError, match=r"np\.empty, np\.array and the like make"):
        trace(f, np.ones(3))  # NumPy's own message would be in front of it


def test_names_that_are_rebound_in_place_are_new_values():
    def f(x):
        y = x * 1
        y += 1
        y *= 2
        y **= 2
        y -= x
        return y

    check(f, [np.arange(3.0)])


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda x: x.__iadd__(np.ones((2, 3))), "cannot hold"),
        (lambda x: x.astype(int).__iadd__(0.5), "does not fit"),
    ],
)
def test_an_in_place_operation_keeps_shape_and_dtype(f, message):
    with pytest.raises(GraphError, match=message):
        trace(f, np.ones(3))


def test_a_leaked_value_says_from_where():
    kept = []

    def f(x):
        kept.append(np.sin(x))
        return x

    trace(f, np.ones(3))
    for use in (
        lambda: kept[0] + 1,
        lambda: np.sum(kept[0]),
        lambda: kept[0][0],
        lambda: trace(lambda x: x + kept[0], np.ones(3)),
    ):
        with pytest.raises(LeakError) as caught:
            use()
        assert isinstance(caught.value, RuntimeError)
        assert "trace had ended" in str(caught.value)
        assert "kept.append(np.sin(x))" in str(caught.value)
        assert "it was made at" in str(caught.value)


def test_a_leaked_value_that_is_returned_says_from_where():
    kept = []

    def f(x):
        kept.append(np.sin(x))
        return x

    trace(f, np.ones(3))
    with pytest.raises(LeakError, match="belongs to another trace, of 'f'") as caught:
        trace(lambda x: kept[0], np.ones(3))
    assert "it was made at" in str(caught.value)
    assert "kept.append(np.sin(x))" in str(caught.value)
    assert "float64[3]" in str(caught.value)


def test_every_node_knows_its_line():
    def f(x):
        y = np.tanh(x)
        return np.mean(y * 2)

    graph = trace(f, np.ones(3))
    lines = {node.op.name: source.line for node, source in graph.sources.items()}
    first = inspect.getsourcelines(f)[1]
    assert lines["tanh"] == first + 1
    assert lines["sum"] == lines["multiply"] == first + 2
    assert all(source.file == __file__ for source in graph.sources.values())
    assert all(source.function == "f" for source in graph.sources.values())


def test_numpy_on_plain_arrays_inside_a_trace_is_numpy():
    def f(x):
        table = np.cumsum(np.arange(3) ** 2)
        assert isinstance(table, np.ndarray)
        assert isinstance(np.stack([table, table]), np.ndarray)
        assert isinstance(softmax(table), np.ndarray)
        return x + table

    check(f, [np.ones(3)])


def test_a_chain_of_ten_thousand_nodes():
    def f(x):
        for _ in range(10_000):
            x = np.sin(x)
        return x

    graph = trace(f, np.float32(1))
    assert len(graph.nodes) == 10_001
    assert graph.evaluate(np.float32(1)).shape == ()
    assert len(str(graph).splitlines()) == 10_002


def test_traces_in_threads_do_not_meet():
    failures = []

    def work(n):
        try:
            for _ in range(20):
                check(lambda x: np.sum(np.exp(x) * n, axis=0), [np.ones((3, n))], exact=False)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_trace_ends_with_its_function_even_by_an_error():
    with pytest.raises(ZeroDivisionError):
        trace(lambda x: 1 // 0, np.ones(3))
    assert current_trace() is None


def test_the_attributes_of_a_traced_array_are_those_of_an_array():
    with tracing("f") as run:
        x = new_input(spec((3, 4), "float32"), 0, run)
        array = np.ones((3, 4), np.float32)
        for name in ("shape", "ndim", "size", "dtype", "nbytes", "itemsize"):
            assert getattr(x, name) == getattr(array, name)
        assert len(x) == 3
        assert repr(x) == f"{x}" == "TracedArray(float32[3, 4])"
        assert np.shape(x) == (3, 4)
        assert np.ndim(x) == 2
        assert isinstance(x.astype("float32"), TracedArray)
        for refused in (lambda: hash(x), lambda: len(x[0, 0]), lambda: iter(x[0, 0])):
            with pytest.raises(TypeError):
                refused()


def test_an_implementation_has_the_signature_of_numpy():
    """Same names in the same order, positional or not; a leading `/` may be lacking."""
    for function, implementation in HANDLERS.items():
        if isinstance(function, np.ufunc):
            continue
        try:
            wanted = inspect.signature(function).parameters.values()
        except ValueError:  # NumPy 2.0 to 2.3 say nothing about functions written in C
            continue
        if implementation.__name__ in ("array", "<lambda>"):
            continue
        if "newshape" in [parameter.name for parameter in wanted]:  # NumPy 2.0's np.reshape
            continue
        given = inspect.signature(implementation).parameters
        if any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in given.values()):
            continue  # it hands its arguments on
        for parameter in wanted:
            named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            assert not named or parameter.name in given, f"{function} lacks {parameter}"
        order = [p.name for p in wanted if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert [name for name in given if name in order] == order, function.__name__


NEURAL = [
    relu, softmax, gelu, logsumexp,
    lambda x: gelu(x, approximate="tanh"),
    lambda x: softmax(x, axis=0),
    lambda x: logsumexp(x, axis=(0, 1), keepdims=True),
]  # fmt: skip


@pytest.mark.parametrize("f", NEURAL)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_functions_of_networks_are_the_same_on_arrays_and_traced(f, dtype):
    x = np.random.default_rng(0).normal(0, 3, (3, 4)).astype(dtype)
    check(f, [x])


def test_logsumexp_takes_infinities_and_nothing():
    inf = np.inf
    x = np.array([[-inf, -inf], [inf, 0], [1000, 1000], [-1000, -1000], [np.nan, 0]])
    expected = [-inf, inf, 1000 + math.log(2), -1000 + math.log(2), np.nan]
    np.testing.assert_allclose(logsumexp(x, axis=1), expected)
    check(lambda x: logsumexp(x, axis=1), [x])
    check(lambda x: logsumexp(x, axis=0), [np.ones((0, 3))])


def test_one_hot_has_a_row_of_zeros_for_an_index_out_of_range():
    k = np.array([[0, 2], [-1, 3]])
    check(lambda k: one_hot(k, 3, np.float32), [k])
    check(lambda k: one_hot(k, 3, bool, axis=0), [k])
    np.testing.assert_array_equal(one_hot(k, 3)[1], 0)
    with pytest.raises(ShapeError, match="negative"):
        one_hot(k, -1)


def test_relu_of_a_constant_bound_has_a_constant_bound():
    """The rule of maximum sees it, and gives a tie no gradient."""
    graph = trace(relu, np.ones(3))
    (node,) = [n for n in graph.operations if n.op is pointwise.maximum]
    assert TracedArray(node.inputs[1], Trace("f")).is_constant
