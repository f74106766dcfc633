"""Pictures: every node is drawn, boxes stay apart and in their group, wires pass no box."""

from itertools import combinations, pairwise

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphdl as gd
from graphdl.visualize.arrange import arrange
from graphdl.visualize.drawing import Kernel, draw
from graphdl.visualize.ink import strokes
from graphdl.visualize.layered import COLUMN_GAP, Edge, layered
from graphdl.visualize.levels import collapsed
from graphdl.visualize.picture import PHASES, Band, Drawing, Group, Item

SLACK = 1e-6


@st.composite
def _drawings(draw):
    """A random graph of items, with groups that are runs of its order, so they are convex."""
    count = draw(st.integers(1, 28))
    training = draw(st.booleans())
    bands = draw(st.integers(1, 4))
    cuts = sorted(draw(st.sets(st.integers(0, count), max_size=6)) | {0, count})
    runs = [range(a, b) for a, b in pairwise(cuts)]
    kinds = st.sampled_from(["op", "argument", "chip", "output", "constant"])
    groups, items = [], []
    for number, run in enumerate(runs):
        in_group = draw(st.booleans())
        place = draw(st.sampled_from(PHASES)), draw(st.integers(0, bands - 1))
        if in_group:
            groups.append(Group(f"g{number}", "name" * draw(st.integers(0, 12)), *place))
        for i in run:
            own = place if draw(st.booleans()) or in_group else (place[0], 0)
            items.append(
                Item(str(i), str(i), draw(kinds), "t" * draw(st.integers(0, 28)),
                     draw(st.sampled_from(["", "f32[3,4]"])), *own,
                     group=f"g{number}" if in_group else "")
            )  # fmt: skip
    index = st.integers(0, count - 1)
    pairs = draw(st.lists(st.tuples(index, index), max_size=70))
    edges = tuple(dict.fromkeys((str(a), str(b)) for a, b in pairs if a < b))
    names = tuple(Band(draw(st.sampled_from(["", "block"]))) for _ in range(bands))
    return Drawing(tuple(items), edges, tuple(groups), names, training)


def _meet(a, b, slack=SLACK):
    return (
        a.x < b.right - slack
        and b.x < a.right - slack
        and a.y < b.bottom - slack
        and b.y < a.bottom - slack
    )


def _holds(a, b):
    return (
        a.x <= b.x + SLACK
        and a.y <= b.y + SLACK
        and b.right <= a.right + SLACK
        and b.bottom <= a.bottom + SLACK
    )


def _flat(points):
    """A wire as short straight pieces."""
    at, found = strokes(points)
    result = [at]
    for stroke in found:
        if len(stroke.points) == 1:
            result.append(stroke.points[0])
        else:
            (x0, y0), (x1, y1), (x2, y2), (x3, y3) = result[-1], *stroke.points
            for t in (0.25, 0.5, 0.75, 1.0):
                u = 1 - t
                a, b, c, d = u**3, 3 * u * u * t, 3 * u * t * t, t**3
                result.append(
                    (a * x0 + b * x1 + c * x2 + d * x3, a * y0 + b * y1 + c * y2 + d * y3)
                )
    return result


def _crosses(piece, rect):
    """Whether a straight piece passes the inside of a rectangle, by clipping it."""
    (x0, y0), (x1, y1) = piece
    low, high = 0.0, 1.0
    for p, d, a, b in (
        (x0, x1 - x0, rect.x + 0.5, rect.right - 0.5),
        (y0, y1 - y0, rect.y + 0.5, rect.bottom - 0.5),
    ):
        if abs(d) < 1e-12:
            if not a < p < b:
                return False
            continue
        t0, t1 = sorted(((a - p) / d, (b - p) / d))
        low, high = max(low, t0), min(high, t1)
    return low < high


def check(drawing, picture):
    """Everything that has to hold of any picture."""
    rects = {box.item.key: box.rect for box in picture.boxes}
    assert list(rects) == list(dict.fromkeys(rects))
    assert set(rects) == {item.key for item in drawing.items}
    frames = {frame.group.key: frame.rect for frame in picture.frames}
    assert set(frames) == {item.group for item in drawing.items if item.group}
    for a, b in combinations(rects.values(), 2):
        assert not _meet(a, b)
    for a, b in combinations(frames.values(), 2):
        assert not _meet(a, b)
    for box in picture.boxes:
        assert -SLACK <= box.rect.x <= box.rect.right <= picture.width + SLACK
        assert -SLACK <= box.rect.y <= box.rect.bottom <= picture.height + SLACK
        for key, frame in frames.items():
            assert _holds(frame, box.rect) if box.item.group == key else not _meet(frame, box.rect)
    assert {(wire.tail, wire.head) for wire in picture.wires} == set(drawing.edges)
    for wire in picture.wires:
        for end, point in ((wire.tail, wire.points[0]), (wire.head, wire.points[-1])):
            rect = rects[end]
            assert rect.x - SLACK <= point[0] <= rect.right + SLACK
            assert min(abs(point[1] - rect.y), abs(point[1] - rect.bottom)) < SLACK
        for piece in pairwise(_flat(wire.points)):
            for key, rect in rects.items():
                assert not _crosses(piece, rect), (wire, key)
    for strip in picture.strips:
        for other in picture.strips:
            assert strip is other or not _meet(strip.rect, other.rect)
    rows = {}
    for box in picture.boxes:
        if not box.item.group:
            rows.setdefault(box.column, []).append((box.row, box.rect))
    for column in rows.values():
        for (row, a), (other, b) in combinations(column, 2):
            assert row >= other or a.bottom <= b.y + SLACK
            assert row <= other or b.bottom <= a.y + SLACK


