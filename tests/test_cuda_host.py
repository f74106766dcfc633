"""The host side of the CUDA target on a stand-in for the driver: no GPU needed."""

from __future__ import annotations

from ctypes.util import find_library
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import graphdl as gd
from graphdl import device as devices
from graphdl.errors import DeviceError, DeviceMemoryError
from graphdl.kernels.cuda import device as cuda_device
from graphdl.trees import leaves_of
from tests.device_driver import HostDevice, HostLibrary, RecordingDriver
from tests.programs import assert_same

RNG = np.random.default_rng(5)


def draw(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


@pytest.fixture
def gpu(monkeypatch):
    """A device of the host's."""
    made = HostDevice(RecordingDriver(), 0)
    monkeypatch.setattr(devices, "device_of", lambda target: made)
    return made


def on_gpu(f: Any, **options: Any) -> Any:
    return gd.compile(f, target="cuda", **options)


def test_a_function_takes_and_gives_device_arrays(gpu):
    f = on_gpu(lambda x, y: {"a": np.tanh(x) * y, "b": np.sum(x, axis=1)})
    x, y = draw(4, 8), draw(8)
    result = f(gd.device_put(x), y)
    assert isinstance(result["a"], gd.Array)
    assert (result["a"].shape, result["b"].shape) == ((4, 8), (4,))
    assert_same(np.asarray(result["a"]), np.tanh(x) * y, 8)
    assert_same(gd.device_get(result)["b"], np.sum(x, 1), 16)


def test_gradients_run_on_the_same_target(gpu):
    f = on_gpu(lambda x: np.sum(np.sin(x) ** 2))
    x = draw(3, 5)
    assert_same(np.asarray(gd.grad(f)(x)), np.sin(2 * x), 16)


def test_python_numbers_and_results_of_results(gpu):
    f = on_gpu(lambda x, rate: x - rate * x)
    x = gd.device_put(draw(8))
    assert_same(np.asarray(f(f(x, 0.5), 0.5)), np.asarray(x) / 4, 4)


def test_the_same_addresses_are_captured_once_and_replayed(gpu):
    f = on_gpu(lambda x: np.sum(np.exp(x)), donate=())
    x = gd.device_put(draw(700))
    want = np.sum(np.exp(np.asarray(x)))
    for _ in range(4):
        assert_same(np.asarray(f(x)), want, 16)
    calls = gpu.driver.calls
    assert calls.count("begin_capture") == 1
    assert calls.count("replay") == 3


def test_a_donated_array_is_written_over_and_cannot_be_used_again(gpu):
    f = on_gpu(lambda x: x * 2, donate=0)
    x = gd.device_put(draw(8))
    want, address = np.asarray(x) * 2, x.address
    y = f(x)
    assert y.address == address
    assert_same(np.asarray(y), want)
    with pytest.raises(gd.ArgumentError, match="was donated"):
        f(x)


def test_memory_is_used_again(gpu):
    f = on_gpu(lambda x: x + 1)
    x = gd.device_put(draw(64))
    for _ in range(3):
        x = f(x)
    before = gpu.driver.calls.count("allocate")
    for _ in range(5):
        x = f(x)
    assert gpu.driver.calls.count("allocate") == before


def test_an_index_out_of_bounds_raises_at_the_call(gpu):
    f = on_gpu(lambda x, i: x[i])
    with pytest.raises(gd.GraphIndexError, match="out of bounds"):
        f(draw(4, 3), np.array([1, 7]))
    assert_same(np.asarray(f(draw(4, 3) * 0, np.array([1, 3]))), np.zeros((2, 3), np.float32))


def test_loops_and_branches(gpu):
    def scanned(x, xs):
        return gd.scan(lambda c, row: (np.tanh(c + row), c * row), x, xs)

    x, xs = draw(3), draw(5, 3)
    want = gd.compile(scanned)(x, xs)
    got = on_gpu(scanned)(x, xs)
    for a, b in zip(got, want, strict=True):
        assert_same(np.asarray(a), b, 16)
    total = lambda x, xs: np.sum(scanned(x, xs)[1])  # noqa: E731
    assert_same(np.asarray(gd.grad(on_gpu(total))(x, xs)), gd.grad(total)(x, xs), 64, 4)

    def root(x):
        start = (x, np.int64(0))
        going = lambda s: np.abs(s[0] * s[0] - x) > 1e-3  # noqa: E731
        return gd.while_loop(going, lambda s: (0.5 * (s[0] + x / s[0]), s[1] + 1), start)

    for a, b in zip(on_gpu(root)(2.0), gd.compile(root)(2.0), strict=True):
        assert_same(np.asarray(a), np.asarray(b), 4)
    chosen = lambda i, x: gd.switch(i, [np.sin, np.cos, np.exp], x)  # noqa: E731
    for i in range(3):
        assert_same(np.asarray(on_gpu(chosen)(i, x)), gd.compile(chosen)(i, x), 8)


def test_products_go_to_the_library_with_their_bias(gpu):
    gpu.products = HostLibrary()
    x, w, b = draw(5, 4), draw(4, 8), draw(8)
    f = on_gpu(lambda x, w, b: np.maximum(x @ w + b, 0))
    assert_same(np.asarray(f(x, w, b)), np.maximum(x @ w + b, 0), 8, 4)
    (plan,) = gpu.products.plans
    assert plan.epilogue == "relu_bias"
    assert (plan.left.rows, plan.left.columns, plan.left.turned) == (8, 4, False)
    assert (plan.result.rows, plan.result.columns, plan.result.apart) == (8, 5, 8)
    assert [kernel.name for kernel in f.lower(x, w, b).kernels] == ["cublaslt"]


@pytest.mark.parametrize(
    ("f", "shapes"),
    [
        (lambda x, w: x.T @ w.T, ((7, 5), (6, 7))),
        (lambda x, w: np.einsum("bij,bkj->bik", x, w), ((2, 3, 4), (2, 5, 4))),
        (lambda x, w: (x @ w) * 2 + x @ w, ((3, 4), (4, 5))),
        (lambda x, w: x[:, 1:3] @ w, ((3, 4), (2, 5))),
        (gd.grad(lambda x, w: np.sum(np.tanh(x @ w)), (0, 1)), ((3, 4), (4, 5))),
    ],
)
def test_products_of_any_layout(gpu, f, shapes):
    gpu.products = HostLibrary()
    args = [draw(*shape) for shape in shapes]
    want, got = gd.compile(f)(*args), on_gpu(f)(*args)
    for a, b in zip(leaves_of(got), leaves_of(want), strict=True):
        assert_same(np.asarray(a), b, 32, 4)


def test_others_share_memory_without_a_copy(gpu):
    x = gd.device_put(draw(2, 3))
    interface = x.__cuda_array_interface__
    assert (interface["shape"], interface["typestr"]) == ((2, 3), "<f4")
    assert interface["data"] == (x.address, False)

    class Other:
        __cuda_array_interface__ = interface

    assert_same(np.asarray(on_gpu(lambda x: x * 2)(Other())), np.asarray(x) * 2)
    again = gd.device_put(Shared(x))
    assert again.address == x.address
    assert_same(np.asarray(again), np.asarray(x))


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16], ids=str)
def test_halves_are_shared_both_ways(gpu, dtype):
    host = draw(2, 3).astype(dtype)
    x = gd.device_put(host)

    class Other:
        __cuda_array_interface__ = x.__cuda_array_interface__

    for shared in (Other(), Shared(x)):
        again = gd.device_put(shared)
        assert (again.address, again.dtype) == (x.address, host.dtype)
        doubled = np.asarray(on_gpu(lambda x: x * 2)(shared))
        assert doubled.dtype == host.dtype
        assert doubled.tolist() == (host * 2).tolist()


