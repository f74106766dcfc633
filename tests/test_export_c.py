"""Programs for C: what is written compiles without warnings, links, and computes what it should."""

import ctypes
import shutil
import subprocess
import threading

import numba
import numpy as np
import pytest

import graphdl as gd

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler on this machine")
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror")


def compiled(*arguments, folder):
    done = subprocess.run([COMPILER, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def library(executable, folder, name="program", extra=""):
    """The exported program as a shared library: what C code would call, called from here."""
    executable.export_c(folder, name)
    (folder / "extra.c").write_text(extra)
    objects = sorted(path.name for path in folder.glob("*.o"))
    compiled("-shared", "-fPIC", "extra.c", *objects, "-lm", "-o", "lib.so", folder=folder)
    return ctypes.CDLL(str(folder / "lib.so"))


def pointer(array):
    return ctypes.c_void_p(array.ctypes.data)


def rosenbrock(x):
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


@needs_compiler
def test_the_example_runs_without_python(tmp_path):
    executable = gd.compile(gd.value_and_grad(rosenbrock)).lower(np.zeros(10))
    folder = tmp_path / "rosenbrock"
    files = executable.export_c(folder)
    assert [path.name for path in files[:3]] == [
        "rosenbrock.h", "rosenbrock_example.c", "rosenbrock.o"
    ]  # fmt: skip
    objects = [path.name for path in files if path.suffix == ".o"]
    compiled(*STRICT, "rosenbrock_example.c", *objects, "-lm", "-o", "example", folder=folder)
    done = subprocess.run([folder / "example"], env={}, capture_output=True, text=True, check=True)
    value, gradient = executable(0.25 * (np.arange(10) % 8 + 1))
    lines = dict(line.split(": ") for line in done.stdout.splitlines())
    assert float(lines["result0"]) == pytest.approx(float(value), rel=1e-8)
    np.testing.assert_allclose(np.fromstring(lines["result1"], sep=" "), gradient[:8], rtol=1e-8)


@needs_compiler
def test_the_header_is_cpp_too(tmp_path):
    """A parameter may have any name, a leaf any path."""
    executable = gd.compile(
        lambda new, double: (new["class"] + new["a-b"][0] * double, new["class"] > 0)
    ).lower({"class": np.zeros(2, np.complex64), "a-b": [np.ones(2, np.int8)]}, 1.5)
    executable.export_c(tmp_path, "f")
    header = (tmp_path / "f.h").read_text()
    assert "const float *new_class" in header
    assert "const int8_t *new_a_b_0" in header
    assert "double double_2" in header
    (tmp_path / "use.c").write_text('#include "f.h"\nint main(void) { f_release(); return 0; }\n')
    compiled(*STRICT, "-c", "use.c", folder=tmp_path)
    compiled("-x", "c++", "-Wall", "-Werror", "-c", "use.c", folder=tmp_path)


@needs_compiler
def test_numbers_are_passed_by_value_and_donated_memory_is_written_over(tmp_path):
    def f(x, t, n, flag):
        return np.where(flag, x * t, x + n), n * 2

    executable = gd.compile(f, donate=0).lower(np.zeros(3), 1.0, 1, False)
    function = library(executable, tmp_path).program
    function.argtypes = [
        ctypes.c_void_p, ctypes.c_double, ctypes.c_int64, ctypes.c_bool, ctypes.c_void_p
    ]  # fmt: skip
    for flag, expected in ((True, [0.5, 1.0, 1.5]), (False, [8.0, 9.0, 10.0])):
        x, twice = np.array([1.0, 2.0, 3.0]), np.zeros((), np.int64)
        assert function(pointer(x), 0.5, 7, flag, pointer(twice)) == 0
        np.testing.assert_array_equal(x, expected)
        assert twice == 14


def slope_of_a_loop(x):
    def step(c):
        return c[0] + 1, np.sin(c[1]) * x + c[1]

    made = gd.while_loop(lambda c: c[0] < 30, step, (0, x))[1]
    total, rows = gd.scan(lambda c, r: (c * 0.5 + r, c), made[0], made)
    return gd.cond(total > 0, np.exp, np.cos, rows).sum()


@needs_compiler
def test_loops_run_in_many_threads_and_give_their_memory_back(tmp_path):
    executable = gd.compile(gd.value_and_grad(slope_of_a_loop)).lower(np.zeros(6))
    loaded = library(executable, tmp_path)
    wrong = []

    def work(k):
        x, value, gradient = np.linspace(0.01 * k, 0.2, 6), np.zeros(()), np.zeros(6)
        expected = executable(x)
        for _ in range(50):
            code = loaded.program(pointer(x), pointer(value), pointer(gradient))
            same = np.array_equal(value, expected[0]) and np.array_equal(gradient, expected[1])
            if code != 0 or not same:
                wrong.append((k, code))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loaded.program_release()
    loaded.program_release()
    work(0)
    assert not wrong


#: A product, for programs that call a BLAS: column-major, no factor but 1.
GEMM = """
void sgemm_(const char *ta, const char *tb, const int *m, const int *n, const int *k,
            const float *alpha, const float *a, const int *lda, const float *b, const int *ldb,
            const float *beta, float *c, const int *ldc) {
    for (int i = 0; i < *m; i++)
        for (int j = 0; j < *n; j++) {
            double sum = 0.0;
            for (int l = 0; l < *k; l++)
                sum += (double)(*ta == 'N' ? a[i + l * *lda] : a[l + i * *lda])
                     * (*tb == 'N' ? b[l + j * *ldb] : b[j + l * *ldb]);
            c[i + j * *ldc] = *alpha * (float)sum + (*beta == 0 ? 0 : *beta * c[i + j * *ldc]);
        }
}
"""


@needs_compiler
def test_products_have_a_core_or_call_a_blas(tmp_path):
    rng = np.random.default_rng(0)
    for i, shape in enumerate([(8, 24, 16), (200, 300, 250)]):
        rows, inner, columns = shape
        x = rng.standard_normal((rows, inner)).astype(np.float32)
        w = rng.standard_normal((inner, columns)).astype(np.float32)
        executable = gd.compile(lambda x, w: np.tanh(x @ w)).lower(x, w)
        folder = tmp_path / str(i)
        function = library(executable, folder, f"product{i}", GEMM)[f"product{i}"]
        out = np.zeros((rows, columns), np.float32)
        assert function(pointer(x), pointer(w), pointer(out)) == 0
        np.testing.assert_allclose(out, np.tanh(x @ w), rtol=2e-3, atol=1e-5)


@needs_compiler
def test_failures_are_codes_that_the_header_lists(tmp_path):
    executable = gd.compile(lambda x, i: x[i] + np.arange(4.0)).lower(np.ones((3, 4)), np.array(0))
    loaded = library(executable, tmp_path)
    assert " *   1  an index array is out of bounds" in (tmp_path / "program.h").read_text()
    x, out = np.arange(12.0).reshape(3, 4), np.zeros(4)
    assert loaded.program(pointer(x), pointer(np.array(5)), pointer(out)) == 1
    assert loaded.program(pointer(x), pointer(np.array(2)), pointer(out)) == 0
    np.testing.assert_array_equal(out, x[2] + np.arange(4.0))


def test_what_only_this_process_has_is_refused(tmp_path, monkeypatch):
    entry = "graphdl.kernels.cpu.user_code.array_entry"
    monkeypatch.setattr(entry, lambda *args: 0)  # compiling what is not run takes seconds

    @gd.op(result=lambda x: x)
    @numba.njit
    def twice(x, out):
        out[:] = x * 2

    refused = {
        r"the kernel \w+ calls scipy.special.gammaln": (gd.special.gammaln, np.ones(3)),
        r"potrf of LAPACK": (np.linalg.cholesky, np.eye(3)),
        r"twice is a function of arrays of gd.op": (twice, np.ones(3)),
    }
    for message, (f, x) in refused.items():
        executable = gd.compile(lambda x, f=f: f(x)).lower(x)
        with pytest.raises(gd.UnsupportedError, match=message):
            executable.export_c(tmp_path / "f")
    assert not list(tmp_path.iterdir())
    fine = gd.compile(lambda x: x + 1).lower(np.ones(3))
    for name in ("int", "a-b", "", "9"):
        with pytest.raises(gd.ArgumentError, match="no name of a function in C"):
            fine.export_c(tmp_path, name)


def test_no_address_is_in_the_object(tmp_path):
    """The same program of two processes' worth of memory is the same file."""
    texts = []
    for folder in ("a", "b"):
        made = gd.compile(lambda x: np.cumsum(np.sin(x)) + np.arange(50.0)).lower(np.ones(50))
        made.export_c(tmp_path / folder, "f")
        texts.append((tmp_path / folder / "f.o").read_bytes())
    assert texts[0] == texts[1]
