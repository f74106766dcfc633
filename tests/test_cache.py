"""The cache of object code: what it survives, what it refuses, and what a warm process skips."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from graphdl.kernels import cache
from graphdl.kernels.cpu import native
from graphdl.kernels.cpu.native import compiled
from graphdl.kernels.source import KernelSource

# Compiles two kernels and prints what happened: kernels compiled, is Numba imported, a result.
PROGRAM = """
import ctypes, sys, warnings
import numpy as np
caught = []
warnings.showwarning = lambda *warning, **more: caught.append(warning)
from graphdl.kernels.cpu import elf, native
from graphdl.kernels.source import KernelSource

def source(constant):
    return KernelSource("k", f'''
def kernel(table, lo, hi):
    x = f32_at(table[0])
    for i in lanes(lo, hi):
        x[i] = x[i] + f32({constant})
''')

warnings.simplefilter("always")
kernels = native.compiled([source(1.5), source(2.5)])
x = np.zeros(5, np.float32)
table = np.array([x.ctypes.data], np.int64)
call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
for kernel in kernels:
    call(kernel.address)(table.ctypes.data, 1, 4)
assert x.tolist() == [0, 4, 4, 4, 0], x
# where object files are ELF, a process that compiles nothing loads no LLVM
loads_llvm = "llvmlite.binding" in sys.modules
assert loads_llvm == (native.compile_count() > 0) or not elf.is_possible()
print(native.compile_count(), "numba" in sys.modules, len(caught))
"""


def environment(**changes):
    """This process's environment with changes; None removes a variable."""
    kept = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), **changes}
    return {name: value for name, value in kept.items() if value is not None}


def start(**changes):
    command = [sys.executable, "-c", PROGRAM]
    return subprocess.Popen(command, env=environment(**changes), stdout=-1, stderr=-1, text=True)


def result(process) -> tuple[int, bool, int]:
    """Kernels compiled, whether Numba was imported, warnings."""
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    count, imported, warned = output.split()
    return int(count), imported == "True", int(warned)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    path = tmp_path / "cache"
    monkeypatch.setenv("GRAPHDL_CACHE_DIR", str(path))
    monkeypatch.setattr(cache, "_unchecked", cache._TRIM_EVERY)
    monkeypatch.setattr(cache, "_warned", False)
    monkeypatch.setattr(native, "_known", {})
    return path


def source(constant: float) -> KernelSource:
    text = f"def kernel(table, lo, hi):\n    f32_at(table[0])[lo] = f32({constant})\n"
    return KernelSource("k", text)


def test_a_second_process_compiles_nothing_and_imports_no_numba(folder):
    assert result(start(GRAPHDL_CACHE_DIR=str(folder))) == (2, True, 0)
    assert result(start(GRAPHDL_CACHE_DIR=str(folder))) == (0, False, 0)
    assert {path.suffix for path in folder.iterdir() if path.suffix} - {".host"} == {".o", ".py"}
    assert len(list(folder.glob("*.py"))) == 2  # the runtime's own objects have no text


def test_eight_processes_at_once(folder):
    processes = [start(GRAPHDL_CACHE_DIR=str(folder)) for _ in range(8)]
    for process in processes:
        count, _, warned = result(process)
        assert count <= 2
        assert warned == 0
    assert len(list(folder.glob("*.py"))) == 2
    assert not list(folder.glob(".*.tmp"))  # no temporary file is left
    assert result(start(GRAPHDL_CACHE_DIR=str(folder))) == (0, False, 0)


def damage_truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_one_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def damage_other_entry(path: Path) -> None:
    """A sound file under the wrong name."""
    [other] = set(path.parent.glob("*.o")) - {path}
    path.write_bytes(other.read_bytes())


@pytest.mark.parametrize(
    "damage", [damage_truncated, damage_empty, damage_one_bit, damage_other_entry]
)
def test_a_damaged_entry_is_compiled_again(folder, damage):
    first, second = compiled([source(1), source(2)])
    [path] = [p for p in folder.glob("*.o") if p.read_bytes().endswith(first.object_code)]
    damage(path)
    native._known.clear()
    before = native.compile_count()
    again = compiled([source(1), source(2)])
    assert native.compile_count() == before + 1
    assert [kernel.from_cache for kernel in again] == [False, True]
    assert again[0].object_code == first.object_code
    assert again[1].object_code == second.object_code
    native._known.clear()
    assert compiled([source(1)])[0].from_cache


def test_a_directory_that_cannot_be_written(tmp_path):
    file = tmp_path / "file"
    file.write_text("in the way")
    assert result(start(GRAPHDL_CACHE_DIR=str(file / "below"))) == (2, True, 1)
    assert result(start(GRAPHDL_CACHE_DIR=str(file))) == (2, True, 1)


def test_no_home(tmp_path):
    """Neither the environment nor the user database, if there is a user, names a home to write."""
    file = tmp_path / "file"
    file.write_text("in the way")
    changes = {"GRAPHDL_CACHE_DIR": None, "XDG_CACHE_HOME": None, "LOCALAPPDATA": None}
    assert result(start(**changes, HOME=str(file))) == (2, True, 1)


