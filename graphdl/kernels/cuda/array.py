"""Arrays on a GPU: what functions compiled for it take and give.

They share memory with PyTorch, CuPy and Numba by `__cuda_array_interface__`, and with all that
speak DLPack, in both directions without a copy.
https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphdl.errors import ArgumentError, DeviceError
from graphdl.kernels.cuda import dlpack
from graphdl.kernels.cuda.device import Device
from graphdl.kernels.cuda.launch import ACCESS
from graphdl.types import BFLOAT16, Dtype, Shape, as_dtype, contiguous_strides

#: The default stream by the numbers of `__cuda_array_interface__`.
_LEGACY_STREAM = 1


class Array:
    """An array in the memory of a GPU, row by row.

    shape, dtype, ndim, size, nbytes: as NumPy's. device: where it lies. `np.asarray(x)` copies it
    to the host and waits for it. It takes no part in NumPy's arithmetic: functions compiled for
    the GPU compute with it.

    >>> import numpy as np, graphdl as gd
    >>> x = gd.device_put(np.arange(3.0))  # doctest: +SKIP
    >>> gd.compile(np.sum, target="cuda")(x).item()  # doctest: +SKIP
    3.0
    """

    def __init__(
        self,
        device: Device,
        shape: Shape,
        dtype: Dtype,
        address: int | None = None,
        owner: Any = None,
    ) -> None:
        self.device, self.shape, self.dtype = device, tuple(shape), np.dtype(dtype)
        self._owner = owner
        self._address: int | None = device.allocate(self.nbytes) if address is None else address
        self._own = address is None

    def __del__(self) -> None:
        if getattr(self, "_own", False) and self._address is not None:
            self.device.give_back(self._address, self.nbytes)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def address(self) -> int:
        """Where it lies. ArgumentError if its memory was donated to a result."""
        if self._address is None:
            raise ArgumentError(
                f"this array ({self.dtype}{list(self.shape)}) was donated: its memory holds a "
                f"result now; keep that instead"
            )
        return self._address

    @property
    def is_own(self) -> bool:
        """Whether its memory is no other library's."""
        return self._own

    def copy(self) -> Array:
        """The same values in memory of their own."""
        made, device = Array(self.device, self.shape, self.dtype), self.device
        device.copy(made.address, self.address, self.nbytes)
        return made

    def donate(self) -> Array:
        """An array in the same memory, which this one no longer names."""
        made = Array(self.device, self.shape, self.dtype, self.address, self._owner)
        made._own, self._own = self._own, False
        self._address = None
        return made

    # --- to the host --------------------------------------------------------------------------

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("an array on a GPU is copied to become a NumPy array")
        host = np.empty(self.shape, self.dtype)
        device = self.device
        with device.lock:
            device.use()
            if self.nbytes:
                device.driver.to_host(host.ctypes.data, self.address, self.nbytes, device.stream)
            device.driver.wait(device.stream)
        return host if dtype is None else host.astype(dtype, copy=False)

    def item(self) -> Any:
        """The one number of the array."""
        return np.asarray(self).item()

    def __float__(self) -> float:
        return float(np.asarray(self))

    def __int__(self) -> int:
        return int(np.asarray(self))

    def __bool__(self) -> bool:
        return bool(np.asarray(self))

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of an array without axes")
        return self.shape[0]

    def __repr__(self) -> str:
        return f"Array({np.array2string(np.asarray(self))}, dtype={self.dtype}, {self.device!r})"

    # --- to others on the device --------------------------------------------------------------

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "version": 3,
            "strides": None,
            "stream": self.device.stream or _LEGACY_STREAM,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, self.device.ordinal

    def __dlpack__(self, **options: Any) -> Any:
        """A capsule that shares this memory and keeps it alive; see the array API standard."""
        return dlpack.capsule_of(self, self.address, self.shape, self.dtype, self.device.ordinal)


def from_host(device: Device, value: Any) -> Array:
    """A copy of a host array on the device."""
    host = np.ascontiguousarray(value)
    host = host.reshape(np.shape(value))
    made = Array(device, host.shape, host.dtype)
    if made.nbytes:
        with device.lock:
            device.use()
            device.driver.to_device(made.address, host.ctypes.data, made.nbytes, device.stream)
            device.driver.wait(device.stream)
    return made


def is_on_a_device(value: Any) -> bool:
    """Whether a value is an array in the memory of a GPU."""
    if isinstance(value, Array) or hasattr(value, "__cuda_array_interface__"):
        return True
    return hasattr(value, "__dlpack_device__") and value.__dlpack_device__()[0] == dlpack.CUDA


def _check_place(device: Device, ordinal: int | None) -> None:
    """DeviceError for memory that lies elsewhere than on the device."""
    if ordinal is None:
        raise DeviceError(
            "an argument has a __cuda_array_interface__ whose address is no memory of a GPU"
        )
    if ordinal != device.ordinal:
        raise DeviceError(
            f"an argument lies on cuda:{ordinal}, the function runs on {device!r}: move it to "
            f"{device!r}, or compile the function with target='cuda:{ordinal}'"
        )


def on_device(device: Device, value: Any) -> Array | None:
    """An array of anybody's on the device, without a copy; None if it lies on the host.

    Raises DeviceError for memory of another GPU. What does not lie row by row, or starts at an
    address that is not a multiple of 16, is copied on the device.
    """
    if isinstance(value, Array):
        if value.device is not device:
            raise DeviceError(
                f"an argument lies on {value.device!r}, the function runs on {device!r}: move it "
                f"with gd.device_put(x, '{device!r}')"
            )
        return value
    shared = getattr(value, "__cuda_array_interface__", None)
    if shared is not None:
        address = int(shared["data"][0])
        text = shared["typestr"]  # two bytes of anything: bfloat16, as ml_dtypes and PyTorch say it
        dtype, shape = as_dtype(BFLOAT16 if text == "<V2" else text), tuple(shared["shape"])
        strides = shared.get("strides")
        if strides is not None:
            strides = tuple(step // dtype.itemsize for step in strides)
        if math.prod(shape):
            _check_place(device, device.driver.ordinal_of_memory(address))
    elif hasattr(value, "__dlpack__") and value.__dlpack_device__()[0] == dlpack.CUDA:
        address, shape, strides, dtype, ordinal, value = dlpack.opened(value)
        _check_place(device, ordinal)
    else:
        return None
    if strides is not None and strides != contiguous_strides(shape) and math.prod(shape) > 1:
        raise ArgumentError(
            f"an argument of shape {shape} does not lie in memory row by row (strides {strides}, "
            f"in elements); make it contiguous first"
        )
    if address % ACCESS == 0:
        return Array(device, shape, dtype, address, value)
    made = Array(device, shape, dtype)
    device.copy(made.address, address, made.nbytes)
    return made
