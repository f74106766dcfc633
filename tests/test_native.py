"""Generated text to native code: memory, loops, vectors, and the promises that hold them together.

Every kernel here runs twice, as plain Python and compiled, on the same inputs.
"""

import ctypes
import itertools
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from graphdl.kernels.cpu import frontend, llvm, native
from graphdl.kernels.cpu.host import has
from graphdl.kernels.cpu.native import Kernel, compiled
from graphdl.kernels.interpret import run_as_python
from graphdl.kernels.source import KernelError, KernelSource

SIGNATURE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
DTYPES = {
    "f32": np.float32,
    "f64": np.float64,
    "i8": np.int8,
    "i16": np.int16,
    "i32": np.int32,
    "i64": np.int64,
    "u8": np.uint8,
    "u16": np.uint16,
    "u32": np.uint32,
    "u64": np.uint64,
    "b1": np.bool_,
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHDL_CACHE_DIR", str(tmp_path / "cache"))


def source(body: str, name: str = "test") -> KernelSource:
    lines = textwrap.indent(textwrap.dedent(body).strip(), "    ")
    return KernelSource(name, f"def kernel(table, lo, hi):\n{lines}\n")


def table_of(operands) -> np.ndarray:
    return np.array([x.ctypes.data if isinstance(x, np.ndarray) else x for x in operands], np.int64)


def call(kernel: Kernel, operands, lo: int, hi: int) -> None:
    table = table_of(operands)
    SIGNATURE(kernel.address)(table.ctypes.data, lo, hi)


def both_ways(kernel_source: KernelSource, operands, lo: int, hi: int) -> Kernel:
    """Run natively in place; check that plain Python does the same to copies."""
    copies = [x.copy() if isinstance(x, np.ndarray) else x for x in operands]
    arrays = [x for x in copies if isinstance(x, np.ndarray)]
    run_as_python(kernel_source, table_of(copies), lo, hi, arrays)
    [kernel] = compiled([kernel_source])
    call(kernel, operands, lo, hi)
    for ours, expected in zip(operands, copies, strict=True):
        if isinstance(ours, np.ndarray) and ours.dtype.kind == "f":
            np.testing.assert_allclose(ours, expected, rtol=1e-5)
        else:
            np.testing.assert_array_equal(ours, expected)
    return kernel


def uses_vectors(kernel: Kernel) -> bool:
    """Whether the loop over memory is done in registers of 256 or 512 bits (x86)."""
    assembly = kernel.assembly()
    return "zmm" in assembly or "ymm" in assembly


on_avx = pytest.mark.skipif(not has("avx2"), reason="looks for AVX registers in assembly")


# -- memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", DTYPES)
def test_every_dtype_is_read_and_written(suffix):
    x = np.array([0, 1, 2, 3, 100, 127, 1], DTYPES[suffix])
    y = np.zeros_like(x)
    text = f"""
        x = {suffix}_at(table[0])
        y = {suffix}_at(table[1])
        for i in lanes(lo, hi):
            y[i] = x[i]
    """
    both_ways(source(text), [x, y], 1, 6)
    np.testing.assert_array_equal(y, np.concatenate([[0], x[1:6], [0]]).astype(x.dtype))


def test_bool_is_stored_as_a_byte_of_0_or_1():
    x, y = np.array([1.0, -1.0, np.nan], np.float32), np.full(3, 7, np.uint8)
    text = """
        x = f32_at(table[0])
        y = b1_at(table[1])
        for i in lanes(lo, hi):
            y[i] = x[i] > f32(0.0)
    """
    call(compiled([source(text)])[0], [x, y], 0, 3)
    assert y.tolist() == [1, 0, 0]


@pytest.mark.parametrize("suffix", [s for s in DTYPES if s != "b1"])
def test_conversions_give_the_dtype(suffix):
    y = np.zeros(3, DTYPES[suffix])
    both_ways(
        source(f"y = {suffix}_at(table[0])\ny[lo] = {suffix}(3)\ny[1] = 2\ny[2] = 5"), [y], 0, 0
    )
    assert y.tolist() == [3, 2, 5]


def test_constants_do_not_widen_float32():
    text = """
        x = f32_at(table[0])
        for i in lanes(lo, hi):
            x[i] = x[i] * f32(0.1) + f32(0.3)
    """
    assert "fpext" not in frontend.llvm_ir(source(text).text, "k", "text")


def test_infinities_and_nan_are_constants():
    y = np.zeros(3, np.float32)
    both_ways(source("y = f32_at(table[0])\ny[0] = inf\ny[1] = -inf\ny[2] = nan"), [y], 0, 0)
    np.testing.assert_array_equal(y, [np.inf, -np.inf, np.nan])


def test_scratch_memory_is_a_kernels_own():
    x = np.arange(64, dtype=np.float32)
    y = np.zeros_like(x)
    text = """
        x = f32_at(table[0])
        y = f32_at(table[1])
        t = f32_scratch(16)
        for b in range(lo, hi):
            for i in lanes(0, 16):
                t[i] = x[b * 16 + i] + f32(1.0)
            for i in lanes(0, 16):
                y[b * 16 + i] = t[15 - i]
    """
    both_ways(source(text), [x, y], 0, 4)
    np.testing.assert_array_equal(y, (x + 1).reshape(4, 16)[:, ::-1].ravel())


def test_a_negative_index_is_an_address_before_the_pointer():
    x, y = np.arange(5, dtype=np.int32), np.zeros(5, np.int32)
    text = """
        x = i32_at(table[0] + 4)
        y = i32_at(table[1])
        for i in lanes(lo, hi):
            y[i] = x[i - 1]
    """
    both_ways(source(text), [x, y], 0, 5)
    np.testing.assert_array_equal(y, x)


# -- loops -----------------------------------------------------------------------------------------

LOOPS = [(0, 0, 1), (3, 2, 1), (0, 7, 1), (0, 7, 2), (0, 8, 3), (-4, 9, 5), (7, 0, -1), (8, 1, -3)]


@pytest.mark.parametrize(("start", "stop", "step"), [*LOOPS, (0, 7, -2), (5, 5, 3)])
def test_range_with_a_step(start, stop, step):
    y = np.zeros(2, np.int64)
    text = """
        y = i64_at(table[0])
        for i in range(table[1], table[2], table[3]):
            y[0] = y[0] * 10 + i
            y[1] = y[1] + 1
    """
    both_ways(source(text), [y, start, stop, step], 0, 0)
    assert y[1] == len(range(start, stop, step))


def test_range_of_one_argument_and_nested_loops():
    y = np.zeros(1, np.int64)
    text = """
        y = i64_at(table[0])
        for i in range(hi):
            for j in range(i, hi):
                y[0] = y[0] + i * j
    """
    both_ways(source(text), [y], 0, 6)


def test_min_and_max_of_integers():
    y = np.zeros(2, np.int64)
    both_ways(
        source("y = i64_at(table[0])\ny[0] = min_i64(lo, hi)\ny[1] = max_i64(lo, hi)"), [y], -3, 5
    )
    assert y.tolist() == [-3, 5]


def test_any_cut_of_the_iterations_gives_the_same_bits():
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    text = """
        x = f32_at(table[0])
        y = f32_at(table[1])
        n = table[2]
        block = table[3]
        for b in range(lo, hi):
            start = b * block
            stop = min_i64(start + block, n)
            for i in lanes(start, stop):
                y[i] = x[i] * x[i] + f32(0.1)
    """
    [kernel] = compiled([source(text)])
    results = []
    for cuts in ([0, 16], [0, 3, 16], list(range(17))):
        y = np.zeros_like(x)
        for lo, hi in itertools.pairwise(cuts):
            call(kernel, [x, y, x.size, 64], lo, hi)
        results.append(y)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


# -- vectors ---------------------------------------------------------------------------------------

MANY = 11  # inputs; with the output 12 pointers, where LLVM gives up alias checks beyond 8


def sum_of_many(loop: str) -> KernelSource:
    pointers = "\n".join(f"x{k} = f32_at(table[{k}])" for k in range(MANY + 1))
    terms = " + ".join(f"x{k}[i] * f32({k + 1}.0)" for k in range(MANY))
    return source(f"{pointers}\nfor i in {loop}(lo, hi):\n    x{MANY}[i] = {terms}")


@on_avx
def test_twelve_pointers_vectorise():
    assert uses_vectors(compiled([sum_of_many("lanes")])[0])


def test_lanes_need_no_alias_checks_where_a_range_loop_does():
    for loop, checks in (("lanes", False), ("range", True)):
        module = llvm.optimised(frontend.llvm_ir(sum_of_many(loop).text, "k", "text"))
        assert ("vector.memcheck" in str(module)) == checks


def test_only_accumulations_are_reordered():
    text = """
        x = f32_at(table[0])
        big = x[0]
        total = f32(0.0)
        for i in lanes(lo, hi):
            total += x[i]
            x[i] = (x[i] + big) - big
        x[0] = total
    """
    x = np.array([1e8, *[1.0] * 40], np.float32)
    both_ways(source(text), [x], 1, 41)
    assert x[0] == 40
    np.testing.assert_array_equal(x[1:], 0)


@pytest.mark.parametrize("size", [1, 15, 16, 33, 1000])
def test_twelve_pointers_are_right_apart_and_in_place(size):
    rng = np.random.default_rng(size)
    xs = [rng.standard_normal(size).astype(np.float32) for _ in range(MANY)]
    expected = sum(x.astype(np.float64) * (k + 1) for k, x in enumerate(xs))
    kernel_source = sum_of_many("lanes")
    out = np.zeros(size, np.float32)
    both_ways(kernel_source, [*xs, out], 0, size)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)
    call(compiled([kernel_source])[0], [*xs, xs[3]], 0, size)  # the output is an input
    np.testing.assert_array_equal(xs[3], out)


