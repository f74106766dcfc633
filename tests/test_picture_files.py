"""Pictures as files: well-formed whatever the names, and the same in every process."""

import io
import os
import re
import shutil
import subprocess
import sys
import zlib
from html import unescape
from time import process_time
from xml.etree import ElementTree

import networkx
import numpy as np
import pytest

import graphdl as gd
from graphdl import cli
from graphdl.visualize import units
from graphdl.visualize.arrange import arrange
from graphdl.visualize.dot import to_dot
from graphdl.visualize.drawing import Kernel, draw
from graphdl.visualize.font import ADVANCE, data_of, glyphs_of
from graphdl.visualize.graphml import to_graphml
from graphdl.visualize.labels import constants_of
from graphdl.visualize.levels import collapsed
from graphdl.visualize.mermaid import to_mermaid
from graphdl.visualize.paint import paint
from graphdl.visualize.pdf import to_pdf
from graphdl.visualize.picture import Band, Drawing, Group, Item
from graphdl.visualize.png import to_png
from graphdl.visualize.repeats import folded
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


@pytest.mark.parametrize("option", ["colour", "levl", "graph", "path_", "executable", "title"])
def test_an_option_that_there_is_not_lists_those_that_there_are(tmp_path, option):
    near = {"colour": "color", "levl": "level"}.get(option)
    hint = f"write {near}=; " if near else ""
    known = "layout, level, color, theme, profile, values, compare"
    for shown, own in ((_graph(), "groups, "), (_executable(), "")):
        with pytest.raises(gd.ArgumentError) as raised:
            shown.visualize(tmp_path / "g.svg", **{option: 1})
        wanted = f"visualize has no option '{option}'; {hint}the options are {own}{known}"
        assert str(raised.value) == wanted
    assert not (tmp_path / "g.svg").exists()


@pytest.mark.parametrize(
    ("ending", "options", "message"),
    [
        (".dot", {"color": "bytes"}, "color= .*'g.dot'; the options that do are layout, level, th"),
        (".mmd", {"profile": {}}, "profile= changes nothing in 'g.mmd'; the options that do are l"),
        (
            ".graphml",
            {"theme": "dark"},
            "theme= .* that do are layout, level, profile$",
        ),
        (".svg", {"layout": "dot", "color": "flops"}, "color= .* in 'g.svg' as Graphviz draws it"),
    ],
)
def test_an_option_that_would_change_nothing_is_an_error(tmp_path, ending, options, message):
    with pytest.raises(gd.ArgumentError, match=message):
        _graph().visualize(tmp_path / f"g{ending}", **options)


def test_a_path_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(OSError, match="no_such_folder"):
        _graph().visualize(tmp_path / "no_such_folder" / "g.svg")


def test_a_notebook_shows_graphs_and_executables():
    for shown in (_graph(), _executable()):
        assert ElementTree.fromstring(shown._repr_svg_()).tag == f"{SVG}svg"
        assert ElementTree.fromstring(shown._repr_html_())[0].tag == f"{SVG}svg"


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
        "for ending in ('svg', 'png', 'pdf', 'dot', 'mmd', 'graphml'):\n"
        "    print(e.visualize(sys.argv[1] + '/g.' + ending).read_bytes())\n"
    )
    pictures = {
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)],
            capture_output=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("0", "1")
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


# PNG and PDF


def _image(path):
    from PIL import Image

    with Image.open(path) as image:
        return image.copy()


@pytest.mark.parametrize("label", HOSTILE, ids=range(len(HOSTILE)))
def test_png_and_pdf_take_any_name(label, tmp_path):
    scene = paint(arrange(_hostile(label)), LIGHT, title=label)
    (tmp_path / "g.png").write_bytes(to_png(scene))
    image = _image(tmp_path / "g.png")
    assert image.size == (round(2 * scene.width), round(2 * scene.height))
    made = to_pdf(scene)
    assert made.startswith(b"%PDF-1.7\n")
    assert made.endswith(b"%%EOF\n")
    _check_pdf(made)


