"""What a program takes and returns, and how it fails: what a caller in another language needs."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from graphdl.native.nesting import Nest
from graphdl.types import TensorType


class Argument(Struct, frozen=True):
    """A leaf of the arguments.

    `number`: it was a Python number when the program was made, and is given as one. `donated`: a
    result is written over it.
    """

    name: str
    type: TensorType
    number: bool = False
    donated: bool = False


class Result(Struct, frozen=True):
    """A leaf of the results; `argument` is the leaf of the arguments that it is written over."""

    name: str
    type: TensorType
    argument: int | None = None


class Signature(Struct, frozen=True):
    """The leaves of the arguments and of the results in order, and how they nest.

    failures: the error behind each code that a call may return, but for 0.
    """

    arguments: tuple[Argument, ...]
    results: tuple[Result, ...]
    takes: tuple[Nest, ...]
    gives: Nest
    failures: Mapping[int, BaseException]

    @property
    def new(self) -> list[Result]:
        """The results that have memory of their own."""
        return [result for result in self.results if result.argument is None]
