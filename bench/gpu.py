"""The suite on a GPU: `python -m bench --target cuda`, with what the device can do at the most."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bench import floors
from graphdl.errors import DeviceError
from graphdl.kernels.cuda.device import Device, device_of

#: Benchmarks that measure processes, starts and memory of the CPU.
OF_THE_CPU = ("compile", "loaded", "memory")
#: Of the copy: read and written together, half a GB. Of the product: 2 * 4096^3 operations.
_COPIED, _SIDE = 1 << 28, 4096


def opened(target: str) -> Device:
    """The device of a target; ends the program with what is missing where there is none."""
    try:
        return device_of(target)
    except DeviceError as error:
        raise SystemExit(f"nothing was measured: {error}") from None


def best(call: Callable[[], object], finish: Callable[[], None], rounds: int = 5) -> float:
    """The seconds of a call, the best of some means of ten."""
    call()
    finish()
    found = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(10):
            call()
        finish()
        found = min(found, (time.perf_counter() - start) / 10)
    return found


def copy_bandwidth(device: Device) -> float:
    """Bytes a second, read and written, of a copy from device memory to device memory."""
    source, target = device.allocate(_COPIED), device.allocate(_COPIED)
    try:
        seconds = best(lambda: device.copy(target, source, _COPIED), device.wait)
    finally:
        device.give_back(source, _COPIED)
        device.give_back(target, _COPIED)
    return 2 * _COPIED / seconds


def product_rate(device: Device) -> float:
    """Operations a second of a float32 product by PyTorch."""
    multiply = floors.multiplying([(_SIDE, _SIDE, _SIDE)])
    return 2 * _SIDE**3 / best(multiply, device.wait)


def rates(device: Device) -> dict[str, Any]:
    """What the device reaches at the most, each as measured or with the reason why not."""
    found: dict[str, Any] = {
        "device": device.driver.name(device.ordinal),
        "capability": ".".join(map(str, device.capability)),
    }
    for name, measure in (("copy_bandwidth", copy_bandwidth), ("product_rate", product_rate)):
        try:
            found[name] = measure(device)
        except Exception as error:  # a rate that cannot be had is a line of the report
            found[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    return found


def rate_lines(found: dict[str, Any]) -> str:
    """The rates for people."""
    lines = [f"{found['device']}, compute capability {found['capability']}"]
    for key, what, unit in (
        ("copy_bandwidth", "copy on the device", "GB/s read and written"),
        ("product_rate", "float32 product by PyTorch", "GFLOP/s"),
    ):
        value = found[key]
        lines.append(f"{what}: {value if isinstance(value, str) else f'{value / 1e9:,.0f} {unit}'}")
    return "\n".join(lines)
