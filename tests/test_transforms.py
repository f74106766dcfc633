"""jvp, hvp, jacobian, hessian, vmap, custom rules: against finite differences and loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphdl as gd
from graphdl.numpy_functions import logsumexp, softmax

RNG = np.random.default_rng(7)
X, V = RNG.standard_normal((2, 5)), RNG.standard_normal((2, 5))
W = RNG.standard_normal((5, 3))
INDEX = np.array([1, 0, 1])


def difference(f: Any, x: Any, v: Any, step: float = 1e-6) -> Any:
    return (f(x + step * v) - f(x - step * v)) / (2 * step)


FUNCTIONS = {
    "pointwise": lambda x: np.sin(x) * np.exp(x) / (1 + x * x),
    "product": lambda x: np.tanh(x @ W) @ W.T,
    "softmax": lambda x: softmax(x, axis=1),
    "logsumexp": lambda x: logsumexp(x, axis=0),
    "reduction": lambda x: np.max(x, axis=1) * np.prod(x, axis=1) + np.var(x, axis=1),
    "movement": lambda x: np.concatenate([x[:, ::-2], np.pad(x, 1)[:2, 1:3]], axis=1).T,
    "gather": lambda x: x.T[INDEX] * x[INDEX[:2], INDEX[1:]][:, None].sum(),
    "cumulative": lambda x: np.cumsum(x, axis=1) ** 2,
    "where": lambda x: np.where(x > 0, x**3, -x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_jvp_is_the_derivative_along_a_direction(name: str) -> None:
    f = FUNCTIONS[name]
    value, tangent = gd.jvp(f, (X,), (V,))
    np.testing.assert_allclose(value, f(X), rtol=1e-12)
    np.testing.assert_allclose(tangent, difference(f, X, V), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_jacobian_contracts_to_jvp_and_vjp(name: str) -> None:
    f = FUNCTIONS[name]
    jacobian = gd.jacobian(f)(X)
    assert jacobian.shape == f(X).shape + X.shape
    pushed = np.tensordot(jacobian, V, axes=2)
    np.testing.assert_allclose(pushed, difference(f, X, V), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_vmap_is_a_loop_over_examples(name: str) -> None:
    f = FUNCTIONS[name]
    batch = RNG.standard_normal((2, 4, 5))
    looped = np.stack([f(batch[:, i]) for i in range(4)])
    np.testing.assert_allclose(gd.vmap(f, in_axes=1)(batch), looped, rtol=1e-11, atol=1e-13)
    last = gd.vmap(f, in_axes=(1,), out_axes=-1)(batch)
    np.testing.assert_allclose(last, np.moveaxis(looped, 0, -1), rtol=1e-11, atol=1e-13)


def test_vmap_of_grad_and_grad_of_vmap() -> None:
    def f(x: Any, w: Any) -> Any:
        return np.sum(np.tanh(x @ w) ** 2)

    batch = RNG.standard_normal((4, 2, 5))
    gradients = gd.vmap(gd.grad(f), in_axes=(0, None))(batch, W)
    for i in range(4):
        np.testing.assert_allclose(gradients[i], gd.grad(f)(batch[i], W), rtol=1e-12)

    def total(w: Any) -> Any:
        return np.sum(gd.vmap(f, in_axes=(0, None))(batch, w))

    looped = sum(gd.grad(f, argnums=1)(batch[i], W) for i in range(4))
    np.testing.assert_allclose(gd.grad(total)(W), looped, rtol=1e-12)


def test_vmap_over_indices_and_scatter() -> None:
    table, rows = RNG.standard_normal((3, 4, 2)), np.array([[0, 3], [2, 2], [1, 0]])

    def f(table: Any, rows: Any) -> Any:
        return np.sum(table[rows] ** 2)

    expected = [f(table[i], rows[i]) for i in range(3)]
    np.testing.assert_allclose(gd.vmap(f)(table, rows), expected, rtol=1e-12)
    np.testing.assert_allclose(
        gd.vmap(f, in_axes=(None, 0))(table[0], rows), [f(table[0], r) for r in rows], rtol=1e-12
    )
    gradients = gd.vmap(gd.grad(f))(table, rows)
    for i in range(3):
        np.testing.assert_allclose(gradients[i], gd.grad(f)(table[i], rows[i]), rtol=1e-12)
    outside = rows.copy()
    outside[1, 0] = 4
    with pytest.raises(gd.GraphIndexError, match="out of bounds"):
        gd.vmap(f)(table, outside)


def test_vmap_trees_and_refusals() -> None:
    def f(p: Any, x: Any) -> Any:
        return {"y": p["w"] @ x, "n": x.sum()}

    p, x = {"w": RNG.standard_normal((6, 3, 2))}, RNG.standard_normal((2, 6))
    result = gd.vmap(f, in_axes=({"w": 0}, 1))(p, x)
    for i in range(6):
        np.testing.assert_allclose(result["y"][i], p["w"][i] @ x[:, i], rtol=1e-12)
    with pytest.raises(gd.ShapeError, match="batch sizes differ"):
        gd.vmap(f)(p, x)
    with pytest.raises(gd.AxisError, match="has no axis 3"):
        gd.vmap(f, in_axes=(0, 3))(p, x)
    with pytest.raises(gd.ShapeError, match="differs between examples"):
        gd.vmap(f, in_axes=(0, 1), out_axes=None)(p, x)
    with pytest.raises(gd.ArgumentError, match="no argument to batch over"):
        gd.vmap(f, in_axes=None)(p, x)


def test_hessian_and_hvp() -> None:
    def f(x: Any) -> Any:
        return np.sum(np.sin(x) ** 2 * np.exp(x[::-1])) + np.prod(x)

    x, v = RNG.standard_normal(4), RNG.standard_normal(4)
    gradient = gd.grad(f)
    hessian = gd.hessian(f)(x)
    np.testing.assert_allclose(hessian @ v, difference(gradient, x, v), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(hessian, hessian.T, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(gd.hvp(f)(x, v), hessian @ v, rtol=1e-10)


def test_forward_over_reverse_equals_reverse_over_forward() -> None:
    def f(x: Any) -> Any:
        return np.sum(np.tanh(x) * x**3)

    x, v = RNG.standard_normal(5), RNG.standard_normal(5)
    forward = gd.jvp(gd.grad(f), (x,), (v,))[1]
    reverse = gd.grad(lambda x: gd.jvp(f, (x,), (v,))[1])(x)
    np.testing.assert_allclose(forward, reverse, rtol=1e-11)


def test_jacobian_of_trees_chooses_a_mode() -> None:
    def f(p: Any) -> Any:
        return {"a": p["x"] * p["y"], "b": np.sum(p["x"])}

    p = {"x": np.array([1.0, 2.0]), "y": np.array(3.0)}
    jacobian = gd.jacobian(f)(p)
    np.testing.assert_array_equal(jacobian["a"]["x"], 3 * np.eye(2))
    np.testing.assert_array_equal(jacobian["a"]["y"], [1, 2])
    np.testing.assert_array_equal(jacobian["b"]["x"], [1, 1])
    np.testing.assert_array_equal(jacobian["b"]["y"], 0)


def test_jacobian_and_hessian_of_several_arguments_in_either_mode() -> None:
    def f(x: Any, p: Any) -> Any:
        return {"a": np.sin(x) * p["y"], "b": [x @ x * p["z"]]}

    x, p = np.array([1.0, 2.0, 0.5]), {"y": np.array([2.0, -1.0, 3.0]), "z": np.array(0.7)}
    modes = [gd.jacobian(f, (1, 0), mode)(x, p) for mode in (None, "forward", "reverse")]
    for jacobian in modes:
        by_p, by_x = jacobian["a"]
        np.testing.assert_allclose(by_p["y"], np.diag(np.sin(x)), atol=1e-15)
        np.testing.assert_allclose(by_p["z"], np.zeros(3), atol=1e-15)
        np.testing.assert_allclose(by_x, np.diag(np.cos(x) * p["y"]), atol=1e-15)
        np.testing.assert_allclose(jacobian["b"][0][1], 2 * x * p["z"], rtol=1e-15)
        np.testing.assert_allclose(jacobian["b"][0][0]["z"], x @ x, rtol=1e-15)
    hessian = gd.hessian(lambda x, y: np.sum(x**2 * y), (0, 1))(x, p["y"])
    np.testing.assert_allclose(hessian[0][0], 2 * np.diag(p["y"]))
    np.testing.assert_allclose(hessian[0][1], 2 * np.diag(x))
    np.testing.assert_allclose(hessian[1][0], 2 * np.diag(x))
    np.testing.assert_array_equal(hessian[1][1], np.zeros((3, 3)))
    with pytest.raises(gd.ArgumentError, match="mode='backward'; write 'forward', 'reverse'"):
        gd.jacobian(f, mode="backward")


def test_jacobian_takes_the_cheaper_mode() -> None:
    def steps(f: Any, x: Any) -> set[Any]:
        graph = gd.trace(gd.jacobian(f), x)
        return {node.shape[0] for node in graph.operations if node.op.name == "iota"}

    assert steps(lambda x: np.stack([x, x * x]), np.ones(3)) == {3}  # forward: one for each input
    assert steps(lambda x: np.sin(x)[:2], np.ones(3)) == {2}  # reverse: one for each output


def test_custom_vjp_replaces_the_gradient() -> None:
    @gd.custom_vjp
    def clipped(x: Any, bound: Any) -> Any:
        return x * 1.0

    clipped.defvjp(
        lambda x, bound: (x * 1.0, bound),
        lambda bound, g: (np.clip(g, -bound, bound), None),
    )
    x = np.array([1.0, -2.0, 3.0])
    np.testing.assert_array_equal(clipped(x, 0.5), x)
    gradient = gd.grad(lambda x: np.sum(clipped(x, 0.5) ** 2))(x)
    np.testing.assert_array_equal(gradient, [0.5, -0.5, 0.5])
    batch = gd.vmap(gd.grad(lambda x: np.sum(clipped(x, 0.5) ** 2)))(np.stack([x, 0.1 * x]))
    np.testing.assert_allclose(batch, [[0.5, -0.5, 0.5], [0.2, -0.4, 0.5]])


def test_custom_vjp_of_several_results() -> None:
    @gd.custom_vjp
    def f(x: Any) -> Any:
        return x**2, x**3

    f.defvjp(lambda x: ((x**2, x**3), x), lambda x, g: (10 * g[0] + 100 * g[1] * x,))

    def total(x: Any) -> Any:
        a, b = f(x)
        return np.sum(3 * a + b)

    np.testing.assert_allclose(gd.grad(total)(np.array([1.0, 2.0])), [130.0, 230.0])


def test_custom_jvp_is_transposed() -> None:
    @gd.custom_jvp
    def f(x: Any, y: Any) -> Any:
        return np.sin(x) * y

    @f.defjvp
    def rule(primals: Any, tangents: Any) -> Any:
        (x, y), (dx, dy) = primals, tangents
        return f(x, y), 7 * dx * y + np.sin(x) * dy

    x, y = np.array([0.3, 1.0]), np.array([2.0, 5.0])
    np.testing.assert_allclose(gd.grad(lambda x: np.sum(f(x, y)))(x), 7 * y)
    np.testing.assert_allclose(gd.grad(lambda y: np.sum(f(x, y)))(y), np.sin(x))


def test_custom_rules_are_checked() -> None:
    @gd.custom_vjp
    def f(x: Any) -> Any:
        return x * 2

    with pytest.raises(gd.GradientError, match="call defvjp"):
        gd.grad(lambda x: np.sum(f(x)))(np.ones(3))
    f.defvjp(lambda x: (x * 2, None), lambda _, g: (g[:2],))
    with pytest.raises(gd.ShapeError, match=r"returned a cotangent of shape \[\(2,\)\]"):
        gd.grad(lambda x: np.sum(f(x)))(np.ones(3))


def test_tangents_must_match() -> None:
    with pytest.raises(gd.ShapeError, match="a tangent is"):
        gd.jvp(np.sin, (np.ones(3),), (np.ones(2),))
    with pytest.raises(gd.ShapeError, match="nest as"):
        gd.jvp(np.sin, (np.ones(3),), ((np.ones(3),),))


def test_arguments_by_name_are_differentiated_too():
    def f(w, x):
        return np.sum(w * x)

    assert float(gd.grad(f)(w=2.0, x=3.0)) == 3.0
    assert float(gd.grad(f, argnums=1)(2.0, x=3.0)) == 2.0
    assert float(gd.compile(lambda a: gd.jacobian(f)(x=a, w=1.0))(5.0)) == 5.0
    with pytest.raises(gd.GradientError, match=r"argnums='w': write the position of an argument"):
        gd.grad(f, argnums="w")(1.0, 2.0)
