"""`python -m bench --target cuda` without a GPU: what it asks of one, and what it says."""

from __future__ import annotations

import json
from ctypes.util import find_library

import numpy as np
import pytest

from bench import __main__ as command
from bench import gpu, harness, peers, placement, report, rows
from graphdl import device as devices
from graphdl.errors import DeviceError
from tests.device_driver import HostDevice, RecordingDriver
from tests.idle_device import idle_device, launches_of


def test_without_a_gpu_nothing_is_measured():
    if find_library("cuda"):
        pytest.skip("this machine has a driver")
    with pytest.raises(SystemExit, match="nothing was measured: no NVIDIA driver found"):
        command.main(["--target", "cuda"])
    assert not placement.on_gpu(), "what runs next is for the CPU, as before"


def test_benchmarks_of_processes_stay_on_the_cpu(capsys):
    with pytest.raises(SystemExit):
        command.main(["memory", "--target", "cuda"])
    assert "leave --target away" in capsys.readouterr().err


def test_a_worker_sees_the_gpu_only_where_it_is_the_target():
    assert peers.environment(2)["CUDA_VISIBLE_DEVICES"] == ""
    there = peers.environment(2, target="cuda:1")
    assert there[placement.VARIABLE] == "cuda:1"
    assert there["JAX_PLATFORMS"] == "cuda"
    options = harness.Options(target="cuda")
    taking_part = [name for name in peers.CONTESTANTS if options.chooses(name)]
    assert taking_part == ["graphdl", "jax", "torch", "torch-compile", "floor"]


def test_a_case_runs_on_the_target(monkeypatch):
    made = HostDevice(RecordingDriver(), 0)
    monkeypatch.setattr(devices, "device_of", lambda target: made)
    monkeypatch.setenv(placement.VARIABLE, "cuda")
    case = next(case for case in rows.cases("tiny") if "layer norm" in case.name)
    prepared = case.builders["graphdl"](case.inputs())
    found = [placement.host(one) for one in prepared.results()]
    for got, want in zip(found, case.expected(case.inputs()), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    copied = made.driver.calls.count("to_device")
    prepared.call()
    assert made.driver.calls.count("to_device") == copied, "what is timed copies nothing"


def test_a_device_that_computes_nothing_keeps_the_launches():
    case = next(case for case in rows.cases("tiny") if "softmax" in case.name)
    assert launches_of(case)
    with idle_device(library=False) as device:
        assert gpu.copy_bandwidth(device) > 0


def test_shares_of_the_rates_are_printed(monkeypatch, tmp_path, capsys):
    outcomes = (
        report.Outcome("graphdl", "graphdl", samples=(4.0, 2.0, 4.0)),
        report.Outcome("floor", "floor", samples=(3.0, 1.0, 3.0)),
    )
    case = report.CaseReport("a sum", "a copy of the same bytes", outcomes)
    found = report.Report("rows", 2, (case,), target="cuda")
    assert "- a sum: 75% (50%) of a copy of the same bytes" in report.text(found)
    assert "rows: a sum (cuda)" in report.text(found)

    monkeypatch.setattr(rows, "run", lambda options: found)
    monkeypatch.setattr(gpu, "opened", lambda target: None)
    rates = {"device": "a GPU", "capability": "9.0", "copy_bandwidth": 4e12, "product_rate": "no"}
    monkeypatch.setattr(gpu, "rates", lambda device: rates)
    path = tmp_path / "run.json"
    command.main(["rows", "--target", "cuda", "--json", str(path)])
    printed = capsys.readouterr().out
    assert "copy on the device: 4,000 GB/s read and written" in printed
    written = json.loads(path.read_text())
    assert written["copy_bandwidth"] == 4e12
    assert written["benchmarks"][0]["target"] == "cuda"
    assert not placement.on_gpu()


def test_a_gpu_that_is_not_there_is_named(monkeypatch):
    def missing(target):
        raise DeviceError("target='cuda' needs numba-cuda: python -m pip install \"graphdl[cuda]\"")

    monkeypatch.setattr(gpu, "device_of", missing)
    with pytest.raises(SystemExit, match=r"pip install"):
        gpu.opened("cuda")
