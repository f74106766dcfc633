"""Matrix products and convolutions with what is done with the result: a core calls an epilogue."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from graphdl import machine
from graphdl.compiler.contract import roles
from graphdl.compiler.costs import work
from graphdl.compiler.fuse import Group
from graphdl.compiler.origins import is_scalar, through
from graphdl.compiler.rows import ROOTS, Strides, along, is_depthwise, walk
from graphdl.compiler.view import View, view_of
from graphdl.graph import Node
from graphdl.kernels.body import SUFFIX, constant_of, expression, plain
from graphdl.kernels.cpu import convolution as dense
from graphdl.kernels.cpu import depthwise, patches, product, tiles
from graphdl.kernels.program import Address, Entry, Launch, Word
from graphdl.kernels.source import KernelSource
from graphdl.ops import contraction, convolution, movement, pointwise
from graphdl.ops.convolution import axes_of
from graphdl.types import Dtype, Shape, contiguous_strides


def _strides(shape_strides: Shape, labels: tuple[int, ...], wanted: tuple[int, ...]) -> int:
    """The stride of the one label in `wanted`, or 0 if there is none."""
    return shape_strides[labels.index(wanted[0])] if wanted else 0


def _bytes(strides: Strides, size: int) -> Strides:
    z, y, i, j = strides
    return z * size, y * size, i * size, j * size


def _lies(by_loop: Strides) -> str:
    """How an array lies along the columns: see product.Operand."""
    return {0: "same", 1: "adjacent"}.get(by_loop[3], "any")


class _Epilogue:
    """The members of a product group as lines of an epilogue kernel."""

    def __init__(self, group: Group, root: Node, stored: set[Node]) -> None:
        self.group = group
        self.root = root
        self.stored = [node for node in group.members if node in stored]
        self.walk = walk(root)
        self.operands: list[product.Operand] = []
        self.words: list[tuple[Node, int, Strides]] = []
        self.lines: list[str] = []
        self.numbers: list[str] = []
        self.names: dict[object, str] = {root: "c"}
        self.varying = {"c"}
        #: What floats of 16 bits were before they were rounded.
        self.unrounded: dict[str, str] = {}
        self.reads: dict[Node, None] = {}
        self.factors: dict[Node, None] = {}

    def operand(self, node: Node, offset: int, strides: Shape, dtype_of: Node) -> str:
        """An array to read, seen from (z, y, i, j): its element as text."""
        by_loop = self._by_loop(strides)
        key = (node, offset, by_loop)
        if key not in self.names:
            lies = _lies(by_loop) if any(by_loop) else "number"
            self.names[key] = self._added(node, offset, by_loop, dtype_of.dtype, lies)
        return self.names[key]

    def output(self, node: Node, strides: Shape) -> str:
        """A value to store, seen from (z, y, i, j): its element as text."""
        by_loop = self._by_loop(strides)
        return self._added(node, 0, by_loop, node.dtype, _lies(by_loop))

    def _by_loop(self, strides: Shape) -> Strides:
        by_loop = along(self.root, strides)
        assert by_loop is not None, f"strides {strides} are not linear along rows of {self.root!r}"
        return by_loop

    def _added(self, node: Node, offset: int, by_loop: Strides, dtype: Dtype, lies: str) -> str:
        operand = product.Operand(f"e{len(self.operands)}", SUFFIX[dtype], lies)
        self.operands.append(operand)
        size = dtype.itemsize
        self.words.append((node, offset * size, _bytes(by_loop, size)))
        return operand.element

    def value(self, operand: Node, axes: tuple[int | None, ...]) -> str:
        """The text of an operand of a member."""
        constant = constant_of(operand)
        if constant is not None:
            text = plain(constant)
            if text is not None:
                return text
            self.reads.setdefault(constant)
            return self.operand(constant, 0, (0,) * len(self.group.dims), constant)
        behind = through(operand, axes)
        if behind is not None:
            base, own = behind
            if base in self.names:
                return self.names[base]
            if base.op is movement.iota:
                return f"to_{base.dtype}({self._place(own[0])})"
            if is_scalar(base):
                return self._scalar(base)
        view = view_of(operand)
        assert view is not None, f"{operand!r} is no view of memory"
        strides = [0] * len(self.group.dims)
        for axis, stride in zip(axes, view.strides, strict=True):
            if axis is not None:
                strides[axis] += stride
        self.reads.setdefault(view.base)
        return self.operand(view.base, view.offset, tuple(strides), operand)

    def _place(self, axis: int | None) -> str:
        if axis is None:
            return "i64(0)"
        if axis in self.walk.row:
            return "i64(i)"
        return "i64(j0 + j)" if axis in self.walk.column else "i64(y)"

    def _scalar(self, node: Node) -> str:
        """A number made from numbers."""
        pending = [node]
        while pending:
            at = pending[-1]
            behind = [through(operand, ()) for operand in at.inputs]
            missing = [b[0] for b in behind if b and is_scalar(b[0]) and b[0] not in self.names]
            if at in self.names:
                pending.pop()
            elif missing:
                pending += missing
            else:
                self._assign(at, [self.value(operand, ()) for operand in at.inputs])
        return self.names[node]

    def _assign(self, node: Node, operands: list[str]) -> None:
        """Name the value of a node: once for the launch if no operand varies, else an element."""
        if node.op is pointwise.cast and operands[0] in self.unrounded:
            text = self.unrounded[operands[0]]
            operands = [text]
        else:
            text = expression(node, operands)
        if text in operands:
            self.names[node] = text
            return
        name = f"v{len(self.numbers) + len(self.lines)}"
        self.names[node] = name
        if node.op is pointwise.stored:
            self.unrounded[name] = operands[0]
        if is_scalar(node) and self.varying.isdisjoint(operands):
            self.numbers.append(f"{name} = {text}")
        else:
            self.varying.add(name)
            self.lines.append(f"{name} = {text}")

    def build(self) -> product.Epilogue:
        for node in self.group.members:
            if node is not self.root:
                axes = self.group.axes[node]
                self._assign(node, [self.value(operand, axes) for operand in node.inputs])
        for node in self.stored:
            strides = [0] * len(self.group.dims)
            own = contiguous_strides(node.shape)
            for axis, stride in zip(self.group.axes[node], own, strict=True):
                if axis is not None:
                    strides[axis] = stride
            element = self.output(node, tuple(strides))
            self.lines.append(f"{element} = {self.names[node]}")
        columns = math.prod(self.root.shape[axis] for axis in self.walk.column)
        if self.walk.groups > 1 and not is_depthwise(self.root):  # whose rows are all groups'
            columns //= self.walk.groups
        few = columns < tiles.host_registers(SUFFIX[self.root.dtype]).lanes
        lines, numbers = tuple(self.lines), tuple(self.numbers)
        return product.Epilogue(tuple(self.operands), lines, numbers, few)


def product_launch(group: Group, stored: set[Node]) -> Launch:
    """The launch of a product group: the core's table, with the epilogue's operands behind it."""
    root = next(node for node in group.members if node.op in ROOTS)
    writer = _Epilogue(group, root, stored)
    epilogue = writer.build()
    names = list(dict.fromkeys(node.op.name for node in group.members))[:4]
    source = product.epilogue_source(SUFFIX[root.dtype], epilogue, "_".join(names))
    if root.op is contraction.contract:
        return _contraction(writer, source, epilogue.only_stores(SUFFIX[root.dtype]))
    return _convolution(writer, source)


def _contraction(writer: _Epilogue, source: KernelSource, only_stores: bool) -> Launch:
    root = writer.root
    a, b = root.inputs
    role = roles(root)
    view_a, view_b = view_of(a), view_of(b)
    assert view_a is not None
    assert view_b is not None
    sizes = dict(zip(root["la"], a.shape, strict=True)) | dict(
        zip(root["lb"], b.shape, strict=True)
    )
    m, n, k, batch = (
        sizes[labels[0]] if labels else 1 for labels in (role.m, role.n, role.k, role.batch)
    )
    suffix = SUFFIX[root.dtype]
    shape = product.Product(suffix, m, n, k, (1, batch))
    strides_a = (
        0,
        _strides(view_a.strides, root["la"], role.batch),
        _strides(view_a.strides, root["la"], role.m),
        _strides(view_a.strides, root["la"], role.k),
    )
    strides_b = (
        0,
        _strides(view_b.strides, root["lb"], role.batch),
        _strides(view_b.strides, root["lb"], role.k),
        _strides(view_b.strides, root["lb"], role.n),
    )
    size = root.dtype.itemsize
    numbers, iterations = product.launch_table(
        shape,
        product.Array(0, _bytes(strides_a, size)),
        product.Array(0, _bytes(strides_b, size)),
        0,
        [product.Array(0, strides) for _, _, strides in writer.words],
        only_stores,
    )
    words = _addressed(numbers, writer, {product.A: view_a, product.B: view_b})
    return _launch(writer, source, words, iterations, batch * m * n * k, f"product {suffix}")


def _convolution(writer: _Epilogue, source: KernelSource) -> Launch:
    """Both operands lie in memory row by row."""
    root = writer.root
    x, other = root.inputs
    attrs = dict(root.attrs)
    window = attrs.pop("window", other.shape[:-2])
    suffix = SUFFIX[root.dtype]
    alone = is_depthwise(root)
    groups = 1 if alone else root["groups"]
    what = patches.Convolution(
        suffix,
        x.shape[0],
        tuple(axes_of(x.shape[1:-1], window, attrs)),
        groups,
        x.shape[-1] // groups,
        other.shape[-1] // groups,
    )
    operands = [strides for _, _, strides in writer.words]
    parts = attrs.get("parts", 1)
    if root.op is convolution.convolve:
        kind = "depthwise" if alone else "convolve"
        table = depthwise.depthwise_table if alone else dense.convolve_table
        numbers, iterations = table(what, operands)
    else:
        kind = "depthwise_gradient" if alone else "filter_gradient"
        sums = depthwise.depthwise_gradient_table if alone else dense.filter_gradient_table
        numbers, iterations = sums(what, operands, parts)
    views = {}
    for word, operand in ((patches.X, x), (patches.B, other)):
        view = view_of(operand)
        assert view is not None
        views[word] = view
    words = _addressed(numbers, writer, views)
    work = what.multiply_adds // (what.channels if alone else 1)
    return _launch(writer, source, words, iterations, work, f"{kind} {suffix}")


def _addressed(
    numbers: Sequence[int], writer: _Epilogue, views: Mapping[int, View]
) -> tuple[Word, ...]:
    """The words of a table with the addresses of the epilogue, the factors and the operands."""
    words: list[Word] = list(numbers)
    words[product.EPILOGUE] = Entry()
    for index, view in views.items():
        words[index] = Address(view.base, view.offset * writer.root.dtype.itemsize)
        writer.factors.setdefault(view.base)
    for i, (node, offset, _) in enumerate(writer.words):
        words[product.OPERANDS + product.OPERAND_WORDS * i] = Address(node, offset)
    return tuple(words)


def _launch(
    writer: _Epilogue,
    source: KernelSource,
    words: tuple[Word, ...],
    iterations: int,
    multiply_adds: int,
    core: str,
) -> Launch:
    members = writer.group.members
    elements = writer.root.type.size
    reads = tuple(dict.fromkeys((*writer.factors, *writer.reads)))
    moved = sum(node.type.nbytes for node in (*reads, *writer.stored))
    times = machine.current()
    computing = multiply_adds * times.multiply_add + elements * work(members)
    return Launch(
        source,
        words,
        iterations,
        max(computing, moved * times.cached_byte),  # a product with few rows waits for the bytes
        reads,
        tuple(writer.stored),
        tuple(_in_place(writer)),
        members,
        moved,
        2 * multiply_adds + elements * (len(members) - 1),
        core,
    )


def _in_place(writer: _Epilogue) -> list[tuple[Node, Node]]:
    """Stored members and epilogue operands at the same places, which the product does not read."""
    place = {node: (offset, strides) for node, offset, strides in writer.words}
    return [
        (node, other)
        for node in writer.stored
        for other in writer.reads
        if other not in writer.factors
        and place.get(other) == place[node]
        and other.type.size == node.type.size
        and other.dtype.itemsize == node.dtype.itemsize
        and sum(found is other for found, _, _ in writer.words) == 1
    ]


__all__ = ["product_launch"]
