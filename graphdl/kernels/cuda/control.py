"""Loops and branches on a device: the host walks through the steps and launches each body.

The tables are those of the CPU (graphdl.kernels.control writes them, and
graphdl.kernels.cpu.control_code says what their words are); here Python follows them. A scan needs
nothing from the device, so that all of its launches go into the program's CUDA graph. A while loop
and a branch ask for a value: each such question waits for the device.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence

from graphdl.kernels.cuda.device import Device
from graphdl.kernels.cuda.run import Bases, MakeStep, Runner
from graphdl.kernels.program import Launch, Stack

#: Words of a row of each kind, and those that name a body; see control_code.
_CONST, _STREAM, _MOVING, _SETTLED, _READ, _KEEP, _CHANGED = 2, 3, 7, 5, 4, 2, 3
_BODY = 6
#: Words of a sweep's record: where its counts stand, and where its rows begin.
_SIZE, _CONSTS, _MOVES, _STAYS, _READS, _KEEPS, _ROW, _STACK, _REVERSE, _ROWS = (
    0, 7, 8, 9, 10, 11, 12, 13, 14, 15,
)  # fmt: skip


def _rows(table: Sequence[int], start: int, count: int, width: int) -> list[Sequence[int]]:
    return [table[start + i * width : start + (i + 1) * width] for i in range(count)]


class _Growing:
    """Memory for what the steps of a loop keep, which grows while the loop runs."""

    def __init__(self, device: Device) -> None:
        self._device, self.address, self._held = device, 0, 0

    def __del__(self) -> None:
        if self._held:
            self._device.give_back(self.address, self._held)

    def reserve(self, nbytes: int, stream: int) -> None:
        if nbytes <= self._held:
            return
        size = max(2 * self._held, nbytes, 4096)
        address = self._device.allocate(size)
        if self._held:
            self._device.driver.copy(address, self.address, self._held, stream)
            self._device.give_back(self.address, self._held)
        self.address, self._held = address, size


class _ControlStep:
    """A launch of control flow with addresses: its table, and the programs of its bodies."""

    steps = 0

    def __init__(self, runner: Runner, launch: Launch) -> None:
        self.device = runner.device
        self.bodies: Sequence[Runner] = [
            Runner(body.program, body.memory, runner.device, CONTROL_STEPS)
            for body in launch.bodies
        ]
        self._words, self._leaves = runner.resolved(launch.words)
        self.stacks = {
            slot: _Growing(runner.device)
            for slot, word in enumerate(launch.words)
            if isinstance(word, Stack)
        }
        shared: dict[Stack, _Growing] = {}
        for slot, word in enumerate(launch.words):
            if isinstance(word, Stack):
                self.stacks[slot] = shared.setdefault(word, self.stacks[slot])

    def table(self, bases: Bases) -> list[int]:
        table = list(self._words)
        for slot, leaf in self._leaves.items():
            table[slot] += bases[leaf]
        return table

    def leaves_of(self, body: int) -> list[int]:
        graph = self.bodies[body].program.graph
        return [0] * (len(graph.inputs) + len(graph.outputs))

    def settle(self, bases: list[int], settled: Sequence[Sequence[int]], stream: int) -> None:
        """Carries that stay lie at their final place from the start."""
        for leaf, _, first, final, nbytes in settled:
            bases[leaf] = final
            if first != final:
                self.device.driver.copy(final, first, nbytes, stream)

    def word_at(self, address: int, nbytes: int, stream: int) -> int:
        """A number of the device's, as soon as it is known."""
        word = ctypes.c_int64(0)
        self.device.driver.to_host(ctypes.addressof(word), address, nbytes, stream)
        self.device.driver.wait(stream)
        return word.value


class Scan(_ControlStep):
    """A loop of a known number of steps."""

    def __init__(self, runner: Runner, launch: Launch) -> None:
        super().__init__(runner, launch)
        self.steps = max(self._words[0], 1) * self.bodies[0].count

    def run(self, bases: Bases, stream: int) -> None:
        table = self.table(bases)
        length, consts, streams, moves, stays = table[:5]
        at = 5 + _BODY
        own = self.leaves_of(0)
        for leaf, address in _rows(table, at, consts, _CONST):
            own[leaf] = address
        at += consts * _CONST
        streamed = _rows(table, at, streams, _STREAM)
        at += streams * _STREAM
        moving = _rows(table, at, moves, _MOVING)
        settled = _rows(table, at + moves * _MOVING, stays, _SETTLED)
        for row in moving:
            own[row[0]] = row[3]
        self.settle(own, settled, stream)
        for t in range(length):
            for leaf, start, step in streamed:
                own[leaf] = start + t * step
            even = (length - 1 - t) % 2 == 0
            for row in moving:
                own[row[1]] = row[4] if even else row[5]
            self.bodies[0].execute(own, stream)
            for row in moving:
                own[row[0]] = own[row[1]]