def test_a_dependence_through_a_range_loop_is_kept():
    x = np.ones(100, np.float32)
    text = """
        x = f32_at(table[0])
        for i in range(lo, hi):
            x[i] = x[i - 1] + x[i]
    """
    both_ways(source(text), [x], 1, 100)
    np.testing.assert_array_equal(x, np.arange(1, 101))


@pytest.mark.parametrize("inner", [2, 40])
def test_a_range_loop_in_lanes_keeps_its_order(inner):
    """Also where the inner loop is unrolled (2), and so becomes a part of the lanes loop."""
    x = np.arange(64 * inner, dtype=np.float32).reshape(inner, 64)
    y = np.zeros(64, np.float32)
    text = f"""
        x = f32_at(table[0])
        y = f32_at(table[1])
        for i in lanes(lo, hi):
            for j in range(0, {inner}):
                y[i] = y[i] * f32(0.5) + x[j * 64 + i]
    """
    both_ways(source(text), [x, y], 0, 64)


@pytest.mark.parametrize("inner", [2, 64])
def test_lanes_in_a_range_loop_that_accumulates_through_memory(inner):
    """The outer loop must not inherit the promise, not even where the inner one is unrolled."""
    x = np.random.default_rng(1).standard_normal((100, inner)).astype(np.float32)
    y = np.zeros(inner, np.float32)
    text = f"""
        x = f32_at(table[0])
        y = f32_at(table[1])
        for i in range(lo, hi):
            for j in lanes(0, {inner}):
                y[j] = y[j] + x[i * {inner} + j]
    """
    both_ways(source(text), [x, y], 0, 100)
    np.testing.assert_allclose(y, x.sum(0), rtol=1e-4)


