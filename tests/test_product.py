"""Matrix products against NumPy's in float64: sizes, strides, batches, cuts, epilogues."""

import ctypes
from collections.abc import Sequence

import numpy as np
import pytest

from graphdl.kernels import interpret
from graphdl.kernels.cpu import cores, llvm, loading, native, product
from graphdl.kernels.cpu.product import Array, Epilogue, Operand, Product
from graphdl.kernels.cpu.tiles import Registers

KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
DTYPES = {"f32": np.float32, "f64": np.float64}
OUT = {dtype: Operand("out", dtype) for dtype in DTYPES}
STORE = {dtype: Epilogue((OUT[dtype],), ("out[j] = c",)) for dtype in DTYPES}
SIZES = (1, 2, 3, 4, 5, 7, 8, 12, 13, 16, 17, 31, 33, 48, 64, 97, 130)


def array_of(x):
    strides = (0,) * (4 - x.ndim) + x.strides
    return Array(x.ctypes.data, strides)


def table_of(dtype, a, b, epilogue, operands: Sequence[np.ndarray]):
    address = native.compiled([product.epilogue_source(dtype, epilogue)])[0].address
    batch = (1, 1, *a.shape[:-2])[-2:]
    what = Product(dtype, a.shape[-2], b.shape[-1], a.shape[-1], batch)
    words, n = product.launch_table(
        what,
        array_of(a),
        array_of(b),
        address,
        [array_of(x) for x in operands],
        epilogue.only_stores(dtype),
    )
    return np.array(words, np.int64), n


def launch(dtype, a, b, epilogue, operands, pieces=1):
    table, n = table_of(dtype, a, b, epilogue, operands)
    core = KERNEL(cores.address(f"product {dtype}"))
    for p in range(pieces):
        core(table.ctypes.data, p * n // pieces, (p + 1) * n // pieces)


def matrix(rng, dtype, batch, rows, columns, layout):
    """A matrix whose rows, whose columns, or neither lie in memory one element after the other."""
    if layout == "rows":
        x = rng.standard_normal((*batch, rows, columns))
    elif layout == "columns":
        x = rng.standard_normal((*batch, columns, rows)).swapaxes(-1, -2)
    else:
        x = rng.standard_normal((*batch, rows, 2 * columns + 1))
    x = x.astype(DTYPES[dtype], order="K")
    return x[..., : 2 * columns : 2] if layout == "neither" else x


def check(dtype, a, b, out):
    exact = a.astype(np.float64) @ b.astype(np.float64)
    bound = np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64)
    depth = max(a.shape[-1], 1)
    assert np.all(np.abs(out - exact) <= np.finfo(out.dtype).eps * (4 + 0.1 * depth) * bound)


def multiply(dtype, a, b, pieces=1):
    out = np.full((*a.shape[:-1], b.shape[-1]), 7, DTYPES[dtype])
    launch(dtype, a, b, STORE[dtype], [out], pieces)
    return out


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("left", ["rows", "columns", "neither"])
@pytest.mark.parametrize("right", ["rows", "columns", "neither"])
def test_sizes_and_strides(dtype, left, right):
    rng = np.random.default_rng(0)
    for m, n, k in rng.choice(SIZES, (60, 3)):
        a, b = matrix(rng, dtype, (), m, k, left), matrix(rng, dtype, (), k, n, right)
        check(dtype, a, b, multiply(dtype, a, b))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("right", ["rows", "columns"])
@pytest.mark.parametrize(
    ("m", "n", "k"),
    [
        (1, 300, 1500),
        (1, 301, 1100),
        (4, 600, 3001),
        (100, 700, 1300),
        (250, 250, 2600),
        (13, 1000, 2000),
    ],
)
def test_k_in_steps(dtype, right, m, n, k):
    rng = np.random.default_rng(0)
    a, b = matrix(rng, dtype, (), m, k, "rows"), matrix(rng, dtype, (), k, n, right)
    check(dtype, a, b, multiply(dtype, a, b))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [(3,), (2, 3)])
def test_batches(dtype, batch):
    rng = np.random.default_rng(0)
    for m, n, k in rng.choice(SIZES[:12], (20, 3)):
        a, b = (matrix(rng, dtype, batch, *s, "rows") for s in ((m, k), (k, n)))
        check(dtype, a, b, multiply(dtype, a, b))
        shared = np.broadcast_to(b[(0,) * len(batch)], b.shape)
        check(dtype, a, shared, multiply(dtype, a, shared))


@pytest.mark.parametrize("dtype", DTYPES)
def test_empty(dtype):
    zeros = np.zeros((5, 9))
    assert np.array_equal(multiply(dtype, *_empty(dtype, 5, 9, 0)), zeros)
    assert multiply(dtype, *_empty(dtype, 0, 9, 3)).shape == (0, 9)
    assert multiply(dtype, *_empty(dtype, 5, 0, 3)).shape == (5, 0)
    _, n = table_of(dtype, *_empty(dtype, 0, 9, 3), STORE[dtype], [np.zeros((0, 9))])
    assert n == 0


