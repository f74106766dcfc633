"""What nobody can go below: a copy of the same bytes, the products alone by BLAS.

A floor does the least memory traffic, or the least arithmetic, that any answer needs, with as many
threads as everyone has, and nothing else. On a GPU it is the driver's own copy on the device, and
cublasLt: `--target cuda` gives the shares of these two rates.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from bench import placement
from bench.cases import Array

COPY = "a copy of the same bytes"


def threads() -> int:
    """How many threads this worker was given."""
    return int(os.environ.get("OMP_NUM_THREADS", "1"))


def copying(sources: Sequence[Array]) -> Callable[[], None]:
    """A call that copies all of `sources`; NumPy lets go of the interpreter while it copies."""
    if placement.on_gpu():
        return _copying_on_gpu(sum(source.nbytes for source in sources))
    copies = [np.zeros_like(source) for source in sources]
    cuts = [
        (target[part], source[part])
        for source, target in zip(sources, copies, strict=True)
        for part in slices(len(source), max(1, threads() // len(sources)))
    ]
    return together([_copier(target, source) for target, source in cuts])


def _copier(target: Array, source: Array) -> Callable[[], None]:
    return lambda: np.copyto(target, source)


def moving(count: int) -> Callable[[], None]:
    """A call that moves `count` bytes through memory: it reads half of them and writes half.

    For work that reads more than it writes: what a copy takes for as many bytes in all.
    """
    if placement.on_gpu():
        return _copying_on_gpu(count // 2)
    source = np.ones(max(8 * threads(), count // 2) // 4, np.float32)
    return copying([source])


def together(jobs: Sequence[Callable[[], object]]) -> Callable[[], None]:
    """A call that does all jobs, the first of them itself, the others in threads of a pool."""
    if threads() == 1 or len(jobs) == 1:

        def call() -> None:
            for job in jobs:
                job()

    else:
        pool = ThreadPoolExecutor(threads() - 1)

        def call() -> None:
            waiting = [pool.submit(job) for job in jobs[1:]]
            jobs[0]()
            for submitted in waiting:
                submitted.result()

    return call


def multiplying(
    shapes: Sequence[tuple[int, int, int]], dtype: str = "float32"
) -> Callable[[], None]:
    """A call of BLAS's a @ b for each shape (m, k, n), into arrays made beforehand."""
    if placement.on_gpu():
        return _multiplying_on_gpu(shapes, dtype)
    products = [
        tuple(np.ones(shape, dtype) for shape in ((m, k), (k, n), (m, n))) for m, k, n in shapes
    ]

    def call() -> None:
        for a, b, c in products:
            np.matmul(a, b, out=c)

    return call


def _copying_on_gpu(nbytes: int) -> Callable[[], None]:
    # every contestant's process imports this module: graphdl would count in all their memory
    from graphdl.kernels.cuda.device import device_of

    device = device_of(placement.target())
    source, target = (device.allocate(nbytes) for _ in range(2))
    return lambda: device.copy(target, source, nbytes)


def _multiplying_on_gpu(shapes: Sequence[tuple[int, int, int]], dtype: str) -> Callable[[], None]:
    """PyTorch's products, which are cublasLt's or cuBLAS's, into arrays made beforehand."""
    import torch

    torch.set_float32_matmul_precision("highest")
    kind = getattr(torch, dtype)
    products = [
        tuple(torch.ones(shape, dtype=kind, device=placement.target()) for shape in shape_of)
        for m, k, n in shapes
        for shape_of in [((m, k), (k, n), (m, n))]
    ]

    def call() -> None:
        for a, b, c in products:
            torch.matmul(a, b, out=c)
        torch.cuda.synchronize(placement.target())

    return call


def slices(count: int, parts: int) -> list[slice]:
    """`range(count)` cut into `parts`.

    >>> slices(5, 2)
    [slice(0, 2, None), slice(2, 5, None)]
    """
    return [slice(p * count // parts, (p + 1) * count // parts) for p in range(parts)]
