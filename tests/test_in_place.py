"""In-place code on traced arrays: what NumPy does to arrays, seen through every name and view."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphdl as gd
from graphdl.errors import ConcreteValueError, DtypeError, GraphError, ShapeError, UnsupportedError
from tests.helpers import same
from tests.programs import check_compiled

RNG = np.random.default_rng(0)
VALUES = {
    "x": RNG.normal(size=(4, 6)),
    "y": RNG.normal(size=(4, 6)),
    "c": RNG.normal(size=(2, 3, 4)),
    "v": RNG.normal(size=6),
    "w": RNG.normal(size=4),
    "i": RNG.integers(-9, 9, (4, 6)),
    "b": RNG.normal(size=(4, 6)) > 0,
    "k": np.array([2, 0, 3]),
    "j": np.array([1, 0, 1]),
    "q": np.array(1.5),
}
CONSTANTS = {
    "K": np.array([2, 0, 3]),
    "M": np.array([True, False, True, True]),
    "B": VALUES["y"] > 0.3,
    "ONE": np.float32(1.0),
}


def function(lines: str) -> Callable[..., Any]:
    """The function of these lines of code, on copies of `VALUES`, that returns all of them."""
    body = textwrap.indent(textwrap.dedent(lines).strip(), "    ")
    text = f"def f({', '.join(VALUES)}):\n{body}\n    return [{', '.join(VALUES)}]\n"
    namespace: dict[str, Any] = {"np": np, **CONSTANTS}
    exec(compile(text, "<in place>", "exec"), namespace)
    return namespace["f"]


def copies() -> list[Any]:
    return [value.copy() for value in VALUES.values()]


def check(lines: str) -> None:
    f = function(lines)
    args = copies()
    same(gd.trace(f, *args).evaluate(*args), f(*copies()), exact=False)
    for array, value in zip(args, VALUES.values(), strict=True):
        np.testing.assert_array_equal(array, value, err_msg="an argument was modified")


#: Lines that change arrays; one case a line.
CASES = """
x[0] = 1
x[1, 2] = w[0]
x[...] = 5
x[()] = y
x[:] = v
x[1:-1] += y[1:-1]
x[::2, ::-1] = y[:2]
x[-1:0:-2] *= 2
x[:, 1] = w
x[:, None, 1] = w[:, None]
x[None, ..., 2:4] = 7
x[1:1] = 3
x[[0, 2]] = v
x[K] = y[:3]
x[K] += 1
x[k] = y[:3]
x[k] *= y[0]
x[k, j] = w[:3]
x[k, 2:4] = y[:3, :2]
x[1:3, k] = y[:2, :3]
x[k[:, None], j] = 3.0
x[:, k] = 1
x[k[0]] = v
x[k[0], 1:3] = v[:2]
x[:, k[0]] = w
x[j, j] = w[:3]
c[:, [0, 2], 1] = 4
c[0, :, [0, 1]] = c[1, 0, :3]
c[k % 2, :, j] = c[0, :, :1].T
c[j, :, 1:3] = 8
c[:, 1, None, [2, 3]] = 1
c[..., k] += 1
x[np.arange(4), [0, 3, 1, 5]] = w
x[np.arange(3), k] -= 1
x[M] = 0
x[M] = y[:3]
x[M, 1] = w[:3]
x[B] = 0
x[B] += 1
x[:, B[0]] = 3
x[x > 0] = 0
x[x > 0] *= 2
x[x > y] = y[x > y]
x[b] = x[b] ** 2 + np.sin(y[b])
x[b] = q
x[~b] -= q
x[x > 0.5] = np.sqrt(x[x > 0.5])
x[x[:, 0] > 0] = v
x[x[:, 0] > 0] += 1
x[:, v > 0] = w[:, None]
x[1:3, v > 0] = 2
x[..., v > 0] *= -1
x[w > 0, 2] = 9
x[0, v > 0] = 9
x[b] = np.where(q > 0, 1.0, 2.0)
v[0] = x[b].sum()
v[0] = x[b].mean() + np.max(x[b]) + (x[b] * 2).min() + x[b].std()
v[:] = x[x[:, 0] > 0].sum(axis=0)
v[0] = np.any(x[b] > 1)
i[0] = 2.7
i[1] = w[0]
i[2] += 3
i[b] //= 2
i[i < 0] = 1
b[0] = x[0]
b[:] |= x > 0
i[:, 0] = b[:, 0]
x += 1
x -= v
x *= ONE
x /= w[:, None]
i //= 2
i **= 2
x @= np.eye(6)
b &= x > 0
x.T[1] = w
x.T[1:3, ::2] += 1
x.reshape(-1)[3:9] = 0
x.reshape(2, 2, 6)[0, 1] = v
x.reshape(3, 8)[:, 2:5] *= 3
x[1:3].reshape(-1)[2:5] = 1
x[:, :3].reshape(-1)[2:5] = 1
x.T.reshape(-1)[2:5] = 1
x.ravel()[::5] = 2
x.ravel()[k] = 2
x.flatten()[:] = 2
x.copy()[:] = 2
x[0].copy()[:] = 2
x[[0, 1]][:] = 2
x[x > 0][...] if False else None
x.swapaxes(0, 1)[2][1:] = 1
np.moveaxis(c, 0, -1)[..., 1] = 0
np.transpose(c, (2, 0, 1))[1:3, 0][:, ::-1] = v[:3]
np.expand_dims(x, 0)[0, 1] = 4
np.squeeze(x[None])[2] = 4
np.flip(x)[0] = v
np.flipud(x)[0, 1:3] = 1
np.rot90(x)[0] = w
np.split(x, 2)[1][:] = 0
np.array_split(x, 3, axis=1)[2][:] = 0
np.broadcast_to(v, (2, 6)).copy()[:] = 1
np.concatenate([x, y])[:] = 0
np.roll(x, 0)[:] = 0
np.round(i)[:] = 0
np.sum(x[None], axis=0)[:] = 0
x.astype(float)[:] = 0
x.astype(float, copy=False)[0] if False else None
np.clip(x, -9, 9)[:] = 0
np.add(x, y, out=x)
np.add(x, 1, out=x[:, :]); np.multiply(x, 2, out=x.T.T)
np.exp(y, out=x)
np.exp(y[0], out=x[1])
np.add(v, 1, out=x)
np.sin(x, out=x, where=b)
np.add(i, 1, out=x, where=x > 0)
np.multiply(i, 2, out=i)
np.divide(x, y, out=x, where=B)
np.modf(x, x, y)
np.divmod(x, 2.0, out=(x, y))
np.sum(x, axis=0, out=v)
np.sum(x, 0, None, v)
np.max(x, axis=1, out=w)
x.sum(axis=1, out=w)
np.add.reduce(x, axis=0, out=v)
np.cumsum(x, axis=0, out=y)
np.clip(x, -0.5, 0.5, out=x)
np.matmul(y, np.eye(6), out=x)
np.dot(y, np.eye(6), out=x)
np.concatenate([x[2:], x[:2]], out=y)
np.stack([v, v], out=x[1:3])
np.take(x, [0, 1, 1, 0], axis=0, out=y)
np.add.at(x, [0, 0, 1], 1.0)
np.add.at(x, (k, j), w[:3])
np.add.at(v, k, w[:3]); np.add.at(v, [1, 1], v[:2])
np.add.at(x, (slice(None), j), w[:, None])
np.add.at(x, (0, slice(1, 3)), 2)
np.add.at(x, x > 0, 1)
np.add.at(i, [0, 0], 3)
np.subtract.at(x, [0, 0, 1], v)
np.divide.at(x, [0, 0, 1], v); np.divide.at(y, (k, j), w[:3]); np.divide.at(c, c > 0, 2)
np.power.at(x, [2, 0], 2); np.negative.at(y, (slice(1, 3), [0, 2])); np.exp.at(v, B[0])
np.power.at(x, (k[0], k[1]), 3); np.arctan2.at(w, slice(None, None, 2), w[:2])
np.bitwise_or.at(i, [3, 1], 5); np.square.at(i, 0)
np.multiply.at(x, (j, j), 2)
np.maximum.at(v, j, w[:3]); np.minimum.at(w, j, v[:3])
x.fill(3)
x[1].fill(w[0])
x.flat = 2
x.flat[3] = 7
x.flat[k] = 7
np.copyto(x, y)
np.copyto(x, v, where=b)
np.copyto(x[1:], 3)
np.copyto(i, b)
np.putmask(x, x > 0, y)
np.putmask(x, B, [1.0, 2.0])
np.place(x, x > 0, 4)
np.place(x, x > 0, [1, 2, 3]); np.place(y, B, w)
np.place(x.T, (y > 0).T, v)
np.place(i, M[:, None] & (i > 0), [7, 8])
np.put(x, [0, 7, -1], [1, 2])
np.put(x, k, w[:3]); np.put(x.T, [1, 2], 5)
np.put(x, [30, -40], 1, mode="clip"); np.put(x, [30, -40], 2, mode="wrap")
x.put([1, 2], 3)
x.sort()
x[:, 1].sort()
x.T.sort(axis=1)
np.fill_diagonal(x, 4)
np.fill_diagonal(x.T, w)
np.fill_diagonal(x.T, 4, wrap=True)
np.fill_diagonal(c[:, :2, :2], [1, 2])
np.put_along_axis(x, np.argmax(x, axis=1)[:, None], 9, axis=1)
np.put_along_axis(x, i[1:3] % 4, y[:2], 0)
np.put_along_axis(x, i[:, :1] % 2, 9, 1)
x[1:], x[0] = y[:-1], y[-1]
x[1:] = x[:-1]
x[::-1] = x
x[0], x[1] = x[1].copy(), x[0].copy()
x[0], x[1] = x[1], x[0]
x[0] = [1, 2, 3, 4, 5, 6]
x[0, :3] = [w[0], w[1], 2.0]
x[0] = range(6)
q += 1; x[0] = q
q[...] = 4; x[0] = q
"""

#: Several lines: names, views and numbers that see or do not see what is written.
PROGRAMS = [
    "z = x\nz[0] = 1\nz += 1",
    "z = x[1:]\nz[0] = 1\nx[1, 3] = 5\nv[:] = z[0]",
    "z = x[1:]\nz2 = z.T\nx[2] = 3\nz2[1] = 4\nw[:3] = z2[0]",
    "s = x[0, 0]\nx[0, 0] = 5\nv[0] = s",
    "s = x[0, 0]\ns += 1\nv[0] = s",
    "s = x[0, ..., 0]\ns += 1\nv[0] = s",
    "s = np.sum(x)\nt = s\nt += 1\nv[0], v[1] = s, t",
    "z = x[0]\nz = z + 1\nz[0] = 9\nv[:] = z",
    "for row in x:\n    row += 1\n    row[0] = 2",
    "for n, row in enumerate(x):\n    row[n] = v[n]",
    "for n in range(1, 6):\n    v[n] += v[n - 1]",
    "for n in range(1, 4):\n    x[n] = x[n - 1] * 0.5 + y[n]",
    "a, z = np.split(x, 2)\na[:] = z\nz += 1",
    "z = x.reshape(2, 12)\nz[0, 5:8] = 0\nx[3] = 7\nc[:] = z.reshape(2, 3, 4)",
    "z = x.T.reshape(3, 8)\nz[0] = 0\nx[3] = 7\nc[:] = z.reshape(2, 3, 4)",
    "z = x[k]\nz += 1\ny[:3] = z",
    "def helper(a, t):\n    a[1:-1] = t\n    a += 1\nhelper(x, 2)\nhelper(x[:, 1:4], y[1:-1, :3])",
    "n = 2\nwhile n:\n    x[n - 1] *= n\n    n -= 1",
    "z = np.zeros_like(x)\nz[1:-1] = x[1:-1]\nx = z",
    "z = np.empty_like(x)\nz[:] = x\nz[b] = 0\nx = z",
    "u, z = x[:2], x[2:]\nu[...], z[...] = z.copy(), u.copy()",
    "x[0], y[0] = y[0], x[0]",
    "z = x\nx = x * 2\nx[0] = 1\ny[:] = z",
    "z = x\nx *= 2\nx[0] = 1\ny[:] = z",
    "m = x > 0\nx[m] = -x[m]\nz = x[m]\nx[m] = 0\ny[m] = z",
    "m = x > 0\nt = y[m]\ny[:] = 0\nx[m] = t",
    "z = i\nz += 1\ni[0] = z[1]",
    "z = x.diagonal(1)\nx[1:] = 7\nv[0] = z.sum()",
    "z = x[:, 1:].diagonal()\nx[1:] = 7\nv[0] = z.sum()",
    "z = x.T[1::2].diagonal(1)\nx[...] = y\nw[:2] = z[:2]",
    "z = x[1:, 2:4][::-1].diagonal(-1)\nt = z[None].T\nx *= 3\nw[: t.size] = t[:, 0]",
    "z = x[:3, 1:2].diagonal()\nx[0] = 7\nv[0] = z[0]",
    "z = np.diagonal(c[:, :, 1:], 0, 2, 0)\nt = z.reshape(3, 2)\nc += 1\ny[:3, :2] = t",
    "z = np.einsum('ii->i', x[:, 1:5])\nz.reshape(2, 2)[1] = 5\nx[0, 1] = 4\nw[:4] = z",
    "z = np.einsum('iij->ij', c[:, :2, ::2])\nt = z.reshape(-1)\nz[1, 1] = 8\ny[0, : t.size] = t",
    "z = np.diag(x, 1)\nx.T[2] = 7\nt = np.diag(v)\nv[0] = z.sum()\ny[0] = t[0, 0]",
    "z = np.einsum('ii->i', x.ravel()[:16].reshape(4, 4))\nz[::2] = 5\ny[0] = z[0]",
    "z = np.einsum('ij->ji', y)\nz[0] = 5",
    "z = np.einsum('ij,ij->ij', x, x)\nz[0] = 1\ny[...] = z",
]


@pytest.mark.parametrize("lines", CASES.strip().splitlines())
def test_a_line_does_what_it_does_in_numpy(lines):
    check(lines)


@pytest.mark.parametrize("lines", PROGRAMS)
def test_names_and_views_see_what_numpy_lets_them_see(lines):
    check(lines)


def test_all_cases_compiled():
    """The kernels of all the lines, in one graph; and nothing is modified."""
    functions = [function(line) for line in [*CASES.strip().splitlines()[::6], *PROGRAMS]]

    def f(*args: Any) -> Any:
        return [g(*(np.multiply(a, 1) if a.dtype != bool else a & True for a in args))[:2]
                for g in functions]  # fmt: skip

    check_compiled(f, *copies(), numpy=False, python=False, separate=False)


class _Draw:
    """Random choices."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def of(self, *choices: Any) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def slice(self, size: int) -> slice:
        low, high = (self.of(None, *range(-size, size + 1)) for _ in range(2))
        return slice(low, high, self.of(None, 1, 2, -1, -2))

    def index(self, shape: tuple[int, ...], arrays: bool) -> Any:
        parts: list[Any] = []
        for size in shape:
            kind = self.of("slice", "slice", "integer", "all", *(["array"] if arrays else []))
            if kind == "slice":
                parts.append(self.slice(size))
            elif kind == "integer" and size:
                parts.append(int(self.rng.integers(-size, size)))
            elif kind == "array" and size:
                parts.append(self.rng.integers(0, size, 2))
            else:
                parts.append(slice(None))
        if self.of(*range(4)) == 0:
            return (..., *parts[len(parts) // 2 :])
        return tuple(parts)


def _view(draw: _Draw, x: Any) -> Any:
    kind = draw.of("slice", "slice", "transpose", "reshape", "split", "flip", "none")
    if kind == "slice":
        return x[draw.index(x.shape, arrays=False)] if x.ndim else x[...]
    if kind == "transpose":
        return x.transpose([int(a) for a in draw.rng.permutation(x.ndim)])
    if kind == "reshape":
        return x.reshape(draw.of((-1,), (x.size,), (1, -1), x.shape))
    if kind == "split" and x.ndim and x.shape[0] > 1:
        return np.array_split(x, 2)[draw.of(0, 1)]
    if kind == "flip":
        return np.flip(x)
    return x[None]


def _change(draw: _Draw, x: Any, other: Any) -> None:
    kind = draw.of("set", "set", "add", "mask", "array", "at", "out", "copy", "where")
    scale = float(draw.rng.normal())
    total = np.sum(other) * scale
    if not x.ndim:
        return
    if kind == "set":
        x[draw.index(x.shape, arrays=False)] = total
    elif kind == "add":
        x += draw.of(total, scale)
    elif kind == "mask":
        x[x > scale] *= draw.of(total, scale)
    elif kind == "array":
        x[draw.index(x.shape, arrays=True)] = total + 1
    elif kind == "at":
        np.add.at(x, draw.index(x.shape, arrays=True), total)
    elif kind == "out":
        np.multiply(x, scale, out=x)
    elif kind == "copy" and x.shape == other.shape:
        x[...] = other
    elif kind == "where":
        np.copyto(x, total, where=x < scale)


@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 2**32))
def test_any_sequence_on_any_views_is_what_numpy_does(seed):
    def f(x: Any, c: Any) -> Any:
        draw = _Draw(seed)
        arrays = [x, c]
        for _ in range(8):
            array = draw.of(*arrays)
            if draw.of(True, False) and len(arrays) < 6:
                view = _view(draw, array)
                if view.ndim:
                    arrays.append(view)
            else:
                _change(draw, array, draw.of(*arrays))
        return [np.multiply(a, 1) for a in arrays]

    x, c = VALUES["x"].copy(), VALUES["c"].copy()
    graph = gd.trace(f, x, c)
    expected = f(x.copy(), c.copy())
    same(graph.evaluate(x, c), expected, exact=False)
    if seed % 32 == 0:
        for got, want in zip(gd.compile(f)(x, c), expected, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)


