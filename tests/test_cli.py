"""The command line: what it prints, what it refuses, and that the demo learns."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import graphdl as gd
from graphdl import cli
from graphdl.examples import digits


def test_the_demo_reaches_97_percent_and_writes_its_graph(tmp_path, capsys):
    assert cli.main(["demo", "--output", str(tmp_path / "pictures")]) == 0
    printed = capsys.readouterr().out
    epochs = re.findall(r"^ +(\d+) +(\d\.\d+) +(\d+\.\d)% +(\d+\.\d)%$", printed, re.MULTILINE)
    assert [int(row[0]) for row in epochs] == list(range(1, digits.Settings().epochs + 1))
    assert float(epochs[-1][1]) < float(epochs[0][1]) / 10
    assert float(re.search(r"test accuracy +(\d+\.\d)%", printed).group(1)) >= 97.0
    assert re.search(r"training speed +[\d,]+ samples per second", printed)
    nodes, kernels = re.search(
        r"compiled in \d+\.\d+ s: .* a graph of (\d+) nodes and runs as (\d+) kernels", printed
    ).groups()
    assert int(kernels) < int(nodes)
    for name in ("training-step.svg", "training-step.dot"):
        assert str(tmp_path / "pictures" / name) in printed
    ElementTree.parse(tmp_path / "pictures" / "training-step.svg")


def test_a_seed_gives_the_same_losses_again(tmp_path):
    settings = digits.Settings(epochs=2, output=tmp_path)
    first, again = (digits.run(settings, say=lambda line: None) for _ in range(2))
    assert first.losses == again.losses
    assert first.test_accuracy == again.test_accuracy


def test_the_demo_says_what_to_install_where_scikit_learn_is_missing(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert cli.main(["demo", "--output", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("graphdl: the handwritten digits come with scikit-learn")
    assert "python -m pip install scikit-learn" in captured.err


def test_info_names_versions_processor_threads_cache_and_cuda(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("GRAPHDL_CACHE_DIR", str(tmp_path))
    assert cli.main(["info"]) == 0
    rows = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert rows["graphdl"] == gd.__version__
    assert re.match(r"\d+\.\d+", rows["numpy"])
    assert re.fullmatch(r"\d+ \(.*\)", rows["threads"])
    assert rows["cache"].startswith(f"{tmp_path}: 0 kernels")
    assert {"Python", "numba", "processor", "system", "CUDA"} <= set(rows)


class _Driver:
    """The part of libcuda that `info` calls, with two devices."""

    def cuInit(self, flags):
        return 0

    def cuDriverGetVersion(self, version):
        version._obj.value = 13010

    def cuDeviceGetCount(self, count):
        count._obj.value = 2

    def cuDeviceGet(self, device, ordinal):
        device._obj.value = ordinal

    def cuDeviceGetName(self, name, size, device):
        name.value = f"NVIDIA X{device.value}".encode()[: size - 1]

    def cuDeviceTotalMem_v2(self, memory, device):
        memory._obj.value = 80 << 30

    def cuDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = {75: 9, 76: 0}[attribute]


def test_cuda_devices_are_described_as_the_driver_reports_them(monkeypatch):
    monkeypatch.setattr(cli.ctypes, "CDLL", lambda name: _Driver())
    assert cli.cuda_summary() == (
        "13.1, NVIDIA X0 (compute capability 9.0, 80 GiB); "
        "NVIDIA X1 (compute capability 9.0, 80 GiB)"
    )


def test_a_driver_that_is_missing_or_does_not_start_is_said(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(cli.ctypes, "CDLL", missing)
    assert cli.cuda_summary() == "no NVIDIA driver found"
    monkeypatch.setattr(_Driver, "cuInit", lambda self, flags: 100)
    monkeypatch.setattr(cli.ctypes, "CDLL", lambda name: _Driver())
    assert cli.cuda_summary() == "the NVIDIA driver does not start (error 100)"


def test_info_needs_no_numba_and_no_scikit_learn():
    program = (
        "import sys; from graphdl.cli import main; main(['info']); "
        "assert not {'numba', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_the_cache_is_counted_and_cleared(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("GRAPHDL_CACHE_DIR", str(tmp_path))
    unrelated = tmp_path / "notes.txt"
    unrelated.write_text("mine")
    (tmp_path / f"{'a' * 32}.o").write_bytes(b"x" * 1024)
    assert cli.main(["cache", "info"]) == 0
    assert re.match(rf"{re.escape(str(tmp_path))}: 1 kernel, 0\.0 MiB", capsys.readouterr().out)
    assert cli.main(["cache", "clear"]) == 0
    assert capsys.readouterr().out == f"removed 1 kernel from {tmp_path}\n"
    assert list(tmp_path.iterdir()) == [unrelated]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: command"),
        (["cache"], "the following arguments are required: action"),
        (["demo", "--epochs", "0"], "0 is not at least 1"),
        (["train"], "invalid choice: 'train'"),
    ],
)
def test_wrong_arguments_are_explained(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_reported(tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("")
    assert cli.main(["demo", "--epochs", "1", "--output", str(file / "folder")]) == 1
    assert "graphdl: " in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="has no such pipes")
def test_a_reader_that_stops_is_no_error():
    command = f"{shlex.quote(sys.executable)} -m graphdl info | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_python_dash_m_graphdl_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "graphdl", "--version"], check=True, capture_output=True, text=True
    )
    assert done.stdout == f"graphdl {gd.__version__}\n"


def test_the_demo_is_a_program_of_the_public_api():
    source = Path(digits.__file__).read_text(encoding="utf-8")
    imports = re.findall(r"^(?:from|import) (graphdl\S*)", source, re.MULTILINE)
    assert imports == ["graphdl"]


@pytest.mark.parametrize("option", ["--colour=bytes", "--color=time"])
def test_an_option_that_the_shell_does_not_know_lists_those_of_the_command(option, capsys):
    with pytest.raises(SystemExit):
        cli.main(["visualize", "math:sqrt", "-o", "x.svg", option])
    printed = capsys.readouterr().err
    assert "usage: graphdl visualize" in printed
    assert "--layout {auto,training,dag,dot}" in printed
    assert "{phase,bytes,flops,intensity}" in printed
    assert option.split("=")[1] in printed.splitlines()[-1]
