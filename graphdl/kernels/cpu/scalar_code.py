"""LLVM code of the scalar operations: written out in place, or as functions of the module.

An elementary function is defined once a module and inlined by LLVM where it is called. One with a
rare case (the sine of a huge angle) is called, by the loop vectoriser with whole vectors: a branch
in a loop would keep LLVM from vectorising it, and doing both sides would cost every element what
few of them need.

In straight code, which has no loop to vectorise and may call a function fifty times, all of them
are called: twenty powers inlined are 0.2 s of LLVM's time, and a call is 2 ns of theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from llvmlite import ir

from graphdl.kernels.cpu.host import host
from graphdl.kernels.cpu.llvm import STRAIGHT
from graphdl.kernels.scalar import Scalar
from graphdl.kernels.value import Value, element_type, width_of


class StraightModule(ir.Module):  # type: ignore[misc]
    """The module of a kernel without a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.add_named_metadata(STRAIGHT)


def emit(
    scalar: Scalar, builder: ir.IRBuilder, dtypes: Sequence[str], operands: Sequence[ir.Value]
) -> ir.Value:
    """Emit one operation on scalars or on LLVM vectors of equal length; returns the result."""
    if not scalar.outlined:
        values = [Value(builder, x, dtype) for x, dtype in zip(operands, dtypes, strict=True)]
        return scalar.formula(*values).handle
    kind = operands[0].type
    lanes = kind.count if isinstance(kind, ir.VectorType) else 0
    return builder.call(definition(scalar, builder.module, dtypes, lanes), list(operands))


def definition(
    scalar: Scalar, module: ir.Module, dtypes: Sequence[str], lanes: int = 0
) -> ir.Function:
    """The module's function of a scalar operation, on scalars if `lanes` is 0, else on vectors."""
    name = function_name(scalar.name, dtypes, lanes)
    if name in module.globals:
        return module.globals[name]
    if scalar.usual is not None and dtypes[0].startswith("float"):
        return (
            vector_variant(scalar, module, dtypes, lanes)
            if lanes
            else guarded(scalar, module, dtypes)
        )
    function, values = new_function(scalar, module, dtypes, name, lanes)
    function.attributes.add("noinline" if isinstance(module, StraightModule) else "alwaysinline")
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
    """A function that branches to the rare case, and names the variants on vectors that the loop
    vectoriser may call in its place."""
    assert scalar.usual is not None
    name = function_name(scalar.name, dtypes)
    function, values = new_function(scalar, module, dtypes, name)
    set_attribute(function, "noinline")
    builder = values[0].builder
    usual, otherwise = function.append_basic_block(), function.append_basic_block()
    builder.cbranch(scalar.usual(*values).handle, usual, otherwise)
    builder.position_at_end(usual)
    builder.ret(scalar.formula(*values).handle)
    builder.position_at_end(otherwise)
    builder.ret(builder.call(rare_case(scalar, module, dtypes), function.args))

    if isinstance(module, StraightModule):
        return function
    # As many lanes as fit a register, and half as many, for loops that also handle a wider dtype.
    widest = register_bits() // max(map(width_of, dtypes))
    variants = []
    for lanes in (widest, widest // 2):
        variant = definition(scalar, module, dtypes, lanes)
        keep_alive(module, variant)
        parameters = "v" * len(dtypes)
        variants.append(f"_ZGV_LLVM_N{lanes}{parameters}_{name}({variant.name})")
    set_attribute(function, f'"vector-function-abi-variant"="{",".join(variants)}"')
    return function


def rare_case(scalar: Scalar, module: ir.Module, dtypes: Sequence[str]) -> ir.Function:
    assert scalar.rare is not None
    name = function_name(f"{scalar.name}_rare", dtypes)
    if name in module.globals:
        return module.globals[name]
    function, values = new_function(scalar, module, dtypes, name)
    set_attribute(function, "noinline")
    values[0].builder.ret(scalar.rare(*values).handle)
    return function


def vector_variant(
    scalar: Scalar, module: ir.Module, dtypes: Sequence[str], lanes: int
) -> ir.Function:
    """The operation on vectors: by the formula, and one by one for the elements it is not for."""
    name = function_name(scalar.name, dtypes, lanes)
    function, values = new_function(scalar, module, dtypes, name, lanes)
    rare = rare_case(scalar, module, dtypes)
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
