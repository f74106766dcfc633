"""CUDA kernels without a GPU: values of each template as Python text, and what the cubins hold.

A sample of the machine code is made; GRAPHDL_TEST_ALL=1 makes all of it.
"""

from __future__ import annotations

import os
import re
from typing import Any

import numpy as np
import pytest

import graphdl as gd
from graphdl.compiler import fuse
from graphdl.kernels.cuda.scalar_code import RARE
from graphdl.kernels.scalar import Scalar
from graphdl.kernels.scalar_table import SCALARS
from graphdl.kernels.source import KernelError, KernelSource
from tests.device_programs import code_of, compiles, device_program, run_as_device_python
from tests.programs import assert_same
from tests.scalar_kernels import Loop

ALL = bool(os.environ.get("GRAPHDL_TEST_ALL"))
RNG = np.random.default_rng(7)


def draw(*shape: int, dtype: str = "float32") -> np.ndarray:
    return RNG.normal(size=shape).astype(dtype)


def softmax(x):
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


def layer_norm(x, scale, shift):
    centred = x - np.mean(x, axis=-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + 1e-5) * scale + shift


def replaced(x):
    y = x * 1
    y[1:3] = 0
    return y * 2


#: What each template of kernels is tried on, by name.
CASES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "elements, wide": (lambda x, y: np.tanh(x) * y + 1, (draw(6, 8), draw(8))),
    "elements, float64": (lambda x: np.exp(x) / 3, (draw(6, 8, dtype="float64"),)),
    "elements, odd": (lambda x: np.exp(x) * 2.5, (draw(5, 7),)),
    "elements, two results": (lambda x, y: (x + y, x * y), (draw(6, 8), draw(8))),
    "elements, broadcast both ways": (lambda x: x + x[:, :1] * x[:1], (draw(5, 7),)),
    "elements, a number": (lambda x: np.sqrt(x * x), (draw(),)),
    "elements, slices": (lambda x: x[1:] - x[:-1], (draw(5, 7),)),
    "elements, mixed dtypes": (lambda x: (x > 0) & (x < 1), (draw(4, 8),)),
    "elements, integers": (lambda x: x // 3 + x % 5, (np.arange(-8, 8),)),
    "elements, counted": (lambda x: x * np.arange(8), (draw(6, 8),)),
    "elements, gathered": (lambda x, i: x[i] * 2, (draw(6, 8), np.array([3, 1, -1]))),
    "elements, padded": (lambda x: np.pad(x, ((1, 2), (0, 3))) * 2, (draw(5, 7),)),
    "elements, replaced": (replaced, (draw(6, 8),)),
    "elements, joined": (lambda x, y: np.concatenate([x, y], 1), (draw(5, 3), draw(5, 7))),
    "elements, random": (lambda k: gd.random.normal(k, (37,), "float32"), (gd.random.key(3),)),
    "elements, a sum of all": (lambda x: np.sum(x * x), (draw(6, 8),)),
    "elements, a long sum": (lambda x: np.sum(np.exp(x)), (draw(2500),)),
    "tiles, read across": (lambda x: np.exp(x.T), (draw(37, 70),)),
    "tiles, both": (lambda x: x + x.T, (draw(5, 5),)),
    "rows, a sum": (lambda x: np.sum(x, axis=1), (draw(6, 8),)),
    "rows, softmax": (softmax, (draw(5, 7),)),
    "rows, softmax, wide": (softmax, (draw(9, 8),)),
    "rows, softmax of a block": (softmax, (draw(2, 1100),)),
    "rows, gradient of softmax": (
        gd.grad(lambda x, y: np.sum(softmax(x) * y)), (draw(6, 8), draw(8)),
    ),
    "rows, layer norm": (layer_norm, (draw(6, 8), draw(8), draw(8))),
    "rows and columns": (
        gd.grad(lambda *args: np.sum(np.sin(layer_norm(*args))), (0, 1, 2)),
        (draw(6, 8), draw(8), draw(8)),
    ),
    "rows, positions": (lambda x: (np.argmax(x, 1), np.argmin(x, 1)), (draw(6, 8),)),
    "rows, truth": (lambda x: (np.any(x > 1, 1), np.all(x > -2, 1)), (draw(6, 8),)),
    "columns": (lambda x: np.sum(x, axis=0), (draw(70, 8),)),
    "columns, odd": (lambda x: np.max(x, axis=0), (draw(11, 5),)),
    "columns of batches": (lambda x: np.sum(x, axis=1), (draw(3, 9, 8),)),
    "columns and rows apart": (lambda x: (np.mean(x), np.max(x, 1), np.min(x)), (draw(6, 8),)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_template_computes_what_numpy_does(name):
    f, args = CASES[name]
    graph = gd.trace(f, *args)
    want = graph.evaluate(*args)
    want = list(want) if isinstance(want, tuple) else [want]
    for got, one in zip(run_as_device_python(graph, args), want, strict=True):
        scale = float(np.max(np.abs(one))) if one.dtype.kind == "f" else 1.0
        assert_same(got, one, 16, scale)


def test_kernels_that_are_not_fused_agree():
    f, args = CASES["rows, gradient of softmax"]
    graph = gd.trace(f, *args)
    fused = run_as_device_python(graph, args)
    for a, b in zip(fused, run_as_device_python(graph, args, fuse.unfused), strict=True):
        assert_same(a, b, 16)


def test_an_index_out_of_bounds_is_reported_in_the_status():
    graph = gd.trace(lambda x, i: x[i], gd.spec((4, 3)), gd.spec((2,), "int64"))
    program = device_program(graph)
    assert program.status is not None
    assert any(program.status in launch.writes for launch in program.launches)


def test_large_angles_are_reduced_without_float64(monkeypatch):
    scalar = Scalar("sin_of_any_float32", 1, RARE["sin"], "numpy:sin")
    monkeypatch.setitem(SCALARS, scalar.name, scalar)
    x = np.concatenate([RNG.normal(size=4000) * 10.0 ** RNG.integers(1, 38, 4000), [16367173, 1e5]])
    x = x.astype(np.float32)
    want = np.sin(x.astype(np.float64))
    got = Loop(scalar.name, "float32")(x)
    assert np.max(np.abs(got - want) / np.spacing(np.abs(want).astype(np.float32))) <= 2


# -- machine code ----------------------------------------------------------------------------------

#: Cases whose arrays let every access take 16 bytes.
WIDE = (
    "elements, wide", "elements, float64", "elements, two results", "rows, softmax, wide",
    "rows, layer norm", "columns",
)  # fmt: skip


#: Functions that go to float64 far from the middle of their range, where a branch leads.
RARELY_FLOAT64 = ("ndtri",)


@compiles
@pytest.mark.parametrize("name", [n for i, n in enumerate(CASES) if ALL or i % 4 == 0 or n in WIDE])
def test_machine_code_keeps_values_in_registers(name):
    f, args = CASES[name]
    for source, assembly, cubin in code_of(device_program(gd.trace(f, *args)), (9, 0)):
        assert cubin.local_bytes == 0, f"{source.name} spills"
        assert cubin.registers <= 128
        if not any(word in source.text for word in ("f64", "float64", *RARELY_FLOAT64)):
            assert ".f64" not in assembly, f"{source.name} computes in float64\n{source.text}"
        if name in WIDE:
            assert re.search(r"(ld|st)\.global\.(v4\.f32|v2\.f64)", assembly), source.text


@compiles
@pytest.mark.parametrize("cc", [(8, 0), (10, 0)])
@pytest.mark.parametrize("name", ["rows, softmax", "tiles, both"])
def test_kernels_compile_for_other_devices(name, cc):
    f, args = CASES[name]
    for _, _, cubin in code_of(device_program(gd.trace(f, *args)), cc):
        assert cubin.code[:4] == b"\x7fELF"
        assert cubin.local_bytes == 0


@compiles
def test_a_cubin_is_found_again_in_the_cache(tmp_path, monkeypatch):
    from graphdl.kernels.cuda import toolchain

    monkeypatch.setenv("GRAPHDL_CACHE_DIR", str(tmp_path))
    text = "def kernel(at, n):\n    f32_at(at)[thread()] = f32(n)\n"
    made = toolchain.compile(KernelSource("fill", text), toolchain.Signature(2, 64), (9, 0))
    monkeypatch.setattr(toolchain, "ptx", None)
    assert toolchain.compile(KernelSource("f", text), toolchain.Signature(2, 64), (9, 0)) == made


@compiles
def test_a_text_that_is_no_kernel_is_named():
    from graphdl.kernels.cuda import toolchain

    source = KernelSource("wrong", "def kernel(n):\n    undefined_name(n)\n")
    with pytest.raises(KernelError, match="cannot compile the kernel in"):
        toolchain.ptx(source, toolchain.Signature(1, 32), (9, 0))
