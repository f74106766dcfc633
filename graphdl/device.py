"""Functions compiled for a GPU: where their arguments lie, what they return, what one is.

Imported when it is first used: `target="cuda"`, `gd.Array`, `gd.device_put`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec.structs import replace

from graphdl.api import Compiled
from graphdl.compiler import pipeline
from graphdl.compiling import Target
from graphdl.errors import ArgumentError, DeviceError, UnsupportedError
from graphdl.executable import Executable
from graphdl.explain.parts import Explanation
from graphdl.graph import Graph, Node
from graphdl.kernels.cpu.native import Kernel
from graphdl.kernels.cuda import emit, toolchain
from graphdl.kernels.cuda.array import Array, from_host, is_on_a_device, on_device
from graphdl.kernels.cuda.control import CONTROL_STEPS
from graphdl.kernels.cuda.cublaslt import PRODUCT_STEPS, library_of
from graphdl.kernels.cuda.device import INSTALL, Device, device_of
from graphdl.kernels.cuda.launch import DeviceLaunch
from graphdl.kernels.cuda.run import Runner
from graphdl.kernels.program import Launch
from graphdl.kernels.shortfall import Shortfall
from graphdl.profile import events
from graphdl.profile.report import Report
from graphdl.trees import flatten, leaves_of, unflatten
from graphdl.types import TensorType, as_dtype

if TYPE_CHECKING:
    from graphdl.kernels.cpu.image import Image


def device_put(tree: Any, target: str = "cuda") -> Any:
    """The tree with its arrays copied to a GPU.

    Args:
        tree: arrays, numbers, and tuples, lists and dicts of them. Arrays of other libraries that
            lie on this GPU are taken without a copy.
        target: "cuda", or "cuda:1" for the second GPU.

    Returns:
        The same tree of `gd.Array`.

    Raises:
        DeviceError: there is no such GPU, or the CUDA extra is not installed: the message says what
            to install.

    >>> import numpy as np, graphdl as gd
    >>> weights = gd.device_put({"w": np.ones((3, 2), np.float32)})  # doctest: +SKIP
    >>> weights["w"].device  # doctest: +SKIP
    cuda:0
    """
    device = device_of(target)
    leaves, spec = flatten(tree)
    return unflatten(spec, [_placed(device, leaf) for leaf in leaves])


def _placed(device: Device, leaf: Any) -> Array:
    if isinstance(leaf, Array) and leaf.device is not device:
        return from_host(device, np.asarray(leaf))
    found = on_device(device, leaf)
    return found if found is not None else from_host(device, _checked(leaf))


def _checked(leaf: Any) -> np.ndarray:
    host = np.asarray(leaf)
    as_dtype(host.dtype)
    return host


def device_get(tree: Any) -> Any:
    """The tree with its GPU arrays copied to NumPy arrays; what lies on the host stays as it is.

    >>> import numpy as np, graphdl as gd
    >>> gd.device_get((np.arange(3), None))
    (array([0, 1, 2]), None)
    >>> step = gd.compile(lambda x: x * 2, target="cuda")  # doctest: +SKIP
    >>> gd.device_get(step(np.arange(3)))  # doctest: +SKIP
    array([0, 2, 4])
    """
    leaves, spec = flatten(tree)
    return unflatten(spec, [np.asarray(x) if isinstance(x, Array) else x for x in leaves])


def stream(stream: Any, target: str = "cuda") -> AbstractContextManager[None]:
    """Within it, what this thread asks of a GPU runs on a stream of the caller's.

    Calls and copies are then in order with what else the caller puts on that stream, without
    waiting; and among themselves, whichever streams they are on. Other threads are not affected.

    Args:
        stream: anything with `__cuda_stream__` (cuda.core, CuPy, Numba), a PyTorch or CuPy stream,
            or the address of a CUstream as a number.
        target: the GPU, as in `gd.device_put`.

    Raises:
        ArgumentError: no stream.
        DeviceError: there is no such GPU, or the stream is of another one, or of a context that is
            not its primary one.

    >>> import torch, graphdl as gd  # doctest: +SKIP
    >>> with gd.stream(torch.cuda.current_stream()):  # doctest: +SKIP
    ...     y = step(x)
    """
    return device_of(target).on_stream(_handle_of(stream))


def _handle_of(stream: Any) -> int:
    if hasattr(stream, "__cuda_stream__"):
        version, handle = stream.__cuda_stream__()
        if version != 0:
            raise ArgumentError(f"gd.stream: version {version} of __cuda_stream__ is not known")
        return int(handle)
    for name in ("cuda_stream", "ptr"):  # PyTorch's, CuPy's of old
        if hasattr(stream, name):
            return int(getattr(stream, name))
    if isinstance(stream, int) and not isinstance(stream, bool) and stream >= 0:
        return stream
    raise ArgumentError(
        f"gd.stream takes a CUDA stream (anything with __cuda_stream__) or its address, "
        f"not {stream!r:.60}"
    )


class DeviceExecutable(Executable):
    """One specialisation of a function compiled for a GPU; it reads like any executable."""

    def __init__(
        self,
        graph: Graph,
        weak: Sequence[bool],
        args: tuple[Any, ...],
        donated: Sequence[int],
        device: Device,
        precision: str = "float32",
        memory_budget: int | None = None,
    ) -> None:
        self.device, self._precision = device, precision
        #: The arguments that calls had to copy.
        self._from_host: set[int] = set()
        super().__init__(graph, weak, args, donated, memory_budget=memory_budget)

    def _target(self) -> Target:
        made = partial(emit.emit, library=self.device.products, precision=self._precision)
        return Target(pipeline.DEVICE_PASSES, made)

    def _start(self) -> Sequence[int | None]:
        steps = {**CONTROL_STEPS, **PRODUCT_STEPS}
        start = perf_counter()
        self._runner = Runner(self._program, self.memory, self.device, steps)
        self.seconds["kernels"] = perf_counter() - start
        return [self.memory.donated.get(node) for node in self.optimized.outputs]

    @property
    def _shortfall(self) -> Shortfall | None:
        return self._made.shortfall

    @cached_property
    def _image(self) -> Image:
        raise UnsupportedError(
            "a program for a GPU has no njit, address or C code: compile the function for the CPU, "
            'target="cpu", for those'
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        raise UnsupportedError(
            "a program for a GPU cannot be saved: compile the function for the CPU, "
            'target="cpu", for that'
        )

    @cached_property
    def flat(self) -> Callable[..., tuple[Any, ...]]:
        return self._run

    def entry(self, fallback: Callable[..., Any]) -> Callable[..., Any]:
        return fallback

    def _run(self, *leaves: Any) -> tuple[Array, ...]:
        given = self.memory.donated
        arguments = [self._argument(i, leaf) for i, leaf in enumerate(leaves)]
        addresses = [array.address for array in arguments]
        for i in given.values():
            if addresses.count(addresses[i]) > 1 or not arguments[i].is_own:
                arguments[i] = arguments[i].copy()
                addresses[i] = arguments[i].address
        new = self._new_results()
        failed = self._runner([*addresses, *(array.address for array in new.values())])
        if failed is not None:
            raise self._failure(*failed)
        return tuple(
            arguments[given[node]].donate() if node in given else new[node]
            for node in self.optimized.outputs
        )

    def _new_results(self) -> dict[Node, Array]:
        """Arrays for the results that are written over no argument."""
        return {
            node: Array(self.device, made.shape, made.dtype)
            for node, made in zip(self.optimized.outputs, self.graph.outputs, strict=True)
            if node not in self.memory.donated
        }

    def _argument(self, index: int, leaf: Any) -> Array:
        found = on_device(self.device, leaf)
        if found is None:
            self._from_host.add(index)
            found = from_host(self.device, np.asarray(leaf, self.graph.inputs[index].dtype))
        return found

    @property
    def _running(self) -> list[tuple[Launch, Kernel | None]]:
        return [(launch, None) for launch in self._program.launches if launch.iterations]

    def assembly(self) -> str:
        """The kernels as PTX, NVIDIA's assembly language, for this GPU; compiles them anew."""
        texts = {}
        for launch in self._program.launches:
            if isinstance(launch, DeviceLaunch) and launch.iterations:
                signature = toolchain.Signature(len(launch.words), launch.threads)
                texts[launch.source.text] = launch.source, signature
        capability = self.device.capability
        return "\n".join(toolchain.ptx(*found, capability) for found in texts.values())

    def profile(self, *args: Any, calls: int | None = None) -> Report:
        """Where the time of a call goes, kernel by kernel, by events of the device.

        Each kernel is launched by itself for it, where calls replay all as one graph: so a call may
        take less than its kernels together. A loop or a branch counts as one.

        Args:
            args: as for a call. Arrays that a call would overwrite are copied.
            calls: how many; by default 20.

        Returns:
            A report as on the CPU: `print` it, or `report.save("profile.json")`.

        Raises:
            TypeError: arguments that the executable was not made for.
            ArgumentError: `calls` less than 1.
        """
        leaves = self._leaves_of(args)
        arguments = [self._argument(i, leaf) for i, leaf in enumerate(leaves)]
        given = set(self.memory.donated.values())
        own = [x.copy() if i in given else x for i, x in enumerate(arguments)]
        results = list(self._new_results().values())
        return events.measured(
            self._signature,
            self._runner,
            lambda: self._run(*(x.copy() if i in given else x for i, x in enumerate(arguments))),
            [array.address for array in (*own, *results)],
            calls,
        )

    def explain(self) -> Explanation:
        """As on the CPU; it says as well which arguments were copied from the host so far."""
        found = super().explain()
        names = self.graph.names
        copied = ", ".join(
            f"{names[i]} {node.type} ({node.type.nbytes:,} bytes a call)"
            for i, node in enumerate(self.graph.inputs)
            if i in self._from_host
        )
        note = (
            f"copied from the host at each call: {copied}; gd.device_put(x) copies once"
            if copied
            else "arguments that lie on the host are copied at each call; none was so far"
        )
        return replace(found, notes=(note,))


