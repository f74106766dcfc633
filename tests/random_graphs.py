"""Random programs in NumPy: built on arrays step by step, then run again on traced values.

All numbers are small integers, whatever the dtype, so every order of every sum is exact: results
are compared bit by bit. `choose(n)` is where the randomness comes from: it returns one of
0, ..., n - 1, so that hypothesis can shrink a program and a plain generator can make thousands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Choose = Callable[[int], int]
Values = list[Any]
Step = Callable[[Values], Any]

#: Beyond this magnitude values are reduced, so that float32 holds every sum of products exactly.
LARGEST = 128
MOST_ELEMENTS = 600
SIZES = (3, 4, 2, 5, 1, 7, 0, 17)
DTYPES = ("float32", "float64", "int32", "int64", "bool", "uint8", "int8")


@dataclass(frozen=True)
class Program:
    """A function of arrays: `steps` extend the list of inputs, `outputs` are places in it."""

    inputs: tuple[Any, ...]
    steps: tuple[Step, ...]
    names: tuple[str, ...]
    outputs: tuple[int, ...]

    def __call__(self, *inputs: Any) -> tuple[Any, ...]:
        values = list(inputs)
        for step in self.steps:
            values.append(step(values))
        return tuple(values[i] for i in self.outputs)

    def __repr__(self) -> str:
        lines = [f"v{i} = {x.dtype}{list(x.shape)}" for i, x in enumerate(self.inputs)]
        lines += [f"v{i + len(self.inputs)} = {name}" for i, name in enumerate(self.names)]
        return "\n".join([*lines, f"return {', '.join(f'v{i}' for i in self.outputs)}"])


def program(choose: Choose, length: int, sizes: Sequence[int] = SIZES) -> Program:
    """A random program of at most `length` steps."""
    maker = _Maker(choose, sizes)
    for _ in range(1 + choose(3)):
        maker.add_input()
    inputs = tuple(maker.values)
    for _ in range(length):
        maker.add_step()
    count = len(maker.values)
    outputs = [count - 1]
    for _ in range(choose(4)):
        outputs.append(choose(count))
    return Program(inputs, tuple(maker.steps), tuple(maker.names), tuple(outputs))


class _Maker:
    """A program while it grows; `values` holds what it computes on its own inputs."""

    def __init__(self, choose: Choose, sizes: Sequence[int]) -> None:
        self.choose = choose
        self.sizes = sizes
        self.values: Values = []
        self.steps: list[Step] = []
        self.names: list[str] = []

    def pick(self, options: Sequence[Any]) -> Any:
        return options[self.choose(len(options))]

    def shape(self) -> tuple[int, ...]:
        shape = tuple(self.pick(self.sizes) for _ in range(self.pick((2, 1, 3, 0, 4))))
        return shape if math.prod(shape) <= MOST_ELEMENTS else shape[:2]

    def add_input(self) -> None:
        shape, dtype = self.shape(), np.dtype(self.pick(DTYPES))
        rng = np.random.default_rng(self.choose(1000))
        low = 0 if dtype.kind in "ub" else -3
        self.values.append(rng.integers(low, 2 if dtype.kind == "b" else 4, shape).astype(dtype))

    def operand(self) -> int:
        """One of the values, the latest ones more often."""
        count = len(self.values)
        if self.choose(3):
            return max(0, count - 1 - self.choose(3))
        return self.choose(count)

    def add_step(self) -> None:
        made = self.pick(_STEPS)(self)
        if made is None:
            return
        name, step = made
        with np.errstate(all="ignore"):
            value = np.asarray(step(self.values))
        if value.size > MOST_ELEMENTS or value.ndim > 4:
            return
        self.add(name, step, value)
        if value.dtype.kind != "b" and value.size and np.abs(value.astype(float)).max() > LARGEST:
            at = len(self.values) - 1
            self.apply(
                f"np.remainder(v{at}, 7)", lambda v: np.remainder(v[at], v[at].dtype.type(7))
            )

    def add(self, name: str, step: Step, value: Any) -> None:
        self.names.append(name)
        self.steps.append(step)
        self.values.append(value)

    def apply(self, name: str, step: Step) -> None:
        self.add(name, step, np.asarray(step(self.values)))


Made = tuple[str, Step] | None


def _is_float(value: Any) -> bool:
    return bool(value.dtype.kind == "f")


def _unary(m: _Maker) -> Made:
    i = m.operand()
    x = m.values[i]
    if x.dtype.kind == "b":
        return f"np.logical_not(v{i})", lambda v: np.logical_not(v[i])
    name = m.pick(("negative", "absolute", "square", "sign", "relu", "floor", "plus", "half"))
    if name == "floor" and not _is_float(x):
        name = "sign"
    one = x.dtype.type(1)
    calls: dict[str, Callable[[Any], Any]] = {
        "relu": lambda x: np.maximum(x, one - one),
        "plus": lambda x: x + one,
        "half": lambda x: np.floor_divide(x, one + one),
    }
    call = calls.get(name) or getattr(np, name)
    return f"{name}(v{i})", lambda v: call(v[i])


def _fitting(m: _Maker, i: int) -> int | None:
    """A value that broadcasts against value i."""
    shape = m.values[i].shape
    fits = [j for j, x in enumerate(m.values) if _broadcasts(shape, x.shape)]
    return fits[-1 - m.choose(len(fits))] if fits else None


def _broadcasts(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    try:
        return math.prod(np.broadcast_shapes(a, b)) <= MOST_ELEMENTS
    except ValueError:
        return False


def _binary(m: _Maker) -> Made:
    i = m.operand()
    j = _fitting(m, i)
    if j is None:
        return None
    if m.choose(2):
        i, j = j, i
    booleans = m.values[i].dtype.kind == m.values[j].dtype.kind == "b"
    names = ("add", "multiply", "subtract", "maximum", "minimum", "less", "equal")
    name = m.pick(("logical_and", "logical_or", "logical_xor", "maximum") if booleans else names)
    f = getattr(np, name)
    return f"np.{name}(v{i}, v{j})", lambda v: f(v[i], v[j])


def _where(m: _Maker) -> Made:
    i = m.operand()
    j = _fitting(m, i)
    k = _fitting(m, i)
    if j is None or k is None or not _broadcasts(m.values[j].shape, m.values[k].shape):
        return None
    zero = m.values[i].dtype.type(0)
    if m.values[j].dtype != m.values[k].dtype:
        return None
    return f"np.where(v{i} > 0, v{j}, v{k})", lambda v: np.where(v[i] > zero, v[j], v[k])


def _cast(m: _Maker) -> Made:
    i = m.operand()
    dtype = m.pick(("float64", "float32", "int64", "int32", "bool", "int16"))
    return f"v{i}.astype({dtype})", lambda v: v[i].astype(dtype)


def _axes(m: _Maker, ndim: int) -> tuple[int, ...]:
    return tuple(axis for axis in range(ndim) if m.choose(2) == 0)


def _reduce(m: _Maker) -> Made:
    i = m.operand()
    x = m.values[i]
    name = m.pick(("sum", "max", "min", "any", "all", "sum", "argmax", "argmin", "prod"))
    axes: Any = _axes(m, x.ndim)
    keepdims = bool(m.choose(2))
    if name in ("argmax", "argmin"):
        axes = m.choose(x.ndim) if x.ndim else None
    if name == "prod":
        return (
            f"np.prod(np.sign(v{i}), {axes})",
            lambda v: np.prod(np.where(v[i] > 0, np.int64(1), np.int64(-1)), axis=axes),
        )
    sizes = [x.shape[axis] for axis in ((axes,) if isinstance(axes, int) else axes or ())]
    if name in ("max", "min", "argmax", "argmin") and (0 in sizes or axes is None):
        return None
    f = getattr(np, name)
    text = f"np.{name}(v{i}, axis={axes}, keepdims={keepdims})"
    return text, lambda v: f(v[i], axis=axes, keepdims=keepdims)


def _minus_max(m: _Maker) -> Made:
    """What softmax and layer norm look like: a row against its own reduction, twice."""
    i = m.operand()
    x = m.values[i]
    axes = _axes(m, x.ndim)
    if x.dtype.kind == "b" or not axes or 0 in [x.shape[axis] for axis in axes]:
        return None

    def step(v: Values) -> Any:
        y = v[i] - np.max(v[i], axis=axes, keepdims=True)
        return y - np.sum(np.maximum(y, y.dtype.type(2)), axis=axes, keepdims=True).astype(y.dtype)

    return f"minus_max(v{i}, {axes})", step


def _transpose(m: _Maker) -> Made:
    i = m.operand()
    left = list(range(m.values[i].ndim))
    perm = [left.pop(m.choose(len(left))) for _ in range(len(left))]
    return f"np.transpose(v{i}, {perm})", lambda v: np.transpose(v[i], perm)


def _reshape(m: _Maker) -> Made:
    i = m.operand()
    x = m.values[i]
    shape: list[int] = []
    size = x.size
    if size == 0:
        shape = [n for n in x.shape if n != 1]
    else:
        while size > 1 and len(shape) < 3:
            divisor = m.pick([d for d in range(1, size + 1) if size % d == 0])
            shape.append(divisor)
            size //= divisor
        if size > 1:
            shape.append(size)
    return f"np.reshape(v{i}, {shape})", lambda v: np.reshape(v[i], tuple(shape))


def _slice(m: _Maker) -> Made:
    i = m.operand()
    index = []
    for size in m.values[i].shape:
        kind = m.choose(5)
        start, stop = sorted((m.choose(size + 1), m.choose(size + 1)))
        options: list[Any] = [
            slice(None), slice(start, stop), slice(None, None, -1), slice(start, None, 2),
            slice(None, None, -2),
        ]  # fmt: skip
        index.append(options[kind])
    if m.choose(3) == 0 and index and m.values[i].shape[0]:
        index[0] = m.choose(m.values[i].shape[0])
    where = tuple(index)
    return f"v{i}[{where}]", lambda v: v[i][where]


def _broadcast(m: _Maker) -> Made:
    i = m.operand()
    x = m.values[i]
    lead = tuple(m.pick(m.sizes) for _ in range(m.choose(2)))
    shape = lead + tuple(m.pick(m.sizes) if n == 1 else n for n in x.shape)
    if math.prod(shape) > MOST_ELEMENTS:
        return None
    return f"np.broadcast_to(v{i}, {shape})", lambda v: np.broadcast_to(v[i], shape)


def _expand(m: _Maker) -> Made:
    i = m.operand()
    axis = m.choose(m.values[i].ndim + 1)
    return f"np.expand_dims(v{i}, {axis})", lambda v: np.expand_dims(v[i], axis)


def _concatenate(m: _Maker) -> Made:
    i = m.operand()
    x = m.values[i]
    if not x.ndim:
        return None
    axis = m.choose(x.ndim)

    def rest(shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape[:axis] + shape[axis + 1 :]

    same = [
        j
        for j, y in enumerate(m.values)
        if y.ndim == x.ndim and y.dtype == x.dtype and rest(y.shape) == rest(x.shape)
    ]
    parts = [i] + [m.pick(same) for _ in range(1 + m.choose(2))]
    return (
        f"np.concatenate({[f'v{p}' for p in parts]}, {axis})",
        lambda v: np.concatenate([v[p] for p in parts], axis),
    )


def _pad(m: _Maker) -> Made:
    i = m.operand()
    x = m.values[i]
    widths = [(m.choose(3), m.choose(3)) for _ in range(x.ndim)]
    if not x.ndim:
        return None
    return f"np.pad(v{i}, {widths})", lambda v: np.pad(v[i], widths)


def _roll(m: _Maker) -> Made:
    i = m.operand()
    x = m.values[i]
    if not x.ndim:
        return None
    axis, shift = m.choose(x.ndim), m.choose(9) - 4
    return f"np.roll(v{i}, {shift}, {axis})", lambda v: np.roll(v[i], shift, axis)


def _cumsum(m: _Maker) -> Made:
    i = m.operand()
    x = m.values[i]
    if not x.ndim or x.dtype.kind == "b":
        return None
    axis = m.choose(x.ndim)
    return f"np.cumsum(v{i}, {axis})", lambda v: np.cumsum(v[i], axis, dtype=v[i].dtype)


def _take(m: _Maker) -> Made:
    i, j = m.operand(), m.operand()
    x, index = m.values[i], m.values[j]
    if not x.ndim or not x.shape[0] or index.size * x[0].size > MOST_ELEMENTS:
        return None
    n = x.shape[0]

    def step(v: Values) -> Any:
        return v[i][np.remainder(v[j].astype(np.int64), n)]

    return f"v{i}[v{j} % {n}]", step


def _einsum(m: _Maker) -> Made:
    i, j = m.operand(), m.operand()
    a, b = m.values[i], m.values[j]
    if a.dtype != b.dtype or a.dtype.kind == "b":
        return None
    letters = iter("abcdefgh")
    la = [next(letters) for _ in a.shape]
    lb = []
    for size in b.shape:
        known = [x for x, n in zip(la, a.shape, strict=True) if n == size and x not in lb]
        lb.append(m.pick(known) if known and m.choose(4) else next(letters))
    every = list(dict.fromkeys(la + lb))
    shared = [x for x in every if x in la and x in lb]
    kept = [x for x in every if not (x in shared and m.choose(2))]
    kept = [kept.pop(m.choose(len(kept))) for _ in range(len(kept))]
    sizes = dict(zip(la, a.shape, strict=True)) | dict(zip(lb, b.shape, strict=True))
    if math.prod(sizes[x] for x in kept) > MOST_ELEMENTS or len(kept) > 4:
        return None
    text = f"{''.join(la)},{''.join(lb)}->{''.join(kept)}"
    return f"np.einsum('{text}', v{i}, v{j})", lambda v: np.einsum(text, v[i], v[j])


def _matmul(m: _Maker) -> Made:
    """A product of a matrix with another, or with itself, and what follows it: bias and ReLU."""
    i = m.operand()
    x = m.values[i]
    if x.ndim != 2 or x.dtype.kind not in "fi":
        return None
    others = [j for j, y in enumerate(m.values) if y.ndim == 2 and y.dtype == x.dtype]
    j = m.pick(others)
    turned = m.values[j].shape[0] != x.shape[1]
    if (m.values[j].shape[1] if turned else m.values[j].shape[0]) != x.shape[1]:
        return None
    return (
        f"relu(v{i} @ v{j}{'.T' if turned else ''} + 1)",
        lambda v: np.maximum(v[i] @ (v[j].T if turned else v[j]) + v[i].dtype.type(1), 0),
    )


_STEPS: tuple[Callable[[_Maker], Made], ...] = (
    _unary, _unary, _binary, _binary, _binary, _binary, _where, _cast, _reduce, _reduce, _reduce,
    _minus_max, _transpose, _reshape, _slice, _slice, _broadcast, _expand, _concatenate, _pad,
    _roll, _cumsum, _take, _einsum, _matmul, _matmul,
)  # fmt: skip
