"""Matrix products by NVIDIA's cublasLt, called through ctypes.

A row-major product is a column-major one with its operands exchanged: C' = B' A'. So nothing is
transposed in memory, and a bias along the columns of C is one along the rows of C', which cublasLt
adds as it writes (an epilogue), as it does what follows a layer of a network and its gradient.
https://docs.nvidia.com/cuda/cublas/#using-the-cublaslt-api

Whether its ReLU keeps NaN, as np.maximum does, and what its mask says of zeros, is not documented:
a product tells, the first time that it matters (`relu_is_ours`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from typing import Any, Protocol

import numpy as np
from msgspec import Struct

from graphdl.errors import DeviceError
from graphdl.kernels.cuda.device import INSTALL, Device
from graphdl.kernels.cuda.launch import ACCESS
from graphdl.kernels.cuda.run import Bases, Runner
from graphdl.kernels.program import Launch

#: Bytes that cublasLt may use while it computes; what NVIDIA advises for Hopper.
WORKSPACE = 32 << 20
#: library_types.h: cudaDataType_t.
_TYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14}
#: cublas_api.h: cublasComputeType_t. Halves are multiplied exactly and added up in float32.
_COMPUTE = {"float32": 68, "tf32": 77, "float64": 70}
#: cublasLt.h: cublasLtMatmulDescAttributes_t, cublasLtMatrixLayoutAttribute_t,
#: cublasLtMatmulPreferenceAttributes_t (the alignment of left, right and both results).
_DESC_TRANSA, _DESC_TRANSB, _DESC_EPILOGUE, _DESC_BIAS = 3, 4, 7, 8
_DESC_AUX, _DESC_AUX_LINE = 11, 12
_LAYOUT_BATCH, _LAYOUT_OFFSET = 5, 6
_PREFERENCE_WORKSPACE = 1
_PREFERENCE_ALIGNMENT = (5, 6, 7, 8)
#: cublasLt.h: cublasLtEpilogue_t. "aux" writes the mask of a ReLU, or what a GELU is of; "drelu"
#: reads the mask; "bgrad" adds up the result, "bgrada" the left operand, along their rows: the
#: gradient of a bias.
EPILOGUES: Mapping[str, int] = {
    "default": 1,
    "relu": 2,
    "bias": 4,
    "relu_bias": 6,
    "gelu": 32,
    "gelu_bias": 36,
    "relu_aux": 130,
    "relu_aux_bias": 134,
    "drelu": 136,
    "drelu_bgrad": 152,
    "gelu_aux": 160,
    "gelu_aux_bias": 164,
    "bgrada": 256,
}
#: Bits that a line of a mask is a multiple of.
_MASK_BITS = 128


class Matrix(Struct, frozen=True):
    """A column-major matrix as it lies: its size, how far apart columns and batches are."""

    rows: int
    columns: int
    apart: int
    batch_apart: int = 0
    turned: bool = False


class Plan(Struct, frozen=True):
    """A product as cublasLt is asked for it: D' = op(left) op(right), in column-major order.

    dtype: of the operands. out: of the result and of a bias. compute: float32, tf32 or float64.
    """

    dtype: str
    left: Matrix
    right: Matrix
    result: Matrix
    batch: int = 1
    out: str = ""
    compute: str = "float32"
    epilogue: str = "default"

    @property
    def has_bias(self) -> bool:
        """Whether it reads a bias, or writes the gradient of one."""
        return "bias" in self.epilogue or "bgrad" in self.epilogue

    @property
    def has_mask(self) -> bool:
        """Whether it reads or writes a mask, or writes what a GELU is of."""
        return "aux" in self.epilogue or "drelu" in self.epilogue

    @property
    def mask_line(self) -> int:
        """The bits of a column of the mask; of what a GELU is of, the elements."""
        if "gelu" in self.epilogue:
            return self.result.rows
        return -(-self.result.rows // _MASK_BITS) * _MASK_BITS

    @property
    def mask(self) -> Matrix:
        """The bits of the mask, as a matrix of bytes."""
        line = self.mask_line // 8
        return Matrix(line, self.result.columns, line)


def mask_bytes(plan: Plan) -> int:
    return plan.mask.apart * plan.mask.columns


def plan_of(
    dtype: str, sizes: tuple[int, int, int, int], a: Sequence[int], b: Sequence[int]
) -> Plan | None:
    """The plan of C[y, i, j] = sum of A[y, i, k] B[y, k, j]; None if cublasLt cannot walk them.

    sizes: m, n, k, batch. a: strides along y, i, k. b: strides along y, k, j. C lies row by row.
    """
    m, n, k, batch = sizes
    left = _matrix(n, k, b[2], b[1], b[0])
    right = _matrix(k, m, a[2], a[1], a[0])
    if dtype not in _TYPES or left is None or right is None or not m * n * k * batch:
        return None
    compute = "float64" if dtype == "float64" else "float32"
    return Plan(dtype, left, right, Matrix(n, m, n, m * n), batch, dtype, compute)


def _matrix(rows: int, columns: int, down: int, across: int, batch: int) -> Matrix | None:
    """A matrix with these strides, as it lies or turned."""
    if (down == 1 or rows == 1) and (across >= rows or columns == 1):
        return Matrix(rows, columns, max(across, rows), batch)
    if (across == 1 or columns == 1) and (down >= columns or rows == 1):
        return Matrix(columns, rows, max(down, columns), batch, True)
    return None


class Places(Struct, frozen=True):
    """Addresses of a product; 0 for what it has not."""

    left: int
    right: int
    out: int
    bias: int
    mask: int
    workspace: int


class Library(Protocol):
    """What products need of cublasLt; the tests have a stand-in."""

    @property
    def relu_is_ours(self) -> bool:
        """Whether its ReLU and the mask of it do what np.maximum(x, 0) and x > 0 do."""
        ...

    def prepare(self, plan: Plan) -> Any: ...

    def takes(self, plan: Plan) -> bool: ...

    def multiply(self, prepared: Any, at: Places, stream: int) -> None: ...


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

    plan: Plan
    description: Any
    layouts: tuple[Any, Any, Any]
    found: _Heuristic
    one: Any
    zero: Any


class NativeLibrary:
    """cublasLt of this machine, for a device."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._library = ctypes.CDLL(_path())
        self._handle = ctypes.c_void_p()
        self._call("cublasLtCreate", ctypes.byref(self._handle))
        #: By plan; None for those that cublasLt has no algorithm for.
        self._known: dict[Plan, _Prepared | None] = {}

    def _call(self, name: str, *args: Any) -> None:
        status = getattr(self._library, name)(*args)
        if status:
            raise DeviceError(f"{name} failed with status {status}{_STATUS.get(status, '')}")

    def _set(self, kind: str, place: Any, attribute: int, value: Any) -> None:
        name = f"cublasLt{kind}SetAttribute"
        size = ctypes.c_size_t(ctypes.sizeof(value))
        self._call(name, place, attribute, ctypes.byref(value), size)

    def prepare(self, plan: Plan) -> _Prepared:
        """Descriptors and the algorithm that cublasLt thinks is the fastest."""
        if plan not in self._known:
            self._known[plan] = self._chosen(plan)
        found = self._known[plan]
        if found is None:
            raise DeviceError(f"cublasLt has no algorithm for {plan}")
        return found

    def takes(self, plan: Plan) -> bool:
        """Whether cublasLt has an algorithm for a plan on this device."""
        with self._device.lock:
            self._device.driver.use(self._device.ordinal)
            try:
                self.prepare(plan)
            except DeviceError:
                return False
        return True

    def _chosen(self, plan: Plan) -> _Prepared | None:
        double = plan.compute == "float64"
        description = ctypes.c_void_p()
        self._call(
            "cublasLtMatmulDescCreate", ctypes.byref(description), _COMPUTE[plan.compute],
            _TYPES["float64" if double else "float32"],
        )  # fmt: skip
        for attribute, matrix in ((_DESC_TRANSA, plan.left), (_DESC_TRANSB, plan.right)):
            self._set("MatmulDesc", description, attribute, ctypes.c_int32(matrix.turned))
        epilogue = ctypes.c_int32(EPILOGUES[plan.epilogue])
        self._set("MatmulDesc", description, _DESC_EPILOGUE, epilogue)
        # which algorithms fit depends on the alignment of these addresses; they come later
        if plan.has_bias:
            self._set("MatmulDesc", description, _DESC_BIAS, ctypes.c_uint64(ACCESS))
        if plan.has_mask:
            self._set("MatmulDesc", description, _DESC_AUX, ctypes.c_uint64(ACCESS))
            self._set("MatmulDesc", description, _DESC_AUX_LINE, ctypes.c_int64(plan.mask_line))
        left, right, result = (
            self._layout(dtype, matrix, plan.batch)
            for dtype, matrix in (
                (plan.dtype, plan.left), (plan.dtype, plan.right), (plan.out, plan.result),
            )
        )  # fmt: skip
        preference = ctypes.c_void_p()
        self._call("cublasLtMatmulPreferenceCreate", ctypes.byref(preference))
        size = ctypes.c_uint64(WORKSPACE)
        self._set("MatmulPreference", preference, _PREFERENCE_WORKSPACE, size)
        for attribute in _PREFERENCE_ALIGNMENT:
            self._set("MatmulPreference", preference, attribute, ctypes.c_uint32(ACCESS))
        found, count = _Heuristic(), ctypes.c_int()
        status = self._library.cublasLtMatmulAlgoGetHeuristic(
            self._handle, description, left, right, result, result, preference, 1,
            ctypes.byref(found), ctypes.byref(count),
        )  # fmt: skip
        self._call("cublasLtMatmulPreferenceDestroy", preference)
        if status not in (0, _INVALID_VALUE, _NOT_SUPPORTED):
            raise DeviceError(f"cublasLtMatmulAlgoGetHeuristic failed with status {status}")
        if status or not count.value or found.state:
            return None
        number = ctypes.c_double if double else ctypes.c_float
        return _Prepared(plan, description, (left, right, result), found, number(1), number(0))

    def _layout(self, dtype: str, matrix: Matrix, batch: int) -> Any:
        layout = ctypes.c_void_p()
        self._call(
            "cublasLtMatrixLayoutCreate", ctypes.byref(layout), _TYPES[dtype],
            ctypes.c_uint64(matrix.rows), ctypes.c_uint64(matrix.columns),
            ctypes.c_int64(matrix.apart),
        )  # fmt: skip
        if batch > 1:
            self._set("MatrixLayout", layout, _LAYOUT_BATCH, ctypes.c_int32(batch))
            self._set("MatrixLayout", layout, _LAYOUT_OFFSET, ctypes.c_int64(matrix.batch_apart))
        return layout

    def multiply(self, prepared: _Prepared, at: Places, stream: int) -> None:
        plan, description = prepared.plan, prepared.description
        if plan.has_bias:
            self._set("MatmulDesc", description, _DESC_BIAS, ctypes.c_uint64(at.bias))
        if plan.has_mask:
            self._set("MatmulDesc", description, _DESC_AUX, ctypes.c_uint64(at.mask))
        a, b, c = prepared.layouts
        result = ctypes.c_void_p(at.out)
        self._call(
            "cublasLtMatmul", self._handle, description, ctypes.byref(prepared.one),
            ctypes.c_void_p(at.left), a, ctypes.c_void_p(at.right), b,
            ctypes.byref(prepared.zero), result, c, result, c,
            ctypes.byref(prepared.found.algorithm), ctypes.c_void_p(at.workspace),
            ctypes.c_size_t(WORKSPACE), ctypes.c_void_p(stream),
        )  # fmt: skip

    @cached_property
    def relu_is_ours(self) -> bool:
        """Found out by a small product, the first time that it is asked."""
        return relu_is_ours(self, self._device)


