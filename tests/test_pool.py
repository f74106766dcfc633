"""The thread pool: what starts it, how many threads there are, forks, and Numba in the process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from native_kernels import in_new_process

from graphdl.kernels.cpu import pool

can_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")

#: Run a launch of 64 parts 20 times; print what ran it, and whether all was right.
RUN = """
import numpy as np, os, sys
from graphdl.kernels.cpu import pool, tape
from native_kernels import KERNELS

def right():
    counts = np.zeros(1000, np.int64)
    table = np.array([counts.ctypes.data])
    rows = [[KERNELS["tally"], table.ctypes.data, 1000, 64]] * 20
    tape.run(tape.Tape(np.array(rows)))
    return bool((counts == 20).all())
"""

#: A parallel loop of Numba's; keep whether it was right.
NUMBA = """
import numba
@numba.njit(parallel=True)
def halves(x):
    for i in numba.prange(x.size):
        x[i] *= 0.5
x = np.ones(1000)
halves(x)
numba_right = bool((x == 0.5).all())
"""


def test_cores_are_counted() -> None:
    assert 1 <= pool.usable_cores() <= (os.cpu_count() or 1)


def test_number_of_threads_is_checked() -> None:
    with pytest.raises(ValueError, match="at least 1, not 0"):
        pool.set_num_threads(0)
    with pytest.raises(TypeError, match="must be an int, not float"):
        pool.set_num_threads(2.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be an int, not bool"):
        pool.set_num_threads(True)


def test_environment_sets_the_number_of_threads() -> None:
    code = RUN + "assert right(); print(pool.num_threads())"
    assert in_new_process(code, GRAPHDL_NUM_THREADS="1") == "1"
    assert in_new_process(code, GRAPHDL_NUM_THREADS="3") == "3"
    wrong = (
        RUN
        + """
try:
    pool.num_threads()
except ValueError as error:
    print(error)
"""
    )
    message = in_new_process(wrong, GRAPHDL_NUM_THREADS="many")
    assert message == "GRAPHDL_NUM_THREADS must be a positive whole number, not 'many'"


def test_starts_with_the_first_parallel_tape_and_without_numba() -> None:
    code = (
        RUN
        + """
before = pool.running()
assert right()
print(before, pool.running(), [name for name in sys.modules if name.startswith("numba")])
"""
    )
    assert in_new_process(code, GRAPHDL_NUM_THREADS="3") == "1 3 []"


@pytest.mark.parametrize("first", ["graphdl", "numba"])
def test_shares_a_process_with_numba(first: str) -> None:
    ours = "assert right()\n"
    code = (
        RUN
        + (ours + NUMBA if first == "graphdl" else NUMBA + ours)
        + ours
        + """
halves(x)
assert (x == 0.25).all() and right()
print(numba_right, pool.running(), numba.get_num_threads())
"""
    )
    threads = {"NUMBA_NUM_THREADS": "2", "GRAPHDL_NUM_THREADS": "3"}
    assert in_new_process(code, **threads) == "True 3 2"


#: Python's own way to start a thread is replaced; `threads` is how many the pool says there are.
START = """
import _thread
begin, started = _thread.start_new_thread, []

def start(function, arguments):
    if len(started) == {most}:
        raise RuntimeError("can't start new thread")
    started.append(arguments)
    if {alive}:
        begin(function, arguments)

_thread.start_new_thread = start
print(right() and right(), pool.running())
"""


@pytest.mark.parametrize("most", [0, 2])
def test_goes_on_with_the_threads_that_the_system_gives(most: int) -> None:
    code = RUN + START.format(most=most, alive=True)
    assert in_new_process(code, GRAPHDL_NUM_THREADS="5") == f"True {most + 1}"


def test_a_thread_that_never_comes_is_not_waited_for() -> None:
    """As if the system had stopped it between two parts, for good."""
    code = RUN + START.format(most=9, alive=False)
    assert in_new_process(code, GRAPHDL_NUM_THREADS="4") == "True 4"


def test_threads_sleep_when_nothing_is_to_do_and_wake() -> None:
    code = (
        RUN
        + """
import ctypes, threading, time
from graphdl.kernels.cpu import team
from native_kernels import address_of, callback

def asleep():
    return ctypes.c_int64.from_address(int(pool._state[pool.TEAM]) + team.SLEEPERS).value

def sleep():
    deadline = time.monotonic() + 60
    while asleep() < 3 and time.monotonic() < deadline:
        time.sleep(0.001)
    return asleep()

