"""The machine's measured peak, kept beside the kernel cache: it takes half a second to measure."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from graphdl.kernels import cache
from graphdl.kernels.cpu import llvm, pool, speed
from graphdl.profile.report import Peak

#: Of what is measured: another number makes older files be measured anew.
_VERSION = 1
_known: dict[int, Peak] = {}


def peak() -> Peak:
    """What this machine does with as many threads as programs use now.

    From memory, from the file `peak-….json` beside the cached kernels, or measured. The file is
    known by the processor and the number of threads; delete it to have it measured anew.
    """
    pool.start()
    threads = pool.num_threads()
    if threads not in _known:
        path = _path(threads)
        found = _read(path, threads)
        if found is None:
            found = _measured(threads)
            _write(path, found)
        _known[threads] = found
    return _known[threads]


def _measured(threads: int) -> Peak:
    flops = {dtype: speed.fma_rate(dtype) for dtype in ("float32", "float64")}
    return Peak(speed.copy_bandwidth(), flops, threads)


def _path(threads: int) -> Path | None:
    folder = cache.directory()
    key = cache.key_of(f"peak {_VERSION} {os.cpu_count()} {threads}", " ".join(llvm.host()))
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
