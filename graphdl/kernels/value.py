"""One LLVM value with Python's operators: what the scalar formulas are written over.

A formula such as `exp` or `floor_divide` is a Python function over `Value`s; calling it emits its
instructions. The same formula serves float32 and float64, scalars and LLVM vectors, the CPU and
CUDA, because it asks the value for its dtype and knows nothing else. No instruction carries a
fast-math flag unless the formula asks for it by `relaxed`, so compensated arithmetic means what it
says; `fma` is always fused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Final

import numpy as np
from llvmlite import ir

Number = int | float
# What graphdl's default arithmetic allows LLVM: never `nnan` nor `ninf`, so NaN and infinity count.
RELAXED: Final = ("contract", "arcp", "nsz")

_FLOATS: Final[dict[str, ir.Type]] = {"float32": ir.FloatType(), "float64": ir.DoubleType()}


def element_type(dtype: str) -> ir.Type:
    """The LLVM type of one value of a dtype; a bool is an `i1`."""
    return _FLOATS[dtype] if dtype in _FLOATS else ir.IntType(width_of(dtype))


def width_of(dtype: str) -> int:
    """The bits of a dtype. Formulas may use integers that NumPy lacks, such as "uint192"."""
    return 1 if dtype == "bool" else int(dtype.lstrip("uintfloa"))


class Value:
    """An LLVM value and its NumPy dtype name, emitting instructions at the builder's position."""

    __slots__ = ("builder", "dtype", "handle")
    __hash__ = None  # type: ignore[assignment]  # `==` emits an instruction
    #: Whether dividing integers by the instruction is about as fast as dividing floats, in a loop.
    divides_integers: ClassVar[bool] = False

    def __init__(self, builder: ir.IRBuilder, handle: ir.Value, dtype: str) -> None:
        self.builder = builder
        self.handle = handle
        self.dtype = dtype

    # Types and constants

    @property
    def is_float(self) -> bool:
        return self.dtype in _FLOATS

    @property
    def is_signed(self) -> bool:
        return self.dtype.startswith("int")

    @property
    def width(self) -> int:
        """Bits of one element."""
        return width_of(self.dtype)

    @property
    def lanes(self) -> int:
        """Elements of an LLVM vector; 0 for a scalar."""
        kind = self.handle.type
        return kind.count if isinstance(kind, ir.VectorType) else 0

    def _type(self, dtype: str) -> ir.Type:
        one = element_type(dtype)
        return ir.VectorType(one, self.lanes) if self.lanes else one

    def literal(self, number: Number, dtype: str | None = None) -> Value:
        """A constant of this value's shape, and of its dtype unless another is named."""
        dtype = dtype or self.dtype
        if dtype == "bool":
            number = int(number)
        elif dtype in _FLOATS:
            number = float(np.dtype(dtype).type(number))
        else:  # LLVM integers have no sign: write the bits as a signed number
            width = width_of(dtype)
            number = (int(number) + (1 << (width - 1))) % (1 << width) - (1 << (width - 1))
        kind = self._type(dtype)
        return Value(
            self.builder, ir.Constant(kind, [number] * self.lanes if self.lanes else number), dtype
        )

    def _operand(self, other: Value | Number) -> ir.Value:
        if isinstance(other, Value):
            if other.dtype != self.dtype:
                raise TypeError(f"a scalar formula mixes {self.dtype} and {other.dtype}")
            return other.handle
        return self.literal(other).handle

    def _new(self, handle: ir.Value, dtype: str | None = None) -> Value:
        return Value(self.builder, handle, dtype or self.dtype)

    def intrinsic(self, name: str, *others: Value | Number, dtype: str | None = None) -> Value:
        """Call `llvm.<name>`, overloaded on this value's type; all operands have that type."""
        handles = [self.handle, *(self._operand(other) for other in others)]
        return self._call_intrinsic(name, handles, dtype or self.dtype)

    def _call_intrinsic(self, name: str, handles: list[ir.Value], dtype: str) -> Value:
        suffix = {"float32": "f32", "float64": "f64"}.get(self.dtype, f"i{self.width}")
        full = f"llvm.{name}.v{self.lanes}{suffix}" if self.lanes else f"llvm.{name}.{suffix}"
        module = self.builder.module
        function = module.globals.get(full)
        if function is None:
            result = ir.FunctionType(self._type(dtype), [handle.type for handle in handles])
            function = ir.Function(module, result, full)
        return self._new(self.builder.call(function, handles), dtype)

    # Arithmetic

    def _arithmetic(
        self,
        other: Value | Number,
        floating: Callable[..., ir.Value],
        integer: Callable[..., ir.Value],
        swap: bool = False,
        flags: tuple[str, ...] = (),
    ) -> Value:
        left, right = self.handle, self._operand(other)
        if swap:
            left, right = right, left
        if self.is_float:
            return self._new(floating(left, right, flags=flags))
        return self._new(integer(left, right))

    def __add__(self, other: Value | Number) -> Value:
        return self._arithmetic(other, self.builder.fadd, self.builder.add)

    def __sub__(self, other: Value | Number) -> Value:
        return self._arithmetic(other, self.builder.fsub, self.builder.sub)

    def __mul__(self, other: Value | Number) -> Value:
        return self._arithmetic(other, self.builder.fmul, self.builder.mul)

    def __truediv__(self, other: Value | Number) -> Value:
        return self._new(self.builder.fdiv(self.handle, self._operand(other)))

    def __radd__(self, other: Number) -> Value:
        return self._arithmetic(other, self.builder.fadd, self.builder.add, swap=True)

    def __rsub__(self, other: Number) -> Value:
        return self._arithmetic(other, self.builder.fsub, self.builder.sub, swap=True)

    def __rmul__(self, other: Number) -> Value:
        return self._arithmetic(other, self.builder.fmul, self.builder.mul, swap=True)

    def __rtruediv__(self, other: Number) -> Value:
        return self._new(self.builder.fdiv(self._operand(other), self.handle))

    def relaxed(self, operator: str, other: Value) -> Value:
        """`add`, `sub`, `mul` or `div` of floats with the flags of graphdl's default arithmetic."""
        emit = getattr(self.builder, "f" + operator)
        return self._new(emit(self.handle, self._operand(other), flags=RELAXED))

    def quotient(self, other: Value) -> Value:
        """Integer division towards 0. The divisor must not be 0, nor -1 under the minimum."""
        emit = self.builder.sdiv if self.is_signed else self.builder.udiv
        return self._new(emit(self.handle, other.handle))

    def rest(self, other: Value) -> Value:
        """The remainder with the sign of the dividend: exact for floats, for which LLVM calls
        `fmod`; for integers under the conditions of `quotient`."""
        if self.is_float:
            return self._new(self.builder.frem(self.handle, other.handle))
        emit = self.builder.srem if self.is_signed else self.builder.urem
        return self._new(emit(self.handle, other.handle))

    def __neg__(self) -> Value:
        if self.is_float:
            return self._new(self.builder.fneg(self.handle))
        return self._new(self.builder.neg(self.handle))

    def __abs__(self) -> Value:
        return self.intrinsic("fabs")

    def fma(self, factor: Value | Number, addend: Value | Number) -> Value:
        """self * factor + addend with one rounding."""
        return self.intrinsic("fma", factor, addend)

    def sqrt(self) -> Value:
        return self.intrinsic("sqrt")

    def rint(self) -> Value:
        return self.intrinsic("rint")

    def floor(self) -> Value:
        return self.intrinsic("floor")

    def trunc(self) -> Value:
        return self.intrinsic("trunc")

    def copysign(self, sign: Value | Number) -> Value:
        return self.intrinsic("copysign", sign)

    def external(self, symbol: str, *others: Value) -> Value:
        """Call the C function `double symbol(..., int)`, its last argument 0, on float64 and int64.

        It is taken to have no effect but its result. Elements of vectors are taken one by one.
        """
        handles = [self.handle, *(other.handle for other in others)]
        kinds = [element_type(operand.dtype) for operand in (self, *others)]
        double, flag = _FLOATS["float64"], ir.IntType(32)
        function = self.builder.module.globals.get(symbol)
        if function is None:
            kind = ir.FunctionType(double, [*kinds, flag])
            function = ir.Function(self.builder.module, kind, symbol)
            for attribute in ("nounwind", "readnone", "willreturn"):
                set.add(function.attributes, attribute)  # llvmlite does not know all of them
        if not self.lanes:
            return self._new(self.builder.call(function, [*handles, flag(0)]), "float64")
        result = ir.Constant(self._type("float64"), ir.Undefined)
        for lane in map(flag, range(self.lanes)):
            elements = [self.builder.extract_element(handle, lane) for handle in handles]
            one = self.builder.call(function, [*elements, flag(0)])
            result = self.builder.insert_element(result, one, lane)
        return self._new(result, "float64")

    # Bits

    def _bitwise(self, other: Value | Number, emit: Callable[..., ir.Value]) -> Value:
        return self._new(emit(self.handle, self._operand(other)))

    def __and__(self, other: Value | Number) -> Value:
        return self._bitwise(other, self.builder.and_)

    def __or__(self, other: Value | Number) -> Value:
        return self._bitwise(other, self.builder.or_)

    def __xor__(self, other: Value | Number) -> Value:
        return self._bitwise(other, self.builder.xor)

    def __invert__(self) -> Value:
        return self ^ (1 if self.dtype == "bool" else -1)

    def __lshift__(self, other: Value | Number) -> Value:
        return self._bitwise(other, self.builder.shl)

    def __rshift__(self, other: Value | Number) -> Value:
        """Arithmetic for signed dtypes, logical for unsigned ones."""
        return self._bitwise(other, self.builder.ashr if self.is_signed else self.builder.lshr)

    def shift_logical(self, count: int) -> Value:
        """Shift right and fill with zeros, whatever the dtype."""
        return self._bitwise(count, self.builder.lshr)

    def bits(self) -> Value:
        """The bits of a float as a signed integer of its width."""
        dtype = f"int{self.width}"
        return self._new(self.builder.bitcast(self.handle, self._type(dtype)), dtype)

    def as_float(self) -> Value:
        """The float of these bits."""
        dtype = f"float{self.width}"
        return self._new(self.builder.bitcast(self.handle, self._type(dtype)), dtype)

    def lookup(self, name: str, words: Sequence[int]) -> Value:
        """The uint64 at this index of a constant table, on scalars only."""
        module = self.builder.module
        kind = ir.ArrayType(ir.IntType(64), len(words))
        table = module.globals.get(name)
        if table is None:
            table = ir.GlobalVariable(module, kind, name)
            table.linkage, table.global_constant = "internal", True
            table.initializer = ir.Constant(kind, list(words))
        address = self.builder.gep(table, [ir.IntType(64)(0), self.handle], inbounds=True)
        return self._new(self.builder.load(address), "uint64")

    # Comparisons: of floats ordered (false for NaN), but `!=` is true for NaN

    def _compare(self, operator: str, other: Value | Number) -> Value:
        left, right = self.handle, self._operand(other)
        if self.is_float:
            unordered = operator == "!="
            emit = self.builder.fcmp_unordered if unordered else self.builder.fcmp_ordered
        else:
            emit = self.builder.icmp_signed if self.is_signed else self.builder.icmp_unsigned
        return self._new(emit(operator, left, right), "bool")

    def __lt__(self, other: Value | Number) -> Value:
        return self._compare("<", other)

    def __le__(self, other: Value | Number) -> Value:
        return self._compare("<=", other)

    def __gt__(self, other: Value | Number) -> Value:
        return self._compare(">", other)

    def __ge__(self, other: Value | Number) -> Value:
        return self._compare(">=", other)

    def __eq__(self, other: Value | Number) -> Value:  # type: ignore[override]
        return self._compare("==", other)

    def __ne__(self, other: Value | Number) -> Value:  # type: ignore[override]
        return self._compare("!=", other)

    def is_nan(self) -> Value:
        return self != self

    def select(self, yes: Value | Number, no: Value | Number) -> Value:
        """`yes` where this bool is true, else `no`; one of them may be a number."""
        shape = yes if isinstance(yes, Value) else no
        if not isinstance(shape, Value):
            raise TypeError("select needs the dtype of one of its two values")
        handle = self.builder.select(self.handle, shape._operand(yes), shape._operand(no))
        return shape._new(handle)

    def repeat(
        self,
        condition: Callable[[Sequence[Value]], Value],
        step: Callable[[Sequence[Value]], Sequence[Value]],
        state: Sequence[Value],
    ) -> tuple[Value, ...]:
        """`while condition(state): state = step(state)`, on scalars only; the last state."""
        if self.lanes:
            raise TypeError("a loop that ends by its data has no vector form")
        builder = self.builder
        before = builder.block
        test, body, end = (builder.append_basic_block(name) for name in ("test", "step", "end"))
        builder.branch(test)
        builder.position_at_end(test)
        variables = [value._new(builder.phi(value.handle.type)) for value in state]
        builder.cbranch(condition(variables).handle, body, end)
        builder.position_at_end(body)
        following = step(variables)
        for variable, first, later in zip(variables, state, following, strict=True):
            variable.handle.add_incoming(first.handle, before)
            variable.handle.add_incoming(later.handle, builder.block)
        builder.branch(test)
        builder.position_at_end(end)
        return tuple(variables)

    # Conversions

    def convert(self, dtype: str) -> Value:
        """The conversion of C. A float outside the range of an integer gives LLVM's poison."""
        if dtype == self.dtype:
            return self
        if dtype == "bool":
            return self != 0
        kind, source = self._type(dtype), self
        if source.is_float and dtype in _FLOATS:
            emit = self.builder.fpext if dtype == "float64" else self.builder.fptrunc
        elif source.is_float:
            emit = self.builder.fptosi if dtype.startswith("int") else self.builder.fptoui
        elif dtype in _FLOATS:
            emit = self.builder.sitofp if source.is_signed else self.builder.uitofp
        elif (width := width_of(dtype)) == source.width:
            return self._new(self.handle, dtype)
        elif width < source.width:
            emit = self.builder.trunc
        else:
            emit = self.builder.sext if source.is_signed else self.builder.zext
        return self._new(emit(self.handle, kind), dtype)
