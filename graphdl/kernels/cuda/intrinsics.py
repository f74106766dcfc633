"""The names that the text of a CUDA kernel may use, as numba-cuda and NVVM see them.

The plain Python stand-ins of the same names are in `graphdl.kernels.cuda.interpret`.

A kernel takes 64-bit integers only: addresses and sizes. `f32_at(address)` makes a pointer to
global memory, `f32_shared(offset)` one to the memory that a block shares, in bytes from its start;
`p[i]` reads and `p[i] = v` writes, without bounds checks.

A vector is two, four or eight values of neighbours, which one thread computes one by one but loads
and stores at once: `load4(p, i)`, `store4(p, i, v)` are single accesses of up to 16 bytes, whose
address the caller keeps aligned. Scalar functions take vectors element by element, and a scalar
beside a vector counts for all of its elements.

This module imports numba-cuda, so only what compiles imports it.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llvmlite import ir
from numba.cuda import types
from numba.cuda.extending import core_models as models
from numba.cuda.extending import intrinsic, lower_builtin, register_model
from numba.cuda.typing.templates import AbstractTemplate, infer_global, signature

from graphdl.kernels import suffixes
from graphdl.kernels.cuda.launch import WIDTHS
from graphdl.kernels.cuda.scalar_code import emit
from graphdl.kernels.scalar import Scalar
from graphdl.kernels.scalar_table import SCALARS
from graphdl.kernels.suffixes import numba_types

GLOBAL, SHARED = 1, 3  # NVVM's numbers of address spaces
_I32, _I64 = ir.IntType(32), ir.IntType(64)
_ALL_LANES = 0xFFFFFFFF

NUMBA_TYPES: Mapping[str, Any] = numba_types(types)
SUFFIXES: Mapping[str, Any] = {
    suffix: NUMBA_TYPES[dtype] for suffix, dtype in suffixes.SUFFIXES.items()
}
DTYPE_OF: Mapping[Any, str] = {kind: dtype for dtype, kind in NUMBA_TYPES.items()}


def _element(dtype: Any) -> ir.Type:
    """The LLVM type of a value in registers."""
    if dtype == types.boolean:
        return ir.IntType(1)
    if isinstance(dtype, types.Float):
        return ir.FloatType() if dtype == types.float32 else ir.DoubleType()
    return ir.IntType(dtype.bitwidth)


def _stored(dtype: Any) -> ir.Type:
    """The LLVM type of a value in memory: a bool takes a byte."""
    return ir.IntType(8) if dtype == types.boolean else _element(dtype)


def _from_memory(builder: ir.IRBuilder, dtype: Any, data: ir.Value) -> ir.Value:
    if dtype != types.boolean:
        return data
    return builder.icmp_unsigned("!=", data, ir.Constant(data.type, 0))


def _to_memory(builder: ir.IRBuilder, dtype: Any, value: ir.Value) -> ir.Value:
    return builder.zext(value, ir.IntType(8)) if dtype == types.boolean else value


# -- pointers and vectors --------------------------------------------------------------------------


class Pointer(types.Type):  # type: ignore[misc]
    """The address of the first of many values of one dtype, in one address space."""

    def __init__(self, dtype: Any, space: int) -> None:
        self.dtype, self.space = dtype, space
        super().__init__(f"DevicePointer({dtype}, {space})")


@register_model(Pointer)
class _PointerModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, pointer: Pointer) -> None:
        kind = ir.PointerType(_stored(pointer.dtype), addrspace=pointer.space)
        super().__init__(manager, pointer, kind)


class Vector(types.Type):  # type: ignore[misc]
    """Values of neighbours."""

    def __init__(self, dtype: Any, width: int) -> None:
        self.dtype, self.width = dtype, width
        super().__init__(f"Vector({dtype}, {width})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, ir.VectorType(_element(vector.dtype), vector.width))


@infer_global(operator.getitem)
class _LoadTemplate(AbstractTemplate):  # type: ignore[misc]
    def generic(self, args: tuple[Any, ...], kws: Any) -> Any:
        pointer, index = args
        if isinstance(pointer, Pointer) and isinstance(index, types.Integer):
            return signature(pointer.dtype, pointer, types.int64)
        return None


@infer_global(operator.setitem)
class _StoreTemplate(AbstractTemplate):  # type: ignore[misc]
    def generic(self, args: tuple[Any, ...], kws: Any) -> Any:
        pointer, index, _value = args
        if isinstance(pointer, Pointer) and isinstance(index, types.Integer):
            return signature(types.none, pointer, types.int64, pointer.dtype)
        return None


@lower_builtin(operator.getitem, Pointer, types.int64)  # type: ignore[untyped-decorator]
def _load(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    data = builder.load(builder.gep(args[0], [args[1]]))
    return _from_memory(builder, sig.args[0].dtype, data)


@lower_builtin(operator.setitem, Pointer, types.int64, types.Any)  # type: ignore[untyped-decorator]
def _store(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    pointer, index, value = args
    builder.store(_to_memory(builder, sig.args[0].dtype, value), builder.gep(pointer, [index]))
    return context.get_dummy_value()


def _make_at(suffix: str, dtype: Any) -> Any:
    def at(typingctx: Any, address: Any) -> Any:
        if not isinstance(address, types.Integer):
            return None

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(sig.return_type))

        return Pointer(dtype, GLOBAL)(types.int64), codegen

    at.__name__ = f"{suffix}_at"
    return intrinsic(at)


def _make_shared(suffix: str, dtype: Any) -> Any:
    def shared(typingctx: Any, offset: Any) -> Any:
        if not isinstance(offset, types.Integer):
            return None

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            kind = context.get_value_type(sig.return_type)
            start = builder.gep(_block_memory(builder.module), [_I32(0), args[0]])
            return builder.bitcast(start, kind)

        return Pointer(dtype, SHARED)(types.int64), codegen

    shared.__name__ = f"{suffix}_shared"
    return intrinsic(shared)


def _block_memory(module: ir.Module) -> ir.Value:
    """The memory that a block shares; its size is an argument of the launch."""
    name = "graphdl_block_memory"
    memory = module.globals.get(name)
    if memory is None:
        memory = ir.GlobalVariable(module, ir.ArrayType(ir.IntType(8), 0), name, addrspace=SHARED)
        memory.linkage = "external"
        memory.align = 16
    return memory


def _make_load(width: int) -> Any:
    def load(typingctx: Any, pointer: Any, index: Any) -> Any:
        if not (isinstance(pointer, Pointer) and isinstance(index, types.Integer)):
            return None

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            place = _vector_place(builder, pointer, args, width)
            if width > 4 and _size(pointer.dtype) == 2:
                return builder.bitcast(_load_words(builder, place), place.type.pointee)
            memory = builder.load(place)
            memory.align = _size(pointer.dtype) * width
            return _from_memory(builder, pointer.dtype, memory)

        return Vector(pointer.dtype, width)(pointer, types.int64), codegen

    load.__name__ = f"load{width}"
    return intrinsic(load)


def _make_store(width: int) -> Any:
    def store(typingctx: Any, pointer: Any, index: Any, value: Any) -> Any:
        if not (isinstance(pointer, Pointer) and isinstance(index, types.Integer)):
            return None
        dtype = pointer.dtype
        if value != Vector(dtype, width) and value != dtype:
            return None

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            lanes = _lanes(builder, value, args[2], width)
            packed = _packed(builder, _element(dtype), lanes)
            if dtype == types.boolean:
                packed = builder.zext(packed, ir.VectorType(ir.IntType(8), width))
            place = _vector_place(builder, pointer, args, width)
            if width > 4 and _size(dtype) == 2:
                _store_words(builder, place, builder.bitcast(packed, _WORDS))
            else:
                builder.store(packed, place).align = _size(dtype) * width
            return context.get_dummy_value()

        return types.none(pointer, types.int64, value), codegen

    store.__name__ = f"store{width}"
    return intrinsic(store)


def _make_spread(width: int) -> Any:
    """The values at index, index + stride ..."""

    def spread(typingctx: Any, pointer: Any, index: Any, stride: Any) -> Any:
        if not isinstance(pointer, Pointer):
            return None

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            place, lanes = args[1], []
            for _ in range(width):
                data = builder.load(builder.gep(args[0], [place]))
                lanes.append(_from_memory(builder, pointer.dtype, data))
                place = builder.add(place, args[2])
            return _packed(builder, _element(pointer.dtype), lanes)

        return Vector(pointer.dtype, width)(pointer, types.int64, types.int64), codegen

    spread.__name__ = f"spread{width}"
    return intrinsic(spread)


def _make_put(width: int) -> Any:
    """Store at index, index + stride ..."""

    def put(typingctx: Any, pointer: Any, index: Any, stride: Any, value: Any) -> Any:
        if not isinstance(pointer, Pointer) or value not in (
            Vector(pointer.dtype, width),
            pointer.dtype,
        ):
            return None

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            place = args[1]
            for lane in _lanes(builder, value, args[3], width):
                data = _to_memory(builder, pointer.dtype, lane)
                builder.store(data, builder.gep(args[0], [place]))
                place = builder.add(place, args[2])
            return context.get_dummy_value()

        return types.none(pointer, types.int64, types.int64, value), codegen

    put.__name__ = f"put{width}"
    return intrinsic(put)


def _make_counting(width: int) -> Any:
    """start, start + 1 ..."""

    def counting(typingctx: Any, start: Any) -> Any:
        if not isinstance(start, types.Integer):
            return None

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            lanes = [builder.add(args[0], _I64(k)) for k in range(width)]
            return _packed(builder, _I64, lanes)

        return Vector(types.int64, width)(types.int64), codegen

    counting.__name__ = f"counting{width}"
    return intrinsic(counting)


def _make_splat(width: int) -> Any:
    """A vector of one value."""

    def splat(typingctx: Any, value: Any) -> Any:
        if value not in DTYPE_OF:
            return None

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return _packed(builder, _element(value), [args[0]] * width)

        return Vector(value, width)(value), codegen

    splat.__name__ = f"splat{width}"
    return intrinsic(splat)


def _make_lane(position: int) -> Any:
    """One element of a vector; of a scalar, the scalar."""

    def lane(typingctx: Any, vector: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            if not isinstance(vector, Vector):
                return args[0]
            return builder.extract_element(args[0], _I32(position))

        return (vector.dtype if isinstance(vector, Vector) else vector)(vector), codegen

    lane.__name__ = f"lane{position}"
    return intrinsic(lane)


def _size(dtype: Any) -> int:
    return 1 if dtype == types.boolean else int(dtype.bitwidth) // 8


def _vector_place(builder: Any, pointer: Pointer, args: Sequence[Any], width: int) -> ir.Value:
    kind = ir.PointerType(ir.VectorType(_stored(pointer.dtype), width), addrspace=pointer.space)
    return builder.bitcast(builder.gep(args[0], [args[1]]), kind)


#: 16 bytes of eight values. PTX has no vectors of more than four, and LLVM makes two accesses of
#: eight bytes of them, also where it is told of words: so these are PTX. It is marked to touch
#: memory, which keeps its place among other accesses.
_WORDS = ir.VectorType(_I32, 4)


def _load_words(builder: Any, place: ir.Value) -> ir.Value:
    kind = ir.FunctionType(ir.LiteralStructType([_I32] * 4), [_I64])
    text = "ld.global.v4.u32 {$0, $1, $2, $3}, [$4];"
    address = builder.ptrtoint(place, _I64)
    words = builder.asm(kind, text, "=r,=r,=r,=r,l,~{memory}", [address], True)
    return _packed(builder, _I32, [builder.extract_value(words, k) for k in range(4)])


def _store_words(builder: Any, place: ir.Value, words: ir.Value) -> None:
    kind = ir.FunctionType(ir.VoidType(), [_I64, *[_I32] * 4])
    text = "st.global.v4.u32 [$0], {$1, $2, $3, $4};"
    parts = [builder.extract_element(words, _I32(k)) for k in range(4)]
    address = builder.ptrtoint(place, _I64)
    builder.asm(kind, text, "l,r,r,r,r,~{memory}", [address, *parts], True)


def _lanes(builder: Any, kind: Any, value: ir.Value, width: int) -> list[ir.Value]:
    if not isinstance(kind, Vector):
        return [value] * width
    return [builder.extract_element(value, _I32(k)) for k in range(width)]


def _packed(builder: Any, element: ir.Type, lanes: Sequence[ir.Value]) -> ir.Value:
    vector = ir.Constant(ir.VectorType(element, len(lanes)), ir.Undefined)
    for k, lane in enumerate(lanes):
        vector = builder.insert_element(vector, lane, _I32(k))
    return vector


# -- threads ---------------------------------------------------------------------------------------


def _special_register(name: str, register: str) -> Any:
    def read(typingctx: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            kind = ir.FunctionType(_I32, [])
            symbol = f"llvm.nvvm.read.ptx.sreg.{register}"
            function = builder.module.globals.get(symbol) or ir.Function(
                builder.module, kind, symbol
            )
            return builder.zext(builder.call(function, []), _I64)

        return types.int64(), codegen

    read.__name__ = name
    return intrinsic(read)


@intrinsic  # type: ignore[untyped-decorator]
def barrier(typingctx: Any) -> Any:
    """All threads of the block get here before any goes on."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        symbol = "llvm.nvvm.barrier0"
        kind = ir.FunctionType(ir.VoidType(), [])
        function = builder.module.globals.get(symbol) or ir.Function(builder.module, kind, symbol)
        function.attributes.add("convergent")
        builder.call(function, [])
        return context.get_dummy_value()

    return types.none(), codegen


