"""What this machine can do at best: kernels that copy memory, and that only multiply and add."""

from __future__ import annotations

import time
from functools import cache
from itertools import count

import numpy as np

from graphdl.kernels.cpu import loading, pool, tape
from graphdl.kernels.cpu.host import has
from graphdl.kernels.cpu.tape import Tape

#: Sums of products that do not wait for each other: 2 units with a latency of 4 to 5 cycles want
#: 10, and with the two factors they fit the 16 registers that the least processors have.
_CHAINS = 10
#: Steps of those in one iteration.
_STEPS = 20_000
#: Bytes of each array that is copied: beyond the caches of most machines.
_COPIED = 64 << 20
_LINE = 64
_REPEATS = 7
_TYPES = {"float32": ("float", 4), "float64": ("double", 8)}
_serial = count()


def _register_bytes() -> int:
    return 64 if has("avx512f") else 32 if has("avx") else 16


def _fma_text(name: str, type_: str, size: int) -> str:
    """The kernel: each iteration adds up products in registers and stores 64 bytes of them."""
    lanes = _register_bytes() // size
    vector = f"<{lanes} x {type_}>"
    phis = [f"  %a{i} = phi {vector} [ %x, %begin ], [ %b{i}, %loop ]" for i in range(_CHAINS)]
    steps = [
        f"  %b{i} = call {vector} @llvm.fma.v{lanes}f{8 * size}"
        f"({vector} %a{i}, {vector} %x, {vector} %y)"
        for i in range(_CHAINS)
    ]
    sums = [
        f"  %s{i} = fadd {vector} %{'b0' if i == 1 else f's{i - 1}'}, %b{i}"
        for i in range(1, _CHAINS)
    ]
    lines = [
        f"declare {vector} @llvm.fma.v{lanes}f{8 * size}({vector}, {vector}, {vector})",
        f"define void @{name}(ptr %table, i64 %lo, i64 %hi) {{",
        "entry:",
        "  %place = load ptr, ptr %table",
        f"  %y.at = getelementptr i8, ptr %place, i64 {_LINE}",
        f"  %x = load {vector}, ptr %place, align 4",
        f"  %y = load {vector}, ptr %y.at, align 4",
        "  br label %begin",
        "begin:",
        "  %i = phi i64 [ %lo, %entry ], [ %i.next, %end ]",
        "  br label %loop",
        "loop:",
        "  %k = phi i64 [ 0, %begin ], [ %k.next, %loop ]",
        *phis,
        *steps,
        "  %k.next = add i64 %k, 1",
        f"  %again = icmp ult i64 %k.next, {_STEPS}",
        "  br i1 %again, label %loop, label %end",
        "end:",
        *sums,
        f"  %offset = mul i64 %i, {_LINE}",
        "  %to = getelementptr i8, ptr %y.at, i64 %offset",
        f"  %out = getelementptr i8, ptr %to, i64 {_LINE}",
        f"  store {vector} %s{_CHAINS - 1}, ptr %out, align 4",
        "  %i.next = add i64 %i, 1",
        "  %more = icmp ult i64 %i.next, %hi",
        "  br i1 %more, label %begin, label %done",
        "done:",
        "  ret void",
        "}",
    ]
    return "\n".join(lines)


def _copy_text(name: str) -> str:
    """The kernel: iteration i copies 64 bytes, by ordinary loads and stores, as kernels do."""
    return f"""define void @{name}(ptr %table, i64 %lo, i64 %hi) {{
entry:
  %from = load ptr, ptr %table
  %second = getelementptr i64, ptr %table, i64 1
  %to = load ptr, ptr %second
  br label %loop
loop:
  %i = phi i64 [ %lo, %entry ], [ %next, %loop ]
  %offset = mul i64 %i, {_LINE}
  %source = getelementptr i8, ptr %from, i64 %offset
  %target = getelementptr i8, ptr %to, i64 %offset
  %line = load <16 x i32>, ptr %source, align 64
  store <16 x i32> %line, ptr %target, align 64
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %hi
  br i1 %more, label %loop, label %done
done:
  ret void
}}"""


@cache
def _kernel(kind: str) -> int:
    name = f"graphdl_speed_{kind}_{next(_serial)}"
    text = _copy_text(name) if kind == "copy" else _fma_text(name, *_TYPES[kind])
    from graphdl.kernels.cpu import llvm  # where it must: see there

    return loading.load({name: llvm.object_code(text)})[name]


def _best(kernel: int, table: np.ndarray, n: int, parts: int, repeats: int = _REPEATS) -> float:
    """The least time of some runs, in seconds."""
    row = np.array([[kernel, table.ctypes.data, n, parts]], np.int64)
    program = Tape(row, keep=(table,))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        tape.run(program)
        times.append(time.perf_counter() - start)
    return min(times)


def copy_bandwidth(nbytes: int = _COPIED) -> float:
    """Bytes a second that all threads read and write together, copying an array of that size."""
    table, room = _copying(nbytes)
    seconds = _best(_kernel("copy"), table, nbytes // _LINE, 8 * pool.num_threads())
    del room
    return 2 * nbytes / seconds


def sharing_time() -> float:
    """Seconds that it takes to have all threads share a launch, whose work is next to nothing."""
    parts = 2 * pool.num_threads()
    table, room = _copying(parts * _LINE)
    alone, shared = (_best(_kernel("copy"), table, parts, count, 200) for count in (1, parts))
    del room
    return max(shared - alone, 0.0)


def _copying(nbytes: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """The table of the kernel that copies, and the arrays that it names."""
    room = [np.ones(nbytes + _LINE, np.uint8) for _ in range(2)]
    places = [-(-array.ctypes.data // _LINE) * _LINE for array in room]
    return np.array(places, np.int64), room


def fma_rate(dtype: str) -> float:
    """Operations a second of all threads, a fused multiply-add being two of each lane."""
    parts = 16 * pool.num_threads()
    # numbers that stay what they are: x * x + y with x = 0.5, y = 0.25
    values = np.repeat(np.array([0.5, 0.25], dtype), _LINE // _TYPES[dtype][1])
    room = np.zeros((parts + 4) * _LINE, np.uint8)
    room[: values.nbytes] = values.view(np.uint8)
    table = np.array([room.ctypes.data], np.int64)
    lanes = _register_bytes() // _TYPES[dtype][1]
    done = 2 * lanes * _CHAINS * _STEPS * parts
    return done / _best(_kernel(dtype), table, parts, parts)
