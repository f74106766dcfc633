"""CUDA kernels without a GPU: values of each template as Python text, and what the cubins hold.

A sample of the machine code is made; GRAPHDL_TEST_ALL=1 makes all of it.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

import graphdl as gd
from graphdl.compiler import fuse
from graphdl.kernels.cuda.interpret import run_as_python
from graphdl.kernels.cuda.scalar_code import RARE
from graphdl.kernels.cuda.toolchain import TESTED
from graphdl.kernels.scalar import Scalar
from graphdl.kernels.scalar_table import SCALARS
from graphdl.kernels.source import KernelError, KernelSource
from tests import cubins
from tests.device_cases import CASES, WIDE
from tests.device_programs import compiles, device_program, run_as_device_python
from tests.programs import assert_same
from tests.scalar_kernels import Loop

ALL = bool(os.environ.get("GRAPHDL_TEST_ALL"))
RNG = np.random.default_rng(7)


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


def test_threads_that_wait_at_different_places_are_named():
    text = "def kernel(n):\n    if thread() < n:\n        barrier()\n    else:\n        barrier()\n"
    for n in (0, 64):
        run_as_python(KernelSource("apart", text), (n,), 1, 64)
    with pytest.raises(
        KernelError, match=r"wait for each other at different places: line 3, line 5"
    ):
        run_as_python(KernelSource("apart", text), (5,), 1, 64)
    alone = text.replace("    else:\n        barrier()\n", "")
    with pytest.raises(KernelError, match=r"different places: the end, line 3"):
        run_as_python(KernelSource("alone", alone), (32,), 1, 64)


# -- machine code ----------------------------------------------------------------------------------

#: The sample: a template of each kind, those whose accesses are wide, and other devices.
COMPILED = [
    *((name, (9, 0)) for i, name in enumerate(CASES) if ALL or i % 7 == 0 or name in WIDE),
    *(("rows, softmax", cc) for cc in TESTED if cc != (9, 0)),
]


@compiles
@pytest.mark.parametrize(("name", "cc"), COMPILED)
def test_machine_code_keeps_values_in_registers(name, cc):
    f, args = CASES[name]
    program = device_program(gd.trace(f, *args))
    for kernel in cubins.kernels_of(name, program, name in WIDE):
        found = cubins.check(kernel, cc)
        assert not found.wrong, f"{found}\n{kernel.source.text}"


@compiles
def test_rules_of_machine_code_that_are_broken_are_named():
    text = "def kernel(at, n):\n    p = f32_at(at)\n    p[thread()] = f32(exp(f64(n)))\n"
    hidden = text.replace("f64(n)", "n + 0.5")  # the sum of an integer and Python's number
    kernel = cubins.Kernel("a test", KernelSource("wide", hidden), 2, 64, wide=True)
    wrong = cubins.check(kernel, (9, 0)).wrong
    assert "computes in float64" in wrong
    assert "has no access of 16 bytes" in wrong
    kernel = cubins.Kernel("a test", KernelSource("wrong", "def kernel(n):\n    x\n"), 1, 64)
    assert "KernelError" in cubins.check(kernel, (9, 0)).wrong


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
