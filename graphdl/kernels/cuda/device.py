"""A GPU as programs use it: its memory, its loaded kernels, its stream.

Memory that an array gives back is kept for the next one of its size: a training loop then allocates
nothing, and finds the same addresses again, for which its program is captured as a CUDA graph. What
is reused was last used by work that the same stream runs earlier.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from threading import RLock, local
from typing import Any

from graphdl.errors import DeviceError, DeviceMemoryError, UnsupportedError
from graphdl.kernels.cuda import toolchain
from graphdl.kernels.cuda.driver import Driver, native_driver
from graphdl.kernels.cuda.launch import ALIGNMENT, DeviceLaunch

#: What is to be installed where a package of the extra is missing.
INSTALL = 'python -m pip install "graphdl[cuda]"'
_PACKAGES = {"numba_cuda": "numba-cuda", "cuda": "cuda-core"}


class Device:
    """One GPU, by the number that the driver gives it."""

    def __init__(self, driver: Driver, ordinal: int) -> None:
        self.driver = driver
        self.ordinal = ordinal
        self.lock = RLock()
        driver.use(ordinal)
        self.capability = driver.capability(ordinal)
        #: Launches are captured here; programs run on the default stream of the device, or on the
        #: stream of the caller: `on_stream`.
        self.capture_stream = driver.new_stream()
        self._chosen = local()
        self._last = 0
        self._order = driver.new_event()
        #: cublasLt, where it is installed; see graphdl.kernels.cuda.cublaslt.
        self.products: Any = None
        self._spare: dict[int, list[int]] = {}
        self._functions: dict[tuple[str, int, int], int] = {}

    def __repr__(self) -> str:
        return f"cuda:{self.ordinal}"

    # --- streams ------------------------------------------------------------------------------

    @property
    def stream(self) -> int:
        """Where this thread's work goes."""
        found: int = getattr(self._chosen, "stream", 0)
        return found

    def use(self) -> None:
        """Make the device current, with what is asked from now on after all that was asked before.

        Memory is handed from one array to the next without waiting, so that all work of graphdl on
        a device has one order, whichever streams it is on. The caller holds `lock`.
        """
        self.driver.use(self.ordinal)
        if self.stream != self._last:
            self.driver.record(self._order, self._last)
            self.driver.wait_for(self._order, self.stream)
            self._last = self.stream

    @contextmanager
    def on_stream(self, stream: int) -> Iterator[None]:
        """Until it ends, this thread's work goes to a stream of this device."""
        with self.lock:
            self.driver.use(self.ordinal)
            ordinal = self.driver.ordinal_of_stream(stream) if stream else self.ordinal
        if ordinal != self.ordinal:
            place = "another context" if ordinal is None else f"cuda:{ordinal}"
            raise DeviceError(
                f"a stream of {place} cannot run work of {self!r}: make the stream on {self!r}, in "
                f"its primary context, which is the one that PyTorch, CuPy and JAX use"
            )
        before, self._chosen.stream = self.stream, stream
        try:
            yield
        finally:
            self._chosen.stream = before
            with self.lock:
                self.use()  # now, while the stream lives

    # --- memory -------------------------------------------------------------------------------

    def allocate(self, nbytes: int) -> int:
        """The address of memory of its own; what is spare is given back to the driver first."""
        size = rounded(nbytes)
        with self.lock:
            spare = self._spare.get(size)
            if spare:
                return spare.pop()
            self.driver.use(self.ordinal)
            try:
                return self.driver.allocate(size)
            except DeviceMemoryError:
                self.release()
            try:
                return self.driver.allocate(size)
            except DeviceMemoryError as error:
                free, whole = self.driver.memory(self.ordinal)
                raise DeviceMemoryError(
                    f"{error}: of {whole:,} bytes of {self!r} {free:,} are free"
                ) from None

    def give_back(self, address: int, nbytes: int) -> None:
        """Keep memory for the next that needs as much."""
        with self.lock:
            self._spare.setdefault(rounded(nbytes), []).append(address)

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Copy from memory of this device to memory of this device, after what was launched."""
        with self.lock:
            self.use()
            self.driver.copy(target, source, nbytes, self.stream)

    def wait(self) -> None:
        """Return when all that was launched is done."""
        with self.lock:
            self.use()
            self.driver.wait(self.stream)

    def release(self) -> None:
        """Free what no array uses."""
        with self.lock:
            self.use()
            self.driver.wait(self.stream)
            for addresses in self._spare.values():
                for address in addresses:
                    self.driver.free(address)
            self._spare.clear()

    def function(self, launch: DeviceLaunch) -> int:
        """The loaded kernel of a launch, compiled if it is not in the cache."""
        key = (launch.source.text, launch.threads, len(launch.words))
        with self.lock:
            found = self._functions.get(key)
            if found is None:
                signature = toolchain.Signature(len(launch.words), launch.threads)
                cubin = toolchain.compile(launch.source, signature, self.capability)
                self.driver.use(self.ordinal)
                found = self.driver.load(cubin.code, cubin.entry, launch.shared)
                self._functions[key] = found
            return found


def rounded(nbytes: int) -> int:
    return -(-max(nbytes, 1) // ALIGNMENT) * ALIGNMENT


def ordinal_of(target: str) -> int:
    """The number in a target such as "cuda" or "cuda:1". Raises UnsupportedError."""
    kind, _, number = target.partition(":")
    if kind != "cuda" or (":" in target and not number.isdigit()):
        raise UnsupportedError(
            f"target={target!r}; write 'cpu', 'cuda' or 'cuda:1' for the second GPU"
        )
    return int(number or 0)


@cache
def device_of(target: str) -> Device:
    """The device of a target. DeviceError, saying what is missing, where it cannot be used."""
    ordinal = ordinal_of(target)
    driver = native_driver()
    count = driver.device_count()
    if ordinal >= count:
        found = f"{count} GPU{'s' if count != 1 else ''}" if count else "no GPU"
        raise DeviceError(f"target={target!r}: the driver has found {found}; the first is 'cuda:0'")
    missing = missing_packages()
    if missing:
        raise DeviceError(f"target={target!r} needs {' and '.join(missing)}: {INSTALL}")
    return Device(driver, ordinal)


def missing_packages() -> list[str]:
    """The packages of the CUDA extra that are not installed."""
    return [package for module, package in _PACKAGES.items() if find_spec(module) is None]
