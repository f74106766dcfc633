"""The graph: interned immutable nodes, order, printing, evaluation, rebuilding, networkx."""

from __future__ import annotations

import gc
import re
import threading

import networkx
import numpy as np
import pytest

from graphdl.errors import ShapeError
from graphdl.graph import Graph, Node, intern, rebuild, topological, users
from graphdl.ops import movement, pointwise
from graphdl.ops.op import node_of, rebuilt
from graphdl.types import TensorType, as_dtype, contiguous_strides, spec
from tests.helpers import trace


def example() -> Graph:
    return trace(lambda x, y: (np.tanh(x) @ y, x + 1), np.ones((2, 3)), np.ones((3, 4)))


def test_the_same_operation_is_the_same_node():
    graph = trace(lambda x: np.sin(x) + np.sin(x), np.ones(3))
    assert [node.op.name for node in graph.operations] == ["sin", "add"]
    graph = trace(lambda x: (x * 2.0, x * 2.0), np.ones(3))
    assert graph.outputs[0] is graph.outputs[1]


def test_zero_and_minus_zero_are_different_constants():
    graph = trace(lambda x: (x + 0.0, x + -0.0), np.ones(3))
    assert graph.outputs[0] is not graph.outputs[1]


def test_a_node_is_immutable_and_made_by_interning_only():
    node = example().outputs[0]
    with pytest.raises(AttributeError, match="immutable"):
        node.type = None
    with pytest.raises(TypeError, match="intern"):
        Node()
    assert intern(node.op, node.inputs, node.attrs, node.type) is node
    assert rebuilt(node, node.inputs) is node
    with pytest.raises(KeyError):
        node["nothing"]
    assert node["lo"] == (0, 2)


def test_nodes_that_nobody_holds_are_freed():
    from graphdl import graph as module

    gc.collect()
    before = len(module._nodes)
    kept = example()
    assert len(module._nodes) > before
    del kept
    gc.collect()
    assert len(module._nodes) <= before


def test_threads_intern_the_same_nodes():
    base = example().inputs[0]
    made: list[list[Node]] = []

    def work():
        made.append([node_of(pointwise.tanh, [base]) for _ in range(50)])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(node) for nodes in made for node in nodes}) == 1


def test_nodes_stand_after_what_they_need():
    graph = example()
    position = {node: i for i, node in enumerate(graph.nodes)}
    assert all(position[i] < position[node] for node in graph.nodes for i in node.inputs)
    assert set(topological(graph.outputs)) == set(graph.nodes)
    assert graph.nodes[:2] == graph.inputs
    assert users(graph.nodes)[graph.inputs[0]] == [
        node for node in graph.nodes if graph.inputs[0] in node.inputs
    ]


def test_an_input_that_is_not_used_stays_an_input():
    graph = trace(lambda x, y: x, np.ones(2), np.ones(3))
    assert len(graph.inputs) == 2
    np.testing.assert_array_equal(graph.evaluate(np.zeros(2), np.ones(3)), np.zeros(2))


def test_a_graph_reads_like_a_program():
    text = str(example())
    lines = text.splitlines()
    assert lines[0] == "graph(x: float64[2, 3], y: float64[3, 4]):"
    assert re.search(r"%0: float64\[2, 3\] = tanh\(x\) +# .*test_graph.py:\d+", text)
    assert re.search(r"constant\(value=1.0\)", text)
    assert lines[-1].startswith("  return %")


def test_evaluate_nests_as_the_results_do():
    graph = trace(lambda x: {"a": (x, x + 1), "b": [x * 2]}, np.ones(2))
    result = graph.evaluate(np.ones(2))
    assert result.keys() == {"a", "b"}
    assert isinstance(result["a"], tuple)
    np.testing.assert_array_equal(result["b"][0], [2, 2])


def test_evaluate_refuses_what_does_not_fit():
    graph = example()
    with pytest.raises(ShapeError, match=r"argument x has shape \(3,\)"):
        graph.evaluate(np.ones(3), np.ones((3, 4)))
    with pytest.raises(ShapeError, match="argument x is float32"):
        graph.evaluate(np.ones((2, 3), "float32"), np.ones((3, 4)))
    with pytest.raises(ShapeError, match="arguments nest as"):
        graph.evaluate(np.ones((2, 3)))


def test_evaluate_leaves_arguments_and_results_apart():
    graph = trace(lambda x: (x, np.broadcast_to(x[0], (3,)), x.T), np.ones((2, 2))[:, 0])
    x = np.ones(2)
    results = graph.evaluate(x)
    for result in results:
        result[...] = 7
    np.testing.assert_array_equal(x, 1)


def test_rebuild_replaces_nodes_and_keeps_lines():
    graph = trace(lambda x: np.sum(np.sin(x) * 2.0), np.ones(3))

    def cosine(node, inputs):
        return node_of(pointwise.cos, inputs) if node.op is pointwise.sin else rebuilt(node, inputs)

    new = rebuild(graph, cosine)
    np.testing.assert_allclose(new.evaluate(np.ones(3)), 6 * np.cos(1))
    assert all(node in new.sources for node in new.operations)
    assert str(new) == str(graph).replace("sin(", "cos(")


def test_networkx_has_every_node_and_operand():
    graph = trace(lambda x: x * x + np.sin(x), np.ones(3))
    result = graph.to_networkx()
    assert networkx.is_directed_acyclic_graph(result)
    assert len(result) == len(graph.nodes)
    assert result.number_of_edges() == sum(len(node.inputs) for node in graph.nodes)
    assert result.nodes[0] | {"source": None} == {
        "op": "input", "name": "x", "dtype": "float64", "shape": (3,),
        "attrs": dict(graph.inputs[0].attrs), "source": None, "input": True, "output": False,
    }  # fmt: skip
    square = next(i for i, data in result.nodes(data=True) if data["op"] == "multiply")
    assert sorted(data["position"] for _, _, data in result.in_edges(square, data=True)) == [0, 1]


def test_types():
    type = spec((2, 3), "float32")
    assert (type.ndim, type.size, type.nbytes, type.is_float) == (2, 6, 24, True)
    assert str(type) == "float32[2, 3]"
    assert str(spec((), bool)) == "bool[]"
    assert spec(3) == TensorType(np.dtype(float), (3,))
    assert contiguous_strides((2, 3, 4)) == (12, 4, 1)
    assert as_dtype(">f4") == np.dtype("float32")
    assert as_dtype(">f4").isnative
    with pytest.raises(ValueError, match="negative"):
        spec((2, -1))


def test_a_constant_is_printed_by_its_value_if_that_is_short():
    graph = trace(lambda x: x + np.array([1.0, 2.0]) + np.arange(100.0)[:, None], np.ones(2))
    assert "value=[1.0, 2.0]" in str(graph)
    assert "value=<float64[100]>" in str(graph)
    assert graph.nodes[1].op is movement.constant
