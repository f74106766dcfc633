"""Fusion: which nodes become one kernel.

Nodes are taken in order. Each joins the group of one of its operands if their loops agree and the
group stays convex, that is if nothing outside of it lies on a path from it to itself; groups that a
node brings together become one. A value is written to memory only if a user outside asks for it.

A group is a nest of loops over `dims`. Its `outer` loops are cut into blocks and shared by threads;
its `inner` loops are one row. What a reduction in the group does follows from the loops it sums:
  row      all inner loops: complete within a row, so members may use it (softmax, layer norm)
  column   all outer loops, keeping the inner ones: complete when the kernel ends
  all      every loop of its operand: complete when the kernel ends
  strip    some inner loops: complete when the row ends, in memory
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from weakref import WeakKeyDictionary

from msgspec import Struct, field

from graphdl.compiler.origins import (
    CHECKS,
    Axes,
    awaited,
    counts,
    is_apart,
    is_generator,
    is_number,
    is_scalar,
    may_change,
    origins,
    spoils,
    through,
)
from graphdl.compiler.rows import ROOTS, along
from graphdl.compiler.view import is_movement, is_result, view_of
from graphdl.graph import Graph, Node, users
from graphdl.ops import contraction, indexing, movement
from graphdl.ops.update import changed_shape, update
from graphdl.types import Shape

#: Members of a kernel. Compile time grows with them, 3 ms each; one kernel more writes and reads
#: what lies between (the gradient of an equation of state, 240 operations: 18 arrays, and four
#: times the time).
MAX_MEMBERS = 384
#: Arrays that groups of one operand become one kernel with; each keeps a pointer in a register.
MAX_ARRAYS = 40
#: Reductions of a kernel: LLVM takes 15 ms for each of 10, 24 ms for each of 80.
MAX_REDUCTIONS = 32

ROW, COLUMN, ALL, STRIP = "row", "column", "all", "strip"
#: The kind of a group that computes a part of a program of numbers.
NUMBERS = "numbers"

#: Why what could be one kernel is two, for people to read.
OWN_KERNEL = "one of them is an op with a kernel of its own"
FULL = f"a kernel has at most {MAX_MEMBERS} operations, {MAX_REDUCTIONS} of them reductions"
INCOMPLETE = "the value is complete only when its kernel has ended"
STRAIGHTENED = "an array that lies across the rows is turned for the other kernel to read along"
NOT_CONVEX = "another kernel has to run in between"
OTHER_LOOPS = "their loops differ"
OTHER_PLACES = "the value is read at other places of the loops than those where it is made"
PRODUCT = "it cannot be computed on the rows of a matrix product or a convolution"
WHOLE = "a matrix product or a convolution reads each element many times, so all are made before"
SPOILS = "an array that one of them changes in place is read by the other at other places"
NOT_TRIED = "nothing stands against it, but fusion did not come to try"


class Group(Struct, frozen=True):
    """The nodes of one kernel.

    kind: "loops", "product" (a matrix product and what is done with its result), "numbers" (copies
    of numbers that are made from numbers), or the name of an op that has a kernel of its own.
    `axes` are the members' loops, `operand_axes` those of a reduction's operand; `reductions` says
    how each reduction sums.
    """

    kind: str
    dims: Shape
    outer: tuple[int, ...]
    inner: tuple[int, ...]
    members: tuple[Node, ...]
    axes: Mapping[Node, Axes]
    operand_axes: Mapping[Node, Axes]
    reductions: Mapping[Node, str]


class _Draft(Struct, eq=False):
    """A group while it grows."""

    number: int
    kind: str
    dims: Shape
    axes: dict[Node, Axes] = field(default_factory=dict)
    operand_axes: dict[Node, Axes] = field(default_factory=dict)
    reductions: dict[Node, str] = field(default_factory=dict)
    outer: tuple[int, ...] | None = None
    inner: tuple[int, ...] | None = None
    updates: list[Node] = field(default_factory=list)

    def closes(self, node: Node) -> str | None:
        """Why a member's value is read by other kernels only; None if it is not."""
        if self.reductions.get(node, ROW) != ROW or node.op is update:
            return INCOMPLETE
        return STRAIGHTENED if is_apart(node) else None


