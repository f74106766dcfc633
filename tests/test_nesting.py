"""Transformations within each other, over trees, through checkpoints, rules, loops and user ops."""

from __future__ import annotations

from typing import Any

import numpy as np
import optree
import pytest

import graphdl as gd

RNG = np.random.default_rng(23)
P = {"w": RNG.standard_normal((3, 3)) / 2, "b": (RNG.standard_normal(3), 0.3)}
V = {"w": RNG.standard_normal((3, 3)), "b": (RNG.standard_normal(3), -0.7)}
XS = RNG.standard_normal((4, 3))


def layer(x: Any, p: Any) -> Any:
    return np.tanh(x @ p["w"] + p["b"][0]) * np.exp(p["b"][1] * x)


@gd.custom_vjp
def ruled(x: Any) -> Any:
    return np.sin(x) * x


ruled.defvjp(lambda x: (np.sin(x) * x, x), lambda x, g: (g * (np.cos(x) * x + np.sin(x)),))


@gd.custom_jvp
def pushed(x: Any) -> Any:
    return x**3


@pushed.defjvp
def _(primals: Any, tangents: Any) -> Any:
    return pushed(*primals), 3 * primals[0] ** 2 * tangents[0]


compiled_by_numba = gd.op(lambda x, y: x * x * y + y)


#: An example and a tree of parameters -> a number.
FUNCTIONS: dict[str, Any] = {
    "plain": lambda x, p: np.sum(layer(x, p) ** 2),
    "checkpoint": lambda x, p: np.sum(gd.checkpoint(layer)(gd.checkpoint(layer)(x, p), p)),
    "custom vjp": lambda x, p: np.sum(ruled(layer(x, p))),
    "custom jvp": lambda x, p: np.sum(pushed(layer(x, p))),
    "user op": lambda x, p: np.sum(compiled_by_numba(layer(x, p), x)),
    "scan": lambda x, p: np.sum(gd.scan(lambda c, _: (layer(c, p), c[0]), x, length=3)[1]),
    "scan of checkpoints": lambda x, p: np.sum(
        gd.fori_loop(0, 3, lambda i, c: gd.checkpoint(layer)(c, p) * i, x)
    ),
    "branch": lambda x, p: gd.cond(
        x[0] > 0, lambda x: np.sum(layer(x, p)), lambda x: np.sum(x * p["b"][0] ** 3), x
    ),
    "gradient inside": lambda x, p: np.sum(gd.grad(lambda x: np.sum(layer(x, p) ** 2))(x) ** 2),
    "vmap inside": lambda x, p: np.sum(gd.vmap(lambda u: u * np.sin(u * p["b"][1]))(x)),
}


def leaves(tree: Any) -> list[Any]:
    return [np.asarray(leaf) for leaf in optree.tree_leaves(tree)]


def dot(a: Any, b: Any) -> Any:
    pairs = zip(optree.tree_leaves(a), optree.tree_leaves(b), strict=True)
    return sum(np.sum(x * y) for x, y in pairs)


def moved(p: Any, v: Any, step: float) -> Any:
    return optree.tree_map(lambda x, y: x + step * y, p, v)