class _Sweep:
    """One sweep of a while loop: the record of its table, and where its leaves lie now."""

    def __init__(self, step: _ControlStep, table: Sequence[int], start: int, body: int) -> None:
        self.step, self.body = step, step.bodies[body]
        self.record = record = table[start : start + table[start] // 8]
        at = _ROWS + record[_CONSTS] * _CONST
        self.bases = step.leaves_of(body)
        for leaf, address in _rows(record, _ROWS, record[_CONSTS], _CONST):
            self.bases[leaf] = address
        self.moving = _rows(record, at, record[_MOVES], _MOVING)
        at += record[_MOVES] * _MOVING
        self.settled = _rows(record, at, record[_STAYS], _SETTLED)
        at += record[_STAYS] * _SETTLED
        self.reads = [
            (row, step.stacks[start + at + i * _READ + 1])
            for i, row in enumerate(_rows(record, at, record[_READS], _READ))
        ]
        self.keeps = _rows(record, at + record[_READS] * _READ, record[_KEEPS], _KEEP)
        self.stack = step.stacks[start + _STACK]

    def begin(self, stream: int) -> None:
        for row in self.moving:
            self.bases[row[0]], self.bases[row[1]] = row[3], row[4]
        self.step.settle(self.bases, self.settled, stream)

    def reserve(self, steps: int, stream: int) -> None:
        self.stack.reserve(self.record[_ROW] * steps, stream)

    def take(self, t: int, stream: int) -> None:
        """One step."""
        bases = self.bases
        for (leaf, _, width, offset), stack in self.reads:
            bases[leaf] = stack.address + t * width + offset
        own = self.stack.address + t * self.record[_ROW]
        for leaf, offset in self.keeps:
            bases[leaf] = own + offset
        self.body.execute(bases, stream)
        for row in self.moving:
            out, final, spare = bases[row[1]], row[4], row[5]
            bases[row[0]] = out
            bases[row[1]] = spare if out == final else final

    def finish(self, stream: int) -> None:
        for row in self.moving:
            if self.bases[row[0]] != row[4]:
                self.step.device.driver.copy(row[4], self.bases[row[0]], row[6], stream)


class While(_ControlStep):
    """A loop that ends by its data: its condition is asked for at each step."""

    def run(self, bases: Bases, stream: int) -> None:
        table = self.table(bases)
        count, test, _, reads = table[:4]
        at = 4 + _BODY
        seen = self.leaves_of(0)
        for leaf, address in _rows(table, at, reads + 1, _CONST):
            seen[leaf] = address
        at += (reads + 1) * _CONST
        sweeps: list[_Sweep] = []
        for number in range(count):
            sweeps.append(_Sweep(self, table, at, 1 + number))
            at += table[at] // 8
        first = sweeps[0]
        first.begin(stream)
        for row in first.settled:
            seen[row[1] + reads] = row[3]
        steps = 0
        while True:
            for row in first.moving:
                seen[row[2] + reads] = first.bases[row[0]]
            self.bodies[0].execute(seen, stream)
            if not self.word_at(test, 1, stream):
                break
            first.reserve(steps + 1, stream)
            first.take(steps, stream)
            steps += 1
        first.finish(stream)
        for sweep in sweeps[1:]:
            sweep.reserve(steps, stream)
            sweep.begin(stream)
            for k in range(steps):
                sweep.take(steps - 1 - k if sweep.record[_REVERSE] else k, stream)
            sweep.finish(stream)


class Switch(_ControlStep):
    """One of several branches, chosen by an index of the device's."""

    def run(self, bases: Bases, stream: int) -> None:
        table = self.table(bases)
        at, branches, operands, results, settled = table[:5]
        index = min(max(self.word_at(at, 8, stream), 0), branches - 1)
        end = 5 + operands + results
        for first, final, nbytes in _rows(table, end, settled, _CHANGED):
            if first != final:
                self.device.driver.copy(final, first, nbytes, stream)
        self.bodies[index].execute(table[5:end], stream)


CONTROL_STEPS: Mapping[str, MakeStep] = {"scan": Scan, "while": While, "switch": Switch}
