"""Explanations: the rules that fired, why kernels end, who shares memory; and the shell's form."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_graphs import program

import graphdl as gd
from graphdl import shell
from graphdl.compiler import fuse, pipeline, record
from graphdl.compiler.fuse import borders
from graphdl.compiler.origins import origins
from graphdl.explain import __main__ as command
from graphdl.explain import steps

FILE = Path(__file__).name


def rules_of(f: Any, *args: Any) -> dict[str, Any]:
    found = gd.compile(f).lower(*args).explain()
    return {use.rule: use for step in found.passes for use in step.rules}


def test_each_rule_that_fired_with_its_line() -> None:
    def f(x: Any) -> Any:
        y = np.log(1.0 + x)
        z = (y * 2.0) * 3.0
        return z + np.log(np.sum(np.exp(x)))

    rules = rules_of(f, gd.spec((9,)))
    assert set(rules) >= {"log(1 + x)", "scaled twice", "log(sum(exp(x)))", "constant to the right"}
    first = f.__code__.co_firstlineno
    for rule, line in (("log(1 + x)", 1), ("scaled twice", 2), ("log(sum(exp(x)))", 3)):
        (text,) = rules[rule].lines
        assert text.endswith(f"{FILE}:{first + line}"), rule
    assert rules["log(1 + x)"].before == "log(float64[9]) -> float64[9]"
    assert rules["log(1 + x)"].after == "log1p(float64[9]) -> float64[9]"


def test_every_rule_of_algebra_is_named_when_it_fires() -> None:
    from graphdl.compiler.rules import RULES

    for rule in RULES:
        count = rule.left.__code__.co_argcount
        with record.recording() as firings:
            graph = gd.trace(rule.left, *[gd.spec((5,))] * count)
            pipeline.optimise(graph)
        assert firings, rule.name  # by that name, or by another rule that makes the same of it
    named = {"log(exp(x))", "x * -1", "abs(-x)"}
    with record.recording() as firings:
        pipeline.optimise(
            gd.trace(lambda x: np.log(np.exp(x)) + abs(-x) * (x * -1.0), gd.spec((5,)))
        )
    assert named <= {firing.rule for firing in firings}


def test_nothing_is_recorded_unless_asked() -> None:
    assert record.firings() is None
    with record.recording() as outer:
        with record.recording() as inner:
            pipeline.optimise(gd.trace(lambda x: x * 1.0, gd.spec((5,))))
        assert not outer
        assert [firing.rule for firing in inner] == ["x * 1"]
    assert record.firings() is None


def test_the_graph_after_each_pass() -> None:
    executable = gd.compile(gd.grad(lambda x: np.sum(np.tanh(x) ** 2))).lower(gd.spec((7,)))
    found = executable.explain()
    assert [name for name, _ in found.graphs] == [name for name, _ in executable.passes]
    for (_, ours), (_, theirs) in zip(found.graphs, executable.passes, strict=True):
        assert ours.nodes == theirs.nodes
    x = np.linspace(-1, 1, 7)
    for name, graph in found.graphs:
        np.testing.assert_allclose(graph.evaluate(x), executable(x), rtol=1e-12, err_msg=name)
    [simplify] = [step for step in found.passes if step.name == "simplify"]
    assert simplify.gone["variable"] == 1


WHY = [
    (lambda x, y: x / np.sum(x), fuse.INCOMPLETE),
    (lambda x, y: np.sort(np.exp(y), axis=0) * 2, fuse.OWN_KERNEL),
    (lambda x, y: np.exp(y) @ y.T, fuse.WHOLE),
    (lambda x, y: np.sum(y @ y.T, axis=1), fuse.PRODUCT),
    (lambda x, y: np.exp(x)[:, None] * np.ones((300, 4, 1)), fuse.OTHER_LOOPS),
    (lambda x, y: (z := np.exp(x)) + z[::-1], fuse.OTHER_PLACES),
]


@pytest.mark.parametrize(("f", "why"), WHY, ids=[why[:30] for _, why in WHY])
def test_why_two_kernels_are_two(f: Any, why: str) -> None:
    x = gd.spec((4,) if why == fuse.OTHER_LOOPS else (300,))
    found = gd.compile(f).lower(x, gd.spec((300, 4))).explain()
    assert why in [border.why for border in found.borders], found
    for border in found.borders:
        assert 0 <= border.before < border.after < len(found.kernels)
        assert found.why(border.after, border.before) == border.why
        assert border.why in str(found)
    assert found.why(0, 0) == ""


def test_borders_are_those_of_the_kernels_that_run() -> None:
    """Fusion with a record decides as fusion without one, and every flow is there."""
    rng = np.random.default_rng(5)
    for _ in range(60):
        made = program(lambda n: int(rng.integers(n)), 12)
        graph = pipeline.optimise(gd.trace(made, *made.inputs))[-1][1]
        groups, found = borders(graph)
        plain = fuse.fuse(graph)
        assert [group.members for group in groups] == [group.members for group in plain]
        number = {node: i for i, group in enumerate(groups) for node in group.members}
        flows = {
            (number[origin], i)
            for i, group in enumerate(groups)
            for node in group.members
            for operand in node.inputs
            for origin in origins(operand)
            if number.get(origin, i) != i
        }
        assert {(border.before, border.after) for border in found} == flows
        assert all(border.values and border.why for border in found)


def test_who_shares_memory() -> None:
    def f(x: Any) -> Any:
        a = np.cumsum(np.exp(x))
        b = np.cumsum(a[::-1])
        c = np.cumsum(b[::-1])
        return np.sort(c)

    executable = gd.compile(f).lower(gd.spec((1000,)))
    found = executable.explain()
    by_name = {buffer.name: buffer for buffer in found.buffers}
    assert any(buffer.shares for buffer in found.buffers), found
    for buffer in found.buffers:
        for name in buffer.shares:
            other = by_name[name]
            assert buffer.name in other.shares
            assert other.offset < buffer.offset + buffer.nbytes
            assert buffer.offset < other.offset + other.nbytes
            assert buffer.first >= other.last or other.first >= buffer.last  # at other times
    assert by_name["x"].place == "argument 0"
    assert by_name[executable.optimized.labels[executable.optimized.outputs[0]]].place == "result 0"


def test_bodies_of_loops_and_branches() -> None:
    def f(x: Any) -> Any:
        total, _ = gd.scan(lambda c, row: (np.tanh(c + row * 1.0), None), np.zeros(4), x)
        total = gd.while_loop(lambda c: np.sum(c) < 9, lambda c: c + np.abs(-c) + 1, total)
        return gd.cond(total[0] > 0, np.exp, lambda z: np.log(np.exp(z)), total)

    found = gd.compile(f).lower(gd.spec((6, 4))).explain()
    names = [body.name for body in found.bodies]
    assert names == ["body", "condition", "body", "branch 0", "branch 1"]
    rules = [
        {use.rule for step in body.explanation.passes for use in step.rules}
        for body in found.bodies
    ]
    assert "x * 1" in rules[0]
    assert "abs(-x)" in rules[2]
    assert "log(exp(x))" in rules[3]
    # the branch that is the identity leaves its operand where it lies
    work = [bool(body.explanation.kernels) for body in found.bodies]
    assert work == [True, True, True, False, True]
    assert "    branch 1:" in str(found)


def test_a_function_without_kernels() -> None:
    found = gd.compile(lambda x: x).lower(gd.spec((3,))).explain()
    assert str(found).startswith("1 nodes traced")


# --- the shell --------------------------------------------------------------------------------


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "users_module.py"
    path.write_text(
        "import numpy as np\n"
        "def loss(p, x):\n"
        "    return np.sum(np.log(1.0 + x @ p['w']))\n"
        "class Model:\n"
        "    def __call__(self, x):\n"
        "        return x * 2\n"
        "model = Model()\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    return path


ARGS = ["--arg", "{'w': f32[3,4]}", "--arg", "f32[5,3]"]


def test_from_a_shell(module: Path) -> None:
    """In a process of its own, as `python -m` runs it."""
    done = subprocess.run(
        [sys.executable, "-m", "graphdl.explain", "users_module:loss", *ARGS, "--grad"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "log(1 + x)" in done.stdout
    assert "users_module.py:3" in done.stdout


def test_what_reads_it_may_stop_early(module: Path) -> None:
    command = [sys.executable, "-m", "graphdl.explain", "users_module:loss", *ARGS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.close()
        assert running.stderr is not None
        assert running.stderr.read() == b""


def test_one_graph(module: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([f"{module}:loss", *ARGS, "--after", "simplify"]) == 0
    assert "log1p" in capsys.readouterr().out
    assert command.main([f"{module}:loss", *ARGS, "--after", "trace"]) == 0
    assert "log1p" not in capsys.readouterr().out
    assert command.main([f"{module}:loss", *ARGS, "--after", "fold"]) == 1
    assert "there are trace, inline checkpoints" in capsys.readouterr().err
    assert command.main([f"{module}:model", "--arg", "f64[3]"]) == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("users_module", "write module:function"),
        ("users_module:los", "its functions: loss, Model, model"),
        ("users_module:number", "is a int, not a function"),
        ("no_such_module:f", "there is no module 'no_such_module'"),
        ("no/such/file.py:f", "there is no file 'no/such/file.py'"),
    ],
)
def test_functions_that_are_not_there(
    module: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    assert command.main([name]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("args", [[], ["--arg", "f64[3]"] * 9])
def test_too_few_or_too_many_arguments(
    module: Path, capsys: pytest.CaptureFixture[str], args: list[str]
) -> None:
    assert command.main([f"{module}:loss", *args]) == 1
    message = capsys.readouterr().err
    assert f"{module}:loss takes (" in message
    assert "write an --arg for each" in message


def test_arguments_of_a_shell() -> None:
    spec = gd.spec
    for text, value in (
        ("f32[128,784]", spec((128, 784), "float32")),
        (" i64[10] ", spec((10,), "int64")),
        ("bool", spec((), "bool")),
        ("c64[0]", spec((0,), "complex64")),
        ("-2.5", -2.5),
        ("None", None),
        ("[f64[2], (1, True)]", [spec((2,)), (1, True)]),
        ("{'a': {'b': u8[1]}}", {"a": {"b": spec((1,), "uint8")}}),
    ):
        assert shell.argument_of(text) == value
    for text in ("f31[2]", "f32[-1]", "f32[x]", "f32[2", "open('x')", "", "f32[1.5]", "{**{}}"):
        with pytest.raises(gd.ArgumentError, match=r"as in f32\[128,784\]"):
            shell.argument_of(text)


def test_steps_of_a_traced_graph() -> None:
    found = steps(gd.trace(lambda x: x + 0.0, gd.spec((2,))))
    assert found[0].name == "trace"
    assert [step.name for step in found[1:]] == [name for name, _ in pipeline.PASSES]
