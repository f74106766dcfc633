"""What a profile has found: times of kernels, and what the machine could do at best."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from msgspec import Struct, to_builtins

from graphdl.errors import ArgumentError
from graphdl.graph import Graph
from graphdl.kernels.program import Launch
from graphdl.types import kind_of


class Peak(Struct, frozen=True):
    """What this machine has been measured to do with all of a program's threads.

    bandwidth: bytes a second that a copy of a large array reads and writes. flops: operations a
    second of independent fused multiply-adds in vector registers, by dtype; not measured on a GPU,
    where threads is 0.
    """

    bandwidth: float
    flops: Mapping[str, float]
    threads: int


class KernelTime(Struct, frozen=True):
    """One kernel of a program, or of the body of a loop or a branch, in a call.

    kernel: its number among `executable.kernels`, or among those of its body. seconds, median: what
    all its `runs` in one call took together, at the least and in the median of all calls. bytes,
    flops: of all those runs, as in KernelInfo. dtype: of its widest float. nodes: what it computes,
    by the labels of `executable.optimized`. lines: the user's. body: the kernels of the bodies that
    it runs.
    """

    kernel: int
    name: str
    seconds: float
    median: float
    runs: int
    bytes: int
    flops: int
    dtype: str
    nodes: tuple[str, ...]
    lines: tuple[str, ...]
    body: tuple[KernelTime, ...] = ()

    @property
    def bandwidth(self) -> float:
        """Bytes a second."""
        return self.bytes / self.seconds if self.seconds else 0.0

    @property
    def rate(self) -> float:
        """Operations a second."""
        return self.flops / self.seconds if self.seconds else 0.0

    @property
    def own_seconds(self) -> float:
        """Without the kernels of its bodies."""
        return max(0.0, self.seconds - sum(inner.seconds for inner in self.body))

    def limits(self, peak: Peak) -> tuple[float, float]:
        """The shares of the machine's peak: of its bandwidth, and of its operations a second.

        The former is above 1 where the arrays are still in a cache from the kernel or the call
        before: the peak is that of memory.
        """
        most = peak.flops.get(self.dtype) or max(peak.flops.values(), default=0.0)
        return (
            self.bandwidth / peak.bandwidth if peak.bandwidth else 0.0,
            self.rate / most if most else 0.0,
        )


def kernel_time(
    number: int,
    launch: Launch,
    graph: Graph,
    seconds: Sequence[float],
    runs: int = 1,
    body: Sequence[KernelTime] = (),
) -> KernelTime:
    """What `runs` of a launch took in each of some calls; `body`: the kernels that it runs."""
    floats = [
        value.dtype
        for node in launch.nodes
        for value in (node, *node.inputs)
        if kind_of(value.dtype) == "f"
    ]
    sources = [graph.sources[node] for node in launch.nodes if node in graph.sources]
    return KernelTime(
        number,
        launch.source.name,
        min(seconds),
        median(seconds),
        runs,
        sum(kernel.bytes for kernel in body) if body else launch.bytes * runs,
        sum(kernel.flops for kernel in body) if body else launch.flops * runs,
        max(floats, key=lambda dtype: dtype.itemsize).name if floats else "float32",
        tuple(graph.labels[node] for node in launch.nodes),
        tuple(dict.fromkeys(map(str, sources))),
        tuple(body),
    )


#: What a call does beside its kernels.
ENTRY, THREADS = "arguments and results", "waiting for threads"


class Part(Struct, frozen=True):
    """What a call does beside its kernels: what takes how long, at the least and in the median."""

    name: str
    seconds: float
    median: float


class Report(Struct, frozen=True):
    """Where the time of a compiled program goes.

    kernels: in the order in which they run. rest: what else a call does. seconds, median: of an
    ordinary call from Python, the fastest and the median one of `calls`. `str(report)` is a table;
    `save` writes other forms.

    >>> import numpy as np, graphdl as gd
    >>> x = np.ones((256, 256))
    >>> report = gd.compile(lambda x: np.sum(np.tanh(x @ x))).lower(x).profile(x)
    >>> len(report.kernels) > 0 and report.kernels[0].seconds > 0
    True
    >>> report.seconds_of(0) > 0
    True
    """

    name: str
    kernels: tuple[KernelTime, ...]
    rest: tuple[Part, ...]
    seconds: float
    median: float
    calls: int
    peak: Peak

    @property
    def overhead(self) -> float:
        """What of a median call is in no kernel: arguments, results, waiting for threads."""
        return sum(part.median for part in self.rest)

    @property
    def total(self) -> Part:
        """All lines together, the kernels and the rest: measured apart from `seconds`."""
        lines: tuple[KernelTime | Part, ...] = (*self.kernels, *self.rest)
        return Part("all", sum(x.seconds for x in lines), sum(x.median for x in lines))

    @property
    def covered(self) -> float:
        """What all lines add up to, as a part of an ordinary call: 1 if the profile is right."""
        return self.total.seconds / self.seconds if self.seconds else 1.0

    def seconds_of(self, kernel: int) -> float:
        """The time of the kernel with this number in `executable.kernels`."""
        return self.kernels[kernel].seconds

    def walk(self) -> Iterator[tuple[int, KernelTime]]:
        """Every kernel with its depth, 0 for those of the program, bodies' behind their loop."""
        pending = [(0, kernel) for kernel in reversed(self.kernels)]
        while pending:
            depth, kernel = pending.pop()
            yield depth, kernel
            pending += [(depth + 1, inner) for inner in reversed(kernel.body)]

    def __str__(self) -> str:
        return as_text(self)

    def to_dict(self) -> dict[str, Any]:
        """All numbers as dicts and lists, in seconds, bytes and operations."""
        found: dict[str, Any] = to_builtins(self)
        return {**found, "overhead": self.overhead, "covered": self.covered}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1)

    def save(self, path: str | Path) -> Path:
        """Write the report: `.txt` the table, `.json` the numbers, `.html` a flame graph.

        `.trace.json` is a trace for Chrome's `about:tracing` or https://ui.perfetto.dev. The path
        is returned.

        Raises:
            ArgumentError: another ending.
            OSError: the file cannot be written.
        """
        path = Path(path)
        for ending, write in WRITERS.items():
            if path.name.endswith(ending):
                path.write_text(write(self), encoding="utf-8")
                return path
        raise ArgumentError(
            f"cannot write a profile as {path.name!r}; the name has to end in {', '.join(WRITERS)}"
        )


