"""What only a GPU can show: values, timings, launch cost. `bench/cuda_check.sh` runs it.

    python -m bench.cuda_check [--folder bench/results] [--part templates,ops,...] [--templates]

Each part is tried by itself; what fails is in the report with its error. The report is written
after each case, and one that is there is gone on with: what is in it is not done again. It exits
with 1 if a value was wrong or a part failed, with 2 where there is no GPU, with 3 where a kernel
has made the GPU useless to the process: then another process goes on. `--templates` runs one
function of each template of kernels and compares, for compute-sanitizer.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

import graphdl as gd
from bench.gpu import copy_bandwidth
from graphdl.errors import DeviceError, UnsupportedError
from graphdl.kernels.cuda import emit, toolchain
from graphdl.kernels.cuda.device import Device, device_of
from graphdl.kernels.cuda.launch import DeviceLaunch
from graphdl.trees import leaves_of

PACKAGES = ("graphdl", "numpy", "numba", "numba-cuda", "cuda-core", "nvidia-nvvm", "torch")
#: Errors allowed, in units of the dtype's epsilon times the largest value: sums have another order
#: than on the CPU.
ULPS = 256
RNG = np.random.default_rng(11)

Case = tuple[str, Callable[..., Any], tuple[Any, ...]]


def draw(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


# -- values ----------------------------------------------------------------------------------------


def softmax(x: Any) -> Any:
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


def layer_norm(x: Any, scale: Any, shift: Any) -> Any:
    centred = x - np.mean(x, axis=-1, keepdims=True)
    return centred / np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + 1e-5) * scale + shift


def loss(w1: Any, w2: Any, x: Any, y: Any) -> Any:
    return -np.mean(np.sum(y * np.log(softmax(np.maximum(x @ w1, 0) @ w2) + 1e-6), axis=-1))


def templates() -> list[Case]:
    """A function for each template of kernels, large enough for several blocks."""
    x, line = draw(300, 1000), draw(1000)
    targets = RNG.integers(0, 50, 4000)
    return [
        ("elements", lambda x, line: np.tanh(x) * line + 1, (x, line)),
        ("elements, odd", lambda x: np.exp(x), (draw(101, 103),)),
        ("elements and a sum", lambda x: (np.exp(x), np.sum(x * x)), (draw(1_000_003),)),
        ("tiles", lambda x: x.T * 2, (draw(333, 517),)),
        ("rows by warps", softmax, (x,)),
        ("rows by blocks", softmax, (draw(20, 20_000),)),
        ("positions", lambda x: (np.argmax(x, 1), np.argmin(x, 1)), (x,)),
        (
            "rows and columns",
            gd.grad(lambda *a: np.sum(np.sin(layer_norm(*a))), (0, 1, 2)),
            (x, line, line),
        ),
        ("columns", lambda x: (np.sum(x, 0), np.max(x, 0)), (draw(5003, 70),)),
        ("columns of batches", lambda x: np.sum(x, axis=1), (draw(7, 400, 60),)),
        ("gather", lambda x, i: x[i], (x, RNG.integers(0, 300, 1000))),
        ("scatter", _scattered, (draw(50, 16), draw(4000, 16), targets)),
        ("sort", lambda x: (np.sort(x), np.argsort(x)), (x,)),
        ("running sums", lambda x: np.cumsum(x, axis=0), (x,)),
        ("random", lambda key: gd.random.normal(key, (1001,), "float32"), (gd.random.key(4),)),
        ("products", lambda a, b: a @ b, (draw(130, 70), draw(70, 90))),
        ("products, turned", lambda a, b: np.tanh(a.T @ b.T), (draw(70, 130), draw(90, 70))),
        ("products in batches", lambda a, b: a @ b, (draw(5, 33, 20), draw(5, 20, 40))),
        (
            "a network's gradients",
            gd.grad(loss, (0, 1)),
            (draw(20, 64), draw(64, 10), draw(128, 20), np.abs(draw(128, 10))),
        ),
        (
            "a scan's gradient",
            gd.grad(_scanned),
            (draw(16), draw(16, 16) * 0.1, draw(12, 16)),
        ),
    ]


def _scattered(x: Any, values: Any, index: Any) -> Any:
    x = x * 1
    np.add.at(x, index, values)
    return x


def _scanned(state: Any, w: Any, xs: Any) -> Any:
    return np.sum(gd.scan(lambda c, x: (np.tanh(w @ c + x), c), state, xs)[1])


def difference(got: Any, want: Any) -> float:
    """The largest difference in units of epsilon times the largest value; infinity for a NaN."""
    worst = 0.0
    for a, b in zip(leaves_of(got), leaves_of(want), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            return float("inf")
        if b.dtype.kind not in "fc":
            worst = max(worst, 0.0 if np.array_equal(a, b) else float("inf"))
            continue
        if not np.array_equal(np.isfinite(a), np.isfinite(b)):
            return float("inf")
        finite = np.isfinite(b)
        if np.any(finite):
            scale = max(float(np.max(np.abs(b[finite]))), float(np.finfo(b.dtype).tiny))
            error = float(np.max(np.abs(a[finite] - b[finite])))
            worst = max(worst, error / (scale * float(np.finfo(b.dtype).eps)))
    return worst


class LostError(Exception):
    """The GPU is of no use to this process any more."""


def check_alive(device: Device) -> None:
    """LostError if a kernel has failed in a way that ends all work of the process."""
    try:
        device.wait()
    except DeviceError as error:
        raise LostError(str(error)) from error


def compare(
    cases: Sequence[Case],
    report: dict[str, Any] | None = None,
    after_each: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Each function on the GPU, three times (the third call is a replay), and by NumPy.

    Those that are in the report already are left out. Raises LostError after a case that ends all.
    """
    report = {} if report is None else report
    for name, f, args in cases:
        if name in report:
            continue
        try:
            call = gd.compile(f, target="cuda")
            want = gd.trace(f, *args).evaluate(*args)
            results = [gd.device_get(call(*args)) for _ in range(3)]
            same = all(
                np.asarray(a).tobytes() == np.asarray(b).tobytes()
                for again in results[1:]
                for a, b in zip(leaves_of(again), leaves_of(results[0]), strict=True)
            )
            worst = max(difference(result, want) for result in results)
            report[name] = {"ulps": worst, "ok": worst <= ULPS and same, "repeats": same}
        except UnsupportedError as error:
            report[name] = {"ok": True, "unsupported": str(error).splitlines()[0]}
        except Exception as error:
            report[name] = {"ok": False, "error": f"{type(error).__name__}: {error}"}
            if isinstance(error, DeviceError):
                check_alive(device_of("cuda"))
        finally:
            after_each()
    return report


