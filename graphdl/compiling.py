"""What becomes of a graph: the passes, the groups of its nodes, the program and its memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

from msgspec import Struct

from graphdl.compiler import pipeline
from graphdl.compiler.fuse import Group, fuse
from graphdl.compiler.guards import guarded, settled
from graphdl.graph import Graph
from graphdl.kernels import budget, memory
from graphdl.kernels.emit import emit
from graphdl.kernels.fullest import shortfall
from graphdl.kernels.program import Memory, Program
from graphdl.kernels.shortfall import Shortfall


class Made(Struct, frozen=True, eq=False):
    """The graph after each pass, the groups of the last one, the program and its memory.

    later: what was done to the graph after the passes, because it was asked for. unguarded: the
    last graph without what `checks` watch. shortfall: by how much the memory budget is not kept.
    seconds: what it took, by phase.
    """

    passes: list[tuple[str, Graph]]
    later: list[tuple[str, Graph]]
    unguarded: Graph
    groups: Sequence[Group]
    program: Program
    memory: Memory
    shortfall: Shortfall | None
    seconds: dict[str, float]


class Target(Struct, frozen=True):
    """What programs are made for: its passes, and what makes kernels of groups of nodes."""

    passes: Sequence[tuple[str, pipeline.Pass]]
    emit: Callable[[Graph, Sequence[Group]], Program]

    def made(
        self,
        graph: Graph,
        donated: Sequence[int],
        checks: frozenset[str],
        memory_budget: int | None,
    ) -> Made:
        """What becomes of a graph as it was traced.

        Args:
            donated: positions of arguments that results may overwrite.
            checks: what the program watches while it runs: "nan", "bounds".
            memory_budget: bytes that it is to keep within, if it can, by computing values twice.
        """
        start = perf_counter()
        passes = pipeline.optimise(graph, self.passes)
        later = []
        if memory_budget is not None:
            later += self._kept_within(memory_budget, passes[-1][1], donated)
        unguarded = settled([*passes, *later][-1][1]) if checks else graph
        if "nan" in checks:
            later.append(("guards", guarded(unguarded)))
        last = [*passes, *later][-1][1]
        groups = fuse(last)
        fused = perf_counter()
        program = self.emit(last, groups)
        placed = memory.plan(program, donated)
        seconds = {"passes": fused - start, "emit": perf_counter() - fused}
        missed = None if memory_budget is None else shortfall(memory_budget, program, placed)
        return Made([*passes, *later], later, unguarded, groups, program, placed, missed, seconds)

    def _kept_within(
        self, memory_budget: int, before: Graph, donated: Sequence[int]
    ) -> list[tuple[str, Graph]]:
        """A graph that computes values twice, where the program would take more bytes than that."""

        def memory_of(graph: Graph) -> Memory:
            return memory.plan(self.emit(graph, fuse(graph)), donated)

        after = budget.within(before, memory_budget, memory_of)
        return [("rematerialise", after)] if after is not before else []


CPU = Target(pipeline.PASSES, emit)
