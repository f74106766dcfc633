"""The text of a CUDA kernel run as ordinary Python over real memory, thread by thread.

A thread is a Python generator where the threads of a block wait for each other: it stops where its
text says `barrier()` or asks another lane for its value, and goes on when all others have come
there too. So nothing depends on chance, and threads that do not come to the same place, which hangs
a GPU or gives it garbage, are an error. An access outside of the arrays that the caller names
raises IndexError. It tells whether a text computes the right values, on small grids.
"""

from __future__ import annotations

import ast
import linecache
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import GeneratorType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphdl.kernels.cuda.launch import WARP, WIDTHS
from graphdl.kernels.interpret import DTYPES, pointer_maker
from graphdl.kernels.scalar_table import SCALARS
from graphdl.kernels.source import KernelError, KernelSource

#: Where threads wait: for those of the block, or for those of the warp, whose values they exchange.
BARRIER, SHUFFLE = "barrier", "shuffle_xor"


@dataclass
class _Here:
    """Which thread of which block runs, and what its block shares."""

    thread: int = 0
    block: int = 0
    threads: int = 0
    blocks: int = 0
    shared: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))


def run_as_python(
    source: KernelSource,
    words: Sequence[int],
    blocks: int,
    threads: int,
    shared: int = 0,
    arrays: Sequence[NDArray[Any]] | None = None,
) -> None:
    """Run a kernel by the Python interpreter, block by block.

    `arrays`, contiguous, are all the memory that it may touch; without them no access is checked.
    Raises KernelError where threads wait for others that do not come.
    """
    here = _Here(threads=threads, blocks=blocks)
    kernel, together = _defined(source, here, arrays)
    with np.errstate(all="ignore"):
        for number in range(blocks):
            here.block, here.shared = number, np.zeros(shared, np.uint8)
            if together:
                _Block(source, here, [kernel(*words) for _ in range(threads)]).run()
            else:
                for here.thread in range(threads):
                    kernel(*words)


class _Block:
    """The threads of a block, each a generator, and where each waits."""

    def __init__(
        self, source: KernelSource, here: _Here, threads: list[GeneratorType[Any, Any, Any]]
    ) -> None:
        self.source, self.here, self.threads = source, here, threads
        #: What a thread asked for when it stopped; None once it has ended.
        self.asked: list[tuple[Any, ...] | None] = [(BARRIER,)] * len(threads)

    def run(self) -> None:
        every = range(len(self.threads))
        while self.asked[0] is not None:
            for first in every[::WARP]:
                self._warp(every[first : first + WARP])
            self._check_together(every)

    def _warp(self, lanes: range) -> None:
        """Let a warp go on until all of its threads are at a barrier, or at their end."""
        answers: Sequence[Any] = [None] * len(lanes)
        while True:
            for lane, answer in zip(lanes, answers, strict=True):
                self.here.thread = lane
                try:
                    self.asked[lane] = self.threads[lane].send(answer)
                except StopIteration:
                    self.asked[lane] = None
            self._check_together(lanes)
            asked = [one for lane in lanes if (one := self.asked[lane]) is not None]
            if not asked or asked[0][0] == BARRIER:
                return
            answers = [asked[i ^ mask][1] for i, (_, _, mask) in enumerate(asked)]

    def _check_together(self, threads: range) -> None:
        """All of them wait in the same line, or all have ended."""
        frames = {thread: self.threads[thread].gi_frame for thread in threads}
        places = {frame and (frame.f_lineno, frame.f_lasti) for frame in frames.values()}
        if len(places) > 1:
            lines = sorted({frame.f_lineno if frame else 0 for frame in frames.values()})
            where = ", ".join(f"line {line}" if line else "the end" for line in lines)
            raise KernelError(
                f"threads of one block of {self.source.name} wait for each other at different "
                f"places: {where}\n{self.source.text}"
            )


class _Waiting(ast.NodeTransformer):
    """Calls by which threads wait become places where a generator stops."""

    found = False

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if not (isinstance(node.func, ast.Name) and node.func.id in (BARRIER, SHUFFLE)):
            return node
        self.found = True
        asked = ast.Tuple([ast.Constant(node.func.id), *node.args], ast.Load())
        return ast.fix_missing_locations(ast.copy_location(ast.Yield(asked), node))


def _defined(
    source: KernelSource, here: _Here, arrays: Sequence[NDArray[Any]] | None
) -> tuple[Callable[..., Any], bool]:
    """The kernel as a function, and whether its threads wait for each other."""
    filename = f"<CUDA kernel {source.name}>"
    lines = source.text.splitlines(keepends=True)
    linecache.cache[filename] = (len(source.text), None, lines, filename)
    waiting = _Waiting()
    tree = waiting.visit(ast.parse(source.text, filename))
    namespace = dict(python_names(here, arrays))
    exec(compile(tree, filename, "exec"), namespace)
    return namespace["kernel"], waiting.found


def python_names(here: _Here, arrays: Sequence[NDArray[Any]] | None) -> Mapping[str, Any]:
    """The stand-ins of all names that the text of a CUDA kernel may use."""

    names: dict[str, Any] = {
        "inf": math.inf,
        "nan": math.nan,
        "thread": lambda: here.thread,
        "block": lambda: here.block,
        "threads": lambda: here.threads,
        "blocks": lambda: here.blocks,
        "quotient": lambda a, b: a // b,
        "min_i64": min,
        "max_i64": max,
        **{name: scalar.python for name, scalar in SCALARS.items()},
    }
    for suffix, dtype in DTYPES.items():
        names[suffix] = dtype
        names[f"{suffix}_at"] = pointer_maker(np.dtype(dtype), arrays)
        names[f"{suffix}_shared"] = _shared_maker(np.dtype(dtype), here)
    for width in WIDTHS:
        names |= _vector_names(width)
    return names


def _shared_maker(dtype: np.dtype[Any], here: _Here) -> Callable[[int], Any]:
    def shared(offset: int) -> Any:
        memory = here.shared[offset:]
        return memory[: memory.size // dtype.itemsize * dtype.itemsize].view(dtype)

    return shared


def _vector_names(width: int) -> dict[str, Any]:
    """Vectors are NumPy arrays."""
    lanes = range(width)

    def load(pointer: Any, place: int) -> Any:
        if place % width:
            raise IndexError(f"a load of {width} values from place {place}")
        return np.array([pointer[place + k] for k in lanes])

    def store(pointer: Any, place: int, value: Any) -> None:
        if place % width:
            raise IndexError(f"a store of {width} values to place {place}")
        put(pointer, place, 1, value)

    def put(pointer: Any, place: int, stride: int, value: Any) -> None:
        values = np.broadcast_to(value, width)
        for k in lanes:
            pointer[place + k * stride] = values[k]

    return {
        f"load{width}": load,
        f"store{width}": store,
        f"put{width}": put,
        f"spread{width}": lambda p, at, step: np.array([p[at + k * step] for k in lanes]),
        f"counting{width}": lambda start: start + np.arange(width),
        f"splat{width}": lambda value: np.full(width, value),
        **{f"lane{k}": lambda value, k=k: value[k] if np.ndim(value) else value for k in lanes},
    }
