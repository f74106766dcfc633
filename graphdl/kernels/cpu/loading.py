"""Object files into memory: by `graphdl.kernels.cpu.elf` where that can, else by LLVM."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Mapping
from functools import cache
from typing import Any

from graphdl.kernels.cpu import elf, external
from graphdl.kernels.special_functions import PREFIX

_lock = threading.RLock()


def load(objects: Mapping[str, bytes]) -> dict[str, int]:
    """Load objects, each defining the symbol that it is filed under; symbol -> address.

    A symbol may be loaded again, and gets another address. Raises RuntimeError if an object is no
    object file of this machine, lacks its symbol, or needs one that the process does not have.
    """
    if not objects:
        return {}
    with _lock:
        found = elf.load(objects, _address_of)
        if found is not None:
            return found
        # imported here: it loads LLVM, 50 MB, for which a warm process has no other use
        from graphdl.kernels.cpu import llvm

        return llvm.load(objects)


@cache
def _process() -> Any:
    return ctypes.CDLL(None)


@cache
def _address_of(name: str) -> int | None:
    """A function of SciPy's or of this process."""
    if name.startswith(PREFIX):
        return external.address_of(name.removeprefix(PREFIX))
    try:
        return ctypes.cast(_process()[name], ctypes.c_void_p).value
    except AttributeError:
        return None
