"""Operands to try each op of the table on; the tests that are generated from the table use them.

Pointwise ops need no entry: their operands are drawn from `Op.domain`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from graphdl.errors import GraphError
from graphdl.graph import Literal
from graphdl.ops import control, pointwise
from graphdl.ops.op import Op
from graphdl.ops.table import OPS
from graphdl.types import DTYPES, Dtype, TensorType


@dataclass(frozen=True)
class Case:
    """An op, its operands and attributes."""

    op: Op
    operands: tuple[np.ndarray, ...]
    attrs: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        types = ", ".join(str(TensorType(x.dtype, x.shape)) for x in self.operands)
        attributes = "".join(f", {key}={value}" for key, value in self.attrs.items())
        return f"{self.op.name}({types}{attributes})"

    @property
    def floats(self) -> tuple[int, ...]:
        """The operands that can have a gradient."""
        return tuple(
            i
            for i, x in enumerate(self.operands)
            if x.dtype.kind in "fc" and i not in self.op.undifferentiated
        )

    def __call__(self, *operands: Any) -> Any:
        """The result, or a tuple of them where the op has several."""
        result = self.op(*operands, **self.attrs)
        if self.op.results is None:
            return result
        parts = tuple(control.items(result, self.types))
        if self.op.name == "eig":
            # The sign of a vector is LAPACK's choice, and two builds of it differ.
            values, vectors = parts
            return values, vectors * vectors
        return parts

    @property
    def types(self) -> list[TensorType]:
        """Of the results."""
        types = [TensorType(x.dtype, x.shape) for x in self.operands]
        if self.op.results is None:
            return [self.op.infer(*types, **self.attrs)]
        return list(self.op.results(*types, **self.attrs))


F4, F8 = np.dtype(np.float32), np.dtype(np.float64)


def _convolution(rank: int, **given: Any) -> dict[str, Any]:
    """The attributes of a convolution: those given, else the plainest."""
    ones = (1,) * rank
    plain = {"strides": ones, "padding": ((0, 0),) * rank, "lhs_dilation": ones}
    return {**plain, "rhs_dilation": ones, "groups": 1, **given}


def _windows(window: Any, strides: Any, padding: Any = None, dilation: Any = None) -> Any:
    """The attributes of an op on windows."""
    return {
        "window": window,
        "strides": strides,
        "padding": padding or ((0, 0),) * len(window),
        "dilation": dilation or (1,) * len(window),
    }


#: Shapes of float operands, and attributes, of the ops that are not pointwise.
SHAPED: dict[str, list[tuple[tuple[tuple[int, ...], ...], dict[str, Any]]]] = {
    "sum": [
        (((3, 4),), {"axes": (0,)}), (((2, 3, 4),), {"axes": (0, 2)}), (((5,),), {"axes": (0,)}),
    ],
    "prod": [
        (((3, 4),), {"axes": (0,)}), (((2, 3, 2),), {"axes": (0, 2)}), (((1,),), {"axes": (0,)}),
    ],
    "max": [(((3, 4),), {"axes": (1,)}), (((2, 3, 4),), {"axes": (0, 2)})],
    "min": [(((3, 4),), {"axes": (1,)}), (((2, 3, 4),), {"axes": (0, 2)})],
    "argmax": [(((3, 4),), {"axis": 1}), (((2, 3, 4),), {"axis": 0})],
    "argmin": [(((3, 4),), {"axis": 1}), (((2, 3, 4),), {"axis": 0})],
    "cumsum": [(((3, 4),), {"axis": 0, "reverse": False}), (((5,),), {"axis": 0, "reverse": True})],
    "cummax": [(((3, 4),), {"axis": 0}), (((2, 5),), {"axis": 1}), (((1,),), {"axis": 0})],
    "cummin": [(((3, 4),), {"axis": 1}), (((4, 2, 3),), {"axis": 0})],
    "recurrence": [
        (((3, 4), (3, 4)), {"axis": 0, "reverse": False}),
        (((2, 5), (2, 5)), {"axis": 1, "reverse": True}),
        (((1,), (1,)), {"axis": 0, "reverse": False}),
    ],
    "sort": [(((7,),), {}), (((3, 5),), {}), (((2, 0),), {})],
    "argsort": [(((7,),), {}), (((3, 5),), {}), (((2, 0),), {}), (((2, 60),), {})],
    "searchsorted": [
        (((1,), (4,)), {"side": "left"}), (((2, 0), (2, 3)), {"side": "right"}),
    ],
    "reshape": [
        (((3, 4),), {"shape": (2, 6)}), (((),), {"shape": (1, 1)}), (((0, 3),), {"shape": (0,)}),
    ],
    "transpose": [(((2, 3, 4),), {"perm": (2, 0, 1)}), (((),), {"perm": ()})],
    "broadcast": [
        (((3,),), {"shape": (2, 3, 4), "dims": (1,)}),
        (((),), {"shape": (5,), "dims": ()}),
        (((2, 4),), {"shape": (2, 0, 4), "dims": (0, 2)}),
    ],
    "slice": [
        (((5, 4),), {"starts": (1, 3), "sizes": (2, 4), "steps": (2, -1)}),
        (((5,),), {"starts": (4,), "sizes": (5,), "steps": (-1,)}),
        (((5,),), {"starts": (0,), "sizes": (0,), "steps": (1,)}),
    ],
    "pad": [
        (((2, 3), ()), {"shape": (5, 4), "starts": (1, 3), "steps": (2, -1)}),
        (((0,), ()), {"shape": (3,), "starts": (0,), "steps": (1,)}),
    ],
    "after": [(((2, 3), (4,)), {}), (((), (2,)), {})],
    "concatenate": [
        (((2, 3), (1, 3), (0, 3)), {"axis": 0}),
        (((2, 3), (2, 1)), {"axis": 1}),
    ],
    "update": [
        (((5, 4), (2, 4)), {"starts": (1, 3), "steps": (2, -1)}),
        (((5, 6), (3, 4)), {"starts": (1, 1), "steps": (1, 1)}),
        (((), ()), {"starts": (), "steps": ()}),
        (((5,), (0,)), {"starts": (0,), "steps": (1,)}),
    ],
    "contract": [
        (((3, 4), (4, 5)), {"la": (0, 1), "lb": (1, 2), "lo": (0, 2)}),
        (((2, 3, 4), (2, 5, 4)), {"la": (0, 1, 2), "lb": (0, 3, 2), "lo": (0, 3, 1)}),
        (((4,), (4,)), {"la": (0,), "lb": (0,), "lo": ()}),
        (((3, 0), (0, 5)), {"la": (0, 1), "lb": (1, 2), "lo": (0, 2)}),
    ],
    "convolve": [
        (((2, 4, 3, 2), (3, 2, 2, 3)), _convolution(2)),
        (((2, 5, 2), (2, 2, 3)), _convolution(1, strides=(2,), padding=((1, 0),))),
        (
            ((2, 3, 4, 4), (2, 2, 2, 6)),
            _convolution(2, padding=((1, 1), (-1, 2)), lhs_dilation=(2, 1), groups=2),
        ),
        (((1, 3, 3, 2, 2), (2, 1, 2, 1, 2)), _convolution(3, rhs_dilation=(2, 1, 1), groups=2)),
        (((2, 3, 2), (1, 2, 4)), _convolution(1)),
        (((2, 5, 3), (2, 1, 3)), _convolution(1, strides=(2,), padding=((1, 0),), groups=3)),
        (((2, 0, 2), (1, 2, 4)), _convolution(1, padding=((1, 1),))),
    ],
    "filter_gradient": [
        (((2, 4, 3, 2), (2, 2, 2, 3)), {"window": (3, 2), **_convolution(2)}),
        (
            ((2, 5, 4), (2, 3, 2)),
            {"window": (2,), **_convolution(1, strides=(2,), padding=((1, 0),), groups=2)},
        ),
        (
            ((2, 3, 2), (2, 4, 3)),
            {"window": (2,), **_convolution(1, lhs_dilation=(2,))},
        ),
        (((2, 3, 2), (2, 3, 4)), {"window": (1,), **_convolution(1)}),
        (((2, 5, 3), (2, 4, 3)), {"window": (2,), **_convolution(1, groups=3)}),
        (((0, 3, 2), (0, 2, 4)), {"window": (2,), **_convolution(1)}),
    ],
    "filter_gradient_parts": [
        (((2, 4, 3, 2), (2, 2, 2, 3)), {"window": (3, 2), "parts": 3, **_convolution(2)}),
        (((3, 5, 3), (3, 4, 3)), {"window": (2,), "parts": 2, **_convolution(1, groups=3)}),
    ],
    "window_pick": [
        (((2, 4, 3, 2), (2, 4, 3, 2)), _windows((2, 2), (2, 1))),
        (((2, 5, 3), (2, 5, 3)), _windows((3,), (2,), ((1, 1),), (2,))),
        (((0, 5, 3), (0, 5, 3)), _windows((3,), (2,))),
    ],
    "window_place": [
        (((2, 2, 2, 2), (2, 4, 3, 2)), _windows((2, 2), (2, 1))),
        (((2, 2, 3), (2, 5, 3)), _windows((3,), (2,), ((1, 1),), (2,))),
        (((2, 3, 3), (2, 6, 3)), _windows((2,), (2,))),
    ],
}  # fmt: skip


def _counters(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Two keys, a first block, a stream and an index."""
    keys = rng.integers(0, 2**32, (2, 3, 4), dtype=np.uint32)
    return (*keys, *rng.integers(0, 2**64, (3, 3, 4), dtype=np.uint64))


