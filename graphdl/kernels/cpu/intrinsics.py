"""Typed memory and loops for the text of kernels, as Numba's front end and LLVM see them.

The plain Python stand-ins of the same names are in `graphdl.kernels.interpret`.

A kernel knows memory as addresses. `f32_at(address)` makes a pointer that is read as `p[i]` and
written as `p[i] = v`, without bounds checks. `for i in lanes(start, stop)` is `range` with a
promise: no iteration reads or writes what another one writes. LLVM then vectorises without alias
checks, on which it gives up beyond eight pointers, and which fail when an operation is in place.
`few_lanes` is `lanes` for some tens of iterations, such as the elements of a short row: the last
vector is masked, where `lanes` leaves the rest to narrower and scalar loops.

`call(routine, ...)` calls the Fortran routine at an address, as BLAS and LAPACK are: every argument
goes by address. A pointer is one; a number is put in memory first. Integers take 64 bits there,
which serves routines that read 32 of them too, and those that read a character: the least
significant byte comes first on all processors that graphdl runs on.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.core.errors import TypingError
from numba.core.extending import register_model
from numba.core.imputils import Registry as LoweringRegistry
from numba.core.typing import signature
from numba.core.typing.templates import AbstractTemplate
from numba.core.typing.templates import Registry as TypingRegistry

from graphdl.kernels import suffixes
from graphdl.kernels.suffixes import numba_types

# Registries of our own: a context that installs them needs nothing of `numba.np`.
typing_registry = TypingRegistry()
lowering_registry = LoweringRegistry("graphdl")

_I64 = ir.IntType(64)
_SCRATCH_ALIGNMENT = 64  # bytes: one 512-bit register, and one cache line

_NUMBA_TYPES = numba_types(types)
SUFFIXES: Mapping[str, Any] = {
    suffix: _NUMBA_TYPES[dtype] for suffix, dtype in suffixes.SUFFIXES.items()
}


# -- functions -------------------------------------------------------------------------------------


class IntrinsicType(types.Callable, types.Opaque):  # type: ignore[misc]
    """The type of an `Intrinsic`: one type to each, as a module is its own type."""

    def __init__(self, intrinsic: Intrinsic) -> None:
        self.intrinsic = intrinsic
        self.name_in_text = intrinsic.__name__
        self._resolved: dict[tuple[Any, ...], Any] = {}
        self._emitters: dict[tuple[Any, tuple[Any, ...]], Callable[..., Any]] = {}
        super().__init__(f"intrinsic({intrinsic.__name__} at {id(intrinsic)})")

    def get_call_type(self, context: Any, args: tuple[Any, ...], kws: Any) -> Any:
        if not self.intrinsic.prefer_literal:
            args = tuple(map(types.unliteral, args))
        if args not in self._resolved:
            resolved = self.intrinsic.define(context, *args)
            if resolved is None:
                raise TypingError(f"{self.intrinsic.__name__} does not take {args}")
            found, emit = resolved
            self._resolved[args] = found
            self._emitters.setdefault((found.return_type, found.args), emit)
        return self._resolved[args]

    def implementation(self, sig: Any) -> Callable[..., Any]:
        """What emits the code of a call: f(context, builder, sig, args) -> the result."""
        emit = self._emitters.get((sig.return_type, sig.args))
        if emit is not None:
            return emit
        raise LookupError(f"{self.intrinsic.__name__} was not called as {sig}")

    def get_call_signatures(self) -> tuple[tuple[Any, ...], bool]:
        return (), True

    def get_impl_key(self, sig: Any) -> Any:
        return self


register_model(IntrinsicType)(models.OpaqueModel)


@lowering_registry.lower_constant(IntrinsicType)  # type: ignore[untyped-decorator]
def _no_value(context: Any, builder: Any, intrinsic: Any, value: Any) -> Any:
    return context.get_dummy_value()


class Intrinsic:
    """A function defined by the LLVM IR of its calls, inlined where it is called.

    `define(typing_context, *argument_types)` returns None if it does not take such arguments, else
    the signature and a function `(context, builder, signature, arguments) -> LLVM value`.

    It does what `numba.extending.intrinsic` does, whose first use loads Numba's whole CPU target:
    0.3 to 0.5 s at the start of a process.
    """

    def __init__(self, define: Callable[..., Any], prefer_literal: bool = False) -> None:
        self.define = define
        self.prefer_literal = prefer_literal
        self.__name__ = define.__name__
        self.__doc__ = define.__doc__
        self._numba_type_ = IntrinsicType(self)


def intrinsic(define: Callable[..., Any]) -> Intrinsic:
    """Decorator: the function whose calls `define` types and emits."""
    return Intrinsic(define)


# -- typed memory ----------------------------------------------------------------------------------


class Pointer(types.Type):  # type: ignore[misc]
    """The address of the first of many values of one dtype. A bool is stored as a byte.

    What a `constant` pointer points to does not change while the kernel runs (the launch table), so
    loads from it may be moved out of loops whatever the kernel stores elsewhere.
    """

    def __init__(self, dtype: Any, constant: bool = False) -> None:
        self.dtype = dtype
        self.constant = constant
        super().__init__(f"{'ConstantPointer' if constant else 'Pointer'}({dtype})")


@register_model(Pointer)
class _PointerModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, pointer: Pointer) -> None:
        element = manager.lookup(pointer.dtype).get_data_type()
        super().__init__(manager, pointer, element.as_pointer())


TABLE = Pointer(types.int64, constant=True)


@typing_registry.register_global(operator.getitem)
class _LoadTemplate(AbstractTemplate):  # type: ignore[misc]
    def generic(self, args: tuple[Any, ...], kws: Any) -> Any:
        pointer, index = args
        if isinstance(pointer, Pointer) and isinstance(index, types.Integer):
            return signature(pointer.dtype, pointer, types.int64)
        return None


@typing_registry.register_global(operator.setitem)
class _StoreTemplate(AbstractTemplate):  # type: ignore[misc]
    def generic(self, args: tuple[Any, ...], kws: Any) -> Any:
        pointer, index, _value = args
        if isinstance(pointer, Pointer) and isinstance(index, types.Integer):
            return signature(types.none, pointer, types.int64, pointer.dtype)
        return None


def tag_access(builder: Any, instruction: Any) -> Any:
    """Mark a load or store as covered by the promises of the `lanes` loops around it.

    Every access to memory in a `lanes` loop must carry the mark, or LLVM distrusts them all. An
    intrinsic that emits loads and stores itself passes them through here.
    """
    groups = getattr(builder, "lanes_groups", None)
    if groups is not None:
        instruction.set_metadata("llvm.access.group", groups)
    return instruction


class _ElementAddress(ir.GEPInstr):  # type: ignore[misc]
    """The address of an element, with the promise that it does not wrap around the address space.

    LLVM needs it to read every other element by whole vectors and a shuffle
    (https://llvm.org/docs/LangRef.html#getelementptr-instruction, `nusw`); without, it gathers them
    one by one. `inbounds` would promise more than kernels keep: that the pointer itself lies within
    the array.
    """

    def descr(self, buf: Any) -> None:
        super().descr(buf)
        buf[-1] = buf[-1].replace("getelementptr", "getelementptr nusw", 1)


def _element(builder: Any, pointer: Any, index: Any) -> Any:
    instruction = _ElementAddress(builder.block, pointer, [index], inbounds=False, name="")
    builder._insert(instruction)
    return instruction


def load(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """The element of a pointer."""
    pointer, index = args
    data = builder.load(_element(builder, pointer, index))
    if sig.args[0].constant:
        data.set_metadata("invariant.load", builder.module.add_metadata([]))
    tag_access(builder, data)
    return context.get_data_as_value(builder, sig.return_type, data)


def store(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Write the element of a pointer."""
    pointer, index, value = args
    data = context.get_value_as_data(builder, sig.args[0].dtype, value)
    tag_access(builder, builder.store(data, _element(builder, pointer, index)))
    return context.get_dummy_value()


def _make_at(suffix: str, dtype: Any) -> Any:
    def at(typingctx: Any, address: Any) -> Any:
        if not isinstance(address, types.Integer):
            return None

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(sig.return_type))

        return Pointer(dtype)(types.int64), codegen

    at.__name__ = f"{suffix}_at"
    return intrinsic(at)


