"""Calls from nopython code: a loop compiled by Numba calls a small function at each step.

graphdl's program (`executable.njit`) against the same function written for Numba by hand: one loop
over the elements, and for the Rosenbrock function the gradient on paper. Both return new arrays.
The time is that of CALLS calls; each changes its argument, so that none is the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from bench.cases import Array, Case, Prepared, Target
from bench.peers import library

SIZE = 10
CALLS = 1000
STEP = 1e-3

#: Of one array, with NumPy's names.
Function = Callable[[Any], Any]


def inputs() -> dict[str, Array]:
    """`x`, (SIZE,) float64."""
    return {"x": np.random.default_rng(0).standard_normal(SIZE)}


def driver(f: Any, pair: bool) -> Function:
    """The loop: the sum over all calls of what they return at [0]; of the value too, for a pair."""
    numba = library("numba")

    if pair:

        def loop(x: Any) -> Any:
            x, total = x.copy(), 0.0
            for _ in range(CALLS):
                value, gradient = f(x)
                total += value + gradient[0]
                x[0] += STEP
            return total

    else:

        def loop(x: Any) -> Any:
            x, total = x.copy(), 0.0
            for _ in range(CALLS):
                total += f(x)[0]
                x[0] += STEP
            return total

    made: Function = numba.njit(loop)
    return made


def prepared(f: Any, pair: bool, inputs: Mapping[str, Array]) -> Prepared:
    loop, x = driver(f, pair), inputs["x"]
    return Prepared(lambda: [np.asarray(loop(x))], lambda: loop(x))


def with_graphdl(
    function: Callable[[], Function], pair: bool, inputs: Mapping[str, Array]
) -> Prepared:
    import graphdl as gd

    return prepared(gd.compile(function()).lower(inputs["x"]).njit, pair, inputs)


def with_numba(written: Function, pair: bool, inputs: Mapping[str, Array]) -> Prepared:
    return prepared(library("numba").njit(written), pair, inputs)


def floor(reference: Function, pair: bool, inputs: Mapping[str, Array]) -> Prepared:
    loop, x = driver(library("numba").njit(lambda x: x.copy()), False), inputs["x"]
    return Prepared(lambda: expected(reference, pair, inputs), lambda: loop(x))


def expected(reference: Function, pair: bool, inputs: Mapping[str, Array]) -> list[Array]:
    x, total = inputs["x"].copy(), 0.0
    for _ in range(CALLS):
        found = reference(x)
        total += float(found[0]) + float(found[1][0]) if pair else float(found[0])
        x[0] += STEP
    return [np.asarray(total)]


def written_chain(count: int) -> Function:
    """The operations of `overhead.chain` by hand: all of them on one element, then the next."""
    steps = ["v = np.sin(v)" if place % 2 == 0 else "v = v * 0.5" for place in range(count)]
    body = "".join(f"        {step}\n" for step in steps)
    text = (
        "def written(x):\n"
        "    y = np.empty_like(x)\n"
        "    for i in range(x.size):\n"
        f"        v = x[i]\n{body}"
        "        y[i] = v\n"
        "    return y\n"
    )
    names: dict[str, Any] = {"np": np}
    exec(text, names)
    written: Function = names["written"]
    return written


def written_rosenbrock(x: Any) -> Any:
    """The value and the gradient, by hand."""
    gradient = np.zeros_like(x)
    value = 0.0
    for i in range(x.size - 1):
        inner = x[i + 1] - x[i] * x[i]
        rest = 1.0 - x[i]
        value += 100.0 * inner * inner + rest * rest
        gradient[i] += -400.0 * inner * x[i] - 2.0 * rest
        gradient[i + 1] += 200.0 * inner
    return value, gradient


def case(
    name: str,
    function: Callable[[], Function],
    written: Function,
    reference: Function,
    pair: bool,
) -> Case:
    """What makes a function for graphdl, the same by hand, and in NumPy."""
    return Case(
        name=f"{CALLS} calls from @njit, {name}",
        inputs=inputs,
        expected=partial(expected, reference, pair),
        builders={
            "graphdl": partial(with_graphdl, function, pair),
            "numba": partial(with_numba, written, pair),
            "floor": partial(floor, reference, pair),
        },
        tolerance=1e-11,
        floor_label=f"{CALLS} x.copy() in @njit",
        targets=(Target(times=0.5, peers=("numba",)),),
    )