@intrinsic  # type: ignore[untyped-decorator]
def shuffle_xor(typingctx: Any, value: Any, mask: Any) -> Any:
    """The value that the thread holds whose number in the warp differs by the bits of `mask`."""
    if value not in DTYPE_OF:
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data, other = args[0], builder.trunc(args[1], _I32)
        element, width = data.type, getattr(data.type, "width", 0)
        if isinstance(element, ir.FloatType | ir.DoubleType):
            width = 32 if isinstance(element, ir.FloatType) else 64
            data = builder.bitcast(data, ir.IntType(width))
        if width <= 32:
            wide = data if width == 32 else builder.zext(data, _I32)
            found = _exchanged(builder, wide, other)
            found = found if width == 32 else builder.trunc(found, ir.IntType(width))
        else:
            low = _exchanged(builder, builder.trunc(data, _I32), other)
            high = _exchanged(builder, builder.trunc(builder.lshr(data, _I64(32)), _I32), other)
            found = builder.or_(
                builder.zext(low, _I64), builder.shl(builder.zext(high, _I64), _I64(32))
            )
        is_float = isinstance(element, ir.FloatType | ir.DoubleType)
        return builder.bitcast(found, element) if is_float else found

    return value(value, types.int64), codegen


def _exchanged(builder: Any, word: ir.Value, mask: ir.Value) -> ir.Value:
    """One word through the warp's exchange."""
    symbol = "llvm.nvvm.shfl.sync.bfly.i32"
    kind = ir.FunctionType(_I32, [_I32] * 4)
    function = builder.module.globals.get(symbol) or ir.Function(builder.module, kind, symbol)
    function.attributes.add("convergent")
    last_lane = _I32(31)
    return builder.call(function, [_I32(_ALL_LANES - (1 << 32)), word, mask, last_lane])