def compile_ops(number: int, of: int, capability: tuple[int, int]) -> None:
    """Put every `of`-th op's kernels into the cache, from `number` on; what fails fails later."""
    for _, f, args in every_op()[number::of]:
        with suppress(Exception):
            pending = [emit.compiled(gd.trace(f, *args))]
            while pending:
                for launch in pending.pop().launches:
                    pending += [body.program for body in launch.bodies]
                    if isinstance(launch, DeviceLaunch):
                        signature = toolchain.Signature(len(launch.words), launch.threads)
                        toolchain.compile(launch.source, signature, capability)


def compile_ahead(device: Device) -> None:
    """The kernels of all ops, by as many processes as there are processors; they use no GPU."""
    count = max((os.cpu_count() or 1) - 1, 1)
    numbers, capabilities = range(count), [device.capability] * count
    with ProcessPoolExecutor(count, get_context("spawn")) as pool:
        list(pool.map(compile_ops, numbers, [count] * count, capabilities))


def every_op() -> list[Case]:
    """The cases by which the tests try each op."""
    from graphdl.ops.table import OPS
    from tests.op_cases import F4, F8, cases

    found: list[Case] = []
    for dtype in (F4, F8):
        for op in OPS.values():
            for case in cases(op, dtype):
                if case.operands and op.family not in ("complex", "linalg"):
                    found.append((str(case), case, case.operands))
    return found


# -- timings ---------------------------------------------------------------------------------------


def timed(device: Device, call: Callable[[], Any], seconds: float = 0.5) -> dict[str, float]:
    """The best of five means, after a warm-up, and the host's part of a call."""
    for _ in range(4):
        call()
    device.driver.wait(device.stream)
    start = time.perf_counter()
    call()
    device.driver.wait(device.stream)
    count = max(3, min(1000, int(seconds / 5 / max(time.perf_counter() - start, 1e-6))))
    best, host = float("inf"), float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(count):
            call()
        asked = time.perf_counter() - start
        device.driver.wait(device.stream)
        best = min(best, (time.perf_counter() - start) / count)
        host = min(host, asked / count)
    return {"seconds": best, "host_seconds": host, "calls": count}


