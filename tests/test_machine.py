"""What the machine costs: found, measured, kept, believed or not, and what it may decide."""

import json

import numpy as np
import pytest
from msgspec.structs import replace

import graphdl as gd
from graphdl import cli, machine, tuning
from graphdl.kernels.cpu import product
from graphdl.machine import DEFAULT, MEASURED, Machine

TIMES = {
    "memory_byte": 0.2, "cached_byte": 0.03, "multiply_add": 0.02, "exp": 0.4, "launch": 9000.0,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of its own for the measured times."""
    monkeypatch.setenv("GRAPHDL_CACHE_DIR", str(tmp_path))
    yield tmp_path
    machine.forget()


@pytest.fixture
def use(monkeypatch):
    """Decide with this machine."""

    def use(**times):
        made = machine.Known(Machine(**times), "a test")
        monkeypatch.setattr(machine, "known", lambda: made)

    return use


def test_what_is_measured_is_kept_and_used(folder):
    assert machine.current().launch == DEFAULT.launch
    path = machine.keep(Machine(**TIMES))
    assert path.parent == folder
    assert [file.name for file in folder.iterdir()] == [path.name]
    assert {name: getattr(machine.current(), name) for name in MEASURED} == TIMES
    assert str(path) in machine.known().origin
    machine.keep(Machine(**{**TIMES, "exp": 0.5}))
    assert machine.current().exp == 0.5


def test_processors_share_a_file(folder, monkeypatch):
    monkeypatch.setattr(machine, "processor", lambda: "one")
    machine.keep(Machine(**TIMES))
    monkeypatch.setattr(machine, "processor", lambda: "other")
    machine.forget()
    assert machine.current().exp == DEFAULT.exp
    assert "measured on one, not on other" in machine.known().origin
    machine.keep(Machine(**{**TIMES, "exp": 0.5}))
    assert machine.current().exp == 0.5
    monkeypatch.setattr(machine, "processor", lambda: "one")
    machine.forget()
    assert machine.current().exp == 0.4


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: text.replace("0.4", '"quick"'),
        lambda text: text.replace("0.4", "0"),
        lambda text: text.replace("0.4", "NaN"),
        lambda text: text.replace("0.4", "1e9"),
        lambda text: text.replace('"exp"', '"exp2"'),
        lambda text: text.replace('"format": 1', '"format": 2'),
        lambda text: json.dumps({"format": 1, "processors": [1]}),
    ],
)
def test_a_damaged_file_is_ignored_and_said_to_be(folder, change, capsys):
    path = machine.keep(Machine(**TIMES))
    path.write_text(change(path.read_text()))
    machine.forget()
    assert machine.current().exp == DEFAULT.exp
    assert cli.main(["info"]) == 0
    assert f"defaults, as {path} is damaged" in capsys.readouterr().out
    machine.keep(Machine(**TIMES))
    assert machine.current().exp == 0.4


def test_bytes_that_are_no_text_are_damage(folder):
    (folder / "machine.json").write_bytes(b"\xff\xfe\x00")
    assert "is damaged" in machine.known().origin


def test_what_cannot_be_is_not_kept(folder):
    with pytest.raises(ValueError, match="launch"):
        machine.keep(Machine(**{**TIMES, "launch": 0.0}))
    assert list(folder.iterdir()) == []


def test_the_command_measures_and_says_what(folder, capsys, monkeypatch):
    monkeypatch.setattr(tuning.measured, "__defaults__", (1,))
    assert cli.main(["tune"]) == 0
    printed = capsys.readouterr().out
    for name, what in tuning.DESCRIPTIONS.items():
        assert name in printed
        assert what in printed
    assert set(tuning.DESCRIPTIONS) == set(MEASURED)
    assert cli.main(["info"]) == 0
    assert "measured by `graphdl tune`" in capsys.readouterr().out
    found = machine.current()
    assert found.cached_byte <= found.memory_byte


@pytest.mark.filterwarnings("ignore:compiled kernels are not kept:RuntimeWarning")
def test_a_folder_that_cannot_be_written_is_said(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GRAPHDL_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr(tuning.measured, "__defaults__", (1,))
    assert cli.main(["tune"]) == 1
    assert "graphdl: " in capsys.readouterr().err
    machine.forget()


def test_times_that_cannot_be_are_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GRAPHDL_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tuning, "measured", lambda: replace(machine.current(), exp=1e9))
    assert cli.main(["tune"]) == 1
    assert "exp of 1e+09 ns is no time that a machine can have" in capsys.readouterr().err
    assert not list(tmp_path.glob("machine*"))


def test_a_launch_that_another_thread_came_too_late_for_is_not_free(monkeypatch):
    times = {name: getattr(machine.current(), name) for name in machine.MEASURED}
    launches = iter([0.0, 4000.0, 0.0, 2000.0, 3000.0, 0.0, 0.0])
    monkeypatch.setattr(tuning, "_measured_once", lambda old: {**times, "launch": next(launches)})
    assert tuning.measured(5).launch == 2000.0
    assert tuning.measured(2).launch == tuning.LEAST_LAUNCH


def test_threads_share_what_is_worth_a_launch(use):
    f = gd.compile(lambda x: np.tanh(x) + 1)
    spec = gd.spec(20_000, "float32")
    use(launch=300.0)
    assert [kernel.parallel for kernel in f.lower(spec).kernels] == [True]
    use(launch=300_000.0)
    assert [kernel.parallel for kernel in f.lower(spec).kernels] == [False]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_blocks_of_products_change_no_bit(use, dtype):
    """Sums over k are one chain: neither jobs nor blocks of the cache's size cut them."""
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(97, 700)).astype(dtype), rng.normal(size=(700, 333)).astype(dtype)
    found = []
    for level, launch in ((1 << 20, 3000.0), (128 << 10, 30.0), (8 << 20, 100_000.0)):
        use(second_level=level, launch=launch)
        f = gd.compile(lambda a, b: np.tanh(a @ b))
        found.append(f(a, b))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_a_small_cache_makes_narrow_blocks(use):
    def columns(level):
        use(second_level=level)
        return product.packed_blocks(product.Product("f32", 4096, 1024, 256), 256)[1]

    assert columns(256 << 10) < columns(1 << 20)
    assert columns(64 << 20) == columns(1 << 20)  # its place on the stack does not grow


def test_texts_of_kernels_and_sums_do_not_depend_on_what_was_measured(use):
    def f(x, w):
        y = np.exp(x - np.max(x, axis=1, keepdims=True))
        return np.sum(np.tanh(x)), y / np.sum(y, axis=1, keepdims=True) @ w

    rng = np.random.default_rng(2)
    x, w = rng.normal(size=(300, 70)), rng.normal(size=(70, 40))
    texts, values = [], []
    for scale in (0.1, 1.0, 10.0):
        use(**{name: scale * getattr(DEFAULT, name) for name in MEASURED})
        made = gd.compile(f)
        texts.append([kernel.source for kernel in made.lower(x, w).kernels])
        values.append([np.asarray(value).tobytes() for value in made(x, w)])
    assert texts[0] == texts[1] == texts[2]
    assert values[0] == values[1] == values[2]
