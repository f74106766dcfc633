"""The text of a CUDA kernel run as ordinary Python over real memory, thread by thread.

Kernels in which threads wait for each other run with a Python thread for each of a block's; all
others run one thread after the other. An access outside of the arrays that the caller names raises
IndexError. It tells whether a text computes the right values, on small grids.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphdl.kernels.cuda.launch import WARP
from graphdl.kernels.interpret import DTYPES, pointer_maker
from graphdl.kernels.scalar_table import SCALARS
from graphdl.kernels.source import KernelSource

#: Names by which threads wait for each other.
_TOGETHER = ("barrier(", "shuffle_xor(")
#: Seconds after which a thread that waits for the others gives up: they do not come.
_PATIENCE = 600.0


@dataclass
class _Block:
    """What the threads of a block share."""

    threads: int
    shared: NDArray[np.uint8]
    barrier: threading.Barrier
    warps: list[threading.Barrier]
    slots: list[Any]


class _Here(threading.local):
    """Which thread of which block runs."""

    thread = 0
    block = 0
    threads = 0
    blocks = 0
    memory: _Block


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
    """
    here = _Here()
    kernel = _defined(source, here, arrays)
    together = any(name in source.text for name in _TOGETHER)
    for number in range(blocks):
        state = _Block(
            threads,
            np.zeros(shared, np.uint8),
            threading.Barrier(threads),
            [threading.Barrier(WARP) for _ in range(threads // WARP)],
            [None] * threads,
        )
        failures: list[BaseException] = []

        def run(
            thread: int, number: int = number, state: _Block = state, failures: Any = failures
        ) -> None:
            here.thread, here.block, here.threads, here.blocks = thread, number, threads, blocks
            here.memory = state
            try:
                with np.errstate(all="ignore"):
                    kernel(*words)
            except BaseException as error:
                failures.append(error)
                for one in (state.barrier, *state.warps):
                    one.abort()

        if together:
            running = [threading.Thread(target=run, args=(t,)) for t in range(threads)]
            for one in running:
                one.start()
            for one in running:
                one.join()
        else:
            for t in range(threads):
                run(t)
        broken = [e for e in failures if not isinstance(e, threading.BrokenBarrierError)]
        if failures:
            raise (broken or failures)[0]


def _defined(
    source: KernelSource, here: _Here, arrays: Sequence[NDArray[Any]] | None
) -> Callable[..., None]:
    namespace = dict(python_names(here, arrays))
    exec(compile(source.text, f"<CUDA kernel {source.name}>", "exec"), namespace)
    kernel: Callable[..., None] = namespace["kernel"]
    return kernel


def python_names(here: _Here, arrays: Sequence[NDArray[Any]] | None) -> Mapping[str, Any]:
    """The stand-ins of all names that the text of a CUDA kernel may use."""

    def barrier() -> None:
        here.memory.barrier.wait(_PATIENCE)

    def shuffle_xor(value: Any, mask: int) -> Any:
        warp = here.memory.warps[here.thread // WARP]
        here.memory.slots[here.thread] = value
        warp.wait(_PATIENCE)
        found = here.memory.slots[here.thread ^ mask]
        warp.wait(_PATIENCE)
        return found

    names: dict[str, Any] = {
        "inf": math.inf,
        "nan": math.nan,
        "thread": lambda: here.thread,
        "block": lambda: here.block,
        "threads": lambda: here.threads,
        "blocks": lambda: here.blocks,
        "barrier": barrier,
        "shuffle_xor": shuffle_xor,
        "quotient": lambda a, b: a // b,
        "min_i64": min,
        "max_i64": max,
        **{name: scalar.python for name, scalar in SCALARS.items()},
    }
    for suffix, dtype in DTYPES.items():
        names[suffix] = dtype
        names[f"{suffix}_at"] = pointer_maker(np.dtype(dtype), arrays)
        names[f"{suffix}_shared"] = _shared_maker(np.dtype(dtype), here)
    for width in (2, 4):
        names |= _vector_names(width)
    return names


def _shared_maker(dtype: np.dtype[Any], here: _Here) -> Callable[[int], Any]:
    def shared(offset: int) -> Any:
        memory = here.memory.shared[offset:]
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
