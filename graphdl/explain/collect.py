"""Collecting an explanation: the passes are run once more, with a record of what they do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from graphdl.compiler import fuse, pipeline, recompute
from graphdl.compiler.record import Firing, recording
from graphdl.compiler.rematerialise import Schedule
from graphdl.explain.parts import (
    BodyPart,
    BufferPart,
    Computed,
    Explanation,
    KernelBorder,
    KernelPart,
    PassStep,
    RuleUse,
    Weighing,
)
from graphdl.graph import Graph, Node
from graphdl.kernels.cpu.build import is_worth_sharing
from graphdl.kernels.memory import is_idle
from graphdl.kernels.program import Launch, Memory, Program, Value
from graphdl.ops import control


def explained(
    graph: Graph,
    program: Program,
    memory: Memory,
    seconds: Mapping[str, float] | None = None,
    later: Sequence[tuple[str, Graph]] = (),
) -> Explanation:
    """The explanation of the program that a traced graph has become.

    `later`: what an executable does to the graph after the passes that all programs have.
    """
    passes = steps(graph)
    for name, after in later:
        passes = (*passes, _step(name, passes[-1].graph, after, ()))
    if program.graph.nodes != passes[-1].graph.nodes:  # it was compiled with checks
        passes = (*passes, _step("guards", passes[-1].graph, program.graph, ()))
    running = [launch for launch in program.launches if not is_idle(launch, memory)]
    groups, found = fuse.borders(program.graph)
    group_of = {node: i for i, group in enumerate(groups) for node in group.members}
    kernels = tuple(_kernel(i, launch, program.graph, group_of) for i, launch in enumerate(running))
    return Explanation(
        passes,
        kernels,
        _borders(found, kernels, program.graph),
        _buffers(program, memory, running),
        _bodies(running),
        str(memory),
        seconds or {},
    )


# --- passes -----------------------------------------------------------------------------------


def steps(graph: Graph) -> tuple[PassStep, ...]:
    """What each pass makes of a traced graph, and the rules that fire in it.

    >>> import graphdl as gd
    >>> graph = gd.trace(lambda x: x * 1.0, gd.spec((3,)))
    >>> [(step.name, step.rules[0].rule) for step in steps(graph) if step.rules]
    [('simplify', 'x * 1')]
    """
    found = [PassStep("trace", graph, (), {}, {})]
    for name, step in pipeline.PASSES:
        with recording() as firings:
            after = step(graph)
        found.append(_step(name, graph, after, firings))
        graph = after
    return tuple(found)


def _step(name: str, before: Graph, after: Graph, firings: Sequence[Firing]) -> PassStep:
    old, new = set(before.nodes), set(after.nodes)
    return PassStep(name, after, _uses(firings), _ops(after, old), _ops(before, new))


def _ops(graph: Graph, without: set[Node]) -> dict[str, int]:
    """How many nodes of each op a graph has that are not among others."""
    return dict(Counter(node.op.name for node in graph.operations if node not in without))


def _uses(firings: Sequence[Firing]) -> tuple[RuleUse, ...]:
    by_rule: dict[str, list[Firing]] = {}
    for firing in firings:
        by_rule.setdefault(firing.rule, []).append(firing)
    return tuple(
        RuleUse(
            rule,
            len(found),
            repr(found[0].before),
            repr(found[0].after),
            tuple(dict.fromkeys(str(x.source) for x in found if x.source is not None)),
        )
        for rule, found in by_rule.items()
    )


# --- kernels ----------------------------------------------------------------------------------


def _kernel(number: int, launch: Launch, graph: Graph, group_of: Mapping[Node, int]) -> KernelPart:
    computes = tuple(
        Computed(
            graph.labels[node],
            str(node.type),
            node.op.name,
            str(graph.sources[node]) if node in graph.sources else "",
        )
        for node in launch.nodes
    )
    return KernelPart(
        number,
        launch.source.name,
        next((group_of[node] for node in launch.nodes if node in group_of), -1),
        computes,
        launch.iterations,
        is_worth_sharing(launch.cost) and launch.iterations > 1,
        launch.bytes,
        launch.flops,
    )


def _borders(
    found: Sequence[fuse.Border], kernels: Sequence[KernelPart], graph: Graph
) -> tuple[KernelBorder, ...]:
    """Borders of groups as borders of kernels: from the last kernel of one to the first of another.

    A group whose kernels have nothing to do has none.
    """
    weighings: dict[Node, Weighing] = {}
    for item in recompute.weighed(Schedule.of(graph)):
        label = graph.labels[item.value]
        weighings[item.value] = Weighing(label, item.storing, item.repeating)
    of_group: dict[int, list[int]] = {}
    for kernel in kernels:
        of_group.setdefault(kernel.group, []).append(kernel.number)
    return tuple(
        KernelBorder(
            of_group[border.before][-1],
            of_group[border.after][0],
            tuple(graph.labels[node] for node in border.values),
            border.why,
            tuple(weighings[value] for value in border.values if value in weighings),
        )
        for border in found
        if border.before in of_group and border.after in of_group
    )


def _bodies(running: Sequence[Launch]) -> tuple[BodyPart, ...]:
    found = []
    for number, launch in enumerate(running):
        if not launch.bodies:
            continue
        node = launch.nodes[0]
        graphs = control.bodies_of(node)
        names = [f"branch {k}" for k in range(len(graphs))]
        if node.op is control.while_:
            names = ["condition", "body", *(f"sweep {k}" for k in range(1, len(graphs) - 1))]
        elif node.op is control.scan:
            names = ["body"]
        for name, graph, body in zip(names, graphs, launch.programs, strict=True):
            found.append(BodyPart(number, name, explained(graph, body.program, body.memory)))
    return tuple(found)


# --- memory -----------------------------------------------------------------------------------


def _buffers(program: Program, memory: Memory, running: Sequence[Launch]) -> tuple[BufferPart, ...]:
    """Every value that a kernel reads or writes in memory, in the order of their first use."""
    labels = program.graph.labels
    touched: dict[Value, list[int]] = {}
    for number, launch in enumerate(running):
        for value in dict.fromkeys((*launch.reads, *launch.writes)):
            touched.setdefault(value, []).append(number)
    for node in program.graph.outputs:
        touched.setdefault(node, [])
    names = {
        value: labels[value] if isinstance(value, Node) else value.purpose for value in touched
    }
    sizes = {
        value: value.type.nbytes if isinstance(value, Node) else value.nbytes for value in touched
    }
    found = []
    for value, numbers in touched.items():
        place = memory.places[value]
        start, stop = place.offset, place.offset + sizes[value]
        shares = [
            names[other]
            for other in touched
            if other is not value
            and (memory.places[other].kind, memory.places[other].index) == (place.kind, place.index)
            and memory.places[other].offset < max(stop, start + 1)
            and start < memory.places[other].offset + max(sizes[other], 1)
        ]
        found.append(
            BufferPart(
                names[value],
                sizes[value],
                place.kind if place.kind == "arena" else f"{place.kind} {place.index}",
                place.offset,
                min(numbers, default=-1),
                max(numbers, default=-1),
                tuple(shares),
            )
        )
    return tuple(found)
