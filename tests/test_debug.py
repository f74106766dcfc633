"""gd.debug: effects in compiled code happen, in order, once, wherever they are written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphdl as gd

X = np.array([1.0, 2.0, 3.0])
Seen = list[Any]


def both(f: Callable[..., Any], *args: Any) -> tuple[Seen, Any]:
    """What a compiled function and the interpreter see, which must be the same, and the result."""
    graph = gd.trace(lambda seen, *xs: f(SEEN, *xs), 0, *args)
    SEEN.clear()
    by_numpy = graph.evaluate(0, *args)
    interpreted = list(SEEN)
    compiled = gd.compile(lambda *xs: f(SEEN, *xs))
    compiled.lower(*args)
    SEEN.clear()
    result = compiled(*args)
    found = list(SEEN)
    assert str(found) == str(interpreted)
    np.testing.assert_allclose(np.asarray(result), np.asarray(by_numpy))
    SEEN.clear()
    compiled(*args)
    assert str(SEEN) == str(found)  # at every call
    return found, result


SEEN: Seen = []


def note(seen: Seen, *values: Any) -> None:
    gd.debug.callback(lambda *xs: seen.append(tuple(np.asarray(x).tolist() for x in xs)), *values)


def test_in_the_order_in_which_they_are_written() -> None:
    def f(seen: Seen, x: Any) -> Any:
        note(seen, "first")
        y = np.exp(x)
        note(seen, x, 1)
        note(seen, np.sum(x), 2)
        note(seen, x, 1)
        return y * 2

    assert both(f, X)[0] == [("first",), ([1, 2, 3], 1), (6, 2), ([1, 2, 3], 1)]


def test_nothing_has_to_be_computed_from_them() -> None:
    def f(seen: Seen, x: Any) -> Any:
        note(seen, np.cumsum(np.sin(x) * 0))
        return x

    assert both(f, X)[0] == [([0, 0, 0],)]
    assert both(lambda seen, x: (note(seen, x), 5.0)[1], X)[0] == [([1, 2, 3],)]
    assert both(lambda seen, x: (note(seen, 7), np.zeros(2, bool))[1], X)[0] == [(7,)]


def test_types_and_copies() -> None:
    kept: Seen = []

    @gd.compile
    def f(x: Any, z: Any, n: Any) -> Any:
        tree = {"a": x[1:] * 2, "b": [z, x > 1, "text", None], "n": n}
        gd.debug.callback(lambda tree, more: kept.append((tree, more)), tree, more=np.float32(3))
        return x + 1

    f(X, np.array([1 + 2j]), 4)
    f(X * 0, np.array([0j]), 5)
    tree, more = kept[0]
    np.testing.assert_array_equal(tree["a"], [4.0, 6.0])
    np.testing.assert_array_equal(tree["b"][0], [1 + 2j])
    np.testing.assert_array_equal(tree["b"][1], [False, True, True])
    assert tree["b"][2:] == ["text", None]
    assert type(tree["n"]) is np.int64
    assert (tree["n"], more) == (4, 3)
    f(np.empty(3), np.zeros(1, complex), 1)


def test_in_loops() -> None:
    def f(seen: Seen, x: Any) -> Any:
        note(seen, "before")

        def step(c: Any, row: Any) -> Any:
            note(seen, c, row)
            return c + row, c

        total, _ = gd.scan(step, 0.0, x)
        note(seen, "between", total)
        gd.fori_loop(0, 3, lambda i, c: (note(seen, "i", i), c)[1], ())

        def condition(state: Any) -> Any:
            note(seen, "is", state)
            return state < 20

        last = gd.while_loop(condition, lambda y: (note(seen, "was", y), y * 3)[1], total)
        note(seen, "after")
        return last

    assert both(f, X)[0] == [
        ("before",), (0, 1), (1, 2), (3, 3), ("between", 6), ("i", 0), ("i", 1), ("i", 2),
        ("is", 6), ("was", 6), ("is", 18), ("was", 18), ("is", 54), ("after",),
    ]  # fmt: skip


def test_in_nested_loops_and_branches() -> None:
    def f(seen: Seen, x: Any) -> Any:
        def inner(c: Any, row: Any) -> Any:
            def odd(c: Any) -> Any:
                note(seen, "odd", row)
                return c + 1

            return gd.cond(row % 2 == 1, odd, lambda c: c, c), None

        def outer(c: Any, row: Any) -> Any:
            c, _ = gd.scan(inner, c, x)
            note(seen, "row", row)
            return c, None

        return gd.scan(outer, 0.0, x[:2])[0]

    once = [("odd", 1), ("odd", 3)]
    assert both(f, X)[0] == [*once, ("row", 1), *once, ("row", 2)]


def test_under_grad() -> None:
    """The forward pass, once, although the steps of the loops are needed on the way back too."""

    def loss(seen: Seen, x: Any) -> Any:
        note(seen, "loss", x[0])

        def step(c: Any, row: Any) -> Any:
            note(seen, "step", row)
            return np.sin(c) * row, None

        def body(state: Any) -> Any:
            n, y = state
            note(seen, "body", n)
            return n + 1, np.tanh(y * 2)

        total = gd.scan(step, x[0], x)[0]
        total = gd.while_loop(lambda state: state[0] < 2, body, (0, total))[1]
        return gd.cond(total > 9, np.exp, lambda t: (note(seen, "branch"), t * 2)[1], total)

    forward = [("loss", 1), ("step", 1), ("step", 2), ("step", 3), ("body", 0), ("body", 1)]
    plain = both(loss, X)[0]
    assert plain == [*forward, ("branch",)]
    assert both(lambda seen, x: gd.grad(lambda x: loss(seen, x))(x), X)[0] == plain
    again, slopes = both(
        lambda seen, x: gd.grad(lambda x: gd.checkpoint(lambda x: loss(seen, x))(x))(x), X
    )
    assert again == plain
    quiet = gd.grad(lambda x: loss([], x))
    np.testing.assert_allclose(slopes, quiet(X))
    gd.check_grads(lambda x: loss([], x), X, order=1)


def test_under_vmap() -> None:
    def one(seen: Seen, x: Any) -> Any:
        note(seen, "a", x)
        note(seen, "all")
        note(seen, "b", x * 2)
        return x + 1

    assert both(lambda seen, x: gd.vmap(lambda x: one(seen, x))(x), X)[0] == [
        ("a", 1), ("a", 2), ("a", 3), *[("all",)] * 3, ("b", 2), ("b", 4), ("b", 6),
    ]  # fmt: skip


def test_what_a_callback_raises_the_call_raises() -> None:
    def check(x: Any) -> None:
        if x < 0:
            raise ValueError(f"{x} is less than nothing")

    @gd.compile
    def f(x: Any) -> Any:
        def step(c: Any, row: Any) -> Any:
            gd.debug.callback(check, row)
            return c + row, None

        return gd.scan(step, 0.0, x)[0]

    assert f(X) == 6
    with pytest.raises(ValueError, match=r"-1\.0 is less than nothing"):
        f(np.array([1.0, -1.0]))
    with pytest.raises(ValueError, match="less than nothing"):
        f(-X)
    assert f(X) == 6


def test_large_programs_with_several_threads() -> None:
    """Callbacks on a thread of the pool, while the caller waits for it."""
    seen: Seen = []

    @gd.compile
    def f(x: Any) -> Any:
        for k in range(4):
            x = np.tanh(x) * 1.5
            gd.debug.callback(lambda s, k=k: seen.append((k, float(s))), np.sum(x))
        return x @ x

    x = np.random.default_rng(0).normal(size=(300, 300))
    f(x)
    y, wanted = x, []
    for k in range(4):
        y = np.tanh(y) * 1.5
        wanted.append((k, float(np.sum(y))))
    assert [k for k, _ in seen] == [0, 1, 2, 3]
    np.testing.assert_allclose([s for _, s in seen], [s for _, s in wanted])


def test_print(capsys: pytest.CaptureFixture[str]) -> None:
    @gd.compile
    def f(x: Any) -> Any:
        gd.debug.print("loss {:.2f} at {step}", np.sum(x), step=x[0])
        gd.debug.print(x, "and", x[1], sep="|")
        gd.debug.print("no braces")
        return x

    f(X)
    assert capsys.readouterr().out == "loss 6.00 at 1.0\n[1. 2. 3.]|and|2.0\nno braces\n"
    gd.debug.print("outside of {}", "a trace")
    assert capsys.readouterr().out == "outside of a trace\n"


def test_functions_without_effects_have_none() -> None:
    graph = gd.trace(lambda x: gd.scan(lambda c, r: (c + r, c), 0.0, x), X)
    (scan,) = [node for node in graph.operations if node.op.name == "scan"]
    assert scan["carries"] == 1
    assert not any(node.op.name == "after" for node in graph.operations)
