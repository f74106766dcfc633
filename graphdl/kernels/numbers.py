"""The kernel of a part of a program of numbers: straight code, a line an operation.

    def kernel(table, lo, hi):
        number0 = f64_at(table[0])[0]      what other parts made, and the arguments
        c0 = sin(number0)
        c1 = multiply(c0, number1)
        f64_at(table[2])[0] = c1           what is returned, or read by other kernels

All that is read is read before anything is written, so a value may lie where one that it is made
from lay. Text without a loop is compiled as such: see graphdl.kernels.cpu.llvm.
"""

from __future__ import annotations

from msgspec.structs import replace

from graphdl.compiler.costs import work
from graphdl.compiler.fuse import Group
from graphdl.graph import Node
from graphdl.kernels.loops import Loops
from graphdl.kernels.nest import NestText
from graphdl.kernels.nest_launch import launch_of, name_of
from graphdl.kernels.program import Buffer, Launch
from graphdl.kernels.source import KernelSource


class NumbersText(NestText):
    """The lines of a part, and the numbers that it computes, in order."""

    def lines(self) -> list[str]:
        values = [self._operand(node, 0, {}, {}, 2) for node in self.group.members]
        for node, value in zip(self.group.members, values, strict=True):
            self.out.add(f"{self._pointer(self.nest.store_access(node), {})}[0] = {value}")
        return [*("    " + line for line in self.prelude), *self.out.lines]

    def numbers(self) -> list[Node]:
        return [key for key in self.scalar_names if isinstance(key, Node)]


def numbers_launch(group: Group, stored: set[Node], status: Buffer) -> Launch:
    """The launch of a group of the kind "numbers"."""
    loops = Loops(group, stored, status)
    text = NumbersText(loops)
    lines = text.lines()
    head = ["def kernel(table, lo, hi):"]
    head += [f"    {name} = table[{i}]" for name, i in loops.word_names.items()]
    numbers = text.numbers()
    nodes = (*numbers, *group.members)
    source = KernelSource(name_of(nodes), "\n".join([*head, *lines]) + "\n")
    launch = launch_of(loops, source, 1, 1, {})
    return replace(
        launch, cost=launch.cost + work(numbers), nodes=nodes, flops=len(numbers), moves=False
    )
