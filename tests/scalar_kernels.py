"""Compiles loops around scalar operations, for the tests of `elementary` and `arithmetic`."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir

from graphdl.kernels.cpu.llvm import assembly, load, object_code
from graphdl.kernels.cpu.scalar_code import emit
from graphdl.kernels.scalar import Scalar
from graphdl.kernels.scalar_table import SCALARS
from graphdl.kernels.value import element_type

I64 = ir.IntType(64)


def memory_type(dtype: str) -> ir.Type:
    return ir.IntType(8) if dtype == "bool" else element_type(dtype)


def loop_source(scalars: tuple[Scalar, ...], dtypes: tuple[str, ...]) -> str:
    """LLVM IR of `loop(operand0, ..., result0, ..., n)`: each operation on the same operands."""
    results = [scalar.result(dtypes) for scalar in scalars]
    pointers = [memory_type(dtype).as_pointer() for dtype in (*dtypes, *results)]
    module = ir.Module("loop")
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [*pointers, I64]), "loop")
    for argument in function.args[:-1]:
        argument.add_attribute("noalias")
    entry, body, end = (function.append_basic_block(name) for name in ("entry", "body", "end"))
    builder = ir.IRBuilder(entry)
    builder.cbranch(builder.icmp_signed(">", function.args[-1], I64(0)), body, end)
    builder.position_at_end(body)
    index = builder.phi(I64)
    index.add_incoming(I64(0), entry)
    operands = []
    for pointer, dtype in zip(function.args, dtypes, strict=False):
        value = builder.load(builder.gep(pointer, [index]))
        if dtype == "bool":
            value = builder.icmp_unsigned("!=", value, value.type(0))
        operands.append(value)
    outputs = function.args[len(dtypes) : -1]
    for scalar, pointer, result in zip(scalars, outputs, results, strict=True):
        value = emit(scalar, builder, dtypes, operands)
        if result == "bool":
            value = builder.zext(value, ir.IntType(8))
        builder.store(value, builder.gep(pointer, [index]))
    following = builder.add(index, I64(1), flags=["nsw", "nuw"])
    index.add_incoming(following, body)
    builder.cbranch(builder.icmp_signed("<", following, function.args[-1]), body, end)
    builder.position_at_end(end)
    builder.ret_void()
    return str(module)


def vector_source(scalar: Scalar, dtype: str, lanes: int) -> str:
    """LLVM IR of `loop(operand, result, 0)`: the operation on one LLVM vector, written by hand."""
    module = ir.Module("loop")
    kind = ir.VectorType(element_type(dtype), lanes)
    pointer = kind.as_pointer()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [pointer, pointer, I64]), "loop")
    builder = ir.IRBuilder(function.append_basic_block())
    operand, result, _ = function.args
    value = emit(scalar, builder, [dtype], [builder.load(operand, align=4)])
    builder.store(value, result, align=4)
    builder.ret_void()
    return str(module)


class Loop:
    """A compiled loop; called with arrays it returns a new array."""

    def __init__(self, names: str, *dtypes: str, lanes: int = 0) -> None:
        self.scalars = tuple(SCALARS[name] for name in names.split())
        self.dtypes = dtypes
        self.source = (
            vector_source(self.scalars[0], dtypes[0], lanes)
            if lanes
            else loop_source(self.scalars, dtypes)
        )
        self.address = load({"loop": object_code(self.source)})["loop"]
        pointers = [ctypes.c_void_p] * (len(dtypes) + len(self.scalars))
        self._call = ctypes.CFUNCTYPE(None, *pointers, ctypes.c_int64)(self.address)

    @property
    def assembly(self) -> str:
        return assembly(self.source)

    def run(self, operands: tuple[Any, ...], results: tuple[Any, ...]) -> None:
        self._call(*(x.ctypes.data for x in (*operands, *results)), len(operands[0]))

    def __call__(self, *operands: Any) -> Any:
        operands = tuple(
            np.ascontiguousarray(x, d) for x, d in zip(operands, self.dtypes, strict=True)
        )
        results = tuple(np.empty(len(operands[0]), s.result(self.dtypes)) for s in self.scalars)
        self.run(operands, results)
        return results[0] if len(results) == 1 else results


@cache
def loop(names: str, *dtypes: str) -> Loop:
    return Loop(names, *dtypes)