def of_selected(x, power):
    """Functions without a value or a slope at the elements that the mask leaves out."""
    positive = x > 0
    y = np.zeros_like(x)
    y[positive] = np.log(x[positive] / power) + power * np.sqrt(x[positive])
    y[~positive] -= np.exp(x[~positive])
    y[positive] += x[positive] ** power
    return y.sum() + power * np.mean(1 / x[positive])


GRADIENTS = [
    lambda x, v: x.__setitem__((slice(1, -1),), x[:-2] * x[2:]) or x,
    lambda x, v: [x.__setitem__(n, x[n - 1] * np.sin(x[n])) for n in range(1, 4)] and x,
    lambda x, v: x.__setitem__(x > 0, np.exp(x[x > 0])) or x,
    lambda x, v: np.multiply.at(x, (np.array([0, 0]), np.array([1, 1])), v[:2]) or x,
    lambda x, v: x.T.__setitem__(np.array([1, 3]), v[:2, None]) or x,
    lambda x, v: np.sin(x, out=x, where=x > 0),
    lambda x, v: x.__setitem__((np.array([1, 1, 2]), np.array([0, 0, 1])), v[:3]) or x,
    lambda x, v: np.maximum.at(x[0], [1, 1, 2], v[:3]) or x,
]


@pytest.mark.parametrize("change", GRADIENTS)
def test_gradients_through_changes(change):
    def loss(x: Any, v: Any) -> Any:
        y = x * 1.0
        return np.sum(np.sin(change(y, v)) * y)

    gd.check_grads(loss, VALUES["x"], VALUES["v"])


