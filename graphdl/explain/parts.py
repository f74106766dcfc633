"""What an explanation consists of, and how it is printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct

from graphdl.graph import Graph


class RuleUse(Struct, frozen=True):
    """A rule of the simplifier, what it made of what, how often, and from which lines.

    before, after: the first use, as `str(node)` prints it.
    """

    rule: str
    count: int
    before: str
    after: str
    lines: tuple[str, ...]


class PassStep(Struct, frozen=True):
    """A pass: the graph that it made, the rules that fired, the ops that are new and that are gone.

    The first step is the trace itself. new, gone: how many nodes of each op.
    """

    name: str
    graph: Graph
    rules: tuple[RuleUse, ...]
    new: Mapping[str, int]
    gone: Mapping[str, int]


class Computed(Struct, frozen=True):
    """A node that a kernel computes: its label in the last graph, type, op, and the user's line."""

    label: str
    type: str
    op: str
    line: str


class KernelPart(Struct, frozen=True):
    """A kernel: its number, what it computes, and what it costs. group: of the groups of nodes."""

    number: int
    name: str
    group: int
    computes: tuple[Computed, ...]
    iterations: int
    parallel: bool
    bytes: int
    flops: int


class Weighing(Struct, frozen=True):
    """What decided that a value is written and read, or the like of it computed again.

    value: its label. stored, repeated: nanoseconds of one core for either; repeated is None where
    the kernel that reads the value cannot compute it.
    """

    value: str
    stored: float
    repeated: float | None

    def __str__(self) -> str:
        stored = f"{self.value} takes {self.stored / 1000:,.0f} us to write and read"
        if self.repeated is None:
            return f"{stored}, and cannot be computed again there"
        return f"{stored}, {self.repeated / 1000:,.0f} us to compute again"


class KernelBorder(Struct, frozen=True):
    """Why two kernels are two: `after` reads `values` (labels) that `before` makes.

    weighings: of large values that no other kernel reads, what storing and repeating them costs.
    """

    before: int
    after: int
    values: tuple[str, ...]
    why: str
    weighings: tuple[Weighing, ...] = ()


class BufferPart(Struct, frozen=True):
    """A value, or working memory, where it lies, from which kernel to which, and who else does.

    place: "argument 0", "result 1", "constant 0", or "arena". first, last: numbers of kernels, -1
    where none writes it. shares: the names of those that lie in the same bytes at other times.
    """

    name: str
    nbytes: int
    place: str
    offset: int
    first: int
    last: int
    shares: tuple[str, ...]


class BodyPart(Struct, frozen=True):
    """The body of a loop or a branch, which kernel runs it, and what became of it."""

    kernel: int
    name: str
    explanation: Explanation


class Explanation(Struct, frozen=True):
    """What the compiler did to a function and why: `executable.explain()`. `print` it, or read it.

    passes: each pass with the graph that it made and the rules that fired. kernels: what runs, in
    order. borders: why two kernels are two. buffers: where values lie. bodies: of loops and
    branches. memory, seconds: in total, as text, and what making it took, by phase. notes: what
    else there is to say of a target.

    >>> import numpy as np, graphdl as gd
    >>> f = gd.compile(lambda x: np.log(1.0 + x) / np.sum(x))
    >>> found = f.lower(gd.spec((1000,))).explain()
    >>> [use.rule for step in found.passes for use in step.rules]
    ['constant to the right', 'log(1 + x)']
    >>> [(border.before, border.after, border.why) for border in found.borders]
    [(0, 1, 'the value is complete only when its kernel has ended')]
    """

    passes: tuple[PassStep, ...]
    kernels: tuple[KernelPart, ...]
    borders: tuple[KernelBorder, ...]
    buffers: tuple[BufferPart, ...]
    bodies: tuple[BodyPart, ...]
    memory: str
    seconds: Mapping[str, float]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join(_lines(self))

    @property
    def graphs(self) -> tuple[tuple[str, Graph], ...]:
        """The graph after each pass, by the name of the pass, the traced one first."""
        return tuple((step.name, step.graph) for step in self.passes)

    def why(self, before: int, after: int) -> str:
        """Why two kernels, by their numbers, are two; "" where neither reads from the other."""
        pairs = ((before, after), (after, before))
        return next((b.why for b in self.borders if (b.before, b.after) in pairs), "")


