"""The work of a case, as graphdl's program counts it, and what the machine could do in that run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Work:
    """Bytes that kernels read and write, operations (a multiply-add is two), the widest float."""

    bytes: int
    flops: int
    dtype: str


@dataclass(frozen=True)
class Peak:
    """Bytes a second of a large copy; operations a second of multiply-adds in registers."""

    bandwidth: float
    flops: dict[str, float]


@dataclass(frozen=True)
class Bound:
    """The least times of a case's work, in nanoseconds: its operations, and its bytes, at peak.

    An elementary function counts as one operation, so its kernels are nearer to the peak than this
    says; bytes that lie in a cache may be faster than a copy of a large array.
    """

    arithmetic: float
    memory: float

    @property
    def binds(self) -> str:
        """Which of the two is longer."""
        return "arithmetic" if self.arithmetic >= self.memory else "memory"


def bound_of(work: Work | None, peak: Peak | None) -> Bound | None:
    """The bound, where both the work and the peak are known.

    >>> bound_of(Work(8_000, 400_000, "float64"), Peak(8e9, {"float64": 1e11})).binds
    'arithmetic'
    """
    if work is None or peak is None or work.dtype not in peak.flops:
        return None
    return Bound(1e9 * work.flops / peak.flops[work.dtype], 1e9 * work.bytes / peak.bandwidth)


def work_of(executable: Any) -> Work:
    """The work of one call.

    >>> import numpy as np, graphdl as gd
    >>> work_of(gd.compile(lambda x: 2 * x + 1).lower(gd.spec(1000, "float32")))
    Work(bytes=8000, flops=2000, dtype='float32')
    """
    types = [node.dtype for node in executable.optimized.nodes if node.dtype.kind == "f"]
    widest = max(types, key=lambda dtype: dtype.itemsize, default=None)
    return Work(
        sum(kernel.bytes for kernel in executable.kernels),
        sum(kernel.flops for kernel in executable.kernels),
        "float32" if widest is None else widest.name,
    )


def measured_peak() -> dict[str, Any]:
    """A `Peak`, as plain data, measured now with the threads that graphdl uses."""
    from graphdl.kernels.cpu import pool, speed  # only in the worker of graphdl

    pool.start()
    rates = {dtype: speed.fma_rate(dtype) for dtype in ("float32", "float64")}
    return asdict(Peak(speed.copy_bandwidth(), rates))


def better(first: Peak | None, second: Peak | None) -> Peak | None:
    """The higher of each of two measurements: whatever else runs can only lower them."""
    if first is None or second is None:
        return first or second
    rates = {dtype: max(rate, second.flops[dtype]) for dtype, rate in first.flops.items()}
    return Peak(max(first.bandwidth, second.bandwidth), rates)
