"""Memory that grows while native code runs: what a loop keeps of steps that nobody has counted.

Two words, where it is and how many bytes it has, of which native code takes more by
`PyMem_RawRealloc`, which needs no interpreter lock. It is kept until its program is dropped.
"""

from __future__ import annotations

import ctypes
import weakref

import numpy as np
from numpy.typing import NDArray

_free = ctypes.pythonapi.PyMem_RawFree
_free.argtypes, _free.restype = [ctypes.c_void_p], None

#: The C functions that native code takes memory from, by the names that they have in C. It finds
#: them in this order, a word each, at the start of its table `process`.
MEMORY: dict[str, int] = {
    name: ctypes.cast(function, ctypes.c_void_p).value or 0
    for name, function in (
        ("realloc", ctypes.pythonapi.PyMem_RawRealloc),
        ("memmove", ctypes.memmove),
        ("calloc", ctypes.pythonapi.PyMem_RawCalloc),
        ("free", _free),
    )
}
REALLOC, MEMMOVE, CALLOC, FREE = (8 * i for i in range(4))


class Growing:
    """Memory, empty at first."""

    def __init__(self) -> None:
        self._words = np.zeros(2, np.int64)
        weakref.finalize(self, _release, self._words).atexit = False

    @property
    def address(self) -> int:
        """Where its two words are."""
        return int(self._words.ctypes.data)

    @property
    def nbytes(self) -> int:
        return int(self._words[1])


def _release(words: NDArray[np.int64]) -> None:
    _free(int(words[0]))
    words[:] = 0