def _make_scratch(suffix: str, dtype: Any) -> Any:
    def scratch(typingctx: Any, size: Any) -> Any:
        if not isinstance(size, types.IntegerLiteral):
            return None
        count = size.literal_value

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            element = context.get_value_type(sig.return_type).pointee
            with builder.goto_entry_block():
                array = builder.alloca(ir.ArrayType(element, count))
                array.align = _SCRATCH_ALIGNMENT
                return builder.bitcast(array, element.as_pointer())

        return Pointer(dtype)(size), codegen

    scratch.__name__ = f"{suffix}_scratch"
    return Intrinsic(scratch, prefer_literal=True)


@intrinsic
def prefetch(typingctx: Any, address: Any) -> Any:
    """Ask for the cache line at the address: the loads that follow it need not wait one by one."""
    if not isinstance(address, types.Integer):
        return None

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = ir.IntType(8).as_pointer()
        kind = ir.IntType(32)
        signature = ir.FunctionType(ir.VoidType(), [place, kind, kind, kind])
        function = builder.module.declare_intrinsic("llvm.prefetch", [place], signature)
        read, keep, data = kind(0), kind(3), kind(1)
        builder.call(function, [builder.inttoptr(args[0], place), read, keep, data])
        return context.get_dummy_value()

    return types.none(types.int64), codegen


