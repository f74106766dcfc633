"""Programs of the CUDA target without a GPU: run as Python text, and compiled to machine code."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from graphdl.compiler import fuse, pipeline
from graphdl.graph import Graph
from graphdl.kernels import memory
from graphdl.kernels.cpu import build
from graphdl.kernels.cuda import emit
from graphdl.kernels.cuda.interpret import run_as_python
from graphdl.kernels.memory import Place
from graphdl.kernels.program import Address, Program
from tests.programs import Grouping, _array, _leaves

ALIGNMENT = 256

HAS_TOOLS = all(find_spec(name) for name in ("numba_cuda", "cuda")) and find_spec("cuda.core")
compiles = pytest.mark.skipif(
    not HAS_TOOLS, reason="compiling for CUDA needs the extra: pip install graphdl[cuda]"
)


def code_of(program: Program, cc: tuple[int, int]) -> Iterator[tuple[Any, str, Any]]:
    """The text, the PTX and the cubin of each different kernel of a program."""
    from graphdl.kernels.cuda import toolchain

    seen = set()
    for launch in program.launches:
        if launch.source.text not in seen:
            seen.add(launch.source.text)
            signature = toolchain.Signature(len(launch.words), launch.threads)
            assembly = toolchain.ptx(launch.source, signature, cc)
            yield launch.source, assembly, toolchain.linked(assembly, cc, launch.source.name)


def device_program(graph: Graph, grouping: Grouping = fuse.fuse) -> Program:
    """The launches of a traced graph on the device."""
    optimized = pipeline.optimise(graph)[-1][1]
    return emit.emit(optimized, grouping(optimized))


def run_as_device_python(
    graph: Graph, args: Sequence[Any], grouping: Grouping = fuse.fuse
) -> list[Any]:
    """The results of the kernels' texts run thread by thread."""
    program = device_program(graph, grouping)
    plan = memory.plan(program)
    inputs = [_array(arg, node) for arg, node in zip(_leaves(args), graph.inputs, strict=True)]
    results = [np.zeros(node.shape, node.dtype) for node in program.graph.outputs]
    constants = [build._constant(node) for node in program.constants]
    arena = np.full(plan.arena_bytes + ALIGNMENT, 0xAB, np.uint8)
    if program.status is not None:
        arena[plan.places[program.status].offset :][:8] = 0
    kinds = {"argument": inputs, "result": results, "constant": constants}

    def address(place: Place) -> int:
        if place.kind == "arena":
            return int(arena.ctypes.data) + place.offset
        return int(kinds[place.kind][place.index].ctypes.data)

    memories = [*inputs, *results, *constants, arena]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for launch in program.launches:
            words = [
                address(plan.places[word.where]) + word.offset
                if isinstance(word, Address)
                else word
                for word in launch.words
            ]
            run_as_python(
                launch.source, words, launch.iterations, launch.threads, launch.shared, memories
            )
    return results
