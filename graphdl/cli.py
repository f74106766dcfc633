"""The command `graphdl`: a demonstration, what there is to use, what it costs, the kernel cache."""

import argparse
import ctypes
import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import graphdl
from graphdl import machine, shell
from graphdl.errors import GraphError
from graphdl.examples import digits
from graphdl.kernels import cache
from graphdl.kernels.cpu import pool
from graphdl.kernels.cpu.host import host
from graphdl.kernels.cuda.device import INSTALL, missing_packages
from graphdl.visualize.options import CHOICES

#: Packages whose versions decide what is computed and how.
PACKAGES = (
    "numpy",
    "scipy",
    "numba",
    "llvmlite",
    "networkx",
    "optree",
    "opt_einsum",
)

#: What compiles for CUDA, and the library for products there.
CUDA_PACKAGES = (
    "numba-cuda", "cuda-core", "nvidia-nvvm", "nvidia-nvjitlink", "nvidia-cublas",
)  # fmt: skip

#: The instruction sets that decide how wide a kernel computes.
VECTOR_FEATURES = ("sse4.2", "avx", "avx2", "fma", "avx512f", "neon", "sve")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = _parser()
    options, strange = parser.parse_known_args(arguments)
    if strange:  # the command lists its own options, where `parse_args` would list the commands
        options.command.error(f"unrecognized arguments: {' '.join(strange)}")
    try:
        status: int = options.run(options)
    except BrokenPipeError:
        # Whoever read the output has stopped, as `head` does; Python would complain once more when
        # it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ImportError, OSError) as error:
        print(f"graphdl: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("graphdl: stopped", file=sys.stderr)
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="graphdl", description=__doc__)
    parser.add_argument("--version", action="version", version=f"graphdl {graphdl.__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)

    defaults = digits.Settings()
    demo = commands.add_parser(
        "demo",
        help="train a network on handwritten digits",
        description="Train a 64-128-10 network on scikit-learn's handwritten digits.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.add_argument("--epochs", type=_count, default=defaults.epochs, help="passes over the data")
    demo.add_argument(
        "--batch-size", type=_count, default=defaults.batch_size, help="images a step"
    )
    demo.add_argument(
        "--learning-rate", type=float, default=defaults.learning_rate, help="of the first step"
    )
    demo.add_argument("--seed", type=int, default=defaults.seed, help="of weights and shuffling")
    demo.add_argument(
        "--output", type=Path, default=defaults.output, help="the folder for the graph's pictures"
    )
    demo.set_defaults(run=_demo)

    info = commands.add_parser("info", help="versions, processor, threads, cache, CUDA")
    info.set_defaults(run=_info)

    tune = commands.add_parser(
        "tune",
        help="measure what the machine costs",
        description="Measure what copying, multiplying, exp and sharing work cost on this machine, "
        "in about ten seconds, and keep it beside the compiled kernels. Programs that are compiled "
        "from then on are cut into kernels, blocks and jobs by it.",
    )
    tune.set_defaults(run=_tune)

    cached = commands.add_parser("cache", help="the compiled kernels kept on disk")
    actions = cached.add_subparsers(metavar="action", required=True)
    actions.add_parser("info", help="where they are, how many, how large").set_defaults(
        run=_cache_info
    )
    actions.add_parser("clear", help="delete them").set_defaults(run=_cache_clear)

    picture = commands.add_parser(
        "visualize",
        help="draw what a function is compiled to",
        description="Compile a function for arguments of these types and draw the result.",
    )
    shell.add_function(picture)
    picture.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE",
        help="its ending says in which format: .html .svg .pdf .png .json .dot .mmd .graphml",
    )  # fmt: skip
    picture.add_argument("--traced", action="store_true", help="draw the graph before the passes")
    for name, known in CHOICES.items():
        choices = [choice for choice in known if choice != "time"]  # nothing has been measured
        picture.add_argument(f"--{name}", choices=choices, default=known[0])
    picture.set_defaults(run=_visualize)
    for command in commands.choices.values():
        command.set_defaults(command=command)
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


# demo


def _demo(options: argparse.Namespace) -> int:
    settings = digits.Settings(
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        seed=options.seed,
        output=options.output,
    )
    digits.run(settings)
    return 0


# visualize


def _visualize(options: argparse.Namespace) -> int:
    chosen = {name: getattr(options, name) for name in CHOICES}
    try:
        executable = shell.lowered(options)
        drawn = executable.graph if options.traced else executable
        print(drawn.visualize(options.output, **chosen))
    except GraphError as error:
        print(f"graphdl: {error}", file=sys.stderr)
        return 1
    return 0


# tune


def _tune(options: argparse.Namespace) -> int:
    from graphdl import tuning  # compiles: nothing else here needs it

    print(f"measuring {machine.processor()}, {pool.usable_cores()} cores")
    if hasattr(os, "getloadavg") and os.getloadavg()[0] > pool.usable_cores() / 2:
        print("other programs keep the processor busy: better measure again when it is idle")
    old, new = machine.current(), tuning.measured()
    try:
        path = machine.keep(new)
    except ValueError as error:
        print(f"graphdl: {error}; measure again when nothing else runs", file=sys.stderr)
        return 1
    rows = [("", "before", "now", "")]
    for name, what in tuning.DESCRIPTIONS.items():
        before, now = (_nanoseconds(getattr(times, name)) for times in (old, new))
        rows.append((name, before, now, what))
    for name, before, now, what in rows:
        print(f"{name:<13} {before:>11} {now:>11}  {what}".rstrip())
    print(f"written to {path}")
    return 0


def _nanoseconds(time: float) -> str:
    return f"{time:.3g} ns" if time < 1000 else f"{time:,.0f} ns"


def _machine_rows() -> list[tuple[str, str]]:
    known = machine.known()
    times = ", ".join(
        f"{name} {_nanoseconds(getattr(known.machine, name))}" for name in machine.MEASURED
    )
    levels = (known.machine.second_level, known.machine.third_level)
    sizes = " and ".join(f"{size / 2**20:.3g} MiB" for size in levels)
    return [
        ("caches", f"{sizes} in the second and third level"),
        ("costs", times),
        ("costs are", known.origin),
    ]


# info


def _info(options: argparse.Namespace) -> int:
    _, cpu, features = host()
    names = {feature.removeprefix("+") for feature in features.split(",") if feature[:1] == "+"}
    vectors = [feature for feature in VECTOR_FEATURES if feature in names]
    rows = [
        ("graphdl", graphdl.__version__),
        ("Python", f"{platform.python_version()} ({platform.python_implementation()})"),
        *((package, _version(package)) for package in PACKAGES),
        ("system", f"{platform.system()} {platform.machine()}"),
        ("processor", f"{cpu}: {' '.join(vectors) or 'no vector instructions known'}"),
        ("threads", _threads()),
        ("cache", _cache_line()),
        *_machine_rows(),
        ("CUDA", cuda_summary()),
        ("CUDA packages", cuda_packages()),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
    return 0


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _threads() -> str:
    pool.start()
    chosen = os.environ.get("GRAPHDL_NUM_THREADS")
    origin = f"GRAPHDL_NUM_THREADS={chosen}" if chosen else f"{pool.usable_cores()} usable cores"
    wanted, found = pool.num_threads(), pool.running()
    return f"{wanted} ({origin})" + (f", of which there are {found}" if found < wanted else "")


def cuda_packages() -> str:
    """The packages of the CUDA extra, and how to get those that are missing."""
    missing = missing_packages()
    if missing:
        return f"{' and '.join(missing)} missing: {INSTALL}"
    return ", ".join(f"{package} {_version(package)}" for package in CUDA_PACKAGES)


def cuda_summary() -> str:
    """The CUDA devices, as the driver reports them; the driver's library is all that it needs."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        return "no NVIDIA driver found"
    status = driver.cuInit(0)
    if status != 0:
        return f"the NVIDIA driver does not start (error {status})"
    version, count = ctypes.c_int(), ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    driver.cuDeviceGetCount(ctypes.byref(count))
    devices = [_device(driver, ordinal) for ordinal in range(count.value)]
    # The driver writes 13.0 as 13000.
    number = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return f"{number}, {'; '.join(devices) or 'no device'}"


def _device(driver: ctypes.CDLL, ordinal: int) -> str:
    device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    driver.cuDeviceGet(ctypes.byref(device), ordinal)
    driver.cuDeviceGetName(name, len(name), device)
    memory = ctypes.c_size_t()
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR in cuda.h
    capability = []
    for attribute in (75, 76):
        value = ctypes.c_int()
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        capability.append(str(value.value))
    return (
        f"{name.value.decode(errors='replace')} (compute capability {'.'.join(capability)}, "
        f"{memory.value / 2**30:.0f} GiB)"
    )


# cache


def _cache_line() -> str:
    found = cache.info()
    if found.directory is None:
        return "none, because the home directory is not known; set GRAPHDL_CACHE_DIR"
    return (
        f"{found.directory}: {_kernels(found.entries)}, {found.size / 2**20:.1f} MiB "
        f"of at most {found.limit / 2**20:.0f}"
    )


def _cache_info(options: argparse.Namespace) -> int:
    print(_cache_line())
    return 0


def _cache_clear(options: argparse.Namespace) -> int:
    print(f"removed {_kernels(cache.clear())} from {cache.directory()}")
    return 0


def _kernels(count: int) -> str:
    return f"{count:,} kernel{'' if count == 1 else 's'}"
