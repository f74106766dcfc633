"""The program: kernels with the memory that they read and write, before it has addresses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from graphdl.graph import Graph, Node
from graphdl.kernels.source import KernelSource


class Buffer(Struct, frozen=True, eq=False):
    """Memory that a program needs while it runs, and what for."""

    nbytes: int
    node: Node | None = None
    purpose: str = "value"


class Address(Struct, frozen=True):
    """A word of a kernel's table: where a value or a buffer lies, and bytes beyond."""

    where: Node | Buffer
    offset: int = 0


class Entry(Struct, frozen=True):
    """A word of a product's table: the address of its epilogue, the kernel of the launch."""


class BodyWord(Struct, frozen=True):
    """A word that names body number `body` of a launch: one of the fields of its native form."""

    body: int
    field: int


class Routine(Struct, frozen=True):
    """A word that is the address of a routine of BLAS or LAPACK."""

    name: str


class Stack(Struct, frozen=True, eq=False):
    """A word of a table: the address of memory that grows while a launch runs, and is kept.

    A program that runs again finds it as large as it was, so it allocates nothing unless it has
    more to keep than before.
    """


Word = int | Address | Entry | BodyWord | Routine | Stack


class Launch(Struct, frozen=True, eq=False):
    """One kernel run: `iterations` of `source` over a table of `words`.

    `core` names the core of a matrix product or a convolution: then `source` is its epilogue.
    `bodies` are the programs that a control-flow launch runs: then `source` only names it. Where
    the steps of a loop run side by side, they are one program, once for each of its iterations.
    `cost` estimates the work in nanoseconds on one core: it decides whether threads share it.
    `reads`, `writes`: values and buffers, for lifetimes; `in_place`: pairs (written, read) of the
    same size, of which each element is read before it is written. `moves`: it only copies what it
    reads to the same places of what it writes, so it is not run where both are one. `spare`: texts
    that this launch does without, but that the same function of larger arrays needs: so that new
    sizes compile nothing.
    """

    source: KernelSource
    words: tuple[Word, ...]
    iterations: int
    cost: float
    reads: tuple[Node | Buffer, ...]
    writes: tuple[Node | Buffer, ...]
    in_place: tuple[tuple[Node, Node], ...] = ()
    nodes: tuple[Node, ...] = ()
    bytes: int = 0
    flops: int = 0
    core: str | None = None
    bodies: tuple[Body, ...] = ()
    spare: tuple[KernelSource, ...] = ()
    moves: bool = False

    @property
    def programs(self) -> tuple[Body, ...]:
        """The bodies, each once."""
        return tuple(dict.fromkeys(self.bodies))

    @property
    def is_side_by_side(self) -> bool:
        """Whether it is a loop whose steps run side by side, on one thread each."""
        return len(self.bodies) > 1 and self.iterations == len(self.bodies)


Value = Node | Buffer


class Place(Struct, frozen=True):
    """Where a value lies: kind is "argument", "result", "constant" or "arena".

    `index` counts arguments, results or constants; `offset` is in bytes, in the arena.
    """

    kind: str
    index: int = 0
    offset: int = 0


class Memory(Struct, frozen=True):
    """The plan, and what it costs.

    arena_bytes: the size of the arena. values_bytes: what all values would take without sharing.
    result_bytes: what a call allocates. donated: the argument that a result is written over.
    bodies_bytes: the arenas and constants of loops' bodies and of branches.
    """

    places: Mapping[Value, Place]
    arena_bytes: int
    values_bytes: int
    result_bytes: int
    constant_bytes: int
    donated: Mapping[Node, int]
    bodies_bytes: int = 0

    @property
    def own_bytes(self) -> int:
        """What the program keeps between calls, the bodies of its loops and branches included."""
        return self.arena_bytes + self.constant_bytes + self.bodies_bytes

    @property
    def peak_bytes(self) -> int:
        """What a call needs beside its arguments."""
        return self.own_bytes + self.result_bytes

    def __str__(self) -> str:
        return (
            f"arena {self.arena_bytes:,} bytes (values without sharing: {self.values_bytes:,}), "
            f"results {self.result_bytes:,}, constants {self.constant_bytes:,}, "
            f"{len(self.donated)} results in donated memory"
        )


class Body(Struct, frozen=True, eq=False):
    """The program of a loop's body or of a branch, and where its values lie."""

    program: Program
    memory: Memory


#: What kernels write in the status of their program: an index was out of bounds; there was no
#: memory for the steps of a loop; a value was a NaN or an infinity, where the program is guarded;
#: a scalar function of the user's raised an exception; or a matrix was not fit for an operation,
#: whose number follows FAILED.
OUT_OF_BOUNDS, OUT_OF_MEMORY, NOT_FINITE, RAISED, FAILED = 1, 2, 3, 4, 5

ALIGNMENT = 64  # bytes: one 512-bit register, and one cache line


class Check(Struct, frozen=True):
    """Where the kernels of an op report that they failed: a word, and what to write there."""

    status: Buffer
    number: int


class Program(Struct, frozen=True, eq=False):
    """Launches in order, and where their values come from.

    `graph` is the optimised graph; its outputs may repeat. `status` is a word that kernels set
    when they fail, if any can: to OUT_OF_BOUNDS, OUT_OF_MEMORY, NOT_FINITE, RAISED, or to
    FAILED + i if checks[i] did. `alignment`: what the offsets of its values in the arena are
    multiples of, in bytes.
    """

    graph: Graph
    launches: Sequence[Launch]
    constants: Sequence[Node]
    status: Buffer | None = None
    checks: Sequence[Node] = ()
    notes: Mapping[Node, str] = field(default_factory=dict)
    alignment: int = ALIGNMENT
