"""What compiling takes grows with the number of nodes, not faster: calls of functions are counted.

Times would depend on what else the machine does; these numbers are the same each time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphdl as gd
from graphdl.compiler import fuse, pipeline
from graphdl.kernels import emit, memory
from graphdl.kernels.fingerprint import fingerprint

#: Four times the nodes may take so many times the calls: groups that grow to their limit take some
#: more. To look at all groups for each pair made it 4.9.
ALLOWED = 4.6


def calls_of(f: Callable[..., Any], *args: Any) -> tuple[int, Any]:
    """How often Python functions are entered, or generators resumed, and the result."""
    count = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        result = f(*args)
    finally:
        sys.setprofile(before)
    return count, result


def row(length: int) -> tuple[Callable[..., Any], Any]:
    """Operations one after the other."""

    def f(x: Any) -> Any:
        for _ in range(length):
            x = np.sin(x) * 0.5
        return x

    return f, gd.spec((100,))


def layers(count: int) -> tuple[Callable[..., Any], Any]:
    """A deep network and its gradient."""

    def loss(parameters: Any) -> Any:
        x = np.ones((4, 8))
        for w, b in parameters:
            x = np.tanh(x @ w + b)
        return np.sum(x * x)

    return gd.grad(loss), [(gd.spec((8, 8)), gd.spec((8,))) for _ in range(count)]


def beside(count: int) -> tuple[Callable[..., Any], Any]:
    """Many small expressions side by side, and their sum."""

    def f(xs: Any) -> Any:
        ys = [np.exp(x) * 0.5 + np.sum(x * x) for x in xs]
        return sum((y - y.max()).sum() for y in ys), ys

    return f, [gd.spec((100,)) for _ in range(count)]


@pytest.mark.parametrize(("make", "count"), [(row, 150), (layers, 12), (beside, 40)])
def test_four_times_the_nodes_are_four_times_the_work(make: Any, count: int) -> None:
    taken: dict[str, list[int]] = {}
    for size in (2, count, 4 * count):  # the first one fills what is remembered for good
        f, arguments = make(size)

        def step(name: str, g: Callable[..., Any], *args: Any) -> Any:
            calls, result = calls_of(g, *args)
            taken.setdefault(name, []).append(calls)
            return result

        graph = step("trace", gd.trace, f, arguments)
        step("fingerprint", fingerprint, graph)
        last = step("passes", pipeline.optimise, graph)[-1][1]
        groups = step("fuse", fuse.fuse, last)
        program = step("emit", emit.emit, last, groups)
        step("memory", memory.plan, program)
    grown = {name: calls[2] / calls[1] for name, calls in taken.items()}
    assert all(ratio < ALLOWED for ratio in grown.values()), (grown, taken)
