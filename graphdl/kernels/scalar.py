"""The record of one scalar operation of generated kernels."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache, cached_property
from typing import Any

import numpy as np
from msgspec import Struct

# From the operands' dtype names to the dtype name of the result.
ResultRule = Callable[[tuple[str, ...]], str]


def same(dtypes: tuple[str, ...]) -> str:
    """The dtype of the first operand."""
    return dtypes[0]


class Scalar(Struct, frozen=True, dict=True):
    """A name that generated kernels may call, on scalars.

    `formula` emits the operation over `graphdl.kernels.value.Value`s; `kernels.cpu.scalars` makes
    Numba intrinsics of it. `reference` names an independent implementation, as "module:function"
    over NumPy scalars or arrays, by which the kernel runs as plain Python; `python` loads it.
    """

    name: str
    arity: int
    formula: Callable[..., Any]
    reference: str
    result: ResultRule = same
    # Of floats, `formula` holds where `usual(*operands)` is true; elsewhere `rare`, on scalars.
    # Such an operation is a function that LLVM calls with whole vectors, which take the way of
    # `rare` when one of their elements needs it.
    usual: Callable[..., Any] | None = None
    rare: Callable[..., Any] | None = None
    # Defined once a module as a function that LLVM inlines, instead of being written out per call.
    outlined: bool = False

    @cached_property
    def python(self) -> Callable[..., Any]:
        """The stand-in: takes and returns NumPy values of the dtypes that the compiled one does."""
        module, _, function = self.reference.partition(":")
        call: Callable[..., Any] = getattr(importlib.import_module(module), function)

        @cache  # NumPy works out the name of a dtype anew each time, in most of a call's time
        def result(*dtypes: np.dtype[Any]) -> np.dtype[Any]:
            return np.dtype(self.result(tuple(dtype.name for dtype in dtypes)))

        def stand_in(*operands: Any) -> Any:
            dtype = result(*(np.asarray(operand).dtype for operand in operands))
            return np.asarray(call(*operands)).astype(dtype, copy=False)[()]

        stand_in.__name__ = self.name
        return stand_in
