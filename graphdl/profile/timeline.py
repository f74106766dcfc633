"""A report as a trace of events, which Chrome and Perfetto draw."""

from __future__ import annotations

import json
from typing import Any

from graphdl.profile.report import KernelTime, Report


def to_trace(report: Report) -> str:
    """The trace-event format: complete events, in microseconds, one behind the other.

    Each kernel takes the least time that it took; kernels of bodies take that of all steps
    together, inside of their loop.
    """
    events: list[dict[str, Any]] = [
        {"name": "thread_name", "ph": "M", "pid": 1, "tid": 1, "args": {"name": report.name}}
    ]
    pending: list[tuple[KernelTime, float]] = []
    start = 0.0
    for kernel in report.kernels:
        pending.append((kernel, start))
        start += kernel.seconds
    while pending:
        kernel, start = pending.pop()
        events.append(_event(kernel, start, report))
        for inner in kernel.body:
            pending.append((inner, start))
            start += inner.seconds
    whole = {"calls": report.calls, "median_us": report.median * 1e6}
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ns", "otherData": whole})


def _event(kernel: KernelTime, start: float, report: Report) -> dict[str, Any]:
    bandwidth, rate = kernel.limits(report.peak)
    return {
        "name": kernel.name,
        "cat": "kernel",
        "ph": "X",
        "ts": start * 1e6,
        "dur": kernel.seconds * 1e6,
        "pid": 1,
        "tid": 1,
        "args": {
            "kernel": kernel.kernel,
            "runs": kernel.runs,
            "median_us": kernel.median * 1e6,
            "bytes": kernel.bytes,
            "flops": kernel.flops,
            "GB/s": kernel.bandwidth / 1e9,
            "GFLOP/s": kernel.rate / 1e9,
            "share of bandwidth": bandwidth,
            "share of flops": rate,
            "nodes": " ".join(kernel.nodes),
            "lines": " ".join(kernel.lines),
        },
    }
