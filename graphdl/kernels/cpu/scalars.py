"""The scalar operations as Numba intrinsics. Imported only when something is compiled.

An intrinsic costs Numba next to nothing to type, where a function of its own costs 20 to 30 ms, and
gives the dtype that the formula says, where Numba's own operators promote int32 to int64.

A kernel that uses these must not be compiled with Numba's `fastmath` option: Numba then adds its
flags to every instruction of the module, and the compensated arithmetic of the elementary
functions is optimised away. The flags that graphdl allows are already on `add`, `subtract`,
`multiply` and `divide`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.types import Type

from graphdl.kernels.cpu.scalar_code import emit
from graphdl.kernels.scalar import Scalar
from graphdl.kernels.scalar_table import SCALARS
from graphdl.kernels.suffixes import numba_types

NUMBA_TYPES: dict[str, Type] = numba_types(types)
DTYPE_OF: dict[Type, str] = {kind: dtype for dtype, kind in NUMBA_TYPES.items()}


def numba_definition(scalar: Scalar) -> Callable[..., Any]:
    """What Numba's `intrinsic` decorates: from operand types to a signature and a codegen."""

    def define(operands: Sequence[Type]) -> tuple[Any, Callable[..., ir.Value]] | None:
        if any(kind not in DTYPE_OF for kind in operands):
            return None
        dtypes = tuple(DTYPE_OF[kind] for kind in operands)

        def codegen(
            context: Any, builder: ir.IRBuilder, signature: Any, arguments: Sequence[ir.Value]
        ) -> ir.Value:
            return emit(scalar, builder, dtypes, arguments)

        return NUMBA_TYPES[scalar.result(dtypes)](*operands), codegen

    # Numba reads the number of operands off the function's own signature.
    def unary(context: Any, x: Type) -> Any:
        return define((x,))

    def binary(context: Any, x: Type, y: Type) -> Any:
        return define((x, y))

    def ternary(context: Any, x: Type, y: Type, z: Type) -> Any:
        return define((x, y, z))

    def quaternary(context: Any, a: Type, b: Type, c: Type, d: Type) -> Any:
        return define((a, b, c, d))

    def quinary(context: Any, a: Type, b: Type, c: Type, d: Type, e: Type) -> Any:
        return define((a, b, c, d, e))

    by_arity: dict[int, Any] = {1: unary, 2: binary, 3: ternary, 4: quaternary, 5: quinary}
    typed: Callable[..., Any] = by_arity[scalar.arity]
    typed.__name__ = typed.__qualname__ = scalar.name
    return typed


DEFINITIONS: dict[str, Callable[..., Any]] = {
    name: numba_definition(scalar) for name, scalar in SCALARS.items()
}
