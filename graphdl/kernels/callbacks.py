"""Python functions that programs call: see graphdl.debug.

Native code calls them by address, with the table that graphdl.kernels.user.launch fills. They take
the interpreter's lock themselves, so a program that has one runs without it. An exception cannot
pass through native code: it is kept, and the status tells that there is one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from graphdl.compiler.quiet import EFFECT
from graphdl.kernels.program import Program
from graphdl.types import TensorType

_serials = count()
_NATIVE = ctypes.CFUNCTYPE(None, ctypes.c_int64)


class Callback:
    """A Python function of arrays, which gets copies of them, numbers in the place of 0-d ones."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.symbol = f"{EFFECT}{next(_serials)}"
        self.raised: BaseException | None = None
        self._entries: dict[tuple[TensorType, ...], Any] = {}
        CALLBACKS[self.symbol] = self

    def call(self, values: Sequence[Any]) -> None:
        self.function(*(np.array(value)[()] for value in values))

    def entry(self, operands: tuple[TensorType, ...]) -> int:
        """The address of `void f(int64 *table)` for the token and operands of these types."""
        if operands not in self._entries:
            self._entries[operands] = _NATIVE(lambda table: self._run(table, operands))
        return ctypes.cast(self._entries[operands], ctypes.c_void_p).value or 0

    def _run(self, table: int, operands: tuple[TensorType, ...]) -> None:
        """Words of the table: the function, status, what to write there, then each operand."""
        size = 3 + sum(1 + type.ndim for type in operands) + 1
        words = list((ctypes.c_int64 * size).from_address(table))
        place = 3
        values = []
        for type in operands:
            values.append(_array(words[place], type))
            place += 1 + type.ndim
        ctypes.c_int64.from_address(words[place]).value = 0  # the token
        try:
            self.call(values[1:])
        except BaseException as error:
            self.raised = error
            ctypes.c_int64.from_address(words[1]).value = words[2]


def _array(address: int, type: TensorType) -> NDArray[Any]:
    """The array at an address, which is only there for a while."""
    if not type.nbytes:
        return np.empty(type.shape, type.dtype)
    memory: Any = (ctypes.c_char * type.nbytes).from_address(address)
    found: NDArray[Any] = np.frombuffer(memory, type.dtype).reshape(type.shape)
    return found


#: By the symbol of its op, which keeps it alive.
CALLBACKS: WeakValueDictionary[str, Callback] = WeakValueDictionary()


def calls_python(program: Program) -> bool:
    """Whether a program calls Python, also in the body of a loop or a branch."""
    return any(
        any(node.op.symbol in CALLBACKS for node in launch.nodes)
        or any(calls_python(body.program) for body in launch.bodies)
        for launch in program.launches
    )
