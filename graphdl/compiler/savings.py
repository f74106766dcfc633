"""Which values are computed again so that a program takes fewer bytes, and what each would change.

Before the graph is made anew it is known, nearly, when its values would lie in memory: `Lifetimes`
keeps that up to date while one repetition after the other is chosen. A repetition computes again

- one value that lies in memory while most is in use, and is read later;
- one that the kernel reads during which most is in use, inside of that kernel;
- a segment: all such values that some kernels in a row make, from what there is before the first of
  them, which is kept instead (T. Chen, B. Xu, C. Zhang and C. Guestrin, Training deep nets with
  sublinear memory cost, arXiv:1604.06174, 2016: of n layers in a row, memory for the square root).

Of all that relieve the fullest moment, the one comes first that takes least time for the bytes
above the target that it frees, summed over the kernels that run while they are freed. What has been
chosen counts: a value that another repetition reads stays, one that is gone is not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from graphdl import machine
from graphdl.compiler.costs import work
from graphdl.compiler.origins import CHECKS, is_apart, is_generator, origins
from graphdl.compiler.rematerialise import Repetition, Schedule, multiply_adds
from graphdl.compiler.rows import ROOTS
from graphdl.graph import Node
from graphdl.ops import movement
from graphdl.ops.update import update
from graphdl.ops.windows import window_pick

#: Nodes that values are computed again from: for one value, and for each of a segment, at most.
_LONGEST = 64
#: Values are looked at that take this part of what is in use, or more.
_LEAST = 1000
#: Repetitions that are chosen before the graph is made anew, at most.
_MOST = 128

#: From a kernel to a kernel, so many bytes more.
_Change = tuple[int, int, int]


class Saving(Struct, frozen=True, eq=False):
    """A repetition, what it changes, and until which kernel what it reads has to stay."""

    repetition: Repetition
    changes: Sequence[_Change]
    held: Sequence[Node]


class Lifetimes:
    """When the temporaries of a schedule lie in memory, with the repetitions chosen so far."""

    def __init__(self, schedule: Schedule, lost: Mapping[Node, int]) -> None:
        self.schedule = schedule
        #: Arguments that a kernel of this number writes a result over.
        self.lost = lost
        self.sizes: NDArray[np.int64] = np.asarray(schedule.sizes(), np.int64)
        #: The kernels by which a value is written first and read last.
        self.spans = {
            node: (schedule.maker[node], schedule.readers[node][-1])
            for node in schedule.temporaries()
        }
        self.gone: set[Node] = set()
        #: Values that a second computation waits for: they are made where they are.
        self.awaited = {
            origin
            for node in schedule.graph.nodes
            if node.op is movement.after
            for other in node.inputs[1:]
            for origin in origins(other)
        }
        self._operands: dict[Node, list[Node]] = {}

    @property
    def most(self) -> int:
        return int(self.sizes.max(initial=0))

    def after(self, saving: Saving) -> NDArray[np.int64]:
        """The bytes in use while each kernel runs, if this is chosen too."""
        sizes = self.sizes.copy()
        for start, stop, nbytes in saving.changes:
            sizes[start : stop + 1] += nbytes
        return sizes

    def take(self, saving: Saving) -> None:
        """Choose a saving."""
        self.sizes = self.after(saving)
        made = saving.repetition
        self.awaited.add(made.after)
        for value in made.values:
            start, _ = self.spans[value]
            self.spans[value] = (start, self._last_before(value, made.first))
            self.gone.add(value)
        for node in saving.held:
            if node in self.schedule.outputs:
                continue
            start, stop = self.spans.get(node, (self.schedule.maker[node], -1))
            self.spans[node] = (start, max(stop, made.first))

    def may(self, saving: Saving) -> bool:
        """Whether a saving found before others were taken is still one."""
        values = saving.repetition.values
        return self.gone.isdisjoint((*values, *saving.held)) and self.awaited.isdisjoint(values)

    def savings(self) -> Iterator[Saving]:
        """What would relieve the fullest moment."""
        if not self.most:
            return
        fullest = int(self.sizes.argmax())
        readers, crossing = self.schedule.readers, list[Node]()
        for value, (start, stop) in self.spans.items():
            if _LEAST * value.type.nbytes < self.most:
                continue
            if not start <= fullest <= stop or value in self.gone or value in self.awaited:
                continue
            late = [number for number in readers.get(value, ()) if number >= fullest]
            if not late:
                continue
            if late[0] > fullest:
                crossing.append(value)
            if start < fullest or late[0] > fullest:
                yield from self._saving([value], late[0], fullest, since=0)
        crossing.sort(key=self.schedule.maker.__getitem__)
        length = 2
        while length <= len(crossing):
            for i in range(0, len(crossing) - length + 1, length // 2):
                values = crossing[i : i + length]
                first = min(next(n for n in readers[v] if n > fullest) for v in values)
                yield from self._saving(values, first, fullest, self.schedule.maker[values[0]])
            length *= 2

    def _saving(
        self, values: Sequence[Node], first: int, moment: int, since: int
    ) -> Iterator[Saving]:
        """The values computed again for the kernels from `first` on, if that can be, from what lies
        in memory after kernel `moment` or was made before kernel `since`, and stays until `first`.
        """
        found = self._made_from(values, first, moment, since)
        if found is None:
            return
        nodes, held = found
        in_registers = self._fits(values, first, nodes)
        if first == moment and not in_registers:
            return
        after = self._late_value(values, first)
        if after is None:
            return
        changes: list[_Change] = []
        time, freed = sum(map(_nanoseconds, nodes)), 0
        for value in values:
            stop = self.spans[value][1]
            last, nbytes = self._last_before(value, first), value.type.nbytes
            changes.append((max(last + 1, self.spans[value][0]), stop, -nbytes))
            freed += nbytes
            if not in_registers:
                changes.append((first, stop, nbytes))
                time += 2 * nbytes * machine.current().byte(nbytes)
        for node in held:
            if node not in self.schedule.outputs:
                _, stop = self.spans.get(node, (0, self.schedule.maker[node] - 1))
                if stop < first:
                    changes.append((stop + 1, first, node.type.nbytes))
                    freed -= node.type.nbytes if stop < moment else 0
        if freed > 0:
            made = Repetition(tuple(values), first, tuple(nodes), after, freed, time)
            yield Saving(made, changes, held)

    def _made_from(
        self, values: Sequence[Node], first: int, moment: int, since: int
    ) -> tuple[list[Node], list[Node]] | None:
        """What is computed again for values, operands first, and what that reads from memory."""
        maker, kept = self.schedule.maker, self.schedule.kept
        largest = max(value.type.nbytes for value in values)
        wanted = set(values)
        nodes: dict[Node, None] = {}
        held: dict[Node, None] = {}
        pending = [(value, False) for value in values]
        while pending:
            node, is_ready = pending.pop()
            if is_ready:
                nodes[node] = None
                continue
            if node in nodes:
                continue
            if not _repeatable(node) or len(nodes) + len(pending) > _LONGEST * len(values):
                return None
            pending.append((node, True))
            for origin in self._origins(node):
                if self.lost.get(origin, first + 1) <= first:
                    return None  # it is overwritten, or else the result takes memory of its own
                if origin not in maker or is_generator(origin) or origin in held:
                    continue  # an argument or a constant
                if origin not in wanted and (
                    maker[origin] < since
                    or (origin in kept and self._lies(origin, moment))
                    or (origin in kept and 8 * origin.type.nbytes <= largest)
                ):
                    held[origin] = None
                else:
                    pending.append((origin, False))
        return list(nodes), list(held)

    def _origins(self, node: Node) -> list[Node]:
        found = self._operands.get(node)
        if found is None:
            found = list(dict.fromkeys(x for operand in node.inputs for x in origins(operand)))
            self._operands[node] = found
        return found

    def _lies(self, node: Node, moment: int) -> bool:
        """Whether a value is in memory at a moment, whatever is done here."""
        if node in self.schedule.outputs:
            return True
        start, stop = self.spans.get(node, (0, -1))
        return start <= moment <= stop

    def _last_before(self, value: Node, first: int) -> int:
        """The last kernel that reads the first computation of a value; that before it is made, if
        none does.
        """
        start, stop = self.spans[value]
        early = [number for number in self.schedule.readers[value] if number < first]
        last = early[-1] if early else start - 1
        # what another repetition reads of it stays for that
        return max(last, stop) if stop > self.schedule.readers[value][-1] else last

    def _fits(self, values: Sequence[Node], first: int, nodes: Sequence[Node]) -> bool:
        """Whether the kernel that reads a value would compute it by the way, element by element."""
        (value, *others) = values
        if others or self.schedule.readers[value][-1] != first:
            return False
        group = self.schedule.groups[first]
        if group.kind not in ("loops", "product"):
            return False
        if any(node.op.family != "pointwise" or is_apart(node) for node in nodes):
            return False
        for member in group.members:
            if value in self._origins(member) and (
                member.op in ROOTS or member.op.family not in ("pointwise", "reduction")
            ):
                return False
        return value.type.size == int(np.prod(group.dims))

    def _late_value(self, values: Sequence[Node], first: int) -> Node | None:
        """The latest value made before kernel `first`, but not before the values are made and read.

        Nothing that runs before `first` is made from what is computed again, so to wait for it is
        safe. Of the kernel that makes a value only what is there when it has ended will do.
        """
        schedule = self.schedule
        maker = max(schedule.maker[value] for value in values)
        last = max(maker, *(self._last_before(value, first) for value in values))
        own = set(values)
        for number in range(first - 1, last - 1, -1):
            for node in schedule.groups[number].members:
                is_there = number > maker or schedule.ends_with_kernel(node)
                if node in schedule.kept and is_there and node not in own | self.gone:
                    return node
        return None


def chosen(
    schedule: Schedule, target: int, lost: Mapping[Node, int] | None = None
) -> tuple[list[Repetition], int]:
    """Repetitions that bring the bytes in use down to a target, or as near as they do, and the most
    bytes that are then in use at any moment, as far as it is known.

    `lost`: arguments that a kernel writes a result over, which are read before that only.
    """
    lifetimes, found = Lifetimes(schedule, lost or {}), list[Repetition]()
    while lifetimes.most > target and len(found) < _MOST:
        made = _best(lifetimes, target)
        if not made:
            break
        found += made
    return found, lifetimes.most


def alone(schedule: Schedule, lost: Mapping[Node, int] | None = None) -> list[Repetition]:
    """The repetitions that relieve the fullest moment, that first which takes the least time for
    the bytes that it frees then.
    """
    found = [saving.repetition for saving in Lifetimes(schedule, lost or {}).savings()]
    return sorted(found, key=lambda made: made.nanoseconds / made.freed)


def _best(lifetimes: Lifetimes, target: int) -> list[Repetition]:
    """Choose of what relieves the fullest moment the best, and what is as good after it."""
    ranked = []
    for saving in lifetimes.savings():
        gain = _gain(lifetimes, saving, target)
        if gain > 0:
            ranked.append((gain / max(saving.repetition.nanoseconds, 1.0), saving))
    ranked.sort(key=lambda item: -item[0])
    found: list[Repetition] = []
    for worth, saving in ranked:
        if found and (worth < ranked[0][0] / 2 or not lifetimes.may(saving)):
            continue
        if lifetimes.most > target and _gain(lifetimes, saving, target) > 0:
            lifetimes.take(saving)
            found.append(saving.repetition)
    return found


def _gain(lifetimes: Lifetimes, saving: Saving, target: int) -> int:
    """By how much a saving lowers the bytes above the target; 0 where the fullest moment is as full
    as before, or another one fuller.
    """
    fullest, after = int(lifetimes.sizes.argmax()), lifetimes.after(saving)
    if after.max() > lifetimes.most or after[fullest] >= lifetimes.most:
        return 0
    return _excess(lifetimes.sizes, target) - _excess(after, target)


def _excess(sizes: NDArray[np.int64], target: int) -> int:
    """The bytes above a target, summed over the kernels."""
    return int(np.maximum(sizes - target, 0).sum())


def _repeatable(node: Node) -> bool:
    family = node.op.family
    if family == "pointwise":
        return node.op not in CHECKS
    return family == "reduction" or node.op in (*ROOTS, movement.pad, update, window_pick)


def _nanoseconds(node: Node) -> float:
    """What one core takes to compute a node, its operands being there."""
    if node.op in ROOTS:
        return multiply_adds(node) * machine.current().multiply_add
    elements = max([node.type.size, *(operand.type.size for operand in node.inputs)])
    return elements * work((node,))
