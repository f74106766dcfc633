"""What computing costs: of a node, of what a kernel does, and of moving what it reads and writes.

`cost_of` is the same on every machine: it decides on texts of kernels and on blocks, whose partial
results are summed, so neither a kernel nor a sum depends on what was measured. `work` is what the
machine takes, as far as it is known (graphdl.machine).
"""

from __future__ import annotations

from collections.abc import Iterable

from graphdl import machine
from graphdl.graph import Node
from graphdl.ops import special
from graphdl.ops.op import Op

#: Rough cost of an element in nanoseconds on one core, when vectorised; 0.15 where none is given.
#: Only its order of magnitude matters: what is saved in a row rather than computed twice, and what
#: is worth the 3 us that it takes to share a launch among threads.
COST: dict[str, float] = {
    **dict.fromkeys(("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sigmoid"), 1.0),
    **dict.fromkeys(("tanh", "softplus", "sin", "cos", "tan", "sinh", "cosh", "erf", "erfc"), 2.0),
    **dict.fromkeys(("arcsin", "arccos", "arctan", "arcsinh", "arccosh", "arctanh"), 2.0),
    **dict.fromkeys(("power", "arctan2", "hypot", "cbrt", "logaddexp", "logaddexp2"), 4.0),
    **dict.fromkeys(("divide", "sqrt", "reciprocal", "floor_divide", "remainder", "fmod"), 0.5),
    **dict.fromkeys(("gcd", "lcm"), 20.0),
    **{op.name: 50.0 for op in vars(special).values() if isinstance(op, Op)},
    **dict.fromkeys(("loggamma_sample", "loggamma_slope", "poisson_sample"), 20.0),
    **dict.fromkeys(("philox", "philox_wide", "ndtri"), 2.0),
}

#: The same of a function of the user's, of which nothing is known.
USER_COST = 2.0

#: That of any other op: additions, comparisons, choices.
_PLAIN = 0.15


def cost_of(node: Node) -> float:
    """Nanoseconds that one element of the node takes; the same on every machine."""
    cost = USER_COST if node.op.symbol else COST.get(node.op.name, _PLAIN)
    return cost * (2.0 if node.dtype.itemsize == 8 else 1.0)


def is_cheap(node: Node) -> bool:
    """Whether a pointwise op is an operation or two of the processor: less than writing its result
    and reading it again. The same on every machine.
    """
    return not node.op.symbol and COST.get(node.op.name, _PLAIN) <= _PLAIN


def work(nodes: Iterable[Node]) -> float:
    """Nanoseconds that one element of all these nodes takes on this machine."""
    return machine.current().exp * sum(cost_of(node) for node in nodes)
