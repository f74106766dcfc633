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
from functools import cache
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.types import Type

from graphdl.kernels.arithmetic import ARITHMETIC
from graphdl.kernels.cpu.llvm import host
from graphdl.kernels.elementary import ELEMENTARY
from graphdl.kernels.scalar import Scalar
from graphdl.kernels.value import Value, element_type, width_of

DTYPES = ("bool", *(f"{s}int{w}" for s in ("", "u") for w in (8, 16, 32, 64)), "float32", "float64")
NUMBA_TYPES: dict[str, Type] = {
    dtype: types.boolean if dtype == "bool" else getattr(types, dtype) for dtype in DTYPES
}
DTYPE_OF: dict[Type, str] = {kind: dtype for dtype, kind in NUMBA_TYPES.items()}


def emit(
    scalar: Scalar, builder: ir.IRBuilder, dtypes: Sequence[str], operands: Sequence[ir.Value]
) -> ir.Value:
    """Emit one operation on scalars or on LLVM vectors of equal length; returns the result."""
    if scalar.usual is not None and dtypes[0].startswith("float"):
        return builder.call(guarded(scalar, builder.module, dtypes), list(operands))
    if not scalar.outlined:
        values = [Value(builder, x, dtype) for x, dtype in zip(operands, dtypes, strict=True)]
        return scalar.formula(*values).handle
    return builder.call(definition(scalar, builder.module, dtypes, operands), list(operands))


def definition(
    scalar: Scalar, module: ir.Module, dtypes: Sequence[str], operands: Sequence[ir.Value]
) -> ir.Function:
    """The module's function of a scalar operation, for LLVM to inline."""
    lanes = operands[0].type.count if isinstance(operands[0].type, ir.VectorType) else 0
    name = function_name(scalar.name, dtypes, lanes)
    if name in module.globals:
        return module.globals[name]
    function, values = new_function(scalar, module, dtypes, name, lanes)
    function.attributes.add("alwaysinline")
    values[0].builder.ret(scalar.formula(*values).handle)
    return function


def function_name(name: str, dtypes: Sequence[str], lanes: int = 0) -> str:
    return "_".join(["graphdl", name, *dtypes, *([f"v{lanes}"] if lanes else [])])


def new_function(
    scalar: Scalar, module: ir.Module, dtypes: Sequence[str], name: str, lanes: int = 0
) -> tuple[ir.Function, list[Value]]:
    """A function without side effects, with an empty body to write, and its arguments."""

    def kind(dtype: str) -> ir.Type:
        one = element_type(dtype)
        return ir.VectorType(one, lanes) if lanes else one

    result = kind(scalar.result(tuple(dtypes)))
    function = ir.Function(module, ir.FunctionType(result, list(map(kind, dtypes))), name)
    function.linkage = "internal"
    for attribute in ("nounwind", "readnone", "willreturn"):
        set_attribute(function, attribute)
    builder = ir.IRBuilder(function.append_basic_block())
    arguments = zip(function.args, dtypes, strict=True)
    return function, [Value(builder, x, dtype) for x, dtype in arguments]


def set_attribute(function: ir.Function, attribute: str) -> None:
    """Add a function attribute, also one of those that llvmlite does not know."""
    set.add(function.attributes, attribute)


