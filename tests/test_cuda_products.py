"""Matrix products by the library on a stand-in: which plan is made of a graph, and its values."""

from __future__ import annotations

import ctypes
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import graphdl as gd
from graphdl import device as devices
from graphdl.errors import ArgumentError, DeviceError, UnsupportedError
from graphdl.kernels.cuda import cublaslt
from graphdl.kernels.cuda.cublaslt import EPILOGUES, Matrix, NativeLibrary, Places, Plan
from graphdl.trees import leaves_of
from tests.device_driver import HostDevice, HostLibrary, RecordingDriver

RNG = np.random.default_rng(23)
DTYPES = [np.dtype("float32"), np.dtype("float16"), np.dtype(ml_dtypes.bfloat16)]
ABOUT = {"float32": 1e-6, "float16": 2e-3, "bfloat16": 2e-2}


@pytest.fixture
def gpu(monkeypatch):
    made = HostDevice(RecordingDriver(), 0)
    made.products = HostLibrary()
    monkeypatch.setattr(devices, "device_of", lambda target: made)
    return made


def draw(*shape: int, dtype: Any = "float32") -> np.ndarray:
    return RNG.normal(size=shape).astype(dtype)


def on_gpu(f: Any, **options: Any) -> Any:
    return gd.compile(f, target="cuda", **options)


