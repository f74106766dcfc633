"""LLVM code of the scalar operations on the device: the formulas of the CPU, and few stand-ins.

The formulas are the same text (graphdl.kernels.elementary, graphdl.kernels.arithmetic). What
differs is how an LLVM intrinsic is called (NVVM knows some of LLVM's, libdevice has the others),
that a vector is its elements one by one (a GPU has no vector registers: only loads and stores are
wide), and that a rare case is a branch.

Stand-ins, where the formula would use float64 for float32 operands, which most GPUs do at 1/64 of
the rate: the power, hypot, logaddexp (whose error then is 2 ulp of the larger of the operands and
the result), and the sine, cosine and tangent of huge angles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from llvmlite import ir

from graphdl.errors import UnsupportedError
from graphdl.kernels import elementary, half_scalars
from graphdl.kernels.cuda.angles import reduce_float32_angle
from graphdl.kernels.scalar import Scalar
from graphdl.kernels.value import Number, Value, element_type

#: LLVM's intrinsics by the names of libdevice's functions, without the `f` of float32.
#: https://docs.nvidia.com/cuda/libdevice-users-guide/
LIBDEVICE: Mapping[str, str] = {
    "fabs": "__nv_fabs",
    "floor": "__nv_floor",
    "ceil": "__nv_ceil",
    "trunc": "__nv_trunc",
    "rint": "__nv_rint",
    "copysign": "__nv_copysign",
    "sqrt": "__nv_sqrt",
    "fma": "__nv_fma",
}


class DeviceValue(Value):
    """A value on the device; its formulas are those of `Value`."""

    __slots__ = ()
    __hash__ = None
    divides_integers = True  # a few dozen instructions, as of floats; float64 is slow on most

    def _new(self, handle: ir.Value, dtype: str | None = None) -> Value:
        return DeviceValue(self.builder, handle, dtype or self.dtype)

    def literal(self, number: Number, dtype: str | None = None) -> Value:
        made = super().literal(number, dtype)
        return DeviceValue(self.builder, made.handle, made.dtype)

    def __neg__(self) -> Value:
        """NVVM reads the LLVM of a time before `fneg`, when this was a negation."""
        if not self.is_float:
            return super().__neg__()
        return self._new(self.builder.fsub(self.literal(-0.0).handle, self.handle))

    def __mul__(self, other: Value | Number) -> Value:
        """A product that is rounded by itself: NVVM and ptxas merge others with sums into fused
        operations, under which compensated arithmetic does not mean what it says."""
        if not self.is_float:
            return super().__mul__(other)
        symbol = f"llvm.nvvm.mul.rn.{'f' if self.dtype == 'float32' else 'd'}"
        return self._new(self.library(symbol, [self.handle, self._operand(other)]))

    __rmul__ = __mul__

    def _call_intrinsic(self, name: str, handles: list[ir.Value], dtype: str) -> Value:
        if not self.is_float:
            return super()._call_intrinsic(name, handles, dtype)
        symbol = LIBDEVICE[name] + ("f" if self.dtype == "float32" else "")
        return self._new(self.library(symbol, handles), dtype)

    def library(self, symbol: str, handles: Sequence[ir.Value]) -> ir.Value:
        """Call a function of libdevice on operands of this value's type."""
        kind = element_type(self.dtype)
        function = self.builder.module.globals.get(symbol)
        if function is None:
            result = ir.FunctionType(kind, [kind] * len(handles))
            function = ir.Function(self.builder.module, result, symbol)
        return self.builder.call(function, list(handles))

    def rest(self, other: Value) -> Value:
        if not self.is_float:
            return super().rest(other)
        suffix = "f" if self.dtype == "float32" else ""
        return self._new(self.library("__nv_fmod" + suffix, [self.handle, other.handle]))

    def external(self, symbol: str, *others: Value) -> Value:
        raise UnsupportedError(f"{symbol} is native code of the CPU, which a GPU does not run")


def _power(x: Value, y: Value) -> Value:
    """libdevice's power of float32: at most 4 ulp (CUDA C++ Programming Guide, 17.1)."""
    if x.dtype != "float32":
        return elementary.power(x, y)
    assert isinstance(x, DeviceValue)
    return x._new(x.library("__nv_powf", [x.handle, y.handle]))


def _of_any_angle(evaluate: Callable[[Value, Value, Value], Value]) -> Callable[[Value], Value]:
    """The function of a quadrant and two parts of an angle, of angles of any size."""
    wide = elementary.of_any_angle(evaluate)

    def formula(x: Value) -> Value:
        if x.dtype != "float32":
            return wide(x)
        y = evaluate(*reduce_float32_angle(x))
        return (abs(x) < float("inf")).select(y, float("nan"))

    return formula


