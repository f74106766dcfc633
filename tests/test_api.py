"""What users call: trees, scalars, layouts, nesting, threads, and the message of each mistake."""

from __future__ import annotations

import collections
import dataclasses
import functools
import threading
from typing import Any

import numpy as np
import pytest

import graphdl as gd
from graphdl.errors import (
    ConcreteValueError,
    DtypeError,
    GradientError,
    GraphError,
    GraphIndexError,
    LeakError,
    ShapeError,
    UnsupportedError,
)
from graphdl.tracing import TracedArray, current_trace
from graphdl.trees import leaves_of
from tests.programs import assert_same

X = np.arange(6.0).reshape(2, 3)
Y = np.full((2, 3), 0.5)
Point = collections.namedtuple("Point", "x y")


def twice(f: Any, *args: Any, **kwargs: Any) -> Any:
    """The result of a second call, which takes another way into the program than the first."""
    first, second = f(*args, **kwargs), f(*args, **kwargs)
    assert gd.trees.flatten(first)[1] == gd.trees.flatten(second)[1]
    for a, b in zip(leaves_of(first), leaves_of(second), strict=True):
        assert_same(a, b)
    return second


# --- trees ----------------------------------------------------------------------------------------


def test_trees_of_arguments_and_results():
    def f(p, extra):
        a, (b, c) = p["a"], p["b"]
        return {"z": a - b, "list": [c, (a + b,)], "none": None, "point": Point(b, extra.x)}

    args = {"a": X, "b": (Y, X * 2)}, Point(Y, None)
    result = twice(gd.compile(f), *args)
    assert type(result) is dict
    assert result["none"] is None
    assert type(result["list"]) is list
    assert type(result["list"][1]) is tuple
    assert type(result["point"]) is Point
    np.testing.assert_array_equal(result["z"], X - Y)
    np.testing.assert_array_equal(result["list"][1][0], X + Y)


def test_none_among_arguments_and_results():
    f = gd.compile(lambda a, b, c: (None, a - c if b is None else a + b, {"k": None, "v": c}))
    result = twice(f, X, None, Y)
    assert result[0] is None
    assert result[2]["k"] is None
    np.testing.assert_array_equal(result[1], X - Y)
    np.testing.assert_array_equal(twice(f, X, Y, Y)[1], X + Y)
    np.testing.assert_array_equal(twice(f, X, None, Y)[1], X - Y)


def test_none_before_a_donated_argument():
    f = gd.compile(lambda n, a, b: a + b, donate=1)
    for _ in range(3):
        x = X.copy()
        assert f(None, x, Y) is x
        np.testing.assert_array_equal(x, X + Y)


@pytest.mark.parametrize(
    "tree",
    [
        {"b": X, "a": Y},
        {2: X, 1: Y},
        {"b": X, 1: Y},
        collections.OrderedDict(b=X, a=Y),
        collections.defaultdict(list, b=X, a=Y),
        [X, Y],
        (X, [Y]),
        Point(X, Y),
        {"deep": [{"er": (X,)}, Y]},
    ],
    ids=lambda tree: f"{type(tree).__name__}{len(tree)}",
)
def test_a_tree_goes_through_a_function(tree):
    f = gd.compile(lambda tree: gd.trees.optree.tree_map(lambda x: x * 2, tree))
    result = twice(f, tree)
    assert type(result) is type(tree)
    for got, leaf in zip(leaves_of(result), leaves_of(tree), strict=True):
        np.testing.assert_array_equal(got, leaf * 2)


def test_a_dict_in_another_order_is_the_same_argument():
    f = gd.compile(lambda p: p["a"] - p["b"])
    for p in ({"a": X, "b": Y}, {"b": Y, "a": X}, {"a": X, "b": Y}):
        np.testing.assert_array_equal(f(p), X - Y)


