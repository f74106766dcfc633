"""The text of a kernel run as ordinary Python, over real memory: what the native code must do.

The intrinsics are replaced by stand-ins over NumPy. Where the caller names the arrays that the
kernel may touch, an access outside them raises IndexError; without, it is undefined as in native
code.
"""

from __future__ import annotations

import ctypes
import linecache
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphdl.kernels.scalar_table import SCALARS
from graphdl.kernels.source import KernelSource
from graphdl.kernels.suffixes import SUFFIXES
from graphdl.kernels.user import RAISED_BY, called_in

DTYPES = {suffix: np.dtype(dtype).type for suffix, dtype in SUFFIXES.items()}


def run_as_python(
    source: KernelSource,
    table: NDArray[np.int64],
    lo: int,
    hi: int,
    arrays: Sequence[NDArray[Any]] | None = None,
) -> None:
    """Run iterations lo to hi of a kernel by the Python interpreter.

    `arrays`, contiguous, are all the memory that the kernel may touch beyond its table; without
    them no access is checked.
    """
    filename = f"<graphdl kernel {source.name}>"
    lines = source.text.splitlines(keepends=True)
    linecache.cache[filename] = (len(source.text), None, lines, filename)
    namespace: dict[str, Any] = {**python_names(arrays), **_users(source.text)}
    exec(compile(source.text, filename, "exec"), namespace)
    with np.errstate(all="ignore"):  # native code does not warn of overflow or NaN either
        namespace["kernel"]([int(value) for value in table], lo, hi)


def python_names(arrays: Sequence[NDArray[Any]] | None = None) -> Mapping[str, Any]:
    """The stand-ins of all names that the text of a kernel may use."""
    names: dict[str, Any] = {
        "inf": math.inf,
        "nan": math.nan,
        "call": _call,
        "lanes": range,
        "few_lanes": range,
        "prefetch": lambda address: None,
        "min_i64": min,
        "max_i64": max,
        **{name: scalar.python for name, scalar in SCALARS.items()},
    }
    for suffix, dtype in DTYPES.items():
        names[suffix] = dtype
        names[f"{suffix}_at"] = pointer_maker(np.dtype(dtype), arrays)
        names[f"{suffix}_scratch"] = _scratch_maker(np.dtype(dtype))
        names[f"{suffix}_to_lanes"] = _to_lanes
        names[f"{suffix}_from_lanes"] = _from_lanes
    return names


class _Memory:
    """Memory at an address, as NumPy's array interface describes it."""

    def __init__(self, address: int, dtype: np.dtype[Any], size: int) -> None:
        self.__array_interface__ = {
            "data": (int(address), False),
            "shape": (size,),
            "typestr": dtype.str,
            "version": 3,
        }


class _Pointer:
    """`view[first]` is what the pointer points at; nothing outside the view may be touched."""

    def __init__(self, view: NDArray[Any], first: int) -> None:
        self.view, self.first = view, first

    def _place(self, index: int) -> int:
        place = self.first + int(index)
        if not 0 <= place < self.view.size:
            raise IndexError(f"element {place} of an array of {self.view.size}")
        return place

    @property
    def address(self) -> int:
        return int(self.view.ctypes.data) + self.first * self.view.itemsize

    def __getitem__(self, index: int) -> Any:
        return self.view[self._place(index)]

    def __setitem__(self, index: int, value: Any) -> None:
        self.view[self._place(index)] = value


# Larger than any array, small enough that NumPy accepts it as a size in bytes.
_UNBOUNDED = 1 << 40


def _users(text: str) -> dict[str, Any]:
    """The user's own functions that a text calls, as Python calls them."""
    functions = {user.symbol: user.function.py_func for user in called_in(text)}
    return functions | {
        f"{RAISED_BY}{symbol}": partial(_raises, f) for symbol, f in functions.items()
    }


def _raises(function: Callable[..., Any], *operands: Any) -> bool:
    try:
        function(*operands)
    except Exception:
        return True
    return False


def pointer_maker(
    dtype: np.dtype[Any], arrays: Sequence[NDArray[Any]] | None
) -> Callable[[int], _Pointer]:
    """What makes pointers to this dtype of addresses, each within one of `arrays` where given."""
    if arrays is None:
        return lambda address: _Pointer(np.asarray(_Memory(address, dtype, _UNBOUNDED)), 0)
    # Every thread of a device asks for its pointers, and NumPy takes longer to say where an array
    # lies than a thread takes for the rest: so each is asked once.
    places: list[tuple[int, int]] = []
    views: dict[int, NDArray[Any]] = {}

    def at(address: int) -> _Pointer:
        if not places:
            places.extend((array.ctypes.data, array.nbytes) for array in arrays)
        for i, (start, size) in enumerate(places):
            offset = address - start
            if 0 <= offset < max(size, 1):
                if i not in views:
                    views[i] = np.asarray(_Memory(start, dtype, size // dtype.itemsize))
                return _Pointer(views[i], offset // dtype.itemsize)
        raise IndexError(f"address {address:#x} is in none of the {len(arrays)} arrays")

    return at


def _scratch_maker(dtype: np.dtype[Any]) -> Callable[[int], _Pointer]:
    return lambda size: _Pointer(np.empty(size, dtype), 0)


def _to_lanes(
    tile: _Pointer, lanes: int, rows: _Pointer, stride: int, count: int, size: int
) -> None:
    for j, i in product(range(count), range(size)):
        tile[i * lanes + j] = rows[j * stride + i]


def _from_lanes(
    tile: _Pointer, lanes: int, rows: _Pointer, stride: int, count: int, size: int
) -> None:
    for j, i in product(range(count), range(size)):
        rows[j * stride + i] = tile[i * lanes + j]


def _call(routine: int, *args: Any) -> None:
    """Call a Fortran subroutine: pointers as they are, numbers by the address of a copy."""
    boxes = [
        arg if isinstance(arg, _Pointer) else np.array(arg, None if _is_float(arg) else np.int64)
        for arg in args
    ]
    places = [box.address if isinstance(box, _Pointer) else box.ctypes.data for box in boxes]
    ctypes.CFUNCTYPE(None, *(ctypes.c_void_p,) * len(places))(routine)(*places)


def _is_float(number: Any) -> bool:
    return isinstance(number, float | np.floating)
