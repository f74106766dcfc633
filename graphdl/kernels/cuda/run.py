"""A program on a device: its memory, its steps, and the graphs that replay them.

A call that finds its arguments and results at the addresses of an earlier one replays a CUDA graph
of all its steps; the second call with the same addresses makes that graph. Others, and programs
whose steps ask the host (a while loop, a branch) or whose capture is refused, launch step by step.
"""

from __future__ import annotations

import ctypes
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from graphdl.errors import DeviceError, DeviceMemoryError
from graphdl.graph import Node
from graphdl.kernels.cuda.device import Device
from graphdl.kernels.cuda.driver import words_of
from graphdl.kernels.cuda.launch import DeviceLaunch
from graphdl.kernels.memory import is_idle
from graphdl.kernels.program import Address, Launch, Memory, Place, Program

#: Graphs of one program that are kept, for as many sets of addresses.
MOST_GRAPHS = 16
#: Steps that a graph may hold: larger ones take long to make.
MOST_STEPS = 10_000

#: The addresses of the arguments, then of the results.
Bases = Sequence[int]


class Step(Protocol):
    """Something that a program does on a stream.

    steps: launches of it; 0 if it asks the host. bodies: the programs that it runs.
    """

    steps: int
    bodies: Sequence[Runner]

    def run(self, bases: Bases, stream: int) -> None: ...


class KernelStep:
    """A kernel with its arguments; those that depend on the leaves are filled in at each call."""

    steps = 1
    bodies: Sequence[Runner] = ()

    def __init__(
        self, device: Device, launch: DeviceLaunch, words: Sequence[int], leaves: Mapping[int, int]
    ) -> None:
        self._driver, self._function = device.driver, device.function(launch)
        self._shape = launch.iterations, launch.threads, launch.shared
        self._memory, self._places = words_of(words)
        self._leaves = [(slot, leaf, words[slot]) for slot, leaf in leaves.items()]

    def run(self, bases: Bases, stream: int) -> None:
        for slot, leaf, offset in self._leaves:
            self._memory[slot] = bases[leaf] + offset
        self._driver.launch(self._function, *self._shape, self._places, stream)


#: Makes the step of a launch that is no kernel.
MakeStep = Callable[["Runner", Launch], Step]