def workloads() -> list[tuple[Any, ...]]:
    """Name, function, arguments, bytes that have to move at the least, operations, and options."""
    big = draw(1 << 26)
    rows, line = draw(8192, 4096), draw(4096)
    a, b, bias = draw(4096, 4096), draw(4096, 4096), draw(4096)
    scale = 2.0 * 4096**3
    return [
        (
            "pointwise value and gradient, 64M",
            gd.value_and_grad(lambda x: np.sum(np.tanh(x) * np.exp(-x * x))),
            (big,), 2.0 * big.nbytes, 0.0,
        ),
        ("softmax, 8192 x 4096", softmax, (rows,), 2.0 * rows.nbytes, 0.0),
        ("layer norm, 8192 x 4096", layer_norm, (rows, line, line), 2.0 * rows.nbytes, 0.0),
        (
            "layer norm's gradients, 8192 x 4096",
            gd.grad(lambda x, s, t: np.sum(np.tanh(layer_norm(x, s, t))), (0, 1, 2)),
            (rows, line, line), 2.0 * rows.nbytes, 0.0,
        ),
        ("sum of all, 64M", np.sum, (big,), 1.0 * big.nbytes, 0.0),
        ("sum of rows", lambda x: np.sum(x, 1), (rows,), 1.0 * rows.nbytes, 0.0),
        ("sum of columns", lambda x: np.sum(x, 0), (rows,), 1.0 * rows.nbytes, 0.0),
        ("transpose", lambda x: x.T * 1, (rows,), 2.0 * rows.nbytes, 0.0),
        ("product 4096, float32", lambda a, b: a @ b, (a, b), 0.0, scale),
        (
            "product 4096 with bias and ReLU",
            lambda a, b, c: np.maximum(a @ b + c, 0), (a, b, bias), 0.0, scale,
        ),
        (
            "network step, batch 128",
            gd.value_and_grad(loss, (0, 1)),
            (draw(784, 512), draw(512, 10), draw(128, 784), np.abs(draw(128, 10))), 0.0, 0.0,
        ),
        (
            "product 4096, tf32",
            lambda a, b: a @ b, (a, b), 0.0, scale, {"matmul_precision": "tf32"},
        ),
        *(halves() if find_spec("ml_dtypes") else []),
    ]  # fmt: skip


def halves() -> list[tuple[Any, ...]]:
    """Workloads in bfloat16."""
    from ml_dtypes import bfloat16

    a, b, bias, rows = (
        draw(*shape).astype(bfloat16) for shape in ((8192,) * 2, (8192,) * 2, (8192,), (8192, 4096))
    )
    scale = 2.0 * 8192**3
    return [
        ("product 8192, bfloat16", lambda a, b: a @ b, (a, b), 0.0, scale),
        (
            "product 8192 with bias and ReLU, bfloat16",
            lambda a, b, c: np.maximum(a @ b + c, 0), (a, b, bias), 0.0, scale,
        ),
        ("softmax, 8192 x 4096, bfloat16", softmax, (rows,), 2.0 * rows.nbytes, 0.0),
    ]  # fmt: skip