def _sampled(rng: np.random.Generator, low: float, high: float) -> tuple[np.ndarray, ...]:
    """A parameter of a distribution, two keys and an index."""
    keys = rng.integers(0, 2**32, (2, 3, 4), dtype=np.uint32)
    return rng.uniform(low, high, (3, 4)), *keys, rng.integers(0, 2**64, (3, 4), dtype=np.uint64)


def others(rng: np.random.Generator) -> dict[str, list[Case]]:
    """Ops whose operands or attributes are of a kind of their own."""
    x, index = rng.normal(size=(5, 3)), rng.integers(0, 5, (2, 4))
    mask = rng.random((3, 4)) < 0.5
    value = {"value": Literal(rng.normal(size=(2, 3)))}
    scattered = {"size": 5}
    rows = {"axes": (0,), "starts": (0, 0), "steps": (1, 1)}
    once = {**rows, "mode": "set", "unique": True}
    cube, pair = rng.normal(size=(4, 3, 5)), rng.integers(0, 3, (2, 2))
    inner = {"axes": (1,), "starts": (3, 0, 1), "steps": (-1, 1, 2)}
    both = {"axes": (0, 2), "starts": (0, 0, 0), "steps": (1, 1, 1)}
    return {
        "any": [Case(OPS["any"], (mask,), {"axes": axes}) for axes in ((0,), (0, 1))],
        "all": [Case(OPS["all"], (mask,), {"axes": (1,)})],
        "select": [Case(OPS["select"], (mask, rng.normal(size=(3, 4)), rng.normal(size=(3, 4))))],
        "cast": [
            *(Case(OPS["cast"], (x * 3,), {"dtype": np.dtype(to)}) for to in ("f4", "f8", "i1")),
            Case(OPS["cast"], (mask,), {"dtype": F8}),
            Case(OPS["cast"], (index,), {"dtype": np.dtype("bool")}),
        ],
        "stored": [Case(OPS["stored"], (x.astype("f4"),), {"dtype": np.dtype("f2")})],
        "variable": [Case(OPS["variable"], (x,), {"serial": 0})],
        "stop_gradient": [Case(OPS["stop_gradient"], (x,))],
        "guard": [Case(OPS["guard"], (x, np.zeros(x.shape, bool)))],
        "watch": [Case(OPS["watch"], (x, np.zeros(x.shape, bool)), {"name": "f"})],
        "position": [Case(OPS["position"], (index - 5 * (index > 2),), {"size": 5})],
        "gather": [Case(OPS["gather"], (x, index)), Case(OPS["gather"], (x[:, 0], index[0]))],
        "scatter_add": [
            Case(OPS["scatter_add"], (rng.normal(size=(2, 4, 3)), index), scattered),
            Case(OPS["scatter_add"], (rng.normal(size=4), index[0]), scattered),
        ],
        "scatter": [
            Case(OPS["scatter"], (x, rng.normal(size=3), np.array(2)), once),
            Case(OPS["scatter"], (x, rng.normal(size=(2, 3)), np.array([3, 0])), once),
            *(
                Case(
                    OPS["scatter"],
                    (cube, rng.normal(size=(2, 2, 3, 2)), pair),
                    {**inner, "mode": mode, "unique": False},
                )
                for mode in ("set", "add", "multiply", "maximum", "minimum")
            ),
            Case(
                OPS["scatter"],
                (cube, rng.normal(size=(3, 3)), np.array([3, 1, 3]), np.array([4, 0, 4])),
                {**both, "mode": "set", "unique": False},
            ),
            Case(
                OPS["scatter"],
                (np.array([1.0, 2.0]), rng.normal(size=0), np.zeros(0, int)),
                {"axes": (0,), "starts": (0,), "steps": (1,), "mode": "add", "unique": False},
            ),
        ],
        "loggamma_sample": [Case(OPS["loggamma_sample"], _sampled(rng, 0.3, 5.0))],
        "poisson_sample": [
            Case(OPS["poisson_sample"], _sampled(rng, 0.0, 9.0)),
            Case(OPS["poisson_sample"], _sampled(rng, 12.0, 99.0)),
        ],
        "philox": [Case(OPS["philox"], _counters(rng))],
        "philox_wide": [Case(OPS["philox_wide"], _counters(rng))],
        "complex": [Case(OPS["complex"], (x, x[::-1]))],
        "real": [Case(OPS["real"], (x + 1j * x[::-1],))],
        "imag": [Case(OPS["imag"], (x + 1j * x[::-1],))],
        "conjugate": [Case(OPS["conjugate"], (x + 1j * x[::-1],))],
        "ldexp": [Case(OPS["ldexp"], (x, rng.integers(-3, 4, (5, 3)).astype(np.int32)))],
        "constant": [Case(OPS["constant"], (), value)],
        "iota": [Case(OPS["iota"], (), {"size": 4, "dtype": F4})],
        "extent": [Case(OPS["extent"], (), {"size": 4, "dtype": F8})],
        **matrices(rng),
    }  # fmt: skip


