"""BLAS and LAPACK by address: the routines of the library that NumPy or SciPy brings; its threads.

NumPy's wheels carry OpenBLAS, which is in memory as soon as NumPy is; its symbols have a prefix
and, where they take 64-bit integers, a suffix (`scipy_sgemm_64_`). Elsewhere (Accelerate, MKL,
conda) `scipy.linalg.cython_blas` and `cython_lapack` publish the addresses of what SciPy was built
with, which take 32-bit integers. All are Fortran routines: column-major matrices, every argument by
address.

Programs call BLAS from their own threads, on tiles; so the library itself must not start threads
meanwhile. `one_thread` sees to that and gives the user's setting back.
"""

from __future__ import annotations

import ctypes
import glob
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

#: What programs use of BLAS and of LAPACK, for float32 and float64, complex64 and complex128.
BLAS_ROUTINES = tuple(
    kind + name for name in ("gemm", "gemv", "ger", "syrk", "trsm") for kind in "sd"
)
LAPACK_ROUTINES = tuple(
    kind + name
    for name in (
        "potrf",
        "getrf",
        "gesv",
        "geqrf",
        "orgqr",
        "syevd",
        "gesdd",
        "geev",
        "gees",
        "trsyl",
        "gbsv",
    )
    for kind in "sd"
)
COMPLEX_ROUTINES = tuple(
    kind + name
    for name in (
        "gemm",
        "trsm",
        "potrf",
        "getrf",
        "gesv",
        "geqrf",
        "ungqr",
        "heevd",
        "gesdd",
        "geev",
    )
    for kind in "cz"
)
ROUTINES = BLAS_ROUTINES + LAPACK_ROUTINES + COMPLEX_ROUTINES


class Blas(Struct, frozen=True):
    """A BLAS in memory.

    addresses: of the Fortran routines in `ROUTINES`. integer_bits: of their integer arguments.
    get_threads, set_threads: addresses of C functions `int get(void)` and `void set(int)`, or 0
    where the library has none. source: the file or module that it comes from.
    """

    addresses: dict[str, int]
    integer_bits: int
    get_threads: int
    set_threads: int
    source: str


@cache
def library() -> Blas:
    """The BLAS of this process. Raises RuntimeError where there is none."""
    found = _numpy_openblas() or _scipy_blas()
    if found is None:
        raise RuntimeError("neither NumPy nor SciPy gives addresses of BLAS and LAPACK routines")
    return found


def _numpy_openblas() -> Blas | None:
    root = os.path.dirname(np.__file__)
    for folder in (root + ".libs", os.path.join(root, ".dylibs")):
        for path in sorted(glob.glob(os.path.join(glob.escape(folder), "*openblas*"))):
            found = _openblas(path)
            if found is not None:
                return found
    return None


def _openblas(path: str) -> Blas | None:
    """OpenBLAS in the file, if NumPy has loaded it, under any of the names of its symbols."""
    if not _is_loaded(path):
        return None
    try:
        library_ = ctypes.CDLL(path)
    except OSError:
        return None
    for prefix in ("scipy_", ""):
        for suffix in ("64_", ""):
            names = {name: f"{prefix}{name}_{suffix}" for name in ROUTINES}
            addresses = {name: _address(library_, symbol) for name, symbol in names.items()}
            if not all(addresses.values()):
                continue
            threads = [
                _address(library_, f"{prefix}openblas_{verb}_num_threads{suffix}")
                for verb in ("get", "set")
            ]
            if all(threads):
                return Blas(addresses, 64 if suffix else 32, threads[0], threads[1], path)
    return None


def _is_loaded(path: str) -> bool:
    """Whether the file is in memory, as far as can be told; a second copy would be no use."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
            return any(line.rstrip("\n").endswith(os.path.realpath(path)) for line in file)
    except OSError:
        return True


def _address(library_: ctypes.CDLL, symbol: str) -> int:
    try:
        return ctypes.cast(library_[symbol], ctypes.c_void_p).value or 0
    except (AttributeError, KeyError):
        return 0


def _scipy_blas() -> Blas | None:
    """What SciPy was built with; its threads too, if it is an OpenBLAS in a file."""
    try:
        from scipy.linalg import cython_blas, cython_lapack
    except ImportError:
        return None
    capsules = {**cython_blas.__pyx_capi__, **cython_lapack.__pyx_capi__}
    addresses = {name: _capsule_address(capsules[name]) for name in ROUTINES}
    get_threads = set_threads = 0
    for path in _loaded_openblas():
        openblas = _openblas(path)
        if openblas is not None:
            get_threads, set_threads = openblas.get_threads, openblas.set_threads
    return Blas(addresses, 32, get_threads, set_threads, "scipy.linalg.cython_blas")


def _loaded_openblas() -> list[str]:
    import scipy

    root = os.path.dirname(scipy.__file__)
    folders = (root + ".libs", os.path.join(root, ".dylibs"), os.path.join(sys.prefix, "lib"))
    patterns = (os.path.join(glob.escape(folder), "*openblas*") for folder in folders)
    library_name = re.compile(r"\.(so[.\d]*|dylib|dll)$")
    found = (path for pattern in patterns for path in sorted(glob.glob(pattern)))
    return [path for path in found if library_name.search(path)]


def _capsule_address(capsule: object) -> int:
    name_of = ctypes.pythonapi.PyCapsule_GetName
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return int(pointer_of(capsule, name_of(capsule)) or 0)


@contextmanager
def one_thread(wanted: bool = True) -> Iterator[None]:
    """Keep BLAS from starting threads; the number that was set before is set again at the end.

    The number is the process's: another thread's NumPy that begins a product meanwhile does it on
    one thread. Nothing happens if not `wanted`, or if the library has no such setting.
    """
    blas = library() if wanted else None
    if blas is None or not blas.set_threads:
        yield
        return
    set_threads = ctypes.CFUNCTYPE(None, ctypes.c_int)(blas.set_threads)
    before = ctypes.CFUNCTYPE(ctypes.c_int)(blas.get_threads)()
    set_threads(1)
    try:
        yield
    finally:
        set_threads(before)


def call(name: str, *arguments: int | str | NDArray[Any]) -> None:
    """Call a routine of the library, to ask it how much memory it wants to work in."""
    places = [
        argument
        if isinstance(argument, np.ndarray)
        else np.array(ord(argument) if isinstance(argument, str) else argument, np.int64)
        for argument in arguments
    ]
    function = ctypes.CFUNCTYPE(None, *(ctypes.c_void_p,) * len(places))
    function(library().addresses[name])(*(place.ctypes.data for place in places))