def same(f: Any, args: list[Any], **options: Any) -> None:
    """The GPU gives what the CPU gives, relative to the largest value."""
    got, want = leaves_of(on_gpu(f, **options)(*args)), leaves_of(gd.compile(f)(*args))
    for a, b in zip(got, want, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype
        largest = max(float(np.abs(b.astype(float)).max()), 1e-3)
        limit = 3 * largest * ABOUT[str(b.dtype)]
        np.testing.assert_allclose(a.astype(float), b.astype(float), rtol=0, atol=limit)


def epilogues(gpu: Any) -> list[str]:
    return [plan.epilogue for plan in gpu.products.plans]


def network(p, x, y):
    h = np.maximum(x @ p[0] + p[1], 0)
    h = np.maximum(h @ p[2] + p[3], 0)
    return np.mean((h @ p[4] - y) ** 2)


def step(p, x, y):
    return [a - 0.1 * b for a, b in zip(p, gd.grad(network)(p, x, y), strict=True)]


def training(dtype: Any) -> list[Any]:
    sizes = [(16, 40), (40,), (40, 8), (8,), (8, 8)]
    return [[draw(*s, dtype=dtype) for s in sizes], draw(24, 16, dtype=dtype), draw(24, 8)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_training_step_is_products_with_what_is_around_them(gpu, dtype):
    p, x, y = training(dtype)
    same(step, [p, x, y.astype(dtype)])
    found = epilogues(gpu)
    assert found == ["relu_aux_bias"] * 2 + ["default"] + ["drelu_bgrad"] * 2 + ["default"] * 3
    assert {(plan.dtype, plan.out) for plan in gpu.products.plans} == {(str(dtype),) * 2}
    f = on_gpu(step)
    names = {n for k in f.lower(p, x, y.astype(dtype)).kernels for n in k.name.split("_")}
    assert names.isdisjoint({"greater", "select", "sum", "maximum", "copy"})


@pytest.mark.parametrize(
    ("without", "wanted"),
    [
        (["drelu_bgrad"], {"relu_aux_bias", "drelu", "default", "bgrada"}),
        (["drelu_bgrad", "drelu", "bgrada"], {"relu_bias", "default"}),
        (["relu_aux_bias"], {"relu_bias", "default", "bgrada"}),
        (["relu_bias", "bgrada"], {"bias", "default"}),
        (["bias", "relu", "bgrada"], {"default"}),
    ],
)
def test_without_an_algorithm_for_it_an_epilogue_is_a_kernel(gpu, without, wanted):
    gpu.products = HostLibrary(without)
    same(step, training("float32"))
    assert set(epilogues(gpu)) <= wanted
    assert wanted - {"bgrada"} <= set(epilogues(gpu))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_layers_without_a_gradient_write_no_mask(gpu, dtype):
    x, w, b = (draw(*s, dtype=dtype) for s in ((6, 8), (8, 16), (16,)))
    same(lambda x, w, b: np.maximum(x @ w + b, 0), [x, w, b])
    same(lambda x, w, b: np.maximum(x @ w, 0), [x, w, b])
    same(lambda x, w, b: x @ w + b, [x, w, b])
    same(lambda x, w, b: np.tanh(x @ w) @ w.T, [x, w, b])
    assert epilogues(gpu) == ["relu_bias", "relu", "bias", "default", "default"]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_sums_of_an_operand_come_with_the_product(gpu, dtype):
    x, d = draw(24, 16, dtype=dtype), draw(24, 8, dtype=dtype)
    same(lambda x, d: (x.T @ d, np.sum(d, axis=0)), [x, d])
    assert epilogues(gpu) == ["bgrada"]
    same(lambda x, d: (x.T @ d, np.sum(d, axis=1)), [x, d])
    assert epilogues(gpu)[1:] == ["default"]
    same(lambda x, d: np.exp(np.sum(d, axis=0)) @ (x.T @ d).T, [x, d])  # needed before the product


def test_sums_may_be_read_behind_the_product(gpu):
    x, d = draw(24, 16), draw(24, 8)
    same(lambda x, d: x.T @ d / np.sum(d, axis=0), [x, d])
    assert epilogues(gpu) == ["bgrada"]


def test_what_others_read_stays_there(gpu):
    x, w, b = draw(6, 8), draw(8, 16), draw(16)

    def between(x, w, b):
        z = x @ w + b
        h = np.maximum(z, 0)
        return z, h, np.sum(h)

    same(between, [x, w, b])
    assert epilogues(gpu) == ["bias"]
    loss = lambda w: np.sum(np.maximum(x @ w, 0) * np.sin(x @ w))  # noqa: E731
    same(gd.grad(loss), [w])


def test_a_bias_of_another_shape_or_place_is_a_kernel(gpu):
    x, w, b = draw(6, 8), draw(8, 16), draw(20)
    same(lambda x, w, b: x @ w + b[1:17], [x, w, b])  # starts at 4 bytes
    same(lambda x, w, b: x @ w + b[:6, None], [x, w, b])
    same(lambda x, w, b: x @ w + x[0, 0], [x, w, b])
    assert epilogues(gpu) == ["default"] * 3
    same(lambda x, w, b: x @ w + b[4:20], [x, w, b])
    assert epilogues(gpu)[3:] == ["bias"]


def test_nan_passes_a_relu(gpu):
    x, w = draw(4, 4), draw(4, 8)
    x[1, 2] = np.nan
    f = lambda x, w: np.maximum(x @ w, 0)  # noqa: E731
    np.testing.assert_array_equal(np.isnan(np.asarray(on_gpu(f)(x, w))), np.isnan(x @ w))
    gpu.products = HostLibrary(keeps_nan=False)
    np.testing.assert_array_equal(np.isnan(np.asarray(on_gpu(f)(x, w))), np.isnan(x @ w))
    assert epilogues(gpu) == ["default"]


def test_a_small_product_tells_what_a_relu_does_of_nan(gpu):
    assert cublaslt.relu_is_ours(HostLibrary(), gpu)
    assert not cublaslt.relu_is_ours(HostLibrary(keeps_nan=False), gpu)
    assert not cublaslt.relu_is_ours(HostLibrary(["drelu"]), gpu)


# -- tf32 ------------------------------------------------------------------------------------------


def test_tf32_is_asked_for(gpu):
    x, w = draw(8, 8), draw(8, 8)
    f = lambda x, w: np.tanh(x @ w)  # noqa: E731
    exact = np.asarray(on_gpu(f)(x, w))
    rough = np.asarray(on_gpu(f, matmul_precision="tf32")(x, w))
    assert [plan.compute for plan in gpu.products.plans] == ["float32", "tf32"]
    assert 0 < np.abs(exact - rough).max() < 1e-2
    slope = gd.grad(on_gpu(lambda w: np.sum(np.tanh(x @ w)), matmul_precision="tf32"))
    slope(w)
    assert gpu.products.plans[-1].compute == "tf32"
    on_gpu(f, matmul_precision="tf32")(x.astype(float), w.astype(float))
    assert gpu.products.plans[-1].compute == "float64"


def test_tf32_elsewhere_is_an_error(gpu):
    with pytest.raises(UnsupportedError, match="'tf32' is of GPUs"):
        gd.compile(np.matmul, matmul_precision="tf32")
    with pytest.raises(ArgumentError, match="write 'float32' or 'tf32'"):
        gd.compile(np.matmul, target="cuda", matmul_precision="bf16")


def test_tf32_without_the_library_is_an_error(gpu, monkeypatch):
    gpu.products = None
    monkeypatch.setattr(devices, "library_of", lambda device: None)
    with pytest.raises(DeviceError, match="needs cublasLt, which is not installed: python -m pip"):
        on_gpu(np.matmul, matmul_precision="tf32")


# -- what the library is told ----------------------------------------------------------------------


class Told:
    """Takes the place of cublasLt: keeps what it was given, and says that all is well."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.attributes: dict[tuple[str, int], int] = {}

    def __getattr__(self, name: str) -> Any:
        def function(*args: Any) -> int:
            self.calls.append((name, args))
            if name.endswith("SetAttribute"):
                _, attribute, place, size = args
                kind = name.removeprefix("cublasLt").removesuffix("SetAttribute")
                data = ctypes.string_at(place, size.value)
                self.attributes[kind, attribute] = int.from_bytes(data, "little")
            if name == "cublasLtMatmulAlgoGetHeuristic":
                args[-1]._obj.value = 1
            return 0

        return function


def test_descriptors_say_what_the_plan_says(gpu):
    library = NativeLibrary.__new__(NativeLibrary)
    library._device, library._library = gpu, Told()
    library._handle, library._known = ctypes.c_void_p(), {}
    left, right, result = Matrix(8, 4, 8), Matrix(5, 4, 5, 0, True), Matrix(8, 5, 8)
    plan = Plan("bfloat16", left, right, result, 1, "bfloat16", "float32", "relu_aux_bias")
    assert library.takes(plan)
    prepared = library.prepare(plan)
    told = library._library
    # cublasLt.h: TRANSA 3, TRANSB 4, EPILOGUE 7, BIAS_POINTER 8, AUX_POINTER 11, AUX_LD 12
    assert told.attributes["MatmulDesc", 3] == 0
    assert told.attributes["MatmulDesc", 4] == 1
    assert told.attributes["MatmulDesc", 7] == 2 | 4 | 128
    assert told.attributes["MatmulDesc", 12] == 128
    made = [args for name, args in told.calls if name == "cublasLtMatrixLayoutCreate"]
    assert [(a[1], a[2].value, a[3].value, a[4].value) for a in made] == [
        (14, 8, 4, 8), (14, 5, 4, 5), (14, 8, 5, 8),
    ]  # fmt: skip
    (described,) = [args for name, args in told.calls if name == "cublasLtMatmulDescCreate"]
    assert described[1:] == (68, 0)
    library.multiply(prepared, Places(16, 32, 48, 64, 80, 96), 7)
    assert (told.attributes["MatmulDesc", 8], told.attributes["MatmulDesc", 11]) == (64, 80)
    name, args = told.calls[-1]
    assert name == "cublasLtMatmul"
    assert [args[i].value for i in (3, 5, 8, 10)] == [16, 32, 48, 48]
    assert (args[13].value, args[14].value, args[15].value) == (96, cublaslt.WORKSPACE, 7)
    assert (args[2]._obj.value, args[7]._obj.value) == (1, 0)


def test_epilogues_are_made_of_the_bits_of_the_header():
    relu, bias, drelu, bgrad, gelu, aux = 2, 4, 8, 16, 32, 128
    assert {
        "default": 1, "relu": relu, "bias": bias, "relu_bias": relu | bias, "gelu": gelu,
        "gelu_bias": gelu | bias, "relu_aux": relu | aux, "relu_aux_bias": relu | aux | bias,
        "gelu_aux": gelu | aux, "gelu_aux_bias": gelu | aux | bias,
        "drelu": drelu | aux, "drelu_bgrad": drelu | aux | bgrad, "bgrada": 256,
    } == EPILOGUES  # fmt: skip
    assert ctypes.sizeof(cublaslt._Heuristic) == 64 + 8 + 4 + 4 + 16


def gelu(z):
    return 0.5 * z * (1 + np.tanh(0.7978845608 * (z + 0.044715 * z**3)))


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_a_gelu_of_16_bits_is_an_epilogue(gpu, dtype):
    x, w, b = (draw(*s, dtype=dtype) for s in ((6, 8), (8, 16), (16,)))
    same(lambda x, w, b: gelu(x @ w + b), [x, w, b])
    same(lambda x, w: gelu(x @ w), [x, w])
    same(lambda x, w, b: (gelu(x @ w + b), np.exp(x @ w + b)), [x, w, b])
    assert epilogues(gpu) == ["gelu_bias", "gelu", "gelu_aux_bias"]
    same(gd.value_and_grad(lambda w: np.sum(gelu(x @ w + b))), [w])
    assert epilogues(gpu)[3] == "bias", "the gradient reads what is within"


def test_a_gelu_that_is_none_is_a_kernel(gpu):
    x, w, b = draw(6, 8), draw(8, 16), draw(16)
    same(lambda x, w, b: gelu(x @ w + b), [x, w, b])  # of float32: cublasLt's may be rougher
    x, w, b = (a.astype(np.float16) for a in (x, w, b))
    same(lambda x, w, b: (x @ w + b) * np.tanh(x @ w + b), [x, w, b])
    same(lambda x, w, b: gelu(x @ w + b) * x[:, :1], [x, w, b])
    assert epilogues(gpu)[:2] == ["bias", "bias"]
