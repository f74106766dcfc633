"""Object code into memory: without LLVM where that can be, with it elsewhere."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest

from graphdl.kernels import cache
from graphdl.kernels.cpu import elf, host, llvm, loading

TEXT = """
@count = internal global i64 0
@start = internal global i64 40
@table = internal constant [4 x i64] [i64 2, i64 3, i64 5, i64 7]
declare double @sqrt(double)
declare ptr @memset(ptr, i32, i64)

define internal i64 @prime(i64 %i) noinline nounwind {
  %at = getelementptr [4 x i64], ptr @table, i64 0, i64 %i
  %prime = load i64, ptr %at
  ret i64 %prime
}

define i64 @NAME(i64 %i, double %x) nounwind {
  %buffer = alloca [64 x i8]
  call ptr @memset(ptr %buffer, i32 1, i64 64)
  %word = load i64, ptr %buffer
  %low = and i64 %word, 255
  %before = load i64, ptr @count
  %now = add i64 %before, 1
  store i64 %now, ptr @count
  %forty = load i64, ptr @start
  %prime = call i64 @prime(i64 %i)
  %root = call double @sqrt(double %x)
  %scaled = fmul double %root, 1000.0
  %rounded = fptosi double %scaled to i64
  %a = add i64 %now, %forty
  %b = add i64 %a, %prime
  %c = add i64 %b, %rounded
  %d = mul i64 %c, %low
  ret i64 %d
}
"""
OF_LIBC = """
@environ = external global ptr
define i64 @NAME(i64 %i, double %x) nounwind {
  %all = load ptr, ptr @environ
  %is = icmp ne ptr %all, null
  %number = zext i1 %is to i64
  ret i64 %number
}
"""


def code_of(text: str, name: str) -> bytes:
    return llvm.object_code_as_written(text.replace("NAME", name), 2)


def function(address: int) -> Any:
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_double)(address)


def addresses(name: str) -> int | None:
    return loading._address_of(name)


on_elf = pytest.mark.skipif(not elf.is_possible(), reason="objects are others on this system")


@on_elf
def test_both_loaders_make_the_same_of_an_object() -> None:
    objects = {name: code_of(TEXT, name) for name in ("first", "second")}
    ours = elf.load(objects, addresses)
    assert ours is not None
    theirs = llvm.load(objects)
    for found in (ours, theirs):
        first, second = (function(found[name]) for name in ("first", "second"))
        assert [first(i, 2.0) for i in range(4)] == [
            round_ + 40 + prime + 1414 for round_, prime in enumerate((2, 3, 5, 7), start=1)
        ]
        assert second(0, 0.0) == 43  # it counts by itself


@on_elf
def test_what_is_loaded_twice_is_there_twice() -> None:
    objects = {"twice": code_of(TEXT, "twice")}
    a, b = (function(loading.load(objects)["twice"]) for _ in range(2))
    assert [a(0, 0.0), a(0, 0.0), b(0, 0.0)] == [43, 44, 43]


@on_elf
def test_data_of_other_libraries_is_for_llvm() -> None:
    code = code_of(OF_LIBC, "of_libc")
    assert elf.load({"of_libc": code}, addresses) is None
    assert function(loading.load({"of_libc": code})["of_libc"])(0, 0.0) == 1


@on_elf
def test_what_is_no_object_of_this_machine_is_not_loaded() -> None:
    code = code_of(TEXT, "good")
    assert elf.load({"good": code}, addresses) is not None
    assert elf.load({"another": code}, addresses) is None  # it lacks the symbol
    assert elf.load({"good": code}, lambda name: None) is None  # the process lacks sqrt
    other = bytearray(code)
    other[18] = 183  # AArch64
    cut = (b"", code[:100], code[: len(code) // 2], bytes(other), b"\xcf\xfa\xed\xfe" + code[4:])
    for wrong in cut:
        assert elf.load({"good": wrong}, addresses) is None
    with pytest.raises(RuntimeError):
        loading.load({"good": b"no object"})


@on_elf
def test_frames_to_unwind_are_for_llvm() -> None:
    code = code_of(TEXT.replace("double %x) nounwind", "double %x)"), "unwound")
    assert b".eh_frame" in code
    assert elf.load({"unwound": code}, addresses) is None
    assert function(loading.load({"unwound": code})["unwound"])(0, 0.0) == 43


@on_elf
def test_unknown_relocations_are_left_to_llvm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elf, "_PC32", 999)
    code = code_of(TEXT, "strange")
    assert elf.load({"strange": code}, addresses) is None
    assert function(loading.load({"strange": code})["strange"])(0, 0.0) == 43


@on_elf
def test_code_cannot_be_written_and_data_cannot_be_executed() -> None:
    found = elf.load({"guarded": code_of(TEXT, "guarded")}, addresses)
    assert found is not None
    address = found["guarded"]
    kinds = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, stop = (int(part, 16) for part in line.split()[0].split("-"))
        if start <= address < stop:
            kinds.append(line.split()[1])
    assert kinds == ["r-xp"]


@pytest.fixture
def asked(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """How often LLVM is asked what the processor is, with an empty cache."""
    import llvmlite.binding

    monkeypatch.setenv("GRAPHDL_CACHE_DIR", str(tmp_path))
    name_of, times = llvmlite.binding.get_host_cpu_name, []

    def counted() -> str:
        times.append(1)
        return str(name_of())

    monkeypatch.setattr(llvmlite.binding, "get_host_cpu_name", counted)
    yield times
    host._words.cache_clear()


@on_elf
def test_llvm_is_asked_once_a_machine_what_it_is(
    asked: list[int], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def words() -> tuple[str, str, str]:
        host._words.cache_clear()
        return host._words()

    wanted = (
        llvm.llvm.get_process_triple(),
        llvm.llvm.get_host_cpu_name(),
        llvm.llvm.get_host_cpu_features().flatten(),
    )
    asked.clear()
    assert [words(), words()] == [wanted, wanted]
    assert len(asked) == 1
    (entry,) = tmp_path.glob("*.host")
    entry.write_bytes(entry.read_bytes()[:-1])  # damaged
    assert words() == wanted
    assert len(asked) == 2
    monkeypatch.setattr(host, "_cpuinfo", lambda: ["model name: another"])
    assert words() == wanted
    assert len(asked) == 3
    monkeypatch.setattr(host, "_cpuinfo", list)  # a system that does not say: each process asks
    words(), words()
    assert len(asked) == 5
    assert len(list(tmp_path.glob("*.host"))) == 2
    cache.clear()
    assert not list(tmp_path.glob("*.host"))


@on_elf
def test_facts_are_those_of_a_processor() -> None:
    facts = host._cpuinfo()
    assert facts == host._cpuinfo()
    assert not [line for line in facts if "MHz" in line or line.startswith("processor")]
    named = [line for line in facts if line.startswith("flags")]
    assert host.has("avx2") == (" avx2" in named[0])
    assert host.has("avx512f") == (" avx512f" in named[0])