def test_lanes_in_lanes_and_two_lanes_loops_in_a_row():
    x = np.random.default_rng(2).standard_normal((20, 30)).astype(np.float32)
    y, z = np.zeros((30, 20), np.float32), np.zeros(30, np.float32)
    text = """
        x = f32_at(table[0])
        y = f32_at(table[1])
        z = f32_at(table[2])
        for i in lanes(0, 20):
            for j in lanes(0, 30):
                y[j * 20 + i] = x[i * 30 + j]
        for j in lanes(0, 30):
            z[j] = y[j * 20]
        for j in lanes(0, 30):
            z[j] = z[j] + y[j * 20 + 1]
    """
    both_ways(source(text), [x, y, z], 0, 0)
    np.testing.assert_array_equal(y, x.T)


@pytest.mark.parametrize("size", [0, 1, 10, 16, 17, 50])
@pytest.mark.parametrize("stop", ["n", "constant"])
def test_few_lanes(size, stop):
    x = np.random.default_rng(5).standard_normal((7, size)).astype(np.float32)
    y = np.full((7, size + 1), 3, np.float32)[:, :size].copy()
    text = f"""
        x = f32_at(table[0])
        y = f32_at(table[1])
        n = {"table[2]" if stop == "n" else size}
        for row in range(lo, hi):
            start = row * n
            largest = f32(-inf)
            for i in few_lanes(start, start + n):
                largest = maximum(largest, x[i])
            total = f32(0.0)
            for i in few_lanes(start, start + n):
                y[i] = exp(x[i] - largest)
                total += y[i]
            for i in few_lanes(start, start + n):
                y[i] = y[i] / total
    """
    both_ways(source(text), [x, y, size], 0, 6)
    if size:
        np.testing.assert_allclose(y[:6].sum(1), 1, rtol=1e-6)
        assert (y[6] == 3).all()


