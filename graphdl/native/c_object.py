"""A program as one object file that a C program links with: no Python, no Numba, no graphdl.

The object holds what `graphdl.kernels.cpu.image.load` makes in a process, as data that the linker
completes: the words of an instance, the constants, and the addresses of kernels as symbols. Around
it stand the function that calls an image, the runner of tapes on one thread, the loops and
branches; and the function that the header declares, which puts the addresses of its arguments on
the stack and calls that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from graphdl.errors import UnsupportedError
from graphdl.kernels.cpu import blas, call_code, control_code, cores, external, growing, llvm, tape
from graphdl.kernels.cpu.assembler import Module
from graphdl.kernels.cpu.image import Image, Symbol
from graphdl.kernels.program import Program
from graphdl.native.signature import Signature

#: Symbols of Numba's runtime and of Python, which a C program does not have.
_FOREIGN = re.compile(rb"\0_?(numba_\w+|NRT_\w+|Py[A-Z_]\w+|_Py\w+)(?=\0)")

#: LLVM's types of the numbers that are passed by value, by the kind of dtype and its bytes.
_BY_VALUE = {"b1": "i1 zeroext", "i8": "i64", "f8": "double"}


class Part(Struct, frozen=True):
    """An object file: its name without an ending, and its bytes."""

    name: str
    code: bytes


def parts(image: Image, signature: Signature, name: str) -> list[Part]:
    """The objects that define the functions `name` and `name_release`, and all that they call.

    Raises UnsupportedError where a kernel needs a function of this process, naming it.
    """
    _refuse_foreign(image)
    found = [Part(name, llvm.object_code(_text(image, signature, name)))]
    for symbol, kernel in image.kernels.items():
        found.append(Part(f"{name}_{kernel.source.name}_{symbol[-8:]}", kernel.object_code))
    for core in sorted({s.name for _, s in image.symbols if s.kind == "core"}):
        found.append(Part(f"{name}_{core.replace(' ', '_')}", cores.code(core)[1]))
    return found


def routines(image: Image) -> list[str]:
    """The symbols of BLAS that the program needs."""
    return sorted({f"{s.name}_" for _, s in image.symbols if s.kind == "routine"})


def _refuse_foreign(image: Image) -> None:
    """Refuse what only this process has: functions of Numba's, of SciPy's, and LAPACK.

    BLAS takes its integers by address and only reads them: as 64-bit integers of a little-endian
    machine they serve a library of 32-bit integers too. LAPACK also writes integers, as wide as the
    library here has them.
    """
    for kernel in image.kernels.values():
        special = [name.partition("scipy_")[2] for name in external.symbols_in(kernel.object_code)]
        if special:
            raise UnsupportedError(
                f"the kernel {kernel.source.name} calls scipy.special.{special[0]}, which is in "
                f"SciPy only: a program with it cannot be exported to C"
            )
        match = _FOREIGN.search(kernel.object_code)
        if match:
            raise UnsupportedError(
                f"the kernel {kernel.source.name} calls {match[1].decode()}, a function of Numba's "
                f"or Python's: a program with it cannot be exported to C"
            )
    for program in _programs(image.native):
        for launch in program.launches:
            for node in launch.nodes:
                if node.op.family == "user" and not launch.source.text.count(node.op.symbol):
                    raise UnsupportedError(
                        f"{node.op.name} is a function of arrays of gd.op, which Numba has "
                        f"compiled for this process: a program with it cannot be exported to C"
                    )
    lapack = [s.name for _, s in image.symbols if s.kind == "routine" and not _is_blas(s.name)]
    if lapack:
        raise UnsupportedError(
            f"the program calls {lapack[0]} of LAPACK, whose integers are as wide as those of the "
            f"library at hand: a program with it cannot be exported to C"
        )


def _is_blas(name: str) -> bool:
    return name in blas.BLAS_ROUTINES


def _programs(native: Any) -> Iterable[Program]:
    yield native.program
    for inner in native.bodies:
        for body in inner:
            yield from _programs(body)


# ------------------------------------------------------------------------------- the text of LLVM


def _text(image: Image, signature: Signature, name: str) -> str:
    module = Module("unused", (), len(growing.MEMORY))
    tape.write_serial(module)
    control_code.write(module)
    call_code.write(module)
    functions = module.static_text(list(growing.MEMORY))
    external_names = {_global_of(s) for _, s in image.symbols if s.kind in ("kernel", "core")}
    external_names |= set(routines(image))
    declared = [f"declare void @{symbol}(...)" for symbol in sorted(external_names)]
    constants = [_constant(i, array) for i, array in enumerate(image.constants)]
    return "\n".join(
        [
            functions,
            *declared,
            *constants,
            *_data(image),
            _image_text(image),
            _entry(signature, name),
            _release(name),
        ]
    )


def _global_of(symbol: Symbol) -> str:
    """What a symbol is called in the object."""
    if symbol.kind == "core":
        return cores.code(symbol.name)[0]
    if symbol.kind == "routine":
        return f"{symbol.name}_"
    if symbol.kind == "constant":
        return f"constant_{symbol.name}"
    if symbol.kind == "runtime":
        return {"run": "run_serial"}.get(symbol.name, symbol.name)
    return symbol.name


def _address(symbol: str, beyond: int = 0) -> str:
    address = f"ptrtoint (ptr @{symbol} to i64)"
    return f"i64 add (i64 {address}, i64 {beyond})" if beyond else f"i64 {address}"


#: Each byte as LLVM writes it in a string.
_BYTES = np.array([f"\\{byte:02X}" for byte in range(256)], "S3")


def _constant(number: int, array: NDArray[Any]) -> str:
    content = _BYTES[np.frombuffer(array.tobytes(), np.uint8)].tobytes().decode()
    return f'@constant_{number} = internal constant [{array.nbytes} x i8] c"{content}", align 64'


def _table(name: str, words: Sequence[str]) -> str:
    return f"@{name} = internal constant [{len(words)} x i64] [{', '.join(words)}], align 64"


def _data(image: Image) -> list[str]:
    """The arrays that the image names."""
    words = [f"i64 {word}" for word in image.words]
    for at, symbol in image.symbols:
        words[at] = _address(_global_of(symbol), image.words[at])
    status = [number for check in image.checks for number in (check.place, check.first)]
    return [
        _table("words", words),
        _table("own", [f"i64 {number}" for number in image.own]),
        _table("status", [f"i64 {number}" for number in status]),
        _table("stacks", [f"i64 {place}" for place in image.stacks]),
        f"@slots = internal global [{call_code.SLOTS * call_code.SLOT} x i8] zeroinitializer, "
        f"align {call_code.SLOT}",
    ]


def _image_text(image: Image) -> str:
    values: dict[str, int | str] = {
        "size": image.size,
        "words": "words",
        "word_count": len(image.words),
        "own": "own",
        "own_count": len(image.own),
        "patches": image.patches,
        "patch_count": image.patch_count,
        "tape": image.tape,
        "rows": image.rows,
        "status": "status",
        "status_count": len(image.checks),
        "stacks": "stacks",
        "stack_count": len(image.stacks),
        "run": "run_serial",
        "enter": 0,
        "leave": 0,
        "blas": 0,
        "slots": "slots",
    }
    words = [
        _address(value) if isinstance(value, str) else f"i64 {value}"
        for value in (values[name] for name in call_code.IMAGE)
    ]
    return _table("image", words)


def _entry(signature: Signature, name: str) -> str:
    """The function that the header declares."""
    parameters = []
    lines = []
    for i, argument in enumerate(signature.arguments):
        if not argument.number:
            parameters.append(f"ptr %p{i}")
            lines.append(f"  %a{i} = ptrtoint ptr %p{i} to i64")
            continue
        dtype = argument.type.dtype
        by_value = _BY_VALUE[f"{dtype.kind}{dtype.itemsize}"]
        stored = "i8" if dtype.kind == "b" else by_value
        parameters.append(f"{by_value} %p{i}")
        lines.append(f"  %s{i} = alloca {stored}")
        if dtype.kind == "b":
            lines.append(f"  %w{i} = zext i1 %p{i} to i8")
        value = f"%w{i}" if dtype.kind == "b" else f"%p{i}"
        lines.append(f"  store {stored} {value}, ptr %s{i}")
        lines.append(f"  %a{i} = ptrtoint ptr %s{i} to i64")
    for i in range(len(signature.arguments), len(signature.arguments) + len(signature.new)):
        parameters.append(f"ptr %p{i}")
        lines.append(f"  %a{i} = ptrtoint ptr %p{i} to i64")
    count = len(parameters)
    body = [f"  %bases = alloca [{max(count, 1)} x i64]", *lines]
    for i in range(count):
        body.append(f"  %b{i} = getelementptr i64, ptr %bases, i64 {i}")
        body.append(f"  store i64 %a{i}, ptr %b{i}")
    body += [
        "  %at = ptrtoint ptr %bases to i64",
        f"  %code = call i64 @call({_address('image')}, i64 %at)",
        "  %short = trunc i64 %code to i32",
        "  ret i32 %short",
    ]
    head = f"define i32 @{name}({', '.join(parameters)}) nounwind {{"
    return "\n".join([head, *body, "}\n"])


def _release(name: str) -> str:
    return (
        f"define void @{name}_release() nounwind {{\n"
        f"  %done = call i64 @release({_address('image')})\n  ret void\n}}\n"
    )


__all__ = ["Part", "parts", "routines"]
