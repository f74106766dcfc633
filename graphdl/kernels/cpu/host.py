"""This processor, in LLVM's words: what machine code is made for.

LLVM knows these words, but to load it takes longer than all else that a program from the cache
needs. So they are kept in the cache: under what the system says of the processor, the machine and
llvmlite, so that a folder that machines share holds the words of each.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from functools import cache as once

import llvmlite
import msgspec

from graphdl.kernels import cache

#: Processors whose gathers microcode slows down against Gather Data Sampling, an attack on their
#: results (Intel-SA-00828): elements loaded one by one are faster there.
_SLOW_GATHERS = (
    "skylake", "skylake-avx512", "cascadelake", "cooperlake", "cannonlake", "icelake-client",
    "icelake-server", "tigerlake", "rocketlake",
)  # fmt: skip
_KIND = "host"
#: Lines of /proc/cpuinfo that say what a processor is; others change from one look to the next.
_FACTS = (
    "vendor_id", "cpu family", "model", "model name", "stepping", "flags", "CPU implementer",
    "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features",
)  # fmt: skip


@once
def host() -> tuple[str, str, str]:
    """The target triple, the name and the features of this processor.

    Processors with 512-bit registers are asked to use them. LLVM keeps to 256 bits on those that
    lower their clock for 512; for kernels that stream through memory and evaluate polynomials the
    wide registers win all the same.
    """
    triple, name, features = _words()
    text = features
    if has("avx512f"):
        text += ",-prefer-256-bit"
    if name in _SLOW_GATHERS:
        text += ",+prefer-no-gather"
    return triple, name, text


@once
def has(feature: str) -> bool:
    """Whether the processor has a feature, by LLVM's name."""
    return f"+{feature}" in _words()[2].split(",")


def masks_are_cheap() -> bool:
    """Whether loads and stores of a part of a vector cost about what those of a whole one do."""
    return has("avx512f") or has("sve")


@once
def _words() -> tuple[str, str, str]:
    key = _key()
    data = cache.read(key, _KIND) if key is not None else None
    if data is not None:
        return msgspec.msgpack.decode(data, type=tuple[str, str, str])
    # imported here, as this says
    import llvmlite.binding as llvm

    words = (
        llvm.get_process_triple(),
        llvm.get_host_cpu_name(),
        llvm.get_host_cpu_features().flatten(),
    )
    if key is not None:
        cache.write(key, msgspec.msgpack.encode(words), _KIND)
    return words


def _key() -> str | None:
    """The name of the entry; None where the system does not say what the processor is."""
    facts = _cpuinfo()
    if not facts:
        return None
    asked = (facts, platform.machine(), os.uname(), sys.maxsize, llvmlite.__version__)
    return hashlib.sha256(repr(asked).encode()).hexdigest()[:32]


def _cpuinfo() -> list[str]:
    """What Linux says of the first processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as found:
            lines = found.read(1 << 14).partition("\n\n")[0].splitlines()
    except OSError:
        return []
    facts = [line for line in lines if line.partition("\t")[0].partition(":")[0].strip() in _FACTS]
    said = {line.partition(":")[0].strip() for line in facts}
    return facts if said & {"flags", "Features"} else []


__all__ = ["has", "host", "masks_are_cheap"]