def _but_for_ones(shape: Shape, dims: Shape) -> list[Axes]:
    """The loops of each axis, if the sizes are the same but for ones: at most one answer."""
    long = [d for d, size in enumerate(dims) if size != 1]
    if [size for size in shape if size != 1] != [dims[d] for d in long]:
        return []
    loops = iter(long)
    return [tuple(None if size == 1 else next(loops) for size in shape)]


class _Fit(Struct, frozen=True):
    """How a node fits a draft."""

    axes: Axes
    operand_axes: Axes | None = None
    reduction: str | None = None
    outer: tuple[int, ...] | None = None
    inner: tuple[int, ...] | None = None


#: Groups in a row that one does not fit before it gives up: there may be thousands.
_TRIES = 16
_FUSIBLE = ("pointwise", "reduction")
_IN_LOOPS = (indexing.gather, movement.pad, update)
_POSITION = ("argmax", "argmin")


class _Fusion:
    """The drafts so far, and which must run before which."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.drafts: dict[int, _Draft] = {}
        self.draft_of: dict[Node, _Draft] = {}
        #: Bit i of before[n]: draft i must run before draft n, directly or not.
        self.before: dict[int, int] = {}
        #: The drafts that another one must run after; some may be gone.
        self.followed = 0
        #: What a draft must run after beside what it reads.
        self.told: dict[int, list[_Draft]] = {}
        self.users = users(graph.nodes)
        self.count = 0
        #: The drafts of the parts of a program of numbers: see graphdl.compiler.numbers.
        self.parts: dict[int, _Draft] = {}

    def refused(self, node: Node, draft: _Draft, why: str) -> None:
        """A node does not join a draft that it reads from."""

    def new(self, kind: str, dims: Shape) -> _Draft:
        draft = _Draft(self.count, kind, dims)
        self.drafts[draft.number] = draft
        self.before[draft.number] = 0
        self.count += 1
        return draft

    def needs(self, node: Node) -> list[tuple[Node, _Draft]]:
        """The computed values that the node is made from, and their drafts."""
        found = []
        for operand in node.inputs:
            for origin in (*origins(operand), *awaited(operand)):
                draft = self.draft_of.get(origin)
                if draft is not None:
                    found.append((origin, draft))
        return found

    def add_before(self, number: int, mask: int) -> None:
        """Draft `number` must run after those in `mask`, and so must all that follow it."""
        missing = mask & ~self.before[number]
        if not missing:
            return
        self.before[number] |= missing
        self.followed |= missing
        bit = 1 << number
        if not self.followed & bit:
            return
        for other, earlier in self.before.items():
            if earlier & bit:
                self.before[other] = earlier | missing

    def obstacle(self, node: Node, draft: _Draft) -> str | None:
        """Why the draft would not be convex with the node in it; None if it would."""
        for origin, other in self.needs(node):
            if other is draft:
                why = draft.closes(origin)
                if why is not None:
                    return why
            elif self.before[other.number] >> draft.number & 1:
                return NOT_CONVEX
        return None

    def place(self, node: Node, draft: _Draft, fit: _Fit) -> None:
        draft.axes[node] = fit.axes
        if fit.operand_axes is not None:
            draft.operand_axes[node] = fit.operand_axes
        if fit.reduction is not None:
            draft.reductions[node] = fit.reduction
        if fit.outer is not None:
            draft.outer, draft.inner = fit.outer, fit.inner
        self.draft_of[node] = draft
        if node.op is update:
            draft.updates.append(node)
        mask = 0
        for _, other in self.needs(node):
            if other is not draft:
                mask |= self.before[other.number] | 1 << other.number
        self.add_before(draft.number, mask)

    # --- does it fit? ---------------------------------------------------------------------

    def fit(self, node: Node, draft: _Draft) -> _Fit | str:
        """How the node fits the draft, or why it does not."""
        if draft.kind not in ("loops", "product"):
            return OWN_KERNEL
        if len(draft.axes) >= MAX_MEMBERS:
            return FULL
        if node.op.family == "reduction":
            if draft.kind != "loops":
                return PRODUCT
            if len(draft.reductions) >= MAX_REDUCTIONS:
                return FULL
            return self._fit_reduction(node, draft) or OTHER_LOOPS
        if draft.kind == "product" and not _may_follow_product(node):
            return PRODUCT
        if node.op is update and spoils(node, (*draft.axes, node)):
            return SPOILS
        if any(spoils(made, (node,)) for made in draft.updates):
            return SPOILS
        why = OTHER_LOOPS
        for axes in self._candidates(node, draft):
            if not self._agrees(node, axes, draft):
                why = OTHER_PLACES
            elif not self._is_linear(node, draft, draft):
                why = PRODUCT
            else:
                return _Fit(axes)
        return why

    def _candidates(self, node: Node, draft: _Draft) -> list[Axes]:
        shape = changed_shape(node)
        found: list[Axes] = []
        if shape == draft.dims:
            found.append(tuple(range(len(shape))))
        elif node.op is update and draft.kind == "loops":
            found += _but_for_ones(shape, draft.dims)
        if draft.kind == "product" or draft.outer is None:
            if len(shape) == len(draft.dims) and draft.kind == "loops":
                found += self._permuted(node, draft)
        elif shape == tuple(draft.dims[d] for d in draft.outer):
            found.append(draft.outer)
        return found

    def _permuted(self, node: Node, draft: _Draft) -> list[Axes]:
        """The loops in the order that a transposed operand suggests."""
        found: list[Axes] = []
        for operand in node.inputs:
            if operand.op is movement.transpose and operand.inputs[0] in draft.axes:
                own = draft.axes[operand.inputs[0]]
                axes = tuple(own[axis] for axis in operand["perm"])
                if None not in axes and len(axes) == len(draft.dims):
                    found.append(axes)
        return found

    def _agrees(self, node: Node, axes: Axes, draft: _Draft) -> bool:
        """Whether each operand that is a member has the same loops, seen from here."""
        for position, operand in enumerate(node.inputs):
            if node.op is indexing.gather:
                if position == 0:
                    if any(origin in draft.axes for origin in origins(operand)):
                        return False
                    continue
                seen = axes[: operand.type.ndim]
            elif node.op is movement.pad or (node.op is update and position == 0):
                if any(origin in draft.axes for origin in origins(operand)):
                    return False
                continue
            else:
                seen = axes
            if not self._operand_agrees(operand, seen, draft):
                return False
        return True

    def _operand_agrees(self, operand: Node, axes: Axes, draft: _Draft) -> bool:
        behind = through(operand, axes)
        if behind is None:
            return not any(origin in draft.axes for origin in origins(operand))
        node, own = behind
        if is_scalar(node):
            return not any(origin in draft.axes for origin in origins(node))
        return node not in draft.axes or _same(own, draft.axes[node])

    def _fit_reduction(self, node: Node, draft: _Draft) -> _Fit | None:
        operand = node.inputs[0]
        for axes in self._reduced_candidates(operand, draft):
            if not self._operand_agrees(operand, axes, draft):
                continue
            summed = reduced_axes(node)
            loops = frozenset(axes[i] for i in summed)
            varying = frozenset(axes)
            if None in varying:
                continue
            kept = tuple(a for i, a in enumerate(axes) if i not in summed)
            fit = _arranged(node, draft, loops, varying)  # type: ignore[arg-type]
            if fit is not None:
                kind, outer, inner = fit
                return _Fit(kept, axes, kind, outer, inner)
        return None

    def _reduced_candidates(self, operand: Node, draft: _Draft) -> list[Axes]:
        found: list[Axes] = []
        if operand in draft.axes:
            found.append(draft.axes[operand])
        if operand.shape == draft.dims:
            found.append(tuple(range(len(draft.dims))))
        outer = draft.outer
        if outer is not None and operand.shape == tuple(draft.dims[d] for d in outer):
            found.append(outer)
        return found

    # --- the walk -------------------------------------------------------------------------

    def run(self) -> list[Group]:
        outputs = set(self.graph.outputs)
        for node in self.graph.operations:
            family = node.op.family
            if family == "constant" or is_movement(node):
                continue
            if is_result(node):
                self.add_result(node)
                continue
            if is_scalar(node) and node not in outputs:
                continue
            if node.op in ROOTS:
                self._start_product(node)
            elif part_of(node) is not None:
                self._add_number(node)
            elif family in _FUSIBLE or node.op in _IN_LOOPS:
                self._fuse(node)
            else:
                draft = self.new(node.op.name, node.shape)
                self.place(node, draft, _Fit(tuple(range(node.type.ndim))))
        self._merge_siblings()
        return self._finished()

    def add_result(self, node: Node) -> None:
        """A result of a loop or a branch is computed where that is."""
        draft = self.draft_of[node.inputs[0]]
        draft.axes[node] = tuple(range(node.type.ndim))
        self.draft_of[node] = draft

    def _add_number(self, node: Node) -> None:
        """The copy of a number is written by the kernel of its part."""
        part = part_of(node)
        assert part is not None
        draft = self.parts.get(part)
        if draft is None or self.obstacle(node, draft) is not None:
            draft = self.parts[part] = self.new(NUMBERS, ())
        self.place(node, draft, _Fit(()))

    def _start_product(self, node: Node) -> None:
        draft = self.new("product", node.shape)
        self.place(node, draft, _Fit(tuple(range(node.type.ndim))))

    def _fuse(self, node: Node) -> None:
        drafts = dict.fromkeys(draft for _, draft in self.needs(node))
        best: tuple[_Draft, _Fit] | None = None
        for draft in sorted(drafts, key=lambda d: (d.kind != "loops", -d.number)):
            fit = self.obstacle(node, draft) or self.fit(node, draft)
            if isinstance(fit, _Fit):
                best = draft, fit
                break
            self.refused(node, draft, fit)
        if best is None:
            self._start(node)
            return
        draft, fit = best
        self.place(node, draft, fit)
        for other in drafts:
            if other is not draft and other.number in self.drafts:
                draft = self._merged(draft, other)

    def _start(self, node: Node) -> None:
        dims = node.inputs[0].shape if node.op.family == "reduction" else changed_shape(node)
        draft = self.new("loops", dims)
        if node.op.family == "reduction":
            fit = self._fit_reduction(node, draft)
            assert fit is not None, f"a reduction fits loops of its own: {node!r}"
            self.place(node, draft, fit)
        else:
            self.place(node, draft, _Fit(tuple(range(len(draft.dims)))))

    # --- merging --------------------------------------------------------------------------

    def _merged(self, a: _Draft, b: _Draft) -> _Draft:
        """a with the members of b in it, if their loops agree and the result is convex."""
        if self.apart(a, b) is not None:
            return a
        if b.kind == "product":
            a, b = b, a
        a.axes.update(b.axes)
        a.operand_axes.update(b.operand_axes)
        a.reductions.update(b.reductions)
        a.updates += b.updates
        if a.outer is None:
            a.outer, a.inner = b.outer, b.inner
        for node in b.axes:
            self.draft_of[node] = a
        a_bit, b_bit = 1 << a.number, 1 << b.number
        both = (self.before[a.number] | self.before[b.number]) & ~a_bit & ~b_bit
        del self.before[b.number], self.drafts[b.number]
        self.before[a.number] = both
        if self.followed & b_bit:
            self.followed |= a_bit
        for other, mask in self.before.items():
            if other != a.number and mask & (a_bit | b_bit):
                self.before[other] = mask & ~b_bit | a_bit | both
        return a

    def apart(self, a: _Draft, b: _Draft) -> str | None:
        """Why two drafts cannot become one; None if they can."""
        if "product" in (a.kind, b.kind):
            product, loops = (a, b) if a.kind == "product" else (b, a)
            if loops.kind not in ("loops", "product"):
                return OWN_KERNEL
            if not self._follows(loops, product):
                return OTHER_LOOPS if loops.dims != product.dims else PRODUCT
        elif (a.kind, b.kind) != ("loops", "loops"):
            return OWN_KERNEL
        if a.dims != b.dims:
            return OTHER_LOOPS
        if a.outer is not None and b.outer is not None:
            if (a.outer, a.inner) != (b.outer, b.inner):
                return OTHER_LOOPS
        elif any(kind == ROW for kind in (*a.reductions.values(), *b.reductions.values())):
            return OTHER_LOOPS
        if len(a.axes) + len(b.axes) > MAX_MEMBERS:
            return FULL
        if len(a.reductions) + len(b.reductions) > MAX_REDUCTIONS:
            return FULL
        if any(spoils(node, two.axes) for one, two in ((a, b), (b, a)) for node in one.updates):
            return SPOILS
        for one, two in ((a, b), (b, a)):
            if self.before[two.number] >> one.number & 1:
                if self._is_between(one, two):
                    return NOT_CONVEX
                why = self._misread(two, one)
                if why is not None:
                    return why
        return None

    def _is_between(self, one: _Draft, two: _Draft) -> bool:
        """Whether a third draft must run after `one` and before `two`.

        If there is one, then `two` reads one that follows `one`: so it takes a look at what it
        reads, not at all drafts.
        """
        read = (draft for node in two.axes for _, draft in self.needs(node))
        return any(
            draft is not one and draft is not two and self.before[draft.number] >> one.number & 1
            for draft in chain(read, self.told.get(two.number, ()))
        )

    def _follows(self, loops: _Draft, product: _Draft) -> bool:
        """Whether the members of `loops` can be computed where the product's rows are."""
        everything = tuple(range(len(product.dims)))
        return (
            loops.kind == "loops"
            and not self.before[product.number] >> loops.number & 1
            and all(axes == everything for axes in loops.axes.values())
            and all(
                _may_follow_product(node) and self._is_linear(node, loops, product)
                for node in loops.axes
            )
        )

    def _is_linear(self, node: Node, own: _Draft, product: _Draft) -> bool:
        """Whether a member of a product reads memory by rows and columns of the product's root.

        Only convolutions, whose rows are several axes, can tell an operand that they cannot walk.
        """
        if product.kind != "product":
            return True
        root = next(iter(product.axes))
        if root.op is contraction.contract:
            return True
        everything = tuple(range(len(root.shape)))
        for operand in node.inputs:
            behind = through(operand, everything)
            if behind is not None and (
                behind[0] in own.axes or is_scalar(behind[0]) or is_number(behind[0])
            ):
                continue
            view = view_of(operand)
            if view is None or view.base.op is movement.iota or along(root, view.strides) is None:
                return False
        return True

    def _misread(self, reader: _Draft, writer: _Draft) -> str | None:
        """Why `reader` cannot take from `writer` what it does at the same place of the loops."""
        for node in reader.axes:
            for origin, draft in self.needs(node):
                why = writer.closes(origin) if draft is writer else None
                if why is not None:
                    return why
            axes = reader.operand_axes.get(node, reader.axes[node])
            probe = _Draft(-1, "loops", writer.dims, axes=writer.axes)
            if node.op.family == "reduction":
                if not self._operand_agrees(node.inputs[0], axes, probe):
                    return OTHER_PLACES
            elif not self._agrees(node, axes, probe):
                return OTHER_PLACES
        return None

    def _merge_siblings(self) -> None:
        """Groups of the same loops that read the same large array become one."""
        readers: dict[tuple[Node, Shape], list[_Draft]] = {}
        for draft in list(self.drafts.values()):
            if draft.kind != "loops" or draft.dims == ():
                continue
            for node in draft.axes:
                for operand in node.inputs:
                    behind = operand
                    while is_movement(behind):
                        behind = behind.inputs[0]
                    if not is_generator(behind) and not is_scalar(behind):
                        found = readers.setdefault((behind, draft.dims), [])
                        if not found or found[-1] is not draft:
                            found.append(draft)
        for found in readers.values():
            alive = [draft for draft in found if self.drafts.get(draft.number) is draft]
            for i, first in enumerate(alive):
                tries = 0
                for second in alive[i + 1 :]:
                    if first.number not in self.drafts or tries == _TRIES:
                        break
                    if second.number not in self.drafts or self._ordered(first, second):
                        continue
                    tries += 1
                    if self._arrays(first, second) > MAX_ARRAYS:
                        continue
                    before = len(first.axes)
                    if len(self._merged(first, second).axes) > before:
                        tries = 0

    def _arrays(self, a: _Draft, b: _Draft) -> int:
        """About how many arrays two drafts read and write together."""
        members = a.axes.keys() | b.axes.keys()
        reads = {
            origin
            for node in members
            for operand in node.inputs
            for origin in origins(operand)
            if origin not in members and not is_generator(origin)
        }
        ends = sum(1 for node in members if members.isdisjoint(self.users[node]))
        return len(reads) + ends

    def _ordered(self, a: _Draft, b: _Draft) -> bool:
        return bool(self.before[a.number] >> b.number & 1 or self.before[b.number] >> a.number & 1)

    def _update_last(self) -> None:
        """What reads an array runs before what replaces a part of it, where it can."""
        changing: dict[Node, list[_Draft]] = {}
        for draft in self.drafts.values():
            for node in draft.axes:
                for base in may_change(node):
                    changing.setdefault(base, []).append(draft)
        if not changing:
            return
        readers: dict[Node, dict[int, _Draft]] = {base: {} for base in changing}
        for draft in self.drafts.values():
            for node in draft.axes:
                for origin in (origin for x in node.inputs for origin in origins(x)):
                    if origin in readers:
                        readers[origin][draft.number] = draft
        # where two wait for each other, the smaller array is copied
        for base in sorted(readers, key=lambda base: -base.type.nbytes):
            for draft in readers[base].values():
                for last in changing[base]:
                    if last is not draft and not self.before[draft.number] >> last.number & 1:
                        mask = self.before[draft.number] | 1 << draft.number
                        self.add_before(last.number, mask)
                        self.told.setdefault(last.number, []).append(draft)

    def _finished(self) -> list[Group]:
        """The groups in an order in which they can run."""
        self._update_last()
        position = {node: i for i, node in enumerate(self.graph.operations)}
        done = 0
        waiting = sorted(
            self.drafts.values(), key=lambda draft: min(position[node] for node in draft.axes)
        )
        groups: list[Group] = []
        while waiting:
            rest = []
            for draft in waiting:
                if self.before[draft.number] & ~done:
                    rest.append(draft)
                    continue
                done |= 1 << draft.number
                groups.append(_frozen(draft, position))
            assert len(rest) < len(waiting), "groups wait for each other: fusion is not convex"
            waiting = rest
        return groups


