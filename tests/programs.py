"""Ways to run one function: NumPy, the interpreter, native code fused and not, plain Python.

`check_compiled` runs them all and compares; the tests of the compiler are tables of calls to it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optree

import graphdl as gd
from graphdl.compiler import fuse, pipeline
from graphdl.compiler.fuse import Group
from graphdl.executable import Executable
from graphdl.graph import Graph
from graphdl.kernels import emit, memory
from graphdl.kernels.cpu import blas, build, cores, entry
from graphdl.kernels.interpret import run_as_python
from graphdl.kernels.memory import ALIGNMENT, Memory
from graphdl.kernels.program import Address, Program, Routine

Grouping = Callable[[Graph], list[Group]]


def lower(f: Callable[..., Any], *args: Any, donate: Any = ()) -> Executable:
    return gd.compile(f, donate=donate).lower(*args)


def program_of(graph: Graph, grouping: Grouping = fuse.fuse) -> Program:
    """The launches of a traced graph."""
    optimized = pipeline.optimise(graph)[-1][1]
    return emit.emit(optimized, grouping(optimized))


def run_native(graph: Graph, args: Sequence[Any], grouping: Grouping = fuse.fuse) -> list[Any]:
    """The results of native code, kernels grouped by `grouping`."""
    program = program_of(graph, grouping)
    made = build.build(program, memory.plan(program))
    takes = [build.array_spec(node.type) for node in graph.inputs]
    gives = entry.TupleSpec(tuple(entry.New(n.dtype, n.shape) for n in program.graph.outputs))
    leaves = [_array(arg, node) for arg, node in zip(_leaves(args), graph.inputs, strict=True)]
    return list(build.entry_of(made, takes, gives)(*leaves))


def placed(
    program: Program, args: Sequence[Any], alignment: int
) -> tuple[list[Any], list[Any], Callable[[Address], int]]:
    """Memory for a program: its results, all arrays that it may touch, where a word points to."""
    graph, plan = program.graph, memory.plan(program)
    inputs = [_array(arg, node) for arg, node in zip(_leaves(args), graph.inputs, strict=True)]
    results = [np.zeros(node.shape, node.dtype) for node in graph.outputs]
    constants = [build.constant_array(node) for node in program.constants]
    arena = np.full(plan.arena_bytes + alignment, 0xAB, np.uint8)
    if program.status is not None:
        arena[plan.places[program.status].offset :][:8] = 0
    kinds = {"argument": inputs, "result": results, "constant": constants}

    def address(word: Address) -> int:
        place = plan.places[word.where]
        base = arena if place.kind == "arena" else kinds[place.kind][place.index]
        offset = place.offset if place.kind == "arena" else 0
        return int(base.ctypes.data) + offset + word.offset

    return results, [*inputs, *results, *constants, arena], address


def run_in_python(graph: Graph, args: Sequence[Any], grouping: Grouping = fuse.fuse) -> list[Any]:
    """The results of the generated text run as ordinary Python, each launch cut in two calls.

    Kernels may touch only the arrays of the program: an access outside of them raises IndexError.
    """
    program = program_of(graph, grouping)
    results, memories, address = placed(program, args, ALIGNMENT)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for launch in program.launches:
            table = np.array(
                [
                    address(word)
                    if isinstance(word, Address)
                    else blas.library().addresses[word.name] if isinstance(word, Routine)
                    else word if isinstance(word, int) else 0
                    for word in launch.words
                ],
                np.int64,
            )  # fmt: skip
            half = launch.iterations // 2
            for lo, hi in ((half, launch.iterations), (0, half)):
                if launch.core is None:
                    run_as_python(launch.source, table, lo, hi, memories)
                else:
                    cores.in_python(
                        launch.core,
                        table,
                        lo,
                        hi,
                        lambda place, lo, hi, source=launch.source: run_as_python(
                            source, place, lo, hi
                        ),
                    )
    return results


def _leaves(args: Sequence[Any]) -> list[Any]:
    leaves: list[Any] = optree.tree_leaves(tuple(args))
    return leaves


def _array(arg: Any, node: Any) -> Any:
    array = np.array(np.asarray(arg).astype(node.dtype), order="C")
    return array if array.ndim else np.array(array[()], node.dtype)


def unfused(graph: Graph) -> list[Group]:
    return fuse.unfused(graph)


def assert_same(got: Any, want: Any, ulps: float = 0, scale: float = 1.0) -> None:
    """Equal in dtype, shape and values, NaN too; floats up to `ulps` of the largest of `scale`."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.dtype == want.dtype, f"{got.dtype} instead of {want.dtype}"
    assert got.shape == want.shape, f"{got.shape} instead of {want.shape}"
    if want.dtype.kind not in "fc" or not ulps:
        np.testing.assert_array_equal(got, want)
    else:
        eps = float(np.finfo(want.dtype).eps) * ulps
        np.testing.assert_allclose(got, want, rtol=eps, atol=eps * scale)


def check_compiled(
    f: Callable[..., Any],
    *args: Any,
    ulps: float = 8,
    numpy: bool = True,
    python: bool = True,
    separate: bool = True,
) -> Executable:
    """f is the same in NumPy, interpreted, compiled, compiled without fusion, and as Python text.

    `numpy=False` where f calls what NumPy lacks (gd.grad), `python=False` where that takes too
    long, `separate=False` where each node a kernel would compile too many.
    """
    arrays = [np.array(leaf) for leaf in _leaves(args)]
    graph = gd.trace(f, *args)
    want = optree.tree_leaves(graph.evaluate(*args))
    finite = [np.abs(x[np.isfinite(x)]) for x in want if x.dtype.kind in "fc" and x.size]
    scale = max((float(x.max()) for x in finite if x.size), default=1.0)
    if numpy:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            for got, one in zip(want, optree.tree_leaves(f(*args)), strict=True):
                assert_same(got, one, ulps, scale)
    compiled = gd.compile(f)
    ways = {"first call": compiled, "second call": compiled}
    for way, call in ways.items():
        for i, (got, one) in enumerate(zip(optree.tree_leaves(call(*args)), want, strict=True)):
            _named(f"{way}, result {i}", got, one, ulps, scale)
    runs: dict[str, Callable[[], list[Any]]] = {}
    if separate:
        runs["unfused"] = lambda: run_native(graph, args, unfused)
    if python:
        runs["as Python"] = lambda: run_in_python(graph, args)
    for way, run in runs.items():
        for i, (got, one) in enumerate(zip(run(), want, strict=True)):
            _named(f"{way}, result {i}", got, one, ulps, scale)
    for array, leaf in zip(arrays, _leaves(args), strict=True):
        np.testing.assert_array_equal(array, leaf, err_msg="an argument was modified")
    return compiled.lower(*args)


def _named(way: str, got: Any, want: Any, ulps: float, scale: float) -> None:
    try:
        assert_same(got, want, ulps, scale)
    except AssertionError as error:
        raise AssertionError(f"{way}: {error}") from None


def bits(values: Any) -> list[bytes]:
    """The bytes of all arrays of a tree."""
    return [np.asarray(leaf).tobytes() for leaf in optree.tree_leaves(values)]


def memory_of(executable: Executable) -> Memory:
    return executable.memory
