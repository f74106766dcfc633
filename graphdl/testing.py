"""Gradients against finite differences, along random directions, to any order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphdl import transforms
from graphdl.api import trace
from graphdl.errors import GradientError, GradientMismatch, GraphError
from graphdl.graph import Graph, Node
from graphdl.ops import control
from graphdl.tracing import TracedArray, where_text
from graphdl.trees import flatten, leaf_names, leaves_of, unflatten
from graphdl.types import kind_of

Array = np.ndarray[Any, Any]

#: The step of the differences. With weights (8, -1) / 12 at h and 2h the method errs by h**4 times
#: the fifth derivative, and by about 2e-16 / h times the value: both are below 1e-11 here.
_STEP = 1e-4


def check_grads(
    f: Callable[..., Any], *args: Any, order: int = 2, rtol: float = 1e-6, seed: int = 0
) -> None:
    """Compare the gradient of `f` at `args` with finite differences.

    All float results are added up with random weights (of complex ones, the real part of that); the
    derivative of the sum along a random direction, the real part of <gradient, direction>, is
    compared with the difference quotient. For `order` 2 and
    more, so is the gradient of that derivative. Everything is computed in float64 by the NumPy
    interpreter, so this checks the gradient rules and not the compiled kernels.

    Args:
        f: a function of arrays (or trees of them) that returns at least one float array.
        args: where to check: floats are cast to float64, complex numbers to complex128, and varied;
            the rest stays as it is.
            `f` must be smooth within 2e-4 of it.
        order: how many times to differentiate.
        rtol: the tolerance, relative to the sum of the magnitudes that <gradient, direction> adds.
        seed: of the weights and directions.

    Raises:
        GradientMismatch: which is an AssertionError too. It names an argument and an element by
            which the derivative is wrong, both values, and the line of the operation whose rule is
            wrong by itself, if there is one.

    >>> import numpy as np, graphdl as gd
    >>> gd.check_grads(lambda x: np.exp(np.sin(x)), np.linspace(0, 1, 5))
    """
    leaves, tree = flatten(args)
    arrays = [_widened(leaf) for leaf in leaves]

    def flat(*values: Any) -> list[Any]:
        results = leaves_of(f(*unflatten(tree, values)))
        return [result for result in results if _is_float(result)]

    if not any(kind_of(x.dtype) in "fc" for x in arrays):
        raise GradientError("check_grads: no argument is a float")
    names, results = leaf_names(f, args, {}), trace(flat, *arrays).outputs
    _check(flat, results, arrays, names, order, rtol, np.random.default_rng(seed), 1)


def _widened(leaf: Any) -> Array:
    array = np.asarray(leaf)
    wide = {"f": np.float64, "c": np.complex128}.get(kind_of(array.dtype))
    return array if wide is None else array.astype(wide)


def _is_float(value: Any) -> bool:
    dtype = value.dtype if isinstance(value, TracedArray) else np.asarray(value).dtype
    return kind_of(dtype) in "fc"


def _normal(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> Array:
    numbers: Array = np.asarray(rng.normal(size=shape))
    return numbers + 1j * rng.normal(size=shape) if kind == "c" else numbers


def _check(
    f: Callable[..., Sequence[Any]],
    results: Sequence[Node],
    args: Sequence[Array],
    names: Sequence[str],
    order: int,
    rtol: float,
    rng: np.random.Generator,
    level: int,
) -> None:
    """`results` are what the trace of `f` gives."""
    floats = [i for i, x in enumerate(args) if kind_of(x.dtype) in "fc"]
    weights = [_normal(rng, node.shape, kind_of(node.dtype)) for node in results]

    def total(*values: Any) -> Any:
        terms = [np.real(np.sum(w * y)) for w, y in zip(weights, f(*values), strict=True)]
        return sum(terms[1:], start=terms[0])

    gradient = transforms.grad(total, argnums=floats)
    backward = trace(gradient, *args)
    slopes = backward.evaluate(*args)
    value = trace(total, *args)
    directions = [_normal(rng, args[i].shape, kind_of(args[i].dtype)) for i in floats]
    for number, slope in zip(floats, slopes, strict=True):
        if slope.shape != args[number].shape:
            raise GradientMismatch(
                f"check_grads: the gradient of order {level} by argument {number} has shape "
                f"{slope.shape}, the argument {args[number].shape}"
            )

    def at(steps: Sequence[Array]) -> float:
        moved = list(args)
        for i, step in zip(floats, steps, strict=True):
            moved[i] = args[i] + step
        return float(value.evaluate(*moved))

    def compared(along: Sequence[Array]) -> tuple[float, float, bool]:
        """The derivative along a direction, the quotient, and whether they agree."""
        # where a direction does not go, a slope of nan or infinity says nothing
        products = [
            np.where(u == 0, 0.0, np.real(g * u)) for g, u in zip(slopes, along, strict=True)
        ]
        derivative = sum(float(np.sum(p)) for p in products)
        scale = size + sum(float(np.sum(abs(p))) for p in products)
        quotient = _quotient(lambda h: at([h * u for u in along]))
        return derivative, quotient, abs(derivative - quotient) <= rtol * scale

    size = 1 + abs(at([0.0 * u for u in directions]))
    derivative, quotient, agree = compared(directions)
    if not agree:
        message = (
            f"check_grads: the derivative of order {level} along a random direction is "
            f"{derivative:.10g}, finite differences say {quotient:.10g}"
        )
        part, place = _narrowed(directions, lambda along: compared(along)[2])
        single = [np.zeros_like(u) for u in directions]
        single[part][place] = 1.0
        slope, difference, _ = compared(single)
        name = names[floats[part]]
        message += (
            f"\n  by {name} at {list(place)} it is {slope:.10g}, finite differences say "
            f"{difference:.10g}"
        )
        raise GradientMismatch(message + _wrong_rule(value, args), name, place, slope, difference)
    if level < order:
        _check(gradient, backward.outputs, args, names, order, rtol, rng, level + 1)


def _quotient(at: Callable[[float], float]) -> float:
    """The slope of a function of a number at 0."""
    h = _STEP
    return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)


def _narrowed(
    directions: Sequence[Array], agree: Callable[[Sequence[Array]], bool]
) -> tuple[int, tuple[int, ...]]:
    """The array and the element by which gradient and differences disagree most likely.

    Of a direction in which they disagree, halves are kept in which they still do.
    """
    sizes = [u.size for u in directions]
    low, high = 0, sum(sizes)
    while high - low > 1:
        middle = (low + high) // 2
        if agree(_restricted(directions, low, middle)):
            low = middle
        else:
            high = middle
    part = 0
    while low >= sizes[part]:
        low -= sizes[part]
        part += 1
    return part, tuple(int(i) for i in np.unravel_index(low, directions[part].shape))


def _restricted(directions: Sequence[Array], low: int, high: int) -> list[Array]:
    """The directions with zeros but for elements low to high, all arrays counted in a row."""
    flat = np.concatenate([u.ravel() for u in directions])
    flat[:low] = 0
    flat[high:] = 0
    parts = np.split(flat, np.cumsum([u.size for u in directions])[:-1])
    return [
        part.reshape(u.shape).astype(u.dtype) for part, u in zip(parts, directions, strict=True)
    ]


# --- which rule is wrong ----------------------------------------------------------------------


def _wrong_rule(graph: Graph, args: Sequence[Array]) -> str:
    """The line of the first operation whose own rule is not the slope of its own values."""
    values: dict[Node, Array] = dict(zip(graph.inputs, args, strict=True))
    rng = np.random.default_rng(0)
    for node in graph.operations:
        operands = [values[operand] for operand in node.inputs]
        with np.errstate(all="ignore"):
            values[node] = np.asarray(node.op.evaluate(*operands, **dict(node.attrs)))
        if node.op.vjp is not None and node.op.family != "control" and node.op is not control.item:
            try:
                if not _is_right(node, graph, values, rng):
                    return f"\n  the rule of {node.op.name} is wrong{_line(node, graph)}"
            except GraphError:
                continue  # of a kind that is not to be had by itself
    return ""


def _line(node: Node, graph: Graph) -> str:
    return where_text(graph.sources.get(node))


def _is_right(
    node: Node, graph: Graph, values: dict[Node, Array], rng: np.random.Generator
) -> bool:
    """Whether the rule of a node agrees with finite differences at the values of its operands.

    Of an op that is a function with a rule of its own, the differences are those of the function.
    """
    is_custom = node.op.family == "custom"
    operands = list(dict.fromkeys(node.inputs[1:] if is_custom else node.inputs))
    floats = [x for x in operands if kind_of(x.dtype) == "f" and x.inputs]
    floats += [x for x in operands if kind_of(x.dtype) == "f" and x in graph.inputs]
    if not floats or kind_of(node.dtype) != "f":
        return True
    weights = rng.normal(size=node.shape)
    small = Graph(tuple(floats), (node.inputs[0] if is_custom else node,))
    fixed = {x: values[x] for x in node.inputs if x not in floats}

    def forward(moved: dict[Node, Array]) -> Array:
        if is_custom:
            return np.asarray(small.evaluate(*(moved[x] for x in floats)))
        given = [moved[x] if x in moved else fixed[x] for x in node.inputs]
        with np.errstate(all="ignore"):
            return np.asarray(node.op.evaluate(*given, **dict(node.attrs)))

    def pulled(*given: Any) -> Any:
        by_node = dict(zip(floats, given, strict=True))
        inputs = [by_node[x] if x in by_node else values[x] for x in node.inputs]
        return np.sum(weights * node.op(*inputs, **dict(node.attrs)))

    start = [values[x] for x in floats]
    along = [rng.normal(size=x.shape) for x in floats]
    found = trace(transforms.grad(pulled, argnums=tuple(range(len(floats)))), *start)
    slopes = found.evaluate(*start)
    derivative = sum(float(np.sum(g * u)) for g, u in zip(slopes, along, strict=True))
    quotient = _quotient(
        lambda h: float(
            np.sum(
                weights
                * forward({x: v + h * u for x, v, u in zip(floats, start, along, strict=True)})
            )
        )
    )
    scale = (
        1
        + abs(quotient)
        + sum(float(np.sum(abs(g * u))) for g, u in zip(slopes, along, strict=True))
    )
    return not np.isfinite(quotient) or abs(derivative - quotient) <= 1e-5 * scale
