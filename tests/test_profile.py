"""Profiles: times that add up, numbers that come from the kernels, the forms they are saved in."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

import graphdl as gd
from graphdl.kernels.cpu import pool, tape
from graphdl.profile import KernelTime, Part, Peak, Report, measure, peaks
from graphdl.profile.report import duration

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(3)


@pytest.fixture(autouse=True)
def known_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """A made-up peak: to measure one takes half a second."""
    flops = {"float32": 2e11, "float64": 1e11}
    monkeypatch.setattr(peaks, "_measured", lambda threads: Peak(2e10, flops, threads))
    monkeypatch.setattr(peaks, "_known", {})
    monkeypatch.setattr(peaks, "_fresh", set())
    monkeypatch.setattr(peaks, "_path", lambda threads: None)


def step(w: Array, v: Array, x: Array, y: Array) -> Any:
    def loss(w: Array, v: Array) -> Any:
        return np.mean((np.tanh(x @ w) @ v - y) ** 2)

    a, b = gd.grad(loss, argnums=(0, 1))(w, v)
    return w - 0.1 * a, v - 0.1 * b


def arrays(*shapes: tuple[int, ...], dtype: str = "float32") -> list[Array]:
    return [RNG.normal(size=shape).astype(dtype) for shape in shapes]


STEP = arrays((256, 192), (192, 10), (128, 256), (128, 10))


def covered(executable: gd.Executable, *args: Any) -> Report:
    """A profile whose lines add up to an ordinary call, which nothing in it is fitted to.

    Another process may have the processor meanwhile, more in some calls than in others: so it is
    the usual share of several profiles, of medians, that is asked for.
    """
    shares: list[float] = []
    for _ in range(40):
        report = executable.profile(*args)
        lines = sum(part.median for part in (*report.kernels, *report.rest))
        shares.append(lines / report.median)
        if abs(np.median(shares) - 1) < 0.05:
            return report
    raise AssertionError(f"{shares}\n{report}")


@pytest.mark.parametrize("threads", [1, 2])
def test_times_add_up_to_those_of_a_call(threads: int) -> None:
    before = pool.num_threads()
    gd.set_num_threads(threads)
    try:
        executable = gd.compile(step).lower(*STEP)
        report = covered(executable, *STEP)
    finally:
        gd.set_num_threads(before)
    assert [k.name for k in report.kernels] == [k.name for k in executable.kernels]
    assert [k.flops for k in report.kernels] == [k.flops for k in executable.kernels]
    assert [k.nodes for k in report.kernels] == [k.nodes for k in executable.kernels]
    assert all(0 < kernel.seconds <= kernel.median for kernel in report.kernels)
    assert report.peak.threads == threads
    parts = [part.name for part in report.rest]
    assert parts == ["arguments and results", "waiting for threads"][: len(parts)]


def test_times_of_a_small_step_add_up() -> None:
    """Of 5 us, a quarter goes to arguments and results; the clock takes a tenth more."""
    args = arrays((32, 32), (32, 10), (8, 32), (8, 10))
    report = covered(gd.compile(step).lower(*args), *args)
    (entry,) = report.rest
    assert 0.02 < entry.seconds / report.seconds < 0.6
    assert 2e-9 < measure.reading_seconds() < 2e-6


def test_a_profile_leaves_calls_and_arguments_as_they_are() -> None:
    executable = gd.compile(step, donate=(0, 1)).lower(*STEP)
    kept = [np.array(x) for x in STEP]
    tape_before = executable._native.tape.launches.copy()
    executable.profile(*STEP, calls=2)
    for x, y in zip(STEP, kept, strict=True):
        np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(executable._native.tape.launches, tape_before)
    assert not executable._native.times.any()  # only the stopwatch writes there
    wanted = gd.compile(step)(*kept)
    for x, y in zip(executable(*map(np.array, kept)), wanted, strict=True):
        np.testing.assert_array_equal(x, y)


def test_the_runner_of_ordinary_calls_reads_no_clock() -> None:
    """The two runners are written from one text; only the timed one knows `now`."""
    from graphdl.kernels.cpu.assembler import Module

    plain, timed = Module("a", [], 1), Module("a", [], 2)
    tape._write(plain, tape.Watch())
    tape._write_timed(timed)
    assert "@now" in timed.text()
    assert "@now" not in plain.text()


def test_loops_list_the_kernels_of_their_bodies() -> None:
    def run(x: Array, w: Array) -> Any:
        final, _ = gd.scan(lambda c, row: (np.tanh(c @ w + row), None), np.zeros(32), x)
        count = gd.while_loop(lambda c: c < 1000.0, lambda c: c * 1.5, np.sum(final) ** 2 + 1.0)
        return gd.cond(count > 0, lambda z: np.sum(np.exp(z)), np.sum, final)

    x, w = RNG.normal(size=(40, 32)), RNG.normal(size=(32, 32)) / 8
    report = gd.compile(run).lower(x, w).profile(x, w, calls=3)
    named = {kernel.name: kernel for kernel in report.kernels}
    scan, loop, switch = named["scan"], named["while"], named["switch"]
    assert all(inner.runs == 40 for inner in scan.body)
    assert scan.bytes == sum(inner.bytes for inner in scan.body) > 40 * 32 * 8
    assert 0 < sum(inner.median for inner in scan.body) <= 1.01 * scan.median
    assert scan.own_seconds < scan.seconds
    steps = {inner.name: inner.runs for inner in loop.body}
    assert 2 < steps["multiply"] < 40
    assert sorted({inner.runs for inner in switch.body}) == [0, 1]  # one branch was not taken
    assert max(depth for depth, _ in report.walk()) == 1
    assert len(list(report.walk())) == len(report.kernels) + sum(
        len(kernel.body) for kernel in report.kernels
    )


def test_reading_the_clock_in_a_loop_of_numbers_does_not_count() -> None:
    """There, it doubles the time of the loop."""

    def wander(w: Any, xs: Any) -> Any:
        return gd.scan(lambda c, x: (np.tanh(c * w + x), None), 0.0, xs)[0] + np.sum(xs)

    args = 0.5, np.linspace(0, 1, 5000)
    report = covered(gd.compile(wander).lower(*args), *args)
    (scan,) = (kernel for kernel in report.kernels if kernel.body)
    # usual times: the least ones are those of different calls
    assert 0 < sum(inner.median for inner in scan.body) <= 1.01 * scan.median


def test_launches_that_run_as_one_divide_their_time() -> None:
    """Updates of two arrays of which one has four times the elements."""

    def update(a: Array, b: Array) -> Any:
        return np.exp(np.sin(a)) * 2, np.exp(np.sin(b)) * 2

    small, large = arrays((100_000,), (100_001 * 4,), dtype="float64")
    executable = gd.compile(update).lower(small, large)
    assert len(executable._native.rows) == 1
    report = executable.profile(small, large, calls=20)
    first, second = report.kernels
    assert 1.5 < second.seconds / first.seconds < 12
    assert first.nodes != second.nodes


def test_numbers_nothing_and_wrong_arguments() -> None:
    executable = gd.compile(lambda x, n: (x * n, x[:0])).lower(np.ones(5), 3)
    report = executable.profile(np.ones(5), 3, calls=1)
    assert report.calls == 1
    with pytest.raises(TypeError, match="this executable takes"):
        executable.profile(np.ones(6), 3)
    with pytest.raises(gd.ArgumentError, match="calls=0"):
        executable.profile(np.ones(5), 3, calls=0)
    nothing = gd.compile(lambda x: x).lower(np.ones(5)).profile(np.ones(5), calls=2)
    assert nothing.seconds > 0
    assert "arguments and results" in str(nothing)


def made_up(name: str = "f") -> Report:
    inner = KernelTime(0, "add", 2e-3, 2.5e-3, 10, 4_000_000, 800, "float64", ("%0",), ("b.py:2",))
    kernels = (
        KernelTime(0, "copy", 1e-3, 1e-3, 1, 10_000_000, 0, "float32", ("%1",), ("a.py:1",)),
        KernelTime(1, name, 3e-3, 3e-3, 1, 4, 300_000_000, "float64", ("%2",), (), (inner,)),
    )
    rest = (Part("arguments and results", 5e-4, 1e-3), Part("waiting for threads", 2e-4, 1e-3))
    return Report(name, kernels, rest, 5e-3, 6e-3, 9, Peak(2e10, {"float64": 1e11}, 2))


def test_text_and_numbers() -> None:
    report = made_up()
    copy, loop = report.kernels
    assert copy.bandwidth == pytest.approx(1e10)
    assert copy.limits(report.peak) == pytest.approx((0.5, 0.0))
    assert loop.limits(report.peak)[1] == pytest.approx(1.0)
    assert loop.own_seconds == pytest.approx(1e-3)
    assert report.overhead == pytest.approx(2e-3)
    lines = str(report).splitlines()
    assert lines[0] == "f: 5 ms a call, median 6 ms of 9; all lines: 94.0% of a call"
    assert "1 ms    1 ms   16.7%  10.0      50%      0.0       0%  0: copy" in lines[4]
    assert lines[4].endswith("a.py:1")
    assert "  0: add" in lines[6]
    assert lines[7].split() == ["500", "us", "1", "ms", "16.7%", "arguments", "and", "results"]
    assert lines[9].split() == ["4.7", "ms", "6", "ms", "100.0%", "all"]
    fast = replace(copy, bytes=30_000_000)  # 3e10 bytes a second, where memory gives 2e10
    assert "30.0   cached" in str(replace(report, kernels=(fast, loop)))
    assert duration(2.5) == "2.5 s"
    numbers = json.loads(report.to_json())
    assert numbers["kernels"][1]["body"][0]["runs"] == 10
    assert numbers["overhead"] == pytest.approx(2e-3)
    assert numbers["covered"] == pytest.approx(0.94)


HOSTILE = "</title><script>alert('x')</script>\"]]>%0{x}"


class _Page(HTMLParser):
    """The tags of a page, and the text of its buttons."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.titles: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "button":
            self.titles.append(dict(attrs)["title"] or "")


