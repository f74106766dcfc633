"""What a value in a graph is: a dtype and a static shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Struct

from graphdl.errors import DtypeError, ShapeError

Dtype = np.dtype[Any]
Shape = tuple[int, ...]

#: The dtypes that a graph holds, but for the complex ones and those of 16 bits.
DTYPES: tuple[Dtype, ...] = tuple(
    np.dtype(name)
    for name in (
        "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
        "float32", "float64",
    )
)  # fmt: skip

#: Complex dtypes: the compiler makes pairs of floats of them before there are kernels.
COMPLEX: tuple[Dtype, ...] = (np.dtype(np.complex64), np.dtype(np.complex128))

#: Floats of 16 bits: they are stored so, and computed with as float32 (graphdl.compiler.halves).
FLOAT16: Dtype = np.dtype(np.float16)
#: The name of the other one, whose dtype is of the package ml_dtypes.
BFLOAT16 = "bfloat16"

_SUPPORTED = {dtype: dtype for dtype in (*DTYPES, FLOAT16, *COMPLEX)}


def as_dtype(dtype: Any) -> Dtype:
    """The native dtype that `dtype` names; refuses those that a graph cannot hold."""
    wanted = _bfloat16() if isinstance(dtype, str) and dtype == BFLOAT16 else np.dtype(dtype)
    native = wanted.newbyteorder("=") if wanted.byteorder in "<>" else wanted
    try:
        return _SUPPORTED[native]
    except KeyError:
        if is_bfloat16(native):
            return native
        raise DtypeError(
            f"dtype {wanted} is not supported in a graph; cast to one of "
            f"{', '.join(map(str, _SUPPORTED))}, {BFLOAT16} first"
        ) from None


def _bfloat16() -> Dtype:
    """ml_dtypes.bfloat16: the package is optional, and who has an array of it has imported it."""
    try:
        import ml_dtypes
    except ImportError:
        raise DtypeError(
            "bfloat16 is a dtype of the package ml_dtypes: python -m pip install ml_dtypes"
        ) from None
    found: Dtype = np.dtype(ml_dtypes.bfloat16)
    return found


def is_bfloat16(dtype: Dtype) -> bool:
    return dtype.kind == "V" and dtype.name == BFLOAT16


def is_half(dtype: Dtype) -> bool:
    """Whether numbers of a dtype are floats of 16 bits."""
    return dtype == FLOAT16 or is_bfloat16(dtype)


def kind_of(dtype: Dtype) -> str:
    """NumPy's letter for the kind of a dtype; bfloat16, which NumPy does not know, is a float."""
    return "f" if dtype.kind == "V" and is_bfloat16(dtype) else dtype.kind


def like_float16(dtypes: Sequence[Any]) -> tuple[list[Any], Dtype | None]:
    """The dtypes with float16 in the place of bfloat16, and bfloat16 if it was among them.

    NumPy knows no rules for bfloat16, so that it is given those of the other float of 16 bits,
    which ml_dtypes has too, except that a Python number leaves a half what it is (NEP 50).
    Raises DtypeError where both meet, neither of which holds the other's numbers.
    """
    half = next((d for d in dtypes if isinstance(d, np.dtype) and is_bfloat16(d)), None)
    if half is None:
        return list(dtypes), None
    if FLOAT16 in dtypes:
        raise DtypeError(
            "float16 and bfloat16 have no dtype in common: cast one of them, as in "
            "x.astype(np.float32)"
        )
    return [FLOAT16 if d == half else d for d in dtypes], half


def result_type(*values: Any) -> Dtype:
    """np.result_type, with bfloat16 among the dtypes."""
    dtypes, half = like_float16(values)
    found = np.result_type(*dtypes)
    return half if half is not None and found == FLOAT16 else found


def finfo(dtype: Dtype) -> Any:
    """np.finfo, of bfloat16 too."""
    if not is_bfloat16(dtype):
        return np.finfo(dtype)
    import ml_dtypes  # there is such a dtype, so that it is loaded

    return ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]


class TensorType(Struct, frozen=True):
    """The dtype and the static shape of a value."""

    dtype: Dtype
    shape: Shape

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def is_float(self) -> bool:
        return kind_of(self.dtype) == "f"

    @property
    def is_complex(self) -> bool:
        return self.dtype.kind == "c"

    @property
    def is_inexact(self) -> bool:
        """Floats and complex numbers: what has gradients."""
        return kind_of(self.dtype) in "fc"

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


def spec(shape: int | Shape, dtype: Any = np.float64) -> TensorType:
    """Describe an array without its values, to trace with.

    Raises ShapeError for a negative size, DtypeError for a dtype that a graph does not hold.

    >>> import graphdl as gd
    >>> gd.spec((3, 4), "float32")
    TensorType(dtype=dtype('float32'), shape=(3, 4))
    """
    sizes = (shape,) if isinstance(shape, int) else tuple(int(n) for n in shape)
    if any(n < 0 for n in sizes):
        raise ShapeError(f"gd.spec: shape {sizes} has a negative size")
    return TensorType(as_dtype(dtype), sizes)


def contiguous_strides(shape: Shape) -> Shape:
    """Row-major strides of `shape`, counted in elements."""
    strides = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def reshaped_strides(old: Shape, strides: Shape, new: Shape) -> Shape | None:
    """The strides of `new` over the memory of `old` in the same order, if there are any."""
    if 0 in old:
        return contiguous_strides(new)
    # runs of axes that lie in memory as one
    sizes: list[int] = []
    steps: list[int] = []
    for size, stride in zip(old, strides, strict=True):
        if size == 1:
            continue
        if sizes and steps[-1] == size * stride:
            sizes[-1] *= size
            steps[-1] = stride
        else:
            sizes.append(size)
            steps.append(stride)
    result: list[int] = []
    run = len(sizes) - 1
    left = sizes[run] if sizes else 1
    step = steps[run] if sizes else 1
    for size in reversed(new):
        if left == 1 and size != 1:
            run -= 1
            left, step = sizes[run], steps[run]
        if left % size:
            return None
        result.append(step)
        step *= size
        left //= size
    return tuple(reversed(result))
