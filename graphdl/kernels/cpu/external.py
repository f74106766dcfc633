"""Functions of other libraries that object code calls: their addresses, found when it is loaded."""

from __future__ import annotations

import ctypes
import re
from functools import cache

from graphdl.kernels.special_functions import PREFIX

_NAME = re.compile(rb"\0" + PREFIX.encode() + rb"(\w+)(?=\0)")


def symbols_in(code: bytes) -> dict[str, int]:
    """The symbols of SciPy's functions that an object refers to, and their addresses.

    Raises RuntimeError where this SciPy does not publish one of them.
    """
    found = {match.decode() for match in _NAME.findall(code)}
    return {PREFIX + name: address_of(name) for name in sorted(found)}


@cache
def address_of(name: str) -> int:
    """The address of `double NAME(double, ..., int)` among SciPy's special functions.

    The first argument of `expn` is an integer.

    Functions that also take complex numbers, integers or float32 have one entry for each type,
    under a prefix that differs between versions of SciPy: the signature tells which it is.
    """
    # 0.2 s, which only those pay who call such a function
    from scipy.special import cython_special

    first = "Py_ssize_t" if name == "expn" else "double"
    signature = re.compile(rf"double \({first}, (double, )*int __pyx_skip_dispatch\)")
    for key, capsule in cython_special.__pyx_capi__.items():
        if re.fullmatch(rf"(__pyx_fuse_\d+)?{name}", key):
            text, address = _content(capsule)
            if signature.fullmatch(text):
                return address
    raise RuntimeError(f"this SciPy does not publish the address of scipy.special.{name}")


def _content(capsule: object) -> tuple[str, int]:
    name_of = ctypes.pythonapi.PyCapsule_GetName
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    name = name_of(capsule)
    return name.decode(), int(pointer_of(capsule, name) or 0)
