"""float16 and bfloat16: stored in 16 bits, computed with as float32."""

from __future__ import annotations

import sys

import ml_dtypes
import numpy as np
import pytest

import graphdl as gd
from graphdl.errors import DtypeError
from graphdl.kernels.cuda import toolchain
from graphdl.trees import leaves_of
from graphdl.types import is_half
from tests.device_programs import compiles, device_program, run_as_device_python
from tests.programs import run_in_python

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
HALVES = [np.dtype(np.float16), BFLOAT16]
RNG = np.random.default_rng(11)

both = pytest.mark.parametrize("dtype", HALVES, ids=str)


def draw(dtype: np.dtype, *shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(dtype)


def close(got, want, dtype: np.dtype, units: float = 2) -> None:
    """Equal but for some units of the last place of the largest value."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.dtype == dtype
    wide = want.astype(np.float64)
    unit = float(ml_dtypes.finfo(dtype).eps)
    np.testing.assert_allclose(
        got.astype(np.float64), wide, rtol=0, atol=units * unit * max(np.abs(wide).max(), 1e-3)
    )


def softmax(x):
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


# -- conversions -----------------------------------------------------------------------------------


def all_of(dtype: np.dtype) -> np.ndarray:
    return np.arange(1 << 16, dtype=np.uint16).view(dtype)


def awkward_floats(dtype: np.dtype) -> np.ndarray:
    """float32: each number of 16 bits, each tie between two, the neighbours of both, and others."""
    with np.errstate(all="ignore"):
        exact = all_of(dtype).astype(np.float32)
        ties = (exact[:-1] / 2 + exact[1:] / 2).astype(np.float32)
        near = np.concatenate([exact, ties])
        around = [np.nextafter(near, np.float32(side)) for side in (-np.inf, np.inf)]
    bits = RNG.integers(0, 1 << 32, 50_000, dtype=np.uint32)
    return np.concatenate([near, *around, bits.view(np.float32)])


def same_numbers(got: np.ndarray, want: np.ndarray) -> None:
    """The same, to the sign of zero; a NaN is a NaN."""
    assert got.dtype == want.dtype
    nan = np.isnan(want)
    np.testing.assert_array_equal(np.isnan(got), nan)
    unsigned = f"u{want.itemsize}"
    np.testing.assert_array_equal(got[~nan].view(unsigned), want[~nan].view(unsigned))


@both
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_every_number_is_converted_as_numpy_does(dtype):
    x = all_of(dtype)
    same_numbers(gd.compile(lambda x: x.astype(np.float32))(x), x.astype(np.float32))
    floats = awkward_floats(dtype)
    for wide in (floats, floats.astype(np.float64) * (1 + 1e-12)):
        same_numbers(gd.compile(lambda x: x.astype(dtype))(wide), wide.astype(dtype))


@both
def test_integers_and_truth_become_halves_and_back(dtype):
    x = np.array([-300, 0, 7, 4097, 70_000, -(2**40)])
    with np.errstate(over="ignore"):
        same_numbers(gd.compile(lambda x: x.astype(dtype))(x), x.astype(dtype))
    same_numbers(gd.compile(lambda x: (x > 0).astype(dtype))(x), (x > 0).astype(dtype))
    half = np.array([-2.5, 0, 3.75]).astype(dtype)
    assert gd.compile(lambda x: x.astype(np.int8))(half).tolist() == [-2, 0, 3]
    assert gd.compile(lambda x: x.astype(bool))(half).tolist() == [True, False, True]


# -- dtypes ----------------------------------------------------------------------------------------

OTHERS = ["bool", "int8", "uint8", "int16", "int32", "int64", "float32", "float64", "complex64"]


@both
@pytest.mark.parametrize("other", OTHERS)
def test_promotion_is_that_of_numpy_and_of_ml_dtypes(dtype, other):
    x, y = np.ones(3, dtype), np.ones(3, other)
    assert gd.compile(np.add)(x, y).dtype == np.add(x, y).dtype
    assert gd.compile(lambda x, y: np.where(x > 0, x, y))(x, y).dtype == (x + y).dtype


@both
def test_python_numbers_leave_a_half_what_it_is(dtype):
    x = draw(dtype, 5)
    for f in (lambda x: x * 2, lambda x: 0.5 - x, lambda x: x**2, lambda x: np.maximum(x, 0)):
        close(gd.compile(f)(x), f(x.astype(np.float32)), dtype)
    assert gd.compile(lambda x, rate: x * rate)(x, 0.5).dtype == dtype
    for f in (np.sum, np.mean, np.max, np.var, np.sort, np.cumsum, np.zeros_like):
        assert gd.compile(f)(x).dtype == dtype


def test_the_dtype_has_a_name():
    assert gd.spec(3, "bfloat16").dtype == BFLOAT16
    assert gd.compile(lambda x: x.astype("bfloat16"))(np.ones(3)).dtype == BFLOAT16


# -- values ----------------------------------------------------------------------------------------

FUNCTIONS = {
    "pointwise": lambda x, w, b: np.tanh(x[:, :4] * b) + 1.5,
    "softmax": lambda x, w, b: softmax(x),
    "layer": lambda x, w, b: np.maximum(x @ w + b, 0),
    "gradients": lambda x, w, b: gd.grad(
        lambda w, b: np.mean(np.tanh(x @ w + b) ** 2), argnums=(0, 1)
    )(w, b),
    "moved": lambda x, w, b: np.concatenate([x.T[1:5:2], np.pad(x, ((0, 1), (0, 0))).T[:, 1:]]),
    "gathered": lambda x, w, b: x[np.array([1, 3, 1])] * 2,
    "chosen": lambda x, w, b: np.where(x > 0, x, 0),
    "sorted": lambda x, w, b: np.cumsum(np.sort(x, axis=0), axis=1),
    "einsum": lambda x, w, b: np.einsum("ij,jk->ki", x, w),
    "sums": lambda x, w, b: (np.sum(x), np.max(x, axis=1), np.std(x, axis=0)),
}


@both
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_give_what_they_give_in_float32(dtype, name):
    f, args = FUNCTIONS[name], [draw(dtype, 5, 7), draw(dtype, 7, 4), draw(dtype, 4)]
    graph = gd.trace(f, *args)
    wide = [x.astype(np.float32) for x in args]
    want = leaves_of(gd.trace(f, *wide).evaluate(*wide))
    compiled = leaves_of(gd.compile(f)(*args))
    for results in (compiled, leaves_of(graph.evaluate(*args)), run_as_device_python(graph, args)):
        for got, expected in zip(results, want, strict=True):
            close(got, expected, dtype, 8)
    for got, expected in zip(run_in_python(graph, args), compiled, strict=True):
        close(got, expected, dtype, 2)


@both
def test_loops_carry_halves(dtype):
    x = draw(dtype, 4, 3)

    def f(x):
        return gd.scan(lambda c, row: (np.tanh(c + row), c * row), x[0], x)

    wide = x.astype(np.float32)
    for got, want in zip(gd.compile(f)(x), gd.compile(f)(wide), strict=True):
        close(got, want, dtype, 4)
    slope = gd.grad(lambda x: np.sum(f(x)[1]))
    close(slope(x), slope(wide), dtype, 6)


@both
def test_sums_are_added_up_in_float32(dtype):
    x = np.ones(5000, dtype)
    assert float(gd.compile(np.sum)(x)) == float(np.asarray(5000).astype(dtype))
    large = np.full(4000, 60.0, dtype)
    assert float(gd.compile(np.mean)(large)) == 60
    assert float(gd.compile(lambda x: np.mean(x.reshape(40, 100) ** 2))(large)) > 3000


@both
def test_a_kernel_rounds_where_it_stores_and_where_it_is_told_to(dtype):
    x = np.full(8, 2.0**-9, dtype)
    assert gd.compile(lambda x: (x + 64) - 64)(x).tolist() == x.tolist()
    rounded = gd.compile(lambda x: (x.astype(np.float32) + 64).astype(dtype).astype(np.float32))
    assert rounded(x).tolist() == [64.0] * 8


@both
def test_no_op_computes_with_halves(dtype):
    f = gd.grad(lambda x, w: np.sum(softmax(np.tanh(x @ w))), (0, 1))
    executable = gd.compile(f).lower(gd.spec((6, 4), dtype), gd.spec((4, 8), dtype))
    for node in executable.optimized.operations:
        if any(is_half(x.dtype) for x in node.inputs):
            assert node.op.name in ("cast", "select") or node.op.family == "movement"


@both
def test_wide_kernels_of_the_device_take_eight_at_once(dtype):
    x, y = gd.spec((6, 16), dtype), gd.spec((6, 16), "float32")
    (launch,) = device_program(gd.trace(lambda x: np.exp(x) * 2.5, x)).launches
    assert "load8(" in launch.source.text
    assert "store8(" in launch.source.text
    (launch,) = device_program(gd.trace(lambda x, y: x * y, x, y)).launches
    assert "load4(" in launch.source.text


@compiles
@both
def test_comparisons_of_eight_at_once_compile(dtype):
    x = gd.spec((4, 8), dtype)
    (launch,) = device_program(gd.trace(lambda x: (x > 0) & (x < 1), x)).launches
    assert "store8(" in launch.source.text
    signature = toolchain.Signature(len(launch.words), launch.threads)
    assert toolchain.compile(launch.source, signature, (9, 0)).local_bytes == 0


@both
def test_an_exported_function_takes_the_bits(dtype, tmp_path):
    gd.compile(lambda x: x * 2).lower(gd.spec(3, dtype)).export_c(tmp_path, "double_it")
    assert "const uint16_t *x" in (tmp_path / "double_it.h").read_text()


# -- what is refused -------------------------------------------------------------------------------


def test_the_two_do_not_mix():
    x, y = np.ones(3, np.float16), np.ones(3, BFLOAT16)
    with pytest.raises(DtypeError, match=r"no dtype in common: cast one of them, as in x\.astype"):
        gd.compile(np.add)(x, y)


@both
def test_lapack_and_samples_say_what_to_write(dtype):
    with pytest.raises(DtypeError, match=r"LAPACK knows no .*; write x\.astype\(np\.float32\)"):
        gd.compile(np.linalg.inv)(np.eye(3, dtype=dtype))
    with pytest.raises(DtypeError, match=rf"cast them, as in x\.astype\('{dtype}'\)"):
        gd.random.normal(gd.random.key(0), (3,), dtype)


def test_without_ml_dtypes_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(DtypeError, match="python -m pip install ml_dtypes"):
        gd.spec(3, "bfloat16")
