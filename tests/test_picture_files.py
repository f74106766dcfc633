"""Pictures as files: well-formed whatever the names, and the same in every process."""

import os
import re
import shutil
import subprocess
import sys
from html import unescape
from xml.etree import ElementTree

import networkx
import numpy as np
import pytest

import graphdl as gd
from graphdl.visualize.arrange import arrange
from graphdl.visualize.dot import to_dot
from graphdl.visualize.drawing import draw
from graphdl.visualize.graphml import to_graphml
from graphdl.visualize.labels import constants_of
from graphdl.visualize.mermaid import to_mermaid
from graphdl.visualize.paint import paint
from graphdl.visualize.picture import Band, Drawing, Group, Item
from graphdl.visualize.svg import to_svg
from graphdl.visualize.theme import DARK, LIGHT, THEMES, contrast

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = [
    "<script>alert(1)</script>", '"]]>&amp;', "a\\nb\\", "%0 {x|y}", "\x00\x1b\n", "Ω→𝔘", "`#;end",
    "w" * 10_000, "", "'); DROP", "\ud800",
]  # fmt: skip


def _step(w, x, y):
    loss = lambda w: np.sum((np.tanh(x @ w) - y) ** 2)  # noqa: E731
    value, gradient = gd.value_and_grad(loss)(w)
    return value, w - 0.1 * gradient


def _graph():
    return gd.trace(_step, gd.spec((4, 3)), gd.spec((8, 4)), gd.spec((8, 3)))


def _executable():
    return gd.compile(_step).lower(gd.spec((4, 3)), gd.spec((8, 4)), gd.spec((8, 3)))


def _hostile(label):
    """A drawing in which every text is `label`, as long as the drawing of a graph would have it."""
    text = label[:28]
    first = Item("x", label, "argument", text, text, source=label)
    second = Item("%0", label, "op", text, text, group="g", source=label, gradient_of=label)
    third = Item("out", label, "output", text, "", scopes=(label,))
    return Drawing(
        (first, second, third),
        (("x", "%0"), ("%0", "out")),
        (Group("g", label),),
        (Band(text),),
    )


@pytest.mark.parametrize("label", HOSTILE, ids=range(len(HOSTILE)))
def test_svg_holds_any_name_as_text(label):
    text = to_svg(paint(arrange(_hostile(label)), LIGHT, title=label))
    root = ElementTree.fromstring(text.encode())
    assert not list(root.iter(f"{SVG}script"))
    assert len(list(root.iter(f"{SVG}rect"))) > 3
    if label.isprintable():
        texts = [element.text or "" for element in root.iter(f"{SVG}text")]
        assert texts.count(label[:28]) >= 4


@pytest.mark.parametrize("label", HOSTILE, ids=range(len(HOSTILE)))
def test_dot_holds_any_name_as_text(label):
    def bare(text):
        return re.sub(r'"(?:[^"\\]|\\.)*"', "S", text, flags=re.DOTALL)

    text = to_dot(_hostile(label), LIGHT)
    assert bare(text) == bare(to_dot(_hostile("x"), LIGHT)) or not label
    if shutil.which("dot"):
        made = subprocess.run(
            ["dot", "-Tplain"], input=text.encode(), capture_output=True, check=True
        )
        lines = made.stdout.decode().replace("\\\n", "").splitlines()
        assert sum(line.startswith("node ") for line in lines) == 3
        assert sum(line.startswith("edge ") for line in lines) == 2


@pytest.mark.parametrize("label", HOSTILE, ids=range(len(HOSTILE)))
def test_mermaid_holds_any_name_as_text(label):
    text = to_mermaid(_hostile(label), LIGHT)
    # what is left of the line is what Mermaid's grammar allows between quotes
    for line in text.splitlines():
        assert re.fullmatch(
            r"flowchart TB"
            r'| +(?:n\d+\(?\[?"[^"<>`]*(?:<br/>[^"<>`]*)?"\]?\)?:::\w+|end|n\d+ --> n\d+)'
            r'| +subgraph g\d+\["[^"<>`]*"\]'
            r"| +classDef \w+ fill:#\w{6},stroke:#\w{6},color:#\w{6}",
            line,
        ), line
    if label.isprintable():
        shown = re.findall(r'"([^"]*)"', text)
        decoded = [unescape(re.sub(r"#(\d+);", r"&#\1;", part)) for part in shown]
        assert any(label[:28] in part for part in decoded)


@pytest.mark.parametrize("label", HOSTILE, ids=range(len(HOSTILE)))
def test_graphml_comes_back_through_networkx(label):
    back = networkx.parse_graphml(to_graphml(_hostile(label)))
    assert sorted(back.edges) == [("n0", "n1"), ("n1", "n2")]
    if label.isprintable():
        assert back.nodes["n1"]["title"] == label[:28]
        assert back.nodes["n1"]["gradient_of"] == label


def test_graphml_holds_the_facts_of_a_graph():
    graph = _graph()
    drawing = draw(graph)
    back = networkx.parse_graphml(to_graphml(drawing))
    assert len(back) == len(drawing.items)
    assert back.number_of_edges() == len(drawing.edges)
    assert networkx.is_directed_acyclic_graph(back)
    kinds = {data["key"]: data for _, data in back.nodes(data=True)}
    assert kinds["w"]["kind"] == "parameter"
    assert any(data["gradient_of"] == "w" for data in kinds.values())
    assert {data["phase"] for data in kinds.values()} == {"forward", "backward", "update"}


