"""A matrix product with what is done with its result: a core kernel that calls an epilogue."""

from __future__ import annotations

from graphdl.compiler.contract import roles
from graphdl.compiler.fuse import Group, is_scalar, through
from graphdl.compiler.view import view_of
from graphdl.graph import Node
from graphdl.kernels.body import SUFFIX, constant_of, cost_of, expression, plain
from graphdl.kernels.cpu import product
from graphdl.kernels.program import Address, Entry, Launch, Word
from graphdl.ops import contraction, movement
from graphdl.types import Shape, contiguous_strides

#: Nanoseconds a multiply-add takes one core, to decide whether threads share a product.
MULTIPLY_ADD = 0.012
#: Nanoseconds a byte takes from the third-level cache: what a product with few rows waits for.
BYTE = 0.05

#: Along batches z and y, rows and columns.
Strides = tuple[int, int, int, int]


def _strides(shape_strides: Shape, labels: tuple[int, ...], wanted: tuple[int, ...]) -> int:
    """The stride of the one label in `wanted`, or 0 if there is none."""
    return shape_strides[labels.index(wanted[0])] if wanted else 0


def _bytes(strides: Strides, size: int) -> Strides:
    z, y, i, j = strides
    return z * size, y * size, i * size, j * size


class _Epilogue:
    """The members of a product group as lines of an epilogue kernel."""

    def __init__(self, group: Group, root: Node, stored: set[Node]) -> None:
        self.group = group
        self.root = root
        self.stored = [node for node in group.members if node in stored]
        role = roles(root)
        labels = root["lo"]
        self.batch = [labels.index(label) for label in role.batch]
        self.row = [labels.index(label) for label in role.m]
        self.column = [labels.index(label) for label in role.n]
        self.operands: list[product.Operand] = []
        self.words: list[tuple[Node, int, Strides]] = []
        self.lines: list[str] = []
        self.names: dict[object, str] = {root: "c"}
        self.reads: dict[Node, None] = {}

    def operand(self, node: Node, offset: int, strides: Shape, dtype_of: Node) -> str:
        """An array seen from (z, y, i, j): its element as text."""
        by_loop = (
            0,
            strides[self.batch[0]] if self.batch else 0,
            strides[self.row[0]] if self.row else 0,
            strides[self.column[0]] if self.column else 0,
        )
        key = (node, offset, by_loop)
        if key not in self.names:
            along = {0: "same", 1: "adjacent"}.get(by_loop[3], "any")
            operand = product.Operand(f"e{len(self.operands)}", SUFFIX[dtype_of.dtype], along)
            self.operands.append(operand)
            size = dtype_of.dtype.itemsize
            self.words.append((node, offset * size, _bytes(by_loop, size)))
            self.names[key] = operand.element
        return self.names[key]

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
        if axis in self.row:
            return "i64(i)"
        return "i64(j0 + j)" if axis in self.column else "i64(y)"

    def _scalar(self, node: Node) -> str:
        """A number made from numbers; LLVM takes it out of the loop."""
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
        text = expression(node, operands)
        if text in operands:
            self.names[node] = text
            return
        name = f"v{len(self.lines)}"
        self.lines.append(f"{name} = {text}")
        self.names[node] = name

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
            element = self.operand(node, 0, tuple(strides), node)
            self.lines.append(f"{element} = {self.names[node]}")
        return product.Epilogue(tuple(self.operands), tuple(self.lines))


def product_launch(group: Group, stored: set[Node]) -> Launch:
    """The launch of a product group: the core's table, with the epilogue's operands behind it."""
    root = next(node for node in group.members if node.op is contraction.contract)
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
    writer = _Epilogue(group, root, stored)
    epilogue = writer.build()
    names = list(dict.fromkeys(node.op.name for node in group.members))[:4]
    source = product.epilogue_source(suffix, epilogue, "_".join(names))
    size = root.dtype.itemsize
    numbers, iterations = product.launch_table(
        shape,
        product.Array(0, _bytes(strides_a, size)),
        product.Array(0, _bytes(strides_b, size)),
        0,
        [product.Array(0, strides) for _, _, strides in writer.words],
    )
    words: list[Word] = list(numbers)
    words[product.EPILOGUE] = Entry()
    words[product.A] = Address(view_a.base, view_a.offset * size)
    words[product.B] = Address(view_b.base, view_b.offset * size)
    for i, (node, offset, _) in enumerate(writer.words):
        words[product.OPERANDS + product.OPERAND_WORDS * i] = Address(node, offset)
    reads = tuple(dict.fromkeys((view_a.base, view_b.base, *writer.reads)))
    elements = batch * m * n
    moved = sum(node.type.nbytes for node in (*reads, *writer.stored))
    work = elements * (k * MULTIPLY_ADD + sum(cost_of(node) for node in group.members))
    cost = max(work, moved * BYTE)
    return Launch(
        source,
        tuple(words),
        iterations,
        cost,
        reads,
        tuple(writer.stored),
        tuple(_in_place(writer, view_a.base, view_b.base)),
        group.members,
        moved,
        elements * (2 * k + len(group.members) - 1),
        suffix,
    )


def _in_place(writer: _Epilogue, a: Node, b: Node) -> list[tuple[Node, Node]]:
    """Stored members and epilogue operands at the same places, which the product does not read."""
    place = {node: (offset, strides) for node, offset, strides in writer.words}
    return [
        (node, other)
        for node in writer.stored
        for other in writer.reads
        if other not in (a, b)
        and place.get(other) == place[node]
        and other.type.size == node.type.size
        and other.dtype.itemsize == node.dtype.itemsize
        and sum(found is other for found, _, _ in writer.words) == 1
    ]


__all__ = ["product_launch"]
