"""`python -m bench report`: charts from the JSON files of benchmarks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from bench import __main__ as command
from bench import charts


def outcome(name: str, *samples: float) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "label": f"{name} <&>", "samples": list(samples)}
    if samples:
        found["median"] = sorted(samples)[len(samples) // 2]
    return found


def case(n: int) -> dict[str, Any]:
    times = [outcome("floor", 1e6 * n), outcome("graphdl", 1.5e6 * n), outcome("jax", 3e6 * n)]
    work = {"bytes": 4_000_000 * n, "flops": 6_000_000 * n, "dtype": "float32"}
    name = f"batch {n}, </svg><script>"
    return {"case": name, "unit": "ns", "work": work, "outcomes": [*times, outcome("x")]}


def run(*sizes: int) -> dict[str, Any]:
    cases = [case(n) for n in sizes]
    peak = {"bandwidth": 8e9, "flops": {"float32": 1e11, "float64": 5e10}}
    machine = {"cpu": "a <cpu>"}
    return {"benchmark": "mlp", "threads": 2, "cases": cases, "machine": machine, "peak": peak}


def test_a_page_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(run(1, 16, 128)))
    page = tmp_path / "page.html"
    command.main(["report", str(path), "-o", str(page), "--png", str(tmp_path / "png")])
    text = page.read_text()
    assert str(page) in capsys.readouterr().out
    names = sorted(file.name for file in (tmp_path / "png").iterdir())
    expected = ["mlp-bars.png", "mlp-curve-0.png", "mlp-floor.png", "mlp-roofline.png"]
    assert names == expected
    assert text.count("<svg") == 4
    assert "<script" not in text
    assert not re.search(r"(src|href)=\"http", text)
    assert "a &lt;cpu&gt;" in text
    assert charts.page(charts.read([path])) == text  # the same bytes


def test_one_case_makes_no_curve(tmp_path: Path) -> None:
    assert [name for name, _ in charts.charts(run(8))] == ["bars", "roofline", "floor"]
    assert list(charts.charts({**run(8), "cases": []})) == []


def test_the_roofline_says_what_was_measured() -> None:
    axis = dict(charts.charts(run(1, 16)))["roofline"].axes[0]
    roof = axis.lines[0].get_xydata()
    assert roof[1].tolist() == [1e11 / 8e9, 1e11]  # the ridge
    assert roof[0][1] == pytest.approx(roof[0][0] * 8e9)
    points = [line.get_xydata()[0].tolist() for line in axis.lines if len(line.get_xdata()) == 1]
    assert points == [[1.5, 4e9], [1.5, 2e9]] * 2  # 6 million operations in 1.5 and in 3 ms
    texts = [text.get_text() for text in axis.texts]
    assert {"8.0 GB/s", "100 GFLOP/s, float32"} <= set(texts)


def test_without_work_or_a_peak_there_is_no_roofline() -> None:
    without = run(8)
    del without["peak"]
    assert [name for name, _ in charts.charts(without)] == ["bars", "floor"]
    of_bytes = run(8)
    of_bytes["cases"][0]["work"] = None
    assert [name for name, _ in charts.charts(of_bytes)] == ["bars", "floor"]


def test_a_file_that_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "other.json"
    for content in ("{}", "no json", "[1]"):
        path.write_text(content)
        with pytest.raises(SystemExit):
            command.main(["report", str(path)])
        assert "is no run of a benchmark" in capsys.readouterr().err
