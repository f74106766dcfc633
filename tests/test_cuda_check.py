"""The script for a machine with a GPU, on a stand-in: what it compares and what it reports."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest

from bench import cuda_check
from graphdl import device as devices
from graphdl.errors import DeviceError
from tests.device_driver import HostDevice, RecordingDriver
from tests.idle_device import idle_device


@pytest.fixture
def gpu(monkeypatch):
    made = HostDevice(RecordingDriver(), 0)
    monkeypatch.setattr(devices, "device_of", lambda target: made)
    return made


def test_values_are_compared_three_times_and_what_is_missing_is_named(gpu):
    x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    found = cuda_check.compare(
        [
            ("right", lambda x: np.tanh(x) + 1, (x,)),
            ("missing", lambda x: np.linalg.inv(x @ x.T), (x,)),
            ("broken", lambda x: x.no_such_method(), (x,)),
        ]
    )
    assert found["right"] == {"ulps": pytest.approx(0, abs=8), "ok": True, "repeats": True}
    assert "no kernel for" in found["missing"]["unsupported"]
    assert found["broken"]["ok"] is False
    assert "no_such_method" in found["broken"]["error"]
    assert "replay" in gpu.driver.calls, "a result that is dropped leaves its memory to the next"


def test_differences_are_seen():
    want = np.array([1.0, 2.0, np.inf], np.float32)
    assert cuda_check.difference(want, want) == 0
    assert cuda_check.difference(want * np.float32(1.001), want) > cuda_check.ULPS
    assert cuda_check.difference(np.array([1.0, np.nan, np.inf], np.float32), want) == np.inf
    assert cuda_check.difference(want.astype(np.float64), want) == np.inf


def test_the_report_is_text_and_json(gpu):
    timing = cuda_check.timed(gpu, lambda: None, seconds=0.001)
    report = {
        "environment": {"device": "a stand-in", "date": "today"},
        "errors": {"ops": {"error": "a kernel failed"}},
        "templates": {"elements": {"ok": True, "ulps": 1.0}, "rows": {"ok": False, "error": "E"}},
        "ops": {},
        "copy_bandwidth": 1e12,
        "timings": {"sum": {**timing, "share_of_copy": 0.5}, "other": {"error": "out of memory"}},
        "launches": {"kernels": 50},
        "torch": {"sum": {"eager": timing}},
    }
    text = cuda_check.as_text(json.loads(json.dumps(report)))
    assert "templates: 2 tried, 0 not supported, 1 wrong" in text
    assert "50% of copy bandwidth; torch eager 1.00 times as long" in text
    assert "other: out of memory" in text
    assert "ops ended early: a kernel failed" in text
    assert "0 tried" in cuda_check.as_text({"environment": {}}), "a report that has just begun"


def test_a_share_of_the_workloads_has_the_sizes_it_says():
    names = [name for name, *_ in cuda_check.templates()]
    assert len(set(names)) == len(names) >= 15


def test_the_script_goes_through_to_its_report(monkeypatch, tmp_path, capsys):
    """On a device that computes nothing: values are wrong, but every part is tried and written."""
    x = np.linspace(-1, 1, 64, dtype=np.float32)
    few = [("tanh", np.tanh, (x,)), ("inverse", np.linalg.inv, (np.eye(3),))]
    timed = [("sum", np.sum, (x,), 256.0, 0.0), ("dot", lambda x: x @ x, (x,), 0.0, 128.0)]
    monkeypatch.setattr(cuda_check, "timed", partial(cuda_check.timed, seconds=0.001))
    monkeypatch.setattr(cuda_check, "templates", lambda: few)
    monkeypatch.setattr(cuda_check, "every_op", lambda: few[:1])
    monkeypatch.setattr(cuda_check, "workloads", lambda: timed)
    monkeypatch.setattr(cuda_check, "torch_times", lambda *args: 1 / 0)
    monkeypatch.setattr(cuda_check, "compile_ahead", lambda device: None)
    with idle_device(library=True) as device:
        monkeypatch.setattr(cuda_check, "device_of", lambda target: device)
        assert cuda_check.main(["--folder", str(tmp_path / "results")]) == 1
        assert cuda_check.main(["--templates"]) == 1
        few[1:] = [("new", np.exp, (x,))]
        folder = ["--folder", str(tmp_path / "results")]
        assert cuda_check.main([*folder, "--part", "templates"]) == 1, "the rest stays as it is"
        assert cuda_check.main([*folder, "--sanitizer", "memcheck: exit 0"]) == 0
    (written,) = (tmp_path / "results").glob("cuda-a-stand-in-*.json")
    report = json.loads(written.read_text())
    assert report["environment"]["driver"] == 13000
    assert report["copy_bandwidth"] > 0
    assert "no kernel for" in report["templates"]["inverse"]["unsupported"]
    assert report["templates"]["tanh"]["ok"] is False
    assert report["timings"]["sum"]["share_of_copy"] > 0
    assert report["timings"]["dot"]["flops"] > 0
    assert report["launches"]["kernels"] >= 50
    assert report["errors"]["torch"]["error"] == "ZeroDivisionError: division by zero"
    assert list(report["templates"]) == ["tanh", "inverse", "new"]
    assert "compute-sanitizer: memcheck: exit 0" in written.with_suffix(".txt").read_text()
    assert "not supported" in capsys.readouterr().out


def test_a_lost_gpu_ends_the_process_and_the_next_goes_on_behind(gpu, monkeypatch, tmp_path):
    x = np.ones(8, np.float32)
    lost: list[int] = []

    def fails(x):
        lost.append(1)
        raise DeviceError("a kernel used an address that is not there")

    def wait(stream):
        if lost:
            raise DeviceError("a kernel used an address that is not there")

    monkeypatch.setattr(cuda_check, "device_of", lambda target: gpu)
    monkeypatch.setattr(gpu.driver, "wait", wait)
    cases = [("first", np.exp, (x,)), ("bad", fails, (x,)), ("last", np.tanh, (x,))]
    monkeypatch.setattr(cuda_check, "templates", lambda: cases)
    options = ["--folder", str(tmp_path), "--part", "templates"]
    assert cuda_check.main(options) == 3
    (written,) = tmp_path.glob("*.json")
    assert list(json.loads(written.read_text())["templates"]) == ["first", "bad"]
    lost.clear()
    assert cuda_check.main(options) == 1, "as one was wrong"
    found = json.loads(written.read_text())["templates"]
    assert {name: one["ok"] for name, one in found.items()} == {
        "first": True, "bad": False, "last": True,
    }  # fmt: skip


def test_without_a_gpu_the_script_says_so(monkeypatch, capsys):
    def missing(target):
        raise DeviceError("no NVIDIA driver found")

    monkeypatch.setattr(cuda_check, "device_of", missing)
    assert cuda_check.main([]) == 2
    assert "nothing was measured: no NVIDIA driver found" in capsys.readouterr().err