def test_masked_elements_have_no_part_in_gradients():
    x, power = np.array([0.0, 1.0, 2.0, -1.0, 0.5]), 2.5
    selected = x[x > 0]
    expected = 1 / selected + power / (2 * np.sqrt(selected)) + power * selected ** (power - 1)
    slope = np.zeros(5)
    slope[x > 0] = expected - power / 3 / selected**2
    slope[x <= 0] = -np.exp(x[x <= 0])
    by_power = (np.sqrt(selected) + selected**power * np.log(selected)).sum() - 3 / power
    found = gd.grad(of_selected, argnums=(0, 1))(x, power)
    np.testing.assert_allclose(found[0], slope)
    np.testing.assert_allclose(found[1], by_power + np.mean(1 / selected))
    assert float(gd.compile(of_selected)(x, power)) == pytest.approx(of_selected(x, power))
    gd.check_grads(lambda p: gd.grad(of_selected)(x, p)[1:3], power)
    along = gd.jvp(of_selected, (x, power), (np.ones(5), 0.0))[1]
    assert float(along) == pytest.approx(slope.sum())


def test_transformed_functions_do_not_change_their_arguments():
    def bump(x: Any) -> Any:
        x[0] = x[0] * 3
        return np.sum(x)

    def f(x: Any) -> Any:
        slope = gd.grad(bump)(x)
        value, pull = gd.vjp(bump, x)
        mapped = gd.vmap(bump)(x)
        compiled = gd.compile(bump)(x)
        value += 1
        return x, slope, value, pull(np.ones(()))[0], mapped, compiled

    x = np.ones((2, 2))
    same_x, slope, value, pulled, mapped, compiled = gd.compile(f)(x)
    np.testing.assert_array_equal(same_x, x)
    np.testing.assert_array_equal(slope, [[3, 3], [1, 1]])
    np.testing.assert_array_equal(pulled, slope)
    np.testing.assert_array_equal(mapped, [4, 4])
    assert (float(value), float(compiled)) == (9, 8)


