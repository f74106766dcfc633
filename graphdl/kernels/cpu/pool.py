"""One thread pool: TBB, through the extension module that Numba ships, without importing Numba.

`numba/np/ufunc/tbbpool*.so` hands out the address of

    void parallel_for(void *fn, char **args, size_t *dims, size_t *steps, void *data,
                      size_t inner_ndim, size_t array_count, int num_threads)

which calls fn(args, dims, steps, data) for parts of range(dims[0]); args[j] is then
base + steps[j] * (begin of the part) and dims[0] its length. With one array of base 0 and step 1,
args[0] is the begin itself. Where TBB is missing Numba's `workqueue` module has the same function,
and where that is missing too, or threads are not wanted, everything runs on the calling thread.

Native code reads the words THREADS ... FORKS at `state_address()`: the number of threads, the
address of `parallel_for`, the address of a C function that gives the processor away for a moment,
and how many forks led from the process that loaded this module to this one. The number of threads
is 1 until `start()`, and 1 again where the pool cannot be used, such as in a process forked from a
thread other than the one that started it.
"""

from __future__ import annotations

import ctypes
import glob
import os
import sys
import threading
from collections.abc import Iterator
from importlib.machinery import ExtensionFileLoader
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from itertools import chain
from types import ModuleType

import numpy as np

#: Words of the state.
THREADS, PARALLEL_FOR, YIELD, FORKS = range(4)

_state = np.array([1, 0, 0, 0], np.int64)
_lock = threading.Lock()
_module: ModuleType | None = None
_wanted: int | None = None  # by set_num_threads
_tried = False


def usable_cores() -> int:
    """How many processors this process may keep busy: its affinity mask and its cgroup's quota."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows
        cores = os.cpu_count() or 1
    return max(1, min(cores, _cgroup_quota()))


def _cgroup_quota() -> int:
    """How many processors the cgroup's quota is worth, rounded up; many if there is no quota."""
    for paths in (
        ("/sys/fs/cgroup/cpu.max",),
        ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
    ):
        try:
            quota, period = (int(word) for path in paths for word in _words(path))
        except (OSError, ValueError):
            continue  # no cgroup of that version, or the quota is "max"
        if quota > 0 and period > 0:
            return -(-quota // period)
    return 1 << 30


def _words(path: str) -> list[str]:
    with open(path, encoding="ascii") as file:
        return file.read().split()


def num_threads() -> int:
    """How many threads a program may use: `set_num_threads`, GRAPHDL_NUM_THREADS, or all cores."""
    if _wanted is not None:
        return _wanted
    text = os.environ.get("GRAPHDL_NUM_THREADS", "")
    if not text:
        return usable_cores()
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"GRAPHDL_NUM_THREADS must be a positive whole number, not {text!r}")
    return int(text)


def set_num_threads(n: int) -> None:
    """Let programs use `n` threads, the calling one included. Results do not depend on it.

    More threads than the pool was started with (all usable cores, GRAPHDL_NUM_THREADS or
    NUMBA_NUM_THREADS, whichever is the largest) are never used at once.
    """
    global _wanted
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)):
        raise TypeError(f"the number of threads must be an int, not {type(n).__name__}")
    if n < 1:
        raise ValueError(f"the number of threads must be at least 1, not {n}")
    _wanted = int(n)
    if _state[PARALLEL_FOR]:
        _state[THREADS] = _wanted


def backend() -> str:
    """What runs the parts: 'tbb', 'workqueue', or 'serial' (also before `start`)."""
    if _module is None or not _state[PARALLEL_FOR]:
        return "serial"
    return "tbb" if _module.__name__.endswith("tbbpool") else "workqueue"


def state_address() -> int:
    """The address of int64[4], the words that native code reads."""
    return int(_state.ctypes.data)