@cache
def _others(seed: int) -> dict[str, list[Case]]:
    return others(np.random.default_rng(seed))


def matrices(rng: np.random.Generator) -> dict[str, list[Case]]:
    """Matrices that the ops of linear algebra are fit for."""
    a, b = rng.normal(size=(2, 3, 3)), rng.normal(size=(2, 3, 4))
    definite = a @ np.swapaxes(a, -1, -2) + np.eye(3)
    regular = np.eye(3) * 3 + a
    banded = a + 3 * (np.abs(a) == np.abs(a).max(axis=-2, keepdims=True))
    factored = Case(OPS["lu"], (regular,))
    lut, pivots = factored(regular)
    flags = [
        {"lower": lower, "trans": trans, "unit": unit}
        for lower, trans, unit in ((True, False, False), (False, True, False), (True, True, True))
    ]
    return {
        "cholesky": [Case(OPS["cholesky"], (x,)) for x in (definite, definite[0])],
        "solve_triangular": [Case(OPS["solve_triangular"], (regular, b), flag) for flag in flags],
        "lu": [Case(OPS["lu"], (x,)) for x in (regular, b, b[0].T)],
        "permutation": [Case(OPS["permutation"], (pivots,), {"size": size}) for size in (3, 5)],
        "solve": [
            Case(OPS["solve"], (regular, lut, pivots, b), {"trans": trans})
            for trans in (False, True)
        ],
        "qr": [
            Case(OPS["qr"], (x,), {"columns": columns})
            for x, columns in ((regular, 3), (np.swapaxes(b, -1, -2), 0), (b[0].T, 3))
        ],
        "eig": [Case(OPS["eig"], (x,)) for x in (a, definite[0] + np.diag([0, 1, 3]))],
        "solve_sylvester": [Case(OPS["solve_sylvester"], (regular, definite, a))],
        "solve_banded": [
            Case(OPS["solve_banded"], (x, y), {"lower": lower, "upper": 2 - lower})
            for x, y, lower in ((banded, b, 1), (banded[0], b[0], 0), (banded[0], b[0], 2))
        ],
        "expm": [Case(OPS["expm"], (x,)) for x in (a, a[0] * 9, a[0] * 0.01)],
        "eigh": [
            Case(
                OPS["eigh"], (definite + np.diag([0, 1, 3]),), {"lower": lower, "vectors": vectors}
            )
            for lower, vectors in ((True, True), (False, True), (True, False))
        ],
        "svd": [
            Case(OPS["svd"], (x,), {"full": full, "vectors": vectors})
            for x, full, vectors in (
                (regular, True, True),
                (b, False, True),
                (b[0].T, False, True),
                (b, False, False),
            )
        ],
        "lstsq": [Case(OPS["lstsq"], (b, b, b, a[0], b, b))],
        "log_det": [Case(OPS["log_det"], (a[:, 0, 0], regular, lut, pivots))],
        "det": [Case(OPS["det"], (a[:, 0, 0], regular, lut, pivots))],
    }