meeting = threading.Barrier(4)
kernel = callback(lambda table, lo, hi: meeting.wait(60))
parts = tape.Tape(np.array([[address_of(kernel), 0, 4, 4]] * 10))
for _ in range(5):
    found = sleep()
    tape.run(parts)  # each part waits for the other three
print(found, meeting.broken, sleep())
"""
    )
    assert in_new_process(code, GRAPHDL_NUM_THREADS="4") == "3 False 3"


def test_threads_wake_each_other_in_the_midst_of_a_tape() -> None:
    """Launches with one part that sleeps, so that all others fall asleep, in all orders."""
    code = (
        RUN
        + """
import time
from native_kernels import address_of, callback

def part(table, lo, hi):
    done.append(lo)
    if lo == table % 5:
        time.sleep(0.0005)

kernel, done = callback(part), []
rows = [[address_of(kernel), i, 5, 5 if i % 3 else 1] for i in range(60)]
tape.run(tape.Tape(np.array(rows)))
print(len(done), sum(done))
"""
    )
    assert in_new_process(code, GRAPHDL_NUM_THREADS="3") == "220 400"


def test_no_thread_sleeps_through_what_it_is_woken_for(tmp_path: Path) -> None:
    """Thousands of tapes by threads that fall asleep at once when they find no part.

    In a cache of its own, since the native code is not that of other processes.
    """
    code = (
        "from graphdl.kernels.cpu import team; team.PATIENCE = 0\n"
        + RUN
        + """
counts = np.zeros(12, np.int64)
table = np.array([counts.ctypes.data])
rows = [[KERNELS["tally"], table.ctypes.data, 12, parts] for parts in (3, 2)]
parts = tape.Tape(np.array(rows))
for _ in range(5000):
    tape.run(parts)
print(set(counts.tolist()))
"""
    )
    environment = {"GRAPHDL_NUM_THREADS": "3", "GRAPHDL_CACHE_DIR": str(tmp_path)}
    assert in_new_process(code, **environment) == "{10000}"


def test_a_tape_within_a_part_of_another_runs_on_its_thread() -> None:
    code = (
        RUN
        + """
import threading
from native_kernels import address_of, callback

found, threads = [], set()
inner = callback(lambda table, lo, hi: threads.add((table, threading.get_ident())))

def part(table, lo, hi):
    found.append(right())
    tape.run(tape.Tape(np.array([[address_of(inner), lo, 8, 8]])))

kernel = callback(part)
tape.run(tape.Tape(np.array([[address_of(kernel), 0, 6, 6]])))
print(found.count(True), len(threads))
"""
    )
    assert in_new_process(code, GRAPHDL_NUM_THREADS="3") == "6 6"


@can_fork
def test_fork_of_the_main_thread_can_use_the_pool() -> None:
    code = (
        RUN
        + """
import multiprocessing
pool.set_num_threads(2)
assert right()

def child(results):
    results.put((right(), pool.running()))

fork = multiprocessing.get_context("fork")
results = fork.Queue()
processes = [fork.Process(target=child, args=(results,)) for _ in range(2)]
for process in processes:
    process.start()
found = [results.get(timeout=60) for _ in processes]
for process in processes:
    process.join(60)
assert right()
print(found[0] == found[1] == (True, 2), [p.exitcode for p in processes])
"""
    )
    assert in_new_process(code) == "True [0, 0]"


@can_fork
def test_fork_of_another_thread_can_use_it_too() -> None:
    code = (
        RUN
        + """
import threading
pool.set_num_threads(2)
assert right()
exits = []

def fork():
    child = os.fork()
    if child == 0:
        os._exit(0 if right() and pool.running() == 2 else 3)
    exits.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

thread = threading.Thread(target=fork)
thread.start()
thread.join(60)
assert right()
print(exits)
"""
    )
    assert in_new_process(code) == "[0]"


def test_spawned_process_starts_its_own() -> None:
    code = (
        RUN
        + """
import multiprocessing, pool_child
if __name__ == "__main__":
    assert right()
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(1) as workers:
        print(workers.apply(pool_child.sum_of_parts))
"""
    )
    assert in_new_process(code) == "5000"


def test_many_python_threads_at_once() -> None:
    code = (
        RUN
        + """
import threading
right()
results = []
threads = [threading.Thread(target=lambda: results.append(all(right() for _ in range(20))))
           for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(60)
print(results.count(True))
"""
    )
    assert in_new_process(code) == "6"


def test_number_of_threads_can_change_at_any_time() -> None:
    code = (
        RUN
        + """
for n in (1, 2, 5, 1, 3):
    pool.set_num_threads(n)
    assert right() and pool.num_threads() == pool.running() == n
print("right")
"""
    )
    assert in_new_process(code) == "right"
