"""Plans of earlier processes: the same results without passes, and none where anything differs."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

import graphdl as gd
from graphdl import machine
from graphdl.executable import Executable
from graphdl.kernels import cache
from graphdl.kernels.cpu import native, plan
from graphdl.kernels.fingerprint import fingerprint

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def no_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that may hold kernels, but no plan that is ours."""
    another = os.urandom(32)
    monkeypatch.setattr(plan, "_makers", lambda: another)


@pytest.fixture
def folder(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty cache, and no kernel loaded."""
    monkeypatch.setenv("GRAPHDL_CACHE_DIR", str(tmp_path))
    forget(monkeypatch)
    return tmp_path


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let kernels be looked for in the cache, as in another process."""
    monkeypatch.setattr(native, "_known", {})
    monkeypatch.setattr(native, "_addresses", {})


def is_planned(executable: Executable) -> bool:
    """Whether an executable came from the cache, and no pass has run since."""
    assert ("plan" in executable.seconds) != ("kernels" in executable.seconds)
    return "plan" in executable.seconds and "passes" not in executable.seconds


def arrays(value: Any) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in gd.trees.leaves_of(value)]


def floats(*shape: int, dtype: str = "float64") -> Any:
    return RNG.uniform(0.5, 1.5, shape).astype(dtype)


def network(weights: Any, x: Any) -> Any:
    for w, b in weights:
        x = np.tanh(x @ w + b)
    return np.sum(x * x)


def loop(x: Any) -> Any:
    def step(carry: Any, row: Any) -> Any:
        carry = np.where(row > 1.0, carry * row, np.sin(carry + row))
        return carry, carry.sum()

    return gd.scan(step, x[0], x)


def chooses(x: Any, n: Any) -> Any:
    return gd.cond(n > 2, lambda x: np.cumsum(x * x), lambda x: x - x.max(), x)


def counted(x: Any) -> Any:
    return gd.while_loop(lambda s: s[0] < 5, lambda s: (s[0] + 1, s[1] * 0.5 + x), (0, x))


