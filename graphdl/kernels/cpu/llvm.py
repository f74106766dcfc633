"""LLVM, through llvmlite alone: optimise a module, write it as object code, load objects.

An object is ordinary position-independent code for this processor. It refers to nothing but libc,
libm and SciPy's special functions (graphdl.kernels.cpu.external).

To import this takes 50 MB and a fifth of the time to a first result, so it is imported inside of
the functions that compile. What a process needs that finds all in the cache is in
`graphdl.kernels.cpu.host` and `loading`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cache
from itertools import count
from typing import Any

import llvmlite.binding as llvm

from graphdl.kernels.cpu import external
from graphdl.kernels.cpu.host import host

#: Named metadata that marks the module of a kernel without a loop.
STRAIGHT = "graphdl.straight"

_lock = threading.RLock()
_library_number = count()
_loaded: list[Any] = []  # what is loaded stays loaded: addresses are handed out for good


@cache
def _machine(effort: int = 3) -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    triple, cpu, features = host()
    target = llvm.Target.from_triple(triple)
    return target.create_target_machine(
        cpu=cpu, features=features, opt=effort, reloc="pic", codemodel="default"
    )


def optimised(text: str) -> Any:
    """The module that the LLVM IR `text` is, verified, optimised for this processor."""
    from graphdl.kernels.cpu.ahead import with_prefetches  # where nothing is cached: 1 ms

    with _lock:
        machine = _machine()
        module = llvm.parse_assembly(text)
        module.triple = host()[0]
        module.data_layout = str(machine.target_data)
        module.verify()
        options = llvm.create_pipeline_tuning_options(speed_level=2)
        options.loop_vectorization = True
        # Of straight code it takes 50 times as long as all other passes, to find a few pairs.
        options.slp_vectorization = f"!{STRAIGHT} " not in text
        builder = llvm.create_pass_builder(machine, options)
        builder.getModulePassManager().run(module, builder)
        made = str(module)
        ahead = with_prefetches(made)
        return module if ahead is made else llvm.parse_assembly(ahead)


def object_code(text: str) -> bytes:
    """LLVM IR to the bytes of an object file."""
    with _lock:
        code: bytes = _machine().emit_object(optimised(text))
        return code


def object_code_of_core(text: str) -> bytes:
    """LLVM IR of the core of a product or a convolution as object code.

    It is written as it should be: all that LLVM has to do before it chooses instructions is to turn
    variables into registers and addresses into constants. Its usual passes take three times as long
    and gain nothing.
    """
    with _lock:
        machine = _machine()
        module = llvm.parse_assembly(text)
        module.triple = host()[0]
        module.data_layout = str(machine.target_data)
        module.verify()
        options = llvm.create_pipeline_tuning_options(speed_level=1)
        builder = llvm.create_pass_builder(machine, options)
        passes = llvm.create_new_module_pass_manager()
        passes.add_sroa_pass()
        passes.add_instruction_combine_pass()
        passes.run(module, builder)
        code: bytes = machine.emit_object(module)
        return code


def object_code_as_written(text: str, effort: int) -> bytes:
    """LLVM IR as object code, with no passes before instructions are chosen."""
    with _lock:
        module = llvm.parse_assembly(text)
        module.verify()
        code: bytes = _machine(effort).emit_object(module)
        return code


def assembly(text: str) -> str:
    """LLVM IR to what `object_code` makes of it, as assembly for people."""
    with _lock:
        code: str = _machine().emit_assembly(optimised(text))
        return code


@cache
def _linker() -> Any:
    # JITLink places all of an object in one piece of memory, so that its code reaches its constants
    # by 32-bit offsets. LLVM's older MCJIT does not promise that, and llvmlite's memory manager for
    # it, which does, stops the process on some objects.
    return llvm.create_lljit_compiler(_machine(), use_jit_link=True)


def load(objects: Mapping[str, bytes]) -> dict[str, int]:
    """Load objects, each defining the symbol that it is filed under; symbol -> address.

    A symbol may be loaded again, and gets another address. Raises RuntimeError if an object is no
    object file of this machine, lacks its symbol, or needs one that the process does not have.
    """
    if not objects:
        return {}
    with _lock:
        library = llvm.JITLibraryBuilder()
        for symbol, code in objects.items():
            library.add_object_img(code)
            library.export_symbol(symbol)
            for name, address in external.symbols_in(code).items():
                library.import_symbol(name, address)
        library.add_current_process()
        loaded = library.link(_linker(), f"graphdl {next(_library_number)}")
        _loaded.append(loaded)
        return {symbol: loaded[symbol] for symbol in objects}