def _hypot(x: Value, y: Value) -> Value:
    """libdevice's hypot of float32: at most 3 ulp."""
    if x.dtype != "float32":
        return elementary.hypot(x, y)
    assert isinstance(x, DeviceValue)
    return x._new(x.library("__nv_hypotf", [x.handle, y.handle]))


def _convert_half(instruction: str) -> Callable[[Value], Value]:
    """One instruction of PTX between float32 and the bits of a float of 16 bits, which the bits
    have a register class of their own for.

    https://docs.nvidia.com/cuda/parallel-thread-execution/#data-movement-and-conversion-instructions-cvt
    """
    narrows = instruction.startswith("cvt.rn")
    single, bits = ir.FloatType(), ir.IntType(16)

    def formula(x: Value) -> Value:
        given = half_scalars.to_odd_float32(x) if narrows else x
        kind = ir.FunctionType(bits, [single]) if narrows else ir.FunctionType(single, [bits])
        constraint = "=h,f" if narrows else "=f,h"
        found = x.builder.asm(kind, f"{instruction} $0, $1;", constraint, [given.handle], False)
        return x._new(found, "uint16" if narrows else "float32")

    return formula


def _to_bfloat16(x: Value) -> Value:
    return _round_to_bfloat16(x.convert("float32"))


_round_to_bfloat16 = _convert_half("cvt.rn.bf16.f32")

FORMULAS: Mapping[str, Callable[..., Value]] = {
    "from_float16": _convert_half("cvt.f32.f16"),
    "to_float16": _convert_half("cvt.rn.f16.f32"),
    "to_bfloat16": _to_bfloat16,
    "power": _power,
    "hypot": _hypot,
    "logaddexp": elementary.logaddexp_in_own_type,
    "logaddexp2": elementary.logaddexp2_in_own_type,
}

RARE: Mapping[str, Callable[..., Value]] = {
    "sin": _of_any_angle(
        lambda q, r, low: elementary.of_quadrant(q, *elementary.sine_and_cosine(r, low))
    ),
    "cos": _of_any_angle(
        lambda q, r, low: elementary.of_quadrant(q + 1, *elementary.sine_and_cosine(r, low))
    ),
    "tan": _of_any_angle(elementary.tangent_of_quadrant),
}


def emit(
    scalar: Scalar, builder: ir.IRBuilder, dtypes: Sequence[str], operands: Sequence[ir.Value]
) -> ir.Value:
    """Emit one operation on scalars; returns the result."""
    if scalar.outlined:
        return builder.call(definition(scalar, builder.module, dtypes), list(operands))
    values = [DeviceValue(builder, x, dtype) for x, dtype in zip(operands, dtypes, strict=True)]
    if scalar.usual is not None and dtypes[0].startswith("float"):
        return builder.call(definition(scalar, builder.module, dtypes), list(operands))
    return _formula(scalar)(*values).handle


def _formula(scalar: Scalar) -> Callable[..., Value]:
    return FORMULAS.get(scalar.name) or scalar.formula


def definition(scalar: Scalar, module: ir.Module, dtypes: Sequence[str]) -> ir.Function:
    """The module's function of a scalar operation."""
    name = "_".join(["graphdl", scalar.name, *dtypes])
    if name in module.globals:
        return module.globals[name]
    function, values = _function(scalar, module, dtypes, name)
    function.attributes.add("alwaysinline")
    builder = values[0].builder
    formula = _formula(scalar)
    if scalar.usual is None or not dtypes[0].startswith("float"):
        builder.ret(formula(*values).handle)
        return function
    usual, otherwise = function.append_basic_block(), function.append_basic_block()
    builder.cbranch(scalar.usual(*values).handle, usual, otherwise)
    builder.position_at_end(usual)
    builder.ret(formula(*values).handle)
    builder.position_at_end(otherwise)
    builder.ret(builder.call(_rare(scalar, module, dtypes), function.args))
    return function


def _rare(scalar: Scalar, module: ir.Module, dtypes: Sequence[str]) -> ir.Function:
    name = "_".join(["graphdl", scalar.name, "rare", *dtypes])
    if name in module.globals:
        return module.globals[name]
    function, values = _function(scalar, module, dtypes, name)
    rare = RARE.get(scalar.name) or scalar.rare
    assert rare is not None
    values[0].builder.ret(rare(*values).handle)
    return function


def _function(
    scalar: Scalar, module: ir.Module, dtypes: Sequence[str], name: str
) -> tuple[ir.Function, list[Value]]:
    """A function with an empty body to write, and its arguments."""
    result = element_type(scalar.result(tuple(dtypes)))
    kind = ir.FunctionType(result, [element_type(dtype) for dtype in dtypes])
    function = ir.Function(module, kind, name)
    function.linkage = "internal"
    builder = ir.IRBuilder(function.append_basic_block())
    return function, [
        DeviceValue(builder, x, dtype) for x, dtype in zip(function.args, dtypes, strict=True)
    ]