WEIGHTS = [(floats(8, 8), floats(8)) for _ in range(3)]
TABLE = np.arange(12.0).reshape(3, 4)
PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "gradient": (gd.value_and_grad(network), (WEIGHTS, floats(5, 8))),
    "float32": (lambda x: np.exp(x) - x.mean(axis=1, keepdims=True), (floats(7, 5, dtype="f4"),)),
    "scan": (loop, (floats(6, 4),)),
    "scan gradient": (gd.grad(lambda x: loop(x)[1].sum()), (floats(6, 4),)),
    "cond": (chooses, (floats(9), 3)),
    "constants": (lambda x: x @ TABLE + TABLE[1], (floats(2, 3),)),
    "indices": (lambda x, i: x[i] * 2.0, (floats(5), np.array([4, 0, 4]))),
    "solve": (np.linalg.solve, (floats(3, 3) + 3 * np.eye(3), floats(3))),
    "many outputs": (lambda x: {"a": x.T, "b": (x.sum(), None), "c": x > 1}, (floats(4, 3),)),
    "argument itself": (lambda x, y: (y, x, x + 1), (floats(3), floats(2))),
    "empty": (lambda x: (x * 2, x.sum()), (floats(0, 3),)),
    "sort": (lambda x: (np.sort(x), np.argmax(x)), (floats(20),)),
    "random": (lambda k: gd.random.normal(gd.random.key(k), (5,)), (3,)),
    "large": (lambda x, y: [np.sin(v) * 2 for v in (x, y)], (floats(300, 400), floats(400, 300))),
    "numbers": (lambda x, s, b: np.where(b, x * s, x), (floats(3), 2.5, True)),
    "complex": (lambda x: np.abs(np.exp(1j * x)), (floats(3),)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_plan_does_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    f, args = PROGRAMS[name]

    def g(*args: Any) -> Any:
        """f, but new: what gd.grad(...) gives would share what it has compiled."""
        return f(*args)

    first = gd.compile(g)
    wanted = first(*args)
    assert not is_planned(first.lower(*args))
    forget(monkeypatch)
    second = gd.compile(g)
    found = [second(*args), second(*args), second.lower(*args)(*args)]
    executable = second.lower(*args)
    assert is_planned(executable)
    assert all(arrays(value) == arrays(wanted) for value in found)
    # what is read is what an executable without a plan has
    assert str(executable.optimized) == str(first.lower(*args).optimized)
    assert executable.memory.arena_bytes == first.lower(*args).memory.arena_bytes
    assert [k.name for k in executable.kernels] == [k.name for k in first.lower(*args).kernels]
    assert arrays(second(*args)) == arrays(wanted)


def test_results_are_written_over_the_same_arguments() -> None:
    def update(x: Any, y: Any) -> Any:
        return x + y, y.sum()

    for planned in (False, True):
        f = gd.compile(update, donate=0)
        x, y = np.ones(3), np.arange(3.0)
        result, total = f(x, y)
        assert result is x
        assert (result.tolist(), float(total)) == ([1.0, 2.0, 3.0], 3.0)
        assert is_planned(f.lower(x, y)) is planned
        frozen = np.ones(3)
        frozen.flags.writeable = False
        assert f(frozen, y)[0].tolist() == [1.0, 2.0, 3.0]
        assert frozen.tolist() == [1.0, 1.0, 1.0]


def test_failures_are_told_with_their_lines() -> None:
    def chosen(x: Any, i: Any) -> Any:
        return x[i] + 1.0

    def solved(a: Any, b: Any) -> Any:
        return np.linalg.solve(a, b)

    line = inspect.getsourcelines(chosen)[1] + 1
    for planned in (False, True):
        f = gd.compile(chosen)
        assert f(np.ones(3), np.array([1])).tolist() == [2.0]
        assert is_planned(f.lower(np.ones(3), np.array([1]))) is planned
        with pytest.raises(gd.GraphIndexError, match=f"test_plan.py:{line}"):
            f(np.ones(3), np.array([7]))
        g = gd.compile(solved)
        assert g(np.eye(2), np.ones(2)).tolist() == [1.0, 1.0]
        assert is_planned(g.lower(np.eye(2), np.ones(2))) is planned
        with pytest.raises(np.linalg.LinAlgError):
            g(np.zeros((2, 2)), np.ones(2))


def plans(folder: Any) -> list[Any]:
    return sorted(folder.glob("*.plan"))


def f(x: Any) -> Any:
    return np.tanh(x) * 2.0


def test_another_process_imports_no_compiler(folder: Any) -> None:
    program = """
import sys, numpy as np, graphdl as gd
print(gd.compile(gd.grad(lambda x: np.sum(x * x)))(np.arange(3.0)).tolist())
print([name in sys.modules for name in ("numba", "graphdl.compiling", "graphdl.compiler.pipeline")])
"""
    found = [
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
        for _ in range(2)
    ]
    results, imported = zip(*(one.stdout.splitlines() for one in found), strict=True)
    assert set(results) == {"[0.0, 2.0, 4.0]"}
    assert imported == ("[True, True, True]", "[False, False, False]")


def test_damage_costs_time_only(folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x = floats(5)
    gd.compile(f)(x)
    (path,) = plans(folder)
    whole = path.read_bytes()
    for content in (whole[:-1], b"", whole[:60] + bytes([whole[60] ^ 1]) + whole[61:]):
        path.write_bytes(content)
        g = gd.compile(f)
        np.testing.assert_allclose(g(x), f(x))
        assert not is_planned(g.lower(x))
        assert path.read_bytes() == whole
    for kernel in folder.glob("*.o"):
        kernel.unlink()
    forget(monkeypatch)
    g = gd.compile(f)
    np.testing.assert_allclose(g(x), f(x))
    assert not is_planned(g.lower(x))
    assert cache.clear() > 0
    assert plans(folder) == []


def test_where_nothing_can_be_written_kernels_are_enough(
    folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = floats(5)
    gd.compile(f)(x)
    (path,) = plans(folder)
    path.unlink()
    forget(monkeypatch)
    monkeypatch.setattr(cache, "_replace", lambda path, data: False)
    monkeypatch.setattr(cache, "_warned", False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(gd.compile(f)(x), f(x))
    assert plans(folder) == []


def test_what_differs_has_another_plan(folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def count(g: Callable[..., Any], x: Any, **options: Any) -> int:
        gd.compile(g, **options).lower(x)
        return len(plans(folder))

    x = floats(4)
    assert count(f, x) == 1
    assert count(lambda y: np.tanh(y) * 2.0, x) == 1  # another name, another line
    assert count(f, floats(5)) == 2
    assert count(f, x.astype("float32")) == 3
    assert count(lambda x: np.tanh(x) * 2.5, x) == 4
    assert count(lambda x: 2.0 * np.tanh(x) + 0.0 * x, x) == 5
    assert count(f, x, donate=0) == 6
    assert count(f, x, memory_budget=10**6) == 7
    assert count(f, x, checks="nan") == 7
    known = machine.Known(replace(machine.current(), launch=1e5), "a test")
    monkeypatch.setattr(machine, "known", lambda: known)
    assert count(f, x) == 8


def test_another_process_is_told_of_a_budget_that_is_not_kept(
    folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    for _ in range(2):
        with pytest.warns(gd.MemoryBudgetWarning, match="memory_budget=8 cannot be kept") as caught:
            executable = gd.compile(f, memory_budget=8).lower(floats(40))
        told.append(str(caught[0].message))
        forget(monkeypatch)
    assert is_planned(executable)
    assert __file__ in told[0]
    assert __file__ not in told[1]  # the lines may be others there
    assert [line.split(", at")[0] for line in told[0].splitlines()] == told[1].splitlines()


def test_functions_of_the_user_have_none(folder: Any) -> None:
    seen: list[float] = []

    def told(x: Any) -> Any:
        gd.debug.callback(lambda v: seen.append(float(v)), x.sum())
        return x + 1

    for _ in range(2):
        gd.compile(told)(np.ones(3))
    assert seen == [3.0, 3.0]
    assert plans(folder) == []


def test_loops_that_may_grow_have_none() -> None:
    graph = gd.trace(counted, gd.spec((4,)))
    assert fingerprint(graph) is not None
    for _ in range(2):
        executable = gd.compile(counted).lower(np.ones(4))
        assert not is_planned(executable)
        assert executable(np.ones(4))[0] == 5


def test_large_constants_are_not_kept(folder: Any) -> None:
    table = floats(1000, 600)
    g = gd.compile(lambda x: x + table)
    np.testing.assert_allclose(g(np.ones(600)), 1 + table)
    assert plans(folder) == []


def digest(f: Callable[..., Any], *args: Any) -> bytes | None:
    return fingerprint(gd.trace(f, *args))


def test_fingerprints() -> None:
    x = gd.spec((3, 3))
    of = [
        lambda x: x[1:],
        lambda x: x[:2],
        lambda x: x[::-1],
        lambda x: x.T,
        lambda x: x.sum(axis=0),
        lambda x: x.sum(axis=1),
        lambda x: x * 0.0,
        lambda x: x * -0.0,
        lambda x: x * np.nan,
        lambda x: x.astype("float32"),
        lambda x: x.astype("int64"),
        lambda x: (x, x.T),
        lambda x: (x.T, x),
        lambda x: gd.scan(lambda c, r: (c + r, c), x[0], x),
        lambda x: gd.scan(lambda c, r: (c + r, c), x[0], x, reverse=True),
        lambda x: gd.scan(lambda c, r: (c - r, c), x[0], x),
    ]
    found = [digest(g, x) for g in of]
    assert len(set(found)) == len(of)
    assert found == [digest(g, x) for g in of]
    slopes = [digest(gd.grad(lambda x: np.sum(np.sin(x) * x)), x) for _ in range(2)]
    assert slopes[0] == slopes[1] is not None
    assert digest(lambda a, b: a - b, x, x) != digest(lambda a, b: b - a, x, x)
