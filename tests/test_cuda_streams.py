"""Streams of the caller, profiles, and what is said when a GPU fails: on a stand-in."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import graphdl as gd
from graphdl import device as devices
from graphdl.errors import DeviceError, DeviceMemoryError
from graphdl.kernels.cuda.driver import NativeDriver
from tests.device_driver import HostDevice, RecordingDriver
from tests.programs import assert_same


@pytest.fixture
def gpu(monkeypatch):
    made = HostDevice(RecordingDriver(), 0)
    made.driver.streams[77] = 0
    monkeypatch.setattr(devices, "device_of", lambda target: made)
    return made


def test_work_goes_to_the_stream_of_the_caller_in_one_order(gpu):
    f = gd.compile(lambda x: np.sum(np.exp(x)), target="cuda")
    x = gd.device_put(np.ones(64, np.float32))
    f(x)
    calls, on = gpu.driver.calls, gpu.driver.on
    calls.clear(), on.clear()
    with gd.stream(77):
        for _ in range(3):
            result = f(x)
        assert x.__cuda_array_interface__["stream"] == 77
        assert set(on) == {77} | ({gpu.capture_stream} if gpu.capture_stream in on else set())
        assert "replay" in calls
        waits = [call for call in calls if "wait" in call]
        assert len(waits) == 1, "once for all that was asked on the default stream before"
        assert waits[0].startswith("77 waits")
    assert_same(np.asarray(result), np.float32(64 * np.e), 16)
    assert calls.index(next(c for c in calls if c.startswith("0 waits"))) > calls.index("replay")
    assert x.__cuda_array_interface__["stream"] == 1


@pytest.mark.parametrize(
    "stream",
    [
        SimpleNamespace(__cuda_stream__=lambda: (0, 77)),
        SimpleNamespace(cuda_stream=77),
        SimpleNamespace(ptr=77),
    ],
)
def test_streams_of_other_libraries(gpu, stream):
    with gd.stream(stream):
        assert gpu.stream == 77
    assert gpu.stream == 0


def test_streams_that_cannot_be_used_are_named(gpu):
    gpu.driver.streams |= {5: 1, 6: None}
    with (
        pytest.raises(DeviceError, match=r"a stream of cuda:1 cannot run work of cuda:0"),
        gd.stream(5),
    ):
        pass
    with pytest.raises(DeviceError, match=r"a stream of another context"), gd.stream(6):
        pass
    with pytest.raises(gd.ArgumentError, match=r"takes a CUDA stream .* not 'a'"), gd.stream("a"):
        pass
    with pytest.raises(gd.ArgumentError, match=r"version 1 of __cuda_stream__"):
        gd.stream(SimpleNamespace(__cuda_stream__=lambda: (1, 77)))


def test_memory_of_another_device_or_of_none_is_refused(gpu):
    x = gd.device_put(np.ones(8))
    other = SimpleNamespace(__cuda_array_interface__=x.__cuda_array_interface__)
    f = gd.compile(lambda x: x * 2, target="cuda")
    f(other)
    gpu.driver.places[x.address] = 1
    with pytest.raises(DeviceError, match=r"lies on cuda:1, the function runs on cuda:0"):
        f(other)
    gpu.driver.places[x.address] = None
    with pytest.raises(DeviceError, match=r"no memory of a GPU"):
        f(other)


def test_a_profile_has_every_kernel_and_keeps_what_is_donated(gpu):
    def f(x, y):
        return x + np.exp(y) / np.sum(y)

    x, y = np.ones((4, 8), np.float32), np.ones((4, 8), np.float32)
    call = gd.compile(f, target="cuda", donate=0)
    executable = call.lower(x, y)
    on_device = gd.device_put(x)
    report = executable.profile(on_device, y, calls=2)
    assert report.calls == 2
    assert [kernel.name for kernel in report.kernels] == [k.name for k in executable.kernels]
    assert all(kernel.seconds > 0 for kernel in report.kernels)
    assert_same(np.asarray(on_device), x)
    assert "peak, measured" in str(report)
    with pytest.raises(gd.ArgumentError, match="one call at least"):
        executable.profile(on_device, y, calls=0)


def test_an_explanation_says_what_is_copied_from_the_host(gpu):
    f = gd.compile(lambda weights, x: x @ weights, target="cuda")
    weights, x = np.ones((3, 2), np.float32), np.ones((4, 3), np.float32)
    executable = f.lower(weights, x)
    assert "copied at each call; none was so far" in str(executable.explain())
    f(gd.device_put(weights), x)
    text = str(executable.explain())
    assert "copied from the host at each call: x float32[4, 3] (48 bytes a call)" in text
    assert "weights float32" not in text.split("passes")[0]


def test_too_little_memory_for_a_result_says_how_much_there_is(monkeypatch):
    small = HostDevice(RecordingDriver(capacity=5_000), 0)
    monkeypatch.setattr(devices, "device_of", lambda target: small)
    x = gd.device_put(np.ones(1000, np.float32))
    with pytest.raises(DeviceMemoryError, match=r"of 5,000 bytes of cuda:0 [\d,]+ are free"):
        gd.compile(lambda x: x + 1, target="cuda")(x)
    del x
    assert_same(np.asarray(gd.compile(lambda x: x + 1, target="cuda")(np.ones(2))), np.full(2, 2.0))


class Failing:
    """A driver's library whose calls return a status."""

    def __init__(self, status):
        self.status = status

    def cuGetErrorString(self, status, text):
        text._obj.value = b"said the driver"
        return 0

    def __getattr__(self, name):
        return lambda *args: self.status


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (2, "has no memory left to allocate 8 bytes"),
        (700, r"used an address that is not there \(error 700: said the driver\)"),
        (719, "start it anew"),
        (46, "the GPU is lost to this process: it could not allocate 8 bytes"),
        (999, "nvidia-smi"),
        (1, r"could not allocate 8 bytes: said the driver \(error 1\)"),
    ],
)
def test_failures_of_the_driver_are_told_apart(status, message):
    driver = NativeDriver.__new__(NativeDriver)
    driver._library = Failing(status)
    with pytest.raises(DeviceError, match=message) as caught:
        driver.allocate(8)
    assert isinstance(caught.value, MemoryError) == (status == 2)