# -- numbers ---------------------------------------------------------------------------------------


@intrinsic  # type: ignore[untyped-decorator]
def quotient(typingctx: Any, a: Any, b: Any) -> Any:
    """a // b of numbers that are not negative, b > 0; by 32 bits where both fit.

    A division of 64 bits is a function of some 70 instructions, one of 32 bits takes a dozen.
    """
    if not (isinstance(a, types.Integer) and isinstance(b, types.Integer)):
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        large = builder.lshr(builder.or_(*args), _I64(32))
        fits = builder.icmp_unsigned("==", large, _I64(0))
        with builder.if_else(fits) as (then, otherwise):
            with then:
                narrow = builder.udiv(*(builder.trunc(x, _I32) for x in args))
                one, first = builder.zext(narrow, _I64), builder.block
            with otherwise:
                two, second = builder.udiv(*args), builder.block
        result = builder.phi(_I64)
        result.add_incoming(one, first)
        result.add_incoming(two, second)
        return result

    return types.int64(types.int64, types.int64), codegen


def _make_choice(name: str, comparison: str) -> Any:
    def choose(typingctx: Any, a: Any, b: Any) -> Any:
        if not (isinstance(a, types.Integer) and isinstance(b, types.Integer)):
            return None

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.select(builder.icmp_signed(comparison, *args), *args)

        return types.int64(types.int64, types.int64), codegen

    choose.__name__ = name
    return intrinsic(choose)


