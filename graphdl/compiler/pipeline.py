"""The passes, in order: from the traced graph to the one that is fused into kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphdl.compiler.blocks import in_blocks
from graphdl.compiler.checkpoint import inlined
from graphdl.compiler.contract import normalise
from graphdl.compiler.convolve import lower_convolutions
from graphdl.compiler.defer_sums import defer_sums
from graphdl.compiler.halves import half_products, separate, widen_halves
from graphdl.compiler.late_joins import late_joins
from graphdl.compiler.long_sums import in_parts
from graphdl.compiler.loop_gradients import merge_scans, merge_switches
from graphdl.compiler.materialise import materialise
from graphdl.compiler.narrow import narrow
from graphdl.compiler.numbers import cut_numbers
from graphdl.compiler.parts import read_parts
from graphdl.compiler.place_joins import place_joins
from graphdl.compiler.place_pads import place_pads
from graphdl.compiler.prune_loops import prune
from graphdl.compiler.read_joins import read_joins
from graphdl.compiler.recompute import recompute
from graphdl.compiler.rewrite import simplify
from graphdl.compiler.row_sums import row_sums
from graphdl.compiler.shared_sorts import share_orders
from graphdl.compiler.small_axes import split_small_axes
from graphdl.compiler.small_windows import split_small_windows
from graphdl.compiler.split_complex import split_complex
from graphdl.compiler.straighten import straighten
from graphdl.compiler.sum_parts import sum_parts
from graphdl.compiler.verify import verify
from graphdl.graph import Graph

Pass = Callable[[Graph], Graph]

#: What happens to a graph between tracing and fusion.
PASSES: Sequence[tuple[str, Pass]] = (
    ("inline checkpoints", inlined),
    ("widen halves", widen_halves),
    ("simplify", simplify),
    ("row sums", row_sums),
    ("merge scans", merge_scans),
    ("merge switches", merge_switches),
    ("prune loops", prune),
    ("defer sums", defer_sums),
    ("share orders", share_orders),
    ("split complex", split_complex),
    ("convolutions", lower_convolutions),
    ("narrow", narrow),
    ("contract", normalise),
    ("long sums", in_parts),
    ("sum parts", sum_parts),
    ("read parts", read_parts),
    ("simplify again", simplify),
    ("split small axes", split_small_axes),
    ("split small windows", split_small_windows),
    ("late joins", late_joins),
    ("read joins", read_joins),
    ("place pads", place_pads),
    ("place joins", place_joins),
    ("straighten", straighten),
    ("separate casts", separate),
    ("in blocks", in_blocks),
    ("materialise", materialise),
    ("cut numbers", cut_numbers),
    ("recompute", recompute),
)


#: The same for a GPU, whose products take floats of 16 bits as they are, and gain nothing by blocks
#: and parts that fit the caches of a CPU.
DEVICE_PASSES: Sequence[tuple[str, Pass]] = (
    *(step for step in PASSES[:-5] if step[1] is not in_parts),
    ("products of halves", half_products),
    *(step for step in PASSES[-5:] if step[1] is not in_blocks),
)


def optimise(graph: Graph, passes: Sequence[tuple[str, Pass]] = PASSES) -> list[tuple[str, Graph]]:
    """The graph after each pass, by the pass's name; each graph is verified, and only once."""
    verify(graph, "trace")
    steps = [("trace", graph)]
    for name, step in passes:
        made = step(graph)
        if made is not graph:
            verify(made, name)
        graph = made
        steps.append((name, graph))
    return steps
