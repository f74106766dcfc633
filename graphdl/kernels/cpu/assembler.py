"""A small structured assembler for the runtime's own native functions.

The runner of launch tapes and the entry from Python are a few hundred machine instructions that
must exist before anything else does, in a few milliseconds and without Numba. They are written
here as Python that emits LLVM IR text:

    module = Module("example", ["sum_of"], process=0)
    with module.function("sum_of", 2) as (f, (first, count)):
        total = f.variable(0)
        with f.count(0, count) as i:
            total.set(total.get() + f.load(first + i * 8))
        f.leave(total.get())

Every value is a 64-bit integer, addresses included; the few narrower or floating values that a C
function wants are made at the call.

LLVM's optimiser is left out. It would take five times as long as the rest of the compilation and
save 20 ns of a call's 300; a program's time is in its kernels.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from msgspec import Struct

from graphdl.kernels import cache
from graphdl.kernels.cpu import loading
from graphdl.kernels.cpu.host import host

Type = Literal["i64", "i32", "double", "float"]
Returned = Literal["i64", "i32", "double", "void"]

#: How a loop that waits tells the processor so, by machine.
_PAUSE = {
    "x86_64": "call void @llvm.x86.sse2.pause()",
    "amd64": "call void @llvm.x86.sse2.pause()",
    "aarch64": "call void @llvm.aarch64.isb(i32 15)",
    "arm64": "call void @llvm.aarch64.isb(i32 15)",
}.get(platform.machine().lower(), "fence seq_cst")
_PAUSE_DECLARATIONS = (
    ["declare " + _PAUSE.removeprefix("call ").replace("i32 15", "i32")]
    if _PAUSE.startswith("call ")
    else []
)


class Condition(Struct, frozen=True):
    """A truth value (LLVM's i1)."""

    function: Function
    name: str

    def __and__(self, other: Condition) -> Condition:
        return Condition(self.function, self.function.emit(f"and i1 {self.name}, {other.name}"))

    def __or__(self, other: Condition) -> Condition:
        return Condition(self.function, self.function.emit(f"or i1 {self.name}, {other.name}"))


class Value(Struct, frozen=True):
    """A value held by an LLVM register, or a constant; a signed 64-bit integer unless said."""

    function: Function
    name: str
    type: Type = "i64"

    def _binary(self, operation: str, other: Value | int) -> Value:
        text = f"{operation} i64 {self.name}, {_name(other)}"
        return Value(self.function, self.function.emit(text))

    def _compare(self, relation: str, other: Value | int) -> Condition:
        text = f"icmp {relation} i64 {self.name}, {_name(other)}"
        return Condition(self.function, self.function.emit(text))

    def __add__(self, other: Value | int) -> Value:
        return self._binary("add", other)

    def __sub__(self, other: Value | int) -> Value:
        return self._binary("sub", other)

    def __mul__(self, other: Value | int) -> Value:
        return self._binary("mul", other)

    def __floordiv__(self, other: Value | int) -> Value:
        """The quotient of two numbers that are not negative."""
        return self._binary("udiv", other)

    def __mod__(self, other: Value | int) -> Value:
        """The remainder of two numbers that are not negative."""
        return self._binary("urem", other)

    def __and__(self, other: Value | int) -> Value:
        return self._binary("and", other)

    def __or__(self, other: Value | int) -> Value:
        return self._binary("or", other)

    def __lshift__(self, other: Value | int) -> Value:
        return self._binary("shl", other)

    def __rshift__(self, other: Value | int) -> Value:
        return self._binary("lshr", other)

    def __lt__(self, other: Value | int) -> Condition:
        return self._compare("slt", other)

    def __le__(self, other: Value | int) -> Condition:
        return self._compare("sle", other)

    def __gt__(self, other: Value | int) -> Condition:
        return self._compare("sgt", other)

    def __ge__(self, other: Value | int) -> Condition:
        return self._compare("sge", other)

    def equals(self, other: Value | int) -> Condition:
        return self._compare("eq", other)

    def differs(self, other: Value | int) -> Condition:
        return self._compare("ne", other)


def _name(value: Value | int) -> str:
    return value.name if isinstance(value, Value) else str(value)


class Variable(Struct, frozen=True):
    """A 64-bit integer that changes."""

    function: Function
    slot: str

    def get(self) -> Value:
        return Value(self.function, self.function.emit(f"load i64, ptr {self.slot}"))

    def set(self, value: Value | int) -> None:
        self.function.line(f"store i64 {_name(value)}, ptr {self.slot}")


class Function:
    """A function being written. All arguments and the result are 64-bit integers."""

    def __init__(self, name: str, parameters: int) -> None:
        self.name = name
        self._parameters = parameters
        self._slots: list[str] = []
        self._lines: list[str] = []
        self._registers = 0
        self._labels = 0
        self._open = True  # whether control can reach the next line

    # text

    def line(self, text: str) -> None:
        if self._open:
            self._lines.append(f"  {text}")

    def emit(self, text: str) -> str:
        """Emit an instruction that gives a value, and return the register's name."""
        self._registers += 1
        register = f"%r{self._registers}"
        self.line(f"{register} = {text}")
        return register

    def _label(self, hint: str) -> str:
        self._labels += 1
        return f"{hint}{self._labels}"

    def _place(self, label: str) -> None:
        self._lines.append(f"{label}:")
        self._open = True

    def _end_block(self, text: str) -> None:
        self.line(text)
        self._open = False

    def text(self, linkage: str) -> str:
        """The function as LLVM IR; one that ends without saying so returns 0."""
        parameters = ", ".join(f"i64 %p{i}" for i in range(self._parameters))
        self.leave()
        body = "\n".join(self._slots + self._lines)
        return f"define {linkage} i64 @{self.name}({parameters}) nounwind {{\nentry:\n{body}\n}}\n"

    # values

    def arguments(self) -> tuple[Value, ...]:
        return tuple(Value(self, f"%p{i}") for i in range(self._parameters))

    def constant(self, number: int) -> Value:
        return Value(self, str(number))

    def address_of(self, symbol: str) -> Value:
        """The address of a function or of a global of the module."""
        return Value(self, f"ptrtoint (ptr @{symbol} to i64)")

    def variable(self, value: Value | int) -> Variable:
        self._registers += 1
        slot = f"%v{self._registers}"
        self._slots.append(f"  {slot} = alloca i64")
        variable = Variable(self, slot)
        variable.set(value)
        return variable

    def stack(self, size: Value | int, align: int = 8) -> Value:
        """The address of `size` bytes that live until the function returns; not to use in loops."""
        slot = self.emit(f"alloca i8, i64 {_name(size)}, align {align}")
        return Value(self, self.emit(f"ptrtoint ptr {slot} to i64"))

    def select(self, condition: Condition, yes: Value | int, no: Value | int) -> Value:
        text = f"select i1 {condition.name}, i64 {_name(yes)}, i64 {_name(no)}"
        return Value(self, self.emit(text))

    def smaller(self, a: Value, b: Value | int) -> Value:
        return self.select(a < b, a, b)

    def larger(self, a: Value, b: Value | int) -> Value:
        return self.select(a > b, a, b)

    def to_float(self, value: Value, type: Literal["double", "float"]) -> Value:
        """An integer or a double as a floating point number of the type."""
        if value.type == type:
            return value
        operation = "fptrunc" if value.type == "double" else "sitofp"
        return Value(self, self.emit(f"{operation} {value.type} {value.name} to {type}"), type)

    def narrow(self, value: Value) -> Value:
        """The low 32 bits, for a C function that takes an int."""
        return Value(self, self.emit(f"trunc i64 {value.name} to i32"), "i32")

    # memory

    def _pointer(self, address: Value | int) -> str:
        return self.emit(f"inttoptr i64 {_name(address)} to ptr")

    def load(self, address: Value, bits: Literal[8, 32, 64] = 64) -> Value:
        """The integer at the address, extended with its sign."""
        if bits == 64:
            return Value(self, self.emit(f"load i64, ptr {self._pointer(address)}"))
        read = self.emit(f"load i{bits}, ptr {self._pointer(address)}")
        return Value(self, self.emit(f"sext i{bits} {read} to i64"))

    def store(self, address: Value, value: Value | int) -> None:
        """Write 8 bytes, or the 4 or 8 of a floating point number."""
        type_ = value.type if isinstance(value, Value) else "i64"
        self.line(f"store {type_} {_name(value)}, ptr {self._pointer(address)}")

    def load_shared(self, address: Value) -> Value:
        """Read what another thread may write: it sees all that thread wrote before.

        Of such reads and of the exchanges and additions below there is one order for all threads.
        """
        pointer = self._pointer(address)
        return Value(self, self.emit(f"load atomic i64, ptr {pointer} seq_cst, align 8"))

    def store_shared(self, address: Value, value: Value | int) -> None:
        pointer = self._pointer(address)
        self.line(f"store atomic i64 {_name(value)}, ptr {pointer} release, align 8")

    def fetch_add(self, address: Value, value: Value | int) -> Value:
        """Add atomically; the value before."""
        pointer = self._pointer(address)
        return Value(self, self.emit(f"atomicrmw add ptr {pointer}, i64 {_name(value)} seq_cst"))

    def exchange(self, address: Value, value: Value | int) -> Value:
        """Write atomically; the value before."""
        pointer = self._pointer(address)
        return Value(self, self.emit(f"atomicrmw xchg ptr {pointer}, i64 {_name(value)} seq_cst"))

    def compare_exchange(self, address: Value, expected: Value | int, value: Value | int) -> Value:
        """Write atomically if what is there is as expected; the value before."""
        words = f"i64 {_name(expected)}, i64 {_name(value)}"
        pair = self.emit(f"cmpxchg ptr {self._pointer(address)}, {words} seq_cst seq_cst")
        return Value(self, self.emit(f"extractvalue {{ i64, i1 }} {pair}, 0"))

    def pause(self) -> None:
        """Tell the processor that this is a loop that waits."""
        self.line(_PAUSE)

    # calls

    def call(
        self, target: Value | str, *arguments: Value | int, returns: Returned = "i64"
    ) -> Value:
        """Call the module's function of that name, or the C function at the address."""
        values = [a if isinstance(a, Value) else self.constant(a) for a in arguments]
        listed = ", ".join(f"{v.type} {v.name}" for v in values)
        callee = f"@{target}" if isinstance(target, str) else self._pointer(target)
        if returns == "void":
            self.line(f"call void {callee}({listed})")
            return self.constant(0)
        register = self.emit(f"call {returns} {callee}({listed})")
        if returns == "i32":
            return Value(self, self.emit(f"sext i32 {register} to i64"))
        return Value(self, register, returns)

    def leave(self, value: Value | int = 0) -> None:
        """Return from the function."""
        self._end_block(f"ret i64 {_name(value)}")

    # control

    @contextmanager
    def when(self, condition: Condition) -> Iterator[None]:
        yes, after = self._label("when"), self._label("after")
        self._end_block(f"br i1 {condition.name}, label %{yes}, label %{after}")
        self._place(yes)
        yield
        self._end_block(f"br label %{after}")
        self._place(after)

    @contextmanager
    def unless(self, condition: Condition) -> Iterator[None]:
        with self.when(Condition(self, self.emit(f"xor i1 {condition.name}, true"))):
            yield

    @contextmanager
    def forever(self) -> Iterator[Loop]:
        """A loop that ends by `loop.stop_when(...)` or by leaving the function."""
        body, after = self._label("loop"), self._label("after")
        self._end_block(f"br label %{body}")
        self._place(body)
        yield Loop(self, body, after)
        self._end_block(f"br label %{body}")
        self._place(after)

    @contextmanager
    def count(self, start: Value | int, stop: Value | int) -> Iterator[Value]:
        """A loop over start, start + 1, ..., stop - 1."""
        position = self.variable(start)
        with self.forever() as loop:
            i = position.get()
            loop.stop_when(i >= stop)
            yield i
            position.set(i + 1)


class Loop(Struct, frozen=True):
    function: Function
    body: str
    after: str

    def stop_when(self, condition: Condition) -> None:
        self._jump_when(condition, self.after)

    def again_when(self, condition: Condition) -> None:
        self._jump_when(condition, self.body)

    def _jump_when(self, condition: Condition, target: str) -> None:
        rest = self.function._label("rest")
        self.function._end_block(f"br i1 {condition.name}, label %{target}, label %{rest}")
        self.function._place(rest)


class Module:
    """Functions, and one global table `process` of int64: what they know of the process.

    The functions are private to the module but for one, `name(exports, process)`, that writes the
    addresses of those named by `exports` and copies `process` to the table.
    """

    def __init__(self, name: str, exports: Sequence[str], process: int) -> None:
        self.name = name
        self.exports = tuple(exports)
        self.process = process
        self._texts: list[str] = []

    @contextmanager
    def function(self, name: str, parameters: int) -> Iterator[tuple[Function, tuple[Value, ...]]]:
        function = Function(name, parameters)
        yield function, function.arguments()
        self._texts.append(function.text("internal"))

    def text(self) -> str:
        """The module as LLVM IR."""
        start = Function(self.name, 2)
        exports, process = start.arguments()
        for i, name in enumerate(self.exports):
            start.store(exports + i * 8, start.address_of(name))
        for i in range(self.process):
            start.store(start.address_of("process") + i * 8, start.load(process + i * 8))
        table = f"@process = internal global [{self.process} x i64] zeroinitializer, align 64\n"
        return "\n".join([table, *_PAUSE_DECLARATIONS, *self._texts, start.text("")])

    def static_text(self, process: Sequence[str]) -> str:
        """The functions as LLVM IR for a linker, which fills the table with these C functions."""
        words = ", ".join(f"i64 ptrtoint (ptr @{name} to i64)" for name in process)
        table = f"@process = internal constant [{len(process)} x i64] [{words}], align 64\n"
        declared = [f"declare void @{name}(...)" for name in process]
        return "\n".join([table, *declared, *_PAUSE_DECLARATIONS, *self._texts])


def load(
    name: str,
    exports: Sequence[str],
    write: Callable[[Module], None],
    process: Sequence[int] = (),
    effort: int = 2,
) -> dict[str, int]:
    """The addresses of a module's functions by name; `write` writes the module when it must.

    `effort` is LLVM's level of code generation. 0 takes a tenth of the time (8 ms instead of 80 for
    the largest module) and suits what is not called a million times a second.

    Compiled for this processor, or taken from the cache, whose key holds this package's own source
    and so all that decides the module's text. The code stays in memory for as long as the process
    lives: an array may be freed through it when the interpreter is already being torn down.
    """
    key = cache.key_of(name, " ".join(host()))
    code = cache.read(key)
    if code is None:
        module = Module(name, exports, len(process))
        write(module)
        from graphdl.kernels.cpu import llvm  # where it must: see there

        code = llvm.object_code_as_written(module.text(), effort)
        cache.write(key, code)
    address = loading.load({name: code})[name]
    words = (ctypes.c_int64 * len(process))(*process)
    found = (ctypes.c_int64 * len(exports))()
    ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)(address)(found, words)
    return dict(zip(exports, found, strict=True))
