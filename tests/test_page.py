"""The interactive page, in a real Chromium without a network: what is drawn, and what it does."""

import re
import shutil
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import optree
import pytest

import graphdl as gd
from graphdl.compiler import fuse, pipeline
from graphdl.explain.collect import explained
from graphdl.graph import Graph
from graphdl.kernels import emit, memory
from graphdl.visualize.document import Compiled, document
from graphdl.visualize.page import to_html
from graphdl.visualize.teaching import teach
from tests.pages import documents_in

F32 = "float32"
HOSTILE = (
    "<script>throw 1</script>",
    "</script><b>",
    "]]>",
    "\"'`",
    "%0",
    "naïve ∂ 漢字 \u202e",
    "\x00\x1b",
)


# --- what is drawn ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawn:
    """A page in a file, and the graph that it shows."""

    path: str
    graph: Graph
    document: dict[str, Any]


def _planned(graph: Graph) -> tuple[Graph, Compiled]:
    """What an executable knows of a graph, without native code: that would take minutes."""
    passes = pipeline.optimise(graph)
    last = passes[-1][1]
    program = emit.emit(last, fuse.fuse(last))
    plan = memory.plan(program)
    launches = [launch for launch in program.launches if not memory.is_idle(launch, plan)]
    shared = [launch.iterations > 1 for launch in launches]
    found = Compiled(passes, launches, shared, plan, explained(graph, program, plan))
    return last, found


def _mlp() -> Graph:
    def loss(params, x, y):
        h = x
        for w, b in params[:-1]:
            h = np.tanh(h @ w + b)
        w, b = params[-1]
        return gd.losses.softmax_cross_entropy(h @ w + b, y)

    def step(params, x, y):
        value, grads = gd.value_and_grad(loss)(params, x, y)
        return optree.tree_map(lambda p, g: p - 0.1 * g, params, grads), value

    sizes = [784, 512, 512, 10]
    params = [(gd.spec((a, b), F32), gd.spec(b, F32)) for a, b in pairwise(sizes)]
    return gd.trace(step, params, gd.spec((256, 784), F32), gd.spec(256, "int64"))


def _transformer(blocks: int) -> Graph:
    def norm(x, gain):
        centred = x - np.mean(x, axis=-1, keepdims=True)
        return centred / np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + 1e-5) * gain

    def block(p, x):
        with gd.scope("attention"):
            h = norm(x, p["norm"])
            scores = (h @ p["q"]) @ (h @ p["k"]).T / 4.0
            weights = np.exp(scores - np.max(scores, axis=-1, keepdims=True))
            x = x + weights / np.sum(weights, axis=-1, keepdims=True) @ (h @ p["v"]) @ p["out"]
        with gd.scope("mlp"):
            u = norm(x, p["norm2"]) @ p["up"]
            return x + 0.5 * u * (1 + np.tanh(0.8 * (u + 0.045 * u**3))) @ p["down"]

    def loss(params, x, y):
        for i, p in enumerate(params):
            with gd.scope(f"block {i}"):
                x = block(p, x)
        return np.mean((x - y) ** 2)

    def step(params, means, x, y):
        value, grads = gd.value_and_grad(loss)(params, x, y)
        means = optree.tree_map(lambda m, g: 0.9 * m + g, means, grads)
        return optree.tree_map(lambda p, m: p - 0.01 * m, params, means), means, value

    square = dict.fromkeys(("q", "k", "v", "out"), gd.spec((16, 16), F32))
    wide = {"up": gd.spec((16, 64), F32), "down": gd.spec((64, 16), F32)}
    params = [{**square, **wide, "norm": gd.spec(16, F32), "norm2": gd.spec(16, F32)}] * blocks
    data = gd.spec((32, 16), F32)
    return gd.trace(step, params, params, data, data)


