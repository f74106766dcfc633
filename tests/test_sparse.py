"""gd.sparse_jacobian and gd.sparse_hessian: against dense ones, and the number of products."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np
import pytest
from scipy import sparse

import graphdl as gd
from graphdl.compiler.colouring import planned, planned_symmetric
from graphdl.ops.update import scatter, update

RNG = np.random.default_rng(5)
X = RNG.standard_normal(30)
BAND = np.diag(RNG.uniform(1, 2, 30)) + np.diag(np.ones(28), 2)
FULL = RNG.standard_normal((30, 4))
PLACES, SET = np.array([7, 1, 7]), {"axes": (0,), "starts": (0,), "steps": (1,), "mode": "set"}
SET["unique"] = False
INDEX = RNG.integers(0, 30, 12)


def tridiagonal(x: Any) -> Any:
    return np.concatenate([x[:1], x[:-2] - 2 * x[1:-1] ** 2 + x[2:], x[-1:]])


def stencil(x: Any, rows: int = 5) -> Any:
    u = np.pad(np.reshape(x, (rows, -1)), 1)
    return 4 * u[1:-1, 1:-1] ** 2 - u[:-2, 1:-1] - u[2:, 1:-1] - u[1:-1, :-2] * u[1:-1, 2:]


def arrow(x: Any) -> Any:
    return np.concatenate([np.sum(x**3)[None], x[1:] ** 2 * x[0]])


@gd.custom_vjp
def straight_through(x: Any) -> Any:
    return np.round(x)


straight_through.defvjp(lambda x: (np.round(x), None), lambda _, g: (g,))


def steps(x: Any, count: int) -> Any:
    return gd.scan(lambda u, t: (tridiagonal(u) / 9, u[:2] * t), x, np.arange(float(count)))


def while_(x: Any) -> Any:
    return gd.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, np.roll(s[1], 1) * s[1]), (0, x))


#: A function of an array of 30 elements, and how many elements its pattern has at most.
PATTERNS: dict[str, tuple[Any, int]] = {
    "pointwise": (lambda x: np.sin(x) * np.floor(x) + gd.stop_gradient(x), 30),
    "tridiagonal": (tridiagonal, 86),
    "stencil": (stencil, 128),
    "arrow": (arrow, 88),
    "only a comparison": (lambda x: (x > 0) * 1.0, 0),
    "mask": (lambda x: np.where(np.arange(30) % 3 == 0, x * x, 1.0) * (np.arange(30) < 20), 7),
    "reduction": (lambda x: np.sum(np.reshape(x, (5, 6)) ** 2, axis=1), 30),
    "maximum": (lambda x: np.max(np.reshape(x, (5, 6)), axis=0) * np.reshape(x, (5, 6)), 150),
    "movement": (lambda x: np.concatenate([x[::-2], np.reshape(x, (5, 6)).T[1]]) ** 2, 20),
    "pad with a value": (lambda x: np.pad(x[:4] ** 2, 1, constant_values=3.0), 4),
    "gather": (lambda x: x[INDEX] * x[INDEX[::-1]], 24),
    "gather by value": (lambda x: x[np.argsort(X)] * x[(x > 0).astype(int)], 930),
    "update": (lambda x: update(x**2, x[:3] * x[3], starts=(2,), steps=(4,)), 33),
    "scatter": (lambda x: scatter(x**2, x[:3] * x[3], PLACES, **SET), 33),
    "scatter, added": (lambda x: gd.grad(lambda v: np.sum(v[INDEX] ** 3))(x), 12),
    "cumulative": (lambda x: np.cumsum(np.reshape(x, (5, 6)), axis=1), 180),
    "band times vector": (lambda x: BAND @ x * x, 58),
    "vector times matrix": (lambda x: np.reshape(x, (6, 5)) @ FULL[:5], 24 * 5),
    "batched product": (lambda x: np.einsum("bi,bj->bij", *np.reshape(x, (2, 3, 5))), 150),
    "custom rule": (lambda x: straight_through(x) * np.arange(30), 29),
    "a few steps": (lambda x: steps(x, 3), 30 * 7 + 40),
    "many steps": (lambda x: steps(x, 70), 30 * 30 + 140 * 30),
    "branch": (lambda x: gd.cond(x[0] > 0, lambda u: u[::-1] ** 2, lambda u: 2 * u, x), 60),
    "several results": (lambda x: np.linalg.slogdet(np.reshape(x[:4], (2, 2)))[1] * x[:2], 8),
    "number": (lambda x: x[3] * x[4], 2),
    "constant": (lambda x: np.ones(4), 0),
    "checkpoint": (lambda x: gd.checkpoint(tridiagonal)(x), 86),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_elements_and_pattern(name: str) -> None:
    f, most = PATTERNS[name]
    blocks = gd.jacobian(f)(X)
    blocks = blocks if isinstance(blocks, tuple) else (blocks,)
    dense = np.concatenate([np.reshape(block, (-1, X.size)) for block in blocks])
    for mode in (None, "forward", "reverse") if name in ("stencil", "arrow") else (None,):
        found = gd.sparse_jacobian(f, mode=mode)
        result = found(X)
        assert isinstance(result, sparse.csr_array)
        assert result.dtype == np.float64
        np.testing.assert_allclose(result.toarray(), dense, rtol=1e-10, atol=1e-12)
        assert result.nnz <= most
        plan = found.plan(X)
        assert mode != "forward" or plan.reverse == 0
        assert mode != "reverse" or plan.forward == 0


def test_while_loops_are_followed_until_nothing_is_added() -> None:
    found = gd.sparse_jacobian(lambda x: while_(x)[1], mode="forward")
    plan = found.plan(X)
    assert plan.pattern.nnz == 900


def test_as_many_products_as_colours() -> None:
    n = gd.spec(500)
    assert gd.sparse_jacobian(tridiagonal).plan(n).products == 3
    assert gd.sparse_jacobian(tridiagonal, mode="reverse").plan(n).products == 3
    plan = gd.sparse_jacobian(arrow).plan(n)
    assert (plan.forward, plan.reverse) == (2, 1)
    plan = gd.sparse_jacobian(lambda x: arrow(x)[:1]).plan(n)
    assert (plan.forward, plan.reverse) == (0, 1)
    assert gd.sparse_jacobian(stencil).plan(X).products <= 7
    assert gd.sparse_hessian(lambda x: np.sum(arrow(x) ** 2)).plan(n).pattern.nnz == 500 * 500


def test_trees_arguments_and_float32() -> None:
    def f(scale: Any, p: Any) -> Any:
        return {"a": p["u"] ** 2 * scale, "b": (p["u"][1:] * p["v"],)}

    p = {"u": X[:4].astype(np.float32), "v": np.arange(1.0, 4.0, dtype=np.float32)}
    found = gd.sparse_jacobian(f, argnums=1)
    result = found(2.0, p).toarray()
    assert result.dtype == np.float32
    u, v = p["u"], p["v"]
    expected = np.zeros((7, 7), np.float32)
    expected[:4, :4] = np.diag(4 * u)
    expected[4:, 1:4] = np.diag(v)
    expected[4:, 4:] = np.diag(u[1:])
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    again = found(np.float32(3.0), p)
    np.testing.assert_allclose(again.toarray()[:4, :4], np.diag(6 * u), rtol=1e-6)


def test_results_do_not_share_memory() -> None:
    found = gd.sparse_jacobian(tridiagonal)
    first = found(X)
    first.data[:] = 0
    first.indices[:] = 0
    np.testing.assert_allclose(found(X).toarray(), gd.jacobian(tridiagonal)(X))


HESSIANS = {
    "chain": lambda x: np.sum((x[1:] - x[:-1]) ** 4),
    "grid": lambda x: sum(np.sum(np.diff(np.reshape(x, (5, 6)), axis=i) ** 4) for i in (0, 1)),
    "arrow": lambda x: np.sum(x**3) + x[0] * np.sum(np.sin(x)),
    "two hubs": lambda x: np.sum(x**3) + (x[3] - x[7]) * np.sum(np.sin(x)),
    "full": lambda x: np.sum(np.sin(x)) ** 3,
    "linear": lambda x: np.sum(3 * x),
}
PRODUCTS = {"chain": 3, "grid": 7, "arrow": 2, "two hubs": 3, "full": 30, "linear": 0}


@pytest.mark.parametrize("name", HESSIANS)
def test_hessians(name: str) -> None:
    f = HESSIANS[name]
    found = gd.sparse_hessian(f)
    result = found(X)
    dense = gd.hessian(f)(X)
    np.testing.assert_allclose(result.toarray(), dense, rtol=1e-10, atol=1e-12)
    assert found.plan(X).products <= PRODUCTS[name] + 2 * (name == "grid")


def test_random_patterns_are_recovered() -> None:
    for _ in range(40):
        shape = RNG.integers(1, 25, 2)
        dense = RNG.standard_normal(shape) * (RNG.random(shape) < RNG.uniform(0, 0.4))
        dense[RNG.integers(shape[0])] = 1.0
        matrix = sparse.csr_array(dense)
        for mode in (None, "forward", "reverse"):
            plan = planned(matrix.astype(bool), mode)
            np.testing.assert_array_equal(recovered(matrix, plan), matrix.data)
        square = RNG.standard_normal((20, 20)) * (RNG.random((20, 20)) < RNG.uniform(0, 0.2))
        square[0] = 1.0
        whole = sparse.csr_array(square + square.T)
        plan = planned_symmetric(whole.astype(bool))
        np.testing.assert_array_equal(recovered(whole, plan), whole.data)


def recovered(matrix: Any, plan: Any) -> Any:
    """The elements from the products of a matrix with the colours."""
    forward = [matrix @ (plan.columns == c) for c in range(plan.forward)]
    reverse = [(plan.rows == c) @ matrix for c in range(plan.reverse)]
    return np.concatenate([np.zeros(0), *forward, *reverse])[plan.places]


def test_ten_thousand_unknowns() -> None:
    x = RNG.standard_normal(10_000)
    start = perf_counter()
    found = gd.sparse_jacobian(lambda x: stencil(x, 100))
    result = found(x)
    assert perf_counter() - start < 20  # 0.5 s on an idle machine
    assert found.plan(x).products <= 7
    v = RNG.standard_normal(10_000)
    _, pushed = gd.jvp(lambda x: stencil(x, 100), (x,), (v,))
    np.testing.assert_allclose(result @ v, pushed.ravel(), rtol=1e-9, atol=1e-9)


def test_mistakes() -> None:
    with pytest.raises(gd.ArgumentError, match="mode='sideways'; write 'forward', 'reverse'"):
        gd.sparse_jacobian(tridiagonal, mode="sideways")
    with pytest.raises(gd.UnsupportedError, match="which a trace cannot hold"):
        gd.compile(lambda x: gd.sparse_jacobian(tridiagonal)(x))(X)
    with pytest.raises(gd.GradientError, match="only floats have gradients"):
        gd.sparse_jacobian(tridiagonal)(np.arange(4))
    with pytest.raises(gd.GradientError, match=r"argnums=3: tridiagonal was called with 1"):
        gd.sparse_jacobian(tridiagonal, argnums=3)(X)
    with pytest.raises(gd.GradientError, match="grad needs a scalar"):
        gd.sparse_hessian(tridiagonal)(X)
