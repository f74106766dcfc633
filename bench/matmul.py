"""matmul: products of every shape, with bias, activation and residual, and their gradients.

Square ones; skinny ones, of a batch of 1 to 32 rows with weights of 1,024 x 1,024; many small ones
at once; then layers, tanh(x @ w + b) and relu(x @ w + b) + x, forward and with gradients. float32.
The floor is BLAS's product alone, by NumPy (for small ones in a batch a product each).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench import floors, harness, report
from bench.cases import Array, Case, Prepared, Target
from bench.functions import PULLBACK, VALUE, Function, Question, contestants, scaled

FLOOR_LABEL = "the products alone, by BLAS"


@dataclass(frozen=True)
class Product:
    """x @ w of (m, k) and (k, n), or of `count` of them; how many times the best peer is wanted."""

    m: int
    k: int
    n: int
    times: float
    count: int = 0

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        lead = (self.count,) if self.count else ()
        return {"x": (*lead, self.m, self.k), "w": (*lead, self.k, self.n)}

    @property
    def name(self) -> str:
        each = f"{self.m} x {self.k} x {self.n}"
        return f"{self.count} of {each}" if self.count else each


PRODUCTS = {
    "full": (
        *(Product(n, n, n, 1.0) for n in (64, 256, 1024, 2048)),
        Product(1024, 64, 1024, 1.0),
        *(Product(m, 1024, 1024, 2.0) for m in (1, 4, 8, 32)),
        *(Product(n, n, n, 2.0, count=(1 << 23) // n**3 * 8) for n in (8, 16, 32, 64, 128)),
    ),
    "tiny": (Product(3, 4, 5, 1.0), Product(2, 3, 4, 1.0, count=3)),
}
#: Rows and width of the layers.
LAYERS = {"full": ((1, 1024), (32, 1024), (256, 512), (1024, 1024)), "tiny": ((3, 4),)}


def product(np: Any, x: Any, w: Any) -> Any:
    return x @ w


PRODUCT = Function(product, product, product)


def tanh_layer(np: Any, x: Any, w: Any, b: Any) -> Any:
    return np.tanh(x @ w + b)


def torch_tanh_layer(torch: Any, x: Any, w: Any, b: Any) -> Any:
    return torch.tanh(torch.addmm(b, x, w))


def residual_layer(np: Any, x: Any, w: Any, b: Any) -> Any:
    return np.maximum(x @ w + b, 0) + x


def torch_residual_layer(torch: Any, x: Any, w: Any, b: Any) -> Any:
    return torch.relu(torch.addmm(b, x, w)) + x


KINDS = {
    "tanh(x @ w + b)": Function(tanh_layer, torch_tanh_layer, tanh_layer),
    "relu(x @ w + b) + x": Function(residual_layer, torch_residual_layer, residual_layer),
}


def layer_by_hand(kind: str, g: Array, x: Array, w: Array, b: Array) -> list[Array]:
    """The value, and the gradients of x, w and b for the cotangent g."""
    before = x @ w + b
    if kind.startswith("tanh"):
        out = np.tanh(before)
        inner, direct = g * (1 - out * out), np.zeros_like(x)
    else:
        out = np.maximum(before, 0) + x
        inner, direct = g * (before > 0), g
    return [out, inner @ w.T + direct, x.T @ inner, inner.sum(0)]


def product_case(shape: Product) -> Case:
    """One product."""

    def inputs() -> dict[str, Array]:
        return {key: scaled(shape.shapes[key], 1.0, seed) for seed, key in enumerate("xw")}

    def expected(inputs: Mapping[str, Array]) -> list[Array]:
        return [inputs["x"].astype(np.float64) @ inputs["w"].astype(np.float64)]

    def floor(inputs: Mapping[str, Array]) -> Prepared:
        x, w = inputs["x"], inputs["w"]
        out = x @ w
        return Prepared(lambda: expected(inputs), lambda: np.matmul(x, w, out=out))

    return Case(
        name=shape.name,
        inputs=inputs,
        expected=expected,
        builders={**contestants(PRODUCT, Question(VALUE)), "floor": floor},
        tolerance=1e-4,
        floor_label=FLOOR_LABEL,
        targets=(Target(times=shape.times),),
    )


def layer_case(kind: str, rows: int, width: int, wants: str) -> Case:
    """One layer, its value or its value and gradients."""

    def inputs() -> dict[str, Array]:
        made = {
            "x": scaled((rows, width), 1.0, seed=0),
            "w": scaled((width, width), width**-0.5, seed=1),
            "b": scaled((width,), 0.1, seed=2),
        }
        return made if wants == VALUE else {**made, "g": scaled((rows, width), 1.0, seed=3)}

    def expected(inputs: Mapping[str, Array]) -> list[Array]:
        wide = {key: array.astype(np.float64) for key, array in inputs.items()}
        g = wide.pop("g", np.ones((rows, width)))
        found = layer_by_hand(kind, g, *wide.values())
        return found[:1] if wants == VALUE else found

    def floor(inputs: Mapping[str, Array]) -> Prepared:
        shapes = [(rows, width, width)]
        if wants == PULLBACK:
            shapes += [(rows, width, width), (width, rows, width)]
        return Prepared(lambda: expected(inputs), floors.multiplying(shapes))

    asks = Question(VALUE) if wants == VALUE else Question(PULLBACK, (0, 1, 2))
    return Case(
        name=f"{kind}, {rows} x {width}" + ("" if wants == VALUE else ", gradients"),
        inputs=inputs,
        expected=expected,
        builders={**contestants(KINDS[kind], asks), "floor": floor},
        tolerance=1e-4,
        floor_label=FLOOR_LABEL,
        targets=(Target(times=2.0 if rows <= 32 else 1.3),),
    )


def cases(size: str) -> list[Case]:
    """Products, then layers."""
    return [product_case(shape) for shape in PRODUCTS[size]] + [
        layer_case(kind, rows, width, wants)
        for kind in KINDS
        for rows, width in LAYERS[size]
        for wants in (VALUE, PULLBACK)
    ]


def run(options: harness.Options) -> report.Report:
    """Run it."""
    return harness.race("matmul", cases(options.size), options)
