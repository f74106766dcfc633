"""Kernels and programs for the tests of the runtime, made without the compiler above it."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from graphdl.kernels.cpu import llvm, loading
from graphdl.kernels.cpu.assembler import Module
from graphdl.kernels.cpu.entry import Argument, ArraySpec, New, ProgramSpec
from graphdl.kernels.cpu.tape import Tape


def _write(module: Module) -> None:
    # add_one(table, lo, hi): out[i] = in[i] + 1 of int64; table = (in, out)
    with module.function("add_one", 3) as (f, (table, lo, hi)):
        source, target = f.load(table), f.load(table + 8)
        with f.count(lo, hi) as i:
            f.store(target + i * 8, f.load(source + i * 8) + 1)
    # sum_back(table, lo, hi): out[i] = in[i] + in[n - 1 - i]; table = (in, out, n)
    with module.function("sum_back", 3) as (f, (table, lo, hi)):
        source, target, n = f.load(table), f.load(table + 8), f.load(table + 16)
        with f.count(lo, hi) as i:
            f.store(target + i * 8, f.load(source + i * 8) + f.load(source + (n - 1 - i) * 8))
    # tally(table, lo, hi): counts[i] += 1, atomically
    with module.function("tally", 3) as (f, (table, lo, hi)), f.count(lo, hi) as i:
        f.fetch_add(f.load(table) + i * 8, 1)


def _load() -> dict[str, int]:
    names = ("add_one", "sum_back", "tally")
    module = Module("graphdl_test_kernels", names, 0)
    _write(module)
    start = loading.load({module.name: llvm.object_code(module.text())})[module.name]
    found = (ctypes.c_int64 * len(names))()
    ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)(start)(found, found)
    return dict(zip(names, found, strict=True))


KERNELS = _load()

I8 = np.dtype(np.int64)


def add_one_spec(
    shape: tuple[int, ...], parts: int = 1, donated: bool = False, is_long: bool = False
) -> ProgramSpec:
    """A program that adds 1 to an int64 array, in place if it is donated."""
    table = np.zeros(2, np.int64)
    base = table.ctypes.data
    tape = Tape(
        np.array([[KERNELS["add_one"], base, int(np.prod(shape)), parts]], np.int64),
        np.array([[0, base, 0], [0 if donated else 1, base + 8, 0]], np.int64),
        (table,),
    )
    result = Argument(0) if donated else New(I8, shape)
    return ProgramSpec((ArraySpec(I8, shape, donated),), result, tape, is_long=is_long)


def in_new_process(code: str, **environment: str) -> str:
    """What a fresh interpreter prints that runs the code; fails where that one does."""
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def callback(function: Any) -> Any:
    """A kernel that is a Python function of (table address, lo, hi); keep it alive."""
    return ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(function)


def address_of(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0