def draw(rng: np.random.Generator, domain: tuple[float, float], dtype: Dtype, shape: Any) -> Any:
    """Values in the domain: dense enough for floats, whole for integers, coins for booleans."""
    low, high = domain
    if dtype.kind == "f":
        return rng.uniform(low, high, shape).astype(dtype)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    least = max(int(np.ceil(low)), 0 if dtype.kind == "u" else -100)
    return rng.integers(least, max(int(high), least + 1) + 1, shape).astype(dtype)


def pointwise_case(op: Op, dtype: Dtype, shape: Any, seed: int = 0) -> Case | None:
    """Operands of one dtype from the op's domain, if it takes that dtype."""
    rng = np.random.default_rng(seed)
    if op.name in ("left_shift", "right_shift"):
        domains: Any = ((0.0, 50.0), (0.0, 5.0))
    elif op.name == "power" and dtype.kind != "f":
        domains = ((0.0, 6.0), (0.0, 3.0))
    else:
        domains = op.domain
    operands = tuple(draw(rng, domain, dtype, shape) for domain in domains)
    try:
        op.infer(*(TensorType(x.dtype, x.shape) for x in operands))
    except GraphError:
        return None
    return Case(op, operands)


def cases(op: Op, dtype: Any = F8, seed: int = 0) -> list[Case]:
    """What to try the op on, with floats of `dtype` (of any dtype of it for pointwise ops)."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if op.name in SHAPED:
        return [
            Case(op, tuple(np.asarray(rng.normal(size=s)).astype(dtype) for s in shapes), attrs)
            for shapes, attrs in SHAPED[op.name]
        ]
    special = _others(seed)
    if op.name in special:
        return [
            Case(op, tuple(x.astype(dtype) if x.dtype == F8 else x for x in c.operands), c.attrs)
            for c in special[op.name]
        ]
    if op.family != "pointwise":
        return []
    found = (pointwise_case(op, dtype, shape, seed) for shape in ((3, 4), (), (0, 2)))
    return [case for case in found if case is not None]


def pointwise_dtypes(op: Op) -> list[Dtype]:
    """The dtypes that a pointwise op takes in all operands."""
    return [dtype for dtype in DTYPES if pointwise_case(op, dtype, (3,)) is not None]


#: The pointwise ops whose operands are drawn from their domain.
DRAWN = [
    op
    for op in OPS.values()
    if op.family == "pointwise" and op.name not in others(np.random.default_rng(0))
]
assert pointwise.add in DRAWN