def close(found: Any, expected: Any, tolerance: float) -> None:
    for got, want in zip(leaves(found), leaves(expected), strict=True):
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_second_derivatives_in_every_order_of_modes(name: str) -> None:
    f = FUNCTIONS[name]
    x = XS[0]

    def loss(p: Any) -> Any:
        return f(x, p)

    def in_every_order(p: Any, v: Any) -> Any:
        gradient = gd.grad(loss)
        hessian = gd.hessian(loss)(p)
        rows = [
            dot(hessian["w"]["w"][i, j], v["w"])
            + dot(hessian["w"]["b"][0][i, j], v["b"][0])
            + hessian["w"]["b"][1][i, j] * v["b"][1]
            for i in range(3)
            for j in range(3)
        ]
        return {
            "forward over reverse": gd.jvp(gradient, (p,), (v,))[1],
            "reverse over forward": gd.grad(lambda p: gd.jvp(loss, (p,), (v,))[1])(p),
            "reverse over reverse": gd.grad(lambda p: dot(gradient(p), v))(p),
            "forward over forward": gd.jvp(lambda p: gd.jvp(loss, (p,), (v,))[1], (p,), (v,))[1],
            "hvp": gd.hvp(loss)(p, v),
            "rows": np.stack(rows),
        }

    found = gd.trace(in_every_order, P, V).evaluate(P, V)
    gradient = gd.trace(gd.grad(loss), P)
    step = 1e-5
    after, before = (gradient.evaluate(moved(P, V, s * step)) for s in (1, -1))
    expected = optree.tree_map(lambda a, b: (a - b) / (2 * step), after, before)
    for order in ("forward over reverse", "reverse over forward", "reverse over reverse", "hvp"):
        close(found[order], expected, 1e-6)
    close(found["forward over forward"], dot(expected, V), 1e-6)
    close(found["rows"], expected["w"].ravel(), 1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_batches_of_derivatives_and_derivatives_of_batches(name: str) -> None:
    f = FUNCTIONS[name]

    def batches(xs: Any, p: Any, v: Any) -> Any:
        of_one = gd.grad(f, argnums=(0, 1))
        return {
            "vmap of grad": gd.vmap(of_one, in_axes=(0, None))(xs, p),
            "grad of vmap": gd.grad(lambda p: np.sum(gd.vmap(f, in_axes=(0, None))(xs, p)))(p),
            "vmap of hvp": gd.vmap(lambda x: gd.hvp(lambda p: f(x, p))(p, v))(xs),
            "jacobian of vmap": gd.jacobian(
                lambda b: gd.vmap(lambda x: f(x, {"w": p["w"], "b": (b, p["b"][1])}))(xs)
            )(p["b"][0]),
            "scan of grad": gd.scan(
                lambda p, x: (moved(p, gd.grad(f, argnums=1)(x, p), -0.01), 0.0), p, xs
            )[0],
        }

    found = gd.trace(batches, XS, P, V).evaluate(XS, P, V)
    one = gd.trace(gd.grad(f, argnums=(0, 1)), XS[0], P)
    each = [one.evaluate(x, P) for x in XS]
    stacked = optree.tree_map(lambda *parts: np.stack(parts), *each)
    close(found["vmap of grad"], stacked, 1e-10)
    close(found["grad of vmap"], optree.tree_map(lambda x: x.sum(0), stacked[1]), 1e-10)
    close(found["jacobian of vmap"], stacked[1]["b"][0], 1e-10)
    second = gd.trace(lambda x, p, v: gd.hvp(lambda p: f(x, p))(p, v), XS[0], P, V)
    close(
        found["vmap of hvp"],
        optree.tree_map(lambda *parts: np.stack(parts), *[second.evaluate(x, P, V) for x in XS]),
        1e-9,
    )
    p = P
    for x in XS:
        p = moved(p, one.evaluate(x, p)[1], -0.01)
    close(found["scan of grad"], p, 1e-10)


def test_compiled() -> None:
    f = FUNCTIONS["plain"]
    product = gd.compile(lambda p, v: gd.jvp(gd.grad(lambda p: f(XS[0], p)), (p,), (v,))[1])
    other = gd.compile(
        lambda p, v: gd.grad(lambda p: gd.jvp(lambda p: f(XS[0], p), (p,), (v,))[1])(p)
    )
    close(product(P, V), other(P, V), 1e-9)
    batch = gd.vmap(gd.grad(f, argnums=1), in_axes=(0, None))(XS, P)
    close(optree.tree_map(lambda x: x[1], batch), gd.grad(f, argnums=1)(XS[1], P), 1e-10)
