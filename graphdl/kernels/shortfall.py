"""A memory budget that a program does not keep: by how much, and what takes the memory."""

from __future__ import annotations

from msgspec import Struct


class Shortfall(Struct, frozen=True):
    """A budget, the fewest bytes that were found to do, and the largest values among them.

    largest: bytes, what they are, and the user's line.
    """

    budget: int
    reached: int
    largest: list[tuple[int, str, str]]

    def without_lines(self) -> Shortfall:
        return Shortfall(
            self.budget, self.reached, [(nbytes, what, "") for nbytes, what, _ in self.largest]
        )

    def __str__(self) -> str:
        lines = [
            f"memory_budget={self.budget:,} cannot be kept: the program takes {self.reached:,} "
            f"bytes beside its arguments, the fewest that were found. The largest of these, while "
            f"most are in use:",
            *(f"  {nbytes:>13,} bytes: {what}{where}" for nbytes, what, where in self.largest),
            "Write a larger budget, or pass smaller arrays (batches, say), or donate= arguments "
            "that results may overwrite",
        ]
        return "\n".join(lines)
