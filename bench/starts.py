"""The programs whose first result `compile` waits for, beside the network of `mlp`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np

from bench import attention, conv, overhead, recurrent
from bench.cases import Array, Case, Prepared
from bench.functions import VALUE, Function, Question, contestants, scaled

#: Nodes in a row, of which time and memory are to be linear.
NODES = {"full": (1_000, 10_000), "tiny": (20,)}


@cache
def programs(size: str) -> Mapping[str, Case]:
    """Training steps of networks, and nodes in a row; by name."""
    if size == "tiny":
        return {row.name: row for row in rows(size)}
    steps = {
        "LeNet-5": conv.network_case(conv.NETWORKS[size][0]),
        "LSTM by scan": recurrent.case(recurrent.Network("LSTM", 128, 32, 128), step=True),
        "transformer block": attention.case(attention.Block(2, 512, 256, 4), step=True),
    }
    return {**steps, **{row.name: row for row in rows(size)}}


def rows(size: str) -> list[Case]:
    """Operations in a row on one vector."""
    return [row_case(count) for count in NODES[size]]


def row_case(count: int) -> Case:
    chain = overhead.chain(count)

    def inputs() -> dict[str, Array]:
        return {"x": scaled((1000,), 1.0, seed=0)}

    def expected(inputs: Mapping[str, Array]) -> list[Array]:
        return [chain(np, inputs["x"].astype(np.float64))]

    def floor(inputs: Mapping[str, Array]) -> Prepared:
        return Prepared(lambda: expected(inputs), inputs["x"].copy)

    return Case(
        name=f"{count:,} nodes in a row",
        inputs=inputs,
        expected=expected,
        builders={**contestants(Function(chain, chain, chain), Question(VALUE)), "floor": floor},
        tolerance=1e-4,
        floor_label="x.copy()",
    )