def _empty(dtype, m, n, k):
    return np.ones((m, k), DTYPES[dtype]), np.ones((k, n), DTYPES[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("right", ["rows", "columns"])
@pytest.mark.parametrize(("m", "n", "k"), [(1, 700, 300), (200, 700, 65), (530, 40, 1400)])
def test_cuts_change_no_bit(dtype, right, m, n, k):
    rng = np.random.default_rng(0)
    a, b = matrix(rng, dtype, (2,), m, k, "rows"), matrix(rng, dtype, (2,), k, n, right)
    whole = multiply(dtype, a, b)
    for pieces in (2, 3, 7):
        assert np.array_equal(whole, multiply(dtype, a, b, pieces))


def test_rows_do_not_depend_on_how_many_there_are():
    rng = np.random.default_rng(0)
    a, b = matrix(rng, "f32", (), 130, 77, "rows"), matrix(rng, "f32", (), 77, 90, "rows")
    whole = multiply("f32", a, b)
    for m in (1, 2, 5, 11, 40):
        assert np.array_equal(whole[:m], multiply("f32", a[:m], b))


@pytest.mark.parametrize("right", ["rows", "columns"])
def test_nothing_outside_the_operands_counts(right):
    rng = np.random.default_rng(0)
    whole = [(1, 256, 9), (5, 32, 3), (8, 64, 40), (13, 112, 7), (20, 64, 1500)]  # vectors
    for m, n, k in [*rng.choice(SIZES[:14], (30, 3)), *whole]:
        a, b = (np.full(shape, np.nan, np.float32) for shape in ((m + 2, k + 2), (1600, 1600)))
        a[1:-1, 1:-1] = rng.standard_normal((m, k))
        b = b[: k + 2, : n + 2] if right == "rows" else b[: n + 2, : k + 2].T
        b[1:-1, 1:-1] = rng.standard_normal((k, n))
        out = np.full((m + 2, n + 2), 7, np.float32)
        launch("f32", a[1:-1, 1:-1], b[1:-1, 1:-1], STORE["f32"], [out[1:-1, 1:-1]])
        check("f32", a[1:-1, 1:-1], b[1:-1, 1:-1], out[1:-1, 1:-1])
        out[1:-1, 1:-1] = 7
        assert np.all(out == 7)


@pytest.mark.parametrize(("m", "n", "k"), [(1, 10, 5), (33, 70, 19), (300, 600, 40), (20, 9, 1500)])
def test_epilogue_with_operands(m, n, k):
    """A bias for columns, a scale for rows, a step in place, a second output that is transposed."""
    rng = np.random.default_rng(0)
    a, b = matrix(rng, "f32", (2,), m, k, "rows"), matrix(rng, "f32", (2,), k, n, "rows")
    bias, scale = rng.standard_normal(n), rng.standard_normal((2, m, 1)).astype(np.float32)
    w = rng.standard_normal((2, m, n)).astype(np.float32)
    turned = np.zeros((2, n, m))
    operands = (
        Operand("w", "f32"),
        Operand("bias", "f64"),
        Operand("scale", "f32", "same"),
        Operand("turned", "f64", "any"),
    )
    lines = (
        f"{operands[3].element} = c + bias[j]",
        "w[j] = w[j] - c * scale[0]",
    )
    exact = a.astype(float) @ b.astype(float)
    expected = w - exact * scale
    launch(
        "f32", a, b, Epilogue(operands, lines),
        [w, np.broadcast_to(bias, w.shape), np.broadcast_to(scale, w.shape), turned.mT],
    )  # fmt: skip
    np.testing.assert_allclose(turned.mT, exact + bias, rtol=1e-4, atol=1e-4 * k**0.5)
    np.testing.assert_allclose(w, expected, rtol=1e-4, atol=1e-4 * k**0.5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1, 3, 7, 33])
def test_rows_of_few_columns_are_masked_vectors(dtype, columns):
    """More columns than a vector holds are slower so, and as right."""
    rng = np.random.default_rng(columns)
    a, b = rng.normal(size=(45, 20)), rng.normal(size=(20, columns))
    out = np.full((45, columns + 2), 7.0, DTYPES[dtype])
    few = Epilogue((OUT[dtype],), ("out[j] = c + c",), few=True)
    launch(dtype, a.astype(DTYPES[dtype]), b.astype(DTYPES[dtype]), few, [out[:, :columns]])
    np.testing.assert_allclose(out[:, :columns], 2 * (a @ b), rtol=1e-4, atol=1e-4)
    assert (out[:, columns:] == 7).all()


def test_epilogue_knows_its_place():
    out = np.zeros((2, 3, 40, 530), np.int64)
    lines = ("out[j] = ((z * 10 + y) * 1000 + i) * 1000 + j0 + j",)
    a, b = np.ones((2, 3, 40, 2), np.float32), np.ones((2, 3, 2, 530), np.float32)
    launch("f32", a, b, Epilogue((Operand("out", "i64"),), lines), [out])
    z, y, i, j = np.indices(out.shape)
    assert np.array_equal(out, ((z * 10 + y) * 1000 + i) * 1000 + j)


def in_python(text):
    """The kernel of a text as a Python function; it may use numbers that it loaded as addresses."""
    names = dict(interpret.python_names())
    for name, function in interpret.python_names().items():
        if name.endswith("_at"):
            names[name] = lambda address, function=function: function(int(address))
    exec(text, names)
    return names["kernel"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_native_epilogue_does_what_its_text_says(dtype):
    rng = np.random.default_rng(0)
    a, b = matrix(rng, dtype, (2,), 14, 9, "rows"), matrix(rng, dtype, (2,), 9, 37, "columns")
    scale = rng.standard_normal((2, 14, 1)).astype(DTYPES[dtype])
    turned = Operand("turned", dtype, "any")
    epilogue = Epilogue(
        (OUT[dtype], Operand("scale", dtype, "same"), turned),
        ("v = c * scale[0]", "out[j] = v", f"{turned.element} = v + c"),
    )
    results = []
    for native_code in (True, False):
        out, other = (np.zeros(s, DTYPES[dtype]) for s in ((2, 14, 37), (2, 37, 14)))
        operands = [out, np.broadcast_to(scale, out.shape), other.mT]
        if native_code:
            launch(dtype, a, b, epilogue, operands)
        else:
            source = product.epilogue_source(dtype, epilogue)
            table, n = table_of(dtype, a, b, epilogue, operands)
            product.core_in_python(dtype, table, 0, n, in_python(source.text))
        results.append((out, other))
    for compiled, interpreted in zip(*results, strict=True):
        np.testing.assert_allclose(compiled, interpreted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("size", "many", "fused"), [(32, False, True), (16, True, True), (16, False, False)]
)
def test_other_registers(monkeypatch, dtype, size, many, fused):
    """What is written for AVX2, NEON and SSE2 computes the same, compiled for this CPU."""
    registers = Registers(dtype, size // np.dtype(DTYPES[dtype]).itemsize, many, fused)
    monkeypatch.setattr(product, "host_registers", lambda _: registers)
    symbol = f"core_{dtype}_{size}_{many}"
    code = llvm.object_code_of_core(product.core_ir(dtype, symbol))
    address = loading.load({symbol: code})[symbol]
    monkeypatch.setattr(cores, "address", lambda _: address)
    rng = np.random.default_rng(0)
    for m, n, k in [*rng.choice(SIZES, (40, 3)), (200, 300, 500), (3, 50, 2000)]:
        for left in ("rows", "columns"):
            for right in ("rows", "columns", "neither"):
                a, b = matrix(rng, dtype, (), m, k, left), matrix(rng, dtype, (), k, n, right)
                check(dtype, a, b, multiply(dtype, a, b))


@pytest.mark.parametrize("dtype", DTYPES)
def test_infinities_and_nan_stay_in_their_rows_and_columns(dtype):
    rng = np.random.default_rng(0)
    a, b = matrix(rng, dtype, (), 30, 20, "rows"), matrix(rng, dtype, (), 20, 45, "rows")
    a[3, 4], b[5, 6] = np.inf, np.nan
    out = multiply(dtype, a, b)
    assert np.isnan(out[:, 6]).all()
    assert np.isinf(np.delete(out, 6, axis=1)[3]).all()
    assert np.isfinite(np.delete(np.delete(out, 6, axis=1), 3, axis=0)).all()


def test_scratch_suffices():
    """Whatever the sizes, panels, sums and strips fit what the core has on its stack."""
    for dtype in DTYPES:
        r = product.host_registers(dtype)
        for k in (0, 1, 31, 784, 1024, 1279, 1280, 1281, 2049, 100_000):
            for n in (1, 31, 300, 5000):
                for m in (1, 5, 100, 3000):
                    for b in ((0, 0, 8, 9999), (0, 0, 9999, r.size)):
                        what = Product(dtype, m, n, k)
                        c = product.cut(what, Array(0, (0, 0, 0, r.size)), Array(0, b))
                        width = -(-c.columns // r.panel) * r.panel
                        rows = 12 if c.depth >= k else c.rows
                        packed = width if c.mode == product.PACKED else r.panel
                        assert packed * c.depth * r.size <= product.PANELS_BYTES
                        assert rows * width * r.size <= product.SUMS_BYTES
                        assert 12 * c.depth * r.size <= product.STRIPS_BYTES
