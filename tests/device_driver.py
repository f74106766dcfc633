"""A stand-in for the CUDA driver: it records what is asked of it, and does it on the host.

Device memory is host memory, kernels run as Python text. So the host side of the CUDA target runs
for real: addresses, patches, graphs, copies, loops.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from graphdl.errors import DeviceMemoryError
from graphdl.kernels.cuda.cublaslt import Matrix, Plan
from graphdl.kernels.cuda.device import Device
from graphdl.kernels.cuda.interpret import run_as_python
from graphdl.kernels.cuda.launch import DeviceLaunch


class RecordingDriver:
    """Calls are kept in `calls`, by name; `capacity` bounds the memory."""

    def __init__(self, capacity: int = 1 << 30, devices: int = 1) -> None:
        self.calls: list[str] = []
        self.capacity, self.devices = capacity, devices
        self.blocks: dict[int, np.ndarray] = {}
        self.loaded: dict[int, DeviceLaunch] = {}
        self.capturing: dict[int, list[Callable[[], None]]] = {}
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        #: Of streams and of memory, the device that they belong to.
        self.streams: dict[int, int | None] = {}
        self.places: dict[int, int | None] = {}
        self.on: list[int] = []
        self.count = 0

    def number(self) -> int:
        self.count += 1
        return self.count

    def do(self, stream: int, name: str, action: Callable[[], None]) -> None:
        self.calls.append(name)
        self.on.append(stream)
        if stream in self.capturing:
            self.capturing[stream].append(action)
        else:
            action()

    def version(self) -> int:
        return 13000

    def device_count(self) -> int:
        return self.devices

    def name(self, ordinal: int) -> str:
        return "a stand-in"

    def capability(self, ordinal: int) -> tuple[int, int]:
        return (9, 0)

    def memory(self, ordinal: int) -> tuple[int, int]:
        return self.capacity - sum(x.size for x in self.blocks.values()), self.capacity

    def use(self, ordinal: int) -> None:
        pass

    def allocate(self, nbytes: int) -> int:
        if nbytes > self.memory(0)[0]:
            raise DeviceMemoryError(f"the GPU has no memory left to allocate {nbytes:,} bytes")
        memory = np.full(nbytes + 256, 0xAB, np.uint8)
        start = -memory.ctypes.data % 256
        block = memory[start : start + nbytes]
        self.blocks[block.ctypes.data] = block
        self.calls.append("allocate")
        return int(block.ctypes.data)

    def free(self, address: int) -> None:
        self.calls.append("free")
        del self.blocks[address]

    def to_device(self, address: int, host: int, nbytes: int, stream: int) -> None:
        self.do(stream, "to_device", lambda: ctypes.memmove(address, host, nbytes))

    def to_host(self, host: int, address: int, nbytes: int, stream: int) -> None:
        assert stream not in self.capturing, "a graph cannot copy to the host and go on"
        self.do(stream, "to_host", lambda: ctypes.memmove(host, address, nbytes))

    def copy(self, target: int, source: int, nbytes: int, stream: int) -> None:
        self.do(stream, "copy", lambda: ctypes.memmove(target, source, nbytes))

    def clear(self, address: int, nbytes: int, stream: int) -> None:
        self.do(stream, "clear", lambda: ctypes.memset(address, 0, nbytes))

    def load_text(self, launch: DeviceLaunch) -> int:
        number = self.number()
        self.loaded[number] = launch
        return number

    def load(self, code: bytes, entry: str, shared: int) -> int:
        raise AssertionError("the stand-in loads texts")

    def launch(
        self, function: int, blocks: int, threads: int, shared: int, words: Any, stream: int
    ) -> None:
        source = self.loaded[function].source
        values = [ctypes.c_int64.from_address(place).value for place in words]
        values = values[: len(self.loaded[function].words)]
        memory = list(self.blocks.values())
        self.do(
            stream,
            f"launch {source.name}",
            lambda: run_as_python(source, values, blocks, threads, shared, memory),
        )

    def new_stream(self) -> int:
        return self.number()

    def wait(self, stream: int) -> None:
        assert stream not in self.capturing, "a capture cannot wait"

    def ordinal_of_stream(self, stream: int) -> int | None:
        return self.streams.get(stream)

    def ordinal_of_memory(self, address: int) -> int | None:
        return self.places.get(address, 0)

    def new_event(self) -> int:
        return self.number()

    def record(self, event: int, stream: int) -> None:
        self.calls.append(f"record {event} on {stream}")

    def wait_for(self, event: int, stream: int) -> None:
        self.calls.append(f"{stream} waits for {event}")

    def milliseconds(self, start: int, end: int) -> float:
        return float(end - start)

    def forget_event(self, event: int) -> None:
        pass

    def begin_capture(self, stream: int) -> None:
        self.calls.append("begin_capture")
        self.capturing[stream] = []

    def end_capture(self, stream: int) -> int:
        self.calls.append("end_capture")
        number = self.number()
        self.graphs[number] = self.capturing.pop(stream)
        return number

    def replay(self, graph: int, stream: int) -> None:
        self.calls.append("replay")
        self.on.append(stream)
        for action in self.graphs[graph]:
            action()

    def forget_graph(self, graph: int) -> None:
        del self.graphs[graph]


class HostLibrary:
    """A stand-in for cublasLt: the column-major products that it is asked for, by NumPy."""

    def __init__(self) -> None:
        self.plans: list[Plan] = []

    def prepare(self, plan: Plan) -> Plan:
        self.plans.append(plan)
        return plan

    def multiply(
        self, plan: Plan, left: int, right: int, out: int, bias: int, workspace: int, stream: int
    ) -> None:
        assert workspace % 256 == 0
        dtype = np.dtype(plan.dtype)
        for y in range(plan.batch):
            a, b, c = (
                _column_major(matrix, address + y * matrix.batch_apart * dtype.itemsize, dtype)
                for matrix, address in (
                    (plan.left, left), (plan.right, right), (plan.result, out),
                )
            )  # fmt: skip
            c[:] = a @ b
            if plan.bias:
                c += _column_major(Matrix(c.shape[0], 1, c.shape[0]), bias, dtype)


def _column_major(matrix: Matrix, address: int, dtype: np.dtype) -> np.ndarray:
    count = matrix.apart * (matrix.columns - 1) + matrix.rows
    memory = (ctypes.c_char * (count * dtype.itemsize)).from_address(address)
    flat = np.frombuffer(memory, dtype)
    steps = (dtype.itemsize, matrix.apart * dtype.itemsize)
    shape = (matrix.rows, matrix.columns)
    found = np.lib.stride_tricks.as_strided(flat, shape, steps)
    return found.T if matrix.turned else found


class HostDevice(Device):
    """A device whose kernels are texts."""

    driver: RecordingDriver

    def function(self, launch: DeviceLaunch) -> int:
        key = (launch.source.text, launch.threads, len(launch.words))
        if key not in self._functions:
            self._functions[key] = self.driver.load_text(launch)
        return self._functions[key]
