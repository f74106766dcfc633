"""reduce: sums, maxima, logsumexp, moments over each axis; broadcast, then reduced, with gradients.

Four million float32 reduced over rows, columns, everything, the middle of three axes, and arrays
that do not lie in order; then what pairs of rows of two arrays give, summed over one of them, where
an answer need not keep a number for each pair. The floor moves as many bytes as have to be read
and written; for pairs it is as many multiply-adds as they take, by BLAS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench import floors, harness, report
from bench.cases import Array, Case, Prepared, Target
from bench.functions import PULLBACK, VALUE, Function, Question, contestants, scaled

# -- over axes -------------------------------------------------------------------------------------

Axes = int | tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """An array of `shape`, what of it is reduced (it, its transpose, every other column), where."""

    name: str
    shape: tuple[int, ...]
    axes: Axes
    seen: Callable[[Any], Any] = lambda x: x


def transposed(x: Any) -> Any:
    return x.T


def every_other(x: Any) -> Any:
    return x[:, ::2]


LAYOUTS = {
    "full": (
        Layout("rows", (2048, 2048), 1),
        Layout("columns", (2048, 2048), 0),
        Layout("everything", (2048, 2048), (0, 1)),
        Layout("the middle of 3 axes", (64, 512, 128), 1),
        Layout("rows of a transpose", (2048, 2048), 1, transposed),
        Layout("rows of every other column", (2048, 2048), 1, every_other),
    ),
    "tiny": (
        Layout("the middle of 3 axes", (2, 3, 4), 1),
        Layout("rows of every other column", (3, 5), 1, every_other),
    ),
}


def stable_logsumexp(np: Any, x: Any, axes: Axes) -> Any:
    largest = np.max(x, axis=axes, keepdims=True)
    return np.log(np.sum(np.exp(x - largest), axis=axes)) + np.max(x, axis=axes)


def moments(np: Any, x: Any, axes: Axes) -> Any:
    return np.mean(x, axis=axes), np.var(x, axis=axes)


def torch_moments(torch: Any, x: Any, axes: Axes) -> Any:
    variance, mean = torch.var_mean(x, dim=axes, correction=0)
    return mean, variance


@dataclass(frozen=True)
class Reduction:
    """A reduction in the names of each library, of (module, x, axes)."""

    numpy: Callable[..., Any]
    torch: Callable[..., Any]
    pytensor: Callable[..., Any]
    jax: Callable[..., Any] | None = None


REDUCTIONS = {
    "sum": Reduction(
        lambda np, x, axes: np.sum(x, axis=axes),
        lambda torch, x, axes: torch.sum(x, dim=axes),
        lambda pt, x, axes: pt.sum(x, axis=axes),
    ),
    "max": Reduction(
        lambda np, x, axes: np.max(x, axis=axes),
        lambda torch, x, axes: torch.amax(x, dim=axes),
        lambda pt, x, axes: pt.max(x, axis=axes),
    ),
    "logsumexp": Reduction(
        stable_logsumexp,
        lambda torch, x, axes: torch.logsumexp(x, dim=axes),
        lambda pt, x, axes: pt.logsumexp(x, axis=axes),
        lambda jax, x, axes: jax.nn.logsumexp(x, axis=axes),
    ),
    "mean and variance": Reduction(
        moments,
        torch_moments,
        lambda pt, x, axes: (pt.mean(x, axis=axes), pt.var(x, axis=axes)),
    ),
}


def over_axes(reduction: Reduction, layout: Layout) -> Function:
    """The reduction of what is seen of x."""

    def of(definition: Callable[..., Any]) -> Callable[..., Any]:
        return lambda module, x: definition(module, layout.seen(x), layout.axes)

    jax = None if reduction.jax is None else of(reduction.jax)
    return Function(of(reduction.numpy), of(reduction.torch), of(reduction.pytensor), jax)


def axes_case(name: str, layout: Layout) -> Case:
    """One reduction of one layout."""
    reduction = REDUCTIONS[name]
    function = over_axes(reduction, layout)

    def inputs() -> dict[str, Array]:
        return {"x": scaled(layout.shape, 1.0, seed=0) + np.float32(0.5)}

    def expected(inputs: Mapping[str, Array]) -> list[Array]:
        found = function.numpy(np, inputs["x"].astype(np.float64))
        return [np.asarray(part) for part in (found if isinstance(found, tuple) else (found,))]

    def floor(inputs: Mapping[str, Array]) -> Prepared:
        return Prepared(lambda: expected(inputs), floors.moving(inputs["x"].nbytes))

    return Case(
        name=f"{name}, {layout.name}",
        inputs=inputs,
        expected=expected,
        builders={**contestants(function, Question(VALUE)), "floor": floor},
        tolerance=1e-4,
        floor_label=floors.COPY,
        targets=(Target(times=1.5),),
    )


# -- pairs -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pairs:
    """What pairs of rows give, reduced over the second: shapes, and the work of a pair.

    `multiply_adds` counts an elementary function as ten of them, about what its polynomial takes.
    `by_hand(inputs, g)` is the value, and the gradients for the cotangent g, in float64.
    """

    function: Function
    by: tuple[int, ...]
    multiply_adds: int
    by_hand: Callable[[Mapping[str, Array], Array], list[Array]]
    shapes: Mapping[str, Mapping[str, tuple[int, ...]]]


def tanh_of_products(np: Any, x: Any, y: Any) -> Any:
    return np.sum(np.tanh(x[:, None] * y[None, :]), axis=1)


def tanh_by_hand(inputs: Mapping[str, Array], g: Array) -> list[Array]:
    x, y = inputs["x"], inputs["y"]
    t = np.tanh(np.outer(x, y))
    slope = (1 - t * t) * g[:, None]
    return [t.sum(1), slope @ y, slope.T @ x]


def least_distance(np: Any, x: Any, y: Any) -> Any:
    return np.min(np.sum((x[:, None, :] - y[None, :, :]) ** 2, axis=2), axis=1)


def torch_least_distance(torch: Any, x: Any, y: Any) -> Any:
    return torch.amin(torch.sum((x[:, None, :] - y[None, :, :]) ** 2, dim=2), dim=1)


def distance_by_hand(inputs: Mapping[str, Array], g: Array) -> list[Array]:
    x, y = inputs["x"], inputs["y"]
    squares = ((x[:, None] - y) ** 2).sum(2)
    nearest = squares.argmin(1)
    dx = 2 * g[:, None] * (x - y[nearest])
    dy = np.zeros_like(y)
    np.add.at(dy, nearest, -dx)
    return [squares.min(1), dx, dy]


def kernel_product(np: Any, x: Any, y: Any, b: Any) -> Any:
    squares = np.sum((x[:, None, :] - y[None, :, :]) ** 2, axis=2)
    return np.sum(np.exp(-0.5 * squares) * b, axis=1)


def jax_kernel_product(jax: Any, x: Any, y: Any, b: Any) -> Any:
    return kernel_product(jax.numpy, x, y, b)


def torch_kernel_product(torch: Any, x: Any, y: Any, b: Any) -> Any:
    squares = torch.sum((x[:, None, :] - y[None, :, :]) ** 2, dim=2)
    return torch.sum(torch.exp(-0.5 * squares) * b, dim=1)


def kernel_by_hand(inputs: Mapping[str, Array], g: Array) -> list[Array]:
    x, y, b = inputs["x"], inputs["y"], inputs["b"]
    kernel = np.exp(-0.5 * ((x[:, None] - y) ** 2).sum(2))
    weights = kernel * b * g[:, None]
    dx = weights @ y - weights.sum(1)[:, None] * x
    dy = weights.T @ x - weights.sum(0)[:, None] * y
    return [kernel @ b, dx, dy, g @ kernel]


PAIRS = {
    "sum over j of tanh(x_i y_j)": Pairs(
        Function(
            tanh_of_products,
            lambda torch, x, y: torch.sum(torch.tanh(x[:, None] * y[None, :]), dim=1),
            tanh_of_products,
        ),
        (0, 1),
        12,
        tanh_by_hand,
        {"full": {"x": (3000,), "y": (4000,)}, "tiny": {"x": (4,), "y": (3,)}},
    ),
    "least squared distance": Pairs(
        Function(least_distance, torch_least_distance, least_distance),
        (0, 1),
        7,
        distance_by_hand,
        {"full": {"x": (3000, 3), "y": (4000, 3)}, "tiny": {"x": (4, 3), "y": (5, 3)}},
    ),
    "Gaussian kernel times b": Pairs(
        Function(kernel_product, torch_kernel_product, kernel_product),
        (0, 1, 2),
        18,
        kernel_by_hand,
        {
            "full": {"x": (3000, 3), "y": (4000, 3), "b": (4000,)},
            "tiny": {"x": (4, 3), "y": (5, 3), "b": (5,)},
        },
    ),
}


def pairs_case(name: str, size: str, wants: str) -> Case:
    """The value of pairs, or with the gradients for a cotangent."""
    pairs = PAIRS[name]
    shapes = pairs.shapes[size]
    count = shapes["x"][0] * shapes["y"][0]

    def inputs() -> dict[str, Array]:
        made = {key: scaled(shape, 1.0, seed) for seed, (key, shape) in enumerate(shapes.items())}
        return made if wants == VALUE else {**made, "g": scaled(shapes["x"][:1], 1.0, seed=9)}

    def expected(inputs: Mapping[str, Array]) -> list[Array]:
        wide = {key: array.astype(np.float64) for key, array in inputs.items()}
        g = wide.pop("g", np.ones(shapes["x"][0]))
        found = pairs.by_hand(wide, g)
        return found[:1] if wants == VALUE else found

    def floor(inputs: Mapping[str, Array]) -> Prepared:
        depth = pairs.multiply_adds * (1 if wants == VALUE else 2)
        rows = max(1, count // 1024**2)
        shape = (rows * depth, 1024, 1024) if count >= 1024**2 else (depth, count, 1)
        return Prepared(lambda: expected(inputs), floors.multiplying([shape]))

    asks = Question(VALUE) if wants == VALUE else Question(PULLBACK, pairs.by)
    words = name if wants == VALUE else f"{name}, gradients"
    return Case(
        name=words,
        inputs=inputs,
        expected=expected,
        builders={**contestants(pairs.function, asks), "floor": floor},
        tolerance=1e-3,
        floor_label="as many multiply-adds, by BLAS",
        targets=(Target(times=1.5),),
    )


def cases(size: str) -> list[Case]:
    """Each reduction of each layout, then pairs, forward and with gradients."""
    axes = [axes_case(name, layout) for name in REDUCTIONS for layout in LAYOUTS[size]]
    return axes + [pairs_case(name, size, wants) for name in PAIRS for wants in (VALUE, PULLBACK)]


def run(options: harness.Options) -> report.Report:
    """Run it."""
    return harness.race("reduce", cases(options.size), options)
