"""Gradients against finite differences, along random directions, to any order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optree

from graphdl import transforms
from graphdl.api import trace
from graphdl.errors import GradientError, GradientMismatch
from graphdl.tracing import TracedArray

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
        GradientMismatch: which is an AssertionError too.

    >>> import numpy as np, graphdl as gd
    >>> gd.check_grads(lambda x: np.exp(np.sin(x)), np.linspace(0, 1, 5))
    """
    leaves: list[Any]
    leaves, tree = optree.tree_flatten(args)  # type: ignore[arg-type]
    arrays = [_widened(leaf) for leaf in leaves]

    def flat(*values: Any) -> list[Any]:
        results = optree.tree_leaves(f(*optree.tree_unflatten(tree, values)))
        return [result for result in results if _is_float(result)]

    _check(flat, arrays, order, rtol, np.random.default_rng(seed), 1)


def _widened(leaf: Any) -> Array:
    array = np.asarray(leaf)
    wide = {"f": np.float64, "c": np.complex128}.get(array.dtype.kind)
    return array if wide is None else array.astype(wide)


def _is_float(value: Any) -> bool:
    dtype = value.dtype if isinstance(value, TracedArray) else np.asarray(value).dtype
    return dtype.kind in "fc"


def _normal(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> Array:
    numbers: Array = np.asarray(rng.normal(size=shape))
    return numbers + 1j * rng.normal(size=shape) if kind == "c" else numbers


def _check(
    f: Callable[..., Sequence[Any]],
    args: Sequence[Array],
    order: int,
    rtol: float,
    rng: np.random.Generator,
    level: int,
) -> None:
    floats = [i for i, x in enumerate(args) if x.dtype.kind in "fc"]
    if not floats:
        raise GradientError("check_grads: no argument is a float")
    weights = [_normal(rng, node.shape, node.dtype.kind) for node in trace(f, *args).outputs]

    def total(*values: Any) -> Any:
        terms = [np.real(np.sum(w * y)) for w, y in zip(weights, f(*values), strict=True)]
        return sum(terms[1:], start=terms[0])

    gradient = transforms.grad(total, argnums=floats)
    slopes = trace(gradient, *args).evaluate(*args)
    value = trace(total, *args)
    directions = [_normal(rng, args[i].shape, args[i].dtype.kind) for i in floats]
    for number, slope in zip(floats, slopes, strict=True):
        if slope.shape != args[number].shape:
            raise GradientMismatch(
                f"check_grads: the gradient of order {level} by argument {number} has shape "
                f"{slope.shape}, the argument {args[number].shape}"
            )

    def at(step: float) -> float:
        moved = list(args)
        for i, direction in zip(floats, directions, strict=True):
            moved[i] = args[i] + step * direction
        return float(value.evaluate(*moved))

    h = _STEP
    quotient = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
    products = [np.real(g * u) for g, u in zip(slopes, directions, strict=True)]
    derivative = sum(float(np.sum(p)) for p in products)
    scale = 1 + abs(at(0.0)) + sum(float(np.sum(abs(p))) for p in products)
    if not abs(derivative - quotient) <= rtol * scale:
        raise GradientMismatch(
            f"check_grads: the derivative of order {level} along a random direction is "
            f"{derivative:.10g}, finite differences say {quotient:.10g}"
        )
    if level < order:
        _check(gradient, args, order, rtol, rng, level + 1)
