"""What the machine costs: the sizes of its caches, as it tells them, and times of elementary deeds.

The times are those of one core, as `graphdl tune` has measured them for this model of processor, or
defaults, which were measured on a server's core with 512-bit registers and are good elsewhere: only
their proportions decide anything.

What depends on them: which launches threads share, into how many jobs products and convolutions are
cut, how large their blocks are, in which order kernels run, and whether a value is written to
memory or computed once more. None of it changes the order in which anything is summed, and nothing
depends on the number of threads. A value that is computed once more may be contracted with what
uses it (a multiply-add rounds once), so `graphdl tune` may change the last bits of programs that
are compiled after it. A saved executable holds its program, and stays as it is.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
from functools import cache
from pathlib import Path

from msgspec import Struct
from msgspec.structs import asdict, replace

from graphdl.folder import directory


class Machine(Struct, frozen=True):
    """Sizes in bytes, times in nanoseconds on one core.

    second_level: the cache of one core; third_level: the one that cores share.
    memory_byte, cached_byte: to read or write a byte of a large array, and of one that lies in the
    third-level cache. multiply_add: one of float32 in a matrix product. exp: one element of it in
    float32, by which the costs of all elementary functions are scaled. launch: to have threads
    share a kernel.
    """

    second_level: int = 1 << 20
    third_level: int = 32 << 20
    memory_byte: float = 0.1
    cached_byte: float = 0.05
    multiply_add: float = 0.012
    exp: float = 1.0
    launch: float = 3000.0

    @property
    def share(self) -> float:
        """Nanoseconds of work from which on threads share it: a shared launch is then a fifth."""
        return 5 * self.launch

    @property
    def job(self) -> int:
        """The least work of a job of a product, in multiply-adds: that of two launches."""
        return round(2 * self.launch / self.multiply_add)

    def byte(self, nbytes: int) -> float:
        """To read or write a byte of an array of this size, which other kernels have touched."""
        return self.cached_byte if nbytes <= self.third_level // 2 else self.memory_byte


#: What `graphdl tune` measures; the sizes of the caches are asked for at every start.
MEASURED = ("memory_byte", "cached_byte", "multiply_add", "exp", "launch")
DEFAULT = Machine()
#: Times beyond so many times a default, or below as small a part of it, are not believed.
_BELIEVED = 100.0
_FORMAT = 1


class Known(Struct, frozen=True):
    """A machine, and where its times come from, for people to read."""

    machine: Machine
    origin: str


def current() -> Machine:
    """What decisions are made with."""
    return known().machine


def known() -> Known:
    """The same with its origin: read from the file once, for each folder."""
    return _known(directory())


@cache
def _known(folder: Path | None) -> Known:
    times, origin = _read(folder and folder / "machine.json")
    return Known(replace(DEFAULT, **_caches(), **times), origin)


def file() -> Path | None:
    """Where the measured times are kept; None if there is no folder for them."""
    folder = directory()
    return folder and folder / "machine.json"


def _read(path: Path | None) -> tuple[dict[str, float], str]:
    """The times of this model of processor, and what to say of them."""
    if path is None:
        return {}, "defaults"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return {}, "defaults; `graphdl tune` measures them"
    except ValueError:
        return {}, f"defaults, as {path} is damaged; `graphdl tune` writes it anew"
    models = _models(text)
    if models is None:
        return {}, f"defaults, as {path} is damaged; `graphdl tune` writes it anew"
    model = processor()
    if model not in models:
        others = ", ".join(sorted(models))
        return {}, f"defaults, as {path} was measured on {others or 'none'}, not on {model}"
    return models[model], f"measured by `graphdl tune`, in {path}"


def _models(text: str) -> dict[str, dict[str, float]] | None:
    """The times in a file by the model of the processor; None if it is damaged."""
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
        data = json.loads(text)
        if data["format"] == _FORMAT:
            return {str(model): _believed(times) for model, times in data["processors"].items()}
    return None


def _believed(times: dict[str, float]) -> dict[str, float]:
    """The times as numbers. Raises ValueError if one is missing or cannot be."""
    found = {name: float(times[name]) for name in MEASURED}
    for name, time in found.items():
        default = getattr(DEFAULT, name)
        if not (math.isfinite(time) and default / _BELIEVED < time < default * _BELIEVED):
            raise ValueError(f"{name} of {time:.3g} ns is no time that a machine can have")
    return found


def keep(measured: Machine) -> Path:
    """Write the measured times, beside those of other processors, and use them from now on.

    Raises OSError where there is no folder that can be written, ValueError if a time cannot be.
    """
    path = file()
    if path is None:
        raise OSError("the home directory is not known; set GRAPHDL_CACHE_DIR")
    times = {name: time for name, time in asdict(measured).items() if name in MEASURED}
    models: dict[str, dict[str, float]] = {}
    with contextlib.suppress(OSError, ValueError):
        models = _models(path.read_text(encoding="utf-8")) or {}
    models[processor()] = _believed(times)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps({"format": _FORMAT, "processors": models}, indent=1) + "\n")
    os.replace(part, path)
    forget()
    return path


def forget() -> None:
    """Read the file again when it is needed next."""
    _known.cache_clear()


def processor() -> str:
    """The model of the processor, as the system names it."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:  # each processor has its own; the first is enough
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _caches() -> dict[str, int]:
    """The sizes of the second- and third-level caches, where Linux tells them."""
    found: dict[int, int] = {}
    for index in range(5):
        folder = f"/sys/devices/system/cpu/cpu0/cache/index{index}"
        with contextlib.suppress(OSError, ValueError, KeyError):
            level, kind, size = (_word(f"{folder}/{name}") for name in ("level", "type", "size"))
            if kind != "Instruction":
                found[int(level)] = int(size[:-1]) * {"K": 1 << 10, "M": 1 << 20}[size[-1]]
    names = {2: "second_level", 3: "third_level"}
    return {name: found[level] for level, name in names.items() if found.get(level)}


def _word(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read().strip()