#: cublas_api.h: cublasStatus_t.
_INVALID_VALUE, _NOT_SUPPORTED = 7, 15
_STATUS = {
    1: " (not initialised)",
    3: " (no memory)",
    7: " (an argument is not valid)",
    8: " (the GPU is too old for it)",
    13: " (the GPU did not do it)",
    14: " (an error within cublasLt)",
    15: " (not supported)",
}


def relu_is_ours(library: Library, device: Device) -> bool:
    """Whether a library's ReLU gives NaN for NaN, and its mask lets through what is above 0 only.

    A product with the unit matrix says so: its rows are NaN, zeros, and numbers of both signs.
    """
    n = 16
    square = Matrix(n, n, n)
    forward = Plan("float32", square, square, square, 1, "float32", "float32", "relu_aux")
    backward = Plan("float32", square, square, square, 1, "float32", "float32", "drelu")
    if not (library.takes(forward) and library.takes(backward)):
        return False
    given = np.repeat(np.array([np.nan, 0.0, -0.0, 2.0, -2.0, 1.0, -1.0, 0.5] * 2, np.float32), n)
    given = np.ascontiguousarray(given.reshape(n, n).T)  # column-major: these are rows of D'
    hosts = [given, np.eye(n, dtype=np.float32), np.ones((n, n), np.float32)]
    sizes = [*(host.nbytes for host in hosts), given.nbytes, mask_bytes(forward), WORKSPACE]
    driver = device.driver
    with device.lock:
        device.use()
        x, unit, ones, out, mask, workspace = places = [device.allocate(size) for size in sizes]
        for place, host in zip(places, hosts, strict=False):
            driver.to_device(place, host.ctypes.data, host.nbytes, device.stream)
        results = []
        for plan, left in ((forward, x), (backward, ones)):
            at = Places(left, unit, out, 0, mask, workspace)
            library.multiply(library.prepare(plan), at, device.stream)
            host = np.empty_like(given)
            driver.to_host(host.ctypes.data, out, host.nbytes, device.stream)
            driver.wait(device.stream)
            results.append(host)
        for place, size in zip(places, sizes, strict=True):
            device.give_back(place, size)
    wanted = np.maximum(given, 0), (given > 0).astype(np.float32)
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(results, wanted, strict=True))


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
        return NativeLibrary(device)
    except (DeviceError, OSError):  # not installed, or a file that this system cannot load
        return None


class ProductCall(Launch, frozen=True, eq=False, kw_only=True):
    """A product by the library: its words are those of `Places`, in order."""

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
        self._library.multiply(self._prepared, Places(*words), stream)


PRODUCT_STEPS: Mapping[str, Any] = {"cublaslt": ProductStep}
