"""What the tests of tracing share: trace a call, run its graph, compare with plain NumPy."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optree

from graphdl import numpy_functions, trace
from graphdl.graph import Graph


def call_of(text: str, values: Mapping[str, Any], **names: Any) -> tuple[Callable[..., Any], list]:
    """The function that a line of code is of those `values` that it names, and these values."""
    namespace = {"np": np, "gd": numpy_functions, **names}
    code = compile(text, "<call>", "eval")
    used = [name for name in values if name in _names(code)]
    return eval(f"lambda {', '.join(used)}: {text}", namespace), [values[n] for n in used]


def _names(code: Any) -> set[str]:
    inner = [c for c in code.co_consts if hasattr(c, "co_names")]
    return set(code.co_names).union(*(_names(c) for c in inner))


def same(result: Any, expected: Any, exact: bool = True) -> None:
    """Equal in nesting, dtype, shape and every value (NaN too); or but for rounding."""
    results, expectations = optree.tree_leaves(result), optree.tree_leaves(expected)
    assert len(results) == len(expectations)
    for got, want in zip(results, map(np.asarray, expectations), strict=True):
        assert got.dtype == want.dtype, f"{got.dtype} instead of {want.dtype}"
        assert got.shape == want.shape, f"{got.shape} instead of {want.shape}"
        if exact:
            np.testing.assert_array_equal(got, want)
        else:
            rtol = 64 * np.finfo(want.dtype).eps if want.dtype.kind in "fc" else 0
            np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol)


def check(f: Callable[..., Any], args: Sequence[Any], exact: bool = True) -> Graph:
    """f traced and evaluated is f in plain NumPy."""
    graph = trace(f, *args)
    before = [np.array(arg) for arg in args]
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # means of nothing
        expected = f(*args)
    same(graph.evaluate(*args), expected, exact)
    for arg, old in zip(args, before, strict=True):
        np.testing.assert_array_equal(arg, old)
    return graph


def calls(table: str, newer: Mapping[str, tuple[str, ...]] | None = None) -> list[str]:
    """The calls of a table, four spaces apart, that this NumPy knows.

    `newer` lists, by the version of NumPy from which on they are right, how calls begin.
    """
    lines = (line for line in table.splitlines() if not line.startswith("#"))
    every = [call for line in lines for call in map(str.strip, line.split("    ")) if call]
    unknown = tuple(
        start
        for version, starts in (newer or {}).items()
        if np.lib.NumpyVersion(np.__version__) < f"{version}.0"
        for start in starts
    )
    return [call for call in every if not call.startswith(unknown)]


__all__ = ["call_of", "calls", "check", "same", "trace"]
