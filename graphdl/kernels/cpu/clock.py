"""The clock that native code reads: a C function of the system, and what a tick of it is worth."""

from __future__ import annotations

import ctypes
import sys
import time

from graphdl.kernels.cpu.assembler import Function, Value

_IS_WINDOWS = sys.platform == "win32"


def address() -> int:
    """The address of `clock_gettime`, or of Windows' `QueryPerformanceCounter`."""
    if sys.platform == "win32":
        function = ctypes.WinDLL("kernel32").QueryPerformanceCounter
    else:
        function = ctypes.CDLL(None).clock_gettime
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def seconds_per_tick() -> float:
    """What one tick of `now` is worth."""
    if not _IS_WINDOWS:
        return 1e-9
    return time.get_clock_info("perf_counter").resolution


def now(f: Function, clock: Value, room: Value) -> Value:
    """The time in ticks, from the function at address `clock`; `room` are 16 bytes to write to."""
    if _IS_WINDOWS:
        f.call(clock, room, returns="i32")
        return f.load(room)
    # the first argument is an int, which C passes in a register as a 64-bit integer is passed
    f.call(clock, f.narrow(f.constant(time.CLOCK_MONOTONIC)), room, returns="i32")
    return f.load(room) * 1_000_000_000 + f.load(room + 8)
