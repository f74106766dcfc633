"""The CUDA driver: devices, memory, modules, launches, graphs. Nothing else of graphdl calls it.

The driver's own C interface, by ctypes: it comes with every NVIDIA driver, its functions keep
their signatures for good, and a call costs about a microsecond, so that a program whose kernels are
in the cache runs without a package of the CUDA extra being imported.
https://docs.nvidia.com/cuda/cuda-driver-api/

The tests run on a stand-in with the same methods (tests/device_driver.py).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol

from graphdl.errors import DeviceError, DeviceMemoryError

#: cuda.h: CUresult, CUdevice_attribute, CUfunction_attribute, CUstreamCaptureMode.
_OUT_OF_MEMORY = 2
_CAPABILITY = (75, 76)
_MAX_DYNAMIC_SHARED = 8
_CAPTURE_RELAXED = 2
#: Shared memory that a block may have without asking for more.
_PLAIN_SHARED = 48 << 10
#: CUpointer_attribute: the number of the device that memory lies on.
_DEVICE_ORDINAL = 9
#: CUresult by which a kernel has failed: the context, with all its memory, is lost.
_FAULTS = {
    700: "a kernel used an address that is not there",
    702: "a kernel ran longer than the system lets it",
    710: "a kernel's assertion failed",
    714: "the hardware's stack of a kernel is damaged",
    715: "a kernel ran an instruction that is none",
    716: "a kernel used an address that is not aligned",
    717: "a kernel used an address of another kind of memory",
    718: "a kernel jumped to an address that is not there",
    719: "a kernel failed while it ran",
}
#: CUresult by which the device itself is gone: off the bus, reset, its memory failing.
_LOST = (3, 4, 46, 101, 201, 214, 226, 709, 802, 999)
_INVALID_VALUE = 1


class Driver(Protocol):
    """What programs need of a driver. Addresses, streams, functions and graphs are integers."""

    def version(self) -> int: ...

    def device_count(self) -> int: ...

    def name(self, ordinal: int) -> str: ...

    def capability(self, ordinal: int) -> tuple[int, int]: ...

    def memory(self, ordinal: int) -> tuple[int, int]: ...

    def use(self, ordinal: int) -> None: ...

    def allocate(self, nbytes: int) -> int: ...

    def free(self, address: int) -> None: ...

    def to_device(self, address: int, host: int, nbytes: int, stream: int) -> None: ...

    def to_host(self, host: int, address: int, nbytes: int, stream: int) -> None: ...

    def copy(self, target: int, source: int, nbytes: int, stream: int) -> None: ...

    def clear(self, address: int, nbytes: int, stream: int) -> None: ...

    def load(self, code: bytes, entry: str, shared: int) -> int: ...

    def launch(
        self, function: int, blocks: int, threads: int, shared: int, words: Any, stream: int
    ) -> None: ...

    def new_stream(self) -> int: ...

    def wait(self, stream: int) -> None: ...

    def ordinal_of_stream(self, stream: int) -> int | None: ...

    def ordinal_of_memory(self, address: int) -> int | None: ...

    def new_event(self) -> int: ...

    def record(self, event: int, stream: int) -> None: ...

    def wait_for(self, event: int, stream: int) -> None: ...

    def milliseconds(self, start: int, end: int) -> float: ...

    def forget_event(self, event: int) -> None: ...

    def begin_capture(self, stream: int) -> None: ...

    def end_capture(self, stream: int) -> int: ...

    def replay(self, graph: int, stream: int) -> None: ...

    def forget_graph(self, graph: int) -> None: ...


class NativeDriver:
    """The NVIDIA driver of this machine. DeviceError where there is none."""

    def __init__(self) -> None:
        self._library = _library()
        self._check(self._library.cuInit(0), "start")
        self._contexts: dict[int, ctypes.c_void_p] = {}

    def _check(self, status: int, what: str) -> None:
        if status == 0:
            return
        if status == _OUT_OF_MEMORY:
            raise DeviceMemoryError(f"the GPU has no memory left to {what}")
        text = ctypes.c_char_p()
        self._library.cuGetErrorString(status, ctypes.byref(text))
        said = (text.value or b"unknown error").decode(errors="replace")
        if status in _FAULTS:
            raise DeviceError(
                f"{_FAULTS[status]} (error {status}: {said}). The GPU's memory is lost to this "
                f"process: start it anew. This is a defect of graphdl, or of another library that "
                f"shares the GPU in this process; compute-sanitizer names the kernel"
            )
        if status in _LOST:
            raise DeviceError(
                f"the GPU is lost to this process: it could not {what}: {said} (error {status}). "
                f"Start the process anew; if that does not help, `nvidia-smi` says how the GPU is"
            )
        raise DeviceError(f"the CUDA driver could not {what}: {said} (error {status})")

    def _call(self, name: str, what: str, *args: Any) -> None:
        self._check(getattr(self._library, name)(*args), what)

    # --- devices ------------------------------------------------------------------------------

    def version(self) -> int:
        """13.0 as 13000."""
        number = ctypes.c_int()
        self._call("cuDriverGetVersion", "tell its version", ctypes.byref(number))
        return number.value

    def device_count(self) -> int:
        count = ctypes.c_int()
        self._call("cuDeviceGetCount", "count devices", ctypes.byref(count))
        return count.value

    def _device(self, ordinal: int) -> int:
        device = ctypes.c_int()
        self._call("cuDeviceGet", f"find device {ordinal}", ctypes.byref(device), ordinal)
        return device.value

    def name(self, ordinal: int) -> str:
        text = ctypes.create_string_buffer(256)
        self._call("cuDeviceGetName", "name a device", text, len(text), self._device(ordinal))
        return text.value.decode(errors="replace")

    def capability(self, ordinal: int) -> tuple[int, int]:
        device, found = self._device(ordinal), []
        for attribute in _CAPABILITY:
            value = ctypes.c_int()
            what = "tell its compute capability"
            self._call("cuDeviceGetAttribute", what, ctypes.byref(value), attribute, device)
            found.append(value.value)
        return found[0], found[1]

    def memory(self, ordinal: int) -> tuple[int, int]:
        """Free and total bytes."""
        self.use(ordinal)
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        what = "tell its memory"
        self._call("cuMemGetInfo_v2", what, ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def use(self, ordinal: int) -> None:
        """Make a device current; its primary context is the one that PyTorch and CuPy use too."""
        context = self._contexts.get(ordinal)
        if context is None:
            context = ctypes.c_void_p()
            device = self._device(ordinal)
            what = f"start device {ordinal}"
            self._call("cuDevicePrimaryCtxRetain", what, ctypes.byref(context), device)
            self._contexts[ordinal] = context
        self._call("cuCtxSetCurrent", "change the device", context)

    # --- memory -------------------------------------------------------------------------------

    def allocate(self, nbytes: int) -> int:
        address = ctypes.c_uint64()
        self._call(
            "cuMemAlloc_v2", f"allocate {nbytes:,} bytes", ctypes.byref(address), _size(nbytes)
        )
        return address.value

    def free(self, address: int) -> None:
        self._call("cuMemFree_v2", "free memory", ctypes.c_uint64(address))

    def to_device(self, address: int, host: int, nbytes: int, stream: int) -> None:
        self._call(
            "cuMemcpyHtoDAsync_v2", "copy to the device",
            ctypes.c_uint64(address), ctypes.c_void_p(host), _size(nbytes), _handle(stream),
        )  # fmt: skip

    def to_host(self, host: int, address: int, nbytes: int, stream: int) -> None:
        self._call(
            "cuMemcpyDtoHAsync_v2", "copy to the host",
            ctypes.c_void_p(host), ctypes.c_uint64(address), _size(nbytes), _handle(stream),
        )  # fmt: skip

    def copy(self, target: int, source: int, nbytes: int, stream: int) -> None:
        self._call(
            "cuMemcpyDtoDAsync_v2", "copy on the device",
            ctypes.c_uint64(target), ctypes.c_uint64(source), _size(nbytes), _handle(stream),
        )  # fmt: skip

    def clear(self, address: int, nbytes: int, stream: int) -> None:
        self._call(
            "cuMemsetD8Async", "clear memory",
            ctypes.c_uint64(address), ctypes.c_ubyte(0), _size(nbytes), _handle(stream),
        )  # fmt: skip

    # --- kernels ------------------------------------------------------------------------------

    def load(self, code: bytes, entry: str, shared: int) -> int:
        """The function of a cubin; modules stay loaded as long as the process lives."""
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuModuleLoadData", f"load {entry}", ctypes.byref(module), code)
        self._call(
            "cuModuleGetFunction", f"find {entry}", ctypes.byref(function), module, entry.encode()
        )
        if shared > _PLAIN_SHARED:
            what = f"give {entry} {shared:,} bytes of shared memory"
            self._call("cuFuncSetAttribute", what, function, _MAX_DYNAMIC_SHARED, shared)
        return function.value or 0

    def launch(
        self, function: int, blocks: int, threads: int, shared: int, words: Any, stream: int
    ) -> None:
        """Run a kernel; `words` is a ctypes array of the addresses of its 64-bit arguments."""
        self._call(
            "cuLaunchKernel", "launch a kernel",
            ctypes.c_void_p(function), blocks, 1, 1, threads, 1, 1, shared, _handle(stream),
            words, None,
        )  # fmt: skip

    def new_stream(self) -> int:
        """A stream that does not wait for the default one."""
        stream = ctypes.c_void_p()
        self._call("cuStreamCreate", "make a stream", ctypes.byref(stream), 1)
        return stream.value or 0

    def wait(self, stream: int) -> None:
        self._call("cuStreamSynchronize", "finish what was launched", _handle(stream))

    def ordinal_of_stream(self, stream: int) -> int | None:
        """The device of whose primary context a stream is; None if it is of another context."""
        context = ctypes.c_void_p()
        what = "tell the context of a stream"
        self._call("cuStreamGetCtx", what, _handle(stream), ctypes.byref(context))
        for ordinal in range(self.device_count()):
            own = self._contexts.get(ordinal)
            if own is not None and own.value == context.value:
                return ordinal
        return None

    def ordinal_of_memory(self, address: int) -> int | None:
        """The device that memory lies on; None if it is no memory that the driver knows."""
        ordinal = ctypes.c_int()
        status = self._library.cuPointerGetAttribute(
            ctypes.byref(ordinal), _DEVICE_ORDINAL, ctypes.c_uint64(address)
        )
        if status == _INVALID_VALUE:
            return None
        self._check(status, "tell where memory lies")
        return ordinal.value

    # --- events -------------------------------------------------------------------------------

    def new_event(self) -> int:
        event = ctypes.c_void_p()
        self._call("cuEventCreate", "make an event", ctypes.byref(event), 0)
        return event.value or 0

    def record(self, event: int, stream: int) -> None:
        """The event has happened once all that the stream was given so far is done."""
        self._call("cuEventRecord", "record an event", _handle(event), _handle(stream))

    def wait_for(self, event: int, stream: int) -> None:
        """What the stream is given from now on begins after the event."""
        what = "wait for an event"
        self._call("cuStreamWaitEvent", what, _handle(stream), _handle(event), 0)

    def milliseconds(self, start: int, end: int) -> float:
        """The time between two events; waits for the second."""
        self._call("cuEventSynchronize", "wait for an event", _handle(end))
        found = ctypes.c_float()
        what = "tell the time between two events"
        self._call("cuEventElapsedTime", what, ctypes.byref(found), _handle(start), _handle(end))
        return found.value

    def forget_event(self, event: int) -> None:
        self._call("cuEventDestroy_v2", "drop an event", _handle(event))

    # --- graphs -------------------------------------------------------------------------------

    def begin_capture(self, stream: int) -> None:
        self._call("cuStreamBeginCapture_v2", "begin a graph", _handle(stream), _CAPTURE_RELAXED)

    def end_capture(self, stream: int) -> int:
        """The launches since `begin_capture` as one graph, ready to be replayed."""
        graph, made = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamEndCapture", "end a graph", _handle(stream), ctypes.byref(graph))
        try:
            flags = ctypes.c_ulonglong(0)
            what = "make a graph"
            self._call("cuGraphInstantiateWithFlags", what, ctypes.byref(made), graph, flags)
        finally:
            self._library.cuGraphDestroy(graph)
        return made.value or 0

    def replay(self, graph: int, stream: int) -> None:
        self._call("cuGraphLaunch", "replay a graph", ctypes.c_void_p(graph), _handle(stream))

    def forget_graph(self, graph: int) -> None:
        self._call("cuGraphExecDestroy", "drop a graph", ctypes.c_void_p(graph))


def words_of(values: Sequence[int]) -> tuple[Any, Any]:
    """64-bit arguments as a launch takes them: their memory, and the addresses in it."""
    memory = (ctypes.c_int64 * max(len(values), 1))(*values)
    start = ctypes.addressof(memory)
    places = (ctypes.c_void_p * max(len(values), 1))(*(start + 8 * i for i in range(len(values))))
    return memory, places


def _size(nbytes: int) -> ctypes.c_size_t:
    return ctypes.c_size_t(nbytes)


def _handle(stream: int) -> ctypes.c_void_p:
    return ctypes.c_void_p(stream)


def _library() -> ctypes.CDLL:
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        return ctypes.CDLL(name)
    except OSError:
        raise DeviceError(
            f"no NVIDIA driver found ({name}): target='cuda' needs an NVIDIA GPU and its driver, "
            f"https://www.nvidia.com/drivers; without one, target='cpu' runs the same function"
        ) from None


@cache
def native_driver() -> Driver:
    """The driver of this machine, started once. Raises DeviceError where there is none."""
    return NativeDriver()
