"""Which nodes are forward, backward and update; layers; gradients by name."""

import numpy as np
import pytest

import graphdl as gd
from graphdl import nn
from graphdl.visualize.roles import depth_of, roles_of


def _spec(*shape):
    return gd.spec(shape)


def _names(graph, roles):
    return {node.op.name: roles.phase[node] for node in graph.operations}


def test_a_training_step_has_three_phases():
    def step(w, x, y):
        with gd.scope("model"):
            h = np.tanh(x @ w)
        return h, gd.grad(lambda w: np.sum((np.tanh(x @ w) - y) ** 2))(w)

    def update(w, v, x, y):
        _, g = step(w, x, y)
        v = 0.9 * v + g
        return w - 0.1 * v, v

    graph = gd.compile(update).lower(_spec(4, 3), _spec(4, 3), _spec(8, 4), _spec(8, 3)).optimized
    roles = roles_of(graph)
    assert {roles.phase[node] for node in graph.operations if node.op.name == "tanh"} == {"forward"}
    assert {roles.phase[node] for node in graph.outputs} == {"update"}
    decayed = [n for n in graph.operations if graph.inputs[1] in n.inputs]
    assert {roles.phase[node] for node in decayed} == {"update"}  # it serves the update only
    assert roles.parameters == {graph.inputs[0]}
    gradient = [node for node, of in roles.gradient_of.items() if of is graph.inputs[0]]
    assert [node.type for node in gradient] == [graph.inputs[0].type]
    assert all(roles.phase[node] == "backward" for node in gradient)


def test_each_pass_keeps_what_is_backward():
    def loss(w, x):
        return np.sum(np.exp(np.tanh(x @ w)))

    executable = gd.compile(gd.grad(loss)).lower(_spec(4, 3), _spec(8, 4))
    for name, graph in executable.passes:
        phases = set(roles_of(graph).phase.values())
        assert "backward" in phases, name
        assert "update" not in phases, name


def test_a_graph_without_gradient_is_forward():
    graph = gd.trace(lambda x: np.tanh(x) * 2.0, _spec(3))
    roles = roles_of(graph)
    assert set(roles.phase.values()) == {"forward"}
    assert not roles.training
    assert not roles.gradient_of


def test_forward_mode_runs_forward():
    graph = gd.compile(lambda x, v: gd.jvp(np.tanh, (x,), (v,))).lower(_spec(3), _spec(3)).optimized
    assert not roles_of(graph).training


def test_the_gradient_of_a_gradient_runs_forward_again():
    inner = gd.grad(lambda x: np.sum(np.tanh(x) ** 3))
    graph = gd.trace(gd.grad(lambda x: np.sum(inner(x) ** 2)), _spec(3))
    depths = {depth_of(graph.sources.get(node)) for node in graph.operations}
    assert depths == {0, 1, 2}
    roles = roles_of(graph)
    for node in graph.operations:
        depth = depth_of(graph.sources.get(node))
        assert depth != 2 or roles.phase[node] == "forward"
    assert roles.training


def test_scopes_are_layers_in_the_order_in_which_they_run():
    def f(x):
        with gd.scope("first"):
            x = np.sin(x)
            with gd.scope("inner"):
                x = np.cos(x)
        for i in range(2):
            with gd.scope("again"):
                x = np.tanh(x) + i
        return np.sum(x)

    graph = gd.trace(f, _spec(3))
    roles = roles_of(graph)
    names = [roles.bands[roles.band[n]] for n in graph.operations if n.op.family == "pointwise"]
    assert names == ["first", "first / inner", "again", "again", "again", "again"][: len(names)]
    assert roles.bands == ("first", "first / inner", "again", "again", "f")
    assert [roles.band[n] for n in graph.operations if n.op.name == "tanh"] == [2, 3]