def start() -> None:
    """Start the threads, once a process; the first program that can use them does."""
    global _module, _tried
    with _lock:
        if _tried:
            return
        threads = num_threads()
        _module = _load()
        _tried = True
        if _module is None:
            return
        _launch(_module)
        _state[YIELD] = _yield_address()
        _state[PARALLEL_FOR] = _module.parallel_for
        _state[THREADS] = threads


def _launch(module: ModuleType) -> None:
    # The first launch in a process sizes the pool for good, for Numba's own loops too.
    asked = os.environ.get("NUMBA_NUM_THREADS", "")
    size = max(usable_cores(), num_threads(), int(asked) if asked.isdigit() else 1)
    ctypes.CFUNCTYPE(None, ctypes.c_int)(module.launch_threads)(size)
    _launched_by.append(threading.get_ident())


_launched_by: list[int] = []


def _load() -> ModuleType | None:
    origin = getattr(find_spec("numba"), "origin", None)  # finds the package, does not run it
    if not origin:
        return None
    folder = os.path.join(os.path.dirname(origin), "np", "ufunc")
    if _preload_tbb():
        module = _extension("numba.np.ufunc.tbbpool", folder)
        if module is not None:
            return module
    return _extension("numba.np.ufunc.workqueue", folder)


def _extension(name: str, folder: str) -> ModuleType | None:
    """The extension module of that name, without its package.

    It carries its real name, so that a later `import numba` finds the same loaded library, whose
    threads exist already. But it does not stay in `sys.modules` as a module without a parent.
    """
    known = sys.modules.get(name)
    if known is not None:
        return known
    stem = name.rpartition(".")[2]
    for path in glob.glob(os.path.join(glob.escape(folder), stem + ".*")):
        loader = ExtensionFileLoader(name, path)
        spec = spec_from_file_location(name, path, loader=loader)
        if spec is None:
            continue
        try:
            module = module_from_spec(spec)
            loader.exec_module(module)
        except ImportError:
            continue
        finally:
            sys.modules.pop(name, None)
        return module
    return None


def _preload_tbb() -> bool:
    """Load TBB's library, which the wheel of PyPI puts where the system's loader does not look."""
    if sys.platform.startswith("win"):
        name, folder = "tbb12.dll", os.path.join(sys.prefix, "Library", "bin")
    elif sys.platform == "darwin":
        name, folder = "libtbb.12.dylib", os.path.join(sys.prefix, "lib")
    else:
        name, folder = "libtbb.so.12", os.path.join(sys.prefix, "lib")
    for path in chain((os.path.join(folder, name), name), _distributed(name)):
        try:
            library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        # Numba's module needs 2021 update 6, which calls itself 12060.
        return int(library.TBB_runtime_interface_version()) >= 12060
    return False


def _distributed(name: str) -> Iterator[str]:
    """Where the installed distribution `tbb` says that its file of that name is."""
    from importlib.metadata import PackageNotFoundError, files  # 15 ms, rarely needed

    try:
        listed = files("tbb") or []
    except PackageNotFoundError:
        return
    yield from (str(file.locate()) for file in listed if file.name == name)


def _yield_address() -> int:
    try:
        if sys.platform.startswith("win"):
            function = ctypes.CDLL("kernel32").SwitchToThread
        else:
            function = ctypes.CDLL(None).sched_yield
    except (OSError, AttributeError):
        return 0
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _after_fork() -> None:
    """In a child: threads do not survive a fork.

    Numba's TBB module stops the threads before a fork and starts them anew after it, but only if
    the forking thread is the one that launched them; otherwise TBB must not be touched again. The
    workqueue forgets its threads, so that they are launched again.
    """
    global _lock
    _lock = threading.Lock()
    _state[FORKS] += 1
    if _module is None:
        return
    if backend() == "workqueue":
        _launched_by.clear()
        _launch(_module)
    elif threading.get_ident() not in _launched_by:
        _state[THREADS], _state[PARALLEL_FOR] = 1, 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