def test_a_loop_changes_the_array_that_it_carries():
    def f(x: Any) -> Any:
        def step(n: Any, x: Any) -> Any:
            x[n] += x[n - 1]
            return x

        return gd.fori_loop(1, 5, step, x)

    np.testing.assert_array_equal(gd.compile(f)(np.ones(5)), [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(gd.grad(lambda x: f(x)[4])(np.ones(5)), np.ones(5))


#: An array from outside of the traced functions.
PLAIN = np.zeros(3)


def write_into_float(x: Any) -> Any:
    i = x.astype(int)
    i += 0.5


REFUSED: list[tuple[Callable[..., Any], type[GraphError], str]] = [
    (lambda x: x.__setitem__(0, np.ones(4)), ShapeError, "values of shape (4,) to elements of"),
    (lambda x: x.__setitem__([0, 1], np.ones(4)), ShapeError, "cannot assign values of shape (4,)"),
    (lambda x: x.__setitem__(9, 1), GraphError, "index 9 is out of bounds for axis 0"),
    (lambda x: x.__setitem__(x > 0, np.ones(3)), ConcreteValueError, "np.where(mask, new, x)"),
    (lambda x: x.__setitem__(x > 0, x[x < 0]), ConcreteValueError, "Selections by different"),
    (lambda x: x.__setitem__(0, x[x < 0]), ConcreteValueError, "write x[mask] = y[mask]"),
    (lambda x: len(x[x > 0]), ConcreteValueError, "Write np.where(mask, x, 0)"),
    (lambda x: x[x > 0].shape, ConcreteValueError, "depends on values"),
    (lambda x: x[x > 0][0], ConcreteValueError, "depends on values"),
    (lambda x: np.sort(x[x > 0]), ConcreteValueError, "np.sort: indexing shape (2, 3)"),
    (lambda x: np.outer(x[x > 0], x[0]), ConcreteValueError, "it was selected at"),
    (lambda x: x[x > 0], ConcreteValueError, "depends on values"),
    (lambda x: x[(x > 0)[:, :2]], GraphError, "a boolean index of shape (2, 2)"),
    (lambda x: np.place(x, x > 0, []), gd.ArgumentError, "np.place: there is no value to place"),
    (lambda x: np.power.at(x, np.argsort(x, axis=0)[0], 2), gd.UnsupportedError,
     "Where none does, x[indices] = np.power(x[indices], b) is the same"),
    (lambda x: np.negative.at(x, [0, 0]), gd.UnsupportedError, "np.negative(x[indices]) is"),
    (lambda x: x[: np.argmax(x)], ConcreteValueError, "a bound of a slice is a traced"),
    (lambda x: x.__setitem__(slice(np.argmax(x), None), 0), ConcreteValueError, "a bound of a sl"),
    (lambda x: np.copyto(PLAIN, x[0]), UnsupportedError, "an array of NumPy"),
    (lambda x: np.add.at(PLAIN, [0], x[0, 0]), UnsupportedError, "an array of NumPy"),
    (lambda x: np.add(x[0], 1, out=PLAIN), UnsupportedError, "np.zeros, np.empty"),
    (lambda x: np.add(x, 1, out=x[0]), ShapeError, "out= is float64[3] for a result float64[2, 3]"),
    (lambda x: np.add(x, 1, out=x > 0), DtypeError, "cannot cast the result float64[2, 3]"),
    (lambda x: np.copyto(x > 0, x), DtypeError, "cannot cast float64 to bool"),
    (lambda x: np.fill_diagonal(x[0], 1), ShapeError, "has no diagonal"),
    (lambda x: gd.fori_loop(0, 2, lambda n, c: x.__setitem__(0, c) or c, 1.0), UnsupportedError,
     "the body of gd.fori_loop assigns into an array (float64[2, 3]) from outside"),
    (lambda x: gd.vmap(lambda r: x[0].__setitem__(0, r[0]) or r)(x), UnsupportedError, "gd.vmap"),
    (lambda x: gd.cond(x[0, 0] > 0, lambda: x.fill(0) or x[0], lambda: x[0]), UnsupportedError,
     "the body of gd.cond"),
    (write_into_float, DtypeError, "does not fit int64"),
]  # fmt: skip


@pytest.mark.parametrize(("f", "error", "message"), REFUSED)
def test_what_is_refused_says_why_and_where(f, error, message):
    with pytest.raises(error, match=re.escape(message)) as caught:
        gd.trace(f, np.ones((2, 3)))
    assert "\n  at " in str(caught.value)


def test_a_leaked_array_cannot_be_written():
    kept: list[Any] = []
    gd.trace(lambda x: kept.append(x) or x, np.ones(3))
    with pytest.raises(GraphError, match="its trace had ended"):
        kept[0][0] = 1
    assert f"{kept[0]}" == repr(kept[0])
