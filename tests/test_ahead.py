"""Prefetching: which loops ask for lines ahead, for which lines, and that values stay."""

from __future__ import annotations

import re

import llvmlite.binding as llvm
import numpy as np
import pytest

import graphdl as gd
from graphdl.kernels.cpu.ahead import READ_AHEAD, WRITE_AHEAD, with_prefetches

HEAD = "define void @f(ptr %p, ptr %q, i64 %n) {\nentry:\n  br label %vector.body\n\n"
TAIL = """  %next = add nuw i64 %i, 16
  %done = icmp eq i64 %next, %n
  br i1 %done, label %end, label %vector.body

end:                                              ; preds = %vector.body
  ret void
}
"""


def loop(label: str, type_: str, steps: int, arithmetic: int) -> str:
    """A loop that moves `steps` vectors from p to q, each after some additions."""
    size = {"<16 x float>": 64, "<8 x float>": 32, "<32 x i64>": 256}[type_]
    made = f"{label}:\n  %i = phi i64 [ 0, %entry ], [ %next, %{label} ]\n"
    for k in range(steps):
        for base in "pq":
            if k == 0:
                made += f"  %{base}0 = getelementptr nusw float, ptr %{base}, i64 %i\n"
            else:
                behind = f"getelementptr nusw nuw i8, ptr %{base}0, i64 {k * size}"
                made += f"  %{base}{k} = {behind}\n"
        made += f"  %v{k}.0 = load {type_}, ptr %p{k}, align 4\n"
        add = "fadd" if "float" in type_ else "add"
        for j in range(arithmetic):
            made += f"  %v{k}.{j + 1} = {add} {type_} %v{k}.{j}, %v{k}.{j}\n"
        made += f"  store {type_} %v{k}.{arithmetic}, ptr %q{k}, align 4\n"
    return (HEAD + "{made}" + TAIL).replace("vector.body", label).replace("{made}", made)


def asked(text: str) -> list[tuple[str, int, int]]:
    """What is prefetched: the array, how far from where the loop is, and whether it is written."""
    llvm.parse_assembly(text).verify()
    places = {
        place: (base, int(far))
        for place, base, far in re.findall(r"(%ahead\d+) = .* ptr %([pq])0, i64 (\d+)", text)
    }
    calls = re.findall(r"call void @llvm.prefetch.p0\(ptr (%ahead\d+), i32 (\d), i32 3", text)
    return [(*places[place], int(writes)) for place, writes in calls]


def test_each_line_is_asked_for_once():
    found = asked(with_prefetches(loop("vector.body", "<16 x float>", 2, 5)))
    wanted = [("p", READ_AHEAD, 0), ("q", WRITE_AHEAD, 1)]
    assert found == [*wanted, *[(base, far + 64, writes) for base, far, writes in wanted]]


def test_vectors_of_half_a_line_ask_by_turns():
    found = asked(with_prefetches(loop("vector.body", "<8 x float>", 4, 5)))
    assert [far - READ_AHEAD for base, far, _ in found if base == "p"] == [0, 64]
    assert [far - WRITE_AHEAD for base, far, _ in found if base == "q"] == [0, 64]


def test_vectors_of_four_lines_ask_for_all():
    found = asked(with_prefetches(loop("vector.body.1", "<32 x i64>", 1, 20)))
    assert [far - READ_AHEAD for base, far, _ in found if base == "p"] == [0, 64, 128, 192]


@pytest.mark.parametrize(
    "text",
    [
        loop("vector.body", "<16 x float>", 4, 2),  # loads would bind it
        loop("vec.epilog.vector.body", "<16 x float>", 2, 9),  # the last elements
        loop("B4", "<16 x float>", 2, 9),  # no loop of LLVM's vectoriser
        "",
    ],
)
def test_other_loops_stay_as_they_are(text):
    assert with_prefetches(text) is text


def assembly(f, *args):
    return gd.compile(f).lower(*args).assembly()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_of_much_arithmetic_ask(dtype):
    x = np.linspace(-2, 2, 5000, dtype=dtype)
    assert "prefetch" in assembly(lambda x, y: np.tanh(x) + y, x, x)
    assert "prefetch" not in assembly(lambda x, y: x + y, x, x)
    for n in (0, 1, 31, 33, 4999):  # the ends of arrays, beyond which there is nothing
        got = gd.compile(lambda x, y: np.tanh(x) + y)(x[:n], x[:n])
        np.testing.assert_allclose(got, np.tanh(x[:n]) + x[:n], rtol=1e-6)