def test_a_dict_of_results_keeps_its_order():
    f = gd.compile(lambda x: {"z": x, "a": x + 1, "m": {"q": x * 2, "b": x * 3}})
    for _ in range(2):
        result = f(X)
        assert list(result) == ["z", "a", "m"]
        assert list(result["m"]) == ["q", "b"]
        for got, want in zip(leaves_of(result), (X + 1, X * 3, X * 2, X), strict=True):
            np.testing.assert_array_equal(got, want)


def test_results_that_repeat_have_memory_of_their_own():
    f = gd.compile(lambda a: (a, a, a + 1, a + 1, a.T, a.T, np.ones(2), np.ones(2), 3.0))
    result = twice(f, X)
    for i, a in enumerate(result):
        assert not np.shares_memory(a, X)
        assert a.flags.writeable
        assert not any(np.shares_memory(a, b) for b in result[:i])
    assert_same(result[-1], np.array(3.0))


def test_a_function_without_arguments():
    assert_same(twice(gd.compile(lambda: np.ones(3))), np.ones(3))


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "uint64", "bool"])
@pytest.mark.parametrize("scalar", [2, -1, 2.5, True])
def test_python_scalars_are_weak(dtype, scalar):
    x = np.array([0, 1, 1]).astype(dtype)
    if dtype == "uint64" and scalar == -1:
        return  # NumPy refuses it
    f = gd.compile(lambda x, a: (x * a, x + 1 * a, a))
    with np.errstate(all="ignore"):
        want = x * scalar, x + 1 * scalar, np.asarray(scalar)
    for got, one in zip(twice(f, x, scalar), want, strict=True):
        assert_same(got, one)


def test_numpy_scalars_are_strong():
    f = gd.compile(lambda x, a: x * a)
    assert_same(twice(f, X.astype("f4"), np.float64(2)), X * 2)
    assert_same(twice(f, X.astype("f4"), 2.0), (X * 2).astype("f4"))
    assert_same(twice(f, np.float32(3), np.array(2.0, "f4")), np.array(6, "f4"))
    assert_same(twice(f, 3, 4), np.array(12))


def test_keywords_and_defaults():
    f = gd.compile(lambda a, b=2.0, *, c=1.0: a * b + c)
    np.testing.assert_array_equal(twice(f, X), X * 2 + 1)
    np.testing.assert_array_equal(twice(f, X, c=Y), X * 2 + Y)
    np.testing.assert_array_equal(twice(f, X, b=3.0), X * 3 + 1)
    np.testing.assert_array_equal(twice(f, X, Y, c=0.0), X * Y)
    np.testing.assert_array_equal(twice(f, b=Y, a=X), X * Y + 1)


def layouts() -> dict[str, Any]:
    base = np.arange(48.0).reshape(4, 12)
    unaligned = np.zeros(6 * 8 + 1, np.uint8)[1:].view(np.float64).reshape(2, 3)
    unaligned[...] = X
    read_only = X.copy()
    read_only.flags.writeable = False
    return {
        "sliced": base[::2, ::4],
        "negative steps": X[::-1, ::-1],
        "transposed": np.asfortranarray(X),
        "unaligned": unaligned,
        "read-only": read_only,
        "byte-swapped": X.astype(">f8"),
        "repeated": np.broadcast_to(np.arange(3.0), (2, 3)),
        "a matrix": X.view(np.ndarray),
        "of a subclass": X.view(type("Sub", (np.ndarray,), {})),
        "long long": np.arange(6, dtype=np.longlong).reshape(2, 3),
        "a memory map's kind": memoryview(X.copy()).obj,
    }


@pytest.mark.parametrize("name", layouts())
def test_arrays_of_any_layout(name):
    x = layouts()[name]
    before = np.array(x)
    got = twice(gd.compile(lambda x: (x * 2, x.T, np.sum(x, axis=0))), x)
    for one, want in zip(got, (before * 2, before.T, before.sum(axis=0)), strict=True):
        assert type(one) is np.ndarray
        np.testing.assert_array_equal(one, want)
        assert not np.shares_memory(one, x)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("order", [(1, 0), (0, 1)])
