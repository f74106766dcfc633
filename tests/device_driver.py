"""A stand-in for the CUDA driver: it records what is asked of it, and does it on the host.

Device memory is host memory, kernels run as Python text. So the host side of the CUDA target runs
for real: addresses, patches, graphs, copies, loops.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphdl.errors import DeviceMemoryError
from graphdl.kernels.cuda.cublaslt import EPILOGUES, Matrix, Places, Plan
from graphdl.kernels.cuda.device import Device
from graphdl.kernels.cuda.interpret import run_as_python
from graphdl.kernels.cuda.launch import DeviceLaunch
from graphdl.numpy_functions import gelu
from graphdl.types import as_dtype


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
    """A stand-in for cublasLt: the column-major products that it is asked for, by NumPy.

    It refuses plans with an epilogue of `without`; a ReLU of its own keeps NaN if `keeps_nan`.
    """

    def __init__(self, without: Sequence[str] = (), keeps_nan: bool = True) -> None:
        self.plans: list[Plan] = []
        self.without, self.keeps_nan = without, keeps_nan
        self.relu_is_ours = keeps_nan

    def takes(self, plan: Plan) -> bool:
        return plan.epilogue not in self.without

    def prepare(self, plan: Plan) -> Plan:
        assert self.takes(plan)
        assert plan.epilogue in EPILOGUES
        self.plans.append(plan)
        return plan

    def multiply(self, plan: Plan, at: Places, stream: int) -> None:
        assert at.workspace % 256 == 0
        assert bool(at.bias) == plan.has_bias
        assert bool(at.mask) == plan.has_mask
        assert not any(place % 16 for place in (at.left, at.right, at.bias, at.mask))
        wide = np.dtype("float64" if plan.compute == "float64" else "float32")
        for y in range(plan.batch):
            a, b = (
                _column_major(matrix, place, y, plan.dtype).astype(wide)
                for matrix, place in ((plan.left, at.left), (plan.right, at.right))
            )
            if plan.compute == "tf32":
                a, b = _tf32(a), _tf32(b)
            c = self._epilogue(plan, at, a, a @ b)
            out = _column_major(plan.result, at.out, y, plan.out)
            out[:] = c.astype(out.dtype)

    def _epilogue(self, plan: Plan, at: Places, a: np.ndarray, c: np.ndarray) -> np.ndarray:
        bias = _column_major(Matrix(c.shape[0], 1, c.shape[0]), at.bias, 0, plan.out)
        relu = "relu" in plan.epilogue
        mask = _column_major(plan.mask, at.mask, 0, "uint8") if plan.has_mask and relu else None
        if plan.epilogue.endswith("bias"):
            c = c + bias.astype(c.dtype)
        if plan.epilogue.startswith("relu"):
            if mask is not None:
                mask[:] = 0x5A  # also where no element is
                bits = np.packbits(c > 0, axis=0, bitorder="little")
                mask[: bits.shape[0]] = bits
            c = np.maximum(c, 0) if self.keeps_nan else np.fmax(c, 0)
        if plan.epilogue.startswith("gelu"):
            if plan.has_mask:
                line = Matrix(*c.shape, plan.mask_line)
                _column_major(line, at.mask, 0, plan.out)[:] = c.astype(as_dtype(plan.out))
            c = gelu(c, "tanh")
        if plan.epilogue.startswith("drelu"):
            bits = np.unpackbits(mask, axis=0, bitorder="little")[: c.shape[0]]
            c = np.where(bits, c, 0)
        if plan.epilogue == "drelu_bgrad":
            bias[:] = c.sum(1, keepdims=True).astype(bias.dtype)
        if plan.epilogue == "bgrada":
            bias[:] = a.sum(1, keepdims=True).astype(bias.dtype)
        return c


def _tf32(x: np.ndarray) -> np.ndarray:
    """float32 rounded to 10 bits of the mantissa."""
    return ((x.view(np.int32) + 0x1000) & ~0x1FFF).view(np.float32)


def _column_major(matrix: Matrix, address: int, batch: int, name: str) -> np.ndarray:
    dtype = as_dtype(name)
    if not address:
        return np.empty((0, 0), dtype)
    count = matrix.apart * (matrix.columns - 1) + matrix.rows
    memory = (ctypes.c_char * (count * dtype.itemsize)).from_address(
        address + batch * matrix.batch_apart * dtype.itemsize
    )
    flat = np.frombuffer(memory, np.uint8).view(dtype)
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