def _check_pdf(made):
    """Every object lies where the table says, and every stream is as long as it says."""
    start = int(made.split(b"startxref\n")[1].split()[0])
    assert made[start : start + 4] == b"xref"
    places = re.findall(rb"(\d{10}) 00000 n ", made[start:])
    for number, place in enumerate(places, 1):
        assert made[int(place) :].startswith(f"{number} 0 obj\n".encode())
    streams = list(re.finditer(rb"/Length (\d+) [^>]*>>\nstream\n", made))
    assert len(streams) == 5  # the page, and for each of two fonts its file and its map
    for found in streams:
        end = found.end() + int(found[1])
        assert made[end : end + 10] == b"\nendstream"
        zlib.decompress(made[found.end() : end])


def test_png_draws_boxes_and_text(tmp_path):
    graph = _graph()
    image = _image(graph.visualize(tmp_path / "g.png"))
    colours = {colour for _, colour in image.getcolors(1 << 24)}
    for phase in LIGHT.phases.values():
        assert tuple(int(phase.fill[i : i + 2], 16) for i in (1, 3, 5)) in colours
    assert any(max(colour) < 60 for colour in colours)  # text
    assert len(colours) > 300  # smooth edges


@pytest.mark.skipif(not shutil.which("pdftotext"), reason="pdftotext is not installed")
def test_the_text_of_a_pdf_can_be_copied(tmp_path):
    path = _executable().visualize(tmp_path / "g.pdf")
    made = subprocess.run(["pdftotext", path, "-"], capture_output=True, check=True)
    text = made.stdout.decode()
    for word in ("tanh", "a.T @ b", "f64[4,3]", "multiply(·, 0.1)", "forward"):
        assert word in text


def test_the_font_of_pictures_has_the_characters_that_they_write():
    for bold in (False, True):
        assert {ord(c) for c in "azAZ09·…×→↓↑∂µé\ufffd"} <= set(glyphs_of(bold))


def test_the_font_is_as_wide_as_boxes_expect():
    from PIL import ImageFont

    for bold in (False, True):
        font = ImageFont.truetype(io.BytesIO(data_of(bold)), 100)
        assert font.getlength("abcdefghij") / 1000 == pytest.approx(ADVANCE, abs=1e-3)
        assert ADVANCE <= units.ADVANCE


# levels, repeats, measures


def _deep(layers=5, width=6):
    def loss(ws, x):
        for i, w in enumerate(ws):
            with gd.scope(f"layer {i}"):
                h = np.tanh(x @ w)
                x = x + h * np.exp(-h) + np.sin(h) * np.cos(h)
        return np.sum(x)

    def step(ws, x):
        value, gradients = gd.value_and_grad(loss)(ws, x)
        return value, [w - 0.1 * g for w, g in zip(ws, gradients, strict=True)]

    return gd.trace(step, [gd.spec((width, width))] * layers, gd.spec((8, width)))


def test_equal_layers_are_drawn_once_with_their_count(tmp_path):
    drawing = draw(_deep(8))
    once = folded(drawing)
    counts = [band.count for band in once.bands if band.count > 1]
    assert counts
    assert counts[0] >= 5
    assert len(once.items) < len(drawing.items) - 3 * 10
    keys = {item.key for item in once.items}
    assert keys < {item.key for item in drawing.items}
    assert {key for edge in once.edges for key in edge} <= keys
    text = _deep(8).visualize(tmp_path / "g.svg").read_text(encoding="utf-8")
    assert f"×{counts[0]}" in text


def test_layers_that_differ_are_all_drawn():
    widths = [gd.spec((a, b)) for a, b in zip(range(3, 16), range(4, 17), strict=True)]

    def loss(ws, x):
        for w in ws:
            x = np.tanh(x @ w) * 2.0 + np.exp(x @ w)
        return np.sum(x)

    drawing = draw(gd.trace(gd.grad(loss), widths, gd.spec((2, 3))))
    assert len(drawing.items) > 150
    assert folded(drawing) is drawing


