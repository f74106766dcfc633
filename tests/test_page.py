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
from graphdl.visualize.theme import THEMES
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


#: As a page was when it was opened, but that somebody may have looked at the passes.
AS_OPENED = """() => {
  if (graphdl.other) graphdl.compare(false);
  graphdl.go(graphdl.model.stages.length - 1);
  graphdl.select(undefined);
  graphdl.$("search").value = "";
  graphdl.search("");
  graphdl.colour("phase");
  graphdl.theme("light");
  graphdl.setLevel(startLevel(graphdl.stage));
  graphdl.view.fit();
  document.activeElement.blur();
}"""


@pytest.fixture(scope="module")
def kept():
    """Pages that stay open from test to test, by their addresses: to open one takes a while."""
    found = {}
    yield found
    for opened in found.values():
        opened.page.context.close()


@pytest.fixture
def opened(browser, kept):
    """Open a page; at the end of the test, nothing may have gone wrong, nothing been asked for.

    One that other tests have had, put back as it was; with `anew` or options, one of its own.
    """
    all_opened = []

    def open_(drawn: Drawn, anew: bool = False, **options: Any) -> Opened:
        isolated = anew or options
        if not isolated and drawn.path in kept:
            kept[drawn.path].run(AS_OPENED)
            all_opened.append((None, kept[drawn.path]))
            return kept[drawn.path]
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
        if not isolated:
            kept[drawn.path] = found
        all_opened.append((context if isolated else None, found))
        return found

    yield open_
    for context, found in all_opened:
        assert found.troubles == []
        if context is not None:
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


#: Edges whose ends are not on the borders of what they join, by half a pixel.
LOOSE = """() => {
  const onBorder = (element, { x, y }) => {
    const r = element.querySelector("rect:not(.under)").getBoundingClientRect();
    const [left, right, top, bottom] = [x - r.left, r.right - x, y - r.top, r.bottom - y];
    return Math.min(left, right, top, bottom) > -0.6 && Math.min(top, bottom, left, right) < 0.6;
  };
  return graphdl.view.edgeElements.filter(({ element, tail, head, from, to }) => {
    const at = (length) => element.getPointAtLength(length).matrixTransform(element.getScreenCTM());
    return !onBorder(graphdl.view.endElement(tail, from), at(0))
      || !onBorder(graphdl.view.endElement(head, to), at(element.getTotalLength()));
  }).map(({ from, to }) => [from, to]);
}"""

#: Boxes that reach out of the frame of their open group, or over its name.
ASTRAY = """() => [...document.querySelectorAll("#main-pane .box")].filter(element => {
  const frame = graphdl.view.picture.boxes[element.dataset.box].in;
  const open = frame !== undefined && graphdl.view.groupElements[frame];
  if (!open) return false;
  const outer = open.querySelector("rect").getBoundingClientRect();
  const inner = element.querySelector("rect").getBoundingClientRect();
  const name = HEADER * graphdl.view.scale;
  return inner.left < outer.left || inner.right > outer.right || inner.bottom > outer.bottom
    || inner.top < outer.top + name - 0.3;
}).map(element => element.dataset.box)"""


def _columns(rects, scale):
    """The middle of each box, across."""
    return {name: round((left + right) / 2 / scale, 1) for name, left, _, right, _ in rects}


# --- what holds ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "transformer", "teaching"])
def test_a_page_opens_offline_and_draws_every_op(name, opened, request):
    drawn = request.getfixturevalue(name)
    page = opened(drawn, anew=True)
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


def test_the_page_reads_every_fact_of_every_record(mlp, opened):
    page = opened(mlp)
    read = """([what, names]) => {
      const { nodes, memory } = graphdl.model.doc;
      const all = { nodes, values: memory.values, edges: graphdl.stage.picture.edges };
      return all[what].map(one => Object.fromEntries(names.map(name => [name, one[name]])));
    }"""
    last = mlp.document["graphs"][-1]["picture"]
    for what, records in (
        ("nodes", mlp.document["nodes"]),
        ("values", mlp.document["memory"]["values"]),
        ("edges", last["edges"]),
    ):
        names = list(dict.fromkeys(name for record in records for name in record))
        found = page.run(read, [what, names])
        assert [{k: v for k, v in one.items() if v is not None} for one in found] == records


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
        assert page.run(ASTRAY) == []
        if len(rects) < 2000:  # of more, they take seconds
            assert page.run(LOOSE) == []