# -- calls -----------------------------------------------------------------------------------------


@intrinsic
def call(typingctx: Any, routine: Any, *args: Any) -> Any:
    """Call the Fortran subroutine at an address."""
    known = (Pointer, types.Integer, types.Float)
    if not isinstance(routine, types.Integer) or not all(isinstance(arg, known) for arg in args):
        return None
    kinds = [types.int64 if isinstance(arg, types.Integer) else arg for arg in args]

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        places = []
        for kind, value in zip(kinds, values[1:], strict=True):
            place = value
            if not isinstance(kind, Pointer):
                place = cgutils.alloca_once(builder, value.type)
                builder.store(value, place)
            places.append(builder.bitcast(place, cgutils.voidptr_t))
        function = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t] * len(places))
        builder.call(builder.inttoptr(values[0], function.as_pointer()), places)
        return context.get_dummy_value()

    return types.none(types.int64, *kinds), codegen


# -- loops -----------------------------------------------------------------------------------------


class Loop(types.Opaque):  # type: ignore[misc]
    """A loop over int64 by the function `name`: `range`, `lanes` or `few_lanes`.

    `parallel` tells that iterations do not depend on each other through memory, `few` that there
    are too few of them for a loop over whole vectors and another one for the rest.
    """

    def __init__(self, name: str, parallel: bool, few: bool = False) -> None:
        self.parallel = parallel
        self.few = few
        super().__init__(name)


@register_model(Loop)
class _LoopModel(models.OpaqueModel):  # type: ignore[misc]
    """A loop is no value: `Turns` hold what is known of it while it is lowered."""


@dataclass(frozen=True)
class Turns:
    """The turns of a loop: `start`, `start + step`, ..., while an index is `comparison` `end`."""

    start: Any
    end: Any
    step: Any
    comparison: str