def test_every_node_is_drawn_once_and_none_is_missing():
    graph = _graph()
    drawing = draw(graph)
    drawn = [item.node for item in drawing.items if item.kind in ("op", "argument", "parameter")]
    assert len(drawn) == len(set(drawn))
    constants = constants_of(graph)  # numbers, which stand in the titles of what uses them
    assert {graph.labels[node] for node in graph.nodes if node not in constants} == set(drawn)
    assert sum(item.kind == "output" for item in drawing.items) == len(graph.outputs)


def test_svg_holds_every_box_wire_and_kernel(tmp_path):
    executable = _executable()
    text = executable.visualize(tmp_path / "g.svg").read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    texts = [element.text or "" for element in root.iter(f"{SVG}text")]
    for kernel in executable.kernels:
        assert any(text.startswith(kernel.name[:30]) for text in texts)
    for word in ("tanh", "forward", "backward", "update", "w", "out[0]"):
        assert any(word in text for text in texts)


def test_the_name_chooses_the_format_and_a_wrong_one_lists_them(tmp_path):
    graph = _graph()
    beginnings = {".svg": "<svg", ".dot": "digraph", ".mmd": "flowchart", ".graphml": "<graphml"}
    for ending, beginning in beginnings.items():
        path = graph.visualize(tmp_path / f"g{ending}")
        assert path == tmp_path / f"g{ending}"
        assert path.read_text(encoding="utf-8").removeprefix(
            "<?xml version='1.0' encoding='utf-8'?>\n"
        ).startswith(beginning)  # fmt: skip
    with pytest.raises(gd.ArgumentError, match=r"'g.gif'; the name has to end in one of \.svg"):
        graph.visualize(tmp_path / "g.gif")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "round"}, r"layout='round'; write one of 'auto', 'training', 'dag'"),
        ({"level": 3}, r"level=3; write one of 'op', 'kernel', 'scope'"),
        ({"color": "red"}, r"color='red'; write one of 'phase', 'time', 'bytes'"),
        ({"theme": None}, r"theme=None; write one of 'light', 'dark'"),
        ({"color": "time"}, r"color='time' needs measured times: pass profile="),
        ({"level": "kernel"}, r"level='kernel' shows what runs as one kernel"),
        ({"groups": {"a": ["%99"]}}, r"group 'a' names '%99', which is no node"),
    ],
)
def test_an_option_that_does_not_apply_says_what_does(tmp_path, options, message):
    with pytest.raises(gd.ArgumentError, match=message):
        _graph().visualize(tmp_path / "g.svg", **options)


def test_a_path_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(OSError, match="no_such_folder"):
        _graph().visualize(tmp_path / "no_such_folder" / "g.svg")


def test_a_notebook_shows_graphs_and_executables():
    for shown in (_graph(), _executable()):
        assert ElementTree.fromstring(shown._repr_svg_()).tag == f"{SVG}svg"


def test_text_can_be_read_on_its_ground():
    for theme in (LIGHT, DARK):
        fills = [theme.page, theme.band.fill, theme.group.fill, theme.plain.fill]
        fills += [colour.fill for colour in theme.phases.values()]
        fills += [colour.fill for kind, colour in theme.kinds.items() if kind != "output"]
        for fill in fills:
            assert contrast(theme.text, fill) >= 7
            assert contrast(theme.faint, fill) >= 4.5
        assert contrast(theme.page, theme.kinds["output"].fill) >= 7
        for end in (theme.cold, theme.hot):
            assert contrast(theme.text, end) >= 4.5


def test_a_picture_is_the_same_in_every_process(tmp_path):
    program = (
        "import sys, numpy as np, graphdl as gd\n"
        "step = gd.grad(lambda w, x: np.sum(np.tanh(x @ w)))\n"
        "e = gd.compile(lambda w, x: w - step(w, x)).lower(gd.spec((4, 3)), gd.spec((8, 4)))\n"
        "for ending in ('svg', 'dot', 'mmd', 'graphml'):\n"
        "    print(e.visualize(sys.argv[1] + '/g.' + ending).read_text())\n"
    )
    pictures = {
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)],
            capture_output=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert len(pictures) == 1


def test_numbers_are_written_into_the_op_that_uses_them():
    graph = gd.trace(lambda x: x * 0.1 + np.mean(x), gd.spec((4,), "float32"))
    titles = [item.title for item in draw(graph).items]
    assert "multiply(·, 0.1)" in titles
    assert "divide(·, 4.0)" in titles


def test_themes_differ_and_measures_colour_boxes():
    picture = arrange(draw(_graph()))
    scenes = {to_svg(paint(picture, theme)) for theme in THEMES.values()}
    assert len(scenes) == 2
    by_bytes = to_svg(paint(picture, LIGHT, "bytes"))
    assert LIGHT.hot in by_bytes
    assert "B</text>" in by_bytes


def test_long_labels_are_cut():
    graph = gd.trace(lambda x: np.transpose(x, (3, 2, 1, 0)), gd.spec((2, 3, 4, 5)))
    assert all(len(item.title) <= 28 for item in draw(graph).items)
