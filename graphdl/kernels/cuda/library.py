"""Which products go to the library, and which of what follows them it takes along."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from graphdl.compiler.contract import roles
from graphdl.compiler.fuse import Group
from graphdl.compiler.view import View, view_of
from graphdl.graph import Node
from graphdl.kernels.cuda.cublaslt import WORKSPACE, Plan, ProductCall, plan_of
from graphdl.kernels.cuda.launch import ACCESS
from graphdl.kernels.program import Address, Buffer
from graphdl.kernels.source import KernelSource
from graphdl.ops import contraction, pointwise


def divided(
    group: Group, users: Mapping[Node, Sequence[Node]], outputs: Sequence[Node]
) -> list[Group] | None:
    """A product with its epilogue, then the other members as loops; None if it is not for it."""
    root = group.members[0]
    if root.op is not contraction.contract or plan(group) is None:
        return None
    first = [root]
    if len(group.members) > 1 and list(users[root]) == [group.members[1]] and root not in outputs:
        first += [group.members[1]] if _bias(root, group.members[1]) is not None else []
    rest = tuple(node for node in group.members if node not in first)
    product = _part(group, tuple(first), "product")
    if not rest:
        return [product]
    loops = replace(
        _part(group, rest, "loops"),
        outer=tuple(range(len(group.dims) - 1)),
        inner=(len(group.dims) - 1,),
    )
    return [product, loops]


def _part(group: Group, members: tuple[Node, ...], kind: str) -> Group:
    return replace(
        group,
        kind=kind,
        members=members,
        axes={node: group.axes[node] for node in members},
        operand_axes={},
        reductions={},
    )


def plan(group: Group) -> Plan | None:
    """How cublasLt computes a group; None if it cannot."""
    root = group.members[0]
    role, (a, b) = roles(root), root.inputs
    if root["lo"] != (*role.batch, *role.m, *role.n) or not role.n:
        return None
    views = view_of(a), view_of(b)
    if views[0] is None or views[1] is None:
        return None
    size = root.dtype.itemsize
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
    return plan_of(str(root.dtype), (m, n, k, batch), strides_a, strides_b, len(group.members) > 1)


def _along(view: View, labels: Sequence[int], wanted: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(view.strides[labels.index(part[0])] if part else 0 for part in wanted)


def _bias(root: Node, node: Node) -> View | None:
    """The line that `node` adds to each row of a product, if that is what it does."""
    if node.op is not pointwise.add or root not in node.inputs:
        return None
    other = node.inputs[1 - node.inputs.index(root)]
    view = view_of(other)
    wanted = (*(0 for _ in root.shape[:-1]), 1)
    if view is None or view.strides != wanted or view.base.dtype != root.dtype:
        return None
    if view.base.op.family == "movement" or roles(root).batch:
        return None
    return view if view.offset * root.dtype.itemsize % ACCESS == 0 else None


def library_launch(group: Group) -> ProductCall:
    """The launch of a group that `divided` has made."""
    root, out = group.members[0], group.members[-1]
    found = plan(group)
    assert found is not None
    size = root.dtype.itemsize
    views = [view for x in root.inputs if (view := view_of(x)) is not None]
    addresses = [Address(view.base, view.offset * size) for view in views]
    bias = _bias(root, out) if out is not root else None
    workspace = Buffer(WORKSPACE, None, "workspace of cublasLt")
    read = views if bias is None else [*views, bias]
    moved = sum(view.base.type.nbytes for view in read) + out.type.nbytes
    work = 2 * found.batch * found.result.rows * found.result.columns * root_depth(root)
    return ProductCall(
        source=KernelSource("cublaslt", f"# cublasLt: {found}\n"),
        words=(
            addresses[1],
            addresses[0],
            Address(out),
            Address(bias.base, bias.offset * size) if bias is not None else 0,
            Address(workspace),
        ),
        iterations=1,
        cost=work * 0.001,
        reads=tuple(dict.fromkeys(view.base for view in read)),
        writes=(out, workspace),
        nodes=group.members,
        bytes=moved,
        flops=work,
        plan=found,
    )


def root_depth(root: Node) -> int:
    """What a product sums over."""
    role = roles(root)
    return int(root.inputs[0].shape[root["la"].index(role.k[0])]) if role.k else 1
