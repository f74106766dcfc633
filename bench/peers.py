"""The contestants: what must be installed, and how each is told how many threads to use.

Threads are set before the library is imported, by environment variables and by the processors the
worker is pinned to (XLA counts those), and again by a call where the library has one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench import machine, placement

FLOOR = "floor"


@dataclass(frozen=True)
class Contestant:
    """`module` must be importable; `prepare(threads)` runs in the worker before the builder."""

    name: str
    label: str
    module: str
    package: str
    prepare: Callable[[int], None]
    on_gpu: bool = False

    @property
    def installed(self) -> bool:
        return find_spec(self.module) is not None


def library(name: str) -> Any:
    """A peer's module, untyped: their annotations change with the version installed, if any is."""
    return import_module(name)


def _nothing(threads: int) -> None:
    pass


def _graphdl(threads: int) -> None:
    import graphdl

    graphdl.set_num_threads(threads)


def _torch(threads: int) -> None:
    torch = library("torch")

    torch.set_num_threads(threads)


CONTESTANTS = {
    contestant.name: contestant
    for contestant in (
        Contestant("graphdl", "graphdl", "graphdl", "graphdl", _graphdl, True),
        Contestant("jax", "JAX", "jax", "jax", _nothing, True),
        Contestant("numba", "Numba", "numba", "numba", _nothing),
        Contestant("numpy", "NumPy", "numpy", "numpy", _nothing),
        Contestant("torch", "PyTorch", "torch", "torch", _torch, True),
        Contestant("torch-compile", "torch.compile", "torch", "torch", _torch, True),
        Contestant("pytensor", "PyTensor (Numba)", "pytensor", "pytensor", _nothing),
        Contestant("autograd", "autograd", "autograd", "autograd", _nothing),
        Contestant(FLOOR, "floor", "numpy", "numpy", _nothing, True),
    )
}

PACKAGES = (
    *("graphdl", "numpy", "scipy", "numba", "llvmlite"),
    *("jax", "jaxlib", "torch", "pytensor", "autograd"),
    *("numba-cuda", "cuda-core", "nvidia-nvvm", "nvidia-cublas"),
)


def environment(threads: int, caches: Path | None = None, target: str = "cpu") -> dict[str, str]:
    """Environment of a worker: `threads` threads for everyone, where to compute, the caches.

    For target "cpu" nobody sees a GPU. Without `caches`, everybody's own default serves: the timed
    benchmarks warm up anyway.
    """
    count = str(threads)
    variables = dict(os.environ)
    # Installers leave byte code beside the sources; without it every import would compile them.
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    variables.update(
        OMP_NUM_THREADS=count,
        OPENBLAS_NUM_THREADS=count,
        MKL_NUM_THREADS=count,
        NUMBA_NUM_THREADS=count,
        GRAPHDL_NUM_THREADS=count,
        PYTHONWARNINGS="ignore",
    )
    variables[placement.VARIABLE] = target
    if target == "cpu":
        variables.update(JAX_PLATFORMS="cpu", CUDA_VISIBLE_DEVICES="")
    else:  # JAX takes three quarters of the memory when it starts, unless it is told not to
        variables.update(JAX_PLATFORMS="cuda", XLA_PYTHON_CLIENT_PREALLOCATE="false")
    if caches is not None:
        variables.update(
            GRAPHDL_CACHE_DIR=str(caches / "graphdl"),
            NUMBA_CACHE_DIR=str(caches / "numba"),
            JAX_COMPILATION_CACHE_DIR=str(caches / "jax"),
            # JAX keeps by default only what took a second to compile.
            JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
            JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES="-1",
            TORCHINDUCTOR_CACHE_DIR=str(caches / "torch"),
            PYTENSOR_FLAGS=f"base_compiledir={caches / 'pytensor'}",
        )
    return variables


def pin(threads: int) -> None:
    """Keep this process on `threads` processors, where the system can do that."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, machine.usable_cores()[:threads])