def _teaching() -> Graph:
    loss = lambda x, w, b, y: np.abs(x * w + b - y)  # noqa: E731
    return gd.trace(gd.value_and_grad(loss, (1, 2)), 2.0, 3.0, 1.0, 4.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pages")


def _written(folder, name: str, graph: Graph, found: Compiled | None = None) -> Drawn:
    facts = document(graph, name, compiled=found)
    path = folder / f"{name}.html"
    path.write_text(to_html(facts), encoding="utf-8")
    return Drawn(path.as_uri(), graph, facts)


@pytest.fixture(scope="module")
def mlp(folder):
    return _written(folder, "mlp", *_planned(_mlp()))


@pytest.fixture(scope="module")
def transformer(folder):
    return _written(folder, "transformer", *_planned(_transformer(12)))


@pytest.fixture(scope="module")
def teaching(folder):
    return _written(folder, "teaching", _teaching())


# --- the browser --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@dataclass
class Opened:
    """A page in the browser, and what it has complained about."""

    page: Any
    troubles: list[str]

    def run(self, script: str, argument: Any = None) -> Any:
        return self.page.evaluate(script, argument)

    def wait(self, script: str) -> None:
        """Until it gives true; Playwright's own way evaluates text, which pages forbid."""
        for _ in range(2000):
            if self.run(script):
                return
            self.page.wait_for_timeout(10)
        raise AssertionError(f"never: {script}")


@pytest.fixture
def opened(browser):
    """Open a page; at the end of the test, nothing may have gone wrong, nothing been asked for."""
    all_opened = []

    def open_(drawn: Drawn, **options: Any) -> Opened:
        context = browser.new_context(
            viewport={"width": 1400, "height": 900}, offline=True, **options
        )
        page = context.new_page()
        found = Opened(page, [])
        page.on("console", lambda message: found.troubles.append(message.text))
        page.on("pageerror", lambda error: found.troubles.append(str(error)))
        page.on("request", lambda request: found.troubles.append(request.url))
        page.goto(drawn.path)
        found.wait("() => window.graphdl !== undefined")
        assert found.troubles.pop(0) == drawn.path
        all_opened.append((context, found))
        return found

    yield open_
    for context, found in all_opened:
        assert found.troubles == []
        context.close()


#: The rectangles of what is drawn, in pixels of the screen: [what, left, top, right, bottom].
RECTS = """() => [...document.querySelectorAll("#main-pane :is(.box, .closed)")].map(element => {
  const r = element.querySelector("rect:not(.under)").getBoundingClientRect();
  const {box, group} = element.dataset;
  return [box === undefined ? `group ${group}` : `box ${box}`, r.left, r.top, r.right, r.bottom];
})"""

#: The middle of each kernel, open or closed, across.
MIDDLES = """() => [...document.querySelectorAll("#main-pane .group")].map(element => {
  const r = element.querySelector("rect:not(.under)").getBoundingClientRect();
  return [element.dataset.group, Math.round(5 * (r.left + r.right)) / 10];
})"""

#: Whether the picture of the last graph has been unpacked.
IS_READ = """() =>
  Object.getOwnPropertyDescriptor(graphdl.model.doc.graphs.at(-1), "picture").get === undefined"""

#: Texts that reach out of their boxes.
OUTSIDE = """() => [...document.querySelectorAll("#main-pane :is(.box, .closed)")].flatMap(box => {
  const r = box.querySelector("rect:not(.under)").getBoundingClientRect();
  return [...box.querySelectorAll("text")].filter(text => {
    const t = text.getBoundingClientRect();
    const inside = t.left >= r.left && t.right <= r.right && t.top >= r.top && t.bottom <= r.bottom;
    return t.width && !inside;
  }).map(text => text.textContent);
})"""


def _overlaps(rects):
    """Pairs that overlap by more than a rounding error, found by sweeping down."""
    found, open_ = [], []
    for rect in sorted(rects, key=lambda rect: rect[2]):
        name, left, top, right, bottom = rect
        open_ = [other for other in open_ if other[4] > top + 0.3]
        found += [
            (name, other[0])
            for other in open_
            if other[1] < right - 0.3 and left < other[3] - 0.3 and bottom > top
        ]
        open_.append(rect)
    return found


def _columns(rects, scale):
    """The middle of each box, across."""
    return {name: round((left + right) / 2 / scale, 1) for name, left, _, right, _ in rects}


# --- what holds ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "transformer", "teaching"])
def test_a_page_opens_offline_and_draws_every_op(name, opened, request):
    drawn = request.getfixturevalue(name)
    page = opened(drawn)
    counts = page.run(
        "() => ({level: graphdl.$('level').value, "
        "facts: document.getElementById('panel').textContent})"
    )
    size = len(drawn.graph.nodes)
    assert counts["level"] == ("scope" if size > 2000 else "kernel" if size > 150 else "op")
    operations = f"operations{len(drawn.graph.operations):,}"
    assert operations in counts["facts"]
    if drawn.document["groups"]:
        assert f"kernels{len(drawn.document['kernels']):,}" in counts["facts"]
    if counts["level"] == "scope":  # its ops are not even read before somebody looks at them
        assert page.run(IS_READ) is False
    page.run("() => graphdl.setLevel('op')")
    assert page.run(IS_READ)
    shown = page.run("""() => [...document.querySelectorAll("#main-pane .box")].map(element =>
        graphdl.view.picture.boxes[element.dataset.box].node)""")
    nodes = drawn.document["graphs"][-1]["nodes"]
    numbers = set(nodes) - set(shown)
    by_id = dict(zip(nodes, drawn.graph.nodes, strict=True))
    assert set(shown) <= set(nodes)
    depends = _depends(drawn.graph)
    assert not [by_id[id] for id in numbers if depends[by_id[id]]]  # only numbers have no box
    frames = page.run("() => document.querySelectorAll('#main-pane .open').length")
    in_picture = drawn.document["graphs"][-1]["picture"]["groups"]
    assert frames == sum("group" in group for group in in_picture)


def _depends(graph):
    """Whether each node depends on an input."""
    found = {}
    for node in graph.nodes:
        found[node] = node in graph.inputs or any(found[operand] for operand in node.inputs)
    return found


@pytest.mark.parametrize("name", ["mlp", "transformer", "teaching"])
def test_no_two_boxes_overlap_and_texts_stay_inside(name, opened, request):
    page = opened(request.getfixturevalue(name))
    for level in ("scope", "kernel", "op"):
        page.run(
            "level => { graphdl.view.setLevel(level); graphdl.view.zoom(1 / graphdl.view.scale); }",
            level,
        )
        rects = page.run(RECTS)
        assert len(rects) > 3
        assert _overlaps(rects) == []
        assert page.run(OUTSIDE) == []


def test_opening_and_closing_moves_nothing_sideways(mlp, opened):
    page = opened(mlp)
    page.run("() => { graphdl.view.scale = 1; graphdl.view.place(); }")
    before = page.run(RECTS)
    offset = page.run("() => [graphdl.view.x, graphdl.view.y]")
    count = page.run("() => graphdl.view.picture.groups.length")
    middles = dict(page.run(MIDDLES))
    heights = {page.run("() => graphdl.view.shape.height")}
    for at in [*range(count), *reversed(range(count))]:
        page.run("at => graphdl.toggle(at)", at)
        after = page.run(RECTS)
        was, now = _columns(before, 1), _columns(after, 1)
        assert {key: x for key, x in now.items() if key in was} == {
            key: x for key, x in was.items() if key in now
        }
        for group, middle in page.run(MIDDLES):
            assert middle == pytest.approx(middles.setdefault(group, middle), abs=0.6)
        assert _overlaps(after) == []
        heights.add(page.run("() => graphdl.view.shape.height"))
    assert len(heights) > 2  # closing does make room
    page.run(
        "([x, y]) => { graphdl.view.x = x; graphdl.view.y = y; graphdl.view.place(); }", offset
    )
    assert page.run(RECTS) == before


def test_every_kernel_shows_its_source_and_the_users_lines(mlp, opened):
    page = opened(mlp)
    for group in range(len(mlp.document["groups"])):
        page.run("group => graphdl.select({group})", group)
        text = page.page.inner_text("#panel")
        assert "def kernel(" in text
        assert re.search(r"test_page\.py:\d+", text)
        assert "estimated" in text
    assert "Why it is a kernel of its own" in text
    assert mlp.document["borders"][0]["why"] in {b["why"] for b in mlp.document["borders"]}


def test_a_gradient_names_what_it_is_the_gradient_of(mlp, opened):
    page = opened(mlp)
    ids = {
        i: node["gradient_of"]
        for i, node in enumerate(mlp.document["nodes"])
        if "gradient_of" in node
    }
    last = set(mlp.document["graphs"][-1]["nodes"])
    id, (of, *_) = next((i, ofs) for i, ofs in ids.items() if i in last and ofs[0] in last)
    page.run("node => graphdl.select({node}, true)", id)
    text = page.page.inner_text("#panel")
    assert "Gradient of" in text
    page.page.click("#panel h3:text-is('Gradient of') + ul button")
    assert page.run("() => graphdl.selected.node") == of
    assert "Its gradient" in page.page.inner_text("#panel")


def test_a_click_selects_and_a_double_click_closes(mlp, opened):
    page = opened(mlp)
    page.page.click("#main-pane .box.op rect")
    assert page.run("() => graphdl.selected.node !== undefined")
    assert page.run("() => document.querySelectorAll('.edge.near').length") > 0
    name = page.page.locator("#main-pane .header").first
    closed = page.run("() => document.querySelectorAll('.closed').length")
    name.dblclick()
    assert page.run("() => document.querySelectorAll('.closed').length") == closed + 1


def test_hovering_tells_what_it_is(mlp, opened):
    page = opened(mlp)
    page.page.hover("#main-pane .box.op >> nth=0")
    text = page.page.inner_text("#tip")
    assert "float32" in text
    assert "test_page.py:" in text
    assert "estimated" in text


def test_search_finds_ops_shapes_and_lines(mlp, opened):
    page = opened(mlp)
    page.run("() => graphdl.setLevel('kernel')")
    page.page.keyboard.press("/")
    page.page.keyboard.type("tanh 256x512")
    hits = page.run("() => graphdl.hits.map(id => graphdl.searchable(id))")
    assert hits
    assert all("tanh" in hit and "256x512" in hit for hit in hits)
    page.page.keyboard.press("Enter")
    assert page.run("() => graphdl.selected.node") == page.run("() => graphdl.hits[0]")
    assert page.run("() => graphdl.view.elementsOf(graphdl.hits[0])[0].classList.contains('box')")
    page.page.keyboard.press("Escape")
    assert page.run("() => graphdl.hits.length") == 0


def test_the_slider_shows_what_is_new_and_what_goes(mlp, opened):
    page = opened(mlp)
    stages = [graph["name"] for graph in mlp.document["graphs"]]
    assert stages[0] == "trace"
    assert stages[-1].endswith(", fuse")
    assert page.run("() => document.querySelectorAll('.added').length") == 0  # a calm first view
    for index, name in reversed(list(enumerate(stages))):
        page.page.fill("#pass", str(index))
        assert page.page.inner_text("#pass-name") == name
        assert page.run("() => document.querySelectorAll('.box').length") == len(
            mlp.document["graphs"][index]["picture"]["boxes"]
        )
    assert page.run("() => document.querySelectorAll('.going').length") > 0
    page.page.fill("#pass", "1")
    assert page.run("() => document.querySelectorAll('.added').length") > 0
    assert "Rules that fired" in page.page.inner_text("#panel")


@pytest.mark.parametrize("colour", ["time", "bytes", "flops", "intensity"])
def test_heat_maps_colour_more_by_more(colour, mlp, opened):
    page = opened(mlp)
    page.page.select_option("#colour", colour)
    found = page.run(
        """colour => graphdl.view.boxElements.map((element, at) => {
        const box = graphdl.view.picture.boxes[at];
        const group = box.in === undefined ? undefined : graphdl.view.groupAt(box.in);
        const { fill } = element.querySelector("rect").style;
        return [nodeHeat(graphdl.model, colour, box.node, group), fill];
      }).filter(([value, fill]) => fill)""",
        colour,
    )
    assert len({fill for _, fill in found}) > 2
    light = [int(re.findall(r"\d+", fill)[1]) for value, fill in sorted(found)]  # green falls
    assert light[0] > light[-1]
    assert "estimated" in page.page.inner_text("#legend")


def test_a_click_in_the_memory_finds_the_op(mlp, opened):
    page = opened(mlp)
    at = page.run("() => graphdl.memory.rects.findIndex(rect => rect.phase === 'update')")
    x, y = page.run(
        """at => {
        const { left, top } = document.querySelector("#memory svg").getBoundingClientRect();
        const { x, y, w, h } = graphdl.memory.rects[at];
        return [left + x + w / 2, top + y + h / 2];
      }""",
        at,
    )
    page.page.mouse.move(x, y)
    node = mlp.document["memory"]["values"][at]["node"]
    assert mlp.document["nodes"][node]["op"] in page.page.inner_text("#tip")
    page.page.mouse.click(x, y)
    assert page.run("() => graphdl.selected.node") == node
    assert page.run("() => document.querySelectorAll('#memory .cursor .chosen').length") == 1
    assert "Memory" in page.page.inner_text("#panel")


def test_dark_and_light(mlp, opened):
    dark = opened(mlp, color_scheme="dark")
    assert dark.run("() => document.documentElement.dataset.theme") == "dark"
    shade = "() => getComputedStyle(document.body).backgroundColor"
    before = dark.run(shade)
    dark.page.keyboard.press("d")
    assert dark.run("() => document.documentElement.dataset.theme") == "light"
    assert dark.run(shade) != before


def test_the_keyboard_does_everything(mlp, opened):
    page = opened(mlp)
    press = page.page.keyboard.press
    press("c")
    assert page.run("() => document.querySelectorAll('.open').length") == 0
    press("e")
    assert page.run("() => document.querySelectorAll('.closed').length") == 0
    press("v")
    assert page.run("() => graphdl.view.isOverview")
    press("e")
    press("3")
    assert page.run("() => graphdl.coloured") == "bytes"
    scale = page.run("() => graphdl.view.scale")
    press("+")
    assert page.run("() => graphdl.view.scale") > scale
    press("f")
    press("[")
    assert page.run("() => graphdl.stage.index") == len(mlp.document["graphs"]) - 2
    press("]")
    page.run("() => graphdl.select({group: 0})")
    press(" ")
    assert page.run("() => document.querySelectorAll('.closed').length") == 1
    press("ArrowDown")
    assert page.run("() => graphdl.selected.group") != 0
    press("Escape")
    assert page.run("() => graphdl.selected") is None
    press("?")
    assert page.page.is_visible("#help-dialog")
    press("Escape")
    assert not page.page.is_visible("#help-dialog")


def test_save_as_svg(mlp, opened):
    from xml.etree import ElementTree

    page = opened(mlp)
    page.run("() => graphdl.theme('dark')")
    with page.page.expect_download() as download:
        page.page.keyboard.press("s")
    text = download.value.path().read_text(encoding="utf-8")
    assert download.value.suggested_filename == "mlp.svg"
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    boxes = len(mlp.document["graphs"][-1]["picture"]["boxes"])
    assert text.count('class="title"') == boxes
    assert "var(--" not in text


def test_texts_of_a_large_picture_are_there_when_they_can_be_read(transformer, opened):
    page = opened(transformer)
    page.run("() => { graphdl.setLevel('op'); graphdl.view.scale = 0.1; graphdl.view.render(); }")
    boxes = page.run("() => document.querySelectorAll('#main-pane .box').length")
    texts = "() => document.querySelectorAll('#main-pane .title').length"
    assert boxes > 2000
    assert page.run(texts) == 0
    assert page.run("() => graphdl.svgText().match(/class=.title/g).length") == boxes
    page.run("() => graphdl.view.render()")
    page.run("() => graphdl.view.zoom(10)")
    assert page.run(texts) == boxes


def test_two_graphs_side_by_side(mlp, teaching, opened, folder):
    page = opened(mlp)
    page.page.keyboard.press("b")
    assert "only right" in page.page.inner_text("#difference")
    assert page.run("() => document.querySelectorAll('#other-pane .going').length") > 0
    page.run("() => graphdl.select({node: graphdl.stage.nodes[0]})")
    assert page.run("() => document.querySelectorAll('#other-pane .selected').length") > 0
    page.page.set_input_files("#other-pane input[type=file]", folder / "teaching.html")
    page.wait("() => graphdl.documents.length === 2")
    shown = page.run("() => document.querySelectorAll('#other-pane .box').length")
    assert shown == len(teaching.document["graphs"][0]["picture"]["boxes"])
    page.page.keyboard.press("b")
    assert page.run("() => document.querySelectorAll('#other-pane .box').length") == 0


def test_a_page_that_was_asked_to_compare_opens_with_both(opened, tmp_path):
    graph = gd.trace(lambda x: np.sum(np.tanh(x)), gd.spec(3))
    executable = gd.compile(lambda x: np.sum(np.tanh(x) ** 2)).lower(gd.spec(3))
    graph.visualize(tmp_path / "both.html", compare=executable)
    facts = document(graph, "both")
    page = opened(Drawn((tmp_path / "both.html").as_uri(), graph, facts))
    boxes = "pane => [...document.querySelectorAll(pane + ' .title')].map(t => t.textContent)"
    assert "tanh" in page.run(boxes, "#main-pane")
    assert "square" in page.run(boxes, "#other-pane")
    assert "only right" in page.page.inner_text("#difference")
    for name, what in (("x.svg", executable), ("x.html", lambda x: x), ("x.json", graph)):
        with pytest.raises(gd.ArgumentError, match=r"compare= (shows two graphs|takes a graph)"):
            graph.visualize(tmp_path / name, compare=what)
        assert not (tmp_path / name).exists()


def test_an_overview_leads_into_its_parts(transformer, opened):
    page = opened(transformer)
    cells = len(transformer.document["graphs"][-1]["overview"]["boxes"])
    assert page.run("() => document.querySelectorAll('#main-pane .box').length") == cells
    assert cells < 100
    page.page.dblclick("#main-pane .box.backward >> nth=3")
    assert page.run("() => document.querySelectorAll('#main-pane .closed').length") > 20
    page.page.keyboard.press("v")
    page.page.keyboard.press("/")
    page.page.keyboard.type("block 7 tanh")
    page.page.keyboard.press("Enter")
    assert page.run("() => graphdl.model.nodes[graphdl.selected.node].op") == "tanh"
    assert (
        page.run(
            "() => graphdl.view.elementsOf(graphdl.selected.node)[0].getBoundingClientRect().width"
        )
        > 20
    )


def test_numbers_on_every_edge_of_a_small_graph(opened, folder):
    values = (2.0, 3.0, 1.0, 9.0)
    graph = gd.trace(lambda x, w, b, y: np.abs(x * w + b - y), *values)
    drawing, notes = teach(graph, values)
    facts = document(graph, "numbers", taught=(drawing, notes))
    (folder / "numbers.html").write_text(to_html(facts), encoding="utf-8")
    page = opened(Drawn((folder / "numbers.html").as_uri(), graph, facts))
    labels = page.run("() => [...document.querySelectorAll('.label')].map(l => l.textContent)")
    assert len(labels) == sum(item.kind == "label" for item in drawing.items)
    assert any("-1 × 3" in label for label in labels)
    panel = page.page.inner_text("#panel")
    assert all(note in panel for note in notes)
    assert page.run(OUTSIDE) == []
    assert _overlaps(page.run(RECTS)) == []


def test_hostile_names_are_text(opened, folder):
    names = (*HOSTILE, "x" * 10_000)
    graph = gd.trace(
        lambda params: sum(np.sum(v * 2.0) for v in params.values()),
        dict.fromkeys(names, gd.spec(3)),
    )
    drawn = _written(folder, "hostile", graph)
    drawn.document["name"] = HOSTILE[0]
    page = opened(drawn)
    assert (
        page.run("() => document.querySelectorAll('b script, #panel script, svg script').length")
        == 0
    )
    shown = page.run(
        "() => [...document.querySelectorAll('#main-pane .title')].map(t => t.textContent)"
    )
    assert any("script>" in text for text in shown)
    assert all(len(text) <= 40 for text in shown)
    assert page.run(OUTSIDE) == []
    for node in range(len(names)):
        page.run("node => graphdl.select({node})", node)
    assert "x" * 10_000 in page.run("() => document.getElementById('panel').textContent")
    page.run("() => graphdl.svgText()")
    assert documents_in(to_html(drawn.document)) == [drawn.document]
    text = to_html(drawn.document)
    assert all(name not in text for name in HOSTILE if not name.startswith("%"))
