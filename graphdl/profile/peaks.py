"""The machine's measured peak, kept beside the kernel cache: it takes half a second to measure.

A peak that was measured while others used the machine is too low, and would stay so. So what a
kernel exceeds is measured anew, once a process, and the larger is kept. Kernels whose arrays are
in a cache go on exceeding the bandwidth of memory.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from graphdl.kernels import cache
from graphdl.kernels.cpu import pool, speed
from graphdl.kernels.cpu.host import host
from graphdl.profile.report import KernelTime, Peak

#: Of what is measured: another number makes older files be measured anew.
_VERSION = 1
_known: dict[int, Peak] = {}
#: Of how many threads the peak was measured in this process.
_fresh: set[int] = set()


def peak(kernels: Sequence[KernelTime] = ()) -> Peak:
    """What this machine does with as many threads as programs use now.

    From memory, from the file `peak-….json` beside the cached kernels, or measured: where there is
    none, and where one of the kernels was faster. The file is known by the processor and the number
    of threads; delete it to have it measured anew.
    """
    pool.start()
    threads = pool.num_threads()
    if threads not in _known:
        path = _path(threads)
        found = _read(path, threads)
        if found is None:
            found = _measured(threads)
            _fresh.add(threads)
            _write(path, found)
        _known[threads] = found
    known = _known[threads]
    if threads not in _fresh and any(max(kernel.limits(known)) > 1 for kernel in kernels):
        _fresh.add(threads)
        _known[threads] = _larger(known, _measured(threads))
        _write(_path(threads), _known[threads])
    return _known[threads]


def _larger(one: Peak, other: Peak) -> Peak:
    flops = {dtype: max(rate, other.flops.get(dtype, 0.0)) for dtype, rate in one.flops.items()}
    return Peak(max(one.bandwidth, other.bandwidth), flops, one.threads)


def _measured(threads: int) -> Peak:
    flops = {dtype: speed.fma_rate(dtype) for dtype in ("float32", "float64")}
    return Peak(speed.copy_bandwidth(), flops, threads)


def _path(threads: int) -> Path | None:
    folder = cache.directory()
    key = cache.key_of(f"peak {_VERSION} {os.cpu_count()} {threads}", " ".join(host()))
    return folder and folder / f"peak-{key}.json"


def _read(path: Path | None, threads: int) -> Peak | None:
    if path is None:
        return None
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        found = json.loads(path.read_text(encoding="utf-8"))
        flops = {str(dtype): float(rate) for dtype, rate in found["flops"].items()}
        bandwidth = float(found["bandwidth"])
        if bandwidth > 0 and all(rate > 0 for rate in flops.values()) and flops:
            return Peak(bandwidth, flops, threads)
    return None


def _write(path: Path | None, found: Peak) -> None:
    """Keep it, where that is possible; another process may be writing the same."""
    if path is None:
        return
    text = json.dumps({"bandwidth": found.bandwidth, "flops": dict(found.flops)})
    part = path.with_suffix(f".{os.getpid()}.part")
    with contextlib.suppress(OSError):
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
