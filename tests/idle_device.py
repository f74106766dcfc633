"""A device that computes nothing: what a program asks of one, at any size, without its memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from bench import placement
from bench.cases import Case
from graphdl import device as devices
from graphdl.kernels.cuda.cublaslt import Plan
from graphdl.kernels.cuda.device import Device
from graphdl.kernels.cuda.launch import DeviceLaunch
from tests.device_driver import RecordingDriver


class IdleDriver(RecordingDriver):
    """Addresses are numbers, and nothing is done: what is copied to the host is what was there."""

    next_address = 1 << 40

    def allocate(self, nbytes: int) -> int:
        self.next_address += nbytes + -nbytes % 256
        return self.next_address - nbytes - -nbytes % 256

    def free(self, address: int) -> None:
        pass

    def do(self, stream: int, name: str, action: Any) -> None:
        pass

    def launch(self, *args: Any) -> None:
        pass

    def replay(self, graph: int, stream: int) -> None:
        pass

    def end_capture(self, stream: int) -> int:
        self.capturing.pop(stream)
        return self.number()

    def forget_graph(self, graph: int) -> None:
        pass


class IdleLibrary:
    """Takes every product."""

    relu_is_ours = True

    def takes(self, plan: Plan) -> bool:
        return True

    def prepare(self, plan: Plan) -> Plan:
        return plan

    def multiply(self, *args: Any) -> None:
        pass


class IdleDevice(Device):
    """Keeps each launch whose kernel it is asked for."""

    def __init__(self, library: bool) -> None:
        super().__init__(IdleDriver(), 0)
        self.launches: list[DeviceLaunch] = []
        self.products = IdleLibrary() if library else None

    def function(self, launch: DeviceLaunch) -> int:
        self.launches.append(launch)
        return 1


@contextmanager
def idle_device(library: bool) -> Iterator[IdleDevice]:
    """For a while functions with `target="cuda"` are for this device, and benchmarks too."""
    device = IdleDevice(library)
    with (
        mock.patch.object(devices, "device_of", return_value=device),
        mock.patch.object(devices, "library_of", return_value=None),
        placement.targeting("cuda"),
    ):
        yield device


def launches_of(case: Case) -> list[DeviceLaunch]:
    """The kernels that graphdl launches in a case of a benchmark, products by cublasLt and not."""
    inputs, launches = case.inputs(), []
    for library in (True, False):
        with idle_device(library) as device:
            prepared = case.builders["graphdl"](inputs)
            prepared.call()
        launches += device.launches
    return launches
