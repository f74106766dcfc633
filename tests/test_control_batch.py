"""vmap of loops and branches, against one call for each example in plain Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import optree
import plain_control
import pytest

import graphdl as gd

RNG = np.random.default_rng(8)
SIZE = 4
X = RNG.standard_normal((SIZE, 3))
W = RNG.standard_normal((SIZE, 3, 3)) / 2
N = np.array([0, 3, 1, 5])


def recurrent(m: Any, x: Any, w: Any) -> Any:
    def step(c: Any, row: Any) -> Any:
        c = np.tanh(c @ w + row)
        return c, (c.sum(), row * 2)

    return m.scan(step, np.ones(3), np.stack([x, x * 2, x + 1]), reverse=True)


def counted(m: Any, x: Any, w: Any) -> Any:
    """A carry that is batched from the second step on, and one that never is."""
    return m.fori_loop(
        0, 5, lambda i, c: (c[0] * c[1] + i, x[1] + 0 * c[2], c[2] + 1), (1.0, 2.0, 0)
    )


def growing(m: Any, x: Any, n: Any) -> Any:
    """A step too many would divide by zero, or read behind the end of x."""

    def step(s: Any) -> Any:
        return s[0] + 1, s[1] * x + 1 / (n - s[0]), s[2] + np.concatenate([x, x])[s[0]]

    return m.while_loop(lambda s: s[0] < n, step, (0, np.ones(3), 0.0))


def halving(m: Any, x: Any, n: Any) -> Any:
    """Without an end for an example that does not take the branch."""

    def slow(x: Any) -> Any:
        return m.while_loop(lambda s: s[0] > 1, lambda s: (s[0] - 2 * n, s[1] + 1), (n * 9, x))[1]

    return m.cond(n > 2, slow, lambda x: x * n, x)


def branching(m: Any, x: Any, n: Any) -> Any:
    """x[n] is out of bounds where the other branch is taken."""
    y = m.cond(n > 2, lambda x: (np.sqrt(np.abs(x)).sum(), x), lambda x: (x[n], x * 2), x)
    return y, m.switch(n - 1, [lambda x: x * 1.0, lambda x: x * 10, lambda x: np.flip(x) + n], x)


def mapped(m: Any, x: Any, n: Any) -> Any:
    return m.map(lambda row: row * x.sum() + n, x)


def nested(m: Any, x: Any, n: Any) -> Any:
    def step(c: Any, row: Any) -> Any:
        def grow(v: Any) -> Any:
            return m.cond(v > 1, lambda v: v + row**2 + 0.1, lambda v: v * 1.5 + 0.5, v)

        v = m.while_loop(lambda v: v < n, grow, c)
        return v * 0.5, v

    return m.scan(step, 0.3, x)


CASES = [
    (recurrent, X, W),
    (counted, X, W),
    (growing, X, N),
    (halving, X, N),
    (branching, X, N),
    (mapped, X, N),
    (nested, X, N),
]


@pytest.mark.parametrize(("f", "x", "y"), CASES, ids=[case[0].__name__ for case in CASES])
@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)])
def test_a_batch_is_one_call_for_each_example(f: Any, x: Any, y: Any, axes: Any) -> None:
    args = [value if axis == 0 else value[1] for value, axis in zip((x, y), axes, strict=True)]

    def example(i: int) -> list[Any]:
        return [value[i] if axis == 0 else value for value, axis in zip(args, axes, strict=True)]

    expected = [f(plain_control, *example(i)) for i in range(SIZE)]
    found = gd.vmap(lambda x, y: f(gd, x, y), in_axes=axes)(*args)
    for i in range(SIZE):
        optree.tree_map(
            lambda a, b: np.testing.assert_allclose(a[i], b, rtol=1e-12, atol=1e-13),  # noqa: B023
            found,
            expected[i],
        )


def test_an_unbatched_condition_keeps_the_branch_and_the_loop() -> None:
    def f(x: Any, p: Any) -> Any:
        y = gd.cond(p, lambda x: x * 2, lambda x: x[:1] + x, x)
        return gd.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] + y), (0, x))

    graph = gd.trace(gd.vmap(f, in_axes=(0, None)), X, np.bool_(True))
    kinds = [node.op.name for node in graph.operations if node.op.family == "control"]
    assert kinds == ["switch", "while"]
    count, rows = gd.vmap(f, in_axes=(0, None))(X, np.bool_(True))
    np.testing.assert_array_equal(count, [3] * SIZE)
    np.testing.assert_allclose(rows, X * 7)


def test_the_gradient_of_a_batch_is_not_nan_where_another_branch_would_be() -> None:
    def f(x: Any) -> Any:
        return gd.cond(x > 0, np.sqrt, lambda x: x**2, x)

    x = np.array([-2.0, 4.0, 0.0, 9.0])
    slopes = np.array([-4.0, 0.25, 0.0, 1 / 6])
    np.testing.assert_allclose(gd.grad(lambda x: np.sum(gd.vmap(f)(x)))(x), slopes)
    np.testing.assert_allclose(gd.vmap(gd.grad(f))(x), slopes)


def test_jacobian_and_hessian_of_a_scan() -> None:
    def f(m: Any, x: Any) -> Any:
        return m.scan(lambda c, row: (np.sin(c * row + x[0]), c), x[1], x)[0]

    np.testing.assert_allclose(
        gd.hessian(lambda x: f(gd, x))(X[0]), gd.hessian(lambda x: f(plain_control, x))(X[0])
    )
    np.testing.assert_allclose(
        gd.jacobian(lambda x: f(gd, x) * x)(X[0]),
        gd.jacobian(lambda x: f(plain_control, x) * x)(X[0]),
    )
    per_example = gd.vmap(gd.grad(lambda x: f(gd, x)))(X)
    np.testing.assert_allclose(per_example, [gd.grad(lambda x: f(plain_control, x))(x) for x in X])
