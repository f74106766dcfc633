"""Measuring on a GPU: the steps of a program with the driver's events around each.

A call is replayed as one graph when nobody measures; here each step is launched by itself between
two events, which the device writes when it gets there. So a short kernel counts with the gap to the
next one, about a microsecond. The bodies of loops and branches count with their step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median

from graphdl.errors import ArgumentError
from graphdl.kernels.cuda.device import Device
from graphdl.kernels.cuda.run import Runner
from graphdl.kernels.memory import is_idle
from graphdl.profile.report import ENTRY, KernelTime, Part, Peak, Report, kernel_time

#: Without `calls=`: so many. Bytes of the copy whose rate is the peak.
_CALLS, _COPIED = 20, 1 << 26


def measured(
    name: str, runner: Runner, call: Callable[[], object], bases: Sequence[int], calls: int | None
) -> Report:
    """The profile of a program on a device.

    `call` is an ordinary call; `bases`, the addresses of arguments and results that a timed run may
    overwrite. Raises ArgumentError where `calls` is less than 1.
    """
    if calls is not None and calls < 1:
        raise ArgumentError(f"calls={calls}: a profile takes one call at least")
    count, device = calls or _CALLS, runner.device
    for _ in range(3):  # the kernels are loaded, the graph is made
        call()
    whole = [_whole(device, call) for _ in range(count)]
    samples = [runner.timed(bases) for _ in range(count)]
    running = [
        launch
        for launch in runner.program.launches
        if launch.iterations and not is_idle(launch, runner.memory)
    ]
    kernels: tuple[KernelTime, ...] = tuple(
        kernel_time(i, launch, runner.program.graph, [sample[i] for sample in samples])
        for i, launch in enumerate(running)
    )
    # a call is one graph, in which kernels have no gaps between them: so this is a remainder
    least = max(0.0, min(whole) - sum(kernel.seconds for kernel in kernels))
    usual = max(0.0, median(whole) - sum(kernel.median for kernel in kernels))
    rest = (Part(ENTRY, least, usual),)
    return Report(
        name, kernels, rest, min(whole), median(whole), count, Peak(_bandwidth(device), {}, 0)
    )


def _whole(device: Device, call: Callable[[], object]) -> float:
    device.wait()
    start = time.perf_counter()
    call()
    device.wait()
    return time.perf_counter() - start


def _bandwidth(device: Device) -> float:
    """Bytes a second that a copy on the device reads and writes."""
    source, target = device.allocate(_COPIED), device.allocate(_COPIED)
    try:
        with device.lock:
            device.use()
            driver, start, end = device.driver, device.driver.new_event(), device.driver.new_event()
            best = float("inf")
            for _ in range(5):
                driver.record(start, device.stream)
                driver.copy(target, source, _COPIED, device.stream)
                driver.record(end, device.stream)
                best = min(best, driver.milliseconds(start, end) / 1e3)
            driver.forget_event(start)
            driver.forget_event(end)
    finally:
        device.give_back(source, _COPIED)
        device.give_back(target, _COPIED)
    return 2 * _COPIED / best if best else 0.0