@pytest.mark.parametrize("level", ["kernel", "scope"])
def test_a_level_has_fewer_boxes_and_no_edge_between_them_is_lost(level):
    executable = _executable()
    labelled = {label: node for node, label in executable.optimized.labels.items()}
    kernels = [Kernel(k.name, [labelled[n] for n in k.nodes]) for k in executable.kernels]
    drawing = draw(executable.optimized, kernels)
    less = collapsed(drawing, level)
    assert len(less.items) < len(drawing.items)
    assert not less.groups
    assert sum(item.count for item in less.items) == sum(item.count for item in drawing.items)
    assert {item.kind for item in less.items} >= {level}
    keys = {item.key for item in less.items}
    assert {key for edge in less.edges for key in edge} <= keys
    arrange(less)


def test_a_profile_colours_kernels_by_their_time(tmp_path):
    executable = _executable()
    seconds = {kernel.name: 1e-6 * 10**i for i, kernel in enumerate(executable.kernels)}
    path = executable.visualize(tmp_path / "g.svg", color="time", profile=seconds, level="kernel")
    text = path.read_text(encoding="utf-8")
    assert "1 µs" in text
    assert LIGHT.hot in text
    with pytest.raises(gd.ArgumentError, match="profile= has a time of 'k9', which is no kernel"):
        executable.visualize(tmp_path / "g.svg", profile={"k9": 1.0})
    with pytest.raises(gd.ArgumentError, match=r"profile= takes the report of executable\.profile"):
        executable.visualize(tmp_path / "g.svg", profile=3)
    other = gd.compile(np.exp).lower(np.ones(3)).profile(np.ones(3), calls=1)
    with pytest.raises(gd.ArgumentError, match="this profile is not of this executable"):
        executable.visualize(tmp_path / "g.svg", profile=other)
    args = np.ones((4, 3)), np.ones((8, 4)), np.ones((8, 3))
    report = executable.profile(*args, calls=1)
    text = executable.visualize(tmp_path / "g.svg", color="time", profile=report).read_text()
    assert LIGHT.hot in text


@pytest.mark.skipif(not shutil.which("dot"), reason="Graphviz is not installed")
def test_graphviz_lays_out_on_request(tmp_path):
    text = _graph().visualize(tmp_path / "g.svg", layout="dot").read_text(encoding="utf-8")
    assert "tanh" in text
    assert ElementTree.fromstring(text).tag == f"{SVG}svg"


def test_graphviz_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(gd.ArgumentError, match="layout='dot' needs the program dot of Graphviz"):
        _graph().visualize(tmp_path / "g.svg", layout="dot")


def test_two_thousand_nodes_take_a_moment(tmp_path):
    def f(x):
        for i in range(500):
            x = np.tanh(x * 1.01) + np.sin(x) * (i + 1.0)
        return np.sum(x)

    graph = gd.trace(f, gd.spec((4,)))
    drawing = draw(graph)
    assert len(drawing.items) > 2000
    start = process_time()
    picture = arrange(draw(graph))
    assert process_time() - start < 4  # 2 s of one core of the machine where it was measured
    assert picture.height < 4 * picture.width  # wrapped into columns


# the command


def test_the_command_draws_a_function(tmp_path, capsys):
    (tmp_path / "model.py").write_text("import numpy as np\ndef f(x): return np.sum(np.tanh(x))\n")
    path = tmp_path / "g.svg"
    status = cli.main(
        ["visualize", f"{tmp_path}/model.py:f", "--arg", "f32[3]", "--grad", "-o", str(path)]
    )
    assert status == 0
    assert capsys.readouterr().out == f"{path}\n"
    assert "tanh" in path.read_text(encoding="utf-8")
    wrong = ["visualize", f"{tmp_path}/model.py:f", "--arg", "f32[3]", "-o", str(tmp_path / "g.x")]
    assert cli.main(wrong) == 1
    assert "the name has to end in one of .svg" in capsys.readouterr().err
