"""Matrix products by NVIDIA's cublasLt, called through ctypes.

A row-major product is a column-major one with its operands exchanged: C' = B' A'. So nothing is
transposed in memory, and a bias along the columns of C is one along the rows of C', which cublasLt
adds as it writes (an epilogue).
https://docs.nvidia.com/cuda/cublas/#using-the-cublaslt-api

Its ReLU epilogues are not used: whether they keep NaN, as np.maximum does, is not documented.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Protocol

from msgspec import Struct

from graphdl.errors import DeviceError
from graphdl.kernels.cuda.device import INSTALL, Device
from graphdl.kernels.cuda.launch import ACCESS
from graphdl.kernels.cuda.run import Bases, Runner
from graphdl.kernels.program import Launch

#: Bytes that cublasLt may use while it computes; what NVIDIA advises for Hopper.
WORKSPACE = 32 << 20
#: library_types.h, cublas_api.h, cublasLt.h.
_TYPES = {"float32": 0, "float64": 1}
_COMPUTE = {"float32": 68, "float64": 70}
_DESC_TRANSA, _DESC_TRANSB, _DESC_EPILOGUE, _DESC_BIAS = 3, 4, 7, 8
_LAYOUT_BATCH, _LAYOUT_OFFSET = 5, 6
_PREFERENCE_WORKSPACE = 1
#: The alignment in bytes of the left, right and both results, in this order.
_PREFERENCE_ALIGNMENT = (5, 6, 7, 8)
_EPILOGUE_BIAS = 4


class Matrix(Struct, frozen=True):
    """A column-major matrix as it lies: its size, how far apart columns and batches are."""

    rows: int
    columns: int
    apart: int
    batch_apart: int = 0
    turned: bool = False


class Plan(Struct, frozen=True):
    """A product as cublasLt is asked for it: D' = op(left) op(right), in column-major order."""

    dtype: str
    left: Matrix
    right: Matrix
    result: Matrix
    batch: int = 1
    bias: bool = False


def plan_of(
    dtype: str,
    sizes: tuple[int, int, int, int],
    a: Sequence[int],
    b: Sequence[int],
    bias: bool,
) -> Plan | None:
    """The plan of C[y, i, j] = sum of A[y, i, k] B[y, k, j]; None if cublasLt cannot walk them.

    sizes: m, n, k, batch. a: strides along y, i, k. b: strides along y, k, j. C lies row by row.
    """
    m, n, k, batch = sizes
    left = _matrix(n, k, b[2], b[1], b[0])
    right = _matrix(k, m, a[2], a[1], a[0])
    if dtype not in _TYPES or left is None or right is None or not m * n * k * batch:
        return None
    return Plan(dtype, left, right, Matrix(n, m, n, m * n), batch, bias)


def _matrix(rows: int, columns: int, down: int, across: int, batch: int) -> Matrix | None:
    """A matrix with these strides, as it lies or turned."""
    if (down == 1 or rows == 1) and (across >= rows or columns == 1):
        return Matrix(rows, columns, max(across, rows), batch)
    if (across == 1 or columns == 1) and (down >= columns or rows == 1):
        return Matrix(columns, rows, max(down, columns), batch, True)
    return None


class Library(Protocol):
    """What products need of cublasLt; the tests have a stand-in."""

    def prepare(self, plan: Plan) -> Any: ...

    def multiply(
        self, prepared: Any, left: int, right: int, out: int, bias: int, workspace: int, stream: int
    ) -> None: ...