def test_opening_and_closing_moves_nothing_sideways(mlp, opened):
    page = opened(mlp)
    page.run("() => { graphdl.view.scale = 1; graphdl.view.place(); }")
    before = page.run(RECTS)
    offset = page.run("() => [graphdl.view.x, graphdl.view.y]")
    count = page.run("() => graphdl.view.picture.groups.length")
    middles = dict(page.run(MIDDLES))
    heights = {page.run("() => graphdl.view.shape.height")}
    for at in [*reversed(range(count)), *range(count)]:  # kernels, then what is around them
        top = "at => graphdl.view.groupElements[at]?.getBoundingClientRect().top"
        held = page.run(top, at)
        page.run("at => graphdl.toggle(at)", at)
        here = page.run(top, at)
        if held is not None and here is not None:  # no closed group hides it, no band shows it
            assert here == pytest.approx(held, abs=0.6)
        after = page.run(RECTS)
        was, now = _columns(before, 1), _columns(after, 1)
        assert {key: x for key, x in now.items() if key in was} == {
            key: x for key, x in was.items() if key in now
        }
        for group, middle in page.run(MIDDLES):
            assert middle == pytest.approx(middles.setdefault(group, middle), abs=0.6)
        assert _overlaps(after) == []
        assert page.run(LOOSE) == []
        assert page.run(ASTRAY) == []
        heights.add(page.run("() => graphdl.view.shape.height"))
    assert len(heights) > 2  # closing does make room
    page.run(
        "([x, y]) => { graphdl.view.x = x; graphdl.view.y = y; graphdl.view.place(); }", offset
    )
    assert page.run(RECTS) == before


def test_a_closed_group_is_a_small_box_in_its_own_middle(mlp, opened):
    """Worked out by hand: a group of three rows between a box above, one below and one beside."""
    box = {"w": 100, "h": 40}
    picture = {
        "width": 700,
        "height": 500,
        "groups": [{"group": 0, "x": 100, "y": 100, "w": 300, "h": 300}],
        "boxes": [
            box | {"x": 200, "y": 20},
            box | {"x": 150, "y": 140, "in": 0},
            box | {"x": 250, "y": 220, "in": 0},
            box | {"x": 200, "y": 340, "in": 0},
            box | {"x": 200, "y": 440},
            box | {"x": 550, "y": 330},
        ],
        "edges": [
            {"from": 0, "to": 1, "path": [250, 60, 250, 80, 200, 80, 200, 140]},
            {"from": 1, "to": 2, "path": [200, 180, 200, 200, 300, 200, 300, 220]},
            {"from": 3, "to": 4, "path": [250, 380, 250, 440]},
        ],
    }
    fold = "([picture, closed, wide]) => folded(picture, new Set(closed), () => wide)"
    page = opened(mlp)
    open_ = page.run(fold, [picture, [], 90])
    assert [(b["x"], b["y"]) for b in open_["boxes"]] == [
        (b["x"], b["y"]) for b in picture["boxes"]
    ]
    assert len(open_["edges"]) == 3
    closed = page.run(fold, [picture, [0], 90])
    # needed: the closed box, 231 to 269, and the box beside it, 330 to 370, each with 13 around it
    gaps = [(100, 218), (282, 317), (383, 400)]
    moved = lambda y: y - sum(min(max(y - top, 0), end - top) for top, end in gaps)  # noqa: E731
    assert closed["groups"] == [{"x": 205, "y": moved(231), "w": 90, "h": 38}]
    assert [b and b["y"] for b in closed["boxes"]] == [20, None, None, None, moved(440), moved(330)]
    assert [b["x"] for b in closed["boxes"] if b] == [200, 200, 550]
    assert closed["height"] == 500 - (118 + 35 + 17)
    first, last = closed["edges"]
    assert (first["tail"], first["head"], last["tail"], last["head"]) == (-1, 0, 0, -1)
    assert first["points"][0] == [250, 60]
    assert first["points"][-1] == [215, moved(231)]  # within 10 of the box's corner
    assert last["points"] == [[250, moved(269)], [250, moved(440)]]
    wide = page.run(fold, [picture, [0], 900])
    assert wide["groups"] == [{"x": 100, "y": moved(231), "w": 300, "h": 38}]  # no wider than open


def test_every_kernel_shows_its_source_and_the_users_lines(mlp, opened):
    page = opened(mlp)
    for group in range(len(mlp.document["groups"])):
        page.run("group => graphdl.select({group})", group)
        text = page.page.inner_text("#panel")
        assert "def kernel(" in text
        own = mlp.document["groups"][group]["kernels"]
        borders = [(b["before"] in own, b["after"] in own) for b in mlp.document["borders"]]
        assert text.count("not one with what follows: ") == borders.count((True, False))
        assert text.count("not one with what comes before: ") == borders.count((False, True))
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


