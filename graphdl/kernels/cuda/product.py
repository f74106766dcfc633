"""Matrix products and convolutions as one kernel with what is done with the result.

A block computes 64 x 64 elements of C[y, i, j] = sum over k of A[y, i, k] B[y, k, j]. It takes k in
steps of 16 through shared memory, where a thread finds the operands of 4 x 4 elements, whose sums
stay in its registers. Then these go through shared memory once more, so that neighbours write side
by side what the members of the group make of them.

A convolution is the same product, with A read from the image where the window lies (no copy of the
image by windows): i counts the places of the window over all images, k the elements of the window;
for the gradient of the weights the two change their parts. Groups of channels are batches.

The order of the sums depends on the sizes alone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

from msgspec import Struct

from graphdl.compiler.contract import roles
from graphdl.compiler.costs import cost_of
from graphdl.compiler.fuse import Group
from graphdl.compiler.rows import ROOTS
from graphdl.compiler.view import View, view_of
from graphdl.graph import Node
from graphdl.kernels.body import SUFFIX
from graphdl.kernels.cuda.launch import BLOCK, DeviceLaunch
from graphdl.kernels.cuda.nest import DeviceLoops, DeviceText
from graphdl.kernels.nest_launch import in_place, name_of
from graphdl.kernels.program import Address, Buffer, Value
from graphdl.kernels.source import KernelSource
from graphdl.ops import contraction, convolution
from graphdl.ops.convolution import Axis, axes_of
from graphdl.types import contiguous_strides, is_half

#: Rows and columns of a block, its step along k, and a line of either in shared memory: 4 more
#: elements, so that what lies below each other is in other banks and vectors stay aligned.
TILE, DEPTH = 64, 16
LINE = TILE + 4
#: Elements of a thread, in both directions.
OWN = 4
_SIDE = TILE // OWN


class Sizes(Struct, frozen=True):
    """Of a product: parts of the sum, batches, rows, columns, and what is summed."""

    m: int
    n: int
    k: int
    batch: int = 1
    parts: int = 1


class _Epilogue(DeviceLoops):
    """The members that follow a product; each of its loops keeps its index."""

    def _pinned(self) -> set[int]:
        return set(range(len(self.group.dims)))

    def _choose_tile(self) -> None:
        self.tile, self.across = None, {}


class _ProductText(DeviceText, ABC):
    """The lines of a product."""

    def __init__(self, group: Group, stored: set[Node], status: Buffer) -> None:
        self.root = next(node for node in group.members if node.op in ROOTS)
        members = tuple(node for node in group.members if node is not self.root)
        nest = _Epilogue(_without(group, members), stored, status)
        super().__init__(nest, 1)
        self.suffix = SUFFIX[self.root.dtype]
        self.operands = [self._operand_view(x) for x in self.root.inputs]
        self.stores_root = self.root in stored

    def _operand_view(self, x: Node) -> View:
        view = view_of(x)
        assert view is not None, f"{x!r} is no view of memory"
        return view

    def pointer(self, number: int) -> str:
        """The pointer to an operand."""
        view, dtype = self.operands[number], self.root.inputs[number].dtype
        offset = view.offset * dtype.itemsize
        at = self.nest.word(f"operand{number}", Address(view.base, offset))
        line = f"q{number} = {SUFFIX[dtype]}_at({at})"
        if line not in self.prelude:
            self.prelude.append(line)
        return f"q{number}"

    # --- the product --------------------------------------------------------------------------

    def product(self, sizes: Sizes) -> int:
        """The whole kernel; its blocks."""
        word, suffix = self.nest.word, self.suffix
        high, wide = -(-sizes.m // TILE), -(-sizes.n // TILE)
        m, n, k = word("rows", sizes.m), word("columns", sizes.n), word("depth", sizes.k)
        n_high, n_wide = word("high", high), word("wide", wide)
        batch = word("batch", sizes.batch)
        size = self.root.dtype.itemsize
        self.shared = max(2 * DEPTH, TILE) * LINE * size
        self.add(
            f"sa = {suffix}_shared(0)",
            f"sb = {suffix}_shared({DEPTH * LINE * size})",
            f"rest = quotient(block(), {n_wide})",
            f"first_j = (block() - rest * {n_wide}) * {TILE}",
            f"image = quotient(rest, {n_high})",
            f"first_i = (rest - image * {n_high}) * {TILE}",
            f"part = quotient(image, {batch})",
            f"y = image - part * {batch}",
            f"line = thread() >> {_SIDE.bit_length() - 1}",
            f"column = thread() & {_SIDE - 1}",
        )
        for r in range(OWN):
            self.add(f"sum{r} = splat{OWN}({suffix}(0))")
        if sizes.parts > 1:
            parts = word("parts", sizes.parts)
            self.add(f"low = quotient(part * {k}, {parts})")
            self.add(f"end = quotient((part + 1) * {k}, {parts})")
        else:
            self.add("low = 0", f"end = {k}")
        self.add("while low < end:")
        self.out.depth += 1
        self._load_tile("a", m, "first_i", self._depth_is_adjacent(0))
        self._load_tile("b", n, "first_j", self._depth_is_adjacent(1))
        self.add("barrier()", "p = 0", f"while p < {DEPTH}:")
        self.out.depth += 1
        self.add(f"left = load{OWN}(sa, p * {LINE} + line * {OWN})")
        self.add(f"right = load{OWN}(sb, p * {LINE} + column * {OWN})")
        for r in range(OWN):
            self.add(f"sum{r} = add(sum{r}, multiply(lane{r}(left), right))")
        self.add("p += 1")
        self.out.depth -= 1
        self.add("barrier()", f"low += {DEPTH}")
        self.out.depth -= 1
        for r in range(OWN):
            self.add(f"store{OWN}(sa, (line * {OWN} + {r}) * {LINE} + column * {OWN}, sum{r})")
        self.add("barrier()", "e = thread()", f"while e < {TILE * TILE}:")
        self.out.depth += 1
        self.add(f"i = first_i + (e >> {TILE.bit_length() - 1})")
        self.add(f"j = first_j + (e & {TILE - 1})")
        self.add(f"if (i < {m}) & (j < {n}):")
        self.out.depth += 1
        self.add(f"c = sa[(e >> {TILE.bit_length() - 1}) * {LINE} + (e & {TILE - 1})]")
        self._epilogue()
        self.out.depth -= 1
        self.add(f"e += {BLOCK}")
        self.out.depth -= 1
        return sizes.parts * sizes.batch * high * wide

    def _load_tile(self, which: str, limit: str, first: str, depth_first: bool) -> None:
        """TILE x DEPTH elements of A or B, neighbours in memory by neighbours among threads."""
        own, along = ("i", "k") if which == "a" else ("j", "k")
        fast, slow = (DEPTH, TILE) if depth_first else (TILE, DEPTH)
        shift = fast.bit_length() - 1
        at_fast, at_slow = f"(e & {fast - 1})", f"(e >> {shift})"
        at_k, at_own = (at_fast, at_slow) if depth_first else (at_slow, at_fast)
        self.add("e = thread()", f"while e < {fast * slow}:")
        self.out.depth += 1
        self.add(f"{along} = low + {at_k}", f"{own} = {first} + {at_own}")
        self.add(f"value = {self.suffix}(0)")
        self.add(f"if ({along} < end) & ({own} < {limit}):")
        self.out.depth += 1
        if which == "a":
            self.left()
        else:
            self.right()
        self.out.depth -= 1
        self.add(f"s{which}[{at_k} * {LINE} + {at_own}] = value")
        self.add(f"e += {BLOCK}")
        self.out.depth -= 1

    @abstractmethod
    def _depth_is_adjacent(self, operand: int) -> bool:
        """Whether neighbours in memory are neighbours along k."""

    @abstractmethod
    def left(self) -> None:
        """Lines that set `value` to A[y, i, k]."""

    @abstractmethod
    def right(self) -> None:
        """Lines that set `value` to B[y, k, j]."""

    @abstractmethod
    def result_index(self) -> dict[int, str]:
        """The index of each axis of the result, from part, y, i and j."""

    def _epilogue(self) -> None:
        root = self.root
        index = {**self.result_index(), -1: "j"}
        axes = tuple(range(root.type.ndim))
        local: dict[object, str] = {self.nest.access(root, axes): "c"}
        if self.stores_root:
            access = self.nest.access(root, axes)
            self.add(f"{self._base(access)}[{self._place(access, index)}] = c")
        self._stage_members(0, index, local, {})
        self.nest.reads.pop(root, None)

    def _split_sizes(self, flat: str, sizes: Sequence[tuple[str, int]]) -> None:
        """Named indices from the one that they are as a whole."""
        rest = flat
        for name, size in reversed(sizes[1:]):
            n = self.nest.word(f"n_{name}", size)
            self.add(f"rest_{name} = quotient({rest}, {n})")
            self.add(f"{name} = {rest} - rest_{name} * {n}")
            rest = f"rest_{name}"
        self.add(f"{sizes[0][0]} = {rest}")


class _Contraction(_ProductText):
    """A product of matrices, in batches."""

    def _strides(self, number: int) -> dict[str, int]:
        role, labels = roles(self.root), self.root["la" if not number else "lb"]
        strides = self.operands[number].strides
        parts = {"y": role.batch, "k": role.k, "i": role.m, "j": role.n}
        wanted = "yik" if not number else "ykj"
        return {
            name: strides[labels.index(parts[name][0])] if parts[name] else 0 for name in wanted
        }

    def _depth_is_adjacent(self, operand: int) -> bool:
        return self._strides(operand)["k"] == 1

    def _element_at(self, number: int) -> None:
        terms = [
            f"{name} * {self.nest.word(f'step{number}_{name}', stride)}"
            for name, stride in self._strides(number).items()
            if stride
        ]
        value = f"{self.pointer(number)}[{' + '.join(terms) or '0'}]"
        dtype = self.root.inputs[number].dtype
        self.add(f"value = from_{dtype}({value})" if is_half(dtype) else f"value = {value}")

    def left(self) -> None:
        self._element_at(0)

    def right(self) -> None:
        self._element_at(1)

    def result_index(self) -> dict[int, str]:
        role, labels = roles(self.root), self.root["lo"]
        found = {}
        for name, part in (("y", role.batch), ("i", role.m), ("j", role.n)):
            found.update({labels.index(label): name for label in part})
        return found

    def sizes(self) -> Sizes:
        role, (a, b) = roles(self.root), self.root.inputs
        sizes = dict(zip(self.root["la"], a.shape, strict=True))
        sizes |= dict(zip(self.root["lb"], b.shape, strict=True))
        m, n, k, batch = (
            sizes[labels[0]] if labels else 1 for labels in (role.m, role.n, role.k, role.batch)
        )
        return Sizes(m, n, k, batch)


class _Convolution(_ProductText):
    """A convolution, or the gradient of its weights."""

    def __init__(self, group: Group, stored: set[Node], status: Buffer) -> None:
        super().__init__(group, stored, status)
        root = self.root
        self.x, self.other = root.inputs
        attrs = dict(root.attrs)
        self.parts = int(attrs.pop("parts", 1))
        self.is_gradient = root.op is not convolution.convolve
        window = attrs.pop("window", self.other.shape[:-2])
        self.spatial: list[Axis] = axes_of(self.x.shape[1:-1], window, attrs)
        self.groups: int = root["groups"]
        self.channels = self.x.shape[-1] // self.groups
        self.outputs = self.other.shape[-1] // self.groups

    @property
    def _places(self) -> list[tuple[str, int]]:
        return [
            ("image_at", self.x.shape[0]),
            *((f"place{d}", axis.out) for d, axis in enumerate(self.spatial)),
        ]

    @property
    def _window(self) -> list[tuple[str, int]]:
        return [
            *((f"tap{d}", axis.window) for d, axis in enumerate(self.spatial)),
            ("channel", self.channels),
        ]

    def sizes(self) -> Sizes:
        places = math.prod(size for _, size in self._places)
        window = math.prod(size for _, size in self._window)
        m, k = (window, places) if self.is_gradient else (places, window)
        return Sizes(m, self.outputs, k, self.groups, self.parts)

    def _depth_is_adjacent(self, operand: int) -> bool:
        return operand == 0 and not self.is_gradient

    def left(self) -> None:
        """The element of the image below an element of the window, at a place of the window."""
        places, window = ("k", "i") if self.is_gradient else ("i", "k")
        self._split_sizes(places, self._places)
        self._split_sizes(window, self._window)
        strides = contiguous_strides(self.x.shape)
        word = self.nest.word
        terms = [f"image_at * {word('step_image', strides[0])}"]
        tests = []
        for d, axis in enumerate(self.spatial):
            self.add(
                f"at{d}_x = place{d} * {word(f'stride{d}', axis.stride)}"
                f" + tap{d} * {word(f'apart{d}', axis.rhs)} - {word(f'low{d}', axis.low)}"
            )
            place = f"at{d}_x"
            if axis.lhs > 1:
                jump = word(f"jump{d}", axis.lhs)
                self.add(f"near{d} = quotient(max_i64({place}, 0), {jump})")
                tests.append(f"({place} == near{d} * {jump})")
                place = f"near{d}"
            tests += [f"({place} >= 0)", f"({place} < {word(f'size{d}', axis.size)})"]
            terms.append(f"{place} * {word(f'step_x{d}', strides[1 + d])}")
        terms.append(f"y * {word('n_channel', self.channels)} + channel")
        self.add(f"if {' & '.join(tests)}:")
        self.add(f"    value = {self.pointer(0)}[{' + '.join(terms)}]")

    def right(self) -> None:
        word = self.nest.word
        all_outputs = word("outputs", self.other.shape[-1])
        own = word("n_outputs", self.outputs)
        self.add(f"value = {self.pointer(1)}[k * {all_outputs} + y * {own} + j]")

    def result_index(self) -> dict[int, str]:
        rows = self._window if self.is_gradient else self._places
        self._split_sizes("i", rows)
        first = int(self.root.op is convolution.filter_gradient_parts)
        index = {first + d: name for d, (name, _) in enumerate(rows)}
        if first:
            index[0] = "part"
        last = self.root.type.ndim - 1
        index[last] = f"(y * {self.nest.word('n_outputs', self.outputs)} + j)"
        return index


def product_launch(group: Group, stored: set[Node], status: Buffer) -> DeviceLaunch:
    """The launch of a product group."""
    root = next(node for node in group.members if node.op in ROOTS)
    kind = _Contraction if root.op is contraction.contract else _Convolution
    text = kind(group, stored, status)
    sizes = text.sizes()
    blocks = text.product(sizes)
    nest = text.nest
    source = KernelSource(name_of(group.members), "\n".join(text.lines()) + "\n")
    factors = tuple(dict.fromkeys(view.base for view in text.operands))
    reads = tuple(dict.fromkeys((*factors, *nest.reads)))
    writes: list[Value] = [node for node in group.members if node in stored]
    if nest.uses_status:
        writes.append(nest.status)
    moved = sum(value.type.nbytes for value in (*reads, *writes) if isinstance(value, Node))
    work = 2 * sizes.batch * sizes.m * sizes.n * sizes.k
    elements = root.type.size
    pairs = tuple(pair for pair in in_place(nest) if pair[1] not in factors)
    return DeviceLaunch(
        source,
        tuple(nest.words),
        blocks if elements else 0,
        work * 0.006 + elements * sum(cost_of(node) for node in group.members),
        reads,
        tuple(writes),
        pairs,
        group.members,
        moved,
        work + elements * (len(group.members) - 1),
        threads=BLOCK,
        shared=text.shared,
    )


def _without(group: Group, members: tuple[Node, ...]) -> Group:
    """The members of a group that follow its product."""
    return Group(
        "loops",
        group.dims,
        group.outer,
        group.inner,
        members,
        {node: group.axes[node] for node in members},
        {},
        {},
    )


__all__ = ["product_launch"]
