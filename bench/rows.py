"""rows: softmax, cross entropy, layer norm, RMS norm: value and gradients, rows of 10 to 16,384.

Four million float32 in all. A cotangent of the result is given; so value and gradients read the
array and the cotangent and write the result and the gradient, which is what the floor copies (for
cross entropy, with a number a row as its result, half of that).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench import floors, harness, report
from bench.cases import Array, Case, Prepared, Target
from bench.functions import PULLBACK, VALUE, Function, Question, contestants, scaled

COUNT = {"full": 4_194_304, "tiny": 24}
LENGTHS = {"full": (10, 128, 1024, 16384), "tiny": (6,)}
EPSILON = 1e-5


@dataclass(frozen=True)
class Op:
    """An operation on rows; `operands` beside x, and by which arguments its gradients are asked.

    `by_hand(g, x, *operands)` is the value and the gradients in float64.
    """

    function: Function
    by: tuple[int, ...]
    by_hand: Callable[..., list[Array]]
    operands: Callable[[int, int], dict[str, Array]] = lambda rows, length: {}
    #: Whether the result is as large as x; else it is a number a row.
    elementwise: bool = True


# -- softmax ---------------------------------------------------------------------------------------


def softmax(np: Any, x: Any) -> Any:
    e = np.exp(x - np.max(x, axis=1, keepdims=True))
    return e / np.sum(e, axis=1, keepdims=True)


def softmax_by_hand(g: Array, x: Array) -> list[Array]:
    out = softmax(np, x)
    return [out, out * (g - (g * out).sum(1, keepdims=True))]


# -- log-softmax with cross entropy ----------------------------------------------------------------


def cross_entropy(np: Any, x: Any, labels: Any) -> Any:
    shifted = x - np.max(x, axis=1, keepdims=True)
    log_p = shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True))
    return -log_p[np.arange(len(labels)), labels]


def jax_cross_entropy(jax: Any, x: Any, labels: Any) -> Any:
    # As Optax has it.
    log_p = jax.nn.log_softmax(x)
    return -jax.numpy.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]


def pytensor_cross_entropy(pt: Any, x: Any, labels: Any) -> Any:
    return -pt.special.log_softmax(x, axis=1)[pt.arange(labels.shape[0]), labels]


def cross_entropy_by_hand(g: Array, x: Array, labels: Array) -> list[Array]:
    places = np.arange(len(x)), labels
    p = softmax(np, x)
    value = -np.log(p[places])
    p[places] -= 1
    return [value, g[:, None] * p]


def labels_of(rows: int, length: int) -> dict[str, Array]:
    return {"labels": np.random.default_rng(5).integers(0, length, rows)}


# -- norms -----------------------------------------------------------------------------------------


def layer_norm(np: Any, x: Any, scale: Any, shift: Any) -> Any:
    centred = x - np.mean(x, axis=1, keepdims=True)
    variance = np.mean(centred * centred, axis=1, keepdims=True)
    return centred / np.sqrt(variance + EPSILON) * scale + shift


def torch_layer_norm(torch: Any, x: Any, scale: Any, shift: Any) -> Any:
    return torch.nn.functional.layer_norm(x, x.shape[1:], scale, shift, EPSILON)


def layer_norm_by_hand(g: Array, x: Array, scale: Array, shift: Array) -> list[Array]:
    centred = x - x.mean(1, keepdims=True)
    rate = 1 / np.sqrt((centred**2).mean(1, keepdims=True) + EPSILON)
    normal = centred * rate
    part = g * scale
    dx = part - part.mean(1, keepdims=True) - normal * (part * normal).mean(1, keepdims=True)
    return [normal * scale + shift, rate * dx, (g * normal).sum(0), g.sum(0)]


def rms_norm(np: Any, x: Any, scale: Any) -> Any:
    return x / np.sqrt(np.mean(x * x, axis=1, keepdims=True) + EPSILON) * scale


def torch_rms_norm(torch: Any, x: Any, scale: Any) -> Any:
    return torch.nn.functional.rms_norm(x, x.shape[1:], scale, EPSILON)


def rms_norm_by_hand(g: Array, x: Array, scale: Array) -> list[Array]:
    rate = 1 / np.sqrt((x * x).mean(1, keepdims=True) + EPSILON)
    part, normal = g * scale, x * rate
    dx = rate * (part - normal * (part * normal).mean(1, keepdims=True))
    return [normal * scale, dx, (g * normal).sum(0)]


def scale_of(rows: int, length: int) -> dict[str, Array]:
    return {"scale": 1 + scaled((length,), 0.1, seed=6)}


def scale_and_shift(rows: int, length: int) -> dict[str, Array]:
    return {**scale_of(rows, length), "shift": scaled((length,), 0.1, seed=7)}


OPS = {
    "softmax": Op(
        Function(
            softmax,
            lambda torch, x: torch.softmax(x, dim=1),
            lambda pt, x: pt.special.softmax(x, axis=1),
            lambda jax, x: jax.nn.softmax(x),
        ),
        (0,),
        softmax_by_hand,
    ),
    "cross entropy": Op(
        Function(
            cross_entropy,
            lambda torch, x, labels: torch.nn.functional.cross_entropy(x, labels, reduction="none"),
            pytensor_cross_entropy,
            jax_cross_entropy,
        ),
        (0,),
        cross_entropy_by_hand,
        labels_of,
        elementwise=False,
    ),
    "layer norm": Op(
        Function(layer_norm, torch_layer_norm, layer_norm),
        (0, 1, 2),
        layer_norm_by_hand,
        scale_and_shift,
    ),
    "RMS norm": Op(
        Function(rms_norm, torch_rms_norm, rms_norm), (0, 1), rms_norm_by_hand, scale_of
    ),
}


def rows_case(name: str, length: int, size: str, wants: str) -> Case:
    """One operation on rows of one length, its value alone or with gradients."""
    op, rows = OPS[name], COUNT[size] // length

    def inputs() -> dict[str, Array]:
        made = {"x": scaled((rows, length), 2.0, seed=0), **op.operands(rows, length)}
        g = scaled((rows, length) if op.elementwise else (rows,), 1.0, seed=1)
        return made if wants == VALUE else {**made, "g": g}

    def expected(inputs: Mapping[str, Array]) -> list[Array]:
        wide = {
            key: array if array.dtype.kind == "i" else array.astype(np.float64)
            for key, array in inputs.items()
        }
        g = wide.pop("g", np.ones((rows, length) if op.elementwise else rows))
        found = op.by_hand(g, *wide.values())
        return found[:1] if wants == VALUE else found

    def floor(inputs: Mapping[str, Array]) -> Prepared:
        passes = 1 + op.elementwise if wants == VALUE else 2 + 2 * op.elementwise
        return Prepared(lambda: expected(inputs), floors.moving(passes * inputs["x"].nbytes))

    asks = Question(VALUE) if wants == VALUE else Question(PULLBACK, op.by)
    return Case(
        name=f"{name}, {rows} x {length}" + ("" if wants == VALUE else ", gradients"),
        inputs=inputs,
        expected=expected,
        builders={**contestants(op.function, asks), "floor": floor},
        tolerance=1e-4,
        floor_label=floors.COPY,
        targets=(Target(times=2.5), Target(times=1.4, of_floor=True)),
    )


def cases(size: str) -> list[Case]:
    """Gradients at each length; the value alone at one of them."""
    lengths = LENGTHS[size]
    return [
        *(rows_case(name, lengths[len(lengths) // 2], size, VALUE) for name in OPS),
        *(rows_case(name, length, size, PULLBACK) for name in OPS for length in lengths),
    ]


def run(options: harness.Options) -> report.Report:
    """Run it."""
    return harness.race("rows", cases(options.size), options)