def test_wheel_and_mouse_move_what_is_under_them(mlp, opened):
    page = opened(mlp)
    middle = """() => {
      const r = document.querySelector("#main-pane .box").getBoundingClientRect();
      return [r.left + r.width / 2, r.top + r.height / 2, r.width];
    }"""
    x, y, width = page.run(middle)
    page.page.mouse.move(x, y)
    page.page.mouse.wheel(0, -300)
    page.wait(f"() => ({middle})()[2] > {width}")
    assert page.run(middle) == pytest.approx([x, y, width * np.exp(300 * 0.0016)], abs=0.5)
    page.page.mouse.down()
    page.page.mouse.move(x + 70, y + 40)
    page.page.mouse.up()
    assert page.run(middle)[:2] == pytest.approx([x + 70, y + 40], abs=0.5)
    assert page.run("() => graphdl.selected") is None  # a drag is no click
    page.page.keyboard.press("f")
    pane = page.run("() => document.getElementById('main-pane').getBoundingClientRect().toJSON()")
    for _, left, top, right, _ in page.run(RECTS):  # its whole width, from the top
        assert pane["left"] <= left < right <= pane["right"]
        assert pane["top"] <= top


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
    page.page.keyboard.press("Enter")
    assert len(hits) > 1
    assert page.run("() => graphdl.selected.node") == page.run("() => graphdl.hits[1]")
    page.page.keyboard.press("Escape")
    assert page.run("() => graphdl.hits.length") == 0


def test_the_slider_shows_what_is_new_and_what_goes(mlp, opened):
    page = opened(mlp, anew=True)
    stages = [graph["name"] for graph in mlp.document["graphs"]]
    assert stages[0] == "trace"
    assert stages[-1].endswith(", fuse")
    assert page.run("() => document.querySelectorAll('.added').length") == 0  # a calm first view
    nodes = [set(graph["nodes"]) for graph in mlp.document["graphs"]]
    for index, name in reversed(list(enumerate(stages))):
        page.page.fill("#pass", str(index))
        assert page.page.inner_text("#pass-name") == name
        marked = page.run("() => [[...graphdl.changes.added], [...graphdl.changes.going]]")
        before, after = nodes[max(index - 1, 0)], nodes[min(index + 1, len(nodes) - 1)]
        # of those that the neighbours lack, without those that are there in another form
        assert set(marked[0]) <= nodes[index] - before
        assert set(marked[1]) <= nodes[index] - after
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


def test_numbers_are_written_as_people_read_them(mlp, opened):
    page = opened(mlp)
    shown = """() => [asBytes(1023), asBytes(1536), asBytes(5 << 20), asCount(1500), asFlops(2.5e9),
      asSeconds(2.5e-7), asSeconds(0.0123), asSeconds(0), asPercent(0.125), digits(1234.5),
      plural(1, "op"), plural(1234, "op"), shortType({ dtype: "float32", shape: [2, 3] }),
      cut("abcdef", 4), cut("abcd", 4)]"""
    assert page.run(shown) == [
        "1023 B", "1.5 KiB", "5 MiB", "1.5 k", "2.5 GFLOP", "250 ns", "12.3 ms", "0 s", "12.5 %",
        "1235", "1 op", "1,234 ops", "f32[2,3]", "abc…", "abcd",
    ]  # fmt: skip


def test_the_roofline_has_the_faster_above_and_the_busier_to_the_right(mlp, opened):
    page = opened(mlp)
    page.run("() => graphdl.select(undefined)")
    found = page.run("""() => [...document.querySelectorAll("#panel circle.point")].map(circle => {
      circle.dispatchEvent(new PointerEvent("click", { bubbles: true }));
      const { flops, bytes, time } = graphdl.model.groups[graphdl.selected.group];
      return [Number(circle.getAttribute("cx")), Number(circle.getAttribute("cy")),
        flops / bytes, flops / time];
    })""")
    assert len(found) > 4
    for one in found:
        for other in found:
            if one[2] > 1.1 * other[2]:
                assert one[0] > other[0]
            if one[3] > 1.1 * other[3]:
                assert one[1] < other[1]


