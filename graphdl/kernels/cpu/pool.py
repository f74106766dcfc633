"""The pool: threads that share launches, started once a process, asleep when nothing is to do.

They run a native function that never returns (`graphdl.kernels.cpu.team`). Python starts them, as
it can on every system. They never hold its lock, and do not keep a process alive.

Native code reads the words THREADS, TEAM and FORKS at `state_address()`: the number of threads that
a program may use, the address of the team, and how many forks led from the process that loaded this
module to this one. The number of threads is 1 until `start()`, and where no thread can be started.
"""

from __future__ import annotations

import _thread
import ctypes
import os
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from graphdl.kernels.cpu import assembler, team

#: Words of the state.
THREADS, TEAM, FORKS = range(3)

#: Bytes of a thread's stack: more than any kernel takes (`product.PANELS_BYTES`, `SUMS_BYTES`,
#: `STRIPS_BYTES`), whatever the system's default is.
_STACK = 4 << 20

_state = np.array([1, 0, 0], np.int64)
_lock = threading.Lock()
_workers = 0
_wanted: int | None = None  # by set_num_threads


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
    """Let programs use `n` threads, the calling one included. Results do not depend on it."""
    global _wanted
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)):
        raise TypeError(f"the number of threads must be an int, not {type(n).__name__}")
    if n < 1:
        raise ValueError(f"the number of threads must be at least 1, not {n}")
    _wanted = int(n)
    if _state[TEAM]:
        with _lock:
            _use(_wanted)


def running() -> int:
    """How many threads share launches: 1 before `start`, fewer than wanted if there are no more."""
    return int(_state[THREADS])


def state_address() -> int:
    """The address of int64[3], the words that native code reads."""
    return int(_state.ctypes.data)


def start() -> None:
    """Start the threads, once a process; the first program that can use them does."""
    if _state[TEAM]:
        return
    threads = num_threads()
    with _lock:
        if not _state[TEAM]:
            _work()  # what can fail comes first
            _state[TEAM] = _new_team()
            _use(threads)


def _use(threads: int) -> None:
    """Let programs use so many threads, as far as the system gives them."""
    global _workers
    threads = min(threads, team.MOST)
    size = _thread.stack_size(_STACK)
    try:
        while _workers < threads - 1:
            _give_lock(int(_state[TEAM]), _workers + 1)
            _thread.start_new_thread(_work(), (int(_state[TEAM]), _workers + 1))
            _workers += 1
    except RuntimeError:
        pass  # the system gives no more
    finally:
        _thread.stack_size(size)
    _state[THREADS] = min(threads, _workers + 1)


def _new_team() -> int:
    """The address of a team without workers.

    It lives as long as the process: a thread may look at it while the interpreter is torn down.
    """
    words = np.zeros(team.SIZE + team.LINE, np.uint8)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(words))
    address = -(-int(words.ctypes.data) // team.LINE) * team.LINE
    _write(address + team.EPOCH, team.FINISHED)
    _write(address + team.ACQUIRE, _address(ctypes.pythonapi.PyThread_acquire_lock))
    _write(address + team.RELEASE, _address(ctypes.pythonapi.PyThread_release_lock))
    _give_lock(address, 0)
    return address


def _give_lock(address: int, participant: int) -> None:
    """A lock for a participant to sleep on: it is taken, and who wakes it releases it."""
    python = ctypes.pythonapi
    lock = ctypes.CFUNCTYPE(ctypes.c_void_p)(_address(python.PyThread_allocate_lock))()
    ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)(
        _address(python.PyThread_acquire_lock)
    )(lock, 1)
    _write(address + team.place(participant) + team.LOCK, lock)


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _write(address: int, value: int) -> None:
    ctypes.c_int64.from_address(address).value = value


@cache
def _work() -> Callable[[int, int], None]:
    """What a thread runs, as a C function: ctypes lets go of the interpreter's lock around it."""
    address = assembler.load("graphdl_team", ["work"], team.define)["work"]
    return ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(address)


def _after_fork() -> None:
    """In a child: threads do not survive a fork, and one of them may have owned the team."""
    global _lock, _workers
    _lock = threading.Lock()
    _state[FORKS] += 1
    if _state[TEAM]:
        _workers = 0
        _state[TEAM] = _new_team()
        _use(num_threads())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
