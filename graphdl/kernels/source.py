"""The unit that is compiled, cached and launched: the Python text of one kernel."""

from __future__ import annotations

from msgspec import Struct

from graphdl.errors import GraphError


class KernelError(GraphError, ValueError):
    """The text of a kernel is not one that can be compiled."""


class KernelSource(Struct, frozen=True):
    """Python text that defines ``kernel(table, lo, hi)``.

    The text uses only the names of `graphdl.kernels.cpu.intrinsics` and plain arithmetic, so that
    it can be compiled, run as ordinary Python, and read. `name` is for people: it appears in
    profiles and file names, and is no part of the identity of the machine code.
    """

    name: str
    text: str
