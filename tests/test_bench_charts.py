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
    return {"case": f"batch {n}, </svg><script>", "unit": "ns", "outcomes": [*times, outcome("x")]}


def run(*sizes: int) -> dict[str, Any]:
    cases = [case(n) for n in sizes]
    return {"benchmark": "mlp", "threads": 2, "cases": cases, "machine": {"cpu": "a <cpu>"}}


def test_a_page_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(run(1, 16, 128)))
    page = tmp_path / "page.html"
    command.main(["report", str(path), "-o", str(page), "--png", str(tmp_path / "png")])
    text = page.read_text()
    assert str(page) in capsys.readouterr().out
    names = sorted(file.name for file in (tmp_path / "png").iterdir())
    assert names == ["mlp-bars.png", "mlp-curve-0.png", "mlp-roofline.png"]
    assert text.count("<svg") == 3
    assert "<script" not in text
    assert not re.search(r"(src|href)=\"http", text)
    assert "a &lt;cpu&gt;" in text
    assert charts.page(charts.read([path])) == text  # the same bytes


def test_one_case_makes_no_curve(tmp_path: Path) -> None:
    assert [name for name, _ in charts.charts(run(8))] == ["bars", "roofline"]
    assert list(charts.charts({**run(8), "cases": []})) == []


def test_a_file_that_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "other.json"
    for content in ("{}", "no json", "[1]"):
        path.write_text(content)
        with pytest.raises(SystemExit):
            command.main(["report", str(path)])
        assert "is no run of a benchmark" in capsys.readouterr().err
