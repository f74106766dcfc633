"""Pictures: every node is drawn, boxes stay apart, hostile names break no format."""

import re
import subprocess
import sys
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

import graphdl as gd
from graphdl.visualize import save, to_dot, to_svg
from graphdl.visualize.layout import COLUMN_GAP, ROW_GAP, layered
from graphdl.visualize.scene import LABEL_LIMIT, Box, Scene, scene

SVG = "{http://www.w3.org/2000/svg}"


def _training_graph():
    def loss(w, x, y):
        return np.sum((np.tanh(x @ w) - y) ** 2)

    spec = gd.spec
    return gd.trace(gd.value_and_grad(loss), spec((4, 3)), spec((8, 4)), spec((8, 3)))


@st.composite
def _dags(draw):
    count = draw(st.integers(0, 25))
    sizes = {
        key: (draw(st.floats(5, 200)), draw(st.sampled_from([38.0, 60.0]))) for key in range(count)
    }
    index = st.integers(0, max(count - 1, 0))
    edges = [(a, b) for a, b in draw(st.lists(st.tuples(index, index), max_size=60)) if a < b]
    return sizes, edges


@given(_dags())
@settings(deadline=None)
def test_boxes_stay_apart_inside_the_page_and_edges_lead_down(dag):
    sizes, edges = dag
    layout = layered(sizes, edges)
    assert set(layout.centres) == set(sizes)
    boxes = {
        key: (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
        for key, (w, h) in sizes.items()
        for x, y in [layout.centres[key]]
    }
    slack = 1e-6
    for left, top, right, bottom in boxes.values():
        assert left >= -slack
        assert top >= -slack
        assert right <= layout.width + slack
        assert bottom <= layout.height + slack
    for a in boxes:
        for b in range(a):
            (l0, t0, r0, b0), (l1, t1, r1, b1) = boxes[a], boxes[b]
            sideways = max(l1 - r0, l0 - r1) >= COLUMN_GAP - slack
            above = max(t1 - b0, t0 - b1) >= ROW_GAP - slack
            assert sideways or above
    assert set(layout.routes) == set(edges)
    for (tail, head), points in layout.routes.items():
        assert points[0] == layout.centres[tail]
        assert points[-1] == layout.centres[head]
        assert all(upper[1] < lower[1] for upper, lower in pairwise(points))


def test_a_large_graph_takes_a_moment_only():
    rng = np.random.default_rng(0)
    count = 1500
    edges = [
        (int(tail), head)
        for head in range(1, count)
        for tail in rng.integers(max(0, head - 10), head, 2)
    ]
    layout = layered(dict.fromkeys(range(count), (60.0, 38.0)), edges)
    assert len(layout.centres) == count


def test_every_node_is_drawn_with_its_op_and_type():
    graph = _training_graph()
    drawn = scene(graph, {})
    ops = [box.title.split()[0] for box in drawn.boxes if box.kind == "op"]
    for name in {node.op.name for node in graph.operations}:
        assert name in ops or name in ("constant", "broadcast")
    assert [box.output for box in drawn.boxes].count(True) == len(graph.outputs)
    names = {box.title for box in drawn.boxes if box.kind == "input"}
    assert names == {graph.labels[node] for node in graph.inputs}
    assert all(tail < head for tail, head in drawn.edges)


def test_an_input_is_drawn_again_where_it_is_used_far_away():
    graph = gd.trace(lambda x: np.tanh(np.exp(np.sin(np.cos(np.sqrt(x))))) * x, gd.spec((2,)))
    kinds = [box.kind for box in scene(graph, {}).boxes]
    assert kinds.count("input") == 2
    near = gd.trace(lambda x: np.tanh(x) * x, gd.spec((2,)))
    assert [box.kind for box in scene(near, {}).boxes].count("input") == 1


def test_a_graph_that_returns_its_input_and_a_constant_is_drawn():
    graph = gd.trace(lambda x: (x, np.ones_like(x) * 2.0), gd.spec((2,)))
    drawn = scene(graph, {})
    assert [box.output for box in drawn.boxes].count(True) == 2
    ElementTree.fromstring(to_svg(drawn))


def test_svg_is_xml_that_holds_every_box_edge_and_group():
    graph = _training_graph()
    groups = {"first": graph.operations[:3], "second & <third>": graph.operations[3:5]}
    drawn = scene(graph, groups)
    root = ElementTree.fromstring(to_svg(drawn))
    texts = [element.text for element in root.iter(f"{SVG}text")]
    for box in drawn.boxes:
        assert box.title in texts
        assert box.detail in texts
    edges = [e for e in root.iter(f"{SVG}path") if e.get("marker-end")]
    assert len(edges) == len(set(drawn.edges))
    assert {"first", "second & <third>"} & set(texts)


HOSTILE = ["<script>alert(1)</script>", '"]]>&amp;', "a\\nb\\", "%0 {x|y}", "\x00\x1b\n", "Ω→𝔘"]


@pytest.mark.parametrize("label", HOSTILE)
def test_hostile_labels_break_no_format(label):
    boxes = (
        Box(0, label, label, "input", False, None, label),
        Box(1, label, label, "op", True, 0, label),
    )
    drawn = Scene(boxes, ((0, 1),), (label,))
    root = ElementTree.fromstring(to_svg(drawn))
    assert not list(root.iter(f"{SVG}script"))
    texts = [element.text or "" for element in root.iter(f"{SVG}text")]
    if label.isprintable():
        assert texts.count(label) == 5
    harmless = Scene(tuple(replace(box, title="x", detail="x", source="x") for box in boxes),
                     ((0, 1),), ("x",))  # fmt: skip
    assert _without_strings(to_dot(drawn)) == _without_strings(to_dot(harmless))


def _without_strings(dot):
    return re.sub(r'"(?:[^"\\]|\\.)*"', "S", dot, flags=re.DOTALL)


def test_long_labels_are_cut():
    graph = gd.trace(lambda x: x[:, None, :, None], gd.spec((2, 3)))
    assert all(len(box.title) <= LABEL_LIMIT for box in scene(graph, {}).boxes)


def test_the_file_name_chooses_the_format(tmp_path):
    graph = _training_graph()
    assert save(graph, tmp_path / "g.svg").read_text(encoding="utf-8").startswith("<svg")
    assert save(graph, str(tmp_path / "g.dot")).read_text().startswith("digraph")
    with pytest.raises(ValueError, match=r"'g.png'; the name has to end in .dot or .svg"):
        save(graph, tmp_path / "g.png")


def test_methods_draw_what_save_draws(tmp_path):
    graph = _training_graph()
    groups = {"first": ["%0"], "last": [graph.operations[-1]]}
    for ending in ("svg", "dot"):
        drawn = graph.visualize(tmp_path / f"a.{ending}", groups)
        assert drawn == tmp_path / f"a.{ending}"
        assert drawn.read_bytes() == save(graph, str(tmp_path / f"b.{ending}"), groups).read_bytes()
    with pytest.raises(gd.ArgumentError, match=r"'g.png'; the name has to end in .dot or .svg"):
        graph.visualize(tmp_path / "g.png")


def test_an_executable_is_drawn_after_the_passes_a_group_for_each_kernel(tmp_path):
    def loss(w, x):
        return np.sum(np.tanh(x @ w) ** 2)

    executable = gd.compile(gd.value_and_grad(loss)).lower(gd.spec((4, 3)), gd.spec((8, 4)))
    text = executable.visualize(tmp_path / "g.dot").read_text(encoding="utf-8")
    for i, kernel in enumerate(executable.kernels):
        assert f'label="kernel {i}: {kernel.name}"' in text
        assert kernel.nodes
    assert text.count("subgraph cluster_") == len(executable.kernels)
    assert "tanh" in text


def test_a_picture_is_the_same_in_every_process():
    program = (
        "import numpy as np, graphdl as gd\n"
        "from graphdl.visualize import to_svg\n"
        "from graphdl.visualize.scene import scene\n"
        "f = gd.value_and_grad(lambda w, x: np.sum(np.tanh(x @ w)))\n"
        "print(to_svg(scene(gd.trace(f, gd.spec((4, 3)), gd.spec((8, 4))), {})))\n"
    )
    pictures = {
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PATH": ""},
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(pictures) == 1


def test_constants_are_drawn_as_their_number():
    graph = gd.trace(lambda x: x * 0.1 + np.mean(x), gd.spec((4,), "float32"))
    titles = [box.title for box in scene(graph, {}).boxes if box.kind == "constant"]
    assert sorted(titles) == ["0.1", "4.0"]
