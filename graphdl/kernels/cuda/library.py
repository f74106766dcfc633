"""Which products go to the library, and what of the graph around them it does as it writes them.

A layer of a network is a product, a bias and perhaps a ReLU; its gradient a product whose result
goes through the mask of that ReLU, the sums of that result (the gradient of the bias), and the
product that gives the weights' gradient, which can add up an operand by the way. cublasLt has
epilogues for these. The richest that it has an algorithm for is taken; what is left of a group of
kernels is a kernel of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from msgspec.structs import replace

from graphdl.compiler.constants import is_zero, uniform
from graphdl.compiler.contract import roles
from graphdl.compiler.fuse import Group
from graphdl.compiler.rows import ROOTS
from graphdl.compiler.view import View, view_of
from graphdl.graph import Graph, Node, users
from graphdl.kernels.cuda.cublaslt import (
    WORKSPACE,
    Library,
    Plan,
    ProductCall,
    mask_bytes,
    plan_of,
)
from graphdl.kernels.cuda.launch import ACCESS
from graphdl.kernels.program import Address, Buffer, Value
from graphdl.kernels.source import KernelSource
from graphdl.ops import contraction, pointwise, reduction
from graphdl.types import is_half


class Call:
    """A product for the library, and what it takes along."""

    def __init__(self, group: Group, plan: Plan) -> None:
        self.group, self.plan = group, plan
        self.root = root_of(group)
        #: What it computes beside the product, in order; `out` is what it writes.
        self.taken: list[Node] = []
        self.bias: View | None = None
        #: The np.maximum whose mask it writes or reads, and that of its own.
        self.mask: Node | None = None
        self.relu: Node | None = None
        #: The sums that it writes as well, and what its GELU is of.
        self.sums: tuple[Node, ...] = ()
        self.before: Node | None = None

    @property
    def out(self) -> Node:
        return self.taken[-1] if self.taken else self.root

    @property
    def members(self) -> tuple[Node, ...]:
        return (self.root, *self.taken, *self.sums)

    @property
    def views(self) -> tuple[View, ...]:
        """Its operands as they lie in memory."""
        return tuple(view for x in self.root.inputs if (view := view_of(x)) is not None)

    @property
    def reads(self) -> list[Node]:
        """The values that it reads; a mask has no node, but is there once the ReLU is."""
        found = [view.base for view in self.views]
        found += [] if self.bias is None else [self.bias.base]
        return found if self.mask in (None, self.relu) else [*found, self.mask]


class Products:
    """The products of a graph: `groups` in their order, and the calls among them by their root."""

    def __init__(
        self, graph: Graph, groups: Sequence[Group], library: Library, precision: str
    ) -> None:
        self._readers, self._outputs = users(graph.nodes), set(graph.outputs)
        self._library = library
        self._group_of = {node: group for group in groups for node in group.members}
        self._positions = {node: i for i, group in enumerate(groups) for node in group.members}
        found = [self._begun(group, precision) for group in groups if group.kind == "product"]
        calls = [call for call in found if call is not None]
        for call in calls:
            self._take_layer(call)
        relus = {call.relu: call for call in calls if call.relu is not None}
        for call in calls:
            self._take_gradient(call, relus)
        self._summed: set[Node] = set()
        for call in calls:
            self._take_sums(call)
        self.calls = {call.root: call for call in calls}
        self._needed = _needed(graph, calls)
        self.masks = {
            relu: Buffer(mask_bytes(call.plan), None, "mask of a ReLU")
            for relu, call in relus.items()
            if call.mask is relu
        }
        self.groups = [part for group in groups for part in self._divided(group)]

    # --- what the library takes ---------------------------------------------------------------

    def _begun(self, group: Group, precision: str) -> Call | None:
        root = root_of(group)
        plan = _plain_plan(root) if root.op is contraction.contract else None
        if plan is None:
            return None
        if precision == "tf32" and plan.dtype == "float32":
            plan = replace(plan, compute="tf32")
        return Call(group, plan) if self._library.takes(plan) else None

    def _reader(self, node: Node, group: Group) -> Node | None:
        """The only node that reads a member, if it is a member too."""
        readers = list(self._readers[node])
        if node in self._outputs or len(readers) != 1 or readers[0] not in group.members:
            return None
        return readers[0]

    def _next(self, call: Call) -> tuple[list[Node], Node | None]:
        """The node that follows, with the rounding to 16 bits and back before it."""
        at = self._reader(call.out, call.group)
        if at is not None and at.op is pointwise.stored:
            back = self._reader(at, call.group)
            if back is not None and back.op is pointwise.cast and back.dtype == call.root.dtype:
                return [at, back], self._reader(back, call.group)
            if back is not None and back.op is pointwise.select:
                return [at], back
        return [], at

    def _take_layer(self, call: Call) -> None:
        """A bias, a ReLU, and the rounding to what is stored."""
        between, node = self._next(call)
        bias = _bias(call, node, between[-1] if between else call.out)
        if node is not None and bias is not None and self._fits(call, "bias"):
            call.bias = bias
            call.taken += [*between, node]
            between, node = self._next(call)
        self._take_gelu(call)
        if node is not None and _is_relu(node, between[-1] if between else call.out):
            name = "relu_bias" if call.bias is not None else "relu"
            if self._library.relu_is_ours and self._fits(call, name):
                call.relu = node
                call.taken += [*between, node]
        self._round(call)
        if is_half_plan(call.plan) and call.taken and call.plan.out != call.plan.dtype:
            # a bias is of 16 bits, and goes to a result of 16 bits only
            call.taken, call.bias, call.relu, call.before = [], None, None, None
            call.plan = replace(call.plan, epilogue="default")

    def _take_gelu(self, call: Call) -> None:
        """A GELU by the tanh, and what it is of where others read that too.

        It is known by its values. cublasLt's may be as rough as the tanh of the GPU, 2**-11, so
        that it is for results which are no finer.
        """
        if not is_half_plan(call.plan) and call.plan.compute != "tf32":
            return
        found = Formula(call.out, call.group, self._readers)
        end = next((node for node in reversed(found.order) if found.is_gelu(node)), None)
        if end is None:
            return
        inner = found.behind(end)
        outside = {node for node in inner if node is not end and self._is_read(node, inner)}
        rounded = {node for node in inner if node.op is pointwise.stored and node in found.starts}
        if not outside <= rounded or self._is_read(call.out, inner):
            return
        name = "gelu_aux" if outside else "gelu"
        if self._fits(call, name if call.bias is None else f"{name}_bias"):
            call.before = next(iter(outside), None)
            call.taken += [node for node in call.group.members if node in inner]

    def _is_read(self, node: Node, inner: set[Node]) -> bool:
        """Whether anybody else reads a member."""
        return node in self._outputs or not inner.issuperset(self._readers[node])

    def _round(self, call: Call) -> None:
        """Let the call write 16 bits, if they are all that is read of it."""
        node = self._reader(call.out, call.group)
        if node is None or node.op is not pointwise.stored:
            return
        plan = replace(call.plan, out=str(node.dtype))
        if plan.out == plan.dtype and self._library.takes(plan):
            call.plan = plan
            call.taken.append(node)

    def _take_gradient(self, call: Call, relus: Mapping[Node, Call]) -> None:
        """The mask of a ReLU, and the sums of what it lets through."""
        between, node = self._next(call)
        plain = all(member.op is pointwise.stored for member in call.taken)
        if not plain or node is None or node.op is not pointwise.select:
            return
        condition, chosen, other = node.inputs
        value = between[-1] if between else call.out
        if chosen is not value or not is_zero(other) or condition.op is not pointwise.greater:
            return
        forward = relus.get(unrounded(condition.inputs[0]))
        if forward is None or not is_zero(condition.inputs[1]):
            return
        if forward.plan.result != call.plan.result:
            return
        mask = replace(forward.plan, epilogue=_with_mask(forward.plan.epilogue))
        plan = replace(call.plan, epilogue="drelu", out=str(node.dtype))
        if not (self._library.takes(mask) and self._library.takes(plan)):
            return
        forward.plan, forward.mask = mask, forward.relu
        call.plan, call.mask = plan, forward.relu
        call.taken += [*between, node]

    def _take_sums(self, call: Call) -> None:
        """The sums of the rows of what a ReLU lets through, or of the right operand."""
        if call.plan.epilogue == "drelu":
            self._add_sums(call, call.out, "drelu_bgrad", 0)
        elif call.plan.epilogue == "default" and call.plan.batch == 1 and call.root.type.ndim == 2:
            operand, labels = call.root.inputs[1], call.root["lb"]
            summed = labels.index(roles(call.root).k[0]) if roles(call.root).k else None
            if summed is not None and operand.type.ndim == 2:
                self._add_sums(call, operand, "bgrada", summed)

    def _add_sums(self, call: Call, node: Node, epilogue: str, axis: int) -> None:
        plan = replace(call.plan, epilogue=epilogue)
        for sums in self._sums_of(node, axis):
            wanted = str(sums[-1].dtype) == plan.out and self._library.takes(plan)
            if wanted and self._first_reader(sums[-1]) >= self._positions[call.root]:
                call.plan, call.sums = plan, sums
                self._summed.update(sums)
                return

    def _first_reader(self, node: Node) -> float:
        """The number of the first group that reads a value, also through views of it."""
        pending, found = list(self._readers[node]), math.inf
        while pending:
            at = pending.pop()
            if at in self._positions:
                found = min(found, self._positions[at])
            else:
                pending += self._readers[at]
        return found

    def _sums_of(self, node: Node, axis: int) -> Iterator[tuple[Node, ...]]:
        """The sums of a value that are kernels of their own, each with the rounding behind it."""
        seen = [node, *(r for r in self._readers[node] if r.op is pointwise.cast)]
        for sums in (r for x in seen for r in self._readers[x]):
            group = self._group_of.get(sums)
            if sums.op is not reduction.sum_ or group is None or sums["axes"] != (axis,):
                continue
            after = list(self._readers[sums])
            rounded = len(after) == 1 and after[0].op is pointwise.stored
            made = (sums, after[0]) if rounded and sums not in self._outputs else (sums,)
            alone = {*group.members} <= {sums.inputs[0], *made}
            if group.kind == "loops" and alone and sums not in self._summed:
                yield made

    def _fits(self, call: Call, epilogue: str) -> bool:
        """Take an epilogue, if there is an algorithm for it."""
        out = call.plan.dtype if is_half_plan(call.plan) else call.plan.out
        if not self._library.takes(replace(call.plan, epilogue=epilogue, out=out)):
            return False
        call.plan = replace(call.plan, epilogue=epilogue)
        return True

    # --- the groups ---------------------------------------------------------------------------

    def _divided(self, group: Group) -> list[Group]:
        """A group as the call that it is, and the rest as loops."""
        call = self.calls.get(root_of(group)) if group.kind == "product" else None
        own = call.members if call is not None else ()
        rest = tuple(n for n in group.members if n not in own and n in self._needed)
        if call is None:
            return [group] if rest == group.members else [_part(group, rest)] if rest else []
        product = replace(_part(group, (call.root,)), members=own)
        last = len(group.dims) - 1
        loops = replace(_part(group, rest), kind="loops", outer=tuple(range(last)), inner=(last,))
        return [product, loops] if rest else [product]


class Formula:
    """What a group computes of one value alone, element by element, and what it gives of numbers.

    starts: that value, as it is read. order: the members that are functions of it.
    """

    SAMPLES = np.linspace(-6, 6, 49)

    def __init__(self, x: Node, group: Group, readers: Mapping[Node, Sequence[Node]]) -> None:
        self.values: dict[Node, np.ndarray] = {x: self.SAMPLES}
        self.order: list[Node] = []
        self.starts: set[Node] = set()
        self._x = x
        for node in group.members:
            if node is x or node.op.family != "pointwise" or node.dtype.kind == "b":
                continue
            operands = [self._value(operand) for operand in node.inputs]
            known = [value for value in operands if value is not None]
            if len(known) < len(operands) or not any(value.ndim for value in known):
                continue
            if node.op in (pointwise.stored, pointwise.cast):
                self.values[node] = known[0]  # rounding aside
                self.starts |= {node} if known[0] is self.SAMPLES else set()
            else:
                with np.errstate(all="ignore"):
                    self.values[node] = np.asarray(node.op.evaluate(*known, **dict(node.attrs)))
            self.order.append(node)

    def _value(self, node: Node) -> np.ndarray | None:
        constant = uniform(node)
        return self.values.get(node) if constant is None else constant.astype(np.float64)

    def is_gelu(self, node: Node) -> bool:
        x = self.SAMPLES
        wanted = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        # constants may have been rounded to 8 bits; the GELU by erf is further away at -3
        near = np.allclose(self.values[node], wanted, rtol=5e-3, atol=1e-4)
        return near and node.op is not pointwise.stored and node.op is not pointwise.cast

    def behind(self, end: Node) -> set[Node]:
        """The members that `end` is made of, and itself."""
        found: set[Node] = set()
        pending = [end]
        while pending:
            node = pending.pop()
            if node not in found and node in self.values and node is not self._x:
                found.add(node)
                pending += node.inputs
        return found


def root_of(group: Group) -> Node:
    """The product of a group, or its first member."""
    return next((node for node in group.members if node.op in ROOTS), group.members[0])


def _needed(graph: Graph, calls: Sequence[Call]) -> set[Node]:
    """The nodes that kernels have to compute where calls take care of theirs."""
    call_of = {node: call for call in calls for node in call.members}
    done, found = set(call_of), set[Node]()
    pending = list(graph.outputs)
    while pending:
        node = pending.pop()
        if node in found:
            continue
        found.add(node)
        call = call_of.get(node)
        pending += call.reads if call is not None else node.inputs
    return found - done


def _part(group: Group, members: tuple[Node, ...]) -> Group:
    """The part of a group."""
    return replace(
        group,
        members=members,
        axes={node: group.axes[node] for node in members},
        operand_axes={n: axes for n, axes in group.operand_axes.items() if n in members},
        reductions={n: kind for n, kind in group.reductions.items() if n in members},
    )


def unrounded(node: Node) -> Node:
    """A value before it was rounded to 16 bits and read back."""
    while node.op is pointwise.stored or (
        node.op is pointwise.cast and is_half(node.inputs[0].dtype)
    ):
        node = node.inputs[0]
    return node


def is_half_plan(plan: Plan) -> bool:
    return plan.dtype in ("float16", "bfloat16")


def _with_mask(epilogue: str) -> str:
    return {"relu": "relu_aux", "relu_bias": "relu_aux_bias"}.get(epilogue, epilogue)


def _is_relu(node: Node, x: Node) -> bool:
    if node.op is not pointwise.maximum or x not in node.inputs:
        return False
    return is_zero(node.inputs[1 - node.inputs.index(x)])


def _bias(call: Call, node: Node | None, x: Node) -> View | None:
    """The line that `node` adds to each row of a product, if that is what it does."""
    root = call.root
    if node is None or node.op is not pointwise.add or x not in node.inputs:
        return None
    view = view_of(node.inputs[1 - node.inputs.index(x)])
    wanted = (*(0 for _ in root.shape[:-1]), 1)
    if view is None or view.strides != wanted or roles(root).batch:
        return None
    if view.base.op is pointwise.cast and is_half(view.base.inputs[0].dtype):
        behind = view_of(view.base.inputs[0])  # of 16 bits, as the library wants it
        if behind is None or behind.strides != (1,) or view.offset:
            return None
        view = behind
    if view.base.op.family == "movement" or str(view.base.dtype) != call.plan.dtype:
        return None
    return view if view.offset * view.base.dtype.itemsize % ACCESS == 0 else None


def _plain_plan(root: Node) -> Plan | None:
    """How cublasLt computes a product; None if it cannot."""
    role, (a, b) = roles(root), root.inputs
    if root["lo"] != (*role.batch, *role.m, *role.n) or not role.n:
        return None
    views = view_of(a), view_of(b)
    if views[0] is None or views[1] is None or a.dtype != b.dtype:
        return None
    size = a.dtype.itemsize
    if any(view is not None and view.offset * size % ACCESS for view in views):
        return None
    sizes = dict(zip(root["la"], a.shape, strict=True)) | dict(
        zip(root["lb"], b.shape, strict=True)
    )
    m, n, k, batch = (
        sizes[labels[0]] if labels else 1 for labels in (role.m, role.n, role.k, role.batch)
    )
    strides_a = _along(views[0], root["la"], (role.batch, role.m, role.k))
    strides_b = _along(views[1], root["lb"], (role.batch, role.k, role.n))
    plan = plan_of(str(a.dtype), (m, n, k, batch), strides_a, strides_b)
    return None if plan is None else replace(plan, out=str(root.dtype))


def _along(view: View, labels: Sequence[int], wanted: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(view.strides[labels.index(part[0])] if part else 0 for part in wanted)


def library_launch(call: Call, masks: Mapping[Node, Buffer]) -> ProductCall:
    """The launch of a product for the library."""
    plan, root = call.plan, call.root
    left, right = (_address(view) for view in reversed(call.views))
    workspace = Buffer(WORKSPACE, None, "workspace of cublasLt")
    reads: list[Value] = [view.base for view in call.views]
    writes: list[Value] = [call.out, workspace]
    bias: Address | int = 0
    if call.bias is not None:
        bias = _address(call.bias)
        reads.append(call.bias.base)
    elif call.sums:
        bias = Address(call.sums[-1])
        writes.append(call.sums[-1])
    mask: Address | int = 0
    if call.mask is not None:
        buffer = masks[call.mask]
        mask = Address(buffer)
        (writes if call.mask is call.relu else reads).append(buffer)
    elif call.before is not None:
        mask = Address(call.before)
        writes.append(call.before)
    moved = sum(value.type.nbytes for value in (*reads, *writes) if isinstance(value, Node))
    work = 2 * plan.batch * plan.result.rows * plan.result.columns * root_depth(root)
    return ProductCall(
        source=KernelSource("cublaslt", f"# cublasLt: {plan}\n"),
        words=(left, right, Address(call.out), bias, mask, Address(workspace)),
        iterations=1,
        cost=work * 0.001,
        reads=tuple(dict.fromkeys(reads)),
        writes=tuple(writes),
        nodes=call.members,
        bytes=moved,
        flops=work,
        plan=plan,
    )


def _address(view: View) -> Address:
    return Address(view.base, view.offset * view.base.dtype.itemsize)


def root_depth(root: Node) -> int:
    """What a product sums over."""
    role = roles(root)
    return int(root.inputs[0].shape[root["la"].index(role.k[0])]) if role.k else 1


__all__ = ["Call", "Products", "library_launch"]