def part_of(node: Node) -> int | None:
    """The part of a program of numbers that a copy belongs to; None for all other nodes."""
    if node.op.name != "copy":
        return None
    return next((value for name, value in node.attrs if name == "part"), None)


def _may_follow_product(node: Node) -> bool:
    """Whether a node can be computed in the loops of a matrix product."""
    return (
        node.op.family == "pointwise"
        and node.op not in CHECKS
        and not any(counts(operand) for operand in node.inputs)
    )


def reduced_axes(node: Node) -> tuple[int, ...]:
    """The axes of its operand that a reduction sums."""
    if node.op.name in _POSITION:
        return (node["axis"],)
    axes: tuple[int, ...] = node["axes"]
    return axes


def _same(a: Axes, b: Axes) -> bool:
    return len(a) == len(b) and all(
        x == y or x is None or y is None for x, y in zip(a, b, strict=True)
    )


def _arranged(
    node: Node, draft: _Draft, loops: frozenset[int], varying: frozenset[int]
) -> tuple[str, tuple[int, ...] | None, tuple[int, ...] | None] | None:
    """How a reduction over `loops` fits the nest, and the nest if it settles it."""
    position = node.op.name in _POSITION
    everything = tuple(range(len(draft.dims)))
    if draft.outer is None:
        whole = set(everything)
        for member, axes in draft.axes.items():
            # Who sums everything is smaller, but no member reads it.
            if set(axes) - {None} != whole and draft.reductions.get(member) != ALL:
                return None  # reductions before this one left no nest, and smaller members
        if position:
            kept = tuple(d for d in everything if d not in loops)
            return ROW, kept, tuple(sorted(loops))
        if loops == varying and not position:
            return ALL, None, None
        last = everything[-1]
        if last in loops:
            kept = tuple(d for d in everything if d not in loops)
            return ROW, kept, tuple(sorted(loops))
        first_kept = min(d for d in everything if d not in loops)
        if loops == frozenset(range(first_kept)):
            return COLUMN, tuple(sorted(loops)), tuple(d for d in everything if d not in loops)
        first_summed = min(loops)
        return STRIP, everything[:first_summed], everything[first_summed:]
    outer, inner = frozenset(draft.outer), frozenset(draft.inner or ())
    if loops == inner:
        return (ROW, None, None) if varying == outer | inner else None
    if position:
        return None
    if loops == varying:
        return ALL, None, None
    if loops == outer and varying == outer | inner:
        return COLUMN, None, None
    if loops < inner and varying == outer | inner:
        return STRIP, None, None
    return None