class _Heuristic(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t."""

    _fields_ = (
        ("algorithm", ctypes.c_uint64 * 8),
        ("workspace", ctypes.c_size_t),
        ("state", ctypes.c_int),
        ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    )


class _Prepared(Struct):
    """The descriptors of a plan, and the algorithm that was chosen for it."""

    description: Any
    layouts: tuple[Any, Any, Any]
    found: _Heuristic
    one: Any
    zero: Any
    bias: bool


class NativeLibrary:
    """cublasLt of this machine, for the current device."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(_path())
        self._handle = ctypes.c_void_p()
        self._call("cublasLtCreate", ctypes.byref(self._handle))

    def _call(self, name: str, *args: Any) -> None:
        status = getattr(self._library, name)(*args)
        if status:
            raise DeviceError(f"{name} failed with status {status}")

    def _set(self, kind: str, place: Any, attribute: int, value: Any) -> None:
        name = f"cublasLt{kind}SetAttribute"
        self._call(name, place, attribute, ctypes.byref(value), ctypes.sizeof(value))

    def prepare(self, plan: Plan) -> _Prepared:
        """Descriptors and the algorithm that cublasLt thinks is the fastest."""
        kind, description = _TYPES[plan.dtype], ctypes.c_void_p()
        compute = _COMPUTE[plan.dtype]
        self._call("cublasLtMatmulDescCreate", ctypes.byref(description), compute, kind)
        for attribute, matrix in ((_DESC_TRANSA, plan.left), (_DESC_TRANSB, plan.right)):
            self._set("MatmulDesc", description, attribute, ctypes.c_int32(matrix.turned))
        if plan.bias:
            epilogue = ctypes.c_int32(_EPILOGUE_BIAS)
            self._set("MatmulDesc", description, _DESC_EPILOGUE, epilogue)
        left, right, result = (
            self._layout(kind, matrix, plan.batch)
            for matrix in (plan.left, plan.right, plan.result)
        )
        preference = ctypes.c_void_p()
        self._call("cublasLtMatmulPreferenceCreate", ctypes.byref(preference))
        size = ctypes.c_uint64(WORKSPACE)
        self._set("MatmulPreference", preference, _PREFERENCE_WORKSPACE, size)
        for attribute in _PREFERENCE_ALIGNMENT:
            self._set("MatmulPreference", preference, attribute, ctypes.c_uint32(ACCESS))
        found, count = _Heuristic(), ctypes.c_int()
        self._call(
            "cublasLtMatmulAlgoGetHeuristic", self._handle, description, left, right, result,
            result, preference, 1, ctypes.byref(found), ctypes.byref(count),
        )  # fmt: skip
        self._call("cublasLtMatmulPreferenceDestroy", preference)
        if not count.value:
            raise DeviceError(f"cublasLt has no algorithm for {plan}")
        number = ctypes.c_float if plan.dtype == "float32" else ctypes.c_double
        return _Prepared(description, (left, right, result), found, number(1), number(0), plan.bias)

    def _layout(self, kind: int, matrix: Matrix, batch: int) -> Any:
        layout = ctypes.c_void_p()
        self._call(
            "cublasLtMatrixLayoutCreate", ctypes.byref(layout), kind,
            ctypes.c_uint64(matrix.rows), ctypes.c_uint64(matrix.columns),
            ctypes.c_int64(matrix.apart),
        )  # fmt: skip
        if batch > 1:
            self._set("MatrixLayout", layout, _LAYOUT_BATCH, ctypes.c_int32(batch))
            self._set("MatrixLayout", layout, _LAYOUT_OFFSET, ctypes.c_int64(matrix.batch_apart))
        return layout

    def multiply(
        self,
        prepared: _Prepared,
        left: int,
        right: int,
        out: int,
        bias: int,
        workspace: int,
        stream: int,
    ) -> None:
        if prepared.bias:
            place = ctypes.c_uint64(bias)
            self._set("MatmulDesc", prepared.description, _DESC_BIAS, place)
        a, b, c = prepared.layouts
        result = ctypes.c_void_p(out)
        self._call(
            "cublasLtMatmul", self._handle, prepared.description, ctypes.byref(prepared.one),
            ctypes.c_void_p(left), a, ctypes.c_void_p(right), b, ctypes.byref(prepared.zero),
            result, c, result, c, ctypes.byref(prepared.found.algorithm),
            ctypes.c_void_p(workspace), ctypes.c_size_t(WORKSPACE), ctypes.c_void_p(stream),
        )  # fmt: skip


def _path() -> str:
    """Where cublasLt lies. DeviceError where it is not installed."""
    try:
        # imported here: of the CUDA extra, and warm programs without products do without it
        from cuda.pathfinder import DynamicLibNotFoundError, load_nvidia_dynamic_lib
    except ImportError as error:
        raise DeviceError(f"cublasLt was not found: {error}; {INSTALL}") from error
    try:
        return str(load_nvidia_dynamic_lib("cublasLt").abs_path)
    except DynamicLibNotFoundError as error:
        raise DeviceError(f"cublasLt was not found: {error}; {INSTALL}") from error


@cache
def library_of(device: Device) -> Library | None:
    """The library for a device, None where it is not installed: then products are our kernels."""
    try:
        device.driver.use(device.ordinal)
        return NativeLibrary()
    except (DeviceError, OSError):  # not installed, or a file that this system cannot load
        return None


class ProductCall(Launch, frozen=True, eq=False, kw_only=True):
    """A product by the library: its words are left, right, result, bias and workspace."""

    plan: Plan


class ProductStep:
    """A product with addresses."""

    steps = 1
    bodies: Sequence[Runner] = ()

    def __init__(self, runner: Runner, launch: Launch) -> None:
        assert isinstance(launch, ProductCall)
        library = runner.device.products
        assert library is not None, "the program was made where cublasLt is"
        self._library: Library = library
        self._prepared = library.prepare(launch.plan)
        self._words, self._leaves = runner.resolved(launch.words)

    def run(self, bases: Bases, stream: int) -> None:
        words = list(self._words)
        for slot, leaf in self._leaves.items():
            words[slot] += bases[leaf]
        left, right, out, bias, workspace = words
        self._library.multiply(self._prepared, left, right, out, bias, workspace, stream)


PRODUCT_STEPS: Mapping[str, Any] = {"cublaslt": ProductStep}
