"""Layers that the graph has many times in a row, drawn once with their count."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from msgspec.structs import replace

from graphdl.visualize.picture import Band, Drawing, Item

#: A block of at most this many layers is found, at least so often, in drawings of at least so many
#: items: few layers that are alike are shown as they are.
LONGEST, LEAST, LARGE = 12, 3, 150

_NAMED = ("argument", "parameter", "chip", "output")


def folded(drawing: Drawing) -> Drawing:
    """The drawing with each run of equal layers, or of equal sequences of layers, drawn once.

    Layers are equal if their forward, backward and update parts have the same ops, of the same
    types, joined by the same edges, in the same kernels. What the first of them gets from outside
    of the run, and what the last gives, is as it is; edges from one to the next are left out.
    """
    if len(drawing.items) < LARGE:
        return drawing
    layers = _layers(drawing)
    forms = _forms(drawing, layers)
    stands_for: dict[str, str] = {}
    bands = list(drawing.bands)
    block_of: dict[int, int] = {}
    at = block = 0
    while at < len(layers):
        period, count = _run(forms, at)
        if count < LEAST:
            at += 1
            continue
        for offset in range(period):
            first = at + offset
            bands[first] = Band(bands[first].name, count, block)
            for turn in range(1, count):
                other = first + turn * period
                pairs = zip(layers[other], layers[first], strict=True)
                stands_for |= {item.key: kept.key for item, kept in pairs}
        block_of |= {at + i: i // period for i in range(period * count)}
        at, block = at + period * count, block + 1
    if not stands_for:
        return drawing
    band_of = {item.key: band for band, items in enumerate(layers) for item in items}
    edges: dict[tuple[str, str], None] = {}
    for tail, head in drawing.edges:
        turns = block_of.get(band_of[tail]), block_of.get(band_of[head])
        if None not in turns and turns[0] != turns[1]:
            continue  # from one of the run to another
        edges[stands_for.get(tail, tail), stands_for.get(head, head)] = None
    items = tuple(item for item in drawing.items if item.key not in stands_for)
    present = {item.group for item in items}
    groups = tuple(group for group in drawing.groups if group.key in present)
    return replace(drawing, items=items, edges=tuple(edges), groups=groups, bands=tuple(bands))


def _layers(drawing: Drawing) -> list[list[Item]]:
    """The items of each band; all of a group are in the band of the group."""
    band_of = {group.key: group.band for group in drawing.groups}
    layers: list[list[Item]] = [[] for _ in drawing.bands]
    for item in drawing.items:
        layers[band_of.get(item.group, item.band)].append(item)
    return layers


def _forms(drawing: Drawing, layers: Sequence[Sequence[Item]]) -> list[Hashable]:
    """What two layers have alike if they are equal."""
    above: dict[str, list[str]] = {item.key: [] for item in drawing.items}
    for tail, head in drawing.edges:
        above[head].append(tail)
    names = {group.key: (group.name, group.phase) for group in drawing.groups}
    forms: list[Hashable] = []
    for items in layers:
        place = {item.key: i for i, item in enumerate(items)}
        groups = {key: i for i, key in enumerate(dict.fromkeys(item.group for item in items))}
        forms.append(
            tuple(
                (
                    item.kind,
                    "" if item.kind in _NAMED else item.title,
                    item.detail,
                    item.phase,
                    groups[item.group],
                    names.get(item.group),
                    tuple(sorted(place.get(tail, -1) for tail in above[item.key])),
                )
                for item in items
            )
        )
    return forms


def _run(forms: Sequence[Hashable], at: int) -> tuple[int, int]:
    """The period, and how often it comes, of the run from `at` that holds most layers."""
    best = (1, 1)
    for period in range(1, min(LONGEST, (len(forms) - at) // LEAST) + 1):
        count = 1
        while forms[at : at + period] == forms[at + count * period : at + (count + 1) * period]:
            count += 1
        if count >= LEAST and all(forms[at : at + period]) and period * count > best[0] * best[1]:
            best = period, count
    return best