def test_backward_and_update_stand_in_the_layer_of_what_they_belong_to():
    model = nn.Sequential([nn.Dense(5, activation="tanh"), nn.Dense(2)])
    params = model.init(0, (3,))

    def step(params, x):
        gradients = gd.grad(lambda p: np.sum(model.apply(p, x) ** 2))(params)
        return {
            layer: {name: p - 0.1 * gradients[layer][name] for name, p in leaves.items()}
            for layer, leaves in params.items()
        }

    graph = gd.compile(step).lower(params, gd.spec((4, 3), "float32")).optimized
    roles = roles_of(graph)
    assert roles.bands[:2] == ("dense", "dense_1")
    for i, node in enumerate(graph.inputs[:4]):
        layer = 0 if "'dense']" in graph.label(i) else 1
        gradient = next(n for n, of in roles.gradient_of.items() if of is node)
        assert roles.band[gradient] == layer
        assert roles.band[graph.outputs[i]] == layer
        assert roles.phase[graph.outputs[i]] == "update"


def test_a_constant_that_both_ways_share_leaves_the_forward_way_forward():
    def f(z):
        slope = gd.grad(lambda x: np.sum(np.abs(np.exp(1j * x)) ** 2))(z.real)
        return slope + np.abs(z)

    for _, graph in gd.compile(f).lower(gd.spec(4, "complex128")).passes:
        roles = roles_of(graph)
        assert {roles.phase[n] for n in graph.operations if n.op.name == "exp"} == {"forward"}
        assert roles.phase[graph.outputs[0]] == "update"


@pytest.mark.parametrize("steps", [10, 100, 400])
def test_steps_without_products_are_pieces_of_equal_depth(steps):
    def loss(w, x):
        for _ in range(steps):
            x = x + np.sin(w * x)
        return np.sum(x)

    graph = gd.trace(gd.grad(loss), _spec(8), _spec(8))
    roles = roles_of(graph)
    forward = [node for node in graph.operations if roles.phase[node] == "forward"]
    assert len(roles.bands) == -(-3 * steps // 60)  # sum's value is in no gradient
    assert {roles.band[node] for node in graph.operations} == set(range(len(roles.bands)))
    for node in forward:  # down
        assert all(roles.band[x] <= roles.band[node] for x in node.inputs if x in roles.band)
    for node in graph.operations:  # and up
        if roles.phase[node] == "backward":
            above = [x for x in node.inputs if roles.phase.get(x) == "backward"]
            assert all(roles.band[x] >= roles.band[node] for x in above)


def test_layers_without_scopes_begin_with_a_product():
    def loss(ws, x):
        for w in ws:
            x = np.tanh(x @ w)
        return np.sum(x)

    graph = gd.trace(gd.grad(loss), [_spec(3, 3)] * 4, _spec(2, 3))
    roles = roles_of(graph)
    assert len(roles.bands) == 4
    tanh = [n for n in graph.operations if n.op.name == "tanh"]
    assert [roles.band[node] for node in tanh] == [0, 1, 2, 3]


def test_a_scope_outside_of_a_trace_does_nothing_and_needs_a_name():
    with gd.scope("plain"):
        assert float(np.tanh(0.0)) == 0.0
    for name in ("", None, 3):
        with pytest.raises(gd.ArgumentError, match=r"gd\.scope takes a name"), gd.scope(name):
            pass


def test_a_scope_ends_where_its_block_raises():
    def f(x):
        try:
            with gd.scope("broken"):
                raise KeyError
        except KeyError:
            return np.tanh(x)

    graph = gd.trace(f, _spec(3))
    assert all(not source.scopes for source in graph.sources.values())


def test_every_node_after_the_passes_has_a_line():
    def loss(w, x):
        logits = x @ w
        shifted = logits - np.max(logits, axis=-1, keepdims=True)
        return np.sum(np.log(np.sum(np.exp(shifted), axis=-1)))

    graph = gd.compile(gd.value_and_grad(loss)).lower(_spec(4, 3), _spec(8, 4)).optimized
    assert [node for node in graph.operations if node not in graph.sources] == []
