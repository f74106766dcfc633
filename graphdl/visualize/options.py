"""What `visualize` can be asked for, and the errors about what it cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from graphdl.errors import ArgumentError
from graphdl.graph import Graph
from graphdl.visualize.drawing import Kernel
from graphdl.visualize.paint import MEASURES
from graphdl.visualize.theme import THEMES

LAYOUTS = ("auto", "training", "dag", "dot")
LEVELS = ("op", "kernel", "scope")
COLOURS = ("phase", *MEASURES)
#: What can be chosen from a list, the usual one first.
CHOICES = {
    "layout": LAYOUTS,
    "level": LEVELS,
    "color": COLOURS,
    "theme": tuple(THEMES),
}
OPTIONS = ("layout", "level", "color", "theme", "profile", "values", "compare")


class Request(Struct, frozen=True):
    """A picture that someone wants.

    kernels: what runs as one, or the groups that the user gave. values: the arguments of a teaching
    picture, None for another. executable: what is drawn, where it is one and not a graph. compare:
    a graph or an executable to show beside it.
    """

    graph: Graph
    kernels: Sequence[Kernel] = ()
    layout: str = "auto"
    level: str = "op"
    color: str = "phase"
    theme: str = "light"
    profile: Mapping[Any, float] | None = None
    values: Sequence[Any] | None = None
    compare: Any = None
    title: str = ""
    executable: Any = None

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            given = getattr(self, name)
            if given not in known:
                raise ArgumentError(
                    f"{name}={given!r:.40}; write one of {', '.join(map(repr, known))}"
                )
        if self.color == "time" and self.profile is None:
            raise ArgumentError(
                "color='time' needs measured times: pass profile=executable.profile(*args)"
            )
        if self.level == "kernel" and not self.kernels:
            raise ArgumentError(
                "level='kernel' shows what runs as one kernel, which a graph does not say: draw an "
                "executable, gd.compile(f).lower(*args), or pass groups="
            )
        if self.values is not None and (self.layout not in ("auto", "dag") or self.level != "op"):
            raise ArgumentError(
                "values= draws a computation graph with a number at each node: "
                "layout= and level= do not apply to it"
            )
