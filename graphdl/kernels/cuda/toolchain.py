"""From the text of a kernel to a cubin, through numba-cuda, NVVM and nvJitLink; no GPU needed.

    compile(source, signature, cc) -> Cubin(code, entry, registers, ...)

The result is kept in the cache of kernels under a hash of all that decides it: the text, the code
of this package, the versions of the tools and the compute capability. A process that finds its
kernels there imports neither Numba nor numba-cuda.
"""

from __future__ import annotations

import builtins
import hashlib
import json
import re
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from threading import Lock
from typing import Any

from graphdl.kernels import cache as kept
from graphdl.kernels.source import KernelError, KernelSource

#: Compute capabilities that graphdl is tested on: Ampere, Hopper, Blackwell.
TESTED = ((8, 0), (9, 0), (10, 0))

#: What decides the machine code, beside numba-cuda's own version.
_PACKAGES = ("numba-cuda", "numba", "llvmlite", "nvidia-nvvm", "nvidia-nvjitlink", "cuda-core")

_compiling = Lock()


@dataclass(frozen=True)
class Signature:
    """How a kernel is called: so many 64-bit integers, by blocks of at most so many threads."""

    words: int
    threads: int


@dataclass(frozen=True)
class Cubin:
    """The machine code of a kernel for one compute capability.

    entry: its symbol. registers: of a thread. local_bytes: what a thread keeps in memory of its
    own, spills among it; shared_bytes: what a block shares beyond what its launch asks for.
    """

    code: bytes
    entry: str
    registers: int
    local_bytes: int
    shared_bytes: int


def compile(source: KernelSource, signature: Signature, cc: tuple[int, int]) -> Cubin:
    """The cubin of a kernel, from the cache if it is there.

    Raises KernelError, naming the file of the text, if it is no kernel; ImportError, with what to
    install, where the CUDA extra is missing.
    """
    key = kept.key_of(source.text, target(signature, cc))
    found = kept.read(key)
    if found is not None:
        header, _, code = found.partition(b"\n")
        return Cubin(code, **json.loads(header))
    path = kept.write_source(key, f"# {source.name}\n{source.text}") or f"<{source.name}>"
    made = linked(ptx(source, signature, cc, path), cc, path)
    fields = asdict(made)
    del fields["code"]
    kept.write(key, json.dumps(fields).encode() + b"\n" + made.code)
    return made


def ptx(
    source: KernelSource, signature: Signature, cc: tuple[int, int], path: str = "<kernel>"
) -> str:
    """The text of a kernel as PTX, NVIDIA's assembly language."""
    # imported here: numba-cuda takes most of a second, which a warm process does without
    from numba import cuda
    from numba.cuda import types
    from numba.cuda.core.errors import NumbaError

    from graphdl.kernels.cuda.intrinsics import NAMES

    namespace: dict[str, Any] = {**NAMES, "__name__": __name__}
    try:
        exec(builtins.compile(source.text, path, "exec"), namespace)
        words = types.void(*[types.int64] * signature.words)
        with _compiling:
            text: str = cuda.compile(
                namespace["kernel"],
                words,
                cc=cc,
                device=False,
                abi="numba",
                launch_bounds=signature.threads,
            )[0]
    except (NumbaError, NotImplementedError, SyntaxError, KeyError) as error:
        raise KernelError(f"cannot compile the kernel in {path}: {error}") from error
    return text


def linked(assembly: str, cc: tuple[int, int], path: str) -> Cubin:
    """The machine code of PTX, and what the assembler says of it."""
    from cuda.core import Linker, LinkerOptions, ObjectCode

    entry = re.search(r"\.visible\s+\.entry\s+(\w+)", assembly)
    if entry is None:
        raise KernelError(f"the kernel in {path} has no entry")
    options = LinkerOptions(arch=f"sm_{cc[0]}{cc[1]}", ptxas_options=["-v"])
    linker = Linker(ObjectCode.from_ptx(assembly.encode()), options=options)
    code = linker.link("cubin").code
    assert isinstance(code, bytes)
    said = linker.get_info_log()
    return Cubin(
        code,
        entry.group(1),
        _number(r"Used (\d+) registers", said),
        _number(r"(\d+) bytes stack frame", said),
        _number(r"(\d+) bytes smem", said),
    )


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found.group(1)) if found else 0


def target(signature: Signature, cc: tuple[int, int]) -> str:
    """What decides the machine code of a text."""
    return f"cuda sm_{cc[0]}{cc[1]} {signature.words} {signature.threads} {_versions()}"


@cache
def _versions() -> str:
    """The versions of the tools, and a digest of this package's own code."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return " ".join([digest.hexdigest(), *map(_version, _PACKAGES)])


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


__all__ = ["TESTED", "Cubin", "Signature", "compile", "linked", "ptx", "target"]
