"""What only a GPU can show: values, timings, launch cost. `bench/cuda_check.sh` runs it.

    python -m bench.cuda_check [--folder bench/results] [--templates]

Each part is tried by itself; what fails is in the report with its error. It exits with 1 if a value
was wrong or a part failed, with 2 where there is no GPU. `--templates` runs one function of each
template of kernels and compares, for compute-sanitizer.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import graphdl as gd
from bench.gpu import copy_bandwidth
from graphdl.errors import DeviceError, UnsupportedError
from graphdl.kernels.cuda.device import Device, device_of
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


def compare(cases: Sequence[Case]) -> dict[str, Any]:
    """Each function on the GPU, three times (the third call is a replay), and on the CPU."""
    report: dict[str, Any] = {}
    for name, f, args in cases:
        try:
            call = gd.compile(f, target="cuda")
            want = gd.compile(f)(*args)
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
    return report


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


def workloads() -> list[tuple[str, Callable[..., Any], tuple[Any, ...], float, float]]:
    """Name, function, arguments, bytes that have to move at the least, and operations."""
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
    ]  # fmt: skip


def time_workloads(device: Device, bandwidth: float) -> dict[str, Any]:
    report: dict[str, Any] = {}
    for name, f, args, nbytes, flops in workloads():
        try:
            call = gd.compile(f, target="cuda")
            placed = gd.device_put(args)
            taken: dict[str, Any] = timed(device, lambda call=call, placed=placed: call(*placed))
            if nbytes:
                taken["share_of_copy"] = nbytes / taken["seconds"] / bandwidth
            if flops:
                taken["flops"] = flops / taken["seconds"]
            report[name] = taken
        except Exception as error:
            report[name] = {"error": f"{type(error).__name__}: {error}"}
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


def torch_times(device: Device) -> dict[str, Any]:
    """The same work by PyTorch, eager and compiled; its results, without a copy, by graphdl."""
    import torch

    torch.set_float32_matmul_precision("highest")
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
    }
    report: dict[str, Any] = {}
    for name, call in found.items():
        own: dict[str, Any] = {"eager": timed(device, call)}
        try:
            own["compiled"] = timed(device, torch.compile(call))
        except Exception as error:
            own["compiled"] = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        report[name] = own
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
    """The report for people."""
    lines = [f"{key}: {value}" for key, value in report["environment"].items()]
    lines.append(f"compute-sanitizer: {report['sanitizer']}")
    for part in ("templates", "ops"):
        found = report[part]
        bad = {name: one for name, one in found.items() if not one["ok"]}
        left = sum("unsupported" in one for one in found.values())
        lines += ["", f"{part}: {len(found)} tried, {left} not supported, {len(bad)} wrong"]
        lines += [f"  {name}: {one}" for name, one in bad.items()]
    lines += ["", f"copy bandwidth: {report['copy_bandwidth']}", "", "timings"]
    theirs = report["torch"]
    for name, one in report["timings"].items():
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
    lines += ["", f"launches: {json.dumps(report['launches'])}"]
    if "error" in theirs or "shared memory" in theirs:
        lines.append(f"torch: {theirs.get('error', theirs.get('shared memory'))}")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("bench/results"))
    parser.add_argument("--templates", action="store_true", help="only compare the templates")
    parser.add_argument("--sanitizer", default="not run", help="what compute-sanitizer has said")
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
    bandwidth = attempt(lambda: copy_bandwidth(device))
    report = {
        "environment": environment(device),
        "sanitizer": options.sanitizer,
        "templates": compare(templates()),
        "ops": compare(every_op()),
        "copy_bandwidth": bandwidth,
        "timings": time_workloads(device, bandwidth if isinstance(bandwidth, float) else 0.0),
        "launches": attempt(lambda: launch_cost(device)),
        "torch": attempt(lambda: torch_times(device)),
    }
    name = report["environment"]["device"].lower().replace(" ", "-")
    stem = f"cuda-{name}-{datetime.now(UTC):%Y-%m-%d}"
    options.folder.mkdir(parents=True, exist_ok=True)
    (options.folder / f"{stem}.json").write_text(json.dumps(report, indent=2) + "\n")
    text = as_text(report)
    (options.folder / f"{stem}.txt").write_text(text)
    print(text)
    print(f"written to {options.folder / stem}.json and .txt")
    wrong = any(not one["ok"] for part in ("templates", "ops") for one in report[part].values())
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
