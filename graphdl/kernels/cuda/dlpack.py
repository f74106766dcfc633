"""DLPack: arrays on a GPU handed from one library to another without a copy.

https://dmlc.github.io/dlpack/latest/c_api.html, version 0.8: a capsule named "dltensor" holds a
DLManagedTensor, whose taker renames it "used_dltensor" and calls its deleter when it is done.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from graphdl.errors import DtypeError
from graphdl.types import BFLOAT16, Dtype, Shape, as_dtype, is_bfloat16

CUDA = 2  # kDLCUDA
_NAME, _USED = b"dltensor", b"used_dltensor"
_CODES = {"i": 0, "u": 1, "f": 2, "c": 5, "b": 6}
_KINDS = {code: kind for kind, code in _CODES.items()}
_BFLOAT = 4  # kDLBfloat


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    pass


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Managed._fields_ = (
    ("tensor", _Tensor),
    ("context", ctypes.c_void_p),
    ("deleter", _Deleter),
)

_api = ctypes.pythonapi
_api.PyCapsule_New.restype = ctypes.py_object
_api.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_api.PyCapsule_GetPointer.restype = ctypes.c_void_p
_api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_api.PyCapsule_SetName.argtypes = [ctypes.py_object, ctypes.c_char_p]

#: What was handed out and not given back: keeps the memory, and the structs that describe it.
_lent: dict[int, tuple[Any, ...]] = {}


@_Deleter  # type: ignore[untyped-decorator]
def _returned(managed: Any) -> None:
    _lent.pop(ctypes.addressof(managed.contents), None)


def capsule_of(owner: Any, address: int, shape: Shape, dtype: Dtype, ordinal: int) -> Any:
    """A capsule for memory that lies row by row; `owner` lives until the taker is done."""
    sizes = (ctypes.c_int64 * max(len(shape), 1))(*shape)
    managed = _Managed()
    tensor = managed.tensor
    tensor.data, tensor.device_type, tensor.device_id = address, CUDA, ordinal
    tensor.code = _BFLOAT if is_bfloat16(dtype) else _CODES[dtype.kind]
    tensor.ndim, tensor.bits = len(shape), 8 * dtype.itemsize
    tensor.lanes, tensor.shape, tensor.strides = 1, sizes, None
    managed.deleter = _returned
    place = ctypes.addressof(managed)
    _lent[place] = (managed, sizes, owner)
    return _api.PyCapsule_New(place, _NAME, None)


class _Taken:
    """Memory of another library, given back with the last reference."""

    def __init__(self, managed: Any) -> None:
        self._managed = managed

    def __del__(self) -> None:
        if self._managed.deleter:
            self._managed.deleter(ctypes.byref(self._managed))


def opened(value: Any) -> tuple[int, Shape, Shape | None, Dtype, int, Any]:
    """Address, shape, strides in elements, dtype, device, and what keeps the memory alive."""
    capsule = value.__dlpack__()
    place = _api.PyCapsule_GetPointer(capsule, _NAME)
    managed = _Managed.from_address(place)
    _api.PyCapsule_SetName(capsule, _USED)
    taken, tensor = _Taken(managed), managed.tensor
    axes = range(tensor.ndim)
    is_bfloat = tensor.code == _BFLOAT and tensor.bits == 16
    kind = "f" if is_bfloat else _KINDS.get(tensor.code)
    if kind is None or tensor.lanes != 1:
        raise DtypeError(
            f"an argument has a DLPack type (code {tensor.code}, {tensor.bits} bits) that graphdl "
            f"does not know"
        )
    dtype = np.dtype(bool) if kind == "b" else np.dtype(f"{kind}{tensor.bits // 8}")
    dtype = as_dtype(BFLOAT16) if is_bfloat else dtype
    shape = tuple(tensor.shape[i] for i in axes)
    strides = tuple(tensor.strides[i] for i in axes) if tensor.strides else None
    address = (tensor.data or 0) + tensor.byte_offset
    return address, shape, strides, dtype, tensor.device_id, taken