def time_workloads(
    device: Device,
    bandwidth: float,
    report: dict[str, Any] | None = None,
    after_each: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    report = {} if report is None else report
    for name, f, args, nbytes, flops, *options in workloads():
        if name in report:
            continue
        try:
            call = gd.compile(f, target="cuda", **(options[0] if options else {}))
            placed = gd.device_put(args)
            taken: dict[str, Any] = timed(device, lambda call=call, placed=placed: call(*placed))
            if nbytes:
                taken["share_of_copy"] = nbytes / taken["seconds"] / bandwidth
            if flops:
                taken["flops"] = flops / taken["seconds"]
            report[name] = taken
        except Exception as error:
            report[name] = {"error": f"{type(error).__name__}: {error}"}
            if isinstance(error, DeviceError):
                check_alive(device)
        finally:
            after_each()
    return report


def launch_cost(device: Device) -> dict[str, Any]:
    """A program of 50 small kernels: launched one by one, and replayed as a graph."""

    def chain(x: Any) -> Any:
        for _ in range(50):
            x = np.tanh(x - np.sum(x))  # a sum of all is complete when its kernel ends
        return x

    x = gd.device_put(draw(64))
    call = gd.compile(chain, target="cuda")
    executable = call.lower(np.zeros(64, np.float32))
    replayed = timed(device, lambda: call(x))
    runner = executable._runner
    out = device.allocate(256)
    plain = timed(device, lambda: runner.execute([x.address, out], device.stream))
    return {"kernels": len(executable.kernels), "launched": plain, "call replayed": replayed}


def torch_times(
    device: Device,
    report: dict[str, Any] | None = None,
    after_each: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """The same work by PyTorch, eager and compiled; its results, without a copy, by graphdl."""
    import torch

    half = torch.bfloat16
    x = torch.randn(1 << 26, device="cuda", requires_grad=True)
    rows, line = torch.randn(8192, 4096, device="cuda"), torch.randn(4096, device="cuda")
    a, b = torch.randn(4096, 4096, device="cuda"), torch.randn(4096, 4096, device="cuda")

    def pointwise() -> Any:
        return torch.autograd.grad((torch.tanh(x) * torch.exp(-x * x)).sum(), x)

    found: dict[str, Callable[[], Any]] = {
        "pointwise value and gradient, 64M": pointwise,
        "softmax, 8192 x 4096": lambda: torch.softmax(rows, -1),
        "layer norm, 8192 x 4096": lambda: torch.nn.functional.layer_norm(
            rows, (4096,), line, line
        ),
        "sum of all, 64M": lambda: x.detach().sum(),
        "sum of rows": lambda: rows.sum(1),
        "sum of columns": lambda: rows.sum(0),
        "transpose": lambda: rows.t().contiguous(),
        "product 4096, float32": lambda: a @ b,
        "product 4096 with bias and ReLU": lambda: torch.relu(torch.addmm(line, a, b)),
        "product 4096, tf32": lambda: a @ b,
    }
    large, line_half = torch.randn(8192, 8192, device="cuda").to(half), torch.zeros(8192).to(half)
    line_half, rows_half = line_half.to("cuda"), rows.to(half)
    found |= {
        "product 8192, bfloat16": lambda: large @ large,
        "product 8192 with bias and ReLU, bfloat16": lambda: torch.relu(
            torch.addmm(line_half, large, large)
        ),
        "softmax, 8192 x 4096, bfloat16": lambda: torch.softmax(rows_half, -1),
    }
    report = {} if report is None else report
    for name, call in found.items():
        if name in report:
            continue
        torch.set_float32_matmul_precision("high" if "tf32" in name else "highest")
        own: dict[str, Any] = {"eager": timed(device, call)}
        try:
            own["compiled"] = timed(device, torch.compile(call))
        except Exception as error:
            own["compiled"] = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        report[name] = own
        after_each()
    shared = gd.compile(lambda x: x * 2, target="cuda")(rows)
    back = torch.from_dlpack(shared)
    report["shared memory"] = {
        "ok": bool(torch.equal(back, rows * 2)),
        "without a copy": back.data_ptr() == shared.address,
    }
    return report


# -- the report ------------------------------------------------------------------------------------


def environment(device: Device) -> dict[str, Any]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    driver = device.driver
    return {
        "device": driver.name(device.ordinal),
        "capability": ".".join(map(str, device.capability)),
        "memory": driver.memory(device.ordinal)[1],
        "driver": driver.version(),
        "cublasLt": device.products is not None,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions,
    }


def attempt(part: Callable[[], Any]) -> Any:
    """A part of the report, or what went wrong with it."""
    try:
        return part()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}


def as_text(report: dict[str, Any]) -> str:
    """The report for people, as far as it has come."""
    lines = [f"{key}: {value}" for key, value in report["environment"].items()]
    lines.append(f"compute-sanitizer: {report.get('sanitizer', 'not run')}")
    for part in ("templates", "ops"):
        found = report.get(part, {})
        bad = {name: one for name, one in found.items() if not one["ok"]}
        left = sum("unsupported" in one for one in found.values())
        lines += ["", f"{part}: {len(found)} tried, {left} not supported, {len(bad)} wrong"]
        lines += [f"  {name}: {one}" for name, one in bad.items()]
    lines += ["", f"copy bandwidth: {report.get('copy_bandwidth')}", "", "timings"]
    theirs = report.get("torch", {})
    for name, one in report.get("timings", {}).items():
        if "error" in one:
            lines.append(f"  {name}: {one['error']}")
            continue
        line = f"  {name}: {one['seconds'] * 1e6:.1f} us, host {one['host_seconds'] * 1e6:.1f} us"
        if "share_of_copy" in one:
            line += f", {one['share_of_copy']:.0%} of copy bandwidth"
        if "flops" in one:
            line += f", {one['flops'] / 1e12:.1f} TFLOP/s"
        for kind, other in theirs.get(name, {}).items():
            if "seconds" in other:
                line += f"; torch {kind} {other['seconds'] / one['seconds']:.2f} times as long"
        lines.append(line)
    lines += ["", f"launches: {json.dumps(report.get('launches'))}"]
    lines.append(f"torch: {theirs.get('shared memory')}")
    errors = report.get("errors", {})
    lines += [f"{part} ended early: {one['error']}" for part, one in errors.items()]
    return "\n".join(lines) + "\n"


class Kept:
    """A report and its files, which are written while it grows."""

    def __init__(self, folder: Path, device: Device) -> None:
        name = device.driver.name(device.ordinal).lower().replace(" ", "-")
        self.path = folder / f"cuda-{name}-{datetime.now(UTC):%Y-%m-%d}.json"
        folder.mkdir(parents=True, exist_ok=True)
        self.report: dict[str, Any] = {}
        if self.path.exists():
            self.report = json.loads(self.path.read_text())
        self.report["environment"] = environment(device)

    def write(self) -> None:
        """Both files, each as a whole: whoever is stopped while writing leaves the old one."""
        texts = {".json": json.dumps(self.report, indent=2) + "\n", ".txt": as_text(self.report)}
        for suffix, text in texts.items():
            fresh = self.path.with_suffix(f"{suffix}.new")
            fresh.write_text(text)
            fresh.replace(self.path.with_suffix(suffix))


def bandwidth_of(device: Device, kept: Kept) -> float:
    """The measured bandwidth of copies; 0.0 where it could not be measured."""
    if not isinstance(kept.report.get("copy_bandwidth"), float):
        kept.report["copy_bandwidth"] = attempt(lambda: copy_bandwidth(device))
        kept.write()
    found = kept.report["copy_bandwidth"]
    return found if isinstance(found, float) else 0.0


def grown(part: Callable[[dict[str, Any], Callable[[], None]], Any], name: str, kept: Kept) -> None:
    """A part of the report that is written case by case."""
    errors = kept.report.setdefault("errors", {})
    errors.pop(name, None)
    try:
        part(kept.report.setdefault(name, {}), kept.write)
    except LostError:
        raise
    except Exception as error:
        errors[name] = {
            "error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc(),
        }  # fmt: skip


def ops_of(device: Device, kept: Kept) -> None:
    if not kept.report.get("ops"):
        attempt(lambda: compile_ahead(device))
    compare(every_op(), kept.report.setdefault("ops", {}), kept.write)


#: The parts of the report, in order.
PARTS: dict[str, Callable[[Device, Kept], None]] = {
    "environment": lambda device, kept: None,
    "templates": lambda device, kept: grown(
        lambda own, write: compare(templates(), own, write), "templates", kept
    ),
    "timings": lambda device, kept: grown(
        lambda own, write: time_workloads(device, bandwidth_of(device, kept), own, write),
        "timings",
        kept,
    ),
    "torch": lambda device, kept: grown(
        lambda own, write: torch_times(device, own, write), "torch", kept
    ),
    "launches": lambda device, kept: kept.report.update(
        launches=attempt(lambda: launch_cost(device))
    ),
    "ops": ops_of,
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("bench/results"))
    parser.add_argument("--part", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--templates", action="store_true", help="only compare the templates")
    parser.add_argument("--sanitizer", help="only write down what compute-sanitizer has said")
    options = parser.parse_args(argv)
    try:
        device = device_of("cuda")
    except DeviceError as error:
        print(f"nothing was measured: {error}", file=sys.stderr)
        return 2
    if options.templates:
        found = compare(templates())
        bad = {name: one for name, one in found.items() if not one["ok"]}
        print(json.dumps(bad, indent=2))
        return int(bool(bad))
    gd.compile(lambda x: x, target="cuda")  # finds cublasLt
    kept = Kept(options.folder, device)
    if options.sanitizer is not None:
        kept.report["sanitizer"] = options.sanitizer
        kept.write()
        return 0
    for name in options.part.split(","):
        try:
            PARTS[name](device, kept)
        except LostError as error:
            print(f"{name}: {error}; run this again to go on behind it", file=sys.stderr)
            kept.write()
            return 3
        kept.write()
    print(as_text(kept.report))
    print(f"written to {kept.path.with_suffix('')}.json and .txt")
    values = [one for part in ("templates", "ops") for one in kept.report.get(part, {}).values()]
    return int(any(not one["ok"] for one in values))


if __name__ == "__main__":
    sys.exit(main())