def _frozen(draft: _Draft, position: Mapping[Node, int]) -> Group:
    outer, inner = draft.outer, draft.inner
    if outer is None or inner is None:
        everything = tuple(range(len(draft.dims)))
        outer, inner = everything[:-1], everything[-1:]
    return Group(
        draft.kind,
        draft.dims,
        outer,
        inner,
        tuple(sorted(draft.axes, key=position.__getitem__)),
        dict(draft.axes),
        dict(draft.operand_axes),
        dict(draft.reductions),
    )


_fused: WeakKeyDictionary[Graph, Sequence[Group]] = WeakKeyDictionary()


def fuse(graph: Graph) -> Sequence[Group]:
    """The kernels of a graph, in an order in which they can run; found once for each graph."""
    found = _fused.get(graph)
    if found is None:
        found = _fused[graph] = _Fusion(graph).run()
    return found


class Border(Struct, frozen=True):
    """Two kernels, by the numbers of their groups, of which the second reads what the first makes.

    values: what it reads. why: what keeps them from being one.
    """

    before: int
    after: int
    values: tuple[Node, ...]
    why: str


class _Recorded(_Fusion):
    """Fusion that remembers which nodes did not join what they read from."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.refusals: dict[tuple[Node, Node], str] = {}

    def refused(self, node: Node, draft: _Draft, why: str) -> None:
        for member in draft.axes:
            self.refusals[node, member] = why


def borders(graph: Graph) -> tuple[list[Group], list[Border]]:
    """What `fuse` gives, and for each two groups that could have been one why they are not."""
    fusion = _Recorded(graph)
    groups = fusion.run()
    number = {node: i for i, group in enumerate(groups) for node in group.members}
    flows: dict[tuple[int, int], dict[Node, Node]] = {}
    for i, group in enumerate(groups):
        for node in group.members:
            for operand in node.inputs:
                for origin in origins(operand):
                    if number.get(origin, i) != i:
                        flows.setdefault((number[origin], i), {}).setdefault(origin, node)
    found = []
    for (before, after), values in sorted(flows.items()):
        a = fusion.draft_of[groups[before].members[0]]
        b = fusion.draft_of[groups[after].members[0]]
        refusals = (fusion.refusals.get((node, origin)) for origin, node in values.items())
        if any(node.op in ROOTS for node in values.values()):
            why = WHOLE
        elif any(map(is_apart, values)):
            why = STRAIGHTENED
        else:
            why = fusion.apart(a, b) or next((text for text in refusals if text), NOT_TRIED)
        found.append(Border(before, after, tuple(values), why))
    return groups, found


def stored(graph: Graph, groups: Sequence[Group]) -> set[Node]:
    """The members that must be written to memory: outputs, and what other kernels read."""
    group_of = {node: group for group in groups for node in group.members}
    found = {node for node in graph.outputs if node in group_of}
    for group in groups:
        for node in group.members:
            for operand in node.inputs:
                for origin in origins(operand):
                    if origin in group_of and group_of[origin] is not group:
                        found.add(origin)
            reduced = group.reductions.get(node, ROW) != ROW
            own = group.kind not in ("loops", "product") and node.op.family != "control"
            if reduced or node.op is update or own:
                found.add(node)
    return found


def unfused(graph: Graph) -> list[Group]:
    """Each node a kernel of its own: the reference that fused programs are tested against."""
    fusion = _Fusion(graph)
    for node in graph.operations:
        if node.op.family == "constant" or is_movement(node):
            continue
        if is_result(node):
            fusion.add_result(node)
            continue
        if is_scalar(node) and node not in graph.outputs:
            continue
        if node.op in ROOTS:
            fusion._start_product(node)
        elif node.op.family in _FUSIBLE or node.op in _IN_LOOPS:
            fusion._start(node)
        else:
            draft = fusion.new(node.op.name, node.shape)
            fusion.place(node, draft, _Fit(tuple(range(node.type.ndim))))
    return fusion._finished()
