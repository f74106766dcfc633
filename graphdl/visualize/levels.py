"""Fewer boxes: a box for each kernel, or for each part of a layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphdl.visualize.grouping import sorted_units
from graphdl.visualize.labels import cut, cut_name
from graphdl.visualize.picture import FORWARD, Cost, Drawing, Item


def collapsed(drawing: Drawing, level: str) -> Drawing:
    """The drawing at a level: "op" (as it is), "kernel" or "scope".

    A kernel becomes one box, what belongs to no kernel stays. A layer becomes a box for its forward
    part, one for its backward part and one for its update.

    >>> import numpy as np, graphdl as gd
    >>> from graphdl.visualize.drawing import draw
    >>> def f(x):
    ...     with gd.scope("encoder"):
    ...         return np.tanh(x) * 2.0
    >>> drawing = collapsed(draw(gd.trace(f, gd.spec((3,)))), "scope")
    >>> [(item.title, item.detail) for item in drawing.items]
    [('encoder', '2 ops')]
    """
    if level == "kernel":
        return _by_kernel(drawing)
    return _by_scope(drawing) if level == "scope" else drawing


def _by_kernel(drawing: Drawing) -> Drawing:
    members: dict[str, list[Item]] = {}
    for item in drawing.items:
        if item.group:
            members.setdefault(item.group, []).append(item)
    made: dict[str, Item] = {}
    for group in drawing.groups:
        inside = members[group.key]
        made[group.key] = Item(
            group.key,
            "",
            "kernel",
            cut(group.name),
            _count(_ops(inside), "op"),
            group.phase,
            group.band,
            source=next((item.source for item in inside if item.source), ""),
            is_output=any(item.is_output for item in inside),
            count=sum(item.count for item in inside),
            cost=group.cost,
        )
    key_of = {item.key: item.group or item.key for item in drawing.items}
    made |= {item.key: item for item in drawing.items if not item.group}
    return _contracted(drawing, key_of, made)


def _by_scope(drawing: Drawing) -> Drawing:
    # an op counts where it belongs, not where its kernel stands; all else goes with the op it joins
    by_key = {item.key: item for item in drawing.items}
    joins: dict[str, Item] = {}
    for tail, head in drawing.edges:
        joins.setdefault(tail, by_key[head])
        if by_key[head].kind == "output":
            joins[head] = by_key[tail]
    key_of: dict[str, str] = {}
    members: dict[str, list[Item]] = {}
    places: dict[str, tuple[str, int]] = {}
    for item in drawing.items:
        at = item if item.kind == "op" else joins.get(item.key, item)
        phase, band = at.phase if drawing.training else FORWARD, at.band
        key = f"layer {band}, {phase}"
        key_of[item.key] = key
        members.setdefault(key, []).append(item)
        places[key] = phase, band
    named = any(band.name for band in drawing.bands)
    made: dict[str, Item] = {}
    for key, inside in members.items():
        phase, band = places[key]
        name = drawing.bands[band].name or ("" if named else f"layer {band + 1}")
        kernels = len({item.group for item in inside if item.group})
        detail = _count(_ops(inside), "op")
        detail += f", {_count(kernels, 'kernel')}" if kernels else ""
        made[key] = Item(
            key,
            "",
            "scope",
            cut_name(name or phase),
            detail,
            phase,
            band,
            is_output=any(item.is_output for item in inside),
            count=sum(item.count for item in inside),
            cost=_sum([item.cost for item in inside]),
        )
    return _contracted(drawing, key_of, made)


def _contracted(drawing: Drawing, key_of: Mapping[str, str], made: Mapping[str, Item]) -> Drawing:
    """The drawing with `key_of[key]` in the place of each item."""
    edges = dict.fromkeys(
        (key_of[tail], key_of[head]) for tail, head in drawing.edges if key_of[tail] != key_of[head]
    )
    first = list(dict.fromkeys(key_of.values()))
    order = sorted_units(first, edges)
    order += [key for key in first if key not in set(order)]
    items = tuple(made[key] for key in order)
    return Drawing(items, tuple(edges), (), drawing.bands, drawing.training)


def _ops(items: Sequence[Item]) -> int:
    return sum(item.kind == "op" for item in items)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _sum(costs: Sequence[Cost]) -> Cost:
    seconds = [cost.seconds for cost in costs if cost.seconds is not None]
    return Cost(
        sum(cost.nbytes for cost in costs),
        sum(cost.flops for cost in costs),
        sum(seconds) if seconds else None,
    )
