"""A fused graph as a program for the device: each group as launches of generated kernels."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from graphdl.compiler.fuse import COLUMN, NUMBERS, ROW, STRIP, Group, fuse, stored
from graphdl.compiler.order import ordered
from graphdl.compiler.pipeline import DEVICE_PASSES, optimise
from graphdl.graph import Graph, Node
from graphdl.kernels.control import control_launch
from graphdl.kernels.cuda.covered import check_covered
from graphdl.kernels.cuda.cublaslt import Library
from graphdl.kernels.cuda.launch import ACCESS, ALIGNMENT
from graphdl.kernels.cuda.library import Products, library_launch, root_of
from graphdl.kernels.cuda.nest import device_launches
from graphdl.kernels.cuda.product import product_launch
from graphdl.kernels.cuda.special import SPECIAL
from graphdl.kernels.program import Buffer, Launch, Program


def compiled(graph: Graph) -> Program:
    """The program of a graph, through all passes; UnsupportedError if the device lacks an op."""
    optimised = optimise(graph, DEVICE_PASSES)[-1][1]
    return emit(optimised, fuse(optimised))


def _body(graph: Graph) -> Program:
    """The program of a loop's body or of a branch, whose arguments may be parts of arrays.

    Its products are our kernels: a library wants its operands aligned.
    """
    optimised = optimise(graph, DEVICE_PASSES)[-1][1]
    return emit(optimised, fuse(optimised), within=True)


def emit(
    graph: Graph,
    groups: Sequence[Group],
    within: bool = False,
    library: Library | None = None,
    precision: str = "float32",
) -> Program:
    """The program that computes the outputs of a graph, group by group.

    `within` a loop, arguments and results are slices of arrays: those whose size is no multiple of
    16 bytes may start anywhere. `library`: products are calls of cublasLt, where it takes them;
    `precision`: "tf32" lets it round the operands of float32 products to 10 bits of the mantissa.

    Raises UnsupportedError, before anything is compiled, for an op that has no kernel here.
    """
    check_covered(graph)
    groups = [part for group in ordered(graph, groups) for part in split(group)]
    products = None if library is None else Products(graph, groups, library, precision)
    groups = groups if products is None else products.groups
    kept = stored(graph, groups)
    status = Buffer(8, None, "whether a kernel has failed, and which")
    leaves = (*graph.inputs, *graph.outputs) if within else ()
    loose = frozenset(leaf for leaf in leaves if leaf.type.nbytes % ACCESS)
    launches: list[Launch] = []
    for group in groups:
        if group.kind in ("loops", NUMBERS):
            launches += device_launches(group, kept, status, loose)
        elif products is not None and root_of(group) in products.calls:
            launches.append(library_launch(products.calls[root_of(group)], products.masks))
        elif group.kind == "product":
            launches.append(product_launch(group, kept, status))
        elif group.members[0].op.family == "control":
            launches.append(control_launch(group.members, _body, status))
        else:
            node = group.members[0]
            launches += SPECIAL[node.op.name](node, status)
    computed = {node for group in groups for node in group.members}
    arguments = set(graph.inputs)
    constants: dict[Node, None] = {}
    for launch in launches:
        for value in launch.reads:
            if isinstance(value, Node) and value not in computed and value not in arguments:
                constants.setdefault(value)
    used = any(status in launch.writes for launch in launches)
    return Program(graph, launches, tuple(constants), status if used else None, alignment=ALIGNMENT)


def split(group: Group) -> list[Group]:
    """A group as groups that one kernel serves.

    Reductions over some of the inner loops stay where they all keep the same loops and nothing else
    asks for rows; otherwise each becomes a kernel of its own, after the others.
    """
    strips = [node for node, kind in group.reductions.items() if kind == STRIP]
    if not strips:
        return [group]
    kept = {frozenset(group.axes[node]) for node in strips}
    kinds = set(group.reductions.values())
    last = group.inner[-1]
    if not kinds & {ROW, COLUMN} and len(kept) == 1 and last in next(iter(kept)):
        return [group]
    rest = tuple(node for node in group.members if node not in strips)
    first = [_only(group, rest)] if rest else []
    return [*first, *(_alone(group, node) for node in strips)]


def _only(group: Group, members: tuple[Node, ...]) -> Group:
    """The part of a group."""
    return replace(
        group,
        members=members,
        axes={node: group.axes[node] for node in members},
        operand_axes={n: axes for n, axes in group.operand_axes.items() if n in members},
        reductions={n: kind for n, kind in group.reductions.items() if n in members},
    )


def _alone(group: Group, node: Node) -> Group:
    """A reduction over some inner loops as a group of its own; over rows if it sums the last."""
    made = _only(group, (node,))
    summed = [d for d in group.inner if d not in group.axes[node]]
    if group.inner[-1] not in summed:
        return made
    everything = range(len(group.dims))
    outer = tuple(d for d in everything if d not in summed)
    return replace(made, outer=outer, inner=tuple(summed), reductions={node: ROW})
