"""All kernels for GPUs compiled to machine code by the real compiler; no GPU is needed.

    python -m tests.cubins [--cc 80,90,100] [--part templates,halves,ops,workloads] [--json FILE]

The kernels are those of each template, also in floats of 16 bits, of each op that has some, in
float32 and float64, and of each workload of `python -m bench --target cuda` at its full size. Each
must compile for each of the compute capabilities, keep its values in registers (no spills, no local
memory, a bound on their number), stay out of float64 unless that was asked for, and read or write
16 bytes at once where that is promised. It prints what was found, and exits with 1 if a kernel
breaks a rule. It takes tens of minutes the first time: what the compiler made of each kernel is
kept in the cache of kernels, so that a run that was stopped goes on where it was, and one after a
change compiles what has changed. The suite compiles a sample (tests/test_cuda_kernels.py,
tests/test_cuda_ops.py).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
from ml_dtypes import bfloat16

import graphdl as gd
from bench.__main__ import NAMES
from bench.gpu import OF_THE_CPU
from graphdl.errors import UnsupportedError
from graphdl.kernels import cache as kept
from graphdl.kernels.cuda import toolchain
from graphdl.kernels.cuda.launch import DeviceLaunch
from graphdl.kernels.program import Program
from graphdl.kernels.source import KernelSource
from tests.device_cases import CASES, COMPOSED, WIDE, every_case, is_covered
from tests.device_programs import device_program
from tests.helpers import trace
from tests.idle_device import launches_of
from tests.op_cases import F4, F8

#: Registers that a thread may take. A block has 256 threads, a processor 65,536 registers: with 168
#: a kernel still has one and a half blocks there, with 128 two.
MOST_REGISTERS = 168
#: Functions that compute in float64 by nature, or where a branch leads far from the middle of their
#: range.
RARELY_FLOAT64 = ("ndtri", "loggamma", "poisson")

_WIDE = re.compile(r"(ld|st)\.global\.(v4\.[fbu]32|v2\.[fbu]64)")


@dataclass(frozen=True)
class Kernel:
    """A kernel to compile. wide: whether its accesses of 16 bytes are promised."""

    where: str
    source: KernelSource
    words: int
    threads: int
    wide: bool = False


@dataclass(frozen=True)
class Found:
    """What the compiler made of a kernel for a compute capability, and what is wrong with it."""

    where: str
    name: str
    cc: str
    registers: int = 0
    local_bytes: int = 0
    shared_bytes: int = 0
    wrong: str = ""


def kernel_of(where: str, launch: DeviceLaunch, wide: bool = False) -> Kernel:
    return Kernel(where, launch.source, len(launch.words), launch.threads, wide)


def kernels_of(where: str, program: Program, wide: bool = False) -> Iterator[Kernel]:
    """The kernels of a program, and of those within it."""
    for launch in program.launches:
        if isinstance(launch, DeviceLaunch):
            yield kernel_of(where, launch, wide)
        for body in launch.bodies:
            yield from kernels_of(where, body.program)


@dataclass(frozen=True)
class Made:
    """What the compiler made of a text."""

    registers: int
    local_bytes: int
    shared_bytes: int
    float64: bool
    wide: bool


def made(kernel: Kernel, cc: tuple[int, int]) -> Made:
    """Compile one kernel, or read what came of it the last time."""
    signature = toolchain.Signature(kernel.words, kernel.threads)
    key = kept.key_of(kernel.source.text, f"facts of {toolchain.target(signature, cc)}")
    found = kept.read(key)
    if found is not None:
        return Made(**json.loads(found))
    assembly = toolchain.ptx(kernel.source, signature, cc)
    cubin = toolchain.linked(assembly, cc, kernel.source.name)
    facts = Made(
        cubin.registers, cubin.local_bytes, cubin.shared_bytes, ".f64" in assembly,
        bool(_WIDE.search(assembly)),
    )  # fmt: skip
    kept.write(key, json.dumps(asdict(facts)).encode())
    return facts


def check(kernel: Kernel, cc: tuple[int, int]) -> Found:
    """Compile one kernel and say what breaks a rule."""
    label = f"sm_{cc[0]}{cc[1]}"
    try:
        facts = made(kernel, cc)
    except Exception as error:  # whatever a compiler may say
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        return Found(kernel.where, kernel.source.name, label, wrong=said)
    return Found(
        kernel.where, kernel.source.name, label, facts.registers, facts.local_bytes,
        facts.shared_bytes, "; ".join(broken(kernel, facts)),
    )  # fmt: skip


def broken(kernel: Kernel, facts: Made) -> list[str]:
    """The rules that the machine code of a kernel breaks."""
    found = []
    if facts.local_bytes:
        found.append(f"keeps {facts.local_bytes} bytes of a thread in memory")
    if facts.registers > MOST_REGISTERS:
        found.append(f"takes {facts.registers} registers")
    if asks_float32_alone(kernel.source) and facts.float64:
        found.append("computes in float64")
    if kernel.wide and not facts.wide:
        found.append("has no access of 16 bytes")
    return found


def asks_float32_alone(source: KernelSource) -> bool:
    """Whether nothing in the text is float64."""
    return not any(word in source.text for word in ("f64", "float64", *RARELY_FLOAT64))


def distinct(kernels: Iterator[Kernel]) -> list[Kernel]:
    """Each different text once."""
    found: dict[tuple[str, int, int], Kernel] = {}
    for kernel in kernels:
        key = kernel.source.text, kernel.words, kernel.threads
        if key not in found or kernel.wide:
            found[key] = kernel
    return list(found.values())


# -- what there is to compile ----------------------------------------------------------------------


def of_templates() -> Iterator[Kernel]:
    for name, (f, args) in {**CASES, **COMPOSED}.items():
        program = device_program(gd.trace(f, *args))
        yield from kernels_of(f"template: {name}", program, name in WIDE)


def of_halves() -> Iterator[Kernel]:
    """The templates once more, their float32 arrays in 16 bits."""
    for dtype in (np.dtype(np.float16), np.dtype(bfloat16)):
        for name, (f, args) in {**CASES, **COMPOSED}.items():
            halves = [x.astype(dtype) if x.dtype == F4 else x for x in args]
            if any(x.dtype == dtype for x in halves):
                program = device_program(gd.trace(f, *halves))
                yield from kernels_of(f"template in {dtype}: {name}", program)


def of_ops() -> Iterator[Kernel]:
    for dtype in (F4, F8):
        for case in every_case(dtype):
            if is_covered(case):
                program = device_program(trace(case, *case.operands))
                yield from kernels_of(f"op: {case}", program)


def of_workloads() -> Iterator[Kernel]:
    """Of the suite at its full size, by running it on a device that computes nothing."""
    for name in NAMES:
        if name in OF_THE_CPU:
            continue
        for case in import_module(f"bench.{name}").cases("full"):
            try:
                launches = launches_of(case)
            except UnsupportedError as error:
                print(f"{name}: {case.name}: {str(error).splitlines()[0]}")
                continue
            for launch in launches:
                yield kernel_of(f"{name}: {case.name}", launch)


PARTS = {
    "templates": of_templates,
    "halves": of_halves,
    "ops": of_ops,
    "workloads": of_workloads,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cc", default="80,90,100", help="compute capabilities (80,90,100)")
    parser.add_argument("--part", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--jobs", type=int, default=1, help="processes that compile at once")
    parser.add_argument("--json", type=Path, help="write what was found here")
    options = parser.parse_args()
    start = time.perf_counter()
    kernels = distinct(k for part in options.part.split(",") for k in PARTS[part]())
    print(f"{len(kernels)} kernels, found in {time.perf_counter() - start:.0f} s", flush=True)
    found: list[Found] = []
    with ProcessPoolExecutor(options.jobs) as pool:
        for cc in (divmod(int(number), 10) for number in options.cc.split(",")):
            one = list(pool.map(check, kernels, [cc] * len(kernels), chunksize=8))
            found += one
            print(summary(one), flush=True)
    for bad in (one for one in found if one.wrong):
        print(f"  {bad.cc} {bad.name} ({bad.where}): {bad.wrong}")
    print(f"{time.perf_counter() - start:.0f} s in all")
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")
    return int(any(one.wrong for one in found))


def summary(found: list[Found]) -> str:
    """One line for a compute capability."""
    registers = sorted(one.registers for one in found)
    return (
        f"{found[0].cc}: {len(found)} kernels, {sum(bool(one.wrong) for one in found)} break a "
        f"rule; registers {registers[len(registers) // 2]} in the median, {registers[-1]} at the "
        f"most; local memory in {sum(bool(one.local_bytes) for one in found)}"
    )


if __name__ == "__main__":
    sys.exit(main())