def test_saved_forms(tmp_path: Path) -> None:
    report = made_up(HOSTILE)
    assert report.save(tmp_path / "p.txt").read_text() == str(report)
    assert json.loads(report.save(tmp_path / "p.json").read_text())["name"] == HOSTILE
    trace = json.loads(report.save(tmp_path / "p.trace.json").read_text())
    events = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert [(e["name"], e["ts"], e["dur"]) for e in sorted(events, key=lambda e: e["ts"])] == [
        ("copy", 0.0, 1000.0),
        (HOSTILE, 1000.0, 3000.0),
        ("add", 1000.0, 2000.0),
    ]
    page = _Page()
    page.feed(report.save(tmp_path / "p.html").read_text())
    assert page.tags.count("script") == 1
    assert "http" not in " ".join(page.titles)
    assert len(page.titles) == 6  # the call, three kernels, the rest in two parts
    assert page.titles[2].startswith(f"kernel 1: {HOSTILE}")
    with pytest.raises(gd.ArgumentError, match=r"\.trace\.json, \.json, \.html, \.txt"):
        report.save(tmp_path / "p.pdf")


def test_the_peak_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "_path", lambda threads: tmp_path / f"peak-{threads}.json")
    calls: list[int] = []

    def measured(threads: int) -> Peak:
        calls.append(threads)
        return Peak(1e10, {"float32": 1e11}, threads)

    monkeypatch.setattr(peaks, "_measured", measured)
    first = peaks.peak()
    monkeypatch.setattr(peaks, "_known", {})
    assert peaks.peak() == first
    assert len(calls) == 1
    (path,) = tmp_path.glob("peak-*.json")
    for damage in ("", "[]", '{"bandwidth": 0, "flops": {"float32": 1}}', '{"bandwidth": 1}'):
        path.write_text(damage)
        monkeypatch.setattr(peaks, "_known", {})
        assert peaks.peak() == first
    assert len(calls) == 5