def test_the_memory_is_that_of_the_plan(mlp, teaching, opened):
    memory = mlp.document["memory"]
    page = opened(mlp)
    rects = page.run("() => graphdl.memory.rects.map(({ x, y, w, h }) => [x, y, x + w, y + h])")
    width = page.run("() => document.querySelector('#memory svg').clientWidth")
    step = width / memory["count"]
    for value, (left, _, right, _) in zip(memory["values"], rects, strict=True):
        assert left == pytest.approx(value["first"] * step, abs=0.1)
        assert right == pytest.approx((value["last"] + 1) * step, abs=0.1)
    planned = zip(memory["values"], rects, strict=True)
    bottoms = sorted((value["offset"], -rect[3]) for value, rect in planned if "offset" in value)
    assert [y for _, y in bottoms] == sorted(y for _, y in bottoms)  # the first byte is lowest
    assert len({y for _, y in bottoms}) > 2
    live = opened(teaching).run("() => liveBytes(graphdl.model.doc.memory)")
    values = teaching.document["memory"]["values"]
    assert live == [
        sum(value["bytes"] for value in values if value["first"] <= step <= value["last"])
        for step in range(teaching.document["memory"]["count"])
    ]


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
    tip = page.run("() => document.getElementById('tip').getBoundingClientRect().toJSON()")
    assert 0 <= tip["left"] < tip["right"] <= 1400
    assert 0 <= tip["top"] < tip["bottom"] <= 900
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
    at = "() => centreOf(document.querySelector('#main-pane .selected'))"
    press("ArrowDown")
    assert page.run("() => graphdl.selected.group") != 0
    press("c")
    page.run("() => graphdl.select(graphdl.view.at(graphdl.view.groupElements.find(Boolean)))")
    places = [page.run(at)]
    for key in ("ArrowDown", "ArrowUp", "ArrowRight", "ArrowLeft"):
        press(key)
        places.append(page.run(at))
    (_, y0), (_, y1), (x2, y2), (x3, _), (x4, _) = places
    assert y0 < y1 > y2
    assert x2 < x3 > x4
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
    behind = root.find("{http://www.w3.org/2000/svg}rect")
    assert behind.get("class") == "page"
    assert f".graph .page {{ fill: {THEMES['dark'].page}; stroke: none; }}" in text
    left, top, width, height = map(float, root.get("viewBox").split())
    places = re.findall(r'class="box[^"]*" transform="translate\(([\d.]+) ([\d.]+)\)', text)
    assert len(places) == boxes
    for x, y in places:
        assert left < float(x) < left + width - 20
        assert top < float(y) < top + height - 20


def test_texts_that_nobody_can_read_are_left_out(mlp, opened):
    page = opened(mlp)
    shown = """scale => {
      graphdl.view.zoom(scale / graphdl.view.scale);
      const styles = [".title", ".detail"].map(x => getComputedStyle(document.querySelector(x)));
      return styles.map(style => style.display !== "none");
    }"""
    assert [page.run(shown, scale) for scale in (1, 0.3, 0.1)] == [
        [True, True], [True, False], [False, False],
    ]  # fmt: skip


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
    page = opened(mlp, anew=True)
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
    for pane in ("main-pane", "other-pane"):  # each picture lies in its own half
        fits = page.run(
            "pane => { const part = document.getElementById(pane).getBoundingClientRect();"
            " return [...document.querySelectorAll(`#${pane} .box`)].every(box => {"
            " const r = box.getBoundingClientRect();"
            " return part.left <= r.left && r.right <= part.right; }); }",
            pane,
        )
        assert fits
    for name, what in (("x.svg", executable), ("x.html", lambda x: x), ("x.json", graph)):
        with pytest.raises(gd.ArgumentError, match=r"compare= (shows two graphs|takes a graph)"):
            graph.visualize(tmp_path / name, compare=what)
        assert not (tmp_path / name).exists()


def test_an_overview_leads_into_its_parts(transformer, opened):
    page = opened(transformer, anew=True)
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


def test_without_kernels_the_other_parts_are_closed(opened, folder):
    def steps(x):
        for _ in range(90):
            x = x + 0.1 * np.sin(x) * np.tanh(x) - 0.1 * x * x
        return np.sum(x)

    page = opened(_written(folder, "steps", gd.trace(gd.grad(steps), gd.spec(64))), anew=True)
    assert page.run("() => [graphdl.$('level').value, graphdl.view.isOverview]") == ["scope", True]
    page.run("() => { graphdl.toggle(0); }")  # as a double click on the first part
    shown = page.run(
        "() => [graphdl.$('level').value, graphdl.view.isOverview, graphdl.view.closedGroups.size,"
        " graphdl.stage.picture.groups.length, graphdl.view.closedGroups.has(0)]"
    )
    assert shown == ["op", False, shown[3] - 1, shown[3], False]
    assert 2 < shown[3] < 40
    for key, level in (("v", "scope"), ("c", "op"), ("e", "op")):
        page.page.keyboard.press(key)
        assert page.run("() => graphdl.$('level').value") == level


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