def test_specialisations_live_side_by_side(order):
    f = gd.compile(lambda x: x * 2 + 1)
    kinds = [X, X.astype("f4"), X[:1], X.astype(int), 3.0, 3]
    for i in order:
        for x in kinds[i:] + kinds[:i]:
            assert_same(f(x), np.asarray(np.asarray(x) * 2 + 1))
    assert "6 specialisations" in repr(f)


def test_methods_and_partials():
    class Scale:
        factor = 3.0

        @gd.compile
        def call(self, x):
            return x

        def apply(self, x, y=0.0):
            return x * self.factor + y

    scale = Scale()
    np.testing.assert_array_equal(twice(gd.compile(scale.apply), X), X * 3)
    np.testing.assert_array_equal(
        twice(gd.compile(functools.partial(scale.apply, y=1.0)), X), X * 3 + 1
    )


def test_decorator_forms():
    @gd.compile
    def f(x):
        """Doubles."""
        return x * 2

    @gd.compile(donate=0)
    def g(x):
        return x * 2

    assert f.__name__ == "f"
    assert f.__doc__ == "Doubles."
    np.testing.assert_array_equal(f(X), X * 2)
    x = X.copy()
    assert g(x) is x


# --- executables ----------------------------------------------------------------------------------


def test_lower_takes_arrays_and_specs():
    f = gd.compile(lambda x, p: (x + p["b"], np.sum(x)))
    for args in ((X, {"b": Y}), (gd.spec((2, 3)), {"b": gd.spec((2, 3))})):
        executable = f.lower(*args)
        got = executable(X, {"b": Y})
        np.testing.assert_array_equal(got[0], X + Y)
        assert float(got[1]) == 15.0
        assert "kernels" in str(executable.explain())
        assert "def kernel" in executable.source
        assert len(executable.kernels) >= 1
        assert executable.optimized.nodes
        assert "arena" in str(executable.memory)
        assert "Executable" in repr(executable)


def test_an_executable_copies_donated_arrays_that_it_cannot_write():
    executable = gd.compile(lambda x: x * 2, donate=0).lower(X)
    x = X.copy()
    assert executable(x) is x
    x = X.copy()
    x.flags.writeable = False
    np.testing.assert_array_equal(executable(x), X * 2)
    np.testing.assert_array_equal(x, X)


def test_an_executable_takes_only_its_own_shapes():
    executable = gd.compile(lambda x: x + 1).lower(X)
    with pytest.raises(TypeError, match=r"float64\[2, 3\]"):
        executable(X[:1])
    with pytest.raises(TypeError, match="nest"):
        executable((X, X))


# --- nesting --------------------------------------------------------------------------------------


def test_compiled_functions_inside_traced_ones():
    inner = gd.compile(lambda x: np.tanh(x))
    outer = gd.compile(lambda x: inner(x) * 2)
    np.testing.assert_allclose(twice(outer, X), np.tanh(X) * 2, rtol=1e-14)
    np.testing.assert_allclose(
        gd.grad(lambda x: np.sum(inner(x)))(X), 1 - np.tanh(X) ** 2, rtol=1e-12
    )
    np.testing.assert_allclose(gd.grad(gd.compile(lambda x: np.sum(x * x)))(X), 2 * X)


def test_a_compiled_function_that_closes_over_a_traced_value():
    def f(x):
        return gd.compile(lambda y: x * y)(np.ones(3))

    np.testing.assert_array_equal(twice(gd.compile(f), X), X)
    np.testing.assert_array_equal(gd.grad(lambda x: np.sum(f(x)))(X), np.ones((2, 3)))


def test_gradients_inside_gradients():
    def cube(x):
        return np.sum(x**3)

    def outer(x):
        return np.sum(gd.grad(cube)(x) * gd.grad(lambda y: np.sum(x * y * y))(x))

    # sum of 3 x^2 * 2 x^2
    np.testing.assert_allclose(gd.grad(outer)(X), 24 * X**3)
    np.testing.assert_allclose(gd.compile(gd.grad(outer))(X), 24 * X**3)
    third = gd.grad(gd.grad(gd.grad(lambda x: x**4)))
    assert float(third(2.0)) == 48.0
    assert float(gd.compile(third)(2.0)) == 48.0