class Runner:
    """A program with addresses on a device."""

    def __init__(
        self, program: Program, memory: Memory, device: Device, others: Mapping[str, MakeStep]
    ) -> None:
        self.program, self.memory, self.device = program, memory, device
        self._others = others
        self._graphs: OrderedDict[tuple[int, ...], int | None] = OrderedDict()
        self._keep: list[tuple[int, int]] = []
        with device.lock:
            device.use()
            try:
                self.arena = self._allocate(memory.arena_bytes)
            except DeviceMemoryError as error:
                raise DeviceMemoryError(f"{error}; {self._largest()}") from None
            self.constants = [self._uploaded(node) for node in program.constants]
            self.steps = [
                self._step(launch)
                for launch in program.launches
                if launch.iterations and not is_idle(launch, memory)
            ]
        #: The status words of this program and of those within it.
        bodies = [body for step in self.steps for body in step.bodies]
        self.states: list[tuple[Program, int]] = [s for body in bodies for s in body.states]
        if program.status is not None:
            self.states.append((program, self.where(memory.places[program.status])[1]))
        counts = [step.steps for step in self.steps]
        self.count = 0 if 0 in counts else sum(counts)

    def __del__(self) -> None:
        for address, nbytes in getattr(self, "_keep", ()):
            self.device.give_back(address, nbytes)

    def _allocate(self, nbytes: int) -> int:
        address = self.device.allocate(nbytes)
        self._keep.append((address, nbytes))
        return address

    def _largest(self) -> str:
        """What takes the most memory, for an error."""
        nodes = [value for value in self.memory.places if isinstance(value, Node)]
        large = sorted(nodes, key=lambda node: -node.type.nbytes)[:3]
        named = ", ".join(
            f"{node.op.name} {node.type} ({node.type.nbytes:,} bytes)" for node in large
        )
        return f"the program keeps {self.memory.arena_bytes:,} bytes; its largest values: {named}"

    def _uploaded(self, node: Node) -> int:
        host = np.ascontiguousarray(node.op.evaluate(**dict(node.attrs))).reshape(node.shape)
        address = self._allocate(host.nbytes)
        if host.nbytes:
            driver = self.device.driver
            driver.to_device(address, host.ctypes.data, host.nbytes, self.device.stream)
            driver.wait(self.device.stream)
        return address

    # --- addresses ----------------------------------------------------------------------------

    def where(self, place: Place) -> tuple[int | None, int]:
        """The leaf that a place belongs to, or None, and the address."""
        if place.kind == "argument":
            return place.index, 0
        if place.kind == "result":
            return len(self.program.graph.inputs) + place.index, 0
        if place.kind == "constant":
            return None, self.constants[place.index]
        return None, self.arena + place.offset

    def resolved(self, words: Sequence[Any]) -> tuple[list[int], dict[int, int]]:
        """Words as numbers, and the leaves that are to be added to some of them."""
        numbers: list[int] = []
        leaves: dict[int, int] = {}
        for slot, word in enumerate(words):
            if isinstance(word, Address):
                leaf, address = self.where(self.memory.places[word.where])
                if leaf is not None:
                    leaves[slot] = leaf
                numbers.append(address + word.offset)
            else:
                numbers.append(word if isinstance(word, int) else 0)
        return numbers, leaves

    def _step(self, launch: Launch) -> Step:
        if not isinstance(launch, DeviceLaunch):
            return self._others[launch.source.name](self, launch)
        return KernelStep(self.device, launch, *self.resolved(launch.words))

    # --- running ------------------------------------------------------------------------------

    def execute(self, bases: Bases, stream: int) -> None:
        """All steps, one launch each."""
        for step in self.steps:
            step.run(bases, stream)

    def __call__(self, bases: Bases) -> tuple[Program, int] | None:
        """Run with these addresses; the program that failed and its status, None if all is well."""
        device, driver = self.device, self.device.driver
        key = tuple(bases)
        with device.lock:
            device.use()
            for _, address in self.states:
                driver.clear(address, 8, device.stream)
            if not 0 < self.count <= MOST_STEPS or key not in self._graphs:
                self.execute(bases, device.stream)
                self._remember(key)
            else:
                graph = self._graphs[key]
                if graph is None:
                    graph = self._graphs[key] = self._captured(bases)
                self._graphs.move_to_end(key)
                if graph:
                    driver.replay(graph, device.stream)
                else:
                    self.execute(bases, device.stream)
            return self._failure()

    def timed(self, bases: Bases) -> list[float]:
        """All steps, one launch each, with what the device took for each, in seconds."""
        device, driver = self.device, self.device.driver
        with device.lock:
            device.use()
            for _, address in self.states:
                driver.clear(address, 8, device.stream)
            events = [driver.new_event() for _ in range(len(self.steps) + 1)]
            driver.record(events[0], device.stream)
            for step, event in zip(self.steps, events[1:], strict=True):
                step.run(bases, device.stream)
                driver.record(event, device.stream)
            driver.wait(device.stream)
            taken = [driver.milliseconds(a, b) / 1e3 for a, b in pairwise(events)]
            for event in events:
                driver.forget_event(event)
        return taken

    def _remember(self, key: tuple[int, ...]) -> None:
        self._graphs.setdefault(key, None)
        while len(self._graphs) > MOST_GRAPHS:
            _, graph = self._graphs.popitem(last=False)
            if graph:
                self.device.driver.forget_graph(graph)

    def _captured(self, bases: Bases) -> int:
        """The graph of all steps; 0 where the driver or a library refuses, from now on.

        Steps are then launched one by one, and what is wrong beyond a refusal is said by them.
        """
        driver, stream = self.device.driver, self.device.capture_stream
        try:
            driver.begin_capture(stream)
            try:
                self.execute(bases, stream)
            except BaseException:
                with suppress(DeviceError):  # a capture that has failed has no graph
                    driver.forget_graph(driver.end_capture(stream))
                raise
            return driver.end_capture(stream)
        except DeviceError:
            self.count = 0
            return 0

    def _failure(self) -> tuple[Program, int] | None:
        """What the kernels left in the status words; asking waits for them."""
        device, word = self.device, ctypes.c_int64()
        for program, address in self.states:
            device.driver.to_host(ctypes.addressof(word), address, 8, device.stream)
            device.driver.wait(device.stream)
            if word.value:
                return program, word.value
        return None