class DeviceCompiled(Compiled):
    """A function that compiles itself for a GPU, see `Compiled`. Its results are `gd.Array`s."""

    def __init__(
        self,
        f: Any,
        target: str,
        donate: Sequence[int],
        memory_budget: int | None,
        matmul_precision: str = "float32",
    ) -> None:
        self.device = device_of(target)
        if self.device.products is None:
            self.device.products = library_of(self.device)
        if matmul_precision != "float32" and self.device.products is None:
            raise DeviceError(
                f"matmul_precision={matmul_precision!r} needs cublasLt, which is not installed: "
                f"{INSTALL}"
            )
        super().__init__(f, target, donate, memory_budget)
        self.matmul_precision = matmul_precision

    def _prepared(self, leaf: Any, index: int, args: Any, kwargs: Any) -> Any:
        if is_on_a_device(leaf):
            return on_device(self.device, leaf)
        return super()._prepared(leaf, index, args, kwargs)

    def _lowered(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Executable:
        leaves, tree = flatten((args, kwargs))
        types = [TensorType(x.dtype, x.shape) if is_on_a_device(x) else x for x in leaves]
        args, kwargs = unflatten(tree, types)
        graph = self._trace(args, kwargs)
        weak = [type(leaf) in (bool, int, float, complex) for leaf in leaves_of((args, kwargs))]
        donated = self._donated(args)
        return DeviceExecutable(
            graph, weak, args, donated, self.device, self.matmul_precision, self.memory_budget
        )


__all__ = ["Array", "DeviceCompiled", "DeviceExecutable", "device_get", "device_put", "stream"]
