"""A process that runs for long: nothing of a dropped function stays, calls do not slow down."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from typing import Any

import numpy as np
import pytest

import graphdl as gd
from graphdl.graph import Graph, Node


def alive() -> Counter[str]:
    gc.collect()
    return Counter(type(x).__name__ for x in gc.get_objects() if issubclass(type(x), (Graph, Node)))


def plain(x: Any) -> Any:
    return np.sum(np.tanh(x * 2 + 1.0) ** 2)


def looping(x: Any) -> Any:
    return np.sum(gd.scan(lambda c, _: (np.sin(c), None), x, length=3)[0])


def region(x: Any) -> Any:
    return np.sum(gd.checkpoint(plain)(x))


@pytest.mark.parametrize("f", [plain, looping, region])
def test_graphs_of_a_dropped_function_are_freed(f: Any) -> None:
    def used() -> list[weakref.ref[Any]]:
        compiled = gd.compile(gd.value_and_grad(f))
        for n in range(2, 6):
            compiled(np.ones(n))
        return [weakref.ref(executable) for executable in compiled._executables.values()]

    used()
    before = alive()
    assert len(used()) == 4
    assert alive() == before
    executables = used()
    gc.collect()
    assert all(executable() is None for executable in executables)


def test_calls_that_alternate_between_specialisations_do_so_natively() -> None:
    compiled = gd.compile(lambda x, k: (x * k, x + k))
    arrays = [np.arange(float(n)) for n in range(1, 13)]
    for _ in range(3):
        for x in arrays:
            for a, b in zip(compiled(x, 3.0), (x * 3.0, x + 3.0), strict=True):
                np.testing.assert_array_equal(a, b)
    looked: list[int] = []
    general = compiled._specialised
    compiled._specialised = lambda *args: looked.append(1) or general(*args)  # type: ignore[func-returns-value,method-assign,misc]
    for _ in range(5):
        for x in arrays[:6]:
            np.testing.assert_array_equal(compiled(x, 2.0)[0], x * 2.0)
    assert len(looked) <= 6  # each once, until it is among those used last
    with pytest.raises(TypeError):
        compiled(arrays[0])


def test_donated_arguments_of_several_specialisations() -> None:
    compiled = gd.compile(lambda x: x * 2, donate=0)
    for n in (3, 4, 3, 4, 5, 3):
        x = np.ones(n)
        y = compiled(x)
        assert y is x
        np.testing.assert_array_equal(y, 2.0)


def test_many_calls_take_no_memory() -> None:
    compiled = gd.compile(lambda x, y: (np.tanh(x) * y, np.sum(x)))
    x = np.ones(10)
    results = compiled(x, x)
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(20_000):
        results = compiled(x, x)
    assert len(gc.get_objects()) - before < 50
    assert len(results) == 2