def test_branches_and_skipped_iterations_in_lanes():
    x = np.random.default_rng(3).standard_normal(100).astype(np.float32)
    y = np.zeros_like(x)
    text = """
        x = f32_at(table[0])
        y = f32_at(table[1])
        for i in lanes(lo, hi):
            v = x[i]
            if v < f32(0.0):
                continue
            if v > f32(1.0):
                v = f32(1.0)
            y[i] = v
    """
    both_ways(source(text), [x, y], 0, 100)
    np.testing.assert_array_equal(y, x.clip(0, 1))


REDUCTIONS = {
    "sum": ("f32(0.0)", "acc + x[i]", np.sum),
    "product": ("f32(1.0)", "acc * x[i]", np.prod),
    "maximum": ("f32(-inf)", "maximum(acc, x[i])", np.max),
    "minimum": ("f32(inf)", "minimum(acc, x[i])", np.min),
}


def reduction(name: str) -> KernelSource:
    start, step, _ = REDUCTIONS[name]
    return source(f"""
        x = f32_at(table[0])
        y = f32_at(table[1])
        acc = {start}
        for i in lanes(lo, hi):
            acc = {step}
        y[0] = acc
    """)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_into_a_local(name):
    x = (1 + np.random.default_rng(4).standard_normal(999) / 50).astype(np.float32)
    y = np.zeros(1, np.float32)
    kernel = both_ways(reduction(name), [x, y], 0, x.size)
    np.testing.assert_allclose(y[0], REDUCTIONS[name][2](x.astype(np.float64)), rtol=1e-4)
    if name.startswith("m"):
        x[700] = np.nan
        call(kernel, [x, y], 0, x.size)
        assert np.isnan(y[0])


@on_avx
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_vectorise(name):
    assert uses_vectors(compiled([reduction(name)])[0])


