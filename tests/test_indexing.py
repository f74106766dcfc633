"""x[index] on traced values: a table of indices against plain NumPy, and how they are built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import graphdl as gd
from graphdl.graph import Graph
from tests.helpers import call_of, check, trace
from tests.programs import check_compiled, lower

INDICES = """
x[0]                x[-1]               x[1, 2]             x[1:]               x[:, 1:3]
x[::-1]             x[::2, ::-2]        x[-2:, -1]          x[5:]               x[2:1]
x[...]              x[..., 0]           x[0, ...]           c[..., 1]           c[:, ..., 1:2]
x[None]             x[:, None]          x[..., None, 0]     c[None, 0, ..., None]
x[()]               s[()]               s[None]             s[..., None]        s[...]
x[True]             x[False]            s[True]             x[:, True]          x[0:0]
o[0]                o[:, :, 1]          o[:, 0:0]           x[np.int32(1)]      x[3:0:-1, 4:0:-2]
x[-1:-3:-1]         x[[0, 2]]           x[[2, 0, 2]]        x[[-1, 0]]          x[:, [3, 1, 0]]
x[[]]               x[[0, 1], [1, 2]]   x[[[0, 1], [2, 0]]]  x[:, [[0, 1]]]      c[0, :, [0, 1]]
c[:, 0, [0, 1]]     c[[0, 1], :, [0, 1]]  c[[0, 1], 1]        c[:, [0, 2], 1]     c[[0], :, 1:]
c[:, [0, 1], [1, 2]]  c[[[0], [1]], [0, 2]]                   c[..., [0, 3]]      c[None, [0, 1]]
c[[0, 1], None, [0, 1]]                 c[:, None, [0, 1]]  c[0, None, [0, 1]]
c[:, [0, 1], None, 0]                   c[[1, 0], ..., [2, 3]]                  c[1, ..., [2, 3]]
c[:, 1, None, [2, 3]]                   x[np.array([0, 1], np.int8)]
x[np.array([2], np.uint64)]             x[np.array(1)]      x[x0 > 0]           x[:, m]
x[m[:3]]            c[:, x0 > 0]        c[[True, False]]    c[[True, False], :, 0]
x[m[:3], 1]         c[:, m[:3], [1]]    x[np.zeros(3, bool)]  x[k]                x[:, k]
x[k, k]             x[k - 3]            x[k[:, None], k]    c[:, k]             c[0, k]
c[k[:2] % 2, :, k[:2]]                  c[..., k]           x[k.astype(np.int8)]  c[j, k[:2]]
c[1, k, k]          c[j[:, None], k]    x[(k,)]             x[k, 1]             x[1, k]
x[1:, k]            x[::-1, k]          x[k][:, k]          c[:, 1:, k]         x[np.arange(3), k]
x[np.arange(3), [0, 3, 1]]              x[[0, 1, 2], -k - 1]
c[np.arange(2)[:, None], np.arange(3), k]                   c[np.arange(2), :, j]
c[np.arange(2), j]  c[np.arange(2), j, 1]                   c[:, np.arange(3), k]
b[np.arange(3), k]  c[np.arange(2), [0, 2]]                 c[j, np.arange(2), 0]
c[j, :, np.arange(2)]                   c[j[:, None] * 0 + k % 2, np.arange(3), np.arange(3)]
i[np.arange(3), k]  x[k[0]]             x[:, k[0]]          x[k[0], k[1]]       c[k[0] % 2, :, 1]
x[k[:0]]            x[np.ix_([0, 2], [1, 3])]               x[0][1]             x[1:][:, :2][::-1]
x[np.arange(1, 3)]
"""  # fmt: skip


def calls() -> list[str]:
    return [c for line in INDICES.splitlines() for c in map(str.strip, line.split("  ")) if c]


def indexed(text: str) -> tuple[Callable[..., Any], list[Any]]:
    """The function that a line of the table is, and its arguments."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(3, 4))
    values = {
        "x": x.astype(np.float32),
        "c": rng.normal(size=(2, 3, 4)),
        "s": np.array(1.5),
        "o": np.zeros((2, 0, 3)),
        "i": rng.integers(0, 99, (3, 4)),
        "b": x > 0,
        "k": np.array([2, 0, 1]),
        "j": np.array([1, 0]),
    }
    return call_of(text, values, x0=x, m=np.array([True, False, True, True]))


@pytest.mark.parametrize("text", calls())
def test_an_index_is_what_numpy_takes(text):
    check(*indexed(text))


def ops(graph: Graph) -> set[str]:
    return {node.op.name for node in graph.operations}


X, K = np.zeros((3, 4)), np.array([2, 0, 1])


@pytest.mark.parametrize(
    ("f", "args"),
    [
        (lambda x, k: x[np.arange(3), k], (X, K)),
        (lambda x: x[np.arange(3), [0, 3, 1]], (X,)),
        (lambda x, k: np.take_along_axis(x, k[:, None], 1), (X, K)),
        (lambda x, k: np.take_along_axis(x[:, None], k[:, None, None], 2), (X, K)),
        (lambda x, k: np.take_along_axis(x, k[None], 0), (X[:, :3], K)),
        (lambda x: x[[0, 1, 2]], (X,)),
        (lambda x: x[:, np.arange(3, 0, -2)], (X,)),
        (lambda x: x[1:, ::-1, None], (X,)),
        (lambda x: np.pad(x, 2, "reflect"), (X,)),
    ],
)
def test_picking_one_of_each_line_needs_no_gather(f, args):
    assert "gather" not in ops(trace(f, *args))