# --- as text ----------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """A time with three digits and its unit.

    >>> duration(0.00123), duration(4.5e-8)
    ('1.23 ms', '45.0 ns')
    """
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if seconds >= factor:
            return f"{seconds / factor:.3g} {unit}"
    return f"{seconds * 1e9:.1f} ns"


_COLUMNS = ("min", "median", "share", "GB/s", "of peak", "GFLOP/s", "of peak", "kernel", "lines")


def as_text(report: Report) -> str:
    """The report as a table, a kernel a line; those of bodies are indented below their loop."""
    whole = report.median or 1.0
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for depth, kernel in report.walk():
        bandwidth, rate = kernel.limits(report.peak)
        name = f"{kernel.kernel}: {kernel.name}"
        rows.append(
            (
                duration(kernel.seconds),
                duration(kernel.median),
                f"{kernel.median / whole:.1%}",
                f"{kernel.bandwidth / 1e9:.1f}",
                f"{bandwidth:.0%}" if bandwidth <= 1 else "cached",
                f"{kernel.rate / 1e9:.1f}",
                f"{rate:.0%}",
                "  " * depth + name,
                ", ".join(kernel.lines),
            )
        )
    for part in (*report.rest, report.total):
        times = duration(part.seconds), duration(part.median), f"{part.median / whole:.1%}"
        rows.append((*times, "", "", "", "", part.name, ""))
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    lines = [
        "  ".join(
            text.ljust(width) if i >= 7 else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    flops = "".join(f", {rate / 1e9:.0f} GFLOP/s {d}" for d, rate in report.peak.flops.items())
    threads = report.peak.threads
    of = f" ({threads} thread{'s' if threads > 1 else ''})" if threads else ""
    head = [
        f"{report.name}: {duration(report.seconds)} a call, median {duration(report.median)} "
        f"of {report.calls}; all lines: {report.covered:.1%} of a call",
        f"peak, measured: {report.peak.bandwidth / 1e9:.1f} GB/s of memory{flops}{of}",
    ]
    return "\n".join([*head, "", *lines])


#: By the ending of the file; the longer of two that fit stands first. `graphdl.profile` fills it.
WRITERS: dict[str, Callable[[Report], str]] = {}