@on_avx
@pytest.mark.parametrize("step", [2, 3])
def test_elements_at_equal_distances_are_read_by_vectors_and_shuffled(step):
    text = f"""
        x, y = f32_at(table[0]), f32_at(table[1])
        total = f32(0.0)
        for i in lanes(lo, hi):
            total += x[i * {step}]
        y[0] = total
    """
    x = np.arange(1000, dtype=np.float32)  # whose sums float32 holds
    total = np.zeros(1, np.float32)
    kernel = both_ways(source(text), [x, total], 1, 1000 // step)
    assert total[0] == x[step : 1000 // step * step : step].sum()
    assert uses_vectors(kernel)
    assert "gather" not in kernel.assembly()


@on_avx
def test_elementary_functions_vectorise():
    text = """
        x = f32_at(table[0])
        for i in lanes(lo, hi):
            x[i] = tanh(x[i])
    """
    x = np.linspace(-3, 3, 77).astype(np.float32)
    expected = np.tanh(x.astype(np.float64))
    kernel = both_ways(source(text), [x], 0, 77)
    np.testing.assert_allclose(x, expected, rtol=1e-6)
    assert uses_vectors(kernel)


# -- what is compiled ------------------------------------------------------------------------------


def test_equal_sources_are_compiled_once_and_no_size_is_compiled_in():
    before = native.compile_count()
    text = "x = f32_at(table[0])\nfor i in lanes(lo, hi):\n    x[i] = x[i] + f32(41.0)"
    first, second, other = compiled([source(text, "a"), source(text, "b"), source(text + "\n")])
    assert first is second
    assert native.compile_count() == before + 2 or first is other
    for size in (3, 1000):
        x = np.zeros(size, np.float32)
        call(first, [x], 0, size)
        assert (x == 41).all()
    count = native.compile_count()
    assert compiled([source(text, "c")]) == [first]
    assert native.compile_count() == count


def test_the_object_refers_to_no_python_symbol():
    text = """
        x = f64_at(table[0])
        for i in range(lo, hi):
            x[i] = x[i] / x[i - 1] if x[i] > 0.0 else tanh(x[i])
    """
    kernel = compiled([source(text)])[0]
    names = kernel.object_code
    for word in (b"Py", b"numba", b"NRT", b"Env"):
        assert word not in names


C_PROGRAM = """
#include <stdint.h>
#include <stdio.h>
void %(symbol)s(int64_t *table, int64_t lo, int64_t hi);
int main(void) {
    float x[40];
    for (int i = 0; i < 40; i++) x[i] = i / 10.0f;
    int64_t table[1] = {(int64_t)x};
    %(symbol)s(table, 1, 39);
    for (int i = 0; i < 40; i++) printf("%%.9g ", x[i]);
    return 0;
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize("options", [[], ["-static"], ["-no-pie"]])
def test_the_object_links_into_a_c_program(tmp_path, options):
    text = """
        x = f32_at(table[0])
        for i in lanes(lo, hi):
            x[i] = tanh(x[i])
    """
    kernel = compiled([source(text)])[0]
    (tmp_path / "kernel.o").write_bytes(kernel.object_code)
    (tmp_path / "main.c").write_text(C_PROGRAM % {"symbol": kernel.symbol})
    command = ["cc", *options, "main.c", "kernel.o", "-lm", "-o", "program"]
    subprocess.run(command, cwd=tmp_path, check=True)
    output = subprocess.run([tmp_path / "program"], capture_output=True, text=True, check=True)
    x = (np.arange(40) / np.float32(10)).astype(np.float32)
    call(kernel, [x], 1, 39)
    np.testing.assert_array_equal(np.array(output.stdout.split(), np.float32), x)


def test_the_source_is_a_file_beside_the_object():
    kernel = compiled([source("y = i64_at(table[0])\ny[0] = 12345")])[0]
    with open(kernel.path) as file:
        assert file.read() == kernel.source.text


@pytest.mark.parametrize(
    "body",
    [
        "x = unknown_at(table[0])",
        "x = f32_at(1.5)",
        "raise ValueError",
        "x = [1, 2]\nx.append(lo)",
        "for i in lanes(lo, 1.5):\n    pass",
        "print(lo)",
        "x = (",
        "x = f32_scratch(lo)",
    ],
)
def test_a_text_that_is_no_kernel_is_an_error(body):
    with pytest.raises(KernelError, match="cannot compile the kernel"):
        compiled([source(body)])


def test_an_error_names_the_line():
    with pytest.raises(KernelError, match=r"(?s)line 3|\(3\)"):
        compiled([source("x = f32_at(table[0])\ny = x[1.5]")])


def test_plain_python_refuses_to_leave_the_arrays():
    x = np.zeros(4, np.float32)
    text = source("x = f32_at(table[0])\nx[lo] = f32(1.0)")
    run_as_python(text, table_of([x]), 3, 0, [x])
    assert x.tolist() == [0, 0, 0, 1]
    for place in (-1, 4):
        with pytest.raises(IndexError):
            run_as_python(text, table_of([x]), place, 0, [x])
    with pytest.raises(IndexError):
        run_as_python(text, np.array([12345], np.int64), 0, 0, [x])
    run_as_python(text, table_of([x]), 2, 0)  # unchecked
    assert x[2] == 1


def test_importing_the_loader_does_not_import_numba():
    code = "import sys, graphdl.kernels.cpu.native; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
