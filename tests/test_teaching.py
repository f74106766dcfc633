"""The picture of a small graph with values and derivatives on it."""

import numpy as np
import pytest

import graphdl as gd
from graphdl.visualize.arrange import arrange
from graphdl.visualize.teaching import MOST_NODES, teach


def _absolute(x, w, b, y):
    return abs(x * w + b - y)


def _taught():
    arguments = (2.0, 3.0, 1.0, 9.0)
    return teach(gd.trace(_absolute, *arguments), arguments)


def test_each_box_has_its_value_and_its_derivative():
    drawing, _ = _taught()
    found = {item.title: item.detail.split() for item in drawing.items if item.kind != "label"}
    assert found == {
        "x": ["2", "∂", "-3"],
        "w": ["3", "∂", "-2"],
        "b": ["1", "∂", "-1"],
        "y": ["9", "∂", "1"],
        "multiply": ["6", "∂", "-1"],
        "add": ["7", "∂", "-1"],
        "subtract": ["-2", "∂", "-1"],
        "absolute": ["2", "∂", "1"],
        "out": ["2"],
    }


def test_each_edge_has_what_goes_forward_and_what_comes_back():
    drawing, _ = _taught()
    labels = {item.key: item for item in drawing.items if item.kind == "label"}
    titles = {item.key: item.title for item in drawing.items}
    found = {}
    for tail, head in drawing.edges:
        if head in labels:
            below = next(b for a, b in drawing.edges if a == head)
            found[titles[tail], titles[below]] = (labels[head].title, labels[head].detail)
    assert found == {
        ("x", "multiply"): ("↓ 2", "↑ -1 × 3 = -3"),
        ("w", "multiply"): ("↓ 3", "↑ -1 × 2 = -2"),
        ("multiply", "add"): ("↓ 6", "↑ -1 × 1 = -1"),
        ("b", "add"): ("↓ 1", "↑ -1 × 1 = -1"),
        ("add", "subtract"): ("↓ 7", "↑ -1 × 1 = -1"),
        ("y", "subtract"): ("↓ 9", "↑ -1 × -1 = 1"),
        ("subtract", "absolute"): ("↓ -2", "↑ 1 × -1 = -1"),
    }


def test_the_products_along_the_ways_stand_below():
    _, notes = _taught()
    assert notes[1] == "∂out/∂w = -1 × 1 × 1 × 2 = -2"
    assert notes[2] == "∂out/∂b = -1 × 1 × 1 = -1"


def test_several_ways_are_summed():
    graph = gd.trace(lambda x: np.sin(x) * x, 0.0)
    assert teach(graph, (0.0,))[1] == ("∂out/∂x = 0 + 0 × 1 = 0",)
    graph = gd.trace(lambda x: x * x + 3.0 * x, 2.0)
    (line,) = teach(graph, (2.0,))[1]
    assert line.endswith("= 7")
    assert line.count("+") == 1  # x * x is one edge, whose factor is 2 x


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_derivatives_of_arrays_are_those_of_grad(dtype):
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(s).astype(dtype) for s in ((2, 3), (3, 1), (1,)))

    def loss(x, w, b):
        return np.sum(np.tanh(x @ w + b) ** 2)

    drawing, _ = teach(gd.trace(loss, x, w, b), (x, w, b))
    gradient = gd.grad(loss, argnums=2)(x, w, b)
    shown = next(item.detail for item in drawing.items if item.title == "b")
    assert float(shown.split("∂ [")[1].rstrip("]")) == pytest.approx(float(gradient[0]), rel=1e-3)
    arrange(drawing)


def test_a_graph_with_several_results_shows_values_only():
    drawing, notes = teach(gd.trace(lambda x: (x + 1.0, x * 2.0), 1.0), (1.0,))
    assert notes == ()
    assert all("∂" not in item.detail for item in drawing.items)
    assert {"2"} == {item.detail for item in drawing.items if item.kind == "output"}


def test_whole_numbers_and_what_has_no_gradient_are_shown():
    drawing, notes = teach(gd.trace(lambda x, n: np.floor(x) * n, 2.5, 3), (2.5, 3))
    assert {"2.5", "2", "3", "6"} <= {i.detail.split()[0] for i in drawing.items if i.detail}
    assert all(line.startswith("∂out/∂x") for line in notes)


def test_what_has_no_derivatives_has_no_word_on_them(tmp_path):
    both = gd.trace(lambda x: (x + 1.0, x * 2.0), 1.0)
    assert "derivative" not in both.visualize(tmp_path / "a.svg", values=(1.0,)).read_text()
    one = gd.trace(lambda x: x + 1.0, 1.0)
    assert "derivative" in one.visualize(tmp_path / "b.svg", values=(1.0,)).read_text()


def test_a_zero_has_no_sign():
    drawing, notes = teach(gd.trace(lambda x, w: np.maximum(x * w, 0.0), 2.0, -3.0), (2.0, -3.0))
    assert notes == ("∂out/∂x = 0 × -3 = 0", "∂out/∂w = 0 × 2 = 0")
    assert not any("-0" in item.detail for item in drawing.items)


def test_a_small_picture_stands_in_one_column():
    """Ten rows are taller than wide, but they fit any window."""
    drawing, _ = teach(gd.trace(lambda z: np.abs(z * 1j + 2) ** 2, 1 + 2j), (1 + 2j,))
    picture = arrange(drawing)
    assert len(picture.strips) == 1
    assert picture.height < 860


def test_formats_and_sizes_that_do_not_fit_are_refused(tmp_path):
    graph = gd.trace(_absolute, 1.0, 1.0, 1.0, 1.0)
    for ending in ("svg", "png", "pdf"):
        assert graph.visualize(tmp_path / f"g.{ending}", values=(2, 3, 1, 9)).stat().st_size > 1000
    assert "∂out/∂w = -1 × 1 × 1 × 2 = -2" in (tmp_path / "g.svg").read_text(encoding="utf-8")
    with pytest.raises(gd.ArgumentError, match=r"'g.dot' cannot hold; the name has to end in"):
        graph.visualize(tmp_path / "g.dot", values=(2, 3, 1, 9))
    with pytest.raises(gd.ArgumentError, match="layout= and level= do not apply"):
        graph.visualize(tmp_path / "g.svg", values=(2, 3, 1, 9), layout="training")
    with pytest.raises(gd.ShapeError, match=r"here of x, w, b, y: arguments nest as .*takes"):
        graph.visualize(tmp_path / "g.svg", values=(2, 3))

    def long(x):
        for _ in range(MOST_NODES):
            x = np.sin(x)
        return x

    with pytest.raises(gd.ArgumentError, match=r"at most 100 nodes, this one has 101"):
        gd.trace(long, 1.0).visualize(tmp_path / "g.svg", values=(1.0,))