def _make_conversion(suffix: str, dtype: Any) -> Any:
    def convert(typingctx: Any, number: Any) -> Any:
        if not isinstance(number, types.Number | types.Boolean):
            return None

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return context.cast(builder, args[0], sig.args[0], dtype)

        return dtype(number), codegen

    convert.__name__ = suffix
    return intrinsic(convert)


# -- scalar operations -----------------------------------------------------------------------------


def _width(kinds: Sequence[Any]) -> int:
    return max((kind.width for kind in kinds if isinstance(kind, Vector)), default=0)


def _scalar_intrinsic(scalar: Scalar) -> Any:
    """A scalar operation as numba-cuda's `intrinsic`: on scalars, or on vectors lane by lane."""

    def define(kinds: Sequence[Any]) -> tuple[Any, Callable[..., ir.Value]] | None:
        elements = [kind.dtype if isinstance(kind, Vector) else kind for kind in kinds]
        if any(kind not in DTYPE_OF for kind in elements):
            return None
        dtypes = tuple(DTYPE_OF[kind] for kind in elements)
        result, width = NUMBA_TYPES[scalar.result(dtypes)], _width(kinds)

        def codegen(context: Any, builder: Any, sig: Any, args: Sequence[ir.Value]) -> ir.Value:
            if not width:
                return emit(scalar, builder, dtypes, args)
            columns = [
                _lanes(builder, kind, arg, width) for kind, arg in zip(kinds, args, strict=True)
            ]
            lanes = [emit(scalar, builder, dtypes, row) for row in zip(*columns, strict=True)]
            return _packed(builder, _element(result), lanes)

        return (Vector(result, width) if width else result)(*kinds), codegen

    # numba-cuda reads the number of operands off the function's own signature.
    def unary(context: Any, x: Any) -> Any:
        return define((x,))

    def binary(context: Any, x: Any, y: Any) -> Any:
        return define((x, y))

    def ternary(context: Any, x: Any, y: Any, z: Any) -> Any:
        return define((x, y, z))

    def quaternary(context: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
        return define((a, b, c, d))

    def quinary(context: Any, a: Any, b: Any, c: Any, d: Any, e: Any) -> Any:
        return define((a, b, c, d, e))

    typed = {1: unary, 2: binary, 3: ternary, 4: quaternary, 5: quinary}[scalar.arity]
    typed.__name__ = typed.__qualname__ = scalar.name
    return intrinsic(typed)


NAMES: Mapping[str, Any] = {
    "inf": math.inf,
    "nan": math.nan,
    **{suffix: _make_conversion(suffix, dtype) for suffix, dtype in SUFFIXES.items()},
    **{f"{suffix}_at": _make_at(suffix, dtype) for suffix, dtype in SUFFIXES.items()},
    **{f"{suffix}_shared": _make_shared(suffix, dtype) for suffix, dtype in SUFFIXES.items()},
    **{f"load{width}": _make_load(width) for width in WIDTHS},
    **{f"store{width}": _make_store(width) for width in WIDTHS},
    **{f"spread{width}": _make_spread(width) for width in WIDTHS},
    **{f"put{width}": _make_put(width) for width in WIDTHS},
    **{f"counting{width}": _make_counting(width) for width in WIDTHS},
    **{f"splat{width}": _make_splat(width) for width in WIDTHS},
    **{f"lane{k}": _make_lane(k) for k in range(max(WIDTHS))},
    "min_i64": _make_choice("min_i64", "<"),
    "max_i64": _make_choice("max_i64", ">"),
    "quotient": quotient,
    "shuffle_xor": shuffle_xor,
    "barrier": barrier,
    "thread": _special_register("thread", "tid.x"),
    "block": _special_register("block", "ctaid.x"),
    "threads": _special_register("threads", "ntid.x"),
    "blocks": _special_register("blocks", "nctaid.x"),
    **{name: _scalar_intrinsic(scalar) for name, scalar in SCALARS.items()},
}
