"""Programs of the CUDA target without a GPU: run as Python text, and compiled to machine code."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import pytest

from graphdl.compiler import fuse, pipeline
from graphdl.graph import Graph
from graphdl.kernels.cuda import emit
from graphdl.kernels.cuda.interpret import run_as_python
from graphdl.kernels.program import Address, Program
from tests.programs import Grouping, placed

ALIGNMENT = 256

HAS_TOOLS = all(find_spec(name) for name in ("numba_cuda", "cuda")) and find_spec("cuda.core")
compiles = pytest.mark.skipif(
    not HAS_TOOLS, reason="compiling for CUDA needs the extra: pip install graphdl[cuda]"
)


def device_program(graph: Graph, grouping: Grouping = fuse.fuse) -> Program:
    """The launches of a traced graph on the device."""
    optimized = pipeline.optimise(graph, pipeline.DEVICE_PASSES)[-1][1]
    return emit.emit(optimized, grouping(optimized))


def run_as_device_python(
    graph: Graph, args: Sequence[Any], grouping: Grouping = fuse.fuse
) -> list[Any]:
    """The results of the kernels' texts run thread by thread."""
    program = device_program(graph, grouping)
    results, memories, address = placed(program, args, ALIGNMENT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for launch in program.launches:
            words = [address(word) if isinstance(word, Address) else word for word in launch.words]
            run_as_python(
                launch.source, words, launch.iterations, launch.threads, launch.shared, memories
            )
    return results