class RefusingDriver(RecordingDriver):
    """It captures nothing: it says so at once, at a launch, or at the end."""

    def __init__(self, when: str) -> None:
        super().__init__()
        self.when = when

    def begin_capture(self, stream: int) -> None:
        if self.when == "at once":
            raise DeviceError("the CUDA driver could not begin a graph")
        super().begin_capture(stream)

    def launch(self, *args: Any) -> None:
        if self.when == "at a launch" and args[-1] in self.capturing:
            raise DeviceError("cublasLtMatmul failed with status 14")
        super().launch(*args)

    def end_capture(self, stream: int) -> int:
        if self.when == "at the end":
            del self.capturing[stream]
            raise DeviceError("the CUDA driver could not end a graph")
        return super().end_capture(stream)


@pytest.mark.parametrize("when", ["at once", "at a launch", "at the end"])
def test_where_capture_is_refused_kernels_are_launched_one_by_one(monkeypatch, when):
    made = HostDevice(RefusingDriver(when), 0)
    monkeypatch.setattr(devices, "device_of", lambda target: made)
    f = gd.compile(lambda x: np.sum(np.exp(x)), target="cuda")
    x = gd.device_put(np.linspace(-1, 1, 700, dtype=np.float32))
    want = np.sum(np.exp(np.asarray(x)))
    for _ in range(4):
        np.testing.assert_allclose(np.asarray(f(x)), want, rtol=1e-5)
    assert not made.driver.capturing, "no stream is left capturing"
    assert not made.driver.graphs
    assert "replay" not in made.driver.calls
    assert made.driver.calls.count("begin_capture") <= 1, "it is not tried again"


class LateDriver(RecordingDriver):
    """Copies from the host happen when they are waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.late: list[Any] = []

    def to_device(self, address: int, host: int, nbytes: int, stream: int) -> None:
        self.late.append(lambda: ctypes.memmove(address, host, nbytes))

    def wait(self, stream: int) -> None:
        while self.late:
            self.late.pop(0)()


def test_a_host_array_may_be_changed_as_soon_as_the_call_returns(monkeypatch):
    made = HostDevice(LateDriver(), 0)
    monkeypatch.setattr(devices, "device_of", lambda target: made)
    host = np.arange(8, dtype=np.float32)
    placed = gd.device_put(host)
    result = gd.compile(lambda x, y: x + y, target="cuda")(placed, host)
    host[:] = -1
    made.driver.wait(0)
    np.testing.assert_array_equal(np.asarray(result), 2 * np.arange(8, dtype=np.float32))