def test_picking_rows_is_a_gather():
    assert "gather" in ops(trace(lambda x, k: x[k], X, K))


ROWS = np.random.default_rng(4).normal(size=(7, 19)).astype(np.float32)
PICKS = np.array([[0, -1, 3], [-7, 6, 6]])


@pytest.mark.parametrize(
    ("f", "args"),
    [
        (lambda x, k: x[k], (ROWS, PICKS)),
        (lambda x, k: x[k], (ROWS.astype(np.float64)[:, ::-2], PICKS[0])),
        (lambda x, k: x.T[k], (ROWS, PICKS)),
        (lambda x, k: x[k], (np.arange(14, dtype=np.int8).reshape(7, 1, 2), PICKS)),
        (lambda x, k: x[k], (ROWS > 0, PICKS[1])),
        (lambda x, k: x[k], (ROWS.astype(np.float16), PICKS[1])),
        (lambda x, k: x[k], (ROWS[:, :0], PICKS)),
        (lambda x, k: x[k], (ROWS, PICKS[:0])),
        (lambda x, k: x[k], (ROWS, np.int64(-2))),
        (lambda x, k: x[k % 5] + x[k] * k[..., None], (ROWS, PICKS)),
        (lambda x, k: x[k] - np.sum(x[k], -1, keepdims=True), (ROWS, PICKS)),
        (lambda x, k: np.max(x[k], 0), (ROWS, PICKS)),
        (lambda x, k: x[:, k], (ROWS, PICKS)),
    ],
)  # fmt: skip
def test_rows_are_copied(f, args):
    check_compiled(f, *args)


def test_the_place_of_a_row_is_found_once():
    """Not for each of its elements: then each would be loaded by itself."""
    (text,) = (
        k.source for k in lower(lambda x, k: x[k], ROWS, PICKS).kernels if "gather" in k.name
    )
    before, within = text.split("lanes(")  # a masked loop, for rows as short as these
    assert "min_i64(max_i64(" in before
    assert "[j]" in within
    assert "at_" not in within.replace("row_at", "")


@pytest.mark.parametrize("times", [0, 1, 2, 3, 8, 9])
@pytest.mark.parametrize("axis", [0, 1, 2, None])
def test_repeated_elements(times, axis):
    x = np.arange(3 * 2 * 20, dtype=np.float32).reshape(3, 2, 20)
    check_compiled(lambda x: np.repeat(x, times, axis), x, python=axis == 2, separate=False)


@pytest.mark.parametrize("dtype", ["bool", "int8", "float16", "float64"])
def test_repeated_elements_of_a_view(dtype):
    x = (np.arange(40 * 17) % 100).reshape(40, 17).astype(dtype)
    check_compiled(lambda x: np.repeat(x[::-2].T, 3, 1), x)
    check_compiled(lambda x, y: np.repeat(x, 2, 0) | np.repeat(y, 2, 0), x > 3, x[:, 0:1] > 7)


def test_an_element_that_repeats_is_written_side_by_side():
    repeat = lower(lambda x: np.repeat(x[:, :20], 4, 1), np.zeros((5, 30))).kernels[0].source
    assert all(f"[{place}] = " in repeat for place in ("j * 4", "j * 4 + 1", "j * 4 + 3"))
    alone = lower(lambda x: np.repeat(x, 7), np.zeros(2000)).kernels[0].source
    assert "[j * 7 + 6] = " in alone
    across = lower(lambda x: np.repeat(x, 4, 0).T + 1, np.zeros((20, 5))).kernels[0].source
    assert " + 3] = " not in across
    wide = lower(lambda x: np.repeat(x[:, :20], 9, 1), np.zeros((5, 30))).kernels[0].source
    assert "[j] = " in wide


def test_no_row_outside_the_array_is_read():
    for f in (lambda x, k: x[k], lambda x, k: np.sum(x[k], -1), lambda x, k: x[k] * x[k]):
        for bad in (7, -8, 2**62):
            with pytest.raises(IndexError):
                gd.compile(f)(ROWS, np.array([0, bad, 1]))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_basic_index_is_what_numpy_takes(data):
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    index = data.draw(hnp.basic_indices(shape, allow_newaxis=True))
    x = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    check(lambda x: x[index], [x])


@settings(max_examples=150, deadline=None)
@given(data=st.data(), traced=st.booleans())
def test_any_mixed_index_is_what_numpy_takes(data, traced):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4))
    result = data.draw(hnp.array_shapes(min_dims=1, max_dims=2, max_side=3))
    parts, arrays = [], []
    for size in shape:
        kind = data.draw(st.sampled_from(["slice", "array", "integer", "new"]))
        if kind == "array":
            sub = data.draw(hnp.array_shapes(min_dims=1, max_dims=len(result)))
            sub = tuple(data.draw(st.sampled_from([1, n])) for n in result[-len(sub) :])
            array = data.draw(hnp.arrays(np.int64, sub, elements=st.integers(-size, size - 1)))
            arrays.append(array)
            parts.append(len(arrays))  # the place of an array among the arguments
        elif kind == "slice":
            parts.append(data.draw(st.slices(size)))
        elif kind == "integer":
            parts.append((data.draw(st.integers(-size, size - 1)),))
        else:
            parts += [None, slice(None)]

    def f(x, *given):
        chosen = given if traced else arrays
        return x[
            tuple(
                chosen[p - 1] if isinstance(p, int) else p[0] if isinstance(p, tuple) else p
                for p in parts
            )
        ]

    x = np.arange(np.prod(shape)).reshape(shape)
    check(f, [x, *arrays] if traced else [x])