@given(_drawings())
@settings(deadline=None, max_examples=60)
def test_boxes_stay_apart_and_in_their_group_and_wires_pass_no_box(drawing):
    check(drawing, arrange(drawing))


@given(_drawings())
@settings(deadline=None, max_examples=30)
def test_edges_of_a_plain_graph_lead_down(drawing):
    items = tuple(Item(i.key, i.node, i.kind, i.title, i.detail) for i in drawing.items)
    plain = Drawing(items, drawing.edges, (), (Band(""),), False)
    picture = arrange(plain)
    rects = {box.item.key: box.rect for box in picture.boxes}
    columns = {box.item.key: box.column for box in picture.boxes}
    for tail, head in drawing.edges:
        assert columns[tail] < columns[head] or rects[tail].bottom < rects[head].y


@given(
    st.lists(st.floats(5, 200), min_size=1, max_size=25),
    st.lists(st.tuples(st.integers(0, 24), st.integers(0, 24)), max_size=60),
)
@settings(deadline=None)
def test_rows_are_monotone_and_boxes_of_a_row_keep_their_distance(widths, pairs):
    edges = [Edge(a, b, a) for a, b in pairs if a < b < len(widths)]
    layers = layered(widths, edges)
    for tail, head, _ in edges:
        assert layers.rank[tail] < layers.rank[head]
    for a, b in combinations(range(len(widths)), 2):
        if layers.rank[a] == layers.rank[b]:
            gap = abs(layers.xs[a] - layers.xs[b]) - (widths[a] + widths[b]) / 2
            assert gap >= COLUMN_GAP - SLACK
    for edge, bends in layers.bends.items():
        assert len(bends) == layers.rank[edge.head] - layers.rank[edge.tail] - 1


@given(
    st.lists(st.floats(5, 200), min_size=1, max_size=40),
    st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=60),
)
@settings(deadline=None, max_examples=40)
def test_rows_that_would_be_too_wide_are_several(widths, pairs):
    edges = [Edge(a, b, a) for a, b in pairs if a < b < len(widths)]
    layers = layered(widths, edges, widest=300)
    for tail, head, _ in edges:
        assert layers.rank[tail] < layers.rank[head]
    joined = networkx.Graph(edge[:2] for edge in edges)
    joined.add_nodes_from(range(len(widths)))
    for piece in networkx.connected_components(joined):
        rows = {}
        for key in piece:
            rows.setdefault(layers.rank[key], []).append(widths[key] + COLUMN_GAP)
        assert all(sum(row) <= 300 or len(row) == 1 for row in rows.values())


def test_a_long_sum_and_many_results_stay_narrow():
    for function in (
        lambda x: sum(np.sin(x * (i + 2.5)) for i in range(40)),
        lambda x: [x * (i + 2.5) for i in range(40)],
    ):
        graph = gd.trace(function, gd.spec((5,)))
        drawing = draw(graph, [Kernel("all", graph.operations)])
        picture = arrange(drawing)
        boxes = {box.item.key: box.rect for box in picture.boxes}
        assert not any(_meet(a, b) for a, b in combinations(boxes.values(), 2))
        assert picture.width < 1600


def test_a_kernel_that_ends_in_an_update_stands_with_the_updates():
    def step(w, x, y):
        slope = gd.grad(lambda w: np.sum((np.tanh(x @ w) - y) ** 2))(w)
        return w - 0.1 * slope

    executable = gd.compile(step).lower(gd.spec((40, 30)), gd.spec((50, 40)), gd.spec((50, 30)))
    kernels = [Kernel(launch.source.name, launch.nodes) for launch in executable.launches]
    drawing = draw(executable.optimized, kernels)
    phases = {item.phase: group for group in drawing.groups for item in drawing.items
              if item.group == group.key}  # fmt: skip
    fused = phases["update"]
    inside = [item for item in drawing.items if item.group == fused.key]
    assert {item.phase for item in inside} == {"backward", "update"}
    assert fused.phase == "update"
    forward = {group.key for group in drawing.groups if group.phase == "forward"}
    forward = {item.key for item in drawing.items if item.group in forward}
    picture = arrange(drawing)
    kinds = {wire.kind for wire in picture.wires if wire.head in {i.key for i in inside}
             and wire.tail in forward}  # fmt: skip
    assert "saved" in kinds


@pytest.mark.parametrize("layout", ["training", "dag"])
@pytest.mark.parametrize("level", ["op", "kernel", "scope"])
def test_a_training_step_is_drawn_as_random_graphs_are(layout, level):
    model = gd.nn.Sequential([gd.nn.Dense(6, activation="tanh"), gd.nn.Dense(4)])
    params = model.init(0, (5,))
    optimiser = gd.optim.adam(1e-3)

    def step(params, state, x):
        slopes = gd.grad(lambda p: np.sum(model.apply(p, x) ** 2))(params)
        return optimiser.update(slopes, state, params)

    x = gd.spec((3, 5), "float32")
    executable = gd.compile(step).lower(params, optimiser.init(params), x)
    kernels = [Kernel(launch.source.name, launch.nodes) for launch in executable.launches]
    drawing = collapsed(draw(executable.optimized, kernels, layout), level)
    check(drawing, arrange(drawing))
