"""What the page shows, as data: complete, the same in every process, safe to embed."""

import hashlib
import json
import os
import re
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

import graphdl as gd
from graphdl.visualize.arrange import arrange
from graphdl.visualize.document import document, to_json
from graphdl.visualize.drawing import draw
from graphdl.visualize.page import SCRIPTS, to_html
from graphdl.visualize.page.columns import columns, records
from tests.pages import documents_in

HOSTILE = ("</script><script>alert(1)</script>", "<!--", "\u2028", "%0", "&amp;", "\ud800", "\x00")


def _executable():
    def step(w, x):
        value, slope = gd.value_and_grad(lambda w: np.sum(np.tanh(x @ w) ** 2))(w)
        return w - 0.1 * slope, value

    return gd.compile(step).lower(gd.spec((4, 3), "float32"), gd.spec((5, 4), "float32"))


@pytest.fixture(scope="module")
def executable():
    return _executable()


def _saved(made, folder, **options):
    return json.loads(made.visualize(folder / "it.json", **options).read_text(encoding="utf-8"))


def test_json_holds_every_node_with_its_facts(executable, tmp_path):
    found = _saved(executable, tmp_path)
    last = found["graphs"][-1]
    graph = executable.optimized
    assert len(last["nodes"]) == len(graph.nodes)
    for id, node in zip(last["nodes"], graph.nodes, strict=True):
        facts = found["nodes"][id]
        assert facts["op"] == node.op.name
        assert tuple(facts["shape"]) == node.shape
        assert facts["bytes"] == node.type.nbytes
        inputs = [last["nodes"][graph.nodes.index(operand)] for operand in node.inputs]
        assert facts["inputs"] == inputs
        if "source" in facts:
            line = found["sources"][facts["source"]]
            assert f"{line['file']}:{line['line']}" == str(graph.sources[node])
            assert "np.tanh" in line["code"] or "slope" in line["code"]
    assert {node["phase"] for node in found["nodes"]} == {
        "argument", "parameter", "forward", "backward", "update",
    }  # fmt: skip


def test_json_holds_every_kernel_and_the_memory(executable, tmp_path):
    found = _saved(executable, tmp_path)
    assert [kernel["name"] for kernel in found["kernels"]] == [k.name for k in executable.kernels]
    for kernel, info in zip(found["kernels"], executable.kernels, strict=True):
        assert found["texts"][kernel["text"]] in info.source
        assert (kernel["bytes"], kernel["flops"]) == (info.bytes, info.flops)
        assert "measured" not in kernel
    memory = found["memory"]
    assert memory["arena"] == executable.memory.arena_bytes
    for value in memory["values"]:
        assert 0 <= value["first"] <= value["last"] < memory["count"]
        assert value["kind"] != "arena" or value["offset"] + value["bytes"] <= memory["arena"]
    borders = [(border.before, border.after, border.why) for border in executable.explain().borders]
    assert [(b["before"], b["after"], b["why"]) for b in found["borders"]] == borders
    rules = [use["rule"] for step in found["passes"] for use in step.get("rules", ())]
    assert rules == [use.rule for step in executable.explain().passes for use in step.rules]


def test_each_pass_that_changes_something_is_a_graph(executable, tmp_path):
    found = _saved(executable, tmp_path)
    assert found["graphs"][0]["name"] == "trace"
    assert found["graphs"][-1]["name"].endswith(", fuse")
    assert len(found["graphs"][0]["nodes"]) == len(executable.graph.nodes)
    assert all("picture" in graph for graph in found["graphs"])
    assert all(a != b for a, b in pairwise(graph["nodes"] for graph in found["graphs"]))


def test_what_a_gradient_is_the_gradient_of(executable, tmp_path):
    found = _saved(executable, tmp_path)
    last = set(found["graphs"][-1]["nodes"])
    pairs = [
        (node, found["nodes"][of])
        for id, node in enumerate(found["nodes"])
        for of in node.get("gradient_of", ())
        if id in last
    ]
    assert pairs
    assert all(node["shape"] == of["shape"] for node, of in pairs)
    assert any(of["op"] == "input" for _, of in pairs)


def test_a_profile_is_laid_over(executable, tmp_path):
    x = np.ones((5, 4), "float32")
    report = executable.profile(np.ones((4, 3), "float32"), x, calls=2)
    found = _saved(executable, tmp_path, profile=report)
    for kernel, time in zip(found["kernels"], report.kernels, strict=True):
        assert kernel["measured"]["seconds"] == time.seconds
    assert found["measured"]["bandwidth"] == report.peak.bandwidth
    by_name = {executable.kernels[0].name: 1e-3}
    found = _saved(executable, tmp_path, profile=by_name)
    assert found["kernels"][0]["measured"] == {"seconds": 1e-3}
    assert "measured" not in found["kernels"][-1] or len(found["kernels"]) == 1
    other = gd.compile(lambda x: np.exp(x)).lower(x)
    with pytest.raises(gd.GraphError, match=r"profile is not of this executable.*profile=exec"):
        _saved(executable, tmp_path, profile=other.profile(x, calls=1))


def test_what_was_asked_for_is_where_the_page_begins(executable, tmp_path):
    found = _saved(executable, tmp_path, theme="dark", level="kernel", color="bytes")
    assert found["begin"] == {"theme": "dark", "level": "kernel", "color": "bytes"}
    assert _saved(executable, tmp_path)["begin"] == {}