class Shared:
    """An array that others reach by DLPack alone."""

    def __init__(self, array: Any) -> None:
        self.__dlpack__, self.__dlpack_device__ = array.__dlpack__, array.__dlpack_device__


def test_what_does_not_lie_row_by_row_is_refused(gpu):
    x = gd.device_put(draw(4, 4))

    class Turned:
        __cuda_array_interface__ = x.__cuda_array_interface__ | {"strides": (4, 16)}

    with pytest.raises(gd.ArgumentError, match="row by row"):
        on_gpu(lambda x: x)(Turned())


def test_an_op_without_a_kernel_is_named_before_anything_runs(gpu):
    f = on_gpu(lambda x: np.linalg.inv(x))
    before = len(gpu.driver.calls)
    with pytest.raises(gd.UnsupportedError, match=r"target='cuda' has no kernel for"):
        f(draw(3, 3))
    assert len(gpu.driver.calls) <= before + 2, "nothing but the argument was copied"


def test_too_little_memory_names_the_largest_values(monkeypatch):
    small = HostDevice(RecordingDriver(capacity=10_000), 0)
    monkeypatch.setattr(devices, "device_of", lambda target: small)
    f = on_gpu(lambda x: np.sum(np.exp(x)))
    with pytest.raises(MemoryError, match="no memory left"):
        f(draw(100, 100))
    assert_same(np.asarray(f(draw(2, 2) * 0)), np.float32(4))
    assert issubclass(DeviceMemoryError, gd.GraphError)


def test_an_executable_can_be_read(gpu):
    executable = on_gpu(lambda x: np.tanh(x) + 1).lower(gd.spec(16, "float32"))
    assert executable.kernels[0].name == "tanh_add"
    assert "load4(p0, j)" in executable.source
    assert "kernel 0: tanh_add" in str(executable.explain())


def test_without_a_driver_the_error_says_what_is_missing():
    if find_library("cuda"):
        pytest.skip("this machine has a driver")
    with pytest.raises(DeviceError, match="needs an NVIDIA GPU"):
        gd.compile(lambda x: x, target="cuda")


def test_targets_that_are_none():
    for target in ("gpu", "cuda:", "cuda:x"):
        with pytest.raises(gd.UnsupportedError, match="write 'cpu', 'cuda' or 'cuda:1'"):
            gd.compile(lambda x: x, target=target)


def test_a_missing_extra_names_the_command_that_mends_it(monkeypatch):
    monkeypatch.setattr(cuda_device, "native_driver", RecordingDriver)
    monkeypatch.setattr(cuda_device, "missing_packages", lambda: ["numba-cuda"])
    with pytest.raises(
        DeviceError, match=r'needs numba-cuda: python -m pip install "graphdl\[cuda'
    ):
        cuda_device.device_of("cuda:0")
    with pytest.raises(DeviceError, match="has found 1 GPU"):
        cuda_device.device_of("cuda:3")