#: How many lines of the user's are printed of a rule that fired more often.
_LINES = 4


def _lines(found: Explanation) -> Iterator[str]:
    count = len(found.kernels)
    traced, last = found.passes[0].graph, found.passes[-1].graph
    yield (
        f"{len(traced.nodes)} nodes traced, {len(last.nodes)} after {len(found.passes) - 1} "
        f"passes, {count} kernel{'' if count == 1 else 's'}"
    )
    if found.seconds:
        times = ", ".join(f"{phase} {time:.3f} s" for phase, time in found.seconds.items())
        yield f"time to make: {times}"
    yield from found.notes
    yield ""
    yield "passes"
    idle = [step.name for step in found.passes[1:] if not (step.rules or step.new or step.gone)]
    for step in found.passes:
        if step.name not in idle:
            yield from _pass_lines(step)
    if idle:
        yield f"  nothing to do: {', '.join(idle)}"
    yield ""
    yield "kernels"
    bodies: dict[int, list[BodyPart]] = {}
    for body in found.bodies:
        bodies.setdefault(body.kernel, []).append(body)
    for kernel in found.kernels:
        yield from _kernel_lines(kernel, found)
        for body in bodies.get(kernel.number, []):
            yield f"    {body.name}:"
            yield from (f"        {line}".rstrip() for line in _lines(body.explanation))
    yield ""
    yield f"memory: {found.memory}"
    width = max((len(buffer.name) for buffer in found.buffers), default=0)
    yield from (_buffer_line(buffer, width) for buffer in found.buffers)


def _pass_lines(step: PassStep) -> Iterator[str]:
    net = {op: step.new.get(op, 0) - step.gone.get(op, 0) for op in (*step.new, *step.gone)}
    changes = [f"{n:+} {op}" for op, n in net.items() if n]
    yield f"  {step.name:<20} {len(step.graph.nodes):>5} nodes  {', '.join(changes)}".rstrip()
    for use in step.rules:
        lines = ", ".join(use.lines[:_LINES]) + (", ..." if len(use.lines) > _LINES else "")
        times = f" ({use.count} times)" if use.count > 1 else ""
        yield f"      {use.rule}{times}: {use.before} becomes {use.after}   {lines}".rstrip()


def _kernel_lines(kernel: KernelPart, found: Explanation) -> Iterator[str]:
    threads = "shared by threads" if kernel.parallel else "one thread"
    yield (
        f"kernel {kernel.number}: {kernel.name} ({threads}, {kernel.iterations} iterations, "
        f"{kernel.bytes:,} bytes, {kernel.flops:,} operations)"
    )
    for node in kernel.computes:
        yield f"    {node.label}: {node.type} = {node.op}   {node.line}".rstrip()
    for border in found.borders:
        if border.before == kernel.number:
            values = ", ".join(border.values)
            yield f"    ends before kernel {border.after}, which reads {values}: {border.why}"
            yield from (f"        {weighing}" for weighing in border.weighings)


def _buffer_line(buffer: BufferPart, width: int) -> str:
    place = f"arena at {buffer.offset:,}" if buffer.place == "arena" else buffer.place
    used = (
        f"kernels {buffer.first} to {buffer.last}"
        if 0 <= buffer.first < buffer.last
        else f"kernel {buffer.last}"
        if buffer.last >= 0
        else "no kernel"
    )
    shares = f", shared with {', '.join(buffer.shares)}" if buffer.shares else ""
    return f"  {buffer.name:<{width}} {buffer.nbytes:>12,} bytes  {place}, {used}{shares}"