def guarded(scalar: Scalar, module: ir.Module, dtypes: Sequence[str]) -> ir.Function:
    """The module's function of a scalar operation with a rare case.

    A branch would keep LLVM from vectorising the loop, and doing both sides would cost every
    element what few of them need. So the scalar function names its vector variants, which the loop
    vectoriser calls in its place, and the branch is inside of them.
    """
    name = function_name(scalar.name, dtypes)
    if name in module.globals:
        return module.globals[name]
    assert scalar.usual is not None
    assert scalar.rare is not None
    rare_name = function_name(f"{scalar.name}_rare", dtypes)
    rare, values = new_function(scalar, module, dtypes, rare_name)
    set_attribute(rare, "noinline")
    values[0].builder.ret(scalar.rare(*values).handle)

    function, values = new_function(scalar, module, dtypes, name)
    set_attribute(function, "noinline")
    builder = values[0].builder
    usual, otherwise = function.append_basic_block(), function.append_basic_block()
    builder.cbranch(scalar.usual(*values).handle, usual, otherwise)
    builder.position_at_end(usual)
    builder.ret(scalar.formula(*values).handle)
    builder.position_at_end(otherwise)
    builder.ret(builder.call(rare, function.args))

    # As many lanes as fit a register, and half as many, for loops that also handle a wider dtype.
    widest = register_bits() // max(map(width_of, dtypes))
    variants = []
    for lanes in (widest, widest // 2):
        variant = vector_variant(scalar, module, dtypes, lanes, rare)
        keep_alive(module, variant)
        parameters = "v" * len(dtypes)
        variants.append(f"_ZGV_LLVM_N{lanes}{parameters}_{name}({variant.name})")
    set_attribute(function, f'"vector-function-abi-variant"="{",".join(variants)}"')
    return function


def vector_variant(
    scalar: Scalar, module: ir.Module, dtypes: Sequence[str], lanes: int, rare: ir.Function
) -> ir.Function:
    """The operation on vectors: by the formula, and one by one for the elements it is not for."""
    name = function_name(scalar.name, dtypes, lanes)
    function, values = new_function(scalar, module, dtypes, name, lanes)
    assert scalar.usual is not None
    builder, mask = values[0].builder, ir.IntType(lanes)

    def element(slot: ir.Value, index: ir.Value) -> ir.Value:
        one_type = slot.type.pointee.element
        return builder.gep(builder.bitcast(slot, one_type.as_pointer()), [index], inbounds=True)

    operand_slots = [builder.alloca(x.handle.type) for x in values]
    result_slot = builder.alloca(function.ftype.return_type)
    results = scalar.formula(*values).handle
    unusual = builder.bitcast((~scalar.usual(*values)).handle, mask)
    done, apart, each, end = (function.append_basic_block() for _ in range(4))
    builder.cbranch(builder.icmp_unsigned("==", unusual, mask(0)), done, apart)
    builder.position_at_end(done)
    builder.ret(results)

    builder.position_at_end(apart)
    for slot, x in zip(operand_slots, function.args, strict=True):
        builder.store(x, slot)
    builder.store(results, result_slot)
    builder.branch(each)
    builder.position_at_end(each)
    left = builder.phi(mask)  # the elements still to do
    index = builder.zext(builder.cttz(left, ir.IntType(1)(1)), ir.IntType(64))
    y = builder.call(rare, [builder.load(element(slot, index)) for slot in operand_slots])
    builder.store(y, element(result_slot, index))
    others = builder.and_(left, builder.sub(left, mask(1)))
    left.add_incoming(unusual, apart)
    left.add_incoming(others, each)
    builder.cbranch(builder.icmp_unsigned("==", others, mask(0)), end, each)
    builder.position_at_end(end)
    builder.ret(builder.load(result_slot))
    return function


@cache
def register_bits() -> int:
    """The width of the vector registers that LLVM is asked to use."""
    features = host()[2].split(",")
    return 512 if "+avx512f" in features else 256 if "+avx2" in features else 128


def keep_alive(module: ir.Module, function: ir.Function) -> None:
    """Keep LLVM from dropping a function before its loop vectoriser asks for it."""
    name, address = "llvm.compiler.used", ir.IntType(8).as_pointer()
    used = module.globals.get(name)
    kept = [] if used is None else list(used.initializer.constant)
    kept.append(function.bitcast(address))
    kind = ir.ArrayType(address, len(kept))
    if used is None:
        used = ir.GlobalVariable(module, kind, name)
        used.linkage, used.section = "appending", "llvm.metadata"
    used.value_type, used.type = kind, kind.as_pointer()
    used.initializer = ir.Constant(kind, kept)


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

    by_arity: dict[int, Any] = {1: unary, 2: binary, 3: ternary}
    typed: Callable[..., Any] = by_arity[scalar.arity]
    typed.__name__ = typed.__qualname__ = scalar.name
    return typed


DEFINITIONS: dict[str, Callable[..., Any]] = {
    name: numba_definition(scalar) for name, scalar in (ELEMENTARY | ARITHMETIC).items()
}