def test_a_graph_has_what_is_known_without_compiling(executable, tmp_path):
    graph = executable.graph
    found = _saved(graph, tmp_path, groups={"some": graph.operations[:2]})
    assert "kernels" not in found
    assert "passes" not in found
    assert [group["name"] for group in found["groups"]] == ["some"]
    live = {value["node"] for value in found["memory"]["values"]}
    assert live <= set(found["graphs"][0]["nodes"])


def test_pages_are_the_same_bytes_in_every_process(executable, tmp_path):
    here = executable.visualize(tmp_path / "it.html").read_bytes()
    script = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from test_document import _executable\n"
        f"_executable().visualize({str(tmp_path / 'it.html')!r})\n"
    )
    for seed in ("1", "77"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", script], check=True, env=environment)
        assert (tmp_path / "it.html").read_bytes() == here


def test_the_policy_allows_this_script_and_nothing_else():
    page = to_html(document(gd.trace(lambda x: x + 1, gd.spec(3))))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)[^"']""", page)
    assert all((name.endswith(".js")) for name in SCRIPTS)


@pytest.mark.parametrize("name", [*HOSTILE, "x" * 10_000])
def test_no_name_ends_the_script_that_holds_the_document(name):
    graph = gd.trace(lambda params: params[name] * 2.0, {name: gd.spec(3)})
    found = document(graph, name)
    page = to_html(found)
    assert page.count("</script>") == 2
    assert documents_in(page) == [found]
    page.encode("utf-8")


@pytest.mark.parametrize(
    "given",
    [
        [],
        [{}, {"a": 1}],
        [{"a": value} for value in (1, True, 1.5, "1", [1], [1.5], [], "")],
        [{"a": 7, "b": i % 2} for i in range(40)] + [{"b": [1, 2]}] * 30,
    ],
    ids=["none", "lacking", "alike", "many"],
)
def test_records_come_back_from_columns(given):
    found = records(json.loads(json.dumps(columns(given))))
    assert repr(found) == repr(given)  # by repr: True is no 1


def test_a_page_holds_the_document_whole(executable, tmp_path):
    page = executable.visualize(tmp_path / "it.html").read_text(encoding="utf-8")
    assert documents_in(page) == [_saved(executable, tmp_path)]


def test_a_document_is_small():
    """About 55 KB of document and page for 70 nodes were the aim, 380 KB for 600."""
    params = [gd.spec((16, 16), "float32")] * 4

    def loss(params, x):
        for w in params:
            x = np.tanh(x @ w)
        return np.sum(x**2)

    graph = gd.trace(gd.value_and_grad(loss), params, gd.spec((8, 16), "float32"))
    assert len(to_json(document(graph))) < 600 * len(graph.nodes)
    assert len(to_html(document(graph))) < 38_000 + 250 * len(graph.nodes)
    digest = hashlib.sha256(to_json(document(graph)).encode()).hexdigest()
    assert digest == hashlib.sha256(to_json(document(graph)).encode()).hexdigest()


def _deep(layers):
    def loss(params, x):
        for w, b in params:
            x = np.tanh(x @ w + b)
        return np.sum(x**2)

    def step(params, x):
        grads = gd.grad(loss)(params, x)
        pairs = zip(params, grads, strict=True)
        return [(w - 0.1 * dw, b - 0.1 * db) for (w, b), (dw, db) in pairs]

    params = [(gd.spec((8, 8), "float32"), gd.spec(8, "float32"))] * layers
    return gd.trace(step, params, gd.spec((4, 8), "float32"))


def test_a_layer_holds_its_bias_and_what_becomes_of_it():
    picture = arrange(draw(_deep(3)))
    band_of = {box.item.key: box.item.band for box in picture.boxes}
    for layer in range(3):
        keys = [
            f"params[{layer}][0]",
            f"params[{layer}][1]",
            f"out[{layer}][0]",
            f"out[{layer}][1]",
        ]
        assert {band_of[key] for key in keys} == {layer}


def test_networks_of_any_depth_have_a_picture():
    for layers in (1, 12, 32):
        graph = _deep(layers)
        picture = arrange(draw(graph))
        assert len(picture.strips) == layers
        assert {box.item.node for box in picture.boxes} <= set(graph.labels.values())


def test_options_that_no_page_has_are_refused(tmp_path):
    graph = gd.trace(lambda x: x * 2.0, gd.spec(3))
    with pytest.raises(gd.GraphError, match=r"layout='dot'.*write layout='auto'"):
        graph.visualize(tmp_path / "it.html", layout="dot")


@pytest.mark.parametrize(
    ("f", "specs"),
    [
        (lambda x: x, [gd.spec(3)]),
        (lambda x: (x.sum(), np.ones(3)), [gd.spec((0, 3))]),
        (lambda x: gd.scan(lambda c, a: (c * a + 1.0, c), 0.0, x)[1], [gd.spec(5)]),
        (lambda z: np.abs(z * 1j), [gd.spec(4, "complex128")]),
    ],
)
def test_programs_of_every_kind_have_a_page(f, specs, tmp_path):
    for made in (gd.trace(f, *specs), gd.compile(f).lower(*specs)):
        found = _saved(made, tmp_path)
        known = range(len(found["nodes"]))
        for graph in found["graphs"]:
            assert all(box["node"] in known for box in graph["picture"]["boxes"])
        made.visualize(tmp_path / "it.html")