def test_an_unknown_home_means_no_directory(monkeypatch):
    for name in ("GRAPHDL_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert cache.directory() is None
    assert cache.read("0" * 32) is None
    assert cache.info().entries == 0
    assert cache.clear() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the places of Linux")
def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("GRAPHDL_CACHE_DIR", str(tmp_path))
    assert cache.directory() == tmp_path
    monkeypatch.delenv("GRAPHDL_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.directory() == tmp_path / "xdg" / "graphdl"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.directory() == tmp_path / ".cache" / "graphdl"


def test_one_warning_at_most(tmp_path, folder, monkeypatch):
    file = tmp_path / "file"
    file.write_text("in the way")
    monkeypatch.setenv("GRAPHDL_CACHE_DIR", str(file))
    with pytest.warns(RuntimeWarning, match="cannot be written"):
        compiled([source(3)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled([source(4)])


def test_tracebacks_find_the_text_without_a_cache(tmp_path, folder, monkeypatch):
    file = tmp_path / "file"
    file.write_text("in the way")
    monkeypatch.setenv("GRAPHDL_CACHE_DIR", str(file))
    with pytest.warns(RuntimeWarning):
        [kernel] = compiled([source(5)])
    import linecache

    assert "".join(linecache.getlines(kernel.path)) == source(5).text


def test_info_and_clear(folder):
    assert cache.info() == cache.Info(folder, 0, 0, cache.SIZE_LIMIT)
    compiled([source(6), source(7)])
    (folder / "a file of the user").write_text("not ours")
    info = cache.info()
    assert info.entries == 2
    assert info.size == sum(p.stat().st_size for p in folder.glob("*.*"))
    assert cache.clear() == 2
    assert [p.name for p in folder.iterdir()] == ["a file of the user"]
    assert cache.info().entries == 0
    native._known.clear()
    assert not compiled([source(6)])[0].from_cache


def fill(folder, count: int, size: int) -> list[str]:
    """Entries written at the seconds 1, 2, 3 ..."""
    keys = [f"{i:032x}" for i in range(count)]
    for second, key in enumerate(keys, 1):
        cache.write_source(key, "text")
        cache.write(key, bytes(size))
        for suffix in (".o", ".py"):
            os.utime(folder / f"{key}{suffix}", (second, second))
    return keys


def test_what_was_not_used_for_the_longest_time_goes_first(folder):
    keys = fill(folder, 10, 1000)
    assert cache.read(keys[0]) is not None  # a use, now
    entry = sum((folder / f"{keys[0]}{suffix}").stat().st_size for suffix in (".o", ".py"))
    cache.trim(folder, 5 * entry)
    left = {path.stem for path in folder.iterdir()}
    assert left == {keys[0], *keys[-3:]}  # 5 would fit; it is trimmed to 90 %
    assert len(list(folder.iterdir())) == 2 * len(left)


def test_the_size_is_looked_at_when_a_process_first_writes(folder, monkeypatch):
    keys = fill(folder, 10, 1000)
    monkeypatch.setattr(cache, "SIZE_LIMIT", 3000)
    monkeypatch.setattr(cache, "_unchecked", cache._TRIM_EVERY)
    compiled([source(8)])
    assert cache.info().size <= 3000
    assert cache.read(keys[0]) is None
    native._known.clear()
    assert compiled([source(8)])[0].from_cache


def test_temporary_files_of_dead_processes_are_removed(folder):
    fill(folder, 1, 10)
    abandoned, recent = (folder / f".{'f' * 32}.o.{pid}.0.tmp" for pid in (1, 2))
    abandoned.write_bytes(b"")
    recent.write_bytes(b"")
    os.utime(abandoned, (1, 1))
    cache.trim(folder, cache.SIZE_LIMIT)
    assert not abandoned.exists()
    assert recent.exists()


def test_the_key_depends_on_text_and_processor():
    keys = {cache.key_of(text, target) for text in ("a", "b", "ab") for target in ("", "x", "bx")}
    assert len(keys) == 9
    assert all(len(key) == 32 and int(key, 16) >= 0 for key in keys)


def test_the_key_depends_on_numba_llvm_and_this_package(monkeypatch):
    def digest() -> bytes:
        cache.toolchain.cache_clear()
        return cache.toolchain()

    digests = [digest(), digest()]
    assert digests[0] == digests[1]
    with monkeypatch.context() as patch:
        patch.setattr(cache.llvmlite, "__version__", "0.0")
        digests.append(digest())
    with monkeypatch.context() as patch:
        patch.setattr(cache, "find_spec", lambda name: None)
        digests.append(digest())
    with monkeypatch.context() as patch:
        patch.setattr(cache, "__file__", __file__)
        digests.append(digest())
    assert len(set(digests)) == 4
    cache.toolchain.cache_clear()


def test_a_name_is_no_part_of_the_key(folder):
    first = compiled([KernelSource("one", source(9).text)])[0]
    assert compiled([KernelSource("two", source(9).text)])[0] is first