def _lower_range(context: Any, builder: Any, sig: Any, args: Any) -> Turns:
    """The turns of a loop over [start, stop) in steps of `step`, which may be negative but not 0.

    As `range` does, an empty interval gives no iteration. A step of 0 gives undefined behaviour.
    """
    one, zero = ir.Constant(_I64, 1), ir.Constant(_I64, 0)
    start, stop, step = {1: [zero, *args, one], 2: [*args, one], 3: args}[len(args)]
    if isinstance(step, ir.Constant):
        return Turns(start, stop, step, "<" if step.constant > 0 else ">")
    down = builder.icmp_signed("<", step, zero)
    distance = builder.sub(stop, start)
    distance = builder.select(down, builder.neg(distance), distance)
    size = builder.select(down, builder.neg(step), step)
    rounded_up = builder.add(distance, builder.sub(size, one))
    # A negative distance would be rounded towards 0, that is up, to one iteration too many.
    empty = builder.icmp_signed("<=", distance, zero)
    count = builder.select(empty, zero, builder.sdiv(rounded_up, size))
    return Turns(start, builder.add(start, builder.mul(count, step)), step, "!=")


def _make_loop(loop: Loop, arities: tuple[int, ...]) -> Intrinsic:
    def iterate(typingctx: Any, *args: Any) -> Any:
        if len(args) in arities and all(isinstance(arg, types.Integer) for arg in args):
            return loop(*[types.int64] * len(args)), _lower_range
        return None

    iterate.__name__ = loop.name
    return Intrinsic(iterate)


# -- numbers --------------------------------------------------------------------------------------


def _make_choice(name: str, comparison: str) -> Any:
    def choose(typingctx: Any, a: Any, b: Any) -> Any:
        if not (isinstance(a, types.Integer) and isinstance(b, types.Integer)):
            return None

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.select(builder.icmp_signed(comparison, *args), *args)

        return types.int64(types.int64, types.int64), codegen

    choose.__name__ = name
    return intrinsic(choose)


RANGE = _make_loop(Loop("range", parallel=False), (1, 2, 3))


def _make_step(llvm_name: str) -> Callable[..., Any]:
    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = args[0].type
        signature = ir.FunctionType(kind, [kind, kind])
        function = builder.module.declare_intrinsic(llvm_name, [kind], signature)
        return builder.call(function, args, fastmath=("nsz",))

    return emit


#: What a step such as `largest = maximum(largest, x)` emits for floats in place of the function of
#: that name. LLVM knows reductions by `llvm.maximum`, which propagates NaN as NumPy does; the
#: comparisons that spell out `maximum` elsewhere stop it from using vectors.
FLOAT_STEPS: Mapping[str, Callable[..., Any]] = {
    "maximum": _make_step("llvm.maximum"),
    "minimum": _make_step("llvm.minimum"),
}


def _make_conversion(suffix: str, dtype: Any) -> Intrinsic:
    def convert(typingctx: Any, number: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return context.cast(builder, args[0], sig.args[0], dtype)

        is_number = isinstance(number, types.Number | types.Boolean)
        return (dtype(number), codegen) if is_number else None

    convert.__name__ = suffix
    return Intrinsic(convert)


MEMORY_AND_LOOPS: Mapping[str, Any] = {
    "inf": math.inf,
    "nan": math.nan,
    **{suffix: _make_conversion(suffix, dtype) for suffix, dtype in SUFFIXES.items()},
    **{f"{suffix}_at": _make_at(suffix, dtype) for suffix, dtype in SUFFIXES.items()},
    **{f"{suffix}_scratch": _make_scratch(suffix, dtype) for suffix, dtype in SUFFIXES.items()},
    "call": call,
    "prefetch": prefetch,
    "range": range,
    "lanes": _make_loop(Loop("lanes", parallel=True), (2,)),
    "few_lanes": _make_loop(Loop("few_lanes", parallel=True, few=True), (2,)),
    "min_i64": _make_choice("min_i64", "<"),
    "max_i64": _make_choice("max_i64", ">"),
}
