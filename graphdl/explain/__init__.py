"""Why a program is what it is: `executable.explain()`, and `python -m graphdl.explain` in a shell.

Everything is data: `steps(graph)` is the graph after each pass with the rules that fired,
`explained` all that there is to say.
"""

from graphdl.explain.collect import explained, steps
from graphdl.explain.parts import Explanation, KernelBorder, PassStep

__all__ = ["Explanation", "KernelBorder", "PassStep", "explained", "steps"]