def test_a_peak_that_a_kernel_exceeds_is_measured_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was measured while the machine was busy is too low, and would be kept for ever."""
    monkeypatch.setattr(peaks, "_path", lambda threads: tmp_path / "peak.json")
    threads = pool.num_threads()
    found = iter([Peak(1e10, {"float64": 4e11}, threads), Peak(5e9, {"float64": 5e11}, threads)])
    monkeypatch.setattr(peaks, "_measured", lambda threads: next(found))
    (tmp_path / "peak.json").write_text('{"bandwidth": 8e9, "flops": {"float64": 3e11}}')
    copy, loop = made_up().kernels
    slow = replace(copy, bytes=1_000_000)
    assert peaks.peak([slow]) == Peak(8e9, {"float64": 3e11}, threads)
    larger = Peak(1e10, {"float64": 4e11}, threads)
    assert peaks.peak([slow, copy, loop]) == larger
    assert peaks.peak([replace(copy, bytes=10**9)]) == larger  # it is in a cache: not once more
    monkeypatch.setattr(peaks, "_known", {})
    assert peaks.peak() == larger  # it was written down
    monkeypatch.setattr(peaks, "_fresh", set())  # as another process
    assert peaks.peak([replace(copy, bytes=10**9)]) == Peak(1e10, {"float64": 5e11}, threads)


def test_the_measured_speed_is_one_that_a_machine_can_have() -> None:
    from graphdl.kernels.cpu import speed

    ratios: list[float] = []
    for _ in range(20):  # until most pairs were measured while nothing else had the processors
        single, double = speed.fma_rate("float32"), speed.fma_rate("float64")
        assert 1e9 < double < 1e14
        ratios.append(single / double)
        if 1.5 < np.median(ratios) < 2.5:
            break
    assert 1.5 < np.median(ratios) < 2.5
    assert 1e8 < speed.copy_bandwidth() < 1e13
