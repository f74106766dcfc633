"""The C function of a program: `int f(void **arguments, void **results)`."""

from __future__ import annotations

from graphdl.kernels.cpu import assembler, call_code
from graphdl.kernels.cpu.assembler import Module
from graphdl.kernels.cpu.image import LoadedImage
from graphdl.native.signature import Signature

#: Words of the module: the function that calls images, the image, how many arguments and results.
_CALL, _IMAGE, _ARGUMENTS, _RESULTS = (8 * i for i in range(4))


def _write(module: Module) -> None:
    with module.function("program", 2) as (f, (arguments, results)):
        process = f.address_of("process")
        taken, made = f.load(process + _ARGUMENTS), f.load(process + _RESULTS)
        bases = f.stack((taken + made) * 8)
        with f.count(0, taken) as i:
            f.store(bases + i * 8, f.load(arguments + i * 8))
        with f.count(0, made) as i:
            f.store(bases + (taken + i) * 8, f.load(results + i * 8))
        f.leave(f.call(f.load(process + _CALL), f.load(process + _IMAGE), bases))


def address_of(image: LoadedImage, signature: Signature) -> int:
    """The address of the function, which stays what it is; it reads the image at each call."""
    words = [
        call_code.functions()["call"],
        image.address,
        len(signature.arguments),
        len(signature.new),
    ]
    return assembler.load("graphdl_pointer", ["program"], _write, words)["program"]
