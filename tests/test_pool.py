"""The thread pool: what starts it, how many threads there are, forks, and Numba in the process."""

from __future__ import annotations

import os
import sys

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

#: A parallel loop of Numba's; print whether it was right, and its threading layer.
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
before = pool.backend()
assert right()
print(before, pool.backend(), [name for name in sys.modules if name.startswith("numba")])
"""
    )
    before, backend, modules = in_new_process(code).split(maxsplit=2)
    assert (before, modules) == ("serial", "[]")
    assert backend in ("tbb", "workqueue")
    if sys.platform == "linux" and os.path.exists(os.path.join(sys.prefix, "lib/libtbb.so.12")):
        assert backend == "tbb"


@pytest.mark.parametrize("first", ["graphdl", "numba", "numba with TBB"])
def test_shares_a_process_with_numba(first: str) -> None:
    ours = "assert right()\n"
    order = {
        "graphdl": ours + NUMBA,
        "numba": NUMBA + ours,  # its own choice where TBB is not on the loader's path
        "numba with TBB": "pool._preload_tbb()\n" + NUMBA + ours,
    }[first]
    code = (
        RUN
        + order
        + ours
        + """
halves(x)
assert (x == 0.25).all() and right()
print(numba_right, numba.threading_layer(), pool.backend(), numba.get_num_threads())
"""
    )
    right, layer, backend, threads = in_new_process(code, NUMBA_NUM_THREADS="2").split()
    assert (right, threads) == ("True", "2")
    assert first == "numba" or layer == backend


@pytest.mark.parametrize("missing", ["tbb", "numba"])
def test_goes_on_without(missing: str) -> None:
    hide = {
        "tbb": "pool._preload_tbb = lambda: False",
        "numba": "pool.find_spec = lambda name: None",
    }[missing]
    code = RUN + hide + "\nassert right() and right()\nprint(pool.backend())"
    assert in_new_process(code) == {"tbb": "workqueue", "numba": "serial"}[missing]


@can_fork
@pytest.mark.parametrize("hide", ["", "pool._preload_tbb = lambda: False"])
def test_fork_of_the_main_thread_can_use_the_pool(hide: str) -> None:
    code = (
        RUN
        + hide
        + """
import multiprocessing
pool.set_num_threads(2)
assert right()

def child(results):
    results.put((right(), pool.backend()))

fork = multiprocessing.get_context("fork")
results = fork.Queue()
processes = [fork.Process(target=child, args=(results,)) for _ in range(2)]
for process in processes:
    process.start()
found = [results.get(timeout=60) for _ in processes]
for process in processes:
    process.join(60)
assert right()
print(found[0] == found[1] == (True, pool.backend()), [p.exitcode for p in processes])
"""
    )
    assert in_new_process(code) == "True [0, 0]"


@can_fork
def test_fork_of_another_thread_runs_serially() -> None:
    code = (
        RUN
        + """
import threading
assert right()
exits = []

def fork():
    child = os.fork()
    if child == 0:
        os._exit(0 if right() and pool.backend() != "tbb" or pool.backend() == "workqueue" else 3)
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
    assert right() and pool.num_threads() == n
print("right")
"""
    )
    assert in_new_process(code) == "right"
