"""Executables in files: what comes back, in this process and in another, and what is refused."""

import hashlib
import subprocess
import sys
from collections import OrderedDict

import msgspec
import numba
import numpy as np
import optree
import pytest

import graphdl as gd
from graphdl.graph import Literal
from graphdl.native import graph_data, saved
from graphdl.ops.table import OPS
from graphdl.tracing import new_input, tracing
from graphdl.types import TensorType
from tests.op_cases import cases


def slope(x, w):
    return gd.value_and_grad(lambda x: np.sum(np.tanh(x @ w["w"]) * w["b"][0]))(x)


ARGS = (np.linspace(0, 1, 6).reshape(2, 3), {"w": np.ones((3, 2)), "b": [np.arange(2.0), None]})


@pytest.fixture(scope="module")
def executable():
    return gd.compile(slope).lower(*ARGS)


@pytest.fixture
def path(executable, tmp_path):
    return executable.save(tmp_path / "slope.graphdl")


def same(got, want):
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_a_memory_budget_is_kept_in_the_file(tmp_path):
    def loss(x):
        for _ in range(8):
            x = np.tanh(x - np.mean(x, axis=0)) + 0.1 * x
        return np.sum(x * x)

    x = np.linspace(-1, 1, 20_000).reshape(100, 200)
    free = gd.compile(gd.grad(loss)).lower(x).memory.peak_bytes
    tight = gd.compile(gd.grad(loss), memory_budget=free // 2).lower(x)
    loaded = gd.load(tight.save(tmp_path / "tight.graphdl"))
    assert loaded.memory.peak_bytes == tight.memory.peak_bytes <= free // 2
    np.testing.assert_array_equal(loaded(x), tight(x))


def test_what_is_loaded_reads_and_runs_like_what_was_saved(executable, path):
    loaded = gd.load(path)
    same(loaded(*ARGS), executable(*ARGS))
    for read in (repr, lambda e: e.source, lambda e: str(e.graph), lambda e: str(e.optimized)):
        assert read(loaded) == read(executable)
    assert str(loaded.memory) == str(executable.memory)
    assert [k.name for k in loaded.kernels] == [k.name for k in executable.kernels]
    texts = [str(e.explain()).splitlines() for e in (executable, loaded)]
    assert texts[0][0] == texts[1][0]
    assert len(texts[0]) == len(texts[1])
    with pytest.raises(TypeError):
        loaded(ARGS[0])
    same(loaded.graph.evaluate(*ARGS), executable.graph.evaluate(*ARGS))
    loaded.save(path)
    same(gd.load(path)(*ARGS), executable(*ARGS))


LOAD = """
import sys
import numpy as np, graphdl as gd
{before}
loaded = gd.load(sys.argv[1])
w = {{"w": np.ones((3, 2)), "b": [np.arange(2.0), None]}}
value, gradient = loaded(np.linspace(0, 1, 6).reshape(2, 3), w)
print(repr(float(value)), gradient.tolist(), "numba" in sys.modules)
"""


@pytest.mark.parametrize(
    ("before", "imports_numba"),
    [
        ("", False),
        ("import graphdl.kernels.cache as c; c.toolchain = lambda: b'another version'", True),
    ],
)
def test_another_process_loads_it(path, tmp_path, monkeypatch, before, imports_numba):
    """With an empty cache: the code is the file's, or, for another version, compiled anew."""
    monkeypatch.setenv("GRAPHDL_CACHE_DIR", str(tmp_path / "empty"))
    text = LOAD.format(before=before)
    run = [sys.executable, "-c", text, str(path)]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    value, gradient = gd.compile(slope)(*ARGS)
    assert done.stdout == f"{float(value)!r} {gradient.tolist()} {imports_numba}\n"


def loop(x, n):
    def step(c):
        return c[0] + 1, np.sin(c[1]) * x + c[1][::-1]

    made = gd.while_loop(lambda c: c[0] < n, step, (0, x))[1]
    rows = gd.scan(lambda c, r: (c * 0.5 + r, c.max()), made[0], made)
    return {"z": rows, "a": gd.cond(made[0] > 0, np.exp, np.negative, made), "none": None}


@pytest.mark.parametrize(
    ("f", "args", "options"),
    [
        (loop, (np.linspace(0, 1, 5), 4), {}),
        (gd.grad(lambda x: loop(x, 3)["z"][0].sum()), (np.linspace(0, 1, 5),), {}),
        (lambda x, y: x + y, (np.arange(3.0), np.ones(3)), {"donate": 0}),
        (lambda x, t, flag: np.where(flag, x * t, 1j * x), (np.ones(3), 2.5, True), {}),
        (lambda x: gd.random.normal(gd.random.key(3), (4,)) + x, (np.ones(4),), {}),
        (lambda x: np.linalg.inv(x) @ x[:, 1:], (np.eye(3) * 2,), {}),
        (lambda x: gd.nn.relu(x) + gd.checkpoint(np.sin)(x), (np.array([-1.0, 1.0]),), {}),
        (lambda x: x[np.array([2, 0])] + np.arange(6.0).reshape(2, 3), (np.eye(3),), {}),
    ],
)
def test_programs_of_all_kinds_come_back(f, args, options, tmp_path):
    executable = gd.compile(f, **options).lower(*args)
    loaded = gd.load(executable.save(tmp_path / "program"))
    copies = [[np.array(a) if isinstance(a, np.ndarray) else a for a in args] for _ in range(2)]
    got, want = loaded(*copies[0]), executable(*copies[1])
    assert optree.tree_structure(got) == optree.tree_structure(want)
    if isinstance(want, dict):
        assert list(got) == list(want)
    same(optree.tree_leaves(got), optree.tree_leaves(want))
    same(copies[0][:1], copies[1][:1])


@pytest.mark.parametrize("name", sorted(OPS))
def test_each_op_is_written_and_read(name):
    for case in cases(OPS[name])[:3]:
        types = [TensorType(x.dtype, x.shape) for x in case.operands]
        with tracing("test", None) as run:
            inputs = [new_input(type, i, run) for i, type in enumerate(types)]
            if not inputs:
                return
            node = inputs[0].apply_op(case.op, tuple(inputs), case.attrs).node
        graph = gd.Graph(tuple(value.node for value in inputs), (node,))
        data = msgspec.msgpack.encode(graph_data.written(graph))
        back = graph_data.read(msgspec.msgpack.decode(data, type=graph_data.GraphData))
        assert [(n.op, n.attrs, n.type) for n in back.operations] == [
            (n.op, n.attrs, n.type) for n in graph.operations
        ]


def test_a_nan_and_a_negative_zero_keep_their_bits(tmp_path):
    constants = np.array([-0.0, np.nan, np.inf, 5e-324])
    loaded = gd.load(gd.compile(lambda x: x * constants).lower(np.ones(4)).save(tmp_path / "f"))
    (kept,) = [
        dict(node.attrs)["value"] for node in loaded.graph.nodes if node.op.name == "constant"
    ]
    assert kept == Literal(constants)


def test_lines_and_scopes_are_kept(tmp_path):
    def f(x):
        with gd.scope("inner"):
            return np.sum(np.sin(x))

    executable = gd.compile(gd.grad(f)).lower(np.ones(3))
    loaded = gd.load(executable.save(tmp_path / "f"))
    before, after = executable.graph, loaded.graph
    for old, new in zip(before.nodes, after.nodes, strict=True):
        mine, other = before.sources.get(old), after.sources.get(new)
        assert mine == other
        if mine is not None:
            assert [s.name for s in mine.scopes] == [s.name for s in other.scopes]
            assert (mine.pulled is None) == (other.pulled is None)


@pytest.mark.parametrize("at", [3, 30, 60, 200, -1])
def test_a_damaged_file_is_an_error(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.write_bytes(data)
    with pytest.raises(gd.FileError, match=r"slope\.graphdl (is|was) "):
        gd.load(path)


@pytest.mark.parametrize("size", [0, 10, 40, 500])
def test_a_part_of_a_file_is_an_error(path, size):
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(gd.FileError, match=r"slope\.graphdl is"):
        gd.load(path)


def test_a_file_of_another_version_says_so(path):
    path.write_bytes(path.read_bytes().replace(saved._MAGIC, b"graphdl executable 9\n", 1))
    with pytest.raises(gd.FileError, match="another version of graphdl"):
        gd.load(path)


def test_content_that_makes_no_sense_is_an_error(path):
    """Also where somebody has put the checksum right."""
    start = len(saved._MAGIC) + 32
    content = msgspec.msgpack.decode(path.read_bytes()[start:], type=saved.Content)
    good = content.graph
    replace = msgspec.structs.replace
    wrong = [
        replace(good, outputs=[-1]),
        replace(good, outputs=[10**6]),
        replace(good, nodes=[*good.nodes[:-1], replace(good.nodes[-1], op="os.system")]),
        replace(good, nodes=[replace(good.nodes[0], dtype="object"), *good.nodes[1:]]),
        replace(good, out_tree=["shell", []]),
        replace(good, nodes=good.nodes[1:]),
    ]
    for graph in wrong:
        payload = msgspec.msgpack.encode(replace(content, graph=graph))
        path.write_bytes(saved._MAGIC + hashlib.sha256(payload).digest() + payload)
        with pytest.raises(gd.GraphError):
            gd.load(path)


def test_what_no_file_holds_is_refused(tmp_path):
    @gd.op
    @numba.njit
    def cube(x):
        return x * x * x

    def printing(x):
        gd.debug.print("{}", x)
        return x + 1

    for f, message in ((cube, r"gd\.op"), (printing, "gd.debug")):
        with pytest.raises(gd.UnsupportedError, match=message):
            gd.compile(lambda x, f=f: f(x)).lower(np.ones(3)).save(tmp_path / "f")
    ordered = gd.compile(lambda x: OrderedDict(a=x + 1)).lower(np.ones(3))
    with pytest.raises(gd.UnsupportedError, match="tree of OrderedDict"):
        ordered.save(tmp_path / "f")
    assert not list(tmp_path.iterdir())