def test_value_and_grad_of_trees_with_aux():
    def f(p, x, *, s):
        return np.sum(p["w"] * x * s), {"kept": x + 1}

    (value, aux), slope = twice(gd.value_and_grad(f, has_aux=True), {"w": X}, Y, s=2.0)
    assert float(value) == 15.0
    np.testing.assert_array_equal(slope["w"], Y * 2)
    np.testing.assert_array_equal(aux["kept"], Y + 1)
    both = gd.grad(lambda a, b: np.sum(a * b), argnums=(0, -1))(X, Y)
    np.testing.assert_array_equal(both[0], Y)
    np.testing.assert_array_equal(both[1], X)


def test_vjp_with_arrays():
    value, pull_back = gd.vjp(lambda x, y: (x * y, np.sum(x)), X, Y)
    np.testing.assert_array_equal(value[0], X * Y)
    a, b = pull_back((np.ones((2, 3)), np.array(2.0)))
    np.testing.assert_array_equal(a, Y + 2)
    np.testing.assert_array_equal(b, X)


def test_plain_arrays_run_in_numpy_outside():
    """The same function without graphdl: the debugger."""

    def f(x):
        return np.sum(np.tanh(x @ x.T)[::-1])

    np.testing.assert_allclose(gd.compile(f)(X), f(X), rtol=1e-13)


# --- threads and failures -------------------------------------------------------------------------


def test_threads_call_one_function():
    f = gd.compile(lambda x, i: (np.sum(np.exp(x) * x + 1, axis=1), x[i]))
    wrong: list[Any] = []

    def work(k: int) -> None:
        for n in range(30):
            rows = (3, 40, 2000)[n % 3]
            x, i = np.full((rows, 50), float(k)), np.array([0, rows - 1])
            if n % 10 == 9:
                try:
                    f(x, i + rows)
                    wrong.append("no error")
                except GraphIndexError:
                    continue
            got = f(x, i)
            if not np.allclose(got[0], 50 * (np.exp(k) * k + 1)) or not np.all(got[1] == k):
                wrong.append((k, n))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_exception_inside_leaves_nothing_behind():
    def bad(x):
        raise KeyError("mine")

    for call in (gd.compile(bad), gd.grad(bad), gd.compile(gd.grad(bad))):
        with pytest.raises(KeyError, match="mine"):
            call(X)
        assert current_trace() is None
    np.testing.assert_array_equal(gd.compile(lambda x: x + 1)(X), X + 1)


def test_a_function_that_failed_once_may_work_later():
    fail = [True]

    @gd.compile
    def f(x):
        if fail[0]:
            raise ValueError("not yet")
        return x + 1

    with pytest.raises(ValueError, match="not yet"):
        f(X)
    fail[0] = False
    np.testing.assert_array_equal(f(X), X + 1)


INDEXED = {
    "rows": lambda x, i: x[i],
    "columns": lambda x, i: x[:, i] * 2,
    "pairs": lambda x, i: x[i, i],
    "taken": lambda x, i: np.take(x, i, axis=0) + 1,
    "one of each row": lambda x, i: x[np.arange(2), np.concatenate([i, i])[:2]],
    "summed": lambda x, i: np.sum(x[i]),
    "a gradient": lambda x, i: gd.grad(lambda x: np.sum(x[i] ** 2))(x),
}


@pytest.mark.parametrize("name", INDEXED)
def test_an_index_out_of_bounds_is_an_error_of_the_call(name):
    f = gd.compile(INDEXED[name])
    x = X[:, :2].copy()
    for good in ([1], [-2], [0]):
        f(x, np.array(good))
    for bad in ([2], [-3], [2**40], [-(2**40)]):
        with pytest.raises(GraphIndexError, match="out of bounds") as caught:
            f(x, np.array(bad))
        assert isinstance(caught.value, IndexError)
        assert __file__ in str(caught.value)
    f(x, np.array([1]))


