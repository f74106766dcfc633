"""What a value in a graph is: a dtype and a static shape."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from msgspec import Struct

from graphdl.errors import DtypeError, ShapeError

Dtype = np.dtype[Any]
Shape = tuple[int, ...]

#: The dtypes that a graph holds, but for the complex ones. float16 is not among them yet.
DTYPES: tuple[Dtype, ...] = tuple(
    np.dtype(name)
    for name in (
        "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
        "float32", "float64",
    )
)  # fmt: skip

#: Complex dtypes: the compiler makes pairs of floats of them before there are kernels.
COMPLEX: tuple[Dtype, ...] = (np.dtype(np.complex64), np.dtype(np.complex128))

_SUPPORTED = {dtype: dtype for dtype in (*DTYPES, *COMPLEX)}


def as_dtype(dtype: Any) -> Dtype:
    """The native dtype that `dtype` names; refuses those that a graph cannot hold."""
    wanted = np.dtype(dtype)
    native = wanted.newbyteorder("=") if wanted.byteorder in "<>" else wanted
    try:
        return _SUPPORTED[native]
    except KeyError:
        raise DtypeError(
            f"dtype {wanted} is not supported in a graph; cast to one of "
            f"{', '.join(map(str, _SUPPORTED))} first"
        ) from None


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
        return self.dtype.kind == "f"

    @property
    def is_complex(self) -> bool:
        return self.dtype.kind == "c"

    @property
    def is_inexact(self) -> bool:
        """Floats and complex numbers: what has gradients."""
        return self.dtype.kind in "fc"

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