def test_a_scalar_index_out_of_bounds():
    f = gd.compile(lambda x, i: x[i])
    np.testing.assert_array_equal(twice(f, X, 1), X[1])
    np.testing.assert_array_equal(twice(f, X, -1), X[-1])
    for bad in (2, -3):
        with pytest.raises(GraphIndexError):
            f(X, bad)


# --- bad input: each mistake has its message, which names the user's line -------------------------


def mistake(f: Any, *args: Any) -> str:
    """The message of the error that calling f compiled gives; it names this file."""
    with pytest.raises(GraphError) as caught:
        gd.compile(f)(*args)
    text = str(caught.value)
    assert __file__ in text, f"no line of the user's in: {text}"
    return text


#: An array from outside of the traced functions.
PLAIN = np.ones((2, 3))

MISTAKES: dict[str, tuple[Any, str, type[Exception]]] = {
    "if": (lambda x: x if x.sum() > 0 else -x, "np.where", ConcreteValueError),
    "while": (lambda x: [1 for _ in iter(lambda: bool(x[0, 0] > 1), False)], "np.where", TypeError),
    "float()": (lambda x: float(np.sum(x)), "0-d array", ConcreteValueError),
    "%f": (lambda x: "%f" % np.sum(x), "0-d array", ConcreteValueError),  # noqa: UP031
    "int()": (lambda x: np.ones(int(x[0, 0])), "static number", ConcreteValueError),
    "item": (lambda x: x[0, 0].item(), "0-d array", ConcreteValueError),
    "range": (lambda x: [x for _ in range(x[0, 0].astype(int))], "static", ConcreteValueError),
    "a mask": (lambda x: x[x > 0], "np.where(mask", ConcreteValueError),
    "shapes": (lambda x: x + np.ones(4), "(2, 3) and (4,)", ShapeError),
    "matmul": (lambda x: x @ x, "(2, 3) and (2, 3)", ValueError),
    "axis": (lambda x: np.sum(x, axis=2), "axis 2", ValueError),
    "reshape": (lambda x: x.reshape(5), "6 elements", ValueError),
    "concatenate": (lambda x: np.concatenate([x, np.ones((2, 4))]), "(2, 4)", ValueError),
    "an index": (lambda x: x[5], "out of bounds", IndexError),
    "a float index": (lambda x: x[1.5], "valid indices", IndexError),
    "dtypes": (lambda x: x & 1, "bitwise_and", TypeError),
    "an unknown function": (lambda x: np.unique(x), "cannot be traced", UnsupportedError),
    "out=": (lambda x: np.add(x, 1, out=PLAIN), "out=", UnsupportedError),
    "nothing returned": (lambda x: None, "no array", TypeError),
    "an empty result": (lambda x: (), "no array", TypeError),
    "a string returned": (lambda x: "text", "str", DtypeError),
    "grad of an array": (lambda x: gd.grad(lambda x: x)(x), "scalar", GradientError),
    "grad of several": (lambda x: gd.grad(lambda x: (np.sum(x), 1))(x), "has_aux", GradientError),
    "grad of nothing": (lambda x: gd.grad(lambda x: None)(x), "0 values", GradientError),
    "grad of an index": (lambda x: gd.grad(lambda x: np.argmax(x))(x), "float", GradientError),
    "grad by an integer": (
        lambda x: gd.grad(lambda i: np.sum(i * 1.0))(x.astype(int)), "float", GradientError,
    ),
    "argnums": (lambda x: gd.grad(lambda x: np.sum(x), argnums=1)(x), "argnums=1", GradientError),
    "formatting": (lambda x: f"{x:.2f}", "print it outside", ConcreteValueError),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_has_its_message(name):
    f, words, kind = MISTAKES[name]
    with pytest.raises(kind):
        gd.compile(f)(X)
    assert words in mistake(f, X)


def test_a_gradient_of_the_wrong_kind_outside_of_a_trace():
    with pytest.raises(GradientError, match="scalar"):
        gd.grad(lambda x: x * 2)(X)
    with pytest.raises(GradientError, match="int64"):
        gd.grad(lambda x: np.sum(x * 2.0))(np.arange(3))
    with pytest.raises(GradientError, match="argnums=0"):
        gd.grad(lambda: 1.0)()


@pytest.mark.parametrize(
    "value", ["text", object(), {1, 2}, np.ones(3, "longdouble"), np.array(["a"]), np.array([None])]
)
def test_an_argument_that_is_no_array(value):
    with pytest.raises(GraphError) as caught:
        gd.compile(lambda x: x)(value)
    assert isinstance(caught.value, TypeError)
    with pytest.raises(GraphError):
        gd.compile(lambda x, y: x)(X, {"deep": value})


def test_the_argument_is_named():
    with pytest.raises(DtypeError, match=r"state\['name'\]"):
        gd.compile(lambda x, state: x)(X, {"name": "text"})


def test_a_spec_is_no_argument():
    with pytest.raises(DtypeError, match="description"):
        gd.compile(lambda x: x)(gd.spec((3,)))


def test_an_integer_that_is_too_large():
    with pytest.raises(DtypeError, match="int64"):
        gd.compile(lambda x: x + 1)(2**70)


def test_leaked_values():
    kept: list[TracedArray] = []
    gd.compile(lambda x: kept.append(x * 2) or x + 1)(X)
    for use in (
        lambda: kept[0] + 1,
        lambda: np.sum(kept[0]),
        lambda: kept[0][0],
        lambda: gd.compile(lambda x: x + kept[0])(X),
        lambda: gd.compile(lambda x: kept[0])(X),
        lambda: gd.compile(lambda x: x)(kept[0]),
    ):
        with pytest.raises(LeakError):
            use()
    assert current_trace() is None


def test_what_is_not_available():
    with pytest.raises(UnsupportedError, match="target"):
        gd.compile(lambda x: x, target="tpu")


def test_wrong_numbers_of_arguments():
    with pytest.raises(TypeError):
        gd.compile(lambda x: x)(X, X)
    with pytest.raises(TypeError):
        gd.compile(lambda x, y: x)(X)


def test_arguments_by_name_are_those_by_position():
    f = gd.compile(lambda x, y=2.0, *, z=0.0: x * y + z)
    assert [float(f(3.0, 2.0)), float(f(3.0, y=2.0)), float(f(y=2.0, x=3.0))] == [6, 6, 6]
    assert f.lower(y=2.0, x=3.0) is f.lower(3.0, 2.0)
    assert len(f._executables) == 1
    assert float(f(3.0)) == 6
    assert float(f(3.0, z=1.0)) == 7  # y has its default, and z follows no position
    assert float(f(z=1.0, x=3.0, y=4.0)) == 13
    with pytest.raises(TypeError, match="multiple values"):
        f(3.0, x=1.0)
    with pytest.raises(TypeError, match="unexpected keyword"):
        f(3.0, w=1.0)


class Sized:
    @gd.compile
    def area(self, x):
        return x * 2


def test_a_compiled_method_says_what_to_write():
    with pytest.raises(
        DtypeError, match=r"self.method = gd.compile\(self.method\) in __init__ of Sized"
    ):
        Sized().area(1.0)


def test_masks_and_matrices_are_not_lost_in_silence():
    f = gd.compile(lambda x: x * x)
    with pytest.raises(DtypeError, match=r"argument x is a masked array.*where=valid"):
        f(np.ma.masked_less(np.arange(3.0), 1))
    with pytest.raises(DtypeError, match=r"argument x is an np.matrix.*np.asarray"):
        f(np.ones((2, 2)).view(np.matrix))
    np.testing.assert_array_equal(f(np.ma.ones(3)), 1)


def test_a_dataclass_says_what_to_write():
    point = dataclasses.make_dataclass("Point", ["x"])
    with pytest.raises(DtypeError, match=r"@gd.register_dataclass above the @dataclass of Point"):
        gd.compile(lambda p: p.x)(point(1.0))
    with pytest.raises(DtypeError, match=r"returned a Point, .* @gd.register_dataclass above"):
        gd.compile(lambda x: point(x))(1.0)
